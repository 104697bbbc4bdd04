"""A fit that is killed and resumed ends in the same bits as one that is not killed."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from fastgmm import BayesianGaussianMixture, ConjugatePrior, GaussianMixture, rows
from fastgmm.fitting import em
from helpers import blobs

X, _ = blobs(5, n_samples=4000, n_features=3, n_components=6, separation=1.0)
OPTIONS = {"random_state": 0, "tol": 1e-7, "max_iter": 60}
FITTED = ("means_", "covariances_", "weights_", "lower_bounds_", "remaining_", "n_iter_", "converged_")


class Killed(BaseException):
    """Stands for a signal that is not caught."""


def killed_in(n_passes, monkeypatch, call):
    """Kill a call in the pass over all rows after `n_passes` others; return whether it came that far."""
    seen, full_pass, advance = [], em.full_pass, em.CompiledSteps.advance

    def count(n_rows):
        seen.append(n_rows == len(X))
        if sum(seen) > n_passes:
            raise Killed

    def killing(source, *arguments):
        count(source.n_samples)
        return full_pass(source, *arguments)

    def killing_in_compiled_code(self, *arguments):
        count(self.n_rows)
        return advance(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(em, "full_pass", killing)
        patch.setattr(em.CompiledSteps, "advance", killing_in_compiled_code)
        try:
            quietly(call)
        except Killed:
            return True
    return False


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("n_passes", [1, 4, 11, 22])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"acceleration": "squarem"},
        {"acceleration": None},
        {"n_moves": 2},
        {"covariance_type": "VEV", "prior": ConjugatePrior(shrinkage=0.1)},
        {"limit_tol": 1e-5},
        {"covariance_type": "tied"},
        {"covariance_type": "tied", "acceleration": None},
    ],
    ids=str,
)
def test_resumed_fits_end_in_the_same_bits(options, n_passes, streamed, tmp_path, monkeypatch):
    source = rows(X, block_bytes=24 * 512) if streamed else X

    def make(**more):
        return GaussianMixture(6, **OPTIONS, **options, **more)

    expected = quietly(lambda: make().fit(source))
    killed = killed_in(n_passes, monkeypatch, lambda: make(checkpoint=tmp_path / "state").fit(source))
    resumed = quietly(lambda: make(checkpoint=str(tmp_path / "state")).resume(source))
    assert killed == (n_passes < expected.n_iter_) or "n_moves" in options
    for name in FITTED:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(expected, name), err_msg=name)


def test_a_pass_is_not_made_twice(tmp_path, monkeypatch):
    model = GaussianMixture(6, acceleration=None, checkpoint=tmp_path / "state", **OPTIONS)
    assert killed_in(20, monkeypatch, lambda: model.fit(X))
    begun = []
    model.set_params(callback=lambda n, bound, parameters: begun.append(n))
    quietly(lambda: model.resume(X))
    assert begun[0] == 21


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_posteriors_are_saved_too(covariance_type, tmp_path, monkeypatch):
    options = {"n_components": 6, "covariance_type": covariance_type, **OPTIONS}
    expected = quietly(lambda: BayesianGaussianMixture(**options).fit(X))
    model = BayesianGaussianMixture(checkpoint=tmp_path / "state", **options)
    assert killed_in(7, monkeypatch, lambda: model.fit(X))
    quietly(lambda: model.resume(X))
    for name in (*FITTED, "weight_concentration_", "degrees_of_freedom_"):
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), err_msg=name)


def test_a_fit_that_had_ended_makes_no_more_passes(tmp_path, monkeypatch):
    model = quietly(lambda: GaussianMixture(6, checkpoint=tmp_path / "state", **{**OPTIONS, "tol": 1e-3}).fit(X))
    means = model.means_
    assert model.converged_
    assert not killed_in(0, monkeypatch, lambda: model.resume(X))
    np.testing.assert_array_equal(model.means_, means)
    assert model.converged_


def test_more_iterations_can_be_asked_for(tmp_path):
    options = {**OPTIONS, "acceleration": None, "tol": 0.0}
    model = GaussianMixture(6, checkpoint=tmp_path / "state", **{**options, "max_iter": 5})
    quietly(lambda: model.fit(X))
    quietly(lambda: model.set_params(max_iter=9).resume(X))
    expected = quietly(lambda: GaussianMixture(6, **{**options, "max_iter": 9}).fit(X))
    np.testing.assert_array_equal(model.means_, expected.means_)


def test_without_a_file_resume_starts_a_fit(tmp_path):
    expected = quietly(lambda: GaussianMixture(6, **OPTIONS).fit(X))
    model = quietly(lambda: GaussianMixture(6, checkpoint=tmp_path / "state", **OPTIONS).resume(X))
    np.testing.assert_array_equal(model.means_, expected.means_)


def test_the_checkpoint_of_another_fit_is_refused(tmp_path):
    path = tmp_path / "state"
    model = quietly(lambda: GaussianMixture(6, checkpoint=path, **OPTIONS).fit(X))
    before = model.means_
    with pytest.raises(ValueError, match=r"of another fit: n_components was 6, but is 5 now\. Set it back"):
        model.set_params(n_components=5).resume(X)
    assert model.means_ is before
    with pytest.raises(ValueError, match=r"of another fit: rows was \(4000, 3, dtype\('float64'\)\), but is \(3999"):
        model.set_params(n_components=6).resume(X[1:])
    with pytest.raises(ValueError, match="of another fit: class was 'GaussianMixture'"):
        BayesianGaussianMixture(n_components=6, checkpoint=path, **OPTIONS).resume(X)
    with pytest.raises(ValueError, match="checksum of the rows was"):
        model.resume(X + 1e-9)
    with pytest.raises(ValueError, match=r"total_weight was 4000\.0, but is 8000\.0 now"):
        model.resume(X, sample_weight=np.full(len(X), 2.0))


def test_an_older_state_stays_until_a_new_fit_has_one(tmp_path):
    path = tmp_path / "state"
    model = quietly(lambda: GaussianMixture(6, checkpoint=path, **OPTIONS).fit(X))
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        model.set_params(callback=lambda *_: 1 / 0).fit(X + 50)
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="is the checkpoint of another fit: checksum of the rows"):
        model.set_params(callback=None).resume(X + 50)
    quietly(lambda: model.fit(X + 50))
    quietly(lambda: model.resume(X + 50))
    assert model.means_.mean() > 40


def test_bad_input_leaves_the_state_of_an_older_fit(tmp_path):
    path = tmp_path / "state"
    model = quietly(lambda: GaussianMixture(6, checkpoint=path, **OPTIONS).fit(X))
    before = path.read_bytes()
    for options in ({"means_init": X[:5]}, {"n_init": 2}, {"covariance_type": "E"}):
        with pytest.raises(ValueError):  # noqa: PT011
            GaussianMixture(**{**model.get_params(), **options}).fit(X)
    assert path.read_bytes() == before


def test_parameters_in_another_memory_order_are_the_same(tmp_path):
    means = np.asfortranarray(X[:6].copy())
    model = quietly(lambda: GaussianMixture(6, means_init=means, checkpoint=tmp_path / "s", **OPTIONS).fit(X))
    quietly(lambda: model.set_params(means_init=np.ascontiguousarray(means)).resume(X))


def test_a_file_that_cannot_be_written_stops_a_fit_before_it_begins(tmp_path, monkeypatch):
    from fastgmm.fitting import checkpoint

    passes = []

    def denied(target):
        raise PermissionError(f"{target} cannot be written")

    monkeypatch.setattr(checkpoint, "check_writable", denied)
    model = GaussianMixture(6, checkpoint=tmp_path / "state", callback=lambda *_: passes.append(0), **OPTIONS)
    with pytest.raises(PermissionError):
        model.fit(X)
    assert not passes


def test_searches_save_no_state(tmp_path):
    from fastgmm import MixtureSearch

    called = []
    template = GaussianMixture(checkpoint=tmp_path / "state", callback=lambda *_: called.append(0))
    search = MixtureSearch([2], covariance_types=["EII"], estimator=template).fit(X)
    assert not (tmp_path / "state").exists()
    assert not called
    assert (search.best_estimator_.checkpoint, search.best_estimator_.callback) == (None, None)


def test_bad_checkpoints_are_refused(tmp_path):
    with pytest.raises(ValueError, match="checkpoint is None"):
        GaussianMixture(2).resume(X)
    for path in (tmp_path, tmp_path / "nowhere" / "state"):
        with pytest.raises(ValueError, match="a file in a folder that exists"):
            GaussianMixture(2, checkpoint=path).fit(X)
    with pytest.raises(ValueError, match=r"set n_init=1 \(got 3\)"):
        GaussianMixture(2, n_init=3, checkpoint=tmp_path / "state").fit(X)


def test_a_process_that_is_killed_leaves_a_whole_file(tmp_path):
    """SIGKILL between passes, again and again, and the same answer in the end."""
    np.save(tmp_path / "x.npy", X)
    code = """
