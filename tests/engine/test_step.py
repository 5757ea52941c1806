"""The step program as a whole, on two machines: gradients, the loss they belong to, training.

Chain of trust: loss written here with scipy = loss of the reference -> its gradient by finite
differences and by the complex step -> the compiled machine -> training on either.
"""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from minivae import VAE, kernels
from minivae.engine.layout import Layout
from minivae.engine.machine import machine
from minivae.engine.task import terms
from minivae.evaluation.gradcheck import check_gradient
from minivae.kernels.tables import reference
from minivae.models.vae import program
from minivae.models.vae.likelihoods import PLAIN
from minivae.training.order import shuffled

D, Z = 7, 2
DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])
LIKELIHOOD = pytest.mark.parametrize("likelihood", PLAIN)
SMOOTH = [name for name in kernels.ACTIVATIONS if name != "relu"]


def data(n=6, likelihood="bernoulli", seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) if likelihood == "gaussian" else rng.random((n, D))


def vae(**settings):
    return VAE(**{**dict(latent_dim=Z, hidden_layer_sizes=(5,), activation="tanh", dtype="float64",
                         device="reference", random_state=0), **settings})  # fmt: skip


def shaken(X, **settings):
    """A model away from the start: fresh biases are 0, which would hide mistakes in their terms."""
    model = vae(**settings)
    model.loss_and_gradients(X)
    rng = np.random.default_rng(1)
    for view in model.parameters_.values():
        view += rng.normal(0, 0.3, view.shape)
    return model


def layout_of(n_features, hidden, latent_dim, activation, likelihood):
    return Layout(program, n_features, hidden_layer_sizes=hidden, latent_dim=latent_dim,
                  activation=activation, likelihood=likelihood, missing="error")  # fmt: skip


def require_passed(report, model, kinks=0):
    """Passed, and every entry of every parameter was looked at."""
    assert report.passed, str(report)
    assert report.worst <= 1e-6
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}
    assert report.kinks == kinks


# --- gradients against finite differences -------------------------------------------------------


SLOW = pytest.mark.slow  # seconds each; compiled, they are among the fast ones
ARCHITECTURES = [
    *[("cpu", hidden) for hidden in [(), (5,), (5, 4), (5, 4, 3)]],
    *[("reference", hidden) for hidden in [(), (5,)]],
    *[pytest.param("reference", hidden, marks=SLOW) for hidden in [(5, 4), (5, 4, 3)]],
]


@pytest.mark.parametrize(("device", "hidden"), ARCHITECTURES, ids=str)
@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@LIKELIHOOD
def test_every_gradient_of_every_architecture(likelihood, activation, device, hidden):
    X = data(likelihood=likelihood)
    model = shaken(X, device=device, likelihood=likelihood, activation=activation,
                   hidden_layer_sizes=hidden)  # fmt: skip
    require_passed(model.check_gradients(X), model)


VARIANTS = [  # rows, settings
    (6, dict(beta=0.0)),
    (6, dict(beta=4.0)),
    (6, dict(beta=4.0, likelihood="gaussian")),
    (1, dict(activation="relu", hidden_layer_sizes=(5, 4))),
    (1, dict(activation="softplus", likelihood="gaussian")),
    (6, dict(activation="sigmoid", binarize="stochastic")),
    (6, dict(activation="identity", binarize="threshold")),
    (6, dict(latent_dim=1, hidden_layer_sizes=(1,), likelihood="gaussian")),
    (6, dict(latent_dim=9, hidden_layer_sizes=())),
    (6, dict(dtype="float32", activation="relu")),
]


@pytest.mark.parametrize(("rows", "settings"), VARIANTS, ids=str)
@DEVICE
def test_every_gradient_of_variants(device, rows, settings):
    X = data(rows, settings.get("likelihood"))
    model = shaken(X, **settings, device=device)
    require_passed(model.check_gradients(X), model)


@DEVICE
def test_kinks_of_relu_are_recognised(device):
    """A row of zeros meets a bias of 0: this unit sits on its kink exactly."""
    X = data()
    X[2] = 0
    model = shaken(X, activation="relu", device=device)
    model.parameters_["encoder.0.bias"][1] = 0
    report = model.check_gradients(X)
    require_passed(report, model, kinks=1)
    assert report.inputs["encoder.0.bias"].kinks == 1


