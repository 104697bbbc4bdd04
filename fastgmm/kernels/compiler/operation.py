"""Operations on tiles: emitted code that kernels call, each with the naive function that says what it computes.

The naive function is NumPy. Under it, decorated with ``@tile_operation(naive)``, stands one of the same arguments that
emits code for it (see `simd`). Kernels call the second; under ``NUMBA_DISABLE_JIT`` they call the first, and the tests
compare the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from .simd import Emitter, Matrix

# Numba's functions do not align their stack, by itself a multiple of 16 bytes: three times in four every vector that
# does not fit into the registers was on two cache lines. With six features some processes took 1.4 times as long.
STACK_ALIGNMENT = 64


def tile_operation(naive: Callable, **plain: int) -> Callable[[Callable], Callable]:
    """Make a function that emits code callable in kernels; `naive` says in NumPy what it computes.

    The emitting function gets an `Emitter` of the first argument's dtype, then a `Matrix` or a number for each
    argument of the naive one, then the plain numbers given here, which it can unroll by.
    """

    def decorate(emit: Callable) -> Callable:
        if config.DISABLE_JIT:
            return naive

        def code_generator(context, builder, signature, arguments):
            kinds = signature.args
            builder.function.attributes.alignstack = STACK_ALIGNMENT
            builder.function.attributes.add("nounwind")  # llvmlite leaves the alignment out if it is the only one
            emitter = Emitter(builder, np.dtype(kinds[0].dtype.name))
            operands = []
            for kind, value in zip(kinds, arguments, strict=True):
                if isinstance(kind, types.Array):
                    array = context.make_array(kind)(context, builder, value)
                    value = Matrix(emitter, array.data, cgutils.unpack_tuple(builder, array.shape))
                operands.append(value)
            emit(emitter, *operands, **plain)
            return context.get_dummy_value()

        def typing(typing_context, *kinds):
            return types.void(*kinds), code_generator

        # Numba matches a call's arguments with the names it finds here.
        leading = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [leading, *inspect.signature(naive).parameters.values()]
        typing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        typing.__name__ = typing.__qualname__ = naive.__name__
        operation = intrinsic(typing)
        operation.__doc__ = naive.__doc__
        return operation

    return decorate
