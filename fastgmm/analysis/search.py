"""`MixtureSearch`: choice of a covariance model and a number of components."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import fields, replace
from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import BaseCrossValidator, KFold, check_cv
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed

from fastgmm.covariance import COVARIANCE_TYPES, MCLUST_MODELS, get_model
from fastgmm.data.conversion import validate_data
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.estimators.annotations import RandomState
from fastgmm.estimators.fitted import unchanged_on_error
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.initialization.micro_clusters import build_hierarchy
from fastgmm.initialization.samples import total_scatter
from fastgmm.mixture.statistics import features_depend

from .best_estimator import BestEstimator
from .search_cells import FAILURES, Cell, CellFitter, Chain, FitRows, Fold

START_PARAMETERS = ("weights_init", "means_init", "precisions_init", "resp_init")
# Whether a higher value of the criterion is better.
CRITERIA = {"bic": False, "icl": False, "aic": False, "cv": True}


class MixtureSearch(BestEstimator):
    """Fit several covariance models and numbers of components, and keep the best fit.

    It does what R's `Mclust` does [1]_. A cell is one covariance model with one number of components. All cells start
    from one hierarchy of rows or micro-clusters, which is cut into as many groups as there are components, so a start
    does not read the rows again. If the same model was fitted with one component less, a second fit starts from that
    fit, and the better one is kept.

    A cell that fails, or has a collapsed component, is excluded from the choice; its `problem` in `results_` says why.
    Models with correlations are excluded, with a warning, where their likelihood depends on `reg_covar` alone: if there
    are no more rows than features (as in mclust), or if features depend linearly on each other and the search also
    includes models without correlations. An estimator with a prior has no such exclusions.

    Parameters
    ----------
    n_components : int or iterable of int, default=range(1, 10)
        Numbers of components to try.
    covariance_types : str or iterable of str, default=None
        Covariance models to try; see `GaussianMixture`. None is mclust's fourteen models, or "E" and "V" for a single
        feature.
    criterion : {"bic", "icl", "aic", "cv"}, default="bic"
        Criterion of the choice. The lowest "bic", "icl" or "aic" is best, with the sign of `GaussianMixture.bic`;
        mclust's BIC has the opposite sign. For "cv" the highest mean log-density of held-out rows is best.
    estimator : GaussianMixture, default=None
        All other parameters of the fits: `tol`, `max_iter`, `reg_covar`, `acceleration`, `n_moves`, `prior`, `n_jobs`.
        Its parameters of the start (`init_params`, `n_init`, `means_init` ...), `checkpoint` and `callback` are not
        used. None is ``GaussianMixture()``.
    cv : int, cross-validation generator or iterable, default=5
        For "cv": the number of folds, of rows in random order, or a splitter.
    patience : int, default=None
        Stop a model after this number of consecutive numbers of components that were worse than its best so far. None
        tries all.
    random_state : int, RandomState instance or None, default=None
        Seed of the hierarchy and of the folds.
    verbose : int, default=0
        1 prints a line for each cell.
    n_processes : int, default=None
        Number of processes that fit models in parallel, each with one thread (joblib's; -1 is all cores). It is faster
        for few rows and many fits. None fits one model after the other, with the threads of the estimator.
    warm_starts : bool, default=True
        Fit each cell also from its model's fit with one component less, in which one component is split. That number
        must come before in `n_components`. No likelihood is lower with warm starts. Without them a search takes about
        0.6 times as long.

    Attributes
    ----------
    best_estimator_ : GaussianMixture
        The best fit, to all rows. Prediction methods of the search are its own.
    best_params_ : dict
        The `covariance_type` and `n_components` of the best fit.
    best_score_ : float
        The criterion of the best fit.
    results_ : dict of ndarrays
        One entry per cell, ``pandas.DataFrame(search.results_)``, with the keys "covariance_type", "n_components",
        "n_parameters", "log_likelihood", "bic", "icl", "aic", "cv", "converged", "n_iter", "seconds" and "problem".
        Criteria of cells that failed are NaN, and "problem" says why. "n_iter" is that of the fit that was kept,
        "seconds" is the time of all fits of the cell.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all are strings.

    See Also
    --------
    CriterionDisplay : Picture of the criterion.
    bootstrap_likelihood_ratio : Test of the number of components.
    combine_components : Clusters that consist of several components.

    References
    ----------
    .. [1] C. Fraley and A. E. Raftery (2002). Model-based clustering, discriminant analysis, and density estimation.
       Journal of the American Statistical Association 97.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgmm import MixtureSearch
    >>> search = MixtureSearch(range(1, 5), covariance_types=["EEE", "VEV", "VVV"], random_state=0)
    >>> search.fit(load_iris().data).best_params_
    {'covariance_type': 'VEV', 'n_components': 2}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), "array-like", Iterable],
        "covariance_types": [Iterable, None],
        "criterion": [StrOptions(set(CRITERIA))],
        "estimator": [GaussianMixture, None],
        "cv": ["cv_object"],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "n_processes": [Integral, None],
        "warm_starts": ["boolean"],
    }

    def __init__(
        self,
        n_components: int | Iterable[int] = range(1, 10),
        *,
        covariance_types: str | Iterable[str] | None = None,
        criterion: Literal["bic", "icl", "aic", "cv"] = "bic",
        estimator: GaussianMixture | None = None,
        cv: int | BaseCrossValidator | Iterable[tuple[ArrayLike, ArrayLike]] = 5,
        patience: int | None = None,
        random_state: RandomState = None,
        verbose: int = 0,
        n_processes: int | None = None,
        warm_starts: bool = True,
    ) -> None:
        self.n_components = n_components
        self.covariance_types = covariance_types
        self.criterion = criterion
        self.estimator = estimator
        self.cv = cv
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose
        self.n_processes = n_processes
        self.warm_starts = warm_starts

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit all cells and keep the best.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to fit.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self
            The fitted search.

        Raises
        ------
        ValueError
            If a parameter is invalid, if rows or weights are not finite, or if no cell can be fitted. The search does
            not change.

        Warns
        -----
        UserWarning
            If models with correlations are excluded.
        """
        with unchanged_on_error(self):
            return self._search(X, sample_weight)

    def _search(self, X: ArrayLike, sample_weight: ArrayLike | None) -> Self:
        """Do the work of `fit`; if it fails, it may leave attributes that are not valid."""
        self._validate_params()
        self._template()._validate_params()
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2, order="C")
        weights = self._template()._sample_weight(sample_weight, rows)
        numbers, types = self._numbers(), self._types(rows.shape[1])
        stream = RandomStream(int(check_random_state(self.random_state).randint(2**63 - 1, dtype=np.int64)))
        folds = self._folds(rows, weights, max(numbers), stream) if self.criterion == "cv" else []
        all_rows = self._fit_rows(rows, weights, max(numbers), stream)
        excluded, reason = self._excluded(types, [all_rows, *(fold.fitted for fold in folds)])
        if excluded:
            warnings.warn(f"Left out {', '.join(excluded)}: {reason}.", stacklevel=3)
        types = [name for name in types if name not in excluded]
        tasks = (delayed(self._cells_of)(name, numbers, all_rows, folds) for name in types)
        n_processes = 1 if self.n_processes is None else plain(self.n_processes)
        cells: list[Cell] = [cell for of_model in Parallel(n_processes)(tasks) for cell in of_model]
        cells += [Cell(name, n_components, problem=reason) for name in excluded for n_components in numbers]
        best = min(cells, key=self._cost)
        if not math.isfinite(self._cost(best)):
            raise ValueError(
                f"None of {len(cells)} mixtures could be fitted. {cells[0].covariance_type} with "
                f"{cells[0].n_components} components: {cells[0].problem}"
            )
        names = [f.name for f in fields(Cell) if f.name != "estimator"]
        self.results_ = {name: np.array([getattr(cell, name) for cell in cells]) for name in names}
        self.best_estimator_: GaussianMixture = best.estimator.set_params(**dict.fromkeys(START_PARAMETERS))
        if hasattr(self, "feature_names_in_"):
            self.best_estimator_.feature_names_in_ = self.feature_names_in_
        self.best_params_ = {"covariance_type": best.covariance_type, "n_components": best.n_components}
        self.best_score_: float = getattr(best, self.criterion)
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit all cells and predict with the best.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to fit and to label.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Components of the best fit, numbered from 0.

        Raises
        ------
        ValueError
            See `fit`.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def _numbers(self) -> list[int]:
        """Return the numbers of components, validated and without duplicates."""
        numbers = plain(self.n_components)
        numbers = [numbers] if isinstance(numbers, Integral) else list(numbers)
        if not numbers or not all(isinstance(n, Integral) and int(n) >= 1 for n in numbers):
            raise ValueError(
                f"n_components must be an integer above 0, or at least one such integer, got {self.n_components!r}."
            )
        return list(dict.fromkeys(int(n) for n in numbers))

    def _types(self, n_features: int) -> list[str]:
        """Return the names of the covariance models, validated and without duplicates."""
        types = self.covariance_types
        if types is None:
            return ["E", "V"] if n_features == 1 else list(MCLUST_MODELS)
        types = [types] if isinstance(types, str) else list(types)
        unknown = [name for name in types if name not in COVARIANCE_TYPES]
        if unknown or not types:
            raise ValueError(f"covariance_types must be among {', '.join(COVARIANCE_TYPES)}, got {types}.")
        return [plain(name) for name in dict.fromkeys(types)]

    def _excluded(self, types: list[str], fitted: list[FitRows]) -> tuple[list[str], str]:
        """Return the models whose likelihood depends on `reg_covar`, and the reason.

        With no more rows than features, matrices are singular for any components; mclust tries none then. If features
        depend on each other, matrices are singular in the same directions. Models with matrices can then be compared
        with each other, but not with other models. A prior makes all of them proper.
        """
        matrices = [name for name in types if get_model(name).form.has_matrices]
        if self._template().prior is not None or not matrices:
            return [], ""
        n_features = fitted[0].source.n_features
        n_rows = min(rows.source.n_weighted for rows in fitted)
        if n_rows <= n_features > 1:
            return matrices, (
                f"models with correlations need more rows than features, but a fit has {n_rows} rows of {n_features} "
                "features (use an estimator with a prior to try them)"
            )
        if len(matrices) < len(types) and features_depend(total_scatter(fitted[0].source), fitted[0].source.dtype):
            return matrices, (
                "features depend on each other, so the likelihood of models with correlations depends on reg_covar "
                "alone (drop features, use an estimator with a prior, or search only among models with correlations)"
            )
        return [], ""

    def _cost(self, cell: Cell) -> float:
        """Return a number that is lower for better cells, infinite for failed ones."""
        value: float = getattr(cell, self.criterion)
        return math.inf if math.isnan(value) else (-value if CRITERIA[self.criterion] else value)

    def _template(self) -> GaussianMixture:
        return GaussianMixture() if self.estimator is None else self.estimator

    def _fit_rows(
        self, X: NDArray[Any], weights: NDArray[np.float64] | None, n_components: int, stream: RandomStream
    ) -> FitRows:
        """Return rows to fit, with their hierarchy."""
        n_components = min(n_components, len(X))
        source = ArraySource(X, weights)
        if any(get_model(name).form.is_shared for name in self._types(X.shape[1])):
            source = replace(source, earlier_pass=total_scatter(source))
        return FitRows(source, build_hierarchy(source, n_components, stream, plain(self._template().reg_covar)))

    def _folds(
        self, X: NDArray[Any], weights: NDArray[np.float64] | None, n_components: int, stream: RandomStream
    ) -> list[Fold]:
        """Return the folds of a cross-validation."""
        splitter = (
            KFold(int(self.cv), shuffle=True, random_state=stream.word() % 2**32)
            if isinstance(self.cv, Integral)
            else self.cv
        )
        folds = []
        for fitted, scored in check_cv(splitter).split(X):
            w, v = (None, None) if weights is None else (weights[fitted], weights[scored])
            folds.append(Fold(self._fit_rows(X[fitted], w, n_components, stream), X[scored], v))
        return folds

    def _cells_of(self, name: str, numbers: list[int], rows: FitRows, folds: list[Fold]) -> list[Cell]:
        """Fit the cells of one model, until `patience` stops it."""
        n_jobs = self._template().n_jobs if self.n_processes is None else 1
        fitter = CellFitter(self._template(), self.warm_starts, n_jobs)
        lowest, n_worse = math.inf, 0
        cells = []
        chains: list[Chain] = [{} for _ in range(1 + len(folds))]
        for n_components in numbers:
            cell = Cell(name, n_components)
            begin = time.perf_counter()
            try:
                fitter.fill(cell, rows, folds, chains)
            except FAILURES as error:
                cell.problem = str(error)
            cell.seconds = time.perf_counter() - begin
            cells.append(cell)
            if self.verbose:
                print(f"  {name} {n_components}: {cell.problem or getattr(cell, self.criterion)}", flush=True)
            n_worse = 0 if self._cost(cell) < lowest else n_worse + 1
            lowest = min(lowest, self._cost(cell))
            if self.patience is not None and n_worse >= self.patience:
                break
        return cells
