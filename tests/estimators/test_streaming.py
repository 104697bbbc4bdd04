"""`StreamingGaussianMixture`: stepwise EM against a naive twin, cutting, weights, drift, sums of models, errors."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.mixture
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

import fastgmm
import reference
from fastgmm import DegenerateComponentWarning, GaussianMixture, MixtureSearch, StreamingGaussianMixture
from fastgmm.covariance import MCLUST_MODELS
from fastgmm.engine import accumulate
from fastgmm.fitting.forgetting import ForgettingSchedule
from helpers import COVARIANCE_TYPES, blobs, full_covariances, random_parameters, random_rows

INIT, BATCH = 200, 50
LEARNT = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def streaming(n_components=3, **options):
    options = {"init_size": INIT, "batch_size": BATCH, "random_state": 0, **options}
    return StreamingGaussianMixture(n_components, **options)


def rows(n_samples=700, **options):
    return blobs(1, n_samples=n_samples, separation=2.0, **options)[0]


def assert_same_bits(one, other):
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.lower_bound_, one.n_steps_, one.n_samples_seen_) == (
        other.lower_bound_,
        other.n_steps_,
        other.n_samples_seen_,
    )


def assert_same_statistics(one, other, rtol=1e-10):
    other = other.recentred(one.reference)
    for name in ("weight_sums", "first_moments", "scatter", "log_likelihood", "total_weight"):
        desired = getattr(other, name)
        np.testing.assert_allclose(
            getattr(one, name), desired, rtol=rtol, atol=rtol * np.abs(desired).max(), err_msg=name
        )


def twin(X, start, covariance_type, learning_decay, batch_size=BATCH, init_size=INIT):
    """Cappé & Moulines' recursion by its definition: all rows and their responsibilities are kept, and summed anew.

    `start` has the weights, means and covariances (K, D, D) that the rows of the start have led to. Returns those at
    the end, and the log-likelihood of each row after the start, before it was learnt.
    """
    point, seen = start, X[:init_size]
    resp, _ = reference.responsibilities(seen, *point)
    shares = np.full(init_size, 1 / init_size)
    before = []
    for step, begin in enumerate(range(init_size, len(X), batch_size), start=1):
        batch = X[begin : begin + batch_size]
        batch_resp, log_prob = reference.responsibilities(batch, *point)
        before.extend(log_prob)
        gamma = (step + init_size / batch_size) ** -learning_decay
        shares = np.concatenate([(1 - gamma) * shares, np.full(len(batch), gamma / len(batch))])
        seen, resp = np.concatenate([seen, batch]), np.concatenate([resp, batch_resp])
        point = reference.m_step(seen, resp, covariance_type, 1e-6, sample_weight=len(X) * shares)
    return point, np.array(before)


def start_of(model):
    """Return the parameters of a fitted model in the form that the twin takes."""
    return model.weights_, model.means_, full_covariances(model._parameters())


@pytest.mark.parametrize("learning_decay", [0.6, 0.8, 1])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_every_step_equals_the_naive_twins(covariance_type, learning_decay):
    X = rows()
    model = streaming(covariance_type=covariance_type, learning_decay=learning_decay).partial_fit(X[:INIT])
    (weights, means, covariances), before = twin(X, start_of(model), covariance_type, learning_decay)
    model.partial_fit(X[INIT:])
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-9)
    np.testing.assert_allclose(model.means_, means, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(full_covariances(model._parameters()), covariances, rtol=1e-8, atol=1e-10)
    if learning_decay == 1:
        assert model.lower_bound_ == pytest.approx(before.mean(), rel=1e-10)
    assert (model.n_steps_, model.n_samples_seen_) == (10, 700)


def test_the_start_equals_a_fit_of_gaussian_mixture():
    X = rows(INIT)
    ours, theirs = streaming().partial_fit(X), GaussianMixture(3, tol=1e-4, max_iter=1000, random_state=0).fit(X)
    np.testing.assert_array_equal(ours.means_, theirs.means_)
    short = streaming(init_size=None, shuffle=False).fit(X)
    np.testing.assert_array_equal(short.covariances_, theirs.covariances_)
    assert (short.n_steps_, short.n_samples_seen_) == (0, INIT)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "VEV"])
def test_the_result_does_not_depend_on_the_blocks(covariance_type, dtype):
    X, weights = rows(530).astype(dtype), np.random.default_rng(0).integers(0, 4, 530)
    for sample_weight in (None, weights):
        models = []
        for size in (1, 7, 64, BATCH, INIT, 530):
            model = streaming(covariance_type=covariance_type, half_life=300)
            for begin in range(0, len(X), size):
                some = slice(begin, begin + size)
                model.partial_fit(X[some], sample_weight=None if sample_weight is None else sample_weight[some])
            models.append(model)
        for other in models[1:]:
            assert_same_bits(models[0], other)
        assert models[0].means_.dtype == dtype


def test_reading_attributes_changes_nothing_and_includes_all_rows():
    X = rows(430)
    unseen, seen = streaming(), streaming()
    for begin in range(0, len(X), 10):
        unseen.partial_fit(X[begin : begin + 10])
        before = dict(vars(seen.partial_fit(X[begin : begin + 10])))
        bound, labels = seen.lower_bound_, seen.predict(X)
        assert vars(seen) == before
        assert seen.statistics_.total_weight <= begin + 10 + 1e-9
        assert (bound, len(labels)) == (seen.lower_bound_, len(X))
    assert_same_bits(unseen, seen)
    one_more = copy.deepcopy(unseen).partial_fit(X[:1])
    assert not np.array_equal(one_more.means_, unseen.means_)  # a row counts at once


def test_memory_order_and_later_changes_of_a_block_do_not_matter():
    X = rows(530)
    model = streaming().partial_fit(np.asfortranarray(X))
    block, other = X[:120].copy(), streaming()
    other.partial_fit(block)
    block[:] = 1e6
    assert_same_bits(model, other.partial_fit(X[120:]))


def test_results_are_bit_for_bit_equal_for_any_number_of_threads():
    X = rows(60_000)
    one, two = (streaming(n_jobs=n, init_size=20_000, batch_size=20_000).partial_fit(X) for n in (1, 2))
    assert_same_bits(one, two)


@pytest.mark.parametrize("covariance_type", MCLUST_MODELS)
def test_all_models_learn(covariance_type):
    X = blobs(0, n_samples=3000)[0]
    model = streaming(covariance_type=covariance_type).partial_fit(X[:INIT])
    start = model.score(X)
    exact = GaussianMixture.from_parameters(
        model.weights_,
        model.means_,
        model.covariances_,
        covariance_type=covariance_type,
        warm_start=True,
        acceleration=None,
    ).fit(X)
    model.partial_fit(X[INIT:])
    assert model.score(X) > start
    assert model.score(X) == pytest.approx(exact.score(X), abs=0.02)


@pytest.mark.parametrize("covariance_type", ["E", "V"])
def test_the_models_of_one_feature_learn(covariance_type):
    X = rows(3000)[:, :1]
    model = streaming(covariance_type=covariance_type).partial_fit(X[:INIT])
    start = model.score(X)
    assert model.partial_fit(X[INIT:]).score(X) > start


def test_held_out_rows_are_nearly_as_likely_as_after_an_exact_fit():
    """0.0009, 0.0108 and 0.0053 nats per row lost, where the start loses 0.0052, 0.0170 and 0.0097."""
    for seed in range(3):
        X = random_rows(random_parameters("full", 5, 4, seed=seed, spread=1.5), 110_000, seed=seed)
        model = StreamingGaussianMixture(5, random_state=seed).partial_fit(X[:10_000])
        start = model.score(X[100_000:])
        mixture = GaussianMixture.from_parameters(
            model.weights_, model.means_, model.covariances_, warm_start=True, tol=1e-6, max_iter=1000
        )
        exact = mixture.fit(X[:100_000]).score(X[100_000:])
        assert exact - model.partial_fit(X[10_000:100_000]).score(X[100_000:]) < 0.7 * (exact - start)
        assert exact - model.score(X[100_000:]) < 0.015


def test_a_batch_with_weights_equals_the_batch_of_the_copies():
    rng = np.random.default_rng(0)
    X, weights = rows(600), np.concatenate([rng.permutation([1] * 25 + [3] * 25) for _ in range(12)])
    weighted = streaming(init_size=200, batch_size=50)
    repeated = streaming(init_size=400, batch_size=100)
    weighted.partial_fit(X, sample_weight=weights)
    repeated.partial_fit(np.repeat(X, weights, axis=0))
    np.testing.assert_allclose(weighted.weights_, repeated.weights_, rtol=1e-9)
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(weighted.covariances_, repeated.covariances_, rtol=1e-8, atol=1e-10)
    assert_same_statistics(weighted.statistics_, repeated.statistics_, rtol=1e-9)


def test_a_row_of_weight_zero_is_absent_and_the_unit_of_weights_does_not_matter():
    X, weights = rows(500), np.random.default_rng(3).integers(0, 3, 500)
    weighted = streaming().partial_fit(X, sample_weight=weights)
    present = weights > 0
    assert_same_bits(weighted, streaming().partial_fit(X[present], sample_weight=weights[present]))
    assert weighted.n_samples_seen_ == present.sum()
    scaled = streaming().partial_fit(X, sample_weight=weights / 1024)
    np.testing.assert_allclose(scaled.means_, weighted.means_, rtol=1e-9)
    nothing = streaming().partial_fit(X[:1], sample_weight=[0])
    assert nothing.n_samples_seen_ == 0
    with pytest.raises(NotFittedError, match="0 row"):
        nothing.predict(X)


def test_forgetting_counts_rows_by_their_age():
    X, h = rows(600), 150
    model = streaming(half_life=h, learning_decay=1).partial_fit(X[:INIT])
    point, resp = start_of(model), np.empty((0, 3))
    for begin, end in [(0, INIT), *((i, i + BATCH) for i in range(INIT, 600, BATCH))]:
        resp = np.concatenate([resp, reference.responsibilities(X[begin:end], *point)[0]])
        if begin:
            ages = np.arange(end - 1, -1, -1)
            point = reference.m_step(X[:end], resp, "full", 1e-6, sample_weight=0.5 ** (ages / h))
    model.partial_fit(X[INIT:])
    for ours, theirs in zip(start_of(model), point, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    assert model.statistics_.total_weight == pytest.approx((0.5 ** (np.arange(600) / h)).sum(), rel=1e-12)


def drifting(n_samples=40_000, speed=10.0, seed=0):
    """Two components that move together by `speed` along the first feature."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, 2)) + np.array([0.0, 5.0]) * rng.integers(0, 2, (n_samples, 1))
    X[:, 0] += np.linspace(0, speed, n_samples)
    return X


