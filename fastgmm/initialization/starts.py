"""Where EM starts: k-means, k-means++, agglomeration, random rows or responsibilities, labels; weighted, reproducible.

A row of weight w counts as w copies of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.data.random_stream import RandomStream, at_most, drawer
from fastgmm.data.sources import ArraySource, Source, Weights, in_range, squares_leave_range
from fastgmm.e_step.given import accumulate_labels, accumulate_resp
from fastgmm.m_step.maximum_likelihood import estimate_covariances, estimate_weights_and_means
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .hierarchy import Hierarchy
from .kmeans import Clusters, few_rows, kmeans, kmeans_plusplus, lloyd, quick_start
from .outliers import representative

Array = NDArray[np.float64]
BLOCK_BYTES = 8 * 1024 * 1024
# Rows that are enough for k-means. On 200,000 to 273,280 rows (D 3 to 16, K 10 to 64) EM ended as high as from the
# k-means of all of them, five seeds each, and the start took an eighth to a third of the time; 4 times as many rows
# changed nothing.
ENOUGH, ENOUGH_PER_COMPONENT = 10_000, 256
# Lloyd's steps of a start that is tried beside others: EM goes on from there.
QUICK_STEPS = 2
# Micro-clusters to agglomerate, and Lloyd's steps to find them.
MICRO_CLUSTERS, MICRO_CLUSTERS_PER_COMPONENT, MICRO_STEPS = 500, 4, 3
# Joining takes M^2 D^3 multiply-adds: above 20 features the clusters are fewer. 500 of 60 features took 12 s.
MICRO_NUMBERS = 10_000


@dataclass(frozen=True)
class Start:
    """A starting point.

    Attributes
    ----------
    weights : (K,)
    means : (K, D)
    covariances : callable () -> covariances in the model's form
        Called only if they are needed: they may be ill-defined where the other two are not.
    n_distinct : int
        How many different clusters k-means found; the number of components for other methods.
    """

    weights: Array
    means: Array
    covariances: Callable[[], Array]
    n_distinct: int


def from_labels(
    labels: NDArray, reference: Array, source: ArraySource, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from the component of each row; `reference` are points near the components, (K, D)."""
    statistics = accumulate_labels(labels, reference, source.X, source.sample_weight, covariance_type=model.name)
    return _from_labelled(statistics, model, reg_covar)


def from_given(given: Any, source: Source, n_components: int, model: CovarianceModel, reg_covar: float) -> Start:
    """Start from labels (N,) or responsibilities (N, K) that the caller has, in a form that the source takes."""
    reference = np.tile(source.point_near(), (n_components, 1))
    # The first pass finds the means; moments about these have no digits to lose.
    for _ in range(2):
        statistics = source.reduce_with(given, functools.partial(_accumulate_given, reference, model.name))
        reference = estimate_weights_and_means(statistics)[1]
    return _from_statistics(statistics, model, reg_covar)


def _accumulate_given(
    reference: Array, covariance_type: str, X: NDArray, sample_weight: Weights, given: NDArray
) -> SufficientStatistics:
    """Statistics of a block under labels or responsibilities."""
    accumulate_given = accumulate_labels if given.ndim == 1 else accumulate_resp
    return accumulate_given(given, reference, X, sample_weight, covariance_type=covariance_type)


