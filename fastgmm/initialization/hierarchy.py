"""Model-based agglomeration of rows or of micro-clusters.

Two clusters at a time are merged: those whose merging lowers the likelihood of a Gaussian mixture least, as in mclust's
`hc`. Clusters may be rows, or a few hundred micro-clusters of k-means, of which only weights, means and scatter count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm import kernels
from fastgmm.kernels import MergeCriterion
from fastgmm.mixture.moments import total_covariance

Array = NDArray[np.float64]
MODELS = ("EII", "VII", "EEE", "VVV")
# Smallest factor of the trace beside the determinant, whose units may be anything. Without a determinant it decides.
SMALLEST_SPREAD = 1e-200
# Rows that a cluster of rows is shrunk by. Fits were worse with D + 2, as in mclust's prior, which is better for
# micro-clusters; see docs/development/decisions/initialization.md.
PRIOR_ROWS = 1.0


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Clusters and the order in which they merge.

    Attributes
    ----------
    weights : ndarray of shape (M,)
        Weights of the clusters that merge: of different rows, or of micro-clusters. Positive.
    means : ndarray of shape (M, D)
        Their means.
    scatter : ndarray of shape (M, D, D), or None
        Their scatter about the means; None if each is a row.
    merges : ndarray of shape (M - 1, 2), intp
        Numbers of the two clusters of each merge, from 0. The second is merged into the first, which has the lower
        number and keeps it.
    row_clusters : ndarray of shape (n_samples,), intp
        Number of each row's cluster, by the first row of each; empty for micro-clusters.
    """

    weights: Array
    means: Array
    scatter: Array | None
    merges: NDArray[np.intp]
    row_clusters: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp), repr=False)
    _groups: dict[int, tuple[Array, Array, Array]] = field(default_factory=dict, init=False, repr=False)

    def labels(self, n_groups: int) -> NDArray[np.int32]:
        """Return the group of each row, after merging to `n_groups`.

        Parameters
        ----------
        n_groups : int
            Number of groups, at most the number of different rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int32
            Groups are numbered from 0 in the order of their first rows.

        Raises
        ------
        ValueError
            If there cannot be `n_groups` groups.
        """
        if not 1 <= n_groups <= len(self.weights):
            raise ValueError(
                f"n_groups must be from 1 to {len(self.weights)}, the number of different rows, got {n_groups}."
            )
        return cut_tree(self.merges, n_groups)[self.row_clusters]

    def moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        """Return the moments of `n_groups` groups of clusters, read-only.

        If there are fewer clusters, some groups have weight 0. The result is cached, since a search asks for it once
        for every model.

        Parameters
        ----------
        n_groups : int
            Number of groups.

        Returns
        -------
        weights : ndarray of shape (n_groups,)
            Sums of the weights of each group's clusters.
        means : ndarray of shape (n_groups, D)
            Means of the groups.
        scatter : ndarray of shape (n_groups, D, D)
            Scatter of the groups about their means.
        """
        if n_groups not in self._groups:
            self._groups[n_groups] = self._moments(n_groups)
            for array in self._groups[n_groups]:
                array.flags.writeable = False
        return self._groups[n_groups]

    def _moments(self, n_groups: int) -> tuple[Array, Array, Array]:
        """Compute the moments of groups; see `moments`."""
        group = cut_tree(self.merges, n_groups).astype(np.intp)
        n_features = self.means.shape[1]
        weights = add_up(group, self.weights, n_groups)
        overall = self.weights @ self.means / self.weights.sum()
        means, scatter = np.tile(overall, (n_groups, 1)), np.zeros((n_groups, n_features, n_features))
        for g in range(group.max() + 1):
            members = group == g
            w, centred = self.weights[members], self.means[members] - overall
            offset = w @ centred / weights[g]
            means[g] += offset
            centred -= offset
            scatter[g] = (w[:, np.newaxis] * centred).T @ centred
            if self.scatter is not None:
                scatter[g] += self.scatter[members].sum(axis=0)
        return weights, means, scatter


