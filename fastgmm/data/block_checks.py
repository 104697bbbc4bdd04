"""Checks of blocks of rows that are about to be computed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Kinds of dtypes whose values are real numbers: floats, integers and booleans.
REAL_KINDS = "fiub"


def check_values(
    X: NDArray, weights: NDArray | None, where: Callable[[int], str], columns: Sequence[Any] | None = None
) -> None:
    """Check that rows are finite, and that weights are finite and not negative.

    Parameters
    ----------
    X : (n, D) float64 or float32
    weights : (n,) float64 or None
    where : callable (row) -> str
        Describes the place of a row in messages.
    columns : sequence of length D, optional
        Labels of the columns. Without labels messages have the column's number.

    Raises
    ------
    ValueError
        With the place of the first invalid number.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # the sum may overflow although all values are finite
        if not np.isfinite(X.sum()) and not (finite := np.isfinite(X)).all():
            row, feature = (int(i) for i in np.argwhere(~finite)[0])
            is_nan = np.isnan(X[row, feature])
            problem = "NaN" if is_nan else f"infinity or a value too large for {X.dtype}"
            note = " Missing and masked values count as NaN." if is_nan else ""
            label = columns[feature] if columns else feature
            raise ValueError(f"Input X contains {problem}, in {where(row)}, column {label!r}.{note}")
        if weights is not None and not (weights.min(initial=0.0) >= 0 and np.isfinite(weights.sum())):
            invalid = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
            if len(invalid):
                row = int(invalid[0])
                raise ValueError(f"Weights must be finite and not negative, got {weights[row]} in {where(row)}.")


def check_weight_array(weights: Any, dtype: np.dtype, n_samples: int | None) -> None:
    """Raise ValueError if weights are not one real number for each row.

    Parameters
    ----------
    weights : array-like
        Anything with a shape.
    dtype : dtype
        The dtype of the weights.
    n_samples : int or None
        The number of rows; None if it is unknown.
    """
    shape = tuple(weights.shape)
    if len(shape) != 1 or n_samples not in (None, shape[0]) or dtype.kind not in REAL_KINDS:
        wanted = "one number for each row" if n_samples is None else f"{n_samples} numbers, one for each row"
        raise ValueError(f"weight must be {wanted}, got {dtype} of shape {shape}")


def check_weight_count(n_weights: int, n_rows: int) -> None:
    """Raise ValueError if a block does not have one weight for each row."""
    if n_weights != n_rows:
        raise ValueError(f"a block of {n_rows} rows must have {n_rows} weights, got {n_weights}")
