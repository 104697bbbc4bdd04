"""
Starts and moves
================

EM finds a nearby optimum, so the end of a fit depends on its start. Here are twelve seeds with several kinds of
starts, and with moves: after EM has ended, two components are merged, a third is split, and EM continues.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastgmm import GaussianMixture

# %%
# Twelve clusters, some of them small, close together or long.
rng = np.random.default_rng(5)
clusters = []
for _ in range(12):
    size, scale, centre = rng.integers(40, 400), rng.uniform(0.3, 2.0, 2), rng.uniform(-10, 10, 2)
    clusters.append(rng.normal(size=(size, 2)) * scale + centre)
X = np.concatenate(clusters)

# %%
options = {
    "random_from_data": {"init_params": "random_from_data"},
    "k-means++": {"init_params": "k-means++"},
    "kmeans (default)": {},
    "small_em": {"init_params": "small_em"},
    "kmeans, n_init=10": {"n_init": 10},
    "kmeans, n_moves=2": {"n_moves": 2},
}
warnings.simplefilter("ignore", ConvergenceWarning)
ends = {
    name: [GaussianMixture(12, max_iter=500, random_state=seed, **option).fit(X).lower_bound_ for seed in range(12)]
    for name, option in options.items()
}

# %%
# Each dot is one seed. The bars are medians.
best = max(map(max, ends.values()))
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for place, values in enumerate(ends.values()):
    below = best - np.array(values)
    ax.plot(below, place + np.linspace(-0.2, 0.2, len(below)), "o", alpha=0.6, markersize=5)
    ax.plot([np.median(below)] * 2, [place - 0.35, place + 0.35], color="black", linewidth=2)
ax.set_yticks(range(len(ends)), ends)
ax.invert_xaxis()
ax.set_xlabel("nats per row below the best (further right is better)")
ax.grid(axis="x", alpha=0.3)
plt.show()
