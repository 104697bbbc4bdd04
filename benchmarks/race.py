"""Print the table of the README: seconds for an EM iteration, fastgmm beside scikit-learn.

Equal rows, equal start, equal number of iterations; the libraries take turns in one process, the median counts.

    python benchmarks/race.py [--rounds N] [--quick]
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.common import compare, fit_quietly, make_estimator, make_rows, make_start
from fastgmm.environment import describe_environment

SHAPES = [
    ("full", 300, 2, 3),
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
N_ITER = 5


def race(covariance_type: str, n_samples: int, n_features: int, n_components: int, dtype: str, rounds: int) -> dict:
    """Median seconds an iteration of each library."""
    X = make_rows(n_samples, n_features, n_components, dtype)
    start = make_start(X, n_components, covariance_type)
    # Small fits are over in microseconds: more iterations, or the clock would measure the call.
    n_iter = N_ITER if n_samples > 10_000 else 100
    estimators = {
        name: make_estimator(name, n_components, covariance_type, start, n_iter) for name in ("fastgmm", "scikit-learn")
    }
    times = compare({name: lambda e=e: fit_quietly(e, X) for name, e in estimators.items()}, rounds)
    bounds = [estimator.lower_bound_ for estimator in estimators.values()]
    assert np.isclose(*bounds, rtol=1e-9 if dtype == "float64" else 1e-4), bounds
    return {name: value / n_iter for name, value in times.items()}


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    arguments = parser.parse_args()
    environment = describe_environment()
    names = ("cpu", "threads", "fastgmm", "scikit-learn", "numba", "numpy")
    print("; ".join(f"{name} {environment[name]}" for name in names))
    print("\n| type | rows | D | K | fastgmm, ms | scikit-learn, ms | times faster | float32: ms | times faster |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for covariance_type, n_samples, n_features, n_components in SHAPES:
        n_samples = n_samples // 10 if arguments.quick else n_samples
        cells = []
        for dtype in ("float64", "float32"):
            times = race(covariance_type, n_samples, n_features, n_components, dtype, arguments.rounds)
            ratio = times["scikit-learn"] / times["fastgmm"]
            ratios += [ratio] if dtype == "float64" else []
            cells.append((1e3 * times["fastgmm"], 1e3 * times["scikit-learn"], ratio))
        (ours, theirs, ratio), (single, _, single_ratio) = cells
        print(
            f"| {covariance_type} | {n_samples:,} | {n_features} | {n_components} | {digits(ours)} | "
            f"{digits(theirs)} | {ratio:.1f} | {digits(single)} | {single_ratio:.1f} |",
            flush=True,
        )
    print(f"\nGeometric mean, float64: {math.exp(np.mean(np.log(ratios))):.1f} times faster.")


if __name__ == "__main__":
    main()
