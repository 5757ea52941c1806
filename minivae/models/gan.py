"""GAN, the generative adversarial network (Goodfellow et al. 2014): one player invents, one tells.

A generator makes x = G(z) of noise z, in one step and without a density: p_G is known by its draws
alone. A discriminator gives x the logit l(x), and D(x) = sigmoid(l(x)) is its probability that x is
data and not invented. Each descends a loss of its own,

    d_loss = -ln D(x) - ln(1 - D(G(z)))    by the parameters of the discriminator,
    g_loss = -ln D(G(z))                   by those of the generator,   z ~ N(0, I).

For given G the first, E_p[softplus(-l)] + E_pG[softplus(l)], is least where for every x
p(x) sigmoid(-l) = p_G(x) sigmoid(l): l = ln p(x) - ln p_G(x), and there it is ln 4 - 2 JSD(p, p_G).
So D shows G the way to p, and where p_G = p nothing can be told: l = 0, d_loss = ln 4.

Both gradients are taken at the same parameters, and all are updated in one step. The discriminator
runs twice. First over x and G(z), two rows for each row of the batch: dL/dl is s(l) - 1 for the
first and s(l) for the second, s = sigmoid, and a layer's gradient is one product over both. Then,
as the judge, over G(z) alone, with arrays of its own: dL/dl = s(l) - 1 goes back through the same
weights, which get no gradient of it, to dL/dG(z), and on through the generator. The derivation of
`adversarial_losses` in kernels/adversarial/reference.py says why it does not descend ln(1 - D).

There is no common loss: g_loss falls where G gets better, and where D gets worse. So no epoch is
the best by any score, and the samples have to be looked at. What the family pays: no ln p(x), no
code for an x, and a game that need not come to its end. A discriminator that lags behind leads the
generator in circles, and often to one x for all z. So its steps are larger, by `discriminator_rate`
(two time scales: Heusel et al. 2017).
"""

import sys
from dataclasses import replace
from typing import NamedTuple

from minivae.engine import net
from minivae.engine.layout import Net, Region
from minivae.engine.task import column, load_rows, region
from minivae.kernels import ACTIVATIONS, IDENTITY, STREAM_PRIOR, STREAM_SAMPLE
from minivae.kernels.tables import reference as k
from minivae.models.base import Model
from minivae.models.settings import COMMON, SIZES, choice, real, whole, with_defaults

NAME = "gan"
TERMS = ("d_loss", "g_loss")
SCORE = None
LOSSES = {"discriminator.": ("d_loss",), "generator.": ("g_loss",)}
OUTPUTS = ("sigmoid", "identity")
NO_LIKELIHOOD = (
    "a gan has no likelihood, so no score_samples and no score: look at sample(n), or take a "
    "family that has ln p(x), such as nade or flow"
)


class Plan(NamedTuple):
    """The model as whole numbers: D features, Z numbers of noise."""

    x: Region  # (B, D)
    z: Region  # (B, Z), called eps as what is drawn from N(0, I) is
    both: Region  # (B, 2 D) x | G(z): seen as (2 B, D) by the discriminator
    generator: Net  # from z to (B, D)
    discriminator: Net  # from both to logits (2 B, 1)
    judge: Net  # the same parameters, from G(z) to logits (B, 1)
    logits: Region  # (B, 2) those of the discriminator
    dlogits: Region
    d_loss: Region  # (B, 1)
    g_loss: Region


def make_plan(layout, n_features, *, latent_dim, generator_sizes, discriminator_sizes, activation,
              output, discriminator_rate):  # fmt: skip
    """Two stacks of dense layers, and the discriminator's a second time."""
    D, code, out = n_features, ACTIVATIONS.index(activation), ACTIVATIONS.index(output)
    x, z = layout.region("x", D), layout.region("eps", latent_dim)
    both = layout.region("both", D, 2)
    generator = layout.dense("generator", z, None, generator_sizes, {"generator.out": D}, code, out)
    discriminator = layout.dense(
        "discriminator", both, None, discriminator_sizes, {"discriminator.out": 1}, code, IDENTITY,
        pace=discriminator_rate,
    )  # fmt: skip
    judge = layout.reuse("judge", discriminator, generator.y, generator.dy)
    return Plan(x, z, both.side_by_side(), generator, discriminator, judge,
                discriminator.y.side_by_side(), discriminator.dy.side_by_side(),
                layout.regions["d_loss"], layout.regions["g_loss"])  # fmt: skip


