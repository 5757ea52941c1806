"""WaveNet, dilated causal convolutions over a sequence (van den Oord et al. 2016).

A fully visible belief network: by the chain rule p(x) = product over t of p(x_t | x_<t), t = 0, 1,
..., D - 1 in the order of the columns, and every factor is computed, so that ln p(x) is exact. The
columns are a signal in time, or an image in raster order. Each position t has h_t of R and s_t of S
channels; what lies before the first one is 0.

    (h_t, s_t)  = (x_(t-2) | x_(t-1)) W_0 + b_0                     causal: x_t itself is not read
    y_t         = tanh(f_t) * sigmoid(g_t)                          in layer l, of dilation d:
    (f_t, g_t)  = (h_(t-d) | h_t) W_l + b_l                         a convolution of two taps
    (h_t, s_t) += y_t V_l + c_l                                     residual and skip connection

and two 1x1 layers turn (h, s) into logits: relu, relu, and a linear map. Dilations are 1, 2, 4,
..., in every stack of layers anew, so that the receptive field grows as 2^layers: logits at t see
the x_i with t - F <= i < t, F = 2 + the sum of all dilations. The model is a Bernoulli variable for
each column, or with `levels` > 2 a softmax over the levels k / (levels - 1).

    loss = mean over rows of nll,   nll = -ln p(x) = sum over t of -ln p(x_t | x_<t)

Gradient. (h, s) is one matrix, to which every layer adds: so the gradient by it is handed down from
layer to layer as it is, and each adds what comes through its convolution,

    d(y) = d(h, s) V_l^T,   d(f, g) = `gate_backward` of d(y),
    d(h)_t += the parts of d(f, g) W_l^T at t and t + d of the taps that read h_t

which is `scatter_taps`. A weight's gradient is one product over all rows and positions (net.py).

A draw goes from position to position. `queue_taps` keeps h of the last d positions for each layer
(Le Paine et al. 2016), so that a position costs one pass through its own column of the network, not
one over all before. What the family pays: the D passes come one after the other, and there is no
latent code.
"""

import sys
from typing import NamedTuple

import numpy as np

from minivae.engine import net
from minivae.engine.layout import Layout, Net, Region
from minivae.engine.task import column, load_rows, matrix, region
from minivae.kernels import ACTIVATIONS, IDENTITY, STREAM_SAMPLE
from minivae.kernels.tables import reference as k
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, choice, whole, with_defaults
from minivae.models.taps import image_taps, inverse_taps

NAME = "wavenet"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")
APART = ("forward",)  # compiled once for training, scores and draws
ALL = -1  # positions at once; else the one at hand
MOST_COLUMNS = 2**16  # the taps of each are a table, which no file may make too large


class Plan(NamedTuple):
    """The model as whole numbers: P positions at once, which are all D, or one for draws."""

    x: Region  # (B, D)
    u: Region  # (B, D) uniform numbers; of draws, as the queues
    last: Region  # (B, 1) the queue of x: its last position
    queue: Region  # (B, R * sum of d) the queue of every layer, one behind the other
    taps: Region  # (B * P, 2) what the first convolution reads
    state: Region  # (B * P, R + S) h | s
    dstate: Region
    output: Net
    nll: Region  # (B, 1)
    n_features: int  # D
    n_positions: int  # P
    n_channels: int  # R
    n_layers: int
    n_dilations: int  # of a stack
    levels: int


def make_plan(layout, n_features, *, n_channels, n_skip, max_dilation, n_stacks, activation,
              levels, one_by_one=False):  # fmt: skip
    """A net for each convolution and each 1x1; one_by_one: for draws, of the same parameters."""
    D, R, S = n_features, n_channels, n_skip
    stack, draws = dilations(D, max_dilation), int(one_by_one)
    every, P = stack * n_stacks, 1 if draws else D
    x, u, last, queue = (
        layout.region(name, columns)
        for name, columns in (("x", D), ("u", draws * D), ("last", draws),
                              ("queue", draws * R * sum(every)))
    )  # fmt: skip
    taps = layout.region("taps", 2, P)
    first = layout.dense("first", taps, None, [], {"first.residual": R, "first.skip": S}, IDENTITY,
                         IDENTITY)  # fmt: skip
    dtaps, dgated = layout.region("dtaps", 2 * R, P), layout.region("dgated", R, P)  # of all layers
    for name in (f"layer.{i}" for i in range(len(every))):
        read, gated = layout.region(f"{name}.taps", 2 * R, P), layout.region(f"{name}.gated", R, P)
        heads = {f"{name}.filter": R, f"{name}.gate": R}
        layout.dense(name, read, dtaps, [], heads, IDENTITY, IDENTITY)
        heads = {f"{name}.residual": R, f"{name}.skip": S}
        layout.dense(name, gated, dgated, [], heads, IDENTITY, IDENTITY)
    output = layout.dense("output", first.y, first.dy, [S, S], {"logits": channels(levels)},
                          ACTIVATIONS.index(activation), IDENTITY)  # fmt: skip
    taps_at = [np.full((1, 2), -1)] if draws else taps_of(D, stack)  # a draw begins with nothing
    layout.constant(np.concatenate(taps_at))
    layout.constant(np.concatenate([inverse_taps(pair) for pair in taps_at]))
    return Plan(x, u, last, queue, taps, first.y, first.dy, output, layout.regions["nll"], D, P, R,
                len(every), len(stack), levels)  # fmt: skip


