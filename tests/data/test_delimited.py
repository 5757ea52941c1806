"""Tables of a stranger, .csv and .tsv: separators, headers, kinds of columns, what is refused."""

import csv
import gzip
import sys

import numpy as np
import pytest
from data_files import message, rows

from minivae import datasets
from minivae.data import packed
from minivae.data.readers import rows_in
from minivae.data.tables import MISSING_WORDS, Choice


def written(folder, text, name="a.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def read(folder, text, **choice):
    return rows_in(written(folder, text), Choice(**choice))[0]


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas", reason="pandas is not installed")


NUMBERS = [[1, 2], [3, -4.5], [5, 60]]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1,2\n3,-4.5\n5,6e1\n", None),
        ("first,second\n1,2\n3,-4.5\n5,6e1", ("first", "second")),
        ("first;second\r1;2\r3;-4.5\r5;6e1", ("first", "second")),
        ("first\tsecond\n1\t2\n3\t-4.5\n5\t6e1", ("first", "second")),
        ("a;b\n1;2\n3;-4,5\n5;60,0\n", ("a", "b")),
        ("1,0;2\n3,0;-4,5\n5,0;60,0\n", None),  # commas cut this into equal parts too
        ('a\tb\n1\t2\n3\t"-4,5"\n5\t60\n', ("a", "b")),
        ("true,x\n1,2\n3,-4.5\n5,6e1", ("true", "x")),
        (",second\n1,2\n3,-4.5\n5,6e1\n", ("second",)),  # the index that to_csv wrote
        ("Unnamed: 0,b,c\n7,1,2\n9,3,-4.5\n8,5,60\n", ("b", "c")),  # that, read and written again
        (",b\n1,2\n3.5,-4.5\n5,60\n", ("column 1", "b")),  # no index
        ('\ufeff"a, b",c\r\n1,2\r\n\r\n3,"-4.5"\r\n 5 , 6e1\r\n\r\n', ("a, b", "c")),
        ('"a\nb",c\n1,2\n3,-4.5\n5,6e1', ("a\nb", "c")),
        ("id,2020\n1,2\n3,-4.5\n5,60", ("id", "2020")),  # a word above nothing but numbers
        ('"2020","2021"\n1,2\n3,-4.5\n5,60', ("2020", "2021")),  # quotation marks there alone
    ],
)
def test_separators_and_headers(tmp_path, text, names):
    table = read(tmp_path, text)
    assert table.names == names and table.labels is None and table.values.dtype == np.float64
    expected = np.array(NUMBERS)[:, -len(names or "ab") :]
    if names == ("column 1", "b"):
        expected = [[1, 2], [3.5, -4.5], [5, 60]]
    np.testing.assert_array_equal(table.values, expected)
    assert ["left out" in note for note in table.notes] == [True] * (
        "Unnamed" in text or names == ("second",)
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV.gz", "a.tsv.gz"])
def test_names_of_files(tmp_path, name):
    content = b"a\tb\n1\t2\n3\t\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    np.testing.assert_array_equal(datasets.read(tmp_path / name), [[1, 2], [3, np.nan]])


def test_every_word_for_nan(tmp_path):
    text = "a,b\n" + "".join(f"{word},1\n" for word in MISSING_WORDS) + "2,1\n"
    column = read(tmp_path, text).values[:, 0]
    assert np.isnan(column[:-1]).all() and column[-1] == 2


def test_truth_values_are_0_and_1_among_numbers(tmp_path):
    table = read(tmp_path, "True,False\n1,0\nFALSE,\n")  # not a header: it would be lost
    np.testing.assert_array_equal(table.values, [[1, 0], [1, 0], [0, np.nan]])


def test_numbers_are_read_to_the_last_bit(tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 4)) * 10.0 ** np.arange(-8, 8, 4)
    table = read(tmp_path, "\n".join(",".join(map(repr, row)) for row in X.tolist()))
    np.testing.assert_array_equal(table.values, X)


def test_words_are_categories_and_every_column_has_its_type(tmp_path, pandas):
    table = read(tmp_path, "n,w,t,u\n1,b,True,TRUE\n2,a,,false\nNA,?,False,true\n4,b,True,true\n")
    frame = table.values
    assert [str(dtype) for dtype in frame.dtypes] == ["float64", "category", "boolean", "bool"]
    assert list(frame.w.cat.categories) == ["a", "b"] and frame.w.isna().tolist() == [
        False, False, True, False]  # fmt: skip
    assert frame.w.astype(object)[[0, 1, 3]].tolist() == ["b", "a", "b"]
    assert frame.t.isna().tolist() == [False, True, False, False]
    assert frame.u.tolist() == [True, False, True, True] and frame.n.isna().sum() == 1
    # A column of numbers and words keeps the numbers as they were written.
    mixed = read(tmp_path, "deck\n07\nA1\n7\n\n").values
    assert sorted(mixed.deck.cat.categories) == ["07", "7", "A1"]


def test_a_frame_of_pandas_comes_back(tmp_path, pandas):
    rng = np.random.default_rng(0)
    words = rng.choice(["x", "a, b", 'say "c"'], 20)
    frame = pandas.DataFrame({"a": rng.normal(size=20), "w": pandas.Categorical(words)})
    frame['quoted "name", with a comma'], frame["t"] = rng.normal(size=20), rng.random(20) < 0.5
    frame.iloc[3, 0] = np.nan
    for options in {}, {"sep": ";", "decimal": ","}, {"sep": "\t"}, {"quoting": csv.QUOTE_ALL}:
        for index in True, False:
            frame.to_csv(tmp_path / "a.csv", index=index, **options)
            pandas.testing.assert_frame_equal(datasets.read(tmp_path / "a.csv"), frame)


