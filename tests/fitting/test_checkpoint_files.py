"""Checkpoints as files: no other file is replaced, damage and other rows are detected, no code is run."""

import itertools
import os
import pickle
import shutil
import signal
import stat
import struct
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, cross_val_score

from fastgmm import BayesianGaussianMixture, ConjugatePrior, GaussianMixture, bootstrap_parameters, rows
from fastgmm import bootstrap_likelihood_ratio as bootstrap_test
from fastgmm.data.plain_data import NotPlainDataError, digest, pack, unpack
from fastgmm.data.sources import ArraySource, row_checksum
from fastgmm.fitting.checkpoint import HEADER, MAGIC, TYPES, VERSION, CheckpointFile, decoded, encoded
from helpers import blobs

X, _ = blobs(5, n_samples=600, n_features=2, n_components=2, separation=2.0)
OPTIONS = {"n_components": 2, "random_state": 0, "tol": 0.0, "max_iter": 12, "acceleration": None}
BLOCKS = {"block_bytes": 2048}
ESTIMATORS = [GaussianMixture, BayesianGaussianMixture]


class Stop(Exception):
    """Stands for an error in the middle of a fit."""


def stop(n_iter, *_):
    if n_iter == 3:
        raise Stop


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def stopped(path, source, **options):
    """Save the state of a fit that is stopped after three passes."""
    with pytest.raises(Stop):
        GaussianMixture(**{**OPTIONS, "checkpoint": path, "callback": stop, **options}).fit(source)


def resumed(path, source, **options):
    return quietly(lambda: GaussianMixture(**{**OPTIONS, "checkpoint": path, **options}).resume(source))


@pytest.fixture
def state(tmp_path):
    stopped(tmp_path / "state", X)
    return tmp_path / "state"


def is_refused(path, source=X, *, match, methods=("fit", "resume", "fit_predict")):
    """Check that a fit is refused before a row is read."""
    for estimator in ESTIMATORS:
        for method in methods:
            with pytest.raises(ValueError, match=match):
                getattr(estimator(n_components=2, checkpoint=path), method)(source)


@pytest.mark.parametrize("content", [b"my work", b"", b"\x80\x05N.", MAGIC[:-1]], ids=repr)
def test_files_that_are_no_checkpoints_are_not_replaced(content, tmp_path):
    for name in ("thesis.docx", "link"):
        path = tmp_path / "thesis.docx"
        path.write_bytes(content)
        if name == "link":
            (tmp_path / name).symlink_to(path)
        is_refused(
            tmp_path / name, match="does not exist yet, or a checkpoint, but .* is (not a checkpoint|an empty file)"
        )
        assert path.read_bytes() == content
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_rows_and_weights_are_not_replaced(tmp_path, monkeypatch):
    """No block is read either."""
    walked = []
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "w.npy", np.ones(len(X)))
    (tmp_path / "link").symlink_to(tmp_path / "x.npy")
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = (tmp_path / "x.npy").read_bytes()
    source = rows(tmp_path / "x.npy", weight=tmp_path / "w.npy")
    monkeypatch.setattr(type(source), "_results", lambda *_: walked.append(0))
    for path in ("x.npy", "w.npy", "link", "../" + tmp_path.name + "/x.npy"):
        is_refused(tmp_path / path, source, match="another file than the rows or weights are read from")
    is_refused(tmp_path / "x.npy", mapped, match="another file than the rows or weights are read from")
    with pytest.raises(ValueError, match="another file than the rows or weights"):
        GaussianMixture(2, checkpoint=tmp_path / "w.npy").fit(
            X, sample_weight=np.load(tmp_path / "w.npy", mmap_mode="r")
        )
    assert not walked
    assert (tmp_path / "x.npy").read_bytes() == before


def test_files_in_a_zarr_store_are_not_replaced(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "x.zarr"), X)
    is_refused(tmp_path / "x.zarr" / "state", rows(tmp_path / "x.zarr"), match=r"is inside, .*x\.zarr")


def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in {
        tmp_path / "pipe": "is a pipe",
        "/dev/null": "is a device",
        tmp_path / "loop": "is a symbolic link to itself",
        tmp_path: "a file in a folder that exists",
        "": "a file in a folder that exists",
    }.items():
        is_refused(path, match=message)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_links_and_permissions_stay(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "state").symlink_to("scratch/kept")
    stopped(tmp_path / "state", X)
    (tmp_path / "scratch" / "kept").chmod(0o600)
    resumed(tmp_path / "state", X)
    assert (tmp_path / "state").is_symlink()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["kept"]
    assert stat.S_IMODE((tmp_path / "scratch" / "kept").stat().st_mode) == 0o600


