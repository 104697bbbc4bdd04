"""The layers: imports go downwards only, there is one door into the kernels, one place for every decision."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastgmm

PACKAGE = Path(fastgmm.__file__).parent

# What each module or folder of the package may import from it. Whoever is not listed here has no place yet.
ALLOWED = {
    "fork_guard": set(),
    "messages": set(),
    "subclassing": set(),
    "kernels": {"fork_guard"},
    "covariance": {"kernels"},
    "conversion": set(),
    "statistics": {"kernels"},
    "sources": {"kernels"},
    "walk": {"kernels"},
    "blocks": {"kernels", "sources", "walk"},
    "targets": set(),
    "io": {"blocks", "conversion", "targets"},
    "writing": {"targets"},
    "random_stream": {"sources"},
    "kmeans": {"kernels", "random_stream", "sources"},
    "parameters": {"covariance", "kernels"},
    "float_range": {"kernels", "parameters", "statistics"},
    "scores": {"float_range", "kernels", "parameters"},
    "engine": {"covariance", "float_range", "kernels", "parameters", "scores", "statistics"},
    "agglomeration": set(),
    "outliers": {"covariance", "engine", "parameters", "sources", "statistics"},
    "model_conversion": {"covariance", "engine", "parameters", "statistics"},
    "initialization": {
        "agglomeration", "covariance", "engine", "kernels", "kmeans", "outliers", "parameters", "random_stream",
        "sources", "statistics",
    },
    "acceleration": {"covariance", "parameters"},
    "em": {"acceleration", "engine", "parameters", "sources", "statistics"},
    "rules": {"acceleration", "em", "parameters", "sources", "statistics"},
    "moves": {"covariance", "em", "engine", "parameters", "random_stream", "rules", "sources"},
    "sample_sizes": {"covariance", "sources"},
    "schedule": {
        "covariance", "em", "initialization", "moves", "outliers", "parameters", "random_stream", "rules",
        "sample_sizes", "sources", "statistics",
    },
    "plain_data": set(),
    "checkpoint": {"em", "parameters", "plain_data", "rules", "statistics", "targets", "variational", "writing"},
    "validation": {"conversion", "covariance", "sources"},
    "variational": {"covariance", "parameters", "statistics"},
    "priors": {"covariance", "engine", "parameters", "sources", "statistics"},
    "progress": {"em"},
    "prediction": {
        "blocks", "conversion", "covariance", "engine", "kernels", "parameters", "sources", "targets", "writing",
    },
    "base": {
        "blocks", "checkpoint", "conversion", "covariance", "em", "engine", "kernels", "messages", "parameters",
        "prediction", "progress", "rules", "sources", "subclassing", "validation",
    },
    "gaussian_mixture": {
        "base", "conversion", "covariance", "em", "engine", "model_conversion", "parameters", "priors", "progress",
        "rules", "schedule", "scores", "sources", "validation",
    },
    "bayesian_mixture": {
        "base", "conversion", "covariance", "em", "model_conversion", "parameters", "prediction", "priors", "progress",
        "rules", "schedule", "sources", "validation", "variational",
    },
    "dask_source": {"blocks", "conversion", "kernels", "sources"},
    "dask_mixture": {
        "base", "bayesian_mixture", "conversion", "dask_source", "gaussian_mixture", "sources", "validation",
    },
    "model_selection": {
        "agglomeration", "base", "conversion", "covariance", "gaussian_mixture", "initialization", "kernels", "moves",
        "parameters", "prediction", "random_stream", "sources", "statistics", "validation",
    },
    "stepwise": {"engine", "model_conversion", "parameters", "statistics"},
    "learnt": {
        "base", "blocks", "covariance", "kernels", "parameters", "prediction", "sources", "statistics", "stepwise",
    },
    "streaming": {
        "base", "blocks", "conversion", "covariance", "gaussian_mixture", "kernels", "learnt", "messages",
        "model_conversion", "parameters", "prediction", "sources", "stepwise", "validation",
    },
    "bootstrap": {"conversion", "gaussian_mixture", "prediction", "validation"},
    "combination": {"engine", "prediction"},
    "plotting": {"combination", "model_selection"},
    "__init__": {
        "base", "bayesian_mixture", "bootstrap", "combination", "dask_mixture", "engine", "fork_guard",
        "gaussian_mixture", "io", "model_selection", "plotting", "priors", "streaming",
    },
    "demo": {"__init__", "gaussian_mixture", "targets", "writing"},
    "environment": {"__init__", "fork_guard", "kernels"},
    "__main__": {"demo", "engine", "environment", "kernels", "__init__"},
}  # fmt: skip
LEAVES = {"demo", "environment", "__main__"}
KNOW_SCIKIT_LEARN = {
    "base",
    "bayesian_mixture",
    "bootstrap",
    "combination",
    "conversion",
    "dask_mixture",
    "gaussian_mixture",
    "model_selection",
    "plotting",
    "prediction",
    "learnt",
    "streaming",
    "subclassing",
    "validation",
    "demo",
    "environment",
}
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
    bad.write_text("def f():\n    from ..engine import accumulate\n    from fastgmm import statistics\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    assert set(own_imports(bad)) == {"engine", "statistics"}


def test_nobody_imports_the_leaves():
    for path in MODULES:
        if place(path) not in LEAVES:
            assert not set(own_imports(path)) & LEAVES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_scikit_learn_and_numba_stay_in_their_layers(path):
    roots = {name.split(".")[0] for name in imports(path)}
    if place(path) not in KNOW_SCIKIT_LEARN:
        assert "sklearn" not in roots
    if place(path) not in {"kernels", "environment"}:
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
import fastgmm.schedule
p = MixtureParameters.create([1.0], [[0.0]], [1.0], "spherical")
print(maximise(accumulate(p, np.arange(4.0)[:, None]), "spherical").means[0, 0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1.5)


def test_importing_compiles_and_loads_little():
    code = "import sys, fastgmm; print([m for m in ('numba', 'sklearn', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
