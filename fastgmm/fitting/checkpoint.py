"""A fit's state in a file, so that a fit that is killed loses a pass at most.

A checkpoint is a header and data (see `plain_data`): loading one runs no code from it.

    16 bytes   what the file is: `MAGIC`
     4 bytes   version of the format
     8 bytes   number of bytes of data
    32 bytes   BLAKE2b of the header up to here and of the data
       ...     data

All numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastgmm.data.output import check_writable, replacing
from fastgmm.data.plain_data import NotPlainDataError, digest, listed, pack, unpack
from fastgmm.data.targets import READ, check_target
from fastgmm.m_step.variational import WEIGHT_PRIORS, Posterior, Prior
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics

from . import options
from .run_state import CheckpointState, EMResult, RunState

# As in PNG: a byte that is no text, and line ends that a transfer as text would change.
MAGIC = b"\x93fastgmm fit\r\n\x1a\n"
VERSION = 4  # version 1 was a pickle
HEADER = struct.Struct("<16sIQ")
N_DIGEST = 32
# How much of a file is read to tell what it is.
N_HEAD = 4096
ADVICE = "Remove it, or give another name, to start anew."


class Content(NamedTuple):
    """The content of a checkpoint; see `CheckpointFile`. `about` has a digest and a short text for each name."""

    about: dict[str, dict[str, str]]
    all_rows: int | None
    kept: CheckpointState


# What that consists of, besides numbers and arrays.
TYPES = listed(
    Content,
    CheckpointState,
    RunState,
    EMResult,
    MixtureParameters,
    SufficientStatistics,
    Posterior,
    Prior,
    *WEIGHT_PRIORS.values(),
    *(acceleration.accelerator for acceleration in options.ACCELERATIONS.values()),
)


class CheckpointFile:
    """A file for the state of one fit; see `options.CheckpointFile`.

    Parameters
    ----------
    path : path
    about : dict
        What the fit is of, by name: a file of another fit is refused.
    all_rows : callable () -> int or None
        A checksum of all rows, None until they have been read once. It is compared as soon as it is there.
    """

    def __init__(self, path: str | os.PathLike, about: dict[str, Any], all_rows: Callable[[], int | None]):
        self.path, self.all_rows = path, all_rows
        self.target = check_target(path, "checkpoint", {})  # wherever the current folder is later
        self.about = {name: {"digest": digest(value), "shown": _brief(value)} for name, value in about.items()}
        self.resumed_rows: int | None = None

    def begin(self) -> None:
        """A fit begins. An older state stays until there is a newer one. OSError if nothing can be written."""
        check_checkpoint(self.path)

    def save(self, kept: CheckpointState) -> None:
        """Write the state; the file has the one before or this one, whatever happens."""
        all_rows = self._checked_rows()
        # For meanwhile something else may have been put there.
        _check_replaceable(check_target(self.target, "checkpoint", {}), self.path)
        with replacing(self.target) as file:
            file.write(encoded(Content(self.about, all_rows, kept)))

    def verify(self, read_all: Callable[[], object]) -> None:
        """Compare all rows with those of the loaded state, once a run has ended.

        A run that had ended before makes no pass over the rows, so they would not be compared otherwise.

        Parameters
        ----------
        read_all : callable
            Reads all rows; it is called if there is something to compare, and they have not been read.

        Raises
        ------
        ValueError
            If the rows are others.
        """
        if self.resumed_rows is not None and self.all_rows() is None:
            read_all()
        self._checked_rows()

    def _checked_rows(self) -> int | None:
        """Return the checksum of all rows, as far as it is known; ValueError if it is not that of the loaded state."""
        all_rows = self.all_rows()
        if all_rows is None:
            return self.resumed_rows
        if self.resumed_rows is not None and all_rows != self.resumed_rows:
            raise ValueError(
                f"{self.path} is of another fit: now that all rows have been read, their values are not those that it "
                "is of. Give the same rows, or remove the file to start anew."
            )
        return all_rows

    def load(self) -> CheckpointState | None:
        """The state; None if there is no file. ValueError if it is not one of this fit."""
        try:
            content = decoded(self.target.read_bytes(), self.path)
        except FileNotFoundError:
            return None
        for name in {**self.about, **content.about}:  # the class first
            is_now, was = self.about.get(name, {}), content.about.get(name, {})
            if is_now.get("digest") != was.get("digest"):
                raise ValueError(
                    f"{self.path} is of another fit: {name} was {was.get('shown', 'not there')}, and is "
                    f"{is_now.get('shown', 'not there')}. Set it as it was, or remove the file to start anew."
                )
        self.resumed_rows = content.all_rows
        return content.kept


def check_checkpoint(path: str | os.PathLike, read: Sequence[Path] = ()) -> None:
    """Check that a checkpoint can be written to a path, and that no other kind of file is there.

    Parameters
    ----------
    path : path
    read : sequence of Path
        Files that the rows are read from.

    Raises
    ------
    ValueError
        If there is anything but a checkpoint, or the path is among the files that are read.
    OSError
        If nothing can be written there.
    """
    target = check_target(path, "checkpoint", {READ: read})
    _check_replaceable(target, path)
    check_writable(target)


def encoded(content: Content) -> bytes:
    """Return the bytes of a checkpoint."""
    data = pack(content, TYPES)
    header = HEADER.pack(MAGIC, VERSION, len(data))
    return header + _checksum(header, data) + data


def decoded(found: bytes, path: str | os.PathLike) -> Content:
    """Return what a checkpoint has in it.

    Raises
    ------
    ValueError
        If the bytes are no checkpoint, of another version, or damaged. It names the file.
    """
    if not found.startswith(MAGIC):
        raise ValueError(f"{path} is {_what(found)}. {ADVICE}")
    try:
        _, version, n_data = HEADER.unpack_from(found)
        if version != VERSION:
            raise ValueError(f"{path} is a checkpoint of format {version}, but this fastgmm reads {VERSION}. {ADVICE}")
        header, checksum, data = found[: HEADER.size], found[HEADER.size :][:N_DIGEST], found[HEADER.size + N_DIGEST :]
        if len(data) == n_data and checksum == _checksum(header, data):
            content = unpack(data, TYPES)
            if isinstance(content, Content) and isinstance(content.kept, CheckpointState):
                return content
            raise NotPlainDataError("it holds something else than the state of a fit")
    except struct.error:
        pass  # cut short
    except NotPlainDataError as error:
        raise ValueError(f"{path} is a checkpoint of another version of fastgmm: {error}. {ADVICE}") from None
    raise ValueError(f"{path} is a checkpoint that is damaged or cut short: its checksum is wrong. {ADVICE}")


def _checksum(header: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(header + data, digest_size=N_DIGEST).digest()


def _check_replaceable(target: Path, path: str | os.PathLike) -> None:
    """Raise ValueError if there is anything but a checkpoint."""
    with contextlib.suppress(FileNotFoundError), target.open("rb") as file:
        head = file.read(N_HEAD)
        if not head.startswith(MAGIC):
            raise ValueError(
                f"checkpoint should be a file that does not exist yet, or a checkpoint, but {str(path)!r} is "
                f"{_what(head)}. Choose another name, or remove the file if it is not needed."
            )


def _what(head: bytes) -> str:
    """Return in words what a file is that does not begin as a checkpoint does."""
    if not head:
        return "an empty file"
    if head[:1] == b"\x80" and b"format" in head and b"about" in head:
        return "a checkpoint of an older format, a pickle, which is not opened since it could run any code"
    return "not a checkpoint of a fit"


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return repr(value.tolist()) if value.ndim == 1 and len(value) <= 20 else f"an array of shape {value.shape}"
    return repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}..."
