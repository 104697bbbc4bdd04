"""Results in files: input files are not replaced, files are complete or absent, links and permissions are kept."""

import errno
import mmap
import os
import signal
import socket
import stat
import subprocess
import sys
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from fastgmm import BayesianGaussianMixture, GaussianMixture, StreamingGaussianMixture, rows
from fastgmm.data.output import check_writable, replacing
from fastgmm.data.targets import check_target, files_behind
from fastgmm.estimators.fitted import files_read
from helpers import blobs

X, _ = blobs(3, n_samples=400, n_features=2, n_components=2)
MODEL = GaussianMixture(2, random_state=0).fit(X)
ONE = GaussianMixture(1).fit(X[:, :1])
METHODS = ("predict", "predict_proba", "score_samples")


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of rows, and links to it."""
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "sub").mkdir()
    (tmp_path / "linked folder").symlink_to(tmp_path)
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    (tmp_path / "link to link.npy").symlink_to("link.npy")
    os.link(tmp_path / "x.npy", tmp_path / "hard.npy")
    return tmp_path


def names_of(folder):
    return sorted(path.name for path in folder.rglob("*"))


def refused(model, source, out, *, method="predict", match="must be another file than the rows or weights are read"):
    """Check that a call with `out` raises an error."""
    with pytest.raises(ValueError, match=match) as error:
        getattr(model, method)(source, out=out)
    assert "out" in str(error.value)


SPELLINGS = [
    "x.npy", "./x.npy", "sub/../x.npy", "linked folder/x.npy", "linked folder/sub/../x.npy", "link.npy",
    "link to link.npy", "hard.npy",
]  # fmt: skip
SOURCES = {
    "file": lambda folder: rows(folder / "x.npy"),
    "link": lambda folder: rows(folder / "link.npy"),
    "file in a linked folder": lambda folder: rows(folder / "linked folder" / "x.npy"),
    "list of files": lambda folder: rows([folder / "x.npy", folder / "x.npy"]),
    "pattern": lambda folder: rows(folder / "x*.npy"),
    "memory map": lambda folder: np.load(folder / "x.npy", mmap_mode="r"),
    "view of a memory map": lambda folder: np.load(folder / "x.npy", mmap_mode="r")[::2].view(np.ndarray),
    "rows of a memory map": lambda folder: rows(np.load(folder / "x.npy", mmap_mode="r")),
    "rows of a view of it": lambda folder: rows(np.load(folder / "x.npy", mmap_mode="r")[3:].view(np.ndarray)),
    "blocks that are memory maps": lambda folder: rows([np.load(folder / "x.npy", mmap_mode="r")]),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("source", SOURCES)
def test_input_files_are_not_replaced(source, spelling, folder):
    before, names = (folder / "x.npy").read_bytes(), names_of(folder)
    for method in METHODS:
        refused(MODEL, SOURCES[source](folder), folder / spelling, method=method)
    assert (folder / "x.npy").read_bytes() == before
    assert names_of(folder) == names


def test_input_files_are_not_replaced_by_relative_or_home_paths(folder, monkeypatch):
    monkeypatch.chdir(folder / "sub")
    monkeypatch.setenv("HOME", str(folder))
    for out in ("../x.npy", "~/x.npy", os.path.relpath(folder / "hard.npy")):
        refused(MODEL, rows(folder / "x.npy"), out)
    MODEL.predict(X, out="~/labels.npy")
    assert (folder / "labels.npy").exists()


def test_memory_maps_in_another_dtype_are_not_replaced(tmp_path):
    """Validation copies the map, but its file is still an input file."""
    np.save(tmp_path / "x.npy", np.round(10 * X).astype(np.int32))
    refused(MODEL, np.load(tmp_path / "x.npy", mmap_mode="r"), tmp_path / "x.npy")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux for what is mapped")
def test_maps_not_made_by_numpy_and_renamed_files_are_not_replaced(folder):
    """Python's own map, and a map whose file was renamed."""
    with open(folder / "x.npy", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    refused(MODEL, np.frombuffer(mapped, offset=128).reshape(X.shape)[3:], folder / "hard.npy")
    renamed = np.load(folder / "x.npy", mmap_mode="r")
    (folder / "x.npy").rename(folder / "other name.npy")
    for source in (renamed, rows(renamed)):
        refused(MODEL, source, folder / "other name.npy")


class Array:
    """Rows of another library, with `__array__`."""

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.rows, dtype=dtype)


