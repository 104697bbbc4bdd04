"""Gaussian mixtures on many-core CPUs: scikit-learn's estimators, an engine of its own.

`GaussianMixture` and `BayesianGaussianMixture` take the place of scikit-learn's. `StreamingGaussianMixture` learns from
rows that are seen once. `MixtureSearch` chooses a covariance model and a number of components, and `CriterionDisplay`
plots how they compare. `fastgmm.engine` has the parts, for library authors: passes over blocks of rows, sufficient
statistics that add, parameters from statistics; it does not need scikit-learn. `warmup` compiles everything once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fork_guard as fork_guard

if TYPE_CHECKING:
    from . import engine
    from .base import DegenerateComponentWarning
    from .bayesian_mixture import BayesianGaussianMixture
    from .bootstrap import bootstrap_likelihood_ratio, bootstrap_parameters
    from .combination import combine_components
    from .dask_mixture import DaskBayesianGaussianMixture, DaskGaussianMixture
    from .engine import IllDefinedCovarianceError, MixtureParameters, SufficientStatistics, warmup
    from .gaussian_mixture import GaussianMixture
    from .io import rows
    from .model_selection import MixtureSearch
    from .plotting import CriterionDisplay, EntropyDisplay
    from .priors import ConjugatePrior
    from .streaming import StreamingGaussianMixture

__version__ = "0.1.0"
__all__ = [
    "BayesianGaussianMixture",
    "ConjugatePrior",
    "CriterionDisplay",
    "DaskBayesianGaussianMixture",
    "DaskGaussianMixture",
    "DegenerateComponentWarning",
    "EntropyDisplay",
    "GaussianMixture",
    "IllDefinedCovarianceError",
    "MixtureParameters",
    "MixtureSearch",
    "StreamingGaussianMixture",
    "SufficientStatistics",
    "__version__",
    "bootstrap_likelihood_ratio",
    "bootstrap_parameters",
    "combine_components",
    "engine",
    "rows",
    "warmup",
]

# Imported when first used: the engine comes without scikit-learn, the estimators without waiting for it.
_HOMES = {
    "BayesianGaussianMixture": "bayesian_mixture",
    "ConjugatePrior": "priors",
    "CriterionDisplay": "plotting",
    "DaskBayesianGaussianMixture": "dask_mixture",
    "DaskGaussianMixture": "dask_mixture",
    "DegenerateComponentWarning": "base",
    "EntropyDisplay": "plotting",
    "GaussianMixture": "gaussian_mixture",
    "IllDefinedCovarianceError": "engine",
    "MixtureParameters": "engine",
    "MixtureSearch": "model_selection",
    "StreamingGaussianMixture": "streaming",
    "SufficientStatistics": "engine",
    "bootstrap_likelihood_ratio": "bootstrap",
    "bootstrap_parameters": "bootstrap",
    "combine_components": "combination",
    "engine": "",
    "rows": "io",
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
