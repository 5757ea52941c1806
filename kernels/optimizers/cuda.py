"""CUDA twins of optimizers/reference.py: each launches its kernel of cuda.cu.

In a captured step the kernels look at the counters and do nothing once a loss was not finite.
"""

import math

from ..support.launches import blocks


def sgd(on, theta, gradient, velocity, learning_rate, momentum, weight_decay):
    on.launch("sgd", theta.dtype, (blocks(theta.size), 1), theta, gradient, velocity, on.counters,
              *on.rate(learning_rate), momentum, weight_decay, theta.size)  # fmt: skip


def adagrad(on, theta, gradient, square_sum, learning_rate, weight_decay, epsilon):
    on.launch("adagrad", theta.dtype, (blocks(theta.size), 1), theta, gradient, square_sum,
              on.counters, *on.rate(learning_rate), weight_decay, epsilon, theta.size)  # fmt: skip


def adam(
    on, theta, gradient, first, second, step, learning_rate, beta1, beta2, epsilon, weight_decay
):
    betas = [(beta, 1 - beta, math.log(beta) if beta else -math.inf) for beta in (beta1, beta2)]
    on.launch("adam", theta.dtype, (blocks(theta.size), 1), theta, gradient, first, second,
              *on.step(step), *on.rate(learning_rate), *betas[0], *betas[1], epsilon, weight_decay,
              theta.size)  # fmt: skip
