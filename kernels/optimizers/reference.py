"""Optimisers: the specification. One pass over the flat buffers, all (P,)."""

import numpy as np

from .. import NEGLIGIBLE


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
    where g has the same distribution at every step, after t of them their means are 1 - beta^t
    times those of g and g^2. first_hat and second_hat, divided by that, have no such bias; the root
    and the quotient of the update do not share this:
    theta -= learning_rate * first_hat / (sqrt(second_hat) + epsilon).
    """
    g = gradient + weight_decay * theta
    first[:] = _unless_negligible(beta1 * first + (1 - beta1) * g)
    second[:] = _unless_negligible(beta2 * second + (1 - beta2) * (g * g))
    first_hat = first / (1 - beta1**step)
    second_hat = second / (1 - beta2**step)
    theta -= learning_rate * first_hat / (np.sqrt(second_hat) + epsilon)


def _unless_negligible(moment):
    return np.where(abs(moment) < NEGLIGIBLE, 0, moment)
