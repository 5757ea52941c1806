"""What a model with latent variables says of data: codes, means and ln p(x)."""

import math
from typing import NamedTuple

import numpy as np

from minivae.data.rows import fetch
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import STREAM_PIXELS, STREAM_SCORE, THRESHOLD
from minivae.kernels.tables import reference

DRAWS = 64  # of a row that are decoded at once


class Estimate(NamedTuple):
    """ln p(x) of each row (n,), in nats; its standard error; how many of the draws count."""

    log_p: np.ndarray
    error: np.ndarray
    effective_draws: np.ndarray


def encode(session, X, binarize):
    """mu (n, Z), and the logarithm (n, Z) of each latent's own variance under q(z|x); stochastic
    binarisation is not drawn here."""
    dtype, Z = session.task.theta.dtype, session.layout.plan.latent_dim
    heads = np.empty((X.shape[0], session.layout.plan.encoder.y.columns), dtype)

    def work(session, rows):
        batch = session.put(fetch(X, rows, dtype))
        session.load_x(batch)
        if binarize == THRESHOLD:
            session.k.threshold(session.view("x", batch.B))
        heads[rows] = session.download(session.program.encode(session.task, batch))

    for_blocks(session, X.shape[0], work)
    mu, logvar, lower = np.split(heads, [Z, 2 * Z], axis=1)
    for j in range(1, Z if lower.size else 0):  # row j of L below the diagonal
        row = lower[:, j * (j - 1) // 2 : j * (j + 1) // 2]
        with np.errstate(divide="ignore"):
            logvar[:, j] = np.logaddexp(logvar[:, j], np.log((row * row).sum(axis=1)))
    return mu, logvar


def kl_per_latent(mu, logvar):
    """KL(q(z_j|x) || N(0, 1)) of each latent by itself (Z,), the mean over rows, in nats."""
    kl = np.empty((mu.shape[1], len(mu)))
    for j, row in enumerate(kl):  # the kernel sums over latents, so it gets one at a time
        column = slice(j, j + 1)
        reference.gaussian_kl(mu[:, column], logvar[:, column], None, None, row, None)
    return kl.mean(axis=1)


def decode(session, Z):
    """E[x|z], (n, D): probabilities for Bernoulli, means for Gaussian."""
    means = np.empty((len(Z), session.layout.n_features), Z.dtype)

    def work(session, rows):
        batch = session.batch(rows.stop - rows.start)
        session.upload(Z[rows], session.view("z", batch.B))
        session.program.decode(session.task, batch)
        means[rows] = session.download(session.program.likelihood_mean(session.task, batch))

    for_blocks(session, len(Z), work)
    return means


def draws_at_once(n_samples):
    """How many of n_samples draws of a row are decoded together: about DRAWS, in equal parts."""
    return -(-n_samples // -(-n_samples // DRAWS))


def log_likelihood(session, X, binarize, seed, n_samples):
    """Importance-weighted Estimate of ln p(x) for each row, float64; the session's plan has K draws
    at once.

    ln (1/n) sum_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x), z_k = mu + L eps_k: in expectation a
    lower bound of ln p(x) that rises with n = n_samples (Burda et al. 2015, equation 8). The
    weights are summed as logarithms, so no density is ever exponentiated. All rows share the draws
    eps_k, so rows are judged alike and a row's value does not depend on its neighbours, unless it
    is binarised at random on the way.

    The effective draws are (sum w)^2 / sum w^2, ESS (Kong 1992). The error is that of the mean of
    the weights over that mean, as it moves the logarithm (delta method): with an unbiased variance,
    sqrt((n / ESS - 1) / (n - 1)). It is only as good as the draws: where q misses what matters, no
    draw says so, and where few draws count, both are too optimistic.
    """
    plan, dtype = session.layout.plan, session.task.theta.dtype
    log_sums = np.full((2, X.shape[0]), -np.inf)  # of w and of w^2

    def work(session, rows):
        batch = session.put(fetch(X, rows, dtype))
        task, program, K = session.task, session.program, plan.draws
        session.load_x(batch)
        session.binarize(session.view("x", batch.B), binarize, seed, STREAM_PIXELS, 0, rows.start)
        program.encode(task, batch)
        program.repeat_x(task, batch)
        eps, noise = session.view("eps", batch.B), session.array("noise", (K, plan.latent_dim))
        for first in range(0, n_samples, K):
            session.k.random_normal(seed, STREAM_SCORE, 0, first, noise)
            session.tile(noise, eps)
            found = session.download(program.log_weights(task, batch)).reshape(batch.B, K)
            log_w = found[:, : n_samples - first].astype(np.float64)
            for power, log_sum in enumerate(log_sums, 1):
                terms = np.column_stack([log_sum[rows], power * log_w])
                log_sum[rows] = np.logaddexp.reduce(terms, axis=1)

    for_blocks(session, X.shape[0], work)
    log_sum, log_squares = log_sums
    with np.errstate(invalid="ignore"):  # NaN where no weight is above 0
        effective = np.exp(2 * log_sum - log_squares)
    relative = np.maximum(n_samples / effective - 1, 0) / max(n_samples - 1, 1)
    error = np.sqrt(relative) if n_samples > 1 else np.full_like(effective, np.nan)
    return Estimate(log_sum - math.log(n_samples), error, effective)
