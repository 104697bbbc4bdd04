"""Compare a Dask cluster of two processes with one process of two threads.

    python benchmarks/dask_cluster.py --rows 10000000

prints the seconds per EM iteration for several numbers of components and the largest difference of the means. It
repeats this with a worker that is killed during the fit.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import statistics
import sys
import time
import warnings
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import make_rows
from benchmarks.out_of_core import FEATURES, start

ROWS_PER_BLOCK = 250_000
N_ITER = 15


def block(i: int, n: int) -> np.ndarray:
    """Return the rows of a block."""
    return make_rows(n, FEATURES, 8) + np.random.default_rng(i).normal(scale=0.1, size=(n, FEATURES))


def timed_fit(make, X, n_components: int, **options) -> tuple[float, np.ndarray]:
    """Return the median seconds of an iteration, and the final means."""
    times: list[float] = []

    def callback(n_iter: int, bound: float, parameters: object) -> None:
        times.append(time.perf_counter())
        if n_iter == options.get("kill_in"):
            os.kill(options["pid"], signal.SIGKILL)

    model = make(n_components, acceleration=None, tol=0, max_iter=N_ITER, callback=callback, **start(n_components))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X)
    return statistics.median(np.diff(times)), model.means_


def main() -> None:
    """Print the table."""
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    from fastgmm import DaskGaussianMixture, GaussianMixture

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--components", type=int, nargs="*", default=[8, 64])
    arguments = parser.parse_args()
    starts = range(0, arguments.rows, ROWS_PER_BLOCK)
    sizes = [min(ROWS_PER_BLOCK, arguments.rows - first) for first in starts]
    X = np.concatenate([block(i, n) for i, n in enumerate(sizes)])
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        client = Client(cluster)
        delayed = [da.from_delayed(dask.delayed(block)(i, n), (n, FEATURES), float) for i, n in enumerate(sizes)]
        D = client.persist(da.concatenate(delayed))
        print(f"{len(X)} x {FEATURES}; seconds per iteration, median of {N_ITER - 1}")
        print(f"{'K':>4}{'plain':>9}{'Dask':>9}{'overhead':>10}{'means apart':>13}")
        for n_components in arguments.components:
            plain, expected = timed_fit(GaussianMixture, X, n_components)
            seconds, means = timed_fit(DaskGaussianMixture, D, n_components)
            again, _ = timed_fit(GaussianMixture, X, n_components)
            plain = min(plain, again)
            apart = np.abs(means - expected).max()
            print(
                f"{n_components:>4}{plain:>9.3f}{seconds:>9.3f}{seconds / plain - 1:>10.0%}{apart:>13.1e}", flush=True
            )
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        pid = next(iter(client.run(os.getpid).values()))
        n_components = arguments.components[0]
        _, expected = timed_fit(GaussianMixture, X, n_components)
        begun = time.perf_counter()
        _, means = timed_fit(DaskGaussianMixture, D, n_components, kill_in=5, pid=pid)
        survivors = client.run(os.getpid).values()
        assert pid not in survivors
        print(
            f"one of two workers killed in the fifth iteration, K={n_components}: {time.perf_counter() - begun:.1f} s "
            f"in all, means apart {np.abs(means - expected).max():.1e}"
        )
        client.close()


if __name__ == "__main__":
    main()
