"""Numba twins of likelihoods/reference.py."""

import math

import numpy as np

from .. import BINARY, BOUNDED, CATEGORY, COUNT, COUNT_STEPS, GREY, LOG_RATE_BOUND, REAL
from ..support.formulas import (
    exp,
    grey_draw,
    grey_mean,
    grey_partition,
    hold_log_rate,
    hold_logvar,
    is_held,
    log,
    sigmoid,
    softplus,
)
from ..support.native import compiled, jit

LOG_2PI = math.log(2 * math.pi)


@compiled
def bernoulli_nll(logits, x, observed, scale, nll, dlogits):
    zero = logits.dtype.type(0)
    factor = logits.dtype.type(scale)
    for i in range(logits.shape[0]):
        row, target = logits[i], x[i]
        total = zero
        if observed is None:
            if dlogits is None:
                for j in range(row.size):
                    total += softplus(row[j]) - target[j] * row[j]
            else:
                drow = dlogits[i]
                for j in range(row.size):
                    logit = row[j]
                    total += softplus(logit) - target[j] * logit
                    drow[j] = factor * (sigmoid(logit) - target[j])
        else:
            known = observed[i]
            if dlogits is None:
                for j in range(row.size):
                    entry = softplus(row[j]) - target[j] * row[j]
                    total += entry if known[j] != zero else zero
            else:  # two loops: one with all four arrays would be no vector code
                drow = dlogits[i]
                for j in range(row.size):
                    entry = softplus(row[j]) - target[j] * row[j]
                    total += entry if known[j] != zero else zero
                for j in range(row.size):
                    slope = factor * (sigmoid(row[j]) - target[j])
                    drow[j] = slope if known[j] != zero else zero
        nll[i] = total


@compiled
def bernoulli_mean(logits, mean):
    for i in range(logits.shape[0]):
        row, target = logits[i], mean[i]
        for j in range(row.size):
            target[j] = sigmoid(row[j])


@compiled
def bernoulli_draw(logits, u, x):
    one, zero = x.dtype.type(1), x.dtype.type(0)
    for i in range(logits.shape[0]):
        row, drawn, target = logits[i], u[i], x[i]
        for j in range(row.size):
            target[j] = one if drawn[j] < sigmoid(row[j]) else zero


@compiled
def gaussian_nll(mean, noise_logvar, x, observed, scale, nll, dmean, dnoise_logvar):
    zero, one, half = mean.dtype.type(0), mean.dtype.type(1), mean.dtype.type(0.5)
    factor = mean.dtype.type(scale)
    held = hold_logvar(noise_logvar[0])
    precision = exp(-held)
    constant = mean.dtype.type(LOG_2PI) + held
    inside = zero if is_held(noise_logvar[0]) else one
    for i in range(mean.shape[0]):
        row, target = mean[i], x[i]
        squares = zero
        count = row.size
        if observed is None:
            if dmean is None:
                for j in range(row.size):
                    residual = target[j] - row[j]
                    squares += residual * residual
            else:
                drow = dmean[i]
                for j in range(row.size):
                    residual = target[j] - row[j]
                    squares += residual * residual
                    drow[j] = -factor * precision * residual
        else:
            known = observed[i]
            count = 0
            for j in range(row.size):
                count += 1 if known[j] != zero else 0
            if dmean is None:
                for j in range(row.size):
                    residual = target[j] - row[j] if known[j] != zero else zero
                    squares += residual * residual
            else:
                drow = dmean[i]
                for j in range(row.size):
                    residual = target[j] - row[j] if known[j] != zero else zero
                    squares += residual * residual
                    drow[j] = -factor * precision * residual
        nll[i] = half * (precision * squares + mean.dtype.type(count) * constant)
        if dnoise_logvar is not None:
            slope = half * (mean.dtype.type(count) - precision * squares)
            dnoise_logvar[i] = factor * slope * inside


