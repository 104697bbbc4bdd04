"""Arrays in ``.npy``, HDF5 and zarr files: nested, damaged, closed, changed, and of other dtypes."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastgmm import GaussianMixture, rows

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

N = 600
SMALL = {"block_bytes": 16 * 256}  # 256 rows of two features
X = np.random.default_rng(0).normal(size=(N, 2))
W = np.random.default_rng(1).uniform(0.5, 2, size=N)
RECORDS = np.rec.fromarrays([X[:, 0], W, np.arange(N), X[:, 1].astype(np.float32)], names="a,w,i,b")


def write_hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return path


def write_zarr(path, **arrays):
    group = zarr.open_group(str(path), mode="w")
    for name, data in arrays.items():
        group.create_array(name, data=data, chunks=(100, *data.shape[1:]))
    return path


def write_single(path, data=X):
    array = zarr.create_array(str(path), shape=data.shape, chunks=(100, *data.shape[1:]), dtype=data.dtype)
    array[:] = data
    return array


def fit(source):
    return GaussianMixture(1).fit(source)


# --- choice of the dataset ---


def test_null_datasets_are_skipped(tmp_path):
    path = write_hdf5(tmp_path / "x.h5", X=X, note=h5py.Empty("f"), word="x", names=np.array([["a", "b"]], dtype="S1"))
    for options in ({}, {"key": "X"}):
        np.testing.assert_array_equal(rows(path, **options).whole().X, X)
    with pytest.raises(ValueError, match=r"no dataset 'note', but 'X' \(600, 2\) float64, 'names' \(1, 2\)"):
        rows(path, key="note")
    with pytest.raises(ValueError, match=r"Expected 2D array, but .*x.h5:word has shape \(\)"):
        rows(path, key="word")
    with pytest.raises(ValueError, match="names must hold real numbers"):
        rows(path, key="names")


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_one_nested_array_is_found(kind, tmp_path):
    if kind == "h5":
        path = write_hdf5(tmp_path / "x.h5", **{"a/b/X": X, "a/w": W, "complex": X + 1j})
    else:
        path = write_zarr(tmp_path / "x.zarr", **{"a/b/X": X, "a/w": W, "complex": X + 1j})
    np.testing.assert_array_equal(rows(path, **SMALL).whole().X, X)
    weighted = rows(path, weight="a/w", **SMALL)
    np.testing.assert_array_equal(weighted.whole().sample_weight, W)
    np.testing.assert_allclose(fit(weighted).means_, GaussianMixture(1).fit(X, sample_weight=W).means_, rtol=1e-12)
    with pytest.raises(ValueError, match=r"no dataset 'nowhere', but .*'a/b/X'"):
        rows(path, key="nowhere")
    with pytest.raises(ValueError, match="complex must hold real numbers, got dtype complex128"):
        rows(path, key="complex")


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_errors_for_wrong_names_of_weights_list_the_datasets(kind, tmp_path):
    data = {"X": X, "g/w": W, "short": W[1:], "complex": W + 1j}
    path = {"h5": write_hdf5, "zarr": write_zarr}[kind](tmp_path / f"x.{kind}", **data)
    for name in ("weights", "g", "X"):
        with pytest.raises(ValueError, match=rf"x.{kind} with one dimension, got '{name}': it has .*'g/w' \(600,\)"):
            rows(path, key="X", weight=name)
    for name, found in (("short", r"float64 of shape \(599,\)"), ("complex", "complex128")):
        with pytest.raises(ValueError, match=f"weight must be 600 numbers, one for each row, got {found}"):
            rows(path, key="X", weight=name)
    np.save(tmp_path / "w.npy", W)
    assert rows(path, key="X", weight=str(tmp_path / "w.npy")).total_weight == pytest.approx(W.sum())
    assert rows(path, key="X", weight=W).total_weight == pytest.approx(W.sum())


def test_scalar_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 's': it has 'X'"):
        rows(write_hdf5(tmp_path / "x.h5", X=X, s=2.0), key="X", weight="s")


def test_errors_for_stores_without_rows_list_the_datasets(tmp_path):
    path = write_hdf5(tmp_path / "x.h5", w=W, C=X + 1j)
    with pytest.raises(ValueError, match=r"a dataset of real numbers with two dimensions, got 'C' \(600, 2\) complex"):
        rows(path)
    with pytest.raises(ValueError, match="got no datasets"):
        rows(write_zarr(tmp_path / "x.zarr"))


def test_groups_are_refused(tmp_path):
    write_zarr(tmp_path / "x.zarr", X=X)
    with h5py.File(write_hdf5(tmp_path / "x.h5", **{"g/X": X})) as file:
        for group in (file, file["g"], zarr.open_group(str(tmp_path / "x.zarr"))):
            with pytest.raises(TypeError, match=r"a group of arrays: give one of them, as in rows\(group\['X'\]\)"):
                rows(group)
        np.testing.assert_array_equal(rows([file["g/X"], file["g/X"]]).whole().X, np.concatenate([X, X]))


# --- damaged files ---


def test_errors_name_damaged_files(tmp_path):
    path = write_hdf5(tmp_path / "cut.h5", X=X)
    os.truncate(path, path.stat().st_size - 100)
    np.save(tmp_path / "object.npy", X.astype(object))
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, X=X)
    for name in ("empty.h5", "empty.npy", "text.h5", "text.npy"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "some words, and no numbers at all")
    (tmp_path / "empty.zarr").mkdir()
    write_zarr(tmp_path / "broken.zarr", X=X)
    (tmp_path / "broken.zarr" / "X" / "zarr.json").write_text("{")
    for name in (
        "cut.h5", "empty.h5", "text.h5", "empty.npy", "text.npy", "archive.npy", "object.npy", "empty.zarr",
        "broken.zarr",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} is not an? (HDF5|\.npy|zarr)"):
            rows(tmp_path / name)


def test_errors_name_damaged_chunks(tmp_path):
    write_single(tmp_path / "x.zarr")
    (tmp_path / "x.zarr" / "c" / "3" / "0").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"the rows from row 256 of .*x.zarr on cannot be read: \w+: "):
        fit(rows(tmp_path / "x.zarr", **SMALL))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("X", data=X, chunks=(100, 2), compression="gzip")
        where = dataset.id.get_chunk_info(4).byte_offset
    raw = bytearray((tmp_path / "x.h5").read_bytes())
    raw[where : where + 50] = bytes(50)
    (tmp_path / "x.h5").write_bytes(raw)
    with pytest.raises(ValueError, match=r"the rows from row 256 of .*x.h5:X on cannot be read: OSError"):
        fit(rows(tmp_path / "x.h5", **SMALL))


def test_missing_files_raise_file_not_found(tmp_path):
    for name in ("x.h5", "x.npy", "x.zarr"):
        with pytest.raises(FileNotFoundError, match=name):
            rows(tmp_path / name)


# --- changes after rows() ---


@pytest.mark.parametrize("size", [300, 900])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("n_passes", [0, 1])
def test_a_resized_zarr_array_is_an_error(size, opened, n_passes, tmp_path):
    array = write_single(tmp_path / "x.zarr")
    source = rows(array if opened else tmp_path / "x.zarr", **SMALL)
    for _ in range(n_passes):
        assert fit(source)
    zarr.open_array(str(tmp_path / "x.zarr"), mode="r+").resize((size, 2))
    with pytest.raises(
        ValueError, match=rf"must not change .*shape \(600, 2\) and dtype float64, and now has shape \({size}, 2\)"
    ):
        fit(source)


def test_a_zarr_array_resized_during_a_pass_is_an_error(tmp_path):
    array = write_single(tmp_path / "x.zarr")
    source = rows(tmp_path / "x.zarr", **SMALL)
    blocks = source.blocks()
    next(blocks)
    array.resize((300, 2))
    with pytest.raises(ValueError, match=r"must not change .*\(300, 2\)"):
        list(blocks)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_old_consolidated_metadata_of_zarr_is_not_used(tmp_path):
    path = write_zarr(tmp_path / "x.zarr", X=X, w=W)
    zarr.consolidate_metadata(str(path))
    zarr.open_array(str(path), path="X").resize((300, 2))
    assert zarr.open_group(str(path))["X"].shape == (600, 2)
    assert rows(path).shape == (300, 2)
    with pytest.raises(ValueError, match="weight must be 300 numbers"):
        rows(path, weight="w")
    zarr.open_array(str(path), path="w").resize((300,))
    source = rows(path, weight="w")
    zarr.open_array(str(path), path="w").resize((200,))
    with pytest.raises(
        ValueError, match=r"weight must be 300 numbers, one for each row, got float64 of shape \(200,\)"
    ):
        fit(source)


def test_zarr_chunks_lost_between_passes_are_an_error(tmp_path):
    write_single(tmp_path / "x.zarr")
    source = rows(tmp_path / "x.zarr", **SMALL)
    fit(source)
    (tmp_path / "x.zarr" / "c" / "3" / "0").unlink()
    with pytest.raises(ValueError, match=r"some rows from row 256 of .*x.zarr on have changed since the first pass"):
        fit(source)


def test_a_missing_zarr_store_is_an_error(tmp_path):
    write_single(tmp_path / "x.zarr")
    source = rows(tmp_path / "x.zarr", **SMALL)
    (tmp_path / "x.zarr").rename(tmp_path / "y.zarr")
    with pytest.raises(ValueError, match=r"x.zarr cannot be opened"):
        fit(source)


@pytest.mark.parametrize("kind", ["npy", "h5"])
@pytest.mark.parametrize("moment", ["before", "during"])
def test_changed_files_are_an_error(kind, moment, tmp_path):
    path = tmp_path / f"x.{kind}"

    def write(data):
        return np.save(path, data) if kind == "npy" else write_hdf5(tmp_path / "new.h5", X=data).replace(path)

    write(X)
    source = rows(path, **SMALL)
    blocks = source.blocks()
    if moment == "during":
        next(blocks)
    write(np.concatenate([X, X]))
    with pytest.raises(ValueError, match="must not change while rows are read from it, but it has changed"):
        list(blocks)


def test_an_open_dataset_that_changes_is_an_error(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("X", data=X, maxshape=(None, 2))
        source = rows(dataset, **SMALL)
        fit(source)
        dataset.resize((300, 2))
        with pytest.raises(
            ValueError, match=r"must not change .*shape \(600, 2\) and dtype float64, and now has shape \(300, 2\)"
        ):
            fit(source)


def test_closed_datasets_are_refused(tmp_path):
    write_hdf5(tmp_path / "x.h5", X=X)
    with h5py.File(tmp_path / "x.h5") as file:
        dataset = file["X"]
        source = rows(dataset)
        fit(source)
    for call in (lambda: fit(source), lambda: rows(dataset)):
        with pytest.raises(
            ValueError, match=r"the HDF5 file of a dataset must be open, but it is closed: keep it open.*key="
        ):
            call()


@pytest.mark.parametrize("view", [lambda X: X, lambda X: X[10:], np.asarray])
def test_a_file_shorter_than_its_memory_map_is_an_error(view, tmp_path):
    """Reading the map would end the process with SIGBUS."""
    np.save(tmp_path / "x.npy", np.tile(X, (10, 1)))
    for as_weights in (False, True):
        np.save(tmp_path / "w.npy", np.tile(W, 10))
        name = "w.npy" if as_weights else "x.npy"
        mapped = view(np.load(tmp_path / name, mmap_mode="r"))
        source = rows(np.ones((len(mapped), 2)), weight=mapped) if as_weights else rows(mapped)
        source.whole()
        in_blocks = rows([(np.ones((len(mapped), 2)), mapped)] if as_weights else [mapped])
        os.truncate(tmp_path / name, 20_000)
        for read in (source, in_blocks):
            with pytest.raises(
                ValueError, match=f"{name} must not change while rows are read from it, but it has become shorter"
            ):
                read.whole()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays_of_other_stores_and_formats(zarr_format, tmp_path):
    options = {"shape": X.shape, "chunks": (100, 2), "dtype": X.dtype, "zarr_format": zarr_format}
    zipped = zarr.storage.ZipStore(tmp_path / "x.zip", mode="w")
    for store, files in (
        (zarr.storage.MemoryStore(), []),
        (zarr.storage.LocalStore(tmp_path / "local"), [tmp_path / "local"]),
        (zipped, [tmp_path / "x.zip"]),
    ):
        array = zarr.create_array(store, **options)
        array[:] = X
        source = rows(array, **SMALL)
        np.testing.assert_array_equal(source.whole().X, X)
        assert list(source.reader.files) == files
        if store is not zipped:
            array.resize((300, 2))
            with pytest.raises(ValueError, match=r"must not change .*\(300, 2\)"):
                source.whole()
    zipped.close()


def test_errors_name_a_file_that_is_being_written(tmp_path):
    import subprocess
    import sys

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["X"] = X
        code = f"import fastgmm; fastgmm.rows({str(tmp_path / 'x.h5')!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    # If file locks are switched off, the error is that of an unfinished file.
    assert "x.h5" in done.stderr.strip().splitlines()[-1]


# --- lists of files ---


def test_readers_list_all_files_that_they_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "w.npy", W)
    write_hdf5(tmp_path / "x.h5", X=X, w=W)
    array = write_single(tmp_path / "x.zarr")
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    weights = np.load(tmp_path / "w.npy", mmap_mode="r")
    layout = h5py.VirtualLayout((N, 2), dtype=float)
    layout[:] = h5py.VirtualSource(tmp_path / "x.h5", "X", (N, 2))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("V", layout)
        file["link"] = h5py.ExternalLink("x.h5", "X")
    with h5py.File(tmp_path / "x.h5") as opened:
        for source, names in (
            (rows(tmp_path / "x.npy"), ["x.npy"]),
            (rows(tmp_path / "x.npy", weight=tmp_path / "w.npy"), ["x.npy", "w.npy"]),
            (rows(mapped), ["x.npy"]),
            (rows(mapped[5:, 1:]), ["x.npy"]),
            (rows(np.asarray(mapped), weight=weights), ["x.npy", "w.npy"]),
            (rows(X, weight=weights), ["w.npy"]),
            (rows(tmp_path / "x.h5", key="X", weight="w"), ["x.h5"]),
            (rows(opened["X"], weight=tmp_path / "w.npy"), ["x.h5", "w.npy"]),
            (rows(tmp_path / "virtual.h5", key="V"), ["virtual.h5", "x.h5"]),
            (rows(tmp_path / "virtual.h5", key="link"), ["virtual.h5", "x.h5"]),
            (rows(tmp_path / "x.zarr"), ["x.zarr"]),
            (rows(array, weight=weights), ["x.zarr", "w.npy"]),
            (rows([tmp_path / "x.npy", tmp_path / "x.npy"]), ["x.npy", "x.npy"]),
            (rows(X), []),
            (rows([X]), []),
            (rows([(mapped[:300], weights[:300]), (opened["X"][300:], W[300:])]), ["x.npy", "w.npy"]),
            (rows([opened["X"], array]), ["x.h5", "x.zarr"]),
        ):
            assert list(source.reader.files) == [tmp_path / name for name in names]
            np.testing.assert_array_equal(source.whole().X[-5:, -1], X[-5:, 1])


def test_a_virtual_dataset_without_its_source_is_refused(tmp_path):
    write_hdf5(tmp_path / "x.h5", X=X)
    layout = h5py.VirtualLayout((N, 2), dtype=float)
    layout[:] = h5py.VirtualSource("x.h5", "X", (N, 2))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("V", layout)
    source = rows(tmp_path / "virtual.h5")
    np.testing.assert_array_equal(source.whole().X, X)
    (tmp_path / "x.h5").unlink()
    with pytest.raises(ValueError, match=r"x.h5 must not change while rows are read from it, but it is gone"):
        source.whole()
    with pytest.raises(ValueError, match=r"'/V' of .*virtual.h5 has rows in x.h5, but this file does not exist"):
        rows(tmp_path / "virtual.h5")


# --- records ---


@pytest.mark.parametrize("kind", ["npy", "h5", "array", "masked", "map"])
def test_records_have_a_feature_for_each_field(kind, tmp_path):
    np.save(tmp_path / "x.npy", RECORDS)
    write_hdf5(tmp_path / "x.h5", table=RECORDS)
    source = {
        "npy": tmp_path / "x.npy",
        "h5": tmp_path / "x.h5",
        "array": RECORDS,
        "masked": np.ma.array(RECORDS),
        "map": np.load(tmp_path / "x.npy", mmap_mode="r"),
    }[kind]
    expected = np.column_stack([RECORDS[name].astype(float) for name in RECORDS.dtype.names])
    read = rows(source, **SMALL)
    assert read.feature_names == ("a", "w", "i", "b")
    np.testing.assert_array_equal(read.whole().X, expected)
    some = rows(source, columns=["b", "a"], weight="w", **SMALL)
    np.testing.assert_array_equal(some.whole().X, expected[:, [3, 0]])
    np.testing.assert_array_equal(some.whole().sample_weight, W)
    assert list(fit(some).feature_names_in_) == ["b", "a"]
    by_position = rows(source, weight=1, **SMALL)
    assert by_position.feature_names == ("a", "i", "b")
    np.testing.assert_array_equal(by_position.whole().sample_weight, W)
    for wrong in (4, -1, True):
        with pytest.raises(ValueError, match="names, or positions from 0 to 3, got"):
            rows(source, weight=wrong)
    assert rows(source, columns=["b"]).dtype == np.float32
    with pytest.raises(ValueError, match="has no column 'c'"):
        rows(source, columns=["c"])


def test_fields_that_are_not_numbers_are_refused(tmp_path):
    records = np.zeros(5, dtype=[("a", float), ("name", "S3"), ("v", float, 3), ("c", complex)])
    np.save(tmp_path / "x.npy", records)
    for name in ("name", "v", "c"):
        with pytest.raises(ValueError, match=f"field '{name}' of .*x.npy must hold a real number in each row"):
            rows(tmp_path / "x.npy", columns=["a", name])
    assert rows(tmp_path / "x.npy", columns=["a"]).shape == (5, 1)


def test_masked_fields_are_refused():
    records = np.ma.array(RECORDS)
    records["b"].mask = np.arange(N) == 300
    records["b"] = np.ma.masked_where(np.arange(N) == 300, records["b"])
    with pytest.raises(ValueError, match="contains NaN, in row 300 of the array, column 'b'"):
        fit(rows(records, **SMALL))


# --- other kinds of numbers ---


@pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification")
@pytest.mark.parametrize("kind", ["npy", "h5", "zarr", "array"])
def test_every_kind_of_number_is_read_or_refused(kind, tmp_path):
    def source(data):
        if kind == "npy":
            np.save(tmp_path / "x.npy", data)
        elif kind == "h5":
            write_hdf5(tmp_path / "x.h5", X=data)
        elif kind == "zarr":
            write_zarr(tmp_path / "x.zarr", X=data)
        return rows(
            data if kind == "array" else tmp_path / f"x.{kind}", **({} if kind in ("npy", "array") else {"key": "X"})
        )

    large = np.array([[2**53 + 1, 1], [2**63 - 1, 2]] * 5)
    for data in (X.astype(">f8"), X.astype("f2"), (X * 10).astype("i2"), X > 0, large, large.astype(np.uint64) + 2**62):
        np.testing.assert_array_equal(source(data).whole().X, data.astype(float))
        np.testing.assert_array_equal(fit(source(data)).means_, fit(data).means_)
    # The order of bytes is not part of zarr's dtypes.
    for data in (X.astype(np.float32), *([] if kind == "zarr" else [X.astype(">f4")])):
        assert fit(source(data)).means_.dtype == fit(data).means_.dtype
    for data, message in (
        (X + 1j, "must hold real numbers, got dtype complex128"),
        (X.astype("S8"), r"must hold real numbers, got dtype .*(S8|S)"),
        (X[:, 0], r"Expected 2D array, but .* has shape \(600,\)"),
        (X[None], r"Expected 2D array, but .* has shape \(1, 600, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            source(data)
    assert source(X[:0]).n_samples == 0
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        source(np.empty((5, 0)))


def test_arrays_of_other_libraries_are_converted_in_slices():
    class Other:
        """An array with a dtype that NumPy does not have."""

        shape, dtype = X.shape, "bfloat16"

        def __getitem__(self, here):
            return X[here].tolist()

    with pytest.raises(TypeError):
        np.dtype(Other.dtype)
    np.testing.assert_array_equal(rows(Other(), **SMALL).whole().X, X)

    class Failing(Other):
        def __getitem__(self, here):
            if here.start:
                raise KeyError("lost")
            return super().__getitem__(here)

    with pytest.raises(ValueError, match="the rows from row 256 of the array on cannot be read: KeyError: 'lost'"):
        rows(Failing(), **SMALL).whole()


def test_stored_weights_are_read_in_slices(tmp_path):
    """The reader does not hold the weights in memory."""
    path = write_hdf5(Path(tmp_path) / "x.h5", X=X, w=W)
    reader = rows(path, key="X", weight="w").reader
    assert reader._weights is None
    np.testing.assert_array_equal(rows(path, key="X", weight="w", **SMALL).whole().sample_weight, W)
