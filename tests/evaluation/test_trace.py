"""A trace is of the step that trains: its arrays are those of the gradients, number by number, and
the line that it names for an array is the one that made it."""

from pathlib import Path

import numpy as np
import pytest
from families import X, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import minivae
from minivae import VAE
from minivae.engine.layout import Layout
from minivae.engine.program import modules
from minivae.models import MODELS

PACKAGE = Path(minivae.__file__).parent
FAMILY = pytest.mark.parametrize("name", MODELS)
VARIANTS = [
    *[(name, {}) for name in MODELS],
    ("vae", dict(likelihood="gaussian", missing="mask", hidden_layer_sizes=())),
    ("vae", dict(binarize="stochastic")),
]
VARIANT = pytest.mark.parametrize(("name", "settings"), VARIANTS, ids=str)


def fitted(name, **settings):
    return small(name, device="reference", **settings).fit(X)


@VARIANT
def test_every_region_and_every_gradient_is_there(name, settings):
    model = fitted(name, **settings)
    trace, layout = model.trace(X), model.layout_
    unused = {"u", "queue", "last"} & layout.regions.keys()  # for draws
    if name == "flow":  # whose u is what x is mapped to
        unused = set()
    if name == "vae" and settings.get("likelihood") != "gaussian":
        unused = {"dnoise_logvar"}
    gradients = {f"d{slot}" for slot in layout.slots}
    names = set()
    for key in trace:
        if key in layout.regions:
            names.add(key)
        elif " (" not in key:  # parameters side by side are "dfirst+second"
            names |= {f"d{part}" for part in key[1:].split("+")}
    assert names == (layout.regions.keys() - unused) | gradients
    earlier = {key.split(" (")[0] for key in trace if " (" in key}
    assert earlier <= layout.regions.keys()
    assert all(np.isfinite(array).all() for key, array in trace.items() if " (" not in key)


@VARIANT
def test_gradients_and_loss_are_those_of_loss_and_gradients(name, settings):
    model = fitted(name, **settings)
    loss, gradients = model.loss_and_gradients(X)
    trace, weights = model.trace(X), model.program.weights()
    terms = sum(weight * trace[term] for term, weight in weights.items())
    assert_allclose(terms.mean(), loss, rtol=1e-14)
    found = {}
    for key, array in trace.items():
        if key[1:].split("+")[0] in gradients and " (" not in key:
            names = key[1:].split("+")
            widths = [gradients[n].shape[-1] for n in names]
            found |= dict(zip(names, np.split(array, np.cumsum(widths)[:-1], axis=-1), strict=True))
    assert found.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert_array_equal(found[key], gradient, err_msg=key)


def test_every_number_of_a_small_vae():
    """Forward and backward by hand, in the order of the step."""
    model = VAE(2, hidden_layer_sizes=(3,), activation="tanh", beta=0.7, dtype="float64",
                device="reference", random_state=0)  # fmt: skip
    eps = np.random.default_rng(1).normal(size=(4, 2))
    model.loss_and_gradients(X[:4])
    for i, view in enumerate(model.parameters_.values()):
        view += np.random.default_rng(i).normal(0, 0.3, view.shape)
    p, B, x = model.parameters_, 4, X[:4].astype(float)
    heads = [f"encoder.{head}" for head in ("mu", "logvar")]
    W = np.hstack([p[f"{head}.weight"] for head in heads])
    b = np.hstack([p[f"{head}.bias"] for head in heads])
    h1 = np.tanh(x @ p["encoder.0.weight"] + p["encoder.0.bias"])
    mu, logvar = np.hsplit(h1 @ W + b, 2)
    std = np.exp(logvar / 2)
    z = mu + std * eps
    h2 = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"])
    logits = h2 @ p["decoder.out.weight"] + p["decoder.out.bias"]
    dlogits = (special.expit(logits) - x) / B
    dh2 = dlogits @ p["decoder.out.weight"].T
    da2 = dh2 * (1 - h2**2)
    dz = da2 @ p["decoder.0.weight"].T
    dmu = dz + 0.7 / B * mu
    dlogvar = dz * eps * std / 2 + 0.7 / B * (std**2 - 1) / 2
    dheads = np.hstack([dmu, dlogvar])
    dh1 = dheads @ W.T
    da1 = dh1 * (1 - h1**2)
    both, d = "encoder.mu+encoder.logvar", "dencoder.mu+encoder.logvar"
    expected = {
        "x": x, "eps": eps, "encoder.0 (matmul)": x @ p["encoder.0.weight"], "encoder.0": h1,
        f"{both} (matmul)": h1 @ W, both: np.hstack([mu, logvar]), "z": z,
        "decoder.0 (matmul)": z @ p["decoder.0.weight"], "decoder.0": h2,
        "decoder.out (matmul)": h2 @ p["decoder.out.weight"], "decoder.out": logits,
        "nll": -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=1),
        "ddecoder.out": dlogits, "kl": ((mu**2 + std**2 - logvar - 1) / 2).sum(axis=1),
        "ddecoder.0 (matmul)": dh2, "ddecoder.0": da2, "dz": dz,
        d: dheads, "dencoder.0 (matmul)": dh1, "dencoder.0": da1,
        "dencoder.0.weight": x.T @ da1, "dencoder.0.bias": da1.sum(axis=0),
        "dencoder.mu.weight+encoder.logvar.weight": h1.T @ dheads,
        "dencoder.mu.bias+encoder.logvar.bias": dheads.sum(axis=0),
        "ddecoder.0.weight": z.T @ da2, "ddecoder.0.bias": da2.sum(axis=0),
        "ddecoder.out.weight": h2.T @ dlogits, "ddecoder.out.bias": dlogits.sum(axis=0),
    }  # fmt: skip
    trace = model.trace(X[:4], eps)
    assert list(trace) == list(expected)  # and in this order
    for key, array in expected.items():  # some tens of roundings of numbers near 1
        assert_allclose(trace[key], array, rtol=1e-12, atol=1e-14, err_msg=key)
    assert (trace.entries["eps"].kernel, trace.entries["eps"].place) == ("given", "-")
    assert trace.entries["z"].reads == (both, "eps")
    assert trace.entries["ddecoder.0 (matmul)"].reads == ("ddecoder.out", "decoder.out.weight")


