"""ln p(x) by quadrature, beside the linear Gaussian model, sums over all x, and sampling."""

import itertools
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from minivae import VAE, LinearGaussian
from minivae.evaluation import quadrature

RNG = np.random.default_rng(0)
DATA = 2 + RNG.normal(size=(30, 2)) @ RNG.normal(size=(2, 6)) + 0.5 * RNG.normal(size=(30, 6))
BITS = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])
LATENTS = pytest.mark.parametrize("Z", [1, 2])


def linear(Z, device="reference", data=DATA, noise=None, **settings):
    """(a linear VAE, the LinearGaussian whose decoder it has)."""
    exact = LinearGaussian(Z, solver="closed").fit(DATA).set_params(missing="mask")
    exact.noise_variance_ = noise or exact.noise_variance_
    model = VAE(Z, hidden_layer_sizes=(), likelihood="gaussian", dtype="float64", device=device,
                epochs=1, random_state=0, **settings).fit(data)  # fmt: skip
    set_to(model, {"weight": exact.components_, "bias": exact.mean_},
           np.log(exact.noise_variance_))  # fmt: skip
    return model, exact


def set_to(model, out, noise_logvar):
    for name, value in out.items():
        model.parameters_[f"decoder.out.{name}"][...] = value
    model.parameters_["decoder.noise_logvar"][...] = noise_logvar


def bent(Z, device="reference", **settings):
    """A model of bits whose decoder bends, never trained."""
    model = VAE(Z, hidden_layer_sizes=(5,), activation="tanh", dtype="float64", device=device,
                random_state=0, binarize="threshold", **settings)  # fmt: skip
    model.loss_and_gradients(BITS)
    rng = np.random.default_rng(1)
    for name, view in model.parameters_.items():
        view[...] = rng.normal(0, 1.5 if name.startswith("decoder") else 0.5, view.shape)
    return model


@DEVICE
@LATENTS
def test_a_linear_decoder_gives_the_ln_p_of_the_linear_gaussian_model(Z, device):
    model, exact = linear(Z, device)
    # Converged to 1e-8 by one halving means converged to rounding; the edge may cost 1e-10.
    assert_allclose(model.quadrature(DATA, 1e-8), exact.score_samples(DATA), rtol=0, atol=1e-9)


@LATENTS
def test_what_is_missing_is_left_out(Z):
    X = np.where(RNG.random(DATA.shape) < 0.4, np.nan, DATA)
    X[2] = np.nan
    model, exact = linear(Z, data=X, missing="mask")
    assert_allclose(model.quadrature(X, 1e-8), exact.score_samples(X), rtol=0, atol=1e-9)


@pytest.mark.parametrize("noise", [1e-2, 1e-4])
def test_narrow_posteriors_are_seen_by_refining(noise):
    """Of deviation 0.04 and 0.004 where the first step is 0.25; the last is beyond the edge."""
    model, exact = linear(1, noise=noise)
    X = np.vstack([DATA[:5], exact.mean_ + 40 * exact.components_])
    found = model.quadrature(X)
    # A narrow posterior makes ln p a large number, so rounding counts: of squares of 40 / noise.
    assert_allclose(found, exact.score_samples(X), rtol=1e-10, atol=1e-9)
    assert_array_equal(model.quadrature(X[:2]), found[:2])  # whoever the neighbours are


def test_a_posterior_too_narrow_or_too_far_out_is_said_to_be(monkeypatch):
    model, exact = linear(2, noise=1e-3)
    monkeypatch.setattr(quadrature, "MAX_NODES", 2**14)
    with pytest.warns(UserWarning, match="3 of 3 rows moved by up to .* too narrow, or too far"):
        model.quadrature(DATA[:3])
    model, exact = linear(2)
    with pytest.warns(UserWarning, match="1 of 2 rows moved by up to inf nats"):
        model.quadrature(np.vstack([DATA[:1], exact.mean_ + 500 * exact.components_[:1]]))


@LATENTS
@DEVICE
def test_probabilities_of_all_rows_add_up_to_1(device, Z):
    log_p = bent(Z, device).quadrature(BITS, 1e-4)
    # What is left after a move of 1e-4 of an analytic integrand is below its square.
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-8)
    assert np.ptp(log_p) > 5  # it says something


@LATENTS
def test_importance_samples_agree(Z):
    """The logarithm of a mean of weights is low by half its relative variance; the rest is chance,
    within 5 standard errors with probability 1 - 6e-7 for each of 16 rows."""
    model, rows, seeds = bent(Z), BITS[::4], 10
    exact, found = model.quadrature(rows), []
    for model.seed_ in range(seeds):
        found.append(model.score_samples(rows, 500))
    spread = np.std(found, axis=0)
    within = 5 * spread / seeds**0.5 + spread**2
    assert (abs(np.mean(found, axis=0) - exact) < within).all() and np.median(within) < 0.5


def test_float32_corners_and_draws_of_pixels():
    """A ReLU decoder's error falls as h^2: a third of the last move is left, and a fifteenth of the
    move before. Parameters of float32 are used as they are, in float64."""
    model = VAE(2, hidden_layer_sizes=(8,), device="reference", binarize="stochastic", epochs=3,
                batch_size=16, random_state=0).fit(BITS)  # fmt: skip
    grey = np.full((4, 6), 0.5)
    coarse, fine = (model.quadrature(BITS[:8], tolerance) for tolerance in (1e-2, 1e-4))
    assert_allclose(coarse, fine, rtol=0, atol=1e-2)
    assert fine.dtype == np.float64
    drawn = model.quadrature(grey)
    assert len(set(drawn)) > 1  # other bits of each row, and the same ones again
    assert_array_equal(model.quadrature(grey), drawn)
    assert model.state_.theta.dtype == np.float32


def test_what_is_refused():
    model = VAE(3, hidden_layer_sizes=(), device="reference", epochs=1).fit(BITS)
    with pytest.raises(ValueError, match=r"^latent_dim is 3, and a grid over z .* up to 2: "):
        model.quadrature(BITS)
    for tolerance in (0, -1, np.nan, np.inf, "1", None):
        with pytest.raises(ValueError, match="tolerance must be a positive number of nats"):
            bent(1).quadrature(BITS, tolerance)
    with pytest.raises(ValueError, match="X has 5 features, but VAE is expecting 6"):
        model.quadrature(BITS[:, :5])
    model = VAE(1, hidden_layer_sizes=(), device="reference", epochs=1).fit(BITS)
    with pytest.warns(UserWarning, match="strictly between 0 and 1"):
        model.quadrature(BITS * 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.quadrature(BITS)
