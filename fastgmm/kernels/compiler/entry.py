"""One loop for all kernels: their arguments come as words of memory, which a function for their types unpacks.

A loop that is handed a kernel's arguments is compiled anew for every list of their types, 0.7 s each time. Here the
loop gets two addresses and an array of words, whatever it runs. At the first address is `enter`, made for a list of
types in a tenth of the time: it puts arrays together from addresses and extents, and calls the kernel, at the second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype

# What an entry takes: the number of a chunk, a thread's memory in bytes, the words, the kernel's address.
SIGNATURE = (types.intp, types.Array(types.uint8, 1, "C"), types.Array(types.int64, 1, "C"), types.intp)


def packed(memory: np.ndarray, arguments: Sequence[Any]) -> np.ndarray:
    """Words for an entry, int64: the extents of a thread's memory; address and extents of each array; numbers."""
    words: list[int] = [*memory.shape]
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            words.append(argument.__array_interface__["data"][0])
            words.extend(argument.shape)
        else:
            words.append(int(argument))
    return np.array(words, np.int64)


def unpacking(memory: types.Array, *kinds: types.Type) -> Callable:
    """An intrinsic that unpacks C-ordered arrays and integers of these types, the memory first."""
    unpacked = types.BaseTuple.from_types((memory, *kinds))

    def code_generator(context, builder, signature, values):
        bytes_at, words_at = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args, values, strict=True)
        )
        place = 0

        def next_word() -> ir.Value:
            nonlocal place
            place += 1
            return builder.load(builder.gep(words_at, [ir.Constant(ir.IntType(64), place - 1)]))

        def array(kind: types.Array, data: ir.Value | None = None) -> ir.Value:
            made = context.make_array(kind)(context, builder)
            pointer = made.data.type
            data = builder.inttoptr(next_word(), pointer) if data is None else builder.bitcast(data, pointer)
            shape = [next_word() for _ in range(kind.ndim)]
            itemsize = context.get_constant(types.intp, as_dtype(kind.dtype).itemsize)
            strides = [itemsize]
            for extent in reversed(shape[1:]):
                strides.insert(0, builder.mul(strides[0], extent))
            arrayobj.populate_array(made, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
            return made._getvalue()

        found = [array(memory, bytes_at)]
        found += [array(kind) if isinstance(kind, types.Array) else next_word() for kind in kinds]
        return context.make_tuple(builder, unpacked, found)

    @intrinsic
    def unpack(typing_context, memory, words):
        return unpacked(memory, words), code_generator

    return unpack


def enter(c, memory, words, address):
    """Call the kernel at an address for chunk c. (A template: `unpack` is that of the kernel's types.)"""
    call_at(address, c, unpack(memory, words))  # type: ignore[name-defined]  # noqa: F821


@intrinsic
def call_at(typing_context, address, c, arguments):
    """Call the machine code at an address, compiled by Numba for ``(intp, *arguments)``."""
    kinds = (types.intp, *arguments.types)

    def code_generator(context, builder, signature, values):
        address, c, packed = values
        _call(context, builder, kinds, address, [c, *cgutils.unpack_tuple(builder, packed)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, arguments), code_generator


@intrinsic
def call_entry(typing_context, entry, c, memory, words, address):
    """Call the machine code of an entry."""

    def code_generator(context, builder, signature, values):
        _call(context, builder, SIGNATURE, values[0], values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *SIGNATURE), code_generator


def _call(context: Any, builder: ir.IRBuilder, kinds: tuple, address: ir.Value, arguments: list[ir.Value]) -> None:
    convention = context.call_conv
    function = builder.inttoptr(address, convention.get_function_type(types.void, kinds).as_pointer())
    status, _ = convention.call_function(builder, function, types.void, kinds, arguments)
    with cgutils.if_unlikely(builder, status.is_error):
        convention.return_status_propagate(builder, status)
