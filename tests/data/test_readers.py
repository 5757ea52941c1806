"""Data files: what good ones give, and what bad ones say."""

import gzip
import io
import pickle
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_files import idx_bytes, message, rows, saved

from minivae.data import packed
from minivae.datasets import load

# Types and values


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 51], [255, 102]], np.uint8), np.array([[0, 0.2], [1, 0.4]], np.float32)),
        (np.array([[True, False], [False, False]]), np.array([[1, 0], [0, 0]], np.float32)),
        (np.array([[-3, 300], [7, 0]], np.int64), np.array([[-3, 300], [7, 0]], np.float32)),
        (np.array([[1.5, 2], [0, 3]], np.float16), np.array([[1.5, 2], [0, 3]], np.float32)),
        (np.array([[0.1, 2], [0, 3]], np.float32), np.array([[0.1, 2], [0, 3]], np.float32)),
        (np.array([[0.1, 2], [0, 3]], np.float64), np.array([[0.1, 2], [0, 3]], np.float64)),
        (np.array([[0.1, 2], [0, 3]], ">f8"), np.array([[0.1, 2], [0, 3]], np.float64)),
        (np.asfortranarray([[0.1, 2], [0, 3]]), np.array([[0.1, 2], [0, 3]], np.float64)),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_npy_and_npz_values_and_types(tmp_path, kind, array, expected):
    path = tmp_path / f"a.{kind}"
    np.save(path, array) if kind == "npy" else np.savez_compressed(path, some_name=array)
    data = load(str(path))
    assert data.name == path.name and data.image_shape is None and data.train_labels is None
    assert data.train.dtype == data.test.dtype == expected.dtype and type(data.train) is np.ndarray
    # Divided by 255 or unchanged: equal to the last bit, but for the rounding of 51 / 255.
    order = np.lexsort(expected.T[::-1])
    np.testing.assert_allclose(rows(data), expected[order], rtol=np.finfo(expected.dtype).eps)


