"""Errors for invalid rows, with the file, the row group and the column."""

import os

import numpy as np
import pytest
from scipy import sparse

from fastgmm import GaussianMixture, rows

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

SMALL = {"block_bytes": 16 * 256}
X = np.random.default_rng(0).normal(size=(2000, 2))


def write(path, values=X, names=("a", "b"), **options):
    table = pa.table({name: values[:, i] for i, name in enumerate(names)})
    parquet.write_table(table, path, **{"row_group_size": 300, **options})
    return path


def refused(source, message, kind=ValueError):
    """Check that a fit raises an error and leaves the estimator unchanged."""
    model = GaussianMixture(2, random_state=0).fit(X[:100])
    before = {name: np.array(value, dtype=object, copy=True) for name, value in vars(model).items()}
    with pytest.raises(kind, match=message):
        model.fit(source() if callable(source) else source)
    assert set(vars(model)) == set(before)
    np.testing.assert_array_equal(model.means_, before["means_"].astype(float))


def test_errors_for_nan_have_file_row_group_and_column(tmp_path):
    bad = X.copy()
    bad[1234, 1] = np.nan
    refused(
        rows(write(tmp_path / "x.parquet", bad), **SMALL), r"NaN, in row 1234, row group 4 of .*x.parquet, column 'b'"
    )
    write(tmp_path / "p0.parquet")
    write(tmp_path / "p1.parquet", bad)
    refused(rows(f"{tmp_path}/p?.parquet", **SMALL), r"NaN, in row 1234, row group 4 of .*p1.parquet, column 'b'")
    np.save(tmp_path / "x.npy", bad)
    refused(rows(tmp_path / "x.npy", **SMALL), r"NaN, in row 1234 of .*x.npy, column 1")
    bad[1234, 1] = np.inf
    refused(rows(bad, **SMALL), r"infinity or a value too large for float64, in row 1234 of the array")
    nulls = pa.table({"a": pa.array([1.0, None, 3.0])})
    parquet.write_table(nulls, tmp_path / "nulls.parquet")
    refused(lambda: rows(tmp_path / "nulls.parquet"), "NaN, in row 1, row group 0")


def test_large_finite_values_are_accepted():
    large = np.full((600, 2), 1e308) * np.linspace(0.5, 1, 600)[:, None]
    for _ in rows(large, **SMALL).blocks():
        pass


def test_negative_weights_are_refused():
    weights = np.ones(len(X))
    weights[1500] = -1
    refused(rows(X, weight=weights, **SMALL), "not negative, got -1.0 in row 1500")
    refused(rows(X, weight=np.zeros(len(X)), **SMALL), "at least one non-zero")
    refused(lambda: rows(X, weight=weights[1:]), "weight must be 2000 numbers")
    with pytest.raises(ValueError, match="Give the weights as fastgmm"):
        GaussianMixture(2).fit(rows(X), sample_weight=np.ones(len(X)))


def test_truncated_files_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    os.truncate(tmp_path / "x.npy", 20_000)
    refused(lambda: rows(tmp_path / "x.npy"), "x.npy .*truncated")
    write(tmp_path / "x.parquet")
    os.truncate(tmp_path / "x.parquet", 20_000)
    refused(lambda: rows(tmp_path / "x.parquet"), "x.parquet .*truncated")


def test_a_changed_file_is_an_error(tmp_path):
    for name, put in (("x.npy", np.save), ("x.parquet", write)):
        put(tmp_path / name, X)
        source = rows(tmp_path / name, **SMALL)
        assert len(source.whole().X) == len(X)
        put(tmp_path / name, X[:-1])
        refused(source, f"{name} must not change while rows are read from it, but it has changed")
        (tmp_path / name).unlink()
        refused(source, f"{name} must not change while rows are read from it, but it is gone")


def test_fewer_rows_in_a_later_pass_are_an_error():
    lengths = iter([2000, 2000, 2000, 1500])
    refused(rows(lambda: [X[: next(lengths)]]), "got 1500 rows instead of 2000")


def test_files_that_differ_are_refused(tmp_path):
    write(tmp_path / "p0.parquet")
    write(tmp_path / "p1.parquet", names=("a", "z"))
    refused(
        lambda: rows(tmp_path),
        r"same feature_names, but .*p1.parquet has \('a', 'z'\) and .*p0.parquet has \('a', 'b'\)",
    )
    refused(lambda: rows(tmp_path, columns=["b"]), "p1.parquet has no column 'b', but 'a', 'z'")
    (tmp_path / "n").mkdir()
    np.save(tmp_path / "n" / "0.npy", X)
    np.save(tmp_path / "n" / "1.npy", X[:, :1])
    refused(lambda: rows(tmp_path / "n"), "same n_features, but .*1.npy has 1 and .*0.npy has 2")


def test_columns_that_are_not_numbers_are_refused(tmp_path):
    parquet.write_table(pa.table({"a": [1.0, 2.0], "name": ["x", "y"]}), tmp_path / "x.parquet")
    refused(lambda: rows(tmp_path / "x.parquet"), "column 'name' of .* must hold numbers, got string")
    assert rows(tmp_path / "x.parquet", columns=["a"]).n_samples == 2
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 400_000 + "1,x\n")
    refused(lambda: rows(tmp_path / "x.csv"), "x.csv cannot be read: .*'x'")


