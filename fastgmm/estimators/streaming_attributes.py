"""What a stream has learnt, as fitted attributes that are computed when they are asked for."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from fastgmm.covariance import IllDefinedCovarianceError
from fastgmm.data.block_source import BlockSource
from fastgmm.data.sources import Source
from fastgmm.fitting.row_stream import RowStream
from fastgmm.fitting.stepwise import StepwiseEM
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from .base import ILL_DEFINED
from .fitted import FittedMixture


class LearntMixture(FittedMixture):
    """A mixture whose parameters are those of a stream of rows, as far as it has come."""

    n_components: int
    _stream: RowStream

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_stream") and self._stream.has_model

    def _now(self, *, warn: bool = False) -> StepwiseEM:
        """The model of all rows so far."""
        if not hasattr(self, "_stream"):
            check_is_fitted(self)
        with thread_limit(self.n_jobs), described(), warnings.catch_warnings():
            if self._stream.model is None and not warn:  # a few rows are often degenerate, and there will be more
                warnings.simplefilter("ignore")
            model = self._stream.present
        if model is None:
            raise NotFittedError(
                f"This {type(self).__name__} has seen {self.n_samples_seen_} row(s), and for "
                f"n_components={self.n_components} needs {self._stream.options.min_rows}: call partial_fit with more."
            )
        return model

    def _to_predict(self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None = None) -> Source:
        self._now()  # says how many rows are missing
        return super()._to_predict(X, sample_weight)

    def _parameters(self) -> MixtureParameters:
        return self._now().parameters

    def _moments(self) -> tuple[NDArray, NDArray, NDArray, str]:
        now = self._parameters()
        return now.weights, now.means, now.covariances, now.covariance_type

    def _learnt(self, name: str) -> NDArray:
        """An attribute of the model, in the rows' dtype if that can hold all of them."""
        parameters = self._parameters()
        if name == "precisions_":
            values = parameters.model.form.precisions(parameters.precisions_cholesky)
        else:
            values = getattr(parameters, name.removesuffix("_"))
        return values.astype(parameters.attribute_dtype(self._stream.dtype))

    weights_: NDArray = property(lambda self: self._learnt("weights_"))  # type: ignore[assignment]
    means_: NDArray = property(lambda self: self._learnt("means_"))  # type: ignore[assignment]
    covariances_: NDArray = property(lambda self: self._learnt("covariances_"))  # type: ignore[assignment]
    precisions_: NDArray = property(lambda self: self._learnt("precisions_"))  # type: ignore[assignment]
    precisions_cholesky_: NDArray = property(lambda self: self._learnt("precisions_cholesky_"))  # type: ignore[assignment]
    lower_bound_: float = property(lambda self: self._now().mean_log_likelihood)  # type: ignore[assignment]
    statistics_: SufficientStatistics = property(lambda self: self._now().statistics)  # type: ignore[assignment]
    n_steps_: int = property(lambda self: self._now().n_steps)  # type: ignore[assignment]

    @property
    def n_samples_seen_(self) -> int:
        if not hasattr(self, "_stream"):
            check_is_fitted(self)
        return int(self._stream.n_rows)


@contextlib.contextmanager
def described() -> Iterator[None]:
    """Say in scikit-learn's words that a component has collapsed."""
    try:
        yield
    except IllDefinedCovarianceError as error:
        raise ValueError(f"{ILL_DEFINED} Here {error.describe()}.") from None
