"""
Rows in a file
==============

:func:`~fastgmm.rows` reads rows block by block, and the fit gives the answer of the same rows in memory. Labels are
written to a file in the same way.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import fastgmm

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
centres = np.array([[0.0, 0.0], [4.0, 3.0], [-3.0, 4.0]])
X = np.concatenate([rng.normal(size=(100_000, 2)) + centre for centre in centres])
np.save(folder / "rows.npy", X)

# %%
# Fit, predict, and compare with the fit in memory.
source = fastgmm.rows(folder / "rows.npy")
from_file = fastgmm.GaussianMixture(3, random_state=0).fit(source)
in_memory = fastgmm.GaussianMixture(3, random_state=0).fit(X)
from_file.predict(source, out=folder / "labels.npy")
print(f"means apart: {np.abs(from_file.means_ - in_memory.means_).max():.1e}")
print(sorted(path.name for path in folder.iterdir()))

# %%
# The density that was fitted, and a histogram of the first feature of the rows, read from the file.
labels = np.load(folder / "labels.npy", mmap_mode="r")
stored = np.load(folder / "rows.npy", mmap_mode="r")
grid = np.linspace(-8, 9, 120)
points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
density = np.exp(from_file.score_samples(points)).reshape(120, 120)

fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
picture = axes[0].contourf(grid, grid, density, levels=12, cmap="viridis")
axes[0].plot(*from_file.means_.T, "w+", markersize=12)
axes[0].set(title="density", xlabel="feature 1", ylabel="feature 2", aspect="equal")
fig.colorbar(picture, ax=axes[0])
for k in range(3):
    axes[1].hist(stored[labels == k, 0], bins=80, alpha=0.6, label=f"component {k}")
axes[1].set(title="labels from the file", xlabel="feature 1", ylabel="rows")
axes[1].set_ylim(0, 5_200)
axes[1].legend(loc="upper center", ncols=3, fontsize="small")
plt.show()
