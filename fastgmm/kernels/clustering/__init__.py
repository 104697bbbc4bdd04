"""Kernels of k-means and of random responsibilities."""
