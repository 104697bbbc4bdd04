"""Mixtures of rows on a real Dask cluster, of two processes, end as in memory, even if one of them is killed."""

import os
import pickle
import signal
import warnings

import numpy as np
import pytest
from sklearn.base import clone

from fastgmm import BayesianGaussianMixture, GaussianMixture
from fastgmm.fitting import sample_sizes
from helpers import blobs

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")
pd = pytest.importorskip("pandas")
from fastgmm import DaskBayesianGaussianMixture, DaskGaussianMixture  # noqa: E402
from fastgmm.data import dask_source  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # of Dask and its dependencies
N = 6000
X, _ = blobs(2, n_samples=N, n_features=3, n_components=4, separation=2.0)
W = np.random.default_rng(0).integers(0, 4, size=N).astype(float)


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def rows(client):
    return da.from_array(X, chunks=(700, 2))  # cut through the features too


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"acceleration": None, "tol": 1e-6},
        {"covariance_type": "tied"},
        {"covariance_type": "VEV"},
        {"init_params": "random", "max_iter": 15},
        {"init_params": "k-means++", "whiten_init": True},
        {"init_params": "hc", "n_moves": 1},
    ],
    ids=str,
)
def test_fits_equal_those_in_memory(options, weighted, rows):
    weights = W if weighted else None
    blocks = da.from_array(W, chunks=999) if weighted else None
    expected = quietly(lambda: GaussianMixture(4, random_state=0, **options).fit(X, sample_weight=weights))
    model = quietly(lambda: DaskGaussianMixture(4, random_state=0, **options).fit(rows, sample_weight=blocks))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    assert model.n_iter_ == expected.n_iter_
    assert model.score(rows, sample_weight=blocks) == pytest.approx(expected.score(X, sample_weight=weights), abs=1e-12)
    assert model.bic(rows, blocks) == pytest.approx(expected.bic(X, weights), rel=1e-12)
    assert model.icl(rows, blocks) == pytest.approx(expected.icl(X, weights), rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_and_responsibilities_to_start_from(weighted, rows, client, monkeypatch):
    monkeypatch.setattr(dask_source, "FAN_IN", 1 + 1)
    labels = np.random.default_rng(1).integers(0, 4, size=N)
    labels[:800] = -1  # all of the first block
    resp = np.random.default_rng(2).dirichlet([0.3] * 4, size=N)
    weights = {"sample_weight": W} if weighted else {}
    table = dd.from_pandas(pd.DataFrame(X), npartitions=3)
    series = dd.from_pandas(pd.Series(labels), npartitions=3)
    for given, lazy, source in [
        (labels, labels, rows),
        (labels, da.from_array(labels, chunks=900), rows),
        (resp, da.from_array(resp, chunks=(1000, 3)), rows),
        (resp, resp, rows),
        (labels, series, table),
        (resp, dd.from_pandas(pd.DataFrame(resp), npartitions=3), table),
    ]:
        options = {"n_components": 4, "max_iter": 3, "acceleration": None}
        expected = quietly(lambda: GaussianMixture(**options, resp_init=given).fit(X, **weights))  # noqa: B023
        beside = {"sample_weight": dd.from_pandas(pd.Series(W), npartitions=3)} if weighted else {}
        beside = beside if source is table else weights
        model = DaskGaussianMixture(**options, resp_init=lazy)
        quietly(lambda: model.fit(source, **beside))  # noqa: B023
        np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(model.predict(source).compute(), expected.predict(X))
    kept = rows[rows[:, 0] > 0]  # sizes are not known
    model = quietly(lambda: DaskGaussianMixture(**options, resp_init=labels[X[:, 0] > 0]).fit(kept))
    expected = quietly(lambda: GaussianMixture(**options, resp_init=labels[X[:, 0] > 0]).fit(X[X[:, 0] > 0]))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    lazy = da.from_array(labels, chunks=700)[rows[:, 0] > 0]
    model = quietly(lambda: DaskGaussianMixture(**options, resp_init=lazy).fit(kept))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)


