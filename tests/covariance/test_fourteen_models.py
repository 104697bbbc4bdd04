"""mclust's fourteen models: every M-step against a general optimiser, published values, likelihoods that never fall."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize
from sklearn.datasets import load_iris

from fastgmm import GaussianMixture
from fastgmm.covariance import IllDefinedCovarianceError, get_model, m_steps
from fastgmm.covariance.m_steps import volumes_and_shape
from fastgmm.data.sources import ArraySource
from fastgmm.engine import MixtureParameters, accumulate, accumulate_resp, maximise
from fastgmm.fitting.squarem import Squarem
from helpers import blobs, fit_quietly, run_em

MCLUST_MODELS = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")
ITERATIVE = ("VEI", "VEE", "EVE", "VVE", "VEV")
ALIASES = {"spherical": "VII", "diag": "VVI", "tied": "EEE", "full": "VVV"}


@pytest.fixture(params=MCLUST_MODELS)
def model(request):
    return get_model(request.param)


def some_scatter(n_components=3, n_features=3, seed=0):
    """Return different scatter matrices, and the weight sums of their components."""
    rng = np.random.default_rng(seed)
    weight_sums = rng.uniform(5, 40, n_components)
    roots = rng.normal(size=(n_components, n_features, n_features)) * rng.uniform(0.3, 3, (n_components, 1, n_features))
    return weight_sums[:, None, None] * (roots @ roots.swapaxes(1, 2)), weight_sums


def objective(covariances, scatter, weight_sums):
    """``sum_k n_k log det Sigma_k + tr(W_k Sigma_k^-1)``: -2 times the expected log-likelihood."""
    trace = np.trace(np.linalg.solve(covariances, scatter), axis1=1, axis2=2)
    return float((weight_sums * np.linalg.slogdet(covariances)[1] + trace).sum())


def of_model(model, scatter, weight_sums, **options):
    """Return the model's covariances as matrices."""
    covariances = model.covariances(model.form.scatter(scatter), weight_sums, **options)
    return np.array(model.form.full(covariances, *scatter.shape[:2]))


