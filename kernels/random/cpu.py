"""Numba twins of random/reference.py."""

import numpy as np

from ..support.formulas import box_muller, random_block, uniform
from ..support.native import compiled


@compiled
def random_words(seed, stream, step, first_row, words):
    for i in range(words.shape[0]):
        for j in range(words.shape[1]):
            if j % 4 == 0:
                w0, w1, w2, w3 = random_block(seed, stream, step, first_row + i, j // 4)
            words[i, j] = w0
            w0, w1, w2 = w1, w2, w3


@compiled
def random_uniform(seed, stream, step, first_row, u):
    for i in range(u.shape[0]):
        for j in range(u.shape[1]):
            if j % 4 == 0:
                w0, w1, w2, w3 = random_block(seed, stream, step, first_row + i, j // 4)
            u[i, j] = uniform(w0)
            w0, w1, w2 = w1, w2, w3


@compiled
def random_normal(seed, stream, step, first_row, eps):
    real = eps.dtype.type
    for i in range(eps.shape[0]):
        for j in range(0, eps.shape[1], 2):
            if j % 4 == 0:
                w0, w1, w2, w3 = random_block(seed, stream, step, first_row + i, j // 4)
            cosine, sine = box_muller(real(uniform(w0)), real(uniform(w1)))
            eps[i, j] = cosine
            if j + 1 < eps.shape[1]:
                eps[i, j + 1] = sine
            w0, w1 = w2, w3


@compiled
def random_binarize(x, seed, stream, step, first_row):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    fours = x.shape[1] // 4
    u = np.empty((4, fours), np.float32)
    u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
    for i in range(x.shape[0]):
        for j in range(fours):  # apart from the comparisons, or neither loop becomes vector code
            w0, w1, w2, w3 = random_block(seed, stream, step, first_row + i, j)
            u0[j], u1[j], u2[j], u3[j] = uniform(w0), uniform(w1), uniform(w2), uniform(w3)
        entries = x[i][: 4 * fours].reshape((fours, 4))
        for j in range(entries.shape[0]):
            entries[j, 0] = one if u0[j] < entries[j, 0] else zero
            entries[j, 1] = one if u1[j] < entries[j, 1] else zero
            entries[j, 2] = one if u2[j] < entries[j, 2] else zero
            entries[j, 3] = one if u3[j] < entries[j, 3] else zero
        w0, w1, w2, w3 = random_block(seed, stream, step, first_row + i, fours)
        rest = x[i][4 * fours :]
        for j in range(rest.size):
            rest[j] = one if uniform(w0) < rest[j] else zero
            w0, w1, w2 = w1, w2, w3


@compiled
def threshold(x):
    one, zero, half = x.dtype.type(1), x.dtype.type(0), x.dtype.type(0.5)
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            row[j] = one if row[j] >= half else zero
