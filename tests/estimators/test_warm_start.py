"""A warm start after `covariance_type`, a prior or the rows' dtype has changed: never from misread parameters."""

import pickle
import warnings

import numpy as np
import pytest
import sklearn.mixture

from fastgmm import BayesianGaussianMixture, ConjugatePrior, GaussianMixture, StreamingGaussianMixture
from fastgmm.covariance import BASIC_TYPES, get_model
from fastgmm.covariance import COVARIANCE_TYPES as ALL_TYPES
from fastgmm.m_step.model_conversion import convert
from helpers import full_covariances, random_parameters, random_rows

RNG = np.random.default_rng(0)
# As many components as features: covariances of "tied" and "diag" have one shape.
SQUARE = np.vstack([RNG.normal(size=(60, 2)) * [1, 3], RNG.normal(size=(60, 2)) + 5])


def loudly(estimator, X):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return estimator.fit(X)


@pytest.mark.parametrize("estimator", [GaussianMixture, BayesianGaussianMixture])
@pytest.mark.parametrize("before", BASIC_TYPES)
@pytest.mark.parametrize("after", BASIC_TYPES)
def test_a_warm_start_of_another_covariance_type_converges_like_a_new_fit(estimator, before, after):
    options = {"n_components": 2, "random_state": 0, "tol": 1e-7, "max_iter": 2000}
    model = loudly(estimator(covariance_type=before, warm_start=True, **options), SQUARE)
    loudly(model.set_params(covariance_type=after), SQUARE)
    anew = loudly(estimator(covariance_type=after, **options), SQUARE)
    assert model.covariances_.shape == anew.covariances_.shape
    assert model.lower_bound_ == pytest.approx(anew.lower_bound_, abs=1e-4 * abs(anew.lower_bound_))
    np.testing.assert_allclose(np.sort(model.weights_), np.sort(anew.weights_), atol=1e-2)


def test_mclusts_models_are_warm_starts_for_each_other():
    """Parameters of one model are in general none of another; the bound that a fit ends with is its own."""
    options = {"random_state": 0, "tol": 1e-6, "max_iter": 500}
    for before, after in (("VVV", "EEV"), ("EEE", "VVE"), ("VVE", "VII"), ("EII", "VVV"), ("VEI", "EEE")):
        model = loudly(GaussianMixture(2, covariance_type=before, warm_start=True, **options), SQUARE)
        loudly(model.set_params(covariance_type=after), SQUARE)
        anew = loudly(GaussianMixture(2, covariance_type=after, **options), SQUARE)
        assert model.lower_bound_ == pytest.approx(anew.lower_bound_, abs=1e-3)
        assert model.score(SQUARE) == pytest.approx(model.lower_bound_, abs=1e-3)
        assert model.bic(SQUARE) == pytest.approx(anew.bic(SQUARE), rel=1e-3)


@pytest.mark.parametrize("after", [name for name in ALL_TYPES if len(name) > 1])
@pytest.mark.parametrize("before", BASIC_TYPES)
def test_conversion_keeps_weights_means_and_covariances_that_the_model_allows(before, after):
    parameters = random_parameters(before, 3, 3)
    converted = convert(parameters, after)
    np.testing.assert_allclose(converted.weights, parameters.weights, rtol=1e-9)
    np.testing.assert_allclose(converted.means, parameters.means, rtol=1e-9, atol=1e-12)
    volume = np.linalg.slogdet(full_covariances(converted))[1]
    own = np.linalg.slogdet(full_covariances(parameters))[1]
    # The likelihood of rows with these covariances is highest for these covariances themselves.
    assert converted.weights @ volume >= parameters.weights @ own - 1e-9
    if get_model(after).name in ("VVV", "full"):
        np.testing.assert_allclose(full_covariances(converted), full_covariances(parameters), rtol=1e-9)


def test_a_component_without_rows_can_be_converted():
    parameters = random_parameters("full", 2, 2)
    model = GaussianMixture.from_parameters([1.0, 0.0], parameters.means, parameters.covariances)
    converted = convert(model._parameters(), "diag")
    np.testing.assert_allclose(converted.covariances, np.einsum("kdd->kd", parameters.covariances), rtol=1e-4)


def test_an_unchanged_warm_start_continues_at_the_last_bound():
    model = GaussianMixture(2, random_state=0, warm_start=True).fit(SQUARE)
    again = pickle.loads(pickle.dumps(model)).fit(SQUARE)
    assert again.n_iter_ == 1
    bayesian = BayesianGaussianMixture(n_components=2, random_state=0, warm_start=True, mean_prior=[1.0, 2.0])
    bayesian.set_params(max_iter=1000).fit(SQUARE)
    assert bayesian.fit(SQUARE).n_iter_ == 1


