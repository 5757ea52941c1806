"""What a VAE can be trained by: K draws, importance-weighted bounds, the full covariance, warm-up
and free bits. The kernels behind them are tested in tests/kernels/test_posterior.py."""

import itertools

import numpy as np
import pytest
from families import bits
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import minivae
from minivae import VAE
from minivae.models.vae.likelihoods import PLAIN

RNG = np.random.default_rng(0)
X = (RNG.random((23, 5)) > 0.5).astype(float)
HOLES = np.where(RNG.random(X.shape) < 0.3, np.nan, X)
EVERYTHING = dict(posterior="full", objective="dreg", n_importance=3, likelihood="gaussian",
                  missing="mask")  # fmt: skip


def vae(**settings):
    same = dict(hidden_layer_sizes=(4,), activation="tanh", dtype="float64", epochs=2, batch_size=5,
                learning_rate=0.02, device="reference", random_state=0)  # fmt: skip
    return VAE(**{"latent_dim": 3, **same, **settings})


# --- every gradient -------------------------------------------------------------------------------

WAYS = [
    *itertools.product(("diagonal", "full"), [("elbo", 3), ("iwae", 1), ("iwae", 3)], [0.0]),
    ("full", ("elbo", 1), 0.0),
    ("diagonal", ("elbo", 1), 0.3),
    ("diagonal", ("elbo", 3), 0.3),
]


@pytest.mark.parametrize(("posterior", "objective", "free_bits"), WAYS)
@pytest.mark.parametrize("likelihood", PLAIN)
@pytest.mark.parametrize("missing", ["error", "mask"])
def test_every_gradient(posterior, objective, free_bits, likelihood, missing):
    name, K = objective
    model = vae(posterior=posterior, objective=name, n_importance=K, free_bits=free_bits,
                likelihood=likelihood, missing=missing,
                beta=0.7 if name == "elbo" else 1.0)  # fmt: skip
    data = HOLES if missing == "mask" else X
    report = model.fit(data).check_gradients(data)
    assert report.passed and report.worst <= 1e-6, str(report)
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}


@pytest.mark.parametrize("settings", [EVERYTHING, {"free_bits": 0.3}])
def test_any_number_of_threads_gives_the_same_bits_and_those_of_the_reference(settings):
    data = HOLES if settings is EVERYTHING else X
    models = [vae(device="cpu", n_threads=n, **settings).fit(data, X_valid=data) for n in (1, 2, 3)]
    assert bits(models[0]) == bits(models[1]) == bits(models[2])
    expected = vae(**settings).fit(data, X_valid=data)
    rounding = 10 * 200 * np.finfo(float).eps  # ten steps of some hundred roundings
    assert_allclose(models[0].state_.theta, expected.state_.theta, rtol=0, atol=rounding)
    assert_allclose(models[0].history_["loss"], expected.history_["loss"], rtol=rounding)
    assert_allclose(models[0].score_samples(data, 7), expected.score_samples(data, 7), rtol=1e-10)


def test_a_model_goes_on_and_is_read_again(tmp_path):
    whole = vae(**EVERYTHING).fit(HOLES)
    half = vae(**EVERYTHING, epochs=1).fit(HOLES).set_params(epochs=2)
    half.save(tmp_path / "half.safetensors")
    again = minivae.load(tmp_path / "half.safetensors").resume(HOLES)
    assert bits(again) == bits(whole)


# --- values, from their definitions ---------------------------------------------------------------


def by_hand(model, eps):
    """(nll, ln q(z|x) - ln p(z), mu, L) of each row and draw, in densities of SciPy."""
    p, (n, K, Z) = model.parameters_, eps.shape
    h = np.tanh(X @ p["encoder.0.weight"] + p["encoder.0.bias"])
    heads = {
        name: h @ p[f"encoder.{name}.weight"] + p[f"encoder.{name}.bias"]
        for name in ("mu", "logvar", "lower") if f"encoder.{name}.weight" in p
    }  # fmt: skip
    L = np.zeros((n, Z, Z))
    for i in range(n):
        L[i] = np.diag(np.exp(heads["logvar"][i] / 2))
        if "lower" in heads:
            L[i][np.tril_indices(Z, -1)] = heads["lower"][i]
    z = heads["mu"][:, None] + np.einsum("nij,nkj->nki", L, eps)
    g = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"])
    y = g @ p["decoder.out.weight"] + p["decoder.out.bias"]
    nll = -(X[:, None] * y - np.logaddexp(0, y)).sum(axis=2)
    ratio = np.empty((n, K))
    for i in range(n):
        q = stats.multivariate_normal(heads["mu"][i], L[i] @ L[i].T)
        ratio[i] = q.logpdf(z[i]) - stats.norm.logpdf(z[i]).sum(axis=1)
    return nll, ratio, heads["mu"], L


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_the_loss_is_what_is_defined(posterior):
    model, eps = vae(posterior=posterior, n_importance=4).fit(X), RNG.normal(size=(23, 4, 3))
    for view in model.parameters_.values():
        view += RNG.normal(0, 0.3, view.shape)
    nll, ratio, mu, L = by_hand(model, eps)
    covariance = L @ L.swapaxes(1, 2)
    logdet = np.linalg.slogdet(covariance)[1]
    kl = (np.trace(covariance, axis1=1, axis2=2) + (mu**2).sum(axis=1) - 3 - logdet) / 2
    loss, _ = model.loss_and_gradients(X, eps)
    assert_allclose(loss, nll.mean() + kl.mean(), rtol=1e-12)
    iwae = vae(posterior=posterior, n_importance=4, objective="iwae").fit(X)
    iwae.state_.theta[:] = model.state_.theta
    bound = special.logsumexp(-nll - ratio, axis=1) - np.log(4)
    loss, _ = iwae.loss_and_gradients(X, eps)
    assert_allclose(loss, -bound.mean(), rtol=1e-12)


