"""EM steps on few rows in compiled code; see `kernels.em_runs`.

With few rows, the Python around a pass takes a hundred times as long as the pass. So their steps run in compiled code,
as many at a time as nothing in Python has to see. The answers are those of the steps from Python, to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastgmm import kernels
from fastgmm.data.sources import Source
from fastgmm.m_step.compiled_problem import CompiledProblem
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from fastgmm.mixture.statistics import SufficientStatistics, has_shared_scatter

from .options import FitOptions
from .run_state import RunState
from .squarem import BEGIN_BELOW

# Multiply-adds of passes between two returns to Python, about a tenth of a second: so Ctrl-C ends a run.
MULTIPLY_ADDS_PER_CALL = 3e8


class Tolerances(NamedTuple):
    """When a run has converged; see `run_state.EMResult.is_settled`."""

    tol: float
    limit_tol: float


class CompiledSteps:
    """EM steps of one run on few rows.

    Parameters
    ----------
    problem : CompiledProblem
    reg_covar : float
        Added to every variance.
    rounding : float
        See `EMResult.rounding`.
    """

    def __init__(self, problem: CompiledProblem, reg_covar: float, rounding: float):
        self.problem, self.reg_covar, self.rounding = problem, reg_covar, rounding
        self.n_rows = len(problem.source.X)
        self.max_steps = max(1, int(MULTIPLY_ADDS_PER_CALL / problem.problems.multiply_adds))

    @classmethod
    def for_run(cls, source: Source, state: RunState, options: FitOptions) -> CompiledSteps | None:
        """Return the compiled steps of a run, or None if its steps are made from Python.

        The choice depends on the shape of the problem, the objective and the layout of earlier statistics.
        """
        if type(options.objective) is not MaximumLikelihood:
            return None
        earlier = state.earlier_pass or source.earlier_pass
        if (
            earlier is not None
            and has_shared_scatter(earlier)
            and not (earlier.reference == earlier.reference[0]).all()
        ):
            return None  # the tied layout would have lost digits
        problem = CompiledProblem.of(source, state.point.model, state.point.n_components)
        if problem is None:
            return None
        if problem.model.form.is_shared and earlier is not None and has_shared_scatter(earlier):
            problem.problems.set_total_scatter(earlier.reference[0], earlier.scatter)
        return cls(problem, options.objective.reg_covar, state.result.rounding)

    def advance(self, state: RunState, tolerances: Tolerances, max_steps: int) -> bool:
        """Make EM steps; return whether they were made.

        If not, the state is as before, or as after some steps, and the next step must be made from Python. The steps
        end when the run converges, when an accelerator is asked for a proposal, or after `max_steps`.
        """
        result, accelerator = state.result, state.accelerator
        if state.proposed or (accelerator is not None and accelerator.begun):
            return self._step(state)
        problem = self.problem
        problem.load(state.point)
        problem.problems.trend[0] = result.trend
        stop_below = BEGIN_BELOW if accelerator is not None else 0.0
        options = kernels.RunOptions(*tolerances, self.reg_covar, self.rounding, stop_below)
        bounds, ended = problem.problems.run(options, min(max_steps, self.max_steps))
        n_steps, status = ended[0].tolist()
        if n_steps:
            if accelerator is not None:
                state.point = problem.parameters(problem.problems.before)
            result.extend(problem.parameters(), bounds[0, :n_steps], problem.problems.trend[0])
            self._keep_total_scatter(state)
        if status == kernels.HANDED_OVER:
            state.point = result.parameters if n_steps else state.point  # the next step continues from there
            return False
        return True

    def _step(self, state: RunState) -> bool:
        """Make one step from the current point, and record or reject it."""
        problem = self.problem
        problem.load(state.point)
        problem.problems.trend[0] = kernels.new_trend()
        bounds, ended = problem.problems.run(kernels.RunOptions(0.0, np.inf, self.reg_covar, self.rounding), 1)
        if ended[0, 1] == kernels.HANDED_OVER:
            return False
        bound = float(bounds[0, 0])
        rejected = state.proposed and not bound >= state.result.bound
        state.record(None if rejected else problem.parameters(), bound)
        self._keep_total_scatter(state)
        return True

    def _keep_total_scatter(self, state: RunState) -> None:
        """Keep the total scatter of the tied layout, for steps from Python and for a run that is resumed."""
        problems = self.problem.problems
        if problems.has_total_scatter and state.earlier_pass is None:
            n_components = problems.weight_sums.shape[2]
            state.earlier_pass = SufficientStatistics(
                "tied",
                np.repeat(problems.origin, n_components, axis=0),
                problems.weight_sums[0, 0].copy(),
                problems.first[0, 0].copy(),
                problems.scatter[0, 0, 0].copy(),
                float(problems.log_likelihood[0, 0]),
                float(self.problem.source.total_weight),
            )
