"""`BayesianGaussianMixture`: scikit-learn's, step for step; bounds; weights; errors."""

import warnings

import numpy as np
import pytest
import sklearn.mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from fastgmm import BayesianGaussianMixture
from fastgmm.covariance import get_model
from fastgmm.data.sources import ArraySource
from fastgmm.engine import accumulate, accumulate_resp
from fastgmm.fitting import em
from fastgmm.fitting.options import FitOptions
from fastgmm.m_step.conjugate_prior import overall_moments
from fastgmm.m_step.variational import WEIGHT_PRIORS, Prior, VariationalBound, entropy, posterior_of
from helpers import COVARIANCE_TYPES, blobs, fit_quietly

PRIORS = tuple(WEIGHT_PRIORS)
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def theirs_after(X, resp, n_iter, covariance_type, prior_type, **options):
    """scikit-learn's estimator after some iterations from responsibilities, and its bounds."""
    model = sklearn.mixture.BayesianGaussianMixture(
        n_components=resp.shape[1],
        covariance_type=covariance_type,
        weight_concentration_prior_type=prior_type,
        **options,
    )
    model._check_parameters(X)
    model._initialize(X, resp)
    bounds = []
    for _ in range(n_iter):
        log_prob_norm, log_resp = model._e_step(X)
        model._m_step(X, log_resp)
        bounds.append(model._compute_lower_bound(log_resp, log_prob_norm))
    return model, bounds


def ours_after(X, resp, n_iter, covariance_type, prior_type, reg_covar=1e-6, sample_weight=None):
    """The posterior after some iterations from responsibilities, and the bounds."""
    source = ArraySource(X, sample_weight)
    mean, covariance = overall_moments(source, covariance_type)
    prior = Prior(WEIGHT_PRIORS[prior_type], 1 / resp.shape[1], 1.0, mean, X.shape[1], covariance)
    reference = np.zeros((resp.shape[1], X.shape[1]))
    statistics = accumulate_resp(resp, reference, X, sample_weight, covariance_type=covariance_type)
    start = posterior_of(statistics, get_model(covariance_type), prior, reg_covar=reg_covar)
    result = em.run(
        source, start, FitOptions(VariationalBound(prior, covariance_type, reg_covar), tol=0, max_iter=n_iter)
    )  # fmt: skip
    return result.parameters, result.lower_bounds


def some_problem(n_features=3, n_samples=400):
    X, _ = blobs(0, n_samples=n_samples, n_features=n_features, separation=2.0)
    return X, np.random.default_rng(1).dirichlet(np.full(5, 0.3), n_samples)


