"""What the columns of a table are, and the way between a table and numbers."""

import json
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import sparse, stats

from minivae.data.columns import MAX_CATEGORIES, MIN_GAIN
from minivae.data.frames import MISSING_WORDS
from minivae.data.schema import Schema

N = 200
RNG = np.random.default_rng(0)
HEIGHT = RNG.normal(170, 8, N)  # real
INCOME = RNG.lognormal(3, 1, N)  # positive
VISITS = RNG.poisson(2, N)  # counts
CITY = RNG.choice(["Bern", "Oslo", "Rome"], N)
MEMBER = RNG.random(N) > 0.5


def objects(*columns):
    """A table of objects, column by column."""
    table = np.empty((len(columns[0]), len(columns)), dtype=object)
    for j, column in enumerate(columns):
        table[:, j] = column
    return table


def kind(column, given=None):
    """The kind that a column is taken for, beside one that is certainly real."""
    table = objects(column, RNG.normal(size=len(column)))
    return Schema.infer(table, given).columns[0].kind


def with_holes(table, seed=0):
    """A copy in which about a fifth of the cells are missing."""
    table = table.copy()
    table[np.random.default_rng(seed).random(table.shape) < 0.2] = None
    return table


PEOPLE = objects(CITY, HEIGHT, VISITS, MEMBER, INCOME, ["same"] * N, range(N))
NAMES = ["city", "height", "visits", "member", "income", "planet", "id"]


@pytest.fixture
def pd():
    return pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture
def pl():
    return pytest.importorskip("polars", reason="polars is not installed")


# --- which kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("column, expected", [
    ([5] * N, "constant"),
    ([None] * N, "constant"),
    (["a"] * (N - 1) + [None], "constant"),
    (MEMBER, "binary"),
    (np.where(MEMBER, 3, 7), "binary"),
    (np.where(MEMBER, "no", "yes"), "binary"),
    (np.where(MEMBER, 0.5, np.nan), "constant"),
    (range(N), "id"),
    (np.arange(N) + 1234.0, "id"),
    ([f"k{i}" for i in range(N)], "id"),
    (np.arange(N)[::-1], "real"),  # of a list that counts down, each row might mean something
    (2 * np.arange(N) - N, "real"),
    (CITY, "category"),
    ([*CITY[:-1], 3], "category"),
    (np.where(CITY == "Bern", "1", np.where(CITY == "Oslo", "2", "3")), "category"),
    (VISITS, "count"),
    (VISITS.astype(float), "count"),
    ([None, *VISITS[1:]], "count"),
    (VISITS - 1, "real"),
    (VISITS + 0.5, "real"),
    (RNG.integers(0, 17, N), "real"),  # a variance of 3.5 times the mean
    (RNG.integers(8, 11, N), "real"),  # of a tenth of the mean
    (RNG.poisson(40, N), "real"),
    (HEIGHT, "real"),
    (INCOME, "positive"),
    (-INCOME, "real"),
    (INCOME - INCOME.min(), "real"),  # has a 0
    (RNG.random(N), "real"),
])  # fmt: skip
def test_the_kind_that_is_inferred(column, expected):
    assert kind(column) == expected


@pytest.mark.parametrize("shape", [0.5, 1, 2, 3, 5, 20])
def test_a_positive_column_is_one_that_a_log_normal_density_makes_more_likely(shape):
    x = np.random.default_rng(1).gamma(shape, size=300)
    normal = stats.norm.logpdf(x, *stats.norm.fit(x)).mean()
    log_normal = stats.lognorm.logpdf(x, *stats.lognorm.fit(x, floc=0)).mean()
    # The fit by scipy's search ends within 1e-3 of the maximum.
    assert abs(log_normal - normal - MIN_GAIN) > 1e-3
    assert kind(x) == ("positive" if log_normal - normal > MIN_GAIN else "real")
    assert kind(1e50 * x) == kind(1e-50 * x) == kind(x)  # whatever the unit


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_a_nameless_column_without_two_equal_values_is_an_index(name):
    index = RNG.permutation(N)
    table = objects(index, HEIGHT)
    assert Schema.infer(table, names=[name, "height"]).left_out == {name: "id"}
    assert Schema.infer(table, names=["rank", "height"]).left_out == {}
    table[0, 0] = table[1, 0]
    assert Schema.infer(table, names=[name, "height"]).left_out == {}


