"""Rows in files and elsewhere, for estimators to read block after block; see `rows`."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from fastgmm.blocks import BLOCK_BYTES, BlockSource, Reader

from .arrays import NpyReader
from .files import Files
from .iterables import IterableReader
from .progress import bar
from .stores import is_array, open_array, open_hdf5, open_zarr
from .tables import CsvReader, ParquetReader

__all__ = ["rows"]

Readers = Callable[..., Reader]
# Readers of single files, by suffix. What each takes of `columns`, `weight`, `key` and `dtype` it says itself.
READERS: dict[str, Readers] = {
    ".npy": NpyReader,
    ".parquet": ParquetReader,
    ".pq": ParquetReader,
    ".csv": CsvReader,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".zarr": open_zarr,
}


def rows(
    source: Any,
    *,
    columns: Sequence[str] | Sequence[int] | None = None,
    weight: str | ArrayLike | None = None,
    key: str | None = None,
    dtype: DTypeLike | None = None,
    progress: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> BlockSource:
    """Rows that need not fit into memory, to be given to an estimator in place of an array.

    A fit reads them once for a sample to start from, and then once for each EM iteration on all rows; while it computes
    on one block it reads the next. The answer is that of the same rows in memory, to rounding.

    Parameters
    ----------
    source : path, list of paths, array, or iterable of arrays
        - A ``.npy``, ``.parquet``, ``.csv`` (with a line of names), ``.h5`` or ``.zarr`` file; a folder or a pattern
          (``"data/part-*.parquet"``) of such files, which are read in the order of their names; a list of them.
        - Anything with `shape`, `dtype` and slices of rows: arrays, memory maps, open HDF5 datasets, zarr arrays.
        - An iterable of blocks that can be walked again and again (a list, an object with ``__iter__``), or a function
          that returns a new iterator whenever it is called. A block is an array (n, D) or a data frame (pandas, polars,
          Arrow), whose columns are aligned by name, or a pair of one and weights (n,).
    columns : list of str or of int, optional
        The features, by their names in tables, by their numbers in arrays; all that there are if not given.
    weight : str or array-like of shape (n_samples,), optional
        How often each row counts: for tables the name of a column, which is no feature then, for HDF5 and zarr of a
        dataset in the same file; for arrays and ``.npy`` an array, or the path of another ``.npy`` file.
    key : str, optional
        Which dataset of an HDF5 or zarr file; not needed if there is only one with two dimensions.
    dtype : {float32, float64}, optional
        What to compute in. If not given, float32 where all features are, else float64.
    progress : bool, default=False
        Whether to show a bar, with rows per second, for each walk over the rows (needs rich).
    block_bytes : int, default=8388608
        How much to read at a time. Memory is that for each thread, of two at least and eight at most, and once more.

    Returns
    -------
    BlockSource
        For `fit`, `fit_predict`, `predict`, `predict_proba`, `score_samples`, `score`, `bic`, `aic` and `icl`.

    Raises
    ------
    ValueError
        If there is nothing to read, or not as it is asked for. While reading: if rows are not finite, if files have
        changed or are cut short; it says in which file, row group and column.
    ImportError
        If reading needs a package that is not there.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> import fastgmm
    >>> X = np.concatenate([np.random.default_rng(0).normal(size=(5000, 2)) + 6 * i for i in range(3)])
    >>> path = os.path.join(tempfile.mkdtemp(), "rows.npy")
    >>> np.save(path, X)
    >>> gm = fastgmm.GaussianMixture(3, random_state=0).fit(fastgmm.rows(path))
    >>> np.sort(gm.means_[:, 0]).round(1) + 0.0
    array([ 0.,  6., 12.])
    >>> gm.predict(fastgmm.rows(path)).shape
    (15000,)
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes should be above 0, but is {block_bytes}")
    options = {"columns": columns, "weight": weight, "key": key, "dtype": dtype}
    return BlockSource(_reader(source, options), block_bytes=block_bytes, on_walk=bar if progress else None)


def _reader(source: Any, options: dict[str, Any]) -> Reader:
    """What reads a source."""
    if isinstance(source, str | os.PathLike) and str(source):
        paths = _files(Path(source))
        return _of_file(paths[0], options) if len(paths) == 1 else Files([_of_file(p, options) for p in paths])
    if isinstance(source, list | tuple) and source and all(isinstance(s, str | os.PathLike) for s in source):
        return Files([_of_file(path, options) for s in source for path in _files(Path(s))])
    if hasattr(source, "__dataframe__"):
        raise TypeError("a data frame is in memory: give it to the estimator as it is, or its to_numpy() to rows")
    if hasattr(source, "dask"):
        raise TypeError("rows of a Dask collection are for DaskGaussianMixture")
    if is_array(source):
        return open_array(source, **options)
    if (
        (callable(source) or isinstance(source, Iterable))
        and not isinstance(source, str)
        and not hasattr(source, "tocsr")
    ):
        return IterableReader(source, **options)
    raise TypeError(
        "rows are read from a path, a list of paths, an array, an iterable of arrays, or a function that returns an "
        f"iterator of arrays, but not from {type(source).__name__}"
    )


def _files(path: Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, sorted."""
    path = path.absolute()  # for the current folder may be another one when they are read
    if path.is_file() or _is_store(path):
        found = [path]
    elif path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in READERS and _is_seen(p, path)]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    if not found:
        raise FileNotFoundError(f"there is no file to read rows from at {str(path)!r}")
    return sorted(found)


def _is_store(path: Path) -> bool:
    """Whether a path is a zarr store that is a folder."""
    return path.is_dir() and path.suffix.lower() == ".zarr"


def _is_seen(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is one of its files: neither hidden, or for someone's own use, nor part of a store."""
    parts = path.relative_to(folder).parts
    inside = any(_is_store(parent) for parent in path.parents if parent.is_relative_to(folder) and parent != folder)
    return (path.is_file() or _is_store(path)) and not inside and not any(p.startswith(("_", ".")) for p in parts)


def _of_file(path: Path, options: dict[str, Any]) -> Reader:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"rows are read from files named *{', *'.join(READERS)}, but not from {str(path)!r}")
    return reader(path, **options)
