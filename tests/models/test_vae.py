"""VAE, the estimator: what fit does, and what the numbers mean that it gives."""

import io
import re
import sys
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, special, stats
from sklearn.datasets import load_digits

from minivae import VAE, kernels
from minivae.engine import threads
from minivae.kernels.tables import reference
from minivae.models.vae.likelihoods import PLAIN
from minivae.training.order import shuffled

DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])
RNG = np.random.default_rng(0)
GREY = RNG.random((20, 7))
BINARY = (GREY > 0.5).astype(float)
DIGITS = load_digits().data / 16


def vae(**settings):
    return VAE(**{**dict(hidden_layer_sizes=(5,), epochs=2, batch_size=8, device="reference",
                         random_state=0), **settings})  # fmt: skip


def same_training(a, b):
    assert a.state_.theta.tobytes() == b.state_.theta.tobytes()
    assert a.state_.moments.tobytes() == b.state_.moments.tobytes()
    histories = [{k: v for k, v in m.history_.items() if k != "seconds"} for m in (a, b)]
    assert histories[0] == histories[1]


# --- training -----------------------------------------------------------------------------------


@DEVICE
@pytest.mark.parametrize("settings", [{}, {"binarize": "stochastic"}, {"likelihood": "gaussian"}])
def test_training_on_digits_lowers_the_loss(settings, device):
    test = DIGITS[1500:]
    model = VAE(hidden_layer_sizes=(32,), epochs=4, batch_size=32, device=device, random_state=0,
                learning_rate=3e-3, **settings)  # fmt: skip
    model.loss_and_gradients(DIGITS)
    before = model.elbo(test).mean()
    history = model.fit(DIGITS[:1500], X_valid=test).history_
    assert all(len(values) == 4 for values in history.values())
    assert (np.diff(history["loss"]) < 0).all()
    assert model.elbo(test).mean() > before + 5  # nats; from about 44 with 64 fair coins
    # The recorded value is the mean of what `elbo` says: 297 values, added up in another order.
    recorded = model.elbo(test, random_state=model.seed_).mean()
    assert_allclose(history["valid_elbo"][-1], recorded, rtol=1e-14)
    assert history["valid_elbo"][-1] == -history["valid_nll"][-1] - history["valid_kl"][-1]


@DEVICE
@pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)
def test_the_same_seed_gives_the_same_model_and_partial_fit_is_one_epoch(optimizer, device):
    settings = dict(optimizer=optimizer, device=device, epochs=3, n_threads=1 + (device == "cpu"))
    model, again, stepwise = (vae(**settings) for _ in range(3))
    model.fit(GREY)
    same_training(again.fit(GREY), model)
    same_training(again.fit(GREY), model)  # fit starts anew
    for _ in range(3):
        stepwise.partial_fit(GREY)
    same_training(stepwise, model)
    same_training(stepwise.partial_fit(GREY), again.partial_fit(GREY))
    other = vae(**{**settings, "random_state": 1}).fit(GREY)
    assert not np.array_equal(other.state_.theta, model.state_.theta)


def test_fit_takes_another_number_of_features_and_forgets_the_old():
    model = vae().fit(GREY).fit(GREY[:, :3])
    same_training(model, vae().fit(GREY[:, :3]))
    assert model.n_features_in_ == 3


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)], ids=["None", "state"])
def test_without_a_fixed_seed_every_fit_differs(random_state):
    model = vae(random_state=random_state)
    thetas = [model.fit(GREY).state_.theta.copy() for _ in range(2)]
    assert not np.array_equal(*thetas)
    assert not np.array_equal(model.elbo(BINARY), model.elbo(BINARY))
    assert_array_equal(model.score_samples(BINARY), model.score_samples(BINARY))