def from_numbers(name, numbers, n_components, n_features):
    """Return covariances of a model from free numbers: volumes, then shapes, then orientations."""
    numbers = iter(numbers)

    def take(n):
        return np.array([next(numbers) for _ in range(n)])

    def many(letter, make):
        if letter == "E":
            return [make()] * n_components
        return [make() for _ in range(n_components)]

    def shape():
        free = take(n_features - 1)
        return np.exp(np.append(free, -free.sum()))

    def axes():
        skew = np.zeros((n_features, n_features))
        skew[np.tril_indices(n_features, -1)] = take(n_features * (n_features - 1) // 2)
        return expm(skew - skew.T)

    volumes = many(name[0], lambda: np.exp(take(1)[0]))
    shapes = [np.ones(n_features)] * n_components if name[1] == "I" else many(name[1], shape)
    orientations = [np.eye(n_features)] * n_components if name[2] == "I" else many(name[2], axes)
    return np.array([v * (D * A) @ D.T for v, A, D in zip(volumes, shapes, orientations, strict=True)])


@pytest.mark.parametrize("seed", range(3))
def test_no_covariances_of_the_model_are_better(model, seed):
    """The naive twin: a quasi-Newton search over volumes, shapes and angles, from several starts."""
    scatter, weight_sums = some_scatter(seed=seed)
    found = objective(of_model(model, scatter, weight_sums), scatter, weight_sums)
    n_free = model.n_covariance_parameters(3, 3)
    rng, ends = np.random.default_rng(1), []

    def value(numbers):
        return objective(from_numbers(model.name, numbers, 3, 3), scatter, weight_sums)

    for _ in range(4):
        start = 0.5 * rng.normal(size=n_free)
        with np.errstate(all="ignore"):
            ends.append(minimize(value, start, method="BFGS", options={"gtol": 1e-8, "maxiter": 2000}).fun)
    assert found <= min(ends) + 1e-6
    # No covariances of the model are better than the best, so the results are equal.
    if model.name not in {"EVE", "VVE"}:  # these have several local minima
        assert found == pytest.approx(min(ends), abs=1e-4)


@pytest.mark.parametrize("name", ["EVE", "VVE"])
@pytest.mark.parametrize("seed", range(3))
def test_common_axes_end_where_no_turn_raises_the_likelihood(name, seed):
    """The slope of the objective is 0. mclust's VVE ends at slopes of 0.01 per row and more."""
    scatter, weight_sums = some_scatter(seed=seed)
    covariances = of_model(get_model(name), scatter, weight_sums)
    axes = np.linalg.eigh(np.tensordot([0.7, 1.0, 1.4], covariances, axes=1))[1]
    along, inverse = (axes.T @ matrices @ axes for matrices in (scatter, np.linalg.inv(covariances)))
    np.testing.assert_allclose(inverse, inverse * np.eye(3), atol=1e-9 * np.abs(inverse).max())
    precisions = np.einsum("kdd->kd", inverse)
    slopes = ((precisions[:, :, np.newaxis] - precisions[:, np.newaxis]) * along).sum(axis=0)
    assert np.abs(slopes).max() < 1e-6 * weight_sums.sum()


def test_number_of_free_numbers_is_the_number_of_parameters(model):
    """The numbers that volumes, shapes and angles need."""
    taken = []

    class Counting:
        def __iter__(self):
            return self

        def __next__(self):
            taken.append(0)
            return 0.0

    from_numbers(model.name, Counting(), 4, 5)
    assert model.n_covariance_parameters(4, 5) == len(taken)


def test_parameters_are_counted_as_mclust_does():
    """``nMclustParams(model, d=4, G=3)`` of mclust 6.0.0."""
    expected = dict(zip(MCLUST_MODELS, (15, 17, 18, 20, 24, 26, 24, 26, 30, 32, 36, 38, 42, 44), strict=True))
    assert {name: get_model(name).n_parameters(3, 4) for name in MCLUST_MODELS} == expected


def test_covariances_are_of_the_model(model):
    scatter, weight_sums = some_scatter(4, 5)
    covariances = of_model(model, scatter, weight_sums, reg_covar=0.01)
    values = np.linalg.eigvalsh(covariances)
    volumes = np.exp(np.log(values).mean(axis=1))
    shapes = values / volumes[:, None]
    volume, shape, orientation = model.name
    if volume == "E":
        np.testing.assert_allclose(volumes, volumes[0], rtol=1e-10)
    else:
        assert np.ptp(volumes) > 0.01
    if shape == "I":
        np.testing.assert_allclose(shapes, 1, rtol=1e-10)
    elif shape == "E":
        np.testing.assert_allclose(shapes, shapes[[0] * 4], rtol=1e-9)
    else:
        assert np.ptp(shapes, axis=0).min() > 0.001
    if orientation == "I":
        np.testing.assert_allclose(covariances, covariances * np.eye(5), atol=1e-12)
    elif orientation == "E":
        for other in covariances[1:]:
            np.testing.assert_allclose(covariances[0] @ other, other @ covariances[0], atol=1e-8 * other.max() ** 2)


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias):
    X, _ = blobs(0, n_samples=300, n_features=3)
    ours, theirs = (
        fit_quietly(GaussianMixture(3, covariance_type=name, random_state=0), X) for name in (ALIASES[alias], alias)
    )
    np.testing.assert_array_equal(ours.covariances_, theirs.covariances_)
    assert ours.bic(X) == theirs.bic(X)


def test_one_feature():
    X = np.random.default_rng(0).normal(size=(100, 1))
    for name, same in (("E", "EII"), ("V", "VII")):
        ours, theirs = (fit_quietly(GaussianMixture(2, covariance_type=n, random_state=0), X) for n in (name, same))
        np.testing.assert_array_equal(ours.covariances_, theirs.covariances_)
        with pytest.raises(ValueError, match=f"'{name}' is for 1 feature, but there are 2"):
            GaussianMixture(2, covariance_type=name).fit(np.hstack([X, X]))
    options = {"random_state": 0, "acceleration": None}
    scores = [fit_quietly(GaussianMixture(2, covariance_type=n, **options), X).score(X) for n in MCLUST_MODELS]
    equal = [score for name, score in zip(MCLUST_MODELS, scores, strict=True) if name[0] == "E"]
    np.testing.assert_allclose(equal, equal[0], atol=1e-6)
    with pytest.raises(ValueError, match="'E' is for 1 feature"):
        MixtureParameters.create([1.0], [[0.0, 1.0]], [1.0], "E")


