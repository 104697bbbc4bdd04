"""Densities, labels, responsibilities and random rows of a fitted mixture."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastgmm.covariance import get_model
from fastgmm.data.block_source import BlockSource
from fastgmm.data.conversion import check_sample_weight, validate_data
from fastgmm.data.output import check_out, write
from fastgmm.data.sources import ArraySource, Source, Weights
from fastgmm.data.targets import READ, files_behind
from fastgmm.e_step import scores
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .annotations import FilePath, FloatArray, RandomState, RowsLike
from .fitted_parameters import fitted_moments, kept_parameters

Array = NDArray[np.float64]
# A function of the engine that gives one value, or a row of values, for each row.
RowFunction = Callable[[MixtureParameters, NDArray[Any]], NDArray[Any]]
Estimator = TypeVar("Estimator", bound=BaseEstimator)


@contextlib.contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Restore the attributes of an estimator if the block raises."""
    before = dict(estimator.__dict__)
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise


def best_of(model: object) -> object:
    """Return the best estimator of a fitted search, and any other object unchanged."""
    return getattr(model, "best_estimator_", model)


def replicate_of(estimator: Estimator) -> Estimator:
    """Clone an estimator without `checkpoint` and `callback`, for one of many fits."""
    replicate: Estimator = clone(estimator)
    names = replicate.get_params(deep=False)
    replicate.set_params(**{name: None for name in ("checkpoint", "callback") if name in names})
    return replicate


