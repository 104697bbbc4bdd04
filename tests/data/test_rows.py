"""Fits to rows that are read in blocks: the result is that of the same rows in memory, for every source."""

from pathlib import Path

import numpy as np
import pytest

from fastgmm import BayesianGaussianMixture, ConjugatePrior, GaussianMixture, rows
from fastgmm.data.random_stream import RandomStream, shares
from fastgmm.data.sources import ArraySource
from fastgmm.fitting import sample_sizes
from helpers import blobs, fit_quietly

N = 3000
SMALL = {"block_bytes": 24 * 256}  # 256 rows of three features, so many blocks


@pytest.fixture(scope="module")
def problem():
    X, _ = blobs(1, n_samples=N, n_features=3, n_components=4, separation=2.0)
    return X, np.random.default_rng(0).integers(0, 4, size=N).astype(float)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, problem):
    """A folder with the same rows and weights in files of all formats."""
    pa = pytest.importorskip("pyarrow")
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    from pyarrow import csv, parquet

    path, (X, w) = tmp_path_factory.mktemp("rows"), problem
    np.save(path / "x.npy", X)
    np.save(path / "f.npy", np.asfortranarray(X))
    np.save(path / "w.npy", w)
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "w": w})
    parquet.write_table(table, path / "x.parquet", row_group_size=701)
    csv.write_csv(table, path / "x.csv")
    (path / "parts").mkdir()
    for i, start in enumerate(range(0, N, 1100)):
        parquet.write_table(table.slice(start, 1100), path / "parts" / f"part-{i}.parquet", row_group_size=400)
    (path / "parts" / "_metadata").write_text("not rows")
    with h5py.File(path / "x.h5", "w") as file:
        file["group/X"], file["w"] = X, w
    group = zarr.open_group(str(path / "x.zarr"), mode="w")
    for name, data in (("X", X), ("w", w)):
        group.create_array(name, data=data)
    zarr.save_array(str(path / "single.zarr"), X)
    return path


def unweighted(folder, X):
    names = ["a", "b", "c"]
    return {
        "npy": rows(folder / "x.npy", **SMALL),
        "F-ordered npy": rows(str(folder / "f.npy"), **SMALL),
        "parquet": rows(folder / "x.parquet", columns=names, **SMALL),
        "folder": rows(folder / "parts", columns=names, **SMALL),
        "pattern": rows(f"{folder}/parts/part-*.parquet", columns=names, **SMALL),
        "files": rows(sorted((folder / "parts").glob("part*")), columns=names, **SMALL),
        "csv": rows(folder / "x.csv", columns=names, **SMALL),
        "hdf5": rows(folder / "x.h5", **SMALL),
        "zarr": rows(folder / "single.zarr", **SMALL),
        "array": rows(X, **SMALL),
        "F-ordered array": rows(np.asfortranarray(X), **SMALL),
        "columns": rows(np.column_stack([X[:, 1], X[:, ::2], X]), columns=[1, 0, 2], **SMALL),
        "list": rows([X[:1000], X[1000:1001], X[1001:]], **SMALL),
        "function": rows(lambda: (X[i : i + 333] for i in range(0, N, 333)), **SMALL),
    }


def weighted(folder, X, w):
    return {
        "npy": rows(folder / "x.npy", weight=folder / "w.npy", **SMALL),
        "parquet": rows(folder / "x.parquet", weight="w", **SMALL),
        "folder": rows(folder / "parts", weight="w", **SMALL),
        "csv": rows(folder / "x.csv", weight="w", **SMALL),
        "hdf5": rows(folder / "x.h5", weight="w", key="group/X", **SMALL),
        "zarr": rows(folder / "x.zarr", weight="w", key="X", **SMALL),
        "array": rows(X, weight=w, **SMALL),
        "pairs": rows([(X[:500], w[:500]), (X[500:], w[500:])], **SMALL),
    }


