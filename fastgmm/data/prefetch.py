"""Passes over rows, in which one thread reads while the others compute.

A thread computes on the block that it has read itself, so the block is still in its core's cache. This was faster than
a thread that only reads; see docs/development/decisions/data.md.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue, SimpleQueue
from threading import Lock, Semaphore
from typing import Any, TypeVar

from numpy.typing import NDArray

from fastgmm.kernels import thread_limit

Block = tuple[NDArray, NDArray | None]
Result = TypeVar("Result")
# Blocks in addition to one for each thread: results come in order, so a finished one may have to wait.
SPARE_BLOCKS = 1


def n_threads(n_workers: int) -> int:
    """Return the number of threads to compute on `n_workers` blocks at a time.

    It is at least 2, so that one thread reads while the other computes.
    """
    return max(2, n_workers)


class Prefetcher:
    """One pass over blocks, which gives a function of each block in order.

    Parameters
    ----------
    open_cursor : callable () -> cursor
        The cursor has a method `close`.
    fill : callable (cursor, block, n_before) -> block
        Reads the next rows into the arrays of a block, and returns the filled part, without rows at the end. `n_before`
        is the number of rows read before.
    any_thread : bool
        Whether any thread may call `open_cursor`, `fill` and `close`. If not, one thread calls all of them.
    n_workers : int
        Number of blocks that are computed on at a time.
    n_jobs : int
        Number of threads of the kernels for each block.
    """

    def __init__(
        self,
        open_cursor: Callable[[], Any],
        fill: Callable[[Any, Block, int], Block],
        *,
        any_thread: bool,
        n_workers: int,
        n_jobs: int,
    ):
        self.open_cursor, self.fill, self.any_thread = open_cursor, fill, any_thread
        self.n_threads, self.n_jobs = n_threads(n_workers), n_jobs
        self.n_rows = self.n_blocks = 0
        self.ended = False
        self._reading, self._computing = Lock(), Semaphore(n_workers)
        # Last in, first out: the block that was used last is still in a cache. First in, first out was up to a fifth
        # slower; see docs/development/decisions/data.md.
        self._free: LifoQueue[Block | None] = LifoQueue()
        self._done: SimpleQueue[tuple[int, Any, Block, int] | tuple[int, BaseException] | None] = SimpleQueue()

    def results(
        self, function: Callable[..., Result], blocks: list[Block]
    ) -> Generator[tuple[Result, int], None, None]:
        """Yield a function of each block, in order, and the number of its rows.

        `blocks` are arrays to read into, at least one for each thread. The arrays of a block are reused once the next
        result is requested.
        """
        waiting: dict[int, Any] = {}
        n_yielded, n_running = 0, self.n_threads
        with (
            ThreadPoolExecutor(1, "fastgmm-reading") as owner,
            ThreadPoolExecutor(self.n_threads, "fastgmm-computing") as threads,
        ):

            def read(call: Callable, *arguments: Any) -> Any:
                return call(*arguments) if self.any_thread else owner.submit(call, *arguments).result()

            cursor = read(self.open_cursor)
            try:
                for block in blocks:
                    self._free.put(block)
                for _ in range(self.n_threads):
                    threads.submit(self._work, function, read, cursor)
                while n_running:
                    item = self._done.get()
                    if item is None:
                        n_running -= 1
                        continue
                    waiting[item[0]] = item[1:]
                    while n_yielded in waiting:
                        result, *rest = waiting.pop(n_yielded)
                        if not rest:
                            raise result
                        block, n_rows = rest
                        n_yielded += 1
                        yield result, n_rows
                        self._free.put(block)
            finally:
                self.ended = True
                for _ in range(self.n_threads):
                    self._free.put(None)
                threads.shutdown()
                read(cursor.close)

    def _work(self, function: Callable[..., Any], read: Callable[..., Any], cursor: Any) -> None:
        """Read blocks and compute on them until the end.

        An error takes the place of a result.
        """
        number = 0
        try:
            while (next_block := self._next(read, cursor)) is not None:
                number, block, filled = next_block
                with self._computing, thread_limit(self.n_jobs):
                    result = function(*filled)
                self._done.put((number, result, block, len(filled[0])))
                del next_block, result, filled  # else this thread keeps them in memory while it waits
        except BaseException as error:
            self.ended = True
            self._done.put((number, error))
        self._done.put(None)

    def _next(self, read: Callable[..., Any], cursor: Any) -> tuple[int, Block, Block] | None:
        """Return the number of the next block, its arrays, and their filled part.

        Return None at the end.
        """
        with self._reading:
            block = None if self.ended else self._free.get()
            if block is None or self.ended:
                return None
            try:
                filled = read(self.fill, cursor, block, self.n_rows)
            except BaseException as error:
                self.ended = True
                self._done.put((self.n_blocks, error))
                return None
            if not len(filled[0]):
                self.ended = True
                return None
            number, self.n_blocks = self.n_blocks, self.n_blocks + 1
            self.n_rows += len(filled[0])
            return number, block, filled
