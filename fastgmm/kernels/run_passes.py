"""The two passes over the rows as functions of plain arrays.

`accumulate` is for EM, `score` for prediction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .labels import single_precision
from .layouts import passes
from .matrices.chunk_sums import sum_of_chunks
from .matrices.triangles import mirror_lower
from .tiles.rows import RowsView, Tiling, read_only, rows_view, tiling, weights_view


class Operands(NamedTuple):
    """Parameters of a mixture in the form that an E-step reads, in the rows' dtype.

    The log-probability of row x and component k is ``log_coef[k] - |factor[k] (x - origin - means[k])|^2 / 2``.

    Attributes
    ----------
    origin : (D,)
        Subtracted from every row when it is loaded.
    means : (K, D)
        Means minus the origin; for "tied" multiplied by the factor.
    factor : (K, D, D), (1, D, D), (K, 1, D) or (K, 1, 1)
        Lower triangular for "full" (K, D, D) and "tied" (1, D, D). For "diagonal" the square roots of the precisions,
        (K, 1, D), or a single one per component, (K, 1, 1).
    log_coef : (K,)
        ``log weight + log |factor| - D/2 log 2 pi``, in nats.
    """

    origin: np.ndarray
    means: np.ndarray
    factor: np.ndarray
    log_coef: np.ndarray


def _multiply_adds_per_row(layout: str, n_components: int, n_features: int) -> float:
    """Return the multiply-adds of an E-step and an M-step for one row.

    An exponential counts as 20.
    """
    per_component = {"full": n_features**2 + 3 * n_features, "diagonal": 5 * n_features, "tied": 4 * n_features}
    return n_components * (per_component[layout] + 20)


class AccumulationPlan(NamedTuple):
    """Division of an accumulating pass, and its cost.

    Attributes
    ----------
    tiling : Tiling
    scatter_shape : tuple
        The shape of the scatter that the kernel adds up.
    multiply_adds : float
        Of all rows together.
    """

    tiling: Tiling
    scatter_shape: tuple[int, int, int]
    multiply_adds: float


def plan_accumulation(
    layout: str, n_samples: int, n_components: int, n_features: int, dtype: np.dtype, *, with_scatter: bool = True
) -> AccumulationPlan:
    """Plan an accumulating pass, by the shape of the problem only."""
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    scatter_shape = {
        "full": (n_components, n_features, n_features),
        "diagonal": (n_components, 1, n_features),
        "tied": (int(with_scatter), n_features, n_features),
    }[layout]
    size = n_components * (n_features + 1) + math.prod(scatter_shape)
    multiply_adds = n_samples * _multiply_adds_per_row(layout, n_components, n_features)
    plan = tiling(n_samples, 4 + n_features + n_components + n_work, dtype, 8 * size, multiply_adds)
    return AccumulationPlan(plan, scatter_shape, multiply_adds)


def accumulation_arguments(
    rows: RowsView,
    n_samples: int,
    plan: AccumulationPlan,
    weights: np.ndarray,
    operands: Operands,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    row_values: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    resp: np.ndarray | None = None,
) -> tuple:
    """Return the arguments of the accumulating kernel; see `layouts.passes.accumulate_chunk`."""
    dtype = rows.flat.dtype
    return (
        *rows,
        n_samples,
        plan.tiling.rows_per_chunk,
        plan.tiling.width,
        weights,
        read_only(np.empty(0, np.int32) if labels is None else np.ascontiguousarray(labels, np.int32)),
        read_only(np.empty((0, 0), dtype) if resp is None else np.ascontiguousarray(resp, dtype)),
        *operands,
        *sums,
        row_values,
    )


def accumulate(
    layout: str,
    X: np.ndarray,
    operands: Operands,
    *,
    sample_weight: ArrayLike | None = None,
    labels: np.ndarray | None = None,
    resp: np.ndarray | None = None,
    with_scatter: bool = True,
    log_prob_norm: np.ndarray | None = None,
    exact_below: float = math.inf,
    resp_out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Run a pass over the rows; return an M-step's sums and the log-likelihood.

    Flops per row and component: D^2 + 3 D multiply-adds for "full"; 7 D operations (differences, products, sums,
    multiply-adds) for "diagonal"; 3 D for "tied", and D (D + 1) / 2 per row; an exponential. Cache: the arrays of a
    tile in L2 (see `tiles.rows.tiling`); for "full" also one factor (D^2 numbers) in L1 and all factors in L2.

    Parameters
    ----------
    layout : {"full", "diagonal", "tied"}
    X : (N, D) float64 or float32
    operands : Operands
        With `labels` or `resp`, only `origin` and `means` are read, as reference points.
    sample_weight : (N,) or None
        None means 1 for every row.
    labels : (N,) int, optional
        Skip the E-step: the responsibility of each row's label is 1, the others are 0. A row with a negative label adds
        nothing.
    resp : (N, K), optional
        Skip the E-step, and use these responsibilities.
    with_scatter : bool
        "tied" only: if False, `scatter` is empty. The scatter is the same at every pass.
    log_prob_norm : (N,) of X's dtype, optional
        Receives ``log p(x_i)`` in nats; with an E-step only.
    exact_below : float
        If ``log p(x_i)`` is at least this, `log_prob_norm` may receive any number between `exact_below` and it.
    resp_out : (N, K) of X's dtype, optional
        Receives the responsibilities times the rows' weights; with an E-step only.

    Returns
    -------
    weight_sums : (K,) float64
        ``n_k = sum_i w_i r_ik``.
    first : (K, D) float64
        ``sum_i w_i r_ik (x_i - c_k)``, where c_k is the component's mean; for "tied" it is the origin.
    scatter : (K, D, D), (K, 1, D) or (1, D, D) float64
        ``sum_i w_i r_ik (x_i - c_k)(x_i - c_k)^T``, its diagonal for "diagonal", its sum over k for "tied".
    log_likelihood : float
        ``sum_i w_i log p(x_i)`` in nats; 0 without an E-step.

    Raises
    ------
    TypeError
        If X is not a two-dimensional array of float64 or float32.
    ValueError
        If `sample_weight` has the wrong shape or a negative, infinite or NaN weight.
    """
    rows = rows_view(X)
    n_samples, (n_components, n_features) = X.shape[0], operands.means.shape
    dtype = rows.flat.dtype
    weights, scale = weights_view(sample_weight, n_samples)
    plan = plan_accumulation(layout, n_samples, n_components, n_features, dtype, with_scatter=with_scatter)
    n_chunks = plan.tiling.n_chunks
    weight_sums, first = np.zeros((n_chunks, n_components)), np.zeros((n_chunks, n_components, n_features))
    scatter, log_likelihood = np.zeros((n_chunks, *plan.scatter_shape)), np.zeros(n_chunks)
    n_values = 0 if log_prob_norm is None and resp_out is None else 2 if resp_out is None else 2 + n_components
    row_values = np.empty((n_values, n_samples), dtype)
    passes.kernel("accumulate", layout, dtype, n_features)(
        n_chunks,
        *accumulation_arguments(
            rows,
            n_samples,
            plan,
            weights,
            operands,
            (weight_sums, first, scatter, log_likelihood),
            row_values,
            labels=labels,
            resp=resp,
        ),
        scratch=plan.tiling.scratch,
        multiply_adds=plan.multiply_adds,
    )
    if log_prob_norm is not None:
        _write_log_prob_norm(row_values[0], row_values[1], exact_below, log_prob_norm)
    if resp_out is not None:
        weighted_resp = row_values[2:]
        if passes.LAYOUTS[layout].uses_sqrt_resp(passes.specialised_n_features(layout, n_features)):
            weighted_resp *= weighted_resp
        np.multiply(scale, weighted_resp.T, out=resp_out)
    total = sum_of_chunks(scatter)
    if layout != "diagonal":
        mirror_lower(total)
    return (
        scale * weight_sums.sum(axis=0),
        scale * first.sum(axis=0),
        total if scale == 1 else scale * total,
        scale * float(log_likelihood.sum()),
    )


