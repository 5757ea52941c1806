"""Flow, nonlinear independent components by couplings (NICE, RealNVP: Dinh et al. 2014, 2016).

An invertible f maps u to codes z = f(u) of as many columns, independent of each other. By the
change of variables ln p(u) = sum over j of ln p(z_j) + ln |det dz/du|, and u = f^-1(z) is drawn.
The columns of u are two halves, v_0 those with an even and v_1 those with an odd number: each half
has the neighbours of the other one. Coupling l = 0, ..., L - 1 changes one half by a net of the
other one: v_(l+2) = v_l exp(s_l(v_(l+1))) + t_l(v_(l+1)); "additive" leaves s_l = 0. The codes are
the last two halves, put together, times e^s with a learned s for each column.

    loss = mean over rows of nll,   nll = -ln p(u) + D ln levels

From x to u. A density of values that are few grows without bound, once it gathers on them. So each
x, rounded to one of `levels` levels k / (levels - 1), is spread over a cell of its own: u =
(k + noise) / levels, noise uniform on (0, 1) and new at every use. The model's probability of a
row's levels is that of its cell, of volume levels^-D, and by Jensen's inequality

    ln P(k) = ln E[p(u)] - D ln levels >= E[ln p(u)] - D ln levels = -E[nll]

over the noise (Theis, van den Oord and Bethge 2016): the loss is an upper bound of -ln P(k).
Without dequantisation u is x, and nll = -ln p(x) is exact: of a density, which may be below 0.

kernels/couplings/reference.py derives the gradient: `prior_nll` of the last two halves, and
`coupling_backward` from dv_(l+2) to dv_l and to the net, which adds its part to dv_(l+1). What the
family pays: f keeps all D columns, so that no code is smaller than x.
"""

import math
import sys
from dataclasses import replace
from typing import NamedTuple

from minivae.data import checks
from minivae.engine import net
from minivae.engine.layout import Region
from minivae.engine.task import column, load_rows, matrix, region, share
from minivae.evaluation import codes
from minivae.kernels import ACTIVATIONS, IDENTITY, NORMAL, PRIORS, STREAM_POSTERIOR, STREAM_PRIOR
from minivae.kernels.tables import reference as k
from minivae.models import tables
from minivae.models.base import Model
from minivae.models.settings import COMMON, SIZES, choice, whole, with_defaults
from minivae.models.transformer import Transformer

NAME = "flow"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")
HEADS = {"affine": ("log_scale", "shift"), "additive": ("shift",)}


class Plan(NamedTuple):
    """The model as whole numbers; where there is no dequantisation, noise and u are x."""

    x: Region  # (B, D)
    noise: Region  # (B, D)
    u: Region  # (B, D)
    v: int  # where v_0 begins; v_1, ..., v_(L+1) lie behind it
    dv: int  # where dv_0 does, the same way
    dread: int  # where a net's part of an even dv_l does, and behind it that of an odd one
    log_det: Region  # (B, L) of each coupling
    y: Region  # (B, D) the last two halves, put together
    dy: Region
    z: Region  # (B, D)
    dlog_scale: Region  # (B, D) row by row
    nll: Region  # (B, 1)
    log_scale: int  # where s (D,) begins among the parameters
    n_features: int  # D
    n_couplings: int  # L
    levels: int  # 0: x is u
    log_volume: float  # -D ln levels, or 0
    prior: int


