"""Conversion of data frames, masked arrays and other types, as in scikit-learn."""

import numpy as np
import pytest

from fastgmm import (
    BayesianGaussianMixture,
    GaussianMixture,
    MixtureSearch,
    StreamingGaussianMixture,
    bootstrap_parameters,
    rows,
)
from helpers import fit_quietly

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

N = 600
SMALL = {"block_bytes": 16 * 256}  # 256 rows of two features
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 2)) * [1, 2] + [0, 100]
FRAME = pd.DataFrame(X, columns=["a", "b"])


def fitted_mean(source):
    return GaussianMixture(1).fit(source).means_[0]


def in_library(frame, library):
    """Return a frame of another library with the same columns."""
    return {
        "pandas": lambda: frame,
        "polars": lambda: pl.DataFrame({name: frame[name].to_numpy() for name in frame}),
        "table": lambda: pa.table({name: frame[name].to_numpy() for name in frame}),
        "batch": lambda: pa.record_batch({name: frame[name].to_numpy() for name in frame}),
    }[library]()


LIBRARIES = ["pandas", "polars", "table", "batch"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_blocks_that_are_frames_are_aligned_by_name(library):
    blocks = [in_library(part, library) for part in (FRAME[:200], FRAME[200:][["b", "a"]])]
    source = rows(blocks, **SMALL)
    np.testing.assert_array_equal(source.whole().X, X)
    model = GaussianMixture(2, random_state=0).fit(source)
    assert list(model.feature_names_in_) == ["a", "b"]
    np.testing.assert_array_equal(model.predict(source), GaussianMixture(2, random_state=0).fit(FRAME).predict(FRAME))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(rows([in_library(FRAME[["b", "a"]], library)]))


@pytest.mark.parametrize("library", LIBRARIES)
def test_frames_that_cannot_be_aligned_are_refused(library):
    first = in_library(FRAME[:200], library)
    for other, message in (
        (in_library(FRAME.rename(columns={"b": "c"}), library), r"\['a', 'b'\], got \['a', 'c'\]"),
        (in_library(FRAME[["a"]], library), r"\['a', 'b'\], got \['a'\]"),
        (in_library(FRAME.assign(c=1.0), library), r"\['a', 'b'\], got \['a', 'b', 'c'\]"),
        (X, r"\['a', 'b'\], got unnamed"),
    ):
        with pytest.raises(ValueError, match=f"block 1: the columns must be {message}"):
            fitted_mean(rows([first, other]))
    with pytest.raises(ValueError, match=r"block 1: the columns must be unnamed, got \['a', 'b'\]"):
        fitted_mean(rows([X, first]))


def test_frames_of_several_libraries_can_be_combined():
    source = rows([in_library(FRAME[i * 150 : (i + 1) * 150], name) for i, name in enumerate(LIBRARIES)], **SMALL)
    np.testing.assert_array_equal(source.whole().X, X)


def test_columns_with_numbers_for_labels_are_aligned_too():
    frame = pd.DataFrame(X)
    source = rows([frame[:200], frame[200:][[1, 0]]])
    np.testing.assert_array_equal(source.whole().X, X)
    assert source.feature_names is None
    awkward = FRAME.rename(columns={"a": "column_names", "b": "select"})
    assert rows([awkward[:200], awkward[200:][["select", "column_names"]]]).feature_names == ("column_names", "select")


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame.convert_dtypes(),
        lambda frame: frame.astype("Float64"),
        lambda frame: frame.astype("float64[pyarrow]"),
        lambda frame: frame.astype(object),
        lambda frame: frame.astype("category"),
        lambda frame: frame.assign(b=frame["b"].round().astype("Int64")),
        lambda frame: frame.assign(b=(frame["b"] > 100).astype("boolean")),
        lambda frame: frame.assign(b=frame["b"] > 100),
        lambda frame: pa.table({"a": frame["a"].to_numpy(), "b": pa.array(frame["b"]).cast(pa.decimal128(30, 10))}),
    ],
)
def test_dtypes_that_scikit_learn_accepts_in_memory_are_accepted_in_blocks(convert):
    converted = convert(FRAME)
    assert rows([converted]).feature_names == ("a", "b")
    np.testing.assert_allclose(fitted_mean(rows([converted])), fitted_mean(converted), rtol=1e-12)


