"""PixelCNN of binary images, plain and gated (van den Oord et al. 2016, 1601.06759, 1606.05328).

A fully visible belief network whose factors share one convolutional net. The pixels are numbered
line by line, d = 0, ..., D - 1. By the chain rule p(x) = product over d of p(x_d | x_<d), and

    p(x_d = 1 | x_<d) = sigmoid(l_d),   loss = mean over rows of nll,   nll = -ln p(x)

for logits l. What a pixel may see is a list of taps, pixels at offsets (di, dj). A tap that a mask
would forbid is not in it, so that there is no mask to forget; and with one tap beside the other, a
convolution is one product over all pixels of all rows (kernels/convolution/reference.py). Layer i
computes features h_i of every pixel and adds them to those below it:

    h_i = h_(i-1) + y_i W + b,   h_0 = y_0 W + b,   l = relu(h_L W + b) W' + b'

Plain: y_i = relu(convolution of h_(i-1)). Layer 0 sees what comes before the pixel ("mask A"), the
others the pixel's own features too ("mask B"), which know of pixels before it alone. A wedge above
the pixel, on its right, is seen by no number of such layers: the blind spot.

Gated: y = tanh(f) sigmoid(g) of a convolution f | g, in two stacks which see all pixels before the
pixel, as far as the layers reach.
    vertical    v_i: the lines above. Layer 0 sees these alone, the others v_(i-1) from the pixel's
                line upwards; so v_i knows nothing of that line, and is read where it stands.
                (Usually layer 0 sees its own line, and v is shifted down before it is read.)
    horizontal  y_i: h_(i-1) from the pixel leftwards, in layer 0 without the pixel; and v_i here.

The gradient comes through dense layers by net.backward, through taps by `scatter_taps`, through
gates by `gate_backward`. Two things are read twice: h_(i-1) by layer i and by the sum, so that
dh_(i-1) = dh_i + what comes through layer i; and v_i by y_i and by v_(i+1).

Drawing x takes D passes, one after the other. What was computed of earlier pixels stays as it is,
so that a pass is the same functions at one pixel, and of the vertical stack at one line.
"""

import sys
from typing import NamedTuple

from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import column, load_rows, matrix, region
from minivae.kernels import IDENTITY, RELU, STREAM_SAMPLE
from minivae.kernels.tables import reference as k
from minivae.models import settings
from minivae.models.base import Model
from minivae.models.settings import BINARIZED, COMMON, IMAGE_SHAPE, image_size, truth, whole
from minivae.models.taps import image_taps, inverse_taps, offsets

NAME = "pixelcnn"
TERMS = ("nll",)
SCORE = ("log_likelihood", "ln p(x)")
APART = ("dense",)
RESIDUAL, HORIZONTAL, VERTICAL = 1, 2, 3  # dense layers of a layer, from its last one on
INVERSE, ABOVE = 2, 3  # constants: taps of layer 0, of the others, their inverse; the same above


class Plan(NamedTuple):
    """The model as whole numbers: D pixels, R channels, layers 0 <= i <= L."""

    x: Region  # (B, D)
    u: Region  # (B, D) uniform numbers, for draws
    output: Net
    logits: Region  # (B, D)
    dlogits: Region  # (B, D)
    nll: Region  # (B, 1)
    n_features: int  # D
    width: int  # of a line
    n_channels: int  # R
    n_layers: int  # L
    gated: int  # 1: there is a vertical stack


