"""What a trained model says about data: codes, reconstructions, ELBO, log-likelihood.

Everything is done in blocks of rows, so memory does not grow with the data, and every value
belongs to one row, so it does not depend on how rows were grouped; with device="reference" up to
the rounding of NumPy's BLAS.
"""

import numpy as np

from minivae.gradcheck import check_gradient
from minivae.kernels import (
    BERNOULLI,
    LOGVAR_BOUND,
    SIGMOID,
    STREAM_EVALUATION,
    STREAM_PIXELS,
    STREAM_PRIOR,
    STREAM_SAMPLE,
    STREAM_SCORE,
    THRESHOLD,
    reference,
)
from minivae.objective import Shard
from minivae.parameters import make_workspace, named_views
from minivae.rows import BLOCK, blocks, fetch


def whole(rows):
    """The batch that a block of rows is."""
    return Shard(rows.stop - rows.start, 0, rows.stop - rows.start)


def encode(machine, plan, theta, X, binarize):
    """mu (n, Z) and logvar (n, Z) of q(z|x); stochastic binarisation is not drawn here."""
    work = make_workspace(plan, min(BLOCK, X.shape[0]), theta.dtype)
    heads = np.empty((X.shape[0], 2 * plan.latent_dim), theta.dtype)
    for rows in blocks(X.shape[0]):
        batch = whole(rows)
        x = machine.source(plan, 0, work.outputs, batch)
        x[:] = fetch(X, rows, theta.dtype)
        if binarize == THRESHOLD:
            reference.threshold(x)
        heads[rows] = machine.encode(plan, theta, work.outputs, batch)
    return heads[:, : plan.latent_dim], heads[:, plan.latent_dim :]


def decode(machine, plan, theta, Z):
    """Mean of p(x|z), (n, D): probabilities for Bernoulli, means for Gaussian."""
    work = make_workspace(plan, min(BLOCK, len(Z)), theta.dtype)
    means = np.empty((len(Z), int(plan.fan_out[-1])), theta.dtype)
    for rows in blocks(len(Z)):
        batch = whole(rows)
        machine.latent(plan, work.outputs, batch)[:] = Z[rows]
        means[rows] = machine.decode(plan, theta, work.outputs, batch)
    if plan.likelihood == BERNOULLI:
        zero = np.zeros(means.shape[1], theta.dtype)
        reference.bias_activation(means, zero, SIGMOID)
    return means


def sample(machine, plan, theta, n_samples, seed):
    """Draws of x (n_samples, D): z from N(0, I), then x from p(x|z)."""
    z = np.empty((n_samples, plan.latent_dim), theta.dtype)
    reference.random_normal(seed, STREAM_PRIOR, 0, 0, z)
    x = decode(machine, plan, theta, z)
    if plan.likelihood == BERNOULLI:
        reference.random_binarize(x, seed, STREAM_SAMPLE, 0, 0)
        return x
    noise = np.empty_like(x)
    reference.random_normal(seed, STREAM_SAMPLE, 0, 0, noise)
    noise_logvar = np.clip(theta[plan.noise], -LOGVAR_BOUND, LOGVAR_BOUND)
    return x + np.exp(noise_logvar / 2) * noise


def elbo(machine, plan, theta, X, binarize, seed, n_samples):
    """ELBO of each row (n,), float64, in nats: the mean over n_samples draws of -nll - kl.

    Unbiased for E_q[ln p(x|z)] - KL(q(z|x) || p(z)) <= ln p(x). Draw s of row i is a function of
    (seed, s, i); where the data are binarised at random, that is drawn afresh with it.
    """
    work = make_workspace(plan, min(BLOCK, X.shape[0]), theta.dtype)
    total = np.zeros(X.shape[0])
    for rows in blocks(X.shape[0]):
        batch = whole(rows)
        B = batch.B
        x, eps = machine.source(plan, 0, work.outputs, batch), work.eps[:B]
        values = fetch(X, rows, theta.dtype)
        for draw in range(n_samples):
            x[:] = values
            machine.binarize(x, binarize, seed, STREAM_PIXELS, draw, rows.start)
            machine.k.random_normal(seed, STREAM_EVALUATION, draw, rows.start, eps)
            machine.forward(plan, theta, None, 1.0, work, batch)
            total[rows] -= work.nll[:B].astype(np.float64) + work.kl[:B]
    return total / n_samples


