"""Initialisation by scikit-learn's four methods, without iterations (max_iter=0)."""

from .common import LIBRARIES, fit_quietly, make_rows


class Start:
    """Seconds for a start."""

    params = (["fastgmm", "scikit-learn"], ["kmeans", "k-means++", "random", "random_from_data"])
    param_names = ("library", "init_params")
    number, repeat, warmup_time = 1, (3, 7, 5.0), 0

    def setup(self, library, init_params):
        self.X = make_rows(100_000, 8, 32)
        self.estimator = LIBRARIES[library](32, init_params=init_params, max_iter=0, random_state=0)
        fit_quietly(self.estimator, self.X)  # compile before the clock runs, also the loop over many rows

    def time_start(self, library, init_params):
        fit_quietly(self.estimator, self.X)