def test_every_number_of_a_small_nade():
    """One variable after the other, as the chain rule has it."""
    model = fitted("nade")
    p, B, x, trace = model.parameters_, len(X), X.astype(float), model.trace(X)
    W, V, c, b = (
        p[f"{n}"] for n in ("hidden.weight", "visible.weight", "hidden.bias", "visible.bias")
    )
    dW, dV, dc = np.zeros_like(W), np.zeros_like(V), np.zeros_like(c)
    for d in range(8):
        a = c + x[:, :d] @ W[:d]
        h = special.expit(a)
        logits = h @ V[d] + b[d]
        dlogits = (special.expit(logits) - x[:, d]) / B
        assert_allclose(trace["logits"][:, d], logits, rtol=1e-12)
        assert_allclose(trace["dlogits"][:, d], dlogits, rtol=1e-12)
        da = dlogits[:, None] * V[d] * h * (1 - h)
        dV[d], dW[:d], dc = h.T @ dlogits, dW[:d] + x[:, :d].T @ da, dc + da.sum(axis=0)
    assert_allclose(trace["h"], h, rtol=1e-12)  # of the last variable
    assert_allclose(trace["a"], a + x[:, 7:] * W[7], rtol=1e-12)  # of one that would follow it
    p_x = special.expit(trace["logits"])
    assert_allclose(trace["nll"], -stats.bernoulli.logpmf(x, p_x).sum(axis=1), rtol=1e-12)
    for key, gradient in {"hidden.weight": dW, "visible.weight": dV, "hidden.bias": dc,
                          "visible.bias": trace["dlogits"].sum(axis=0)}.items():  # fmt: skip
        assert_allclose(trace[f"d{key}"], gradient, rtol=1e-11, atol=1e-15, err_msg=key)


@VARIANT
def test_units_shapes_and_kernels(name, settings):
    model = fitted(name, **settings)
    trace, layout = model.trace(X), model.layout_
    for key, entry in trace.entries.items():
        assert entry.array is trace[key] and entry.array.dtype == "float64"
        if key in layout.terms:
            assert entry.unit == "nats" and entry.array.shape == (len(X),)
        elif key[0] == "d" and key.split(".")[0] not in ("decoder", "discriminator"):
            assert entry.unit == "nats / unit", key
        else:
            assert entry.unit == "-", key
        if key in layout.regions and key not in layout.terms:
            _, columns, repeat = layout.regions[key]
            assert entry.array.shape == (len(X) * repeat, columns)


@VARIANT
def test_the_line_that_is_named_made_the_array(name, settings):
    """It stands in a file of the family, and calls that kernel, or the engine that does."""
    model = fitted(name, **settings)
    for key, entry in model.trace(X).entries.items():
        file, _, number = entry.place.rpartition(":")
        assert str(PACKAGE / file) in {module.__file__ for module in modules(model.program)}
        assert not file.startswith("engine")
        line = (PACKAGE / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
        assert line.strip() == entry.source
        engine = {"gather": "load_rows(", "random_binarize": "load_rows("}
        called = [f"k.{entry.kernel}(", engine.get(entry.kernel, "net.")]
        assert any(word in line for word in called), f"{key}: {line}"


def test_the_table_and_the_mapping():
    trace = fitted("vae").trace(X)
    title, *lines = str(trace).splitlines()
    assert title.split() == ["array", "shape", "unit", "norm", "by", "line"]
    assert len(lines) == len(trace) == len(list(trace)) == len(dict(trace))
    place = title.index("shape")
    for line, (key, array) in zip(lines, trace.items(), strict=True):
        assert line.startswith(f"{key} ")
        assert line[place:].startswith(" x ".join(map(str, array.shape)))
        assert f"{np.linalg.norm(array):.4g}" in line and trace.entries[key].place in line
    assert "z" in trace and "nothing" not in trace
    with pytest.raises(KeyError):
        trace["nothing"]


@FAMILY
def test_a_trace_changes_nothing_and_keeps_what_it_has(name):
    model = fitted(name)
    before, given = model.state_.theta.copy(), X.copy()
    trace = model.trace(X)
    kept = {key: array.copy() for key, array in trace.items()}
    assert_array_equal(model.state_.theta, before)
    assert_array_equal(X, given)
    model.partial_fit(X)
    model.trace(1 - X)
    for key, array in kept.items():
        assert_array_equal(trace[key], array)
        assert not np.shares_memory(trace[key], model.state_.theta)


@FAMILY
def test_a_trace_is_made_by_the_reference_whatever_the_device(name):
    """Where Python can look at every call; a model that was not fitted has its initial values."""
    traces = [small(name, device=device).trace(X) for device in ("cpu", "reference")]
    assert list(traces[0]) == list(traces[1])
    for key in traces[0]:
        assert_array_equal(traces[0][key], traces[1][key])


def test_a_region_may_not_have_the_name_of_a_gradient():
    class Hidden:
        TERMS = ("nll",)

        @staticmethod
        def make_plan(layout, n_features):
            layout.region("dw", 1)
            layout.block(("w", (1,)))

    with pytest.raises(AssertionError, match=r"regions called as gradients are: \{'dw'\}"):
        Layout(Hidden, 3)
