"""A stream of rows, divided into the start and the batches of stepwise EM.

The rows come in blocks of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.mixture.parameters import MixtureParameters

from .forgetting import ForgettingSchedule
from .stepwise import StepwiseEM

Rows = tuple[NDArray, NDArray[np.float64] | None]  # and their weights

# The start has as many rows as the largest of these demands. With half of it, streams lost up to 0.0011 nats per row
# more (`benchmarks/stream.py --init-size`).
INIT_ROWS = 10_000
INIT_ROWS_PER_COMPONENT = 256
INIT_ROWS_PER_PARAMETER = 20
# The start has at most this many bytes, in float64.
MAX_INIT_BYTES = 32 * 1024 * 1024
# A batch has as many rows as there are free parameters, and at least this number.
MIN_BATCH_ROWS = 100
# A start takes at most this number of half-lives, since older rows have little weight, and a batch at most this part
# of a half-life.
MAX_INIT_HALF_LIVES = 4
MAX_BATCH_HALF_LIVES = 0.5
# Larger values are refused before the rows are buffered: their squares cannot be added.
MAX_ABS_VALUE = {np.dtype(np.float64): 1e150, np.dtype(np.float32): 1e15}
# Blocks in the buffer are joined when there are this many.
MAX_BUFFERED_BLOCKS = 64


def default_sizes(n_components: int, n_features: int, n_parameters: int, half_life: float) -> tuple[int, int]:
    """Return the number of rows of the start, and of a batch."""
    wanted = max(INIT_ROWS, INIT_ROWS_PER_COMPONENT * n_components, INIT_ROWS_PER_PARAMETER * n_parameters)
    limit = min(MAX_INIT_BYTES // (8 * n_features), MAX_INIT_HALF_LIVES * half_life)
    init_size = max(2, n_components, int(min(wanted, limit)))
    batch_size = min(max(MIN_BATCH_ROWS, n_parameters), init_size, MAX_BATCH_HALF_LIVES * half_life)
    return init_size, int(max(1, batch_size))


@dataclass(frozen=True)
class StreamOptions:
    """Options by which a stream is learnt.

    Attributes
    ----------
    forgetting : ForgettingSchedule
    init_size : int
        Number of rows of the start.
    min_rows : int
        With fewer rows there is no model yet.
    reg_covar : float
        Added to every variance.
    seed : int
    start : callable (X, sample_weight, **options) -> MixtureParameters
        Fits the first rows.
    options : dict
        Options of `start`.
    """

    forgetting: ForgettingSchedule
    init_size: int
    min_rows: int
    reg_covar: float
    seed: int
    start: Callable[..., MixtureParameters]
    options: dict[str, Any]

    def next(self, model: StepwiseEM | None, X: NDArray, sample_weight: NDArray[np.float64] | None) -> StepwiseEM:
        """Return the model that has learnt these rows too.

        If there is no model yet, they are fitted as the start. Otherwise they are a batch.
        """
        if model is not None:
            return model.learn(X, sample_weight, self.forgetting, reg_covar=self.reg_covar)
        parameters = self.start(X, self.forgetting.batch_weights(sample_weight, len(X)), **self.options)
        return StepwiseEM.begin(parameters, X, sample_weight, self.forgetting)


@dataclass(frozen=True, eq=False)
class RowStream:
    """A model, and the rows after its last full batch, which are buffered.

    It is immutable: more rows make another one.

    Attributes
    ----------
    options : StreamOptions
    dtype : dtype
        The common dtype of all rows so far.
    model : StepwiseEM or None
        After the last full batch; None before the start.
    buffer : tuple of (X, sample_weight)
        Copies of the rows after it, and their weights, above 0.
    n_buffered : int
        Number of the rows in the buffer.
    """

    options: StreamOptions
    dtype: np.dtype
    model: StepwiseEM | None = None
    buffer: tuple[Rows, ...] = ()
    n_buffered: int = 0

    def fed(self, X: NDArray, sample_weight: NDArray[np.float64] | None) -> RowStream:
        """Return the stream after a block of rows; rows of weight 0 have no effect.

        Raises
        ------
        ValueError
            If the squares of values cannot be added.
        IllDefinedCovarianceError
            If a component collapses.
        """
        if sample_weight is not None and not sample_weight.all():
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        if not len(X):
            return self
        largest = max(abs(float(X.min())), abs(float(X.max())))
        if largest > MAX_ABS_VALUE[X.dtype]:
            raise ValueError(
                f"X has values up to {largest:.3g}, whose squares cannot be added in {X.dtype}. Scale the rows to "
                f"values below {MAX_ABS_VALUE[X.dtype]:g}."
            )
        model, buffer, n_buffered, begin = self.model, list(self.buffer), self.n_buffered, 0
        while True:
            size = self.options.init_size if model is None else self.options.forgetting.batch_size
            end = begin + max(size - n_buffered, 0)
            if end > len(X) or begin == end == len(X):
                break
            model = self.options.next(model, *_joined([*buffer, _part(X, sample_weight, begin, end)]))
            buffer, n_buffered, begin = [], 0, end
        if begin < len(X):
            rest, weights = _part(X, sample_weight, begin, len(X))
            buffer.append((rest.copy(), None if weights is None else weights.copy()))
            buffer = buffer if len(buffer) < MAX_BUFFERED_BLOCKS else [_joined(buffer)]
        dtype = np.result_type(self.dtype, X.dtype)
        return replace(self, dtype=dtype, model=model, buffer=tuple(buffer), n_buffered=n_buffered + len(X) - begin)

    @property
    def n_rows(self) -> float:
        """Number of rows so far."""
        return self.n_buffered + (0 if self.model is None else self.model.n_rows)

    @property
    def has_model(self) -> bool:
        """Return whether there have been enough rows for a model."""
        return self.model is not None or self.n_buffered >= self.options.min_rows

    @cached_property
    def present(self) -> StepwiseEM | None:
        """The model that has learnt the buffered rows too, as a last batch.

        None if there are too few rows.
        """
        if not self.buffer or not self.has_model:
            return self.model
        return self.options.next(self.model, *_joined(self.buffer))

    def with_model(self, model: StepwiseEM, dtype: np.dtype) -> RowStream:
        """Return the stream that continues from a model, with an empty buffer."""
        return RowStream(self.options, dtype, model)


def _part(X: NDArray, sample_weight: NDArray[np.float64] | None, begin: int, end: int) -> Rows:
    """Return the rows from `begin` to `end`, and their weights."""
    return X[begin:end], None if sample_weight is None else sample_weight[begin:end]


def _joined(parts: Sequence[Rows]) -> Rows:
    """Join blocks of rows; C-contiguous, so that equal rows give equal bits."""
    X = np.ascontiguousarray(parts[0][0] if len(parts) == 1 else np.concatenate([X for X, _ in parts]))
    if all(weights is None for _, weights in parts):
        return X, None
    return X, np.concatenate([np.ones(len(X)) if weights is None else weights for X, weights in parts])
