"""A linear VAE trained by our optimiser, against the closed form of probabilistic PCA.

Tipping and Bishop 1999; Lucas et al. 2019 (arXiv 1911.02469): without hidden layers and with a
Gaussian likelihood the best ELBO is ln p(x) of the closed-form optimum, and with the noise held at
s2 a latent is used only where an eigenvalue of the covariance is above s2.
"""

import numpy as np
from numpy.testing import assert_allclose

from minivae import VAE, LinearGaussian

RNG = np.random.default_rng(0)


def data(eigenvalues, n, D=8):
    """Rows (n, D) whose sample covariance has these eigenvalues exactly, 1/4 for the others."""
    white = RNG.normal(size=(n, D))
    white -= white.mean(axis=0)
    white @= np.linalg.inv(np.linalg.cholesky(white.T @ white / n)).T
    scale = np.sqrt(np.r_[eigenvalues, np.full(D - len(eigenvalues), 0.25)])
    return white * scale @ np.linalg.qr(RNG.normal(size=(D, D)))[0].T + RNG.normal(size=D)


def linear(Z, **settings):
    return VAE(Z, hidden_layer_sizes=(), likelihood="gaussian", dtype="float64", random_state=0,
               **settings)  # fmt: skip


def exact_elbo(vae, X):
    """The ELBO of each row with its expectation in closed form, for the decoder as it is."""
    p, decoder = vae.parameters_, LinearGaussian(vae.latent_dim).fit(X)
    decoder.components_, decoder.mean_ = p["decoder.out.weight"], p["decoder.out.bias"]
    decoder.noise_variance_ = float(np.exp(p["decoder.noise_logvar"][0]))
    mu = X @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    logvar = X @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
    return decoder.bound(X, (mu, np.exp(logvar)))


def test_adam_comes_within_a_thousandth_of_a_nat_of_the_optimum():
    X = data([6.0, 3.0, 1.5], 2000)
    rates = [(500, 1e-2), (500, 2e-3), (500, 2e-4)]
    vae = linear(3, learning_rate=rates, epochs=1500, batch_size=200, n_importance=4).fit(X)
    best = LinearGaussian(3, solver="closed").fit(X)
    gap = best.score(X) - exact_elbo(vae, X).mean()
    assert 0 <= gap < 1e-3, gap


def test_with_fixed_noise_those_latents_are_used_whose_eigenvalue_is_above_it():
    """KL_j is 1/2 ln(l_j / s2) in the mean over rows for them, and 0 for the others."""
    X, s2 = data([6.0, 2.5, 0.6], 2000), 1.0
    vae = linear(3, batch_size=500)
    vae.loss_and_gradients(X[:1])
    for rate, epochs in ((1e-2, 200), (1e-3, 200), (1e-4, 50)):
        vae.set_params(learning_rate=rate)
        for _ in range(epochs):
            vae.parameters_["decoder.noise_logvar"][:] = np.log(s2)
            vae.partial_fit(X)
    expected = np.log(np.array([1.0, 2.5, 6.0]) / s2) / 2
    # What four updates of 1e-4 leave of the noise and of the optimiser's own noise.
    assert_allclose(np.sort(vae.kl_per_latent(X)), expected, rtol=0, atol=0.01)
    assert vae.diagnose(X).active.sum() == 2
