"""Annealed importance sampling: ln p(x) against closed forms and quadrature, the transitions by
themselves, and what planted bugs do to either."""

import threading
import zlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from minivae import VAE
from minivae.evaluation import ais
from minivae.evaluation.blocks import spread
from minivae.gradcheck import check_gradient
from minivae.kernels import STREAM_CHAINS, STREAM_PIXELS
from minivae.kernels.tables import reference

RNG = np.random.default_rng(0)
D, Z = 5, 2
NEVER = threading.Event()


def model(likelihood="gaussian", hidden=(), weight=1.0, device="reference", **settings):
    """A model with parameters of size `weight` in its decoder; nothing of it was learned."""
    same = dict(hidden_layer_sizes=hidden, activation="tanh", epochs=1, dtype="float64",
                random_state=0)  # fmt: skip
    made = VAE(Z, likelihood=likelihood, device=device, **same | settings)
    made.fit(np.random.default_rng(1).random((8, D)))
    rng = np.random.default_rng(2)
    for name, view in made.parameters_.items():
        if name.startswith("decoder"):
            view[...] = weight * rng.standard_normal(view.shape)
    if likelihood == "gaussian":
        made.parameters_["decoder.noise_logvar"][:] = -1
    return made


def exact_density(linear, known=slice(None)):
    """p(x) of a linear Gaussian decoder: N(b, W'W + s^2 I), of the known features."""
    W, b = (linear.parameters_[f"decoder.out.{name}"] for name in ("weight", "bias"))
    noise = np.exp(linear.parameters_["decoder.noise_logvar"][0])
    covariance = W.T @ W + noise * np.eye(D)
    return stats.multivariate_normal(b[known], covariance[known][:, known])


def exact_posterior(linear, x):
    """Mean and covariance of p(z|x), Gaussian with the precision I + W W' / s^2."""
    W, b = (linear.parameters_[f"decoder.out.{name}"] for name in ("weight", "bias"))
    noise = np.exp(linear.parameters_["decoder.noise_logvar"][0])
    covariance = np.linalg.inv(np.eye(Z) + W @ W.T / noise)
    return covariance @ W @ (x - b) / noise, covariance


def chains(made, x, n_chains, n_leapfrog=3):
    """Chains that explain rows x, at draws of the prior."""
    session = made._session(len(x) * n_chains, made.layout_, made.state_.theta)
    own = ais.Chains(session, n_chains, n_leapfrog, 7, NEVER)
    own.put(x, range(len(x)))
    own.begin()
    return own


# --- ln p(x) --------------------------------------------------------------------------------------


def test_linear_gaussian():
    linear = model()
    X = linear.sample(40, random_state=1)
    estimate, error = linear.ais(X, n_chains=32, n_temperatures=60, random_state=2)
    assert estimate.dtype == error.dtype == np.float64
    assert (0 < error).all() and error.max() < 0.4
    off = estimate - exact_density(linear).logpdf(X)
    assert (abs(off) < 4 * error).all()
    assert abs(off.mean()) < 4 * np.sqrt((error**2).mean() / len(X))  # rows have their own noise


def test_more_temperatures_come_closer():
    """The variance of ln w falls as 1 / T; twenty times as many must halve its root at least."""
    linear = model()
    X = linear.sample(6, random_state=1)
    errors = [linear.ais(X, 16, T, 5, random_state=2)[1].mean() for T in (10, 200)]
    assert errors[1] < errors[0] / 2


def test_one_temperature_is_importance_sampling_from_the_prior():
    linear, C = model(), 40
    X = linear.sample(3, random_state=1)
    z = np.empty((3, C, Z))
    for x, own in zip(X, z, strict=True):
        reference.random_normal(5, STREAM_CHAINS, 0, zlib.crc32(x) >> 1, own)
    mean = z @ linear.parameters_["decoder.out.weight"] + linear.parameters_["decoder.out.bias"]
    log_p = stats.norm.logpdf(X[:, None], mean, np.exp(-0.5)).sum(axis=2)
    estimate, error = linear.ais(X, C, 1, random_state=5)
    assert_allclose(estimate, special.logsumexp(log_p, axis=1) - np.log(C), rtol=1e-12)
    w = np.exp(log_p)
    assert_allclose(error, stats.sem(w, axis=1) / w.mean(axis=1), rtol=1e-12)


