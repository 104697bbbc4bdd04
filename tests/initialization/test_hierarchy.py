"""Agglomeration of rows and of micro-clusters, and starts from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fastgmm import GaussianMixture
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.engine import agglomerate
from fastgmm.initialization import micro_clusters as micro_clusters_module
from fastgmm.initialization.hierarchy import MODELS, cut_tree, equal_rows, hierarchy_of_rows
from fastgmm.initialization.micro_clusters import build_hierarchy
from fastgmm.initialization.whitening import whitened
from helpers import blobs

MCLUST = json.loads((Path(__file__).parent / "mclust_hierarchies.json").read_text())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", MCLUST)
def test_partitions_of_mclust(name, model):
    """Partitions into 2 to 9 groups by R's mclust 6.0.0: `mclust_hierarchies.R` made the file."""
    hierarchy = agglomerate(MCLUST[name]["X"], model)
    partitions = MCLUST[name]["partitions"][model]
    assert sorted(partitions) == [str(n_groups) for n_groups in range(2, 10)]
    for n_groups, labels in partitions.items():
        np.testing.assert_array_equal(hierarchy.labels(int(n_groups)), labels)


@pytest.mark.parametrize("model", MODELS)
def test_copies_are_weights(model):
    X, weights = np.random.default_rng(0).normal(size=(40, 3)), np.random.default_rng(1).integers(1, 4, 40)
    weighted = agglomerate(X, model, sample_weight=weights)
    copied = agglomerate(np.repeat(X, weights, axis=0), model)
    np.testing.assert_array_equal(copied.merges, weighted.merges)
    for n_groups in (1, 3, 40):
        np.testing.assert_array_equal(copied.labels(n_groups), np.repeat(weighted.labels(n_groups), weights))
        for a, b in zip(copied.moments(n_groups), weighted.moments(n_groups), strict=True):
            np.testing.assert_allclose(a, b)
    start = hierarchy_of_rows(X, weights * 0.01, n_components=3, floor=0.0)
    again = hierarchy_of_rows(np.repeat(X, weights, axis=0), None, n_components=3, floor=0.0)
    np.testing.assert_array_equal(start.merges, again.merges)


@pytest.mark.parametrize("model", MODELS)
def test_any_unit_and_singular_rows(model):
    """Where the determinant counts, its share depends on the unit; nothing may leave the range of float64."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    X = np.column_stack([X, X[:, 0], np.ones(40)])  # collinear, constant
    reference = agglomerate(X, model).merges
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        merges = agglomerate(X * scale, model).merges
        assert len(set(merges[:, 1])) == 39
        if model in ("EII", "VII"):
            np.testing.assert_array_equal(merges, reference)
    for weight in (1e-300, 1e300):  # the weight of one row counts beside the traces
        merges = agglomerate(X, model, sample_weight=np.full(40, weight)).merges
        assert len(set(merges[:, 1])) == 39
        if model in ("EII", "EEE"):
            np.testing.assert_array_equal(merges, reference)
    np.testing.assert_array_equal(agglomerate(X + 1e6, model).labels(5), agglomerate(X, model).labels(5))


def test_a_single_feature():
    x = np.random.default_rng(0).normal(size=(50, 1))
    np.testing.assert_array_equal(agglomerate(x, "VVV").merges, agglomerate(x, "VII").merges)
    np.testing.assert_array_equal(agglomerate(x, "EEE").merges, agglomerate(x, "EII").merges)


def test_equal_rows_are_one_cluster():
    rows = np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [0.0, 4.0], [-0.0, 5.0], [1.0, 2.0]])
    numbers, first = equal_rows(rows)
    assert numbers.tolist() == [0, 1, 0, 2, 1, 0]
    assert first.tolist() == [0, 1, 3]
    hierarchy = agglomerate(rows)
    assert hierarchy.weights.tolist() == [3, 2, 1]
    assert hierarchy.labels(3).tolist() == [0, 1, 0, 2, 1, 0]
    assert agglomerate(np.ones((4, 2))).labels(1).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="n_groups must be from 1 to 3"):
        hierarchy.labels(4)


def test_wrong_arguments_of_agglomerate():
    with pytest.raises(ValueError, match="model must be one of EII, VII, EEE, VVV, got 'VEV'"):
        agglomerate(np.eye(2), "VEV")
    for X in ([1.0, 2.0], [[1.0, np.nan]], np.empty((0, 2))):
        with pytest.raises(ValueError, match="X must be a matrix of finite numbers"):
            agglomerate(X)
    for weights in ([1.0], [1.0, 0.0], [1.0, np.inf]):
        with pytest.raises(ValueError, match="sample_weight must have one finite number above 0"):
            agglomerate(np.eye(2), sample_weight=weights)


def test_rows_for_starts_merge_in_any_unit():
    X, _ = blobs(0, n_samples=80, n_features=3)
    root = np.array([[1.0, 0.3, 0.0], [0.0, 1e-3, 0.0], [0.0, 0.0, 1e4]])
    orders = [hierarchy_of_rows(rows, None, n_components=3, floor=0.0).merges for rows in (X, X @ root)]
    np.testing.assert_array_equal(*orders)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # k-means as NumPy code
def test_few_rows_merge_themselves_and_many_as_micro_clusters(monkeypatch):
    X, _ = blobs(0, n_samples=300, n_features=3)
    few = build_hierarchy(ArraySource(X), 3, RandomStream(0), 1e-6)
    assert few.scatter is None
    assert len(few.weights) == 300
    monkeypatch.setattr(micro_clusters_module, "MERGED_ROWS", 299)
    monkeypatch.setattr(micro_clusters_module, "MICRO_CLUSTERS", 50)
    many = build_hierarchy(ArraySource(X), 3, RandomStream(0), 1e-6)
    assert len(many.weights) == 50


def test_cutting_gives_the_number_of_groups():
    merges = agglomerate(np.random.default_rng(0).normal(size=(9, 2))).merges
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
