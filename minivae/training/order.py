"""The order in which an epoch goes through the rows."""

import numpy as np

from minivae.kernels import STREAM_ORDER


class Order:
    """The order of n rows in an epoch; the last one is kept, for an epoch is many chunks."""

    def __init__(self, k):
        self.k, self.of, self.rows = k, None, None

    def __call__(self, n, seed, epoch):
        if self.of != (n, seed, epoch):
            self.rows = shuffled(self.k, n, seed, epoch)
            self.of = n, seed, epoch
        return self.rows


def shuffled(k, n, seed, epoch):
    """The order of n rows in an epoch: a permutation that depends on (seed, epoch) alone.

    Rows are sorted by random words; a row's own number below its word decides between equals.
    k: a kernel table for arrays of the host.
    """
    words = np.empty((1, n), np.uint32)
    k.random_words(seed, STREAM_ORDER, epoch, 0, words)
    keys = words[0].astype(np.uint64)  # in place from here on: n may be large
    keys <<= np.uint64(32)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)
