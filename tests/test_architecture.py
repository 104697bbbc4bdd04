"""The layers: imports go downwards only, there is one door into the kernels, one place for every decision."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastgmm

PACKAGE = Path(fastgmm.__file__).parent

# The folders, from bottom to top, and what each may import besides itself and Python's packages. A folder or file that
# is not listed here has no place yet.
ALLOWED = {
    "_fork_guard": set(),
    "_warnings": set(),
    "kernels": {"_fork_guard"},
    "covariance": {"kernels"},
    "data": {"kernels"},
    "mixture": {"covariance", "kernels"},
    "e_step": {"covariance", "data", "kernels", "mixture"},
    "m_step": {"covariance", "data", "e_step", "kernels", "mixture"},
    "initialization": {"covariance", "data", "e_step", "kernels", "m_step", "mixture"},
    "fitting": {"covariance", "data", "e_step", "initialization", "kernels", "m_step", "mixture"},
    "estimators": {
        "_warnings", "covariance", "data", "e_step", "fitting", "initialization", "kernels", "m_step", "mixture",
    },
    "analysis": {
        "_warnings", "covariance", "data", "e_step", "estimators", "fitting", "initialization", "kernels", "m_step",
        "mixture",
    },
    "displays": {"analysis"},
    "engine": {"covariance", "e_step", "initialization", "m_step", "mixture"},
    "__init__": {
        "_fork_guard", "analysis", "data", "displays", "engine", "estimators", "m_step",
    },
    "cli": {"__init__", "_fork_guard", "data", "e_step", "estimators", "kernels"},
    "__main__": {"cli"},
}  # fmt: skip
LEAVES = {"cli", "engine", "__main__"}
KNOW_SCIKIT_LEARN = {"analysis", "cli", "displays", "estimators", "data/conversion.py"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def place(path):
    """The module or folder that a file belongs to."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
    """Absolute names of everything a file imports, wherever in it."""
    package = ("fastgmm", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from ([f"{module}.{alias.name}" for alias in node.names] if module == "fastgmm" else [module])


def own_imports(path):
    """Modules and folders of the package that a file imports."""
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "fastgmm":
            known = len(parts) > 1 and parts[1] in ALLOWED
            yield parts[1] if known else "__init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path):
    upward = set(own_imports(path)) - ALLOWED[place(path)] - {place(path)}
    assert not upward, f"{place(path)} must not import {upward}"


def test_the_order_has_no_cycle():
    remaining = {name: set(allowed) for name, allowed in ALLOWED.items()}
    while remaining:
        bottom = [name for name, below in remaining.items() if not below & set(remaining)]
        assert bottom, f"a cycle among {sorted(remaining)}"
        for name in bottom:
            del remaining[name]


def test_an_upward_import_would_be_found(tmp_path, monkeypatch):
    (tmp_path / "kernels").mkdir()
    bad = tmp_path / "kernels" / "bad.py"
    bad.write_text("def f():\n    from ..engine import accumulate\n    from fastgmm import mixture\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert set(own_imports(bad)) == {"engine", "mixture"}


def test_nobody_imports_the_leaves():
    for path in MODULES:
        if place(path) not in {*LEAVES, "__init__"}:
            assert not set(own_imports(path)) & LEAVES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_scikit_learn_and_numba_stay_in_their_layers(path):
    roots = {name.split(".")[0] for name in imports(path)}
    if not {place(path), path.relative_to(PACKAGE).as_posix()} & KNOW_SCIKIT_LEARN:
        assert "sklearn" not in roots
    if place(path) not in {"kernels", "cli"}:
        assert not roots & {"numba", "llvmlite"}


def test_kernels_are_entered_by_their_door():
    for path in MODULES:
        if place(path) != "kernels":
            for name in imports(path):
                assert not name.startswith("fastgmm.kernels."), f"{path.name} reaches behind the door for {name}"


def test_no_branches_on_the_covariance_type():
    for path in MODULES:
        assert not re.search(r"covariance_type *(==|!=|in )", path.read_text()), path


def test_modules_fit_a_head():
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 420, path


def test_the_engine_comes_without_scikit_learn():
    code = """
import sys
sys.modules["sklearn"] = None
import numpy as np
from fastgmm.engine import MixtureParameters, accumulate, maximise
from fastgmm import SufficientStatistics, warmup
import fastgmm.fitting.schedule
p = MixtureParameters.create([1.0], [[0.0]], [1.0], "spherical")
print(maximise(accumulate(p, np.arange(4.0)[:, None]), "spherical").means[0, 0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1.5)


def test_importing_compiles_and_loads_little():
    code = "import sys, fastgmm; print([m for m in ('numba', 'sklearn', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
