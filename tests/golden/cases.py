"""Fits whose results are stored; see `tests/test_golden.py`.

Every case is a function of an empty folder that returns named arrays. Only public names are used, because everything
else may move. Rows come from `numpy.random.RandomState`, whose numbers never change, and are well conditioned: clusters
of unit size some standard deviations apart, and at most 30 iterations.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastgmm import (
    BayesianGaussianMixture,
    ConjugatePrior,
    GaussianMixture,
    MixtureSearch,
    StreamingGaussianMixture,
    bootstrap_likelihood_ratio,
    bootstrap_parameters,
    combine_components,
    engine,
    rows,
)

Results = dict[str, Any]

# Functions that compute the cases, and packages that they need beyond fastgmm's own requirements, by the cases' names.
CASES: dict[str, Callable[[Path], Results]] = {}
NEEDS: dict[str, tuple[str, ...]] = {}

FITTED = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_cholesky_",
    "converged_",
    "n_iter_",
    "lower_bound_",
    "lower_bounds_",
    "remaining_",
    "weight_concentration_",
    "mean_precision_",
    "degrees_of_freedom_",
    "mean_prior_",
    "covariance_prior_",
    "n_samples_seen_",
    "n_steps_",
)
STATISTICS = ("reference", "weight_sums", "first_moments", "scatter", "log_likelihood", "total_weight")
MODELS = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
BASIC_TYPES = ("full", "tied", "diag", "spherical")


def compute(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Return the results of a case as arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # most fits end at `max_iter`
        return {key: np.asarray(value) for key, value in CASES[name](folder).items()}


def case(name: str, *, needs: tuple[str, ...] = ()) -> Callable[[Callable[[Path], Results]], None]:
    """Add a case."""
    assert name not in CASES, name

    def add(function: Callable[[Path], Results]) -> None:
        CASES[name], NEEDS[name] = function, needs

    return add


def described(model: Any, X: np.ndarray) -> Results:
    """Return the attributes of a fitted model and its predictions for some rows."""
    found = {name: getattr(model, name) for name in FITTED if hasattr(model, name)}
    some = X[:: max(1, len(X) // 20)]
    return {
        **found,
        "predict": model.predict(some),
        "score_samples": model.score_samples(some),
        "predict_proba": model.predict_proba(some[:5]),
    }


def named(prefix: str, value: Any, names: tuple[str, ...]) -> Results:
    """Return attributes of an object, with a prefix before their names."""
    return {f"{prefix}.{name}": getattr(value, name) for name in names}


class Rows(NamedTuple):
    """Rows (n, D), the components (n,) that they were drawn from, and the means (K, D) of these."""

    X: np.ndarray
    labels: np.ndarray
    means: np.ndarray


def clusters(seed: int, n_samples: int, n_features: int, n_components: int, spread: float) -> Rows:
    """Draw rows from a mixture with equal weights, whose means have standard deviations of `spread`."""
    rng = np.random.RandomState(seed)
    means = spread * rng.standard_normal((n_components, n_features))
    roots = np.eye(n_features) + 0.3 * rng.standard_normal((n_components, n_features, n_features))
    labels = rng.randint(n_components, size=n_samples)
    noise = rng.standard_normal((n_samples, n_features))
    X = means[labels] + np.einsum("nde,ne->nd", roots[labels], noise)
    X.flags.writeable = False
    return Rows(X, labels, means)


def with_outliers(seed: int, n_samples: int, n_outliers: int = 60) -> np.ndarray:
    """Return overlapping rows (n, 2) of three components, a few of them from a small group far away."""
    X = clusters(seed, n_samples, 2, 3, 1.5).X.copy()
    rng = np.random.RandomState(seed + 1)
    X[rng.choice(n_samples, n_outliers, replace=False)] = np.array([40.0, -25.0]) + rng.standard_normal((n_outliers, 2))
    return X


def fit_in_memory(
    name: str,
    X: np.ndarray,
    n_components: int = 3,
    sample_weight: np.ndarray | None = None,
    estimator: type = GaussianMixture,
    **options: Any,
) -> None:
    """Add a case: a fit to rows in memory."""
    options = {"n_components": n_components, "random_state": 0, "max_iter": 20, **options}
    case(name)(lambda folder: described(estimator(**options).fit(X, sample_weight=sample_weight), X))


THREE = clusters(0, 600, 3, 3, 2.0)
LINE = clusters(1, 400, 1, 2, 3.0)
NINE = clusters(2, 3000, 2, 9, 5.0)
OVERLAPPING = clusters(3, 900, 2, 3, 1.5)
FOUR = clusters(4, 1500, 2, 4, 3.0)
WIDE = clusters(5, 800, 14, 2, 1.0)
COUNTS = np.random.RandomState(0).randint(0, 4, size=600).astype(np.float64)
SHARES = np.random.RandomState(1).uniform(0.2, 2.0, size=600)

# Covariance models.
for _type in MODELS:
    fit_in_memory(f"model-{_type}", THREE.X, covariance_type=_type, tol=1e-4)
for _type in ("E", "V"):
    fit_in_memory(f"model-{_type}", LINE.X, 2, covariance_type=_type, tol=1e-4)
for _type in BASIC_TYPES:
    fit_in_memory(f"plain-{_type}", THREE.X, covariance_type=_type, tol=1e-4, acceleration=None)

# Starts.
for _start in ("kmeans", "k-means++", "random", "random_from_data", "hc", "small_em"):
    fit_in_memory(f"start-{_start}", NINE.X, 9, init_params=_start, max_iter=8, tol=1e-6)
for _start in ("kmeans", "k-means++", "small_em"):
    _X = THREE.X * [1.0, 300.0, 0.01]
    fit_in_memory(f"start-whitened-{_start}", _X, init_params=_start, whiten_init=True, max_iter=8)
fit_in_memory("start-weighted", THREE.X, 5, COUNTS, init_params="kmeans", max_iter=8)
fit_in_memory("start-n_init", OVERLAPPING.X, n_init=3, init_params="random_from_data", acceleration=None)
_precisions = np.tile(0.8 * np.eye(3), (3, 1, 1))
_GIVEN = {"weights_init": [0.2, 0.3, 0.5], "means_init": THREE.means, "precisions_init": _precisions}
fit_in_memory("given-all", THREE.X, max_iter=8, **_GIVEN)
fit_in_memory("given-means", THREE.X, max_iter=8, means_init=THREE.means)
_labels = np.where(np.arange(600) % 7 == 0, -1, THREE.labels)
fit_in_memory("given-labels", THREE.X, max_iter=8, resp_init=_labels)
_resp = np.random.RandomState(2).dirichlet([0.5, 0.5, 0.5], size=600)
fit_in_memory("given-responsibilities", THREE.X, max_iter=8, resp_init=_resp, covariance_type="tied")


@case("start-many-components")
def _(folder: Path) -> Results:
    X = clusters(6, 20_000, 2, 70, 12.0).X
    return described(GaussianMixture(70, covariance_type="spherical", random_state=0, max_iter=2).fit(X), X)


@case("start-short-runs")
def _(folder: Path) -> Results:
    X = clusters(7, 12_000, 2, 4, 3.0).X
    options = {"n_init": 3, "init_params": "random_from_data", "max_iter": 10}
    return described(GaussianMixture(4, random_state=0, **options).fit(X), X)


# The way to the end.
for _acceleration in (None, "squarem", "progressive"):
    _options = {"acceleration": _acceleration, "tol": 1e-7, "max_iter": 30}
    fit_in_memory(f"acceleration-{_acceleration}", OVERLAPPING.X, **_options)
    fit_in_memory(f"acceleration-{_acceleration}-VEV", THREE.X, covariance_type="VEV", **_options)
fit_in_memory("limit_tol", OVERLAPPING.X, limit_tol=1e-4, max_iter=30)
fit_in_memory("light-moves", FOUR.X, 4, tol=1e-4, max_iter=100, init_params="random_from_data", random_state=3)
fit_in_memory("n_moves", FOUR.X, 4, n_moves=2, max_iter=30)

# Types and orders of the rows.
for _dtype in ("float32", "float64"):
    for _order in ("C", "F"):
        _X = np.asarray(THREE.X, _dtype, _order)
        fit_in_memory(f"{_dtype}-{_order}", _X, max_iter=8)
        fit_in_memory(f"{_dtype}-{_order}-weighted-diag", _X, 3, SHARES, covariance_type="diag", max_iter=8)
fit_in_memory("float32-tied", np.asarray(THREE.X, np.float32, "F"), covariance_type="tied", max_iter=8)
fit_in_memory("float32-out-of-range", (1e17 * THREE.X).astype(np.float32), max_iter=8)
fit_in_memory("tied-far-apart", clusters(8, 600, 3, 3, 5000.0).X, covariance_type="tied", max_iter=8)
for _type in BASIC_TYPES:
    fit_in_memory(f"wide-{_type}", WIDE.X, 2, covariance_type=_type, max_iter=8)
fit_in_memory("wide-float32", np.asarray(WIDE.X, np.float32, "F"), 2, max_iter=8)

# Weights.
fit_in_memory("weights-of-counts", THREE.X, 3, COUNTS)
fit_in_memory("weights-tied", THREE.X, 3, SHARES, covariance_type="tied")
fit_in_memory("weights-float32", THREE.X.astype(np.float32), 3, 1e6 * SHARES, covariance_type="spherical")


@case("criteria-and-draws")
def _(folder: Path) -> Results:
    model = GaussianMixture(3, covariance_type="VVE", random_state=0, max_iter=8).fit(THREE.X, sample_weight=SHARES)
    criteria = {name: getattr(model, name)(THREE.X, sample_weight=SHARES) for name in ("bic", "aic", "icl", "score")}
    drawn, components = model.sample(7)
    return {**criteria, "sample": drawn, "components": components, "precisions_": model.precisions_}


# Sources.
def fit_from(source: Any, X: np.ndarray, **options: Any) -> Results:
    """Return the results of a fit to rows that are read in blocks, and of predictions of them."""
    model = GaussianMixture(3, random_state=0, **{"max_iter": 8, **options}).fit(source)
    return {**described(model, X), "score": model.score(source), "bic": model.bic(source), "icl": model.icl(source)}


def table_of(X: np.ndarray, weights: np.ndarray) -> Any:
    """Return rows and their weights as an Arrow table."""
    import pyarrow as pa

    return pa.table({**{f"x{d}": X[:, d] for d in range(X.shape[1])}, "w": weights})


BLOCK = 150 * 3 * 8  # bytes of a block of 150 rows


@case("source-memory-map")
def _(folder: Path) -> Results:
    np.save(folder / "X.npy", THREE.X)
    model = GaussianMixture(3, random_state=0, max_iter=8).fit(np.load(folder / "X.npy", mmap_mode="r"))
    return described(model, THREE.X)


@case("source-npy")
def _(folder: Path) -> Results:
    np.save(folder / "X.npy", THREE.X)
    np.save(folder / "w.npy", SHARES)
    return fit_from(rows(folder / "X.npy", weight=folder / "w.npy", block_bytes=BLOCK), THREE.X)


@case("source-npy-float32-tied")
def _(folder: Path) -> Results:
    X = THREE.X.astype(np.float32)
    np.save(folder / "X.npy", X)
    return fit_from(rows(folder / "X.npy", block_bytes=BLOCK), X, covariance_type="tied")


@case("source-csv", needs=("pyarrow",))
def _(folder: Path) -> Results:
    table = np.column_stack([THREE.X, COUNTS])
    np.savetxt(folder / "X.csv", table, fmt="%.17g", delimiter=",", header="a,b,c,w", comments="")
    return fit_from(rows(folder / "X.csv", weight="w", block_bytes=BLOCK), THREE.X)


@case("source-parquet", needs=("pyarrow",))
def _(folder: Path) -> Results:
    from pyarrow import parquet

    for part in (0, 1):
        table = table_of(THREE.X[300 * part : 300 * part + 300], SHARES[300 * part : 300 * part + 300])
        parquet.write_table(table, folder / f"{part}.parquet", row_group_size=70)
    return fit_from(rows(folder, columns=["x2", "x0"], weight="w", block_bytes=BLOCK), THREE.X[:, [2, 0]])


@case("source-hdf5", needs=("h5py",))
def _(folder: Path) -> Results:
    import h5py

    with h5py.File(folder / "X.h5", "w") as file:
        file["X"], file["w"] = THREE.X, SHARES
    return fit_from(rows(folder / "X.h5", key="X", weight="w", block_bytes=BLOCK), THREE.X, init_params="hc")


@case("source-zarr", needs=("zarr",))
def _(folder: Path) -> Results:
    import zarr

    zarr.save_array(str(folder / "X.zarr"), THREE.X)
    return fit_from(rows(folder / "X.zarr", block_bytes=BLOCK), THREE.X, init_params="random")


@case("source-blocks")
def _(folder: Path) -> Results:
    ends = [0, 1, 100, 370, 600]
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    return fit_from(rows([(THREE.X[part], SHARES[part]) for part in parts]), THREE.X, covariance_type="EVE")


@case("source-function")
def _(folder: Path) -> Results:
    X = np.asfortranarray(THREE.X, np.float32)
    blocks = [X[i : i + 130] for i in range(0, 600, 130)]
    return fit_from(rows(lambda: iter(blocks), block_bytes=BLOCK), X, covariance_type="diag", init_params="k-means++")


# Many rows: samples first.
@case("sampled-full")
def _(folder: Path) -> Results:
    X = with_outliers(10, 100_000)
    return described(GaussianMixture(4, random_state=0, max_iter=15).fit(X), X)


@case("sampled-twice")
def _(folder: Path) -> Results:
    X = with_outliers(11, 170_000)
    return described(GaussianMixture(4, random_state=0, tol=1e-4, max_iter=25).fit(X), X)


@case("sampled-weighted-diag")
def _(folder: Path) -> Results:
    X = with_outliers(12, 100_000)
    weights = np.random.RandomState(0).randint(1, 4, size=len(X)).astype(np.float64)
    options = {"covariance_type": "diag", "n_init": 2, "max_iter": 15}
    return described(GaussianMixture(4, random_state=0, **options).fit(X, sample_weight=weights), X)


@case("sampled-float32-tied")
def _(folder: Path) -> Results:
    X = np.asfortranarray(with_outliers(13, 100_000), np.float32)
    options = {"covariance_type": "tied", "init_params": "k-means++", "max_iter": 15}
    return described(GaussianMixture(4, random_state=0, **options).fit(X), X)


@case("sampled-from-file")
def _(folder: Path) -> Results:
    X = with_outliers(14, 100_000)
    np.save(folder / "X.npy", X)
    model = GaussianMixture(4, random_state=0, max_iter=15, init_params="small_em")
    return described(model.fit(rows(folder / "X.npy", block_bytes=1 << 18)), X)


@case("many-rows-plain")
def _(folder: Path) -> Results:
    X = with_outliers(15, 100_000)
    return described(GaussianMixture(4, random_state=0, max_iter=6, acceleration=None).fit(X), X)


# Streams.
STREAM = clusters(9, 2500, 2, 3, 3.0).X


def streamed(model: StreamingGaussianMixture, X: np.ndarray, sample_weight: np.ndarray | None = None) -> Results:
    """Return the results of a stream that comes in blocks of unequal size, at two points of it."""
    sizes = np.random.RandomState(3).randint(1, 300, size=60)
    ends = np.minimum(np.cumsum(np.r_[0, sizes]), len(X))
    found: Results = {}
    for begin, end in itertools.pairwise(ends):
        if begin < end:
            weights = None if sample_weight is None else sample_weight[begin:end]
            model.partial_fit(X[begin:end], sample_weight=weights)
        if "early.means" not in found and end > len(X) // 2:
            found["early.means"] = model.means_
    return {**found, **described(model, X), **named("statistics", model.statistics_, STATISTICS)}


@case("stream")
def _(folder: Path) -> Results:
    return streamed(StreamingGaussianMixture(3, init_size=600, batch_size=100, random_state=0), STREAM)


@case("stream-that-forgets")
def _(folder: Path) -> Results:
    options = {"half_life": 400, "learning_decay": 0.6, "covariance_type": "diag", "init_size": 500}
    return streamed(StreamingGaussianMixture(3, random_state=0, **options), STREAM.astype(np.float32))


@case("stream-weighted")
def _(folder: Path) -> Results:
    weights = np.random.RandomState(4).randint(0, 3, size=len(STREAM)).astype(np.float64)
    options = {"covariance_type": "tied", "init_size": 500, "learning_decay": 1.0}
    return streamed(StreamingGaussianMixture(3, random_state=0, **options), STREAM, weights)


@case("stream-shuffled")
def _(folder: Path) -> Results:
    model = StreamingGaussianMixture(3, init_size=700, init_params="k-means++", random_state=0)
    return described(model.fit(STREAM), STREAM)


@case("stream-from-mixture")
def _(folder: Path) -> Results:
    mixture = GaussianMixture(3, covariance_type="VEV", random_state=0, max_iter=8).fit(STREAM[:500])
    model = StreamingGaussianMixture.from_mixture(mixture, 300, covariance_type="VVE", batch_size=200)
    return described(model.partial_fit(STREAM[500:1500]), STREAM)


@case("stream-of-forks")
def _(folder: Path) -> Results:
    parent = StreamingGaussianMixture(3, init_size=600, random_state=0).partial_fit(STREAM[:800])
    one, other = parent.fork().partial_fit(STREAM[800:1500]), parent.fork().partial_fit(STREAM[1500:])
    both = one + other
    return {**described(both, STREAM), **named("statistics", both.statistics_, STATISTICS)}


# Variational inference.
for _prior in ("dirichlet_process", "dirichlet_distribution"):
    for _type in BASIC_TYPES:
        _options = {"covariance_type": _type, "weight_concentration_prior_type": _prior, "max_iter": 12}
        fit_in_memory(f"bayesian-{_prior}-{_type}", THREE.X, 4, estimator=BayesianGaussianMixture, **_options)
_options = {
    "weight_concentration_prior": 2.0, "mean_precision_prior": 0.5, "mean_prior": [1.0, 0.0, -1.0],
    "degrees_of_freedom_prior": 5.0, "covariance_prior": 2.0 * np.eye(3), "n_init": 2, "init_params": "k-means++",
}  # fmt: skip
_X = THREE.X.astype(np.float32)
fit_in_memory("bayesian-given", _X, 3, SHARES, BayesianGaussianMixture, max_iter=12, **_options)

# Conjugate priors.
fit_in_memory("prior-default", THREE.X, prior=ConjugatePrior())
fit_in_memory("prior-spherical", THREE.X, 3, SHARES, prior=ConjugatePrior(0.5, scale=2.0), covariance_type="spherical")
fit_in_memory("prior-EEE", THREE.X, prior=ConjugatePrior(0.1, mean=[1.0, 2.0, 0.0], dof=9.0), covariance_type="EEE")
fit_in_memory("prior-VEV", THREE.X, prior=ConjugatePrior(), covariance_type="VEV", tol=1e-7)


# Fits that continue.
@case("warm-start")
def _(folder: Path) -> Results:
    model = GaussianMixture(3, random_state=0, max_iter=2, tol=1e-7, warm_start=True).fit(OVERLAPPING.X)
    return described(model.set_params(max_iter=5).fit(OVERLAPPING.X), OVERLAPPING.X)


@case("warm-start-of-another-model")
def _(folder: Path) -> Results:
    model = GaussianMixture(3, random_state=0, max_iter=4, warm_start=True).fit(OVERLAPPING.X)
    return described(model.set_params(covariance_type="EVI").fit(OVERLAPPING.X), OVERLAPPING.X)


@case("warm-start-bayesian")
def _(folder: Path) -> Results:
    options = {"n_components": 3, "random_state": 0, "max_iter": 4, "warm_start": True}
    model = BayesianGaussianMixture(**options).fit(OVERLAPPING.X)
    model.fit(OVERLAPPING.X)
    return described(model.set_params(mean_precision_prior=3.0).fit(OVERLAPPING.X), OVERLAPPING.X)


@case("warm-start-from-parameters")
def _(folder: Path) -> Results:
    given = np.full(3, 1 / 3), THREE.means, np.ones(3)
    model = GaussianMixture.from_parameters(*given, covariance_type="spherical", warm_start=True, max_iter=5)
    return described(model.set_params(covariance_type="full").fit(THREE.X), THREE.X)


@case("stopped-by-callback")
def _(folder: Path) -> Results:
    told: list[float] = []

    def callback(n_iter: int, lower_bound: float, parameters: Any) -> bool:
        told.extend([n_iter, lower_bound, *parameters.weights])
        return n_iter == 4

    model = GaussianMixture(3, random_state=0, tol=1e-9, callback=callback).fit(OVERLAPPING.X)
    return {**described(model, OVERLAPPING.X), "told": told}


def resumed(model: Any, X: np.ndarray) -> Results:
    """Return the results of a fit that ends at `max_iter`, and is resumed with a larger one."""
    return described(model.fit(X).set_params(max_iter=14).resume(X), X)


@case("resumed")
def _(folder: Path) -> Results:
    options = {"acceleration": "squarem", "tol": 1e-7, "max_iter": 7, "checkpoint": folder / "state"}
    return resumed(GaussianMixture(3, random_state=0, **options), OVERLAPPING.X)


@case("resumed-bayesian")
def _(folder: Path) -> Results:
    options = {"n_components": 3, "covariance_type": "tied", "max_iter": 6, "checkpoint": folder / "state"}
    return resumed(BayesianGaussianMixture(random_state=0, **options), OVERLAPPING.X)


# Questions to mixtures.
def search_results(search: MixtureSearch, X: np.ndarray, **options: Any) -> Results:
    """Return the results of a search, and its best mixture's."""
    search.fit(X, **options)
    names = ("covariance_type", "n_components", "n_parameters", "log_likelihood", "bic", "icl", "aic", "cv", "n_iter")
    table = {f"results.{name}": search.results_[name] for name in names}
    return {**table, "best_score_": search.best_score_, **described(search.best_estimator_, X)}


