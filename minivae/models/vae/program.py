"""The variational autoencoder (Kingma and Welling 2013): encoder, z, decoder, one sample per row.

    loss = mean over rows of nll + beta * kl,   nll = -ln p(x|z),   kl = KL(q(z|x) || N(0, I)),

with z = mu(x) + std(x) * eps: for beta = 1 an unbiased estimate of -ELBO (their equation 7).
"""

from typing import NamedTuple

from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import column, load_rows, optional, region
from minivae.kernels import (
    ACTIVATIONS,
    BERNOULLI,
    GAUSSIAN,
    IDENTITY,
    LIKELIHOODS,
    STREAM_POSTERIOR,
    STREAM_PRIOR,
    STREAM_SAMPLE,
)
from minivae.kernels.tables import reference as k

NAME = "vae"
TERMS = ("nll", "kl")
SCORE = ("elbo", "ELBO")


class Plan(NamedTuple):
    """The model as whole numbers."""

    x: Region  # (B, D)
    observed: Region | None  # (B, D) 1 or 0, where data may be missing
    eps: Region  # (B, Z)
    encoder: Net  # its last layer holds both heads side by side, mu | logvar: (B, 2 Z)
    kl: Region  # (B, 1)
    z: Region  # (B, Z)
    dz: Region  # (B, Z)
    decoder: Net  # to logits (Bernoulli) or mean (Gaussian): (B, D)
    nll: Region  # (B, 1)
    dnoise: Region  # (B, 1) the gradient by decoder.noise_logvar, row by row (Gaussian)
    latent_dim: int  # Z
    likelihood: int
    noise: int  # where decoder.noise_logvar is among the parameters; -1 if there is none


def make_plan(layout, n_features, *, latent_dim, hidden_layer_sizes, activation, likelihood,
              missing):  # fmt: skip
    """D -> H... -> 2 Z, and Z -> reversed(H)... -> D, with dense layers."""
    D, Z, hidden = n_features, latent_dim, list(hidden_layer_sizes)
    code, kind = ACTIVATIONS.index(activation), LIKELIHOODS.index(likelihood)
    x = layout.region("x", D)
    observed = layout.region("observed", D) if missing == "mask" else None
    eps = layout.region("eps", Z)
    heads = {"encoder.mu": Z, "encoder.logvar": Z}
    # With logvar 0 the posterior begins as wide as the prior, whatever the scale of the data; drawn
    # at random, its weights would begin with variances of e^+-scale.
    zero = ("encoder.logvar",)
    encoder = layout.dense("encoder", x, None, hidden, heads, code, IDENTITY, zero)
    z, dz = layout.region("z", Z), layout.region("dz", Z)
    decoder = layout.dense("decoder", z, dz, hidden[::-1], {"decoder.out": D}, code, IDENTITY)
    dnoise, noise = layout.region("dnoise_logvar", 1), -1
    if kind == GAUSSIAN:
        (noise,) = layout.block(("decoder.noise_logvar", (1,)))
    return Plan(x, observed, eps, encoder, layout.regions["kl"], z, dz, decoder,
                layout.regions["nll"], dnoise, Z, kind, noise)  # fmt: skip


def weights(beta=1.0):
    """The weight of each term in the loss."""
    return {"nll": 1.0, "kl": beta}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x, what of it was observed, and the noise eps."""
    plan, work = task.plan, task.work
    x, observed = region(work, plan.x, shard), optional(work, plan.observed, shard)
    load_rows(task, rows, x, observed, shard, step)
    eps = region(work, plan.eps, shard)
    k.random_normal(task.recipe.seed, STREAM_POSTERIOR, step, shard.first, eps)


def rows_pass(task, shard):
    """Forward and backward, for the mean over the batch of nll + beta * kl."""
    scale = 1 / shard.B
    y = forward(task, shard)
    likelihood_gradient(task, y, shard, scale)
    backward(task, shard, scale * task.weights[1])


def terms_pass(task, shard):
    """nll and kl of each row."""
    likelihood(task, forward(task, shard), shard)


def forward(task, shard):
    """kl, and the decoder's output y: logits (Bernoulli) or mean (Gaussian), (rows, D)."""
    encode(task, shard)
    draw_latent(task, shard)
    return decode(task, shard)