def make_plan(layout, n_features, *, n_couplings, hidden_layer_sizes, activation, coupling, prior,
              levels):  # fmt: skip
    """L couplings by dense nets, whose last layers begin as 0: so f begins as the identity."""
    D, L, hidden = n_features, n_couplings, list(hidden_layer_sizes)
    code, widths = ACTIVATIONS.index(activation), (D - D // 2, D // 2)
    x = noise = u = layout.region("x", D)
    if levels:
        noise, u = layout.region("noise", D), layout.region("u", D)
    v, dv, dread = (
        [layout.region(f"{name}.{i}{end}", widths[i % 2]) for i in range(n)]
        for name, end, n in (("half", "", L + 2), ("dhalf", "", L + 2), ("dhalf", "+net", 2))
    )  # a net's part is added at once, so two rooms do for all
    for i in range(L):
        name, h = f"coupling.{i}", widths[i % 2]
        heads = {f"{name}.{head}": h for head in HEADS[coupling]}
        layout.dense(name, v[i + 1], dread[(i + 1) % 2], hidden, heads, code, IDENTITY,
                     tuple(heads))  # fmt: skip
    log_det, z = layout.region("log_det", L), layout.region("z", D)
    y, dy, dlog_scale = (layout.region(name, D) for name in ("y", "dy", "dlog_scale"))
    (log_scale,) = layout.block(("scaling.log_scale", (D,)))
    log_volume = -D * math.log(levels) if levels else 0.0
    return Plan(x, noise, u, v[0].start, dv[0].start, dread[0].start, log_det, y, dy, z, dlog_scale,
                layout.regions["nll"], log_scale, D, L, levels, log_volume,
                PRIORS.index(prior))  # fmt: skip


def half(task, start, i, shard):
    """The shard's rows of half i, of those that lie one behind the other from start on."""
    D = task.plan.n_features
    even, odd = D - D // 2, D // 2
    start += i // 2 * D + i % 2 * even
    return matrix(task.work, shard, start, odd if i % 2 else even, 1)


def last_halves(plan):
    """(even, odd): numbers of the halves that no coupling changes any more."""
    L = plan.n_couplings
    return L + L % 2, L + 1 - L % 2


def net_of(task, i):
    """The net of coupling i."""
    n = task.layers.size // task.plan.n_couplings
    return net.between(task, i * n, (i + 1) * n)


def weights():
    """The weight of each term in the loss."""
    return {"nll": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x, and the noise in its cells."""
    plan, work = task.plan, task.work
    load_rows(task, rows, region(work, plan.x, shard), None, shard, step)
    if plan.levels > 0:
        noise = region(work, plan.noise, shard)
        k.random_uniform(task.recipe.seed, STREAM_POSTERIOR, step, shard.first, noise)


def rows_pass(task, shard):
    """nll, and the gradient by the output of every layer."""
    plan, work, scale = task.plan, task.work, 1 / shard.B
    forward(task, shard)
    likelihood(task, shard, scale, region(work, plan.dy, shard),
               region(work, plan.dlog_scale, shard))  # fmt: skip
    backward(task, shard, scale)


def terms_pass(task, shard):
    """nll of each row, and its codes z."""
    forward(task, shard)
    likelihood(task, shard, 1.0, None, None)


def forward(task, shard):
    """From x to y, the last two halves, with ln |det| of every coupling."""
    plan, work = task.plan, task.work
    u, log_det = region(work, plan.u, shard), region(work, plan.log_det, shard)
    if plan.levels > 0:
        k.dequantize(region(work, plan.x, shard), region(work, plan.noise, shard), plan.levels, u)
    k.split_columns(u, half(task, plan.v, 0, shard), half(task, plan.v, 1, shard))
    for i in range(plan.n_couplings):
        heads = net.forward(task, net_of(task, i), shard)
        before, after = half(task, plan.v, i, shard), half(task, plan.v, i + 2, shard)
        k.coupling(before, heads, after, log_det[:, i : i + 1])
    even, odd = last_halves(plan)
    k.merge_columns(half(task, plan.v, even, shard), half(task, plan.v, odd, shard),
                    region(work, plan.y, shard))  # fmt: skip


def likelihood(task, shard, scale, dy, dlog_scale):
    """z and nll after `forward`; dy and dlog_scale times scale, where they are not None."""
    plan, work = task.plan, task.work
    y, log_det = region(work, plan.y, shard), region(work, plan.log_det, shard)
    z, nll = region(work, plan.z, shard), column(work, plan.nll, shard)
    k.prior_nll(y, log_scale(task, task.theta), log_det, plan.log_volume, plan.prior, scale, z, nll,
                dy, dlog_scale)  # fmt: skip


def backward(task, shard, scale):
    """After dy: the gradient by every layer's h W + b, and by u, so that no gradient is a part."""
    plan, (even, odd) = task.plan, last_halves(task.plan)
    k.split_columns(region(task.work, plan.dy, shard), half(task, plan.dv, even, shard),
                    half(task, plan.dv, odd, shard))  # fmt: skip
    for i in range(plan.n_couplings - 1, -1, -1):
        one, before = net_of(task, i), half(task, plan.v, i, shard)
        dbefore, dafter = half(task, plan.dv, i, shard), half(task, plan.dv, i + 2, shard)
        heads, dheads = region(task.work, one.y, shard), region(task.work, one.dy, shard)
        k.coupling_backward(dafter, before, heads, scale, dbefore, dheads)
        net.backward(task, one, shard)
        k.add(half(task, plan.dread, (i + 1) % 2, shard), half(task, plan.dv, i + 1, shard))


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a block's gradient: a dense layer, or scaling.log_scale."""
    plan, layer = task.plan, task.blocks[block].layer
    if layer >= 0:
        net.block_gradient(task, layer, batch, worker)
    else:
        first, last = share(plan.n_features, worker, task.workers)
        dlog_scale = region(task.work, plan.dlog_scale, batch)
        k.sum_rows(dlog_scale, first, log_scale(task, task.gradient)[first:last])


def log_scale(task, flat):
    """scaling.log_scale (D,) in a parameter-shaped buffer."""
    return flat[task.plan.log_scale : task.plan.log_scale + task.plan.n_features]


# --- from codes to data ---------------------------------------------------------------------------


def decode(task, shard):
    """From z to x, by the inverses of all layers; a coupling's net reads the half that it read."""
    plan, work, (even, odd) = task.plan, task.work, last_halves(task.plan)
    y, u = region(work, plan.y, shard), region(work, plan.u, shard)
    k.scale_inverse(region(work, plan.z, shard), log_scale(task, task.theta), y)
    k.split_columns(y, half(task, plan.v, even, shard), half(task, plan.v, odd, shard))
    for i in range(plan.n_couplings - 1, -1, -1):
        heads = net.forward(task, net_of(task, i), shard)
        before, after = half(task, plan.v, i, shard), half(task, plan.v, i + 2, shard)
        k.coupling_inverse(after, heads, before)
    k.merge_columns(half(task, plan.v, 0, shard), half(task, plan.v, 1, shard), u)
    if plan.levels > 0:
        k.quantize(u, plan.levels, region(work, plan.x, shard))


def draw(task, shard, seed, first_row):
    """z from its prior, then x; row i is a function of (seed, first_row + i)."""
    z = region(task.work, task.plan.z, shard)
    if task.plan.prior == NORMAL:
        k.random_normal(seed, STREAM_PRIOR, 0, first_row, z)
    else:
        k.random_uniform(seed, STREAM_PRIOR, 0, first_row, z)
        k.logistic(z, z)
    decode(task, shard)


# --- the estimator --------------------------------------------------------------------------------


class Flow(Transformer, Model):
    """Flow of couplings, nonlinear independent components, trained by maximum likelihood.

    ln p(u) = ln p(z) + ln |det dz/du| for codes z = f(u) of an invertible f (Dinh, Krueger and
    Bengio 2014; Dinh, Sohl-Dickstein and Bengio 2016). Minimises the mean over rows of nll in nats:
    of X in `dequantize` levels a bound of -ln of their probability; with dequantize=None -ln p(x),
    of a density (minivae/models/flow.py derives both). Codes are not unique: another f may explain
    the data as well (Hyvarinen and Pajunen 1999).

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    score_kind : "exact" with dequantize=None, else "lower bound"
    parameters_ : dict of name to array, views of the live parameters: coupling.i.0.weight, ...,
        coupling.i.log_scale.weight and coupling.i.shift.weight, with their biases, and
        scaling.log_scale (D,)
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over the epoch's
        rows, nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if there are
        held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    is_bernoulli = False
    sampling = "parallel"
    SUITED = {"bits": {"dequantize": 2}}
    likelihood_in_words = "a flow that dequantises"
    instead_of_bernoulli = ", or set dequantize=None for continuous values"
    SETTINGS = {
        "n_couplings": whole(
            4, "L, the number of couplings; each changes every second column", high=256
        ),
        "hidden_layer_sizes": replace(SIZES, help="units of each hidden layer of a net; or none"),
        "activation": choice("relu", ACTIVATIONS, "after each hidden layer"),
        "coupling": choice("affine", HEADS, "'additive' shifts a column, 'affine' also scales it"),
        "prior": choice("logistic", PRIORS, "p(z) of each code"),
        "dequantize": whole(  # float32 has 24 bits: 16 at most of the level, 8 of the noise
            256, "levels of grey that X in [0, 1] is rounded to, such as 256 of 8-bit images, 17 "
            "of the digits or 2 of binary data, and spread over by uniform noise; or none, for X "
            "that is continuous, with any values", low=2, none=True, high=2**16,
        ),
        **with_defaults(COMMON, learning_rate=((14, 2e-3), (6, 2e-4)), batch_size=100),
    }  # fmt: skip

    def __init__(
        self,
        n_couplings=4,
        *,
        hidden_layer_sizes=(400,),
        activation="relu",
        coupling="affine",
        prior="logistic",
        dequantize=256,
        optimizer="adam",
        learning_rate=((14, 2e-3), (6, 2e-4)),
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
        self.n_couplings = n_couplings
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.coupling = coupling
        self.prior = prior
        self.dequantize = dequantize
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
            "n_couplings": int(self.n_couplings),
            "hidden_layer_sizes": tuple(map(int, self.hidden_layer_sizes)),
            "activation": self.activation,
            "coupling": self.coupling,
            "prior": self.prior,
            "levels": int(self.dequantize or 0),
        }

    @property
    def score_kind(self):
        return "exact" if self.dequantize is None else "lower bound"

    @property
    def on_unit_interval(self):
        return self.dequantize is not None

    @property
    def _n_features_out(self):
        return self.layout_.n_features

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Codes z = f(u) of the rows of X, (n, D), for the u in the middle of each x's cell."""
        self._check_loaded()
        X = self._check_X(X)
        return codes.encode(self._session(X.shape[0]), X)

    def inverse_transform(self, Z):
        """x (n, D) for codes Z (n, D): f^-1(Z), or the levels in whose cells that is."""
        self._check_loaded()
        Z = checks.check_codes(Z, self._n_features_out, "feature", self.state_.theta.dtype)
        return tables.as_given(self, codes.decode(self._session(len(Z)), Z), "mean", Z)

    def score_samples(self, X, n_samples=10):
        """ln p(x) of each row of X (n,), in nats; with dequantize=None exact, of a density.

        Else an estimate of ln P(k), k the levels of the row, by n_samples draws of noise: in
        expectation a lower bound, which rises with them from -E[nll] (evaluation/codes.py).
        """
        n_samples = checks.check_count("n_samples", n_samples)
        X = self._check_to_score(X)
        if self.dequantize is None:
            return -self._terms(X)["nll"]
        return codes.log_likelihood(self._session(X.shape[0]), X, self.seed_, n_samples)

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D). Row i is a function of the seed and i.

        random_state None takes the estimator's own: an int there repeats the same draws in every
        call, None draws afresh.
        """
        self._check_loaded()
        return self._draws(n_samples, random_state)
