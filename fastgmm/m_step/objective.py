"""The contract of an objective: the bound that EM raises, and its M-step."""

from __future__ import annotations

import abc

from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, IllDefinedCovarianceError, get_model
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics


class Objective(abc.ABC):
    """A bound that EM raises, and the M-step that raises it.

    `fitting.em.run` alternates full passes over the rows, which give sufficient statistics, with `step`. A new
    objective implements `bound` and `maximise`, or `step` if its bound needs the result of the M-step.

    Parameters
    ----------
    covariance_type : str
        The covariance model of the parameters that a fit starts from.
    reg_covar : float
        Added to every variance by the M-step.
    """

    # True if `start` returns the parameters that it is given.
    starts_unchanged = False

    def __init__(self, covariance_type: str = "full", reg_covar: float = 1e-6):
        self.covariance_type, self.reg_covar = covariance_type, reg_covar

    @property
    def model(self) -> CovarianceModel:
        """The covariance model of the parameters that a fit starts from."""
        return get_model(self.covariance_type)

    @abc.abstractmethod
    def bound(self, statistics: SufficientStatistics, point: MixtureParameters) -> float:
        """Return the bound at a point, in nats per row.

        The statistics are those of the rows under the point. `VariationalBound` differs: its bound is that of all
        rows, after the M-step.
        """

    @abc.abstractmethod
    def maximise(self, statistics: SufficientStatistics, point: MixtureParameters) -> MixtureParameters:
        """Return the parameters of highest bound, given statistics under a point.

        Raises
        ------
        IllDefinedCovarianceError
            If a component has collapsed.
        """

    @abc.abstractmethod
    def from_moments(self, statistics: SufficientStatistics) -> MixtureParameters:
        """Return the parameters of highest bound, given moments.

        The scatter of the statistics includes `reg_covar` already.
        """

    def step(
        self, statistics: SufficientStatistics, point: MixtureParameters, reject_below: float | None = None
    ) -> tuple[MixtureParameters | None, float]:
        """Make one M-step.

        Parameters
        ----------
        statistics : SufficientStatistics
            Of all rows under the point.
        point : MixtureParameters
        reject_below : float, optional
            If the bound is lower, or a component collapses, return None for the parameters: the point was a proposal
            of an accelerator and is rejected.

        Returns
        -------
        parameters : MixtureParameters or None
            After the step.
        bound : float
            Of the point. Objectives without a bound of a point return the bound after the step.

        Raises
        ------
        IllDefinedCovarianceError
            If a component has collapsed and `reject_below` is None.
        """
        bound = self.bound(statistics, point)
        try:
            if reject_below is None or bound >= reject_below:
                return self.maximise(statistics, point), bound
        except IllDefinedCovarianceError:
            if reject_below is None:
                raise
        return None, bound

    def start(self, weights: NDArray, means: NDArray, covariances: NDArray, total_weight: float) -> MixtureParameters:
        """Return the parameters that a fit starts from, given an initialisation.

        Parameters
        ----------
        weights : (K,) float64
        means : (K, D) float64
        covariances : float64
            In the form of the covariance model; they include `reg_covar`.
        total_weight : float
            Sum of the rows' weights.

        Raises
        ------
        IllDefinedCovarianceError
            If a covariance is not positive definite.
        """
        weight_sums = total_weight * weights
        scatter = self.model.form.scatter_of(covariances, weight_sums, means.shape[1])
        return self.from_moments(SufficientStatistics.of_moments(self.model.layout, weight_sums, means, scatter))
