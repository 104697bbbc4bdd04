"""Rows on the workers of a Dask cluster.

Parameters are sent to the workers, and sums over the rows come back.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import cloudpickle
import dask
import distributed
import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import thread_limit

from .block_checks import check_values, check_weight_count
from .block_source import max_resident_rows
from .conversion import aligned, as_rows, as_weights, filled, prefixed
from .sources import ArraySource, BlockFunction, BlockFunctionWith, Weights, row_checksum
from .weight_sums import CumulativeWeights, WeightTotals

Block = tuple[NDArray, Weights]
# Number of sums that one task adds. Sums of more workers are added in several rounds.
FAN_IN = 8
# Largest number of times that a pass is started, if workers are lost together with the parameters sent to them.
MAX_ATTEMPTS = 3
# Seconds between requests for the list of the blocks of each worker. Until the next request a task may be sent to a
# worker that is lost. Another worker runs it then.
SECONDS_BETWEEN_REQUESTS = 5.0
# Parameters of more bytes than this do not pass through the scheduler.
MAX_BYTES_THROUGH_SCHEDULER = 1 << 20
# Number of rows of a fingerprint.
ROWS_OF_FINGERPRINT = 1024


class DaskSource:
    """Rows that stay on the workers; see `sources.Source`.

    A sum over the rows is one task for each worker that has blocks, and a tree of additions. A task uses all threads of
    its worker. The cluster keeps the blocks as results of tasks. If a worker is lost, other workers compute its blocks
    again, and no other block.

    Parameters
    ----------
    client : distributed.Client
    blocks : list of dask.delayed.Delayed
        Arrays or data frames of rows.
    weights : list of dask.delayed.Delayed, optional
        The weights of the rows of each block.
    n_features : int
    dtype : float64 or float32
    labels : tuple, optional
        Labels of the columns, if blocks are data frames. Their columns are put in this order.
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
            totals = client.gather(client.map(totals_of, self.futures, pure=False))
        except BaseException:
            self.release()
            raise
        self.rows_by_block = [block.n_samples for block in totals]
        # Blocks without rows, as filters may leave them, are left out.
        self._used = [i for i, n in enumerate(self.rows_by_block) if n]
        if not self._used:
            raise ValueError("Found array with 0 sample(s): there are no rows in any block.")
        self.futures, self.block_totals = [self.futures[i] for i in self._used], [totals[i] for i in self._used]
        self.weighted = weights is not None
        scale = max(block.scale for block in self.block_totals)
        self.totals = functools.reduce(WeightTotals.plus, (block.rescaled(scale) for block in self.block_totals))
        self.n_samples, self.n_weighted = self.totals.n_samples, self.totals.n_weighted
        self.total_weight = self.totals.total_weight
        if not self.total_weight > 0:
            raise ValueError("Sample weights must contain at least one non-zero number.")
        self.known = self.checksum = None
        self._point: NDArray[np.float64] | None = None
        self._block_numbers: dict[str, list[int]] = {}
        self._last_request = -math.inf

    @property
    def effective_rows(self) -> float:
        return self.totals.effective_rows

    @property
    def max_resident_rows(self) -> int:
        return max_resident_rows(self.n_features, self.dtype)

    def release(self, *others: list) -> None:
        """Cancel the blocks, and other futures, after an error.

        The traceback of the error would keep them on the workers.
        """
        self.client.cancel([*self.futures, *itertools.chain(*others)])
        self.futures = []

    def place(self, values: list, prepare: Callable[[Any, int, int], NDArray]) -> list:
        """Return the `row_values` of `reduce_with`.

        They are futures of prepared arrays, one for each block with rows.

        Parameters
        ----------
        values : list
            Arrays, or delayed arrays, one for each of the blocks that the source was made of.
        prepare : callable (value, n_rows, number) -> ndarray
            Given a value, the number of rows of its block, and the number of the block.
        """
        task = dask.delayed(prepared_values)  # runs on the worker that has the block, which is larger than the value
        tasks = [task(prepare, values[i], block, i) for i, block in zip(self._used, self.futures, strict=True)]
        return self.client.compute(tasks)

    def reduce(self, function: BlockFunction, *, known: Any = None) -> Any:
        return self._reduce(function, None)

    def reduce_with(self, row_values: list, function: BlockFunctionWith) -> Any:
        return self._reduce(function, row_values)

    def _reduce(self, function: Callable, row_values: list | None) -> Any:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return self._reduce_once(function, row_values)
            except (distributed.client.FutureCancelledError, distributed.scheduler.KilledWorker):
                if attempt == MAX_ATTEMPTS:
                    raise
        raise AssertionError

    def _reduce_once(self, function: Callable, row_values: list | None) -> Any:
        packed = self._packed(function)
        sums = []
        for worker, numbers in self._blocks_by_worker().items():
            blocks = [self.futures[i] for i in numbers]
            values = None if row_values is None else [row_values[i] for i in numbers]
            sums.append(
                self.client.submit(
                    sum_over, packed, blocks, values, workers=[worker], allow_other_workers=True, pure=False
                )
            )
        while len(sums) > FAN_IN:
            groups = [sums[i : i + FAN_IN] for i in range(0, len(sums), FAN_IN)]
            sums = [self.client.submit(add, *group, pure=False) for group in groups]
        return add(*self.client.gather(sums))

    def _packed(self, function: BlockFunction) -> Any:
        """Return a function and its parameters as bytes, or as a future of bytes.

        Large parameters are sent to one worker, and the others fetch them from there. A broadcast to all workers would
        wait up to half a minute, again and again, for a worker that is lost.
        """
        packed = cloudpickle.dumps(function)
        return packed if len(packed) <= MAX_BYTES_THROUGH_SCHEDULER else self.client.scatter(packed, hash=False)

    def _blocks_by_worker(self) -> dict[str, list[int]]:
        """Return the numbers of the blocks of each worker, as of the last few seconds."""
        if time.monotonic() - self._last_request < SECONDS_BETWEEN_REQUESTS:
            return self._block_numbers
        where = self.client.who_has(self.futures)
        numbers = defaultdict(list)
        for i, future in enumerate(self.futures):
            holders = sorted(where.get(future.key, ()))
            numbers[holders[0] if holders else ""].append(i)
        on_no_worker = numbers.pop("", [])
        workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"]) if on_no_worker else []
        for n, i in enumerate(on_no_worker):
            numbers[workers[n % len(workers)]].append(i)
        self._block_numbers, self._last_request = dict(numbers), time.monotonic()
        return self._block_numbers

    def draw(self, *shares: NDArray[np.float64]) -> list[ArraySource]:
        """Return samples: the rows at increasing shares of the total weight.

        Each worker draws from its blocks.
        """
        ends = np.cumsum([block.total_weight if self.weighted else block.n_samples for block in self.block_totals])
        drawn = []
        for i, block in enumerate(self.futures):
            begin = ends[i - 1] if i else 0.0
            # Rounding may put points behind the end of the last block.
            end = ends[i] if i + 1 < len(self.futures) else np.inf
            points = [share * ends[-1] for share in shares]
            points = [point[(point >= begin) & (point < end)] - begin for point in points]
            drawn.append(self.client.submit(rows_at, block, points, pure=False))
        parts = self.client.gather(drawn)
        return [ArraySource(np.concatenate([part[s] for part in parts])) for s in range(len(shares))]

    def whole(self) -> ArraySource:
        blocks = [self.client.submit(weighted_rows, block, pure=False) for block in self.futures]
        parts = self.client.gather(blocks)
        X = np.concatenate([X for X, _ in parts])
        return ArraySource(X, np.concatenate([w for _, w in parts]) if self.weighted else None)

    def fingerprint(self) -> int:
        """Return a checksum of rows at fixed shares of the weight."""
        return row_checksum(self.draw(np.arange(ROWS_OF_FINGERPRINT) / ROWS_OF_FINGERPRINT)[0].X, None)

    def point_near(self) -> NDArray[np.float64]:
        if self._point is None:
            self._point = self.client.submit(point_of, self.futures[0], pure=False).result()
        return self._point


