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


@pytest.mark.parametrize("K", [1, 3])
def test_gradients_of_the_full_posterior(K, k):
    """The same through L, for K draws of a row."""
    eps, dz = normals(4 * K, 3, seed=2), normals(4 * K, 3, seed=3)

    def forward(mu, logvar, lower):
        return posterior(k, mu, logvar, eps, lower)

    def backward(mu, logvar, lower, dz, dkl):
        return posterior_backward(k, mu, logvar, eps, dz, dkl[0], lower)

    inputs = [normals(4, 3), normals(4, 3, seed=1), normals(4, 3, seed=4)]
    check(k, forward, backward, inputs, [dz, np.full(4, 0.3)])


def factor(logvar, lower):
    """L (Z, Z), entry by entry."""
    L, entries = np.diag(np.exp(logvar / 2)), iter(lower)
    for i in range(len(logvar)):
        for j in range(i):
            L[i, j] = next(entries)
    return L


def test_full_covariance(k):
    """z - mu is L eps, and kl is what the density of the multivariate normal gives: its mean over a
    quadrature that is exact for polynomials of degree 5."""
    mu, logvar, lower = (normals(2, 3, seed=seed) for seed in range(3))
    eps = normals(4, 3, seed=3)
    z, kl = posterior(k, mu, logvar, eps, lower)
    t, weights = np.polynomial.hermite_e.hermegauss(3)
    grid = np.stack(np.meshgrid(t, t, t), -1).reshape(-1, 3)
    weights = np.prod(np.stack(np.meshgrid(weights, weights, weights), -1).reshape(-1, 3), axis=1)
    for i in range(2):
        L = factor(logvar[i], lower[i])
        assert_allclose(z[2 * i : 2 * i + 2], mu[i] + eps[2 * i : 2 * i + 2] @ L.T, rtol=1e-13)
        nodes, q = mu[i] + grid @ L.T, stats.multivariate_normal(mu[i], L @ L.T)
        gaps = q.logpdf(nodes) - stats.norm.logpdf(nodes).sum(axis=1)
        assert_allclose(kl[i], gaps @ weights / weights.sum(), rtol=1e-11)


def per_latent(mu, logvar):
    return (mu**2 + np.exp(logvar) - logvar - 1) / 2


def test_free_bits(k):
    """kl + slack is the sum of max(kl_j, free_bits), and no gradient comes from a latent below."""
    mu, logvar, (kl, slack) = normals(4, 3), normals(4, 3, seed=1), np.empty((2, 4))
    k.gaussian_kl(mu, logvar, None, 0.7, kl, slack)
    assert_allclose(kl, per_latent(mu, logvar).sum(axis=1), rtol=1e-13)
    assert_allclose(kl + slack, np.maximum(per_latent(mu, logvar), 0.7).sum(axis=1), rtol=1e-13)
    dz, (dmu, dlogvar) = np.zeros((4, 3)), np.empty((2, 4, 3))
    k.sample_gaussian_backward(dz, mu, logvar, None, dz, 0.3, 0.3, 0.7, dmu, dlogvar, None)
    paid = per_latent(mu, logvar) >= 0.7
    assert paid.any() and not paid.all()
    assert_allclose(dmu, 0.3 * mu * paid, rtol=1e-13)
    assert_allclose(dlogvar, 0.15 * np.expm1(logvar) * paid, rtol=1e-13)


def test_importance_bound(k):
    """-ln of the mean of the weights, also where none of them can be written down."""
    nll, shift = normals(6, seed=1), np.repeat([0.0, 1e3, -1e3], 2)
    log_w, (weights, row), kl = normals(6), np.empty((2, 6)), np.empty(3)
    k.importance_bound(log_w + shift, nll, weights, row[:3], kl)
    w = np.exp(log_w.reshape(3, 2))
    assert_allclose(weights.reshape(3, 2), w / w.sum(axis=1, keepdims=True), rtol=1e-12)
    assert_allclose(row[:3] + kl, -np.log(w.mean(axis=1)) - [0, 1e3, -1e3], rtol=1e-12)
    assert_allclose(row[:3], (weights * nll).reshape(3, 2).sum(axis=1), rtol=1e-12)


POSTERIORS = pytest.mark.parametrize("kind", ["diagonal", "full"])


def draws(kind, K=3):
    """mu, logvar, lower, eps of four rows of K draws."""
    lower = normals(4, 3, seed=4) if kind == "full" else None
    return normals(4, 3), normals(4, 3, seed=1), lower, normals(4 * K, 3, seed=2)


def bound(k, c, mu, logvar, lower, eps):
    """(row_nll + row_kl, weights, z) for nll = sum of sin(c z), c (3,)."""
    z, _ = posterior(k, mu, logvar, eps, lower)
    n, dtype = len(z), z.dtype
    nll, log_w, weights = np.sin(z * c).sum(axis=1), np.empty(n, dtype), np.empty(n, dtype)
    row, kl = np.empty((2, len(mu)), dtype)
    k.log_importance_weights(logvar.astype(dtype), eps, z, nll, log_w)
    k.importance_bound(log_w, nll, weights, row, kl)
    return row + kl, weights, z


@POSTERIORS
def test_gradient_of_the_importance_weighted_bound(kind, k):
    """Of sum(dbound) * the bound, by finite differences: the weights move too."""
    mu, logvar, lower, eps = draws(kind)
    c = np.array([0.5, -1.0, 2.0])

    def forward(*posterior):
        return bound(k, c, *posterior, *([None] if lower is None else []), eps)[0]

    def backward(*posterior_and_dbound):
        *posterior, dbound = posterior_and_dbound
        full = [*posterior, *([None] if lower is None else [])]
        _, weights, z = bound(k, c, *full, eps)
        dz = weights[:, None] * dbound[0] * np.cos(z * c) * c
        k.importance_backward(dz, z, None, weights, dbound[0])
        return gradients(k, dz, *full, eps, 0.0, dbound[0])

    inputs = [a for a in (mu, logvar, lower) if a is not None]
    check(k, forward, backward, inputs, [np.full(4, 0.3)])


def gradients(k, dz, mu, logvar, lower, eps, prior, entropy):
    out = [None if a is None else np.empty_like(a) for a in (mu, logvar, lower)]
    k.sample_gaussian_backward(dz, mu, logvar, lower, eps, prior, entropy, None, *out)
    return [a for a in out if a is not None]


@POSTERIORS
def test_score(kind, k):
    """Sigma^-1 (z - mu), by the density's own gradient."""
    mu, logvar, lower, eps = draws(kind)
    z, score = posterior(k, mu, logvar, eps, lower)[0], np.empty((12, 3))
    k.posterior_score(logvar, lower, eps, score)
    for row in range(12):
        i = row // 3
        L = factor(logvar[i], np.zeros(3) if lower is None else lower[i])
        assert_allclose(score[row], np.linalg.solve(L @ L.T, z[row] - mu[i]), rtol=1e-10)


@POSTERIORS
def test_doubly_reparameterised_gradient(kind, k):
    """It is the derivative of -sum_k w_k^2 ln [p(x, z_k) / q(z_k)] for fixed weights and a fixed
    density q (Tucker et al. 2018, equation 8): what goes through z alone."""
    mu, logvar, lower, eps = draws(kind)
    c, at = np.array([0.5, -1.0, 2.0]), (mu, logvar, lower)
    _, weights, _ = bound(k, c, *at, eps)
    factors = [factor(logvar[i], np.zeros(3) if lower is None else lower[i]) for i in range(4)]
    precision = np.repeat(np.linalg.inv([L @ L.T for L in factors]), 3, axis=0)
    centre = np.repeat(mu, 3, axis=0)

    def forward(*posterior_):
        full = [*posterior_, *([None] if lower is None else [])]
        z = posterior(k, full[0], full[1], eps, full[2])[0]
        log_q = -np.einsum("bi,bij,bj->b", z - centre, precision, z - centre) / 2
        log_w = -np.sin(z * c).sum(axis=1) - (z * z).sum(axis=1) / 2 - log_q
        return -((weights**2 * log_w).reshape(4, 3).sum(axis=1))

    def backward(*posterior_and_dbound):
        *posterior_, dbound = posterior_and_dbound
        full = [*posterior_, *([None] if lower is None else [])]
        z, score = posterior(k, full[0], full[1], eps, full[2])[0], np.empty((12, 3))
        dz = weights[:, None] * dbound[0] * np.cos(z * c) * c
        k.posterior_score(full[1], full[2], eps, score)
        k.importance_backward(dz, z, score, weights, dbound[0])
        return gradients(k, dz, *full, eps, 0.0, 0.0)

    inputs = [a for a in at if a is not None]
    check(k, forward, backward, inputs, [np.full(4, 0.3)])


def test_both_gradients_of_the_bound_have_one_mean(k, repeats=2000):
    """Over draws of eps, the difference is 0 within 4 standard errors."""
    mu, logvar, lower = (np.tile(a, (repeats, 1)) for a in draws("full")[:3])
    c, eps = np.array([0.5, -1.0, 2.0]), normals(12 * repeats, 3, seed=100)
    _, weights, z = bound(k, c, mu, logvar, lower, eps)
    score, found = np.empty_like(eps), []
    k.posterior_score(logvar, lower, eps, score)
    for how, entropy in ((None, 1.0), (score, 0.0)):
        dz = weights[:, None] * np.cos(z * c) * c
        k.importance_backward(dz, z, how, weights, 1.0)
        parts = gradients(k, dz, mu, logvar, lower, eps, 0.0, entropy)
        found.append(np.concatenate(parts, axis=1).reshape(repeats, -1))
    apart = found[0] - found[1]
    assert (abs(apart.mean(axis=0)) < 4 * apart.std(axis=0) / math.sqrt(repeats)).all()


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
