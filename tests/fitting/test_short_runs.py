"""Short runs: the best of several starts after a few EM steps, for little more than the price of one fit."""

from functools import partial

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.data.random_stream import RandomStream
from fastgmm.data.sources import ArraySource
from fastgmm.engine import IllDefinedCovarianceError
from fastgmm.fitting.options import FitOptions
from fastgmm.fitting.short_runs import short_runs
from fastgmm.fitting.starts import Starts
from fastgmm.m_step.maximum_likelihood import MaximumLikelihood
from helpers import blobs, run_em


def test_short_runs_find_the_best_start_and_discard_those_that_collapse():
    X, _ = blobs(1, n_samples=4000, n_features=2, n_components=8, separation=8.0)
    source = ArraySource(X)
    options = FitOptions(MaximumLikelihood(), 1e-3, 100)
    starts = Starts(8, MaximumLikelihood("full"), "random_from_data")
    seeds = [RandomStream(seed).word() for seed in range(12)]
    ends = [
        run_em(source, starts.make(source, seed)[0], tol=0, max_iter=10, reg_covar=1e-6).lower_bound for seed in seeds
    ]
    parameters, n_distinct = short_runs(source, partial(starts.make, source), options, seeds)
    best = run_em(source, parameters, tol=0, max_iter=1, reg_covar=1e-6).lower_bound
    assert np.median(ends) < best
    assert best >= np.sort(ends)[-3] - 1e-3
    assert n_distinct == 8

    made, make = [], Starts.make

    class Collapsing(Starts):
        def make(self, source, seed, *, quick=False):
            made.append(seed)
            if len(made) < 3:
                raise IllDefinedCovarianceError([1])
            return make(self, source, seed, quick=quick)

    collapsing = Collapsing(8, MaximumLikelihood(), "kmeans")
    assert short_runs(source, partial(collapsing.make, source), options, seeds[:3])[0].n_components == 8
    assert len(made) == 3
    made.clear()
    with pytest.raises(IllDefinedCovarianceError):
        short_runs(source, partial(collapsing.make, source), options, seeds[:2])


def test_more_starts_end_higher_after_fewer_passes_over_all_rows():
    X, _ = blobs(1, n_samples=12_000, n_features=2, n_components=10, separation=6.0)
    bounds, passes = {1: [], 8: []}, {1: [], 8: []}
    for n_init in (1, 8):
        for seed in range(4):
            model = GaussianMixture(10, n_init=n_init, init_params="random_from_data", random_state=seed, max_iter=500)
            bounds[n_init].append(model.fit(X).lower_bound_)
            passes[n_init].append(model.n_iter_)
    assert np.mean(bounds[8]) > np.mean(bounds[1]) + 1e-3
    assert np.min(bounds[8]) >= np.min(bounds[1])
    assert np.mean(passes[8]) < np.mean(passes[1])  # those of the last run, from a good start


def test_small_em_is_the_best_of_short_runs():
    X, _ = blobs(5, n_samples=3000, n_features=2, n_components=9, separation=5.0)
    bounds = {
        name: [GaussianMixture(9, init_params=name, random_state=seed).fit(X).lower_bound_ for seed in range(8)]
        for name in ("k-means++", "small_em")
    }
    assert np.mean(bounds["small_em"]) > np.mean(bounds["k-means++"])
    again = GaussianMixture(9, init_params="small_em", random_state=0).fit(X)
    assert again.lower_bound_ == bounds["small_em"][0]
    plain = GaussianMixture(9, init_params="small_em", random_state=0, acceleration=None, max_iter=0).fit(X)
    assert plain.score(X) > -np.inf
    with pytest.raises(ValueError, match="ill-defined"):
        GaussianMixture(2, init_params="small_em", reg_covar=0).fit(np.ones((50, 2)))
