"""`CriterionDisplay`: the criterion of a search against the number of components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fastgmm.analysis.search import CRITERIA, MixtureSearch

from .axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

MARKERS = "osv^D<>PXph*dH"


class CriterionDisplay:
    """Criterion of a search against the number of components, one line per model.

    Parameters
    ----------
    results : dict of ndarrays
        `MixtureSearch.results_`.
    criterion : {"bic", "icl", "aic", "cv"}, default="bic"
        Column of `results` to draw.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : dict of str to matplotlib Line2D
        Line of each covariance model.
    left_out_ : matplotlib PathCollection
        Crosses at the bottom, in the colours of the models, for cells that failed and were excluded from the choice.

    See Also
    --------
    MixtureSearch : Search whose results are drawn.
    EntropyDisplay : Entropy of merged components against the number of clusters.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgmm import CriterionDisplay, MixtureSearch
    >>> search = MixtureSearch(range(1, 4), covariance_types=["EEE", "VEV"], random_state=0).fit(load_iris().data)
    >>> display = CriterionDisplay.from_search(search)
    >>> sorted(display.lines_)
    ['EEE', 'VEV']
    """

    ax_: Axes
    figure_: Figure | SubFigure
    lines_: dict[str, Line2D]
    left_out_: PathCollection

    def __init__(self, results: dict[str, NDArray[Any]], criterion: Literal["bic", "icl", "aic", "cv"] = "bic") -> None:
        self.results, self.criterion = results, criterion

    @classmethod
    def from_search(
        cls,
        search: MixtureSearch,
        *,
        criterion: Literal["bic", "icl", "aic", "cv"] | None = None,
        ax: Axes | None = None,
    ) -> Self:
        """Draw the results of a fitted search.

        Parameters
        ----------
        search : MixtureSearch
            A fitted search.
        criterion : {"bic", "icl", "aic", "cv"}, optional
            Criterion to draw; by default that of the search.
        ax : matplotlib Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        CriterionDisplay
            The display, with its picture.

        Raises
        ------
        ValueError
            If the criterion is invalid, or the search has not computed it.
        ImportError
            If matplotlib is not installed.
        """
        check_is_fitted(search)
        return cls(search.results_, search.criterion if criterion is None else criterion).plot(ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the picture; a ring marks the best cell.

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
        ValueError
            If the criterion is invalid, or the search has not computed it.
        ImportError
            If matplotlib is not installed.
        """
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {self.criterion!r}.")
        if np.isnan(self.results[self.criterion]).all():
            raise ValueError(
                f"The results must have values of the criterion {self.criterion!r}, but all are NaN. Search with "
                f"criterion={self.criterion!r}."
            )
        self.ax_ = ax = axes_or_new(ax)
        self.figure_, self.lines_ = ax.figure, {}
        types, numbers = self.results["covariance_type"], self.results["n_components"]
        values = self.results[self.criterion]
        for i, name in enumerate(dict.fromkeys(types.tolist())):
            of_model = types == name
            (line,) = ax.plot(
                numbers[of_model], values[of_model], marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1,
                color=f"C{i % 10}", linestyle="-" if i < 10 else "--", label=name,
            )  # fmt: skip
            self.lines_[name] = line
        best = np.nanargmax(values) if CRITERIA[self.criterion] else np.nanargmin(values)
        label = f"best: {types[best]}, {numbers[best]}"
        ax.plot(numbers[best], values[best], "o", markersize=14, fillstyle="none", color="black", label=label)
        self._mark_left_out(types, numbers, np.isnan(values))
        ax.set_xlabel("number of components")
        ax.set_ylabel(self.criterion.upper() if self.criterion != "cv" else "log-likelihood of rows left out, per row")
        ax.locator_params("x", integer=True)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
        return self

    def _mark_left_out(self, types: NDArray[Any], numbers: NDArray[Any], left_out: NDArray[np.bool_]) -> None:
        """Draw a cross below all lines for each excluded cell."""
        ax, numbers = self.ax_, numbers[left_out]
        heights = [0.02 + 0.025 * int((numbers[:i] == number).sum()) for i, number in enumerate(numbers)]
        colours = [self.lines_[name].get_color() for name in types[left_out]]
        looks: dict[str, Any] = {"s": 16, "marker": "x", "linewidths": 1}
        self.left_out_ = ax.scatter(numbers, heights, c=colours, transform=ax.get_xaxis_transform(), **looks)
        if heights:
            ax.scatter([], [], color="gray", label="left out", **looks)
            part, (low, high) = max(heights), ax.get_ylim()
            ax.set_ylim(low - (high - low) * part / (1 - part), high, auto=True)
