"""The batch and its shards: the specification."""

import numpy as np


def gather(data, rows, x, observed):
    """x_i = data[rows_i]: x (n, D), rows (n,) integers, data (N, D).

    observed: None, or (n, D), which becomes 1 where the data are known and 0 where they are NaN;
    x is 0 there. So what is missing is cut with x wherever x goes.
    """
    x[:] = data[rows]
    if observed is not None:
        observed[:] = ~np.isnan(x)
        x[observed == 0] = 0


def copy(source, target):
    """target <- source, both contiguous and of one size."""
    target.reshape(-1)[:] = source.reshape(-1)


def repeat_rows(rows, repeated):
    """repeated (B * K, D) <- every row of rows (B, D), K times, one behind the other."""
    repeated[:] = np.repeat(rows, len(repeated) // max(len(rows), 1), axis=0)


def scale_rows(factors, rows):
    """rows (n, D), in place, times factors (n,)."""
    rows *= factors[:, None]


def mean_of_draws(values, mean):
    """mean (B,) <- that of the K values of each row, which are neighbours in values (B * K,)."""
    K = values.size // max(mean.size, 1)
    mean[:] = values.reshape(mean.size, K).sum(axis=1) / K


def all_finite(values):
    """Whether every entry of values, a contiguous array of any shape, is finite."""
    return bool(np.isfinite(values).all())


def add_terms(terms, totals):
    """totals (n_terms,) += the sum of every row of terms (n_terms, B), added up in float64."""
    totals += terms.sum(axis=1, dtype=np.float64)


def join(barrier, workers):
    """Wait until all workers are here. NumPy runs one worker, so there is nobody to wait for."""
    assert workers == 1
