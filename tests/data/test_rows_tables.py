"""Rows of CSV files, Parquet files and data frames, and errors with their places."""

import bz2
import decimal
import gzip
import lzma
import zipfile

import numpy as np
import pytest

from fastgmm import GaussianMixture, rows

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

X = np.random.default_rng(0).normal(size=(400, 2))


def text_file(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table_file(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


def values(source, **options):
    return rows(source, **options).whole().X.tolist()


@pytest.mark.parametrize(
    ("content", "right"),
    [
        ("a,b\n1,2\n3,4", [[1, 2], [3, 4]]),
        ("\ufeffa,b\n1,2\n", [[1, 2]]),
        ("a,b\r\n1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("a,b\r1,2\r3,4\r", [[1, 2], [3, 4]]),
        ("\n\na,b\n\n1,2\n\n\n3,4\n\n", [[1, 2], [3, 4]]),
        ('"a","b"\n"1.5","2"\n', [[1.5, 2]]),
        ("a, b\n 1 , 2.5\n", [[1, 2.5]]),
        ("a,b\n+1,-2.5e3\n", [[1, -2500]]),
        ("a\n1\n\n2\n", [[1], [2]]),
        ("a,b\ntrue,1\nFALSE,2\n", [[1, 1], [0, 2]]),
        ("a,b\n1,2\n2.5,3\n", [[1, 2], [2.5, 3]]),
        ("a\n12345678901234567890123\n9007199254740993\n", [[12345678901234567890123.0], [9007199254740992.0]]),
        ("größe,日本\n1,2\n", [[1, 2]]),
    ],
)
def test_csv(content, right, tmp_path):
    assert values(text_file(tmp_path / "x.csv", content)) == right
    assert values(text_file(tmp_path / "x.csv.gz", gzip.compress(content.encode()))) == right


def test_tabs(tmp_path):
    assert values(text_file(tmp_path / "x.tsv", "a\tb\n1\t2\n")) == [[1, 2]]


@pytest.mark.parametrize("ending", ["gz", "gzip", "bz2", "xz", "zst", "lz4", "br", "zip"])
def test_compressed_csv(ending, tmp_path):
    content, path = b"a,b\n" + b"1,2\n" * 50_000, tmp_path / f"x.csv.{ending}"
    codecs = {"zst": "zstd", "lz4": "lz4", "br": "brotli"}
    if ending in codecs:
        if not pa.Codec.is_available(codecs[ending]):
            pytest.skip("pyarrow was built without it")
        with pa.CompressedOutputStream(str(path), codecs[ending]) as file:
            file.write(content)
    elif ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.csv", content)
    else:
        pack = {"gz": gzip.compress, "gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[ending]
        path.write_bytes(pack(content[:100_000]) + pack(content[100_000:]))  # two compressed streams in one file
    source = rows(path)
    for _ in range(2):
        assert source.whole().X.shape == (50_000, 2)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"x.csv.{ending} cannot be read"):
        rows(path).whole()


def test_an_archive_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.csv.zip", "w") as archive:
        archive.writestr("1.csv", "a\n1\n")
        archive.writestr("2.csv", "a\n2\n")
    with pytest.raises(ValueError, match=r"must hold one file, got \['1.csv', '2.csv'\]"):
        rows(tmp_path / "x.csv.zip")
    with pytest.raises(ValueError, match=r"got .*x.npy.gz: decompress it first"):
        rows(text_file(tmp_path / "x.npy.gz", b""))


def test_a_first_line_of_numbers_is_an_error_without_header(tmp_path):
    path = tmp_path / "x.csv"
    np.savetxt(path, X, delimiter=",")
    with pytest.raises(
        ValueError, match=r"names of the columns, but line 1 has 1.25.*: give header=False if the line is a row"
    ):
        rows(path)
    source = rows(path, header=False)
    assert source.feature_names is None
    np.testing.assert_array_equal(source.whole().X, X)
    model = GaussianMixture(2, random_state=0).fit(source)
    np.testing.assert_array_equal(model.predict(source), model.predict(X))
    for first in ("x,1.5", "0x10,0x11", "true,false", ",0,1", "nan,a", "2010,2011", "\ufeff1,2"):
        with pytest.raises(ValueError, match="give header=False if the line is a row, or header=True if"):
            rows(text_file(path, f"{first}\n1,2\n"))
    assert values(text_file(path, "name,2010\nx,5\n"), header=True, columns=["2010"]) == [[5]]
    assert values(text_file(path, "1,2,3\n4,5,6\n"), header=False, columns=[2, 0]) == [[3, 1], [6, 4]]
    for position in (2, np.int64(2)):
        weighted = rows(path, header=False, weight=position)
        assert (weighted.n_features, weighted.total_weight) == (2, 9)
    assert values(text_file(path, "1,2\n"), header=False) == [[1, 2]]
    (tmp_path / "more").mkdir()
    for i in range(2):
        text_file(tmp_path / "more" / f"{i}.csv", f"{i},2\n")
    assert values(tmp_path / "more", header=False) == [[0, 2], [1, 2]]


def test_header_is_refused_for_other_formats(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for source in (tmp_path / "x.npy", X, [X]):
        with pytest.raises(ValueError, match="header must be None"):
            rows(source, header=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.csv must have a line with the names of columns, but is empty"),
        ("\n\n", "x.csv must have a line with the names of columns, but is empty"),
        ("a,b\n", r"0 sample\(s\)"),
        ("a,b", r"0 sample\(s\)"),
        ("a,b\n1,2\n\n\n3,4\n5,NA\n", "NaN, in line 6 of .*x.csv, column 'b'"),
        ('a,b,s\n1,2,"x\ny"\n3,4,z\n5,NA,z\n', "NaN, in line 5 of .*x.csv, column 'b'"),
        ("a,b\r\n1,2\r\n\r\n,4\r\n", "NaN, in line 4 of .*x.csv, column 'a'"),
        ("a,b\n1,2\n1,1e400\n", "infinity or a value too large for float64, in line 3 of .*x.csv, column 'b'"),
        ("a,b\ntrue,2\n,2\n", "NaN, in line 3 of .*x.csv, column 'a'"),
        ("a,b\n0x10,1\n0x20,2\n", "x.csv cannot be read: line 2 holds '0x10' in column 'a'"),
        ("a,b\n1,2\n\n1,x\n", "column 'b' of .*x.csv must hold numbers, but line 4 holds 'x'"),
        ("a,b\n" + "1,2\n" * 400_000 + "\n1,x\n", "x.csv cannot be read: line 400003 holds 'x' in column 'b'"),
        ("a\n" + "1\n" * 600_000 + "true\n", "x.csv cannot be read: line 600002 holds 'true' in column 'a'"),
        ("a,b\n1,2\n3\n4,5\n", "x.csv cannot be read: line 3 has 1 fields instead of 2"),
        ("a,b\n" + "1,2\n" * 400_000 + "1,2,\n", "x.csv cannot be read: line 400002 has 3 fields"),
        ('a,b\n1,2\n"3,4\n5,6\n', "x.csv cannot be read: line 3 has 1 fields"),
        ('a,b\n"1,000",2\n', "column 'a' of .*x.csv must hold numbers, but line 2 holds '1,000'"),
        ("a,b\n2020-01-01,2\n", "column 'a' of .*x.csv must hold numbers, but line 2 holds '2020-01-01'"),
        ("a,b\n1+2j,2\n", "line 2 holds '1[+]2j'"),
        ("a;b\n1;2\n", "line 2 holds '1;2' .*must be separated by ',', got ';'"),
        ("a;b\n1,5;2,5\n", "line 2 has 3 fields instead of 1 .*got ';'"),
        ("a,b,a\n1,2,3\n", "names of columns must be unique, but .*x.csv has 'a' more than once"),
        ("größe,b\n1,2\n".encode("latin-1"), "must be UTF-8 text, but those in line 1 of .*x.csv are not"),
        ("a,b\n1,2\n".encode("utf-16"), "must be UTF-8 text, but those in line 1 of .*x.csv are not"),
        ("a,b\n1,2\n1,ß\n".encode("latin-1"), "column 'b' of .*x.csv must hold numbers, but line 3"),
    ],
)
def test_errors_for_csv_have_the_line(content, message, tmp_path):
    path, options = text_file(tmp_path / "x.csv", content), {}
    if isinstance(content, str) and content.startswith("a,b,s"):
        options = {"columns": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        rows(path, **options).whole()


def test_columns_of_text_that_are_not_read_may_hold_anything(tmp_path):
    path = text_file(
        tmp_path / "x.csv", "a,s\n1,ß\n".encode("latin-1") + b'2,"x\n\ny"\n3,' + b"z" * 200_000 + b"\n4,\n"
    )
    assert values(path, columns="a") == [[1], [2], [3], [4]]
    assert values(text_file(path, b"a,s\n1," + b"z" * 200_000 + b"\n2,\n"), columns="a") == [[1], [2]]
    assert values(text_file(path, "a,b,a\n1,2,3\n"), columns="b") == [[2]]


def test_lines_are_counted_in_each_file(tmp_path):
    for i, rest in enumerate(("3,4\n", "\n\n5,6\n", "5,\n")):
        text_file(tmp_path / f"{i}.csv", "a,b\n1,2\n" + rest)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"NaN, in line 3 of .*2.csv, column 'b'"):
            rows(tmp_path).whole()


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_changed_table_is_an_error(kind, tmp_path):
    path = tmp_path / f"x.{kind}"

    def write(n):
        if kind == "parquet":
            table_file(path, a=X[:n, 0], b=X[:n, 1])
        else:
            content = ("a,b\n" + "1,2\n" * n).encode()
            text_file(path, gzip.compress(content) if kind == "csv.gz" else content)

    write(400)
    source = rows(path)
    assert len(source.whole().X) == 400
    write(399)
    with pytest.raises(ValueError, match=rf"x.{kind} must not change while rows are read from it, but it has changed"):
        source.whole()
    path.unlink()
    with pytest.raises(ValueError, match=rf"x.{kind} must not change while rows are read from it, but it is gone"):
        source.whole()


def test_values_may_have_line_breaks_anywhere(tmp_path):
    text = "".join(f'{i},"{"x" * (i % 89)}\n{"y" * 50}"\n' for i in range(30_000))
    assert values(text_file(tmp_path / "x.csv", "a,s\n" + text), columns="a") == [[i] for i in range(30_000)]


def test_a_line_longer_than_a_block_of_pyarrow(tmp_path):
    n = 600
    line = ",".join(["1.25" + "0" * 2000] * n) + "\n"
    path = text_file(tmp_path / "x.csv", ",".join(f"c{i}" for i in range(n)) + "\n" + line * 3)
    assert len(line) > 1 << 20
    np.testing.assert_array_equal(rows(path).whole().X, np.full((3, n), 1.25))


@pytest.mark.parametrize(
    ("column", "right"),
    [
        (pa.array([True, False]), [1, 0]),
        (pa.array([decimal.Decimal("1.5"), decimal.Decimal("4.0")]), [1.5, 4]),
        (pa.array([decimal.Decimal("1.5"), decimal.Decimal("-2")], pa.decimal256(50, 3)), [1.5, -2]),
        (pa.array([np.float16(1.5), np.float16(2)], pa.float16()), [1.5, 2]),
        (pa.array([2**53 + 1, 2**63 - 1]), [2.0**53, 2.0**63]),
        (pa.array([2**64 - 1, 0], pa.uint64()), [2.0**64, 0]),
        (pa.array([3, 1]).dictionary_encode(), [3, 1]),
        (pa.array([1.5, 2.5]).dictionary_encode(), [1.5, 2.5]),
    ],
)
def test_every_type_of_number(column, right, tmp_path):
    source = rows(table_file(tmp_path / "x.parquet", a=column))
    assert source.dtype == np.float64
    assert source.whole().X.ravel().tolist() == right
    assert rows(pa.table({"a": column})).whole().X.ravel().tolist() == right
    if min(right) >= 0:
        weighted = rows(table_file(tmp_path / "w.parquet", x=[1.0, 2.0], a=column), weight="a")
        assert weighted.total_weight == sum(right)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, None]),
        pa.array([1, None]),
        pa.array([1.5, None]),
        pa.array([decimal.Decimal("1.5"), None]),
        pa.array([3, None]).dictionary_encode(),
        pa.array([[1.0], None], pa.list_(pa.float64(), 1)),
        pa.array([[1.0], [None]], pa.list_(pa.float64(), 1)),
        pa.array([[1.0], None]),
        pa.array([None, None]).slice(1),
    ],
    ids=lambda column: str(column.type),
)
def test_missing_values_are_found(column, tmp_path):
    path = table_file(tmp_path / "x.parquet", a=column)
    with pytest.raises(ValueError, match=rf"NaN, in row {len(column) - 1}, row group 0 of .*x.parquet, column 'a"):
        rows(path).whole()


