"""Print the time of an EM iteration in fastgmm and in every peer that is installed.

The libraries take turns in one process, with equal rows, equal starts and equal numbers of iterations. The time of an
iteration is a difference: that of several iterations minus that of one. So neither validation nor the last E-step
counts. All times are medians.

    python benchmarks/race.py              the standard shapes, about ten minutes
    python benchmarks/race.py settled      the same shapes, from the parameters after twenty iterations
    python benchmarks/race.py full diag    every shape of these covariance types (also: tied, spherical)
    python benchmarks/race.py predict kmeans small
    python benchmarks/race.py threads      the speedup on more threads, up to all cores
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numba
import numpy as np
import sklearn.cluster

from benchmarks import peers
from benchmarks.common import (
    compare,
    family,
    fit_quietly,
    make_estimator,
    make_rows,
    make_start,
    seconds,
    settled_start,
)
from fastgmm.cli.environment import describe_environment
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.initialization.kmeans import kmeans_plusplus, lloyd

README_SHAPES = [
    ("full", 500_000, 2, 8),
    ("full", 273_280, 3, 16),
    ("full", 200_000, 10, 10),
    ("full", 200_000, 16, 64),
    ("full", 100_000, 32, 16),
    ("full", 50_000, 64, 16),
    ("diag", 200_000, 16, 64),
    ("diag", 50_000, 40, 512),
    ("tied", 200_000, 16, 64),
    ("spherical", 200_000, 16, 64),
]
PREDICT_SHAPES = [("full", 500_000, 2, 8), ("full", 100_000, 16, 64), ("full", 50_000, 40, 16),
                  ("diag", 100_000, 16, 64), ("tied", 100_000, 16, 64), ("spherical", 100_000, 16, 64)]  # fmt: skip
KMEANS_SHAPES = [(500_000, 2, 8), (273_280, 3, 16), (200_000, 10, 10), (200_000, 16, 64), (100_000, 32, 16),
                 (50_000, 64, 16), (50_000, 40, 512)]  # fmt: skip
COLUMNS = ("type", "rows", "D", "K", "ms", "ns / row / component", "over scikit-learn", "over oneDAL",
           "over one thread", "flops over dgemm", "float32 over float64")  # fmt: skip


def iteration_seconds(runs: dict[str, peers.Run], rounds: int) -> dict[str, float]:
    """Return the seconds of an additional iteration; the libraries take turns."""
    n_more, calls = {}, {}
    for name, run in runs.items():
        run(1)
        # Measure at least a quarter of a second, but at most a hundred iterations.
        n_more[name] = int(np.clip(0.25 / max(seconds(functools.partial(run, 1)), 1e-4), 4, 100))
        calls[name, 1] = functools.partial(run, 1)
        calls[name, n_more[name]] = functools.partial(run, 1 + n_more[name])
    times = compare(calls, rounds)
    return {name: (times[name, n] - times[name, 1]) / n for name, n in n_more.items()}


def race(
    covariance_type: str, n_samples: int, n_features: int, n_components: int, rounds: int, before: int = 0
) -> dict[str, float]:
    """Return one line of the table; all libraries start from the parameters after `before` iterations."""
    X = make_rows(n_samples, n_features, n_components)
    start = make_start(X, n_components, covariance_type)
    if before:
        start = settled_start(X, n_components, covariance_type, start, before)
    problem = n_components, covariance_type, start
    runs = {
        "fastgmm": peers.fastgmm(X, *problem),
        "one thread": peers.fastgmm(X, *problem, n_jobs=1),
        "float32": peers.fastgmm(X.astype(np.float32), *problem),
        "scikit-learn": peers.scikit_learn(X, *problem),
        "oneDAL": peers.onedal(X, *problem),
    }
    runs = {name: run for name, run in runs.items() if run is not None}
    (means, bound), (their_means, their_bound) = runs["fastgmm"](2), runs["scikit-learn"](2)
    assert np.allclose(means, their_means, atol=1e-6), "the libraries do not run the same iterations"
    assert math.isclose(bound, their_bound, rel_tol=1e-9)
    times = iteration_seconds(runs, rounds)
    ours = times["fastgmm"]
    row = {"ms": 1e3 * ours, "ns / row / component": 1e9 * ours / n_samples / n_components}
    for name in ("scikit-learn", "oneDAL", "one thread"):
        if name in times:
            row[f"over {name}"] = times[name] / ours
    row["float32 over float64"] = ours / times["float32"]
    if covariance_type == "full" and n_features >= 16:
        flops = 2 * n_samples * n_components * n_features * (n_features + 1)
        row["flops over dgemm"] = flops / ours / dgemm_rate()
    return row


def dgemm_rate(n: int = 2000) -> float:
    """Return the current floating-point operations per second of NumPy's matrix product."""
    a = np.ones((n, n))
    return 2 * n**3 / min(seconds(lambda: a @ a) for _ in range(5))


