"""NADE: the paper written out, sums over all rows, gradients, parts, draws."""

import math
from itertools import pairwise

import numpy as np
import pytest
from emulator import EMULATED
from kernel_calls import bernoulli, check, draw, normals
from kernel_checks import hosted_table
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from minivae.kernels.tables import reference

D = 8
EVERY_ROW = (np.arange(2**D)[:, None] >> np.arange(D)) & 1  # (2^D, D)


def weights(D, H, dtype="float64", seed=0, rows=1):
    """W, c, V, b of moderate size, so that no probability is near 0 or 1; biases for all rows, or
    for so many of them."""
    W, V = normals(2, D, H, seed=seed).astype(dtype)
    c, b = normals(rows, H, seed=seed + 1), normals(rows, D, seed=seed + 2)
    return W, c.astype(dtype), V, b.astype(dtype)


def logits(k, x, W, c, V, b):
    a, h = (np.empty((len(x), c.shape[1]), np.result_type(W, c, V, b)) for _ in range(2))
    out = np.empty(x.shape, a.dtype)
    k.nade_logits(x, W, c, V, b, a, h, out)
    return out


def backward(k, x, dlogits, W, c, V, cuts=None):
    """(dW, dc, dV), by parts of the hidden units if they are cut."""
    dW, dc, dV = (np.full_like(array, np.nan) for array in (W, c, V))
    cuts = cuts or [0, c.shape[1]]
    for first, last in pairwise(cuts):
        k.nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV)
    return dW, dc, dV


def sample(k, u, W, c, V, b):
    a, h, x = *(np.empty((len(u), c.shape[1]), W.dtype) for _ in range(2)), np.full_like(u, np.nan)
    k.nade_sample(u, W, c, V, b, a, h, x)
    return x


# --- values ---------------------------------------------------------------------------------------


def test_logits_are_those_of_the_paper(k):
    W, c, V, b = weights(D, 5)
    x = EVERY_ROW[::17].astype(float)
    expected = np.empty_like(x)
    for d in range(D):  # a hidden layer of its own for every variable, from all that precede it
        h = special.expit(c + x[:, :d] @ W[:d])
        expected[:, d] = b[:, d] + h @ V[d]
    assert_allclose(logits(k, x, W, c, V, b), expected, rtol=0, atol=1e-13)


def test_probabilities_of_all_rows_sum_to_1(k):
    x = EVERY_ROW.astype(float)
    nll = bernoulli(k, logits(k, x, *weights(D, 5)), x)[0]
    assert abs(math.fsum(np.exp(-nll)) - 1) < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_variable_depends_on_nothing_but_those_before_it(k, dtype):
    given, x = weights(40, 19, dtype), (normals(3, 40) > 0.3).astype(dtype)
    whole = logits(k, x, *given)
    for d in (0, 1, 15, 16, 39):
        other = x.copy()
        other[:, d:] = 1 - x[:, d:]
        found = logits(k, other, *given)[:, : d + 1]
        # 19 terms below 4, though not in the same order: how many variables the CPU takes at a time
        # depends on where the next one is set.
        assert_allclose(found, whole[:, : d + 1], rtol=0, atol=19 * 4 * np.finfo(dtype).eps)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_features", [1, 7])
def test_gradients(n_features, k):
    x = (normals(4, n_features, seed=5) > 0).astype(float)
    x[0, ::3] = 0.25  # a grey value is no probability model, but has a gradient

    def nll(*weights):
        return bernoulli(k, logits(k, x, *weights), x)[0]

    def gradient(W, c, V, b, dnll):
        dlogits, db = bernoulli(k, logits(k, x, W, c, V, b), x, scale=dnll[0])[1], np.empty_like(b)
        k.sum_rows(dlogits, 0, db[0])
        return *backward(k, x, dlogits, W, c, V), db

    check(k, nll, gradient, weights(n_features, 3), [np.full(4, 0.37)])


