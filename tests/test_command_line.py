"""``python -m fastgmm``, as a user types it."""

import subprocess
import sys

import numpy as np
import pytest

import fastgmm
from fastgmm import __main__ as command_line
from fastgmm import demo


def run(*arguments, cwd=None):
    command = [sys.executable, "-m", "fastgmm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_info():
    done = run("info")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["fastgmm"] == fastgmm.__version__
    assert set(lines) >= {"python", "numba", "numpy", "scipy", "scikit-learn", "cpu", "vectors", "threads"}
    assert "threading layer" in done.stdout
    assert "cache folder" in done.stdout


def test_warmup():
    done = run("warmup")
    assert done.returncode == 0, done.stderr
    for dtype in ("float64", "float32"):
        for name in ("full", "tied", "diag", "spherical", "k-means and random starts"):
            assert f"ready: {name} {dtype}" in done.stdout


def test_without_a_command_it_says_what_there_is():
    done = run()
    assert done.returncode == 2
    assert "{demo,info,warmup}" in done.stderr


def test_demo_prints_both_libraries_and_writes_the_picture(tmp_path, capsys, monkeypatch):
    """On every 64th pixel: the whole picture takes scikit-learn a quarter of a minute."""
    image, _ = demo.load_pixels("flower.jpg")
    small = image[::8, ::8]
    monkeypatch.setattr(demo, "load_pixels", lambda name: (small, small.reshape(-1, 3)))
    picture = tmp_path / "picture.png"
    command_line.main(
        ["demo", "--image", "flower.jpg", "--components", "4", "--max-iter", "5", "--output", str(picture)]
    )
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.startswith(("fastgmm  ", "scikit-learn "))]
    assert len(rows) == 2
    assert rows[0][-2] == rows[1][-2] == "5"  # iterations
    assert float(rows[0][-1]) == pytest.approx(float(rows[1][-1]), abs=1e-8)
    content = picture.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) > 20_000


def test_demo_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r'pip install "fastgmm\[demo\]"'):
        command_line.main(["demo"])


def test_demo_pixels_are_the_photograph():
    image, X = demo.load_pixels("china.jpg")
    assert image.shape == (427, 640, 3)
    assert X.shape == (273_280, 3)
    assert 0 <= X.min() < X.max() <= 1
    np.testing.assert_array_equal(X[641], image[1, 1])
