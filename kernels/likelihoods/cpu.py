"""Numba twins of likelihoods/reference.py."""

import math

from ..support.formulas import exp, hold_logvar, is_held, sigmoid, softplus
from ..support.native import compiled

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