@case("search-bic")
def _(folder: Path) -> Results:
    options = {"covariance_types": ["EII", "VVI", "EEE", "VEV", "VVV"], "estimator": GaussianMixture(max_iter=20)}
    return search_results(MixtureSearch(range(1, 5), random_state=0, **options), THREE.X, sample_weight=SHARES)


@case("search-cross-validated")
def _(folder: Path) -> Results:
    options = {"covariance_types": ["tied", "VVV"], "criterion": "cv", "cv": 3, "warm_starts": False}
    search = MixtureSearch([2, 3, 4], estimator=GaussianMixture(max_iter=15), random_state=0, patience=1, **options)
    return search_results(search, OVERLAPPING.X)


def bootstrapped(kind: str) -> Results:
    """Return the parameters of some replicates."""
    model = GaussianMixture(3, covariance_type="VVI", random_state=0, max_iter=20).fit(THREE.X)
    found = bootstrap_parameters(model, THREE.X, n_replicates=4, kind=kind, random_state=0)
    return {name: getattr(found, name) for name in ("weights", "means", "covariances", "n_failed")}


@case("bootstrap-nonparametric")
def _(folder: Path) -> Results:
    return bootstrapped("nonparametric")


@case("bootstrap-weighted")
def _(folder: Path) -> Results:
    return bootstrapped("weighted")