def from_random_resp(
    source: Source, n_components: int, stream: RandomStream, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from random responsibilities: every component like the whole, nearly."""
    seed, reference = stream.word(), np.tile(source.point_near(), (n_components, 1))

    def accumulate_random(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        block, parts = ArraySource(X, sample_weight), []
        for part in block.slices(_rows_a_block(n_components)):
            resp = kernels.random_resp(X, n_components, seed, part.start, part.stop)
            parts.append(accumulate_resp(resp, reference, *block.part(part), covariance_type=model.name))
        return sum(parts[1:], start=parts[0])

    return _from_statistics(source.reduce(accumulate_random), model, reg_covar)


def from_kmeans_plusplus(
    source: Source, n_components: int, stream: RandomStream, model: CovarianceModel, reg_covar: float, *, whiten: bool
) -> Start:
    """Start from rows drawn as k-means++ draws them."""
    some = enough_rows(source, n_components, stream, model, reg_covar)
    if not whiten:
        return from_points(kmeans_plusplus(some, n_components, stream), source, model, reg_covar)
    seen = whitened(some)
    rows = nearest_rows(seen, kmeans_plusplus(seen, n_components, stream))
    return from_points(some.X[rows].astype(np.float64), source, model, reg_covar)


def from_random_rows(
    source: Source, n_components: int, stream: RandomStream, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from rows drawn by weight."""
    return from_points(random_rows(source, n_components, stream), source, model, reg_covar)


def from_points(points: Array, source: Source, model: CovarianceModel, reg_covar: float) -> Start:
    """Start from means (K, D): equal weights, and for all components the covariance about the nearest of them.

    scikit-learn gives these components the covariance ``reg_covar I``, which makes the first iteration a step of
    k-means, depends on the unit of the data, and does not exist for ``reg_covar=0``.
    """

    def covariances() -> Array:
        statistics = _about_nearest(points, source, model).recentred(points)
        scatter, weight_sums = statistics.scatter, statistics.weight_sums
        if not model.form.is_shared:
            scatter = np.broadcast_to(scatter.sum(axis=0), scatter.shape)
            weight_sums = np.full(len(points), weight_sums.sum())
        return model.covariances(scatter, weight_sums, reg_covar=reg_covar)

    return Start(np.full(len(points), 1 / len(points)), points, covariances, len(points))


def from_kmeans(
    source: Source,
    n_components: int,
    stream: RandomStream,
    model: CovarianceModel,
    reg_covar: float,
    *,
    quick: bool = False,
    whiten: bool = False,
) -> Start:
    """Start from the clusters of k-means: of all rows about centres that may be those of a sample.

    `quick`: a few steps on few rows. `whiten`: distances are those of `whitened` rows, and clusters those of a sample.
    """
    some = in_range(source.whole()) if quick else enough_rows(source, n_components, stream, model, reg_covar)
    seen = whitened(some) if whiten else some
    if quick:
        centres = quick_start(few_rows(seen, n_components, stream), n_components, stream, steps=QUICK_STEPS)
        labels = nearest(seen, centres)
    else:
        centres, labels = kmeans(seen, n_components, stream)
    if whiten:
        return from_labels(labels, _means_of(labels, some, n_components, model), some, model, reg_covar)
    if some.n_samples == source.n_samples and not some.n_outliers:
        return from_labels(labels, centres, some, model, reg_covar)
    return _from_labelled(_about_nearest(centres, source, model), model, reg_covar)


def hierarchy(source: Source, n_components: int, stream: RandomStream, reg_covar: float) -> Hierarchy:
    """Micro-clusters of k-means, of a sample if there are many rows, and how they join."""
    some = enough_rows(source, n_components, stream, get_model("full"), reg_covar)
    n_micro = min(MICRO_CLUSTERS, MICRO_NUMBERS // source.n_features)
    n_micro = min(max(n_micro, MICRO_CLUSTERS_PER_COMPONENT * n_components), len(some.X))
    centres, labels = lloyd(some, kmeans_plusplus(some, n_micro, stream), max_steps=MICRO_STEPS)
    statistics = accumulate_labels(labels, centres, some.X, some.sample_weight, covariance_type="full")
    means = estimate_weights_and_means(statistics)[1]
    scatter = statistics.recentred(means).scatter
    return Hierarchy.of(
        statistics.weight_sums,
        means,
        scatter,
        n_rows=float(some.n_weighted),
        n_components=n_components,
        floor=reg_covar,
    )


def from_groups(joined: Hierarchy, n_components: int, model: CovarianceModel, reg_covar: float) -> Start:
    """Start from micro-clusters that are joined until they are as few as the components; no row is looked at."""
    weight_sums, means, scatter = joined.moments(n_components)

    def covariances() -> Array:
        kept = model.form.scatter(scatter)
        return model.covariances(kept, np.maximum(weight_sums, 1e-12), reg_covar=reg_covar)

    return Start(weight_sums / weight_sums.sum(), means, covariances, int(np.count_nonzero(weight_sums)))


def from_hierarchy(
    source: Source, n_components: int, stream: RandomStream, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from micro-clusters of k-means that are joined until they are as few as the components."""
    return from_groups(hierarchy(source, n_components, stream, reg_covar), n_components, model, reg_covar)


def whitened(source: ArraySource) -> ArraySource:
    """The rows in coordinates in which their covariance is the identity; directions without variance are left out.

    k-means of them finds the same clusters whatever the units, and long parallel clusters that it would cut in pieces
    (Murtagh & Raftery, 1984, Pattern Recognition 17, and mclust's default since version 5.4, take such coordinates).
    """
    X, weights = source.X.astype(np.float64), source.sample_weight
    centred = X - source.point_near()
    # First to standard deviations, by way of something that can be squared: units may be anything.
    for scale in (np.abs(centred).max(axis=0), None):
        centred -= np.average(centred, axis=0, weights=weights)
        scale = np.sqrt(np.average(centred**2, axis=0, weights=weights)) if scale is None else scale
        centred /= np.where(scale > 0, scale, 1.0)
    total = (centred if weights is None else weights[:, np.newaxis] * centred).T @ centred / source.total_weight
    values, vectors = np.linalg.eigh(total)
    there = values > 1e-12 * values[-1]
    if not there.any():
        return source
    root = vectors[:, there] / np.sqrt(values[there])
    X = np.ascontiguousarray(centred @ root, dtype=source.X.dtype)
    return ArraySource(X, weights, n_outliers=source.n_outliers)


def nearest(source: ArraySource, centres: Array) -> NDArray[np.int32]:
    """The nearest of some centres (K, D) to each row, (N,)."""
    if source.X.dtype == np.float32 and squares_leave_range(centres.astype(np.float32)):
        return np.concatenate(list(source.each(lambda X, _: nearest(ArraySource(X.astype(np.float64)), centres))))
    clusters = Clusters(source, kernels.shift_origin(centres, source.X.dtype), len(centres))
    clusters.assign(centres)
    return clusters.labels


def enough_rows(
    source: Source,
    n_components: int,
    stream: RandomStream,
    model: CovarianceModel | None = None,
    reg_covar: float = 0.0,
) -> ArraySource:
    """Return the source, or if it has more rows than k-means needs, a sample whose size depends on the components.

    Rows of weight 0 are left out; otherwise rows are counted, not their weights, whose unit is the caller's. With a
    `model` the sample has all rows that are far from the others, and these have weights.
    """
    enough = max(ENOUGH, ENOUGH_PER_COMPONENT * n_components)
    if source.n_weighted <= enough:
        return in_range(source.whole())
    sample = at_most(source, enough, stream)
    return in_range(sample if model is None else representative(source, sample, model, reg_covar))


def nearest_rows(source: ArraySource, points: Array) -> NDArray[np.intp]:
    """The first row nearest to each of some points (K, D)."""
    rows = np.empty(len(points), np.intp)
    for k, point in enumerate(points):
        rows[k] = ((source.X - point) ** 2).sum(axis=1).argmin()
    return rows


def random_rows(source: Source, n_rows: int, stream: RandomStream) -> Array:
    """Rows drawn by weight, without repeating a row or an equal one as long as that takes few draws; (n_rows, D)."""
    drawn: dict[bytes, NDArray] = {}
    repeated = []
    some = enough_rows(source, n_rows, stream)
    draw = drawer(some, stream)
    for _ in range(20 * n_rows):
        row = some.X[draw()]
        if drawn.setdefault(row.tobytes(), row) is not row:
            repeated.append(row)
        if len(drawn) == n_rows:
            break
    return np.array([*drawn.values(), *repeated][:n_rows], dtype=np.float64)


def _means_of(labels: NDArray, source: ArraySource, n_components: int, model: CovarianceModel) -> Array:
    """The means of labelled rows, (K, D)."""
    reference = np.tile(source.point_near(), (n_components, 1))
    statistics = accumulate_labels(labels, reference, source.X, source.sample_weight, covariance_type=model.name)
    return estimate_weights_and_means(statistics)[1]


def _rows_a_block(n_components: int) -> int:
    return max(1024, BLOCK_BYTES // (8 * n_components))


def total_scatter(source: Source) -> SufficientStatistics:
    """The statistics of all rows as one component, in the tied layout: what of it never changes in a fit."""
    point = source.point_near()[np.newaxis]

    def accumulate_all(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        return accumulate_labels(np.zeros(len(X), np.int32), point, X, sample_weight, covariance_type="EEE")

    return source.reduce(accumulate_all)


def _about_nearest(centres: Array, source: Source, model: CovarianceModel) -> SufficientStatistics:
    """Statistics of rows that belong to the nearest of some centres, (K, D)."""

    def accumulate_nearest(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        labels = nearest(ArraySource(X, sample_weight), centres)
        return accumulate_labels(labels, centres, X, sample_weight, covariance_type=model.name)

    return source.reduce(accumulate_nearest)


def _from_labelled(statistics: SufficientStatistics, model: CovarianceModel, reg_covar: float) -> Start:
    """Start from the statistics of labelled rows; components without rows are none of their own."""
    n_distinct = int(np.count_nonzero(statistics.weight_sums))
    return replace(_from_statistics(statistics, model, reg_covar), n_distinct=n_distinct)


def _from_statistics(statistics: SufficientStatistics, model: CovarianceModel, reg_covar: float) -> Start:
    weights, means = estimate_weights_and_means(statistics)
    return Start(weights, means, lambda: estimate_covariances(statistics, model, reg_covar), len(weights))


STARTS = {"random": from_random_resp, "random_from_data": from_random_rows, "hc": from_hierarchy}


def initial_parameters(
    source: Source,
    n_components: int,
    objective: Objective,
    *,
    init_params: str = "kmeans",
    seed: int = 0,
    quick: bool = False,
    whiten: bool = False,
    resp: NDArray | None = None,
    weights: Array | None = None,
    means: Array | None = None,
    precisions: Array | None = None,
) -> tuple[MixtureParameters, int]:
    """Parameters to start EM from.

    Parameters
    ----------
    source : Source
    n_components : int
    objective : Objective
        Makes parameters of what is found; its covariance model and `reg_covar` are those of the start.
    init_params : {"kmeans", "k-means++", "hc", "random_from_data", "random"}
        "kmeans": the clusters of k-means. "k-means++": means drawn as k-means++ draws them, "random_from_data": means
        drawn from the rows, both with the pooled covariance about the nearest mean. "hc": micro-clusters that are
        joined. "random": random responsibilities. Of many rows (see `enough_rows`) all but the last two look for
        clusters in a sample.
    seed : int
        64 bits; the same seed gives the same start.
    quick : bool
        A k-means of a few steps on few rows.
    whiten : bool
        k-means and k-means++ in coordinates in which the rows' covariance is the identity.
    resp : (N,) int or (N, K), optional
        Labels or responsibilities to start from, in place of `init_params`, as the source takes them (`reduce_with`).
    weights, means, precisions : arrays, optional
        Take the place of what is found; if all three are given, the rows are not looked at.

    Returns
    -------
    parameters : MixtureParameters
    n_distinct : int
        How many different clusters k-means found; `n_components` for other methods.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance of the start is not positive definite.
    """
    model, reg_covar, n_distinct = objective.model, objective.reg_covar, n_components
    if weights is None or means is None or precisions is None:
        stream = RandomStream(seed)
        if resp is not None:
            start = from_given(resp, source, n_components, model, reg_covar)
        elif init_params == "kmeans":
            start = from_kmeans(source, n_components, stream, model, reg_covar, quick=quick, whiten=whiten)
        elif init_params == "k-means++":
            start = from_kmeans_plusplus(source, n_components, stream, model, reg_covar, whiten=whiten)
        else:
            start = STARTS[init_params](source, n_components, stream, model, reg_covar)
        weights = start.weights if weights is None else weights
        means = start.means if means is None else means
        n_distinct = start.n_distinct
    if precisions is None:
        return objective.start(weights, means, start.covariances(), source.total_weight), n_distinct
    factors = model.form.factor_precisions(precisions)
    covariances = model.form.covariances(factors)
    return MixtureParameters(weights, means, covariances, factors, objective.covariance_type), n_distinct