def test_nonlinear_bernoulli_by_quadrature():
    """The integral over z in [-7, 7]^2 as a sum on a grid: exact to rounding for what is smooth and
    falls to 0 within, as exp(-z'z / 2) does."""
    nonlinear = model("bernoulli", (6,), weight=1.5)
    X = nonlinear.sample(8, random_state=1)
    p = nonlinear.parameters_
    t, h = np.linspace(-7, 7, 281, retstep=True)
    z = np.stack(np.meshgrid(t, t), axis=-1).reshape(-1, 2)
    hidden = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"])
    logits = hidden @ p["decoder.out.weight"] + p["decoder.out.bias"]
    log_p = -np.logaddexp(0, -logits) @ X.T - np.logaddexp(0, logits) @ (1 - X).T
    log_p += stats.norm.logpdf(z).sum(axis=1)[:, None]
    exact = special.logsumexp(log_p, axis=0) + 2 * np.log(h)
    estimate, error = nonlinear.ais(X, 800, 40, 3, random_state=3)
    assert (abs(estimate - exact) < 4 * error).all()
    assert abs(estimate - exact).max() < 0.05 and error.max() < 0.025


def test_missing_values_are_integrated_out():
    linear = model(missing="mask")
    x = linear.sample(1, random_state=1)[0]
    known = np.array([True, False, True, True, False])
    estimate, error = linear.ais(np.where(known, x, np.nan)[None], 64, 60, random_state=2)
    exact = exact_density(linear, known).logpdf(x[known])
    assert abs(estimate[0] - exact) < 4 * error[0] < 0.6


def test_grey_data_are_binarised_once_for_all_chains():
    grey = model("bernoulli", (6,), binarize="stochastic")
    X = np.random.default_rng(3).random((4, D))
    binary = X.copy()
    reference.random_binarize(binary, 5, STREAM_PIXELS, 0, 0)
    found = grey.ais(X, 4, 5, 2, random_state=5)
    assert_array_equal(found, grey.set_params(binarize=None).ais(binary, 4, 5, 2, random_state=5))


def test_bracket():
    """Both bounds hold within 4 of their errors, of each row and of the mean over rows."""
    linear = model()
    found = linear.ais_bracket(40, 8, 30, 5, random_state=4)
    assert_array_equal(found.x, linear.sample(40, random_state=4))
    exact = exact_density(linear).logpdf(found.x)
    for bound, error, sign in [(found.lower, found.lower_error, 1),
                               (found.upper, found.upper_error, -1)]:  # fmt: skip
        over = sign * (bound - exact)  # at most 0 in expectation
        assert over.mean() < 4 * stats.sem(over)
        assert (abs(over) < 6 * error + 0.5).all()  # rows are no Gaussian: weights of 8 chains
    gap = found.upper - found.lower
    # Each falls short by half its variance: ln m = ln p + d - d^2 / 2 + ..., d the error of m / p.
    short = (found.lower_error**2 + found.upper_error**2).mean() / 2
    assert abs(gap.mean() - short) < 4 * stats.sem(gap)


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_value_does_not_depend_on_how_rows_are_grouped(n_threads, monkeypatch):
    made = model("bernoulli", (33,), device="cpu", dtype="float32", n_threads=n_threads)
    X = made.sample(11, random_state=1)
    how = dict(n_chains=5, n_temperatures=12, n_leapfrog=3, random_state=6)
    whole, error = made.ais(X, **how)
    for rows in (1, 4):
        parts = [made.ais(X[i : i + rows], **how) for i in range(0, 11, rows)]
        assert_array_equal(np.hstack(parts), (whole, error))
    monkeypatch.setattr(ais, "CACHED_ROWS", 7)  # one row at a time
    assert_array_equal(made.ais(X, **how), (whole, error))
    assert_array_equal(made.ais(X[::-1], **how)[0], whole[::-1])
    one, other = made.ais_bracket(5, 3, 4, 2, random_state=1), made.ais_bracket(5, 3, 4, 2, 1)
    for x, y in zip(one, other, strict=True):
        assert_array_equal(x, y)


def test_memory_does_not_grow_with_rows():
    made, sessions, session = model(), [], VAE._session

    X = made.sample(100, random_state=1)
    made._session = lambda rows, *rest: sessions.append(rows) or session(made, rows, *rest)
    made.ais(X, 8, 2, 1, random_state=0)
    assert sessions == [25 * 8]  # 4 blocks of rows, where 32 of them would fit


