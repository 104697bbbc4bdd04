"""
Variational Bayes: components that are not needed
=================================================

:class:`~fastgmm.BayesianGaussianMixture` takes an upper limit of the number of components. The lower the
concentration of the weights' prior, the fewer components keep a weight.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm import BayesianGaussianMixture

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(size=(400, 2)) + centre for centre in ([0, 0], [6, 0], [3, 5])])

# %%
# The same ten components with three priors.
priors = (1e-3, 1.0, 1e3)
fits = [
    BayesianGaussianMixture(10, weight_concentration_prior=prior, max_iter=2_000, random_state=0).fit(X)
    for prior in priors
]

fig, axes = plt.subplots(2, 3, figsize=(10, 5.4), height_ratios=[2, 1], layout="constrained")
for column, prior, fit in zip(axes.T, priors, fits, strict=True):
    shown = fit.weights_ > 0.005
    column[0].scatter(*X.T, s=4, color="lightgray", linewidths=0)
    column[0].scatter(*fit.means_[shown].T, s=900 * fit.weights_[shown], color="tab:blue", alpha=0.7, edgecolor="black")
    column[0].set_title(f"concentration {prior:g}: {shown.sum()} components", fontsize=10)
    column[0].set(xticks=[], yticks=[], aspect="equal")
    column[1].bar(range(1, 11), np.sort(fit.weights_)[::-1])
    column[1].set(ylim=(0, 0.4), xlabel="component, by weight")
axes[1, 0].set_ylabel("weight")
plt.show()
