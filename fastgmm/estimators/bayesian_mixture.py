"""`BayesianGaussianMixture`: scikit-learn's variational estimator on fastgmm's passes."""

from __future__ import annotations

import math
from numbers import Real
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
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

from .base import BaseMixture
from .fitted import fitted_parameters
from .validation import PlainParameters, check_covariance_prior, check_shape, plain

# What is added to a singular prior at least, in units of the rounding of its largest variance.
PRIOR_ROUNDING = 16


class BayesianGaussianMixture(BaseMixture):
    """Gaussian mixture with distributions of its parameters, fitted by variational inference.

    Takes the place of `sklearn.mixture.BayesianGaussianMixture`: same parameters, defaults, attributes, methods and
    errors. Components that the rows do not need keep hardly any weight.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K, at most.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
        A covariance matrix for each component, one for all, variances for each component and feature, or one variance
        for each component.
    tol : float, default=1e-3
        The fit stops when the bound of the log-evidence of all rows, in nats, rises by less than this.
    reg_covar : float, default=1e-6
        Added to every variance of the rows.
    max_iter : int, default=100
        Most iterations of a run, each one pass over the rows. With 0 the fitted model is the start.
    n_init : int, default=1
        Number of starts; all are run to their ends, and the one with the highest bound is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"}, default="kmeans"
        As for `GaussianMixture`.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}, default="dirichlet_process"
        The prior of the weights.
    weight_concentration_prior : float, default=None
        Its concentration: the lower, the fewer components keep weight. None is ``1 / n_components``.
    mean_precision_prior : float, default=None
        How many rows the prior of the means is worth. None is 1.
    mean_prior : array-like of shape (n_features,), default=None
        The prior of the means. None is the rows' mean.
    degrees_of_freedom_prior : float, default=None
        Above ``n_features - 1``: how many rows the prior of the covariances is worth. None is `n_features`.
    covariance_prior : float or array-like, default=None
        The scatter of those rows: (D, D) for "full" and "tied", (D,) for "diag", a number for "spherical". None is the
        rows' covariance; if features depend on each other (dummies of all categories, parts of a whole), it is that
        plus `reg_covar` on its diagonal.
    random_state : int, RandomState instance or None, default=None
        Seeds the start, and `sample`.
    warm_start : bool, default=False
        Start where the last fit ended. If `covariance_type`, `reg_covar` or a parameter of the priors has been set to
        another value since, the start is the posterior that rows of the last mixture would be given.
    verbose : int, default=0
        1 prints starts and iterations, 2 also times and changes of the bound.
    verbose_interval : int, default=10
        Iterations between two lines.
    n_jobs : int, default=None
        Beyond scikit-learn. Threads, as for `GaussianMixture`; the answer is the same to the last bit for any number.
    checkpoint : path, default=None
        Beyond scikit-learn. A file to keep the fit's state in, after every pass over all rows: `resume` continues a fit
        that was killed. See `GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Their expectations, as are the others'.
    means_ : ndarray of shape (n_components, n_features)
    covariances_, precisions_, precisions_cholesky_ : ndarray
        In the shapes of `GaussianMixture`.
    converged_ : bool
    n_iter_ : int
        Passes over the rows of the best fit.
    lower_bound_ : float
        The bound of the log-evidence of all rows, in nats, but for a constant.
    lower_bounds_ : list of float
        Beyond scikit-learn before 1.7. The same after each iteration.
    weight_concentration_prior_, mean_precision_prior_, degrees_of_freedom_prior_ : float
    mean_prior_, covariance_prior_ : ndarray
        The priors, with what None stood for.
    weight_concentration_ : tuple of two ndarrays, or ndarray, of shape (n_components,)
        Parameters of the beta distributions of the process, or of the Dirichlet distribution.
    mean_precision_ : ndarray of shape (n_components,)
    degrees_of_freedom_ : ndarray of shape (n_components,), or a number for "tied"
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if the rows had feature names that are all strings.

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

    _parameter_constraints: ClassVar[dict] = {
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

    def __init__(
        self,
        *,
        n_components=1,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=None,
        mean_precision_prior=None,
        mean_prior=None,
        degrees_of_freedom_prior=None,
        covariance_prior=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        verbose_interval=10,
        n_jobs=None,
        checkpoint=None,
    ):
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
        asked = PlainParameters(self)
        earlier = self._earlier_fit(source.n_features)
        prior = self._prior(source)
        objective = VariationalBound(prior, asked.covariance_type, asked.reg_covar)
        options = FitOptions(objective, asked.tol, asked.max_iter, checkpoint=checkpoint)
        starts = Starts(asked.n_components, objective, asked.init_params)
        if resumed is not None:
            return schedule.resume(source, resumed, options, progress)
        if earlier is not None:
            kind = _weight_prior_of(np.asarray(self.weight_concentration_))
            if self._is_same_objective() and kind is self._weight_prior():
                start, bound = self._posterior(prior), float(getattr(self, "lower_bound_", -math.inf))
            else:
                moments = mixture_statistics(earlier, source.total_weight, asked.covariance_type)
                start, bound = objective.from_moments(moments), -math.inf
            return schedule.continue_from(source, start, options, progress, bound)
        return schedule.fit(source, starts, options, n_init=asked.n_init, seeds=self._seeds(), observer=progress)

    def _prior(self, source: Source) -> Prior:
        """The priors, validated."""
        asked = PlainParameters(self)
        n_features = source.n_features
        mean, covariance = overall_moments(source, asked.covariance_type)
        if self.mean_prior is not None:
            mean = check_array(self.mean_prior, dtype=[np.float64, np.float32], ensure_2d=False).astype(np.float64)
            check_shape(mean, (n_features,), "means")
        freedom = n_features if self.degrees_of_freedom_prior is None else asked.degrees_of_freedom_prior
        if freedom <= n_features - 1:
            raise ValueError(
                f"The parameter 'degrees_of_freedom_prior' should be greater than {n_features - 1}, but got "
                f"{freedom:.3f}."
            )
        if self.covariance_prior is not None:
            covariance = check_covariance_prior(self.covariance_prior, asked.covariance_type, n_features)
        else:
            covariance = self._made_positive_definite(covariance, n_features)
        concentration = asked.weight_concentration_prior
        return Prior(
            self._weight_prior(),
            1 / asked.n_components if concentration is None else concentration,
            1.0 if self.mean_precision_prior is None else asked.mean_precision_prior,
            mean,
            freedom,
            covariance,
        )

    def _made_positive_definite(self, covariance: NDArray, n_features: int) -> NDArray:
        """The rows' covariance as a prior: with features that depend on each other, with more on its diagonal.

        Components without rows have the prior's covariance, which then would exist by the luck of rounding alone.
        What is added is `reg_covar`, or, where that is less, the rounding of the largest variance.
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

    def _set_fitted(self, parameters: MixtureParameters, result: EMResult, dtype: np.dtype) -> None:
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
        """The fitted posterior, with some prior to go on from."""
        check_is_fitted(self)
        concentration, mean_precision, freedom = (
            np.asarray(a, dtype=np.float64)
            for a in (self.weight_concentration_, self.mean_precision_, self.degrees_of_freedom_)
        )
        weights = getattr(self, "weights_", None)  # predictions do without, and so may a model that was rebuilt
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
        """The fitted posterior, as the engine takes it: for predictions, which do not read the prior's numbers."""
        check_is_fitted(self)
        weights = _weight_prior_of(np.asarray(self.weight_concentration_))
        missing = np.full(1, np.nan)
        return self._posterior(Prior(weights, math.nan, math.nan, missing, math.nan, missing))


def _weight_prior_of(concentration: NDArray) -> type[WeightPrior]:
    """The kind of prior whose posterior has such a concentration: (2, K) for the process, (K,) for the distribution."""
    return DirichletProcess if concentration.ndim == 2 else DirichletDistribution
