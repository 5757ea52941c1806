"""The forms of a table, taken apart into columns and put together again.

A table is a DataFrame of pandas or polars, an array, a list of rows or a sparse matrix. Its columns
are all alike here: numbers and booleans are float64 with NaN where a value is missing, anything
else are objects (words, and numbers among words) with None there.
"""

import datetime
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy.sparse import issparse

from minivae.data.checks import check_rows
from minivae.data.tables import MISSING_WORDS

# What stands for a missing value where words are expected.
FORMS = ("array", "objects", "pandas", "polars")
# Names of the dtypes that a column is given again; "" leaves the choice to the library.
NUMBER = re.compile(
    r"(u?int|float)(8|16|32|64)(\[pyarrow\])?|(float|double)\[pyarrow\]|(U?Int|Float)(8|16|32|64)"
)
BOOLEANS = ("bool", "boolean", "bool[pyarrow]", "Boolean")
WORDS = ("str", "string", "String", "object")
CATEGORICAL = ("category", "ordered category", "Categorical", "Enum")
LARGEST = 1e300  # beyond it a difference of two values, or its square in other units, overflows
DATES = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)


class Cells(NamedTuple):
    """One column of a table."""

    values: np.ndarray  # (n,) float64 with NaN, or objects with None, where a value is missing
    dtype: str = ""  # name of the dtype it had, one of DTYPES
    boolean: bool = False  # whether the numbers stand for False and True
    levels: tuple = ()  # what a categorical dtype lists, in its order

    @property
    def words(self):
        """Whether there is anything but numbers."""
        return self.values.dtype == object

    @property
    def missing(self):
        """(n,) True where nothing is known."""
        return np.equal(self.values, None) if self.words else np.isnan(self.values)


def filled(cells, other):
    """Cells whose missing values are those of other cells; dtype and levels stay, with those added
    that they lack."""
    missing, one, two = cells.missing, cells.values, other.values
    if cells.words != other.words:
        one, two = _python_values(cells, None), _python_values(other, None)
    boolean = cells.boolean or bool(missing.all() and other.boolean)
    more = [level for level in other.levels if level not in cells.levels]
    levels = (*cells.levels, *more) if cells.levels else ()
    return Cells(np.where(missing, two, one), cells.dtype, boolean, levels)


class Opened(NamedTuple):
    """A table of any form."""

    form: str
    names: list  # words; or 0, 1, 2, ... where the table has none
    n_rows: int
    take: Callable  # take(j): Cells of column j, or ValueError


def label(name):
    """A column in a message."""
    return f"column {name!r}"


def refuse(name, row, value, expected):
    """Raise for a value that the column cannot have. Rows are counted from 0."""
    raise ValueError(f"X has {value!r} in row {row} of {label(name)}, expected {expected}")


# --- apart ----------------------------------------------------------------------------------------


def opened(X, names=None):
    """X as an `Opened`. names: words for the columns of a form that has none.

    TypeError or ValueError for what is no table, or has two columns of one name.
    """
    if hasattr(X, "columns") and hasattr(X, "iloc"):
        form, names, take = "pandas", list(X.columns), _take_pandas
        if len(dtypes := set(X.dtypes)) == 1 and _is_plain(dtypes.pop()):
            X, take = X.to_numpy(), _take_alike  # a frame hands out its columns slowly
    elif hasattr(X, "columns") and hasattr(X, "get_columns"):
        form, names, take = "polars", list(X.columns), _take_polars
    elif issparse(X):
        X, form, take = _sparse(X), "array", _take_sparse
    else:
        X = _array(X)
        form, take = ("objects", _take_objects) if X.dtype == object else ("array", _take_array)
    check_rows(X)
    names = list(range(X.shape[1])) if names is None else list(names)
    _check_names(names, X.shape[1])
    return Opened(form, names, X.shape[0], lambda j: take(X, j, names[j]))


def _sparse(X):
    if X.dtype.kind not in "biuf":
        raise TypeError(f"X has values of type {X.dtype}, expected numbers")
    return X.tocsc()


def _array(X):
    """An array or a list of rows as an array of numbers or of objects."""
    if np.ma.is_masked(X):
        raise ValueError("X has masked entries: give numbers, with NaN where a value is missing")
    try:
        array = np.asarray(X)
    except ValueError as error:
        raise ValueError(f"X is no table, whose rows are all equally long: {error}") from error
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.names or array.dtype.kind not in "OUMm":
        unknown = "Complex data not supported: " if array.dtype.kind == "c" else ""
        raise ValueError(f"{unknown}X has values of type {array.dtype}, expected numbers or words")
    # A list of numbers and words has become words only; an array of words or dates is one already.
    return np.array(X if isinstance(X, list | tuple) else array.astype(object), dtype=object)


