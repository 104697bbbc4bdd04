"""
Segmenting a photograph
=======================

Each pixel is a row with three features. A mixture of sixteen components gives each pixel the mean colour of its
component.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from fastgmm import GaussianMixture

photograph = load_sample_image("flower.jpg")
X = photograph.reshape(-1, 3) / 255.0

model = GaussianMixture(16, random_state=0).fit(X)
segmented = np.clip(model.means_, 0, 1)[model.predict(X)].reshape(photograph.shape)
print(f"{len(X):,} pixels, {model.n_iter_} passes over all of them")

# %%
# Pixels of low density are those whose colour is rare in the photograph.
surprise = -model.score_samples(X).reshape(photograph.shape[:2])

fig, axes = plt.subplots(1, 3, figsize=(11, 2.7), layout="constrained")
axes[0].imshow(photograph)
axes[0].set_title("photograph")
axes[1].imshow(segmented)
axes[1].set_title("mean colour of the component")
axes[2].imshow(surprise, cmap="magma", vmax=np.percentile(surprise, 99.5))
axes[2].set_title("negative log-density")
for ax in axes:
    ax.set_axis_off()
plt.show()
