"""A family that nobody ships, in one file: rows are explained R times over, by a net over noise.

    loss = mean over rows of fit,   fit = mean over r of -ln p(x | h_r),   h_r = scale * eps_r

with eps_r of N(0, I), and p(x|h) Bernoulli with the logits net(h). It is there for what no family
of the package has yet: a dense net over rows that are repeated, whose input has a gradient, with
heads of unequal width; a block that is neither a layer nor shared out by columns; and two regions
that are carried, the sum of all x that were at a row's place and how many these were.
"""

import sys
from typing import NamedTuple

from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import column, load_rows, region
from minivae.kernels import IDENTITY, STREAM_POSTERIOR, STREAM_SAMPLE, TANH
from minivae.kernels.tables import reference as k
from minivae.models.base import Model
from minivae.models.settings import COMMON, whole

NAME = "toy"
TERMS = ("fit",)
SCORE = ("score", "minus the loss")


class Plan(NamedTuple):
    x: Region  # (B, D)
    trail: Region  # (B, D), carried
    count: Region  # (B, 1), carried
    copies: Region  # (B R, D) x, R times
    eps: Region  # (B R, Z)
    h: Region  # (B R, Z)
    dh: Region  # (B R, Z)
    net: Net  # to the logits (B R, D)
    each: Region  # (B R, 1) -ln p(x | h_r)
    fit: Region  # (B, 1)
    scale: int  # where scale (Z,) begins among the parameters
    n_latents: int  # Z


def make_plan(layout, n_features, *, n_latents, n_repeats):
    D, Z, R = n_features, n_latents, n_repeats
    trail, count = layout.carry("trail", D), layout.carry("count", 1)
    x, copies, eps = (
        layout.region("x", D),
        layout.region("copies", D, R),
        layout.region("eps", Z, R),
    )
    h, dh = layout.region("h", Z, R), layout.region("dh", Z, R)
    (scale,) = layout.block(("scale", (1, Z), False, True))
    heads = {"first": 1, "others": D - 1}  # of the D logits
    stack = layout.dense("net", h, dh, [5, 4], heads, TANH, IDENTITY, zero=("others",))
    each = layout.region("each", 1, R)
    return Plan(x, trail, count, copies, eps, h, dh, stack, each, layout.regions["fit"], scale, Z)


def weights():
    return {"fit": 1.0}


def load(task, rows, shard, step):
    plan, work = task.plan, task.work
    x, copies = region(work, plan.x, shard), region(work, plan.copies, shard)
    load_rows(task, rows, x, None, shard, step)
    trail, count = region(work, plan.trail, shard), region(work, plan.count, shard)
    for i in range(x.shape[0]):
        trail[i] += x[i]
        count[i] += 1
    repeat = plan.copies.repeat
    for r in range(copies.shape[0]):
        copies[r] = x[r // repeat]
    eps = region(work, plan.eps, shard)
    k.random_normal(task.recipe.seed, STREAM_POSTERIOR, step, shard.first * repeat, eps)


def forward(task, shard):
    plan, work = task.plan, task.work
    eps, h = region(work, plan.eps, shard), region(work, plan.h, shard)
    scale = task.theta[plan.scale : plan.scale + plan.n_latents]
    h[:] = eps
    for z in range(h.shape[1]):
        h[:, z] *= scale[z]
    return net.forward(task, plan.net, shard)


def likelihood(task, logits, shard, gradient_scale, dlogits):
    plan, work = task.plan, task.work
    each, fit = column(work, plan.each, shard), column(work, plan.fit, shard)
    k.bernoulli_nll(logits, region(work, plan.copies, shard), None, gradient_scale, each, dlogits)
    for i in range(fit.size):
        fit[i] = each[i * plan.each.repeat : (i + 1) * plan.each.repeat].mean()


def rows_pass(task, shard):
    plan = task.plan
    gradient_scale = 1 / (shard.B * plan.each.repeat)
    logits = forward(task, shard)
    likelihood(task, logits, shard, gradient_scale, region(task.work, plan.net.dy, shard))
    net.backward(task, plan.net, shard)


def terms_pass(task, shard):
    likelihood(task, forward(task, shard), shard, 1.0, None)


def block_gradient(task, block, batch, worker):
    plan, work, layer = task.plan, task.work, task.blocks[block].layer
    if layer >= 0:
        net.block_gradient(task, layer, batch, worker)
    elif worker == task.workers - 1:  # whose share of one row it is
        eps, dh = region(work, plan.eps, batch), region(work, plan.dh, batch)
        for z in range(plan.n_latents):
            task.gradient[plan.scale + z] = (eps[:, z] * dh[:, z]).sum()


def draw(task, shard, seed, first_row):
    """Of every row's R draws the first."""
    plan, work = task.plan, task.work
    eps, repeat = region(work, plan.eps, shard), plan.each.repeat
    k.random_normal(seed, STREAM_SAMPLE, 0, first_row * repeat, eps)
    logits, x = forward(task, shard), region(work, plan.x, shard)
    k.bernoulli_mean(logits, logits)
    x[:] = logits[::repeat]
    k.random_binarize(x, seed, STREAM_SAMPLE, 1, first_row)


class Toy(Model):
    """A family for tests.

    Parameters
    ----------
    {settings}
    """

    program = sys.modules[__name__]
    score_kind = "estimate"
    SETTINGS = {"n_latents": whole(2, "Z"), "n_repeats": whole(3, "R"), **COMMON}

    def __init__(self, n_latents=2, *, n_repeats=3, optimizer="adam", learning_rate=1e-3,
                 momentum=0.0, weight_decay=0.0, batch_size=128, epochs=None,
                 validation_fraction=0.0, patience=None, dtype="float32", device="cpu",
                 matmul_precision="float32", n_threads=None, random_state=None,
                 verbose=0):  # fmt: skip
        self.n_latents, self.n_repeats = n_latents, n_repeats
        self.optimizer, self.learning_rate = optimizer, learning_rate
        self.momentum, self.weight_decay = momentum, weight_decay
        self.batch_size, self.epochs, self.dtype, self.device = batch_size, epochs, dtype, device
        self.validation_fraction, self.patience = validation_fraction, patience
        self.matmul_precision, self.n_threads = matmul_precision, n_threads
        self.random_state, self.verbose = random_state, verbose

    def plan_settings(self):
        return {"n_latents": int(self.n_latents), "n_repeats": int(self.n_repeats)}

    def sample(self, n_samples=1, random_state=None):
        self._check_loaded()
        return self._draws(n_samples, self._seed(random_state))
