"""Peak memory of a fit, including its initialisation.

Every figure includes the rows (64 MB) and the interpreter.
"""

from .common import LIBRARIES, fit_quietly, make_rows


class Memory:
    """Peak resident memory of the process."""

    params = (["nothing", "fastgmm", "scikit-learn"], ["full", "diag"])
    param_names = ("library", "covariance_type")
    timeout = 600

    def setup(self, library, covariance_type):
        self.X = make_rows(1_000_000, 8, 32)

    def peakmem_fit(self, library, covariance_type):
        if library != "nothing":
            estimator = LIBRARIES[library](32, covariance_type=covariance_type, max_iter=2, tol=0, random_state=0)
            fit_quietly(estimator, self.X)
