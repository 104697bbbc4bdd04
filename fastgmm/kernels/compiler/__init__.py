"""Numba and LLVM: compiling, running and caching kernels; emitted vector code."""
