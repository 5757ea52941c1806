"""Likelihoods p(x|z): the specification. Each has -ln p with its gradient, mean and draws.

observed: None, or (B, D) of 1 and 0; an entry that is 0 counts for nothing, whatever x is there.
The gradient's array may be None: then no gradient is computed.
"""

import math

import numpy as np

from .. import LOGVAR_BOUND
from ..support.stable import sigmoid, softplus


def bernoulli_nll(logits, x, observed, scale, nll, dlogits):
    """nll_i = -ln p(x_i | logits_i) in nats, and dlogits = scale * d nll / d logits.

    logits, x, dlogits (B, D), x in [0, 1], nll (B,). With p = sigmoid(l):
    -x ln p - (1 - x) ln(1 - p) = softplus(l) - x l, as ln p = l - softplus(l) and
    ln(1 - p) = -softplus(l); hence d/dl = sigmoid(l) - x. No probability is ever clipped.
    dlogits may be the array logits itself.
    """
    known = np.ones(x.shape, bool) if observed is None else observed != 0
    x = np.where(known, x, 0)
    nll[:] = np.where(known, softplus(logits) - x * logits, 0).sum(axis=1)
    if dlogits is not None:
        dlogits[:] = np.where(known, scale * (sigmoid(logits) - x), 0)


def bernoulli_mean(logits, mean):
    """mean = E[x] = sigmoid(logits), both (B, D); they may be one array. `random_binarize` of the
    mean draws x."""
    mean[:] = sigmoid(logits)


def gaussian_nll(mean, noise_logvar, x, observed, scale, nll, dmean, dnoise_logvar):
    """nll_i = -ln N(x_i; mean_i, exp(s) I) in nats, dmean and dnoise_logvar times scale.

    mean, x, dmean (B, D), nll, dnoise_logvar (B,); s = noise_logvar (1,), one learned variance for
    all features. Per entry, with r = x - mean: nll = (ln 2 pi + s + r^2 e^-s) / 2, so
    d/dmean = -r e^-s and d/ds = (1 - r^2 e^-s) / 2, summed over a row.
    s is held within +-LOGVAR_BOUND, and its gradient is 0 outside. dmean may be the array mean
    itself; dmean and dnoise_logvar are both None or neither.
    """
    s = np.clip(noise_logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    precision = np.exp(-s)
    known = np.ones(x.shape, bool) if observed is None else observed != 0
    residual = np.where(known, x - mean, 0)
    squares = residual * residual * precision
    nll[:] = (squares + (math.log(2 * math.pi) + s) * known).sum(axis=1) / 2
    if dmean is not None:
        dmean[:] = -scale * precision * residual
        inside = abs(noise_logvar) <= LOGVAR_BOUND
        dnoise_logvar[:] = scale * (known - squares).sum(axis=1) / 2 * inside


def gaussian_draw(mean, noise_logvar, eps, x):
    """x = mean + exp(s / 2) * eps, all (B, D), a draw of N(mean, exp(s) I) for eps of N(0, I);
    s = noise_logvar (1,), held within +-LOGVAR_BOUND. x may be the array mean itself."""
    x[:] = mean + np.exp(np.clip(noise_logvar, -LOGVAR_BOUND, LOGVAR_BOUND) / 2) * eps