def test_with_a_half_life_the_model_follows_drift_and_without_it_lags():
    X = drifting()
    lags, recent = {}, {}
    for half_life in (None, 500):
        model = StreamingGaussianMixture(2, init_size=1000, half_life=half_life, random_state=0).partial_fit(X[:39_000])
        recent[half_life] = model.score(X[39_000:])
        lags[half_life] = np.abs(model.partial_fit(X[39_000:]).means_[:, 0] - 10).max()
    # Rows of age a are 10 a / 40,000 behind, on average of ages 500 / log 2.
    assert lags[500] == pytest.approx(10 / 40_000 * 500 / np.log(2), abs=0.1)
    assert lags[None] > 0.5
    assert recent[500] > recent[None] + 0.1


@pytest.mark.parametrize("covariance_type", [*COVARIANCE_TYPES, "VVE", "EEV"])
def test_a_component_without_new_rows_keeps_its_mean_and_covariance(covariance_type):
    rng = np.random.default_rng(0)
    both = rng.normal(size=(2000, 2)) + np.array([30.0, 0.0]) * rng.integers(0, 2, (2000, 1))
    model = StreamingGaussianMixture(
        2, covariance_type=covariance_type, reg_covar=1e-3, init_size=500, batch_size=50, half_life=100, random_state=0
    ).partial_fit(both)
    far = int(model.means_[:, 0].argmax())
    before = model.means_[far], full_covariances(model._parameters())[far]
    model.partial_fit(rng.normal(size=(120_000, 2)))  # 1,200 half-lives: its rows count less than the least number
    assert all(np.isfinite(getattr(model, name)).all() for name in LEARNT)
    assert model.weights_[far] < 1e-12
    np.testing.assert_allclose(model.means_[far], before[0], atol=0.2)
    np.testing.assert_allclose(np.diag(full_covariances(model._parameters())[far]), np.diag(before[1]), rtol=0.5)
    back = model.partial_fit(rng.normal(size=(500, 2)) + np.array([30.0, 0.0]))
    assert back.weights_[far] > 0.5  # and takes its rows again when they come back


