"""Draws beside the distribution that they should have."""

import math

import numpy as np


def check_moments(values, distribution):
    """Mean to fourth moment within 4 standard errors."""
    for power in (1, 2, 3, 4):
        mean, square = distribution.moment(power), distribution.moment(2 * power)
        error = math.sqrt((square - mean**2) / values.size)
        assert abs(np.mean(values**power) - mean) < 4 * error, f"moment {power}"
