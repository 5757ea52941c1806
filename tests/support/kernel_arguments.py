"""Arguments for every kernel that computes with real numbers, and a twin beside the reference.

The tolerances are derived here, kernel by kernel, so that a test only says what is compared.
"""

import copy
from typing import NamedTuple

import numpy as np
from numpy.testing import assert_array_equal
from scipy import special

from minivae.kernels import (
    BINARY,
    BOUNDED,
    CATEGORY,
    COUNT,
    GREY,
    LOG_RATE_BOUND,
    LOG_SCALE_BOUND,
    LOGVAR_BOUND,
    PRIORS,
    REAL,
)
from minivae.kernels.tables import reference


class Out(NamedTuple):
    """An array that a kernel writes, and what its tolerance needs.

    size: sum of the |terms| of each entry; None: |before| + |after|, where nothing else cancels;
    infinity: room whose contents are nobody's business.
    """

    before: np.ndarray
    size: np.ndarray | float | None = None
    terms: int = 0
    dtype: str | None = None  # None: that of the kernel


def arguments(dtype, n, m, seed=0, magnitude=1.0):
    """{kernel: its arguments}, in float64 but of values that dtype holds exactly."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (magnitude * rng.standard_normal(shape)).astype(dtype).astype(np.float64)

    (a, b, c, d), weight, bias, s = draw(4, n, m), draw(m, 5), draw(m), draw(1)
    block, rows = np.full((n, m), np.nan), np.full(n, np.nan)  # the kernel must write all of them
    code, scale, masked, sloped = int(rng.integers(5)), rng.random(), *(rng.random(2) < 0.6)
    known = rng.random((n, m)) < 0.7 if masked else np.ones((n, m), bool)
    target = rng.choice([0, 0.5, 1], (n, m))
    x, observed = np.where(known, target, np.nan), known.astype(float) if masked else None

    def gradient(out):
        return out if sloped else None

    f = a.copy()
    reference.bias_activation(f, bias, code)
    held_s = np.clip(s, -LOGVAR_BOUND, LOGVAR_BOUND)
    dbias = Out(bias * np.nan, abs(a).sum(axis=0), n)  # of terms dy f', and f' <= 1
    precision, residual = np.exp(-held_s), known * (target - a)
    bernoulli_terms = known * (np.logaddexp(0, a) + target * abs(a))
    ds_terms = (known + residual**2 * precision) / 2
    gaussian_terms = ds_terms + known * (1 + abs(held_s) / 2)
    left, right = [(a, weight), (a, draw(5, m).T), (a.T, b)][code % 3]  # as in x W, dy W^T, x^T dy
    product = abs(left) @ abs(right)
    # Optimisers: positive, with powers of 2, so that only theta minus its step can cancel.
    theta, slope, first, second = abs(np.stack([a, b, c, d])).reshape(4, -1)
    nade = nade_arguments(draw, rng, dtype, n, *((min(m, 40), 5) if code % 2 else (5, m)))
    tables = table_arguments(draw, rng, dtype, n, m, masked, sloped)
    return nade | tables | posterior_arguments(draw, n, m, [1, 3][code % 2], masked, sloped) | {
        "matmul": [left, right, Out(product * np.nan, product, left.shape[1])],
        # y + bias is rounded: relu moves by as much, the others by |a f'| <= |f| + 1.
        "bias_activation": [Out(a, abs(f) + np.minimum(abs(a + bias), 1)), bias, code],
        "activation_backward": [Out(a), target, code],
        "sum_rows": [a, 0, dbias],
        "bernoulli_nll": [
            a, x, observed, scale, Out(rows, bernoulli_terms.sum(axis=1), m),
            gradient(Out(block, scale * (special.expit(a) + target))),
        ],
        "bernoulli_mean": [a, Out(block, special.expit(a))],
        "gaussian_nll": [
            a, s, x, observed, scale, Out(rows, gaussian_terms.sum(axis=1), m),
            gradient(Out(block, scale * precision * abs(residual))),
            gradient(Out(rows, scale * ds_terms.sum(axis=1), m)),
        ],
        "gaussian_draw": [a, s, c, Out(block, abs(a) + np.exp(held_s / 2) * abs(c))],
        "sgd": [Out(theta), slope, Out(first), 0.25, 0.9, 0.1],
        "adagrad": [Out(theta), slope, Out(first), 0.25, 0.1, 1e-8],
        "adam": [Out(theta), slope, Out(first), Out(second), 3, 0.25, 0.5, 0.75, 1e-8, 0.1],
        "add_terms": [a, Out(np.arange(n) / 4, abs(a).sum(axis=1) + n, m, "float64")],
        "threshold": [Out(target, 0)],  # size 0: no rounding
        "gather": [
            np.where(rng.random((9, m)) < 0.8, draw(9, m), np.nan) if masked else draw(9, m),
            rng.integers(0, 9, n), Out(block, 0), Out(block, 0) if masked else None,
        ],
        "copy": [a, Out(block, 0)],
        "repeat_rows": [a, Out(np.full((3 * n, m), np.nan), 0)],
        "scale_rows": [b[:, 0].copy(), Out(a, abs(a * b[:, :1]))],
        "mean_of_draws": [a.reshape(-1), Out(rows, abs(a).sum(axis=1), m)],
    } | {
        **chains_arguments(a, b, c, d, rng),
        **couplings_arguments(draw, rng, n, m),
        **convolution_arguments(draw, rng, dtype, n, m),
        **boltzmann_arguments(draw, rng, n, m, 7),
        **levels_arguments(draw, rng, dtype, n, m, sloped),
        **recurrent_arguments(draw, n, m),
        **adversarial_arguments(draw, dtype, a, b, sloped),
    }  # fmt: skip


def posterior_arguments(draw, n, m, K, full, paid):
    """Those of the posterior's kernels, for n rows of K draws each and m latents.

    full: with entries below the diagonal of L, whose rows have a sum of at most 1, so that a solve
    grows by less than e^2 and its rounding is bounded by the condition of L, as LAPACK says.
    """
    paid = paid and not full  # free bits are of a diagonal posterior
    mu, logvar, (dz, eps, z) = draw(n, m), draw(n, m), draw(3, n * K, m)
    nll, log_w, scale = draw(n * K), draw(n * K), abs(draw(1))[0] / 3
    row, column = np.tril_indices(m, -1)
    lower = np.clip(draw(n, row.size), -1 / m, 1 / m).astype("f4").astype(np.float64)
    held = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    free = 0.7 if paid else None
    std = np.exp(held / 2)
    below = np.zeros((n, m, m))
    below[:, row, column] = abs(lower)
    weights, by_row = abs(draw(n * K)), (n, K, m)
    spread = std[:, None] * abs(eps.reshape(by_row))
    kl = (mu * mu + std * std + abs(held) + 1) / 2
    pull, push = abs(dz).reshape(by_row).sum(axis=1), abs(dz * eps).reshape(by_row).sum(axis=1)
    dlower = np.einsum("bki,bkj->bij", abs(dz).reshape(by_row), abs(eps).reshape(by_row)) + below
    apart = log_w.reshape(n, K) - log_w.reshape(n, K).max(axis=1, initial=-np.inf)[:, None]
    size = np.exp(apart) * (1 + abs(apart))  # exp of a rounded exponent
    size /= np.exp(apart).sum(axis=1, keepdims=True)
    kl_size = kl.sum(axis=1)
    soft = np.tanh(logvar).astype("f4").astype(np.float64)
    score = abs(eps) / np.repeat(np.exp(soft / 2), K, axis=0)
    if full:
        spread += np.einsum("bij,bkj->bki", below, abs(eps.reshape(by_row)))
        kl_size = kl_size + (lower * lower).sum(axis=1)
        score = np.full((n * K, m), abs(eps).max(initial=0) * 10.0)
    else:
        lower = None
    dz_size = abs(dz) + scale * weights[:, None] * (abs(z) + abs(eps))
    ratio = (eps * eps + z * z + np.repeat(abs(held), K, axis=0)).sum(axis=1) / 2 + abs(nll)
    new = {shape: np.full(shape, np.nan) for shape in [(n, m), (n * K, m), (n,), (n * K,)]}
    return {
        "sample_gaussian": [
            mu, logvar, lower, eps,
            Out(new[n * K, m], (abs(mu)[:, None] + spread).reshape(n * K, m), m),
        ],
        "gaussian_kl": [
            mu, logvar, lower, free, Out(new[(n,)], kl_size, m * m),
            Out(new[(n,)], (kl + 1).sum(axis=1), m) if paid else None,
        ],
        "sample_gaussian_backward": [
            dz, mu, logvar, lower, eps, scale, scale / 2, free,
            Out(new[n, m], pull + scale * abs(mu), K),
            Out(new[n, m], (std * push + scale * (std * std + 1)) / 2, K),
            Out(np.full((n, row.size), np.nan), dlower[:, row, column], K) if full else None,
        ],
        "log_importance_weights": [logvar, eps, z, nll, Out(new[(n * K,)], ratio, m)],
        "importance_bound": [
            log_w, nll, Out(new[(n * K,)], size.reshape(-1), K),
            Out(new[(n,)], (size * abs(nll).reshape(n, K)).sum(axis=1), K),
            Out(new[(n,)], abs(log_w).reshape(n, K).max(axis=1, initial=0) + 2
                + (size * abs(nll).reshape(n, K)).sum(axis=1), K),
        ],
        "posterior_score": [soft, lower, eps, Out(new[n * K, m], score, 2 * m)],
        "importance_backward": [
            Out(dz, dz_size * (weights[:, None] if full else 1)), z, eps if full else None,
            weights, scale,
        ],
    }  # fmt: skip


def chains_arguments(z, v, dnll, other, rng):
    """Those of the kernels of Hamiltonian Monte Carlo."""
    (n, m), beta, fraction = z.shape, rng.integers(0, 9) / 8, rng.choice([0.5, 1.0])
    size, u, rows = rng.integers(1, 9, n) / 4, rng.integers(1, 512, n) / 512, np.full(n, np.nan)
    nll, before, after = abs(z[:, 0]), v[:, 0], other[:, 0]
    energy = (z * z + v * v).sum(axis=1) / 2 + beta * nll
    kick = fraction * size[:, None] * (abs(z) + beta * abs(dnll))
    return {
        "leapfrog_momentum": [Out(v, abs(v) + kick), z, dnll, beta, size, fraction],
        "leapfrog_position": [Out(z, abs(z) + size[:, None] * abs(v)), v, size],
        "hamiltonian": [z, v, nll, beta, Out(rows, energy, m)],
        "metropolis": [
            before, after, u, v, 2 * nll, other, Out(z, 0), Out(nll, 0), Out(dnll, 0), Out(rows, 0)
        ],
    }  # fmt: skip


def adversarial_arguments(draw, dtype, left, right, sloped):
    """Those of the kernels of a generative adversarial network. A sigmoid that is no normal number
    may be 0, before it is multiplied by a scale."""
    least = np.finfo(dtype).tiny / np.finfo(dtype).eps
    (n, m), d_scale, g_scale = left.shape, *abs(draw(2))
    logits, judged, rows = draw(n, 2), draw(n, 1), np.full(n, np.nan)
    signed = logits * (-1, 1)
    d_slope = d_scale * (special.expit(signed) + least)
    g_slope = g_scale * (special.expit(-judged) + least)
    return {
        "join_columns": [left, right, Out(np.full((n, 2 * m), np.nan), 0)],
        "adversarial_losses": [
            logits, judged, d_scale, g_scale,
            Out(rows, np.logaddexp(0, signed).sum(axis=1)),
            Out(rows, np.logaddexp(0, -judged[:, 0])),
            Out(np.full((n, 2), np.nan), d_slope) if sloped else None,
            Out(np.full((n, 1), np.nan), g_slope) if sloped else None,
        ],
    }  # fmt: skip


def couplings_arguments(draw, rng, n, D):
    """Those of the kernels of a flow of D columns; a coupling's half has as many here.

    With r the rounding of a tanh, s = b tanh(.) is off by r |s|, so e^s by a factor of 1 + r |s|,
    and 1 - tanh^2 by 2 r. What jumps, levels, is asked for in the middle of a step.
    """
    affine, sloped = rng.random(2) < 0.7
    level, noise = rng.integers(0, 17, (n, D)), rng.integers(1, 512, (n, D)) / 512
    (x, y, dy, shift, raw), log_scale, log_det = draw(5, n, D), draw(D), draw(n, 3)
    scale, prior = abs(draw(1))[0], int(rng.integers(len(PRIORS)))
    heads = np.hstack([raw, shift]) if affine else shift
    s = affine * LOG_SCALE_BOUND * np.tanh(raw / LOG_SCALE_BOUND)
    wide, narrow = np.exp(s) * (1 + abs(s)), np.exp(-s) * (1 + abs(s))
    draw_size = abs(dy * x) * wide + scale
    held = np.clip(log_scale, -LOGVAR_BOUND, LOGVAR_BOUND)
    z = abs(y) * np.exp(held)
    slope, cost = [(np.tanh(z / 2), z + 2), (z, z * z + 2)][prior]
    new, rows, half = np.full((n, D), np.nan), np.full(n, np.nan), np.full((n, D - D // 2), np.nan)
    nll = (cost + abs(held)).sum(axis=1) + abs(log_det).sum(axis=1) + 2.5
    return {
        "dequantize": [level / 16, noise, 17, Out(new, (level + noise) / 17)],
        "quantize": [(2 * level - 1) / 32, 16, Out(new, 1)],
        "split_columns": [x, Out(half, 0), Out(half[:, : D // 2], 0)],
        "merge_columns": [x[:, 0::2], x[:, 1::2], Out(new, 0)],
        "coupling": [
            x, heads, Out(new, abs(x) * wide + abs(shift)),
            Out(np.full((n, 1), np.nan), abs(s).sum(axis=1, keepdims=True), D),
        ],
        "coupling_backward": [
            dy, x, heads, scale, Out(new, abs(dy) * wide),
            Out(heads * np.nan, np.hstack([draw_size, abs(dy)]) if affine else abs(dy), 8),
        ],
        "coupling_inverse": [y, heads, Out(new, (abs(y) + abs(shift)) * narrow)],
        "add": [x, Out(y, abs(x) + abs(y))],
        "prior_nll": [
            y, log_scale, log_det, -2.5, prior, scale, Out(new, z), Out(rows, nll, D + 3),
            Out(new, scale * slope * np.exp(held)) if sloped else None,
            Out(new, scale * (slope * z + 1)) if sloped else None,
        ],
        "scale_inverse": [y, log_scale, Out(new, abs(y) * np.exp(-held))],
        "logistic": [noise, Out(new, abs(np.log(noise)) + abs(np.log1p(-noise)))],
    }  # fmt: skip


def convolution_arguments(draw, rng, dtype, n, C):
    """Those of the kernels of convolutions of n rows of 4 positions with C channels, 3 taps; and of
    draws of bits, whose uniforms keep away from their probabilities.

    1 - tanh^2 cancels, by roundings of tanh^2; and a sigmoid that is no normal number may be 0.
    """
    D, T, limits = 4, 3, np.finfo(dtype)
    inverse = np.stack([rng.permutation(np.where(rng.random(D) < 0.3, -1, rng.permutation(D)))
                        for _ in range(T)], axis=1)  # fmt: skip
    P = 1 + int(rng.integers(D))
    dcols, dh, a, dy = draw(D * n, T * C), draw(D * n, C), draw(n, 2 * C), draw(n, C)
    tap = abs(dcols).reshape(n, D, T, C)[:, np.maximum(inverse, 0), np.arange(T)]
    terms = (tap * (inverse >= 0)[:, :, None]).sum(axis=2).reshape(dh.shape)
    t, logits = abs(np.tanh(a[:, :C])), a[:, C:]
    s = special.expit(logits) + limits.tiny / limits.eps
    p, u = special.expit(logits), rng.random((n, C))
    one = np.where(abs(p - 0.5) < 0.499, u < 0.5, p > 0.5)
    u = np.where(one, p / 2, (1 + p) / 2).astype(dtype).astype(np.float64)
    return {
        "gather_taps": [dh, rng.integers(-1, D, (P, T)), Out(np.full((P * n, T * C), np.nan), 0)],
        "scatter_taps": [dcols, inverse, Out(dh, abs(dh) + terms, T)],
        "gate": [a, Out(dy * np.nan, t * s)],
        "gate_backward": [
            dy, a, Out(a * np.nan, np.hstack([abs(dy) * s, abs(dy) * t * s])),
        ],
        "bernoulli_draw": [logits, u, Out(dy * np.nan, 0)],
    }  # fmt: skip


def boltzmann_arguments(draw, rng, n, D, H):
    """Those of the kernels of a machine of D visible and H hidden units.

    s = field + c is off by the rounding of what is added, softplus' <= 1 hands that on whole, and a
    sigmoid by (1 - sigmoid) times it. The column of pseudo_nll is asked for in its middle.
    """
    v, field, W, (a, base), c = draw(n, D), draw(n, H), draw(D, H), draw(2, D), draw(H)
    x, scale, sloped = rng.choice([0, 0.5, 1], (n, D)), rng.normal(), rng.random() < 0.7
    column, rows = rng.integers(0, D, n), np.full(n, np.nan)
    t, s, added = 1 - 2 * x[np.arange(n), column], field + c, abs(field) + abs(c)
    soft, flipped = np.logaddexp(0, s) + added, np.logaddexp(0, s + t[:, None] * W[column])
    tempered = np.logaddexp(0, s / 2) + np.logaddexp(0, s / 4) + added
    energy = abs(v) @ abs(a) + soft.sum(axis=1)
    total = (soft + flipped + abs(W[column])).sum(axis=1)
    return {
        "free_energy": [
            v, field, a, c, scale, Out(rows, energy, D + H),
            Out(v * np.nan, abs(scale * v)) if sloped else None,
            Out(field * np.nan, abs(scale) * special.expit(s) * (1 + added)) if sloped else None,
        ],
        "pseudo_nll": [
            x, ((column + 0.5) / D).astype("f4").astype("f8")[:, None], field, W, a, c,
            Out(rows, D * (total + abs(a[column])), H + 2),
        ],
        "anneal_energy": [
            v, field, base, a, c, 0.25, 0.5,
            Out(rows, abs(v) @ (abs(a) + abs(base)) + tempered.sum(axis=1), D + H),
        ],
    }  # fmt: skip


def recurrent_arguments(draw, n, H):
    """Those of the steps of a recurrent net of H units: of step 1 of 2, whose state comes third.

    A gate is a sigmoid or a tanh of a sum, so it is off by some roundings of the sum's terms, times
    a slope of at most 1, and by some of its own. Step 0 must stay.
    """
    a, u, bias, h, dh = draw(n, 8 * H), draw(n, 3 * H), draw(3 * H), draw(n, 3 * H), draw(n, 3 * H)
    u_r, u_z, u_q = np.split(abs(u), 3, axis=1)
    s_n, s_r, s_z = np.split(abs(a[:, 4 * H : 7 * H]) + abs(bias), 3, axis=1)
    r_size, z_size = 1 + s_r + u_r, 1 + s_z + u_z
    n_size = 1 + s_n + u_q * (1 + r_size)
    h_size = n_size + (abs(h[:, H : 2 * H]) + 1) * z_size
    gates = np.tanh(draw(n, 8 * H)).astype("f4").astype(np.float64)
    gates[:, 5 * H : 7 * H] = abs(gates[:, 5 * H : 7 * H])
    slope, q = abs(dh[:, 2 * H :]), abs(gates[:, 7 * H :])
    z_slope = slope * (abs(h[:, H : 2 * H]) + 1)
    kept = np.zeros((n, H))
    return {
        "clear": [Out(u, 0)],
        "gru": [
            1, u, bias, Out(h, np.hstack([kept, kept, h_size])),
            Out(a, np.hstack([kept, kept, kept, kept, n_size, r_size, z_size, u_q])),
        ],
        "gru_backward": [
            1, H, h, gates, Out(dh, np.hstack([kept, slope + abs(dh[:, H : 2 * H]), kept])),
            Out(a, np.hstack([kept, kept, kept, kept, slope, slope * q, z_slope, slope])),
        ],
    }  # fmt: skip


def nade_arguments(draw, rng, dtype, n, D, H):
    """Those of NADE's kernels with real results, for D variables and H hidden units; the biases are
    those of all rows, or each row has its own.

    With A the sum of |c| and all |x W|, a_d is off by D roundings of A at most and h = sigmoid(a_d)
    by its own and that times h' = h (1 - h), or is 0 where it is no normal number. 1 - h itself is
    rounded in units of h.
    """
    rows = [1, n][rng.integers(2)]
    x, dlogits, W, V, c, b = rng.choice([0, 0, 0.5, 1], (n, D)), draw(n, D), *draw(2, D, H), *(
        draw(rows, H), draw(rows, D))  # fmt: skip
    first, last = H // 4, H - H // 5
    before = c[:, None] + np.cumsum(x[:, :, None] * W, axis=1) - x[:, :, None] * W  # (n, D, H)
    h, limits = special.expit(before), np.finfo(dtype)
    size = h + h * special.expit(-before) * (abs(c) + abs(x) @ abs(W))[:, None, :]
    size += limits.tiny / limits.eps
    logits = abs(b) + (abs(V) * size).sum(axis=2)
    dV = (abs(dlogits)[:, :, None] * size).sum(axis=0)
    da = (abs(dlogits)[:, :, None] * abs(V) * size).sum(axis=1)  # (n, H): over all variables
    kept = np.full((D, H), 7.0)  # what other columns must still be
    dc = da if rows == n else da.sum(axis=0, keepdims=True)
    asked = rng.integers(3)  # for all, for dW and dV, for dc
    return {
        "nade_logits": [
            x, W, c, V, b, Out(np.zeros((n, H)), np.inf), Out(np.zeros((n, H)), np.inf),
            Out(np.full((n, D), np.nan), logits, D + H),
        ],
        "nade_backward": [
            x, dlogits, W, c, V, first, last,
            None if asked == 2 else Out(kept, x.T @ da, n + 2 * D),
            None if asked == 1 else Out(np.full((rows, H), 7.0), dc, n + 2 * D),
            None if asked == 2 else Out(kept, dV, n + D),
        ],
    }  # fmt: skip


def levels_arguments(draw, rng, dtype, n, D, sloped):
    """Those of the kernels of a sequence, for D variables or channels.

    A probability is off by its logit's distance below the top one in roundings, or 0 where it is no
    normal number. Draws must be equal, so uniforms lie in the middle of a level's interval.
    """
    levels, t = int(rng.choice([3, 5])), int(rng.integers(6))
    logits, scale, rows = draw(n, D, levels), abs(draw(1))[0], np.arange(n)
    drawn = rng.integers(0, levels, (n, D))
    hot = drawn[:, :, None] == np.arange(levels)
    p = special.softmax(logits, axis=2)
    rounding = p * (1 + abs(logits - logits.max(axis=2, keepdims=True)))
    rounding += np.finfo(dtype).tiny / np.finfo(dtype).eps
    log_sum = special.logsumexp(logits, axis=2, keepdims=True)
    cost = hot * (abs(log_sum) + abs(logits) + 1)
    slope = (scale * (rounding + hot)).reshape(n, D * levels)
    first = draw(n, levels)
    of_row = special.softmax(first, axis=1)
    k = (of_row * rng.random(of_row.shape)).argmax(axis=1) if n else np.zeros(0, int)
    u = np.cumsum(of_row, axis=1)[rows, k] - of_row[rows, k] / 2
    u = u.astype(dtype).astype(np.float64)
    new = np.full((n, D), np.nan)
    return {
        "levels_nll": [
            logits.reshape(n, D * levels), drawn / (levels - 1), levels, scale,
            Out(np.full(n, np.nan), cost.sum(axis=(1, 2)), 2 * D),
            Out(np.full((n, D * levels), np.nan), slope, levels) if sloped else None,
        ],
        "levels_draw": [first, u[:, None], Out(np.full((n, 1), np.nan), 1)],
        "queue_taps": [draw(n, D), Out(draw(n, 3 * D), 0), t, Out(np.hstack([new, new]), 0)],
    }  # fmt: skip


def random_groups(rng, m):
    """Groups (G, 3) of m columns: all kinds where there is room, and two columns with noise."""
    widths = np.bincount(rng.integers(0, 6, m - 2), minlength=6) if m > 1 else np.zeros(6, int)
    widths[rng.integers(0, 6) if m == 1 else REAL] += 1
    widths[BOUNDED] += m > 1
    groups, first = [], 0
    for kind, width in enumerate(widths):
        while width > 0:
            taken = min(width, rng.integers(1, 5)) if kind == CATEGORY else width
            groups.append((kind, first, first + taken))
            first, width = first + taken, width - taken
    return np.array(groups)


def table_arguments(draw, rng, dtype, n, m, masked, sloped):
    """Those of the kernels of tables, for n rows of m columns.

    Draws that are no real numbers must be equal, so uniforms keep away from where they jump: by
    1e-3 / 2 of a probability at least, which is known to 8 eps. Counts are drawn in float64.
    """

    def exactly(values):
        return np.asarray(values).astype(dtype).astype(np.float64)

    groups, y, x = random_groups(rng, m), draw(n, m), np.zeros((n, m))
    kinds = np.repeat(groups[:, 0], groups[:, 2] - groups[:, 1])
    of = {kind: kinds == kind for kind in (REAL, BOUNDED, GREY, BINARY, COUNT)}
    R = int((of[REAL] | of[BOUNDED]).sum())
    s, units, scale = draw(R), np.clip(draw(3, m), -2, 2), exactly(rng.random())
    units[:2, kinds == CATEGORY] = 0
    known = rng.random((n, m)) < 0.7 if masked else np.ones((n, m), bool)
    u, y_drawn = exactly((rng.integers(0, 512, (n, m)) + 0.5) / 512), y.copy()
    p, noise = special.expit(y), np.hstack([draw(n, R), u[:, R:]])
    y_drawn[:, of[COUNT]] = np.clip(y[:, of[COUNT]], -5, 5)  # or the walk is long
    one = np.where(abs(p - 0.5) < 0.499, u < 0.5, p > 0.5)
    noise[:, of[BINARY]] = exactly(np.where(one, p / 2, (1 + p) / 2))[:, of[BINARY]]
    x[:, of[REAL]] = draw(n, R)[:, of[REAL][:R]]
    grey = rng.choice([0, 0.25, 0.5, 1], (n, m))
    x[:, of[BOUNDED]], x[:, of[GREY]] = grey[:, of[BOUNDED]], grey[:, of[GREY]]
    x[:, of[BINARY]], x[:, of[COUNT]] = one[:, of[BINARY]], rng.poisson(3, (n, of[COUNT].sum()))

    # Sums of the |terms| of -ln p, of its derivatives, of means, of draws.
    held = np.clip(s, -LOGVAR_BOUND, LOGVAR_BOUND)
    spread = np.concatenate([held, np.zeros(m - R)])
    precision, std = np.exp(-spread), np.exp(spread / 2)
    a, large = abs(y), np.maximum(abs(y), 1)
    cost, slope, mean, drawn = (np.zeros((n, m)) for _ in range(4))
    center = np.where(of[BOUNDED], p, 0)
    off = np.where(of[BOUNDED], abs(x) + center, abs(x - y))
    # What is no normal number may be 0, before it is multiplied by a precision.
    least = np.finfo(dtype).tiny / np.finfo(dtype).eps
    chain = np.where(of[BOUNDED], p * special.expit(-y) + least, 1)
    squares = off * off * precision
    for kind in (REAL, BOUNDED):
        j = of[kind]
        cost[:, j] = (squares + abs(spread) + 2)[:, j]
        slope[:, j] = (precision * off * chain)[:, j]
        mean[:, j] = (p if kind == BOUNDED else a)[:, j]
        drawn[:, j] = mean[:, j] + (std * abs(noise))[:, j]
    e = np.exp(-large)
    grey_mean = 1 / large + e / (1 - e) + (y > 0)
    log_mass = np.where(a < 1, a / 2, abs(np.log((1 - e) / large)))
    cost[:, of[GREY]] = (a * (1 + x) + log_mass)[:, of[GREY]]
    slope[:, of[GREY]], mean[:, of[GREY]] = (grey_mean + x)[:, of[GREY]], grey_mean[:, of[GREY]]
    drawn[:, of[GREY]] = (1 + 1 / np.maximum(a, np.log(2)))[:, of[GREY]]
    cost[:, of[BINARY]] = (np.logaddexp(0, y) + x * a)[:, of[BINARY]]
    slope[:, of[BINARY]], mean[:, of[BINARY]] = (p + x)[:, of[BINARY]], p[:, of[BINARY]]
    j, shift = of[COUNT], units[2]
    log_rate, moved = (y + shift)[:, j], (1 + a + abs(shift))[:, j]  # what rounding y + shift does
    rate = np.exp(np.minimum(log_rate, LOG_RATE_BOUND)) * moved
    cost[:, j] = rate * (1 + moved) + x[:, j] * moved + special.gammaln(x[:, j] + 1)
    slope[:, j], mean[:, j] = rate + x[:, j], rate
    for kind, first, last in groups:
        if kind == CATEGORY:
            logits = y[:, first:last]
            of_row = special.softmax(logits, axis=1)
            draws = (of_row * rng.random(of_row.shape)).argmax(axis=1) if n else np.zeros(0, int)
            rows = np.arange(n)
            x[rows, first + draws] = 1
            known[:, first:last] = known[:, first : first + 1]
            below = np.cumsum(of_row, axis=1)[rows, draws] - of_row[rows, draws] / 2
            noise[:, first] = exactly(below)
            rounding = of_row * (1 + abs(logits - logits.max(axis=1, keepdims=True)))
            slope[:, first:last], mean[:, first:last] = rounding + x[:, first:last], rounding
            cost[:, first:last] = x[:, first:last] * (
                abs(special.logsumexp(logits, axis=1, keepdims=True)) + abs(logits) + 1
            )
    cost += abs(units[0]) + abs(units[1] * x)
    observed, x = known.astype(float) if masked else None, np.where(known, x, np.nan)
    h = np.where(known, abs(x), 0)
    h[:, j] = np.where(known[:, j], np.log1p(h[:, j]) + abs(shift[j]), 0)
    new, rows = np.full((n, m), np.nan), np.full(n, np.nan)
    return {
        "mixed_nll": [
            y, s, groups, units, x, observed, float(scale),
            Out(rows, (cost * known).sum(axis=1), 2 * m),
            Out(new, scale * slope) if sloped else None,
            Out(new[:, :R], scale * (squares + 1)[:, :R]) if sloped else None,
        ],
        "mixed_mean": [y, groups, units, Out(new, mean)],
        "mixed_draw": [y_drawn, s, groups, units, Out(noise, drawn)],
        "encoder_input": [
            x, observed, *((groups, units) if sloped else (None, None)),
            Out(np.hstack([new, new]) if masked else new, np.hstack([h, 0 * h]) if masked else h),
        ],
    }  # fmt: skip


TWINS = sorted(arguments("float64", 1, 1))


def strided(array):
    """Every second entry of longer rows; between them stands 1."""
    wide = np.ones((*array.shape[:-1], 2 * array.shape[-1] + 1), array.dtype)
    wide[..., 1::2] = array
    return wide[..., 1::2]


def columns(matrix):
    """Columns of a wider matrix; beside them stands 1."""
    wide = np.ones((len(matrix), matrix.shape[1] + 3), matrix.dtype)
    wide[:, 1:-2] = matrix
    return wide[:, 1:-2]


def compare(name, kernel, dtype, layout, given):
    """The kernel in dtype against the float64 reference; nothing but its Outs may change.

    A term's relative error is at most 8 eps: 3 of a formula (3e-7 in float32), twice that for a
    square, and products; each addition brings one eps more. What is not a normal number may be 0.
    """
    exact = [copy.deepcopy(g.before if isinstance(g, Out) else g) for g in given]
    found = list(exact)
    for i, (g, e) in enumerate(zip(given, exact, strict=True)):
        if isinstance(e, np.ndarray):
            own = g.dtype if isinstance(g, Out) and g.dtype else dtype
            found[i] = layout(e.astype(own) if e.dtype == np.float64 else e)
            found[i].flags.writeable = layout is not strided or isinstance(g, Out)
    getattr(reference, name)(*exact)
    kernel(*found)
    for g, e, f in zip(given, exact, found, strict=True):
        if isinstance(g, Out):
            assert f.dtype == (g.dtype or dtype)
            limits = np.finfo(f.dtype)
            size = abs(g.before) + abs(e) if g.size is None else g.size
            tolerance = (8 + g.terms) * (limits.eps * size + 4 * limits.tiny)
            assert (abs(f - e) <= tolerance).all(), f"{name}: {f} is not {e}"
        elif isinstance(g, np.ndarray):
            assert_array_equal(f, g)
        if isinstance(f, np.ndarray) and layout is strided:
            assert (f.base[..., ::2] == 1).all()
