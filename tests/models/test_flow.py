"""Flow: inverses, determinants, densities whose integral or entropy is known, cells of levels; and
mistakes of other people's flows, planted, which these tests must notice (docs/known-bugs.md)."""

import itertools
import math

import guards as G
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from minivae import Flow, load
from minivae.kernels.tables import reference
from minivae.models import flow as program

DEVICES = pytest.mark.parametrize("device", ["reference", "cpu"])
FORMS = [("affine", "logistic"), ("affine", "normal"), ("additive", "logistic")]
FORM = pytest.mark.parametrize(("coupling", "prior"), FORMS)
PRIORS = {"logistic": stats.logistic, "normal": stats.norm}


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def stirred(X, **settings):
    """A small float64 flow with parameters for X, none of them 0."""
    same = dict(n_couplings=3, hidden_layer_sizes=(5,), activation="tanh", dequantize=None,
                dtype="float64", device="reference", random_state=0)  # fmt: skip
    model = Flow(**same | settings)
    model.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in model.parameters_.values():
        value += rng.normal(0, 0.4, value.shape)
    model.n_features_in_ = X.shape[1]
    return model


def jacobian(model, x, step=1e-5):
    """dz_i/dx_j of one row by central differences, right to about 1e-10."""
    shifts = step * np.eye(x.size)
    codes = model.transform(np.concatenate([x + shifts, x - shifts]))
    return ((codes[: x.size] - codes[x.size :]) / (2 * step)).T


# --- the map and its determinant ------------------------------------------------------------------


@DEVICES
@FORM
@pytest.mark.parametrize("n_couplings", [1, 2, 3])
@pytest.mark.parametrize("n_features", [1, 2, 3, 6])
def test_the_inverse_is_one(coupling, prior, n_couplings, n_features, device):
    X = 3 * normals(20, n_features)
    settings = dict(coupling=coupling, prior=prior, n_couplings=n_couplings, device=device)
    model = stirred(X, **settings)
    Z = model.transform(X)
    assert abs(Z - X).max() > 0.1
    assert abs(model.inverse_transform(Z) - X).max() < 1e-10
    assert abs(model.transform(model.inverse_transform(normals(20, n_features, seed=1)))
               - normals(20, n_features, seed=1)).max() < 1e-10  # fmt: skip


@FORM
def test_ln_p_is_that_of_the_codes_and_of_the_jacobian(coupling, prior):
    """numpy's slogdet of differences; SciPy's densities of the codes."""
    X = normals(4, 6)
    model = stirred(X, coupling=coupling, prior=prior, n_couplings=4)
    log_det = np.array([np.linalg.slogdet(jacobian(model, x))[1] for x in X])
    assert abs(log_det).max() > 0.1
    expected = PRIORS[prior].logpdf(model.transform(X)).sum(axis=1) + log_det
    assert_allclose(model.score_samples(X), expected, rtol=0, atol=1e-7)


def test_every_code_depends_on_every_column():
    """From three couplings on: each half has by then been read after it had read the other one."""
    X = normals(1, 5)
    assert (abs(jacobian(stirred(X), X[0])) > 1e-4).all()


@FORM
def test_without_its_nets_the_model_is_the_prior(coupling, prior):
    """At the start, where the last layer of each net is 0."""
    X = normals(5, 3)
    model = Flow(3, coupling=coupling, prior=prior, dequantize=None, dtype="float64",
                 device="reference", random_state=0)  # fmt: skip
    loss, _ = model.loss_and_gradients(X)
    assert_allclose(-loss, PRIORS[prior].logpdf(X).sum(axis=1).mean(), rtol=1e-14)


# --- densities that are known ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def moons():
    """(rows of two moons, a flow that was fitted to them)."""
    rng = np.random.default_rng(0)
    t, upper = rng.uniform(0, np.pi, 4000), rng.random(4000) < 0.5
    x = np.where(upper, np.cos(t), 1 - np.cos(t)), np.where(upper, np.sin(t), 0.5 - np.sin(t))
    X = np.stack(x, axis=1) + rng.normal(0, 0.1, (4000, 2))
    settings = dict(hidden_layer_sizes=(32, 32), activation="tanh", dequantize=None, epochs=40)
    return X, Flow(6, **settings, learning_rate=5e-3, random_state=0, n_threads=1).fit(X)


def test_moons_have_a_density_of_mass_1(moons):
    """float32; a grid of 1/40 against moons of width 1/10, and tails that are those of e^-|z|."""
    _, model = moons
    line = np.arange(-3, 4, 1 / 40)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert abs(np.exp(model.score_samples(grid)).sum() / 40**2 - 1) < 1e-3