def test_a_latent_of_a_full_covariance_has_its_own_variance():
    """kl_per_latent is of q(z_j|x), whose variance is the diagonal of L L'; so is the aggregated
    variance of `diagnose`."""
    model, eps = vae(posterior="full").fit(X), np.zeros((23, 1, 3))
    for view in model.parameters_.values():
        view += RNG.normal(0, 0.3, view.shape)
    _, _, mu, L = by_hand(model, eps)
    variance = np.diagonal(L @ L.swapaxes(1, 2), axis1=1, axis2=2)
    kl = (mu**2 + variance - np.log(variance) - 1) / 2
    assert_allclose(model.kl_per_latent(X), kl.mean(axis=0), rtol=1e-12)
    whole = variance.mean(axis=0) + mu.var(axis=0)
    assert_allclose(model.diagnose(X).variance, whole, rtol=1e-12)


def test_free_bits_are_a_term_of_their_own():
    """kl stays what it is, and so does the ELBO; only the loss has the slack."""
    model = vae(free_bits=0.4, beta=0.5).fit(X, X_valid=X)
    past = {name: np.array(values) for name, values in model.history_.items()}
    assert (past["slack"] > 0).all()
    assert_allclose(past["loss"], past["nll"] + 0.5 * (past["kl"] + past["slack"]), rtol=1e-12)
    assert_allclose(past["elbo"], -past["nll"] - past["kl"], rtol=1e-12)
    assert_allclose(past["valid_elbo"], -past["valid_nll"] - past["valid_kl"], rtol=1e-12)
    assert model.elbo(X).shape == (23,)


def test_beta_rises_epoch_by_epoch(tmp_path):
    """To beta, in equal steps, and from where it was when training goes on."""
    settings = dict(beta=2.0, beta_warmup=3, epochs=5)
    model = vae(**settings).fit(X)
    past = {name: np.array(values) for name, values in model.history_.items()}
    weights = (past["loss"] - past["nll"]) / past["kl"]
    assert_allclose(weights, [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-9)
    part = vae(**settings | {"epochs": 2}).fit(X).set_params(epochs=5)
    assert bits(part.resume(X)) == bits(model)
    constant = vae(**settings | {"beta_warmup": 0}).fit(X)
    assert not np.array_equal(constant.state_.theta, model.state_.theta)


def test_the_same_model_scores_the_same_whatever_it_was_trained_by():
    """Objective, draws and free bits are of training: codes, ELBO and ln p(x) are not of them."""
    models = [vae(**s).fit(X) for s in ({}, {"objective": "iwae", "n_importance": 5},
                                        {"n_importance": 2, "free_bits": 0.2})]  # fmt: skip
    for model in models[1:]:
        model.state_.theta[:] = models[0].state_.theta
        for use in ("transform", "reconstruct", "elbo", "score_samples", "kl_per_latent"):
            assert_array_equal(getattr(model, use)(X), getattr(models[0], use)(X), err_msg=use)
        assert_array_equal(model.sample(7, random_state=1), models[0].sample(7, random_state=1))


# --- estimates of gradients -----------------------------------------------------------------------


def test_the_doubly_reparameterised_gradient_is_that_of_the_bound_in_the_mean():
    """Over many draws, by standard errors; the decoder's is the same draw by draw. Its encoder part
    has the smaller variance, which is what it is for."""
    row, found = X[:1].repeat(40, axis=0), {}
    models = {name: vae(objective=name, n_importance=8).fit(X) for name in ("iwae", "dreg")}
    models["dreg"].state_.theta[:] = models["iwae"].state_.theta
    for name, model in models.items():
        eps = np.random.default_rng(5).normal(size=(150, 40, 8, 3))
        found[name] = [model.loss_and_gradients(row, e)[1] for e in eps]
    for name in models["iwae"].parameters_:
        iwae, dreg = (np.stack([g[name] for g in found[way]]) for way in ("iwae", "dreg"))
        if name.startswith("decoder"):
            assert_array_equal(iwae, dreg)
            continue
        apart = iwae - dreg
        error = apart.std(axis=0) / np.sqrt(len(apart))
        # Of some hundred entries that share their draws, none may be off by 5 standard errors.
        assert (abs(apart.mean(axis=0)) <= 5 * error + 1e-15).all(), name
        assert dreg.std(axis=0).mean() < iwae.std(axis=0).mean(), name


def test_more_draws_make_the_gradient_quieter_and_leave_its_mean():
    """The variance of the mean of K draws is a K-th of that of one draw."""
    one, four = vae().fit(X), vae(n_importance=4).fit(X)
    four.state_.theta[:] = one.state_.theta
    eps = np.random.default_rng(6).normal(size=(400, 23, 4, 3))
    name = "encoder.mu.weight"
    few = np.stack([one.loss_and_gradients(X, e[:, 0])[1][name] for e in eps])
    many = np.stack([four.loss_and_gradients(X, e)[1][name] for e in eps])
    ratio = (few.var(axis=0) / many.var(axis=0)).mean()
    # A variance of 400 draws has a relative error of 7 %, a ratio 10 %, a mean of 12 entries less.
    assert 3.4 < ratio < 4.7, ratio


# --- what ln p(x) is worth ------------------------------------------------------------------------


def rotated_optimum(posterior):
    """(a linear VAE at a rotated optimum of probabilistic PCA, x, ln p(x), M): see published.md of
    Tipping and Bishop: W = U (L - s2 I)^(1/2) R, p(z|x) = N(M^-1 W'(x - b), s2 M^-1), M = W'W + s2.
    """
    U = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 2)))[0]
    R = np.array([[0.8, -0.6], [0.6, 0.8]])
    b, s2 = np.arange(6.0), 0.3
    W = U @ np.diag(np.sqrt(np.array([4.0, 1.5]) - s2)) @ R
    M = W.T @ W + s2 * np.eye(2)
    exact = stats.multivariate_normal(b, W @ W.T + s2 * np.eye(6))
    data = exact.rvs(30, random_state=3)
    model = vae(latent_dim=2, hidden_layer_sizes=(), likelihood="gaussian", posterior=posterior)
    model.loss_and_gradients(data)
    V, covariance = W @ np.linalg.inv(M), s2 * np.linalg.inv(M)
    logvar, lower = -np.log(np.diag(M) / s2), None
    if posterior == "full":
        L = np.linalg.cholesky(covariance)
        logvar, lower = 2 * np.log(np.diag(L)), L[1, :1]
    values = {"encoder.mu.weight": V, "encoder.mu.bias": -b @ V, "encoder.logvar.weight": 0,
              "encoder.logvar.bias": logvar, "encoder.lower.weight": 0,
              "encoder.lower.bias": lower, "decoder.out.weight": W.T, "decoder.out.bias": b,
              "decoder.noise_logvar": np.log(s2)}  # fmt: skip
    for name, view in model.parameters_.items():
        view[...] = values[name]
    return model, data, exact.logpdf(data), M / s2


