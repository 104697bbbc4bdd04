"""What the mixture estimators share: validation, prediction, sampling, messages. Knows scikit-learn; the engine does
not.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from . import engine
from .em import EMResult
from .parameters import MixtureParameters

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


class BaseMixture(DensityMixin, BaseEstimator):
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
    covariance_type: str
    n_jobs: int | None
    random_state: object
    reg_covar: float
    weights_: NDArray
    means_: NDArray
    covariances_: NDArray
    precisions_: NDArray
    precisions_cholesky_: NDArray

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

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Bayesian information criterion, ``-2 log L + p log n``; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts; n is their sum.
        """
        X = self._rows(X)
        weights = self._sample_weight(sample_weight, X)
        return self._bic(X, weights)

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Akaike information criterion, ``-2 log L + 2 p``; the lower the better. Parameters as for `bic`."""
        X = self._rows(X)
        return -2 * self._log_likelihood(X, self._sample_weight(sample_weight, X)) + 2 * self._n_parameters()

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Integrated completed likelihood, ``BIC - 2 sum_i log max_k r_ik``; the lower the better.

        BIC with a penalty for rows that no component claims for itself (Biernacki, Celeux & Govaert, 2000, IEEE TPAMI
        22, in the form that mclust computes, with the sign of `bic`). Parameters as for `bic`.
        """
        X = self._rows(X)
        weights = self._sample_weight(sample_weight, X)
        log_resp = engine.log_highest_resp(self._parameters(), X, n_jobs=self.n_jobs)
        return self._bic(X, weights) - 2 * _weighted_sum(log_resp, weights)

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

    def _bic(self, X: NDArray, weights: NDArray[np.float64] | None) -> float:
        n = len(X) if weights is None else weights.sum()
        return -2 * self._log_likelihood(X, weights) + self._n_parameters() * math.log(n)

    def _log_likelihood(self, X: NDArray, weights: NDArray[np.float64] | None) -> float:
        """The sum of the rows' log-likelihoods, in float64 whatever their dtype."""
        return _weighted_sum(engine.score_samples(self._parameters(), X, n_jobs=self.n_jobs), weights)

    def _n_parameters(self) -> int:
        """Number of free parameters."""
        parameters = self._parameters()
        return parameters.model.n_parameters(parameters.n_components, parameters.n_features)

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

    @contextlib.contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        """Leave the estimator as it was if the block fails."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

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


def _weighted_sum(values: NDArray, weights: NDArray[np.float64] | None) -> float:
    """The sum of the rows' values times their weights, in float64; a row of weight 0 adds 0 even if it has -inf."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values[weights > 0] * weights[weights > 0]).sum())


class Progress:
    """Who watches a fit (see `schedule.Watcher`): prints what scikit-learn prints, and asks the callback.

    `fewest` is the least number of different clusters that a start has found.
    """

    def __init__(self, verbose: int, interval: int, n_components: int, callback: Callable | None):
        self.verbose, self.interval, self.fewest, self.callback = verbose, interval, n_components, callback
        self.begun = self.previous = time.perf_counter()

    def start(self, init: int) -> None:
        if self.verbose:
            print(f"Initialization {init}")
        self.begun = self.previous = time.perf_counter()

    def note(self, text: str) -> None:
        if self.verbose:
            print(f"  {text}")

    def iteration(self, result: EMResult) -> bool:
        if self.verbose and result.n_iter % self.interval == 0:
            now = time.perf_counter()
            details = f"\t time lapse {now - self.previous:.5f}s\t ll change {result.last_change:.5f}"
            print(f"  Iteration {result.n_iter}{details if self.verbose > 1 else ''}")
            self.previous = now
        return self.callback is not None and bool(self.callback(result.n_iter, result.lower_bound, result.parameters))

    def end(self, result: EMResult) -> None:
        if not self.verbose:
            return
        outcome = "converged" if result.converged else "did not converge"
        lapse = time.perf_counter() - self.begun
        details = f" time lapse {lapse:.5f}s\t lower bound {result.lower_bound:.5f}." if self.verbose > 1 else ""
        print(f"Initialization {outcome}.{details}")

    def duplicates(self, n_distinct: int) -> None:
        self.fewest = min(self.fewest, n_distinct)
