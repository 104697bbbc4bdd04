"""Readers of HDF5 files, zarr stores, and open datasets and arrays of both."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastgmm.data.conversion import REAL_KINDS, as_rows
from fastgmm.data.targets import files_behind

from .arrays import Opened, SliceReader, check_open, numpy_dtype
from .files import Unchanged
from .locations import readable

# Largest number of datasets that a message lists.
MAX_NAMES = 20


def is_array(source: Any) -> bool:
    """Return whether a source has `shape`, `dtype` and slices.

    Raises
    ------
    ValueError, TypeError
        If it is an HDF5 dataset that is closed, a group of arrays, or a sparse array.
    """
    check_open(source)
    if hasattr(source, "tocsr"):
        as_rows(source)  # raises scikit-learn's error
    has_slices = all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))
    if not has_slices and _library(source) in ("h5py", "zarr"):
        raise TypeError(
            f"rows are read from one array, got {type(source).__name__}, a group of arrays: give one of them, as in "
            "rows(group['X']), or its path"
        )
    return has_slices


def open_array(array: Any, **options: Any) -> SliceReader:
    """Return a reader of an array of NumPy, h5py, zarr or another library."""
    library = _library(array)
    if library == "h5py":
        return SliceReader(array, files=files_of(array), **options)
    if library == "zarr":
        return _zarr_reader(array, **options)
    return SliceReader(array, **options)


def files_of(array: Any) -> list[Path]:
    """Return the files of a memory map, an HDF5 dataset or a zarr array."""
    check_open(array)
    library = _library(array)
    if library == "h5py":
        return _hdf5_files(array)
    if library == "zarr":
        # The store is a folder or a ZIP file. Other stores are not in files.
        paths = (getattr(array.store, name, None) for name in ("root", "path"))
        return [path.absolute() for path in paths if isinstance(path, Path)]
    return list(files_behind(array))


def files_of_all(arrays: Iterable[Any]) -> list[Path]:
    """Return the files of arrays or data frames.

    The list of mapped files is read once for all of them.
    """
    files: list[Path] = []
    others = []
    for array in arrays:
        if _library(array) in ("h5py", "zarr"):
            files.extend(files_of(array))
        else:
            others.append(array)
    return list(dict.fromkeys([*files, *files_behind(others)]))


def _library(source: Any) -> str:
    """Return the name of the package that defines the type of a source."""
    return type(source).__module__.split(".")[0]


def open_hdf5(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Return a reader of a dataset in an HDF5 file."""
    try:
        import h5py
    except ImportError:
        raise ImportError("Reading HDF5 needs h5py: pip install 'fastgmm[io]'") from None
    file = Unchanged(path)
    with _open_file(path) as opened:
        datasets: dict[str, Any] = {}
        opened.visititems(lambda name, item: datasets.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        name = _dataset_name(key, datasets, path, opened)
        array = opened[name]
        weight_name = _weight_name(weight, array, datasets, path, opened)
        files = [file, *(Unchanged(other) for other in _hdf5_files(array) if other != path)]
        return SliceReader(
            array,
            weight=None if weight_name else weight,
            stored_weights=opened[weight_name] if weight_name else None,
            name=f"{path}:{name}",
            reopen=functools.partial(_open_datasets, files, name, weight_name),
            check=functools.partial(_check_all, files),
            files=[other.path for other in files],
            is_fixed=True,
            **options,
        )


def _open_file(path: Path) -> Any:
    """Return an open HDF5 file; ValueError if it is another file, or damaged."""
    import h5py

    try:
        return h5py.File(readable(path), "r")
    except OSError as error:
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):  # these have the file's name
            raise
        if error.errno is not None:
            raise OSError(error.errno, f"{path} cannot be opened: {error}") from error
        raise ValueError(f"{path} is not an HDF5 file, or is truncated: {error}") from error


def _open_datasets(files: list[Unchanged], key: str, weight_name: str | None) -> Opened:
    """Open a dataset of an HDF5 file, and its weights."""
    _check_all(files)
    opened = _open_file(files[0].path)
    return Opened(opened[key], None if weight_name is None else opened[weight_name], opened.close)


def _check_all(files: list[Unchanged]) -> None:
    for file in files:
        file.check()


