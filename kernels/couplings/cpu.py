"""Numba twins of couplings/reference.py."""

import math

import numpy as np

from .. import LOG_SCALE_BOUND, NORMAL
from ..support.formulas import exp, hold_logvar, is_held, log, log1p_unit, tanh
from ..support.native import compiled, inlined

LOG_2PI = math.log(2 * math.pi)


@compiled
def dequantize(x, noise, levels, u):
    real = u.dtype.type
    top, n, half = real(levels - 1), real(levels), real(0.5)
    for i in range(x.shape[0]):
        row, drawn, target = x[i], noise[i], u[i]
        for j in range(row.size):
            target[j] = (np.floor(row[j] * top + half) + drawn[j]) / n


@compiled
def quantize(u, levels, x):
    real = x.dtype.type
    top, n, zero = real(levels - 1), real(levels), real(0)
    for i in range(u.shape[0]):
        row, target = u[i], x[i]
        for j in range(row.size):
            target[j] = min(max(np.floor(row[j] * n), zero), top) / top


@compiled
def split_columns(x, even, odd):
    for i in range(x.shape[0]):
        for j in range(even.shape[1]):
            even[i, j] = x[i, 2 * j]
        for j in range(odd.shape[1]):
            odd[i, j] = x[i, 2 * j + 1]


@compiled
def merge_columns(even, odd, x):
    for i in range(x.shape[0]):
        for j in range(even.shape[1]):
            x[i, 2 * j] = even[i, j]
        for j in range(odd.shape[1]):
            x[i, 2 * j + 1] = odd[i, j]


@inlined
def _unit_scale(raw):
    """s / LOG_SCALE_BOUND, within +-1."""
    return tanh(raw * type(raw)(1 / LOG_SCALE_BOUND))


@compiled
def coupling(x, heads, y, log_det):
    real, h = y.dtype.type, x.shape[1]
    bound = real(LOG_SCALE_BOUND)
    for i in range(x.shape[0]):
        row, target = x[i], y[i]
        total = real(0)
        if heads.shape[1] == h:
            shift = heads[i]
            for j in range(h):
                target[j] = row[j] + shift[j]
        else:
            raw, shift = heads[i, :h], heads[i, h:]
            for j in range(h):
                s = bound * _unit_scale(raw[j])
                target[j] = row[j] * exp(s) + shift[j]
                total += s
        log_det[i, 0] = total


@compiled
def coupling_backward(dy, x, heads, scale, dx, dheads):
    real, h = dy.dtype.type, x.shape[1]
    one, bound, factor = real(1), real(LOG_SCALE_BOUND), real(scale)
    for i in range(x.shape[0]):
        row, slope, drow = x[i], dy[i], dx[i]
        if heads.shape[1] == h:
            dshift = dheads[i]
            for j in range(h):
                drow[j] = slope[j]
                dshift[j] = slope[j]
        else:
            raw, draw, dshift = heads[i, :h], dheads[i, :h], dheads[i, h:]
            for j in range(h):
                t = _unit_scale(raw[j])
                scaled = slope[j] * exp(bound * t)
                drow[j] = scaled
                draw[j] = (scaled * row[j] - factor) * (one - t * t)
            for j in range(h):
                dshift[j] = slope[j]


@compiled
def coupling_inverse(y, heads, x):
    h = y.shape[1]
    bound = x.dtype.type(LOG_SCALE_BOUND)
    for i in range(y.shape[0]):
        row, target = y[i], x[i]
        if heads.shape[1] == h:
            shift = heads[i]
            for j in range(h):
                target[j] = row[j] - shift[j]
        else:
            raw, shift = heads[i, :h], heads[i, h:]
            for j in range(h):
                target[j] = (row[j] - shift[j]) * exp(-bound * _unit_scale(raw[j]))


@compiled
def add(part, total):
    for i in range(part.shape[0]):
        row, target = part[i], total[i]
        for j in range(row.size):
            target[j] += row[j]


@compiled
def prior_nll(y, log_scale, log_det, log_volume, prior, scale, z, nll, dy, dlog_scale):
    real, D = y.dtype.type, y.shape[1]
    zero, half, two, factor = real(0), real(0.5), real(2), real(scale)
    constant = half * real(LOG_2PI)
    width, fixed = np.empty(D, y.dtype), -real(log_volume)
    for j in range(D):
        width[j] = exp(hold_logvar(log_scale[j]))
    for j in range(D):
        fixed -= hold_logvar(log_scale[j])
    for i in range(y.shape[0]):
        row, code = y[i], z[i]
        total = zero
        if prior == NORMAL:
            for j in range(D):
                value = row[j] * width[j]
                code[j] = value
                total += half * value * value + constant
        else:
            for j in range(D):
                value = row[j] * width[j]
                code[j] = value
                total += abs(value) + two * log1p_unit(exp(-abs(value)))
        for layer in range(log_det.shape[1]):
            total -= log_det[i, layer]
        nll[i] = total + fixed
        if dy is not None:
            drow, dscale = dy[i], dlog_scale[i]
            if prior == NORMAL:
                for j in range(D):
                    drow[j] = factor * code[j]
            else:
                for j in range(D):
                    drow[j] = factor * tanh(half * code[j])
            for j in range(D):
                slope = drow[j]
                dscale[j] = zero if is_held(log_scale[j]) else slope * code[j] - factor
                drow[j] = slope * width[j]


@compiled
def scale_inverse(z, log_scale, y):
    width = np.empty(z.shape[1], z.dtype)
    for j in range(width.size):
        width[j] = exp(-hold_logvar(log_scale[j]))
    for i in range(z.shape[0]):
        row, target = z[i], y[i]
        for j in range(row.size):
            target[j] = row[j] * width[j]


@compiled
def logistic(u, z):
    one = z.dtype.type(1)
    for i in range(u.shape[0]):
        row, target = u[i], z[i]
        for j in range(row.size):
            target[j] = log(row[j]) - log(one - row[j])
