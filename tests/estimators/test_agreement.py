"""Agreement with scikit-learn from the same start, with published values, and where scikit-learn loses digits."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import sklearn.mixture
from sklearn.datasets import load_iris

from fastgmm import GaussianMixture
from fastgmm.engine import accumulate_labels, maximise, score_samples
from helpers import COVARIANCE_TYPES, blobs, random_parameters

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def from_the_same_start(X, parameters, n_iter, **options):
    """Return the estimators of both libraries after `n_iter` iterations."""
    given = {
        "weights_init": parameters.weights,
        "means_init": parameters.means,
        "precisions_init": parameters.model.form.precisions(parameters.precisions_cholesky),
        "covariance_type": parameters.covariance_type,
        "max_iter": n_iter,
        "tol": 0,
        **options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ours = GaussianMixture(parameters.n_components, acceleration=None, **given).fit(X)
        return ours, sklearn.mixture.GaussianMixture(parameters.n_components, **given).fit(X)


@pytest.mark.parametrize("n_iter", [1, 5])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_parameters_are_within_1e_8_of_scikit_learns(covariance_type, n_iter):
    for n_features in range(1, 34):
        X, labels = blobs(n_features, n_samples=400, n_features=n_features, separation=1.0)
        # Near the truth, so that no component dies: scikit-learn draws the mean of one with n_k < 1e-6 towards zero.
        means = np.array([X[labels == k].mean(axis=0) for k in range(3)]) + 0.1
        start = replace(random_parameters(covariance_type, 3, n_features, seed=n_features), means=means)
        ours, theirs = from_the_same_start(X, start, n_iter)
        for name in PARAMETERS:
            a, b = getattr(ours, name), getattr(theirs, name)
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8 * np.abs(b).max(), err_msg=f"{name}, D={n_features}")
        np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-10)
        np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_same_iterations_and_answer_from_scikit_learns_start(covariance_type):
    """Down to the iteration at which the default tolerance stops."""
    X, _ = blobs(separation=1.5, n_samples=2000)
    start = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type, random_state=0, max_iter=0).fit(X)
    given = {
        "weights_init": start.weights_ / start.weights_.sum(),
        "means_init": start.means_,
        "precisions_init": start.precisions_,
    }
    ours = GaussianMixture(3, covariance_type=covariance_type, acceleration=None, **given).fit(X)
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type, **given).fit(X)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, rel=1e-10)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.bic(X) == pytest.approx(theirs.bic(X))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_rows_far_from_zero_keep_their_variances(covariance_type):
    """scikit-learn answers [1e-6, 6, 1e-6] for the variances of diagonal covariances here, and fails for tied ones."""
    X = np.random.default_rng(0).normal(size=(5000, 3))
    near = GaussianMixture(1, covariance_type=covariance_type).fit(X)
    far = GaussianMixture(1, covariance_type=covariance_type).fit(X + 1e8)
    np.testing.assert_allclose(far.covariances_, near.covariances_, atol=1e-7)
    full = {"spherical": far.covariances_, "diag": far.covariances_[0]}.get(covariance_type)
    variances = np.diagonal(np.squeeze(far.covariances_)) if full is None else full
    np.testing.assert_allclose(variances, 1, atol=0.1)
    assert far.score(X + 1e8) == pytest.approx(near.score(X), abs=1e-6)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_float32_rows_keep_their_variances(covariance_type):
    """scikit-learn answers 112.1 instead of 0.1 for the spherical variances of {9999, 0} (its issue 30382)."""
    X = np.repeat(np.array([[9999.0], [0.0]], dtype=np.float32), 5, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = GaussianMixture(2, covariance_type=covariance_type, reg_covar=0.1, random_state=0).fit(X)
    np.testing.assert_allclose(model.covariances_.ravel(), 0.1, rtol=1e-6)
    np.testing.assert_allclose(np.sort(model.means_.ravel()), [0, 9999], atol=1e-4)
    far = (np.random.default_rng(0).normal(size=(5000, 2)) + 1e4).astype(np.float32)
    model = GaussianMixture(1, covariance_type=covariance_type).fit(far)
    exact = np.cov(far.astype(float).T, bias=True)
    diagonal = np.diagonal(exact).mean() if covariance_type == "spherical" else np.diagonal(exact)
    ours = np.squeeze(model.covariances_)
    np.testing.assert_allclose(np.diagonal(ours) if ours.ndim == 2 else ours, diagonal, rtol=1e-4)


def test_published_log_likelihoods_of_one_component():
    """iris with one component, as mclust prints it (BIC -1804.085, -1522.120, -829.978): XII, XXI, XXX."""
    X = load_iris().data
    expected = {"spherical": -889.516130708, "diag": -741.017535185, "full": -379.914630122, "tied": -379.914630122}
    for covariance_type, value in expected.items():
        model = GaussianMixture(1, covariance_type=covariance_type, reg_covar=0).fit(X)
        assert model.score_samples(X).sum() == pytest.approx(value, abs=1e-7)
        if covariance_type == "full":
            assert -model.bic(X) == pytest.approx(-829.978154, abs=1e-5)


def test_published_log_likelihoods_from_the_species():
    """The M-step from iris' true species, then the mixture's log-likelihood (EDDA: VII, VVI, EEE, VVV)."""
    iris = load_iris()
    expected = {"spherical": -392.498414, "diag": -309.362758, "tied": -256.646184, "full": -182.920849}
    for covariance_type, value in expected.items():
        statistics = accumulate_labels(iris.target, np.zeros((3, 4)), iris.data, covariance_type=covariance_type)
        parameters = maximise(statistics.recentred(iris.data.mean(axis=0)), covariance_type, reg_covar=0)
        assert score_samples(parameters, iris.data).sum() == pytest.approx(value, abs=1e-5)


def test_published_optimum_of_iris():
    """The best VVV fits with 2 and 3 components, which mclust prints as BIC -574.0178 and -580.8396."""
    X, species = load_iris(return_X_y=True)
    for n_components, value in ((2, -214.354704371), (3, -180.185477131)):
        start = np.minimum(species, n_components - 1)
        model = GaussianMixture(n_components, resp_init=start, reg_covar=0, tol=1e-13, max_iter=5000).fit(X)
        assert model.converged_
        assert model.score_samples(X).sum() == pytest.approx(value, abs=1e-6)


def test_densities_computed_by_hand():
    """Two components, (0, 0) with I and (3, 3) with [[2, 1], [1, 2]], weights 0.3 and 0.7; mlpack's test values."""
    model = GaussianMixture.from_parameters(
        [0.3, 0.7], [[0.0, 0.0], [3.0, 3.0]], [[[1.0, 0.0], [0.0, 1.0]], [[2.0, 1.0], [1.0, 2.0]]]
    )
    points = [[0, 0], [1, 1], [2, 2], [3, 3], [-1, 5.3], [1.4, 0]]
    densities = [0.05094887202, 0.03451996667, 0.04696302254, 0.06432759685, 2.503171278804e-6, 0.024676682176]
    np.testing.assert_allclose(np.exp(model.score_samples(points)), densities, rtol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize(("dtype", "far"), [(np.float64, 1e12), (np.float32, 1e12)])
def test_one_fill_value_does_not_reduce_the_precision_of_other_rows(covariance_type, dtype, far):
    """A fill value among the rows becomes a component of its own; the rest are fitted as if it were not there."""
    X = np.random.default_rng(0).normal(size=(1000, 2)).astype(dtype)
    alone = GaussianMixture(1, covariance_type=covariance_type).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(
            np.vstack([X, [[far, far]]]).astype(dtype)
        )
    rest = int(model.weights_.argmax())
    np.testing.assert_allclose(model.means_[rest], alone.means_[0], atol=1e-6)
    ours = model.covariances_ if covariance_type == "tied" else model.covariances_[rest]
    theirs = alone.covariances_ if covariance_type == "tied" else alone.covariances_[0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-3 if covariance_type == "tied" else 1e-5, atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), rest)
