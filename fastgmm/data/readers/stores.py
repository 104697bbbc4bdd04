"""Readers of HDF5 files and zarr stores, and of their datasets that a program has opened."""

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

# Datasets that an error message names.
MOST_NAMES = 20


def is_array(source: Any) -> bool:
    """Return whether a source has `shape`, `dtype` and slices.

    Raises
    ------
    ValueError, TypeError
        If it is an HDF5 dataset that is closed, a group of arrays, or sparse.
    """
    check_open(source)
    if hasattr(source, "tocsr"):
        as_rows(source)  # raises scikit-learn's error
    found = all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))
    if not found and _library(source) in ("h5py", "zarr"):
        raise TypeError(
            f"{type(source).__name__} is a group of arrays: give one of them, as in rows(group['X']), or its path"
        )
    return found


def open_array(array: Any, **options: Any) -> SliceReader:
    """Return a reader of an array: of NumPy, a memory map, an open HDF5 dataset, a zarr array, or another one."""
    library = _library(array)
    if library == "h5py":
        return SliceReader(array, files=files_of(array), **options)
    if library == "zarr":
        return _zarr_reader(array, **options)
    return SliceReader(array, **options)


def files_of(array: Any) -> list[Path]:
    """Return the files that an array is read from: of a memory map, an HDF5 dataset or a zarr array."""
    check_open(array)
    library = _library(array)
    if library == "h5py":
        return _hdf5_files(array)
    if library == "zarr":
        # A folder, or a ZIP file; other stores are no files.
        places = (getattr(array.store, name, None) for name in ("root", "path"))
        return [place.absolute() for place in places if isinstance(place, Path)]
    return list(files_behind(array))


def files_of_all(arrays: Iterable[Any]) -> list[Path]:
    """Return the files that arrays or data frames are read from; the system is asked once for all of them."""
    found: list[Path] = []
    others = []
    for array in arrays:
        if _library(array) in ("h5py", "zarr"):
            found.extend(files_of(array))
        else:
            others.append(array)
    return list(dict.fromkeys([*found, *files_behind(others)]))


