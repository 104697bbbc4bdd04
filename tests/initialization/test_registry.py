"""Starts are M-steps of clusters, weights are repetitions, and a seed always gives the same start."""

import numpy as np
import pytest

import reference
from fastgmm.data.random_stream import RandomStream, sample
from fastgmm.data.sources import ArraySource
from fastgmm.engine import IllDefinedCovarianceError
from fastgmm.initialization.kmeans import kmeans
from fastgmm.initialization.points import random_rows
from fastgmm.initialization.samples import ENOUGH, ENOUGH_PER_COMPONENT, enough_rows
from helpers import COVARIANCE_TYPES, blobs, start_of

INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
DTYPES = (np.float64, np.float32)


def test_random_rows_are_rows_and_differ():
    X = np.repeat(np.arange(5.0)[:, np.newaxis], 100, axis=0)
    for seed in range(20):
        rows = random_rows(ArraySource(X), 5, RandomStream(seed))
        assert sorted(rows[:, 0]) == [0, 1, 2, 3, 4]
    assert random_rows(ArraySource(X[:100]), 3, RandomStream(0)).tolist() == [[0.0]] * 3  # there is only one
    weights = np.zeros(500)
    weights[[7, 399]] = 1e-3
    assert sorted(random_rows(ArraySource(X, weights), 2, RandomStream(0))[:, 0]) == [0, 3]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_weight_is_repetition_and_zero_is_absence(init_params, covariance_type):
    X, _ = blobs(n_samples=200)
    weights = np.random.default_rng(0).integers(0, 4, size=len(X)).astype(float)
    options = {"covariance_type": covariance_type, "init_params": init_params, "seed": 5}
    weighted, _ = start_of(ArraySource(X, weights), 3, **options)
    repeated, _ = start_of(ArraySource(np.repeat(X, weights.astype(int), axis=0)), 3, **options)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_same_seed_same_start_and_other_seed_other_start(init_params):
    X, _ = blobs(n_samples=300, separation=0.5)
    a, b, c = (start_of(ArraySource(X), 3, init_params=init_params, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.means, b.means)
    np.testing.assert_array_equal(a.covariances, b.covariances)
    assert not np.allclose(a.means, c.means)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_start_from_clusters_is_their_m_step(covariance_type):
    X, _ = blobs()
    source = ArraySource(X)
    parameters, _ = start_of(source, 3, covariance_type=covariance_type, seed=7, reg_covar=1e-3)
    _, labels = kmeans(source, 3, RandomStream(7))
    expected = reference.m_step(X, np.eye(3)[labels], covariance_type, 1e-3)
    np.testing.assert_allclose(parameters.weights, expected[0], rtol=1e-12)
    np.testing.assert_allclose(parameters.means, expected[1], atol=1e-11)
    full = parameters.model.form.full(parameters.covariances, 3, 3)
    np.testing.assert_allclose(full, expected[2], atol=1e-10)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("init_params", ["k-means++", "random_from_data"])
def test_start_from_points_has_the_pooled_covariance_about_them(init_params, covariance_type):
    X, _ = blobs()
    options = {"covariance_type": covariance_type, "init_params": init_params, "seed": 3, "reg_covar": 0.0}
    parameters, _ = start_of(ArraySource(X), 3, **options)
    assert all((X == mean).all(axis=1).any() for mean in parameters.means)
    np.testing.assert_allclose(parameters.weights, 1 / 3)
    nearest = reference.squared_distances(X, parameters.means).argmin(axis=1)
    pooled = (X - parameters.means[nearest]).T @ (X - parameters.means[nearest]) / len(X)
    pooled = pooled if covariance_type in ("full", "tied") else pooled * np.eye(3)
    pooled = np.trace(pooled) / 3 * np.eye(3) if covariance_type == "spherical" else pooled
    full = parameters.model.form.full(parameters.covariances, 3, 3)
    np.testing.assert_allclose(full, np.broadcast_to(pooled, (3, 3, 3)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_start_from_labels_and_responsibilities(covariance_type, dtype):
    X, labels = blobs(separation=1e3)
    X = X.astype(dtype)
    labels[::50] = -1
    expected = reference.m_step(X.astype(float), np.eye(4)[labels][:, :3], covariance_type)
    resp = np.random.default_rng(0).dirichlet(np.ones(3), size=len(X)).astype(dtype)
    for given, truth in ((labels, expected), (resp, reference.m_step(X.astype(float), resp, covariance_type))):
        parameters, _ = start_of(ArraySource(X), 3, covariance_type=covariance_type, resp=given)
        np.testing.assert_allclose(parameters.weights, truth[0], rtol=1e-5)
        np.testing.assert_allclose(parameters.means, truth[1], rtol=1e-5, atol=1e-2 if dtype is np.float32 else 1e-9)
        full = parameters.model.form.full(parameters.covariances, 3, 3)
        scale = np.abs(truth[2]).max()
        digits = 1e-4 if dtype is np.float32 else 1e-8
        np.testing.assert_allclose(full, truth[2], rtol=0, atol=digits * max(scale, 1e3 if digits > 1e-5 else 0))


def test_given_parts_take_the_place_of_those_found():
    X, _ = blobs()
    means = X[:3].copy()
    parameters, _ = start_of(ArraySource(X), 3, means=means, seed=1)
    found, _ = start_of(ArraySource(X), 3, seed=1)
    np.testing.assert_array_equal(parameters.means, means)
    np.testing.assert_array_equal(parameters.weights, found.weights)
    np.testing.assert_array_equal(parameters.covariances, found.covariances)
    precisions = np.tile(np.eye(3) * 4, (3, 1, 1))
    parameters, _ = start_of(ArraySource(X), 3, precisions=precisions)
    np.testing.assert_allclose(parameters.covariances, np.tile(np.eye(3) / 4, (3, 1, 1)))


def test_precisions_given_spare_an_ill_defined_covariance():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    with pytest.raises(IllDefinedCovarianceError):
        start_of(ArraySource(X), 2, reg_covar=0.0)
    precisions = np.tile(np.eye(2), (2, 1, 1))
    parameters, _ = start_of(ArraySource(X), 2, reg_covar=0.0, precisions=precisions)
    np.testing.assert_allclose(np.sort(parameters.means[:, 0]), [0, 1])


@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_starts_far_from_zero(init_params):
    X, _ = blobs()
    for dtype, shift, digits in ((np.float64, 1e8, 1e-6), (np.float32, 1e4, 1e-2)):
        rows = (X + shift).astype(dtype)
        near, _ = start_of(ArraySource((rows.astype(float) - shift).astype(dtype)), 3, init_params=init_params)
        far, _ = start_of(ArraySource(rows), 3, init_params=init_params)
        if init_params == "random":  # depends on the bits of a row
            np.testing.assert_allclose(far.means - shift, near.means, atol=1)
        else:
            np.testing.assert_allclose(far.means - shift, near.means, atol=digits)
            np.testing.assert_allclose(far.covariances, near.covariances, atol=digits)


@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_absent_rows_do_not_matter_however_far_they_are(init_params):
    """A row with a float32 fill value has weight 0; squares of its distances overflow."""
    X = blobs(n_components=10, n_samples=1000, separation=20)[0].astype(np.float32)
    with_fill = np.vstack([X, np.full((1, 3), 9.96921e36, np.float32)])
    weights = np.append(np.ones(1000), 0.0)
    for seed in range(3):
        options = {"init_params": init_params, "seed": seed, "covariance_type": "diag"}
        a, _ = start_of(ArraySource(X, np.ones(1000)), 10, **options)
        b, _ = start_of(ArraySource(with_fill, weights), 10, **options)
        np.testing.assert_allclose(b.means, a.means, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-300, 1e-18, 1e12, 1e300])
def test_unit_of_weights_does_not_matter(scale):
    X, _ = blobs()
    weights = np.random.default_rng(0).uniform(size=len(X))
    for dtype in DTYPES:
        rows = X.astype(dtype)
        a, _ = start_of(ArraySource(rows, weights), 3)
        b, _ = start_of(ArraySource(rows, weights * scale), 3)
        np.testing.assert_allclose(b.means, a.means, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b.covariances, a.covariances, rtol=1e-4, atol=1e-6)


def test_many_rows_are_sampled_for_kmeans_and_few_are_not():
    X, truth = blobs(n_samples=60_000, n_components=5, separation=12)
    source = ArraySource(X)
    assert len(enough_rows(source, 5, RandomStream(0)).X) == ENOUGH
    assert len(enough_rows(source, 200, RandomStream(0)).X) == 200 * ENOUGH_PER_COMPONENT
    assert enough_rows(source, 300, RandomStream(0)) is source
    few = ArraySource(X[:ENOUGH])
    assert enough_rows(few, 5, RandomStream(0)) is few
    present = np.append(np.ones(ENOUGH), np.zeros(50_000))
    assert enough_rows(ArraySource(X, present), 5, RandomStream(0)).sample_weight is present
    for init_params in ("kmeans", "k-means++"):
        parameters, n_distinct = start_of(source, 5, init_params=init_params, seed=3)
        assert n_distinct == 5
        assert parameters.weights.min() > 0.15  # of all rows, about a fifth each
    expected = reference.m_step(X, np.eye(5)[truth], "full", 1e-6)
    parameters, _ = start_of(source, 5, seed=3)
    order, true_order = (np.lexsort(means.T.round(6)) for means in (parameters.means, expected[1]))
    np.testing.assert_allclose(parameters.means[order], expected[1][true_order], atol=0.05)
    np.testing.assert_allclose(parameters.covariances[order], expected[2][true_order], atol=0.1)


def test_a_sample_has_one_row_from_each_share_of_the_weight():
    X = np.arange(1000.0)[:, np.newaxis]
    rows = sample(ArraySource(X), 100, RandomStream(0)).X[:, 0]
    assert ((rows // 10) == np.arange(100)).all()
    assert np.unique(rows % 10).size == 10  # not every tenth
    weights = np.zeros(1000)
    weights[[3, 500, 998]] = 1.0, 2.0, 1.0
    values, counts = np.unique(sample(ArraySource(X, weights), 400, RandomStream(0)).X, return_counts=True)
    np.testing.assert_array_equal(values, [3, 500, 998])
    np.testing.assert_array_equal(counts, [100, 200, 100])


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++"])
def test_a_weight_is_a_number_of_copies_in_samples_too(init_params):
    X, _ = blobs(n_samples=30_000)
    weights = np.random.default_rng(0).integers(0, 4, size=len(X))
    options = {"init_params": init_params, "seed": 5}
    weighted, _ = start_of(ArraySource(X, weights.astype(float)), 4, **options)
    repeated, _ = start_of(ArraySource(np.repeat(X, weights, axis=0)), 4, **options)
    np.testing.assert_allclose(weighted.means, repeated.means, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(weighted.covariances, repeated.covariances, rtol=1e-9, atol=1e-11)


def test_numbers_drawn_together_are_those_drawn_one_by_one():
    one_by_one, together = RandomStream(7), RandomStream(7)
    np.testing.assert_array_equal([one_by_one.uniform() for _ in range(50)], together.uniforms(50))
    assert one_by_one.word() == together.word()
