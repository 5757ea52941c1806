"""NADE, the neural autoregressive distribution estimator (Larochelle and Murray 2011).

A fully visible belief network: by the chain rule p(x) = product over d of p(x_d | x_<d), and every
factor is computed, so that ln p(x) is exact. For x in {0, 1}^D, one hidden layer for each factor,

    p(x_d = 1 | x_<d) = sigmoid(b_d + V_d h_d),   h_d = sigmoid(c + sum over i < d of x_i W_i),

where all of them share W. So h_(d+1) comes from h_d by one row of W, and a row x costs O(D H).

    loss = mean over rows of nll,   nll = -ln p(x) = sum over d of softplus(l_d) - x_d l_d

for logits l. `nade_backward` in kernels/sequence/reference.py derives the gradient. What the family
pays: drawing x takes D steps, one after the other, and there is no latent code.
"""

import sys
from typing import NamedTuple

from minivae.engine.layout import Region
from minivae.engine.task import column, load_rows, parameter, region, share
from minivae.kernels import STREAM_SAMPLE
from minivae.kernels.tables import reference as k
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, whole, with_defaults

NAME = "nade"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")


class Plan(NamedTuple):
    """The model as whole numbers: D variables, H hidden units."""

    x: Region  # (B, D)
    u: Region  # (B, D) uniform numbers, for draws
    a: Region  # (B, H) the hidden layer of the variable at hand, before its sigmoid
    h: Region  # (B, H) and after it
    logits: Region  # (B, D)
    dlogits: Region  # (B, D)
    nll: Region  # (B, 1)
    n_features: int  # D
    n_hidden: int  # H
    W: int  # where W (D, H) begins among the parameters
    V: int  # V (D, H)
    c: int  # c (H,)
    b: int  # b (D,)


def make_plan(layout, n_features, *, n_hidden):
    """Two blocks: W, V and c, shared out by hidden units, which are columns; and b."""
    D, H, by_columns, glorot = n_features, n_hidden, True, True
    W, V, c = layout.block(
        ("hidden.weight", (D, H), by_columns, glorot),
        ("visible.weight", (D, H), by_columns, glorot),
        ("hidden.bias", (H,)),
    )
    (b,) = layout.block(("visible.bias", (D,)))
    x, u = layout.region("x", D), layout.region("u", D)
    a, h = layout.region("a", H), layout.region("h", H)
    logits, dlogits = layout.region("logits", D), layout.region("dlogits", D)
    return Plan(x, u, a, h, logits, dlogits, layout.regions["nll"], D, H, W, V, c, b)


def weights():
    """The weight of each term in the loss."""
    return {"nll": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x; nothing else is random."""
    load_rows(task, rows, region(task.work, task.plan.x, shard), None, shard, step)


def rows_pass(task, shard):
    """nll, and the gradient by the logits, which is all that the second half has to know."""
    plan, work = task.plan, task.work
    x, logits = region(work, plan.x, shard), forward(task, shard)
    nll, dlogits = column(work, plan.nll, shard), region(work, plan.dlogits, shard)
    k.bernoulli_nll(logits, x, None, 1 / shard.B, nll, dlogits)


def terms_pass(task, shard):
    """nll = -ln p(x) of each row."""
    plan, work = task.plan, task.work
    x, logits = region(work, plan.x, shard), forward(task, shard)
    k.bernoulli_nll(logits, x, None, 1.0, column(work, plan.nll, shard), None)


def forward(task, shard):
    """The logits (rows, D) of all factors p(x_d | x_<d)."""
    plan, work = task.plan, task.work
    x, logits = region(work, plan.x, shard), region(work, plan.logits, shard)
    a, h = region(work, plan.a, shard), region(work, plan.h, shard)
    W, c, V, b = parameters(task, task.theta)
    k.nade_logits(x, W, c, V, b, a, h, logits)
    return logits


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """Of the first block the worker's hidden units, of the second its visible biases."""
    plan, work = task.plan, task.work
    W, c, V, _ = parameters(task, task.theta)
    dW, dc, dV, db = parameters(task, task.gradient)
    dlogits = region(work, plan.dlogits, batch)
    if block == 0:
        first, last = share(plan.n_hidden, worker, task.workers)
        x = region(work, plan.x, batch)
        k.nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV)
    else:
        first, last = share(plan.n_features, worker, task.workers)
        k.sum_rows(dlogits, first, db[0, first:last])


def parameters(task, flat):
    """W (D, H), c (1, H), V (D, H), b (1, D) of a parameter-shaped buffer."""
    plan, D, H = task.plan, task.plan.n_features, task.plan.n_hidden
    W, V = parameter(flat, plan.W, D, H), parameter(flat, plan.V, D, H)
    return W, parameter(flat, plan.c, 1, H), V, parameter(flat, plan.b, 1, D)


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """x from p(x), one variable after the other; row i is a function of (seed, first_row + i)."""
    plan, work = task.plan, task.work
    u, x = region(work, plan.u, shard), region(work, plan.x, shard)
    a, h = region(work, plan.a, shard), region(work, plan.h, shard)
    W, c, V, b = parameters(task, task.theta)
    k.random_uniform(seed, STREAM_SAMPLE, 0, first_row, u)
    k.nade_sample(u, W, c, V, b, a, h, x)


# --- the estimator --------------------------------------------------------------------------------


class NADE(Model):
    """Neural autoregressive distribution estimator of binary data, trained by maximum likelihood.

    p(x) = product over d of p(x_d | x_<d), in the order of the columns; ln p(x) is exact
    (Larochelle and Murray 2011). Minimises the mean over rows of -ln p(x), in nats.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters: hidden.weight W (D, H),
        visible.weight V (D, H), hidden.bias c (H,), visible.bias b (D,)
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over the epoch's
        rows, nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if there are
        held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    score_kind = "exact"
    sampling = "sequential"
    PUBLISHED = {"binarized-mnist": -88.33}  # Larochelle and Murray 2011: 500 hidden units
    SETTINGS = {
        "n_hidden": whole(500, "H, the number of hidden units"),
        "binarize": BINARIZED,
        **with_defaults(COMMON, learning_rate=((14, 2e-3), (1, 2e-4)), batch_size=100),
    }

    def __init__(
        self,
        n_hidden=500,
        *,
        binarize=None,
        optimizer="adam",
        learning_rate=((14, 2e-3), (1, 2e-4)),
        momentum=0.0,
        weight_decay=0.0,
        batch_size=100,
        epochs=None,
        validation_fraction=0.0,
        patience=None,
        dtype="float32",
        device="cpu",
        matmul_precision="float32",
        n_threads=None,
        random_state=None,
        verbose=0,
    ):
        self.n_hidden = n_hidden
        self.binarize = binarize
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.dtype = dtype
        self.device = device
        self.matmul_precision = matmul_precision
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    def plan_settings(self):
        return {"n_hidden": int(self.n_hidden)}

    def score_samples(self, X):
        """ln p(x) of each row of X (n,), exact, in nats."""
        return -self._terms(self._check_to_score(X))["nll"]

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D). Row i is a function of the seed and i.

        random_state None takes the estimator's own: an int there repeats the same draws in every
        call, None draws afresh.
        """
        self._check_loaded()
        return self._draws(n_samples, random_state)
