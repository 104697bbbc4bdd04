"""What the mixture estimators share: validation, prediction, sampling, messages. Knows scikit-learn; the engine does
not.
"""

from __future__ import annotations

import abc
import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from . import engine
from .covariance import IllDefinedCovarianceError, get_model
from .em import EMResult
from .kernels import resolve_n_jobs, thread_limit
from .parameters import MixtureParameters
from .progress import Progress
from .sources import ArraySource
from .validation import check_enough_rows

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)
FLOAT32_HINT = " The numerical accuracy can also be improved by passing float64 data instead of float32."
NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)

INTERRUPTED = "The fit was interrupted; the estimator has the parameters so far, after"


class DegenerateComponentWarning(UserWarning):
    """A component of a fitted mixture is hardly one: without rows, or flat where the data as a whole are not.

    Flat: only ``reg_covar`` keeps its covariance positive definite. To silence it:
    ``warnings.simplefilter("ignore", fastgmm.DegenerateComponentWarning)``.
    """


@contextlib.contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Leave an estimator as it was if the block fails."""
    before = dict(estimator.__dict__)
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise


def best_of(model: object) -> object:
    """The best estimator of a fitted search, `MixtureSearch` or scikit-learn's; anything else as it is."""
    return getattr(model, "best_estimator_", model)


