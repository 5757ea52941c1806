"""Likelihoods p(x|z): the specification. Each has -ln p with its gradient, mean and draws.

observed: None, or (B, D) of 1 and 0; an entry that is 0 counts for nothing, whatever x is there.
The gradient's array may be None: then no gradient is computed.

mixed_* are of tables, whose columns are of several kinds. `groups` (G, 3) int64 has a row
(kind, first, last) for neighbouring columns first <= j < last of one kind; together they are all
columns, in order. A group of kind CATEGORY is one variable, one-hot in its columns, and observed or
missing as a whole. `noise_logvar` (R,) is of the columns j < R: the groups of kind REAL and BOUNDED
come first. `units` (3, D) has what ties a column to the data's own units: offset, slope, shift.
"""

import math

import numpy as np

from .. import (
    BINARY,
    BOUNDED,
    CATEGORY,
    COUNT,
    COUNT_STEPS,
    GREY,
    LOG_RATE_BOUND,
    LOGVAR_BOUND,
    REAL,
)
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


def bernoulli_draw(logits, u, x):
    """x = [u < sigmoid(logits)], all (B, D): 1 with that probability for u uniform on (0, 1)."""
    x[:] = u < sigmoid(logits)


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


# --- tables ---------------------------------------------------------------------------------------


def mixed_nll(y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise_logvar):
    """nll_i = -ln p(x_i | y_i) in nats, in the data's own units; dy and dnoise_logvar times scale.

    y, x, dy (B, D), noise_logvar (R,), dnoise_logvar (B, R), nll (B,); groups, units and observed
    as above. Every observed entry costs, by its kind,

    REAL      -ln N(x; y, exp(s)) as in `gaussian_nll`, with s = noise_logvar_j: a variance per
              column.
    BOUNDED   -ln N(x; m, exp(s)), m = sigmoid(y) in (0, 1): d/dy = d/dm m (1 - m), where
              1 - m = sigmoid(-y).
    GREY      x in [0, 1], a continuous Bernoulli (Loaiza-Ganem and Cunningham 2019), see below.
    BINARY    x 0 or 1: softplus(y) - x y as in `bernoulli_nll`.
    COUNT     x = 0, 1, 2, ...: Poisson of rate e^l, l = y + shift_j: e^l - x l + ln x!, so
              d/dy = e^l - x. Beyond l = LOG_RATE_BOUND =: b, e^l becomes its tangent
              e^b (1 + l - b), and its slope e^b: nothing overflows, and the gradient goes on.
    CATEGORY  softmax of the C logits of the group: ln(sum_c e^y_c) - sum_c x_c y_c; d/dy_c =
              p_c - x_c with p = softmax(y). The largest logit is taken out of the sum before exp.

    and offset_j + slope_j x_j, which has no gradient: the logarithm of the scale by which a column
    was divided (offset), the Jacobian of a logarithm (slope); both are 0 in a CATEGORY.
    An entry that is not observed has cost 0 and gradients 0. s is held within +-LOGVAR_BOUND with
    gradient 0 outside. dy may be the array y itself; dy and dnoise_logvar are both None or neither.

    GREY: p(x) = C p^x (1 - p)^(1 - x) with p = sigmoid(y). Because p^x (1 - p)^(1 - x) =
    (1 - p) e^(x y), and the integral of e^(x y) over [0, 1] is (e^y - 1) / y, with 1 - p =
    1 / (1 + e^y): C = y (e^y + 1) / (e^y - 1) = y / tanh(y / 2), that is 2 at y = 0. Then
    -ln p(x) = A(y) - x y, A(y) = softplus(y) - ln C = ln((e^y - 1) / y), an exponential family
    whose mean is E[x] = A'(y), so d/dy = E[x] - x. With a = |y|, and nothing that overflows,

        A(y)  = max(y, 0) + ln((1 - e^-a) / a)
        A'(y) = m(a) if y < 0, else 1 - m(a);  m(a) = 1 / a - e^-a / (1 - e^-a).

    Near y = 0 both cancel: an error eps of e^-a is one of eps / a in ln((1 - e^-a) / a), and of
    eps / a^2 in m. There are the series, of Bernoulli's numbers B_2 = 1/6, B_4 = -1/30, ...,

        ln((1 - e^-a) / a) = -a/2 + sum_n B_2n a^2n / (2n (2n)!)
        m(a)               =  1/2 - sum_n B_2n a^(2n-1) / (2n)!

    whose terms shrink by (a / 2 pi)^2. Up to a = 1 nine terms are taken: what is left out is below
    2.2e-16, the eps of float64 (in float32 four would do), and from there on the closed form
    loses at most a factor of 1 / (1 - 1/e)^2 = 2.5. So the error is a few eps everywhere, in either
    dtype.
    """
    known = _known(groups, x.shape, observed)
    x = np.where(known, x, 0)
    offset, slope, shift = units
    nll[:] = np.where(known, offset + slope * x, 0).sum(axis=1)
    for kind, first, last in groups:
        j = slice(first, last)
        if kind in (REAL, BOUNDED):
            mean, chain = (y[:, j], 1) if kind == REAL else _bounded(y[:, j])
            s = np.clip(noise_logvar[j], -LOGVAR_BOUND, LOGVAR_BOUND)
            precision, residual = np.exp(-s), x[:, j] - mean
            squares = residual * residual * precision
            entries = (squares + s + math.log(2 * math.pi)) / 2
            dentries = -precision * residual * chain
            if dnoise_logvar is not None:
                ds = (1 - squares) / 2 * (abs(noise_logvar[j]) <= LOGVAR_BOUND)
                dnoise_logvar[:, j] = np.where(known[:, j], scale * ds, 0)
        else:
            entries, dentries = DISCRETE[kind](y[:, j], shift[j], x[:, j])
        nll += np.where(known[:, j], entries, 0).sum(axis=1)
        if dy is not None:
            dy[:, j] = np.where(known[:, j], scale * dentries, 0)


