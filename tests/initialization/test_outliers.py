"""Outliers are found in one pass, in any blocks, and are in every sample."""

from functools import partial

import numpy as np
import pytest

from fastgmm import BayesianGaussianMixture, GaussianMixture, rows
from fastgmm.covariance import get_model
from fastgmm.data.random_stream import RandomStream, sample, shares
from fastgmm.data.sources import ArraySource
from fastgmm.engine import accumulate, maximise, score_samples
from fastgmm.initialization import outliers
from fastgmm.initialization.outliers import pass_with_outliers, representative, with_outliers
from fastgmm.initialization.samples import enough_rows
from helpers import COVARIANCE_TYPES, fit_quietly, random_parameters


def by_contents(X):
    return X[np.lexsort(X.T)]


def with_a_rare_cluster(n_samples=20_000, n_rare=60):
    """Return rows with a rare cluster far away in the middle."""
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(n_samples, 3))
    return np.vstack([usual[: n_samples // 2], rng.normal(size=(n_rare, 3)) + 20.0, usual[n_samples // 2 :]])


def find(parameters, bound, source, max_outliers=10**6):
    return source.reduce(partial(outliers._pass, parameters, bound, max_outliers))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_pass_is_one_of_em_in_whatever_parts_it_is_made(covariance_type, weighted, monkeypatch, tmp_path):
    X, rng = with_a_rare_cluster(), np.random.default_rng(1)
    weights = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    parameters = random_parameters(covariance_type, 3, 3)
    desired = accumulate(parameters, X, weights)
    log_prob = score_samples(parameters, X)
    bound = np.quantile(log_prob, 0.02)
    there = np.ones(len(X), bool) if weights is None else weights > 0
    below = (log_prob < bound) & there
    np.save(tmp_path / "x.npy", X)
    blocks = rows(tmp_path / "x.npy", weight=weights, block_bytes=24 * 5_000)
    whole = find(parameters, bound, ArraySource(X, weights))
    monkeypatch.setattr(outliers, "ROWS_PER_SLICE", 4_096)
    for found in (whole, find(parameters, bound, ArraySource(X, weights)), find(parameters, bound, blocks)):
        far, theirs = found.in_order()
        np.testing.assert_array_equal(far, by_contents(X[below]))
        if weighted:
            np.testing.assert_array_equal(theirs, weights[below][np.lexsort(X[below].T)])
        assert found.statistics.log_likelihood == pytest.approx(desired.log_likelihood, rel=1e-12)
        again, other = (maximise(statistics, covariance_type) for statistics in (found.statistics, desired))
        np.testing.assert_allclose(again.means, other.means, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(again.covariances, other.covariances, rtol=1e-9, atol=1e-12)
    # If there are too many, those of lowest density are kept, in any blocks.
    lowest = by_contents(X[there][np.argsort(log_prob[there])[:25]])
    for source in (ArraySource(X, weights), blocks):
        np.testing.assert_array_equal(find(parameters, bound, source, 25).in_order()[0], lowest)


def test_equal_rows_at_the_limit_are_all_left_out():
    X = np.repeat([[0.0], [9.0], [8.0]], [1000, 3, 5], axis=0)
    parameters = random_parameters("full", 1, 1)
    found = find(parameters, np.inf, ArraySource(X), 5)
    np.testing.assert_array_equal(found.rows, np.full((3, 1), 9.0))


@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_has_every_outlier_and_weighs_what_the_rows_weigh(weighted):
    X, rng = with_a_rare_cluster(), np.random.default_rng(1)
    weights = rng.integers(1, 3, len(X)).astype(float) if weighted else None
    source, parameters = ArraySource(X, weights), random_parameters("full", 2, 3)
    drawn = sample(source, 2_000, RandomStream(0))
    found = pass_with_outliers(source, parameters, drawn)
    whole = with_outliers(drawn, parameters, found)
    far = X[:, 0] > 10
    assert whole.n_outliers >= far.sum()
    assert (whole.X[:, 0] > 10).sum() == far.sum()
    share = whole.sample_weight[whole.X[:, 0] > 10].sum() / whole.total_weight
    right = far.mean() if weights is None else weights[far].sum() / weights.sum()
    assert share == pytest.approx(right, rel=0.01)
    # A sample of the sample contains them too.
    (few,) = whole.draw(shares(300, RandomStream(1)))
    assert (few.X[:, 0] > 10).sum() == far.sum()
    assert few.sample_weight[few.X[:, 0] > 10].sum() / few.total_weight == pytest.approx(right, rel=0.01)
    assert len(few.X) == 300 + whole.n_outliers


def test_outliers_are_few_however_many_rows_there_are():
    rng = np.random.default_rng(0)
    X, parameters = rng.standard_cauchy(size=(400_000, 1)), random_parameters("full", 1, 1)
    drawn = sample(ArraySource(X), 1_000, RandomStream(0))
    found = pass_with_outliers(ArraySource(X), parameters, drawn)
    assert 100 < len(found.rows) <= 1_000
    np.testing.assert_array_equal(np.sort(np.abs(found.rows[:, 0]))[-3:], np.sort(np.abs(X[:, 0]))[-3:])


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(0.0, "f4"), (1e-12, "f4"), (1.0, "f4"), (1e12, "f4"), (0.0, "f8"), (1e-30, "f8"), (1e30, "f8"), (1e152, "f8")],
)
def test_samples_for_a_start_work_in_any_unit(scale, dtype):
    X = (np.random.default_rng(0).normal(size=(30_000, 2)) * scale).astype(dtype)
    X[777] = 1e3 * (scale or 1.0)
    some = enough_rows(ArraySource(X), 2, RandomStream(0), get_model("full"), 0.0)
    assert 10_000 <= len(some.X) < 20_000
    assert np.isfinite(some.X).all()
    assert (some.X == X[777]).all(axis=1).any() or scale > 1e100


def test_dependent_features_have_outliers_as_well():
    X = np.random.default_rng(0).normal(size=(30_000, 1)) * [1.0, 2.0, 0.0]
    X[5] = [0.0, 9.0, 1.0]
    some = representative(ArraySource(X), sample(ArraySource(X), 1_000, RandomStream(0)), get_model("full"), 0.0)
    assert (some.X == X[5]).all(axis=1).any()


@pytest.mark.parametrize("acceleration", ["progressive", "squarem", None])
@pytest.mark.parametrize("n_init", [1, 4])
def test_three_glitches_have_a_component_of_their_own(acceleration, n_init):
    """The effect of three outliers on a fit must not depend on the rows of a sample."""
    for n_components in (2, 3):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            X = rng.normal(size=(100_000, 2))
            X[: 50_000 * (n_components - 2)] += 8
            X[rng.choice(len(X), 3, replace=False)] = rng.normal(size=(3, 2)) + 1000
            model = GaussianMixture(n_components, random_state=seed, acceleration=acceleration, n_init=n_init).fit(X)
            assert round(model.weights_.min() * len(X)) == 3
            assert model.score(X) > -3.6


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
@pytest.mark.parametrize(("n_samples", "n_others"), [(20_000, 1), (100_000, 3)])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_few_rows_before_a_constant_background(n_samples, n_others, covariance_type):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X = np.zeros((n_samples, 2))
        X[rng.choice(n_samples, n_others, replace=False)] = rng.normal(size=(n_others, 2)) + 1000
        model = GaussianMixture(2, covariance_type=covariance_type, random_state=seed).fit(X)
        assert round(model.weights_.min() * n_samples) == n_others
        assert model.score(X) == pytest.approx(11.977, abs=1e-3)


def test_variational_fits_start_with_outliers_too():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100_000, 2))
    X[rng.choice(len(X), 3, replace=False)] += 1000
    model = fit_quietly(BayesianGaussianMixture(n_components=2, random_state=0), X)
    assert model.means_.max() == pytest.approx(750, abs=3)  # three rows at 1000, and the prior, which weighs one


def test_a_first_pass_keeps_the_digits_of_tied_components_far_apart():
    """The rows are in order: the first slice alone would use one reference point, far from the other rows."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300_000, 2)), rng.normal(size=(300_000, 2)) + 1e8])
    model = GaussianMixture(2, covariance_type="tied", random_state=0).fit(X)
    np.testing.assert_allclose(model.lower_bounds_, model.lower_bound_, atol=0.1)
    np.testing.assert_allclose(model.covariances_, np.eye(2), atol=0.02)
