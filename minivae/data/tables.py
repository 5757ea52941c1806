"""What a file of a table gives: columns with names and kinds, and which of them are learned.

A table of numbers and truth values is a matrix; one with words needs pandas, and is its DataFrame.
"""

import difflib
import re
from typing import NamedTuple

import numpy as np

MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "None", "?", "-")  # cells that mean NaN
# 2020-01-31, 31.1.2020, 1/31/20, also with a time behind, or a time alone.
TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?"
DAY = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
DATE = re.compile(rf"({DAY})([T ]{TIME} ?(Z|UTC|[-+]\d{{2}}:?\d{{2}})?)?|{TIME}")


class Unsuitable(ValueError):
    """What in a table a person has to change, in words that need no others around them."""


class Choice(NamedTuple):
    """Which columns are not learned: `label` has the classes of the rows, `drop` are left out, and
    so are those of `optional`, if there are any; nothing in these matters."""

    label: str | None = None
    drop: tuple = ()
    optional: tuple = ()

    @property
    def wanted(self):
        """[(option, name of a column)]"""
        label = [("label", self.label)] if self.label is not None else []
        return [("drop", name) for name in self.drop] + label

    def split(self, names, width):
        """(indices of the columns to learn, that of the label or None). Columns without names are
        called x1, x2, ..., as the commands call them."""
        names = names or tuple(f"x{j + 1}" for j in range(width))
        place = {name: j for j, name in enumerate(names)}
        for option, name in self.wanted:
            if name not in place:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise Unsuitable(
                    f"{option}={name!r}: there is no such column; {hint}the columns are "
                    f"{', '.join(names)[:400]}"
                )
        out = {place[name] for _, name in self.wanted}
        out |= {place[name] for name in self.optional if name in place}
        keep = [j for j in range(width) if j not in out]
        if out and not keep:
            raise Unsuitable("label and drop leave no column to learn")
        return keep, place.get(self.label)


class Table(NamedTuple):
    """What is in a file: columns' names or None, and rows as float matrix (n, D) with NaN for what
    is missing, or as a pandas DataFrame where columns have words. Arrays may be of any dtype and
    number of axes. labels (n,) or None; notes: what was done that one may want to know."""

    names: tuple | None
    values: object
    labels: np.ndarray | None = None
    notes: tuple = ()


class Words(NamedTuple):
    """A column of words: code (n,) of each row, -1 where it is missing, and the words by code."""

    codes: np.ndarray
    words: list


def take(X, rows):
    """The given rows, a slice or numbers, of an array, a sparse matrix or a DataFrame."""
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def framed(table):
    """The rows of a table with its names: a DataFrame if it has names and pandas is installed,
    whose names scikit-learn compares; else what the table has."""
    if table.names is None or not isinstance(table.values, np.ndarray):
        return table.values
    try:
        import pandas
    except ImportError:
        return table.values
    return pandas.DataFrame(table.values, columns=list(table.names), copy=False)


def complete(names):
    """The names of columns (width,) with one for those that have none; None stays None."""
    if names is None:
        return None
    names = tuple(name or f"column {j + 1}" for j, name in enumerate(names))
    check_names(names)
    return names


def assemble(names, numbers, truths, words, keep, label, notes=()):
    """The Table of columns as they were read.

    numbers: float (n, width), the values of columns that are no words. truths: the indices of those
    that are truth values. words: {index: Words} of the others. names: (width,) or None. keep:
    indices of the columns to learn; label: that of the label, or None.
    """
    labels = None if label is None else _labels(numbers[:, label], words.get(label))
    for j in keep:
        if j in words:
            check_no_dates(shown(names, j), words[j].words)
    check_finite(numbers, names, keep)
    chosen = tuple(names[j] for j in keep) if names else None
    if not words.keys().isdisjoint(keep):
        return Table(chosen, _frame(names, numbers, truths, words, keep), labels, notes)
    matrix = numbers if len(keep) == numbers.shape[1] else numbers[:, keep]
    return Table(chosen, matrix, labels, notes)


def check_names(names):
    """Raise for two columns of one name."""
    seen = set()
    for name in names:
        if name in seen:
            raise Unsuitable(f"two columns have one name, {name!r}: rename one")
        seen.add(name)


def check_no_dates(column, words):
    """Raise if most of the words of a column are dates or times."""
    dates = [word for word in words if DATE.fullmatch(word)]
    if len(dates) > len(words) / 2:
        refuse_dates(column, f"such as {dates[0]!r}")


def refuse_dates(column, what):
    raise Unsuitable(
        f"{column} holds dates or times, {what}: leave it out (--drop, drop=), or make numbers of "
        "it, such as days since a day"
    )


def shown(names, j):
    """A column as a message names it, counted from 1."""
    return f"column {j + 1} ({names[j][:40]!r})" if names else f"column {j + 1}"


def check_finite(matrix, names=None, columns=None):
    """Raise for infinity in the matrix (n, D), or in some of its columns; NaN is a missing value.

    names: of its columns, or None.
    """
    infinite = np.isinf(matrix)
    if columns is not None and len(columns) < matrix.shape[1]:
        infinite[:, np.setdiff1d(np.arange(matrix.shape[1]), columns)] = False
    if infinite.any():
        row, j = divmod(int(infinite.argmax()), matrix.shape[1])
        name = f" ({names[j][:40]!r})" if names else ""
        raise Unsuitable(
            f"{infinite.sum()} values are infinite, the first in row {row}, column {j}{name}, "
            f"counted from 0 (what is too large for {matrix.dtype} counts as infinite): remove or "
            "correct them"
        )


def _labels(values, words):
    """Classes (n,) of the rows, as `plots` takes them: integers where they are, else words."""
    if words is not None:
        return np.array([*words.words, ""], dtype=object)[words.codes]  # -1: the last
    if np.isfinite(values).all() and (np.abs(values) < 2**53).all():
        if (values == np.floor(values)).all():
            return values.astype(np.int64)
    return values.copy()


def _frame(names, numbers, truths, words, keep):
    """A DataFrame of the columns: float64, bool, or categories in alphabetical order."""
    text = [shown(names, j) for j in keep if j in words]
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"{', '.join(text)[:400]} holds words, and tables with words need pandas: pip install "
            "pandas, or leave them out (--drop, drop=)"
        ) from error
    columns = {}
    for j in keep:
        if j in words:
            order = np.argsort(np.array(words[j].words, dtype=object))
            rank = np.empty(len(order) + 1, np.intp)
            rank[order], rank[-1] = np.arange(len(order)), -1  # code -1 takes the last
            column = pandas.Categorical.from_codes(
                rank[words[j].codes], [words[j].words[k] for k in order]
            )
        else:
            column = numbers[:, j]
            if j in truths:
                missing, column = np.isnan(column), column == 1
                if missing.any():
                    column = pandas.arrays.BooleanArray(column, missing)
        columns[names[j] if names else len(columns)] = column
    return pandas.DataFrame(columns)