def test_iris_with_its_species():
    """One M-step from the species: VEV is as published, the others are as in an independent implementation."""
    X, y = load_iris(return_X_y=True)
    expected = {"EII": -414.697951, "VII": -392.498414, "EEI": -364.517364, "VEI": -340.836053, "EVI": -342.973698,
                "VVI": -309.362758, "EEE": -256.646184, "VEE": -238.394672, "EEV": -215.143263, "VEV": -187.709744,
                "EVV": -209.454798, "VVV": -182.920849}  # fmt: skip
    for name, value in expected.items():
        model = GaussianMixture(3, covariance_type=name, resp_init=y, reg_covar=0, max_iter=0).fit(X)
        assert len(X) * model.score(X) == pytest.approx(value, abs=2e-6), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_likelihood_never_falls(model, dtype, weighted):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(600, 4)) * rng.uniform(0.5, 3, 4) + rng.integers(0, 3, size=(600, 1)) * 2).astype(dtype)
    source = ArraySource(X, rng.uniform(0, 2, len(X)) if weighted else None)
    reference = X[:4].astype(float)
    first = accumulate_resp(rng.dirichlet(np.ones(4) / 2, len(X)), reference, X, source.sample_weight,
                            covariance_type=model.name)  # fmt: skip
    start = maximise(first, model.name, reg_covar=0)
    slack = 1e-9 if dtype == np.float64 else 2e-5
    plain = run_em(source, start, tol=0, max_iter=60, reg_covar=0)
    assert np.diff(plain.lower_bounds).min() > -slack
    fast = run_em(source, start, tol=0, max_iter=60, reg_covar=0, accelerator=Squarem(len(X), 0))
    assert np.diff(fast.lower_bounds).min() > -slack
    assert fast.lower_bound > plain.lower_bound - 0.02


@pytest.mark.parametrize("name", ["EVE", "VVE", "VEV", "VEE", "EEV", "VEI"])
def test_an_accelerated_point_is_of_the_model(name):
    X, _ = blobs(3, n_samples=500, n_features=3)
    fitted = fit_quietly(GaussianMixture(3, covariance_type=name, random_state=0, tol=1e-6), X)
    full = np.array(get_model(name).form.full(fitted.covariances_, 3, 3))
    again = of_model(get_model(name), full * fitted.weights_[:, None, None], fitted.weights_)
    np.testing.assert_allclose(again, full, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ITERATIVE)
def test_a_step_is_no_lower_than_where_it_starts(name):
    """The start are covariances of the model for the scatter of other rows."""
    model = get_model(name)
    scatter, weight_sums = some_scatter(4, 5)
    for seed in range(5):
        other = of_model(model, *some_scatter(4, 5, seed=seed + 1))
        start = other if model.layout == "full" else np.einsum("kdd->kd", other)
        best = of_model(model, scatter, weight_sums, before=start)
        assert objective(best, scatter, weight_sums) <= objective(other, scatter, weight_sums) + 1e-9
        cold = objective(of_model(model, scatter, weight_sums), scatter, weight_sums)
        if name not in {"EVE", "VVE"}:
            assert objective(best, scatter, weight_sums) == pytest.approx(cold, abs=1e-7)


def test_weights_are_copies(model):
    X, labels = blobs(1, n_samples=200, n_features=3)
    copies = np.random.default_rng(0).integers(1, 4, len(X))
    weighted = accumulate_resp(np.eye(3)[labels % 3], X[:3], X, copies.astype(float), covariance_type=model.name)
    repeated = accumulate_resp(
        np.eye(3)[np.repeat(labels % 3, copies)], X[:3], np.repeat(X, copies, axis=0), covariance_type=model.name
    )
    a, b = (maximise(statistics, model.name) for statistics in (weighted, repeated))
    np.testing.assert_allclose(a.covariances, b.covariances, rtol=1e-6, atol=1e-9)


def test_statistics_add(model):
    """The statistics of two blocks add to those of all rows, on which streams rely."""
    X, _ = blobs(1, n_samples=400, n_features=3)
    start = fit_quietly(GaussianMixture(3, covariance_type=model.name, random_state=0, max_iter=2), X)._parameters()
    whole, parts = accumulate(start, X), accumulate(start, X[:150]) + accumulate(start, X[150:])
    a, b = (maximise(statistics, model.name, before=start) for statistics in (whole, parts))
    np.testing.assert_allclose(a.covariances, b.covariances, rtol=1e-6, atol=1e-9)


def test_rows_without_spread_are_refused_by_name(model):
    """Without `reg_covar`, covariances that do not exist raise an error, as in scikit-learn; they are never NaN."""
    X = np.zeros((20, 3))
    X[10:] = np.random.default_rng(0).normal(size=(10, 3))
    resp = np.repeat(np.eye(2), 10, axis=0)
    statistics = accumulate_resp(resp, np.zeros((2, 3)), X, covariance_type=model.name)
    if model.name[0] == "E" and model.name[1] in "IE":
        assert np.isfinite(
            maximise(statistics, model.name, reg_covar=0).covariances
        ).all()  # the other rows have scatter
    else:
        with pytest.raises(IllDefinedCovarianceError):
            maximise(statistics, model.name, reg_covar=0)
    assert np.isfinite(maximise(statistics, model.name, reg_covar=1e-6).covariances).all()


