"""Conversion of Arrow columns of numbers, or of vectors of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Extension types whose stored numbers are the values. Other types, such as pandas' periods, store codes.
NUMERIC_EXTENSIONS = {"arrow.fixed_shape_tensor", "arrow.bool8"}


def arrow() -> Any:
    """Return the module pyarrow; ImportError if it is missing."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError("Reading tables needs pyarrow: pip install 'fastgmm[io]'") from None
    return pyarrow


@dataclass(frozen=True)
class Column:
    """A column that holds numbers, or vectors of numbers.

    Attributes
    ----------
    name : str
    length : int or None
        Length of each vector; None for a column of numbers.
    is_single : bool
        Whether the numbers are float32.
    convert : callable (pyarrow.Array) -> ndarray
        Converts a column of numbers, or the numbers in the vectors.
    """

    name: str
    length: int | None
    is_single: bool
    convert: Callable[[Any], NDArray]

    @property
    def n_features(self) -> int:
        return 1 if self.length is None else self.length

    @property
    def feature_names(self) -> list[str]:
        """Return the column's name, or a name for each element of its vectors."""
        return [self.name] if self.length is None else [f"{self.name}_{i}" for i in range(self.length)]

    def numbers(self, array: Any, where: Callable[[int], str]) -> NDArray:
        """Return the numbers (n,), or the vectors (n, length). Missing values become NaN."""
        if self.length is None:
            return self.convert(array)
        array = _plain(array)
        lengths = array.value_lengths().fill_null(self.length).to_numpy(zero_copy_only=False)
        if (lengths != self.length).any():
            row = int(np.flatnonzero(lengths != self.length)[0])
            raise ValueError(
                f"all vectors in column {self.name!r} must have one length, but the first has {self.length} numbers "
                f"and the one in {where(row)} has {lengths[row]}"
            )
        vectors = self.convert(array.drop_null().flatten()).reshape(-1, self.length)
        if not array.null_count:
            return vectors
        result = np.full((len(array), self.length), np.nan)
        result[array.is_valid().to_numpy(zero_copy_only=False)] = vectors
        return result


def column_of(name: str, kind: Any, about: str, arrays: Callable[[], Iterable[Any]]) -> Column:
    """Return the conversion of a column to features.

    Parameters
    ----------
    name : str
    kind : pyarrow.DataType
    about : str
        The name of the file or table in messages.
    arrays : callable () -> iterable of pyarrow.Array
        Returns the values of the column. They are read if the type does not have the length of the vectors.

    Raises
    ------
    ValueError
        If the column does not hold numbers.
    """
    types, element = arrow().types, _plain_type(kind)
    is_list = types.is_fixed_size_list(element) or types.is_list(element) or types.is_large_list(element)
    number = _plain_type(element.value_type) if is_list else element
    # A column without any value has the null type. It may have no rows, so NaN is an error only when rows are read.
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if not any(is_one(number) for is_one in kinds):
        raise ValueError(
            f"column {name!r} of {about} must hold numbers, got {kind}: choose other columns with columns="
        )
    stored = element.value_type if is_list else kind
    convert = _direct if types.is_integer(stored) or types.is_floating(stored) else _cast
    length = None
    if is_list:
        length = element.list_size if types.is_fixed_size_list(element) else _length(arrays(), name, about)
    if length == 0:
        raise ValueError(f"vectors in column {name!r} of {about} must have numbers, got vectors of length 0")
    return Column(name, length, number == arrow().float32(), convert)


def _length(arrays: Iterable[Any], name: str, about: str) -> int:
    """Return the length of the first vector in a column."""
    for array in arrays:
        vectors = _plain(array).drop_null()
        if len(vectors):
            return len(vectors[0])
    raise ValueError(
        f"column {name!r} of {about} must have a vector, as its length is the number of features, got no vector"
    )


def _plain_type(kind: Any) -> Any:
    """Return the type of the values of a dictionary or an extension type."""
    while True:
        if getattr(kind, "extension_name", None) in NUMERIC_EXTENSIONS:
            kind = kind.storage_type
        elif arrow().types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _plain(array: Any) -> Any:
    """Return the values of a dictionary or of an array of an extension type."""
    while True:
        if getattr(array.type, "extension_name", None) in NUMERIC_EXTENSIONS:
            array = array.storage
        elif arrow().types.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            return array


def _direct(array: Any) -> NDArray:
    return array.to_numpy(zero_copy_only=False)


def _cast(array: Any) -> NDArray:
    # Integers above 2**53 are rounded, as by NumPy.
    return _plain(array).cast(arrow().float64(), safe=False).to_numpy(zero_copy_only=False)
