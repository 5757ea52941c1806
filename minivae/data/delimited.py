"""Tables as text, .csv and .tsv: what separates the cells, whether there is a header, and what kind
of column each is.

A file is read line by line, so that memory stays within about ten times its size; of a column of
words each different word is kept once, which takes thirty times the size where all are different.

The separator (comma, semicolon or tab) is found from the first lines. Where commas do not separate,
the first number with a comma or a point says which of them is the decimal mark. The first line is a
header if it has words and no numbers, if all of it alone is in quotation marks, or if one of its
words stands above nothing but numbers. A column is of numbers (truth values count as 0 and 1 among
them), of truth values alone, or of words; a few words among many numbers are taken for faults.
"""

import csv
import io
import re
from array import array
from collections import Counter
from itertools import islice

import numpy as np

from minivae.data import packed
from minivae.data.tables import DATE, MISSING_WORDS, Unsuitable, Words, assemble, complete, shown

NUMBER, ABSENT, TRUTH, WORD, ODD = range(5)  # what a cell can be
MISSING = frozenset(MISSING_WORDS)
TRUTHS = dict.fromkeys(("true", "True", "TRUE"), 1.0) | dict.fromkeys(
    ("false", "False", "FALSE"), 0.0
)
SEPARATORS, SAMPLE = "\t;,", 20  # and from how many rows one of them is chosen
# Numbers of a kind that can be read in two ways or is not for data: 1_000, 0x1F, 1,234.5, 1.234,5.
ODD_NUMBER = re.compile(
    r"0x[\da-f]+|[-+]?(\d[\d_]*([.,][\d_]+)?|\d{1,3}([.,]\d{3})+([.,]\d+)?)(e[-+]?\d+)?", re.I
)
STRAY = 9  # a column with more than so many numbers to a word has a wrong cell, and no categories
INDEX_NAMES = ("", "Unnamed: 0")  # what to_csv calls an index, and what reading that back does


def read_delimited(path, choice):
    """The Table in a .csv or .tsv file, plain or .gz; see the head of this module.

    choice: which columns are not learned; faults in those do not matter. Unsuitable, with line or
    column, for rows of different lengths, a word among the numbers of a column, dates, infinity.
    """
    try:
        return _read(unpacked(path), choice)
    except UnicodeDecodeError as error:
        raise Unsuitable(f"not UTF-8: save it as UTF-8 text ({error})") from error
    except csv.Error as error:
        raise Unsuitable(f"quotation marks that do not fit: {error}") from error


def unpacked(path):
    """The bytes of a text file, plain or .gz."""
    content = path.read_bytes()
    if content[:2] == packed.GZIP:
        content = packed.gunzip(content, packed.unpacked_limit(len(content)) + 1)
        packed.check_unpacked_size(len(content), path)
    return content


def _read(content, choice):
    separator = separator_of(content)
    scan = _Scan(separator)
    for number, text, quoted in _lines(content):
        scan.add(number, _cells(text, quoted, separator), text)
    names, notes = scan.names(), ()
    if names is None and WORD in scan.first:
        notes = (
            "the first line has numbers, so it is taken for data and the columns for nameless",
        )
    numbers = scan.matrix(names)
    index = _is_index(names, numbers, scan)
    names = complete(names)
    keep, label = choice.split(names, numbers.shape[1])
    if index and 0 in keep and len(keep) > 1:
        keep.remove(0)
        notes = ("the first column, which has no name and a number for each row, is left out",)
    for j in keep:
        scan.check(j, names, len(numbers))
    wanted = scan.words.keys() & {*keep, label}
    words = _words(content, separator, sorted(wanted), skip=names is not None)
    return assemble(names, numbers, scan.truths(len(numbers)), words, keep, label, notes)


def _is_index(names, numbers, scan):
    """Whether the first column is the index of a frame: nameless, whole numbers, all different."""
    if names is None or names[0] not in INDEX_NAMES or 0 in scan.words or not len(numbers):
        return False
    first = numbers[:, 0]
    return np.array_equal(first, np.floor(first)) and len(np.unique(first)) == len(first)


def _lines(content):
    """Yield (line number, text, whether it has quotation marks) of each row: of all lines that are
    not blank."""
    for number, text, quoted in raw_lines(content):
        text = text.rstrip("\r\n")
        if text.strip(" "):
            yield number, text, quoted