def test_rows_far_from_zero_lose_no_digits():
    X = rows(3000)
    for covariance_type in [*COVARIANCE_TYPES, "VEV", "EVE"]:
        near, far = (
            streaming(covariance_type=covariance_type, half_life=500).partial_fit(X + offset) for offset in (0.0, 1e8)
        )
        np.testing.assert_allclose(far.covariances_, near.covariances_, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(far.means_ - 1e8, near.means_, atol=1e-5)


def test_equal_rows_and_empty_components_give_no_nan():
    X = np.repeat([[0.0, 0.0], [1.0, 2.0]], 300, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateComponentWarning)
        model = streaming(n_components=3).partial_fit(X[np.random.default_rng(0).permutation(600)])
    assert all(np.isfinite(getattr(model, name)).all() for name in LEARNT)
    assert np.isfinite(model.lower_bound_)
    for dtype, largest in ((np.float64, 1e150), (np.float32, 1e15)):
        X = rows(400).astype(dtype)
        X[-1] = largest
        model = streaming(covariance_type="diag").partial_fit(X)
        assert all(np.isfinite(getattr(model, name)).all() for name in LEARNT)


def test_a_collapse_without_reg_covar_raises_scikit_learns_error():
    X = rows(260)
    model = streaming(n_components=1, reg_covar=0, half_life=3).partial_fit(X)
    full_batches = streaming(n_components=1, reg_covar=0, half_life=3).partial_fit(X[:250])
    with pytest.raises(ValueError, match=r"ill-defined empirical covariance.*component 0 is not positive definite"):
        model.partial_fit(np.zeros((100_000, 3)))
    assert_same_bits(model, full_batches)  # the ten rows that were held are dropped, and it can go on
    assert_same_bits(model.partial_fit(X), full_batches.partial_fit(X))


# Sums of models


def forks(covariance_type="full", **options):
    X = rows(1200)
    parent = streaming(covariance_type=covariance_type, **options).partial_fit(X[:430])
    parts = X[430:700], X[700:1010], X[1010:]
    return parent, parts, [parent.fork().partial_fit(part) for part in parts]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_statistics_of_a_sum_count_all_rows_once(covariance_type):
    parent, _, (one, other, third) = forks(covariance_type, learning_decay=1)
    both = one + other
    twice = parent.statistics_.scaled(-1)
    assert_same_statistics(both.statistics_, one.statistics_ + other.statistics_ + twice)
    assert both.statistics_.total_weight == both.n_samples_seen_ == 1010
    assert [model.n_steps_ for model in (parent, one, other, both)] == [5, 11, 12, 18]
    all_of_them = sum([one, other, third])
    assert_same_statistics(all_of_them.statistics_, both.statistics_ + third.statistics_ + twice)
    assert_same_statistics((third + (other + one)).statistics_, all_of_them.statistics_)
    # The parameters are those that maximise the likelihood of the sum.
    statistics = all_of_them.statistics_
    np.testing.assert_allclose(all_of_them.weights_, statistics.weight_sums / 1200, rtol=1e-12)


def test_the_statistics_of_a_sum_equal_those_of_the_rows():
    """One batch each, so that all responsibilities are those of the parent's parameters."""
    X = rows(900)
    parent = streaming(learning_decay=1, batch_size=350).partial_fit(X[:INIT])
    one, other = parent.fork().partial_fit(X[INIT:550]), parent.fork().partial_fit(X[550:])
    resp, _ = reference.responsibilities(X, *start_of(parent))
    weights, means, covariances = reference.m_step(X, resp, "full")
    both = one + other
    np.testing.assert_allclose(both.weights_, weights, rtol=1e-10)
    np.testing.assert_allclose(both.means_, means, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(both.covariances_, covariances, rtol=1e-9, atol=1e-11)
    assert_same_statistics(both.statistics_, accumulate(parent._parameters(), X), rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"half_life": 250}])
