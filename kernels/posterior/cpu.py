"""Numba twins of posterior/reference.py."""

from ..support.formulas import exp, hold_logvar, is_held, log
from ..support.native import compiled


@compiled
def sample_gaussian(mu, logvar, lower, eps, z):
    half = z.dtype.type(0.5)
    B, Z = mu.shape
    K = z.shape[0] // max(B, 1)
    for i in range(B):
        for draw in range(i * K, (i + 1) * K):
            for j in range(Z):
                z[draw, j] = mu[i, j] + exp(half * hold_logvar(logvar[i, j])) * eps[draw, j]
            if lower is not None:
                at = 0
                for j in range(1, Z):
                    total = z.dtype.type(0)
                    for c in range(j):
                        total += lower[i, at + c] * eps[draw, c]
                    z[draw, j] += total
                    at += j


@compiled
def gaussian_kl(mu, logvar, lower, free_bits, kl, slack):
    one, half, zero = kl.dtype.type(1), kl.dtype.type(0.5), kl.dtype.type(0)
    for i in range(mu.shape[0]):
        total = zero
        for j in range(mu.shape[1]):
            held = hold_logvar(logvar[i, j])
            std = exp(half * held)
            total += mu[i, j] * mu[i, j] + std * std - held - one
        if lower is not None:
            for j in range(lower.shape[1]):
                total += lower[i, j] * lower[i, j]
        kl[i] = half * total
        if free_bits is not None:
            free, total = kl.dtype.type(free_bits), zero
            for j in range(mu.shape[1]):
                held = hold_logvar(logvar[i, j])
                std = exp(half * held)
                per_latent = half * (mu[i, j] * mu[i, j] + std * std - held - one)
                total += max(free - per_latent, zero)
            slack[i] = total


@compiled
def sample_gaussian_backward(dz, mu, logvar, lower, eps, prior_scale, entropy_scale, free_bits,
                             dmu, dlogvar, dlower):  # fmt: skip
    one, half, zero = dz.dtype.type(1), dz.dtype.type(0.5), dz.dtype.type(0)
    prior, entropy = dz.dtype.type(prior_scale), dz.dtype.type(entropy_scale)
    B, Z = mu.shape
    K = dz.shape[0] // max(B, 1)
    for i in range(B):
        for j in range(Z):
            dmu[i, j] = zero
            dlogvar[i, j] = zero
        if lower is not None:
            for j in range(lower.shape[1]):
                dlower[i, j] = prior * lower[i, j]
        for draw in range(i * K, (i + 1) * K):
            for j in range(Z):
                dmu[i, j] += dz[draw, j]
                dlogvar[i, j] += dz[draw, j] * eps[draw, j]
            if lower is not None:
                at = 0
                for j in range(1, Z):
                    for c in range(j):
                        dlower[i, at + c] += dz[draw, j] * eps[draw, c]
                    at += j
        for j in range(Z):
            held = hold_logvar(logvar[i, j])
            std = exp(half * held)
            p, e = prior, entropy
            if free_bits is not None:
                kl = half * (mu[i, j] * mu[i, j] + std * std - held - one)
                below = kl < dz.dtype.type(free_bits)
                p, e = zero if below else prior, zero if below else entropy
            dmu[i, j] += p * mu[i, j]
            slope = half * (dlogvar[i, j] * std + (p * std * std - e))
            dlogvar[i, j] = zero if is_held(logvar[i, j]) else slope


@compiled
def log_importance_weights(logvar, eps, z, nll, log_w):
    half = z.dtype.type(0.5)
    B = logvar.shape[0]
    K = z.shape[0] // max(B, 1)
    for i in range(B):
        for draw in range(i * K, (i + 1) * K):
            total = z.dtype.type(0)
            for j in range(z.shape[1]):
                square = eps[draw, j] * eps[draw, j] - z[draw, j] * z[draw, j]
                total += square + hold_logvar(logvar[i, j])
            log_w[draw] = half * total - nll[draw]


@compiled
def importance_bound(log_w, nll, weights, row_nll, row_kl):
    B = row_nll.size
    K = log_w.size // max(B, 1)
    for i in range(B):
        first, last = i * K, (i + 1) * K
        largest = log_w[first]
        for draw in range(first + 1, last):
            largest = max(largest, log_w[draw])
        total = log_w.dtype.type(0)
        for draw in range(first, last):
            weights[draw] = exp(log_w[draw] - largest)
            total += weights[draw]
        mean = log_w.dtype.type(0)
        for draw in range(first, last):
            weights[draw] /= total
            mean += weights[draw] * nll[draw]
        row_nll[i] = mean
        row_kl[i] = -(largest + log(total / log_w.dtype.type(K))) - mean


@compiled
def posterior_score(logvar, lower, eps, score):
    half = score.dtype.type(0.5)
    B, Z = logvar.shape
    K = score.shape[0] // max(B, 1)
    for i in range(B):
        for draw in range(i * K, (i + 1) * K):
            if lower is None:
                for j in range(Z):
                    score[draw, j] = eps[draw, j] / exp(half * hold_logvar(logvar[i, j]))
            else:
                for j in range(Z):
                    score[draw, j] = eps[draw, j]
                for j in range(Z - 1, -1, -1):  # what is known of the score leaves the rows above
                    score[draw, j] /= exp(half * hold_logvar(logvar[i, j]))
                    at = j * (j - 1) // 2
                    for c in range(j):
                        score[draw, c] -= lower[i, at + c] * score[draw, j]


@compiled
def importance_backward(dz, z, score, weights, scale):
    for i in range(dz.shape[0]):
        w = weights[i]
        pull = dz.dtype.type(scale) * w
        for j in range(dz.shape[1]):
            if score is None:
                dz[i, j] += pull * z[i, j]
            else:
                dz[i, j] = w * (dz[i, j] + pull * (z[i, j] - score[i, j]))
