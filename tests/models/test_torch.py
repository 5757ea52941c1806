"""The gradients beside those of PyTorch's autograd, and its optimisers beside ours."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from minivae import GAN, NADE, VAE, Flow, PixelCNN, PixelRNN, WaveNet
from minivae.kernels import ACTIVATIONS, OPTIMIZERS, STREAM_POSTERIOR
from minivae.kernels.tables import reference
from minivae.models.vae.likelihoods import PLAIN
from minivae.training.order import shuffled

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[bench]'")
pytestmark = pytest.mark.slow
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import torch_families  # noqa: E402

FUNCTIONS = {
    "identity": lambda a: a,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}


def loss_in_torch(vae, p, x, eps):
    """The loss as a user of PyTorch would write it: p maps names to tensors that want gradients."""
    f, n_hidden = FUNCTIONS[vae.activation], len(vae.hidden_layer_sizes)
    h = torch.nan_to_num(x)
    for i in range(n_hidden):
        h = f(h @ p[f"encoder.{i}.weight"] + p[f"encoder.{i}.bias"])
    mu = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    logvar = h @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
    posterior = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    h = mu + posterior.stddev * eps
    for i in range(n_hidden):
        h = f(h @ p[f"decoder.{i}.weight"] + p[f"decoder.{i}.bias"])
    y = h @ p["decoder.out.weight"] + p["decoder.out.bias"]
    known = ~torch.isnan(x)
    x = torch.where(known, x, 0)
    if vae.likelihood == "bernoulli":
        entries = torch.nn.functional.binary_cross_entropy_with_logits(y, x, reduction="none")
    else:
        std = torch.exp(p["decoder.noise_logvar"] / 2)
        entries = -torch.distributions.Normal(y, std).log_prob(x)
    kl = torch.distributions.kl_divergence(posterior, prior)
    return ((known * entries).sum(1) + vae.beta * kl.sum(1)).mean()


def tensors(vae):
    return {name: torch.tensor(a, requires_grad=True) for name, a in vae.parameters_.items()}


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("likelihood", PLAIN)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_those_of_automatic_differentiation(activation, likelihood, device):
    rng = np.random.default_rng(0)
    X, eps = rng.random((9, 13)), rng.standard_normal((9, 3))
    vae = VAE(3, hidden_layer_sizes=(11, 7), activation=activation, likelihood=likelihood, beta=0.7,
              dtype="float64", device=device, random_state=0)  # fmt: skip
    loss, gradients = vae.loss_and_gradients(X, eps)
    p = tensors(vae)
    expected = loss_in_torch(vae, p, torch.tensor(X), torch.tensor(eps))
    expected.backward()
    # Some hundred roundings in sums of numbers near 1.
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, p[name].grad.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("likelihood", PLAIN)
def test_gradients_with_missing_values(likelihood, device):
    rng = np.random.default_rng(0)
    X, eps = rng.random((9, 13)), rng.standard_normal((9, 3))
    X[rng.random((9, 13)) < 0.3] = np.nan
    vae = VAE(3, hidden_layer_sizes=(11, 7), likelihood=likelihood, beta=0.7, missing="mask",
              dtype="float64", device=device, random_state=0)  # fmt: skip
    loss, gradients = vae.loss_and_gradients(X, eps)
    p = tensors(vae)
    expected = loss_in_torch(vae, p, torch.tensor(X), torch.tensor(eps))
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, p[name].grad.numpy(), rtol=1e-10, atol=1e-13)


# Families whose loss on given rows is a function of the parameters alone, in every setting that
# benchmarks/torch_families.py has.
EXACT = [
    NADE(7),
    PixelRNN(5, n_hidden=4, image_shape=(3, 4)),
    PixelCNN(2, n_channels=3, image_shape=(3, 4)),
    PixelCNN(2, n_channels=3, image_shape=(3, 4), gated=False),
    WaveNet(3, n_skip=4, max_dilation=4, n_stacks=2),
    Flow(3, hidden_layer_sizes=(5, 4), activation="tanh", dequantize=None),
    Flow(4, hidden_layer_sizes=(6,), dequantize=None, coupling="additive", prior="normal"),
]


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("model", EXACT, ids=str)
def test_gradients_of_a_family(model, device):
    """Of the loss as a user of PyTorch would write it, after a few updates: not at 0."""
    X = (np.random.default_rng(0).random((9, 12)) > 0.5).astype(float)
    model = clone(model).set_params(dtype="float64", device=device, random_state=0, epochs=3)
    loss, gradients = model.fit(X).loss_and_gradients(X)
    p = tensors(model)
    expected = torch_families.LOSSES[model.program.NAME](model, p, torch.tensor(X))
    expected.backward()
    # Some hundred roundings in sums of numbers near 1.
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, p[name].grad.numpy(), rtol=1e-10, atol=1e-13)


def test_gradients_of_both_players_of_a_gan():
    X = (np.random.default_rng(0).random((9, 12)) > 0.5).astype(float)
    gan = GAN(3, generator_sizes=(5,), discriminator_sizes=(4,), dtype="float64", epochs=3,
              device="reference", random_state=0).fit(X)  # fmt: skip
    loss, gradients = gan.loss_and_gradients(X)
    p, z = tensors(gan), torch.tensor(gan.trace(X)["eps"])
    expected = torch_families.gan(gan, p, torch.tensor(X), z)
    expected.backward()
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, p[name].grad.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_thirty_steps_of_each_optimiser(optimizer):
    settings = {"sgd": {"momentum": 0.9}, "adam": {}, "adagrad": {}}[optimizer]
    X = np.random.default_rng(1).random((16, 6))
    vae = VAE(2, hidden_layer_sizes=(5,), activation="tanh", dtype="float64", device="reference",
              optimizer=optimizer, learning_rate=0.01, weight_decay=0.1, batch_size=16,
              random_state=0, **settings)  # fmt: skip
    vae.loss_and_gradients(X)
    p = tensors(vae)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}
    peer = kinds[optimizer](list(p.values()), lr=0.01, weight_decay=0.1, **settings)
    for step in range(30):
        order = shuffled(16, vae.seed_, step)
        eps = np.empty((16, 2))
        reference.random_normal(vae.seed_, STREAM_POSTERIOR, step, 0, eps)
        peer.zero_grad()
        loss_in_torch(vae, p, torch.tensor(X[order]), torch.tensor(eps)).backward()
        peer.step()
        vae.partial_fit(X)
    for name, parameter in vae.parameters_.items():
        np.testing.assert_allclose(parameter, p[name].detach().numpy(), rtol=1e-9, atol=1e-12)
