"""Gaussian mixtures on many-core CPUs: scikit-learn's estimator, an engine of its own.

`GaussianMixture` takes the place of scikit-learn's. `fastgmm.engine` has the parts, for library authors: passes over
blocks of rows, sufficient statistics that add, parameters from statistics; it does not need scikit-learn. `warmup`
compiles everything once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fork_guard as fork_guard

if TYPE_CHECKING:
    from . import engine
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
    "engine",
    "warmup",
]

# Imported when first used: the engine comes without scikit-learn, the estimators without waiting for it.
_HOMES = {
    "DegenerateComponentWarning": "base",
    "GaussianMixture": "gaussian_mixture",
    "IllDefinedCovarianceError": "engine",
    "MixtureParameters": "engine",
    "SufficientStatistics": "engine",
    "engine": "",
    "warmup": "engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = _HOMES[name]
    value = getattr(import_module(f".{home}", __name__), name) if home else import_module(f".{name}", __name__)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
