"""Steps of a recurrent net: the paper written out, gradients through time."""

import numpy as np
import pytest
from kernel_calls import check, normals
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

T, B, D, H = 3, 4, 2, 5


def weights(seed=0):
    """W (D, 3 H), U (H, 3 H), bias (3 H,), and a first state (B, H)."""
    return (normals(D, 3 * H, seed=seed), normals(H, 3 * H, seed=seed + 1),
            normals(3 * H, seed=seed + 2), normals(B, H, seed=seed + 3))  # fmt: skip


def states(k, x, W, U, bias, h):
    """(states (B, (T + 1) H), gates (B, T 4 H)) of x (T, B, D)."""
    dtype = np.result_type(W, U, bias, h)  # complex, where a step of a gradient check is
    found, gates = np.full((B, T + 1, H), np.nan, dtype), np.full((B, T, 4 * H), np.nan, dtype)
    found[:, 0] = h
    for t in range(T):
        gates[:, t, : 3 * H] = x[t] @ W
        k.gru(t, found[:, t] @ U, bias, found.reshape(B, -1), gates.reshape(B, -1))
    return found.reshape(B, -1), gates.reshape(B, -1)


def through_time(k, x, W, U, bias, h, dstates):
    """The gradient by W, U, bias and h, given that by the T + 1 states, as others read them."""
    found, gates = states(k, x, W, U, bias, h)
    dstates, dgates = dstates.copy(), np.full_like(gates, np.nan)
    ds, dg = dstates.reshape(B, T + 1, H), dgates.reshape(B, T, 4 * H)
    for t in range(T - 1, -1, -1):
        k.gru_backward(t, H, found, gates, dstates, dgates)
        ds[:, t] += dg[:, t, H:] @ U.T
    dW = np.einsum("tbi,btj->ij", x, dg[:, :, : 3 * H])
    dU = np.einsum("bti,btj->ij", found.reshape(B, T + 1, H)[:, :T], dg[:, :, H:])
    return dW, dU, dg[:, :, : 3 * H].sum(axis=(0, 1)), ds[:, 0]


def test_a_step_is_that_of_the_paper(k):
    x, (W, U, bias, h) = normals(T, B, D, seed=9), weights()
    found, gates = states(k, x, W, U, bias, h)
    W_n, W_r, W_z = np.split(W, 3, axis=1)
    U_r, U_z, U_n = np.split(U, 3, axis=1)
    b_n, b_r, b_z = np.split(bias, 3)
    rounding = 100 * np.finfo(float).eps  # sums of some ten products of what is below 3
    for t in range(T):
        r = special.expit(x[t] @ W_r + h @ U_r + b_r)
        z = special.expit(x[t] @ W_z + h @ U_z + b_z)
        n = np.tanh(x[t] @ W_n + b_n + r * (h @ U_n))
        kept = gates[:, t * 4 * H : (t + 1) * 4 * H]
        assert_allclose(kept, np.hstack([n, r, z, h @ U_n]), rtol=0, atol=rounding)
        h = z * h + (1 - z) * n
        assert_allclose(found[:, (t + 1) * H : (t + 2) * H], h, rtol=0, atol=rounding)


def test_gradients_through_time(k):
    x, dstates = normals(T, B, D, seed=9), normals(B, (T + 1) * H, seed=10)

    def value(*weights):
        return states(k, x, *weights)[0]

    check(k, value, lambda *given: through_time(k, x, *given), weights(), [dstates])


def test_an_open_or_shut_gate_passes_the_state_or_forgets_it(k):
    h, u = normals(B, H), np.zeros((B, 3 * H))
    for z, expected in ((40.0, h), (-40.0, np.tanh(1.0) * np.ones((B, H)))):  # sigmoid(40) is 1
        gates = np.hstack([np.ones((B, H)), np.zeros((B, H)), np.full((B, H), z), u[:, :H]])
        found = np.hstack([h, h * np.nan])
        k.gru(0, u, np.zeros(3 * H), found, gates)
        rounding = 10 * np.exp(-40) + 10 * np.finfo(float).eps
        assert_allclose(found, np.hstack([h, expected]), rtol=0, atol=rounding)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cleared_columns_are_0_and_others_stay(k, dtype):
    x = normals(B, 7).astype(dtype)
    before = x.copy()
    k.clear(x[:, 2:5])
    assert (x[:, 2:5] == 0).all()
    assert_array_equal(np.delete(x, [2, 3, 4], axis=1), np.delete(before, [2, 3, 4], axis=1))
