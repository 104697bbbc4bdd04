"""Which runs make a fit: samples first, short runs of several starts, restarts; deterministic, and no worse."""

from functools import partial

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.engine import IllDefinedCovarianceError, MixtureParameters
from fastgmm.fitting import em, sample_sizes, samples
from fastgmm.fitting.options import ACCELERATIONS, FitOptions
from fastgmm.fitting.run_state import EMResult
from fastgmm.fitting.samples import start_from_samples
from fastgmm.fitting.short_runs import short_runs
from fastgmm.fitting.squarem import Squarem
from fastgmm.fitting.starts import Starts
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from helpers import COVARIANCE_TYPES, blobs, fit_quietly, run_em

MANY = 100_000


class Silent:
    """A observer that remembers."""

    def __init__(self):
        self.notes, self.passes, self.distinct = [], 0, []

    def start(self, init):
        pass

    def note(self, text):
        self.notes.append(text)

    def iteration(self, result):
        self.passes += 1
        return False

    def end(self, result):
        pass

    def duplicates(self, n_distinct):
        self.distinct.append(n_distinct)


@pytest.fixture(scope="module")
def many():
    return blobs(3, n_samples=MANY, n_features=2, n_components=5, separation=6.0)[0]


@pytest.fixture
def long_samples(monkeypatch):
    """However short EM is, samples are fitted."""
    monkeypatch.setattr(samples, "MAX_CHEAP_STEPS", 0)


@pytest.mark.usefixtures("long_samples")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_fit_that_begins_with_a_sample_ends_where_others_do(covariance_type, weighted, many):
    weights = np.random.default_rng(0).integers(1, 4, MANY).astype(float) if weighted else None
    options = {"covariance_type": covariance_type, "random_state": 0, "tol": 1e-7, "max_iter": 3000}
    model, plain = (
        GaussianMixture(5, acceleration=name, **options).fit(many, sample_weight=weights)
        for name in ("progressive", "squarem")
    )
    assert model.converged_
    assert model.lower_bound_ > plain.lower_bound_ - 1e-4
    # The last stage is EM on all rows: its fixed points are.
    step = GaussianMixture(5, acceleration=None, **{**options, "tol": 0, "max_iter": 2}, warm_start=True)
    step.__dict__.update({k: v for k, v in model.__dict__.items() if k.endswith("_")})
    fit_quietly(step, many, sample_weight=weights)
    assert 0 <= step.lower_bounds_[1] - model.lower_bound_ < 1e-6


@pytest.mark.usefixtures("long_samples")
def test_a_fit_that_begins_with_a_sample_takes_fewer_passes(many):
    passes = np.zeros((4, 2))
    for i, covariance_type in enumerate(COVARIANCE_TYPES):
        for j, name in enumerate(("progressive", "squarem")):
            model = GaussianMixture(5, covariance_type=covariance_type, acceleration=name, random_state=0).fit(many)
            passes[i, j] = model.n_iter_
    assert passes[:, 0].sum() < 0.6 * passes[:, 1].sum()


def test_a_seed_means_one_fit_and_float32_rows_a_near_one(many):
    first, second = (GaussianMixture(5, random_state=3).fit(many) for _ in range(2))
    np.testing.assert_array_equal(first.means_, second.means_)
    one_thread = GaussianMixture(5, random_state=3, n_jobs=1).fit(many)
    np.testing.assert_array_equal(first.means_, one_thread.means_)
    single = GaussianMixture(5, random_state=3).fit(many.astype(np.float32))
    assert single.means_.dtype == np.float32
    assert single.lower_bound_ == pytest.approx(first.lower_bound_, abs=1e-3)


def test_what_is_given_is_where_a_fit_starts(many):
    """Nobody who gives means wants them replaced by those of a sample."""
    given = {"means_init": many[:5], "random_state": 0, "max_iter": 1, "tol": 0}
    model, plain = (fit_quietly(GaussianMixture(5, acceleration=a, **given), many) for a in ("progressive", None))
    np.testing.assert_array_equal(model.means_, plain.means_)


