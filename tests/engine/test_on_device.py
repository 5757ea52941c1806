"""Estimators on a GPU: the whole of `fit` and of its use, over the device in memory."""

import inspect
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from device_checks import BATCH, D, as_gpu, crossings, small
from emulator import EMULATED, Emulator
from families import SCHEMA, SCORED, table
from kernel_checks import put
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from tiny import FAMILIES

import minivae
from minivae import VAE
from minivae.data import rows
from minivae.engine import graph
from minivae.engine import machine as engine
from minivae.evaluation import importance
from minivae.models import base

pytestmark = EMULATED
FAMILY = pytest.mark.parametrize("family", FAMILIES)
X = np.random.default_rng(0).random((14, D))
USES = ("transform", "reconstruct", "elbo", "score_samples", "kl_per_latent")


@pytest.fixture(autouse=True)
def gpu(device, monkeypatch):
    """A device in memory as GPU 0."""
    as_gpu(device, monkeypatch)
    return device


def model(family, device="cuda", **settings):
    """An estimator of grey values, which it draws pixels of; in float64."""
    same = dict(binarize="stochastic", batch_size=BATCH, epochs=3, learning_rate=0.02,
                dtype="float64", random_state=0)  # fmt: skip
    return small(family, device=device, **same | settings)


def uses(fitted, X):
    """{name: what the model says of X or draws}."""
    found = {"sample": fitted.sample(5, random_state=1)}
    for name in USES:
        if hasattr(fitted, name) and (fitted.score_kind or name != "score_samples"):
            use = getattr(fitted, name)
            few = {"n_samples": 3} if "n_samples" in inspect.signature(use).parameters else {}
            found[name] = use(X, **few)
    return found


def same_model(one, two):
    """Equal bits in all that training made."""
    for name in ("theta", "moments"):
        assert_array_equal(getattr(one.state_, name), getattr(two.state_, name))
    ours, theirs = one.history_, two.history_
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {"seconds"}:
        assert_array_equal(ours[name], theirs[name])


# --- the same as the reference --------------------------------------------------------------------


CASES = [(family, {}) for family in FAMILIES]
CASES += [
    ("vae", dict(likelihood="gaussian", binarize=None)),
    ("vae", dict(binarize="threshold", optimizer="sgd", momentum=0.5, learning_rate=0.002)),
    ("vae", dict(missing="mask", binarize=None)),
    ("vae", dict(likelihood="bounded_gaussian", missing="mask", binarize=None)),
    ("vae", dict(likelihood="continuous_bernoulli", binarize=None)),
]


@pytest.mark.filterwarnings("ignore:X has values strictly between 0 and 1")
@pytest.mark.parametrize(("family", "settings"), CASES, ids=str)
def test_an_estimator_is_the_same_on_a_gpu(family, settings, tmp_path):
    data = X.copy()
    if "missing" in settings:
        data[np.random.default_rng(1).random(data.shape) < 0.3] = np.nan
    one = model(family, "reference", **settings).fit(data, X_valid=data[:5])
    two = model(family, **settings).fit(data, X_valid=data[:5])
    # Some hundred roundings in a step, which the 15 steps grow by little: see check_training.
    assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-12)
    assert_allclose(two.state_.moments, one.state_.moments, rtol=0, atol=1e-12)
    assert two.history_.keys() == one.history_.keys()
    for name in one.history_.keys() - {"seconds"}:
        assert_allclose(two.history_[name], one.history_[name], rtol=1e-11)
    for fitted in (one, two):
        fitted.partial_fit(data)
    assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-12)
    found, expected = uses(two, data), uses(one, data)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert type(value) is np.ndarray
        assert_allclose(value, expected[name], rtol=0, atol=1e-10, err_msg=name)
    two.save(tmp_path / "model")
    again = minivae.load(tmp_path / "model")
    for name, value in uses(again, data).items():
        assert_array_equal(value, found[name], err_msg=name)


