"""Vector code written as LLVM IR.

It replaces loops that LLVM's own vectoriser makes half as fast or slower. In a blocked Numba loop LLVM keeps the
accumulators in memory, and compiles every loop three times in case its arrays overlap. Here an accumulator is a
`Variable`, which LLVM keeps in a register for a whole inner loop.

Emitting code reads like the loops that are emitted. ``for i in e.each(0, n, e.width)`` emits a loop if a bound is known
only at run time, and is unrolled by Python if all bounds are Python integers. A branch is llvmlite's own: ``with
e.builder.if_then(condition)``. Kernels call emitted code as tile operations (see `operation`).

Multiply-adds are ``llvm.fmuladd``: one instruction on CPUs that have it, two on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from llvmlite import binding, ir

from .numba_internals import config, stack_slot

I32, I64 = ir.IntType(32), ir.IntType(64)
DOUBLE, FLOAT = ir.DoubleType(), ir.FloatType()


def _vector_bits() -> int:
    """Return the bits of the CPU's vectors, by the settings of Numba's compiler."""
    if config.CPU_FEATURES is not None:
        features = {name[1:] for name in config.CPU_FEATURES.split(",") if name.startswith("+")}
    elif config.CPU_NAME:
        return {"x86-64-v3": 256, "x86-64-v4": 512}.get(config.CPU_NAME, 128)
    else:
        features = {name for name, present in binding.get_host_cpu_features().items() if present}
    return 512 if "avx512f" in features else 256 if "avx2" in features else 128


VECTOR_BITS = _vector_bits()
# x86 below AVX-512 has 16 vector registers; AVX-512 and ARM have 32.
MANY_REGISTERS = VECTOR_BITS == 512 or "aarch64" in binding.get_default_triple()
# The number of columns in use of a tile is a multiple of this for both dtypes, so that no vector loop has a remainder.
COLUMN_MULTIPLE = 64

# A Python int, or an ir.Value: an integer of the emitted code.
Number: TypeAlias = Any


class Vector:
    """A vector of the CPU's native width, with arithmetic."""

    def __init__(self, e: Emitter, value: ir.Value):
        self.e, self.value = e, value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.e, self.e.builder.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.e, self.e.builder.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.e, self.e.builder.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.e, self.e.builder.fdiv(self.value, other.value))

    def __lt__(self, other: Vector) -> ir.Value:
        return self.e.builder.fcmp_ordered("<", self.value, other.value)

    def __eq__(self, other: object) -> ir.Value:
        assert isinstance(other, Vector)
        return self.e.builder.fcmp_ordered("==", self.value, other.value)

    __hash__ = object.__hash__


class Variable:
    """A vector that changes.

    It is a stack slot in the emitted code, and a register after LLVM's optimisation.
    """

    def __init__(self, e: Emitter, initial: Vector):
        self.e, self.slot = e, stack_slot(e.builder, initial.value.type)
        self.set(initial)

    def get(self) -> Vector:
        return Vector(self.e, self.e.builder.load(self.slot))

    def set(self, vector: Vector) -> None:
        self.e.builder.store(vector.value, self.slot)

    def add(self, vector: Vector) -> None:
        self.set(self.get() + vector)

    def add_product(self, x: Vector, y: Vector) -> None:
        """Add ``x * y``."""
        self.set(self.e.fma(x, y, self.get()))


class Slot:
    """An integer or a pointer that changes.

    It is a stack slot that becomes a register, like a `Variable`.
    """

    def __init__(self, e: Emitter, initial: ir.Value):
        self.e, self.slot = e, stack_slot(e.builder, initial.type)
        self.set(initial)

    def get(self) -> ir.Value:
        return self.e.builder.load(self.slot)

    def set(self, value: ir.Value) -> None:
        self.e.builder.store(value, self.slot)