def on_all_threads(function: Callable) -> Callable:
    """Return a task whose kernels use as many threads as its worker has."""

    @functools.wraps(function)
    def threaded(*arguments: Any) -> Any:
        with thread_limit(distributed.get_worker().state.nthreads):
            return function(*arguments)

    return threaded


def prepared_block(
    block: Any, weights: Any, n_features: int, dtype: np.dtype, number: int, labels: tuple | None = None
) -> Block:
    """Return the rows (n, D) and weights (n,) of a block as the kernels read them.

    ValueError, with the place in the block, if they are invalid.
    """
    try:
        X = as_rows(block if labels is None else aligned(block, labels))
        if X.shape[1] != n_features:
            raise ValueError(f"it must have {n_features} features, got shape {X.shape}")
        if len(X) and dtype == np.float32 and np.result_type(X.dtype, dtype) != dtype:
            raise ValueError(f"it holds {X.dtype}, but X says {dtype}: call X.astype, or correct the dtype of X")
    except (ValueError, TypeError) as error:
        raise prefixed(error, f"block {number} of X") from error
    with np.errstate(over="ignore"):  # the checks below find values that are too large
        X = X.astype(dtype, copy=False)
    X = X if X.flags.f_contiguous else np.ascontiguousarray(X)
    w = None if weights is None else prepared_weights(weights, len(X), number)
    check_values(X, w, lambda row: f"row {row} of block {number}", labels)
    return X, w


