"""Scalar formulas for the Numba kernels: exp, log, softplus, Philox, Box-Muller.

Numba's own exp and log call libm once per element. In float32 the formulas here are straight
arithmetic that the compiler turns into vector code; in float64, used for checking, libm serves.
The series are Taylor series, whose coefficients need no explanation; after range reduction they
cost one or two multiply-adds more than tuned ones. Relative errors in float32 are below 3e-7.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from .. import LOG_RATE_BOUND, LOGVAR_BOUND, NEGLIGIBLE
from .native import OPTIONS, inlined, jit

f4, i4, u4, u8 = np.float32, np.int32, np.uint32, np.uint64
LN2_HIGH = f4(0.693359375)  # 9 bits: n * LN2_HIGH is exact for every exponent n
LN2_LOW = f4(math.log(2) - 0.693359375)


# --- exp and log --------------------------------------------------------------------------------


def _exp_single(x):
    """e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln(2) / 2; 0 below x = -87, held at x = 88.7."""
    x = min(max(x, f4(-87.3)), f4(88.7))
    n = np.floor(x * f4(1 / math.log(2)) + f4(0.5))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = f4(1 / 5040)
    p = p * r + f4(1 / 720)
    p = p * r + f4(1 / 120)
    p = p * r + f4(1 / 24)
    p = p * r + f4(1 / 6)
    p = p * r + f4(1 / 2)
    p = p * r + f4(1)
    p = p * r + f4(1)
    # n = 128 has no float32 of its own: 2^n is applied as 2 * 2^(n-1).
    power = i4((i4(n) + i4(126)) << i4(23)).view(f4)
    return p * power * f4(2)


@jit
def _twice_artanh(s):
    """2 artanh(s) = ln((1 + s) / (1 - s)) = 2 s (1 + s^2/3 + s^4/5 + ...), for |s| <= 1/3."""
    q = s * s
    p = f4(2 / 15)
    p = p * q + f4(2 / 13)
    p = p * q + f4(2 / 11)
    p = p * q + f4(2 / 9)
    p = p * q + f4(2 / 7)
    p = p * q + f4(2 / 5)
    p = p * q + f4(2 / 3)
    return s * (p * q + f4(2))


def _log_single(x):
    """ln x = k ln 2 + ln m, sqrt(1/2) <= m < sqrt(2), for normal positive x."""
    bits = f4(x).view(i4) - i4(0x3F3504F3)  # of sqrt(1/2): the exponent steps there
    k = f4(bits >> i4(23))
    m = i4((bits & i4(0x7FFFFF)) + i4(0x3F3504F3)).view(f4)
    return k * LN2_HIGH + (_twice_artanh((m - f4(1)) / (m + f4(1))) + k * LN2_LOW)


def _log1p_single(x):
    """ln(1 + x) for 0 <= x <= 1: with s = x / (2 + x), (1 + s) / (1 - s) = 1 + x."""
    return _twice_artanh(x / (f4(2) + x))


def _tanh_single(x):
    """(1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x; its series where that cancels."""
    e = exp(f4(-2) * abs(x))
    large = (f4(1) - e) / (f4(1) + e)
    q = x * x
    p = f4(62 / 2835)
    p = p * q + f4(-17 / 315)
    p = p * q + f4(2 / 15)
    p = p * q + f4(-1 / 3)
    small = x + x * (p * q)
    return small if q < f4(1 / 16) else (large if x > f4(0) else -large)


def exp(x):
    """e^x in the dtype of x."""


def log(x):
    """ln x in the dtype of x, for x > 0."""


def log1p_unit(x):
    """ln(1 + x) in the dtype of x, for 0 <= x <= 1."""


def tanh(x):
    """tanh x in the dtype of x."""


def _by_dtype(single, double):
    return lambda x: single if x == types.float32 else double


overload(exp, jit_options=OPTIONS)(_by_dtype(_exp_single, lambda x: math.exp(x)))
overload(log, jit_options=OPTIONS)(_by_dtype(_log_single, lambda x: math.log(x)))
overload(log1p_unit, jit_options=OPTIONS)(_by_dtype(_log1p_single, lambda x: math.log1p(x)))
overload(tanh, jit_options=OPTIONS)(_by_dtype(_tanh_single, lambda x: math.tanh(x)))


# --- activations, any dtype: type(a)(c) keeps a constant in the dtype of a ------------------------


@jit
def relu(a):
    return max(a, type(a)(0))


@jit
def sigmoid(a):
    """1 / (1 + e^-a) = e^a / (1 + e^a), whichever cannot overflow."""
    e = exp(-abs(a))
    return (type(a)(1) if a >= type(a)(0) else e) / (type(a)(1) + e)


@jit
def softplus(a):
    """ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|)."""
    return max(a, type(a)(0)) + log1p_unit(exp(-abs(a)))


@jit
def softplus_derivative(y):
    """sigmoid(a) = 1 - e^-y of y = softplus(a), uncancelled: 2 t / (1 + t), t = tanh(y / 2)."""
    t = tanh(y * type(y)(0.5))
    return (t + t) / (type(y)(1) + t)


@jit
def hold_logvar(logvar):
    """logvar within +-LOGVAR_BOUND; NaN stays NaN."""
    bound = type(logvar)(LOGVAR_BOUND)
    return -bound if logvar < -bound else (bound if logvar > bound else logvar)


@jit
def is_held(logvar):
    """Whether hold_logvar changes it, and so its gradient is 0; NaN is not held."""
    return abs(logvar) > type(logvar)(LOGVAR_BOUND)


@jit
def unless_negligible(moment):
    """moment, or 0 if its size is below NEGLIGIBLE."""
    return type(moment)(0) if abs(moment) < type(moment)(NEGLIGIBLE) else moment


# --- grey values, continuous Bernoulli of logit y: `mixed_nll` of the reference derives them ------

# B_2n / (2n)! for n = 1, ..., 9; Horner's rule needs the last one first.
_SERIES = (43867 / 5109094217170944000, -3617 / 10670622842880000, 1 / 74724249600,
           -691 / 1307674368000, 1 / 47900160, -1 / 1209600, 1 / 30240, -1 / 720,
           1 / 12)  # fmt: skip
_HALVED = tuple(c / n for c, n in zip(_SERIES, range(18, 0, -2), strict=True))  # by 2n


@inlined
def _horner(c, q):
    """c_0 q^8 + ... + c_8; written out, since a loop over a tuple would be one in memory."""
    p = type(q)(c[0]) * q + type(q)(c[1])
    p = p * q + type(q)(c[2])
    p = p * q + type(q)(c[3])
    p = p * q + type(q)(c[4])
    p = p * q + type(q)(c[5])
    p = p * q + type(q)(c[6])
    p = p * q + type(q)(c[7])
    return p * q + type(q)(c[8])


@inlined
def grey_mean(y):
    """E[x] = 1 / (1 - e^-y) - 1 / y: of y < 0 first, and for |y| < 1 by its series."""
    a, one = abs(y), type(y)(1)
    large = one if a < one else a
    e = exp(-large)
    far = one / large - e / (one - e)
    low = type(y)(0.5) - a * _horner(_SERIES, a * a) if a < one else far
    return low if y < type(y)(0) else one - low


@inlined
def grey_partition(y):
    """A = ln((e^y - 1) / y) = max(y, 0) + ln((1 - e^-|y|) / |y|), for |y| < 1 by its series."""
    a, one, half = abs(y), type(y)(1), type(y)(0.5)
    large = one if a < one else a
    far = log((one - exp(-large)) / large)
    near = a * (a * _horner(_HALVED, a * a) - half)
    return max(y, type(y)(0)) + (near if a < one else far)


def _grey_draw_single(y, u):
    """low = -ln(1 - t) / a, t = v (1 - e^-a): by artanh up to t = 1/2, then with 1 - t uncancelled.
    1 - e^-a is the derivative of softplus in terms of its value."""
    a = max(abs(y), f4(2**-23))
    v, rest = (u, f4(1) - u) if y < f4(0) else (f4(1) - u, u)
    t = v * softplus_derivative(a)
    minus_log = _twice_artanh(t / (f4(2) - t)) if t < f4(0.5) else -log(rest + v * exp(-a))
    low = min(minus_log / a, f4(1))
    return low if y < f4(0) else f4(1) - low


def _grey_draw_double(y, u):
    a = max(abs(y), 2.0**-52)
    v, rest = (u, 1 - u) if y < 0 else (1 - u, u)
    t = -v * math.expm1(-a)
    minus_log = -math.log1p(-t) if t < 0.5 else -math.log(rest + v * math.exp(-a))
    low = min(minus_log / a, 1.0)
    return low if y < 0 else 1 - low


def grey_draw(y, u):
    """A grey value in [0, 1] of the uniform u, in the dtype of y."""


overload(grey_draw, jit_options=OPTIONS)(
    lambda y, u: _grey_draw_single if y == types.float32 else _grey_draw_double
)


# --- counts -------------------------------------------------------------------------------------


@jit
def hold_log_rate(log_rate):
    """log_rate, at most LOG_RATE_BOUND; NaN stays NaN."""
    bound = type(log_rate)(LOG_RATE_BOUND)
    return bound if log_rate > bound else log_rate


# --- random numbers -----------------------------------------------------------------------------


@inlined
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 of counter words c and key words k, each a uint64 below 2^32; four words."""
    low = u8(0xFFFFFFFF)
    for _ in range(10):
        product0 = u8(0xD2511F53) * c0
        product1 = u8(0xCD9E8D57) * c2
        c0, c1 = (product1 >> u8(32)) ^ c1 ^ k0, product1 & low
        c2, c3 = (product0 >> u8(32)) ^ c3 ^ k1, product0 & low
        k0 = (k0 + u8(0x9E3779B9)) & low
        k1 = (k1 + u8(0xBB67AE85)) & low
    return c0, c1, c2, c3