def make_plan(layout, n_features, *, image_shape, n_layers, n_channels, first_kernel, kernel,
              gated):  # fmt: skip
    """Taps; and for each layer what its convolutions read, side by side, and its dense layers."""
    D, R, size = n_features, n_channels, image_size(image_shape, n_features)
    x, u = layout.region("x", D), layout.region("u", D)
    horizontal, vertical = offsets(first_kernel, kernel, gated)
    for stack in (horizontal, vertical):
        first, other = (image_taps(*size, of_layer) for of_layer in stack)
        for taps in (first, other, inverse_taps(other)):
            layout.constant(taps)

    def dense(name, h, dh, columns, activation=IDENTITY):
        return layout.dense(name, h, dh, [], {name: columns}, activation, activation)

    h = Region(x.start, 1, D)
    dy = layout.region("dgate.0", R, D) if gated else None
    dcols = layout.region("dabove.1", len(vertical[1]) * R, D) if gated else None
    for i in range(n_layers + 1):
        taps = min(i, 1)  # layer 0 has its own, and a single channel below it
        columns = len(horizontal[taps]) * h.columns + gated * R
        if i < 2:  # one room for layers 1, 2, ...; nobody wants the gradient by the image
            dreads = layout.region(f"dreads.{i}", columns, D) if i or gated else None
        reads = layout.region(f"reads.{i}", columns, D)
        if gated:
            cols = layout.region(f"above.{i}", len(vertical[taps]) * h.columns, D)
            dense(f"vertical.{i}", cols, dcols if i else None, 2 * R)
            dense(f"horizontal.{i}", reads, dreads, 2 * R)
            y = layout.region(f"gate.{i}", R, D)
        else:
            _, _, y, dy = dense(f"horizontal.{i}", reads, dreads, R, RELU)
        _, _, h, dh = dense(f"residual.{i}", y, dy, R)
    output = layout.dense("output", h, dh, [R], {"logit": 1}, RELU, IDENTITY)
    logits, dlogits = output.y.side_by_side(), output.dy.side_by_side()
    return Plan(x, u, output, logits, dlogits, layout.regions["nll"], D, size[1], R,
                n_layers, gated)  # fmt: skip


def weights():
    """The weight of each term in the loss."""
    return {"nll": 1.0}


# --- what there is of a layer ---------------------------------------------------------------------


def dense_of(task, i, which):
    """The number of a dense layer of layer i: VERTICAL (if gated), HORIZONTAL, RESIDUAL."""
    return (i + 1) * (2 + task.plan.gated) - which


def alone(task, index):
    """A dense layer as a Net."""
    return net.between(task, index, index + 1)


def features(task, i, shard):
    """h_i (rows * D, R); below layer 0 the image (rows * D, 1)."""
    plan = task.plan
    if i < 0:
        return matrix(task.work, shard, plan.x.start, 1, plan.n_features)
    layer = task.layers[dense_of(task, i, RESIDUAL)]
    return net.written(task.work, layer.y, layer, shard)


def vertical(task, i, shard):
    """v_i (rows * D, R), which stands beside what the horizontal stack sees; below layer 0 the
    image (rows * D, 1)."""
    if i < 0:
        return features(task, i, shard)[:, 0:]
    layer = task.layers[dense_of(task, i, HORIZONTAL)]
    return net.read(task.work, layer.h, layer, shard)[:, layer.fan_in - task.plan.n_channels :]