def test_long_names_and_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    stopped("~/" + "s" * 250, X)
    assert (tmp_path / ("s" * 250)).exists()
    assert resumed("~/" + "s" * 250, X).n_iter_ == 12


def test_a_file_that_appears_during_the_fit_is_not_replaced(tmp_path):
    path = tmp_path / "state"

    def write(n_iter, *_):
        if n_iter == 2:
            path.write_bytes(b"my work")

    with pytest.raises(ValueError, match="is not a checkpoint of a fit"):
        GaussianMixture(**OPTIONS, checkpoint=path, callback=write).fit(X)
    assert path.read_bytes() == b"my work"


def test_the_current_folder_may_change_during_the_fit(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    quietly(lambda: GaussianMixture(**OPTIONS, checkpoint="state", callback=lambda *_: os.chdir("/")).fit(X))
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("method", ["fit", "resume", "fit_predict"])
def test_results_do_not_replace_a_state_in_another_folder(method, estimator, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    model = estimator(n_components=2, random_state=0, checkpoint="kept.npy")
    quietly(lambda: getattr(model, method)(X))
    before = (tmp_path / "kept.npy").read_bytes()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "link.npy").symlink_to("kept.npy")
    for fitted in (model, pickle.loads(pickle.dumps(model)), model.set_params(checkpoint=None)):
        for out in ("../kept.npy", tmp_path / "kept.npy", "../link.npy"):
            with pytest.raises(ValueError, match="out should be another file than the fit's state is kept in"):
                fitted.predict(X, out=out)
    assert (tmp_path / "kept.npy").read_bytes() == before
    model.set_params(checkpoint="kept.npy").predict(X, out="free.npy")
    np.testing.assert_array_equal(np.load("free.npy"), model.predict(X))
    shutil.copy(tmp_path / "kept.npy", "kept.npy")  # which a fit would write now
    with pytest.raises(ValueError, match="out should be another file than the fit's state is kept in"):
        model.predict(X, out="kept.npy")


def test_an_older_state_outlives_bad_input(state):
    before = state.read_bytes()
    bad = X.copy()
    bad[7, 1] = np.nan
    np.save(state.parent / "bad.npy", bad)
    for source in (bad, rows(state.parent / "bad.npy"), X[:1]):
        for method in ("fit", "resume"):
            with pytest.raises(ValueError, match=r"NaN|minimum of 2"):
                getattr(GaussianMixture(**OPTIONS, checkpoint=state), method)(source)
    assert state.read_bytes() == before
    assert sorted(p.name for p in state.parent.iterdir()) == ["bad.npy", "state"]


def test_every_bit_counts(state):
    """A changed bit, or a missing end, is an error that names the file."""
    raw = state.read_bytes()
    rng = np.random.default_rng(1)
    places = [*range(8 * (HEADER.size + 32 + 64)), *rng.integers(8 * len(raw), size=2000)]
    for bit in places:
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ValueError, match="state is "):
            decoded(bytes(damaged), state)
    for length in [*range(200), *rng.integers(len(raw), size=500)]:
        with pytest.raises(ValueError, match="state is "):
            decoded(raw[:length], state)
    with pytest.raises(ValueError, match="damaged or cut short"):
        decoded(raw + b"\0", state)
    state.write_bytes(raw[:-1])
    with pytest.raises(ValueError, match=r"state is a checkpoint that is damaged or cut short.*Remove it, or give"):
        resumed(state, X)
    assert quietly(lambda: GaussianMixture(**OPTIONS, checkpoint=state).fit(X)).n_iter_ == 12  # which may begin anew


class Trap:
    """Code that pickle would run."""

    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_an_older_format_is_refused_and_not_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path = tmp_path / "state"
    path.write_bytes(pickle.dumps({"format": 1, "about": {}, "kept": Trap()}, protocol=5))
    is_refused(path, match="a checkpoint of an older format, a pickle, which is not opened.*Choose another name")
    path.write_bytes(pickle.dumps(Trap()))
    is_refused(path, match="is not a checkpoint of a fit")
    assert not (tmp_path / "sprung").exists()
    path.write_bytes(HEADER.pack(MAGIC, VERSION + 1, 0) + b"\0" * 32)
    is_refused(path, match=rf"of format {VERSION + 1}, but this fastgmm reads {VERSION}", methods=["resume"])


