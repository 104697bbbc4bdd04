"""Stepwise EM: a mixture learnt from a stream of rows, in batches, each of which is seen once.

The statistics of a batch, taken under the parameters so far, are added to those of the rows before, which count less
and less, and an M-step follows (Cappé & Moulines, 2009, "On-line expectation-maximization algorithm for latent data
models", Journal of the Royal Statistical Society B 71). Statistics stay sums: those that two machines have gathered
from where they parted add. Nothing here needs scikit-learn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.e_step.complete import accumulate
from fastgmm.m_step.maximum_likelihood import estimate_weights_and_means, maximise
from fastgmm.m_step.model_conversion import statistics_like
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

Rows = tuple[NDArray, NDArray[np.float64] | None]  # and their weights
# Rows of the start, at the least, and at most so many bytes; rows of a batch, at the least, where there are no more
# free parameters, p. Held-out nats per row lost to an exact fit from the same start, medians of five seeds; of the
# streams of `benchmarks/stream.py` overlapping mixture, pixels, flights, patches, spherical patches:
#   these, decay 0.7            0.0007  0.0015  0.0043  0.0136  0.118
#   batches of p / 2            0.0010  0.0015  0.0045  0.0160  0.114
#   batches of 2 p              0.0005  0.0017  0.0040  0.0123  0.121
#   half the start              0.0007  0.0026  0.0054
#   decay 0.6                   0.0021  0.0017  0.0054  0.0193  0.116
#   decay 0.8                   0.0003  0.0020  0.0036  0.0111  0.123
#   decay 1                     0.0003  0.0039  0.0044  0.0119  0.129
#   averaged (Polyak, Ruppert)  0.0001  0.0011  0.0030  0.0115  0.119
# The last is what Cappé & Moulines propose, here with weights that rise with the cube of the step: it gains
# 0.002 at most, follows no drift, and is a second set of sums to carry and to merge.
INIT_ROWS, INIT_ROWS_PER_COMPONENT, INIT_ROWS_PER_PARAMETER, INIT_BYTES = 10_000, 256, 20, 32 * 1024 * 1024
BATCH_ROWS = 100
# A start of rows that count no more, or a step that is long beside a half-life, is not worth waiting for.
INIT_HALF_LIVES, BATCH_HALF_LIVES = 4, 0.5
# Rows whose squares no kernel can add: larger ones are refused before they are kept.
LARGEST = {np.dtype(np.float64): 1e150, np.dtype(np.float32): 1e15}
# Blocks that are held for the next batch before they are joined.
PARTS = 64


@dataclass(frozen=True)
class ForgettingSchedule:
    """How fast rows are forgotten.

    After m rows they count as ``N(m) = m (m / B)^(a - 1)``, all of them up to the first batch of B. A step on n rows so
    multiplies the statistics before by ``(N(m + n) - n) / N(m)``; normalised by N they are ``s + g (s_batch - s)`` with
    Cappé & Moulines' step ``g = (m / B)^-a``, where m / B is the number of batches so far. With a = 1 nothing is
    forgotten, by rounding either. A half-life of h rows is another factor ``2^-n/h``; inside a batch the i-th row from
    its end then counts as ``2^-i/h``.

    Attributes
    ----------
    batch_size : int
        B, in rows.
    learning_decay : float
        a, above 0.5 and at most 1.
    half_life : float
        h, in rows.
    """

    batch_size: int
    learning_decay: float
    half_life: float = math.inf

    def effective_rows(self, n_rows: float) -> float:
        """As how many rows so many count."""
        return n_rows * max(1.0, n_rows / self.batch_size) ** (self.learning_decay - 1)

    def retained(self, n_before: float, n_new: int) -> float:
        """How much of the statistics of rows is left after so many new ones, between 0 and 1."""
        left = (self.effective_rows(n_before + n_new) - n_new) / self.effective_rows(n_before)
        return float(min(max(left, 0.0), 1.0) * 2 ** (-n_new / self.half_life))

    def recency(self, n_rows: int) -> NDArray[np.float64] | None:
        """How much each row of a batch counts at its end, (n_rows,); None if all count alike."""
        if self.half_life == math.inf:
            return None
        return 2.0 ** (-np.arange(n_rows - 1, -1, -1.0) / self.half_life)

    def count(self, n_rows: int) -> float:
        """As how many rows those of a batch count at its end."""
        recency = self.recency(n_rows)
        return float(n_rows if recency is None else recency.sum())

    def weights(self, sample_weight: NDArray[np.float64] | None, n_rows: int) -> NDArray[np.float64] | None:
        """The weights of a batch's rows, with their recency, (n_rows,); None for ones."""
        recency = self.recency(n_rows)
        if recency is None or sample_weight is None:
            return sample_weight if recency is None else recency
        return sample_weight * recency


