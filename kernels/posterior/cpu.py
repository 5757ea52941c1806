"""Numba twins of posterior/reference.py."""

from ..support.formulas import exp, hold_logvar, is_held
from ..support.native import compiled


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


@compiled
def log_importance_weights(logvar, eps, z, nll, log_w):
    half = z.dtype.type(0.5)
    for i in range(z.shape[0]):
        total = z.dtype.type(0)
        for j in range(z.shape[1]):
            total += eps[i, j] * eps[i, j] + hold_logvar(logvar[i, j]) - z[i, j] * z[i, j]
        log_w[i] = half * total - nll[i]
