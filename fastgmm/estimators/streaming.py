"""`StreamingGaussianMixture`: a mixture of rows that arrive in blocks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastgmm.covariance import COVARIANCE_TYPES, IllDefinedCovarianceError, get_model
from fastgmm.data.block_source import BlockSource
from fastgmm.data.conversion import check_sample_weight, validate_data
from fastgmm.data.sources import ArraySource, Weights
from fastgmm.fitting.row_stream import RowStream
from fastgmm.fitting.stepwise import StepwiseEM
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.m_step.model_conversion import convert

from .annotations import RandomState, RowsLike
from .base import BaseMixture
from .fitted import FittedMixture, best_of, unchanged_on_error
from .fitted_parameters import fitted_parameters
from .messages import ILL_DEFINED
from .streaming_addition import AddableMixture
from .streaming_attributes import collapse_described
from .streaming_options import check_sizes, stream_options
from .validation import check_enough_rows, plain

# A block whose rows all have weight 0 is valid. Older versions of scikit-learn accept it without this option.
ZERO = "allow_all_zero_weights"
ALLOW_ZERO = {ZERO: True} if ZERO in inspect.signature(_check_sample_weight).parameters else {}

# Parameters that other estimators also have.
SHARED_PARAMETERS = ("n_components", "reg_covar", "init_params", "n_init", "random_state", "n_jobs")


class StreamingGaussianMixture(AddableMixture):
    """Gaussian mixture of a stream of rows, learnt by stepwise EM.

    `partial_fit` takes rows in blocks of any size and reads each row once. The first `init_size` rows are fitted like a
    `GaussianMixture` with ``tol=1e-4``. Then every `batch_size` rows are one step [1]_, which replaces the running
    statistics s by ``s + g (s_batch - s)`` and the parameters by the M-step of s. Here ``g = t^-learning_decay``, where
    t is the number of rows so far divided by `batch_size`.

    The model depends on the rows and their order, and not on how they are divided into blocks: results are bit for bit
    equal. Rows that do not fill a batch are buffered; fitted attributes include them, as a smaller batch.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : str, default="full"
        Model of the covariances; see `GaussianMixture`.
    reg_covar : float, default=1e-6
        Added to every variance.
    batch_size : int, default=None
        Number of rows of a step. Smaller batches learn and forget faster. None is the number of free parameters, at
        least 100, at most `init_size` and half of `half_life`.
    init_size : int, default=None
        Number of rows of the start. None is the largest of 10,000, 256 per component and 20 per free parameter, but at
        most four half-lives, and at most 32 MB. A stream that ends earlier has the exact fit of its rows.
    learning_decay : float, default=0.7
        How fast rows are forgotten, above 0.5 and at most 1. After m rows the past counts as
        ``m (m / batch_size)^(learning_decay - 1)`` rows. With 1 all rows count equally, which learns slowly.
    half_life : float, default=None
        Number of further rows after which a row counts half as much, in addition to `learning_decay`. It is for streams
        that drift. It must be at least `n_components`, and should be some hundred times as large. None is no half-life.
    init_params : {"kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"}, default="kmeans"
        How the start is made; see `GaussianMixture`.
    n_init : int, default=1
        Number of starts; see `GaussianMixture`.
    shuffle : bool, default=True
        Whether `fit` takes the rows in random order. `partial_fit` takes them in their order; a sorted stream is learnt
        badly.
    random_state : int, RandomState instance or None, default=None
        Seed of the start, of the order of `fit`, and of `sample`.
    n_jobs : int, default=None
        Number of threads; see `GaussianMixture`.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Weights of the components. This and the next four attributes are computed from all rows so far when they are
        read. They are float32 as long as all rows were float32.
    means_ : ndarray of shape (n_components, n_features)
        Means of the components.
    covariances_ : ndarray
        Covariances, in the shape that they have in `GaussianMixture`.
    precisions_ : ndarray
        Inverses of the covariances, in the same shape.
    precisions_cholesky_ : ndarray
        Upper triangular factors P with ``precision = P @ P.T``.
    lower_bound_ : float
        Mean log-likelihood of the rows since the start, in nats per row: of each row under the parameters before it was
        learnt, with the weights that forgetting gives. Before any such row, that of the rows of the start.
    statistics_ : SufficientStatistics
        Statistics of all rows so far, after forgetting. They can be added.
    n_samples_seen_ : int
        Number of rows so far, without those of weight 0.
    n_steps_ : int
        Number of batches since the start.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, if all are strings.

    See Also
    --------
    GaussianMixture : Exact fit, which reads all rows several times.
    rows : Rows in files, which a `GaussianMixture` reads block by block.
    DaskGaussianMixture : Exact fit of rows on a Dask cluster.

    Notes
    -----
    A row of weight w counts as w copies in its batch; a row of weight 0 does not count. `batch_size`, `init_size` and
    `half_life` count rows, not weights, so the unit of the weights is free. If no more rows belong to a component, it
    keeps its mean and covariance and loses its weight. A model needs at least two rows, and at least `n_components`.
    Before the start is complete, every read of an attribute fits the rows so far. Models can be added; see `fork`.

    References
    ----------
    .. [1] O. Cappé and E. Moulines (2009). On-line expectation-maximization algorithm for latent data models. Journal
       of the Royal Statistical Society B 71.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import StreamingGaussianMixture
    >>> rng = np.random.default_rng(0)
    >>> sgm = StreamingGaussianMixture(n_components=2, init_size=1000, random_state=0)
    >>> for _ in range(50):
    ...     block = rng.normal(size=(700, 1)) + 6 * rng.integers(0, 2, size=(700, 1))
    ...     sgm = sgm.partial_fit(block)
    >>> np.sort(sgm.means_, axis=0).round(1) + 0.0
    array([[0.],
           [6.]])
    >>> sgm.n_samples_seen_
    35000
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{name: BaseMixture._parameter_constraints[name] for name in SHARED_PARAMETERS},
        "covariance_type": [StrOptions(set(COVARIANCE_TYPES))],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "init_size": [Interval(Integral, 2, None, closed="left"), None],
        "learning_decay": [Interval(Real, 0.5, 1.0, closed="right")],
        "half_life": [Interval(Real, 1.0, None, closed="left"), None],
        "shuffle": ["boolean"],
    }

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        reg_covar: float = 1e-6,
        batch_size: int | None = None,
        init_size: int | None = None,
        learning_decay: float = 0.7,
        half_life: float | None = None,
        init_params: str = "kmeans",
        n_init: int = 1,
        shuffle: bool = True,
        random_state: RandomState = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.batch_size = batch_size
        self.init_size = init_size
        self.learning_decay = learning_decay
        self.half_life = half_life
        self.init_params = init_params
        self.n_init = n_init
        self.shuffle = shuffle
        self.random_state = random_state
        self.n_jobs = n_jobs

    @classmethod
    def from_mixture(cls, mixture: BaseEstimator, n_samples: float, **options: Any) -> Self:
        """Make a stream that continues from a fitted mixture.

        Parameters
        ----------
        mixture : GaussianMixture, BayesianGaussianMixture, or a search such as MixtureSearch
            A fitted mixture of fastgmm or scikit-learn, or a fitted search, whose best estimator is taken.
        n_samples : float
            Number of rows that the mixture counts as: those that it was fitted to, or fewer.
        **options : dict
            Other parameters of the constructor. With another `covariance_type` the stream starts from the mixture of
            that type that best fits rows of `mixture`.

        Returns
        -------
        StreamingGaussianMixture
            A stream with the parameters of the mixture.

        Raises
        ------
        TypeError
            If `mixture` is not a mixture.
        ValueError
            If `n_samples` is not positive and finite.

        Examples
        --------
        >>> from fastgmm import GaussianMixture, StreamingGaussianMixture
        >>> mixture = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> StreamingGaussianMixture.from_mixture(mixture, 9).partial_fit([[1.0]]).means_
        array([[0.1]])
        """
        if isinstance(mixture, BaseEstimator):
            check_is_fitted(mixture)
        best: Any = best_of(mixture)
        if not isinstance(best, BaseEstimator) or not hasattr(best, "covariance_type"):
            raise TypeError(
                "mixture must be a fitted GaussianMixture or BayesianGaussianMixture, or a fitted search for one, got "
                f"{type(best).__name__}."
            )
        n_samples = plain(n_samples)
        if not (isinstance(n_samples, int | float) and 0 < n_samples < math.inf):
            raise ValueError(
                f"n_samples must be a number of rows above 0 and finite, got {n_samples!r}. Give the number of rows "
                "that the mixture was fitted to, or fewer."
            )
        fitted = best._parameters() if isinstance(best, FittedMixture) else fitted_parameters(best)
        options = {"covariance_type": fitted.covariance_type, "reg_covar": best.reg_covar, **options}
        stream = cls(fitted.n_components, **options)
        stream._check_parameters()
        parameters = convert(fitted, plain(stream.covariance_type))
        bound = float(getattr(best, "lower_bound_", math.nan))
        bound = bound if math.isfinite(bound) else 0.0  # a mixture made from parameters has no bound
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(best, name):
                setattr(stream, name, getattr(best, name))
        model = StepwiseEM.from_parameters(parameters, n_samples, bound, plain(stream.reg_covar))
        dtype = np.float32 if np.asarray(best.means_).dtype == np.float32 else np.float64
        stream._stream = stream._new_stream(parameters.n_features).with_model(model, np.dtype(dtype))
        return stream

    def partial_fit(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the next rows of the stream.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            One or more rows. Only rows that do not fill a batch are kept in memory. float32 rows stay float32, all
            others become float64. `fastgmm.rows` are read block by block.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self
            The estimator.

        Raises
        ------
        ValueError
            If rows or weights are not finite, if the rows have other features than before, or if `n_components` or
            `covariance_type` has changed since the first rows; then the estimator does not change. Also if a component
            collapses; then the rows since the last full batch are discarded, since they may be the cause.
        """
        try:
            with unchanged_on_error(self):
                self._partial_fit(X, sample_weight)
        except IllDefinedCovarianceError as error:
            if hasattr(self, "_stream") and self._stream.model is not None:
                self._stream = self._stream.with_model(self._stream.model, self._stream.dtype)
            raise ValueError(f"{ILL_DEFINED} Here {error.describe()}.") from None
        return self

    def _partial_fit(self, X: RowsLike, sample_weight: ArrayLike | None) -> None:
        self._check_parameters()
        has_begun = hasattr(self, "_stream")
        for rows, weights in self._blocks(X, sample_weight, reset=not has_begun):
            stream = self._stream if hasattr(self, "_stream") else self._new_stream(rows.shape[1], rows.dtype)
            self._check_same_model(stream)
            stream = replace(stream, options=stream_options(self, rows.shape[1], stream.options.seed))
            with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore"):
                self._stream = stream.fed(rows, weights)

    def _blocks(
        self, X: RowsLike, sample_weight: ArrayLike | None, *, reset: bool
    ) -> Iterator[tuple[NDArray[Any], Weights]]:
        """Yield validated rows and weights: one block if they are in memory."""
        if isinstance(X, BlockSource):
            for rows, weights in self._block_source(X, sample_weight, reset=reset).blocks():
                yield np.array(rows, order="C"), None if weights is None else weights.copy()
            return
        rows = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True, **ALLOW_ZERO)
        yield rows, weights

    def fit(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Forget all rows so far and learn these, each once.

        Rows in memory are taken in random order if `shuffle` is True, rows from files in their order. For rows that are
        all at hand `GaussianMixture` gives a better fit, since it reads them several times.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to learn; see `partial_fit`.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is invalid, if rows or weights are not finite or too few, or if a component collapses. The
            estimator does not change.

        Warns
        -----
        DegenerateComponentWarning
            If a component of the start is empty or has collapsed.
        """
        with unchanged_on_error(self):
            if isinstance(X, BlockSource):
                self.__dict__.pop("_stream", None)
                self._partial_fit(X, sample_weight)
                self._now(warn=True)
            else:
                self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: RowsLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit the mixture and predict the most probable component of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or fastgmm.rows
            Rows to learn and to label.
        y : None
            Ignored, present for scikit-learn's API.
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts; see `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            Components, numbered from 0.

        Raises
        ------
        ValueError
            See `fit`.
        """
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self._check_parameters()
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, rows)
        check_enough_rows(ArraySource(rows, weights), plain(self.n_components))
        stream = self._new_stream(rows.shape[1], rows.dtype)
        n_rows, init_size = len(rows), stream.options.init_size
        order = np.random.default_rng(stream.options.seed).permutation(n_rows) if self.shuffle else np.arange(n_rows)
        with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore"), collapse_described():
            for begin in range(0, n_rows, init_size):
                indices = order[begin : begin + init_size]
                stream = stream.fed(rows[indices], None if weights is None else weights[indices])
        self._stream = stream
        self._now(warn=True)

    def _check_parameters(self) -> None:
        """Raise ValueError if a parameter of the constructor is invalid."""
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        resolve_n_jobs(self.n_jobs)
        check_sizes(self)

    def _check_same_model(self, stream: RowStream) -> None:
        """Raise ValueError if the kind of mixture has changed since the first rows."""
        for name in ("n_components", "covariance_type"):
            present, first = getattr(self, name), stream.options.options[name]
            if present != first:
                raise ValueError(
                    f"{name} is {present!r} now, but was {first!r} when the first rows came. Set it back to continue, "
                    "or call fit, or use a clone of the estimator, to start anew."
                )

    def _new_stream(self, n_features: int, dtype: DTypeLike = np.float32) -> RowStream:
        """Return a stream without rows."""
        get_model(self.covariance_type).check_features(n_features)
        seed = self.random_state
        if not isinstance(seed, Integral):  # drawn once, so that reading an attribute does not change the model
            seed = check_random_state(seed).randint(2**31 - 1)
        return RowStream(stream_options(self, n_features, int(seed)), np.dtype(dtype))
