"""Covariance models: stationary points of the constrained likelihood; forms: factors, inverses, errors."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

import reference
from fastgmm.covariance import BASIC_TYPES, IllDefinedCovarianceError, get_model
from fastgmm.engine import MixtureParameters, accumulate_resp, maximise
from helpers import covariances_in_form


@pytest.fixture(params=BASIC_TYPES)
def model(request):
    return get_model(request.param)


def test_m_step_against_the_naive_twin(model):
    rng = np.random.default_rng(0)
    X, resp = rng.normal(size=(200, 3)) + 5, rng.dirichlet(np.ones(4), size=200)
    weights = rng.uniform(0, 2, size=200)
    statistics = accumulate_resp(resp, np.zeros((4, 3)), X, weights, covariance_type=model.name)
    parameters = maximise(statistics, model.name, reg_covar=1e-3)
    expected = reference.m_step(X, resp, model.name, 1e-3, weights)
    np.testing.assert_allclose(parameters.weights, expected[0], rtol=1e-12)
    np.testing.assert_allclose(parameters.means, expected[1], rtol=1e-11)
    full = model.form.full(parameters.covariances, 4, 3)
    np.testing.assert_allclose(full, expected[2], atol=1e-12)


def test_m_step_is_a_stationary_point(model):
    """No small change of the covariances, within the model, raises the expected log-likelihood."""
    rng = np.random.default_rng(0)
    X, resp = rng.normal(size=(100, 2)), rng.dirichlet(np.ones(3), size=100)
    statistics = accumulate_resp(resp, np.zeros((3, 2)), X, covariance_type=model.name)
    best = maximise(statistics, model.name, reg_covar=0)

    def expected_log_likelihood(flat):
        covariances = flat.reshape(best.covariances.shape)
        full = model.form.full(covariances, 3, 2)
        full = (full + full.swapaxes(1, 2)) / 2
        return (resp * reference.log_densities(X, best.weights, best.means, full)).sum()

    gradient = approx_fprime(best.covariances.ravel(), expected_log_likelihood, 1e-6)
    assert np.abs(gradient).max() < 1e-2
    rng = np.random.default_rng(1)
    top = expected_log_likelihood(best.covariances.ravel())
    for _ in range(20):
        step = 0.02 * rng.normal(size=best.covariances.size)
        assert expected_log_likelihood(best.covariances.ravel() + step) < top


def test_number_of_parameters(model):
    """The numbers for K=2 and D=5 are those of scikit-learn's tests."""
    assert model.n_parameters(2, 5) == {"spherical": 13, "diag": 21, "tied": 26, "full": 41}[model.name]
    assert isinstance(model.n_parameters(2, 5), int)


def test_factors_and_inverses(model):
    rng = np.random.default_rng(0)
    form = model.form
    for n_components, n_features in ((1, 1), (3, 1), (2, 4)):
        covariances = covariances_in_form(model.name, n_components, n_features, rng)
        assert covariances.shape == form.shape(n_components, n_features)
        factors = form.precisions_cholesky(covariances)
        precisions = form.precisions(factors)
        np.testing.assert_allclose(form.covariances(factors), covariances, rtol=1e-10)
        np.testing.assert_allclose(form.factor_precisions(precisions), factors, rtol=1e-9, atol=1e-12)
        full = form.full(covariances, n_components, n_features)
        inverse = form.full(precisions, n_components, n_features)
        np.testing.assert_allclose(full @ inverse, np.broadcast_to(np.eye(n_features), full.shape), atol=1e-10)
        log_det = np.broadcast_to(form.log_det(factors, n_features), n_components)
        np.testing.assert_allclose(log_det, -0.5 * np.linalg.slogdet(full)[1], atol=1e-12)
        assert form.precision_problem(precisions) is None
        variance, direction = form.smallest_variance(covariances, n_components, n_features)
        np.testing.assert_allclose(variance, np.linalg.eigvalsh(full)[:, 0])
        np.testing.assert_allclose(np.einsum("kd,kde,ke->k", direction, full, direction), variance)


def test_factor_operand_gives_mahalanobis_distances(model):
    rng = np.random.default_rng(0)
    covariances = covariances_in_form(model.name, 3, 4, rng)
    factor = model.form.factor(model.form.precisions_cholesky(covariances), 3, 4)
    full, x = model.form.full(covariances, 3, 4), rng.normal(size=4)
    for k in range(3):
        own = factor[min(k, len(factor) - 1)]
        y = own[0] * x if model.layout == "diagonal" else own @ x
        np.testing.assert_allclose(y @ y, x @ np.linalg.solve(full[k], x))
        if model.layout != "diagonal":
            np.testing.assert_array_equal(own, np.tril(own))


def test_a_single_scale_is_an_operand_where_its_square_is_ordinary():
    form = get_model("spherical").form
    assert form.factor(np.array([1e-8, 1e8]), 2, 3).shape == (2, 1, 1)
    for scale in (1e-10, 1e10):  # the square of such a scale leaves the range of float32
        np.testing.assert_array_equal(form.factor(np.array([1, scale]), 2, 3)[:, 0], [[1] * 3, [scale] * 3])


def test_ill_defined_covariances_are_named(model):
    rng = np.random.default_rng(0)
    for bad in (0.0, -1.0, np.nan, np.inf):
        covariances = covariances_in_form(model.name, 4, 2, rng)
        if model.name == "tied":
            covariances[1, 1] = bad
        else:
            covariances[[1, 3]] = bad
        with pytest.raises(IllDefinedCovarianceError) as caught:
            model.form.precisions_cholesky(covariances)
        assert caught.value.components == ([] if model.name == "tied" else [1, 3])
        message = str(caught.value)
        assert ("all components share" if model.name == "tied" else "components 1, 3 are not") in message


def test_nearly_singular_is_ill_defined():
    covariances = np.array([np.eye(2), np.ones((2, 2)) + 1e-17 * np.eye(2)])
    with pytest.raises(IllDefinedCovarianceError, match="component 1 is not"):
        get_model("full").form.precisions_cholesky(covariances)


def test_sampling_has_the_moments_of_the_component(model):
    rng = np.random.RandomState(0)
    covariances = covariances_in_form(model.name, 2, 2, np.random.default_rng(0))
    means = np.array([[0.0, 0.0], [5.0, -5.0]])
    X = model.form.sample(rng, means, covariances, np.array([20_000, 0]))
    assert X.shape == (20_000, 2)
    np.testing.assert_allclose(X.mean(axis=0), means[0], atol=0.05)
    np.testing.assert_allclose(np.cov(X.T), model.form.full(covariances, 2, 2)[0], atol=0.06)


def test_unknown_model():
    with pytest.raises(ValueError, match="covariance_type must be one of 'full', 'tied', 'diag', 'spherical'"):
        get_model("oblong")


def test_parameters_are_checked():
    with pytest.raises(ValueError, match=r"means must have shape \(n_components, n_features\)"):
        MixtureParameters.create([1.0], [0.0], [1.0], "spherical")
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\)"):
        MixtureParameters.create([1.0], [[0.0], [1.0]], [1.0, 1.0], "spherical")
    with pytest.raises(ValueError, match=r"covariances must have shape \(2, 1, 1\) for covariance_type 'full'"):
        MixtureParameters.create([0.5, 0.5], [[0.0], [1.0]], [1.0, 1.0])
    with pytest.raises(IllDefinedCovarianceError, match="component 1"):
        MixtureParameters.create([0.5, 0.5], [[0.0], [1.0]], [1.0, 0.0], "spherical")