def agglomerate(
    X: ArrayLike,
    model: Literal["EII", "VII", "EEE", "VVV"] = "VVV",
    sample_weight: ArrayLike | None = None,
    n_jobs: int | None = None,
) -> Hierarchy:
    """Merge rows, two clusters at a time, where a Gaussian mixture loses least.

    It does what R's `mclust::hc` does, with the same criteria [1]_. Equal rows are in one cluster from the start. The
    criterion adds, for each cluster with weight n, scatter W about its mean and D features, and with the weight N and
    the scatter T of all rows:

    ===== ======================================================
    EII   tr W (Ward's method)
    VII   n log((tr W + tr T / (N D)) / n)
    VVV   n log(det(W / n) + (tr W + tr T / (N D)) / n)
    EEE   det(S / N) + tr S / N, with the sum S of all W
    ===== ======================================================

    The traces are there because single rows have no determinant. They make the result depend on the units of the
    features, so consider scaling. A single feature has no determinant beside its trace: VVV is VII and EEE is EII.
    Memory grows with the square of the number of different rows (except for EEE), 32 MB for 2,000.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Finite rows.
    model : {"EII", "VII", "EEE", "VVV"}, default="VVV"
        Covariances: equal or varying spheres, equal or varying ellipsoids.
    sample_weight : array-like of shape (n_samples,), optional
        How often each row counts; rows of weight 0 cannot be clustered.
    n_jobs : int, optional
        Number of threads; see `GaussianMixture`. The result does not depend on it.

    Returns
    -------
    Hierarchy
        Its `merges`, and the `labels` of the rows for any number of groups.

    Raises
    ------
    ValueError
        If the rows are not a matrix of finite numbers, if weights are not positive and finite, or if the model is
        unknown.

    See Also
    --------
    maximise : Parameters of highest likelihood, from statistics of groups.

    References
    ----------
    .. [1] C. Fraley (1998). Algorithms for model-based Gaussian hierarchical clustering. SIAM Journal on Scientific
       Computing 20.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import agglomerate
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + [8, 0]])
    >>> hierarchy = agglomerate(X, "VVV")
    >>> hierarchy.labels(2)[[0, 1, 19, 20, 39]]
    array([0, 0, 0, 1, 1], dtype=int32)
    >>> hierarchy.merges.shape
    (39, 2)
    """
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}.")
    rows = np.array(X, dtype=np.float64, order="C")
    if rows.ndim != 2 or rows.size == 0 or not np.isfinite(rows).all():
        raise ValueError(f"X must be a matrix of finite numbers, got an array of shape {rows.shape}.")
    weights = np.ones(len(rows)) if sample_weight is None else np.array(sample_weight, dtype=np.float64)
    if weights.shape != (len(rows),) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"sample_weight must have one finite number above 0 for each of {len(rows)} rows, got an array of shape "
            f"{weights.shape}. Leave out rows of weight 0."
        )
    row_clusters, first = equal_rows(rows)
    weights, means = add_up(row_clusters, weights, len(first)), rows[first]
    with kernels.thread_limit(n_jobs):
        return Hierarchy(weights, means, None, merge_order(weights, means, None, model), row_clusters)


def hierarchy_of_rows(
    X: NDArray, sample_weight: NDArray[np.float64] | None, *, n_components: int, floor: float
) -> Hierarchy:
    """Return the hierarchy of rows (N, D) for starts, with covariances that are shrunk; see `shrunk_merge_order`.

    Rows of weight 0 are left out. The weights, which may be in any unit, are scaled to 1 for each different row, so
    that a row of weight 3 counts as three copies.

    Parameters
    ----------
    X : (N, D) float64 or float32
    sample_weight : (N,), or None
    n_components, floor
        See `shrinkage`.
    """
    has_weight = slice(None) if sample_weight is None else sample_weight > 0
    rows = np.ascontiguousarray(X[has_weight], dtype=np.float64)
    row_clusters, first = equal_rows(rows)
    row_weights = np.ones(len(rows)) if sample_weight is None else sample_weight[has_weight]
    counts = add_up(row_clusters, row_weights, len(first))
    means = rows[first]
    scale = shrinkage(counts, means, None, n_components, floor)
    merges = shrunk_merge_order(counts * (len(first) / counts.sum()), means, None, scale, PRIOR_ROWS)
    return Hierarchy(counts, means, None, merges, row_clusters)


def hierarchy_of_clusters(
    weights: Array, means: Array, scatter: Array, *, n_rows: float, n_components: int, floor: float
) -> Hierarchy:
    """Return the hierarchy of micro-clusters; those without weight are left out.

    Parameters
    ----------
    weights : (M,)
    means : (M, D)
    scatter : (M, D, D)
        About the means.
    n_rows : float
        Number of rows. It gives the weights their unit, which may be any.
    n_components, floor
        See `shrinkage`.
    """
    has_weight = weights > 0
    weights, means, scatter = weights[has_weight], means[has_weight], scatter[has_weight]
    scale = shrinkage(weights, means, scatter, n_components, floor)
    count = n_rows / weights.sum()
    merges = shrunk_merge_order(weights * count, means, scatter * count, scale, means.shape[1] + 2.0)
    return Hierarchy(weights, means, scatter, merges)


def shrinkage(weights: Array, means: Array, scatter: Array | None, n_components: int, floor: float) -> Array:
    """Return the covariance to which small clusters are shrunk, (D, D).

    As in mclust's prior, it is the overall covariance divided by ``n_components ** (2 / D)``, that of one of so many
    equal parts. `floor` is added to its variances, and what makes it positive definite.
    """
    shares = weights / weights.sum()
    within = np.zeros(2 * means.shape[1:]) if scatter is None else scatter.sum(axis=0) / weights.sum()
    total = total_covariance(shares, means, within)
    return total / n_components ** (2 / len(total)) + np.diag(floor + 1e-12 * np.diagonal(total) + 1e-100)


