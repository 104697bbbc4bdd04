"""EM iterations over rows in files and in memory, and steps of a stream."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

import fastgmm

from .common import compare, fit_quietly, make_estimator, make_rows, make_start

SHAPE = (2_000_000, 6)
N_ITER = 5


class Rows:
    """Files of 96 MB, which are in the cache of the operating system."""

    params = (["npy", "parquet"], [8, 64])
    param_names = ("file", "components")
    timeout = 600

    def setup(self, kind, n_components):
        import pyarrow as pa
        from pyarrow import parquet

        self.folder = Path(tempfile.mkdtemp())
        self.X = make_rows(*SHAPE, 8)
        path = self.folder / f"rows.{kind}"
        if kind == "npy":
            np.save(path, self.X)
        else:
            parquet.write_table(pa.table({f"f{d}": self.X[:, d] for d in range(SHAPE[1])}), path)
        self.source = fastgmm.rows(path)
        self.model = make_estimator(
            "fastgmm", n_components, "full", make_start(self.X, n_components, "full"), n_iter=N_ITER
        )
        fit_quietly(self.model, self.source)

    def teardown(self, kind, n_components):
        shutil.rmtree(self.folder)

    def time_fit(self, kind, n_components):
        fit_quietly(self.model, self.source)

    def track_over_memory(self, kind, n_components):
        """Return how many times as long the fit takes as with rows in memory."""
        calls = {
            name: lambda X=X: fit_quietly(self.model, X) for name, X in (("file", self.source), ("memory", self.X))
        }
        seconds = compare(calls, 3)
        return seconds["file"] / seconds["memory"]

    track_over_memory.unit = "times"


class Stream:
    """One pass of stepwise EM."""

    params = (["full", "diag"],)
    param_names = ("covariance_type",)

    def setup(self, covariance_type):
        self.X = make_rows(200_000, 6, 8)
        self.time_partial_fit(covariance_type)

    def time_partial_fit(self, covariance_type):
        fastgmm.StreamingGaussianMixture(8, covariance_type=covariance_type, random_state=0).partial_fit(self.X)
