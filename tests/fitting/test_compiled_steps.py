"""Fits of few rows: steps in compiled code and steps from Python give the same answers."""

import copy
import pickle

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.covariance import MCLUST_MODELS, get_model
from fastgmm.data.sources import ArraySource
from fastgmm.fitting import em
from fastgmm.m_step.compiled_problem import CompiledProblem
from helpers import JIT, blobs, fit_quietly

pytestmark = pytest.mark.skipif(not JIT, reason="there is no compiled code")
FITTED = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "lower_bounds_", "remaining_")


def fitted(X, weights=None, **options):
    return fit_quietly(GaussianMixture(3, random_state=0, **options), X, weights)


@pytest.fixture
def calls(monkeypatch):
    """The calls of compiled code, to be sure that it was used."""
    seen, advance = [], em.CompiledSteps.advance

    def counting(self, *arguments):
        seen.append(arguments[-1])
        return advance(self, *arguments)

    monkeypatch.setattr(em.CompiledSteps, "advance", counting)
    return seen


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("options", [{}, {"tol": 1e-6, "max_iter": 300}, {"tol": 1e-5, "acceleration": None},
                                     {"limit_tol": 1e-4}, {"n_init": 3}, {"n_moves": 1}, {"max_iter": 0}])  # fmt: skip
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_the_answer_is_that_of_steps_from_python(covariance_type, options, dtype, calls, monkeypatch):
    X = blobs(n_components=3, n_features=2, n_samples=400, separation=1.5)[0].astype(dtype)
    weights = np.random.default_rng(0).uniform(size=len(X))
    compiled = fitted(X, weights, covariance_type=covariance_type, **options)
    assert calls or options.get("max_iter") == 0
    monkeypatch.setattr(em.CompiledSteps, "for_run", lambda *_: None)
    from_python = fitted(X, weights, covariance_type=covariance_type, **options)
    assert compiled.converged_ == from_python.converged_
    tolerance = 1e-7 if dtype is np.float64 else 1e-3
    if dtype is np.float64 or options.get("tol", 1) > 1e-5:  # else float32's rounding decides how many steps are made
        assert compiled.n_iter_ == from_python.n_iter_
        np.testing.assert_allclose(compiled.lower_bounds_, from_python.lower_bounds_, rtol=tolerance, atol=tolerance)
    for name in FITTED[:-2]:
        a, b = np.asarray(getattr(compiled, name)), np.asarray(getattr(from_python, name))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("covariance_type", MCLUST_MODELS)
def test_every_model_has_compiled_steps(covariance_type, calls, monkeypatch):
    X = blobs(n_components=3, n_features=3, n_samples=300)[0]
    compiled = fitted(X, covariance_type=covariance_type)
    assert calls
    monkeypatch.setattr(em.CompiledSteps, "for_run", lambda *_: None)
    from_python = fitted(X, covariance_type=covariance_type)
    np.testing.assert_allclose(compiled.lower_bounds_, from_python.lower_bounds_, rtol=1e-8)


@pytest.mark.parametrize("options", [{}, {"tol": 1e-6}, {"covariance_type": "tied"}, {"covariance_type": "VEV"}])
def test_who_watches_does_not_change_the_bits(options, calls):
    """With a callback compiled code makes one step at a time."""
    X, seen = blobs(n_components=3, n_features=2, n_samples=300, separation=1.5)[0], []
    unwatched = fitted(X, **options)
    n_unwatched = len(calls)
    watched = fitted(X, callback=lambda n_iter, *_: seen.append(n_iter), **options)
    assert seen == list(range(1, watched.n_iter_ + 1))
    assert len(calls) - n_unwatched >= watched.n_iter_
    for name in FITTED:
        np.testing.assert_array_equal(getattr(watched, name), getattr(unwatched, name), err_msg=name)


