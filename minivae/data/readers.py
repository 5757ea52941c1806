"""The formats of data files: what is in a file as an array, and what of that are rows of numbers.

Every file is untrusted: nothing is unpickled, sizes are checked before memory is taken, and a
damaged file gives a ValueError that begins with its path. Do not shorten a .npy while it is read.
"""

import io
import math
import re
import zipfile

import numpy as np

from minivae.data.delimited import read_delimited
from minivae.data.packed import GZIP, check_unpacked_size, gunzip
from minivae.data.parquet import read_parquet
from minivae.data.tables import Choice, Table, Unsuitable, check_finite

DATA_KEYS, LABEL_KEYS = ("X", "x", "data", "train"), ("y", "labels")
COLUMNS = (read_delimited, read_parquet)  # the readers of tables, whose columns can be chosen
KINDS = ".npy, .npz, .csv or .tsv (also .gz), .parquet, or IDX (*-ubyte or .idx*, also .gz)"
PACKED = (
    "its bytes look like packed bits, eight pixels each; if they are, unpack them first: "
    "numpy.unpackbits(X, axis=1)"
)
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def reader_of(path):
    """The function that reads a file of this name, as its ending says; None if none does."""
    name = path.name.lower()
    if re.search(r"(-ubyte|\.idx[^.]*)(\.gz)?$", name):
        return _read_idx
    if re.search(r"\.[ct]sv(\.gz)?$", name):
        return read_delimited
    return {".npy": _read_npy, ".npz": _read_npz, ".parquet": read_parquet}.get(path.suffix.lower())


def values_in(path, choice=Choice()):  # noqa: B008  (it has no state)
    """The Table in a file, as the file has it; every fault in it is a ValueError.

    choice: which columns are not learned, where there are columns.
    """
    reader = reader_of(path)
    if reader is None:
        raise ValueError(f"expected a file {KINDS}, got {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():  # to open a pipe would wait for its other end
        raise ValueError(f"{path}: not a file, but a folder, pipe, socket or device")
    columns = reader in COLUMNS
    if choice.wanted and not columns:
        raise ValueError(f"{path}: label and drop are for tables with columns, .csv and .parquet")
    try:
        return reader(path, choice) if columns else Table(None, *reader(path))
    except PermissionError:
        raise
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error
    except Unsuitable as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # damaged bytes make the libraries raise errors of many kinds
        raise ValueError(f"{path}: damaged or unsuitable file: {error}") from error


def _array(content, start, shape, dtype, order="C"):
    """All bytes behind the header of a file as an array of the shape that the header announces."""
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"the header's {dtype} {str(shape)[:200]} is not what follows")
    return np.ndarray(shape, dtype, content, start, order=order)


def _read_idx(path):
    content = path.read_bytes()
    zipped = content[:2] == GZIP  # the name can lie
    header = gunzip(content, 4 + 4 * 255) if zipped else content
    # Two zero bytes, type, number of axes, then each axis as a big-endian uint32.
    if len(header) < 4 or header[:2] != b"\0\0" or header[2] not in IDX_TYPES or header[3] == 0:
        raise ValueError(f"not IDX, which begins 00 00 type axes, but {header[:4].hex(' ')!r}")
    start, dtype = 4 + 4 * header[3], np.dtype(IDX_TYPES[header[2]])
    shape = np.frombuffer(header[4:start], ">u4").tolist()
    if zipped:
        n_bytes = start + math.prod(shape) * dtype.itemsize
        check_unpacked_size(n_bytes, path)
        content = gunzip(content, n_bytes + 1)
    return _array(content, start, shape, dtype), None


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
        check_unpacked_size(sum(info.file_size for info in archive.infolist()), path)
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


def rows_in(path, choice=Choice()):  # noqa: B008
    """(Table of rows, image shape or None) of a file, after all checks and conversions.

    Rows are a float matrix (n, D), or the DataFrame of a table with words. NaN stays: whether a
    model can have it is the model's to say. Infinity is refused.
    """
    table = values_in(path, choice)
    if reader_of(path) not in COLUMNS:
        matrix, labels, shape = checked(path, table.values, table.labels)
        notes = (PACKED,) if shape is None and looks_packed(table.values) else ()
        return table._replace(values=matrix, labels=labels, notes=notes), shape
    _check_shape(path, table.values)
    return table, None


def looks_packed(values):
    """Whether bytes look like eight pixels each, and not like one pixel of many greys.

    In pictures of two colours neighbours are alike, so most bytes are one run of equal bits: 35 of
    254 numbers are. In binarised MNIST it is 89 % of those other than 0 and 255, in MNIST 28 %, in
    Frey Face 7 %.
    """
    if values.dtype != np.uint8:
        return False
    values = values[:1000]
    mixed = values[(values > 0) & (values < 255)]
    runs = [((1 << length) - 1) << start for length in range(1, 8) for start in range(9 - length)]
    return mixed.size >= 100 and np.isin(mixed, runs).mean() > 0.6


def _check_shape(path, values):
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            f"{path}: expected rows (n, D) or images (n, height, width), at least one, "
            f"got an array of shape {values.shape}"
        )


def checked(path, values, labels):
    """(matrix (n, D), labels or None, image shape or None) of arrays, as in `rows_in`."""
    _check_shape(path, values)
    matrix = np.asarray(values).reshape(len(values), -1)
    if values.dtype == np.uint8:
        matrix = np.divide(matrix, 255, dtype=np.float32)
    else:
        double = values.dtype.kind == "f" and values.dtype.itemsize >= 8
        with np.errstate(all="ignore"):  # overflow gives infinity, refused below
            matrix = matrix.astype(np.float64 if double else np.float32)
    try:
        check_finite(matrix)
    except Unsuitable as error:
        raise ValueError(f"{path}: {error}") from error
    if labels is not None:
        if labels.shape != (len(matrix),) or labels.dtype.kind not in "biu":
            raise ValueError(
                f"{path}: labels must be {len(matrix)} integers, got {labels.shape} {labels.dtype}"
            )
        labels = labels.astype(np.int64)
    return matrix, labels, values.shape[1:] if values.ndim == 3 else None
