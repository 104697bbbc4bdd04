"""A fit's state in a file, so that a fit that is killed loses a pass at most.

The file is a pickle: go on only from files that you, or whom you trust, have written.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .rules import Kept
from .writing import keep, replaced

FORMAT = 1
# What pickle may make of a file that is none.
UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError, KeyError)


class Checkpoint:
    """A file for the state of one fit; see `rules.Checkpoint`.

    Parameters
    ----------
    path : path
    about : dict of str
        What the fit is of: another fit's file is refused.

    Raises
    ------
    ValueError
        If there can be no such file.
    """

    def __init__(self, path: str | os.PathLike, about: dict[str, Any]):
        self.path = Path(path).absolute()
        self.about = {name: pickle.dumps(_in_order(value)) for name, value in about.items()}
        self.values = about
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint should be a file in a folder that exists, but is {str(path)!r}")

    def begin(self) -> None:
        """A fit begins: whatever there is is of another one. OSError if nothing can be written."""
        with replaced(self.path) as beside:
            beside.touch()
        self.path.unlink()

    def save(self, kept: Kept) -> None:
        """Write the state; the file has the one before or this one, whatever happens."""
        with replaced(self.path) as beside, beside.open("wb") as file:
            pickle.dump({"format": FORMAT, "about": self.about, "kept": kept}, file, protocol=5)
            keep(file)

    def load(self) -> Kept | None:
        """The state; None if there is no file. ValueError if it is not one of this fit."""
        try:
            with self.path.open("rb") as file:
                content = pickle.load(file)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise ValueError(f"{self.path} is no checkpoint of a fit: {error}") from None
        if not (isinstance(content, dict) and content.get("format") == FORMAT and {"about", "kept"} <= set(content)):
            raise ValueError(f"{self.path} is no checkpoint of a fit, or one of another version of fastgmm")
        for name in {**self.about, **content["about"]}:  # the class first
            if self.about.get(name) != content["about"].get(name):
                was = pickle.loads(content["about"][name]) if name in content["about"] else "not there"
                raise ValueError(
                    f"{self.path} is of another fit: {name} was {_brief(was)}, and is {_brief(self.values.get(name))}. "
                    "Set it as it was, or remove the file to start anew."
                )
        return content["kept"]


def _in_order(value: Any) -> Any:
    """An array in C order, whatever it was in."""
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value


def _brief(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
