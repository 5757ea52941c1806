"""What a step is given, and the views that it cuts. Every line runs over NumPy, Numba or a device.

A batch of B rows packs its workspace: a region begins at B * start, and a shard's rows of it are
one piece of memory. So whatever a row owns is cut with it: x, noise, and the mask of what is known.
"""

from typing import NamedTuple

import numpy as np

from minivae.kernels import STOCHASTIC, STREAM_BINARIZE, THRESHOLD
from minivae.kernels.tables import reference as k

APART = ("region", "column", "optional", "optional_column")  # compiled once for each type of place


class Recipe(NamedTuple):
    """How to train: numbers that no family needs to know."""

    optimizer: int
    learning_rate: float
    momentum: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    binarize: int
    batch_size: int
    seed: int
    weights: tuple  # a float per term; the loss is the mean over rows of weights @ terms


class Task(NamedTuple):
    """All that stays the same through a run."""

    plan: NamedTuple  # the family's own
    layers: np.ndarray  # records, as engine/layout.py describes them
    blocks: np.ndarray
    pieces: np.ndarray
    constants: tuple | None  # arrays that the family's plan declared
    carried: tuple | None  # (Region, rows (at least B, columns)) of each region that is carried
    recipe: Recipe
    data: np.ndarray  # (N, D)
    theta: np.ndarray  # (P,) parameters
    moments: np.ndarray  # (2, P) of the optimiser
    gradient: np.ndarray  # (P,)
    work: np.ndarray  # all regions, one behind the other
    totals: np.ndarray  # (n_terms,) float64
    barrier: np.ndarray
    workers: int


class Shard(NamedTuple):
    """The rows first <= i < last of a batch of B rows: what one worker computes on."""

    B: int
    first: int
    last: int


def share(n, worker, workers):
    """The worker's part first <= i < last of n things."""
    return n * worker // workers, n * (worker + 1) // workers


def matrix(flat, shard, start, columns, repeat):
    """The shard's rows (rows * repeat, columns) of the region that begins at B * start."""
    begin = shard.B * start + shard.first * repeat * columns
    n = (shard.last - shard.first) * repeat
    return flat[begin : begin + n * columns].reshape((n, columns))


def region(work, place, shard):
    """The shard's rows (rows * repeat, columns) of a region."""
    return matrix(work, shard, place.start, place.columns, place.repeat)


def column(work, place, shard):
    """The shard's rows (rows * repeat,) of a region of one column, such as a term of the loss."""
    begin = shard.B * place.start + shard.first * place.repeat
    return work[begin : begin + (shard.last - shard.first) * place.repeat]


def optional(work, place, shard):
    """The shard's rows of a region that not every model has; None where place is None."""
    if place is None:
        return None
    return region(work, place, shard)


def optional_column(work, place, shard):
    """`column` of a region that not every model has; None where place is None."""
    if place is None:
        return None
    return column(work, place, shard)


def terms(task, B):
    """All terms of the loss of a batch of B rows, (n_terms, B)."""
    n = task.totals.size
    return task.work[: n * B].reshape((n, B))


def parameter(flat, begin, rows, columns):
    """The (rows, columns) part of a parameter-shaped buffer that begins there."""
    return flat[begin : begin + rows * columns].reshape((rows, columns))


def load_rows(task, rows, x, observed, shard, step):
    """x = the data's rows, binarised as the recipe asks; observed as `gather` fills it."""
    k.gather(task.data, rows, x, observed)
    recipe = task.recipe
    binarize(x, recipe.binarize, recipe.seed, STREAM_BINARIZE, step, shard.first)


def binarize(x, mode, seed, stream, step, first_row):
    """Grey values to 0 and 1, in place: by x >= 1/2, with probability x, or not at all."""
    if mode == THRESHOLD:
        k.threshold(x)
    elif mode == STOCHASTIC:
        k.random_binarize(x, seed, stream, step, first_row)
