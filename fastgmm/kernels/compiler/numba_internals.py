"""All uses of Numba's internal interfaces.

They are gathered here so that an upgrade of Numba can break this file only. The other modules use what Numba documents:
``njit``, ``prange``, ``types``, ``typeof``, the thread functions and ``numba.extending.intrinsic``. Everything below
can change in any release of Numba. The exception is `_fork_guard`, one level up: it must run before Numba is imported,
so it reads ``numba.np.ufunc.parallel`` itself.

In the functions that emit code, ``context`` is Numba's target context and ``builder`` the llvmlite builder of the
function that is being compiled; Numba passes both to an intrinsic.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.caching import _Cache as DispatcherCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs
from numba.np import arrayobj
from numba.np.numpy_support import as_dtype

__all__ = [
    "DispatcherCache",
    "address_of",
    "call_address",
    "can_be_saved",
    "config",
    "deserialise",
    "read_array",
    "serialise",
    "set_cache",
    "stack_slot",
    "tuple_items",
    "user_cache_folder",
    "write_array",
]


# Compiled functions and the disk cache


def address_of(dispatcher: Any, signature: tuple) -> int:
    """Return the address of a function's machine code, compiled if necessary."""
    dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def set_cache(dispatcher: Any, cache: DispatcherCache) -> None:
    """Make a jitted function load and save its machine code through `cache`."""
    dispatcher._cache = cache


def can_be_saved(compiled: CompileResult) -> bool:
    """Return whether compiled code is independent of addresses in this process."""
    return not compiled.library.has_dynamic_globals


def serialise(compiled: CompileResult) -> bytes:
    """Return a compiled function as bytes for `deserialise`."""
    return dumps(compiled._reduce())


def deserialise(target_context: Any, content: bytes) -> CompileResult:
    """Load a compiled function from the bytes that `serialise` returned."""
    return CompileResult._rebuild(target_context, *pickle.loads(content))


def user_cache_folder(name: str) -> Path:
    """Return the operating system's folder for an application's cached files."""
    return Path(AppDirs(appname=name, appauthor=False).user_cache_dir)


# Emitted code


def stack_slot(builder: ir.IRBuilder, kind: ir.Type) -> ir.Value:
    """Allocate a variable on the stack of the function, and return its address."""
    return cgutils.alloca_once(builder, kind)


def tuple_items(builder: ir.IRBuilder, value: ir.Value) -> list[ir.Value]:
    """Return the items of a tuple."""
    return cgutils.unpack_tuple(builder, value)


def read_array(context: Any, builder: ir.IRBuilder, kind: types.Array, value: ir.Value) -> Any:
    """Return an array's fields.

    Its ``data`` is the address of the first element, its ``shape`` a tuple.
    """
    return context.make_array(kind)(context, builder, value)


def write_array(
    context: Any, builder: ir.IRBuilder, kind: types.Array, data: ir.Value, shape: Sequence[ir.Value]
) -> ir.Value:
    """Return a C-ordered array of a type in existing memory.

    `data` is the memory's address, a pointer or an integer.
    """
    array = context.make_array(kind)(context, builder)
    pointer = array.data.type
    data = builder.bitcast(data, pointer) if isinstance(data.type, ir.PointerType) else builder.inttoptr(data, pointer)
    itemsize = context.get_constant(types.intp, as_dtype(kind.dtype).itemsize)
    strides = [itemsize]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    arrayobj.populate_array(array, data=data, shape=shape, strides=strides, itemsize=itemsize, meminfo=None)
    return array._getvalue()


def call_address(
    context: Any, builder: ir.IRBuilder, address: ir.Value, argument_types: Sequence, arguments: Sequence[ir.Value]
) -> None:
    """Call compiled code that returns None at an address, and raise what it raises."""
    convention = context.call_conv
    function = builder.inttoptr(address, convention.get_function_type(types.void, argument_types).as_pointer())
    status, _ = convention.call_function(builder, function, types.void, argument_types, arguments)
    with cgutils.if_unlikely(builder, status.is_error):
        convention.return_status_propagate(builder, status)
