"""Stepwise EM: a mixture learnt from a stream of rows, in batches.

Each batch is read once. In each step, the statistics of a batch, taken under the current parameters, are added to those
of the earlier rows, whose weight decreases, and an M-step follows (Cappé & Moulines, 2009, "On-line
expectation-maximization algorithm for latent data models", Journal of the Royal Statistical Society B 71). Statistics
remain sums. So the statistics that two machines have gathered since a common start can be added.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastgmm.e_step.complete_rows import accumulate
from fastgmm.m_step.maximum_likelihood import estimate_weights_and_means, maximise
from fastgmm.m_step.model_conversion import statistics_like
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .forgetting import ForgettingSchedule


@dataclass(frozen=True, eq=False)
class StepwiseEM:
    """A mixture, and the statistics of the rows that it has learnt.

    It is immutable: a step returns another one. The rows are in two groups, which are counted apart so that models can
    be added: the past, which models may have in common, and the fresh rows after it.

    Attributes
    ----------
    parameters : MixtureParameters
    past : SufficientStatistics
        Of the rows of the start or, in a fork, of the rows before it.
    past_rows : float
        Number of the rows of the past.
    past_effective : float
        Their effective number when the past ended.
    past_steps : int
        Number of batches in the past, after the start.
    past_share : float
        The weight of the past now, relative to its end.
    fresh : SufficientStatistics or None
        Of the rows after the past.
    fresh_rows : int
        Number of the rows after the past.
    fresh_effective : float
        Their effective number now.
    fresh_steps : int
        Number of batches after the past.
    digests : frozenset of bytes
        Of the first batch after the past, one for each model that was added. Two models with a digest in common have
        learnt the same rows.
    """

    parameters: MixtureParameters
    past: SufficientStatistics
    past_rows: float
    past_effective: float
    past_steps: int = 0
    past_share: float = 1.0
    fresh: SufficientStatistics | None = None
    fresh_rows: int = 0
    fresh_effective: float = 0.0
    fresh_steps: int = 0
    digests: frozenset[bytes] = frozenset()

    @classmethod
    def begin(
        cls,
        parameters: MixtureParameters,
        X: NDArray,
        sample_weight: NDArray[np.float64] | None,
        forgetting: ForgettingSchedule,
    ) -> StepwiseEM:
        """Return the model after a start: parameters fitted to the first rows."""
        share = forgetting.effective_rows(len(X)) / len(X)
        statistics = accumulate(parameters, X, forgetting.batch_weights(sample_weight, len(X))).scaled(share)
        return cls(parameters, statistics, len(X), share * forgetting.effective_batch_rows(len(X)))

    @classmethod
    def from_parameters(
        cls, parameters: MixtureParameters, n_rows: float, mean_log_likelihood: float, reg_covar: float
    ) -> StepwiseEM:
        """Return a model with given parameters that has the weight of `n_rows` rows.

        Parameters
        ----------
        parameters : MixtureParameters
        n_rows : float
        mean_log_likelihood : float
            Of the rows, in nats per row.
        reg_covar : float
            Added to every variance by the M-steps.
        """
        statistics = _statistics_of(parameters, n_rows * parameters.weights, reg_covar)
        statistics = replace(statistics, log_likelihood=n_rows * mean_log_likelihood)
        return cls(parameters, statistics, n_rows, n_rows)

    @property
    def n_rows(self) -> float:
        """Number of rows that were learnt."""
        return self.past_rows + self.fresh_rows

    @property
    def n_steps(self) -> int:
        """Number of batches since the start."""
        return self.past_steps + self.fresh_steps

    @property
    def n_effective(self) -> float:
        """Effective number of rows."""
        return self.past_effective * self.past_share + self.fresh_effective

    @property
    def statistics(self) -> SufficientStatistics:
        """Statistics of all rows with their present weights."""
        past = self.past.scaled(self.past_share)
        return past if self.fresh is None else self.fresh + past

    @property
    def mean_log_likelihood(self) -> float:
        """Mean log-likelihood of the rows after the past, each before it was learnt.

        If there are none, it is that of the past.
        """
        return (self.past if self.fresh is None else self.fresh).mean_log_likelihood

    def learn(
        self, X: NDArray, sample_weight: NDArray[np.float64] | None, forgetting: ForgettingSchedule, *, reg_covar: float
    ) -> StepwiseEM:
        """Make one step and return the model that has learnt a batch too.

        Parameters
        ----------
        X : (n, D) float64 or float32
        sample_weight : (n,) float64 or None
            Above 0.
        forgetting : ForgettingSchedule
        reg_covar : float
            Added to every variance.

        Returns
        -------
        StepwiseEM

        Raises
        ------
        IllDefinedCovarianceError
            If a covariance is not positive definite; a positive `reg_covar` prevents that.
        """
        batch = accumulate(self.parameters, X, forgetting.batch_weights(sample_weight, len(X)))
        retained = forgetting.retained(self.n_rows, len(X))
        after_batch = replace(
            self,
            past_share=self.past_share * retained,
            # The batch comes first in the sum: its reference points are the current means.
            fresh=batch if self.fresh is None else batch + self.fresh.scaled(retained),
            fresh_rows=self.fresh_rows + len(X),
            fresh_effective=self.fresh_effective * retained + forgetting.effective_batch_rows(len(X)),
            fresh_steps=self.fresh_steps + 1,
            digests=self.digests or frozenset({_digest(X)}),
        )
        return after_batch._maximised(reg_covar)

    def fork(self) -> StepwiseEM:
        """Return the same model with all its rows in the past.

        The past is what it has in common with other forks.
        """
        return StepwiseEM(self.parameters, self.statistics, self.n_rows, self.n_effective, self.n_steps)

    def merged(self, other: StepwiseEM, *, reg_covar: float) -> StepwiseEM:
        """Return the model of the common past and of the fresh rows of both models.

        The weight of the past is the product of its weights in both, as if the fresh rows of both had followed it.

        Raises
        ------
        ValueError
            If the models have different pasts, or have learnt the same rows after it.
        """
        if not _are_equal(self.past, other.past) or self.past_rows != other.past_rows:
            raise ValueError(
                "Models that are added must have the same past, but these did not begin from the same start, and rows "
                "that both have learnt would count twice. Make forks of one model with fork(), give each its own rows, "
                "and add the forks."
            )
        if self.digests & other.digests:
            raise ValueError(
                "Models that are added must have learnt different rows, but these have learnt the same rows since they "
                "parted, and those would count twice. Make each copy of a model with fork(), and give it its own rows."
            )
        parts = [part for part in (self.fresh, other.fresh) if part is not None]
        both = replace(
            self,
            past_share=self.past_share * other.past_share,
            fresh=sum(parts[1:], start=parts[0]) if parts else None,
            fresh_rows=self.fresh_rows + other.fresh_rows,
            fresh_effective=self.fresh_effective + other.fresh_effective,
            fresh_steps=self.fresh_steps + other.fresh_steps,
            digests=self.digests | other.digests,
        )
        return both._maximised(reg_covar) if parts else both

    def _maximised(self, reg_covar: float) -> StepwiseEM:
        """Return the model after an M-step.

        If a component has fewer than D + 1 rows, the missing ones count with the mean and the covariance it had before.
        Otherwise a component from which the rows drift away would collapse on the last few rows, or on rounding. The
        weights are those of the rows alone.
        """
        statistics, before = self.statistics, self.parameters
        needed = (statistics.n_features + 1) * statistics.total_weight / self.n_effective
        missing = np.maximum(needed - statistics.weight_sums, 0.0)
        full = statistics if not missing.any() else statistics + _statistics_of(before, missing, reg_covar)
        parameters = maximise(full, before.covariance_type, reg_covar=reg_covar, before=before)
        if full is not statistics:
            parameters = replace(parameters, weights=estimate_weights_and_means(statistics)[0])
        return replace(self, parameters=parameters)


def _statistics_of(parameters: MixtureParameters, weight_sums: NDArray, reg_covar: float) -> SufficientStatistics:
    """Return statistics from which an M-step makes these means and covariances."""
    # The M-step adds `reg_covar` again. If it were not taken off here, a component without rows would grow.
    return statistics_like(parameters, weight_sums, parameters.covariance_type, reg_covar=reg_covar)


def _digest(X: NDArray) -> bytes:
    """Return a digest of rows."""
    return hashlib.blake2b(np.ascontiguousarray(X).tobytes(), digest_size=16).digest()


def _are_equal(one: SufficientStatistics, other: SufficientStatistics) -> bool:
    """Return whether two statistics are equal, apart from the log-likelihood."""
    names = ("layout", "reference", "weight_sums", "first_moments", "scatter")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
