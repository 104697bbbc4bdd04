"""Runs of EM in compiled code: against the steps from Python, and their parts against NumPy."""

import numba
import numpy as np
import pytest

from fastgmm import engine, kernels
from fastgmm.covariance import MCLUST_MODELS, get_model, linear_algebra
from fastgmm.data.sources import ArraySource
from fastgmm.engine import MixtureParameters, accumulate, accumulate_labels, maximise
from fastgmm.kernels.em_runs import algebra, compiled, problems, run, trend
from fastgmm.m_step.compiled_problem import CompiledProblem, unpacked
from helpers import JIT, blobs

pytestmark = pytest.mark.skipif(not JIT, reason="there is no compiled code")
ROUNDING = 64 * 2.0**-52


def start_of_model(name, X, n_components, seed=0):
    """Parameters of a model near the rows: one M-step from random labels about drawn rows."""
    rng = np.random.default_rng(seed)
    centres = X[rng.choice(len(X), n_components, replace=False)]
    labels = ((X[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    return maximise(accumulate_labels(labels, centres, X, covariance_type=name), name, reg_covar=1e-3)


def python_steps(parameters, X, n_steps, weights=None, reg_covar=1e-6):
    bounds = []
    for _ in range(n_steps):
        statistics = accumulate(parameters, X, weights)
        bounds.append(statistics.mean_log_likelihood)
        parameters = maximise(statistics, parameters.covariance_type, reg_covar=reg_covar, before=parameters)
    return parameters, bounds


def loaded(parameters, X, weights=None):
    problem = CompiledProblem(ArraySource(X, weights), parameters.model, parameters.n_components)
    problem.load(parameters)
    problem.problems.trend[0] = kernels.new_trend()
    return problem


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_features", [1, 2, 3, 8])
@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical", "EII", "EEI", "VEI", "EVI"])
def test_a_run_is_the_steps_from_python(name, n_features, weighted):
    rng = np.random.default_rng(n_features)
    X = blobs(n_components=3, n_features=n_features, n_samples=250, separation=1.5)[0] + 3
    weights = rng.uniform(0, 3, len(X)) * 1e-12 if weighted else None  # the kernels scale such weights
    start = start_of_model(name, X, 3)
    problem = loaded(start, X, weights)
    bounds, ended = problem.problems.run(kernels.RunOptions(0.0, np.inf, 1e-6, ROUNDING), 12)
    assert ended[0].tolist() == [12, run.LIMIT]
    expected, python_bounds = python_steps(start, X, 12, weights)
    np.testing.assert_allclose(bounds[0], python_bounds, rtol=1e-12)
    found = problem.parameters()
    for part in ("weights", "means", "covariances", "precisions_cholesky"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=1e-9, atol=1e-11, err_msg=part)
    before, _ = python_steps(start, X, 11, weights)
    np.testing.assert_allclose(problem.parameters(problem.problems.before).means, before.means, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in MCLUST_MODELS if get_model(name).form.name == "full"])
def test_a_run_of_each_model_with_matrices_is_the_steps_from_python(name):
    X = blobs(n_components=3, n_features=3, n_samples=300, separation=1.5)[0]
    start = start_of_model(name, X, 3)
    problem = loaded(start, X)
    bounds, ended = problem.problems.run(kernels.RunOptions(0.0, np.inf, 1e-6, ROUNDING), 6)
    assert ended[0].tolist() == [6, run.LIMIT]
    expected, python_bounds = python_steps(start, X, 6)
    np.testing.assert_allclose(bounds[0], python_bounds, rtol=1e-9)
    np.testing.assert_allclose(problem.parameters().covariances, expected.covariances, rtol=1e-6, atol=1e-8)


def test_a_run_converges_where_the_steps_do():
    X = blobs(n_components=3, n_features=2, n_samples=300, separation=1.0)[0]
    start = start_of_model("full", X, 3)
    problem = loaded(start, X)
    bounds, ended = problem.problems.run(kernels.RunOptions(1e-4, np.inf, 1e-6, ROUNDING), 500)
    n_steps, status = ended[0]
    assert status == run.CONVERGED
    changes = np.abs(np.diff(bounds[0, :n_steps]))
    assert changes[-1] < 1e-4
    assert (changes[:-1] >= 1e-4).all()
    problem = loaded(start, X)
    again, ended = problem.problems.run(kernels.RunOptions(0.0, np.inf, 1e-6, ROUNDING, stop_below=1e-2), 500)
    assert ended[0, 1] == run.LIMIT
    assert abs(again[0, ended[0, 0] - 1] - again[0, ended[0, 0] - 2]) < 1e-2


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical", "EII", "EEI"])
def test_a_start_from_labels_is_the_m_step_of_these_labels(name):
    X = blobs(n_components=3, n_features=3, n_samples=200)[0] + 100
    labels = np.random.default_rng(0).integers(0, 2, size=len(X)).astype(np.int32)  # component 2 has no rows
    reference = X[:3].copy()
    problem = CompiledProblem(ArraySource(X), get_model(name), 3)
    assert problem.problems.start_from_labels(labels, reference[None], 1e-3).all()
    expected = maximise(accumulate_labels(labels, reference, X, covariance_type=name), name, reg_covar=1e-3)
    found = problem.parameters()
    for part in ("weights", "means", "covariances", "precisions_cholesky"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=1e-10, atol=1e-15, err_msg=part)
    assert np.count_nonzero(problem.problems.weight_sums) == 2


@pytest.mark.parametrize("name", ["full", "diag"])
def test_a_run_hands_over_where_a_covariance_is_not_positive_definite(name):
    X = np.vstack([np.zeros((20, 2)), blobs(n_features=2, n_samples=80)[0] + 50])
    ones = np.ones(get_model(name).form.shape(2, 2))
    covariances = ones * np.eye(2) if name == "full" else ones
    start = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [50.0, 50.0]], covariances, name)
    problem = loaded(start, X)
    _, ended = problem.problems.run(kernels.RunOptions(0.0, np.inf, 0.0, ROUNDING), 50)
    n_steps, status = ended[0]
    assert status == run.HANDED_OVER
    parameters, _ = python_steps(start, X, n_steps, reg_covar=0.0)
    np.testing.assert_allclose(problem.parameters().means, parameters.means, atol=1e-10)
    with pytest.raises(engine.IllDefinedCovarianceError):
        python_steps(parameters, X, 1, reg_covar=0.0)


