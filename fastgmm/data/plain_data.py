"""Objects as plain data, JSON and arrays, for files that are loaded without running any code.

`pack` turns an object into bytes, `unpack` turns these into an equal object. Numbers, strings, lists, tuples, arrays of
numbers and NumPy scalars are built in. Every other type has to be listed by the caller: dataclasses and other objects
are packed as their attributes, named tuples as their fields. An object of a type that is not listed is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What is never a reference to something else.
KINDS_OF_NUMBERS = "fiub"
# Of an array that is hashed, numbers that are converted at a time.
NUMBERS_PER_SLICE = 1 << 16
Types = Mapping[str, type]


class NotPlainDataError(TypeError):
    """An object of a type that is not listed, or bytes that no such object was packed to."""


def listed(*types: type) -> dict[str, type]:
    """Return types by their names, as `pack` and `unpack` take them."""
    return {kind.__name__: kind for kind in types}


def pack(value: Any, types: Types) -> bytes:
    """Return an object as bytes: the length of a JSON text, the text, and the bytes of arrays.

    Parameters
    ----------
    value : object
    types : dict of type, by name
        Which objects besides numbers, strings, lists, tuples, dicts and arrays may be in it. Classes in the list may
        also be values themselves.

    Raises
    ------
    NotPlainDataError
        If there is an object of another type.
    """
    packer = _Packer(types)
    text = json.dumps(packer.plain(value)).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(packer.arrays)


def unpack(packed: bytes, types: Types) -> Any:
    """Return the object that was packed; NotPlainDataError if there is none."""
    view = memoryview(packed)
    n_text = int.from_bytes(view[:8], "little")
    try:
        plain = json.loads(bytes(view[8 : 8 + n_text]))
        return _Unpacker(types, view[8 + n_text :]).value(plain)
    except NotPlainDataError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise NotPlainDataError(f"no packed object: {error}") from None


class _Packer:
    """Turns an object into what JSON has; the bytes of its arrays go into a list, once for each array."""

    def __init__(self, types: Types):
        self.names = {kind: name for name, kind in types.items()}
        self.arrays: list[bytes] = []
        self.n_bytes = 0
        self.begins: dict[int, int] = {}

    def plain(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, str):
            return str.__str__(value)  # also of NumPy's strings
        if type(value) is list:
            return [self.plain(item) for item in value]
        if type(value) is tuple:
            return {"tuple": [self.plain(item) for item in value]}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": self._of_dict(value)}
        if isinstance(value, np.ndarray | np.generic):
            return self._of_array(value)
        if isinstance(value, type) and value in self.names:
            return {"class": self.names[value]}
        if type(value) in self.names:
            return {"object": self.names[type(value)], "attributes": self._of_dict(attributes(value))}
        raise NotPlainDataError(f"{type(value).__qualname__} is not listed as plain data")

    def _of_dict(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.plain(value) for name, value in values.items()}

    def _of_array(self, value: NDArray | np.generic) -> dict[str, Any]:
        if value.dtype.kind not in KINDS_OF_NUMBERS:
            raise NotPlainDataError(f"an array of {value.dtype} is not plain data")
        array = np.asarray(value)
        # The memory order decides how sums are rounded, so it is kept.
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        if id(value) not in self.begins:
            self.begins[id(value)] = self.n_bytes
            self.arrays.append(array.tobytes(order="A"))
            self.n_bytes += array.nbytes
        plain = {"array": array.dtype.str, "shape": list(array.shape), "order": order, "at": self.begins[id(value)]}
        return plain if isinstance(value, np.ndarray) else {**plain, "scalar": True}


class _Unpacker:
    """Turns what `_Packer` gives into an equal object."""

    def __init__(self, types: Types, array_bytes: memoryview):
        self.types, self.bytes = types, array_bytes
        self.known: dict[str, Callable[[dict], Any]] = {
            "tuple": lambda plain: tuple(self.value(item) for item in plain["tuple"]),
            "dict": lambda plain: self._dict(plain["dict"]),
            "array": self._array,
            "class": lambda plain: self.types[plain["class"]],
            "object": lambda plain: restored(self.types[plain["object"]], self._dict(plain["attributes"])),
        }

    def value(self, plain: Any) -> Any:
        if isinstance(plain, list):
            return [self.value(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        return self.known[next(iter(plain), "")](plain)

    def _dict(self, plain: dict) -> dict[str, Any]:
        return {name: self.value(value) for name, value in plain.items()}

    def _array(self, plain: dict) -> Any:
        dtype, shape = np.dtype(plain["array"]), tuple(plain["shape"])
        if dtype.kind not in KINDS_OF_NUMBERS:
            raise NotPlainDataError(f"an array of {dtype} is not plain data")
        n_bytes = dtype.itemsize * math.prod(shape)
        data = self.bytes[plain["at"] :][: max(n_bytes, 0)]
        if len(data) != n_bytes:
            raise NotPlainDataError(f"an array of shape {shape} has {len(data)} bytes")
        array = np.frombuffer(data, dtype).reshape(shape, order=plain["order"]).copy(order="K")
        return array[()] if plain.get("scalar") else array


def attributes(value: Any) -> dict[str, Any]:
    """Return what an object consists of: the fields of a named tuple, else all its attributes."""
    fields = getattr(value, "_fields", None)
    return dict(vars(value)) if fields is None else dict(zip(fields, value, strict=True))


def restored(kind: type, values: dict[str, Any]) -> Any:
    """Return an object with these attributes, without calling any code of its class.

    Raises
    ------
    NotPlainDataError
        If a field is missing, as in a file of another version.
    """
    expected = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    expected = set(getattr(kind, "_fields", expected))
    missing, unknown = expected - set(values), set(values) - expected
    if missing or (unknown and issubclass(kind, tuple)):
        raise NotPlainDataError(f"{kind.__name__} has other fields now: {sorted(missing | unknown)}")
    if issubclass(kind, tuple):
        return tuple.__new__(kind, [values[name] for name in kind._fields])  # type: ignore[attr-defined]
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


def digest(value: Any) -> str:
    """Return a hash of an object's content, to compare it with another one later.

    Equal numbers count alike, NumPy's and Python's, and so do equal arrays and lists of numbers, of whatever dtype and
    memory order. Objects of types that are no plain data count by their dataclass fields, or else by the type alone.
    Generators of random numbers do so too: their state is another one once they have been drawn from.
    """
    found = hashlib.blake2b(digest_size=16)
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    """Add an object to a hash. Every part has its type and length before it, so that no two parts run together."""
    value = _simplified(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, np.ndarray) and value.dtype.kind in KINDS_OF_NUMBERS:
        found.update(f"array {value.shape} ".encode())
        for part in _slices(value):
            found.update(np.ascontiguousarray(part, dtype=np.float64).reshape(-1).view(np.uint8).data)
    elif isinstance(value, np.ndarray):
        _feed(found, (str(value.dtype), value.tolist()))
    elif isinstance(value, list | tuple):
        found.update(f"{name} {len(value)} ".encode())
        for item in value:
            _feed(found, item)
    elif isinstance(value, dict):
        _feed(found, sorted(value.items(), key=lambda item: repr(item[0])))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(found, (name, [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]))
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.dtype | np.generic):
        text = repr(value).encode()
        found.update(f"{name} {len(text)} ".encode() + text)
    else:
        found.update(f"{name} {np.shape(value) if hasattr(value, 'shape') else ''} ".encode())


def _simplified(value: Any) -> Any:
    """Return a number, a string or an array in the form that all values equal to it have, and others as they are."""
    if hasattr(value, "iloc") and hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, list | tuple) and _is_nested_numbers(value):
        with contextlib.suppress(ValueError):  # lists of different lengths
            value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.generic):
        value = float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_nested_numbers(values: Any) -> bool:
    """Return whether lists and tuples hold numbers alone, in lists, tuples and arrays or by themselves."""
    return all(
        isinstance(value, int | float | np.number | np.ndarray)
        or (isinstance(value, list | tuple) and _is_nested_numbers(value))
        for value in values
    )


def _slices(array: NDArray) -> Iterator[NDArray]:
    """Yield an array in slices, of which a copy in float64 needs little memory."""
    rows = max(1, NUMBERS_PER_SLICE // max(1, math.prod(array.shape[1:])))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]
