"""Inverse Cholesky factors of covariance matrices.

``Sigma_k = C C^T`` with C lower triangular. The E-step reads ``L_k = C^-1``, also lower triangular: ``|L_k (x - m)|^2``
is the squared Mahalanobis distance. The kernel stores ``P_k = L_k^T``, upper triangular, with ``Sigma_k^-1 = P_k
P_k^T``.

Both factors are computed in blocks of `BLOCK` rows and columns. An entry of C, and of P, is what remains of a number
after a product of two contiguous rows, so that a block takes 64 such products at once. Blocks are processed in panels
of `PANEL` rows.

Flops: D^3 / 3 multiply-adds per matrix. Cache: the rows of a panel (`PANEL` D numbers) stay in L2 while the other rows
are read once for all of them.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler import runtime
from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import Kernel, Scratch, reducing_leaf
from fastgmm.kernels.compiler.simd import Emitter, Matrix

# Rows and columns of a block: the most lanes of a float64 vector, so that a product of two rows has no remainder.
BLOCK = 8
# Rows of a panel.
PANEL = 64
# Rows and columns of a block that are computed together: 16 accumulators.
TILE = 4


def block_products(a, i, b, j, start, stop, out):
    """Write products of rows of two matrices, in a block of `BLOCK` x `BLOCK`.

    ``out[r, c] = sum_{start <= p < stop} a[i + r, p] b[j + c, p]`` for r and c below `BLOCK`.
    """
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
    """Write the lower Cholesky factor; return whether the matrix has one.

    That is whether every pivot exceeds the rounding error of its diagonal entry. `lower_out` has `size` rows, a
    multiple of `BLOCK`.
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
    """Write the transposed inverse of a lower triangular matrix of `n_features` rows.

    Below the diagonal only the entries that blocks read are written. `lower` and `upper_out` have `size` rows, a
    multiple of `BLOCK`.
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
    """Write ``cholesky(covariances[k])^-T`` for the matrices of chunk c.

    Also writes whether it exists. Flops: D^3 / 3 multiply-adds per matrix. Cache: a panel (`PANEL` D numbers) in L2.

    Parameters
    ----------
    c : int
        The chunk.
    memory : (2 size + BLOCK, size) float64
        Scratch memory; see `scratch`.
    matrices_per_chunk : int
    covariances : (K, D, D) float64
    upper_out : (K, D, D) float64
        Receives upper triangular factors; zeros must be there before.
    well_defined_out : (K,) bool
    """
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


factor_kernel = Kernel(factor_chunk)


def scratch(n_features: int) -> Scratch:
    """Return the scratch memory for both factors of a covariance, and for products."""
    size = -(-n_features // BLOCK) * BLOCK
    # A cache line more than the size: rows whose length is a power of two would compete for the same lines of L1.
    return Scratch(2 * size + BLOCK, size + BLOCK)


def factor_covariances(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse Cholesky factors of covariance matrices.

    Flops: D^3 / 3 multiply-adds per matrix. Cache: 64 rows of a matrix in L2.

    Parameters
    ----------
    covariances : (K, D, D) float64

    Returns
    -------
    factor : (K, D, D) float64
        Lower triangular, ``factor @ covariance @ factor.T = I``; zeros if the covariance is not positive definite.
        The transposed matrices are C-contiguous.
    well_defined : (K,) bool
        Whether the covariance is positive definite beyond rounding.
    """
    covariances = np.ascontiguousarray(covariances, dtype=np.float64)
    upper, well_defined = np.zeros(covariances.shape), np.zeros(len(covariances), dtype=np.bool_)
    multiply_adds = covariances.size * covariances.shape[-1] / 3
    matrices_per_chunk = 1 if multiply_adds > runtime.MIN_PARALLEL_MULTIPLY_ADDS else max(1, len(covariances))
    n_chunks = -(-len(covariances) // matrices_per_chunk)
    factor_kernel(
        n_chunks,
        matrices_per_chunk,
        covariances,
        upper,
        well_defined,
        scratch=scratch(covariances.shape[-1]),
        multiply_adds=multiply_adds,
    )
    return upper.swapaxes(1, 2), well_defined
