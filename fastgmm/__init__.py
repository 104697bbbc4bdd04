"""Gaussian mixtures on many-core CPUs, with scikit-learn's interface.

`GaussianMixture` and `BayesianGaussianMixture` replace scikit-learn's estimators. `StreamingGaussianMixture` is fitted
to a stream of rows. `DaskGaussianMixture` is fitted to rows on a Dask cluster. `rows` reads rows from files that need
not fit into memory. `fit_many` fits one mixture to each of many sets of rows. `MixtureSearch` chooses a covariance
model and a number of components, and `CriterionDisplay` plots the comparison. `fastgmm.engine` has E-steps, sufficient
statistics and M-steps for library authors, and does not need scikit-learn. `warmup` compiles all kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _fork_guard as _fork_guard

if TYPE_CHECKING:
    from . import engine
    from .analysis.bootstrap import bootstrap_likelihood_ratio, bootstrap_parameters
    from .analysis.component_merging import combine_components
    from .analysis.fit_many import fit_many
    from .analysis.many_fits import ManyFits
    from .analysis.search import MixtureSearch
    from .data.rows import rows
    from .displays.criterion import CriterionDisplay
    from .displays.entropy import EntropyDisplay
    from .engine import IllDefinedCovarianceError, MixtureParameters, SufficientStatistics, warmup
    from .estimators.base import DegenerateComponentWarning
    from .estimators.bayesian_mixture import BayesianGaussianMixture
    from .estimators.dask_mixture import DaskBayesianGaussianMixture, DaskGaussianMixture
    from .estimators.gaussian_mixture import GaussianMixture
    from .estimators.streaming import StreamingGaussianMixture
    from .m_step.conjugate_prior import ConjugatePrior

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
    "ManyFits",
    "MixtureParameters",
    "MixtureSearch",
    "StreamingGaussianMixture",
    "SufficientStatistics",
    "__version__",
    "bootstrap_likelihood_ratio",
    "bootstrap_parameters",
    "combine_components",
    "engine",
    "fit_many",
    "rows",
    "warmup",
]

# Modules of the public names. Each is imported when it is first used, so that the engine does not need scikit-learn.
_HOMES = {
    "BayesianGaussianMixture": "estimators.bayesian_mixture",
    "ConjugatePrior": "m_step.conjugate_prior",
    "CriterionDisplay": "displays.criterion",
    "DaskBayesianGaussianMixture": "estimators.dask_mixture",
    "DaskGaussianMixture": "estimators.dask_mixture",
    "DegenerateComponentWarning": "estimators.base",
    "EntropyDisplay": "displays.entropy",
    "GaussianMixture": "estimators.gaussian_mixture",
    "IllDefinedCovarianceError": "engine",
    "ManyFits": "analysis.many_fits",
    "MixtureParameters": "engine",
    "MixtureSearch": "analysis.search",
    "StreamingGaussianMixture": "estimators.streaming",
    "SufficientStatistics": "engine",
    "bootstrap_likelihood_ratio": "analysis.bootstrap",
    "bootstrap_parameters": "analysis.bootstrap",
    "combine_components": "analysis.component_merging",
    "engine": "",
    "fit_many": "analysis.fit_many",
    "rows": "data.rows",
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
