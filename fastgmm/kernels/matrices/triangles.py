"""Triangles of stacks of square matrices.

The matrices are processed in blocks that stay in L1 while they are transposed.
"""

from __future__ import annotations

import functools

import numpy as np

# Rows and columns of a block.
BLOCK = 64


@functools.lru_cache(maxsize=16)
def _lower(n: int) -> np.ndarray:
    """Return the mask of a lower triangle, cached: `np.tril` computes it every time."""
    return np.tri(n, dtype=bool)


def lower_triangle(matrices: np.ndarray) -> np.ndarray:
    """Return copies of matrices (..., D, D) with zeros above their diagonals."""
    n = matrices.shape[-1]
    if n <= BLOCK:
        return np.where(_lower(n), matrices, 0.0)
    lower = np.zeros(matrices.shape)
    for i in range(0, n, BLOCK):
        end = min(i + BLOCK, n)
        lower[..., i:end, :i] = matrices[..., i:end, :i]
        lower[..., i:end, i:end] = np.where(_lower(end - i), matrices[..., i:end, i:end], 0.0)
    return lower


def mirror_lower(matrices: np.ndarray) -> None:
    """Make matrices (..., D, D) symmetric by mirroring their lower triangles."""
    n = matrices.shape[-1]
    for i in range(0, n, BLOCK):
        end = min(i + BLOCK, n)
        block = matrices[..., i:end, i:end]
        block[...] = np.where(_lower(end - i), block, block.swapaxes(-1, -2))
        matrices[..., i:end, end:] = matrices[..., end:, i:end].swapaxes(-1, -2)