def test_images_are_flattened_and_remember_their_shape(tmp_path):
    images = np.random.default_rng(0).random((5, 2, 3))
    data = load(saved(tmp_path / "a.npy", images))
    assert data.image_shape == (2, 3)
    flat = images.reshape(5, 6)
    np.testing.assert_array_equal(rows(data), flat[np.lexsort(flat.T[::-1])])


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.arange(4.0), r"got an array of shape \(4,\)"),
        (np.float64(3), r"got an array of shape \(\)"),
        (np.zeros((2, 2, 2, 2)), r"got an array of shape \(2, 2, 2, 2\)"),
        (np.zeros((0, 3)), r"got an array of shape \(0, 3\)"),
        (np.zeros((3, 0)), r"got an array of shape \(3, 0\)"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([["2020-01-01"]], "datetime64[D]"), "datetime64"),
        (np.zeros(3, [("a", "f4")]), "expected real numbers"),
        (np.array([[1, None]], object), r"[Oo]bject"),
        (np.zeros((1, 3)), "at least 2 rows"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_unsuitable_arrays(tmp_path, kind, array, text):
    path = tmp_path / f"a.{kind}"
    np.save(path, array) if kind == "npy" else np.savez(path, X=array)
    with pytest.raises(ValueError, match=text) as caught:
        load(path)
    assert path.name in str(caught.value)


def test_infinity_is_refused_and_nan_is_for_the_model_to_judge(tmp_path):
    array = np.zeros((4, 3), np.float32)
    array[2, 1] = np.nan
    assert np.isnan(rows(load(saved(tmp_path / "a.npy", array)))).sum() == 1
    array[3, 0], array[3, 2] = np.inf, -np.inf
    text = message(saved(tmp_path / "a.npy", array))
    assert "2 values are infinite, the first in row 3, column 0, counted from 0" in text


# npz


def test_npz_with_labels(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    for key, label_key in [("X", "y"), ("x", "labels"), ("data", "y"), ("train", "labels")]:
        np.savez(tmp_path / "a.npz", **{key: x, label_key: np.arange(10, dtype=np.uint8)})
        data = load(tmp_path / "a.npz")
        assert data.train_labels.dtype == np.int64
        assert data.train_labels.tolist() == (data.train[:, 0] / 2).tolist()
        assert data.test_labels.tolist() == (data.test[:, 0] / 2).tolist()


@pytest.mark.parametrize(
    "arrays",
    [{"a": 1, "b": 1}, {"X": 1, "x": 1}, {"X": 1, "y": 1, "labels": 1}, {"y": 1}, {}],
)
def test_ambiguous_npz_names_its_arrays(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **{key: np.zeros((4, 2)) for key in arrays})
    text = message(path)
    assert "X or x or data or train" in text and (", ".join(arrays) or "(none)") in text


@pytest.mark.parametrize("labels", [np.arange(3), np.zeros((4, 1), int), np.zeros(4)])
def test_bad_labels(tmp_path, labels):
    np.savez(tmp_path / "a.npz", X=np.zeros((4, 2)), y=labels)
    assert "labels must be 4 integers" in message(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", X=np.zeros((4, 2)), y=["a"] * 4)
    assert "expected real numbers, got values of type <U1" in message(tmp_path / "a.npz")


def test_a_small_npz_cannot_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.zeros((2**11, 2**11)))  # 32 MiB in some 33 kB
    tracemalloc.start()
    try:
        assert "unpacks to" in message(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_npz_whose_directory_lies_about_the_size(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.zeros((2**8, 2**8)))
    with zipfile.ZipFile(path) as archive:
        real = struct.pack("<I", archive.infolist()[0].file_size)
    path.write_bytes(path.read_bytes().replace(real, struct.pack("<I", 1000)))
    assert "damaged or unsuitable" in message(path)


def test_forged_npy_header(tmp_path):
    array = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**10)}
    np.lib.format.write_array_header_1_0(array, header)
    (tmp_path / "a.npy").write_bytes(array.getvalue() + bytes(80))
    message(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("X.npy", array.getvalue() + bytes(80))
    message(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_truncated_npy_and_npz(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    array = np.random.default_rng(0).random((8, 8))
    np.save(path, array) if kind == "npy" else np.savez_compressed(path, X=array)
    content = path.read_bytes()
    for length in [0, 3, 9, 60, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        assert "damaged or unsuitable" in message(path)


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle"])
def test_pickles_are_never_loaded(tmp_path, kind):
    trap = np.array([[Trap(tmp_path / "sprung")]], object)
    path = tmp_path / ("a.npz" if kind == "npz" else "a.npy")
    if kind == "npz":
        np.savez(path, X=trap)
    elif kind == "npy":
        np.save(path, trap)
    else:
        path.write_bytes(pickle.dumps(trap))
    message(path)
    assert not (tmp_path / "sprung").exists()


# IDX


@pytest.mark.parametrize(
    ("dtype", "code"), [("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14)]
)
@pytest.mark.parametrize("name", ["a-ubyte", "a-ubyte.gz", "a.idx", "a.idx3", "a.IDX3-ubyte.gz"])
def test_idx_types_and_names(tmp_path, dtype, code, name):
    images = np.arange(24).reshape(4, 2, 3).astype(dtype)
    path = tmp_path / name
    path.write_bytes((gzip.compress if name.endswith("gz") else bytes)(idx_bytes(images, code)))
    data = load(path)
    assert data.image_shape == (2, 3)
    assert data.train.dtype == (np.float64 if dtype == "f8" else np.float32)
    expected = images.reshape(4, 6).astype(data.train.dtype) / (255 if dtype == "u1" else 1)
    np.testing.assert_array_equal(rows(data), expected)


def test_an_unpacked_file_may_still_be_called_gz(tmp_path):
    path = tmp_path / "a-ubyte.gz"
    path.write_bytes(idx_bytes(np.zeros((3, 2, 2), np.uint8)))
    assert load(path).train.shape == (2, 4)


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda b: b"", "not IDX"),
        (lambda b: b"\0\1" + b[2:], "not IDX"),
        (lambda b: b[:2] + b"\x0a" + b[3:], "not IDX"),
        (lambda b: b[:3] + b"\0" + b[4:], "not IDX"),
        (lambda b: b[:9], "damaged or unsuitable"),
        (lambda b: b[:8], "not what follows"),
        (lambda b: b[:-1], "not what follows"),
        (lambda b: b + b"\0", "not what follows"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "unpacks to|not what follows"),
    ],
)
def test_damaged_idx(tmp_path, compress, change, text):
    path = tmp_path / "a-ubyte"
    path.write_bytes(compress(change(idx_bytes(np.ones((3, 2, 2), np.uint8)))))
    assert re.search(text, message(path))


def test_damaged_gzip(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (10, 8, 8), dtype=np.uint8)
    content = gzip.compress(idx_bytes(noise))
    path = tmp_path / "a-ubyte.gz"
    wrong_sum = content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
    for damaged in [content[:5], content[: len(content) // 2], content[:-3], wrong_sum]:
        path.write_bytes(damaged)
        assert "damaged or unsuitable" in message(path)


def test_a_small_gzip_cannot_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "a-ubyte.gz"
    honest = bytes([0, 0, 8, 2]) + struct.pack(">2I", 2**13, 2**13) + bytes(2**26)  # 64 MB
    modest = bytes([0, 0, 8, 2]) + struct.pack(">2I", 2, 2) + bytes(2**26)
    for content, text in [(honest, "unpacks to"), (modest, "not what follows")]:
        path.write_bytes(gzip.compress(content, compresslevel=1))
        assert path.stat().st_size * 100 < 2**26
        tracemalloc.start()
        try:
            assert text in message(path)
            assert tracemalloc.get_traced_memory()[1] < 2**22
        finally:
            tracemalloc.stop()


def test_idx_labels_alone_are_no_data(tmp_path):
    path = tmp_path / "a-ubyte"
    path.write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    assert "shape (5,)" in message(path)
