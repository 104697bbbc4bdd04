"""Warnings that point at the line of the user's code."""

from __future__ import annotations

import functools
import os
import sys
import warnings

# Files that are not the user's code. A cached property calls its function through functools.
INSIDE = (os.path.dirname(__file__) + os.sep, functools.__file__)


def warn_user(message: str, category: type[Warning]) -> None:
    """Issue a warning at the line of the code that called fastgmm."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
