"""EM iterations of both libraries: equal start, equal number of iterations."""

from .common import compare, fit_quietly, make_estimator, make_rows, make_start

SHAPES = {
    "full": [(300, 2, 3), (200_000, 2, 8), (50_000, 10, 10), (20_000, 16, 64), (10_000, 32, 16), (4_000, 64, 16)],
    "diag": [(50_000, 16, 64), (10_000, 40, 256)],
    "tied": [(20_000, 16, 64), (10_000, 40, 16)],
    "spherical": [(50_000, 16, 64)],
}
CASES = [f"{name} {n}x{d} K={k}" for name, shapes in SHAPES.items() for n, d, k in shapes]
N_ITER = 5


def parse(case):
    """Covariance type, rows, features and components of a case's name."""
    covariance_type, shape, components = case.split()
    return covariance_type, *map(int, shape.split("x")), int(components[2:])


class _Fit:
    timeout = 600

    def prepare(self, case, dtype):
        covariance_type, n_samples, n_features, n_components = parse(case)
        self.X = make_rows(n_samples, n_features, n_components, dtype)
        start = make_start(self.X, n_components, covariance_type)
        self.estimators = {
            library: make_estimator(library, n_components, covariance_type, start, N_ITER)
            for library in ("fastgmm", "scikit-learn")
        }


class Fit(_Fit):
    """Seconds for five iterations."""

    params = (["fastgmm", "scikit-learn"], CASES, ["float64", "float32"])
    param_names = ("library", "case", "dtype")
    number, repeat, warmup_time = 1, (3, 7, 5.0), 0

    def setup(self, library, case, dtype):
        self.prepare(case, dtype)
        fit_quietly(self.estimators["fastgmm"], self.X)  # compiled now, not while the clock runs

    def time_fit(self, library, case, dtype):
        fit_quietly(self.estimators[library], self.X)


class Speedup(_Fit):
    """Both libraries in turn in one process: how many times faster, and how equal the likelihoods they reach are."""

    params = (CASES, ["float64", "float32"])
    param_names = ("case", "dtype")

    def setup(self, case, dtype):
        self.prepare(case, dtype)

    def track_speedup(self, case, dtype):
        calls = {name: lambda e=e: fit_quietly(e, self.X) for name, e in self.estimators.items()}
        times = compare(calls, rounds=3)
        return times["scikit-learn"] / times["fastgmm"]

    track_speedup.unit = "times faster"

    def track_lower_bound_difference(self, case, dtype):
        bounds = {name: fit_quietly(e, self.X).lower_bound_ for name, e in self.estimators.items()}
        return abs(bounds["fastgmm"] - bounds["scikit-learn"])

    track_lower_bound_difference.unit = "nats per row"
