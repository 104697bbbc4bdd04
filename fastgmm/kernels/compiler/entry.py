"""Calls of kernels by address, so that one compiled loop serves all kernels.

A loop that receives a kernel's arguments directly is compiled again for every list of argument types. Here the loop
receives two addresses and an array of words (int64), whatever it runs. The first address is that of `enter`, which is
compiled for one list of types: it builds arrays from their addresses and extents in the words, and calls the kernel at
the second address. Compiling `enter` takes a tenth of a second, compiling the loop again 0.7 seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .numba_internals import call_address, read_array, tuple_items, write_array

# Arguments of `enter`: the chunk's number, a thread's scratch memory as bytes, the words, the kernel's address.
SIGNATURE = (types.intp, types.Array(types.uint8, 1, "C"), types.Array(types.int64, 1, "C"), types.intp)


def pack_arguments(memory: np.ndarray, arguments: Sequence[Any]) -> np.ndarray:
    """Return a kernel's arguments as words.

    The words are the extents of `memory`, then for each argument the array's address and extents, or the number.

    Parameters
    ----------
    memory : (rows, columns)
        One thread's scratch memory. Its address differs between threads, so it is not among the words.
    arguments : sequence of C-contiguous arrays and integers

    Returns
    -------
    words : (n_words,) int64
    """
    words: list[int] = [*memory.shape]
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            words.append(argument.__array_interface__["data"][0])
            words.extend(argument.shape)
        else:
            words.append(int(argument))
    return np.array(words, np.int64)


def make_unpack(memory_type: types.Array, *argument_types: types.Type) -> Callable:
    """Return an intrinsic that unpacks arguments of these types.

    It turns scratch memory and words into a tuple of arrays and integers.
    """
    unpacked = types.BaseTuple.from_types((memory_type, *argument_types))

    def code_generator(context, builder, signature, values):
        memory, words = (
            read_array(context, builder, kind, value).data for kind, value in zip(signature.args, values, strict=True)
        )
        position = 0

        def next_word() -> ir.Value:
            nonlocal position
            position += 1
            return builder.load(builder.gep(words, [ir.Constant(ir.IntType(64), position - 1)]))

        def next_array(kind: types.Array, data: ir.Value) -> ir.Value:
            return write_array(context, builder, kind, data, [next_word() for _ in range(kind.ndim)])

        items = [next_array(memory_type, memory)]
        for kind in argument_types:
            items.append(next_array(kind, next_word()) if isinstance(kind, types.Array) else next_word())
        return context.make_tuple(builder, unpacked, items)

    @intrinsic
    def unpack(typing_context, memory, words):
        return unpacked(memory, words), code_generator

    return unpack


def enter(c, memory, words, address):
    """Call the kernel at an address for chunk c.

    A template: `unpack` is made for the kernel's types.
    """
    call_kernel(address, c, unpack(memory, words))  # type: ignore[name-defined]  # noqa: F821


@intrinsic
def call_kernel(typing_context, address, c, arguments):
    """Call a kernel's machine code, compiled for ``(intp, *arguments)``."""
    argument_types = (types.intp, *arguments.types)

    def code_generator(context, builder, signature, values):
        address, c, packed = values
        call_address(context, builder, address, argument_types, [c, *tuple_items(builder, packed)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, arguments), code_generator


@intrinsic
def call_entry(typing_context, entry, c, memory, words, address):
    """Call the machine code of an `enter`."""

    def code_generator(context, builder, signature, values):
        call_address(context, builder, values[0], SIGNATURE, values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *SIGNATURE), code_generator
