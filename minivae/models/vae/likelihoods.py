"""p(x|z): its nll, mean and draws, from what the decoder says of every column, (rows * K, D).

* "bernoulli": logits. "gaussian": means, and one variance for all. Compiled code is the same for
  both, and looks at how many variances there are.
* All others are groups of columns of one kind each, `constants` = (groups, units) as the kernel
  `mixed_nll` describes them: a group of all columns, or those of a table.

The functions here are compiled apart, as those of objectives.py are: what a model does not have is
None, and the compiler leaves out what that rules out.
"""

import numpy as np

from minivae.kernels import KINDS, STREAM_SAMPLE, STREAM_SAMPLE_UNIFORM
from minivae.kernels.tables import reference as k

APART = ("nll", "mean", "draw", "read_x", "flat")
LIKELIHOODS = ("bernoulli", "gaussian", "diagonal_gaussian", "bounded_gaussian",
               "continuous_bernoulli", "mixed")  # fmt: skip
PLAIN = ("bernoulli", "gaussian")
OF_ALL_COLUMNS = {
    "diagonal_gaussian": "real",
    "bounded_gaussian": "bounded",
    "continuous_bernoulli": "grey",
}
NOISY = ("real", "bounded")  # kinds with a learned variance for each column


def columns_of_table(schema):
    """What `columns_of` wants of a table, as a setting: plain values that can be compared."""
    return schema.groups, tuple(map(tuple, schema.units.tolist()))


def columns_of(likelihood, n_features, columns):
    """(groups, units) of a likelihood that has them, else None; columns: those of a table, as the
    setting of that name has them."""
    if likelihood in PLAIN:
        return None
    if likelihood == "mixed":
        groups, units = columns
    else:
        groups, units = ((OF_ALL_COLUMNS[likelihood], 0, n_features),), np.zeros((3, n_features))
    return [(KINDS.index(kind), first, last) for kind, first, last in groups], np.array(units)


def n_variances(likelihood, groups):
    """How many variances p(x|z) has: of the columns that come first, or one for all."""
    if groups is None:
        return int(likelihood == "gaussian")
    noisy = [KINDS.index(kind) for kind in NOISY]
    return max((last for kind, _, last in groups if kind in noisy), default=0)


def read_x(x, observed, constants, h):
    """h, what the encoder reads, of x; both are one array where that is all, and h then None."""
    if h is not None:
        if constants is None:
            k.encoder_input(x, observed, None, None, h)
        else:
            k.encoder_input(x, observed, constants[0], constants[1], h)


def nll(y, noise, constants, x, observed, scale, nll, dy, dnoise):
    """nll = -ln p(x|z) of each row; and dy and dnoise, times scale, unless they are None."""
    if constants is not None:
        k.mixed_nll(y, noise, constants[0], constants[1], x, observed, scale, nll, dy, dnoise)
    elif noise.size == 0:
        k.bernoulli_nll(y, x, observed, scale, nll, dy)
    else:
        k.gaussian_nll(y, noise, x, observed, scale, nll, dy, flat(dnoise))


def flat(column):
    """column (n, 1) as (n,); None stays None."""
    if column is None:
        return None
    return column.reshape((column.size,))


def mean(y, noise, constants):
    """y <- E[x|z], in place."""
    if constants is not None:
        k.mixed_mean(y, constants[0], constants[1], y)
    elif noise.size == 0:
        k.bernoulli_mean(y, y)


def draw(y, noise, constants, x, seed, first_row):
    """x from p(x|z); row i is a function of (seed, first_row + i). y is no longer what it was."""
    if constants is not None:
        k.random_normal(seed, STREAM_SAMPLE, 0, first_row, x[:, : noise.size])
        k.random_uniform(seed, STREAM_SAMPLE_UNIFORM, 0, first_row, x[:, noise.size :])
        k.mixed_draw(y, noise, constants[0], constants[1], x)
    elif noise.size == 0:
        k.bernoulli_mean(y, y)
        k.copy(y, x)
        k.random_binarize(x, seed, STREAM_SAMPLE, 0, first_row)
    else:
        k.random_normal(seed, STREAM_SAMPLE, 0, first_row, x)
        k.gaussian_draw(y, noise, x, x)
