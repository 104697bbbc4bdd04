"""Variational Bayes: distributions of the parameters of a mixture.

The posterior is a product of factors: a distribution of the weights and, for each component, a Gaussian of the mean
given the precision and a Wishart distribution of the precision (Bishop, 2006, "Pattern Recognition and Machine
Learning", section 10.2; for the Dirichlet process prior Blei & Jordan, 2006, Bayesian Analysis 1).

The passes over the rows are those of maximum likelihood. The E-step reads a posterior as it reads parameters: means,
factors of the expected precisions, and a constant for each component. The M-step reads the same sufficient statistics.
All definitions are those of scikit-learn's `BayesianGaussianMixture`, including the constants in the bound.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, digamma, gammaln

from fastgmm.covariance import CovarianceModel
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, positive_weight_sums, scatter_about_means

from .objective import Objective

Array = NDArray[np.float64]


class WeightPrior(abc.ABC):
    """A distribution of the weights, with the parameters `concentration`."""

    @staticmethod
    @abc.abstractmethod
    def posterior(prior: float, weight_sums: Array) -> Array:
        """Return the concentration, given the components' weight sums, (K,)."""

    @staticmethod
    @abc.abstractmethod
    def expected_log_weights(concentration: Array) -> Array:
        """Return ``E[log w]``, (K,)."""

    @staticmethod
    @abc.abstractmethod
    def expected_weights(concentration: Array) -> Array:
        """Return ``E[w]``, scaled to sum to one, (K,)."""

    @staticmethod
    @abc.abstractmethod
    def log_norm(concentration: Array) -> float:
        """Return the log of the distribution's normalising factor."""


class DirichletDistribution(WeightPrior):
    """A Dirichlet distribution, symmetric a priori; the concentration is (K,)."""

    @staticmethod
    def posterior(prior: float, weight_sums: Array) -> Array:
        return prior + weight_sums

    @staticmethod
    def expected_log_weights(concentration: Array) -> Array:
        return np.asarray(digamma(concentration) - digamma(concentration.sum()))

    @staticmethod
    def expected_weights(concentration: Array) -> Array:
        return concentration / concentration.sum()

    @staticmethod
    def log_norm(concentration: Array) -> float:
        return float(gammaln(concentration.sum()) - gammaln(concentration).sum())


class DirichletProcess(WeightPrior):
    """A Dirichlet process, truncated at K components, by stick breaking.

    The concentration, (2, K), has the parameters of K beta distributions.
    """

    @staticmethod
    def posterior(prior: float, weight_sums: Array) -> Array:
        later = np.append(np.cumsum(weight_sums[::-1])[-2::-1], 0.0)
        return np.array([1.0 + weight_sums, prior + later])

    @staticmethod
    def expected_log_weights(concentration: Array) -> Array:
        a, b = digamma(concentration)
        both = digamma(concentration.sum(axis=0))
        return np.asarray(a - both + np.append(0.0, np.cumsum(b - both)[:-1]))

    @staticmethod
    def expected_weights(concentration: Array) -> Array:
        broken_off, remaining = concentration / concentration.sum(axis=0)
        weights = broken_off * np.append(1.0, np.cumprod(remaining[:-1]))
        return np.asarray(weights / weights.sum())

    @staticmethod
    def log_norm(concentration: Array) -> float:
        return float(-betaln(*concentration).sum())


WEIGHT_PRIORS: dict[str, type[WeightPrior]] = {
    "dirichlet_process": DirichletProcess,
    "dirichlet_distribution": DirichletDistribution,
}


@dataclass(frozen=True, eq=False)
class Prior:
    """The prior distributions of the parameters.

    Attributes
    ----------
    weights : type of WeightPrior
    weight_concentration : float
    mean_precision : float
        Number of rows that the prior of a mean is worth.
    mean : (D,)
    degrees_of_freedom : float
        Number of rows that the prior of a covariance is worth, above D - 1.
    covariance : (D, D) for "full" and "tied", (D,) for "diag", () for "spherical"
        The scatter of those rows.
    """

    weights: type[WeightPrior]
    weight_concentration: float
    mean_precision: float
    mean: Array
    degrees_of_freedom: float
    covariance: Array


