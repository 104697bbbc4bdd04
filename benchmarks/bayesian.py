"""Print the time of an iteration of `BayesianGaussianMixture`, in fastgmm and in scikit-learn; medians.

python benchmarks/bayesian.py
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sklearn.mixture

from benchmarks import peers
from benchmarks.common import fit_quietly, make_rows, seconds
from benchmarks.race import print_table
from fastgmm import BayesianGaussianMixture
from fastgmm.cli.environment import describe_environment

SHAPES = ((500_000, 2, 8), (200_000, 10, 10), (100_000, 32, 16), (100_000, 16, 64))
COLUMNS = ("type", "rows", "D", "K", "ms per iteration", "scikit-learn's", "over scikit-learn")


def iteration(engine: type, X, first: int, more: int, rounds: int, **options) -> float:
    """Return the seconds of an iteration: those of a long fit minus those of a short one, from the same start."""

    def take(max_iter: int) -> float:
        return seconds(lambda: fit_quietly(engine(max_iter=max_iter, tol=0.0, **options), X))

    return statistics.median((take(first + more) - take(first)) / more for _ in range(rounds))


def rows() -> Iterator[dict]:
    """Yield a line for each covariance type and shape."""
    for covariance_type in ("full", "tied", "diag", "spherical"):
        for n_samples, n_features, n_components in SHAPES:
            X = make_rows(n_samples, n_features, n_components)
            options = {"n_components": n_components, "covariance_type": covariance_type, "random_state": 0,
                       "init_params": "random_from_data"}  # fmt: skip
            fit_quietly(BayesianGaussianMixture(**options, max_iter=1), X)  # compile before the clock runs
            ours = iteration(BayesianGaussianMixture, X, 2, 10, 5, **options)
            theirs = iteration(sklearn.mixture.BayesianGaussianMixture, X, 1, 2, 3, **options)
            yield {"type": covariance_type, "rows": n_samples, "D": n_features, "K": n_components,
                   "ms per iteration": 1e3 * ours, "scikit-learn's": 1e3 * theirs,
                   "over scikit-learn": theirs / ours}  # fmt: skip


def main() -> None:
    """Print the table."""
    environment = describe_environment()
    names = ("cpu", "threads", "fastgmm", "numba", "numpy")
    print("; ".join(f"{name} {environment[name]}" for name in names) + f"; {peers.versions()}")
    print_table(COLUMNS, rows(), ("over scikit-learn",))


if __name__ == "__main__":
    main()
