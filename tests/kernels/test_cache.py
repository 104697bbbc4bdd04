"""The disk cache: found again by the next process, never stale, never in the way."""

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

FIT = """
    import json, time
    import numpy as np
    import fastgmm.kernels as kernels
    from fastgmm.kernels import passes
    operands = kernels.Operands(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1, 1)), np.zeros(1))
    out = np.empty(3)
    kernels.score("diagonal", np.arange(3.0)[:, None], operands, log_prob_norm=out)
    stats = passes.kernel("score", "diagonal", np.dtype(float), 1).chunk.stats
    print(json.dumps([out.tolist(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def start(package, code=FIT, **environment):
    """Start a new process with the package in this folder, and of Numba's and our settings only those given here.

    Whoever runs the tests may have set others, NUMBA_CACHE_DIR among them.
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
    """What a process prints; fails if it does."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def run(package, **environment):
    """Score three rows in a new process: values, cache hits, cache misses."""
    return json.loads(finish(start(package, **environment)))


@pytest.fixture
def package(tmp_path):
    """A copy of the package, so that its sources can be edited."""
    source = Path(fastgmm.__file__).parent
    shutil.copytree(source, tmp_path / "fastgmm", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_second_process_finds_the_first_ones_code_and_an_edited_leaf_is_compiled_again(package):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    values, hits, misses = run(package, **environment)
    assert (values, hits, misses) == ([0.0, -0.5, -2.0], 0, 1)
    assert run(package, **environment) == [values, 1, 0]
    leaf = package / "fastgmm" / "kernels" / "tiles" / "distances.py"  # not the file of the kernel that is cached
    text = leaf.read_text()
    assert text.count("e.constant(-0.5)") == 1
    leaf.write_text(text.replace("e.constant(-0.5)", "e.constant(-1.5)"))
    assert run(package, **environment) == [[0.0, -1.5, -6.0], 0, 1]
    assert run(package, **environment) == [[0.0, -1.5, -6.0], 1, 0]


def test_other_compiler_options_are_other_code(package):
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


def test_without_a_writable_folder_it_still_works(package):
    """A file where the folder should be cannot be written to by root either."""
    blocked = package / "blocked"
    blocked.write_text("")
    values, hits, misses = run(package, NUMBA_CACHE_DIR=str(blocked))
    assert (values, hits, misses) == ([0.0, -0.5, -2.0], 0, 1)
    assert run(package, FASTGMM_CACHE="0", NUMBA_CACHE_DIR=str(package / "unused"))[1:] == [0, 1]
    assert not (package / "unused").exists()


def test_settings_of_whoever_runs_the_tests_have_no_part(package, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(package / "theirs"))
    monkeypatch.setenv("FASTGMM_CACHE", "0")
    assert run(package, NUMBA_CACHE_DIR=str(package / "cache"))[1:] == [0, 1]
    assert run(package, NUMBA_CACHE_DIR=str(package / "cache"))[1:] == [1, 0]
    assert not (package / "theirs").exists()


def test_no_folder_at_all(package):
    """Neither the user's cache folder nor the package's can be made: files stand in their places."""
    home = package / "home"
    home.write_text("")
    (package / "fastgmm" / "kernels" / "__pycache__").write_text("")
    environment = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2):
        assert run(package, **environment) == [[0.0, -0.5, -2.0], 0, 1]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_filled_folder_that_is_read_only_now(package):
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
    """What root cannot be kept from writing: the folder for saving is none, the ones for loading are still there."""
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


def test_code_compiled_from_sources_that_have_changed_since_is_not_kept(package):
    """A package that is upgraded under a running process: what that compiles is of the old sources."""
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    leaf = package / "fastgmm" / "kernels" / "tiles" / "distances.py"
    late_edit = textwrap.dedent(FIT).replace(
        "out = np.empty(3)",
        f"out = np.empty(3); import pathlib; p = pathlib.Path({str(leaf)!r}); "
        "p.write_text(p.read_text().replace('e.constant(-0.5)', 'e.constant(-1.5)'))",
    )
    assert "[0.0, -0.5, -2.0]" in finish(start(package, late_edit, **environment))
    assert run(package, **environment) == [[0.0, -1.5, -6.0], 0, 1]


def test_old_versions_are_forgotten(tmp_path):
    for i in range(12):
        folder = tmp_path / f"kernels-{i:02}"
        folder.mkdir()
        os.utime(folder, (i, i))
    cache._forget_old_versions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"kernels-{i:02}" for i in range(4, 12)]


def test_two_processes_that_compile_at_once(package):
    environment = {"NUMBA_CACHE_DIR": str(package / "cache")}
    both = [start(package, **environment) for _ in range(2)]
    assert all("[0.0, -0.5, -2.0]" in finish(process) for process in both)
    assert run(package, **environment)[1:] == [1, 0]
    assert not list((package / "cache").rglob("*.new"))
