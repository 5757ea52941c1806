"""What a model with latent variables says of data: codes, means and ln p(x).

Everything is done in blocks of rows, so memory does not grow with the data, and every value
belongs to one row, so it does not depend on how rows were grouped; with device="reference" up to
the rounding of NumPy's BLAS. A session (engine/threads.py) has the program and its parameters.
"""

import numpy as np

from minivae.data.rows import BLOCK, fetch, passing
from minivae.kernels import (
    STREAM_PIXELS,
    STREAM_SCORE,
    THRESHOLD,
)
from minivae.kernels.tables import reference

DRAWS = 256  # whose weights are kept before they are added up, where the machine may be a GPU


def encode(session, X, binarize):
    """mu (n, Z) and logvar (n, Z) of q(z|x); stochastic binarisation is not drawn here."""
    dtype = session.task.theta.dtype
    heads = np.empty((X.shape[0], 2 * session.layout.plan.latent_dim), dtype)
    for rows in passing(X.shape[0]):
        batch = session.put(fetch(X, rows, dtype))
        session.load_x(batch)
        if binarize == THRESHOLD:
            session.k.threshold(session.view("x", batch.B))
        heads[rows] = session.download(session.program.encode(session.task, batch))
    return np.split(heads, 2, axis=1)


def kl_per_latent(mu, logvar):
    """KL(q(z_j|x) || N(0, 1)) of each latent (Z,), the mean over rows, in nats."""
    kl, nothing = np.empty((mu.shape[1], len(mu))), np.zeros((len(mu), 1))
    for j, row in enumerate(kl):  # the kernel sums over latents, so it gets one at a time
        column = slice(j, j + 1)
        reference.sample_gaussian(mu[:, column], logvar[:, column], nothing, nothing.copy(), row)
    return kl.mean(axis=1)


def decode(session, Z):
    """E[x|z], (n, D): probabilities for Bernoulli, means for Gaussian."""
    means = np.empty((len(Z), session.layout.n_features), Z.dtype)
    for rows in passing(len(Z)):
        batch = session.batch(rows.stop - rows.start)
        session.upload(Z[rows], session.view("z", batch.B))
        session.program.decode(session.task, batch)
        means[rows] = session.download(session.program.likelihood_mean(session.task, batch))
    return means


def log_likelihood(session, X, binarize, seed, n_samples):
    """Importance-weighted estimate of ln p(x) for each row (n,), float64, in nats.

    ln (1/K) sum_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x), z_k = mu + std eps_k: in expectation
    a lower bound of ln p(x) that rises with K = n_samples (Burda et al. 2015, equation 8). The
    weights are summed as logarithms, so no density is ever exponentiated. All rows share the draws
    eps_k, so rows are judged alike and a row's value does not depend on its neighbours, unless it
    is binarised at random on the way.
    """
    estimate, Z = np.full(X.shape[0], -np.inf), session.layout.plan.latent_dim
    noise = session.array("noise", (1, Z))
    room = session.array("log_w", (min(DRAWS, n_samples) * min(BLOCK, X.shape[0]),))
    for rows in passing(X.shape[0]):
        batch = session.put(fetch(X, rows, session.task.theta.dtype))
        task, program = session.task, session.program
        session.load_x(batch)
        session.binarize(session.view("x", batch.B), binarize, seed, STREAM_PIXELS, 0, rows.start)
        heads = program.encode(task, batch)
        eps, z, nll = (session.view(name, batch.B) for name in ("eps", "z", "nll"))
        for first in range(0, n_samples, DRAWS):
            draws = range(first, min(first + DRAWS, n_samples))
            log_w = room[: len(draws) * batch.B].reshape((len(draws), batch.B))
            for i, draw in enumerate(draws):
                session.k.random_normal(seed, STREAM_SCORE, draw, 0, noise)
                session.repeat(noise, eps)
                program.draw_latent(task, batch)
                program.likelihood(task, program.decode(task, batch), batch)
                session.k.log_importance_weights(heads[:, Z:], eps, z, nll, log_w[i])
            for log_w_of_draw in session.download(log_w):
                estimate[rows] = np.logaddexp(estimate[rows], log_w_of_draw)
    return estimate - np.log(n_samples)
