"""Data sets by name and data files by path, as float matrices with a held-out test part.

Files come from a local folder or, checked by sha256, from a download into the user's cache.
Every file is untrusted: nothing is unpickled, sizes are checked before memory is taken, and a
damaged file gives a ValueError that begins with its path. Do not shorten a .npy while it is read.
"""

import csv
import io
import math
import numbers
import os
import re
import zipfile
import zlib
from array import array
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = ("digits", "mnist", "fashion-mnist", "frey-face", "binarized-mnist")
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
    ),
    "frey-face": (
        "https://raw.githubusercontent.com/quanpn90/VAEAssignment-DLNN2020/"
        "bcd455f37227df30e0f3c582dc57df97081a11cc/data/"
    ),
}
# Of the file rebuilt from its frames and header, to which the git blob id at that address belongs.
FREY_FILE_SHA256 = "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64"
SHA256 = {
    "mnist": {  # computed; the same in url_checksums/mnist.txt of tensorflow/datasets
        TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion-mnist": {  # read in url_checksums/fashion_mnist.txt of tensorflow/datasets
        TRAIN_IMAGES: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        TRAIN_LABELS: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        TEST_IMAGES: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        TEST_LABELS: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    "frey-face": {"frey_rawface.mat": FREY_FILE_SHA256},
}
FREY_FRAMES_SHA256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"
BINARIZED_MNIST_SHA256 = "50de2c8299a5a297789293ab2c30f6fc3cb8c359a15e5e88d5501aa18ebb8fa5"

# A compressed file may unpack to this many bytes, or to this many times its size if that is more.
MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO = 512 * 1024**2, 100
DATA_KEYS, LABEL_KEYS = ("X", "x", "data", "train"), ("y", "labels")
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Dataset(NamedTuple):
    """Training part (n, D), test part (m, D), integer labels or None, (height, width) or None."""

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    image_shape: tuple[int, int] | None


def load(data="digits", data_dir=None, test_fraction=0.1, image_shape=None):
    """Read a named data set or a data file, split into a training and a test part.

    The matrices are float32; a file of float64 numbers stays float64. Arrays of uint8 (.npy, .npz,
    IDX) are taken for pixels and divided by 255; booleans become 0 and 1; every other number keeps
    its value. A 3-D array (n, height, width) is flattened to (n, D) and gives the image shape.

    Parameters
    ----------
    data : str or path
        One of `NAMES`, or a file: .npy, .npz (one array, or one named X, x, data or train; integer
        labels in y or labels), .csv (numbers between commas; a first line without any number is a
        header), .parquet (needs pandas and pyarrow), IDX (*-ubyte, .idx*, plain or .gz).
    data_dir : path, optional
        Folder with the files of a named set, directly or in a subfolder called like the set.
        Default: the environment variable MINIVAE_DATA_DIR, else files are downloaded.
    test_fraction : float
        Part of the rows to hold out, at least one, where there is no official split: rows drawn by
        a fixed permutation, but the last frames of `frey-face`, which are in order of time.
    image_shape : (height, width), optional
        Shape of a row seen as a picture; height * width must be D.

    Raises
    ------
    ValueError
        A bad argument, a damaged or empty file, values that are not finite real numbers.
    OSError
        A file is not there (FileNotFoundError), or a download failed.
    ImportError
        A .parquet file without pandas and pyarrow.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(f"data must be a name or a path to a file, got {type(data).__name__}")
    if not (isinstance(test_fraction, numbers.Real) and 0 < test_fraction < 1):
        raise ValueError(f"test_fraction must be a number between 0 and 1, got {test_fraction!r}")
    folder = data_dir or os.environ.get("MINIVAE_DATA_DIR")
    if data == "digits":
        dataset = _digits(test_fraction)
    elif data in ("mnist", "fashion-mnist"):
        dataset = _mnist(data, folder)
    elif data == "frey-face":
        dataset = _frey_face(folder, test_fraction)
    elif data == "binarized-mnist":
        dataset = _binarized_mnist(folder)
    else:
        path = Path(data)
        table = _table(path, *_read(path))
        if len(table[0]) < 2:
            raise ValueError(f"{path}: needs at least 2 rows, one to train and one to test on")
        dataset = _hold_out(path.name, *table, test_fraction)
    if image_shape is None:
        return dataset
    n_columns = dataset.train.shape[1]
    sides = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else ()
    positive = all(isinstance(side, numbers.Integral) and side > 0 for side in sides)
    if len(sides) != 2 or not positive or math.prod(sides) != n_columns:
        raise ValueError(
            f"image_shape must be (height, width) with height * width = {n_columns}, the number of "
            f"columns of {dataset.name}, got {image_shape!r}"
        )
    return dataset._replace(image_shape=sides)


def read(path):
    """All rows (n, D) of a data file, in order; kinds of files and errors as in `load`."""
    return _table(Path(path), *_read(Path(path)))[0]


def _digits(test_fraction):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    matrix = (pixels / 16).astype(np.float32)  # sixteenths are exact in float32
    return _hold_out("digits", matrix, labels.astype(np.int64), (8, 8), test_fraction)


def _mnist(name, folder):
    paths = [_find(name, folder, file, file.removesuffix(".gz")) for file in SHA256[name]]
    values = [_read(path)[0] for path in paths]
    train, train_labels, shape = _table(paths[0], values[0], values[1])
    test, test_labels, test_shape = _table(paths[2], values[2], values[3])
    if shape != test_shape:
        raise ValueError(f"{paths[2]}: images of {test_shape} pixels, {paths[0]} has {shape}")
    return Dataset(name, train, test, train_labels, test_labels, shape)


def _frey_face(folder, test_fraction):
    path = _find("frey-face", folder, "frey_rawface.mat", "frey_face.npy")
    # Both files end with the frames. No loadmat: a forged file can make it end the process.
    frames = path.read_bytes()[-1965 * 28 * 20 :]
    if sha256(frames).hexdigest() != FREY_FRAMES_SHA256:
        raise ValueError(f"{path}: not the Frey Face frames; delete the file and get it anew")
    table = _table(path, np.frombuffer(frames, np.uint8).reshape(-1, 28, 20), None)
    return _hold_out("frey-face", *table, test_fraction, in_time_order=True)


def _binarized_mnist(folder):
    path = _find("binarized-mnist", folder, "binarized_mnist.npz")
    if sha256(path.read_bytes()).hexdigest() != BINARIZED_MNIST_SHA256:
        raise ValueError(f"{path}: not the fixed-binarization MNIST (its sha256 is different)")
    with np.load(path, allow_pickle=False) as bits:
        train, test = (np.unpackbits(bits[k], axis=1).astype(np.float32) for k in ("train", "test"))
    return Dataset("binarized-mnist", train, test, None, None, (28, 28))


def _find(name, folder, *files):
    """Path of one of the files in the folder; without a folder, of the first file, downloaded."""
    if folder is None:
        return _download(name, files[0])
    twin = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}.get(name)
    for path in (place / file for place in (Path(folder) / name, Path(folder)) for file in files):
        if path.is_file():
            # The twins' files have the same names: refuse one set in the place of the other.
            if twin and SHA256[twin].get(path.name) == sha256(path.read_bytes()).hexdigest():
                raise ValueError(f"{path}: this file belongs to {twin}, not to {name}")
            return path
    download = " or leave it unset to download them" if name in URLS else ""
    raise FileNotFoundError(
        f"{name} needs {' or '.join(files)} in {Path(folder)} or in its subfolder {name}: put its "
        f"files there, pass another data_dir (--data-dir, MINIVAE_DATA_DIR){download}"
    )


def _download(name, file):
    import pooch

    if name not in URLS:
        raise FileNotFoundError(
            f"{name} cannot be downloaded: pass the folder of {file} as data_dir (--data-dir)"
        )
    cache = pooch.os_cache("minivae") / name
    try:
        return Path(pooch.retrieve(URLS[name] + file, SHA256[name][file], fname=file, path=cache))
    except (OSError, ValueError) as error:  # ValueError: another sha256
        raise OSError(
            f"download of {file} for {name} failed: get it in another way and pass its folder as "
            f"data_dir (--data-dir). Reason: {error}"
        ) from error


def _read(path):
    """(values, labels or None) as the file has them; every fault in it is a ValueError."""
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    is_idx = re.search(r"(-ubyte|\.idx[^.]*)(\.gz)?$", path.name.lower())
    reader = _read_idx if is_idx else readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"data must be one of {', '.join(NAMES)}, or a file {', '.join(readers)}, *-ubyte or "
            f".idx* (plain or .gz), got {str(path)!r}"
        )
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
    version = min(np.lib.format.read_magic(header)[0], 2)  # 3 differs from 2 in names of fields
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
    values, width = array("f"), 0
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
                if row.count(None) == width:
                    continue  # the header
            if len(row) != width:
                raise ValueError(f"line {number} has {len(row)} cells instead of {width}")
            if None in row:
                column = row.index(None)
                raise ValueError(
                    f"line {number}, column {column + 1}: expected a number, got "
                    f"{cells[column][:40]!r} (only the first line may be text, and then all of it)"
                )
            values.extend(row)
    return np.frombuffer(values, np.float32).reshape(-1, max(width, 1)), None


def _number(cell):
    try:
        return None if "_" in cell else float(cell)  # float takes 1_000 for a thousand
    except ValueError:
        return None


def _read_parquet(path):
    try:
        import pandas

        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise ImportError(f"{path} needs pandas and pyarrow: pip install pandas pyarrow") from error
    text = frame.select_dtypes(exclude=["number", "bool"]).columns
    if len(text):
        raise ValueError(f"the columns {', '.join(text)} do not hold numbers: drop or encode them")
    double = "float64" in frame.dtypes.astype(str).str.lower().to_list()  # Float64: with nulls
    return frame.to_numpy(np.float64 if double else np.float32, na_value=np.nan), None


def _table(path, values, labels):
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


def _hold_out(name, matrix, labels, image_shape, test_fraction, in_time_order=False):
    """The last rows for testing, in order of time or after a fixed permutation."""
    n = len(matrix)
    n_test = min(max(round(test_fraction * n), 1), n - 1)
    order = np.arange(n) if in_time_order else np.random.default_rng(0).permutation(n)
    train, test = order[:-n_test], order[-n_test:]
    train_labels, test_labels = (None, None) if labels is None else (labels[train], labels[test])
    return Dataset(name, matrix[train], matrix[test], train_labels, test_labels, image_shape)
