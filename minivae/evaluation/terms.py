"""The terms of a model's loss for every row of data, and draws from the model."""

import numpy as np

from minivae.data.rows import fetch
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import STREAM_EVALUATION, STREAM_PIXELS

NOISE = {"eps": "random_normal", "noise": "random_uniform"}  # by the name of its region


def mean_terms(session, X, binarize, seed, n_samples=1):
    """{term: mean of each row (n,) over n_samples draws}, float64, in nats.

    What is drawn is a model's noise, normal in the region eps and uniform in the region noise, and
    the pixels of data that are binarised at random: draw s of row i is a function of (seed, s, i).
    Without any, every draw is the same.
    """
    totals = np.zeros((len(session.layout.terms), X.shape[0]))

    def work(session, rows):
        batch = session.put(fetch(X, rows, session.task.theta.dtype))
        x = session.view("x", batch.B)
        for draw in range(n_samples):
            session.load_x(batch)
            session.binarize(x, binarize, seed, STREAM_PIXELS, draw, rows.start)
            for name in NOISE.keys() & session.layout.regions.keys():
                first = rows.start * session.layout.regions[name].repeat
                fill = getattr(session.k, NOISE[name])
                fill(seed, STREAM_EVALUATION, draw, first, session.view(name, batch.B))
            session.program.terms_pass(session.task, batch)
            totals[:, rows] += session.download(session.terms(batch.B))

    for_blocks(session, X.shape[0], work)
    return dict(zip(session.layout.terms, totals / n_samples, strict=True))


def draws(session, n_samples, seed):
    """x (n_samples, D) drawn from the model by the program's `draw`; row i is a function of the
    seed and i."""
    found = np.empty((n_samples, session.layout.n_features), session.task.theta.dtype)

    def work(session, rows):
        batch = session.batch(rows.stop - rows.start)
        session.program.draw(session.task, batch, seed, rows.start)
        found[rows] = session.download(session.view("x", batch.B))

    for_blocks(session, n_samples, work)
    return found
