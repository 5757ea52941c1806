"""GAN: the discriminator's optimum where it is known, one player's step without the other's, two
paces; and mistakes of other people's GANs, planted, which these tests must notice
(docs/known-bugs.md)."""

import math
from unittest import mock

import guards as G
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, special, stats

from minivae import GAN
from minivae.engine.layout import Layout, Net, Region
from minivae.kernels.tables import cpu, reference
from minivae.models import gan as program

DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
X = np.random.default_rng(0).random((12, 4))
PLAYERS = ("discriminator.", "generator.")
SMALL = dict(latent_dim=3, generator_sizes=(5,), discriminator_sizes=(5, 4), activation="tanh",
             dtype="float64", device="reference", random_state=0)  # fmt: skip


def stirred(X, **settings):
    """A small float64 GAN with parameters for X, none of them 0."""
    model = GAN(**SMALL | settings)
    model.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in model.parameters_.values():
        value += rng.normal(0, 0.4, value.shape)
    return model


def logits(model, x):
    """The discriminator's, by NumPy alone."""
    layers = [n[:-7] for n in model.parameters_ if n.startswith("discr") and n.endswith(".weight")]
    for layer in layers:
        x = x @ model.parameters_[f"{layer}.weight"] + model.parameters_[f"{layer}.bias"]
        x = x if layer == layers[-1] else np.tanh(x)
    return x[:, 0]


def inventions(model, z):
    """G(z) of one hidden layer and a sigmoid, by NumPy alone."""
    p = model.parameters_
    h = np.tanh(z @ p["generator.0.weight"] + p["generator.0.bias"])
    return special.expit(h @ p["generator.out.weight"] + p["generator.out.bias"])


def apart(**weights):
    """Within it one loss has a weight of 0, so that nobody descends it."""
    return mock.patch.object(program, "weights", lambda: {"d_loss": 1.0, "g_loss": 1.0} | weights)


# --- losses and gradients -------------------------------------------------------------------------


@DEVICES
def test_losses_are_those_of_probabilities(device):
    """By a forward pass of NumPy alone; 1e-13 is some hundred roundings of numbers of size 1."""
    model = stirred(X, device=device)
    trace = model.trace(X)
    x, invented = trace["x"], inventions(model, trace["eps"])
    assert_allclose(trace["generator.out"], invented, rtol=1e-13)
    data, fake = special.expit(logits(model, x)), special.expit(logits(model, invented))
    assert_allclose(trace["d_loss"], -np.log(data) - np.log1p(-fake), rtol=1e-13)
    assert_allclose(trace["g_loss"], -np.log(fake), rtol=1e-13)


def test_every_gradient_is_of_the_loss_of_its_player():
    report = stirred(X).check_gradients(X)
    assert report.passed and report.worst < 1e-7, str(report)
    exchanged = dict(zip(PLAYERS, (("g_loss",), ("d_loss",)), strict=True))
    for losses in (exchanged, {"": ("d_loss", "g_loss")}):
        with mock.patch.object(program, "LOSSES", losses):
            assert not stirred(X).check_gradients(X).passed


@pytest.mark.parametrize("k", [reference, cpu()], ids=["reference", "cpu"])
def test_losses_of_large_logits_are_finite_and_still_pull(k):
    """Where D is sure that all is invented, ln(1 - D) is flat, and the generator's loss is not."""
    r, f = np.array([-2000.0, 2000.0, 0.0]), np.array([2000.0, -2000.0, 0.0])
    both, judged = np.stack([r, f], axis=1).astype("f4"), f[:, None].astype("f4")
    d_loss, g_loss = np.empty((2, 3), "f4")
    dlogits, djudged = np.empty((3, 2), "f4"), np.empty((3, 1), "f4")
    k.adversarial_losses(both, judged, 1.0, 1.0, d_loss, g_loss, dlogits, djudged)
    assert_allclose(d_loss, [4000, 0, math.log(4)], rtol=1e-6)
    assert_allclose(g_loss, [0, 2000, math.log(2)], rtol=1e-6)
    assert_array_equal(dlogits, [[-1, 1], [0, 0], [-0.5, 0.5]])
    assert_array_equal(djudged[:, 0], [0, -1, -0.5])


# --- the discriminator's optimum ------------------------------------------------------------------


