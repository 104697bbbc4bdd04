"""Conversion of what users give as rows to arrays of real numbers, by scikit-learn's rules.

scikit-learn ignores the mask of a masked array. Here a masked value is a missing value, that is NaN, in every source.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.utils
import sklearn.utils.validation
from numpy.typing import NDArray

FLOATS = [np.float64, np.float32]
# Kinds of dtypes whose values are real numbers: floats, integers and booleans.
REAL_KINDS = "fiub"
# Labels of columns that an error message names.
MOST_LABELS = 20


def filled(values: Any) -> Any:
    """Return a masked array as a plain one with NaN for masked values; return anything else unchanged."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if not np.ma.is_masked(values):
        return np.asarray(values)
    # The smallest float dtype that holds the values, and NaN.
    return np.ma.filled(values.astype(np.result_type(values.dtype, np.float16)), np.nan)


def check_array(array: Any, **options: Any) -> Any:
    """Apply scikit-learn's `check_array`, with masked values as NaN."""
    return sklearn.utils.check_array(filled(array), **options)


def validate_data(estimator: Any, X: Any, **options: Any) -> Any:
    """Apply scikit-learn's `validate_data` to X, with masked values as NaN."""
    return sklearn.utils.validation.validate_data(estimator, filled(X), **options)


def check_sample_weight(sample_weight: Any, X: NDArray, **options: Any) -> NDArray:
    """Apply scikit-learn's `_check_sample_weight`, with masked values as NaN."""
    return sklearn.utils.validation._check_sample_weight(filled(sample_weight), X, **options)


def as_rows(block: Any) -> NDArray:
    """Return an array or a data frame as an array (n, D) of real numbers, with NaN for missing values.

    Raises
    ------
    ValueError, TypeError
        If scikit-learn would refuse the rows in memory. Values that are not finite are accepted.
    """
    return _as_numbers(block, 2, "rows")


def as_weights(values: Any) -> NDArray:
    """Return an array or a series as an array (n,) of real numbers, with NaN for missing values."""
    return _as_numbers(values, 1, "weights")


def _as_numbers(values: Any, n_dimensions: int, what: str) -> NDArray:
    values = filled(values)
    if type(values) is np.ndarray or type(values) is np.memmap:
        if values.ndim == n_dimensions and values.dtype.kind in REAL_KINDS:
            return values
        if values.ndim != n_dimensions:
            raise ValueError(_wrong_shape(what, n_dimensions, values.shape))
        refused = values.dtype if values.dtype.kind not in REAL_KINDS + "cO" else None
    else:
        some = np.asarray(values[:0]) if column_labels(values) else np.empty(0)
        refused = some.dtype if some.dtype.kind in "mM" else None
    if refused is not None:  # scikit-learn would convert dates, in whatever unit a block has, and digits in strings
        raise ValueError(f"{what} should hold real numbers, but hold {refused}")
    array = sklearn.utils.check_array(
        values,
        dtype=FLOATS,
        ensure_2d=n_dimensions == 2,
        ensure_all_finite=False,
        ensure_min_samples=0,
        ensure_min_features=0,
        input_name=what,
    )
    if array.ndim != n_dimensions:
        raise ValueError(_wrong_shape(what, n_dimensions, array.shape))
    return array


def _wrong_shape(what: str, n_dimensions: int, shape: tuple) -> str:
    wanted = "two dimensions, (n, D)" if n_dimensions == 2 else "one dimension, (n,)"
    return f"{what} should have {wanted}, but have shape {shape}"


def column_labels(block: Any) -> tuple | None:
    """Return the labels of a data frame's columns (pandas, polars, Arrow), or None for an array."""
    if isinstance(block, np.ndarray):
        return None
    # Looked for in the type, as a pandas column may have any name. Arrow's `columns` are values.
    attribute = next((name for name in ("column_names", "columns") if hasattr(type(block), name)), None)
    labels = None if attribute is None else getattr(block, attribute)
    return None if labels is None else tuple(labels)


def feature_names(labels: tuple | None) -> tuple[str, ...] | None:
    """Return labels of columns as names of features; None unless all are strings, as in scikit-learn."""
    return labels if labels and all(isinstance(label, str) for label in labels) else None


def aligned(block: Any, labels: tuple | None) -> Any:
    """Return a data frame with its columns in the order of `labels`, as `pandas.concat` aligns them.

    Raises
    ------
    ValueError
        If the columns are others, or only one of the two has labels.
    """
    found = column_labels(block)
    if found == labels:
        return block
    if found is None or labels is None:
        given = "unnamed" if found is None else _listed(found)
        wanted = "unnamed" if labels is None else _listed(labels)
        raise ValueError(
            f"the columns should be {wanted}, but are {given}; give all blocks as data frames or all as arrays"
        )
    if len(set(labels)) < len(labels) or len(found) != len(labels) or set(found) != set(labels):
        raise ValueError(f"the columns should be {_listed(labels)}, but are {_listed(found)}")
    return block.select(list(labels)) if hasattr(type(block), "select") else block[list(labels)]


def _listed(labels: tuple) -> str:
    shown = ", ".join(map(repr, labels[:MOST_LABELS]))
    return f"[{shown}, ...]" if len(labels) > MOST_LABELS else f"[{shown}]"


def renamed(error: ValueError | TypeError, what: str) -> ValueError | TypeError:
    """Return an error like another one, with a name before its message."""
    kind = TypeError if isinstance(error, TypeError) else ValueError  # subclasses may take other arguments
    return kind(f"{what}: {error}")
