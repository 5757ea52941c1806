"""What tests of every family share: a small model of each, data, and what of a model is learned."""

import numpy as np

from minivae.models import MODELS, find

SMALL = {  # settings that make a family's model small; the only place that knows families by name
    "vae": dict(latent_dim=2, hidden_layer_sizes=(5, 4), activation="tanh"),
    "nade": dict(n_hidden=5),
}
assert SMALL.keys() == MODELS.keys(), "every family needs small settings here"

# Two batches of five rows and one of a single row: fewer than there are threads.
X = (np.random.default_rng(0).random((11, 8)) > 0.5).astype("f4")
OTHER = (np.random.default_rng(1).random((4, 8)) > 0.5).astype("f4")


def small(name, **settings):
    """A small float64 model of a family."""
    same = dict(dtype="float64", batch_size=5, epochs=2, learning_rate=0.02, random_state=0)
    return find(name)(**{**SMALL[name], **same, **settings})


def bits(model):
    """All that a model has learned, exactly."""
    state, record = model.state_, model.record_
    history = sorted(item for item in record.history.items() if item[0] != "seconds")
    facts = state.epochs, state.steps, state.rows, state.totals.tolist(), model.seed_
    return state.theta.tobytes(), state.moments.tobytes(), facts, repr(history)


def scores(model, X):
    """{name: what a model says of X}, of the methods that it has."""
    found = {"score_samples": model.score_samples(X), "loss": model.loss_and_gradients(X)[0]}
    for method in ("transform", "reconstruct", "elbo"):
        if hasattr(model, method):
            found[method] = getattr(model, method)(X)
    return found


def same_scores(a, b, X):
    found, expected = scores(a, X), scores(b, X)
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )
