"""The disk cache of compiled kernels.

There is one file per kernel, signature, CPU and version of the sources. Numba's own cache looks only at the file that
holds the entry function. After an edit or an upgrade of a leaf in another file it returns the old machine code. It also
numbers its files through a shared index, and two processes that compile at the same time can leave this index pointing
at each other's code (numba #4807).

Here a file's name is a hash of everything that the code depends on, including the text of all files in
``fastgmm/kernels`` and its subfolders. A file is therefore either right or missing, and no index is needed.

The folder is ``$NUMBA_CACHE_DIR/fastgmm`` if that variable is set, else the user's cache folder, else the package's
``__pycache__``. A read-only folder is read, but not written. Without a folder, or with ``FASTGMM_CACHE=0``, every
process compiles its kernels.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba

from .numba_internals import DispatcherCache, can_be_saved, config, deserialise, serialise, user_cache_folder

KERNELS_FOLDER = Path(__file__).resolve().parent.parent
# The folders with functions that are compiled: M-steps of covariance models are compiled into runs of EM.
COMPILED_FOLDERS = ("kernels", "covariance")
# Folders of compiled kernels that are kept: this version's and the newest others.
MAX_VERSIONS = 8


def source_stamp() -> str:
    """Return a hash of everything that the machine code of kernels depends on.

    That is the source text of all kernel modules and the versions of Python, Numba and llvmlite.
    """
    digest = hashlib.sha256()
    package = KERNELS_FOLDER.parent
    for folder in COMPILED_FOLDERS:
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    return digest.hexdigest()[:16]


# Computed at import: the sources can change on disk before the first kernel is compiled.
STAMP = source_stamp()


@functools.lru_cache(maxsize=1)
def _candidates() -> list[Path]:
    """Return the folders that may hold compiled kernels, in the order of search.

    The list is empty if caching is off.
    """
    in_archive = not any(KERNELS_FOLDER.glob("*.py"))  # the sources cannot be hashed
    if os.environ.get("FASTGMM_CACHE") == "0" or in_archive:
        return []
    if config.CACHE_DIR:
        roots = [Path(config.CACHE_DIR) / "fastgmm"]
    else:
        roots = [user_cache_folder("fastgmm"), KERNELS_FOLDER / "__pycache__"]
    return [root / f"kernels-{STAMP}" for root in roots]


@functools.lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Return the folder to save compiled kernels in, or None if none is writable."""
    for folder in _candidates():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        _remove_old_versions(folder.parent)
        return folder
    return None


def _remove_old_versions(root: Path) -> None:
    """Remove all but the newest `MAX_VERSIONS` folders.

    A process that still uses a removed folder compiles again.
    """
    with contextlib.suppress(OSError):  # another process may remove the same folders
        folders = sorted(root.glob("kernels-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in folders[MAX_VERSIONS:]:
            shutil.rmtree(folder, ignore_errors=True)


class KernelCache(DispatcherCache):
    """The disk cache of one jitted function; Numba calls its methods."""

    def __init__(self, function, options: dict):
        self._function = function
        self._options = options
        self._enabled = True

    @property
    def cache_path(self) -> str | None:
        folder = cache_folder()
        return None if folder is None else str(folder)

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        """Remove this kernel's files."""
        folder = cache_folder()
        for path in () if folder is None else folder.glob(f"{self._function.__qualname__}-*"):
            path.unlink(missing_ok=True)

    def _file_name(self, signature, codegen) -> str:
        # Numba's key leaves out the compiler's options; bounds checks are set in the environment.
        options = sorted((name, str(value)) for name, value in self._options.items())
        key = (str(signature), codegen.magic_tuple(), options, config.BOUNDSCHECK, str(config.OPT))
        return f"{self._function.__qualname__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.bin"

    def load_overload(self, sig, target_context):
        """Return the compiled code of a signature, or None.

        Read-only folders are searched too.
        """
        target_context.refresh()
        name = self._file_name(sig, target_context.codegen())
        for folder in _candidates() if self._enabled else ():
            try:
                return deserialise(target_context, (folder / name).read_bytes())
            except Exception:  # missing, truncated or damaged: Numba compiles and saves again
                continue
        return None

    def save_overload(self, sig, data) -> None:
        """Save the compiled code of a signature.

        Nothing is saved if the sources have changed since they were imported.
        """
        folder = cache_folder() if self._enabled else None
        if folder is None or not can_be_saved(data) or source_stamp() != STAMP:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".new", delete=False) as file:
                file.write(serialise(data))
            os.replace(file.name, folder / self._file_name(sig, data.codegen))
        except OSError:  # a full or missing disk costs the next process a compilation, nothing more
            pass
