"""Golden results in a file: JSON whose numbers are the shortest decimals that give back the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import threadpoolctl

FILE = Path(__file__).with_name("results.json")
# What decides over the last bits, of what `python -m fastgmm info` tells.
DECISIVE = ("python", "numba", "llvmlite", "numpy", "scipy", "scikit-learn", "cpu", "vectors")

Case = dict[str, np.ndarray]


def environment() -> dict[str, str]:
    """Return what decides over the last bits of results here: versions, the CPU, the width of its vectors, BLAS."""
    command = [sys.executable, "-m", "fastgmm", "info"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    told = {name: next(line for line in lines if line.startswith(f"{name} "))[len(name) :].strip() for name in DECISIVE}
    import scipy.linalg  # noqa: F401  # loads its BLAS

    libraries = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    blas = {f"{found['internal_api']} {found['version']} ({found.get('architecture')})" for found in libraries}
    return {**told, "blas": ", ".join(sorted(blas))}


def read() -> tuple[dict[str, str], dict[str, Case]]:
    """Return the environment that results were computed in, and the results of each case."""
    stored = json.loads(FILE.read_text())
    return stored["environment"], {
        name: {key: np.array(value, dtype).reshape(shape) for key, (dtype, shape, value) in case.items()}
        for name, case in stored["cases"].items()
    }


def write(where: dict[str, str], cases: dict[str, Case]) -> None:
    """Write results, an array on a line: its dtype, shape and values."""
    parts = []
    for name in sorted(cases):
        lines = []
        for key, value in cases[name].items():
            assert value.dtype.kind in "fiubU", (name, key, value.dtype)
            stored = [value.dtype.str, list(value.shape), value.ravel().tolist()]
            lines.append(f"   {json.dumps(key)}: {json.dumps(stored, separators=(',', ':'))}")
        parts.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n  }")
    header = json.dumps(where, indent=2).replace("\n", "\n ")
    FILE.write_text(f'{{\n "environment": {header},\n "cases": {{\n' + ",\n".join(parts) + "\n }\n}\n")
