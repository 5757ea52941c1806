"""LinearGaussian, the exact oracle, beside what needs none of its formulas: Gaussians of SciPy,
conditioning of the joint covariance, scikit-learn, published optima, and a linear VAE."""

import copy
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from minivae import VAE, LinearGaussian

RNG = np.random.default_rng(0)
D, Z, N = 7, 2, 120
LOADINGS = RNG.normal(size=(D, Z)) * [2.0, 1.2]
FULL = 3 + RNG.normal(size=(N, Z)) @ LOADINGS.T + RNG.normal(size=(N, D)) * 0.7
HOLES = RNG.random(FULL.shape) < 0.3
HOLES[3], HOLES[4] = True, False  # nothing is known of one row, all of another
X = np.where(HOLES, np.nan, FULL)
NOISE = pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
DATA = pytest.mark.parametrize("data", [FULL, X], ids=["complete", "missing"])
# Sums of some ten numbers of size 1 to 100, and matrices whose condition is below 100.
ROUNDING = 1e-11


def fitted(data=X, noise="diagonal", **settings):
    given = dict(missing="mask", random_state=0, max_iter=50_000) | settings
    return LinearGaussian(Z, noise=noise, **given).fit(data)


def optimum():
    return LinearGaussian(Z, solver="closed").fit(FULL)


def moments(model):
    """Mean (D + Z,) and covariance of (x, z)."""
    W = model.components_.T
    cov_x = W @ W.T + np.diag(np.broadcast_to(model.noise_variance_, D))
    return np.r_[model.mean_, np.zeros(Z)], np.block([[cov_x, W], [W.T, np.eye(Z)]])


