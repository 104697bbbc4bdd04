"""Compiled kernels on disk, one file for each kernel, signature, CPU and version of the sources.

Numba's own cache looks only at the file that holds the entry function: after an edit or an upgrade of a leaf in another
file it goes on returning the old machine code. It also numbers its files through a shared index, which two processes
that compile at the same time can leave pointing at each other's code (numba #4807). Here the name of a file is a hash
of everything the code depends on, the text of all of ``fastgmm/kernels`` included, so a file is either right or not
there, and no index is needed.

The folder is ``$NUMBA_CACHE_DIR/fastgmm`` if that variable is set, else the user's cache folder, else the package's
``__pycache__``. If none can be written, or with ``FASTGMM_CACHE=0``, kernels are compiled anew in every process.
"""

from __future__ import annotations

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

PACKAGE = Path(__file__).resolve().parent
VERSIONS_KEPT = 8


@functools.lru_cache(maxsize=1)
def source_stamp() -> str:
    """A hash of the source text of every kernel module and of the versions that turn it into machine code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((numba.__version__, llvmlite.__version__, sys.version_info[:2])).encode())
    return digest.hexdigest()[:16]


def _candidates() -> list[Path]:
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR) / "fastgmm"]
    return [Path(AppDirs(appname="fastgmm", appauthor=False).user_cache_dir), PACKAGE / "__pycache__"]


@functools.lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """The folder in which compiled kernels are kept, or None if there is none to be had."""
    if os.environ.get("FASTGMM_CACHE") == "0":
        return None
    for root in _candidates():
        folder = root / f"kernels-{source_stamp()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        _forget_old_versions(root)
        return folder
    return None


def _forget_old_versions(root: Path) -> None:
    """Remove all but the newest few folders of other versions; a process that still uses one only compiles again."""
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

    def _path(self, signature, codegen) -> Path | None:
        folder = cache_folder()
        if folder is None or not self._enabled:
            return None
        # Numba's key leaves the compiler's options out; bounds checks come from the environment.
        options = sorted((name, str(value)) for name, value in self._options.items())
        key = (str(signature), codegen.magic_tuple(), options, config.BOUNDSCHECK, str(config.OPT))
        return folder / f"{self._function.__qualname__}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.bin"

    def load_overload(self, sig, target_context):
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        if path is None or not path.exists():
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(path.read_bytes()))
        except Exception:  # truncated or unreadable: compiling again puts it right
            return None

    def save_overload(self, sig, data) -> None:
        path = self._path(sig, data.codegen)
        if path is None or data.library.has_dynamic_globals:
            return
        try:
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
                file.write(dumps(data._reduce()))
            os.replace(file.name, path)
        except OSError:  # a full or vanished disk costs the next process a compilation, nothing more
            pass
