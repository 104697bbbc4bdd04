"""Many mixtures at once: each is that of a single fit."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from fastgmm import ConjugatePrior, GaussianMixture, ManyFits, MixtureSearch, fit_many
from helpers import blobs

ARRAYS = ("weights_", "means_", "covariances_", "precisions_cholesky_", "lower_bound_", "n_iter_", "converged_")


def some_problems(dtype=np.float64, sizes=(120, 80, 300, 81), n_features=2):
    return [
        blobs(seed, n_components=3, n_features=n_features, n_samples=n)[0].astype(dtype) for seed, n in enumerate(sizes)
    ]


def single(estimator, rows, weight=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone(estimator).fit(rows, sample_weight=weight)


def quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_many(*arguments, **options)


def assert_same(found, expected):
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_", "precisions_", "lower_bounds_",
                 "n_iter_", "converged_", "remaining_", "n_features_in_"):  # fmt: skip
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert np.asarray(a).dtype == np.asarray(b).dtype
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"covariance_type": "tied"}, {"covariance_type": "diag", "max_iter": 3},
                                     {"covariance_type": "EII", "n_components": 9}, {"covariance_type": "VEV"},
                                     {"tol": 1e-6, "max_iter": 200}, {"n_init": 2, "init_params": "random"},
                                     {"prior": ConjugatePrior()}, {"max_iter": 0}])  # fmt: skip
def test_each_fit_has_the_bits_of_a_single_one(options, weighted, dtype):
    estimator = GaussianMixture(**{"n_components": 3, "random_state": 4, **options})
    rows = some_problems(dtype)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 2, len(X)) for X in rows] if weighted else None
    fits = quietly(rows, estimator, sample_weight=weights)
    assert isinstance(fits, ManyFits)
    assert fits.keys == [0, 1, 2, 3]
    assert not fits.errors
    for p, X in enumerate(rows):
        assert_same(fits[p], single(estimator, X, None if weights is None else weights[p]))
    for name in ARRAYS:
        stacked = getattr(fits, name)
        np.testing.assert_array_equal(stacked, [getattr(fit, name) for fit in fits], err_msg=name)
    assert fits.means_.dtype == dtype


def test_rows_enough_for_samples_are_fitted_as_single_fits_are():
    """A fit of more than 10,000 rows looks for its start in a sample."""
    rows, estimator = some_problems(sizes=(12_000, 9_000), n_features=1), GaussianMixture(2, random_state=0)
    for found, X in zip(quietly(rows, estimator), rows, strict=True):
        assert_same(found, single(estimator, X))


def test_an_array_of_problems_and_any_number_of_threads():
    X = np.random.default_rng(0).normal(size=(30, 60, 1)) + 4 * np.random.default_rng(1).integers(0, 2, (30, 60, 1))
    fits = [fit_many(X, GaussianMixture(2, random_state=0), n_jobs=n) for n in (1, 2, None)]
    for name in ARRAYS:
        for other in fits[1:]:
            np.testing.assert_array_equal(getattr(other, name), getattr(fits[0], name))
    assert_same(fits[0][7], single(GaussianMixture(2, random_state=0), X[7]))
    assert fits[0].covariances_.shape == (30, 2, 1, 1)
    assert len(fits[0][3:9:2]) == 3
    assert fits[0][-1] is fits[0][29]
    with pytest.raises(IndexError):
        fits[0][30]


def test_failures_are_recorded_and_stop_nothing():
    rows = some_problems()
    rows[1] = rows[1].copy()
    rows[1][3, 0] = np.nan
    rows += [rows[0][:2], np.zeros((0, 2)), rows[0][:, 0], [["a", "b"]] * 5, np.repeat([[1.0, 2.0]], 50, axis=0)]
    fits = quietly(rows, GaussianMixture(3, random_state=0, reg_covar=0.0))
    assert sorted(fits.errors) == [1, 4, 5, 6, 7, 8]
    for position, text in {1: "NaN", 4: "n_samples >= n_components", 5: "minimum of 2", 6: "2D array",
                           7: "could not convert|convert", 8: "ill-defined"}.items():  # fmt: skip
        with pytest.raises(ValueError, match=text):
            fits[position]
    assert fits.estimators()[1] is None
    assert_same(fits[2], single(GaussianMixture(3, random_state=0, reg_covar=0.0), rows[2]))
    assert np.isnan(fits.means_[1]).all()
    assert np.isnan(fits.lower_bound_[[1, 4, 5, 6, 7, 8]]).all()
    assert not fits.converged_[1]
    assert fits.n_iter_[1] == 0
    assert "6 failed" in repr(fits)


def test_groups_of_rows_and_of_a_data_frame():
    X = np.concatenate(some_problems())
    groups = np.random.default_rng(0).choice(["b", "a", "c"], size=len(X))
    weights = np.random.default_rng(1).uniform(1, 2, size=len(X))
    estimator = GaussianMixture(2, random_state=0)
    fits = fit_many(X, estimator, groups=groups, sample_weight=weights)
    assert fits.keys == ["a", "b", "c"]
    for p, key in enumerate(fits.keys):
        assert_same(fits[p], single(estimator, X[groups == key], weights[groups == key]))
    frame = pd.DataFrame(X, columns=["x", "y"])
    by_name = fit_many(frame, estimator, groups=pd.Series(groups), sample_weight=pd.Series(weights))
    assert by_name[0].feature_names_in_.tolist() == ["x", "y"]
    np.testing.assert_array_equal(by_name.means_, fits.means_)
    grouped = fit_many(frame.assign(g=groups).groupby("g")[["x", "y"]], estimator)
    assert grouped.keys == ["a", "b", "c"]
    assert grouped[1].feature_names_in_.tolist() == ["x", "y"]
    assert_same(grouped[2], single(estimator, frame[groups == "c"]))


def test_problems_with_other_numbers_of_features_have_no_stacked_arrays():
    rows = [*some_problems(), *some_problems(n_features=3)]
    fits = quietly(rows, GaussianMixture(2, random_state=0))
    assert fits[5].n_features_in_ == 3
    assert fits.weights_.shape == (8, 2)
    with pytest.raises(AttributeError, match="one number of features"):
        _ = fits.means_
    with pytest.raises(AttributeError, match="no attribute 'labels_'"):
        _ = fits.labels_


def test_seeds_differ_unless_the_random_state_is_an_integer():
    X = np.repeat(blobs(n_components=6, n_samples=100)[0][None], 6, axis=0)
    same = quietly(X, GaussianMixture(6, random_state=0, init_params="random"))
    assert len(np.unique(same.lower_bound_)) == 1
    other = quietly(X, GaussianMixture(6, random_state=np.random.RandomState(0), init_params="random"))
    assert len(np.unique(other.lower_bound_)) > 1
    again = quietly(X, GaussianMixture(6, random_state=np.random.RandomState(0), init_params="random"))
    np.testing.assert_array_equal(other.lower_bound_, again.lower_bound_)


def test_one_warning_counts_the_fits_that_have_not_converged():
    with pytest.warns(ConvergenceWarning, match="4 of 4 fits did not converge") as record:
        fit_many(some_problems(), GaussianMixture(3, random_state=0, max_iter=1, tol=1e-9, acceleration=None))
    assert len(record) == 1


def test_progress_is_shown(capsys):
    fit_many(some_problems(), GaussianMixture(2, random_state=0), progress=True)
    assert "100%" in capsys.readouterr().out


def test_bad_arguments_are_refused():
    rows, estimator = some_problems(), GaussianMixture(2)
    with pytest.raises(TypeError, match=r"must be a fastgmm\.GaussianMixture, got MixtureSearch"):
        fit_many(rows, MixtureSearch())
    with pytest.raises(ValueError, match="n_components"):
        fit_many(rows, GaussianMixture(0))
    with pytest.raises(ValueError, match="at least one problem"):
        fit_many([], estimator)
    with pytest.raises(ValueError, match=r"shape \(n_problems, n_samples, n_features\)"):
        fit_many(rows[0], estimator)
    with pytest.raises(ValueError, match="one group per row"):
        fit_many(rows[0], estimator, groups=[1, 2])
    with pytest.raises(ValueError, match="an array for each of 4 problems, got 1"):
        fit_many(rows, estimator, sample_weight=[np.ones(120)])
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(120,\)"):
        fit_many(rows[0], estimator, groups=[1] * 120, sample_weight=[1.0])
    with pytest.raises(ValueError, match="None for a groupby"):
        fit_many(pd.DataFrame(rows[0]).groupby([0] * 120), estimator, sample_weight=np.ones(120))
