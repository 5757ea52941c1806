"""What tests of every family share: a small model of each, data, and what of a model is learned."""

import numpy as np

from minivae.models import MODELS, find

SMALL = {  # settings that make a family's model small; the only place that knows families by name
    "vae": dict(latent_dim=2, hidden_layer_sizes=(5, 4), activation="tanh"),
    "nade": dict(n_hidden=5),
    "gan": dict(latent_dim=3, generator_sizes=(4,), discriminator_sizes=(5, 4), activation="tanh"),
    "flow": dict(n_couplings=3, hidden_layer_sizes=(5,), activation="tanh", dequantize=2),
    "rbm": dict(n_hidden=5, n_steps=2),
    "pixelcnn": dict(n_layers=1, n_channels=5, first_kernel=3, image_shape=(1, -1)),
    "wavenet": dict(n_channels=2, n_skip=3),
    "pixelrnn": dict(n_state=4, n_hidden=3, image_shape=(-1, 1)),
}
assert SMALL.keys() == MODELS.keys(), "every family needs small settings here"

# Those that maximise something, by which an epoch can be the best.
SCORED = [name for name in MODELS if find(name).program.SCORE]

# Two batches of five rows and one of a single row: fewer than there are threads.
X = (np.random.default_rng(0).random((11, 8)) > 0.5).astype("f4")
OTHER = (np.random.default_rng(1).random((4, 8)) > 0.5).astype("f4")

# Families with settings that make other code of them: name of the variant, family, settings. They
# share what is compiled: all VAEs have missing values, and likelihoods of columns are one kernel.
MISSING = dict(missing="mask", posterior="full")
VARIANTS = {name: (name, {}) for name in MODELS} | {
    f"vae {likelihood}": ("vae", dict(likelihood=likelihood, **MISSING))
    for likelihood in ("mixed", "diagonal_gaussian", "bounded_gaussian", "continuous_bernoulli")
}
VARIANTS |= {  # of two lines of four pixels
    f"pixelcnn {name}": ("pixelcnn", dict(image_shape=(2, 4), first_kernel=3, gated=gated))
    for name, gated in (("image", True), ("plain", False))
}
VARIANTS["flow continuous"] = (
    "flow", dict(dequantize=None, coupling="additive", prior="normal"))  # fmt: skip
VARIANTS["wavenet levels"] = "wavenet", dict(levels=3, max_dilation=2, n_stacks=2)
VARIANTS["pixelrnn image"] = ("pixelrnn", dict(image_shape=(4, 2)))


def table(n, seed=0):
    """A table (n, 7) of objects: of every kind of column one, two categories, and of 0.2 of its
    cells nothing is known; no row has the holes of another, if n is not too large."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n)
    rows = np.empty((n, 7), dtype=object)
    rows[:, 0] = 20 + 5 * size  # real
    rows[:, 1] = np.exp(2 * size)  # positive
    rows[:, 2] = np.arange(n) % 3 + (size > 0) * 1.0  # count
    rows[:, 3] = size > 0.1  # binary
    rows[:, 4] = np.array(["red", "green", "blue"], object)[np.arange(n) % 3]
    rows[:, 5] = np.array(["no", "yes"], object)[(rng.random(n) < 0.5) * 1]
    rows[:, 6] = np.array(list("abcd"), object)[np.arange(n) % 4]
    rows[rng.random(rows.shape) < 0.2] = np.nan
    return rows


SCHEMA = {0: "real", 1: "positive", 2: "count", 3: "binary", 4: "category", 5: "binary",
          6: "category"}  # fmt: skip


def data(name):
    """(X, OTHER) for a variant: rows to train on, and others; as few as those above."""
    _, settings = VARIANTS[name]
    if settings.get("likelihood") == "mixed":
        rows = table(15)
        return rows[:11], rows[11:]
    if "missing" not in settings:
        return X, OTHER
    rng = np.random.default_rng(2)
    values = rng.normal(size=(15, 8)) if "diagonal" in name else rng.random((15, 8))
    values[rng.random(values.shape) < 0.3] = np.nan
    return values[:11], values[11:]


def small(name, **settings):
    """A small float64 model of a family, or of a variant of one."""
    family, changed = VARIANTS[name]
    same = dict(dtype="float64", batch_size=5, epochs=2, learning_rate=0.02, random_state=0)
    if changed.get("likelihood") == "mixed":
        same["schema"] = SCHEMA
    return find(family)(**{**SMALL[family], **same, **changed, **settings})


def bits(model):
    """All that a model has learned, exactly."""
    state, record = model.state_, model.record_
    history = sorted(item for item in record.history.items() if item[0] != "seconds")
    facts = state.epochs, state.steps, state.rows, state.totals.tolist(), model.seed_
    carried = [(name, rows.tobytes()) for name, rows in state.carried.items()]
    return state.theta.tobytes(), state.moments.tobytes(), carried, facts, repr(history)


def of_rows(model, X):
    """A value of each row of X (n,): its score, or of a family that has none the sum of its terms,
    whose noise is that of the row's number."""
    return model.score_samples(X) if model.score_kind else sum(model._terms(X).values())


def scores(model, X):
    """{name: what a model says of X}, of the methods that it has."""
    found = {"rows": of_rows(model, X), "loss": model.loss_and_gradients(X)[0]}
    for method in ("transform", "reconstruct", "elbo"):
        if hasattr(model, method):
            found[method] = getattr(model, method)(X)
    return found


def same_scores(a, b, X):
    found, expected = scores(a, X), scores(b, X)
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )
