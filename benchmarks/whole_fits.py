"""Print the times and likelihoods of whole fits, from raw rows to a result, in fastgmm and in scikit-learn.

Both libraries start as they do by default, and stop at the same tolerance. All figures are medians over seeds.

    python benchmarks/whole_fits.py                     scikit-learn's defaults, ten minutes
    python benchmarks/whole_fits.py --tol 1e-6 --max-iter 2000 --seeds 2 digits diamonds

With ``--estimate``, the fits of scikit-learn, which may take an hour, are not completed. Its first six iterations give
the time of an iteration. A fit of plain EM in fastgmm, from the labels of scikit-learn's k-means, gives the number of
iterations and the likelihood.

Columns:

* how many times as long scikit-learn takes;
* the median likelihood minus that of scikit-learn, in nats per row, and the difference of the seed in which it is
  lowest;
* the number of passes over all rows;
* how many times fewer passes this is than plain EM takes (``acceleration=None``, same seed), and how many times fewer
  rows are read, including those of samples, both until the likelihood is within 1e-5 of the lower of the two final
  ones;
* the parts of the time of the fit that starts and samples take;
* the number of seeds in which plain EM ends higher by more than 0.001, and the largest such difference.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import sklearn.mixture
from sklearn.cluster import KMeans

import fastgmm.fitting.em
import fastgmm.fitting.sampled_runs
import fastgmm.fitting.starts
from benchmarks import peers
from benchmarks.common import fit_quietly, seconds
from benchmarks.race import print_table
from benchmarks.real_rows import Problem, problems
from fastgmm import GaussianMixture
from fastgmm.cli.environment import describe_environment

COLUMNS = ("rows from", "rows", "D", "K", "type", "seconds", "over scikit-learn", "likelihood, median", "at worst",
           "passes", "fewer passes", "fewer rows", "starts' part", "samples' part", "plain higher", "by")  # fmt: skip


# Number of iterations of scikit-learn from which the time of one is estimated.
ESTIMATED_ITERATIONS = 5
# Fits of fewer rows are completed: the times of their first iterations vary too much for an estimate.
ESTIMATED_ROWS = 10_000


class Account:
    """The cost of the parts of a fit: seconds for starts, seconds before the first pass over all rows, rows read."""

    def __init__(self, n_rows: int):
        self.n_rows, self.starts, self.before, self.began = n_rows, 0.0, 0.0, 0.0
        self.read = 0

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the cost of the fit in the block."""
        make, full_pass, search = (
            fastgmm.fitting.starts.initial_parameters,
            fastgmm.fitting.em.full_pass,
            fastgmm.fitting.sampled_runs.pass_with_outliers,
        )

        def timed(*arguments, **options):
            begun = time.perf_counter()
            result = make(*arguments, **options)
            self.starts += time.perf_counter() - begun
            return result

        def counted(function, source, *arguments):
            self.read += len(source.X)
            if len(source.X) == self.n_rows and not self.before:
                self.before = time.perf_counter() - self.began
            return function(source, *arguments)

        with (
            mock.patch.object(fastgmm.fitting.starts, "initial_parameters", timed),
            mock.patch.object(fastgmm.fitting.em, "full_pass", functools.partial(counted, full_pass)),
            mock.patch.object(fastgmm.fitting.sampled_runs, "pass_with_outliers", functools.partial(counted, search)),
        ):
            self.began = time.perf_counter()
            yield


def passes_until(bounds: list[float], target: float) -> float:
    """Return the number of passes after which the likelihood reaches a target; infinite if it does not."""
    return next((n + 1.0 for n, bound in enumerate(bounds) if bound >= target), np.inf)


def scikit_learn(options: dict, X: np.ndarray, estimate: bool) -> tuple[float, float]:
    """Return the seconds of scikit-learn's fit and its mean log-likelihood, measured or estimated."""
    theirs = sklearn.mixture.GaussianMixture(**options)
    if not estimate or len(X) < ESTIMATED_ROWS:
        return seconds(lambda: fit_quietly(theirs, X)), theirs.score(X)
    once, more = (
        seconds(lambda n=n: fit_quietly(sklearn.mixture.GaussianMixture(**{**options, "max_iter": n}), X))
        for n in (1, 1 + ESTIMATED_ITERATIONS)
    )
    stream = np.random.RandomState(options["random_state"])
    labels = KMeans(options["n_components"], n_init=1, random_state=stream).fit(X).labels_
    plain = fit_quietly(GaussianMixture(**options, acceleration=None, resp_init=labels), X)
    return once + (plain.n_iter_ - 1) * (more - once) / ESTIMATED_ITERATIONS, plain.score(X)


