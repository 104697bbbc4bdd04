"""Plain functions of the package, compiled: M-steps of covariance models, and what they call.

An M-step is written once, in NumPy that Numba can compile. From Python it runs as it is. Here it is compiled with every
function of the package that it calls; those in `TWINS` are replaced by compiled functions of the same results.
"""

from __future__ import annotations

import functools
import types as python_types
from collections.abc import Callable
from typing import Any

from fastgmm.kernels.compiler.numba_internals import address_of
from fastgmm.kernels.compiler.runtime import bind, compiled_entry, exact_leaf

from . import algebra, common_axes

# The functions of `fastgmm.covariance.linear_algebra`, and the sweeps of common axes.
TWINS: dict[str, Callable] = {
    name: getattr(algebra, name)
    for name in (
        "variances_and_axes", "log_determinants", "inverse", "in_axes", "from_axes", "weighted_sum",
        "traces_of_products", "times_vector", "vector_times", "scaled_rows", "scaled_matrices", "repeated_rows",
        "diagonals", "scaled_copies",
    )
} | {"sweep_axes": common_axes.sweep_axes}  # fmt: skip


@functools.cache
def compiled_leaf(function: Callable) -> Any:
    """Return a plain function compiled for use in kernels, with the functions of the package that it calls."""
    namespace = getattr(function, "__globals__", {})
    names: dict[str, Any] = {}
    for name in function.__code__.co_names:
        value = namespace.get(name)
        if name in TWINS:
            names[name] = TWINS[name]
        elif isinstance(value, python_types.FunctionType) and value.__module__.startswith("fastgmm."):
            names[name] = compiled_leaf(value)
    return exact_leaf(bind(function, function.__name__, **names))


def m_step_of_matrices(scatter, counts, before, covariances_out):
    """Run the M-step of a model with a matrix for each component.

    A template: `maximise` is the model's.

    Parameters
    ----------
    scatter, before : see `steps`
    counts : (K,)
    covariances_out : as `before`
    """
    result = maximise(scatter, counts, before)  # type: ignore[name-defined]  # noqa: F821
    for k in range(scatter.shape[0]):
        for d in range(scatter.shape[1]):
            for e in range(scatter.shape[2]):
                covariances_out[k, d, e] = result[k, d, e]


def m_step_of_diagonals(scatter, counts, before, covariances_out):
    """Run the M-step of a model with variances for each component; see `m_step_of_matrices`."""
    shape = (scatter.shape[0], scatter.shape[2])
    result = maximise(scatter.reshape(shape), counts, before.reshape(shape))  # type: ignore[name-defined]  # noqa: F821
    for k in range(scatter.shape[0]):
        for d in range(scatter.shape[2]):
            covariances_out[k, 0, d] = result[k, d]


M_STEPS = {
    "full": m_step_of_matrices,
    "diag": m_step_of_diagonals,
}


@functools.cache
def m_step_address(form: str, maximise: Callable, types: tuple) -> int:
    """Return the address of a model's compiled M-step.

    Parameters
    ----------
    form : {"full", "diag"}
        How the model stores covariances.
    maximise : callable (scatter, counts, before) -> covariances
        The model's M-step, a plain function.
    types : tuple
        Numba's types of the arguments.
    """
    compiled = compiled_entry(bind(M_STEPS[form], f"m_step_{maximise.__name__}", maximise=compiled_leaf(maximise)))
    return address_of(compiled, types)