def _write_log_prob_norm(top: np.ndarray, total: np.ndarray, exact_below: float, log_prob_norm: np.ndarray) -> None:
    """Write ``top + log(total)``, or only `top` where that is at least `exact_below`.

    `total` is at least 1. The logarithms of all rows take as long as a pass with few features and components.
    """
    with np.errstate(divide="ignore"):  # the total of a row of NaN is 0
        if exact_below == math.inf:
            np.log(total, out=total)
            np.add(top, total, out=log_prob_norm)
        else:
            log_prob_norm[:] = top
            low = np.flatnonzero(~(top >= exact_below))
            log_prob_norm[low] += np.log(total[low])


def score(
    layout: str,
    X: np.ndarray,
    operands: Operands,
    *,
    log_prob_norm: np.ndarray | None = None,
    max_log_resp: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    resp: np.ndarray | None = None,
) -> None:
    """Run a pass over the rows; write the requested results for each row.

    Flops per row and component: D (D + 3) / 2 multiply-adds for "full"; 3 D operations for "diagonal"; 2 D for "tied",
    and D (D + 1) / 2 per row; an exponential unless only labels are requested. Cache: as for `accumulate`.

    Parameters
    ----------
    layout, X, operands
        As for `accumulate`.
    log_prob_norm : (N,) of X's dtype, optional
        Receives ``log p(x_i)`` in nats.
    max_log_resp : (N,) of X's dtype, optional
        Receives the logarithm of the highest responsibility.
    labels : (N,) int64, optional
        Receives the component of highest responsibility, the first of equals.
    resp : (N, K) of X's dtype, C-contiguous, optional
        Receives the responsibilities.

    Raises
    ------
    TypeError
        If X is not a two-dimensional array of float64 or float32.
    """
    rows = rows_view(X)
    n_samples, (n_components, n_features) = X.shape[0], operands.means.shape
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    dtype = rows.flat.dtype
    multiply_adds = n_samples * _multiply_adds_per_row(layout, n_components, n_features) / 2
    plan = tiling(n_samples, 4 + n_features + n_components + n_work, dtype, multiply_adds=multiply_adds)
    only_labels = log_prob_norm is None and max_log_resp is None and resp is None
    if labels is not None and only_labels and single_precision.pays(dtype, n_samples, multiply_adds):
        single_precision.label(layout, rows, n_samples, operands, labels, multiply_adds)
        return
    empty = np.empty(0, dtype)
    passes.kernel("score", layout, dtype, n_features)(
        plan.n_chunks,
        *rows,
        n_samples,
        plan.rows_per_chunk,
        plan.width,
        *operands,
        empty if log_prob_norm is None else log_prob_norm,
        empty if max_log_resp is None else max_log_resp,
        np.empty(0, np.int64) if labels is None else labels,
        np.empty((0, 0), dtype) if resp is None else resp,
        scratch=plan.scratch,
        multiply_adds=multiply_adds,
    )