class BaseMixture(DensityMixin, BaseEstimator, abc.ABC):
    """Base of the mixture estimators: everything that follows from fitted parameters."""

    _parameter_constraints: ClassVar[dict] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions({"kmeans", "random", "random_from_data", "k-means++", "small_em", "hc"})],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
    }

    # Constructor parameters that are used here, and fitted attributes that hold the parameters, in the rows' dtype.
    n_components: int
    covariance_type: str
    max_iter: int
    warm_start: bool
    verbose: int
    verbose_interval: int
    n_jobs: int | None
    random_state: object
    reg_covar: float
    weights_: NDArray
    means_: NDArray
    covariances_: NDArray
    precisions_: NDArray
    precisions_cholesky_: NDArray

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Estimate the parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; data frames are accepted. float32 stays float32, everything else becomes float64.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts: 3 equals three copies, 0 equals absence.

        Returns
        -------
        self
            If the fit fails, the estimator stays as it was. If it is interrupted (Ctrl-C) after the first pass over all
            rows, it keeps the best parameters so far, with ``converged_ = False``; the KeyboardInterrupt goes on.
        """
        with unchanged_on_error(self):
            _, interrupted = self._fit(X, sample_weight)
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit, and predict the most probable component of each row. Parameters as for `fit`, result as of `predict`."""
        with unchanged_on_error(self):
            X, interrupted = self._fit(X, sample_weight)
            labels = np.empty(0, np.int64) if interrupted else engine.predict(self._parameters(), X, n_jobs=self.n_jobs)
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return labels

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[NDArray, bool]:
        """Fit and set the fitted attributes; returns the validated rows, and whether the fit was interrupted."""
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        resolve_n_jobs(self.n_jobs)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, X)
        # The kernels read either order in place; anything else would be copied at every pass.
        source = ArraySource(X if X.flags.f_contiguous else np.ascontiguousarray(X), weights)
        check_enough_rows(source, self.n_components)
        get_model(self.covariance_type).check_features(X.shape[1])
        with thread_limit(self.n_jobs):
            try:
                result = self._best_run(source)
            except IllDefinedCovarianceError as error:
                hint = FLOAT32_HINT if X.dtype == np.float32 else ""
                raise ValueError(f"{ILL_DEFINED}{hint} Here {error.describe()}.") from None
        self._set_fitted(result.parameters, result, X.dtype)
        if not (result.converged or result.stopped or result.interrupted) and self.max_iter > 0:
            self._warn_not_converged(result.last_change, self._unmet(result))
        self._warn_degenerate(result.parameters)
        return X, result.interrupted

    @abc.abstractmethod
    def _best_run(self, source: ArraySource) -> EMResult:
        """The best run from some starts; called with validated parameters, on the threads that are asked for."""

    def _unmet(self, result: EMResult) -> str:
        """What besides a small step has kept a run from converging, as sentences."""
        return ""

    def _warn_degenerate(self, parameters: MixtureParameters) -> None:
        """Warn of components that are hardly any."""

    def _set_fitted(self, parameters: MixtureParameters, result: EMResult, dtype: np.dtype) -> None:
        with np.errstate(over="ignore"):  # a precision may be beyond float32
            self.weights_ = parameters.weights.astype(dtype)
            self.means_ = parameters.means.astype(dtype)
            self.covariances_ = parameters.covariances.astype(dtype)
            self.precisions_cholesky_ = parameters.precisions_cholesky.astype(dtype)
            self.precisions_ = parameters.model.form.precisions(parameters.precisions_cholesky).astype(dtype)
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
        self.remaining_ = result.remaining

    def _seeds(self) -> Iterator[int]:
        """Seeds of starts."""
        random_state = check_random_state(self.random_state)
        return iter(lambda: int(random_state.randint(2**63 - 1, dtype=np.int64)), None)

    @contextlib.contextmanager
    def _progress(self, callback: Callable | None = None) -> Iterator[Progress]:
        """Who watches a fit; warns at the end if there were fewer different clusters than components."""
        progress = Progress(self.verbose, self.verbose_interval, self.n_components, callback)
        try:
            yield progress
        finally:
            if progress.fewest < self.n_components:
                warnings.warn(
                    f"Number of distinct clusters ({progress.fewest}) found smaller than n_clusters "
                    f"({self.n_components}). Possibly due to duplicate points in X.",
                    ConvergenceWarning,
                    stacklevel=6,
                )

    def _check_warm_start(self, X: NDArray) -> bool:
        """Whether a fit starts where the last one ended; ValueError if it cannot."""
        if not (self.warm_start and hasattr(self, "converged_")):
            return False
        expected = get_model(self.covariance_type).form.shape(self.n_components, X.shape[1])
        if self.means_.shape != (self.n_components, X.shape[1]) or self.covariances_.shape != expected:
            raise ValueError(
                f"warm_start=True continues the last fit, which has means of shape {self.means_.shape} and covariances "
                f"of shape {self.covariances_.shape}, but {self.n_components} components of type "
                f"{self.covariance_type!r} with {X.shape[1]} features are asked for. Set warm_start=False to start "
                "anew."
            )
        return True

    def score_samples(self, X: ArrayLike) -> NDArray:
        """Log-likelihood of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            In nats; float32 if rows and model are.
        """
        return engine.score_samples(self._parameters(), self._rows(X), n_jobs=self.n_jobs)

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log-likelihood of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        log_likelihood : float
            In nats per row; for float32 rows without weights rounded to float32, as scikit-learn's is.
        """
        if sample_weight is None:
            return float(self.score_samples(X).mean())
        X = self._rows(X)
        weights = self._sample_weight(sample_weight, X)
        assert weights is not None
        return self._log_likelihood(X, weights) / float(weights.sum())

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """The most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
        """
        return engine.predict(self._parameters(), self._rows(X), n_jobs=self.n_jobs)

    def predict_proba(self, X: ArrayLike) -> NDArray:
        """Responsibilities: the probability of each component given each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        resp : ndarray of shape (n_samples, n_components)
            float32 if rows and model are.
        """
        return engine.predict_proba(self._parameters(), self._rows(X), n_jobs=self.n_jobs)

    def sample(self, n_samples: int = 1) -> tuple[NDArray, NDArray[np.int64]]:
        """Draw rows from the fitted mixture, with the random numbers that scikit-learn would use.

        Parameters
        ----------
        n_samples : int, default=1

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float64
            Component after component.
        y : ndarray of shape (n_samples,), int64
            The component of each row.
        """
        parameters = self._parameters()
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        rng = check_random_state(self.random_state)
        # The weights' sum may have been rounded above 1, in float32 by so much that `multinomial` refuses them.
        counts = rng.multinomial(n_samples, parameters.weights / parameters.weights.sum())
        X = parameters.model.form.sample(rng, parameters.means, parameters.covariances, counts)
        return X, np.repeat(np.arange(len(counts)), counts)

    def _parameters(self) -> MixtureParameters:
        """The fitted parameters, as the engine takes them."""
        check_is_fitted(self)
        return MixtureParameters(
            np.asarray(self.weights_, dtype=np.float64),
            np.asarray(self.means_, dtype=np.float64),
            np.asarray(self.covariances_, dtype=np.float64),
            np.asarray(self.precisions_cholesky_, dtype=np.float64),
            self.covariance_type,
        )

    def _log_likelihood(self, X: NDArray, weights: NDArray[np.float64] | None) -> float:
        """The sum of the rows' log-likelihoods, in float64 whatever their dtype."""
        return weighted_sum(engine.score_samples(self._parameters(), X, n_jobs=self.n_jobs), weights)

    def _rows(self, X: ArrayLike) -> NDArray:
        """Rows to predict, validated, in the dtype that a product with the parameters would have."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        single = np.result_type(X.dtype, self.means_.dtype) == np.float32
        return X.astype(np.float32 if single else np.float64, copy=False)

    def _sample_weight(self, sample_weight: ArrayLike | None, X: NDArray) -> NDArray[np.float64] | None:
        """Weights, validated; None for none."""
        if sample_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weights

    def _warn_not_converged(self, last_change: float, unmet: str = "") -> None:
        message = NOT_CONVERGED + unmet
        if last_change < 0:
            message += (
                f" In its last iteration the mean log-likelihood fell, by {-last_change:.3g}: reg_covar="
                f"{self.reg_covar:g} may be large for data of this scale."
            )
        elif math.isnan(last_change):
            message += " Its log-likelihood is not a finite number."
        warnings.warn(message, ConvergenceWarning, stacklevel=4)


def weighted_sum(values: NDArray, weights: NDArray[np.float64] | None) -> float:
    """The sum of the rows' values times their weights, in float64; a row of weight 0 adds 0 even if it has -inf."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values[weights > 0] * weights[weights > 0]).sum())