def log_likelihood(machine, plan, theta, X, binarize, seed, n_samples):
    """Importance-weighted estimate of ln p(x) for each row (n,), float64, in nats.

    ln (1/K) sum_k w_k with w_k = p(x|z_k) p(z_k) / q(z_k|x), z_k = mu + std eps_k: in expectation
    a lower bound of ln p(x) that rises with K = n_samples (Burda et al. 2015, equation 8). As
    ln p(z) - ln q(z|x) = sum (eps^2 + logvar - z^2) / 2, no density is ever exponentiated; the sum
    is kept as maximum and remainder. All rows share the draws eps_k, so rows are judged alike and
    a row's value does not depend on its neighbours, unless it is binarised at random on the way.
    """
    work = make_workspace(plan, min(BLOCK, X.shape[0]), theta.dtype)
    noise = np.empty((1, plan.latent_dim), theta.dtype)
    estimate = np.empty(X.shape[0])
    for rows in blocks(X.shape[0]):
        batch = whole(rows)
        B = batch.B
        x = machine.source(plan, 0, work.outputs, batch)
        eps, nll, kl = work.eps[:B], work.nll[:B], work.kl[:B]
        x[:] = fetch(X, rows, theta.dtype)
        machine.binarize(x, binarize, seed, STREAM_PIXELS, 0, rows.start)
        heads = machine.encode(plan, theta, work.outputs, batch)
        mu, logvar = heads[:, : plan.latent_dim], heads[:, plan.latent_dim :]
        held = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
        z = machine.latent(plan, work.outputs, batch)
        largest, remainder = np.full(B, -np.inf), np.zeros(B)
        for draw in range(n_samples):
            machine.k.random_normal(seed, STREAM_SCORE, draw, 0, noise)
            eps[:] = noise
            machine.k.sample_gaussian(mu, logvar, eps, z, kl)
            y = machine.decode(plan, theta, work.outputs, batch)
            machine.likelihood(plan, theta, y, x, None, 1.0, nll, y, work.dnoise[:B])
            log_w = (eps * eps + held - z * z).sum(axis=1, dtype=np.float64) / 2 - nll
            new_largest = np.maximum(largest, log_w)
            shift = np.where(np.isfinite(new_largest), new_largest, 0.0)
            remainder *= np.exp(largest - shift)
            remainder += np.exp(log_w - shift)
            largest = new_largest
        estimate[rows] = largest + np.log(remainder / n_samples)
    return estimate


def losses_and_gradient(machine, plan, theta, X, eps, beta):
    """nll + beta * kl of each row (n,), and the gradient (P,) of its mean, for given noise eps."""
    work = make_workspace(plan, len(X), theta.dtype)
    gradient = np.zeros_like(theta)
    batch = Shard(len(X), 0, len(X))
    machine.source(plan, 0, work.outputs, batch)[:] = X
    work.eps[:] = eps
    machine.loss_and_gradient(plan, theta, None, 1 / len(X), beta, work, batch, gradient)
    return work.nll + theta.dtype.type(beta) * work.kl, gradient


def check_gradients(machine, plan, theta, X, eps, beta, **options):
    """Report of `check_gradient` on the mean loss over X (n, D) by every parameter, in float64."""
    theta, X, eps = (array.astype(np.float64) for array in (theta, X, eps))
    views = named_views(plan, theta)

    def losses_and_gradients(values):
        for view, value in zip(views.values(), values, strict=True):
            view[...] = value
        losses, gradient = losses_and_gradient(machine, plan, theta, X, eps, beta)
        return losses, list(named_views(plan, gradient).values())

    def forward(*values):
        return losses_and_gradients(values)[0]

    def backward(*values_and_dlosses):
        return losses_and_gradients(values_and_dlosses[:-1])[1]

    start = [view.copy() for view in views.values()]
    mean = np.full(len(X), 1 / len(X))
    return check_gradient(forward, backward, start, names=list(views), dout=[mean], **options)
