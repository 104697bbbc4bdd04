"""Parameters, rows and fits that several tests use."""

import functools
import inspect
import os
import warnings

import numba
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastgmm.covariance import get_model
from fastgmm.engine import MixtureParameters
from fastgmm.fitting import em
from fastgmm.fitting.options import Acceleration, FitOptions
from fastgmm.initialization.registry import initial_parameters
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
DTYPES = [np.float64, np.float32]
TOLERANCE = {np.float64: 1e-12, np.float32: 2e-4}
JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") != "1"


def assert_close(actual, desired, dtype, scale=None):
    """Assert equality up to rounding errors, which grow with `scale`, the size of the terms of a sum."""
    scale = max(1.0, np.abs(desired).max()) if scale is None else scale
    np.testing.assert_allclose(actual, desired, rtol=0, atol=TOLERANCE[dtype] * scale)


def covariances_in_form(covariance_type, n_components, n_features, rng):
    """Return random positive definite covariances in the form of a model."""
    root = np.eye(n_features) + 0.3 * rng.normal(size=(n_components, n_features, n_features)) / np.sqrt(n_features)
    full = root @ root.swapaxes(1, 2)
    variances = rng.uniform(0.5, 2, size=(n_components, n_features))
    return {"full": full, "tied": full[0], "diag": variances, "spherical": variances[:, 0]}[covariance_type]


def random_parameters(covariance_type, n_components, n_features, seed=0, spread=2.0):
    """Return random mixture parameters."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(n_components, 5.0))
    means = spread * rng.normal(size=(n_components, n_features))
    covariances = covariances_in_form(covariance_type, n_components, n_features, rng)
    return MixtureParameters.create(weights, means, covariances, covariance_type)


def full_covariances(parameters):
    """Return the covariances of parameters as (K, D, D)."""
    return get_model(parameters.covariance_type).form.full(parameters.covariances, *parameters.means.shape)


def random_rows(parameters, n_samples, seed=0):
    """Return rows drawn from a mixture, in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(parameters.n_components, size=n_samples, p=parameters.weights)
    roots = np.linalg.cholesky(full_covariances(parameters))
    noise = rng.normal(size=(n_samples, parameters.n_features))
    return parameters.means[labels] + np.einsum("nde,ne->nd", roots[labels], noise)


def blobs(seed=0, n_samples=600, n_features=3, n_components=3, separation=4.0):
    """Return rows of a mixture of unequal components, and each row's component."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_components, size=n_samples)
    means = separation * rng.normal(size=(n_components, n_features))
    roots = np.eye(n_features) + 0.4 * rng.normal(size=(n_components, n_features, n_features))
    return means[labels] + np.einsum("nde,ne->nd", roots[labels], rng.normal(size=(n_samples, n_features))), labels


def three_clusters(n_samples=3000, seed=0):
    """Rows of three separate clusters in the plane."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, 2)) + 8.0 * np.array([[0, 0], [1, 0], [0, 1]])[np.arange(n_samples) % 3]


def badly_started(covariance_type="full"):
    """A start for `three_clusters` that EM cannot leave: two components in one cluster, and one for two clusters."""
    full = np.array([np.eye(2), np.eye(2), [[17.0, -16.0], [-16.0, 17.0]]])
    covariances = {"full": full, "tied": full.mean(axis=0), "diag": np.ones((3, 2)), "spherical": np.ones(3)}
    means = np.array([[-0.5, 0.0], [0.5, 0.0], [4.0, 4.0]])
    return MixtureParameters.create([1 / 6, 1 / 6, 2 / 3], means, covariances[covariance_type], covariance_type)


def fit_quietly(estimator, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*arguments, **options)


@functools.cache
def compiled(operation, naive):
    """Return a tile operation as a compiled function, called as kernels call it."""
    names = ", ".join(inspect.signature(naive).parameters)
    namespace = {"operation": operation}
    exec(f"def call({names}):\n    operation({names})", namespace)
    return numba.njit(namespace["call"])


def start_of(source, n_components, *, covariance_type="full", reg_covar=1e-6, **options):
    """Return the start of a maximum-likelihood fit, and the number of different clusters found."""
    return initial_parameters(source, n_components, MaximumLikelihood(covariance_type, reg_covar), **options)


def run_em(source, parameters, *, reg_covar=1e-6, tol=0.0, max_iter=100, accelerator=None, **keywords):
    """Run EM that maximises the likelihood."""
    objective = MaximumLikelihood(parameters.covariance_type, reg_covar)
    acceleration = None if accelerator is None else Acceleration(lambda n_rows, reg_covar: accelerator, False)
    return em.run(source, parameters, FitOptions(objective, tol, max_iter, acceleration=acceleration), **keywords)