@pytest.mark.parametrize("activation", SMOOTH)
@LIKELIHOOD
def test_complex_step_through_the_whole_program(likelihood, activation):
    """Im loss(theta + i h e_j) / h is the derivative to rounding: twelve digits, none lost."""
    X, layout = data(likelihood=likelihood), layout_of(D, (5, 4), Z, activation, likelihood)
    rng = np.random.default_rng(2)
    theta, eps = rng.normal(0, 0.5, layout.n_parameters), rng.normal(size=(len(X), Z))
    source = machine(program, "reference")

    def run(theta):
        session = source.session(source, layout, [1.0, 1.5], theta, len(X))
        batch = session.batch(len(X))
        session.view("x", batch.B)[:], session.view("eps", batch.B)[:] = X, eps
        session.step.loss_and_gradient(session.task, batch)
        losses = np.array(session.task.recipe.weights) @ terms(session.task, batch.B)
        return losses, session.task.gradient

    report = check_gradient(
        lambda theta: run(theta)[0].mean(), lambda theta, _: [run(theta)[1]], [theta],
        dout=[np.array(1.0)], method="complex",
    )  # fmt: skip
    assert report.passed, str(report)
    assert report.worst <= 1e-12
    assert report.inputs["inputs[0]"].checked == layout.n_parameters


# --- the loss -----------------------------------------------------------------------------------


def loss_by_scipy(model, X, eps):
    """Mean of nll + beta * kl, in the order of the paper, from the named parameters alone."""
    p = model.parameters_
    f = {"tanh": np.tanh, "softplus": lambda a: np.logaddexp(0, a)}[model.activation]
    h = f(X @ p["encoder.0.weight"] + p["encoder.0.bias"])
    mu = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    std = np.exp((h @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]) / 2)
    h = f((mu + std * eps) @ p["decoder.0.weight"] + p["decoder.0.bias"])
    y = h @ p["decoder.out.weight"] + p["decoder.out.bias"]
    if model.likelihood == "bernoulli":
        nll = -(special.xlog1py(1 - X, -special.expit(y)) + special.xlogy(X, special.expit(y)))
    else:
        nll = -stats.norm.logpdf(X, y, np.exp(p["decoder.noise_logvar"] / 2))
    kl = (mu**2 + std**2) / 2 - np.log(std) - 0.5
    return (nll.sum(axis=1) + model.beta * kl.sum(axis=1)).mean()


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@LIKELIHOOD
@DEVICE
def test_the_gradient_is_that_of_the_reported_loss(device, likelihood, activation):
    X = data(likelihood=likelihood)
    model = shaken(X, device=device, likelihood=likelihood, activation=activation, beta=3.0)
    eps = np.random.default_rng(3).normal(size=(len(X), Z))
    loss, gradients = model.loss_and_gradients(X, eps)
    # Some hundred operations on numbers of order 10.
    assert_allclose(loss, loss_by_scipy(model, X, eps), rtol=1e-13)
    h = 1e-4  # error h^2 phi''' / 6 + eps_machine * loss / h, both near 1e-9
    for name, view in model.parameters_.items():
        direction = np.random.default_rng(4).normal(size=view.shape)
        view += h * direction
        up = model.loss_and_gradients(X, eps)[0]
        view -= 2 * h * direction
        down = model.loss_and_gradients(X, eps)[0]
        view += h * direction
        slope = (gradients[name] * direction).sum()
        assert_allclose((up - down) / (2 * h), slope, rtol=1e-6, atol=1e-6, err_msg=name)


