"""Conjugate priors: mclust's values, modes, bounds that never fall, clusters that do not collapse."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from fastgmm import ConjugatePrior, GaussianMixture
from fastgmm.covariance import MCLUST_MODELS, get_model
from fastgmm.data.sources import ArraySource
from fastgmm.engine import MixtureParameters, accumulate, accumulate_resp
from fastgmm.fitting import em
from fastgmm.fitting.options import FitOptions
from fastgmm.m_step.conjugate_prior import ConjugatePosterior, mode
from helpers import blobs, fit_quietly

WITHOUT = ("VEE", "EVE", "VVE", "EVV")
WITH = tuple(name for name in MCLUST_MODELS if name not in WITHOUT)


def step(X, resp, name, prior=None, weights=None):
    """An M-step from responsibilities, its statistics and its prior."""
    source = ArraySource(X, weights)
    resolved = (prior or ConjugatePrior()).resolved(source, get_model(name), resp.shape[1])
    statistics = accumulate_resp(resp, np.zeros((resp.shape[1], X.shape[1])), X, weights, covariance_type=name)
    return mode(statistics, get_model(name), resolved, reg_covar=0), statistics, resolved


def test_one_step_from_the_species_of_iris_as_in_mclust():
    """``mstep(data, modelName, z, prior = priorControl())`` of mclust 6.0.0: variances of the first species.

    EII is not compared: mclust leaves out the prior's scale (0.144219), and fastgmm follows the publication (Fraley &
    Raftery, 2007). VEI, EEV and VEV are not compared: mclust's numbers of rows are not those of the mode.
    """
    X, y = load_iris(return_X_y=True)
    expected = {
        "VII": [0.0749114399703] * 4,
        "EEI": [0.2461421701503, 0.1094678138415, 0.1737270346267, 0.0424393102254],
        "EVI": [0.2418310412241, 0.2757313295654, 0.0784195240444, 0.0434361320643],
        "VVI": [0.1144959214348, 0.1305461552299, 0.0371280527863, 0.0205650190277],
        "EEE": [0.2400288123939, 0.1041094707395, 0.1774950422946, 0.0396836803274],
        "VVV": [0.1046950839201, 0.1153525537317, 0.0537046689645, 0.0143343669360],
    }
    for name, variances in expected.items():
        fitted, _, _ = step(X, np.eye(3)[y], name)
        full = get_model(name).form.full(fitted.covariances, 3, 4)
        np.testing.assert_allclose(np.diagonal(full[0]), variances, rtol=1e-10, err_msg=name)
        np.testing.assert_allclose(
            fitted.means[0], [5.006167433180, 3.427925881490, 1.462459108178, 0.246190628541], rtol=1e-10
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", WITH)
def test_a_step_is_the_mode(name, weighted):
    """No small change of means or covariances, within the model, raises the expected log-posterior."""
    rng = np.random.default_rng(0)
    X, resp = rng.normal(size=(60, 3)) * [1, 2, 3], rng.dirichlet(np.ones(3), size=60)
    weights = rng.uniform(0, 2, 60) if weighted else None
    prior = ConjugatePrior(shrinkage=2.0, dof=7.0)
    best, statistics, resolved = step(X, resp, name, prior, weights)
    form = best.model.form

    def posterior(parameters):
        moved = statistics.recentred(parameters.means)
        log_det = np.broadcast_to(form.log_det(parameters.precisions_cholesky, 3), (3,))
        likelihood = statistics.weight_sums @ log_det - form.trace(parameters.precisions_cholesky, moved.scatter) / 2
        return likelihood + resolved.log_density(parameters)

    top = posterior(best)
    for seed in range(30):
        noise = np.random.default_rng(seed)
        roots = np.eye(3) + 0.05 * noise.normal(size=(3, 3, 3))
        full = roots @ form.full(best.covariances, 3, 3) @ roots.swapaxes(1, 2)
        other = best.model.maximise(form.scatter(full), np.ones(3))
        means = best.means + 0.05 * noise.normal(size=(3, 3)) * (seed % 2)
        assert posterior(MixtureParameters.create(best.weights, means, other, name)) < top


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", WITH)
def test_bounds_never_fall(name, dtype):
    X = blobs(0, n_samples=300, n_features=3, separation=2.0)[0].astype(dtype)
    resp = np.random.default_rng(0).dirichlet(np.ones(4) / 2, len(X))
    start, _, resolved = step(X, resp, name)
    result = em.run(
        ArraySource(X), start, FitOptions(ConjugatePosterior(resolved, name, 0.0), tol=0, max_iter=40)
    )  # fmt: skip
    assert np.diff(result.lower_bounds).min() > (-1e-9 if dtype == np.float64 else -2e-5)
    final = accumulate(result.parameters, X).mean_log_likelihood + resolved.log_density(result.parameters) / len(X)
    assert final >= result.lower_bound - 1e-5


@pytest.mark.parametrize("name", WITH)
def test_small_clusters_do_not_collapse(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2)) * 3
    X[:4] = [9.0, 9.0]
    model = fit_quietly(
        GaussianMixture(4, covariance_type=name, prior=ConjugatePrior(), reg_covar=0, random_state=0), X
    )
    full = get_model(name).form.full(model.covariances_, 4, 2)
    assert np.linalg.eigvalsh(full).min() > 0.02
    assert np.isfinite(model.bic(X))


def test_with_many_rows_a_prior_changes_little_and_everything_else_works():
    X, _ = blobs(0, n_samples=100_000, n_features=3, separation=3.0)
    options = {"random_state": 0, "tol": 1e-7, "max_iter": 500}
    free = GaussianMixture(3, **options).fit(X)
    held = GaussianMixture(3, prior=ConjugatePrior(), n_moves=1, **options).fit(X)
    order_free, order_held = (np.argsort(m.means_[:, 0]) for m in (free, held))
    np.testing.assert_allclose(held.means_[order_held], free.means_[order_free], atol=1e-2)
    again = GaussianMixture(3, prior=ConjugatePrior(), warm_start=True, **options).fit(X)
    assert again.fit(X).n_iter_ <= 3


def test_means_are_drawn_to_the_priors():
    X = np.random.default_rng(0).normal(size=(10, 2))
    drawn = GaussianMixture(1, prior=ConjugatePrior(shrinkage=30.0, mean=[4.0, 0.0])).fit(X)
    np.testing.assert_allclose(drawn.means_[0], (10 * X.mean(axis=0) + 30 * np.array([4.0, 0.0])) / 40)


@pytest.mark.parametrize("name", WITHOUT)
def test_models_without_a_prior_say_so(name):
    with pytest.raises(ValueError, match=f"no conjugate prior for covariance_type '{name}'"):
        GaussianMixture(2, covariance_type=name, prior=ConjugatePrior()).fit(np.eye(4))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (ConjugatePrior(mean=[0.0]), r"mean must have shape \(2,\)"),
        (ConjugatePrior(scale=1.0), r"scale must have shape \(2, 2\)"),
        (ConjugatePrior(shrinkage=-1.0), "shrinkage must be >= 0"),
        (ConjugatePrior(dof=1.0), r"dof > n_features - 1 \(1\)"),
    ],
)
def test_wrong_priors_are_refused(prior, message):
    X = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, prior=prior).fit(X)
    with pytest.raises(ValueError, match="prior"):
        GaussianMixture(2, prior="default").fit(X)


def test_short_runs_have_the_prior_too():
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 9, [[50.0, 50, 50]] * 2])
    model = GaussianMixture(3, prior=ConjugatePrior(), reg_covar=0, random_state=0, init_params="small_em").fit(X)
    assert model.lower_bound_ == pytest.approx(
        GaussianMixture(3, prior=ConjugatePrior(), reg_covar=0, random_state=0).fit(X).lower_bound_, abs=0.01
    )


def test_default_scale_does_not_depend_on_the_unit_of_weights():
    X, _ = blobs(0, n_samples=100, n_features=2)
    resolved = [
        ConjugatePrior().resolved(ArraySource(X, w), get_model("VVV"), 2).scatter for w in (None, np.full(100, 0.01))
    ]
    np.testing.assert_allclose(*resolved)


@pytest.mark.parametrize(
    ("prior", "name", "message"),
    [
        (ConjugatePrior(scale=-1.0), "diag", "scale must be positive"),
        (ConjugatePrior(scale=np.triu(np.ones((2, 2)))), "full", "scale must be symmetric"),
        (ConjugatePrior(mean=[np.nan, 0.0]), "full", "mean must be finite"),
    ],
)
def test_invalid_priors_are_refused(prior, name, message):
    X = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, covariance_type=name, prior=prior).fit(X)


@pytest.mark.parametrize("name", ["full", "tied", "EEV"])
def test_rows_without_a_default_scale_are_named(name):
    """With a constant feature, the covariance of the rows cannot be the scale of a prior."""
    X, _ = blobs(n_samples=100, n_features=2)
    options = {"covariance_type": name, "random_state": 0}
    for value in (1.0, 1e8 + 0.1, -1 / 3):
        constant = np.column_stack([X[:, 0], np.full(100, value), X[:, 1]])
        with pytest.raises(ValueError, match=r"but feature\(s\) 1 are constant\. Leave such features out"):
            GaussianMixture(2, prior=ConjugatePrior(), **options).fit(constant)
    dependent = np.column_stack([X, X @ [2.0, -3.0]])
    with pytest.raises(ValueError, match="some features are linear combinations of others"):
        GaussianMixture(2, prior=ConjugatePrior(), **options).fit(dependent)
    scaled = GaussianMixture(2, prior=ConjugatePrior(scale=np.eye(3)), **options).fit(dependent)
    assert np.isfinite(scaled.lower_bound_)


@pytest.mark.parametrize("name", ["diag", "spherical", "VEI"])
def test_one_variance_is_a_scale_for_constant_features_too(name):
    X, _ = blobs(n_samples=100, n_features=2)
    constant = np.column_stack([X, np.ones(100)])
    options = {"covariance_type": name, "random_state": 0, "prior": ConjugatePrior()}
    assert np.isfinite(GaussianMixture(2, **options).fit(constant).lower_bound_)
    with pytest.raises(ValueError, match="all rows are equal"):
        GaussianMixture(2, **options).fit(np.ones((20, 3)))
