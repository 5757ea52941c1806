"""Values that are missing, against models of which p(what is missing | what is known) is known."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from minivae import VAE
from minivae.evaluation import importance, imputation

W = np.array([[1.0, 0.5, -1.0, 0.0, 0.8], [0.3, -0.6, 0.2, 1.0, -0.4]])  # (Z, D)
B = np.array([0.5, -1.0, 0.0, 2.0, 0.1])
NOISE = 0.4  # variance
RNG = np.random.default_rng(0)
FULL = RNG.normal(size=(12, 2)) @ W + B + NOISE**0.5 * RNG.normal(size=(12, 5))
HIDDEN = np.array([False, True, False, False, True])  # of every row the same
HOLES = RNG.random(FULL.shape) < 0.4
HOLES[0], HOLES[1] = True, False


def posterior(known):
    """(a (Z, D), covariance (Z, Z)) of p(z | the known of x) = N(a (x - B), covariance)."""
    W_o = np.where(known, W, 0)
    covariance = np.linalg.inv(np.eye(2) + W_o @ W_o.T / NOISE)
    return covariance @ W_o / NOISE, covariance


def linear(**encoder):
    """x = z W + B + noise, in float64; the encoder's parameters are 0 where they are not given."""
    vae = VAE(2, hidden_layer_sizes=(), likelihood="gaussian", missing="mask", posterior="full",
              device="reference", dtype="float64", random_state=0)  # fmt: skip
    vae.loss_and_gradients(FULL)
    values = {"decoder.out.weight": W, "decoder.out.bias": B,
              "decoder.noise_logvar": np.log(NOISE)} | encoder  # fmt: skip
    for name, value in vae.parameters_.items():
        value[...] = values.get(name, 0)
    return vae


def exact():
    """A model whose q(z|x) is the posterior, where what is hidden is HIDDEN."""
    a, covariance = posterior(~HIDDEN)
    L = np.linalg.cholesky(covariance)
    return linear(**{
        "encoder.mu.weight": np.vstack([a.T, np.zeros((5, 2))]), "encoder.mu.bias": -a @ B,
        "encoder.logvar.bias": 2 * np.log(np.diag(L)), "encoder.lower.bias": L[1, 0],
    })  # fmt: skip


def test_the_mean_is_the_conditional_mean():
    """With the prior as q, where all depends on the weights; ten times with other noise."""
    X, vae = np.where(HOLES, np.nan, FULL), linear()
    found = []
    for vae.seed_ in range(10):
        found.append(vae.impute(X, n_samples=3000))
    expected = np.empty_like(X)
    for row, known, x in zip(expected, ~HOLES, FULL, strict=True):
        row[:] = (posterior(known)[0] @ (x - B)) @ W + B
    error = abs(np.mean(found, axis=0) - expected)[HOLES]
    spread = np.std(found, axis=0)[HOLES]
    # The mean of ten is off by its standard error; each by a bias of the size of its variance.
    assert (error < 5 * spread / 10**0.5 + 5 * spread**2).all()
    assert spread.max() < 0.1
    assert_array_equal(np.array(found)[:, ~HOLES], np.tile(X[~HOLES], (10, 1)))


def test_with_the_posterior_as_q_the_mean_is_that_of_its_draws():
    X, vae, n = np.where(HIDDEN, np.nan, FULL), exact(), 4000
    a, covariance = posterior(~HIDDEN)
    expected = ((FULL - B) @ a.T) @ W + B
    error = np.sqrt(np.einsum("zd,zy,yd->d", W, covariance, W) / n)  # all rows share the draws
    assert (abs(vae.impute(X, n_samples=n) - expected)[:, HIDDEN] < 5 * error[HIDDEN]).all()
    log_p = stats.multivariate_normal(B[~HIDDEN], (W.T @ W + NOISE * np.eye(5))[~HIDDEN][
        :, ~HIDDEN]).logpdf(FULL[:, ~HIDDEN])  # fmt: skip
    # All weights of a row are equal: thousands of roundings of numbers below 100.
    assert_allclose(vae.score_samples(X, 10), log_p, rtol=0, atol=1e-11)


def test_multiple_imputations_have_the_conditional_mean_and_covariance():
    X, M, K = np.where(HIDDEN, np.nan, FULL)[:5], 1000, 2000
    draws = exact().impute(X, n_draws=M, n_samples=K, random_state=3)
    assert draws.shape == (M, 5, 5)
    assert_array_equal(draws[:, :, ~HIDDEN], np.tile(X[:, ~HIDDEN], (M, 1, 1)))
    a, covariance = posterior(~HIDDEN)
    expected = (((FULL[:5] - B) @ a.T) @ W + B)[:, HIDDEN]
    V = (W.T @ covariance @ W + NOISE * np.eye(5))[HIDDEN][:, HIDDEN]
    # M draws, of K values of z: both are samples, with standard errors of their own.
    share = 1 / M + 1 / K
    of_mean = np.sqrt(np.diag(V) * share)
    of_covariance = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) * share)
    for row, mean in zip(draws[:, :, HIDDEN].transpose(1, 0, 2), expected, strict=True):
        assert (abs(row.mean(axis=0) - mean) < 5 * of_mean).all()
        assert (abs(np.cov(row.T) - V) < 5 * of_covariance).all()
    # Draws of one row say nothing of another's: the noise of p(x|z) and the choice are its own.
    together = np.corrcoef(draws[:, 0, 1], draws[:, 1, 1])[0, 1]
    assert abs(together) < 5 / M**0.5