def test_other_content_is_refused(state):
    """Even with the right checksum."""
    content = decoded(state.read_bytes(), state)
    for other in (content._replace(state=None), content.about, None):
        state.write_bytes(encoded(other))
        with pytest.raises(ValueError, match="is a checkpoint of another version of fastgmm: it does not contain"):
            resumed(state, X)


def test_nothing_but_listed_types_is_loaded():
    """Even in a file with the right checksum."""
    for text in (
        b'{"object": "Popen", "attributes": {}}',
        b'{"class": "Popen"}',
        b'{"eval": "1"}',
        b"{}",
        b"[",
        b'{"a"',
    ):
        with pytest.raises(NotPlainDataError):
            unpack(struct.pack("<Q", len(text)) + text, TYPES)
    for plain in (
        '{"array": "|O", "shape": [1], "order": "C", "at": 0}',
        '{"array": "<f8", "shape": [9999999999], "order": "C", "at": 0}',
        '{"array": "<f8", "shape": [-1], "order": "C", "at": 0}',
        '{"object": "MixtureParameters", "attributes": {"weights": 1}}',
        '{"object": "CheckpointState", "attributes": {"run": null, "light_moves": false, "more": 1}}',
    ):
        with pytest.raises(NotPlainDataError):
            unpack(struct.pack("<Q", len(plain)) + plain.encode() + b"\0" * 8, TYPES)
    for value in (object(), {1: 2}, {"a": {3}}, np.array(["text"]), np.array([None]), lambda: 0, Stop, 1j):
        with pytest.raises(NotPlainDataError):
            pack(value, TYPES)


@dataclass(eq=False)
class Example:
    """Values that a state may contain."""

    array: np.ndarray
    rest: object


def test_plain_data_come_back_as_they_were():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(3, 4))
    values = [
        None, True, 1, -(10**30), 0.1, -0.0, np.inf, np.nan, 5e-324, "text é\0", [], [1, [2.5]], (), (1, (2,)),
        {"a": (1.5, None)}, np.float64(0.1), np.float32(0.1), np.int64(-3), np.bool_(True),
        np.arange(3, dtype=np.int32), shared, np.asfortranarray(shared), shared.T, shared[:, ::2], np.array(2.5),
        np.empty((0, 3)), np.ones(3, bool), np.array([np.nan, -0.0, np.inf]), np.asfortranarray(np.ones((2, 1))),
    ]  # fmt: skip
    types = {"Example": Example}
    whole = unpack(pack(Example(shared, [*values, Example]), types), types)
    assert whole.rest.pop() is Example
    for was, now in zip([shared, *values], [whole.array, *whole.rest], strict=True):
        assert type(was) is type(now)
        if isinstance(was, np.ndarray | np.generic):
            assert (was.dtype, was.shape) == (now.dtype, now.shape)
            assert was.tobytes() == now.tobytes()
            if isinstance(was, np.ndarray) and was.flags.forc:
                assert (was.flags.c_contiguous, was.flags.f_contiguous) == (
                    now.flags.c_contiguous,
                    now.flags.f_contiguous,
                )
                assert now.flags.writeable
        else:
            assert repr(was) == repr(now)
    assert len(pack([shared] * 50, {})) < 60 * 100 + shared.nbytes  # one that occurs again is not stored again


