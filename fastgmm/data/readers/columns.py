"""Columns of Arrow tables as numbers: of any numeric type, or vectors of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Extension types whose stored numbers are their values. Those of others, such as pandas' periods, are codes.
NUMERIC_EXTENSIONS = {"arrow.fixed_shape_tensor", "arrow.bool8"}


def arrow() -> Any:
    """Return pyarrow; ImportError that says what to install if it is missing."""
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
        Of each vector; None for plain numbers.
    is_single : bool
        Whether the numbers are float32.
    convert : callable (pyarrow.Array) -> ndarray
        For numbers that are not in vectors.
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
        """Return the column's name, or the name and a number for each element of a vector."""
        return [self.name] if self.length is None else [f"{self.name}_{i}" for i in range(self.length)]

    def numbers(self, array: Any, where: Callable[[int], str]) -> NDArray:
        """Return the numbers (n,), or vectors (n, length); missing ones become NaN."""
        if self.length is None:
            return self.convert(array)
        array = _plain(array)
        lengths = array.value_lengths().fill_null(self.length).to_numpy(zero_copy_only=False)
        if (lengths != self.length).any():
            row = int(np.flatnonzero(lengths != self.length)[0])
            raise ValueError(
                f"vectors in column {self.name!r} must have one length, but the first has {self.length} numbers and "
                f"that in {where(row)} has {lengths[row]}"
            )
        found = self.convert(array.drop_null().flatten()).reshape(-1, self.length)
        if not array.null_count:
            return found
        result = np.full((len(array), self.length), np.nan)
        result[array.is_valid().to_numpy(zero_copy_only=False)] = found
        return result


def column_of(name: str, kind: Any, about: str, arrays: Callable[[], Iterable[Any]]) -> Column:
    """Return how a column becomes features; ValueError if it does not hold numbers.

    Parameters
    ----------
    name, about : str
        Of the column and of the file, for messages.
    kind : pyarrow.DataType
    arrays : callable () -> iterable of pyarrow.Array
        The column's values, for the length of vectors whose type does not tell it.
    """
    types, element = arrow().types, _plain_type(kind)
    lists = types.is_fixed_size_list(element) or types.is_list(element) or types.is_large_list(element)
    number = _plain_type(element.value_type) if lists else element
    # A column of which all are missing has no other type: whether it has rows is seen when they are read.
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    if not any(is_one(number) for is_one in kinds):
        raise ValueError(
            f"column {name!r} of {about} should hold numbers, but holds {kind}; choose others with columns="
        )
    stored = element.value_type if lists else kind
    convert = _direct if types.is_integer(stored) or types.is_floating(stored) else _cast
    length = None
    if lists:
        length = element.list_size if types.is_fixed_size_list(element) else _length(arrays(), name, about)
    if length == 0:
        raise ValueError(f"vectors in column {name!r} of {about} have no numbers")
    return Column(name, length, number == arrow().float32(), convert)


def _length(arrays: Iterable[Any], name: str, about: str) -> int:
    """Return the length of the first vector in a column."""
    for array in arrays:
        vectors = _plain(array).drop_null()
        if len(vectors):
            return len(vectors[0])
    raise ValueError(f"column {name!r} of {about} has no vector that could tell how many features it holds")


def _plain_type(kind: Any) -> Any:
    """Return the type of the values themselves, where they are encoded or have an extension's name."""
    while True:
        if getattr(kind, "extension_name", None) in NUMERIC_EXTENSIONS:
            kind = kind.storage_type
        elif arrow().types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _plain(array: Any) -> Any:
    """Return the values themselves, where they are encoded or have an extension's name."""
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
    # Integers above 2**53 are rounded, as NumPy does it.
    return _plain(array).cast(arrow().float64(), safe=False).to_numpy(zero_copy_only=False)