def test_samples_have_the_moments_of_the_moons(moons):
    """Mean and covariance within five standard errors of data and samples, 4,000 of each, and a
    share of 0.05 of a standard deviation, or of a product of two, for what was not learned."""
    X, model = moons
    new = model.sample(4000, random_state=1)
    std = X.std(axis=0)
    error = 5 * np.sqrt(2 / 4000) + 0.05
    assert (abs(new.mean(axis=0) - X.mean(axis=0)) < error * std).all()
    # The variance of a product of two standardised variables is about 1; of a square up to 2.
    error = 5 * np.sqrt(2 * 2 / 4000) + 0.05
    assert (abs(np.cov(new.T) - np.cov(X.T)) < error * np.outer(std, std)).all()
    # A Gaussian with these moments is far from it: 0.5 ln det(2 pi e cov) nats.
    gaussian = np.linalg.slogdet(2 * np.pi * np.e * np.cov(X.T))[1] / 2
    assert model.score(X) > -gaussian + 0.5


def test_gaussian_data_cost_their_entropy():
    """E[-ln p] - entropy is KL(data || model) >= 0: below 0.05 nats for a model that has learned
    them, and on fresh rows not below 0 by more than three standard errors."""
    cov = np.array([[1.0, 0.8], [0.8, 1.5]])
    data = stats.multivariate_normal(cov=cov)
    X, fresh = data.rvs(4000, random_state=0), data.rvs(10_000, random_state=1)
    model = Flow(2, hidden_layer_sizes=(16,), activation="tanh", prior="normal", dequantize=None,
                 epochs=20, learning_rate=5e-3, random_state=0, n_threads=1).fit(X)  # fmt: skip
    gap = data.logpdf(fresh) - model.score_samples(fresh)
    assert -3 * gap.std() / 100 < gap.mean() < 0.05
    entropy = np.linalg.slogdet(2 * np.pi * np.e * cov)[1] / 2
    error = model.score_samples(fresh).std() / 100
    assert abs(model.score(fresh) + entropy) < 0.05 + 3 * error


# --- levels ---------------------------------------------------------------------------------------


def in_cells(levels, X):
    """(a flow of data in levels, ln P of each row (n,), the variance of p(u) / E[p(u)] in its
    cell): by Gauss's rule with 20 nodes a side, on the density of the same parameters."""
    model, density = stirred(X, dequantize=levels), stirred(X)
    model.parameters_["scaling.log_scale"][:] += 2  # so that it is not flat within a cell
    density.state_.theta[:] = model.state_.theta
    t, w = np.polynomial.legendre.leggauss(20)
    nodes = (np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2) + 1) / 2
    weights = np.outer(w, w).ravel() / 4
    log_P, variance = [], []
    for k in np.round(X * (levels - 1)):
        p = np.exp(density.score_samples((k + nodes) / levels))
        log_P.append(math.log(weights @ p) - 2 * math.log(levels))
        variance.append(weights @ (p / (weights @ p)) ** 2 - 1)
    return model, np.array(log_P), np.array(variance)


def test_the_probability_of_levels_is_that_of_their_cells():
    """All rows of two columns in three levels. The estimate is within five standard errors, by the
    delta method; and P sums to 1, but for what the model gives to what is outside [0, 1]^2."""
    X = np.array(list(itertools.product([0, 0.5, 1], repeat=2)))
    model, log_P, variance = in_cells(3, X)
    assert variance.max() > 0.05  # a noise that is left out would show
    n = 2000
    found = model.score_samples(X, n_samples=n)
    assert (abs(found - log_P) < 5 * np.sqrt(variance / n)).all()
    assert 0.01 < np.exp(log_P).sum() < 1
    assert model.score_kind == "lower bound"


def test_the_loss_is_a_bound_that_more_draws_raise():
    X = np.array(list(itertools.product([0, 0.5, 1], repeat=2)))
    model, log_P, _ = in_cells(3, X)
    nll = model._terms(X, n_samples=2000)["nll"]
    scores = [
        np.mean([with_seed(model, seed).score_samples(X, n) for seed in range(40)]) for n in (1, 10)
    ]
    assert (-nll < log_P).all()
    assert scores[0] < scores[1] < log_P.mean()
    assert abs(scores[0] + nll.mean()) < 0.02


def with_seed(model, seed):
    """The model with the noise of another seed."""
    model.seed_ = seed
    return model


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_codes_of_levels_lead_back_to_them(levels):
    X = np.random.default_rng(0).integers(0, levels, (20, 5)) / (levels - 1)
    model = stirred(X, dequantize=levels, dtype="float32")
    assert_array_equal(model.inverse_transform(model.transform(X)), X.astype("f4"))
    new = model.sample(50) * (levels - 1)
    assert_allclose(new, np.round(new), atol=1e-4)  # some roundings of numbers up to 255
    assert new.min() >= 0 and new.max() <= levels - 1


def test_noise_is_new_at_every_step_and_for_every_row():
    """So that what is learned is the cell: the same row twice has two losses, at each of two steps
    other ones."""
    X = np.full((2, 3), 0.5)
    model = stirred(X, dequantize=3)
    session = model._session(2)
    batch, seen = session.put(X), []
    for step in (0, 1):
        session.load(batch, seed=1, step=step)
        seen.append(session.view("noise", 2).copy())
    assert np.unique(seen).size == 12 and 0 < np.min(seen) and np.max(seen) < 1