def test_a_changed_prior_starts_a_new_bound():
    """The bound of a fit with a prior has the prior in it."""
    options = {"random_state": 0, "tol": 1e-7, "max_iter": 1000}
    model = GaussianMixture(2, warm_start=True, prior=ConjugatePrior(shrinkage=5.0), **options).fit(SQUARE)
    free = GaussianMixture(2, **options).fit(SQUARE)
    model.set_params(prior=None).fit(SQUARE)
    assert model.lower_bound_ == pytest.approx(free.lower_bound_, abs=1e-5)
    assert model.score(SQUARE) == pytest.approx(free.score(SQUARE), abs=1e-5)
    held = GaussianMixture(2, prior=ConjugatePrior(shrinkage=5.0), **options).fit(SQUARE)
    model.set_params(prior=ConjugatePrior(shrinkage=5.0)).fit(SQUARE)
    assert model.lower_bound_ == pytest.approx(held.lower_bound_, abs=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"weight_concentration_prior_type": "dirichlet_distribution"},
        {"weight_concentration_prior": 100.0},
        {"mean_precision_prior": 10.0},
        {"mean_prior": [3.0, 3.0]},
        {"degrees_of_freedom_prior": 20.0},
        {"covariance_prior": [[2.0, 0.5], [0.5, 1.0]]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_prior_of_the_variational_fit(changed):
    options = {"n_components": 2, "random_state": 0, "tol": 1e-7, "max_iter": 5000}
    model = loudly(BayesianGaussianMixture(warm_start=True, **options), SQUARE)
    loudly(model.set_params(**changed), SQUARE)
    anew = loudly(BayesianGaussianMixture(**options, **changed), SQUARE)
    assert model.lower_bound_ == pytest.approx(anew.lower_bound_, abs=1e-3)
    assert model.n_iter_ > 1


def test_rows_of_another_dtype_continue():
    model = GaussianMixture(2, random_state=0, warm_start=True).fit(SQUARE.astype(np.float32))
    assert model.means_.dtype == np.float32
    bound = model.lower_bound_
    loudly(model, SQUARE)
    assert model.means_.dtype == np.float64
    assert model.lower_bound_ == pytest.approx(bound, abs=1e-3)


@pytest.mark.parametrize("estimator", [GaussianMixture, BayesianGaussianMixture])
def test_predictions_do_not_depend_on_parameters_set_after_the_fit(estimator):
    model = estimator(n_components=2, covariance_type="tied", random_state=0).fit(SQUARE)
    proba, scores, drawn = model.predict_proba(SQUARE), model.score_samples(SQUARE), model.sample(9)[0]
    model.set_params(covariance_type="diag")
    np.testing.assert_array_equal(model.predict_proba(SQUARE), proba)
    np.testing.assert_array_equal(model.score_samples(SQUARE), scores)
    np.testing.assert_array_equal(model.sample(9)[0], drawn)


def test_arrays_set_after_a_new_covariance_type_have_that_type():
    model = GaussianMixture(3, random_state=0).fit(SQUARE)
    model.set_params(covariance_type="diag")
    model.means_, model.covariances_ = np.zeros((3, 2)), np.ones((3, 2))
    model.precisions_cholesky_ = np.ones((3, 2))
    np.testing.assert_allclose(model.score_samples([[0.0, 0.0]]), -np.log(2 * np.pi))


@pytest.mark.parametrize("mixture", [GaussianMixture, sklearn.mixture.GaussianMixture])
@pytest.mark.parametrize("before", BASIC_TYPES)
@pytest.mark.parametrize("after", BASIC_TYPES)
def test_a_stream_from_a_mixture_of_another_type(mixture, before, after):
    parameters = random_parameters("full", 2, 2)
    X = random_rows(parameters, 300)
    known = mixture(2, covariance_type=before, random_state=0).fit(X)
    stream = StreamingGaussianMixture.from_mixture(known, 300, covariance_type=after)
    np.testing.assert_allclose(stream.means_, known.means_, rtol=1e-6)
    full = get_model(before).form.full(known.covariances_, 2, 2)
    variances = np.einsum("kdd->kd", get_model(after).form.full(stream.covariances_, 2, 2))
    own = np.einsum("kdd->kd", full)
    np.testing.assert_allclose(known.weights_ @ variances.sum(axis=1), known.weights_ @ own.sum(axis=1), rtol=1e-6)
    assert np.isfinite(loudly(stream.partial_fit(X[:150]), X).lower_bound_)
