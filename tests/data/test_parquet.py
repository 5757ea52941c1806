"""Parquet files: columns of numbers, truth values and words, by pyarrow."""

import datetime
import subprocess
import sys

import numpy as np
import pytest
from data_files import message, rows

from minivae.data import packed
from minivae.data.readers import rows_in
from minivae.data.tables import Choice
from minivae.datasets import load


def parquet(path, columns, dtype=None, **options):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pandas.DataFrame(columns, dtype=dtype).to_parquet(path, **options)
    return path


def read(path, **choice):
    return rows_in(path, Choice(**choice))[0]


def test_parquet_of_several_types(tmp_path):
    columns = {"a": [1.5, 2.5, 3.5], "a.b": [1, 2, 3], "c": np.arange(3, dtype=np.float16)}
    data = load(parquet(tmp_path / "a.parquet", columns, row_group_size=2))
    assert data.names == ("a", "a.b", "c") and set(map(str, data.train.dtypes)) == {"float64"}
    assert rows(data).tolist() == [[1.5, 1, 0], [2.5, 2, 1], [3.5, 3, 2]]


def test_float32_alone_stays_float32(tmp_path):
    columns = {"a": np.arange(3, dtype=np.float32), "c": [True, False, True]}
    table = read(parquet(tmp_path / "a.parquet", columns))
    assert table.values.dtype == np.float32 and table.values.tolist() == [[0, 1], [1, 0], [2, 1]]
    table = read(parquet(tmp_path / "a.parquet", columns | {"b": [1, 2**30 + 1, 3]}))
    assert table.values.dtype == np.float64 and table.values[1, 2] == 2**30 + 1


@pytest.mark.parametrize("dtype", ["float64", "Float64"])
def test_parquet_of_float64(tmp_path, dtype):
    table = read(parquet(tmp_path / "a.parquet", {"a": [0.1, 0.2]}, dtype))
    assert table.values.dtype == np.float64 and table.values.tolist() == [[0.1], [0.2]]


def test_gaps_are_nan(tmp_path):
    for dtype in "Int64", "boolean", "Float32", "float64":
        table = read(parquet(tmp_path / "a.parquet", {"a": [1, None]}, dtype))
        np.testing.assert_array_equal(table.values, [[1], [np.nan]])


def test_words_and_categories(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    columns = {"n": [1, 2, 3], "town": ["Ulm", None, "Bonn"], "t": [True, None, False],
               "size": pandas.Categorical(["s", "l", "s"]),
               "grade": pandas.Categorical([3, 1, 3])}  # fmt: skip
    for size in 3, 2:  # row groups, each with a dictionary of its own
        frame = read(parquet(tmp_path / "a.parquet", columns, row_group_size=size)).values
        assert list(map(str, frame.dtypes)) == [
            "float64",
            "category",
            "boolean",
            "category",
            "float64",
        ]
        assert frame.town.cat.categories.tolist() == ["Bonn", "Ulm"]
        assert frame.town.astype(object)[[0, 2]].tolist() == ["Ulm", "Bonn"]
        assert frame.town.isna().tolist() == frame.t.isna().tolist() == [False, True, False]
        assert frame["size"].tolist() == ["s", "l", "s"] and frame.grade.tolist() == [3, 1, 3]
    table = read(tmp_path / "a.parquet", label="town", drop=("size", "t"))
    assert table.labels.tolist() == ["Ulm", "", "Bonn"] and table.names == ("n", "grade")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (
            np.array([1, 2], "datetime64[ns]"),
            "column 2 ('x') holds dates or times, of type timestamp",
        ),
        (
            np.array([1, 2], "timedelta64[ns]"),
            "column 2 ('x') holds dates or times, of type duration",
        ),
        ([datetime.date(2020, 1, 1)] * 2, "column 2 ('x') holds dates or times, of type date32"),
        ([datetime.time(10)] * 2, "column 2 ('x') holds dates or times, of type time64"),
        ([[1, 2], [3]], "column 2 ('x') does not hold numbers or words, but list<"),
        ([{"a": 1}, {"a": 2}], "column 2 ('x') does not hold numbers or words, but struct<"),
        ([b"ab", b"c"], "column 2 ('x') does not hold numbers or words, but binary"),
        (["2020-01-31", "2020-02-01"], "column 2 ('x') holds dates or times, such as '2020-01-31'"),
        ([1.0, np.inf], "1 values are infinite, the first in row 1, column 1 ('x')"),
    ],
)
def test_what_is_refused_names_its_column_and_can_be_dropped(tmp_path, column, words):
    path = parquet(tmp_path / "a.parquet", {"a": [1.5, 2.5], "x": column})
    assert words in message(path)
    assert read(path, drop=("x",)).values.tolist() == [[1.5], [2.5]]


def test_the_index_of_a_frame_is_no_column(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    path = parquet(tmp_path / "a.parquet", {"a": [1.5, 2.5]})
    for index in pandas.Index(["x", "y"]), pandas.Index([7, 8], name="i"):
        pandas.read_parquet(path).set_index(index).to_parquet(tmp_path / "b.parquet")
        assert rows(load(tmp_path / "b.parquet")).tolist() == [[1.5], [2.5]]


def test_two_columns_of_one_name_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    table = pyarrow.table([pyarrow.array([1, 2]), pyarrow.array([3, 4])], names=["a", "a"])
    write_table(table, tmp_path / "a.parquet")
    assert "two columns have one name, 'a'" in message(tmp_path / "a.parquet")


def test_a_small_parquet_cannot_take_all_memory(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet", {"a": np.zeros(10**6), "b": np.zeros(10**6)})
    assert path.stat().st_size < 10_000  # and 16 MB, were it read
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 10**6)
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    before = pyarrow.total_allocated_bytes()
    assert "unpacks to 16000000 bytes, more than 1000000" in message(path)
    assert pyarrow.total_allocated_bytes() == before


def test_repeated_words_cannot_take_all_memory(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow.parquet import write_table

    words = pyarrow.array(["w" * 10**5, "v" * 10**5])
    codes = pyarrow.array([0, 1] * 2000, pyarrow.int32())
    table = pyarrow.table({"w": pyarrow.DictionaryArray.from_arrays(codes, words), "n": codes})
    write_table(table, tmp_path / "a.parquet", store_schema=False)  # it says: a column of strings
    code = """if True:
        import sys, pyarrow
        from minivae import datasets
        assert datasets.read(sys.argv[1]).w.cat.codes.tolist() == [1, 0] * 2000
        print(pyarrow.default_memory_pool().max_memory())
    """  # in a process of its own, where nothing else counts
    words = [sys.executable, "-c", code, tmp_path / "a.parquet"]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 10**7  # 400 MB, were each word by itself
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 10**4)
    monkeypatch.setattr(packed, "MAX_UNPACKED_RATIO", 0)
    assert "unpacks to" in message(tmp_path / "a.parquet")


def test_a_damaged_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"a": [1.5, 2.5, 3.5], "b": [1, 2, 3]})
    whole = path.read_bytes()
    for length in (0, 3, 11, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "damaged or unsuitable" in message(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"a\.parquet: .*needs pyarrow: pip install pyarrow"):
        load(tmp_path / "a.parquet")
