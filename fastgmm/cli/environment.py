"""The environment of fastgmm: versions, CPU, threads, cache folder."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding
import numba

from fastgmm import _fork_guard, kernels

PACKAGES = ("numba", "llvmlite", "numpy", "scipy", "scikit-learn")


def describe_environment() -> dict[str, str]:
    """Return versions, CPU, threads and cache folder as texts, by name."""
    with kernels.thread_limit(None) as n_threads:  # starts the threading layer, which has no name before
        layer = _fork_guard.running_layer()
    cache = kernels.cache_folder()
    return {
        "fastgmm": _version("fastgmm"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "vectors": f"{kernels.VECTOR_BITS} bits",
        "threads": f"{n_threads} of {numba.config.NUMBA_NUM_THREADS} (NUMBA_NUM_THREADS)",
        "threading layer": str(layer),
        "cache folder": "none: kernels are compiled in every process" if cache is None else str(cache),
        "compiled kernels": str(0 if cache is None else len(list(cache.glob("*.bin")))),
    }


def cpu_name() -> str:
    """Return the maker's name of the CPU, if the system has it, and LLVM's name."""
    maker = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(errors="replace").splitlines()
        maker = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), maker)
    return f"{maker} ({llvmlite.binding.get_host_cpu_name()})".strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
