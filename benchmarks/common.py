"""Rows, starts and estimators that are the same for every library."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.mixture

import fastgmm

# Features and components of the shapes of full mixtures, and of other mixtures.
FULL_FEATURES = (1, 2, 3, 5, 8, 10, 13, 16, 24, 32, 48, 64, 100)
FULL_COMPONENTS = (2, 8, 64)
OTHER_FEATURES = (2, 16, 40, 100)
OTHER_COMPONENTS = (8, 64, 512)
LIBRARIES = {"fastgmm": fastgmm.GaussianMixture, "scikit-learn": sklearn.mixture.GaussianMixture}


def rows_for(covariance_type: str, n_features: int, n_components: int, work: float, max_rows: int = 500_000) -> int:
    """Return a number of rows, a multiple of 1000 and within limits, whose iteration takes a given amount of work."""
    entries = n_features**2 if covariance_type in ("full", "tied") else 5 * n_features
    return int(np.clip(work / (n_components * (entries + 20)), max_rows // 25, max_rows)) // 1000 * 1000


def family(covariance_type: str, work: float) -> list[tuple[str, int, int, int]]:
    """Return every shape of a covariance type: the type, rows, features and components."""
    full = covariance_type == "full"
    features, components = (FULL_FEATURES, FULL_COMPONENTS) if full else (OTHER_FEATURES, OTHER_COMPONENTS)
    return [(covariance_type, rows_for(covariance_type, d, k, work), d, k) for d in features for k in components]


def make_rows(n_samples: int, n_features: int, n_components: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Return rows of an overlapping mixture.

    They are made block by block, so that making them does not add to the peak of memory.
    """
    rng = np.random.default_rng(seed)
    means = 2 * rng.normal(size=(n_components, n_features))
    mixing = np.eye(n_features) + 0.3 * rng.normal(size=(n_features, n_features)) / np.sqrt(n_features)
    X = np.empty((n_samples, n_features), dtype=dtype)
    for start in range(0, n_samples, 65_536):
        block = X[start : start + 65_536]
        labels = rng.integers(0, n_components, size=len(block))
        block[:] = means[labels] + rng.normal(size=block.shape) @ mixing
    return X


def make_start(X: np.ndarray, n_components: int, covariance_type: str) -> dict[str, np.ndarray]:
    """Return initial parameters for any library: means drawn from the rows, and the variances of all rows."""
    rng = np.random.default_rng(1)
    precision = 1 / X.var(axis=0, dtype=np.float64)
    precisions = {
        "full": np.tile(np.diag(precision), (n_components, 1, 1)),
        "tied": np.diag(precision),
        "diag": np.tile(precision, (n_components, 1)),
        "spherical": np.full(n_components, precision.mean()),
    }
    return {
        "weights_init": np.full(n_components, 1 / n_components),
        "means_init": X[rng.choice(len(X), size=n_components, replace=False)].astype(np.float64),
        "precisions_init": precisions[covariance_type],
    }


def settled_start(X: np.ndarray, n_components: int, covariance_type: str, start: dict, n_iter: int) -> dict:
    """Return the parameters after `n_iter` iterations from a start, as a start."""
    fitted = fit_quietly(make_estimator("fastgmm", n_components, covariance_type, start, n_iter), X)
    return {
        "weights_init": fitted.weights_,
        "means_init": fitted.means_,
        "precisions_init": fitted.precisions_,
    }


def make_estimator(library: str, n_components: int, covariance_type: str, start: dict, n_iter: int, **options):
    """Return an estimator that runs exactly `n_iter` iterations of plain EM from a start."""
    if library == "fastgmm":
        options.setdefault("acceleration", None)
    return LIBRARIES[library](n_components, covariance_type=covariance_type, max_iter=n_iter, tol=0, **start, **options)


def fit_quietly(estimator, X: np.ndarray):
    """Fit without the warning that EM has not converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(X)


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def compare(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Return the median seconds of each call.

    The calls take turns in every round, since the speed of a machine drifts.
    """
    for call in calls.values():
        call()
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            # OpenBLAS's threads keep their cores busy for tens of milliseconds after scikit-learn's last product.
            # Without a pause the next call seemed up to 1.6 times as slow.
            time.sleep(0.1)
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}
