"""Sufficient statistics add in any order and about any reference; weights are repetitions."""

import numpy as np
import pytest

import reference
from fastgmm.engine import (
    MixtureParameters,
    SufficientStatistics,
    accumulate,
    accumulate_labels,
    accumulate_resp,
    maximise,
)
from helpers import COVARIANCE_TYPES, full_covariances, random_parameters, random_rows

FIELDS = ("weight_sums", "first_moments", "scatter", "log_likelihood", "total_weight")


def assert_same(a, b, rtol=1e-11):
    """Assert that statistics are equal, possibly about different reference points."""
    b = b.recentred(a.reference)
    for name in FIELDS:
        scale = np.abs(getattr(b, name)).max()
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=0, atol=rtol * scale, err_msg=name)


@pytest.fixture(params=COVARIANCE_TYPES)
def problem(request):
    parameters = random_parameters(request.param, 3, 4)
    return parameters, random_rows(parameters, 1000)


def test_statistics_of_blocks_add_in_any_order(problem):
    parameters, X = problem
    whole = accumulate(parameters, X)
    a, b, c = (accumulate(parameters, X[part]) for part in (slice(0, 1), slice(1, 700), slice(700, None)))
    assert_same(a + b + c, whole)
    assert_same(c + (a + b), whole)
    assert_same(sum([b, c, a]), whole)
    assert whole.total_weight == 1000


def test_tied_components_far_apart_keep_their_digits_in_any_order():
    """One block uses one reference point for all components, the other a point for each component."""
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(3_000, 2)), rng.normal(size=(3_000, 2)) + 1e8
    parameters = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [1e8, 1e8]], np.eye(2), "tied")
    a, b = accumulate(parameters, near), accumulate(parameters, far)
    whole = maximise(accumulate(parameters, np.concatenate([near, far])), "tied")
    for statistics in (a + b, b + a, sum([a, b])):
        np.testing.assert_allclose(maximise(statistics, "tied").covariances, whole.covariances, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(whole.covariances, np.eye(2), atol=0.1)


def test_weights_are_repetitions(problem):
    parameters, X = problem
    weights = np.random.default_rng(0).integers(0, 4, size=len(X))
    weighted, repeated = accumulate(parameters, X, weights), accumulate(parameters, np.repeat(X, weights, axis=0))
    assert_same(weighted, repeated)
    assert weighted.total_weight == weights.sum() == repeated.total_weight
    assert_same(accumulate(parameters, X, weights + 0.5), weighted + accumulate(parameters, X).scaled(0.5))


def test_moving_the_reference_is_exact(problem):
    parameters, X = problem
    statistics = accumulate(parameters, X)
    rng = np.random.default_rng(0)
    point = rng.normal(size=(3, 4))
    if statistics.layout == "tied":
        point[:] = point[0]
    moved = statistics.recentred(point)
    resp, _ = reference.responsibilities(X, parameters.weights, parameters.means, full_covariances(parameters))
    sums, first, scatter = reference.moments(X, resp, point)
    expected = {"full": scatter, "diagonal": np.diagonal(scatter, axis1=1, axis2=2), "tied": scatter.sum(axis=0)}
    np.testing.assert_allclose(moved.weight_sums, sums)
    np.testing.assert_allclose(moved.first_moments, first, atol=1e-9)
    np.testing.assert_allclose(moved.scatter, expected[statistics.layout], atol=1e-9)
    assert_same(moved, statistics)


def test_statistics_about_different_points_add(problem):
    parameters, X = problem
    whole = accumulate(parameters, X)
    a, b = accumulate(parameters, X[:300]), accumulate(parameters, X[300:])
    assert_same(a + b.recentred(np.full(4, 3.0)), whole)
    assert_same(a.recentred(np.full(4, -2.0)) + b, whole)


def test_the_m_step_does_not_depend_on_the_reference(problem):
    parameters, X = problem
    statistics = accumulate(parameters, X)
    a = maximise(statistics, parameters.covariance_type)
    b = maximise(statistics.recentred(np.full(4, 1.5)), parameters.covariance_type)
    np.testing.assert_allclose(a.means, b.means, atol=1e-12)
    np.testing.assert_allclose(a.covariances, b.covariances, atol=1e-11)


def test_labels_are_responsibilities_of_one(problem):
    parameters, X = problem
    labels = np.random.default_rng(0).integers(0, 3, size=len(X))
    weights = np.random.default_rng(1).uniform(0, 2, size=len(X))
    points, name = parameters.means, parameters.covariance_type
    by_labels = accumulate_labels(labels, points, X, weights, covariance_type=name)
    by_resp = accumulate_resp(np.eye(3)[labels], points, X, weights, covariance_type=name)
    assert_same(by_labels, by_resp, rtol=1e-13)
    sums, first, _ = reference.moments(X, np.eye(3)[labels], by_labels.reference, weights)
    np.testing.assert_allclose(by_labels.weight_sums, sums)
    np.testing.assert_allclose(by_labels.first_moments, first, atol=1e-9)


def test_mean_log_likelihood_is_per_row(problem):
    parameters, X = problem
    _, log_prob = reference.responsibilities(X, parameters.weights, parameters.means, full_covariances(parameters))
    weights = np.random.default_rng(0).uniform(0, 2, size=len(X))
    assert accumulate(parameters, X).mean_log_likelihood == pytest.approx(log_prob.mean(), rel=1e-12)
    weighted = accumulate(parameters, X, weights)
    assert weighted.mean_log_likelihood == pytest.approx(np.average(log_prob, weights=weights), rel=1e-12)
    assert weighted.log_likelihood == pytest.approx(weights @ log_prob, rel=1e-12)


def test_what_does_not_fit_is_refused(problem):
    parameters, X = problem
    statistics = accumulate(parameters, X)
    other = accumulate(random_parameters(parameters.covariance_type, 2, 4), X)
    with pytest.raises(ValueError, match="do not add"):
        statistics + other
    with pytest.raises(TypeError):
        statistics + 1
    with pytest.raises(ValueError, match="needs statistics of the"):
        maximise(statistics, "diag" if statistics.layout == "full" else "full")
    with pytest.raises(ValueError, match="first_moments must have shape"):
        SufficientStatistics("full", np.zeros((2, 3)), np.zeros(2), np.zeros((2, 2)), np.zeros((2, 3, 3)), 0.0, 0.0)
    with pytest.raises(ValueError, match="layout must be one of"):
        SufficientStatistics("round", np.zeros((2, 3)), np.zeros(2), np.zeros((2, 3)), np.zeros((2, 3)), 0.0, 0.0)
    with pytest.raises(ValueError, match=r"X must have shape \(n_samples, 4\)"):
        accumulate(parameters, X[:, :3])
    with pytest.raises(ValueError, match="labels must be below"):
        accumulate_labels(np.full(len(X), 3), parameters.means, X)
    with pytest.raises(ValueError, match="resp must have shape"):
        accumulate_resp(np.ones((len(X), 2)), parameters.means, X)
