"""Replicates of a bootstrap that are small enough to be fitted together in compiled code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.covariance import IllDefinedCovarianceError, get_model
from fastgmm.data.sources import ArraySource
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.fitting import sample_sizes
from fastgmm.fitting.many import ManyResults, RowParts, fit_from
from fastgmm.fitting.options import FitOptions
from fastgmm.fitting.starts import Starts
from fastgmm.initialization.registry import initial_parameters
from fastgmm.kernels import thread_limit
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from fastgmm.mixture.parameters import MixtureParameters

from .fit_many import has_plain_options

Array = NDArray[np.float64]
# Starts of replicates, `init_params`, that are made one by one from Python.
INIT_PARAMS = ("kmeans", "hc", "k-means++", "random", "random_from_data")


@dataclass(frozen=True)
class SmallReplicates:
    """Fits of replicates with the parameters of an estimator.

    Parameters
    ----------
    estimator : GaussianMixture
    n_rows, n_features : int
        The shape of each replicate.
    """

    estimator: GaussianMixture
    n_rows: int
    n_features: int

    def applies(self, n_components: int) -> bool:
        """Return whether replicates with this number of components are fitted together."""
        estimator = self.estimator
        if type(estimator) is not GaussianMixture or not has_plain_options(estimator, except_for=("init_params",)):
            return False
        if plain(estimator.init_params) not in INIT_PARAMS or plain(estimator.max_iter) == 0:
            return False
        if self.n_rows >= sample_sizes.ROWS:  # such fits look for their start in a sample
            return False
        model = get_model(plain(estimator.covariance_type))
        return kernels.is_small(model.layout, self.n_rows, n_components, self.n_features)

    def options(self) -> FitOptions:
        """Return the options of the fits."""
        estimator = self.estimator
        objective = MaximumLikelihood(plain(estimator.covariance_type), plain(estimator.reg_covar))
        limit = np.inf if estimator.limit_tol is None else plain(estimator.limit_tol)
        return FitOptions(objective, plain(estimator.tol), plain(estimator.max_iter), limit_tol=limit)

    def given_start(self, start: GaussianMixture) -> MixtureParameters:
        """Return the parameters that an estimator starts from, all of which the user has given."""
        n_components = plain(start.n_components)
        no_rows = ArraySource(np.empty((0, self.n_features)))
        parameters, _ = initial_parameters(
            no_rows,
            n_components,
            self.options().objective,
            weights=np.asarray(start.weights_init, dtype=np.float64),
            means=np.asarray(start.means_init, dtype=np.float64),
            precisions=np.asarray(start.precisions_init, dtype=np.float64),
        )
        return parameters

    def starts(
        self, X: NDArray[Any], n_components: int, init_params: str, seeds: list[int]
    ) -> list[MixtureParameters | None]:
        """Return a start for each replicate; None where a component collapses.

        Parameters
        ----------
        X : (B, n_rows, n_features)
        n_components : int
        init_params : str
        seeds : list of int
            Random states of the fits.
        """
        made: list[MixtureParameters | None] = []
        starts = Starts(n_components, self.options().objective, init_params)
        for rows, seed in zip(X, seeds, strict=True):
            draw = next(GaussianMixture(random_state=seed)._seeds())
            try:
                made.append(starts.make(ArraySource(rows), draw)[0])
            except IllDefinedCovarianceError:
                made.append(None)
        return made

    def ends(self, X: NDArray[Any], starts: list[MixtureParameters | None]) -> tuple[Array, Array]:
        """Return the last bound and the mean log-likelihood at the end of each fit, both (B,).

        Parameters
        ----------
        X : (B, n_rows, n_features)
        starts : list of MixtureParameters or None

        Returns
        -------
        bounds, ends : (B,) float64
            In nats per row; NaN where there is no start, or the fit must be made from Python.
        """
        bounds, ends = (np.full(len(X), np.nan) for _ in range(2))
        having = [p for p, start in enumerate(starts) if start is not None]
        if not having:
            return bounds, ends
        parts = np.array([[p * self.n_rows, (p + 1) * self.n_rows] for p in having])
        rows = RowParts(X.reshape(-1, self.n_features), None, parts)
        results, last = self._run(rows, [start for start in starts if start is not None])
        for i, p in enumerate(having):
            if not results.handed_over[i]:
                bounds[p], ends[p] = results.lower_bounds[i][-1], last[i]
        return bounds, ends

    def weighted(self, X: NDArray[Any], weights: Array, start: MixtureParameters) -> ManyResults:
        """Fit the same rows with other weights, (B, n_rows), each time from the same start."""
        n_replicates = len(weights)
        rows = RowParts(X, weights.reshape(-1), np.array([[0, len(X)]] * n_replicates))
        begins = np.arange(n_replicates) * len(X)
        return self._run(rows, [start] * n_replicates, begins)[0]

    def _run(
        self, rows: RowParts, starts: list[MixtureParameters], weight_begins: NDArray[np.int64] | None = None
    ) -> tuple[ManyResults, Array]:
        with thread_limit(self.estimator.n_jobs), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return fit_from(rows, starts, self.options(), weight_begins=weight_begins)
