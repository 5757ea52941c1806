"""NumPy kernels: the specification. Each docstring derives its formula and its gradient.

Written from the mathematics, not from the fast twins, and without their tricks, so that a mistake
in either is seen. Real arrays of any float dtype; kernels without "random" or an update in their
name also accept complex arrays, which makes complex-step derivatives possible (comparisons of
complex numbers look at the real part first, so branches follow the real part).
"""

import math

import numpy as np

from . import IDENTITY, LOGVAR_BOUND, NEGLIGIBLE, RELU, SIGMOID, SOFTPLUS, TANH

# --- layers -------------------------------------------------------------------------------------


def matmul(a, b, out):
    """out = a @ b, for a (n, m), b (m, p), out (n, p); a or b may be a transposed view.

    With y = x W: d/dx_ij sum(dy * y) = sum_k dy_ik W_jk, so dx = dy W^T; likewise dW = x^T dy.
    Both are products of the same kind, so this kernel is its own backward.
    """
    np.matmul(a, b, out=out)


def bias_activation(y, bias, activation):
    """y <- f(y + bias), in place, for y (B, H) and bias (H,).

    identity f(a) = a; relu max(a, 0); tanh; sigmoid 1 / (1 + e^-a); softplus ln(1 + e^a).
    Sigmoid and softplus are written with e^-|a|, which cannot overflow:
    ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|), and 1 / (1 + e^-a) = e^a / (1 + e^a) for a < 0.
    """
    y += bias
    if activation == RELU:
        np.maximum(y, 0, out=y)
    elif activation == TANH:
        np.tanh(y, out=y)
    elif activation == SIGMOID:
        y[:] = _sigmoid(y)
    elif activation == SOFTPLUS:
        y[:] = _softplus(y)
    else:
        assert activation == IDENTITY


def activation_backward(dy, y, activation):
    """dy <- dy * f'(a), in place, for y = f(a), both (B, H).

    The chain rule, dL/da = dL/dy f'(a). Each f' is a function of the output, so only y is kept:
    identity 1; relu [y > 0]; tanh 1 - y^2; sigmoid y (1 - y);
    softplus sigmoid(a) = 1 - e^-y, as e^y = 1 + e^a. At its kink relu takes the left derivative, 0.
    """
    if activation == RELU:
        dy[:] = np.where(y > 0, dy, 0)
    elif activation == TANH:
        dy *= 1 - y * y
    elif activation == SIGMOID:
        dy *= y * (1 - y)
    elif activation == SOFTPLUS:
        dy *= -np.expm1(-y)
    else:
        assert activation == IDENTITY


def sum_rows(dy, first, dbias):
    """dbias (h,) = the columns of dy (B, H) from `first` on, each summed over the rows.

    With a = x W + bias, da_ij / dbias_j = 1, so dL/dbias_j = sum_i dL/da_ij.
    """
    dbias[:] = dy[:, first : first + dbias.size].sum(axis=0)


# --- the posterior q(z|x) = N(mu, diag(exp(logvar))) --------------------------------------------


def sample_gaussian(mu, logvar, eps, z, kl):
    """z = mu + exp(logvar / 2) * eps and kl_i = KL(N(mu_i, diag exp(logvar_i)) || N(0, I)) in nats.

    mu, logvar, eps, z (B, Z), kl (B,). With std = exp(logvar / 2), z is N(mu, std^2) when eps is
    N(0, I), and the randomness does not depend on the parameters (Kingma and Welling 2013, 2.4).
    Per latent, KL = E_q[ln q(z) - ln p(z)] = E_q[-logvar/2 - eps^2/2 + z^2/2]
                   = (mu^2 + exp(logvar) - logvar - 1) / 2,
    as E eps^2 = 1 and E z^2 = mu^2 + std^2 (same paper, appendix B); kl sums over latents.
    logvar is first held within +-LOGVAR_BOUND.
    """
    logvar = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    std = np.exp(logvar / 2)
    z[:] = mu + std * eps
    kl[:] = (mu * mu + std * std - logvar - 1).sum(axis=1) / 2


def sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    """dmu, dlogvar of L = f(z) + kl_scale * sum(kl), given dz = df/dz; all (B, Z).

    In training kl_scale is beta / B. What comes through z and what comes through kl add up:
    dz/dmu = 1 and dKL/dmu = mu, so                    dmu = dz + kl_scale mu.
    dz/dlogvar = eps std / 2, since d exp(l/2)/dl = exp(l/2)/2, and
    dKL/dlogvar = (exp(logvar) - 1) / 2, so  dlogvar = (dz eps std + kl_scale (std^2 - 1)) / 2.
    The same eps as in the forward pass. Where logvar is held at its bound, dlogvar is 0.
    """
    inside = abs(logvar) <= LOGVAR_BOUND
    std = np.exp(np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND) / 2)
    dmu[:] = dz + kl_scale * mu
    dlogvar[:] = (dz * eps * std + kl_scale * (std * std - 1)) / 2 * inside