def weights():
    """The weight of each term for the player who descends it."""
    return {"d_loss": 1.0, "g_loss": 1.0}


# --- the first half of a step: some rows of a batch -----------------------------------------------


def load(task, rows, shard, step):
    """x, and the noise z."""
    plan, work = task.plan, task.work
    load_rows(task, rows, region(work, plan.x, shard), None, shard, step)
    k.random_normal(task.recipe.seed, STREAM_PRIOR, step, shard.first, region(work, plan.z, shard))


def rows_pass(task, shard):
    """Both losses, and the gradient of each by the layers of its own player."""
    plan, work, weights = task.plan, task.work, task.recipe.weights
    judged = forward(task, shard)
    k.adversarial_losses(
        region(work, plan.logits, shard), judged, weights[0] / shard.B, weights[1] / shard.B,
        column(work, plan.d_loss, shard), column(work, plan.g_loss, shard),
        region(work, plan.dlogits, shard), region(work, plan.judge.dy, shard),
    )  # fmt: skip
    net.backward(task, plan.discriminator, shard)
    net.backward(task, plan.judge, shard)
    net.backward(task, plan.generator, shard)


def terms_pass(task, shard):
    """Both losses of each row."""
    plan, work = task.plan, task.work
    judged = forward(task, shard)
    k.adversarial_losses(region(work, plan.logits, shard), judged, 1.0, 1.0,
                         column(work, plan.d_loss, shard), column(work, plan.g_loss, shard),
                         None, None)  # fmt: skip


def forward(task, shard):
    """From z to G(z), and all logits; those of the judge."""
    plan, work = task.plan, task.work
    invented = net.forward(task, plan.generator, shard)
    k.join_columns(region(work, plan.x, shard), invented, region(work, plan.both, shard))
    net.forward(task, plan.discriminator, shard)
    return net.forward(task, plan.judge, shard)


# --- the second half: some of the parameters ------------------------------------------------------


def block_gradient(task, block, batch, worker):
    """The worker's part of a dense layer's gradient; the judge's layers have no block."""
    net.block_gradient(task, task.blocks[block].layer, batch, worker)


# --- drawing from the model -----------------------------------------------------------------------


def draw(task, shard, seed, first_row):
    """x = G(z); row i is a function of (seed, first_row + i)."""
    plan, work = task.plan, task.work
    k.random_normal(seed, STREAM_SAMPLE, 0, first_row, region(work, plan.z, shard))
    k.copy(net.forward(task, plan.generator, shard), region(work, plan.x, shard))


# --- the estimator --------------------------------------------------------------------------------