def prepared_weights(weights: Any, n_rows: int, number: int) -> NDArray[np.float64]:
    """Return the weights of a block as float64, (n,)."""
    if getattr(weights, "ndim", 1) == 2 and weights.shape[1] == 1:  # a column of a data frame
        weights = np.asarray(filled(weights))[:, 0]
    try:
        w = as_weights(weights).astype(np.float64, copy=False)
        check_weight_count(len(w), n_rows)
    except (ValueError, TypeError) as error:
        raise prefixed(error, f"weights of block {number}") from error
    return w


def prepared_values(prepare: Callable[[Any, int, int], NDArray], value: Any, block: Block, number: int) -> NDArray:
    """Return the prepared array for the rows of a block."""
    return prepare(value, len(block[0]), number)


def totals_of(block: Block) -> WeightTotals:
    """Return the sums of the weights of a block."""
    X, w = block
    return WeightTotals.of(len(X), w)


@on_all_threads
def sum_over(packed: bytes, blocks: list[Block], row_values: list[NDArray] | None) -> Any:
    """Return the sum of a function over blocks, and values for their rows if given."""
    function = cloudpickle.loads(packed)
    extra = [()] * len(blocks) if row_values is None else [(values,) for values in row_values]
    return add(*(function(*block, *values) for block, values in zip(blocks, extra, strict=True)))


def add(first: Any, *others: Any) -> Any:
    """Return the sum of the arguments, from left to right."""
    return sum(others, start=first)


def rows_at(block: Block, points: list[NDArray]) -> list[NDArray]:
    """Return the rows at each array of points of a block's cumulative weight."""
    X, w = block
    cumulative = CumulativeWeights(len(X), w)
    return [X[cumulative.rows_at(point)] for point in points]


def weighted_rows(block: Block) -> Block:
    """Return the rows of a block whose weight is above 0, and their weights."""
    X, w = block
    return block if w is None else (X[w > 0], w[w > 0])


def point_of(block: Block) -> NDArray[np.float64]:
    """Return a point near the rows of a block."""
    return ArraySource(block[0]).point_near()