@case("bootstrap-likelihood-ratio")
def _(folder: Path) -> Results:
    estimator = GaussianMixture(covariance_type="VVI", max_iter=20)
    options = {"n_replicates": 9, "level": 0.1, "max_components": 2, "random_state": 0}
    found = bootstrap_likelihood_ratio(estimator, LINE.X[:200], **options)
    return {"statistics": found.statistics, "p_values": found.p_values, "replicates": np.concatenate(found.replicates)}


@case("combined-components")
def _(folder: Path) -> Results:
    model = GaussianMixture(5, random_state=0, max_iter=10).fit(THREE.X)
    found = combine_components(model, THREE.X, SHARES)
    return {"merges": found.merges, "entropies": found.entropies, "predict": found.predict(THREE.X[:30], 3)}


# Rows on a cluster: one worker, so that sums have one order.
@contextlib.contextmanager
def cluster() -> Iterator[tuple[Any, Any]]:
    """Start a cluster of one worker in this process; yield its client, and `dask.array`."""
    import dask.array
    import distributed

    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.Client(**options) as client:
        yield client, dask.array


DASK = ("dask", "distributed", "pandas")


@case("dask-weighted", needs=DASK)
def _(folder: Path) -> Results:
    from fastgmm import DaskGaussianMixture

    with cluster() as (client, da):
        X, weights = da.from_array(THREE.X, chunks=(140, 2)), da.from_array(SHARES, chunks=200)
        model = DaskGaussianMixture(3, random_state=0, max_iter=10, client=client).fit(X, sample_weight=weights)
        return {**described(model, THREE.X), "score": model.score(X), "lazy": model.predict(X).compute()[:50]}


