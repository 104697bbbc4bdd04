"""The estimator: scikit-learn's interface, texts and habits, and what goes beyond them."""

import copy
import io
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import reference
from fastgmm import DegenerateComponentWarning, GaussianMixture
from fastgmm.covariance import MCLUST_MODELS
from helpers import COVARIANCE_TYPES, blobs, fit_quietly, random_parameters, random_rows

INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
FITTED = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


def message_of(call):
    """Return type and text of the error that a call raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return type(caught.value), str(caught.value)


def sorted_set(text):
    """scikit-learn prints allowed values as a set, in any order."""
    return re.sub(r"\{[^}]*\}", lambda match: str(sorted(match.group()[1:-1].split(", "))), text)


def test_signature_is_scikit_learns_with_more_at_the_end():
    ours, theirs = GaussianMixture().get_params(), sklearn.mixture.GaussianMixture().get_params()
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == {
        "n_jobs", "resp_init", "whiten_init", "acceleration", "limit_tol", "n_moves", "prior", "callback",
        "checkpoint",
    }  # fmt: skip
    assert GaussianMixture(3).n_components == 3
    with pytest.raises(TypeError):
        GaussianMixture(3, "full")


X_SMALL, _ = blobs(n_samples=30)
NAN, INF = X_SMALL.copy(), X_SMALL.copy()
NAN[3, 1], INF[3, 1] = np.nan, np.inf


@pytest.mark.parametrize("X", [NAN, INF, X_SMALL[0], X_SMALL[:1], X_SMALL[:0], X_SMALL * 1j, [["a", "b"]] * 3])
def test_bad_rows_get_scikit_learns_error(X):
    ours = message_of(lambda: GaussianMixture(2).fit(X))
    assert ours == message_of(lambda: sklearn.mixture.GaussianMixture(2).fit(X))


@pytest.mark.parametrize(
    "options",
    [
        {"n_components": 0}, {"n_components": 50}, {"n_init": 0}, {"max_iter": -1}, {"tol": -1.0}, {"reg_covar": -1.0},
        {"covariance_type": "oblong"}, {"init_params": "magic"}, {"random_state": "dice"}, {"warm_start": 2},
        {"verbose": -1}, {"verbose_interval": 0}, {"n_components": 2.5},
        {"n_components": 2, "weights_init": [1, 2, 3]}, {"n_components": 2, "weights_init": [0.4, 0.4]},
        {"n_components": 2, "weights_init": [-0.5, 1.5]}, {"n_components": 2, "means_init": np.zeros((3, 3))},
        {"n_components": 2, "precisions_init": np.eye(2)},
        {"n_components": 2, "precisions_init": -np.tile(np.eye(3), (2, 1, 1))},
        {"n_components": 2, "precisions_init": np.ones((2, 3)) * [[1], [-1]], "covariance_type": "diag"},
        {"n_components": 2, "precisions_init": np.triu(np.ones((3, 3))), "covariance_type": "tied"},
        {"n_components": 2, "means_init": [[np.nan, 0, 0], [0, 0, 0]]},
    ],
)  # fmt: skip
def test_bad_parameters_get_scikit_learns_error(options):
    ours, our_text = message_of(lambda: GaussianMixture(**options).fit(X_SMALL))
    theirs, their_text = message_of(lambda: sklearn.mixture.GaussianMixture(**options).fit(X_SMALL))
    for name in ("hc", "small_em", *MCLUST_MODELS, "E", "V"):  # ours alone
        our_text = our_text.replace(f"'{name}', ", "").replace(f", '{name}'", "")
    assert (ours, sorted_set(our_text)) == (theirs, sorted_set(their_text))


def test_prediction_errors_are_scikit_learns():
    unfitted, fitted = GaussianMixture(2), GaussianMixture(2).fit(X_SMALL)
    theirs_unfitted, theirs = sklearn.mixture.GaussianMixture(2), sklearn.mixture.GaussianMixture(2).fit(X_SMALL)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        for X in (X_SMALL[:, :2], NAN):
            ours = message_of(lambda method=method, X=X: getattr(fitted, method)(X))
            assert ours == message_of(lambda method=method, X=X: getattr(theirs, method)(X))
        ours = message_of(lambda method=method: getattr(unfitted, method)(X_SMALL))
        assert ours == message_of(lambda method=method: getattr(theirs_unfitted, method)(X_SMALL))
        assert ours[0] is NotFittedError
    with pytest.raises(ValueError, match=r"Invalid value for 'n_samples': 0 . The sampling requires at least one"):
        fitted.sample(0)


def test_sparse_rows_are_refused():
    from scipy.sparse import csr_array

    ours = message_of(lambda: GaussianMixture().fit(csr_array(X_SMALL)))
    assert ours == message_of(lambda: sklearn.mixture.GaussianMixture().fit(csr_array(X_SMALL)))
    assert ours[0] is TypeError


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_collapse_gets_scikit_learns_error_and_the_components(covariance_type):
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    for dtype, hint in ((np.float64, ""), (np.float32, " The numerical accuracy can also be improved by passing")):
        with pytest.raises(ValueError, match="Fitting the mixture model failed because some components have") as caught:
            GaussianMixture(2, reg_covar=0, covariance_type=covariance_type).fit(X.astype(dtype))
        text = str(caught.value)
        assert "or scale the input data." + hint in text
        assert ("all components share" if covariance_type == "tied" else "of component") in text


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_the_warning_names_a_component_that_only_reg_covar_keeps_from_collapsing(covariance_type):
    X, _ = blobs(n_components=2)
    X = np.vstack([X, np.full((30, 3), 50.0)])
    with pytest.warns(DegenerateComponentWarning, match=r"Component\(s\) \d collapsed") as caught:
        model = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X)
    named = int(re.search(r"\d", str(caught[0].message)).group())
    np.testing.assert_allclose(model.means_[named], 50)
    with warnings.catch_warnings():  # a constant feature is no component's fault
        warnings.simplefilter("error")
        constant = np.column_stack([X[:, :2], np.ones(len(X))])
        GaussianMixture(1, covariance_type=covariance_type).fit(constant)


def test_missing_convergence_is_a_warning():
    X, _ = blobs()
    with pytest.warns(ConvergenceWarning, match="Best performing initialization did not converge. Try different init"):
        model = GaussianMixture(3, max_iter=1).fit(X)
    assert not model.converged_
    assert model.n_iter_ == 1
    with pytest.warns(ConvergenceWarning, match="the mean log-likelihood fell, by .*: reg_covar=1 may be large"):
        GaussianMixture(1, max_iter=2, reg_covar=1.0, means_init=[[0, 0, 0]], weights_init=[1],
                        precisions_init=[np.linalg.inv(np.cov(X.T * 0.1))]).fit(X * 0.1)  # fmt: skip


def test_duplicates_get_the_warning_of_k_means():
    X = np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\) found smaller than n_clusters") as caught:
        GaussianMixture(3, reg_covar=1e-3).fit(X)
    assert [w.category for w in caught] == [DegenerateComponentWarning]
    assert str(caught[0].message).startswith("Number of distinct clusters (2) found smaller than n_clusters (3).")
    assert "are empty: no row belongs to them" in str(caught[0].message)
    assert caught[0].filename == __file__  # where the user's code is


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_attributes(covariance_type, dtype):
    X, _ = blobs()
    ours = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X.astype(dtype))
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(X.astype(dtype))
    for name in FITTED:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a.shape, a.dtype, type(a)) == (b.shape, b.dtype, type(b)), name
    for name in ("converged_", "n_iter_", "lower_bounds_", "n_features_in_"):
        assert type(getattr(ours, name)) is type(getattr(theirs, name)), name
    assert isinstance(ours.lower_bound_, float)
    assert len(ours.lower_bounds_) == ours.n_iter_
    assert ours.lower_bounds_[-1] == ours.lower_bound_
    assert ours.weights_.sum() == pytest.approx(1)
    for method in ("predict", "predict_proba", "score_samples"):
        a, b = getattr(ours, method)(X.astype(dtype)), getattr(theirs, method)(X.astype(dtype))
        assert (a.shape, a.dtype) == (b.shape, b.dtype), method
    (a, labels), (b, their_labels) = ours.sample(5), theirs.sample(5)
    assert (a.shape, a.dtype, labels.dtype) == (b.shape, b.dtype, their_labels.dtype)
    assert isinstance(ours.bic(X), float)


def test_samples_are_scikit_learns_for_the_same_parameters():
    X, _ = blobs()
    for covariance_type in COVARIANCE_TYPES:
        theirs = sklearn.mixture.GaussianMixture(3, covariance_type=covariance_type, random_state=3).fit(X)
        parameters = theirs.weights_, theirs.means_, theirs.covariances_
        ours = GaussianMixture.from_parameters(*parameters, covariance_type=covariance_type, random_state=3)
        for a, b in zip(ours.sample(50), theirs.sample(50), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("init_params", INIT_PARAMS)
def test_weight_3_is_three_copies_and_weight_0_is_absence(init_params, covariance_type):
    X, _ = blobs(n_samples=300)
    weights = np.random.default_rng(0).integers(0, 4, size=len(X))
    options = {"covariance_type": covariance_type, "init_params": init_params, "random_state": 0}
    weighted = fit_quietly(GaussianMixture(3, **options), X, sample_weight=weights)
    repeated = fit_quietly(GaussianMixture(3, **options), np.repeat(X, weights, axis=0))
    assert weighted.n_iter_ == repeated.n_iter_
    for name in FITTED:
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name), rtol=1e-6, atol=1e-9)
    copies = np.repeat(X, weights, axis=0)
    for method in ("score", "bic", "aic", "icl"):
        value = getattr(weighted, method)(X, sample_weight=weights)
        assert value == pytest.approx(getattr(weighted, method)(copies), rel=1e-9)


def test_weights_count_as_rows():
    X = np.array([[0.0], [1.0]])
    assert GaussianMixture(1).fit(X, sample_weight=[3, 1]).means_[0, 0] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="Expected n_samples >= n_components but got n_components = 2, n_samples = 1"):
        GaussianMixture(2).fit(X, sample_weight=[1, 0])
    with pytest.raises(ValueError, match="Sample weights must contain at least one non-zero number"):
        GaussianMixture(1).fit(X, sample_weight=[0, 0])
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        GaussianMixture(1).fit(X, sample_weight=[1, -1])
    with pytest.raises(ValueError, match=r"sample_weight.shape == \(3,\), expected \(2,\)"):
        GaussianMixture(1).fit(X, sample_weight=[1, 1, 1])


def test_information_criteria():
    parameters = random_parameters("full", 3, 2, spread=1.0)
    X = random_rows(parameters, 500)
    model = GaussianMixture.from_parameters(parameters.weights, parameters.means, parameters.covariances)
    resp, log_prob = reference.responsibilities(X, parameters.weights, parameters.means, parameters.covariances)
    n_parameters = 2 + 6 + 9
    assert model.bic(X) == pytest.approx(-2 * log_prob.sum() + n_parameters * np.log(500))
    assert model.aic(X) == pytest.approx(-2 * log_prob.sum() + 2 * n_parameters)
    assert model.icl(X) == pytest.approx(model.bic(X) - 2 * np.log(resp.max(axis=1)).sum())
    assert model.icl(X) > model.bic(X)
    assert model.bic(X.astype(np.float32)) == pytest.approx(model.bic(X), rel=1e-6)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_labels_and_responsibilities_to_start_from(covariance_type):
    X, labels = blobs(separation=8)
    options = {"covariance_type": covariance_type, "max_iter": 0}
    by_labels = GaussianMixture(3, resp_init=labels, **options).fit(X)
    by_resp = GaussianMixture(3, resp_init=np.eye(3)[labels], **options).fit(X)
    means = np.array([X[labels == k].mean(axis=0) for k in range(3)])
    for model in (by_labels, by_resp):
        np.testing.assert_allclose(model.means_, means, atol=1e-10)
        np.testing.assert_allclose(model.weights_, np.bincount(labels) / len(X))
    np.testing.assert_array_equal(GaussianMixture(3, resp_init=labels.tolist()).fit_predict(X), labels)
    partly = np.where(np.arange(len(X)) < 300, labels, -1)
    model = GaussianMixture(3, resp_init=partly, **options).fit(X)
    np.testing.assert_allclose(model.means_, [X[:300][labels[:300] == k].mean(axis=0) for k in range(3)], atol=1e-10)


@pytest.mark.parametrize(
    ("resp", "text"),
    [
        (np.zeros(29, int), r"should have the shape of \(30,\), but got \(29,\)"),
        (np.full(30, 2), "labels below n_components = 2, but got 2"),
        (np.full(30, 0.5), "integer labels"),
        (np.full(30, -1), "all labels are negative"),
        (np.full((30, 3), 1 / 3), r"should have the shape of \(30, 2\), but got \(30, 3\)"),
        (np.full((30, 2), 0.4), "should sum to 1, but row 0 sums to 0.8"),
        (np.tile([1.5, -0.5], (30, 1)), "should not be negative"),
        (np.full((30, 2), np.nan), "resp_init contains NaN"),
    ],
)
def test_bad_labels_and_responsibilities(resp, text):
    with pytest.raises(ValueError, match=text):
        GaussianMixture(2, resp_init=resp).fit(X_SMALL)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_max_iter_0_is_the_start(covariance_type):
    X, _ = blobs()
    parameters = random_parameters(covariance_type, 3, 3)
    form = parameters.model.form
    precisions = form.precisions(parameters.precisions_cholesky)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = GaussianMixture(3, covariance_type=covariance_type, max_iter=0, weights_init=parameters.weights,
                                means_init=parameters.means, precisions_init=precisions).fit(X)  # fmt: skip
    np.testing.assert_array_equal(model.weights_, parameters.weights)
    np.testing.assert_array_equal(model.means_, parameters.means)
    np.testing.assert_allclose(model.covariances_, parameters.covariances, rtol=1e-10, atol=1e-12)
    assert (model.n_iter_, model.lower_bound_, model.lower_bounds_, model.converged_) == (0, -np.inf, [], False)
    assert model.predict(X).shape == (len(X),)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_from_parameters(covariance_type):
    parameters = random_parameters(covariance_type, 3, 2)
    X = random_rows(parameters, 200)
    arguments = parameters.weights.tolist(), parameters.means.tolist(), parameters.covariances.tolist()
    model = GaussianMixture.from_parameters(*arguments, covariance_type=covariance_type, n_jobs=1)
    np.testing.assert_allclose(model.covariances_, parameters.covariances)
    full = parameters.model.form.full(parameters.covariances, 3, 2)
    _, log_prob = reference.responsibilities(X, parameters.weights, parameters.means, full)
    np.testing.assert_allclose(model.score_samples(X), log_prob, rtol=1e-10)
    assert (model.n_components, model.n_features_in_, model.n_jobs) == (3, 2, 1)
    single = GaussianMixture.from_parameters(
        parameters.weights, parameters.means.astype(np.float32), parameters.covariances, covariance_type=covariance_type
    )
    assert single.means_.dtype == np.float32
    warm = GaussianMixture.from_parameters(*arguments, covariance_type=covariance_type, warm_start=True, max_iter=1)
    fit_quietly(warm, X)
    assert warm.lower_bound_ == pytest.approx(log_prob.mean())


def test_from_parameters_checks_them():
    with pytest.raises(ValueError, match="the covariance of component 1 is not positive definite"):
        GaussianMixture.from_parameters([0.5, 0.5], [[0.0, 0.0]] * 2, [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]])
    with pytest.raises(ValueError, match="The parameter 'covariances' should be symmetric"):
        GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="the covariance of component 0 is not positive definite"):
        GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [0.0], covariance_type="spherical")
    with pytest.raises(ValueError, match="The parameter 'weights' should be normalized"):
        GaussianMixture.from_parameters([0.5], [[0.0]], [1.0], covariance_type="spherical")
    with pytest.raises(ValueError, match=r"'covariances' should have the shape of \(1, 2\), but got \(1,\)"):
        GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [1.0], covariance_type="diag")
    with pytest.raises(ValueError, match="The 'covariance_type' parameter of GaussianMixture must be"):
        GaussianMixture.from_parameters([1.0], [[0.0, 0.0]], [1.0], covariance_type="oblong")


def test_a_failed_fit_does_not_change_the_model():
    X, _ = blobs()
    model = GaussianMixture(3, random_state=0).fit(X)
    before, labels = copy.deepcopy(model.__dict__), model.predict(X)
    failures = [
        (ValueError, np.repeat([[0.0, 0.0], [1.0, 1.0]], 10, axis=0), {"reg_covar": 0}),
        (ValueError, X[:2], {}),
        (ValueError, pd.DataFrame(NAN, columns=["a", "b", "c"]), {}),
        (TypeError, "nonsense", {"n_components": None}),
    ]
    for error, rows, parameters in failures:
        model.set_params(**parameters)
        for method in (model.fit, model.fit_predict):
            with pytest.raises(error):
                method(rows)
        model.set_params(**{name: before[name] for name in parameters})
        assert set(model.__dict__) == set(before)
    np.testing.assert_array_equal(model.predict(X), labels)
    np.testing.assert_array_equal(model.means_, before["means_"])

    class Interrupting(GaussianMixture):
        def _set_fitted(self, *arguments):
            super()._set_fitted(*arguments)
            raise KeyboardInterrupt

    interrupted = Interrupting(2)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(X)
    assert not hasattr(interrupted, "means_")
    assert not hasattr(interrupted, "n_features_in_")


def test_parameters_are_not_changed_by_a_fit():
    X, _ = blobs()
    weights, means = [0.5, 0.5], X[:2].tolist()
    model = GaussianMixture(2, weights_init=weights, means_init=means)
    fit_quietly(model, X)
    assert model.weights_init is weights
    assert model.means_init is means
    assert clone(model).get_params()["weights_init"] == weights


def test_a_warm_start_continues():
    X, _ = blobs(separation=1.5)
    options = {"tol": 0, "random_state": 0, "acceleration": None}
    whole = fit_quietly(GaussianMixture(3, max_iter=6, **options), X)
    parts = GaussianMixture(3, max_iter=2, warm_start=True, **options)
    bounds = []
    for _ in range(3):
        bounds += fit_quietly(parts, X).lower_bounds_
    np.testing.assert_allclose(parts.means_, whole.means_, rtol=1e-10)
    np.testing.assert_allclose(bounds, whole.lower_bounds_, rtol=1e-12)
    with pytest.raises(ValueError, match="continues the last fit, which has 3 components and 3 features"):
        parts.fit(X[:, :2])
    with pytest.raises(ValueError, match=r"n_components=4 and 3 features\. Set warm_start=False to start anew"):
        parts.set_params(n_components=4).fit(X)


def test_best_of_several_starts():
    X, _ = blobs(n_components=6, separation=1.0)
    for seed in range(3):
        one = fit_quietly(GaussianMixture(6, init_params="random_from_data", random_state=seed), X)
        many = fit_quietly(GaussianMixture(6, init_params="random_from_data", random_state=seed, n_init=5), X)
        assert many.lower_bound_ >= one.lower_bound_


def test_data_frames():
    X, _ = blobs()
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = GaussianMixture(3, random_state=0).fit(frame)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    from_polars = GaussianMixture(3, random_state=0).fit(pl.DataFrame(X, schema=["a", "b", "c"]))
    from_array = GaussianMixture(3, random_state=0).fit(X)
    for other in (from_polars, from_array):
        np.testing.assert_array_equal(model.means_, other.means_)
    np.testing.assert_array_equal(model.predict(frame), from_array.predict(X))
    with pytest.raises(ValueError, match="The feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))
    mixed = frame.assign(a=frame["a"].astype(np.float32), b=frame["b"].round().astype(int))
    assert GaussianMixture(2).fit(mixed).means_.dtype == np.float64
    assert GaussianMixture(2).fit(frame.astype(np.float32)).means_.dtype == np.float32
    weighted = GaussianMixture(2, random_state=0).fit(frame, sample_weight=pd.Series(np.ones(len(frame))))
    np.testing.assert_allclose(weighted.means_, GaussianMixture(2, random_state=0).fit(frame).means_)


def test_other_dtypes_become_float64():
    X = np.random.default_rng(0).integers(0, 50, size=(60, 2))
    for rows in (X, X.astype(np.float16), X.tolist(), X.astype(np.uint8)):
        assert GaussianMixture(2, random_state=0).fit(rows).means_.dtype == np.float64
    model = GaussianMixture(2).fit(X.astype(np.float32))
    assert model.score_samples(X).dtype == np.float64
    assert model.predict(X.tolist()).dtype == np.int64


def test_pickle_and_copies():
    X, _ = blobs()
    model = GaussianMixture(3, random_state=0).fit(X)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    for loaded in (pickle.loads(pickle.dumps(model)), joblib.load(buffer), copy.deepcopy(model)):
        np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
        assert loaded.get_params() == model.get_params()
    plain = (np.ndarray, float, int, bool, str, list, dict, type(None))
    assert all(isinstance(value, plain) for value in vars(model).values())


def test_in_pipelines_and_searches():
    X, _ = blobs()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0)),
        {"gaussianmixture__n_components": [1, 3], "gaussianmixture__covariance_type": ["diag", "full"]},
        cv=3,
    )
    search.fit(X)
    assert search.best_params_["gaussianmixture__n_components"] == 3
    assert "GaussianMixture" in search.best_estimator_._repr_html_()


def test_weights_are_routed_when_asked_for():
    import sklearn

    X, _ = blobs(n_samples=60)
    weights = np.ones(60)
    weights[:30] = 0
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), GaussianMixture().set_fit_request(sample_weight=True))
        pipeline.set_params(standardscaler=StandardScaler().set_fit_request(sample_weight=False))
        pipeline.fit(X, sample_weight=weights)
    scaled = StandardScaler().fit_transform(X)
    np.testing.assert_allclose(pipeline[-1].means_, scaled[30:].mean(axis=0, keepdims=True), atol=1e-10)


def test_verbose_prints_what_scikit_learn_prints(capsys):
    X, _ = blobs(separation=1.0)
    parameters = {"n_components": 3, "max_iter": 20, "tol": 0, "verbose_interval": 5, "n_init": 2, "random_state": 0}
    for verbose in (1, 2):
        texts = []
        for cls in (GaussianMixture, sklearn.mixture.GaussianMixture):
            fit_quietly(cls(verbose=verbose, **parameters), X)
            texts.append(re.sub(r"-?\d+\.\d+|inf", "#", capsys.readouterr().out))
        assert texts[0] == texts[1]
        assert "Iteration 20" in texts[0]


def test_fit_predict_is_fit_then_predict():
    X, _ = blobs(separation=1.5)
    for dtype in (np.float64, np.float32):
        labels = GaussianMixture(3, random_state=0).fit_predict(X.astype(dtype))
        np.testing.assert_array_equal(
            labels, GaussianMixture(3, random_state=0).fit(X.astype(dtype)).predict(X.astype(dtype))
        )


def test_attributes_that_a_user_sets_are_used():
    X, _ = blobs()
    model = GaussianMixture(2, random_state=0).fit(X)
    before = model.score(X)
    model.means_ = model.means_ + 1
    assert model.score(X) < before
