"""The variational autoencoder (Kingma and Welling 2013): encoder, z, decoder, K draws per row.

    loss = mean over rows of nll + beta * kl,   nll = -ln p(x|z),   kl = KL(q(z|x) || N(0, I)),

with z = mu(x) + L(x) * eps: for beta = 1 an unbiased estimate of -ELBO (their equation 7), with nll
the mean over draws. What else can be trained is in objectives.py.
"""

from typing import NamedTuple

from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import (
    column,
    load_rows,
    optional,
    optional_column,
    region,
    share,
)
from minivae.kernels import ACTIVATIONS, IDENTITY, STREAM_POSTERIOR, STREAM_PRIOR
from minivae.kernels.tables import reference as k
from minivae.models.vae import likelihoods, objectives
from minivae.models.vae.objectives import below_diagonal

NAME = "vae"
TERMS = ("nll", "kl")
SCORE = ("elbo", "ELBO")
APART = ("repeat_if_any",)


class Plan(NamedTuple):
    """The model as whole numbers. B * K: K draws of each row, which are neighbours."""

    x: Region  # (B, D)
    observed: Region | None  # (B, D) 1 or 0, where data may be missing
    read: Region | None  # (B, D or 2 D) what the encoder reads, where that is not x
    encoder: Net  # its last layer holds the heads side by side: mu | logvar | lower
    kl: Region  # (B, 1)
    slack: Region | None  # (B, 1) the nats that free_bits gives
    eps: Region  # (B * K, Z)
    z: Region  # (B * K, Z)
    dz: Region  # (B * K, Z)
    decoder: Net  # to what p(x|z) wants of every column, such as logits or means: (B * K, D)
    target: Region  # (B * K, D) x, for every draw
    known: Region | None  # (B * K, D) observed, for every draw
    draw_nll: Region  # (B * K, 1)
    nll: Region  # (B, 1)
    log_w: Region | None  # (B * K, 1) where an importance-weighted bound is trained
    weights: Region | None  # (B * K, 1) w / sum of a row's w
    score: Region | None  # (B * K, Z) where its gradient is doubly reparameterised
    dnoise: Region  # (B * K, variances, or 1) the gradient by these, draw by draw
    latent_dim: int  # Z
    lower: int | None  # entries of L below its diagonal; None where q is diagonal
    draws: int  # K
    free_bits: float | None
    noise: int  # where decoder.noise_logvar is among the parameters
    variances: int  # how many these are; 0 where p(x|z) has none


def make_plan(layout, n_features, *, latent_dim, hidden_layer_sizes, activation, likelihood,
              missing, posterior="diagonal", objective="elbo", n_importance=1,
              free_bits=0.0, columns=None):  # fmt: skip
    """D -> H... -> heads, and Z -> reversed(H)... -> D, with dense layers.

    columns: (groups, units) of a table, for likelihood="mixed".
    """
    D, Z, K, hidden = n_features, latent_dim, n_importance, list(hidden_layer_sizes)
    code = ACTIVATIONS.index(activation)
    slack = layout.term("slack") if free_bits else None
    x = layout.region("x", D)
    observed = layout.region("observed", D) if missing == "mask" else None
    kinds = likelihoods.columns_of(likelihood, D, columns)
    for values in kinds or ():
        layout.constant(values)
    read = None
    if observed or likelihood == "mixed":
        read = layout.region("read", 2 * D if observed else D)
    # With logvar 0 the posterior begins as wide as the prior, whatever the scale of the data; drawn
    # at random, its weights would begin with variances of e^+-scale.
    zero = ("encoder.logvar", "encoder.lower")
    heads, lower = {"encoder.mu": Z, "encoder.logvar": Z}, None
    if posterior == "full" and Z > 1:
        lower = heads["encoder.lower"] = Z * (Z - 1) // 2
    encoder = layout.dense("encoder", read or x, None, hidden, heads, code, IDENTITY, zero)
    eps, z, dz = (layout.region(name, Z, K) for name in ("eps", "z", "dz"))
    decoder = layout.dense("decoder", z, dz, hidden[::-1], {"decoder.out": D}, code, IDENTITY)
    target, known, draw_nll = x, observed, layout.regions["nll"]
    if K > 1:
        target = layout.region("target", D, K)
        known = layout.region("known", D, K) if observed else None
    log_w = weights = score = None
    if K > 1 or objective != "elbo":
        draw_nll = layout.region("draw_nll", 1, K)
    if objective != "elbo":
        log_w, weights = layout.region("log_w", 1, K), layout.region("weights", 1, K)
        score = layout.region("score", Z, K) if objective == "dreg" else None
    noise, R = 0, likelihoods.n_variances(likelihood, kinds and kinds[0])
    dnoise = layout.region("dnoise_logvar", max(R, 1), K)
    if R:
        (noise,) = layout.block(("decoder.noise_logvar", (R,)))
    return Plan(x, observed, read, encoder, layout.regions["kl"], slack, eps, z, dz, decoder,
                target, known, draw_nll, layout.regions["nll"], log_w, weights, score, dnoise, Z,
                lower, K, free_bits or None, noise, R)  # fmt: skip


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
    k.random_normal(task.recipe.seed, STREAM_POSTERIOR, step, shard.first * plan.draws, eps)


