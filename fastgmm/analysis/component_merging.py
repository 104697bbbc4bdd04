"""Components that are one cluster: joined, two at a time, where that makes rows surest of their cluster.

A cluster that is no Gaussian takes several components. Joining them does not change the density, only what is called a
cluster (Baudry, Raftery, Celeux, Lo & Gottardo, 2010, Journal of Computational and Graphical Statistics 19; mclust's
`clustCombi`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fastgmm.e_step.scores import predict_proba
from fastgmm.estimators.fitted import FittedMixture, best_of

Array = NDArray[np.float64]
NUMBERS_PER_BLOCK = 1 << 20


@dataclass(frozen=True)
class CombinedComponents:
    """Which components are joined for each number of clusters.

    Attributes
    ----------
    model : FittedMixture
        The fitted mixture.
    merges : (K - 1, 2) int
        Components, one of each of the clusters that are joined, one pair after the other.
    entropies : (K,)
        The entropy of the clustering in nats, of all rows, with K, K - 1, ... 1 clusters.
    """

    model: FittedMixture
    merges: NDArray[np.intp]
    entropies: Array

    def __repr__(self) -> str:
        entropies = np.array2string(self.entropies.round(2) + 0.0, threshold=10, max_line_width=200)
        return f"CombinedComponents({len(self.entropies)} components of a {type(self.model).__name__}, {entropies=!s})"

    @property
    def n_clusters(self) -> NDArray[np.intp]:
        """The numbers of clusters that `entropies` are of: K, K - 1, ... 1."""
        return np.arange(len(self.entropies), 0, -1)

    def clusters(self, n_clusters: int) -> NDArray[np.intp]:
        """The cluster, numbered from 0, of each component, (K,)."""
        if not isinstance(n_clusters, Integral) or not 1 <= int(n_clusters) <= len(self.entropies):
            raise ValueError(f"n_clusters should be from 1 to {len(self.entropies)}, but is {n_clusters!r}")
        cluster = np.arange(len(self.entropies))
        for i, j in self.merges[: len(self.entropies) - int(n_clusters)]:
            cluster[cluster == cluster[j]] = cluster[i]
        return np.unique(cluster, return_inverse=True)[1]

    def predict_proba(self, X: ArrayLike, n_clusters: int) -> NDArray:
        """The probability of each cluster given each row, (n, n_clusters)."""
        clusters = self.clusters(n_clusters)
        member = np.eye(n_clusters)[clusters]
        resp = self.model.predict_proba(X)
        return resp @ member.astype(resp.dtype)

    def predict(self, X: ArrayLike, n_clusters: int) -> NDArray[np.int64]:
        """The most probable cluster of each row, (n,)."""
        return self.predict_proba(X, n_clusters).argmax(axis=1)


def combine_components(
    model: FittedMixture | BaseEstimator, X: ArrayLike, sample_weight: ArrayLike | None = None
) -> CombinedComponents:
    """Join the components of a fitted mixture into clusters.

    Parameters
    ----------
    model : GaussianMixture, BayesianGaussianMixture, or a search such as MixtureSearch
        Fitted; of a search its best estimator is taken.
    X : array-like of shape (n_samples, n_features)
        Rows whose responsibilities decide; read K times in blocks.
    sample_weight : array-like of shape (n_samples,), optional
        How often each row counts.

    Returns
    -------
    CombinedComponents
        Where its entropies fall steeply from one number of clusters to the next, and little after, is a number of
        clusters to take; `EntropyDisplay` draws them.

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
    model = best_of(model)
    if not isinstance(model, FittedMixture):
        raise TypeError(f"This is for a mixture of fastgmm or a fitted search for one, but got {type(model).__name__}")
    check_is_fitted(model)
    X = model._rows(X)
    given = model._sample_weight(sample_weight, X)
    weights = np.ones(len(X)) if given is None else given
    n_components = len(model.means_)
    member = np.eye(n_components)
    alive = np.ones(n_components, bool)
    single, paired = np.zeros(n_components), np.zeros((n_components, n_components))
    stale, merges, entropies = list(range(n_components)), [], []
    for _ in range(n_components):
        _update(single, paired, stale, alive, _blocks(model, X, weights, member))
        entropies.append(float(single[alive].sum()))
        gain = single[:, np.newaxis] + single - paired
        gain[~(alive[:, np.newaxis] & alive) | np.tri(n_components, dtype=bool)] = -np.inf
        i, j = np.unravel_index(int(gain.argmax()), gain.shape)
        if alive.sum() > 1:
            merges.append((i, j))
            member[:, i] += member[:, j]
            member[:, j] = 0.0
            alive[j] = False
            stale = [int(i)]
    return CombinedComponents(model, np.array(merges, dtype=np.intp).reshape(-1, 2), np.array(entropies))


def _blocks(model: FittedMixture, X: NDArray, weights: Array, member: Array) -> Iterator[tuple[Array, Array]]:
    """The clusters' probabilities, (n, K), and the weights of some rows after the other."""
    n_rows, parameters = max(1, NUMBERS_PER_BLOCK // len(member)), model._parameters()
    for start in range(0, len(X), n_rows):
        rows = slice(start, start + n_rows)
        resp = predict_proba(parameters, X[rows], n_jobs=model.n_jobs)
        yield resp.astype(np.float64) @ member, weights[rows]


def _update(
    single: Array, paired: Array, stale: list[int], alive: NDArray[np.bool_], blocks: Iterator[tuple[Array, Array]]
) -> None:
    """Entropies of clusters, and of pairs joined, for those clusters that are new."""
    others = np.flatnonzero(alive)
    single[stale] = 0.0
    paired[stale] = paired[:, stale] = 0.0
    for resp, weights in blocks:
        single[stale] -= weights @ xlogy(resp[:, stale], resp[:, stale])
        for i in stale:
            both = resp[:, [i]] + resp[:, others]
            paired[i, others] -= weights @ xlogy(both, both)
    for i in stale:
        paired[others, i] = paired[i, others]