def seen(task, start, i, shard):
    """What taps bring to the horizontal stack (rows * D, T C); at layer.dh the gradient by it."""
    layer = task.layers[dense_of(task, i, HORIZONTAL)]
    matrix = net.read(task.work, start, layer, shard)
    return matrix[:, : layer.fan_in - task.plan.gated * task.plan.n_channels]


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x; nothing else is random."""
    load_rows(task, rows, region(task.work, task.plan.x, shard), None, shard, step)


def rows_pass(task, shard):
    """nll, and the gradient by the output of every dense layer."""
    plan, work = task.plan, task.work
    lines_above(task, shard, 0, 1, 1)
    x, logits = region(work, plan.x, shard), forward(task, shard, 0, 1)
    nll, dlogits = column(work, plan.nll, shard), region(work, plan.dlogits, shard)
    k.bernoulli_nll(logits, x, None, 1 / shard.B, nll, dlogits)
    backward(task, shard)


def terms_pass(task, shard):
    """nll = -ln p(x) of each row."""
    plan, work = task.plan, task.work
    lines_above(task, shard, 0, 1, 1)
    x, logits = region(work, plan.x, shard), forward(task, shard, 0, 1)
    k.bernoulli_nll(logits, x, None, 1.0, column(work, plan.nll, shard), None)


def lines_above(task, shard, first, last, step):
    """The vertical stack, if there is one, layer after layer: all pixels by 0, 1, 1, a line by its
    ends and D. Not a single pixel, since v_i sees v_(i-1) on the pixel's right as well."""
    plan, work = task.plan, task.work
    for i in range(plan.gated * (plan.n_layers + 1)):
        index, taps = dense_of(task, i, VERTICAL), task.constants[ABOVE + min(i, 1)]
        layer, below, v = task.layers[index], vertical(task, i - 1, shard), vertical(task, i, shard)
        cols, a = net.read(work, layer.h, layer, shard), net.written(work, layer.y, layer, shard)
        for d in range(first, last):
            k.gather_taps(below, taps[d::step], cols[d::step])
            dense(task, index, shard, d, step)
            k.gate(a[d::step], v[d::step])


def forward(task, shard, first, step):
    """The logits (rows, D), after `lines_above`, of every step-th pixel from the first one on: by
    0 and 1 of all pixels, by d and D of pixel d, which needs what was computed of those before."""
    plan, work = task.plan, task.work
    for i in range(plan.n_layers + 1):
        taps, index = task.constants[min(i, 1)], dense_of(task, i, HORIZONTAL)
        layer, residual = task.layers[index], task.layers[index + 1]
        below, cols = features(task, i - 1, shard), seen(task, layer.h, i, shard)
        k.gather_taps(below, taps[first::step], cols[first::step])
        dense(task, index, shard, first, step)
        if plan.gated:
            a = net.written(work, layer.y, layer, shard)
            k.gate(a[first::step], net.read(work, residual.h, residual, shard)[first::step])
        dense(task, index + 1, shard, first, step)
        if i > 0:
            k.add(below[first::step], features(task, i, shard)[first::step])
    for index in range(plan.output.first, plan.output.last):
        dense(task, index, shard, first, step)
    return region(work, plan.logits, shard)


def dense(task, index, shard, first, step):
    """y = f(h W + b) of a dense layer, for every step-th pixel from the first one on."""
    layer, work = task.layers[index], task.work
    h = net.read(work, layer.h, layer, shard)[first::step]
    y = net.written(work, layer.y, layer, shard)[first::step]
    k.matmul(h, net.weight(layer, task.theta), y)
    k.bias_activation(y, net.bias(layer, task.theta), layer.activation)


def backward(task, shard):
    """After dlogits: the gradient by every dense layer's h W + b."""
    plan, work = task.plan, task.work
    net.backward(task, plan.output, shard)
    for i in range(plan.n_layers, -1, -1):
        index = dense_of(task, i, HORIZONTAL)
        layer, residual = task.layers[index], task.layers[index + 1]
        net.backward(task, alone(task, index + 1), shard)
        if plan.gated:
            gate_backward(task, layer, net.read(work, residual.dh, residual, shard), shard)
        net.backward(task, alone(task, index), shard)
        if plan.gated:
            one = task.layers[index - 1]
            dv = net.read(work, layer.dh, layer, shard)[:, layer.fan_in - plan.n_channels :]
            if i < plan.n_layers:  # of layer i + 1, in the room that they share
                above = task.layers[dense_of(task, i + 1, VERTICAL)]
                dcols = net.read(work, above.dh, above, shard)
                k.scatter_taps(dcols, task.constants[ABOVE + INVERSE], dv)
            gate_backward(task, one, dv, shard)
            net.backward(task, alone(task, index - 1), shard)
        if i > 0:
            below = task.layers[dense_of(task, i - 1, RESIDUAL)]
            dbelow = net.written(work, below.dy, below, shard)
            k.copy(net.written(work, residual.dy, residual, shard), dbelow)
            k.scatter_taps(seen(task, layer.dh, i, shard), task.constants[INVERSE], dbelow)


