"""A VAE of tables: ln p(x) is a density in the units of the table that it was given."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.preprocessing import StandardScaler

from minivae import VAE

RNG = np.random.default_rng(0)
SCALE = np.array([1e-4, 0.3, 1.0, 70.0, 2e6])  # units as far apart as those of real tables
MEAN = np.array([5.0, -0.1, 0.0, 1e4, 3e6])
Z = RNG.normal(size=(60, 2))
RAW = MEAN + SCALE * (Z @ RNG.normal(size=(2, 5)) + 0.5 * RNG.normal(size=(60, 5)))
HOLES = RNG.random(RAW.shape) < 0.2
NEW = MEAN + SCALE * RNG.normal(size=(7, 5))


def fitted(X, missing):
    """A VAE after 10 passes, in which the matrix that it learns of is all that X can change."""
    reals = dict.fromkeys(range(5), "real")
    vae = VAE(2, hidden_layer_sizes=(8,), likelihood="mixed", schema=reals, missing=missing,
              dtype="float64", device="reference", batch_size=16, epochs=10, learning_rate=0.01,
              random_state=0)  # fmt: skip
    return vae.fit(X)


@pytest.mark.parametrize("missing", ["error", "mask"])
def test_raw_and_standardised_differ_by_the_scales_that_are_known(missing):
    """p_raw(x) = p_standardised((x - m) / s) / prod s, over what is observed of x.

    Both are standardised again inside the model, so what it learns differs by rounding: of
    x - m, relative to s, by MEAN / SCALE eps < 1e-10, and 40 updates do not grow that to 1e-6.
    """
    X = np.where(HOLES, np.nan, RAW) if missing == "mask" else RAW
    scaler = StandardScaler().fit(X)
    raw, standardised = fitted(X, missing), fitted(scaler.transform(X), missing)
    for rows in (X, NEW):
        same = scaler.transform(rows)
        scales = ~np.isnan(rows) @ np.log(scaler.scale_)
        assert (abs(scales) > 1).all()  # nats: a term that is left out would show
        found, expected = raw.score_samples(rows), standardised.score_samples(same)
        assert_allclose(found, expected - scales, rtol=0, atol=1e-6)
        found, expected = raw.elbo(rows, random_state=1), standardised.elbo(same, random_state=1)
        assert_allclose(found, expected - scales, rtol=0, atol=1e-6)
