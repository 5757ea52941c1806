"""Parquet files: columns of numbers, by pyarrow alone."""

import sys

import numpy as np
import pytest
from data_files import message, rows

from minivae.data import readers
from minivae.datasets import load


def parquet(path, columns, dtype=None, **options):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pandas.DataFrame(columns, dtype=dtype).to_parquet(path, **options)
    return path


def test_parquet_of_several_types(tmp_path):
    columns = {"a": np.arange(3, dtype=np.float32), "b": [1, 2, 3], "c": [True, False, True]}
    data = load(parquet(tmp_path / "a.parquet", columns))
    assert data.train.dtype == np.float32
    np.testing.assert_array_equal(rows(data), [[0, 1, 1], [1, 2, 0], [2, 3, 1]])
    columns = {"a": [1.5, 2.5, 3.5], "a.b": [1, 2, 3], "c": np.arange(3, dtype=np.float16)}
    data = load(parquet(tmp_path / "a.parquet", columns, row_group_size=2))
    assert rows(data).tolist() == [[1.5, 1, 0], [2.5, 2, 1], [3.5, 3, 2]]


@pytest.mark.parametrize("dtype", ["float64", "Float64"])
def test_parquet_of_float64(tmp_path, dtype):
    data = load(parquet(tmp_path / "a.parquet", {"a": [0.1, 0.2]}, dtype))
    assert data.train.dtype == np.float64 and rows(data).tolist() == [[0.1], [0.2]]


def test_parquet_with_gaps_or_text(tmp_path):
    path = tmp_path / "a.parquet"
    for dtype in "Int64", "boolean", "Float32":
        parquet(path, {"a": [1, None]}, dtype)
        assert "1 values are NaN" in message(path) and "row 1, column 0" in message(path)
    days = np.array([1, 2], "datetime64[ns]")
    columns = {"a": [1, 2], "town": ["Ulm", "Bonn"], "day": days, "while": days - days[0]}
    parquet(path, columns)
    assert "the columns town, day, while do not hold numbers" in message(path)


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
    assert "two columns have one name" in message(tmp_path / "a.parquet")


def test_a_small_parquet_cannot_take_all_memory(tmp_path, monkeypatch):
    path = parquet(tmp_path / "a.parquet", {"a": np.zeros(10**6), "b": np.zeros(10**6)})
    assert path.stat().st_size < 10_000  # and 16 MB, were it read
    monkeypatch.setattr(readers, "MAX_UNPACKED_BYTES", 10**6)
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    before = pyarrow.total_allocated_bytes()
    assert "unpacks to 16000000 bytes, more than 1000000" in message(path)
    assert pyarrow.total_allocated_bytes() == before


def test_a_damaged_parquet(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"a": [1.5, 2.5, 3.5], "b": [1, 2, 3]})
    whole = path.read_bytes()
    for length in (0, 3, 11, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "damaged or unsuitable" in message(path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"a\.parquet needs pyarrow: pip install pyarrow"):
        load(tmp_path / "a.parquet")
