"""Tile operations: emitted code beside the naive NumPy function that defines it.

The naive function comes first. Below it stands a function of the same arguments that emits code (see `simd`), decorated
with ``@tile_operation(naive)``. Kernels call the decorated function. With ``NUMBA_DISABLE_JIT=1`` they call the naive
one, and the tests compare both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import intrinsic

from .numba_internals import config, read_array, tuple_items
from .simd import Emitter, Matrix

# Bytes. Numba aligns the stack to 16 bytes only, so that three of four vectors that do not fit in the registers
# straddled two cache lines; some processes took 1.4 times as long with 6 features.
STACK_ALIGNMENT = 64


def tile_operation(naive: Callable, **constants: int) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a code-emitting function callable in kernels.

    Parameters
    ----------
    naive : callable
        Function of NumPy arrays with the same arguments. It defines the result.
    **constants : int
        Further keyword arguments of the emitting function, which it can unroll loops by.

    Returns
    -------
    decorator : callable
        The emitting function receives an `Emitter` of the first argument's dtype, then a `Matrix` for every array and
        an ``ir.Value`` for every number, then the constants.
    """

    def decorate(emit: Callable) -> Callable:
        if config.DISABLE_JIT:
            return naive

        def code_generator(context, builder, signature, arguments):
            argument_types = signature.args
            builder.function.attributes.alignstack = STACK_ALIGNMENT
            builder.function.attributes.add("nounwind")  # llvmlite writes no alignment unless there is another one
            emitter = Emitter(builder, np.dtype(argument_types[0].dtype.name))
            operands = []
            for kind, value in zip(argument_types, arguments, strict=True):
                if isinstance(kind, types.Array):
                    array = read_array(context, builder, kind, value)
                    value = Matrix(emitter, array.data, tuple_items(builder, array.shape))
                operands.append(value)
            emit(emitter, *operands, **constants)
            return context.get_dummy_value()

        def typing(typing_context, *argument_types):
            return types.void(*argument_types), code_generator

        # Numba matches a call's arguments with the names in this signature.
        leading = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [leading, *inspect.signature(naive).parameters.values()]
        typing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        typing.__name__ = typing.__qualname__ = naive.__name__
        operation = intrinsic(typing)
        operation.__doc__ = naive.__doc__
        return operation

    return decorate
