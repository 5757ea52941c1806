"""Compressed files: what they may unpack to, since every file is untrusted."""

import zlib

# A compressed file may unpack to this many bytes, or to this many times its size if that is more.
MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO = 512 * 1024**2, 100
GZIP = b"\x1f\x8b"  # how a gzip file begins; its name can lie, as some browsers unpack a .gz


def unpacked_limit(n_bytes):
    """To how many bytes a compressed file of so many bytes may unpack."""
    return max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * n_bytes)


def check_unpacked_size(n_bytes, path):
    """ValueError if the file at path announces more bytes than it may unpack to."""
    limit = unpacked_limit(path.stat().st_size)
    if n_bytes > limit:
        raise ValueError(f"unpacks to {n_bytes} bytes, more than {limit}: save it as a plain .npy")


def gunzip(content, n_bytes):
    """The first `n_bytes` of what a gzip file of one member holds, or all if there are fewer."""
    unpacker = zlib.decompressobj(wbits=31)  # 31: gzip
    unpacked = unpacker.decompress(content, n_bytes)
    if (len(unpacked) < n_bytes and not unpacker.eof) or unpacker.unused_data.strip(b"\0"):
        raise ValueError("cut off, or more than one gzip member: unpack it with gunzip")
    return unpacked
