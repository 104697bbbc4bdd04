"""Sufficient statistics of rows under a mixture: the one contract of the package.

Whatever reads rows produces these, whatever estimates parameters consumes them, and they add: over blocks, over files,
over machines. Second moments are taken about reference points near the components, never about zero, so that nothing
cancels; statistics with different reference points are moved to common ones before they are added, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import serial_matmul

# Components' weight sums are kept above 0, as scikit-learn keeps them, so that a mean can be divided by one; of rows
# with tiny weights by as much less.
LEAST_WEIGHT = 10 * np.finfo(np.float64).eps
# A feature is constant if its variance is no more than so many times that of its rounding.
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
        expected = {
            "full": (n_components, n_features, n_features),
            "diagonal": (n_components, n_features),
            "tied": (n_features, n_features),
        }
        if self.layout not in expected:
            raise ValueError(f"layout must be one of {sorted(expected)}, but is {self.layout!r}")
        shapes = {
            "weight_sums": (n_components,),
            "first_moments": (n_components, n_features),
            "scatter": expected[self.layout],
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} should have shape {shape} in the {self.layout} layout for reference points of shape "
                    f"{self.reference.shape}, but has {getattr(self, name).shape}"
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
        if self.layout == "diagonal":
            scatter = self.scatter + move * (2 * self.first_moments + moved)
        else:
            half = np.einsum("kd,ke->kde", move, self.first_moments + moved / 2)
            change = half + half.swapaxes(1, 2)
            scatter = self.scatter + (change if self.layout == "full" else change.sum(axis=0))
        return replace(self, reference=np.array(reference), first_moments=self.first_moments + moved, scatter=scatter)

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        if not isinstance(other, SufficientStatistics):
            return NotImplemented
        if (self.layout, self.reference.shape) != (other.layout, other.reference.shape):
            raise ValueError(
                f"statistics of {self.layout} layout with (components, features) = {self.reference.shape} and of "
                f"{other.layout} layout with {other.reference.shape} do not add"
            )
        if not np.array_equal(self.reference, other.reference):
            # About each component's own point digits are kept that are lost about one point for all.
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


def positive_weight_sums(statistics: SufficientStatistics) -> NDArray:
    """The weight sums, above 0."""
    return statistics.weight_sums + LEAST_WEIGHT * min(1.0, statistics.total_weight)


def scatter_about_means(statistics: SufficientStatistics, weight_sums: NDArray) -> NDArray:
    """The scatter about the means ``c + f / weight_sums``, in one step and so without losing symmetry or sign."""
    move = statistics.first_moments / weight_sums[:, np.newaxis]
    # S - f d^T - d f^T + n d d^T with f = weight_sums d.
    factor = 2 * weight_sums - statistics.weight_sums
    if statistics.layout == "diagonal":
        scatter = statistics.scatter - factor[:, np.newaxis] * move**2
        # Rows that are equal as far as their digits go are no nearer than their rounding.
        return np.maximum(scatter, weight_sums[:, np.newaxis] * rounding_variance(statistics.reference + move))
    if statistics.layout == "tied":
        return statistics.scatter - serial_matmul((factor[:, np.newaxis] * move).T, move)
    moved = np.einsum("k,kd,ke->kde", factor, move, move)
    return np.subtract(statistics.scatter, moved, out=moved)


def rounding_variance(means: NDArray) -> NDArray:
    """The square of the rounding of float64 numbers of this size: no variance can be told from a smaller one."""
    with np.errstate(over="ignore"):
        return (np.finfo(np.float64).eps * means) ** 2


def features_depend(statistics: SufficientStatistics, dtype: np.dtype) -> bool:
    """Whether some features are a linear function of others, to rounding; constant features are not.

    The statistics are those of all rows, of a dtype, as one component in the tied layout.
    """
    scatter = scatter_about_means(statistics, statistics.weight_sums)
    variances = np.diagonal(scatter)
    floor = statistics.total_weight * rounding_variance(statistics.reference[0])
    there = variances > ROUNDING_VARIANCES * floor
    if not there.any():
        return False
    deviations = np.sqrt(variances[there])
    smallest = np.linalg.eigvalsh(scatter[np.ix_(there, there)] / np.outer(deviations, deviations))[0]
    rounding = 10 * len(deviations) * float(np.finfo(np.float64).eps), (8 * float(np.finfo(dtype).eps)) ** 2
    return bool(smallest < max(rounding))
