"""Parameters that are NumPy's numbers or strings: the same as numbers of Python, in every estimator and function."""

import enum
import functools
import warnings

import numpy as np
import pytest
import sklearn.mixture
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from fastgmm import (
    BayesianGaussianMixture,
    ConjugatePrior,
    GaussianMixture,
    MixtureSearch,
    StreamingGaussianMixture,
    bootstrap_likelihood_ratio,
    bootstrap_parameters,
    combine_components,
    engine,
    rows,
)
from fastgmm.estimators.validation import plain
from fastgmm.fitting.checkpoint import decoded
from fastgmm.kernels import resolve_n_jobs
from helpers import blobs, fit_quietly

X, _ = blobs(n_samples=300, n_components=2)
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
STARTS = ["kmeans", "k-means++", "random", "random_from_data", "small_em", "hc"]
COMMON = {"n_components": 2, "max_iter": 7, "n_init": 2, "verbose": 0, "verbose_interval": 3, "n_jobs": 1,
          "random_state": 5, "tol": 1e-2, "reg_covar": 1e-2, "warm_start": 0}  # fmt: skip
PARAMETERS = {
    GaussianMixture: {**COMMON, "n_moves": 2, "limit_tol": 0.5},
    BayesianGaussianMixture: {
        **COMMON, "weight_concentration_prior": 0.25, "mean_precision_prior": 2.0, "degrees_of_freedom_prior": 5.0,
        "covariance_prior": 2.0,
    },
    StreamingGaussianMixture: {
        "n_components": 2, "n_init": 2, "n_jobs": 1, "random_state": 5, "reg_covar": 1e-2, "batch_size": 60,
        "init_size": 100, "learning_decay": 0.75, "half_life": 100.0,
    },
}  # fmt: skip
CASES = [(cls, name) for cls, parameters in PARAMETERS.items() for name in parameters if name != "warm_start"]


def fit(cls, **changed):
    options = {**{name: value for name, value in PARAMETERS[cls].items() if name != "warm_start"}, **changed}
    spherical = "spherical" if cls is BayesianGaussianMixture else "full"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", category=sklearn.exceptions.ConvergenceWarning)
        return cls(covariance_type=spherical, **options).fit(X)


@functools.cache
def plain_fit(cls, name, value):
    return fit(cls, **{name: value})


def assert_equal(one, other):
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))


