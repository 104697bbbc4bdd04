"""Random responsibilities that depend on a row's contents, not on its position.

A row of weight 3 therefore starts like three copies of it. The order of the rows and threads have no effect.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import Kernel
from fastgmm.kernels.tiles.rows import rows_view
from fastgmm.kernels.tiles.tiles import hash_row, uniform_of


def random_resp_chunk(
    c, memory, flat, row_stride, column_stride, first_row, n_rows, rows_per_chunk, n_features, seed, resp_out
):
    """Write random responsibilities of the rows of chunk c of a block.

    They are uniform random numbers divided by their sum over the components. Flops per row: a hash, about ten integer
    operations per feature and per component. Cache: one row in L1.

    Parameters
    ----------
    c : int
        The chunk.
    memory
        Not used.
    flat, row_stride, column_stride
        The rows; see `rows.RowsView`.
    first_row, n_rows : int
        The block: its first row, and its number of rows.
    rows_per_chunk, n_features : int
    seed : (1,) uint64
    resp_out : (n_rows, K)
    """
    n_components = resp_out.shape[1]
    for i in range(c * rows_per_chunk, min((c + 1) * rows_per_chunk, n_rows)):
        word = hash_row(flat, row_stride, column_stride, first_row + i, n_features, seed[0])
        total = 0.0
        for k in range(n_components):
            total += uniform_of(word, k)
        for k in range(n_components):
            resp_out[i, k] = uniform_of(word, k) / total


random_resp_kernel = Kernel(random_resp_chunk)


def random_resp(X: np.ndarray, n_components: int, seed: int, start: int, stop: int) -> np.ndarray:
    """Return random responsibilities of the rows from `start` to `stop`.

    They are uniform random numbers divided by their sum over the components. They depend on a row's contents and on the
    seed only, so that equal rows get equal responsibilities.

    Parameters
    ----------
    X : (N, D) float64 or float32
    n_components : int
    seed : int
    start, stop : int

    Returns
    -------
    resp : (stop - start, K) of X's dtype
    """
    rows = rows_view(X)
    resp = np.empty((stop - start, n_components), rows.flat.dtype)
    rows_per_chunk = 256
    random_resp_kernel(
        -(-(stop - start) // rows_per_chunk),
        *rows,
        start,
        stop - start,
        rows_per_chunk,
        X.shape[1],
        np.array([seed], np.uint64),
        resp,
    )
    return resp
