"""The compiled core, and the only door into it: plain arrays in, plain arrays out.

One *pass* over the rows is all that EM costs. Its design, from the outside in:

* Rows come as they are. `rows.rows_view` makes a flat read-only view of an array and two strides, so that C-order,
  F-order and memory-mapped input all run the same machine code, one compiled signature a dtype, and nothing is copied.
* Rows are cut into *chunks* (`rows.tiling`), the unit of work of a thread. Each adds into its own row of the output,
  and these are added in order: the same bits for any number of threads.
* A chunk is walked in *tiles* of some hundred rows, transposed so that a SIMD lane is a row, and small enough that
  everything the size of rows x components stays in cache (`tiles`).
* What happens to a tile is the *layout*'s business: `full`, `diagonal` or `tied`, three modules of the same form, whose
  arithmetic is bound into the two *operations*, accumulate and score (`passes`). Between E-step and M-step stands
  log-sum-exp (`responsibilities`), the same for all. They share `distances`, `moments` and `compaction`, which leaves
  out rows that do not matter to a component.
* Rows are shifted by an *origin* near the data when they are loaded, and the operands with them, so that float32 keeps
  its digits however far from zero the data lie (`rows.shift_origin`).

Beside these: `single_precision` and `partial_distance` for labels alone, `kmeans`, `quick_kmeans`, `kmeans_steps` and
`random_resp` for initialisation, `cholesky` for the factors, `chunk_sums`, `transposition` of rows into tiles and back,
`numerics` for exp and log, `simd` for register tiles, `runtime`, `entry`, `cache` and `threads` for everything about
Numba. Nothing here knows anything of the rest of the package.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .clustering.random_resp import random_resp as _random_resp
from .clustering.steps import KMeansStarts, kmeans_starts, lloyd_step, seed_step
from .compiler import runtime
from .compiler.cache import cache_folder
from .compiler.simd import VECTOR_BITS
from .compiler.threads import may_run_parallel_anywhere, resolve_n_jobs, serial_matmul, thread_limit
from .labels import single_precision
from .labels.single_precision import SEARCHED_FEATURES
from .layouts import passes
from .layouts.full import UNROLLED as UNROLLED_FEATURES
from .matrices import cholesky
from .matrices.chunk_sums import sum_of_chunks
from .matrices.triangles import lower_triangle, mirror_lower
from .tiles.rows import read_only, rows_view, shift_origin, tiling, weights_view

__all__ = [
    "SEARCHED_FEATURES",
    "UNROLLED_FEATURES",
    "VECTOR_BITS",
    "KMeansStarts",
    "Operands",
    "accumulate",
    "cache_folder",
    "factor_covariances",
    "kmeans_starts",
    "lloyd_step",
    "lower_triangle",
    "may_run_parallel_anywhere",
    "random_resp",
    "resolve_n_jobs",
    "score",
    "seed_step",
    "serial_matmul",
    "shift_origin",
    "sum_of_chunks",
    "thread_limit",
]


class Operands(NamedTuple):
    """What an E-step reads, in the rows' dtype.

    origin : (D,)
        Subtracted from every row when it is loaded.
    means : (K, D)
        Relative to the origin; for the tied layout moreover multiplied by the factor.
    factor : (K, D, D) for "full", (1, D, D) for "tied", lower triangular; (K, 1, D) or (K, 1, 1) for "diagonal"
        ``|factor (x - mean)|^2`` is the squared Mahalanobis distance.
    log_coef : (K,)
        What is added to minus half the squared distance: ``log weight + log |factor| - D/2 log 2 pi``, in nats.
    """

    origin: np.ndarray
    means: np.ndarray
    factor: np.ndarray
    log_coef: np.ndarray


def _operations_a_row(layout: str, n_components: int, n_features: int) -> float:
    """Multiply-adds of an E-step and an M-step for one row; an exponential counts as 20."""
    an_entry = {"full": n_features**2 + 3 * n_features, "diagonal": 5 * n_features, "tied": 4 * n_features}
    return n_components * (an_entry[layout] + 20)


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
    """One pass over the rows: the sums that an M-step needs, and the log-likelihood.

    Parameters
    ----------
    layout : {"full", "diagonal", "tied"}
    X : (N, D) float64 or float32
    operands : Operands
        With `labels` or `resp`, only `origin` and `means` are read, as reference points.
    sample_weight : (N,) or None
        None is ones.
    labels : (N,) int, optional
        Take these components' responsibilities as 1 and do no E-step; a negative label belongs to none.
    resp : (N, K), optional
        Take these responsibilities and do no E-step.
    with_scatter : bool
        Tied layout only: without it `scatter` comes back empty (it is the same at every pass).
    log_prob_norm : (N,) of X's dtype, optional
        Receives ``log p(x_i)`` in nats, of an E-step.
    exact_below : float
        Where ``log p(x_i)`` is no lower, `log_prob_norm` may receive any number between this and it.
    resp_out : (N, K) of X's dtype, optional
        Receives the responsibilities of an E-step, times the rows' weights.

    Returns
    -------
    weight_sums : (K,) float64
        ``n_k = sum_i w_i r_ik``.
    first : (K, D) float64
        ``sum_i w_i r_ik (x_i - c_k)``; c_k is the component's mean, or, for the tied layout, the origin.
    scatter : (K, D, D), (K, 1, D) or (1, D, D) float64
        ``sum_i w_i r_ik (x_i - c_k)(x_i - c_k)^T``, its diagonal for "diagonal", its sum over k for "tied".
    log_likelihood : float
        ``sum_i w_i log p(x_i)`` in nats; 0 if there was no E-step.
    """
    rows = rows_view(X)
    n_samples, (n_components, n_features) = X.shape[0], operands.means.shape
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    dtype = rows.flat.dtype
    scatter_shape = {
        "full": (n_components, n_features, n_features),
        "diagonal": (n_components, 1, n_features),
        "tied": (int(with_scatter), n_features, n_features),
    }[layout]
    size = n_components * (n_features + 1) + math.prod(scatter_shape)
    weights, scale = weights_view(sample_weight, n_samples)
    operations = n_samples * _operations_a_row(layout, n_components, n_features)
    cut = tiling(n_samples, 4 + n_features + n_components + n_work, dtype, 8 * size, operations)
    weight_sums, first = np.zeros((cut.n_chunks, n_components)), np.zeros((cut.n_chunks, n_components, n_features))
    scatter, log_likelihood = np.zeros((cut.n_chunks, *scatter_shape)), np.zeros(cut.n_chunks)
    n_lines = 0 if log_prob_norm is None and resp_out is None else 2 if resp_out is None else 2 + n_components
    each_row = np.empty((n_lines, n_samples), dtype)
    passes.kernel("accumulate", layout, dtype, n_features)(
        cut.n_chunks,
        *rows,
        n_samples,
        cut.rows_per_chunk,
        cut.width,
        weights,
        read_only(np.empty(0, np.int32) if labels is None else np.ascontiguousarray(labels, np.int32)),
        read_only(np.empty((0, 0), dtype) if resp is None else np.ascontiguousarray(resp, dtype)),
        *operands,
        weight_sums,
        first,
        scatter,
        log_likelihood,
        each_row,
        scratch=cut.scratch,
        operations=operations,
    )
    if log_prob_norm is not None:
        _write_log_prob_norm(each_row[0], each_row[1], exact_below, log_prob_norm)
    if resp_out is not None:
        shares = each_row[2:]
        if passes.LAYOUTS[layout].uses_sqrt_resp(passes.specialised_n_features(layout, n_features)):
            shares *= shares
        np.multiply(scale, shares.T, out=resp_out)
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
    """Write ``top + log(total)``, or, as `total` is at least 1, `top` where that is high enough.

    Logarithms of all of 270,000 rows take as long as a pass over them with few features and components.
    """
    with np.errstate(divide="ignore"):  # of a row of NaN there is nothing
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
    """Write what is asked for of each row.

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
    """
    rows = rows_view(X)
    n_samples, (n_components, n_features) = X.shape[0], operands.means.shape
    n_work = passes.LAYOUTS[layout].work_rows(n_components, n_features)
    dtype = rows.flat.dtype
    operations = n_samples * _operations_a_row(layout, n_components, n_features) / 2
    cut = tiling(n_samples, 4 + n_features + n_components + n_work, dtype, operations=operations)
    only_labels = log_prob_norm is None and max_log_resp is None and resp is None
    if labels is not None and only_labels and single_precision.pays(dtype, n_samples, operations):
        single_precision.label(layout, rows, n_samples, operands, labels, operations)
        return
    nothing = np.empty(0, dtype)
    passes.kernel("score", layout, dtype, n_features)(
        cut.n_chunks,
        *rows,
        n_samples,
        cut.rows_per_chunk,
        cut.width,
        *operands,
        nothing if log_prob_norm is None else log_prob_norm,
        nothing if max_log_resp is None else max_log_resp,
        np.empty(0, np.int64) if labels is None else labels,
        np.empty((0, 0), dtype) if resp is None else resp,
        scratch=cut.scratch,
        operations=operations,
    )


def factor_covariances(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse Cholesky factors of covariance matrices.

    Parameters
    ----------
    covariances : (K, D, D) float64

    Returns
    -------
    factor : (K, D, D) float64
        Lower triangular, ``factor @ covariance @ factor.T = I``; zeros where there is none. A view: its transposes are
        contiguous.
    well_defined : (K,) bool
        Whether the covariance is positive definite beyond rounding.
    """
    covariances = np.ascontiguousarray(covariances, dtype=np.float64)
    upper, well_defined = np.zeros(covariances.shape), np.zeros(len(covariances), dtype=np.bool_)
    operations = covariances.size * covariances.shape[-1] / 3
    matrices_per_chunk = 1 if operations > runtime.WORTH_THREADS else max(1, len(covariances))
    n_chunks = -(-len(covariances) // matrices_per_chunk)
    options = {"scratch": cholesky.scratch(covariances.shape[-1]), "operations": operations}
    cholesky.factor_covariances(n_chunks, matrices_per_chunk, covariances, upper, well_defined, **options)
    return upper.swapaxes(1, 2), well_defined


def random_resp(X: np.ndarray, n_components: int, seed: int, start: int, stop: int) -> np.ndarray:
    """Random responsibilities of the rows from `start` to `stop`, uniform numbers divided by their sum.

    They depend on a row's contents and on the seed alone: equal rows get equal ones, wherever they stand.

    Returns
    -------
    resp : (stop - start, K) of X's dtype
    """
    rows = rows_view(X)
    resp = np.empty((stop - start, n_components), rows.flat.dtype)
    rows_per_chunk = 256
    _random_resp(
        -(-(stop - start) // rows_per_chunk),
        *rows,
        start,
        stop - start,
        rows_per_chunk,
        X.shape[1],
        np.array([seed], np.uint64),
        resp,
    )
    return resp
