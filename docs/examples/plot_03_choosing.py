"""
Choosing a model and a number of components
===========================================

:class:`~fastgmm.MixtureSearch` fits covariance models and numbers of components, and keeps the fit with the lowest
BIC. :class:`~fastgmm.CriterionDisplay` draws all of them. The bootstrap then says how certain the parameters of the
best are.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris

from fastgmm import CriterionDisplay, MixtureSearch, bootstrap_parameters

iris = load_iris()
search = MixtureSearch(range(1, 7), random_state=0).fit(iris.data)
print(search.best_params_, f"BIC {search.best_score_:.1f}")
CriterionDisplay.from_search(search)
plt.show()

# %%
# Intervals of 95 % for the means, from 60 fits to resampled rows.
replicates = bootstrap_parameters(search, iris.data, n_replicates=60, random_state=0)
low, high = replicates.intervals()["means"]
means = search.best_estimator_.means_

fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for k, mean in enumerate(means):
    places = np.arange(len(mean)) + 0.15 * (k - (len(means) - 1) / 2)
    errors = np.maximum([mean - low[k], high[k] - mean], 0)
    ax.errorbar(places, mean, errors, fmt="o", capsize=4, label=f"component {k}")
ax.set_xticks(range(4), iris.feature_names)
ax.set_ylabel("mean, cm")
ax.legend()
plt.show()
