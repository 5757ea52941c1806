"""Couplings: inverses, determinants by differences, gradients, priors by SciPy, cells of levels."""

import math

import numpy as np
import pytest
from kernel_calls import check, draw, normals
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from minivae.kernels import LOG_SCALE_BOUND, LOGISTIC, LOGVAR_BOUND, NORMAL

KINDS = pytest.mark.parametrize("kind", ["affine", "additive"])
DENSITIES = {LOGISTIC: stats.logistic, NORMAL: stats.norm}
PRIOR = pytest.mark.parametrize("prior", DENSITIES)
EPS = np.finfo(float).eps


def heads_of(kind, n=4, h=3, seed=1):
    return normals(n, 2 * h if kind == "affine" else h, seed=seed)


def coupling(k, x, heads):
    """y and log_det of each row."""
    dtype = np.result_type(x, heads)
    y, log_det = np.empty(x.shape, dtype), np.empty((len(x), 1), dtype)
    k.coupling(x, heads, y, log_det)
    return y, log_det[:, 0]


def prior_nll(k, y, log_scale, log_det, log_volume=0.0, prior=LOGISTIC):
    """z and nll of each row."""
    dtype = np.result_type(y, log_scale, log_det)
    z, nll = np.empty(y.shape, dtype), np.empty(len(y), dtype)
    k.prior_nll(y, log_scale, log_det, log_volume, prior, 1.0, z, nll, None, None)
    return z, nll


# --- values ---------------------------------------------------------------------------------------


@KINDS
def test_a_coupling_is_that_of_its_paper_and_has_an_inverse(kind, k):
    x, heads = normals(4, 3), heads_of(kind)
    y, log_det = coupling(k, x, heads)
    s = 2 * np.tanh(heads[:, :3] / 2) if kind == "affine" else np.zeros((4, 3))
    assert_allclose(y, x * np.exp(s) + heads[:, -3:], rtol=0, atol=100 * EPS)
    assert_allclose(log_det, s.sum(axis=1), rtol=0, atol=100 * EPS)
    back = np.empty_like(y)
    k.coupling_inverse(y, heads, back)
    assert_allclose(back, x, rtol=0, atol=100 * EPS)  # of numbers up to e^2 x some


def test_no_scale_leaves_its_bound(k):
    """Whatever the net says: float32 overflows at e^88."""
    x, heads = np.ones((2, 3), np.float32), np.zeros((2, 6), np.float32)
    heads[:, :3] = np.array([[1e30], [-1e30]])
    y, log_det = coupling(k, x, heads)
    assert_allclose(y, np.exp([[LOG_SCALE_BOUND], [-LOG_SCALE_BOUND]]) * x, rtol=1e-6)
    assert_allclose(log_det, [3 * LOG_SCALE_BOUND, -3 * LOG_SCALE_BOUND], rtol=1e-6)


@PRIOR
def test_nll_is_minus_the_log_density_of_y(prior, k):
    """By SciPy's densities of z, stretched by e^-s; the determinants below, and the volume."""
    y, s, log_det = normals(5, 3), normals(3, seed=1), normals(5, 2, seed=2)
    z, nll = prior_nll(k, y, s, log_det, 0.7, prior)
    assert_allclose(z, y * np.exp(s), rtol=4 * EPS)
    log_p = DENSITIES[prior](scale=np.exp(-s)).logpdf(y).sum(axis=1)
    assert_allclose(-nll, log_p + log_det.sum(axis=1) + 0.7, rtol=0, atol=100 * EPS)
    back = np.empty_like(z)
    k.scale_inverse(z, s, back)
    assert_allclose(back, y, rtol=8 * EPS)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_codes_far_out_have_a_finite_cost(size, k):
    y, s = np.array([[size, -size]], np.float32), np.zeros(2, np.float32)
    _, nll = prior_nll(k, y, s, np.zeros((1, 1), np.float32))
    assert_allclose(nll, 2 * size, rtol=1e-6)


def test_a_scale_beyond_its_bound_is_held(k):
    """LOGVAR_BOUND, and no gradient outside."""
    y, s = np.ones((1, 2)), np.array([LOGVAR_BOUND + 5, -LOGVAR_BOUND - 5])
    z, nll, (dy, ds) = np.empty_like(y), np.empty(1), np.empty((2, 1, 2))
    k.prior_nll(y, s, np.zeros((1, 1)), 0.0, LOGISTIC, 1.0, z, nll, dy, ds)
    assert_allclose(z, np.exp([[LOGVAR_BOUND, -LOGVAR_BOUND]]), rtol=1e-14)
    assert_array_equal(ds, 0)


def test_logistic_draws_have_the_distribution_of_their_uniforms(k):
    u = draw(k, "uniform", (50, 40))
    z = np.empty_like(u)
    k.logistic(u, z)
    assert_allclose(stats.logistic.cdf(z), u, rtol=1e-13)


