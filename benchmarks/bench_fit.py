"""EM iterations of both libraries, with equal starts and equal numbers of iterations."""

from .common import FULL_FEATURES, compare, fit_quietly, make_estimator, make_rows, make_start, rows_for

# Features and components. The numbers of rows are such that an iteration of scikit-learn takes about a tenth of a
# second.
SHAPES = {
    "full": [*((d, 8) for d in FULL_FEATURES), (2, 2), (32, 2), (2, 64), (16, 64), (64, 64)],
    "diag": [(2, 8), (16, 64), (40, 512), (100, 64)],
    "tied": [(2, 8), (16, 64), (40, 64), (100, 8)],
    "spherical": [(2, 8), (16, 64), (40, 64)],
}
CASES = ["full 300x2 K=3"] + [
    f"{name} {rows_for(name, d, k, work=5e7, max_rows=200_000)}x{d} K={k}"
    for name, shapes in SHAPES.items()
    for d, k in shapes
]
N_ITER = 5


def parse(case):
    """Return the covariance type, rows, features and components that a case's name states."""
    covariance_type, shape, components = case.split()
    return covariance_type, *map(int, shape.split("x")), int(components[2:])


class _Fit:
    """Rows and estimators of both libraries for a case."""

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
        fit_quietly(self.estimators["fastgmm"], self.X)  # compile before the clock runs

    def time_fit(self, library, case, dtype):
        fit_quietly(self.estimators[library], self.X)


class Speedup(_Fit):
    """How many times faster, and the difference of the likelihoods; both libraries in turn in one process."""

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
