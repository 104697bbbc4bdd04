"""The function `fastgmm.rows`, which finds the reader of a source of rows."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .block_source import BLOCK_BYTES, BlockSource, Reader
from .readers.csv_files import CsvReader
from .readers.data_frames import FrameReader
from .readers.files import Files
from .readers.hdf5_and_zarr import is_array, open_array, open_hdf5, open_zarr
from .readers.iterables import IterableReader
from .readers.locations import FORMATS, URL, Location, find, format_of, local_files, locate
from .readers.npy import npy_reader
from .readers.parquet import ParquetReader
from .readers.progress import bar
from .readers.weights import Weighted

__all__ = ["rows"]

Options = dict[str, Any]

# Readers of single files, by format. All take the options `columns`, `weight`, `key` and `dtype`.
READERS: dict[str, Callable[..., Reader]] = {
    "npy": npy_reader,
    "parquet": ParquetReader,
    "csv": CsvReader,
    "tsv": functools.partial(CsvReader, delimiter="\t"),
    "hdf5": open_hdf5,
    "zarr": open_zarr,
}
# Formats that take the option `header`.
TEXT = {"csv", "tsv"}
# Formats whose files may have the ending of a compression. Parquet files are compressed inside, whatever their ending.
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
    """Read rows that need not fit into memory.

    Estimators take the result in place of an array.

    A fit reads the rows once to count or weigh them if necessary, once for the samples, once for the rows that these
    missed, and once for each EM iteration on all rows. It reads the next block while it computes on the current one.
    The result is that of the same rows in memory, to rounding.

    Parameters
    ----------
    source : path, list of paths, array, data frame, iterable of blocks, or callable
        Where the rows are.

        - A ``.npy``, ``.parquet``, ``.csv``, ``.tsv``, ``.h5`` or ``.zarr`` file, or a list of files. CSV files may be
          compressed (``.csv.gz``, ``.bz2``, ``.xz``, ``.zst``, ``.zip`` ...).
        - A folder, or a pattern such as ``"data/part-*.parquet"``, with files of one format. They are read in the order
          of their names. Links are followed. Names that begin with ``_`` or ``.`` are skipped. Any other file that does
          not hold rows is an error.
        - The URL of any of these, such as ``"s3://bucket/part-*.parquet"``. URLs are read through fsspec, which may
          need a package for the file system. In paths ``~`` is the home folder.
        - Anything with `shape`, `dtype` and slices of rows: an array, a memory map, an open HDF5 dataset, a zarr array.
        - A data frame of pandas or polars, or an Arrow table.
        - An iterable of blocks that can be iterated any number of times, such as a list, or a function that returns a
          new iterator of blocks at every call. A block is an array of shape (n, n_features), a data frame, or a pair of
          one of these and weights of shape (n,). Columns of data frames are aligned by name.
    columns : str, int, slice, or list of str or of int, default=None
        The features: names or positions of columns of a table, positions of columns of an array, or names of fields of
        records. None means all columns, except the weights. A column of vectors has one feature for each element.
    weight : str, int or array-like of shape (n_samples,), default=None
        The weights of the rows. A weight of 2 counts a row twice. Either the name or the position of a column of a
        table, which is not a feature then, or the name of a dataset in the same HDF5 or zarr file. Or an array, or the
        path or URL of an ``.npy`` file, with one number for each row of all files together. None means that every
        weight is 1.
    key : str, default=None
        Name of the dataset in an HDF5 or zarr file. It may be None if only one dataset has two dimensions.
    dtype : {float32, float64}, default=None
        The dtype to compute in. None means float32 if all features are float32, else float64.
    header : bool, default=None
        Whether the first line of CSV files has the names of the columns. None means that it has them, and that a
        number among them is an error. The integers 0 and 1 are errors too, as they are line numbers in pandas.
    progress : bool, default=False
        Whether to show a progress bar with rows per second for each pass. It needs the package rich.
    block_bytes : int, default=8388608
        Bytes of a block. A pass holds one block for each thread, at least two and at most eight, and one more.

    Returns
    -------
    BlockSource
        The rows, which `fit`, `fit_predict`, `predict`, `predict_proba`, `score_samples`, `score`, `bic`, `aic` and
        `icl` take in place of `X`. Its `shape`, `dtype` and `feature_names` describe the rows. Its method `whole`
        returns an object whose `X` and `sample_weight` are the rows and weights in memory.

    Raises
    ------
    ValueError
        If there are no rows, or if an option does not fit the source. While rows are read: if they are not finite,
        if weights are negative, or if files have changed or are truncated. The message has the file, the line or row
        group, and the column.
    TypeError
        If rows cannot be read from an object of this type.
    FileNotFoundError
        If a file does not exist, or is a link to a file that does not exist.
    ImportError
        If reading needs a package that is not installed.

    See Also
    --------
    GaussianMixture : Estimator that takes these rows.
    BayesianGaussianMixture : Estimator that takes these rows.
    StreamingGaussianMixture : Estimator for rows that can be read only once.
    DaskGaussianMixture : Estimator for rows on a Dask cluster.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fastgmm
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(size=(5000, 2)) + 6 * i for i in range(3)])
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "rows.npy")
    >>> np.save(path, X)
    >>> source = fastgmm.rows(path)
    >>> source
    <rows: 15000 x 2 float64>
    >>> gm = fastgmm.GaussianMixture(3, random_state=0).fit(source)
    >>> np.sort(gm.means_[:, 0]).round(1) + 0.0
    array([ 0.,  6., 12.])
    >>> gm.predict(source).shape
    (15000,)
    >>> folder.cleanup()

    A function that returns an iterator of blocks, each a pair of rows and weights:

    >>> def blocks():
    ...     for i in range(0, 15000, 1000):
    ...         yield X[i : i + 1000], np.ones(1000)
    >>> fastgmm.rows(blocks).total_weight
    15000.0
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be above 0, got {block_bytes}")
    header = _check_header(header)
    is_one = isinstance(columns, str | int | np.integer) and not isinstance(columns, bool)
    if isinstance(weight, np.integer):
        weight = int(weight)
    options = {"columns": [columns] if is_one else columns, "weight": weight, "key": key, "dtype": dtype}
    reader = _reader(source, options, header)
    return BlockSource(reader, block_bytes=block_bytes, on_pass=bar if progress else None)