@pytest.mark.parametrize("kind", ["fixed", "list", "large list", "tensor"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_vectors_are_features(kind, dtype, tmp_path):
    V = np.arange(3 * 50, dtype=dtype).reshape(50, 3)
    flat, offsets = pa.array(V.ravel()), np.arange(0, 151, 3)
    column = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 3),
        "list": lambda: pa.ListArray.from_arrays(offsets.astype(np.int32), flat),
        "large list": lambda: pa.LargeListArray.from_arrays(offsets, flat),
        "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(V),
    }[kind]()
    w = np.arange(1.0, 51.0)
    parquet.write_table(pa.table({"w": w, "v": column}), tmp_path / "x.parquet", row_group_size=7)
    for source in (tmp_path / "x.parquet", pa.table({"w": w, "v": column})):
        X = rows(source, weight="w", block_bytes=1)
        assert X.feature_names == ("v_0", "v_1", "v_2")
        assert X.dtype == (np.float32 if dtype == np.float32 else np.float64)
        np.testing.assert_array_equal(X.whole().X, V)
        np.testing.assert_array_equal(X.whole().sample_weight, w)
        both = rows(source, columns=["v", "w"], dtype=np.float64)
        np.testing.assert_array_equal(both.whole().X, np.column_stack([V, w]))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"v": [[1.0, 2.0], [3.0]]}, {}, "one length, but the first has 2 numbers and the one in row 1.* has 1"),
        ({"v": [["a"]]}, {}, "column 'v' of .* must hold numbers, got list"),
        ({"v": pa.array([], pa.list_(pa.float64()))}, {}, "must have a vector"),
        ({"v": pa.array([[]], pa.list_(pa.float64()))}, {}, "must have numbers, got vectors of length 0"),
        ({"v": [[1.0, 2.0]], "v_0": [5.0]}, {}, "must have different names"),
        ({"v": [[1.0, 2.0]], "a": [5.0]}, {"weight": "v"}, "weights .* must be numbers, but column 'v' holds vectors"),
        ({"a": [{"x": 1.0}]}, {}, "must hold numbers, got struct"),
        ({"a": np.array(["2020-01-01"], "datetime64[ns]")}, {}, "must hold numbers, got timestamp"),
        ({"a": pa.array(["x"]).dictionary_encode()}, {}, "must hold numbers, got dictionary"),
        ({"a": [1.0], "w": pa.array([None], pa.float64())}, {"weight": "w"}, "got nan in row 0"),
        ({"a": [1.0]}, {"columns": [1]}, "must be names, or positions from 0 to 0, got 1"),
        ({"a": [1.0]}, {"columns": [True]}, "must be names, or positions"),
        ({"a": [1.0]}, {"columns": "b"}, "has no column 'b', but 'a'"),
        ({"a": [1.0]}, {"columns": ["a", 0]}, "columns must be different columns"),
        ({"a": [1.0]}, {"columns": [0.0]}, "must be names, or positions"),
    ],
)
def test_columns_that_cannot_be_features_are_refused(columns, options, message, tmp_path):
    for source in (table_file(tmp_path / "x.parquet", **columns), pa.table(columns)):
        with pytest.raises(ValueError, match=message):
            rows(source, **options).whole()


