"""Acceleration of EM: extrapolation from two EM steps.

An accelerator proposes points between EM steps and does not judge them. The EM loop (see `em`) continues from a
proposal only if the likelihood there is not lower. So the fixed points are those of EM, and the likelihood never falls
because of a proposal.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.mixture.parameters import MixtureParameters

Array = NDArray[np.float64]
# A component is not extrapolated if `reg_covar` is at least this part of one of its variances. With 0.01, components
# that are flat in a direction, which are common, were not accelerated at all; with 1, a fit ended 0.001 nats per row
# lower.
MAX_REGULARISED_PART = 0.1
# Extrapolation begins when an EM step changes the bound by less than this, in nats per row: EM has then chosen its
# optimum. From 1e-2 on, 4 of 132 medians ended more than 0.002 nats per row below plain EM; from 2e-3 on, 2 did
# (`benchmarks/against_plain.py tuning --options '{"acceleration": "squarem"}'`, 11 data sets, 8 seeds).
BEGIN_BELOW = 2e-3


class Accelerator(Protocol):
    """Contract of an acceleration of the EM loop.

    Attributes
    ----------
    begun : bool
        Whether the accelerator must see every step. Before, it must see steps that change the bound by less than
        `BEGIN_BELOW`.
    """

    begun: bool

    def propose(self, point: MixtureParameters, updated: MixtureParameters, rise: float) -> MixtureParameters | None:
        """Return the point from which to continue; None to continue from `updated`.

        Parameters
        ----------
        point : MixtureParameters
            Before the last EM step.
        updated : MixtureParameters
            After it.
        rise : float
            By how much the EM step to `point` raised the bound, in nats per row.
        """

    def judge(self, accepted: bool) -> None:
        """Note whether the last proposal was accepted, because its bound was not lower."""


class Squarem:
    """Squared extrapolation, scheme S3 of SQUAREM.

    For two EM steps ``x0 -> x1 -> x2`` with ``r = x1 - x0`` and ``v = (x2 - x1) - r``, the proposal is
    ``x0 + 2 a r + a^2 v`` with ``a = |r| / |v|`` (Varadhan & Roland, 2008, Scandinavian Journal of Statistics 35). The
    step length a is at least 1, which is x2, and at most a cap. The cap grows fourfold when a step at the cap is
    accepted, and shrinks fourfold when a proposal is rejected. One cycle takes three passes over the rows: one for the
    proposal and the EM step from it, and two for two more EM steps.

    It begins when EM steps have become small, see `BEGIN_BELOW`. Before that, it leads to other maxima than EM, and
    more often to lower ones.

    The coordinates x are the logarithms of the weights, the means, and the Cholesky factors of the covariances with
    logarithms on their diagonals, all relative to the overall covariance of the start. So every x is a mixture, and
    the units of the features have no effect. Components with too few rows are not extrapolated: they are at x2.

    Parameters
    ----------
    n_rows : float
        The number of rows; see `data.sources.count_rows`.
    reg_covar : float
        Added to every variance. If it is a large part of a variance, an EM step need not raise the likelihood.
    """

    GROWTH = 4.0  # factor of the cap

    def __init__(self, n_rows: float, reg_covar: float):
        self.n_rows, self.reg_covar = n_rows, reg_covar
        self.begun, self.cap, self.reached = False, self.GROWTH, False
        self.first: MixtureParameters | None = None
        self.frame: Array | None = None

    def propose(self, point: MixtureParameters, updated: MixtureParameters, rise: float) -> MixtureParameters | None:
        self.begun |= abs(rise) < BEGIN_BELOW
        if not self.begun:
            return None
        if self.first is None:
            self.first = point
            return None
        first, self.first = self.first, None
        with np.errstate(all="ignore"):
            try:
                return self._extrapolate(first, point, updated)
            except (np.linalg.LinAlgError, IllDefinedCovarianceError):
                return None  # a covariance is so nearly singular that rounding decides

    def judge(self, accepted: bool) -> None:
        if self.reached:
            self.cap = self.cap * self.GROWTH if accepted else max(self.cap / self.GROWTH, 1.0)
        elif not accepted:
            self.cap = max(self.cap / self.GROWTH, 1.0)

    def _extrapolate(
        self, first: MixtureParameters, second: MixtureParameters, third: MixtureParameters
    ) -> MixtureParameters | None:
        """Extrapolate two EM steps; None if that goes no farther than the second."""
        form, chosen = third.model.form, self._extrapolated_components(third)
        if not chosen.any():  # coordinates cost K D^3 multiply-adds
            return None
        if self.frame is None:
            self.frame = form.frame(first.weights, first.means, first.covariances)
        x0, x1, x2 = (self._coordinates(p) for p in (first, second, third))
        r = [b - a for a, b in zip(x0, x1, strict=True)]
        v = [(c - b) - d for b, c, d in zip(x1, x2, r, strict=True)]
        r_norm, v_norm = (
            math.sqrt(sum(float((part**2).sum(where=broadcast_to_rows(chosen, part))) for part in parts))
            for parts in (r, v)
        )
        step = r_norm / v_norm if v_norm > 0 else 1.0
        self.reached = step >= self.cap
        step = min(step, self.cap)
        if not step > 1:
            self.cap = max(self.cap, self.GROWTH)  # so that the next cycle can extrapolate
            return None
        return self._parameters(
            [
                np.where(broadcast_to_rows(chosen, a), a + 2 * step * b + step**2 * c, d)
                for a, b, c, d in zip(x0, r, v, x2, strict=True)
            ],
            third,
        )

    def _extrapolated_components(self, parameters: MixtureParameters) -> NDArray[np.bool_]:
        """Return which components have enough rows, and variances above `reg_covar`."""
        n_components, n_features = parameters.means.shape
        factor = parameters.model.form.factor(parameters.precisions_cholesky, n_components, n_features)
        precision = (factor**2).sum(axis=(1, 2))  # the trace of the precision; for "spherical", one diagonal element
        has_rows = parameters.weights * self.n_rows >= 2 * (n_features + 1)
        return has_rows & (precision * self.reg_covar < MAX_REGULARISED_PART)

    def _coordinates(self, parameters: MixtureParameters) -> list[Array]:
        """Return the coordinates of the weights, the means and the covariances."""
        assert self.frame is not None
        shapes = parameters.model.form.coordinates(parameters.means, parameters.covariances, self.frame)
        return [np.log(parameters.weights), *shapes]

    def _parameters(self, coordinates: list[Array], reference: MixtureParameters) -> MixtureParameters | None:
        """Return the parameters with these coordinates; None if they are not finite.

        The covariance model is that of `reference`.
        """
        assert self.frame is not None
        log_weights, means, shapes = coordinates
        model = reference.model
        means, covariances = model.form.from_coordinates(means, shapes, self.frame)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if not all(np.isfinite(a).all() for a in (weights, means, covariances)):
            return None
        covariances = model.nearest(covariances, weights, reference.covariances)
        precisions_cholesky = model.form.precisions_cholesky(covariances)
        return MixtureParameters(weights, means, covariances, precisions_cholesky, reference.covariance_type)


def broadcast_to_rows(condition: NDArray[np.bool_], array: Array) -> NDArray[np.bool_]:
    """Return a condition on components in a shape that broadcasts with coordinates.

    If all components share the coordinates, as in the "tied" form, the condition is true everywhere.
    """
    if len(array) != len(condition):
        return np.ones((1,) * array.ndim, bool)
    return condition.reshape(-1, *(1,) * (array.ndim - 1))