def test_a_fork_is_a_copy_and_a_sum_forgets_the_past_as_both_do(options):
    parent, parts, (one, other, _) = forks(**options)
    fork = parent.fork()
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(fork, name), getattr(parent, name))
    # A fork that has seen nothing adds nothing, and takes nothing.
    unchanged = one + parent.fork()
    np.testing.assert_allclose(unchanged.means_, one.means_, rtol=1e-10)
    assert_same_statistics(unchanged.statistics_, one.statistics_)
    past = parent.statistics_.total_weight
    left = [model.statistics_.total_weight - model._now().fresh.total_weight for model in (one, other)]
    fresh = [model._now().fresh.total_weight for model in (one, other)]
    assert (one + other).statistics_.total_weight == pytest.approx(left[0] * left[1] / past + sum(fresh), rel=1e-12)
    assert np.isfinite((one + other).partial_fit(parts[2]).means_).all()


def test_pickled_forks_add_up_to_one_stream():
    X = random_rows(random_parameters("full", 4, 3, seed=2, spread=2.0), 60_000)
    parent = StreamingGaussianMixture(4, init_size=2000, random_state=0).partial_fit(X[:2000])
    halves = [pickle.loads(pickle.dumps(parent.fork())).partial_fit(X[begin:50_000:2]) for begin in (2000, 2001)]
    together = halves[0] + pickle.loads(pickle.dumps(halves[1]))
    alone = copy.deepcopy(parent).partial_fit(X[2000:50_000])
    assert abs(together.score(X[50_000:]) - alone.score(X[50_000:])) < 0.003
    assert together.score(X[50_000:]) > parent.score(X[50_000:])