@pytest.mark.parametrize("column, kind_", [
    (range(N), "real"), (VISITS, "real"), (HEIGHT, "positive"), (VISITS, "category"),
    (RNG.integers(0, 17, N), "count"), (HEIGHT, "ignore"), (MEMBER, "real"), (MEMBER, "category"),
    ([object()] * N, "ignore"),
])  # fmt: skip
def test_the_kind_that_is_given(column, kind_):
    assert kind(column, {0: kind_}) == kind_


def test_a_kind_is_given_by_name_or_by_number():
    one = Schema.infer(PEOPLE, {"visits": "real"}, NAMES)
    assert one == Schema.infer(PEOPLE, {2: "real"}, NAMES)
    assert one != Schema.infer(PEOPLE, None, NAMES)
    assert Schema.infer(PEOPLE, {"planet": "category"}, NAMES).left_out["planet"] == "constant"


@pytest.mark.parametrize("word", MISSING_WORDS)
def test_the_usual_words_for_what_is_missing(word):
    assert kind([word, *VISITS[1:]]) == "count"
    table = objects([word, *CITY[1:]], HEIGHT)
    schema = Schema.infer(table)
    assert schema.columns[0].values == ("Bern", "Oslo", "Rome")
    assert np.isnan(schema.encode(table)[0, 1:]).all()


# --- the matrix -----------------------------------------------------------------------------------


def test_the_matrix_has_reals_counts_binaries_and_categories_in_this_order():
    schema = Schema.infer(PEOPLE, names=NAMES)
    assert schema.groups == (("real", 0, 2), ("count", 2, 3), ("binary", 3, 4), ("category", 4, 7))
    assert (schema.width, schema.n_real) == (7, 2)
    assert schema.left_out == {"planet": "constant", "id": "id"}
    assert [*schema.places] == ["height", "income", "visits", "member", "city"]
    height, log = HEIGHT, np.log(INCOME)
    expected = np.column_stack([
        (height - height.mean()) / height.std(), (log - log.mean()) / log.std(), VISITS, MEMBER,
        *(CITY == city for city in ("Bern", "Oslo", "Rome")),
    ])  # fmt: skip
    # Of a few hundred roundings of numbers near 1.
    np.testing.assert_allclose(schema.encode(PEOPLE), expected, rtol=1e-12, atol=1e-13)


def test_mean_and_deviation_are_of_what_is_known():
    table = objects([1.5, None, 4.0, np.nan, 2.25], range(0, 10, 2))
    matrix = Schema.infer(table).encode(table)
    known = np.array([1.5, 4.0, 2.25])
    np.testing.assert_allclose(
        matrix[[0, 2, 4], 0], (known - known.mean()) / known.std(), rtol=1e-14
    )
    assert np.isnan(matrix[[1, 3], 0]).all()


def test_units_turn_nats_of_the_numbers_into_nats_of_the_table():
    """Against scipy's densities in the table's own units."""
    schema = Schema.infer(PEOPLE, names=NAMES)
    offset, slope, shift = schema.units
    u = schema.encode(PEOPLE)[:, :2]
    nll = -stats.norm.logpdf(u) + offset[:2] + slope[:2] * u
    log = np.log(INCOME)
    expected = np.column_stack([
        -stats.norm.logpdf(HEIGHT, HEIGHT.mean(), HEIGHT.std()),
        -stats.lognorm.logpdf(INCOME, log.std(), scale=np.exp(log.mean())),
    ])  # fmt: skip
    np.testing.assert_allclose(nll, expected, rtol=1e-12)
    assert offset[2:].tolist() == slope[2:].tolist() == [0] * 5
    np.testing.assert_allclose(shift, [0, 0, np.log(VISITS.mean()), 0, 0, 0, 0], rtol=1e-14)


def test_the_rate_of_a_rare_count_is_measured_from_a_tenth():
    rare = np.zeros(N)
    rare[:3] = 1, 1, 2
    assert Schema.infer(rare[:, None], {0: "count"}).units[2] == np.log(0.1)


# --- there and back -------------------------------------------------------------------------------


numbers = st.floats(-1e100, 1e100) | st.integers(-(10**6), 10**6).map(float)
above = st.floats(1e-100, 1e100)
words = st.text(max_size=3).filter(lambda word: word not in MISSING_WORDS)
values = {
    "real": numbers, "positive": above, "count": st.integers(0, 1000).map(float),
    "binary": st.sampled_from(["no", True]), "category": words | st.integers(-9, 9),
}  # fmt: skip


