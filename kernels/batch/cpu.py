"""Numba twins of batch/reference.py."""

from .. import COUNT
from ..support.formulas import log
from ..support.join import wait_for_all
from ..support.native import OPTIONS, compiled


@compiled
def gather(data, rows, x, observed):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(rows.size):
        source, target = data[rows[i]], x[i]
        if observed is None:
            for j in range(target.size):
                target[j] = source[j]
        else:
            known = observed[i]
            for j in range(target.size):
                there = source[j] == source[j]  # NaN alone is not equal to itself
                known[j] = one if there else zero
                target[j] = source[j] if there else zero


@compiled
def encoder_input(x, observed, groups, units, h):
    one, zero, D = x.dtype.type(1), x.dtype.type(0), x.shape[1]
    for i in range(x.shape[0]):
        source, target = x[i], h[i]
        if observed is None:
            for j in range(D):
                target[j] = source[j]
        else:
            known, copied = observed[i], target[D:]
            for j in range(D):
                target[j] = source[j] if known[j] != zero else zero
            for j in range(D):
                copied[j] = known[j]
        if groups is not None:
            for g in range(groups.shape[0]):
                if groups[g, 0] == COUNT:
                    first, last = groups[g, 1], groups[g, 2]
                    counts, shift = target[first:last], units[2, first:last]
                    if observed is None:
                        for j in range(counts.size):
                            counts[j] = log(one + counts[j]) - shift[j]
                    else:
                        there = observed[i, first:last]
                        for j in range(counts.size):
                            value = log(one + counts[j]) - shift[j]
                            counts[j] = value if there[j] != zero else zero


@compiled
def copy(source, target):
    source, target = source.reshape(source.size), target.reshape(target.size)
    for i in range(target.size):
        target[i] = source[i]


@compiled
def repeat_rows(rows, repeated):
    K = repeated.shape[0] // max(rows.shape[0], 1)
    for i in range(rows.shape[0]):
        for draw in range(i * K, (i + 1) * K):
            for j in range(rows.shape[1]):
                repeated[draw, j] = rows[i, j]


@compiled
def scale_rows(factors, rows):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] *= factors[i]


@compiled
def mean_of_draws(values, mean):
    K = values.size // max(mean.size, 1)
    for i in range(mean.size):
        total = mean.dtype.type(0)
        for draw in range(i * K, (i + 1) * K):
            total += values[draw]
        mean[i] = total / mean.dtype.type(K)


@compiled
def all_finite(values):
    flat = values.reshape(values.size)
    zero = flat.dtype.type(0)
    total = zero
    for i in range(flat.size):
        total += zero * flat[i]  # 0 times what is not finite is NaN
    return total == zero


def add_terms(terms, totals):
    for t in range(terms.shape[0]):
        row = terms[t]
        for i in range(row.size):
            totals[t] += row[i]


# Not regrouped as other sums are: whether that is done would be the compiler's choice, program by
# program, and equal runs of two builds would differ in the last digit.
add_terms = compiled(add_terms, fastmath=OPTIONS["fastmath"])


@compiled
def join(barrier, workers):
    if workers > 1:
        wait_for_all(barrier, workers)
