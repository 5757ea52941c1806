"""Which pictures a model gets, by what it can do."""

import numpy as np

from minivae.app import plots


def of(model, data, seed):
    """Yield (file name, Figure) for a trained model and the held-out rows of its data."""
    X, shape, labels = data.test, data.image_shape, data.test_labels
    yield "learning_curve.png", plots.learning_curve(model.history_)
    if hasattr(model, "reconstruct"):
        yield "reconstructions.png", reconstructions(X, model.reconstruct(X), shape)
    yield "samples.png", samples(model, 100, seed, shape)
    if hasattr(model, "inverse_transform") and hasattr(model, "transform"):
        codes = model.transform(X)
        if codes.shape[1] == 2 and shape:
            yield "manifold.png", plots.manifold(model.inverse_transform, shape)
        if codes.shape[1] == 2:
            few = labels is not None and len(np.unique(labels)) <= 20  # as many as are told apart
            yield "latent.png", plots.latent_scatter(codes, labels if few else None)


def reconstructions(X, Y, image_shape):
    return plots.reconstructions(X, Y, image_shape)


def means(Y, image_shape):
    return plots.samples(Y, image_shape)


def samples(model, n, seed, image_shape):
    return plots.samples(model.sample(n, seed), image_shape)
