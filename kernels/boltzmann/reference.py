"""Restricted Boltzmann machines: the specification.

Units v in {0, 1}^D and h in {0, 1}^H have the probability exp(-E(v, h)) / Z, in nats

    E(v, h) = -a.v - c.h - v W h,   a (D,), c (H,), W (D, H).

Given v the hidden units are independent, so each is summed out by itself:

    F(v) = -ln sum over h of exp(-E(v, h)) = -a.v - sum over j of softplus(c_j + (v W)_j),

p(v) = exp(-F(v)) / Z, and p(h_j = 1 | v) = sigmoid(c_j + (v W)_j). `field` (B, H) is v W.
"""

import numpy as np

from ..support.stable import sigmoid, softplus


def free_energy(v, field, a, c, scale, energy, da, dfield):
    """energy_i = F(v_i) (B,) of rows v (B, D), in nats, and the gradient by a and by field.

    From dF/da = -v and softplus' = sigmoid, for d of `scale * energy`: da = -scale v (B, D) and
    dfield = -scale sigmoid(c + field) (B, H), row by row; dc is dfield. So the hidden units enter
    with their probabilities, not with draws of them. da and dfield are both None or neither.
    """
    signal = field + c
    energy[:] = -(v @ a) - softplus(signal).sum(axis=1)
    if da is not None:
        da[:] = -scale * v
        dfield[:] = -scale * sigmoid(signal)


def pseudo_nll(x, u, field, W, a, c, nll):
    """nll_i = -D ln p(x_id | all other x_ij) (B,), in nats, of the one column d = floor(u_i D).

    u (B, 1) uniform on (0, 1), so in the mean over u minus the pseudo-log-likelihood, the sum over
    all columns (Besag 1975). With x' = x but for x'_d = 1 - x_d, and p(x) known up to Z,

        p(x_d | others) = e^-F(x) / (e^-F(x) + e^-F(x')) = sigmoid(F(x') - F(x)),
        F(x') - F(x) = -a_d t - sum_j [softplus(s_j + t W_dj) - softplus(s_j)],

    s = c + field, t = 1 - 2 x_d.
    """
    B, D = x.shape
    d = np.minimum((u[:, 0] * D).astype(np.int64), D - 1)
    t, signal = 1 - 2 * x[np.arange(B), d], field + c
    flipped = softplus(signal + t[:, None] * W[d]) - softplus(signal)
    nll[:] = D * softplus(a[d] * t + flipped.sum(axis=1))


def anneal_energy(v, field, base, a, c, before, after, gain):
    """gain_i = F_before(v_i) - F_after(v_i) (B,) on the path to a machine from one without W.

    F_b is the free energy with the visible bias (1 - b) base + b a and with b W and b c, for b from
    0, where v has independent units of bias `base` (D,), to 1:

        gain = (after - before) (a - base).v + sum_j [softplus(after s_j) - softplus(before s_j)],

    s = c + field, field = v W.
    """
    signal = field + c
    hidden = softplus(after * signal) - softplus(before * signal)
    gain[:] = (after - before) * (v @ (a - base)) + hidden.sum(axis=1)
