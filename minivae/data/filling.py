"""A file of a table with its missing cells filled in; every other byte of text stays as it is.

What is filled in is rounded where the column has only whole numbers, so that its type stays, and
written with six digits else: it is a guess.
"""

import csv
import io
import re
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from minivae.data.delimited import raw_lines, separator_of, unpacked
from minivae.data.frames import opened
from minivae.data.tables import MISSING_WORDS, complete

BOM = b"\xef\xbb\xbf"
DECIMAL = re.compile(r"[-+]?\d*,\d+")


class Filling(NamedTuple):
    """Values for the missing cells of one column of a file."""

    place: int  # of the column in the file
    rows: np.ndarray  # rising numbers of rows, without the header
    values: list  # of them: words, truth values, whole numbers or floats


def gaps(X):
    """How many cells are missing in each column of the table X: (D,)"""
    table = opened(X)
    return np.array([int(table.take(j).missing.sum()) for j in range(len(table.names))])


def fillings(X, filled, places):
    """The Fillings of what a table X (n, D) does not have and filled (n, D) has; places (D,): where
    its columns are in the file."""
    before, after, found = opened(X), opened(filled), []
    for j, place in enumerate(places):
        cells, new = before.take(j), after.take(j)
        rows = np.flatnonzero(cells.missing & ~new.missing)
        if len(rows):
            found.append(Filling(place, rows, _values(cells, new, rows)))
    return found


def _values(cells, new, rows):
    """New values as the column's other cells are."""
    if cells.words or new.words:
        return [str(value) for value in new.values[rows]]
    values = new.values[rows]
    if cells.boolean:
        return [bool(value) for value in values]
    known = cells.values[~cells.missing]
    if len(known) and (known == np.rint(known)).all():
        # Between the least and the greatest, so that 0.4 does not become the 0 that no one has.
        return [int(value) for value in np.rint(values).clip(known.min(), known.max())]
    return values.tolist()


def places_in(path, names, choice):
    """Where the columns that were read of a file are in it; names: theirs, or None."""
    if path.suffix.lower() == ".parquet":
        from pyarrow import parquet

        there = parquet.read_schema(path).names
        return [there.index(name) for name in names]
    content = unpacked(path)
    line = next(text for _, text, _ in raw_lines(content) if text.strip(" \r\n"))
    cells = _split(line.rstrip("\r\n"), separator_of(content))
    if names is None:
        return choice.split(None, len(cells))[0]
    there = complete([_plain(cell) for cell in cells])
    return [there.index(name) for name in names]


def fill(path, has_header, found):
    """Bytes of the file at path, unpacked if it is .gz, with the Fillings written in."""
    if path.suffix.lower() == ".parquet":
        return _fill_parquet(path, found)
    content = unpacked(path)
    separator = separator_of(content)
    new = {f.place: dict(zip(f.rows.tolist(), f.values, strict=True)) for f in found}
    mark, spelled = _spelling(content, separator, has_header, found)
    text = io.StringIO(newline="")
    for row, cells in _rows(content, separator, has_header):
        for place, values in new.items() if row is not None else ():
            if row in values:
                word = _written(values[row], mark, spelled[place])
                cells[place] = _into(cells[place], word, separator)
        text.write(separator.join(cells))
    return content[: len(BOM) * content.startswith(BOM)] + text.getvalue().encode()


def _rows(content, separator, has_header):
    """Yield (number of the row of data, its raw cells) of every line, of which the last has the
    line's end; and (None, [the line]) of the header and of blank lines."""
    number = -1 if has_header else 0
    for _, line, _ in raw_lines(content):
        blank = not line.strip(" \r\n")
        yield (None, [line]) if blank or number < 0 else (number, _split(line, separator))
        number += not blank


def _split(line, separator):
    """The raw cells of a line: as the reader has them, but with their quotation marks."""
    if '"' not in line:
        return line.split(separator)
    cells, start, i = [], 0, 0
    while i < len(line):
        if line[i] == '"' and i == start:  # up to the quotation mark that stands alone
            i = line.find('"', i + 1)
            while line[i + 1 : i + 2] == '"':
                i = line.find('"', i + 2)
        elif line[i] == separator:
            cells.append(line[start:i])
            start = i + 1
        i += 1
    return [*cells, line[start:]]


def _plain(cell):
    """A raw cell without its quotation marks."""
    return (next(csv.reader([cell]))[0] if '"' in cell else cell).strip()


def _spelling(content, separator, has_header, found):
    """(the decimal mark, {place: {truth value: how the column writes it}})"""
    mark, spelled = ".", {f.place: {} for f in found}
    truths = [f.place for f in found if isinstance(f.values[0], bool)]
    marks = separator != "," and any(isinstance(f.values[0], float) for f in found)
    for row, cells in _rows(content, separator, has_header):
        if row is None:
            continue
        if marks and any(DECIMAL.fullmatch(cell.strip(' "\r\n')) for cell in cells):
            mark, marks = ",", False
        for place in truths:
            cell = _plain(cells[place])
            if cell not in MISSING_WORDS:
                spelled[place].setdefault(cell.lower() == "true", cell)
    return mark, spelled


def _written(value, mark, spelled):
    """A value as a cell."""
    if isinstance(value, bool):
        return spelled.get(value, str(value))
    if isinstance(value, float):
        return f"{value:.6g}".replace(".", mark)
    return str(value)


def _into(cell, word, separator):
    """A raw cell that has nothing, or a word for that, with a word in its place."""
    core = cell.strip()
    if core.startswith('"') or any(mark in word for mark in (separator, '"', "\n", "\r")):
        word = '"' + word.replace('"', '""') + '"'
    if not core:
        return word + cell[len(cell.rstrip("\r\n")) :]
    return cell.replace(core, word, 1)


def _fill_parquet(path, found):
    """Types, order, index and what pandas has noted stay."""
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(path)
    for place, rows, values in found:
        field, cells = table.schema.field(place), table.column(place).to_pylist()
        for row, value in zip(rows, values, strict=True):
            decimal = pyarrow.types.is_decimal(field.type)
            cells[row] = Decimal(f"{value:.{field.type.scale}f}") if decimal else value
        table = table.set_column(place, field, pyarrow.array(cells, field.type))
    content = io.BytesIO()
    parquet.write_table(table, content)
    return content.getvalue()