def raw_lines(content):
    """Yield (line number, text with its end, whether it has quotation marks) of all lines. A cell
    in quotation marks may go on in the next line."""
    limit = max(2**15, len(content) // 10)  # a line's cells take 35 times its memory
    file = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    number = 0
    while text := file.readline(limit):
        number += 1
        start, quotes = number, text.count('"')
        if quotes % 2:
            parts, length = [text], len(text)
            while quotes % 2 and length < limit and (more := file.readline(limit)):
                parts.append(more)
                number, length, quotes = number + 1, length + len(more), quotes + more.count('"')
            text = "".join(parts)
        if len(text) >= limit:
            raise Unsuitable(
                f"line {start} has {limit} characters or more, or a quotation mark without a "
                "partner: correct it, or save the table as .npy"
            )
        if "\0" in text:
            raise Unsuitable(f"line {start} has the character NUL: save it as UTF-8 text")
        yield start, text, quotes > 0


def _cells(text, quoted, separator):
    if quoted:
        return next(csv.reader([text], delimiter=separator, strict=True))
    return text.split(separator)


def separator_of(content):
    """The one that cuts the first rows into equally many cells, two or more; if several do, that
    which gives the most values, then the most cells."""
    rows = list(islice(_lines(content), SAMPLE))
    best = (False, 0, 0), ","
    for separator in SEPARATORS:
        scan, widths, n_values, n_cells = _Scan(separator), set(), 0, 0
        try:
            for _, text, quoted in rows:
                cells = _cells(text, quoted, separator)
                widths.add(len(cells))
                n_cells += len(cells)
                n_values += sum(scan.value(cell.strip())[1] < WORD for cell in cells)
        except csv.Error:  # quotation marks that do not fit this separator
            continue
        if widths and max(widths) > 1:
            best = max(best, ((len(widths) == 1, n_values / n_cells, max(widths)), separator))
    return best[1]


class _Scan:
    """What cells there are in each column, and the numbers among them."""

    def __init__(self, separator):
        self.mark = "." if separator == "," else ""  # of decimals; "": none was seen yet
        self.separator = separator
        self.width, self.first, self.header, self.quoted = 0, [], [], False
        self.values = array("d")  # all rows with the first one; NaN for what is no number
        self.absent, self.true, self.words, self.odd = Counter(), Counter(), Counter(), Counter()
        self.word = {}  # column: (line, cell) of its first word

    def value(self, cell):
        """(number, what the cell is)"""
        if cell in MISSING:
            return np.nan, ABSENT
        comma, point = "," in cell, "." in cell
        clash = (comma and self.mark == ".") or (point and self.mark == ",")
        if "_" not in cell and not clash:  # float takes 1_000
            try:
                number = float(cell.replace(",", ".") if comma else cell)
            except ValueError:
                pass
            else:
                self.mark = self.mark or comma * "," or point * "."
                return number, NUMBER
        if cell in TRUTHS:
            return TRUTHS[cell], TRUTH
        return np.nan, ODD if ODD_NUMBER.fullmatch(cell) else WORD

    def add(self, number, cells, text):
        """Take in a row."""
        if not self.width:
            self.width, self.header = len(cells), [cell.strip() for cell in cells]
            self.quoted = _is_quoted(text, cells, self.separator)
            row, self.first = zip(*map(self.value, self.header), strict=True)
            self.values.extend(row)
            self.start = number
            return
        if len(cells) != self.width:
            raise Unsuitable(f"line {number} has {len(cells)} cells instead of {self.width}")
        if self.quoted and len(self.values) == self.width:  # the second row
            self.quoted = not _is_quoted(text, cells, self.separator)
        if self.mark == "." and not ("_" in text or "n" in text or "N" in text):  # 1_0, nan, inf
            try:
                self.values.extend(list(map(float, cells)))  # all or nothing
                return
            except ValueError:
                pass
        for j, cell in enumerate(cells):
            cell = cell.strip()
            value, kind = self.value(cell)
            self.values.append(value)
            if kind != NUMBER:
                self.count(j, kind, number, cell)

    def count(self, j, kind, number, cell):
        """Count what is no number in column j."""
        if kind in (WORD, ODD):
            self.words[j] += 1
            self.odd[j] += kind == ODD
            self.word.setdefault(j, (number, cell))
        else:
            (self.true if kind == TRUTH else self.absent)[j] += 1

    def names(self):
        """The first row if it is a header, else None, and it is counted as the data that it is."""
        n = len(self.values) // max(self.width, 1) - 1  # the rows below it
        alone = [  # words above nothing but numbers
            j
            for j, kind in enumerate(self.first)
            if kind == WORD and not self.words[j] and not self.true[j] and self.absent[j] < n
        ]
        words_alone = WORD in self.first and NUMBER not in self.first
        if self.width and (words_alone or alone or (self.quoted and n > 0)):
            return tuple(self.header)
        for j, kind in enumerate(self.first):
            if kind != NUMBER:
                self.word.pop(j, None)
                self.count(j, kind, self.start, self.header[j])
        return None

    def matrix(self, names):
        """The rows as an array (n, width), without the header."""
        values = np.frombuffer(self.values, np.float64)[self.width * (names is not None) :]
        return values.reshape(-1, max(self.width, 1))

    def n_numbers(self, j, n):
        return n - self.absent[j] - self.true[j] - self.words[j]

    def truths(self, n):
        """The columns (indices) of truth values alone."""
        return {j for j in self.true if not self.words[j] and not self.n_numbers(j, n)}

    def check(self, j, names, n):
        """Raise for a word in column j where a number is meant."""
        if not self.words[j]:
            return
        line, cell = self.word[j]
        hint = ""
        if self.n_numbers(j, n) > STRAY * self.words[j]:
            hint = f" as in {self.n_numbers(j, n)} other rows; leave it empty if it is missing"
        elif self.odd[j] == self.words[j] and not DATE.fullmatch(cell):
            hint = "; write it without separators of thousands and other marks"
        if hint:
            raise Unsuitable(
                f"line {line}, {shown(names, j)}: expected a number, got {cell[:40]!r}{hint}, or "
                "leave the column out (--drop, drop=)"
            )


def _is_quoted(text, cells, separator):
    """Whether every cell of a row is in quotation marks."""
    text = text.strip()
    inside = text.count(f'"{separator}"') >= len(cells) - 1
    return len(text) > 1 and text[0] == text[-1] == '"' and inside


def _words(content, separator, columns, skip):
    """{column: Words} of these columns, from a second reading; skip: leave out the first row."""
    if not columns:
        return {}
    codes, known = [array("i") for _ in columns], [{} for _ in columns]
    for _, text, quoted in islice(_lines(content), int(skip), None):
        cells = _cells(text, quoted, separator)
        for j, code, words in zip(columns, codes, known, strict=True):
            cell = cells[j].strip()
            code.append(-1 if cell in MISSING else words.setdefault(cell, len(words)))
    return {
        j: Words(np.frombuffer(code, np.intc), list(words))
        for j, code, words in zip(columns, codes, known, strict=True)
    }