def rows_pass(task, shard):
    """Forward and backward, for the mean over the batch of the loss."""
    plan, work, scale = task.plan, task.work, 1 / shard.B
    y = forward(task, shard)
    likelihood_gradient(task, y, shard, objectives.draw_scale(scale, plan.draws, plan.log_w))
    terms(task, shard)
    weights = optional_column(work, plan.weights, shard)
    dy, dnoise = region(work, plan.decoder.dy, shard), region(work, plan.dnoise, shard)
    objectives.weigh(dy, dnoise, weights)
    backward(task, shard, scale)


def terms_pass(task, shard):
    """The terms of the loss of each row."""
    likelihood(task, forward(task, shard), shard)
    terms(task, shard)


def forward(task, shard):
    """The decoder's output y (rows * K, D) of every draw."""
    encode(task, shard)
    repeat_x(task, shard)
    draw_latent(task, shard)
    return decode(task, shard)


def encode(task, shard):
    """From x to the heads mu | logvar | lower of q(z|x), a row each."""
    plan, work = task.plan, task.work
    likelihoods.read_x(region(work, plan.x, shard), optional(work, plan.observed, shard),
                       task.constants, optional(work, plan.read, shard))  # fmt: skip
    return net.forward(task, plan.encoder, shard)


def repeat_x(task, shard):
    """target <- x, and known <- observed, for every draw."""
    plan, work = task.plan, task.work
    if plan.draws > 1:
        k.repeat_rows(region(work, plan.x, shard), region(work, plan.target, shard))
        observed = optional(work, plan.observed, shard)
        repeat_if_any(observed, optional(work, plan.known, shard))


def repeat_if_any(rows, repeated):
    """`repeat_rows`, unless there are none: both None."""
    if rows is not None:
        k.repeat_rows(rows, repeated)


def draw_latent(task, shard):
    """z = mu + L eps."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    heads = region(work, plan.encoder.y, shard)
    lower = below_diagonal(heads, Z, plan.lower)
    eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
    k.sample_gaussian(heads[:, :Z], heads[:, Z : 2 * Z], lower, eps, z)


def decode(task, shard):
    """From z to y, (rows * K, D)."""
    return net.forward(task, task.plan.decoder, shard)


def terms(task, shard):
    """The terms of the loss of each row, after nll of each draw."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    heads = region(work, plan.encoder.y, shard)
    lower = below_diagonal(heads, Z, plan.lower)
    eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
    log_w = optional_column(work, plan.log_w, shard)
    weights = optional_column(work, plan.weights, shard)
    nll, kl = column(work, plan.nll, shard), column(work, plan.kl, shard)
    slack = optional_column(work, plan.slack, shard)
    objectives.terms(heads, Z, lower, eps, z, column(work, plan.draw_nll, shard), log_w, weights,
                     plan.free_bits, nll, kl, slack)  # fmt: skip