@pytest.mark.parametrize(("cls", "name"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_every_parameter_of_every_width(cls, name):
    value = PARAMETERS[cls][name]
    for kind in INTEGERS if isinstance(value, int) else FLOATS:
        numpy_number = kind(value)
        with np.errstate(all="raise"):
            model = fit(cls, **{name: numpy_number})
        plain = int(numpy_number) if isinstance(value, int) else float(numpy_number)
        assert_equal(model, plain_fit(cls, name, plain))
        # The estimator keeps what it was given, for `clone` and `get_params`.
        assert model.get_params()[name] is numpy_number
        assert type(clone(model).get_params()[name]) is kind


@pytest.mark.parametrize("init_params", STARTS)
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_every_start_takes_numpy_integers(kind, init_params):
    options = {"init_params": init_params, "random_state": 0}
    assert_equal(GaussianMixture(kind(2), **options).fit(X), GaussianMixture(2, **options).fit(X))


def test_samples_are_drawn_for_numpy_integers():
    """Sizes that overflow the narrow types: 256 rows a component, and 20 a parameter."""
    many, _ = blobs(n_samples=200_000, n_components=2)
    one, other = (fit_quietly(GaussianMixture(k, random_state=0), many) for k in (np.uint8(3), 3))
    assert_equal(one, other)


def test_grid_search_over_arange():
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": np.arange(1, 4)}, error_score="raise")
    assert search.fit(X).best_params_["n_components"] in (1, 2, 3)
    search = GridSearchCV(
        BayesianGaussianMixture(random_state=0, max_iter=500),
        {"n_components": np.arange(1, 3, dtype=np.uint8), "reg_covar": np.logspace(-6, -3, 2, dtype=np.float32)},
        error_score="raise",
    )
    assert np.isfinite(search.fit(X).best_score_)


@pytest.mark.parametrize("cls", PARAMETERS)
@pytest.mark.parametrize(
    "options",
    [
        {"n_components": np.array(2)}, {"n_components": np.float64(2.0)}, {"n_components": np.array([2])},
        {"n_init": np.float32(1.0)}, {"reg_covar": np.array(1e-3)}, {"n_components": np.uint8(0)},
        {"reg_covar": np.float32(-1.0)}, {"reg_covar": np.float64("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_scikit_learn_refuses_are_refused_by_name(cls, options):
    """Includes arrays without dimensions."""
    (name,) = options
    with pytest.raises(ValueError, match=f"The '{name}' parameter of .* must be"):
        sklearn.mixture.GaussianMixture(**options).fit(X)
    with pytest.raises(ValueError, match=f"The '{name}' parameter of {cls.__name__} must be"):
        cls(**options).fit(X)


@pytest.mark.parametrize("cls", PARAMETERS)
def test_booleans_are_treated_as_by_scikit_learn(cls):
    sklearn.mixture.GaussianMixture(n_init=True, random_state=False).fit(X)
    model = cls(n_components=True, n_init=True, random_state=False).fit(X)
    assert_equal(model, cls(n_components=1, n_init=1, random_state=0).fit(X))
    with pytest.raises(ValueError, match="n_components"):
        cls(n_components=np.True_).fit(X)
    with pytest.raises(ValueError, match="n_components"):
        sklearn.mixture.GaussianMixture(np.True_).fit(X)


def test_numpy_booleans_are_booleans():
    options = {"warm_start": np.True_, "verbose": np.False_, "whiten_init": np.True_, "random_state": 0}
    plain = {"warm_start": True, "verbose": False, "whiten_init": True, "random_state": 0}
    assert_equal(GaussianMixture(2, **options).fit(X), GaussianMixture(2, **plain).fit(X))


def test_arrays_without_dimensions_work_where_validation_is_off():
    with config_context(skip_parameter_validation=True):
        model = GaussianMixture(np.array(2), tol=np.array(1e-3), max_iter=np.array(100), random_state=0).fit(X)
    assert_equal(model, GaussianMixture(2, random_state=0).fit(X))


def test_conjugate_prior():
    options = {"shrinkage": 2, "dof": 7, "scale": 3}
    plain = ConjugatePrior(**options)
    reference = GaussianMixture(2, covariance_type="diag", prior=plain, random_state=0).fit(X)
    for kind in (*INTEGERS, *FLOATS, np.array):
        prior = ConjugatePrior(**{name: kind(value) for name, value in options.items()})
        assert_equal(GaussianMixture(2, covariance_type="diag", prior=prior, random_state=0).fit(X), reference)


@pytest.mark.parametrize(
    "numbers", [np.int64(2), np.uint8(2), np.array(2), np.arange(1, 4), np.arange(1, 4, dtype=np.uint8)], ids=repr
)
def test_search(numbers):
    options = {"covariance_types": ["VVV", "EEE"], "random_state": np.uint8(3), "verbose": np.int8(0)}
    search = MixtureSearch(numbers, patience=np.uint8(1), n_processes=np.int64(1), **options).fit(X)
    plain = MixtureSearch(
        [int(n) for n in np.ravel(numbers)], covariance_types=["VVV", "EEE"], patience=1, random_state=3
    )
    np.testing.assert_array_equal(search.results_["bic"], plain.fit(X).results_["bic"])


def test_numbers_of_folds_shuffle_the_rows_of_either_kind():
    """scikit-learn's `check_cv` makes folds of consecutive rows of any integer: of sorted rows those differ."""
    options = {"covariance_types": ["VVV"], "criterion": "cv", "random_state": 0}
    ordered = X[X[:, 0].argsort()]
    one, other = (MixtureSearch(2, cv=cv, **options).fit(ordered).best_score_ for cv in (np.int64(3), 3))
    assert one == other


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
def test_bootstrap(kind):
    model = GaussianMixture(1, random_state=0).fit(X[:100])
    options = {"random_state": kind(1)}
    one = bootstrap_parameters(model, X[:100], n_replicates=kind(127), n_processes=kind(1), **options)
    other = bootstrap_parameters(model, X[:100], n_replicates=127, random_state=1)
    np.testing.assert_array_equal(one.means, other.means)
    np.testing.assert_array_equal(one.intervals(np.float32(0.5))["means"], other.intervals(0.5)["means"])
    options = {"max_components": kind(1), "n_replicates": kind(3), "level": np.float32(0.25), **options}
    test = bootstrap_likelihood_ratio(model, X[:100], **options)
    assert len(test.replicates[0]) + test.n_failed[0] == 3
    for wrong in (np.float64(9.0), np.array(9), kind(0)):
        with pytest.raises(ValueError, match="n_replicates must be an integer of at least 2"):
            bootstrap_parameters(model, X[:100], n_replicates=wrong)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32, np.array])
def test_streams_from_a_mixture(kind):
    known = GaussianMixture(2, random_state=0).fit(X)
    one, other = (StreamingGaussianMixture.from_mixture(known, n).partial_fit(X) for n in (kind(200), 200))
    assert_equal(one, other)
    assert one.n_samples_seen_ == 500


@pytest.mark.parametrize("wrong", [0, -1, np.inf, np.nan, "many", None, np.array([1, 2])], ids=repr)
def test_streams_from_mixtures_with_an_invalid_number_of_rows(wrong):
    known = GaussianMixture(2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="n_samples must be a number of rows above 0 and finite, got"):
        StreamingGaussianMixture.from_mixture(known, wrong)


def test_half_lives_are_finite():
    with pytest.raises(ValueError, match=r"The 'half_life' parameter .* float in the range \[1.0, inf\) or None"):
        StreamingGaussianMixture(2, half_life=np.inf).fit(X)


def test_functions_of_fitted_models():
    model = GaussianMixture(3, random_state=0).fit(X)
    np.testing.assert_array_equal(model.sample(np.uint8(9))[0].shape, (9, 3))
    combined = combine_components(model, X)
    np.testing.assert_array_equal(combined.predict(X, np.uint8(2)), combined.predict(X, 2))
    assert model.set_params(n_jobs=np.int8(-1)).predict(X).shape == (300,)
    assert resolve_n_jobs(np.int8(-1)) == resolve_n_jobs(-1)


def test_engine():
    parameters = GaussianMixture(2, random_state=0).fit(X)._parameters()
    statistics = engine.accumulate(parameters, X, n_jobs=np.uint8(1))
    for kind in (np.float32, np.float64, np.array):
        one, other = (engine.maximise(statistics, reg_covar=reg) for reg in (kind(0.5), 0.5))
        np.testing.assert_array_equal(one.covariances, other.covariances)


def test_rows_in_blocks():
    blocks = rows(X, columns=np.array([0, 2]), block_bytes=np.int32(2000))
    means = GaussianMixture(2, random_state=0).fit(blocks).means_
    np.testing.assert_allclose(means, GaussianMixture(2, random_state=0).fit(X[:, [0, 2]]).means_)


class Kind(str, enum.Enum):  # noqa: UP042, for a StrEnum's str() is its text
    """An enumeration of strings, as programs use for options."""

    FULL = "full"
    DIAG = "diag"
    START = "k-means++"
    FAST = "squarem"


TEXTS = [
    {"covariance_type": np.str_("diag"), "init_params": np.str_("k-means++")},
    {"covariance_type": Kind.DIAG, "init_params": Kind.START},
]


@pytest.mark.parametrize("text", ["full", np.str_("full"), Kind.FULL, np.array("full")], ids=repr)
def test_subclasses_of_str_are_accepted(text):
    assert type(plain(text)) is str
    assert plain(text) == "full"


@pytest.mark.parametrize("texts", TEXTS, ids=["numpy", "enum"])
@pytest.mark.parametrize("cls", PARAMETERS)
def test_texts_of_every_estimator(cls, texts, tmp_path):
    """Includes a fit with a checkpoint, and one with a warm start."""
    options = {"n_components": 2, "random_state": 0}
    if cls is not StreamingGaussianMixture:
        options["checkpoint"] = tmp_path / "state"
    if cls is GaussianMixture:
        texts = {**texts, "acceleration": type(texts["init_params"])("squarem")}
    if cls is BayesianGaussianMixture:
        texts = {**texts, "weight_concentration_prior_type": np.str_("dirichlet_distribution")}
    expected = fit_quietly(cls(**options, **{name: plain(text) for name, text in texts.items()}), X)
    model = fit_quietly(cls(**options, **texts), X)
    assert_equal(model, expected)
    assert model.get_params()["covariance_type"] is texts["covariance_type"]
    if cls is not StreamingGaussianMixture:
        assert type(decoded((tmp_path / "state").read_bytes(), "state").state.run.point.covariance_type) is str
        warm = model.set_params(warm_start=True, covariance_type=type(texts["covariance_type"])("full"))
        assert_equal(fit_quietly(warm, X), fit_quietly(expected.set_params(warm_start=True, covariance_type="full"), X))


@pytest.mark.parametrize("cls", [GaussianMixture, BayesianGaussianMixture])
def test_grid_search_over_an_array_of_texts(cls, tmp_path):
    grid = {"covariance_type": np.array(["full", "diag"])}
    model = cls(n_components=2, checkpoint=tmp_path / "state", random_state=0, max_iter=500)
    search = GridSearchCV(model, grid, error_score="raise").fit(X)
    assert search.best_params_["covariance_type"] in ("full", "diag")


def test_search_over_an_array_of_models():
    searches = [MixtureSearch(2, covariance_types=types, random_state=0).fit(X) for types in (np.array(["VVV"]), "VVV")]
    assert_equal(*(search.best_estimator_ for search in searches))
    assert type(searches[0].best_params_["covariance_type"]) is str
