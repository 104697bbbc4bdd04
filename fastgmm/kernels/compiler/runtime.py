"""Compilation, composition and execution of kernels: every decision about Numba.

*Options.* Functions are compiled when they are first called, so that importing costs nothing. Leaves, the functions
called inside a kernel, come in two kinds. `exact_leaf` may fuse multiply-adds and change nothing else. `reducing_leaf`
may also reorder sums, which is necessary to vectorise a sum over the rows of a tile. No leaf may assume that NaN and
infinity do not occur.

*Composition.* A template is a plain function with global names that `bind` replaces. The two passes over the rows are
written once, as templates, and bound to the arithmetic of a layout and a dtype. Numba's cache can store such copies; it
never finds a kernel again that takes a jitted function as an argument or closes over one.

*Execution.* A `Kernel` is a function of one chunk of rows. One parallel loop (`run_chunks`) serves all kernels and
calls them by address (see `entry`). A ``prange`` around the chunk's own code would make LLVM optimise that code three
more times: the first fit with the full layout took 10.5 s instead of 5 s. The serial loop calls the same machine code,
so that the result has the same bits.
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
from numba.extending import intrinsic

from .cache import KernelCache
from .entry import SIGNATURE, call_entry, enter, make_unpack, pack_arguments
from .numba_internals import address_of, config, read_array, set_cache, write_array
from .threads import may_run_parallel

# LLVM's fast-math flags.
EXACT = {"contract"}
REDUCING = {"contract", "reassoc", "nsz"}
# Bytes.
CACHE_LINE = 64
# Bytes between the scratch memory of two threads. The hardware prefetcher of a core reads ahead of the rows it works
# on, and would take cache lines from its neighbour: two threads were 1.6 times as fast as one without, 1.85 with.
SCRATCH_GAP_BYTES = 65536
# Largest scratch memory that a thread keeps between two calls, in bytes, and the number of its views.
MAX_KEPT_BYTES = 32 * 1024 * 1024
MAX_KEPT_VIEWS = 16
# Only kernels call leaves, so leaves need no wrappers, which take a third of the time to compile them.
LEAF_OPTIONS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# With fewer multiply-adds one thread does everything, in less than a millisecond: waking a second thread takes up to
# 0.3 ms, and OpenMP's threads spin while other processes use the cores.
MIN_PARALLEL_MULTIPLY_ADDS = 8e6


def exact_leaf(function: Callable) -> Callable:
    """Compile a function for use in kernels, with exact arithmetic.

    Multiply-adds may be fused, nothing else may change.
    """
    return numba.njit(error_model="numpy", nogil=True, fastmath=EXACT, **LEAF_OPTIONS)(function)


def reducing_leaf(function: Callable) -> Callable:
    """Compile a function for use in kernels, with sums that may be reordered.

    The function must not compensate rounding errors.
    """
    return numba.njit(error_model="numpy", nogil=True, fastmath=REDUCING, **LEAF_OPTIONS)(function)


def bind(template: Callable, name: str, **names: Any) -> Callable:
    """Return a copy of a function with other values of its global names.

    The copy is called `name`.
    """
    bound = python_types.FunctionType(
        template.__code__, {**template.__globals__, **names}, name, template.__defaults__, template.__closure__
    )
    bound.__qualname__ = name  # the disk cache's file name
    bound.__doc__ = template.__doc__
    bound.__module__ = template.__module__
    return bound


def carve(memory, first_row, n_rows, width, like):
    """Return a C-ordered array of shape ``(n_rows, width)`` in scratch memory.

    It has the dtype of `like` and starts at row `first_row` of the memory.
    """
    numbers = memory[first_row:].reshape(-1).view(like.dtype)
    return numbers[: n_rows * width].reshape(n_rows, width)


@intrinsic
def _emit_carve(typing_context, memory, first_row, n_rows, width, like):
    array_type = types.Array(like.dtype, 2, "C")

    def code_generator(context, builder, signature, values):
        value, first_row, n_rows, width, _ = values
        source = read_array(context, builder, signature.args[0], value)
        offset = builder.mul(first_row, builder.extract_value(source.shape, 1))
        return write_array(context, builder, array_type, builder.gep(source.data, [offset]), [n_rows, width])

    return array_type(memory, types.intp, types.intp, types.intp, like), code_generator


@intrinsic
def compact(typing_context):
    """Make LLVM compile the calling function for size, apart from its callers.

    A leaf of short loops that runs once per iteration gains nothing from vector code, which takes most of the time to
    compile it.
    """

    def code_generator(context, builder, signature, values):
        for attribute in ("noinline", "minsize", "optsize"):
            builder.function.attributes.add(attribute)
        return context.get_dummy_value()

    return types.void(), code_generator


if config.DISABLE_JIT:

    def compact():
        """Do nothing: there is no machine code."""
else:
    # Slices and reshapes take Numba as long to compile as the rest of a small kernel.
    carve = _emit_carve


@intrinsic
def fetch_add(typing_context, counters, i):
    """Add 1 to ``counters[i, 0]`` atomically, and return its previous value."""

    def code_generator(context, builder, signature, values):
        array = read_array(context, builder, signature.args[0], values[0])
        offset = builder.mul(values[1], builder.extract_value(array.shape, 1))
        return builder.atomic_rmw(
            "add", builder.gep(array.data, [offset]), context.get_constant(types.int64, 1), "monotonic"
        )

    return types.int64(counters, types.intp), code_generator


def run_chunks(entry, n_chunks, memory, words, address, n_taken):
    """Run all chunks in parallel.

    Each thread runs its own block of chunks, then chunks that other threads have not taken. The result does not depend
    on which thread runs a chunk. Without the second step all threads wait for the slowest.

    Parameters
    ----------
    entry : int
        Address of the machine code of `enter` for the kernel's types.
    n_chunks : int
    memory : (n_threads, n_bytes) uint8
        Scratch memory of each thread.
    words : (n_words,) int64
        The kernel's arguments; see `pack_arguments`.
    address : int
        Address of the kernel's machine code.
    n_taken : (n_threads, CACHE_LINE / 8) int64
        Column 0 counts the chunks taken from each block; a cache line per counter.
    """
    n_blocks = memory.shape[0]
    for block in prange(n_blocks):
        for step in range(n_blocks):
            owner = (block + step) % n_blocks
            first, stop = owner * n_chunks // n_blocks, (owner + 1) * n_chunks // n_blocks
            c = first + fetch_add(n_taken, np.intp(owner))
            while c < stop:
                call_entry(entry, np.intp(c), memory[block], words, address)
                c = first + fetch_add(n_taken, np.intp(owner))


def run_chunks_serially(entry, n_chunks, memory, words, address):
    """Run all chunks in order on the calling thread."""
    for c in range(n_chunks):
        call_entry(entry, np.intp(c), memory[0], words, address)


class Scratch(NamedTuple):
    """Size of the scratch memory that a kernel needs for each thread.

    rows, columns : int
        Shape; every row starts on a cache line.
    dtype : float64 or float32
    """

    rows: int = 0
    columns: int = 0
    dtype: np.dtype = np.dtype(np.float64)

    def allocate(self, n_threads: int) -> np.ndarray:
        """Return uninitialised scratch memory for threads.

        Its shape is ``(n_threads, rows + rows of the gap, columns rounded up to cache lines)``. One piece of memory
        serves all threads and all their chunks: a piece per chunk came from the operating system each time. The calling
        thread keeps it for its next kernel, so two threads that call kernels at the same time share nothing.
        """
        key = self, n_threads
        if key not in _kept.views:
            width = max(CACHE_LINE, -(-self.columns * self.dtype.itemsize // CACHE_LINE) * CACHE_LINE)
            rows = self.rows - (-SCRATCH_GAP_BYTES // width)
            size = n_threads * rows * width
            memory = _kept.memory
            if memory.size < size + CACHE_LINE:
                memory = np.empty(size + CACHE_LINE, np.uint8)
            start = -memory.__array_interface__["data"][0] % CACHE_LINE
            view = memory[start : start + size].view(self.dtype)
            view = view.reshape(n_threads, rows, width // self.dtype.itemsize)
            if memory.size > MAX_KEPT_BYTES:
                return view
            if memory is not _kept.memory or len(_kept.views) >= MAX_KEPT_VIEWS:
                _kept.memory, _kept.views = memory, {}
            _kept.views[key] = view
        return _kept.views[key]


class _KeptScratch(threading.local):
    """Scratch memory that a thread keeps between calls, and the views of it by size."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)
        self.views: dict[tuple[Scratch, int], np.ndarray] = {}