def gate_backward(task, layer, dy, shard):
    """Through the gate behind a dense layer, from dy to the gradient by the layer's output."""
    a = net.written(task.work, layer.y, layer, shard)
    k.gate_backward(dy[:, 0:], a, net.written(task.work, layer.dy, layer, shard))


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a dense layer's gradient; there are no other parameters."""
    net.block_gradient(task, block, batch, worker)


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """x from p(x), one pixel after the other; row i is a function of (seed, first_row + i)."""
    plan, work = task.plan, task.work
    u, x = region(work, plan.u, shard), region(work, plan.x, shard)
    k.random_uniform(seed, STREAM_SAMPLE, 0, first_row, u)
    for d in range(plan.n_features):
        if d % plan.width == 0:
            lines_above(task, shard, d, d + plan.width, plan.n_features)
        logits = forward(task, shard, d, plan.n_features)
        k.bernoulli_draw(logits[:, d : d + 1], u[:, d : d + 1], x[:, d : d + 1])


# --- the estimator --------------------------------------------------------------------------------


class PixelCNN(Model):
    """PixelCNN of binary images, trained by maximum likelihood.

    p(x) = product over d of p(x_d | x_<d), pixels line by line; ln p(x) is exact (van den Oord et
    al. 2016). Minimises the mean over rows of -ln p(x), in nats.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    parameters_ : dict of name to array, views of the live parameters, each with a weight and a
        bias: vertical.i, horizontal.i and residual.i of layer i (no vertical ones if not gated),
        output.0, logit
    history_ : dict of lists, one value per epoch: loss, nll, log_likelihood (means over the epoch's
        rows, nats), gradient_norm, seconds, and valid_log_likelihood, valid_nll if there are
        held-out rows
    n_epochs_ : int, passes made; best_epoch_ : int from 1, the one with the best held-out score
    n_features_in_ : int, D; seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    score_kind, sampling = "exact", "sequential"
    EPOCHS = 3
    SETTINGS = {
        "n_layers": whole(5, "L, the number of layers above the first one", high=256),
        "n_channels": whole(16, "R, features of a pixel in each layer", high=4096),
        "first_kernel": whole(7, "pixels on a side that the first layer sees; odd", low=3, high=15),
        "kernel": whole(3, "pixels on a side that each other layer sees; odd", low=3, high=15),
        "gated": truth(
            True, "two stacks with gates, of the lines above and of the pixel's own, which see all "
            "pixels before it; or one plain stack, which is faster and has a blind spot",
        ),
        "image_shape": IMAGE_SHAPE,
        "binarize": BINARIZED,
        **settings.with_defaults(COMMON, learning_rate=((2, 2e-3), (1, 3e-4)), batch_size=16),
        "epochs": settings.epochs(EPOCHS),
    }  # fmt: skip

    def __init__(
        self,
        n_layers=5,
        *,
        n_channels=16,
        first_kernel=7,
        kernel=3,
        gated=True,
        image_shape=None,
        binarize=None,
        optimizer="adam",
        learning_rate=((2, 2e-3), (1, 3e-4)),
        momentum=0.0,
        weight_decay=0.0,
        batch_size=16,
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
        self.n_layers = n_layers
        self.n_channels = n_channels
        self.first_kernel = first_kernel
        self.kernel = kernel
        self.gated = gated
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
            "image_shape": None if self.image_shape is None else tuple(map(int, self.image_shape)),
            "n_layers": int(self.n_layers),
            "n_channels": int(self.n_channels),
            "first_kernel": int(self.first_kernel),
            "kernel": int(self.kernel),
            "gated": int(self.gated),
        }

    def _check_family(self):
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}={getattr(self, name)!r} has no middle: set an odd number")

    def _check_width(self, n_features):
        image_size(self.image_shape, n_features)

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
