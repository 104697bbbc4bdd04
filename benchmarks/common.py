"""Problems and estimators to measure: the same rows, the same start and the same number of iterations for everybody."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.mixture

import fastgmm

FULL_FEATURES, FULL_COMPONENTS = (1, 2, 3, 5, 8, 10, 13, 16, 24, 32, 48, 64, 100), (2, 8, 64)
OTHER_FEATURES, OTHER_COMPONENTS = (2, 16, 40, 100), (8, 64, 512)
LIBRARIES = {"fastgmm": fastgmm.GaussianMixture, "scikit-learn": sklearn.mixture.GaussianMixture}


def rows_for(covariance_type: str, n_features: int, n_components: int, work: float, most: int = 500_000) -> int:
    """A number of rows, in thousands, that takes so much work an iteration, as far as the limits allow."""
    entries = n_features**2 if covariance_type in ("full", "tied") else 5 * n_features
    return int(np.clip(work / (n_components * (entries + 20)), most // 25, most)) // 1000 * 1000


def family(covariance_type: str, work: float) -> list[tuple[str, int, int, int]]:
    """Every shape of a covariance type: its name, rows, features, components."""
    full = covariance_type == "full"
    features, components = (FULL_FEATURES, FULL_COMPONENTS) if full else (OTHER_FEATURES, OTHER_COMPONENTS)
    return [(covariance_type, rows_for(covariance_type, d, k, work), d, k) for d in features for k in components]


def make_rows(n_samples: int, n_features: int, n_components: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Rows of an overlapping mixture; made block by block, so that making them adds nothing to the peak of memory."""
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
    """Initial parameters that any library takes: means drawn from the rows, the variances of all rows."""
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
    """Where so many iterations lead to from a start, as a start."""
    fitted = fit_quietly(make_estimator("fastgmm", n_components, covariance_type, start, n_iter), X)
    return {
        "weights_init": fitted.weights_,
        "means_init": fitted.means_,
        "precisions_init": fitted.precisions_,
    }


def make_estimator(library: str, n_components: int, covariance_type: str, start: dict, n_iter: int, **options):
    """An estimator that runs exactly so many iterations of plain EM from the start."""
    if library == "fastgmm":
        options.setdefault("acceleration", None)
    return LIBRARIES[library](n_components, covariance_type=covariance_type, max_iter=n_iter, tol=0, **start, **options)


def fit_quietly(estimator, X: np.ndarray):
    """Fit without the warning that the iterations were not enough, which they are not meant to be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(X)


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def compare(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Median seconds of each call, one after the other in every round, since a machine's clock drifts."""
    for call in calls.values():
        call()
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            # OpenBLAS's threads keep their cores busy for tens of milliseconds after scikit-learn's last product:
            # without a pause whoever comes next seemed up to 1.6 times as slow.
            time.sleep(0.1)
            times[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in times.items()}
