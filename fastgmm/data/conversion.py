"""Conversion of rows and weights to real numbers, by scikit-learn's rules.

scikit-learn ignores the mask of a masked array. Here a masked value is a missing value, NaN, in every source.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.utils
import sklearn.utils.validation
from numpy.typing import NDArray

from .block_checks import REAL_KINDS

FLOATS = [np.float64, np.float32]
# Largest number of column labels that a message lists.
MAX_LABELS = 20


def filled(values: Any) -> Any:
    """Return a masked array as a plain array with NaN for masked values.

    Anything else is returned unchanged.
    """
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
    """Apply scikit-learn's `validate_data` to X, with masked values as NaN.

    Plain arrays that it would return unchanged are returned at once: for one row, its checks take most of the time of a
    prediction.
    """
    if _needs_no_validation(estimator, X, **options):
        if options.get("reset", True):
            estimator.n_features_in_ = X.shape[1]
        return X
    return sklearn.utils.validation.validate_data(estimator, filled(X), **options)


def _needs_no_validation(
    estimator: Any, X: Any, *, reset: bool = True, dtype: Any = None, ensure_min_samples: int = 1, **others: Any
) -> bool:
    """Return whether scikit-learn would accept X, return it unchanged, and note no more than the number of features."""
    if type(X) is not np.ndarray or others or X.ndim != 2 or X.dtype not in (np.float64, np.float32):
        return False
    if not X.dtype.isnative or len(X) < max(1, ensure_min_samples) or X.shape[1] < 1:
        return False
    if hasattr(estimator, "feature_names_in_"):
        return False
    if not reset and X.shape[1] != getattr(estimator, "n_features_in_", None):
        return False
    with np.errstate(all="ignore"):
        return bool(np.isfinite(X.sum()))


def check_sample_weight(sample_weight: Any, X: NDArray, **options: Any) -> NDArray:
    """Apply scikit-learn's `_check_sample_weight`, with masked values as NaN."""
    return sklearn.utils.validation._check_sample_weight(filled(sample_weight), X, **options)


def as_rows(block: Any) -> NDArray:
    """Return an array or a data frame as an array (n, D) of real numbers.

    Missing values become NaN.

    Raises
    ------
    ValueError, TypeError
        If scikit-learn would refuse the rows in memory. Values that are not finite are accepted.
    """
    return _as_numbers(block, 2, "rows")


def as_weights(values: Any) -> NDArray:
    """Return an array or a series as an array (n,) of real numbers.

    Missing values become NaN.
    """
    return _as_numbers(values, 1, "weights")


def _as_numbers(values: Any, n_dimensions: int, name: str) -> NDArray:
    values = filled(values)
    if type(values) is np.ndarray or type(values) is np.memmap:
        if values.ndim == n_dimensions and values.dtype.kind in REAL_KINDS:
            return values
        if values.ndim != n_dimensions:
            raise ValueError(_wrong_shape(name, n_dimensions, values.shape))
        refused = values.dtype if values.dtype.kind not in REAL_KINDS + "cO" else None
    else:
        without_rows = np.asarray(values[:0]) if column_labels(values) else np.empty(0)
        refused = without_rows.dtype if without_rows.dtype.kind in "mM" else None
    # scikit-learn would convert dates, although blocks may have different units of time, and strings of digits.
    if refused is not None:
        raise ValueError(f"{name} must be real numbers, got dtype {refused}")
    array = sklearn.utils.check_array(
        values,
        dtype=FLOATS,
        ensure_2d=n_dimensions == 2,
        ensure_all_finite=False,
        ensure_min_samples=0,
        ensure_min_features=0,
        input_name=name,
    )
    if array.ndim != n_dimensions:
        raise ValueError(_wrong_shape(name, n_dimensions, array.shape))
    return array


def _wrong_shape(name: str, n_dimensions: int, shape: tuple) -> str:
    wanted = "two dimensions, (n, D)" if n_dimensions == 2 else "one dimension, (n,)"
    return f"{name} must have {wanted}, got shape {shape}"


def column_labels(block: Any) -> tuple | None:
    """Return the labels of the columns of a data frame, or None for an array."""
    if isinstance(block, np.ndarray):
        return None
    # The attribute is looked up in the type, as a pandas column may have any name. Arrow's `columns` are values.
    attribute = next((name for name in ("column_names", "columns") if hasattr(type(block), name)), None)
    labels = None if attribute is None else getattr(block, attribute)
    return None if labels is None else tuple(labels)


def feature_names(labels: tuple | None) -> tuple[str, ...] | None:
    """Return labels of columns as names of features.

    As in scikit-learn, they are None unless all labels are strings.
    """
    return labels if labels and all(isinstance(label, str) for label in labels) else None


def aligned(block: Any, labels: tuple | None) -> Any:
    """Return a data frame with its columns in the order of `labels`.

    `pandas.concat` aligns columns in the same way.

    Raises
    ------
    ValueError
        If the labels are not the same, or only one of the two has labels.
    """
    block_labels = column_labels(block)
    if block_labels == labels:
        return block
    if block_labels is None or labels is None:
        raise ValueError(
            f"the columns must be {_listed(labels)}, got {_listed(block_labels)}: give all blocks as data frames, or "
            "all as arrays"
        )
    if len(set(labels)) < len(labels) or len(block_labels) != len(labels) or set(block_labels) != set(labels):
        raise ValueError(f"the columns must be {_listed(labels)}, got {_listed(block_labels)}")
    return block.select(list(labels)) if hasattr(type(block), "select") else block[list(labels)]


def _listed(labels: tuple | None) -> str:
    if labels is None:
        return "unnamed"
    shown = ", ".join(map(repr, labels[:MAX_LABELS]))
    return f"[{shown}, ...]" if len(labels) > MAX_LABELS else f"[{shown}]"


def prefixed(error: ValueError | TypeError, name: str) -> ValueError | TypeError:
    """Return an error with a name before the message of another error."""
    kind = TypeError if isinstance(error, TypeError) else ValueError  # subclasses may take other arguments
    return kind(f"{name}: {error}")
