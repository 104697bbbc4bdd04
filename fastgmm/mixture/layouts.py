"""Layouts of sufficient statistics: how the scatter of rows is stored.

The algebra that depends on the layout is here too. The kernels have three layouts: "full" stores a matrix of scatter
for each component, "diagonal" its diagonal, and "tied" one matrix for all components.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgmm.kernels import serial_matmul

Array = NDArray[np.float64]


class Layout(abc.ABC):
    """How the scatter of rows is kept.

    Attributes
    ----------
    name : str
        The kernels' name.
    has_matrices : bool
        Whether scatter has entries for pairs of features.
    is_shared : bool
        Whether one scatter is that of all components, about one reference point.
    """

    name: ClassVar[str]
    has_matrices: ClassVar[bool] = True
    is_shared: ClassVar[bool] = False

    @abc.abstractmethod
    def scatter_shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return the shape of the scatter."""

    @abc.abstractmethod
    def recentred(self, scatter: Array, move: Array, first_moments: Array, moved: Array) -> Array:
        """Return the scatter about new reference points.

        `move` is the old points minus the new ones, (K, D), and ``moved = weight_sums move``.
        """

    @abc.abstractmethod
    def about_means(self, scatter: Array, move: Array, factor: Array, floor: Callable[[], Array]) -> Array:
        """Return ``scatter - sum_k factor_k move_k move_k^T`` in this layout.

        Parameters
        ----------
        scatter : as the layout keeps it
        move : (K, D)
            From the reference points to the means.
        factor : (K,)
        floor : callable () -> (K, D)
            Variances times weight sums that are no more than rounding. Called by layouts that need it.
        """

    def reference_points(self, origin: Array, means: Array) -> Array:
        """Return the reference points of a pass, (K, D).

        They are the means, which the kernels store relative to an origin.
        """
        return origin + means

    def from_kernel(self, scatter: Array) -> Array:
        """Return the scatter that a kernel has summed up as statistics keep it."""
        return scatter

    def variances(self, scatter: Array) -> Array:
        """Return the diagonals of the scatter."""
        return np.einsum("...dd->...d", scatter)


class FullLayout(Layout):
    """A matrix of scatter for each component, (K, D, D)."""

    name = "full"

    def scatter_shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return ``(K, D, D)``."""
        return n_components, n_features, n_features

    def recentred(self, scatter: Array, move: Array, first_moments: Array, moved: Array) -> Array:
        """Return the scatter about other reference points; see `Layout`."""
        return scatter + _change(move, first_moments, moved)

    def about_means(self, scatter: Array, move: Array, factor: Array, floor: Callable[[], Array]) -> Array:
        """Return the scatter about the means; see `Layout`."""
        moved = np.einsum("k,kd,ke->kde", factor, move, move)
        return np.subtract(scatter, moved, out=moved)


class TiedLayout(Layout):
    """One matrix of scatter for all components, (D, D)."""

    name, is_shared = "tied", True

    def scatter_shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return ``(D, D)``."""
        return n_features, n_features

    def recentred(self, scatter: Array, move: Array, first_moments: Array, moved: Array) -> Array:
        """Return the scatter about other reference points; see `Layout`."""
        return scatter + _change(move, first_moments, moved).sum(axis=0)

    def about_means(self, scatter: Array, move: Array, factor: Array, floor: Callable[[], Array]) -> Array:
        """Return the scatter about the means; see `Layout`."""
        return scatter - serial_matmul((factor[:, np.newaxis] * move).T, move)

    def reference_points(self, origin: Array, means: Array) -> Array:
        """Return the origin for all components, (K, D).

        The kernels' means are multiplied by the factor, so they cannot be used.
        """
        return np.repeat(origin[np.newaxis], len(means), axis=0)

    def from_kernel(self, scatter: Array) -> Array:
        """Return the one matrix that the kernel has summed up."""
        return scatter[0]


class DiagonalLayout(Layout):
    """The diagonal of scatter for each component, (K, D)."""

    name, has_matrices = "diagonal", False

    def scatter_shape(self, n_components: int, n_features: int) -> tuple[int, ...]:
        """Return ``(K, D)``."""
        return n_components, n_features

    def recentred(self, scatter: Array, move: Array, first_moments: Array, moved: Array) -> Array:
        """Return the scatter about other reference points; see `Layout`."""
        return scatter + move * (2 * first_moments + moved)

    def about_means(self, scatter: Array, move: Array, factor: Array, floor: Callable[[], Array]) -> Array:
        """Return the scatter about the means, at least what is rounding; see `Layout`."""
        # A smaller scatter is not distinguishable from rounding.
        return np.maximum(scatter - factor[:, np.newaxis] * move**2, floor())

    def from_kernel(self, scatter: Array) -> Array:
        """Return the diagonals that the kernel has summed up."""
        return scatter[:, 0]

    def variances(self, scatter: Array) -> Array:
        """Return the scatter itself."""
        return scatter


def _change(move: Array, first_moments: Array, moved: Array) -> Array:
    """Return ``d f^T + f d^T + n d d^T`` for each component, (K, D, D)."""
    half = np.einsum("kd,ke->kde", move, first_moments + moved / 2)
    return half + half.swapaxes(1, 2)


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (FullLayout(), TiedLayout(), DiagonalLayout())}
