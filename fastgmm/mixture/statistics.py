"""Sufficient statistics of rows under a mixture.

They are the contract between E-steps, which produce them, and M-steps, which consume them. Statistics add: over blocks,
files and machines. Second moments are taken about reference points near the components, never about zero, so that no
digits cancel. Before statistics with different reference points are added, one of them is moved to the reference points
of the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .layouts import LAYOUTS

# Added to the weight sums, as in scikit-learn, so that means can be divided by them. If the total weight of the rows is
# below 1, this is multiplied by the total weight.
MIN_WEIGHT_SUM = 10 * np.finfo(np.float64).eps
# A feature is constant if its variance is at most this many times the variance of its rounding.
ROUNDING_VARIANCES = 100


@dataclass(frozen=True, eq=False)
class SufficientStatistics:
    """Weighted moments of rows, by component, and their log-likelihood.

    Statistics of disjoint sets of rows can be added: ``a + b``, or ``sum(blocks)``. The parameters of the constructor
    are also its attributes. All arrays are float64.

    Parameters
    ----------
    layout : {"full", "diagonal", "tied"}
        Which second moments are stored.
    reference : ndarray of shape (K, D)
        Reference point c_k of each component, in the units of the rows.
    weight_sums : ndarray of shape (K,)
        Weight of each component, ``n_k = sum_i w_i r_ik``, with w the rows' weights and r their responsibilities.
    first_moments : ndarray of shape (K, D)
        First moments, ``f_k = sum_i w_i r_ik (x_i - c_k)``.
    scatter : ndarray
        Second moments, ``S_k = sum_i w_i r_ik (x_i - c_k)(x_i - c_k)^T``, of shape (K, D, D) for "full". Their
        diagonals, of shape (K, D), for "diagonal". Their sum over the components, of shape (D, D), for "tied".
    log_likelihood : float
        Log-likelihood ``sum_i w_i log p(x_i)`` in nats (a sum, not a mean), under the parameters that gave the
        responsibilities.
    total_weight : float
        Sum of the weights, ``sum_i w_i``: the number of rows if they have no weights.

    Raises
    ------
    ValueError
        If the layout is unknown, or the shapes of the arrays do not fit together.

    See Also
    --------
    engine.accumulate : E-step, which gives statistics.
    engine.maximise : M-step, which takes statistics.
    MixtureParameters : Parameters of a mixture.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import MixtureParameters, accumulate
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [1.0, 1.0], "spherical")
    >>> whole = accumulate(parameters, X)
    >>> halves = accumulate(parameters, X[:400]) + accumulate(parameters, X[400:])
    >>> bool(np.allclose(whole.scatter, halves.scatter)), halves.total_weight
    (True, 1000.0)
    """

    layout: str
    reference: NDArray[np.float64]
    weight_sums: NDArray[np.float64]
    first_moments: NDArray[np.float64]
    scatter: NDArray[np.float64]
    log_likelihood: float
    total_weight: float

    def __post_init__(self) -> None:
        n_components, n_features = self.reference.shape
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {sorted(LAYOUTS)}, got {self.layout!r}")
        shapes = {
            "weight_sums": (n_components,),
            "first_moments": (n_components, n_features),
            "scatter": LAYOUTS[self.layout].scatter_shape(n_components, n_features),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} must have shape {shape} in the {self.layout} layout for reference points of shape "
                    f"{self.reference.shape}, got shape {getattr(self, name).shape}"
                )

    @classmethod
    def of_moments(
        cls, layout: str, weight_sums: NDArray[np.float64], means: NDArray[np.float64], scatter: NDArray[np.float64]
    ) -> SufficientStatistics:
        """Make statistics of rows from weights, means, and scatter about the means.

        Parameters
        ----------
        layout : {"full", "diagonal", "tied"}
            Which second moments are stored.
        weight_sums : ndarray of shape (K,)
            Weight of each component.
        means : ndarray of shape (K, D)
            Means of the components, which are also the reference points.
        scatter : ndarray
            Second moments about the means, in the shape of the layout.

        Returns
        -------
        SufficientStatistics
            Statistics with a log-likelihood of 0.
        """
        first_moments, total_weight = np.zeros_like(means), float(weight_sums.sum())
        return cls(layout, means, weight_sums, first_moments, scatter, 0.0, total_weight)

    @property
    def n_components(self) -> int:
        """Number of components K."""
        return self.reference.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features D."""
        return self.reference.shape[1]

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood divided by the total weight, in nats per row."""
        return self.log_likelihood / self.total_weight if self.total_weight > 0 else float("nan")

    def recentred(self, reference: NDArray[np.float64]) -> SufficientStatistics:
        """Move the statistics to other reference points.

        With ``d = c_k - c'_k``: ``f' = f + n d`` and ``S' = S + d f^T + f d^T + n d d^T``. The error is the rounding of
        the larger of S and S', so reference points should be near the rows of their component.

        Parameters
        ----------
        reference : ndarray of shape (K, D) or (D,)
            New reference points, or one point for all components.

        Returns
        -------
        SufficientStatistics
            Statistics of the same rows about the new points.
        """
        reference = np.broadcast_to(np.asarray(reference, dtype=np.float64), self.reference.shape)
        move = self.reference - reference
        moved = self.weight_sums[:, np.newaxis] * move
        scatter = LAYOUTS[self.layout].recentred(self.scatter, move, self.first_moments, moved)
        return replace(self, reference=np.array(reference), first_moments=self.first_moments + moved, scatter=scatter)

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if (self.layout, self.reference.shape) != (other.layout, other.reference.shape):
            raise ValueError(
                "Statistics do not add unless their layouts and shapes are equal: got the "
                f"{self.layout} layout with (n_components, n_features) = {self.reference.shape} and the "
                f"{other.layout} layout with {other.reference.shape}."
            )
        if not np.array_equal(self.reference, other.reference):
            # Statistics about each component's own point have digits that are lost about one point for all components.
            if (self.reference == self.reference[0]).all() and not (other.reference == other.reference[0]).all():
                return other + self
            other = other.recentred(self.reference)
        return replace(
            self,
            weight_sums=self.weight_sums + other.weight_sums,
            first_moments=self.first_moments + other.first_moments,
            scatter=self.scatter + other.scatter,
            log_likelihood=self.log_likelihood + other.log_likelihood,
            total_weight=self.total_weight + other.total_weight,
        )

    def __radd__(self, other: object) -> SufficientStatistics:
        # sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def scaled(self, factor: float) -> SufficientStatistics:
        """Multiply the weights of all rows by a factor.

        Parameters
        ----------
        factor : float
            Factor of the weights.

        Returns
        -------
        SufficientStatistics
            Statistics of the same rows with the new weights.
        """
        return replace(
            self,
            weight_sums=factor * self.weight_sums,
            first_moments=factor * self.first_moments,
            scatter=factor * self.scatter,
            log_likelihood=factor * self.log_likelihood,
            total_weight=factor * self.total_weight,
        )


def has_shared_scatter(statistics: SufficientStatistics) -> bool:
    """Return whether one scatter is that of all components."""
    return LAYOUTS[statistics.layout].is_shared


def check_layout(statistics: SufficientStatistics, layout: str, covariance_type: str) -> None:
    """Check that the statistics have the layout that a covariance type needs.

    Parameters
    ----------
    layout : {"full", "diagonal", "tied"}
        The layout that is needed.
    covariance_type : str
        The covariance type that needs it, for the message.

    Raises
    ------
    ValueError
        If the statistics have another layout.
    """
    if statistics.layout != layout:
        raise ValueError(
            f"covariance_type {covariance_type!r} needs statistics of the {layout} layout, got the {statistics.layout} "
            f"layout. Accumulate them with parameters, or a covariance_type, of that layout."
        )


def positive_weight_sums(statistics: SufficientStatistics) -> NDArray:
    """Return the weight sums, (K,), increased slightly so that all are above 0."""
    return statistics.weight_sums + MIN_WEIGHT_SUM * min(1.0, statistics.total_weight)


def scatter_about_means(statistics: SufficientStatistics, weight_sums: NDArray) -> NDArray:
    """Return the scatter about the means ``c + f / weight_sums``.

    One step computes it, so that it stays symmetric and its diagonal does not become negative.
    """
    move = statistics.first_moments / weight_sums[:, np.newaxis]
    # S - f d^T - d f^T + n d d^T with f = weight_sums d.
    factor = 2 * weight_sums - statistics.weight_sums

    def floor() -> NDArray:
        return weight_sums[:, np.newaxis] * rounding_variance(statistics.reference + move)

    return LAYOUTS[statistics.layout].about_means(statistics.scatter, move, factor, floor)


def rounding_variance(means: NDArray) -> NDArray:
    """Return the square of the rounding error of float64 numbers of this size.

    A variance that is no larger cannot be told from zero.
    """
    with np.errstate(over="ignore"):
        return (np.finfo(np.float64).eps * means) ** 2


def features_depend(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Return whether some features are, to rounding, linear functions of others.

    Constant features do not count.

    Parameters
    ----------
    statistics : SufficientStatistics
        Of all rows as one component, in the tied layout.
    dtype : dtype
        Of the rows.
    """
    scatter = scatter_about_means(statistics, statistics.weight_sums)
    variances = np.diagonal(scatter)
    floor = statistics.total_weight * rounding_variance(statistics.reference[0])
    varies = variances > ROUNDING_VARIANCES * floor
    if not varies.any():
        return False
    deviations = np.sqrt(variances[varies])
    smallest = np.linalg.eigvalsh(scatter[np.ix_(varies, varies)] / np.outer(deviations, deviations))[0]
    rounding = 10 * len(deviations) * float(np.finfo(np.float64).eps), (8 * float(np.finfo(dtype).eps)) ** 2
    return bool(smallest < max(rounding))
