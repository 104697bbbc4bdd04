"""Dask collections of rows, weights and responsibilities, and their blocks."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import dask
    import dask.array as da
    import dask.dataframe as dd
    import distributed
    import pandas as pd
    from dask.base import tokenize
    from pandas.api.types import is_numeric_dtype
except ImportError:
    raise ImportError("Mixtures of rows on a cluster need Dask. Install it: pip install 'fastgmm[dask]'") from None

from fastgmm.data.conversion import aligned, as_rows, as_weights, filled
from fastgmm.data.dask_source import DaskSource

from .annotations import RowsLike
from .base import BaseMixture
from .validation import check_block_resp, check_shape

__all__ = [
    "DaskRows",
    "DaskWeights",
    "as_frame",
    "blocks_of_resp",
    "da",
    "distributed",
    "highest_label",
    "is_collection",
    "is_numeric_dtype",
    "predicted",
    "prepared_resp",
    "tokenize",
    "weight_blocks",
]

DaskRows: TypeAlias = da.Array | dd.DataFrame | RowsLike
DaskWeights: TypeAlias = da.Array | dd.Series | ArrayLike


def is_collection(X: Any) -> bool:
    """Return whether X is a Dask array, data frame or series."""
    return isinstance(X, da.Array | dd.DataFrame | dd.Series)


def as_frame(partition: Any, labels: tuple[Any, ...]) -> Any:
    """Convert a partition of a data frame to numbers, with columns as `labels`."""
    X = as_rows(aligned(partition, labels))
    return pd.DataFrame(X, columns=pd.Index(labels), index=partition.index)


def predicted(X: NDArray[Any], local: BaseMixture, method: str) -> NDArray[Any]:
    """Return the result of a method for a block, which may have no rows."""
    X = as_rows(X)
    # A block that a filter has emptied: the method is called with one row, for the shape of its result.
    values: NDArray[Any] = getattr(local, method)(X if len(X) else np.zeros((1, X.shape[1]), X.dtype))
    return values[: len(X)]


def weight_blocks(sample_weight: Any, X: Any) -> list[Any]:
    """Return weights in blocks with the sizes of the blocks of X."""
    if not is_collection(sample_weight):
        if any(n != n for n in X.chunks[0]) if isinstance(X, da.Array) else True:  # an unknown size is NaN
            raise ValueError(
                "sample_weight must be a Dask array or series with the blocks of X, since their sizes are unknown, "
                f"got {type(sample_weight).__name__}. Convert it, or call X.compute_chunk_sizes()."
            )
        sample_weight = as_weights(sample_weight)
        if sample_weight.shape != X.shape[:1]:
            raise ValueError(f"sample_weight.shape == {sample_weight.shape}, expected {X.shape[:1]}!")
        sample_weight = da.from_array(sample_weight, chunks=(X.chunks[0],))
    if isinstance(X, da.Array) and isinstance(sample_weight, da.Array) and not np.isnan(sum(X.chunks[0])):
        if sample_weight.shape != X.shape[:1]:
            raise ValueError(f"sample_weight.shape == {sample_weight.shape}, expected {X.shape[:1]}!")
        sample_weight = sample_weight.rechunk((X.chunks[0],))
    blocks = sample_weight.to_delayed()
    blocks = list(blocks.ravel()) if isinstance(blocks, np.ndarray) else list(blocks)
    expected = X.numblocks[0] if isinstance(X, da.Array) else X.npartitions
    if len(blocks) != expected:
        raise ValueError(
            f"sample_weight must have as many blocks as X ({expected}), got {len(blocks)}. Repartition it like X."
        )
    return blocks


def blocks_of_resp(resp: Any, source: DaskSource) -> list[Any]:
    """Return labels or responsibilities, delayed, in the blocks of a source."""
    sizes = source.rows_by_block
    if not is_collection(resp):
        values, ends = np.asarray(filled(resp)), np.cumsum(sizes)
        check_shape(values, (source.n_samples, *values.shape[1:]), "resp_init")
        return [dask.delayed(values[end - n : end]) for n, end in zip(sizes, ends, strict=True)]
    if isinstance(resp, da.Array):
        columns = {1: -1} if resp.ndim > 1 else {}
        has_known_size = not np.isnan(resp.shape[0])
        if has_known_size:
            check_shape(resp, (source.n_samples, *resp.shape[1:]), "resp_init")
        resp = resp.rechunk({0: tuple(sizes), **columns} if has_known_size else columns)
    blocks: list[Any] = np.ravel(resp.to_delayed()).tolist()
    if len(blocks) != len(sizes):
        raise ValueError(
            f"resp_init must have as many blocks as X ({len(sizes)}), got {len(blocks)}. Repartition it like X."
        )
    return blocks


def prepared_resp(resp: Any, n_samples: int, number: int, *, n_components: int) -> NDArray[Any]:
    """Return valid labels or responsibilities of a block; errors name the block."""
    try:
        return check_block_resp(filled(resp), n_samples, n_components)
    except ValueError as error:
        raise ValueError(f"{error}, in block {number}") from None


def highest_label(resp: NDArray[Any]) -> int:
    """Return the highest label of a block, or 0 for responsibilities."""
    return int(resp.max()) if resp.ndim == 1 else 0
