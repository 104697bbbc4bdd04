"""Time model-based agglomeration beside R's ``mclust::hc``, each on one thread, in turn.

python benchmarks/hierarchy.py                          2,000 x 6 rows and 272 x 2 rows, VVV
python benchmarks/hierarchy.py 1000 4 --models EII VVV   rows, features and models
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.common import make_rows, seconds
from benchmarks.race import print_table
from fastgmm.cli.environment import describe_environment
from fastgmm.engine import agglomerate

REPEATS = 7
COLUMNS = ("rows", "D", "model", "ms", "mclust's, ms", "times as fast")
# hc's time without the start of R: the median of some calls.
SCRIPT = """
suppressMessages(library(mclust))
a <- commandArgs(TRUE)
X <- matrix(readBin(a[1], "double", as.integer(a[2]) * as.integer(a[3])), as.integer(a[2]), as.integer(a[3]))
invisible(hc(X[1:50, ], a[4]))
once <- function(i) { begun <- Sys.time(); hc(X, a[4]); as.numeric(Sys.time() - begun, "secs") }
times <- sapply(seq_len(as.integer(a[5])), once)
cat(median(times))
"""


def mclust_seconds(X: np.ndarray, model: str, n_calls: int) -> float:
    """Return the seconds that `hc` takes for the rows."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.bin"
        np.asfortranarray(X).T.tofile(file)
        command = ["Rscript", "-e", SCRIPT, str(file), *map(str, X.shape), model, str(n_calls)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def compare(X: np.ndarray, model: str) -> dict[str, object]:
    """Return a line of the table: medians of repetitions in turn."""
    n_calls = 1 if len(X) > 500 else 15
    agglomerate(X, model, n_jobs=1)  # compile before the clock runs
    ours, theirs = [], []
    for _ in range(REPEATS):
        theirs.append(mclust_seconds(X, model, n_calls))
        ours.append(statistics.median(seconds(lambda: agglomerate(X, model, n_jobs=1)) for _ in range(n_calls)))
    mine, other = 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs)
    return dict(zip(COLUMNS, (*X.shape, model, round(mine, 1), round(other, 1), round(other / mine, 1)), strict=True))


def main() -> None:
    """Print the table for the rows and models that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=int, nargs="*", help="rows and features")
    parser.add_argument("--models", nargs="+", default=["VVV"], choices=["EII", "VII", "EEE", "VVV"])
    arguments = parser.parse_args()
    environment = describe_environment()
    print("; ".join(f"{name} {environment[name]}" for name in ("cpu", "threads", "fastgmm", "numba", "numpy")))
    shapes = [tuple(arguments.shape)] if arguments.shape else [(2000, 6), (272, 2)]
    rows = (compare(make_rows(*shape, 4), model) for shape in shapes for model in arguments.models)
    print_table(COLUMNS, rows, ())


if __name__ == "__main__":
    main()
