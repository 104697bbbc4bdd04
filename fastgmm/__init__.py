"""Gaussian mixtures on many-core CPUs: scikit-learn's estimator, an engine of its own.

`GaussianMixture` takes the place of scikit-learn's. `fastgmm.engine` has the parts, for library authors: passes over
blocks of rows, sufficient statistics that add, parameters from statistics; it does not need scikit-learn. `warmup`
compiles everything once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import DegenerateComponentWarning
    from .engine import IllDefinedCovarianceError, MixtureParameters, SufficientStatistics, warmup
    from .gaussian_mixture import GaussianMixture

__version__ = "0.1.0"
__all__ = [
    "DegenerateComponentWarning",
    "GaussianMixture",
    "IllDefinedCovarianceError",
    "MixtureParameters",
    "SufficientStatistics",
    "__version__",
    "warmup",
]

# Imported when first used: the engine comes without scikit-learn, the estimators without waiting for it.
_HOMES = {
    "DegenerateComponentWarning": "base",
    "GaussianMixture": "gaussian_mixture",
    "IllDefinedCovarianceError": "engine",
    "MixtureParameters": "engine",
    "SufficientStatistics": "engine",
    "warmup": "engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
