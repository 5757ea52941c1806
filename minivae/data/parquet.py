"""Tables in .parquet, by pyarrow: columns of numbers, truth values and words."""

import numpy as np

from minivae.data.packed import check_unpacked_size
from minivae.data.tables import Unsuitable, Words, assemble, check_names, refuse_dates, shown


def read_parquet(path, choice):
    """The Table in a .parquet file. Columns of float32 and truth values alone stay float32, all
    other numbers are float64; the index that a frame of pandas had is left out.

    choice: which columns are not learned; those that are not read may be of any type. Unsuitable,
    with the column's name, for dates, times, lists and what else is no number or word.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("to read .parquet needs pyarrow: pip install pyarrow") from error
    with parquet.ParquetFile(path) as file:
        facts, fields = file.metadata, _fields(file.schema_arrow)
    names = tuple(field.name for field in fields)
    check_names(names)
    keep, label = choice.split(names, len(names))
    kinds = {j: _kind(fields[j].type) for j in range(len(fields)) if j == label or j in {*keep}}
    _check_kinds(names, fields, kinds)
    text = {names[j] for j, kind in kinds.items() if kind == "word"}
    check_unpacked_size(_size(facts, len(kinds), text), path)
    single = all(str(fields[j].type) in ("float", "halffloat", "bool") for j in keep)
    numbers = np.full((facts.num_rows, len(names)), np.nan, np.float32 if single else np.float64)
    words = {}
    # Words stay as codes and a dictionary: a long one that is repeated would fill the memory.
    with parquet.ParquetFile(path, read_dictionary=sorted(text)) as file:
        for j, kind in kinds.items():
            column = file.read([names[j]])[names[j]]
            if kind == "word":
                words[j] = _words(column)
            else:
                numbers[:, j] = _floats(column)
    truths = {j for j, kind in kinds.items() if kind == "truth"}
    return assemble(names, numbers, truths, words, keep, label)


def _fields(schema):
    """The columns of a frame, without those that were its index."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    index = {name for name in index if isinstance(name, str)}
    return [field for field in schema if field.name not in index]


def _kind(kind):
    """What a type of pyarrow is here: number, truth, word, date, or None for all else."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = {
        "truth": ("is_boolean",),
        "number": ("is_integer", "is_floating", "is_decimal", "is_null"),
        "word": ("is_string", "is_large_string", "is_string_view"),
        "date": ("is_temporal",),
    }
    for name, functions in tests.items():
        if any(getattr(types, f, lambda kind: False)(kind) for f in functions):  # some are new
            return name
    return None


def _check_kinds(names, fields, kinds):
    """Raise for a column that cannot be learned."""
    for j, kind in kinds.items():
        if kind == "date":
            refuse_dates(shown(names, j), f"of type {fields[j].type}")
        if kind is None:
            raise Unsuitable(
                f"{shown(names, j)} does not hold numbers or words, but {str(fields[j].type)[:100]}"
                ": leave it out (--drop, drop=), or make numbers of it"
            )


def _size(facts, n_columns, text):
    """Bytes that the columns unpack to, as the file announces them; text: names of some of words,
    which take what their pages take beside the codes."""
    groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
    size = 8 * n_columns * max(facts.num_rows, sum(group.num_rows for group in groups))
    for group in groups if text else ():
        for column in (group.column(k) for k in range(group.num_columns)):
            if column.path_in_schema in text:
                size += column.total_uncompressed_size
    return size


def _floats(column):
    """A column as numbers (n,), with NaN for null."""
    from pyarrow import float64, types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not types.is_floating(column.type):  # which cannot be cast if they are float16
        column = column.cast(float64(), safe=False)  # integers beyond 2^53 are rounded
    return column.to_numpy()  # null is NaN


def _words(column):
    """A column as Words."""
    from pyarrow import types

    if not types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries().combine_chunks()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Words(codes.astype(np.intc), column.dictionary.to_pylist())