@pytest.mark.parametrize("prior_type", PRIORS)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("n_features", [1, 3, 7])
def test_every_step_equals_scikit_learns(covariance_type, prior_type, n_features):
    X, resp = some_problem(n_features)
    for n_iter in (1, 12):
        theirs, their_bounds = theirs_after(X, resp, n_iter, covariance_type, prior_type)
        ours, bounds = ours_after(X, resp, n_iter, covariance_type, prior_type)
        np.testing.assert_allclose(ours.means, theirs.means_, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(ours.covariances, theirs.covariances_, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(ours.concentration, np.array(theirs.weight_concentration_), rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(ours.mean_precision, theirs.mean_precision_, rtol=1e-8)
        np.testing.assert_allclose(ours.degrees_of_freedom, theirs.degrees_of_freedom_, rtol=1e-8)
        np.testing.assert_allclose(bounds, np.ravel(their_bounds), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("prior_type", PRIORS)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_predictions_of_a_posterior_equal_scikit_learns(covariance_type, prior_type):
    X, resp = some_problem()
    theirs, _ = theirs_after(X, resp, 3, covariance_type, prior_type)
    theirs._set_parameters(theirs._get_parameters())
    ours = BayesianGaussianMixture(
        n_components=5, covariance_type=covariance_type, weight_concentration_prior_type=prior_type, random_state=0
    )
    for name, value in vars(theirs).items():
        if name.endswith("_"):
            setattr(ours, name, value)
    ours.n_features_in_ = theirs.n_features_in_ = X.shape[1]
    theirs.converged_ = True
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-10)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    theirs.random_state = 0
    np.testing.assert_allclose(ours.sample(7)[0], theirs.sample(7)[0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_entropy_needs_no_responsibilities(covariance_type, weighted):
    X, resp = some_problem()
    weights = np.random.default_rng(0).uniform(0, 2, len(X)) if weighted else None
    point, _ = ours_after(X, resp, 2, covariance_type, "dirichlet_process")
    statistics = accumulate(point, X, weights)
    log_resp = np.log(np.maximum(responsibilities(point, X), 1e-300))
    expected = -(np.exp(log_resp) * log_resp).sum(axis=1) @ (np.ones(len(X)) if weights is None else weights)
    assert entropy(statistics, point) == pytest.approx(expected, rel=1e-8)


def responsibilities(point, X):
    """The naive twin of a pass: densities from the inverses of the covariances."""
    full = np.array(get_model(point.covariance_type).form.full(point.covariances, *point.means.shape))
    centred = X[:, None] - point.means
    distances = np.einsum("nkd,kde,nke->nk", centred, np.linalg.inv(full), centred)
    log_prob = point.log_coef() - distances / 2
    log_prob -= log_prob.max(axis=1, keepdims=True)
    return np.exp(log_prob) / np.exp(log_prob).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("prior_type", PRIORS)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_bounds_never_fall_and_weights_are_copies(covariance_type, prior_type):
    X, resp = some_problem(n_samples=200)
    copies = np.random.default_rng(0).integers(0, 4, len(X))
    ours, bounds = ours_after(X, resp, 25, covariance_type, prior_type, 0.0, copies.astype(float))
    assert np.diff(bounds).min() > -1e-8
    repeated, again = ours_after(
        np.repeat(X, copies, axis=0), np.repeat(resp, copies, axis=0), 25, covariance_type, prior_type, 0.0
    )
    np.testing.assert_allclose(ours.means, repeated.means, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(bounds, again, rtol=1e-8)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_both_libraries_converge_to_the_same_fit(covariance_type):
    """Clear clusters, more components than needed: the same clusters, the others without weight."""
    X, labels = blobs(0, n_samples=2000, n_features=3, separation=8.0)
    options = {"n_components": 6, "covariance_type": covariance_type, "random_state": 0, "max_iter": 500, "tol": 1e-4,
               "weight_concentration_prior": 1e-3}  # fmt: skip
    ours = BayesianGaussianMixture(**options).fit(X)
    theirs = sklearn.mixture.BayesianGaussianMixture(**options).fit(X)
    if covariance_type in {"full", "diag"}:
        assert (ours.weights_ > 0.01).sum() == (theirs.weights_ > 0.01).sum() == len(np.unique(labels))
    assert ours.converged_
    assert len(ours.lower_bounds_) == ours.n_iter_
    assert ours.lower_bounds_[-1] == ours.lower_bound_


def test_given_priors_are_used():
    X, _ = blobs(0, n_features=2)
    prior = {"weight_concentration_prior": 0.3, "mean_precision_prior": 2.0, "mean_prior": [1.0, 2.0],
             "degrees_of_freedom_prior": 5.0, "covariance_prior": [[2.0, 0.5], [0.5, 1.0]]}  # fmt: skip
    fitted = BayesianGaussianMixture(n_components=2, random_state=0, **prior).fit(X)
    for name, value in prior.items():
        np.testing.assert_allclose(getattr(fitted, f"{name}_"), value)
    assert isinstance(fitted.weight_concentration_, tuple)
    default = clone(fitted).set_params(**dict.fromkeys(prior)).fit(X)
    np.testing.assert_allclose(default.mean_prior_, X.mean(axis=0))
    np.testing.assert_allclose(default.covariance_prior_, np.cov(X.T))
    assert (default.degrees_of_freedom_prior_, default.weight_concentration_prior_) == (2, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_prior": [0.0]}, "The parameter 'means' should have the shape of"),
        ({"degrees_of_freedom_prior": 1.0}, "should be greater than 1, but got 1.000"),
        ({"covariance_prior": np.eye(3)}, "The parameter 'full covariance_prior' should have the shape of"),
        ({"covariance_prior": -np.eye(2)}, "'full precision' should be symmetric, positive-definite"),
        ({"covariance_prior": [1.0, -1.0], "covariance_type": "diag"}, "'diag precision' should be positive"),
        ({"covariance_prior": [1.0, 2.0], "covariance_type": "spherical"}, "should be a number above 0"),
        ({"weight_concentration_prior": 0.0}, "weight_concentration_prior"),
        ({"weight_concentration_prior_type": "gamma"}, "weight_concentration_prior_type"),
        ({"covariance_type": "VEV"}, "covariance_type"),
    ],
)
def test_invalid_parameters_are_refused(options, message):
    X, _ = blobs(0, n_features=2)
    model = BayesianGaussianMixture(n_components=2, **options)
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert not hasattr(model, "means_")


def test_components_are_keyword_only():
    with pytest.raises(TypeError):
        BayesianGaussianMixture(2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_results_are_bit_for_bit_equal_for_any_number_of_threads_and_have_the_rows_dtype(dtype):
    X = blobs(0, n_samples=30_000, n_features=4)[0].astype(dtype)
    fits = [BayesianGaussianMixture(n_components=4, random_state=0, n_jobs=n).fit(X) for n in (1, 2)]
    for name in ("means_", "covariances_", "weights_", "mean_precision_", "degrees_of_freedom_", "mean_prior_"):
        np.testing.assert_array_equal(*(getattr(fit, name) for fit in fits))
        assert getattr(fits[0], name).dtype == dtype
    assert fits[0].score_samples(X).dtype == dtype


def test_a_warm_start_continues():
    X, _ = some_problem()
    whole = BayesianGaussianMixture(n_components=5, random_state=0, tol=0, max_iter=9).fit(X)
    parts = BayesianGaussianMixture(n_components=5, random_state=0, tol=0, max_iter=3, warm_start=True)
    for _ in range(3):
        parts.fit(X)
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-9)
    np.testing.assert_allclose(parts.lower_bound_, whole.lower_bound_)
    parts.set_params(n_components=4)
    with pytest.raises(ValueError, match="warm_start=True continues the last fit"):
        parts.fit(X)


def test_starts_progress_and_warnings(capsys):
    X, _ = some_problem()
    one, best = (
        BayesianGaussianMixture(n_components=5, random_state=0, n_init=n, init_params="random", verbose=1).fit(X)
        for n in (1, 5)
    )
    assert best.lower_bound_ >= one.lower_bound_
    assert "Initialization 4" in capsys.readouterr().out
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BayesianGaussianMixture(n_components=5, max_iter=2, tol=1e-12, random_state=0).fit(X)
    assert [w.category for w in caught] == [ConvergenceWarning]
    assert caught[0].filename == __file__
    assert fit_quietly(BayesianGaussianMixture(n_components=2, max_iter=0, random_state=0), X).n_iter_ == 0


def test_a_component_without_rows_does_not_fail_without_reg_covar():
    """The prior keeps covariances positive definite, whatever k-means finds."""
    X = np.repeat([[0.0, 0.0], [1.0, 0.5], [3.0, -1.0]], 20, axis=0)
    fitted = fit_quietly(BayesianGaussianMixture(n_components=5, reg_covar=0, random_state=0), X)
    assert np.isfinite(fitted.means_).all()
    assert np.isfinite(fitted.score(X))


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_every_start_makes_a_posterior(init_params, covariance_type):
    X, _ = some_problem()
    options = {"covariance_type": covariance_type, "init_params": init_params, "random_state": 0}
    fitted = BayesianGaussianMixture(n_components=4, **options).fit(X)
    assert np.isfinite(fitted.lower_bound_)
    assert fitted.mean_precision_.shape == (4,)


def test_priors_do_not_depend_on_the_unit_of_weights():
    X, _ = some_problem()
    fitted = BayesianGaussianMixture(n_components=2, random_state=0).fit(X, sample_weight=np.full(len(X), 1 / len(X)))
    np.testing.assert_allclose(fitted.covariance_prior_, np.cov(X.T))


def one_hot(rng):
    return np.eye(4)[np.arange(60) % 4]


def both_dummies(rng):
    group = rng.integers(0, 2, 300)
    return np.c_[np.eye(2)[group], rng.normal(size=300) + 3 * group]


def parts_of_a_whole(rng):
    return rng.dirichlet(np.ones(3), 300)


def dependent_in_float32(rng):
    a = np.r_[rng.normal(size=40), rng.normal(size=40) * 0.5 + 6]
    return np.c_[a, 2 * a + 1, 3 - a].astype(np.float32)


def fewer_rows_than_features(rng):
    return rng.normal(size=(6, 9))


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize(
    "make", [one_hot, both_dummies, parts_of_a_whole, dependent_in_float32, fewer_rows_than_features]
)
@pytest.mark.parametrize("n_components", [1, 6])
def test_features_that_depend_on_each_other(make, covariance_type, n_components):
    for seed in range(3):
        X = make(np.random.default_rng(seed))
        bgm = BayesianGaussianMixture(
            n_components=n_components,
            covariance_type=covariance_type,
            weight_concentration_prior=1e-3,
            random_state=seed,
            max_iter=10,
            tol=1e3,
        ).fit(X)
        assert np.isfinite(bgm.score(X))
        if X.dtype == np.float64:  # otherwise the attribute is rounded to float32
            assert np.linalg.eigvalsh(bgm.covariance_prior_)[0] > 0


def test_a_positive_definite_prior_is_not_changed():
    X = blobs(0, n_samples=200, n_features=3)[0]
    np.testing.assert_allclose(BayesianGaussianMixture().fit(X).covariance_prior_, np.cov(X.T), rtol=1e-12)
