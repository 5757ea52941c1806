"""Numba twins of `reference.py`: same names, arguments and side effects, compiled to vector code.

Loops run over rows and then over one contiguous row (`row = y[i]`), because a loop over a slice of
its own, from 0 to its size, is what the compiler turns into vector code. The formulas themselves
and the reasons for them are in `reference.py` and `formulas.py`.
"""

import math

import numpy as np

from . import IDENTITY, RELU, SIGMOID, SOFTPLUS, TANH
from .formulas import (
    box_muller,
    exp,
    hold_logvar,
    is_held,
    random_block,
    relu,
    sigmoid,
    softplus,
    softplus_derivative,
    tanh,
    uniform,
    unless_negligible,
)
from .gemm import multiply
from .join import wait_for_all
from .native import compiled

LOG_2PI = math.log(2 * math.pi)


# --- layers -------------------------------------------------------------------------------------


@compiled
def matmul(a, b, out):
    (m, n), depth, size = out.shape, a.shape[1], out.itemsize
    assert a.shape[0] == m and b.shape[0] == depth and b.shape[1] == n
    for down, right in (a.strides, b.strides, out.strides):
        assert (down | right) % size == 0
    multiply(a, b, out)


@compiled
def bias_activation(y, bias, activation):
    for i in range(y.shape[0]):
        row = y[i]
        if activation == RELU:
            for j in range(row.size):
                row[j] = relu(row[j] + bias[j])
        elif activation == TANH:
            for j in range(row.size):
                row[j] = tanh(row[j] + bias[j])
        elif activation == SIGMOID:
            for j in range(row.size):
                row[j] = sigmoid(row[j] + bias[j])
        elif activation == SOFTPLUS:
            for j in range(row.size):
                row[j] = softplus(row[j] + bias[j])
        else:
            assert activation == IDENTITY
            for j in range(row.size):
                row[j] += bias[j]


@compiled
def activation_backward(dy, y, activation):
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for i in range(y.shape[0]):
        drow, row = dy[i], y[i]
        if activation == RELU:
            for j in range(row.size):
                drow[j] = drow[j] if row[j] > zero else zero
        elif activation == TANH:
            for j in range(row.size):
                drow[j] *= one - row[j] * row[j]
        elif activation == SIGMOID:
            for j in range(row.size):
                drow[j] *= row[j] * (one - row[j])
        elif activation == SOFTPLUS:
            for j in range(row.size):
                drow[j] *= softplus_derivative(row[j])


@compiled
def sum_rows(dy, first, dbias):
    end = first + dbias.size
    for j in range(dbias.size):
        dbias[j] = dy.dtype.type(0)
    fours = dy.shape[0] // 4 * 4
    for i in range(0, fours, 4):  # dbias is read and written for four rows at once
        a, b = dy[i][first:end], dy[i + 1][first:end]
        c, d = dy[i + 2][first:end], dy[i + 3][first:end]
        for j in range(dbias.size):
            dbias[j] += (a[j] + b[j]) + (c[j] + d[j])
    for i in range(fours, dy.shape[0]):
        row = dy[i][first:end]
        for j in range(dbias.size):
            dbias[j] += row[j]


# --- the posterior q(z|x) -----------------------------------------------------------------------


@compiled
def sample_gaussian(mu, logvar, eps, z, kl):
    one, half = z.dtype.type(1), z.dtype.type(0.5)
    for i in range(z.shape[0]):
        total = z.dtype.type(0)
        for j in range(z.shape[1]):
            held = hold_logvar(logvar[i, j])
            std = exp(half * held)
            z[i, j] = mu[i, j] + std * eps[i, j]
            total += mu[i, j] * mu[i, j] + std * std - held - one
        kl[i] = half * total


@compiled
def sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    one, half, zero = dz.dtype.type(1), dz.dtype.type(0.5), dz.dtype.type(0)
    weight = dz.dtype.type(kl_scale)
    for i in range(dz.shape[0]):
        for j in range(dz.shape[1]):
            held = hold_logvar(logvar[i, j])
            std = exp(half * held)
            slope = half * (dz[i, j] * eps[i, j] * std + weight * (std * std - one))
            dmu[i, j] = dz[i, j] + weight * mu[i, j]
            dlogvar[i, j] = zero if is_held(logvar[i, j]) else slope


# --- likelihoods p(x|z) -------------------------------------------------------------------------


