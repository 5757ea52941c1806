"""What a model with latent variables says of values that are missing.

Of a row x of which x_o is known and x_m is not, p(x_m | x_o) is the mean of p(x_m | z) over
p(z | x_o). That posterior is not q, so draws z_k of q are weighed by
w_k = p(x_o|z_k) p(z_k) / q(z_k|x_o) (self-normalised importance sampling; Mattei and Frellsen
2019):

    E[x_m | x_o]  ~  sum_k w_k E[x_m | z_k] / sum_k w_k,

and a draw of p(x_m | x_o) is one of p(x_m | z_k), for k drawn with probability w_k / sum w. Both
tend to the truth as K grows. Draws come block by block, so memory does not grow with K.
"""

import numpy as np

from minivae.data.rows import fetch
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import STREAM_IMPUTATION, STREAM_SCORE, THRESHOLD
from minivae.kernels.tables import reference


def means(session, X, binarize, seed, n_samples):
    """E[x | what is known of x] of all columns, (n, D) float64, from n_samples draws of z."""
    found = np.empty(X.shape)

    def work(session, rows):
        most, total, sums = np.full(rows.stop - rows.start, -np.inf), 0, 0
        for log_w, _ in _weighed(session, X, rows, binarize, seed, n_samples):
            B, K = log_w.shape
            y = session.download(session.program.likelihood_mean(session.task, session.batch(B)))
            y = y.reshape(B, -1, y.shape[1])[:, :K]
            # Weights are held against the largest so far, so that none overflows.
            before, most = most, np.maximum(most, log_w.max(axis=1))
            w, kept = np.exp(log_w - most[:, None]), np.exp(before - most)
            total = total * kept + w.sum(axis=1)
            sums = sums * kept[:, None] + np.einsum("bk,bkd->bd", w, y)
        found[rows] = sums / total[:, None]

    for_blocks(session, X.shape[0], work)
    return found


def posterior_draws(session, X, binarize, seed, n_samples, n_draws):
    """z (n, n_draws, Z): for each row n_draws draws of p(z | what is known of x), resampled from
    n_samples of q.

    The k with the largest ln w_k + G_k, for G_k independent standard Gumbel, is k with probability
    w_k / sum w: so one pass serves, which keeps the best so far. Row i is a function of (seed, i).
    """
    Z = session.layout.plan.latent_dim
    found = np.empty((X.shape[0], n_draws, Z), session.task.theta.dtype)

    def work(session, rows):
        best = np.full((rows.stop - rows.start, n_draws), -np.inf)
        chosen = found[rows]
        for step, (log_w, z) in enumerate(_weighed(session, X, rows, binarize, seed, n_samples)):
            B, K = log_w.shape
            u = np.empty((B, n_draws * K))
            reference.random_uniform(seed, STREAM_IMPUTATION, step, rows.start, u)
            keys = log_w[:, None] - np.log(-np.log(u.reshape(B, n_draws, K)))
            k = keys.argmax(axis=2)
            key = np.take_along_axis(keys, k[:, :, None], 2)[:, :, 0]
            better = key > best
            best[better] = key[better]
            chosen[better] = np.take_along_axis(z, k[:, :, None], 1)[better]

    for_blocks(session, X.shape[0], work)
    return found


def encoded_draws(session, X, binarize, seed):
    """z (n, Z), a draw of q(z|x) for each row of X; row i is a function of (seed, i)."""
    found = np.empty((X.shape[0], session.layout.plan.latent_dim), session.task.theta.dtype)

    def work(session, rows):
        batch = _encode(session, X, rows, binarize)
        eps = session.view("eps", batch.B)
        session.k.random_normal(seed, STREAM_IMPUTATION, 0, rows.start, eps)
        session.program.draw_latent(session.task, batch)
        found[rows] = session.download(session.view("z", batch.B))

    for_blocks(session, X.shape[0], work)
    return found


def draws(session, z, seed):
    """x (n, D), a draw of p(x|z) for each z (n, Z); row i is a function of (seed, i)."""
    found = np.empty((len(z), session.layout.n_features), z.dtype)

    def work(session, rows):
        batch = session.batch(rows.stop - rows.start)
        session.upload(z[rows], session.view("z", batch.B))
        session.program.draw_x(session.task, batch, seed, rows.start)
        found[rows] = session.download(session.view("x", batch.B))

    for_blocks(session, len(z), work)
    return found


def _weighed(session, X, rows, binarize, seed, n_samples):
    """Yield ln w_k (B, K) and z_k (B, K, Z) of some rows of X, until n_samples draws were made; the
    decoder's output stays in the workspace. All rows share the noise, as in `score_samples`."""
    batch, program = _encode(session, X, rows, binarize), session.program
    plan, task, K = session.layout.plan, session.task, session.layout.plan.draws
    program.repeat_x(task, batch)
    eps, noise = session.view("eps", batch.B), session.array("noise", (K, plan.latent_dim))
    for first in range(0, n_samples, K):
        session.k.random_normal(seed, STREAM_SCORE, 0, first, noise)
        session.tile(noise, eps)
        log_w = session.download(program.log_weights(task, batch)).reshape(batch.B, K)
        z = session.download(session.view("z", batch.B)).reshape(batch.B, K, -1)
        few = min(K, n_samples - first)
        yield log_w[:, :few].astype(np.float64), z[:, :few].copy()


def _encode(session, X, rows, binarize):
    """Some rows of X as the session's batch, encoded; stochastic binarisation is not drawn."""
    batch = session.put(fetch(X, rows, session.task.theta.dtype))
    session.load_x(batch)
    if binarize == THRESHOLD:
        session.k.threshold(session.view("x", batch.B))
    session.program.encode(session.task, batch)
    return batch
