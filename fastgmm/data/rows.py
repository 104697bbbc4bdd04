"""Rows in files and elsewhere, for estimators to read block after block; see `rows`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .block_source import BLOCK_BYTES, BlockSource, Reader
from .readers.arrays import NpyReader, SliceReader
from .readers.csv_files import CsvReader
from .readers.files import Files
from .readers.iterables import IterableReader
from .readers.locations import FORMATS, URL, Location, find, format_of, local_files, locate
from .readers.npy import NpyFile
from .readers.progress import bar
from .readers.stores import is_array, open_array, open_hdf5, open_zarr
from .readers.tables import FrameReader, ParquetReader
from .readers.weights import Weighted

__all__ = ["rows"]

Options = dict[str, Any]


def open_npy(location: Location, **options: Any) -> SliceReader:
    """Return a reader of the rows of an ``.npy`` file."""
    if isinstance(location, Path):
        return NpyReader(location, **options)
    file = NpyFile(location)
    return SliceReader(file, name=str(location), reopen=file.reopen, is_fixed=True, **options)


# Readers of single files, by format. What each takes of `columns`, `weight`, `key` and `dtype` it says itself.
READERS: dict[str, Callable[..., Reader]] = {
    "npy": open_npy,
    "parquet": ParquetReader,
    "csv": CsvReader,
    "tsv": functools.partial(CsvReader, delimiter="\t"),
    "hdf5": open_hdf5,
    "zarr": open_zarr,
}
TEXT = {"csv", "tsv"}
# Formats whose files may be compressed; that of Parquet is inside, whatever the name says.
MAY_BE_COMPRESSED = {*TEXT, "parquet"}


def rows(
    source: Any,
    *,
    columns: str | int | slice | Sequence[str] | Sequence[int] | None = None,
    weight: str | int | ArrayLike | None = None,
    key: str | None = None,
    dtype: DTypeLike | None = None,
    header: bool | None = None,
    progress: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> BlockSource:
    """Rows that need not fit into memory, to be given to an estimator in place of an array.

    A fit reads them once for a sample to start from, and then once for each EM iteration on all rows; while it computes
    on one block it reads the next. The answer is that of the same rows in memory, to rounding.

    Parameters
    ----------
    source : path, list of paths, array, data frame, or iterable of arrays
        - A ``.npy``, ``.parquet``, ``.csv``, ``.tsv``, ``.h5`` or ``.zarr`` file, or a list of files. CSV may be
          compressed (``.csv.gz``, ``.bz2``, ``.xz``, ``.zst``, ``.zip`` ...).
        - A folder or a pattern (``"data/part-*.parquet"``) of files in one format. They are read in the order of their
          names. Links are followed, and names that begin with ``_`` or ``.`` are left out; any other file that is not
          one of rows is an error.
        - The URL of any of these (``"s3://bucket/part-*.parquet"``, ``"https://..."``), read through fsspec, which may
          need a package for the file system. ``~`` is the home folder.
        - Anything with `shape`, `dtype` and slices of rows: arrays, memory maps, open HDF5 datasets, zarr arrays.
        - A data frame: of pandas or polars, or an Arrow table.
        - An iterable of blocks that can be walked again and again (a list, an object with ``__iter__``), or a function
          that returns a new iterator whenever it is called. A block is an array (n, D) or a data frame (pandas, polars,
          Arrow), whose columns are aligned by name, or a pair of one and weights (n,).
    columns : str, int, slice, or list of str or of int, optional
        The features, by their names in tables, by their positions in tables and arrays; all that there are if not
        given. A column of vectors is a feature for each of their numbers.
    weight : str, int or array-like of shape (n_samples,), optional
        How often each row counts: the name (or the position) of a column in tables, which is no feature then, or the
        name of a dataset in the same HDF5 or zarr file; or an array, or the path or URL of an ``.npy`` file, with one
        number for each row of all files together.
    key : str, optional
        Which dataset of an HDF5 or zarr file; not needed if there is only one with two dimensions.
    dtype : {float32, float64}, optional
        What to compute in. If not given, float32 where all features are, else float64.
    header : bool, optional
        Whether the first line of CSV files has the names of columns. If not given, it must have names, and none of them
        may be a number. The numbers 0 and 1 are refused: elsewhere they are positions of the line with names.
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
        changed or are cut short; it says in which file, line or row group, and column.
    FileNotFoundError
        If there is no file, or a link leads to none.
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
    header = _check_header(header)
    is_one = isinstance(columns, str | int | np.integer) and not isinstance(columns, bool)
    if isinstance(weight, np.integer):
        weight = int(weight)
    options = {"columns": [columns] if is_one else columns, "weight": weight, "key": key, "dtype": dtype}
    reader = _reader(source, options, header)
    return BlockSource(reader, block_bytes=block_bytes, on_walk=bar if progress else None)