@DEVICE
def test_the_epoch_loss_is_the_mean_over_rows_not_over_batches(device):
    """101 rows in batches of 100; parameters cannot move, so each batch can be asked again."""
    X = np.random.default_rng(1).normal(size=(101, 7))
    model = vae(device=device, batch_size=100, epochs=1, learning_rate=1e-30, optimizer="sgd",
                likelihood="gaussian", beta=4.0, dtype="float64", n_threads=1)  # fmt: skip
    order = shuffled(101, 0, 0)
    X[order[-1]] += 50  # the row that is alone in its batch weighs a lot
    model.fit(X)
    losses = []
    for step, rows in enumerate([order[:100], order[100:]]):
        eps = np.empty((len(rows), 2))
        reference.random_normal(0, kernels.STREAM_POSTERIOR, step, 0, eps)
        losses.append(model.loss_and_gradients(X[rows], eps)[0])
    history = {name: values[0] for name, values in model.history_.items()}
    assert_allclose(history["loss"], (100 * losses[0] + losses[1]) / 101, rtol=1e-12)
    assert_allclose(history["loss"], history["nll"] + 4 * history["kl"], rtol=1e-12)
    assert_allclose(history["elbo"], -history["nll"] - history["kl"], rtol=1e-12)
    assert history["seconds"] > 0


@DEVICE
@pytest.mark.parametrize("X", [GREY[:1], GREY[:3], np.ones((9, 4)), np.zeros((9, 1))], ids=str)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_little_or_constant_data(likelihood, X, device):
    model = vae(likelihood=likelihood, device=device, n_threads=2 if device == "cpu" else 1).fit(X)
    assert np.isfinite([*model.history_["loss"], *model.elbo(X)]).all()
    assert model.reconstruct(X).shape == model.sample(len(X)).shape == X.shape


@pytest.mark.parametrize("n_threads", [None, 2])
def test_the_reference_trains_whatever_the_number_of_threads(n_threads, monkeypatch):
    """Enough work per step for several threads; plain NumPy has one worker all the same."""
    monkeypatch.setattr(threads, "processors", lambda: 4)
    X = np.random.default_rng(1).random((64, 200))
    wide = dict(hidden_layer_sizes=(400,), batch_size=64, epochs=1)
    same_training(vae(**wide, n_threads=n_threads).fit(X), vae(**wide, n_threads=1).fit(X))


def test_a_loss_that_is_no_longer_finite_stops_training_with_advice():
    model = vae(device="cpu", learning_rate=1e30, optimizer="sgd", likelihood="gaussian", epochs=9)
    with pytest.raises(FloatingPointError, match="learning_rate below 1e\\+30"):
        model.fit(GREY)


def test_verbose_shows_progress_on_a_terminal(monkeypatch, capsys):
    """In a file every look at the clock would leave a line."""
    vae().fit(GREY)
    vae(verbose=1).fit(GREY)
    assert capsys.readouterr() == ("", "")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    vae().fit(GREY)
    assert terminal.getvalue() == ""
    vae(verbose=1).fit(GREY, X_valid=GREY)
    assert re.search("epoch 2: +100%", terminal.getvalue())
    for words in ("loss", "ELBO", "held-out"):
        assert words in terminal.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("likelihood", "optimizer", "activation"),
                         [("bernoulli", "adam", "relu"), ("gaussian", "adagrad", "softplus"),
                          ("bernoulli", "sgd", "tanh")])  # fmt: skip
def test_any_number_of_threads_gives_the_same_bits(likelihood, optimizer, activation, dtype):
    """With widths and batches that no number of threads divides, and loops with a rest."""
    settings = dict(hidden_layer_sizes=(33, 17), latent_dim=3, batch_size=23, epochs=2, dtype=dtype)
    kinds = dict(likelihood=likelihood, optimizer=optimizer, activation=activation)
    models = [vae(**settings, **kinds, n_threads=n).fit(GREY[:, :37]) for n in (1, 2, 3, 5)]
    for model in models[1:]:
        for name, value in model.parameters_.items():
            assert_array_equal(value, models[0].parameters_[name], err_msg=name)
        assert model.history_["loss"] == models[0].history_["loss"]


# --- codes, means, grouping ---------------------------------------------------------------------


