"""Base of all mixture estimators: validation, fitted attributes, warnings."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.exceptions import ConvergenceWarning
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
from fastgmm.fitting.starts import INIT_PARAMS
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .annotations import FilePath, FloatArray, RowsLike
from .fitted import FittedMixture, files_read, unchanged_on_error
from .messages import DUPLICATES, FLOAT32_HINT, ILL_DEFINED, INTERRUPTED, NOT_CONVERGED, OUT_OF_RANGE
from .seeds import seeds
from .subclassing import check_hooks
from .valid_options import validate_once
from .validation import PlainParameters, check_enough_rows, is_same, plain

# Parameters that may have other values when a fit is resumed from a checkpoint.
MAY_CHANGE_ON_RESUME = (
    "max_iter", "verbose", "verbose_interval", "n_jobs", "callback", "checkpoint", "warm_start", "client",
)  # fmt: skip


class DegenerateComponentWarning(ConvergenceWarning):
    """Warn that a component of a fitted mixture is empty or has collapsed.

    A component is empty if its weight is zero. It has collapsed if its rows are nearly equal in a direction in which
    the mixture as a whole is not, so that only ``reg_covar`` keeps its covariance positive definite.

    The class derives from scikit-learn's `sklearn.exceptions.ConvergenceWarning`: a filter that silences that class
    silences this one too.

    See Also
    --------
    GaussianMixture : Estimator whose `fit` issues this warning.
    ConjugatePrior : Prior that keeps small components from collapsing.

    Examples
    --------
    Silence this warning, and no other:

    >>> import warnings
    >>> import fastgmm
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", fastgmm.DegenerateComponentWarning)
    ...     gm = fastgmm.GaussianMixture(2, random_state=0).fit([[0.0], [0.0], [0.0], [5.0], [6.0], [7.0]])
    """


class BaseMixture(FittedMixture, abc.ABC):
    """A mixture estimator, except for its parameters and its objective."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0.0, None, closed="left")],
        "reg_covar": [Interval(Real, 0.0, None, closed="left")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "init_params": [StrOptions(set(INIT_PARAMS))],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "verbose_interval": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "checkpoint": [str, PathLike, None],
    }

    # Parameters that define what a fit maximises. If one has changed, a warm start cannot continue from the last bound.
    _objective: ClassVar[tuple[str, ...]] = ("covariance_type", "reg_covar")

    # Parameters of the constructors that this class reads, and fitted attributes.
    n_components: int
    max_iter: int
    warm_start: bool
    verbose: int
    verbose_interval: int
    checkpoint: FilePath | None
    reg_covar: float
    precisions_: FloatArray
    converged_: bool
    n_iter_: int
    lower_bound_: float
    lower_bounds_: list[float]
    remaining_: float

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_hooks(cls)

    def fit(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Estimate the parameters of the mixture.

        If the fit fails, the estimator does not change. If it is interrupted (Ctrl-C) after its first pass over all
        rows, the estimator keeps the best parameters so far, with ``converged_ = False``, and the KeyboardInterrupt is
        raised again.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to fit; data frames are accepted. float32 rows stay float32, all others become float64. `fastgmm.rows`
            are read block by block.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts: a weight of 3 equals three copies of the row, a weight of 0 its absence.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, if rows or weights are not finite or too few, if a component collapses and
            `reg_covar` does not keep its covariance positive definite, or if `checkpoint` cannot be written.
        KeyboardInterrupt
            If the fit is interrupted.

        Warns
        -----
        ConvergenceWarning
            If the fit did not converge, or the rows have fewer distinct clusters than `n_components`.
        DegenerateComponentWarning
            If a component is empty or has collapsed.
        """
        with unchanged_on_error(self):
            interrupted = self._fit(self._checked_source(X, sample_weight))
        if interrupted:
            raise KeyboardInterrupt(INTERRUPTED.format(n_iter=self.n_iter_))
        return self

    def resume(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Continue an interrupted fit from the file `checkpoint`.

        The result equals that of the uninterrupted fit, bit for bit. If the file does not exist, the method is `fit`.

        The rows must be those of the interrupted fit: their number, columns, weights and a checksum are compared. Rows
        in memory are compared completely before the fit. Of rows from files, the first ones are compared before the
        fit, and all of them at the end of the first pass; a fit that had ended reads them once for this check. Of rows
        on a cluster, a sample is compared.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows of the interrupted fit.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the interrupted fit.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If `checkpoint` is None, if the file is damaged, or if it belongs to a fit of other rows or parameters. Also
            where `fit` raises it.
        KeyboardInterrupt
            If the fit is interrupted.

        Warns
        -----
        ConvergenceWarning
            See `fit`.
        DegenerateComponentWarning
            See `fit`.

        Examples
        --------
        >>> import os, tempfile
        >>> from fastgmm import GaussianMixture
        >>> path = os.path.join(tempfile.mkdtemp(), "state")
        >>> gm = GaussianMixture(checkpoint=path).resume([[0.0], [1.0], [5.0]])  # `fit`, as there is no file yet
        >>> os.path.exists(path), gm.resume([[0.0], [1.0], [5.0]]).means_  # the fit in the file has ended
        (True, array([[2.]]))
        """
        if self.checkpoint is None:
            raise ValueError(
                "resume continues a fit from a file, but checkpoint is None. Set checkpoint to the file of the "
                "interrupted fit."
            )
        with unchanged_on_error(self):
            interrupted = self._fit(self._checked_source(X, sample_weight), resume=True)
        if interrupted:
            raise KeyboardInterrupt(INTERRUPTED.format(n_iter=self.n_iter_))
        return self

    def fit_predict(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit the mixture and predict the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to fit and to label.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts; see `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Components, numbered from 0.

        Raises
        ------
        ValueError
            See `fit`.
        KeyboardInterrupt
            If the fit is interrupted.

        Warns
        -----
        ConvergenceWarning
            See `fit`.
        DegenerateComponentWarning
            See `fit`.
        """
        with unchanged_on_error(self):
            source = self._checked_source(X, sample_weight)
            interrupted = self._fit(source)
            labels = np.empty(0, np.int64) if interrupted else self._collect(predict, source, None, "label")
        if interrupted:
            raise KeyboardInterrupt(INTERRUPTED.format(n_iter=self.n_iter_))
        return labels

    def _checked_source(self, X: RowsLike, sample_weight: ArrayLike | None) -> Source:
        """Return validated rows to fit.

        Before any row is read, check that the checkpoint would not replace another file.
        """
        if self.checkpoint is not None:
            self._check_options()
            check_checkpoint(self.checkpoint, (*files_read(X), *files_read(sample_weight)))
        return self._source(X, sample_weight)

    def _source(self, X: RowsLike, sample_weight: ArrayLike | None) -> Source:
        """Validate the parameters, and return validated rows to fit."""
        self._check_options()
        if isinstance(X, BlockSource):
            return self._block_source(X, sample_weight, reset=True)
        if isinstance(X, ArraySource):  # its rows are valid: only this package makes one
            validate_data(self, X.X[:0], reset=True, skip_check_array=True)
            return X
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, rows)
        # The kernels read C and Fortran order in place; rows of any other order would be copied at every pass.
        return ArraySource(rows if rows.flags.f_contiguous else np.ascontiguousarray(rows), weights)

    def _check_options(self) -> None:
        """Raise ValueError if a parameter of the constructor is invalid."""
        if not get_config()["skip_parameter_validation"]:
            values = tuple(getattr(self, name) for name in self._get_param_names())
            validate_once(type(self), values, self._validate_params)
        resolve_n_jobs(self.n_jobs)

    def _fit(self, source: Source, *, resume: bool = False) -> bool:
        """Fit, set the fitted attributes, and return whether the fit was interrupted."""
        if source.n_samples < 2:
            found = f"{source.n_samples} sample(s) (shape=({source.n_samples}, {source.n_features}))"
            raise ValueError(f"Found array with {found} while a minimum of 2 is required by {type(self).__name__}.")
        params = PlainParameters(self)
        check_enough_rows(source, params.n_components)
        get_model(params.covariance_type).check_features(source.n_features)
        progress = PrintProgress(
            params.verbose, params.verbose_interval, params.n_components, getattr(self, "callback", None)
        )
        # An overflow gives infinite or NaN covariances. These have no factors, and the error says so.
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
            self._checkpoint_file_ = None if checkpoint is None else str(checkpoint.target)
        if not np.isfinite(self.precisions_).all():
            raise ValueError(OUT_OF_RANGE)
        self._warn(result, progress.min_distinct)
        return bool(result.interrupted)

    def _warn(self, result: EMResult, n_distinct: int) -> None:
        """Issue at most one warning, with all problems of a fit.

        `n_distinct` is the number of distinct clusters that the start found, at most `n_components`.
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
        """Return the best run of all starts.

        It is called with valid parameters and within the limit of threads.
        """

    def _checkpoint(self, source: Source) -> CheckpointFile | None:
        """Return the file that keeps the state of this fit, if there is one."""
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

    def _unmet_limit(self, result: EMResult) -> str:
        """Return a sentence about an unmet condition of convergence besides `tol`, or ""."""
        return ""

    def _degenerate(self, parameters: MixtureParameters) -> list[str]:
        """Return sentences about empty and collapsed components."""
        return []

    def _set_fitted(self, parameters: MixtureParameters, result: EMResult, dtype: np.dtype[Any]) -> None:
        """Set the fitted attributes, for rows of a dtype."""
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
        """Return an endless iterator of seeds, one for each start."""
        return seeds(self.random_state)

    def _earlier_fit(self, n_features: int) -> MixtureParameters | None:
        """Return the parameters that a warm start begins from, or None for a new start.

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
        """Return whether a fit would maximise what the last fit maximised."""
        before = getattr(self, "_fitted_as_", {})
        return all(is_same(before.get(name, getattr(self, name)), getattr(self, name)) for name in self._objective)

    def _not_converged(self, result: EMResult) -> str:
        """Return sentences about a fit that has not converged."""
        message = NOT_CONVERGED + self._unmet_limit(result)
        if result.last_change < 0:
            message += (
                f" In its last iteration the mean log-likelihood fell, by {-result.last_change:.3g}: reg_covar="
                f"{self.reg_covar:g} may be large for data of this scale."
            )
        elif math.isnan(result.last_change):
            message += " Its log-likelihood is not a finite number."
        return message