class Emitter:
    """Emit loops and vector arithmetic of one dtype at the CPU's native width.

    Attributes
    ----------
    builder : ir.IRBuilder
        llvmlite's builder of the function that is being compiled.
    width : int
        Lanes of a vector.
    size : int
        Bytes of a number.
    block_sizes : list of int
        Sizes for `blocks`: the lanes of a vector, half of them, and so on down to 1.
    """

    def __init__(self, builder: ir.IRBuilder, dtype: np.dtype):
        self.builder = builder
        self.scalar = DOUBLE if dtype == np.float64 else FLOAT
        self.size = np.dtype(dtype).itemsize
        self.width = VECTOR_BITS // (8 * self.size)
        self.type = ir.VectorType(self.scalar, self.width)
        self.integer_type = ir.VectorType(ir.IntType(8 * self.size), self.width)
        self.block_sizes = [self.width >> s for s in range(self.width.bit_length())]

    # Integers: computed by Python if all operands are Python integers, else by the emitted code.
    def index(self, number: Number) -> ir.Value:
        """Return an integer as a value of the emitted code."""
        return ir.Constant(I64, number) if isinstance(number, int) else number

    def add(self, a: Number, b: Number) -> Number:
        constant = isinstance(a, int) and isinstance(b, int)
        return a + b if constant else self.builder.add(self.index(a), self.index(b))

    def multiply(self, a: Number, b: Number) -> Number:
        constant = isinstance(a, int) and isinstance(b, int)
        return a * b if constant else self.builder.mul(self.index(a), self.index(b))

    def round_down(self, a: Number, multiple: int) -> Number:
        """Return the largest multiple of a power of two that is at most a."""
        return a // multiple * multiple if isinstance(a, int) else self.builder.and_(a, self.index(-multiple))

    def minimum(self, a: Number, b: Number) -> ir.Value:
        a, b = self.index(a), self.index(b)
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def to_float(self, n: Number) -> ir.Value:
        """Return an integer as a floating-point number."""
        return self.builder.sitofp(self.index(n), self.scalar)

    # Control flow
    def each(self, start: Number, stop: Number, step: int = 1) -> Iterator[Number]:
        """Emit a loop ``for i in range(start, stop, step)``.

        It is unrolled if the bounds are Python integers. The body of a loop is emitted once. It must not be left by
        ``break``.
        """
        if isinstance(start, int) and isinstance(stop, int):
            yield from range(start, stop, step)
            return
        b = self.builder
        before = b.block
        head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(self.index(start), before)
        b.cbranch(b.icmp_signed("<", i, self.index(stop)), body, after)
        b.position_at_end(body)
        yield i
        i.add_incoming(b.add(i, self.index(step)), b.block)
        b.branch(head)
        b.position_at_end(after)

    def each_group(self, n: Number, vectors: int) -> Iterator[list[Number]]:
        """Emit a loop over the first n columns, `vectors` vectors at a time.

        Yields the first column of each vector.
        """
        for i in self.each(0, n, vectors * self.width):
            yield [self.add(i, v * self.width) for v in range(vectors)]

    def slot(self, initial: Number) -> Slot:
        return Slot(self, self.index(initial))

    def blocks(self, start: Number, stop: Number, sizes: Sequence[int]) -> Iterator[tuple[Number, int]]:
        """Cut a range into blocks of given sizes.

        There are as many blocks as fit of the first size, then of the second, and so on. The sizes are powers of two,
        the last is 1. Yields the first number and the size of each block; emits a loop for each size.
        """
        for size in sizes:
            end = self.add(start, self.round_down(self.add(stop, self.multiply(start, -1)), size))
            for i in self.each(start, end, size):
                yield i, size
            start = end

    # Vectors
    def constant(self, number: float, lanes: int = 0) -> Vector:
        """Return a vector of copies of a Python number.

        It has the native width unless `lanes` is given.
        """
        lanes = lanes or self.width
        return Vector(self, ir.Constant(ir.VectorType(self.scalar, lanes), [float(number)] * lanes))

    def variable(self, initial: float = 0.0, lanes: int = 0) -> Variable:
        return Variable(self, self.constant(initial, lanes))

    def splat(self, scalar: ir.Value, lanes: int = 0) -> Vector:
        """Return a vector of copies of a number of the emitted code."""
        lanes = lanes or self.width
        undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return Vector(self, self.builder.shuffle_vector(single, undefined, zeros))

    def fma(self, x: Vector, y: Vector, z: Vector) -> Vector:
        """Return ``x * y + z``."""
        return Vector(self, self._call("fmuladd", [x.value, y.value, z.value]))

    def sqrt(self, x: Vector) -> Vector:
        return Vector(self, self._call("sqrt", [x.value]))

    def select(self, condition: ir.Value, x: Vector, y: Vector) -> Vector:
        """Return, lane by lane, x where the condition holds, else y."""
        return Vector(self, self.builder.select(condition, x.value, y.value))

    def bits(self, x: Vector) -> ir.Value:
        return self.builder.bitcast(x.value, self.integer_type)

    def from_bits(self, bits: ir.Value) -> Vector:
        return Vector(self, self.builder.bitcast(bits, self.type))

    def integers(self, number: int) -> ir.Value:
        """Return a vector of copies of an integer as wide as the floating-point numbers."""
        return ir.Constant(self.integer_type, [number] * self.width)

    def compress(self, numbers: ir.Value, condition: ir.Value) -> ir.Value:
        """Move the lanes where the condition holds to the front.

        The lanes behind them are undefined.
        """
        kind = numbers.type
        name = f"llvm.experimental.vector.compress.v{kind.count}i{kind.element.width}"
        function = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module, ir.FunctionType(kind, [kind, condition.type, kind]), name
        )
        return self.builder.call(function, [numbers, condition, ir.Constant(kind, ir.Undefined)])

    def count_true(self, condition: ir.Value) -> ir.Value:
        """Return the number of lanes where the condition holds."""
        bits = self.builder.bitcast(condition, ir.IntType(self.width))
        return self.builder.ctpop(self.builder.zext(bits, I64))

    def look_up(self, table: Sequence[int], numbers: ir.Value) -> ir.Value:
        """Return entries of a table of 16 float64 numbers (AVX-512).

        The numbers are given as bits; the low bits of `numbers` select the entries.
        """
        kind, lanes = self.integer_type, self.width
        name = "llvm.x86.avx512.vpermi2var.q.512"
        function = self.builder.module.globals.get(name) or ir.Function(
            self.builder.module, ir.FunctionType(kind, [kind, kind, kind]), name
        )
        low, high = (ir.Constant(kind, list(part)) for part in (table[:lanes], table[lanes:]))
        return self.builder.call(function, [low, numbers, high])

    def _call(self, name: str, arguments: Sequence[ir.Value]) -> ir.Value:
        vector = arguments[0].type
        name = f"llvm.{name}.v{vector.count}f{8 * self.size}"
        kind = ir.FunctionType(vector, [vector for _ in arguments])
        function = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)

    def prefetch(self, pointer: ir.Value) -> None:
        """Prefetch a cache line into L2; an invalid pointer has no effect."""
        address = self.builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, I32, I32, I32])
        function = self.builder.module.globals.get("llvm.prefetch.p0") or ir.Function(
            self.builder.module, kind, "llvm.prefetch.p0"
        )
        self.builder.call(function, [address, *(ir.Constant(I32, flag) for flag in (0, 2, 1))])  # read, L2, data

    # Reductions over lanes
    def lane_sum(self, x: Vector) -> ir.Value:
        """Return the sum of the lanes."""
        return self._reduce(x, self.builder.fadd)

    def lane_maximum(self, x: Vector) -> ir.Value:
        """Return the largest lane; no lane may be NaN."""
        b = self.builder
        return self._reduce(x, lambda p, q: b.select(b.fcmp_ordered("<", p, q), q, p))

    def _reduce(self, x: Vector, combine: Callable) -> ir.Value:
        b, value, lanes = self.builder, x.value, self.width
        while lanes > 1:
            lanes //= 2
            mask = ir.VectorType(I32, lanes)
            low, high = (ir.Constant(mask, list(range(start, start + lanes))) for start in (0, lanes))
            undefined = ir.Constant(value.type, ir.Undefined)
            value = combine(b.shuffle_vector(value, undefined, low), b.shuffle_vector(value, undefined, high))
        return b.extract_element(value, ir.Constant(I32, 0))

    def add_lane_sums(self, sums: Sequence[tuple[Sequence[Variable], Matrix, tuple[Number, ...]]]) -> None:
        """Add the lane sums of variables to consecutive elements of float64 arrays.

        Each item of `sums` is a sequence of variables, an array, and the indices of the first element. Two vectors are
        folded into one with half as many lanes for each: 16 vectors of 8 lanes take 14 additions instead of 48.
        """
        group = self.width
        vectors = [variable.get().value for variables, _, _ in sums for variable in variables]
        while len(vectors) & (len(vectors) - 1):
            vectors.append(self.constant(0.0).value)
        while group > 1:
            half = group // 2
            pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [(vectors[0], None)]
            vectors = [self._fold(x, y, group, half) for x, y in pairs]
            group = half
        lanes, position = vectors[0].type.count, 0
        for variables, array, indices in sums:
            done = 0
            while done < len(variables):
                count = min(len(variables) - done, lanes - position % lanes)
                pointer = array.pointer_to(*indices[:-1], self.add(indices[-1], done))
                self._add_part(vectors[position // lanes], position % lanes, count, pointer)
                done, position = done + count, position + count

    def store_lane_sums(self, variables: Sequence[Variable], array: Matrix, indices: tuple[Number, ...]) -> None:
        """Write the lane sums of float64 variables to consecutive elements of an array."""
        zeros = self.constant(0.0, len(variables)).value
        pointer = self.builder.bitcast(array.pointer_to(*indices), zeros.type.as_pointer())
        self.builder.store(zeros, pointer, align=8)
        self.add_lane_sums([(variables, array, indices)])

    def _add_part(self, sums: ir.Value, first: int, count: int, pointer: ir.Value) -> None:
        """Add `count` lanes of a vector, from `first` on, to float64 numbers in memory."""
        mask = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
        part = self.builder.shuffle_vector(sums, ir.Constant(sums.type, ir.Undefined), mask)
        self.add_to_memory(self.double(part), pointer)

    def double(self, value: ir.Value) -> ir.Value:
        """Return a number, or the lanes of a vector, in float64."""
        if self.size == 8:
            return value
        vector = isinstance(value.type, ir.VectorType)
        return self.builder.fpext(value, ir.VectorType(DOUBLE, value.type.count) if vector else DOUBLE)

    def add_to_memory(self, value: ir.Value, pointer: ir.Value) -> None:
        """Add a float64 number, or a vector of them, to consecutive numbers in memory."""
        b = self.builder
        target = b.bitcast(pointer, value.type.as_pointer())
        b.store(b.fadd(b.load(target, align=8), value), target, align=8)

    def _fold(self, x: ir.Value, y: ir.Value | None, group: int, half: int) -> ir.Value:
        lanes = x.type.count * (1 if y is None else 2)
        low = [g + i for g in range(0, lanes, group) for i in range(half)]
        mask, other = ir.VectorType(I32, len(low)), ir.Constant(x.type, ir.Undefined) if y is None else y
        first = self.builder.shuffle_vector(x, other, ir.Constant(mask, low))
        second = self.builder.shuffle_vector(x, other, ir.Constant(mask, [i + half for i in low]))
        return self.builder.fadd(first, second)


class Matrix:
    """A C-contiguous array of up to three dimensions in emitted code.

    ``array[..., i]`` is the vector whose first lane is that element. ``array.splat(..., i)`` is a vector of copies of
    the element.
    """

    def __init__(self, e: Emitter, pointer: ir.Value, shape: Sequence[Number]):
        self.e, self.pointer, self.shape = e, pointer, list(shape)

    def pointer_to(self, *indices: Number) -> ir.Value:
        """Return the address of an element."""
        offset: Number = 0
        for extent, number in zip(self.shape, indices, strict=True):
            offset = self.e.add(self.e.multiply(offset, extent), number)
        return self.e.builder.gep(self.pointer, [self.e.index(offset)])

    def __getitem__(self, indices: tuple[Number, ...] | Number) -> Vector:
        pointer = self.pointer_to(*(indices if isinstance(indices, tuple) else (indices,)))
        vector = self.e.builder.bitcast(pointer, self.e.type.as_pointer())
        return Vector(self.e, self.e.builder.load(vector, align=self.e.size))

    def __setitem__(self, indices: tuple[Number, ...] | Number, vector: Vector) -> None:
        pointer = self.pointer_to(*(indices if isinstance(indices, tuple) else (indices,)))
        self.e.builder.store(vector.value, self.e.builder.bitcast(pointer, self.e.type.as_pointer()), align=self.e.size)

    def splat(self, *indices: Number, lanes: int = 0) -> Vector:
        return self.e.splat(self.e.builder.load(self.pointer_to(*indices)), lanes)

    def vector(self, lanes: int, *indices: Number) -> Vector:
        """Return a vector of another width than the native one."""
        kind = ir.VectorType(self.e.scalar, lanes).as_pointer()
        pointer = self.e.builder.bitcast(self.pointer_to(*indices), kind)
        return Vector(self.e, self.e.builder.load(pointer, align=self.e.size))

    def reshaped(self, *shape: Number) -> Matrix:
        """Return the same memory as an array of another shape."""
        return Matrix(self.e, self.pointer, shape)