def test_draws_are_resampled_by_their_weights():
    """With the prior as q: unweighted, they would have the prior's mean B and covariance."""
    X, M, K = np.where(HIDDEN, np.nan, FULL), 500, 2000
    draws = linear().impute(X, n_draws=M, n_samples=K, random_state=3)[:, :, HIDDEN]
    a, covariance = posterior(~HIDDEN)
    expected = (((FULL - B) @ a.T) @ W + B)[:, HIDDEN]
    V = (W.T @ covariance @ W + NOISE * np.eye(5))[HIDDEN][:, HIDDEN]
    effective = linear().score_samples(X, K, return_error=True).effective_draws
    of_mean = np.sqrt(np.diag(V) * (1 / M + 1 / effective[:, None]))
    assert (abs(draws.mean(axis=0) - expected) < 5 * of_mean).all()
    assert (abs(expected - B[HIDDEN]) > 10 * of_mean).any()


@pytest.fixture(scope="module")
def table():
    """(a model of a binary and a category with one latent, the numbers of all rows, their p)."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=80)
    binary = np.where(z + 0.5 * rng.normal(size=80) > 0, "yes", "no")
    words = np.array(list("abc"))[np.digitize(z + rng.normal(size=80), [-0.5, 0.5])]
    X = np.column_stack([binary, words]).astype(object)
    vae = VAE(1, hidden_layer_sizes=(), likelihood="mixed", missing="mask",
              device="reference", dtype="float64", epochs=1, batch_size=20,
              random_state=0).fit(X)  # fmt: skip
    vae.parameters_["decoder.out.weight"][:] = [[3, -3, 0, 3]]  # columns depend on one another
    rows = np.array([*itertools.product(["no", "yes"], ["a", "b", "c"])], dtype=object)
    return vae, rows, np.exp(vae.quadrature(rows, tolerance=1e-9)).reshape(2, 3)


def test_the_mean_of_a_category_is_its_conditional_probability(table):
    """That of ln p by quadrature, of all rows of a table, where one of two columns is missing."""
    vae, rows, p = table
    assert abs(p.sum() - 1) < 1e-6  # the quadrature's tolerance, of six numbers below 1
    i, j = np.divmod(np.arange(6), 3)
    truth = {0: (p[1] / p.sum(axis=0))[j, None], 1: (p / p.sum(axis=1, keepdims=True))[i]}
    for column, expected in truth.items():
        holes, n = rows.copy(), 20_000
        holes[:, column] = None
        session = vae._session(len(rows), vae._for_use(importance.draws_at_once(n)))
        found = imputation.means(session, vae.check_data(holes), 0, vae.seed_, n)
        effective = vae.score_samples(holes, n, return_error=True).effective_draws.min()
        allowed = 5 * 0.5 / effective**0.5  # the standard error of a number in [0, 1]
        assert_allclose(found[:, vae.schema_.places[column]], expected, rtol=0, atol=allowed)
        assert allowed < 0.05 < np.ptp(expected)
        filled = vae.impute(holes, n_samples=n)
        assert_array_equal(filled[:, 1 - column], rows[:, 1 - column])
        best = expected.argmax(axis=1) if column else expected[:, 0] >= 0.5
        mode = np.array([["no", "yes"], ["a", "b", "c"]][column])[best * 1]
        gap = np.diff(np.sort(expected if column else np.hstack([expected, 1 - expected])))[:, -1]
        assert (gap > 2 * allowed).any()
        assert_array_equal(filled[gap > 2 * allowed, column], mode[gap > 2 * allowed])


def test_draws_of_a_category_have_its_conditional_probabilities(table):
    vae, rows, p = table
    holes = rows.copy()
    holes[:, 1] = None
    M, K = 1000, 2000
    draws = vae.impute(holes, n_draws=M, n_samples=K, random_state=1)[:, :, 1]
    effective = vae.score_samples(holes, K, return_error=True).effective_draws
    for row, words in enumerate(draws.T):
        counts = [(words == word).sum() for word in "abc"]
        expected = M * p[row // 3] / p[row // 3].sum()
        # Chi-square with two degrees of freedom, beyond 30 with probability 3e-7; the draws of z
        # add a variance of M / effective times that of counts, at most.
        found = stats.chisquare(counts, expected).statistic
        assert found < 30 * (1 + M / effective[row]), (counts, expected)
