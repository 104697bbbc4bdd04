"""Passes over blocks: the order of results, reuse of blocks, ends of threads, and errors."""

import threading
import time

import numpy as np
import pytest

from fastgmm.data.prefetch import SPARE_BLOCKS, Prefetcher, n_threads


class Cursor:
    """Blocks of three rows, all equal to their number."""

    def __init__(self, n_blocks, fails_at=None):
        self.n_blocks, self.fails_at, self.number, self.closed = n_blocks, fails_at, 0, False
        self.threads, self.inside = {threading.get_ident()}, 0

    def fill(self, block, n_before):
        self.inside += 1
        assert self.inside == 1, "one thread at a time reads"
        self.threads.add(threading.get_ident())
        assert n_before == 3 * self.number
        time.sleep(0.0005)
        if self.number == self.fails_at:
            raise ValueError("unreadable")
        n = 3 if self.number < self.n_blocks else 0
        block[0][:n] = self.number
        self.number += 1
        self.inside -= 1
        return block[0][:n], None

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed = True


def pass_over(cursor, n_workers=2, *, any_thread=True):
    prefetcher = Prefetcher(lambda: cursor, Cursor.fill, any_thread=any_thread, n_workers=n_workers, n_jobs=1)
    return prefetcher, [(np.empty((3, 1)), None) for _ in range(n_threads(n_workers) + SPARE_BLOCKS)]


def names():
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("fastgmm-")}


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_results_come_in_order_whichever_is_finished_first(n_workers):
    cursor = Cursor(40)
    prefetcher, blocks = pass_over(cursor, n_workers)

    def slow_at_first(X, weights):
        time.sleep(0.004 if X[0, 0] % 5 == 0 else 0.0)
        return X[0, 0]

    found = list(prefetcher.results(slow_at_first, blocks))
    assert found == [(float(i), 3) for i in range(40)]
    assert (prefetcher.n_rows, prefetcher.n_blocks) == (120, 40)
    assert cursor.closed
    assert not names()


@pytest.mark.parametrize("n_workers", [1, 3])
def test_at_most_n_workers_compute_and_one_reads_meanwhile(n_workers):
    cursor, lock, running, most, read_meanwhile = Cursor(30), threading.Lock(), [0], [0], []

    def watched(X, weights):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        before = cursor.number
        time.sleep(0.003)
        with lock:
            running[0] -= 1
        read_meanwhile.append(cursor.number > before)

    prefetcher, blocks = pass_over(cursor, n_workers)
    list(prefetcher.results(watched, blocks))
    assert most[0] <= n_workers
    assert sum(read_meanwhile) > 15


def test_a_block_is_not_overwritten_while_it_is_used():
    prefetcher, blocks = pass_over(Cursor(50))
    for i, ((X, _), n) in enumerate(prefetcher.results(lambda *block: block, blocks)):
        time.sleep(0.001)
        np.testing.assert_array_equal(X, np.full((3, 1), i))
        assert n == 3


def test_cursors_of_one_thread_are_used_by_that_thread_only():
    cursor = Cursor(20)
    cursor.threads.clear()

    def opened():
        cursor.threads.add(threading.get_ident())
        return cursor

    prefetcher, blocks = pass_over(cursor, any_thread=False)
    prefetcher.open_cursor = opened
    list(prefetcher.results(lambda X, _: None, blocks))
    assert len(cursor.threads) == 1
    assert threading.get_ident() not in cursor.threads


@pytest.mark.parametrize("any_thread", [False, True])
def test_errors_end_a_pass(any_thread):
    for fails_at, function, message in ((4, lambda X, _: X[0, 0], "unreadable"), (None, fail_at_7, "seven")):
        cursor = Cursor(1000, fails_at)
        prefetcher, blocks = pass_over(cursor, any_thread=any_thread)
        with pytest.raises(ValueError, match=message):
            list(prefetcher.results(function, blocks))
        assert cursor.closed
        assert cursor.number < 20
        assert not names()


def fail_at_7(X, weights):
    if X[0, 0] == 7:
        raise ValueError("seven")


@pytest.mark.parametrize("first", ["read", "computed"])
def test_an_error_is_raised_in_the_order_of_the_blocks(first):
    """All earlier results are given first, and of two errors the earlier block's is raised."""
    results = []

    def function(X, _):
        number = X[0, 0]
        if number == 5:
            time.sleep(0.02)  # long enough for block 6 to fail
            if first == "computed":
                raise ValueError("five")
        return number

    prefetcher, blocks = pass_over(Cursor(1000, fails_at=6), 3)

    def consume():
        for result, _ in prefetcher.results(function, blocks):
            results.append(result)

    with pytest.raises(ValueError, match="unreadable" if first == "read" else "five"):
        consume()
    assert results == list(range(6 if first == "read" else 5))


def test_a_pass_that_is_abandoned_ends():
    cursor = Cursor(1000)
    prefetcher, blocks = pass_over(cursor)
    results = prefetcher.results(lambda X, _: X[0, 0], blocks)
    assert next(results) == (0.0, 3)
    results.close()
    assert cursor.closed
    assert cursor.number < 10
    assert not names()


def test_few_blocks_and_no_blocks():
    for n_blocks in (0, 1, 2):
        prefetcher, blocks = pass_over(Cursor(n_blocks), 4)
        assert len(list(prefetcher.results(lambda X, _: None, blocks))) == n_blocks