def test_integers_and_booleans_are_numbers(tmp_path):
    table = pa.table(
        {"i": pa.array(range(50), pa.int32()), "b": [True, False] * 25, "f": np.arange(50, dtype=np.float32)}
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    whole = rows(tmp_path / "x.parquet").whole().X
    assert whole.dtype == np.float64
    np.testing.assert_array_equal(whole, np.column_stack([np.arange(50), [1, 0] * 25, np.arange(50)]))
    assert rows(tmp_path / "x.parquet", columns=["f"]).dtype == np.float32
    assert rows(tmp_path / "x.parquet", dtype="float32").dtype == np.float32


@pytest.mark.parametrize(
    ("source", "options", "kind", "message"),
    [
        ("nowhere.npy", {}, FileNotFoundError, "no file to read rows from"),
        ("nowhere/*.parquet", {}, FileNotFoundError, "no file"),
        (__file__, {}, ValueError, "rows are read from files named"),
        (iter([X]), {}, ValueError, "can be read only once"),
        ((x for x in [X]), {}, ValueError, "can be read only once"),
        ([], {}, ValueError, "0 sample"),
        ([X[:0]], {}, ValueError, "0 sample"),
        (3, {}, TypeError, "got int"),
        (sparse.csr_array(X), {}, TypeError, "Sparse data was passed.*toarray"),
        (sparse.coo_array(X), {}, TypeError, "Sparse data was passed.*toarray"),
        (X[:, 0], {}, ValueError, "Expected 2D array"),
        ([X, X[:, :1]], {}, ValueError, "but block 1 has 1 features"),
        (
            [X, (X, np.ones(len(X)))],
            {},
            ValueError,
            "like the first, with 2 features and no weights, but block 1 has 2 features and weights",
        ),
        ([X[0]], {}, ValueError, r"block 0: rows must have two dimensions, \(n, D\), got shape \(2,\)"),
        (X.astype(complex), {}, ValueError, "real numbers"),
        (X, {"columns": [2]}, ValueError, "numbers from 0 to 1"),
        (X, {"columns": [True, False]}, ValueError, "numbers from 0 to 1"),
        (X, {"columns": [1, 1]}, ValueError, "different numbers from 0 to 1"),
        (X[:, :0], {}, ValueError, "0 feature"),
        (X[:1], {}, ValueError, "Found array with 1 sample"),
        ("", {}, TypeError, "got str"),
        ([X.astype(np.float32), X], {}, ValueError, "must be float32 like the first, but block 1 is float64"),
        (X, {"columns": ["a"]}, ValueError, "numbers from 0 to 1"),
        (X, {"key": "a"}, ValueError, "key must be None"),
        (X, {"weight": "w"}, ValueError, "weight must be an array or the name of an .npy file, got 'w'"),
        (X, {"dtype": "int32"}, ValueError, "float32 or float64, got int32"),
        (X, {"block_bytes": 0}, ValueError, "block_bytes"),
        ([X], {"columns": [0]}, ValueError, "columns, weight and key must be None for blocks"),
    ],
)
def test_errors_for_sources_that_cannot_be_read(source, options, kind, message):
    with pytest.raises(kind, match=message):
        GaussianMixture(1).fit(rows(source, **options))


def test_errors_for_hdf5_list_the_datasets(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["one"], file["two"] = X, X
    with pytest.raises(ValueError, match=r"got 2 datasets, \['one', 'two'\]: choose one with key="):
        rows(tmp_path / "x.h5")
    with pytest.raises(ValueError, match="no dataset 'three'"):
        rows(tmp_path / "x.h5", key="three")
    assert rows(tmp_path / "x.h5", key="two").shape == X.shape


def test_errors_name_the_missing_package(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet")
    import sys

    for name, call in (
        ("pyarrow", lambda: rows(tmp_path / "x.parquet")),
        ("h5py", lambda: rows(tmp_path / "x.parquet".replace("parquet", "h5"))),
        ("rich.progress", lambda: rows(X, progress=True).whole()),
    ):
        (tmp_path / "x.h5").touch()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=r"pip install 'fastgmm\[io\]'"):
                call()


def test_progress_is_called_for_every_pass(capsys):
    rows(X, progress=True, **SMALL).whole()
    passes = []

    class Watch:
        def __enter__(self):
            passes.append(0)
            return self.advance

        def __exit__(self, *_):
            pass

        def advance(self, n):
            passes[-1] += n

    source = rows(X, **SMALL)
    source.on_pass = lambda n: Watch()
    GaussianMixture(2, random_state=0, acceleration=None, max_iter=5, tol=0.1).fit(source)
    assert len(passes) > 2
    assert set(passes) <= {len(X), 256}


def test_a_changed_file_of_weights_is_an_error(tmp_path):
    np.save(tmp_path / "w.npy", np.ones(len(X)))
    source = rows(X, weight=tmp_path / "w.npy", **SMALL)
    assert source.total_weight == len(X)
    np.save(tmp_path / "w.npy", np.full(10, 2.0))
    refused(source, "w.npy must not change while rows are read from it, but it has changed")
    with pytest.raises(ValueError, match="weight must be 2000 numbers"):
        rows(X, weight=tmp_path / "w.npy")


def test_results_do_not_replace_their_rows(tmp_path):
    path = write(tmp_path / "x.parquet")
    model = GaussianMixture(2, random_state=0).fit(rows(path))
    with pytest.raises(ValueError, match="another file than the rows or weights are read from"):
        model.predict(rows(tmp_path), out=path)
    assert rows(path).n_samples == len(X)


def test_a_function_that_returns_one_iterator_twice_is_an_error():
    iterator = iter([X[:1000], X[1000:]])
    with pytest.raises(ValueError, match="a function that returns a new iterator at every call"):
        GaussianMixture(2).fit(rows(lambda: iterator))


def test_dask_collections_are_refused():
    da = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="fit a DaskGaussianMixture"):
        rows(da.from_array(X))
