"""Named data sets, downloads, and how rows are split into training and test parts."""

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pooch
import pytest
import scipy.io
from data_files import idx_bytes, message, rows, saved, write_mnist_like

from minivae import datasets
from minivae.datasets import NAMES, load

SETS = ("mnist", "fashion-mnist")
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# Named sets


def test_digits():
    data = load()
    assert data.name == "digits" and data.image_shape == (8, 8)
    assert data.train.shape == (1617, 64) and data.test.shape == (180, 64)
    assert data.train.dtype == data.test.dtype == np.float32
    assert data.train.min() == 0 and data.train.max() == 1
    counts = np.bincount(np.concatenate([data.train_labels, data.test_labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_labels_stay_with_their_rows():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    label_of = {row.tobytes(): label for row, label in zip(pixels / 16, labels, strict=True)}
    data = load("digits")
    for matrix, found in [(data.train, data.train_labels), (data.test, data.test_labels)]:
        assert [label_of[row.tobytes()] for row in matrix.astype(np.float64)] == found.tolist()


def test_mnist_from_the_real_files(data_dir):
    data = load("mnist", data_dir)
    assert data.train.shape == (60000, 784) and data.test.shape == (10000, 784)
    assert data.image_shape == (28, 28) and data.train.dtype == np.float32
    assert np.bincount(data.train_labels).tolist() == MNIST_TRAIN_COUNTS
    assert np.bincount(data.test_labels).tolist() == MNIST_TEST_COUNTS
    assert data.train.min() == 0 and data.train.max() == 1
    assert data.train.mean(dtype=np.float64) == pytest.approx(0.130660, abs=5e-7)  # as published
    assert data.test.mean(dtype=np.float64) == pytest.approx(0.132515, abs=5e-7)


def test_frey_face_from_the_real_file_keeps_the_end_of_the_film(data_dir):
    data = load("frey-face", data_dir, test_fraction=0.2)
    frames = np.load(data_dir / "frey_face.npy") / np.float32(255)
    assert data.image_shape == (28, 20) and data.train_labels is None
    assert data.train.dtype == np.float32 and data.test.shape == (393, 560)
    np.testing.assert_array_equal(data.train, frames[:1572])
    np.testing.assert_array_equal(data.test, frames[1572:])


def test_binarized_mnist_from_the_real_file(data_dir):
    data = load("binarized-mnist", data_dir)
    assert data.train.shape == (50000, 784) and data.test.shape == (10000, 784)
    assert data.image_shape == (28, 28) and data.test_labels is None
    assert data.train.dtype == np.float32 and np.unique(data.train).tolist() == [0, 1]
    assert data.train.sum(dtype=np.float64) == 5118041


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("subfolder", [True, False])
@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_idx_sets_from_a_folder(tmp_path, name, subfolder, compress):
    images, labels = write_mnist_like(tmp_path / name if subfolder else tmp_path, compress=compress)
    data = load(name, tmp_path)
    assert data.image_shape == (4, 5) and data.test.shape == (3, 20)
    np.testing.assert_array_equal(data.train, images.reshape(6, 20) / np.float32(255))
    assert data.train_labels.tolist() == labels.tolist() and data.train_labels.dtype == np.int64


def test_data_dir_may_come_from_the_environment(tmp_path, monkeypatch):
    write_mnist_like(tmp_path / "mnist")
    monkeypatch.setenv("MINIVAE_DATA_DIR", str(tmp_path))
    assert load("mnist").train.shape == (6, 20)
    with pytest.raises(FileNotFoundError):  # an argument wins
        load("mnist", tmp_path / "elsewhere")


@pytest.mark.parametrize("name", NAMES[1:])
def test_missing_file_in_the_folder(tmp_path, name):
    with pytest.raises(FileNotFoundError) as caught:
        load(name, tmp_path)
    text = str(caught.value)
    files = {"frey-face": "frey_face.npy", "binarized-mnist": "binarized_mnist.npz"}
    assert files.get(name, "train-images-idx3-ubyte.gz") in text
    assert str(tmp_path) in text and name in text and "--data-dir" in text
    assert ("to download" in text) == (name != "binarized-mnist")


def test_labels_and_images_must_agree(tmp_path):
    write_mnist_like(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(5, np.uint8))))
    with pytest.raises(ValueError, match=r"labels must be 6 integers.*\(5,\)"):
        load("mnist", tmp_path)
    write_mnist_like(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((3, 5, 4), np.uint8))))
    with pytest.raises(ValueError, match=r"images of \(5, 4\) pixels"):
        load("mnist", tmp_path)


