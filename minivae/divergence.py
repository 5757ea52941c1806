"""Where a loss that is no longer finite came from: the first number of a step that went wrong."""

import numpy as np

from minivae.objective import Shard, latent, output, source
from minivae.parameters import layer_names, named_views


def first_fault(plan, theta, work, B):
    """Words for the first layer or term, in the order of the forward pass, that is not finite.

    work: the workspace after a batch of B rows, whose update was not made.
    """
    batch, views = Shard(B, 0, B), named_views(plan, theta)
    for layer, names in enumerate(layer_names(plan)):
        for name in names:
            for parameter in (f"{name}.weight", f"{name}.bias"):
                if not np.isfinite(views[parameter]).all():
                    return f"{parameter} was made infinite or NaN by the update before"
        h, y = source(plan, layer, work.outputs, batch), output(plan, layer, work.outputs, batch)
        if not np.isfinite(y).all():
            weight = max(largest(views[f"{name}.weight"]) for name in names)
            return (
                f"the output of {' and '.join(names)} overflowed (input up to {largest(h):.1e}, "
                f"weights up to {weight:.1e})"
            )
        if layer == plan.n_encoder - 1:
            if not np.isfinite(latent(plan, work.outputs, batch)).all():
                return "z overflowed"
            if not np.isfinite(work.kl[:B]).all():
                return f"kl overflowed (encoder.mu puts out up to {largest(y):.1e})"
    noise = (
        f", decoder.noise_logvar {theta[plan.noise]:.1f}" if "decoder.noise_logvar" in views else ""
    )
    return f"nll overflowed (decoder.out puts out up to {largest(y):.1e}{noise})"


def largest(array):
    """The largest size of an entry."""
    return float(np.abs(array).max())
