"""What fits of the mixture estimators share: validation, fitted attributes, messages."""

from __future__ import annotations

import abc
import math
import os
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from fastgmm._warnings import warn_user
from fastgmm.covariance import IllDefinedCovarianceError, get_model
from fastgmm.data.block_source import BlockSource
from fastgmm.data.conversion import validate_data
from fastgmm.data.sources import ArraySource, Source
from fastgmm.e_step.scores import predict
from fastgmm.fitting.checkpoint import CheckpointFile, check_checkpoint
from fastgmm.fitting.progress import PrintProgress
from fastgmm.fitting.run_state import CheckpointState, EMResult
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .fitted import FittedMixture, files_read, unchanged_on_error
from .subclassing import check_hooks
from .validation import PlainParameters, check_enough_rows, is_same, plain

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
DUPLICATES = (
    "Number of distinct clusters ({n_distinct}) found smaller than n_clusters ({n_components}). Possibly due to "
    "duplicate points in X."
)

# Parameters that a fit may be gone on with differently.
MAY_CHANGE_ON_RESUME = (
    "max_iter",
    "verbose",
    "verbose_interval",
    "n_jobs",
    "callback",
    "checkpoint",
    "warm_start",
    "client",
)
INTERRUPTED = "The fit was interrupted; the estimator has the parameters so far, after"


