"""Units and distances at the limits of floating-point numbers: right results, or errors that say why."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from fastgmm import BayesianGaussianMixture, GaussianMixture, StreamingGaussianMixture, rows
from fastgmm.engine import MixtureParameters, accumulate, predict, predict_proba, score_samples


def two_clusters() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.vstack([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 8])


def correlated_with_far_clusters(fill: float, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return three clusters of correlated features; two of them have the value `fill` in one feature."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    X = rng.normal(size=(300, 2))
    X[:, 1] += 2 * X[:, 0]
    X[labels == 2, 1] += 12
    X[labels > 0, 0] = fill
    return X.astype(dtype), labels


FAR = [(np.float32, 1e4), (np.float32, 1e7), (np.float32, 1e8), (np.float32, 2147483647), (np.float32, 9.97e36),
       (np.float64, 1e15), (np.float64, 1e17)]  # fmt: skip


@pytest.mark.filterwarnings("ignore::fastgmm.DegenerateComponentWarning")  # constant features of full components
@pytest.mark.parametrize("covariance_type", ["tied", "full"])
@pytest.mark.parametrize(("dtype", "fill"), FAR)
def test_predictions_of_far_components_agree_with_the_fit(dtype, fill, covariance_type):
    X, labels = correlated_with_far_clusters(fill, dtype)
    gm = GaussianMixture(3, covariance_type=covariance_type, resp_init=labels).fit(X)
    np.testing.assert_array_equal(np.bincount(gm.predict(X)), [100, 100, 100])
    assert gm.score(X) == pytest.approx(gm.lower_bound_, abs=5e-5)  # one M-step apart
    # The density of clusters that do not overlap does not depend on their distance.
    assert gm.lower_bound_ == pytest.approx(-3.9762 if covariance_type == "tied" else 0.5168, abs=1e-3)
    n_parameters = gm._n_parameters()
    assert gm.bic(X) == pytest.approx(-2 * 300 * gm.lower_bound_ + n_parameters * np.log(300), abs=0.03)


def test_far_tied_components_from_blocks_and_a_stream():
    X, labels = correlated_with_far_clusters(1e8, np.float32)
    gm = GaussianMixture(3, covariance_type="tied", resp_init=labels).fit(rows(X))
    np.testing.assert_array_equal(np.bincount(gm.predict(rows(X))), [100, 100, 100])
    assert gm.score(rows(X)) == pytest.approx(gm.lower_bound_, abs=1e-6)
    stream = StreamingGaussianMixture.from_mixture(gm, 300).partial_fit(X)
    np.testing.assert_array_equal(np.bincount(stream.predict(X)), [100, 100, 100])


def test_one_row_far_from_all_others():
    Z = np.vstack([np.random.default_rng(0).normal(size=(80, 3)), [[1e10] * 3]]).astype(np.float32)
    gm = GaussianMixture(2, covariance_type="tied", random_state=0).fit(Z)
    assert sorted(np.bincount(gm.predict(Z))) == [1, 80]
    assert gm.score(Z) == pytest.approx(gm.lower_bound_, abs=1e-5)


def test_near_tied_components_keep_the_cheap_layout():
    means = np.array([[0.0, 0.0], [30.0, 5.0]])
    near = MixtureParameters.create([0.5, 0.5], means, [[1.0, 0.5], [0.5, 2.0]], "tied")
    far = MixtureParameters.create([0.5, 0.5], 1e3 * means, [[1.0, 0.5], [0.5, 2.0]], "tied")
    assert near.e_step(np.float32).layout == near.e_step(np.float64).layout == far.e_step(np.float64).layout == "tied"
    assert far.e_step(np.float32).layout == "full"


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical", "EEV", "VEI"])
@pytest.mark.parametrize("scale", [1e30, 1e20, 1e-18, 1e-24])
def test_float32_rows_in_any_unit(scale, covariance_type):
    X = two_clusters()
    options = {"covariance_type": covariance_type, "reg_covar": 0, "random_state": 0}
    reference = GaussianMixture(2, **options).fit(X)
    Y = (X * scale).astype(np.float32)
    for source in (Y, rows(Y)):
        gm = GaussianMixture(2, **options).fit(source)
        np.testing.assert_array_equal(np.bincount(gm.predict(Y)), [50, 50])
        np.testing.assert_allclose(gm.covariances_ / scale / scale, reference.covariances_, rtol=1e-4)
        np.testing.assert_allclose(gm.precisions_ * scale * scale, reference.precisions_, rtol=1e-3, atol=1e-4)
        assert np.isfinite(gm.score_samples(Y)).all()
        assert gm.lower_bound_ == pytest.approx(reference.lower_bound_ - 2 * np.log(scale), rel=1e-4)
    drawn = gm.sample(500)[0] / scale
    np.testing.assert_allclose(drawn.std(axis=0), X.std(axis=0), rtol=0.1)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("scale", [1e25, 1e-24])
def test_variational_float32_in_any_unit(scale, covariance_type):
    Y = (two_clusters() * scale).astype(np.float32)
    bgm = BayesianGaussianMixture(
        n_components=2, covariance_type=covariance_type, reg_covar=0, random_state=0, max_iter=500
    ).fit(Y)
    assert sorted(np.bincount(bgm.predict(Y))) == [50, 50]
    assert np.isfinite(bgm.covariances_).all()
    assert np.isfinite(bgm.precisions_).all()
    assert bgm.precisions_.any()


def test_attributes_are_float64_only_where_float32_cannot_hold_them():
    X = two_clusters()
    gm = GaussianMixture(2, reg_covar=0, random_state=0)
    assert gm.fit(X.astype(np.float32)).covariances_.dtype == np.float32
    large = gm.fit((X * 1e25).astype(np.float32))
    assert {large.means_.dtype, large.covariances_.dtype, large.weights_.dtype} == {np.dtype(np.float64)}
    stream = StreamingGaussianMixture(2, reg_covar=0, random_state=0).fit((X * 1e-24).astype(np.float32))
    assert stream.covariances_.dtype == np.float64
    assert np.isfinite(stream.covariances_).all()


def test_sums_in_slices_are_those_of_float64(monkeypatch):
    monkeypatch.setattr("fastgmm.e_step.float_range.BYTES_IN_DOUBLE", 1)  # 1024 rows at a time
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(3000, 2)) * 1e20).astype(np.float32)
    weight = rng.uniform(size=3000)
    parameters = MixtureParameters.create([0.4, 0.6], [[0.0, 0.0], [1e20, 0.0]], [1e40, 2e40], "spherical")
    single, norm, resp = (np.empty(shape, np.float32) for shape in (3000, 3000, (3000, 2)))
    sums = accumulate(parameters, X, weight, log_prob_norm=norm, resp=resp)
    exact = accumulate(parameters, X.astype(np.float64), weight)
    np.testing.assert_allclose(sums.scatter, exact.scatter, rtol=1e-12)
    np.testing.assert_allclose(sums.log_likelihood, exact.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(norm, score_samples(parameters, X.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(resp.sum(axis=1), weight, rtol=1e-5)
    np.testing.assert_array_equal(predict(parameters, X), predict(parameters, X.astype(np.float64)))
    np.testing.assert_allclose(predict_proba(parameters, X).sum(axis=1), 1, rtol=1e-6)
    assert score_samples(parameters, X).dtype == single.dtype


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("estimator", [GaussianMixture, BayesianGaussianMixture])
def test_no_warning_of_numpy_escapes(estimator, covariance_type):
    X = two_clusters()
    options = {"n_components": 2, "covariance_type": covariance_type, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        for scale in (1e100, 1e150):
            model = estimator(**options).fit(X * scale)
            assert sorted(np.bincount(model.predict(X * scale))) == [50, 50]
        for scale in (1e155, 1e200, 1e300):
            with pytest.raises(ValueError, match="squares of the rows overflow, so divide the rows"):
                estimator(**options).fit(X * scale)
        with pytest.raises(ValueError, match=r"Multiply the rows by a power of ten"):
            estimator(**options, reg_covar=0).fit(X * 1e-155)