@compiled
def bernoulli_nll(logits, x, mask, scale, nll, dlogits):
    zero = logits.dtype.type(0)
    factor = logits.dtype.type(scale)
    for i in range(logits.shape[0]):
        row, target, drow = logits[i], x[i], dlogits[i]
        total = zero
        if mask is None:
            for j in range(row.size):
                logit = row[j]
                total += softplus(logit) - target[j] * logit
                drow[j] = factor * (sigmoid(logit) - target[j])
        else:
            observed = mask[i]
            for j in range(row.size):
                logit = row[j]
                total += softplus(logit) - target[j] * logit if observed[j] else zero
                drow[j] = factor * (sigmoid(logit) - target[j]) if observed[j] else zero
        nll[i] = total


@compiled
def gaussian_nll(mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar):
    zero, one, half = mean.dtype.type(0), mean.dtype.type(1), mean.dtype.type(0.5)
    factor = mean.dtype.type(scale)
    held = hold_logvar(noise_logvar[0])
    precision = exp(-held)
    constant = mean.dtype.type(LOG_2PI) + held
    inside = zero if is_held(noise_logvar[0]) else one
    for i in range(mean.shape[0]):
        row, target, drow = mean[i], x[i], dmean[i]
        squares = zero
        count = row.size
        if mask is None:
            for j in range(row.size):
                residual = target[j] - row[j]
                squares += residual * residual
                drow[j] = -factor * precision * residual
        else:
            observed = mask[i]
            count = 0
            for j in range(row.size):
                residual = target[j] - row[j] if observed[j] else zero
                count += 1 if observed[j] else 0
                squares += residual * residual
                drow[j] = -factor * precision * residual
        nll[i] = half * (precision * squares + mean.dtype.type(count) * constant)
        slope = half * (mean.dtype.type(count) - precision * squares)
        dnoise_logvar[i] = factor * slope * inside


# --- random numbers -----------------------------------------------------------------------------


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


# --- optimisers ---------------------------------------------------------------------------------


@compiled
def sgd(theta, gradient, velocity, learning_rate, momentum, weight_decay):
    rate, decay = theta.dtype.type(learning_rate), theta.dtype.type(weight_decay)
    inertia = theta.dtype.type(momentum)
    if momentum > 0:
        for i in range(theta.size):
            v = unless_negligible(inertia * velocity[i] + (gradient[i] + decay * theta[i]))
            velocity[i] = v
            theta[i] -= rate * v
    else:
        for i in range(theta.size):
            theta[i] -= rate * (gradient[i] + decay * theta[i])


@compiled
def adagrad(theta, gradient, square_sum, learning_rate, weight_decay, epsilon):
    rate, decay = theta.dtype.type(learning_rate), theta.dtype.type(weight_decay)
    tiny = theta.dtype.type(epsilon)
    for i in range(theta.size):
        g = gradient[i] + decay * theta[i]
        s = square_sum[i] + g * g
        square_sum[i] = s
        theta[i] -= rate * g / (np.sqrt(s) + tiny)


@compiled
def adam(theta, gradient, first, second, step, learning_rate, beta1, beta2, epsilon, weight_decay):
    decay, tiny = theta.dtype.type(weight_decay), theta.dtype.type(epsilon)
    b1, b2 = theta.dtype.type(beta1), theta.dtype.type(beta2)
    c1, c2 = theta.dtype.type(1 - beta1), theta.dtype.type(1 - beta2)
    rate = theta.dtype.type(learning_rate / (1 - beta1**step))
    unbias = theta.dtype.type(1 / (1 - beta2**step))
    for i in range(theta.size):
        g = gradient[i] + decay * theta[i]
        m = unless_negligible(b1 * first[i] + c1 * g)
        v = unless_negligible(b2 * second[i] + c2 * (g * g))
        first[i] = m
        second[i] = v
        theta[i] -= rate * m / (np.sqrt(v * unbias) + tiny)


# --- the batch and its shards -------------------------------------------------------------------


@compiled
def gather(data, rows, x):
    for i in range(rows.size):
        source, target = data[rows[i]], x[i]
        for j in range(target.size):
            target[j] = source[j]


@compiled
def all_finite(nll, kl):
    zero = nll.dtype.type(0)
    total = zero
    for i in range(nll.size):
        total += zero * nll[i] + zero * kl[i]  # 0 times what is not finite is NaN
    return total == zero


@compiled
def add_totals(nll, kl, totals):
    for i in range(nll.size):
        totals[0] += nll[i]
        totals[1] += kl[i]


@compiled
def join(barrier, workers):
    if workers > 1:
        wait_for_all(barrier, workers)