class Slices:
    """Rows of another library, with slices."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, here):
        return self.rows[here]


class Blocks:
    """Blocks of rows that can be iterated any number of times."""

    def __init__(self, *blocks):
        self.blocks = blocks

    def __iter__(self):
        return iter(self.blocks)


IN_PROGRAMS = {
    "a function": lambda mapped: rows(lambda: (mapped[i : i + 100] for i in range(0, 400, 100))),
    "a function of pairs": lambda mapped: rows(lambda: iter([(X, mapped[:, 0])])),
    "views": lambda mapped: rows(lambda: iter([mapped[5:].view(np.ndarray)])),
    "an iterable": lambda mapped: rows(Blocks(mapped)),
    "a deque": lambda mapped: rows(deque([X, mapped])),
    "values of a dictionary": lambda mapped: rows({"X": X, "mapped": mapped}.values()),
    "lists of rows": lambda mapped: rows([list(mapped)]),
    "blocks with slices": lambda mapped: rows(lambda: iter([Slices(mapped)])),
    "rows of slices": lambda mapped: rows(Slices(mapped)),
    "a buffer": memoryview,
    "__array__": Array,
    "slices": Slices,
    "rows": list,
}


@pytest.mark.parametrize("source", IN_PROGRAMS)
def test_memory_maps_in_objects_and_iterables_are_not_replaced(source, folder):
    before = (folder / "x.npy").read_bytes()
    refused(MODEL, IN_PROGRAMS[source](np.load(folder / "x.npy", mmap_mode="r")), folder / "hard.npy")
    assert (folder / "x.npy").read_bytes() == before


def test_memory_maps_in_pandas_frames_are_not_replaced(folder):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    np.save(folder / "c.npy", np.asfortranarray(X))
    for name in ("x.npy", "c.npy"):
        frame = pd.DataFrame(np.load(folder / name, mmap_mode="r"), columns=["a", "b"], copy=False)
        for source in (rows(frame), rows(frame, weight="b"), rows([frame]), rows(lambda frame=frame: iter([frame]))):
            refused(MODEL if source.reader.n_features == 2 else ONE, source, folder / name)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux for what is mapped")
def test_memory_maps_in_arrow_and_polars_are_not_replaced(folder):
    pa, pd, pl = pytest.importorskip("pyarrow"), pytest.importorskip("pandas"), pytest.importorskip("polars")
    np.save(folder / "c.npy", np.asfortranarray(X))
    mapped = np.load(folder / "c.npy", mmap_mode="r")
    table = pa.table({"a": pa.array(mapped[:, 0]), "b": pa.array(mapped[:, 1])})
    two = pa.concat_tables([pa.table({"a": X[:, 0], "b": X[:, 1]}), table])
    types = {name: pd.ArrowDtype(pa.float64()) for name in "ab"}
    frame = pd.DataFrame({name: pd.Series(table[name], dtype=types[name]) for name in "ab"})
    polars = pl.from_numpy(mapped, schema=["a", "b"])
    for data in (table, table.to_batches()[0], two, polars, frame):
        for source in (rows(data), rows([data]), rows(lambda data=data: iter([data])), data):
            assert folder / "c.npy" in files_read(source), (type(data), type(source))
    # Polars joins the chunks of a frame, in place, when Arrow reads it.
    for read in (rows, lambda data: rows([data]), lambda data: data):
        assert files_read(read(polars.vstack(polars))) == (folder / "c.npy",)
    for source in (rows(table), rows(polars), polars):
        refused(MODEL, source, folder / "c.npy")
    for column in (table["a"], table["a"].chunk(0), polars["a"], frame["a"]):
        assert files_behind(column) == files_behind([X, column]) == (folder / "c.npy",)
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(folder / "x.arrow")) as file:
        assert files_read(rows(pa.ipc.open_file(file).read_all())) == (folder / "x.arrow",)


def test_files_behind_chains_of_urls_are_not_replaced(folder):
    """Chains with a cache, an archive or a folder."""
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.write(folder / "x.npy", "x.npy")
    os.link(folder / "x.zip", folder / "sub" / "zip.npy")
    for url, name in (
        (f"simplecache::file://{folder}/x.npy", "x.npy"),
        (f"filecache::file://{folder}/x.npy", "x.npy"),
        (f"simplecache::file://{folder}/x*.npy", "x.npy"),
        (f"dir://x.npy::file://{folder}", "x.npy"),
        (f"dir://x*.npy::file://{folder}", "x.npy"),
        (f"zip://x.npy::file://{folder}/x.zip", "sub/zip.npy"),
    ):
        refused(MODEL, rows(url), folder / name)


def test_files_of_weights_are_not_replaced(folder):
    np.save(folder / "w.npy", np.ones(len(X)))
    for weight in (folder / "w.npy", np.load(folder / "w.npy", mmap_mode="r")):
        refused(MODEL, rows(X, weight=weight), folder / "w.npy")


@pytest.mark.parametrize("model", [BayesianGaussianMixture, StreamingGaussianMixture])
def test_other_estimators_do_not_replace_input_files(model, folder):
    fitted = model(n_components=2, random_state=0).fit(X)
    for method in METHODS:
        refused(fitted, rows(folder / "x.npy"), folder / "hard.npy", method=method)


def test_dask_estimators_do_not_replace_input_files(folder):
    pytest.importorskip("distributed")
    from fastgmm import DaskGaussianMixture

    fitted = DaskGaussianMixture(2, random_state=0).fit(X)
    refused(fitted, rows(folder / "x.npy"), folder / "link.npy")


def test_parquet_in_folders_and_frames_of_memory_maps_are_not_replaced(folder):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    (folder / "parts").mkdir()
    for i in range(2):
        pd.DataFrame(X, columns=["a", "b"]).to_parquet(folder / "parts" / f"{i}.parquet")
    for source in (folder / "parts", folder / "parts" / "*.parquet"):
        refused(MODEL, rows(source), folder / "sub" / ".." / "parts" / "1.parquet")
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    refused(MODEL, pd.DataFrame(mapped, copy=False), folder / "x.npy")
    assert files_behind(pd.Series(mapped[:, 0], copy=False)) == (folder / "x.npy",)


def test_hdf5_files_and_zarr_stores_are_not_replaced(folder):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = X
        assert files_behind(file["x"]) == rows(file["x"]).reader.files == (folder / "x.h5",)
    os.link(folder / "x.h5", folder / "other name.npy")  # the name of a file does not matter
    refused(MODEL, rows(folder / "x.h5"), folder / "other name.npy")
    zarr.save_array(str(folder / "x.zarr"), X)
    zarr.save_group(str(folder / "group.zarr"), x=X)
    for source, store in (
        (rows(folder / "x.zarr"), "x.zarr"),
        (rows(zarr.open(str(folder / "x.zarr"), mode="r")), "x.zarr"),
        (rows(folder / "group.zarr"), "group.zarr"),
    ):
        refused(MODEL, source, folder / "sub" / ".." / store / "labels.npy", match="is, or is inside")


def test_checkpoints_are_not_replaced(tmp_path):
    kept = tmp_path / "state.npy"
    model = GaussianMixture(2, random_state=0, checkpoint=kept).fit(X)
    before = kept.read_bytes()
    refused(model, X, kept, match="another file than the fit's state is kept in")
    assert kept.read_bytes() == before


def test_targets_that_are_not_ordinary_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "device.npy").symlink_to("/dev/null")
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "to nowhere.npy").symlink_to(tmp_path / "gone" / "x.npy")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s.npy")
        for name, message in {
            "pipe.npy": "an ordinary file, or not exist yet, but .* is a pipe",
            "device.npy": "is a device",
            "s.npy": "is a socket",
            "loop.npy": "is a symbolic link to itself",
            "folder.npy": "a file in a folder that exists",
            "to nowhere.npy": "a file in a folder that exists",
        }.items():
            refused(MODEL, X, tmp_path / name, match=message)


def test_files_that_are_not_input_are_replaced(folder):
    """A file with the same name in another folder, and results of an earlier call that are still mapped."""
    for out in (folder / "sub" / "x.npy", folder / "labels.npy"):
        MODEL.predict(rows(folder / "x.npy"), out=out)
        earlier = np.load(out, mmap_mode="r")
        MODEL.predict(X[::2], out=out)
        assert (len(earlier), len(np.load(out))) == (400, 200)


def test_links_remain_and_their_targets_are_replaced(tmp_path):
    (tmp_path / "scratch").mkdir()
    np.save(tmp_path / "scratch" / "l.npy", np.zeros(3))
    (tmp_path / "l.npy").symlink_to(tmp_path / "scratch" / "l.npy")
    (tmp_path / "dangling.npy").symlink_to("scratch/new.npy")
    for name, target in (("l.npy", "l.npy"), ("dangling.npy", "new.npy")):
        MODEL.predict(X, out=tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert np.load(tmp_path / "scratch" / target).shape == (400,)
    assert names_of(tmp_path) == ["dangling.npy", "l.npy", "l.npy", "new.npy", "scratch"]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_permissions_are_kept(suffix, tmp_path):
    out = tmp_path / f"l{suffix}"
    mask = os.umask(0o027)
    try:
        MODEL.predict(X, out=out)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    for mode in (0o600, 0o664):
        out.chmod(mode)
        MODEL.predict(X[:50], out=out)
        assert stat.S_IMODE(out.stat().st_mode) == mode


def test_long_names(tmp_path):
    for length in (250, 255):
        out = tmp_path / ("a" * (length - 4) + ".npy")
        MODEL.predict(X, out=out)
        assert np.load(out).shape == (400,)
    with pytest.raises(OSError, match="name too long"):
        MODEL.predict(X, out=tmp_path / ("a" * 252 + ".npy"))


def run(code, *arguments):
    """Run code in another process, and return its output."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_full_disk_names_the_file(suffix, tmp_path):
    """The disk is full at different points, also at the end of the file. Nothing else is on stderr."""
    pytest.importorskip("pyarrow")
    out = tmp_path / f"r{suffix}"
    done = run(
        """
import gc, os, resource, sys
import numpy as np
from fastgmm import GaussianMixture
X = np.random.default_rng(0).normal(size=(20000, 2))
model = GaussianMixture(2, random_state=0).fit(X)
model.predict_proba(X, out=sys.argv[1])
size = os.stat(sys.argv[1]).st_size
os.unlink(sys.argv[1])
for room in (0, 4, 4096, 100_000, size - 10, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, -1))
    try:
        model.predict_proba(X, out=sys.argv[1])
    except OSError as error:
        gc.collect()
        print(error.errno, error.filename, os.listdir(os.path.dirname(sys.argv[1])))
""",
        out,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{errno.EFBIG} {out} []"] * 5
    assert names_of(tmp_path) == [out.name]


def test_a_parquet_file_that_fails_is_removed(tmp_path):
    pytest.importorskip("pyarrow")
    Y = np.tile(X, (200, 1))
    Y[-5, 1] = np.nan
    np.save(tmp_path / "n.npy", Y)
    done = run(
        """
import sys, gc
import numpy as np
from fastgmm import GaussianMixture, rows
model = GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(400, 2)))
try:
    model.predict(rows(sys.argv[1] + "/n.npy", block_bytes=100_000), out=sys.argv[1] + "/l.parquet")
except ValueError as error:
    print(error)
gc.collect()
""",
        tmp_path,
    )
    assert "contains NaN, in row 79995" in done.stdout
    assert done.stderr == ""
    assert names_of(tmp_path) == ["n.npy"]


def test_a_process_that_is_killed_leaves_the_file_as_it_was(tmp_path):
    out = tmp_path / "l.npy"
    out.write_bytes(b"before")
    done = run(
        """
import os, signal, sys
import numpy as np
from fastgmm import GaussianMixture, rows
model = GaussianMixture(2, random_state=0).fit(np.random.default_rng(0).normal(size=(400, 2)))
def blocks():
    for i in range(50):
        if i == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        yield np.zeros((1000, 2))
model.predict_proba(rows(blocks, block_bytes=20_000), out=sys.argv[1])
""",
        out,
    )
    assert done.returncode == -signal.SIGKILL
    assert out.read_bytes() == b"before"


def test_every_error_has_the_name_of_the_file(tmp_path, monkeypatch):
    """The temporary file cannot be made, flushed, or renamed."""
    target = tmp_path / "x.npy"

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    for module, name in ((os, "replace"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, denied)
            with pytest.raises(PermissionError) as error, replacing(target) as file:
                file.write(b"something")
        assert error.value.filename == str(target)
        assert names_of(tmp_path) == []
    with pytest.raises(FileNotFoundError) as error:
        check_writable(tmp_path / "nowhere" / "x.npy")
    assert error.value.filename == str(tmp_path / "nowhere" / "x.npy")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_files_and_folders(tmp_path):
    kept = tmp_path / "l.npy"
    kept.write_bytes(b"before")
    kept.chmod(0o444)
    with pytest.raises(PermissionError, match=r"read-only.*l\.npy"):
        MODEL.predict(X, out=kept)
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=r"new\.npy"):
        MODEL.predict(X, out=tmp_path / "new.npy")
    tmp_path.chmod(0o755)
    assert kept.read_bytes() == b"before"


def test_a_read_only_file_is_refused_for_every_user(tmp_path, monkeypatch):
    kept = tmp_path / "l.npy"
    kept.write_bytes(b"before")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match=r"out is a read-only file: .*l\.npy"):
        MODEL.predict(X, out=kept)


def test_missing_files_in_use_have_no_effect(tmp_path):
    assert check_target(tmp_path / "x", "out", {"rows are read from": [tmp_path / "gone"]}) == tmp_path / "x"
    for data in ([[1.0, 2.0]], np.arange(4.0), None, "x", [Array(X), Slices(X), b"x", memoryview(X)], [[X]], object()):
        assert files_behind(data) == ()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux for what is mapped")
def test_the_files_of_many_arrays(folder, monkeypatch):
    """The list of mapped files is read once for all arrays."""
    asked, read_bytes = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (asked.append(path), read_bytes(path))[1])
    mapped = np.load(folder / "x.npy", mmap_mode="r")
    parts = [memoryview(np.asarray(row)) for row in [*X, *mapped, *X]]
    assert files_behind(parts) == (folder / "x.npy",)
    assert len(asked) == 1
    assert rows([*([X[:1]] * 500), mapped, *([X[:1]] * 500)]).reader.files == (folder / "x.npy",)
    assert len(asked) < 5
