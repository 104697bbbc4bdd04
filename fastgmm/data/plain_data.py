"""Objects as JSON and arrays, for files that are loaded without running any code.

`pack` turns an object into bytes, and `unpack` turns the bytes into an equal object. Numbers, strings, lists, tuples,
arrays of numbers and NumPy scalars are built in. The caller lists every other type. Dataclasses and other objects are
packed as their attributes, named tuples as their fields. An object of a type that is not listed raises an error.
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

from .block_checks import REAL_KINDS

# Numbers of an array that are converted at a time for its hash.
NUMBERS_PER_SLICE = 1 << 16
Types = Mapping[str, type]


class NotPlainDataError(TypeError):
    """Error for a type that is not listed, and for bytes not written by `pack`."""


def listed(*types: type) -> dict[str, type]:
    """Return types by their names, as `pack` and `unpack` take them."""
    return {kind.__name__: kind for kind in types}


def pack(value: Any, types: Types) -> bytes:
    """Return an object as bytes.

    These are the length of a JSON text, the text, and the bytes of arrays.

    Parameters
    ----------
    value : object
    types : dict of type, by name
        Types of objects that may be in it, besides numbers, strings, lists, tuples, dicts and arrays. These types may
        also be values themselves.

    Raises
    ------
    NotPlainDataError
        If it contains an object of another type.
    """
    packer = _Packer(types)
    text = json.dumps(packer.plain(value)).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(packer.arrays)


def unpack(packed: bytes, types: Types) -> Any:
    """Return the object that was packed; NotPlainDataError if the bytes are invalid."""
    view = memoryview(packed)
    n_text = int.from_bytes(view[:8], "little")
    try:
        plain = json.loads(bytes(view[8 : 8 + n_text]))
        return _Unpacker(types, view[8 + n_text :]).value(plain)
    except NotPlainDataError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise NotPlainDataError(f"the bytes are not a packed object: {error}") from None


class _Packer:
    """Converter of an object to JSON's types.

    It collects the bytes of each array once.
    """

    def __init__(self, types: Types):
        self.names = {kind: name for name, kind in types.items()}
        self.arrays: list[bytes] = []
        self.n_bytes = 0
        self.begins: dict[int, int] = {}

    def plain(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, str):
            return str.__str__(value)  # a plain string also for NumPy's strings
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
        if value.dtype.kind not in REAL_KINDS:
            raise NotPlainDataError(f"an array of {value.dtype} is not plain data")
        array = np.asarray(value)
        # Sums are rounded differently in another memory order, so it is stored.
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        if id(value) not in self.begins:
            self.begins[id(value)] = self.n_bytes
            self.arrays.append(array.tobytes(order="A"))
            self.n_bytes += array.nbytes
        plain = {"array": array.dtype.str, "shape": list(array.shape), "order": order, "at": self.begins[id(value)]}
        return plain if isinstance(value, np.ndarray) else {**plain, "scalar": True}


class _Unpacker:
    """Converter of the output of `_Packer` to an equal object."""

    def __init__(self, types: Types, array_bytes: memoryview):
        self.types, self.bytes = types, array_bytes
        self.converters: dict[str, Callable[[dict], Any]] = {
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
        return self.converters[next(iter(plain), "")](plain)

    def _dict(self, plain: dict) -> dict[str, Any]:
        return {name: self.value(value) for name, value in plain.items()}

    def _array(self, plain: dict) -> Any:
        dtype, shape = np.dtype(plain["array"]), tuple(plain["shape"])
        if dtype.kind not in REAL_KINDS:
            raise NotPlainDataError(f"an array of {dtype} is not plain data")
        n_bytes = dtype.itemsize * math.prod(shape)
        data = self.bytes[plain["at"] :][: max(n_bytes, 0)]
        if len(data) != n_bytes:
            raise NotPlainDataError(f"an array of shape {shape} has {len(data)} bytes")
        array = np.frombuffer(data, dtype).reshape(shape, order=plain["order"]).copy(order="K")
        return array[()] if plain.get("scalar") else array


def attributes(value: Any) -> dict[str, Any]:
    """Return the fields of a named tuple, or all attributes of another object."""
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
        raise NotPlainDataError(
            f"{kind.__name__} must have the fields of this version, but these differ: {sorted(missing | unknown)}"
        )
    if issubclass(kind, tuple):
        return tuple.__new__(kind, [values[name] for name in kind._fields])  # type: ignore[attr-defined]
    instance = object.__new__(kind)
    instance.__dict__.update(values)
    return instance


def digest(value: Any) -> str:
    """Return a hash of the content of an object.

    Equal numbers of NumPy and Python have one hash. So have equal arrays and lists of numbers, of any dtype and memory
    order. The hash of a dataclass covers its fields. The hash of any other object covers its type alone. This includes
    generators of random numbers, whose state changes with every draw.
    """
    hasher = hashlib.blake2b(digest_size=16)
    _feed(hasher, value)
    return hasher.hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    """Add an object to a hash.

    The type and length stand before each part, so that parts cannot be confused.
    """
    value = _simplified(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, np.ndarray) and value.dtype.kind in REAL_KINDS:
        hasher.update(f"array {value.shape} ".encode())
        for part in _slices(value):
            hasher.update(np.ascontiguousarray(part, dtype=np.float64).reshape(-1).view(np.uint8).data)
    elif isinstance(value, np.ndarray):
        _feed(hasher, (str(value.dtype), value.tolist()))
    elif isinstance(value, list | tuple):
        hasher.update(f"{name} {len(value)} ".encode())
        for item in value:
            _feed(hasher, item)
    elif isinstance(value, dict):
        _feed(hasher, sorted(value.items(), key=lambda item: repr(item[0])))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _feed(hasher, (name, [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]))
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes | np.dtype | np.generic):
        text = repr(value).encode()
        hasher.update(f"{name} {len(text)} ".encode() + text)
    else:
        hasher.update(f"{name} {np.shape(value) if hasattr(value, 'shape') else ''} ".encode())


def _simplified(value: Any) -> Any:
    """Return one form for all equal numbers, strings and arrays.

    Any other object is returned unchanged.
    """
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
    """Return whether nested lists and tuples hold nothing but numbers and arrays."""
    return all(
        isinstance(value, int | float | np.number | np.ndarray)
        or (isinstance(value, list | tuple) and _is_nested_numbers(value))
        for value in values
    )


def _slices(array: NDArray) -> Iterator[NDArray]:
    """Yield slices of an array that are small when they are copied to float64."""
    rows = max(1, NUMBERS_PER_SLICE // max(1, math.prod(array.shape[1:])))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]