def test_columns_by_position_and_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.column_stack([X, X[:, 0]]))
    table = {"a": X[:, 0], "b": X[:, 1], "c": X[:, 0]}
    sources = [tmp_path / "x.npy", np.load(tmp_path / "x.npy"), table_file(tmp_path / "x.parquet", **table)]
    for source in sources:
        for columns, right in ((1, X[:, 1:]), ([1, 0], X[:, ::-1]), (slice(0, 2), X), (np.int64(1), X[:, 1:])):
            np.testing.assert_array_equal(rows(source, columns=columns).whole().X, right)


def test_names_that_occur_twice(tmp_path):
    table = pa.Table.from_arrays([pa.array(X[:, 0]), pa.array(X[:, 1]), pa.array(X[:, 0])], ["a", "b", "a"])
    parquet.write_table(table, tmp_path / "x.parquet")
    for options in ({"columns": ["a"]}, {}, {"weight": "a"}, {"columns": [0]}):
        with pytest.raises(ValueError, match=r"must be unique, but .*x.parquet has 'a' more than once"):
            rows(tmp_path / "x.parquet", **options)
    np.testing.assert_array_equal(rows(tmp_path / "x.parquet", columns="b").whole().X, X[:, 1:])


def test_names_with_dots(tmp_path):
    path = table_file(tmp_path / "x.parquet", **{"a.b": [1.0], "a": [2.0]})
    assert values(path, columns=["a"]) == [[2]]
    assert values(path, columns=["a.b"]) == [[1]]


