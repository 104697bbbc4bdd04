"""Compare the fourteen covariance models with R's mclust (Debian's r-cran-mclust): results, or time per iteration.

    python benchmarks/fourteen_models.py                       one M-step from the same partition, and EM to its end
    python benchmarks/fourteen_models.py --speed 200000 10 10  time per iteration for rows x features x components

Columns of the results:

* the numbers of parameters of both libraries;
* the objective of one M-step from a partition, iterated to convergence in both libraries: the log-likelihood of rows
  and partition, minus that of mclust;
* for models with common axes, the slope of this objective if the axes are rotated, in nats per radian, in both
  libraries (it is 0 at a maximum);
* the log-likelihoods of all rows, in nats, after that step and after EM with tight tolerances, and the differences from
  mclust.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from benchmarks.common import fit_quietly, make_rows, seconds
from benchmarks.race import print_table
from fastgmm import GaussianMixture
from fastgmm.cli.environment import describe_environment

MODELS = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
COMMON_AXES = ("EVE", "VVE")
SCRIPT = Path(__file__).with_name("mclust.R")
ANSWERS = ("rows from", "rows", "D", "K", "model", "parameters", "mclust's", "raised, less mclust's",
           "slope", "mclust's slope", "one M-step", "less mclust's", "EM", "less mclust's EM")  # fmt: skip
SPEED = ("model", "ms per iteration", "mclust's", "over mclust")


class Theirs(NamedTuple):
    """The results of mclust for a model, as `mclust.R` prints them."""

    n_parameters: int
    complete: float
    once: float
    end: float
    n_iter: int
    seconds: float
    covariances: np.ndarray


def mclust(X: np.ndarray, labels: np.ndarray, n_components: int, tol: float, max_iter: int, models=MODELS):
    """Run `mclust.R`, and return its results by model."""
    with tempfile.TemporaryDirectory() as folder:
        np.asfortranarray(X).T.tofile(Path(folder) / "rows.bin")
        (labels + 1).astype(np.int32).tofile(Path(folder) / "labels.bin")
        command = ["Rscript", str(SCRIPT), folder, *map(str, (*X.shape, n_components, tol, max_iter)), *models]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = {}
        for line in output.splitlines():
            name, *numbers = line.split()
            values = (np.nan if n in ("NA", "NaN") else float(n) for n in numbers[1:])
            complete, once, end, n_iter, per_iteration = values
            covariances = np.fromfile(Path(folder) / f"{name}.bin").reshape(-1, X.shape[1], X.shape[1])
            result[name] = Theirs(int(numbers[0]), complete, once, end, int(n_iter), per_iteration, covariances)
    return result


def data_sets() -> Iterator[tuple[str, np.ndarray, int]]:
    """Yield names, rows that are not in mclust's manual, and numbers of components."""
    wine = StandardScaler().fit_transform(load_wine().data)[:, [0, 1, 2, 6, 9, 12]]
    yield from (("wine", wine, k) for k in (2, 3))
    digits = PCA(5, random_state=0).fit_transform(load_digits().data)
    yield from (("digits", digits, k) for k in (3, 6))
    cells = PCA(4, random_state=0).fit_transform(StandardScaler().fit_transform(load_breast_cancer().data))
    yield from (("breast cancer", cells, k) for k in (2, 4))
    yield from (("mixture", make_rows(2000, 3, 5), k) for k in (3, 5))


def complete(model: GaussianMixture, X: np.ndarray, labels: np.ndarray) -> float:
    """Return the log-likelihood of rows and partition."""
    parameters = model._parameters()
    full = parameters.model.form.full(parameters.covariances, *parameters.means.shape)
    return sum(
        float((np.log(weight) + multivariate_normal(mean, covariance).logpdf(X[labels == k])).sum())
        for k, (weight, mean, covariance) in enumerate(zip(parameters.weights, parameters.means, full, strict=True))
    )


