"""Detect a fork from a process in which Numba's OpenMP threads were running.

Such a process is killed at its first parallel kernel. The hook is installed when the package is imported, before
any part of it that needs Numba, so that a fork between the two is detected as well.
"""

from __future__ import annotations

import multiprocessing
import os
import sys


def running_layer() -> str | None:
    """Return the name of Numba's threading layer, or None if it is not running."""
    parallel = sys.modules.get("numba.np.ufunc.parallel")
    try:
        return None if parallel is None else parallel.threading_layer()
    except ValueError:
        return None


# A child that imports the package while a layer is running has most likely inherited the layer from its parent.
forked_from_openmp = multiprocessing.parent_process() is not None and running_layer() == "omp"


def _after_fork_in_child() -> None:
    global forked_from_openmp
    forked_from_openmp = forked_from_openmp or running_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