@pytest.mark.parametrize("name", ["x.parquet.gzip", "x.parquet.gz", "x.snappy.parquet", "x.parquet.snappy", "x.PQ"])
def test_parquet_with_the_ending_of_a_compression(name, tmp_path):
    parquet.write_table(pa.table({"a": X[:, 0], "b": X[:, 1]}), tmp_path / "y", compression="gzip")
    (tmp_path / "y").rename(tmp_path / name)
    for source in (tmp_path / name, tmp_path):
        np.testing.assert_array_equal(rows(source).whole().X, X)


def test_errors_name_a_damaged_file(tmp_path):
    for i in range(3):
        table_file(tmp_path / f"{i}.parquet", a=X[:, 0], b=X[:, 1])
    damaged = bytearray((tmp_path / "1.parquet").read_bytes())
    damaged[4:60] = bytes(x ^ 0xA5 for x in damaged[4:60])
    (tmp_path / "1.parquet").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"1.parquet cannot be read: "):
        GaussianMixture(2).fit(rows(tmp_path))


@pytest.mark.parametrize("kind", ["npy", "parquet", "csv", "csv.gz", "csv.xz", "csv.zip", "parquet.gz"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe nothing like that"])
def test_errors_name_a_file_of_another_format(kind, content, tmp_path):
    (tmp_path / f"0.{kind}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"0.{kind}"):
        rows(tmp_path).whole()


def test_an_archive_is_not_an_npy_file(tmp_path):
    with (tmp_path / "z.npy").open("wb") as file:
        np.savez(file, X=X)
    with pytest.raises(ValueError, match=r"z.npy "):
        rows(tmp_path / "z.npy")


def frames():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    columns = {"a": X[:, 0], "b": X[:, 1]}
    return [pd.DataFrame(columns), pl.DataFrame(columns), pa.table(columns), pa.record_batch(columns)]


@pytest.mark.parametrize("kind", range(4), ids=["pandas", "polars", "table", "batch"])
def test_data_frames(kind, tmp_path):
    frame, w = frames()[kind], np.arange(400.0)
    np.save(tmp_path / "w.npy", w)
    source = rows(frame, block_bytes=1)
    assert source.feature_names == ("a", "b")
    np.testing.assert_array_equal(source.whole().X, X)
    np.testing.assert_array_equal(rows(frame, columns="b").whole().X, X[:, 1:])
    for weight in (w, tmp_path / "w.npy"):
        assert rows(frame, weight=weight).total_weight == w.sum()
    model = GaussianMixture(2, random_state=0).fit(source)
    expected = GaussianMixture(2, random_state=0).fit(rows(X, block_bytes=1))
    np.testing.assert_array_equal(model.means_, expected.means_)
    np.testing.assert_array_equal(model.predict(source), model.predict(frames()[0]))


def test_types_of_columns_of_data_frames():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4]}, index=[7, 8])
    assert values(frame.astype({"b": "Int64"})) == [[1, 3], [2, 4]]
    assert values(frame.astype({"b": "category"})) == [[1, 3], [2, 4]]
    assert values(frame.assign(b=[decimal.Decimal("1.5"), decimal.Decimal("2")])) == [[1, 1.5], [2, 2]]
    assert rows(frame.astype("float32")).dtype == np.float32
    plain = rows(pd.DataFrame([[1.0, 2.0]]))
    assert (plain.feature_names, plain.whole().X.tolist()) == (None, [[1, 2]])
    assert values(pl.DataFrame({"a": [[1.0, 2.0]]}, schema={"a": pl.Array(pl.Float32, 2)})) == [[1, 2]]
    with pytest.raises(ValueError, match="NaN, in row 1 of the data frame, column 'b'"):
        values(frame.assign(b=pd.array([1, None], dtype="Int64")))
    for wrong, message in (
        (frame.assign(b=["x", "y"]), "column 'b' of the data frame must hold numbers"),
        (frame.assign(b=[1j, 2j]), "the data frame must hold numbers"),
        (frame.assign(b=pd.period_range("2020", periods=2)), "column 'b' of the data frame must hold numbers"),
        (frame[:0], r"0 sample\(s\)"),
        (frame[[]], "at least one column that is a feature"),
    ):
        with pytest.raises(ValueError, match=message):
            values(wrong)
    with pytest.raises(ValueError, match="must be strings"):
        rows(pd.DataFrame([[1.0, 2.0]]), columns=[1])
    with pytest.raises(TypeError, match="got LazyFrame"):
        rows(pl.DataFrame({"a": [1.0]}).lazy())
