"""Scores of rows under a mixture: log-densities, labels and responsibilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .float_range import parts_in_double


def score_samples(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Compute the log-density of each row.

    Parameters
    ----------
    parameters : MixtureParameters
        Parameters of the mixture.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.

    Returns
    -------
    ndarray of shape (n,)
        Log-densities in nats, in the dtype of `X`.

    Raises
    ------
    ValueError
        If `X` has another number of features than the parameters.

    See Also
    --------
    predict : Most probable component of each row.
    accumulate : Statistics of rows, with the sum of the log-densities.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import MixtureParameters, score_samples
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0], [10.0]], [1.0, 1.0], "spherical")
    >>> score_samples(parameters, np.array([[0.0], [10.0]])).round(3)
    array([-1.612, -1.612])
    """
    return _score(parameters, X, "log_prob_norm", n_jobs)


def log_highest_resp(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Return the log of each row's highest responsibility, (n,), in its dtype."""
    return _score(parameters, X, "max_log_resp", n_jobs)


def predict(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray[np.int64]:
    """Predict the most probable component of each row.

    Parameters
    ----------
    parameters : MixtureParameters
        Parameters of the mixture.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.

    Returns
    -------
    ndarray of shape (n,), int64
        Components, numbered from 0.

    Raises
    ------
    ValueError
        If `X` has another number of features than the parameters.

    See Also
    --------
    predict_proba : Responsibilities of each row.
    score_samples : Log-density of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import MixtureParameters, predict
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0], [10.0]], [1.0, 1.0], "spherical")
    >>> predict(parameters, np.array([[1.0], [7.0]]))
    array([0, 1])
    """
    return _score(parameters, X, "labels", n_jobs)


def predict_proba(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Compute the responsibilities: the probability of each component given each row.

    Parameters
    ----------
    parameters : MixtureParameters
        Parameters of the mixture.
    X : ndarray of shape (n, D), float64 or float32
        Rows. Their values are not checked.
    n_jobs : int, optional
        Number of threads. None is Numba's own setting.

    Returns
    -------
    ndarray of shape (n, K)
        Responsibilities, in the dtype of `X`; each row sums to 1.

    Raises
    ------
    ValueError
        If `X` has another number of features than the parameters.

    See Also
    --------
    predict : Most probable component of each row.
    score_samples : Log-density of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm.engine import MixtureParameters, predict_proba
    >>> parameters = MixtureParameters.create([0.5, 0.5], [[0.0], [10.0]], [1.0, 1.0], "spherical")
    >>> predict_proba(parameters, np.array([[0.0], [5.0]])).round(3)
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    return _score(parameters, X, "resp", n_jobs)


@np.errstate(over="ignore", invalid="ignore")
def _score(parameters: MixtureParameters, X: NDArray, name: str, n_jobs: int | None) -> NDArray:
    """Return the output `name` of `kernels.score` for each row."""
    X = checked_rows(X, parameters.n_features)
    shape = (len(X), parameters.n_components) if name == "resp" else (len(X),)
    out = np.empty(shape, np.int64 if name == "labels" else X.dtype)
    in_double = parameters.needs_double(X.dtype)
    layout, operands, _ = parameters.e_step(np.float64 if in_double else X.dtype)
    with thread_limit(n_jobs):
        if not in_double:
            kernels.score(layout, X, operands, **{name: out})
        for part in parts_in_double(X) if in_double else ():
            out_of_part = out[part] if name == "labels" else np.empty(out[part].shape)
            kernels.score(layout, X[part].astype(np.float64), operands, **{name: out_of_part})
            with np.errstate(over="ignore"):  # a log-density out of the range of float32 becomes -inf
                out[part] = out_of_part
    return out


def checked_rows(X: NDArray, n_features: int) -> NDArray:
    """Return rows as an array of native byte order; integers become float64.

    Raises
    ------
    ValueError
        If X is not two-dimensional, or its number of features is not that of the parameters.
    """
    X = np.asarray(X)
    if X.dtype.kind in "iub":
        X = X.astype(np.float64)
    if X.ndim != 2 or X.shape[1] != n_features:
        raise ValueError(f"X must have shape (n_samples, {n_features}) for these parameters, got shape {X.shape}")
    return X if X.dtype.isnative else X.astype(X.dtype.newbyteorder("="))