@compiled
def gaussian_draw(mean, noise_logvar, eps, x):
    std = exp(mean.dtype.type(0.5) * hold_logvar(noise_logvar[0]))
    for i in range(mean.shape[0]):
        row, noise, target = mean[i], eps[i], x[i]
        for j in range(row.size):
            target[j] = row[j] + std * noise[j]


# --- tables ---------------------------------------------------------------------------------------
#
# Of a row and a group: cost is -ln p of each column without what does not depend on y, slope its
# derivative by y. x, cost and slope are rows of their own, so that a loop is vector code even where
# the gradient replaces y.


@jit
def _real(y, precision, x, cost, slope):
    for j in range(y.size):
        residual = x[j] - y[j]
        slope[j] = -precision[j] * residual
        cost[j] = type(residual)(0.5) * precision[j] * residual * residual


@jit
def _bounded(y, precision, x, cost, slope):
    for j in range(y.size):
        mean = sigmoid(y[j])
        residual = x[j] - mean
        slope[j] = -precision[j] * residual * mean * sigmoid(-y[j])
        cost[j] = type(residual)(0.5) * precision[j] * residual * residual


@jit
def _grey(y, x, cost, slope):
    for j in range(y.size):
        slope[j] = grey_mean(y[j]) - x[j]
        cost[j] = grey_partition(y[j]) - x[j] * y[j]


@jit
def _binary(y, x, cost, slope):
    for j in range(y.size):
        slope[j] = sigmoid(y[j]) - x[j]
        cost[j] = softplus(y[j]) - x[j] * y[j]


@jit
def _count(y, shift, x, cost, slope):
    for j in range(y.size):
        log_rate = y[j] + shift[j]
        held = hold_log_rate(log_rate)
        rate = exp(held)
        slope[j] = rate - x[j]
        cost[j] = rate + rate * (log_rate - held) - x[j] * log_rate
    for j in range(y.size):  # the one part that is no vector code
        cost[j] += math.lgamma(x[j] + type(x[j])(1))


@jit
def _category(y, x, cost, slope):
    """p is where the slope will be."""
    log_sum = _softmax(y, slope)
    for j in range(y.size):
        cost[j] = x[j] * (log_sum - y[j])
        slope[j] -= x[j]


@jit
def _softmax(y, p):
    """p <- softmax(y), which may be y; returns ln(sum e^y)."""
    top, total = y[0], type(y[0])(0)
    for j in range(1, y.size):
        top = max(top, y[j])
    for j in range(y.size):
        p[j] = exp(y[j] - top)
    for j in range(y.size):
        total += p[j]
    log_sum, share = top + log(total), type(total)(1) / total
    for j in range(y.size):
        p[j] *= share
    return log_sum


@compiled
def mixed_nll(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise_logvar):
    real, D, R = y.dtype.type, y.shape[1], noise_logvar.size
    zero, half, factor = real(0), real(0.5), real(scale)
    constant, per_x, precision = np.empty(D, y.dtype), np.empty(D, y.dtype), np.empty(R, y.dtype)
    for j in range(D):
        constant[j] = units[0, j]
        per_x[j] = units[1, j]
    for j in range(R):
        s = hold_logvar(noise_logvar[j])
        precision[j] = exp(-s)
        constant[j] += half * (s + real(LOG_2PI))
    target, cost, slope, known = (np.empty(D, y.dtype), np.empty(D, y.dtype), np.empty(D, y.dtype),
                                  np.ones(D, y.dtype))  # fmt: skip
    for i in range(y.shape[0]):
        if observed is None:
            for j in range(D):
                target[j] = x[i, j]
        else:
            for j in range(D):
                known[j] = observed[i, j]
            for g in range(groups.shape[0]):
                if groups[g, 0] == CATEGORY:  # as a whole
                    known[groups[g, 1] : groups[g, 2]] = known[groups[g, 1]]
            for j in range(D):
                target[j] = x[i, j] if known[j] != zero else zero
        for g in range(groups.shape[0]):
            kind, first, last = groups[g, 0], groups[g, 1], groups[g, 2]
            given, there = y[i, first:last], target[first:last]
            costs, slopes = cost[first:last], slope[first:last]
            if kind == REAL:
                _real(given, precision[first:last], there, costs, slopes)
            elif kind == BOUNDED:
                _bounded(given, precision[first:last], there, costs, slopes)
            elif kind == GREY:
                _grey(given, there, costs, slopes)
            elif kind == BINARY:
                _binary(given, there, costs, slopes)
            elif kind == COUNT:
                _count(given, units[2, first:last], there, costs, slopes)
            else:
                _category(given, there, costs, slopes)
        total = zero
        for j in range(D):
            entry = cost[j] + constant[j] + per_x[j] * target[j]
            total += entry if known[j] != zero else zero
        nll[i] = total
        if dy is not None:
            drow, dnoise = dy[i], dnoise_logvar[i]
            for j in range(D):
                drow[j] = factor * slope[j] if known[j] != zero else zero
            for j in range(R):
                ds = zero if is_held(noise_logvar[j]) else half - cost[j]
                dnoise[j] = factor * ds if known[j] != zero else zero


