"""Draw the picture of the README and of the first page: ``python docs/make_picture.py`` (needs ``fastgmm[demo]``)."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Ellipse
from PIL import Image
from sklearn.datasets import load_sample_image

from fastgmm import GaussianMixture

FILE = Path(__file__).parent / "_static" / "segmentation.png"
COLOURS = 160  # of the palette, which halves the size of the file

photograph = load_sample_image("china.jpg")
X = photograph.reshape(-1, 3) / 255.0
model = GaussianMixture(16, random_state=0, max_iter=200, tol=1e-4).fit(X)
colours = np.clip(model.means_, 0, 1)
segmented = colours[model.predict(X)].reshape(photograph.shape)

# The plane in which the pixels vary most; red grows to the right and upwards.
mean = X.mean(axis=0)
axes = np.linalg.eigh(np.cov(X.T))[1][:, ::-1][:, :2]
axes *= np.sign(axes[0])
shown = X[np.random.default_rng(0).choice(len(X), size=8_000, replace=False)]

figure, panels = plt.subplots(1, 3, figsize=(11, 2.75), width_ratios=[1.42, 1.42, 1.3], layout="constrained")
for panel, picture, title in zip(panels, (photograph, segmented), ("photograph", "16 components"), strict=False):
    panel.imshow(picture)
    panel.set_title(title, fontsize=11)
    panel.set_axis_off()
panels[2].scatter(*((shown - mean) @ axes).T, c=shown, s=3, linewidths=0)
for weight, centre, covariance, colour in zip(model.weights_, model.means_, model.covariances_, colours, strict=True):
    values, vectors = np.linalg.eigh(axes.T @ covariance @ axes)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    place, (width, height) = (centre - mean) @ axes, 4 * np.sqrt(values[::-1])  # two standard deviations either side
    for edge, line in (("white", 2.0), ("black", 0.9)):
        panels[2].add_patch(Ellipse(place, width, height, angle=angle, fill=False, edgecolor=edge, linewidth=line))
    panels[2].plot(*place, "o", color=colour, markeredgecolor="black", markersize=3 + 16 * np.sqrt(weight))
panels[2].set_title("pixels and components", fontsize=11)
panels[2].set(xlabel="first principal colour", ylabel="second", xticks=[], yticks=[])
figure.savefig(FILE, dpi=110)
Image.open(FILE).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(FILE, optimize=True)
