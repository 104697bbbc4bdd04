"""Problems of EM on few rows: arrays of a run in compiled code, and its calls from Python."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastgmm.kernels.compiler.entry import pack_arguments
from fastgmm.kernels.compiler.numba_internals import config
from fastgmm.kernels.compiler.runtime import MIN_PARALLEL_MULTIPLY_ADDS, Scratch
from fastgmm.kernels.layouts import passes
from fastgmm.kernels.matrices.cholesky import scratch as cholesky_scratch
from fastgmm.kernels.run_passes import AccumulationPlan, Operands, accumulation_arguments, plan_accumulation
from fastgmm.kernels.tiles.rows import rows_view, weights_view

from . import run, trend
from .compiled import m_step_address

CONVERGED, HANDED_OVER = run.CONVERGED, run.HANDED_OVER


# The arguments of a pass, `layouts.passes.accumulate_chunk`, after its scratch memory, and their numbers of axes; 0 for
# an integer.
ARGUMENTS = {
    "flat": 1, "row_stride": 0, "column_stride": 0, "n_rows": 0, "rows_per_chunk": 0, "width": 0, "weight": 1,
    "labels": 1, "resp": 2, "origin": 1, "means": 2, "factor": 3, "log_coef": 1, "weight_sums": 2, "first": 3,
    "scatter": 4, "log_likelihood": 1, "row_values": 2,
}  # fmt: skip
# The position of each argument among the words of a pass (see `compiler.entry.pack_arguments`): that of an array's
# address, which its extents follow, or of an integer. Two words for the scratch memory come first.
WORDS = dict(zip(ARGUMENTS, 2 + np.cumsum([0, *(1 + n for n in ARGUMENTS.values())]), strict=False))
# The position of the number of scatter matrices.
SCATTER_WORD = int(WORDS["scatter"]) + 2


class ModelCode(NamedTuple):
    """A covariance model as compiled code sees it.

    Attributes
    ----------
    layout : {"full", "diagonal", "tied"}
    form : {"full", "tied", "diag", "spherical"}
    pools_components : bool
        Whether the M-step averages over the components, if it only averages.
    maximise : callable (scatter, counts, before) -> covariances, optional
        The M-step, a plain function that Numba can compile. None if it only averages; see `steps.average_scatter`.
    """

    layout: str
    form: str
    pools_components: bool = False
    maximise: Callable | None = None

    def covariance_shape(self, n_components: int, n_features: int) -> tuple[int, int, int]:
        """Return the shape of covariances in compiled code; see `steps`."""
        return {
            "full": (n_components, n_features, n_features),
            "tied": (1, n_features, n_features),
            "diag": (n_components, 1, n_features),
            "spherical": (n_components, 1, 1),
        }[self.form]


class ParameterArrays(NamedTuple):
    """The parameters of some problems; see `steps` for the shapes of the last two, after that of the problems."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    factor: np.ndarray


class RunOptions(NamedTuple):
    """Options of runs in compiled code; see `run.em_chunk`."""

    tol: float
    limit_tol: float
    reg_covar: float
    rounding: float
    stop_below: float = 0.0


def is_small(layout: str, n_samples: int, n_components: int, n_features: int) -> bool:
    """Return whether runs of EM on so few rows are made in compiled code.

    That is if a pass is too small for a second thread. The answer depends on the shape of the problem only.
    """
    if config.DISABLE_JIT or n_samples == 0:
        return False
    plan = plan_accumulation(layout, n_samples, n_components, n_features, np.dtype(np.float64))
    return plan.multiply_adds <= MIN_PARALLEL_MULTIPLY_ADDS and plan.tiling.n_chunks == 1


