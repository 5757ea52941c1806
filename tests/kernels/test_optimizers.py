"""Optimisers: a step by hand, and many steps by their papers."""

import math

import numpy as np
import pytest
from kernel_calls import normals
from numpy.testing import assert_allclose, assert_array_equal

from minivae.kernels import NEGLIGIBLE, OPTIMIZERS

# theta, gradient and moments before; settings; the same arrays after, worked out by hand.
HAND_STEPS = {
    # g = 0.5 + 0.2 * 1 = 0.7, velocity = 0.5 * 2 + 0.7 = 1.7
    "sgd": ([1.0, 0.5, 2.0], [0.1, 0.5, 0.2], [0.83, 0.5, 1.7]),
    # g = 3 + 0.5 * 2 = 4, square_sum = 9 + 16 = 25, step 0.1 * 4 / (5 + 3)
    "adagrad": ([2.0, 3.0, 9.0], [0.1, 0.5, 3.0], [1.95, 3.0, 25.0]),
    # g = 1 + 1 * 1 = 2; both moments unbiased are g and g^2, step 0.1 * 2 / (2 + 2)
    "adam": ([1.0, 1.0, 0.0, 0.0], [1, 0.1, 0.9, 0.99, 2.0, 1.0], [0.95, 1.0, 0.2, 0.04]),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_by_hand(name, k):
    before, settings, after = HAND_STEPS[name]
    arrays = [np.array([value]) for value in before]
    getattr(k, name)(*arrays, *settings)
    assert_allclose(np.concatenate(arrays), after, rtol=1e-14)


def test_many_steps_follow_the_papers(k):
    gradients, rate, tiny = normals(12, 1), 0.05, 1e-6
    theta, moments = np.ones((3, 1)), np.zeros((4, 1))
    previous, sgd, adagrad, adam = 1.0, 1.0, 1.0, 1.0
    for t, g in enumerate(gradients, 1):
        k.sgd(theta[0], g, moments[0], rate, 0.8, 0.0)
        k.adagrad(theta[1], g, moments[1], rate, 0.0, tiny)
        k.adam(theta[2], g, moments[2], moments[3], t, rate, 0.9, 0.99, tiny, 0.0)
        past = gradients[:t, 0]
        # Polyak's heavy ball: the last move goes on.
        sgd, previous = sgd - rate * past[-1] + 0.8 * (sgd - previous), sgd
        adagrad -= rate * past[-1] / (np.linalg.norm(past) + tiny)
        # Adam's unbiased moments are weighted means over the past.
        m = np.average(past, weights=0.9 ** np.arange(t)[::-1])
        v = np.average(past**2, weights=0.99 ** np.arange(t)[::-1])
        adam -= rate * m / (math.sqrt(v) + tiny)
        assert_allclose(theta[:, 0], [sgd, adagrad, adam], rtol=1e-13)


def test_moments_that_nothing_feeds_any_more_become_0(k):
    """Else they would decay into denormal numbers, which processors are slow at."""
    small, zero = np.float32([NEGLIGIBLE / 2, -NEGLIGIBLE / 2]), np.zeros(2, np.float32)
    theta, velocity, first, second = (array.copy() for array in (zero, small, small, abs(small)))
    k.sgd(theta, zero, velocity, 0.1, 0.9, 0.0)
    k.adam(theta, zero, first, second, 3, 0.1, 0.9, 0.99, 1e-8, 0.0)
    for moment in (velocity, first, second):
        assert_array_equal(moment, 0)
    assert_array_equal(theta, 0)
