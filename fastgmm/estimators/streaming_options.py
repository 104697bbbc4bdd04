"""Options of a streaming mixture, and the fit of its first rows."""

from __future__ import annotations

import math
import warnings
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from fastgmm._warnings import warn_user
from fastgmm.covariance import get_model
from fastgmm.fitting.forgetting import ForgettingSchedule
from fastgmm.fitting.row_stream import StreamOptions, default_sizes
from fastgmm.mixture.parameters import MixtureParameters

from .base import DegenerateComponentWarning
from .gaussian_mixture import GaussianMixture
from .validation import PlainParameters

# How the first rows are fitted. One pass of a stream cannot repair a start that has not converged: with tol=1e-3 twelve
# problems ended 0 to 0.28 nats per row lower on held-out rows (median 0.003). With 1e-5 ten of them ended as with 1e-4.
START: dict[str, Any] = {"tol": 1e-4, "max_iter": 1000}


class StreamParameters(Protocol):
    """The parameters of a streaming mixture that define how it learns."""

    n_components: int
    batch_size: int | None
    init_size: int | None
    half_life: float | None


def check_sizes(estimator: StreamParameters) -> None:
    """Raise ValueError if `init_size` or `half_life` is below `n_components`."""
    n_components, init_size, half_life = estimator.n_components, estimator.init_size, estimator.half_life
    if init_size is not None and init_size < n_components:
        raise ValueError(
            f"init_size must be >= n_components ({n_components}), got {init_size}. Increase init_size, or use fewer "
            "components."
        )
    if half_life is not None and half_life < n_components:
        raise ValueError(
            f"half_life must be >= n_components ({n_components}), so that each component keeps rows, got {half_life}. "
            "Increase half_life, or use fewer components."
        )


def stream_options(estimator: StreamParameters, n_features: int, seed: int) -> StreamOptions:
    """Return how a stream of rows with this number of features is learnt from now on."""
    params = PlainParameters(estimator)
    half_life = math.inf if estimator.half_life is None else float(estimator.half_life)
    n_parameters = get_model(params.covariance_type).n_parameters(params.n_components, n_features)
    init_size, batch_size = default_sizes(params.n_components, n_features, n_parameters, half_life)
    init_size = init_size if estimator.init_size is None else params.init_size
    batch_size = min(batch_size, init_size) if estimator.batch_size is None else params.batch_size
    names = ("n_components", "covariance_type", "reg_covar", "init_params", "n_init")
    options = {"random_state": seed, **{name: getattr(params, name) for name in names}}
    forgetting = ForgettingSchedule(batch_size, params.learning_decay, half_life)
    min_rows = max(2, params.n_components)
    return StreamOptions(forgetting, init_size, min_rows, params.reg_covar, seed, fit_first_rows, options)


def fit_first_rows(X: NDArray[Any], sample_weight: NDArray[np.float64] | None, **options: Any) -> MixtureParameters:
    """Fit the rows of the start; warn of degenerate components."""
    model = GaussianMixture(**START, **options)
    with warnings.catch_warnings():
        # The start need not converge, since the steps of the stream continue from it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        parameters = model.fit(X, sample_weight=sample_weight)._parameters()
    degenerate = model._degenerate(parameters)
    if degenerate:
        warn_user(" ".join(degenerate), DegenerateComponentWarning)
    return parameters
