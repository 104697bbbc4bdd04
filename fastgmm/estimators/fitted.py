"""What follows from the fitted parameters of a mixture: densities, labels, responsibilities, draws."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


def replicate_of(estimator: Any) -> Any:
    """Clone an estimator for one of many fits, without its `checkpoint` and `callback`, which are for a single fit."""
    made = clone(estimator)
    return made.set_params(**{name: None for name in ("checkpoint", "callback") if name in made.get_params(deep=False)})


def fitted_parameters(mixture: Any, weights: ArrayLike | None = None) -> MixtureParameters:
    """Return the parameters of a fitted mixture, one of scikit-learn's too.

    They are `weights_`, `means_` and `precisions_cholesky_`: what scikit-learn's own predictions read. Covariances are
    computed if they are missing, as in a model that was rebuilt from these three.

    Parameters
    ----------
    mixture : estimator
    weights : array-like of shape (n_components,), optional
        In place of `weights_`.

    Raises
    ------
    AttributeError
        If an attribute is missing.
    ValueError
        If shapes do not fit together.
    """
    weights = _array(mixture.weights_ if weights is None else weights)
    means = _array(mixture.means_)
    if not hasattr(mixture, "precisions_cholesky_") and hasattr(mixture, "covariances_"):
        covariances = _array(mixture.covariances_)
        covariance_type = _type_of(mixture, means, covariances)
        factors = get_model(covariance_type).form.precisions_cholesky(covariances)
        return MixtureParameters(weights, means, covariances, factors, covariance_type)
    factors = _array(mixture.precisions_cholesky_)
    covariance_type = _type_of(mixture, means, factors)
    factors = get_model(covariance_type).form.upper_triangular(factors)  # scikit-learn reads lower ones too
    return MixtureParameters(weights, means, _covariances(mixture, factors, covariance_type), factors, covariance_type)


def fitted_moments(mixture: Any) -> tuple[NDArray, NDArray, NDArray, str]:
    """Return weights, means, covariances and their type of a fitted mixture; see `fitted_parameters`."""
    weights, means = _array(mixture.weights_), _array(mixture.means_)
    stored = _array(mixture.covariances_ if hasattr(mixture, "covariances_") else mixture.precisions_cholesky_)
    covariance_type = _type_of(mixture, means, stored)
    return weights, means, _covariances(mixture, stored, covariance_type), covariance_type


def _covariances(mixture: Any, factors: NDArray, covariance_type: str) -> NDArray[np.float64]:
    """The covariances of a mixture, or, where it has none, those of its precision factors."""
    if hasattr(mixture, "covariances_"):
        return _array(mixture.covariances_)
    return get_model(covariance_type).form.covariances(factors)


def _type_of(mixture: Any, means: NDArray, stored: NDArray) -> str:
    """The covariance type of fitted arrays: that of the fit, if `covariance_type` has been set to another since.

    Arrays of another shape than the fit's have been put there by the user, for the type that is set now.
    """
    names = (getattr(mixture, "_fitted_as_", {}).get("covariance_type"), mixture.covariance_type)
    for name in filter(None, names):
        if means.ndim == 2 and stored.shape == get_model(name).form.shape(*means.shape):
            return name
    raise ValueError(
        f"means_ of shape {means.shape} and covariances_ or precisions_cholesky_ of shape {stored.shape} are no "
        f"mixture of covariance_type {mixture.covariance_type!r}."
    )


def _array(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


class FittedMixture(DensityMixin, BaseEstimator):
    """An estimator with the fitted attributes of a mixture, in the rows' dtype."""

    covariance_type: str
    n_jobs: int | None
    random_state: object
    weights_: NDArray
    means_: NDArray
    covariances_: NDArray
    precisions_cholesky_: NDArray

    def score_samples(self, X: ArrayLike | BlockSource, *, out: str | os.PathLike | None = None) -> NDArray:
        """Log-likelihood of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or rows
        out : path, optional
            A file to write to, ``.npy`` or ``.parquet``, in place of returning an array. Written completely or not
            at all; a file that rows are read from is refused, another one that exists is replaced.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            In nats; float32 if rows and model are. Empty if `out` is given.
        """
        return self._collect(scores.score_samples, X, out, "log_prob")

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
        if sample_weight is None and not isinstance(X, BlockSource):
            return float(self.score_samples(X).mean())
        source = self._to_predict(X, sample_weight)
        return self._log_likelihood(source) / source.total_weight

    def predict(self, X: ArrayLike | BlockSource, *, out: str | os.PathLike | None = None) -> NDArray[np.int64]:
        """The most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or rows
        out : path, optional
            A file to write to, ``.npy`` or ``.parquet``, in place of returning an array. Written completely or not
            at all; a file that rows are read from is refused, another one that exists is replaced.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Empty if `out` is given.
        """
        return self._collect(scores.predict, X, out, "label")

    def predict_proba(self, X: ArrayLike | BlockSource, *, out: str | os.PathLike | None = None) -> NDArray:
        """Responsibilities: the probability of each component given each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or rows
        out : path, optional
            A file to write to, ``.npy`` or ``.parquet`` (a column a component), in place of returning an array. See
            `predict`.

        Returns
        -------
        resp : ndarray of shape (n_samples, n_components)
            float32 if rows and model are. Empty if `out` is given.
        """
        return self._collect(scores.predict_proba, X, out, "resp")

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
        weights, means, covariances, covariance_type = self._moments()
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples} . The sampling requires at least one sample.")
        rng = check_random_state(self.random_state)
        # The weights' sum may have been rounded above 1, in float32 by so much that `multinomial` refuses them.
        counts = rng.multinomial(n_samples, weights / weights.sum())
        X = get_model(covariance_type).form.sample(rng, means, covariances, counts)
        return X, np.repeat(np.arange(len(counts)), counts)

    def _parameters(self) -> MixtureParameters:
        """The fitted parameters, as the engine takes them."""
        check_is_fitted(self)
        return fitted_parameters(self)

    def _moments(self) -> tuple[NDArray, NDArray, NDArray, str]:
        """Weights, means, covariances and their type: what `sample` reads."""
        check_is_fitted(self)
        return fitted_moments(self)

    def _log_likelihood(self, source: Source) -> float:
        """The sum of the rows' log-likelihoods, in float64 whatever their dtype."""
        return self._total(scores.score_samples, source)

    def _total(self, function: Callable[..., NDArray], source: Source) -> float:
        """The sum by weight of a function of the rows."""
        parameters, dtype = self._parameters(), self._dtype_with(source.dtype)

        def block_total(X: NDArray, weights: Weights) -> float:
            return weighted_sum(function(parameters, X.astype(dtype, copy=False)), weights)

        with thread_limit(self.n_jobs):  # a source shares these threads among its blocks
            return source.reduce(block_total)

    def _collect(self, function: Callable[..., NDArray], X: Any, out: str | os.PathLike | None, name: str) -> NDArray:
        """Return a function of each row, (n,) or (n, K), or write it to a file."""
        target = None if out is None else check_out(out, self._files_in_use(X))
        source = X if isinstance(X, ArraySource) else self._to_predict(X)
        parameters, dtype = self._parameters(), self._dtype_with(source.dtype)
        with thread_limit(self.n_jobs):  # a source shares these threads among its blocks
            if isinstance(source, ArraySource) and out is None:
                return function(parameters, source.X)
            assert isinstance(source, (ArraySource, BlockSource)), "what is on a cluster has results there"
            results = source.each(lambda X, _: function(parameters, X.astype(dtype, copy=False)))
            if out is None or target is None:
                return np.concatenate(list(results))
            write(out, target, results, source.n_samples, name)
        return np.empty(0)

    def _files_in_use(self, X: Any) -> dict[str, tuple[Path, ...]]:
        """Files that results must not be written to, by what they are used for."""
        # The file of the fit, wherever the current folder was then, and the one that a fit would write now.
        names = (getattr(self, "_kept_in_", None), getattr(self, "checkpoint", None))
        kept = tuple(Path(os.path.expanduser(name)) for name in names if name is not None)
        return {READ: files_read(X), "the fit's state is kept in": kept}

    def _to_predict(self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None = None) -> Source:
        """Rows to predict, validated."""
        check_is_fitted(self)
        if isinstance(X, BlockSource):
            return self._block_source(X, sample_weight)
        X = self._rows(X)
        return ArraySource(X, self._sample_weight(sample_weight, X))

    def _rows(self, X: ArrayLike) -> NDArray:
        """Rows in memory to predict, validated, in the dtype that a product with the parameters would have."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return X.astype(self._dtype_with(X.dtype), copy=False)

    def _dtype_with(self, dtype: np.dtype) -> np.dtype:
        """The dtype that a product of such rows and the parameters has, float32 or float64."""
        return np.dtype(
            np.float32 if np.result_type(dtype, np.asarray(self.means_).dtype) == np.float32 else np.float64
        )

    def _sample_weight(self, sample_weight: ArrayLike | None, X: NDArray) -> NDArray[np.float64] | None:
        """Weights, validated; None for none."""
        if sample_weight is None:
            return None
        weights = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weights

    def _block_source(self, X: BlockSource, sample_weight: ArrayLike | None, *, reset: bool = False) -> BlockSource:
        """Rows that are read from somewhere, validated as far as that goes without reading them."""
        if sample_weight is not None:
            raise ValueError("sample_weight is for rows in memory; give weights as fastgmm.rows(..., weight=...)")
        # scikit-learn's check of names and numbers of features, of a table without rows.
        validate_data(self, X.without_rows(), reset=reset, skip_check_array=True)
        return X


def files_read(X: Any) -> tuple[Path, ...]:
    """Return the files that rows, or weights, are read from, as far as that is known."""
    return X.reader.files if isinstance(X, BlockSource) else files_behind(X)


def weighted_sum(values: NDArray, weights: NDArray[np.float64] | None) -> float:
    """The sum of the rows' values times their weights, in float64; a row of weight 0 adds 0 even if it has -inf."""
    if weights is None:
        return float(values.sum(dtype=np.float64))
    return float((values[weights > 0] * weights[weights > 0]).sum())
