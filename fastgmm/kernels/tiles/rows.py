"""Rows as kernels read them, and how they are cut into chunks and tiles."""

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
    """Three quarters of the L2 cache, of 512 KB if the system does not tell how large it is.

    Half of it cost 12 % more with 512 diagonal components, all of it up to 10 % more with 64 of 64 features.
    """
    with contextlib.suppress(OSError, ValueError):
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().strip()
        return int(size.removesuffix("K")) * 1024 * 3 // 4
    return 384 * 1024


# What a tile's arrays may fill.
TILE_BYTES = _tile_bytes()
MAX_TILE_WIDTH = 512
# Chunks: enough to keep many threads busy, few enough that adding up their sums, and the memory for them, cost little.
MAX_CHUNKS, MANY_CHUNKS, MIN_CHUNKS = 256, 32, 8
EVEN_CHUNKS = (32, 16, 8)
ROWS_PER_CHUNK, MIN_ROWS_PER_CHUNK = 2048, 512
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
    """How rows are cut: `n_chunks` chunks of `rows_per_chunk` rows, in tiles of `width` rows; and a tile's scratch."""

    n_chunks: int
    rows_per_chunk: int
    width: int
    scratch: Scratch


def tiling(
    n_samples: int, scratch_rows: int, dtype: np.dtype, partial_bytes: int = 0, operations: float = math.inf
) -> Tiling:
    """Cut rows into chunks and tiles, by the shape of the problem alone: threads have no say in it.

    Parameters
    ----------
    n_samples : int
    scratch_rows : int
        Numbers of scratch for each row of a tile.
    dtype : float64 or float32
        That of these numbers.
    partial_bytes : int
        Size of the sums of one chunk.
    operations : float
        About how many multiply-adds there are to do. If they are not worth a second thread, one chunk is enough.
    """
    fitting = TILE_BYTES // (scratch_rows * dtype.itemsize) // COLUMN_MULTIPLE * COLUMN_MULTIPLE
    widest = max(COLUMN_MULTIPLE, min(fitting, MAX_TILE_WIDTH))
    useful = max(MANY_CHUNKS, min(MAX_CHUNKS, n_samples // ROWS_PER_CHUNK))
    affordable = max(MIN_CHUNKS, min(useful, PARTIAL_BYTES // max(partial_bytes, 1)))
    # As many for each of 2, 4, 8, 16 threads: with 97 chunks one of 16 threads had seven and 15 had six.
    affordable -= affordable % max(step for step in EVEN_CHUNKS if step <= affordable)
    if operations <= runtime.WORTH_THREADS:
        affordable = 1
    # Equal chunks, and in each equal tiles: a short last one costs as much in overhead as a whole one.
    rows_per_chunk = _round_up(max(-(-n_samples // affordable), min(n_samples, MIN_ROWS_PER_CHUNK)))
    tiles = -(-rows_per_chunk // widest)
    width = _round_up(-(-rows_per_chunk // tiles))
    # A cache line more than the width: rows of a power of two would compete for the same lines of L1.
    scratch = Scratch(scratch_rows, width + CACHE_LINE // dtype.itemsize, dtype)
    return Tiling(-(-n_samples // rows_per_chunk), rows_per_chunk, width, scratch)


def _round_up(n: int) -> int:
    return -(-n // COLUMN_MULTIPLE) * COLUMN_MULTIPLE


class WeightsView(NamedTuple):
    """Weights as kernels read them, and what they have been divided by.

    The largest is between 1e-10 and 1e10 then, so that no sum overflows and float32 tiles can hold what matters.
    """

    weights: np.ndarray
    scale: float


def weights_view(sample_weight: ArrayLike | None, n_samples: int) -> WeightsView:
    """Weights as kernels read them, float64 and read-only; an empty array for ones."""
    if sample_weight is None:
        return WeightsView(read_only(np.empty(0)), 1.0)
    weights = np.ascontiguousarray(sample_weight, dtype=np.float64)
    if weights.shape != (n_samples,):
        raise ValueError(f"sample_weight has shape {weights.shape}, but there are {n_samples} rows")
    if not weights.min(initial=0.0) >= 0 or not np.isfinite(weights).all():
        raise ValueError("sample_weight should not be negative, infinite or NaN")
    highest = float(weights.max(initial=0.0))
    if highest == 0 or 1e-10 <= highest <= 1e10:
        return WeightsView(read_only(weights), 1.0)
    scale = 2.0 ** np.floor(np.log2(highest))  # a power of two: nothing is rounded
    return WeightsView(read_only(weights / scale), scale)


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to: arguments are always of the same type, whatever the caller's array is."""
    view = array.view()
    view.flags.writeable = False
    return view
