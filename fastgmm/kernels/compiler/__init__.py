"""Numba and LLVM: compilation, composition, disk cache, threads."""