def _check_header(header: Any) -> bool | None:
    """Return `header` as Python's True or False, or None; ValueError if it is anything else."""
    if header is None:
        return None
    if not isinstance(header, bool | np.bool_):
        raise ValueError(
            f"header should be True, False or None, but is {header!r}: give True if the first line has the names of "
            "columns, False if it is a row"
        )
    return bool(header)


def _reader(source: Any, options: Options, header: bool | None) -> Reader:
    """Return what reads a source, and the weights that are apart from it."""
    paths = _paths(source)
    if paths is None and header is not None:
        raise ValueError("header is for CSV files")
    place = _weight_file(options["weight"])
    weight = options["weight"] if place is None else place
    is_name = weight is None or isinstance(weight, str | int)
    # Readers of arrays and of blocks take weights in an array, or refuse them, themselves.
    takes_arrays = paths is None and not _is_frame(source)
    is_apart = place is not None or not (is_name or takes_arrays)
    if is_apart:
        options = {**options, "weight": None}
    if paths is None:
        reader = _of_object(source, options)
    else:
        readers = [_of_file(location, options, header) for path in paths for location in find(path)]
        reader = readers[0] if len(readers) == 1 else Files(readers)
    return Weighted(reader, weight) if is_apart else reader


def _paths(source: Any) -> list[Any] | None:
    """Return the paths that a source consists of; None if it is something else."""
    sources = source if isinstance(source, list | tuple) else [source]
    are_paths = [isinstance(s, str | bytes | os.PathLike) and bool(os.fspath(s)) for s in sources]
    if any(are_paths) and not all(are_paths):
        raise TypeError(f"a list should hold paths only, or blocks of rows only, but is {source!r}")
    return list(sources) if any(are_paths) else None


def _of_object(source: Any, options: Options) -> Reader:
    """Return what reads an array, a data frame or an iterable."""
    if hasattr(source, "dask"):
        raise TypeError("rows of a Dask collection are for DaskGaussianMixture")
    if _is_frame(source):
        return FrameReader(source, **options)
    if is_array(source):
        return open_array(source, **options)
    is_other = isinstance(source, str | bytes) or hasattr(source, "tocsr")
    if (callable(source) or isinstance(source, Iterable)) and not is_other:
        return IterableReader(source, **options)
    raise TypeError(
        "rows are read from a path, a list of paths, an array, a data frame, an iterable of arrays, or a function that "
        f"returns an iterator of arrays, but not from {type(source).__name__}"
    )


def _of_file(location: Location, options: Options, header: bool | None) -> Reader:
    """Return what reads one file."""
    name, compression = format_of(location.name)
    if name is None:
        raise ValueError(f"rows are read from files named *.{', *.'.join(FORMATS)}, but not from {str(location)!r}")
    if compression is not None and name not in MAY_BE_COMPRESSED:
        raise ValueError(f"of compressed files, CSV can be read, but not {name}: decompress {location} first")
    if header is not None and name not in TEXT:
        raise ValueError(f"header is for CSV files, but {location} is none")
    reader = READERS[name](location, **options, **({"header": header} if name in TEXT else {}))
    own = local_files(location)
    reader.files = (*own, *(path for path in reader.files if isinstance(path, Path) and path not in own))
    return reader


def _is_frame(source: Any) -> bool:
    """Return whether a source is a data frame or an Arrow table."""
    ways = ("__dataframe__", "__arrow_c_stream__", "__arrow_c_array__")
    return any(hasattr(source, way) for way in ways) and len(getattr(source, "shape", ())) == 2


def _weight_file(weight: Any) -> Location | None:
    """Return the place of a file of weights, if `weight` names one and not a column or a dataset."""
    is_file = isinstance(weight, os.PathLike) or (
        isinstance(weight, str) and (URL.match(weight) is not None or format_of(weight).name == "npy")
    )
    return locate(weight) if is_file else None
