"""Posterior collapse: posteriors that are set by hand, with latents that are dead and alive."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import minivae
from minivae import VAE
from minivae.evaluation import diagnosis
from minivae.evaluation.diagnosis import diagnose

RNG = np.random.default_rng(0)
N, MEANS, LOGVAR = 400, np.array([0.0, 1.0, 0.0, 0.5]), np.array([-2.0, -3.0, 0.0, -1.0])
SPREAD = np.array([1.0, 0.5, 0.0, 0.05])  # standard deviations of mu over rows; 0.05^2 < 0.01


def heads():
    """mu and logvar of four latents, whose mu has exactly these moments over the rows."""
    noise = RNG.standard_normal((N, 4))
    noise = (noise - noise.mean(axis=0)) / noise.std(axis=0)
    return MEANS + SPREAD * noise, np.tile(LOGVAR, (N, 1))


def test_every_number():
    mu, logvar = heads()
    found = diagnose(mu, logvar, {})
    assert_array_equal(found.active, [True, True, False, False])
    assert found.n_active == 2
    assert_allclose(found.spread, SPREAD**2, rtol=0, atol=1e-14)
    assert_allclose(found.mean, MEANS, rtol=0, atol=1e-14)
    assert_allclose(found.variance, np.exp(LOGVAR) + SPREAD**2, rtol=1e-13)
    # E[KL] over rows, as E[mu^2] = mean^2 + spread^2
    kl = (MEANS**2 + SPREAD**2 + np.exp(LOGVAR) - LOGVAR - 1) / 2
    assert_allclose(found.kl, kl, rtol=0, atol=1e-13)
    for j in range(4):  # by quadrature of q ln(q / p)
        q = stats.norm(found.mean[j], found.variance[j] ** 0.5)
        expected = q.expect(lambda z, q=q: q.logpdf(z) - stats.norm.logpdf(z))
        assert_allclose(found.mismatch[j], expected, rtol=0, atol=1e-8)


def test_moments_are_those_of_draws():
    mu, logvar = heads()
    found = diagnose(mu, logvar, {})
    z = mu[:, None] + np.exp(logvar / 2)[:, None] * RNG.standard_normal((N, 200, 4))
    z = z.reshape(-1, 4)
    # 4 standard errors of 80,000 draws; a variance has twice its square over n, about.
    assert (abs(z.mean(axis=0) - found.mean) < 4 * z.std(axis=0) / len(z) ** 0.5).all()
    assert_allclose(z.var(axis=0), found.variance, rtol=4 * (2 / len(z)) ** 0.5)


def test_a_model_with_a_dead_latent():
    X = (RNG.random((60, 6)) < 0.5).astype("f4")
    model = VAE(3, hidden_layer_sizes=(5,), device="reference", epochs=1, random_state=0).fit(X)
    model.parameters_["encoder.mu.weight"][:, :2] *= 5
    model.parameters_["encoder.mu.weight"][:, 2] = 0
    found = model.diagnose(X)
    assert_array_equal(found.active, [True, True, False])
    assert_allclose(found.kl, model.kl_per_latent(X), rtol=1e-5, atol=1e-6)  # of float32
    assert_allclose(found.spread, model.transform(X).var(axis=0), rtol=0, atol=1e-5)
    lines = str(found).splitlines()
    assert lines[0].split("  ")[0] == "latent" and len(lines) == 6
    assert [line.split()[1] for line in lines[1:4]] == ["yes", "yes", "no"]
    assert lines[4].startswith("2 of 3 latents active; KL ") and lines[5] == found.advice
    with pytest.raises(ValueError, match="X has 1 row; whether latents differ"):
        model.diagnose(X[:1])
    with pytest.raises(ValueError, match="X has 3 features"):
        model.diagnose(X[:, :3])


def test_advice():
    def of(active, **settings):
        return diagnosis._advice(np.array(active), settings)

    assert of([True, True], beta=4.0) == ""
    assert of([False] * 2) == (
        "No latent is active: the decoder does without z. Try more epochs or a smaller beta."
    )
    assert of([True, False], likelihood="gaussian", beta_warmup=0, free_bits=0.0) == (
        "1 of 2 latents say nothing about x: latent_dim=1 would do as well. To use more of them, "
        "try more epochs, columns scaled to standard deviation 1, a smaller beta, beta_warmup or "
        "free_bits."
    )
    assert "free_bits" not in of([False], free_bits=0.5)  # it is set already


def test_a_table_of_many_latents_is_short():
    mu, logvar = RNG.standard_normal((2, 50, 64))
    found = diagnose(mu, logvar, {})
    lines = str(found).splitlines()
    assert len(lines) == 1 + diagnosis.SHOWN + 2
    assert lines[1].split()[0] == f"z{np.argmax(found.kl) + 1}"
    assert lines[-2] == "and 44 of less KL, 44 of them active"
    assert lines[-1] == f"64 of 64 latents active; KL {found.kl.sum():.4g} nats per row"


def test_other_families_have_none():
    assert [name for name in minivae.models.MODELS
            if hasattr(minivae.models.find(name), "diagnose")] == ["vae"]  # fmt: skip
