"""Hostile data files: made by hand, one for each trick, and by the thousand with a fixed seed.

Whatever a file holds, reading it ends with numbers that are not infinite, with words where it is a
table of words, or with a ValueError that begins with the file's path, within 2 seconds and within
10 times the memory of the file (or of what it unpacks to).
"""

import contextlib
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
from hostile_data import (
    BZIP2,
    DEFLATED,
    EYE,
    IMAGES,
    TRAP,
    Trap,
    announce,
    cells,
    directory,
    good_files,
    gz,
    hostile_file,
    idx,
    lzma_dictionary,
    mat,
    npy,
    npy_header,
    npz,
    repeated,
    zip64_size,
)

from minivae import datasets

with contextlib.suppress(ImportError):  # which takes a second or more, and is no file's fault
    import pandas  # noqa: F401

SECONDS, TIMES, SLACK = 2, 10, 2**20
FREY_BYTES = 1965 * 28 * 20


def attempt(reader, path):
    try:
        return reader(path)
    except ValueError as error:
        return str(error)


def read(path, unpacked=0, reader=datasets.read):
    """The matrix in a file, or the text of its ValueError, after all demands were checked."""
    start = time.perf_counter()
    answer = attempt(reader, path)
    seconds = time.perf_counter() - start
    tracemalloc.start()  # in a second go, as it takes its time
    again = attempt(reader, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    size = path.stat().st_size if path.is_file() else 0
    assert seconds < SECONDS, f"{seconds:.1f} s"
    assert peak < TIMES * max(size, unpacked) + SLACK, f"{peak} bytes for a file of {size}"
    assert type(answer) is type(again)
    if isinstance(answer, str):
        assert answer.startswith(f"{path}: ") and len(answer) < 4000
    elif isinstance(answer, np.ndarray):
        assert answer.ndim == 2 and answer.dtype in (np.float32, np.float64) and answer.size
        assert not np.isinf(answer).any()
    else:  # a frame: a table with names or words
        assert answer.size and {dtype.kind for dtype in answer.dtypes} <= set(
            "fbO"
        )  # O: categories
        assert not np.isinf(answer.select_dtypes("float64")).any(axis=None)
    return answer


NOT_WHAT, NO_NUMBER = "is not what follows", "expected a number, got"
CUT, METHOD = "cut off, or more than one gzip member", "in a way that NumPy does not write"

# By suffix and name: the bytes, and what the ValueError says or, if None, that the file is read.
# fmt: off
BY_HAND = {
    ".npz": {
        "inner header asks for 2 GB": (lambda: npz(X=announce((2**15, 2**13))), NOT_WHAT),
        "inner header of 4 GB": (
            lambda: npz(X=npy_header("{", version=2, length=2**32 - 1)), "header"),
        "inner shape overflows": (lambda: npz(X=announce((2**62, 2**62))), NOT_WHAT),
        "inner objects": (lambda: npz(X=TRAP), "got values of type object"),
        "inner pickle": (lambda: npz(X=pickle.dumps(Trap())), "magic"),
        "inner bytes left over": (lambda: npz(X=npy(EYE) + b"\0"), NOT_WHAT),
        "name with a path": (lambda: npz(**{"../../X": npy(EYE)}), None),
        "name with an absolute path": (lambda: npz(**{"/tmp/X": npy(EYE)}), None),
        "same name twice": (
            lambda: npz(X=npy(EYE), Z=npy(EYE)).replace(b"Z.npy", b"X.npy"), "among X, X: name"),
        "names of 64 kB": (
            lambda: npz(**{letter + "ü" * 32_000: npy(EYE) for letter in "abcdef"}), "among aüü"),
        "encrypted": (lambda: directory(npz(X=npy(EYE)), flags=1), "encrypted"),
        "strongly encrypted": (lambda: directory(npz(X=npy(EYE)), flags=65), "encryption"),
        "zip64 with an endless size": (lambda: zip64_size(2**63), "unpacks to"),
        "zip64 with a size below the limit": (lambda: zip64_size(2**28), None),
        "directory and header ask for 128 MB": (
            lambda: directory(npz(X=announce((2**11, 2**13))), size=2**27 + 128), NOT_WHAT),
        "directory hides a bomb": (
            lambda: directory(npz(DEFLATED, X=bytes(2**25)), size=999), "CRC"),
        "bzip2 bomb": (lambda: directory(npz(BZIP2, X=bytes(2**24)), size=999), METHOD),
        "LZMA dictionary of 256 MB": (lambda: lzma_dictionary(2**28), METHOD),
        "unknown compression": (lambda: directory(npz(X=npy(EYE)), method=77), METHOD),
        "entry beyond the end": (lambda: directory(npz(X=npy(EYE)), offset=2**31), "damaged"),
        "60,000 entries": (lambda: repeated(npz(X=b""), 60_000), "more than 32"),
        "120 extra fields of 64 kB": (
            lambda: repeated(npz(X=b""), 120, b"\xaa\xaa\0\0" * 16_383), "more than 32"),
    },
    ".npy": {
        "header of 4 GB": (lambda: npy_header("{", version=2, length=2**32 - 1), "header"),
        "header of 4 MB": (lambda: npy_header(" " * 2**22, version=2), "header"),
        "header cut short": (lambda: npy_header("{'descr'", length=3), "header"),
        "header that is code": (lambda: npy_header("__import__('os')._exit(1)\n"), "malformed"),
        "negative shape": (lambda: announce((-2, -4)), "negative"),
        "partly negative shape": (lambda: announce((-2, 4)), NOT_WHAT),
        "shape that overflows": (lambda: announce((2**62, 2**62)), NOT_WHAT),
        "shape that overflows to the right size": (lambda: announce((2**61 + 1, 8)), NOT_WHAT),
        "shape of 900 digits": (lambda: announce(f"({'9' * 900},)"), NOT_WHAT),
        "shape without elements that overflows": (
            lambda: announce((0, 2**62, 2**62), content=b""), "too big|of shape"),
        "shape of truth values": (lambda: announce((True, 8)), "integer"),
        "99 axes": (lambda: announce((1,) * 98 + (8,)), "dimension"),
        "no axes": (lambda: npy(np.array(1.0)), r"shape \(\)"),
        "structure": (lambda: announce((8,), "[('a', '<f8')]"), "expected real numbers"),
        "structure in a structure": (
            lambda: announce((8,), "[('a', [('b', '<f8')])]"), "expected real numbers"),
        "arrays in an array": (lambda: announce((1, 2), "('<f8', (4,))"), "expected real numbers"),
        "void": (lambda: announce((8,), "'|V8'"), "expected real numbers"),
        "void of no bytes": (lambda: announce((2**62,), "'|V0'"), "expected real numbers"),
        "text of 2 GB": (lambda: announce((2**20, 1), "'<U500000000'"), "expected real numbers"),
        "objects": (lambda: TRAP, "got values of type object"),
        "no such type": (lambda: announce((8, 1), "'<f77'"), "descr"),
        "bytes left over": (lambda: npy(EYE) + b"\0", NOT_WHAT),
        "Fortran order": (lambda: npy(np.asfortranarray(np.ones((2, 3)))), None),
        "version 3": (lambda: npy(EYE, (3, 0)), None),
        "version 0": (lambda: b"\x93NUMPY\0\0" + npy(EYE)[8:], "damaged"),
        "version 4": (lambda: b"\x93NUMPY\x04\0" + npy(EYE, (2, 0))[8:], "header of version 4"),
        "version 9": (lambda: b"\x93NUMPY\x09\0" + npy(EYE)[8:], "header of version 9"),
        "half a million infinities": (
            lambda: npy(np.full((512, 1024), np.inf, "f2")), "524288 values"),
        "truth values beyond 1": (lambda: announce((8, 8), "'|b1'", bytes(range(64))), None),
    },
    ".csv": {
        "cell of 4 MB": (lambda: b"1," + b"2" * 2**22, "characters or more"),
        "a million cells in a line": (lambda: b"12," * 2**20 + b"1\n", "characters or more"),
        "a million cells in the header": (lambda: b"ab," * 2**20 + b"1\n1\n", "characters or more"),
        "eleven lines of 11,000 cells": (lambda: (b"12," * 11_000 + b"1\n") * 11, None),
        "a million lines between quotation marks": (lambda: b'"\n",' * 2**20, "without a partner"),
        "the same in another way": (lambda: b'a","\n' * 2**20, "unexpected end"),
        "quotation mark without a partner": (lambda: b'1,2\n"3,4\n', "unexpected end|partner"),
        "NUL": (lambda: b"1,2\n3,\0\n", "character NUL"),
        "nothing but NUL": (lambda: bytes(2**22), "characters or more"),
        "not UTF-8": (lambda: b"1,2\n3,\xff\n", "decode byte 0xff"),
        "UTF-16": (lambda: "1,2\n3,4\n".encode("utf-16"), "decode byte 0xff"),
        "UTF-16 without a mark": (lambda: "1,2\n3,4\n5,6\n".encode("utf-16-le"), "character NUL"),
        "blank lines": (lambda: b"1,2\n" + b"\n" * 2**18 + b" \r\n3,4\n", None),
        "rows of one cell": (lambda: b"1\n" * 2**15, None),
        "wide character": (lambda: ("\U0001f600,x\n" + "1,2\n" * 2**14).encode(), None),
        "thousands mark": (lambda: b"1,2\n1_000,2\n", f"line 2, column 1: {NO_NUMBER} '1_000'"),
        "hexadecimal": (lambda: b"1,2\n3,0x10\n", f"line 2, column 2: {NO_NUMBER} '0x10'"),
        "nan": (lambda: b"1,2\n3,nan\n", None),
        "inf": (lambda: b"1,2\n-inf,3\n", "1 values are infinite, the first in row 1, column 0"),
        "1e400": (lambda: b"1,2\n3,1e400\n", "are infinite"),
        "ten thousand digits": (lambda: b"1,2\n3," + b"9" * 10_000, "are infinite"),
        "a word of 30 kB in each of 30 rows": (lambda: (b"w" * 30_000 + b",1\n") * 30, None),
        "ten thousand words": (
            lambda: b"".join(b"w%06d\n" % (i % 999) for i in range(10**4)), None),
        "a column of each kind": (lambda: b"a,b,c\n1,x,True\n,y,\n3,,False\n", None),
    },
    "-ubyte": {
        "asks for 400 MB": (lambda: b"\0\0\x08\2" + b"\0\0\x4e\x20" * 2 + bytes(8), NOT_WHAT),
        "255 axes": (lambda: b"\0\0\x08\xff" + b"\xff" * 1021, NOT_WHAT),
        "255 axes of length 1": (lambda: b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\7", "dimension"),
        "axis of length 0": (lambda: b"\0\0\x08\2\0\0\0\0\xff\xff\xff\xff", "array of shape"),
        "infinity": (lambda: b"\0\0\x0d\2\0\0\0\1\0\0\0\1\x7f\x80\0\0", "are infinite"),
    },
    ".csv.gz": {
        "a table": (lambda: gz(b"a,b\n1,2\n3,4\n"), None),
        "cut off": (lambda: gz(b"a,b\n1,2\n3,4\n")[:-9], CUT),
        "in two members": (lambda: gz(b"a,b\n1,2\n") + gz(b"3,4\n"), CUT),
        "gzip in gzip": (lambda: gz(gz(b"1,2\n")), "not UTF-8|NUL|partner"),
    },
    "-ubyte.gz": {
        "asks for 400 MB": (lambda: gz(b"\0\0\x08\2" + b"\0\0\x4e\x20" * 2 + bytes(8)), NOT_WHAT),
        "cut off": (lambda: gz(idx(IMAGES))[:-12], CUT),
        "without its checksum": (lambda: gz(idx(IMAGES))[:-8], CUT),
        "with a wrong size": (lambda: gz(idx(IMAGES))[:-4] + b"\xff" * 4, "length check"),
        "with garbage": (lambda: gz(idx(IMAGES)) + b"garbage", CUT),
        "with padding": (lambda: gz(idx(IMAGES)) + bytes(100), None),
        "in two members": (lambda: gz(idx(IMAGES)[:9]) + gz(idx(IMAGES)[9:]), CUT),
        "a million empty members": (lambda: gz(b"") * 10**6, CUT),
        "with a file name of 40 MB": (lambda: gz(idx(IMAGES), b"a" * 40_000_000 + b"\0"), None),
        "bomb behind a modest header": (lambda: gz(idx(IMAGES) + bytes(2**25)), NOT_WHAT),
        "gzip in gzip": (lambda: gz(gz(idx(IMAGES))), "not IDX"),
    },
}
# fmt: on


@pytest.mark.parametrize(("suffix", "trick"), [(s, name) for s in BY_HAND for name in BY_HAND[s]])
def test_by_hand(tmp_path, suffix, trick):
    content, text = BY_HAND[suffix][trick]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content())
    answer = read(path)
    if text is None:
        assert not isinstance(answer, str), answer
    else:
        assert isinstance(answer, str) and re.search(text, answer), answer
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    (tmp_path / "terminal-ubyte").symlink_to("/dev/tty")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.npy"))
        for path in tmp_path.iterdir():
            assert "a folder, pipe, socket or device" in read(path)
    os.mkfifo(tmp_path / "frey_rawface.mat")
    with pytest.raises(FileNotFoundError):
        datasets.load("frey-face", tmp_path)


def test_a_link_to_a_file_is_followed(tmp_path):
    np.save(tmp_path / "a.npy", EYE)
    (tmp_path / "link.npy").symlink_to("a.npy")
    np.testing.assert_array_equal(read(tmp_path / "link.npy"), EYE)
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        datasets.read(tmp_path / "loop.npy")


def test_a_header_nested_deeply_does_not_end_the_process(tmp_path):
    """Python's parser needs stack for each level, and threads may have little of it."""
    for name, text in [("a.npy", "-" * 9000 + "1"), ("b.npy", "lambda:" * 1400 + "1")]:
        (tmp_path / name).write_bytes(npy_header(text))
    code = """if True:
        import sys, threading
        from minivae import datasets
        def read():
            for path in sys.argv[1:]:
                try:
                    datasets.read(path)
                except ValueError as error:
                    print(str(error).startswith(path))
        threading.stack_size(2**19)
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    """
    paths = [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "True\nTrue\n"), run.stderr


FREY_FILES = {
    "cells in cells": lambda: cells(50_000),
    "cells without number": lambda: cells(1, (2**15, 2**12)),
    "bomb": lambda: mat(bytes(2**25), compressed=True),
    "empty": lambda: b"",
    "a frame too few": lambda: mat(frey_frames()[:-560]),
    "a wrong byte": lambda: mat(frey_frames()[:-1] + b"\0"),
    "MATLAB 7.3": lambda: b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM\x89HDF\r\n",
}


def frey_frames():
    return np.random.default_rng(0).bytes(FREY_BYTES - 1) + b"\1"


def read_frey(path):
    return datasets.load("frey-face", path.parent).train


@pytest.mark.parametrize("trick", FREY_FILES)
def test_frey_face_by_hand(tmp_path, monkeypatch, trick):
    monkeypatch.setattr(datasets, "FREY_FRAMES_SHA256", sha256(frey_frames()).hexdigest())
    path = tmp_path / "frey_rawface.mat"
    path.write_bytes(FREY_FILES[trick]())
    assert "not the Frey Face frames" in read(path, reader=read_frey)
    path.write_bytes(mat(frey_frames()))
    assert read(path, reader=read_frey).shape == (1769, 560)


# By the thousand


def fuzz(folder, n_files, seed):
    """Reads that many hostile files; returns how many of each kind were (refused, taken)."""
    rng, files, counts = np.random.default_rng(seed), list(good_files()), {}
    for suffix, content, unpacked in files:  # they are good
        (folder / f"good{suffix}").write_bytes(content)
        assert not isinstance(read(folder / f"good{suffix}", unpacked), str)
    for i in range(n_files):
        suffix, content, unpacked = hostile_file(rng, files)
        path = folder / f"a{suffix}"
        path.write_bytes(content)
        try:
            answer = read(path, unpacked, [datasets.read, load_all][i % 2])
        except BaseException as error:
            raise AssertionError(f"file {i} of seed {seed}, {content[:2000]!r}") from error
        counts.setdefault(suffix, [0, 0])[not isinstance(answer, str)] += 1
    return counts


def load_all(path):
    data = datasets.load(path)
    if hasattr(data.train, "columns"):
        assert list(data.train) == list(data.test)
        return data.train
    return np.concatenate([data.train, data.test])


def check(counts):
    """Every kind of file was often refused and, where no checksum sees each fault, often read."""
    assert set(counts) == {".npy", ".npz", ".csv", "-ubyte", "-ubyte.gz"}
    for refused, taken in counts.values():
        assert min(refused, taken) > 0.02 * (refused + taken), counts


def test_fuzz(tmp_path):
    check(fuzz(tmp_path, 1500, seed=0))


@pytest.mark.slow
def test_fuzz_long(tmp_path):
    check(fuzz(tmp_path, 20_000, seed=1))
