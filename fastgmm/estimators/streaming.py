"""`StreamingGaussianMixture`: a mixture learnt from rows that come and go, by `partial_fit`."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from fastgmm._warnings import warn_user
from fastgmm.covariance import COVARIANCE_TYPES, IllDefinedCovarianceError, get_model
from fastgmm.data.block_source import BlockSource
from fastgmm.data.conversion import check_sample_weight, validate_data
from fastgmm.data.sources import ArraySource, Weights
from fastgmm.fitting.forgetting import ForgettingSchedule
from fastgmm.fitting.row_stream import RowStream, StreamOptions, default_sizes
from fastgmm.fitting.stepwise import StepwiseEM
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.m_step.model_conversion import convert
from fastgmm.mixture.parameters import MixtureParameters

from .base import ILL_DEFINED, BaseMixture, DegenerateComponentWarning
from .fitted import FittedMixture, best_of, fitted_parameters, unchanged_on_error
from .gaussian_mixture import GaussianMixture
from .streaming_attributes import LearntMixture, described
from .validation import PlainParameters, check_enough_rows, plain

# A block of which all rows have weight 0 is part of a stream; older versions of scikit-learn let it pass unasked.
ZERO = "allow_all_zero_weights"
ALLOW_ZERO = {ZERO: True} if ZERO in inspect.signature(_check_sample_weight).parameters else {}

# How first rows are fitted. What EM has not done there one pass of a stream cannot make good: with tol=1e-3 twelve
# problems ended 0.0000 to 0.28 nats per row lower on held-out rows (0.003 in the median), with 1e-5 ten like this.
START = {"tol": 1e-4, "max_iter": 1000}


# Parameters that other estimators have too.
SHARED_PARAMETERS = ("n_components", "reg_covar", "init_params", "n_init", "random_state", "n_jobs")


class StreamingGaussianMixture(LearntMixture):
    """Gaussian mixture learnt from a stream of rows, by stepwise expectation-maximisation.

    Rows come by `partial_fit`, in blocks of any size, and each is read once. The first `init_size` are kept and fitted
    as `GaussianMixture` would with ``tol=1e-4``; from then on every `batch_size` rows are one step: the running
    statistics s become ``s + g (s_batch - s)``, with ``g = t^-learning_decay`` and t the rows so far over `batch_size`
    (Cappé & Moulines, 2009, Journal of the Royal Statistical Society B 71), and the parameters are the M-step of s. The
    model depends on the rows and on their order, to the last bit, and not on how they were cut into blocks: whenever it
    is looked at, rows that are no full batch yet are learnt as a smaller one, for the look alone.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type : str, default="full"
        As for `GaussianMixture`.
    reg_covar : float, default=1e-6
        Added to every variance.
    batch_size : int, default=None
        Rows of a step. Smaller batches are more steps, which learn faster and forget faster. None is the number of free
        parameters, at least 100, and at most `init_size` and half a `half_life`.
    init_size : int, default=None
        Rows of the start. None is 20 for each free parameter, and at least 10,000, and 256 a component, but no more
        than four half-lives, or take 32 MB. A stream that ends before has the exact fit.
    learning_decay : float, default=0.7
        Above 0.5 and at most 1. Rows are forgotten as the model that learnt from them is outdone: m of them count as
        ``m (m / batch_size)^(learning_decay - 1)``. With 1 all rows count alike for ever, which learns slowly.
    half_life : float, default=None
        For streams that drift: rows count half as much after so many rows more, on top of `learning_decay`. None is
        never. At least `n_components`, and in practice some hundred times as many.
    init_params, n_init : default="kmeans", 1
        How the start is made, as for `GaussianMixture`.
    shuffle : bool, default=True
        Whether `fit` takes the rows in random order. `partial_fit` takes them as they come: a stream that is sorted is
        learnt badly.
    random_state, n_jobs : default=None
        As for `GaussianMixture`; the seed is also that of the order of `fit`.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        As those of `GaussianMixture`; of all rows so far, computed when they are asked for. float32 as long as all rows
        were.
    lower_bound_ : float
        Mean log-likelihood of the rows since the start, in nats, each under the parameters before it was learnt, and
        forgotten as it is; until there are any, of the rows of the start.
    statistics_ : SufficientStatistics
        Of all rows so far, each as much as it still counts. They add.
    n_samples_seen_ : int
        Rows so far, but for those of weight 0.
    n_steps_ : int
        Batches since the start.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if the rows had feature names that are all strings.

    Notes
    -----
    A row of weight w counts in its batch as w copies of it, and one of weight 0 not at all; `batch_size`, `init_size`
    and `half_life` count rows whatever their weights, whose unit may be anyone's. A component from which rows have
    drifted away keeps its mean and covariance, and loses its weight. Fewer than `n_components` rows, or two, are no
    model yet. Before the start every look at the model is a fit of the rows so far. Models add: see `fork`.

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

    _parameter_constraints: ClassVar[dict] = {
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
        n_components=1,
        *,
        covariance_type="full",
        reg_covar=1e-6,
        batch_size=None,
        init_size=None,
        learning_decay=0.7,
        half_life=None,
        init_params="kmeans",
        n_init=1,
        shuffle=True,
        random_state=None,
        n_jobs=None,
    ):
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
    def from_mixture(cls, mixture: Any, n_samples: float, **options: Any) -> Self:
        """A stream that goes on from a fitted mixture.

        Parameters
        ----------
        mixture : GaussianMixture or BayesianGaussianMixture, or a search such as MixtureSearch
            fastgmm's or scikit-learn's, fitted. Of a search its best estimator is taken.
        n_samples : float
            As how many rows it counts: those it was fitted to, or fewer.
        **options
            Other parameters of the constructor. With another `covariance_type` the stream begins with the mixture of
            that type that rows of `mixture` would be given.

        Raises
        ------
        TypeError
            If `mixture` is no mixture.
        ValueError
            If `n_samples` is not positive and finite.

        Examples
        --------
        >>> from fastgmm import GaussianMixture, StreamingGaussianMixture
        >>> known = GaussianMixture.from_parameters([1.0], [[0.0]], [[[1.0]]])
        >>> StreamingGaussianMixture.from_mixture(known, 9).partial_fit([[1.0]]).means_
        array([[0.1]])
        """
        if isinstance(mixture, BaseEstimator):
            check_is_fitted(mixture)
        mixture = best_of(mixture)
        if not isinstance(mixture, BaseEstimator) or not hasattr(mixture, "covariance_type"):
            raise TypeError(
                "mixture must be a fitted GaussianMixture or BayesianGaussianMixture, or a fitted search for one, got "
                f"{type(mixture).__name__}."
            )
        n_samples = plain(n_samples)
        if not (isinstance(n_samples, int | float) and 0 < n_samples < math.inf):
            raise ValueError(
                f"n_samples must be a number of rows above 0 and finite, got {n_samples!r}. Give the number of rows "
                "that the mixture was fitted to, or fewer."
            )
        own = mixture._parameters() if isinstance(mixture, FittedMixture) else fitted_parameters(mixture)
        options = {"covariance_type": own.covariance_type, "reg_covar": mixture.reg_covar, **options}
        stream = cls(own.n_components, **options)
        stream._check_parameters()
        parameters = convert(own, plain(stream.covariance_type))
        bound = float(getattr(mixture, "lower_bound_", math.nan))
        bound = bound if math.isfinite(bound) else 0.0  # it may have seen no rows
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(mixture, name):
                setattr(stream, name, getattr(mixture, name))
        model = StepwiseEM.from_parameters(parameters, n_samples, bound, plain(stream.reg_covar))
        dtype = np.float32 if np.asarray(mixture.means_).dtype == np.float32 else np.float64
        stream._stream = stream._new_stream(parameters.n_features).with_model(model, np.dtype(dtype))
        return stream

    def partial_fit(self, X: ArrayLike | BlockSource, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn some more rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or rows
            From one row on; they are not kept, but for those that are no full batch yet. float32 stays float32,
            everything else becomes float64. With `fastgmm.rows` they are read from files, block after block.
        y : ignored
        sample_weight : array-like of shape (n_samples,), optional
            How often each row counts.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If rows or weights are not finite, or have other features than before; if `n_components` or
            `covariance_type` have changed since the first rows. The estimator stays as it was. Also if a component
            collapses: then the rows since the last full batch are dropped too, since they may be why.
        """
        try:
            with unchanged_on_error(self):
                self._partial_fit(X, sample_weight)
        except IllDefinedCovarianceError as error:
            if hasattr(self, "_stream") and self._stream.model is not None:
                self._stream = self._stream.with_model(self._stream.model, self._stream.dtype)
            raise ValueError(f"{ILL_DEFINED} Here {error.describe()}.") from None
        return self

    def _partial_fit(self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None) -> None:
        self._check_parameters()
        begun = hasattr(self, "_stream")
        blocks = self._blocks(X, sample_weight, reset=not begun)
        for rows, weights in blocks:
            stream = self._stream if hasattr(self, "_stream") else self._new_stream(rows.shape[1], rows.dtype)
            self._check_same_model(stream)
            stream = replace(stream, options=self._rules(rows.shape[1], stream.options.seed))
            with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore"):
                self._stream = stream.fed(rows, weights)

    def _blocks(
        self, X: ArrayLike | BlockSource, sample_weight: ArrayLike | None, *, reset: bool
    ) -> Iterator[tuple[NDArray, Weights]]:
        """Rows and weights, validated, in one block if they are in memory."""
        if isinstance(X, BlockSource):
            for rows, weights in self._block_source(X, sample_weight, reset=reset).blocks():
                yield np.array(rows, order="C"), None if weights is None else weights.copy()
            return
        X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True, **ALLOW_ZERO)
        yield X, weights

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Forget everything, and learn these rows, each once, in random order if `shuffle`.

        Parameters, result and errors as for `partial_fit`; rows that are read from files are taken in their order.
        `GaussianMixture` reads rows that are all here as often as it takes, and so fits them better.
        """
        with unchanged_on_error(self):
            if isinstance(X, BlockSource):
                self.__dict__.pop("_stream", None)
                self._partial_fit(X, sample_weight)
                self._now(warn=True)
            else:
                self._fit(X, sample_weight)
        return self

    def fit_predict(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> NDArray[np.int64]:
        """Fit, and predict the most probable component of each row. Parameters as for `fit`, result as of `predict`."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def _fit(self, X: ArrayLike, sample_weight: ArrayLike | None) -> None:
        self._check_parameters()
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        weights = self._sample_weight(sample_weight, X)
        check_enough_rows(ArraySource(X, weights), plain(self.n_components))
        stream = self._new_stream(X.shape[1], X.dtype)
        order = np.random.default_rng(stream.options.seed).permutation(len(X)) if self.shuffle else np.arange(len(X))
        with thread_limit(self.n_jobs), np.errstate(over="ignore", invalid="ignore"), described():
            for begin in range(0, len(X), stream.options.init_size):
                some = order[begin : begin + stream.options.init_size]
                stream = stream.fed(X[some], None if weights is None else weights[some])
        self._stream = stream
        self._now(warn=True)

    def fork(self) -> Self:
        """A copy whose rows so far are a past that it shares with other forks of this model, for models to be added.

        ``a + b`` of two forks, each of which has learnt rows of its own since, on different machines perhaps, counts
        the past once: its statistics are those of the past, of a's rows and of b's, added. Sums can be added to further
        forks, ``sum(forks)``; for the next round make forks of the sum. With `learning_decay` below 1, or `half_life`,
        the past counts by the product of what each has left of it. Models that are no forks add as long as they began
        from the same start and then learnt different rows.

        Returns
        -------
        StreamingGaussianMixture

        Examples
        --------
        >>> import numpy as np
        >>> from fastgmm import StreamingGaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(3000, 1))
        >>> parent = StreamingGaussianMixture(init_size=1000, learning_decay=1).partial_fit(X[:1000])
        >>> one, other = parent.fork().partial_fit(X[1000:1700]), parent.fork().partial_fit(X[1700:])
        >>> (one + other).statistics_.total_weight
        3000.0
        """
        model, fork = self._now().fork(), copy.copy(self)
        fork._stream = self._stream.with_model(model, self._stream.dtype)
        return fork

    def __add__(self, other: object) -> Self:
        if not isinstance(other, StreamingGaussianMixture):
            return NotImplemented
        for name in ("n_components", "covariance_type", "n_features_in_", "feature_names_in_"):
            ours, theirs = (getattr(model, name, None) for model in (self, other))
            if not np.array_equal(np.asarray(ours), np.asarray(theirs)):
                raise ValueError(f"two models add only if they have the same {name}, but have {ours!r} and {theirs!r}")
        ours, theirs = self._now(), other._now()
        both = copy.copy(self)
        dtype = np.result_type(self._stream.dtype, other._stream.dtype)
        with described():
            model = ours.merged(theirs, reg_covar=plain(self.reg_covar))
        both._stream = self._stream.with_model(model, dtype)
        return both

    def __radd__(self, other: object) -> Self:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum() starts from 0

    def _check_parameters(self) -> None:
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        resolve_n_jobs(self.n_jobs)
        if self.init_size is not None and self.init_size < self.n_components:
            raise ValueError(f"init_size should be at least n_components={self.n_components}, but is {self.init_size}")
        if self.half_life is not None and self.half_life < self.n_components:
            raise ValueError(
                f"half_life should be at least n_components={self.n_components}, for each component to have rows, but "
                f"is {self.half_life}"
            )

    def _check_same_model(self, stream: RowStream) -> None:
        """The mixture that is asked for is the one that the stream has."""
        for name in ("n_components", "covariance_type"):
            asked, begun = getattr(self, name), stream.options.options[name]
            if asked != begun:
                raise ValueError(
                    f"{name} is {asked!r} now, but was {begun!r} when the first rows came. Set it back to go on, or "
                    "call fit, or use a clone of the estimator, to begin anew."
                )

    def _new_stream(self, n_features: int, dtype: DTypeLike = np.float32) -> RowStream:
        """A stream that nothing has come from yet."""
        get_model(self.covariance_type).check_features(n_features)
        seed = self.random_state
        if not isinstance(seed, Integral):  # drawn once, for looks at the model to change nothing
            seed = check_random_state(seed).randint(2**31 - 1)
        return RowStream(self._rules(n_features, int(seed)), np.dtype(dtype))

    def _rules(self, n_features: int, seed: int) -> StreamOptions:
        """What the stream is learnt by from now on."""
        asked = PlainParameters(self)
        half_life = math.inf if self.half_life is None else float(self.half_life)
        n_parameters = get_model(asked.covariance_type).n_parameters(asked.n_components, n_features)
        init_size, batch_size = default_sizes(asked.n_components, n_features, n_parameters, half_life)
        init_size = init_size if self.init_size is None else asked.init_size
        batch_size = min(batch_size, init_size) if self.batch_size is None else asked.batch_size
        names = ("n_components", "covariance_type", "reg_covar", "init_params", "n_init")
        options = {"random_state": seed, **{name: getattr(asked, name) for name in names}}
        pace = ForgettingSchedule(batch_size, asked.learning_decay, half_life)
        return StreamOptions(pace, init_size, max(2, asked.n_components), asked.reg_covar, seed, _start, options)


def _start(X: NDArray, sample_weight: NDArray[np.float64] | None, **options: Any) -> MixtureParameters:
    """The fit of the first rows."""
    model = GaussianMixture(**START, **options)
    with warnings.catch_warnings():
        # It need not converge: the steps go on from there.
        warnings.simplefilter("ignore", ConvergenceWarning)
        parameters = model.fit(X, sample_weight=sample_weight)._parameters()
    degenerate = model._degenerate(parameters)
    if degenerate:
        warn_user(" ".join(degenerate), DegenerateComponentWarning)
    return parameters