def _hdf5_files(dataset: Any) -> list[Path]:
    """Return the files of a dataset.

    ValueError if one is missing: HDF5 would read fill values in its place.
    """
    if dataset.file.driver == "fileobj":  # behind a URL
        return []
    file = Path(dataset.file.filename).absolute()
    if dataset.file.driver == "core" and not file.exists():
        return []
    files = [file]
    sources = dataset.virtual_sources() if dataset.is_virtual else []
    for name in dict.fromkeys(
        [*(source.file_name for source in sources), *(name for name, *_ in dataset.external or ())]
    ):
        if name == "." or "%" in name:  # the file itself, or a pattern that matches any number of files
            continue
        paths = [file.parent / name, Path(name).absolute()]
        existing = next((path for path in paths if path.exists()), None)
        if existing is None:
            raise ValueError(f"{dataset.name!r} of {file} has rows in {name}, but this file does not exist")
        files.append(existing)
    return files


def open_zarr(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Return a reader of an array in a zarr store.

    Chunks that are not stored are read as the fill value.
    """
    try:
        import zarr
    except ImportError:
        raise ImportError("Reading zarr needs zarr: pip install 'fastgmm[io]'") from None
    try:
        opened: Any = zarr.open(str(path), mode="r")
        arrays = {} if hasattr(opened, "shape") else dict(_zarr_arrays(opened))
    except Exception as error:
        raise ValueError(f"{path} is not a zarr store, or is damaged: {type(error).__name__}: {error}") from error
    if hasattr(opened, "shape"):
        if key is not None:
            raise ValueError(f"key must be None, as {path} is a single array, got {key!r}")
        return _zarr_reader(opened, name=str(path), weight=weight, **options)
    name = _dataset_name(key, arrays, path, opened)
    weight_name = _weight_name(weight, opened[name], arrays, path, opened)
    weights = opened[weight_name] if weight_name else None
    return _zarr_reader(opened[name], weights, name=f"{path}:{name}", weight=None if weight_name else weight, **options)


def _zarr_arrays(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and the arrays of a group, at any depth, sorted by the names."""
    for name, member in sorted(group.members(max_depth=None), key=lambda item: item[0]):
        if hasattr(member, "shape"):
            yield name, member


def _zarr_reader(array: Any, weights: Any = None, **options: Any) -> SliceReader:
    """Return a reader of a zarr array.

    Every pass opens the array again, as another process may resize it.
    """
    reopen = functools.partial(_open_again, array, *([] if weights is None else [weights]))
    # The store has the present shape. Consolidated metadata may be older.
    current = reopen()
    return SliceReader(current.array, stored_weights=current.weights, reopen=reopen, files=files_of(array), **options)


def _open_again(*arrays: Any) -> Opened:
    """Open a zarr array, and its weights, with the present metadata of the store."""
    import zarr

    try:
        return Opened(*(zarr.open_array(array.store_path, mode="r") for array in arrays))
    except Exception as error:
        raise ValueError(f"{arrays[0].store_path} cannot be opened: {type(error).__name__}: {error}") from error


def _dataset_name(key: str | None, datasets: dict[str, Any], path: Path, opened: Any) -> str:
    """Return `key`, or the name of the only dataset with rows of numbers."""
    if key is not None:
        if key not in opened or not hasattr(opened[key], "dtype") or opened[key].shape is None:
            raise ValueError(f"{path} has no dataset {key!r}, but {_listed(datasets)}")
        return key
    forms = {name: (len(item.shape or ()), numpy_dtype(item)) for name, item in datasets.items()}
    names = [name for name, (ndim, dtype) in forms.items() if ndim == 2 and dtype.kind in REAL_KINDS]
    # Records are rows if there is no other dataset of rows.
    names = names or [name for name, (ndim, dtype) in forms.items() if ndim == 1 and dtype.names]
    if len(names) > 1:
        raise ValueError(
            f"{path} must have one dataset with two dimensions, got {len(names)} datasets, {names}: choose one with "
            "key="
        )
    if not names:
        raise ValueError(f"{path} must have a dataset of real numbers with two dimensions, got {_listed(datasets)}")
    return names[0]


def _weight_name(weight: Any, array: Any, datasets: dict[str, Any], path: Path, opened: Any) -> str | None:
    """Return the name of the dataset of weights.

    Return None if `weight` is an array, a field, or None.
    """
    if not isinstance(weight, str) or weight in (numpy_dtype(array).names or ()):
        return None
    if weight in opened and hasattr(opened[weight], "dtype") and len(opened[weight].shape or ()) == 1:
        return weight
    raise ValueError(
        f"weight must be the name of a dataset of {path} with one dimension, got {weight!r}: it has {_listed(datasets)}"
    )


def _listed(datasets: dict[str, Any]) -> str:
    """Return the names, shapes and dtypes of datasets as text."""
    shown = [f"{name!r} {item.shape or ''} {item.dtype}".replace("  ", " ") for name, item in datasets.items()]
    more = f", and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return (", ".join(shown[:MAX_NAMES]) or "no datasets") + more
