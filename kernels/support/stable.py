"""Sigmoid and softplus for the reference kernels: without overflow, and along the complex step.

The reference shares them among its subjects; the fast twins have their own in `formulas.py`.
"""

import numpy as np


def sigmoid(a):
    """1 / (1 + e^-a), written with e^-|a|: it is e^a / (1 + e^a) for a < 0."""
    e = np.exp(_minus_abs(a))
    return np.where(a < 0, e, 1) / (1 + e)


def softplus(a):
    """ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|)."""
    return np.maximum(a, 0) + np.log1p(np.exp(_minus_abs(a)))


def _minus_abs(a):
    """-|a|, also along the complex step (np.abs would not be analytic)."""
    return np.where(a < 0, a, -a)