# --- what it says of wrong use --------------------------------------------------------------------


def test_bad_input_is_named():
    grey, wide = np.random.default_rng(0).random((5, 3)), 3 * normals(5, 3)
    for X, settings, words in [
        (wide, {}, r"needs values in \[0, 1\].*or set dequantize=None for continuous values"),
        (
            grey,
            dict(dequantize=1),
            r"'dequantize' .* must be an int in the range \[2, 65536\] or None. Got 1",
        ),
        (grey, dict(dequantize=2**16 + 1), r"'dequantize' .* \[2, 65536\] or None"),
    ]:
        model = Flow(device="reference", **settings)
        for call in (model.fit, model.check_data):
            with pytest.raises(ValueError, match=words):
                call(X)
    model = stirred(wide)
    with pytest.raises(ValueError, match="Z has 2 columns, expected one per feature: 3"):
        model.inverse_transform(wide[:, :2])
    with pytest.raises(ValueError, match="n_samples must be a positive integer, got 0"):
        model.score_samples(wide, n_samples=0)


def test_a_file_keeps_that_there_are_no_levels(tmp_path):
    X = 3 * normals(9, 3)
    model = stirred(X).partial_fit(X)
    model.save(tmp_path / "model")
    twin = load(tmp_path / "model")
    assert twin.dequantize is None and twin.score_kind == "exact"
    assert_array_equal(twin.transform(X), model.transform(X))


# --- planted bugs ---------------------------------------------------------------------------------


def log_det_left_out(x, heads, y, log_det):
    reference.coupling(x, heads, y, log_det)
    log_det[:] = 0


def log_det_with_the_other_sign(x, heads, y, log_det):
    reference.coupling(x, heads, y, log_det)
    log_det *= -1


def log_det_of_the_last_coupling_alone(y, log_scale, log_det, *rest):
    reference.prior_nll(y, log_scale, log_det[:, -1:], *rest)


def no_noise(x, noise, levels, u):
    reference.dequantize(x, np.full_like(noise, 0.5), levels, u)


def levels_further_apart_than_their_noise(x, noise, levels, u):
    u[:] = x + noise / levels


def halves_for_columns(even, odd, x):
    """What was taken apart by ::2 is put together as a left and a right half."""
    x[:] = np.hstack([even, odd])


def untouched(x):
    """Whether it is the smaller half, which is never changed here."""
    return x.shape[1] == 2


def second_half_kept(x, heads, y, log_det):
    reference.coupling(x, 0 * heads if untouched(x) else heads, y, log_det)


def second_half_kept_on_the_way_back(y, heads, x):
    reference.coupling_inverse(y, 0 * heads if untouched(x) else heads, x)


def scale_without_a_bound(y, heads, x):
    """The inverse of s = raw, where the coupling has b tanh(raw / b)."""
    h = x.shape[1]
    x[:] = (y - heads[:, -h:]) * np.exp(-heads[:, :h])


JACOBIAN, CELLS, INVERSE, EVERY = (
    lambda: test_ln_p_is_that_of_the_codes_and_of_the_jacobian("affine", "logistic"),
    test_the_probability_of_levels_is_that_of_their_cells,
    lambda: test_the_inverse_is_one("affine", "logistic", 3, 6, "reference"),
    test_every_code_depends_on_every_column,
)
PLANTED = [  # number in the list of known bugs, what must notice, kernels
    ("F1", JACOBIAN, dict(coupling=log_det_left_out)),
    ("F1", JACOBIAN, dict(coupling=log_det_with_the_other_sign)),
    ("F1", JACOBIAN, dict(prior_nll=log_det_of_the_last_coupling_alone)),
    ("F2", CELLS, dict(dequantize=no_noise)),
    ("F3", CELLS, dict(dequantize=levels_further_apart_than_their_noise)),
    ("F4", INVERSE, dict(merge_columns=halves_for_columns)),
    ("F5", EVERY, dict(coupling=second_half_kept,
                       coupling_inverse=second_half_kept_on_the_way_back)),
    ("F6", INVERSE, dict(coupling_inverse=scale_without_a_bound)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("guard", "kernels"),
    [
        pytest.param(guard, bugs, id=f"{row}-{next(iter(bugs.values())).__name__}")
        for row, guard, bugs in PLANTED
    ],
)
def test_a_planted_bug_is_noticed(guard, kernels):
    with G.running(G.machine_of(reference, program, **kernels)), pytest.raises(AssertionError):
        guard()


@pytest.mark.parametrize("guard", {id(guard): guard for _, guard, _ in PLANTED}.values())
def test_the_true_code_passes(guard):
    with G.running(G.machine_of(reference, program)):
        guard()
