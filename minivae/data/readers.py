"""The formats of data files: what is in a file as an array, and what of that are rows of numbers.

Every file is untrusted: nothing is unpickled, sizes are checked before memory is taken, and a
damaged file gives a ValueError that begins with its path. Do not shorten a .npy while it is read.
"""

import csv
import io
import math
import re
import zipfile
import zlib
from array import array

import numpy as np

# A compressed file may unpack to this many bytes, or to this many times its size if that is more.
MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO = 512 * 1024**2, 100
DATA_KEYS, LABEL_KEYS = ("X", "x", "data", "train"), ("y", "labels")
KINDS = ".npy, .npz, .csv, .parquet, or IDX (*-ubyte or .idx*, plain or .gz)"
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def reader_of(path):
    """The function that reads a file of this name, as its ending says; None if none does."""
    if re.search(r"(-ubyte|\.idx[^.]*)(\.gz)?$", path.name.lower()):
        return _read_idx
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    return readers.get(path.suffix.lower())


def values_in(path):
    """(values, labels or None) as the file has them; every fault in it is a ValueError."""
    reader = reader_of(path)
    if reader is None:
        raise ValueError(f"expected a file {KINDS}, got {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():  # to open a pipe would wait for its other end
        raise ValueError(f"{path}: not a file, but a folder, pipe, socket or device")
    try:
        return reader(path)
    except (ImportError, PermissionError):
        raise
    except Exception as error:  # damaged bytes make the libraries raise errors of many kinds
        raise ValueError(f"{path}: damaged or unsuitable file: {error}") from error


def _check_unpacked_size(n_bytes, path):
    limit = max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    if n_bytes > limit:
        raise ValueError(f"unpacks to {n_bytes} bytes, more than {limit}: save it as a plain .npy")


def _array(content, start, shape, dtype, order="C"):
    """All bytes behind the header of a file as an array of the shape that the header announces."""
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"the header's {dtype} {str(shape)[:200]} is not what follows")
    return np.ndarray(shape, dtype, content, start, order=order)


def _read_idx(path):
    content = path.read_bytes()
    zipped = content[:2] == b"\x1f\x8b"  # the name can lie: some browsers unpack a .gz
    header = _gunzip(content, 4 + 4 * 255) if zipped else content
    # Two zero bytes, type, number of axes, then each axis as a big-endian uint32.
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in IDX_TYPES or header[3] == 0:
        raise ValueError(f"not IDX, which begins 00 00 type axes, but {header[:4].hex(' ')!r}")
    start, dtype = 4 + 4 * header[3], np.dtype(IDX_TYPES[header[2]])
    shape = np.frombuffer(header[4:start], ">u4").tolist()
    if zipped:
        n_bytes = start + math.prod(shape) * dtype.itemsize
        _check_unpacked_size(n_bytes, path)
        content = _gunzip(content, n_bytes + 1)
    return _array(content, start, shape, dtype), None


def _gunzip(content, n_bytes):
    """The first `n_bytes` of what a gzip file of one member holds, or all if there are fewer."""
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip
    unpacked = unpacker.decompress(content, n_bytes)
    if (len(unpacked) < n_bytes and not unpacker.eof) or unpacker.unused_data.strip(b"\0"):
        raise ValueError("cut off, or more than one gzip member: unpack it with gunzip")
    return unpacked


def _read_npy(path):
    return _npy_array(np.memmap(path, np.uint8, "r")), None


def _npy_array(content):
    header = io.BytesIO(content[:1024])  # a longer one could be nested too deep for Python's parser
    version = np.lib.format.read_magic(header)[0]
    if version not in (1, 2, 3):
        raise ValueError(f"a header of version {version}, and 1 to 3 are known")
    version = min(version, 2)  # 3 differs from 2 in names of fields
    shape, fortran_order, dtype = getattr(np.lib.format, f"read_array_header_{version}_0")(header)
    if dtype.kind not in "biuf":
        raise ValueError(f"expected real numbers, got values of type {dtype}")
    return _array(content, header.tell(), shape, dtype, "F" if fortran_order else "C")


