"""The batch and its shards: the specification."""

import numpy as np

from .. import COUNT


def gather(data, rows, x, observed):
    """x_i = data[rows_i]: x (n, D), rows (n,) integers, data (N, D).

    observed: None, or (n, D), which becomes 1 where the data are known and 0 where they are NaN;
    x is 0 there. So what is missing is cut with x wherever x goes.
    """
    x[:] = data[rows]
    if observed is not None:
        observed[:] = ~np.isnan(x)
        x[observed == 0] = 0


def encoder_input(x, observed, groups, units, h):
    """h <- what an encoder reads of rows x (B, D): finite numbers of moderate size, whatever is
    missing.

    h_j = x_j where it is observed, else 0; of a COUNT column ln(1 + x_j) - shift_j, as counts have
    long tails. h is (B, D) if observed is None; else (B, 2 D), and its second half becomes observed
    (B, D), 1 or 0, so that a 0 for what is missing differs from a 0 that is known. x may be
    anything there, even NaN. groups (G, 3) and units (3, D) as `likelihoods` has them; both may be
    None, then h_j = x_j in every column. h may not be x.
    """
    D = x.shape[1]
    known = np.ones(x.shape, bool) if observed is None else observed != 0
    h[:, :D] = np.where(known, x, 0)
    if groups is not None:
        for kind, first, last in groups:
            if kind == COUNT:
                j = slice(first, last)
                h[:, j] = np.where(known[:, j], np.log1p(h[:, j]) - units[2, j], 0)
    if observed is not None:
        h[:, D:] = observed


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