NO_SCRATCH = Scratch()
_kept = _KeptScratch()


def compiled_entry(function: Callable, **options: Any) -> Any:
    """Compile a function that Python calls.

    It releases the GIL, and its machine code is cached on disk.
    """
    dispatcher = numba.njit(error_model="numpy", nogil=True, fastmath=EXACT, **options)(function)
    if not config.DISABLE_JIT:
        set_cache(dispatcher, KernelCache(function, dispatcher.targetoptions))
    return dispatcher


parallel_loop = compiled_entry(run_chunks, parallel=True)
serial_loop = compiled_entry(run_chunks_serially)


class Kernel:
    """A compiled function ``chunk(c, memory, *arguments)`` and its loop over chunks.

    Parameters
    ----------
    chunk : callable
        ``memory`` is the scratch memory of the thread. The arguments are C-contiguous arrays and integers. Their dtypes
        and numbers of dimensions must be the same at every call, so that one signature is compiled;
        `fastgmm.kernels` ensures this.
    """

    def __init__(self, chunk: Callable):
        self.chunk = compiled_entry(chunk)
        self._addresses: dict[tuple, tuple[int, int]] = {}

    def __call__(
        self, n_chunks: int, *arguments, scratch: Scratch = NO_SCRATCH, multiply_adds: float = math.inf
    ) -> None:
        """Run all chunks, on several threads if that pays.

        Parameters
        ----------
        n_chunks : int
        *arguments
            Arguments of the chunk function after ``memory``.
        scratch : Scratch
            Scratch memory of a thread.
        multiply_adds : float
            Approximate number of multiply-adds of all chunks together.
        """
        parallel = (
            n_chunks > 1
            and multiply_adds > MIN_PARALLEL_MULTIPLY_ADDS
            and numba.get_num_threads() > 1
            and may_run_parallel()
        )
        memory = scratch.allocate(min(n_chunks, numba.get_num_threads()) if parallel else 1)
        own = memory[0, : scratch.rows]
        if n_chunks == 1 or config.DISABLE_JIT:  # without a loop and an `enter` to compile: half a second less
            for c in range(n_chunks):
                self.chunk(c, own, *arguments)
            return
        entry, address = self._addresses_for((own, *arguments))
        as_bytes = memory.view(np.uint8).reshape(len(memory), -1)
        loop_arguments = (entry, n_chunks, as_bytes, pack_arguments(own, arguments), address)
        if parallel:
            parallel_loop(*loop_arguments, np.zeros((len(memory), CACHE_LINE // 8), np.int64))
        else:
            serial_loop(*loop_arguments)

    @property
    def signatures(self) -> list:
        """The signatures that have been compiled."""
        return [] if config.DISABLE_JIT else self.chunk.signatures

    def _addresses_for(self, arguments: tuple) -> tuple[int, int]:
        """Return the addresses of `enter` and of the kernel for these arguments' types.

        Both are compiled if necessary.
        """
        key = tuple((a.dtype.num, a.ndim, a.flags.writeable) if isinstance(a, np.ndarray) else int for a in arguments)
        if key not in self._addresses:
            argument_types = tuple(map(numba.typeof, arguments))
            self._addresses[key] = (
                address_of(_entry(argument_types), SIGNATURE),
                address_of(self.chunk, (types.intp, *argument_types)),
            )
        return self._addresses[key]


@functools.cache
def _entry(argument_types: tuple) -> Any:
    """Return the `enter` for a list of argument types."""
    stamp = hashlib.sha256(repr(argument_types).encode()).hexdigest()[:16]
    return compiled_entry(bind(enter, f"enter_{stamp}", unpack=make_unpack(*argument_types)))
