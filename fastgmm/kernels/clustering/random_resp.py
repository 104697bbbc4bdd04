"""Random responsibilities that depend on a row's contents and a seed, not on where the row stands.

So a row of weight 3 starts like three copies of it, and neither the order of the rows nor threads matter.
"""

from __future__ import annotations

from fastgmm.kernels.compiler.runtime import Kernel
from fastgmm.kernels.tiles.tiles import hash_row, uniform_of


def random_resp_chunk(
    c, memory, flat, row_stride, column_stride, first_row, n_rows, rows_per_chunk, n_features, seed, resp_out
):
    """Uniform numbers, divided by their sum over the components, for the rows of chunk c of a block."""
    n_components = resp_out.shape[1]
    for i in range(c * rows_per_chunk, min((c + 1) * rows_per_chunk, n_rows)):
        word = hash_row(flat, row_stride, column_stride, first_row + i, n_features, seed[0])
        total = 0.0
        for k in range(n_components):
            total += uniform_of(word, k)
        for k in range(n_components):
            resp_out[i, k] = uniform_of(word, k) / total


random_resp = Kernel(random_resp_chunk)
