"""Moves that EM cannot make: two components merged while a third is split.

A move keeps the number of components, and is kept only if the likelihood of all rows rises. `one_more` does not: it
makes a start of a fit with one component less.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.random_stream import RandomStream, at_most
from fastgmm.data.sources import ArraySource, Source
from fastgmm.e_step.complete import accumulate
from fastgmm.e_step.given import accumulate_resp
from fastgmm.kernels import serial_matmul
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from fastgmm.mixture.moments import merged_pairs
from fastgmm.mixture.parameters import MixtureParameters

from . import em
from .degeneracy import flat_components
from .options import FitObserver, FitOptions
from .run_state import EMResult

Array = NDArray[np.float64]
# What a Gaussian cut in two at its mean is: how far the halves' means are from it, in standard deviations.
HALF = np.sqrt(2 / np.pi)


class MoveBudget(NamedTuple):
    """What moves may cost.

    Attributes
    ----------
    merges, splits : int
        Pairs to merge, and components to split, tried at a time.
    steps : int
        EM steps of each try.
    rows, rows_per_parameter : int
        A try is made on `rows` rows, or on `rows_per_parameter` for each parameter of the mixture if that is more.
    judge_tol : float or None
        In nats per row. The best try is first run on all rows until a step raises the likelihood by less than this; if
        it is not higher than where EM ended by then, it is given up. None: it is run to its end.
    """

    merges: int
    splits: int
    steps: int
    rows: int
    rows_per_parameter: int
    judge_tol: float | None = None


# Where EM is slow, ten steps are too few to see which move is best. With 30, half as many moves and half as many rows
# n_moves=2 ended 0.08 nats per row higher on diamonds, by 0.005 to 0.015 on digits, clothes and diagonal patches, the
# same on pixels and flights, 0.01 lower on patches, in 0.9 to 1.4 times the time (medians of six seeds).
THOROUGH = MoveBudget(2, 2, 30, 5_000, 5)
# What a fit that nobody has asked for moves can afford.
LIGHT = MoveBudget(1, 2, 10, 2_000, 2, judge_tol=1e-3)
# Of a start with one component more, which is fitted anyway.
QUICK = MoveBudget(1, 2, 3, 2_000, 1)


def improve(
    source: Source,
    result: EMResult,
    run: Callable[..., EMResult],
    n_moves: int,
    observer: FitObserver,
    *,
    budget: MoveBudget = THOROUGH,
    max_iter: int | None = None,
    reg_covar: float = 0.0,
) -> EMResult:
    """Merge two components and split a third, up to `n_moves` times, wherever EM then ends higher.

    The idea is SMEM's (Ueda, Nakano, Ghahramani & Hinton, 2000, Neural Computation 12). Of the pairs that lose least by
    being merged and the components that look least like Gaussians some are tried for a few steps, on a sample if there
    are many rows; the best of them is run on all rows, and kept if EM ends higher.

    Parameters
    ----------
    source : Source
    result : EMResult
        Where EM ended.
    run : callable (source, parameters, **options) -> EMResult
        Runs EM; `options` are those of `em.run`.
    n_moves : int
        How often the likeliest moves that are left are tried.
    observer : FitObserver
    budget : MoveBudget
        What the moves may cost.
    max_iter : int, optional
        Passes that are left: a run that has not converged by then is not kept. By default each run is kept that ends
        higher, and has as many as `run` gives it.
    reg_covar : float
        What is added to every variance. A result with more components that only this keeps from being flat is not
        kept: its likelihood is only as high as `reg_covar` is small.

    Returns
    -------
    EMResult
        Its bounds have every pass over all rows; those of a move that was not kept repeat the bound before.
    """
    if result.parameters.n_components < 3:
        return result
    some, tried = _some_of(source, result.parameters, budget), 0
    try:
        for move in range(1, n_moves + 1):
            moved = _best_move(some, result.parameters, run, budget, tried)
            if moved is None:
                tried += 1
                continue
            trial = _run_to_end(source, moved, result, run, observer, budget, max_iter)
            higher = trial.bound > result.lower_bound and (trial.converged or max_iter is None)
            higher = higher and not _is_flatter(trial.parameters, result.parameters, reg_covar)
            observer.note(
                f"Move {move}: {f'kept, {trial.bound - result.lower_bound:.5f} higher' if higher else 'not kept'}"
            )
            if higher:
                result, tried = trial, 0
            else:
                result.lower_bounds.extend([result.lower_bound] * (trial.n_iter - trial.n_earlier))
                tried += 1
            if trial.stopped or trial.interrupted:
                result.stopped, result.interrupted = trial.stopped, trial.interrupted
                result.converged &= not trial.interrupted
                break
    except KeyboardInterrupt:
        result.interrupted, result.converged = True, False
    return result


def _is_flatter(parameters: MixtureParameters, before: MixtureParameters, reg_covar: float) -> bool:
    """Return whether more components are flat than before."""
    return len(flat_components(parameters, reg_covar)) > len(flat_components(before, reg_covar))


def _run_to_end(
    source: Source,
    moved: MixtureParameters,
    result: EMResult,
    run: Callable[..., EMResult],
    observer: FitObserver,
    budget: MoveBudget,
    max_iter: int | None,
) -> EMResult:
    """Run EM on all rows from where a move leads: to its end, or until it shows that it ends no higher."""
    as_one = {"history": result, "floor": result.lower_bound, "on_iteration": observer.iteration}
    limit = {} if max_iter is None else {"max_iter": max_iter}
    if budget.judge_tol is None:
        return _attempt(run, source, moved, **as_one, **limit)
    first = _attempt(run, source, moved, tol=budget.judge_tol, limit_tol=math.inf, **as_one, **limit)
    if not first.converged or first.bound <= result.lower_bound:
        first.converged = False
        return first
    if max_iter is not None:
        limit = {"max_iter": max_iter - (first.n_iter - first.n_earlier)}
    as_one["history"] = first
    rest = _attempt(run, source, first.parameters, lower_bound=first.bound, **as_one, **limit)
    rest.n_earlier = first.n_earlier
    return rest


def least_merge(parameters: MixtureParameters) -> list[tuple[int, int]]:
    """The pairs of components, those first that lose least of the classification likelihood by being one.

    Of components with weights w and covariances S it is the sum of ``w (log w - log det S / 2)``, and what does not
    change. Flops: K^2 D^3 / 6.
    """
    weights, means, full = _full(parameters)
    n_components = len(weights)
    with np.errstate(all="ignore"):
        single = _worth(weights, full)
        loss = np.full((n_components, n_components), np.inf)
        for i in range(n_components - 1):
            j = np.arange(i + 1, n_components)
            merged = merged_pairs(weights[[i]], means[[i]], full[[i]], weights[j], means[j], full[j])
            loss[i, j] = single[i] + single[j] - _worth(merged[0], merged[2])
    order = np.argsort(np.where(np.isnan(loss), np.inf, loss), axis=None, kind="stable")
    pairs = (divmod(int(flat), n_components) for flat in order[: n_components * (n_components - 1) // 2])
    return list(pairs)


def least_gaussian(parameters: MixtureParameters, source: ArraySource) -> NDArray[np.intp]:
    """The components, those first that look least like Gaussians along their longest axis.

    Two clusters under one component are flat or lopsided there: third and fourth moments differ from 0 and 3.
    """
    return _least_gaussian(_resp(parameters, source), source, *_full(parameters))


def split_and_merge(parameters: MixtureParameters, i: int, j: int, k: int) -> MixtureParameters:
    """Components i and j as one, and k cut in two across its longest axis.

    IllDefinedCovarianceError if it cannot be.
    """
    weights, means, full = (a.copy() for a in _full(parameters))
    step, half = _cut(full[k])
    merged = merged_pairs(weights[[i]], means[[i]], full[[i]], weights[[j]], means[[j]], full[[j]])
    weights[i], means[i], full[i] = (a[0] for a in merged)
    weights[j], means[j], full[j] = weights[k] / 2, means[k] + step, half
    weights[k], means[k], full[k] = weights[k] / 2, means[k] - step, half
    return _rebuilt(parameters, weights, means, full)


def one_more(source: ArraySource, parameters: MixtureParameters, reg_covar: float) -> MixtureParameters | None:
    """Parameters with a component more: one that looks least like a Gaussian is cut in two.

    Two are tried, for a few EM steps, on a sample if there are many rows. What is cut is the scatter that a component's
    rows have, whatever the model makes of it: what is a sphere to the model has a longest axis too. Of 112 likelihoods
    of 20,000 rows 52 rose so, and 37 with the model's covariances cut; of iris's, 54 and 63.

    Returns
    -------
    parameters : MixtureParameters or None
        None if each leads to a collapse.
    """
    some = _some_of(source, parameters, QUICK)
    resp = _resp(parameters, some)
    statistics = accumulate_resp(resp, parameters.means, some.X).recentred(parameters.means)
    counts = np.maximum(statistics.weight_sums, 1e-300)[:, np.newaxis, np.newaxis]
    own = statistics.scatter / counts + reg_covar * np.eye(parameters.n_features)
    with np.errstate(all="ignore"):  # of a component that no row of the sample belongs to
        order = _least_gaussian(resp, some, parameters.weights, parameters.means, own)
    objective = MaximumLikelihood(parameters.covariance_type, reg_covar)
    best, highest = None, -np.inf
    for k in order[: QUICK.splits]:
        try:
            halved = _halved(parameters, int(k), own[k])
            result = em.finished(em.run(some, halved, FitOptions(objective, 0.0, QUICK.steps)))
        except IllDefinedCovarianceError:
            continue
        if result.lower_bound > highest:
            best, highest = result.parameters, result.lower_bound
    return best


def _best_move(
    some: ArraySource, parameters: MixtureParameters, run: Callable[..., EMResult], budget: MoveBudget, tried: int
) -> MixtureParameters | None:
    """The move that is highest after a few steps on some rows, if it is higher than staying; after so many others."""

    def after_steps(point: MixtureParameters) -> EMResult:
        return em.finished(_attempt(run, some, point, tol=0.0, max_iter=budget.steps))

    stay = best = after_steps(parameters)
    n_moves = budget.merges * budget.splits
    first = tried * n_moves
    for move in itertools.islice(_moves(parameters, some, budget), first, first + n_moves):
        with contextlib.suppress(IllDefinedCovarianceError):
            best = max(best, after_steps(split_and_merge(parameters, *move)), key=lambda result: result.lower_bound)
    return None if best is stay else best.parameters


def _attempt(run: Callable[..., EMResult], source: Source, parameters: MixtureParameters, **options: Any) -> EMResult:
    """A run; one in which a component collapses leads nowhere."""
    try:
        return run(source, parameters, **options)
    except IllDefinedCovarianceError:
        return EMResult(parameters)


def _moves(parameters: MixtureParameters, some: ArraySource, budget: MoveBudget) -> Iterator[tuple[int, int, int]]:
    """Pairs to merge and components to split, the likeliest first, in groups of a few of each."""
    splits = [int(k) for k in least_gaussian(parameters, some)]
    pairs = least_merge(parameters)
    for start in range(0, len(pairs), budget.merges):
        for i, j in pairs[start : start + budget.merges]:
            yield from itertools.islice(((i, j, k) for k in splits if k not in (i, j)), budget.splits)


def _some_of(source: Source, parameters: MixtureParameters, budget: MoveBudget) -> ArraySource:
    """The source, or a sample of as many rows as moves are tried on."""
    n_parameters = parameters.model.n_parameters(*parameters.means.shape)
    n_rows = max(budget.rows, budget.rows_per_parameter * n_parameters)
    return at_most(source, n_rows, RandomStream(0))


def _resp(parameters: MixtureParameters, source: ArraySource) -> Array:
    """Responsibilities times the rows' weights, (n, K)."""
    resp = np.empty((len(source.X), parameters.n_components), source.dtype)
    # A pass of EM, not `predict_proba`: there is no other kernel to be compiled, or loaded, for a fit.
    accumulate(parameters, source.X, source.sample_weight, earlier_pass=source.earlier_pass, resp=resp)
    return resp.astype(np.float64)