def test_a_first_line_with_numbers_is_said_to_be_data(tmp_path, pandas):
    table = read(tmp_path, "5.1,setosa\n4.9,virginica\n")
    assert table.names is None and table.values.shape == (2, 2)
    assert "taken for data" in table.notes[0]


LONG = "a,b\n" + "1,2\n" * 20


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LONG + "x,2\n", "line 22, column 1 ('a'): expected a number, got 'x' as in 20 other rows"),
        ("a,b\n1,1_000\n2,3\n", "line 2, column 2 ('b'): expected a number, got '1_000'"),
        ("1_0,2_0\n1,0\n0,1\n", "line 1, column 1: expected a number, got '1_0'"),
        ("0x1F,-1_0.5e3\n1,0\n0,1\n", "line 1, column 1: expected a number, got '0x1F'"),
        ('a,b\n"1,234",2\n5,6\n', "line 2, column 1 ('a'): expected a number, got '1,234'"),
        ("a;b\n1.234,5;2\n1;2\n", "line 2, column 1 ('a'): expected a number, got '1.234,5'"),
        ("a;b\n1.5;2\n1,5;3\n", "line 3, column 1 ('a'): expected a number, got '1,5'"),
        (
            "a,day\n1,2020-01-31\n2,\n",
            "column 2 ('day') holds dates or times, such as '2020-01-31'",
        ),
        ("31.1.2020 10:00,1\n1.2.2020 9:30,2\n", "column 1 holds dates or times"),
        ("day,b\n10:30,1\n11:15,2\n", "column 1 ('day') holds dates or times"),
        ("1,2\n3,4,5\n", "line 2 has 3 cells instead of 2"),
        ("a,b,c\n1,2\n", "line 2 has 2 cells instead of 3"),
        ("a,a\n1,2\n", "two columns have one name, 'a': rename one"),
        ("a,b\n1,2\n3,-inf\n", "1 values are infinite, the first in row 1, column 1 ('b')"),
        ("1,2\n3,1e400\n", "1 values are infinite, the first in row 1, column 1, counted from 0"),
        ("", "shape (0, 1)"),
        ("a,b\n", "shape (0, 2)"),
        ("1,2\n", "at least 2 rows"),
        ("1,\0\n", "line 1 has the character NUL"),
        ("1," + "2" * 200_000 + "\n", "line 1 has 32768 characters or more"),
        ('a,b\n1,"2\n3,4\n', "quotation mark"),
        ('a,b\n"1"2,3\n', "quotation marks that do not fit"),
    ],
)
def test_what_is_refused(tmp_path, text, fault):
    assert fault in message(written(tmp_path, text))


def test_text_that_is_not_utf8(tmp_path):
    for content in (
        b"1,2\n\xff\xfe,3\n",
        "1,2\n3,4\n".encode("utf-16"),
        "é,b\n1,2\n".encode("latin-1"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        assert "not UTF-8: save it as UTF-8" in message(tmp_path / "a.csv")


def test_label_and_drop(tmp_path):
    text = "id,day,class,x\n7,2020-01-01,b,1.5\n8,2020-01-02,a,2.5\n9,soon,b,3.5\n"
    table = read(tmp_path, text, label="class", drop=("day", "id"))
    assert table.names == ("x",) and table.values.tolist() == [[1.5], [2.5], [3.5]]
    assert table.labels.tolist() == ["b", "a", "b"]
    table = read(tmp_path, "1,2\n3,4\n", label="x2")  # without a header: x1, x2, ...
    assert table.labels.tolist() == [2, 4] and table.labels.dtype == np.int64
    data = datasets.load(written(tmp_path, text), label="class", drop=["day", "id"])
    assert data.names == ("x",) and sorted([*data.train_labels, *data.test_labels]) == list("abb")
    for choice, words in [
        ({"label": "clas"}, "label='clas': there is no such column; did you mean 'class'? the"),
        ({"drop": ["age"]}, "drop='age': there is no such column; the columns are id, day, class"),
        ({"drop": ["id", "day", "class", "x"]}, "leave no column"),
    ]:
        assert words in message(written(tmp_path, text), **choice)
    assert read(tmp_path, "a,b\n1,2\n", optional=("c",)).names == ("a", "b")


def test_label_and_drop_are_for_tables(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    assert "label and drop are for tables" in message(tmp_path / "a.npy", label="x1")
    with pytest.raises(ValueError, match="label and drop are for tables"):
        datasets.load("digits", drop=["x1"])
    with pytest.raises(TypeError, match="drop must be a list of names"):
        datasets.load("digits", drop="id")
    with pytest.raises(TypeError, match="label must be the name of a column"):
        datasets.load("digits", label=3)


def test_parts_with_names_are_frames_where_pandas_is(tmp_path, pandas, monkeypatch):
    path = written(tmp_path, "a,b\n" + "".join(f"{i},{2 * i}\n" for i in range(10)))
    data = datasets.load(path)
    assert data.names == ("a", "b") and list(data.train) == list(data.test) == ["a", "b"]
    assert len(data.train) == 9 and rows(data).tolist() == [[i, 2 * i] for i in range(10)]
    monkeypatch.setitem(sys.modules, "pandas", None)
    plain = datasets.load(path)
    assert plain.names == ("a", "b") and type(plain.train) is np.ndarray
    np.testing.assert_array_equal(plain.train, data.train)
    written(tmp_path, "a,b\n1,x\n2,y\n")
    with pytest.raises(ImportError, match=r"a\.csv: column 2 \('b'\) holds words.*pandas"):
        datasets.load(path)
    assert datasets.read(path, drop=["b"]).tolist() == [[1], [2]]


def test_a_small_gzip_cannot_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 2**20)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 2**22))
    assert "unpacks to" in message(tmp_path / "a.csv.gz")
