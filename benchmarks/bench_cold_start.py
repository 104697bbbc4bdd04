"""The cost of the first call: importing, compiling, loading compiled kernels from the disk cache."""

FIT = """
import warnings
import numpy as np
from fastgmm import GaussianMixture
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(1000, 4)).astype("{dtype}")
GaussianMixture(3, covariance_type="{covariance_type}", max_iter=3, random_state=0).fit(X)
"""
NEW_CACHE = """
import os, tempfile
folder = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = folder.name
"""


class Import:
    """Seconds to import, each time in a new process."""

    number, repeat = 1, 5

    def timeraw_sklearn_mixture(self):
        return "import sklearn.mixture"

    def timeraw_fastgmm_estimator(self):
        return "from fastgmm import GaussianMixture"

    def timeraw_fastgmm_engine(self):
        return "import fastgmm.engine"


class FirstFit:
    """Seconds from the start of the interpreter to the end of the first fit."""

    params = (["full", "diag", "tied"], ["float64", "float32"])
    param_names = ("covariance_type", "dtype")
    number, repeat, timeout = 1, 3, 300

    def timeraw_empty_cache(self, covariance_type, dtype):
        return NEW_CACHE + FIT.format(covariance_type=covariance_type, dtype=dtype)

    def timeraw_from_cache(self, covariance_type, dtype):
        return FIT.format(covariance_type=covariance_type, dtype=dtype)
