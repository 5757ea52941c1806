"""RBM, the restricted Boltzmann machine (Smolensky 1986; Hinton 2002).

Units v in {0, 1}^D that are seen and h in {0, 1}^H that are not, in one energy

    E(v, h) = -a.v - c.h - v W h,   p(v) = sum over h of exp(-E) / Z = exp(-F(v)) / Z,
    F(v) = -a.v - sum over j of softplus(c_j + (v W)_j).

-ln p(v) = F(v) + ln Z and d ln Z = -E_p[dF], so that the gradient of the mean of -ln p over data is

    E_data[dF] - E_p[dF],   dF/dW = -v p(h|v)',   dF/da = -v,   dF/dc = -p(h|v).

The second mean, of the model, is estimated on chains v', each moved by k Gibbs steps: h from
p(h|v'), v' from p(v'|h). With `persistent` they go on from where the step before left them
(Tieleman 2008): the parameters move slowly, so that the chains stay close to p. Else they start at
the data in every step: contrastive divergence, CD-k (Hinton 2002), whose gradient is biased. The
chains are as many as the rows of a batch, chain i beside row i, and each mean is over its own B
rows. Draws drive the chains, but both means have p(h|v), which has less noise than a draw of it.

    loss = mean over rows of data_energy - chain_energy = F(x) - F(v'), for fixed v'

has this gradient. Its value is no likelihood and no bound of one. So what training shows is
pseudo_nll, minus the pseudo-log-likelihood sum over d of ln p(x_d | all others), on one column of
each row that is drawn for it. It needs no Z, and is best for the distribution of the data (Besag
1975), but it is not ln p(x): it may be far above. What the family pays: ln Z, which takes annealing
(evaluation/partition.py), and chains, of which one draw depends on the last for many steps.
"""

import sys
from typing import NamedTuple

import numpy as np

from minivae.data import checks
from minivae.engine.layout import Layout, Region
from minivae.engine.task import column, load_rows, parameter, region, share
from minivae.evaluation import codes, partition
from minivae.evaluation.terms import draws
from minivae.kernels import (
    SIGMOID,
    STREAM_FLIP,
    STREAM_HIDDEN,
    STREAM_PRIOR,
    STREAM_SAMPLE,
    STREAM_SAMPLE_UNIFORM,  # fmt: skip
    STREAM_VISIBLE,
)
from minivae.kernels.tables import reference as k
from minivae.models import tables
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, choice, whole, with_defaults
from minivae.models.transformer import Transformer

NAME = "rbm"
TERMS = ("data_energy", "chain_energy", "pseudo_nll")
SCORE = ("pseudo_log_likelihood", "pseudo-ln p(x)")
RATES = ((10, 0.05), (6, 0.01), (4, 0.002))


class Plan(NamedTuple):
    """The model as whole numbers: D visible and H hidden units.

    Of a region of the data and the same one of the chains, the second lies right behind the first:
    for a whole batch the two are one matrix (2 B, columns), and a gradient by W one product.
    """

    x: Region  # (B, D)
    chain: Region  # (B, D) behind x
    noise: Region  # (B, 1) uniform numbers, that choose the column of pseudo_nll
    h: Region  # (B, H) probabilities of hidden units, then draws
    field: Region  # (B, H) v W of the data
    chain_field: Region  # (B, H)
    da: Region  # (B, D) gradient by a, row by row
    chain_da: Region  # (B, D) behind da
    dfield: Region  # (B, H) gradient by v W + c
    chain_dfield: Region  # (B, H) behind dfield
    data_energy: Region  # (B, 1)
    chain_energy: Region  # (B, 1)
    pseudo_nll: Region  # (B, 1)
    n_features: int  # D
    n_hidden: int  # H
    n_steps: int  # k
    persistent: int
    W: int  # where W (D, H) begins among the parameters
    c: int  # c (H,)
    a: int  # a (D,)


