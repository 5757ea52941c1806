"""PixelRNN, a recurrent net that reads an image row by row, with a NADE inside of each row.

A fully visible belief network, and so exact: by the chain rule p(x) = product over rows t and
columns d of p(x_td | x_<t, x_t,<d). A gated recurrent unit reads the rows, and its state s_t, which
has seen the rows before row t, gives the biases of the NADE that row t is drawn from (the RNN-NADE
of Boulanger-Lewandowski, Bengio and Vincent 2012):

    s_0 = 0,   s_(t+1) = GRU(x_t, s_t)          [c_t b_t] = s_t C + bias_t
    p(x_td = 1 | ...) = sigmoid(b_td + V_d h_td),   h_td = sigmoid(c_t + sum over i < d of x_ti W_i)

for x in {0, 1}^D of T rows of w columns, D = T w. All rows share C, W and V, but each has biases of
its own, bias_t, so that the state need not count rows. A table, or a sequence of vectors, is such
an image as well.

Rows and not pixels: T steps and not T w, 28 and not 784 for MNIST. A step is a product of matrices
that wait for each other, and what a row's pixels say of each other is cheap by NADE's running sum:
17 times less work than a GRU over the pixels of as many units. The published PixelRNNs (van den
Oord, Kalchbrenner and Kavukcuoglu 2016) have states with columns: their Row LSTM also takes a row
at a time, but convolves the state of the row above, and so never sees a triangle beside it; their
Diagonal BiLSTM sees all pixels before, in T + w - 1 steps of two directions, layer upon layer.
A GRU has one product a step, of 3 H columns, where an LSTM has one of 4 H and a second state.

    loss = mean over rows of X of nll,   nll = -ln p(x) = sum of softplus(l_td) - x_td l_td

Backward goes from the logits l through every NADE to its biases, dc_t and db_t = dl_t, and to the
states, as far as the NADEs read them: ds_t = [dc_t db_t] C^T. Then from the last row to the first
one (back-propagation through time): once ds_(t+1) is whole, the GRU's gates get their gradient, and
ds_t its second part. kernels/recurrent and kernels/sequence derive both. Each gradient of a weight
is then one product over all rows and steps, such as dC = sum over rows of X and t of
s_t^T [dc_t db_t]. What the family pays: drawing x takes D steps, one after the other, and there is
no latent code.
"""

import sys
from typing import NamedTuple

from minivae.engine.layout import Region
from minivae.engine.task import column, load_rows, matrix, parameter, region, share
from minivae.kernels import IDENTITY, STREAM_SAMPLE
from minivae.kernels.tables import reference as k
from minivae.models import settings
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, whole, with_defaults

NAME = "pixelrnn"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")


class Plan(NamedTuple):
    """The model as whole numbers: T rows of w columns, S units of the state, H hidden units.

    Most regions have a row for each row of an image, (B T, columns).
    """

    x: Region  # (B, D)
    rows: Region  # (B T, w) the same
    u: Region  # (B T, w) uniform numbers, for draws
    states: Region  # (B T, S) s_t
    dstates: Region
    gates: Region  # (B (T - 1), 4 S) of the step from s_t
    dgates: Region  # (B T, 4 S)
    recurrent: Region  # (B, 3 S) s_t U, of the step at hand
    through: Region  # (B, S) what ds_t gets from ds_(t+1) through U
    biases: Region  # (B T, H + w) [c_t b_t]
    dbiases: Region
    a: Region  # (B T, H) the hidden layer of the variable at hand, before its sigmoid
    h: Region  # (B T, H) and after it
    logits: Region  # (B T, w)
    dlogits: Region
    nll: Region  # (B, 1)
    n_steps: int  # T
    width: int  # w
    n_state: int  # S
    n_hidden: int  # H
    W: int  # where W (w, H) begins among the parameters
    V: int  # V (w, H)
    C: int  # C (S, H + w)
    row_bias: int  # bias_t (T, H + w)
    R: int  # the GRU's weights of x_t (w, 3 S)
    U: int  # those of s_t (S, 3 S)
    gate_bias: int  # (3 S,)


