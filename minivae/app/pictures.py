"""Which pictures a model gets, by what it can do."""

import numpy as np

from minivae.app import plots, tables
from minivae.data.tables import take

PRIOR_DRAWS = "means of p(x|z), z from N(0, I)"


def of(model, data, seed):
    """Yield (file name, Figure) for a trained model and the held-out rows of its data."""
    X, shape, labels = data.test, data.image_shape, data.test_labels
    name, terms = model.program.SCORE[0], model.program.TERMS
    yield "learning_curve.png", plots.learning_curve(model.history_, name, terms)
    if hasattr(model, "reconstruct"):
        few = take(X, plots.spread(len(X), 400))  # more than are shown, from all held-out rows
        both = few, model.reconstruct(few)
        yield "reconstructions.png", plots.reconstructions(*both, shape, data.names)
    yield "samples.png", samples(model, 100, seed, shape, data.train)
    if not hasattr(model, "transform"):
        return
    codes = model.transform(X)
    if labels is not None and len(np.unique(labels)) > 20:  # more than can be told apart
        labels = None
    if shape:
        z = np.random.default_rng(seed).standard_normal((100, codes.shape[1]))
        yield "means.png", plots.samples(model.inverse_transform(z), shape, PRIOR_DRAWS)
        if codes.shape[1] == 2:
            names = tables.code_names(model)
            yield "manifold.png", plots.manifold(model.inverse_transform, shape, names=names)
    if codes.shape[1] == 2:
        yield "latent.png", plots.latent_scatter(codes, labels, tables.code_names(model))
    elif codes.shape[1] > 2:
        kl, names = model.kl_per_latent(X), tables.code_names(model)
        yield "latent.png", plots.latent_overview(codes, kl, labels, names)


def samples(model, n, seed, image_shape, data=None):
    """Draws from the model; for a table beside the data, if there are some."""
    beside = None if image_shape else data
    names = getattr(model, "feature_names_in_", None)
    return plots.samples(model.sample(n, seed), image_shape, "samples of p(x)", beside, names)