def test_a_failure_in_one_thread_ends_the_others():
    stop, ended = threading.Event(), []

    def work(own, rows):
        if rows.start == 0:
            raise ValueError("in a thread")
        ended.append(stop.wait(timeout=20))

    with pytest.raises(ValueError, match="in a thread"):
        list(spread([0, 1], [slice(0, 1), slice(1, 2)], work, stop))
    assert ended in ([], [True])  # not begun, or told to stop
    own = chains(model(), np.zeros((1, D)), 2)
    own.stop = stop
    with pytest.raises(ais.Interrupted):
        own.anneal(ais.schedule(3), 0)


# --- the parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 2, 7, 1000])
def test_the_schedule_ends_exactly_at_0_and_1(T):
    betas = ais.schedule(T)
    assert betas.shape == (T + 1,) and betas[0] == 0 and betas[-1] == 1
    assert (np.diff(betas) > 0).all()
    assert_allclose(betas, 1 - betas[::-1], rtol=0, atol=1e-15)


def test_log_mean():
    log_w = np.log([1.0, 2.0, 3.0]) - 2000  # beyond what exp can give
    assert_allclose(ais.log_mean(log_w), (np.log(2) - 2000, 1 / 3**0.5 / 2), rtol=1e-12)
    assert_array_equal(ais.log_mean(np.array([-3.0])), (-3.0, np.nan))
    assert_array_equal(ais.log_mean(np.full(2, -np.inf)), (-np.inf, np.nan))
    assert np.isnan(ais.log_mean(np.array([-3.0, np.nan]))).all()