def test_mnist_is_not_taken_for_fashion_mnist(data_dir):
    with pytest.raises(ValueError, match="belongs to mnist, not to fashion-mnist"):
        load("fashion-mnist", data_dir / "mnist")


def test_forged_content_under_a_known_name(tmp_path):
    np.savez(tmp_path / "binarized_mnist.npz", train=np.zeros((2, 98), np.uint8))
    with pytest.raises(ValueError, match="sha256 is different"):
        load("binarized-mnist", tmp_path)
    np.save(tmp_path / "frey_face.npy", np.zeros((1965, 560), np.uint8))
    with pytest.raises(ValueError, match="not the Frey Face frames"):
        load("frey-face", tmp_path)


# Downloads


def fake_retrieve(monkeypatch, answer):
    """Let pooch.retrieve call `answer(url, known_hash, fname)`; returns the list of its calls."""
    calls = []

    def retrieve(url, known_hash, fname=None, path=None):
        calls.append((url, known_hash, Path(path)))
        return str(answer(fname))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return calls


@pytest.mark.parametrize("name", SETS)
def test_idx_sets_are_downloaded_with_their_hashes(tmp_path, monkeypatch, name):
    images, _ = write_mnist_like(tmp_path)
    calls = fake_retrieve(monkeypatch, lambda file: tmp_path / file)
    data = load(name)
    np.testing.assert_array_equal(data.train, images.reshape(6, 20) / np.float32(255))
    assert len({url for url, _, _ in calls}) == len({digest for _, digest, _ in calls}) == 4
    for url, digest, folder in calls:
        assert url == datasets.URLS[name] + url.rsplit("/", 1)[1] and url.startswith("https://")
        assert len(bytes.fromhex(digest.removeprefix("sha256:"))) == 32
        assert folder == Path(pooch.os_cache("minivae")) / name  # the sets share file names


def test_hashes_of_the_real_mnist_files(data_dir):
    for file, digest in datasets.SHA256["mnist"].items():
        assert pooch.file_hash(str(data_dir / "mnist" / file), alg="sha256") == digest


def test_frey_face_is_downloaded_and_its_frames_are_checked(data_dir, tmp_path, monkeypatch):
    frames = np.load(data_dir / "frey_face.npy")
    path = tmp_path / "frey_rawface.mat"
    scipy.io.savemat(path, {"ff": frames.T})
    calls = fake_retrieve(monkeypatch, lambda file: path)
    np.testing.assert_array_equal(load("frey-face").train, load("frey-face", data_dir).train)
    assert [digest for _, digest, _ in calls] == [datasets.FREY_FILE_SHA256]

    frames[0, 0] += 1
    scipy.io.savemat(path, {"ff": frames.T})
    with pytest.raises(ValueError, match=r"frey_rawface\.mat: not the Frey Face frames"):
        load("frey-face")