def _least_gaussian(resp: Array, source: ArraySource, weights: Array, means: Array, full: Array) -> NDArray[np.intp]:
    """`least_gaussian` for components with covariances (K, D, D)."""
    skewness, excess = _skewness_and_excess(resp, source, means, full)
    scores = weights * (np.minimum(np.abs(excess), 3.0) + np.minimum(np.abs(skewness), 3.0))
    return np.argsort(-scores, kind="stable")


def _skewness_and_excess(resp: Array, source: ArraySource, means: Array, full: Array) -> tuple[Array, Array]:
    """Third moments, and fourth ones less 3, along the components' longest axes, in standard deviations; (K,)."""
    values, vectors = np.linalg.eigh(full)
    axes = vectors[:, :, -1] / np.sqrt(values[:, -1:])
    z = serial_matmul(source.X, axes.T.astype(source.X.dtype)) - np.einsum("kd,kd->k", means, axes)
    # NumPy takes a hundred times as long for a power of 3.
    third = resp / np.maximum(resp.sum(axis=0), 1e-300) * (z * z * z)
    return third.sum(axis=0), (third * z).sum(axis=0) - 3


def _cut(covariance: Array) -> tuple[Array, Array]:
    """A Gaussian cut in two across its longest axis: how far the halves' means are from its own; their covariance."""
    values, vectors = np.linalg.eigh(covariance)
    step = HALF * np.sqrt(max(values[-1], 0.0)) * vectors[:, -1]
    return step, covariance - np.outer(step, step)


