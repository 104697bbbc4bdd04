"""Moments of several Gaussians as one, against the moments of rows."""

import numpy as np

from fastgmm.mixture.moments import merged_pairs, total_covariance


def moments(X):
    """The number of rows, their mean and their covariance."""
    return float(len(X)), X.mean(axis=0), np.cov(X.T, bias=True)


def test_merged_pairs_have_the_moments_of_their_rows_together():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(30, 3)) * [1, 2, 3] + 5
    others = [rng.normal(size=(n, 3)) - n for n in (10, 20)]
    first = (np.array([value]) for value in moments(one))
    second = (np.array(values) for values in zip(*map(moments, others), strict=True))
    weights, means, covariances = merged_pairs(*first, *second)
    for k, other in enumerate(others):
        expected = moments(np.vstack([one, other]))
        np.testing.assert_allclose(weights[k], expected[0])
        np.testing.assert_allclose(means[k], expected[1])
        np.testing.assert_allclose(covariances[k], expected[2])


def test_two_gaussians_without_weight_merge_to_finite_moments():
    zero, point, identity = np.zeros(1), np.ones((1, 2)), np.eye(2)[np.newaxis]
    weights, means, covariances = merged_pairs(zero, point, identity, zero, 3 * point, identity)
    assert weights[0] >= 0
    assert np.isfinite(means).all()
    assert np.isfinite(covariances).all()


def test_the_total_covariance_is_that_of_all_rows():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 2)) * [1, n] + n for n in (10, 20, 40)]
    counts, means, covariances = (np.array(values) for values in zip(*map(moments, parts), strict=True))
    shares = counts / counts.sum()
    total = total_covariance(shares, means, np.tensordot(shares, covariances, axes=1))
    np.testing.assert_allclose(total, moments(np.vstack(parts))[2])