@st.composite
def tables(draw):
    """(schema, table of objects): columns of given kinds, with values that these can have."""
    n = draw(st.integers(2, 6))
    kinds = draw(st.lists(st.sampled_from([*values]), min_size=1, max_size=4))
    columns = [draw(st.lists(st.none() | values[kind], min_size=n, max_size=n)) for kind in kinds]
    assume(any(len(set(column) - {None}) > 1 for column in columns))
    table = objects(*columns)
    return Schema.infer(table, dict(enumerate(kinds))), table


@given(tables())
def test_decode_undoes_encode(case):
    schema, table = case
    back = schema.decode(schema.encode(table))
    assert back.dtype == object
    for j, column in enumerate(schema.columns):
        for x, y in zip(table[:, j], back[:, j], strict=True):
            if x is None:  # a constant is itself where it was missing, too
                assert y != y or y == column.values[0]
            elif column.kind in ("real", "positive"):
                # x - location is rounded as these two are, whatever is left of them.
                assert y == pytest.approx(x, rel=1e-12, abs=1e-15 * abs(column.location))
            else:
                assert y == x


@given(tables(), st.integers(0, 99))
def test_every_draw_is_a_table_that_could_have_been(case, seed):
    schema = case[0]
    matrix = 3 * np.random.default_rng(seed).standard_cauchy((20, schema.width))
    drawn = schema.decode(matrix, how="draw")
    np.testing.assert_array_equal(np.isnan(schema.encode(drawn)), False)


def test_means_stay_numbers_and_draws_are_values():
    table = objects(CITY, HEIGHT, VISITS, MEMBER, RNG.integers(-50, 50, N))
    schema = Schema.infer(table)
    place = schema.places
    matrix = np.zeros((2, schema.width))
    matrix[:, place[4]] = 0.1234
    matrix[:, place[2]] = [[2.3], [-0.4]]
    matrix[:, place[3]] = [[0.5], [0.49]]
    matrix[:, place[0]] = [[0.2, 0.5, 0.3], [0.4, 0.3, 0.3]]
    age = schema.columns[4].location + 0.1234 * schema.columns[4].scale
    mean, draw = schema.decode(matrix), schema.decode(matrix, "draw")
    assert mean[:, [0, 2, 3, 4]].tolist() == [["Oslo", 2.3, True, age], ["Bern", -0.4, False, age]]
    assert draw[:, [0, 2, 3, 4]].tolist() == [
        ["Oslo", 2, True, round(age)], ["Bern", 0, False, round(age)]
    ]  # fmt: skip
    np.testing.assert_array_equal(mean[:, 1], draw[:, 1])  # heights were never whole


def test_a_whole_positive_value_is_drawn_as_1_or_more_and_none_as_infinite():
    x = np.array([1.0, 2, 3, 5, 50, 400])[:, None]
    schema = Schema.infer(x, {0: "positive"})
    assert schema.decode([[-9.0], [1e9], [-1e9]], "draw").ravel().tolist()[::2] == [1, 1]
    assert np.isfinite(schema.decode([[1e9]])).all() and (schema.decode([[-1e9]]) > 0).all()


def test_nothing_may_be_known_of_any_column():
    schema = Schema.infer(PEOPLE, {6: "ignore"})
    for nothing in objects(*[[None, "?"]] * 7), np.full((2, 7), np.nan), [[None] * 7] * 2:
        matrix = schema.encode(nothing)
        assert np.isnan(matrix).all()
        assert schema.decode(matrix)[:, 5].tolist() == ["same", "same"]
        filled = schema.fill(PEOPLE[:2], matrix)
        assert (filled == PEOPLE[:2]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1", "?"])
def test_an_array_of_numbers_comes_back_as_one(dtype):
    X = RNG.integers(0, 2 if dtype == "?" else 100, (N, 3)).astype(dtype)
    schema = Schema.infer(X)
    back = schema.decode(schema.encode(X))
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, X)


