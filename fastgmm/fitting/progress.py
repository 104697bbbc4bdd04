"""Progress of a fit, in scikit-learn's words."""

from __future__ import annotations

import time
from collections.abc import Callable

from .run_state import EMResult


class PrintProgress:
    """Observer of a fit that prints what scikit-learn prints and calls a callback.

    It implements `options.FitObserver`.

    Parameters
    ----------
    verbose : int
        0 prints nothing; 2 and more print times and bounds too.
    interval : int
        Every `interval`-th iteration is printed.
    n_components : int
    callback : callable (n_iter, lower_bound, parameters) -> bool, optional
        Called after each pass over all rows; if it returns true, the run ends.

    Attributes
    ----------
    min_distinct : int
        The smallest number of different clusters that a start has found, at most `n_components`.
    """

    def __init__(self, verbose: int, interval: int, n_components: int, callback: Callable | None):
        self.verbose, self.interval, self.callback = verbose, interval, callback
        self.min_distinct = n_components
        self.begun = self.previous = time.perf_counter()

    def start(self, init: int) -> None:
        if self.verbose:
            print(f"Initialization {init}")
        self.begun = self.previous = time.perf_counter()

    def note(self, text: str) -> None:
        if self.verbose:
            print(f"  {text}")

    @property
    def on_iteration(self) -> Callable[[EMResult], bool] | None:
        return self._iteration if self.verbose or self.callback is not None else None

    def _iteration(self, result: EMResult) -> bool:
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
        self.min_distinct = min(self.min_distinct, n_distinct)