class FittedMixture(DensityMixin, BaseEstimator):
    """An estimator with the fitted attributes of a mixture.

    Fitted attributes are float32 for float32 rows where float32 can hold them, else float64.
    """

    covariance_type: str
    n_jobs: int | None
    random_state: RandomState
    weights_: FloatArray
    means_: FloatArray
    covariances_: FloatArray
    precisions_cholesky_: FloatArray

    @classmethod
    @functools.cache
    def _get_param_names(cls) -> list[str]:
        """Return the names of the constructor's parameters; scikit-learn reads its signature at every call."""
        return super()._get_param_names()  # type: ignore[no-any-return]

    def score_samples(self, X: RowsLike, *, out: FilePath | None = None) -> FloatArray:
        """Compute the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to score.
        out : path, optional
            Write the results to this ``.npy`` or ``.parquet`` file instead of returning them. The file is written
            completely or not at all. An existing file is replaced, but a file that `X` is read from is refused.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            Log-densities in nats: float32 if both rows and model are float32, else float64. Empty if `out` is given.

        Raises
        ------
        ValueError
            If `X` is not finite or has another number of features than the model, or `out` cannot be written.
        """
        return self._collect(scores.score_samples, X, out, "log_prob")

    def score(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Compute the mean log-density of the rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to score.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        log_likelihood : float
            Mean log-density in nats per row. For float32 rows without weights it is rounded to float32, as in
            scikit-learn.

        Raises
        ------
        ValueError
            If rows or weights are not finite, or `X` has another number of features than the model.
        """
        if sample_weight is None and not isinstance(X, BlockSource):
            return float(self.score_samples(X).mean())
        source = self._to_predict(X, sample_weight)
        return self._log_likelihood(source) / source.total_weight

    def predict(self, X: RowsLike, *, out: FilePath | None = None) -> NDArray[np.int64]:
        """Predict the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to label.
        out : path, optional
            Write the labels to this ``.npy`` or ``.parquet`` file instead of returning them; see `score_samples`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Components, numbered from 0. Empty if `out` is given.

        Raises
        ------
        ValueError
            If `X` is not finite or has another number of features than the model, or `out` cannot be written.
        """
        return self._collect(scores.predict, X, out, "label")

    def predict_proba(self, X: RowsLike, *, out: FilePath | None = None) -> FloatArray:
        """Compute the responsibilities: the probability of each component given each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows whose responsibilities are computed.
        out : path, optional
            Write the responsibilities to this ``.npy`` or ``.parquet`` file, with one column per component, instead of
            returning them; see `score_samples`.

        Returns
        -------
        resp : ndarray of shape (n_samples, n_components)
            Responsibilities; each row sums to 1. float32 if both rows and model are float32, else float64. Empty if
            `out` is given.

        Raises
        ------
        ValueError
            If `X` is not finite or has another number of features than the model, or `out` cannot be written.
        """
        return self._collect(scores.predict_proba, X, out, "resp")

    def sample(self, n_samples: int = 1) -> tuple[Array, NDArray[np.int64]]:
        """Draw random rows from the fitted mixture.

        The random numbers are those that scikit-learn draws for the same `random_state`.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float64
            Rows, sorted by component.
        y : ndarray of shape (n_samples,), int64
            The component of each row.

        Raises
        ------
        ValueError
            If `n_samples` is below 1.
        """
        weights, means, covariances, covariance_type = self._moments()
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        rng = check_random_state(self.random_state)
        # `multinomial` refuses weights whose sum is rounded above 1, which happens with float32.
        counts = rng.multinomial(n_samples, weights / weights.sum())
        X = get_model(covariance_type).form.sample(rng, means, covariances, counts)
        return X, np.repeat(np.arange(len(counts)), counts)

    def _parameters(self) -> MixtureParameters:
        """Return the fitted parameters as the engine takes them."""
        self._check_fitted()
        return kept_parameters(self)

    def _moments(self) -> tuple[Array, Array, Array, str]:
        """Return what `sample` reads: weights, means, covariances and their type."""
        check_is_fitted(self)
        return fitted_moments(self)

    def _check_fitted(self) -> None:
        """Raise NotFittedError if there are no fitted attributes."""
        if "means_" not in vars(self):  # else scikit-learn's function would take as long as a prediction
            check_is_fitted(self)

    def _log_likelihood(self, source: Source) -> float:
        """Return the weighted sum of the rows' log-densities, in float64."""
        return self._total(scores.score_samples, source)

    def _total(self, function: RowFunction, source: Source) -> float:
        """Return the weighted sum of a function of the rows."""
        parameters, dtype = self._parameters(), self._dtype_with(source.dtype)

        def block_total(X: NDArray[Any], weights: Weights) -> float:
            return weighted_sum(function(parameters, X.astype(dtype, copy=False)), weights)

        with thread_limit(self.n_jobs):  # a source shares these threads among its blocks
            return float(source.reduce(block_total))

    def _collect(self, function: RowFunction, X: Any, out: FilePath | None, name: str) -> NDArray[Any]:
        """Return a function of each row, of shape (n,) or (n, K), or write it to a file."""
        target = None if out is None else check_out(out, self._files_in_use(X))
        source = X if isinstance(X, ArraySource) else self._to_predict(X)
        parameters, dtype = self._parameters(), self._dtype_with(source.dtype)
        with thread_limit(self.n_jobs):  # a source shares these threads among its blocks
            if isinstance(source, ArraySource) and out is None:
                return function(parameters, source.X)
            assert isinstance(source, (ArraySource, BlockSource)), "rows on a cluster are predicted there"
            results = source.each(lambda X, _: function(parameters, X.astype(dtype, copy=False)))
            if out is None or target is None:
                return np.concatenate(list(results))
            write(out, target, results, source.n_samples, name)
        return np.empty(0)

    def _files_in_use(self, X: Any) -> dict[str, tuple[Path, ...]]:
        """Return the files that must not be overwritten, by their use."""
        # The checkpoint of the last fit, with the folder that was current then, and that of the next fit.
        names = (getattr(self, "_checkpoint_file_", None), getattr(self, "checkpoint", None))
        checkpoints = tuple(Path(os.path.expanduser(name)) for name in names if name is not None)
        return {READ: files_read(X), "the fit's state is kept in": checkpoints}

    def _to_predict(self, X: RowsLike, sample_weight: ArrayLike | None = None) -> Source:
        """Return validated rows to predict."""
        self._check_fitted()
        if isinstance(X, BlockSource):
            return self._block_source(X, sample_weight)
        X = self._rows(X)
        return ArraySource(X, self._sample_weight(sample_weight, X))

    def _rows(self, X: ArrayLike) -> NDArray[Any]:
        """Return validated rows in memory, in the dtype of the results."""
        self._check_fitted()
        rows = validate_data(self, X, reset=False)
        return np.asarray(rows.astype(self._dtype_with(rows.dtype), copy=False))

    def _dtype_with(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype of a product of rows of this dtype and the parameters."""
        return np.dtype(
            np.float32 if np.result_type(dtype, np.asarray(self.means_).dtype) == np.float32 else np.float64
        )

    def _sample_weight(self, sample_weight: ArrayLike | None, X: NDArray[Any]) -> Array | None:
        """Return validated weights, or None if none are given."""
        if sample_weight is None:
            return None
        weights: Array = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weights

    def _block_source(self, X: BlockSource, sample_weight: ArrayLike | None, *, reset: bool = False) -> BlockSource:
        """Return rows that are read block by block, checked without reading them."""
        if sample_weight is not None:
            raise ValueError(
                "sample_weight must be None for fastgmm.rows, got an array. Give the weights as "
                "fastgmm.rows(..., weight=...)."
            )
        # scikit-learn's check of feature names and of the number of features, with a table without rows.
        validate_data(self, X.without_rows(), reset=reset, skip_check_array=True)
        return X


def files_read(X: Any) -> tuple[Path, ...]:
    """Return the files that rows or weights are read from, if they can be found."""
    return X.reader.files if isinstance(X, BlockSource) else files_behind(X)


def weighted_sum(values: NDArray[Any], weights: Array | None) -> float:
    """Return the weighted sum of the rows' values, in float64.

    A row of weight 0 adds 0 even if its value is -inf.
    """
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values[weights > 0] * weights[weights > 0]).sum())
