"""The EM loop: equal to the naive twin, monotone, right about convergence; the tied layout's shortcut."""

import numpy as np
import pytest

import reference
from fastgmm import GaussianMixture, engine
from fastgmm.data.sources import ArraySource
from fastgmm.e_step import complete_rows, scores
from fastgmm.engine import MixtureParameters, accumulate, maximise
from fastgmm.fitting import em
from fastgmm.fitting.degeneracy import flat_components
from helpers import COVARIANCE_TYPES, blobs, full_covariances, random_parameters, random_rows, run_em, start_of


def run(X, parameters, sample_weight=None, **options):
    options = {"tol": 0.0, "max_iter": 20, "reg_covar": 1e-6, **options}
    return run_em(ArraySource(X, sample_weight), parameters, **options)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_against_the_naive_twin(covariance_type, weighted):
    X, _ = blobs(n_features=3)
    weights = np.random.default_rng(0).integers(0, 4, size=len(X)).astype(float) if weighted else None
    parameters = random_parameters(covariance_type, 3, 3)
    result = run(X, parameters, weights, max_iter=8)
    start = (parameters.weights, parameters.means, full_covariances(parameters))
    *expected, lower_bounds = reference.em(X, *start, covariance_type, 8, 1e-6, weights)
    np.testing.assert_allclose(result.parameters.weights, expected[0], atol=1e-10)
    np.testing.assert_allclose(result.parameters.means, expected[1], atol=1e-8)
    np.testing.assert_allclose(full_covariances(result.parameters), expected[2], atol=1e-8)
    np.testing.assert_allclose(result.lower_bounds, lower_bounds, atol=1e-10)
    assert result.n_iter == 8
    assert not result.converged


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_likelihood_never_falls_without_regularisation(covariance_type):
    for seed in range(5):
        X, _ = blobs(seed, n_features=4, separation=1.0)
        parameters, _ = start_of(ArraySource(X), 4, covariance_type=covariance_type, seed=seed)
        bounds = run(X, parameters, reg_covar=0.0, max_iter=60).lower_bounds
        assert np.diff(bounds).min() > -1e-12


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_float32_rows_give_the_float64_answer_to_float32_digits(covariance_type):
    X, _ = blobs(n_samples=5000)
    parameters = random_parameters(covariance_type, 3, 3)
    single, double = run(X.astype(np.float32), parameters), run(X, parameters)
    np.testing.assert_allclose(single.parameters.means, double.parameters.means, atol=2e-4)
    np.testing.assert_allclose(single.lower_bound, double.lower_bound, atol=1e-5)
    assert single.parameters.means.dtype == np.float64


def test_convergence_needs_a_small_rise():
    X, _ = blobs()
    result = run(X, random_parameters("full", 3, 3), tol=1e-3, max_iter=200)
    assert result.converged
    assert 0 <= result.last_change < 1e-3
    assert result.n_iter < 200
    again = run(X, result.parameters, tol=1e-3, max_iter=200, lower_bound=result.lower_bound)
    assert again.n_iter == 1  # the first change is relative to the bound of the earlier run


def test_a_large_fall_is_not_convergence_and_a_small_one_is():
    """With a large reg_covar the likelihood falls in every iteration, by less and less, as in scikit-learn."""
    X, _ = blobs()
    X = X * 0.1
    start = maximise(accumulate(random_parameters("full", 1, 3), X), "full", reg_covar=0.0)
    first = run(X, start, reg_covar=1.0, tol=0.0, max_iter=2)
    fall = first.lower_bounds[0] - first.lower_bounds[1]
    assert fall > 0
    assert first.last_change == -fall
    assert not run(X, start, reg_covar=1.0, tol=0.9 * fall, max_iter=2).converged
    assert run(X, start, reg_covar=1.0, tol=1.1 * fall, max_iter=2).converged


def test_an_exact_fixed_point_has_converged():
    X, _ = blobs(n_components=1)
    result = run(X, random_parameters("full", 1, 3), tol=1e-12, reg_covar=0.0)
    assert result.converged
    assert result.n_iter <= 4


