"""Moves: they find optima that EM cannot reach, and never lower the likelihood."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.covariance import MCLUST_MODELS
from fastgmm.data.sources import ArraySource
from fastgmm.engine import MixtureParameters
from fastgmm.fitting import schedule
from fastgmm.fitting import split_merge as moves
from fastgmm.fitting.run_state import EMResult
from fastgmm.fitting.split_merge import LIGHT, add_component, improve
from helpers import COVARIANCE_TYPES, badly_started, covariances_in_form, random_parameters, run_em, three_clusters


class RecordingObserver:
    """Records what it is told of a fit; stops it at a pass."""

    def __init__(self, stop_at=None):
        self.notes, self.seen, self.stop_at = [], [], stop_at

    def note(self, text):
        self.notes.append(text)

    def on_iteration(self, result):
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
    better = improve(source, stuck, run, 3, RecordingObserver())
    assert better.lower_bound == pytest.approx(best.lower_bound, abs=1e-4)
    step = run(source, better.parameters, tol=0, max_iter=1)
    assert better.lower_bound == pytest.approx(step.lower_bound, abs=1e-5)  # the bound of the parameters
    assert better.converged
    assert better.n_iter > before  # every pass over all rows counts


def test_a_discarded_move_changes_only_the_number_of_passes():
    X = three_clusters()
    best = run(ArraySource(X), badly_started())
    best = improve(ArraySource(X), best, run, 3, RecordingObserver())
    means = best.parameters.means.copy()
    passes = best.n_iter
    again = improve(ArraySource(X), best, run, 3, observer := RecordingObserver())
    np.testing.assert_array_equal(again.parameters.means, means)
    assert again.converged
    assert again.n_iter == passes + len(observer.seen)
    single = ArraySource(X[:, :1])
    assert improve(
        single, run(single, random_parameters("full", 2, 1)), run, 2, RecordingObserver()
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


def test_passes_of_moves_are_reported_and_can_be_stopped():
    X = three_clusters()
    stuck = run(ArraySource(X), badly_started())
    before, observer = stuck.n_iter, RecordingObserver()
    moved = improve(ArraySource(X), stuck, run, 1, observer)
    assert [n for n, _ in observer.seen] == list(range(before + 1, moved.n_iter + 1))
    assert observer.seen[-1][1] == moved.lower_bound
    assert observer.notes[0].startswith("Move 1: kept, ")
    stuck = run(ArraySource(X), badly_started())
    stopped = improve(ArraySource(X), stuck, run, 5, RecordingObserver(stop_at=before + 1))
    assert stopped.stopped
    assert stopped.n_iter == before + 1


def test_the_bound_after_moves_is_that_of_the_model():
    """With a large reg_covar the likelihood falls in every step, so an earlier bound would be too high."""
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

    result = improve(ArraySource(X), stuck, interrupt, 1, RecordingObserver())
    assert result.interrupted
    assert not result.converged
    np.testing.assert_array_equal(result.parameters.means, means)


def test_a_light_move_keeps_to_the_passes_that_are_left():
    X = three_clusters()
    bounds = {}
    for left in (2, 6, 500):
        stuck = run(ArraySource(X), badly_started())
        before, bound = stuck.n_iter, stuck.lower_bound
        moved = improve(ArraySource(X), stuck, run, 1, observer := RecordingObserver(), budget=LIGHT, max_iter=left)
        assert moved.n_iter <= before + left
        assert moved.n_iter == before + len(observer.seen) == len(moved.lower_bounds)
        assert moved.converged
        assert moved.lower_bound >= bound
        bounds[left] = moved.lower_bound - bound
    assert bounds[2] == 0
    assert bounds[500] > 0.1


def test_a_light_move_is_discarded_if_it_is_not_higher():
    X = three_clusters()
    best = run(ArraySource(X), badly_started())
    best = improve(ArraySource(X), best, run, 3, RecordingObserver())
    bound, before, means = best.lower_bound, best.n_iter, best.parameters.means.copy()
    tried = []

    def counted(source, parameters, **options):
        tried.append(options.get("tol"))
        return run(source, parameters, **options)

    again = improve(ArraySource(X), best, counted, 4, RecordingObserver(), budget=LIGHT, max_iter=500)
    np.testing.assert_array_equal(again.parameters.means, means)
    assert again.lower_bound == bound
    assert again.converged
    assert again.n_iter >= before
    assert None not in tried  # no move was run to its end


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_light_moves_do_not_lower_the_end_of_fits_to_a_fine_tolerance(covariance_type):
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


def test_light_moves_are_tried_only_with_a_fine_tolerance_and_many_rows(monkeypatch):
    X, budgets, improve = three_clusters(), [], moves.improve

    def noted(*arguments, budget=moves.THOROUGH, **options):
        budgets.append(budget)
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
        budgets.clear()
        model = GaussianMixture(3, random_state=0, max_iter=500, **options).fit(X[:n_samples])
        assert budgets == expected
        assert model.n_iter_ == len(model.lower_bounds_)


@pytest.mark.parametrize(("variance", "kept"), [(1e-6, False), (0.1, True)])
def test_a_move_to_a_flat_component_is_not_kept(variance, kept, monkeypatch):
    """The likelihood of a flat component depends on reg_covar alone."""
    X = three_clusters()
    stuck = run(ArraySource(X), badly_started())
    covariances = np.concatenate([stuck.parameters.covariances[:2], [np.diag([variance, 1.0])]])
    moved = MixtureParameters.create(stuck.parameters.weights, stuck.parameters.means, covariances)
    trial = EMResult(moved, converged=True)
    trial.record(moved, stuck.lower_bound + 1, step=True)
    monkeypatch.setattr(moves, "_run_to_end", lambda *_: trial)
    means, bound = stuck.parameters.means, stuck.lower_bound
    end = improve(ArraySource(X), stuck, run, 1, RecordingObserver(), reg_covar=1e-6)
    np.testing.assert_array_equal(end.parameters.means, means)
    assert (end.parameters is moved) == kept
    assert end.lower_bound == bound + kept


@pytest.mark.parametrize("covariance_type", MCLUST_MODELS)
def test_a_component_is_added_where_one_has_two_clusters(covariance_type):
    """Also if the covariance model is a sphere, or has its axes along the features."""
    X = three_clusters(600)
    two = GaussianMixture(2, covariance_type=covariance_type, random_state=0, tol=1e-6, max_iter=500).fit(X)
    three = add_component(ArraySource(X), two._parameters(), 1e-6)
    assert three.covariance_type == covariance_type
    assert three.weights.sum() == pytest.approx(1)
    end = run(ArraySource(X), three)
    truth = run(ArraySource(X), GaussianMixture(
        3, covariance_type=covariance_type, resp_init=np.arange(600) % 3).fit(X)._parameters())  # fmt: skip
    assert end.lower_bound == pytest.approx(truth.lower_bound, abs=1e-4)


def test_adding_a_component_to_weighted_rows_is_adding_it_to_copies():
    X, copies = three_clusters(300), np.random.default_rng(0).integers(0, 3, 300)
    one = GaussianMixture().fit(X)._parameters()
    weighted = add_component(ArraySource(X, copies.astype(float)), one, 1e-6)
    repeated = add_component(ArraySource(np.repeat(X, copies, axis=0)), one, 1e-6)
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-8)
    single = add_component(ArraySource(X.astype(np.float32)), one, 1e-6)
    np.testing.assert_allclose(single.means, add_component(ArraySource(X), one, 1e-6).means, rtol=1e-3, atol=1e-3)


def test_no_component_is_added_if_each_would_collapse():
    X = np.repeat(np.eye(2), 20, axis=0)
    two = MixtureParameters.create([0.5, 0.5], np.eye(2), np.tile(np.eye(2) / 100, (2, 1, 1)))
    assert add_component(ArraySource(X), two, 0.0) is None
