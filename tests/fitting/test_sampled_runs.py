"""EM on growing samples: it ends where EM on all rows ends, in fewer passes over all rows."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.engine import IllDefinedCovarianceError, MixtureParameters
from fastgmm.fitting import em, sample_sizes, sampled_runs
from fastgmm.fitting.options import ACCELERATIONS, FitOptions
from fastgmm.fitting.run_state import EMResult
from fastgmm.fitting.sampled_runs import start_from_samples
from fastgmm.fitting.starts import Starts
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from helpers import COVARIANCE_TYPES, blobs, fit_quietly, run_em

N_MANY = 100_000


class RecordingObserver:
    """Records what it is told of a fit."""

    def __init__(self):
        self.notes, self.passes, self.distinct = [], 0, []

    def start(self, init):
        pass

    def note(self, text):
        self.notes.append(text)

    def on_iteration(self, result):
        self.passes += 1
        return False

    def end(self, result):
        pass

    def duplicates(self, n_distinct):
        self.distinct.append(n_distinct)


@pytest.fixture(scope="module")
def many():
    return blobs(3, n_samples=N_MANY, n_features=2, n_components=5, separation=6.0)[0]


@pytest.fixture
def long_samples(monkeypatch):
    """Run EM on samples even if it takes few steps."""
    monkeypatch.setattr(sampled_runs, "MAX_CHEAP_STEPS", 0)


@pytest.mark.usefixtures("long_samples")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_fit_that_begins_with_a_sample_ends_where_others_do(covariance_type, weighted, many):
    weights = np.random.default_rng(0).integers(1, 4, N_MANY).astype(float) if weighted else None
    options = {"covariance_type": covariance_type, "random_state": 0, "tol": 1e-7, "max_iter": 3000}
    model, plain = (
        GaussianMixture(5, acceleration=name, **options).fit(many, sample_weight=weights)
        for name in ("progressive", "squarem")
    )
    assert model.converged_
    assert model.lower_bound_ > plain.lower_bound_ - 1e-4
    # The last run is EM on all rows, so the end is a fixed point of EM.
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


def test_a_seed_fixes_the_fit_and_float32_rows_give_nearly_the_same(many):
    first, second = (GaussianMixture(5, random_state=3).fit(many) for _ in range(2))
    np.testing.assert_array_equal(first.means_, second.means_)
    one_thread = GaussianMixture(5, random_state=3, n_jobs=1).fit(many)
    np.testing.assert_array_equal(first.means_, one_thread.means_)
    single = GaussianMixture(5, random_state=3).fit(many.astype(np.float32))
    assert single.means_.dtype == np.float32
    assert single.lower_bound_ == pytest.approx(first.lower_bound_, abs=1e-3)


def test_a_start_of_the_user_is_not_replaced_by_samples(many):
    user_start = {"means_init": many[:5], "random_state": 0, "max_iter": 1, "tol": 0}
    model, plain = (fit_quietly(GaussianMixture(5, acceleration=a, **user_start), many) for a in ("progressive", None))
    np.testing.assert_array_equal(model.means_, plain.means_)


def test_samples_are_used_only_with_many_rows():
    rows = np.random.default_rng(0).normal(size=(80_000, 2))
    assert sample_sizes.growing(ArraySource(rows), 5, "full") == [10_000]
    assert sample_sizes.growing(ArraySource(rows[1:]), 5, "full") == []
    assert sample_sizes.growing(ArraySource(rows), 300, "full") == []  # a sample of 76,800
    assert sample_sizes.growing(ArraySource(rows), 300, "full", min_ratio=1) == [76_800]
    # Two rows have more weight than all others: a sample would consist of copies of them.
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
    found, _ = begin_from_samples(X, Starts(2, MaximumLikelihood("diag"), "kmeans"), observer := RecordingObserver())
    sizes = [int(note.split()[2]) for note in observer.notes if note.startswith("Sample")]
    # Two runs on the first sample. Samples have more rows than were drawn: the outliers are in each.
    assert len(sizes) == 4
    for size, drawn in zip(sizes, [512, 512, 2048, 8192], strict=True):
        assert drawn < size <= drawn + 512
    assert run_em(ArraySource(X), found.parameters, tol=1e-3, max_iter=10, reg_covar=1e-6).n_iter <= 3


@pytest.mark.usefixtures("long_samples")
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_end_on_samples_is_no_lower_than_the_start(covariance_type, many):
    found, start = begin_from_samples(
        many, Starts(5, MaximumLikelihood(covariance_type), "kmeans"), RecordingObserver()
    )
    before, after = (em.full_pass(ArraySource(many), parameters) for parameters in (start, found.parameters))
    assert after.log_likelihood > before.log_likelihood
    assert found.statistics.log_likelihood == after.log_likelihood


def test_a_bad_end_on_a_sample_is_discarded(many, monkeypatch):
    """A component collapses on the sample, or all rows are less likely after it than at the start."""
    starts, run = Starts(5, MaximumLikelihood("full"), "kmeans"), em.run

    def collapse(source, parameters, options, **keywords):
        raise IllDefinedCovarianceError([0])

    def diverge(source, parameters, options, **keywords):
        worse = parameters.means + 3.0
        parameters = MixtureParameters.create(parameters.weights, worse, parameters.covariances, "full")
        return run(source, parameters, options, **{**keywords, "max_iter": 0})

    source = ArraySource(many)
    for broken in (collapse, diverge):
        monkeypatch.setattr(em, "run", broken)
        found, start = begin_from_samples(many, starts, RecordingObserver())
        first = em.full_pass(source, start)
        stepped, bound = MaximumLikelihood().step(first, start)
        assert found.statistics is None
        assert found.lower_bound == pytest.approx(bound, rel=1e-12)
        np.testing.assert_allclose(found.parameters.means, stepped.means, rtol=1e-9)


def test_samples_are_skipped_if_em_takes_few_steps(many):
    """They would cost more than they save."""
    clear, _ = blobs(3, n_samples=N_MANY, n_features=2, n_components=3, separation=30.0)
    options = {"n_components": 3, "random_state": 0}
    default, plain = (GaussianMixture(**options, acceleration=a).fit(clear) for a in ("progressive", None))
    np.testing.assert_allclose(default.means_, plain.means_, rtol=1e-9)
    assert default.n_iter_ == plain.n_iter_ - 1  # the first step is made by the pass that finds the outliers
    found, _ = begin_from_samples(
        clear, Starts(3, MaximumLikelihood("full"), "kmeans"), observer := RecordingObserver()
    )
    assert found.statistics is None
    assert len(observer.notes) == 1


@pytest.mark.usefixtures("long_samples")
def test_the_better_of_two_ends_on_a_sample_is_continued(many, monkeypatch):
    """One is that of plain EM's start, the other that of the best other start; either may be better."""
    starts = Starts(5, MaximumLikelihood("full"), "kmeans")
    found, start = begin_from_samples(many, starts, RecordingObserver())
    bad = MixtureParameters.create(start.weights, np.tile(many.mean(axis=0), (5, 1)), start.covariances, "full")
    monkeypatch.setattr(sampled_runs, "short_runs", lambda *_, **__: (bad, 5))
    kept, _ = begin_from_samples(many, starts, RecordingObserver())
    assert kept.statistics.mean_log_likelihood > found.statistics.mean_log_likelihood - 1e-3
    # The opposite: the start is bad, and a good one is among the others.
    monkeypatch.undo()
    source, options = (
        ArraySource(many),
        FitOptions(MaximumLikelihood(), 1e-3, 100, acceleration=ACCELERATIONS["progressive"]),
    )
    better = start_from_samples(source, starts, bad, options, 4, RandomStream(0), RecordingObserver())
    assert better.statistics.mean_log_likelihood > found.statistics.mean_log_likelihood - 1e-3


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
def test_an_extreme_row_outside_all_samples_does_not_break_a_fit():
    X, _ = blobs(3, n_samples=90_000, n_features=3, n_components=5, separation=2.0)
    X[77_777] *= 1e7
    model = GaussianMixture(5, random_state=0).fit(X)
    plain = GaussianMixture(5, random_state=0, acceleration="squarem").fit(X)
    assert model.lower_bound_ >= plain.lower_bound_ - 1e-3


@pytest.mark.usefixtures("long_samples")
def test_progress_names_the_sample(many, capsys):
    GaussianMixture(5, random_state=0, verbose=1).fit(many)
    text = capsys.readouterr().out
    assert text.startswith("Initialization 0\n  Sample of ")
    assert "Best of 3 starts after 7 iterations on " in text
    assert text.rstrip().endswith("Initialization converged.")


def test_the_callback_is_called_only_for_passes_over_all_rows(many):
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