def _halved(parameters: MixtureParameters, k: int, covariance: Array) -> MixtureParameters:
    """Component k, with some covariance (D, D), cut in two; the second half comes last."""
    weights, means, full = (a.copy() for a in _full(parameters))
    step, half = _cut(covariance)
    weights[k] /= 2
    full[k] = half
    means = np.vstack([means, means[k] + step])
    means[k] -= step
    return _rebuilt(parameters, np.append(weights, weights[k]), means, np.concatenate([full, half[np.newaxis]]))


def _full(parameters: MixtureParameters) -> tuple[Array, Array, Array]:
    """Weights (K,), means (K, D) and covariances (K, D, D)."""
    form = parameters.model.form
    return parameters.weights, parameters.means, form.full(parameters.covariances, *parameters.means.shape)


def _rebuilt(parameters: MixtureParameters, weights: Array, means: Array, full: Array) -> MixtureParameters:
    """Parameters of the same model that are nearest to components with any covariances; perhaps one more."""
    model, weights = parameters.model, weights / weights.sum()
    scatter = model.form.scatter(np.maximum(weights, 1e-300)[:, np.newaxis, np.newaxis] * full)
    covariances = model.covariances(scatter, np.maximum(weights, 1e-300), before=parameters.covariances)
    precisions_cholesky = model.form.precisions_cholesky(covariances)
    return MixtureParameters(weights, means, covariances, precisions_cholesky, parameters.covariance_type)


def _worth(weights: Array, full: Array) -> Array:
    """What a component contributes to the classification likelihood, (K,)."""
    return np.where(weights > 0, weights * (np.log(weights) - np.linalg.slogdet(full)[1] / 2), 0.0)
