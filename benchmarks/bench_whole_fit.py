"""Whole fits of real rows by both libraries, from their own starts, with equal tolerances."""

import numpy as np
from asv_runner.benchmarks.mark import SkipNotImplemented

from .common import LIBRARIES, fit_quietly
from .real_rows import problems

PROBLEMS = {f"{problem.name} {problem.covariance_type}": problem for problem in problems()}
TOLERANCES = {"default": {}, "1e-6": {"tol": 1e-6, "max_iter": 2000}}


class WholeFit:
    """Seconds, passes over the rows, and the final likelihood in nats per row."""

    params = (list(LIBRARIES), list(PROBLEMS), list(TOLERANCES))
    param_names = ("library", "rows", "tolerance")
    number, repeat, warmup_time, timeout = 1, (1, 3, 20.0), 0, 1800

    def setup(self, library, rows, tolerance):
        problem = PROBLEMS[rows]
        if problem.slow and tolerance != "default" and library == "scikit-learn":
            raise SkipNotImplemented("it takes many minutes")
        self.X = np.ascontiguousarray(problem.make())
        options = {"covariance_type": problem.covariance_type, "random_state": 0, **TOLERANCES[tolerance]}
        self.estimator = LIBRARIES[library](problem.n_components, **options)
        # Compile before the clock runs.
        fit_quietly(LIBRARIES["fastgmm"](2, covariance_type=problem.covariance_type), self.X)

    def time_fit(self, library, rows, tolerance):
        fit_quietly(self.estimator, self.X)

    def track_passes(self, library, rows, tolerance):
        return fit_quietly(self.estimator, self.X).n_iter_

    def track_likelihood(self, library, rows, tolerance):
        return float(fit_quietly(self.estimator, self.X).score(self.X))

    track_passes.unit, track_likelihood.unit = "passes", "nats per row"