def test_a_model_of_a_table_is_the_same_on_a_gpu():
    """Columns of every kind and missing cells: training, scores, filling in, new rows."""
    rows, held_out = table(19)[:14], table(19)[14:]
    settings = dict(likelihood="mixed", missing="mask", schema=SCHEMA, binarize=None,
                    posterior="full")  # fmt: skip
    one, two = (model("vae", device, **settings) for device in ("reference", "cuda"))
    for fitted in (one, two):
        fitted.fit(rows, X_valid=held_out)
    # As in the test above.
    assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-12)
    for use in (
        lambda fitted: fitted.transform(rows),
        lambda fitted: fitted.score_samples(rows, 3),
        lambda fitted: fitted.impute(rows, n_samples=5),
        lambda fitted: np.vstack(fitted.impute(rows, 2, n_samples=5)),
        lambda fitted: fitted.augment(rows, n_samples=6, random_state=1),
        lambda fitted: fitted.sample(6, random_state=1),
        lambda fitted: fitted.reconstruct(rows),
    ):
        found, expected = use(two), use(one)
        if found.dtype == object:
            assert_array_equal(found[:, 3:], expected[:, 3:])
            found, expected = found[:, :3].astype(float), expected[:, :3].astype(float)
        # Positive columns are exponentials of numbers below 10, which multiplies their errors.
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    (loss, found), (expected_loss, expected) = (m.loss_and_gradients(rows) for m in (two, one))
    assert_allclose(loss, expected_loss, rtol=1e-12)
    for name, gradient in expected.items():  # which finite differences have confirmed
        assert_allclose(found[name], gradient, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "settings", [{}, dict(likelihood="gaussian", missing="mask", binarize=None)], ids=str
)
def test_annealing_is_the_same_on_a_gpu(settings, gpu):
    """Of rows in two blocks, of which x and one number for each chain and temperature cross."""
    one, two = (model("vae", device, **settings).fit(X) for device in ("reference", "cuda"))
    how = dict(n_chains=3, n_temperatures=6, n_leapfrog=2, random_state=1)
    found, expected = two.ais(X, **how), one.ais(X, **how)
    # Some hundred roundings, which the steps do not amplify much; no chain is that near to where
    # it would be refused.
    assert_allclose(found, expected, rtol=0, atol=1e-10)
    with crossings(gpu) as seen:
        for value, right in zip(two.ais_bracket(5, **how), one.ais_bracket(5, **how), strict=True):
            assert_allclose(value, right, rtol=0, atol=1e-10)
    assert {shape for shape in seen.down if len(shape) > 1} == {(5, D), (5, 2)}  # x and z, once


GRADIENTS = [(family, {}) for family in FAMILIES] + [
    ("vae", dict(likelihood="gaussian", hidden_layer_sizes=(), binarize=None))
]


@pytest.mark.parametrize(("family", "settings"), GRADIENTS, ids=str)
def test_gradients_by_finite_differences(family, settings):
    tried = model(family, **settings).fit(X[:, :3])
    report = tried.check_gradients(X[:3, :3])  # of two, the chains of an RBM may be a copy
    assert report.passed, str(report)
    assert sum(entry.checked for entry in report.inputs.values()) == tried.state_.theta.size


def test_auto_takes_the_gpu():
    assert engine.machine(VAE.program, "auto") is engine.machine(VAE.program, "cuda")


@FAMILY
def test_a_fit_that_was_interrupted_goes_on_to_the_same_bits(family, tmp_path, monkeypatch):
    """In the middle of its second epoch, from the file that it left."""
    whole = model(family).fit(X, X_valid=X[:3])
    run, calls = graph.Trainer.run, []

    def in_small_chunks(self, recipe, state, data, numbers):
        self.steps = 1
        calls.append(state.steps)
        if len(calls) == 7:
            raise KeyboardInterrupt
        made = run(self, recipe, state, data, numbers)
        self.steps = 1  # however fast they are
        return made

    monkeypatch.setattr(graph.Trainer, "run", in_small_chunks)
    monkeypatch.setattr("minivae.training.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr(graph, "FIRST_CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        model(family).fit(X, X_valid=X[:3], checkpoints=tmp_path)
    monkeypatch.undo()
    as_gpu(Emulator(1), monkeypatch)  # of another process, as it were
    rest = minivae.load(tmp_path / "checkpoint.safetensors")
    assert 0 < rest.state_.rows < len(X)
    same_model(rest.resume(X, X_valid=X[:3]), whole)


@FAMILY
def test_a_schedule_changes_the_rate_without_another_capture(family, gpu, monkeypatch):
    made, capture = [], gpu.capture
    monkeypatch.setattr(gpu, "capture", lambda body: made.append(body) or capture(body))
    rates = [(1, 0.02), (1, 0.005), (1, 0.001)]
    two = model(family, learning_rate=rates).fit(X)
    assert len(made) == 2  # full batches, and the short one
    one = model(family, "reference", learning_rate=rates).fit(X)
    assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-12)
    assert abs(two.state_.theta - model(family).fit(X).state_.theta).max() > 0.01


@FAMILY
def test_rows_that_are_fetched_as_needed(family, gpu, tmp_path, monkeypatch):
    """Of a file and of a sparse matrix, at most two batches at a time: equal bits, and the room on
    the device is taken once."""
    stored = np.memmap(tmp_path / "X", float, "w+", shape=X.shape)
    stored[:] = X
    expected = model(family).fit(X)
    made, capture = [], gpu.capture
    monkeypatch.setattr(gpu, "capture", lambda body: made.append(body) or capture(body))
    monkeypatch.setattr(rows, "CHUNK_BYTES", 2 * BATCH * D * 8)
    monkeypatch.setattr(graph, "FIRST_CHUNK", 1)  # then 2 batches
    for data in (stored, sparse.csr_array(X)):
        made.clear()
        with crossings(gpu) as seen:
            same_model(model(family).fit(data), expected)
        assert len(made) == 2
        assert max(shape[0] for shape in seen.up if shape[1:] == (D,)) == 2 * BATCH


