"""Covariance models: what the M-step does with the scatter, and how many parameters that has.

A model is a form, a function from within-component scatter to covariances and a count of parameters: plain NumPy. To
add one, write the function (see `m_steps`) and register it. ``covariance_type`` is looked up here and nowhere
else. Names in capitals are mclust's, three letters for volume, shape and orientation: equal, variable, or the identity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import m_steps
from .forms import Diagonal, Form, Full, Spherical, Tied

Array = NDArray[np.float64]


class Maximise(Protocol):
    """An M-step: see `m_steps`."""

    def __call__(self, scatter: Array, weight_sums: Array, before: Array | None = None) -> Array: ...


class Count(Protocol):
    """How many free parameters the covariances of K components in D dimensions have."""

    def __call__(self, n_components: int, n_features: int, /) -> int: ...


@dataclass(frozen=True)
class CovarianceModel:
    """What the covariances of a mixture may be.

    Attributes
    ----------
    name : str
        Its ``covariance_type``.
    form : Form
        How its covariances are stored.
    maximise : callable (scatter, weight_sums, before) -> covariances
        The covariances of highest likelihood given the within-component scatter about the means.
    n_covariance_parameters : callable (n_components, n_features) -> int
        Number of free parameters of the covariances.
    is_linear : bool
        Whether the coordinates of its covariances (`Form.coordinates`) are a linear space.
    n_features : int or None
        For how many features it is; None for any number.
    mclust_name : str
        What mclust calls it.
    """

    name: str
    form: Form
    maximise: Maximise
    n_covariance_parameters: Count
    is_linear: bool = True
    n_features: int | None = None
    mclust_name: str = ""

    def __post_init__(self) -> None:
        if not self.mclust_name:
            object.__setattr__(self, "mclust_name", self.name)

    @property
    def shares_volume(self) -> bool:
        """Whether all components have one volume."""
        return self.mclust_name[0] == "E"

    @property
    def shares_all(self) -> bool:
        """Whether all components have one covariance."""
        return self.mclust_name in ("EII", "EEI", "EEE")

    @property
    def has_prior(self) -> bool:
        """Whether there is a conjugate prior: mclust has none for these four either."""
        return self.mclust_name not in ("VEE", "EVE", "VVE", "EVV")

    @property
    def layout(self) -> str:
        """The kernels' layout."""
        return self.form.layout

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Number of free parameters of a mixture: of the covariances, the means and the weights."""
        covariances = self.n_covariance_parameters(n_components, n_features)
        return covariances + n_components * n_features + n_components - 1

    def covariances(
        self, scatter: Array, weight_sums: Array, *, reg_covar: float = 0.0, before: Array | None = None
    ) -> Array:
        """The model's covariances of highest likelihood, with `reg_covar` added to the variances of the scatter.

        Without constraints that is adding it to every variance of the result, as scikit-learn does; with constraints
        it keeps them.
        """
        if reg_covar:
            scatter = scatter.copy()
            self.form.variances(scatter)[...] += reg_covar * self._counts(weight_sums)
        return self.maximise(scatter, weight_sums, before)

    def nearest(self, covariances: Array, weights: Array, before: Array | None = None) -> Array:
        """The covariances of the model that rows with these would have, (K, ...) and weights (K,); of the same form."""
        if self.is_linear:
            return covariances
        return self.maximise(self.form.scatter_of(covariances, weights, covariances.shape[-1]), weights, before)

    def check_features(self, n_features: int) -> None:
        """Raise ValueError if the model is not for so many features."""
        if self.n_features not in (None, n_features):
            raise ValueError(
                f"covariance_type {self.name!r} is for {self.n_features} feature, but there are {n_features}. Of more "
                "features 'EII' has one variance for all components and 'VII' one for each."
            )

    def _counts(self, weight_sums: Array) -> Array:
        """How many rows are in each of these variances, (1,) or (K, 1)."""
        return weight_sums.sum(keepdims=True) if self.form.is_shared else weight_sums[:, np.newaxis]


def triangle(n: int) -> int:
    """Pairs of n things, which is also the number of angles of n orthogonal axes."""
    return n * (n - 1) // 2


_MCLUST = (
    CovarianceModel("EII", Spherical(), m_steps.spherical_equal, lambda K, D: 1),
    CovarianceModel("VII", Spherical(), m_steps.spherical, lambda K, D: K),
    CovarianceModel("EEI", Diagonal(), m_steps.diagonal_equal, lambda K, D: D),
    CovarianceModel("VEI", Diagonal(), m_steps.diagonal_equal_shape, lambda K, D: K + D - 1),
    CovarianceModel("EVI", Diagonal(), m_steps.diagonal_equal_volume, lambda K, D: 1 + K * (D - 1)),
    CovarianceModel("VVI", Diagonal(), m_steps.diagonal, lambda K, D: K * D),
    CovarianceModel("EEE", Tied(), m_steps.equal, lambda K, D: D + triangle(D)),
    CovarianceModel("VEE", Full(), m_steps.equal_up_to_volume, lambda K, D: K + D - 1 + triangle(D), False),
    CovarianceModel(
        "EVE", Full(), m_steps.equal_orientation_and_volume, lambda K, D: 1 + K * (D - 1) + triangle(D), False
    ),
    CovarianceModel("VVE", Full(), m_steps.equal_orientation, lambda K, D: K * D + triangle(D), False),
    CovarianceModel("EEV", Full(), m_steps.equal_shape_and_volume, lambda K, D: D + K * triangle(D), False),
    CovarianceModel("VEV", Full(), m_steps.equal_shape, lambda K, D: K + D - 1 + K * triangle(D), False),
    CovarianceModel("EVV", Full(), m_steps.equal_volume, lambda K, D: 1 - K + K * (D + triangle(D))),
    CovarianceModel("VVV", Full(), m_steps.free, lambda K, D: K * (D + triangle(D))),
)
_BY_NAME = {model.name: model for model in _MCLUST}
# Scikit-learn's names, and mclust's for one feature.
_ALIASES = {"full": "VVV", "tied": "EEE", "diag": "VVI", "spherical": "VII", "E": "EII", "V": "VII"}
_MODELS = {
    **{
        alias: replace(_BY_NAME[name], name=alias, n_features=1 if len(alias) == 1 else None)
        for alias, name in _ALIASES.items()
    },
    **_BY_NAME,
}

COVARIANCE_TYPES = tuple(_MODELS)
MCLUST_MODELS = tuple(_BY_NAME)
BASIC_TYPES = ("full", "tied", "diag", "spherical")
"""Scikit-learn's: every form once."""


def get_model(covariance_type: str) -> CovarianceModel:
    """The model of a ``covariance_type``."""
    try:
        return _MODELS[covariance_type]
    except KeyError:
        raise ValueError(
            f"covariance_type must be one of {', '.join(map(repr, COVARIANCE_TYPES))}, but is {covariance_type!r}"
        ) from None