def test_a_run_hands_over_rows_that_are_not_numbers_and_components_that_are_far():
    X = blobs(n_features=2, n_samples=100)[0]
    start = start_of_model("tied", X, 2)
    X[5, 1] = np.nan
    _, ended = loaded(start, X).problems.run(kernels.RunOptions(0.0, np.inf, 1e-6, ROUNDING), 5)
    assert ended[0].tolist() == [0, run.HANDED_OVER]
    far = np.vstack([blobs(n_features=2, n_samples=100)[0], blobs(n_features=2, n_samples=100)[0] + 1e9])
    start = MixtureParameters.create([0.5, 0.5], [[0.0, 0.0], [1e9, 1e9]], np.eye(2), "tied")
    _, ended = loaded(start, far).problems.run(kernels.RunOptions(0.0, np.inf, 1e-6, ROUNDING), 5)
    assert ended[0].tolist() == [0, run.HANDED_OVER]


@pytest.mark.parametrize("name", ["full", "tied", "diag", "VEI"])
def test_many_problems_have_the_bits_of_each_alone_for_any_number_of_threads(name):
    X = blobs(n_components=3, n_features=2, n_samples=900)[0]
    weights = np.random.default_rng(0).uniform(size=900)
    parts = np.array([[0, 300], [250, 400], [400, 900], [100, 101 + 64]])
    starts = [start_of_model(name, X[begin:end], 2, seed=3) for begin, end in parts]
    options = kernels.RunOptions(1e-3, np.inf, 1e-6, ROUNDING)

    def run_all():
        totals = np.array([weights[begin:end].sum() for begin, end in parts])
        many = kernels.EMProblems(get_model(name).code, 2, X, weights, parts, totals)
        for p, start in enumerate(starts):
            own = loaded(start, X[:10])
            for array, values in zip(many.parameters, own.problems.parameters, strict=True):
                array[p] = values[0]
        many.trend[:] = kernels.new_trend()
        return many, *many.run(options, 40)

    many, bounds, ended = run_all()
    with kernels.thread_limit(1):
        again, same_bounds, same_ended = run_all()
    np.testing.assert_array_equal(ended, same_ended)
    for p, (begin, end) in enumerate(parts):
        alone = loaded(starts[p], X[begin:end], weights[begin:end])
        own_bounds, own_ended = alone.problems.run(options, 40)
        np.testing.assert_array_equal(own_ended[0], ended[p])
        n_steps = ended[p, 0]
        np.testing.assert_array_equal(own_bounds[0, :n_steps], bounds[p, :n_steps])
        np.testing.assert_array_equal(same_bounds[p, :n_steps], bounds[p, :n_steps])
        for array, other, values in zip(many.parameters, again.parameters, alone.problems.parameters, strict=True):
            np.testing.assert_array_equal(array[p], values[0])
            np.testing.assert_array_equal(array[p], other[p])
    assert unpacked(get_model(name), *(array[0] for array in many.parameters)).covariance_type == name


