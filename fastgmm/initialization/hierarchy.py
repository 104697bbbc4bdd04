"""Model-based agglomeration: small clusters joined, two at a time, where a Gaussian mixture loses least.

What mclust's `hc` does to rows, done to a few hundred micro-clusters of k-means, of which only sizes, means and
scatter matter, so that it costs the same for any number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Micro-clusters, and which of them join: a start for any number of components.

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
        """Micro-clusters with weights (M,), means and scatter about these, joined.

        What small clusters are drawn to is, as in mclust's prior, the overall covariance, for `n_components` clusters
        side by side, and `floor`. Rows are counted, `n_rows`, since the unit of weights is anyone's.
        """
        there = weights > 0
        weights, means, scatter = weights[there], means[there], scatter[there]
        share = weights / weights.sum()
        centred = means - share @ means
        total = scatter.sum(axis=0) / weights.sum() + (share[:, np.newaxis] * centred).T @ centred
        floor = floor + 1e-12 * np.trace(total) + 1e-100
        scale = total / n_components ** (2 / len(total)) + floor * np.eye(len(total))
        count = n_rows / weights.sum()
        return cls(weights, means, scatter, merge_order(weights * count, means, scatter * count, scale))

    def moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        """Weights (n_groups,), means and scatter about these, of so many groups; some have none if there are fewer.

        CheckpointState, since a search asks for the same again for every model; read-only.
        """
        if n_groups not in self._groups:
            self._groups[n_groups] = self._moments(n_groups)
            for array in self._groups[n_groups]:
                array.flags.writeable = False
        return self._groups[n_groups]

    def _moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        group = cut(self.merges, n_groups)
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
    """Which clusters join, one pair after the other, until all are one.

    Those of which the classification likelihood of Gaussians with any covariances falls least (VVV; Fraley, 1998, SIAM
    Journal on Scientific Computing 20), where a cluster with weight n and scatter W contributes
    ``-n/2 log det ((W + (D + 2) scale) / (n + D + 2))``: `scale` is a covariance that small clusters are drawn to.
    Flops: about M^2 D^3; memory: two arrays (M, D, D).

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
        The second joins the first, which keeps its number.
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
        pull = (weights[i] * weights[others] / weight)[:, np.newaxis, np.newaxis]
        within = scatter[i] + scatter[others] + pull * apart[:, :, np.newaxis] * apart[:, np.newaxis, :]
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


def cut(merges: NDArray[np.intp], n_groups: int) -> NDArray[np.int32]:
    """The group of each cluster, (M,), when merging stops at so many groups, numbered from 0."""
    n_clusters = len(merges) + 1
    group = np.arange(n_clusters)
    for i, j in merges[: max(0, n_clusters - n_groups)]:
        group[group == j] = i
    return np.unique(group, return_inverse=True)[1].astype(np.int32)
