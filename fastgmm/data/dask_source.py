"""Rows on the workers of a Dask cluster: what is sent are parameters, what comes back are sums."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
import dask
import distributed
import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import thread_limit

from .block_source import RESIDENT_BYTES
from .conversion import aligned, as_rows, as_weights, filled, renamed
from .sources import ArraySource, BlockFunction, Weights, row_checksum

Block = tuple[NDArray, Weights]
# Sums that one task adds up: of more workers in several rounds.
FAN_IN = 8
# How often a pass is begun again because what was sent for it is lost with the workers that had it.
ATTEMPTS = 3
# Seconds after which to ask again which worker has what. Until then a pass sends tasks to workers that may be gone,
# which others then take.
ASK_AGAIN = 5.0
# Bytes of parameters that do not go through the scheduler.
LARGE = 1 << 20
# Rows by which a source is told from another one.
SHARES_OF_FINGERPRINT = 1024


class BlockSummary(NamedTuple):
    """What a source has to know of a block."""

    n_samples: int
    n_weighted: int
    total_weight: float
    scale: float
    sum_scaled: float
    sum_squares: float


class DaskSource:
    """Rows that stay on workers; see `sources.Source`.

    Every sum over the rows is one task for each worker that has blocks, on as many threads as the worker has, and a
    tree of additions. Blocks are kept by the cluster as results of tasks: those of a worker that dies are computed
    again elsewhere, and nothing else is.

    Parameters
    ----------
    client : distributed.Client
    blocks : list of dask.delayed.Delayed
        Arrays or data frames of rows.
    weights : list of dask.delayed.Delayed, optional
        Their weights.
    n_features : int
    dtype : float64 or float32
    labels : tuple, optional
        Of the columns, if blocks are data frames, which are aligned by them.
    """

    def __init__(
        self,
        client: distributed.Client,
        blocks: list,
        weights: list | None,
        n_features: int,
        dtype: np.dtype,
        labels: tuple | None = None,
    ):
        self.client, self.n_features, self.dtype = client, n_features, dtype
        prepare = dask.delayed(prepared_block)
        pairs = [
            prepare(block, None if weights is None else weights[i], n_features, dtype, i, labels)
            for i, block in enumerate(blocks)
        ]
        self.futures = client.compute(pairs)
        try:
            distributed.wait(self.futures)
            summaries = client.gather(client.map(summary_of, self.futures, pure=False))
        except BaseException:
            self.release()
            raise
        self.rows_by_block = [summary.n_samples for summary in summaries]
        # Blocks without rows, which filters leave behind, take part in nothing.
        self._there = [i for i, n in enumerate(self.rows_by_block) if n]
        if not self._there:
            raise ValueError("Found array with 0 sample(s): there are no rows in any block.")
        self.futures, self.summaries = [self.futures[i] for i in self._there], [summaries[i] for i in self._there]
        self.weighted = weights is not None
        self.n_samples = sum(s.n_samples for s in self.summaries)
        self.n_weighted = sum(s.n_weighted for s in self.summaries)
        self.total_weight = float(sum(s.total_weight for s in self.summaries))
        if not self.total_weight > 0:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        self.earlier_pass = self.checksum = None
        self._point: NDArray[np.float64] | None = None
        self._found: dict[str, list] = {}
        self._asked = -math.inf

    @property
    def effective_rows(self) -> float:
        if not self.weighted:
            return float(self.n_samples)
        scale = max(s.scale for s in self.summaries)
        total = sum(s.sum_scaled * (s.scale / scale) for s in self.summaries)
        squares = sum(s.sum_squares * (s.scale / scale) ** 2 for s in self.summaries)
        return total**2 / squares

    @property
    def most_resident(self) -> int:
        return max(1024, RESIDENT_BYTES // (self.n_features * self.dtype.itemsize))

    def release(self, *others: list) -> None:
        """Forget the blocks, and other futures, after an error: workers would keep them as long as it is kept."""
        self.client.cancel([*self.futures, *itertools.chain(*others)])
        self.futures = []

    def place(self, values: list, prepare: Callable[[Any, int, int], NDArray]) -> list:
        """Give `reduce_with` something for the rows: futures of ``prepare(value, rows, number)``, one for each block.

        Parameters
        ----------
        values : list
            Arrays, or delayed ones, one for each of the blocks that the source was made of.
        prepare : callable
            Given a value, and how many rows its block has and the block's number: what functions are to be given.
        """
        beside = dask.delayed(beside_block)  # near the block, which is larger
        tasks = [beside(prepare, values[i], block, i) for i, block in zip(self._there, self.futures, strict=True)]
        return self.client.compute(tasks)

    def reduce(self, function: BlockFunction, *, earlier_pass: Any = None) -> Any:
        return self._reduce(function, None)

    def reduce_with(self, given: list, function: Callable[[NDArray, Weights, NDArray], Any]) -> Any:
        return self._reduce(function, given)

    def _reduce(self, function: Callable, given: list | None) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._reduce_once(function, given)
            except (distributed.client.FutureCancelledError, distributed.scheduler.KilledWorker):
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError

    def _reduce_once(self, function: Callable, given: list | None) -> Any:
        sent = self._sent(function)
        sums = []
        for worker, numbers in self._blocks_by_worker().items():
            blocks = [self.futures[i] for i in numbers]
            beside = None if given is None else [given[i] for i in numbers]
            sums.append(
                self.client.submit(
                    sum_over, sent, blocks, beside, workers=[worker], allow_other_workers=True, pure=False
                )
            )
        while len(sums) > FAN_IN:
            groups = [sums[i : i + FAN_IN] for i in range(0, len(sums), FAN_IN)]
            sums = [self.client.submit(added, *group, pure=False) for group in groups]
        return added(*self.client.gather(sums))

    def _sent(self, function: BlockFunction) -> Any:
        """A function with the parameters in it, as tasks take it.

        Small ones go with the tasks; large ones to one worker, from where others have them. (A broadcast to all waits
        for half a minute, again and again, for a worker that has died.)
        """
        packed = cloudpickle.dumps(function)
        return packed if len(packed) <= LARGE else self.client.scatter(packed, hash=False)

    def _blocks_by_worker(self) -> dict[str, list[int]]:
        """The blocks' numbers, by a worker that has them, or not long ago had."""
        if time.monotonic() - self._asked < ASK_AGAIN:
            return self._found
        where = self.client.who_has(self.futures)
        found = defaultdict(list)
        for i, future in enumerate(self.futures):
            holders = sorted(where.get(future.key, ()))
            found[holders[0] if holders else ""].append(i)
        lost = found.pop("", [])
        workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"]) if lost else []
        for n, i in enumerate(lost):
            found[workers[n % len(workers)]].append(i)
        self._found, self._asked = dict(found), time.monotonic()
        return self._found

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Rows at increasing shares of the total weight: each block's on its worker, together here."""
        amounts = [s.total_weight if self.weighted else s.n_samples for s in self.summaries]
        ends = np.cumsum(amounts)
        drawn = []
        for i, block in enumerate(self.futures):
            begin = ends[i - 1] if i else 0.0
            targets = []
            for share in shares:
                at = share * ends[-1]
                until = ends[i] if i + 1 < len(self.futures) else np.inf
                targets.append(at[(at >= begin) & (at < until)] - begin)
            drawn.append(self.client.submit(rows_at, block, targets, pure=False))
        parts = self.client.gather(drawn)
        return [ArraySource(np.concatenate([part[s] for part in parts])) for s in range(len(shares))]

    def whole(self) -> ArraySource:
        blocks = [self.client.submit(weighted_rows, block, pure=False) for block in self.futures]
        parts = self.client.gather(blocks)
        X = np.concatenate([X for X, _ in parts])
        return ArraySource(X, np.concatenate([w for _, w in parts]) if self.weighted else None)

    def fingerprint(self) -> int:
        """A checksum of rows at fixed shares of the weight."""
        return row_checksum(self.draw(np.arange(SHARES_OF_FINGERPRINT) / SHARES_OF_FINGERPRINT)[0].X, None)

    def point_near(self) -> NDArray[np.float64]:
        if self._point is None:
            self._point = self.client.submit(point_of, self.futures[0], pure=False).result()
        return self._point


