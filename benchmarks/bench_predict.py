"""Prediction by both libraries with the same parameters."""

from .bench_fit import parse
from .common import fit_quietly, make_estimator, make_rows, make_start

CASES = ["full 200000x2 K=8", "full 50000x16 K=64", "diag 50000x16 K=64", "tied 50000x16 K=64"]


class Predict:
    """Seconds for one call."""

    params = (["fastgmm", "scikit-learn"], ["predict", "predict_proba", "score_samples"], CASES)
    param_names = ("library", "method", "case")
    number, repeat, warmup_time = 1, (3, 7, 5.0), 0

    def setup(self, library, method, case):
        covariance_type, n_samples, n_features, n_components = parse(case)
        self.X = make_rows(n_samples, n_features, n_components)
        start = make_start(self.X, n_components, covariance_type)
        estimator = make_estimator(library, n_components, covariance_type, start, 1)
        self.call = getattr(fit_quietly(estimator, self.X), method)
        self.call(self.X[:100])

    def time_method(self, library, method, case):
        self.call(self.X)