@DEVICE
@pytest.mark.parametrize("n", [1, 127, 128, 129, 512, 513, 1024])
def test_results_do_not_depend_on_how_rows_are_grouped(n, device):
    """Not at all where products are our own; BLAS may add up more or fewer rows differently."""
    X = np.round(DIGITS)
    model = vae(device=device, binarize="threshold").partial_fit(X)
    for method in (model.transform, model.reconstruct, lambda X: model.score_samples(X, 2)):
        whole, part = method(X), method(X[7 : 7 + n])
        assert_array_equal(method(X[7 : 7 + n]), part)  # deterministic
        rounding = 64 * np.finfo(np.float32).eps * abs(whole).max()  # sums of 64 products
        atol = rounding if device == "reference" else 0
        assert_allclose(part, whole[7 : 7 + n], rtol=0, atol=atol)


def test_means_are_sigmoids_of_the_logits_or_gaussian_means():
    codes = RNG.normal(size=(9, 2))
    for likelihood, link in [("bernoulli", special.expit), ("gaussian", lambda y: y)]:
        model = vae(likelihood=likelihood, dtype="float64", activation="tanh").fit(GREY)
        p = model.parameters_
        h = np.tanh(codes @ p["decoder.0.weight"] + p["decoder.0.bias"])
        y = h @ p["decoder.out.weight"] + p["decoder.out.bias"]
        assert_allclose(model.inverse_transform(codes), link(y), rtol=1e-12)
        h = np.tanh(GREY @ p["encoder.0.weight"] + p["encoder.0.bias"])
        mu = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
        assert_allclose(model.transform(GREY), mu, rtol=1e-12)
        assert_array_equal(model.reconstruct(GREY), model.inverse_transform(model.transform(GREY)))


def test_binarisation_holds_wherever_x_is_read():
    threshold = vae(binarize="threshold").fit(GREY)
    assert_array_equal(threshold.transform(GREY), threshold.transform(GREY >= 0.5))
    assert_array_equal(threshold.elbo(GREY), threshold.elbo(GREY >= 0.5))
    stochastic = vae(binarize="stochastic").fit(GREY)
    draws = [stochastic.elbo(GREY, random_state=seed) for seed in (1, 1, 2)]
    assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    same_training(vae(binarize="stochastic").fit(BINARY), vae().fit(BINARY))


# --- estimates ----------------------------------------------------------------------------------


def linear_model(device, poor=0.0, dtype="float64"):
    """A linear VAE at the optimum of probabilistic PCA, and the exact ln p(x) of its decoder.

    Covariance with eigenvalues l_j for two directions and s2 for the rest: W = U (l - s2)^(1/2),
    M = W'W + s2 I = diag(l), posterior mean M^-1 W'(x - b), variances s2 / l. poor: how far
    the encoder is from it.
    """
    b, U = np.arange(6.0), np.linalg.qr(np.random.default_rng(2).normal(size=(6, 2)))[0]
    s2, eigenvalues = 0.3, np.array([4.0, 1.5])
    W = U * np.sqrt(eigenvalues - s2)
    model = VAE(hidden_layer_sizes=(), likelihood="gaussian", dtype=dtype, device=device,
                random_state=0)  # fmt: skip
    exact = stats.multivariate_normal(b, W @ W.T + s2 * np.eye(6))
    X = exact.rvs(40, random_state=3)
    model.loss_and_gradients(X)
    V = W / eigenvalues * (1 - poor)
    for name, value in {
        "encoder.mu.weight": V, "encoder.mu.bias": -b @ V,
        "encoder.logvar.weight": 0, "encoder.logvar.bias": np.log(s2 / eigenvalues) + poor,
        "decoder.out.weight": W.T, "decoder.out.bias": b, "decoder.noise_logvar": np.log(s2),
    }.items():  # fmt: skip
        model.parameters_[name][...] = value
    return model, X, exact.logpdf


