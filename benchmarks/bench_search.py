"""A small search over models and numbers of components: its time, and the likelihoods it finds."""

import numpy as np
from sklearn.datasets import load_iris

from fastgmm import MixtureSearch

from .common import make_rows

ROWS = {"iris 150x4": lambda: load_iris().data, "mixture 20000x6": lambda: make_rows(20_000, 6, 7)}
TYPES = ["EII", "VVI", "EEE", "VVE", "VEV", "VVV"]


class Search:
    """Six models x 1 to 6 components, with and without warm starts along K."""

    params = (list(ROWS), [True, False])
    param_names = ("rows", "warm_starts")
    number, repeat, warmup_time, timeout = 1, (3, 7, 5.0), 0, 600

    def setup(self, rows, warm_starts):
        self.X = ROWS[rows]()
        self.search = MixtureSearch(range(1, 7), covariance_types=TYPES, random_state=0, warm_starts=warm_starts)
        self.search.fit(self.X)  # compile before the clock runs

    def time_fit(self, rows, warm_starts):
        self.search.fit(self.X)

    def track_likelihood(self, rows, warm_starts):
        """Return the mean over cells; a cell that failed counts as the worst of its model."""
        results = self.search.results_
        likelihoods = results["log_likelihood"].reshape(len(TYPES), -1)
        return float(np.where(np.isnan(likelihoods), np.nanmin(likelihoods, axis=1)[:, None], likelihoods).mean())

    def track_best_bic(self, rows, warm_starts):
        return float(self.search.best_score_)

    track_likelihood.unit, track_best_bic.unit = "nats of all rows", "BIC"
