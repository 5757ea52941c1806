"""Levels and queues of a sequence: closed forms, gradients, draws, taps of what went before."""

import numpy as np
import pytest
from kernel_calls import check, draw, normals
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats


def levels_nll(k, logits, x, levels, scale=1.0):
    nll, dlogits = np.empty(len(x), logits.dtype), np.empty_like(logits)
    k.levels_nll(logits, x, levels, scale, nll, dlogits)
    return nll, dlogits


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_the_cost_is_that_of_the_softmax_of_the_nearest_level(k, levels):
    logits = 3 * normals(5, 4, levels)
    drawn = np.random.default_rng(1).integers(0, levels, (5, 4))
    log_p = special.log_softmax(logits, axis=2)
    expected = -np.take_along_axis(log_p, drawn[:, :, None], axis=2).sum(axis=(1, 2))
    for off in (-0.4, 0, 0.4):  # of a level's width
        x = np.clip((drawn + off) / (levels - 1), 0, 1)
        found, _ = levels_nll(k, logits.reshape(5, -1), x, levels)
        assert_allclose(found, expected, rtol=1e-13)


def test_two_levels_are_a_bernoulli_variable(k):
    """The difference of two logits is the one of a Bernoulli variable."""
    x, logits = np.array([[0.0, 1.0, 1.0]]), normals(1, 6)
    nll = np.empty(1)
    k.bernoulli_nll(logits[:, 1::2] - logits[:, 0::2], x, None, 1.0, nll, None)
    assert_allclose(levels_nll(k, logits, x, 2)[0], nll, rtol=1e-13)


def test_gradient_of_levels(k):
    x = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 0.5]])

    def nll(logits):
        return levels_nll(k, logits, x, 3)[0]

    def gradient(logits, dnll):
        return (levels_nll(k, logits, x, 3, scale=dnll[0])[1],)

    check(k, nll, gradient, [normals(2, 9)], [np.full(2, 0.37)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("magnitude", [1e3, 3e4])
def test_large_logits_neither_overflow_nor_cost_below_0(k, magnitude, dtype):
    logits = (magnitude * np.array([[1, 0, -1, 0, 1, -1]])).astype(dtype)
    nll, dlogits = levels_nll(k, logits, np.array([[0, 1]], dtype), 3)
    assert_allclose(nll, [2 * magnitude], rtol=1e-6)
    assert_array_equal(dlogits, [[0, 0, 0, 0, 1, -1]])


def test_draws_have_their_probabilities(k):
    """Chi-square of 20,000 draws."""
    n, logits = 20_000, normals(1, 4)
    x = np.full((n, 1), np.nan)
    k.levels_draw(np.repeat(logits, n, axis=0), draw(k, "uniform", (n, 1)), x)
    counts = [(x == level).sum() for level in np.array([0, 1, 2, 3]) / 3]
    assert sum(counts) == n
    assert stats.chisquare(counts, n * special.softmax(logits[0])).pvalue > 1e-4


@pytest.mark.parametrize("d", [1, 3])
def test_a_queue_gives_what_was_d_positions_ago(k, d):
    """Ten positions of two rows with two channels; the queue begins with what nobody wrote."""
    h, queue, taps = normals(10, 2, 2), np.full((2, 2 * d), np.nan), np.full((2, 4), np.nan)
    for t in range(10):
        k.queue_taps(h[t], queue, t, taps)
        assert_array_equal(taps, np.hstack([h[t - d] if t >= d else 0 * h[t], h[t]]))
