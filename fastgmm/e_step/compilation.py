"""Compilation of every kernel ahead of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from fastgmm import kernels
from fastgmm.covariance import BASIC_TYPES, MCLUST_MODELS, get_model
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .complete_rows import accumulate
from .scores import predict

# Numbers of rows for one thread and for several threads: the kernels have a loop for each.
SERIAL_ROWS = 128
PARALLEL_ROWS = 131_072
# Numbers of components. With the larger one, labels of many rows have a kernel of their own.
FEW_COMPONENTS = 8
MANY_COMPONENTS = 128
# Number of problems for several threads.
MANY_PROBLEMS = 2048


def warmup(*, n_jobs: int | None = None) -> list[str]:
    """Compile every kernel, or load it from the disk cache.

    After it no fit on the same machine waits for the compiler. It is meant for the recipe of a container image. The
    command ``python -m fastgmm warmup`` does the same.

    Parameters
    ----------
    n_jobs : int, optional
        Number of threads; see `GaussianMixture`.

    Returns
    -------
    list of str
        Names of the passes that are ready, each with its dtype.

    See Also
    --------
    GaussianMixture : Estimator that runs the kernels.

    Examples
    --------
    >>> import fastgmm
    >>> fastgmm.warmup()[0]  # doctest: +SKIP
    'full float64'
    """
    ready = []
    for dtype in (np.float64, np.float32):
        for n_samples in (SERIAL_ROWS, PARALLEL_ROWS):
            for n_features in (*range(1, kernels.UNROLLED_FEATURES + 2), kernels.SEARCHED_FEATURES):
                for name in BASIC_TYPES if n_features in (2, kernels.UNROLLED_FEATURES + 1) else ("full",):
                    _run_every_pass(name, n_samples, n_features, dtype, n_jobs)
            _run_initialization(n_samples, dtype, n_jobs)
        ready += [f"{name} {np.dtype(dtype)}" for name in (*BASIC_TYPES, "k-means and random starts")]
    _run_em_on_few_rows(n_jobs)
    covariances = np.tile(np.eye(64), (128, 1, 1))
    for few_or_many in (covariances[:1], covariances):
        kernels.factor_covariances(few_or_many)
    kernels.sum_of_chunks(np.zeros((2, 2**20)))
    points = np.linspace(0, 1, 64).reshape(32, 2)
    kernels.merge_order(np.ones(32), points, None, kernels.MergeCriterion.shrunk(1.0))
    kernels.pooled_merge_order(np.ones(32), points, np.eye(2), 1.0, 1.0)
    return ready


def _run_every_pass(name: str, n_samples: int, n_features: int, dtype: DTypeLike, n_jobs: int | None) -> None:
    """Compile the kernels of one E-step, and of predictions."""
    form = get_model(name).form
    X = np.linspace(0, 1, n_samples * n_features, dtype=dtype).reshape(n_samples, n_features)
    for n_components in (FEW_COMPONENTS, MANY_COMPONENTS):
        means = X[:: n_samples // n_components].astype(np.float64)
        ones = np.ones(form.shape(len(means), n_features))
        identity = ones * np.eye(n_features) if form.has_matrices else ones
        parameters = MixtureParameters(np.full(len(means), 1 / len(means)), means, identity, identity, name)
        predict(parameters, X, n_jobs=n_jobs)
    accumulate(parameters, X, n_jobs=n_jobs)


def _run_initialization(n_samples: int, dtype: DTypeLike, n_jobs: int | None) -> None:
    """Compile the kernels of k-means and of random starts."""
    X = np.linspace(0, 1, n_samples * 2, dtype=dtype).reshape(n_samples, 2)
    points = np.repeat(X[:2], 8, axis=0)
    with thread_limit(n_jobs):
        kernels.random_resp(X, 8, 0, 0, n_samples)
        kernels.seed_step(X, None, points[0], points, points[:1], np.ones(n_samples, dtype))
        limits = kernels.KMeansLimits(1, 1, 0.0, 1.0)
        for n_problems in (1, 2):
            parts, uniforms = np.array([[0, 2]] * n_problems), np.zeros((n_problems, 1, 3))
            kernels.kmeans_problems(X, None, parts, uniforms, 2, limits)
        labels, gap = np.full(n_samples, -1, np.int32), np.zeros(n_samples, np.float32)
        kernels.lloyd_step(X, None, points[0], points, np.zeros(len(points), np.float32), labels, gap)


def _run_em_on_few_rows(n_jobs: int | None) -> None:
    """Compile runs of EM on few rows, for one problem and for several, and the M-steps of all models."""
    X = np.random.RandomState(0).normal(size=(64, 2))
    options = kernels.RunOptions(0.0, np.inf, 1e-6, 0.0)
    for name in MCLUST_MODELS:
        for n_problems in (1, 2, MANY_PROBLEMS) if name in ("EII", "VVV") else (1,):
            parts = np.array([[0, len(X)]] * n_problems)
            problems = kernels.EMProblems(get_model(name).code, 2, X, None, parts, np.full(n_problems, float(len(X))))
            weights, means, covariances, factor = problems.parameters
            weights[:], means[:] = 0.5, X[:2]
            covariances[:] = factor[:] = np.eye(covariances.shape[2], covariances.shape[3])
            problems.trend[:] = kernels.new_trend()
            with thread_limit(n_jobs):
                problems.run(options, 2)
