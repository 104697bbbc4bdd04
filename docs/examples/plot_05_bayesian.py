"""
Variational Bayes: components that are not needed
=================================================

:class:`~fastgmm.BayesianGaussianMixture` takes an upper limit of the number of components. The prior of the weights
decides how many of them keep a weight: the lower its concentration, the fewer.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm import BayesianGaussianMixture

rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(size=(400, 2)) + centre for centre in ([0, 0], [6, 0], [3, 5])])

# %%
# Ten components with a Dirichlet distribution of the weights as prior. A concentration of 200 says that each component
# has about 200 rows.
concentrations = (0.01, 5.0, 200.0)
fits = [
    BayesianGaussianMixture(
        n_components=10,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=concentration,
        max_iter=2_000,
        random_state=0,
    ).fit(X)
    for concentration in concentrations
]

# %%
# Dots are the means of the components, and their areas the weights.
fig, axes = plt.subplots(2, 3, figsize=(10, 5.4), height_ratios=[2, 1], layout="constrained")
for column, concentration, fit in zip(axes.T, concentrations, fits, strict=True):
    shown = fit.weights_ > 0.01
    column[0].scatter(*X.T, s=4, color="lightgray", linewidths=0)
    column[0].scatter(*fit.means_[shown].T, s=900 * fit.weights_[shown], color="tab:blue", alpha=0.7, edgecolor="black")
    column[0].set_title(f"concentration {concentration:g}: {shown.sum()} components", fontsize=10)
    column[0].set(xticks=[], yticks=[], aspect="equal")
    column[1].bar(range(1, 11), np.sort(fit.weights_)[::-1])
    column[1].set(ylim=(0, 0.4), xticks=range(1, 11), xlabel="component, by weight")
axes[1, 0].set_ylabel("weight")
plt.show()
