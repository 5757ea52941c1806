"""Properties that a right VAE has, each as a function that takes the machine it checks.

A machine is the VAE's program bound to a kernel table, run here as plain Python. The estimator
uses it within `running(machine)`. A guard raises AssertionError if its property fails.
`test_mutations.py` plants known bugs and asks the guards to notice.
"""

import contextlib
import inspect
import threading
from functools import partial
from itertools import product
from types import ModuleType
from unittest import mock

import numpy as np
from scipy import special, stats

import minivae
from minivae.data.rows import BLOCK
from minivae.engine import step, task
from minivae.engine.machine import Machine
from minivae.engine.program import bind
from minivae.engine.threads import Session, Trainer
from minivae.kernels.tables import reference
from minivae.models.vae import program
from minivae.models.vae.likelihoods import PLAIN

EXACT = 1e-10  # float64 sums of some hundred terms of order 1 to 1e3: thousands of roundings
SIGMAS = 5  # statistical tests: a right program passes with probability 1 - 6e-7


def machine_of(table, family=program, **kernels):
    """A family's program as Python over a copy of a kernel table with some kernels replaced."""
    k = ModuleType("guarded")
    vars(k).update({**vars(table), **kernels})
    bound = bind(family, k, lambda function, inline: function)
    return Machine("guarded", k, bound[family], bound[step], bound[task], Trainer, Session)


def reference_machine(**kernels):
    """The reference, but for a `join` at which two workers can wait for each other."""
    meeting = threading.Barrier(2)

    def join(barrier, workers):
        if workers > 1:
            meeting.wait(timeout=20)

    return machine_of(reference, **{"join": join, **kernels})


def without_noise(machine):
    """The same machine with eps = 0, so that losses are exact."""

    def zeros(seed, stream, step, first_row, eps):
        eps[:] = 0

    return machine_of(machine.k, random_normal=zeros)


def running(machine):
    """Context in which every estimator runs on this machine, whatever its device."""
    return mock.patch("minivae.models.base.machine", lambda *device: machine)


def estimator(X, **settings):
    """A small float64 VAE with parameters for X, none of them 0."""
    small = dict(hidden_layer_sizes=(4,), activation="tanh", beta=0.7, optimizer="sgd")
    same = dict(dtype="float64", random_state=3, n_threads=1)
    vae = minivae.VAE(**{**small, **same, **settings})
    vae.loss_and_gradients(X)
    rng = np.random.default_rng(5)
    for value in vae.parameters_.values():
        value += rng.normal(0, 0.3, value.shape)
    return vae


def bits(n, D, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (n, D)).astype(float)