def make_plan(layout, n_features, *, n_hidden, n_steps, persistent):
    """One block, shared out by visible and by hidden units. All biases begin as 0."""
    D, H = n_features, n_hidden
    W, c, a = layout.block(
        ("hidden.weight", (D, H), False, True), ("hidden.bias", (H,)), ("visible.bias", (D,))
    )
    x = layout.region("x", D)
    chain = layout.carry("chain", D) if persistent else layout.region("chain", D)
    noise, h = layout.region("noise", 1), layout.region("h", H)
    fields = [layout.region(f"field.{of}", H) for of in ("data", "chain")]
    slopes = [layout.region(f"dbias+{of}", D) for of in ("data", "chain")]
    dfields = [layout.region(f"dfield.{of}", H) for of in ("data", "chain")]
    return Plan(x, chain, noise, h, *fields, *slopes, *dfields, *map(layout.regions.get, TERMS),
                D, H, n_steps, int(persistent), W, c, a)  # fmt: skip


def weights():
    """The weight of each term in the loss."""
    return {"data_energy": 1.0, "chain_energy": -1.0, "pseudo_nll": 0.0}


def score_weights():
    """The weight of each term in what is shown and waited for, with the sign turned."""
    return {"pseudo_nll": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x, the chains moved by k Gibbs steps, and which column is judged."""
    plan, work, seed = task.plan, task.work, task.recipe.seed
    x, chain = region(work, plan.x, shard), region(work, plan.chain, shard)
    load_rows(task, rows, x, None, shard, step)
    k.random_uniform(seed, STREAM_FLIP, step, shard.first, region(work, plan.noise, shard))
    if plan.persistent == 0:
        k.repeat_rows(x, chain)
    for i in range(plan.n_steps):  # every one has rows of random numbers of its own
        row = shard.first + i * shard.B
        gibbs(task, chain, shard, seed, STREAM_HIDDEN, STREAM_VISIBLE, step, row)


def gibbs(task, v, shard, seed, hidden, visible, step, row):
    """A Gibbs step of v (rows, D), which leaves p(v) as it is: h from p(h|v), v from p(v|h)."""
    h = region(task.work, task.plan.h, shard)
    expect_hidden(task, v, h)
    k.random_binarize(h, seed, hidden, step, row)
    expect_visible(task, h, v)
    k.random_binarize(v, seed, visible, step, row)


def expect_hidden(task, v, h):
    """h = p(h_j = 1 | v) = sigmoid(c_j + (v W)_j)."""
    W, c, _ = parameters(task, task.theta)
    k.matmul(v, W, h)
    k.bias_activation(h, c, SIGMOID)


def expect_visible(task, h, v):
    """v = p(v_d = 1 | h) = sigmoid(a_d + (W h)_d)."""
    W, _, a = parameters(task, task.theta)
    k.matmul(h, W.T, v)
    k.bias_activation(v, a, SIGMOID)


def rows_pass(task, shard):
    """All terms, and the gradient by a and by v W + c of every row; the chains stay."""
    plan, work, scale = task.plan, task.work, 1 / shard.B
    energy(task, shard, plan.x, plan.field, plan.data_energy, scale,
           region(work, plan.da, shard), region(work, plan.dfield, shard))  # fmt: skip
    energy(task, shard, plan.chain, plan.chain_field, plan.chain_energy, -scale,
           region(work, plan.chain_da, shard), region(work, plan.chain_dfield, shard))  # fmt: skip
    judge(task, shard)


def terms_pass(task, shard):
    """All terms of each row; the energy of chains is that of what is there."""
    plan = task.plan
    energy(task, shard, plan.x, plan.field, plan.data_energy, 1.0, None, None)
    energy(task, shard, plan.chain, plan.chain_field, plan.chain_energy, 1.0, None, None)
    judge(task, shard)


def energy(task, shard, v, field, term, scale, da, dfield):
    """The term F(v) of each row; da and dfield times scale, where they are not None."""
    W, c, a = parameters(task, task.theta)
    v, field = region(task.work, v, shard), region(task.work, field, shard)
    k.matmul(v, W, field)
    k.free_energy(v, field, a, c, scale, column(task.work, term, shard), da, dfield)


def judge(task, shard):
    """pseudo_nll of each row, after its energy."""
    plan, work = task.plan, task.work
    W, c, a = parameters(task, task.theta)
    x, field = region(work, plan.x, shard), region(work, plan.field, shard)
    noise, nll = region(work, plan.noise, shard), column(work, plan.pseudo_nll, shard)
    k.pseudo_nll(x, noise, field, W, a, c, nll)


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's rows of dW, and its parts of da and dc, from data and chains at once."""
    plan, work = task.plan, task.work
    v, da = both(work, plan.x, batch), both(work, plan.da, batch)
    dfield = both(work, plan.dfield, batch)
    dW, dc, da_sum = parameters(task, task.gradient)
    first, last = share(plan.n_features, worker, task.workers)
    k.matmul(v[:, first:last].T, dfield, dW[first:last])
    k.sum_rows(da, first, da_sum[first:last])
    first, last = share(plan.n_hidden, worker, task.workers)
    k.sum_rows(dfield, first, dc[first:last])


def both(work, place, batch):
    """A region of the data and that of the chains behind it, for a whole batch: (2 B, columns)."""
    return region(work, Region(place.start, place.columns, 2), batch)


def parameters(task, flat):
    """W, c, a of a parameter-shaped buffer."""
    plan, D, H = task.plan, task.plan.n_features, task.plan.n_hidden
    W = parameter(flat, plan.W, D, H)
    return W, flat[plan.c : plan.c + H], flat[plan.a : plan.a + D]


# --- using the model ------------------------------------------------------------------------------


def encode(task, shard):
    """From x to h, the probabilities of hidden units."""
    plan, work = task.plan, task.work
    expect_hidden(task, region(work, plan.x, shard), region(work, plan.h, shard))


def decode(task, shard):
    """From h to x, the probabilities of visible units."""
    plan, work = task.plan, task.work
    expect_visible(task, region(work, plan.h, shard), region(work, plan.x, shard))


def draw(task, shard, seed, first_row):
    """x by n_steps Gibbs steps from fair coins; row i is a function of (seed, first_row + i)."""
    x = region(task.work, task.plan.x, shard)
    k.random_uniform(seed, STREAM_PRIOR, 0, first_row, x)
    k.threshold(x)
    for i in range(task.plan.n_steps):
        gibbs(task, x, shard, seed, STREAM_SAMPLE_UNIFORM, STREAM_SAMPLE, i, first_row)


# --- the estimator --------------------------------------------------------------------------------


class RBM(Transformer, Model):
    """Restricted Boltzmann machine of binary data, by contrastive divergence or persistent chains.

    p(v) = exp(-F(v)) / Z. Descends the mean over rows of F(x) - F(chain) for fixed chains, whose
    gradient estimates that of -ln p(x); the value says nothing about ln p(x). What training shows
    is the pseudo-log-likelihood, on one column of each row, in nats (minivae/models/rbm.py derives
    both). `score_samples` is exact, or an estimate that tends to be too high.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    score_kind : "exact" with at most 20 hidden units or features, else "estimate"
    parameters_ : dict of name to array, views of the live parameters: hidden.weight W (D, H),
        hidden.bias c (H,), visible.bias a (D,)
    history_ : dict of lists, one value per epoch: loss, data_energy, chain_energy, pseudo_nll,
        pseudo_log_likelihood (means over the epoch's rows, nats), gradient_norm, seconds, and
        valid_pseudo_log_likelihood, valid_pseudo_nll, valid_data_energy if there are held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    sampling = "chain"
    SETTINGS = {
        "n_hidden": whole(500, "H, the number of hidden units"),
        "n_steps": whole(5, "k, the Gibbs steps of each chain before every update", high=1000),
        "chains": choice(
            "persistent", ("persistent", "data"),
            "where a chain begins a step: 'persistent', where the one before left it; 'data', at a "
            "row of the batch, which is CD-k",
        ),
        "binarize": BINARIZED,
        **with_defaults(COMMON, optimizer="sgd", learning_rate=RATES, batch_size=100),
    }  # fmt: skip

    def __init__(
        self,
        n_hidden=500,
        *,
        n_steps=5,
        chains="persistent",
        binarize=None,
        optimizer="sgd",
        learning_rate=RATES,
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
        self.n_steps = n_steps
        self.chains = chains
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
        sizes = {"n_hidden": int(self.n_hidden), "n_steps": int(self.n_steps)}
        return sizes | {"persistent": self.chains == "persistent"}

    @property
    def score_kind(self):
        sides = int(self.n_hidden), getattr(self, "n_features_in_", partition.FEW + 1)
        return "exact" if min(sides) <= partition.FEW else "estimate"

    @property
    def _n_features_out(self):
        return self.layout_.plan.n_hidden

    def _held_out(self, X):
        there = super()._held_out(X).items()  # and chains are not
        return {name: value for name, value in there if name != "chain_energy"}

    def held_out_score(self, X):
        """(ln p(x) of each row of X (n,), in words how)."""
        how = "exact" if self.score_kind == "exact" else "an estimate that tends to be too high"
        return self.score_samples(X), how

    # --- use ------------------------------------------------------------------------------------

    def transform(self, X):
        """p(h_j = 1 | x) for the rows of X, (n, H)."""
        self._check_loaded()
        X = self._check_X(X)
        return codes.encode(self._session(X.shape[0]), X, "h", "encode")

    def inverse_transform(self, Z):
        """p(x_d = 1 | h) (n, D) for hidden units h = Z (n, H), or their probabilities."""
        self._check_loaded()
        Z = checks.check_codes(Z, self._n_features_out, "hidden unit", self.state_.theta.dtype)
        found = codes.decode(self._session(len(Z)), Z, "h")
        return tables.as_given(self, found, "mean", Z)

    def score_samples(self, X):
        """ln p(x) = -F(x) - ln Z of each row of X (n,), in nats, with ln Z by `log_partition`."""
        energy = self._terms(self._check_to_score(X))["data_energy"]
        return -energy - self.log_partition(random_state=0)[0]

    def log_partition(self, n_chains=100, n_temperatures=3000, reverse=False, random_state=None):
        """(ln Z, its standard error), in nats; exact, with an error of 0, where the model has at
        most 20 hidden units or features.

        Else by annealed importance sampling: n_chains chains from independent units to this model
        in n_temperatures steps. In the mean too low; reverse=True: by the way back, and in the mean
        too high. Where the two are close, ln Z is known. The error is that of ln of the mean
        weight, which is too small where few of the weights count. random_state as in `sample`.
        """
        self._check_loaded()
        counts = {"n_chains": n_chains, "n_temperatures": n_temperatures}
        counts = [checks.check_count(name, value) for name, value in counts.items()]
        names = ("visible.bias", "hidden.weight", "hidden.bias")
        machine = partition.Machine(*(np.array(self.parameters_[name]) for name in names))
        if machine.is_small:
            return machine.log_partition(), 0.0
        with checks.named_memory(f"n_chains={n_chains}"):
            session = self._session(1)
            return partition.estimate(session, machine, *counts, self._seed(random_state), reverse)

    def sample(self, n_samples=1, random_state=None, n_gibbs=500):
        """Draws of x, (n_samples, D), each the end of a chain of its own of n_gibbs Gibbs steps,
        which begins at fair coins. Row i is a function of the seed and i.

        A chain needs many steps until it has forgotten where it began, the more the larger the
        weights; draws come from p(x) as far as it has. random_state None takes the estimator's own:
        an int there repeats the same draws in every call, None draws afresh.
        """
        self._check_loaded()
        n_samples, seed = checks.check_count("n_samples", n_samples), self._seed(random_state)
        settings = self.plan_settings() | {"n_steps": checks.check_count("n_gibbs", n_gibbs)}
        layout = Layout(self.program, self.layout_.n_features, **settings)
        with checks.named_memory(f"n_samples={n_samples}"):
            return draws(self._session(n_samples, layout), n_samples, seed)