class DegenerateComponentWarning(ConvergenceWarning):
    """A component of a fitted mixture has no rows, or is flat where the data as a whole are not.

    Flat: only ``reg_covar`` keeps its covariance positive definite. It is a kind of scikit-learn's
    `ConvergenceWarning`, so programs that silence that one silence this one too. To silence this one alone:
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

    # Parameters that say what a fit maximises. If one has changed, a warm start cannot continue from the last bound.
    _objective: ClassVar[tuple[str, ...]] = ("covariance_type", "reg_covar")

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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_hooks(cls)

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
            interrupted = self._fit(self._checked_source(X, sample_weight))
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def resume(self, X: ArrayLike | BlockSource, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Continue a fit that was killed, from the file `checkpoint`; without such a file, `fit`.

        The answer is that of the fit if it had not been killed, to the last bit. Parameters, result and errors are
        those of `fit`. The rows must be the same: their number, columns, weights and a checksum are compared. Rows in
        memory are compared completely and at once. Of rows from files the first ones are compared at once, and all of
        them at the end of the first pass; if the fit had ended, they are read once for that. Of rows on a cluster a
        sample is compared.

        Raises
        ------
        ValueError
            If `checkpoint` is None, or the file is damaged, or is of another fit: it says in what.
        """
        if self.checkpoint is None:
            raise ValueError("resume goes on from a file, which checkpoint= names, but checkpoint is None")
        with unchanged_on_error(self):
            interrupted = self._fit(self._checked_source(X, sample_weight), resume=True)
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit, and predict the most probable component of each row. Parameters as for `fit`, result as of `predict`."""
        with unchanged_on_error(self):
            source = self._checked_source(X, sample_weight)
            interrupted = self._fit(source)
            labels = np.empty(0, np.int64) if interrupted else self._collect(predict, source, None, "label")
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return labels

    def _checked_source(self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None) -> Source:
        """Rows to fit, as `_source`; before they are read, that a checkpoint would replace nothing else."""
        if self.checkpoint is not None:
            self._check_options()
            check_checkpoint(self.checkpoint, (*files_read(X), *files_read(sample_weight)))
        return self._source(X, sample_weight)

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

    def _fit(self, source: Source, *, resume: bool = False) -> bool:
        """Fit and set the fitted attributes; return whether the fit was interrupted."""
        if source.n_samples < 2:
            found = f"{source.n_samples} sample(s) (shape=({source.n_samples}, {source.n_features}))"
            raise ValueError(f"Found array with {found} while a minimum of 2 is required by {type(self).__name__}.")
        asked = PlainParameters(self)
        check_enough_rows(source, asked.n_components)
        get_model(asked.covariance_type).check_features(source.n_features)
        progress = PrintProgress(
            asked.verbose, asked.verbose_interval, asked.n_components, getattr(self, "callback", None)
        )
        # What overflows makes covariances infinite or NaN, which have no factors: an error that says so.
        with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            try:
                checkpoint = self._checkpoint(source)
                resumed = checkpoint.load() if resume and checkpoint is not None else None
                result = self._best_run(source, checkpoint, resumed, progress)
                if checkpoint is not None and not result.interrupted:
                    checkpoint.verify(lambda: source.reduce(lambda *_: 0))
            except IllDefinedCovarianceError as error:
                hint = FLOAT32_HINT if source.dtype == np.float32 else ""
                raise ValueError(f"{ILL_DEFINED}{hint} Here {error.describe()}.") from None
            self._set_fitted(result.parameters, result, source.dtype)
            self._kept_in_ = None if checkpoint is None else str(checkpoint.target)
        if not np.isfinite(self.precisions_).all():
            raise ValueError(OUT_OF_RANGE)
        self._warn(result, progress.min_distinct)
        return result.interrupted

    def _warn(self, result: EMResult, n_distinct: int) -> None:
        """Issue at most one warning, of everything that is wrong with a fit.

        `n_distinct` is the number of different clusters that its start found, at most `n_components`.
        """
        problems = []
        if n_distinct < self.n_components:
            problems.append(DUPLICATES.format(n_distinct=n_distinct, n_components=self.n_components))
        if not (result.converged or result.stopped or result.interrupted) and self.max_iter > 0:
            problems.append(self._not_converged(result))
        degenerate = self._degenerate(result.parameters)
        problems += degenerate
        if problems:
            warn_user(" ".join(problems), DegenerateComponentWarning if degenerate else ConvergenceWarning)

    @abc.abstractmethod
    def _best_run(
        self,
        source: Source,
        checkpoint: CheckpointFile | None,
        resumed: CheckpointState | None,
        progress: PrintProgress,
    ) -> EMResult:
        """The best run from some starts; called with validated parameters, on the threads that are asked for."""

    def _checkpoint(self, source: Source) -> CheckpointFile | None:
        """Where this fit is kept."""
        if self.checkpoint is None:
            return None
        options = {
            name: plain(v) for name, v in self.get_params(deep=False).items() if name not in MAY_CHANGE_ON_RESUME
        }
        about = {
            "class": type(self).__name__,
            **options,
            "rows": (source.n_samples, source.n_features, source.dtype),
            "feature names": getattr(self, "feature_names_in_", None),
            "total_weight": source.total_weight,
            "checksum of the rows": source.fingerprint(),
        }
        return CheckpointFile(self.checkpoint, about, lambda: source.checksum)

    def _unmet(self, result: EMResult) -> str:
        """What besides a small step has kept a run from converging, as sentences."""
        return ""

    def _degenerate(self, parameters: MixtureParameters) -> list[str]:
        """Sentences about components without rows and flat components."""
        return []

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
        self._fitted_as_ = {name: plain(getattr(self, name)) for name in self._objective}

    def _seeds(self) -> Iterator[int]:
        """Seeds of starts."""
        random_state = check_random_state(self.random_state)
        return iter(lambda: int(random_state.randint(2**63 - 1, dtype=np.int64)), None)

    def _earlier_fit(self, n_features: int) -> MixtureParameters | None:
        """The parameters from which a fit with `warm_start` begins, or None if it makes a new start.

        Raises
        ------
        ValueError
            If the last fit had another number of components or features.
        """
        if not (self.warm_start and hasattr(self, "converged_")):
            return None
        earlier, expected = self._parameters(), (plain(self.n_components), n_features)
        if earlier.means.shape != expected:
            raise ValueError(
                f"warm_start=True continues the last fit, which has {earlier.n_components} components and "
                f"{earlier.n_features} features. This fit has n_components={expected[0]} and {expected[1]} features. "
                "Set warm_start=False to start anew."
            )
        return earlier

    def _is_same_objective(self) -> bool:
        """Return whether all parameters that define what a fit maximises are those of the last fit."""
        before = getattr(self, "_fitted_as_", {})
        return all(is_same(before.get(name, getattr(self, name)), getattr(self, name)) for name in self._objective)

    def _not_converged(self, result: EMResult) -> str:
        """Sentences about a fit that has not converged."""
        message = NOT_CONVERGED + self._unmet(result)
        if result.last_change < 0:
            message += (
                f" In its last iteration the mean log-likelihood fell, by {-result.last_change:.3g}: reg_covar="
                f"{self.reg_covar:g} may be large for data of this scale."
            )
        elif math.isnan(result.last_change):
            message += " Its log-likelihood is not a finite number."
        return message