# --- likelihoods p(x|z) -------------------------------------------------------------------------


def bernoulli_nll(logits, x, mask, scale, nll, dlogits):
    """nll_i = -ln p(x_i | logits_i) in nats, and dlogits = scale * d nll / d logits.

    logits, x, dlogits (B, D), x in [0, 1], nll (B,). With p = sigmoid(l):
    -x ln p - (1 - x) ln(1 - p) = softplus(l) - x l, as ln p = l - softplus(l) and
    ln(1 - p) = -softplus(l); hence d/dl = sigmoid(l) - x. No probability is ever clipped.
    mask: None, or bool (B, D); an entry that is False (x may be NaN there) counts for nothing.
    dlogits may be the array logits itself.
    """
    if mask is not None:
        x = np.where(mask, x, 0)
    entries = _softplus(logits) - x * logits
    gradient = scale * (_sigmoid(logits) - x)
    if mask is not None:
        entries, gradient = np.where(mask, entries, 0), np.where(mask, gradient, 0)
    nll[:] = entries.sum(axis=1)
    dlogits[:] = gradient


def gaussian_nll(mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar):
    """nll_i = -ln N(x_i; mean_i, exp(s) I) in nats, dmean and dnoise_logvar times scale.

    mean, x, dmean (B, D), nll, dnoise_logvar (B,); s = noise_logvar (1,), one learned variance for
    all features. Per entry, with r = x - mean: nll = (ln 2 pi + s + r^2 e^-s) / 2, so
    d/dmean = -r e^-s and d/ds = (1 - r^2 e^-s) / 2, summed over a row.
    s is held within +-LOGVAR_BOUND, and its gradient is 0 outside. mask as in `bernoulli_nll`.
    dmean may be the array mean itself.
    """
    s = np.clip(noise_logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    precision = np.exp(-s)
    residual = x - mean
    observed = np.ones(x.shape, bool) if mask is None else mask
    residual = np.where(observed, residual, 0)
    squares = residual * residual * precision
    nll[:] = (squares + (math.log(2 * math.pi) + s) * observed).sum(axis=1) / 2
    dmean[:] = -scale * precision * residual
    inside = abs(noise_logvar) <= LOGVAR_BOUND
    dnoise_logvar[:] = scale * (observed - squares).sum(axis=1) / 2 * inside


# --- random numbers -----------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): counter (4, ...), key (2, ...) -> (4, ...).

    A bijection of 128-bit counters for each key, so distinct counters never give one block twice.
    Ten rounds of: two 32 x 32 -> 64 bit products, whose high halves are mixed into the other words.
    All uint32.
    """
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (product1 >> np.uint64(32)) ^ c1 ^ k0, product1 & low
        c2, c3 = (product0 >> np.uint64(32)) ^ c3 ^ k1, product0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low  # the golden ratio
        k1 = (k1 + np.uint64(0xBB67AE85)) & low  # sqrt(3) - 1
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3)).astype(np.uint32)


def random_words(seed, stream, step, first_row, words):
    """words (n, C) uint32: entry (i, j) is word j % 4 of Philox at the counter
    (j // 4, first_row + i, step, stream) with key (seed mod 2^32, seed // 2^32).

    A pure function of (seed, stream, step, row, column): the same on every machine, and for any
    number of threads, shards or processes. 0 <= seed < 2^63.
    """
    n, columns = words.shape
    block = np.arange(-(-columns // 4), dtype=np.uint64)[None, :]
    row = (np.arange(n, dtype=np.uint64) + np.uint64(first_row))[:, None]
    blocks = philox((block, row, step, stream), (seed & 0xFFFFFFFF, seed >> 32))  # (4, n, blocks)
    words[:] = blocks.transpose(1, 2, 0).reshape(n, 4 * block.size)[:, :columns]


def random_uniform(seed, stream, step, first_row, u):
    """u (n, C) uniform on (0, 1): ((word >> 9) + 1/2) / 2^23.

    23 bits, since then float32 holds each value exactly: every dtype and machine draws the same
    number, never 0 and never 1, and by symmetry with mean exactly 1/2.
    """
    words = np.empty(u.shape, np.uint32)
    random_words(seed, stream, step, first_row, words)
    u[:] = ((words >> 9) + 0.5) / 2**23


def random_normal(seed, stream, step, first_row, eps):
    """eps (n, C) standard normal: Box and Muller 1958, two normals from two uniforms.

    (r cos t, r sin t) with r^2 = -2 ln u1 exponential and t = 2 pi u2 uniform has density
    exp(-r^2 / 2) / 2 pi, that of two independent normals. Columns 2j and 2j + 1 share a pair of
    uniforms. Computed in float64 and rounded once to the dtype of eps; |eps| <= 5.77.
    """
    n, columns = eps.shape
    u = np.empty((n, columns + columns % 2))
    random_uniform(seed, stream, step, first_row, u)
    radius, angle = np.sqrt(-2 * np.log(u[:, 0::2])), 2 * np.pi * u[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)  # (n, pairs, 2)
    eps[:] = pairs.reshape(u.shape)[:, :columns]


def random_binarize(x, seed, stream, step, first_row):
    """x <- 1 with probability x, else 0, in place: x_ij <- [u_ij < x_ij], u by `random_uniform`.

    P(u < x) = x for x a multiple of 2^-23; 0 stays 0 and 1 stays 1.
    """
    u = np.empty_like(x)
    random_uniform(seed, stream, step, first_row, u)
    x[:] = u < x


def threshold(x):
    """x <- [x >= 1/2], in place."""
    x[:] = x >= 0.5


# --- optimisers: one pass over the flat buffers, all (P,) ---------------------------------------


def sgd(theta, gradient, velocity, learning_rate, momentum, weight_decay):
    """g = gradient + weight_decay * theta; velocity = momentum * velocity + g;
    theta -= learning_rate * velocity (Polyak 1964). With momentum 0, plain gradient descent,
    velocity is left alone.

    weight_decay * theta is the gradient of weight_decay / 2 * |theta|^2, a N(0, 1 / weight_decay)
    prior on the parameters. It acts here, not in the reported loss.
    """
    g = gradient + weight_decay * theta
    if momentum > 0:
        velocity[:] = _unless_negligible(momentum * velocity + g)
        g = velocity
    theta -= learning_rate * g


def adagrad(theta, gradient, square_sum, learning_rate, weight_decay, epsilon):
    """square_sum += g^2; theta -= learning_rate * g / (sqrt(square_sum) + epsilon), g as in `sgd`.

    Duchi, Hazan, Singer 2011: each parameter's rate falls with the gradients that it has seen.
    """
    g = gradient + weight_decay * theta
    square_sum += g * g
    theta -= learning_rate * g / (np.sqrt(square_sum) + epsilon)


def adam(theta, gradient, first, second, step, learning_rate, beta1, beta2, epsilon, weight_decay):
    """Adam (Kingma and Ba 2014, algorithm 1), step = 1, 2, ...; g as in `sgd`.

    first = beta1 first + (1 - beta1) g and second = beta2 second + (1 - beta2) g^2 start at 0, so
    after t steps of a constant g they are 1 - beta^t times g and g^2; the quotient is unbiased.
    theta -= learning_rate * first_hat / (sqrt(second_hat) + epsilon).
    """
    g = gradient + weight_decay * theta
    first[:] = _unless_negligible(beta1 * first + (1 - beta1) * g)
    second[:] = _unless_negligible(beta2 * second + (1 - beta2) * (g * g))
    first_hat = first / (1 - beta1**step)
    second_hat = second / (1 - beta2**step)
    theta -= learning_rate * first_hat / (np.sqrt(second_hat) + epsilon)


# --- the batch and its shards -------------------------------------------------------------------


def gather(data, rows, x):
    """x_i = data[rows_i]: x (n, D), rows (n,) integers, data (N, D)."""
    x[:] = data[rows]


def all_finite(nll, kl):
    """Whether every entry of nll (B,) and kl (B,) is finite."""
    return bool(np.isfinite(nll).all() and np.isfinite(kl).all())


def add_totals(nll, kl, totals):
    """totals (2,) += the sums of nll (B,) and kl (B,), added up in float64."""
    totals += nll.sum(dtype=np.float64), kl.sum(dtype=np.float64)


def join(barrier, workers):
    """Wait until all workers are here. NumPy runs one worker, so there is nobody to wait for."""
    assert workers == 1


# --- helpers ------------------------------------------------------------------------------------


def _minus_abs(a):
    """-|a|, also along the complex step (np.abs would not be analytic)."""
    return np.where(a < 0, a, -a)


def _unless_negligible(moment):
    return np.where(abs(moment) < NEGLIGIBLE, 0, moment)


def _softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(_minus_abs(a)))


def _sigmoid(a):
    e = np.exp(_minus_abs(a))
    return np.where(a < 0, e, 1) / (1 + e)
