"""Random numbers: the specification. Every draw is a function of where it is needed.

That is of (seed, stream, step, row, column), so that a draw is the same on every machine, and for
any number of threads, shards or processes.
"""

import numpy as np

from .philox import philox


def random_words(seed, stream, step, first_row, words):
    """words (n, C) uint32: entry (i, j) is word j % 4 of Philox at the counter
    (j // 4, first_row + i, step, stream) with key (seed mod 2^32, seed // 2^32).

    A pure function of (seed, stream, step, row, column): the same on every machine, and for any
    number of threads, shards or processes. 0 <= seed < 2^63.
    """
    n, columns = words.shape
    block = np.arange(-(-columns // 4), dtype=np.uint64)[None, :]
    row = (np.arange(n, dtype=np.uint64) + np.uint64(first_row))[:, None]
    blocks = philox((block, row, step, stream), (seed & 0xFFFFFFFF, seed >> 32))  # (4, n, blocks)
    words[:] = blocks.transpose(1, 2, 0).reshape(n, 4 * block.size)[:, :columns]


def random_uniform(seed, stream, step, first_row, u):
    """u (n, C) uniform on (0, 1): ((word >> 9) + 1/2) / 2^23.

    23 bits, since then float32 holds each value exactly: every dtype and machine draws the same
    number, never 0 and never 1, and by symmetry with mean exactly 1/2.
    """
    words = np.empty(u.shape, np.uint32)
    random_words(seed, stream, step, first_row, words)
    u[:] = ((words >> 9) + 0.5) / 2**23


def random_normal(seed, stream, step, first_row, eps):
    """eps (n, C) standard normal: Box and Muller 1958, two normals from two uniforms.

    (r cos t, r sin t) with r^2 = -2 ln u1 exponential and t = 2 pi u2 uniform has density
    exp(-r^2 / 2) / 2 pi, that of two independent normals. Columns 2j and 2j + 1 share a pair of
    uniforms. Computed in float64 and rounded once to the dtype of eps; |eps| <= 5.77.
    """
    n, columns = eps.shape
    u = np.empty((n, columns + columns % 2))
    random_uniform(seed, stream, step, first_row, u)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0::2])), 2 * np.pi * u[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # (n, pairs, 2)
    eps[:] = pairs.reshape(u.shape)[:, :columns]


def random_binarize(x, seed, stream, step, first_row):
    """x <- 1 with probability x, else 0, in place: x_ij <- [u_ij < x_ij], u by `random_uniform`.

    P(u < x) = x for x a multiple of 2^-23; 0 stays 0 and 1 stays 1.
    """
    u = np.empty_like(x)
    random_uniform(seed, stream, step, first_row, u)
    x[:] = u < x


def threshold(x):
    """x <- [x >= 1/2], in place."""
    x[:] = x >= 0.5
