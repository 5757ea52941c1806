"""Hostile data files: parts to make them by hand, and a generator of random ones."""

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np


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
DEFLATED, BZIP2 = zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2


def cells(depth, shape=(1, 1)):
    """A MATLAB 5 file with a matrix of class cell (1) that holds such a matrix, and so on."""
    parts, size = [struct.pack("<2I", 14, 0)], 8
    for level in range(depth, 0, -1):  # from the inside
        name = struct.pack("<2H4s", 1, 2, b"ff") if level == 1 else struct.pack("<2I", 1, 0)
        head = struct.pack("<6I2i", 6, 8, 1, 0, 5, 8, *shape) + name
        parts += [head, struct.pack("<2I", 14, len(head) + size)]
        size += len(head) + 8
    return mat(b"")[:128] + b"".join(reversed(parts))


# --- by the thousand ------------------------------------------------------------------------------


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
