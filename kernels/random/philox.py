"""The generator behind every random number of the specification."""

import numpy as np


def philox(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): counter (4, ...), key (2, ...) -> (4, ...).

    A bijection of 128-bit counters for each key, so distinct counters never give one block twice.
    Ten rounds of: two 32 x 32 -> 64 bit products, whose high halves are mixed into the other words.
    All uint32.
    """
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (product1 >> np.uint64(32)) ^ c1 ^ k0, product1 & low
        c2, c3 = (product0 >> np.uint64(32)) ^ c3 ^ k1, product0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low  # the golden ratio
        k1 = (k1 + np.uint64(0xBB67AE85)) & low  # sqrt(3) - 1
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3)).astype(np.uint32)
