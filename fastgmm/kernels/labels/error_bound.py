"""A bound on the rounding errors of log-probabilities in single precision.

With u = 2^-24, the unit roundoff of float32, an entry of ``y = L (x - m)`` has an error of at most ``(D + 4) u s_j``,
where ``s_j = sum_d |L_jd| (|x_d| + |m_d|)``: x, m and L are rounded, and so are a difference and D sums of products
(Higham, 2002, "Accuracy and Stability of Numerical Algorithms", chapter 3). If all these numbers are below
`MAX_MAGNITUDE`, underflow adds at most `UNDERFLOW` per product.

Let E be the norm of these bounds for the largest magnitudes in a tile. A log-probability ``c - h`` with ``h = |y|^2 /
2`` then has an error of at most ``E sqrt(2 h) + E^2 / 2 + (D + 16) u (h + |c|)``. To make this linear in h, it uses
``sqrt(2 h) <= (h / t + t) / sqrt(2)``, which holds for any t > 0 with equality at t^2 = h; t^2 = D / 2 is the
expectation of h for a component's own rows.
"""

from __future__ import annotations

import numpy as np

from fastgmm.kernels.compiler.operation import tile_operation
from fastgmm.kernels.compiler.runtime import exact_leaf, reducing_leaf
from fastgmm.kernels.compiler.simd import Emitter, Matrix

# Unit roundoff of float32.
ROUNDING = 2.0**-24
# Rows and parameters below this are finite in float32.
MAX_MAGNITUDE = 1e30
# Sums s_j below this have finite squares in float32.
MAX_ENTRY_SUM = 1e15
# Error of a product by underflow: 2 MAX_MAGNITUDE times half of float32's smallest number, 2^-149.
UNDERFLOW = 2e-15


@reducing_leaf
def entry_sum_full(k, j, max_abs, means, factor):
    """Return ``s_j`` of component k for rows of magnitudes up to `max_abs` (D,)."""
    total = 0.0
    for d in range(j + 1):
        total += abs(factor[k, j, d]) * (max_abs[d] + abs(means[k, d]))
    return total


@reducing_leaf
def entry_sum_diagonal(k, j, max_abs, means, factor):
    """Do the same as `entry_sum_full` for the diagonal layout."""
    return abs(factor[k, 0, min(j, factor.shape[2] - 1)]) * (max_abs[j] + abs(means[k, j]))


@reducing_leaf
def entry_sum_tied(k, j, max_abs, means, factor):
    """Do the same as `entry_sum_full` for the tied layout."""
    total = abs(means[k, j])
    for d in range(j + 1):
        total += abs(factor[0, j, d]) * max_abs[d]
    return total


@exact_leaf
def in_range(numbers):
    """Return whether all magnitudes are below `MAX_MAGNITUDE`."""
    largest = 0.0
    for i in range(numbers.shape[0]):
        largest = abs(numbers[i]) if abs(numbers[i]) > largest else largest
    return largest < MAX_MAGNITUDE


ENTRY_SUMS = {"full": entry_sum_full, "diagonal": entry_sum_diagonal, "tied": entry_sum_tied}
# Global name of the template below, which `single_precision` replaces.
entry_sum = entry_sum_full


def bound_errors(parameters_in_range, max_abs, means, factor, log_coef, slope_out, shift_out):
    """Bound the errors of a tile's log-probabilities in float32.

    Returns whether a bound exists. A template: `entry_sum` is the layout's. A log-probability p of component k has an
    error of at most ``shift[k] - slope[k] p``. The last of the K + 1 numbers bound that of any component. Flops: K D (D
    + 1) / 2 per tile for the full layout.

    Parameters
    ----------
    parameters_in_range : int
        Whether means and factors are below `MAX_MAGNITUDE`.
    max_abs : (D,)
        Largest magnitude of each feature in the tile.
    means, factor, log_coef
        As in `fastgmm.kernels.Operands`, float64.
    slope_out, shift_out : (K + 1,) float32
    """
    n_components, n_features = means.shape
    widest, highest, magnitude = 0.0, -np.inf, 0.0
    if not (parameters_in_range > 0 and in_range(max_abs)):
        return False
    t, unit = np.sqrt(n_features / 2), ROUNDING * (1 + (n_features + 4) * ROUNDING)
    slope_out[n_components] = shift_out[n_components] = 0
    for k in range(n_components):
        squares = 0.0
        for j in range(n_features):
            entry = entry_sum(k, j, max_abs, means, factor)
            if not entry < MAX_ENTRY_SUM:
                return False
            squares += entry * entry
        slope_out[k] = shift_out[k] = 0
        if log_coef[k] > -np.inf:  # else the component has weight 0, and no row in any precision
            error = (n_features + 4) * unit * np.sqrt(squares) + n_features**1.5 * UNDERFLOW
            rounding = (n_features + 16) * unit
            slope = error / (t * np.sqrt(2)) + rounding
            offset = error * t / np.sqrt(2) + error * error / 2 + rounding * abs(log_coef[k])
            if not (slope < 1 and offset < MAX_ENTRY_SUM):
                return False
            slope_out[k] = (1 + 1e-6) * slope
            shift_out[k] = (1 + 1e-6) * offset + slope_out[k] * log_coef[k] + 2 * ROUNDING * abs(log_coef[k])
            # c - p >= 0, so that the error of any component is at most ``offset + slope (highest c - p)``.
            slope_out[n_components] = max(slope_out[n_components], slope_out[k])
            widest, highest = max(widest, offset), max(highest, log_coef[k])
            magnitude = max(magnitude, abs(log_coef[k]))
    if highest > -np.inf:
        shift_out[n_components] = (1 + 1e-6) * widest + slope_out[n_components] * highest + 2 * ROUNDING * magnitude
    return True


def max_abs_tile(x, n, max_abs_out):
    """Write the largest magnitude of each feature.

    NaN does not count: rows with NaN are never certain.
    """
    max_abs_out[0, :] = np.nanmax(np.abs(x[:, :n]), axis=1, initial=0.0)


@tile_operation(max_abs_tile)
def emit_max_abs_tile(e: Emitter, x: Matrix, n, max_abs_out: Matrix):
    without_sign = e.integers(2 ** (8 * e.size - 1) - 1)
    for d in e.each(0, x.shape[0]):
        largest = [e.variable(), e.variable()]
        for columns in e.each_group(n, len(largest)):
            for so_far, column in zip(largest, columns, strict=True):
                magnitude = e.from_bits(e.builder.and_(e.bits(x[d, column]), without_sign))
                so_far.set(e.select(so_far.get() < magnitude, magnitude, so_far.get()))
        first, second = (so_far.get() for so_far in largest)
        highest = e.lane_maximum(e.select(first < second, second, first))
        e.builder.store(highest, max_abs_out.pointer_to(0, d))
