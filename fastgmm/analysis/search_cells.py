"""Cells of a search: a covariance model, a number of components, their fit."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.data.sources import ArraySource
from fastgmm.estimators.base import DegenerateComponentWarning
from fastgmm.estimators.fitted import replicate_of
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.fitting.split_merge import add_component
from fastgmm.initialization.hierarchy import Hierarchy
from fastgmm.initialization.micro_clusters import start_from_hierarchy
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters

# Errors and warnings that exclude a cell from the choice. If only `reg_covar` keeps a component from collapsing, the
# likelihood depends on `reg_covar` alone.
FAILURES = (ValueError, np.linalg.LinAlgError, DegenerateComponentWarning)


class FitRows(NamedTuple):
    """Rows to fit, and the hierarchy that all fits start from."""

    source: ArraySource
    hierarchy: Hierarchy


class Fold(NamedTuple):
    """Rows to fit, and rows to score with their weights."""

    fitted: FitRows
    scored: NDArray[Any]
    weights: NDArray[np.float64] | None


# The fits of one model to the same rows, by number of components.
Chain = dict[int, MixtureParameters]


@dataclass
class Cell:
    """A covariance model with a number of components, and the result of its fit.

    `problem` is empty, or says why there is no result; then the criteria are NaN.
    """

    covariance_type: str
    n_components: int
    n_parameters: int = 0
    log_likelihood: float = math.nan
    bic: float = math.nan
    icl: float = math.nan
    aic: float = math.nan
    cv: float = math.nan
    converged: bool = False
    n_iter: int = 0
    seconds: float = 0.0
    problem: str = ""
    estimator: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class CellFitter:
    """Fits cells.

    Parameters
    ----------
    template : GaussianMixture
        All parameters of the fits except the start, the covariance model and the number of components.
    warm_starts : bool
        Whether to fit a cell also from the fit with one component less.
    n_jobs : int or None
        Number of threads.
    """

    template: GaussianMixture
    warm_starts: bool
    n_jobs: int | None

    def fill(self, cell: Cell, rows: FitRows, folds: list[Fold], chains: list[Chain]) -> None:
        """Fit a cell and compute its criteria.

        `chains` has one entry for all rows and one for each fold.
        """
        X, weights = rows.source.X, rows.source.sample_weight
        fitted = self.fit(cell, rows, chains[0])
        cell.estimator, cell.converged, cell.n_iter = fitted, fitted.converged_, fitted.n_iter_
        cell.n_parameters = get_model(cell.covariance_type).n_parameters(cell.n_components, X.shape[1])
        n = len(X) if weights is None else float(weights.sum())
        cell.bic, cell.icl = fitted.bic(X, weights), fitted.icl(X, weights)
        cell.log_likelihood = (cell.n_parameters * math.log(n) - cell.bic) / 2
        cell.aic = 2 * cell.n_parameters - 2 * cell.log_likelihood
        if folds:
            scores = [
                self.fit(cell, fold.fitted, chain).score(fold.scored, sample_weight=fold.weights)
                for fold, chain in zip(folds, chains[1:], strict=True)
            ]
            cell.cv = float(np.mean(scores))

    def fit(self, cell: Cell, rows: FitRows, chain: Chain) -> GaussianMixture:
        """Fit a cell from each start, and add the best fit to the chain.

        A second start gave a higher likelihood in 52 to 72 of at most 112 cells on eight data sets; see
        docs/development/decisions/estimators.md.
        """
        n_clusters = len(rows.hierarchy.weights)
        if cell.n_components > n_clusters:
            raise ValueError(
                f"There are only {n_clusters} different rows or clusters of rows, fewer than the {cell.n_components} "
                "components. Search among fewer components."
            )
        fits, problems = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("error", DegenerateComponentWarning)
            for make_start in (self._from_hierarchy, self._from_chain):
                try:
                    start = make_start(cell, rows, chain)
                    if start is not None:
                        options = {"n_components": cell.n_components, "covariance_type": cell.covariance_type}
                        estimator = replicate_of(self.template).set_params(n_jobs=self.n_jobs, **options, **start)
                        fits.append(estimator.fit(rows.source))
                except FAILURES as problem:
                    problems.append(problem)
        if not fits:
            raise problems[0]
        best: GaussianMixture = max(fits, key=lambda fit: fit.lower_bound_)
        chain[cell.n_components] = best._parameters()
        return best

    def _from_hierarchy(self, cell: Cell, rows: FitRows, chain: Chain) -> dict[str, Any] | None:
        """Return the start whose components are groups of the hierarchy."""
        model, reg_covar = get_model(cell.covariance_type), plain(self.template.reg_covar)
        start = start_from_hierarchy(rows.hierarchy, cell.n_components, model, reg_covar)
        return _start_options(model, start.weights, start.means, model.form.precisions_cholesky(start.covariances()))

    def _from_chain(self, cell: Cell, rows: FitRows, chain: Chain) -> dict[str, Any] | None:
        """Return a start that splits a component of the next smaller fit, if any."""
        smaller = chain.get(cell.n_components - 1)
        if smaller is None or not self.warm_starts:
            return None
        with thread_limit(self.n_jobs):
            start = add_component(rows.source, smaller, plain(self.template.reg_covar))
        if start is None:
            return None
        return _start_options(start.model, start.weights, start.means, start.precisions_cholesky)


def _start_options(
    model: CovarianceModel,
    weights: NDArray[np.float64],
    means: NDArray[np.float64],
    precisions_cholesky: NDArray[np.float64],
) -> dict[str, Any]:
    """Return a start as parameters of the estimator."""
    precisions = model.form.precisions(precisions_cholesky)
    return {"weights_init": weights / weights.sum(), "means_init": means, "precisions_init": precisions}
