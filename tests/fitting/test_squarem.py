"""Acceleration: EM's fixed points in fewer passes, never a lower likelihood; the limit, callbacks and interrupts."""

import numpy as np
import pytest

import fastgmm.fitting.starts
from fastgmm import GaussianMixture
from fastgmm.covariance import get_model
from fastgmm.data.sources import ArraySource
from fastgmm.engine import IllDefinedCovarianceError, MixtureParameters
from fastgmm.fitting import em, run_state
from fastgmm.fitting.squarem import BEGIN_BELOW, MAX_REGULARISED_PART, Squarem
from fastgmm.initialization.registry import initial_parameters
from fastgmm.kernels.em_runs.trend import remaining_rise
from fastgmm.m_step import maximum_likelihood
from helpers import COVARIANCE_TYPES, blobs, random_parameters, run_em, start_of


def overlapping(seed=0, n_samples=2000, n_features=3, n_components=4):
    """Rows of components that overlap so much that EM is slow."""
    return blobs(seed, n_samples, n_features, n_components, separation=1.0)[0]


def run(X, parameters, sample_weight=None, **options):
    options = {"tol": 1e-7, "max_iter": 3000, "reg_covar": 1e-6, **options}
    return run_em(ArraySource(X, sample_weight), parameters, **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_squarem_reaches_the_likelihood_of_em_in_fewer_passes(covariance_type, weighted):
    passes = np.zeros(2)
    for seed in range(4):
        X = overlapping(seed)
        weights = np.random.default_rng(seed).integers(0, 4, size=len(X)).astype(float) if weighted else None
        start, _ = start_of(ArraySource(X, weights), 4, covariance_type=covariance_type, seed=seed)
        plain = run(X, start, weights)
        fast = run(X, start, weights, accelerator=Squarem(ArraySource(X, weights).total_weight, 1e-6))
        assert fast.converged
        assert np.diff(fast.lower_bounds).min() > -1e-10
        assert fast.lower_bound > plain.lower_bound - 1e-5
        passes += plain.n_iter, fast.n_iter
        # The end is a fixed point: an EM step from it hardly raises the bound.
        step = run(X, fast.parameters, weights, tol=0.0, max_iter=2)
        assert 0 <= step.lower_bounds[1] - fast.lower_bound < 1e-6
    assert passes[1] < passes[0] / 1.7


def test_steps_are_not_extrapolated_before_they_are_small():
    """A fit to a coarse tolerance is plain EM bit for bit, and one to a finer tolerance begins as plain EM."""
    X = overlapping()
    start, _ = start_of(ArraySource(X), 4)
    plain, fast = (run(X, start, tol=BEGIN_BELOW, accelerator=a) for a in (None, Squarem(len(X), 1e-6)))
    np.testing.assert_array_equal(plain.parameters.means, fast.parameters.means)
    assert plain.lower_bounds == fast.lower_bounds
    further = run(X, start, accelerator=Squarem(len(X), 1e-6))
    assert further.lower_bounds[: plain.n_iter] == plain.lower_bounds


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_coordinates_are_those_of_the_parameters(covariance_type):
    parameters = random_parameters(covariance_type, 3, 4)
    form = get_model(covariance_type).form
    frame = form.frame(parameters.weights, parameters.means, parameters.covariances)
    means, shapes = form.coordinates(parameters.means, parameters.covariances, frame)
    again = form.from_coordinates(means, shapes, frame)
    np.testing.assert_allclose(again[0], parameters.means, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(again[1], parameters.covariances, rtol=1e-12, atol=1e-13)
    anything = np.random.default_rng(0).normal(size=shapes.shape) * 3
    assert get_model(covariance_type).form.precisions_cholesky(form.from_coordinates(means, anything, frame)[1]).size


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_units_of_features_have_no_effect(covariance_type):
    X = overlapping()
    start, _ = start_of(ArraySource(X), 4, covariance_type=covariance_type, reg_covar=0.0)
    scale = np.full(3, 1000.0) if covariance_type == "spherical" else np.array([1e-3, 1.0, 1e4])
    shape = {"spherical": scale[0] ** 2, "diag": scale**2}.get(covariance_type, np.outer(scale, scale))
    scaled = MixtureParameters.create(start.weights, start.means * scale, start.covariances * shape, covariance_type)
    a, b = (
        run(rows, parameters, reg_covar=0.0, tol=1e-6, accelerator=Squarem(len(X), 0.0))
        for rows, parameters in ((X, start), (X * scale, scaled))
    )
    assert abs(a.n_iter - b.n_iter) <= 1  # rounding may move the last step
    np.testing.assert_allclose(b.lower_bound + np.log(scale).sum(), a.lower_bound, atol=1e-6)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_variances_near_reg_covar_cost_no_more_passes_than_plain_em(covariance_type):
    """A proposal may be higher than the fixed point of EM with `reg_covar`; steps from it then lower the bound."""
    passes, changes, reg_covar = np.zeros(2), [], 3e-3
    for seed in range(6):
        X = overlapping(seed)
        start, _ = start_of(ArraySource(X), 4, covariance_type=covariance_type, reg_covar=reg_covar, seed=seed)
        plain = run(X, start, reg_covar=reg_covar)
        fast = run(X, start, reg_covar=reg_covar, accelerator=Squarem(len(X), reg_covar))
        assert fast.converged
        assert fast.lower_bound > plain.lower_bound - 3e-4
        passes += plain.n_iter, fast.n_iter
        changes.append(fast.last_change)
    assert passes[1] < 0.6 * passes[0]
    assert min(changes) < 0


class Proposer:
    """Proposes what `make` returns, after every second step, and records the verdicts."""

    def __init__(self, make):
        self.make, self.verdicts, self.calls, self.begun = make, [], 0, True

    def propose(self, point, updated, rise):
        self.calls += 1
        return self.make(updated) if self.calls % 2 == 0 else None

    def judge(self, accepted):
        self.verdicts.append(accepted)


def far_away(parameters):
    return MixtureParameters.create(
        parameters.weights, parameters.means + 5, parameters.covariances, parameters.covariance_type
    )


def not_a_number(parameters):
    covariances = np.full_like(parameters.covariances, np.nan)
    return MixtureParameters(parameters.weights, parameters.means, covariances, covariances, parameters.covariance_type)


@pytest.mark.parametrize("make", [far_away, not_a_number])
def test_a_bad_proposal_only_costs_a_pass(make):
    X = overlapping()
    start, _ = start_of(ArraySource(X), 4)
    plain = run(X, start, tol=1e-4)
    proposer = Proposer(make)
    misled = run(X, start, tol=1e-4, accelerator=proposer)
    assert proposer.verdicts
    assert not any(proposer.verdicts)
    assert misled.n_iter == plain.n_iter + len(proposer.verdicts)
    np.testing.assert_array_equal(misled.parameters.means, plain.parameters.means)
    assert np.diff(misled.lower_bounds).min() >= 0
    assert misled.last_change == plain.last_change


def test_a_proposal_whose_m_step_collapses_is_rejected(monkeypatch, steps_from_python):
    X = overlapping()
    start, _ = start_of(ArraySource(X), 4)
    plain, proposer = run(X, start, tol=1e-4), Proposer(lambda parameters: parameters)
    maximise = maximum_likelihood.maximise

    def collapse(statistics, *arguments, **options):
        if proposer.calls % 2 == 0 and proposer.calls > 0 and len(proposer.verdicts) < proposer.calls // 2:
            raise IllDefinedCovarianceError([1])
        return maximise(statistics, *arguments, **options)

    monkeypatch.setattr(maximum_likelihood, "maximise", collapse)
    misled = run(X, start, tol=1e-4, accelerator=proposer)
    assert proposer.verdicts
    assert not any(proposer.verdicts)
    np.testing.assert_array_equal(misled.parameters.means, plain.parameters.means)


def test_small_and_regularised_components_are_not_extrapolated():
    X = overlapping()
    points = [start_of(ArraySource(X), 4, covariance_type="diag")[0]]
    for _ in range(2):
        points.append(run(X, points[-1], tol=0.0, max_iter=1).parameters)
    # Half of the components have too few rows, then variances too near to what is added to them.
    few = 2 * (3 + 1) / np.median(points[2].weights)
    large = MAX_REGULARISED_PART / np.median((points[2].precisions_cholesky ** 2).sum(axis=1))
    for total_weight, reg_covar in ((few, 0.0), (2000.0, large)):
        squarem = Squarem(total_weight, reg_covar)
        squarem.cap = 100.0
        assert squarem.propose(points[0], points[1], 0.0) is None
        proposal = squarem.propose(points[1], points[2], 0.0)
        moved = ~np.isclose(proposal.means, points[2].means, rtol=1e-12, atol=0)
        assert moved.any(axis=1).sum() == 2
        changed = ~np.isclose(proposal.covariances, points[2].covariances, rtol=1e-12, atol=0)
        assert changed.any(axis=1).sum() >= 2
        np.testing.assert_allclose(proposal.weights.sum(), 1)


def test_the_cap_grows_after_success_and_shrinks_after_failure():
    squarem = Squarem(1000.0, 0.0)
    squarem.reached = True
    squarem.judge(True)
    assert squarem.cap == 16
    for _ in range(5):
        squarem.judge(False)
    assert squarem.cap == 1
    X = overlapping()
    points = [start_of(ArraySource(X), 4)[0]]
    for _ in range(2):
        points.append(run(X, points[-1], tol=0.0, max_iter=1).parameters)
    assert squarem.propose(points[0], points[1], 0.0) is None
    assert squarem.propose(points[1], points[2], 0.0) is None  # a cap of 1 is no extrapolation
    assert squarem.cap == 4


def test_the_limit_of_a_geometric_series_is_known():
    parameters = random_parameters("full", 2, 2)
    result = run_state.EMResult(parameters)
    for i in range(8):
        result.record(parameters, -1 - 0.5**i, step=True)
    np.testing.assert_allclose(result.lower_bound + result.remaining, -1)
    result.record(parameters, -1 - 0.5**7 + 0.4 * 0.5**7, step=True)  # one faster rise: the slower ratios decide
    np.testing.assert_allclose(result.remaining, 0.4 * 0.5**7)
    assert remaining_rise(1.0, 1.0) == np.inf  # rises that do not shrink
    assert remaining_rise(0.0, 0.5) == 0
    assert remaining_rise(-0.1, 0.5) == np.inf
    short = run_state.EMResult(parameters)
    for bound in (-3.0, -2.0):
        short.record(parameters, bound, step=True)
    assert short.remaining == np.inf  # two bounds have one rise


@pytest.mark.parametrize("acceleration", [None, "squarem"])
def test_the_estimated_distance_to_the_limit_is_about_right(acceleration):
    X = overlapping(n_samples=5000)
    options = {"random_state": 0, "max_iter": 5000, "acceleration": acceleration}
    limit = GaussianMixture(4, tol=1e-12, **options).fit(X).lower_bound_
    loose = GaussianMixture(4, tol=1e-3, **options).fit(X)
    near = GaussianMixture(4, tol=1e-3, limit_tol=1e-4, **options).fit(X)
    assert near.converged_
    assert near.remaining_ < 1e-4
    assert near.n_iter_ > loose.n_iter_
    assert loose.lower_bound_ < limit - 0.1  # small steps, and far from the limit
    assert limit - 1e-3 < near.lower_bound_ < limit


def test_the_callback_is_called_after_every_pass_and_can_stop(recwarn):
    X, seen = overlapping(), []

    def watch(n_iter, lower_bound, parameters):
        seen.append((n_iter, lower_bound, parameters.means.copy()))
        return n_iter == 4

    model = GaussianMixture(4, random_state=0, tol=0, callback=watch, n_init=3).fit(X)
    assert [n for n, _, _ in seen] == [1, 2, 3, 4]
    assert [bound for _, bound, _ in seen] == model.lower_bounds_
    np.testing.assert_array_equal(seen[-1][2], model.means_)
    assert model.n_iter_ == 4
    assert not model.converged_
    assert not recwarn.list  # no warning: the user has stopped the fit
    with pytest.raises(ValueError, match="callback"):
        GaussianMixture(callback=3).fit(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_interrupt_leaves_the_best_so_far():
    X = overlapping()

    def interrupt(n_iter, lower_bound, parameters):
        if n_iter == 3:
            raise KeyboardInterrupt

    whole = GaussianMixture(4, random_state=0, tol=0, max_iter=3, acceleration=None).fit(X)
    for method in ("fit", "fit_predict"):
        model = GaussianMixture(4, random_state=0, tol=0, acceleration="squarem", callback=interrupt)
        with pytest.raises(KeyboardInterrupt, match="3 passes"):
            getattr(model, method)(X)
        np.testing.assert_array_equal(model.means_, whole.means_)
        assert not model.converged_
        assert model.n_iter_ == 3
        assert model.predict(X).shape == (len(X),)


def test_an_interrupted_restart_keeps_a_better_earlier_one():
    X, calls = overlapping(), []

    def interrupt(n_iter, lower_bound, parameters):
        calls.append(n_iter)
        if len(calls) == 21:  # the first pass of the second run
            raise KeyboardInterrupt

    model = GaussianMixture(4, random_state=0, tol=0, max_iter=20, n_init=3, callback=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert model.n_iter_ == 20
    assert not model.converged_


def test_an_interrupt_of_a_later_start_keeps_an_earlier_fit(monkeypatch):
    """It is interrupted before its first pass, while the start is made."""
    X, starts = overlapping(), []

    def find(*arguments, **options):
        starts.append(1)
        if len(starts) == 2:
            raise KeyboardInterrupt
        return initial_parameters(*arguments, **options)

    monkeypatch.setattr(fastgmm.fitting.starts, "initial_parameters", find)
    model = GaussianMixture(4, random_state=0, n_init=3)
    with pytest.raises(KeyboardInterrupt, match="passes"):
        model.fit(X)
    assert model.n_iter_ > 1
    assert not model.converged_


def test_a_large_fall_does_not_begin_the_acceleration():
    parameters = random_parameters("full", 2, 2)
    squarem = Squarem(1000.0, 0.0)
    for change in (np.inf, 0.1, -0.1, np.nan):
        squarem.propose(parameters, parameters, change)
        assert not squarem.begun
    squarem.propose(parameters, parameters, -1e-4)
    assert squarem.begun


def test_an_interrupt_before_the_first_pass_changes_nothing(monkeypatch, steps_from_python):
    X = overlapping()
    model = GaussianMixture(4, random_state=0).fit(X)
    before = model.means_.copy()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(em, "full_pass", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X + 1)
    np.testing.assert_array_equal(model.means_, before)


def test_the_unit_of_weights_has_no_effect():
    X = overlapping()
    weights = np.random.default_rng(0).uniform(size=len(X))
    models = [
        GaussianMixture(4, random_state=0, tol=1e-6, max_iter=500).fit(X, sample_weight=weights * unit)
        for unit in (1.0, 1 / weights.sum())
    ]
    assert models[0].n_iter_ == models[1].n_iter_
    np.testing.assert_allclose(models[0].means_, models[1].means_, rtol=1e-8)


def test_a_warning_names_a_limit_that_was_not_reached():
    with pytest.warns(UserWarning, match=r"the limit is not nearer than .*, and limit_tol is 1e-12"):
        GaussianMixture(4, random_state=0, limit_tol=1e-12, max_iter=40).fit(overlapping())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_plateau_at_rounding_is_the_limit(dtype):
    for n_components in (1, 2, 3):
        for seed in range(5):
            X = blobs(seed, 1000, 3, n_components, separation=8.0)[0].astype(dtype)
            model = GaussianMixture(n_components, random_state=seed, limit_tol=1e-3, max_iter=200).fit(X)
            assert model.converged_
            assert model.remaining_ < 1e-3
