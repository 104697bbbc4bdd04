"""Compare the likelihoods of the default fit and of plain EM, from the same seeds, on many data sets.

    python benchmarks/against_plain.py reporting
    python benchmarks/against_plain.py tuning --seeds 5 --types full --options '{"acceleration": "squarem"}'

Plain EM (``acceleration=None``) runs once for each seed, to the finest tolerance. Its history tells where it would have
stopped with a coarser tolerance. Each data set, covariance type and tolerance gets one line: the median over seeds of
the default's mean log-likelihood minus that of plain EM, in nats per row, the smallest of these differences, and the
number of passes of both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.data_sets import REPORTING, TUNING, DataSet
from fastgmm import GaussianMixture

TYPES = ("full", "tied", "diag", "spherical")
TOLERANCES = (1e-3, 1e-4, 1e-6)
MAX_ITER = 1000
# Nats per row by which a median, or one seed, must be lower than plain EM's to be counted.
MEDIAN_BELOW = 0.002
SEED_BELOW = 0.02


def run(X: np.ndarray, options: dict) -> tuple[list[float], float]:
    """Fit; return the history of bounds and the final bound, NaN if the fit fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted = GaussianMixture(max_iter=MAX_ITER, n_jobs=1, **options).fit(X)
        except ValueError:
            return [], float("nan")
    return list(fitted.lower_bounds_), float(fitted.lower_bound_)


def ends(bounds: list[float], tol: float) -> tuple[float, int]:
    """Return the bound at which plain EM would have stopped with a coarser tolerance, and its number of passes."""
    for n, (before, after) in enumerate(pairwise(bounds), start=2):
        if abs(after - before) < tol:
            return after, n
    return (bounds[-1], len(bounds)) if bounds else (float("nan"), 0)


def compare(half: str, name: str, covariance_type: str, seeds: list[int], options: dict, kept: str) -> list[dict]:
    """Return the lines of one data set and covariance type: one for each tolerance and seed."""
    data = next(d for d in (TUNING if half == "tuning" else REPORTING) if d.name == name)
    X, lines = None, []
    for seed in seeds:
        common = {"n_components": data.n_components, "covariance_type": covariance_type, "random_state": seed}
        file = Path(kept, f"{name}-{covariance_type}-{seed}.json".replace("/", "_")) if kept else None
        X = np.ascontiguousarray(data.make()) if X is None else X
        if file and file.exists():
            bounds = json.loads(file.read_text())
        else:
            bounds, _ = run(X, {**common, "tol": min(TOLERANCES), "acceleration": None})
            if file:
                file.write_text(json.dumps(bounds))
        for tol in TOLERANCES:
            plain, n_plain = ends(bounds, tol)
            history, bound = run(X, {**common, "tol": tol, **options})
            lines.append(
                {"data": name, "type": covariance_type, "tol": tol, "seed": seed, "difference": bound - plain,
                 "bound": bound, "plain": plain, "passes": len(history), "plain passes": n_plain}
            )  # fmt: skip
    return lines


def summarise(lines: list[dict]) -> None:
    """Print a line for each cell, and how often the default is lower."""
    print(f"| {'data':28} | type      |  tol   | median   | lowest   | plain's median | passes | plain's |")
    cells: dict[tuple, list[dict]] = {}
    for line in lines:
        cells.setdefault((line["data"], line["type"], line["tol"]), []).append(line)
    below, failed = [], 0
    for (name, kind, tol), cell in cells.items():
        differences = [c["difference"] for c in cell if np.isfinite(c["difference"])]
        failed += sum(not np.isfinite(c["bound"]) and np.isfinite(c["plain"]) for c in cell)
        if not differences:
            continue
        plain = statistics.median(c["plain"] for c in cell)
        ours = statistics.median(c["bound"] for c in cell)
        median = ours - plain
        mark = " <" if median < -MEDIAN_BELOW else ""
        below += [name + " " + kind + f" {tol:g}"] if mark else []
        passes, others = (statistics.median(c[n] for c in cell) for n in ("passes", "plain passes"))
        lowest = min(differences)
        print(
            f"| {name:28} | {kind:9} | {tol:6g} | {median:+8.4f} | {lowest:+8.4f} | {plain:14.4f} "
            f"| {passes:6.0f} | {others:7.0f} |{mark}"
        )
    differences = np.array([line["difference"] for line in lines])
    differences = differences[np.isfinite(differences)]
    print(
        f"medians of {len(cells)} cells below plain EM's by more than {MEDIAN_BELOW}: {len(below)}", *below, sep="\n  "
    )
    for tol in TOLERANCES:
        of_tol = np.array([c["difference"] for c in lines if c["tol"] == tol and np.isfinite(c["difference"])])
        print(f"tol {tol:g}: {100 * (of_tol < -SEED_BELOW).mean():.2f} % of {len(of_tol)} seeds more than {SEED_BELOW} "
              f"below, {100 * (of_tol > SEED_BELOW).mean():.2f} % above; mean {of_tol.mean():+.4f}")  # fmt: skip
    print(f"all: {100 * (differences < -SEED_BELOW).mean():.2f} % below, {failed} failed where plain EM did not")


def main() -> None:
    """Run the comparison on all data sets of a half, or on those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=["tuning", "reporting"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--types", nargs="*", default=TYPES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--options", type=json.loads, default={}, help="parameters of the fit in place of the defaults")
    parser.add_argument("--kept", default="", help="a folder that stores the histories of plain EM")
    parser.add_argument("--out", default="", help="a file for all lines, as JSON")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.kept:
        Path(arguments.kept).mkdir(parents=True, exist_ok=True)
    half: list[DataSet] = TUNING if arguments.half == "tuning" else REPORTING
    chosen = [d for d in half if not arguments.names or d.name in arguments.names]
    with ProcessPoolExecutor(arguments.processes) as pool:
        parts = [
            pool.submit(compare, arguments.half, d.name, kind, list(range(arguments.seeds)), arguments.options,
                        arguments.kept)
            for d in chosen for kind in arguments.types
        ]  # fmt: skip
        lines = []
        for part in parts:
            lines += part.result()
            print(lines[-1]["data"], lines[-1]["type"], file=sys.stderr, flush=True)
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(lines))
    summarise(lines)


if __name__ == "__main__":
    main()