def best_discriminator(model, x, z):
    """Its parameters minimise the mean d_loss over the pairs of rows; the minimum, by BFGS."""
    point = model._point(x, {"eps": z})
    theta = point.session.task.theta
    views = [view for name, view in point.layout.named_views(theta).items() if name[0] == "d"]

    def objective(values):
        for view, value in zip(views, np.split(values, cuts), strict=True):
            view[...] = value.reshape(view.shape)
        point.compute()
        gradients = [g.ravel() for name, g in point.gradients().items() if name[0] == "d"]
        return point.losses(("d_loss",)).mean(), np.concatenate(gradients)

    cuts = np.cumsum([view.size for view in views])[:-1]
    start = np.concatenate([view.ravel() for view in views])
    found = optimize.minimize(objective, start, jac=True, method="BFGS",
                              options=dict(gtol=1e-9, maxiter=2000))  # fmt: skip
    objective(found.x)
    for name, view in point.layout.named_views(theta).items():
        model.parameters_[name][...] = view
    return found.fun


def test_on_a_discrete_space_it_is_the_ratio_of_probabilities():
    """Eight states, one-hot: p and p_G are counts of 32 rows; G(z) = z by weights of identity."""
    p, q = np.array([9, 7, 5, 4, 3, 2, 1, 1]), np.array([1, 2, 2, 5, 3, 8, 4, 7])
    x, z = (np.repeat(np.eye(8), counts, axis=0) for counts in (p, q))
    model = stirred(x, latent_dim=8, generator_sizes=(), discriminator_sizes=(), output="identity")
    model.parameters_["generator.out.weight"][...] = np.eye(8)
    model.parameters_["generator.out.bias"][...] = 0
    least = best_discriminator(model, x, z)
    # With a gradient of 1e-9 and curvatures of p q / (p + q) / 32 > 0.02, l is right to 1e-6.
    assert_allclose(logits(model, np.eye(8)), np.log(p / q), rtol=0, atol=1e-6)
    mean = (p + q) / 2
    jsd = (stats.entropy(p, mean) + stats.entropy(q, mean)) / 2
    assert_allclose(least, math.log(4) - 2 * jsd, rtol=0, atol=1e-9)


def test_between_two_normals_it_is_the_difference_of_their_logarithms():
    """p = N(1, 0.7^2) and p_G = N(0, 1), by their quantiles, so without noise."""
    u = (np.arange(400) + 0.5) / 400
    p, q = stats.norm(1, 0.7), stats.norm(0, 1)
    model = stirred(p.ppf(u)[:, None], latent_dim=1, generator_sizes=(), output="identity",
                    discriminator_sizes=(8,))  # fmt: skip
    model.parameters_["generator.out.weight"][...] = 1
    model.parameters_["generator.out.bias"][...] = 0
    best_discriminator(model, p.ppf(u)[:, None], q.ppf(u)[:, None])
    bulk = np.linspace(-0.4, 2, 25)  # within two standard deviations of both means
    expected = p.logpdf(bulk) - q.logpdf(bulk)
    # Eight units of tanh come within 0.1 of a parabola, which changes by 2.9 there.
    assert abs(logits(model, bulk[:, None]) - expected).max() < 0.1 < np.ptp(expected) / 20


# --- one step -------------------------------------------------------------------------------------


@DEVICES
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
@pytest.mark.parametrize(("still", "moves"), [PLAYERS, PLAYERS[::-1]])
def test_a_step_of_one_player_leaves_the_bytes_of_the_other(still, moves, optimizer, device):
    term = {"generator.": "g_loss", "discriminator.": "d_loss"}
    with apart(**{term[still]: 0.0}):
        model = GAN(**SMALL | dict(device=device, optimizer=optimizer, epochs=3, batch_size=5))
        before = model.new_state(X.shape[1])[1:]
        before = before[0].named_views(before[1].theta)
        model.fit(X)
    for name, value in model.parameters_.items():
        same = value.tobytes() == before[name].tobytes()
        assert same == name.startswith(still), name
        assert name.startswith((still, moves))


def test_a_step_of_the_generator_fools_the_discriminator():
    model = stirred(X, optimizer="sgd", learning_rate=0.1, batch_size=12)
    z = np.random.default_rng(1).standard_normal((500, 3))
    before = -np.logaddexp(0, -logits(model, inventions(model, z))).mean()
    with apart(d_loss=0.0):
        model.partial_fit(X).partial_fit(X)
    after = -np.logaddexp(0, -logits(model, inventions(model, z))).mean()
    assert after > before + 1e-3


