"""Degenerate components: those without rows, and those that are flat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastgmm.mixture.moments import total_covariance
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import rounding_variance


def degenerate_components(parameters: MixtureParameters, reg_covar: float) -> Iterator[tuple[NDArray[np.intp], str]]:
    """Yield groups of degenerate components, each with a description for a warning.

    Parameters
    ----------
    parameters : MixtureParameters
    reg_covar : float
        Added to every variance.

    Yields
    ------
    components : (n,) int
        At least one.
    description : str
        Continues a sentence that begins with the components.
    """
    empty = np.flatnonzero(parameters.weights < 1e-12)
    flat = np.setdiff1d(flat_components(parameters, reg_covar), empty)
    if flat.size:
        yield (
            flat,
            (
                "collapsed: their rows are nearly equal in some direction, and only "
                f"{f'reg_covar={reg_covar:g}' if reg_covar else 'rounding'} keeps their variance positive there"
            ),
        )
    if empty.size:
        yield empty, "are empty: no row belongs to them"


def flat_components(parameters: MixtureParameters, reg_covar: float) -> NDArray[np.intp]:
    """Return the components that are flat in a direction where the mixture is not.

    A component is flat in a direction if only `reg_covar`, or the rounding of the rows, keeps its variance positive
    there.

    Parameters
    ----------
    parameters : MixtureParameters
    reg_covar : float
        Added to every variance.

    Returns
    -------
    (n,) int
        Increasing.
    """
    form, (n_components, n_features) = parameters.model.form, parameters.means.shape
    with np.errstate(over="ignore", invalid="ignore"):
        floor = reg_covar + 10 * rounding_variance(parameters.means).max(axis=1)
        # A covariance's smallest eigenvalue is at least 1 / trace(precision). So most fits need no eigenvectors.
        factor = form.factor(parameters.precisions_cholesky, n_components, n_features)
        if ((factor**2).sum(axis=(1, 2)) * 1.5 * floor < 1).all():
            return np.empty(0, np.intp)
        full = form.full(parameters.covariances, n_components, n_features)
        within = np.tensordot(parameters.weights, full, axes=1)
        total = total_covariance(parameters.weights, parameters.means, within)
        return np.flatnonzero(
            form.is_flat(parameters.covariances, parameters.precisions_cholesky, total, 1.5 * floor, 1000 * floor)
        )
