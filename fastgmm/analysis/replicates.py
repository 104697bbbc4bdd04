"""Fits of the replicates of a bootstrap: one by one, or small ones together."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.parallel import Parallel

from fastgmm.covariance import get_model
from fastgmm.estimators.fitted import replicate_of
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain

from .small_replicates import SmallReplicates

Array = NDArray[np.float64]
# Replicates that are fitted in one call.
REPLICATES_PER_CALL = 250
Parameters = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def fit_larger(null: GaussianMixture, X: NDArray[Any], seed: int, n_jobs: int | None) -> GaussianMixture:
    """Fit one component more, from two starts, and return the better fit.

    With one start the larger mixture would more often have a lower likelihood than the smaller one.
    """
    options = {"n_components": null.n_components + 1, "random_state": seed, "n_jobs": n_jobs}
    fits = []
    for init_params in dict.fromkeys((null.init_params, "hc")):
        with contextlib.suppress(ValueError):
            fits.append(fit_quietly(clone(null).set_params(init_params=init_params, **options), X))
    if not fits:
        raise ValueError(
            f"No mixture of {null.n_components + 1} components could be fitted: a component collapsed from each start. "
            "Decrease max_components, or increase reg_covar."
        )
    best: GaussianMixture = max(fits, key=lambda fit: fit.lower_bound_)
    return best


def start_from(model: GaussianMixture, n_processes: int | None) -> GaussianMixture:
    """Return an estimator that starts from the parameters of a fitted model."""
    fitted = model._parameters()
    start = {
        "covariance_type": fitted.covariance_type,
        "weights_init": fitted.weights / fitted.weights.sum(),
        "means_init": fitted.means,
        "precisions_init": fitted.model.form.precisions(fitted.precisions_cholesky),
    }
    threads = model.n_jobs if n_processes is None else 1
    estimator = replicate_of(model)
    estimator.set_params(**start, n_jobs=threads, verbose=0)
    return estimator


def replicate(start: GaussianMixture, X: NDArray[Any], weights: Array, kind: str, seed: int) -> Parameters | None:
    """Return the parameters of one replicate, or None if a component collapsed."""
    try:
        fitted = fit_quietly(clone(start), X, draw_weights(weights, kind, seed))
    except ValueError:
        return None
    return fitted.weights_, fitted.means_, fitted.covariances_


def draw_weights(weights: Array, kind: str, seed: int) -> Array:
    """Return the weights of the rows in one replicate."""
    rng = np.random.RandomState(seed)
    if kind == "weighted":
        drawn = weights * rng.exponential(size=len(weights))
        return np.asarray(drawn * (weights.sum() / drawn.sum()))
    n_rows = round(float(weights.sum()))
    return rng.multinomial(n_rows, weights / weights.sum()).astype(np.float64)


def replicates_together(
    together: SmallReplicates,
    mixture: GaussianMixture,
    start: GaussianMixture,
    X: NDArray[Any],
    weights: Array,
    kind: str,
    seeds: NDArray[Any],
) -> list[Parameters | None]:
    """Return the parameters of all replicates, as `replicate` does."""
    model, dtype = get_model(plain(mixture.covariance_type)), mixture.means_.dtype
    replicates: list[Parameters | None] = []
    for some in np.array_split(seeds, -(-len(seeds) // REPLICATES_PER_CALL)):
        drawn = np.array([draw_weights(weights, kind, seed) for seed in some])
        results = together.weighted(X, drawn, together.given_start(start))
        for p, seed in enumerate(some):
            if results.handed_over[p]:
                replicates.append(replicate(start, X, weights, kind, seed))
                continue
            found = results.result(p, model).parameters
            replicates.append((found.weights.astype(dtype), found.means.astype(dtype), found.covariances.astype(dtype)))
    return replicates


def null_statistic(null: GaussianMixture, start: GaussianMixture, n_samples: int, seed: int) -> float | None:
    """Return the statistic of rows drawn from the null model, None if a fit fails."""
    X = NullRows(null).draw(n_samples, seed)
    try:
        smaller = fit_quietly(clone(start), X)
        larger = fit_larger(null, X, seed, start.n_jobs)
        return max(0.0, float(2 * n_samples * (larger.score(X) - smaller.score(X))))
    except ValueError:
        return None


def null_statistics_together(
    together: SmallReplicates, null: GaussianMixture, start: GaussianMixture, seeds: NDArray[Any]
) -> list[float | None]:
    """Return the statistics of all replicates, as `null_statistic` does."""
    rows, parameters, n_larger = NullRows(null), together.given_start(start), null.n_components + 1
    n, statistics = together.n_rows, list[float | None]()
    for some in np.array_split(seeds, -(-len(seeds) // REPLICATES_PER_CALL)):
        X = np.array([rows.draw(n, seed) for seed in some])
        _, smaller = together.ends(X, [parameters] * len(some))
        larger, highest = (np.full(len(some), -np.inf) for _ in range(2))
        for init_params in dict.fromkeys((plain(null.init_params), "hc")):
            starts = together.starts(X, n_larger, init_params, some.tolist())
            bounds, ends = together.ends(X, starts)
            failed = np.isnan(bounds)
            is_better = np.where(failed, -np.inf, bounds) > highest
            highest = np.where(is_better, bounds, highest)
            larger = np.where(failed, np.nan, np.where(is_better, ends, larger))
        for p, seed in enumerate(some):
            if np.isnan(smaller[p] + larger[p]):  # a rare problem in a fit: let the estimators decide
                statistics.append(null_statistic(null, start, n, seed))
            else:
                statistics.append(max(0.0, float(2 * n * (larger[p] - smaller[p]))))
    return statistics


class NullRows:
    """Rows drawn from a fitted mixture, a replicate for each seed."""

    def __init__(self, null: GaussianMixture):
        parameters = null._parameters()
        full = parameters.model.form.full(parameters.covariances, *parameters.means.shape)
        self.weights, self.means = parameters.weights / parameters.weights.sum(), parameters.means
        self.roots = np.linalg.cholesky(full)

    def draw(self, n_samples: int, seed: int) -> Array:
        """Return rows, (n_samples, D), sorted by component."""
        rng = np.random.RandomState(seed)
        ends = np.cumsum(rng.multinomial(n_samples, self.weights))
        rows = rng.standard_normal(size=(n_samples, self.means.shape[1]))
        for k, (begin, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
            rows[begin:end] = self.means[k] + rows[begin:end] @ self.roots[k].T
        return rows


def fit_quietly(estimator: GaussianMixture, X: NDArray[Any], sample_weight: Array | None = None) -> GaussianMixture:
    """Fit without warnings, which could come from every replicate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(X, sample_weight=sample_weight)


Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def in_parallel(tasks: Iterable[Task], n_processes: int | None) -> list[Any]:
    """Return the results of tasks that joblib's `delayed` has made, in their order."""
    return list(Parallel(n_jobs=1 if n_processes is None else n_processes)(tasks))