def test_lists_and_sparse_matrices_are_as_arrays():
    X = np.round(RNG.normal(size=(N, 4)) * (RNG.random((N, 4)) < 0.5), 3)
    schema = Schema.infer(X)
    for same in X.tolist(), sparse.csr_array(X), sparse.coo_matrix(X), X.astype(object).tolist():
        assert Schema.infer(same).columns == schema.columns
        np.testing.assert_array_equal(schema.encode(same), schema.encode(X))
    mixed = [[1.5, "a"], [2.5, "b"], [9, "a"]]
    schema = Schema.infer(mixed)
    back = schema.decode(schema.encode(mixed))
    assert back[:, 1].tolist() == ["a", "b", "a"]
    np.testing.assert_allclose(back[:, 0].astype(float), [1.5, 2.5, 9], rtol=1e-12)


def test_without_frames_nothing_needs_their_libraries(monkeypatch, pd):
    frame = Schema.infer(pd.DataFrame({"a": HEIGHT}))
    schema = Schema.infer(PEOPLE)
    for name in "pandas", "polars":
        monkeypatch.setitem(sys.modules, name, None)
    assert schema.decode(schema.encode(PEOPLE)).shape == PEOPLE.shape
    with pytest.raises(ImportError, match="was a frame of pandas: pip install pandas"):
        frame.decode([[0.0]])


# --- frames ---------------------------------------------------------------------------------------