def test_single_precision_of_frames_is_kept():
    assert GaussianMixture(1).fit(rows([FRAME.astype("float32")])).means_.dtype == np.float32
    assert rows([FRAME.astype("float32")]).dtype == np.float32
    assert rows([FRAME.astype({"a": "float32"})]).dtype == np.float64


@pytest.mark.parametrize(
    "hole",
    [
        lambda frame: frame.astype("Float64").mask(frame["a"] == frame["a"][300], pd.NA),
        lambda frame: frame.astype("float64[pyarrow]").mask(frame["a"] == frame["a"][300], pd.NA),
        lambda frame: frame.mask(frame["a"] == frame["a"][300]),
        lambda frame: frame.astype(object).mask(frame["a"] == frame["a"][300], None),
        lambda frame: pl.DataFrame({"a": [*frame["a"][:300], None, *frame["a"][301:]], "b": frame["b"].to_numpy()}),
        lambda frame: pa.table({"a": [*frame["a"][:300], None, *frame["a"][301:]], "b": frame["b"].to_numpy()}),
    ],
)
def test_errors_for_missing_values_of_frames_have_their_place(hole):
    source = rows([FRAME, hole(FRAME)], **SMALL)
    with pytest.raises(ValueError, match=r"contains NaN, in row 300 of block 1, column 'a'\. Missing and masked"):
        fitted_mean(source)


def test_errors_for_values_that_are_not_numbers_have_the_block():
    from scipy import sparse

    words = FRAME.astype(object)
    words.iloc[5, 0] = "x"
    some = FRAME.astype(object)
    some.iloc[5, 0] = pd.NA
    dates = pd.DataFrame({"a": pd.to_datetime(["2020-01-01"] * 3), "b": pd.to_datetime(["2021-01-01"] * 3)})
    for block, kind, message in (
        (words, ValueError, "block 1: could not convert string"),
        (some, TypeError, "block 1: .*NAType"),
        (dates, ValueError, "block 1: rows must be real numbers, got dtype datetime64"),
        (FRAME + 1j, ValueError, "block 1: Complex data not supported"),
        (sparse.csr_array(X), TypeError, "block 1: Sparse data was passed.*toarray"),
        (pa.table({"a": ["x"], "b": ["y"]}), ValueError, "block 1: could not convert string"),
    ):
        first = FRAME if hasattr(block, "columns") else X
        with pytest.raises(kind, match=f"(?s){message}"):
            fitted_mean(rows([first, block]))
    for block, kind, message in (
        (X + 1j, ValueError, "Complex data not supported"),
        (X.astype(str), ValueError, "must be real numbers, got dtype <U"),
        (X.astype("M8[s]"), ValueError, "must be real numbers, got dtype datetime64"),
        (X[None], ValueError, r"must have two dimensions, \(n, D\), got shape \(1, 600, 2\)"),
        (np.array(1.0), ValueError, "two dimensions"),
        (X[:, :0], ValueError, "0 feature"),
        ((X, np.ones(N), 3), ValueError, "a pair of rows .n, D. and weights"),
        ((X, np.ones(N - 1)), ValueError, "a block of 600 rows must have 600 weights, got 599"),
        ((X, np.ones((N, 1))), ValueError, r"weights must have one dimension, \(n,\), got shape \(600, 1\)"),
        ((X, np.ones(N) + 1j), ValueError, "Complex data not supported"),
        ((X, ["x"] * N), ValueError, "could not convert string"),
    ):
        with pytest.raises(kind, match=f"(?s)(block 0|first block).*{message}|{message}.*first block"):
            rows([block])


def test_weights_of_blocks_may_be_series():
    w = np.arange(N, dtype=float)
    expected = GaussianMixture(1).fit(X, sample_weight=w).means_[0]
    for weights in (pd.Series(w).convert_dtypes(), pl.Series(w), pa.array(w), pa.chunked_array([w]), list(w)):
        np.testing.assert_allclose(fitted_mean(rows([(FRAME, weights)], **SMALL)), expected, rtol=1e-12)
        np.testing.assert_allclose(fitted_mean(rows(X, weight=weights, **SMALL)), expected, rtol=1e-12)
    some = pd.Series(w).astype("Float64")
    some[300] = pd.NA
    for source in (rows([(X, some)]), rows(X, weight=some), rows(X, weight=np.ma.masked_equal(w, 300.0))):
        with pytest.raises(ValueError, match="not negative, got nan in row 300"):
            fitted_mean(source)


