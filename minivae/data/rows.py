"""Rows of data that need not be an array in memory: sparse matrices, and arrays in a file."""

import contextlib
import contextvars
import hashlib
import mmap
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse

BLOCK = 512  # rows at a time: enough for products to be efficient
CHUNK_BYTES = 2**26  # of rows that are fetched at once to be trained on
_watcher = contextvars.ContextVar("watcher", default=lambda done, n: None)


@dataclass(frozen=True)
class Part:
    """Some rows of X, which are not copied, as good as an array wherever rows are fetched."""

    of: object  # X (n, D), or rows of it in memory, in a file or on a GPU
    numbers: np.ndarray  # of the rows, rising

    @property
    def shape(self):
        return len(self.numbers), self.of.shape[1]


def located(X, rows):
    """(data, numbers) of rows of X: of a Part, where they are in the whole."""
    return (X.of, X.numbers[rows]) if isinstance(X, Part) else (X, rows)


def streamed(X):
    """Whether rows of X must be fetched as they are needed."""
    return issparse(X) or mapped(X)


def mapped(X):
    """Whether X is in a file. Copies of an np.memmap have that type too, but are in memory."""
    return isinstance(X, np.memmap) and X._mmap is not None


def fetch(X, rows, dtype):
    """The given rows of X (n, D), a slice or numbers, as a C-contiguous array."""
    X, rows = located(X, rows)
    if mapped(X):
        return _fetch_mapped(X, rows, dtype)
    if issparse(X):
        return X[rows].toarray(order="C").astype(dtype, copy=False)
    return np.ascontiguousarray(X[rows], dtype)


def _fetch_mapped(X, rows, dtype):
    """The same for a file; the system may take back at once what it read for that.

    Else all of the file that was ever looked at would count as this process's memory. A look at a
    row brings in many pages around it, so they are given back every few rows.
    """
    rows = np.arange(len(X))[rows] if isinstance(rows, slice) else rows
    fetched = np.empty((len(rows), X.shape[1]), dtype)
    for few in blocks(len(rows)):
        fetched[few] = X[rows[few]]
        if X.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):  # mode "c" keeps changes there
            X._mmap.madvise(mmap.MADV_DONTNEED)
    return fetched


def chunk(X, batch, dtype):
    """What of X is trained on at once: X, or where rows are fetched as they are needed, an array
    that has the shape of so many whole batches and takes no memory."""
    X, _ = located(X, slice(None))
    if not streamed(X):
        return X
    n, D = X.shape
    batches = max(1, CHUNK_BYTES // (batch * D * np.dtype(dtype).itemsize))
    return np.broadcast_to(np.zeros((), dtype), (min(n, batches * batch), D))


def blocks(n, size=BLOCK):
    """Slices that cut n rows into blocks."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def watcher():
    """tell(how many rows are done, of how many), for a pass that may take long."""
    return _watcher.get()


@contextlib.contextmanager
def watched(tell):
    """Within the block, every pass over rows calls tell(how many are done, of how many)."""
    before = _watcher.set(tell)
    try:
        yield
    finally:
        _watcher.reset(before)


def parts(X):
    """(values, row of each, column of each) of all of X that is stored, part by part."""
    if issparse(X):
        stored = X.tocoo()
        yield stored.data, stored.row, stored.col
        return
    for rows in blocks(len(X)) if streamed(X) else [slice(0, len(X))]:
        part = fetch(X, rows, X.dtype)
        row, column = np.ogrid[rows, : X.shape[1]]
        yield part, *np.broadcast_arrays(row, column)


def fingerprint(X, dtype):
    """What tells X (n, D) in this dtype from other data: equal for an array and its sparse twin."""
    digest = hashlib.sha256()
    for rows in blocks(X.shape[0]):
        digest.update(fetch(X, rows, dtype))
    return {"rows": X.shape[0], "features": X.shape[1], "sha256": digest.hexdigest()}
