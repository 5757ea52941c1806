"""What the columns of a table are, and the way between a table and the numbers a model learns."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from minivae.data.columns import LEFT_OUT, NUMBERS, Column, infer
from minivae.data.frames import FORMS, build, filled, label, opened, replaced

KINDS = "real positive binary count category id ignore".split()  # what one may ask for
# Kinds of groups of the matrix, in its order. To a model, a positive column's logarithm is real.
GROUPS = {"real": ("real", "positive"), "count": ("count",), "binary": ("binary",)}


@dataclass(frozen=True)
class Schema:
    """The columns of a table, made once by `infer` of the rows that a model is trained on.

    A model learns a matrix of float64 numbers (n, D): first the real columns (standardised; of
    positive ones the logarithm), then counts, then binaries as 0 or 1, then each category as a
    group of columns of which one is 1. NaN is a missing value, of a category in all its columns.
    """

    form: str  # of the table, one of frames.FORMS
    columns: tuple  # of Column, in the order of the table

    @classmethod
    def infer(cls, X, given=None, names=None):
        """The schema of the table X: a DataFrame of pandas or polars, an array of numbers or
        objects, a list of rows, a sparse matrix.

        given: {name or number of a column: one of KINDS}; a kind that is not given is the first of
        these that fits the column:

        * "constant", left out: one value only, or none (whatever kind is given);
        * "binary": two different values of any type;
        * "id", left out: words of which no two are equal; whole numbers that go up by one from row
          to row; a column without a name, or "Unnamed: 0", of which no two values are equal;
        * "category": words (of digits too), words among numbers, a frame's categorical dtype with
          all the categories that it lists;
        * "count", a Poisson variable: whole, not negative, with a mean of at most 10 (a normal
          density serves beyond) and a variance of half the mean to three times the mean;
        * "positive", log-normal: greater than 0, and a log-normal density makes the column more
          likely than a normal one by 0.1 nat a value or more;
        * "real": all other numbers.

        names: words for the columns of a table that has none. ValueError or TypeError for what is
        no table, dates, infinity, more than 1,000 categories, values that the given kind cannot
        have, or nothing to learn of.
        """
        table = opened(X, names)
        given = _by_number(given or {}, table.names)
        columns = tuple(
            Column(name, "ignore")
            if given.get(j) == "ignore"
            else infer(table.take(j), name, given.get(j))
            for j, name in enumerate(table.names)
        )
        schema = cls(table.form, columns)
        if not schema.width:
            reasons = ", ".join(f"{label(c.name)}: {c.left_out()}" for c in columns[:5])
            none = f"0 feature(s) (shape=({table.n_rows}, 0)) while a minimum of 1 is required."
            raise ValueError(
                f"X has no column to learn of (n_samples={table.n_rows}): {reasons or none}"
            )
        return schema

    # --- what there is --------------------------------------------------------------------------

    @property
    def names(self):
        """The columns' names, in the order of the table; 0, 1, 2, ... if it has none."""
        return [column.name for column in self.columns]

    @property
    def left_out(self):
        """{name: "constant", "id" or "ignore"} of the columns that are not in the matrix."""
        return {c.name: c.kind for c in self.columns if c.kind in LEFT_OUT}

    @property
    def order(self):
        """Numbers of the table's columns in the order of the matrix."""
        kinds = *GROUPS.values(), ("category",)
        return [j for kind in kinds for j, c in enumerate(self.columns) if c.kind in kind]

    @property
    def places(self):
        """{name: slice of the matrix's columns}, in the order of the matrix."""
        places, first = {}, 0
        for j in self.order:
            column = self.columns[j]
            places[column.name] = slice(first, first + column.width)
            first += column.width
        return places

    @property
    def width(self):
        """D, the number of columns of the matrix."""
        return sum(column.width for column in self.columns)

    @property
    def groups(self):
        """((kind, first, last), ...): columns first <= j < last of the matrix are of this kind,
        "real", "count" or "binary", at most one group each; or one variable, "category"."""
        groups, first = [], 0
        for group, kinds in GROUPS.items():
            last = first + sum(column.kind in kinds for column in self.columns)
            groups += [(group, first, last)] if last > first else []
            first = last
        places = self.places
        return (*groups, *(("category", places[c.name].start, places[c.name].stop)
                           for c in self.columns if c.kind == "category"))  # fmt: skip

    @property
    def n_real(self):
        """The number of real columns, which come first."""
        return sum(column.kind in GROUPS["real"] for column in self.columns)

    @property
    def units(self):
        """offset, slope, shift (3, D). In nats, -ln p of a row in the table's own units is that of
        the row u of the matrix plus the sum of offset + slope u over what is observed.

        Of x = location + scale u that is ln(scale); of x = exp(location + scale u) it is
        ln |dx / du| = ln(scale) + location + scale u. shift is the logarithm of a count's mean (of
        0.1, if that is more), which a rate is measured from.
        """
        units = np.zeros((3, self.width))
        for j, place in zip(self.order, self.places.values(), strict=True):
            units[:, place] = np.array(self.columns[j].units)[:, None]
        return units

    # --- there and back -------------------------------------------------------------------------

    def encode(self, X):
        """The table X as numbers (n, D). Of columns that are left out, nothing is looked at.

        ValueError, with row and column, for a value that the column cannot have.
        """
        table = self._opened(X)
        matrix = np.empty((table.n_rows, self.width))
        for j, place in zip(self.order, self.places.values(), strict=True):
            cells = table.take(j)
            matrix[:, place] = self.columns[j].encode(cells)
        return matrix

    def decode(self, matrix, how="mean"):
        """A matrix (n, D), as `encode` gives it, as a table of the form that was fitted.

        A binary is its second value from 1/2 on, a category the one with the greatest number: the
        mode of probabilities. how="mean" leaves all numbers as they are, so that a count may be
        2.3. how="draw" gives only values that the column can have: counts are rounded, and so is
        every column that was whole in fit. Whole numbers keep a frame's integer dtype. NaN becomes
        a missing value; constants are themselves, ids and ignored columns are missing. ImportError
        where the library of a frame is not installed.
        """
        return build(self.form, self.names, self._cells(matrix, how))

    def fill(self, X, matrix, how="draw"):
        """A copy of the table X with its missing cells from the matrix (n, D), as in `decode`.

        X may have another form than the table that was fitted, and keeps its own, with its dtypes
        and the names of its rows. What is known stays as it is; so do ids and ignored columns.
        """
        table, given = self._opened(X), self._cells(matrix, how)
        if len(given[0].values) != table.n_rows:
            raise ValueError(f"matrix has {len(given[0].values)} rows, and X {table.n_rows}")
        new = {}
        for j, column in enumerate(self.columns):
            if column.kind not in ("id", "ignore"):
                cells = table.take(j)
                if cells.missing.any():
                    new[j] = filled(cells, given[j])
        return replaced(X, table.form, new)

    def _opened(self, X):
        """X as `opened`, which must have the columns of the schema."""
        table, names = opened(X, self.names), self.names
        if len(table.names) != len(names):
            raise ValueError(f"X has {len(table.names)} columns, expected {len(names)}, as in fit")
        pairs = zip(table.names, names, strict=True)
        for one, other in pairs if isinstance(names[0], str) else ():
            if one != other:  # estimators say more of it, as scikit-learn does, before this
                raise ValueError(f"X has {label(one)} where {label(other)} was in fit")
        return table

    def _cells(self, matrix, how):
        """The Cells of every column of the table that a matrix (n, D) stands for."""
        if how not in ("mean", "draw"):
            raise ValueError(f'how must be "mean" or "draw", got {how!r}')
        matrix = np.asarray(matrix, np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self.width:
            raise ValueError(f"matrix has shape {matrix.shape}, expected (n, {self.width})")
        places, none = self.places, slice(0, 0)
        return [
            column.decode(matrix[:, places.get(column.name, none)], how == "draw")
            for column in self.columns
        ]

    def unlike(self, X):
        """The columns of numbers that look unlike those of fit, as {name: (least, greatest value)}:
        more than half of what is known in X lies outside what was seen there."""
        table, found = self._opened(X), {}
        for j, column in enumerate(self.columns):
            x = table.take(j).values if column.kind in NUMBERS else np.array([])
            x = x[~np.isnan(x)] if x.dtype != object else x[:0]
            if 2 * ((x < column.low) | (x > column.high)).sum() > len(x):
                found[column.name] = float(x.min()), float(x.max())
        return found

    def missing(self, X):
        """Which cells of the table X are missing: (n, columns of the table), True where they are;
        False in columns that are left out."""
        table = self._opened(X)
        found = np.zeros((table.n_rows, len(self.columns)), dtype=bool)
        for j in self.order:
            found[:, j] = table.take(j).missing
        return found

    # --- in files and in words ------------------------------------------------------------------

    def facts(self):
        """It in plain values, as JSON has them."""
        return {"form": self.form, "columns": [column.facts() for column in self.columns]}

    @classmethod
    def of(cls, facts):
        """The schema of its facts, which may come from anyone; ValueError for what cannot be."""
        if type(facts) is not dict or set(facts) != {"form", "columns"}:
            raise ValueError("a schema must have form and columns")
        form, columns = facts["form"], facts["columns"]
        if form not in FORMS or type(columns) is not list:
            raise ValueError(f"a schema must have a form of {', '.join(FORMS)}, and columns")
        schema = cls(form, tuple(map(Column.of, columns)))
        names = schema.names
        if len(set(names)) < len(names) or not (
            names == list(range(len(names))) or all(type(name) is str for name in names)
        ):
            raise ValueError("the columns of a schema must have different names, or numbers")
        if not schema.width:
            raise ValueError("a schema must have a column that is not left out")
        return schema

    def describe(self, names=None):
        """Lines for a person: what each column is, by these names or its own."""
        names = [str(name) for name in names or self.names]
        wide = max(map(len, names))
        return [f"{name:<{wide}}  {column.describe()}"
                for name, column in zip(names, self.columns, strict=True)]  # fmt: skip


def _by_number(given, names):
    """{number of a column: kind} of {name or number: kind}."""
    if not isinstance(given, dict):
        raise TypeError(f"schema must be a dict, {{column: kind}}, got {given!r}")
    places, numbers = {name: j for j, name in enumerate(names)}, {}
    if names == list(range(len(names))):  # "0" is what a file makes of 0, "x1" the commands' name
        places |= {word: j for j in names for word in (str(j), f"x{j + 1}")}
    for name, kind in given.items():
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(
                f"schema: {label(name)} must be of one of {', '.join(KINDS)}, got {kind!r}"
            )
        j = places.get(name, name)
        if not isinstance(j, Integral) or isinstance(name, bool) or not 0 <= j < len(names):
            raise ValueError(
                f"schema: a kind is given for {label(name)}, which X has not: it has "
                f"{', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''}"
            )
        if j in numbers:
            raise ValueError(f"schema: two kinds are given for {label(names[j])}")
        numbers[int(j)] = kind
    return numbers
