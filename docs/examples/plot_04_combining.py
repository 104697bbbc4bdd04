"""
Clusters that are not Gaussian
==============================

BIC chooses as many Gaussian components as the density needs. Where a cluster is curved, several components are one
cluster. :func:`~fastgmm.combine_components` joins components, and :class:`~fastgmm.EntropyDisplay` shows where to
stop.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm import EntropyDisplay, MixtureSearch, combine_components

# %%
# A curved cluster and two round ones.
rng = np.random.default_rng(0)
angle = rng.uniform(0.2, np.pi - 0.2, 900)
arc = 6 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.45 * rng.normal(size=(900, 2))
X = np.concatenate([arc, 0.8 * rng.normal(size=(300, 2)) + [0, 1.5], 0.7 * rng.normal(size=(300, 2)) + [0, -3]])

search = MixtureSearch(range(1, 10), covariance_types=["VVV"], random_state=0).fit(X)
combined = combine_components(search, X)
print(search.best_params_)

# %%
# The entropy of the clustering falls steeply while components of one cluster are joined. Joining further makes the rows
# hardly surer of their cluster.
fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].scatter(*X.T, c=search.predict(X), s=4, cmap="tab10", linewidths=0)
axes[0].set_title(f"{search.best_params_['n_components']} components")
EntropyDisplay.from_combination(combined, ax=axes[1])
axes[1].set_title("entropy")
axes[2].scatter(*X.T, c=combined.predict(X, 3), s=4, cmap="tab10", linewidths=0)
axes[2].set_title("3 clusters")
for ax in axes[::2]:
    ax.set(xticks=[], yticks=[], aspect="equal")
plt.show()