def mixed_mean(y, groups, units, mean):
    """mean = E[x | y] by column, both (B, D); they may be one array.

    REAL y; BOUNDED and BINARY sigmoid(y); GREY A'(y) of `mixed_nll`; COUNT the rate e^(y + shift),
    at most exp(LOG_RATE_BOUND); CATEGORY the probabilities softmax(y) of its columns.
    """
    shift = units[2]
    for kind, first, last in groups:
        j = slice(first, last)
        if kind in (BOUNDED, BINARY):
            mean[:, j] = sigmoid(y[:, j])
        elif kind == GREY:
            mean[:, j] = _grey_mean(y[:, j])
        elif kind == COUNT:
            mean[:, j] = np.exp(np.minimum(y[:, j] + shift[j], LOG_RATE_BOUND))
        elif kind == CATEGORY:
            mean[:, j] = _softmax(y[:, j])[0]
        else:
            mean[:, j] = y[:, j]


def mixed_draw(y, noise_logvar, groups, units, x):
    """x (B, D) <- a draw of p(x | y), of the noise that is there on entry.

    That is eps of N(0, 1) in the columns j < R, and uniforms u on (0, 1) in the others.
    REAL and BOUNDED: mean + exp(s / 2) eps. BINARY: u < sigmoid(y). CATEGORY: one-hot, the first c
    with p_1 + ... + p_c > u, of the u of the group's first column. COUNT: see `_draw_count`.

    GREY by the inverse of its distribution function (e^(x y) - 1) / (e^y - 1) = u. For y < 0, a =
    |y|, that is x = -ln(1 - t) / a with t = u (1 - e^-a); for y > 0, 1 - x is such a draw of 1 - u.
    With log1p and expm1 that is exact up to rounding for any a > 0; beyond t = 1/2, where 1 - t
    cancels, it is (1 - u) + u e^-a. An a below eps is taken as eps: by x = u + u (1 - u) y / 2 +
    O(y^2), x moves by eps / 8 at most.
    """
    shift = units[2]
    for kind, first, last in groups:
        j = slice(first, last)
        given, noise = y[:, j], x[:, j]
        if kind in (REAL, BOUNDED):
            mean = given if kind == REAL else sigmoid(given)
            s = np.clip(noise_logvar[j], -LOGVAR_BOUND, LOGVAR_BOUND)
            x[:, j] = mean + np.exp(s / 2) * noise
        elif kind == GREY:
            a = np.maximum(abs(given), np.finfo(y.dtype).eps)
            u, rest = np.where(given < 0, (noise, 1 - noise), (1 - noise, noise))
            t = -u * np.expm1(-a)
            near, far = np.log1p(-np.minimum(t, 0.5)), np.log(rest + u * np.exp(-a))
            low = np.minimum(-np.where(t < 0.5, near, far) / a, 1)  # rounding must not leave [0, 1]
            x[:, j] = np.where(given < 0, low, 1 - low)
        elif kind == BINARY:
            x[:, j] = noise < sigmoid(given)
        elif kind == COUNT:
            log_rate = given.astype(np.float64) + shift[j]
            x[:, j] = np.vectorize(_draw_count, otypes=[np.float64])(log_rate, noise)
        else:
            below = np.cumsum(_softmax(given)[0], axis=1)[:, :-1] <= noise[:, :1]
            x[:, j] = np.arange(last - first) == below.sum(axis=1, keepdims=True)


