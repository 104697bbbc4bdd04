"""The compiled core: plain arrays in, plain arrays out.

The rest of the package calls the functions that are listed in ``__all__`` here, and imports nothing else from this
folder. The folder imports nothing from the rest of the package except `_fork_guard`: it contains no covariance models,
no estimators and no files of rows.

The problem
-----------
An iteration of EM reads all rows once. For N rows of D features and K components, this *pass* computes the
log-probability ``log w_k + log N(x_i | m_k, Sigma_k)`` of every row i and component k, turns each row's K numbers into
responsibilities ``r_ik`` by log-sum-exp, and adds up three sums for each component: ``sum_i r_ik``, ``sum_i r_ik (x_i -
m_k)`` and ``sum_i r_ik (x_i - m_k)(x_i - m_k)^T``. A NumPy version writes N x K numbers to main memory several times.
Here they stay in the L2 cache of a core, and all threads and SIMD lanes share the work.

A pass, from the outside in
---------------------------
::

    X (N, D)   |  chunk 0  |  chunk 1  |  chunk 2  | ...   a chunk is the work of one thread at a time
                     |
                     v
    chunk      | tile | tile | tile | ...                  a tile is a few hundred rows and fits in L2
                     |
                     v  load: transpose, subtract the origin
    x (D, T)     each column is a row of X; a SIMD vector holds one feature of 2 to 16 rows
                     |
                     v  E-step: the layout's log_prob_tile
    r (K, T)     log-probabilities
                     |
                     v  log-sum-exp: tiles/responsibilities.py
    r (K, T)     responsibilities, and the log-likelihood
                     |
                     v  M-step: the layout's add_moments
    sums         of the chunk, float64; finally added over the chunks in their order

1. *Rows are read where they are.* `rows_view` describes an array by a flat read-only view and two strides. C-order,
   Fortran-order and memory-mapped arrays run the same machine code, are not copied, and need one compiled signature per
   dtype.
2. *Chunks make results reproducible.* `tiling` divides the rows by the shape of the problem only. Each chunk writes its
   own row of the output, and these rows are added in order, so that any number of threads gives the same bits. Idle
   threads take chunks from busy ones.
3. *Tiles keep numbers in cache and lanes full.* In a tile a lane is a row, so that all lanes do the same work whatever
   D and K are, and sums over components need no exchange between lanes.
4. *The origin keeps digits.* A point near the data is subtracted from rows when they are loaded, and from the means, so
   that arithmetic in float32 loses no digits to the data's distance from zero (`shift_origin`).
5. *A layout is the arithmetic of a covariance structure*: ``full`` (a triangular factor per component), ``diagonal``
   (scales per component), ``tied`` (one triangular factor for all). A layout is a module with an E-step and an M-step
   on a tile. The passes are templates that are bound to a layout and a dtype.
6. *Irrelevant rows are left out of sums.* If few rows of a tile have a responsibility for a component that rounding
   does not remove, only these are summed (`compaction`).

Words
-----
pass
    One reading of all rows: `accumulate` (statistics for EM) or `score` (results for each row).
chunk, tile
    See above. T is the width of a tile, its number of rows.
layout
    "full", "diagonal" or "tied".
kernel
    A compiled function of a chunk (`compiler.runtime.Kernel`), called for all chunks in parallel.
leaf
    A function that kernels call; compiled into them.
template, bind
    A function with global names that are replaced before it is compiled.
tile operation
    A function on tiles that is written as LLVM IR, beside a naive NumPy function of the same arguments that defines its
    result. The tests compare both, and with ``NUMBA_DISABLE_JIT=1`` the naive functions run.

Where to find what
------------------
::

    run_passes              `accumulate`, `score`, and their operands
    tiles/
        rows                rows and weights as kernels read them; chunks and tiles
        transposition       rows to tiles and back, prefetching
        tiles               weights, labels, overflowed rows, sums over a tile
        distances           squared distances from rows to points
        responsibilities    log-sum-exp
        moments             weight sums
        compaction          leave irrelevant rows out
        numerics            exp, log, random numbers
    layouts/
        passes              the two passes; binding to a layout
        full, diagonal, tied
    labels/                 labels only: in float32 where a bound on the error allows it
        single_precision, error_bound
        partial_distance    leave out components after half of the features
    clustering/             initialisation
        steps               the functions that call the kernels of the next two
        kmeans              a k-means++ step and a Lloyd step on all rows
        quick_kmeans        k-means on few rows, from seeds to clusters
        random_resp         random responsibilities
        merge_losses        losses of merging a cluster with others
        merging             the functions that call the kernels of the next three
        agglomeration       merge clusters, for determinants or traces of each
        pooled_agglomeration  the same for a pooled covariance
    em_runs/                whole runs of EM on few rows
        run                 the run; it calls passes and M-steps by address
        steps               the parts of an iteration
        problems            the arrays of many problems, and the call from Python
        trend               convergence, also for runs from Python
        compiled            M-steps of covariance models, compiled
        algebra, common_axes   linear algebra of small matrices for M-steps
    matrices/
        cholesky            inverse Cholesky factors of covariances
        triangles           triangles of stacks of matrices
        chunk_sums          add up the sums of all chunks
    compiler/
        runtime             compile, bind, run chunks in parallel, scratch memory
        operation, simd     tile operations and the vector code that they emit
        entry               call any kernel from one compiled loop
        cache               machine code on disk; any edit in this folder invalidates it
        threads             number of threads, dangerous situations
        numba_internals     everything that an upgrade of Numba can break

To understand a pass, read `accumulate` in ``run_passes.py``, then ``accumulate_chunk`` in ``layouts/passes.py``, then
the naive functions in ``layouts/full.py``. The emitted code below each of these is the same arithmetic in blocks that
fit in registers.

To add a layout, write a module like ``layouts/diagonal.py`` and list it in ``LAYOUTS`` (``layouts/passes.py``). Its
shapes and its cost go to ``run_passes.py``, its error bound to ``labels/error_bound.py``, and a `Layout` of its
statistics to ``mixture/layouts.py``.

Rules
-----
* Arithmetic on a tile, including sums over its rows, is in the rows' dtype. Its results are added up in float64.
* Distances are sums of squared differences of centred rows, never ``|x|^2 - 2 x m + |m|^2``, which cancels.
* NaN is never hidden: a row with NaN makes the log-likelihood NaN.
* A kernel's arguments have the same types at every call: one compiled signature per kernel and dtype.
* Each kernel's docstring says its flops and what must fit in which cache.
"""

