"""Hostile data files: made by hand, one for each trick, and by the thousand with a fixed seed.

Whatever a file holds, reading it ends with finite numbers or with a ValueError that begins with the
file's path, within 2 seconds and within 10 times the memory of the file (or of what it unpacks to).
"""

import gzip
import io
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from hashlib import sha256

import numpy as np
import pytest

from minivae import datasets

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
    else:
        assert answer.ndim == 2 and answer.dtype in (np.float32, np.float64) and answer.size
        assert np.isfinite(answer).all()
    return answer


def npy(array, version=None):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def npy_header(text, content=b"", version=1, length=None):
    """A .npy file whose header is any text and claims any length."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin-1") + content


def announce(shape, descr="'<f8'", content=bytes(64)):
    return npy_header(
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", content
    )


def npz(method=zipfile.ZIP_STORED, **entries):
    """An archive of .npy files, named without their suffix."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content, method)
    return stream.getvalue()


def directory(content, **fields):
    """The archive with other numbers in the first entry of its directory."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "size": (24, "<I"), "offset": (42, "<I")}
    content, start = bytearray(content), content.index(b"PK\1\2")
    for name, value in fields.items():
        place, kind = places[name]
        struct.pack_into(kind, content, start + place, value)
    return bytes(content)


def repeated(content, count, extra=b""):
    """The archive with its entry so often in the directory, each time with an extra field."""
    start, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    entry, last = bytearray(content[start:end]), bytearray(content[end:])
    struct.pack_into("<H", entry, 30, len(extra))
    struct.pack_into("<I", last, 12, (len(entry) + len(extra)) * count)
    return content[:start] + (bytes(entry) + extra) * count + bytes(last)


def zip64_size(size):
    """The directory gives the size as a zip64 field, in 64 bits."""
    archive = directory(npz(X=npy(EYE)), size=2**32 - 1)
    return repeated(archive, 1, struct.pack("<2HQ", 1, 8, size))


def lzma_dictionary(size):
    """The entry names the memory that its decoder takes."""
    content = npz(zipfile.ZIP_LZMA, X=npy(EYE))
    start = 30 + len("X.npy") + 4 + 1  # behind the local header and before the properties' end
    return content[:start] + struct.pack("<I", size) + content[start + 4 :]


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


def gz(content, name=b""):
    packed = gzip.compress(content, mtime=0)
    return packed[:3] + (b"\x08" if name else b"\0") + packed[4:10] + name + packed[10:]


def mat(frames, compressed=False):
    """A MATLAB 5 file with a matrix of uint8."""
    matrix = struct.pack("<4I2I2i", 6, 8, 9, 0, 5, 8, 560, 1965)
    matrix += struct.pack("<2H4s2I", 1, 2, b"ff", 2, len(frames)) + frames
    element = struct.pack("<2I", 14, len(matrix)) + matrix
    if compressed:
        packed = zlib.compress(element)
        element = struct.pack("<2I", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + element


class Trap:
    """Unpickling it ends the process."""

    def __reduce__(self):
        return os._exit, (1,)


EYE, IMAGES = np.eye(3), np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
TRAP = npy_header(
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", pickle.dumps(Trap())
)
NOT_WHAT, NO_NUMBER = "is not what follows", "expected a number, got"
CUT, METHOD = "cut off, or more than one gzip member", "in a way that NumPy does not write"
DEFLATED, BZIP2 = zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2

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
        "version 9": (lambda: b"\x93NUMPY\x09\0" + npy(EYE)[8:], "header"),
        "half a million NaN": (lambda: npy(np.full((512, 1024), np.nan, "f2")), "524288 values"),
        "truth values beyond 1": (lambda: announce((8, 8), "'|b1'", bytes(range(64))), None),
    },
    ".csv": {
        "cell of 4 MB": (lambda: b"1," + b"2" * 2**22, "characters or more"),
        "a million cells in a line": (lambda: b"12," * 2**20 + b"1\n", "characters or more"),
        "a million cells in the header": (lambda: b"ab," * 2**20 + b"1\n1\n", "characters or more"),
        "eleven lines of 11,000 cells": (lambda: (b"12," * 11_000 + b"1\n") * 11, None),
        "a million lines between quotation marks": (lambda: b'"\n",' * 2**20, "unexpected end"),
        "the same in another way": (lambda: b'a","\n' * 2**20, "unexpected end"),
        "quotation mark without a partner": (lambda: b'1,2\n"3,4\n', "unexpected end"),
        "NUL": (lambda: b"1,2\n3,\0\n", f"{NO_NUMBER}|NUL"),
        "nothing but NUL": (lambda: bytes(2**22), "characters or more"),
        "not UTF-8": (lambda: b"1,2\n3,\xff\n", "decode byte 0xff"),
        "UTF-16": (lambda: "1,2\n3,4\n".encode("utf-16"), "decode byte 0xff"),
        "UTF-16 without a mark": (lambda: "1,2\n3,4\n5,6\n".encode("utf-16-le"), NO_NUMBER),
        "blank lines": (lambda: b"1,2\n" + b"\n" * 2**18 + b" \r\n3,4\n", None),
        "rows of one cell": (lambda: b"1\n" * 2**15, None),
        "wide character": (lambda: ("\U0001f600,x\n" + "1,2\n" * 2**14).encode(), None),
        "thousands mark": (lambda: b"1,2\n1_000,2\n", f"line 2, column 1: {NO_NUMBER} '1_000'"),
        "hexadecimal": (lambda: b"1,2\n3,0x10\n", f"line 2, column 2: {NO_NUMBER} '0x10'"),
        "nan": (lambda: b"1,2\n3,nan\n", "NaN or infinite, the first in row 1, column 1"),
        "inf": (lambda: b"1,2\n-inf,3\n", "NaN or infinite"),
        "1e400": (lambda: b"1,2\n3,1e400\n", "NaN or infinite"),
        "ten thousand digits": (lambda: b"1,2\n3," + b"9" * 10_000, "NaN or infinite"),
    },
    "-ubyte": {
        "asks for 400 MB": (lambda: b"\0\0\x08\2" + b"\0\0\x4e\x20" * 2 + bytes(8), NOT_WHAT),
        "255 axes": (lambda: b"\0\0\x08\xff" + b"\xff" * 1021, NOT_WHAT),
        "255 axes of length 1": (lambda: b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\7", "dimension"),
        "axis of length 0": (lambda: b"\0\0\x08\2\0\0\0\0\xff\xff\xff\xff", "array of shape"),
        "infinity": (lambda: b"\0\0\x0d\2\0\0\0\1\0\0\0\1\x7f\x80\0\0", "NaN or infinite"),
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


def cells(depth, shape=(1, 1)):
    """A MATLAB 5 file with a matrix of class cell (1) that holds such a matrix, and so on."""
    parts, size = [struct.pack("<2I", 14, 0)], 8
    for level in range(depth, 0, -1):  # from the inside
        name = struct.pack("<2H4s", 1, 2, b"ff") if level == 1 else struct.pack("<2I", 1, 0)
        head = struct.pack("<6I2i", 6, 8, 1, 0, 5, 8, *shape) + name
        parts += [head, struct.pack("<2I", 14, len(head) + size)]
        size += len(head) + 8
    return mat(b"")[:128] + b"".join(reversed(parts))


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


def good_files():
    """(suffix, bytes, bytes unpacked) of small valid files of each kind."""
    rng = np.random.default_rng(1)
    arrays = [
        rng.random((8, 5)),
        rng.random((6, 4), np.float32),
        np.asfortranarray(rng.random((4, 6))),
        rng.integers(0, 256, (5, 3, 4), np.uint8),
        rng.integers(-9, 9, (7, 3)).astype(">i2"),
        rng.random((4, 4)) < 0.5,
        rng.random((4, 4)).astype(np.float16),
    ]
    for array in arrays:
        content, labels = npy(array), npy(np.arange(len(array)))
        yield ".npy", content, len(content)
        for method in (zipfile.ZIP_STORED, DEFLATED):
            yield ".npz", npz(method, X=content), len(content)
            yield ".npz", npz(method, data=content, y=labels), len(content) + len(labels)
        text = "\n".join(",".join(map(str, row)) for row in array.reshape(len(array), -1) * 1.5)
        yield ".csv", text.encode(), len(text)
        yield ".csv", b'\xef\xbb\xbf"a, b",c\r\n1,"-2.5"\r\n\r\n3e1,4\r\n', 0
    for shape in [(3, 2, 4), (20, 10), (9, 16, 16)]:
        content = idx(rng.integers(0, 4, shape, np.uint8))
        yield "-ubyte", content, len(content)
        yield "-ubyte.gz", gz(content), len(content)
        yield "-ubyte.gz", gz(content, b"name\0"), len(content)


NUMBERS = [0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20, 2**29, 2**31 - 1, 2**31]
NUMBERS += [2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
# What stands in files, and what a hostile one may have in its place.
# fmt: off
WORDS = [
    b"'<f8'", b"'<f4'", b"'|u1'", b"'|O'", b"'<U9'", b"'<f16'", b"'|V8'", b"'<M8[s]'", b"'<c8'",
    b"[('a','<f8')]", b"('<f8',(2,))", b"False", b"True", b"(8, 5)", b"(4, 6)", b"()", b"(-1,)",
    b"3L", b"(1073741824, 9)", b"(4611686018427387904, 4)", b"0", b"1", b"nan", b"inf", b"1e999",
    b"1_0", b"0x1", b",", b'"', b"\n", b"\r", b"\0", b"\xff\xfe", b"\xf0\x9f\x98\x80", b"#", b"-",
    b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\x1f\x8b\x08", b"\x93NUMPY", b"X.npy",
]
# fmt: on


def damaged(rng, content, others):
    """A copy with one fault of a random kind."""
    n, new = len(content), bytearray(content)
    # Most that matters stands near the ends.
    place = int(
        rng.choice([rng.integers(n + 1), min(rng.integers(64), n), max(n - rng.integers(99), 0)])
    )
    kind = rng.integers(9)
    if kind == 0 and place < n:
        new[place] ^= 1 << int(rng.integers(8))
    elif kind == 1 and place < n:
        new[place] = rng.choice([0, 255, 128, 127, rng.integers(256)])
    elif kind == 2:
        del new[place:]
    elif kind == 3:
        del new[place : place + int(rng.integers(1, 20))]
    elif kind == 4:
        new[place:place] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 5:
        other = others[rng.integers(len(others))]
        new[place:] = other[rng.integers(len(other)) :]
    elif kind == 6:  # a number of the header
        width, order = int(rng.choice([1, 2, 4, 8])), rng.choice(["little", "big"])
        number = int(rng.choice(NUMBERS)) % 2 ** (8 * width)
        new[place : place + width] = number.to_bytes(width, str(order))
    else:
        found = [word for word in WORDS if word in content]
        old = found[rng.integers(len(found))] if found else b""
        start = content.find(old, place) if old in content[place:] else content.find(old)
        new[start : start + len(old)] = WORDS[rng.integers(len(WORDS))]
    return bytes(new)


def hostile_file(rng, files):
    """(suffix, bytes, bytes unpacked) of a good file with up to three faults, outside or inside."""
    suffix, content, unpacked = files[rng.integers(len(files))]
    inner = {".npz": ".npy", "-ubyte.gz": "-ubyte"}.get(suffix) if rng.random() < 0.5 else None
    others = [other for kind, other, _ in files if inner in (None, kind)]
    if inner:
        content = others[rng.integers(len(others))]
    for _ in range(rng.integers(1, 4)):
        content = damaged(rng, content, others)
    if inner:
        unpacked = len(content)
    if inner == "-ubyte":
        content = gz(content)
    elif inner == ".npy":
        name, method = rng.choice(["X", "../X", "a", "X.npy", ""]), rng.choice([0, 8, 12, 14])
        content = npz(int(method), **{str(name): content})
    return suffix, content, unpacked


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