def test_digests_tell_values_apart():
    values = [
        None, 1, 1.5, True, "1", [1], [1, 2], [[1], 2], [[1, 2]], ["ab", "c"], ["a", "bc"], ("ab", "c"), np.arange(2),
        np.arange(2.0)[:, None], np.array(["a", "b"], dtype=object), np.random.RandomState(0), ConjugatePrior(),
        ConjugatePrior(shrinkage=0.1), {"a": 1}, {"a": 2}, [], [None], float("nan"), float("inf"),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    F = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert digest(F) == digest(np.ascontiguousarray(F))
    long = np.arange(200_000.0).reshape(-1, 2)
    other = long.copy()
    other[-1, -1] += 1
    assert digest(long) != digest(other)
    assert digest(long) == digest(np.asfortranarray(long)) == digest(long.astype(np.int32)) == digest(long.tolist())


@pytest.mark.parametrize(
    "equal",
    [
        [2, 2.0, np.int64(2), np.uint8(2), np.float32(2), np.longdouble(2), np.array(2)],
        [0.25, np.float64(0.25), np.float16(0.25), np.array(0.25)],
        [True, np.True_, np.array(True)],
        ["full", np.str_("full"), np.array("full")],
        [[[1, 2], [3, 4]], np.array([[1.0, 2], [3, 4]]), [(1, 2.0), np.array([3, 4])], np.float32([[1, 2], [3, 4]])],
        [ConjugatePrior(mean=[0, 1], dof=5), ConjugatePrior(mean=np.array([0.0, 1]), dof=np.float64(5))],
        [np.random.RandomState(0), np.random.RandomState(1)],  # the state is another one after the fit
    ],
    ids=str,
)
def test_digests_of_equal_values_are_equal(equal):
    assert len({digest(value) for value in equal}) == 1


@pytest.mark.parametrize(
    ("values", "equal"),
    [
        ({"n_components": np.int64(2)}, {"n_components": 2}),
        ({"tol": np.float64(0.0), "reg_covar": np.float32(0.5)}, {"tol": 0, "reg_covar": 0.5}),
        ({"random_state": np.int64(0)}, {"random_state": 0}),
        ({"random_state": np.random.RandomState(0)}, {"random_state": np.random.RandomState(0)}),
        ({"covariance_type": np.str_("diag")}, {"covariance_type": "diag"}),
        ({"means_init": X[:2].tolist()}, {"means_init": X[:2]}),
        ({"means_init": np.float32(X[:2])}, {"means_init": np.float32(X[:2]).tolist()}),
        ({"weights_init": (0.25, 0.75)}, {"weights_init": np.array([0.25, 0.75])}),
        ({"precisions_init": [[1, 2], [3, 4]], "covariance_type": "diag"},
         {"precisions_init": np.array([[1.0, 2], [3, 4]]), "covariance_type": "diag"}),
        ({"resp_init": (X[:, 0] > 0).tolist()}, {"resp_init": np.int32(X[:, 0] > 0)}),
        ({"prior": ConjugatePrior(mean=[0, 0], dof=np.int64(4))}, {"prior": ConjugatePrior(mean=np.zeros(2), dof=4)}),
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
def test_a_fit_continues_with_equal_parameters(values, equal, tmp_path):
    for before, now in ((values, equal), (equal, values)):
        if "random_state" not in values:
            before, now = ({"random_state": 0, **options} for options in (before, now))
        path = tmp_path / "state"
        path.unlink(missing_ok=True)
        stopped(path, X, **before)
        expected = quietly(lambda options=before: GaussianMixture(**{**OPTIONS, **options}).fit(X))
        if isinstance(before["random_state"], int | np.integer):
            np.testing.assert_array_equal(resumed(path, X, **now).means_, expected.means_)
        else:  # the generators have been drawn from by now
            assert resumed(path, X, **now).n_iter_ == expected.n_iter_


def test_priors_of_another_type_are_the_same(tmp_path):
    options = {"n_components": 2, "random_state": 0, "checkpoint": tmp_path / "state"}
    first = quietly(lambda: BayesianGaussianMixture(mean_prior=[1, 2], covariance_prior=np.eye(2), **options).fit(X))
    again = BayesianGaussianMixture(mean_prior=np.array([1.0, 2]), covariance_prior=[[1, 0], [0, 1]], **options)
    np.testing.assert_array_equal(quietly(lambda: again.resume(X)).means_, first.means_)
    with pytest.raises(ValueError, match=r"another fit: mean_prior was \[1, 2\], but is \[1, 3\] now"):
        again.set_params(mean_prior=[1, 3]).resume(X)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_checksums_of_rows(dtype):
    rng = np.random.default_rng(0)
    Y, w = rng.normal(size=(40_000, 5)).astype(dtype), rng.uniform(size=40_000)
    whole = row_checksum(Y, w)
    assert whole == row_checksum(np.asfortranarray(Y), w)
    cuts = [0, 1, 7000, 7001, 33_333, 40_000]
    parts = itertools.pairwise(cuts)
    assert whole == sum(row_checksum(Y[a:b], w[a:b], a) for a, b in parts) % 2**64
    swapped, shuffled, other = Y[:, [1, 0, 2, 3, 4]], Y.copy(), Y.copy()
    shuffled[[3, 5]] = shuffled[[5, 3]]
    other[-1, -1] = np.nextafter(other[-1, -1], dtype(9))
    found = [row_checksum(rows, w) for rows in (Y, swapped, shuffled, other, Y + dtype(1))]
    found += [row_checksum(Y, w[::-1].copy()), row_checksum(Y, None), row_checksum(Y[:-1], w[:-1])]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("change", [lambda Y: Y + 100, lambda Y: Y[::-1].copy(), lambda Y: Y[:, ::-1].copy()])
@pytest.mark.parametrize("streamed", [True, False])
def test_other_rows_are_refused_at_once(streamed, change, state):
    if streamed:
        state.unlink()
        stopped(state, rows(X, **BLOCKS))
    before = state.read_bytes()
    source = rows(change(X), **BLOCKS) if streamed else change(X)
    with pytest.raises(ValueError, match="state is the checkpoint of another fit: checksum of the rows was"):
        resumed(state, source)
    assert state.read_bytes() == before


def test_other_rows_far_into_a_file_are_detected_before_the_state_is_replaced(tmp_path):
    path = tmp_path / "state"
    Y = np.tile(X, (10, 1))
    np.save(tmp_path / "y.npy", Y)
    stopped(path, rows(tmp_path / "y.npy", **BLOCKS))
    before = path.read_bytes()
    other = Y.copy()
    other[-1] += 1e-9
    np.save(tmp_path / "z.npy", other)
    model = GaussianMixture(**OPTIONS, checkpoint=path)
    with pytest.raises(ValueError, match="state is the checkpoint of another fit: all rows have now been read"):
        model.resume(rows(tmp_path / "z.npy", **BLOCKS))
    assert path.read_bytes() == before
    assert not hasattr(model, "means_")
    (tmp_path / "y.npy").rename(tmp_path / "moved.npy")  # the name of the file has no effect
    expected = quietly(lambda: GaussianMixture(**OPTIONS).fit(rows(Y, **BLOCKS)))
    np.testing.assert_array_equal(resumed(path, rows(tmp_path / "moved.npy", **BLOCKS)).means_, expected.means_)


@pytest.mark.parametrize("options", [{"max_iter": 3}, {"tol": 1e-2, "max_iter": 500}], ids=["used up", "converged"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_other_rows_are_detected_even_if_the_run_had_ended(estimator, options, tmp_path):
    path, Y = tmp_path / "state", np.tile(X, (10, 1))
    np.save(tmp_path / "y.npy", Y)
    other = Y.copy()
    other[-1] += 1e-9
    np.save(tmp_path / "z.npy", other)
    model = estimator(n_components=2, random_state=0, checkpoint=path, **options)
    quietly(lambda: model.fit(rows(tmp_path / "y.npy", **BLOCKS)))
    before, means = path.read_bytes(), model.means_
    assert model.converged_ == (options["max_iter"] == 500)
    with pytest.raises(ValueError, match="state is the checkpoint of another fit: all rows have now been read"):
        quietly(lambda: model.resume(rows(tmp_path / "z.npy", **BLOCKS)))
    assert path.read_bytes() == before
    assert model.means_ is means
    quietly(lambda: model.resume(rows(tmp_path / "y.npy", **BLOCKS)))
    np.testing.assert_array_equal(model.means_, means)


def test_a_source_is_not_read_once_more_for_its_checksum(tmp_path):
    walks = []

    class Counted:
        def __iter__(self):
            walks.append(0)
            return iter([X[:100], X[100:]])

    def n_walks(**options):
        source = rows(Counted())
        walks.clear()
        quietly(lambda: GaussianMixture(**OPTIONS, **options).fit(source))
        return len(walks)

    assert n_walks(checkpoint=tmp_path / "state") == n_walks() + 1  # the additional one reads a block


def test_other_columns_and_weights_are_refused(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path, w = tmp_path / "state", np.tile([1.0, 2.0], len(X) // 2)
    frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 1], "w": w, "v": w[::-1]})
    frame.to_parquet(tmp_path / "x.parquet")
    names = r"state is the checkpoint of another fit: feature names was \['a', 'b'\], but is \['a', 'c'\] now"
    for make in (
        lambda columns: rows(tmp_path / "x.parquet", columns=columns),
        lambda columns: frame[columns],
    ):
        stopped(path, make(["a", "b"]))
        with pytest.raises(ValueError, match=names):
            resumed(path, make(["a", "c"]))
    stopped(path, rows(tmp_path / "x.parquet", columns=["a", "b"], weight="w"))
    with pytest.raises(ValueError, match="checksum of the rows"):
        resumed(path, rows(tmp_path / "x.parquet", columns=["a", "b"], weight="v"))
    with pytest.raises(ValueError, match="total_weight was 900"):
        resumed(path, rows(tmp_path / "x.parquet", columns=["a", "b"]))


@pytest.mark.parametrize("n_processes", [None, 2])
def test_replicates_save_no_state_and_call_no_callback(n_processes, tmp_path):
    path, called = tmp_path / "folder" / "state", []
    path.parent.mkdir()
    model = GaussianMixture(2, random_state=0, checkpoint=path, callback=lambda *_: called.append(0)).fit(X)
    before, n_called = path.read_bytes(), len(called)
    options = {"random_state": 0, "n_processes": n_processes}
    assert bootstrap_parameters(model, X, n_replicates=4, **options).n_failed == 0
    bootstrap_test(model, X, n_replicates=3, level=0.5, max_components=1, **options)
    assert path.read_bytes() == before
    assert len(called) == n_called
    assert model.resume(X).checkpoint == path
    shutil.rmtree(path.parent)
    assert bootstrap_parameters(model, X, n_replicates=4, **options).n_failed == 0
    assert model.predict(X).shape == (len(X),)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_fits_may_share_a_file(n_jobs, tmp_path):
    """One after the other, or at the same time: each write is complete, and the last one stays."""
    path = tmp_path / "state"
    model = GaussianMixture(random_state=0, checkpoint=path, n_jobs=1)
    search = GridSearchCV(model, {"n_components": [1, 2, 3]}, n_jobs=n_jobs, cv=3, error_score="raise").fit(X)
    plain = GridSearchCV(model.set_params(checkpoint=None), {"n_components": [1, 2, 3]}, cv=3).fit(X)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    assert decoded(path.read_bytes(), path).about["n_components"]["shown"] == str(search.best_params_["n_components"])
    assert quietly(lambda: search.best_estimator_.resume(X)).n_iter_ == search.best_estimator_.n_iter_
    scores = cross_val_score(model.set_params(checkpoint=path, n_components=2), X, n_jobs=n_jobs, error_score="raise")
    assert np.isfinite(scores).all()
    assert [p.name for p in tmp_path.iterdir()] == ["state"]
    # The state of a fold is not that of a fit to all rows.
    with pytest.raises(ValueError, match="is the checkpoint of another fit"):
        model.resume(X)


def test_a_process_that_is_killed_while_it_writes(tmp_path):
    """The file is complete, and a later fit continues from it."""
    code = """
import os, signal, sys, warnings
import numpy as np
from fastgmm import GaussianMixture
from fastgmm.data.output import NewFile
warnings.simplefilter("ignore")
write, written = NewFile.write, []
def killing(self, data):
    written.append(0)
    if len(written) == 4:
        write(self, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, data)
NewFile.write = killing
X = np.load(sys.argv[1] + "/x.npy")
GaussianMixture(2, random_state=0, tol=0.0, max_iter=12, acceleration=None, checkpoint=sys.argv[1] + "/state").fit(X)
"""
    np.save(tmp_path / "x.npy", X)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    path = tmp_path / "state"
    assert decoded(path.read_bytes(), path).state.run.result.n_iter == 3
    expected = quietly(lambda: GaussianMixture(**OPTIONS).fit(X))
    np.testing.assert_array_equal(resumed(path, X).means_, expected.means_)


def test_parameters_of_any_type_can_be_described(tmp_path):
    """Values that are not plain data are compared by type: a subclass may have any parameters."""

    class Tagged(GaussianMixture):
        def __init__(self, n_components=1, *, checkpoint=None, random_state=None, tag=None):
            super().__init__(n_components, checkpoint=checkpoint, random_state=random_state)
            self.tag = tag

    model = Tagged(2, checkpoint=tmp_path / "state", random_state=np.random.RandomState(0), tag=object()).fit(X)
    means = model.means_
    np.testing.assert_array_equal(model.resume(X).means_, means)  # although the generator has been drawn from
    again = Tagged(2, checkpoint=tmp_path / "state", random_state=np.random.RandomState(0), tag=object()).resume(X)
    np.testing.assert_array_equal(again.means_, model.means_)


def test_a_state_that_cannot_be_packed_names_the_type(tmp_path):
    store = CheckpointFile(tmp_path / "state", {}, lambda: ArraySource(X).checksum)
    with pytest.raises(NotPlainDataError, match="Stop is not listed"):
        store.save(Stop())
    assert list(tmp_path.iterdir()) == []
