"""Axes to draw on; matplotlib is imported when a picture is asked for."""

from __future__ import annotations

from typing import Any


def axes_or_new(ax: Any) -> Any:
    """The axes, or those of a new figure; ImportError that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError('matplotlib is needed for pictures: pip install "fastgmm[plot]"') from None
    return plt.subplots(figsize=(8, 5), layout="constrained")[1] if ax is None else ax
