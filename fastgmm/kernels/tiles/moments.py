"""Sums over the columns of a tile that several layouts need."""

from __future__ import annotations

from fastgmm.kernels.compiler.simd import Emitter, Matrix, Number


def add_weight_sums(e: Emitter, n: Number, resp: Matrix, first: Number, size: int, weight_sums_out: Matrix) -> None:
    """Add the weight sums of `size` components from `first` on.

    ``weight_sums_out[k] += sum_i resp[k, i]``.
    """
    sums = [e.variable() for _ in range(size)]
    for i in e.each(0, n, e.width):
        for c in range(size):
            sums[c].add(resp[e.add(first, c), i])
    e.add_lane_sums([(sums, weight_sums_out, (first,))])