def backward(task, shard, scale):
    """After `forward` and dy: the gradient by every layer's h W + b."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    net.backward(task, plan.decoder, shard)
    heads, dheads = region(work, plan.encoder.y, shard), region(work, plan.encoder.dy, shard)
    lower = below_diagonal(heads, Z, plan.lower)
    dlower = below_diagonal(dheads, Z, plan.lower)
    eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
    dz, weights = region(work, plan.dz, shard), optional_column(work, plan.weights, shard)
    score, kl_scale = optional(work, plan.score, shard), scale * task.recipe.weights[1]
    scales = objectives.bound_gradient(dz, z, heads, Z, lower, eps, weights, score, scale,
                                       kl_scale)  # fmt: skip
    k.sample_gaussian_backward(dz, heads[:, :Z], heads[:, Z : 2 * Z], lower, eps, scales[0],
                               scales[1], plan.free_bits, dheads[:, :Z], dheads[:, Z : 2 * Z],
                               dlower)  # fmt: skip
    net.backward(task, plan.encoder, shard)


# --- p(x|z) ---------------------------------------------------------------------------------------


def likelihood_gradient(task, y, shard, scale):
    """nll = -ln p(x|z) of each draw for the decoder's output y, and dy times scale."""
    plan, work = task.plan, task.work
    x, observed = region(work, plan.target, shard), optional(work, plan.known, shard)
    nll, dy = column(work, plan.draw_nll, shard), region(work, plan.decoder.dy, shard)
    likelihoods.nll(y, noise_logvar(task, task.theta), task.constants, x, observed, scale, nll, dy,
                    region(work, plan.dnoise, shard))  # fmt: skip


def latent_gradient(task, shard):
    """nll = -ln p(x|z) of each row and dz = d nll / dz, for the x and z that are there."""
    likelihood_gradient(task, decode(task, shard), shard, 1.0)
    net.backward(task, task.plan.decoder, shard)


def likelihood(task, y, shard):
    """nll = -ln p(x|z) of each draw for the decoder's output y, with no gradient."""
    plan, work = task.plan, task.work
    x, observed = region(work, plan.target, shard), optional(work, plan.known, shard)
    nll = column(work, plan.draw_nll, shard)
    likelihoods.nll(y, noise_logvar(task, task.theta), task.constants, x, observed, 1.0, nll, None,
                    None)  # fmt: skip


def likelihood_mean(task, shard):
    """y <- E[x|z], in place."""
    y = region(task.work, task.plan.decoder.y, shard)
    likelihoods.mean(y, noise_logvar(task, task.theta), task.constants)
    return y


def noise_logvar(task, flat):
    """decoder.noise_logvar (variances,) in a parameter-shaped buffer."""
    return flat[task.plan.noise : task.plan.noise + task.plan.variances]


# --- using the model ------------------------------------------------------------------------------


def log_weights(task, shard):
    """ln [ p(x|z) p(z) / q(z|x) ] of each draw (rows * K,) that the noise eps makes, after `encode`
    and `repeat_x`; it takes the place of nll."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    draw_latent(task, shard)
    likelihood(task, decode(task, shard), shard)
    heads, nll = region(work, plan.encoder.y, shard), column(work, plan.draw_nll, shard)
    eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
    k.log_importance_weights(heads[:, Z : 2 * Z], eps, z, nll, nll)
    return nll


def draw(task, shard, seed, first_row):
    """z from N(0, I), then x from p(x|z); row i is a function of (seed, first_row + i)."""
    z = region(task.work, task.plan.z, shard)
    k.random_normal(seed, STREAM_PRIOR, 0, first_row, z)
    draw_x(task, shard, seed, first_row)


def draw_x(task, shard, seed, first_row):
    """x from p(x|z) for the z that is there."""
    likelihoods.draw(decode(task, shard), noise_logvar(task, task.theta), task.constants,
                     region(task.work, task.plan.x, shard), seed, first_row)  # fmt: skip


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a block's gradient: a dense layer, or decoder.noise_logvar."""
    plan, layer = task.plan, task.blocks[block].layer
    if layer >= 0:
        net.block_gradient(task, layer, batch, worker)
    else:
        first, last = share(plan.variances, worker, task.workers)
        dnoise = region(task.work, plan.dnoise, batch)
        k.sum_rows(dnoise, first, noise_logvar(task, task.gradient)[first:last])