@DEVICE
@LIKELIHOOD
def test_means_over_rows(likelihood, device):
    """Each row twice: the same loss and gradient. A batch: the mean of its rows."""
    X = data(likelihood=likelihood)
    model = shaken(X, likelihood=likelihood, device=device)
    eps = np.random.default_rng(3).normal(size=(len(X), Z))
    loss, gradients = model.loss_and_gradients(X, eps)
    twice = model.loss_and_gradients(np.repeat(X, 2, axis=0), np.repeat(eps, 2, axis=0))
    rows = [model.loss_and_gradients(X[i : i + 1], eps[i : i + 1]) for i in range(len(X))]
    assert_allclose([twice[0], np.mean([row[0] for row in rows])], loss, rtol=1e-13)
    for name, gradient in gradients.items():
        mean = np.mean([row[1][name] for row in rows], axis=0)
        assert_allclose(twice[1][name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)
        assert_allclose(mean, gradient, rtol=1e-10, atol=1e-13, err_msg=name)


# --- two machines, two dtypes -------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (5,), (20, 10)], ids=str)
@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@LIKELIHOOD
def test_machines_agree_on_loss_and_gradients(likelihood, activation, hidden):
    """Sums of up to 40 products through up to 6 layers and back, each rounded: some hundred
    roundings at most of what is largest in a gradient."""
    X = data(40, likelihood).astype(np.float32)
    settings = dict(likelihood=likelihood, activation=activation, hidden_layer_sizes=hidden)
    source = shaken(X, **settings)
    source.state_.theta[:] = source.state_.theta.astype(np.float32)  # every machine's point
    eps = np.random.default_rng(3).normal(size=(40, Z)).astype(np.float32)
    loss, gradients = source.loss_and_gradients(X, eps)
    for device, dtype in [("cpu", "float64"), ("cpu", "float32"), ("reference", "float32")]:
        model = shaken(X, **settings, device=device, dtype=dtype)
        model.state_.theta[:] = source.state_.theta
        found_loss, found = model.loss_and_gradients(X, eps)
        rounding = 200 * np.finfo(dtype).eps
        assert_allclose(found_loss, loss, rtol=rounding, err_msg=f"{device} {dtype}")
        for name, gradient in gradients.items():
            assert found[name].dtype == dtype
            assert_allclose(found[name], gradient, rtol=0, atol=rounding * abs(gradient).max(),
                            err_msg=f"{device} {dtype} {name}")  # fmt: skip


BATCHES = [  # rows, settings: ten steps each
    # Fewer rows than a batch: a step is an epoch, and leaves its loss in the history.
    (13, dict(batch_size=32, epochs=10, likelihood="gaussian")),
    # The last batch has one row: less than there are workers.
    (33, dict(batch_size=8, epochs=2, binarize="stochastic")),
    # Fewer rows than workers.
    (2, dict(batch_size=2, epochs=10, likelihood="gaussian")),
]


@pytest.mark.parametrize(("rows", "settings"), BATCHES, ids=str)
@pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)
def test_ten_steps_agree_on_both_machines(optimizer, rows, settings):
    """Losses of every epoch and all parameters, for any number of threads."""
    settings = dict(settings, optimizer=optimizer, learning_rate=0.02, weight_decay=0.01,
                    momentum=0.5 * (optimizer == "sgd"))  # fmt: skip
    X = data(rows, settings.get("likelihood")).astype(np.float32)
    expected = vae(**settings, n_threads=1).fit(X)
    assert (expected.state_.steps, expected.state_.epochs) == (10, settings["epochs"])
    assert np.ptp(expected.history_["loss"]) > 0.01
    for n_threads, dtype in product([1, 2, 3], ["float64", "float32"]):
        model = vae(**settings, n_threads=n_threads, device="cpu", dtype=dtype).fit(X)
        assert model.state_.steps == 10
        # 200 roundings as above; the steps that follow from it grow them by little.
        rounding = 10 * 200 * np.finfo(dtype).eps
        for name in ("loss", "nll", "kl", "elbo"):
            assert_allclose(model.history_[name], expected.history_[name], rtol=rounding)
        for name, view in expected.parameters_.items():
            found = model.parameters_[name]
            assert_allclose(found, view, rtol=0, atol=rounding, err_msg=f"{name} {n_threads}")


@pytest.mark.parametrize(("device", "n_threads"), [("reference", 1), ("cpu", 1), ("cpu", 3)])
def test_a_training_step_follows_the_gradient(device, n_threads):
    """One step of SGD on a batch that is not full: rows in the epoch's order, noise of step 0."""
    X = data(13)
    settings = dict(optimizer="sgd", learning_rate=0.5, batch_size=20, epochs=1, device=device)
    start = vae(**settings)
    eps = np.empty((13, Z))
    reference.random_normal(0, kernels.STREAM_POSTERIOR, 0, 0, eps)
    loss, gradients = start.loss_and_gradients(X[shuffled(13, 0, 0)], eps)
    trained = vae(**settings, n_threads=n_threads).fit(X)
    assert_allclose(trained.history_["loss"], [loss], rtol=1e-12)
    for name, view in start.parameters_.items():
        expected = view - 0.5 * gradients[name]
        assert_allclose(trained.parameters_[name], expected, rtol=1e-10, atol=1e-13, err_msg=name)


