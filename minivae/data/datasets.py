"""Data sets by name and data files by path, as float matrices with a held-out test part.

Files come from a local folder or, checked by sha256, from a download into the user's cache.
Every file is untrusted: readers.py says what that means.
"""

import math
import numbers
import os
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minivae.data.readers import COLUMNS, KINDS, checked, reader_of, rows_in, values_in
from minivae.data.tables import Choice, framed, take

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


class Dataset(NamedTuple):
    """Training part (n, D), test part (m, D), labels or None, (height, width) or None, names (D,)
    of the columns or None, and notes: what was done on reading that one may want to know.

    A table that has names, or words in it, has DataFrames as its parts. whole: of a table all rows
    in the file's order, as that says more of its columns: numbers that go up are no data.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None
    test_labels: np.ndarray | None
    image_shape: tuple[int, int] | None
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    whole: object = None


def load(data="digits", data_dir=None, test_fraction=0.1, image_shape=None, label=None, drop=()):
    """Read a named data set or a data file, split into a training and a test part.

    The matrices are float32; a file of float64 numbers stays float64, and text is read as float64.
    Arrays of uint8 (.npy, .npz, IDX) are taken for pixels and divided by 255; booleans become 0 and
    1; every other number keeps its value; NaN is a missing value. A 3-D array (n, height, width) is
    flattened to (n, D) and gives the image shape. A table (.csv, .tsv, .parquet) with names or with
    columns of words comes as pandas DataFrames, if pandas is installed: words as categories.

    Parameters
    ----------
    data : str or path
        One of `NAMES`, or a file: .npy, .npz (one array, or one named X, x, data or train; integer
        labels in y or labels), .csv or .tsv (plain or .gz; cells between commas, semicolons or
        tabs, with or without a header; minivae/data/delimited.py says how that is found), .parquet
        (needs pyarrow), IDX (*-ubyte, .idx*, plain or .gz).
    data_dir : path, optional
        Folder with the files of a named set, directly or in a subfolder called like the set.
        Default: the environment variable MINIVAE_DATA_DIR, else files are downloaded.
    test_fraction : float
        Part of the rows to hold out, at least one, where there is no official split: rows drawn by
        a fixed permutation, but the last frames of `frey-face`, which are in order of time.
    image_shape : (height, width), optional
        Shape of a row seen as a picture; height * width must be D. -1: as many as there are.
    label : str, optional
        Name of a table's column that holds classes: it becomes the labels and is not learned.
    drop : list of str
        Names of a table's columns to leave out; nothing in them matters. Without a header the
        columns are called x1, x2, ...

    Raises
    ------
    ValueError
        A bad argument, a damaged or empty file, infinity, a column of dates or of numbers with a
        stray word among them.
    OSError
        A file is not there (FileNotFoundError), or a download failed.
    ImportError
        A .parquet file without pyarrow, or a table with words without pandas.
    """
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(f"data must be a name or a path to a file, got {type(data).__name__}")
    choice = _choice(label, drop)
    if not (isinstance(test_fraction, numbers.Real) and 0 < test_fraction < 1):
        raise ValueError(f"test_fraction must be a number between 0 and 1, got {test_fraction!r}")
    if data in NAMES and choice.wanted:
        raise ValueError(f"label and drop are for tables with columns, and {data} is none")
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
        if reader_of(path) is None:
            raise ValueError(f"data must be one of {', '.join(NAMES)}, or a file {KINDS}, got "
                             f"{str(path)!r}")  # fmt: skip
        table, shape = rows_in(path, choice)
        if len(table.values) < 2:
            raise ValueError(f"{path}: needs at least 2 rows, one to train and one to test on")
        X = framed(table)
        dataset = _hold_out(path.name, X, table.labels, shape, test_fraction)
        dataset = dataset._replace(names=table.names, notes=table.notes)
        if is_table(path):
            dataset = dataset._replace(whole=X)
    if image_shape is None:
        return dataset
    n_columns = dataset.train.shape[1]
    sides = tuple(image_shape) if isinstance(image_shape, (tuple, list)) else ()
    whole = all(isinstance(side, numbers.Integral) for side in sides)
    if len(sides) == 2 and whole and min(sides) == -1 and max(sides) > 0:
        sides = tuple(n_columns // max(sides) if side == -1 else side for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1 or math.prod(sides) != n_columns:
        raise ValueError(
            f"image_shape must be (height, width) with height * width = {n_columns}, the number of "
            f"columns of {dataset.name}, got {image_shape!r}"
        )
    return dataset._replace(image_shape=sides)


def is_table(data):
    """Whether it is the name of a file with columns: .csv, .tsv, .parquet."""
    return data not in NAMES and reader_of(Path(data)) in COLUMNS


def read(path, label=None, drop=()):
    """All rows (n, D) of a data file, in order; kinds of files, label, drop and errors as in
    `load`."""
    return framed(read_table(path, _choice(label, drop)))


def read_table(path, choice):
    """The `tables.Table` of all rows of a data file, for a `tables.Choice` of its columns."""
    return rows_in(Path(path), choice)[0]


def _choice(label, drop):
    if not (label is None or isinstance(label, str)):
        raise TypeError(f"label must be the name of a column, got {label!r}")
    if isinstance(drop, str) or not all(isinstance(name, str) for name in drop):
        raise TypeError(f"drop must be a list of names of columns, got {drop!r}")
    return Choice(label, tuple(drop))


def _digits(test_fraction):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    matrix = (pixels / 16).astype(np.float32)  # sixteenths are exact in float32
    return _hold_out("digits", matrix, labels.astype(np.int64), (8, 8), test_fraction)


def _mnist(name, folder):
    paths = [_find(name, folder, file, file.removesuffix(".gz")) for file in SHA256[name]]
    values = [values_in(path).values for path in paths]
    train, train_labels, shape = checked(paths[0], values[0], values[1])
    test, test_labels, test_shape = checked(paths[2], values[2], values[3])
    if shape != test_shape:
        raise ValueError(f"{paths[2]}: images of {test_shape} pixels, {paths[0]} has {shape}")
    return Dataset(name, train, test, train_labels, test_labels, shape)


def _frey_face(folder, test_fraction):
    path = _find("frey-face", folder, "frey_rawface.mat", "frey_face.npy")
    # Both files end with the frames. No loadmat: a forged file can make it end the process.
    frames = path.read_bytes()[-1965 * 28 * 20 :]
    if sha256(frames).hexdigest() != FREY_FRAMES_SHA256:
        raise ValueError(f"{path}: not the Frey Face frames; delete the file and get it anew")
    rows = checked(path, np.frombuffer(frames, np.uint8).reshape(-1, 28, 20), None)
    return _hold_out("frey-face", *rows, test_fraction, in_time_order=True)


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


def _hold_out(name, matrix, labels, image_shape, test_fraction, in_time_order=False):
    """The last rows for testing, in order of time or after a fixed permutation."""
    n = len(matrix)
    n_test = min(max(round(test_fraction * n), 1), n - 1)
    order = np.arange(n) if in_time_order else np.random.default_rng(0).permutation(n)
    train, test = order[:-n_test], order[-n_test:]
    train_labels, test_labels = (None, None) if labels is None else (labels[train], labels[test])
    return Dataset(
        name, take(matrix, train), take(matrix, test), train_labels, test_labels, image_shape
    )
