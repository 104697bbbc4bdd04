"""`CriterionDisplay`: the criterion of a search against the number of components."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastgmm.analysis.search import CRITERIA, MixtureSearch

from .axes import axes_or_new

MARKERS = "osv^D<>PXph*dH"


class CriterionDisplay:
    """The criterion of a `MixtureSearch` against the number of components, a line for each covariance model.

    Parameters
    ----------
    results : dict of ndarrays
        `MixtureSearch.results_`.
    criterion : str
        The column of `results` that is drawn.

    Attributes
    ----------
    ax_, figure_ : matplotlib's Axes and Figure
    lines_ : dict of str to Line2D
        By covariance model.
    left_out_ : PathCollection
        Crosses at the bottom, in the models' colours, for what failed and so took no part in the choice.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastgmm import CriterionDisplay, MixtureSearch
    >>> search = MixtureSearch(range(1, 4), covariance_types=["EEE", "VEV"], random_state=0).fit(load_iris().data)
    >>> display = CriterionDisplay.from_search(search)
    >>> sorted(display.lines_)
    ['EEE', 'VEV']
    """

    def __init__(self, results: dict[str, np.ndarray], criterion: str = "bic"):
        self.results, self.criterion = results, criterion

    @classmethod
    def from_search(cls, search: MixtureSearch, *, criterion: str | None = None, ax: Any = None) -> Self:
        """Draw the results of a fitted search.

        Parameters
        ----------
        search : MixtureSearch
        criterion : {"bic", "icl", "aic", "cv"}, optional
            By default the search's.
        ax : matplotlib Axes, optional
            Where to; by default a new figure.
        """
        check_is_fitted(search)
        return cls(search.results_, search.criterion if criterion is None else criterion).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw on some axes, or on those of a new figure; the best is marked with a ring."""
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion should be one of {', '.join(CRITERIA)}, but is {self.criterion!r}")
        if np.isnan(self.results[self.criterion]).all():
            raise ValueError(f"There is no {self.criterion} in these results: search with criterion={self.criterion!r}")
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
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
        return self

    def _mark_left_out(self, types: np.ndarray, numbers: np.ndarray, left_out: np.ndarray) -> None:
        """A cross for each below all lines, those of one number of components above each other."""
        ax, numbers = self.ax_, numbers[left_out]
        heights = [0.02 + 0.025 * int((numbers[:i] == number).sum()) for i, number in enumerate(numbers)]
        colours = [self.lines_[name].get_color() for name in types[left_out]]
        looks = {"s": 16, "marker": "x", "linewidths": 1}
        self.left_out_ = ax.scatter(numbers, heights, c=colours, transform=ax.get_xaxis_transform(), **looks)
        if heights:
            ax.scatter([], [], color="gray", label="left out", **looks)
            part, (low, high) = max(heights), ax.get_ylim()
            ax.set_ylim(low - (high - low) * part / (1 - part), high, auto=True)
