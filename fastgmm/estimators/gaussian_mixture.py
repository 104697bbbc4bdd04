"""`GaussianMixture`: scikit-learn's estimator on fastgmm's engine."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions

from fastgmm.covariance import COVARIANCE_TYPES, get_model
from fastgmm.data.conversion import check_array
from fastgmm.data.sources import Source
from fastgmm.fitting import schedule
from fastgmm.fitting.degeneracy import degenerate_components
from fastgmm.fitting.options import ACCELERATIONS, CheckpointStore, FitOptions
from fastgmm.fitting.progress import PrintProgress
from fastgmm.fitting.run_state import CheckpointState, EMResult
from fastgmm.fitting.starts import Starts
from fastgmm.m_step.conjugate_prior import ConjugatePosterior, ConjugatePrior
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from fastgmm.m_step.model_conversion import mixture_statistics
from fastgmm.m_step.objective import Objective
from fastgmm.mixture.parameters import MixtureParameters

from .annotations import Callback, FilePath, RandomState
from .base import BaseMixture
from .criteria import InformationCriteria
from .validation import PlainParameters, check_covariances, check_resp, check_user_start, check_weights, plain


class GaussianMixture(InformationCriteria, BaseMixture):
    """Gaussian mixture fitted by expectation-maximisation.

    Replaces `sklearn.mixture.GaussianMixture`: it has the same parameters, defaults, attributes, methods and errors.
    Parameters that scikit-learn does not have are keyword-only and described as "Beyond scikit-learn".

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"} or one of mclust's models, default="full"
        "full": one covariance matrix per component. "tied": one matrix for all components. "diag": one variance per
        component and feature. "spherical": one variance per component. Beyond scikit-learn: the names of mclust's
        models [1]_, [2]_. Their letters stand for volume, shape and orientation. Each is equal (E) or variable (V)
        among the components; I means a sphere, or axes parallel to the features'. The models are "EII", "VII" (the
        same as "spherical"), "EEI", "VEI", "EVI", "VVI" ("diag"), "EEE" ("tied"), "VEE", "EVE", "VVE", "EEV", "VEV",
        "EVV", "VVV" ("full"), and, for a single feature, "E" and "V".
    tol : float, default=1e-3
        EM converges when the mean log-likelihood, in nats per row, rises by less than `tol` in an iteration. With 0 it
        always runs `max_iter` iterations.
    reg_covar : float, default=1e-6
        Added to every variance.
    max_iter : int, default=100
        Maximum number of EM iterations of a run. Each is one pass over the rows. With 0 the fitted model is the start.
    n_init : int, default=1
        Number of starts. EM runs from each to the end, and the result with the highest likelihood is kept. With 10,000
        rows or more, and unless `acceleration` is None, only the best start after a few steps is run to the end.
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"}, default="kmeans"
        How the start is made. "kmeans": the clusters of k-means. "k-means++": means drawn by k-means++.
        "random_from_data": means drawn from the rows. The last two take the pooled covariance about the nearest mean.
        "random": random responsibilities. Beyond scikit-learn, "small_em": the best of ten k-means starts after seven
        EM steps; "hc": clusters of rows, merged two at a time where a Gaussian mixture loses least; with more than
        2,000 rows or with many features, up to 500 small clusters are merged instead. With more than 10,000 rows, and
        more than 256 rows per component, all except "random" and "random_from_data" search for clusters in a sample.
    weights_init : array-like of shape (n_components,), default=None
        Weights of the start, in place of those that `init_params` gives.
    means_init : array-like of shape (n_components, n_features), default=None
        Means of the start, in place of those that `init_params` gives.
    precisions_init : array-like, default=None
        Precisions (inverse covariances) of the start, in the shape of `covariances_`, in place of those that
        `init_params` gives.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts and of `sample`.
    warm_start : bool, default=False
        If True, `fit` continues from the last fit. If `covariance_type`, `prior` or `reg_covar` has changed since, the
        start is the mixture of the new kind that best fits rows of the last mixture.
    verbose : int, default=0
        1 prints starts and iterations; 2 also prints times and changes of the likelihood.
    verbose_interval : int, default=10
        Number of iterations between two printed lines.
    n_jobs : int, default=None
        Beyond scikit-learn. Number of threads for fits and predictions; results are bit for bit equal for every number
        of threads. None is Numba's setting: all cores, or `NUMBA_NUM_THREADS`. -1 is all of `NUMBA_NUM_THREADS`. These
        are threads, not joblib's processes.
    resp_init : array-like of shape (n_samples,) or (n_samples, n_components), default=None
        Beyond scikit-learn. Labels or responsibilities of the rows at the start, in place of `init_params`. Labels are
        integers; rows with a negative label are in no component.
    whiten_init : bool, default=False
        Beyond scikit-learn. Search for the clusters of "kmeans", "k-means++" and "small_em" in coordinates in which
        the covariance of the rows is the identity. It helps if the features have different units, or clusters are long
        and parallel.
    acceleration : {"progressive", "squarem"} or None, default="progressive"
        Beyond scikit-learn. How EM is accelerated; see the notes. None is plain EM on all rows, with scikit-learn's
        iterations.
    limit_tol : float, default=None
        Beyond scikit-learn. A second condition of convergence: the estimated distance to the limit of the mean
        log-likelihood, `remaining_`, must also be at most `limit_tol`, in nats per row. EM that converges slowly can
        satisfy `tol` far from its limit.
    n_moves : int, default=0
        Beyond scikit-learn. How often to try to leave the local optimum that EM has found. A move merges two components
        and splits a third one. With fewer than three components there are no moves. It is kept if EM, in at most
        `max_iter` iterations, reaches a higher likelihood without more flat components.
    prior : ConjugatePrior, default=None
        Beyond scikit-learn. A prior of means and covariances, for all models except "VEE", "EVE", "VVE" and "EVV". The
        fit then maximises the posterior density, and `lower_bound_` includes the log-prior. None is maximum likelihood.
    callback : callable, default=None
        Beyond scikit-learn. Called as ``callback(n_iter, lower_bound, parameters)`` after every pass over all rows,
        except for the short runs of starts and moves. `parameters` has the arrays `weights`, `means` and `covariances`.
        If the callback returns a true value, the fit stops and keeps its present parameters.
    checkpoint : path, default=None
        Beyond scikit-learn. File that keeps the state of the fit. It is written after every pass over all rows, except
        for passes of moves. `resume` continues from it. The file must not exist, or be a checkpoint; any other file is
        refused before the fit starts. `fit` replaces an older state after its first pass. Fits that share one file
        (`GridSearchCV`, `cross_val_score`) overwrite each other's state, and `resume` refuses the state of other rows
        or parameters. `MixtureSearch` and the bootstrap use neither `checkpoint` nor `callback`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Weights of the components; they sum to 1.
    means_ : ndarray of shape (n_components, n_features)
        Means of the components.
    covariances_ : ndarray
        Covariances. Shape (n_components, n_features, n_features) for "full", (n_features, n_features) for "tied",
        (n_components, n_features) for "diag", (n_components,) for "spherical". "EII" is stored like "spherical", the
        other models that end in I like "diag", "EEE" like "tied", all others like "full".
    precisions_ : ndarray
        Inverses of the covariances, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular factors P with ``precision = P @ P.T``. Inverse standard deviations for "diag" and
        "spherical".
    converged_ : bool
        Whether the best run converged.
    n_iter_ : int
        Passes of the best run over all rows. With `acceleration` these include passes at rejected steps.
    lower_bound_ : float
        Mean log-likelihood of the rows at the last E-step of the best run, in nats per row.
    lower_bounds_ : list of float
        Mean log-likelihood at each iteration of the best run, in nats per row.
    remaining_ : float
        Estimate of how far the limit of `lower_bounds_` is above its last value, in nats per row (Aitken's estimate; it
        is not a bound). It assumes that the rises continue to shrink at the slowest rate of the last six EM steps. It
        is infinite if the rises do not shrink, or there were fewer than two.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all are strings.

    See Also
    --------
    BayesianGaussianMixture : Variational inference, which empties components that are not needed.
    StreamingGaussianMixture : Mixture of rows that arrive in blocks and are read once.
    DaskGaussianMixture : The same mixture for rows on a Dask cluster.
    MixtureSearch : Choice of the covariance model and of the number of components.
    rows : Rows in files, for data that does not fit into memory.

    Notes
    -----
    Arrays are float32 for float32 rows, else float64. Parameters and sums over rows are float64 inside. Memory in
    addition to the rows: less than a megabyte per thread, the sums of the kernels (64 MB at most for most shapes), and
    with k-means 8 bytes per row.

    With ``acceleration="squarem"``, SQUAREM [3]_ begins once EM steps raise the mean log-likelihood by less than 2e-3
    nats per row. It extrapolates from every two EM steps, and the extrapolation is accepted only if the likelihood does
    not fall. The fixed points are those of EM.

    ``acceleration="progressive"`` accelerates in the same way if `tol` is below 1e-3 or `limit_tol` is given. In
    addition:

    - If no part of the start is given, and there are at least 80,000 rows, 2,048 rows per component and 80 rows per
      parameter, growing samples are fitted first. The first has an eighth of that number of rows; it must not take more
      than 32 MB. A sample includes all rows of low density. The result is discarded if it gives all rows a lower
      likelihood than the start.
    - If `tol` is positive and at most 1e-4, and there are at least 1,000 rows and three components, one move (see
      `n_moves`) is tried. It is kept if EM then converges to a higher likelihood.

    References
    ----------
    .. [1] G. Celeux and G. Govaert (1995). Gaussian parsimonious clustering models. Pattern Recognition 28.
    .. [2] L. Scrucca, M. Fop, T. B. Murphy and A. E. Raftery (2016). mclust 5: clustering, classification and density
       estimation using Gaussian finite mixture models. The R Journal 8.
    .. [3] R. Varadhan and C. Roland (2008). Simple and globally convergent methods for accelerating the convergence of
       any EM algorithm. Scandinavian Journal of Statistics 35.

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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMixture._parameter_constraints,
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "weights_init": ["array-like", None],
        "means_init": ["array-like", None],
        "precisions_init": ["array-like", None],
        "resp_init": ["array-like", None],
        "whiten_init": ["boolean"],
        "acceleration": [StrOptions(set(ACCELERATIONS)), None],
        "limit_tol": [Interval(Real, 0.0, None, closed="neither"), None],
        "n_moves": [Interval(Integral, 0, None, closed="left")],
        "prior": [ConjugatePrior, None],
        "callback": [callable, None],
    }
    _objective = (*BaseMixture._objective, "prior")

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: ArrayLike | None = None,
        means_init: ArrayLike | None = None,
        precisions_init: ArrayLike | None = None,
        random_state: RandomState = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_jobs: int | None = None,
        resp_init: ArrayLike | None = None,
        whiten_init: bool = False,
        acceleration: Literal["progressive", "squarem"] | None = "progressive",
        limit_tol: float | None = None,
        n_moves: int = 0,
        prior: ConjugatePrior | None = None,
        callback: Callback | None = None,
        checkpoint: FilePath | None = None,
    ) -> None:
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
        self.prior = prior
        self.callback = callback
        self.checkpoint = checkpoint

    @classmethod
    def from_parameters(
        cls,
        weights: ArrayLike,
        means: ArrayLike,
        covariances: ArrayLike,
        *,
        covariance_type: str = "full",
        **options: Any,
    ) -> Self:
        """Make a fitted estimator from parameters, without rows.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Weights; they must sum to 1.
        means : array-like of shape (n_components, n_features)
            Means.
        covariances : array-like
            Covariances, in the shape of `covariances_`.
        covariance_type : str, default="full"
            Model of the covariances.
        **options : dict
            Other parameters of the constructor. With ``warm_start=True``, `fit` starts from these parameters.

        Returns
        -------
        GaussianMixture
            An estimator with all fitted attributes. `lower_bound_` is minus infinity.

        Raises
        ------
        ValueError
            If a shape is wrong, the weights are negative or do not sum to 1, or a covariance is not positive definite.

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
        estimator._set_fitted(parameters, EMResult(parameters), means.dtype)
        estimator.n_features_in_ = means.shape[1]
        return estimator

    def _best_run(
        self,
        source: Source,
        checkpoint: CheckpointStore | None,
        resumed: CheckpointState | None,
        progress: PrintProgress,
    ) -> EMResult:
        """Run EM from each start and return the best result."""
        params = PlainParameters(self)
        user_start = check_user_start(params, source.n_features)
        if self.resp_init is not None:
            user_start["resp"] = self._check_resp(source)
        earlier = self._earlier_fit(source.n_features)
        objective = self._make_objective(source, params)
        options = FitOptions(
            objective,
            params.tol,
            params.max_iter,
            limit_tol=math.inf if self.limit_tol is None else params.limit_tol,
            acceleration=None if self.acceleration is None else ACCELERATIONS[params.acceleration],
            n_moves=params.n_moves,
            checkpoint=checkpoint,
        )
        starts = Starts(
            params.n_components, objective, params.init_params, whiten=bool(self.whiten_init), user_start=user_start
        )
        if resumed is not None:
            return schedule.resume(source, resumed, options, progress)
        if earlier is not None:
            start, bound = earlier, float(getattr(self, "lower_bound_", -math.inf))
            if not self._is_same_objective():
                statistics = mixture_statistics(earlier, source.total_weight, params.covariance_type)
                start, bound = objective.from_moments(statistics), -math.inf
            return schedule.continue_from(source, start, options, progress, bound)
        return schedule.fit(source, starts, options, n_init=params.n_init, seeds=self._seeds(), observer=progress)

    def _make_objective(self, source: Source, params: PlainParameters) -> Objective:
        """Return the objective that the fit maximises."""
        if self.prior is None:
            return MaximumLikelihood(params.covariance_type, params.reg_covar)
        prior = self.prior.resolved(source, get_model(params.covariance_type), params.n_components)
        return ConjugatePosterior(prior, params.covariance_type, params.reg_covar)

    def _check_resp(self, source: Source) -> Any:
        """Return `resp_init`, validated, in the form that the source takes."""
        assert self.resp_init is not None
        return check_resp(self.resp_init, source.n_samples, plain(self.n_components))

    def _unmet_limit(self, result: EMResult) -> str:
        if self.limit_tol is None or not abs(result.last_change) < self.tol:
            return ""
        return (
            f" Its steps are smaller than tol, but the limit is not nearer than {result.remaining:.3g}, and limit_tol "
            f"is {self.limit_tol:g}."
        )

    def _degenerate(self, parameters: MixtureParameters) -> list[str]:
        sentences = []
        for components, what in degenerate_components(parameters, plain(self.reg_covar)):
            listed = ", ".join(map(str, components[:10])) + (", ..." if len(components) > 10 else "")
            sentences.append(f"Component(s) {listed} {what}.")
        return [*sentences, "Consider fewer components."] if sentences else []