def test_samples_equal_those_of_rows_in_memory(rows, monkeypatch):
    monkeypatch.setattr(sample_sizes, "ROWS", 500)
    options = {"n_components": 4, "covariance_type": "spherical", "random_state": 0}
    expected, model = GaussianMixture(**options).fit(X), DaskGaussianMixture(**options).fit(rows)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)


def test_predictions_are_lazy_arrays(rows):
    local = GaussianMixture(4, random_state=0).fit(X)
    model = DaskGaussianMixture(4, random_state=0).fit(rows)
    for name in ("predict", "predict_proba", "score_samples"):
        found = getattr(model, name)(rows)
        assert isinstance(found, da.Array)
        expected = getattr(local, name)(X)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found.compute(), expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(getattr(model, name)(X), expected, rtol=0, atol=1e-9)  # rows in memory still do
    np.testing.assert_array_equal(model.fit_predict(rows).compute(), local.predict(X))


def test_blocks_of_unknown_size_and_without_rows(rows):
    kept = rows[rows[:, 0] > 0]
    assert np.isnan(kept.shape[0])
    empty = da.concatenate([kept, rows[rows[:, 0] > 1e9]])
    expected = GaussianMixture(3, random_state=0).fit(X[X[:, 0] > 0])
    for source in (kept, empty):
        model = DaskGaussianMixture(3, random_state=0).fit(source)
        np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
        assert model.predict(source).compute().shape == (sum(X[:, 0] > 0),)
    with pytest.raises(ValueError, match="no rows in any block"):
        DaskGaussianMixture(3).fit(rows[rows[:, 0] > 1e9])


def test_data_frames_with_names_and_weights(client):
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(w=W)
    table = dd.from_pandas(frame, npartitions=5)
    features = table[["a", "b", "c"]]
    model = DaskGaussianMixture(4, random_state=0).fit(features, sample_weight=table["w"])
    expected = GaussianMixture(4, random_state=0).fit(frame[["a", "b", "c"]], sample_weight=W)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    for name in ("predict", "predict_proba", "score_samples"):
        found = getattr(model, name)(features).compute()
        np.testing.assert_allclose(found, getattr(expected, name)(frame[["a", "b", "c"]]), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table[["b", "a", "c"]])