# --- halves, levels -------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [2, 3, 16, 33])
def test_halves_are_the_columns_with_even_and_with_odd_numbers(D, k):
    x, back = normals(4, D), np.full((4, D), np.nan)
    even, odd = np.empty((4, (D + 1) // 2)), np.empty((4, D // 2))
    k.split_columns(x, even, odd)
    assert_array_equal(even, x[:, 0::2])
    assert_array_equal(odd, x[:, 1::2])
    k.merge_columns(even, odd, back)
    assert_array_equal(back, x)


@pytest.mark.parametrize("levels", [2, 17, 256, 2**16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_level_has_a_cell_and_comes_back(levels, dtype, k):
    """All of them, at both ends of their cells, which fill [0, 1] without a gap."""
    level = np.arange(levels)
    x = (level / (levels - 1)).astype(dtype)[None]
    ends = []
    for noise in (2.0**-7, 1 - 2.0**-7):  # 8 bits of noise are left beside 16 of the level
        u, back = np.empty_like(x), np.empty_like(x)
        k.dequantize(x, np.full_like(x, noise), levels, u)
        assert_allclose(u[0] * levels, level + noise, rtol=0, atol=2 * levels * np.finfo(dtype).eps)
        k.quantize(u, levels, back)
        assert_array_equal(back, x)
        ends.append(u[0].astype(float))
    gaps = (ends[0][1:] - ends[1][:-1]) * levels
    assert_allclose(gaps, 2.0**-6, rtol=0, atol=4 * levels * np.finfo(dtype).eps)


def test_values_between_levels_are_rounded_and_what_lies_outside_becomes_the_nearest(k):
    x, u = np.array([[0.0, 0.49, 0.51, 0.24, 0.26]]), np.empty((1, 5))
    k.dequantize(x, np.full((1, 5), 0.5), 3, u)
    assert_allclose(u, (np.array([[0, 1, 1, 0, 1]]) + 0.5) / 3, rtol=1e-15)
    k.quantize(np.array([[-7.0, 0.0, 0.99, 1.0, 7.0]]), 3, u)
    assert_array_equal(u, [[0, 0, 1, 1, 1]])


# --- gradients ------------------------------------------------------------------------------------


@KINDS
def test_gradients_of_a_coupling(kind, k):
    """L = sum(dy y) - scale sum(log_det), by what changes and by the heads."""
    dy, scale = normals(4, 3, seed=3), 0.3

    def backward(x, heads, dy, dlog_det):
        dx, dheads = np.empty_like(x), np.empty_like(heads)
        k.coupling_backward(dy, x, heads, -dlog_det[0], dx, dheads)
        return dx, dheads

    inputs = [normals(4, 3), heads_of(kind)]
    check(k, lambda x, heads: coupling(k, x, heads), backward, inputs, [dy, np.full(4, -scale)])


@PRIOR
def test_gradients_of_the_prior(prior, k):
    log_det = normals(4, 2, seed=2)

    def backward(y, s, dnll):
        z, nll, dy, ds = np.empty_like(y), np.empty(4), np.empty_like(y), np.empty_like(y)
        k.prior_nll(y, s, log_det, 0.7, prior, dnll[0], z, nll, dy, ds)
        total = np.empty_like(s)
        k.sum_rows(ds, 0, total)
        return dy, total

    def forward(y, s):
        return prior_nll(k, y, s, log_det, 0.7, prior)[1]

    check(k, forward, backward, [normals(4, 3), normals(3, seed=1)], [np.full(4, 0.37)])


# --- the change of variables ----------------------------------------------------------------------


@KINDS
def test_log_det_is_that_of_the_jacobian(kind, k):
    """numpy's slogdet of the matrix of central differences, with heads that depend on the half that
    stays. Differences of step 1e-5 of smooth functions are right to about 1e-10."""
    A = normals(2, 4 if kind == "affine" else 2, seed=5)

    def both(u):  # (4,): the half that stays, and the half that changes
        y, log_det = coupling(k, u[None, 2:], np.sin(u[None, :2] @ A))
        return np.r_[u[:2], y[0]], log_det[0]

    u, step = normals(4), 1e-5
    jacobian = [(both(u + e)[0] - both(u - e)[0]) / (2 * step) for e in step * np.eye(4)]
    sign, expected = np.linalg.slogdet(np.transpose(jacobian))
    assert sign == 1 and abs(both(u)[1] - expected) < 1e-8
    assert kind == "additive" or abs(expected) > 0.1


@KINDS
def test_mass_is_1(kind, k):
    """Of the density of u in one dimension that a coupling and a scale make of the prior."""
    u = np.linspace(-60, 60, 20_001)[:, None]
    heads = np.tile([0.8, -0.3][-1 if kind == "additive" else 0 :], (len(u), 1))
    y, log_det = coupling(k, u, heads)
    _, nll = prior_nll(k, y, np.array([0.4]), log_det[:, None])
    # The trapezoid rule of a smooth function that vanishes at both ends: exponentially close to its
    # integral, which the tails, e^-60 at most, do not change.
    assert abs(math.fsum(np.exp(-nll)) * (u[1, 0] - u[0, 0]) - 1) < 1e-12