@dataclass(frozen=True, eq=False)
class Posterior(MixtureParameters):
    """Distributions of a mixture's parameters; the parameters are expectations.

    Attributes
    ----------
    prior : Prior
    concentration : (K,) or (2, K)
        Parameters of the distribution of the weights; see `WeightPrior`.
    mean_precision : (K,)
        The precision of a mean in units of its component's precision.
    degrees_of_freedom : (K,), or () for "tied"
        Degrees of freedom of the Wishart distributions. `covariances` are the inverses of the expected precisions.
    """

    prior: Prior
    concentration: Array
    mean_precision: Array
    degrees_of_freedom: Array

    def log_coef(self) -> Array:
        """Return each component's expected log-density without the distance, (K,).

        ``E[log w] - D / 2 log 2 pi + E[log det precision] / 2 - D / (2 mean_precision)``.
        """
        n_features = self.n_features
        log_weights = self.prior.weights.expected_log_weights(self.concentration)
        log_det = n_features * np.log(2.0) + digamma(_halves(self.degrees_of_freedom, n_features)).sum(axis=0)
        log_det = 2 * self.log_det_scale() + log_det
        return np.asarray(
            log_weights + (log_det - n_features * np.log(2 * np.pi) - n_features / self.mean_precision) / 2
        )

    def log_det_scale(self) -> Array:
        """Return ``log det`` of the factors of the Wishart scales, (K,) or ()."""
        log_det = self.model.form.log_det(self.precisions_cholesky, self.n_features)
        return np.asarray(log_det - self.n_features / 2 * np.log(self.degrees_of_freedom))

    def log_norm(self) -> float:
        """Return the log of the normalising factors, without constants."""
        freedom, n_features = self.degrees_of_freedom, self.n_features
        gammas = gammaln(_halves(freedom, n_features)).sum(axis=0)
        wishart = -(freedom * self.log_det_scale() + freedom * n_features / 2 * np.log(2.0) + gammas)
        total = float(np.broadcast_to(wishart, (self.n_components,)).sum())
        return (
            total
            + self.prior.weights.log_norm(self.concentration)
            + n_features / 2 * float(np.log(self.mean_precision).sum())
        )


def posterior_of(
    statistics: SufficientStatistics, model: CovarianceModel, prior: Prior, *, reg_covar: float
) -> Posterior:
    """Return the posterior, given sufficient statistics; this is the M-step.

    `reg_covar` is added to every variance of the rows.

    Raises
    ------
    IllDefinedCovarianceError
        If an expected precision is not positive definite.
    """
    weight_sums = positive_weight_sums(statistics)
    sample_means = statistics.reference + statistics.first_moments / weight_sums[:, np.newaxis]
    mean_precision = prior.mean_precision + weight_sums
    share = weight_sums / mean_precision
    apart = sample_means - prior.mean
    means = prior.mean + share[:, np.newaxis] * apart
    shrinkage = model.form.outer(prior.mean_precision * share, apart)
    within = model.covariances(
        scatter_about_means(statistics, weight_sums) + shrinkage, weight_sums, reg_covar=reg_covar
    )
    counts = model.form.counts(weight_sums)
    freedom = prior.degrees_of_freedom + counts
    counts, scale = (a.reshape(a.shape + (1,) * (within.ndim - a.ndim)) for a in (counts, freedom))
    covariances = (prior.covariance + counts * within) / scale
    concentration = prior.weights.posterior(prior.weight_concentration, weight_sums)
    return Posterior(
        prior.weights.expected_weights(concentration),
        means,
        covariances,
        model.form.precisions_cholesky(covariances),
        model.name,
        prior,
        concentration,
        mean_precision,
        freedom,
    )


class VariationalBound(Objective):
    """Variational Bayes: the lower bound of the log-evidence.

    The bound is that of all rows, not per row, and it is that after the M-step.

    Parameters
    ----------
    prior : Prior
        The prior of a start. A later point has its own prior.
    covariance_type, reg_covar
        See `Objective`.
    """

    def __init__(self, prior: Prior, covariance_type: str = "full", reg_covar: float = 1e-6):
        super().__init__(covariance_type, reg_covar)
        self.prior = prior

    def bound(self, statistics: SufficientStatistics, point: MixtureParameters) -> float:
        """Return the bound after the M-step from a point."""
        return self.step(statistics, point)[1]

    def maximise(self, statistics: SufficientStatistics, point: MixtureParameters) -> Posterior:
        """Return the posterior; see `posterior_of`."""
        assert isinstance(point, Posterior)
        return posterior_of(statistics, point.model, point.prior, reg_covar=self.reg_covar)

    def from_moments(self, statistics: SufficientStatistics) -> Posterior:
        """Return the posterior, given moments."""
        return posterior_of(statistics, self.model, self.prior, reg_covar=0.0)

    def step(
        self, statistics: SufficientStatistics, point: MixtureParameters, reject_below: float | None = None
    ) -> tuple[Posterior, float]:
        """Make one M-step, and return the bound after it.

        No point is rejected, since there is no accelerator.
        """
        posterior = self.maximise(statistics, point)
        return posterior, entropy(statistics, point) - posterior.log_norm()


def entropy(statistics: SufficientStatistics, point: MixtureParameters) -> float:
    """Return the entropy of the responsibilities of a pass, in nats.

    It is ``-sum_ik w_i r_ik log r_ik``. No pass over the rows is needed: ``log r_ik`` is the component's log-density of
    the row less the mixture's, and both sums follow from the statistics. This costs K D^3 flops.
    """
    centred = statistics.recentred(point.means)
    weight_sums = statistics.weight_sums
    with np.errstate(invalid="ignore"):
        constants = np.where(weight_sums > 0, weight_sums * point.log_coef(), 0.0).sum()
    distances = point.model.form.trace(point.precisions_cholesky, centred.scatter)
    return max(0.0, statistics.log_likelihood - float(constants) + distances / 2)


def _halves(freedom: Array, n_features: int) -> Array:
    """Return ``(freedom - d) / 2`` for the features d, (D, K) or (D,)."""
    return np.subtract.outer(freedom, np.arange(n_features)).T / 2