@DEVICES
def test_the_discriminator_has_a_pace_of_its_own(device):
    steps = {}
    for rate in (1, 3):
        settings = dict(device=device, optimizer="sgd", learning_rate=0.1, batch_size=12)
        model = stirred(X, **settings, discriminator_rate=rate)
        before = model.state_.theta.copy()
        model.partial_fit(X)
        steps[rate] = model.layout_.named_views(model.state_.theta - before)
    for name, step in steps[1].items():
        times = 3 if name.startswith("discriminator.") else 1
        assert_allclose(steps[3][name], times * step, rtol=1e-9, atol=1e-15, err_msg=name)


def test_it_draws_from_a_normal_distribution_that_it_has_seen():
    x = np.random.default_rng(0).normal(3, 0.5, (1280, 1))
    model = GAN(2, generator_sizes=(8,), discriminator_sizes=(16,), activation="tanh", epochs=200,
                output="identity", learning_rate=2e-3, dtype="float64", random_state=0)  # fmt: skip
    drawn = model.fit(x).sample(5000, random_state=1)
    assert abs(drawn.mean() - 3) < 0.25 and 0.3 < drawn.std() < 0.75
    assert abs(model.history_["d_loss"][-1] - math.log(4)) < 0.1


# --- planted bugs ---------------------------------------------------------------------------------


def generator_trained_towards_zero(logits, judged, d_scale, g_scale, d_loss, g_loss, *gradients):
    """Of a target of 0 for what is invented, loss and gradient, as the discriminator has it."""
    reference.adversarial_losses(logits, judged, d_scale, g_scale, d_loss, g_loss, *gradients)
    g_loss[:] = np.logaddexp(0, judged[:, 0])
    gradients[1][:] = g_scale * special.expit(judged)


def nothing_reaches_the_generator(*arguments):
    reference.adversarial_losses(*arguments)
    arguments[-1][:] = 0


def sigmoid_twice(logits, judged, *rest):
    reference.adversarial_losses(special.expit(logits), special.expit(judged), *rest)
    dlogits, djudged = rest[4:]
    dlogits *= special.expit(logits) * special.expit(-logits)
    djudged *= special.expit(judged) * special.expit(-judged)


def one_cache_for_two_passes(layout, name, net, h, dh):
    """The second pass leaves its outputs, and the gradients by them, where the first has them."""
    first = len(layout._layers)
    for row in layout._layers[net.first : net.last]:
        *same, _, _, y, dy, _ = row
        layout._layers.append((*same, h.start, dh.start, y, dy, h.repeat))
        h, dh = Region(y, row[1]), Region(dy, row[1])
    return Net(first, len(layout._layers), h, dh)


OPTIMUM, LOSSES, GRADIENTS, FOOLED = (
    test_on_a_discrete_space_it_is_the_ratio_of_probabilities,
    lambda: test_losses_are_those_of_probabilities("reference"),
    lambda: stirred(X).check_gradients(X).raise_if_failed(),
    test_a_step_of_the_generator_fools_the_discriminator,
)
PLANTED = [  # number in the list of known bugs, what must notice, kernels
    ("A1", FOOLED, dict(adversarial_losses=generator_trained_towards_zero)),
    ("A2", GRADIENTS, dict(adversarial_losses=nothing_reaches_the_generator)),
    ("A2", FOOLED, dict(adversarial_losses=nothing_reaches_the_generator)),
    ("A3", OPTIMUM, dict(adversarial_losses=sigmoid_twice)),
]


@pytest.mark.parametrize(
    ("guard", "kernels"),
    [
        pytest.param(guard, bugs, id=f"{row}-{next(iter(bugs.values())).__name__}-{i}")
        for i, (row, guard, bugs) in enumerate(PLANTED)
    ],
)
def test_a_planted_bug_is_noticed(guard, kernels):
    with G.running(G.machine_of(reference, program, **kernels)), pytest.raises(AssertionError):
        guard()


def test_one_cache_for_two_passes_is_noticed():  # A4
    with mock.patch.object(Layout, "reuse", one_cache_for_two_passes):
        with pytest.raises(AssertionError, match=r"discriminator\.\d\.weight"):
            GRADIENTS()


@pytest.mark.parametrize("guard", [OPTIMUM, LOSSES, GRADIENTS, FOOLED])
def test_the_true_code_passes(guard):
    with G.running(G.machine_of(reference, program)):
        guard()
