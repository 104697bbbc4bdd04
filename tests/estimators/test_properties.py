"""Properties that hold for any data: what happens to the rows happens to the model."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgmm import GaussianMixture
from fastgmm.engine import accumulate, maximise, score_samples
from helpers import COVARIANCE_TYPES, random_parameters, random_rows

settings.register_profile(
    "fastgmm", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("fastgmm")


@st.composite
def problems(draw, max_features=5):
    """Draw parameters, and rows from them."""
    covariance_type = draw(st.sampled_from(COVARIANCE_TYPES))
    n_components, n_features = draw(st.integers(1, 4)), draw(st.integers(1, max_features))
    seed = draw(st.integers(0, 2**32 - 1))
    parameters = random_parameters(covariance_type, n_components, n_features, seed, spread=draw(st.floats(0.1, 5)))
    n_samples = draw(st.integers(20 * n_components * (n_features + 1), 1500))
    return parameters, random_rows(parameters, n_samples, seed)


def fitted(X, parameters, **options):
    """Run EM iterations from given parameters."""
    form = parameters.model.form
    model = GaussianMixture(
        parameters.n_components,
        covariance_type=parameters.covariance_type,
        weights_init=parameters.weights / parameters.weights.sum(),
        means_init=parameters.means,
        precisions_init=form.precisions(parameters.precisions_cholesky),
        **{"max_iter": 5, "tol": 0, "reg_covar": 0, **options},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return model.fit(X)


def transformed(parameters, scale=1.0, shift=0.0):
    """The parameters of ``scale * x + shift``."""
    return type(parameters).create(
        parameters.weights,
        scale * parameters.means + shift,
        scale**2 * parameters.covariances,
        parameters.covariance_type,
    )


@given(problems(), st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(problem, seed):
    parameters, X = problem
    model = fitted(X, parameters)
    permuted = fitted(np.random.default_rng(seed).permutation(X), parameters)
    np.testing.assert_allclose(permuted.means_, model.means_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(permuted.covariances_, model.covariances_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(permuted.lower_bounds_, model.lower_bounds_, rtol=1e-10, atol=1e-11)


@given(problems(), st.randoms())
def test_order_of_components_does_not_matter(problem, random):
    parameters, X = problem
    order = list(range(parameters.n_components))
    random.shuffle(order)
    by_component = parameters.covariances if parameters.model.layout == "tied" else parameters.covariances[order]
    reordered = type(parameters).create(
        parameters.weights[order], parameters.means[order], by_component, parameters.covariance_type
    )
    a, b = fitted(X, parameters), fitted(X, reordered)
    np.testing.assert_allclose(a.means_[order], b.means_, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(a.weights_[order], b.weights_, rtol=1e-9)
    np.testing.assert_allclose(a.lower_bounds_, b.lower_bounds_, rtol=1e-10, atol=1e-11)


@given(problems(), st.sampled_from([1e8, -1e8, 1e5, 1.0]))
def test_shifted_rows_give_shifted_means_and_the_same_covariances(problem, shift):
    parameters, X = problem
    shifted = X + shift
    X = shifted - shift  # what of the rows is left at that distance from zero
    a, b = fitted(X, parameters), fitted(shifted, transformed(parameters, shift=shift))
    digits = 1e-15 * abs(shift) + 1e-9
    np.testing.assert_allclose(b.means_ - shift, a.means_, atol=100 * digits)
    np.testing.assert_allclose(b.covariances_, a.covariances_, atol=1000 * digits)
    np.testing.assert_allclose(b.lower_bounds_, a.lower_bounds_, atol=1000 * digits)


@given(problems(), st.sampled_from([1e-6, 1e-3, 0.37, 1e3, 1e6]))
def test_scaled_rows_give_scaled_parameters(problem, scale):
    parameters, X = problem
    a, b = fitted(X, parameters), fitted(scale * X, transformed(parameters, scale))
    np.testing.assert_allclose(b.means_, scale * a.means_, rtol=1e-7, atol=1e-9 * scale)
    np.testing.assert_allclose(b.covariances_, scale**2 * a.covariances_, rtol=1e-6, atol=1e-9 * scale**2)
    moved = np.array(a.lower_bounds_) - X.shape[1] * np.log(scale)
    np.testing.assert_allclose(b.lower_bounds_, moved, rtol=1e-9, atol=1e-9)


@given(problems())
def test_likelihood_rises_without_regularisation(problem):
    parameters, X = problem
    model = fitted(X, parameters, max_iter=15)
    assert np.diff(model.lower_bounds_).min() > -1e-11 * max(1, abs(model.lower_bound_))


@given(problems(), st.integers(1, 4))
def test_repeating_all_rows_changes_nothing(problem, times):
    parameters, X = problem
    a, b = fitted(X, parameters), fitted(np.repeat(X, times, axis=0), parameters)
    np.testing.assert_allclose(a.covariances_, b.covariances_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(a.lower_bounds_, b.lower_bounds_, rtol=1e-10, atol=1e-11)


@given(problems(), st.integers(1, 5))
def test_blocks_add_up(problem, n_blocks):
    parameters, X = problem
    whole = maximise(accumulate(parameters, X), parameters.covariance_type, reg_covar=0)
    blocks = [accumulate(parameters, block) for block in np.array_split(X, n_blocks)]
    parts = maximise(sum(blocks), parameters.covariance_type, reg_covar=0)
    np.testing.assert_allclose(parts.means, whole.means, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(parts.covariances, whole.covariances, rtol=1e-9, atol=1e-11)


@given(problems(max_features=3))
def test_density_is_a_density(problem):
    """Its mean over rows drawn from the mixture itself is above that of any other mixture's (Gibbs' inequality)."""
    parameters, _ = problem
    X = random_rows(parameters, 4000, seed=1)
    other = transformed(parameters, scale=1.3, shift=0.3)
    assert score_samples(parameters, X).mean() > score_samples(other, X).mean()


@given(problems(), st.sampled_from([np.float64, np.float32]))
def test_predictions_are_consistent(problem, dtype):
    parameters, X = problem
    model = fitted(X.astype(dtype), parameters)
    resp = model.predict_proba(X.astype(dtype))
    np.testing.assert_allclose(resp.sum(axis=1), 1, rtol=1e-5 if dtype is np.float32 else 1e-12)
    np.testing.assert_array_equal(model.predict(X.astype(dtype)), resp.argmax(axis=1))
    assert ((resp >= 0) & (resp <= 1 + 1e-6)).all()
    assert model.score(X.astype(dtype)) == pytest.approx(model.score_samples(X.astype(dtype)).mean(), rel=1e-6)
