"""Print how long an EM iteration takes, fastgmm beside every peer that is installed: the README's tables.

Equal rows, equal start, equal number of iterations, all in turn in one process; the time of an iteration is what some
more of them take longer than one, so that neither validation nor a last E-step counts. Medians.

    python benchmarks/race.py              the README's table, about ten minutes
    python benchmarks/race.py settled      the same from where EM has come to in twenty iterations
    python benchmarks/race.py full diag    every shape of these families (also: tied, spherical)
    python benchmarks/race.py predict kmeans small
    python benchmarks/race.py threads      how many times as fast on more threads, up to all cores
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
    """Seconds of one iteration more, the libraries in turn."""
    n_more, calls = {}, {}
    for name, run in runs.items():
        run(1)
        # At least a quarter of a second to measure, if that takes no more than a hundred iterations.
        n_more[name] = int(np.clip(0.25 / max(seconds(functools.partial(run, 1)), 1e-4), 4, 100))
        calls[name, 1] = functools.partial(run, 1)
        calls[name, n_more[name]] = functools.partial(run, 1 + n_more[name])
    times = compare(calls, rounds)
    return {name: (times[name, n] - times[name, 1]) / n for name, n in n_more.items()}


def race(
    covariance_type: str, n_samples: int, n_features: int, n_components: int, rounds: int, before: int = 0
) -> dict[str, float]:
    """One line of the table; everybody starts from where some iterations before have led to."""
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
    assert np.allclose(means, their_means, atol=1e-6), "the libraries do not do the same"
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
    """Floating-point operations a second of NumPy's matrix product, now."""
    a = np.ones((n, n))
    return 2 * n**3 / min(seconds(lambda: a @ a) for _ in range(5))


def digits(value: float | str | None) -> str:
    """Three digits, or all before the point."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:.3g}"


def print_table(columns: tuple[str, ...], rows: Iterable[dict], summarise: tuple[str, ...]) -> None:
    """Print rows as Markdown as they come, then the geometric mean and the lowest of some columns."""
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
    rows = (
        {"type": shape[0], "rows": shape[1], "D": shape[2], "K": shape[3], **race(*shape, rounds, before)}
        for shape in shapes
    )
    print_table(COLUMNS, rows, COLUMNS[6:])


def print_threads(rounds: int) -> None:
    """The README's shapes, with four times the rows, on one thread and on 2, 4, 8, ... up to all.

    On every number of them to the same bits.
    """
    most = numba.config.NUMBA_NUM_THREADS
    counts = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    columns = ("type", "rows", "D", "K", "one thread: ms", *(f"on {count}" for count in counts[1:]))

    def rows():
        for covariance_type, n_samples, n_features, n_components in README_SHAPES:
            X = make_rows(4 * n_samples, n_features, n_components)
            start = make_start(X, n_components, covariance_type)
            runs = {str(n): peers.fastgmm(X, n_components, covariance_type, start, n_jobs=n) for n in counts}
            means, bound = runs["1"](3)
            for run in runs.values():
                again, bound_again = run(3)
                assert np.array_equal(means, again), "the bits depend on the threads"
                assert bound == bound_again
            times = iteration_seconds(runs, rounds)
            yield {
                "type": covariance_type, "rows": len(X), "D": n_features, "K": n_components,
                "one thread: ms": 1e3 * times["1"], **{f"on {n}": times["1"] / times[str(n)] for n in counts[1:]},
            }  # fmt: skip

    print_table(columns, rows(), columns[5:])


def print_predictions(rounds: int) -> None:
    """`predict`, `predict_proba` and `score_samples` of both libraries with the same parameters."""
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
    """Seeding, and twenty steps of Lloyd's algorithm from the same seeds, of both libraries."""
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
    fit_quietly(sklearn.cluster.KMeans(len(centres), init=centres, n_init=1, max_iter=n_iter, tol=0), X)


def print_small(rounds: int) -> None:
    """Whole fits of 300 rows, k-means start included."""
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
    """Print the tables that are asked for."""
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