from __future__ import annotations

from .clustering.merging import MergeCriterion, merge_order, pooled_merge_order
from .clustering.random_resp import random_resp
from .clustering.steps import KMeansLimits, KMeansResults, kmeans_problems, lloyd_step, seed_step
from .compiler.cache import cache_folder
from .compiler.simd import VECTOR_BITS
from .compiler.threads import may_run_parallel_anywhere, resolve_n_jobs, serial_matmul, thread_limit
from .em_runs.common_axes import rotate_common_axes
from .em_runs.problems import CONVERGED, HANDED_OVER, EMProblems, ModelCode, ParameterArrays, RunOptions, is_small
from .em_runs.trend import (
    BOUND,
    LAST_CHANGE,
    REMAINING,
    is_settled,
    is_small_fall,
    mark_rounding,
    new_trend,
    record_bound,
)
from .labels.single_precision import SEARCHED_FEATURES
from .layouts.full import UNROLLED_FEATURES
from .matrices.cholesky import factor_covariances
from .matrices.chunk_sums import sum_of_chunks
from .matrices.triangles import lower_triangle
from .run_passes import Operands, accumulate, score
from .tiles.rows import shift_origin

__all__ = [
    "BOUND",
    "CONVERGED",
    "HANDED_OVER",
    "LAST_CHANGE",
    "REMAINING",
    "SEARCHED_FEATURES",
    "UNROLLED_FEATURES",
    "VECTOR_BITS",
    "EMProblems",
    "KMeansLimits",
    "KMeansResults",
    "MergeCriterion",
    "ModelCode",
    "Operands",
    "ParameterArrays",
    "RunOptions",
    "accumulate",
    "cache_folder",
    "factor_covariances",
    "is_settled",
    "is_small",
    "is_small_fall",
    "kmeans_problems",
    "lloyd_step",
    "lower_triangle",
    "mark_rounding",
    "may_run_parallel_anywhere",
    "merge_order",
    "new_trend",
    "pooled_merge_order",
    "random_resp",
    "record_bound",
    "resolve_n_jobs",
    "rotate_common_axes",
    "score",
    "seed_step",
    "serial_matmul",
    "shift_origin",
    "sum_of_chunks",
    "thread_limit",
]
