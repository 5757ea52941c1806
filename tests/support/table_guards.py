"""Properties of a VAE of tables and of missing values, as `guards.py` has those of every VAE."""

import guards as G
import numpy as np
from families import SCHEMA, table
from guards import assert_close

MIXED = dict(likelihood="mixed", missing="mask", schema=SCHEMA)


def gradients_of_a_table_are_right(machine):
    X = table(7)
    report = G.estimator(X, **MIXED).check_gradients(X)
    assert report.worst <= 1e-6, report


def codes_tell_missing_from_zero(machine):
    X = G.bits(6, 3)
    holes = np.where(X == 0, np.nan, X)
    vae = G.estimator(holes, missing="mask")
    assert (vae.transform(X) != vae.transform(holes))[(X == 0).any(axis=1)].all()


def what_is_known_stays(machine):
    X = np.where(np.arange(24).reshape(6, 4) % 3 == 0, np.nan, G.noise(6, 4))
    rows = table(9)
    known = [~np.isnan(X), np.array([[value == value for value in row] for row in rows])]
    for values, where, settings in zip(
        (X, rows), known, (dict(likelihood="gaussian", missing="mask"), MIXED), strict=True
    ):
        vae = G.estimator(values, **settings)
        for filled in (vae.impute(values, n_samples=5), *vae.impute(values, 2, n_samples=5)):
            assert (filled[where] == values[where]).all()
            assert (filled == filled).all()


def imputations_are_conditional(machine):
    """x = (z + noise, z + noise), of which the second is missing and q(z|x) is the prior: its mean
    is x_1 / (1 + s), its variance s + s / (1 + s)."""
    s, n, X = 0.25, 4000, np.array([[2.0, np.nan]])
    vae = G.estimator(X, latent_dim=1, hidden_layer_sizes=(), likelihood="gaussian", missing="mask")
    for name, value in vae.parameters_.items():
        value[...] = {"decoder.out.weight": 1, "decoder.noise_logvar": np.log(s)}.get(name, 0)
    effective = vae.score_samples(X, n, return_error=True).effective_draws[0]
    variance = s / (1 + s)  # of z
    error = abs(vae.impute(X, n_samples=n)[0, 1] - 2 / (1 + s))
    assert error < G.SIGMAS * (variance / effective) ** 0.5, error
    draws = vae.impute(X, 1000, n_samples=n)[:, 0, 1]
    error = abs(draws.mean() - 2 / (1 + s))
    assert error < G.SIGMAS * ((variance + s) / 1000 + variance / effective) ** 0.5, error


def positive_columns_have_a_jacobian(machine):
    """ln p of x = e^u is that of u less u: the logarithm's slope is 1 / x."""
    u = G.noise(8, 2)
    scores = []
    for X, kind in ((u, "real"), (np.exp(u), "positive")):
        vae = G.estimator(X, likelihood="mixed", schema={0: kind, 1: kind})
        scores.append(vae.score_samples(X, 5))
    assert_close(scores[1], scores[0] - u.sum(axis=1))