def test_every_kind_of_source_gives_the_same_bits(folder, problem):
    X, w = problem
    for kinds, sample_weight in ((unweighted(folder, X), None), (weighted(folder, X, w), w)):
        expected = GaussianMixture(4, random_state=0).fit(X, sample_weight=sample_weight)
        models = {kind: GaussianMixture(4, random_state=0).fit(source) for kind, source in kinds.items()}
        for kind, model in models.items():
            np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-12, err_msg=kind)
            np.testing.assert_array_equal(model.means_, models["npy"].means_, err_msg=kind)
            assert model.n_iter_ == expected.n_iter_
            source = kinds[kind]
            assert model.score(source) == pytest.approx(expected.score(X, sample_weight=sample_weight), abs=1e-12)
            for name in ("bic", "aic", "icl"):
                asked = getattr(expected, name)(X, sample_weight)
                assert getattr(model, name)(source) == pytest.approx(asked, rel=1e-12), name
            np.testing.assert_array_equal(model.predict(source), expected.predict(X))
            np.testing.assert_allclose(model.score_samples(source), expected.score_samples(X), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"acceleration": None},
        {"acceleration": "squarem", "n_init": 2},
        {"init_params": "k-means++", "whiten_init": True},
        {"init_params": "random", "max_iter": 20},
        {"init_params": "random_from_data"},
        {"init_params": "small_em"},
        {"init_params": "hc"},
        {"n_moves": 1},
        {"covariance_type": "tied"},
        {"covariance_type": "VEV"},
        {"covariance_type": "spherical", "prior": ConjugatePrior()},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_every_option_works_on_blocks(options, is_weighted, problem):
    X, w = problem
    weights = w if is_weighted else None
    model = fit_quietly(GaussianMixture(4, random_state=0, **options), rows(X, weight=weights, **SMALL))
    expected = fit_quietly(GaussianMixture(4, random_state=0, **options), X, sample_weight=weights)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    assert model.n_iter_ == expected.n_iter_


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fits_that_begin_with_samples_begin_with_the_same(is_weighted, dtype, monkeypatch):
    monkeypatch.setattr(sample_sizes, "ROWS", 300)
    X, _ = blobs(3, n_samples=20_000, n_features=2, n_components=5, separation=3.0)
    X[:40] += 40  # a component that samples miss
    X = X.astype(dtype)
    w = np.random.default_rng(1).uniform(0.5, 1.5, size=len(X)) if is_weighted else None
    model = GaussianMixture(5, random_state=0).fit(rows(X, weight=w, block_bytes=50_000))
    expected = GaussianMixture(5, random_state=0).fit(X, sample_weight=w)
    assert sample_sizes.growing(ArraySource(X, w), 5, "full")
    assert model.means_.dtype == dtype
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9 if dtype == np.float64 else 1e-4)
    assert np.abs(expected.means_ - 40).min() < 10


def test_bayesian_mixtures_read_blocks_too(problem):
    X, w = problem
    options = {"n_components": 4, "random_state": 0, "max_iter": 30}
    model = fit_quietly(BayesianGaussianMixture(**options), rows(X, weight=w, **SMALL))
    expected = fit_quietly(BayesianGaussianMixture(**options), X, sample_weight=w)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_samples_are_those_of_rows_in_memory(is_weighted, problem):
    X, w = problem
    weights = w if is_weighted else None
    at = [shares(n, RandomStream(n)) for n in (1, 100, 7000)] + [np.array([0.0, 1 - 1e-16])]
    for found, expected in zip(
        rows(X, weight=weights, **SMALL).draw(*at), ArraySource(X, weights).draw(*at), strict=True
    ):
        np.testing.assert_array_equal(found.X, expected.X)


def test_summaries_are_those_of_rows_in_memory(problem):
    X, w = problem
    for weights in (None, w, w * 1e-200, w * 1e200):
        source, expected = rows(X, weight=weights, **SMALL), ArraySource(X, weights)
        for name in ("n_samples", "n_features", "n_weighted", "dtype"):
            assert getattr(source, name) == getattr(expected, name), name
        assert source.total_weight == pytest.approx(expected.total_weight, rel=1e-12)
        assert source.effective_rows == pytest.approx(expected.effective_rows, rel=1e-12)
        kept = source.whole()
        np.testing.assert_array_equal(kept.X, X if weights is None else X[w > 0])


def test_all_samples_are_drawn_in_one_pass(problem):
    X, _ = problem
    passes = []

    def blocks():
        passes.append(0)
        return iter([X[:1234], X[1234:]])

    source = rows(blocks)
    assert source.n_samples == N
    before = len(passes)
    source.draw(*(shares(n, RandomStream(n)) for n in (10, 100, 1000)))
    assert len(passes) == before + 1


