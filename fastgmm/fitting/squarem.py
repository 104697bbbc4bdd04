"""Acceleration of EM: from two EM steps to where they lead.

An accelerator proposes points between EM steps and says nothing about whether they are good: the EM loop (see `em`)
goes on from a proposal only if the likelihood there is no lower, so that fixed points and monotony are those of EM.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.mixture.parameters import MixtureParameters

Array = NDArray[np.float64]
# `reg_covar` relative to a variance from which on a component is left alone. With 0.01 flat components, of which real
# rows have many, were not accelerated at all; with 1 a fit of a photograph's pixels ended 0.001 nats per row lower.
LARGE = 0.1
# A change by an EM step, in nats per row, that is small: then EM has chosen its optimum. Beginning at 1e-2, 4 of 132
# medians and 1.4 % of single fits to 1e-3 ended more than 0.002 and 0.02 nats per row below plain EM's; at 2e-3, 2 and
# none. Passes were 1.20 and 1.03 times fewer to 1e-3, 1.99 and 1.87 to 1e-6 (11 data sets of
# `benchmarks/against_plain.py tuning --options '{"acceleration": "squarem"}'`, 8 seeds).
BEGIN = 2e-3


class Accelerator(Protocol):
    """What the EM loop wants of an acceleration."""

    def propose(self, point: MixtureParameters, updated: MixtureParameters, rise: float) -> MixtureParameters | None:
        """Where to go instead of `updated`, to which an EM step from `point` leads; None: nowhere else.

        `rise` is by how much the EM step to `point` raised the mean log-likelihood, in nats per row.
        """

    def judge(self, accepted: bool) -> None:
        """Whether the likelihood was high enough at the last proposal."""


class Squarem:
    """Squared extrapolation, scheme S3 (Varadhan & Roland, 2008, Scandinavian Journal of Statistics 35).

    Of two EM steps ``x0 -> x1 -> x2`` with ``r = x1 - x0`` and ``v = (x2 - x1) - r`` it proposes
    ``x0 + 2 a r + a^2 v``, ``a = |r| / |v|``, at least 1, which is x2, and at most a cap that grows fourfold when it
    was reached with success and shrinks fourfold when without. A proposal and the EM step from it, two more EM steps:
    three passes over the rows a cycle.

    It begins when EM steps have become small, `BEGIN`; before that it leads to other maxima than EM, and more often to
    lower ones. To the same likelihood it took 1.1 to 3.5 times fewer passes than EM.

    What lost to it: Anderson's acceleration with 3 to 12 steps of memory, safeguarded alike, took 1.0 to 2.7 times as
    many passes on six of seven sets of rows, for its proposals were refused more often near `reg_covar`; on overlapping
    mixtures alone it took 0.8 times as many.

    The coordinates x are logarithms of weights, means, and Cholesky factors of covariances with logarithms on their
    diagonals, all relative to the overall covariance of the start: any x is a mixture, and units do not matter.
    Components with too few rows to have a direction are left where EM takes them.

    Parameters
    ----------
    n_rows : float
        The number of rows, copies counted.
    reg_covar : float
        What is added to every variance: where that is much of it, an EM step does not raise the likelihood for certain.
    """

    GROWTH = 4.0

    def __init__(self, n_rows: float, reg_covar: float):
        self.n_rows, self.reg_covar = n_rows, reg_covar
        self.begun, self.cap, self.reached = False, self.GROWTH, False
        self.first: MixtureParameters | None = None
        self.frame: Array | None = None

    def propose(self, point: MixtureParameters, updated: MixtureParameters, rise: float) -> MixtureParameters | None:
        self.begun |= abs(rise) < BEGIN
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
                return None  # so near to the edge that rounding matters

    def judge(self, accepted: bool) -> None:
        if self.reached:
            self.cap = self.cap * self.GROWTH if accepted else max(self.cap / self.GROWTH, 1.0)
        elif not accepted:
            self.cap = max(self.cap / self.GROWTH, 1.0)

    def _extrapolate(
        self, first: MixtureParameters, second: MixtureParameters, third: MixtureParameters
    ) -> MixtureParameters | None:
        form, settled = third.model.form, self._settled(third)
        if not settled.any():  # coordinates cost K D^3 multiply-adds
            return None
        if self.frame is None:
            self.frame = form.frame(first.weights, first.means, first.covariances)
        x0, x1, x2 = (self._coordinates(p) for p in (first, second, third))
        r = [b - a for a, b in zip(x0, x1, strict=True)]
        v = [(c - b) - d for b, c, d in zip(x1, x2, r, strict=True)]
        length, bend = (
            math.sqrt(sum(float((part**2).sum(where=of_rows(settled, part))) for part in parts)) for parts in (r, v)
        )
        step = length / bend if bend > 0 else 1.0
        self.reached = step >= self.cap
        step = min(step, self.cap)
        if not step > 1:
            self.cap = max(self.cap, self.GROWTH)  # for the next time
            return None
        return self._parameters(
            [
                np.where(of_rows(settled, a), a + 2 * step * b + step**2 * c, d)
                for a, b, c, d in zip(x0, r, v, x2, strict=True)
            ],
            third,
        )

    def _settled(self, parameters: MixtureParameters) -> NDArray[np.bool_]:
        """Which components have rows enough for a direction, and variances well above `reg_covar`; (K,)."""
        n_components, n_features = parameters.means.shape
        factor = parameters.model.form.factor(parameters.precisions_cholesky, n_components, n_features)
        precision = (factor**2).sum(axis=(1, 2))  # its trace, or for "spherical" a single one
        return (parameters.weights * self.n_rows >= 2 * (n_features + 1)) & (precision * self.reg_covar < LARGE)

    def _coordinates(self, parameters: MixtureParameters) -> list[Array]:
        assert self.frame is not None
        shapes = parameters.model.form.coordinates(parameters.means, parameters.covariances, self.frame)
        return [np.log(parameters.weights), *shapes]

    def _parameters(self, coordinates: list[Array], near: MixtureParameters) -> MixtureParameters | None:
        """What coordinates stand for, with covariances of the model; None if they stand for nothing."""
        assert self.frame is not None
        log_weights, means, shapes = coordinates
        model = near.model
        means, covariances = model.form.from_coordinates(means, shapes, self.frame)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if not all(np.isfinite(a).all() for a in (weights, means, covariances)):
            return None
        covariances = model.nearest(covariances, weights, near.covariances)
        precisions_cholesky = model.form.precisions_cholesky(covariances)
        return MixtureParameters(weights, means, covariances, precisions_cholesky, near.covariance_type)


def of_rows(condition: NDArray[np.bool_], array: Array) -> NDArray[np.bool_]:
    """A condition on components, shaped to choose from coordinates; of those that all share, every one."""
    if len(array) != len(condition):
        return np.ones((1,) * array.ndim, bool)
    return condition.reshape(-1, *(1,) * (array.ndim - 1))
