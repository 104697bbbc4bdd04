"""Components that are merged and split: which come first, and that the moments of the whole are kept."""

import numpy as np
import pytest

from fastgmm.data.sources import ArraySource
from fastgmm.engine import predict_proba
from fastgmm.fitting.component_moves import components_by_shape, full_moments, pairs_by_merge_loss, split_and_merge
from helpers import badly_started, full_covariances, random_parameters, three_clusters


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
