"""The order in which an epoch goes through the rows."""

import numpy as np

from minivae.kernels import STREAM_ORDER
from minivae.kernels.tables import reference

ROOM = 4096  # rows of as many epochs as fit are shuffled at once: of few rows, a call is all cost


class Order:
    """The orders of n rows in an epoch and some that follow, which are kept: an epoch is many
    chunks, and epochs come one after the other."""

    def __init__(self):
        self.of, self.first, self.rows = None, 0, ()

    def __call__(self, n, seed, epoch):
        if self.of != (n, seed) or not 0 <= epoch - self.first < len(self.rows):
            self.of, self.first = (n, seed), epoch
            self.rows = orders(n, seed, epoch, max(1, ROOM // n))
        return self.rows[epoch - self.first]


def shuffled(n, seed, epoch, stream=STREAM_ORDER):
    """The order of n rows in an epoch: a permutation by (stream, seed, epoch) alone."""
    return orders(n, seed, epoch, 1, stream)[0]


def orders(n, seed, epoch, n_epochs, stream=STREAM_ORDER):
    """`shuffled` for so many epochs, (n_epochs, n).

    Rows are sorted by random words; a row's own number below its word decides between equals.
    """
    words = np.empty((n_epochs, n), np.uint32)
    reference.random_words(seed, stream, 0, epoch, words)
    keys = words.astype(np.uint64)  # in place from here on: n may be large
    keys <<= np.uint64(32)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort(axis=1)
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)
