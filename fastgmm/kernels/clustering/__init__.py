"""Kernels for initialisation: k-means and random responsibilities."""