@case("dask-float32-labels", needs=DASK)
def _(folder: Path) -> Results:
    from fastgmm import DaskGaussianMixture

    with cluster() as (client, da):
        X = da.from_array(THREE.X.astype(np.float32), chunks=(250, 3))
        options = {"covariance_type": "tied", "resp_init": THREE.labels, "max_iter": 6}
        return described(DaskGaussianMixture(3, client=client, **options).fit(X), THREE.X.astype(np.float32))


@case("dask-bayesian", needs=DASK)
def _(folder: Path) -> Results:
    from fastgmm import DaskBayesianGaussianMixture

    with cluster() as (client, da):
        model = DaskBayesianGaussianMixture(n_components=3, random_state=0, max_iter=8, client=client)
        return described(model.fit(da.from_array(THREE.X, chunks=(140, 3))), THREE.X)


# The engine.
def covariances_of(covariance_type: str, n_components: int, n_features: int) -> np.ndarray:
    """Return well-conditioned covariances in the form of one of the basic types."""
    sizes = 1 + np.arange(n_components) / 4
    one = np.eye(n_features) + 0.2
    variances = sizes[:, np.newaxis] * np.linspace(0.5, 1.5, n_features)
    full = sizes[:, np.newaxis, np.newaxis] * one
    return {"full": full, "tied": one, "diag": variances, "spherical": sizes}[covariance_type]


