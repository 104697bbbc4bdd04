"""Factors of the precisions: the inverse of the Cholesky factor of each covariance, a component a chunk.

``Sigma_k = C C^T`` with C lower triangular. The E-step reads ``L_k = C^-1``, also lower triangular: ``|L_k (x - m)|^2``
is the squared Mahalanobis distance. What is stored is ``P_k = L_k^T``, upper triangular, with ``Sigma_k^-1 = P_k
P_k^T``. D^3 / 3 multiply-adds a component.

Both factors are computed in blocks of `BLOCK` rows and columns. An entry of C, and of P, is what remains of a number
after a product of two contiguous rows, so a block is 64 such products at once. Blocks are taken in panels of `PANEL`
rows: the rows of a panel (`PANEL` D numbers) stay in L2 while the others are read once for all of them.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import Kernel, Scratch, reducing_leaf
from fastgmm.kernels.compiler.simd import Emitter, Matrix

# A vector of float64 has at most so many lanes, and a product of two rows so no rest.
BLOCK, PANEL = 8, 64
# Products at a time: as many accumulators as registers hold.
TILE = 4


def block_products(a, i, b, j, start, stop, out):
    """Write ``out[r, c] = sum_{start <= p < stop} a[i + r, p] b[j + c, p]`` for r and c below `BLOCK`."""
    out[:BLOCK, :BLOCK] = a[i : i + BLOCK, start:stop] @ b[j : j + BLOCK, start:stop].T


@tile_operation(block_products)
def emit_block_products(e: Emitter, a: Matrix, i, b: Matrix, j, start, stop, out: Matrix):
    for r0 in range(0, BLOCK, TILE):
        left = [e.add(i, r0 + r) for r in range(TILE)]
        for c0 in range(0, BLOCK, TILE):
            right = [e.add(j, c0 + c) for c in range(TILE)]
            sums = [[e.variable() for _ in right] for _ in left]
            for p in e.each(start, stop, e.width):
                v = [b[row, p] for row in right]
                for r, row in enumerate(left):
                    u = a[row, p]
                    for c in range(TILE):
                        sums[r][c].add_product(u, v[c])
            for r in range(TILE):
                e.store_lane_sums(sums[r], out, (r0 + r, c0))


@reducing_leaf
def cholesky(covariance, size, products, lower_out):
    """Write the lower Cholesky factor; returns whether every pivot is positive beyond the rounding of its diagonal.

    `lower_out` has `size` rows, a multiple of `BLOCK`.
    """
    n_features = covariance.shape[0]
    tolerance = n_features * 2.220446049250313e-16
    lower_out[n_features:size] = 0.0
    for panel in range(0, n_features, PANEL):
        end = min(panel + PANEL, n_features)
        for first in range(0, end, BLOCK):
            for block in range(max(panel, first), end, BLOCK):
                if first > 0:
                    emit_block_products(lower_out, block, lower_out, first, 0, first, products)
                for i in range(block, min(block + BLOCK, n_features)):
                    for j in range(first, min(first + BLOCK, i + 1)):
                        rest = covariance[i, j]
                        if first > 0:
                            rest -= products[i - block, j - first]
                        for q in range(first, j):
                            rest -= lower_out[i, q] * lower_out[j, q]
                        if j < i:
                            lower_out[i, j] = rest / lower_out[j, j]
                        elif rest > tolerance * covariance[i, i] and rest < np.inf:
                            lower_out[i, i] = np.sqrt(rest)
                        else:
                            return False
    return True


@reducing_leaf
def invert_lower(lower, n_features, size, products, upper_out):
    """Write the transposed inverse of a lower triangular matrix; below the diagonal only what blocks read.

    `upper_out` has `size` rows, as many as `lower`, a multiple of `BLOCK`.
    """
    upper_out[n_features:size] = 0.0
    for panel in range(0, n_features, PANEL):
        for first in range(panel, n_features, BLOCK):
            for block in range(panel, min(panel + PANEL, first + 1), BLOCK):
                if block < first:
                    emit_block_products(upper_out, block, lower, first, block, first, products)
                for j in range(block, min(block + BLOCK, n_features)):
                    for i in range(first, min(first + BLOCK, n_features)):
                        rest = -products[j - block, i - first] if block < first else 1.0 if i == j else 0.0
                        for q in range(max(first, j), i):
                            rest -= upper_out[j, q] * lower[i, q]
                        upper_out[j, i] = rest / lower[i, i] if i >= j else 0.0


def factor_chunk(c, memory, matrices_per_chunk, covariances, upper_out, well_defined_out):
    """``upper_out[k] = cholesky(covariances[k])^-T`` and whether there is one, for the matrices of chunk c."""
    n_features = covariances.shape[1]
    size = (n_features + BLOCK - 1) // BLOCK * BLOCK
    lower, upper, products = memory[:size], memory[size : 2 * size], memory[2 * size : 2 * size + BLOCK]
    for k in range(c * matrices_per_chunk, min((c + 1) * matrices_per_chunk, len(covariances))):
        well_defined_out[k] = cholesky(covariances[k], size, products, lower)
        if well_defined_out[k]:
            invert_lower(lower, n_features, size, products, upper)
            for i in range(n_features):
                for j in range(i, n_features):
                    upper_out[k, i, j] = upper[i, j]


factor_covariances = Kernel(factor_chunk)


def scratch(n_features: int) -> Scratch:
    """Memory for both factors of one covariance, and for the products of a block."""
    size = -(-n_features // BLOCK) * BLOCK
    # A cache line more than the size: rows of a power of two would compete for the same lines of L1.
    return Scratch(2 * size + BLOCK, size + BLOCK)
