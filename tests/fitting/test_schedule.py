"""Which runs make a fit: the default starts where plain EM starts, and ends no lower; seeds, restarts, interrupts."""

import numpy as np
import pytest

from fastgmm import GaussianMixture
from fastgmm.fitting import em
from fastgmm.fitting.options import ACCELERATIONS
from fastgmm.fitting.squarem import Squarem
from helpers import COVARIANCE_TYPES, blobs, fit_quietly


def test_progress_names_restarts_and_moves(capsys):
    X, _ = blobs(2, n_samples=10_000, n_features=2, n_components=4, separation=2.0)
    GaussianMixture(4, random_state=0, n_init=3, n_moves=1, verbose=1, max_iter=300).fit(X)
    text = capsys.readouterr().out
    assert "Best of 3 starts after 7 iterations" in text


def test_every_acceleration_is_squarem_on_all_rows():
    assert {name: a.accelerator for name, a in ACCELERATIONS.items()} == {
        "progressive": Squarem,
        "squarem": Squarem,
    }


@pytest.mark.parametrize("n_samples", [900, 12_000])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_the_default_starts_where_plain_em_starts_and_ends_no_lower(covariance_type, n_samples):
    """What it does besides EM steps is kept only if the likelihood is higher."""
    X, _ = blobs(4, n_samples=n_samples, n_features=3, n_components=5, separation=2.0)
    options = {"covariance_type": covariance_type, "random_state": 3}
    start, plain_start = (
        GaussianMixture(5, max_iter=0, acceleration=a, **options).fit(X) for a in ("progressive", None)
    )
    np.testing.assert_array_equal(start.means_, plain_start.means_)
    default, plain = (fit_quietly(GaussianMixture(5, acceleration=a, **options), X) for a in ("progressive", None))
    assert default.lower_bound_ > plain.lower_bound_ - 1e-3


def test_a_fit_to_a_coarse_tolerance_is_plain_em_by_default():
    X, _ = blobs(4, n_samples=2_000, n_features=3, n_components=6, separation=0.5)
    options = {"n_components": 6, "random_state": 0, "max_iter": 500}
    plain = GaussianMixture(acceleration=None, **options).fit(X)
    np.testing.assert_array_equal(GaussianMixture(**options).fit(X).lower_bounds_, plain.lower_bounds_)
    for finer in ({"limit_tol": 1e-4}, {"tol": 1e-6}):
        accelerated, plain = (GaussianMixture(**options, **finer, acceleration=a).fit(X) for a in ("squarem", None))
        assert accelerated.n_iter_ < plain.n_iter_
        default = GaussianMixture(**options, **finer).fit(X)
        assert default.lower_bounds_[: accelerated.n_iter_] == accelerated.lower_bounds_


def test_an_interrupt_at_any_pass_keeps_the_best_so_far(monkeypatch, steps_from_python):
    X, original = blobs(2, n_samples=3_000, n_features=2, n_components=7, separation=2.0)[0], em.full_pass
    for last in range(2, 25):
        seen = []

        def full_pass(source, *arguments, last=last, seen=seen):
            if len(source.X) == len(X):
                seen.append(0)
                if len(seen) == last:
                    raise KeyboardInterrupt
            return original(source, *arguments)

        monkeypatch.setattr(em, "full_pass", full_pass)
        model = GaussianMixture(7, random_state=0, n_moves=1)
        try:
            fit_quietly(model, X)
        except KeyboardInterrupt:
            assert model.n_iter_ >= 1
            assert not model.converged_
        else:
            assert len(seen) < last
