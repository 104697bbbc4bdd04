"""`MixtureSearch`: which covariance model, and how many components."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from fastgmm.covariance import COVARIANCE_TYPES, MCLUST_MODELS, CovarianceModel, get_model
from fastgmm.data.conversion import validate_data
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.estimators.base import DegenerateComponentWarning
from fastgmm.estimators.fitted import replicate_of, unchanged_on_error
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.fitting.split_merge import add_component
from fastgmm.initialization.hierarchy import Hierarchy
from fastgmm.initialization.micro_clusters import micro_clusters, start_from_hierarchy
from fastgmm.initialization.samples import total_scatter
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import features_depend

GIVEN = ("weights_init", "means_init", "precisions_init", "resp_init")
# Whether more is better.
CRITERIA = {"bic": False, "icl": False, "aic": False, "cv": True}
# Why a fit has no result. The likelihood of a component that only `reg_covar` keeps from collapsing says nothing.
FAILURES = (ValueError, np.linalg.LinAlgError, DegenerateComponentWarning)


class Rows(NamedTuple):
    """Rows to fit, with their total scatter if a model reads that alone, and the hierarchy that fits start from."""

    source: ArraySource
    joined: Hierarchy


# Where a model's fits to the same rows have ended, by their number of components.
Chain = dict[int, MixtureParameters]


@dataclass
class Cell:
    """One model with one number of components: what became of it. A cell that failed says why in `problem`."""

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


class MixtureSearch(DensityMixin, BaseEstimator):
    """Fit mixtures of several covariance models and numbers of components, and keep the best by a criterion.

    What R's `Mclust` does. All fits start from one hierarchy of micro-clusters, cut where there are as many groups as
    components, so a start costs no pass over the rows; where the same model has been fitted with one component less,
    a second fit starts from that, and the better is kept. A fit that fails, or in which a component has collapsed,
    takes no part in the choice, and its `problem` in `results_` says why. Models with correlations are left out, with a
    warning, where they have no likelihood of their own: with no more rows than features, as in mclust, and beside
    models without correlations where features depend on each other; unless the estimator has a prior.

    Parameters
    ----------
    n_components : int or iterable of int, default=range(1, 10)
        Numbers of components to try.
    covariance_types : iterable of str, default=None
        Models to try; see `GaussianMixture`. None is mclust's fourteen, or "E" and "V" for a single feature.
    criterion : {"bic", "icl", "aic", "cv"}, default="bic"
        What the best has the lowest of; with "cv" the highest mean log-likelihood of rows that were left out. (The
        signs of `GaussianMixture.bic` and `score`; mclust's BIC is the negative.)
    estimator : GaussianMixture, default=None
        Everything else about the fits: `tol`, `max_iter`, `reg_covar`, `acceleration`, `n_moves`, `prior`, `n_jobs`.
        What it says of starts (`init_params`, `n_init`, what is given), `checkpoint` and `callback` are not used.
    cv : int or cross-validation generator, default=5
        For "cv": a number of folds, of rows in random order, or a splitter.
    patience : int, default=None
        Leave a model after so many numbers of components in a row that were worse than its best so far. None tries
        all.
    random_state : int, RandomState instance or None, default=None
        Seeds the hierarchy and the folds.
    verbose : int, default=0
        1 prints a line for each model and number of components.
    n_processes : int, default=None
        Processes in which models are fitted side by side, each with one thread (joblib's; -1 for all cores): for few
        rows and many fits. None fits one after the other, each on the estimator's threads.
    warm_starts : bool, default=True
        Fit each cell from its model's fit with one component less as well, of which one is cut in two; that one must
        come before it in `n_components`. No `lower_bound_` is lower for it. False takes about 0.6 times as long.

    Attributes
    ----------
    best_estimator_ : GaussianMixture
        The best fit; with "cv" fitted to all rows. Prediction methods are its.
    best_params_ : dict
        Its `covariance_type` and `n_components`.
    best_score_ : float
        Its criterion.
    results_ : dict of ndarrays
        A line for each cell that was tried: ``pandas.DataFrame(search.results_)``. Criteria of cells that failed are
        NaN, and `problem` says why. `n_iter` is of the fit that was kept, `seconds` are of all of a cell's.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if the rows had feature names that are all strings.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgmm import MixtureSearch
    >>> search = MixtureSearch(range(1, 5), covariance_types=["EEE", "VEV", "VVV"], random_state=0)
    >>> search.fit(load_iris().data).best_params_
    {'covariance_type': 'VEV', 'n_components': 2}
    """

    _parameter_constraints: ClassVar[dict] = {
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
        n_components=range(1, 10),
        *,
        covariance_types=None,
        criterion="bic",
        estimator=None,
        cv=5,
        patience=None,
        random_state=None,
        verbose=0,
        n_processes=None,
        warm_starts=True,
    ):
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
        """Fit all, and keep the best.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If no cell can be fitted; it says what became of the first. The search then stays as it was.
        """
        with unchanged_on_error(self):
            return self._search(X, sample_weight)

    def _search(self, X: ArrayLike, sample_weight: ArrayLike | None) -> Self:
        """`fit`, which may leave attributes behind where it fails."""
        self._validate_params()
        self._template()._validate_params()
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2, order="C")
        weights = self._template()._sample_weight(sample_weight, X)
        numbers, types = self._numbers(), self._types(X.shape[1])
        stream = RandomStream(int(check_random_state(self.random_state).randint(2**63 - 1, dtype=np.int64)))
        folds = self._folds(X, weights, max(numbers), stream) if self.criterion == "cv" else []
        rows = self._rows(X, weights, max(numbers), stream)
        left_out, why = self._undefined(types, [rows, *(some for some, _, _ in folds)])
        if left_out:
            warnings.warn(f"Left out {', '.join(left_out)}: {why}.", stacklevel=3)
        types = [name for name in types if name not in left_out]
        tasks = (delayed(self._cells_of)(name, numbers, rows, folds) for name in types)
        n_processes = 1 if self.n_processes is None else plain(self.n_processes)
        cells = [cell for found in Parallel(n_processes)(tasks) for cell in found]
        cells += [Cell(name, n_components, problem=why) for name in left_out for n_components in numbers]
        best = min(cells, key=self._cost)
        if not math.isfinite(self._cost(best)):
            raise ValueError(
                f"None of {len(cells)} mixtures could be fitted. {cells[0].covariance_type} with "
                f"{cells[0].n_components} components: {cells[0].problem}"
            )
        names = [f.name for f in fields(Cell) if f.name != "estimator"]
        self.results_ = {name: np.array([getattr(cell, name) for cell in cells]) for name in names}
        self.best_estimator_ = best.estimator.set_params(**dict.fromkeys(GIVEN))
        if hasattr(self, "feature_names_in_"):
            self.best_estimator_.feature_names_in_ = self.feature_names_in_
        self.best_params_ = {"covariance_type": best.covariance_type, "n_components": best.n_components}
        self.best_score_ = getattr(best, self.criterion)
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit all, and predict with the best."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """The best estimator's `predict`."""
        return self._best().predict(X)

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """The best estimator's `predict_proba`."""
        return self._best().predict_proba(X)

    def score_samples(self, X: ArrayLike) -> NDArray:
        """The best estimator's `score_samples`."""
        return self._best().score_samples(X)

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """The best estimator's `score`."""
        return self._best().score(X, y, sample_weight)

    def _best(self) -> GaussianMixture:
        check_is_fitted(self)
        return self.best_estimator_

    def _numbers(self) -> list[int]:
        given = plain(self.n_components)
        numbers = [given] if isinstance(given, Integral) else list(given)
        if not numbers or not all(isinstance(n, Integral) and int(n) >= 1 for n in numbers):
            raise ValueError(f"n_components should be whole numbers above 0, at least one, but are {given!r}")
        return list(dict.fromkeys(int(n) for n in numbers))

    def _undefined(self, types: list[str], fitted: list[Rows]) -> tuple[list[str], str]:
        """Return the models whose likelihood only `reg_covar` keeps finite, and why that is.

        With no more rows than features, matrices are singular whatever the components; mclust tries none then. Where
        features depend on each other, they are singular in the same directions, so that models with matrices compare
        with each other, but not with models without. A prior makes all of them proper.
        """
        matrices = [name for name in types if get_model(name).form.has_matrices]
        if self._template().prior is not None or not matrices:
            return [], ""
        n_features = fitted[0].source.n_features
        n_rows = min(rows.source.n_weighted for rows in fitted)
        if n_rows <= n_features > 1:
            return matrices, (
                f"models with correlations need more rows than features, but a fit has {n_rows} rows of {n_features} "
                "features (with a prior they can be tried)"
            )
        if len(matrices) < len(types) and features_depend(total_scatter(fitted[0].source), fitted[0].source.dtype):
            return matrices, (
                "features depend on each other, so the likelihood of models with correlations is what reg_covar makes "
                "of it (drop features, use a prior, or search among models with correlations alone)"
            )
        return [], ""

    def _types(self, n_features: int) -> list[str]:
        types = self.covariance_types
        if types is None:
            return ["E", "V"] if n_features == 1 else list(MCLUST_MODELS)
        types = [types] if isinstance(types, str) else list(types)
        unknown = [name for name in types if name not in COVARIANCE_TYPES]
        if unknown or not types:
            raise ValueError(f"covariance_types should be among {', '.join(COVARIANCE_TYPES)}, but are {types}")
        return [plain(name) for name in dict.fromkeys(types)]

    def _cost(self, cell: Cell) -> float:
        """The criterion, lower for better, infinite for a cell that failed."""
        value = getattr(cell, self.criterion)
        return math.inf if math.isnan(value) else (-value if CRITERIA[self.criterion] else value)

    def _template(self) -> GaussianMixture:
        return GaussianMixture() if self.estimator is None else self.estimator

    def _rows(self, X: NDArray, weights: NDArray | None, n_components: int, stream: RandomStream) -> Rows:
        n_components = min(n_components, len(X))
        source = ArraySource(X, weights)
        if any(get_model(name).form.is_shared for name in self._types(X.shape[1])):
            source = replace(source, earlier_pass=total_scatter(source))
        return Rows(source, micro_clusters(source, n_components, stream, plain(self._template().reg_covar)))

    def _folds(self, X: NDArray, weights: NDArray | None, n_components: int, stream: RandomStream) -> list[tuple]:
        """Rows to fit, and rows to score with their weights, for each fold."""
        shuffled = (
            KFold(int(self.cv), shuffle=True, random_state=stream.word() % 2**32)
            if isinstance(self.cv, Integral)
            else self.cv
        )
        folds = []
        for rows, others in check_cv(shuffled).split(X):
            w, v = (None, None) if weights is None else (weights[rows], weights[others])
            folds.append((self._rows(X[rows], w, n_components, stream), X[others], v))
        return folds

    def _cells_of(self, name: str, numbers: list[int], rows: Rows, folds: list[tuple]) -> list[Cell]:
        """The cells of one model, until the criterion has been worse for too long."""
        lowest, worse = math.inf, 0
        cells = []
        chains: list[Chain] = [{} for _ in range(1 + len(folds))]
        for n_components in numbers:
            cell = Cell(name, n_components)
            begun = time.perf_counter()
            try:
                self._fill(cell, rows, folds, chains)
            except FAILURES as error:
                cell.problem = str(error)
            cell.seconds = time.perf_counter() - begun
            cells.append(cell)
            if self.verbose:
                print(f"  {name} {n_components}: {cell.problem or getattr(cell, self.criterion)}", flush=True)
            worse = 0 if self._cost(cell) < lowest else worse + 1
            lowest = min(lowest, self._cost(cell))
            if self.patience is not None and worse >= self.patience:
                break
        return cells

    def _fill(self, cell: Cell, rows: Rows, folds: list[tuple], chains: list[Chain]) -> None:
        """Fit a cell, and everything about it."""
        X, weights = rows.source.X, rows.source.sample_weight
        fitted = self._fit(cell, rows, chains[0])
        cell.estimator, cell.converged, cell.n_iter = fitted, fitted.converged_, fitted.n_iter_
        cell.n_parameters = get_model(cell.covariance_type).n_parameters(cell.n_components, X.shape[1])
        n = len(X) if weights is None else float(weights.sum())
        cell.bic, cell.icl = fitted.bic(X, weights), fitted.icl(X, weights)
        cell.log_likelihood = (cell.n_parameters * math.log(n) - cell.bic) / 2
        cell.aic = 2 * cell.n_parameters - 2 * cell.log_likelihood
        if folds:
            scores = [
                self._fit(cell, some, chain).score(others, sample_weight=v)
                for (some, others, v), chain in zip(folds, chains[1:], strict=True)
            ]
            cell.cv = float(np.mean(scores))

    def _fit(self, cell: Cell, rows: Rows, chain: Chain) -> GaussianMixture:
        """A cell's fit to some rows: the higher of its starts' ends, which joins the chain.

        On eight data sets (150 to 20,000 rows, 14 models x 1 to 9 components; tol 1e-5, of the two with 13 and 30
        features 1e-3) the second start ended higher in 52 to 72 cells of at most 112, saved 13 of 34 that had failed,
        and led to a lower best BIC on four; a search took 0.9 to 1.9 times as long. To run only the one that is ahead
        after five steps takes 1.1 to 1.9 times, but of 112 likelihoods of four principal components of the breast
        cancer data 41 were lower then than without it, and the best BIC was missed by 11.
        """
        if cell.n_components > len(rows.joined.weights):
            raise ValueError(
                f"There are only {len(rows.joined.weights)} different rows or clusters of rows, and "
                f"{cell.n_components} components are asked for."
            )
        n_jobs = self._template().n_jobs if self.n_processes is None else 1
        ends, problems = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("error", DegenerateComponentWarning)
            for start in (self._from_hierarchy, self._from_chain):
                try:
                    given = start(cell, rows, chain, n_jobs)
                    if given is not None:
                        options = {"n_components": cell.n_components, "covariance_type": cell.covariance_type}
                        estimator = replicate_of(self._template()).set_params(n_jobs=n_jobs, **options, **given)
                        ends.append(estimator.fit(rows.source))
                except FAILURES as problem:
                    problems.append(problem)
        if not ends:
            raise problems[0]
        best = max(ends, key=lambda end: end.lower_bound_)
        chain[cell.n_components] = best._parameters()
        return best

    def _from_hierarchy(self, cell: Cell, rows: Rows, chain: Chain, n_jobs: int | None) -> dict[str, Any]:
        """The start of groups of micro-clusters."""
        model, reg_covar = get_model(cell.covariance_type), plain(self._template().reg_covar)
        start = start_from_hierarchy(rows.joined, cell.n_components, model, reg_covar)
        return _given(model, start.weights, start.means, model.form.precisions_cholesky(start.covariances()))

    def _from_chain(self, cell: Cell, rows: Rows, chain: Chain, n_jobs: int | None) -> dict[str, Any] | None:
        """The start of the fit with one component less; None if there is none."""
        before = chain.get(cell.n_components - 1)
        if before is None or not self.warm_starts:
            return None
        with thread_limit(n_jobs):
            start = add_component(rows.source, before, plain(self._template().reg_covar))
        if start is None:
            return None
        return _given(start.model, start.weights, start.means, start.precisions_cholesky)


def _given(model: CovarianceModel, weights: NDArray, means: NDArray, precisions_cholesky: NDArray) -> dict[str, Any]:
    """A start as an estimator's parameters."""
    precisions = model.form.precisions(precisions_cholesky)
    return {"weights_init": weights / weights.sum(), "means_init": means, "precisions_init": precisions}
