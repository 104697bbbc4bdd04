"""Rows as kernels read them, and how they are cut into chunks and tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .simd import COLUMN_MULTIPLE

# A tile's arrays fill at most this much of L2, which is 256 KB on the smallest CPU of interest.
TILE_BYTES = 192 * 1024
MAX_TILE_WIDTH = 512
# Chunks: enough to keep many threads busy, few enough that their sums are cheap to add and to hold.
MAX_CHUNKS = 256
MIN_CHUNKS = 16
MIN_TILES_A_CHUNK = 2
PARTIAL_BYTES = 64 * 1024 * 1024


class RowsView(NamedTuple):
    """An array of rows as kernels read it: ``X[n, d] = flat[n * row_stride + d * column_stride]``."""

    flat: np.ndarray
    row_stride: int
    column_stride: int


def rows_view(X: np.ndarray) -> RowsView:
    """A read-only view of a two-dimensional float array; copies only if X is neither C- nor F-contiguous."""
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(
            f"rows must be a two-dimensional array of float64 or float32, but have shape {X.shape} and dtype {X.dtype}"
        )
    if not X.dtype.isnative or not X.flags.aligned:
        X = X.astype(X.dtype.newbyteorder("="))
    n_samples, n_features = X.shape
    if X.flags.f_contiguous and not X.flags.c_contiguous:
        flat, strides = X.T.reshape(-1), (1, n_samples)
    else:
        flat, strides = np.ascontiguousarray(X).reshape(-1), (n_features, 1)
    flat = flat.view()
    flat.flags.writeable = False
    return RowsView(flat, *strides)


def shift_origin(points: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """A point to subtract from rows, given points among them: for each feature the coordinate nearest to zero.

    Not their mean: one row of 1e30 would draw that away, and the other rows would lose their digits. A subtraction of
    something no larger than the row itself loses at most the rounding of the row.

    Parameters
    ----------
    points : (n, D)
        Means of components, or rows.
    dtype : float64 or float32
        The rows' dtype.

    Returns
    -------
    origin : (D,) of that dtype
    """
    return points[np.abs(points).argmin(axis=0), np.arange(points.shape[1])].astype(dtype)


class Tiling(NamedTuple):
    """How rows are cut: `n_chunks` chunks of `rows_a_chunk` rows, each in tiles of `width` rows."""

    n_chunks: int
    rows_a_chunk: int
    width: int


def tiling(n_samples: int, scratch_rows: int, itemsize: int, partial_bytes: int = 0) -> Tiling:
    """Cut rows into chunks and tiles, by the shape of the problem alone: threads have no say in it.

    Parameters
    ----------
    n_samples : int
    scratch_rows : int
        Numbers of scratch for each row of a tile.
    itemsize : int
        Bytes of one such number.
    partial_bytes : int
        Size of the sums of one chunk.
    """
    fitting = TILE_BYTES // (scratch_rows * itemsize) // COLUMN_MULTIPLE * COLUMN_MULTIPLE
    width = max(COLUMN_MULTIPLE, min(fitting, MAX_TILE_WIDTH))
    affordable = max(MIN_CHUNKS, min(MAX_CHUNKS, PARTIAL_BYTES // max(partial_bytes, 1)))
    tiles = -(-n_samples // width)
    tiles_a_chunk = max(MIN_TILES_A_CHUNK, -(-tiles // affordable))
    return Tiling(max(1, -(-tiles // tiles_a_chunk)), tiles_a_chunk * width, width)


def weights_view(sample_weight: ArrayLike | None, n_samples: int) -> np.ndarray:
    """Weights as kernels read them, float64 and read-only; an empty array for ones."""
    if sample_weight is None:
        return read_only(np.empty(0))
    weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight has shape {weights.shape}, but there are {n_samples} rows")
    return read_only(weights)


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: arguments are always of the same type, whatever the caller's array is."""
    view = array.view()
    view.flags.writeable = False
    return view
