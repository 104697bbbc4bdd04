"""M-step of maximum likelihood: from sufficient statistics to parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import CovarianceModel, IllDefinedCovarianceError, get_model
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, positive_weight_sums, scatter_about_means


@np.errstate(over="ignore", invalid="ignore")
def maximise(
    statistics: SufficientStatistics,
    covariance_type: str = "full",
    *,
    reg_covar: float = 1e-6,
    before: MixtureParameters | None = None,
) -> MixtureParameters:
    """M-step: the parameters of highest likelihood given sufficient statistics.

    Parameters
    ----------
    statistics : SufficientStatistics
        Of the layout that the covariance type needs.
    covariance_type : str
        One of scikit-learn's four or mclust's fourteen; see `fastgmm.GaussianMixture`.
    reg_covar : float
        Added to every variance.
    before : MixtureParameters, optional
        The parameters under which the statistics were taken. Models whose M-step iterates start there, and so never
        lower the likelihood.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance is not positive definite; it names the components.
    """
    model = get_model(covariance_type)
    if not isinstance(statistics, SufficientStatistics):
        raise TypeError(
            f"statistics should be SufficientStatistics, but are {statistics!r} (the sum of no blocks is 0)"
        )
    if not statistics.total_weight > 0:
        raise ValueError(f"the statistics are those of no rows: their total weight is {statistics.total_weight}")
    if np.isnan(statistics.weight_sums).any():
        raise ValueError("the statistics contain NaN, so the rows they are of did, or the parameters")
    if statistics.layout != model.layout:
        raise ValueError(
            f"covariance_type {covariance_type!r} needs statistics of the {model.layout} layout, "
            f"but these are of the {statistics.layout} layout"
        )
    weights, means = estimate_weights_and_means(statistics)
    covariances = estimate_covariances(statistics, model, reg_covar, before=before)
    precisions_cholesky = model.form.precisions_cholesky(covariances)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, covariance_type)


def estimate_weights_and_means(statistics: SufficientStatistics) -> tuple[NDArray, NDArray]:
    """The weights (K,), ``n_k / sum_j n_j``, and means (K, D), ``c_k + f_k / n_k``, of highest likelihood."""
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
    """The covariances of highest likelihood about those means, with `reg_covar` added to every variance."""
    weight_sums = positive_weight_sums(statistics)
    scatter = scatter_about_means(statistics, weight_sums)
    start = before.covariances if before is not None and before.model is model else None
    return model.covariances(scatter, weight_sums, reg_covar=reg_covar, before=start)


def maximum_likelihood(
    statistics: SufficientStatistics, point: MixtureParameters, least: float | None, *, reg_covar: float
) -> tuple[MixtureParameters | None, float]:
    """The M-step from a point, and the point's mean log-likelihood.

    At a proposal, where that must be at least `least`, there are no parameters if it leads nowhere.
    """
    bound = statistics.mean_log_likelihood
    try:
        if least is None or bound >= least:
            return maximise(statistics, point.covariance_type, reg_covar=reg_covar, before=point), bound
    except IllDefinedCovarianceError:
        if least is None:
            raise
    return None, bound
