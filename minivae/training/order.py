"""The order in which an epoch goes through the rows."""

import numpy as np

from minivae.kernels import STREAM_ORDER
from minivae.kernels.tables import reference


class Order:
    """The order of n rows in an epoch; the last one is kept, for an epoch is many chunks."""

    def __init__(self):
        self.of, self.rows = None, None

    def __call__(self, n, seed, epoch):
        if self.of != (n, seed, epoch):
            self.rows = shuffled(n, seed, epoch)
            self.of = n, seed, epoch
        return self.rows


def shuffled(n, seed, epoch, stream=STREAM_ORDER):
    """The order of n rows in an epoch: a permutation that depends on (stream, seed, epoch) alone.

    Rows are sorted by random words; a row's own number below its word decides between equals.
    """
    words = np.empty((1, n), np.uint32)
    reference.random_words(seed, stream, epoch, 0, words)
    keys = words[0].astype(np.uint64)  # in place from here on: n may be large
    keys <<= np.uint64(32)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)
