"""The registry of initialisations, and the parameters that EM starts from.

To add one, write a function of a `StartRequest` that returns a `Start`, and add a line to `INITIALIZATIONS`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import Source
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters

from .clusters import from_kmeans, from_kmeans_plusplus
from .micro_clusters import from_hierarchy
from .points import from_random_rows
from .responsibilities import from_random_resp, from_user_resp
from .start_contract import Initialization, StartRequest

Array = NDArray[np.float64]
INITIALIZATIONS: dict[str, Initialization] = {
    "kmeans": from_kmeans,
    "k-means++": from_kmeans_plusplus,
    "hc": from_hierarchy,
    "random_from_data": from_random_rows,
    "random": from_random_resp,
}


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
    """Return the parameters that EM starts from.

    Parameters
    ----------
    source : Source
    n_components : int
    objective : Objective
        Makes the parameters; its covariance model and `reg_covar` are those of the start.
    init_params : {"kmeans", "k-means++", "hc", "random_from_data", "random"}
        "kmeans": the clusters of k-means. "k-means++": means drawn as k-means++ draws them; "random_from_data": means
        drawn from the rows; both with the pooled covariance about the nearest mean. "hc": rows or micro-clusters
        that are merged. "random": random responsibilities. With many rows (see `samples.enough_rows`), the first three
        look for clusters in a sample.
    seed : int
        64 bits; the same seed gives the same start.
    quick, whiten : bool
        See `StartRequest`.
    resp : (N,) int or (N, K), optional
        Labels or responsibilities to start from, instead of `init_params`, in a form that the source accepts.
    weights, means, precisions : arrays, optional
        Replace what the initialisation finds; if all three are given, no row is read.

    Returns
    -------
    parameters : MixtureParameters
    n_distinct : int
        Number of different clusters that k-means has found; `n_components` for other initialisations.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance of the start is not positive definite.
    """
    model, n_distinct = objective.model, n_components
    if weights is None or means is None or precisions is None:
        request = StartRequest(source, n_components, RandomStream(seed), model, objective.reg_covar, quick, whiten)
        start = INITIALIZATIONS[init_params](request) if resp is None else from_user_resp(resp, request)
        if weights is means is precisions is None and start.parameters is not None and objective.starts_unchanged:
            return start.parameters, start.n_distinct
        weights = start.weights if weights is None else weights
        means = start.means if means is None else means
        n_distinct = start.n_distinct
    if precisions is None:
        return objective.start(weights, means, start.covariances(), source.total_weight), n_distinct
    factors = model.form.factor_precisions(precisions)
    covariances = model.form.covariances(factors)
    return MixtureParameters(weights, means, covariances, factors, objective.covariance_type), n_distinct
