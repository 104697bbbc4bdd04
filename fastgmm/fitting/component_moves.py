"""Components that are merged and split: the candidates, and the parameters after."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.sources import ArraySource
from fastgmm.kernels import serial_matmul
from fastgmm.mixture.moments import merged_pairs
from fastgmm.mixture.parameters import MixtureParameters

Array = NDArray[np.float64]
# The distance from the mean of a Gaussian to the mean of each of its halves, in standard deviations.
HALF_MEAN_DISTANCE = np.sqrt(2 / np.pi)


def pairs_by_merge_loss(parameters: MixtureParameters) -> list[tuple[int, int]]:
    """Return all pairs of components, ordered by the likelihood that a merge loses.

    It is the classification likelihood: for weights w and covariances S the sum of ``w (log w - log det S / 2)``, up to
    terms that a merge does not change. Flops: K^2 D^3 / 6.

    Returns
    -------
    list of (int, int)
        The pair that loses least comes first.
    """
    weights, means, full = full_moments(parameters)
    n_components = len(weights)
    with np.errstate(all="ignore"):
        single = _classification_likelihood(weights, full)
        loss = np.full((n_components, n_components), np.inf)
        for i in range(n_components - 1):
            j = np.arange(i + 1, n_components)
            merged = merged_pairs(weights[[i]], means[[i]], full[[i]], weights[j], means[j], full[j])
            loss[i, j] = single[i] + single[j] - _classification_likelihood(merged[0], merged[2])
    order = np.argsort(np.where(np.isnan(loss), np.inf, loss), axis=None, kind="stable")
    pairs = (divmod(int(flat), n_components) for flat in order[: n_components * (n_components - 1) // 2])
    return list(pairs)


def components_by_shape(
    resp: Array, source: ArraySource, weights: Array, means: Array, covariances: Array
) -> NDArray[np.intp]:
    """Return the components in the order in which a split promises most.

    The score of a component is its weight times how much its skewness and excess kurtosis along its longest axis differ
    from 0: two clusters in one component make it flat or lopsided there.

    Parameters
    ----------
    resp : (N, K) float64
        Responsibilities times the rows' weights.
    source : ArraySource
        The rows.
    weights : (K,) float64
    means : (K, D) float64
    covariances : (K, D, D) float64

    Returns
    -------
    (K,) int
        The component that looks least like a Gaussian comes first.
    """
    skewness, excess = _skewness_and_excess(resp, source, means, covariances)
    scores = weights * (np.minimum(np.abs(excess), 3.0) + np.minimum(np.abs(skewness), 3.0))
    return np.argsort(-scores, kind="stable")


def split_and_merge(parameters: MixtureParameters, i: int, j: int, k: int) -> MixtureParameters:
    """Merge components i and j, and split component k across its longest axis.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance is not positive definite.
    """
    weights, means, full = (a.copy() for a in full_moments(parameters))
    offset, half = _halves(full[k])
    merged = merged_pairs(weights[[i]], means[[i]], full[[i]], weights[[j]], means[[j]], full[[j]])
    weights[i], means[i], full[i] = (a[0] for a in merged)
    weights[j], means[j], full[j] = weights[k] / 2, means[k] + offset, half
    weights[k], means[k], full[k] = weights[k] / 2, means[k] - offset, half
    return _in_model(parameters, weights, means, full)


def split_component(parameters: MixtureParameters, k: int, covariance: Array) -> MixtureParameters:
    """Split component k in two halves across the longest axis of a covariance (D, D).

    Returns
    -------
    MixtureParameters
        With one component more: the second half is the last component.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance is not positive definite.
    """
    weights, means, full = (a.copy() for a in full_moments(parameters))
    offset, half = _halves(covariance)
    weights[k] /= 2
    full[k] = half
    means = np.vstack([means, means[k] + offset])
    means[k] -= offset
    return _in_model(parameters, np.append(weights, weights[k]), means, np.concatenate([full, half[np.newaxis]]))


def full_moments(parameters: MixtureParameters) -> tuple[Array, Array, Array]:
    """Return weights (K,), means (K, D) and covariances (K, D, D)."""
    form = parameters.model.form
    return parameters.weights, parameters.means, form.full(parameters.covariances, *parameters.means.shape)


def _skewness_and_excess(resp: Array, source: ArraySource, means: Array, full: Array) -> tuple[Array, Array]:
    """Return skewness and excess kurtosis along each component's longest axis, (K,)."""
    values, vectors = np.linalg.eigh(full)
    axes = vectors[:, :, -1] / np.sqrt(values[:, -1:])
    z = serial_matmul(source.X, axes.T.astype(source.X.dtype)) - np.einsum("kd,kd->k", means, axes)
    # z * z * z: NumPy takes a hundred times as long for z**3.
    third = resp / np.maximum(resp.sum(axis=0), 1e-300) * (z * z * z)
    return third.sum(axis=0), (third * z).sum(axis=0) - 3


def _halves(covariance: Array) -> tuple[Array, Array]:
    """Split a Gaussian in two halves across its longest axis.

    Returns
    -------
    offset : (D,) float64
        From the mean of the Gaussian to that of the second half.
    covariance : (D, D) float64
        Of each half.
    """
    values, vectors = np.linalg.eigh(covariance)
    offset = HALF_MEAN_DISTANCE * np.sqrt(max(values[-1], 0.0)) * vectors[:, -1]
    return offset, covariance - np.outer(offset, offset)


def _in_model(parameters: MixtureParameters, weights: Array, means: Array, full: Array) -> MixtureParameters:
    """Return parameters of the same covariance model, given full covariances."""
    model, weights = parameters.model, weights / weights.sum()
    scatter = model.form.scatter(np.maximum(weights, 1e-300)[:, np.newaxis, np.newaxis] * full)
    covariances = model.covariances(scatter, np.maximum(weights, 1e-300), before=parameters.covariances)
    precisions_cholesky = model.form.precisions_cholesky(covariances)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, parameters.covariance_type)


def _classification_likelihood(weights: Array, full: Array) -> Array:
    """Return each component's part of the classification likelihood per row, (K,)."""
    return np.where(weights > 0, weights * (np.log(weights) - np.linalg.slogdet(full)[1] / 2), 0.0)
