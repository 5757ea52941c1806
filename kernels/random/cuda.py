"""CUDA twins of random/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import BLOCK, blocks


def _grid(matrix):
    """A thread takes four columns."""
    n, columns = matrix.shape
    return n, blocks(columns, 4 * BLOCK)


def _where(on, seed, stream, step, first_row):
    """What tells one draw from all others, as kernels take it."""
    return seed & 0xFFFFFFFF, seed >> 32, stream, *on.step(step), first_row


def random_words(on, seed, stream, step, first_row, words):
    where = _where(on, seed, stream, step, first_row)
    on.launch("random_words", words.dtype, _grid(words), *where, words, words.shape[1])


def random_uniform(on, seed, stream, step, first_row, u):
    where = _where(on, seed, stream, step, first_row)
    on.launch("random_uniform", u.dtype, _grid(u), *where, u, u.shape[1])


def random_normal(on, seed, stream, step, first_row, eps):
    where = _where(on, seed, stream, step, first_row)
    on.launch("random_normal", eps.dtype, _grid(eps), *where, eps, eps.shape[1])


def random_binarize(on, x, seed, stream, step, first_row):
    where = _where(on, seed, stream, step, first_row)
    on.launch("random_binarize", x.dtype, _grid(x), x, *where, x.shape[1])


def threshold(on, x):
    B, D = x.shape
    on.launch("threshold", x.dtype, (B, blocks(D)), x, D)
