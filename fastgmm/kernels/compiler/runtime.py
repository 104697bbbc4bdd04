"""Every decision about Numba, in one place: options, composition, the parallel loop, the disk cache.

*Options.* Compilation is lazy, so that importing costs nothing. Leaves (functions called inside a kernel) come in two
kinds: `exact_leaf` may only fuse multiply-adds; `reducing_leaf` may also reorder sums, which a sum over the rows of a
tile needs in order to be vectorised. No leaf may assume that NaN and infinity do not occur.

*Composition.* A template is a plain function whose global names are filled in by `bind`: the two passes over the rows
are written once and bound to the arithmetic of a layout and a dtype. Numba caches such copies on disk; it never finds a
kernel again that takes a jitted function as an argument or closes over one.

*Kernel.* An entry point of the package is a function of one chunk, and there is one parallel loop for all of them
(`run_chunks`), which calls it by its address (see `entry`); a thread has a block of consecutive chunks, and helps
others when it is done. A `prange` around the chunk's own code would make LLVM optimise that code three times more: the
first fit with the full layout took 10.5 s that way and 5 s this way. The serial loop calls the same machine code, so it
gives the same bits.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
import types as python_types
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import prange, types
from numba.core import config
from numba.extending import intrinsic
from numba.np import arrayobj

from .cache import KernelCache
from .entry import SIGNATURE, call_entry, enter, packed, unpacking
from .threads import may_run_parallel

EXACT = {"contract"}
REDUCING = {"contract", "reassoc", "nsz"}
CACHE_LINE = 64
# Bytes between the scratch of two threads. A core fetches some rows beyond those it works on, and would take them from
# its neighbour: without, two threads took 1.6 times less than one with 2 or 3 features, 1.85 times with.
APART = 65536
# The most scratch that a thread keeps between two calls.
KEPT_BYTES = 32 * 1024 * 1024
KEPT_VIEWS = 16
# Nothing outside calls a leaf: no wrappers, which take a third of the time to compile it.
INSIDE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# Multiply-adds below which one thread does everything: in less than a millisecond. Waking a second one takes up to 0.3
# ms, and where other processes use the cores, OpenMP's threads wait for each other by spinning: two fits of 1,800 rows
# at the same time took 8 ms an iteration on threads, 0.2 ms without.
WORTH_THREADS = 8e6


def exact_leaf(function: Callable) -> Callable:
    """Compile a function for use inside kernels; multiply-adds may be fused, nothing else may change."""
    return numba.njit(error_model="numpy", nogil=True, fastmath=EXACT, **INSIDE)(function)


def reducing_leaf(function: Callable) -> Callable:
    """Compile a function for use inside kernels; sums may be reordered (never where a difference is compensated)."""
    return numba.njit(error_model="numpy", nogil=True, fastmath=REDUCING, **INSIDE)(function)


def bind(template: Callable, name: str, **names: Any) -> Callable:
    """Return a copy of a function, called ``name``, in which the given global names have the given values."""
    bound = python_types.FunctionType(
        template.__code__, {**template.__globals__, **names}, name, template.__defaults__, template.__closure__
    )
    bound.__qualname__ = name  # the disk cache's file name
    bound.__doc__ = template.__doc__
    bound.__module__ = template.__module__
    return bound


def carve(memory, first_row, n_rows, width, like):
    """A C-ordered ``(n_rows, width)`` array of `like`'s dtype in a chunk's memory, from the beginning of a row on."""
    numbers = memory[first_row:].reshape(-1).view(like.dtype)
    return numbers[: n_rows * width].reshape(n_rows, width)


@intrinsic
def _emit_carve(typing_context, memory, first_row, n_rows, width, like):
    array_type = types.Array(like.dtype, 2, "C")

    def code_generator(context, builder, signature, values):
        value, first_row, n_rows, width, _ = values
        source = context.make_array(signature.args[0])(context, builder, value)
        offset = builder.mul(first_row, builder.extract_value(source.shape, 1))
        itemsize = context.get_constant(types.intp, like.dtype.bitwidth // 8)
        array = context.make_array(array_type)(context, builder)
        data = builder.bitcast(builder.gep(source.data, [offset]), array.data.type)
        arrayobj.populate_array(
            array, data=data, shape=[n_rows, width], strides=[builder.mul(width, itemsize), itemsize],
            itemsize=itemsize, meminfo=None,
        )  # fmt: skip
        return array._getvalue()

    return array_type(memory, types.intp, types.intp, types.intp, like), code_generator


if not config.DISABLE_JIT:
    # In Numba's own terms, slices and reshapes, it takes as long to compile as the rest of a small kernel.
    carve = _emit_carve


@intrinsic
def fetch_add(typing_context, counters, i):
    """``counters[i, 0] += 1``, of which other threads see all or nothing; returns what it was."""

    def code_generator(context, builder, signature, values):
        array = context.make_array(signature.args[0])(context, builder, values[0])
        at = builder.mul(values[1], builder.extract_value(array.shape, 1))
        return builder.atomic_rmw(
            "add", builder.gep(array.data, [at]), context.get_constant(types.int64, 1), "monotonic"
        )

    return types.int64(counters, types.intp), code_generator


def run_chunks(entry, n_chunks, memory, words, address, taken):
    """Every thread runs the chunks of its own block, and then those that others have not got to.

    With blocks alone, whoever is slowest is waited for: on 16 shared cores 16 threads were 7.5 times as fast as one (2:
    1.81); this way, with even numbers of chunks and sums that all add up, on another such machine 11.6 times (1.97).
    """
    n_blocks = memory.shape[0]
    for block in prange(n_blocks):
        for step in range(n_blocks):
            owner = (block + step) % n_blocks
            first, stop = owner * n_chunks // n_blocks, (owner + 1) * n_chunks // n_blocks
            c = first + fetch_add(taken, np.intp(owner))
            while c < stop:
                call_entry(entry, np.intp(c), memory[block], words, address)
                c = first + fetch_add(taken, np.intp(owner))


def run_chunks_serially(entry, n_chunks, memory, words, address):
    for c in range(n_chunks):
        call_entry(entry, np.intp(c), memory[0], words, address)


class Scratch(NamedTuple):
    """What a kernel wants of memory to work in, for each thread: rows and columns of a dtype, on cache lines."""

    rows: int = 0
    columns: int = 0
    dtype: np.dtype = np.dtype(np.float64)

    def allocate(self, n_threads: int) -> np.ndarray:
        """Uninitialised memory for some threads, ``(n_threads, rows and some that keep threads apart, columns)``.

        One piece for all of them and all their chunks. A piece for each chunk, given back after it, came from the
        system anew each time: with 500,000 rows of 2 features and 2 components an iteration took 1.35 times as long.
        The calling thread keeps it for its next kernel, which is why two that run at the same time share nothing: a
        pass over 12,000,000 x 6 rows in blocks, K=8, took 0.22 s before and takes 0.20 s.
        """
        wanted = self, n_threads
        if wanted not in _kept.views:
            width = max(CACHE_LINE, -(-self.columns * self.dtype.itemsize // CACHE_LINE) * CACHE_LINE)
            rows = self.rows - (-APART // width)
            size = n_threads * rows * width
            memory = _kept.memory
            if memory.size < size + CACHE_LINE:
                memory = np.empty(size + CACHE_LINE, np.uint8)
            start = -memory.__array_interface__["data"][0] % CACHE_LINE
            view = memory[start : start + size].view(self.dtype)
            view = view.reshape(n_threads, rows, width // self.dtype.itemsize)
            if memory.size > KEPT_BYTES:
                return view
            if memory is not _kept.memory or len(_kept.views) >= KEPT_VIEWS:
                _kept.memory, _kept.views = memory, {}
            _kept.views[wanted] = view
        return _kept.views[wanted]


class _Kept(threading.local):
    """Scratch that a thread keeps, and how its last kernels have seen it."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)
        self.views: dict[tuple[Scratch, int], np.ndarray] = {}