def test_models_with_different_pasts_are_not_added():
    parent, parts, (one, other, _) = forks()
    with pytest.raises(ValueError, match=r"did not begin from the same start.*fork\(\)"):
        one + parent
    with pytest.raises(ValueError, match=r"did not begin from the same start"):
        one + streaming().partial_fit(parts[0])
    with pytest.raises(ValueError, match=r"have learnt the same rows since they parted.*fork\(\)"):
        one + copy.deepcopy(one).partial_fit(parts[1])
    with pytest.raises(ValueError, match="the same rows"):
        (one + other) + other
    with pytest.raises(ValueError, match="the same n_components, but have 3 and 2"):
        one + streaming(2).partial_fit(parts[0])
    with pytest.raises(ValueError, match="the same covariance_type"):
        one + streaming(covariance_type="diag").partial_fit(parts[0])
    with pytest.raises(ValueError, match="the same n_features_in_"):
        one + streaming().partial_fit(parts[0][:, :2])
    with pytest.raises(TypeError):
        one + 1
    with pytest.raises(NotFittedError):
        streaming().fork()
    with pytest.raises(NotFittedError):
        streaming().partial_fit(parts[0][:1]).fork()


def test_copies_of_a_start_can_be_added_without_a_fork():
    X = rows(800)
    start = streaming(learning_decay=1).partial_fit(X[:INIT])
    one, other = copy.deepcopy(start).partial_fit(X[INIT:500]), copy.deepcopy(start).partial_fit(X[500:])
    assert (one + other).statistics_.total_weight == 800


