"""Small data files for tests, and what reading them says."""

import gzip
import struct

import numpy as np
import pytest

from minivae.datasets import load


def rows(dataset):
    """All rows of a data set, sorted, to compare with a file whose rows are in another order."""
    both = np.concatenate([dataset.train, dataset.test])
    return both[np.lexsort(both.T[::-1])]


def idx_bytes(array, code=0x08):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return (
        bytes([0, 0, code, array.ndim])
        + shape
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def write_mnist_like(folder, n_train=6, n_test=3, compress=gzip.compress):
    """Four small IDX files under MNIST's names; returns the training images and labels."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    suffix = ".gz" if compress is gzip.compress else ""
    written = []
    for part, n in [("train", n_train), ("t10k", n_test)]:
        images = rng.integers(0, 256, (n, 4, 5), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        for kind, array in [("images-idx3", images), ("labels-idx1", labels)]:
            path = folder / f"{part}-{kind}-ubyte{suffix}"
            path.write_bytes(compress(idx_bytes(array)))
            written.append(array)
    return written[0], written[1]


def saved(path, array):
    np.save(path, array)
    return path


def message(path, **arguments):
    with pytest.raises(ValueError) as caught:
        load(path, **arguments)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)
