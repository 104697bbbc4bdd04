"""Random numbers that never change: our own stream, a counter run through SplitMix64.

A seed means the same start on every machine, with any number of threads, and whatever else is upgraded.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .sources import ArraySource, Source


class RandomStream:
    """Uniform random numbers from a 64-bit seed: SplitMix64, so the same for ever."""

    MASK = (1 << 64) - 1

    def __init__(self, seed: int):
        self.state = operator.index(seed) & self.MASK  # a NumPy integer would overflow

    def word(self) -> int:
        """The next 64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        return (self.word() >> 11) / (1 << 53)

    def uniforms(self, n: int) -> NDArray[np.float64]:
        """The next n numbers in [0, 1), all at once."""
        n = operator.index(n)
        z = np.uint64(self.state) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.state = (self.state + n * 0x9E3779B97F4A7C15) & self.MASK
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / (1 << 53)


def drawer(source: ArraySource, stream: RandomStream) -> Callable[[], int]:
    """Draws the numbers of rows, with probability proportional to their weights."""
    if source.sample_weight is None:
        return lambda: int(stream.uniform() * len(source.X))
    cumulative = np.cumsum(source.sample_weight)
    last = int(np.flatnonzero(source.sample_weight)[-1])
    return lambda: min(int(np.searchsorted(cumulative, stream.uniform() * cumulative[-1], side="right")), last)


def shares(n_rows: int, stream: RandomStream) -> NDArray[np.float64]:
    """Where to draw so many rows, in [0, 1): one from each of so many equal shares, increasing."""
    return (np.arange(n_rows) + stream.uniforms(n_rows)) / n_rows


def sample(source: Source, n_rows: int, stream: RandomStream) -> ArraySource:
    """Rows drawn by their weights, in order, one from each of so many shares of equal weight; copied, and unweighted.

    A row of weight 3 is drawn as three copies of it side by side would be, and rows that come sorted, in whatever way,
    are all represented.
    """
    return source.draw(shares(n_rows, stream))[0]


def at_most(source: Source, n_rows: int, stream: RandomStream) -> ArraySource:
    """All rows in memory, if they are no more than so many, or a sample."""
    n_rows = int(min(n_rows, source.most_resident))
    return source.whole() if source.n_samples <= n_rows else sample(source, n_rows, stream)