def test_names_of_features_are_kept_and_checked(folder, problem):
    X, _ = problem
    pd = pytest.importorskip("pandas")
    model = GaussianMixture(2, random_state=0).fit(rows(folder / "parts", weight="w"))
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.predict(pd.DataFrame(X, columns=["a", "b", "c"])).shape == (N,)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(rows(folder / "x.parquet", columns=["a", "c", "b"]))
    with pytest.raises(ValueError, match="X has 2 features, but GaussianMixture is expecting 3"):
        GaussianMixture(2).fit(X).predict(rows(X[:, :2]))
    assert repr(rows(folder / "x.parquet", weight="w")) == "<rows: 3000 x 3 float64, weighted, ['a', 'b', 'c']>"


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_results_are_written(suffix, tmp_path, problem):
    X, _ = problem
    model = GaussianMixture(3, random_state=0).fit(X)
    for method in ("predict", "score_samples", "predict_proba"):
        out, expected = tmp_path / f"{method}{suffix}", getattr(model, method)(X)
        for source in (rows(X, **SMALL), X):
            getattr(model, method)(source, out=out)
            assert [p.name for p in tmp_path.iterdir() if p.name.startswith(f".{method}")] == []
            if suffix == ".npy":
                np.testing.assert_array_equal(np.load(out), expected)
            else:
                parquet = pytest.importorskip("pyarrow.parquet")
                table = parquet.read_table(out)
                np.testing.assert_array_equal(
                    np.column_stack([table[name].to_numpy() for name in table.column_names]),
                    expected.reshape(N, -1),
                )


