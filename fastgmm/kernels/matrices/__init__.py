"""Kernels on stacks of matrices: Cholesky factors, triangles, sums over chunks."""