class EMProblems:
    """Problems of EM with one model, number of components and number of features.

    Parameters
    ----------
    model : ModelCode
    n_components : int
    X : (N, D) float64
        The rows of all problems.
    sample_weight : (n_weights,) float64 or None
    parts : (P, 2) int64
        The first row of each problem, and the row after its last.
    total_weights : (P,) float64
        The sum of each problem's weights.
    weight_begins : (P,) int64, optional
        The first weight of each problem, if problems with the same rows have other weights; by default that of its
        first row.

    Attributes
    ----------
    parameters, before : ParameterArrays
        The parameters of each problem, and those before the last step.
    trend : (P, trend.SIZE) float64
    origin : (P, D), scatter : (P, 1, ...) float64
        For "tied": the point about which the total scatter is, and that scatter, if `has_total_scatter`.
    weight_sums : (P, 1, K), first : (P, 1, K, D), log_likelihood : (P, 1) float64
        Other sums of the last pass.
    multiply_adds : float
        Of a pass over the rows of all problems.
    """

    def __init__(
        self,
        model: ModelCode,
        n_components: int,
        X: np.ndarray,
        sample_weight: np.ndarray | None,
        parts: np.ndarray,
        total_weights: np.ndarray,
        weight_begins: np.ndarray | None = None,
    ):
        n_problems, n_features = len(parts), X.shape[1]
        self.model, self.parts = model, parts
        self.is_shared, self.is_diagonal = int(model.layout == "tied"), int(model.layout == "diagonal")
        covariance_shape = model.covariance_shape(n_components, n_features)
        shapes = (n_components,), (n_components, n_features), covariance_shape, covariance_shape
        self.parameters, self.before = (
            ParameterArrays(*(np.empty((n_problems, *shape)) for shape in shapes)) for _ in range(2)
        )
        self.trend = np.empty((n_problems, trend.SIZE))
        self.origin, self.centred = np.empty((n_problems, n_features)), np.empty((n_problems, *shapes[1]))
        self.log_coef = np.empty((n_problems, n_components))
        self.weight_sums, self.log_likelihood = np.empty((n_problems, 1, n_components)), np.empty((n_problems, 1))
        self.first = np.empty((n_problems, 1, n_components, n_features))
        sizes = parts[:, 1] - parts[:, 0]
        layouts = [_pass_words(model.layout, int(n), n_components, n_features) for n in _distinct(sizes)]
        self.scatter = np.empty((n_problems, 1, *layouts[0].scatter_shape))
        n_weights = len(X) if sample_weight is None else len(sample_weight)
        self._rows, (self._sample_weight, scale) = rows_view(X), weights_view(sample_weight, n_weights)
        self._weight_begins = parts[:, 0] if weight_begins is None else weight_begins
        self.numbers = np.stack([np.full(n_problems, scale), total_weights], axis=1)
        self._labels = np.empty(0, np.int32)
        if len(layouts) == 1:
            self.words = np.tile(layouts[0].words, (n_problems, 1))
            self.multiply_adds = n_problems * layouts[0].multiply_adds
        else:
            which = np.searchsorted(_distinct(sizes), sizes)
            self.words = np.array([layout.words for layout in layouts])[which]
            self.multiply_adds = float(np.array([layout.multiply_adds for layout in layouts])[which].sum())
        self._write_addresses()
        maximise = 0
        if model.maximise is not None:
            maximise = m_step_address(model.form, model.maximise, run.M_STEP_TYPES)
        self.calls = np.array([*_pass_addresses(model.layout, n_features), maximise])
        self.scratch = _scratch_for(n_features, *layouts)

    def _write_addresses(self) -> None:
        """Write the addresses of all arrays, and the strides of the rows, into the words of each problem."""
        rows, weight, begins = self._rows, self._sample_weight, self.parts[:, 0]
        problem = np.arange(len(self.parts))
        stacked = {
            "origin": self.origin, "means": self.centred, "factor": self.parameters.factor, "log_coef": self.log_coef,
            "weight_sums": self.weight_sums, "first": self.first, "scatter": self.scatter,
            "log_likelihood": self.log_likelihood,
        }  # fmt: skip
        for name, array in stacked.items():
            self.words[:, WORDS[name]] = address(array) + problem * array.strides[0]
        factor = WORDS["factor"]
        self.words[:, factor + 1 : factor + 4] = self.parameters.factor.shape[1:]  # a scale, or one for each feature
        self.words[:, WORDS["flat"]] = address(rows.flat) + begins * (rows.row_stride * rows.flat.itemsize)
        self.words[:, WORDS["row_stride"]], self.words[:, WORDS["column_stride"]] = rows.row_stride, rows.column_stride
        if len(weight):
            self.words[:, WORDS["weight"]] = address(weight) + self._weight_begins * weight.itemsize
            self.words[:, WORDS["weight"] + 1] = self.parts[:, 1] - begins

    def start_from_labels(self, labels: np.ndarray, reference: np.ndarray, reg_covar: float) -> np.ndarray:
        """Set the parameters to those after the M-step of rows whose labels are given.

        Only for models whose M-step averages scatter.

        Parameters
        ----------
        labels : (n_labels,) int32
            Number of the component of each row, problem after problem.
        reference : (P, K, D)
            Points near the components.
        reg_covar : float
            Added to every variance.

        Returns
        -------
        well_defined : (P,) bool
            Whether all covariances are positive definite. The parameters of other problems are not set.
        """
        sizes = self.parts[:, 1] - self.parts[:, 0]
        self._labels = np.ascontiguousarray(labels, np.int32)
        first = np.cumsum(sizes) - sizes
        self.words[:, WORDS["labels"]] = address(self._labels) + first * self._labels.itemsize
        self.words[:, WORDS["labels"] + 1] = sizes
        self.parameters.means[...] = reference
        _, ended = self.run(RunOptions(0.0, math.inf, reg_covar, 0.0), 0)
        well_defined: np.ndarray = ended[:, 1] != HANDED_OVER
        return well_defined

    def run(self, options: RunOptions, max_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Run EM for all problems, a problem per thread at a time.

        Returns
        -------
        bounds : (P, max_steps)
            The bound at each step, in nats per row.
        ended : (P, 2) int64
            The number of steps, and how the run ended: `run.LIMIT`, `run.CONVERGED` or `run.HANDED_OVER`.
        """
        n_problems = len(self.parts)
        bounds, ended = np.empty((n_problems, max_steps)), np.empty((n_problems, 2), np.int64)
        run.em_kernel(
            n_problems,
            self.calls,
            self.words,
            self.numbers,
            np.array(options),
            max_steps,
            self.is_shared,
            self.is_diagonal,
            int(self.model.pools_components),
            SCATTER_WORD,
            WORDS["labels"],
            self.origin,
            self.centred,
            self.log_coef,
            self.weight_sums,
            self.first,
            self.scatter,
            self.log_likelihood,
            *self.parameters,
            *self.before,
            self.trend,
            bounds,
            ended,
            scratch=self.scratch,
            multiply_adds=self.multiply_adds * max(max_steps, 1),
        )
        return bounds, ended

    @property
    def has_total_scatter(self) -> bool:
        """Return whether the total scatter of the tied layout is known."""
        return bool(self.is_shared) and int(self.words[0, SCATTER_WORD]) == 0

    def set_total_scatter(self, origin: np.ndarray, scatter: np.ndarray) -> None:
        """Set the total scatter, (D, D), about a point, (D,), so that the first pass does not find it."""
        self.origin[0], self.scatter[0, 0, 0] = origin, scatter
        self.words[0, SCATTER_WORD] = 0


class PassWords(NamedTuple):
    """Common arguments of the passes over rows of one shape.

    Attributes
    ----------
    words : (n_words,) int64
        The arguments of a pass, with 0 for addresses and for what depends on the rows' memory.
    scatter_shape : tuple
    multiply_adds : float
        Of a pass.
    scratch : Scratch
    """

    words: np.ndarray
    scatter_shape: tuple[int, int, int]
    multiply_adds: float
    scratch: Scratch


@functools.lru_cache(maxsize=4096)
def _pass_words(layout: str, n_samples: int, n_components: int, n_features: int) -> PassWords:
    """Return the common words of the passes over rows of a shape."""
    plan = plan_accumulation(layout, n_samples, n_components, n_features, np.dtype(np.float64))
    arguments = _arguments(plan, n_samples, n_components, n_features)
    memory = plan.tiling.scratch.allocate(1)[0, : plan.tiling.scratch.rows]
    words = pack_arguments(memory, arguments)
    for name, n_axes in ARGUMENTS.items():
        if n_axes:
            words[WORDS[name]] = 0
    return PassWords(words, plan.scatter_shape, plan.multiply_adds, plan.tiling.scratch)


@functools.cache
def _pass_addresses(layout: str, n_features: int) -> tuple[int, int]:
    """Return the addresses of `enter` and of the pass of a layout, compiled if necessary."""
    plan = plan_accumulation(layout, 1, 1, n_features, np.dtype(np.float64))
    memory = plan.tiling.scratch.allocate(1)[0, : plan.tiling.scratch.rows]
    kernel = passes.kernel("accumulate", layout, np.dtype(np.float64), n_features)
    return kernel._addresses_for((memory, *_arguments(plan, 1, 1, n_features)))


def _arguments(plan: AccumulationPlan, n_samples: int, n_components: int, n_features: int) -> tuple:
    """Return arguments of a pass with arrays of the right types, whose contents do not matter."""
    operands = Operands(
        np.empty(n_features), np.empty((n_components, n_features)), np.empty(plan.scatter_shape), np.empty(n_components)
    )
    sums = (
        np.empty((1, n_components)),
        np.empty((1, n_components, n_features)),
        np.empty((1, *plan.scatter_shape)),
        np.empty(1),
    )
    rows, weights = rows_view(np.empty((0, n_features))), weights_view(None, 0).weights
    return accumulation_arguments(rows, n_samples, plan, weights, operands, sums, np.empty((0, 0)))


def _scratch_for(n_features: int, *words: PassWords) -> Scratch:
    """Return scratch memory that is enough for any of the passes, and for a Cholesky factor."""
    factors = cholesky_scratch(n_features)
    rows, columns = max(w.scratch.rows for w in words), max(w.scratch.columns for w in words)
    return Scratch(max(rows, -(-factors.rows * factors.columns // columns)), columns)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values, ascending."""
    return values[:1] if (values == values[0]).all() else np.unique(values)


def address(array: np.ndarray) -> int:
    """Return the address of an array's memory."""
    start: int = array.__array_interface__["data"][0]
    return start