def test_nan_is_not_convergence():
    X, _ = blobs()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="statistics must not contain NaN: check the rows"):
        run(X, random_parameters("full", 3, 3), tol=1e30)


def test_tied_scatter_is_summed_once_and_stays_right():
    X, _ = blobs()
    parameters = random_parameters("tied", 3, 3)
    first = accumulate(parameters, X)
    parameters = maximise(first, "tied")
    fresh, reusing = accumulate(parameters, X), accumulate(parameters, X, earlier_pass=first)
    assert reusing.scatter is first.scatter
    moved = reusing.recentred(fresh.reference)
    np.testing.assert_allclose(moved.scatter, fresh.scatter, rtol=1e-10)
    np.testing.assert_allclose(moved.first_moments, fresh.first_moments, atol=1e-8)


@pytest.mark.parametrize(
    ("dtype", "digits", "distance"),
    # float32 rows keep seven digits of the distance from the middle of the data.
    [(np.float64, 1e-8, 1e2), (np.float64, 1e-8, 1e5), (np.float64, 1e-8, 1e8), (np.float32, 1e-3, 1e2),
     (np.float32, 1e-3, 1e4)],
)  # fmt: skip
def test_tied_components_far_apart_keep_their_digits(dtype, digits, distance):
    """The scatter within, as a difference from the total, would lose the square of the distance in digits."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 2)).round(2)
    X = noise + np.repeat([[0.0, 0.0], [distance, distance]], 1000, axis=0)
    if dtype is np.float32:
        X = X.astype(dtype)
        noise = X.astype(float) - np.repeat([[0.0, 0.0], [distance, distance]], 1000, axis=0)
    within = noise - np.repeat([noise[:1000].mean(axis=0), noise[1000:].mean(axis=0)], 1000, axis=0)
    start = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [distance, distance]], np.eye(2), "tied")
    parameters = run(X, start, reg_covar=0.0, max_iter=3).parameters
    np.testing.assert_allclose(parameters.covariances, within.T @ within / 2000, rtol=digits, atol=digits)


def test_on_iteration_is_called_after_every_iteration():
    X, _ = blobs()
    seen = []

    def watch(result):
        seen.append((result.n_iter, result.last_change))

    result = run(X, random_parameters("diag", 3, 3), max_iter=5, on_iteration=watch)
    assert [n for n, _ in seen] == [1, 2, 3, 4, 5]
    assert seen[0][1] == np.inf
    np.testing.assert_allclose([change for _, change in seen[1:]], np.diff(result.lower_bounds))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_features", [2, 9])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_pass_can_return_densities_and_responsibilities(covariance_type, n_features, weighted, dtype):
    parameters = random_parameters(covariance_type, 5, n_features)
    X = random_rows(parameters, 3000).astype(dtype)
    if covariance_type != "tied":  # its scatter would be infinite
        X[7] = 1e200 if dtype is np.float64 else 1e30  # the squared distance overflows
    weights = 1e12 * np.random.default_rng(0).integers(0, 3, len(X)) if weighted else None
    log_prob_norm, resp = np.empty(len(X), dtype), np.empty((len(X), 5), dtype)
    statistics = accumulate(parameters, X, weights, log_prob_norm=log_prob_norm, resp=resp)
    np.testing.assert_allclose(log_prob_norm, engine.score_samples(parameters, X), rtol=8 * np.finfo(dtype).eps)
    expected = engine.predict_proba(parameters, X) * (1 if weights is None else weights[:, np.newaxis])
    scale = 1 if weights is None else 2e12
    np.testing.assert_allclose(resp, expected, rtol=0, atol=scale * 100 * np.finfo(dtype).eps)
    np.testing.assert_allclose(statistics.weight_sums, expected.sum(axis=0, dtype=np.float64), rtol=1e-4)
    alone = accumulate(parameters, X, weights)
    for name in ("weight_sums", "first_moments", "scatter"):
        np.testing.assert_array_equal(getattr(statistics, name), getattr(alone, name))


def test_a_pass_of_the_tied_layout_without_its_shortcut_returns_them_too():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) + 1e5])
    parameters = MixtureParameters.create([0.5, 0.5], [[0, 0], [1e5, 1e5]], np.eye(2), "tied")
    log_prob_norm, resp = np.empty(len(X)), np.empty((len(X), 2))
    statistics = accumulate(parameters, X, log_prob_norm=log_prob_norm, resp=resp)
    assert not complete_rows._has_common_reference(statistics, X.dtype)
    np.testing.assert_allclose(log_prob_norm, engine.score_samples(parameters, X), rtol=1e-12)
    np.testing.assert_allclose(resp, engine.predict_proba(parameters, X), atol=1e-14)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_first_pass_that_was_made_is_not_repeated(covariance_type, monkeypatch, steps_from_python):
    X, _ = blobs()
    start = random_parameters(covariance_type, 3, 3)
    passes, full_pass = [], em.full_pass
    monkeypatch.setattr(em, "full_pass", lambda *arguments: passes.append(0) or full_pass(*arguments))
    statistics = accumulate(start, X)
    results = run(X, start, max_iter=4), run(X, start, max_iter=4, statistics=statistics)
    assert len(passes) == 4 + 3
    assert results[0].lower_bounds == results[1].lower_bounds
    np.testing.assert_array_equal(results[0].parameters.means, results[1].parameters.means)


def test_flat_components_are_found():
    good = random_parameters("full", 3, 2)
    assert flat_components(good, 1e-6).size == 0
    covariances = good.covariances.copy()
    covariances[1] = [[1.0, 1.0], [1.0, 1.0 + 1e-6]]  # flat along the diagonal
    flat = MixtureParameters.create(good.weights, good.means, covariances)
    assert flat_components(flat, 1e-6).tolist() == [1]
    # With a constant feature the whole mixture is flat, so no component is reported.
    constant = covariances * np.array([[1.0, 0], [0, 0]]) + np.array([[0, 0], [0, 1e-6]])
    means = good.means * [1.0, 0.0]
    assert flat_components(MixtureParameters.create(good.weights, means, constant), 1e-6).size == 0


def test_engine_predictions_agree_with_the_naive_twin():
    parameters = random_parameters("full", 3, 4)
    X = random_rows(parameters, 300)
    resp, log_prob_norm = reference.responsibilities(
        X, parameters.weights, parameters.means, full_covariances(parameters)
    )
    np.testing.assert_allclose(engine.score_samples(parameters, X), log_prob_norm, rtol=1e-12)
    np.testing.assert_allclose(engine.predict_proba(parameters, X), resp, atol=1e-13)
    np.testing.assert_array_equal(engine.predict(parameters, X), resp.argmax(axis=1))
    np.testing.assert_allclose(scores.log_highest_resp(parameters, X), np.log(resp.max(axis=1)), atol=1e-12)


@pytest.mark.parametrize("n_features", [10, 80])
def test_flat_components_are_found_beside_constant_features(n_features):
    """With many features by power iterations."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    variances = np.tile(rng.uniform(1, 2, n_features), (3, 1))
    variances[:, 0] = 1e-6  # flat for the whole mixture
    variances[1, 5] = 1e-6
    covariances = (axes * variances[:, np.newaxis]) @ axes.T
    parameters = MixtureParameters.create(np.full(3, 1 / 3), np.zeros((3, n_features)), covariances)
    assert flat_components(parameters, 1e-6).tolist() == [1]
    diagonal = MixtureParameters.create(np.full(3, 1 / 3), np.zeros((3, n_features)), variances, "diag")
    assert flat_components(diagonal, 1e-6).tolist() == [1]


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
def test_a_fit_with_fewer_rows_than_features_ends_when_only_rounding_changes():
    X = np.random.default_rng(0).normal(size=(40, 200))
    X[:20] += 4
    gm = GaussianMixture(2, random_state=0, acceleration=None).fit(X)
    assert gm.converged_
    assert gm.n_iter_ <= 2
