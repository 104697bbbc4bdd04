"""Mixtures of rows on a Dask cluster, with all that `GaussianMixture` and `BayesianGaussianMixture` can do."""

from __future__ import annotations

import functools
import inspect
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

try:
    import dask
    import dask.array as da
    import dask.dataframe as dd
    import distributed
    import pandas as pd
    from dask.base import tokenize
    from pandas.api.types import is_numeric_dtype
except ImportError:
    raise ImportError("Mixtures of rows on a cluster need Dask: pip install 'fastgmm[dask]'") from None

from fastgmm.data.conversion import REAL_KINDS, aligned, as_rows, as_weights, filled, validate_data
from fastgmm.data.dask_source import DaskSource
from fastgmm.data.sources import Source

from .base import BaseMixture
from .bayesian_mixture import BayesianGaussianMixture
from .gaussian_mixture import GaussianMixture
from .validation import check_any_labelled, check_shape, check_some_resp


def is_collection(X: Any) -> bool:
    """Whether X is a Dask array, data frame or series."""
    return isinstance(X, da.Array | dd.DataFrame | dd.Series)


class OnDask(BaseMixture):
    """What makes a mixture estimator one of rows on a cluster. Rows that are no Dask collection are treated as ever."""

    client: distributed.Client | None
    local: ClassVar[type[BaseMixture]]

    def to_local(self) -> Any:
        """The same estimator without Dask: parameters, and what has been fitted."""
        options = {name: clone(value, safe=False) for name, value in self._options().items()}
        plain = self.local(**options)
        plain.__dict__.update({name: value for name, value in vars(self).items() if name.endswith("_")})
        return plain

    def _options(self) -> dict[str, Any]:
        options = self.get_params(deep=False)
        del options["client"]
        return options

    def __sklearn_clone__(self) -> Self:
        options = {name: clone(value, safe=False) for name, value in self._options().items()}
        return type(self)(**options, client=self.client)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}  # a connection cannot be kept

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
        given: Any = self.resp_init
        if not isinstance(source, DaskSource):
            return super()._check_resp(source)
        placed: list = []
        highest: list = []
        try:
            values = blocks_beside(given, source)
            placed = source.place(values, functools.partial(prepared_resp, n_components=self.n_components))
            highest = source.client.map(highest_label, placed, pure=False)
            check_any_labelled(max(source.client.gather(highest)))
        except BaseException:
            source.release(placed, highest)
            raise
        return placed

    def _check_features(self, X: Any, *, reset: bool = False) -> None:
        """Check what a collection says of itself without computing it; blocks are checked on the workers."""
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got {X.ndim}D array instead")
        if X.shape[1] != X.shape[1]:
            raise ValueError(
                "the number of columns of X should be known, but is not: call X.compute_chunk_sizes(), or choose the "
                "columns by number"
            )
        if X.shape[1] == 0:
            raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required.")
        if isinstance(X, da.Array):
            if X.dtype.kind not in REAL_KINDS + "O":
                what = "Complex data not supported: " if X.dtype.kind == "c" else ""
                raise ValueError(f"{what}X should hold real numbers, but holds {X.dtype}")
            empty = np.empty((0, X.shape[1]))
        else:
            for name, kind in zip(X.columns, X.dtypes, strict=True):
                if not is_numeric_dtype(kind) or getattr(kind, "kind", "f") == "c":
                    what = "Complex data not supported: " if is_numeric_dtype(kind) else ""
                    raise ValueError(f"{what}column {name!r} should hold numbers, but holds {kind}; choose others")
            empty = X._meta
        validate_data(self, empty, reset=reset, skip_check_array=True)

    def _lazily(self, method: str, X: Any, dtype: Any, n_columns: int | None = None, *, out: Any = None) -> Any:
        """A method of the local estimator, of each block of a collection when that is computed."""
        check_is_fitted(self)
        if out is not None:
            raise ValueError("out is for rows in files and in memory; a Dask array is stored by its own methods")
        self._check_features(X)
        plain = self.to_local().set_params(n_jobs=1)
        if hasattr(plain, "resp_init"):
            plain.resp_init = None  # nothing for every task to carry
        if not isinstance(X, da.Array):
            meta = X._meta.astype(np.float64)
            X = X.map_partitions(as_frame, tuple(X.columns), meta=meta).to_dask_array()
        if hasattr(plain, "feature_names_in_"):
            del plain.feature_names_in_  # they have been checked
        X = X.rechunk({1: -1}) if len(X.chunks[1]) > 1 else X
        chunks: dict[str, Any] = (
            {"drop_axis": 1, "meta": np.empty(0, dtype)}
            if n_columns is None
            else {"chunks": (X.chunks[0], (n_columns,)), "meta": np.empty((0, 0), dtype)}
        )
        return X.map_blocks(predicted, plain, method, dtype=dtype, name=method + "-" + tokenize(plain, X), **chunks)

    def predict(self, X: Any, *, out: Any = None) -> Any:
        """The most probable component of each row; of a Dask collection lazily, as a Dask array."""
        return self._lazily("predict", X, np.int64, out=out) if is_collection(X) else super().predict(X, out=out)

    def predict_proba(self, X: Any, *, out: Any = None) -> Any:
        """Responsibilities (n, K); of a Dask collection lazily, as a Dask array."""
        if not is_collection(X):
            return super().predict_proba(X, out=out)
        check_is_fitted(self)
        return self._lazily("predict_proba", X, self._result_dtype(X), len(self.weights_), out=out)

    def score_samples(self, X: Any, *, out: Any = None) -> Any:
        """Log-likelihood of each row; of a Dask collection lazily, as a Dask array."""
        if not is_collection(X):
            return super().score_samples(X, out=out)
        check_is_fitted(self)
        return self._lazily("score_samples", X, self._result_dtype(X), out=out)

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood of the rows."""
        if not is_collection(X):
            return super().score(X, y, sample_weight)
        source = self._to_predict(X, sample_weight)
        return self._log_likelihood(source) / source.total_weight

    def fit_predict(self, X: Any, y: object = None, sample_weight: Any = None) -> Any:
        """Fit, and predict; of a Dask collection lazily, as a Dask array."""
        if not is_collection(X):
            return super().fit_predict(X, y, sample_weight)
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def _result_dtype(self, X: Any) -> np.dtype:
        """What a product of the rows and the model has; rows of half precision are computed in single."""
        found = [X.dtype] if isinstance(X, da.Array) else list(X.dtypes)
        single = all(d in (np.float32, np.float16) for d in found) and self.means_.dtype == np.float32
        return np.dtype(np.float32 if single else np.float64)


def as_frame(partition: Any, labels: tuple) -> Any:
    """Return a partition of a data frame as one of numbers, with its columns in the order of `labels`."""
    X = as_rows(aligned(partition, labels))
    return pd.DataFrame(X, columns=pd.Index(labels), index=partition.index)


def predicted(X: NDArray, plain: BaseMixture, method: str) -> NDArray:
    """Return what a method gives for a block; of one without rows, which filters leave behind, nothing."""
    X = as_rows(X)
    found = getattr(plain, method)(X if len(X) else np.zeros((1, X.shape[1]), X.dtype))
    return found[: len(X)]


def weight_blocks(sample_weight: Any, X: Any) -> list:
    """Weights in blocks that go with those of X."""
    if not is_collection(sample_weight):
        if any(n != n for n in X.chunks[0]) if isinstance(X, da.Array) else True:
            raise ValueError(
                "sample_weight should be a Dask array or series with the blocks of X, since how many rows these have "
                "is not known"
            )
        sample_weight = as_weights(sample_weight)
        if sample_weight.shape != X.shape[:1]:
            raise ValueError(f"sample_weight.shape == {sample_weight.shape}, expected {X.shape[:1]}!")
        sample_weight = da.from_array(sample_weight, chunks=(X.chunks[0],))
    if isinstance(X, da.Array) and isinstance(sample_weight, da.Array) and not np.isnan(sum(X.chunks[0])):
        if sample_weight.shape != X.shape[:1]:
            raise ValueError(f"sample_weight.shape == {sample_weight.shape}, expected {X.shape[:1]}!")
        sample_weight = sample_weight.rechunk((X.chunks[0],))
    blocks = sample_weight.to_delayed()
    blocks = list(blocks.ravel()) if isinstance(blocks, np.ndarray) else list(blocks)
    expected = X.numblocks[0] if isinstance(X, da.Array) else X.npartitions
    if len(blocks) != expected:
        raise ValueError(f"sample_weight has {len(blocks)} blocks, but X has {expected}")
    return blocks


def blocks_beside(resp: Any, source: DaskSource) -> list:
    """Labels or responsibilities in blocks that go with those of a source, delayed or not."""
    sizes = source.rows_by_block
    if not is_collection(resp):
        values, ends = np.asarray(filled(resp)), np.cumsum(sizes)
        check_shape(values, (source.n_samples, *values.shape[1:]), "resp_init")
        return [dask.delayed(values[end - n : end]) for n, end in zip(sizes, ends, strict=True)]
    if isinstance(resp, da.Array):
        columns = {1: -1} if resp.ndim > 1 else {}
        known = not np.isnan(resp.shape[0])
        if known:
            check_shape(resp, (source.n_samples, *resp.shape[1:]), "resp_init")
        resp = resp.rechunk({0: tuple(sizes), **columns} if known else columns)
    blocks = np.ravel(resp.to_delayed()).tolist()
    if len(blocks) != len(sizes):
        raise ValueError(f"resp_init has {len(blocks)} blocks, but X has {len(sizes)}")
    return blocks


def prepared_resp(resp: Any, n_samples: int, number: int, *, n_components: int) -> NDArray:
    """Labels or responsibilities of a block's rows; ValueError if they are none."""
    try:
        return check_some_resp(filled(resp), n_samples, n_components)
    except ValueError as error:
        raise ValueError(f"{error}, in block {number}") from None