@DEVICE
def test_at_the_optimum_every_estimate_is_the_exact_log_likelihood(device):
    """There w = p(x|z) p(z) / q(z|x) is p(x) for any z, also where it is e^-1e6."""
    model, X, log_p = linear_model(device)
    for rows in (X, 1e3 * X):
        for n_samples in (1, 7):
            found = model.score_samples(rows, n_samples)
            assert_allclose(found, log_p(rows), rtol=1e-9)
    assert_allclose(model.score(X), log_p(X).mean(), rtol=1e-9)
    single = linear_model(device, dtype="float32")[0]
    assert_allclose(single.score_samples(1e3 * X), log_p(1e3 * X), rtol=1e-4)
    # The ELBO is exact in the mean over draws.
    draws = np.array([model.elbo(X, random_state=seed).mean() for seed in range(200)])
    assert abs(draws.mean() - log_p(X).mean()) < 4 * draws.std() / 200**0.5


def test_bounds_tighten_with_the_number_of_samples():
    """With a poor posterior: ELBO = L_1 < L_5 < L_50 <= ln p, and L_2000 is near it."""
    model, X, log_p = linear_model("cpu", poor=0.3)
    X, draws = X[:5], 100
    means, errors = [], []
    for n_samples in (1, 5, 50):
        values = []
        for model.seed_ in range(draws):
            values.append(model.score_samples(X, n_samples).mean())
        means.append(np.mean(values))
        errors.append(np.std(values) / draws**0.5)
    elbo = np.mean([model.elbo(X, 20, random_state=seed).mean() for seed in range(draws)])
    assert abs(elbo - means[0]) < 5 * errors[0]
    gaps = np.diff([*means, log_p(X).mean()])
    assert (gaps[:2] > 4 * np.hypot(errors[:2], errors[1:])).all()
    assert gaps[2] > -4 * errors[2]
    near = []
    for model.seed_ in range(20):
        near.append(model.score_samples(X, 2000))
    spread = np.std(near, axis=0)
    # The logarithm of a mean is low by half its relative variance; the rest is chance.
    low = log_p(X) - np.mean(near, axis=0)
    assert (abs(low - spread**2 / 2) < 5 * spread / 20**0.5).all()


@DEVICE
def test_score_samples_is_the_importance_weighted_estimate(device):
    """ln mean w from the definition of w, densities by scipy, the same noise for every row."""
    model, X, _ = linear_model(device, poor=0.5)
    p = {name: value.copy() for name, value in model.parameters_.items()}
    mu = X @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    std = np.exp(p["encoder.logvar.bias"] / 2)
    log_w, noise = [], np.empty((3, 2))
    reference.random_normal(model.seed_, kernels.STREAM_SCORE, 0, 0, noise)
    for eps in noise:
        z = mu + std * eps
        y, noise = z @ p["decoder.out.weight"] + p["decoder.out.bias"], 0.3**0.5
        log_w.append(stats.norm.logpdf(X, y, noise).sum(1) + stats.norm.logpdf(z).sum(1)
                     - stats.norm.logpdf(z, mu, std).sum(1))  # fmt: skip
    expected = special.logsumexp(log_w, axis=0) - np.log(3)
    assert_allclose(model.score_samples(X, 3), expected, rtol=1e-10)


@DEVICE
def test_the_elbo_is_unbiased(device):
    """Against quadrature over one latent: E_q ln p(x|z) - KL, one row many times."""
    x = np.array([1.0, 0.0, 1.0])
    model = vae(latent_dim=1, hidden_layer_sizes=(), dtype="float64", device=device).fit(x[None])
    for view in model.parameters_.values():
        view[...] = np.random.default_rng(4).normal(size=view.shape)
    p = model.parameters_
    mu = (x @ p["encoder.mu.weight"] + p["encoder.mu.bias"]).item()
    std = np.exp((x @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]).item() / 2)

    def integrand(z):
        logits = z * p["decoder.out.weight"][0] + p["decoder.out.bias"]
        return stats.norm.pdf(z, mu, std) * (x * logits - np.logaddexp(0, logits)).sum()

    reconstruction = integrate.quad(integrand, mu - 10 * std, mu + 10 * std)[0]
    kl = (mu**2 + std**2 - 1) / 2 - np.log(std)
    n = 20000
    values = model.elbo(np.tile(x, (n, 1)))
    assert abs(values.mean() - (reconstruction - kl)) < 4 * values.std() / n**0.5
    # n_samples is the number of draws per row: a quarter of the spread for 16.
    averages = model.elbo(np.tile(x, (2000, 1)), n_samples=16)
    assert_allclose(averages.std(), values.std() / 4, rtol=5 / 2000**0.5)