def test_hash_of_the_original_frey_face_file(data_dir):
    """The file of 2000, rebuilt: it has the git blob id under which its repository keeps it."""
    frames = np.load(data_dir / "frey_face.npy").tobytes()
    header = b"MATLAB 5.0 MAT-file, Platform: LNX86, Created on: Mon Nov 13 18:11:48 2000"
    # Flags (6: uint32) with the class uint8 (9), sizes (5: int32), name (1: int8), data (2: uint8).
    matrix = struct.pack("<4I2I2i", 6, 8, 9, 0, 5, 8, 560, 1965) + struct.pack("<2H4s", 1, 2, b"ff")
    matrix += struct.pack("<2I", 2, len(frames)) + frames
    content = header.ljust(124) + b"\0\1IM" + struct.pack("<2I", 14, len(matrix)) + matrix
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert blob == "49f6866941bfaedd5be5444c64d440a885612e65"
    assert hashlib.sha256(content).hexdigest() == datasets.FREY_FILE_SHA256


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"MATLAB 5.0 MAT-file"])
def test_a_downloaded_page_is_not_the_frey_face(tmp_path, monkeypatch, content):
    path = tmp_path / "frey_rawface.mat"
    path.write_bytes(content)
    fake_retrieve(monkeypatch, lambda file: path)
    with pytest.raises(ValueError, match=r"frey_rawface\.mat: not the Frey Face frames; delete"):
        load("frey-face")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "frey-face"])
@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("SHA256 hash of file")])
def test_a_failing_download_says_what_to_do(monkeypatch, name, error):
    def fail(file):
        raise error

    fake_retrieve(monkeypatch, fail)
    with pytest.raises(OSError, match=rf"for {name} failed.*--data-dir.*{error}") as caught:
        load(name)
    assert caught.value.__cause__ is error


def test_binarized_mnist_is_not_downloaded():
    with pytest.raises(FileNotFoundError, match=r"cannot be downloaded.*binarized_mnist\.npz"):
        load("binarized-mnist")


# Arguments and the split


def test_the_split_is_fixed_and_complete(tmp_path):
    path = saved(tmp_path / "a.npy", np.arange(40).reshape(20, 2))
    first, second = load(path, test_fraction=0.25), load(path, test_fraction=0.25)
    assert first.train.shape == (15, 2) and first.test.shape == (5, 2)
    np.testing.assert_array_equal(rows(first), np.arange(40).reshape(20, 2))
    np.testing.assert_array_equal(first.test, second.test)
    assert first.test[:, 0].tolist() != list(range(30, 40, 2))  # not simply the end of the file


@pytest.mark.parametrize(("fraction", "n_test"), [(1e-9, 1), (0.5, 2), (0.999, 3)])
def test_each_part_has_a_row(tmp_path, fraction, n_test):
    data = load(saved(tmp_path / "a.npy", np.arange(8.0).reshape(4, 2)), test_fraction=fraction)
    assert (len(data.train), len(data.test)) == (4 - n_test, n_test)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), "0.1", None])
@pytest.mark.parametrize("name", ["digits", "mnist", "there_is_no_such_file.npy"])
def test_bad_test_fraction(name, fraction):
    with pytest.raises(ValueError, match="test_fraction must be a number between 0 and 1"):
        load(name, test_fraction=fraction)


def test_image_shape(tmp_path):
    path = saved(tmp_path / "a.npy", np.zeros((4, 6)))
    assert load(path, image_shape=(2, 3)).image_shape == (2, 3)
    assert load("digits", image_shape=[4, 16]).image_shape == (4, 16)
    assert load(path, image_shape=(1, -1)).image_shape == (1, 6)
    assert load(path, image_shape=(-1, 3)).image_shape == (2, 3)
    for bad in [(2, 2), (4, -1), (-1, -1), (0, -1), (6,), (1, 2, 3), (-2, -3), (2.0, 3.0), 6, "23"]:
        with pytest.raises(ValueError, match=r"height \* width = 6.*a\.npy"):
            load(path, image_shape=bad)


def test_unknown_data(tmp_path):
    with pytest.raises(ValueError, match=r"data must be one of digits, mnist.*got 'mnits'"):
        load("mnits")
    with pytest.raises(ValueError, match=r"\.csv.*picture\.png"):
        load(tmp_path / "picture.png")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.npy"):
        load(tmp_path / "gone.npy")
    (tmp_path / "folder.npy").mkdir()
    assert "a folder, pipe" in message(tmp_path / "folder.npy")
    with pytest.raises(TypeError, match="data must be a name or a path to a file, got ndarray"):
        load(np.zeros((3, 3)))


def test_importing_is_light():
    code = "import sys, minivae.datasets; print({'pooch', 'pandas', 'sklearn'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