def people(pd):
    """A frame of pandas with a column of every dtype that is kept."""
    rank = RNG.integers(-50, 50, N)
    frame = pd.DataFrame({
        "height": HEIGHT, "float32": HEIGHT.astype("f4"), "rank": rank, "int8": rank.astype("i1"),
        "visits": VISITS, "member": MEMBER, "city": CITY, "income": INCOME,
        "Float64": pd.array(HEIGHT, "Float64"), "Int64": pd.array(rank, "Int64"),
        "UInt8": pd.array(VISITS, "UInt8"), "boolean": pd.array(MEMBER, "boolean"),
        "string": pd.array(CITY, "string"), "object": pd.Series(CITY, dtype=object),
        "mixed": pd.Series([1, 2.5, "x", None] * (N // 4), dtype=object),
        "bools": pd.Series([True, False, None, True] * (N // 4), dtype=object),
        "category": pd.Categorical(CITY), "whole": pd.Categorical(rank % 3),
        "ordered": pd.Categorical(CITY, ["Rome", "Bern", "Oslo", "Paris"], ordered=True),
        "arrow": pd.array(rank, "int16[pyarrow]"), "truth": pd.array(MEMBER, "bool[pyarrow]"),
        "double": pd.array(HEIGHT, "double[pyarrow]"), "constant": 7,
    })  # fmt: skip
    for j, name in enumerate(["Float64", "Int64", "UInt8", "boolean", "string", "ordered"]):
        frame.loc[j : j + 5, name] = None
    return frame


def test_a_frame_of_pandas_keeps_names_and_dtypes(pd):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    frame = people(pd)
    schema = Schema.infer(frame)
    assert schema.left_out == {"constant": "constant"}
    back = schema.decode(schema.encode(frame))
    pd.testing.assert_frame_equal(back, frame, rtol=1e-12)
    stored = Schema.of(json.loads(json.dumps(schema.facts())))
    pd.testing.assert_frame_equal(stored.decode(stored.encode(frame)), back)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "Int16", "bool", "int32[pyarrow]"])
def test_a_frame_of_one_dtype_keeps_it(pd, dtype):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    numbers = RNG.integers(-50, 50, (N, 3)) > 0 if dtype == "bool" else RNG.integers(-9, 9, (N, 3))
    frame = pd.DataFrame(numbers, columns=["a", "b", "c"]).astype(dtype)
    schema = Schema.infer(frame)
    pd.testing.assert_frame_equal(schema.decode(schema.encode(frame)), frame)


def test_numbers_that_an_integer_dtype_cannot_hold_are_floats(pd):
    frame = pd.DataFrame({
        "a": RNG.integers(0, 255, N).astype("u1"), "b": pd.array([1, 5] * (N // 2), "Int64"),
        "c": MEMBER,
    })  # fmt: skip
    schema = Schema.infer(frame, {"b": "real"})
    matrix = schema.encode(frame)[:2]
    assert schema.decode(matrix).dtypes.astype(str).tolist() == ["uint8", "Int64", "bool"]
    matrix[0, :2] = 50, 0.123  # beyond 255; not whole
    assert schema.decode(matrix, "draw").dtypes.astype(str).tolist() == ["float64", "Int64", "bool"]
    matrix[:] = np.nan
    back = schema.decode(matrix)
    assert back.dtypes.astype(str).tolist() == ["float64", "Int64", "boolean"]
    assert back.isna().all(axis=None)
    matrix[0] = 0.123, 0.123, 1
    assert schema.decode(matrix).dtypes.astype(str).tolist() == ["float64", "Float64", "boolean"]


def test_a_frame_without_names(pd):
    frame = pd.DataFrame(np.column_stack([HEIGHT, INCOME]))
    schema = Schema.infer(frame)
    assert schema.names == [0, 1]
    np.testing.assert_array_equal(schema.encode(frame.to_numpy()), schema.encode(frame))
    assert schema.decode(schema.encode(frame)).columns.tolist() == [0, 1]


def test_a_sparse_column_of_pandas_is_as_another(pd):
    x = HEIGHT * (RNG.random(N) < 0.3)
    frame = pd.DataFrame({"x": pd.arrays.SparseArray(x), "y": HEIGHT})
    schema = Schema.infer(frame)
    np.testing.assert_allclose(schema.decode(schema.encode(frame))["x"], x, atol=1e-12)


def test_a_frame_of_polars_keeps_names_and_dtypes(pl):
    from polars.testing import assert_frame_equal

    rank = RNG.integers(-50, 50, N)
    frame = pl.DataFrame({
        "height": HEIGHT, "rank": rank, "visits": pl.Series(VISITS, dtype=pl.UInt8),
        "member": MEMBER, "city": pl.Series(CITY.tolist()), "float32": HEIGHT.astype("f4"),
        "holes": [None, *rank[1:].tolist()], "truth": [None, *MEMBER[1:].tolist()],
        "words": [None, *CITY[1:].tolist()],
        "enum": pl.Series(CITY.tolist(), dtype=pl.Enum(["Rome", "Bern", "Oslo", "Paris"])),
        "categorical": pl.Series(CITY.tolist(), dtype=pl.Categorical), "constant": 7,
    })  # fmt: skip
    schema = Schema.infer(frame)
    assert schema.form == "polars" and schema.left_out == {"constant": "constant"}
    assert schema.columns[9].values == ("Rome", "Bern", "Oslo", "Paris")
    back = schema.decode(schema.encode(frame))
    assert_frame_equal(back, frame)
    np.testing.assert_allclose(back["height"].to_numpy(), HEIGHT, rtol=1e-12)
    matrix = np.full((1, schema.width), 0.123)
    assert schema.decode(matrix).schema["rank"] == pl.Float64
    assert schema.decode(matrix, "draw").schema == frame.schema


# --- filling in -----------------------------------------------------------------------------------


def test_filling_in_leaves_alone_what_is_known():
    table = with_holes(PEOPLE)
    schema = Schema.infer(table, {6: "ignore"})
    matrix = schema.encode(table)
    full = schema.fill(table, np.where(np.isnan(matrix), 0.7, matrix))
    missing = np.equal(table, None)
    assert (full[~missing] == table[~missing]).all()
    for j, value in enumerate(["Bern", None, 1, True, None, "same"]):
        filled = full[missing[:, j], j]
        assert len(filled) and (value is None or set(filled) == {value})
        assert not any(x is None or x != x for x in filled)
    np.testing.assert_array_equal(full[:, 6], table[:, 6])  # of this, nothing is known
    numbers = np.where(RNG.random((N, 2)) < 0.2, np.nan, np.column_stack([HEIGHT, INCOME]))
    schema = Schema.infer(numbers)
    known = np.isfinite(numbers)
    full = schema.fill(numbers, np.zeros((N, 2)))
    np.testing.assert_array_equal(full[known], numbers[known])
    assert np.isfinite(full).all() and np.isnan(numbers).any()  # X itself is as it was


def test_filling_in_keeps_a_frames_index_and_dtypes(pd):
    frame = people(pd).set_index(np.arange(N) + 1000)
    frame["date"] = pd.Timestamp("2026-01-01")
    schema = Schema.infer(frame, {"date": "ignore"})
    holes = frame.copy()
    holes.loc[1003:1009, ["height", "city", "category", "object"]] = None
    holes["constant"] = np.nan
    matrix = schema.encode(holes)
    full = schema.fill(holes, np.where(np.isnan(matrix), 0.7, matrix))
    pd.testing.assert_series_equal(full.dtypes, holes.dtypes)
    pd.testing.assert_index_equal(full.index, frame.index)
    assert full.notna().all(axis=None) and (full["constant"] == 7).all()
    # What was known may have been written anew, but not changed.
    known = holes.notna()
    pd.testing.assert_frame_equal(
        full.where(known).astype(object), holes.where(known).astype(object)
    )


def test_filling_in_gives_a_category_that_the_frame_did_not_list(pd):
    schema = Schema.infer(pd.DataFrame({"city": pd.Categorical(CITY), "height": HEIGHT}))
    frame = pd.DataFrame({"city": pd.Categorical(["Bern", None]), "height": [170.5, 160.5]})
    full = schema.fill(frame, [[0.0, 0, 0, 1], [0.0, 0, 0, 1]])
    assert full["city"].tolist() == ["Bern", "Rome"] and full["city"].dtype == "category"


def test_filling_in_a_frame_of_polars(pl):
    frame = pl.DataFrame({
        "city": [None, *CITY[1:].tolist()], "visits": [None, *VISITS[1:].tolist()],
        "height": HEIGHT,
    })  # fmt: skip
    schema = Schema.infer(frame)
    full = schema.fill(frame, np.full((N, schema.width), 0.7))
    assert full.row(0)[:2] == ("Bern", 1) and full.schema == frame.schema
    assert full[1:].equals(frame[1:])
    with pytest.raises(ValueError, match="matrix has 2 rows, and X 200"):
        schema.fill(frame, np.zeros((2, schema.width)))


# --- refusals -------------------------------------------------------------------------------------


GOOD = objects(CITY, HEIGHT, VISITS, MEMBER, INCOME)
GOOD_NAMES = ["city", "height", "visits", "member", "income"]


@pytest.mark.parametrize("column, value, message", [
    ("city", "Lima", r"X has 'Lima' in row 3 of column 'city', expected 'Bern', 'Oslo', 'Rome', or "
                     r"None: no other value was in the table that was fitted"),
    ("city", 7, r"X has 7 in row 3 of column 'city'"),
    ("visits", -1, r"X has -1.0 in row 3 of column 'visits', expected a whole number, 0 or greater,"
                   r' as it is "count"; else make the column "real"'),
    ("visits", 1.5, r"X has 1.5 in row 3 of column 'visits', expected a whole number"),
    ("visits", "many", r"X has 'many' in row 3 of column 'visits', expected a number, as it is "
                       r'"count", or None; else make the column a "category"'),
    ("income", 0, r"X has 0.0 in row 3 of column 'income', expected a number greater than 0"),
    ("height", np.inf, r"X has inf in row 3 of column 'height', expected a number within \+-1e"),
    ("height", -1e301, r"X has -1e\+301 in row 3 of column 'height'"),
    ("height", 10**400, r"X has inf in row 3 of column 'height'"),
    ("city", np.inf, r"X has inf in row 3 of column 'city', expected a number within \+-1e\+300"),
    ("member", 2, r"X has 2 in row 3 of column 'member', expected False, True, or None"),
    ("member", "yes", r"X has 'yes' in row 3 of column 'member', expected False, True, or None"),
    ("height", np.datetime64("2026-01-01"), r"X has dates or times \(datetime64\) in column "
     r"'height': make numbers of them, such as days since the first, or leave it out: make it"),
    ("height", [1], r"X has \[1\] in row 3 of column 'height': argument must be a string or a "),
    ("height", 1j, r"X has 1j in row 3 of column 'height': argument must be a string or a real"),
])  # fmt: skip
def test_a_value_that_cannot_be_is_named_with_row_and_column(column, value, message):
    schema = Schema.infer(GOOD, names=GOOD_NAMES)
    bad = GOOD.copy()
    bad[3, GOOD_NAMES.index(column)] = value
    schema.encode(GOOD)
    with pytest.raises((TypeError, ValueError), match=message):
        schema.encode(bad)


@pytest.mark.parametrize("given_, message", [
    ({"city": "real"}, r"X has '\w+' in row 0 of column 'city', expected a number"),
    ({"height": "count"}, r"in row 0 of column 'height', expected a whole number"),
    ({"visits": "positive"}, r"X has 0.0 in row \d+ of column 'visits', expected a number greater"),
    ({"city": "binary"}, r"X has 3 different values in column 'city', expected 2 as it is \"binary"
                         r"\": 'Bern', 'Oslo', 'Rome'; else make it a \"category\""),
    ({"town": "real"}, r"a kind is given for column 'town', which X has not: it has 'city', 'heig"),
    ({9: "real"}, r"a kind is given for column 9, which X has not"),
    ({True: "real"}, r"a kind is given for column True, which X has not"),
    ({"city": "words"}, r"column 'city' must be of one of real, positive, .*, got 'words'"),
    ({"city": ["real"]}, r"column 'city' must be of one of real"),
    ({"city": "category", 0: "category"}, r"two kinds are given for column 'city'"),
])  # fmt: skip
def test_a_kind_that_cannot_be_is_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        Schema.infer(GOOD, given_, GOOD_NAMES)


@pytest.mark.parametrize("X, error, message", [
    ([1, 2, 3], ValueError, r"X has the shape \(3,\), expected a table: \(rows, columns\)"),
    ([[1, 2], [3]], ValueError, "X is no table, whose rows are all equally long"),
    (5, ValueError, r"X has the shape \(\), expected a table"),
    ("table.csv", ValueError, r"X has the shape \(\), expected a table"),
    (np.zeros((2, 2), complex), ValueError, "X has values of type complex128, expected numbers or"),
    (np.zeros(2, [("a", "f8")]), ValueError, "expected numbers or words"),
    (np.zeros((3, 2)), ValueError, r"X has no column to learn of \(n_samples=3\): column 0: "
                                   r"constant: always 0, column 1: constant: always 0"),
    (np.zeros((3, 0)), ValueError, "X has no column to learn of .*: 0 feature"),
    (np.full((3, 1), np.nan), ValueError, "no column to learn of .* 0: constant: all missing"),
    (np.array([["2026-01-01"], ["2026-01-02"]], "M8[D]"), ValueError,
     r"X has dates or times \(date\) in column 0: make numbers of them"),
    (np.ma.masked_array(np.ones((2, 2)), np.eye(2)), ValueError, "X has masked entries: give"),
    ([[f"w{i // 2}"] for i in range(2 * MAX_CATEGORIES + 2)], ValueError,
     r"X has 1001 different values in column 0, expected at most 1000 categories: join the rare "
     r'ones, or leave it out: make it "ignore"'),
])  # fmt: skip
def test_what_is_no_table_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        Schema.infer(X)


def test_frames_that_do_not_fit_are_refused(pd, pl):
    dates = pd.to_datetime(["2026-01-01"] * N)
    frame = pd.DataFrame({"height": HEIGHT, "born": dates})
    for bad in frame, pl.DataFrame({"height": HEIGHT, "born": dates.to_numpy()}):
        with pytest.raises(ValueError, match=r"dates or times \([Dd]atetime.* in column 'born'"):
            Schema.infer(bad)
        assert Schema.infer(bad, {"born": "ignore"}).left_out == {"born": "ignore"}
    with pytest.raises(ValueError, match="X has two columns of the name 'height': rename one"):
        Schema.infer(frame[["height", "height"]])
    for labels in [3, 4], [("a", 1), ("a", 2)], ["a", 1]:
        with pytest.raises(ValueError, match="X has columns whose names are no words, such as"):
            Schema.infer(frame.set_axis(labels, axis=1))
    schema = Schema.infer(pd.DataFrame({"height": HEIGHT, "income": INCOME}))
    with pytest.raises(ValueError, match="X has column 'income' where column 'height' was in fit"):
        schema.encode(pd.DataFrame({"income": INCOME, "height": HEIGHT}))
    with pytest.raises(ValueError, match="X has 3 columns, expected 2, as in fit"):
        schema.encode(pd.DataFrame({"height": HEIGHT, "income": INCOME, "more": INCOME}))
    with pytest.raises(ValueError, match="X has 1 columns, expected 2, as there are names"):
        schema.encode(HEIGHT[:, None])
    with pytest.raises(ValueError, match="X has 2 columns, expected 1, as there are names"):
        Schema.infer(np.ones((2, 2)), names=["a"])
    with pytest.raises(ValueError, match=r"matrix has shape \(1, 3\), expected \(n, 2\)"):
        schema.decode(np.zeros((1, 3)))
    with pytest.raises(ValueError, match='how must be "mean" or "draw", got \'mode\''):
        schema.decode(np.zeros((1, 2)), "mode")
    with pytest.raises(TypeError, match="schema must be a dict"):
        Schema.infer(GOOD, "real")


# --- files and words ------------------------------------------------------------------------------


@given(tables())
def test_facts_go_through_json_and_back(case):
    schema = case[0]
    back = Schema.of(json.loads(json.dumps(schema.facts(), allow_nan=False)))
    assert back == schema
    types = [[type(value) for value in column.values] for column in schema.columns]
    assert [[type(value) for value in column.values] for column in back.columns] == types


def facts():
    return json.loads(json.dumps(Schema.infer(PEOPLE, names=NAMES).facts()))


@pytest.mark.parametrize("j, key, value", [
    (0, "name", None), (0, "name", "height"), (0, "name", 0), (0, "name", True),
    (0, "kind", "word"), (0, "kind", 5), (0, "kind", "binary"), (0, "kind", "real"),
    (0, "dtype", "__import__"), (0, "dtype", None), (1, "dtype", "category"), (0, "values", []),
    (0, "values", ["a", "a"]), (0, "values", "ab"), (0, "values", [10**400, 1]),
    (0, "values", [1, True]), (0, "values", [None, "a"]), (0, "values", [["a"], "b"]),
    (0, "values", [1e999, 2]), (0, "values", list(range(1001))), (1, "location", 1),
    (1, "location", float("nan")), (1, "location", 1e301), (1, "scale", 0.0), (1, "scale", -1.0),
    (1, "scale", float("inf")), (1, "low", "0"), (1, "high", None), (1, "whole", 1),
    (1, "values", [1.0]), (4, "location", 1e5), (5, "values", [1, 2]),
])  # fmt: skip
def test_facts_that_cannot_be_are_refused(j, key, value):
    bad = facts()
    assert Schema.of(bad) == Schema.infer(PEOPLE, names=NAMES)
    bad["columns"][j][key] = value
    with pytest.raises(ValueError, match=rf"^({key}|values) of column |^the columns of a"):
        Schema.of(bad)


@pytest.mark.parametrize("bad", [
    None, [], {}, {"form": "array"}, {"form": "csv", "columns": []}, {"form": [], "columns": []},
    {"form": "array", "columns": {}}, {"form": "array", "columns": []},
    {"form": "array", "columns": [None]}, {"form": "array", "columns": [{}]},
    {"form": "array", "columns": [], "more": 1},
    {"form": "array", "columns": facts()["columns"][5:]},
    {"form": "array", "columns": [facts()["columns"][0] | {"more": 1}]},
])  # fmt: skip
def test_facts_of_no_schema_are_refused(bad):
    with pytest.raises(ValueError, match=r"schema|column"):
        Schema.of(bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.integers(0, 6), st.sampled_from(sorted(facts()["columns"][0])), json_values)
def test_a_schema_of_any_facts_can_be_used_or_is_refused(j, key, value):
    any_ = facts()
    any_["columns"][j][key] = value
    try:
        schema = Schema.of(any_)
    except ValueError:
        return
    assert len(schema.describe()) == 7 and np.isfinite(schema.units).all()
    assert schema.decode(np.ones((2, schema.width))).shape == (2, 7)


def test_a_line_for_every_column():
    x = np.array([1.0, 2.0, 4.5, 8.5])
    table = objects(x, np.exp(x), [0, 1, 1, 2], list("aabb"), [1, 2, 3, 1], [7] * 4, [None] * 4,
                    list("abcd"), x)  # fmt: skip
    names = ["one", "e", "n", "word", "code", "seven", "none", "key", "spare"]
    schema = Schema.infer(table, {0: "real", "code": "category", "spare": "ignore"}, names)
    assert schema.describe() == [
        "one    real, from 1 to 8.5, mean 4, sd 2.894",
        "e      positive, from 2.71828 to 4914.77, median near 54.6 (logarithm: mean 4, sd 2.894)",
        "n      count, from 0 to 2, mean 1",
        "word   binary, 'a', 'b'",
        "code   category, 1, 2, 3",
        "seven  left out (constant: always 7)",
        "none   left out (constant: all missing)",
        "key    left out (id: tells the rows apart)",
        "spare  left out (ignore: as asked for)",
    ]
    many = Schema.infer([[f"w{i % 9}"] for i in range(99)])
    assert many.describe() == ["0  category, one of 9: 'w0', 'w1', 'w2', 'w3', 'w4', ..."]