def conditional(mean, covariance, known, values):
    """Mean and covariance of the other entries, given that these have such values."""
    other = ~known
    gain = covariance[np.ix_(other, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    rest = covariance[np.ix_(other, other)] - gain @ covariance[np.ix_(known, other)]
    return mean[other] + gain @ (values - mean[known]), rest


def random_q(diagonal):
    mean, root = RNG.normal(size=(N, Z)), RNG.normal(size=(N, Z, Z))
    full = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(Z)
    return mean, np.diagonal(full, axis1=1, axis2=2).copy() if diagonal else full


# --- exact values ---------------------------------------------------------------------------------


@NOISE
def test_ln_p_is_that_of_the_marginal_gaussian(noise):
    model = fitted(noise=noise)
    mean, covariance = moments(model)
    expected = np.zeros(N)  # what nothing is known of has probability 1
    for i, row in enumerate(X):
        known = np.flatnonzero(~np.isnan(row))
        if known.size:
            gaussian = stats.multivariate_normal(mean[known], covariance[np.ix_(known, known)])
            expected[i] = gaussian.logpdf(row[known])
    assert_allclose(model.score_samples(X), expected, rtol=ROUNDING, atol=ROUNDING)
    assert model.score(X) == pytest.approx(expected.mean(), rel=ROUNDING)
    assert model.score_samples(X)[3] == 0
    assert model.score_kind == "exact"


@NOISE
def test_posterior_and_imputed_values_are_conditionals_of_the_joint_gaussian(noise):
    model = fitted(noise=noise)
    mean, covariance = moments(model)
    m, C = model.posterior(X)
    filled = X.copy()
    for i, row in enumerate(X):
        known = np.r_[~np.isnan(row), np.zeros(Z, bool)]
        other, rest = conditional(mean, covariance, known, row[known[:D]])
        filled[i, ~known[:D]] = other[:-Z]
        assert_allclose(m[i], other[-Z:], rtol=0, atol=ROUNDING)
        assert_allclose(C[i], rest[-Z:, -Z:], rtol=0, atol=ROUNDING)
    assert_array_equal(model.transform(X), m)
    imputed = model.impute(X)
    assert_allclose(imputed, filled, rtol=0, atol=ROUNDING)
    assert_array_equal(imputed[~HOLES], X[~HOLES])
    assert_array_equal(model.impute(FULL), FULL)
    assert_allclose(model.inverse_transform(m), m @ model.components_ + model.mean_, rtol=1e-15)


def test_a_tiny_noise_loses_no_digits():
    """x on a line, with noise of 1e-6: the naive quadratic form cancels to 1e12 eps = 1e-4."""
    model = optimum()
    model.components_, model.noise_variance_ = model.components_[:1] * 10, 1e-12
    x = model.mean_ + 3 * model.components_ + 1e-6
    u = model.components_[0] / np.linalg.norm(model.components_)
    along, ones = np.linalg.norm(model.components_) ** 2 + 1e-12, np.full(D, 1e-6)
    t = (3 * model.components_[0] + ones) @ u
    across = D * 1e-12 - (ones @ u) ** 2
    expected = -(D * np.log(2 * np.pi) + np.log(along) + (D - 1) * np.log(1e-12)) / 2
    expected -= (t**2 / along + across / 1e-12) / 2
    # x is rounded to 1e-14, which is 1e-8 of the noise's deviation.
    assert model.score_samples(x)[0] == pytest.approx(expected, abs=1e-6)


@NOISE
@DATA
def test_bound_and_gap_add_up_to_ln_p(data, noise):
    model = fitted(noise=noise)
    log_p = model.score_samples(data)
    for diagonal in (True, False):
        q = random_q(diagonal)
        bound, gap = model.bound(data, q), model.gap(data, q)
        assert (gap > 0).all() and gap.max() > 1
        assert_allclose(bound + gap, log_p, rtol=ROUNDING, atol=ROUNDING)
    posterior = model.posterior(data)
    assert_allclose(model.bound(data, posterior), log_p, rtol=ROUNDING, atol=ROUNDING)
    assert_allclose(model.gap(data, posterior), 0, atol=ROUNDING)


def test_the_bound_is_the_expectation_that_it_is_defined_as():
    """E_q [ln p(x, z) - ln q(z)] of one row, by Gauss-Hermite nodes, exact for a square in z."""
    model, (mean, covariance) = fitted(), random_q(False)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    grid = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    for i in (0, 3, 4, 5):
        z = mean[i] + grid @ np.linalg.cholesky(covariance[i]).T
        scale = np.sqrt(model.noise_variance_)
        log_x = np.nansum(stats.norm.logpdf(X[i], model.inverse_transform(z), scale), axis=1)
        log_z = stats.norm.logpdf(z).sum(axis=1)
        log_q = stats.multivariate_normal(mean[i], covariance[i]).logpdf(z)
        expected = weights @ (log_x + log_z - log_q)
        bound = model.bound(X, (mean, covariance))[i]
        assert bound == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


def test_mean_field_is_the_best_diagonal_q():
    model = fitted()
    mean, variance = model.mean_field(X)
    best = model.bound(X, (mean, variance))
    for j in range(Z):
        step = 0.01 * np.eye(Z)[j]
        for q in ((mean + step, variance), (mean - step, variance),
                  (mean, variance * (1 + step)), (mean, variance * (1 - step))):  # fmt: skip
            assert (model.bound(X, q) < best).all()


def test_samples_have_the_moments_of_the_model_and_rows_of_their_own():
    """A mean of n draws has the standard error s / sqrt(n); each of 35 stays within 5 of them with
    probability 1 - 6e-7."""
    model, n = fitted(), 20_000
    mean, covariance = (a[:D] for a in moments(model))
    x = model.sample(n, random_state=1)
    i, j = np.triu_indices(D)
    products = (x - mean)[:, i] * (x - mean)[:, j]
    assert (abs(x.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    error = products.std(axis=0) / n**0.5
    assert (abs(products.mean(axis=0) - covariance[i, j]) < 5 * error).all()
    assert_array_equal(model.sample(5, random_state=1), x[:5])
    assert_array_equal(model.sample(5), model.sample(5, random_state=0))


# --- EM -------------------------------------------------------------------------------------------


@NOISE
@DATA
def test_em_raises_the_bound_then_ln_p_and_never_falls(data, noise):
    history = fitted(data, noise, tol=1e-10).history_
    bound, log_p = history["bound"], history["log_likelihood"]
    steps = np.ravel(np.column_stack([bound, log_p]))  # M, E, M, E, ...
    assert (np.diff(steps) > -ROUNDING).all()
    assert log_p[0] - bound[0] > 0.01 and log_p[-1] - bound[-1] < 1e-9


@NOISE
@DATA
def test_the_bound_touches_ln_p_after_every_e_step(data, noise):
    for max_iter in range(1, 5):
        with pytest.warns(ConvergenceWarning, match="max_iter"):
            model = fitted(data, noise, max_iter=max_iter)
        log_p = model.score_samples(data)
        assert_allclose(model.bound(data, model.posterior(data)), log_p, rtol=ROUNDING, atol=1e-11)
        assert model.history_["log_likelihood"][-1] == pytest.approx(log_p.mean(), rel=ROUNDING)
        assert model.n_iter_ == max_iter == len(model.history_["bound"])


@pytest.mark.parametrize("seed", range(3))
def test_em_converges_to_the_closed_form(seed):
    best = optimum()
    model = fitted(FULL, "isotropic", tol=1e-14, random_state=seed)
    assert model.score(FULL) == pytest.approx(best.score(FULL), abs=1e-10)
    # Quadratic around the optimum, so that parameters have half of the digits.
    assert model.noise_variance_ == pytest.approx(best.noise_variance_, rel=1e-5)
    W, expected = model.components_, best.components_
    assert_allclose(W.T @ W, expected.T @ expected, atol=1e-4)
    assert_allclose(model.mean_, FULL.mean(axis=0), rtol=1e-6)
    assert model.history_["log_likelihood"][-1] <= best.history_["log_likelihood"][0] + ROUNDING


def test_em_converges_to_scikit_learns_factor_analysis():
    other = FactorAnalysis(Z, tol=1e-12, max_iter=100_000, svd_method="lapack").fit(FULL)
    model = fitted(FULL, tol=1e-13)
    assert model.score(FULL) == pytest.approx(other.score(FULL), abs=1e-9)
    assert_allclose(model.noise_variance_, other.noise_variance_, rtol=1e-3)
    assert_allclose(model.score_samples(FULL), other.score_samples(FULL), atol=1e-3)


@NOISE
def test_ln_p_of_what_is_observed_is_stationary_where_em_ends(noise):
    """By central differences of step 1e-4, whose error is below 1e-7 here; EM stops at gains of
    1e-14, which leaves gradients of about 1e-7 times the square root of its rate."""
    model = fitted(noise=noise, tol=1e-14)
    model.noise_variance_ = np.atleast_1d(model.noise_variance_)

    def gradients(model):
        for name in ("components_", "mean_", "noise_variance_"):
            for index in np.ndindex(getattr(model, name).shape):
                values = []
                for step in (1e-4, -1e-4):
                    moved = copy.deepcopy(model)
                    getattr(moved, name)[index] += step
                    values.append(moved.score(X))
                yield (values[0] - values[1]) / 2e-4

    assert max(map(abs, gradients(model))) < 1e-5
    model.components_ *= 1.01
    assert max(map(abs, gradients(model))) > 1e-3  # it says something


def test_missing_entries_carry_no_value_and_order_does_not_matter():
    model = fitted()
    again = fitted(sparse.csr_array(X[::-1]))
    assert_allclose(again.score_samples(X), model.score_samples(X), rtol=1e-9, atol=1e-9)
    assert fitted(FULL).get_params() == model.get_params()
    complete = fitted(FULL, missing="error")
    assert_array_equal(complete.components_, fitted(FULL).components_)


def test_constant_features_and_more_latents_than_features():
    constant = np.column_stack([FULL, np.full(N, 0.1)])
    model = fitted(constant)
    assert np.isfinite(model.score_samples(constant)).all()
    assert_allclose(model.inverse_transform(model.transform(constant))[:, -1], 0.1, rtol=1e-9)
    gaussian = stats.multivariate_normal(FULL.mean(axis=0), np.cov(FULL.T, bias=True))
    for n_components in (D - 1, D, D + 3):  # enough for every covariance
        closed = LinearGaussian(n_components, solver="closed").fit(FULL)
        assert_allclose(closed.score_samples(FULL), gaussian.logpdf(FULL), rtol=1e-9)


def test_scales_and_offsets_of_features_change_nothing_but_their_own():
    """ln p of x * s + c is that of x less sum ln s."""
    scale, offset = 10.0 ** np.array([-5, 5, 0, 3, -3, 1, 0]), 1e3
    model, scaled = fitted(tol=1e-10), fitted(X * scale + offset * scale, tol=1e-10)
    known = ~HOLES @ np.log(scale)
    found = scaled.score_samples(X * scale + offset * scale)
    assert_allclose(found + known, model.score_samples(X), atol=1e-6)


# --- published: the linear VAE and its optimum ----------------------------------------------------


def spectrum():
    """Eigenvalues of the sample covariance, falling, and the noise that the optimum has."""
    l = np.sort(np.linalg.eigvalsh(np.cov(FULL.T, bias=True)))[::-1]
    return l, l[Z:].mean()


def test_at_the_optimum_a_diagonal_q_is_the_posterior():
    model, (l, s2) = optimum(), spectrum()
    q = model.mean_field(FULL)
    assert_allclose(model.bound(FULL, q), model.score_samples(FULL), rtol=0, atol=1e-10)
    per_point = -(D * np.log(2 * np.pi) + np.log(l[:Z]).sum() + (D - Z) * np.log(s2) + D) / 2
    assert model.bound(FULL, q).mean() == pytest.approx(per_point, abs=1e-10)
    assert model.noise_variance_ == pytest.approx(s2, rel=1e-12)
    kl = (q[0] ** 2 + q[1] - np.log(q[1]) - 1) / 2  # KL_j (n, Z)
    assert_allclose(kl.mean(axis=0), np.log(l[:Z] / s2) / 2, rtol=1e-10)


def test_a_rotated_optimum_has_the_published_gap():
    model, angle = optimum(), 0.7
    log_p = model.score_samples(FULL)
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    model.components_ = R.T @ model.components_
    M = np.eye(Z) + model.components_ @ model.components_.T / model.noise_variance_
    expected = (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1]) / 2
    q = model.mean_field(FULL)
    assert expected > 0.1
    assert_allclose(model.score_samples(FULL), log_p, rtol=0, atol=1e-10)
    assert_allclose(log_p - model.bound(FULL, q), expected, rtol=0, atol=1e-8)
    assert_allclose(model.gap(FULL, q), expected, rtol=0, atol=1e-8)
    assert_allclose(model.bound(FULL, model.posterior(FULL)), log_p, rtol=0, atol=1e-10)


def test_a_linear_vae_at_the_optimum_has_its_ln_p_and_no_gradient():
    """Its loss is a square in eps, so the mean over eps = +-sqrt(Z) e_j is its expectation. There
    log p(z|x) = log q(z|x) for every z, so one importance sample gives ln p(x) to rounding."""
    model = optimum()
    vae = VAE(Z, hidden_layer_sizes=(), likelihood="gaussian", dtype="float64", device="reference",
              epochs=1).fit(FULL)  # fmt: skip
    M = np.eye(Z) + model.components_ @ model.components_.T / model.noise_variance_
    V = model.components_.T @ np.linalg.inv(M) / model.noise_variance_  # (D, Z)
    optimal = {
        "encoder.mu.weight": V,
        "encoder.mu.bias": -model.mean_ @ V,
        "encoder.logvar.weight": 0,
        "encoder.logvar.bias": -np.log(np.diag(M)),
        "decoder.out.weight": model.components_,
        "decoder.out.bias": model.mean_,
        "decoder.noise_logvar": np.log(model.noise_variance_),
    }
    assert optimal.keys() == vae.parameters_.keys()
    for name, view in vae.parameters_.items():
        view[...] = optimal[name]
    points = [sign * np.sqrt(Z) * e for e in np.eye(Z) for sign in (1, -1)]
    found = [vae.loss_and_gradients(FULL, np.tile(point, (N, 1))) for point in points]
    assert np.mean([loss for loss, _ in found]) == pytest.approx(-model.score(FULL), abs=1e-10)
    for name in optimal:
        assert_allclose(np.mean([g[name] for _, g in found], axis=0), 0, atol=1e-10)
    assert_allclose(vae.score_samples(FULL, 1), model.score_samples(FULL), rtol=0, atol=1e-10)
    assert_allclose(vae.transform(FULL), model.transform(FULL), rtol=0, atol=1e-10)


# --- scikit-learn, and what is refused ------------------------------------------------------------


# Noise of one feature goes to 0 on some of their tiny data, to which EM comes slowly.
@pytest.mark.filterwarnings("ignore:EM gained:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        LinearGaussian(1, noise="diagonal", missing="mask", max_iter=20),
        LinearGaussian(1, solver="closed"),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_the_table_of_settings_is_the_signature_and_in_the_docstring():
    defaults = {name: setting.default for name, setting in LinearGaussian.SETTINGS.items()}
    assert LinearGaussian().get_params() == defaults
    lines = LinearGaussian.__doc__.splitlines()
    for name, default in defaults.items():
        (line,) = [line for line in lines if line.startswith(f"{name} : ")]
        assert line.endswith(f"default {default!r}")


def test_copies():
    model = fitted()
    assert clone(model).get_params() == model.get_params()
    twin = pickle.loads(pickle.dumps(model))
    assert_array_equal(twin.score_samples(X), model.score_samples(X))
    assert model.get_feature_names_out().tolist() == ["lineargaussian0", "lineargaussian1"]


def changed(index, value):
    array = FULL.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        (dict(n_components=0), FULL, "n_components"),
        (dict(n_components=True), FULL, "n_components must be a whole number"),
        (dict(noise="full"), FULL, "noise"),
        (dict(solver="svd"), FULL, "solver"),
        (dict(missing="drop"), FULL, "missing"),
        (dict(max_iter=0), FULL, "max_iter"),
        (dict(tol=-1), FULL, "tol"),
        (dict(tol=np.nan), FULL, "tol"),
        (dict(solver="closed", noise="diagonal"), FULL, 'solver="closed" goes with noise'),
        (dict(solver="closed", missing="mask"), X, 'solver="closed" needs rows without NaN'),
        ({}, X, "X contains NaN or infinity in .*first in row"),
        (dict(missing="mask"), changed((1, 2), np.inf), "X contains infinity in 1 .*row 1, column"),
        (dict(missing="mask"), changed((..., 2), np.nan), "nothing but NaN in column 2"),
        (dict(missing="mask"), X * np.nan, "nothing but NaN in column 0"),
        ({}, FULL[:1], r"n_samples=1\) has the variance 0.0, expected a positive"),
        ({}, np.full((9, 3), 0.1), "has the variance 0.0"),
        ({}, FULL * 1e200, "has the variance inf"),
        ({}, FULL[0], "2D array, got 1D"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_changes_nothing(settings, values, words):
    model = LinearGaussian(Z, random_state=0).fit(FULL).set_params(**settings)
    before = pickle.dumps(vars(model))
    with pytest.raises(ValueError, match=words):
        model.fit(values)
    assert pickle.dumps(vars(model)) == before


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("X has 3 features.*expecting 7", lambda m: m.score_samples(FULL[:, :3])),
        ("Z has 3 columns, expected one per latent: 2", lambda m: m.inverse_transform(FULL[:, :3])),
        ("n_samples must be a positive integer", lambda m: m.sample(0)),
        ("random_state must be", lambda m: m.sample(random_state=-1)),
        (r"q has shapes \(120, 1\), .*expected means \(120, 2\)",
         lambda m: m.bound(FULL, (np.zeros((N, 1)), np.ones((N, 1))))),
        ("q must have finite means", lambda m: m.gap(FULL, (np.zeros((N, Z)), -np.ones((N, Z))))),
        ("q must have finite", lambda m: m.bound(FULL, (X[:, :Z], np.ones((N, Z))))),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(words, call):
    with pytest.raises(ValueError, match=words):
        call(optimum())


def test_an_unfitted_model_says_so():
    for use in (lambda m: m.score(FULL), lambda m: m.sample(), lambda m: m.inverse_transform(FULL)):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            use(LinearGaussian())
