"""Births, splits and merges: what EM cannot find again, and never a lower likelihood."""

from functools import partial

import numpy as np
import pytest

from fastgmm import GaussianMixture, births, em, rows
from fastgmm.births import birth
from fastgmm.covariance import FOURTEEN
from fastgmm.engine import MixtureParameters, accumulate, maximise, score_samples
from fastgmm.moves import (
    improve,
    least_gaussian,
    least_merge,
    look_gaussian,
    one_more,
    split_and_merge,
)
from fastgmm.random_stream import Stream, sample
from fastgmm.sources import ArraySource
from helpers import COVARIANCE_TYPES, covariances_in_form, fit_quietly, full_covariances, random_parameters


def three_clusters(n_samples=3000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 2)) + 8.0 * np.array([[0, 0], [1, 0], [0, 1]])[np.arange(n_samples) % 3]


def badly_started(covariance_type="full"):
    """Two components in one cluster, and one for two."""
    full = np.array([np.eye(2), np.eye(2), [[17.0, -16.0], [-16.0, 17.0]]])
    covariances = {"full": full, "tied": full.mean(axis=0), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    means = np.array([[-0.5, 0.0], [0.5, 0.0], [4.0, 4.0]])
    return MixtureParameters.create([1 / 6, 1 / 6, 2 / 3], means, covariances[covariance_type], covariance_type)


class Watcher:
    """Remembers what it is told; stops at a pass."""

    def __init__(self, stop_at=None):
        self.notes, self.seen, self.stop_at = [], [], stop_at

    def note(self, text):
        self.notes.append(text)

    def iteration(self, result):
        self.seen.append((result.n_iter, result.lower_bound))
        return result.n_iter == self.stop_at


def run(source, parameters, **options):
    return em.run(source, parameters, **{"tol": 1e-6, "max_iter": 500, "reg_covar": 1e-6, **options})


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_move_leaves_an_optimum_that_em_cannot(covariance_type, weighted):
    X = three_clusters()
    source = ArraySource(X, np.random.default_rng(0).integers(0, 3, len(X)).astype(float) if weighted else None)
    stuck = run(source, badly_started(covariance_type))
    near = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    truth = MixtureParameters.create(
        np.full(3, 1 / 3), near, covariances_in_form(covariance_type, 3, 2, np.random.default_rng(0)), covariance_type
    )
    best = run(source, truth)
    assert stuck.lower_bound < best.lower_bound - 0.1
    before = stuck.n_iter
    better = improve(source, stuck, run, 3, Watcher())
    assert better.lower_bound == pytest.approx(best.lower_bound, abs=1e-4)
    step = run(source, better.parameters, tol=0, max_iter=1)
    assert better.lower_bound == pytest.approx(step.lower_bound, abs=1e-5)  # that of the parameters
    assert better.converged
    assert better.n_iter > before  # every pass over all rows counts


def test_moves_that_lead_nowhere_change_nothing_but_the_count_of_passes():
    X = three_clusters()
    best = run(ArraySource(X), badly_started())
    best = improve(ArraySource(X), best, run, 3, Watcher())
    means = best.parameters.means.copy()
    passes = best.n_iter
    again = improve(ArraySource(X), best, run, 3, watcher := Watcher())
    np.testing.assert_array_equal(again.parameters.means, means)
    assert again.converged
    assert again.n_iter == passes + len(watcher.seen)
    single = ArraySource(X[:, :1])
    assert improve(single, run(single, random_parameters("full", 2, 1)), run, 2, Watcher()).converged  # nothing to move


def test_the_estimator_offers_moves():
    X = three_clusters(30_000)
    options = {"means_init": badly_started().means, "weights_init": badly_started().weights, "tol": 1e-6,
               "max_iter": 500, "precisions_init": np.linalg.inv(badly_started().covariances)}  # fmt: skip
    stuck = GaussianMixture(3, **options).fit(X)
    moved = GaussianMixture(3, n_moves=2, **options).fit(X)
    assert moved.lower_bound_ > stuck.lower_bound_ + 0.1
    assert moved.converged_
    assert moved.n_iter_ == len(moved.lower_bounds_) > stuck.n_iter_
    with pytest.raises(ValueError, match="n_moves"):
        GaussianMixture(3, n_moves=-1).fit(X)


def test_passes_of_moves_are_seen_and_can_be_stopped():
    X = three_clusters()
    stuck = run(ArraySource(X), badly_started())
    before, watcher = stuck.n_iter, Watcher()
    moved = improve(ArraySource(X), stuck, run, 1, watcher)
    assert [n for n, _ in watcher.seen] == list(range(before + 1, moved.n_iter + 1))
    assert watcher.seen[-1][1] == moved.lower_bound
    assert watcher.notes[0].startswith("Move 1: kept, ")
    stuck = run(ArraySource(X), badly_started())
    stopped = improve(ArraySource(X), stuck, run, 5, Watcher(stop_at=before + 1))
    assert stopped.stopped
    assert stopped.n_iter == before + 1


def test_the_bound_after_moves_is_that_of_the_model():
    """With a reg_covar that is large for the data likelihoods fall, and an earlier one is not that of the model."""
    X = three_clusters(600) * 0.3
    for seed in range(6):
        model = GaussianMixture(4, reg_covar=0.5, n_moves=3, random_state=seed, max_iter=300).fit(X)
        assert model.lower_bound_ == pytest.approx(model.score(X), abs=5e-3)


def test_an_interrupted_move_keeps_the_optimum():
    X = three_clusters()
    stuck = run(ArraySource(X), badly_started())
    means = stuck.parameters.means.copy()

    def interrupt(source, parameters, **options):
        raise KeyboardInterrupt

    result = improve(ArraySource(X), stuck, interrupt, 1, Watcher())
    assert result.interrupted
    assert not result.converged
    np.testing.assert_array_equal(result.parameters.means, means)


def test_equal_components_are_merged_first_and_two_clusters_split_first():
    X, parameters = three_clusters(), badly_started()
    assert least_merge(parameters)[0] == (0, 1)
    assert least_gaussian(parameters, ArraySource(X))[0] == 2
    assert sorted(least_merge(random_parameters("tied", 4, 3))) == [(i, j) for i in range(4) for j in range(i + 1, 4)]


@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])
def test_a_split_and_a_merge_keep_mean_and_covariance_of_the_whole(covariance_type):
    parameters = random_parameters(covariance_type, 5, 3)
    moved = split_and_merge(parameters, 3, 1, 2)
    for p in (parameters, moved):
        assert p.weights.sum() == pytest.approx(1)

    def whole(p):
        mean = p.weights @ p.means
        within = np.einsum("k,kde->de", p.weights, full_covariances(p))
        total = within + (p.weights[:, None] * (p.means - mean)).T @ (p.means - mean)
        return mean, total if covariance_type != "diag" else total.diagonal()

    for before, after in zip(whole(parameters), whole(moved), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_component_that_a_sample_has_not_seen_is_born(covariance_type):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(100_000, 3)), rng.normal(size=(60, 3)) + 20.0])
    common = rng.normal(size=(5_000, 3))
    start = random_parameters(covariance_type, 3, 3)
    fitted = run(ArraySource(common), start).parameters
    born, statistics = birth(ArraySource(X), ArraySource(common), fitted)
    assert born is not fitted
    assert score_samples(born, X).mean() > score_samples(fitted, X).mean()
    assert statistics.mean_log_likelihood == pytest.approx(score_samples(born, X).mean())
    k = born.weights.argmin()
    assert 20 <= round(born.weights[k] * len(X)) <= 60  # the largest of three clusters of them
    assert np.abs(born.means[k] - 20).max() < 1
    assert em.run(ArraySource(X), born, tol=1e-6, max_iter=100, reg_covar=1e-6).parameters.weights[k] == pytest.approx(
        60 / len(X)
    )
    weights = np.ones(len(X))
    weights[-60:] = 0
    here = birth(ArraySource(X, weights), ArraySource(common), fitted)
    assert here.parameters is fitted  # these rows do not exist
    assert here.statistics.total_weight == 100_000


