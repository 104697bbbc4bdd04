"""
In place of scikit-learn
========================

One import changes. Both libraries start from the same labels and take the same EM steps, so both find the same
mixture.
"""

import matplotlib.pyplot as plt
import numpy as np
import sklearn.mixture
from matplotlib.patches import Ellipse

from fastgmm import GaussianMixture

rng = np.random.default_rng(3)
centres = np.array([[0.0, 0.0], [5.0, 1.0], [1.5, 5.0]])
roots = np.array([[[1.2, 0.0], [0.8, 0.5]], [[0.6, 0.0], [-0.5, 1.0]], [[1.4, 0.0], [-0.6, 0.5]]])
X = np.concatenate([rng.normal(size=(2_000, 2)) @ root.T + centre for root, centre in zip(roots, centres, strict=True)])

# %%
# Fit with both libraries. ``acceleration=None`` is plain EM, step for step scikit-learn's.
theirs = sklearn.mixture.GaussianMixture(3, random_state=0).fit(X)
ours = GaussianMixture(3, random_state=0, acceleration=None).fit(X)
print(f"scikit-learn: {theirs.lower_bound_:.6f} nats per row")
print(f"fastgmm:      {ours.lower_bound_:.6f} nats per row")


# %%
# The ellipses are two standard deviations wide on either side of the mean.
def draw_ellipses(ax, model, **style):
    for mean, covariance in zip(model.means_, model.covariances_, strict=True):
        values, vectors = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        width, height = 4 * np.sqrt(values[::-1])
        ax.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, **style))


fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
for ax, model, title in zip(axes, (theirs, ours), ("sklearn.mixture", "fastgmm"), strict=True):
    order = np.argsort(np.argsort(model.means_[:, 0]))  # the same colours in both panels
    ax.scatter(*X.T, c=order[model.predict(X)], s=2, cmap="viridis", alpha=0.4, linewidths=0)
    draw_ellipses(ax, model, edgecolor="black", linewidth=1.5)
    ax.set(title=title, xlabel="feature 1", aspect="equal")
axes[0].set_ylabel("feature 2")
plt.show()
