"""Models of every family that train in milliseconds, and when two of them are equal."""

import numpy as np
from families import SMALL

from minivae.models import MODELS, find

FAMILIES = list(MODELS)


def tiny(family="vae", **settings):
    """A small model on the machine that compiles nothing."""
    same = dict(epochs=2, batch_size=8, device="reference", random_state=0)
    return find(family)(**SMALL[family] | same | settings)


def reshaped(family):
    """Settings of another model than `tiny` makes."""
    name, size = next(item for item in SMALL[family].items() if isinstance(item[1], int))
    return {name: size + 1}


def history(model):
    """All of it but the time that epochs took."""
    return {name: values for name, values in model.history_.items() if name != "seconds"}


def same_model(a, b):
    """Assert that two models are equal, bit for bit, in all that training made."""
    arrays = [[m.state_.theta, m.state_.moments, *m.state_.carried.values()] for m in (a, b)]
    for x, y in zip(*arrays, strict=True):
        assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())
    facts = [
        (m.state_.steps, m.state_.epochs, m.state_.rows, m.seed_, m.n_features_in_, history(m))
        for m in (a, b)
    ]
    np.testing.assert_equal(*facts)  # in which NaN is equal to NaN
