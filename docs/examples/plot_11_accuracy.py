"""
Digits far from zero
====================

A variance that is computed as the mean of squares minus the square of the mean loses its digits when the mean is
large. fastgmm sums the scatter about the current means. Here the variance of the rows is always 1, and only their
distance from zero grows.
"""

import matplotlib.pyplot as plt
import numpy as np
import sklearn.mixture

import fastgmm

rng = np.random.default_rng(0)
rows = rng.normal(size=(2_000, 3))
distances = 10.0 ** np.arange(0, 11)


def variances(mixture, covariance_type):
    """Return the mean fitted variance for each distance; NaN where the fit fails."""
    found = []
    for distance in distances:
        try:
            fit = mixture(covariance_type=covariance_type).fit(rows + distance)
            found.append(np.mean(1 / fit.precisions_cholesky_**2))
        except ValueError:
            found.append(np.nan)
    return found


# %%
# Crosses are fits that end with an error.
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, covariance_type in zip(axes, ("diag", "spherical"), strict=True):
    theirs = np.array(variances(sklearn.mixture.GaussianMixture, covariance_type))
    ax.loglog(distances, theirs, "s--", label="scikit-learn")
    failed = np.isnan(theirs)
    ax.plot(distances[failed], np.full(failed.sum(), 0.4), "x", color="tab:blue", label="scikit-learn: error")
    ax.loglog(distances, variances(fastgmm.GaussianMixture, covariance_type), "o-", label="fastgmm")
    ax.set(title=f'covariance_type="{covariance_type}"', xlabel="distance of the rows from zero")
    ax.grid(alpha=0.3)
axes[0].set_ylabel("fitted variance (true: 1)")
axes[0].legend(loc="upper left")
plt.show()
