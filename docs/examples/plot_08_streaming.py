"""
A stream that drifts
====================

:class:`~fastgmm.StreamingGaussianMixture` reads each row once. With ``half_life`` a row counts half as much after so
many more rows, and the mixture follows a stream that changes.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastgmm import StreamingGaussianMixture

# %%
# Two clusters that move, one row after the other.
rng = np.random.default_rng(0)
n_rows = 60_000
time = np.linspace(0, 1, n_rows)
paths = np.array([np.column_stack([6 * time, 2 * np.sin(5 * time)]), np.column_stack([6 - 4 * time, 5 + 0 * time])])
which = rng.integers(2, size=n_rows)
X = paths[which, np.arange(n_rows)] + 0.6 * rng.normal(size=(n_rows, 2))

following = StreamingGaussianMixture(2, half_life=1_500, random_state=0)
remembering = StreamingGaussianMixture(2, learning_decay=1.0, random_state=0)
tracks = {following: [], remembering: []}
for block in np.array_split(X, 60):
    for stream, track in tracks.items():
        stream.partial_fit(block)
        if stream.n_steps_ > 0:  # before, the first rows are only collected
            track.append(stream.means_)

# %%
# With the half-life the means stay near the clusters. With ``learning_decay=1`` all rows count alike for ever, and the
# means lag.
fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharex=True, sharey=True, layout="constrained")
titles = ("half_life=1_500", "learning_decay=1.0, no half-life")
for ax, track, title in zip(axes, tracks.values(), titles, strict=True):
    sample = rng.choice(n_rows, 4_000, replace=False)
    points = ax.scatter(*X[sample].T, c=time[sample], s=3, cmap="viridis", alpha=0.5, linewidths=0)
    for means in np.moveaxis(np.array(track), 1, 0):
        ax.plot(*means.T, color="black", linewidth=1.5)
        ax.plot(*means[-1], "o", color="tab:red", markeredgecolor="black")
    for path in paths:
        ax.plot(*path[-1], "*", color="white", markeredgecolor="black", markersize=13)
    ax.set(title=title, xlabel="feature 1")
axes[0].set_ylabel("feature 2")
fig.colorbar(points, ax=axes, label="time")
plt.show()

# %%
# Lines are the paths of the estimated means, dots their last positions, and stars the true last positions.
