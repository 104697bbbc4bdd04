"""Agglomeration of micro-clusters, and starts from it."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fastgmm import GaussianMixture
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.hierarchy import cut_tree, merge_order
from fastgmm.initialization.whitening import whitened
from helpers import blobs


def naive_merge_order(weights, means, scatter, scale):
    """Return the order of merging; all pairs are computed anew after every merge."""
    clusters = {i: (weights[i], means[i], scatter[i]) for i in range(len(weights))}
    prior = means.shape[1] + 2

    def cost(n, W):
        return n / 2 * np.log(np.linalg.det((W + prior * scale) / (n + prior)))

    def joined(a, b):
        n = a[0] + b[0]
        d = b[1] - a[1]
        return n, a[1] + b[0] / n * d, a[2] + b[2] + a[0] * b[0] / n * np.outer(d, d)

    merges = []
    while len(clusters) > 1:
        losses = {}
        for i, a in clusters.items():
            for j, b in clusters.items():
                if i < j:
                    both = joined(a, b)
                    losses[i, j] = cost(both[0], both[2]) - cost(a[0], a[2]) - cost(b[0], b[2])
        i, j = min(losses, key=losses.get)
        clusters[i] = joined(clusters[i], clusters.pop(j))
        merges.append((i, j))
    return merges


@pytest.mark.parametrize("n_features", [1, 3])
def test_clusters_are_joined_as_by_the_naive_way(n_features):
    rng = np.random.default_rng(0)
    weights, means = rng.uniform(1, 20, 15), rng.normal(size=(15, n_features))
    roots = rng.normal(size=(15, n_features, n_features))
    arguments = weights, means, roots @ roots.swapaxes(1, 2), 0.3 * np.eye(n_features)
    copies = [a.copy() for a in arguments]
    merges = merge_order(*arguments)
    assert [tuple(pair) for pair in merges.tolist()] == naive_merge_order(*arguments)
    for argument, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


def test_cutting_gives_the_number_of_groups():
    rng = np.random.default_rng(0)
    merges = merge_order(np.ones(9), rng.normal(size=(9, 2)), np.zeros((9, 2, 2)), np.eye(2))
    for n_groups in range(1, 10):
        groups = cut_tree(merges, n_groups)
        assert sorted(set(groups.tolist())) == list(range(n_groups))
    for coarse, fine in ((2, 5), (3, 4)):  # a hierarchy
        a, b = cut_tree(merges, coarse), cut_tree(merges, fine)
        assert len({(i, j) for i, j in zip(a.tolist(), b.tolist(), strict=True)}) == fine
    assert cut_tree(np.empty((0, 2), np.intp), 1).tolist() == [0]


def cigars(n_clusters, n_samples=6000, seed=0):
    """Return long parallel clusters, which k-means divides across."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_clusters, n_samples)
    return np.column_stack([rng.normal(size=n_samples) * 40, labels * 8 + rng.normal(size=n_samples)]), labels


@pytest.mark.parametrize("weighted", [False, True])
def test_agglomeration_finds_cigars(weighted):
    X, labels = cigars(4)
    weights = np.random.default_rng(1).integers(0, 4, len(X)) * 0.01 if weighted else None
    start = GaussianMixture(4, init_params="hc", random_state=0, max_iter=0).fit(X, sample_weight=weights)
    assert adjusted_rand_score(labels, start.predict(X)) > 0.95
    again = GaussianMixture(4, init_params="hc", random_state=0, max_iter=0).fit(X, sample_weight=weights)
    np.testing.assert_array_equal(start.means_, again.means_)


@pytest.mark.parametrize("init_params", ["kmeans", "small_em"])
def test_whitening_finds_cigars(init_params):
    X, labels = cigars(2)
    options = {"init_params": init_params, "random_state": 0, "max_iter": 0}
    start = GaussianMixture(2, whiten_init=True, **options).fit(X)
    assert adjusted_rand_score(labels, start.predict(X)) > 0.95
    if init_params == "kmeans":
        assert adjusted_rand_score(labels, GaussianMixture(2, **options).fit(X).predict(X)) < 0.1


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "small_em"])
def test_a_whitened_start_does_not_depend_on_units(init_params):
    X, _ = blobs(n_components=4, separation=2.0)
    options = {"init_params": init_params, "random_state": 0, "max_iter": 0, "whiten_init": True, "reg_covar": 1e-12}
    start = GaussianMixture(4, **options).fit(X)
    for scale in ([0.125, 64.0, 1.0], [2.0**-40, 2.0**40, 1.0], [2.0**400, 1.0, 1.0]):
        moved = GaussianMixture(4, **{**options, "reg_covar": 0}).fit(X * scale)
        np.testing.assert_allclose(moved.means_, start.means_ * scale, rtol=1e-5)


def test_whitened_rows_have_unit_covariance():
    X, _ = blobs(n_samples=500, n_features=4)
    weights = np.random.default_rng(0).uniform(size=500)
    for dtype in (np.float64, np.float32):
        rows = whitened(ArraySource(X.astype(dtype), weights)).X
        assert rows.dtype == dtype
        np.testing.assert_allclose(np.cov(rows.T, aweights=weights, ddof=0), np.eye(4), atol=1e-4)
    flat = whitened(ArraySource(np.column_stack([X, X[:, 0], np.ones(500)]))).X
    assert flat.shape == (500, 4)  # directions without variance are left out
    assert whitened(ArraySource(np.ones((9, 2)))).X.shape == (9, 2)


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")
@pytest.mark.parametrize("init_params", ["hc", "small_em"])
def test_new_starts_stand_few_and_equal_rows(init_params):
    X = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])
    model = GaussianMixture(2, init_params=init_params, random_state=0).fit(X)
    assert sorted(model.means_[:, 0].round(6)) == [0.0, 5.0]
    with pytest.warns(UserWarning, match=r"Number of distinct clusters|collapsed|are empty"):
        GaussianMixture(4, init_params=init_params, random_state=0).fit(np.repeat(X[:2], 20, axis=0))
