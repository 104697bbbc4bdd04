"""Sums of float32 rows that need float64.

The squares of very large numbers overflow in float32, and the squares of very small numbers become zero. If features
depend on each other, float32 leaves no digits of their conditional variances. Such rows are summed in float64. They are
copied slice by slice, so that the memory needed does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.mixture.layouts import LAYOUTS
from fastgmm.mixture.parameters import INFLATED_IN_SINGLE, SMALLEST_IN_SINGLE
from fastgmm.mixture.statistics import (
    SufficientStatistics,
    has_shared_scatter,
    positive_weight_sums,
    scatter_about_means,
)

# Bytes of a slice of rows in float64.
BYTES_IN_DOUBLE = 8 * 1024 * 1024
MIN_ROWS_IN_DOUBLE = 1024


def parts_in_double(X: NDArray) -> Iterator[slice]:
    """Yield slices of rows whose copies in float64 take `BYTES_IN_DOUBLE`."""
    n_rows = max(MIN_ROWS_IN_DOUBLE, BYTES_IN_DOUBLE // (8 * X.shape[1]))
    for start in range(0, len(X), n_rows):
        yield slice(start, start + n_rows)


def sum_in_double(
    X: NDArray,
    inputs: dict[str, Any],
    outputs: dict[str, NDArray | None],
    function: Callable[[NDArray, dict[str, Any]], SufficientStatistics],
) -> SufficientStatistics:
    """Return statistics of float32 rows, summed in float64 slice by slice.

    Parameters
    ----------
    X : (n, D) float32
    inputs : dict
        Arrays with an entry for each row, or None, by name.
    outputs : dict
        Arrays of float32 that are written, with an entry for each row, or None, by name.
    function : callable (rows, arguments) -> SufficientStatistics
        Returns the statistics of a slice of rows in float64. The arguments are the slices of inputs and outputs.
    """
    total = None
    for part in parts_in_double(X):
        outputs_of_part = {name: None if out is None else np.empty(out[part].shape) for name, out in outputs.items()}
        inputs_of_part = {name: None if values is None else values[part] for name, values in inputs.items()}
        statistics = function(X[part].astype(np.float64), inputs_of_part | outputs_of_part)
        with np.errstate(over="ignore"):  # a log-density out of the range of float32 becomes -inf
            for name, values in outputs_of_part.items():
                if values is not None:
                    outputs[name][part] = values  # type: ignore[index]
        total = statistics if total is None else total + statistics
    assert total is not None
    return total


def has_overflowed(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether sums of float32 rows have overflowed.

    Sums of finite rows are finite in float64.
    """
    if dtype != np.float32 or np.isnan(statistics.log_likelihood):  # float64 does not help rows with NaN
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(statistics.first_moments.sum() + statistics.scatter.sum())


def has_underflowed(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether squares of float32 rows may have underflowed.

    If all rows are equal, they have not.
    """
    if dtype != np.float32:
        return False
    scatter = LAYOUTS[statistics.layout].variances(statistics.scatter)
    moves, weights = np.abs(statistics.first_moments), statistics.weight_sums[:, np.newaxis]
    if has_shared_scatter(statistics):
        moves, weights = moves.sum(axis=0), np.asarray(statistics.total_weight)
    return bool(((scatter < SMALLEST_IN_SINGLE * weights) & ((scatter > 0) | (moves > 0))).any())


def has_lost_digits(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether scatter of float32 rows has too few digits for a factor."""
    if dtype != np.float32 or not LAYOUTS[statistics.layout].has_matrices:
        return False
    scatter = scatter_about_means(statistics, positive_weight_sums(statistics))
    scatter = scatter.reshape(-1, *scatter.shape[-2:])
    variances = np.einsum("kdd->kd", scatter)
    variances[variances <= 0] = 1  # constant features, and components without rows
    factor, well_defined = kernels.factor_covariances(scatter)
    inflation = np.sqrt(variances) * np.einsum("kdd->kd", factor)
    return not well_defined.all() or bool(inflation.max() > INFLATED_IN_SINGLE)
