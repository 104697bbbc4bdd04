"""Mixtures of rows on a Dask cluster."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from .base import BaseMixture
from .bayesian_mixture import BayesianGaussianMixture
from .dask_collections import distributed
from .gaussian_mixture import GaussianMixture
from .on_dask import OnDask


def with_client(local: type[BaseMixture]) -> Callable[..., None]:
    """Return a constructor with the parameters of another class, and `client`."""

    def __init__(self: Any, *arguments: Any, client: distributed.Client | None = None, **options: Any) -> None:
        local.__init__(self, *arguments, **options)
        self.client = client

    signature = inspect.signature(local.__init__)
    parameter = inspect.Parameter(
        "client", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="distributed.Client | None"
    )
    parameters = [*signature.parameters.values(), parameter]
    __init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return __init__


class DaskGaussianMixture(OnDask[GaussianMixture], GaussianMixture):
    """`GaussianMixture` of rows on a Dask cluster.

    `fit`, `score`, `bic`, `aic` and `icl` take Dask arrays and data frames, with known or unknown block sizes. Each
    block is loaded once and stays on its worker. An EM iteration sends the parameters to every worker and runs as one
    task on each, with as many threads as the worker has; the workers return sufficient statistics. The fit is exact
    EM. Prediction methods return Dask arrays. If a worker is lost, other workers load its blocks again and the fit
    continues.

    Parameters
    ----------
    n_components : int, default=1
        Number of components K.
    covariance_type, tol, reg_covar, max_iter, n_init, init_params : as for `GaussianMixture`
        Covariance model, tolerance, regularisation, iterations and starts; see `GaussianMixture`.
    weights_init, means_init, precisions_init : as for `GaussianMixture`
        Parameters to start from; see `GaussianMixture`.
    random_state, warm_start, verbose, verbose_interval : as for `GaussianMixture`
        Seed, warm start and printed progress; see `GaussianMixture`.
    n_jobs : int, default=None
        Number of threads for rows that are not on the cluster.
    resp_init : Dask array, data frame or series, or array-like, default=None
        Labels or responsibilities to start from: a Dask collection with the blocks of X, or an array in memory.
    whiten_init, acceleration, limit_tol, n_moves : as for `GaussianMixture`
        Starts, acceleration, convergence and moves; see `GaussianMixture`.
    prior, callback, checkpoint : as for `GaussianMixture`
        Prior, function to call after each pass, and file for the state of the fit; see `GaussianMixture`.
    client : distributed.Client, default=None
        Connection to the cluster. None is the current client.

    See Also
    --------
    GaussianMixture : Attributes of the fitted mixture, and the meaning of all parameters.
    DaskBayesianGaussianMixture : Variational inference of rows on a cluster.
    rows : Rows in files, for a single machine.

    Notes
    -----
    The fitted attributes are those of `GaussianMixture`, in memory.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from fastgmm import DaskGaussianMixture
    >>> client = Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    >>> rng = da.random.default_rng(0)
    >>> X = da.concatenate([rng.normal(size=(5000, 2), chunks=(1000, 2)) + 6 * i for i in range(3)])
    >>> gm = DaskGaussianMixture(3, random_state=0).fit(X)
    >>> sorted(gm.means_[:, 0].round().tolist())
    [0.0, 6.0, 12.0]
    >>> gm.predict(X)
    dask.array<predict, shape=(15000,), dtype=int64, chunksize=(1000,), chunktype=numpy.ndarray>
    >>> type(gm.to_local()).__name__
    'GaussianMixture'
    >>> client.close()
    """

    local = GaussianMixture
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **GaussianMixture._parameter_constraints,
        "client": "no_validation",
    }
    __init__ = with_client(GaussianMixture)


class DaskBayesianGaussianMixture(OnDask[BayesianGaussianMixture], BayesianGaussianMixture):
    """`BayesianGaussianMixture` of rows on a Dask cluster.

    It takes Dask arrays and data frames, and works like `DaskGaussianMixture`.

    Parameters
    ----------
    n_components : int, default=1
        Maximum number of components K.
    covariance_type, tol, reg_covar, max_iter, n_init, init_params : as for `BayesianGaussianMixture`
        Covariance model, tolerance, regularisation, iterations and starts; see `BayesianGaussianMixture`.
    weight_concentration_prior_type, weight_concentration_prior : as for `BayesianGaussianMixture`
        Prior of the weights; see `BayesianGaussianMixture`.
    mean_precision_prior, mean_prior : as for `BayesianGaussianMixture`
        Prior of the means; see `BayesianGaussianMixture`.
    degrees_of_freedom_prior, covariance_prior : as for `BayesianGaussianMixture`
        Prior of the covariances; see `BayesianGaussianMixture`.
    random_state, warm_start, verbose, verbose_interval : as for `BayesianGaussianMixture`
        Seed, warm start and printed progress; see `BayesianGaussianMixture`.
    n_jobs : int, default=None
        Number of threads for rows that are not on the cluster.
    checkpoint : path, default=None
        File for the state of the fit; see `BayesianGaussianMixture`.
    client : distributed.Client, default=None
        Connection to the cluster. None is the current client.

    See Also
    --------
    BayesianGaussianMixture : Attributes of the fitted mixture, and the meaning of all parameters.
    DaskGaussianMixture : Maximum likelihood of rows on a cluster.

    Notes
    -----
    The fitted attributes are those of `BayesianGaussianMixture`, in memory.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from fastgmm import DaskBayesianGaussianMixture
    >>> client = Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    >>> X = da.random.default_rng(0).normal(size=(2000, 1), chunks=(1000, 1))
    >>> X = da.concatenate([X, X + 20])
    >>> bgm = DaskBayesianGaussianMixture(n_components=5, max_iter=1000, random_state=0).fit(X)
    >>> int((bgm.weights_ > 0.1).sum())
    2
    >>> client.close()
    """

    local = BayesianGaussianMixture
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BayesianGaussianMixture._parameter_constraints,
        "client": "no_validation",
    }
    __init__ = with_client(BayesianGaussianMixture)
