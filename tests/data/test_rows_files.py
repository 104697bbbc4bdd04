"""Files of rows in folders, patterns, links and URLs, and weights in files of their own."""

import functools
import gzip
import http.server
import importlib.util
import os
import pickle
import re
import threading
import urllib.request

import numpy as np
import pytest

from fastgmm import GaussianMixture, rows

pa = pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")
from pyarrow import csv, parquet  # noqa: E402

N = 400
SMALL = {"block_bytes": 16 * 256}
X = np.random.default_rng(0).normal(size=(N, 2))
X[N // 2 :] += 6
W = np.r_[np.ones(N // 2), np.full(N // 2, 3.0)]
FORMATS = ("npy", "parquet", "csv", "h5", "zarr")


def write(path, values):
    """Write rows in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table, kind = pa.table({"a": values[:, 0], "b": values[:, 1]}), path.suffix.lower()
    if kind == ".npy":
        np.save(path, values)
    elif kind == ".csv":
        csv.write_csv(table, path)
    elif kind == ".gz":
        with gzip.open(path, "wb") as file:
            csv.write_csv(table, file)
    elif kind == ".h5":
        with h5py.File(path, "w") as file:
            file["X"] = values
    elif kind == ".zarr":
        zarr.save_array(str(path), values)
    else:
        parquet.write_table(table, path, row_group_size=70)
    return path


def whole(source, **options):
    return rows(source, **SMALL, **options).whole().X


@pytest.fixture
def memory():
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def web():
    """Return a function that starts a web server for a folder, which can send parts of files."""
    pytest.importorskip("aiohttp")
    pytest.importorskip("requests")
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            path = self.translate_path(self.path)
            if not (asked and os.path.isfile(path)):
                return super().do_GET()
            with open(path, "rb") as file:
                data = file.read()
            begin, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            self.send_header("Content-Length", str(end - begin + 1))
            self.end_headers()
            self.wfile.write(data[begin : end + 1])
            return None

        def log_message(self, *_):
            pass

    def serve(folder):
        handler = functools.partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append((server, threading.Thread(target=server.serve_forever)))
        servers[-1][1].start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_are_split_over_files(kind, tmp_path):
    paths = [write(tmp_path / "rows" / f"{i}.{kind}", X[i * 200 : i * 200 + 200]) for i in range(2)]
    np.save(tmp_path / "w.npy", W)
    right = GaussianMixture(2, random_state=0).fit(X, sample_weight=W)
    for source in (tmp_path / "rows", f"{tmp_path}/rows/*", paths):
        for weight in (W, W.tolist(), tmp_path / "w.npy", str(tmp_path / "w.npy"), f"file://{tmp_path}/w.npy"):
            weighted = rows(source, weight=weight, **SMALL)
            assert weighted.total_weight == W.sum()
            np.testing.assert_array_equal(weighted.whole().sample_weight, W)
        model = GaussianMixture(2, random_state=0).fit(weighted)
        np.testing.assert_allclose(model.weights_, right.weights_, rtol=0, atol=1e-12)
        assert {path.resolve() for path in weighted.reader.files} >= {*paths, tmp_path / "w.npy"}
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(weighted)).whole().sample_weight, W)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("n_weights", [200, 399, 401])
def test_a_wrong_number_of_weights_is_refused(kind, n_weights, tmp_path):
    for i in range(2):
        write(tmp_path / "rows" / f"{i}.{kind}", X[i * 200 : i * 200 + 200])
    np.save(tmp_path / "w.npy", np.ones(n_weights))
    for weight in (np.ones(n_weights), tmp_path / "w.npy"):
        if kind == "csv":  # the number of rows is unknown until they are read
            source = rows(tmp_path / "rows", weight=weight, **SMALL)
            with pytest.raises(ValueError, match=f"one number for each row, got {n_weights} numbers and"):
                GaussianMixture(2).fit(source)
        else:
            with pytest.raises(ValueError, match="weight must be 400 numbers"):
                rows(tmp_path / "rows", weight=weight)


def test_weights_that_are_not_one_number_for_each_row_are_refused(tmp_path):
    path, other = write(tmp_path / "0.csv", X), tmp_path / "w.npy"
    np.save(other, X)
    for weight, message in (
        (W[:, None], "one number for each row"),
        (W.astype(str), "one number for each row"),
        (np.ma.masked_less(W, 2), "some numbers are masked"),
        (2.5, "one number for each row"),
        (other, "one number for each row"),
        ("w", "has no column 'w'"),
    ):
        with pytest.raises(ValueError, match=message):
            rows(path, weight=weight)
    with pytest.raises(ValueError, match="must be None for blocks that have weights"):
        rows([(X, W)], weight=other)
    with pytest.raises(ValueError, match=r"w.csv"):
        rows(path, weight=tmp_path / "w.csv")


def test_memory_maps_of_weights_are_listed_as_files(tmp_path):
    np.save(tmp_path / "w.npy", W)
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    source = rows(write(tmp_path / "0.parquet", X), weight=mapped[:])
    assert source.reader.files == (tmp_path / "0.parquet", tmp_path / "w.npy")


def test_weights_of_several_files_by_name(tmp_path):
    for i in range(2):
        part = slice(i * 200, i * 200 + 200)
        table = pa.table({"a": X[part, 0], "b": X[part, 1], "w": W[part]})
        parquet.write_table(table, tmp_path / f"{i}.parquet")
    source = rows(tmp_path, weight="w", **SMALL)
    np.testing.assert_array_equal(source.whole().sample_weight, W)


def test_linked_folders_are_read(tmp_path):
    write(tmp_path / "data" / "1.parquet", X[:150])
    write(tmp_path / "else" / "2.parquet", X[150:])
    (tmp_path / "data" / "zz").symlink_to(tmp_path / "else")
    np.testing.assert_array_equal(whole(tmp_path / "data"), X)
    np.testing.assert_array_equal(whole(f"{tmp_path}/data/**/*.parquet"), X)


def test_links_to_outer_folders_are_not_followed(tmp_path):
    write(tmp_path / "a" / "1.npy", X[:150])
    write(tmp_path / "a" / "sub" / "2.npy", X[150:])
    (tmp_path / "a" / "sub" / "loop").symlink_to(tmp_path / "a")
    for source in (tmp_path / "a", f"{tmp_path}/a/**", f"{tmp_path}/a/**/*.npy"):
        np.testing.assert_array_equal(whole(source), X)
    write(tmp_path / "b" / "1.npy", X[:150])
    write(tmp_path / "c" / "2.npy", X[150:])
    (tmp_path / "b" / "x").symlink_to(tmp_path / "c")
    (tmp_path / "c" / "y").symlink_to(tmp_path / "b")
    np.testing.assert_array_equal(whole(tmp_path / "b"), X)


def test_broken_links_are_errors(tmp_path):
    write(tmp_path / "1.npy", X)
    (tmp_path / "2.npy").symlink_to(tmp_path / "gone.npy")
    for source in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/*.npy", tmp_path / "2.npy", [tmp_path / "2.npy"]):
        with pytest.raises(FileNotFoundError, match=r"2.npy is a link to .*gone.npy, which does not exist"):
            rows(source)


def test_other_files_in_a_folder_are_errors(tmp_path):
    write(tmp_path / "t" / "1.csv", X[:150])
    write(tmp_path / "t" / "2.csv.gz", X[150:])
    for source in (tmp_path / "t", f"{tmp_path}/t/*"):
        np.testing.assert_array_equal(whole(source), X)
    write(tmp_path / "m" / "1.csv", X)
    write(tmp_path / "m" / "2.npy", X)
    (tmp_path / "u").mkdir()
    write(tmp_path / "u" / "1.npy", X)
    (tmp_path / "u" / "README.txt").touch()
    for name, message in (("m", "must have one format, got .*1.csv and .*2.npy"), ("u", "README.txt")):
        for source in (tmp_path / name, f"{tmp_path}/{name}/*"):
            with pytest.raises(ValueError, match=message):
                rows(source)
    assert rows(f"{tmp_path}/u/*.npy").n_samples == N


def test_hidden_files_are_skipped_unless_the_pattern_has_them(tmp_path):
    for name in ("1.npy", "_x/2.npy", ".y/3.npy", "_z.npy"):
        write(tmp_path / name, X[:10])
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".1.npy.crc").touch()
    for source in (
        tmp_path,
        f"{tmp_path}/*",
        f"{tmp_path}/**",
        f"{tmp_path}/_x",
        f"{tmp_path}/_x/*",
        f"{tmp_path}/_z*",
    ):
        assert rows(source).n_samples == 10, source


def test_patterns_may_match_folders(tmp_path):
    for year in (1, 2):
        write(tmp_path / f"year={year}" / "x.npy", X[(year - 1) * 200 : year * 200])
    for source in (f"{tmp_path}/year=*", f"{tmp_path}/*", f"{tmp_path}/**", f"{tmp_path}/*/x.npy", tmp_path):
        np.testing.assert_array_equal(whole(source), X)


@pytest.mark.parametrize("name", ["e", "e/*.npy", "e/s*", "nowhere", "e/s/nowhere.npy", "nowhere/*"])
def test_no_file_is_an_error(name, tmp_path):
    (tmp_path / "e" / "s").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="there is no file to read rows from at .*" + re.escape(name)):
        rows(str(tmp_path / name))


def test_paths_that_are_not_files_are_refused(tmp_path):
    write(tmp_path / "1.npy", X)
    os.mkfifo(tmp_path / "2.npy")
    for source in (tmp_path, tmp_path / "2.npy", "/dev/null"):
        with pytest.raises(ValueError, match="which is neither"):
            rows(source)


def test_a_list_has_paths_or_blocks(tmp_path):
    path = write(tmp_path / "1.npy", X)
    with pytest.raises(TypeError, match="a list must hold paths only, or blocks of rows only"):
        rows([path, X])
    np.testing.assert_array_equal(whole([path, str(path)]), np.r_[X, X])
    np.testing.assert_array_equal(whole(os.fsencode(path)), X)


@pytest.mark.parametrize(
    "name", ["x y.npy", "größe.csv", "日本.parquet", "a,b;c.h5", "#1?.zarr", "a::b.npy", "x%20y.npy"]
)
def test_any_name_of_a_file(name, tmp_path, monkeypatch):
    path = write(tmp_path / "d ä" / name, X)
    np.testing.assert_array_equal(whole(path), X)
    np.testing.assert_array_equal(whole(f"file://{path}"), X)
    monkeypatch.chdir(path.parent)
    np.testing.assert_array_equal(whole(name), X)
    np.testing.assert_array_equal(whole("."), X)


@pytest.mark.parametrize("kind", [*FORMATS, "csv.gz"])
def test_the_home_folder(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / f"x.{kind}", X)
    np.save(tmp_path / "w.npy", W)
    source = rows(f"~/x.{kind}", weight="~/w.npy", **SMALL)
    np.testing.assert_array_equal(source.whole().X, X)
    assert source.total_weight == W.sum()


@pytest.mark.parametrize("kind", [*FORMATS, "csv.gz"])
def test_urls(kind, tmp_path, memory):
    for i, part in enumerate((X[:150], X[150:])):
        write(tmp_path / "r" / f"{i}.{kind}", part)
    np.save(tmp_path / "w.npy", W)
    memory.put(f"{tmp_path}/", "/bucket", recursive=True)
    for folder in (f"file://{tmp_path}", "memory://bucket"):
        for name in (f"{folder}/r", f"{folder}/r/*", f"{folder}/r*", [f"{folder}/r/{i}.{kind}" for i in range(2)]):
            source = rows(name, weight=f"{folder}/w.npy", **SMALL)
            np.testing.assert_array_equal(source.whole().X, X)
            np.testing.assert_array_equal(source.whole().sample_weight, W)
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).whole().X, X)
    assert source.reader.files == ()  # no file of this machine that results could overwrite


def test_files_behind_urls_of_other_orders_and_dtypes(memory, tmp_path):
    for name, array in (
        ("f.npy", np.asfortranarray(X)),
        ("big.npy", X.astype(">f8")),
        ("single.npy", X.astype(np.float32)),
        ("columns.npy", np.column_stack([X[:, 1], X])),
    ):
        np.save(tmp_path / name, array)
        memory.put_file(str(tmp_path / name), f"/{name}")
    np.testing.assert_array_equal(whole("memory://f.npy"), X)
    np.testing.assert_array_equal(whole("memory://big.npy"), X)
    np.testing.assert_array_equal(whole("memory://single.npy"), X.astype(np.float32))
    np.testing.assert_array_equal(whole("memory://columns.npy", columns=[1, 0]), X)
    np.testing.assert_array_equal(whole("simplecache::memory://f.npy"), X)


def test_a_url_whose_file_changes_is_noticed(memory, tmp_path):
    data = [write(tmp_path / f"{i}.npy", X[i:]).read_bytes() for i in range(2)]
    memory.pipe("/x.npy", data[0])
    source = rows("memory://x.npy", **SMALL)
    assert len(source.whole().X) == N
    memory.pipe("/x.npy", data[1])
    with pytest.raises(
        ValueError, match=r"memory://x.npy must not change while rows are read from it, but it has changed"
    ):
        source.whole()
    memory.rm("/x.npy")
    with pytest.raises(ValueError, match=r"memory://x.npy must not change while rows are read from it, but it is gone"):
        source.whole()
    memory.pipe("/x.npy", data[0][:-8])
    with pytest.raises(ValueError, match=r"memory://x.npy must have 400 rows, but is truncated"):
        rows("memory://x.npy").whole()


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("memory://nowhere/x.npy", FileNotFoundError, "no file to read rows from at 'memory://nowhere/x.npy'"),
        ("memory://nowhere/*.npy", FileNotFoundError, "no file"),
        ("file:///nowhere/x.npy", FileNotFoundError, "no file to read rows from at '/nowhere/x.npy'"),
        ("nosuch://x.npy", ValueError, "nosuch://x.npy cannot be read: Protocol not known: nosuch"),
        ("memory://x.txt", ValueError, "rows are read from files named"),
    ],
)
def test_urls_that_cannot_be_read(url, kind, message, memory):
    memory.pipe("/x.txt", b"1")
    with pytest.raises(kind, match=message):
        rows(url)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="needs a package that is not installed")
def test_errors_name_the_package_for_a_url(memory):
    memory.pipe("/x.npy", b"")
    for call in (lambda: rows("s3://bucket/x.parquet"), lambda: rows(X, weight="s3://bucket/w.npy")):
        with pytest.raises(ImportError, match=r"Reading s3://bucket/.* needs a package.*s3fs"):
            call()


def test_errors_name_fsspec(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=r"pip install 'fastgmm\[io\]'"):
        rows("s3://bucket/x.parquet")


@pytest.mark.parametrize("kind", ["npy", "parquet", "csv", "csv.gz", "h5"])
def test_web_addresses(kind, tmp_path, web):
    write(tmp_path / f"x.{kind}", X)
    np.save(tmp_path / "w.npy", W)
    address = web(tmp_path)
    with urllib.request.urlopen(f"{address}/w.npy") as file:  # the server works
        assert len(file.read()) == (tmp_path / "w.npy").stat().st_size
    for name in (f"x.{kind}", f"x.{kind}?token=a.b"):
        source = rows(f"{address}/{name}", weight=f"{address}/w.npy", **SMALL)
        np.testing.assert_array_equal(source.whole().X, X)
        assert source.total_weight == W.sum()
    with pytest.raises(FileNotFoundError, match="no file to read rows from at 'http"):
        rows(f"{address}/nowhere.npy")


def test_a_missing_web_server_is_an_error(web):
    with pytest.raises(OSError, match=r"http://127.0.0.1:1/x.npy cannot be read"):
        rows("http://127.0.0.1:1/x.npy")


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv"])
def test_header_may_be_a_numpy_boolean(name, tmp_path):
    lines = "\n".join(("\t" if name == "x.tsv" else ",").join(map(str, row)) for row in X.tolist()).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    for header in (False, np.False_):
        np.testing.assert_array_equal(whole(tmp_path / name, header=header), X)
    for header in (True, np.True_):
        np.testing.assert_array_equal(whole(tmp_path / name, header=header), X[1:])


@pytest.mark.parametrize("header", [0, 1, np.int64(0), 0.0, "no", "", np.array([False]), []], ids=repr)
def test_header_must_be_a_boolean(header, tmp_path):
    """0 and 1 are refused, as 0 is the number of the line with the names in pandas."""
    with pytest.raises(ValueError, match="header must be True, False or None, got "):
        rows(write(tmp_path / "x.csv", X), header=header)
