"""The commands of ``python -m fastgmm``."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastgmm
from fastgmm import __main__ as command_line
from fastgmm.cli import demo


def run(*arguments, **environment):
    command = [sys.executable, "-m", "fastgmm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_info():
    done = run("info")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["fastgmm"] == fastgmm.__version__
    assert set(lines) >= {"python", "numba", "numpy", "scipy", "scikit-learn", "cpu", "vectors", "threads"}
    assert "threading layer" in done.stdout
    assert "cache folder" in done.stdout


FIT_EVERYTHING = """
import numpy as np
from fastgmm import GaussianMixture
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for n_features in (1, 3, 7, 21):
        X = rng.normal(size=(100_000, n_features)).astype(dtype)
        for rows in (X, X[:200]):
            for covariance_type in ("full", "tied", "diag", "spherical"):
                for init_params in ("kmeans", "random"):
                    options = dict(covariance_type=covariance_type, init_params=init_params, max_iter=1, tol=9)
                    model = GaussianMixture(8, **options)
                    model.fit(rows, sample_weight=np.ones(len(rows))).predict_proba(rows)
                many = GaussianMixture(100, covariance_type=covariance_type, init_params="random", max_iter=0)
                many.fit(rows).predict(rows)
"""


def test_warmup_leaves_nothing_to_compile(tmp_path):
    done = run("warmup", NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for dtype in ("float64", "float32"):
        for name in ("full", "tied", "diag", "spherical", "k-means and random starts"):
            assert f"ready: {name} {dtype}" in done.stdout
    assert f"stored in {tmp_path}" in done.stdout
    kept = sorted(tmp_path.rglob("*.bin"))
    assert len(kept) > 30
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FIT_EVERYTHING], env=environment, check=True)
    assert sorted(tmp_path.rglob("*.bin")) == kept
    assert f"compiled kernels  {len(kept)}" in run("info", **environment).stdout


def test_warmup_reports_that_nothing_was_stored(monkeypatch, capsys):
    monkeypatch.setattr("fastgmm.e_step.compilation.warmup", lambda: ["everything"])
    monkeypatch.setattr("fastgmm.kernels.cache_folder", lambda: None)
    with pytest.raises(SystemExit, match="not stored: no cache folder can be written to"):
        command_line.main(["warmup"])
    assert "ready: everything" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [["--components", "0"], ["--max-iter", "-1"], ["--components", "two"], ["--output", "/no/such/folder/a.png"],
     ["--output", "/"], ["--image", "dog.jpg"]],
)  # fmt: skip
def test_demo_refuses_wrong_arguments_at_once(wrong, capsys):
    with pytest.raises(SystemExit) as refusal:
        command_line.main(["demo", *wrong])
    assert refusal.value.code == 2
    assert f"argument {wrong[0]}" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--version"])
    assert capsys.readouterr().out == f"fastgmm {fastgmm.__version__}\n"


def test_without_a_command_all_commands_are_listed():
    done = run()
    assert done.returncode == 2
    assert "{demo,info,warmup}" in done.stderr


def test_demo_prints_both_libraries_and_writes_the_picture(tmp_path, capsys, monkeypatch):
    """Every 64th pixel is used, as scikit-learn needs a quarter of a minute for all pixels."""
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


def test_demo_refuses_a_file_that_is_not_a_picture(tmp_path):
    thesis = tmp_path / "thesis.docx"
    thesis.write_bytes(b"my work")
    with pytest.raises(SystemExit, match=r"--output must be a picture, .*\*\.png.*, got .*thesis\.docx"):
        command_line.main(["demo", "--output", str(thesis)])
    assert thesis.read_bytes() == b"my work"


def test_demo_names_the_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r'pip install "fastgmm\[demo\]"'):
        command_line.main(["demo"])


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["info"], {"NUMBA_NUM_THREADS": "0"}, "threads"),
        (["info"], {"NUMBA_THREADING_LAYER": "nosuch"}, "'nosuch'"),
        (["demo", "--components", "1000000", "--output", "{folder}/x.png"], {}, "n_components = 1000000"),
    ],
)
def test_errors_that_a_user_can_correct_are_one_line(arguments, environment, message, tmp_path):
    done = run(*(argument.format(folder=tmp_path) for argument in arguments), **environment)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("python -m fastgmm: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ModuleNotFoundError("No module named 'llvmlite'"), 1, "error: No module named 'llvmlite'"),
        (PermissionError(13, "Permission denied", "x.png"), 1, "error: [Errno 13] Permission denied: 'x.png'"),
        (MemoryError(), 1, "error: there is not enough memory"),
        (ValueError("first\n  second"), 1, "error: first second"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line(error, status, message, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr("fastgmm.cli.environment.describe_environment", fail)
    with pytest.raises(SystemExit) as stop:
        command_line.main(["info"])
    assert stop.value.code == status
    assert capsys.readouterr().err == f"python -m fastgmm: {message}\n"


def test_programming_errors_have_a_traceback(monkeypatch):
    monkeypatch.setattr("fastgmm.cli.environment.describe_environment", lambda: {}["name"])
    with pytest.raises(KeyError):
        command_line.main(["info"])


@pytest.mark.skipif(os.name != "posix", reason="needs pipes as on Unix")
def test_a_closed_pipe_prints_no_error():
    command = [sys.executable, "-m", "fastgmm", "info"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_demo_pixels_are_the_photograph():
    image, X = demo.load_pixels("china.jpg")
    assert image.shape == (427, 640, 3)
    assert X.shape == (273_280, 3)
    assert 0 <= X.min() < X.max() <= 1
    np.testing.assert_array_equal(X[641], image[1, 1])
