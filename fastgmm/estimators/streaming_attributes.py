"""Fitted attributes of a streaming mixture, computed when they are read."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.sources import Source
from fastgmm.fitting.row_stream import RowStream
from fastgmm.fitting.stepwise import StepwiseEM
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .annotations import FloatArray, RowsLike
from .fitted import Array, FittedMixture
from .messages import ILL_DEFINED


class StreamedMixture(FittedMixture):
    """A mixture whose fitted attributes include all rows so far.

    Rows that do not fill a batch are buffered. Each read of an attribute learns them as a smaller batch, in a copy of
    the model.
    """

    n_components: int
    _stream: RowStream

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_stream") and self._stream.has_model

    def _now(self, *, warn: bool = False) -> StepwiseEM:
        """Return the model of all rows so far, including those that are buffered.

        Parameters
        ----------
        warn : bool
            Whether to issue the warnings of a fit to the first rows.

        Raises
        ------
        NotFittedError
            If there are fewer rows than a model needs.
        """
        if not hasattr(self, "_stream"):
            check_is_fitted(self)
        with thread_limit(self.n_jobs), collapse_described(), warnings.catch_warnings():
            if self._stream.model is None and not warn:  # few rows are often degenerate, and more will come
                warnings.simplefilter("ignore")
            model = self._stream.present
        if model is None:
            raise NotFittedError(
                f"This {type(self).__name__} has seen {self.n_samples_seen_} row(s), and for "
                f"n_components={self.n_components} needs {self._stream.options.min_rows}. Call partial_fit with more "
                "rows."
            )
        return model

    def _to_predict(self, X: RowsLike, sample_weight: ArrayLike | None = None) -> Source:
        self._now()  # raises the error that says how many rows are missing
        return super()._to_predict(X, sample_weight)

    def _parameters(self) -> MixtureParameters:
        return self._now().parameters

    def _moments(self) -> tuple[Array, Array, Array, str]:
        now = self._parameters()
        return now.weights, now.means, now.covariances, now.covariance_type

    def _attribute(self, name: str) -> FloatArray:
        """Return an array of the model, in the rows' dtype if that can hold it."""
        parameters = self._parameters()
        if name == "precisions":
            values = parameters.model.form.precisions(parameters.precisions_cholesky)
        else:
            values = getattr(parameters, name)
        return values.astype(parameters.attribute_dtype(self._stream.dtype))

    @property
    def weights_(self) -> FloatArray:  # type: ignore[override]
        """Weights of the components, of shape (n_components,)."""
        return self._attribute("weights")

    @property
    def means_(self) -> FloatArray:  # type: ignore[override]
        """Means of the components, of shape (n_components, n_features)."""
        return self._attribute("means")

    @property
    def covariances_(self) -> FloatArray:  # type: ignore[override]
        """Covariances, in the shape that `covariance_type` has in `GaussianMixture`."""
        return self._attribute("covariances")

    @property
    def precisions_(self) -> FloatArray:
        """Inverses of the covariances, in the same shape."""
        return self._attribute("precisions")

    @property
    def precisions_cholesky_(self) -> FloatArray:  # type: ignore[override]
        """Upper triangular factors P of the precisions, ``precision = P @ P.T``."""
        return self._attribute("precisions_cholesky")

    @property
    def lower_bound_(self) -> float:
        """Mean log-likelihood of the rows since the start, in nats per row."""
        return self._now().mean_log_likelihood

    @property
    def statistics_(self) -> SufficientStatistics:
        """Sufficient statistics of all rows so far, after forgetting."""
        return self._now().statistics

    @property
    def n_steps_(self) -> int:
        """Number of batches since the start."""
        return self._now().n_steps

    @property
    def n_samples_seen_(self) -> int:
        """Number of rows so far, without those of weight 0."""
        if not hasattr(self, "_stream"):
            check_is_fitted(self)
        return int(self._stream.n_rows)


@contextlib.contextmanager
def collapse_described() -> Iterator[None]:
    """Replace the error of a collapsed component by one with scikit-learn's text."""
    try:
        yield
    except IllDefinedCovarianceError as error:
        raise ValueError(f"{ILL_DEFINED} Here {error.describe()}.") from None
