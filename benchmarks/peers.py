"""Libraries that run the same EM iterations, from equal rows and an equal start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .common import fit_quietly, make_estimator

try:
    import daal4py
except ImportError:
    daal4py = None

# A function that runs a number of iterations. It returns the means, and the mean log-likelihood of the last E-step, or
# None if the library has none.
Run = Callable[[int], tuple[np.ndarray, float | None]]


def fastgmm(X: np.ndarray, n_components: int, covariance_type: str, start: dict, n_jobs: int | None = None) -> Run:
    """Return a function that runs fastgmm's estimator."""

    def run(n_iter: int) -> tuple[np.ndarray, float | None]:
        estimator = make_estimator("fastgmm", n_components, covariance_type, start, n_iter, n_jobs=n_jobs)
        fit_quietly(estimator, X)
        return estimator.means_, estimator.lower_bound_

    return run


def scikit_learn(X: np.ndarray, n_components: int, covariance_type: str, start: dict) -> Run:
    """Return a function that runs scikit-learn's estimator."""

    def run(n_iter: int) -> tuple[np.ndarray, float | None]:
        estimator = fit_quietly(make_estimator("scikit-learn", n_components, covariance_type, start, n_iter), X)
        return estimator.means_, estimator.lower_bound_

    return run


def onedal(X: np.ndarray, n_components: int, covariance_type: str, start: dict) -> Run | None:
    """Return a function that runs oneDAL's EM (PyPI: scikit-learn-intelex), or None if it cannot run this shape.

    It has two covariance types.
    """
    storage = {"full": "full", "diag": "diagonal"}.get(covariance_type)
    if storage is None or daal4py is None:
        return None
    precisions = start["precisions_init"]
    covariances = list(np.linalg.inv(precisions)) if storage == "full" else list(1 / precisions[:, np.newaxis])

    def run(n_iter: int) -> tuple[np.ndarray, float | None]:
        algorithm = daal4py.em_gmm(
            nComponents=n_components,
            maxIterations=n_iter,
            accuracyThreshold=0.0,
            covarianceStorage=storage,
            fptype="double" if X.dtype == np.float64 else "float",
        )
        weights = start["weights_init"].reshape(1, -1)
        return algorithm.compute(X, weights, start["means_init"], covariances).means, None

    try:
        return run if np.isfinite(run(5)[0]).all() else None
    except RuntimeError:  # for instance with 512 diagonal components
        return None


def versions() -> str:
    """Return the names and versions of the peers."""
    found = []
    for name in ("scikit-learn", "scikit-learn-intelex"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)
