"""`GaussianMixture`: scikit-learn's estimator on fastgmm's engine."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import Interval, StrOptions

from fastgmm.covariance import COVARIANCE_TYPES, get_model
from fastgmm.data.conversion import check_array
from fastgmm.data.sources import Source
from fastgmm.e_step.scores import log_highest_resp
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

from .base import BaseMixture
from .validation import PlainParameters, check_covariances, check_given, check_resp, check_weights, plain


class GaussianMixture(BaseMixture):
    """Gaussian mixture fitted by expectation-maximisation.

    Takes the place of `sklearn.mixture.GaussianMixture`: same parameters, defaults, attributes, methods and errors.
    What it has beyond that is keyword-only and listed below under "Beyond scikit-learn".

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : {"full", "tied", "diag", "spherical"} or one of mclust's models, default="full"
        A covariance matrix for each component, one for all, variances for each component and feature, or one variance
        for each component. Beyond scikit-learn: mclust's names, letters for volume, shape and orientation, each equal
        (E) or variable (V) among components, or spheres and the features' axes (I): "EII", "VII" (which is
        "spherical"), "EEI", "VEI", "EVI", "VVI" ("diag"), "EEE" ("tied"), "VEE", "EVE", "VVE", "EEV", "VEV", "EVV",
        "VVV" ("full"); and "E", "V" for a single feature.
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
        Start where the last fit ended. If `covariance_type`, `prior` or `reg_covar` has been set to another value
        since, the start is the new kind of mixture that rows of the last one would be given.
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
        Beyond scikit-learn. "squarem": once EM steps raise the mean log-likelihood by less than 2e-3 nats per row, EM
        continues from where every two of them lead, if the likelihood is no lower there; fixed points are those of EM.
        "progressive": the same if `tol` is below 1e-3, or `limit_tol` is given. If nothing of the start is given,
        samples of very many rows (80,000 and 2,048 a component and 80 a parameter, an eighth of which takes 32 MB at
        most) are fitted first; they have all rows of a low density, and are discarded if all rows are less likely after
        them than at the start. With a `tol` of 1e-4 or less (not 0), 1,000 rows or more, and three components or more,
        one move (see `n_moves`) is tried; it is kept if EM then converges higher. None is plain EM on all rows, step
        for step scikit-learn's.
    limit_tol : float, default=None
        Beyond scikit-learn. A small rise is not a small distance: to have converged, the limit of the mean
        log-likelihood must also be so near, in nats per row, by the estimate that is `remaining_`.
    n_moves : int, default=0
        Beyond scikit-learn. How often to try to leave the optimum that EM has found: two components are merged and a
        third, if there is one, is split. Where EM ends from there, after at most `max_iter` iterations, is kept if the
        likelihood is higher.
    prior : ConjugatePrior, default=None
        Beyond scikit-learn. A prior of means and covariances, for all models but "VEE", "EVE", "VVE" and "EVV": the fit
        finds the parameters of highest posterior density, and `lower_bound_` has the prior's logarithm in it. None is
        maximum likelihood.
    callback : callable, default=None
        Beyond scikit-learn. Called after every pass over all rows, but for the short runs of starts and moves, as
        ``callback(n_iter, lower_bound, parameters)``, `parameters` with arrays `weights`, `means` and `covariances`; if
        it returns something true, the fit ends there, with what it has.
    checkpoint : path, default=None
        Beyond scikit-learn. A file to keep the fit's state in, after every pass over all rows but those that try moves:
        `resume` continues a fit that was killed. The file must not exist yet, or be a checkpoint; anything else is
        refused before the fit starts. A new `fit` replaces an older state after its first pass. Use one file for each
        fit: fits that share one (`GridSearchCV`, `cross_val_score`) overwrite each other's state, and `resume` refuses
        the state of other rows or parameters. `MixtureSearch` and the bootstrap keep no state, and call no `callback`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
    means_ : ndarray of shape (n_components, n_features)
    covariances_ : ndarray
        Of shape (n_components, n_features, n_features) for "full", (n_features, n_features) for "tied", (n_components,
        n_features) for "diag", (n_components,) for "spherical"; models "..I" are stored like the last two, "EEE" as
        "tied", all others as "full".
    precisions_ : ndarray
        Inverses of the covariances, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular P with ``precision = P @ P.T``; inverse standard deviations for "diag" and "spherical".
    converged_ : bool
        Whether the last EM step of the best fit changed the mean log-likelihood by less than `tol`.
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
        "acceleration": [StrOptions(set(ACCELERATIONS)), None],
        "limit_tol": [Interval(Real, 0.0, None, closed="neither"), None],
        "n_moves": [Interval(Integral, 0, None, closed="left")],
        "prior": [ConjugatePrior, None],
        "callback": [callable, None],
    }
    _objective = (*BaseMixture._objective, "prior")

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
        prior=None,
        callback=None,
        checkpoint=None,
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
    ) -> GaussianMixture:
        """A fitted estimator with these parameters, without any rows.

        Parameters
        ----------
        weights : array-like of shape (n_components,)
            Sum to one.
        means : array-like of shape (n_components, n_features)
        covariances : array-like
            In the shape of `covariances_`.
        covariance_type : str, default="full"
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
        estimator._set_fitted(parameters, EMResult(parameters), means.dtype)
        estimator.n_features_in_ = means.shape[1]
        return estimator

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Bayesian information criterion, ``-2 log L + p log n``; the lower the better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts; n is their sum.
        """
        return self._bic(self._to_predict(X, sample_weight))

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Akaike information criterion, ``-2 log L + 2 p``; the lower the better. Parameters as for `bic`."""
        return -2 * self._log_likelihood(self._to_predict(X, sample_weight)) + 2 * self._n_parameters()

    def icl(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Integrated completed likelihood, ``BIC - 2 sum_i log max_k r_ik``; the lower the better.

        BIC with a penalty for rows that no component claims for itself (Biernacki, Celeux & Govaert, 2000, IEEE TPAMI
        22, in the form that mclust computes, with the sign of `bic`). Parameters as for `bic`.
        """
        source = self._to_predict(X, sample_weight)
        return self._bic(source) - 2 * self._total(log_highest_resp, source)

    def _bic(self, source: Source) -> float:
        return -2 * self._log_likelihood(source) + self._n_parameters() * math.log(source.total_weight)

    def _n_parameters(self) -> int:
        """Number of free parameters."""
        parameters = self._parameters()
        return parameters.model.n_parameters(parameters.n_components, parameters.n_features)

    def _best_run(
        self,
        source: Source,
        checkpoint: CheckpointStore | None,
        resumed: CheckpointState | None,
        progress: PrintProgress,
    ) -> EMResult:
        """Run EM from each start and return the best result."""
        asked = PlainParameters(self)
        given = check_given(asked, source.n_features)
        if self.resp_init is not None:
            given["resp"] = self._check_resp(source)
        earlier = self._earlier_fit(source.n_features)
        objective = self._make_objective(source, asked)
        options = FitOptions(
            objective,
            asked.tol,
            asked.max_iter,
            limit_tol=math.inf if self.limit_tol is None else asked.limit_tol,
            acceleration=None if self.acceleration is None else ACCELERATIONS[asked.acceleration],
            n_moves=asked.n_moves,
            checkpoint=checkpoint,
        )
        starts = Starts(
            asked.n_components, objective, asked.init_params, whiten=bool(self.whiten_init), user_start=given
        )
        if resumed is not None:
            return schedule.resume(source, resumed, options, progress)
        if earlier is not None:
            start, bound = earlier, float(getattr(self, "lower_bound_", -math.inf))
            if not self._is_same_objective():
                statistics = mixture_statistics(earlier, source.total_weight, asked.covariance_type)
                start, bound = objective.from_moments(statistics), -math.inf
            return schedule.continue_from(source, start, options, progress, bound)
        return schedule.fit(source, starts, options, n_init=asked.n_init, seeds=self._seeds(), observer=progress)

    def _make_objective(self, source: Source, asked: PlainParameters) -> Objective:
        """Return what the fit raises."""
        if self.prior is None:
            return MaximumLikelihood(asked.covariance_type, asked.reg_covar)
        prior = self.prior.resolved(source, get_model(asked.covariance_type), asked.n_components)
        return ConjugatePosterior(prior, asked.covariance_type, asked.reg_covar)

    def _check_resp(self, source: Source) -> Any:
        """`resp_init` as the source takes it."""
        return check_resp(self.resp_init, source.n_samples, plain(self.n_components))

    def _unmet(self, result: EMResult) -> str:
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
