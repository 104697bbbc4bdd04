"""Seeds of starts, from scikit-learn's parameter ``random_state``."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from sklearn.utils import check_random_state

from .annotations import RandomState

# Seeds of a random state that are kept.
N_FIRST_SEEDS = 16


def seeds(random_state: RandomState) -> Iterator[int]:
    """Return an endless iterator of seeds, one for each start."""
    if type(random_state) is int:
        return _seeds_of(random_state)
    return _drawn_seeds(check_random_state(random_state))


@functools.lru_cache(maxsize=256)
def _first_seeds(random_state: int) -> tuple[int, ...]:
    """Return the first seeds of a random state; a new generator takes as long as EM on 300 rows."""
    return tuple(itertools.islice(_drawn_seeds(check_random_state(random_state)), N_FIRST_SEEDS))


def _seeds_of(random_state: int) -> Iterator[int]:
    """Yield the seeds of a random state that is an integer."""
    yield from _first_seeds(random_state)
    yield from itertools.islice(_drawn_seeds(check_random_state(random_state)), N_FIRST_SEEDS, None)


def _drawn_seeds(random_state: np.random.RandomState) -> Iterator[int]:
    """Yield seeds, drawn from a generator when they are asked for."""
    while True:
        yield int(random_state.randint(2**63 - 1, dtype=np.int64))