# The estimator


def test_a_pickled_stream_continues_bit_for_bit():
    X = rows(900)
    for cut in (90, 430):  # before and after the start
        through, paused = streaming(random_state=None, half_life=400), streaming(half_life=400)
        through.set_params(random_state=0).partial_fit(X[:cut]).partial_fit(X[cut:])
        paused = pickle.loads(pickle.dumps(paused.partial_fit(X[:cut])))
        assert_same_bits(through, paused.partial_fit(X[cut:]))


def test_a_random_state_is_used_once():
    X = rows(150)
    state = np.random.RandomState(3)
    model = streaming(random_state=state).partial_fit(X[:100])
    first = model.means_
    np.testing.assert_array_equal(model.means_, first)
    before = state.get_state()[1].copy()
    model.partial_fit(X[100:]).means_
    np.testing.assert_array_equal(state.get_state()[1], before)


def test_too_few_rows_give_no_model():
    X = rows(20)
    model = streaming()
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict(X)
    assert not hasattr(model, "means_")
    assert not hasattr(model, "n_samples_seen_")
    for row in X[:2]:
        model.partial_fit([row])
    with pytest.raises(NotFittedError, match=r"has seen 2 row\(s\), and for n_components=3 needs 3"):
        model.score(X)
    assert not hasattr(model, "weights_")
    assert model.n_samples_seen_ == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateComponentWarning)
        assert len(model.partial_fit(X[2:3]).predict(X)) == 20


def test_invalid_rows_are_refused_and_change_nothing():
    X = rows(460)
    model = streaming().partial_fit(X)
    before, probabilities = dict(vars(model)), model.predict_proba(X)
    bad = X[:300].copy()
    bad[299, 1] = np.nan
    for arguments, text in [
        ({"X": bad}, "Input X contains NaN"),
        ({"X": X[:, :2]}, "X has 2 features, but StreamingGaussianMixture is expecting 3 features as input"),
        ({"X": X[:0]}, r"Found array with 0 sample\(s\)"),
        ({"X": X, "sample_weight": -np.ones(len(X))}, "Negative values in data passed to `sample_weight`"),
        ({"X": X, "sample_weight": np.ones(3)}, "sample_weight.shape"),
        ({"X": np.full((1, 3), 1e200)}, r"X has values up to 1e\+200, whose squares cannot be added in float64"),
        ({"X": np.full((1, 3), 1e20, np.float32)}, "cannot be added in float32"),
    ]:
        with pytest.raises(ValueError, match=text):
            model.partial_fit(**arguments)
        assert vars(model) == before
    np.testing.assert_array_equal(model.predict_proba(X), probabilities)