@pytest.mark.parametrize("form", ["array", "memmap"])
@FAMILY
def test_memory_that_is_not_enough_is_said_before_training(family, form, tmp_path, monkeypatch):
    data = X
    if form == "memmap":
        data = np.memmap(tmp_path / "X", float, "w+", shape=X.shape)
        data[:] = X
    as_gpu(Emulator(limit=3000), monkeypatch)
    tried = model(family)
    words = "batch_size=4 on 14 rows: too large for memory .the GPU has 0 MB free, but the model"
    with pytest.raises(MemoryError, match=words):
        tried.fit(data)
    assert not hasattr(tried, "state_")


@FAMILY
def test_a_loss_that_is_not_finite_is_explained(family):
    """As it is on the other machines, with what overflowed first."""
    # Times a GAN's discriminator_rate, 3, it must be finite; others need all there is.
    rate = 3e307 if family == "gan" else 1e308
    wild = dict(optimizer="sgd", learning_rate=rate)
    said = []
    for device in ("cuda", "reference"):
        with pytest.raises(FloatingPointError) as error, np.errstate(all="ignore"):
            model(family, device, **wild).fit(X)
        said.append(str(error.value))
    assert f"Try a learning_rate below {rate:.0e}" in said[0]
    assert said[0].split(" (")[0] == said[1].split(" (")[0]


def test_threads_take_turns_on_a_gpu():
    """A kernel that another thread launches while a step is captured would become a part of it."""
    used, expected = model("vae").fit(X), model("vae").fit(X)
    codes, errors, done = used.transform(X), [], threading.Event()

    def use():
        try:
            while not done.is_set():
                assert_array_equal(used.transform(X), codes)
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=use)
    other.start()
    try:
        trained = model("vae").fit(X)
    finally:
        done.set()
        other.join()
    assert not errors
    same_model(trained, expected)


# --- what crosses between host and device ---------------------------------------------------------


@pytest.fixture
def blocks_of_4(monkeypatch):
    monkeypatch.setattr(base, "BLOCK", 4)


