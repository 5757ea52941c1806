"""The posterior: its KL divergence by quadrature, gradients, draws and importance weights."""

import math

import numpy as np
import pytest
from kernel_calls import check, draw, gaussian, normals, posterior, posterior_backward
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from minivae.kernels import LOGVAR_BOUND


@pytest.mark.parametrize("Z", [1, 2, 50])
def test_value(Z, k):
    """z has the quantiles of eps; kl is E[ln q - ln p] by quadrature and by determinant."""
    mu, logvar, eps = normals(1, Z), normals(1, Z, seed=1), normals(1, Z, seed=2)
    q = stats.norm(mu.T, np.exp(logvar.T) ** 0.5)
    z, kl = posterior(k, mu, logvar, eps)
    assert_allclose(q.cdf(z.T), stats.norm.cdf(eps.T), rtol=1e-12)
    t, weights = np.polynomial.hermite.hermgauss(9)  # nodes for the weight exp(-t^2)
    nodes = q.mean() + q.std() * math.sqrt(2) * t  # (Z, 9)
    per_latent = (q.logpdf(nodes) - stats.norm.logpdf(nodes)) @ weights / math.sqrt(math.pi)
    assert_allclose(kl, per_latent.sum(), rtol=1e-12)
    trace, logdet = q.var().sum(), np.linalg.slogdet(np.diag(q.var()[:, 0]))[1]
    assert_allclose(kl, (trace + (mu * mu).sum() - Z - logdet) / 2, rtol=1e-12)


def test_gradients(k, logvar_shift=0.0):
    """L = sum(dz * z) + kl_scale * sum(kl), with one eps for both passes."""
    eps, dz, kl_scale = normals(4, 3, seed=2), normals(4, 3, seed=3), 0.3

    def forward(mu, logvar):
        return posterior(k, mu, logvar, eps)

    def backward(mu, logvar, dz, dkl):
        return posterior_backward(k, mu, logvar, eps, dz, dkl[0])

    inputs = [normals(4, 3), normals(4, 3, seed=1) + logvar_shift]
    check(k, forward, backward, inputs, [dz, np.full(4, kl_scale)])


@pytest.mark.parametrize("shift", [-1e3, -40.0, 40.0, 1e3])
def test_beyond_the_bound(shift, k):
    """All is finite and as at the bound of logvar, so the gradient is 0."""
    test_gradients(k, shift)
    mu, logvar, s = normals(4, 3), normals(4, 3, seed=1) + shift, np.array([shift])
    held = np.full_like(logvar, math.copysign(LOGVAR_BOUND, shift))
    z, kl = posterior(k, mu, logvar, mu)
    assert_array_equal(np.c_[z, kl], np.column_stack(posterior(k, mu, held, mu)))
    assert np.isfinite(np.c_[z, kl, gaussian(k, mu, s, logvar)[0]]).all()
    assert (posterior_backward(k, mu, logvar, mu, mu, 1.0)[1] == 0).all()
    assert gaussian(k, mu, s, mu)[2] == 0
    log_w = np.empty((2, 4))
    for l, out in zip((logvar, held), log_w, strict=True):
        k.log_importance_weights(l, mu, z, kl, out)
    assert_array_equal(*log_w)


def test_std(k):
    """(z - mu) / exp(logvar / 2) has mean 0 and std 1 within 4 standard errors."""
    n = 100_000
    eps = draw(k, "normal", (1000, 100), np.float32)
    mu = np.tile(np.linspace(-3, 3, 100, dtype=np.float32), (1000, 1))
    logvar = np.ascontiguousarray(mu[::-1, ::-1] * 2)
    ratio = (posterior(k, mu, logvar, eps)[0] - mu) / np.exp(logvar / 2)
    assert abs(ratio.mean()) < 4 / math.sqrt(n)
    assert abs(ratio.std() - 1) < 4 / math.sqrt(2 * n)


def test_log_importance_weights(k):
    """ln p(x|z) + ln p(z) - ln q(z|x), by the densities of the normal distribution."""
    mu, logvar, eps = normals(6, 5), normals(6, 5, seed=1), normals(6, 5, seed=2)
    z, nll, log_w = posterior(k, mu, logvar, eps)[0], normals(6, seed=3), np.empty(6)
    k.log_importance_weights(logvar, eps, z, nll, log_w)
    ratio = stats.norm.logpdf(z) - stats.norm.logpdf(z, mu, np.exp(logvar / 2))
    assert_allclose(log_w, ratio.sum(axis=1) - nll, rtol=0, atol=1e-13)


def test_nan_stays_nan(k):
    good, bad = np.ones((2, 33), np.float32), np.ones((2, 33), np.float32)
    bad[1, 7] = np.nan
    for mu, logvar in [(bad, good), (good, bad)]:
        z, kl = posterior(k, mu, logvar, good)
        assert_array_equal(np.isnan(z), np.isnan(bad))
        assert_array_equal(np.isnan(kl), [False, True])
    log_w = np.empty(2, np.float32)
    for logvar, eps, z in [(bad, good, good), (good, bad, good), (good, good, bad)]:
        k.log_importance_weights(logvar, eps, z, good[:, 0].copy(), log_w)
        assert_array_equal(np.isnan(log_w), [False, True])