@DEVICE
def test_samples_are_from_the_prior_and_the_likelihood(device):
    n = 20000
    model, _, _ = linear_model(device)
    p = model.parameters_
    p["decoder.noise_logvar"][...], p["decoder.out.bias"][...] = -30, 0
    p["decoder.out.weight"][...] = np.eye(2, 6)
    p["encoder.mu.bias"][...] = 5  # where the data were must not matter
    z = model.sample(n)[:, :2]  # to 3e-7
    assert (abs(z.mean(axis=0)) < 5 / n**0.5).all()
    assert_allclose(np.cov(z.T), np.eye(2), atol=5 * (2 / n) ** 0.5)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4

    p["decoder.out.weight"][...], p["decoder.noise_logvar"][...] = 0, np.log(4)
    x = model.sample(n, random_state=1)
    assert_allclose(x.std(axis=0), 2, rtol=5 / (2 * n) ** 0.5)
    assert_array_equal(model.sample(n, random_state=1), x)
    assert not np.array_equal(model.sample(n, random_state=2), x)

    model = vae(device=device).fit(GREY)
    logits = np.linspace(-3, 3, 7)
    model.parameters_["decoder.out.weight"][...] = 0
    model.parameters_["decoder.out.bias"][...] = logits
    x = model.sample(n)
    assert set(np.unique(x)) == {0, 1}
    p = special.expit(logits)
    assert (abs(x.mean(axis=0) - p) < 5 * np.sqrt(p * (1 - p) / n)).all()


# --- extremes -----------------------------------------------------------------------------------


@DEVICE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_and_variances_stay_finite(dtype, device):
    model = vae(dtype=dtype, device=device)
    model.loss_and_gradients(BINARY)
    p = model.parameters_
    logits = np.array([1e3, -1e3, 1e3, -1e3, 0, 1e3, -1e3])
    p["decoder.out.weight"][...], p["decoder.out.bias"][...] = 0, logits
    nll = (np.logaddexp(0, logits) - BINARY * logits).sum(axis=1)
    loss, gradients = model.loss_and_gradients(BINARY)
    assert 0 < loss - nll.mean() < 10  # kl
    # p - x, also where p is 0 or 1 to all digits and x is not.
    expected = (special.expit(logits) - BINARY).mean(axis=0)
    assert_allclose(gradients["decoder.out.bias"], expected, rtol=0, atol=1e-6)
    assert_allclose(model.elbo(BINARY, random_state=0), -nll, atol=10)
    assert set(np.unique(model.sample(50)[:, :4])) == {0, 1}

    for logvar in (1e3, -1e3):  # held within bounds, where the gradient ends
        p["encoder.logvar.bias"][...] = logvar
        loss, gradients = model.loss_and_gradients(BINARY)
        assert np.isfinite([loss, *model.elbo(BINARY), *model.score_samples(BINARY, 5)]).all()
        assert not gradients["encoder.logvar.bias"].any()
        assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("method", ["score", "score_samples"])
def test_the_log_likelihood_of_grey_values_comes_with_a_warning(method):
    with pytest.warns(UserWarning, match="not a log-likelihood.*binarize=") as caught:
        getattr(vae().fit(GREY), method)(GREY)
    assert [warning.filename for warning in caught] == [__file__]  # it points at the caller
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(vae().fit(BINARY), method)(BINARY)
        getattr(vae(binarize="stochastic").fit(GREY), method)(GREY)
        getattr(vae(likelihood="gaussian").fit(GREY), method)(GREY)


def test_binarising_a_gaussian_model_is_refused_however_it_is_asked_for():
    model = vae(likelihood="gaussian").fit(GREY).set_params(binarize="threshold")
    for call in (model.transform, model.reconstruct, model.elbo, model.partial_fit):
        with pytest.raises(ValueError, match="binarize='threshold' goes with likelihood=\"bern"):
            call(GREY)
