"""M-step of maximum likelihood: from sufficient statistics to parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, check_layout, positive_weight_sums, scatter_about_means

from .objective import Objective


@np.errstate(over="ignore", invalid="ignore")
def maximise(
    statistics: SufficientStatistics,
    covariance_type: str = "full",
    *,
    reg_covar: float = 1e-6,
    before: MixtureParameters | None = None,
) -> MixtureParameters:
    """Do the M-step: find the parameters of highest likelihood.

    Parameters
    ----------
    statistics : SufficientStatistics
        Statistics of the rows, in the layout that the covariance type needs.
    covariance_type : str, default="full"
        One of scikit-learn's four types or of mclust's fourteen models [1]_; see `fastgmm.GaussianMixture`.
    reg_covar : float, default=1e-6
        Added to every variance.
    before : MixtureParameters, optional
        Parameters under which the statistics were computed. Models whose M-step iterates start there, so that the
        likelihood does not fall.

    Returns
    -------
    MixtureParameters
        Parameters of highest likelihood.

    Raises
    ------
    TypeError
        If `statistics` are not `SufficientStatistics`.
    ValueError
        If the statistics have no rows, contain NaN, or have another layout than the covariance type needs.
    IllDefinedCovarianceError
        If a covariance is not positive definite. The error names the components.

    See Also
    --------
    accumulate : E-step, which gives the statistics.
    fastgmm.GaussianMixture : Estimator that alternates both steps.

    References
    ----------
    .. [1] G. Celeux and G. Govaert (1995). Gaussian parsimonious clustering models. Pattern Recognition 28.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import accumulate_labels, maximise
    >>> X = np.array([[0.0], [2.0], [10.0], [14.0]])
    >>> statistics = accumulate_labels([0, 0, 1, 1], [[0.0], [10.0]], X, covariance_type="diag")
    >>> parameters = maximise(statistics, "diag", reg_covar=0.0)
    >>> parameters.means.ravel(), parameters.covariances.ravel()
    (array([ 1., 12.]), array([1., 4.]))
    """
    model = get_model(covariance_type)
    if not isinstance(statistics, SufficientStatistics):
        raise TypeError(
            f"statistics must be SufficientStatistics, got {statistics!r}. (The sum of an empty list of blocks is 0.)"
        )
    if not statistics.total_weight > 0:
        raise ValueError(f"statistics must have total_weight > 0, got {statistics.total_weight}: pass at least one row")
    if np.isnan(statistics.weight_sums).any():
        raise ValueError("statistics must not contain NaN: check the rows, their weights and the parameters for NaN")
    check_layout(statistics, model.layout, covariance_type)
    weights, means = estimate_weights_and_means(statistics)
    covariances = estimate_covariances(statistics, model, reg_covar, before=before)
    precisions_cholesky = model.form.precisions_cholesky(covariances)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, covariance_type)


def estimate_weights_and_means(statistics: SufficientStatistics) -> tuple[NDArray, NDArray]:
    """Return the weights and means of highest likelihood.

    Returns
    -------
    weights : (K,)
        ``n_k / sum_j n_j``.
    means : (K, D)
        ``c_k + f_k / n_k``.
    """
    weight_sums = positive_weight_sums(statistics)
    means = statistics.reference + statistics.first_moments / weight_sums[:, np.newaxis]
    return weight_sums / weight_sums.sum(), means


def estimate_covariances(
    statistics: SufficientStatistics,
    model: CovarianceModel,
    reg_covar: float,
    *,
    before: MixtureParameters | None = None,
) -> NDArray:
    """Return the covariances of highest likelihood about the estimated means.

    `reg_covar` is added to every variance. `before` are the parameters from which an iteration starts.
    """
    weight_sums = positive_weight_sums(statistics)
    scatter = scatter_about_means(statistics, weight_sums)
    start = before.covariances if before is not None and before.model is model else None
    return model.covariances(scatter, weight_sums, reg_covar=reg_covar, before=start)


class MaximumLikelihood(Objective):
    """Maximum likelihood; the bound is the mean log-likelihood."""

    starts_unchanged = True

    def bound(self, statistics: SufficientStatistics, point: MixtureParameters) -> float:
        """Return the mean log-likelihood, in nats per row."""
        return statistics.mean_log_likelihood

    def maximise(self, statistics: SufficientStatistics, point: MixtureParameters) -> MixtureParameters:
        """Return the parameters of highest likelihood in the point's model."""
        return maximise(statistics, point.covariance_type, reg_covar=self.reg_covar, before=point)

    def from_moments(self, statistics: SufficientStatistics) -> MixtureParameters:
        """Return the parameters of highest likelihood given moments."""
        return maximise(statistics, self.covariance_type, reg_covar=0.0)

    def start(self, weights: NDArray, means: NDArray, covariances: NDArray, total_weight: float) -> MixtureParameters:
        """Return the parameters of the start unchanged; see `Objective.start`."""
        factors = self.model.form.precisions_cholesky(covariances)
        return MixtureParameters(weights, means, covariances, factors, self.covariance_type)