def test_a_full_covariance_closes_the_gap_at_a_rotated_optimum():
    """q is the posterior: every weight is p(x) itself, so one draw gives it, without an error."""
    model, data, log_p, _ = rotated_optimum("full")
    found = model.score_samples(data, 5, return_error=True)
    assert_allclose(found.log_p, log_p, rtol=1e-10)
    assert_allclose(found.effective_draws, 5, rtol=1e-10)
    assert (found.error < 1e-5).all()  # the root of what rounding leaves of 0


def test_a_diagonal_covariance_leaves_the_gap_of_the_theorem():
    """1/2 [sum ln M_ii - ln det M], M over s2, in the mean over draws."""
    model, data, log_p, M = rotated_optimum("diagonal")
    gap = (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1]) / 2
    assert gap > 0.1
    draws = np.stack([log_p - model.elbo(data, random_state=seed) for seed in range(1000)])
    error = draws.mean(axis=1).std() / np.sqrt(len(draws))
    assert abs(draws.mean() - gap) < 4 * error < gap / 4


def test_the_standard_error_is_the_spread_of_the_estimates():
    model, data, log_p, _ = rotated_optimum("diagonal")
    estimates, errors = [], []
    for seed in range(200):
        model.seed_ = seed
        found = model.score_samples(data, 50, return_error=True)
        estimates.append(found.log_p)
        errors.append(found.error)
    spread = np.std(estimates, axis=0)
    # A spread of 200 values is known to 5 %, the error to a few more, as weights have long tails.
    assert 0.8 < np.mean(errors) / spread.mean() < 1.1
    found = model.score_samples(data, 5000, return_error=True)
    assert (abs(found.log_p - log_p) < 4 * found.error).all() and (found.error < 0.02).all()
    bias = np.mean(estimates, axis=0) - log_p
    assert (bias <= 4 * spread / np.sqrt(200)).all()  # a lower bound, in the mean


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_ln_p_of_a_row_does_not_depend_on_others_nor_on_threads(device):
    model = vae(device=device).fit(X)
    data = np.tile(X, (7, 1))
    one = model.set_params(n_threads=1).score_samples(data, 130)
    model.set_params(n_threads=None)
    apart = np.concatenate([model.score_samples(x, 130) for x in (data[:5], data[5:])])
    for found in (model.score_samples(data, 130), apart):
        assert_allclose(found, one, rtol=0 if device == "cpu" else 1e-12)