def engine_results(covariance_type: str, n_features: int, n_components: int, dtype: str, order: str) -> Results:
    """Return what two iterations of EM with the engine give, and passes under labels and responsibilities."""
    drawn = clusters(20, 500, n_features, n_components, 1.5)
    X, weights = np.asarray(drawn.X, dtype, order), np.random.RandomState(5).uniform(0.5, 2.0, size=500)
    start = engine.MixtureParameters.create(
        np.full(n_components, 1 / n_components),
        drawn.means + 0.3,
        covariances_of(covariance_type, n_components, n_features),
        covariance_type,
    )
    whole = sum(engine.accumulate(start, X[part], weights[part]) for part in (slice(0, 170), slice(170, None)))
    first = engine.maximise(whole, covariance_type, before=start)
    log_prob, resp = np.empty(len(X), dtype), np.empty((len(X), n_components), dtype)
    again = engine.accumulate(first, X, weights, earlier_pass=whole, log_prob_norm=log_prob, resp=resp)
    second = engine.maximise(again, covariance_type, before=first)
    given = {"covariance_type": covariance_type, "sample_weight": weights}
    labelled = engine.accumulate_labels(drawn.labels, first.means, X, **given)
    shared = engine.accumulate_resp(resp, first.means, X, **given)
    moved = whole.recentred(np.full(n_features, 0.5)).scaled(0.25)
    return {
        **named("whole", whole, STATISTICS),
        **named("again", again, ("weight_sums", "first_moments", "scatter", "log_likelihood")),
        **named("labelled", labelled, ("weight_sums", "first_moments", "scatter")),
        **named("shared", shared, ("weight_sums", "first_moments", "scatter")),
        **named("moved", moved, ("first_moments", "scatter")),
        **named("second", second, ("weights", "means", "covariances", "precisions_cholesky")),
        "log_prob": log_prob[::25],
        "resp": resp[::50],
        "score_samples": engine.score_samples(second, X[::25]),
        "predict": engine.predict(second, X[::25]),
        "predict_proba": engine.predict_proba(second, X[::100]),
    }


for _type in BASIC_TYPES:
    case(f"engine-{_type}")(lambda folder, _type=_type: engine_results(_type, 2, 3, "float64", "C"))
    case(f"engine-{_type}-wide")(lambda folder, _type=_type: engine_results(_type, 7, 2, "float32", "F"))


@case("engine-labels")
def _(folder: Path) -> Results:
    found: Results = {}
    for n_features, n_components in ((2, 40), (24, 8)):
        drawn = clusters(21, 5000, n_features, n_components, 1.5)
        for covariance_type in BASIC_TYPES:
            parameters = engine.MixtureParameters.create(
                np.full(n_components, 1 / n_components),
                drawn.means,
                covariances_of(covariance_type, n_components, n_features),
                covariance_type,
            )
            labels = engine.predict(parameters, drawn.X)
            found[f"{covariance_type}.{n_features}"] = np.r_[np.bincount(labels, minlength=n_components), labels[:50]]
    return found
