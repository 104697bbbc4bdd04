"""Merging of components into clusters.

A cluster that is not Gaussian is fitted by several components. Merging them changes the clusters and not the density.
Two components at a time are merged, those that make the cluster of each row most certain. mclust's `clustCombi` does
the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fastgmm.e_step.scores import predict_proba
from fastgmm.estimators.annotations import FloatArray
from fastgmm.estimators.fitted import FittedMixture, best_of

Array = NDArray[np.float64]
# Number of responsibilities that are computed at a time: 8 MB of float64.
NUMBERS_PER_BLOCK = 1 << 20


@dataclass(frozen=True)
class CombinedComponents:
    """Clusters of merged components, for each number of clusters from K to 1.

    Attributes
    ----------
    model : GaussianMixture or BayesianGaussianMixture
        The fitted mixture.
    merges : ndarray of shape (K - 1, 2), int
        Merges in their order. Each row has one component of each of the two clusters that are merged.
    entropies : ndarray of shape (K,)
        Entropy of the clustering with K, K - 1, ... 1 clusters, in nats, summed over all rows.
    """

    model: FittedMixture
    merges: NDArray[np.intp]
    entropies: Array

    def __repr__(self) -> str:
        entropies = np.array2string(self.entropies.round(2) + 0.0, threshold=10, max_line_width=200)
        return f"CombinedComponents({len(self.entropies)} components of a {type(self.model).__name__}, {entropies=!s})"

    @property
    def n_clusters(self) -> NDArray[np.intp]:
        """Numbers of clusters to which `entropies` belong: K, K - 1, ... 1."""
        return np.arange(len(self.entropies), 0, -1)

    def clusters(self, n_clusters: int) -> NDArray[np.intp]:
        """Find the cluster of each component.

        Parameters
        ----------
        n_clusters : int
            Number of clusters, from 1 to K.

        Returns
        -------
        ndarray of shape (K,), int
            Clusters, numbered from 0.

        Raises
        ------
        ValueError
            If `n_clusters` is not an integer from 1 to K.
        """
        if not isinstance(n_clusters, Integral) or not 1 <= int(n_clusters) <= len(self.entropies):
            raise ValueError(f"n_clusters must be an integer from 1 to {len(self.entropies)}, got {n_clusters!r}.")
        cluster = np.arange(len(self.entropies))
        for i, j in self.merges[: len(self.entropies) - int(n_clusters)]:
            cluster[cluster == cluster[j]] = cluster[i]
        numbered: NDArray[np.intp] = np.unique(cluster, return_inverse=True)[1]
        return numbered

    def predict_proba(self, X: ArrayLike, n_clusters: int) -> FloatArray:
        """Compute the probability of each cluster given each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows whose probabilities are computed.
        n_clusters : int
            Number of clusters, from 1 to K.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            Probabilities; each row sums to 1.

        Raises
        ------
        ValueError
            If `n_clusters` is not an integer from 1 to K, or the rows are invalid.
        """
        clusters = self.clusters(n_clusters)
        member = np.eye(n_clusters)[clusters]
        resp = self.model.predict_proba(X)
        return resp @ member.astype(resp.dtype)

    def predict(self, X: ArrayLike, n_clusters: int) -> NDArray[np.int64]:
        """Predict the most probable cluster of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to label.
        n_clusters : int
            Number of clusters, from 1 to K.

        Returns
        -------
        ndarray of shape (n_samples,), int64
            Clusters, numbered from 0.

        Raises
        ------
        ValueError
            If `n_clusters` is not an integer from 1 to K, or the rows are invalid.
        """
        labels: NDArray[np.int64] = self.predict_proba(X, n_clusters).argmax(axis=1)
        return labels


def combine_components(
    model: FittedMixture | BaseEstimator, X: ArrayLike, sample_weight: ArrayLike | None = None
) -> CombinedComponents:
    """Merge the components of a fitted mixture into clusters.

    Each step merges the two clusters whose merge reduces the entropy of the clustering most [1]_. The density of the
    mixture does not change.

    Parameters
    ----------
    model : GaussianMixture, BayesianGaussianMixture, or a search such as MixtureSearch
        A fitted mixture, or a fitted search, whose best estimator is taken.
    X : array-like of shape (n_samples, n_features)
        Rows whose responsibilities decide. They are read K times, in blocks.
    sample_weight : array-like of shape (n_samples,), optional
        How often each row counts.

    Returns
    -------
    CombinedComponents
        The clusters for each number of clusters, and their entropies. A good number of clusters is one up to which the
        entropy falls steeply, and after which it falls slowly.

    Raises
    ------
    TypeError
        If `model` is not a mixture of fastgmm.
    ValueError
        If rows or weights are not finite, or `X` has another number of features than the model.

    See Also
    --------
    EntropyDisplay : Picture of the entropies.
    MixtureSearch : Choice of the number of components.

    References
    ----------
    .. [1] J.-P. Baudry, A. E. Raftery, G. Celeux, K. Lo and R. Gottardo (2010). Combining mixture components for
       clustering. Journal of Computational and Graphical Statistics 19.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, combine_components
    >>> rng = np.random.default_rng(0)
    >>> square, ball = rng.uniform(-1, 1, size=(500, 2)), rng.normal(size=(500, 2)) / 4 + [5, 0]
    >>> X = np.vstack([square, ball])
    >>> combined = combine_components(GaussianMixture(4, random_state=0).fit(X), X)
    >>> labels = combined.predict(X, 2)
    >>> len(set(labels[:500])), len(set(labels[500:])), bool(labels[0] != labels[-1])
    (1, 1, True)
    """
    mixture = best_of(model)
    if not isinstance(mixture, FittedMixture):
        raise TypeError(
            f"model must be a mixture of fastgmm, or a fitted search for one, got {type(mixture).__name__}. Give a "
            "fitted GaussianMixture."
        )
    check_is_fitted(mixture)
    rows = mixture._rows(X)
    user_weights = mixture._sample_weight(sample_weight, rows)
    weights = np.ones(len(rows)) if user_weights is None else user_weights
    n_components = len(mixture.means_)
    member = np.eye(n_components)
    active = np.ones(n_components, bool)
    single, paired = np.zeros(n_components), np.zeros((n_components, n_components))
    changed = list(range(n_components))
    merges: list[tuple[np.intp, np.intp]] = []
    entropies: list[float] = []
    for _ in range(n_components):
        _update_entropies(single, paired, changed, active, _cluster_probabilities(mixture, rows, weights, member))
        entropies.append(float(single[active].sum()))
        gain = single[:, np.newaxis] + single - paired
        gain[~(active[:, np.newaxis] & active) | np.tri(n_components, dtype=bool)] = -np.inf
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if active.sum() > 1:
            merges.append((i, j))
            member[:, i] += member[:, j]
            member[:, j] = 0.0
            active[j] = False
            changed = [int(i)]
    return CombinedComponents(mixture, np.array(merges, dtype=np.intp).reshape(-1, 2), np.array(entropies))


def _cluster_probabilities(
    mixture: FittedMixture, X: NDArray[Any], weights: Array, member: Array
) -> Iterator[tuple[Array, Array]]:
    """Yield the clusters' probabilities (n, K) and the weights (n,), block by block.

    `member` (K, K) has 1 where a component, the first index, is in a cluster, the second index.
    """
    n_rows, parameters = max(1, NUMBERS_PER_BLOCK // len(member)), mixture._parameters()
    for start in range(0, len(X), n_rows):
        block = slice(start, start + n_rows)
        resp = predict_proba(parameters, X[block], n_jobs=mixture.n_jobs)
        yield resp.astype(np.float64) @ member, weights[block]


def _update_entropies(
    single: Array, paired: Array, changed: list[int], active: NDArray[np.bool_], blocks: Iterator[tuple[Array, Array]]
) -> None:
    """Compute the entropies that have changed.

    Parameters
    ----------
    single : (K,)
        Entropy of each cluster; changed in place.
    paired : (K, K)
        Entropy of each two clusters if they were merged; changed in place.
    changed : list of int
        Clusters that are new.
    active : (K,) bool
        Whether a cluster has components.
    blocks : iterator
        Of `_cluster_probabilities`.
    """
    others = np.flatnonzero(active)
    single[changed] = 0.0
    paired[changed] = paired[:, changed] = 0.0
    for resp, weights in blocks:
        single[changed] -= weights @ xlogy(resp[:, changed], resp[:, changed])
        for i in changed:
            both = resp[:, [i]] + resp[:, others]
            paired[i, others] -= weights @ xlogy(both, both)
    for i in changed:
        paired[others, i] = paired[i, others]
