"""Variational iterations of both libraries, with equal starts and equal numbers of iterations."""

import functools

import sklearn.mixture

import fastgmm

from .common import compare, fit_quietly, make_rows

LIBRARIES = {"fastgmm": fastgmm.BayesianGaussianMixture, "scikit-learn": sklearn.mixture.BayesianGaussianMixture}
# The numbers of rows are such that an iteration of scikit-learn takes about a tenth of a second.
CASES = {
    "full 50000x10 K=10": ("full", 50_000, 10, 10),
    "full 100000x2 K=8": ("full", 100_000, 2, 8),
    "tied 50000x10 K=10": ("tied", 50_000, 10, 10),
    "diag 50000x32 K=16": ("diag", 50_000, 32, 16),
    "spherical 50000x10 K=10": ("spherical", 50_000, 10, 10),
}
N_ITER = 5


def make_estimator(library, case, n_iter=N_ITER):
    """Return an estimator that runs exactly `n_iter` iterations from means drawn from the rows."""
    covariance_type, _, _, n_components = CASES[case]
    options = {"covariance_type": covariance_type, "init_params": "random_from_data", "random_state": 0}
    return LIBRARIES[library](n_components=n_components, max_iter=n_iter, tol=0.0, **options)


class Bayesian:
    """Seconds for five iterations and a start from random rows."""

    params = (list(LIBRARIES), list(CASES))
    param_names = ("library", "case")
    number, repeat, warmup_time, timeout = 1, (3, 7, 5.0), 0, 600

    def setup(self, library, case):
        self.X, self.estimator = make_rows(*CASES[case][1:]), make_estimator(library, case)
        fit_quietly(make_estimator("fastgmm", case), self.X)  # compile before the clock runs

    def time_fit(self, library, case):
        fit_quietly(self.estimator, self.X)


class BayesianSpeedup:
    """How many times faster an iteration is, without the start; both libraries in turn in one process."""

    params = (list(CASES),)
    param_names = ("case",)
    timeout = 600

    def setup(self, case):
        self.X = make_rows(*CASES[case][1:])

    def track_speedup(self, case):
        runs = [(library, n_iter) for library in LIBRARIES for n_iter in (1, 1 + N_ITER)]
        calls = {run: functools.partial(fit_quietly, make_estimator(run[0], case, run[1]), self.X) for run in runs}
        times = compare(calls, rounds=3)
        ours, theirs = (times[library, 1 + N_ITER] - times[library, 1] for library in LIBRARIES)
        return theirs / ours

    track_speedup.unit = "times faster"
