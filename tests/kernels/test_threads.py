"""Threads: the same bits for any number of them, and calls from threads, forked processes and joblib workers.

Each dangerous situation runs in a process of its own, since the test is that the process survives.
"""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import warnings

import joblib
import numba
import numpy as np
import pytest
from sklearn.base import clone

from fastgmm import GaussianMixture, _fork_guard
from fastgmm.engine import accumulate
from fastgmm.kernels import resolve_n_jobs, thread_limit
from fastgmm.kernels.compiler import runtime, threads
from fastgmm.kernels.layouts import passes
from helpers import COVARIANCE_TYPES, JIT, blobs, random_parameters

FITTED = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bounds_")
SEVERAL = min(4, numba.config.NUMBA_NUM_THREADS)
MIN_PARALLEL_MULTIPLY_ADDS = runtime.MIN_PARALLEL_MULTIPLY_ADDS
needs_threads = pytest.mark.skipif(SEVERAL < 2, reason="one core")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.fixture(autouse=True)
def threads_for_any_pass(monkeypatch):
    """Run small passes on several threads too."""
    monkeypatch.setattr(runtime, "MIN_PARALLEL_MULTIPLY_ADDS", 0)


def assert_same_bits(a, b):
    for name in FITTED:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def run_python(code, **environment):
    """Run code in a new process, which must succeed, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_threads
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("init_params", ["kmeans", "random"])
def test_same_bits_for_any_number_of_threads(init_params, covariance_type, dtype):
    X, _ = blobs(n_samples=30_001, separation=1.5)
    X = X.astype(dtype)
    weights = np.random.default_rng(0).uniform(0, 2, size=len(X))
    models = [
        GaussianMixture(
            3, covariance_type=covariance_type, init_params=init_params, random_state=0, tol=1e-9, max_iter=20, n_jobs=n
        )
        for n in (1, SEVERAL, None)
    ]
    for sample_weight in (None, weights):
        fits = [_quiet_fit(model, X, sample_weight) for model in models]
        for other in fits[1:]:
            assert_same_bits(fits[0], other)
            np.testing.assert_array_equal(fits[0].predict_proba(X), other.predict_proba(X))
            np.testing.assert_array_equal(fits[0].score_samples(X), other.score_samples(X))
            np.testing.assert_array_equal(fits[0].predict(X), other.predict(X))


def _quiet_fit(model, X, sample_weight=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return model.fit(X, sample_weight=sample_weight)


def test_serial_loop_has_the_bits_of_the_parallel_one(monkeypatch):
    X, _ = blobs(n_samples=20_000)
    parameters = random_parameters("full", 3, 3)
    parallel = accumulate(parameters, X)
    monkeypatch.setattr(runtime, "may_run_parallel", lambda: False)
    serial = accumulate(parameters, X)
    np.testing.assert_array_equal(parallel.scatter, serial.scatter)
    assert parallel.log_likelihood == serial.log_likelihood


def describe_chunk(c, memory, n, flags, cube, table, single, out):
    """Write sums of all kinds of arguments that a kernel may have."""
    memory[0, 0] = c
    out[c, 0] = memory.shape[0] * 1000 + memory[0, 0]
    out[c, 1] = n + table.shape[0] * table.shape[1] + single.shape[0]
    out[c, 2] = cube[c, cube.shape[1] - 1, cube.shape[2] - 1] + table[1, c] + single[c]
    out[c, 3] = flags[c]


@pytest.mark.parametrize("multiply_adds", [0, np.inf])
def test_a_kernel_gets_all_kinds_of_arguments(multiply_adds):
    kernel = runtime.Kernel(describe_chunk)
    rng = np.random.default_rng(0)
    flags, cube = rng.random(7) < 0.5, rng.normal(size=(7, 2, 3))
    table, single = rng.integers(0, 9, size=(2, 7)), rng.normal(size=7).astype(np.float32)
    cube.flags.writeable = False
    scratch = runtime.Scratch(3, 5, np.dtype(np.float32))
    for n_chunks, n in ((7, 4), (1, 5), (7, 2**40)):
        out = np.zeros((7, 4))
        kernel(n_chunks, n, flags, cube, table, single, out, scratch=scratch, multiply_adds=multiply_adds)
        expected = np.zeros((7, 4))
        for c in range(n_chunks):
            expected[c] = 3000 + c, n + 14 + 7, cube[c, 1, 2] + table[1, c] + single[c], flags[c]
        np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.skipif(not JIT, reason="compiled code")
def test_one_loop_is_compiled_for_all_kernels():
    X, _ = blobs(n_samples=20_000)
    for dtype in (np.float32, np.float64):
        for covariance_type in ("full", "diag"):
            accumulate(random_parameters(covariance_type, 3, 3), X.astype(dtype))
    assert len(runtime.parallel_loop.signatures) <= 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (512, 100, 100), (100, 512, 100), (7, 600, 600)])
def test_serial_product_equals_the_product(shape):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=shape[:2]), rng.normal(size=shape[1:])
    np.testing.assert_allclose(threads.serial_matmul(a, b), a @ b, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(threads.serial_matmul(b.T, a.T), (a @ b).T, rtol=1e-12, atol=1e-11)


def test_n_jobs_is_set_inside_and_restored():
    before = numba.get_num_threads()
    with thread_limit(1) as n:
        assert n == numba.get_num_threads() == 1
        with thread_limit(None) as inner:  # Numba's own mask
            assert inner == 1
    assert numba.get_num_threads() == before
    with pytest.raises(RuntimeError, match="boom"), thread_limit(1):
        raise RuntimeError("boom")
    assert numba.get_num_threads() == before


def test_n_jobs_has_the_meaning_of_joblib():
    available = numba.config.NUMBA_NUM_THREADS
    assert resolve_n_jobs(None) == numba.get_num_threads()
    assert resolve_n_jobs(-1) == resolve_n_jobs(10_000) == available
    assert resolve_n_jobs(-available) == resolve_n_jobs(-10_000) == resolve_n_jobs(1) == 1
    X, _ = blobs(n_samples=50)
    with pytest.raises(ValueError, match="n_jobs == 0 has no meaning"):
        GaussianMixture(n_jobs=0).fit(X)
    with pytest.raises(ValueError, match="The 'n_jobs' parameter of GaussianMixture must be an instance of"):
        GaussianMixture(n_jobs=1.5).fit(X)


def test_other_kinds_of_arrays_compile_nothing_new(tmp_path):
    """They are lists, memory maps, and strided, read-only or byte-swapped arrays."""
    X, _ = blobs(n_samples=200)
    np.save(tmp_path / "rows.npy", X)
    frozen = X.copy()
    frozen.flags.writeable = False
    kinds = [X, X.tolist(), np.asfortranarray(X), X[::2], np.repeat(X, 2, axis=1)[:, ::2], frozen, X.astype(">f8"),
             np.load(tmp_path / "rows.npy", mmap_mode="r")]  # fmt: skip
    passes_of_fits = [
        passes.kernel(operation, "full", np.dtype(dtype), 3)
        for operation in ("accumulate", "score")
        for dtype in (np.float64, np.float32)
    ]

    def fit_all(rows):
        for sample_weight in (None, np.ones(len(rows)), [1] * len(rows)):
            model = GaussianMixture(2, random_state=0).fit(rows, sample_weight=sample_weight)
        model.predict(rows)
        GaussianMixture(2, resp_init=np.arange(len(rows)) % 2).fit(rows)
        single = np.asarray(rows, dtype=np.float32)
        GaussianMixture(2, random_state=0).fit_predict(single)
        for X in (rows, single):  # a pass from Python, whatever the number of rows
            accumulate(model._parameters(), np.asarray(X))
        return [len(kernel.signatures) for kernel in passes_of_fits]

    compiled = fit_all(kinds[0])
    assert min(compiled) >= 1
    for rows in kinds[1:]:
        assert fit_all(rows) == compiled


def test_calls_from_several_threads():
    X, _ = blobs(n_samples=20_000)
    expected = GaussianMixture(3, random_state=0).fit(X)
    results, errors = {}, []

    def work(i):
        try:
            results[i] = GaussianMixture(3, random_state=0, n_jobs=1 + i % 2).fit(X)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    for model in results.values():
        assert_same_bits(model, expected)


@pytest.mark.parametrize("backend", ["threading", "loky", "multiprocessing"])
def test_calls_from_joblib_workers(backend, monkeypatch):
    # The default, as in a new process: chunks depend on it.
    monkeypatch.setattr(runtime, "MIN_PARALLEL_MULTIPLY_ADDS", MIN_PARALLEL_MULTIPLY_ADDS)
    X, _ = blobs(n_samples=30_000)
    model = GaussianMixture(8, random_state=0, max_iter=3, tol=1e3)  # large enough for threads in a new process too
    expected = clone(model).fit(X)
    calls = [joblib.delayed(clone(model).fit)(X) for _ in range(4)]
    for model in joblib.Parallel(n_jobs=2, backend=backend)(calls):
        assert_same_bits(model, expected)


def _fit_in_child(X, queue):
    queue.put(GaussianMixture(3, random_state=0).fit(X))


@needs_fork
def test_child_forked_after_a_fit():
    X, _ = blobs(n_samples=20_000)
    expected = GaussianMixture(3, random_state=0).fit(X)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_fit_in_child, args=(X, queue))
    child.start()
    model = queue.get(timeout=120)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert_same_bits(model, expected)


FORK_AND_THREADS = """
    import os, threading, warnings
    import numpy as np
    import numba
    from fastgmm import GaussianMixture
    from fastgmm.kernels.compiler import runtime
    runtime.MIN_PARALLEL_MULTIPLY_ADDS = 0
    X = np.random.default_rng(0).normal(size=(20_000, 3))
    fit = lambda: GaussianMixture(2, random_state=0, max_iter=3, tol=1e3).fit(X).means_
    expected = fit()
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(fit(), expected) else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child died"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = []
        workers = [threading.Thread(target=lambda: results.append(fit())) for _ in range(3)]
        for worker in workers: worker.start()
        main = fit()
        for worker in workers: worker.join()
    assert all(np.array_equal(r, expected) for r in [main, *results]) and len(results) == 3
    print(numba.threading_layer(), sum("workqueue" in str(w.message) for w in caught))
