"""Where a loss that is no longer finite came from: the first number of a step that went wrong."""

import numpy as np

from minivae.engine.trace import trace


def first_fault(layout, theta, work, B):
    """Words for the first array, in the order of the step, that is not finite.

    work: the workspace after a batch of B rows, whose update was not made.
    """
    parameters = layout.named_views(theta)
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            return f"{name} was made infinite or NaN by the update before"
    regions = layout.region_views(work, B)
    weights, one = np.ones(len(layout.terms)), np.zeros((1, layout.n_features), theta.dtype)
    for event in trace(layout, weights, theta, one, lambda s: s.load(one)).entries.values():
        if event.name in regions and not np.isfinite(regions[event.name]).all():
            read = [(name, regions.get(name, parameters.get(name))) for name in event.reads]
            sizes = [f"{name} up to {largest(array):.1e}" for name, array in read]
            behind = f" ({', '.join(sizes)})" if sizes else ""
            return f"{event.name} overflowed in {event.kernel}{behind}"
    return "a term overflowed"


def largest(array):
    """The largest size of an entry."""
    return float(np.abs(array).max())
