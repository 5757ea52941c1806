"""Flow, nonlinear independent components by couplings (NICE, RealNVP: Dinh et al. 2014, 2016).

An invertible f maps u to codes z = f(u) of as many columns, which are independent. By the change of
variables the density of u is exact,

    ln p(u) = sum over j of ln p(z_j) + ln |det dz/du|,

and x is drawn by u = f^-1(z). The columns of u are two halves, v_0 those with an even and v_1 those
with an odd number: neighbouring pixels of an image, so that each half says much of the other one.
Coupling l changes one half by a dense net of the other one,

    v_(l+2) = v_l * exp(s_l(v_(l+1))) + t_l(v_(l+1)),

in turn, for l = 0, ..., L - 1; "additive" leaves s_l = 0. The codes are the last two halves, put
together, times e^s with a learned s for each column.

    loss = mean over rows of nll,   nll = -ln p(u) + D ln levels

From x to u. A density of values that are few grows without bound, once it gathers on them. So each
x, rounded to one of `levels` levels k / (levels - 1), is spread over a cell of its own:
u = (k + noise) / levels, noise uniform on (0, 1) and new at every use. The model's probability of
the levels of a row is that of its cell, whose volume is levels^-D, and by Jensen's inequality

    ln P(k) = ln integral over the cell of p(u) du = ln E[p(u)] - D ln levels
           >= E[ln p(u)] - D ln levels = -E[nll]                    (Theis et al. 2016, equation 2),

E over the noise: the loss is an upper bound of -ln P(k). Without dequantisation u is x, its volume
is not counted, and nll = -ln p(x) is exact: of a density, which may be below 0.

The gradient. `prior_nll` in kernels/couplings/reference.py gives that by the last two halves, and
`coupling_backward` goes one coupling down: from dv_(l+2) to dv_l and to the gradient by the net's
output. v_(l+1) is read by the net of coupling l and changed by coupling l + 1, so its gradient is
the sum of two. What the family pays: f keeps all D columns, so that no code is smaller than x.
"""

import math
import sys
from typing import NamedTuple

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from minivae.data import checks
from minivae.data.rows import fetch
from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import column, load_rows, region, share
from minivae.evaluation.blocks import for_blocks
from minivae.kernels import (
    ACTIVATIONS,
    IDENTITY,
    NORMAL,
    PRIORS,
    STREAM_POSTERIOR,
    STREAM_PRIOR,
    STREAM_SCORE,
)
from minivae.kernels.tables import reference as k
from minivae.models import tables
from minivae.models.base import Model
from minivae.models.settings import COMMON, SIZES, choice, whole, with_defaults

NAME = "flow"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")
COUPLINGS = ("affine", "additive")
MOST_LEVELS = 2**16  # float32 has 24 bits: 16 of the level, 8 of the noise


class Coupling(NamedTuple):
    """One of the couplings: y = x * exp(s) + t, where s and t are the net's of the other half."""

    net: Net
    x: Region  # (B, h) v_l
    dx: Region
    y: Region  # (B, h) v_(l+2)
    dy: Region
    dother: Region  # (B, D - h) the gradient by v_(l+1), all of it
    dread: Region  # (B, D - h) the part of it that comes from the net


class Plan(NamedTuple):
    """The model as whole numbers; where there is no dequantisation, noise and u are x."""

    x: Region  # (B, D)
    noise: Region  # (B, D)
    u: Region  # (B, D)
    even: Region  # (B, D - D // 2) v_0
    odd: Region  # (B, D // 2) v_1
    couplings: tuple  # of L Couplings
    last_even: Region  # what became of the halves
    last_odd: Region
    dlast_even: Region
    dlast_odd: Region
    log_det: Region  # (B, L) of each coupling
    y: Region  # (B, D) the last halves, put together
    dy: Region
    z: Region  # (B, D)
    dlog_scale: Region  # (B, D) row by row
    nll: Region  # (B, 1)
    log_scale: int  # where s (D,) begins among the parameters
    n_features: int  # D
    levels: int  # 0: x is u
    log_volume: float  # -D ln levels, or 0
    prior: int