"""


@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_forks_and_threads_with_every_threading_layer(layer):
    environment = {"NUMBA_NUM_THREADS": "2"}  # a single thread calls no layer, whatever the tests are run with
    if layer != "default":
        environment["NUMBA_THREADING_LAYER"] = layer
    name, warnings = run_python(FORK_AND_THREADS, **environment).split()
    assert name == layer or layer == "default"
    assert int(warnings) == (name == "workqueue")  # warned once, not three times


@needs_fork
def test_child_forked_before_any_fit_still_uses_threads():
    code = """
        import os, sys
        import fastgmm, numpy as np
        from fastgmm.kernels.compiler import runtime, threads
        pid = os.fork()
        if pid == 0:
            runtime.MIN_PARALLEL_MULTIPLY_ADDS = 0
            fastgmm.GaussianMixture(2).fit(np.random.default_rng(0).normal(size=(20_000, 3)))
            os._exit(0 if threads.may_run_parallel() else 3)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    run_python(code)


def test_guard_detects_forks_from_openmp(monkeypatch):
    assert threads.may_run_parallel()
    monkeypatch.setattr(_fork_guard, "forked_from_openmp", False)  # monkeypatch restores it after the test
    monkeypatch.setattr(_fork_guard, "running_layer", lambda: "tbb")
    _fork_guard._after_fork_in_child()
    assert threads.may_run_parallel()
    monkeypatch.setattr(_fork_guard, "running_layer", lambda: "omp")
    _fork_guard._after_fork_in_child()
    assert not threads.may_run_parallel()


@needs_fork
def test_child_that_loads_the_kernels_after_the_fork():
    """The parent has imported the package, but ran a parallel kernel of another library."""
    code = """
        import os, sys
        import fastgmm, numba, numpy as np

        @numba.njit(parallel=True)
        def other(x):
            for i in numba.prange(len(x)):
                x[i] = i

        other(np.zeros(1000))
        pid = os.fork()
        if pid == 0:
            from fastgmm.kernels.compiler import runtime
            runtime.MIN_PARALLEL_MULTIPLY_ADDS = 0
            fastgmm.GaussianMixture(2).fit(np.random.default_rng(0).normal(size=(50_000, 3)))
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    run_python(code)
