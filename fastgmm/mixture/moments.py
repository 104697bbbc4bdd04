"""Moments of several Gaussians as one.

`initialization.hierarchy` merges scatter in place of covariances. It has expressions of its own, because these would
round differently.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def merged_pairs(
    weights_1: Array, means_1: Array, covariances_1: Array, weights_2: Array, means_2: Array, covariances_2: Array
) -> tuple[Array, Array, Array]:
    """Return the weights, means and covariances of pairs of Gaussians as one.

    Parameters
    ----------
    weights_1, weights_2 : (n,), or (1,) for a Gaussian that is part of all pairs
    means_1, means_2 : (n, D) or (1, D)
    covariances_1, covariances_2 : (n, D, D) or (1, D, D)

    Returns
    -------
    weights : (n,)
    means : (n, D)
    covariances : (n, D, D)
    """
    weights = np.maximum(weights_1 + weights_2, 1e-300)
    share_1, share_2 = (weights_1 / weights)[:, np.newaxis], (weights_2 / weights)[:, np.newaxis]
    apart = np.broadcast_to(means_2 - means_1, np.broadcast_shapes(means_1.shape, means_2.shape))
    between = (share_1 * share_2 * apart)[:, :, np.newaxis] * apart[:, np.newaxis, :]
    within = share_1[..., np.newaxis] * covariances_1 + share_2[..., np.newaxis] * covariances_2
    return weights, means_1 + share_2 * apart, within + between


def total_covariance(weights: Array, means: Array, within: Array) -> Array:
    """Return the covariance of a whole mixture, (D, D).

    Parameters
    ----------
    weights : (K,)
        Sum to one.
    means : (K, D)
    within : (D, D)
        The mean of the components' covariances, by weight.
    """
    centred = means - weights @ means
    return within + (weights[:, np.newaxis] * centred).T @ centred
