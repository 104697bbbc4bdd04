"""`GaussianMixture`: scikit-learn's estimator on fastgmm's engine."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import validate_data

from . import em, engine, schedule
from .base import (
    FLOAT32_HINT,
    ILL_DEFINED,
    INTERRUPTED,
    BaseMixture,
    ConvergenceWarning,
    DegenerateComponentWarning,
    Progress,
)
from .covariance import COVARIANCE_TYPES, IllDefinedCovarianceError, get_model
from .kernels import resolve_n_jobs, thread_limit
from .parameters import MixtureParameters
from .sources import ArraySource
from .validation import check_covariances, check_enough_rows, check_given, check_weights


class GaussianMixture(BaseMixture):
    """Gaussian mixture fitted by expectation-maximisation.

    Takes the place of `sklearn.mixture.GaussianMixture`: same parameters, defaults, attributes, methods and errors.
    What it has beyond that is keyword-only and listed below under "Beyond scikit-learn".

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        A covariance matrix for each component, one for all, variances for each component and feature, or one variance
        for each component.
    tol : float, default=1e-3
        EM stops when the mean log-likelihood, in nats per row, rises by less than this. With 0 it runs to `max_iter`.
    reg_covar : float, default=1e-6
        Added to every variance.
    max_iter : int, default=100
        Most EM iterations of a run, each one pass over the rows. With 0 the fitted model is the start.
    n_init : int, default=1
        Number of starts. All are run to their ends, and the one with the highest likelihood is kept; of 10,000 rows
        and more, unless `acceleration` is None, only the best after a few steps is.
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"}, default="kmeans"
        "kmeans": the clusters of k-means. "k-means++": means drawn as k-means++ draws them, "random_from_data": means
        drawn from the rows, both with the pooled covariance about the nearest mean. "random": random
        responsibilities. Beyond scikit-learn: "small_em", the best of ten starts from k-means after seven EM steps;
        "hc", up to 500 small clusters joined where a Gaussian mixture loses least. Of more than 10,000 rows, and more
        than 256 a component, all but the random ones look for clusters in a sample.
    weights_init : array-like of shape (n_components,), default=None
    means_init : array-like of shape (n_components, n_features), default=None
    precisions_init : array-like, default=None
        Weights, means and precisions (inverse covariances, in the shape of `covariances_`) to start from, in place of
        those that `init_params` gives.
    random_state : int, RandomState instance or None, default=None
        Seeds the start, and `sample`.
    warm_start : bool, default=False
        Start where the last fit ended.
    verbose : int, default=0
        1 prints starts and iterations, 2 also times and changes of the likelihood.
    verbose_interval : int, default=10
        Iterations between two lines.
    n_jobs : int, default=None
        Beyond scikit-learn. Threads, for fitting and predicting; the answer is the same to the last bit for any
        number. None is Numba's own setting (all cores, or `NUMBA_NUM_THREADS`), -1 all of `NUMBA_NUM_THREADS`. These
        are threads, not joblib's processes.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        Beyond scikit-learn. Labels (integers; negative ones belong to no component) or responsibilities of the rows to
        start from, in place of `init_params`.
    whiten_init : bool, default=False
        Beyond scikit-learn. Look for the clusters of "kmeans", "k-means++" and "small_em" in coordinates in which the
        rows' covariance is the identity: for features in different units, and for long parallel clusters.
    acceleration : {"progressive", "squarem"} or None, default="progressive"
        Beyond scikit-learn. "squarem": from when EM steps raise the mean log-likelihood by less than 1e-2 nats per row,
        go on from where every two of them lead, if the likelihood is no lower there; fixed points are those of EM.
        "progressive": the same, and if there are very many rows (80,000 and 2,048 a component and 80 a parameter, an
        eighth of which takes 32 MB at most) and nothing of the start is given, first fit a sample, from the best of at
        least four short runs. None is plain EM on all rows, step for step scikit-learn's.
    limit_tol : float, default=None
        Beyond scikit-learn. A small rise is not a small distance: to have converged, the limit of the mean
        log-likelihood must also be so near, in nats per row, by the estimate that is `remaining_`.
    n_moves : int, default=0
        Beyond scikit-learn. How often to try to leave the optimum that EM has found: two components are merged and a
        third, if there is one, is split, and what EM makes of that, in at most `max_iter` iterations, is kept if the
        likelihood is higher; of very many rows on a sample.
    callback : callable, default=None
        Beyond scikit-learn. Called after every pass over all rows, but for the short runs of starts and moves, as
        ``callback(n_iter, lower_bound, parameters)``, `parameters` with arrays `weights`, `means` and `covariances`; if
        it returns something true, the fit ends there, with what it has.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_ : ndarray
        Of shape (n_components, n_features, n_features) for "full", (n_features, n_features) for "tied", (n_components,
        n_features) for "diag", (n_components,) for "spherical".
    precisions_ : ndarray
        Inverses of the covariances, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular P with ``precision = P @ P.T``; inverse standard deviations for "diag" and "spherical".
    converged_ : bool
        Whether the last iteration of the best fit raised the likelihood by less than `tol`. A fit whose likelihood
        fell, or became NaN, has not converged; once it has been accelerated, a fall of less than `tol` is allowed.
    n_iter_ : int
        Passes over all rows of the best fit: its EM iterations, with `acceleration` also passes that led nowhere.
    lower_bound_ : float
        Mean log-likelihood of the rows at the best fit's last E-step, in nats.
    lower_bounds_ : list of float
        The same for each of its iterations.
    remaining_ : float
        About how much higher the limit of `lower_bounds_` is, in nats per row, if the rises of the last two EM steps go
        on to shrink, as slowly as any of the last six (Aitken's estimate, which is no bound); infinite if they do not,
        or there were no two.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if the rows had feature names that are all strings.

    Notes
    -----
    Arrays are float32 for float32 rows, else float64; inside, parameters and sums are always float64. Memory beyond the
    rows is a few megabytes for each thread, whatever their number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture
    >>> X = np.array([[0, 2], [1, 4], [2, 0], [9, 2], [10, 4], [11, 0]])
    >>> gm = GaussianMixture(n_components=2, random_state=0).fit(X)
    >>> gm.means_[gm.means_[:, 0].argsort()]
    array([[ 1.,  2.],
           [10.,  2.]])
    >>> labels = gm.predict([[0, 0], [12, 3]])
    >>> bool(labels[0] != labels[1])
    True

    A row of weight 3 counts as three rows:

    >>> weighted = GaussianMixture(random_state=0).fit(X, sample_weight=[3, 1, 1, 1, 1, 1])
    >>> weighted.means_
    array([[4.125, 2.   ]])
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMixture._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "resp_init": ["array-like", None],
        "whiten_init": ["boolean"],
        "acceleration": [StrOptions(set(schedule.ACCELERATIONS)), None],
        "limit_tol": [Interval(Real, 0.0, None, closed="neither"), None],
        "n_moves": [Interval(Integral, 0, None, closed="left")],
        "callback": [callable, None],
    }

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        means_init=None,
        precisions_init=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        n_jobs=None,
        resp_init=None,
        whiten_init=False,
        acceleration="progressive",
        limit_tol=None,
        n_moves=0,
        callback=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_jobs = n_jobs
        self.resp_init = resp_init
        self.whiten_init = whiten_init
        self.acceleration = acceleration
        self.limit_tol = limit_tol
        self.n_moves = n_moves
        self.callback = callback

    @classmethod
    def from_parameters(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        *,
        covariance_type: str = "full",
        **options: Any,
    ) -> GaussianMixture:
        """A fitted estimator with these parameters, without any rows.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Sum to one.
        means : array-like of shape (n_components, n_features)
        covariances : array-like
            In the shape of `covariances_`.
        covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        **options
            Other parameters of the constructor. With ``warm_start=True``, `fit` starts from here.

        Returns
        -------
        GaussianMixture

        Raises
        ------
        ValueError
            If a shape is wrong, the weights are no weights, or a covariance is not positive definite.

        Examples
        --------
        >>> from fastgmm import GaussianMixture
        >>> gm = GaussianMixture.from_parameters([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], covariance_type="spherical")
        >>> gm.predict([[-1.0], [5.0]])
        array([0, 1])
        """
        means = check_array(means, dtype=[np.float64, np.float32], input_name="means")
        estimator = cls(len(means), covariance_type=covariance_type, **options)
        estimator._validate_params()
        parameters = MixtureParameters.create(
            check_weights(weights, len(means)),
            means,
            check_covariances(covariances, covariance_type, *means.shape),
            covariance_type,
        )
        estimator._set_fitted(parameters, em.EMResult(parameters), means.dtype)
        estimator.n_features_in_ = means.shape[1]
        return estimator

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> GaussianMixture:
        """Estimate the parameters with the EM algorithm.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; data frames are accepted. float32 stays float32, everything else becomes float64.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts: 3 equals three copies, 0 equals absence.

        Returns
        -------
        self
            If the fit fails, the estimator stays as it was. If it is interrupted (Ctrl-C) after the first pass over all
            rows, it keeps the best parameters so far, with ``converged_ = False``; the KeyboardInterrupt goes on.
        """
        with self._unchanged_on_error():
            _, interrupted = self._fit(X, sample_weight)
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit, and predict the most probable component of each row. Parameters as for `fit`, result as of `predict`."""
        with self._unchanged_on_error():
            X, interrupted = self._fit(X, sample_weight)
            labels = np.empty(0, np.int64) if interrupted else engine.predict(self._parameters(), X, n_jobs=self.n_jobs)
        if interrupted:
            raise KeyboardInterrupt(f"{INTERRUPTED} {self.n_iter_} passes")
        return labels

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> tuple[NDArray, bool]:
        """Fit and set the fitted attributes; returns the validated rows, and whether the fit was interrupted."""
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        resolve_n_jobs(self.n_jobs)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, X)
        # The kernels read either order in place; anything else would be copied at every pass.
        source = ArraySource(X if X.flags.f_contiguous else np.ascontiguousarray(X), weights)
        check_enough_rows(source, self.n_components)
        given = check_given(self, *X.shape)
        warm = self._check_warm_start(X)
        with thread_limit(self.n_jobs):
            try:
                result = self._best_run(source, given, warm)
            except IllDefinedCovarianceError as error:
                hint = FLOAT32_HINT if X.dtype == np.float32 else ""
                raise ValueError(f"{ILL_DEFINED}{hint} Here {error.describe()}.") from None
        self._set_fitted(result.parameters, result, X.dtype)
        if not (result.converged or result.stopped or result.interrupted) and self.max_iter > 0:
            unmet = ""
            if self.limit_tol is not None and abs(result.last_change) < self.tol:
                unmet = (
                    f" Its steps are smaller than tol, but the limit is not nearer than {result.remaining:.3g}, and "
                )
                unmet += f"limit_tol is {self.limit_tol:g}."
            self._warn_not_converged(result.last_change, unmet)
        self._warn_degenerate(result.parameters)
        return X, result.interrupted

    def _best_run(self, source: ArraySource, given: dict[str, Any], warm: MixtureParameters | None) -> em.EMResult:
        """Run EM from each start and return the best result."""
        random_state = check_random_state(self.random_state)
        progress = Progress(self.verbose, self.verbose_interval, self.n_components, self.callback)
        rules = schedule.Rules(
            self.tol,
            self.max_iter,
            self.reg_covar,
            limit_tol=math.inf if self.limit_tol is None else self.limit_tol,
            acceleration=None if self.acceleration is None else schedule.ACCELERATIONS[self.acceleration],
            n_moves=self.n_moves,
        )
        if warm is not None:
            return schedule.go_on(source, warm, rules, progress, self.lower_bound_)
        starts = schedule.Starts(
            self.n_components,
            self.covariance_type,
            self.init_params,
            self.reg_covar,
            whiten=self.whiten_init,
            given=given,
        )
        seeds = iter(lambda: int(random_state.randint(2**63 - 1, dtype=np.int64)), None)
        try:
            return schedule.fit(source, starts, rules, n_init=self.n_init, seeds=seeds, watcher=progress)
        finally:
            if progress.fewest < self.n_components:
                warnings.warn(
                    f"Number of distinct clusters ({progress.fewest}) found smaller than n_clusters "
                    f"({self.n_components}). Possibly due to duplicate points in X.",
                    ConvergenceWarning,
                    stacklevel=4,
                )

    def _set_fitted(self, parameters: MixtureParameters, result: em.EMResult, dtype: np.dtype) -> None:
        with np.errstate(over="ignore"):  # a precision may be beyond float32
            self.weights_ = parameters.weights.astype(dtype)
            self.means_ = parameters.means.astype(dtype)
            self.covariances_ = parameters.covariances.astype(dtype)
            self.precisions_cholesky_ = parameters.precisions_cholesky.astype(dtype)
            self.precisions_ = parameters.model.form.precisions(parameters.precisions_cholesky).astype(dtype)
        self.converged_ = result.converged
        self.n_iter_ = result.n_iter
        self.lower_bound_ = result.lower_bound
        self.lower_bounds_ = result.lower_bounds
        self.remaining_ = result.remaining

    def _check_warm_start(self, X: NDArray) -> MixtureParameters | None:
        """The parameters to start from, if there are any and they fit."""
        if not (self.warm_start and hasattr(self, "converged_")):
            return None
        expected = get_model(self.covariance_type).form.shape(self.n_components, X.shape[1])
        if self.means_.shape != (self.n_components, X.shape[1]) or self.covariances_.shape != expected:
            raise ValueError(
                f"warm_start=True continues the last fit, which has means of shape {self.means_.shape} and covariances "
                f"of shape {self.covariances_.shape}, but {self.n_components} components of type "
                f"{self.covariance_type!r} with {X.shape[1]} features are asked for. Set warm_start=False to start "
                "anew."
            )
        return self._parameters()

    def _warn_degenerate(self, parameters: MixtureParameters) -> None:
        for components, what in em.degenerate_components(parameters, self.reg_covar):
            listed = ", ".join(map(str, components[:10])) + (", ..." if len(components) > 10 else "")
            warnings.warn(
                f"Component(s) {listed} {what}. Consider fewer components.", DegenerateComponentWarning, stacklevel=4
            )
