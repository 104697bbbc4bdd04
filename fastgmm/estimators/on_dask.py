"""Methods of mixture estimators that accept Dask collections."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from fastgmm.data.conversion import REAL_KINDS, validate_data
from fastgmm.data.dask_source import DaskSource
from fastgmm.data.sources import Source

from .annotations import FilePath, FloatArray
from .base import BaseMixture
from .dask_collections import (
    DaskRows,
    DaskWeights,
    as_frame,
    blocks_of_resp,
    da,
    distributed,
    highest_label,
    is_collection,
    is_numeric_dtype,
    predicted,
    prepared_resp,
    tokenize,
    weight_blocks,
)
from .validation import check_any_labelled

# The estimator without Dask.
Local = TypeVar("Local", bound=BaseMixture)


class OnDask(BaseMixture, Generic[Local]):
    """Methods that make a mixture estimator accept Dask collections.

    Rows that are not a Dask collection are passed to the estimator's own methods.
    """

    client: distributed.Client | None
    local: ClassVar[type[BaseMixture]]

    def to_local(self) -> Local:
        """Make an estimator that does not need Dask.

        Returns
        -------
        GaussianMixture or BayesianGaussianMixture
            An estimator with the parameters of this one, and its fitted attributes if it is fitted.
        """
        options = {name: clone(value, safe=False) for name, value in self._options().items()}
        local: Any = self.local(**options)
        local.__dict__.update({name: value for name, value in vars(self).items() if name.endswith("_")})
        fitted: Local = local
        return fitted

    def _options(self) -> dict[str, Any]:
        """Return the parameters of the constructor, without `client`."""
        options: dict[str, Any] = self.get_params(deep=False)
        del options["client"]
        return options

    def __sklearn_clone__(self) -> Self:
        options = {name: clone(value, safe=False) for name, value in self._options().items()}
        return type(self)(**options, client=self.client)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}  # a connection cannot be pickled

    def _source(self, X: Any, sample_weight: Any) -> Source:
        if not is_collection(X):
            return super()._source(X, sample_weight)
        self._check_options()
        return self._dask_source(X, sample_weight, reset=True)

    def _to_predict(self, X: Any, sample_weight: Any = None) -> Source:
        if not is_collection(X):
            return super()._to_predict(X, sample_weight)
        check_is_fitted(self)
        return self._dask_source(X, sample_weight)

    def _dask_source(self, X: Any, sample_weight: Any, *, reset: bool = False) -> DaskSource:
        """Return the rows of a collection, loaded by the workers."""
        self._check_features(X, reset=reset)
        labels = None
        if isinstance(X, da.Array):
            X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
            blocks, dtypes = list(X.to_delayed()[:, 0]), [X.dtype]
        else:
            blocks, dtypes, labels = X.to_delayed(), list(X.dtypes), tuple(X.columns)
        dtype = np.dtype(np.float32 if all(d == np.float32 for d in dtypes) else np.float64)
        weights = None if sample_weight is None else weight_blocks(sample_weight, X)
        client = distributed.get_client() if self.client is None else self.client
        return DaskSource(client, blocks, weights, X.shape[1], dtype, labels)

    def _check_resp(self, source: Source) -> Any:
        if not isinstance(source, DaskSource):
            return super()._check_resp(source)
        placed: list[Any] = []
        highest: list[Any] = []
        try:
            values = blocks_of_resp(self.resp_init, source)
            placed = source.place(values, functools.partial(prepared_resp, n_components=self.n_components))
            highest = source.client.map(highest_label, placed, pure=False)
            check_any_labelled(max(source.client.gather(highest)))
        except BaseException:
            source.release(placed, highest)
            raise
        return placed

    def _check_features(self, X: Any, *, reset: bool = False) -> None:
        """Check a collection without computing it; workers check its blocks."""
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got {X.ndim}D array instead")
        if X.shape[1] != X.shape[1]:  # an unknown size is NaN
            raise ValueError(
                "X must have a known number of columns, but it is unknown. Call X.compute_chunk_sizes(), or select the "
                "columns by number."
            )
        if X.shape[1] == 0:
            raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required.")
        if isinstance(X, da.Array):
            if X.dtype.kind not in REAL_KINDS + "O":
                what = "Complex data not supported: " if X.dtype.kind == "c" else ""
                raise ValueError(f"{what}X must hold real numbers, but holds {X.dtype}. Convert it.")
            empty = np.empty((0, X.shape[1]))
        else:
            for name, kind in zip(X.columns, X.dtypes, strict=True):
                if not is_numeric_dtype(kind) or getattr(kind, "kind", "f") == "c":
                    what = "Complex data not supported: " if is_numeric_dtype(kind) else ""
                    raise ValueError(
                        f"{what}column {name!r} must hold numbers, but holds {kind}. Select the columns with numbers."
                    )
            empty = X._meta
        validate_data(self, empty, reset=reset, skip_check_array=True)

    def _lazily(self, method: str, X: Any, dtype: Any, n_columns: int | None = None, *, out: Any = None) -> Any:
        """Apply a method of the local estimator to each block, lazily.

        Parameters
        ----------
        method : str
            Name of the method.
        X : Dask array or data frame
        dtype : dtype
            Of the result.
        n_columns : int, optional
            Number of columns of the result; by default it has one dimension.
        out : None
            Any other value raises ValueError.
        """
        check_is_fitted(self)
        if out is not None:
            raise ValueError(
                f"out must be None for a Dask collection, got {out!r}. Store the Dask array that {method} returns with "
                "its own methods."
            )
        self._check_features(X)
        local = self.to_local().set_params(n_jobs=1)
        if hasattr(local, "resp_init"):
            local.resp_init = None  # keeps each task small
        if not isinstance(X, da.Array):
            meta = X._meta.astype(np.float64)
            X = X.map_partitions(as_frame, tuple(X.columns), meta=meta).to_dask_array()
        if hasattr(local, "feature_names_in_"):
            del local.feature_names_in_  # the names have been checked
        X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
        chunks: dict[str, Any] = (
            {"drop_axis": 1, "meta": np.empty(0, dtype)}
            if n_columns is None
            else {"chunks": (X.chunks[0], (n_columns,)), "meta": np.empty((0, 0), dtype)}
        )
        return X.map_blocks(predicted, local, method, dtype=dtype, name=method + "-" + tokenize(local, X), **chunks)

    def predict(self, X: DaskRows, *, out: FilePath | None = None) -> da.Array | NDArray[np.int64]:
        """Predict the most probable component of each row.

        Parameters
        ----------
        X : Dask array or data frame, or rows as for `GaussianMixture`
            Rows to label.
        out : path, optional
            File for the labels, for rows that are not a Dask collection; see `GaussianMixture.predict`.

        Returns
        -------
        labels : Dask array or ndarray of shape (n_samples,), int64
            Components, numbered from 0. For a Dask collection a Dask array that is computed later.

        Raises
        ------
        ValueError
            If the rows are invalid, or `out` is given for a Dask collection.
        """
        return self._lazily("predict", X, np.int64, out=out) if is_collection(X) else super().predict(X, out=out)

    def predict_proba(self, X: DaskRows, *, out: FilePath | None = None) -> da.Array | FloatArray:
        """Compute the responsibilities: the probability of each component given each row.

        Parameters
        ----------
        X : Dask array or data frame, or rows as for `GaussianMixture`
            Rows whose responsibilities are computed.
        out : path, optional
            File for the results, for rows that are not a Dask collection; see `GaussianMixture.predict_proba`.

        Returns
        -------
        resp : Dask array or ndarray of shape (n_samples, n_components)
            Responsibilities. For a Dask collection a Dask array that is computed later.

        Raises
        ------
        ValueError
            If the rows are invalid, or `out` is given for a Dask collection.
        """
        if not is_collection(X):
            return super().predict_proba(X, out=out)
        check_is_fitted(self)
        return self._lazily("predict_proba", X, self._result_dtype(X), len(self.weights_), out=out)

    def score_samples(self, X: DaskRows, *, out: FilePath | None = None) -> da.Array | FloatArray:
        """Compute the log-density of each row.

        Parameters
        ----------
        X : Dask array or data frame, or rows as for `GaussianMixture`
            Rows to score.
        out : path, optional
            File for the results, for rows that are not a Dask collection; see `GaussianMixture.score_samples`.

        Returns
        -------
        log_prob : Dask array or ndarray of shape (n_samples,)
            Log-densities in nats. For a Dask collection a Dask array that is computed later.

        Raises
        ------
        ValueError
            If the rows are invalid, or `out` is given for a Dask collection.
        """
        if not is_collection(X):
            return super().score_samples(X, out=out)
        check_is_fitted(self)
        return self._lazily("score_samples", X, self._result_dtype(X), out=out)

    def score(self, X: DaskRows, y: object = None, sample_weight: DaskWeights | None = None) -> float:
        """Compute the mean log-density of the rows.

        Parameters
        ----------
        X : Dask array or data frame, or rows as for `GaussianMixture`
            Rows to score.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : Dask array or series, or array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        log_likelihood : float
            Mean log-density in nats per row.

        Raises
        ------
        ValueError
            If rows or weights are invalid.
        """
        if not is_collection(X):
            return super().score(X, y, sample_weight)
        source = self._to_predict(X, sample_weight)
        return self._log_likelihood(source) / source.total_weight

    def fit_predict(
        self, X: DaskRows, y: object = None, sample_weight: DaskWeights | None = None
    ) -> da.Array | NDArray[np.int64]:
        """Fit the mixture and predict the most probable component of each row.

        Parameters
        ----------
        X : Dask array or data frame, or rows as for `GaussianMixture`
            Rows to fit and to label.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : Dask array or series, or array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        labels : Dask array or ndarray of shape (n_samples,), int64
            Components, numbered from 0. For a Dask collection a Dask array that is computed later.

        Raises
        ------
        ValueError
            See `GaussianMixture.fit`.
        """
        if not is_collection(X):
            return super().fit_predict(X, y, sample_weight)
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def _result_dtype(self, X: Any) -> np.dtype[Any]:
        """Return the dtype of a product of the rows and the parameters.

        Rows of float16 are computed in float32.
        """
        dtypes = [X.dtype] if isinstance(X, da.Array) else list(X.dtypes)
        single = all(d in (np.float32, np.float16) for d in dtypes) and self.means_.dtype == np.float32
        return np.dtype(np.float32 if single else np.float64)
