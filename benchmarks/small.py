"""Time small data and many fits beside scikit-learn and R's mclust, each on one thread, in turn.

    python benchmarks/small.py            all tables
    python benchmarks/small.py fits       one default fit: 300 x 2, 150 x 4 and 1,000 x 10 rows, four covariance types
    python benchmarks/small.py rows       predictions of one row
    python benchmarks/small.py many       10,000 one-dimensional fits of 500 rows on two threads, beside two processes
    python benchmarks/small.py search     fourteen models x 1 to 9 components of 272 x 2 rows, beside Mclust
    python benchmarks/small.py bootstrap  the likelihood-ratio test beside mclustBootstrapLRT

mclust's tables need R and its package mclust.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import sklearn.mixture
from joblib import Parallel, delayed
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

from benchmarks import peers
from benchmarks.common import compare, fit_quietly, seconds
from benchmarks.race import print_table
from fastgmm import GaussianMixture, MixtureSearch, bootstrap_likelihood_ratio, fit_many
from fastgmm.cli.environment import describe_environment

TYPES = ("full", "tied", "diag", "spherical")
SHAPES = ((300, 2, 3), (150, 4, 3), (1_000, 10, 5))
FAITHFUL = "as.matrix(faithful)"
IRIS = "as.matrix(iris[, 1:4])"
R_START = """
suppressMessages(library(mclust)); options(digits = 15)
X <- {rows}
time <- function(f) {{ begun <- Sys.time(); result <<- f(); as.numeric(Sys.time() - begun, "secs") }}
"""


def clusters(n_samples: int, n_features: int, n_components: int) -> np.ndarray:
    """Return rows of clusters that touch."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(n_components, n_features))
    return centres[rng.integers(0, n_components, n_samples)] + rng.normal(size=(n_samples, n_features))


def fits(rounds: int) -> Iterable[dict]:
    """Yield a line for each shape and covariance type: one default fit, with its start."""
    for n_samples, n_features, n_components in SHAPES:
        X = clusters(n_samples, n_features, n_components)
        for name in TYPES:
            options = {"covariance_type": name, "random_state": 0}
            ours = GaussianMixture(n_components, n_jobs=1, **options)
            theirs = sklearn.mixture.GaussianMixture(n_components, **options)
            calls = {who: functools.partial(repeat, fit_quietly, who, X, 20) for who in (ours, theirs)}
            times = compare(calls, rounds)
            yield {
                "type": name, "rows": n_samples, "D": n_features, "K": n_components, "us": 1e6 * times[ours] / 20,
                "scikit-learn, us": 1e6 * times[theirs] / 20, "times as fast": times[theirs] / times[ours],
            }  # fmt: skip


def repeat(call: Callable, *arguments) -> None:
    """Call a function as often as the last argument says."""
    for _ in range(arguments[-1]):
        call(*arguments[:-1])


def rows(rounds: int) -> Iterable[dict]:
    """Yield a line for each covariance type: predictions of one row."""
    X = clusters(1_000, 10, 5)
    for name in TYPES:
        options = {"covariance_type": name, "random_state": 0}
        ours = GaussianMixture(5, n_jobs=1, **options).fit(X)
        theirs = sklearn.mixture.GaussianMixture(5, **options).fit(X)
        for method in ("predict", "predict_proba", "score_samples"):
            calls = {who: functools.partial(repeat, getattr(who, method), X[:1], 200) for who in (ours, theirs)}
            times = compare(calls, rounds)
            yield {
                "type": name, "method": method, "us": 1e6 * times[ours] / 200,
                "scikit-learn, us": 1e6 * times[theirs] / 200, "times as fast": times[theirs] / times[ours],
            }  # fmt: skip


def one_fit(X: np.ndarray) -> np.ndarray:
    """Return the means of scikit-learn's fit."""
    return fit_quietly(sklearn.mixture.GaussianMixture(2, random_state=0), X).means_


def many(rounds: int) -> Iterable[dict]:
    """Yield a line for many one-dimensional fits."""
    rng = np.random.default_rng(0)
    distances = rng.uniform(2, 5, size=(10_000, 1, 1))
    X = rng.normal(size=(10_000, 500, 1)) + distances * rng.integers(0, 2, size=(10_000, 500, 1))
    estimator = GaussianMixture(2, random_state=0)
    ours, theirs = [], []
    with Parallel(2) as pool:
        pool(delayed(one_fit)(x) for x in X[:100])
        for _ in range(rounds):
            ours.append(seconds(lambda: fit_many(X, estimator, n_jobs=2).means_))
            theirs.append(seconds(lambda: pool(delayed(one_fit)(x) for x in X)))
    mine, other = statistics.median(ours), statistics.median(theirs)
    yield {"fits": len(X), "rows": 500, "s": mine, "scikit-learn, s": other, "times as fast": other / mine}