MASKED = np.ma.array(X, mask=np.arange(2 * N).reshape(N, 2) == 601)
UNMASKED = np.ma.array(X, mask=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_masked_rows_that_are_read_are_refused(dtype):
    for source in (rows(MASKED.astype(dtype), **SMALL), rows([UNMASKED, MASKED.astype(dtype)], dtype="float64")):
        with pytest.raises(ValueError, match=r"contains NaN, in row 300 of .*, column 1"):
            fitted_mean(source)
    for source in (rows(UNMASKED.astype(dtype)), rows([UNMASKED.astype(dtype)])):
        np.testing.assert_array_equal(source.whole().X, X.astype(dtype))


MODEL = GaussianMixture(1).fit(X)
STREAM = StreamingGaussianMixture(1, init_size=100).fit(X)
CALLS = {
    "fit": lambda X: GaussianMixture(1).fit(X),
    "fit_predict": lambda X: GaussianMixture(1).fit_predict(X),
    "bayesian": lambda X: fit_quietly(BayesianGaussianMixture(), X),
    "search": lambda X: MixtureSearch(1, covariance_types=["VVV"]).fit(X),
    "stream": lambda X: StreamingGaussianMixture(1).partial_fit(X),
    "whole stream": lambda X: StreamingGaussianMixture(1).fit(X),
    "bootstrap": lambda X: bootstrap_parameters(MODEL, X, n_replicates=2, random_state=0),
    **{
        f"{name} of {type(fitted).__name__}": getattr(fitted, name)
        for name in ("predict", "predict_proba", "score_samples", "score")
        for fitted in (MODEL, STREAM)
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_masked_rows_in_memory_are_refused(name):
    call = CALLS[name]
    call(UNMASKED)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        call(MASKED)


def test_masked_weights_and_starts_in_memory_are_refused():
    w = np.ma.array(np.ones(N), mask=np.arange(N) == 5)
    for fit in (GaussianMixture(1).fit, StreamingGaussianMixture(1).partial_fit, GaussianMixture(1).fit(X).score):
        with pytest.raises(ValueError, match="contains NaN"):
            fit(X, sample_weight=w)
    hole = np.ma.array([[0.0, 1.0]], mask=[[True, False]])
    for options in ({"means_init": hole}, {"resp_init": np.ma.array(np.zeros(N), mask=np.arange(N) == 5)}):
        with pytest.raises(ValueError, match="contains NaN"):
            GaussianMixture(1, **options).fit(X)


def test_blocks_of_any_memory_layout_are_the_same_rows():
    wide = np.zeros((N, 4))
    wide[:, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for block in (np.asfortranarray(X), X[::-1][::-1], wide[:, ::2], read_only, X.astype(">f8"), X.tolist(), FRAME):
        np.testing.assert_array_equal(rows([block], **SMALL).whole().X, X)
    large = np.array([[2**53 + 1, 1], [2**63 - 1, 2]])
    np.testing.assert_array_equal(rows([large]).whole().X, large.astype(float))
    np.testing.assert_array_equal(rows(large.astype(object)).whole().X, large.astype(float))
    with pytest.raises(ValueError, match="infinity or a value too large for float32, in row 0 of the array"):
        rows(np.full((3, 1), 1e300), dtype="float32").whole()
    with pytest.raises(ValueError, match="infinity or a value too large for float64, in row 0 of block 0"):
        rows([np.full((3, 1), np.longdouble("1e400"))]).whole()


def test_blocks_without_rows_have_no_effect():
    single = X.astype(np.float32)
    source = rows([X[:0], single[:300], X[:0], single[300:], X[:0]], **SMALL)
    assert source.dtype == np.float32
    np.testing.assert_array_equal(source.whole().X, single)
    empty = pd.DataFrame(columns=["b", "a"])
    np.testing.assert_array_equal(rows([FRAME[:300], empty, FRAME[300:]]).whole().X, X)
    with pytest.raises(ValueError, match="0 sample"):
        fitted_mean(rows([FRAME[:0], empty]))


def test_rows_that_change_between_passes_are_an_error():
    generator = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match=r"some rows from row 0 of block 0 on have changed since the first pass.*same seed"
    ):
        GaussianMixture(2).fit(rows(lambda: [generator.normal(size=(N, 2))]))
    changed = X.copy()
    source = rows(changed, weight=np.ones(N), **SMALL)
    GaussianMixture(1).fit(source)
    changed += 1
    with pytest.raises(ValueError, match="some rows from row 0 of the array on have changed since the first pass"):
        GaussianMixture(1).fit(source)