@pytest.mark.parametrize("missing", ["error", "mask"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_gradient_by_z(likelihood, missing):
    made = model(likelihood, (6,), missing=missing)
    x = made.sample(4, random_state=1)
    if missing == "mask":
        x[1, 2:4] = np.nan
    own = chains(made, x, 1)

    def move_to(z):
        own.begin(z)
        return own.nll.copy()

    def backward(z, dnll):
        move_to(z)
        return [own.dnll * dnll[:, None]]

    report = check_gradient(move_to, backward, [RNG.standard_normal((4, Z))])
    assert report.passed, str(report)


def energy_error(own, z, v, size, n_leapfrog):
    """H at the end minus H at the begin of a trajectory, of each chain."""
    energies = np.empty((2, len(z)))
    own.begin(z)
    own.v[:], own.room["size"][:], own.n_leapfrog = v, size, n_leapfrog
    reference.hamiltonian(own.z, own.v, own.nll, 0.7, energies[0])
    own.follow(0.7)
    reference.hamiltonian(own.z, own.v, own.nll, 0.7, energies[1])
    return energies[1] - energies[0]


def test_leapfrog_is_reversible_and_of_second_order():
    made = model("bernoulli", (6,), weight=0.7)
    own = chains(made, made.sample(50, random_state=1), 1)
    z, v = RNG.standard_normal((2, 50, Z))
    coarse, fine = (abs(energy_error(own, z, v, 1 / L, L)).mean() for L in (20, 40))
    assert coarse < 0.01 and 3.8 < coarse / fine < 4.2  # an error of size^2, and more of size^4
    end = own.z.copy(), -own.v
    energy_error(own, *end, 1 / 40, 40)
    # 40 steps of a few roundings each, in a motion that does not amplify them much.
    assert_allclose((own.z, -own.v), (z, v), rtol=0, atol=1e-13)


def test_a_transition_leaves_the_posterior_invariant():
    """4,000 exact draws of p(z|x) have its mean and second moments after three transitions, within
    4 standard errors, with steps so large that a third are refused."""
    linear, n = model(), 4000
    x = linear.sample(1, random_state=1)
    mean, covariance = exact_posterior(linear, x[0])
    own = chains(linear, x, n)
    draws = np.random.default_rng(5).multivariate_normal(mean, covariance, n)
    own.n_rows, own.n_chains = n, 1  # each from its own place
    own.begin(draws)
    own.n_rows, own.n_chains = 1, n
    size = 1.4 * np.linalg.eigvalsh(covariance)[0] ** 0.5  # 2 would be unstable
    shares = [own.move(1.0, np.array([size]), step).mean() for step in (1, 2, 3)]
    assert 0.4 < min(shares) <= max(shares) < 0.9
    kept = own.nll.copy(), own.dnll.copy()  # also where a chain went back
    own.session.program.latent_gradient(own.session.task, own.batch)
    assert_array_equal(own.nll, kept[0])
    assert_array_equal(own.dnll, kept[1])
    moved = (own.z - mean) @ np.linalg.cholesky(np.linalg.inv(covariance))  # N(0, I) again
    assert abs(moved - (draws - mean) @ np.linalg.cholesky(np.linalg.inv(covariance))).max() > 1
    for power, expected in ((1, 0.0), (2, 1.0)):
        off = (moved**power).mean(axis=0) - expected
        assert (abs(off) < 4 * (power / n) ** 0.5).all()  # Var z^2 = 2


def test_step_sizes_come_to_the_acceptance_that_is_wanted():
    linear = model()
    own = chains(linear, linear.sample(2, random_state=1), 50, n_leapfrog=5)
    size, shares = np.full(2, 5.0), []
    for step in range(1, 120):
        accepted = own.move(1.0, size, step)
        size = own.adapt(size, accepted)
        shares.append(accepted.mean(axis=1))
    assert_allclose(np.mean(shares[60:], axis=0), ais.ACCEPTANCE, atol=0.05)


# --- bad input and planted bugs -------------------------------------------------------------------


def test_bad_counts():
    made = model()
    for name in ("n_chains", "n_temperatures", "n_leapfrog"):
        for value in (0, -1, 2.0, True, "many"):
            for call in (lambda **how: made.ais(np.zeros((1, D)), **how), made.ais_bracket):
                with pytest.raises(ValueError, match=f"^{name} must be a positive integer, got"):
                    call(**{name: value})
    with pytest.raises(ValueError, match="n_samples must be a positive integer"):
        made.ais_bracket(0)
    with pytest.raises(ValueError, match="X has 3 features"):
        made.ais(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="random_state must be"):
        made.ais(np.zeros((1, D)), random_state=-1)


def uphill(v, z, dnll, beta, size, fraction):
    """The gradient with a wrong sign: still reversible, so that Metropolis' test repairs it."""
    v -= fraction * size[:, None] * (z - beta * dnll)


def never_halved(v, z, dnll, beta, size, fraction):
    v -= size[:, None] * (z + beta * dnll)


def without_temperature(v, z, dnll, beta, size, fraction):
    v -= fraction * size[:, None] * (z + dnll)


def all_accepted(before, after, u, old_z, old_nll, old_dnll, z, nll, dnll, accepted):
    accepted[:] = 1


def other_way_round(before, after, *rest):
    METROPOLIS(after, before, *rest)


def gradient_left_behind(before, after, u, old_z, old_nll, old_dnll, z, nll, dnll, accepted):
    METROPOLIS(before, after, u, old_z, old_nll, dnll.copy(), z, nll, dnll, accepted)


METROPOLIS = reference.metropolis


@pytest.mark.parametrize(
    ("kernel", "bug", "test"),
    [
        ("leapfrog_momentum", uphill, test_leapfrog_is_reversible_and_of_second_order),
        ("leapfrog_momentum", never_halved, test_leapfrog_is_reversible_and_of_second_order),
        ("leapfrog_momentum", without_temperature, test_leapfrog_is_reversible_and_of_second_order),
        ("metropolis", all_accepted, test_a_transition_leaves_the_posterior_invariant),
        ("metropolis", other_way_round, test_a_transition_leaves_the_posterior_invariant),
        ("metropolis", gradient_left_behind, test_a_transition_leaves_the_posterior_invariant),
    ],
)
def test_planted_bug_is_noticed(kernel, bug, test, monkeypatch):
    monkeypatch.setattr(reference, kernel, bug)
    with pytest.raises(AssertionError):
        test()


def test_a_path_that_is_weighed_after_the_transition_is_noticed(monkeypatch):
    """Weights at the new z, not the old one, are those of no importance sampling."""

    def late(self, betas, first_step):
        log_w, size = 0.0, np.full(self.n_rows, ais.FIRST_SIZE)
        for t in range(1, len(betas)):
            size = self.adapt(size, self.move(betas[t], size, first_step + t))
            log_w = log_w - (betas[t] - betas[t - 1]) * self.nll
        return log_w.reshape(self.n_rows, self.n_chains), None

    monkeypatch.setattr(ais.Chains, "anneal", late)
    with pytest.raises(AssertionError):
        test_linear_gaussian()