def test_samples_are_for_many_rows_only():
    rows = np.random.default_rng(0).normal(size=(80_000, 2))
    assert sample_sizes.growing(ArraySource(rows), 5, "full") == [10_000]
    assert sample_sizes.growing(ArraySource(rows[1:]), 5, "full") == []
    assert sample_sizes.growing(ArraySource(rows), 300, "full") == []  # a sample of 76,800
    assert sample_sizes.growing(ArraySource(rows), 300, "full", min_ratio=1) == [76_800]
    # Two rows that weigh more than all others: a sample would be of these.
    weights = np.ones(len(rows))
    weights[:2] = 1e6
    assert ArraySource(rows, weights).effective_rows == pytest.approx(2, rel=0.1)
    assert sample_sizes.growing(ArraySource(rows, weights), 5, "full") == []
    assert ArraySource(rows[:7], np.full(7, 1e-300)).effective_rows == pytest.approx(7)


def begin_from_samples(X, starts, observer, n_init=1, tol=1e-3):
    source, options = (
        ArraySource(X),
        FitOptions(MaximumLikelihood(), tol, 100, acceleration=ACCELERATIONS["progressive"]),
    )
    start, _ = starts.make(source, 0)
    return start_from_samples(source, starts, start, options, n_init, RandomStream(0), observer), start


@pytest.mark.usefixtures("long_samples")
def test_samples_grow_until_a_quarter_of_the_rows(monkeypatch):
    monkeypatch.setattr(sample_sizes, "ROWS", 200)
    X, _ = blobs(3, n_samples=60_000, n_features=2, n_components=2)
    found, _ = begin_from_samples(X, Starts(2, MaximumLikelihood("diag"), "kmeans"), observer := Silent())
    sizes = [int(note.split()[2]) for note in observer.notes if note.startswith("Sample")]
    # Two ends on the first; more rows than were drawn, since all of them have the outliers.
    assert len(sizes) == 4
    for size, drawn in zip(sizes, [512, 512, 2048, 8192], strict=True):
        assert drawn < size <= drawn + 512
    assert run_em(ArraySource(X), found.parameters, tol=1e-3, max_iter=10, reg_covar=1e-6).n_iter <= 3


@pytest.mark.usefixtures("long_samples")
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_samples_lead_no_lower_than_the_start(covariance_type, many):
    found, start = begin_from_samples(many, Starts(5, MaximumLikelihood(covariance_type), "kmeans"), Silent())
    before, after = (em.full_pass(ArraySource(many), parameters) for parameters in (start, found.parameters))
    assert after.log_likelihood > before.log_likelihood
    assert found.statistics.log_likelihood == after.log_likelihood


def test_a_sample_that_leads_nowhere_is_not_continued_from(many, monkeypatch):
    """A component that collapses on a sample, or a sample after which all rows are less likely than at the start."""
    starts, run = Starts(5, MaximumLikelihood("full"), "kmeans"), em.run

    def collapse(source, parameters, options, **keywords):
        raise IllDefinedCovarianceError([0])

    def astray(source, parameters, options, **keywords):
        worse = parameters.means + 3.0
        parameters = MixtureParameters.create(parameters.weights, worse, parameters.covariances, "full")
        return run(source, parameters, options, **{**keywords, "max_iter": 0})

    source = ArraySource(many)
    for broken in (collapse, astray):
        monkeypatch.setattr(em, "run", broken)
        found, start = begin_from_samples(many, starts, Silent())
        first = em.full_pass(source, start)
        stepped, bound = MaximumLikelihood().step(first, start)
        assert found.statistics is None
        assert found.lower_bound == pytest.approx(bound, rel=1e-12)
        np.testing.assert_allclose(found.parameters.means, stepped.means, rtol=1e-9)


def test_where_em_is_short_all_rows_are_as_fast(many):
    """Fewer steps than samples, other starts and their comparison cost."""
    clear, _ = blobs(3, n_samples=MANY, n_features=2, n_components=3, separation=30.0)
    options = {"n_components": 3, "random_state": 0}
    default, plain = (GaussianMixture(**options, acceleration=a).fit(clear) for a in ("progressive", None))
    np.testing.assert_allclose(default.means_, plain.means_, rtol=1e-9)
    assert default.n_iter_ == plain.n_iter_ - 1  # the first finds the outliers
    found, _ = begin_from_samples(clear, Starts(3, MaximumLikelihood("full"), "kmeans"), observer := Silent())
    assert found.statistics is None
    assert len(observer.notes) == 1


