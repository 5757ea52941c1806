"""A model that maps data to codes and back: its codes, and ln p(x) of data that are spread over
cells by uniform noise."""

import math

import numpy as np

from minivae.data.rows import fetch
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import STREAM_SCORE


def encode(session, X, name="z", by="terms_pass"):
    """The codes (n, width) of the rows of X, a region of this name that this function of the
    program writes; of data in cells, for the middle of each."""
    width = session.layout.regions[name].columns
    codes = np.empty((X.shape[0], width), session.task.theta.dtype)

    def work(session, rows):
        batch = _put(session, X, rows)
        if "noise" in session.layout.regions:
            noise = session.view("noise", batch.B)
            session.upload(np.full(noise.shape, 0.5), noise)
        getattr(session.program, by)(session.task, batch)
        codes[rows] = session.download(session.view(name, batch.B))

    for_blocks(session, X.shape[0], work)
    return codes


def decode(session, Z, name="z"):
    """x (n, D) of codes Z (n, width), a region of this name."""
    X = np.empty((len(Z), session.layout.n_features), session.task.theta.dtype)

    def work(session, rows):
        batch = session.batch(rows.stop - rows.start)
        session.upload(Z[rows], session.view(name, batch.B))
        session.program.decode(session.task, batch)
        X[rows] = session.download(session.view("x", batch.B))

    for_blocks(session, len(Z), work)
    return X


def log_likelihood(session, X, seed, n_samples):
    """Importance-weighted estimate of the logarithm (n,) of the probability of each row's cell, in
    nats, float64.

    P = volume * E[p(u)], u uniform on the cell, and exp(-nll) = volume * p(u). So for n = n_samples
    draws of the noise, (1/n) sum_i exp(-nll_i) is P in expectation, and its logarithm by Jensen's
    inequality a lower bound of ln P, which rises with n from -E[nll] at n = 1 (Burda, Grosse and
    Salakhutdinov 2015, with the uniform density on the cell as q). All rows share the noise, so
    that they are judged alike, and a value does not depend on the row's neighbours.
    """
    log_sum = np.full(X.shape[0], -np.inf)

    def work(session, rows):
        batch = _put(session, X, rows)
        noise, once = session.view("noise", batch.B), session.array("noise", (1, X.shape[1]))
        for draw in range(n_samples):
            session.k.random_uniform(seed, STREAM_SCORE, 0, draw, once)
            session.tile(once, noise)
            session.program.terms_pass(session.task, batch)
            (nll,) = session.download(session.terms(batch.B)).astype(np.float64)
            log_sum[rows] = np.logaddexp(log_sum[rows], -nll)

    for_blocks(session, X.shape[0], work)
    return log_sum - math.log(n_samples)


def _put(session, X, rows):
    """The batch that these rows of X are, loaded as x."""
    batch = session.put(fetch(X, rows, session.task.theta.dtype))
    session.load_x(batch)
    return batch
