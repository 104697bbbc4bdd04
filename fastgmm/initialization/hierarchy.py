"""Model-based agglomeration of micro-clusters.

Two clusters at a time are merged: those whose merging lowers the likelihood of a Gaussian mixture least. mclust's `hc`
merges rows. Here the clusters are a few hundred micro-clusters of k-means. Only their weights, means and scatter count,
so the cost does not depend on the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastgmm.mixture.moments import total_covariance

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Micro-clusters and the order in which they merge.

    It gives a start for any number of components.

    Attributes
    ----------
    weights : (M,)
        Positive.
    means : (M, D)
    scatter : (M, D, D)
        About the means.
    merges : (M - 1, 2) int
        See `merge_order`.
    """

    weights: Array
    means: Array
    scatter: Array
    merges: NDArray[np.intp]
    _groups: dict[int, tuple[Array, Array, Array]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, weights: Array, means: Array, scatter: Array, *, n_rows: float, n_components: int, floor: float
    ) -> Hierarchy:
        """Return the hierarchy of micro-clusters; those without weight are left out.

        As in mclust's prior, small clusters are shrunk to the overall covariance, divided by
        ``n_components ** (2 / D)``.

        Parameters
        ----------
        weights : (M,)
        means : (M, D)
        scatter : (M, D, D)
            About the means.
        n_rows : float
            Number of rows. It gives the weights their unit, which may be any.
        n_components : int
            Number of clusters for which the overall covariance is divided.
        floor : float
            Added to the variances of that covariance.
        """
        has_weight = weights > 0
        weights, means, scatter = weights[has_weight], means[has_weight], scatter[has_weight]
        total = total_covariance(weights / weights.sum(), means, scatter.sum(axis=0) / weights.sum())
        floor = floor + 1e-12 * np.trace(total) + 1e-100
        scale = total / n_components ** (2 / len(total)) + floor * np.eye(len(total))
        count = n_rows / weights.sum()
        return cls(weights, means, scatter, merge_order(weights * count, means, scatter * count, scale))

    def moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        """Return the moments of `n_groups` groups of micro-clusters, read-only.

        If there are fewer micro-clusters, some groups have weight 0. The result is cached, since a search asks for it
        once for every model.

        Returns
        -------
        weights : (n_groups,)
        means : (n_groups, D)
        scatter : (n_groups, D, D)
            About the means.
        """
        if n_groups not in self._groups:
            self._groups[n_groups] = self._moments(n_groups)
            for array in self._groups[n_groups]:
                array.flags.writeable = False
        return self._groups[n_groups]

    def _moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        """Compute the moments of groups; see `moments`."""
        group = cut_tree(self.merges, n_groups)
        member = (group == np.arange(n_groups)[:, np.newaxis]).astype(np.float64) * self.weights
        weights = member.sum(axis=1)
        share = member / np.maximum(weights, 1e-300)[:, np.newaxis]
        overall = self.weights @ self.means / self.weights.sum()
        means = np.where(weights[:, np.newaxis] > 0, share @ self.means, overall)
        apart = self.means - means[group]
        between = (self.weights[:, np.newaxis] * apart)[:, :, np.newaxis] * apart[:, np.newaxis, :]
        scatter = np.zeros((n_groups, *self.scatter.shape[1:]))
        np.add.at(scatter, group, self.scatter + between)
        return weights, means, scatter


def merge_order(weights: Array, means: Array, scatter: Array, scale: Array) -> NDArray[np.intp]:
    """Return the order in which clusters merge, until one is left.

    Each step merges the pair whose merging lowers the classification likelihood least, for Gaussians with free
    covariances (VVV; Fraley, 1998, SIAM Journal on Scientific Computing 20). A cluster with weight n and scatter W
    contributes ``-n/2 log det ((W + (D + 2) scale) / (n + D + 2))``. The covariance `scale` is that to which small
    clusters are shrunk. This takes about M^2 D^3 flops and the memory of two arrays (M, D, D).

    Parameters
    ----------
    weights : (M,)
        Positive.
    means : (M, D)
    scatter : (M, D, D)
        About the means.
    scale : (D, D)
        Positive definite.

    Returns
    -------
    merges : (M - 1, 2) int
        The second cluster of a pair is merged into the first, which keeps its number.
    """
    weights, means, scatter = weights.copy(), means.copy(), scatter.copy()
    n_clusters = len(weights)
    prior = means.shape[1] + 2.0

    def cost(weight: Array, within: Array) -> Array:
        covariances = (within + prior * scale) / (weight + prior)[:, np.newaxis, np.newaxis]
        return weight * np.linalg.slogdet(covariances)[1] / 2

    def losses(i: int, others: NDArray[np.intp]) -> Array:
        weight = weights[i] + weights[others]
        apart = means[others] - means[i]
        factor = (weights[i] * weights[others] / weight)[:, np.newaxis, np.newaxis]
        within = scatter[i] + scatter[others] + factor * apart[:, :, np.newaxis] * apart[:, np.newaxis, :]
        return cost(weight, within) - single[i] - single[others]

    single = cost(weights, scatter)
    loss = np.full((n_clusters, n_clusters), np.inf)
    for i in range(n_clusters - 1):
        others = np.arange(i + 1, n_clusters)
        loss[i, others] = loss[others, i] = losses(i, others)
    lowest = loss.min(axis=1)
    alive, merges = np.ones(n_clusters, bool), []
    for _ in range(n_clusters - 1):
        i = int(lowest.argmin())
        j = int(loss[i].argmin())
        i, j = min(i, j), max(i, j)
        merges.append((i, j))
        total = weights[i] + weights[j]
        apart = means[j] - means[i]
        scatter[i] += scatter[j] + weights[i] * weights[j] / total * np.outer(apart, apart)
        means[i] += weights[j] / total * apart
        weights[i] = total
        single[i] = cost(weights[[i]], scatter[[i]])[0]
        alive[j] = False
        loss[j] = loss[:, j] = np.inf
        others = np.flatnonzero(alive & (np.arange(n_clusters) != i))
        loss[i, others] = loss[others, i] = losses(i, others)
        lowest = loss.min(axis=1)
    return np.array(merges, dtype=np.intp).reshape(-1, 2)


def cut_tree(merges: NDArray[np.intp], n_groups: int) -> NDArray[np.int32]:
    """Return the group, from 0, of each cluster, (M,), after merging to `n_groups`."""
    n_clusters = len(merges) + 1
    group = np.arange(n_clusters)
    for i, j in merges[: max(0, n_clusters - n_groups)]:
        group[group == j] = i
    return np.unique(group, return_inverse=True)[1].astype(np.int32)
