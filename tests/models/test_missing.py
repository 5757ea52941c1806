"""missing="mask": NaN in X is a value that was not observed, which counts for nothing in the loss.
The encoder reads 0 in its place, and the mask beside it.

A mask is cut with the rows that it belongs to, whatever the number of threads; `test_mutations.py`
plants the mistake of handing over the whole batch's.
"""

import numpy as np
import pytest
from families import bits
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, special, stats

from minivae import VAE
from minivae.models.vae.likelihoods import PLAIN

RNG = np.random.default_rng(0)
FULL = RNG.random((23, 7))
HOLES = RNG.random(FULL.shape) < 0.3
HOLES[3] = True  # a row of which nothing is known
HOLES[4] = False  # and one of which everything is
X = np.where(HOLES, np.nan, FULL)
DEVICE = pytest.mark.parametrize("device", ["reference", "cpu"])
LIKELIHOOD = pytest.mark.parametrize("likelihood", PLAIN)


def read(values):
    """What the encoder reads of values (n, D): them, with 0 for what is missing, and the mask."""
    return np.hstack([np.where(np.isnan(values), 0, values), ~np.isnan(values)])


def vae(**settings):
    same = dict(hidden_layer_sizes=(5,), activation="tanh", missing="mask", dtype="float64",
                epochs=2, batch_size=5, learning_rate=0.02, random_state=0)  # fmt: skip
    return VAE(**{**same, **settings})


@LIKELIHOOD
def test_any_number_of_threads_gives_the_same_bits(likelihood):
    """Rows differ in what is missing, so a thread that read another row's mask would show."""
    models = [vae(likelihood=likelihood, n_threads=n).fit(X, X_valid=X) for n in (1, 2, 3)]
    assert bits(models[0]) == bits(models[1]) == bits(models[2])
    expected = vae(likelihood=likelihood, device="reference").fit(X, X_valid=X)
    rounding = 10 * 200 * np.finfo(float).eps  # ten steps of some hundred roundings
    assert_allclose(models[0].state_.theta, expected.state_.theta, rtol=0, atol=rounding)
    assert_allclose(models[0].history_["loss"], expected.history_["loss"], rtol=rounding)


@LIKELIHOOD
@DEVICE
def test_every_gradient(device, likelihood):
    model = vae(likelihood=likelihood, device=device).fit(X)
    report = model.check_gradients(X)
    assert report.passed and report.worst <= 1e-6, str(report)
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}


@LIKELIHOOD
@DEVICE
def test_the_loss_is_a_sum_over_observed_entries(device, likelihood):
    model = vae(likelihood=likelihood, device=device, beta=0.7).fit(X)
    p, eps = model.parameters_, RNG.normal(size=(len(X), 2))
    h = np.tanh(read(X) @ p["encoder.0.weight"] + p["encoder.0.bias"])
    mu = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    logvar = h @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
    z = mu + np.exp(logvar / 2) * eps
    h = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"])
    y = h @ p["decoder.out.weight"] + p["decoder.out.bias"]
    loss = 0.7 * ((mu**2 + np.exp(logvar) - logvar - 1) / 2).sum()
    for i, d in np.argwhere(~HOLES):  # one entry after the other
        if likelihood == "bernoulli":
            q = special.expit(y[i, d])
            loss -= X[i, d] * np.log(q) + (1 - X[i, d]) * np.log(1 - q)
        else:
            std = np.exp(p["decoder.noise_logvar"][0] / 2)
            loss -= stats.norm.logpdf(X[i, d], y[i, d], std)
    found, gradients = model.loss_and_gradients(X, eps)
    assert_allclose(found, loss / len(X), rtol=1e-13)
    never = vae(likelihood=likelihood, device=device)
    lost = np.where(np.arange(7) == 2, np.nan, X)  # a column of which nothing is known
    _, gradients = never.loss_and_gradients(lost)
    assert not gradients["decoder.out.weight"][:, 2].any()
    assert not gradients["encoder.0.weight"][[2, 7 + 2]].any()  # neither its values nor its mask


@LIKELIHOOD
@DEVICE
def test_where_nothing_is_missing_it_is_the_model_without_a_mask(device, likelihood):
    """All entries of the mask are 1 there, so its weights add a constant to the first layer: it is
    the model whose biases have them in."""
    settings = dict(likelihood=likelihood, device=device, n_threads=2)
    mask, none = (vae(**settings, missing=missing).fit(FULL) for missing in ("mask", "error"))
    for name, value in mask.parameters_.items():
        if name == "encoder.0.weight":
            none.parameters_[name][:], weights = value[:7], value[7:]
        else:
            none.parameters_[name][:] = value
    none.parameters_["encoder.0.bias"][:] += weights.sum(axis=0)
    # Sums of up to 14 products, through five layers there and back, each of them below 10.
    rounding = 10 * 14 * 10 * np.finfo(float).eps
    none.seed_ = mask.seed_
    for method in ("transform", "elbo", "reconstruct"):
        found, expected = (getattr(model, method)(FULL) for model in (mask, none))
        assert_allclose(found, expected, rtol=rounding, atol=rounding, err_msg=method)
    (loss, found), (expected_loss, expected) = (m.loss_and_gradients(FULL) for m in (mask, none))
    assert_allclose(loss, expected_loss, rtol=rounding)
    of_weights = found["encoder.0.weight"]
    assert_allclose(of_weights[7:], np.tile(found["encoder.0.bias"], (7, 1)), atol=rounding)
    found["encoder.0.weight"] = of_weights[:7]
    for name, gradient in expected.items():
        assert_allclose(found[name], gradient, atol=rounding, err_msg=name)