def make_plan(layout, n_features, *, n_couplings, hidden_layer_sizes, activation, coupling, prior,
              levels):  # fmt: skip
    """L couplings by dense nets, whose last layers begin as 0: so f begins as the identity."""
    check_width(n_features)
    D, L, hidden = n_features, n_couplings, list(hidden_layer_sizes)
    code, widths = ACTIVATIONS.index(activation), (D - D // 2, D // 2)
    x = noise = u = layout.region("x", D)
    if levels:
        noise, u = layout.region("noise", D), layout.region("u", D)
    v = [layout.region(f"half.{i}", widths[i % 2]) for i in range(L + 2)]
    dv = [layout.region(f"dhalf.{i}", widths[i % 2]) for i in range(L + 2)]
    couplings = []
    for i in range(L):
        h, name = widths[i % 2], f"coupling.{i}"
        heads = {f"{name}.log_scale": h} if coupling == "affine" else {}
        heads[f"{name}.shift"] = h
        dread = layout.region(f"dhalf.{i + 1} by {name}", widths[(i + 1) % 2])
        dense = layout.dense(name, v[i + 1], dread, hidden, heads, code, IDENTITY, tuple(heads))
        couplings.append(Coupling(dense, v[i], dv[i], v[i + 2], dv[i + 2], dv[i + 1], dread))
    even, odd = L + L % 2, L + 1 - L % 2  # v_even has changed as often as v_odd, or once more
    log_det, z = layout.region("log_det", L), layout.region("z", D)
    y, dy, dlog_scale = (layout.region(name, D) for name in ("y", "dy", "dlog_scale"))
    (log_scale,) = layout.block(("scaling.log_scale", (D,)))
    log_volume = -D * math.log(levels) if levels else 0.0
    return Plan(x, noise, u, v[0], v[1], tuple(couplings), v[even], v[odd], dv[even], dv[odd],
                log_det, y, dy, z, dlog_scale, layout.regions["nll"], log_scale, D, levels,
                log_volume, PRIORS.index(prior))  # fmt: skip


def check_width(n_features):
    """Raise where there are no two halves."""
    if n_features < 2:
        raise ValueError(
            f"a flow needs two columns or more, one to change by the other, and X has "
            f"n_features={n_features}"
        )


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
    y, dy = region(work, plan.y, shard), region(work, plan.dy, shard)
    k.prior_nll(y, log_scale(task, task.theta), region(work, plan.log_det, shard), plan.log_volume,
                plan.prior, scale, region(work, plan.z, shard), column(work, plan.nll, shard), dy,
                region(work, plan.dlog_scale, shard))  # fmt: skip
    backward(task, shard, scale)


def terms_pass(task, shard):
    """nll of each row, and its codes z."""
    plan, work = task.plan, task.work
    forward(task, shard)
    k.prior_nll(region(work, plan.y, shard), log_scale(task, task.theta),
                region(work, plan.log_det, shard), plan.log_volume, plan.prior, 1.0,
                region(work, plan.z, shard), column(work, plan.nll, shard), None,
                None)  # fmt: skip


def forward(task, shard):
    """From x to y, the last two halves, with ln |det| of every coupling."""
    plan, work = task.plan, task.work
    u, log_det = region(work, plan.u, shard), region(work, plan.log_det, shard)
    if plan.levels > 0:
        k.dequantize(region(work, plan.x, shard), region(work, plan.noise, shard), plan.levels, u)
    k.split_columns(u, region(work, plan.even, shard), region(work, plan.odd, shard))
    for i in range(len(plan.couplings)):
        one = plan.couplings[i]
        heads = net.forward(task, one.net, shard)
        k.coupling(region(work, one.x, shard), heads, region(work, one.y, shard),
                   log_det[:, i : i + 1])  # fmt: skip
    k.merge_columns(region(work, plan.last_even, shard), region(work, plan.last_odd, shard),
                    region(work, plan.y, shard))  # fmt: skip


def backward(task, shard, scale):
    """After dy: the gradient by every layer's h W + b, and by both halves of u, which costs one
    product more than is needed and leaves no gradient that is only a part."""
    plan, work = task.plan, task.work
    k.split_columns(region(work, plan.dy, shard), region(work, plan.dlast_even, shard),
                    region(work, plan.dlast_odd, shard))  # fmt: skip
    for i in range(len(plan.couplings) - 1, -1, -1):
        one = plan.couplings[i]
        k.coupling_backward(region(work, one.dy, shard), region(work, one.x, shard),
                            region(work, one.net.y, shard), scale, region(work, one.dx, shard),
                            region(work, one.net.dy, shard))  # fmt: skip
        net.backward(task, one.net, shard)
        k.add(region(work, one.dread, shard), region(work, one.dother, shard))


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
    plan, work = task.plan, task.work
    y, u = region(work, plan.y, shard), region(work, plan.u, shard)
    k.scale_inverse(region(work, plan.z, shard), log_scale(task, task.theta), y)
    k.split_columns(y, region(work, plan.last_even, shard), region(work, plan.last_odd, shard))
    for i in range(len(plan.couplings) - 1, -1, -1):
        one = plan.couplings[i]
        heads = net.forward(task, one.net, shard)
        k.coupling_inverse(region(work, one.y, shard), heads, region(work, one.x, shard))
    k.merge_columns(region(work, plan.even, shard), region(work, plan.odd, shard), u)
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


class Flow(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Model):
    """Flow of couplings, nonlinear independent components, trained by maximum likelihood.

    ln p(u) = ln p(z) + ln |det dz/du| for codes z = f(u) of an invertible f (Dinh, Krueger and
    Bengio 2014; Dinh, Sohl-Dickstein and Bengio 2016). Minimises the mean over rows of nll in nats:
    of X in `dequantize` levels a bound of -ln of their probability, so that nll / (D ln 2) are bits
    per dimension; with dequantize=None -ln p(x), a density. Both are derived in
    minivae/models/flow.py. Codes that explain data as well by another f are as good: without more
    knowledge, nonlinear independent components are not unique (Hyvarinen and Pajunen 1999).

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    score_kind : "exact" with dequantize=None, else "lower bound"
    parameters_ : dict of name to array, views of the live parameters: of coupling i the layers
        coupling.i.0, ..., and the heads coupling.i.log_scale (if affine) and coupling.i.shift, each
        with weight and bias; scaling.log_scale (D,)
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over the epoch's
        rows, nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if there are
        held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    is_bernoulli = False
    instead_of_bernoulli = ", or set dequantize=None for continuous values"
    SETTINGS = {
        "n_couplings": whole(4, "L, the number of couplings; each changes every second column"),
        "hidden_layer_sizes": SIZES,
        "activation": choice("relu", ACTIVATIONS, "after each hidden layer"),
        "coupling": choice(
            "affine", COUPLINGS, "what it does to a column: 'additive' shifts it, 'affine' also "
            "scales it",
        ),
        "prior": choice("logistic", PRIORS, "p(z) of each code"),
        "dequantize": whole(
            256, "levels of grey that X in [0, 1] is rounded to, such as 256 of 8-bit images, 17 of "
            "the digits or 2 of binary data, and spread over with uniform noise; None: X is "
            "continuous, with any values", low=2, none=True,
        ),
        **with_defaults(COMMON, batch_size=100),
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
        learning_rate=1e-3,
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

    def new_state(self, n_features, seed=None):
        check_width(n_features)
        return super().new_state(n_features, seed)

    def _check_family(self):
        if self.dequantize is not None and self.dequantize > MOST_LEVELS:
            raise ValueError(
                f"dequantize must be at most {MOST_LEVELS} levels, which are 16 bits, got "
                f"{self.dequantize!r}; None is for continuous values"
            )

    @property
    def score_kind(self):
        return "exact" if self.dequantize is None else "lower bound"

    @property
    def on_unit_interval(self):
        return self.dequantize is not None

    @property
    def likelihood_in_words(self):
        return f"dequantize={self.dequantize!r}"

    @property
    def _n_features_out(self):
        return self.layout_.n_features

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def held_out_score(self, X):
        """(the score of each row of X (n,), in words how)."""
        exact = self.dequantize is None
        return self.score_samples(X, n_samples=10), "exact" if exact else "10 draws for each"

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """Codes z = f(u) of the rows of X, (n, D), for the u in the middle of each x's cell."""
        self._check_loaded()
        X = self._check_X(X)
        codes = np.empty(X.shape, self.state_.theta.dtype)

        def work(session, rows):
            batch = self._put(session, X, rows)
            if self.dequantize is not None:
                middle = np.full((batch.B, X.shape[1]), 0.5, codes.dtype)
                session.upload(middle, session.view("noise", batch.B))
            session.program.terms_pass(session.task, batch)
            codes[rows] = session.download(session.view("z", batch.B))

        for_blocks(self._session(X.shape[0]), X.shape[0], work)
        return codes

    def inverse_transform(self, Z):
        """x for codes Z (n, D): f^-1(Z), rounded to the level in whose cell it lies, if any. So it
        is X again of `transform(X)`, up to rounding."""
        self._check_loaded()
        Z = checks.as_array(Z, "Z", dtype=self.state_.theta.dtype, order="C")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z has {Z.shape[1]} columns, expected one per feature: {self._n_features_out}"
            )
        X = np.empty_like(Z)

        def work(session, rows):
            batch = session.batch(rows.stop - rows.start)
            session.upload(Z[rows], session.view("z", batch.B))
            session.program.decode(session.task, batch)
            X[rows] = session.download(session.view("x", batch.B))

        for_blocks(self._session(len(Z)), len(Z), work)
        return tables.as_given(self, X, "mean", Z)

    def score_samples(self, X, n_samples=100):
        """ln p(x) of each row of X (n,), in nats; with dequantize=None exact, of a density.

        Else an estimate of ln P(k), the logarithm of the probability of the levels k of the row.
        P(k) = levels^-D E[p(u)], u uniform on the cell, so for n = n_samples draws of noise

            ln (1/n) sum over i of p(u_i) levels^-D

        is in expectation a lower bound, which rises with n to ln P(k) and is -E[nll] for n = 1: the
        importance-weighted bound of Burda, Grosse and Salakhutdinov (2015), with the uniform
        density levels^D as q(u|x). All rows share the noise, so that they are judged alike.
        """
        n_samples = checks.check_count("n_samples", n_samples)
        X = self._check_to_score(X)
        if self.dequantize is None:
            return -self._terms(X)["nll"]
        log_sum = np.full(X.shape[0], -np.inf)

        def work(session, rows):
            batch = self._put(session, X, rows)
            noise, once = session.view("noise", batch.B), session.array("once", (1, X.shape[1]))
            for draw in range(n_samples):
                session.k.random_uniform(self.seed_, STREAM_SCORE, 0, draw, once)
                session.tile(once, noise)
                session.program.terms_pass(session.task, batch)
                nll = session.download(session.terms(batch.B))[0].astype(np.float64)
                log_sum[rows] = np.logaddexp(log_sum[rows], -nll)

        for_blocks(self._session(X.shape[0]), X.shape[0], work)
        return log_sum - math.log(n_samples)

    def _put(self, session, X, rows):
        """The batch that these rows of X are, loaded as x."""
        batch = session.put(fetch(X, rows, self.state_.theta.dtype))
        session.load_x(batch)
        return batch

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D). Row i is a function of the seed and i.

        random_state None takes the estimator's own: an int there repeats the same draws in every
        call, None draws afresh.
        """
        self._check_loaded()
        return self._draws(n_samples, random_state)