def default_sizes(n_components: int, n_features: int, n_parameters: int, half_life: float) -> tuple[int, int]:
    """Rows of the start, and of a batch."""
    wanted = max(INIT_ROWS, INIT_ROWS_PER_COMPONENT * n_components, INIT_ROWS_PER_PARAMETER * n_parameters)
    most = min(INIT_BYTES // (8 * n_features), INIT_HALF_LIVES * half_life)
    init_size = max(2, n_components, int(min(wanted, most)))
    return init_size, int(max(1, min(max(BATCH_ROWS, n_parameters), init_size, BATCH_HALF_LIVES * half_life)))


@dataclass(frozen=True, eq=False)
class StepwiseEM:
    """A mixture, and the statistics of the rows that it has learnt. Never changed: a step makes another.

    Attributes
    ----------
    parameters : MixtureParameters
    past : SufficientStatistics
        Of the rows of the start, or of those before the fork.
    past_rows, past_effective : float
        How many they are, and as how many they counted then.
    past_steps : int
        Batches of the past.
    past_share : float
        How much of them still counts.
    fresh : SufficientStatistics or None
        Of the rows since then.
    fresh_rows, fresh_effective : float
        How many they are, and as how many they count.
    fresh_steps : int
        Batches since then.
    learnt : frozenset of bytes
        Digests of the first batch after the start or fork, of each model in this one: who shares one has learnt the
        same rows.
    """

    parameters: MixtureParameters
    past: SufficientStatistics
    past_rows: float
    past_effective: float
    past_steps: int = 0
    past_share: float = 1.0
    fresh: SufficientStatistics | None = None
    fresh_rows: int = 0
    fresh_effective: float = 0.0
    fresh_steps: int = 0
    learnt: frozenset[bytes] = frozenset()

    @classmethod
    def begin(
        cls,
        parameters: MixtureParameters,
        X: NDArray,
        sample_weight: NDArray[np.float64] | None,
        pace: ForgettingSchedule,
    ) -> StepwiseEM:
        """The model after a start: parameters that were fitted to some rows, and those rows' statistics."""
        share = pace.effective_rows(len(X)) / len(X)
        statistics = accumulate(parameters, X, pace.weights(sample_weight, len(X))).scaled(share)
        return cls(parameters, statistics, len(X), share * pace.count(len(X)))

    @property
    def n_rows(self) -> float:
        """Rows learnt."""
        return self.past_rows + self.fresh_rows

    @property
    def n_steps(self) -> int:
        """Batches since the start."""
        return self.past_steps + self.fresh_steps

    @property
    def n_effective(self) -> float:
        """As how many rows they count."""
        return self.past_effective * self.past_share + self.fresh_effective

    @property
    def statistics(self) -> SufficientStatistics:
        """Of all rows, each as much as it still counts."""
        past = self.past.scaled(self.past_share)
        return past if self.fresh is None else self.fresh + past

    @property
    def mean_log_likelihood(self) -> float:
        """Of the rows since the start, each before it was learnt; before there are any, of those of the start."""
        return (self.past if self.fresh is None else self.fresh).mean_log_likelihood

    def learn(
        self, X: NDArray, sample_weight: NDArray[np.float64] | None, pace: ForgettingSchedule, *, reg_covar: float
    ) -> StepwiseEM:
        """One step: the model that has learnt a batch too.

        Parameters
        ----------
        X : (n, D) float64 or float32
        sample_weight : (n,) or None
            Above 0.
        pace : ForgettingSchedule
        reg_covar : float
            Added to every variance.

        Raises
        ------
        IllDefinedCovarianceError
            If a covariance is not positive definite, which with `reg_covar` none is.
        """
        batch = accumulate(self.parameters, X, pace.weights(sample_weight, len(X)))
        retained = pace.retained(self.n_rows, len(X))
        learnt = replace(
            self,
            past_share=self.past_share * retained,
            # The batch's reference points are today's means.
            fresh=batch if self.fresh is None else batch + self.fresh.scaled(retained),
            fresh_rows=self.fresh_rows + len(X),
            fresh_effective=self.fresh_effective * retained + pace.count(len(X)),
            fresh_steps=self.fresh_steps + 1,
            learnt=self.learnt or frozenset({_digest(X)}),
        )
        return learnt._maximised(reg_covar)

    def fork(self) -> StepwiseEM:
        """The same model, all of whose rows are the past that it has in common with other forks."""
        return StepwiseEM(self.parameters, self.statistics, self.n_rows, self.n_effective, self.n_steps)

    def merged(self, other: StepwiseEM, *, reg_covar: float) -> StepwiseEM:
        """What both have learnt since they parted, and once what they had learnt before.

        The past counts by the product of what it counts in each, as if the rows of both had come since.

        Raises
        ------
        ValueError
            If their pasts differ, or if they have learnt the same rows since.
        """
        if not _are_equal(self.past, other.past) or self.past_rows != other.past_rows:
            raise ValueError(
                "the two models did not begin from the same start, so there is no telling which rows both have "
                "learnt: make forks of one model with fork(), give each its own rows, and add those"
            )
        if self.learnt & other.learnt:
            raise ValueError(
                "the two models have learnt the same rows since they parted, which would count twice: make the "
                "copies of a model that are to be added later with fork()"
            )
        parts = [part for part in (self.fresh, other.fresh) if part is not None]
        both = replace(
            self,
            past_share=self.past_share * other.past_share,
            fresh=sum(parts[1:], start=parts[0]) if parts else None,
            fresh_rows=self.fresh_rows + other.fresh_rows,
            fresh_effective=self.fresh_effective + other.fresh_effective,
            fresh_steps=self.fresh_steps + other.fresh_steps,
            learnt=self.learnt | other.learnt,
        )
        return both._maximised(reg_covar) if parts else both

    def _maximised(self, reg_covar: float) -> StepwiseEM:
        """The M-step; a component with fewer than D + 1 rows has the mean and covariance it had for the missing ones.

        Without that a component from which the rows drift away would collapse on the last few, or on rounding. Weights
        are those of the rows alone.
        """
        statistics, before = self.statistics, self.parameters
        few = (statistics.n_features + 1) * statistics.total_weight / self.n_effective
        missing = np.maximum(few - statistics.weight_sums, 0.0)
        full = statistics if not missing.any() else statistics + _as_before(before, missing, reg_covar)
        parameters = maximise(full, before.covariance_type, reg_covar=reg_covar, before=before)
        if full is not statistics:
            parameters = replace(parameters, weights=estimate_weights_and_means(statistics)[0])
        return replace(self, parameters=parameters)


@dataclass(frozen=True)
class StreamOptions:
    """What a stream is learnt by.

    Attributes
    ----------
    pace : ForgettingSchedule
    init_size : int
        Rows of the start.
    fewest : int
        Rows that a start can be made of at all.
    reg_covar : float
    seed : int
    start : callable (X, sample_weight, **options) -> MixtureParameters
        Fits the first rows.
    options : dict
    """

    pace: ForgettingSchedule
    init_size: int
    fewest: int
    reg_covar: float
    seed: int
    start: Callable[..., MixtureParameters]
    options: dict[str, Any]

    def next(self, model: StepwiseEM | None, X: NDArray, sample_weight: NDArray[np.float64] | None) -> StepwiseEM:
        """The model that has learnt these rows too: a start, or a step."""
        if model is not None:
            return model.learn(X, sample_weight, self.pace, reg_covar=self.reg_covar)
        parameters = self.start(X, self.pace.weights(sample_weight, len(X)), **self.options)
        return StepwiseEM.begin(parameters, X, sample_weight, self.pace)


@dataclass(frozen=True, eq=False)
class RowStream:
    """A model, and the rows after its last full batch. Never changed: more rows make another.

    Attributes
    ----------
    options : StreamOptions
    dtype : dtype
        That of the rows so far together.
    model : StepwiseEM or None
        After the last full batch; None before the start.
    held : tuple of (X, sample_weight)
        Copies of the rows since, and their weights, above 0.
    n_held : int
    """

    options: StreamOptions
    dtype: np.dtype
    model: StepwiseEM | None = None
    held: tuple[Rows, ...] = ()
    n_held: int = 0

    def fed(self, X: NDArray, sample_weight: NDArray[np.float64] | None) -> RowStream:
        """The stream after a block of rows; those of weight 0 are none.

        Raises
        ------
        ValueError
            If values are too large for their squares.
        """
        if sample_weight is not None and not sample_weight.all():
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        if not len(X):
            return self
        largest = max(abs(float(X.min())), abs(float(X.max())))
        if largest > LARGEST[X.dtype]:
            raise ValueError(
                f"X has values up to {largest:.3g}, whose squares cannot be added in {X.dtype}: scale the rows to "
                f"values below {LARGEST[X.dtype]:g}"
            )
        model, held, n_held, begin = self.model, list(self.held), self.n_held, 0
        while True:
            size = self.options.init_size if model is None else self.options.pace.batch_size
            end = begin + max(size - n_held, 0)
            if end > len(X) or begin == end == len(X):
                break
            model = self.options.next(model, *_joined([*held, _part(X, sample_weight, begin, end)]))
            held, n_held, begin = [], 0, end
        if begin < len(X):
            rest, weights = _part(X, sample_weight, begin, len(X))
            held.append((rest.copy(), None if weights is None else weights.copy()))
            held = held if len(held) < PARTS else [_joined(held)]
        dtype = np.result_type(self.dtype, X.dtype)
        return replace(self, dtype=dtype, model=model, held=tuple(held), n_held=n_held + len(X) - begin)

    @property
    def n_rows(self) -> float:
        """Rows so far."""
        return self.n_held + (0 if self.model is None else self.model.n_rows)

    @property
    def has_model(self) -> bool:
        """Whether there have been enough rows for one."""
        return self.model is not None or self.n_held >= self.options.fewest

    @cached_property
    def present(self) -> StepwiseEM | None:
        """The model that has learnt the held rows too, as the stream's last batch; None of too few rows."""
        if not self.held or not self.has_model:
            return self.model
        return self.options.next(self.model, *_joined(self.held))

    def with_model(self, model: StepwiseEM, dtype: np.dtype) -> RowStream:
        """The stream that goes on from a model, with nothing held."""
        return RowStream(self.options, dtype, model)


def given(parameters: MixtureParameters, n_rows: float, mean_log_likelihood: float, reg_covar: float) -> StepwiseEM:
    """A model that counts as if it had been learnt from so many rows, with that mean log-likelihood."""
    statistics = _as_before(parameters, n_rows * parameters.weights, reg_covar)
    return StepwiseEM(parameters, replace(statistics, log_likelihood=n_rows * mean_log_likelihood), n_rows, n_rows)


def _as_before(parameters: MixtureParameters, weight_sums: NDArray, reg_covar: float) -> SufficientStatistics:
    """Statistics of rows of which an M-step makes the same means and covariances."""
    # The M-step adds `reg_covar` again: if it stayed, a component without rows would grow with every step.
    return statistics_like(parameters, weight_sums, parameters.covariance_type, reg_covar=reg_covar)


def _part(X: NDArray, sample_weight: NDArray[np.float64] | None, begin: int, end: int) -> Rows:
    return X[begin:end], None if sample_weight is None else sample_weight[begin:end]


def _joined(parts: Sequence[Rows]) -> Rows:
    """Blocks of rows as one, C-contiguous, so that the same rows give the same bits."""
    X = np.ascontiguousarray(parts[0][0] if len(parts) == 1 else np.concatenate([X for X, _ in parts]))
    if all(weights is None for _, weights in parts):
        return X, None
    return X, np.concatenate([np.ones(len(X)) if weights is None else weights for X, weights in parts])


def _digest(X: NDArray) -> bytes:
    """A digest of rows."""
    return hashlib.blake2b(np.ascontiguousarray(X).tobytes(), digest_size=16).digest()


def _are_equal(one: SufficientStatistics, other: SufficientStatistics) -> bool:
    names = ("reference", "weight_sums", "first_moments", "scatter")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("layout", *names))
