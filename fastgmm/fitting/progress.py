"""Progress of a fit, in scikit-learn's words."""

from __future__ import annotations

import time
from collections.abc import Callable

from .run_state import EMResult


class PrintProgress:
    """Who watches a fit (see `options.FitObserver`): prints what scikit-learn prints, and asks the callback.

    `fewest` is the least number of different clusters that a start has found.
    """

    def __init__(self, verbose: int, interval: int, n_components: int, callback: Callable | None):
        self.verbose, self.interval, self.fewest, self.callback = verbose, interval, n_components, callback
        self.begun = self.previous = time.perf_counter()

    def start(self, init: int) -> None:
        if self.verbose:
            print(f"Initialization {init}")
        self.begun = self.previous = time.perf_counter()

    def note(self, text: str) -> None:
        if self.verbose:
            print(f"  {text}")

    def iteration(self, result: EMResult) -> bool:
        if self.verbose and result.n_iter % self.interval == 0:
            now = time.perf_counter()
            details = f"\t time lapse {now - self.previous:.5f}s\t ll change {result.last_change:.5f}"
            print(f"  Iteration {result.n_iter}{details if self.verbose > 1 else ''}")
            self.previous = now
        return self.callback is not None and bool(self.callback(result.n_iter, result.lower_bound, result.parameters))

    def end(self, result: EMResult) -> None:
        if not self.verbose:
            return
        outcome = "converged" if result.converged else "did not converge"
        lapse = time.perf_counter() - self.begun
        details = f" time lapse {lapse:.5f}s\t lower bound {result.lower_bound:.5f}." if self.verbose > 1 else ""
        print(f"Initialization {outcome}.{details}")

    def duplicates(self, n_distinct: int) -> None:
        self.fewest = min(self.fewest, n_distinct)
