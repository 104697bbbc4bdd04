"""Conjugate priors of means and covariances.

They keep small clusters from collapsing, and are those of R's mclust (Fraley & Raftery, 2007, Journal of Classification
24). The prior of a mean is Gaussian, with the component's covariance divided by `shrinkage`. The prior of a variance is
inverse gamma, and that of a matrix is inverse Wishart. The M-step finds the mode of the posterior: the prior adds to
the scatter and to the number of rows, and the model's M-step of maximum likelihood does the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgmm.covariance import CovarianceModel, get_model
from fastgmm.data.sources import Source, Weights, count_rows
from fastgmm.e_step.given_responsibilities import accumulate_labels
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, positive_weight_sums, scatter_about_means

from .maximum_likelihood import estimate_weights_and_means
from .objective import Objective

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConjugatePrior:
    """Conjugate prior of the means and covariances of a `GaussianMixture`.

    It keeps small components from collapsing. Given its covariance, the mean of a component is Gaussian. Variances
    are inverse gamma and covariance matrices inverse Wishart. The defaults are those of mclust's ``defaultPrior``
    [1]_; they are computed from the rows. The fit finds the mode of the posterior.

    Parameters
    ----------
    shrinkage : float, default=0.01
        Number of rows that the prior of a mean is worth.
    mean : array-like of shape (n_features,), default=None
        Mean of the prior of the means. None is the mean of the rows.
    dof : float, default=None
        Degrees of freedom of the prior of the covariances. None is ``n_features + 2``.
    scale : float or array-like of shape (n_features, n_features), default=None
        Scale of the prior of the covariances: a variance for spherical and diagonal models, else a matrix. None is the
        covariance of the rows divided by ``n_components ** (2 / n_features)``, or the mean of its variances.

    See Also
    --------
    GaussianMixture : Estimator that takes this prior.
    BayesianGaussianMixture : Variational inference, which finds a distribution and not its mode.

    References
    ----------
    .. [1] C. Fraley and A. E. Raftery (2007). Bayesian regularization for normal mixture estimation and model-based
       clustering. Journal of Classification 24.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import ConjugatePrior, GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(30, 2))
    >>> X[:3] = 4  # three equal rows: without a prior a component collapses on them
    >>> gm = GaussianMixture(3, prior=ConjugatePrior(), random_state=0).fit(X)
    >>> bool(np.linalg.eigvalsh(gm.covariances_).min() > 0.01)
    True
    """

    shrinkage: float = 0.01
    mean: ArrayLike | None = None
    dof: float | None = None
    scale: float | ArrayLike | None = None

    def resolved(self, source: Source, model: CovarianceModel, n_components: int) -> ModePrior:
        """Compute the numbers of the prior for given rows and a covariance model.

        Parameters
        ----------
        source : Source
            Rows of the fit, for the defaults.
        model : CovarianceModel
            Covariance model.
        n_components : int
            Number of components.

        Returns
        -------
        ModePrior
            The prior as M-steps read it.

        Raises
        ------
        ValueError
            If a number is out of range, a shape is wrong, the model has no conjugate prior, or a default does not exist
            because features are constant or depend on each other.
        """
        if not model.has_prior:
            raise ValueError(
                f"There is no conjugate prior for covariance_type {model.name!r}. Set prior=None, or use a "
                "covariance_type other than 'VEE', 'EVE', 'VVE' and 'EVV'."
            )
        n_features = source.n_features
        mean, covariance = overall_moments(source)
        if self.mean is not None:
            mean = np.asarray(self.mean, dtype=np.float64)
            if mean.shape != (n_features,):
                raise ValueError(f"The prior's mean must have shape {(n_features,)}, got shape {mean.shape}")
            if not np.isfinite(mean).all():
                raise ValueError(f"The prior's mean must be finite, got {mean}")
        shrinkage = float(self.shrinkage)
        dof = n_features + 2.0 if self.dof is None else float(self.dof)
        if not (0 <= shrinkage < np.inf and n_features - 1 < dof < np.inf):
            raise ValueError(
                f"The prior's shrinkage must be >= 0 and its dof > n_features - 1 ({n_features - 1}), both finite, got "
                f"shrinkage={shrinkage} and dof={dof}"
            )
        scale_shape: tuple[int, ...] = (n_features, n_features) if model.form.has_matrices else ()
        if self.scale is None:
            _check_default_scale(covariance, model)
            scale = covariance / n_components ** (2 / n_features)
            scale = scale if model.form.has_matrices else np.asarray(np.trace(scale) / n_features)
        else:
            scale = np.asarray(self.scale, dtype=np.float64)
        if scale.shape != scale_shape:
            raise ValueError(
                f"The prior's scale must have shape {scale_shape} for covariance_type {model.name!r}, got shape "
                f"{scale.shape}"
            )
        problem = model.form.precision_problem(scale)
        if problem is not None:
            raise ValueError(f"The prior's scale must be {problem}, got {scale}")
        return ModePrior.of(model, n_components, shrinkage, mean, dof, scale)


def _check_default_scale(covariance: Array, model: CovarianceModel) -> None:
    """Raise ValueError if the rows' covariance cannot be a prior's default scale.

    The message names constant features.
    """
    variances = np.diagonal(covariance)
    constant = np.flatnonzero(variances <= 0)
    if not model.form.has_matrices:
        cause = "all rows are equal" if len(constant) == len(variances) else ""
    elif len(constant):
        listed = ", ".join(map(str, constant[:10])) + (", ..." if len(constant) > 10 else "")
        cause = f"feature(s) {listed} are constant"
    else:
        roots = np.sqrt(variances)
        smallest = np.linalg.eigvalsh(covariance / roots / roots[:, np.newaxis])[0]
        is_singular = smallest <= 10 * len(roots) * np.finfo(np.float64).eps
        cause = "some features are linear combinations of others" if is_singular else ""
    if cause:
        raise ValueError(
            f"The prior's default scale is the covariance of the rows, which must be positive definite, but {cause}. "
            "Leave such features out, or pass a positive definite scale to ConjugatePrior."
        )


@dataclass(frozen=True, eq=False)
class ModePrior:
    """A prior in the form that M-steps read.

    Attributes
    ----------
    shrinkage : float
        Number of rows that the prior of a mean is worth.
    mean : (D,)
    counts : (K,)
        Added to the number of rows of each covariance.
    scatter : in the layout
        Added to the scatter.
    """

    shrinkage: float
    mean: Array
    counts: Array
    scatter: Array

    @classmethod
    def of(
        cls, model: CovarianceModel, n_components: int, shrinkage: float, mean: Array, dof: float, scale: Array
    ) -> ModePrior:
        """Return the prior of a model with degrees of freedom and a scale, () or (D, D)."""
        n_features = len(mean)
        full = np.broadcast_to(
            scale * np.eye(n_features) if scale.ndim == 0 else scale, (n_components, *(n_features,) * 2)
        )
        extra = dof + (n_features + 1.0 if model.form.has_matrices else 2.0)
        if not model.form.shape(n_components, n_features)[1:]:  # one variance for all features
            extra, full = extra / n_features, full / n_features
        if model.shares_volume:
            extra = extra / n_components
        scatter = model.form.scatter(full / n_components if model.shares_all else full)
        return cls(shrinkage, mean, np.full(n_components, 1.0 + extra), np.ascontiguousarray(scatter))

    def log_density(self, point: MixtureParameters) -> float:
        """Return the log of the prior density, without its constant, at a point."""
        form = point.model.form
        log_det = np.broadcast_to(form.log_det(point.precisions_cholesky, point.n_features), self.counts.shape)
        pull = form.outer(np.full(len(self.counts), self.shrinkage), point.means - self.mean)
        return float(self.counts @ log_det) - form.trace(point.precisions_cholesky, self.scatter + pull) / 2


class ConjugatePosterior(Objective):
    """Maximum a posteriori under a conjugate prior.

    The bound is the mean log-likelihood plus the log-prior divided by the rows' total weight.

    Parameters
    ----------
    prior : ModePrior
    covariance_type, reg_covar
        See `Objective`.
    """

    def __init__(self, prior: ModePrior, covariance_type: str = "full", reg_covar: float = 1e-6):
        super().__init__(covariance_type, reg_covar)
        self.prior = prior

    def bound(self, statistics: SufficientStatistics, point: MixtureParameters) -> float:
        """Return the log-posterior, without its constant, in nats per row."""
        return statistics.mean_log_likelihood + self.prior.log_density(point) / statistics.total_weight

    def maximise(self, statistics: SufficientStatistics, point: MixtureParameters) -> MixtureParameters:
        """Return the mode of the posterior; see `mode`."""
        return mode(statistics, point.model, self.prior, reg_covar=self.reg_covar, before=point.covariances)

    def from_moments(self, statistics: SufficientStatistics) -> MixtureParameters:
        """Return the mode of the posterior given moments."""
        return mode(statistics, self.model, self.prior, reg_covar=0.0)


def mode(
    statistics: SufficientStatistics,
    model: CovarianceModel,
    prior: ModePrior,
    *,
    reg_covar: float,
    before: Array | None = None,
) -> MixtureParameters:
    """Return the parameters of highest posterior density.

    Parameters
    ----------
    statistics : SufficientStatistics
    model : CovarianceModel
    prior : ModePrior
    reg_covar : float
        Added to every variance.
    before : array, optional
        Covariances from which the model's M-step starts, if it iterates.

    Raises
    ------
    IllDefinedCovarianceError
        If a covariance is not positive definite.
    """
    weight_sums = positive_weight_sums(statistics)
    weights, means = estimate_weights_and_means(statistics)
    apart = means - prior.mean
    share = prior.shrinkage * weight_sums / (prior.shrinkage + weight_sums)
    scatter = scatter_about_means(statistics, weight_sums) + model.form.outer(share, apart) + prior.scatter
    means = prior.mean + (weight_sums / (prior.shrinkage + weight_sums))[:, np.newaxis] * apart
    covariances = model.covariances(scatter, weight_sums + prior.counts, reg_covar=reg_covar, before=before)
    return MixtureParameters(weights, means, covariances, model.form.precisions_cholesky(covariances), model.name)


def overall_moments(source: Source, covariance_type: str = "full") -> tuple[Array, Array]:
    """Return the mean of the rows, (D,), and their unbiased covariance.

    The covariance is in the form of one component: (D, D), (D,) or ().
    """
    model = get_model(covariance_type)
    point = source.point_near()[np.newaxis]

    def accumulate_all(X: NDArray, sample_weight: Weights) -> SufficientStatistics:
        labels = np.zeros(len(X), np.int32)
        return accumulate_labels(labels, point, X, sample_weight, covariance_type=covariance_type)

    statistics, n_rows = source.reduce(accumulate_all), count_rows(source)
    mean = point + statistics.first_moments / statistics.weight_sums[:, np.newaxis]
    unbiased = 1 - 1 / n_rows if n_rows > 1 else 1.0
    scatter = scatter_about_means(statistics, statistics.weight_sums)
    covariance = model.covariances(scatter, statistics.weight_sums * unbiased)
    return mean[0], covariance if model.form.is_shared else covariance[0]