@pytest.mark.usefixtures("blocks_of_4")
@FAMILY
def test_an_evaluation_sends_parameters_once_and_no_workspace(family, gpu):
    """Up: parameters and numbers of rows once, and each block's rows once, however often pixels
    and latents are drawn. Down: what was asked for. A block of draws is as large as one of rows."""
    fitted = model(family, epochs=1).fit(X)
    P, terms, draws = fitted.layout_.n_parameters, len(fitted.layout_.terms), 3
    block = max(1, 4 // fitted.layout_.repeat)
    blocks = [min(block, 14 - first) for first in range(0, 14, block)]
    x = [(n, D) for n in blocks]
    each_term = [(terms, n) for n in blocks]
    drawn = [(4, D)] * 3 + [(2, D)] if family == "wavenet" else x  # a layout of its own for draws
    cases = [("sample", (14,), [], drawn)]
    constants = [array.shape for array in fitted.layout_._constants]  # sent as parameters are, once
    if family == "gan":
        cases += [("_terms", (X,), x, each_term)]
    elif family in ("nade", "pixelcnn", "pixelrnn", "wavenet"):
        cases += [("score_samples", (X,), x, each_term)]
    elif family == "rbm":
        h, both = [(n, fitted.n_hidden) for n in blocks], [one for one in x for _ in range(2)]
        all_three = [shape for n in blocks for shape in ((n, D), (n, D), (n, 1))]
        cases += [  # chains outside of training begin as 0, which is sent; and the middle of noise
            ("score_samples", (X,), both, each_term),
            ("transform", (X,), all_three, h),
            ("inverse_transform", (np.zeros((14, fitted.n_hidden)),), h, x),
        ]
    elif family == "flow":
        every_draw, twice = ([one for one in of for _ in range(n)]
                             for of, n in ((each_term, draws), (x, 2)))  # fmt: skip
        cases += [
            ("score_samples", (X, draws), [x[0], (4,), *x[1:], (2,)], every_draw),
            ("transform", (X,), twice, x),  # x, and the middle of each cell
            ("inverse_transform", (np.zeros((14, D)),), x, x),
        ]
    else:
        Z = fitted.latent_dim
        codes, heads = np.zeros((14, Z)), [(n, 2 * Z) for n in blocks]
        z, alone = [(n, Z) for n in blocks], [(1, D)] * 14
        cases += [
            ("elbo", (X, draws), x, [shape for shape in each_term for _ in range(draws)]),
            ("score_samples", (X, draws), [alone[0], (draws,), *alone[1:]], [(draws,)] * 14),
            ("transform", (X,), x, heads),
            ("kl_per_latent", (X,), x, heads),
            ("inverse_transform", (codes,), z, x),
            ("reconstruct", (X,), x + z, heads + x),
        ]
    for name, arguments, up, down in cases:
        with crossings(gpu) as seen:
            getattr(fitted, name)(*arguments)
        own = (family, name) == ("wavenet", "sample")
        tables, rows = ([(1, 2)] * 2, 4) if own else (constants, block)
        once = [*tables, (1 if up and up[0][0] == 1 else rows,), (P,)]
        assert seen.up == once + up, name
        assert seen.down == down, name
        assert seen.bytes == 8 * sum(int(np.prod(shape)) for shape in once + up + down), name
    with crossings(gpu) as seen:
        fitted.loss_and_gradients(X)
    assert seen.up == [*constants, (14,), (P,), X.shape] + [X.shape] * (family == "rbm")
    assert seen.down == [(terms, 14), (P,)]


def test_many_draws_come_back_in_parts(gpu, monkeypatch):
    fitted = model("vae", epochs=1).fit(X)
    expected = fitted.score_samples(X, 7)
    monkeypatch.setattr(importance, "DRAWS", 3)
    with crossings(gpu) as seen:
        # The same weights, summed in another order.
        assert_allclose(fitted.score_samples(X, 7), expected, rtol=1e-14)
    assert seen.down == [(3 * 14,)] * 3


# --- X that is on the GPU already -----------------------------------------------------------------


@FAMILY
def test_data_on_the_gpu_are_trained_on_where_they_are(family, gpu):
    expected, there = model(family).fit(X, X_valid=X[:3]), put(gpu, X)
    valid = put(gpu, X[:3])
    with crossings(gpu) as seen:
        trained = model(family).fit(there, X_valid=valid)
    assert X.shape not in seen.up
    same_model(trained, expected)
    trained.partial_fit(there)
    expected_uses = uses(trained, X)
    for name, value in uses(trained, there).items():
        assert type(value) is np.ndarray
        assert_array_equal(value, expected_uses[name], err_msg=name)
    assert trained.loss_and_gradients(there)[0] == trained.loss_and_gradients(X)[0]


def test_data_on_the_gpu_that_do_not_fit_the_model_are_refused_before_it_changes(gpu):
    elsewhere = put(gpu, X)
    elsewhere.device = SimpleNamespace(id=1)
    strange = SimpleNamespace(__cuda_array_interface__={})  # a tensor of another library
    fitted = model("vae").fit(X)
    before = fitted.state_.theta.tobytes()
    for data, words in [
        (put(gpu, X.astype("f4")), "X is a GPU's array of float32 .* C-contiguous float64"),
        (put(gpu, np.tile(X, 2))[:, ::2], "X is a GPU's array of float64 with strides"),
        (put(gpu, X.T).T, "C-contiguous float64, as the model is"),
        (elsewhere, 'X is on GPU 1, expected it on GPU 0, that of device="cuda"'),
        (strange, "X is a SimpleNamespace on a GPU, expected a cupy.ndarray"),
        (put(gpu, X[:, :3]), "X has 3 features"),
        (put(gpu, np.full((14, 7), np.nan)), "X contains NaN"),
    ]:
        for call in (fitted.partial_fit, fitted.transform, fitted.resume):
            with pytest.raises(ValueError, match=words):
                call(data)
    with pytest.raises(ValueError, match=r"X is a DeviceArray on a GPU.*cupy.asnumpy\(X\)"):
        model("vae", "cpu").fit(put(gpu, X))
    assert fitted.state_.theta.tobytes() == before


def test_data_on_a_gpu_that_auto_does_not_take_are_copied(gpu, monkeypatch):
    there, expected = put(gpu, X), model("vae", "reference").fit(X)
    as_gpu("GPU 0 is there but does not work", monkeypatch)
    on_processor = engine.on_processor  # "cpu" would have to be compiled
    monkeypatch.setattr(
        engine, "on_processor", lambda program, _: on_processor(program, "reference")
    )
    same_model(model("vae", "auto").fit(there), expected)


@pytest.mark.parametrize("family", SCORED)
def test_the_best_epoch_is_left(family):
    """Its parameters, which were brought back when it had ended; rows of X are held out."""
    settings = dict(learning_rate=0.5, validation_fraction=0.3, epochs=12)
    stopped = model(family, **settings, patience=2).fit(X)
    best = stopped.best_epoch_
    until = model(family, **settings | {"epochs": best}).fit(X)
    assert_array_equal(stopped.state_.theta, until.state_.theta)
    assert stopped.n_epochs_ == best + 2 < 12