def on_all_threads(function: Callable) -> Callable:
    """Have a task's kernels run on as many threads as its worker has."""

    @functools.wraps(function)
    def threaded(*arguments: Any) -> Any:
        with thread_limit(distributed.get_worker().state.nthreads):
            return function(*arguments)

    return threaded


def prepared_block(
    block: Any, weights: Any, n_features: int, dtype: np.dtype, number: int, labels: tuple | None = None
) -> Block:
    """Return the rows (n, D) and weights (n,) of a block, as kernels read them; ValueError if they cannot be used."""
    try:
        X = as_rows(block if labels is None else aligned(block, labels))
        if X.shape[1] != n_features:
            raise ValueError(f"its shape is {X.shape}, but it should have {n_features} features")
        if len(X) and dtype == np.float32 and np.result_type(X.dtype, dtype) != dtype:
            raise ValueError(f"it holds {X.dtype}, but X says {dtype}: call X.astype first, or mend what X says")
    except (ValueError, TypeError) as error:
        raise renamed(error, f"block {number} of X") from error
    with np.errstate(over="ignore"):  # a value too large is found below
        X = X.astype(dtype, copy=False)
    X = X if X.flags.f_contiguous else np.ascontiguousarray(X)
    if not np.isfinite(X).all():
        what = "NaN" if np.isnan(X).any() else f"infinity or a value too large for {np.dtype(dtype)}"
        row, feature = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
        column = feature if labels is None else repr(labels[feature])
        raise ValueError(f"Input X contains {what}, in row {row} of block {number}, column {column}.")
    if weights is None:
        return X, None
    if getattr(weights, "ndim", 1) == 2 and weights.shape[1] == 1:  # a column of a data frame
        weights = np.asarray(filled(weights))[:, 0]
    try:
        w = as_weights(weights).astype(np.float64, copy=False)
    except (ValueError, TypeError) as error:
        raise renamed(error, f"weights of block {number}") from error
    if w.shape != (len(X),):
        raise ValueError(f"block {number} has {len(X)} rows, but weights of shape {w.shape}")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"Weights should be finite and not negative, but in block {number} some are not.")
    return X, w


