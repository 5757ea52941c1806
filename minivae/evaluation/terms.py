"""The terms of a model's loss for every row of data, and draws from the model.

Everything is done in blocks of rows, so memory does not grow with the data, and every value
belongs to one row, so it does not depend on how rows were grouped.
"""

import numpy as np

from minivae.data.rows import fetch, passing
from minivae.kernels import STREAM_EVALUATION, STREAM_PIXELS


def mean_terms(session, X, binarize, seed, n_samples=1):
    """{term: mean of each row (n,) over n_samples draws}, float64, in nats.

    What is drawn is the noise of a model with latent variables, and the pixels of data that are
    binarised at random: draw s of row i is a function of (seed, s, i). Without either, every draw
    is the same.
    """
    totals = np.zeros((len(session.layout.terms), X.shape[0]))
    for rows in passing(X.shape[0]):
        batch = session.put(fetch(X, rows, session.task.theta.dtype))
        x = session.view("x", batch.B)
        for draw in range(n_samples):
            session.load_x(batch)
            session.binarize(x, binarize, seed, STREAM_PIXELS, draw, rows.start)
            if "eps" in session.layout.regions:
                eps = session.view("eps", batch.B)
                session.k.random_normal(seed, STREAM_EVALUATION, draw, rows.start, eps)
            session.program.terms_pass(session.task, batch)
            totals[:, rows] += session.download(session.terms(batch.B))
    return dict(zip(session.layout.terms, totals / n_samples, strict=True))


def draws(session, n_samples, seed):
    """x (n_samples, D) drawn from the model by the program's `draw`; row i is a function of the
    seed and i."""
    found = np.empty((n_samples, session.layout.n_features), session.task.theta.dtype)
    for rows in passing(n_samples):
        batch = session.batch(rows.stop - rows.start)
        session.program.draw(session.task, batch, seed, rows.start)
        found[rows] = session.download(session.view("x", batch.B))
    return found