def test_nothing_is_born_of_rows_like_the_samples():
    X = three_clusters(60_000)
    source = ArraySource(X)
    for seed in range(3):
        some = sample(source, 5_000, Stream(seed))
        fitted = run(some, badly_started()).parameters
        here = birth(source, some, fitted)
        assert here.parameters is fitted
        assert here.statistics.log_likelihood == accumulate(fitted, X).log_likelihood
    alone = random_parameters("full", 1, 2)
    assert birth(source, some, alone) == (alone, None)  # nothing to merge


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_pass_that_looks_for_bad_rows_is_a_pass_of_em(covariance_type, weighted, monkeypatch, tmp_path):
    """Whatever it is made in: one block, slices of it, blocks that are read."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(20_000, 3)), rng.normal(size=(60, 3)) + 20.0, rng.normal(size=(3_000, 3))])
    weights = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    fitted = random_parameters(covariance_type, 3, 3)
    desired = accumulate(fitted, X, weights)
    bound = np.quantile(score_samples(fitted, X), 0.02)
    below = (score_samples(fitted, X) < bound) & (True if weights is None else weights > 0)

    def by_contents(rows):
        return rows[np.lexsort(rows.T)]

    def swept(source, most=np.inf):
        return source.reduce(partial(births._sweep_noting, fitted, bound, most_resident=most))

    whole = swept(ArraySource(X, weights))
    np.testing.assert_array_equal(whole.worst.X, by_contents(X[below]))
    monkeypatch.setattr(births, "ROWS_A_SLICE", 4_096)
    np.save(tmp_path / "x.npy", X)
    blocks = rows(tmp_path / "x.npy", weight=weights, block_bytes=24 * 5_000)
    for found in (whole, swept(ArraySource(X, weights)), swept(blocks)):
        np.testing.assert_array_equal(found.worst.X, by_contents(X[below]))
        assert (found.worst.sample_weight is None) == (weights is None)
        if weighted:
            np.testing.assert_array_equal(found.worst.sample_weight, weights[below][np.lexsort(X[below].T)])
        assert found.statistics.log_likelihood == pytest.approx(desired.log_likelihood, rel=1e-12)
        again, other = (maximise(statistics, covariance_type) for statistics in (found.statistics, desired))
        np.testing.assert_allclose(again.means, other.means, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(again.covariances, other.covariances, rtol=1e-9, atol=1e-12)
    few = swept(ArraySource(X, weights), most=10).worst.X
    assert 10 <= len(few) < below.sum()
    np.testing.assert_array_equal(few, by_contents(X[below][: len(few)]))


def test_rows_that_fit_badly_are_the_same_in_whatever_order_parts_come():
    rng = np.random.default_rng(0)
    parameters, X = random_parameters("diag", 2, 3), rng.normal(size=(3_000, 3))
    weights = rng.integers(0, 3, len(X)).astype(float)
    bound = np.quantile(score_samples(parameters, X), 0.1)
    parts = [
        births._sweep_noting(parameters, bound, X[start : start + 500], weights[start : start + 500], most_resident=1e9)
        for start in range(0, 3_000, 500)
    ]
    one, other = sum(parts[1:], start=parts[0]).worst, sum(parts[-2::-1], start=parts[-1]).worst
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.sample_weight, other.sample_weight)


def test_a_first_pass_keeps_the_digits_of_tied_components_far_apart():
    """Rows in order: those of the first slice alone would take the short way, about a point far from the others."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300_000, 2)), rng.normal(size=(300_000, 2)) + 1e8])
    model = GaussianMixture(2, covariance_type="tied", random_state=0).fit(X)
    np.testing.assert_allclose(model.lower_bounds_, model.lower_bound_, atol=0.1)
    np.testing.assert_allclose(model.covariances_, np.eye(2), atol=0.02)


