"""The registry of covariance models.

A model has a form, an M-step (a NumPy function from within-component scatter to covariances) and a count of parameters.
To add a model, write its M-step in `m_steps` and add it to the registry. ``covariance_type`` is looked up here and
nowhere else. The names in capitals are mclust's. Their three letters stand for volume, shape and orientation, each
equal for all components (E), variable (V), or the identity (I).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import ModelCode

from . import m_steps
from .common_axes import best_common_axes
from .forms import Form
from .matrix_forms import Full, Tied
from .scale_forms import Diagonal, Spherical

Array = NDArray[np.float64]


class Maximise(Protocol):
    """The M-step of a covariance model; see `m_steps`."""

    def __call__(self, scatter: Array, weight_sums: Array, before: Any, /) -> Array: ...


class Count(Protocol):
    """A function that counts the free parameters of covariances."""

    def __call__(self, n_components: int, n_features: int, /) -> int: ...


@dataclass(frozen=True)
class CovarianceModel:
    """A constraint on the covariances of a mixture.

    Attributes
    ----------
    name : str
        The ``covariance_type``.
    form : Form
        How the covariances are stored.
    maximise : callable (scatter, weight_sums, before) -> covariances
        Returns the covariances of highest likelihood, given the within-component scatter about the means.
    n_covariance_parameters : callable (n_components, n_features) -> int
        Returns the number of free parameters of the covariances.
    is_linear : bool
        Whether the coordinates of the model's covariances (`Form.coordinates`) form a linear space.
    n_features : int or None
        The only number of features that the model supports; None if it supports any.
    mclust_name : str
        mclust's name of the model.
    first_guess : callable (scatter, weight_sums) -> matrices, optional
        Makes the `before` of the first M-step, if `maximise` needs one.
    """

    name: str
    form: Form
    maximise: Maximise
    n_covariance_parameters: Count
    is_linear: bool = True
    n_features: int | None = None
    mclust_name: str = ""
    first_guess: Callable[[Array, Array], Array] | None = None

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
    def only_averages(self) -> bool:
        """Return whether the M-step only divides scatter, or sums of it, by weights."""
        return self.mclust_name in ("EII", "VII", "EEI", "VVI", "EEE", "VVV")

    @property
    def code(self) -> ModelCode:
        """The model as compiled code sees it."""
        maximise = None if self.only_averages else self.maximise
        return ModelCode(self.layout, self.form.name, self.shares_all, maximise)

    @property
    def has_prior(self) -> bool:
        """Return whether a conjugate prior exists; mclust has none for the same four models."""
        return self.mclust_name not in ("VEE", "EVE", "VVE", "EVV")

    @property
    def layout(self) -> str:
        """The kernels' layout."""
        return self.form.layout

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Return the number of free parameters of a mixture."""
        covariances = self.n_covariance_parameters(n_components, n_features)
        return covariances + n_components * n_features + n_components - 1

    def covariances(
        self, scatter: Array, weight_sums: Array, *, reg_covar: float = 0.0, before: Array | None = None
    ) -> Array:
        """Return the covariances of highest likelihood.

        `reg_covar` is added to the variances of the scatter.
        For a model without constraints, this adds `reg_covar` to every variance of the result, as scikit-learn does.
        For the other models, the result still satisfies the constraints.
        """
        if reg_covar:
            scatter = scatter.copy()
            self.form.variances(scatter)[...] += reg_covar * self._counts(weight_sums)
        with np.errstate(all="ignore"):  # `Form.precisions_cholesky` raises the errors
            if before is None and self.first_guess is not None:
                before = self.first_guess(scatter, weight_sums)
            return self.maximise(scatter, weight_sums, before)

    def nearest(self, covariances: Array, weights: Array, before: Array | None = None) -> Array:
        """Return the model's covariances for rows with any covariances.

        `covariances` are in the form of the model, and `weights` are (K,). A linear model returns them unchanged.
        """
        if self.is_linear:
            return covariances
        scatter = self.form.scatter_of(covariances, weights, covariances.shape[-1])
        return self.covariances(scatter, weights, before=before)

    def check_features(self, n_features: int) -> None:
        """Raise ValueError if the model does not support this number of features."""
        if self.n_features not in (None, n_features):
            raise ValueError(
                f"covariance_type {self.name!r} is for {self.n_features} feature, but there are {n_features}. For more "
                "features, use 'EII' (one variance for all components) or 'VII' (one for each component)."
            )

    def _counts(self, weight_sums: Array) -> Array:
        """Return the weight of the rows in each variance, (1,) or (K, 1)."""
        return weight_sums.sum(keepdims=True) if self.form.is_shared else weight_sums[:, np.newaxis]


def triangle(n: int) -> int:
    """Return the number of pairs of n axes.

    It is the number of angles that determine an orthogonal matrix.
    """
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
        "EVE",
        Full(),
        m_steps.equal_orientation_and_volume,
        lambda K, D: 1 + K * (D - 1) + triangle(D),
        False,
        first_guess=functools.partial(best_common_axes, shares_volume=True),
    ),
    CovarianceModel(
        "VVE",
        Full(),
        m_steps.equal_orientation,
        lambda K, D: K * D + triangle(D),
        False,
        first_guess=functools.partial(best_common_axes, shares_volume=False),
    ),
    CovarianceModel("EEV", Full(), m_steps.equal_shape_and_volume, lambda K, D: D + K * triangle(D), False),
    CovarianceModel("VEV", Full(), m_steps.equal_shape, lambda K, D: K + D - 1 + K * triangle(D), False),
    CovarianceModel("EVV", Full(), m_steps.equal_volume, lambda K, D: 1 - K + K * (D + triangle(D))),
    CovarianceModel("VVV", Full(), m_steps.free, lambda K, D: K * (D + triangle(D))),
)
_BY_NAME = {model.name: model for model in _MCLUST}
# scikit-learn's names, and mclust's names for one feature.
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
"""The names of scikit-learn's four covariance types, one for each form."""


def get_model(covariance_type: str) -> CovarianceModel:
    """Return the model of a ``covariance_type``.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    try:
        return _MODELS[covariance_type]
    except KeyError:
        raise ValueError(
            f"covariance_type must be one of {', '.join(map(repr, COVARIANCE_TYPES))}, but is {covariance_type!r}"
        ) from None
