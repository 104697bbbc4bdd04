"""Scores of rows under a mixture: log-densities, labels and responsibilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgmm import kernels
from fastgmm.kernels import thread_limit
from fastgmm.mixture.parameters import MixtureParameters

from .float_range import parts_in_double


def score_samples(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Log-density of each row in nats, (n,), in the rows' dtype."""
    return _score(parameters, X, "log_prob_norm", n_jobs)


def log_highest_resp(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Return the log of each row's highest responsibility, (n,), in its dtype."""
    return _score(parameters, X, "max_log_resp", n_jobs)


def predict(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray[np.int64]:
    """The component of highest responsibility of each row, (n,) int64."""
    return _score(parameters, X, "labels", n_jobs)


def predict_proba(parameters: MixtureParameters, X: NDArray, *, n_jobs: int | None = None) -> NDArray:
    """Responsibilities, (n, K), in the rows' dtype."""
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
