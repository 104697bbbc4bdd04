"""Kernels that compute labels only."""
