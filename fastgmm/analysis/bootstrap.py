"""How sure a fitted mixture is: bootstrap errors and intervals of parameters, tests of the number of components.

Replicates are weights of the same rows, so no rows are copied; they start from the fit, so components keep their
numbers. What R's `MclustBootstrap` and `mclustBootstrapLRT` do.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from fastgmm.data.conversion import check_array
from fastgmm.estimators.fitted import best_of, replicate_of
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import check_integer, plain

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ParameterBootstrap:
    """Parameters of B replicates of a fit.

    Attributes
    ----------
    weights : (B, K)
    means : (B, K, D)
    covariances : (B, ...)
        In the form of the model's.
    n_failed : int
        Replicates in which a component collapsed; they are not among the B.
    """

    weights: Array
    means: Array
    covariances: Array
    n_failed: int

    def __repr__(self) -> str:
        n_replicates, n_components, n_features = self.means.shape
        return (
            f"ParameterBootstrap({n_replicates} replicates of {n_components} components and {n_features} features, "
            f"{self.n_failed} failed)"
        )

    def standard_errors(self) -> dict[str, Array]:
        """Standard deviations over replicates of "weights", "means" and "covariances"."""
        return {name: getattr(self, name).std(axis=0, ddof=1) for name in ("weights", "means", "covariances")}

    def intervals(self, level: float = 0.95) -> dict[str, Array]:
        """Percentile intervals of the same, lower and upper ends first: (2, K), (2, K, D), (2, ...)."""
        if not 0 < level < 1:
            raise ValueError(f"level should be between 0 and 1, but is {level}")
        ends = [50 * (1 - level), 50 * (1 + level)]
        return {name: np.percentile(getattr(self, name), ends, axis=0) for name in ("weights", "means", "covariances")}


def bootstrap_parameters(
    model: GaussianMixture | BaseEstimator,
    X: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    n_replicates: int = 999,
    kind: str = "nonparametric",
    random_state: Any = None,
    n_processes: int | None = None,
) -> ParameterBootstrap:
    """Refit a mixture to resampled rows.

    Parameters
    ----------
    model : GaussianMixture, or a search such as MixtureSearch
        Fitted to the rows; of a search its best estimator is taken. Replicates have no `checkpoint` or `callback`.
    X : array-like of shape (n_samples, n_features)
    sample_weight : array-like of shape (n_samples,), optional
        How often each row counts.
    n_replicates : int, default=999
    kind : {"nonparametric", "weighted"}, default="nonparametric"
        "nonparametric": as many rows, drawn with replacement. "weighted": every row with an exponential weight
        (weighted likelihood bootstrap; Newton & Raftery, 1994, JRSS B 56), so that no small cluster is without rows.
    random_state : int, RandomState instance or None, default=None
    n_processes : int, optional
        Processes that fit side by side, each with one thread (joblib's; -1 for all cores). None fits one after the
        other, each with the model's threads: better for many rows.

    Returns
    -------
    ParameterBootstrap

    Raises
    ------
    ValueError
        If no replicate could be fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, bootstrap_parameters
    >>> X = np.random.default_rng(0).normal(size=(400, 1))
    >>> errors = bootstrap_parameters(GaussianMixture().fit(X), X, n_replicates=200, random_state=0).standard_errors()
    >>> bool(0.03 < errors["means"][0, 0] < 0.07)  # about 1 / sqrt(400)
    True
    """
    model = _checked(model)
    check_is_fitted(model)
    n_replicates = check_integer(n_replicates, 2, "n_replicates")
    if kind not in ("nonparametric", "weighted"):
        raise ValueError(f"kind should be 'nonparametric' or 'weighted', but is {kind!r}")
    X = model._rows(X)
    given = model._sample_weight(sample_weight, X)
    weights = np.ones(len(X)) if given is None else given
    if kind == "nonparametric" and weights.sum() < model.n_components:
        raise ValueError(
            f"Rows are drawn as often as their weights say, but these sum to {weights.sum():.3g}, fewer than the "
            "components. Give weights that count rows, or take kind='weighted'."
        )
    rng = check_random_state(random_state)
    seeds = rng.randint(2**31 - 1, size=n_replicates)
    start = _from(model, n_processes)
    found = _side_by_side((delayed(_replicate)(start, X, weights, kind, seed) for seed in seeds), n_processes)
    fitted = [parameters for parameters in found if parameters is not None]
    if not fitted:
        raise ValueError(f"None of {n_replicates} replicates could be fitted: in each a component collapsed")
    all_weights, means, covariances = (np.array(a) for a in zip(*fitted, strict=True))
    return ParameterBootstrap(all_weights, means, covariances, n_replicates - len(fitted))


@dataclass(frozen=True)
class LikelihoodRatioTest:
    """Tests of k components against k + 1, for k from 1.

    Attributes
    ----------
    statistics : (n_tests,)
        Twice the difference of the log-likelihoods; 0 if the larger mixture was found no better.
    p_values : (n_tests,)
        The part of the replicates, the data counted as one, with a statistic at least as large.
    replicates : list of (B,)
        Statistics of rows drawn from each null model.
    n_failed : list of int
        Replicates that could not be fitted.
    n_components : int
        The least number that was not rejected at the level; one more than the last tested if all were.
    """

    statistics: Array
    p_values: Array
    replicates: list[Array]
    n_failed: list[int]
    n_components: int

    def __repr__(self) -> str:
        p_values = ", ".join(f"{p:.3g}" for p in self.p_values)
        return f"LikelihoodRatioTest(n_components={self.n_components}, p_values=[{p_values}])"


def bootstrap_likelihood_ratio(
    estimator: GaussianMixture | BaseEstimator,
    X: ArrayLike,
    *,
    max_components: int = 9,
    n_replicates: int = 999,
    level: float = 0.05,
    random_state: Any = None,
    n_processes: int | None = None,
) -> LikelihoodRatioTest:
    """Test one component against two, two against three and so on, until a test does not reject.

    The distribution of the statistic is that of rows drawn from the smaller mixture (McLachlan, 1987, Applied
    Statistics 36).

    Parameters
    ----------
    estimator : GaussianMixture, or a fitted search such as MixtureSearch
        Everything about the fits but the number of components, `checkpoint` and `callback`; of a search its best
        estimator is taken.
    X : array-like of shape (n_samples, n_features)
    max_components : int, default=9
        The largest null hypothesis.
    n_replicates : int, default=999
        For each test.
    level : float, default=0.05
    random_state, n_processes
        As for `bootstrap_parameters`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, bootstrap_likelihood_ratio
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(100, 1)), rng.normal(size=(100, 1)) + 6])
    >>> equal = GaussianMixture(covariance_type="E")
    >>> bootstrap_likelihood_ratio(equal, X, n_replicates=39, random_state=0).n_components
    2
    """
    estimator = _checked(estimator)
    n_replicates, level = check_integer(n_replicates, 1, "n_replicates"), plain(level)
    if not 0 < level < 1:
        raise ValueError(f"level should be between 0 and 1, but is {level}")
    if (n_replicates + 1) * level < 1:
        raise ValueError(
            f"With {n_replicates} replicates no p-value is below {1 / (n_replicates + 1):.3g}, so nothing can be "
            f"rejected at level {level}: take more"
        )
    max_components = check_integer(max_components, 1, "max_components")
    X = check_array(X, dtype=[np.float64, np.float32])
    rng = check_random_state(random_state)
    tests: list[tuple[float, float, Array, int]] = []
    null = _fit_quietly(replicate_of(estimator).set_params(n_components=1, random_state=rng.randint(2**31 - 1)), X)
    for _ in range(max_components):
        seeds = rng.randint(2**31 - 1, size=n_replicates + 1)
        larger = _larger(null, X, int(seeds[0]), null.n_jobs)
        statistic = max(0.0, 2 * len(X) * (larger.score(X) - null.score(X)))
        start = _from(null, n_processes)
        found = _side_by_side((delayed(_null_statistic)(null, start, len(X), seed) for seed in seeds[1:]), n_processes)
        replicates = np.array([value for value in found if value is not None])
        p_value = (1 + np.sum(replicates >= statistic)) / (1 + len(replicates))
        tests.append((statistic, float(p_value), replicates, n_replicates - len(replicates)))
        if p_value > level:
            break
        null = larger
    statistics, p_values, samples, failed = zip(*tests, strict=True)
    accepted = len(tests) if p_values[-1] > level else len(tests) + 1
    return LikelihoodRatioTest(np.array(statistics), np.array(p_values), list(samples), list(failed), accepted)


def _checked(estimator: object) -> GaussianMixture:
    estimator = best_of(estimator)
    if not isinstance(estimator, GaussianMixture):
        raise TypeError(
            f"This is for a fastgmm.GaussianMixture or a fitted search for one, but got {type(estimator).__name__}"
        )
    return estimator


def _larger(null: GaussianMixture, X: NDArray, seed: Any, n_jobs: int | None) -> GaussianMixture:
    """A fit with one component more; the better of two starts, so that it is hardly ever the worse of the two."""
    options = {"n_components": null.n_components + 1, "random_state": seed, "n_jobs": n_jobs}
    fits = []
    for init_params in dict.fromkeys((null.init_params, "hc")):
        with contextlib.suppress(ValueError):
            fits.append(_fit_quietly(clone(null).set_params(init_params=init_params, **options), X))
    if not fits:
        raise ValueError(f"No mixture of {null.n_components + 1} components could be fitted: in each one collapsed")
    return max(fits, key=lambda fit: fit.lower_bound_)


def _from(model: GaussianMixture, n_processes: int | None) -> GaussianMixture:
    """An estimator that starts where the model is."""
    fitted = model._parameters()
    start = {
        "covariance_type": fitted.covariance_type,
        "weights_init": _normalised(fitted.weights),
        "means_init": fitted.means,
        "precisions_init": fitted.model.form.precisions(fitted.precisions_cholesky),
    }
    threads = model.n_jobs if n_processes is None else 1
    return replicate_of(model).set_params(**start, n_jobs=threads, verbose=0)


def _normalised(weights: NDArray) -> Array:
    return weights / weights.sum()


def _replicate(start: GaussianMixture, X: NDArray, weights: Array, kind: str, seed: int) -> tuple | None:
    """Parameters of one replicate; None if a component collapsed."""
    rng = np.random.RandomState(seed)
    if kind == "weighted":
        drawn = weights * rng.exponential(size=len(X))
        drawn *= weights.sum() / drawn.sum()
    else:
        n_rows = round(float(weights.sum()))
        drawn = rng.multinomial(n_rows, weights / weights.sum()).astype(np.float64)
    try:
        fitted = _fit_quietly(clone(start), X, drawn)
    except ValueError:
        return None
    return fitted.weights_, fitted.means_, fitted.covariances_


def _null_statistic(null: GaussianMixture, start: GaussianMixture, n_samples: int, seed: int) -> float | None:
    """The statistic of rows that are drawn from the null model; None if a fit failed."""
    rng = np.random.RandomState(seed)
    X = copy.copy(null).set_params(random_state=rng).sample(n_samples)[0]
    try:
        smaller = _fit_quietly(clone(start), X)
        larger = _larger(null, X, seed, start.n_jobs)
        return max(0.0, float(2 * n_samples * (larger.score(X) - smaller.score(X))))
    except ValueError:
        return None


def _fit_quietly(estimator: GaussianMixture, X: NDArray, sample_weight: Array | None = None) -> GaussianMixture:
    """A fit without warnings of convergence or collapse, of which there may be hundreds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(X, sample_weight=sample_weight)


def _side_by_side(tasks: Iterable[tuple[Callable, tuple, dict]], n_processes: int | None) -> list:
    return list(Parallel(n_jobs=1 if n_processes is None else n_processes)(tasks))