import os, signal, sys, warnings
from fastgmm import GaussianMixture, rows
warnings.simplefilter("ignore")
folder, last = sys.argv[1], int(sys.argv[2])
def callback(n_iter, bound, parameters):
    if n_iter == last:
        os.kill(os.getpid(), signal.SIGKILL)
options = dict(random_state=0, tol=1e-7, max_iter=60, acceleration="squarem")
model = GaussianMixture(6, checkpoint=folder + "/state", callback=callback, **options)
model.resume(rows(folder + "/x.npy", block_bytes=20_000))
print(model.means_.tobytes().hex())
"""
    for last, outcome in ((3, -9), (14, -9), (0, 0)):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(last)], capture_output=True, text=True)
        assert done.returncode == outcome, done.stderr
        assert os.path.exists(tmp_path / "state")
    options = {**OPTIONS, "acceleration": "squarem"}
    expected = quietly(lambda: GaussianMixture(6, **options).fit(rows(tmp_path / "x.npy", block_bytes=20_000)))
    assert done.stdout.strip() == expected.means_.tobytes().hex()


@pytest.mark.parametrize("start", ["means_init", "resp_init", "warm_start", "nothing"])
def test_a_resumed_fit_makes_the_moves_of_the_fit_and_no_others(start, tmp_path):
    """Light moves are not made from a start of the user."""
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(size=(400, 2)) + m for m in [(0, 0), (4, 0), (8, 0), (20, 0), (20, 5)]])
    means = np.array([[0, 0], [1, 0], [2, 0], [8.0, 0], [20, 2.5]])
    options = {"n_components": 5, "tol": 1e-4, "max_iter": 500, "random_state": 0}
    if start == "means_init":
        options["means_init"] = means
    elif start == "resp_init":
        options["resp_init"] = ((X[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)

    class Killed(Exception):
        pass

    def kill(n_iter, *_):
        if n_iter >= 3:
            raise Killed

    def made(**more):
        model = GaussianMixture(**options, **more)
        if start == "warm_start":
            model.set_params(warm_start=True, means_init=means, max_iter=1)
            with warnings.catch_warnings(action="ignore"):
                model.set_params(callback=None, checkpoint=None).fit(X)
            model.set_params(means_init=None, max_iter=500, **more)
        return model

    whole = made().fit(X)
    with pytest.raises(Killed):
        made(checkpoint=tmp_path / "fit", callback=kill).fit(X)
    resumed = made(checkpoint=tmp_path / "fit").resume(X)
    np.testing.assert_array_equal(resumed.means_, whole.means_)
    assert resumed.lower_bounds_ == whole.lower_bounds_