def test_a_write_that_fails_keeps_the_old_file(tmp_path, problem):
    X, _ = problem
    model, out = GaussianMixture(3, random_state=0).fit(X), tmp_path / "labels.npy"
    out.write_bytes(b"before")
    bad = X.copy()
    bad[-1, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(rows(bad, **SMALL), out=out)
    assert [p.name for p in tmp_path.iterdir()] == ["labels.npy"]
    assert out.read_bytes() == b"before"
    for name in ("labels.txt", "nowhere/labels.npy"):
        with pytest.raises(ValueError, match="out must be a file"):
            model.predict(X, out=tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of memory")
def test_memory_is_a_few_blocks(tmp_path):
    """Compare the peaks of memory of fits to 1,000 rows and to 200 MB of rows."""
    import subprocess
    import sys

    code = """
import sys, numpy as np
from pathlib import Path
from fastgmm import GaussianMixture, rows
options = dict(acceleration=None, max_iter=3, tol=0, means_init=[[0.0] * 5, [1.0] * 5], random_state=0)
import warnings; warnings.simplefilter("ignore")
small, large = sys.argv[1:]
def peak():  # ru_maxrss of a new process begins at the value of its parent
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
GaussianMixture(2, **options).fit(rows(small))
before = peak()
GaussianMixture(2, **options).fit(rows(large))
print((peak() - before) / 1024)
"""
    X = np.random.default_rng(0).normal(size=(5_000_000, 5))
    np.save(tmp_path / "large.npy", X)
    np.save(tmp_path / "small.npy", X[:1000])
    del X
    arguments = [sys.executable, "-c", code, str(tmp_path / "small.npy"), str(tmp_path / "large.npy")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100


def test_functions_of_arrays_get_an_error_with_the_way_out(problem):
    from fastgmm import MixtureSearch

    for call in (lambda: np.asarray(rows(problem[0])), lambda: MixtureSearch(2).fit(rows(problem[0]))):
        with pytest.raises(TypeError, match=r"whole\(\)\.X has them in memory"):
            call()


def test_files_of_different_layouts_can_be_combined(tmp_path, problem):
    """Memory orders, dtypes and lengths differ between files, in every order of the files."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    X, _ = problem
    parts = [X[:1000], X[1000:1700], X[1700:1700], X[1700:]]
    for first in range(3):
        folder = tmp_path / str(first)
        folder.mkdir()
        for i, part in enumerate(parts):
            array = [np.asfortranarray(part), np.ascontiguousarray(part), part.astype(">f8")][(i + first) % 3]
            np.save(folder / f"{i}.npy", array)
        np.testing.assert_array_equal(rows(folder, **SMALL).whole().X, X)
        np.save(folder / "1.NPY", parts[1].astype(np.float32))
        (folder / "1.npy").unlink()
        whole = rows(folder, **SMALL).whole().X
        assert whole.dtype == np.float64
        np.testing.assert_allclose(whole, X, rtol=0, atol=1e-5)
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    csv.write_csv(table.slice(0, 1000), tmp_path / "0.csv")
    csv.write_csv(table.slice(0, 0), tmp_path / "1.csv")
    parquet.write_table(table.slice(1000, 700), tmp_path / "2.parquet")
    parquet.write_table(table.slice(1700), tmp_path / "3.parquet")
    source = rows([tmp_path / f"{i}.{kind}" for i, kind in enumerate(("csv", "csv", "parquet", "parquet"))], **SMALL)
    for _ in range(2):
        np.testing.assert_array_equal(source.whole().X, X)
        assert "line 79 of" in source.reader.where(77)
        assert "row 300, row group 0 of" in source.reader.where(2000)
        assert "3.parquet" in source.reader.where(2000)


def test_resp_init_is_split_with_the_blocks():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 400)
    X = rng.normal(size=(1200, 2)) + 6 * labels[:, None]
    w = np.ones(1200)
    w[:300] = 0
    for given in (labels, np.eye(3)[labels]):
        options = {"resp_init": given, "max_iter": 0}
        expected = GaussianMixture(3, **options).fit(X, sample_weight=w)
        model = GaussianMixture(3, **options).fit(rows(X, weight=w, block_bytes=16 * 300))
        np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-12)


def test_names_of_files_with_special_characters(tmp_path, problem, monkeypatch):
    X, _ = problem
    (tmp_path / "d[2]").mkdir()
    for name, shift in (("x[1].npy", 0), ("x1.npy", 100), ("d[2]/a b.npy", 200)):
        np.save(tmp_path / name, X + shift)
        np.testing.assert_array_equal(rows(tmp_path / name).whole().X, X + shift)
    np.testing.assert_array_equal(rows([str(tmp_path / "x[1].npy")]).whole().X, X)
    np.testing.assert_array_equal(rows(f"{tmp_path}/x?.npy").whole().X, X + 100)
    for name in (".hidden/z.npy", "_temporary/z.npy", "_z.npy", "UPPER.NPY"):
        (tmp_path / "f" / name).parent.mkdir(exist_ok=True, parents=True)
        np.save(tmp_path / "f" / "z.npy", X)
        (tmp_path / "f" / "z.npy").rename(tmp_path / "f" / name)
    np.testing.assert_array_equal(rows(tmp_path / "f").whole().X, X)
    monkeypatch.chdir(tmp_path)
    source = rows("x1.npy")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(source.whole().X, X + 100)


def test_folders_of_zarr_stores(tmp_path, problem):
    zarr = pytest.importorskip("zarr")
    X, _ = problem
    zarr.save_array(str(tmp_path / "0.zarr"), X[:1000])
    zarr.save_array(str(tmp_path / "1.zarr"), X[1000:])
    for path in (tmp_path, f"{tmp_path}/*.zarr"):
        np.testing.assert_array_equal(rows(path, **SMALL).whole().X, X)


def test_rows_can_be_sent_to_other_processes(folder, problem):
    import pickle

    for kind, source in weighted(folder, *problem).items():
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy.whole().X, source.whole().X, err_msg=kind)


def test_an_index_of_pandas_is_not_a_feature(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]})
    frame[frame.a > 1].to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv")
    assert rows(tmp_path / "x.parquet").feature_names == ("a", "b")
    with pytest.raises(ValueError, match=r"must have names, but column 0 has none\. It may be an index"):
        rows(tmp_path / "x.csv")
    assert rows(tmp_path / "x.csv", columns="b").whole().X.ravel().tolist() == [4, 5, 6]


def test_iterators_are_opened_and_closed_on_one_thread(problem):
    import threading

    X, _ = problem
    seen = []

    def blocks():
        seen.append(threading.get_ident())
        try:
            for i in range(0, N, 500):
                yield X[i : i + 500]
        finally:
            seen.append(threading.get_ident())

    source = rows(blocks, **SMALL)
    seen.clear()
    source.point_near()  # ends early
    source.whole()
    assert len(seen) == 4
    assert seen[0] == seen[1] != threading.get_ident()
    assert seen[2] == seen[3]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_blocks_share_n_jobs_threads(n_jobs, problem, monkeypatch):
    import threading

    import numba

    from fastgmm.e_step import scores

    seen, score_samples = set(), scores.score_samples
    running, lock = [], threading.Lock()

    def watched(*arguments, **options):
        assert options.get("n_jobs") is None
        with lock:
            running.append(threading.get_ident())
            seen.add((len(running), numba.get_num_threads()))
        try:
            return score_samples(*arguments, **options)
        finally:
            with lock:
                running.remove(threading.get_ident())

    model = GaussianMixture(3, random_state=0, n_jobs=n_jobs).fit(problem[0])
    monkeypatch.setattr(scores, "score_samples", watched)
    for call in (model.score, model.score_samples, model.bic):
        seen.clear()
        call(rows(problem[0], **SMALL))
        assert 1 <= max(at_a_time for at_a_time, _ in seen) <= n_jobs
        assert {threads for _, threads in seen} == {1}


def test_more_threads_than_blocks_are_used_inside_blocks():
    from fastgmm.data.block_source import share_threads

    for n in range(1, 65):
        n_blocks, each = share_threads(n)
        assert n_blocks * each <= n
        assert n_blocks * each > 0.75 * n
        assert n_blocks <= 8 or each == 1
