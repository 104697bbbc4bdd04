"""Where EM starts: k-means, k-means++, random rows, random responsibilities, labels; all weighted, all reproducible.

A row of weight w counts as w copies of it. Random numbers are our own stream, a counter run through SplitMix64, so a
seed means the same start on every machine, with any number of threads, and whatever else is upgraded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import kernels
from .covariance import CovarianceModel, get_model
from .engine import accumulate_labels, accumulate_resp, estimate_covariances, estimate_weights_and_means
from .parameters import MixtureParameters
from .sources import ArraySource
from .statistics import SufficientStatistics

Array = NDArray[np.float64]
MAX_LLOYD_STEPS, LLOYD_TOLERANCE = 300, 1e-4  # scikit-learn's
BLOCK_BYTES = 8 * 1024 * 1024
FARTHEST = {np.dtype(np.float64): 1e290, np.dtype(np.float32): 1e38}


class Stream:
    """Uniform random numbers from a 64-bit seed: SplitMix64, so the same for ever."""

    MASK = (1 << 64) - 1

    def __init__(self, seed: int):
        self.state = seed & self.MASK

    def word(self) -> int:
        """The next 64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        return (self.word() >> 11) / (1 << 53)


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
    n_distinct = int(np.count_nonzero(statistics.weight_sums))
    return replace(_from_statistics(statistics, model, reg_covar), n_distinct=n_distinct)