def _check_names(names, n):
    """Raise unless there are n different names: words, or the numbers of the columns."""
    if len(names) != n:
        raise ValueError(f"X has {n} columns, expected {len(names)}, as there are names")
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None and names != list(range(n)):
        raise ValueError(
            f"X has columns whose names are no words, such as {wrong!r}, so that they could not be "
            "compared: make them words, X.columns.map(str)"
        )
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"X has two columns of the name {name!r}: rename one")
        seen.add(name)


def _take_pandas(X, j, name):
    column = X.iloc[:, j]
    dtype = getattr(column.dtype, "subtype", column.dtype)  # of a sparse column, its values'
    kind, word = getattr(dtype, "kind", "O"), str(dtype)
    if kind in "biuf" and not hasattr(column, "cat"):
        values = column.to_numpy(np.float64, na_value=np.nan)
        return _numbers(values, name, kept(word), word in BOOLEANS)
    if kind in "mM":
        refuse_dates(name, word)
    levels = ()
    if hasattr(column, "cat"):
        word = "ordered category" if column.cat.ordered else "category"
        levels = column.cat.categories.to_numpy(object)
    return _objects(column.to_numpy(object), name, kept(word), levels)


def _is_plain(dtype):
    """Whether it is one of NumPy's dtypes for numbers."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iuf"


def _take_alike(X, j, name):
    """Of the array that a frame with columns of one dtype is."""
    return _numbers(X[:, j].astype(np.float64), name, kept(str(X.dtype)))


def _take_polars(X, j, name):
    import polars

    column = X.to_series(j)
    word = str(column.dtype).split("(")[0]
    if column.dtype.is_temporal():
        refuse_dates(name, word)
    if column.dtype.is_numeric() or word == "Boolean":
        values = column.cast(polars.Float64).to_numpy()
        return _numbers(values, name, kept(word), word == "Boolean")
    # All categories of one process are in one pool: only an Enum knows its own.
    levels = column.dtype.categories.to_list() if word == "Enum" else ()
    return _objects(_object_array(column.to_list()), name, kept(word), levels)


def _take_sparse(X, j, name):
    return _numbers(X[:, [j]].toarray().ravel().astype(np.float64), name, "", X.dtype == bool)


def _take_array(X, j, name):
    return _numbers(X[:, j].astype(np.float64), name, "", X.dtype == bool)


def _take_objects(X, j, name):
    return _objects(X[:, j], name)


def kept(word):
    """The name of a dtype, or "" for one that a column is not given again."""
    return word if NUMBER.fullmatch(word) or word in BOOLEANS + WORDS + CATEGORICAL else ""


def _object_array(values):
    """A list of anything as an array (n,) of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _numbers(values, name, dtype="", boolean=False):
    """Cells of float64 values, which must be finite where they are known."""
    if values.size and max(np.fmax.reduce(values), -np.fmin.reduce(values)) > LARGEST:
        row = int(np.nanargmax(np.abs(values)))
        refuse(name, row, float(values[row]), f"a number within +-{LARGEST:g}, or NaN if it is "
               "not known")  # fmt: skip
    return Cells(values, dtype, boolean)


def _objects(values, name, dtype="", levels=()):
    """Cells of a column of objects: numbers unless there is a word."""
    known = np.array([not _is_missing(value) for value in values], dtype=bool)
    kinds = set(map(type, values[known].tolist()))
    wrong = {kind for kind in kinds if not issubclass(kind, str | Real | np.bool_)}
    if wrong:
        row = next(i for i in np.flatnonzero(known) if type(values[i]) in wrong)
        if issubclass(type(values[row]), DATES):
            refuse_dates(name, type(values[row]).__name__)
        value, dtype = values[row], type(values[row]).__name__
        raise TypeError(  # in words that scikit-learn wants
            f"X has {value!r} in row {row} of {label(name)}: argument must be a string or a real "
            f"number, a boolean or None, not {dtype!r}"
        )
    levels = tuple(_plain(level) for level in levels if not _is_missing(level))
    words = any(issubclass(kind, str) for kind in kinds)
    if not words:
        boolean = bool(kinds) and all(issubclass(kind, bool | np.bool_) for kind in kinds)
        numbers = np.full(len(values), np.nan)
        numbers[known] = [_float(value) for value in values[known]]
        return _numbers(numbers, name, dtype, boolean)._replace(levels=levels)
    cells = _object_array([None] * len(values))
    cells[known] = values[known] if kinds == {str} else _object_array(
        [_plain(value) for value in values[known]]
    )  # fmt: skip
    for row in np.flatnonzero(known) if kinds - {str} else ():
        if not isinstance(cells[row], str) and not abs(cells[row]) <= LARGEST:
            refuse(name, int(row), cells[row], f"a number within +-{LARGEST:g}, or a word")
    return Cells(cells, dtype, False, levels)


def _is_missing(value):
    if isinstance(value, str):
        return value in MISSING_WORDS
    if isinstance(value, float | np.floating):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # of pandas