def test_gradients_of_biases_of_their_own(k):
    """Each row's hidden bias, which nothing is added up for; the visible bias has dlogits."""
    x = (normals(4, 7, seed=5) > 0).astype(float)
    W, c, V, b = weights(7, 3, rows=4)

    def nll(c):
        return bernoulli(k, logits(k, x, W, c, V, b), x)[0]

    def gradient(c, dnll):
        dlogits, dc = bernoulli(k, logits(k, x, W, c, V, b), x, scale=dnll[0])[1], np.empty_like(c)
        k.nade_backward(x, dlogits, W, c, V, 0, 3, None, dc, None)
        return (dc,)

    check(k, nll, gradient, (c,), [np.full(4, 0.37)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_with_biases_of_their_own_are_alone(k, dtype):
    """Each row has the values and the part of the gradient that it has alone with its biases, and
    what is asked for alone has the bits that it has with the rest."""
    W, c, V, b = weights(20, 7, dtype, rows=5)
    x, dlogits = (normals(5, 20) > 0.5).astype(dtype), normals(5, 20, seed=4).astype(dtype)
    u = draw(k, "uniform", (5, 20), dtype)
    whole, drawn = logits(k, x, W, c, V, b), sample(k, u, W, c, V, b)
    dW, dc, dV = backward(k, x, dlogits, W, c, V)
    one, two, three = np.full_like(W, np.nan), np.full_like(c, np.nan), np.full_like(V, np.nan)
    k.nade_backward(x, dlogits, W, c, V, 0, 7, one, None, three)
    k.nade_backward(x, dlogits, W, c, V, 0, 7, None, two, None)
    for part, same in ((one, dW), (two, dc), (three, dV)):
        assert_array_equal(part, same)
    sums = np.zeros((2, *W.shape))
    rounding = 100 * np.finfo(dtype).eps  # sums of 20 products of what is below 3
    for i in range(5):
        own = slice(i, i + 1)
        assert_allclose(logits(k, x[own], W, c[own], V, b[own]), whole[own], rtol=0, atol=rounding)
        assert_array_equal(sample(k, u[own], W, c[own], V, b[own]), drawn[own])
        dw, dbias, dv = backward(k, x[own], dlogits[own], W, c[own], V)
        assert_allclose(dbias, dc[own], rtol=0, atol=rounding)
        sums += dw, dv
    assert_allclose(sums, [dW, dV], rtol=0, atol=5 * rounding)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", [37, 530])  # more than a tile of the CPU's, or than a block
def test_parts_have_the_bits_of_the_whole(k, dtype, hidden):
    W, c, V, _ = weights(20, hidden, dtype)
    x, dlogits = (normals(5, 20) > 0.5).astype(dtype), normals(5, 20, seed=4).astype(dtype)
    whole = backward(k, x, dlogits, W, c, V)
    assert all(np.isfinite(part).all() for part in whole)
    for cuts in ([0, 1, 17, hidden], [0, 16, 16, 33, hidden - 1, hidden]):
        for one, two in zip(backward(k, x, dlogits, W, c, V, cuts), whole, strict=True):
            assert_array_equal(one, two)


def test_nothing_follows_the_last_variable(k):
    x, dlogits = np.ones((5, 20), np.float32), normals(5, 20).astype(np.float32)
    W, c, V, _ = weights(20, 7, "float32")
    assert (backward(k, x, dlogits, W, c, V)[0][-1] == 0).all()


def test_large_weights_cost_no_digits_of_what_comes_before_them(k):
    """a_1 = c + 1e7 in float32: c is not found again by taking 1e7 away."""
    W, c, V, _ = weights(3, 4, "float32")
    W[1] = 1e7
    x, dlogits = np.ones((1, 3), np.float32), np.ones((1, 3), np.float32)
    found = backward(k, x, dlogits, W, c, V)
    expected = backward(k, *(array.astype(float) for array in (x, dlogits, W, c, V)))
    for one, two in zip(found, expected, strict=True):
        assert_allclose(one, two, rtol=0, atol=1e-6)


# --- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_follow_their_uniforms(k, dtype):
    """x_d = [u_d < p_d], p by the logits of what was drawn."""
    given, u = weights(40, 19, dtype), draw(k, "uniform", (50, 40), dtype)
    x = sample(k, u, *given)
    p = special.expit(logits(k, x, *given))
    doubtful = abs(u - p) < 100 * np.finfo(dtype).eps  # where a rounding may decide
    assert doubtful.mean() < 0.01
    assert ((x == (u < p)) | doubtful).all()
    assert 0.2 < x.mean() < 0.8


@EMULATED
def test_draws_do_not_depend_on_the_order_of_threads(devices):
    given, u = weights(20, 300, "float32"), draw(reference, "uniform", (3, 20), np.float32)
    first, *others = (sample(hosted_table(device), u, *given) for device in devices)
    assert set(np.unique(first)) == {0, 1}
    for other in others:
        assert_array_equal(other, first)


def test_draws_have_the_probabilities(k):
    """Pearson's chi-square over all rows; those that are too rare to count alone are one class."""
    n, given = 2000, weights(D, 5)
    x = EVERY_ROW.astype(float)
    expected = n * np.exp(-bernoulli(k, logits(k, x, *given), x)[0])
    drawn = sample(k, draw(k, "uniform", (n, D)), *given) @ (1 << np.arange(D))
    counts = np.bincount(drawn.astype(int), minlength=2**D)
    rare = expected < 5  # from 5 on, the counts' distribution is near enough to a normal one
    expected, counts = (np.r_[v[~rare], v[rare].sum()] for v in (expected, counts))
    assert expected.size > 40
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < stats.chi2.isf(1e-4, expected.size - 1)
