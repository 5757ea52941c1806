"""Numba twins of optimizers/reference.py."""

import numpy as np

from ..support.formulas import unless_negligible
from ..support.native import compiled


@compiled
def sgd(theta, gradient, velocity, learning_rate, momentum, weight_decay):
    rate, decay = theta.dtype.type(learning_rate), theta.dtype.type(weight_decay)
    inertia = theta.dtype.type(momentum)
    if momentum > 0:
        for i in range(theta.size):
            v = unless_negligible(inertia * velocity[i] + (gradient[i] + decay * theta[i]))
            velocity[i] = v
            theta[i] -= rate * v
    else:
        for i in range(theta.size):
            theta[i] -= rate * (gradient[i] + decay * theta[i])


@compiled
def adagrad(theta, gradient, square_sum, learning_rate, weight_decay, epsilon):
    rate, decay = theta.dtype.type(learning_rate), theta.dtype.type(weight_decay)
    tiny = theta.dtype.type(epsilon)
    for i in range(theta.size):
        g = gradient[i] + decay * theta[i]
        s = square_sum[i] + g * g
        square_sum[i] = s
        theta[i] -= rate * g / (np.sqrt(s) + tiny)


@compiled
def adam(theta, gradient, first, second, step, learning_rate, beta1, beta2, epsilon, weight_decay):
    decay, tiny = theta.dtype.type(weight_decay), theta.dtype.type(epsilon)
    b1, b2 = theta.dtype.type(beta1), theta.dtype.type(beta2)
    c1, c2 = theta.dtype.type(1 - beta1), theta.dtype.type(1 - beta2)
    rate = theta.dtype.type(learning_rate / (1 - beta1**step))
    unbias = theta.dtype.type(1 / (1 - beta2**step))
    for i in range(theta.size):
        g = gradient[i] + decay * theta[i]
        m = unless_negligible(b1 * first[i] + c1 * g)
        v = unless_negligible(b2 * second[i] + c2 * (g * g))
        first[i] = m
        second[i] = v
        theta[i] -= rate * m / (np.sqrt(v * unbias) + tiny)