def digits(value: float | str | None) -> str:
    """Return a number with three digits, or with all digits before the point."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:.3g}"


def print_table(columns: tuple[str, ...], rows: Iterable[dict], summarise: tuple[str, ...]) -> None:
    """Print rows as a Markdown table, one by one, then the geometric mean and the lowest value of some columns."""
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    done = []
    for row in rows:
        done.append(row)
        print("| " + " | ".join(digits(row.get(column)) for column in columns) + " |", flush=True)
    print()
    for column in summarise:
        having = [row for row in done if row.get(column)]
        if having:
            mean = math.exp(statistics.fmean(math.log(row[column]) for row in having))
            worst = min(having, key=lambda row: row[column])
            where = " ".join(digits(worst[name]) for name in columns[:4])
            print(f"* {column}: geometric mean {digits(mean)}, lowest {digits(worst[column])} ({where})")


def print_fits(shapes: list[tuple[str, int, int, int]], rounds: int, before: int = 0) -> None:
    """Print the table of EM iterations."""
    rows = (
        {"type": shape[0], "rows": shape[1], "D": shape[2], "K": shape[3], **race(*shape, rounds, before)}
        for shape in shapes
    )
    print_table(COLUMNS, rows, COLUMNS[6:])


def print_threads(rounds: int) -> None:
    """Print the speedups of the standard shapes, with four times the rows, on 2, 4, 8, ... threads, up to all.

    Assert that the results are equal, bit for bit, on any number of threads.
    """
    max_threads = numba.config.NUMBA_NUM_THREADS
    counts = sorted({2**power for power in range(max_threads.bit_length()) if 2**power <= max_threads} | {max_threads})
    columns = ("type", "rows", "D", "K", "one thread: ms", *(f"on {count}" for count in counts[1:]))

    def rows():
        for covariance_type, n_samples, n_features, n_components in README_SHAPES:
            X = make_rows(4 * n_samples, n_features, n_components)
            start = make_start(X, n_components, covariance_type)
            runs = {str(n): peers.fastgmm(X, n_components, covariance_type, start, n_jobs=n) for n in counts}
            means, bound = runs["1"](3)
            for run in runs.values():
                again, bound_again = run(3)
                assert np.array_equal(means, again), "the result depends on the number of threads"
                assert bound == bound_again
            times = iteration_seconds(runs, rounds)
            yield {
                "type": covariance_type, "rows": len(X), "D": n_features, "K": n_components,
                "one thread: ms": 1e3 * times["1"], **{f"on {n}": times["1"] / times[str(n)] for n in counts[1:]},
            }  # fmt: skip

    print_table(columns, rows(), columns[5:])


def print_predictions(rounds: int) -> None:
    """Print the speedups of `predict`, `predict_proba` and `score_samples`, with the same parameters."""
    columns = ("type", "rows", "D", "K", "predict over scikit-learn", "predict_proba over scikit-learn",
               "score_samples over scikit-learn")  # fmt: skip

    def rows():
        for covariance_type, n_samples, n_features, n_components in PREDICT_SHAPES:
            X = make_rows(n_samples, n_features, n_components)
            start = make_start(X, n_components, covariance_type)
            fitted = {
                name: fit_quietly(make_estimator(name, n_components, covariance_type, start, 3), X)
                for name in ("fastgmm", "scikit-learn")
            }
            row: dict = {"type": covariance_type, "rows": n_samples, "D": n_features, "K": n_components}
            for method in ("predict", "predict_proba", "score_samples"):
                calls = {name: functools.partial(getattr(e, method), X) for name, e in fitted.items()}
                times = compare(calls, rounds)
                row[f"{method} over scikit-learn"] = times["scikit-learn"] / times["fastgmm"]
            yield row

    print_table(columns, rows(), columns[4:])


def print_kmeans(rounds: int) -> None:
    """Print the speedups of seeding, and of twenty steps of Lloyd's algorithm from the same seeds."""
    columns = ("rows", "D", "K", "dtype", "seeding: ms", "seeding over scikit-learn", "20 steps: ms",
               "steps over scikit-learn", "k-means over scikit-learn")  # fmt: skip

    def rows():
        for dtype in ("float64", "float32"):
            for n_samples, n_features, n_components in KMEANS_SHAPES:
                X = make_rows(n_samples, n_features, n_components, dtype)
                source = ArraySource(X)
                centres = kmeans_plusplus(source, n_components, RandomStream(0))
                calls: dict[str, Callable[[], object]] = {
                    "seeding": functools.partial(kmeans_plusplus, source, n_components, RandomStream(0)),
                    "their seeding": functools.partial(
                        sklearn.cluster.kmeans_plusplus, X, n_components, random_state=0
                    ),
                    "steps": functools.partial(lloyd, source, centres, max_steps=20, tolerance=0.0),
                    "their steps": functools.partial(_their_steps, X, centres.astype(dtype), 20),
                }
                times = compare(calls, rounds)
                ours, theirs = times["seeding"] + times["steps"], times["their seeding"] + times["their steps"]
                yield {
                    "rows": n_samples, "D": n_features, "K": n_components, "dtype": dtype,
                    "seeding: ms": 1e3 * times["seeding"],
                    "seeding over scikit-learn": times["their seeding"] / times["seeding"],
                    "20 steps: ms": 1e3 * times["steps"],
                    "steps over scikit-learn": times["their steps"] / times["steps"],
                    "k-means over scikit-learn": theirs / ours,
                }  # fmt: skip

    print_table(columns, rows(), ("seeding over scikit-learn", "steps over scikit-learn", "k-means over scikit-learn"))


