"""What fits of the mixture estimators share: validation, fitted attributes, messages."""

from __future__ import annotations

import abc
import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from . import engine
from .blocks import BlockSource
from .checkpoint import Checkpoint
from .covariance import IllDefinedCovarianceError, get_model
from .em import EMResult
from .kernels import resolve_n_jobs, thread_limit
from .parameters import MixtureParameters
from .prediction import FittedMixture, unchanged_on_error
from .progress import Progress
from .rules import Kept
from .sources import ArraySource, Source
from .validation import check_enough_rows

ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance (for instance "
    "caused by singleton or collapsed samples). Try to decrease the number of components, increase reg_covar, or scale "
    "the input data."
)
OUT_OF_RANGE = (
    "The precisions of the fitted components are too large for float64: the rows' variances must be above 1e-307. "
    "Multiply the rows by a power of ten."
)
FLOAT32_HINT = " The numerical accuracy can also be improved by passing float64 data instead of float32."
NOT_CONVERGED = (
    "Best performing initialization did not converge. Try different init parameters, or increase max_iter, tol, or "
    "check for degenerate data."
)

# Parameters that a fit may be gone on with differently.
NO_MATTER = ("max_iter", "verbose", "verbose_interval", "n_jobs", "callback", "checkpoint", "warm_start", "client")
INTERRUPTED = "The fit was interrupted; the estimator has the parameters so far, after"


class DegenerateComponentWarning(UserWarning):
    """A component of a fitted mixture is hardly one: without rows, or flat where the data as a whole are not.

    Flat: only ``reg_covar`` keeps its covariance positive definite. To silence it:
    ``warnings.simplefilter("ignore", fastgmm.DegenerateComponentWarning)``.
    """


class BaseMixture(FittedMixture, abc.ABC):
    """Base of the mixture estimators: how a fit goes, whatever it is that is raised."""

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
        "checkpoint": [str, os.PathLike, None],
    }

    # Constructor parameters that are used here, and fitted attributes that hold the parameters, in the rows' dtype.
    n_components: int
    covariance_type: str
    max_iter: int
    warm_start: bool
    verbose: int
    verbose_interval: int
    n_jobs: int | None
    checkpoint: str | os.PathLike | None
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
        X : array-like of shape (n_samples, n_features), or rows
            Rows; data frames are accepted. float32 stays float32, everything else becomes float64. With
            `fastgmm.rows` they are read from files, or from wherever, block after block.
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
            interrupted = self._fit(self._source(X, sample_weight))
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def resume(self, X: ArrayLike | BlockSource, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Go on with a fit that was killed, from the file `checkpoint`; without such a file, `fit`.

        The answer is that of the fit if it had not been killed, to the last bit. Parameters, result and errors are
        those of `fit`; the rows must be the same.

        Raises
        ------
        ValueError
            If there is no `checkpoint`, or it is of another fit: it says in what.
        """
        if self.checkpoint is None:
            raise ValueError("resume goes on from a file, which checkpoint= names, but checkpoint is None")
        with unchanged_on_error(self):
            source = self._source(X, sample_weight)
            checkpoint = self._checkpoint(source)
            interrupted = self._fit(source, None if checkpoint is None else checkpoint.load())
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit, and predict the most probable component of each row. Parameters as for `fit`, result as of `predict`."""
        with unchanged_on_error(self):
            source = self._source(X, sample_weight)
            interrupted = self._fit(source)
            labels = np.empty(0, np.int64) if interrupted else self._collect(engine.predict, source, None, "label")
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return labels

    def _source(self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None) -> Source:
        """Rows to fit, validated, as are the parameters."""
        self._check_options()
        if isinstance(X, BlockSource):
            return self._block_source(X, sample_weight, reset=True)
        if isinstance(X, ArraySource):  # whoever makes one has validated the rows
            validate_data(self, X.X[:0], reset=True, skip_check_array=True)
            return X
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, X)
        # The kernels read either order in place; anything else would be copied at every pass.
        return ArraySource(X if X.flags.f_contiguous else np.ascontiguousarray(X), weights)

    def _check_options(self) -> None:
        """ValueError if parameters are not what they should be."""
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        resolve_n_jobs(self.n_jobs)

    def _fit(self, source: Source, resumed: Kept | None = None) -> bool:
        """Fit and set the fitted attributes; returns whether the fit was interrupted."""
        if source.n_samples < 2:
            found = f"{source.n_samples} sample(s) (shape=({source.n_samples}, {source.n_features}))"
            raise ValueError(f"Found array with {found} while a minimum of 2 is required by {type(self).__name__}.")
        check_enough_rows(source, self.n_components)
        get_model(self.covariance_type).check_features(source.n_features)
        # What overflows makes covariances infinite or NaN, which have no factors: an error that says so.
        with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                result = self._best_run(source, resumed)
            except IllDefinedCovarianceError as error:
                hint = FLOAT32_HINT if source.dtype == np.float32 else ""
                raise ValueError(f"{ILL_DEFINED}{hint} Here {error.describe()}.") from None
            self._set_fitted(result.parameters, result, source.dtype)
        if not np.isfinite(self.precisions_).all():
            raise ValueError(OUT_OF_RANGE)
        if not (result.converged or result.stopped or result.interrupted) and self.max_iter > 0:
            self._warn_not_converged(result.last_change, self._unmet(result))
        self._warn_degenerate(result.parameters)
        return result.interrupted

    @abc.abstractmethod
    def _best_run(self, source: Source, resumed: Kept | None) -> EMResult:
        """The best run from some starts; called with validated parameters, on the threads that are asked for."""

    def _checkpoint(self, source: Source) -> Checkpoint | None:
        """Where this fit is kept."""
        if self.checkpoint is None:
            return None
        options = {name: value for name, value in self.get_params(deep=False).items() if name not in NO_MATTER}
        rows = source.n_samples, source.n_features, source.dtype
        about = {"class": type(self).__name__, **options, "rows": rows, "total_weight": source.total_weight}
        return Checkpoint(self.checkpoint, about)

    def _unmet(self, result: EMResult) -> str:
        """What besides a small step has kept a run from converging, as sentences."""
        return ""

    def _warn_degenerate(self, parameters: MixtureParameters) -> None:
        """Warn of components that are hardly any."""

    def _set_fitted(self, parameters: MixtureParameters, result: EMResult, dtype: np.dtype) -> None:
        dtype = parameters.attribute_dtype(dtype)
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

    def _check_warm_start(self, n_features: int) -> bool:
        """Whether a fit starts where the last one ended; ValueError if it cannot."""
        if not (self.warm_start and hasattr(self, "converged_")):
            return False
        expected = get_model(self.covariance_type).form.shape(self.n_components, n_features)
        if self.means_.shape != (self.n_components, n_features) or self.covariances_.shape != expected:
            raise ValueError(
                f"warm_start=True continues the last fit, which has means of shape {self.means_.shape} and covariances "
                f"of shape {self.covariances_.shape}, but {self.n_components} components of type "
                f"{self.covariance_type!r} with {n_features} features are asked for. Set warm_start=False to start "
                "anew."
            )
        return True

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
