"""Which pictures a model gets, by what it can do."""

import numpy as np

from minivae.app import plots, tables
from minivae.data.tables import take

PRIOR_DRAWS = "means of p(x|z), z from N(0, I)"
ROWS = 400  # of data, at most, that a picture is made of


def of(model, data, seed):
    """Yield (file name, Figure) for a trained model and the held-out rows of its data."""
    X, shape, labels = data.test, data.image_shape, data.test_labels
    (name, _), terms = model.program.SCORE or ("loss", ""), model.program.TERMS
    yield "learning_curve.png", plots.learning_curve(model.history_, name, terms)
    if hasattr(model, "reconstruct"):
        few = take(X, plots.spread(len(X), ROWS))  # more than are shown, from all held-out rows
        both = few, model.reconstruct(few)
        yield "reconstructions.png", reconstructions(*both, shape, model)
    yield "samples.png", samples(model, 100, seed, shape, data.train)
    if not shape:
        yield from of_table(model, data.train, seed)
    if not hasattr(model, "transform"):
        return
    codes = model.transform(X)
    if labels is not None and len(np.unique(labels)) > 20:  # more than can be told apart
        labels = None
    if shape and hasattr(model, "reconstruct"):  # codes that keep all of x have no means
        z = np.random.default_rng(seed).standard_normal((100, codes.shape[1]))
        yield "means.png", plots.samples(model.inverse_transform(z), shape, PRIOR_DRAWS)
        if codes.shape[1] == 2:
            names = tables.code_names(model)
            yield "manifold.png", plots.manifold(model.inverse_transform, shape, names=names)
    if codes.shape[1] == 2:
        yield "latent.png", plots.latent_scatter(codes, labels, tables.code_names(model))
    elif hasattr(model, "kl_per_latent"):
        kl, names = model.kl_per_latent(X), tables.code_names(model)
        yield "latent.png", plots.latent_overview(codes, kl, labels, names)


def of_table(model, X, seed):
    """Yield the pictures of a table alone, whose rows were trained on."""
    n = min(len(X), 10 * ROWS)  # or else samples of few rows are correlated by chance
    learned, names = tables.learned(model, X)
    if len(names) > 1:
        new, _ = tables.learned(model, model.sample(n, seed))
        yield "correlations.png", plots.correlations(learned, new, names)
    if model.takes_missing and hasattr(model, "impute"):
        X = take(X, plots.spread(len(X), ROWS))
        if np.asarray(model.schema_.missing(X) if model.schema_ else np.isnan(X)).any():
            filled = model.impute(X, n_draws=1, random_state=seed)[0]
            both = tables.learned(model, X)[0], tables.learned(model, filled)[0]
            yield "imputed.png", plots.imputed(*both, names, "draws of what was missing")


def samples(model, n, seed, image_shape, data=None):
    """Draws from the model; for a table beside the data, if there are some."""
    n = n if image_shape or data is None else max(n, ROWS)
    X, title = model.sample(n, seed), "samples of p(x)"
    if image_shape:
        return plots.samples(X, image_shape, title)
    X, names = tables.learned(model, X)
    beside = None if data is None else tables.learned(model, data)[0]
    return plots.marginals(X, beside, names, title)


def reconstructions(X, Y, image_shape, model):
    """Rows X and what the model makes of them, Y."""
    if image_shape:
        return plots.reconstructions(X, Y, image_shape)
    X, names = tables.learned(model, X)
    return plots.reconstructions(X, tables.learned(model, Y)[0], None, names)