def _their_steps(X: np.ndarray, centres: np.ndarray, n_iter: int) -> None:
    """Run Lloyd's steps of scikit-learn."""
    fit_quietly(sklearn.cluster.KMeans(len(centres), init=centres, n_init=1, max_iter=n_iter, tol=0), X)


def print_small(rounds: int) -> None:
    """Print the speedups of whole fits of 300 rows, including the k-means start."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(100, 2)) + centre for centre in ((0, 0), (4, 0), (0, 4))])
    columns = ("type", "rows", "D", "K", "fit: ms", "fit over scikit-learn")

    def rows():
        for covariance_type in ("full", "tied", "diag", "spherical"):
            estimators = {
                name: make_estimator(name, 3, covariance_type, {}, 100, random_state=0)
                for name in ("fastgmm", "scikit-learn")
            }
            for estimator in estimators.values():
                estimator.set_params(tol=1e-3)
            calls = {name: lambda e=e: [fit_quietly(e, X) for _ in range(20)] for name, e in estimators.items()}
            times = compare(calls, rounds)
            yield {
                "type": covariance_type, "rows": 300, "D": 2, "K": 3, "fit: ms": 1e3 * times["fastgmm"] / 20,
                "fit over scikit-learn": times["scikit-learn"] / times["fastgmm"],
            }  # fmt: skip

    print_table(columns, rows(), columns[5:])


def main() -> None:
    """Print the tables that the command line names."""
    tables: dict[str, Callable[[int], None]] = {
        "readme": lambda rounds: print_fits(README_SHAPES, rounds),
        "settled": lambda rounds: print_fits(README_SHAPES, rounds, before=20),
        "threads": print_threads,
        "predict": print_predictions,
        "kmeans": print_kmeans,
        "small": print_small,
    }
    for name in ("full", "diag", "tied", "spherical"):
        tables[name] = lambda rounds, name=name: print_fits(family(name, work=5e8), rounds)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["readme"], metavar="table", help=", ".join(tables))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.tables:
        if name not in tables:
            parser.error(f"there is no table {name!r}; there are {', '.join(tables)}")
    environment = describe_environment()
    names = ("cpu", "threads", "fastgmm", "numba", "numpy")
    print("; ".join(f"{name} {environment[name]}" for name in names) + f"; {peers.versions()}")
    for name in arguments.tables:
        tables[name](arguments.rounds)


if __name__ == "__main__":
    main()
