"""Covariance models: what the M-step does with the scatter, and how many parameters that has.

A model is a form, a function from within-component scatter to covariances and a count of parameters: plain NumPy. To
add one, write the function and register it. ``covariance_type`` is looked up here and nowhere else.

The scatter that a model gets is taken about the new means: ``W_k = sum_i w_i r_ik (x_i - m_k)(x_i - m_k)^T``, for the
diagonal layout its diagonal, for the tied layout ``sum_k W_k``. Names in capitals are mclust's (Celeux & Govaert, 1995,
"Gaussian parsimonious clustering models", Pattern Recognition 28).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .forms import Diagonal, Form, Full, Spherical, Tied

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CovarianceModel:
    """What the covariances of a mixture may be.

    Attributes
    ----------
    name : str
        Its ``covariance_type``.
    form : Form
        How its covariances are stored.
    maximise : callable (scatter, weight_sums) -> covariances
        The covariances of highest likelihood given the within-component scatter about the means.
    n_covariance_parameters : callable (n_components, n_features) -> int
        Number of free parameters of the covariances.
    """

    name: str
    form: Form
    maximise: Callable[[Array, Array], Array]
    n_covariance_parameters: Callable[[int, int], int]

    @property
    def layout(self) -> str:
        """The kernels' layout."""
        return self.form.layout

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of a mixture: of the covariances, the means and the weights."""
        covariances = self.n_covariance_parameters(n_components, n_features)
        return covariances + n_components * n_features + n_components - 1

    def regularise(self, covariances: Array, reg_covar: float) -> Array:
        """Covariances with `reg_covar` added to every variance."""
        if self.form.layout == "diagonal":
            return covariances + reg_covar
        return covariances + reg_covar * np.eye(covariances.shape[-1])


def maximise_full(scatter: Array, weight_sums: Array) -> Array:
    """VVV: ``Sigma_k = W_k / n_k``."""
    return scatter / weight_sums[:, np.newaxis, np.newaxis]


def maximise_tied(scatter: Array, weight_sums: Array) -> Array:
    """EEE: ``Sigma = sum_k W_k / sum_k n_k``."""
    return scatter / weight_sums.sum()


def maximise_diagonal(scatter: Array, weight_sums: Array) -> Array:
    """VVI: ``Sigma_k = diag(W_k) / n_k``."""
    return scatter / weight_sums[:, np.newaxis]


def maximise_spherical(scatter: Array, weight_sums: Array) -> Array:
    """VII: ``sigma_k^2 = trace(W_k) / (D n_k)``."""
    return scatter.mean(axis=1) / weight_sums


_MODELS = {
    model.name: model
    for model in (
        CovarianceModel("full", Full(), maximise_full, lambda K, D: K * D * (D + 1) // 2),
        CovarianceModel("tied", Tied(), maximise_tied, lambda K, D: D * (D + 1) // 2),
        CovarianceModel("diag", Diagonal(), maximise_diagonal, lambda K, D: K * D),
        CovarianceModel("spherical", Spherical(), maximise_spherical, lambda K, D: K),
    )
}

COVARIANCE_TYPES = tuple(_MODELS)


def get_model(covariance_type: str) -> CovarianceModel:
    """The model of a ``covariance_type``."""
    try:
        return _MODELS[covariance_type]
    except KeyError:
        raise ValueError(
            f"covariance_type must be one of {', '.join(map(repr, COVARIANCE_TYPES))}, but is {covariance_type!r}"
        ) from None