def _known(groups, shape, observed):
    """(B, D) bool: which entries count; a category's columns all do as the first one does."""
    if observed is None:
        return np.ones(shape, bool)
    known = observed != 0
    for kind, first, last in groups:
        if kind == CATEGORY:
            known[:, first:last] = known[:, first : first + 1]
    return known


def _bounded(y):
    """A mean inside (0, 1), and its derivative."""
    return sigmoid(y), sigmoid(y) * sigmoid(-y)


def _softmax(y):
    """softmax of each row, and ln(sum e^y) as a column."""
    top = y.max(axis=1, keepdims=True)
    e = np.exp(y - top)
    total = e.sum(axis=1, keepdims=True)
    return e / total, top + np.log(total)


# B_2n / (2n)! for n = 1, 2, ..., 9, see `mixed_nll`.
BERNOULLI_NUMBERS = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
                     43867 / 798)  # fmt: skip
GREY_SERIES = [B / math.factorial(2 * n) for n, B in enumerate(BERNOULLI_NUMBERS, 1)]


def _grey_size(y):
    """|y| along the complex step, whether the series serve, and |y| for each of the two."""
    a = np.where(y < 0, -y, y)
    near = a < 1
    return near, np.where(near, a, 1), np.where(near, 1, a)


def _grey_mean(y):
    near, small, large = _grey_size(y)
    series = 0.5 - sum(c * small ** (2 * n - 1) for n, c in enumerate(GREY_SERIES, 1))
    e = np.exp(-large)
    low = np.where(near, series, 1 / large - e / (1 - e))
    return np.where(y < 0, low, 1 - low)


def _grey_nll(y, shift, x):
    near, small, large = _grey_size(y)
    series = sum(c / (2 * n) * small ** (2 * n) for n, c in enumerate(GREY_SERIES, 1)) - small / 2
    log_mass = np.where(near, series, np.log((1 - np.exp(-large)) / large))
    return np.maximum(y, 0) + log_mass - x * y, _grey_mean(y) - x


def _binary_nll(y, shift, x):
    return softplus(y) - x * y, sigmoid(y) - x


def _count_nll(y, shift, x):
    log_rate = y + shift
    held = np.minimum(log_rate, LOG_RATE_BOUND)
    rate = np.exp(held)
    log_factorial = np.vectorize(math.lgamma, otypes=[x.dtype])(x + 1)
    nll = rate * (1 + (log_rate - held)) - x * log_rate + log_factorial
    return nll, rate - x


def _category_nll(y, shift, x):
    p, log_sum = _softmax(y)
    return x * (log_sum - y), p - x


# The kinds without noise: (-ln p, its derivative by y) of each entry, of y, shift and x.
DISCRETE = {GREY: _grey_nll, BINARY: _binary_nll, COUNT: _count_nll, CATEGORY: _category_nll}


def _draw_count(log_rate, u):
    """A Poisson variable of one uniform: the outcomes in the order mode, mode + 1, mode - 1, ...

    Their probabilities are added up until they are more than u; that outcome is the draw. So k is
    drawn for the u of an interval of length p_k, whatever the order, which is why this is exact.
    Begun at the mode floor(rate), it takes O(sqrt(rate)) steps, two multiplications each:
    p_(k+1) = p_k rate / (k + 1) and p_(k-1) = p_k k / rate, with p_-1 = 0. In float64: rounding of
    ln p_mode moves all p by a factor 1 +- eps rate ln(rate), or 1e-11 for a rate of 1e4.
    It ends once a step adds less than eps = 2.2e-16, which is rounding, or after COUNT_STEPS. The
    latter cuts off less than 2^-24 up to a rate of 1e8. Draws of larger rates are within
    COUNT_STEPS of it, so less spread than they should be, by less than a thousandth of the rate.
    """
    log_rate = min(log_rate, LOG_RATE_BOUND)
    rate = math.exp(log_rate)
    mode = np.floor(rate)
    up = down = total = math.exp(mode * log_rate - rate - math.lgamma(mode + 1))
    steps = 0.0
    if u < total:
        return mode
    while up + down >= 2.2e-16 and steps < COUNT_STEPS:
        steps += 1
        up *= rate / (mode + steps)
        total += up
        if u < total:
            return mode + steps
        down *= (mode - steps + 1) / rate
        total += down
        if u < total:
            return mode - steps
    return mode + steps
