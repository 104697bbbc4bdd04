"""Bootstrap of parameters, and of tests of the number of components.

It does what R's `MclustBootstrap` and `mclustBootstrapLRT` do. Replicates are weights of the same rows, so no rows are
copied. They start from the fit, so components keep their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.parallel import delayed
from sklearn.utils.validation import check_is_fitted

from fastgmm.data.conversion import check_array
from fastgmm.estimators.annotations import RandomState
from fastgmm.estimators.fitted import best_of, replicate_of
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import check_integer, plain

from .replicates import (
    fit_larger,
    fit_quietly,
    in_parallel,
    null_statistic,
    null_statistics_together,
    replicate,
    replicates_together,
    start_from,
)
from .small_replicates import SmallReplicates

Array = NDArray[np.float64]
NAMES = ("weights", "means", "covariances")


@dataclass(frozen=True)
class ParameterBootstrap:
    """Parameters of B replicates of a fit.

    Attributes
    ----------
    weights : ndarray of shape (B, K)
        Weights of the components in each replicate.
    means : ndarray of shape (B, K, D)
        Means of the components in each replicate.
    covariances : ndarray of shape (B, ...)
        Covariances in each replicate, in the shape of the model's `covariances_`.
    n_failed : int
        Number of replicates in which a component collapsed; they are not among the B.
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
        """Compute the standard deviations over the replicates.

        Returns
        -------
        dict of ndarrays
            With the keys "weights", "means" and "covariances", in the shapes of the model's parameters.
        """
        return {name: getattr(self, name).std(axis=0, ddof=1) for name in NAMES}

    def intervals(self, level: float = 0.95) -> dict[str, Array]:
        """Compute percentile intervals.

        Parameters
        ----------
        level : float, default=0.95
            Part of the replicates that lies in an interval, above 0 and below 1.

        Returns
        -------
        dict of ndarrays
            With the keys "weights", "means" and "covariances". The first index is 0 for lower and 1 for upper ends, and
            the others are those of the model's parameters.

        Raises
        ------
        ValueError
            If `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}.")
        ends = [50 * (1 - level), 50 * (1 + level)]
        return {name: np.percentile(getattr(self, name), ends, axis=0) for name in NAMES}


def bootstrap_parameters(
    model: GaussianMixture | BaseEstimator,
    X: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    n_replicates: int = 999,
    kind: Literal["nonparametric", "weighted"] = "nonparametric",
    random_state: RandomState = None,
    n_processes: int | None = None,
) -> ParameterBootstrap:
    """Refit a mixture to resampled rows.

    Parameters
    ----------
    model : GaussianMixture, or a search such as MixtureSearch
        A mixture fitted to the rows, or a fitted search, whose best estimator is taken. Replicates have neither
        `checkpoint` nor `callback`.
    X : array-like of shape (n_samples, n_features)
        Rows of the fit.
    sample_weight : array-like of shape (n_samples,), optional
        How often each row counts.
    n_replicates : int, default=999
        Number of replicates.
    kind : {"nonparametric", "weighted"}, default="nonparametric"
        "nonparametric": as many rows, drawn with replacement. "weighted": each row has an exponential weight (weighted
        likelihood bootstrap [1]_), so that no small cluster loses all its rows.
    random_state : int, RandomState instance or None, default=None
        Seed of the replicates.
    n_processes : int, optional
        Number of processes that fit replicates in parallel, each with one thread (joblib's; -1 is all cores). None fits
        one replicate after the other, with the threads of the model, which is faster for many rows.

    Returns
    -------
    ParameterBootstrap
        The parameters of the replicates, with methods for standard errors and intervals.

    Raises
    ------
    TypeError
        If `model` is not a `GaussianMixture`.
    ValueError
        If a parameter is invalid, if rows or weights are not finite, if the weights sum to less than the number of
        components for "nonparametric", or if no replicate can be fitted.

    See Also
    --------
    bootstrap_likelihood_ratio : Test of the number of components.

    References
    ----------
    .. [1] M. A. Newton and A. E. Raftery (1994). Approximate Bayesian inference with the weighted likelihood bootstrap.
       Journal of the Royal Statistical Society B 56.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, bootstrap_parameters
    >>> X = np.random.default_rng(0).normal(size=(400, 1))
    >>> errors = bootstrap_parameters(GaussianMixture().fit(X), X, n_replicates=200, random_state=0).standard_errors()
    >>> bool(0.03 < errors["means"][0, 0] < 0.07)  # about 1 / sqrt(400)
    True
    """
    mixture = _mixture(model)
    check_is_fitted(mixture)
    n_replicates = check_integer(n_replicates, 2, "n_replicates")
    if kind not in ("nonparametric", "weighted"):
        raise ValueError(f"kind must be 'nonparametric' or 'weighted', got {kind!r}.")
    rows = mixture._rows(X)
    user_weights = mixture._sample_weight(sample_weight, rows)
    weights = np.ones(len(rows)) if user_weights is None else user_weights
    if kind == "nonparametric" and weights.sum() < mixture.n_components:
        raise ValueError(
            f"The weights must sum to at least n_components ({mixture.n_components}), since rows are drawn as often as "
            f"their weights say, got {weights.sum():.3g}. Give weights that count rows, or kind='weighted'."
        )
    rng = check_random_state(random_state)
    seeds = rng.randint(2**31 - 1, size=n_replicates)
    start = start_from(mixture, n_processes)
    together = SmallReplicates(replicate_of(mixture), *rows.shape)
    if n_processes is None and together.applies(mixture.n_components):
        results = replicates_together(together, mixture, start, rows, weights, kind, seeds)
    else:
        results = in_parallel((delayed(replicate)(start, rows, weights, kind, seed) for seed in seeds), n_processes)
    fitted = [parameters for parameters in results if parameters is not None]
    if not fitted:
        raise ValueError(f"None of {n_replicates} replicates could be fitted: in each a component collapsed.")
    all_weights, means, covariances = (np.array(a) for a in zip(*fitted, strict=True))
    return ParameterBootstrap(all_weights, means, covariances, n_replicates - len(fitted))


@dataclass(frozen=True)
class LikelihoodRatioTest:
    """Tests of k components against k + 1, for k from 1.

    Attributes
    ----------
    statistics : ndarray of shape (n_tests,)
        Twice the differences of the log-likelihoods, or 0 where the larger mixture was no better.
    p_values : ndarray of shape (n_tests,)
        Part of the replicates, with the data counted as one of them, whose statistic is at least as large.
    replicates : list of ndarrays of shape (B,)
        Statistics of rows drawn from each null model.
    n_failed : list of int
        Number of replicates of each test that could not be fitted.
    n_components : int
        The smallest number that was not rejected. If all were rejected, one more than the last that was tested.
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
    random_state: RandomState = None,
    n_processes: int | None = None,
) -> LikelihoodRatioTest:
    """Test the number of components by a bootstrap of the likelihood ratio.

    One component is tested against two, two against three and so on, until a test does not reject. The distribution of
    the statistic is that of rows drawn from the smaller mixture [1]_.

    Parameters
    ----------
    estimator : GaussianMixture, or a fitted search such as MixtureSearch
        All parameters of the fits except the number of components, `checkpoint` and `callback`. Of a search the best
        estimator is taken.
    X : array-like of shape (n_samples, n_features)
        Rows to test.
    max_components : int, default=9
        Largest number of components that is tested as a null hypothesis.
    n_replicates : int, default=999
        Number of replicates of each test.
    level : float, default=0.05
        Level of the tests: a number of components is rejected if its p-value is at most `level`.
    random_state : int, RandomState instance or None, default=None
        Seed of the fits and replicates.
    n_processes : int, optional
        Number of processes that fit replicates in parallel; see `bootstrap_parameters`.

    Returns
    -------
    LikelihoodRatioTest
        Statistics, p-values and the number of components that was not rejected.

    Raises
    ------
    TypeError
        If `estimator` is not a `GaussianMixture`.
    ValueError
        If a parameter is invalid, if the rows are not finite, if there are too few replicates to reject anything at
        `level`, or if a mixture cannot be fitted.

    See Also
    --------
    MixtureSearch : Choice of the number of components by a criterion, which is faster.
    bootstrap_parameters : Standard errors of the parameters.

    References
    ----------
    .. [1] G. J. McLachlan (1987). On bootstrapping the likelihood ratio test statistic for the number of components in
       a normal mixture. Applied Statistics 36.

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
    mixture = _mixture(estimator)
    n_replicates, level = check_integer(n_replicates, 1, "n_replicates"), plain(level)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if (n_replicates + 1) * level < 1:
        raise ValueError(
            f"n_replicates must be at least 1 / level - 1, since no p-value is below 1 / (n_replicates + 1) "
            f"({1 / (n_replicates + 1):.3g}), got n_replicates={n_replicates} and level={level}. Increase n_replicates."
        )
    max_components = check_integer(max_components, 1, "max_components")
    rows = check_array(X, dtype=[np.float64, np.float32])
    rng = check_random_state(random_state)
    tests: list[tuple[float, float, Array, int]] = []
    first = replicate_of(mixture).set_params(n_components=1, random_state=rng.randint(2**31 - 1))
    null = fit_quietly(first, rows)
    for _ in range(max_components):
        seeds = rng.randint(2**31 - 1, size=n_replicates + 1)
        larger = fit_larger(null, rows, int(seeds[0]), null.n_jobs)
        statistic = max(0.0, 2 * len(rows) * (larger.score(rows) - null.score(rows)))
        start = start_from(null, n_processes)
        together = SmallReplicates(replicate_of(null), *rows.shape)
        if n_processes is None and together.applies(null.n_components + 1):
            results = null_statistics_together(together, null, start, seeds[1:])
        else:
            results = in_parallel(
                (delayed(null_statistic)(null, start, len(rows), seed) for seed in seeds[1:]), n_processes
            )
        replicates = np.array([value for value in results if value is not None])
        p_value = (1 + np.sum(replicates >= statistic)) / (1 + len(replicates))
        tests.append((statistic, float(p_value), replicates, n_replicates - len(replicates)))
        if p_value > level:
            break
        null = larger
    statistics, p_values, samples, failed = zip(*tests, strict=True)
    accepted = len(tests) if p_values[-1] > level else len(tests) + 1
    return LikelihoodRatioTest(np.array(statistics), np.array(p_values), list(samples), list(failed), accepted)


def _mixture(estimator: object) -> GaussianMixture:
    """Return the mixture, or the best mixture of a search."""
    estimator = best_of(estimator)
    if not isinstance(estimator, GaussianMixture):
        raise TypeError(
            f"The model must be a fastgmm.GaussianMixture, or a fitted search for one, got {type(estimator).__name__}. "
            "Give a GaussianMixture."
        )
    return estimator
