"""Splits and merges: what EM cannot find again, and never a lower likelihood."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.covariance import MCLUST_MODELS
from fastgmm.data.sources import ArraySource
from fastgmm.engine import MixtureParameters, predict_proba
from fastgmm.fitting import schedule
from fastgmm.fitting import split_merge as moves
from fastgmm.fitting.component_moves import components_by_shape, full_moments, pairs_by_merge_loss, split_and_merge
from fastgmm.fitting.run_state import EMResult
from fastgmm.fitting.split_merge import LIGHT, add_component, improve
from helpers import COVARIANCE_TYPES, covariances_in_form, full_covariances, random_parameters, run_em


def three_clusters(n_samples=3000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 2)) + 8.0 * np.array([[0, 0], [1, 0], [0, 1]])[np.arange(n_samples) % 3]


def badly_started(covariance_type="full"):
    """Two components in one cluster, and one for two."""
    full = np.array([np.eye(2), np.eye(2), [[17.0, -16.0], [-16.0, 17.0]]])
    covariances = {"full": full, "tied": full.mean(axis=0), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    means = np.array([[-0.5, 0.0], [0.5, 0.0], [4.0, 4.0]])
    return MixtureParameters.create([1 / 6, 1 / 6, 2 / 3], means, covariances[covariance_type], covariance_type)


class FitObserver:
    """Remembers what it is told; stops at a pass."""

    def __init__(self, stop_at=None):
        self.notes, self.seen, self.stop_at = [], [], stop_at

    def note(self, text):
        self.notes.append(text)

    def iteration(self, result):
        self.seen.append((result.n_iter, result.lower_bound))
        return result.n_iter == self.stop_at


def run(source, parameters, **options):
    return run_em(source, parameters, **{"tol": 1e-6, "max_iter": 500, "reg_covar": 1e-6, **options})


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
    better = improve(source, stuck, run, 3, FitObserver())
    assert better.lower_bound == pytest.approx(best.lower_bound, abs=1e-4)
    step = run(source, better.parameters, tol=0, max_iter=1)
    assert better.lower_bound == pytest.approx(step.lower_bound, abs=1e-5)  # that of the parameters
    assert better.converged
    assert better.n_iter > before  # every pass over all rows counts


def test_moves_that_lead_nowhere_change_nothing_but_the_count_of_passes():
    X = three_clusters()
    best = run(ArraySource(X), badly_started())
    best = improve(ArraySource(X), best, run, 3, FitObserver())
    means = best.parameters.means.copy()
    passes = best.n_iter
    again = improve(ArraySource(X), best, run, 3, observer := FitObserver())
    np.testing.assert_array_equal(again.parameters.means, means)
    assert again.converged
    assert again.n_iter == passes + len(observer.seen)
    single = ArraySource(X[:, :1])
    assert improve(
        single, run(single, random_parameters("full", 2, 1)), run, 2, FitObserver()
    ).converged  # nothing to move


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
    before, observer = stuck.n_iter, FitObserver()
    moved = improve(ArraySource(X), stuck, run, 1, observer)
    assert [n for n, _ in observer.seen] == list(range(before + 1, moved.n_iter + 1))
    assert observer.seen[-1][1] == moved.lower_bound
    assert observer.notes[0].startswith("Move 1: kept, ")
    stuck = run(ArraySource(X), badly_started())
    stopped = improve(ArraySource(X), stuck, run, 5, FitObserver(stop_at=before + 1))
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

    result = improve(ArraySource(X), stuck, interrupt, 1, FitObserver())
    assert result.interrupted
    assert not result.converged
    np.testing.assert_array_equal(result.parameters.means, means)


def test_a_light_move_keeps_to_the_passes_that_are_left():
    X = three_clusters()
    bounds = {}
    for left in (2, 6, 500):
        stuck = run(ArraySource(X), badly_started())
        before, bound = stuck.n_iter, stuck.lower_bound
        moved = improve(ArraySource(X), stuck, run, 1, observer := FitObserver(), budget=LIGHT, max_iter=left)
        assert moved.n_iter <= before + left
        assert moved.n_iter == before + len(observer.seen) == len(moved.lower_bounds)
        assert moved.converged
        assert moved.lower_bound >= bound
        bounds[left] = moved.lower_bound - bound
    assert bounds[2] == 0
    assert bounds[500] > 0.1


def test_a_light_move_is_given_up_where_it_is_not_higher():
    X = three_clusters()
    best = run(ArraySource(X), badly_started())
    best = improve(ArraySource(X), best, run, 3, FitObserver())
    bound, before, means = best.lower_bound, best.n_iter, best.parameters.means.copy()
    tried = []

    def counted(source, parameters, **options):
        tried.append(options.get("tol"))
        return run(source, parameters, **options)

    again = improve(ArraySource(X), best, counted, 4, FitObserver(), budget=LIGHT, max_iter=500)
    np.testing.assert_array_equal(again.parameters.means, means)
    assert again.lower_bound == bound
    assert again.converged
    assert again.n_iter >= before
    assert None not in tried  # no move was run to its end


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_fine_fits_end_no_lower_for_their_light_move(covariance_type):
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(400, 2)) * (i + 1) + 4 * rng.normal(size=2) for i in range(5)])
    for seed in range(4):
        fits = {
            name: GaussianMixture(
                5, covariance_type=covariance_type, acceleration=name, tol=1e-5, max_iter=600, random_state=seed
            ).fit(X)
            for name in ("progressive", "squarem")
        }
        assert fits["progressive"].lower_bound_ >= fits["squarem"].lower_bound_
        assert fits["progressive"].converged_


def test_light_moves_are_for_fine_fits_to_many_rows(monkeypatch):
    X, efforts, improve = three_clusters(), [], moves.improve

    def noted(*arguments, budget=moves.THOROUGH, **options):
        efforts.append(budget)
        return improve(*arguments, budget=budget, **options)

    monkeypatch.setattr(schedule, "improve", noted)
    cases = [
        (3000, {"tol": 1e-5}, [LIGHT]),
        (900, {"tol": 1e-5}, []),
        (3000, {"tol": 1e-3}, []),
        (3000, {"tol": 1e-5, "acceleration": "squarem"}, []),
        (3000, {"tol": 1e-5, "acceleration": None}, []),
        (3000, {"tol": 1e-5, "means_init": badly_started().means}, []),
        (3000, {"tol": 1e-5, "n_moves": 2}, [moves.THOROUGH]),
    ]
    for n_samples, options, expected in cases:
        efforts.clear()
        model = GaussianMixture(3, random_state=0, max_iter=500, **options).fit(X[:n_samples])
        assert efforts == expected
        assert model.n_iter_ == len(model.lower_bounds_)


@pytest.mark.parametrize(("variance", "kept"), [(1e-6, False), (0.1, True)])
def test_a_move_to_a_flat_component_is_not_kept(variance, kept, monkeypatch):
    """Rows that are equal make a component whose likelihood is as high as reg_covar is small."""
    X = three_clusters()
    stuck = run(ArraySource(X), badly_started())
    covariances = np.concatenate([stuck.parameters.covariances[:2], [np.diag([variance, 1.0])]])
    moved = MixtureParameters.create(stuck.parameters.weights, stuck.parameters.means, covariances)
    trial = EMResult(moved, [stuck.lower_bound + 1], converged=True, bound=stuck.lower_bound + 1)
    monkeypatch.setattr(moves, "_run_to_end", lambda *_: trial)
    means, bound = stuck.parameters.means, stuck.lower_bound
    end = improve(ArraySource(X), stuck, run, 1, FitObserver(), reg_covar=1e-6)
    np.testing.assert_array_equal(end.parameters.means, means)
    assert (end.parameters is moved) == kept
    assert end.lower_bound == bound + kept


def test_equal_components_are_merged_first_and_two_clusters_split_first():
    X, parameters = three_clusters(), badly_started()
    assert pairs_by_merge_loss(parameters)[0] == (0, 1)
    resp = predict_proba(parameters, X)
    assert components_by_shape(resp, ArraySource(X), *full_moments(parameters))[0] == 2
    assert sorted(pairs_by_merge_loss(random_parameters("tied", 4, 3))) == [
        (i, j) for i in range(4) for j in range(i + 1, 4)
    ]


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


@pytest.mark.parametrize("covariance_type", MCLUST_MODELS)
def test_one_component_more_is_put_where_one_has_two_clusters(covariance_type):
    """Also where the model sees a sphere, or rows along the axes."""
    X = three_clusters(600)
    two = GaussianMixture(2, covariance_type=covariance_type, random_state=0, tol=1e-6, max_iter=500).fit(X)
    three = add_component(ArraySource(X), two._parameters(), 1e-6)
    assert three.covariance_type == covariance_type
    assert three.weights.sum() == pytest.approx(1)
    end = run(ArraySource(X), three)
    truth = run(ArraySource(X), GaussianMixture(
        3, covariance_type=covariance_type, resp_init=np.arange(600) % 3).fit(X)._parameters())  # fmt: skip
    assert end.lower_bound == pytest.approx(truth.lower_bound, abs=1e-4)


def test_one_more_of_weighted_rows_is_that_of_copies():
    X, copies = three_clusters(300), np.random.default_rng(0).integers(0, 3, 300)
    one = GaussianMixture().fit(X)._parameters()
    weighted = add_component(ArraySource(X, copies.astype(float)), one, 1e-6)
    repeated = add_component(ArraySource(np.repeat(X, copies, axis=0)), one, 1e-6)
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-8)
    single = add_component(ArraySource(X.astype(np.float32)), one, 1e-6)
    np.testing.assert_allclose(single.means, add_component(ArraySource(X), one, 1e-6).means, rtol=1e-3, atol=1e-3)


def test_there_is_no_component_more_where_each_would_collapse():
    X = np.repeat(np.eye(2), 20, axis=0)
    two = MixtureParameters.create([0.5, 0.5], np.eye(2), np.tile(np.eye(2) / 100, (2, 1, 1)))
    assert add_component(ArraySource(X), two, 0.0) is None
