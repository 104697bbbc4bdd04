"""The number of threads, and the situations in which kernels must use only one.

Numba runs parallel kernels on the first available threading layer of ``tbb``, ``omp`` (OpenMP) and ``workqueue``.

* ``omp`` kills a process that was forked after its parent ran a parallel kernel, at its first parallel kernel.
* ``workqueue`` kills a process in which two threads run parallel kernels at the same time.

In these two situations kernels run on one thread. The results have the same bits.
"""

from __future__ import annotations

import contextlib
import operator
import threading
import warnings
from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import NDArray

from fastgmm import _fork_guard

from .numba_internals import config

_warned = False
# Multiply-adds up to which OpenBLAS multiplies matrices on the calling thread.
BLAS_SERIAL_MULTIPLY_ADDS = 4 * 65536


def may_run_parallel() -> bool:
    """Return whether this thread can safely run a parallel kernel.

    In the situations above it would kill the process.
    """
    if _fork_guard.forked_from_openmp:
        return False
    if threading.current_thread() is threading.main_thread():
        return True
    numba.get_num_threads()  # starts the threading layer, which has no name before
    if _fork_guard.running_layer() != "workqueue":
        return True
    _warn_once(
        "Numba's threading layer is 'workqueue', which several threads cannot use at the same time: outside the main "
        "thread fastgmm uses one thread. Install libgomp (Debian: libgomp1) or TBB to use all threads."
    )
    return False


def may_run_parallel_anywhere() -> bool:
    """Return whether several threads can safely run parallel kernels at once."""
    numba.get_num_threads()  # starts the threading layer, which has no name before
    return not _fork_guard.forked_from_openmp and _fork_guard.running_layer() not in ("workqueue", None)


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def serial_matmul(a: NDArray, b: NDArray) -> NDArray:
    """Return ``a @ b`` of two matrices, computed on the calling thread.

    The product is computed in blocks so small that OpenBLAS does not wake its threads. OpenBLAS's threads spin for a
    while after a product, and would compete with the threads of the next pass.
    """
    rows_per_block = max(2, BLAS_SERIAL_MULTIPLY_ADDS // max(b.size, 1))
    return np.concatenate([a[start : start + rows_per_block] @ b for start in range(0, len(a), rows_per_block)])


def resolve_n_jobs(n_jobs: int | None) -> int:
    """Return the number of threads for scikit-learn's parameter ``n_jobs``.

    None means Numba's own number (`numba.set_num_threads`, by default `NUMBA_NUM_THREADS`), -1 means
    `NUMBA_NUM_THREADS`, -2 one less, and so on. The result is at most `NUMBA_NUM_THREADS`.

    Raises
    ------
    ValueError
        If `n_jobs` is 0.
    """
    if n_jobs is None:
        return numba.get_num_threads()
    n_jobs = operator.index(n_jobs)  # the sum below would overflow in a narrow NumPy integer
    if n_jobs == 0:
        raise ValueError(
            "n_jobs == 0 has no meaning: give a number of threads, -1 for all threads, or None for Numba's own number"
        )
    available = config.NUMBA_NUM_THREADS
    n_threads = n_jobs if n_jobs > 0 else available + 1 + n_jobs
    return max(1, min(n_threads, available))


@contextlib.contextmanager
def thread_limit(n_jobs: int | None) -> Iterator[int]:
    """Run the kernels of a ``with`` block on ``n_jobs`` threads.

    Afterwards this thread's previous setting is restored.
    """
    if n_jobs is None:
        yield numba.get_num_threads()
        return
    before = numba.get_num_threads()
    numba.set_num_threads(resolve_n_jobs(n_jobs))
    try:
        yield numba.get_num_threads()
    finally:
        numba.set_num_threads(before)
