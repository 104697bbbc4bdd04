"""The mixtures that `fit_many` has fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.estimators.gaussian_mixture import GaussianMixture
from fastgmm.estimators.validation import plain
from fastgmm.fitting.many import ManyResults

# Fitted attributes that are stacked, and their values where a fit failed.
ATTRIBUTES: dict[str, Any] = {
    "weights_": np.nan, "means_": np.nan, "covariances_": np.nan, "precisions_cholesky_": np.nan,
    "lower_bound_": np.nan, "n_iter_": 0, "converged_": False,
}  # fmt: skip


class Batch(NamedTuple):
    """Problems that were fitted together.

    Attributes
    ----------
    results : ManyResults
    model : CovarianceModel
    dtype : dtype
        Of the rows.
    names : tuple of str or None
        The names of the features.
    """

    results: ManyResults
    model: CovarianceModel
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None

    def stacked(self, name: str) -> NDArray[Any] | None:
        """Return a fitted attribute of all problems, or None if it must be taken from each estimator.

        float32 rows have float32 attributes only if these are in range.
        """
        results, arrays = self.results, self.results.arrays
        if name == "converged_":
            return results.converged
        if name == "n_iter_":
            return np.array([len(bounds) for bounds in results.lower_bounds])
        if name == "lower_bound_":
            return np.array([bounds[-1] if len(bounds) else -np.inf for bounds in results.lower_bounds])
        if self.dtype != np.float64:
            return None
        if name in ("weights_", "means_"):
            return arrays.weights if name == "weights_" else arrays.means
        shape = (len(arrays.weights), *self.model.form.shape(*arrays.means.shape[1:]))
        factor = arrays.factor.swapaxes(-1, -2) if self.model.form.has_matrices else arrays.factor
        return (arrays.covariances if name == "covariances_" else factor).reshape(shape)


class ManyFits(Sequence[GaussianMixture]):
    """Mixtures that `fit_many` has fitted, one for each problem.

    It is a sequence of fitted estimators: ``fits[i]`` is that of problem i, and an error if its fit failed. The arrays
    below have one entry for each problem, of NaN or False where the fit failed.

    Parameters
    ----------
    keys : list
        The name of each problem: its group, or its number. It is also an attribute.
    template : GaussianMixture
        The parameters of all fits.

    Attributes
    ----------
    errors : dict of Exception, by position
        Problems that could not be fitted, and why.
    weights_, means_, covariances_, precisions_cholesky_ : ndarray of shape (n_problems, ...)
        The parameters. All problems must have one number of features.
    lower_bound_ : ndarray of shape (n_problems,)
        The mean log-likelihood of each problem's rows, in nats per row.
    n_iter_ : ndarray of shape (n_problems,), int
        Numbers of EM iterations; 0 where the fit failed.
    converged_ : ndarray of shape (n_problems,), bool
        Whether EM converged.

    See Also
    --------
    fit_many : Function that returns this.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import GaussianMixture, fit_many
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(3, 100, 1)) + 8 * rng.integers(0, 2, size=(3, 100, 1))
    >>> fits = fit_many(rows, GaussianMixture(2, random_state=0))
    >>> len(fits), fits.means_.shape, bool(fits.converged_.all())
    (3, (3, 2, 1), True)
    >>> fits[0].predict([[0.0], [8.0]]).tolist() in ([0, 1], [1, 0])
    True
    """

    def __init__(self, keys: list[Any], template: GaussianMixture):
        self.keys = keys
        self.errors: dict[int, Exception] = {}
        self._template = template
        self._batches: dict[int, tuple[Batch, int]] = {}
        self._estimators: dict[int, GaussianMixture] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[p] for p in range(*position.indices(len(self)))]
        p = range(len(self))[position]
        if p in self.errors:
            raise self.errors[p]
        if p not in self._estimators:
            batch, problem = self._batches[p]
            estimator = clone(self._template)
            result = batch.results.result(problem, get_model(plain(self._template.covariance_type)))
            estimator._set_fitted(result.parameters, result, batch.dtype)
            estimator.n_features_in_ = result.parameters.n_features
            if batch.names is not None:
                estimator.feature_names_in_ = np.asarray(batch.names, dtype=object)
            self._estimators[p] = estimator
        return self._estimators[p]

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"ManyFits({len(self)} fits of {self._template!r}{failed})"

    def estimators(self) -> list[GaussianMixture | None]:
        """Return all fitted estimators.

        Returns
        -------
        list of GaussianMixture or None
            None where the fit failed.
        """
        return [None if p in self.errors else self[p] for p in range(len(self))]

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name not in ATTRIBUTES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        stacks = {id(batch): batch.stacked(name) for batch, _ in self._batches.values()}
        values: list[Any] = [None] * len(self)
        for p, (batch, problem) in self._batches.items():
            stack = stacks[id(batch)]
            values[p] = getattr(self[p], name) if stack is None else stack[problem]
        for p, estimator in self._estimators.items():
            values[p] = getattr(estimator, name)
        found = [value for value in values if value is not None]
        if len({np.shape(value) for value in found}) > 1:
            raise AttributeError(
                f"{name} is an array only if all problems have one number of features. Use estimators()."
            )
        filler = np.full_like(found[0], ATTRIBUTES[name]) if found else np.asarray(ATTRIBUTES[name])
        stacked = np.array([filler if value is None else value for value in values])
        self.__dict__[name] = stacked
        return stacked