def encode(task, shard):
    """From x to the heads mu | logvar of q(z|x), (rows, 2 Z)."""
    return net.forward(task, task.plan.encoder, shard)


def draw_latent(task, shard):
    """z = mu + std * eps, and kl."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    heads = region(work, plan.encoder.y, shard)
    eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
    k.sample_gaussian(heads[:, :Z], heads[:, Z:], eps, z, column(work, plan.kl, shard))


def decode(task, shard):
    """From z to y, (rows, D)."""
    return net.forward(task, task.plan.decoder, shard)


def backward(task, shard, kl_scale):
    """After `forward` and dy: the gradient by every layer's h W + b."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    net.backward(task, plan.decoder, shard)
    heads, dheads = region(work, plan.encoder.y, shard), region(work, plan.encoder.dy, shard)
    eps, dz = region(work, plan.eps, shard), region(work, plan.dz, shard)
    k.sample_gaussian_backward(dz, heads[:, :Z], heads[:, Z:], eps, kl_scale,
                               dheads[:, :Z], dheads[:, Z:])  # fmt: skip
    net.backward(task, plan.encoder, shard)


# --- p(x|z) ---------------------------------------------------------------------------------------


def likelihood_gradient(task, y, shard, scale):
    """nll = -ln p(x|z) of each row for the decoder's output y, and dy times scale."""
    plan, work = task.plan, task.work
    x, observed = region(work, plan.x, shard), optional(work, plan.observed, shard)
    nll, dy = column(work, plan.nll, shard), region(work, plan.decoder.dy, shard)
    if plan.likelihood == BERNOULLI:
        k.bernoulli_nll(y, x, observed, scale, nll, dy)
    else:
        assert plan.likelihood == GAUSSIAN
        dnoise = column(work, plan.dnoise, shard)
        k.gaussian_nll(y, noise_logvar(task, task.theta), x, observed, scale, nll, dy, dnoise)


def latent_gradient(task, shard):
    """nll = -ln p(x|z) of each row and dz = d nll / dz, for the x and z that are there."""
    likelihood_gradient(task, decode(task, shard), shard, 1.0)
    net.backward(task, task.plan.decoder, shard)


def likelihood(task, y, shard):
    """nll = -ln p(x|z) of each row for the decoder's output y, with no gradient."""
    plan, work = task.plan, task.work
    x, observed = region(work, plan.x, shard), optional(work, plan.observed, shard)
    nll = column(work, plan.nll, shard)
    if plan.likelihood == BERNOULLI:
        k.bernoulli_nll(y, x, observed, 1.0, nll, None)
    else:
        k.gaussian_nll(y, noise_logvar(task, task.theta), x, observed, 1.0, nll, None, None)


def likelihood_mean(task, shard):
    """y <- E[x|z], in place."""
    y = region(task.work, task.plan.decoder.y, shard)
    if task.plan.likelihood == BERNOULLI:
        k.bernoulli_mean(y, y)
    return y


def noise_logvar(task, flat):
    """decoder.noise_logvar (1,) in a parameter-shaped buffer."""
    return flat[task.plan.noise : task.plan.noise + 1]


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """z from N(0, I), then x from p(x|z); row i is a function of (seed, first_row + i)."""
    plan, work = task.plan, task.work
    k.random_normal(seed, STREAM_PRIOR, 0, first_row, region(work, plan.z, shard))
    decode(task, shard)
    mean, x = likelihood_mean(task, shard), region(work, plan.x, shard)
    if plan.likelihood == BERNOULLI:
        k.copy(mean, x)
        k.random_binarize(x, seed, STREAM_SAMPLE, 0, first_row)
    else:
        k.random_normal(seed, STREAM_SAMPLE, 0, first_row, x)
        k.gaussian_draw(mean, noise_logvar(task, task.theta), x, x)


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a block's gradient: a dense layer, or decoder.noise_logvar."""
    plan, layer = task.plan, task.blocks[block].layer
    if layer >= 0:
        net.block_gradient(task, layer, batch, worker)
    elif worker == task.workers - 1:  # whose share of one number it is
        dnoise = region(task.work, plan.dnoise, batch)
        k.sum_rows(dnoise, batch.first, noise_logvar(task, task.gradient))
