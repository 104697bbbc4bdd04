"""Kernels that compute labels only, faster than the score pass."""