def make_plan(layout, n_features, *, image_shape, n_state, n_hidden):
    """Three blocks: the NADE of a row, shared out by hidden units; its biases; the GRU."""
    (T, w), S, H = settings.image_size(image_shape, n_features), n_state, n_hidden
    by_columns, by_rows, glorot = True, False, True
    W, V = layout.block(
        ("row.hidden.weight", (w, H), by_columns, glorot),
        ("row.visible.weight", (w, H), by_columns, glorot),
    )
    C, row_bias = layout.block(
        ({"condition.hidden.weight": H, "condition.visible.weight": w}, (S, H + w), by_rows,
         glorot),
        ({"condition.hidden.bias": H, "condition.visible.bias": w}, (T, H + w)),
    )  # fmt: skip
    R, U, gate_bias = layout.block(
        ("gru.input.weight", (w, 3 * S), by_rows, glorot),
        ("gru.state.weight", (S, 3 * S), by_rows, glorot),
        ("gru.bias", (3 * S,)),
    )

    def region(name, columns):
        return layout.region(name, columns, T)

    x, u = layout.region("x", T * w), region("u", w)
    states, dstates = region("states", S), region("dstates", S)
    gates, dgates = layout.region("gates", 4 * S, T - 1), region("dgates", 4 * S)
    recurrent, through = layout.region("recurrent", 3 * S), layout.region("dstates+U", S)
    biases, dbiases = region("biases", H + w), region("dbiases", H + w)
    a, h = region("a", H), region("h", H)
    logits, dlogits = region("logits", w), region("dlogits", w)
    return Plan(x, Region(x.start, w, T), u, states, dstates, gates, dgates, recurrent,
                through, biases, dbiases, a, h, logits, dlogits, layout.regions["nll"], T, w, S, H,
                W, V, C, row_bias, R, U, gate_bias)  # fmt: skip


def images(task, place, shard):
    """A region with a row for each row of an image as one with a row for each image."""
    return matrix(task.work, shard, place.start, place.repeat * place.columns, 1)


def at(task, place, t, shard):
    """What such a region has of row t of each image, (rows, columns)."""
    return images(task, place, shard)[:, t * place.columns : (t + 1) * place.columns]


