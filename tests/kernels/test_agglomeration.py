"""Agglomeration: the kernels against naive twins, and their operations one by one."""

import numpy as np
import pytest

from fastgmm import kernels
from fastgmm.kernels import MergeCriterion, merge_order, pooled_merge_order
from fastgmm.kernels.clustering import agglomeration, merge_losses
from fastgmm.kernels.compiler import runtime
from helpers import JIT, compiled


def joined(a, b):
    """Return two clusters (weight, mean, scatter, rank) as one."""
    weight, apart = a[0] + b[0], b[1] - a[1]
    within = a[2] + b[2] + a[0] * b[0] / weight * np.outer(apart, apart)
    return weight, a[1] + b[0] / weight * apart, within, a[3] + b[3] + 1


def naive_term(criterion, cluster):
    """Return what a cluster adds to the criterion."""
    weight, _, scatter, rank = cluster
    if criterion.kind == agglomeration.DISTANCE:
        return np.trace(scatter)
    n_features = len(scatter)
    shrunk = (scatter + criterion.prior * np.eye(n_features)) / (weight + criterion.prior)
    determinant = np.linalg.det(shrunk) if criterion.prior > 0 or rank >= n_features else 0.0
    spread = criterion.spread * (np.trace(scatter) + criterion.alone) / weight
    return weight * np.log(criterion.determinant * determinant + spread)


def clusters_of(weights, means, scatter):
    n_features = means.shape[1]
    scatter = np.zeros((len(weights), n_features, n_features)) if scatter is None else scatter
    ranks = [0 if not s.any() else n_features for s in scatter]
    return dict(enumerate(zip(weights, means, scatter, ranks, strict=True)))


def naive_merge_order(weights, means, scatter, criterion):
    """Return the order of merging: each pair's loss from two terms, computed anew for the new cluster."""
    clusters = clusters_of(weights, means, scatter)

    def loss(i, j):
        a, b = clusters[i], clusters[j]
        return naive_term(criterion, joined(a, b)) - naive_term(criterion, a) - naive_term(criterion, b)

    losses = {(i, j): loss(i, j) for i in clusters for j in clusters if i < j}
    merges = []
    while losses:
        i, j = min(losses, key=losses.get)
        merges.append((i, j))
        clusters[i] = joined(clusters[i], clusters.pop(j))
        losses = {pair: value for pair, value in losses.items() if j not in pair}
        losses.update({(min(i, k), max(i, k)): loss(min(i, k), max(i, k)) for k in clusters if k != i})
    return merges


def naive_pooled_merge_order(weights, means, scatter, determinant, spread):
    """Return the order of merging: the criterion of every pair, computed anew after each merge."""
    clusters = clusters_of(weights, means, None)
    pooled, total = np.array(scatter), weights.sum()

    def criterion(pair):
        a, b = clusters[pair[0]], clusters[pair[1]]
        within = (pooled + joined(a, b)[2] - a[2] - b[2]) / total
        return determinant * np.linalg.det(within) + spread * np.trace(within)

    merges = []
    while len(clusters) > 1:
        i, j = min(((i, j) for i in clusters for j in clusters if i < j), key=criterion)
        merges.append((i, j))
        a, b = clusters[i], clusters.pop(j)
        clusters[i] = joined(a, b)
        pooled += clusters[i][2] - a[2] - b[2]
    return merges


def random_clusters(n_clusters, n_features, seed, *, weighted=False, spread=False):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_clusters, n_features)) + 3 * rng.integers(0, 3, (n_clusters, 1))
    weights = rng.uniform(0.5, 5, n_clusters) if weighted else np.ones(n_clusters)
    roots = 0.3 * rng.normal(size=(n_clusters, n_features, n_features))
    return weights, means, roots @ roots.swapaxes(1, 2) if spread else None


CRITERIA = {
    "EII": MergeCriterion.distances(),
    "VII": MergeCriterion.traces(alone=1.5),
    "VVV": MergeCriterion.determinants(1.0, 0.8, alone=1.5),
    "shrunk": MergeCriterion.shrunk(2.0),
}


@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 6, 7, 8, 9, 14])
@pytest.mark.parametrize("name", CRITERIA)
def test_order_of_merging_against_the_naive_twin(name, n_features):
    """With more than 16 clusters, they move together in between."""
    n_clusters = 50 if n_features == 2 else 28
    arguments = random_clusters(n_clusters, n_features, n_features, weighted=n_features % 3 == 0)
    copies = [a.copy() for a in arguments[:2]]
    merges = merge_order(*arguments, CRITERIA[name])
    assert merges.tolist() == [list(pair) for pair in naive_merge_order(*arguments, CRITERIA[name])]
    for argument, copy in zip(arguments, copies, strict=False):
        np.testing.assert_array_equal(argument, copy)


@pytest.mark.parametrize("n_features", [1, 3, 9])
@pytest.mark.parametrize("name", CRITERIA)
def test_clusters_with_scatter_against_the_naive_twin(name, n_features):
    arguments = random_clusters(21, n_features, 0, weighted=True, spread=True)
    merges = merge_order(*arguments, CRITERIA[name])
    assert merges.tolist() == [list(pair) for pair in naive_merge_order(*arguments, CRITERIA[name])]


