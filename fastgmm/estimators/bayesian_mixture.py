"""`BayesianGaussianMixture`: scikit-learn's variational estimator."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fastgmm.covariance import BASIC_TYPES, IllDefinedCovarianceError, get_model
from fastgmm.data.conversion import check_array
from fastgmm.data.sources import Source
from fastgmm.fitting import schedule
from fastgmm.fitting.options import CheckpointStore, FitOptions
from fastgmm.fitting.progress import PrintProgress
from fastgmm.fitting.run_state import CheckpointState, EMResult
from fastgmm.fitting.starts import Starts
from fastgmm.m_step.conjugate_prior import overall_moments
from fastgmm.m_step.model_conversion import mixture_statistics
from fastgmm.m_step.variational import (
    WEIGHT_PRIORS,
    DirichletDistribution,
    DirichletProcess,
    Posterior,
    Prior,
    VariationalBound,
    WeightPrior,
)
from fastgmm.mixture.parameters import MixtureParameters

from .annotations import FilePath, FloatArray, RandomState
from .base import BaseMixture
from .fitted_parameters import fitted_parameters
from .validation import PlainParameters, check_covariance_prior, check_shape, plain

# The least number that is added to a singular prior, in units of the rounding of its largest variance.
PRIOR_ROUNDING = 16

Array = NDArray[np.float64]


class BayesianGaussianMixture(BaseMixture):
    """Gaussian mixture fitted by variational inference.

    Replaces `sklearn.mixture.BayesianGaussianMixture`: it has the same parameters, defaults, attributes, methods and
    errors. The fit approximates the posterior distribution of the parameters [1]_. Components that the rows do not need
    have a weight near zero.

    Parameters
    ----------
    n_components : int, default=1
        Maximum number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        "full": one covariance matrix per component. "tied": one matrix for all components. "diag": one variance per
        component and feature. "spherical": one variance per component.
    tol : float, default=1e-3
        The fit converges when the bound of the log-evidence of all rows, in nats, rises by less than `tol`.
    reg_covar : float, default=1e-6
        Added to every variance of the rows.
    max_iter : int, default=100
        Maximum number of iterations of a run. Each is one pass over the rows. With 0 the fitted model is the start.
    n_init : int, default=1
        Number of starts. All are run to the end, and the result with the highest bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"}, default="kmeans"
        How the start is made; see `GaussianMixture`.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}, default="dirichlet_process"
        Prior of the weights [2]_.
    weight_concentration_prior : float, default=None
        Concentration of the prior of the weights. The lower it is, the fewer components keep weight. None is
        ``1 / n_components``.
    mean_precision_prior : float, default=None
        Number of rows that the prior of the means is worth. None is 1.
    mean_prior : array-like of shape (n_features,), default=None
        Mean of the prior of the means. None is the mean of the rows.
    degrees_of_freedom_prior : float, default=None
        Number of rows that the prior of the covariances is worth, above ``n_features - 1``. None is `n_features`.
    covariance_prior : float or array-like, default=None
        Scatter of these rows. Shape (n_features, n_features) for "full" and "tied", (n_features,) for "diag", a number
        for "spherical". None is the covariance of the rows. If features depend linearly on each other, `reg_covar` is
        added to its diagonal.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts and of `sample`.
    warm_start : bool, default=False
        If True, `fit` continues from the last fit. If `covariance_type`, `reg_covar` or a parameter of the priors has
        changed since, the start is the posterior given rows of the last mixture.
    verbose : int, default=0
        1 prints starts and iterations; 2 also prints times and changes of the bound.
    verbose_interval : int, default=10
        Number of iterations between two printed lines.
    n_jobs : int, default=None
        Beyond scikit-learn. Number of threads; see `GaussianMixture`. Results are bit for bit equal for every number of
        threads.
    checkpoint : path, default=None
        Beyond scikit-learn. File that keeps the state of the fit after every pass over all rows. `resume` continues
        from it. See `GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Expected weights of the components.
    means_ : ndarray of shape (n_components, n_features)
        Expected means of the components.
    covariances_ : ndarray
        Expected covariances, in the shape that they have in `GaussianMixture`.
    precisions_ : ndarray
        Inverses of `covariances_`, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular factors P with ``precision = P @ P.T``.
    converged_ : bool
        Whether the best run converged.
    n_iter_ : int
        Passes of the best run over all rows.
    lower_bound_ : float
        Bound of the log-evidence of all rows, in nats, without a constant.
    lower_bounds_ : list of float
        Bound after each iteration of the best run. (scikit-learn has it since version 1.7.)
    weight_concentration_prior_ : float
        Concentration of the prior of the weights.
    mean_precision_prior_ : float
        Number of rows that the prior of the means is worth.
    mean_prior_ : ndarray of shape (n_features,)
        Mean of the prior of the means.
    degrees_of_freedom_prior_ : float
        Number of rows that the prior of the covariances is worth.
    covariance_prior_ : ndarray or float
        Scatter of the prior of the covariances.
    weight_concentration_ : tuple of two ndarrays of shape (n_components,), or ndarray of shape (n_components,)
        Parameters of the beta distributions for "dirichlet_process", or of the Dirichlet distribution for
        "dirichlet_distribution".
    mean_precision_ : ndarray of shape (n_components,)
        Number of rows that the posterior of each mean is worth.
    degrees_of_freedom_ : ndarray of shape (n_components,), or float for "tied"
        Number of rows that the posterior of each covariance is worth.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all are strings.

    See Also
    --------
    GaussianMixture : Maximum likelihood, with more covariance models.
    ConjugatePrior : Prior for `GaussianMixture`, which finds the mode of the posterior.
    DaskBayesianGaussianMixture : The same mixture for rows on a Dask cluster.

    References
    ----------
    .. [1] C. M. Bishop (2006). Pattern Recognition and Machine Learning. Springer. Section 10.2.
    .. [2] D. M. Blei and M. I. Jordan (2006). Variational inference for Dirichlet process mixtures. Bayesian Analysis
       1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import BayesianGaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 20])
    >>> bgm = BayesianGaussianMixture(n_components=5, max_iter=1000, random_state=0).fit(X)
    >>> int((bgm.weights_ > 0.1).sum())
    2
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMixture._parameter_constraints,
        "covariance_type": [StrOptions(set(BASIC_TYPES))],
        "weight_concentration_prior_type": [StrOptions(set(WEIGHT_PRIORS))],
        "weight_concentration_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "mean_precision_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "mean_prior": [None, "array-like"],
        "degrees_of_freedom_prior": [None, Interval(Real, 0.0, None, closed="neither")],
        "covariance_prior": [None, "array-like", Interval(Real, 0.0, None, closed="neither")],
    }
    _objective = (
        *BaseMixture._objective,
        "weight_concentration_prior_type",
        "weight_concentration_prior",
        "mean_precision_prior",
        "mean_prior",
        "degrees_of_freedom_prior",
        "covariance_prior",
    )

    weight_concentration_: tuple[FloatArray, FloatArray] | FloatArray

    def __init__(
        self,
        *,
        n_components: int = 1,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weight_concentration_prior_type: Literal["dirichlet_process", "dirichlet_distribution"] = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: ArrayLike | None = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: ArrayLike | None = None,
        random_state: RandomState = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        n_jobs: int | None = None,
        checkpoint: FilePath | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint

    def _best_run(
        self,
        source: Source,
        checkpoint: CheckpointStore | None,
        resumed: CheckpointState | None,
        progress: PrintProgress,
    ) -> EMResult:
        params = PlainParameters(self)
        earlier = self._earlier_fit(source.n_features)
        prior = self._prior(source)
        objective = VariationalBound(prior, params.covariance_type, params.reg_covar)
        options = FitOptions(objective, params.tol, params.max_iter, checkpoint=checkpoint)
        starts = Starts(params.n_components, objective, params.init_params)
        if resumed is not None:
            return schedule.resume(source, resumed, options, progress)
        if earlier is not None:
            kind = _weight_prior_of(np.asarray(self.weight_concentration_))
            if self._is_same_objective() and kind is self._weight_prior():
                start, bound = self._posterior(prior), float(getattr(self, "lower_bound_", -math.inf))
            else:
                moments = mixture_statistics(earlier, source.total_weight, params.covariance_type)
                start, bound = objective.from_moments(moments), -math.inf
            return schedule.continue_from(source, start, options, progress, bound)
        return schedule.fit(source, starts, options, n_init=params.n_init, seeds=self._seeds(), observer=progress)

    def _prior(self, source: Source) -> Prior:
        """Return the priors, validated."""
        params = PlainParameters(self)
        n_features = source.n_features
        mean, covariance = overall_moments(source, params.covariance_type)
        if self.mean_prior is not None:
            mean = check_array(self.mean_prior, dtype=[np.float64, np.float32], ensure_2d=False).astype(np.float64)
            check_shape(mean, (n_features,), "means")
        freedom = n_features if self.degrees_of_freedom_prior is None else params.degrees_of_freedom_prior
        if freedom <= n_features - 1:
            raise ValueError(
                f"The parameter 'degrees_of_freedom_prior' should be greater than {n_features - 1}, but got "
                f"{freedom:.3f}."
            )
        if self.covariance_prior is not None:
            covariance = check_covariance_prior(self.covariance_prior, params.covariance_type, n_features)
        else:
            covariance = self._positive_definite(covariance, n_features)
        concentration = params.weight_concentration_prior
        return Prior(
            self._weight_prior(),
            1 / params.n_components if concentration is None else concentration,
            1.0 if self.mean_precision_prior is None else params.mean_precision_prior,
            mean,
            freedom,
            covariance,
        )

    def _positive_definite(self, covariance: Array, n_features: int) -> Array:
        """Return the rows' covariance as a prior, positive definite.

        Components without rows have the covariance of the prior. If features depend on each other, only rounding would
        decide whether it has a Cholesky factor. The number that is added is `reg_covar`, or the rounding of the largest
        variance if that is more.
        """
        form = get_model(plain(self.covariance_type)).form
        try:
            form.precisions_cholesky(covariance if form.is_shared else covariance[np.newaxis])
        except IllDefinedCovarianceError:
            covariance = np.array(covariance)
            variances = form.variances(covariance)
            rounding = PRIOR_ROUNDING * n_features * float(np.finfo(np.float64).eps)
            variances += max(self.reg_covar, rounding * float(np.max(variances)))
        return covariance

    def _set_fitted(self, parameters: MixtureParameters, result: EMResult, dtype: np.dtype[Any]) -> None:
        super()._set_fitted(parameters, result, dtype)
        assert isinstance(parameters, Posterior)
        prior, dtype = parameters.prior, self.means_.dtype
        self.weight_concentration_prior_ = prior.weight_concentration
        self.mean_precision_prior_ = prior.mean_precision
        self.mean_prior_ = prior.mean.astype(dtype)
        self.degrees_of_freedom_prior_ = prior.degrees_of_freedom
        self.covariance_prior_ = np.asarray(prior.covariance).astype(dtype)[()]
        concentration = parameters.concentration.astype(dtype)
        self.weight_concentration_ = tuple(concentration) if concentration.ndim == 2 else concentration
        self.mean_precision_ = parameters.mean_precision.astype(dtype)
        self.degrees_of_freedom_ = np.asarray(parameters.degrees_of_freedom).astype(dtype)[()]

    def _weight_prior(self) -> type[WeightPrior]:
        return WEIGHT_PRIORS[plain(self.weight_concentration_prior_type)]

    def _posterior(self, prior: Prior) -> Posterior:
        """Return the fitted posterior, with the prior of the next fit."""
        check_is_fitted(self)
        concentration, mean_precision, freedom = (
            np.asarray(a, dtype=np.float64)
            for a in (self.weight_concentration_, self.mean_precision_, self.degrees_of_freedom_)
        )
        # scikit-learn's predictions do not read weights_, so a model whose attributes the user has set may lack it.
        weights = getattr(self, "weights_", None)
        if weights is None:
            weights = _weight_prior_of(concentration).expected_weights(concentration)
        fitted = fitted_parameters(self, weights)
        return Posterior(
            fitted.weights,
            fitted.means,
            fitted.covariances,
            fitted.precisions_cholesky,
            fitted.covariance_type,
            prior,
            concentration,
            mean_precision,
            freedom,
        )

    def _parameters(self) -> MixtureParameters:
        """Return the fitted posterior, with a prior that has no numbers.

        Predictions do not read them.
        """
        check_is_fitted(self)
        weights = _weight_prior_of(np.asarray(self.weight_concentration_))
        missing = np.full(1, np.nan)
        return self._posterior(Prior(weights, math.nan, math.nan, missing, math.nan, missing))


def _weight_prior_of(concentration: Array) -> type[WeightPrior]:
    """Return the kind of prior whose posterior has a concentration of this shape.

    The shape is (2, K) for the Dirichlet process and (K,) for the Dirichlet distribution.
    """
    return DirichletProcess if concentration.ndim == 2 else DirichletDistribution