def test_a_birth_that_lowers_the_likelihood_is_refused(monkeypatch):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(50_000, 2)), rng.normal(size=(40, 2)) + 9])
    common = ArraySource(rng.normal(size=(4_000, 2)))
    fitted = run(common, random_parameters("full", 3, 2)).parameters
    assert birth(ArraySource(X), common, fitted).parameters is not fitted
    monkeypatch.setattr(births, "merge_and_put", lambda parameters, *_: random_parameters("full", 3, 2, spread=100.0))
    assert birth(ArraySource(X), common, fitted).parameters is fitted


def test_a_rare_cluster_is_found_by_a_whole_fit():
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(size=(400_000, 2)), rng.normal(size=(400_000, 2)) + 5, rng.normal(size=(40, 2)) - 30])
    for seed in range(3):
        model = GaussianMixture(3, random_state=seed).fit(X)
        assert model.weights_.min() == pytest.approx(40 / len(X), rel=0.1)


@pytest.mark.parametrize("covariance_type", FOURTEEN)
def test_one_component_more_is_put_where_one_has_two_clusters(covariance_type):
    """Also where the model sees a sphere, or rows along the axes."""
    X = three_clusters(600)
    two = GaussianMixture(2, covariance_type=covariance_type, random_state=0, tol=1e-6, max_iter=500).fit(X)
    three = one_more(ArraySource(X), two._parameters(), 1e-6)
    assert three.covariance_type == covariance_type
    assert three.weights.sum() == pytest.approx(1)
    end = run(ArraySource(X), three)
    truth = run(ArraySource(X), GaussianMixture(
        3, covariance_type=covariance_type, resp_init=np.arange(600) % 3).fit(X)._parameters())  # fmt: skip
    assert end.lower_bound == pytest.approx(truth.lower_bound, abs=1e-4)


def test_one_more_of_weighted_rows_is_that_of_copies():
    X, copies = three_clusters(300), np.random.default_rng(0).integers(0, 3, 300)
    one = GaussianMixture().fit(X)._parameters()
    weighted = one_more(ArraySource(X, copies.astype(float)), one, 1e-6)
    repeated = one_more(ArraySource(np.repeat(X, copies, axis=0)), one, 1e-6)
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-8)
    single = one_more(ArraySource(X.astype(np.float32)), one, 1e-6)
    np.testing.assert_allclose(single.means, one_more(ArraySource(X), one, 1e-6).means, rtol=1e-3, atol=1e-3)


def test_there_is_no_component_more_where_each_would_collapse():
    X = np.repeat(np.eye(2), 20, axis=0)
    two = MixtureParameters.create([0.5, 0.5], np.eye(2), np.tile(np.eye(2) / 100, (2, 1, 1)))
    assert one_more(ArraySource(X), two, 0.0) is None


def test_components_that_are_two_clusters_do_not_look_like_gaussians():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2)) + 6 * rng.integers(0, 4, (20_000, 1))
    source = ArraySource(X)
    four, two = (fit_quietly(GaussianMixture(k, random_state=0), X)._parameters() for k in (4, 2))
    assert look_gaussian(four, source)
    assert not look_gaussian(two, source)
    assert look_gaussian(two, ArraySource(X[:8]))  # no telling
    weighted = ArraySource(X, np.full(len(X), 1e-3))  # the number of rows counts, whatever their weights
    assert not look_gaussian(two, weighted)