def test_a_feature_that_is_constant_needs_reg_covar(model):
    X = np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0]
    fitted = fit_quietly(GaussianMixture(2, covariance_type=model.name, random_state=0), X)
    assert np.isfinite(fitted.covariances_).all()


@pytest.mark.parametrize("name", ["VEI", "VEE", "VEV"])
@pytest.mark.parametrize("seed", range(5))
def test_where_a_step_starts_does_not_show_in_where_it_ends(name, seed):
    """Otherwise the rounding of a sum, which can add or save an iteration, would show a million times larger."""
    scatter, weight_sums = some_scatter(4, 5, seed)
    model = get_model(name)
    kept = model.form.scatter(scatter)
    ends = [model.maximise(kept, weight_sums, None)]
    for size in (1e-7, 1e-5, 1e-2):
        near = ends[0] * (1 + size * np.linspace(-1, 1, 5)) if name == "VEI" else ends[0] + size * np.eye(5)
        ends.append(model.maximise(kept, weight_sums, near))
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], rtol=0, atol=2e-11 * np.abs(ends[0]).max())


def test_a_step_that_rounding_keeps_moving_ends(monkeypatch):
    """With condition numbers of 1e13, the volumes never converge to the tolerance."""
    roots = np.random.default_rng(1).normal(size=(4, 6, 6)) * np.geomspace(1, 10**-6.5, 6)
    scatter, weight_sums, calls = 20 * roots @ roots.swapaxes(1, 2), np.array([10.0, 20, 30, 40]), []
    should_stop = m_steps.should_stop
    monkeypatch.setattr(m_steps, "should_stop", lambda *arguments: calls.append(0) or should_stop(*arguments))
    assert np.isfinite(get_model("VEE").maximise(scatter, weight_sums, None)).all()
    assert len(calls) < m_steps.MAX_ITERATIONS / 2


def test_volumes_and_shape_scale_a_matrix_to_sums():
    """As in Sinkhorn's scaling, rows divided by volumes sum to ``D n_k``, and columns divided by the shape to ``n``."""
    rng = np.random.default_rng(0)
    spread, weight_sums = rng.uniform(0.1, 5, (4, 6)), rng.uniform(1, 3, 4)
    volumes, shape = volumes_and_shape(spread, weight_sums, spread.sum(axis=0))
    scaled = spread / np.outer(volumes, shape)
    np.testing.assert_allclose(scaled.sum(axis=1), 6 * weight_sums)
    np.testing.assert_allclose(scaled.sum(axis=0), weight_sums.sum(), rtol=1e-5)
    assert np.prod(shape) == pytest.approx(1)


def test_common_axes_are_found_whatever_their_order():
    """Matrices with common axes are diagonal along them, in any order of their variances."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    variances = rng.uniform(0.2, 5, (3, 6))
    weight_sums = np.array([10.0, 20.0, 5.0])
    scatter = weight_sums[:, None, None] * ((axes * variances[:, None, :]) @ axes.T)
    np.testing.assert_allclose(of_model(get_model("VVE"), scatter, weight_sums), scatter / weight_sums[:, None, None],
                               atol=1e-7)  # fmt: skip


def test_the_same_answer_for_a_seed_and_moves_with_every_model(model):
    X, _ = blobs(2, n_samples=1500, n_features=3, n_components=4, separation=2.0)
    options = {"covariance_type": model.name, "random_state": 0, "n_moves": 1, "max_iter": 200}
    a, b = (fit_quietly(GaussianMixture(4, **options), X) for _ in range(2))
    np.testing.assert_array_equal(a.covariances_, b.covariances_)
    assert a.lower_bound_ == pytest.approx(a.score(X), abs=2e-3)
    rows, labels = a.sample(10)
    assert rows.shape == (10, 3)
    assert labels.shape == (10,)
    again = GaussianMixture.from_parameters(a.weights_, a.means_, a.covariances_, covariance_type=model.name)
    np.testing.assert_allclose(again.score_samples(X), a.score_samples(X), atol=1e-9)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_too_large_for_eigenvectors_are_the_usual_error(model):
    X = np.random.default_rng(0).normal(size=(50, 3)) * 1e160
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        GaussianMixture(2, covariance_type=model.name, reg_covar=0).fit(X)