def _read_npz(path):
    content = path.read_bytes()
    if content.count(b"PK\1\2") > 32:  # entries of the directory; each may cost zipfile 20 ms
        raise ValueError("more than 32 arrays: save only the data and its labels")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_unpacked_size(sum(info.file_size for info in archive.infolist()), path)
        keys = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
        labels = [key for key in keys if key in LABEL_KEYS]
        data = [key for key in keys if key in DATA_KEYS] or [k for k in keys if k not in labels]
        if len(data) != 1 or len(labels) > 1:
            raise ValueError(
                f"cannot tell which array is the data among {', '.join(keys)[:400] or '(none)'}: "
                f"name one {' or '.join(DATA_KEYS)}, and its labels {' or '.join(LABEL_KEYS)}"
            )
        arrays = []
        for key in data + labels:
            info = archive.getinfo(f"{key}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("compressed in a way that NumPy does not write")  # a memory bomb?
            with archive.open(info) as stream:
                arrays.append(_npy_array(stream.read(info.file_size)))
    return arrays[0], arrays[1] if labels else None


def _read_csv(path):
    values, width, names = array("f"), 0, None
    limit = max(2**15, path.stat().st_size // 10)  # a line's cells take 35 times its memory
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(iter(lambda: file.readline(limit), ""), start=1):
            if len(line) == limit:
                raise ValueError(f"line {number} has {limit} characters or more: save it as .npy")
            line = line.strip()
            if not line:
                continue
            cells = next(csv.reader([line], strict=True)) if '"' in line else line.split(",")
            row = [_number(cell) for cell in cells]
            if not width:
                width = len(row)
                if row.count(None) == width and not all(map(_is_value, cells)):
                    names = cells
                    continue
            if len(row) != width:
                hint = _hint(line)
                raise ValueError(f"line {number} has {len(row)} cells instead of {width}{hint}")
            if None in row:
                column = row.index(None)
                name = f" ({names[column].strip()[:40]!r})" if names else ""
                hint = _hint(line, cells[column]) or (
                    " (only the first line may be text, and then all of it)"
                )
                raise ValueError(
                    f"line {number}, column {column + 1}{name}: expected a number, got "
                    f"{cells[column][:40]!r}{hint}"
                )
            values.extend(row)
    return np.frombuffer(values, np.float32).reshape(-1, max(width, 1)), None


# What may stand for a value, so that a line of nothing else is no header.
VALUE = re.compile(r"(true|false|na|n/a|null|none|0x[\da-f]+|[-+]?[\d_.]+(e[-+]?\d+)?)?", re.I)


def _is_value(cell):
    return all(VALUE.fullmatch(word.strip()) for word in re.split(r"[;\t]", cell))


def _hint(line, cell=""):
    """What may be wrong with a line of a csv file, as words in brackets."""
    for mark, word in (";", "semicolons"), ("\t", "tabs"):
        if mark in line:
            return f" (separator? this line has {word}, and cells are to be separated by commas)"
    if cell.strip().lower() in ("true", "false"):
        return " (write 1 for true and 0 for false)"
    return ""


def _number(cell):
    try:
        return None if "_" in cell else float(cell)  # float takes 1_000 for a thousand
    except ValueError:
        return None


def _read_parquet(path):
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow: pip install pyarrow") from error
    with parquet.ParquetFile(path) as file:
        facts, schema = file.metadata, file.schema_arrow
        columns = [field for field in schema if field.name not in _index_columns(schema)]
        numbers = types.is_boolean, types.is_integer, types.is_floating
        text = [c.name for c in columns if not any(kind(c.type) for kind in numbers)]
        if text:
            text = ", ".join(text)[:400]
            raise ValueError(f"the columns {text} do not hold numbers: drop or encode them")
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise ValueError("two columns have one name: rename one")
        groups = [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]
        _check_unpacked_size(8 * len(columns) * max(facts.num_rows, sum(groups)), path)
        double = any(types.is_float64(column.type) for column in columns)
        matrix = np.empty((facts.num_rows, len(columns)), np.float64 if double else np.float32)
        for j, name in enumerate(names):
            matrix[:, j] = file.read([name])[name].to_numpy()  # null is NaN
    return matrix, None


def _index_columns(schema):
    """Names of columns that a frame of pandas had beside its own."""
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    return [name for name in index if isinstance(name, str)]


def table(path, values, labels):
    """(matrix (n, D), labels or None, image shape or None) after all checks and conversions."""
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            f"{path}: expected rows (n, D) or images (n, height, width), at least one, "
            f"got an array of shape {values.shape}"
        )
    matrix = np.asarray(values).reshape(len(values), -1)
    if values.dtype == np.uint8:
        matrix = np.divide(matrix, 255, dtype=np.float32)
    else:
        double = values.dtype.kind == "f" and values.dtype.itemsize >= 8
        with np.errstate(all="ignore"):  # overflow gives infinity, refused below
            matrix = matrix.astype(np.float64 if double else np.float32)
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = divmod(int(finite.argmin()), matrix.shape[1])
        raise ValueError(
            f"{path}: {(~finite).sum()} values are NaN or infinite, the first in row {row}, column "
            f"{column}, counted from 0 (what is too large for {matrix.dtype} counts as infinite): "
            "remove or fill them"
        )
    if labels is not None:
        if labels.shape != (len(matrix),) or labels.dtype.kind not in "biu":
            raise ValueError(
                f"{path}: labels must be {len(matrix)} integers, got {labels.shape} {labels.dtype}"
            )
        labels = labels.astype(np.int64)
    return matrix, labels, values.shape[1:] if values.ndim == 3 else None
