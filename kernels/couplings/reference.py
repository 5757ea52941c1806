"""Couplings, the invertible layers of a flow: the specification.

A flow maps u (B, D) to codes z (B, D) one to one, so that by the change of variables

    ln p(u) = ln p(z) + ln |det dz/du|.

Columns are cut in two halves, those with an even and those with an odd number, each in an array of
its own. A coupling changes one half by functions of the other one, which stays: its Jacobian is
triangular, and its determinant the product of the diagonal. h: columns of the half that changes.
"""

import math

import numpy as np

from .. import LOG_SCALE_BOUND, LOGISTIC, LOGVAR_BOUND, NORMAL
from ..support.stable import softplus


def dequantize(x, noise, levels, u):
    """u = (k + noise) / levels, where x (B, D) in [0, 1] is rounded to the level k / (levels - 1).

    noise (B, D) uniform on (0, 1), so u is uniform on the cell [k, k + 1) / levels of x. The cells
    are disjoint, fill [0, 1) and have the volume levels^-D each. u may be the array x itself.
    """
    u[:] = (np.floor(x * (levels - 1) + 0.5) + noise) / levels


def quantize(u, levels, x):
    """x = the level k / (levels - 1) in whose cell u lies; outside of [0, 1) the nearest one.

    The inverse of `dequantize`, whatever the noise. x may be the array u itself.
    """
    x[:] = np.clip(np.floor(u * levels), 0, levels - 1) / (levels - 1)


def split_columns(x, even, odd):
    """even <- columns 0, 2, 4, ... of x (B, D), odd <- columns 1, 3, 5, ..."""
    even[:], odd[:] = x[:, 0::2], x[:, 1::2]


def merge_columns(even, odd, x):
    """The inverse of `split_columns`, and, as that permutes, its own backward."""
    x[:, 0::2], x[:, 1::2] = even, odd


def coupling(x, heads, y, log_det):
    """y = x e^s + t of a half x (B, h), and log_det = sum_j s_j in its one column (B, 1).

    heads are functions of the other half. (B, h): t, and s = 0, an additive coupling (Dinh, Krueger
    and Bengio 2014). (B, 2 h): raw | t, an affine one (Dinh, Sohl-Dickstein and Bengio 2016) with
    s = b tanh(raw / b), b = LOG_SCALE_BOUND: no scale overflows, and near 0 s is raw itself.
    With the other half first, the Jacobian of (other, x) -> (other, y) is [[I, 0], [., diag e^s]]:
    ln |det| = sum_j s_j.
    """
    s, t = _parts(heads, x.shape[1])
    y[:] = x * np.exp(s) + t
    log_det[:, 0] = s.sum(axis=1)


def coupling_backward(dy, x, heads, scale, dx, dheads):
    """dx (B, h) and dheads (B, h or 2 h) of L = sum(dy * y) - scale * sum(log_det).

    -log_det is what ln |det| adds to -ln p(u). dy/dx = e^s, dy/dt = 1, dy/ds = x e^s, and
    d log_det / ds = 1; ds/draw = 1 - tanh^2(raw / b). So

        dx = dy e^s,   dt = dy,   draw = (dy x e^s - scale) (1 - (s / b)^2).

    The other half gets its gradient through the heads. dx may not be dy.
    """
    h = x.shape[1]
    s, _ = _parts(heads, h)
    dx[:] = dy * np.exp(s)
    dheads[:, -h:] = dy
    if heads.shape[1] > h:
        dheads[:, :h] = (dx * x - scale) * (1 - (s / LOG_SCALE_BOUND) ** 2)


def coupling_inverse(y, heads, x):
    """x = (y - t) e^-s, for the heads that `coupling` was given: the half that stays is the same on
    both sides. x may be the array y itself."""
    s, t = _parts(heads, y.shape[1])
    x[:] = (y - t) * np.exp(-s)


def _parts(heads, h):
    """s and t (B, h); s is 0 of an additive coupling."""
    if heads.shape[1] == h:
        return np.zeros_like(heads), heads
    return LOG_SCALE_BOUND * np.tanh(heads[:, :h] / LOG_SCALE_BOUND), heads[:, h:]


def add(part, total):
    """total (B, h) += part (B, h): the gradient by what is read twice is the sum of two."""
    total += part


def prior_nll(y, log_scale, log_det, log_volume, prior, scale, z, nll, dy, dlog_scale):
    """The last layer z_j = y_j e^s_j, and nll_i = -ln p(u_i) - log_volume in nats.

    y, z (B, D), log_scale (D,), log_det (B, L) of the couplings below, nll (B,). With the layer's
    own ln |det| = sum_j s_j (Dinh et al. 2014) and independent codes, rho = -ln of their density,

        nll = sum_j [rho(z_j) - s_j] - sum_l log_det_l - log_volume;

        LOGISTIC  e^-z / (1 + e^-z)^2:  rho = softplus(z) + softplus(-z) = |z| + 2 ln(1 + e^-|z|),
                  rho' = tanh(z / 2)
        NORMAL    N(0, 1):  rho = (z^2 + ln 2 pi) / 2,   rho' = z

    log_volume: ln of the volume in u that x stands for, 0 where x is u. For d of `scale * nll`:
    dy = scale rho'(z) e^s (B, D), dlog_scale_ij = scale (rho'(z_ij) z_ij - 1) (B, D), row by row.
    s is held within +-LOGVAR_BOUND, and its gradient is 0 outside. dy and dlog_scale are both None
    or neither.
    """
    s = np.clip(log_scale, -LOGVAR_BOUND, LOGVAR_BOUND)
    z[:] = y * np.exp(s)
    if prior == NORMAL:
        cost, slope = (z * z + math.log(2 * math.pi)) / 2, z
    else:
        assert prior == LOGISTIC
        cost, slope = softplus(z) + softplus(-z), np.tanh(z / 2)
    nll[:] = (cost - s).sum(axis=1) - log_det.sum(axis=1) - log_volume
    if dy is not None:
        dy[:] = scale * slope * np.exp(s)
        dlog_scale[:] = np.where(abs(log_scale) <= LOGVAR_BOUND, scale * (slope * z - 1), 0)


def scale_inverse(z, log_scale, y):
    """y = z e^-s, both (B, D): the inverse of the layer in `prior_nll`. y may be the array z."""
    y[:] = z * np.exp(-np.clip(log_scale, -LOGVAR_BOUND, LOGVAR_BOUND))


def logistic(u, z):
    """z = ln u - ln(1 - u), a draw of the logistic distribution for u uniform on (0, 1), both
    (B, D): the inverse of its distribution function 1 / (1 + e^-z). z may be the array u itself."""
    z[:] = np.log(u) - np.log1p(-u)
