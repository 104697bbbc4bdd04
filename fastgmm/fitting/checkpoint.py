"""Checkpoints: files with the state of a fit, from which it can be resumed.

A fit that is killed loses at most one pass. A checkpoint is a header and data (see `data.plain_data`). Loading it runs
no code from the file.

    16 bytes   identification of the file: `MAGIC`
     4 bytes   version of the format
     8 bytes   number of bytes of the data
    32 bytes   BLAKE2b digest of the header up to here and of the data
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

# As in PNG: a byte that is not text, and line ends that a transfer as text would change.
MAGIC = b"\x93fastgmm fit\r\n\x1a\n"
VERSION = 5  # version 1 was a pickle
HEADER = struct.Struct("<16sIQ")
DIGEST_BYTES = 32
# The bytes of a file that are read to identify it.
HEAD_BYTES = 4096
ADVICE = "Remove it, or give another name, to start anew."


class Content(NamedTuple):
    """The content of a checkpoint.

    Attributes
    ----------
    about : dict
        What the fit depends on, by name. Each value is a dict with a digest and a short text, "digest" and "shown".
    row_checksum : int or None
        A checksum of all rows; None if they have not been read.
    state : CheckpointState
    """

    about: dict[str, dict[str, str]]
    row_checksum: int | None
    state: CheckpointState


# The types of which the content consists, besides numbers and arrays.
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
    """A file for the state of one fit; implements `options.CheckpointStore`.

    Parameters
    ----------
    path : path
    about : dict
        What the fit depends on, by name. A file with other values is refused.
    row_checksum : callable () -> int or None
        Returns a checksum of all rows; None until they have been read once. It is compared as soon as there is one.
    """

    def __init__(self, path: str | os.PathLike, about: dict[str, Any], row_checksum: Callable[[], int | None]):
        self.path, self.row_checksum = path, row_checksum
        self.target = check_target(path, "checkpoint", {})  # absolute: the working directory may change
        self.about = {name: {"digest": digest(value), "shown": _brief(value)} for name, value in about.items()}
        self.loaded_checksum: int | None = None

    def begin(self) -> None:
        """Check, when a fit begins, that a state can be saved.

        An older state stays until there is a newer one.

        Raises
        ------
        ValueError
            If there is a file that is not a checkpoint.
        OSError
            If the file cannot be written.
        """
        check_checkpoint(self.path)

    def save(self, state: CheckpointState) -> None:
        """Write a state. If that fails, the file still has the state before.

        Raises
        ------
        ValueError
            If there is a file that is not a checkpoint, or the rows differ from those of the loaded state.
        OSError
            If the file cannot be written.
        """
        row_checksum = self._checked_row_checksum()
        # Another program may have put another file there since the fit began.
        _check_replaceable(check_target(self.target, "checkpoint", {}), self.path)
        with replacing(self.target) as file:
            file.write(encoded(Content(self.about, row_checksum, state)))

    def verify(self, read_all: Callable[[], object]) -> None:
        """Compare all rows with those of the loaded state, when a run has ended.

        A resumed run that had already ended makes no pass over the rows, so that they have not been compared.

        Parameters
        ----------
        read_all : callable
            Reads all rows. It is called if a state was loaded and the rows have not been read.

        Raises
        ------
        ValueError
            If the rows differ.
        """
        if self.loaded_checksum is not None and self.row_checksum() is None:
            read_all()
        self._checked_row_checksum()

    def _checked_row_checksum(self) -> int | None:
        """Return the checksum of all rows; the loaded one if they were not read.

        Raises
        ------
        ValueError
            If the two differ.
        """
        row_checksum = self.row_checksum()
        if row_checksum is None:
            return self.loaded_checksum
        if self.loaded_checksum is not None and row_checksum != self.loaded_checksum:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit: all rows have now been read, and they differ from the "
                "rows of that fit. Give the same rows, or remove the file to start anew."
            )
        return row_checksum

    def load(self) -> CheckpointState | None:
        """Return the state in the file; None if there is no file.

        Raises
        ------
        ValueError
            If the file is not a checkpoint of this fit, or is damaged.
        """
        try:
            content = decoded(self.target.read_bytes(), self.path)
        except FileNotFoundError:
            return None
        for name in {**self.about, **content.about}:  # the class first
            is_now, was = self.about.get(name, {}), content.about.get(name, {})
            if is_now.get("digest") != was.get("digest"):
                raise ValueError(
                    f"{self.path} is the checkpoint of another fit: {name} was {was.get('shown', 'not set')}, but is "
                    f"{is_now.get('shown', 'not set')} now. Set it back, or remove the file to start anew."
                )
        self.loaded_checksum = content.row_checksum
        return content.state


def check_checkpoint(path: str | os.PathLike, read: Sequence[Path] = ()) -> None:
    """Check that a checkpoint can be written to a path and replaces no other file.

    Parameters
    ----------
    path : path
    read : sequence of Path
        The files from which the rows are read.

    Raises
    ------
    ValueError
        If there is a file that is not a checkpoint, or the path is one of the files that are read.
    OSError
        If the file cannot be written.
    """
    target = check_target(path, "checkpoint", {READ: read})
    _check_replaceable(target, path)
    check_writable(target)


def encoded(content: Content) -> bytes:
    """Return the bytes of a checkpoint."""
    data = pack(content, TYPES)
    header = HEADER.pack(MAGIC, VERSION, len(data))
    return header + _checksum(header, data) + data


def decoded(checkpoint: bytes, path: str | os.PathLike) -> Content:
    """Return the content of a checkpoint.

    Parameters
    ----------
    checkpoint : bytes
        All bytes of the file.
    path : path
        For error messages.

    Raises
    ------
    ValueError
        If the bytes are not a checkpoint, have another version, or are damaged.
    """
    if not checkpoint.startswith(MAGIC):
        raise ValueError(f"{path} is {_description(checkpoint)}. {ADVICE}")
    try:
        _, version, n_data = HEADER.unpack_from(checkpoint)
        if version != VERSION:
            raise ValueError(f"{path} is a checkpoint of format {version}, but this fastgmm reads {VERSION}. {ADVICE}")
        header, rest = checkpoint[: HEADER.size], checkpoint[HEADER.size :]
        checksum, data = rest[:DIGEST_BYTES], rest[DIGEST_BYTES:]
        if len(data) == n_data and checksum == _checksum(header, data):
            content = unpack(data, TYPES)
            if isinstance(content, Content) and isinstance(content.state, CheckpointState):
                return content
            raise NotPlainDataError("it does not contain the state of a fit")
    except struct.error:
        pass  # the file is shorter than a header
    except NotPlainDataError as error:
        raise ValueError(f"{path} is a checkpoint of another version of fastgmm: {error}. {ADVICE}") from None
    raise ValueError(f"{path} is a checkpoint that is damaged or cut short: its checksum is wrong. {ADVICE}")


def _checksum(header: bytes, data: bytes) -> bytes:
    """Return a digest of the header and the data."""
    return hashlib.blake2b(header + data, digest_size=DIGEST_BYTES).digest()


def _check_replaceable(target: Path, path: str | os.PathLike) -> None:
    """Raise ValueError if there is a file that is not a checkpoint."""
    with contextlib.suppress(FileNotFoundError), target.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head.startswith(MAGIC):
            raise ValueError(
                f"checkpoint must be a file that does not exist yet, or a checkpoint, but {str(path)!r} is "
                f"{_description(head)}. Choose another name, or remove the file if it is not needed."
            )


def _description(head: bytes) -> str:
    """Describe a file that does not begin as a checkpoint does, by its first bytes."""
    if not head:
        return "an empty file"
    if head[:1] == b"\x80" and b"format" in head and b"about" in head:
        return "a checkpoint of an older format, a pickle, which is not opened because it could run any code"
    return "not a checkpoint of a fit"


def _brief(value: Any) -> str:
    """Return a short text for a value, for error messages."""
    if isinstance(value, np.ndarray):
        return repr(value.tolist()) if value.ndim == 1 and len(value) <= 20 else f"an array of shape {value.shape}"
    return repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}..."