def test_invalid_parameters_are_refused():
    X = rows(300)
    for options, text in [
        ({"learning_decay": 0.5}, "'learning_decay'"),
        ({"learning_decay": 1.1}, "'learning_decay'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"half_life": 0.5}, "'half_life'"),
        ({"half_life": 2}, r"half_life must be >= n_components \(3\), so that each component keeps rows, got 2"),
        ({"init_size": 2}, r"init_size must be >= n_components \(3\), got 2"),
        ({"covariance_type": "E"}, "is for 1 feature"),
    ]:
        model = streaming(**options)
        before = dict(vars(model))
        for learn in (model.partial_fit, model.fit):
            with pytest.raises(ValueError, match=text):
                learn(X)
            assert vars(model) == before
    model = streaming().partial_fit(X)
    for name, value in (("n_components", 4), ("covariance_type", "diag")):
        with pytest.raises(ValueError, match=f"{name} is {value!r} now, but was .* when the first rows came"):
            clone_with(model, **{name: value}).partial_fit(X)
    assert clone_with(model, n_components=4).fit(X).means_.shape == (4, 3)


def clone_with(model, **options):
    return copy.deepcopy(model).set_params(**options)


def test_fit_starts_anew_in_random_order():
    X = rows(4000)
    X = X[X[:, 0].argsort()]
    model = streaming()
    shuffled = model.fit(X).score(X)
    first = {name: getattr(model, name) for name in LEARNT}
    model.fit(X)
    for name in LEARNT:
        np.testing.assert_array_equal(getattr(model, name), first[name])
    assert model.n_samples_seen_ == 4000
    assert shuffled > streaming(shuffle=False).fit(X).score(X) + 0.05
    assert shuffled > GaussianMixture(3, random_state=0).fit(X).score(X) - 0.1
    np.testing.assert_array_equal(streaming().fit_predict(X), model.predict(X))


def test_a_stream_continues_from_a_fitted_mixture():
    X = rows(1000)
    for covariance_type in [*COVARIANCE_TYPES, "VEV"]:
        mixture = GaussianMixture(3, covariance_type=covariance_type, tol=1e-8, max_iter=1000, random_state=0)
        mixture.fit(X[:600])
        model = StreamingGaussianMixture.from_mixture(mixture, 600, batch_size=400, learning_decay=1)
        np.testing.assert_allclose(model.means_, mixture.means_)
        np.testing.assert_allclose(model.score_samples(X), mixture.score_samples(X))
        assert model.lower_bound_ == pytest.approx(mixture.lower_bound_)
        # At a fixed point the mixture's statistics are those of its rows.
        rest = model.partial_fit(X[600:]).statistics_
        both = accumulate(mixture._parameters(), X[:600]) + accumulate(mixture._parameters(), X[600:])
        np.testing.assert_allclose(rest.weight_sums, both.weight_sums, rtol=2e-3)
        assert (model.n_samples_seen_, rest.total_weight) == (1000, pytest.approx(1000))
    with pytest.raises(ValueError, match="n_samples must be a number of rows above 0"):
        StreamingGaussianMixture.from_mixture(mixture, 0)
    with pytest.raises(NotFittedError):
        StreamingGaussianMixture.from_mixture(GaussianMixture(), 10)


def test_dtypes_and_names_of_features():
    X = rows(400)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = streaming().partial_fit(frame[:300])
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.partial_fit(frame[["b", "a", "c"]])
    single = streaming().partial_fit(X[:300].astype(np.float32))
    assert {getattr(single, name).dtype for name in LEARNT} == {np.dtype(np.float32)}
    assert single.predict_proba(X[:5].astype(np.float32)).dtype == np.float32
    assert single.partial_fit(X[300:]).means_.dtype == np.float64
    assert single.statistics_.scatter.dtype == np.float64
    double = streaming().partial_fit(X[:300]).partial_fit(X[300:])
    np.testing.assert_allclose(single.means_, double.means_, atol=1e-3)


def test_methods_of_other_estimators():
    X = rows(1000)
    model = streaming(n_components=2).partial_fit(X)
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "means_")
    assert model.sample(7)[0].shape == (7, 3)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.score(X) == pytest.approx(model.score_samples(X).mean())
    assert model.score(X, sample_weight=np.ones(len(X))) == pytest.approx(model.score(X))
    np.testing.assert_allclose(model.precisions_ @ model.covariances_, np.tile(np.eye(3), (2, 1, 1)), atol=1e-9)


