"""EM iterations of mclust's fourteen models, which have no peer in Python."""

from fastgmm import GaussianMixture

from .common import fit_quietly, make_rows, make_start
from .fourteen_models import MODELS

CASES = {"200000x10 K=10": (200_000, 10, 10), "2000x4 K=5": (2_000, 4, 5)}
N_ITER = 5


class Models:
    """Seconds for five iterations, including the statistics of the labels from which all models start."""

    params = (list(MODELS), list(CASES))
    param_names = ("model", "case")
    number, repeat, warmup_time, timeout = 1, (3, 7, 3.0), 0, 600

    def setup(self, model, case):
        n_samples, n_features, n_components = CASES[case]
        self.X = make_rows(n_samples, n_features, n_components)
        start = make_start(self.X, n_components, "spherical")
        labels = fit_quietly(GaussianMixture(n_components, covariance_type="VII", max_iter=5, **start), self.X)
        options = {"resp_init": labels.predict(self.X), "acceleration": None, "tol": 0.0, "max_iter": N_ITER}
        self.estimator = GaussianMixture(n_components, covariance_type=model, **options)
        fit_quietly(self.estimator, self.X)  # compile before the clock runs

    def time_fit(self, model, case):
        fit_quietly(self.estimator, self.X)
