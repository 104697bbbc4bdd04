"""A mixture as a start for another covariance model or another prior."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import get_model
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .maximum_likelihood import maximise

# Smallest weight of a component for its statistics: a component of weight 0 has a covariance, but no rows.
MIN_WEIGHT = 1e-10


def statistics_like(
    parameters: MixtureParameters, weight_sums: NDArray, covariance_type: str, *, reg_covar: float = 0.0
) -> SufficientStatistics:
    """Return statistics of rows that have the mixture's means and covariances.

    Parameters
    ----------
    parameters : MixtureParameters
    weight_sums : (K,)
        Number of rows of each component.
    covariance_type : str
        The model whose M-step reads the statistics.
    reg_covar : float, default=0.0
        Subtracted from every variance, since the M-step adds it.
    """
    form, (n_components, n_features) = parameters.model.form, parameters.means.shape
    full = form.full(parameters.covariances, n_components, n_features) - reg_covar * np.eye(n_features)
    model = get_model(covariance_type)
    scatter = model.form.scatter(weight_sums[:, np.newaxis, np.newaxis] * full)
    return SufficientStatistics.of_moments(model.layout, weight_sums, parameters.means, scatter)


def mixture_statistics(parameters: MixtureParameters, n_rows: float, covariance_type: str) -> SufficientStatistics:
    """Return statistics of `n_rows` rows of a mixture, for a model's M-step."""
    return statistics_like(parameters, n_rows * np.maximum(parameters.weights, MIN_WEIGHT), covariance_type)


def convert(parameters: MixtureParameters, covariance_type: str) -> MixtureParameters:
    """Return a mixture of another covariance model with nearly the same density.

    It is the M-step of that model, given rows of the mixture.
    """
    if get_model(covariance_type).mclust_name == parameters.model.mclust_name:
        arrays = parameters.weights, parameters.means, parameters.covariances, parameters.precisions_cholesky
        return MixtureParameters(*arrays, covariance_type)
    return maximise(mixture_statistics(parameters, 1.0, covariance_type), covariance_type, reg_covar=0.0)