def test_a_killed_worker_changes_nothing(client, rows):
    options = {"acceleration": None, "tol": 0.0, "max_iter": 12, "random_state": 0}
    killed = []

    def callback(n_iter, bound, parameters):
        if n_iter == 4:
            pid = next(iter(client.run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    model = quietly(lambda: DaskGaussianMixture(4, callback=callback, **options).fit(rows))
    expected = quietly(lambda: GaussianMixture(4, **options).fit(X))
    assert killed
    assert killed[0] not in client.run(os.getpid).values()
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    assert model.n_iter_ == 12


def test_a_killed_fit_is_resumed_only_with_the_same_rows(client, rows, tmp_path):
    options = {"acceleration": None, "tol": 0.0, "max_iter": 8, "random_state": 0, "checkpoint": tmp_path / "state"}

    def fail(n_iter, *_):
        if n_iter == 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        DaskGaussianMixture(4, callback=fail, **options).fit(rows)
    with pytest.raises(ValueError, match="state is the checkpoint of another fit: checksum of the rows"):
        DaskGaussianMixture(4, **options).resume(rows + 1)
    seen = []
    model = DaskGaussianMixture(4, callback=lambda n_iter, *_: seen.append(n_iter), **options)
    quietly(lambda: model.resume(rows))
    assert seen == [4, 5, 6, 7, 8]
    expected = quietly(lambda: DaskGaussianMixture(4, **{**options, "checkpoint": None}).fit(rows))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-12)


def test_large_parameters_do_not_go_through_the_scheduler(rows, monkeypatch):
    monkeypatch.setattr(dask_source, "MAX_BYTES_THROUGH_SCHEDULER", 0)
    monkeypatch.setattr(dask_source, "FAN_IN", 1 + 1)
    model = DaskGaussianMixture(4, random_state=0).fit(rows)
    np.testing.assert_allclose(model.means_, GaussianMixture(4, random_state=0).fit(X).means_, rtol=0, atol=1e-9)


def test_a_pass_is_one_task_per_worker(client, rows):
    source = dask_source.DaskSource(client, list(rows.rechunk((700, 3)).to_delayed()[:, 0]), None, 3, X.dtype)
    groups = source._blocks_by_worker()
    assert set(groups) <= set(client.scheduler_info()["workers"])
    assert sum(map(len, groups.values())) == len(source.futures) == 9
    assert source.reduce(lambda X, w: len(X)) == N


def test_bayesian_mixtures(rows):
    options = {"n_components": 4, "random_state": 0, "max_iter": 10}
    model = quietly(lambda: DaskBayesianGaussianMixture(**options).fit(rows))
    expected = quietly(lambda: BayesianGaussianMixture(**options).fit(X))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    assert type(model.to_local()) is BayesianGaussianMixture


def test_the_local_estimator_and_copies(client, rows):
    model = DaskGaussianMixture(4, random_state=0, client=client, covariance_type="diag").fit(rows)
    local = model.to_local()
    assert type(local) is GaussianMixture
    assert local.covariance_type == "diag"
    np.testing.assert_array_equal(local.predict(X), model.predict(rows).compute())
    copy = clone(model)
    assert copy.client is client
    assert copy.covariance_type == "diag"
    assert not hasattr(copy, "means_")
    kept = pickle.loads(pickle.dumps(model))
    assert kept.client is None
    np.testing.assert_array_equal(kept.means_, model.means_)
    assert set(model.get_params()) == {*GaussianMixture().get_params(), "client"}


def test_errors_name_the_problem(client, rows):
    bad = X.copy()
    bad[1500, 1] = np.nan
    model = DaskGaussianMixture(3)
    with pytest.raises(ValueError, match="contains NaN, in row 100 of block 2, column 1"):
        model.fit(da.from_array(bad, chunks=(700, 3)))
    assert not hasattr(model, "means_")
    with pytest.raises(ValueError, match=r"not negative, got .* of block"):
        model.fit(rows, sample_weight=da.from_array(-W, chunks=700))
    with pytest.raises(ValueError, match=r"expected \(6000,\)!"):
        model.fit(rows, sample_weight=da.from_array(W[1:], chunks=700))
    with pytest.raises(ValueError, match="must be a Dask array or series"):
        model.fit(rows[rows[:, 0] > 0], sample_weight=W)
    wrong = {
        "should have the shape of .6000,., but got .5999,.": np.zeros(N - 1, int),
        "shape of .6000,., but got .5998,.": da.zeros(N - 2, int, chunks=700),
        "labels below n_components = 3, but got 3, in block 2": da.from_array(3 * (np.arange(N) == 1500), chunks=300),
        "all labels are negative": np.full(N, -1),
        "row 50 sums to 2.00000, in block 1": np.where(np.arange(N) == 750, 2 / 3, 1 / 3)[:, None] * np.ones(3),
        r"as many blocks as X \(9\), got 2": dd.from_pandas(pd.Series(np.zeros(N, int)), npartitions=2),
    }  # fmt: skip
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            DaskGaussianMixture(3, resp_init=given).fit(rows)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
        model.fit(rows[:, 0])
    fitted = DaskGaussianMixture(3, random_state=0).fit(rows)
    with pytest.raises(ValueError, match="X has 2 features, but DaskGaussianMixture is expecting 3"):
        fitted.predict(rows[:, :2])
    with pytest.raises(ValueError, match="n_components"):
        DaskGaussianMixture(0).fit(rows)
    with pytest.raises(ValueError, match="out must be None for a Dask collection"):
        fitted.predict(rows, out="labels.npy")
    words = dd.from_pandas(pd.DataFrame({"a": X[:, 0], "b": ["x"] * N}), npartitions=2)
    with pytest.raises(ValueError, match="column 'b' must hold numbers"):
        model.fit(words)
    holes = dd.from_pandas(pd.DataFrame({"a": pd.array([1.0, None, *[2.0] * (N - 2)], dtype="Float64")}), npartitions=2)
    with pytest.raises(ValueError, match="contains NaN, in row 1 of block 0"):
        model.fit(holes)


def test_a_fit_that_fails_leaves_nothing_on_the_cluster(client):
    import gc
    import time

    bad = X.copy()
    bad[1500, 1] = np.nan
    error, tasks = None, client.cluster.scheduler.tasks
    before = set(tasks)  # of other tests
    try:
        DaskGaussianMixture(3).fit(da.from_array(bad, chunks=(700, 3)))
    except ValueError as caught:
        error = caught
    for _ in range(50):
        gc.collect()
        if not set(tasks) - before:
            break
        time.sleep(0.1)
    assert error is not None
    assert len(set(tasks) - before) <= 1  # the one that failed


def test_single_precision_is_kept(rows):
    model = DaskGaussianMixture(3, random_state=0).fit(rows.astype(np.float32))
    assert model.means_.dtype == np.float32
    assert model.score_samples(rows.astype(np.float32)).compute().dtype == np.float32


@pytest.fixture
def fitted(rows):
    return DaskGaussianMixture(3, random_state=0).fit(rows)


METHODS = ("fit", "predict", "predict_proba", "score_samples", "score", "bic")


@pytest.mark.parametrize("method", METHODS)
def test_complex_rows_are_refused(method, rows, fitted):
    frame = dd.from_pandas(pd.DataFrame(X + 1j), npartitions=2)
    for source in (rows + 1j, frame):
        with pytest.raises(ValueError, match="Complex data not supported"):
            getattr(fitted, method)(source)
    for source, message in (
        (rows.astype(str), "must hold real numbers, but holds <U"),
        (rows[:, :0], r"0 feature\(s\)"),
        (rows[:, rows[0] > -100], r"X must have a known number of columns.*compute_chunk_sizes"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(source)


def said(blocks, dtype=float):
    """Return a Dask array whose blocks may differ from its metadata."""
    parts = [dask.delayed(block, traverse=False) for block in blocks]
    shapes = [block.shape for block in blocks]
    return da.concatenate([da.from_delayed(p, shape=s, dtype=dtype) for p, s in zip(parts, shapes, strict=True)])


@pytest.mark.parametrize("method", METHODS)
def test_blocks_that_differ_from_the_metadata_are_refused(method, fitted):
    def call(source):
        found = getattr(fitted, method)(source)
        return found.compute() if hasattr(found, "compute") else found

    from scipy import sparse

    for block, kind, message in (
        (X + 1j, ValueError, "Complex data not supported"),
        (X.astype(str), ValueError, "must be real numbers, got dtype <U"),
        (np.ma.masked_greater(X, 3), ValueError, "contains NaN"),
        (sparse.csr_array(X), TypeError, "Sparse data was passed"),
    ):
        with pytest.raises(kind, match=message):
            call(said([X, block]))
    if method != "fit":
        return
    with pytest.raises(ValueError, match="block 1 of X: it holds float64, but X says float32"):
        call(said([X.astype(np.float32), X], np.float32))
    for source in (said([X, X.astype(np.float32)]), said([X, X.astype(object)], object), said([X, X.astype("f2")])):
        expected = GaussianMixture(3, random_state=0).fit(source.compute())
        np.testing.assert_allclose(call(source).means_, expected.means_, rtol=0, atol=1e-9)
    for dtype in (np.float16, np.longdouble, bool, np.int8):
        rounded = X.astype(dtype)
        expected = GaussianMixture(2, random_state=0, init_params="random").fit(rounded)
        model = DaskGaussianMixture(2, random_state=0, init_params="random").fit(
            da.from_array(rounded, chunks=(700, 3))
        )
        assert model.means_.dtype == expected.means_.dtype
        np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)


def test_partitions_are_aligned_by_name(client):
    frame = pd.DataFrame(X + np.array([0, 100, 200]), columns=["a", "b", "c"])
    expected = GaussianMixture(4, random_state=0).fit(frame)

    def table(*parts):
        return dd.from_map(lambda i: parts[i], range(len(parts)), meta=frame[:0], enforce_metadata=False)

    swapped = table(frame[:2000], frame[2000:][["c", "a", "b"]])
    model = DaskGaussianMixture(4, random_state=0).fit(swapped)
    np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
    for name in ("predict", "predict_proba", "score_samples"):
        found = getattr(model, name)(swapped).compute()
        np.testing.assert_allclose(found, getattr(expected, name)(frame), rtol=0, atol=1e-8)
    assert model.score(swapped) == pytest.approx(expected.score(frame), abs=1e-9)
    others = table(frame[:2000], frame[2000:].rename(columns={"c": "d"}))
    for call in (model.fit, model.score, lambda X: model.predict(X).compute()):
        with pytest.raises(ValueError, match=r"the columns must be \['a', 'b', 'c'\], got \['a', 'b', 'd'\]"):
            call(others)


def test_nullable_and_other_dtypes_of_frames(client):
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1].round(), "c": X[:, 2] > 0})
    options = {"n_components": 2, "random_state": 0, "covariance_type": "diag"}
    expected = GaussianMixture(**options).fit(frame)
    for converted in (frame, frame.convert_dtypes(), frame.astype({"a": "Float64"}), frame.astype("float64[pyarrow]")):
        table = dd.from_pandas(converted, npartitions=3)
        model = DaskGaussianMixture(**options).fit(table)
        np.testing.assert_allclose(model.means_, expected.means_, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(model.predict(table).compute(), expected.predict(frame))
    holes = frame.convert_dtypes()
    holes.loc[2500, "b"] = pd.NA
    table = dd.from_pandas(holes, npartitions=3)
    with pytest.raises(ValueError, match="contains NaN, in row 500 of block 1, column 'b'"):
        DaskGaussianMixture(**options).fit(table)
    with pytest.raises(ValueError, match="contains NaN"):
        model.predict(table).compute()
    for kind in ("category", object):
        with pytest.raises(ValueError, match="column 'a' must hold numbers, but holds"):
            DaskGaussianMixture(**options).fit(dd.from_pandas(frame.astype({"a": kind}), npartitions=3))


def test_weights_that_do_not_fit_the_rows_are_refused(rows):
    model = DaskGaussianMixture(3)
    for weights, message in (
        (W[1:], r"sample_weight.shape == \(5999,\), expected \(6000,\)"),
        (np.ones((N, 2)), r"weights must have one dimension, \(n,\), got shape \(6000, 2\)"),
        (W + 1j, "Complex data not supported"),
        (W.astype(str), "must be real numbers, got dtype <U"),
        (np.ma.masked_equal(W, 3), "not negative, got .* of block"),
        (da.from_array(W + 1j, chunks=700), r"weights of block \d: Complex data not supported"),
        (da.ma.masked_equal(da.from_array(W, chunks=700), 3), "not negative, got .* of block"),
    ):
        for call in (model.fit, DaskGaussianMixture(3, random_state=0).fit(rows).score):
            with pytest.raises(ValueError, match=message):
                call(rows, sample_weight=weights)
    nullable = dd.from_pandas(pd.Series(W).convert_dtypes(), npartitions=4)
    table = dd.from_pandas(pd.DataFrame(X), npartitions=4)
    found = DaskGaussianMixture(3, random_state=0).fit(table, sample_weight=nullable)
    expected = GaussianMixture(3, random_state=0).fit(X, sample_weight=W)
    np.testing.assert_allclose(found.means_, expected.means_, rtol=0, atol=1e-9)


def test_masked_starts_are_refused(rows):
    labels = np.ma.array(np.zeros(N, int), mask=np.arange(N) == 800)
    for given in (labels, said([labels[:1000], labels[1000:]], int)):
        with pytest.raises(ValueError, match="contains NaN"):
            DaskGaussianMixture(3, resp_init=given).fit(rows)