@DEVICE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_given_is_changed_or_kept_and_dtypes_stay(dtype, device):
    X, eps = data(9).astype(dtype), np.ones((9, Z), dtype)
    for array in (X, eps):
        array.flags.writeable = False
    model = vae(device=device, dtype=dtype, binarize="stochastic", epochs=1, batch_size=4)
    gradients = model.fit(X).loss_and_gradients(X, eps)[1]
    state = model.state_
    codes = model.transform(X)
    results = [*gradients.values(), codes, model.inverse_transform(codes), model.reconstruct(X)]
    results += [model.sample(3), state.theta, state.moments, *model.parameters_.values()]
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    assert {model.elbo(X).dtype, model.score_samples(X, 2).dtype} == {np.dtype("float64")}
    assert not any(np.shares_memory(result, given) for result in results for given in (X, eps))
    before = [gradient.copy() for gradient in gradients.values()]
    model.loss_and_gradients(1 - X, -eps)  # a later call does not write into what was handed out
    assert all(map(np.array_equal, gradients.values(), before))


@DEVICE
def test_noise_is_a_function_of_the_seed_and_is_the_same_forward_and_backward(device):
    X, eps = data(), np.empty((6, Z))
    model = shaken(X, device=device)
    reference.random_normal(model.seed_, kernels.STREAM_POSTERIOR, 0, 0, eps)
    given, drawn = model.loss_and_gradients(X, eps), model.loss_and_gradients(X)
    assert given[0] == drawn[0]
    assert all(map(np.array_equal, given[1].values(), drawn[1].values()))
    assert model.loss_and_gradients(X, 2 * eps)[0] != drawn[0]


def test_streams_of_random_numbers_are_all_different():
    streams = [value for name, value in vars(kernels).items() if name.startswith("STREAM_")]
    assert len(streams) == len(set(streams)) == 17


# --- order and start ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_the_order_of_rows_is_a_permutation_given_by_seed_and_epoch(n):
    orders = {(seed, epoch): shuffled(n, seed, epoch) for seed in (0, 1, 2**62) for epoch in (0, 1)}
    for (seed, epoch), order in orders.items():
        assert sorted(order) == list(range(n))
        assert_array_equal(order, shuffled(n, seed, epoch))
    if n == 1000:
        assert len({tuple(order) for order in orders.values()}) == len(orders)


NAMES = """encoder.0.weight encoder.0.bias encoder.1.weight encoder.1.bias encoder.mu.weight
    encoder.mu.bias encoder.logvar.weight encoder.logvar.bias decoder.0.weight decoder.0.bias
    decoder.1.weight decoder.1.bias decoder.out.weight decoder.out.bias""".split()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_start_is_glorot_uniform_with_zero_biases_and_a_posterior_like_the_prior(dtype):
    layout = layout_of(40, (50, 30), 20, "relu", "gaussian")
    views = layout.named_views(layout.initialise(7, dtype))
    assert list(views) == [*NAMES, "decoder.noise_logvar"]
    shapes = [(40, 50), (50, 30), (30, 20), (30, 20), (20, 30), (30, 50), (50, 40)]
    weights = {name: view for name, view in views.items() if name.endswith("weight")}
    assert [view.shape for view in weights.values()] == shapes
    for name, view in views.items():
        assert view.dtype == dtype
        if name not in weights or name == "encoder.logvar.weight":
            assert not view.any(), name
            continue
        u = view / (6 / sum(view.shape)) ** 0.5  # uniform on (-1, 1): a head has a fan-out of 20
        assert abs(u).max() <= 1
        assert stats.kstest(u.ravel(), "uniform", (-1, 2)).pvalue > 1e-4, name
        assert len(np.unique(u)) > 0.99 * u.size  # 2^23 values: hardly any twice
    assert not np.array_equal(layout.initialise(8, dtype), layout.initialise(7, dtype))


@DEVICE
@LIKELIHOOD
def test_parameters_are_live_views_of_all_that_there_is(likelihood, device):
    X = data(likelihood=likelihood)
    model = vae(device=device, likelihood=likelihood, hidden_layer_sizes=(5, 4))
    eps = np.zeros((len(X), Z))
    before = model.loss_and_gradients(X, eps)[0]
    noise = ["decoder.noise_logvar"] if likelihood == "gaussian" else []
    assert list(model.parameters_) == [*NAMES, *noise]
    for index, view in enumerate(model.parameters_.values()):
        assert np.shares_memory(view, model.state_.theta)
        view[...] = index
    sizes = [view.size for view in model.parameters_.values()]  # no entry has two names or none
    assert np.bincount(model.state_.theta.astype(int)).tolist() == sizes
    assert model.loss_and_gradients(X, eps)[0] != before