def from_given(
    given: NDArray, source: ArraySource, n_components: int, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from labels (N,) or responsibilities (N, K) that the caller has."""
    accumulate_given = accumulate_labels if given.ndim == 1 else accumulate_resp
    reference = np.tile(point_near(source), (n_components, 1))
    # The first pass finds the means; moments about these have no digits to lose.
    for _ in range(2):
        parts = []
        for part in source.slices(_rows_a_block(n_components)):
            X, sample_weight = source.part(part)
            parts.append(accumulate_given(given[part], reference, X, sample_weight, covariance_type=model.name))
        statistics = sum(parts[1:], start=parts[0])
        reference = estimate_weights_and_means(statistics)[1]
    return _from_statistics(statistics, model, reg_covar)


def from_random_resp(
    source: ArraySource, n_components: int, stream: Stream, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from random responsibilities: every component like the whole, nearly."""
    seed, reference = stream.word(), np.tile(point_near(source), (n_components, 1))
    parts = []
    for part in source.slices(_rows_a_block(n_components)):
        resp = kernels.random_resp(source.X, n_components, seed, part.start, part.stop)
        X, sample_weight = source.part(part)
        parts.append(accumulate_resp(resp, reference, X, sample_weight, covariance_type=model.name))
    return _from_statistics(sum(parts[1:], start=parts[0]), model, reg_covar)


def from_points(points: Array, source: ArraySource, model: CovarianceModel, reg_covar: float) -> Start:
    """Start from means (K, D): equal weights, and for all components the covariance about the nearest of them.

    scikit-learn gives these components the covariance ``reg_covar I``, which makes the first iteration a step of
    k-means, depends on the unit of the data, and does not exist for ``reg_covar=0``.
    """
    origin = kernels.shift_origin(points, source.X.dtype)
    labels = np.empty(len(source.X), np.int32)
    kernels.lloyd_step(source.X, source.sample_weight, origin, _shifted(points, origin), labels=labels)

    def covariances() -> Array:
        statistics = accumulate_labels(
            labels, points, source.X, source.sample_weight, covariance_type=model.name
        ).recentred(points)
        scatter, weight_sums = statistics.scatter, statistics.weight_sums
        if model.layout != "tied":
            scatter = np.broadcast_to(scatter.sum(axis=0), scatter.shape)
            weight_sums = np.full(len(points), weight_sums.sum())
        return model.regularise(model.maximise(scatter, weight_sums), reg_covar)

    return Start(np.full(len(points), 1 / len(points)), points, covariances, len(points))


def from_kmeans(
    source: ArraySource, n_components: int, stream: Stream, model: CovarianceModel, reg_covar: float
) -> Start:
    """Start from the clusters of k-means."""
    centres, labels = kmeans(source, n_components, stream)
    return from_labels(labels, centres, source, model, reg_covar)


def kmeans(source: ArraySource, n_clusters: int, stream: Stream) -> tuple[Array, NDArray[np.int32]]:
    """Lloyd's algorithm from a k-means++ start, until the centres move by less than scikit-learn's tolerance.

    Returns
    -------
    centres : (n_clusters, D)
    labels : (N,) int32
    """
    origin = point_near(source).astype(source.X.dtype)
    tolerance = LLOYD_TOLERANCE * _variance(source, origin)
    centres = kmeans_plusplus(source, n_clusters, stream)
    for _ in range(MAX_LLOYD_STEPS):
        shifted = _shifted(centres, origin)
        weight_sums, first, _ = kernels.lloyd_step(source.X, source.sample_weight, origin, shifted)
        filled = weight_sums > 0
        moved = origin.astype(np.float64) + shifted
        moved[filled] += first[filled] / weight_sums[filled, np.newaxis]
        if not filled.all():
            moved[~filled] = _farthest_rows(source, origin, shifted, int((~filled).sum()), moved[~filled])
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= tolerance:
            break
    labels = np.empty(len(source.X), np.int32)
    kernels.lloyd_step(source.X, source.sample_weight, origin, _shifted(centres, origin), labels=labels)
    return centres, labels


def kmeans_plusplus(source: ArraySource, n_clusters: int, stream: Stream) -> Array:
    """Rows drawn one after the other with probability proportional to weight times squared distance to those so far.

    Of ``2 + log(n_clusters)`` draws for each, the one that lowers the sum of squared distances most is taken (greedy
    k-means++, as in scikit-learn). If fewer than `n_clusters` different rows exist, some are drawn twice.

    Returns
    -------
    points : (n_clusters, D)
    """
    X, sample_weight = source.X, source.sample_weight
    origin = point_near(source).astype(X.dtype)
    n_trials = 2 + int(math.log(n_clusters))
    # Squared distances to the chosen rows; the latest may not be among them yet, it joins in the next pass. No distance
    # is beyond this, so that sums of them are finite and something to draw from.
    closest = np.full(len(X), FARTHEST[X.dtype], X.dtype)
    chosen = np.empty((n_clusters, X.shape[1]), X.dtype)
    draw = _drawer(source, stream)
    chosen[0] = X[draw()]
    first = chosen[:1] - origin
    potentials, rows_a_chunk = kernels.seed_step(X, sample_weight, origin, first[:0], first, closest)
    potential = potentials[:, 0]
    for k in range(1, n_clusters):
        if not potential.sum() > 0:  # every row is one of those chosen
            chosen[k] = X[draw()]
            continue
        latest = chosen[k - 1 : k] - origin
        rows = [
            _draw_by_distance(source, origin, latest, closest, potential, rows_a_chunk, stream.uniform())
            for _ in range(n_trials)
        ]
        potentials, _ = kernels.seed_step(X, sample_weight, origin, X[rows] - origin, latest, closest)
        best = int(potentials.sum(axis=0)[1:].argmin())
        chosen[k], potential = X[rows[best]], potentials[:, 1 + best]
    return chosen.astype(np.float64)


def random_rows(source: ArraySource, n_rows: int, stream: Stream) -> Array:
    """Rows drawn by weight, without repeating a row or an equal one as long as that takes few draws; (n_rows, D)."""
    drawn: dict[bytes, NDArray] = {}
    repeated = []
    draw = _drawer(source, stream)
    for _ in range(20 * n_rows):
        row = source.X[draw()]
        if drawn.setdefault(row.tobytes(), row) is not row:
            repeated.append(row)
        if len(drawn) == n_rows:
            break
    return np.array([*drawn.values(), *repeated][:n_rows], dtype=np.float64)


def point_near(source: ArraySource) -> Array:
    """A point near the rows, (D,), to subtract from them; see `kernels.shift_origin`."""
    some = source.X[:: max(1, len(source.X) // 256)]
    return kernels.shift_origin(some, source.X.dtype).astype(np.float64)


def _variance(source: ArraySource, origin: NDArray) -> float:
    """About the variance of the rows, averaged over features; 0 if it cannot be represented."""
    centre = np.zeros((1, source.X.shape[1]), source.X.dtype)
    weight_sums, first, inertia = kernels.lloyd_step(source.X, source.sample_weight, origin, centre)
    with np.errstate(over="ignore", invalid="ignore"):
        variance = inertia / weight_sums[0] - float(((first[0] / weight_sums[0]) ** 2).sum())
    return max(0.0, variance) / source.X.shape[1] if np.isfinite(variance) else 0.0


def _shifted(points: Array, origin: NDArray) -> NDArray:
    """Points as kernels take them: relative to an origin, in its dtype."""
    return np.ascontiguousarray(points - origin.astype(np.float64), dtype=origin.dtype)


def _rows_a_block(n_components: int) -> int:
    return max(1024, BLOCK_BYTES // (8 * n_components))


def _from_statistics(statistics: SufficientStatistics, model: CovarianceModel, reg_covar: float) -> Start:
    weights, means = estimate_weights_and_means(statistics)
    return Start(weights, means, lambda: estimate_covariances(statistics, model, reg_covar), len(weights))


def _drawer(source: ArraySource, stream: Stream) -> Callable[[], int]:
    """Draws the numbers of rows, with probability proportional to their weights."""
    if source.sample_weight is None:
        return lambda: int(stream.uniform() * len(source.X))
    cumulative = np.cumsum(source.sample_weight)
    last = int(np.flatnonzero(source.sample_weight)[-1])
    return lambda: min(int(np.searchsorted(cumulative, stream.uniform() * cumulative[-1], side="right")), last)


def _draw_by_distance(
    source: ArraySource,
    origin: NDArray,
    latest: NDArray,
    closest: NDArray,
    potential: Array,
    rows_a_chunk: int,
    u: float,
) -> int:
    """The number of a row drawn with probability proportional to weight times squared distance.

    `potential` has the sums over chunks of rows, to all chosen rows; `closest` has the distances, perhaps without the
    latest.
    """
    target = u * potential.sum()
    chunk = _invert(potential, target)
    rows = slice(chunk * rows_a_chunk, (chunk + 1) * rows_a_chunk)
    distances = closest[rows].copy()
    kernels.seed_step(source.X[rows], None, origin, latest[:0], latest, distances)
    mass = distances.astype(np.float64)
    if source.sample_weight is not None:
        mass *= source.sample_weight[rows]
    return rows.start + _invert(mass, target - potential[:chunk].sum())


def _invert(mass: Array, target: float) -> int:
    """The first index at which the cumulative sum of `mass` exceeds a target, of those with a positive mass."""
    index = int(np.searchsorted(np.cumsum(mass), target, side="right"))
    positive = np.flatnonzero(mass > 0)
    return int(positive[min(int(np.searchsorted(positive, index)), len(positive) - 1)])


def _farthest_rows(source: ArraySource, origin: NDArray, centres: NDArray, n_rows: int, otherwise: Array) -> Array:
    """The rows farthest from their nearest centres, for clusters without any; `otherwise` where there are too few."""
    distances = np.empty(len(source.X), source.X.dtype)
    kernels.lloyd_step(source.X, source.sample_weight, origin, centres, distances=distances)
    if source.sample_weight is not None:
        distances[source.sample_weight == 0] = 0
    rows = np.argsort(-distances, kind="stable")[:n_rows]
    rows = rows[distances[rows] > 0]
    result = otherwise.copy()
    result[: len(rows)] = source.X[rows]
    return result


def initial_parameters(
    source: ArraySource,
    n_components: int,
    *,
    covariance_type: str = "full",
    init_params: str = "kmeans",
    seed: int = 0,
    reg_covar: float = 1e-6,
    resp: NDArray | None = None,
    weights: Array | None = None,
    means: Array | None = None,
    precisions: Array | None = None,
) -> tuple[MixtureParameters, int]:
    """Parameters to start EM from.

    Parameters
    ----------
    source : ArraySource
    n_components : int
    covariance_type : str
    init_params : {"kmeans", "k-means++", "random_from_data", "random"}
        "kmeans": the clusters of k-means. "k-means++": means drawn as k-means++ draws them, "random_from_data": means
        drawn from the rows, both with the pooled covariance about the nearest mean. "random": random
        responsibilities.
    seed : int
        64 bits; the same seed gives the same start.
    reg_covar : float
        Added to every variance.
    resp : (N,) int or (N, K), optional
        Labels or responsibilities to start from, in place of `init_params`.
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
    model = get_model(covariance_type)
    form, n_distinct = model.form, n_components
    if weights is None or means is None or precisions is None:
        start = _find_start(source, n_components, model, init_params, Stream(seed), reg_covar, resp)
        weights = start.weights if weights is None else weights
        means = start.means if means is None else means
        n_distinct = start.n_distinct
    if precisions is None:
        covariances = start.covariances()
        precisions_cholesky = form.precisions_cholesky(covariances)
    else:
        precisions_cholesky = form.factor_precisions(precisions)
        covariances = form.covariances(precisions_cholesky)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, covariance_type), n_distinct


def _find_start(
    source: ArraySource,
    n_components: int,
    model: CovarianceModel,
    init_params: str,
    stream: Stream,
    reg_covar: float,
    resp: NDArray | None,
) -> Start:
    if resp is not None:
        return from_given(resp, source, n_components, model, reg_covar)
    if init_params == "kmeans":
        return from_kmeans(source, n_components, stream, model, reg_covar)
    if init_params == "random":
        return from_random_resp(source, n_components, stream, model, reg_covar)
    draw = {"k-means++": kmeans_plusplus, "random_from_data": random_rows}[init_params]
    return from_points(draw(source, n_components, stream), source, model, reg_covar)