@DEVICE
@pytest.mark.parametrize("binarize", ["threshold", "stochastic"])
def test_what_is_missing_stays_so_when_values_are_binarised(binarize, device):
    model = vae(device=device, binarize=binarize).fit(X)
    by_hand = np.where(HOLES, np.nan, FULL >= 0.5)
    if binarize == "threshold":
        assert_array_equal(model.elbo(X), vae(device=device).fit(by_hand).elbo(by_hand))
    none = model.elbo(X[HOLES.all(axis=1)], n_samples=3)
    assert np.isfinite(none).all() and (none <= 0).all()  # -kl: there is nothing to explain
    seen = by_hand if binarize == "threshold" else X  # codes are of the values as they are
    p, codes = model.parameters_, model.transform(X)
    h = np.tanh(read(seen) @ p["encoder.0.weight"] + p["encoder.0.bias"])
    expected = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    assert_allclose(codes, expected, rtol=0, atol=10 * 14 * np.finfo(float).eps)
    differ = (codes != model.transform(np.where(HOLES, 0, X))).any(axis=1)
    assert_array_equal(differ, HOLES.any(axis=1))  # a 0 that is known is no missing value


def test_the_score_of_a_row_is_that_of_what_is_known_of_it():
    """ln p of the observed entries, by quadrature over one latent: entries that are not are summed
    out, which leaves them out of the product."""
    rows = (X >= 0.5).astype(float)
    rows[HOLES] = np.nan
    model = vae(latent_dim=1, binarize="threshold", epochs=20).fit(rows)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    q = model.inverse_transform(nodes[:, None])[:, None]  # (80, 1, D)
    factors = np.where(HOLES, 1, np.where(rows == 1, q, 1 - q))
    exact = np.log(weights / weights.sum() @ factors.prod(axis=2))
    found = []
    for model.seed_ in range(10):
        found.append(model.score_samples(rows, 1000))
    spread = np.std(found, axis=0) / 10**0.5
    # The logarithm of a mean is low by half its relative variance; the rest is chance.
    assert (abs(np.mean(found, axis=0) - exact) < 5 * spread + 5 * spread**2).all()
    # A row without anything known has probability 1, up to that chance; the others have less.
    assert exact[3] == pytest.approx(0, abs=1e-12) and (exact[~HOLES.all(axis=1)] < -0.1).all()


@pytest.mark.parametrize("form", ["csr", "memmap", "list", "float32"])
def test_other_forms_of_X_with_holes_are_the_array(form, tmp_path):
    np.save(tmp_path / "X.npy", X)
    other = {
        "csr": sparse.csr_array(X),
        "memmap": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "list": X.tolist(),
        "float32": X.astype("f4"),
    }[form]
    expected = vae(device="reference").fit(X if form != "float32" else X.astype("f4").astype(float))
    assert bits(vae(device="reference").fit(other)) == bits(expected)


def test_interrupted_resumed_and_saved(tmp_path):
    expected = vae(device="reference", epochs=3).fit(X, X_valid=X)
    model = vae(device="reference", epochs=2).fit(X, X_valid=X)
    model.save(tmp_path / "model")
    loaded = VAE.load(tmp_path / "model").set_params(epochs=3)
    assert bits(loaded.resume(X, X_valid=X)) == bits(expected)
    with pytest.raises(ValueError, match="resume needs the data that fit was given"):
        loaded.set_params(epochs=4).resume(np.where(HOLES, 0, X), X_valid=X)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.where(HOLES, np.inf, X), f"X contains infinity in {HOLES.sum()} of 161 entries"),
        (np.where(HOLES, -np.inf, X), "X contains infinity in .*first in row 0, column 5"),
        (X * 255, r"X has values from .* \[0, 1\].*255"),
        (-X, "Negative values in data: X has values from"),
    ],
)
def test_what_is_refused_all_the_same(values, words):
    model = vae(device="reference").fit(X)
    before = bits(model)
    for call in (model.fit, model.partial_fit, model.transform, model.elbo, vae().fit):
        with pytest.raises(ValueError, match=words):
            call(values)
    assert bits(model) == before


def test_rows_of_which_nothing_is_known_can_be_scored_but_not_be_all_of_the_data():
    nothing = np.full((3, 7), np.nan)
    model = vae(device="reference", binarize="threshold").fit(X)
    for use in (model.transform, model.reconstruct, model.score_samples):
        assert_allclose(use(nothing[:1]), use(X)[HOLES.all(axis=1)], rtol=1e-13)  # grouped or not
    before = bits(model)
    for fit in (model.fit, vae().fit, vae().partial_fit):
        with pytest.raises(ValueError, match="X has no value that is not NaN: give rows of which"):
            fit(nothing)
    with pytest.raises(ValueError, match="X_valid has no value that is not NaN"):
        model.fit(X, X_valid=nothing)
    assert bits(model) == before


def test_a_mask_shapes_the_model():
    model = vae(device="reference", missing="error").fit(FULL).set_params(missing="mask")
    with pytest.raises(ValueError, match="missing was changed after fit"):
        model.partial_fit(X)
    with pytest.raises(ValueError, match="X contains NaN"):
        model.set_params(missing="error").transform(X)
