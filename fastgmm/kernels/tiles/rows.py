"""Rows and weights as kernels read them; division into chunks and tiles."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.runtime import CACHE_LINE, Scratch
from fastgmm.kernels.compiler.simd import COLUMN_MULTIPLE


def _tile_bytes() -> int:
    """Return three quarters of the size of the L2 cache.

    The size is taken as 512 KB if the system does not report it.
    """
    with contextlib.suppress(OSError, ValueError):
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(size.removesuffix("K")) * 1024 * 3 // 4
    return 384 * 1024


# Bytes that the arrays of a tile may fill. Half of L2 cost 12 % with 512 diagonal components, all of L2 up to 10 % with
# 64 components of 64 features.
TILE_BYTES = _tile_bytes()
# Rows of a tile.
MAX_TILE_WIDTH = 512
# Chunks of a pass: enough for many threads, but few enough that their sums take little memory and time to add.
MAX_CHUNKS = 256
DEFAULT_CHUNKS = 32
MIN_CHUNKS = 8
# The number of chunks is a multiple of the largest of these that does not exceed it, so that 2, 4, 8 or 16 threads get
# equal numbers of chunks: of 97 chunks one of 16 threads had seven and the others six.
CHUNK_MULTIPLES = (32, 16, 8)
# Rows of a chunk from which on there are more than DEFAULT_CHUNKS chunks.
ROWS_PER_CHUNK = 2048
# Fewest rows of a chunk, unless there are fewer rows.
MIN_ROWS_PER_CHUNK = 512
# Bytes that the sums of all chunks may fill.
PARTIAL_BYTES = 64 * 1024 * 1024


class RowsView(NamedTuple):
    """An array of rows in the form that kernels read.

    ``X[n, d] = flat[n * row_stride + d * column_stride]``.
    """

    flat: np.ndarray
    row_stride: int
    column_stride: int


def rows_view(X: np.ndarray) -> RowsView:
    """Return a read-only view of a two-dimensional float array.

    The array is copied only if it is neither C- nor F-contiguous, not aligned, or not in the machine's byte order.

    Raises
    ------
    TypeError
        If X is not a two-dimensional array of float64 or float32.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.newbyteorder("=") not in (np.float32, np.float64):
        raise TypeError(
            f"rows must be a two-dimensional array of float64 or float32, got shape {X.shape} and dtype {X.dtype}"
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
    """Return a point to subtract from rows, given points among them.

    Each of its coordinates is that of a point, the one nearest to zero. Subtracting a number that is no larger than the
    row's own loses at most the rounding of the row. The mean would not do: one row of 1e30 would move it so far that
    the other rows lost their digits.

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
    """Division of rows into chunks and tiles.

    n_chunks : int
    rows_per_chunk : int
    width : int
        Rows of a tile.
    scratch : Scratch
        Scratch memory for a tile.
    """

    n_chunks: int
    rows_per_chunk: int
    width: int
    scratch: Scratch


def tiling(
    n_samples: int, scratch_rows: int, dtype: np.dtype, partial_bytes: int = 0, multiply_adds: float = math.inf
) -> Tiling:
    """Divide rows into chunks and tiles, by the shape of the problem only.

    The number of threads has no effect.

    Parameters
    ----------
    n_samples : int
    scratch_rows : int
        Numbers of scratch memory for each row of a tile.
    dtype : float64 or float32
        The dtype of these numbers.
    partial_bytes : int
        Bytes of the sums of one chunk.
    multiply_adds : float
        Approximate number of multiply-adds of all rows together. If it is too small for a second thread, there is one
        chunk.
    """
    width_in_cache = TILE_BYTES // (scratch_rows * dtype.itemsize) // COLUMN_MULTIPLE * COLUMN_MULTIPLE
    max_width = max(COLUMN_MULTIPLE, min(width_in_cache, MAX_TILE_WIDTH))
    max_chunks = max(DEFAULT_CHUNKS, min(MAX_CHUNKS, n_samples // ROWS_PER_CHUNK))
    n_chunks = max(MIN_CHUNKS, min(max_chunks, PARTIAL_BYTES // max(partial_bytes, 1)))
    n_chunks -= n_chunks % max(multiple for multiple in CHUNK_MULTIPLES if multiple <= n_chunks)
    if multiply_adds <= runtime.MIN_PARALLEL_MULTIPLY_ADDS:
        n_chunks = 1
    # Equal chunks, and equal tiles in each: a short last one has the overhead of a whole one.
    rows_per_chunk = _round_up(max(-(-n_samples // n_chunks), min(n_samples, MIN_ROWS_PER_CHUNK)))
    n_tiles = -(-rows_per_chunk // max_width)
    width = _round_up(-(-rows_per_chunk // n_tiles))
    # A cache line more than the width: rows whose length is a power of two would compete for the same lines of L1.
    scratch = Scratch(scratch_rows, width + CACHE_LINE // dtype.itemsize, dtype)
    return Tiling(-(-n_samples // rows_per_chunk), rows_per_chunk, width, scratch)


def _round_up(n: int) -> int:
    return -(-n // COLUMN_MULTIPLE) * COLUMN_MULTIPLE


class WeightsView(NamedTuple):
    """Weights in the form that kernels read, and their scale.

    The weights have been divided by `scale`.

    weights : (N,) or (0,) float64
        Empty if all weights are 1. The largest is between 1e-10 and 1e10, so that no sum overflows and float32 tiles
        can hold them.
    scale : float
    """

    weights: np.ndarray
    scale: float


def weights_view(sample_weight: ArrayLike | None, n_samples: int) -> WeightsView:
    """Return weights as a float64 read-only array.

    They are scaled by a power of two if necessary.

    Raises
    ------
    ValueError
        If the shape is not (n_samples,), or a weight is negative, infinite or NaN.
    """
    if sample_weight is None:
        return WeightsView(read_only(np.empty(0)), 1.0)
    weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape ({n_samples},), got {weights.shape}: give one weight per row")
    if not weights.min(initial=0.0) >= 0 or not np.isfinite(weights).all():
        raise ValueError("sample_weight should not be negative, infinite or NaN")
    highest = float(weights.max(initial=0.0))
    if highest == 0 or 1e-10 <= highest <= 1e10:
        return WeightsView(read_only(weights), 1.0)
    scale = 2.0 ** np.floor(np.log2(highest))  # a power of two: nothing is rounded
    return WeightsView(read_only(weights / scale), scale)


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a read-only view.

    A kernel's argument then has the same type whatever the caller's array is.
    """
    view = array.view()
    view.flags.writeable = False
    return view