def highest_label(resp: NDArray) -> int:
    """The highest label of a block; 0 for responsibilities."""
    return int(resp.max()) if resp.ndim == 1 else 0


def with_client(local: type[BaseMixture]) -> Any:
    """A constructor with the parameters of another class, and `client`."""

    def __init__(self, *arguments, client=None, **options):
        local.__init__(self, *arguments, **options)
        self.client = client

    theirs = inspect.signature(local.__init__)
    own = inspect.Parameter("client", inspect.Parameter.KEYWORD_ONLY, default=None)
    __init__.__signature__ = theirs.replace(parameters=[*theirs.parameters.values(), own])  # type: ignore[attr-defined]
    return __init__


class DaskGaussianMixture(OnDask, GaussianMixture):
    """`GaussianMixture` of rows on a Dask cluster: exact EM, to which workers contribute sums over the rows they have.

    `fit`, `score`, `bic`, `aic` and `icl` take Dask arrays and data frames, of known or unknown sizes, whose blocks are
    loaded once and stay on their workers. An EM iteration sends the parameters to every worker, and is one task on
    each, on as many threads as it has; sums come back. Prediction methods give Dask arrays. If a worker is lost, its
    blocks are loaded again by others, and the fit goes on.

    Parameters
    ----------
    n_components : int, default=1
    client : distributed.Client, default=None
        The cluster; None is the current one.
    **options
        All others of `GaussianMixture`. `resp_init` may be a Dask collection, with the blocks of X, or in memory;
        `n_jobs` is for what is not on the cluster.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from fastgmm import DaskGaussianMixture
    >>> client = Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    >>> rng = da.random.default_rng(0)
    >>> X = da.concatenate([rng.normal(size=(5000, 2), chunks=(1000, 2)) + 6 * i for i in range(3)])
    >>> gm = DaskGaussianMixture(3, random_state=0).fit(X)
    >>> sorted(gm.means_[:, 0].round().tolist())
    [0.0, 6.0, 12.0]
    >>> gm.predict(X)
    dask.array<predict, shape=(15000,), dtype=int64, chunksize=(1000,), chunktype=numpy.ndarray>
    >>> type(gm.to_local()).__name__
    'GaussianMixture'
    >>> client.close()
    """

    local = GaussianMixture
    _parameter_constraints: ClassVar[dict] = {**GaussianMixture._parameter_constraints, "client": "no_validation"}
    __init__ = with_client(GaussianMixture)


class DaskBayesianGaussianMixture(OnDask, BayesianGaussianMixture):
    """`BayesianGaussianMixture` of rows on a Dask cluster; see `DaskGaussianMixture`.

    Parameters
    ----------
    client : distributed.Client, default=None
        The cluster; None is the current one.
    **options
        All others of `BayesianGaussianMixture`.
    """

    local = BayesianGaussianMixture
    _parameter_constraints: ClassVar[dict] = {
        **BayesianGaussianMixture._parameter_constraints,
        "client": "no_validation",
    }
    __init__ = with_client(BayesianGaussianMixture)