def _plain(value):
    """A number, boolean or word of NumPy's as Python's own, which JSON has too."""
    for kind, python in (bool | np.bool_, bool), (Integral, int), (Real, float):
        if isinstance(value, kind):
            return python(value)
    return str(value)


def _float(value):
    try:
        return float(value)
    except OverflowError:  # an integer beyond 1.8e308
        return np.inf if value > 0 else -np.inf


def refuse_dates(name, dtype):
    """Raise for a column of dates or times, which are no numbers and would be no good words."""
    raise ValueError(
        f"X has dates or times ({dtype}) in {label(name)}: make numbers of them, such as days since"
        ' the first, or leave it out: make it "ignore"'
    )


# --- together -------------------------------------------------------------------------------------


def build(form, names, columns):
    """A table of the form, of Cells by column: the inverse of `opened`.

    A column gets its dtype again where its values allow it: whole numbers within the range of an
    integer dtype, and no missing ones where it cannot hold any. Else it is float64 (of booleans:
    the nullable kind). ImportError where the library of the form is not installed.
    """
    if form == "array":
        return np.column_stack([cells.values.astype(np.float64) for cells in columns])
    if form == "objects":
        return np.column_stack([_python_values(cells, np.nan) for cells in columns])
    try:
        if form == "pandas":
            import pandas

            made = [_to_pandas(pandas, cells) for cells in columns]
            return pandas.concat(made, axis=1, keys=names)
        import polars

        return polars.DataFrame(
            [_to_polars(polars, str(name), c) for name, c in zip(names, columns, strict=True)]
        )
    except ImportError as error:
        raise ImportError(f"this table was a frame of {form}: pip install {form}") from error


def _python_values(cells, missing):
    """Cells as objects: booleans, whole numbers as int if all are whole, other numbers, words."""
    known = ~cells.missing
    kind = object
    if not cells.words:
        x = cells.values[known]
        whole = ((x == np.rint(x)) & (np.abs(x) < 2**53)).all()
        kind = bool if cells.boolean else int if whole else float
    values = _object_array([missing] * len(known))
    values[known] = [value if kind is object else kind(value) for value in cells.values[known]]
    return values


def _fits(values, dtype):
    """Whether the values that are known are of an integer dtype of NumPy."""
    values, limits = values[~np.isnan(values)], np.iinfo(dtype)
    return bool(((values == np.rint(values)) & (values >= limits.min)
                 & (values < float(limits.max) + 1)).all())  # fmt: skip


def _to_pandas(pandas, cells):
    word, missing = cells.dtype, cells.missing
    if word in CATEGORICAL:
        return pandas.Series(pandas.Categorical(
            _python_values(cells, None), list(cells.levels), ordered=word == "ordered category"
        ))  # fmt: skip
    if cells.words or cells.boolean or word == "object":
        word = "boolean" if word == "bool" and missing.any() else word
        suits = word in (WORDS if cells.words else BOOLEANS)
        return pandas.Series(_python_values(cells, None), dtype=word if suits else object)
    if "int" in word.lower():
        nullable = word[0] in "UI" or word.endswith("]")
        if not _fits(cells.values, word.lower().removesuffix("[pyarrow]")):
            word = "Float64" if nullable else "float64"
        elif missing.any() and not nullable:
            word = "float64"
    word = word if NUMBER.fullmatch(word) else "float64"
    if word[0] in "uif" and not word.endswith("]"):  # one of NumPy's, which converts faster
        return pandas.Series(cells.values.astype(word))
    return pandas.Series(cells.values).astype(word)


def _to_polars(polars, name, cells):
    word = cells.dtype
    if cells.words or cells.boolean or word in CATEGORICAL:
        suits = word in BOOLEANS if cells.boolean else word in WORDS + CATEGORICAL
        dtype = polars.Enum(list(cells.levels)) if word == "Enum" else getattr(polars, word, None)
        return polars.Series(name, _python_values(cells, None).tolist(), dtype if suits else None)
    if "Int" in word and not _fits(cells.values, word.lower()):
        word = "Float64"
    column = polars.Series(name, cells.values).fill_nan(None)
    return column.cast(getattr(polars, word)) if NUMBER.fullmatch(word) else column


def replaced(X, form, new):
    """A copy of the table X, which is of the form, with other columns {number: Cells}.

    The rest is as it was: rows' names, columns that no cell was taken of, their dtypes.
    """
    if form == "pandas":
        import pandas

        X = X.copy()
        for j, cells in new.items():
            X.isetitem(j, _to_pandas(pandas, cells).set_axis(X.index))
        return X
    if form == "polars":
        import polars

        return X.with_columns([_to_polars(polars, X.columns[j], c) for j, c in new.items()])
    X = X.toarray() if issparse(X) else _array(X)
    X = X.astype(object if form == "objects" else np.float64)
    for j, cells in new.items():
        X[:, j] = _python_values(cells, np.nan) if form == "objects" else cells.values
    return X