def noise(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def copies(views):
    return {name: view.copy() for name, view in views.items()}


def assert_close(actual, expected, tolerance=EXACT):
    """Equal within tolerance, relative to the largest entry or to 1."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert np.isfinite(actual).all(), actual
    error = np.abs(actual - expected).max() / max(1, np.abs(expected).max())
    assert error <= tolerance, f"off by {error:.2g}: {actual} instead of {expected}"


def assert_mean(samples, expected):
    """The mean of independent samples (n, ...) is as expected, within its standard error."""
    error = np.abs(samples.mean(axis=0) - expected)
    allowed = SIGMAS * samples.std(axis=0) / np.sqrt(len(samples))
    assert (error <= allowed).all(), f"mean is off by {error}, allowed {allowed}"


# --- kernels ------------------------------------------------------------------------------------


def sampler_has_the_posterior_std(machine):
    n = 100_000
    logvar = np.tile([-2.0, 1.0], (n, 1))
    mu, eps, z = np.full((n, 2), 0.5), np.empty((n, 2)), np.empty((n, 2))
    machine.k.random_normal(1, 0, 0, 0, eps)
    machine.k.sample_gaussian(mu, logvar, None, eps, z)
    assert_mean(z, 0.5)
    ratio = z.std(axis=0) / np.exp(logvar[0] / 2)
    # The std of n normals has the relative standard error 1 / sqrt(2 n).
    assert np.abs(ratio - 1).max() < SIGMAS / np.sqrt(2 * n), ratio


def kl_is_its_integral(machine):
    t, weights = np.polynomial.hermite_e.hermegauss(3)  # exact: ln q - ln p is quadratic in z
    for Z in (1, 2, 50):
        mu, logvar = noise(2, 7, Z)
        std = np.exp(logvar / 2)
        z = mu + std * t[:, None, None]
        gaps = stats.norm.logpdf(z, mu, std) - stats.norm.logpdf(z)
        expected = np.tensordot(weights / weights.sum(), gaps, 1).sum(axis=1)
        kl = np.empty(7)
        machine.k.gaussian_kl(mu, logvar, None, None, kl, None)
        assert_close(kl, expected)


def likelihoods_are_scipys(machine):
    y, x, s = noise(6, 5), bits(6, 5), np.array([-0.8])
    nll, dy, ds = np.empty(6), np.empty((6, 5)), np.empty(6)
    machine.k.bernoulli_nll(y, x, None, 1.0, nll, dy)
    assert_close(-nll, stats.bernoulli.logpmf(x, special.expit(y)).sum(axis=1))
    machine.k.gaussian_nll(y, s, x, None, 1.0, nll, dy, ds)
    assert_close(-nll, stats.norm.logpdf(x, y, np.exp(s / 2)).sum(axis=1))


def large_logits_are_exact(machine):
    logits = np.array([[1e3, -1e3, 1e3, -1e3, 0]], np.float32)
    x = np.array([[1, 0, 0, 1, 1]], np.float32)
    nll, dlogits = np.empty(1, np.float32), np.empty_like(logits)
    machine.k.bernoulli_nll(logits, x, None, 1.0, nll, dlogits)
    rounding = 10 * np.finfo(np.float32).eps
    assert_close(nll, [2e3 + np.log(2)], rounding)
    assert_close(dlogits, [[0, 0, 1, -1, -0.5]], rounding)


def gaussian_backward(machine, dz, mu, logvar, eps, *out):
    """For one draw of a diagonal posterior, whose kl weighs 1/2."""
    machine.k.sample_gaussian_backward(dz, mu, logvar, None, eps, 0.5, 0.5, None, *out, None)


def logvar_is_held(machine):
    for dtype in ("float32", "float64"):
        logvar = np.array([[-1e3, 1e3, 0.1]], dtype)
        mu, dz, eps = np.ones((3, 1, 3), dtype)
        z, dmu, dlogvar, kl = *np.empty((3, 1, 3), dtype), np.empty(1, dtype)
        machine.k.sample_gaussian(mu, logvar, None, eps, z)
        machine.k.gaussian_kl(mu, logvar, None, None, kl, None)
        gaussian_backward(machine, dz, mu, logvar, eps, dmu, dlogvar)
        held = z.copy()
        assert all(np.isfinite(a).all() for a in (z, kl, dmu, dlogvar)), (z, kl, dmu, dlogvar)
        machine.k.sample_gaussian(mu, 2 * logvar, None, eps, z)
        assert (z[0, :2] == held[0, :2]).all()  # flat there, hence the slope 0
        assert (dlogvar[0, :2] == 0).all(), dlogvar
        assert dlogvar[0, 2] != 0


def strided_arrays_are_read_by_index(machine):
    a, b, out = noise(4, 3), noise(5, 4), np.empty((3, 5))
    machine.k.matmul(a.T, b.T, out)
    assert_close(out, np.einsum("ji,kj->ik", a, b))
    heads, eps = noise(4, 6), noise(4, 3)
    dheads, z, straight = np.empty((4, 6)), np.empty((4, 3)), np.empty((2, 4, 3))
    views = heads[:, :3], heads[:, 3:]  # mu and logvar are columns of one matrix
    machine.k.sample_gaussian(*views, None, eps, z)
    assert_close(z, views[0] + np.exp(views[1] / 2) * eps)
    gaussian_backward(machine, z, *views, eps, dheads[:, :3], dheads[:, 3:])
    gaussian_backward(machine, z, *(v.copy() for v in views), eps, *straight)
    assert_close(dheads, np.hstack(straight))
    X = bits(6, 10)[:, ::2]
    vae = estimator(X)
    for same in (np.asfortranarray(X), X.copy()):
        assert_close(vae.transform(X), vae.transform(same))


def kernels_keep_dtype_and_inputs(machine):
    """What a kernel only reads stays as it was, as does the user's X; all has the model's dtype."""
    writes = {"matmul": "out", "bias_activation": "y", "activation_backward": "dy",
              "sum_rows": "dbias", "sample_gaussian": "z", "gaussian_kl": "kl",
              "sample_gaussian_backward": "dmu dlogvar",
              "bernoulli_nll": "nll dlogits", "gaussian_nll": "nll dmean dnoise_logvar",
              "bernoulli_mean": "mean", "gaussian_draw": "x", "copy": "target",
              "log_importance_weights": "log_w",
              "sgd": "theta velocity", "random_normal": "eps", "gather": "x"}  # fmt: skip

    def watched(name, dtype):
        names = inspect.signature(getattr(reference, name)).parameters

        def kernel(*arguments):
            arrays = {n: a for n, a in zip(names, arguments, strict=True) if np.ndim(a)}
            assert {a.dtype for a in arrays.values() if a.dtype.kind == "f"} == {dtype}, name
            written = [arrays.pop(n) for n in writes[name].split() if n in arrays]
            # An output may lie on its input: dlogits in logits.
            read = [a for a in arrays.values()
                    if not any(np.may_share_memory(a, out) for out in written)]  # fmt: skip
            before = [a.copy() for a in read]
            getattr(machine.k, name)(*arguments)
            assert all(map(np.array_equal, read, before)), f"{name} changes its input"

        return kernel

    for dtype, likelihood in product(map(np.dtype, ("float32", "float64")), PLAIN):
        kernels = {name: watched(name, dtype) for name in writes}
        X = bits(8, 3).astype(dtype)
        before = X.copy()
        with running(machine_of(machine.k, **kernels)):
            vae = estimator(X, likelihood=likelihood, dtype=dtype.name, activation="relu")
            assert vae.state_.theta.dtype == dtype
            codes = vae.partial_fit(X).transform(X)
            results = [codes, vae.inverse_transform(codes), vae.sample(3)]
            results += [*vae.parameters_.values(), *vae.loss_and_gradients(X)[1].values()]
            vae.elbo(X), vae.score_samples(X, 2)
        assert {array.dtype for array in results} == {dtype}
        assert np.array_equal(X, before)


# --- loss, gradient, training -------------------------------------------------------------------


def reported_loss_has_this_gradient(machine):
    X, eps, h = bits(5, 3), noise(5, 2), 1e-5
    for likelihood in PLAIN:
        vae = estimator(X, likelihood=likelihood)
        gradients = copies(vae.loss_and_gradients(X, eps)[1])
        for name, value in vae.parameters_.items():
            numeric = np.empty(value.shape)
            for index in np.ndindex(value.shape):
                old, sides = value[index], []
                for move in (h, -h):
                    value[index] = old + move
                    sides.append(vae.loss_and_gradients(X, eps)[0])
                value[index] = old
                numeric[index] = (sides[0] - sides[1]) / (2 * h)
            # Truncation is about h^2, rounding about 1e-16 * loss / h: both some 1e-10.
            assert_close(gradients[name], numeric, 1e-7)


def batch_is_the_mean_of_its_rows(machine):
    X, eps = bits(6, 3), noise(6, 2)
    vae = estimator(X)
    singles = [vae.loss_and_gradients(X[i : i + 1], eps[i : i + 1]) for i in range(6)]
    for repeats in (1, 2):
        loss, gradients = vae.loss_and_gradients(*(np.tile(a, (repeats, 1)) for a in (X, eps)))
        assert_close(loss, np.mean([single[0] for single in singles]))
        for name, gradient in gradients.items():
            assert_close(gradient, np.mean([single[1][name] for single in singles], axis=0))


def training_step_follows_the_reported_loss(machine):
    X = np.tile(bits(1, 3), (7, 1))  # equal rows: their order in the batch does not matter
    vae = estimator(X, learning_rate=0.1, batch_size=7)
    before = copies(vae.parameters_)
    loss, gradients = vae.loss_and_gradients(X)  # with the noise of step 0
    assert_close(vae.partial_fit(X).history_["loss"], [loss])
    for name, value in vae.parameters_.items():
        assert_close(value, before[name] - 0.1 * gradients[name])


def a_batch_makes_one_update(machine):
    X = bits(8, 3)
    vae = estimator(X, optimizer="adam", learning_rate=0.01, batch_size=8)
    before = copies(vae.parameters_)
    vae.partial_fit(X)
    moves = [np.abs(value - before[name]).max() for name, value in vae.parameters_.items()]
    assert 0 < max(moves) <= 0.01 * (1 + EXACT), moves  # Adam's first step: the rate, at most


def workers_do_not_change_training(machine):
    X = bits(13, 3)
    one, two = (estimator(X, n_threads=n, batch_size=5).partial_fit(X) for n in (1, 2))
    for name, value in two.parameters_.items():
        assert_close(value, one.parameters_[name])
    assert_close(two.history_["loss"], one.history_["loss"])


def workers_do_not_change_a_mask(machine):
    """Every row misses another column, so that another row's mask would show."""
    X = bits(12, 3)
    X[np.arange(12), np.arange(12) % 3] = np.nan
    for likelihood in PLAIN:
        settings = dict(likelihood=likelihood, missing="mask", batch_size=5)
        one, two = (estimator(X, n_threads=n, **settings).partial_fit(X) for n in (1, 2))
        for name, value in two.parameters_.items():
            assert_close(value, one.parameters_[name])
        assert_close(two.history_["loss"], one.history_["loss"])


def every_row_trains(machine):
    X = np.eye(5)
    vae = estimator(X, batch_size=2)
    before = copies(vae.parameters_)["encoder.0.weight"]
    with contextlib.suppress(FloatingPointError):  # a step that is missing stops training
        vae.partial_fit(X)
    moved = (vae.parameters_["encoder.0.weight"] != before).any(axis=1)  # row i reads only row i
    assert moved.all(), f"rows that trained: {moved}"


def epoch_loss_weighs_rows_equally(machine):
    X = bits(101, 3)
    with running(without_noise(machine)):
        vae = estimator(X, batch_size=100, learning_rate=1e-300)  # parameters stay
        expected = vae.loss_and_gradients(X, np.zeros((101, 2)))[0]
        assert_close(vae.partial_fit(X).history_["loss"], [expected])


def held_out_objective_is_the_trained_one(machine):
    X = bits(11, 3)
    with running(without_noise(machine)):
        vae = estimator(X, epochs=1, learning_rate=1e-300).fit(X, X_valid=X)
    history = vae.history_
    assert_close(history["valid_elbo"], history["elbo"])
    assert_close(history["loss"][0], history["nll"][0] + 0.7 * history["kl"][0])
    assert history["kl"][0] > 0


# --- evaluation, with oracles -------------------------------------------------------------------


def linear_gaussian(n, log_width=0.0):
    """(vae, X, ln p(x)) of a linear-Gaussian model, whose encoder is the exact posterior.

    x = z W + b + noise of variance s: p(x) = N(b, W^T W + s I). As the rows of W are orthogonal,
    p(z|x) = N(W (x - b) / (s m), 1 / m), m = 1 + |w|^2 / s per latent. log_width is added to the
    encoder's logvar.
    """
    W, b, s = np.array([[1.0, 1, 0, 0], [0, 0, 1, -1]]), np.array([0.5, -1, 0, 2]), 0.25
    m = 1 + (W * W).sum(axis=1) / s
    density = stats.multivariate_normal(b, W.T @ W + s * np.eye(4))
    X = density.rvs(n, random_state=8)
    vae = estimator(X, likelihood="gaussian", hidden_layer_sizes=())
    to_mu = W.T / (s * m)
    values = {"encoder.mu.weight": to_mu, "encoder.mu.bias": -b @ to_mu,
              "encoder.logvar.weight": 0, "encoder.logvar.bias": log_width - np.log(m),
              "decoder.out.weight": W, "decoder.out.bias": b,
              "decoder.noise_logvar": np.log(s)}  # fmt: skip
    for name, value in vae.parameters_.items():
        value[...] = values[name]
    return vae, X, density.logpdf


def exact_posterior_elbo_is_log_p(machine):
    vae, X, log_p = linear_gaussian(20_000)
    assert_mean(vae.elbo(X, random_state=4) - log_p(X), 0)


def bound_rises_to_log_p(machine):
    vae, X, log_p = linear_gaussian(3, log_width=-2.0)
    bounds = np.empty((200, 3))
    for seed in range(len(bounds)):
        vae.seed_ = seed
        bounds[seed] = [vae.score_samples(X, K).mean() for K in (1, 5, 50)]
    rises = np.diff(bounds, axis=1)
    errors = rises.std(axis=0) / np.sqrt(len(bounds))
    assert (rises.mean(axis=0) > 2 * errors).all(), f"rises by {rises.mean(axis=0)} +- {errors}"
    excess = bounds[:, 2] - log_p(X).mean()
    assert excess.mean() <= SIGMAS * excess.std() / np.sqrt(len(bounds))


def exact_posterior_scores_log_p(machine):
    vae, X, log_p = linear_gaussian(5)
    for far in (X, 100 * X):  # ln p down to -1e5, of which no exp is left
        assert_close(vae.score_samples(far, 3), log_p(far))
    assert log_p(100 * X).min() < -1e4


def elbo_is_its_integral(machine):
    rows, repeats = bits(4, 3, seed=2), 4000
    vae = estimator(rows, latent_dim=1, hidden_layer_sizes=())
    p = vae.parameters_
    p["decoder.out.weight"] *= 5  # far from linear: E ln p(x|z) is not ln p(x|E z)
    mu = rows @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    logvar = rows @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
    t, weights = np.polynomial.hermite_e.hermegauss(80)
    z = mu + np.exp(logvar / 2) * t
    logits = z[:, :, None] * p["decoder.out.weight"][0] + p["decoder.out.bias"]
    terms = special.log_expit((2 * rows[:, None] - 1) * logits).sum(axis=2)  # ln p(x|z)
    kl = (mu**2 + np.exp(logvar) - logvar - 1)[:, 0] / 2
    values = vae.elbo(np.tile(rows, (repeats, 1)), random_state=4).reshape(repeats, 4)
    assert_mean(values, terms @ weights / weights.sum() - kl)


def samples_have_the_decoders_means(machine):
    vae, logits = estimator(bits(4, 3)), np.array([-2.0, 0.3, 3.0])
    vae.parameters_["decoder.out.weight"][:] = 0
    vae.parameters_["decoder.out.bias"][:] = logits
    assert_close(vae.inverse_transform(np.zeros((1, 2))), special.expit([logits]))
    assert_mean(vae.sample(20_000, random_state=5), special.expit(logits))


def samples_come_from_the_prior(machine):
    vae, *_ = linear_gaussian(4)
    p = vae.parameters_
    p["decoder.out.weight"][:] = np.eye(2, 4)  # the first two columns show z
    p["decoder.out.bias"][:], p["decoder.noise_logvar"][:] = 0, -30
    z = vae.sample(20_000, random_state=5)[:, :2]
    assert_mean(z, 0)
    assert_mean(z[:, :, None] * z[:, None], np.eye(2))


def rows_are_independent(machine):
    X = bits(2 * BLOCK, 8)
    vae = estimator(X)
    elbo, score = partial(vae.elbo, random_state=4), partial(vae.score_samples, n_samples=2)
    for function in (vae.transform, vae.reconstruct, elbo, score):
        whole = function(X)
        for n in (1, 7, BLOCK, BLOCK + 1):
            assert_close(function(X[:n]), whole[:n])
        if function is not elbo:  # whose noise belongs to the row's number
            assert_close(function(X[::-1])[::-1], whole)


def encoding_is_deterministic(machine):
    X = np.random.default_rng(0).random((4, 3))
    for binarize in (None, "stochastic", "threshold"):
        vae = estimator(X, binarize=binarize, random_state=None)
        assert np.array_equal(vae.transform(X), vae.transform(X))