def add_up(numbers: NDArray[np.intp], weights: Array, n_numbers: int) -> Array:
    """Return the sum of the weights with each number, (n_numbers,)."""
    return np.bincount(numbers, weights, n_numbers).astype(np.float64, copy=False)


def equal_rows(rows: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return a number of each row, the same for equal rows, and the first row with each number, ascending."""
    n_rows = len(rows)
    alone = np.arange(n_rows)
    if len(np.unique(rows[:, 0])) == n_rows:
        return alone, alone
    order = np.lexsort(rows.T[::-1])
    new = np.concatenate([[True], (rows[order[1:]] != rows[order[:-1]]).any(axis=1)])
    first = order[new]  # lexsort keeps the order of equal rows
    ascending = np.argsort(first)
    numbers = np.empty(n_rows, np.intp)
    numbers[order] = np.argsort(ascending)[np.cumsum(new) - 1]
    return numbers, first[ascending]


def merge_order(weights: Array, means: Array, scatter: Array | None, model: str) -> NDArray[np.intp]:
    """Return the order in which clusters merge by the criterion of a model; see `agglomerate`.

    Parameters
    ----------
    weights : (M,)
        Positive.
    means : (M, D)
    scatter : (M, D, D), or None
        About the means; None if each cluster is a row.
    model : {"EII", "VII", "EEE", "VVV"}

    Returns
    -------
    merges : (M - 1, 2) intp
        See `Hierarchy`.
    """
    n_features = means.shape[1]
    # Numbers near 1, so that no square or product leaves the range of float64. A power of two rounds no weight.
    unit = 2.0 ** (math.frexp(weights.max())[1] - 1)
    weights, scatter = weights / unit, None if scatter is None else scatter / unit
    means = means - (means.min(axis=0) / 2 + means.max(axis=0) / 2)
    largest = max(np.abs(means).max(initial=0.0), 1e-300)
    means = means / largest
    means -= weights @ means / weights.sum()
    scatter = None if scatter is None else scatter / largest / largest
    total = weights @ (means**2).sum(axis=1) + (0.0 if scatter is None else np.trace(scatter.sum(axis=0)))
    variance = float(total / weights.sum() / n_features)
    if variance > 0:
        means /= math.sqrt(variance)
        scatter = None if scatter is None else scatter / variance
    # With lengths in units of u, determinants have the factor u^2D and traces u^2.
    log_factor = (n_features - 1) * (2 * math.log(largest) + math.log(variance or 1.0))
    determinant = math.exp(min(log_factor, 0.0))
    spread = max(math.exp(-max(log_factor, 0.0)), SMALLEST_SPREAD)
    if model == "EEE" and n_features > 1:
        pooled = np.zeros((n_features, n_features)) if scatter is None else scatter.sum(axis=0)
        return kernels.pooled_merge_order(weights, means, pooled, determinant, spread)
    if model in ("EII", "EEE"):
        return kernels.merge_order(weights, means, scatter, MergeCriterion.distances())
    if model == "VII" or n_features == 1:
        return kernels.merge_order(weights, means, scatter, MergeCriterion.traces(alone=1 / unit))
    return kernels.merge_order(
        weights, means, scatter, MergeCriterion.determinants(determinant, spread, alone=1 / unit)
    )


def shrunk_merge_order(
    weights: Array, means: Array, scatter: Array | None, scale: Array, prior: float
) -> NDArray[np.intp]:
    """Return the order in which clusters merge, with covariances that are shrunk.

    A cluster with weight n and scatter W contributes ``n log det((W + prior scale) / (n + prior))``. The covariance
    `scale` is that to which small clusters are shrunk. The order does not depend on units.

    Parameters
    ----------
    weights : (M,)
        Positive; rows count 1.
    means : (M, D)
    scatter : (M, D, D), or None
        About the means; None if each cluster is a row.
    scale : (D, D)
        Positive definite.
    prior : float
        Weight of `scale`.

    Returns
    -------
    merges : (M - 1, 2) intp
        See `Hierarchy`.
    """
    sizes = np.sqrt(np.diagonal(scale))  # first to units in which Cholesky's method is exact
    root = np.linalg.inv(np.linalg.cholesky(scale / sizes / sizes[:, np.newaxis])) / sizes
    means = (means - weights @ means / weights.sum()) @ root.T
    scatter = None if scatter is None else root @ scatter @ root.T
    return kernels.merge_order(weights, means, scatter, MergeCriterion.shrunk(prior))


def cut_tree(merges: NDArray[np.intp], n_groups: int) -> NDArray[np.int32]:
    """Return the group, from 0, of each cluster, (M,), after merging to `n_groups`."""
    n_clusters = len(merges) + 1
    into = np.arange(n_clusters)
    done = merges[: max(0, n_clusters - n_groups)]
    into[done[:, 1]] = done[:, 0]
    while True:  # each round halves the paths to the clusters that are left
        after = into[into]
        if np.array_equal(after, into):
            break
        into = after
    return np.unique(into, return_inverse=True)[1].astype(np.int32)
