"""Print what one pass of `StreamingGaussianMixture` over a shuffled stream loses to exact EM from the same start.

Held-out nats per row, a tenth of the rows, medians over seeds: the order of the rows and the start are other ones in
each. The exact fit goes on from the model after the stream's first rows, with tol=1e-6, on all that the stream sees.

python benchmarks/stream.py                                        the defaults; three minutes
python benchmarks/stream.py --learning-decay 0.6 0.8 --seeds 3     others beside them
python benchmarks/stream.py --batch-size 200 2000 --only pixels
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.common import fit_quietly, make_rows, seconds
from benchmarks.race import print_table
from benchmarks.real_rows import Problem, patches, problems
from fastgmm import DegenerateComponentWarning, GaussianMixture, StreamingGaussianMixture
from fastgmm.cli.environment import describe_environment

COLUMNS = ("rows from", "rows", "D", "K", "type", "decay", "batch", "init", "start", "loss", "at worst", "at best",
           "exact's passes", "rows a second")  # fmt: skip


def streams() -> list[Problem]:
    """Problems with enough rows for a stream: the start's are the smaller part of them."""
    few = ("digits", "patches", "clothes")
    return [
        Problem("mixture, overlapping", lambda: make_rows(500_000, 6, 8), 8, "full"),
        *(p for p in problems() if not p.slow and p.name not in few),
        *(Problem("patches", lambda: patches(200_000), 24, name) for name in ("full", "diag", "spherical")),
    ]


def losses(problem: Problem, X: np.ndarray, seed: int, settings: list[dict]) -> Iterator[dict]:
    """How much less likely held-out rows are after the stream than after exact EM, for each setting."""
    X = X[np.random.default_rng(seed).permutation(len(X))]
    train, test = X[: len(X) * 9 // 10], X[len(X) * 9 // 10 :]
    options = {"covariance_type": problem.covariance_type, "random_state": seed}
    for setting in settings:
        model = StreamingGaussianMixture(problem.n_components, **options, **setting)
        stream_options = model._new_stream(X.shape[1]).options
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateComponentWarning)
            start = model.partial_fit(train[: stream_options.init_size])
        exact = GaussianMixture.from_parameters(
            start.weights_, start.means_, start.covariances_, covariance_type=problem.covariance_type,
            warm_start=True, tol=1e-6, max_iter=3000, acceleration="squarem",
        )  # fmt: skip
        limit = fit_quietly(exact, train).score(test)
        started = start.score(test)
        rest = train[stream_options.init_size :]
        taken = seconds(functools.partial(model.partial_fit, rest))
        batch_size = stream_options.forgetting.batch_size
        yield {"init": stream_options.init_size, "batch": batch_size, "start": started - limit,
               "loss": model.score(test) - limit, "passes": exact.n_iter_, "speed": len(rest) / taken}  # fmt: skip


def lines(seeds: int, settings: list[dict], only: list[str]) -> Iterator[dict]:
    """A line for each problem and setting."""
    for problem in streams():
        if only and problem.name not in only:
            continue
        X = problem.make()
        runs = zip(*(losses(problem, X, seed, settings) for seed in range(seeds)), strict=True)
        for setting, found in zip(settings, runs, strict=True):
            loss = [one["loss"] for one in found]
            middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
            decay = StreamingGaussianMixture(**setting).learning_decay
            yield {
                "rows from": problem.name, "rows": len(X), "D": X.shape[1], "K": problem.n_components,
                "type": problem.covariance_type, "decay": decay, "batch": middle["batch"], "init": middle["init"],
                "start": f"{middle['start']:+.4f}", "loss": f"{middle['loss']:+.4f}", "at worst": f"{min(loss):+.4f}",
                "at best": f"{max(loss):+.4f}", "exact's passes": middle["passes"], "rows a second": middle["speed"],
            }  # fmt: skip


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--learning-decay", type=float, nargs="*", default=[])
    parser.add_argument("--batch-size", type=int, nargs="*", default=[])
    parser.add_argument("--init-size", type=int, nargs="*", default=[])
    parser.add_argument("--only", nargs="*", default=[], help="names of problems")
    arguments = parser.parse_args()
    names = ("learning_decay", "batch_size", "init_size")
    settings = [{}, *({name: value} for name in names for value in getattr(arguments, name))]
    environment = describe_environment()
    print("; ".join(f"{name} {environment[name]}" for name in ("cpu", "threads", "fastgmm", "numba", "numpy")))
    print_table(COLUMNS, lines(arguments.seeds, settings, arguments.only), ())


if __name__ == "__main__":
    main()
