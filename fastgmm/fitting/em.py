"""The EM loop: a pass over all rows, an M-step, and a test of convergence.

Every run of EM is a call of `run`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from fastgmm import kernels
from fastgmm.data.sources import Source
from fastgmm.e_step.complete_rows import accumulate
from fastgmm.mixture.parameters import MixtureParameters
from fastgmm.mixture.statistics import SufficientStatistics, has_shared_scatter

from .compiled_steps import CompiledSteps, Tolerances
from .options import FitOptions
from .run_state import EMResult, RunState


def full_pass(
    source: Source, parameters: MixtureParameters, earlier_pass: SufficientStatistics | None = None
) -> SufficientStatistics:
    """Make one pass over all rows and return the sufficient statistics.

    `earlier_pass` are the statistics of an earlier pass over the same rows.
    """
    return source.reduce(functools.partial(accumulate, parameters), earlier_pass=earlier_pass)


def run(
    source: Source,
    parameters: MixtureParameters,
    options: FitOptions,
    *,
    tol: float | None = None,
    max_iter: int | None = None,
    limit_tol: float | None = None,
    lower_bound: float = -math.inf,
    statistics: SufficientStatistics | None = None,
    history: EMResult | None = None,
    floor: float = -math.inf,
    on_iteration: Callable[[EMResult], bool | None] | None = None,
    save_state: Callable[[RunState], None] | None = None,
    resumed: RunState | None = None,
) -> EMResult:
    """Alternate E-steps and M-steps until the bound changes by less than `tol`.

    A change that is NaN is not convergence. A fall that is smaller than the tolerance is (see `EMResult.is_settled`).

    Parameters
    ----------
    source : Source
    parameters : MixtureParameters
        The start.
    options : FitOptions
    tol, max_iter, limit_tol : optional
        Replace those of the options, for this run. `tol` and `limit_tol` are in nats per row; with ``tol=0`` the run
        makes `max_iter` passes.
    lower_bound : float
        The bound of the point from which an EM step led to the start, in nats per row, if an earlier run has made it.
    statistics : SufficientStatistics, optional
        Of all rows under the start, if that pass has been made.
    history : EMResult, optional
        The run that this one continues: `lower_bounds` begin with its values.
    floor : float
        See `EMResult`.
    on_iteration : callable (result), optional
        Called after each pass with the result so far; if it returns true, the run ends.
    save_state : callable (state), optional
        Called after each pass with the state needed to continue the run.
    resumed : RunState, optional
        Continue from this state instead of `parameters`; its passes count towards `max_iter`.

    Returns
    -------
    EMResult

    Raises
    ------
    IllDefinedCovarianceError
        If a component has collapsed.
    """
    tol = options.tol if tol is None else tol
    max_iter = options.max_iter if max_iter is None else max_iter
    limit_tol = options.limit_tol if limit_tol is None else limit_tol
    state = resumed
    if state is None:
        earlier = [] if history is None else list(history.lower_bounds)
        rounding = 64 * float(np.finfo(source.dtype).eps)
        result = EMResult(
            parameters,
            earlier,
            rounding=rounding,
            n_earlier=len(earlier),
            floor=floor,
            trend=kernels.new_trend(lower_bound),
        )
        state = RunState(result, parameters, accelerator=options.make_accelerator(source, tol))
    result, tolerances = state.result, Tolerances(tol, limit_tol)
    is_watched = on_iteration is not None or save_state is not None
    steps = None if statistics is not None else CompiledSteps.for_run(source, state, options)
    try:
        while result.n_iter - result.n_earlier < max_iter and not result.converged:
            n_left = max_iter - (result.n_iter - result.n_earlier)
            if steps is None:
                _step(source, state, options, statistics)
            elif not steps.advance(state, tolerances, 1 if is_watched else n_left):
                steps = None
                continue
            if statistics is not None:
                statistics, steps = None, CompiledSteps.for_run(source, state, options)
            stop = on_iteration is not None and on_iteration(result)
            result.converged = not (stop or state.proposed) and result.is_settled(tol, limit_tol)
            _choose_next_point(state)
            if save_state is not None:
                save_state(state)
            if stop:
                result.stopped = True
                break
    except KeyboardInterrupt:
        if result.n_iter == result.n_earlier:
            raise
        result.interrupted, result.converged = True, False
    return result


def _step(source: Source, state: RunState, options: FitOptions, statistics: SufficientStatistics | None = None) -> None:
    """Make a pass from the current point and an M-step, and record it, or reject the point.

    `statistics` are those of the pass, if it has been made.
    """
    if statistics is None:
        statistics = full_pass(source, state.point, state.earlier_pass or source.earlier_pass)
    state.earlier_pass = statistics if has_shared_scatter(statistics) else None
    reject_below = state.result.bound if state.proposed else None
    state.record(*options.objective.step(statistics, state.point, reject_below))


def _choose_next_point(state: RunState) -> None:
    """Continue from a proposal of the accelerator, if any, or from the last M-step."""
    result, proposal = state.result, None
    if state.accelerator is not None and not (state.proposed or result.converged):
        proposal = state.accelerator.propose(state.point, result.parameters, result.last_change)
    state.point, state.proposed = (result.parameters, False) if proposal is None else (proposal, True)


def finished(result: EMResult) -> EMResult:
    """Return the result of a run that is part of a larger one.

    Raises
    ------
    KeyboardInterrupt
        If the run was interrupted.
    """
    if result.interrupted:
        raise KeyboardInterrupt
    return result