def run_r(script: str) -> list[float]:
    """Return the numbers that an R script prints last, on one thread."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.R"
        file.write_text(script)
        done = subprocess.run(["Rscript", str(file)], capture_output=True, text=True, check=True, env=environment)
    return [float(number) for number in done.stdout.split("result")[-1].split()]


def rows_of(expression: str) -> np.ndarray:
    """Return the rows that an R expression gives."""
    if expression == IRIS:
        return load_iris().data
    numbers = run_r(f"options(digits = 15); X <- {expression}; cat('result', dim(X), t(X))")
    return np.array(numbers[2:]).reshape(int(numbers[0]), int(numbers[1]))


def search(rounds: int) -> Iterable[dict]:
    """Yield a line: all models and numbers of components, at mclust's tolerance."""
    script = R_START.format(rows=FAITHFUL) + (
        "invisible(Mclust(X, G = 1:2, verbose = FALSE))\n"
        "t <- sapply(1:5, function(i) time(function() Mclust(X, G = 1:9, verbose = FALSE)))\n"
        "cat('result', median(t), result$bic)\n"
    )
    X = rows_of(FAITHFUL)
    # mclust's tolerance is on the log-likelihood of all rows, relative to it: 1e-5.
    tol = 1e-5 * 1130 / len(X)
    estimator = GaussianMixture(tol=tol, max_iter=1000, acceleration=None, n_jobs=1)
    for warm_starts in (False, True):
        ours, theirs, bics = [], [], []
        template = MixtureSearch(range(1, 10), estimator=estimator, warm_starts=warm_starts, random_state=0)
        fit_quietly(template, X)
        for _ in range(rounds):
            time, bic = run_r(script)
            theirs.append(time)
            ours.append(seconds(lambda template=template: fit_quietly(template, X)))
            bics.append((-template.best_score_, bic))
        mine, other = statistics.median(ours), statistics.median(theirs)
        yield {
            "rows": "faithful", "warm starts": str(warm_starts), "s": mine, "Mclust, s": other,
            "times as fast": other / mine, "BIC (mclust's sign)": f"{bics[0][0]:.3f}", "Mclust's": f"{bics[0][1]:.3f}",
        }  # fmt: skip


def bootstrap(rounds: int, n_replicates: int = 999) -> Iterable[dict]:
    """Yield a line for each data set and model: 1 against 2 and 2 against 3 components."""
    for name, expression in (("faithful", FAITHFUL), ("iris", IRIS)):
        X = rows_of(expression)
        for model in ("EEE", "VEV", "VVV"):
            # `level = 1` goes on to the last test.
            script = R_START.format(rows=expression) + (
                f"invisible(mclustBootstrapLRT(X, '{model}', nboot = 9, maxG = 1, verbose = FALSE))\n"
                f"t <- time(function() mclustBootstrapLRT(X, '{model}', nboot = {n_replicates}, maxG = 2, level = 1,\n"
                "verbose = FALSE))\ncat('result', t, result$p.value)\n"
            )
            estimator = GaussianMixture(covariance_type=model, n_jobs=1, tol=1e-5 * 4, max_iter=1000, acceleration=None)
            test = functools.partial(bootstrap_likelihood_ratio, estimator, X, max_components=2, random_state=0)
            test(n_replicates=19)
            ours, theirs = [], []
            for _ in range(rounds):
                time, *their_p = run_r(script)
                theirs.append(time)
                ours.append(seconds(lambda test=test: test(n_replicates=n_replicates, level=0.999)))
            p = test(n_replicates=n_replicates, level=0.999).p_values
            mine, other = statistics.median(ours), statistics.median(theirs)
            yield {
                "rows": name, "model": model, "s": mine, "mclust, s": other, "times as fast": other / mine,
                "p": " ".join(f"{value:.3f}" for value in p), "mclust's p": " ".join(f"{v:.3f}" for v in their_p),
            }  # fmt: skip


def main() -> None:
    """Print the tables that the command line names."""
    tables = {"fits": fits, "rows": rows, "many": many, "search": search, "bootstrap": bootstrap}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(tables), metavar="table", help=", ".join(tables))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    unknown = set(arguments.tables) - set(tables)
    if unknown:
        parser.error(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(tables)}")
    environment = describe_environment()
    print("; ".join(f"{name} {environment[name]}" for name in ("cpu", "fastgmm", "numba", "numpy")), peers.versions())
    with threadpool_limits(1):
        for name in arguments.tables:
            lines = list(tables[name](arguments.rounds))
            print_table(tuple(lines[0]), lines, ("times as fast",))


if __name__ == "__main__":
    main()
