"""Sums of streaming mixtures that have learnt different rows."""

from __future__ import annotations

import copy
from typing import Self

import numpy as np

from .streaming_attributes import StreamedMixture, collapse_described
from .validation import plain


class AddableMixture(StreamedMixture):
    """A streaming mixture that can be added to others with the same past."""

    reg_covar: float

    def fork(self) -> Self:
        """Copy the model so that it can later be added to other copies.

        All forks share the rows so far, their past. Each can learn rows of its own, for example on another machine.
        ``a + b`` of two forks counts the past once: its statistics are those of the past, of a's rows and of b's rows.
        More forks are added in the same way, ``sum(forks)``. For the next round make forks of the sum.

        With `learning_decay` below 1, or with `half_life`, the past of the sum counts by the product of what each fork
        retains of it. Models that are not forks can be added if they have the same start and then learnt different
        rows.

        Returns
        -------
        StreamingGaussianMixture
            A copy of this model.

        Examples
        --------
        >>> import numpy as np
        >>> from fastgmm import StreamingGaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(3000, 1))
        >>> parent = StreamingGaussianMixture(init_size=1000, learning_decay=1).partial_fit(X[:1000])
        >>> one, other = parent.fork().partial_fit(X[1000:1700]), parent.fork().partial_fit(X[1700:])
        >>> (one + other).statistics_.total_weight
        3000.0
        """
        model, fork = self._now().fork(), copy.copy(self)
        fork._stream = self._stream.with_model(model, self._stream.dtype)
        return fork

    def __add__(self, other: object) -> Self:
        if not isinstance(other, AddableMixture):
            return NotImplemented
        for name in ("n_components", "covariance_type", "n_features_in_", "feature_names_in_"):
            ours, theirs = (getattr(model, name, None) for model in (self, other))
            if not np.array_equal(np.asarray(ours), np.asarray(theirs)):
                raise ValueError(
                    f"Models can be added only if they have the same {name}, but have {ours!r} and {theirs!r}. Add "
                    "forks of one model."
                )
        one, another = self._now(), other._now()
        total = copy.copy(self)
        dtype = np.result_type(self._stream.dtype, other._stream.dtype)
        with collapse_described():
            model = one.merged(another, reg_covar=plain(self.reg_covar))
        total._stream = self._stream.with_model(model, dtype)
        return total

    def __radd__(self, other: object) -> Self:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum() starts from 0