@inlined
def random_block(seed, stream, step, row, block):
    """The four words of columns 4 block .. 4 block + 3."""
    key0, key1 = u8(seed) & u8(0xFFFFFFFF), u8(seed) >> u8(32)
    return philox(u8(block), u8(row), u8(step), u8(stream), key0, key1)


@jit
def uniform(word):
    """((word >> 9) + 1/2) / 2^23, exact in float32."""
    return f4(i4(word >> u8(9))) * f4(2**-23) + f4(2**-24)


def _turn_single(x):
    """(cos, sin) of 2 pi x: quarter turns taken off exactly, Taylor series within an eighth."""
    quarter = np.floor(f4(4) * x + f4(0.5))
    a = (f4(4) * x - quarter) * f4(math.pi / 2)  # |a| <= pi / 4
    q = a * a
    c = f4(-1 / 3628800)
    c = c * q + f4(1 / 40320)
    c = c * q + f4(-1 / 720)
    c = c * q + f4(1 / 24)
    c = c * q + f4(-1 / 2)
    c = c * q + f4(1)
    s = f4(1 / 362880)
    s = s * q + f4(-1 / 5040)
    s = s * q + f4(1 / 120)
    s = s * q + f4(-1 / 6)
    s = a + a * (s * q)
    k = i4(quarter)
    odd = (k & i4(1)) == i4(1)
    cosine, sine = (s if odd else c), (c if odd else s)
    cosine = -cosine if ((k + i4(1)) & i4(2)) == i4(2) else cosine
    return cosine, (-sine if (k & i4(2)) == i4(2) else sine)


def _turn_double(x):
    return math.cos(2 * math.pi * x), math.sin(2 * math.pi * x)


def turn(x):
    """(cos 2 pi x, sin 2 pi x) in the dtype of x, for 0 <= x <= 1."""


overload(turn, jit_options=OPTIONS)(_by_dtype(_turn_single, _turn_double))


@jit
def box_muller(u1, u2):
    """Two independent normals of two uniforms."""
    radius = np.sqrt(type(u1)(-2) * log(u1))
    cosine, sine = turn(u2)
    return radius * cosine, radius * sine
