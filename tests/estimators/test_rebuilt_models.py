"""Models that are rebuilt from some fitted attributes: each method needs those that scikit-learn's needs."""

import copy
import pickle

import numpy as np
import pytest
import sklearn.mixture
from sklearn.exceptions import NotFittedError

import fastgmm
from fastgmm import (
    BayesianGaussianMixture,
    GaussianMixture,
    StreamingGaussianMixture,
    bootstrap_parameters,
    combine_components,
)
from helpers import COVARIANCE_TYPES, blobs

X, _ = blobs(n_samples=200, separation=1.5)
READ = {
    "GaussianMixture": ("weights_", "means_", "precisions_cholesky_"),
    "BayesianGaussianMixture": (
        "weight_concentration_", "means_", "precisions_cholesky_", "mean_precision_", "degrees_of_freedom_",
    ),
}  # fmt: skip


def fitted(name, covariance_type, **options):
    """scikit-learn's fit."""
    cls = getattr(sklearn.mixture, name)
    return cls(n_components=3, covariance_type=covariance_type, max_iter=1000, random_state=0, **options).fit(X)


def rebuilt(theirs, names, **options):
    cls = getattr(fastgmm, type(theirs).__name__)
    model = cls(n_components=3, covariance_type=theirs.covariance_type, random_state=0, **options)
    for name in names:
        setattr(model, name, copy.copy(getattr(theirs, name)))
    return model


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("name", READ)
def test_predictions_need_what_scikit_learns_need(name, covariance_type):
    theirs = fitted(name, covariance_type)
    model = pickle.loads(pickle.dumps(rebuilt(theirs, READ[name])))
    for method in ("predict", "predict_proba", "score_samples", "score"):
        np.testing.assert_allclose(getattr(model, method)(X), getattr(theirs, method)(X), rtol=1e-8, atol=1e-10)
    for missing in READ[name]:
        names = [other for other in READ[name] if other != missing]
        with pytest.raises(AttributeError, match=missing):
            rebuilt(theirs, names).predict(X)
    with pytest.raises(NotFittedError):
        rebuilt(theirs, []).predict(X)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("name", READ)
def test_samples_need_weights_means_and_covariances(name, covariance_type):
    theirs = fitted(name, covariance_type)
    model = rebuilt(theirs, ["weights_", "means_", "covariances_"])
    for ours, other in zip(model.sample(20), theirs.sample(20), strict=True):
        np.testing.assert_allclose(ours, other, atol=1e-9)
    if covariance_type in ("diag", "spherical"):  # a component that is a point
        model.covariances_ = np.zeros_like(model.covariances_)
        drawn, labels = model.sample(20)
        np.testing.assert_array_equal(drawn, model.means_[labels])


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_everything_else_from_three_arrays(covariance_type):
    theirs = fitted("GaussianMixture", covariance_type)
    model = rebuilt(theirs, READ["GaussianMixture"])
    for method in ("bic", "aic"):
        assert getattr(model, method)(X) == pytest.approx(getattr(theirs, method)(X))
    assert np.isfinite(model.icl(X))
    assert model.sample(30)[0].shape == (30, 3)
    assert len(combine_components(model, X).entropies) == 3
    assert len(bootstrap_parameters(model, X, n_replicates=2, random_state=0).means) == 2
    stream = StreamingGaussianMixture.from_mixture(model, 200)
    np.testing.assert_allclose(stream.covariances_, theirs.covariances_, rtol=1e-6)
    # Without `converged_` no fit has been made, as in scikit-learn: the warm start is a new start.
    assert model.set_params(warm_start=True, max_iter=1000).fit(X).converged_
    model = rebuilt(theirs, [*READ["GaussianMixture"], "converged_"], warm_start=True, acceleration=None).fit(X)
    np.testing.assert_allclose(model.means_, theirs.means_, atol=0.1)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("name", READ)
def test_lower_triangular_factors_are_read_as_scikit_learn_reads_them(name, covariance_type):
    """`numpy.linalg.cholesky` of a precision is lower triangular, and scikit-learn's densities are right with it."""
    theirs = fitted(name, covariance_type)
    theirs.precisions_cholesky_ = np.linalg.cholesky(theirs.precisions_)
    model = rebuilt(theirs, READ[name])
    np.testing.assert_allclose(model.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-9)


def test_lists_and_integers_will_do():
    model = GaussianMixture(2, covariance_type="spherical")
    model.weights_, model.means_, model.precisions_cholesky_ = [0.5, 0.5], [[0, 0], [4, 4]], [1, 1]
    np.testing.assert_array_equal(model.predict([[0.0, 1.0], [4.0, 3.0]]), [0, 1])
    assert model.score_samples(np.zeros((1, 2), np.float32)).dtype == np.float64


def test_arrays_of_another_type_and_rows_of_another_width_are_refused():
    model = rebuilt(fitted("GaussianMixture", "full"), READ["GaussianMixture"])
    model.covariance_type = "diag"
    with pytest.raises(ValueError, match=r"precisions_cholesky_ of shape \(3, 3, 3\) are no mixture .* 'diag'"):
        model.predict(X)
    for name in READ:
        with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 3\) .*, got shape \(200, 2\)"):
            rebuilt(fitted(name, "full"), READ[name]).predict(X[:, :2])


def test_the_concentration_says_what_prior_it_is_of():
    """An array of two rows, as files keep a tuple of two arrays."""
    theirs = fitted("BayesianGaussianMixture", "full")
    model = rebuilt(theirs, READ["BayesianGaussianMixture"])
    model.weight_concentration_ = np.array(theirs.weight_concentration_)
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    other = fitted("BayesianGaussianMixture", "full", weight_concentration_prior_type="dirichlet_distribution")
    model = rebuilt(other, READ["BayesianGaussianMixture"])  # without its weight_concentration_prior_type
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-9)
    assert isinstance(model, BayesianGaussianMixture)
