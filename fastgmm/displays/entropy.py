"""`EntropyDisplay`: the entropy of a clustering against the number of clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fastgmm.analysis.component_merging import CombinedComponents

from .axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class EntropyDisplay:
    """Entropy of a clustering against the number of clusters of merged components.

    A good number of clusters is where the line bends: with fewer clusters the entropy falls slowly.

    Parameters
    ----------
    combined : CombinedComponents
        Result of `combine_components`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of the axes.
    line_ : matplotlib Line2D
        Line of the entropies.

    See Also
    --------
    combine_components : Merging of components, which gives the entropies.
    CriterionDisplay : Criterion of a search against the number of components.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgmm import EntropyDisplay, GaussianMixture, combine_components
    >>> X = np.random.default_rng(0).uniform(size=(300, 2))
    >>> combined = combine_components(GaussianMixture(3, random_state=0).fit(X), X)
    >>> display = EntropyDisplay.from_combination(combined)
    >>> display.line_.get_xdata()
    array([3, 2, 1])
    """

    ax_: Axes
    figure_: Figure | SubFigure
    line_: Line2D

    def __init__(self, combined: CombinedComponents) -> None:
        self.combined = combined

    @classmethod
    def from_combination(cls, combined: CombinedComponents, *, ax: Axes | None = None) -> Self:
        """Draw the entropies of merged components.

        Parameters
        ----------
        combined : CombinedComponents
            Result of `combine_components`.
        ax : matplotlib Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        EntropyDisplay
            The display, with its picture.

        Raises
        ------
        TypeError
            If `combined` is not a result of `combine_components`.
        ImportError
            If matplotlib is not installed.
        """
        return cls(combined).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        self
            The display, with its picture.

        Raises
        ------
        TypeError
            If the display was not made from a result of `combine_components`.
        ImportError
            If matplotlib is not installed.
        """
        if not isinstance(self.combined, CombinedComponents):
            raise TypeError(
                f"combined must be a result of combine_components, got {type(self.combined).__name__}. Call "
                "combine_components(model, X)."
            )
        self.ax_ = axes_or_new(ax)
        self.figure_ = self.ax_.figure
        (self.line_,) = self.ax_.plot(self.combined.n_clusters, self.combined.entropies, marker="o")
        self.ax_.set_xlabel("number of clusters")
        self.ax_.set_ylabel("entropy of the clustering, nats")
        self.ax_.locator_params("x", integer=True)
        return self