def test_default_sizes_grow_with_parameters_and_shrink_with_half_life():
    sizes = {}
    for n_features in (2, 12):
        for half_life in (None, 100):
            options = StreamingGaussianMixture(10, half_life=half_life)._new_stream(n_features).options
            sizes[n_features, half_life] = options.init_size, options.forgetting.batch_size
    assert sizes == {(2, None): (10_000, 100), (2, 100): (400, 50), (12, None): (18_180, 909), (12, 100): (400, 50)}


@pytest.mark.parametrize("decay", [0.51, 0.7, 1.0])
def test_the_forgetting_schedule(decay):
    pace = ForgettingSchedule(100, decay)
    assert pace.effective_rows(37) == 37  # less than a batch counts in full
    assert pace.effective_rows(10_000) == pytest.approx(100 * 100**decay)
    for before in (1, 50, 99, 100, 1000, 10**7):
        for new in (1, 10, 100):
            retained = pace.retained(before, new)
            assert 0 <= retained <= 1
            assert (retained == 1) or decay < 1
            total = retained * pace.effective_rows(before) + new
            assert total == pytest.approx(pace.effective_rows(before + new)) or total > pace.effective_rows(before)
    assert ForgettingSchedule(100, 1.0, half_life=50).retained(1000, 100) == 0.25
    np.testing.assert_allclose(ForgettingSchedule(100, 1.0, half_life=1).recency(3), [0.25, 0.5, 1])


def test_rows_from_files_are_a_stream(tmp_path):
    """Whatever they are read from, and however large the blocks are, the bits are those of rows in memory."""
    X, _ = blobs(4, n_samples=5000, n_features=2, n_components=3)
    w = np.random.default_rng(0).uniform(0.5, 2, size=len(X))
    np.save(tmp_path / "x.npy", X)
    options = {"n_components": 3, "init_size": 900, "random_state": 0}
    expected = StreamingGaussianMixture(**options).partial_fit(X, sample_weight=w)
    source = fastgmm.rows(tmp_path / "x.npy", weight=w, block_bytes=16 * 300)
    model = StreamingGaussianMixture(**options).partial_fit(source)
    np.testing.assert_array_equal(model.means_, expected.means_)
    np.testing.assert_array_equal(StreamingGaussianMixture(**options).fit(source).means_, expected.means_)
    assert model.score(source) == pytest.approx(expected.score(X, sample_weight=w), abs=1e-12)
    bad = X.copy()
    bad[-1] = np.nan
    with pytest.raises(ValueError, match="contains NaN, in row 4999"):
        model.partial_fit(fastgmm.rows(bad, block_bytes=16 * 300))
    np.testing.assert_array_equal(model.means_, expected.means_)
    assert model.n_samples_seen_ == 5000


def test_streams_from_searches_and_from_scikit_learns_mixtures():
    X, _ = blobs(n_components=2)
    search = MixtureSearch(2, covariance_types=["VVV"], random_state=0).fit(X)
    grid = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [2]}).fit(X)
    for found in (search, grid):
        stream = StreamingGaussianMixture.from_mixture(found, len(X))
        np.testing.assert_allclose(stream.means_, found.best_estimator_.means_)
        assert stream.partial_fit(X).n_samples_seen_ == 2 * len(X)
    theirs = sklearn.mixture.BayesianGaussianMixture(n_components=2, random_state=0).fit(X)
    np.testing.assert_allclose(StreamingGaussianMixture.from_mixture(theirs, 100).covariances_, theirs.covariances_)
    with pytest.raises(NotFittedError):
        StreamingGaussianMixture.from_mixture(MixtureSearch(2), 100)
    with pytest.raises(NotFittedError):
        StreamingGaussianMixture.from_mixture(GaussianMixture(2), 100)
    for wrong in (KMeans(2).fit(X), None, X, "mixture", GaussianMixture):
        with pytest.raises(TypeError, match="mixture must be a fitted GaussianMixture or BayesianGaussianMixture"):
            StreamingGaussianMixture.from_mixture(wrong, 100)