def test_problems_are_small_by_their_shape_alone():
    assert problems.is_small("full", 1000, 3, 2)
    assert not problems.is_small("full", 1_000_000, 3, 2)
    assert not problems.is_small("full", 1000, 64, 64)


def test_the_trend_is_the_same_in_compiled_code():
    record, mark = compiled.compiled_leaf(trend.record_bound), compiled.compiled_leaf(trend.mark_rounding)

    @numba.njit
    def record_all(values, bounds, steps):
        for i in range(len(bounds)):
            record(values, bounds[i], steps[i])
            mark(values, 1e-12, 0.0)

    rng = np.random.default_rng(0)
    for _ in range(20):
        bounds, steps = np.cumsum(rng.normal(size=12)), rng.uniform(size=12) < 0.8
        bounds[5] = bounds[4]
        in_python = kernels.new_trend(-1.0)
        values = np.array(in_python)
        for bound, step in zip(bounds.tolist(), steps.tolist(), strict=True):
            trend.record_bound(in_python, bound, step)
            trend.mark_rounding(in_python, 1e-12, 0.0)
        record_all(values, bounds, steps)
        np.testing.assert_array_equal(values, in_python)


@pytest.mark.parametrize("n_features", [1, 2, 5, 12])
def test_linear_algebra_is_numpys(n_features):
    rng = np.random.default_rng(n_features)
    roots = rng.normal(size=(4, n_features, n_features))
    matrices, axes = roots @ roots.swapaxes(1, 2), np.linalg.qr(roots[0])[0]
    variances, factors = rng.uniform(1, 2, size=(4, n_features)), rng.uniform(size=4)

    def call(name, *arguments):
        leaf = getattr(algebra, name)
        return numba.njit(lambda *a: leaf(*a))(*arguments)

    values, vectors = call("variances_and_axes", matrices)
    np.testing.assert_allclose(values, linear_algebra.variances_and_axes(matrices)[0], rtol=1e-10)
    np.testing.assert_allclose(
        vectors @ (values[:, :, None] * vectors.swapaxes(1, 2)), matrices, atol=1e-12 * n_features
    )
    np.testing.assert_allclose(vectors.swapaxes(1, 2) @ vectors, np.tile(np.eye(n_features), (4, 1, 1)), atol=1e-13)
    for name, arguments in {
        "log_determinants": (matrices,),
        "inverse": (matrices[1],),
        "in_axes": (matrices, axes),
        "from_axes": (axes[None], variances),
        "weighted_sum": (factors, matrices),
        "traces_of_products": (matrices, matrices[0]),
        "times_vector": (variances, variances[0]),
        "vector_times": (factors, variances),
        "scaled_rows": (variances, factors),
        "scaled_matrices": (matrices, factors),
        "repeated_rows": (variances[0], 3),
        "diagonals": (matrices,),
        "scaled_copies": (matrices[0], factors),
    }.items():
        expected = getattr(linear_algebra, name)(*arguments)
        np.testing.assert_allclose(call(name, *arguments), expected, rtol=1e-9, atol=1e-12, err_msg=name)
    assert np.isnan(call("inverse", -np.eye(n_features))).all()
    assert not np.isfinite(call("log_determinants", -matrices)).any()
    assert np.isnan(call("variances_and_axes", np.full((1, n_features, n_features), np.nan))[0]).all()


def test_repeated_eigenvalues_and_diagonal_matrices_have_axes():
    matrices = np.array([np.diag([3.0, 1.0, 2.0]), np.eye(3), np.zeros((3, 3))])
    leaf = algebra.variances_and_axes
    values, vectors = numba.njit(lambda a: leaf(a))(matrices)
    np.testing.assert_array_equal(values, [[1, 2, 3], [1, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(vectors.swapaxes(1, 2) @ vectors, np.tile(np.eye(3), (3, 1, 1)), atol=1e-15)
