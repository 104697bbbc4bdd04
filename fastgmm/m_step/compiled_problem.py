"""A mixture of few rows in compiled code: its parameters, there and back.

With few rows, the Python around a step of EM takes a hundred times as long as the step. `kernels.EMProblems` makes the
steps; here are the conversions of one problem's parameters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.covariance import CovarianceModel
from fastgmm.data.sources import ArraySource, Source
from fastgmm.mixture.parameters import MixtureParameters


class CompiledProblem:
    """The rows of a source, and parameters of a mixture, in compiled code.

    Parameters
    ----------
    source : ArraySource
    model : CovarianceModel
    n_components : int

    Attributes
    ----------
    problems : EMProblems
        Of one problem.
    """

    def __init__(self, source: ArraySource, model: CovarianceModel, n_components: int):
        self.source, self.model = source, model
        self.problems = kernels.EMProblems(
            model.code,
            n_components,
            np.asarray(source.X, dtype=np.float64),
            source.sample_weight,
            np.array([[0, len(source.X)]]),
            np.array([source.total_weight]),
        )

    @classmethod
    def of(cls, source: Source, model: CovarianceModel, n_components: int) -> CompiledProblem | None:
        """Return the problem if it is small enough for compiled code, else None.

        The choice depends on the shape of the problem only. A start and the run that follows share one problem.
        """
        if not isinstance(source, ArraySource):
            return None
        if not kernels.is_small(model.layout, source.n_samples, n_components, source.n_features):
            return None
        return source.kept.pop((cls, model.name, n_components), None) or cls(source, model, n_components)

    def keep(self) -> None:
        """Keep the problem for the next caller of `of` with the same source."""
        self.source.kept[type(self), self.model.name, self.problems.parameters.weights.shape[1]] = self

    def load(self, point: MixtureParameters) -> None:
        """Copy parameters into the arrays of the compiled code."""
        packed(point, *(array[0] for array in self.problems.parameters))

    def parameters(self, arrays: kernels.ParameterArrays | None = None) -> MixtureParameters:
        """Return a copy of the parameters in the arrays of the compiled code, or in `arrays`."""
        arrays = self.problems.parameters if arrays is None else arrays
        return unpacked(self.model, *(array[0] for array in arrays))


def packed(point: MixtureParameters, weights: NDArray, means: NDArray, covariances: NDArray, factor: NDArray) -> None:
    """Copy parameters into one problem's arrays in compiled code; see `kernels.em_runs.steps` for the shapes."""
    root = point.precisions_cholesky
    if point.model.form.has_matrices:
        root = root.swapaxes(-1, -2)
    weights[:], means[:] = point.weights, point.means
    covariances[:], factor[:] = point.covariances.reshape(covariances.shape), root.reshape(factor.shape)


def unpacked(
    model: CovarianceModel, weights: NDArray, means: NDArray, covariances: NDArray, factor: NDArray
) -> MixtureParameters:
    """Return a copy of one problem's parameters in compiled code; see `kernels.em_runs.steps` for the shapes."""
    shape = model.form.shape(*means.shape)
    if model.form.has_matrices:
        factor = factor.swapaxes(-1, -2)
    return MixtureParameters(
        weights.copy(), means.copy(), covariances.reshape(shape).copy(), factor.copy().reshape(shape), model.name
    )
