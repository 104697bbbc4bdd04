"""Axes to draw on; matplotlib is imported when a picture is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the axes, or those of a new figure if there are none.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('Pictures need matplotlib. Install it: pip install "fastgmm[plot]"') from None
    return plt.subplots(figsize=(8, 5), layout="constrained")[1] if ax is None else ax