def slope(covariances: np.ndarray, X: np.ndarray, labels: np.ndarray) -> float:
    """Return the slope of the log-likelihood of rows and partition when the common axes are rotated.

    It is the largest ``|sum_k (1 / v_ki - 1 / v_kj) (D^T W_k D)_ij|`` for axes i and j, in nats per radian.
    """
    # A sum of the matrices with different weights has their common axes.
    axes = np.linalg.eigh(np.tensordot(0.5 + np.arange(len(covariances)) * 0.618 % 1, covariances, axes=1))[1]
    total = 0.0
    for k, covariance in enumerate(covariances):
        centred = (X[labels == k] - X[labels == k].mean(axis=0)) @ axes
        precisions = 1 / np.diagonal(axes.T @ covariance @ axes)
        total = total + (precisions[:, np.newaxis] - precisions) * (centred.T @ centred)
    return float(np.abs(total).max())


def answers() -> Iterator[dict]:
    """Yield a line for each data set, number of components and model."""
    for name, X, n_components in data_sets():
        X = np.ascontiguousarray(X)
        labels = fit_quietly(GaussianMixture(n_components, covariance_type="VII", random_state=0), X).predict(X)
        theirs = mclust(X, labels, n_components, 1e-13, 20_000)
        for model in MODELS:
            options = {"covariance_type": model, "reg_covar": 0, "resp_init": labels, "acceleration": None}
            try:
                once = GaussianMixture(n_components, max_iter=0, **options).fit(X)
                end = fit_quietly(GaussianMixture(n_components, tol=1e-13, max_iter=20_000, **options), X)
                values = complete(once, X, labels), len(X) * once.score(X), len(X) * end.score(X)
                covariances = once._parameters().model.form.full(once.covariances_, *once.means_.shape)
            except ValueError:
                values, covariances = (np.nan, np.nan, np.nan), np.full((n_components, X.shape[1], X.shape[1]), np.nan)
            both = (covariances, theirs[model].covariances) if model in COMMON_AXES else ()
            slopes = [f"{slope(matrices, X, labels):.0e}" for matrices in both] or ["", ""]
            yield {
                "rows from": name, "rows": X.shape[0], "D": X.shape[1], "K": n_components, "model": model,
                "parameters": once._n_parameters(), "mclust's": theirs[model].n_parameters,
                "raised, less mclust's": f"{values[0] - theirs[model].complete:+.1e}",
                "slope": slopes[0], "mclust's slope": slopes[1],
                "one M-step": f"{values[1]:.6f}", "less mclust's": f"{values[1] - theirs[model].once:+.1e}",
                "EM": f"{values[2]:.6f}", "less mclust's EM": f"{values[2] - theirs[model].end:+.1e}",
            }  # fmt: skip


def speed(n_samples: int, n_features: int, n_components: int) -> Iterator[dict]:
    """Yield a line for each model."""
    X = make_rows(n_samples, n_features, n_components)
    labels = fit_quietly(GaussianMixture(n_components, covariance_type="VII", random_state=0), X).predict(X)
    for model in MODELS:
        options = {"covariance_type": model, "reg_covar": 0, "resp_init": labels, "acceleration": None, "tol": 0.0}

        def take(n_iter: int, options: dict = options) -> float:
            engine = GaussianMixture(n_components, max_iter=n_iter, **options)
            return seconds(lambda: fit_quietly(engine, X))

        take(1)
        ours = statistics.median((take(11) - take(1)) / 10 for _ in range(5))
        theirs = mclust(X, labels, n_components, 0.0, 4, (model,))[model].seconds
        yield {"model": model, "ms per iteration": 1e3 * ours, "mclust's": 1e3 * theirs, "over mclust": theirs / ours}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=int, nargs=3, metavar=("N", "D", "K"))
    arguments = parser.parse_args()
    environment = describe_environment()
    print("; ".join(f"{name} {environment[name]}" for name in ("cpu", "threads", "fastgmm", "numba", "numpy")))
    if arguments.speed:
        print_table(SPEED, speed(*arguments.speed), ("over mclust",))
    else:
        print_table(ANSWERS, answers(), ())


if __name__ == "__main__":
    main()
