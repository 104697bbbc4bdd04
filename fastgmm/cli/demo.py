"""The demonstration: a photograph segmented by fastgmm and by scikit-learn."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastgmm.data.output import replacing
from fastgmm.data.targets import check_target
from fastgmm.estimators.gaussian_mixture import GaussianMixture

HINT = 'The demonstration needs matplotlib and pillow: pip install "fastgmm[demo]"'


@dataclass(frozen=True)
class Timing:
    """The time and the result of a fit by one library.

    Attributes
    ----------
    seconds : float
    n_iter : int
        Number of EM iterations.
    log_likelihood : float
        Mean log-likelihood of the fitted model, in nats per row.
    """

    seconds: float
    n_iter: int
    log_likelihood: float


def load_pixels(name: str) -> tuple[NDArray, NDArray]:
    """Return one of scikit-learn's photographs and its pixels.

    The photograph has shape (height, width, 3), the pixels (N, 3). Values are from 0 to 1.
    """
    from sklearn.datasets import load_sample_image

    try:
        image = load_sample_image(name)
    except ImportError as error:
        raise SystemExit(HINT) from error
    image = image / 255.0
    return image, image.reshape(-1, 3)


def timed_fit(estimator, X: NDArray) -> Timing:
    """Fit an estimator of either library, and return its time and result."""
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # neither fit has converged after max_iter iterations
        estimator.fit(X)
    seconds = time.perf_counter() - begun
    return Timing(seconds, estimator.n_iter_, float(estimator.score(X)))


def checked_picture(output: Path) -> Path:
    """Return the file for a picture; SystemExit if it cannot be written."""
    try:
        import matplotlib  # noqa: F401
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        raise SystemExit(HINT) from error
    formats = FigureCanvasAgg.get_supported_filetypes()
    if output.suffix[1:].lower() not in formats:
        raise SystemExit(f"--output must be a picture, *.{', *.'.join(sorted(formats))}, got {str(output)!r}.")
    try:
        return check_target(output, "--output", {})
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


def run_demo(image_name: str, n_components: int, max_iter: int, output: Path) -> None:
    """Fit the pixels with both libraries, and compare the fits.

    Both start from the same parameters. The comparison is printed, and a picture of the fit is written.
    """
    target = checked_picture(output)
    import sklearn
    from sklearn.mixture import GaussianMixture as SklearnMixture

    image, X = load_pixels(image_name)
    print("Compiling, unless it is in the cache ... ", end="", flush=True)
    begun = time.perf_counter()
    compiled = GaussianMixture(n_components, max_iter=1, random_state=0)
    timed_fit(compiled, X)
    compiled.predict(X)
    print(f"{time.perf_counter() - begun:.1f} s.")
    begun = time.perf_counter()
    start = GaussianMixture(n_components, max_iter=0, random_state=0).fit(X)
    print(
        f"{image_name}: {len(X):,} pixels, {n_components} components with full covariances; "
        f"k-means start in {time.perf_counter() - begun:.2f} s.\nEM from there, in both libraries:\n"
    )
    options: dict[str, Any] = {
        "weights_init": start.weights_,
        "means_init": start.means_,
        "precisions_init": start.precisions_,
        "max_iter": max_iter,
        "tol": 1e-4,
    }
    model = GaussianMixture(n_components, acceleration=None, **options)
    ours = timed_fit(model, X)
    theirs = timed_fit(SklearnMixture(n_components, **options), X)
    print(f"{'':22}{'seconds':>10}{'iterations':>12}{'log-likelihood per pixel':>28}")
    for name, timing in (("fastgmm", ours), (f"scikit-learn {sklearn.__version__}", theirs)):
        print(f"{name:22}{timing.seconds:10.2f}{timing.n_iter:12d}{timing.log_likelihood:28.9f}")
    ratio = (theirs.seconds / theirs.n_iter) / (ours.seconds / ours.n_iter)
    print(f"\nfastgmm takes 1/{ratio:.0f} of scikit-learn's time for an iteration.")
    with replacing(target) as file:
        draw(image, X, model, file, output.suffix[1:].lower())
    print(f"The picture is in {output}.")


def draw(image: NDArray, X: NDArray, model: GaussianMixture, file: IO[bytes], picture_format: str) -> None:
    """Draw the photograph, its segmentation, and its pixels with ellipses.

    Segments have the mean colours of the components. Ellipses have two standard deviations on either side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    colours = np.clip(model.means_, 0, 1)
    segmented = colours[model.predict(X)].reshape(image.shape)
    # The plane in which the pixels vary most.
    mean = X.mean(axis=0)
    axes = np.linalg.eigh(np.cov(X.T))[1][:, ::-1][:, :2]
    axes *= np.sign(axes[0])  # red grows to the right and upwards

    figure = Figure(figsize=(15, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, width_ratios=[1.4, 1.4, 1.3])
    for panel, picture, title in ((panels[0], image, "photograph"), (panels[1], segmented, "most probable component")):
        panel.imshow(picture)
        panel.set_title(title)
        panel.set_axis_off()

    shown = X[np.random.default_rng(0).choice(len(X), size=min(len(X), 12_000), replace=False)]
    panel = panels[2]
    panel.scatter(*((shown - mean) @ axes).T, c=shown, s=3, linewidths=0)
    for weight, centre, covariance, colour in zip(
        model.weights_, model.means_, model.covariances_, colours, strict=True
    ):
        values, vectors = np.linalg.eigh(axes.T @ covariance @ axes)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        width, height = 4 * np.sqrt(values[::-1])  # two standard deviations either side
        place = (centre - mean) @ axes
        for edge, line in (("white", 2.2), ("black", 1.0)):
            panel.add_patch(Ellipse(place, width, height, angle=angle, fill=False, edgecolor=edge, linewidth=line))
        panel.plot(*place, "o", color=colour, markeredgecolor="black", markersize=4 + 20 * np.sqrt(weight))
    panel.set_title("pixels and components (2 sd, dot by weight)")
    panel.set_xlabel("first principal colour")
    panel.set_ylabel("second principal colour")
    figure.savefig(file, dpi=110, format=picture_format)
