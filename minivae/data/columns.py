"""One column of a table: what kind it is of, and the way between its values and numbers."""

from dataclasses import asdict, dataclass
from math import exp, log

import numpy as np

from minivae.data.frames import CATEGORICAL, LARGEST, WORDS, Cells, kept, label, refuse

NUMBERS = ("real", "positive", "count")  # kinds whose values are numbers
CODED = ("binary", "category")  # kinds that have a list of values
LEFT_OUT = ("constant", "id", "ignore")  # nothing is learned of these
MAX_CATEGORIES = 1000
MIN_GAIN = 0.1  # nats a value, from which on a log-normal density is preferred to a normal one
DISPERSION, MAX_MEAN = (0.5, 3.0), 10.0  # variance over mean, and mean, of what is taken for counts
SMALLEST_MEAN = 0.1  # a rate that is smaller says how few the rows are
N_VALUES = {"binary": (2, 2), "category": (1, MAX_CATEGORIES), "constant": (0, 1)}
EXPONENTS = -744.0, log(LARGEST)  # exp of them is above 0, and within LARGEST
INDEX_NAMES = ("", "Unnamed: 0")  # what pandas makes of an index in a csv file
TYPES = {
    "name": (str, int), "kind": (str,), "dtype": (str,), "values": (list,), "location": (float,),
    "scale": (float,), "low": (float,), "high": (float,), "whole": (bool,),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    A "real" one is x = location + scale u and a "positive" one the exp of that, where a model
    learns u. A "count" is learned as it is, and its location is its mean. Of a "binary" and a
    "category" is learned which of its values it is.
    """

    name: str | int  # a number where the table has no names
    kind: str  # one of NUMBERS, CODED, LEFT_OUT
    dtype: str = ""  # a name that frames.kept keeps
    values: tuple = ()  # of the coded kinds, and of a constant one or none: what it may be
    location: float = 0.0
    scale: float = 1.0
    low: float = 0.0  # least and greatest value in fit, of the kinds of numbers
    high: float = 0.0
    whole: bool = False  # whether all values in fit were whole numbers

    @property
    def width(self):
        """Columns that it takes in the matrix of numbers."""
        if self.kind in LEFT_OUT:
            return 0
        return len(self.values) if self.kind == "category" else 1

    @property
    def units(self):
        """(offset, slope, shift) as `Schema.units` has them."""
        if self.kind == "real":
            return log(self.scale), 0.0, 0.0
        if self.kind == "positive":
            return log(self.scale) + self.location, self.scale, 0.0
        return 0.0, 0.0, log(max(self.location, SMALLEST_MEAN)) if self.kind == "count" else 0.0

    # --- to numbers -----------------------------------------------------------------------------

    def encode(self, cells):
        """Cells as numbers (n, width); ValueError for a value that cannot be."""
        if self.kind in NUMBERS:
            x = self._numbers(cells)
            if self.kind == "positive":
                x = np.log(x)
            return (x if self.kind == "count" else (x - self.location) / self.scale)[:, None]
        codes = self._codes(cells)
        if self.kind == "binary":
            numbers = codes[:, None].astype(np.float64)
        else:
            numbers = (codes[:, None] == np.arange(len(self.values))).astype(np.float64)
        numbers[codes < 0] = np.nan
        return numbers

    def _numbers(self, cells):
        """The values of a kind of numbers, checked."""
        if cells.words:
            row = next(i for i, value in enumerate(cells.values) if isinstance(value, str))
            refuse(self.name, row, cells.values[row],
                   f'a number, as it is "{self.kind}", or None; else make the column a "category" '
                   "and fit again")  # fmt: skip
        x = cells.values
        known = ~np.isnan(x)
        if self.kind == "positive":
            right, expected = x > 0, "a number greater than 0"
        elif self.kind == "count":
            right, expected = (x >= 0) & (x == np.rint(x)), "a whole number, 0 or greater"
        else:
            return x
        if not right[known].all():
            row = int((known & ~right).argmax())
            refuse(self.name, row, float(x[row]), f'{expected}, as it is "{self.kind}"; else make '
                   'the column "real" and fit again')  # fmt: skip
        return x

    def _codes(self, cells):
        """Which of the column's values each one is (n,), -1 where it is missing."""
        if cells.words:
            places = {value: i for i, value in enumerate(self.values)} | {None: -1}
            codes = np.array([places.get(value, -2) for value in cells.values], np.int64)
        else:
            numbers = sorted((float(value), i) for i, value in enumerate(self.values)
                             if not isinstance(value, str)) or [(np.inf, -2)]  # fmt: skip
            values, places = (np.array(part) for part in zip(*numbers, strict=True))
            nearest = np.searchsorted(values, cells.values).clip(max=len(values) - 1)
            codes = np.where(values[nearest] == cells.values, places[nearest], -2)
            codes[np.isnan(cells.values)] = -1
        if codes.min(initial=0) < -1:
            row = int(codes.argmin())
            value = cells.values[row] if cells.words else _as_seen(cells.values[row], cells)
            refuse(self.name, row, value, f"{listed(self.values)}, or None: no other value was in "
                   "the table that was fitted")  # fmt: skip
        return codes

    # --- from numbers ---------------------------------------------------------------------------

    def decode(self, numbers, draw):
        """Cells of numbers (n, width), NaN where they are missing.

        draw: whether only values will do that the column can have (`Schema.decode`).
        """
        n = len(numbers)
        if self.kind in NUMBERS:
            return Cells(self._from_numbers(numbers[:, 0], draw), self.dtype)
        if self.kind in CODED:
            missing = np.isnan(numbers[:, 0])
            codes = numbers.argmax(1) if self.kind == "category" else numbers[:, 0] >= 0.5
            codes = np.where(missing, len(self.values), codes)
        else:
            codes = np.full(n, 0 if self.kind == "constant" else len(self.values))
        words = any(isinstance(value, str) for value in self.values)
        if words or (not self.values and self.dtype in WORDS + CATEGORICAL):
            values = np.empty(len(self.values) + 1, dtype=object)
            values[:-1] = self.values
        else:
            values = np.array([*self.values, np.nan], np.float64)
        boolean = bool(self.values) and all(type(value) is bool for value in self.values)
        return Cells(values[codes], self.dtype, boolean, self.values)

    def _from_numbers(self, u, draw):
        """The values x that u stands for."""
        x = u if self.kind == "count" else self.location + self.scale * u
        if self.kind == "positive":  # a model's number may be beyond all numbers
            x = np.exp(x.clip(*EXPONENTS))
        if self.whole:
            size = abs(self.location) + self.scale if self.kind == "real" else 0.0
            rounded = np.rint(x)
            # Whole but for the rounding on the way to u and back.
            near = np.abs(x - rounded) <= 1e-12 * np.maximum(np.abs(x), size)
            x = rounded if draw else np.where(near, rounded, x)
        if draw and self.kind == "count":
            x = np.maximum(x, 0.0)
        if draw and self.kind == "positive" and self.whole:
            x = np.maximum(x, 1.0)
        return x

    # --- in words -------------------------------------------------------------------------------

    def describe(self):
        """What it is, for a person."""
        if self.kind in LEFT_OUT:
            return f"left out ({self.left_out()})"
        if self.kind in CODED:
            return f"{self.kind}, {listed(self.values)}"
        size = f"from {self.low:g} to {self.high:g}"
        if self.kind == "positive":
            return f"positive, {size}, median near {exp(self.location):.4g} (logarithm: mean " \
                   f"{self.location:.4g}, sd {self.scale:.4g})"  # fmt: skip
        sd = f", sd {self.scale:.4g}" if self.kind == "real" else ""
        return f"{self.kind}, {size}, mean {self.location:.4g}{sd}"

    def left_out(self):
        """Why nothing is learned of it."""
        if self.kind == "constant":
            return f"constant: {f'always {self.values[0]!r}' if self.values else 'all missing'}"
        return "id: tells the rows apart" if self.kind == "id" else "ignore: as asked for"

    def facts(self):
        """It in plain values, for a file."""
        return asdict(self) | {"values": list(self.values)}

    @classmethod
    def of(cls, facts):
        """The column of its facts, which may come from anyone; ValueError for what cannot be."""
        if type(facts) is not dict or set(facts) != set(TYPES):
            raise ValueError(f"a column must have {', '.join(TYPES)}")
        for key, types in TYPES.items():
            if type(facts[key]) not in types:
                raise ValueError(f"{key} of {label(facts['name'])} cannot be {facts[key]!r}")
        column = cls(**facts | {"values": tuple(facts["values"])})
        for key, right in column._right():
            if not right:
                raise ValueError(
                    f"{key} of {label(column.name)}, which is {column.kind!r}, cannot be "
                    f"{str(facts[key])[:200]}"
                )
        return column

    def _right(self):
        """(name of a fact, whether it is one that a column of this kind can have)."""
        numbers, values = self.kind in NUMBERS, self.values
        yield "kind", numbers or self.kind in CODED + LEFT_OUT
        yield (
            "dtype",
            kept(self.dtype) == self.dtype and not (numbers and self.dtype in CATEGORICAL),
        )
        low, high = EXPONENTS if self.kind == "positive" else (-LARGEST, LARGEST)
        yield "location", low <= self.location <= high
        yield "scale", 0 < self.scale <= LARGEST
        yield "low", abs(self.low) <= LARGEST
        yield "high", abs(self.high) <= LARGEST
        fewest, most = N_VALUES.get(self.kind, (0, 0))
        yield (
            "values",
            fewest <= len(values) <= most
            and all(
                type(value) in (str, bool)
                or (type(value) in (int, float) and abs(value) <= LARGEST)
                for value in values
            )
            and len(set(values)) == len(values),
        )


def listed(values):
    """A few of the values, in words."""
    shown = ", ".join(map(repr, values[:5]))
    return shown if len(values) <= 5 else f"one of {len(values)}: {shown}, ..."


# --- what a column is of --------------------------------------------------------------------------


def infer(cells, name, kind=None):
    """The Column of cells, of the kind that is given, or of the first that fits (`Schema.infer`).

    ValueError for values that the kind cannot have.
    """
    seen = set(cells.values) - {None} if cells.words else _distinct(cells.values)
    if len(seen) < 2:
        values = tuple(_as_seen(value, cells) for value in seen)
        return Column(name, "constant", cells.dtype, values)
    kind = kind or _kind(cells, name, seen)
    if kind in CODED:
        return Column(name, kind, cells.dtype, _values(cells, name, kind, seen))
    if kind in LEFT_OUT:
        return Column(name, kind, cells.dtype)
    dtype = "" if cells.dtype in CATEGORICAL else cells.dtype
    return _of_numbers(Column(name, kind, dtype), cells)


def _of_numbers(column, cells):
    """The column with what is known of its values."""
    x = column._numbers(cells)
    x = x[~np.isnan(x)]
    location, scale = _moments(np.log(x) if column.kind == "positive" else x)
    return Column(column.name, column.kind, column.dtype, (), location,
                  1.0 if column.kind == "count" else scale, float(x.min()), float(x.max()),
                  bool((x == np.rint(x)).all()))  # fmt: skip


def _kind(cells, name, seen):
    """The kind of a column of which nothing is said; seen: its different values, two or more."""
    n = len(cells.values)
    different = len(seen) == n - cells.missing.sum()
    if different and str(name) in INDEX_NAMES:
        return "id"
    if len(seen) == 2 and len(cells.levels) <= 2:
        return "binary"
    if cells.words or cells.levels:
        return "id" if cells.words and different else "category"
    x = cells.values[~np.isnan(cells.values)]
    whole = (x == np.rint(x)).all()
    if whole and len(x) == n and (np.diff(x) == 1).all():
        return "id"
    mean, sd = _moments(x)
    dispersion = sd**2 / mean if whole and x.min() >= 0 and mean <= MAX_MEAN else 0.0
    if DISPERSION[0] <= dispersion <= DISPERSION[1]:
        return "count"
    if x.min() > 0:
        # Of the greatest normal and log-normal likelihood, the logarithms differ by this a value.
        log_mean, log_sd = _moments(np.log(x))
        if log(sd) - log(log_sd) - log_mean > MIN_GAIN:
            return "positive"
    return "real"


def _distinct(x):
    return np.unique(x[~np.isnan(x)]).tolist()


def _moments(x):
    """(mean, standard deviation) of two different numbers or more; no square overflows.

    The deviation is 1 where the numbers are so near to one another that it would be rounded to 0.
    """
    size = float(np.abs(x).max()) or 1.0
    return size * float(np.mean(x / size)), size * float(np.std(x / size)) or 1.0


def _as_seen(value, cells):
    """A number of the cells as what it was: a boolean, or an integer if it is whole."""
    if cells.words:
        return value
    if cells.boolean:
        return bool(value)
    return int(value) if value == int(value) else float(value)


def _values(cells, name, kind, seen):
    """What a column may be: all that its categorical dtype lists, or all that was seen; in order,
    numbers before words."""
    values = cells.levels
    if not values or kind == "binary":
        values = [_as_seen(value, cells) for value in seen]
        values = tuple(sorted(values, key=lambda v: (isinstance(v, str), v)))
    if kind == "binary" and len(values) != 2:
        raise ValueError(f"X has {len(values)} different values in {label(name)}, expected 2 as it "
                         f'is "binary": {listed(values)}; else make it a "category"')  # fmt: skip
    if len(values) > MAX_CATEGORIES:
        raise ValueError(
            f"X has {len(values)} different values in {label(name)}, expected at most "
            f'{MAX_CATEGORIES} categories: join the rare ones, or leave it out: make it "ignore"'
        )
    return values
