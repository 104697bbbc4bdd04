"""Vector code written out as LLVM IR, for the inner products that LLVM's own vectoriser does at half speed.

In a blocked Numba loop LLVM keeps the accumulators in memory. Here each accumulator is a phi node of vector type, which
stays in a register for a whole inner loop. `tile_operation` turns a function that emits such code into one that a
kernel can call; under ``NUMBA_DISABLE_JIT`` the naive NumPy twin given beside it is called instead.

Multiply-adds are `llvm.fmuladd`: one instruction where the CPU has it, two where it does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

I32, I64 = ir.IntType(32), ir.IntType(64)
DOUBLE = ir.DoubleType()


def _vector_bits() -> int:
    """Width of the vectors that kernels are compiled for, by the same settings that Numba's compiler obeys."""
    if config.CPU_NAME == "generic":
        return 128
    if config.CPU_FEATURES is not None:
        features = {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    elif config.CPU_NAME:
        return 128 if "v" not in config.CPU_NAME else {"x86-64-v3": 256, "x86-64-v4": 512}.get(config.CPU_NAME, 128)
    else:
        features = {name for name, present in binding.get_host_cpu_features().items() if present}
    return 512 if "avx512f" in features else 256 if "avx2" in features else 128


VECTOR_BITS = _vector_bits()
# x86 below AVX-512 has 16 vector registers; AVX-512 and ARM have 32.
MANY_REGISTERS = VECTOR_BITS != 256
# Columns of a tile come in multiples of this, in either dtype, so that no vector loop has a rest.
COLUMN_MULTIPLE = 64


class Emitter:
    """Emits vector arithmetic of one dtype at the native width."""

    def __init__(self, builder: ir.IRBuilder, dtype: np.dtype):
        self.builder = builder
        self.scalar = DOUBLE if dtype == np.float64 else ir.FloatType()
        self.size = np.dtype(dtype).itemsize
        self.width = VECTOR_BITS // (8 * self.size)
        self.type = ir.VectorType(self.scalar, self.width)

    # numbers
    def integer(self, value):
        return value if isinstance(value, ir.Value) else ir.Constant(I64, value)

    def zero(self):
        return ir.Constant(self.type, [0.0] * self.width)

    def splat(self, scalar):
        undefined = ir.Constant(self.type, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(
            one, undefined, ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        )

    def fma(self, x, y, z):
        """The vector ``x * y + z``."""
        suffix = "f64" if self.size == 8 else "f32"
        name, kind = f"llvm.fmuladd.v{self.width}{suffix}", ir.FunctionType(self.type, [self.type] * 3)
        function = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, [x, y, z])

    # memory
    def at(self, pointer, offset):
        return self.builder.gep(pointer, [self.integer(offset)])

    def load(self, pointer, offset=0):
        """A vector from `offset` elements behind `pointer`."""
        place = self.builder.bitcast(self.at(pointer, offset), self.type.as_pointer())
        return self.builder.load(place, align=self.size)

    def store(self, value, pointer, offset=0):
        place = self.builder.bitcast(self.at(pointer, offset), self.type.as_pointer())
        self.builder.store(value, place, align=self.size)

    def load_splat(self, pointer, offset=0):
        """A vector of copies of one element."""
        return self.splat(self.builder.load(self.at(pointer, offset)))

    # control
    def loop(self, start, stop, step: int, state: Sequence, body: Callable) -> list:
        """``for i in range(start, stop, step): state = body(i, state)``; returns the last state."""
        b = self.builder
        start, stop = self.integer(start), self.integer(stop)
        before = b.block
        head, turn, after = (b.append_basic_block(name) for name in ("head", "turn", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(start, before)
        phis = []
        for value in state:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phis.append(phi)
        b.cbranch(b.icmp_signed("<", i, stop), turn, after)
        b.position_at_end(turn)
        new = body(i, phis)
        i.add_incoming(b.add(i, self.integer(step)), b.block)
        for phi, value in zip(phis, new or (), strict=True):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        return phis

    def when(self, condition, state: Sequence, body: Callable) -> list:
        """``if condition: state = body(state)``; returns the state."""
        b = self.builder
        before = b.block
        turn, after = b.append_basic_block("when"), b.append_basic_block("after")
        b.cbranch(condition, turn, after)
        b.position_at_end(turn)
        new = body(list(state)) or ()
        last = b.block
        b.branch(after)
        b.position_at_end(after)
        result = []
        for old, value in zip(state, new, strict=True):
            phi = b.phi(value.type)
            phi.add_incoming(old, before)
            phi.add_incoming(value, last)
            result.append(phi)
        return result

    # sums over lanes
    def lane_sums(self, vectors: Sequence):
        """A vector whose element i is the sum of the lanes of ``vectors[i]``; their number is a power of two.

        Two vectors at a time become one, half as many lanes for each: for 16 vectors of 8 lanes 14 additions instead of
        the 48 of 16 separate sums, which would cost a quarter of a scatter tile's time.
        """
        vectors, group = list(vectors), self.width
        while group > 1:
            half = group // 2
            if len(vectors) == 1:
                vectors = [self._fold(vectors[0], None, group, half)]
            else:
                vectors = [self._fold(x, y, group, half) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
            group = half
        return vectors

    def _fold(self, x, y, group, half):
        lanes = x.type.count * (1 if y is None else 2)
        low = [g + i for g in range(0, lanes, group) for i in range(half)]
        mask = ir.VectorType(I32, len(low))
        other = ir.Constant(x.type, ir.Undefined) if y is None else y
        first = self.builder.shuffle_vector(x, other, ir.Constant(mask, low))
        second = self.builder.shuffle_vector(x, other, ir.Constant(mask, [i + half for i in low]))
        return self.builder.fadd(first, second)

    def add_to_float64(self, sums, start, count, pointer, offset):
        """Add elements ``start .. start + count`` of a vector to as many float64 in memory."""
        mask = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
        part = self.builder.shuffle_vector(sums, ir.Constant(sums.type, ir.Undefined), mask)
        wide = ir.VectorType(DOUBLE, count)
        part = part if self.size == 8 else self.builder.fpext(part, wide)
        place = self.builder.bitcast(self.at(pointer, offset), wide.as_pointer())
        self.builder.store(self.builder.fadd(self.builder.load(place, align=8), part), place, align=8)


class Matrix:
    """A C-contiguous one- or two-dimensional array inside emitted code: a pointer and a row stride in elements."""

    def __init__(self, emitter: Emitter, context, kind, value):
        array = context.make_array(kind)(context, emitter.builder, value)
        self.emitter, self.pointer = emitter, array.data
        self.shape = cgutils.unpack_tuple(emitter.builder, array.shape)

    def row(self, i):
        """Pointer to the first element of row i."""
        return self.emitter.at(self.pointer, self.emitter.builder.mul(self.emitter.integer(i), self.shape[1]))


def tile_operation(twin: Callable) -> Callable[[Callable], Callable]:
    """Make a function callable in kernels from one that emits its code; `twin` says in NumPy what it computes.

    The emitting function takes an `Emitter` of the first argument's dtype and one `Matrix` or integer an argument of
    the twin, and writes its results to memory.
    """

    def decorate(emit: Callable) -> Callable:
        if config.DISABLE_JIT:
            return twin

        def code_generator(context, builder, signature, arguments):
            kinds = signature.args
            emitter = Emitter(builder, np.dtype(kinds[0].dtype.name))
            operands = [
                Matrix(emitter, context, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(kinds, arguments, strict=True)
            ]
            emit(emitter, *operands)
            return context.get_dummy_value()

        def typing(typing_context, *kinds):
            return types.void(*kinds), code_generator

        # Numba matches a call's arguments with the names it finds here.
        leading = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = [leading, *inspect.signature(twin).parameters.values()]
        typing.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        typing.__name__ = typing.__qualname__ = twin.__name__
        operation = intrinsic(typing)
        operation.__doc__ = twin.__doc__
        return operation

    return decorate
