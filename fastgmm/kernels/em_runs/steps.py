"""The steps of EM on the arrays of one problem, as compiled code calls them.

The arithmetic is that of the steps from Python: `fastgmm.mixture.parameters` (operands of an E-step) and
`fastgmm.m_step.maximum_likelihood` (M-step). An array of covariances has three axes here: (K, D, D) for "full", (1, D,
D) for "tied", (K, 1, D) for "diag", (K, 1, 1) for "spherical"; so has an array of their factors, the inverses of the
lower Cholesky factors, or of the standard deviations. Scatter is (K, D, D), (1, D, D) or (K, 1, D).
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.runtime import compact, exact_leaf
from fastgmm.kernels.matrices.cholesky import BLOCK, cholesky, invert_lower

EPSILON = 2.220446049250313e-16
# Added to the weight sums, as in scikit-learn, so that means can be divided by them.
MIN_WEIGHT_SUM = 10 * EPSILON
HALF_LOG_2_PI = 0.9189385332046727
# Limits of the tied layout in float64; see `fastgmm.mixture.parameters` and `fastgmm.e_step.complete_rows`.
TIED_REACH = 1e6
LOSSY_RATIO = 1e6
# A single scale of a component must be in this range; see `fastgmm.covariance.scale_forms`.
MIN_SCALE = 1e-9
MAX_SCALE = 1e9


@exact_leaf
def write_origin(means, origin_out):
    """Write a point near the data: per feature the coordinate of a mean that is nearest to zero."""
    compact()
    for d in range(means.shape[1]):
        origin_out[d] = means[0, d]
        for k in range(1, means.shape[0]):
            if abs(means[k, d]) < abs(origin_out[d]):
                origin_out[d] = means[k, d]


@exact_leaf
def write_operands(weights, means, factor, is_shared, origin, means_out, log_coef_out):
    """Write the operands of an E-step that are not parameters; see `fastgmm.kernels.Operands`."""
    compact()
    n_components, n_features = means.shape
    for k in range(n_components):
        own = k if factor.shape[0] > 1 else 0
        log_det = 0.0
        for d in range(n_features):
            scale = factor[own, d, d] if factor.shape[1] > 1 else factor[own, 0, d if factor.shape[2] > 1 else 0]
            log_det += np.log(scale)
        log_coef_out[k] = np.log(weights[k]) + log_det - n_features * HALF_LOG_2_PI
        if not is_shared:
            for d in range(n_features):
                means_out[k, d] = means[k, d] - origin[d]
        else:
            for i in range(n_features):
                total = 0.0
                for d in range(i + 1):
                    total += factor[0, i, d] * (means[k, d] - origin[d])
                means_out[k, i] = total


@exact_leaf
def operands_lose_digits(means, covariances, factor, is_shared, origin):
    """Return whether an E-step in this layout would lose digits or leave the range of numbers.

    That is the case if tied components are too far from the origin, or a single scale for all features is extreme.
    """
    compact()
    n_components, n_features = means.shape
    if factor.shape[2] == 1 and n_features > 1:
        for k in range(n_components):
            if not (factor[k, 0, 0] > MIN_SCALE and factor[k, 0, 0] < MAX_SCALE):
                return True
    if not is_shared:
        return False
    limit = TIED_REACH * amplification(covariances, factor, n_features)
    for k in range(n_components):
        reached = 0.0
        for i in range(n_features):
            total = 0.0
            for d in range(i + 1):
                total += abs(factor[0, i, d]) * abs(means[k, d] - origin[d])
            reached += total * total
        if not np.sqrt(reached) <= limit:
            return True
    return False


@exact_leaf
def amplification(covariances, factor, n_features):
    """Return by how much whitening amplifies the rounding of rows.

    See `MixtureParameters.amplification`.
    """
    compact()
    if factor.shape[1] == 1:
        return np.sqrt(float(n_features))
    highest = 0.0
    for k in range(factor.shape[0]):
        squares = 0.0
        for i in range(n_features):
            total = 0.0
            for d in range(i + 1):
                total += abs(factor[k, i, d]) * np.sqrt(covariances[k, d, d])
            squares += total * total
        if squares > highest:
            highest = squares
    return np.sqrt(highest)


@exact_leaf
def total_scatter_is_lossy(scatter, factor, total_weight):
    """Return whether the scatter about tied means, as a difference from the total, loses digits."""
    compact()
    n_features = factor.shape[1]
    for i in range(n_features):
        whitened = 0.0
        for d in range(i + 1):
            for e in range(i + 1):
                whitened += factor[0, i, d] * factor[0, i, e] * (scatter[0, d, e] if e <= d else scatter[0, e, d])
        if not whitened <= LOSSY_RATIO * total_weight:
            return True
    return False


@exact_leaf
def scatter_about_means(weight_sums, counts, first, reference, scatter, is_shared, is_diagonal, means_out, about_out):
    """Write the means, and the scatter about them.

    Parameters
    ----------
    weight_sums, counts : (K,)
        ``n_k``, and the same slightly increased so that all are above 0.
    first : (K, D)
        First moments about the reference points.
    reference : (K, D)
        For tied components only row 0 is read.
    scatter : (K, D, D), (1, D, D) or (K, 1, D)
        About the reference points; of matrices the lower triangles are read.
    is_shared, is_diagonal : int
    means_out : (K, D)
    about_out : as `scatter`
    """
    compact()
    n_components, n_features = first.shape
    for i in range(scatter.shape[0]):
        for d in range(scatter.shape[1]):
            for e in range(scatter.shape[2]):
                about_out[i, d, e] = scatter[i, d, e] if is_diagonal or e <= d else scatter[i, e, d]
    for k in range(n_components):
        own = 0 if is_shared else k
        factor = 2 * counts[k] - weight_sums[k]
        for d in range(n_features):
            move = first[k, d] / counts[k]
            means_out[k, d] = reference[own, d] + move
            if is_diagonal:
                floor = EPSILON * means_out[k, d]
                rest, least = scatter[k, 0, d] - factor * move * move, counts[k] * (floor * floor)
                about_out[k, 0, d] = rest if rest > least else least
            else:
                for e in range(d + 1):
                    moved = factor * (first[k, e] / counts[k]) * move
                    about_out[own, d, e] -= moved
                    if e < d:
                        about_out[own, e, d] -= moved


@exact_leaf
def average_scatter(scatter, counts, total, is_shared, pools_components, covariances_out):
    """Run the M-step of the models without constraints, and of those that only pool.

    A covariance is the scatter divided by the weight of its rows, or the mean over the components, the features, or
    both: VVV, EEE, VVI, VII, EEI and EII.

    Parameters
    ----------
    scatter : as in `scatter_about_means`
    counts : (K,)
    total : float
        Their sum.
    is_shared, pools_components : int
    covariances_out
        The features are pooled if there is one number for each component.
    """
    compact()
    n_matrices, n_rows, n_features = scatter.shape
    pools_features = covariances_out.shape[2] < n_features
    for k in range(n_matrices):
        for d in range(n_rows):
            for e in range(covariances_out.shape[2]):
                value = 0.0
                if pools_components:
                    for j in range(n_matrices):
                        value += sum_of_features(scatter, j, d, e, pools_features)
                else:
                    value = sum_of_features(scatter, k, d, e, pools_features)
                weight = total if is_shared or pools_components else counts[k]
                covariances_out[k, d, e] = value / n_features / weight if pools_features else value / weight


@exact_leaf
def sum_of_features(scatter, k, d, e, pools_features):
    """Return an entry of the scatter, or the sum of a row's entries."""
    compact()
    if not pools_features:
        return scatter[k, d, e]
    total = 0.0
    for i in range(scatter.shape[2]):
        total += scatter[k, d, i]
    return total


@exact_leaf
def write_factors(covariances, memory, factor_out):
    """Write the factors of covariances; return whether all covariances are positive definite.

    `memory` is scratch memory for `cholesky`.
    """
    compact()
    n_features = covariances.shape[1]
    if n_features == 1:
        for k in range(covariances.shape[0]):
            for d in range(covariances.shape[2]):
                if not (covariances[k, 0, d] > 0 and covariances[k, 0, d] < np.inf):
                    return False
                factor_out[k, 0, d] = 1 / np.sqrt(covariances[k, 0, d])
        return True
    size = (n_features + BLOCK - 1) // BLOCK * BLOCK
    lower, upper, products = memory[:size], memory[size : 2 * size], memory[2 * size : 2 * size + BLOCK]
    for k in range(covariances.shape[0]):
        if not cholesky(covariances[k], size, products, lower):
            return False
        invert_lower(lower, n_features, size, products, upper)
        for i in range(n_features):
            for j in range(n_features):
                factor_out[k, i, j] = upper[j, i] if j <= i else 0.0
    return True