def weights():
    """The weight of each term in the loss."""
    return {"nll": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x; nothing else is random."""
    load_rows(task, rows, region(task.work, task.plan.x, shard), None, shard, step)


def rows_pass(task, shard):
    """nll, and the gradient by the logits, by the NADEs' biases and by the GRU's gates."""
    plan, nll = task.plan, column(task.work, task.plan.nll, shard)
    forward(task, shard)
    k.bernoulli_nll(images(task, plan.logits, shard), images(task, plan.rows, shard), None,
                    1 / shard.B, nll, images(task, plan.dlogits, shard))  # fmt: skip
    backward(task, shard)


def terms_pass(task, shard):
    """nll = -ln p(x) of each row."""
    plan, nll = task.plan, column(task.work, task.plan.nll, shard)
    forward(task, shard)
    k.bernoulli_nll(images(task, plan.logits, shard), images(task, plan.rows, shard), None, 1.0,
                    nll, None)  # fmt: skip


def forward(task, shard):
    """States and biases row by row, then the logits of the NADEs of all rows at once."""
    plan, work, H = task.plan, task.work, task.plan.n_hidden
    W, V = row_weights(task, task.theta)
    k.clear(at(task, plan.states, 0, shard))
    for t in range(plan.n_steps):
        condition(task, t, shard)
        if t + 1 < plan.n_steps:
            advance(task, t, shard)
    biases, logits = region(work, plan.biases, shard), region(work, plan.logits, shard)
    a, h = region(work, plan.a, shard), region(work, plan.h, shard)
    k.nade_logits(region(work, plan.rows, shard), W, biases[:, :H], V, biases[:, H:], a, h, logits)


def condition(task, t, shard):
    """[c_t b_t] = s_t C + bias_t."""
    plan, biases = task.plan, at(task, task.plan.biases, t, shard)
    C, bias = condition_weights(task, task.theta)
    k.matmul(at(task, plan.states, t, shard), C, biases)
    k.bias_activation(biases, bias[t], IDENTITY)


def advance(task, t, shard):
    """s_(t+1) from s_t and x_t."""
    plan, recurrent = task.plan, region(task.work, task.plan.recurrent, shard)
    R, U, bias = gru_weights(task, task.theta)
    gates = at(task, plan.gates, t, shard)
    k.matmul(at(task, plan.rows, t, shard), R, gates[:, : 3 * plan.n_state])
    k.matmul(at(task, plan.states, t, shard), U, recurrent)
    k.gru(t, recurrent, bias, images(task, plan.states, shard), images(task, plan.gates, shard))


def backward(task, shard):
    """After dlogits: dbiases, dstates, and dgates. These have a last step as well, as the states
    have that they are multiplied with, and it is 0."""
    plan, work, S, H = task.plan, task.work, task.plan.n_state, task.plan.n_hidden
    W, V = row_weights(task, task.theta)
    C, _ = condition_weights(task, task.theta)
    _, U, _ = gru_weights(task, task.theta)
    dlogits, dbiases = region(work, plan.dlogits, shard), region(work, plan.dbiases, shard)
    c = region(work, plan.biases, shard)[:, :H]
    k.nade_backward(region(work, plan.rows, shard), dlogits, W, c, V, 0, H, None, dbiases[:, :H],
                    None)  # fmt: skip
    k.repeat_rows(dlogits, dbiases[:, H:])
    k.matmul(dbiases, C.T, region(work, plan.dstates, shard))

    states, dstates = images(task, plan.states, shard), images(task, plan.dstates, shard)
    gates, dgates = images(task, plan.gates, shard), images(task, plan.dgates, shard)
    through = region(work, plan.through, shard)
    k.clear(at(task, plan.dgates, plan.n_steps - 1, shard))
    for t in range(plan.n_steps - 2, -1, -1):
        k.gru_backward(t, S, states, gates, dstates, dgates)
        k.matmul(at(task, plan.dgates, t, shard)[:, S:], U.T, through)
        k.add(through, at(task, plan.dstates, t, shard))


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part: hidden units of the NADE; rows of C and of bias_t; rows of R and U, and
    some of the gates' biases."""
    plan, work, S = task.plan, task.work, task.plan.n_state
    rows, states = region(work, plan.rows, batch), region(work, plan.states, batch)
    if block == 0:
        first, last = share(plan.n_hidden, worker, task.workers)
        (W, V), (dW, dV) = row_weights(task, task.theta), row_weights(task, task.gradient)
        c = region(work, plan.biases, batch)[:, : plan.n_hidden]
        dlogits = region(work, plan.dlogits, batch)
        k.nade_backward(rows, dlogits, W, c, V, first, last, dW, None, dV)
    elif block == 1:
        dC, dbias = condition_weights(task, task.gradient)
        first, last = share(S, worker, task.workers)
        k.matmul(states[:, first:last].T, region(work, plan.dbiases, batch), dC[first:last])
        first, last = share(plan.n_steps, worker, task.workers)
        some = dbias[first:last].reshape(-1)
        k.sum_rows(images(task, plan.dbiases, batch), first * dbias.shape[1], some)
    else:
        dR, dU, dbias = gru_weights(task, task.gradient)
        dgates = region(work, plan.dgates, batch)
        first, last = share(plan.width, worker, task.workers)
        k.matmul(rows[:, first:last].T, dgates[:, : 3 * S], dR[first:last])
        first, last = share(S, worker, task.workers)
        k.matmul(states[:, first:last].T, dgates[:, S:], dU[first:last])
        first, last = share(3 * S, worker, task.workers)
        k.sum_rows(dgates, first, dbias[first:last])


def row_weights(task, flat):
    """W, V of a parameter-shaped buffer."""
    plan, w, H = task.plan, task.plan.width, task.plan.n_hidden
    return parameter(flat, plan.W, w, H), parameter(flat, plan.V, w, H)


def condition_weights(task, flat):
    """C, bias_t for all t, of a parameter-shaped buffer."""
    plan, columns = task.plan, task.plan.n_hidden + task.plan.width
    C = parameter(flat, plan.C, plan.n_state, columns)
    return C, parameter(flat, plan.row_bias, plan.n_steps, columns)


def gru_weights(task, flat):
    """R, U and the gates' bias of a parameter-shaped buffer."""
    plan, S = task.plan, task.plan.n_state
    R, U = parameter(flat, plan.R, plan.width, 3 * S), parameter(flat, plan.U, S, 3 * S)
    return R, U, flat[plan.gate_bias : plan.gate_bias + 3 * S]


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """x from p(x), one row after the other, each variable by variable; what is drawn in row i is a
    function of (seed, first_row + i)."""
    plan, H = task.plan, task.plan.n_hidden
    W, V = row_weights(task, task.theta)
    k.random_uniform(seed, STREAM_SAMPLE, 0, first_row, images(task, plan.u, shard))
    k.clear(at(task, plan.states, 0, shard))
    for t in range(plan.n_steps):
        condition(task, t, shard)
        biases, u = at(task, plan.biases, t, shard), at(task, plan.u, t, shard)
        a, h = at(task, plan.a, t, shard), at(task, plan.h, t, shard)
        k.nade_sample(u, W, biases[:, :H], V, biases[:, H:], a, h, at(task, plan.rows, t, shard))
        if t + 1 < plan.n_steps:
            advance(task, t, shard)


# --- the estimator --------------------------------------------------------------------------------


class PixelRNN(Model):
    """Recurrent net over the rows of binary images, trained by maximum likelihood.

    A gated recurrent unit reads an image row by row; its state gives the biases of a NADE that the
    next row is drawn from, pixel by pixel, so that ln p(x) is exact (the RNN-NADE of
    Boulanger-Lewandowski et al. 2012; a PixelRNN of rows, van den Oord et al. 2016). Minimises the
    mean over images of -ln p(x), in nats. A sequence of vectors is an image as well: give its shape
    as (steps, columns).

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters, for T rows of w columns,
        S = n_state, H = n_hidden: row.hidden.weight W and row.visible.weight V (w, H);
        condition.hidden.weight (S, H), condition.visible.weight (S, w), and their biases for each
        row, (T, H) and (T, w); gru.input.weight (w, 3 S), whose columns are those of the new
        state, reset, update; gru.state.weight (S, 3 S): reset, update, new state; gru.bias (3 S,)
        in the order of the input's
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over the epoch's
        rows, nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if there are
        held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D = T w
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    score_kind = "exact"
    sampling = "sequential"
    SETTINGS = {
        "n_state": whole(240, "S, the number of units of the recurrent net", high=2**13),
        "n_hidden": whole(120, "H, the number of hidden units of a row's NADE", high=2**15),
        "image_shape": settings.IMAGE_SHAPE,
        "binarize": BINARIZED,
        **with_defaults(COMMON, learning_rate=((14, 2e-3), (1, 2e-4)), batch_size=100),
    }

    def __init__(
        self,
        n_state=240,
        *,
        n_hidden=120,
        image_shape=None,
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
        self.n_state = n_state
        self.n_hidden = n_hidden
        self.image_shape = image_shape
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
        return {
            "image_shape": self.image_shape and tuple(map(int, self.image_shape)),
            "n_state": int(self.n_state),
            "n_hidden": int(self.n_hidden),
        }

    def _check_width(self, n_features):
        settings.image_size(self.image_shape, n_features)

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