def dilations(D, max_dilation):
    """1, 2, 4, ... up to max_dilation, or as far as there are columns; 1 in any case."""
    most = min(max_dilation or D, max(D - 1, 1))
    return [2**i for i in range(most.bit_length())]


def channels(levels):
    """Logits of a variable: one of a Bernoulli variable, or one for each level."""
    return 1 if levels == 2 else levels


def taps_of(D, stack):
    """Taps (D, 2) of x, which is read at t - 2 and t - 1, and for each dilation d of a stack of h,
    which is read at t - d and t."""
    pairs = [(2, 1)] + [(d, 0) for d in stack]
    return [image_taps(1, D, [(0, -back) for back in pair]) for pair in pairs]


def part(table, plan, i):
    """The taps (P, 2) of x for i = 0, else of dilation 2^(i - 1), or their inverse."""
    return table[i * plan.n_positions : (i + 1) * plan.n_positions]


def net_of(task, i):
    """Layer i of those before the output, as a net."""
    return net.between(task, i, i + 1)


def by_rows(task, place, shard):
    """A region (B * D, C) as (B, D C): the same memory, a row of data in a row."""
    return matrix(task.work, shard, place.start, task.plan.n_features * place.columns, 1)


def weights():
    """The weight of each term in the loss."""
    return {"nll": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x; nothing else is random."""
    load_rows(task, rows, region(task.work, task.plan.x, shard), None, shard, step)


def rows_pass(task, shard):
    """nll, and the gradient by the output of every layer."""
    forward(task, shard, ALL)
    likelihood(task, shard, 1 / shard.B, by_rows(task, task.plan.output.dy, shard))
    backward(task, shard)


def terms_pass(task, shard):
    """nll = -ln p(x) of each row."""
    forward(task, shard, ALL)
    likelihood(task, shard, 1.0, None)


def forward(task, shard, t):
    """The logits of all positions of x, or of position t, for which the first taps are there."""
    plan, work, C = task.plan, task.work, task.plan.n_channels
    if t == ALL:
        x = matrix(work, shard, plan.x.start, 1, plan.n_features)
        k.gather_taps(x, part(task.constants[0], plan, 0), region(work, plan.taps, shard))
    net.forward(task, net_of(task, 0), shard)
    state, begin = region(work, plan.state, shard), 0
    for i in range(plan.n_layers):
        conv, mix = task.layers[1 + 2 * i], task.layers[2 + 2 * i]
        taps, power = net.read(work, conv.h, conv, shard), i % plan.n_dilations
        if t == ALL:
            k.gather_taps(state[:, :C], part(task.constants[0], plan, 1 + power), taps)
        else:
            end = begin + C * 2**power
            k.queue_taps(state[:, :C], region(work, plan.queue, shard)[:, begin:end], t, taps)
            begin = end
        a = net.forward(task, net_of(task, 1 + 2 * i), shard)
        k.gate(a, net.read(work, mix.h, mix, shard))
        k.add(net.forward(task, net_of(task, 2 + 2 * i), shard), state)
    return net.forward(task, plan.output, shard)


def likelihood(task, shard, scale, dlogits):
    """nll after `forward`; dlogits times scale, where it is not None."""
    plan, work = task.plan, task.work
    x, nll = region(work, plan.x, shard), column(work, plan.nll, shard)
    logits = by_rows(task, plan.output.y, shard)
    if plan.levels == 2:
        k.bernoulli_nll(logits, x, None, scale, nll, dlogits)
    else:
        k.levels_nll(logits, x, plan.levels, scale, nll, dlogits)


def backward(task, shard):
    """After `likelihood`: the gradient by every layer's h W + b. The first one's is dstate."""
    plan, work = task.plan, task.work
    net.backward(task, plan.output, shard)
    dstate = region(work, plan.dstate, shard)
    for i in range(plan.n_layers - 1, -1, -1):
        conv, mix = task.layers[1 + 2 * i], task.layers[2 + 2 * i]
        k.copy(dstate, net.written(work, mix.dy, mix, shard))
        net.backward(task, net_of(task, 2 + 2 * i), shard)
        a, da = net.written(work, conv.y, conv, shard), net.written(work, conv.dy, conv, shard)
        k.gate_backward(net.read(work, mix.dh, mix, shard), a, da)
        net.backward(task, net_of(task, 1 + 2 * i), shard)
        inverse = part(task.constants[1], plan, 1 + i % plan.n_dilations)
        dtaps = net.read(work, conv.dh, conv, shard)
        k.scatter_taps(dtaps, inverse, dstate[:, : plan.n_channels])


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a dense layer's gradient; there are no other parameters."""
    net.block_gradient(task, task.blocks[block].layer, batch, worker)


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """x from p(x), one position after the other; row i is a function of (seed, first_row + i)."""
    plan, work = task.plan, task.work
    x, u = region(work, plan.x, shard), region(work, plan.u, shard)
    taps, last = region(work, plan.taps, shard), region(work, plan.last, shard)
    k.random_uniform(seed, STREAM_SAMPLE, 0, first_row, u)
    k.gather_taps(x[:, :1], part(task.constants[0], plan, 0), taps)  # all outside: nothing is drawn
    for t in range(plan.n_features):
        logits = forward(task, shard, t)
        if plan.levels == 2:
            k.bernoulli_draw(logits, u[:, t : t + 1], x[:, t : t + 1])
        else:
            k.levels_draw(logits, u[:, t : t + 1], x[:, t : t + 1])
        k.queue_taps(x[:, t : t + 1], last, t, taps)


# --- the estimator --------------------------------------------------------------------------------


class WaveNet(Model):
    """WaveNet: dilated causal convolutions over the columns, trained by maximum likelihood.

    p(x) = product over t of p(x_t | x_<t), in the order of the columns: a signal in time, or an
    image in raster order; ln p(x) is exact (van den Oord et al. 2016). Minimises the mean over rows
    of -ln p(x), in nats. Data are binary, or a signal in [0, 1] that is rounded to `levels` levels.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    receptive_field_ : int, how many columns before its own one p(x_t | x_<t) depends on
    parameters_ : dict of name to array, views of the live parameters, each with its bias:
        first.residual.weight, first.skip.weight; of layer i layer.i.filter.weight and
        layer.i.gate.weight (2 R, R), layer.i.residual.weight (R, R), layer.i.skip.weight (R, S);
        output.0.weight, output.1.weight and logits.weight
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over its rows,
        nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if rows are held out
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D; seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    score_kind = "exact"
    sampling = "sequential"
    instead_of_bernoulli = ", or set levels for a signal that is scaled to [0, 1]"
    SETTINGS = {
        "n_channels": whole(16, "R, the channels of a layer", high=2**12),
        "n_skip": whole(32, "S, the channels of the skip connections", high=2**12),
        "max_dilation": whole(
            None, "where the dilations 1, 2, 4, ... of a stack end; if not given, where they reach "
            "over all columns", none=True, high=MOST_COLUMNS,
        ),
        "n_stacks": whole(1, "how many times the dilations come again", high=128),
        "activation": choice("relu", ACTIVATIONS, "of the two 1x1 layers before the logits"),
        "levels": whole(
            2, "values of a column: 2 of binary data, or as many as a signal in [0, 1] is rounded "
            "to", low=2, high=256,
        ),
        "binarize": BINARIZED,
        **with_defaults(COMMON, learning_rate=((14, 3e-3), (6, 3e-4)), batch_size=32),
    }  # fmt: skip

    def __init__(
        self,
        n_channels=16,
        *,
        n_skip=32,
        max_dilation=None,
        n_stacks=1,
        activation="relu",
        levels=2,
        binarize=None,
        optimizer="adam",
        learning_rate=((14, 3e-3), (6, 3e-4)),
        momentum=0.0,
        weight_decay=0.0,
        batch_size=32,
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
        self.n_channels = n_channels
        self.n_skip = n_skip
        self.max_dilation = max_dilation
        self.n_stacks = n_stacks
        self.activation = activation
        self.levels = levels
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

    # --- what the base asks for -----------------------------------------------------------------

    def plan_settings(self):
        return {
            "n_channels": int(self.n_channels),
            "n_skip": int(self.n_skip),
            "max_dilation": int(self.max_dilation or 0),
            "n_stacks": int(self.n_stacks),
            "activation": self.activation,
            "levels": int(self.levels),
        }

    def _check_family(self):
        if self.binarize is not None and self.levels > 2:
            raise ValueError(
                f"binarize={self.binarize!r} leaves 2 levels, got levels={self.levels!r}: set one "
                "of them alone"
            )

    def _for_use(self):
        settings = self.layout_.settings | {"one_by_one": True}
        return Layout(self.program, self.layout_.n_features, **settings)

    def _check_width(self, n_features):
        if n_features > MOST_COLUMNS:
            raise ValueError(
                f"n_features={n_features}: a sequence has {MOST_COLUMNS:,} columns at most; cut it "
                "into pieces, one in each row"
            )

    @property
    def is_bernoulli(self):
        return self.levels == 2

    on_unit_interval = True

    @property
    def likelihood_in_words(self):
        return "a Bernoulli likelihood" if self.is_bernoulli else f"levels={self.levels}"

    # --- use ------------------------------------------------------------------------------------

    @property
    def receptive_field_(self):
        """F: p(x_t | x_<t) is a function of the x_i with t - F <= i < t."""
        self._check_loaded()
        every = dilations(self.layout_.n_features, self.layout_.settings["max_dilation"])
        return 2 + sum(every) * self.layout_.settings["n_stacks"]

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