NO_SCRATCH = Scratch()
_kept = _Kept()


def compiled_entry(function: Callable, **options: Any) -> Any:
    """Compile a function that Python calls: cached on disk, without the interpreter's lock."""
    dispatcher = numba.njit(error_model="numpy", nogil=True, fastmath=EXACT, **options)(function)
    if not config.DISABLE_JIT:
        dispatcher._cache = KernelCache(function, dispatcher.targetoptions)
    return dispatcher


parallel_loop = compiled_entry(run_chunks, parallel=True)
serial_loop = compiled_entry(run_chunks_serially)


class Kernel:
    """An entry point: a function ``chunk(c, memory, *arguments)`` to be run for every chunk c.

    The arguments are C-contiguous arrays and integers, the same dtypes and numbers of dimensions at every call; then
    there is one compiled signature. `fastgmm.kernels` sees to that. ``memory`` is the scratch of the thread.
    """

    def __init__(self, chunk: Callable):
        self.chunk = compiled_entry(chunk)
        self._addresses: dict[tuple, tuple[int, int]] = {}

    def __call__(self, n_chunks: int, *arguments, scratch: Scratch = NO_SCRATCH, operations: float = math.inf) -> None:
        """Run all chunks; `operations` is about how many multiply-adds that takes."""
        parallel = n_chunks > 1 and operations > WORTH_THREADS and numba.get_num_threads() > 1 and may_run_parallel()
        memory = scratch.allocate(min(n_chunks, numba.get_num_threads()) if parallel else 1)
        own = memory[0, : scratch.rows]
        if n_chunks == 1 or config.DISABLE_JIT:  # no loop and no entry to compile: half a second of a first fit
            for c in range(n_chunks):
                self.chunk(c, own, *arguments)
            return
        entry, address = self._addresses_for((own, *arguments))
        called = (entry, n_chunks, memory.view(np.uint8).reshape(len(memory), -1), packed(own, arguments), address)
        if parallel:
            parallel_loop(*called, np.zeros((len(memory), CACHE_LINE // 8), np.int64))
        else:
            serial_loop(*called)

    @property
    def signatures(self) -> list:
        """The signatures that have been compiled."""
        return [] if config.DISABLE_JIT else self.chunk.signatures

    def _addresses_for(self, arguments: tuple) -> tuple[int, int]:
        """Where the entry and the kernel are for arguments of these types, compiled if need be."""
        key = tuple((a.dtype.num, a.ndim, a.flags.writeable) if isinstance(a, np.ndarray) else int for a in arguments)
        if key not in self._addresses:
            kinds = tuple(map(numba.typeof, arguments))
            self._addresses[key] = address_of(_entry(kinds), SIGNATURE), address_of(self.chunk, (types.intp, *kinds))
        return self._addresses[key]


@functools.cache
def _entry(kinds: tuple) -> Any:
    """The entry for a list of types."""
    stamp = hashlib.sha256(repr(kinds).encode()).hexdigest()[:16]
    return compiled_entry(bind(enter, f"enter_{stamp}", unpack=unpacking(*kinds)))


def address_of(dispatcher: Any, signature: tuple) -> int:
    """Where the machine code for a signature is, compiled if need be."""
    dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