def measure(
    problem: Problem, tol: float, max_iter: int, seed: int, X: np.ndarray, *, estimate: bool = False
) -> dict[str, float]:
    """Return the figures of one seed."""
    options = {
        "n_components": problem.n_components, "covariance_type": problem.covariance_type, "tol": tol,
        "max_iter": max_iter, "random_state": seed,
    }  # fmt: skip
    ours, plain = GaussianMixture(**options), GaussianMixture(**options, acceleration=None)
    ours_seconds = statistics.median(seconds(lambda: fit_quietly(ours, X)) for _ in range(3))
    theirs_seconds, theirs_score = scikit_learn(options, X, estimate)
    fit_quietly(plain, X)
    account = Account(len(X))
    with account.recorded():
        fit_quietly(ours, X)
    accounted = time.perf_counter() - account.began
    scores = [ours.score(X), theirs_score, plain.score(X)]
    target = min(plain.lower_bound_, ours.lower_bound_) - 1e-5
    until = [passes_until(engine.lower_bounds_, target) for engine in (plain, ours)]
    return {
        "seconds": ours_seconds,
        "ratio": theirs_seconds / ours_seconds,
        "ours": scores[0],
        "theirs": scores[1],
        "passes": ours.n_iter_,
        "fewer": until[0] / until[1],
        "fewer rows": until[0] / (until[1] + account.read / len(X) - ours.n_iter_),
        "starts": account.starts / accounted,
        "samples": max(0.0, account.before - account.starts) / accounted,
        "below": scores[2] - scores[0],
    }


def rows(chosen: list[Problem], tol: float, max_iter: int, n_seeds: int, *, estimate: bool = False):
    """Yield a line of the table for each problem."""
    for problem in chosen:
        X = np.ascontiguousarray(problem.make())
        # Compile before the clock runs.
        fit_quietly(GaussianMixture(2, covariance_type=problem.covariance_type, max_iter=1), X)
        runs = [measure(problem, tol, max_iter, seed, X, estimate=estimate) for seed in range(n_seeds)]

        def median(name: str, runs: list = runs) -> float:
            return statistics.median(run[name] for run in runs)

        # The two fits of a seed start from different rows, so medians are compared, not the medians of differences.
        higher = median("ours") - median("theirs")
        at_worst = min(run["ours"] - run["theirs"] for run in runs)
        below = [run["below"] for run in runs if run["below"] > 1e-3]
        yield {
            "rows from": problem.name, "rows": X.shape[0], "D": X.shape[1], "K": problem.n_components,
            "type": problem.covariance_type, "seconds": median("seconds"), "over scikit-learn": median("ratio"),
            "likelihood, median": f"{higher:+.4f}", "at worst": f"{at_worst:+.4f}",
            "passes": int(median("passes")), "fewer passes": median("fewer"), "fewer rows": median("fewer rows"),
            "starts' part": median("starts"), "samples' part": median("samples"),
            "plain higher": str(len(below)), "by": f"{max(below, default=0.0):.4f}",
        }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="names of problems; by default all")
    parser.add_argument("--types", nargs="*", help="covariance types; by default all")
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--max-iter", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--estimate", action="store_true", help="estimate the fits of scikit-learn")
    arguments = parser.parse_args()
    every = problems()
    chosen = [problem for problem in every if not arguments.names or problem.name in arguments.names]
    chosen = [problem for problem in chosen if not arguments.types or problem.covariance_type in arguments.types]
    if not chosen:
        parser.error(f"names must be among {', '.join(sorted({problem.name for problem in every}))}")
    environment = describe_environment()
    names = ("cpu", "threads", "fastgmm", "numba", "numpy")
    print("; ".join(f"{name} {environment[name]}" for name in names) + f"; {peers.versions()}")
    lines = rows(chosen, arguments.tol, arguments.max_iter, arguments.seeds, estimate=arguments.estimate)
    print_table(COLUMNS, lines, ("over scikit-learn", "fewer passes", "fewer rows"))


if __name__ == "__main__":
    main()