@compiled
def mixed_mean(y, groups, units, mean):
    for i in range(y.shape[0]):
        for g in range(groups.shape[0]):
            kind, first, last = groups[g, 0], groups[g, 1], groups[g, 2]
            given, target, shift = y[i, first:last], mean[i, first:last], units[2, first:last]
            if kind == BOUNDED or kind == BINARY:
                for j in range(given.size):
                    target[j] = sigmoid(given[j])
            elif kind == GREY:
                for j in range(given.size):
                    target[j] = grey_mean(given[j])
            elif kind == COUNT:
                for j in range(given.size):
                    target[j] = exp(hold_log_rate(given[j] + shift[j]))
            elif kind == CATEGORY:
                _softmax(given, target)
            else:
                for j in range(given.size):
                    target[j] = given[j]


@compiled
def mixed_draw(y, noise_logvar, groups, units, x):
    real = y.dtype.type
    zero, one, half = real(0), real(1), real(0.5)
    std = np.empty(noise_logvar.size, y.dtype)
    for j in range(std.size):
        std[j] = exp(half * hold_logvar(noise_logvar[j]))
    for i in range(y.shape[0]):
        for g in range(groups.shape[0]):
            kind, first, last = groups[g, 0], groups[g, 1], groups[g, 2]
            given, target, shift = y[i, first:last], x[i, first:last], units[2, first:last]
            if kind == REAL:
                for j in range(given.size):
                    target[j] = given[j] + std[first + j] * target[j]
            elif kind == BOUNDED:
                for j in range(given.size):
                    target[j] = sigmoid(given[j]) + std[first + j] * target[j]
            elif kind == GREY:
                for j in range(given.size):
                    target[j] = grey_draw(given[j], target[j])
            elif kind == BINARY:
                for j in range(given.size):
                    target[j] = one if target[j] < sigmoid(given[j]) else zero
            elif kind == COUNT:
                for j in range(given.size):
                    log_rate = np.float64(given[j]) + np.float64(shift[j])
                    target[j] = real(_draw_count(log_rate, np.float64(target[j])))
            else:
                u = target[0]
                _softmax(given, target)
                below, drawn = zero, 0
                for j in range(given.size - 1):
                    below += target[j]
                    drawn += 1 if below <= u else 0
                for j in range(given.size):
                    target[j] = one if j == drawn else zero


@compiled
def _draw_count(log_rate, u):
    """See the reference: outcomes by their distance from the mode, in float64."""
    log_rate = min(log_rate, LOG_RATE_BOUND)
    rate = math.exp(log_rate)
    mode = np.floor(rate)
    at_mode = math.exp(mode * log_rate - rate - math.lgamma(mode + 1))
    above, below, total, steps = at_mode, at_mode, at_mode, 0.0
    if u < total:
        return mode
    while above + below >= 2.2e-16 and steps < COUNT_STEPS:
        steps += 1
        above *= rate / (mode + steps)
        total += above
        if u < total:
            return mode + steps
        below *= (mode - steps + 1) / rate
        total += below
        if u < total:
            return mode - steps
    return mode + steps