def _library(source: Any) -> str:
    """Return the name of the package that a source's type comes from."""
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
        found = _only(key, datasets, path, opened)
        array = opened[found]
        weight_name = _weight_name(weight, array, datasets, path, opened)
        files = [file, *(Unchanged(other) for other in _hdf5_files(array) if other != path)]
        return SliceReader(
            array,
            weight=None if weight_name else weight,
            stored_weights=opened[weight_name] if weight_name else None,
            name=f"{path}:{found}",
            reopen=functools.partial(_open_datasets, files, found, weight_name),
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
        if isinstance(error, FileNotFoundError | IsADirectoryError | PermissionError):  # these name the file
            raise
        if error.errno is not None:
            raise OSError(error.errno, f"{path} cannot be opened: {error}") from error
        raise ValueError(f"{path} is no HDF5 file, or is cut short: {error}") from error


def _open_datasets(files: list[Unchanged], key: str, weight_name: str | None) -> Opened:
    """Open a dataset of an HDF5 file, and its weights."""
    _check_all(files)
    opened = _open_file(files[0].path)
    return Opened(opened[key], None if weight_name is None else opened[weight_name], opened.close)


def _check_all(files: list[Unchanged]) -> None:
    for file in files:
        file.check()


def _hdf5_files(dataset: Any) -> list[Path]:
    """Return the files that a dataset is read from; ValueError if one is not there, as HDF5 would read fill values."""
    if dataset.file.driver == "fileobj":  # behind a URL
        return []
    file = Path(dataset.file.filename).absolute()
    if dataset.file.driver == "core" and not file.exists():
        return []
    found = [file]
    sources = dataset.virtual_sources() if dataset.is_virtual else []
    for name in dict.fromkeys(
        [*(source.file_name for source in sources), *(name for name, *_ in dataset.external or ())]
    ):
        if name == "." or "%" in name:  # the same file; a pattern of an unlimited number of names
            continue
        places = [file.parent / name, Path(name).absolute()]
        there = next((place for place in places if place.exists()), None)
        if there is None:
            raise ValueError(f"{dataset.name!r} of {file} has rows in {name}, and there is no such file")
        found.append(there)
    return found


def open_zarr(path: Path, *, key: str | None = None, weight: Any = None, **options: Any) -> SliceReader:
    """Return a reader of an array in a zarr store. A chunk that is not stored has the fill value, as zarr defines."""
    try:
        import zarr
    except ImportError:
        raise ImportError("Reading zarr needs zarr: pip install 'fastgmm[io]'") from None
    try:
        opened: Any = zarr.open(str(path), mode="r")
        arrays = {} if hasattr(opened, "shape") else dict(_zarr_arrays(opened))
    except Exception as error:
        raise ValueError(f"{path} is no zarr store, or is damaged: {type(error).__name__}: {error}") from error
    if hasattr(opened, "shape"):
        if key is not None:
            raise ValueError(f"key is for groups, but {path} is a single array")
        return _zarr_reader(opened, name=str(path), weight=weight, **options)
    found = _only(key, arrays, path, opened)
    weight_name = _weight_name(weight, opened[found], arrays, path, opened)
    weights = opened[weight_name] if weight_name else None
    return _zarr_reader(
        opened[found], weights, name=f"{path}:{found}", weight=None if weight_name else weight, **options
    )


def _zarr_arrays(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names of all arrays of a group, at any depth, and the arrays, in the order of the names."""
    for name, member in sorted(group.members(max_depth=None), key=lambda item: item[0]):
        if hasattr(member, "shape"):
            yield name, member


def _zarr_reader(array: Any, weights: Any = None, **options: Any) -> SliceReader:
    """Return a reader of a zarr array, which is opened anew for every walk: another process may have resized it."""
    reopen = functools.partial(_open_again, array, *([] if weights is None else [weights]))
    # What the store has now. Consolidated metadata may be older.
    current = reopen()
    return SliceReader(current.array, stored_weights=current.weights, reopen=reopen, files=files_of(array), **options)


def _open_again(*arrays: Any) -> Opened:
    """Open a zarr array, and its weights, with the metadata that the store has now."""
    import zarr

    try:
        return Opened(*(zarr.open_array(array.store_path, mode="r") for array in arrays))
    except Exception as error:
        raise ValueError(f"{arrays[0].store_path} cannot be opened: {type(error).__name__}: {error}") from error


def _only(key: str | None, datasets: dict[str, Any], path: Path, opened: Any) -> str:
    """Return the name of the dataset that is asked for, or of the only one with rows of numbers."""
    if key is not None:
        if key not in opened or not hasattr(opened[key], "dtype") or opened[key].shape is None:
            raise ValueError(f"{path} has no dataset {key!r}, but {_listed(datasets)}")
        return key
    forms = {name: (len(item.shape or ()), numpy_dtype(item)) for name, item in datasets.items()}
    names = [name for name, (ndim, dtype) in forms.items() if ndim == 2 and dtype.kind in REAL_KINDS]
    # Records are rows too, if there is nothing else.
    names = names or [name for name, (ndim, dtype) in forms.items() if ndim == 1 and dtype.names]
    if len(names) > 1:
        raise ValueError(f"{path} has {len(names)} datasets with two dimensions, {names}: say which with key=")
    if not names:
        raise ValueError(f"{path} has no dataset of real numbers with two dimensions, but {_listed(datasets)}")
    return names[0]


def _weight_name(weight: Any, array: Any, datasets: dict[str, Any], path: Path, opened: Any) -> str | None:
    """Return the name of the dataset of weights; None if they are given, in a file of their own, or a field."""
    if not isinstance(weight, str) or weight in (numpy_dtype(array).names or ()):
        return None
    if weight in opened and hasattr(opened[weight], "dtype"):
        if len(opened[weight].shape or ()) == 1:
            return weight
    elif weight.lower().endswith(".npy"):
        return None
    raise ValueError(
        f"weight should name a dataset of {path} with one dimension, but is {weight!r}; it has {_listed(datasets)}"
    )


def _listed(datasets: dict[str, Any]) -> str:
    """Name datasets, and their shapes and dtypes."""
    shown = [f"{name!r} {item.shape or ''} {item.dtype}".replace("  ", " ") for name, item in datasets.items()]
    more = f", and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
    return (", ".join(shown[:MOST_NAMES]) or "no datasets") + more
