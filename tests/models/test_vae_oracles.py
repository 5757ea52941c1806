"""The VAE beside numbers that one latent variable and quadrature give exactly.

p(x) = integral of N(z; 0, 1) p(x|z) dz by the trapezoidal rule, which for a smooth function that
vanishes at both ends is exact to rounding once the step is small enough; p(x|z) comes from the
decoder's means, which `inverse_transform` gives.
"""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from minivae import VAE
from minivae.models.vae.likelihoods import PLAIN

ROWS = np.array(list(itertools.product([0.0, 1.0], repeat=8)))  # all 2^8 rows
DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])
# Var(x|z), by likelihood, for its mean and the model's parameters.
VARIANCES = {
    "bernoulli": lambda mean, p: mean * (1 - mean),
    "gaussian": lambda mean, p: np.exp(p["decoder.noise_logvar"]) * np.ones_like(mean),
}


def wild(likelihood, device="cpu"):
    """A model whose decoder bends: it was never trained, and its weights are large."""
    model = VAE(1, hidden_layer_sizes=(5,), activation="tanh", likelihood=likelihood,
                dtype="float64", device=device, random_state=0)  # fmt: skip
    model.loss_and_gradients(ROWS)
    rng = np.random.default_rng(3)
    for name, view in model.parameters_.items():
        view[...] = rng.normal(0, 1.5 if name.startswith("decoder") else 0.5, view.shape)
    return model


def decoder_means(model, nodes=2001):
    """(weights (nodes,) that sum to 1, E[x|z] (nodes, D)) for z of N(0, 1)."""
    z = np.linspace(-9, 9, nodes)
    weights = np.exp(-(z**2) / 2)  # of which 1e-18 lies outside
    return weights / weights.sum(), model.inverse_transform(z[:, None])


def exact_log_p(model):
    """ln p(x) of all rows (256,)."""
    weights, p = decoder_means(model)
    joint = np.prod(np.where(ROWS[:, None] == 1, p, 1 - p), axis=2)  # (256, nodes)
    return np.log(joint @ weights)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", PLAIN)
@DEVICE
def test_samples_have_the_moments_of_the_model(likelihood, device):
    """E x = E m(z), and Cov x = Cov m(z) + diag E Var(x|z), for the decoder's means m.

    The mean of n draws of a number has the standard error s / sqrt(n), s its standard deviation:
    also where the number is (x_i - E x_i) (x_j - E x_j). A right sampler stays within 5 of them
    with probability 1 - 6e-7 for each number, and there are 44 here.
    """
    model, n = wild(likelihood, device), 40_000
    weights, m = decoder_means(model)
    mean = weights @ m
    covariance = (weights * (m - mean).T) @ (m - mean)
    covariance += np.diag(weights @ VARIANCES[likelihood](m, model.parameters_))
    x = model.sample(n, random_state=1)
    assert x.shape == (n, 8) and np.isfinite(x).all()
    if likelihood == "bernoulli":
        assert set(np.unique(x)) == {0, 1}
    assert (abs(x.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    i, j = np.triu_indices(8)
    products = (x - mean)[:, i] * (x - mean)[:, j]
    error = products.std(axis=0) / n**0.5
    assert (abs(products.mean(axis=0) - covariance[i, j]) < 5 * error).all()
    assert (abs(covariance[i, j])[i != j] > 20 * error[i != j]).mean() > 0.3  # it says something


def test_every_likelihood_is_here():
    assert VARIANCES.keys() == set(PLAIN)


def test_frequencies_of_samples_are_the_exact_probabilities():
    """By chi-square over all rows, the rare ones together."""
    model, n = wild("bernoulli"), 40_000
    p = np.exp(exact_log_p(model))
    assert abs(p.sum() - 1) < 1e-12
    draws = model.sample(n, random_state=2) @ 2 ** np.arange(8)[::-1]
    counts, rare = np.bincount(draws.astype(int), minlength=256), n * p < 5
    observed = [*counts[~rare], counts[rare].sum()]
    expected = [*(n * p[~rare]), n * p[rare].sum()]
    assert (~rare).sum() > 50
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4


# --- bounds -------------------------------------------------------------------------------------


@DEVICE
def test_the_elbo_is_below_the_score_which_is_below_the_exact_log_likelihood(device):
    """In expectation, for each of all rows; standard errors are those over independent seeds."""
    model, seeds = wild("bernoulli", device), 20
    exact = exact_log_p(model)
    assert abs(np.exp(exact).sum() - 1) < 1e-12
    elbos, few, many = (np.empty((seeds, 256)) for _ in range(3))
    for seed in range(seeds):
        model.seed_ = seed
        elbos[seed] = model.elbo(ROWS, n_samples=20, random_state=seed)
        few[seed], many[seed] = (model.score_samples(ROWS, K) for K in (5, 200))
    for lower, upper in ((elbos, few), (few, many), (many, np.tile(exact, (seeds, 1)))):
        gap, error = (upper - lower).mean(axis=0), (upper - lower).std(axis=0) / seeds**0.5
        assert (gap > -5 * error).all()
        assert gap.mean() > 0
    assert (exact - elbos.mean(axis=0)).mean() > 0.5  # nats: far below, for this encoder
    # The logarithm of a mean of weights is low by half its relative variance; the rest is chance.
    low, spread = exact - many.mean(axis=0), many.std(axis=0)
    near = spread < 0.3
    assert near.sum() > 50
    assert (abs(low - spread**2 / 2)[near] < (5 * spread / seeds**0.5 + spread**2)[near]).all()


def test_quadrature_has_converged():
    for likelihood in PLAIN:
        model = wild(likelihood)
        expected = np.matmul(*decoder_means(model, 4001))
        assert_allclose(np.matmul(*decoder_means(model)), expected, rtol=1e-12)
