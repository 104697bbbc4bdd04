"""Speed without a clock: properties of the machine code, and the memory used."""

import platform
import re
import subprocess
import sys
import textwrap

import numba
import numpy as np
import pytest
from llvmlite import binding

import fastgmm
from fastgmm.kernels import VECTOR_BITS
from fastgmm.kernels.compiler.runtime import EXACT, bind
from fastgmm.kernels.layouts import passes
from helpers import random_parameters, random_rows

LAYOUTS = {"full": "full", "diagonal": "diag", "tied": "tied"}
X86 = platform.machine().lower() in ("x86_64", "amd64")
pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="compiled code")


def assembly(layout, dtype, n_features, monkeypatch):
    """Return the assembly of a layout's accumulate kernel, compiled anew for the arguments of a real call."""
    seen = []
    template = bind(passes.accumulate_chunk, f"fresh_{layout}", **passes.bound_leaves(layout, n_features))
    fresh = numba.njit(error_model="numpy", nogil=True, fastmath=EXACT)(template)

    def catch(*_):
        def call(n_chunks, *arguments, scratch, multiply_adds):
            memory = scratch.allocate(1)[0, : scratch.rows]
            seen.append((numba.types.intp, *map(numba.typeof, (memory, *arguments))))

        return call

    monkeypatch.setattr(passes, "kernel", catch)
    parameters = random_parameters(LAYOUTS[layout], 3, n_features or 7)
    fastgmm.engine.accumulate(parameters, random_rows(parameters, 100).astype(dtype))
    fresh.compile(seen[0])
    return fresh.inspect_asm(seen[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("layout", "n_features"), [("full", 0), ("full", 2), ("diagonal", 0), ("tied", 0)])
def test_exponentials_are_ours_and_vectors_are_wide(layout, n_features, dtype, monkeypatch):
    code = assembly(layout, np.dtype(dtype), n_features, monkeypatch)
    if X86:  # the stack is aligned, so that vectors on it do not straddle cache lines
        assert "andq\t$-64, %rsp" in code
    names = set(re.findall(r"[\w.]+", code))
    assert not [name for name in names if re.fullmatch(r"_*(exp|log)(2|10|1p|m1)?f?(_finite)?|_*svml\w*|_ZGV\w+", name)]
    if not X86 or VECTOR_BITS == 128 or not binding.get_host_cpu_features().get("fma"):
        return
    register = {512: "zmm", 256: "ymm"}[VECTOR_BITS]
    suffix = "pd" if dtype == np.float64 else "ps"
    fused = re.findall(rf"vfn?m(?:add|sub)\d+{suffix}\s[^\n]*%({register}|xmm|ymm)\d+", code)
    wide = fused.count(register)
    # The polynomial of each exponential alone has eleven (float32: five).
    assert wide > 30
    # The inner loops of all operations use wide vectors only, except for a row's last features in the diagonal layout.
    assert wide / len(fused) > (0.9 if layout == "diagonal" else 0.95)
    scalar = re.findall(rf"vfn?m(?:add|sub)\d+s{suffix[-1]}\s", code)
    assert len(scalar) < 0.25 * wide


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_no_array_of_rows_times_components():
    """Fits, labels and scores need far less memory than one number per row and component."""
    code = """
        import resource, sys
        import numpy as np
        from fastgmm import GaussianMixture
        unit = 1 if sys.platform == "darwin" else 1024
        def peak():
            try:  # on Linux ru_maxrss of a new process starts at its parent's value
                with open("/proc/self/status") as status:
                    return int(status.read().split("VmHWM:")[1].split()[0]) * 1024
            except OSError:
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        X = np.random.default_rng(0).normal(size=(400_000, 2))
        def work(rows):
            for covariance_type in ("full", "tied", "diag"):
                options = dict(covariance_type=covariance_type, init_params="random_from_data", max_iter=1, tol=9)
                model = GaussianMixture(64, random_state=0, reg_covar=1e-3, **options).fit(rows)
                model.predict(rows), model.score(rows)
        work(X[:20_000])
        before = peak()
        work(X)
        print((peak() - before) / (8 * len(X) * 64))
    """
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.15  # of 205 MB
