"""Float32 rows for which sums in float32 will not do: they are taken in float64, slice after slice.

Squares of rows in very large units overflow, in very small units they become zero, and where features depend on each
other what is left of a variance has no digits. Rows are not copied as a whole, so memory stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.mixture.layouts import LAYOUTS
from fastgmm.mixture.parameters import INFLATED_IN_SINGLE, SMALLEST_IN_SINGLE
from fastgmm.mixture.statistics import SufficientStatistics, positive_weight_sums, scatter_about_means

# Memory for the copy in float64 of float32 rows that leave the range of float32.
BYTES_IN_DOUBLE = 8 * 1024 * 1024


def parts_in_double(X: NDArray) -> Iterator[slice]:
    """Slices of float32 rows whose copies in float64 fit a fixed amount of memory."""
    rows = max(1024, BYTES_IN_DOUBLE // (8 * X.shape[1]))
    for start in range(0, len(X), rows):
        yield slice(start, start + rows)


def sum_in_double(
    X: NDArray,
    given: dict[str, Any],
    outputs: dict[str, NDArray | None],
    function: Callable[[NDArray, dict[str, Any]], SufficientStatistics],
) -> SufficientStatistics:
    """Statistics of float32 rows, computed in float64 slice by slice.

    Parameters
    ----------
    X : (n, D) float32
    given : dict
        Arrays with an entry for each row, or None.
    outputs : dict
        Arrays of float32 to write to, with an entry for each row, or None.
    function : callable (rows, arguments) -> SufficientStatistics
        Statistics of a slice in float64, of which the arguments are the entries of what is given and of the outputs.
    """
    total = None
    for part in parts_in_double(X):
        wide = {name: None if out is None else np.empty(out[part].shape) for name, out in outputs.items()}
        here = {name: None if values is None else values[part] for name, values in given.items()}
        statistics = function(X[part].astype(np.float64), here | wide)
        with np.errstate(over="ignore"):  # a log-density beyond float32 is -inf
            for name, values in wide.items():
                if values is not None:
                    outputs[name][part] = values  # type: ignore[index]
        total = statistics if total is None else total + statistics
    assert total is not None
    return total


def has_overflowed(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether sums of float32 rows are not finite; those of finite rows are finite in float64."""
    if dtype != np.float32 or np.isnan(statistics.log_likelihood):  # rows of NaN stay so
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return not np.isfinite(statistics.first_moments.sum() + statistics.scatter.sum())


def has_underflowed(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether squares of float32 rows may be below the range of float32; False if all rows are equal."""
    if dtype != np.float32:
        return False
    scatter = LAYOUTS[statistics.layout].variances(statistics.scatter)
    moves, weights = np.abs(statistics.first_moments), statistics.weight_sums[:, np.newaxis]
    if statistics.has_shared_scatter:
        moves, weights = moves.sum(axis=0), np.asarray(statistics.total_weight)
    return bool(((scatter < SMALLEST_IN_SINGLE * weights) & ((scatter > 0) | (moves > 0))).any())


def has_lost_digits(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether the scatter of float32 rows has lost the digits that a Cholesky factor needs."""
    if dtype != np.float32 or not LAYOUTS[statistics.layout].has_matrices:
        return False
    scatter = scatter_about_means(statistics, positive_weight_sums(statistics))
    scatter = scatter.reshape(-1, *scatter.shape[-2:])
    variances = np.einsum("kdd->kd", scatter)
    variances[variances <= 0] = 1  # constant features, and components without rows
    factor, well_defined = kernels.factor_covariances(scatter)
    inflation = np.sqrt(variances) * np.einsum("kdd->kd", factor)
    return not well_defined.all() or bool(inflation.max() > INFLATED_IN_SINGLE)
