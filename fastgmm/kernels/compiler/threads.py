"""How many threads a kernel uses, and when it must not use any.

Numba runs parallel kernels on the first of these that it finds: ``tbb``, ``omp`` (OpenMP), ``workqueue``.

* ``omp`` kills a process that was forked after its parent ran a parallel kernel, at its first parallel kernel.
* ``workqueue`` kills a process in which two threads run parallel kernels at the same time.

In these two situations kernels run on one thread, with the same bits.
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

_warned = False
# Multiply-adds up to which OpenBLAS multiplies matrices on the calling thread.
BLAS_SERIAL_WORK = 4 * 65536


def may_run_parallel() -> bool:
    """Whether this thread of this process can start a parallel kernel without being killed."""
    if _fork_guard.forked_from_openmp:
        return False
    if threading.current_thread() is threading.main_thread():
        return True
    numba.get_num_threads()  # starts the layer, so that it has a name
    if _fork_guard.running_layer() != "workqueue":
        return True
    _warn_once(
        "Numba's threading layer here is 'workqueue', which cannot be used from several threads at once, so fastgmm "
        "runs on one thread in threads other than the main one. Installing libgomp (Debian: libgomp1) or TBB helps."
    )
    return False


def may_run_parallel_anywhere() -> bool:
    """Whether several threads of this process can start parallel kernels at the same time."""
    numba.get_num_threads()  # starts the layer, so that it has a name
    return not _fork_guard.forked_from_openmp and _fork_guard.running_layer() not in ("workqueue", None)


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def serial_matmul(a: NDArray, b: NDArray) -> NDArray:
    """``a @ b`` of two matrices, in blocks for which OpenBLAS does not wake its threads.

    Between two passes these threads would keep the cores busy, waiting for more, while the next pass wants them: with
    512 tied components of 100 features two threads were no faster than one.
    """
    rows = max(2, BLAS_SERIAL_WORK // max(b.size, 1))
    return np.concatenate([a[start : start + rows] @ b for start in range(0, len(a), rows)])


def resolve_n_jobs(n_jobs: int | None) -> int:
    """Translate scikit-learn's ``n_jobs`` into a number of threads.

    None is Numba's own mask (`numba.set_num_threads`, by default `NUMBA_NUM_THREADS`); -1 is all of
    `NUMBA_NUM_THREADS`, -2 all but one, and so on; more than there are is all there are.
    """
    if n_jobs is None:
        return numba.get_num_threads()
    n_jobs = operator.index(n_jobs)  # in NumPy's narrow integers the sum below would overflow
    if n_jobs == 0:
        raise ValueError("n_jobs == 0 has no meaning: give a number of threads, -1 for all, or None for Numba's own")
    available = numba.config.NUMBA_NUM_THREADS
    wanted = n_jobs if n_jobs > 0 else available + 1 + n_jobs
    return max(1, min(wanted, available))


@contextlib.contextmanager
def thread_limit(n_jobs: int | None) -> Iterator[int]:
    """Run the kernels of the block on ``n_jobs`` threads, and restore this thread's setting afterwards."""
    if n_jobs is None:
        yield numba.get_num_threads()
        return
    before = numba.get_num_threads()
    numba.set_num_threads(resolve_n_jobs(n_jobs))
    try:
        yield numba.get_num_threads()
    finally:
        numba.set_num_threads(before)
