"""Where a loss that is no longer finite came from: the first number of a step that went wrong."""

import numpy as np

from minivae.evaluation.trace import trace


def first_fault(layout, theta, work, B):
    """Words for the first array, in the order of the step, that is not finite.

    work: the workspace after a batch of B rows, whose update was not made.
    """
    parameters = layout.named_views(theta)
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            return f"{name} was made infinite or NaN by the update before"
    regions = layout.region_views(work, B)
    weights, one = (1.0,) * len(layout.terms), np.zeros((1, layout.n_features), theta.dtype)
    for event in trace(layout, weights, theta, one).entries.values():
        if event.name in regions and not np.isfinite(regions[event.name]).all():
            read = [
                f"{name} up to {_largest(name, regions, parameters):.1e}" for name in event.reads
            ]
            return f"{event.name} overflowed in {event.kernel} ({', '.join(read)})"
    return "a term overflowed"


def _largest(name, regions, parameters):
    """The largest size of an entry of an array of the trace; parameters may be several in one."""
    arrays = [regions[name]] if name in regions else [parameters[n] for n in name.split("+")]
    return float(max(np.abs(array).max() for array in arrays))
