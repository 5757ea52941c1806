"""Convolutions over taps: against sums that are written out, adjoints, the gate by its formula."""

import math

import numpy as np
import pytest
from kernel_calls import check, normals
from numpy.testing import assert_allclose, assert_array_equal

EPS = np.finfo(float).eps
# Four positions in a line: a tap that sees the position itself, one that sees the one before, and
# one that sees two before. `inverse` is written by hand as well: who sees a position.
TAPS = np.array([[0, -1, -1], [1, 0, -1], [2, 1, 0], [3, 2, 1]])
INVERSE = np.array([[0, 1, 2], [1, 2, 3], [2, 3, -1], [3, -1, -1]])


def gathered(k, h, taps, n):
    cols = np.full((n * len(taps), taps.shape[1] * h.shape[1]), np.nan, h.dtype)
    k.gather_taps(h, taps, cols)
    return cols


def test_a_position_sees_its_taps_and_zero_outside(k):
    h = np.arange(16.0).reshape(8, 2) + 1  # two rows, four positions, two channels
    cols = gathered(k, h, TAPS, 2)
    assert_array_equal(cols[0], [1, 2, 0, 0, 0, 0])
    assert_array_equal(cols[2], [5, 6, 3, 4, 1, 2])
    assert_array_equal(cols[4], [9, 10, 0, 0, 0, 0])  # of the other row nothing
    assert_array_equal(cols[7], [15, 16, 13, 14, 11, 12])


@pytest.mark.parametrize("p", range(4))
def test_one_position_of_all_rows_is_gathered_as_it_is_among_all(p, k):
    h, room = normals(12, 5), np.full((12, 15), np.nan)
    whole = gathered(k, h, TAPS, 3)
    k.gather_taps(h, TAPS[p::4], room[p::4])
    assert_array_equal(room[p::4], whole[p::4])
    assert np.isnan(np.delete(room, np.s_[p::4], axis=0)).all()


def test_a_product_over_taps_is_the_convolution(k):
    """numpy's own, of a signal with two zeros before it."""
    h, w = normals(4), normals(3, seed=1)
    found = gathered(k, h[:, None], TAPS, 1) @ w
    expected = np.convolve(np.r_[0, 0, h], w, "valid")
    assert_allclose(found, expected, rtol=0, atol=20 * EPS)


def test_columns_of_wider_matrices(k):
    h, cols = normals(8, 9), np.full((8, 10), np.nan)
    k.gather_taps(h[:, 3:5], TAPS, cols[:, 2:8])
    assert_array_equal(cols[:, 2:8], gathered(k, np.ascontiguousarray(h[:, 3:5]), TAPS, 2))
    assert np.isnan(cols[:, :2]).all() and np.isnan(cols[:, 8:]).all()


def test_scattering_is_the_adjoint_and_is_added(k):
    """sum(dcols * cols) is linear in h, so its gradient's product with h is itself."""
    h, dcols = normals(8, 3), normals(8, 9, seed=1)
    dh = np.ones_like(h)
    k.scatter_taps(dcols, INVERSE, dh)
    whole = (dcols * gathered(k, h, TAPS, 2)).sum()
    assert abs(((dh - 1) * h).sum() - whole) < 200 * EPS
    check(
        k,
        lambda h: gathered(k, h, TAPS, 2),
        lambda h, dcols: (scattered(k, dcols, h),),
        [h],
        [dcols],
    )


def scattered(k, dcols, h):
    dh = np.zeros(h.shape, dcols.dtype)
    k.scatter_taps(dcols, INVERSE, dh)
    return dh


def gated(k, a):
    y = np.empty((len(a), a.shape[1] // 2), a.dtype)
    k.gate(a, y)
    return y


def test_the_gate_is_that_of_its_paper(k):
    a = normals(7, 10)
    expected = [[math.tanh(f) / (1 + math.exp(-g)) for f, g in zip(row[:5], row[5:], strict=True)]
                for row in a]  # fmt: skip
    assert_allclose(gated(k, a), expected, rtol=8 * EPS)


def test_gradients_of_the_gate(k):
    def backward(a, dy):
        da = np.full(a.shape, np.nan, dy.dtype)
        k.gate_backward(dy, a, da)
        return (da,)

    check(k, lambda a: gated(k, a), backward, [normals(4, 6)], [normals(4, 3, seed=1)])


@pytest.mark.parametrize("size", [90.0, 1e4])
def test_a_gate_far_out_is_open_or_shut(size, k):
    a = np.array([[size, -size, 1, 1, size, size, size, -size]], np.float32)
    assert_allclose(gated(k, a), [[1, -1, math.tanh(1), 0]], rtol=1e-6, atol=1e-37)
    da = np.full_like(a, np.nan)
    k.gate_backward(np.ones((1, 4), np.float32), a, da)
    assert_allclose(da[0], [0, 0, 1 - math.tanh(1) ** 2, 0, 0, 0, 0, 0], rtol=1e-6, atol=1e-37)


def test_draws_of_bits_have_their_probabilities_and_compare_with_their_uniforms(k):
    logits = np.array([[-math.inf, -1.0, 0.0, 1.0, math.inf]])
    u, x = np.array([[0.25, 0.25, 0.25, 0.25, 0.75]]), np.full((1, 5), np.nan)
    k.bernoulli_draw(logits, u, x)
    assert_array_equal(x, [[0, 1, 1, 1, 1]])  # sigmoid(-1) = 0.269
    n = 10_000
    u = (np.arange(n)[:, None] + 0.5) / n
    x = np.empty_like(u)
    k.bernoulli_draw(np.full_like(u, -1.0), u, x)
    assert abs(x.mean() - 1 / (1 + math.e)) < 1 / n  # uniforms on a grid
