"""`EntropyDisplay`: the entropy of a clustering against the number of clusters."""

from __future__ import annotations

from typing import Any, Self

from fastgmm.analysis.component_merging import CombinedComponents

from .axes import axes_or_new


class EntropyDisplay:
    """The entropy of a clustering against the number of clusters that components are joined to.

    A number to take is where the line bends: joining further makes rows hardly surer of their cluster.

    Parameters
    ----------
    combined : CombinedComponents
        See `combine_components`.

    Attributes
    ----------
    ax_, figure_, line_ : matplotlib's Axes, Figure and Line2D
    """

    def __init__(self, combined: CombinedComponents):
        self.combined = combined

    @classmethod
    def from_combination(cls, combined: CombinedComponents, *, ax: Any = None) -> Self:
        """Draw; `ax` are the axes to draw on, by default those of a new figure."""
        return cls(combined).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw on some axes, or on those of a new figure."""
        if not isinstance(self.combined, CombinedComponents):
            raise TypeError(f"This draws what combine_components returns, but got {type(self.combined).__name__}")
        self.ax_ = axes_or_new(ax)
        self.figure_ = self.ax_.figure
        (self.line_,) = self.ax_.plot(self.combined.n_clusters, self.combined.entropies, marker="o")
        self.ax_.set_xlabel("number of clusters")
        self.ax_.set_ylabel("entropy of the clustering, nats")
        self.ax_.xaxis.get_major_locator().set_params(integer=True)
        return self