@pytest.mark.parametrize("n_features", [2, 3, 4, 8])
def test_a_pooled_covariance_against_the_naive_twin(n_features):
    weights, means, _ = random_clusters(20, n_features, n_features, weighted=n_features % 3 == 0)
    for scatter in (np.zeros((n_features, n_features)), np.eye(n_features)):
        arguments = weights, means, scatter, 1.0, 0.7
        assert pooled_merge_order(*arguments).tolist() == [list(pair) for pair in naive_pooled_merge_order(*arguments)]


def test_one_or_two_clusters():
    for n_clusters, merges in ((1, []), (2, [[0, 1]])):
        rows = np.ones(n_clusters), np.eye(2)[:n_clusters]
        for criterion in CRITERIA.values():
            assert merge_order(*rows, None, criterion).tolist() == merges
        assert pooled_merge_order(*rows, np.zeros((2, 2)), 1.0, 1.0).tolist() == merges


@pytest.mark.skipif(not JIT, reason="threads")
@pytest.mark.parametrize("n_features", [3, 12])
@pytest.mark.parametrize("name", CRITERIA)
def test_threads_do_not_change_the_order(name, n_features, monkeypatch):
    arguments = random_clusters(150, n_features, 1, weighted=True)
    serial = merge_order(*arguments, CRITERIA[name])
    monkeypatch.setattr(runtime, "MIN_PARALLEL_MULTIPLY_ADDS", 0)
    for n_jobs in (1, 2, -1):
        with kernels.thread_limit(n_jobs):
            np.testing.assert_array_equal(merge_order(*arguments, CRITERIA[name]), serial)


def tiles_of(n_features, rng):
    """Return a tile of clusters, some of them singular, and one cluster."""
    n_lanes = merge_losses.LANES + 1
    roots = rng.normal(size=(n_lanes, n_features, n_features + 2))
    roots[::3, 0] = 0.0
    roots[1::3, :, 1:] = 0.0
    scatter = roots @ roots.swapaxes(1, 2)
    columns = np.zeros((n_lanes, merge_losses.MEAN + n_features + merge_losses.packed(n_features)))
    columns[:, merge_losses.WEIGHT] = rng.uniform(1, 9, n_lanes)
    columns[:, merge_losses.RANK] = rng.integers(0, n_features + 1, n_lanes)
    columns[:, merge_losses.TERM] = rng.normal(size=n_lanes)
    columns[:, merge_losses.TRACE] = np.trace(scatter, axis1=1, axis2=2)
    columns[:, merge_losses.MEAN :][:, :n_features] = rng.normal(size=(n_lanes, n_features))
    lower = np.tril_indices(n_features)
    columns[:, merge_losses.MEAN + n_features :] = scatter[:, lower[0], lower[1]]
    return np.ascontiguousarray(columns[:-1].T), columns[-1].copy()


@pytest.mark.skipif(not JIT, reason="emitted code")
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 17])
def test_operations_against_their_naive_twins(n_features):
    rng = np.random.default_rng(n_features)
    tile, cluster = tiles_of(n_features, rng)
    work = np.full((merge_losses.work_rows(n_features), merge_losses.LANES), np.nan)
    metric = rng.normal(size=(n_features, n_features))
    metric = metric + metric.T
    calls = [
        (merge_losses.emit_distance_losses, merge_losses.distance_losses, ()),
        (merge_losses.emit_trace_losses, merge_losses.trace_losses, (np.array([0.0, 0.0, 0.7, 1.3]),)),
        (merge_losses.emit_metric_losses, merge_losses.metric_losses, (metric,)),
        *(
            (merge_losses.emit_determinant_losses, merge_losses.determinant_losses, (np.array(constants), work))
            for constants in ([0.0, 1.0, 0.7, 1.3], [2.0, 1.0, 0.0, 0.0], [0.0, 0.3, 1.0, 0.1])
        ),
    ]
    for operation, naive, others in calls:
        results = np.full((2, merge_losses.LANES), np.nan)
        compiled(operation, naive)(tile, cluster, n_features, *others, results[0])
        naive(tile, cluster, n_features, *others, results[1])
        np.testing.assert_allclose(results[0], results[1], rtol=1e-12, atol=1e-11 * np.abs(results[1]).max())


@pytest.mark.skipif(not JIT, reason="emitted code")
def test_lowest_of_older_against_its_naive_twin():
    rng = np.random.default_rng(0)
    find = compiled(merge_losses.emit_lowest_of_older, merge_losses.lowest_of_older)
    for n in (merge_losses.LANES, 3 * merge_losses.LANES):
        values, births = rng.normal(size=n + 7), rng.permutation(n + 7).astype(float)
        births[::5] = np.inf
        for own in (-1.0, 0.0, n / 2, np.inf):
            results = np.zeros((2, 1))
            find(values, births, np.array([own]), n, results[0])
            merge_losses.lowest_of_older(values, births, np.array([own]), n, results[1])
            assert results[0] == results[1]
