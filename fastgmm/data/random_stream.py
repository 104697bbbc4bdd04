"""Random numbers that depend on the seed alone, and samples of rows.

The generator is SplitMix64: a counter and a mixing function. A seed gives the same start on every machine, with any
number of threads, and with any version of NumPy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .sources import ArraySource, Source
from .weight_sums import CumulativeWeights

# 2^64 divided by the golden ratio: the step of the counter.
STEP = 0x9E3779B97F4A7C15
# Multipliers of the mixing function.
FIRST_MIXER = 0xBF58476D1CE4E5B9
SECOND_MIXER = 0x94D049BB133111EB


class RandomStream:
    """Uniform random numbers from a 64-bit seed, by SplitMix64.

    See Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators.
    """

    MASK = (1 << 64) - 1

    def __init__(self, seed: int):
        self.state = operator.index(seed) & self.MASK  # a NumPy integer would overflow

    def word(self) -> int:
        """Return the next 64 random bits."""
        self.state = (self.state + STEP) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * FIRST_MIXER) & self.MASK
        z = ((z ^ (z >> 27)) * SECOND_MIXER) & self.MASK
        return z ^ (z >> 31)

    def uniform(self) -> float:
        """Return the next number in [0, 1)."""
        return (self.word() >> 11) / (1 << 53)

    def uniforms(self, n: int) -> NDArray[np.float64]:
        """Return the next n numbers in [0, 1), the same as n calls of `uniform`."""
        n = operator.index(n)
        z = np.uint64(self.state) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(STEP)
        self.state = (self.state + n * STEP) & self.MASK
        z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST_MIXER)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND_MIXER)
        return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / (1 << 53)


def drawer(source: ArraySource, stream: RandomStream) -> Callable[[], int]:
    """Return a function that draws row numbers.

    Probabilities are proportional to the weights.
    """
    cumulative = CumulativeWeights(len(source.X), source.sample_weight)
    return lambda: int(cumulative.rows_at(np.float64(stream.uniform() * cumulative.total)))


def shares(n_rows: int, stream: RandomStream) -> NDArray[np.float64]:
    """Return `n_rows` increasing points in [0, 1).

    There is one random point in each of `n_rows` equal intervals.
    """
    return (np.arange(n_rows) + stream.uniforms(n_rows)) / n_rows


def sample(source: Source, n_rows: int, stream: RandomStream) -> ArraySource:
    """Return a sample of rows drawn by their weights, in order.

    The rows are copied, and have no weights.

    The total weight is cut into `n_rows` equal shares, and one row is drawn from each. A row of weight 3 is drawn as
    three adjacent copies of it would be. Sorted rows are represented evenly.
    """
    return source.draw(shares(n_rows, stream))[0]


def at_most(source: Source, n_rows: int, stream: RandomStream) -> ArraySource:
    """Return all rows if there are at most `n_rows`, else a sample of `n_rows`."""
    n_rows = int(min(n_rows, source.max_resident_rows))
    return source.whole() if source.n_samples <= n_rows else sample(source, n_rows, stream)