def test_a_callback_can_stop_a_fit():
    X = blobs(n_components=3, n_features=2, n_samples=300, separation=1.0)[0]
    model = GaussianMixture(3, random_state=0, tol=0.0, max_iter=50, callback=lambda n_iter, *_: n_iter == 4).fit(X)
    assert model.n_iter_ == 4
    assert not model.converged_


@pytest.mark.parametrize("options", [{}, {"acceleration": None, "tol": 0.0}])
def test_an_interrupt_keeps_the_passes_so_far(options, monkeypatch):
    X = blobs(n_components=3, n_features=2, n_samples=300, separation=1.0)[0]
    advance = em.CompiledSteps.advance

    def interrupting(self, state, tolerances, max_steps):
        if state.result.n_iter >= 2:
            raise KeyboardInterrupt
        return advance(self, state, tolerances, 2)

    monkeypatch.setattr(em.CompiledSteps, "advance", interrupting)
    model = GaussianMixture(3, random_state=0, **{"tol": 1e-9, "max_iter": 60, **options})
    with pytest.raises(KeyboardInterrupt, match="after 2 passes"):
        model.fit(X)
    assert model.n_iter_ == 2
    assert not model.converged_


def test_a_component_that_collapses_is_reported_as_from_python():
    X = np.repeat([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]], 20, axis=0)
    with pytest.raises(ValueError, match="Fitting the mixture model failed"):
        GaussianMixture(3, random_state=0, reg_covar=0.0).fit(X)


@pytest.mark.parametrize("tol", [1e-3, 1e-9])
def test_a_component_that_collapses_after_some_steps_is_reported_too(tol, monkeypatch):
    """The step from Python continues from the last step in compiled code."""
    X = np.vstack([np.zeros((30, 2)), np.random.default_rng(0).normal(size=(30, 2)) + 9])
    start = {"weights_init": [0.5, 0.5], "means_init": [[0.0, 0.0], [9.0, 9.0]], "precisions_init": 2 * [np.eye(2) / 9]}
    states, advance = [], em.CompiledSteps.advance

    def watched(self, state, *arguments):
        done = advance(self, state, *arguments)
        states.append((done, state.result.n_iter))
        return done

    monkeypatch.setattr(em.CompiledSteps, "advance", watched)
    model = GaussianMixture(2, reg_covar=0.0, tol=tol, **start)
    with pytest.raises(ValueError, match="component 0 is not positive definite"):
        model.fit(X)
    assert states[-1][0] is False
    assert states[-1][1] >= 1


def test_steps_from_python_continue_where_compiled_code_has_ended(monkeypatch):
    X = blobs(n_components=3, n_features=2, n_samples=300, separation=1.0)[0]
    expected, advance = fitted(X, tol=1e-6, acceleration=None, max_iter=30), em.CompiledSteps.advance

    def handing_over(self, state, tolerances, max_steps):
        advance(self, state, tolerances, 4)
        state.point = state.result.parameters
        return False

    monkeypatch.setattr(em.CompiledSteps, "advance", handing_over)
    found = fitted(X, tol=1e-6, acceleration=None, max_iter=30)
    np.testing.assert_allclose(found.lower_bounds_, expected.lower_bounds_, rtol=1e-10)


def test_a_copy_of_a_source_keeps_no_addresses():
    source = ArraySource(blobs(n_features=2, n_samples=200)[0])
    CompiledProblem(source, get_model("full"), 3).keep()
    assert source.kept
    for other in (pickle.loads(pickle.dumps(source)), copy.copy(source), copy.deepcopy(source)):
        assert not other.kept
        np.testing.assert_array_equal(other.X, source.X)


def test_the_path_depends_on_the_shape_alone(calls):
    fitted(blobs(n_components=3, n_features=2, n_samples=500)[0])
    assert calls
    calls.clear()
    fit_quietly(GaussianMixture(40, random_state=0, max_iter=2), blobs(n_features=20, n_samples=3000)[0])
    assert not calls