@pytest.mark.usefixtures("long_samples")
def test_of_two_ends_on_a_sample_the_better_is_continued_from(many, monkeypatch):
    """The start of plain EM is one of them; it may be the better, or the worse."""
    starts = Starts(5, MaximumLikelihood("full"), "kmeans")
    found, start = begin_from_samples(many, starts, Silent())
    bad = MixtureParameters.create(start.weights, np.tile(many.mean(axis=0), (5, 1)), start.covariances, "full")
    monkeypatch.setattr(samples, "short_runs", lambda *_, **__: (bad, 5))
    kept, _ = begin_from_samples(many, starts, Silent())
    assert kept.statistics.mean_log_likelihood > found.statistics.mean_log_likelihood - 1e-3
    # The other way round: a bad start, and a good one among the others.
    monkeypatch.undo()
    source, options = (
        ArraySource(many),
        FitOptions(MaximumLikelihood(), 1e-3, 100, acceleration=ACCELERATIONS["progressive"]),
    )
    better = start_from_samples(source, starts, bad, options, 4, RandomStream(0), Silent())
    assert better.statistics.mean_log_likelihood > found.statistics.mean_log_likelihood - 1e-3


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
def test_a_row_that_no_sample_has_seen_does_not_break_a_fit():
    X, _ = blobs(3, n_samples=90_000, n_features=3, n_components=5, separation=2.0)
    X[77_777] *= 1e7
    model = GaussianMixture(5, random_state=0).fit(X)
    plain = GaussianMixture(5, random_state=0, acceleration="squarem").fit(X)
    assert model.lower_bound_ >= plain.lower_bound_ - 1e-3


def test_short_runs_find_the_best_of_some_starts_and_drop_those_that_collapse():
    X, _ = blobs(1, n_samples=4000, n_features=2, n_components=8, separation=8.0)
    source = ArraySource(X)
    options = FitOptions(MaximumLikelihood(), 1e-3, 100)
    starts = Starts(8, MaximumLikelihood("full"), "random_from_data")
    seeds = [RandomStream(seed).word() for seed in range(12)]
    ends = [
        run_em(source, starts.make(source, seed)[0], tol=0, max_iter=10, reg_covar=1e-6).lower_bound for seed in seeds
    ]
    parameters, n_distinct = short_runs(source, partial(starts.make, source), options, seeds)
    best = run_em(source, parameters, tol=0, max_iter=1, reg_covar=1e-6).lower_bound
    assert np.median(ends) < best
    assert best >= np.sort(ends)[-3] - 1e-3
    assert n_distinct == 8

    made, make = [], Starts.make

    class Collapsing(Starts):
        def make(self, source, seed, *, quick=False):
            made.append(seed)
            if len(made) < 3:
                raise IllDefinedCovarianceError([1])
            return make(self, source, seed, quick=quick)

    collapsing = Collapsing(8, MaximumLikelihood(), "kmeans")
    assert short_runs(source, partial(collapsing.make, source), options, seeds[:3])[0].n_components == 8
    assert len(made) == 3
    made.clear()
    with pytest.raises(IllDefinedCovarianceError):
        short_runs(source, partial(collapsing.make, source), options, seeds[:2])


def test_more_starts_are_better_for_the_price_of_less_than_one_each():
    X, _ = blobs(1, n_samples=12_000, n_features=2, n_components=10, separation=6.0)
    bounds, passes = {1: [], 8: []}, {1: [], 8: []}
    for n_init in (1, 8):
        for seed in range(4):
            model = GaussianMixture(10, n_init=n_init, init_params="random_from_data", random_state=seed, max_iter=500)
            bounds[n_init].append(model.fit(X).lower_bound_)
            passes[n_init].append(model.n_iter_)
    assert np.mean(bounds[8]) > np.mean(bounds[1]) + 1e-3
    assert np.min(bounds[8]) >= np.min(bounds[1])
    assert np.mean(passes[8]) < np.mean(passes[1])  # of the run that was finished: its start was good


def test_small_em_is_the_best_of_short_runs():
    X, _ = blobs(5, n_samples=3000, n_features=2, n_components=9, separation=5.0)
    bounds = {
        name: [GaussianMixture(9, init_params=name, random_state=seed).fit(X).lower_bound_ for seed in range(8)]
        for name in ("k-means++", "small_em")
    }
    assert np.mean(bounds["small_em"]) > np.mean(bounds["k-means++"])
    again = GaussianMixture(9, init_params="small_em", random_state=0).fit(X)
    assert again.lower_bound_ == bounds["small_em"][0]
    plain = GaussianMixture(9, init_params="small_em", random_state=0, acceleration=None, max_iter=0).fit(X)
    assert plain.score(X) > -np.inf
    with pytest.raises(ValueError, match="ill-defined"):
        GaussianMixture(2, init_params="small_em", reg_covar=0).fit(np.ones((50, 2)))


