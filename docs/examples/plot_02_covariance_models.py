"""
The fourteen covariance models
==============================

The letters stand for volume, shape and orientation: equal for all components (E), variable (V), or the identity (I).
Each panel shows the same rows, fitted with another model, and the BIC of the fit. The lowest BIC is marked.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse

from fastgmm import GaussianMixture

# %%
# Three clusters of one shape and of different volumes and orientations: the model "VEV".
rng = np.random.default_rng(1)
clusters = []
for volume, angle, centre in ((0.5, 0.3, (0, 0)), (1.0, 1.5, (6, 1)), (1.8, 2.6, (2, 7))):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    clusters.append(volume * rng.normal(size=(150, 2)) * [1.6, 0.6] @ rotation.T + centre)
X = np.concatenate(clusters)
start = np.repeat([0, 1, 2], 150)

# %%
# All models start from the same labels. A model with one matrix for all components, or with a single variance, stores
# less than K matrices, so the ellipses are drawn from matrices that are made of what is stored.
MODELS = ["EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"]


def matrices(model):
    stored = model.covariances_
    if model.covariance_type == "EEE":
        return [stored] * len(model.means_)
    if stored.ndim == 1:
        return [variance * np.eye(2) for variance in stored]
    return [np.diag(variances) for variances in stored] if stored.ndim == 2 else stored


fits = {name: GaussianMixture(3, covariance_type=name, resp_init=start, max_iter=500).fit(X) for name in MODELS}
scores = {name: fit.bic(X) for name, fit in fits.items()}
best = min(scores, key=scores.get)

fig, axes = plt.subplots(3, 5, figsize=(10, 5.8), sharex=True, sharey=True, layout="constrained")
for ax, name in zip(axes.flat, MODELS, strict=False):
    fit = fits[name]
    ax.scatter(*X.T, c=fit.predict(X), s=3, cmap="viridis", linewidths=0)
    for mean, covariance in zip(fit.means_, matrices(fit), strict=True):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        ax.add_patch(Ellipse(mean, *(4 * np.sqrt(values[::-1])), angle=angle, fill=False, linewidth=1.3))
    ax.set_title(f"{name}: BIC {scores[name]:.0f}", fontsize=10, fontweight="bold" if name == best else "normal")
    if name == best:
        for spine in ax.spines.values():
            spine.set(edgecolor="tab:red", linewidth=2.5)
    ax.set(xticks=[], yticks=[], aspect="equal")
axes.flat[-1].set_axis_off()
plt.show()