def beside_block(prepare: Callable[[Any, int, int], NDArray], value: Any, block: Block, number: int) -> NDArray:
    """What is given for the rows of a block."""
    return prepare(value, len(block[0]), number)


def summary_of(block: Block) -> BlockSummary:
    """A block's summary."""
    X, w = block
    if w is None:
        n = len(X)
        return BlockSummary(n, n, float(n), 1.0, float(n), float(n))
    scale = float(w.max(initial=0.0)) or 1.0
    some = w / scale
    return BlockSummary(
        len(X), int(np.count_nonzero(w)), float(w.sum()), scale, float(some.sum()), float((some**2).sum())
    )


@on_all_threads
def sum_over(packed: bytes, blocks: list[Block], given: list[NDArray] | None) -> Any:
    """The sum of a function of some blocks, and of what is given for their rows."""
    function = cloudpickle.loads(packed)
    beside = [()] * len(blocks) if given is None else [(values,) for values in given]
    return added(*(function(*block, *values) for block, values in zip(blocks, beside, strict=True)))


def added(first: Any, *others: Any) -> Any:
    """A sum."""
    return sum(others, start=first)


def rows_at(block: Block, targets: list[NDArray]) -> list[NDArray]:
    """Rows at some weights from the beginning of a block."""
    X, w = block
    if w is None:
        return [X[np.minimum(target.astype(np.intp), len(X) - 1)] for target in targets]
    cumulative, last = np.cumsum(w), int(np.flatnonzero(w)[-1]) if w.any() else 0
    return [X[np.minimum(np.searchsorted(cumulative, target, side="right"), last)] for target in targets]


def weighted_rows(block: Block) -> Block:
    """The rows of a block that count."""
    X, w = block
    return block if w is None else (X[w > 0], w[w > 0])


def point_of(block: Block) -> NDArray[np.float64]:
    """A point near a block's rows."""
    return ArraySource(block[0]).point_near()