@pytest.mark.usefixtures("long_samples")
def test_progress_names_the_sample(many, capsys):
    GaussianMixture(5, random_state=0, verbose=1).fit(many)
    text = capsys.readouterr().out
    assert text.startswith("Initialization 0\n  Sample of ")
    assert "Best of 3 starts after 7 iterations on " in text
    assert text.rstrip().endswith("Initialization converged.")


def test_a_callback_sees_passes_over_all_rows_only(many):
    seen = []
    model = GaussianMixture(5, random_state=0, callback=lambda n, bound, _: seen.append((n, bound))).fit(many)
    assert seen == list(enumerate(model.lower_bounds_, start=1))


def test_an_interrupt_on_a_sample_changes_nothing(many, monkeypatch):
    model = GaussianMixture(5, random_state=0).fit(many)
    before = model.means_.copy()

    def interrupted(source, parameters, options, **keywords):
        return EMResult(parameters, [-1.0], interrupted=True)

    monkeypatch.setattr(em, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(many + 1)
    np.testing.assert_array_equal(model.means_, before)


def test_progress_names_restarts_and_moves(capsys):
    X, _ = blobs(2, n_samples=10_000, n_features=2, n_components=4, separation=2.0)
    GaussianMixture(4, random_state=0, n_init=3, n_moves=1, verbose=1, max_iter=300).fit(X)
    text = capsys.readouterr().out
    assert "Best of 3 starts after 7 iterations" in text


def test_every_acceleration_is_squarem_on_all_rows():
    assert {name: a.accelerator for name, a in ACCELERATIONS.items()} == {
        "progressive": Squarem,
        "squarem": Squarem,
    }


@pytest.mark.parametrize("n_samples", [900, 12_000])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_default_starts_where_plain_em_starts(covariance_type, n_samples):
    """And ends no lower than it: what it does beside EM steps is kept only if the likelihood is higher."""
    X, _ = blobs(4, n_samples=n_samples, n_features=3, n_components=5, separation=2.0)
    options = {"covariance_type": covariance_type, "random_state": 3}
    start, plain_start = (
        GaussianMixture(5, max_iter=0, acceleration=a, **options).fit(X) for a in ("progressive", None)
    )
    np.testing.assert_array_equal(start.means_, plain_start.means_)
    default, plain = (fit_quietly(GaussianMixture(5, acceleration=a, **options), X) for a in ("progressive", None))
    assert default.lower_bound_ > plain.lower_bound_ - 1e-3


def test_a_coarse_fit_is_plain_em_unless_an_acceleration_is_asked_for():
    X, _ = blobs(4, n_samples=2_000, n_features=3, n_components=6, separation=0.5)
    options = {"n_components": 6, "random_state": 0, "max_iter": 500}
    plain = GaussianMixture(acceleration=None, **options).fit(X)
    np.testing.assert_array_equal(GaussianMixture(**options).fit(X).lower_bounds_, plain.lower_bounds_)
    for finer in ({"limit_tol": 1e-4}, {"tol": 1e-6}):
        accelerated, plain = (GaussianMixture(**options, **finer, acceleration=a).fit(X) for a in ("squarem", None))
        assert accelerated.n_iter_ < plain.n_iter_
        default = GaussianMixture(**options, **finer).fit(X)
        assert default.lower_bounds_[: accelerated.n_iter_] == accelerated.lower_bounds_


def test_an_interrupt_at_any_pass_keeps_what_there_is(monkeypatch):
    X, original = blobs(2, n_samples=3_000, n_features=2, n_components=7, separation=2.0)[0], em.full_pass
    for last in range(2, 25):
        seen = []

        def full_pass(source, *arguments, last=last, seen=seen):
            if len(source.X) == len(X):
                seen.append(0)
                if len(seen) == last:
                    raise KeyboardInterrupt
            return original(source, *arguments)

        monkeypatch.setattr(em, "full_pass", full_pass)
        model = GaussianMixture(7, random_state=0, n_moves=1)
        try:
            fit_quietly(model, X)
        except KeyboardInterrupt:
            assert model.n_iter_ >= 1
            assert not model.converged_
        else:
            assert len(seen) < last