def _check_header(header: Any) -> bool | None:
    """Return `header` as True, False or None; ValueError for anything else."""
    if header is None:
        return None
    if not isinstance(header, bool | np.bool_):
        raise ValueError(
            f"header must be True, False or None, got {header!r}: give True if the first line has the names of the "
            "columns, False if it is a row"
        )
    return bool(header)


def _reader(source: Any, options: Options, header: bool | None) -> Reader:
    """Return the reader of a source, and of weights that are not part of the source."""
    paths = _paths(source)
    if paths is None and header is not None:
        raise ValueError(f"header must be None, as the source is not a CSV file, got {header}")
    weight_file = _weight_file(options["weight"])
    weight = options["weight"] if weight_file is None else weight_file
    is_name = weight is None or isinstance(weight, str | int)
    # Readers of arrays and of iterables take an array of weights as an option, or raise an error for it.
    takes_arrays = paths is None and not _is_frame(source)
    is_separate = weight_file is not None or not (is_name or takes_arrays)
    if is_separate:
        options = {**options, "weight": None}
    if paths is None:
        reader = _of_object(source, options)
    else:
        readers = [_of_file(location, options, header) for path in paths for location in find(path)]
        reader = readers[0] if len(readers) == 1 else Files(readers)
    return Weighted(reader, weight) if is_separate else reader


def _paths(source: Any) -> list[Any] | None:
    """Return the paths of a source that is a path or a list of paths, else None."""
    sources = source if isinstance(source, list | tuple) else [source]
    are_paths = [isinstance(s, str | bytes | os.PathLike) and bool(os.fspath(s)) for s in sources]
    if any(are_paths) and not all(are_paths):
        raise TypeError(f"a list must hold paths only, or blocks of rows only, got {source!r}")
    return list(sources) if any(are_paths) else None


def _of_object(source: Any, options: Options) -> Reader:
    """Return the reader of an array, a data frame or an iterable."""
    if hasattr(source, "dask"):
        raise TypeError("rows must not be a Dask collection: fit a DaskGaussianMixture to it")
    if _is_frame(source):
        return FrameReader(source, **options)
    if is_array(source):
        return open_array(source, **options)
    is_text = isinstance(source, str | bytes)
    if (callable(source) or isinstance(source, Iterable)) and not is_text:
        return IterableReader(source, **options)
    raise TypeError(
        "rows are read from a path, a list of paths, an array, a data frame, an iterable of arrays, or a function that "
        f"returns an iterator of arrays, got {type(source).__name__}"
    )


def _of_file(location: Location, options: Options, header: bool | None) -> Reader:
    """Return the reader of one file."""
    name, compression = format_of(location.name)
    if name is None:
        raise ValueError(f"rows are read from files named *.{', *.'.join(FORMATS)}, got {str(location)!r}")
    if compression is not None and name not in MAY_BE_COMPRESSED:
        raise ValueError(f"compressed files must be CSV files, got {location}: decompress it first")
    if header is not None and name not in TEXT:
        raise ValueError(f"header must be None, as {location} is not a CSV file, got {header}")
    reader = READERS[name](location, **options, **({"header": header} if name in TEXT else {}))
    own = local_files(location)
    reader.files = (*own, *(path for path in reader.files if isinstance(path, Path) and path not in own))
    return reader


def _is_frame(source: Any) -> bool:
    """Return whether a source is a data frame or an Arrow table."""
    protocols = ("__dataframe__", "__arrow_c_stream__", "__arrow_c_array__")
    return any(hasattr(source, name) for name in protocols) and len(getattr(source, "shape", ())) == 2


def _weight_file(weight: Any) -> Location | None:
    """Return the location of a file of weights; None if `weight` is not a file."""
    is_file = isinstance(weight, os.PathLike) or (
        isinstance(weight, str) and (URL.match(weight) is not None or format_of(weight).name == "npy")
    )
    return locate(weight) if is_file else None