class GAN(Model):
    """Generative adversarial network of dense layers: a generator against a discriminator.

    The discriminator D tells data from x = G(z), z of N(0, I), and minimises the mean over rows of
    -ln D(x) - ln(1 - D(G(z))); the generator minimises that of -ln D(G(z)), in nats (Goodfellow et
    al. 2014). There is no ln p(x), so no score: `history_` says how the game stands, samples say
    what the generator is worth.

    Parameters
    ----------
    {settings}

    Attributes
    ----------
    score_kind : None
    parameters_ : dict of name to array, views of the live parameters: generator.0.weight, ...,
        generator.out.weight, discriminator.0.weight, ..., discriminator.out.weight, with their
        biases
    history_ : dict of lists, one value per epoch: d_loss, g_loss and their sum loss (means over the
        epoch's rows, nats), gradient_norm, seconds, and valid_d_loss, valid_g_loss if there are
        held-out rows; d_loss is ln 4 = 1.386 where the discriminator tells nothing
    n_epochs_ : int, passes made
    n_features_in_ : int, D
    seed_ : int, the seed of every random number that the model draws
    """

    program = sys.modules[__name__]
    sampling = "parallel"
    is_bernoulli = False
    patience = None  # no epoch is the best
    likelihood_in_words = "a generator whose output is a sigmoid"
    instead_of_bernoulli = ", or set output='identity' for continuous values"
    SETTINGS = {
        "latent_dim": whole(64, "Z, how many numbers of noise the generator makes x of",
                            high=2**16),
        "generator_sizes": replace(
            SIZES, default=(256,), option="", help="units of each hidden layer of the "
            "generator, from the noise to the data; or none",
        ),
        "discriminator_sizes": replace(
            SIZES, default=(128,), option="", help="units of each hidden layer of the "
            "discriminator, from the data to the logit; or none; with two layers it is soon sure "
            "of images, and the generator learns nothing more",
        ),
        "activation": choice("relu", ACTIVATIONS, "after each hidden layer"),
        "output": choice(
            "sigmoid", OUTPUTS, "of the generator: 'sigmoid' for X in [0, 1], such as images, "
            "'identity' for X that is continuous, with any values",
        ),
        "discriminator_rate": whole(
            3, "the discriminator's learning rate, in multiples of that of the generator, which is "
            "learning_rate; with 1 it often lags behind, and all samples become the same",
            high=1000,
        ),
        "beta1": real(
            0.5, "of adam, at least 0 and below 1: how much of the mean gradient is that of the "
            "steps before, which were against another opponent", high=1,
        ),
        **{
            name: setting for name, setting in
            with_defaults(COMMON, learning_rate=2e-4).items() if name != "patience"
        },
    }  # fmt: skip

    def __init__(
        self,
        latent_dim=64,
        *,
        generator_sizes=(256,),
        discriminator_sizes=(128,),
        activation="relu",
        output="sigmoid",
        discriminator_rate=3,
        beta1=0.5,
        optimizer="adam",
        learning_rate=2e-4,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=128,
        epochs=None,
        validation_fraction=0.0,
        dtype="float32",
        device="cpu",
        matmul_precision="float32",
        n_threads=None,
        random_state=None,
        verbose=0,
    ):
        self.latent_dim = latent_dim
        self.generator_sizes = generator_sizes
        self.discriminator_sizes = discriminator_sizes
        self.activation = activation
        self.output = output
        self.discriminator_rate = discriminator_rate
        self.beta1 = beta1
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.validation_fraction = validation_fraction
        self.dtype = dtype
        self.device = device
        self.matmul_precision = matmul_precision
        self.n_threads = n_threads
        self.random_state = random_state
        self.verbose = verbose

    def plan_settings(self):
        return {
            "latent_dim": int(self.latent_dim),
            "generator_sizes": tuple(map(int, self.generator_sizes)),
            "discriminator_sizes": tuple(map(int, self.discriminator_sizes)),
            "activation": self.activation,
            "output": self.output,
            "discriminator_rate": int(self.discriminator_rate),
        }

    @property
    def on_unit_interval(self):
        return self.output == "sigmoid"

    @property
    def score_samples(self):
        """AttributeError: a generator says how x is drawn, and not with which density."""
        raise AttributeError(NO_LIKELIHOOD)

    @property
    def score(self):
        """AttributeError, as of `score_samples`; to scikit-learn there is none of both."""
        raise AttributeError(NO_LIKELIHOOD)

    def sample(self, n_samples=1, random_state=None):
        """Draws of x from the model, (n_samples, D): the generator's output for new noise. Row i is
        a function of the seed and i.

        random_state None takes the estimator's own: an int there repeats the same draws in every
        call, None draws afresh.
        """
        self._check_loaded()
        return self._draws(n_samples, random_state)
