"""Compiled kernels on disk, one file for each kernel, signature, CPU and version of the sources.

Numba's own cache looks only at the file that holds the entry function: after an edit or an upgrade of a leaf in another
file it goes on returning the old machine code. It also numbers its files through a shared index, which two processes
that compile at the same time can leave pointing at each other's code (numba #4807). Here the name of a file is a hash
of everything the code depends on, the text of all of ``fastgmm/kernels`` included, so a file is either right or not
there, and no index is needed.

The folder is ``$NUMBA_CACHE_DIR/fastgmm`` if that variable is set, else the user's cache folder, else the package's
``__pycache__``; a folder that can only be read is read. Without one, or with ``FASTGMM_CACHE=0``, kernels are compiled
anew in every process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

KERNELS = Path(__file__).resolve().parent.parent
VERSIONS_KEPT = 8


def source_stamp() -> str:
    """A hash of the source text of every kernel module and of the versions that turn it into machine code."""
    digest = hashlib.sha256()
    for path in sorted(KERNELS.rglob("*.py")):
        digest.update(path.relative_to(KERNELS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    return digest.hexdigest()[:16]


# Of the sources as they were when the kernels were imported, not as they may be when the first one is compiled.
STAMP = source_stamp()


@functools.lru_cache(maxsize=1)
def _candidates() -> list[Path]:
    """Folders for compiled kernels, in the order in which they are looked at; none if caching is switched off."""
    if os.environ.get("FASTGMM_CACHE") == "0" or not any(KERNELS.glob("*.py")):  # in an archive there is no stamp
        return []
    if config.CACHE_DIR:
        roots = [Path(config.CACHE_DIR) / "fastgmm"]
    else:
        roots = [Path(AppDirs(appname="fastgmm", appauthor=False).user_cache_dir), KERNELS / "__pycache__"]
    return [root / f"kernels-{STAMP}" for root in roots]


@functools.lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """The folder in which compiled kernels are saved, or None if there is none that can be written to."""
    for folder in _candidates():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        _forget_old_versions(folder.parent)
        return folder
    return None


def _forget_old_versions(root: Path) -> None:
    """Remove all but the newest few folders of other versions; a process that still uses one only compiles again."""
    with contextlib.suppress(OSError):  # another process may be at the same
        folders = sorted(root.glob("kernels-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in folders[VERSIONS_KEPT:]:
            shutil.rmtree(folder, ignore_errors=True)


class KernelCache(_Cache):
    """The cache of one dispatcher, in the form that Numba's dispatchers ask for."""

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
        # Numba's key leaves the compiler's options out; bounds checks come from the environment.
        options = sorted((name, str(value)) for name, value in self._options.items())
        key = (str(signature), codegen.magic_tuple(), options, config.BOUNDSCHECK, str(config.OPT))
        return f"{self._function.__qualname__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.bin"

    def load_overload(self, sig, target_context):
        target_context.refresh()
        name = self._file_name(sig, target_context.codegen())
        for folder in _candidates() if self._enabled else ():  # one that was filled and is read-only now will do
            try:
                return CompileResult._rebuild(target_context, *pickle.loads((folder / name).read_bytes()))
            except Exception:  # not there, truncated or unreadable: compiling puts it right
                continue
        return None

    def save_overload(self, sig, data) -> None:
        folder = cache_folder() if self._enabled else None
        if folder is None or data.library.has_dynamic_globals or source_stamp() != STAMP:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".new", delete=False) as file:
                file.write(dumps(data._reduce()))
            os.replace(file.name, folder / self._file_name(sig, data.codegen))
        except OSError:  # a full or vanished disk costs the next process a compilation, nothing more
            pass
