"""A small model of every family, for tests that hold for all of them."""

import numpy as np

from minivae import models

FAMILIES = list(models.MODELS)
SHAPES = {  # a new family needs a line here, and is in all these tests
    "vae": dict(hidden_layer_sizes=(4,)),
    "nade": dict(n_hidden=4),
}


def small(family="vae", **settings):
    """An estimator that trains in milliseconds."""
    usual = dict(epochs=2, batch_size=8, device="reference", random_state=0)
    return models.find(family)(**usual | SHAPES[family] | settings)


def history(model):
    """All of it but the time that epochs took."""
    return {name: values for name, values in model.history_.items() if name != "seconds"}


def same_model(a, b):
    """Assert that two models are equal, bit for bit, in all that training made."""
    for x, y in [(a.state_.theta, b.state_.theta), (a.state_.moments, b.state_.moments)]:
        assert (x.dtype, x.tobytes()) == (y.dtype, y.tobytes())
    facts = [
        (m.state_.steps, m.state_.epochs, m.state_.rows, m.seed_,
         m.n_features_in_, history(m))
        for m in (a, b)
    ]  # fmt: skip
    np.testing.assert_equal(*facts)  # in which NaN is equal to NaN
