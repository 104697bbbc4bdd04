"""Many mixtures at once: one for each gene, sensor, speaker or pixel."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed

from fastgmm._warnings import warn_user
from fastgmm.covariance import get_model
from fastgmm.data.conversion import check_array, column_labels, feature_names
from fastgmm.data.sources import ArraySource, count_rows
from fastgmm.estimators.fitted import replicate_of
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.fitting import many as fitting_many
from fastgmm.fitting.many import RowParts, is_many
from fastgmm.fitting.options import UNACCELERATED_TOL, FitOptions
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood

from .many_fits import Batch, ManyFits

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
# Parameters of a `GaussianMixture` with which small problems are fitted together, and their values.
PLAIN_OPTIONS = {
    "init_params": "kmeans", "n_init": 1, "prior": None, "weights_init": None, "means_init": None,
    "precisions_init": None, "resp_init": None, "whiten_init": False, "n_moves": 0, "checkpoint": None,
    "callback": None, "verbose": 0, "warm_start": False,
}  # fmt: skip


class Problem(NamedTuple):
    """The rows of one fit, and their weights."""

    rows: Any
    sample_weight: Any = None


class Member(NamedTuple):
    """A problem that is fitted together with others: its position, rows and weights."""

    position: int
    rows: NDArray[Any]
    sample_weight: NDArray[Any] | None


def fit_many(
    problems: Any,
    estimator: GaussianMixture,
    *,
    groups: ArrayLike | None = None,
    sample_weight: Any = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> ManyFits:
    """Fit one mixture to each of many sets of rows.

    Each fit is that of ``clone(estimator).fit(rows)``. Small problems with plain options are fitted together in
    compiled code, one problem per thread at a time. Other problems are fitted one by one, in threads.

    Parameters
    ----------
    problems : list of array-likes, array of shape (n_problems, n_samples, n_features), array-like or groupby
        Rows of each problem, of shape (n_samples, n_features); the numbers of rows may differ. With `groups`, the rows
        of all problems in one array or data frame. Or a pandas ``groupby``.
    estimator : GaussianMixture
        All parameters of the fits. If its `random_state` is an integer, each fit uses it; otherwise each fit has its
        own seed.
    groups : array-like of shape (n_samples,), optional
        The group of each row; each group is a problem, in the order of the sorted groups.
    sample_weight : optional
        Weights of the rows, in the form of the problems: a list of arrays, an array of shape (n_problems, n_samples),
        or with `groups` an array of shape (n_samples,).
    n_jobs : int, optional
        Number of threads. None is Numba's own setting; -1 is all cores.
    progress : bool, default=False
        Whether to show a progress bar, which needs the package rich.

    Returns
    -------
    ManyFits
        A sequence of fitted estimators, with stacked arrays of their parameters. A problem that cannot be fitted does
        not stop the others: its error is in `errors`.

    Raises
    ------
    TypeError
        If `estimator` is not a `GaussianMixture`.
    ValueError
        If a parameter is invalid, there are no problems, or groups or weights do not fit the problems.

    Warns
    -----
    ConvergenceWarning
        If some fits did not converge, with their number.

    See Also
    --------
    GaussianMixture : Estimator of one mixture.
    MixtureSearch : Many mixtures of the same rows.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, fit_many
    >>> X = np.array([[0.0], [1.0], [9.0], [10.0], [5.0], [6.0], [7.0], [8.0]])
    >>> fits = fit_many(X, GaussianMixture(), groups=["a"] * 4 + ["b"] * 4)
    >>> fits.keys, fits.means_.ravel().tolist()
    (['a', 'b'], [5.0, 6.5])
    """
    if not isinstance(estimator, GaussianMixture):
        raise TypeError(f"estimator must be a fastgmm.GaussianMixture, got {type(estimator).__name__}.")
    estimator._check_options()
    resolve_n_jobs(n_jobs)
    keys, given = _problems(problems, groups, sample_weight)
    if not given:
        raise ValueError("problems must contain at least one problem, got none.")
    template = replicate_of(estimator)
    fits = ManyFits(keys, template)
    states = _random_states(template, len(given))
    with _progress_bar(len(given), progress) as advance:
        alone = _fit_together(fits, given, states, n_jobs, advance)
        _fit_alone(fits, given, states, alone, n_jobs, advance)
    _warn_of(fits)
    return fits


def _problems(problems: Any, groups: ArrayLike | None, sample_weight: Any) -> tuple[list[Any], list[Problem]]:
    """Return the keys of all problems, and their rows and weights."""
    if groups is not None:
        return _problems_of_groups(problems, groups, sample_weight)
    if hasattr(problems, "ngroups"):  # a pandas groupby
        if sample_weight is not None:
            raise ValueError("sample_weight must be None for a groupby. Give rows and groups instead.")
        pairs = [(key, Problem(rows)) for key, rows in problems]
        return [key for key, _ in pairs], [problem for _, problem in pairs]
    if isinstance(problems, np.ndarray) and problems.ndim != 3:
        raise ValueError(
            f"problems must have shape (n_problems, n_samples, n_features), got shape {problems.shape}. For rows of "
            "several problems in one array, give groups."
        )
    rows = list(problems)
    weights = [None] * len(rows) if sample_weight is None else list(sample_weight)
    if len(weights) != len(rows):
        raise ValueError(f"sample_weight must have an array for each of {len(rows)} problems, got {len(weights)}.")
    return list(range(len(rows))), [Problem(*pair) for pair in zip(rows, weights, strict=True)]


def _problems_of_groups(X: Any, groups: ArrayLike, sample_weight: Any) -> tuple[list[Any], list[Problem]]:
    """Return the groups of rows as problems."""
    labels = np.asarray(groups)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    if labels.shape != (n_rows,):
        raise ValueError(f"groups must have shape ({n_rows},), one group per row, got shape {labels.shape}.")
    weights = None if sample_weight is None else np.asarray(sample_weight)
    if weights is not None and weights.shape != labels.shape:
        raise ValueError(f"sample_weight must have shape ({n_rows},) with groups, got shape {weights.shape}.")
    keys, which = np.unique(labels, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(keys)))
    names = column_labels(X)
    rows: Any = X if names else np.asarray(X)
    take = rows.iloc if hasattr(type(rows), "iloc") else rows
    parts = np.split(order, ends[:-1])
    problems = [Problem(take[part], None if weights is None else weights[part]) for part in parts]
    return keys.tolist(), problems


def _random_states(template: GaussianMixture, n_problems: int) -> list[int]:
    """Return an integer random state for each fit."""
    state = plain(template.random_state)
    if isinstance(state, int):
        return [state] * n_problems
    return [int(s) for s in check_random_state(state).randint(2**31 - 1, size=n_problems)]


def _fit_together(
    fits: ManyFits, given: list[Problem], states: list[int], n_jobs: int | None, advance: Callable[[int], None]
) -> list[int]:
    """Fit the problems that compiled code can fit together; return the positions of the others."""
    template = fits._template
    if type(template) is not GaussianMixture or not has_plain_options(template):
        return list(range(len(given)))
    model, n_components = get_model(plain(template.covariance_type)), plain(template.n_components)

    @functools.cache
    def is_small(shape: tuple[int, int], dtype: np.dtype[Any]) -> bool:
        n_rows, n_features = shape
        is_valid = n_rows >= max(2, n_components) and n_features > 0 and model.n_features in (None, n_features)
        return is_valid and is_many(model, n_components, n_features, n_rows, dtype)

    batches: dict[tuple[Any, ...], list[Member]] = {}
    alone = []
    for p, problem in enumerate(given):
        rows = _plain_rows(problem.rows)
        weight = None if problem.sample_weight is None else np.asarray(problem.sample_weight)
        if rows is None or not is_small(rows.shape, rows.dtype) or not _is_finite(rows, weight, n_components):
            alone.append(p)
            continue
        names = feature_names(column_labels(problem.rows))
        batches.setdefault((rows.shape[1], rows.dtype, weight is None, names), []).append(Member(p, rows, weight))
    limit = np.inf if template.limit_tol is None else plain(template.limit_tol)
    objective = MaximumLikelihood(model.name, plain(template.reg_covar))
    options = FitOptions(objective, plain(template.tol), plain(template.max_iter), limit_tol=limit)
    for (_, dtype, _, names), members in batches.items():
        parts = _row_parts(members)
        seeds = [_seed(states[p]) for p, _, _ in members]
        with thread_limit(n_jobs), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            results = fitting_many.fit_many(parts, model, n_components, options, seeds, advance)
        batch = Batch(results, model, dtype, names)
        for problem, (p, _, _) in enumerate(members):
            if results.handed_over[problem]:
                alone.append(p)
            else:
                fits._batches[p] = batch, problem
    return sorted(alone)


def has_plain_options(template: GaussianMixture, except_for: tuple[str, ...] = ()) -> bool:
    """Return whether fits with these parameters are one start and plain EM.

    The parameters `except_for` are not looked at.
    """
    accelerated = template.acceleration == "squarem" or (
        template.acceleration is not None
        and (plain(template.tol) < UNACCELERATED_TOL or template.limit_tol is not None)
    )
    return not accelerated and all(
        _equals(getattr(template, name), value) for name, value in PLAIN_OPTIONS.items() if name not in except_for
    )


def _equals(value: Any, plain_value: Any) -> bool:
    return value is plain_value or (not isinstance(value, np.ndarray) and bool(plain(value) == plain_value))


def _plain_rows(rows: Any) -> NDArray[Any] | None:
    """Return rows as an array of floats, or None if they must be validated by a fit."""
    if type(rows) is not np.ndarray:
        try:
            rows = check_array(rows, dtype=list(FLOATS), ensure_all_finite=False)
        except (ValueError, TypeError):
            return None
    if rows.ndim != 2 or rows.dtype.kind not in "fiub":
        return None
    numbers: NDArray[Any] = rows if rows.dtype in FLOATS else rows.astype(np.float64)
    return numbers


def _is_finite(rows: NDArray[Any], weight: Any, n_components: int) -> bool:
    """Return whether rows and weights are finite, and the weights are enough for the components."""
    if not np.isfinite(rows.sum()):
        return False
    if weight is None:
        return True
    if weight.shape != (len(rows),) or weight.dtype.kind not in "fiub" or not np.isfinite(weight.sum()):
        return False
    n_rows = count_rows(ArraySource(rows, weight.astype(np.float64)))
    return not (weight < 0).any() and np.floor(n_rows) >= n_components


def _row_parts(members: list[Member]) -> RowParts:
    """Return the rows of problems one after the other."""
    ends = np.cumsum([len(member.rows) for member in members])
    parts = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    weights = None
    if members[0].sample_weight is not None:
        weights = np.concatenate([member.sample_weight for member in members]).astype(np.float64)
    return RowParts(np.concatenate([member.rows for member in members]), weights, parts)


@functools.lru_cache(maxsize=1024)
def _seed(random_state: int) -> int:
    """Return the first seed of a fit with a random state."""
    return next(GaussianMixture(random_state=random_state)._seeds())


def _fit_alone(
    fits: ManyFits,
    given: list[Problem],
    states: list[int],
    positions: list[int],
    n_jobs: int | None,
    advance: Callable[[int], None],
) -> None:
    """Fit problems one by one, in threads."""
    template = fits._template

    def fit(p: int) -> GaussianMixture | Exception:
        estimator: GaussianMixture = clone(template).set_params(random_state=states[p], n_jobs=1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                estimator.fit(given[p].rows, sample_weight=given[p].sample_weight)
        except (ValueError, TypeError, np.linalg.LinAlgError) as error:
            return error
        estimator.set_params(random_state=template.random_state, n_jobs=template.n_jobs)
        return estimator

    n_threads = min(resolve_n_jobs(n_jobs), max(1, len(positions)))
    for p, outcome in zip(positions, _in_order(fit, positions, n_threads), strict=True):
        if isinstance(outcome, Exception):
            fits.errors[p] = outcome
        else:
            fits._estimators[p] = outcome
        advance(1)


def _in_order(fit: Callable[[int], Any], positions: list[int], n_threads: int) -> Iterator[Any]:
    """Yield the results of a function for each position."""
    tasks = (delayed(fit)(p) for p in positions)
    yield from Parallel(n_threads, prefer="threads", return_as="generator")(tasks)


@contextmanager
def _progress_bar(n_problems: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, if it is wanted, and yield a function that advances it."""
    if not shown:
        yield lambda n: None
        return
    try:
        from rich.progress import Progress
    except ImportError:
        raise ImportError("progress=True needs the package rich: pip install rich, or fastgmm[cli].") from None
    with Progress() as bar:
        task = bar.add_task("fits", total=n_problems)
        yield lambda n: bar.advance(task, n)


def _warn_of(fits: ManyFits) -> None:
    """Warn once if fits have not converged."""
    if plain(fits._template.max_iter) == 0:
        return
    n_failed = int(np.count_nonzero(~fits.converged_)) - len(fits.errors)
    if n_failed:
        warn_user(
            f"{n_failed} of {len(fits)} fits did not converge. Increase max_iter or tol; `converged_` says which.",
            ConvergenceWarning,
        )
