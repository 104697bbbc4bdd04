"""The disk cache: the next process finds the code, stale code is never used, and no folder is required."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import fastgmm
from fastgmm.kernels.compiler import cache

START = """
    import json
    import numpy as np
    import fastgmm.kernels as kernels
"""
END = """
    stats = kernel.chunk.stats
    print(json.dumps([out.tolist(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""
# Each prints the values that a kernel computes, and its cache hits and misses.
SCORE = f"""{START}
    from fastgmm.kernels.layouts import passes
    operands = kernels.Operands(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1, 1)), np.zeros(1))
    out = np.empty(3)
    kernels.score("diagonal", np.arange(3.0)[:, None], operands, log_prob_norm=out)
    kernel = passes.kernel("score", "diagonal", np.dtype(float), 1)
{END}"""
KMEANS = f"""{START}
    from fastgmm.kernels.clustering.quick_kmeans import problems as kernel
    X = np.arange(4.0)[:, None]
    limits = kernels.KMeansLimits(0, 1, 0.0, 1e9)
    out = kernels.kmeans_problems(X, None, np.array([[0, 4]]), np.zeros((1, 1, 1)), 1, limits).inertia
{END}"""
CHOLESKY = f"""{START}
    from fastgmm.kernels.matrices.cholesky import factor_kernel as kernel
    out = kernels.factor_covariances(np.array([[[4.0]]]))[0].ravel()
{END}"""
# A leaf in each folder that holds leaves: file, code before and after an edit, and what the kernel prints before and
# after. No leaf but that of `matrices` is in the file of the kernel.
EDITS = {
    "compiler/simd.py": (
        "e.fma(x, y, self.get())", "e.fma(x, y, self.get() + x * y)", SCORE, [0, -0.5, -2], [0, -1, -4],
    ),
    "tiles/distances.py": ("e.constant(-0.5)", "e.constant(-1.5)", SCORE, [0, -0.5, -2], [0, -1.5, -6]),
    "layouts/diagonal.py": (
        "write(factor, None)", "write(factor, lambda k: e.constant(-1.5))", SCORE, [0, -0.5, -2], [0, -1.5, -6],
    ),
    "clustering/kmeans.py": (
        "label_out[column] = nearest[v].get(),", "label_out[column] = nearest[v].get() + nearest[v].get(),", KMEANS,
        [5], [10],
    ),
    "matrices/cholesky.py": (
        "= rest / lower[i, i] if", "= 2 * rest / lower[i, i] if", CHOLESKY, [0.5], [1],
    ),
}  # fmt: skip


def start(package, code=SCORE, **environment):
    """Start a new process with the package in this folder.

    Of Numba's and fastgmm's settings it has only those given here, not those of the process that runs the tests.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTGMM_"))}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**inherited, "PYTHONPATH": str(package), **environment},
        cwd=package,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Return the output of a process, which must succeed."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def run(package, code=SCORE, **environment):
    """Run a kernel in a new process; return its values, cache hits and cache misses."""
    return json.loads(finish(start(package, code, **environment)))


@pytest.fixture
def package(tmp_path):
    """Return a folder with a copy of the package, whose sources a test may edit."""
    source = Path(fastgmm.__file__).parent
    shutil.copytree(source, tmp_path / "fastgmm", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("file", EDITS)
def test_second_process_finds_the_code_of_the_first_until_a_leaf_is_edited(file, package):
    before, after, code, values, edited_values = EDITS[file]
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    assert run(package, code, **environment) == [values, 0, 1]
    assert run(package, code, **environment) == [values, 1, 0]
    leaf = package / "fastgmm" / "kernels" / file
    text = leaf.read_text()
    assert text.count(before) == 1
    leaf.write_text(text.replace(before, after))
    assert run(package, code, **environment) == [edited_values, 0, 1]
    assert run(package, code, **environment) == [edited_values, 1, 0]


def test_stamp_covers_every_file_of_the_kernels(package, monkeypatch):
    folder = package / "fastgmm" / "kernels"
    monkeypatch.setattr(cache, "KERNELS_FOLDER", folder)
    files = sorted(folder.rglob("*.py"))
    assert {file.parent.name for file in files} >= {"kernels", "compiler", "tiles", "layouts", "labels", "clustering"}
    stamps = {cache.source_stamp()}
    for file in files:
        file.write_text(file.read_text() + "\n")
        stamps.add(cache.source_stamp())
    files[-1].rename(files[-1].with_name("renamed.py"))
    stamps.add(cache.source_stamp())
    assert len(stamps) == len(files) + 2


def test_other_compiler_options_have_their_own_code(package):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    run(package, **environment)
    assert run(package, NUMBA_BOUNDSCHECK="1", **environment)[1:] == [0, 1]
    assert run(package, **environment)[1:] == [1, 0]


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_damaged_files_are_replaced(package, damage):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    values, _, _ = run(package, **environment)
    files = list((package / "cache").rglob("score_diagonal_float64-*.bin"))
    assert len(files) == 1
    content = files[0].read_bytes()
    files[0].write_bytes(content[:1000] if damage == "truncated" else b"garbage")
    assert run(package, **environment) == [values, 0, 1]
    assert run(package, **environment) == [values, 1, 0]


def test_kernels_work_without_a_writable_folder(package):
    """A file in the place of the folder cannot be written to, not even by root."""
    blocked = package / "blocked"
    blocked.write_text("")
    values, hits, misses = run(package, NUMBA_CACHE_DIR=str(blocked))
    assert (values, hits, misses) == ([0.0, -0.5, -2.0], 0, 1)
    assert run(package, FASTGMM_CACHE="0", NUMBA_CACHE_DIR=str(package / "unused"))[1:] == [0, 1]
    assert not (package / "unused").exists()


def test_settings_of_the_testing_process_have_no_effect(package, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(package / "theirs"))
    monkeypatch.setenv("FASTGMM_CACHE", "0")
    assert run(package, NUMBA_CACHE_DIR=str(package / "cache"))[1:] == [0, 1]
    assert run(package, NUMBA_CACHE_DIR=str(package / "cache"))[1:] == [1, 0]
    assert not (package / "theirs").exists()


def test_kernels_work_without_any_folder(package):
    """Neither the user's cache folder nor the package's can be created: files are in their places."""
    home = package / "home"
    home.write_text("")
    (package / "fastgmm" / "kernels" / "__pycache__").write_text("")
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        assert run(package, **environment) == [[0.0, -0.5, -2.0], 0, 1]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to any folder")
def test_folder_that_became_read_only_is_used(package):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    values, _, _ = run(package, **environment)
    folders = [package / "cache", *(package / "cache").rglob("*/")]
    for folder in folders:
        folder.chmod(stat.S_IREAD | stat.S_IEXEC)
    try:
        assert run(package, **environment) == [values, 1, 0]
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)


def test_read_only_folders_are_read(tmp_path, monkeypatch):
    """The same as above for root, who may write to any folder: nothing is saved, but all folders are searched."""
    monkeypatch.setattr(cache, "_candidates", lambda: [tmp_path / "first", tmp_path / "second"])
    monkeypatch.setattr(cache, "cache_folder", lambda: None)
    kernel = cache.KernelCache(run, {})
    seen = []
    monkeypatch.setattr(kernel, "_file_name", lambda *key: "name.bin")
    monkeypatch.setattr(Path, "read_bytes", lambda path: seen.append(path) or b"")
    kernel.load_overload((), _Context)
    assert seen == [tmp_path / "first" / "name.bin", tmp_path / "second" / "name.bin"]


class _Context:
    @staticmethod
    def refresh():
        pass

    @staticmethod
    def codegen():
        pass


def test_code_of_sources_that_have_changed_is_not_saved(package):
    """The package is upgraded while a process runs: the code that the process compiles is of the old sources."""
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    leaf = package / "fastgmm" / "kernels" / "tiles" / "distances.py"
    late_edit = textwrap.dedent(SCORE).replace(
        "out = np.empty(3)",
        f"out = np.empty(3); import pathlib; p = pathlib.Path({str(leaf)!r}); "
        "p.write_text(p.read_text().replace('e.constant(-0.5)', 'e.constant(-1.5)'))",
    )
    assert "[0.0, -0.5, -2.0]" in finish(start(package, late_edit, **environment))
    assert run(package, **environment) == [[0.0, -1.5, -6.0], 0, 1]


def test_old_versions_are_removed(tmp_path):
    for i in range(12):
        folder = tmp_path / f"kernels-{i:02}"
        folder.mkdir()
        os.utime(folder, (i, i))
    cache._remove_old_versions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"kernels-{i:02}" for i in range(4, 12)]


def test_two_processes_may_compile_at_once(package):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    both = [start(package, **environment) for _ in range(2)]
    assert all("[0.0, -0.5, -2.0]" in finish(process) for process in both)
    assert run(package, **environment)[1:] == [1, 0]
    assert not list((package / "cache").rglob("*.new"))
