"""What holds for every family of models: one test body over all of them.

A family is here once it is in `minivae.models.MODELS` and has small settings in `families.py`.
"""

import inspect
import itertools
import math
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from families import OTHER, VARIANTS, X, bits, data, of_rows, same_scores, small
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone

import minivae
from minivae.engine import threads
from minivae.kernels import OPTIMIZERS
from minivae.models import MODELS, find
from minivae.models.settings import is_allowed
from minivae.training import checkpoints
from minivae.training.order import shuffled

FAMILY = pytest.mark.parametrize("name", MODELS)
VARIANT = pytest.mark.parametrize("name", VARIANTS)
ROWS = np.array(list(itertools.product([0.0, 1.0], repeat=8)))  # all 2^8 rows


# Each makes the device ready and answers with the setting that asks for it.
DEVICES = {
    "reference": lambda monkeypatch: "reference",
    "cpu": lambda monkeypatch: "cpu",
}


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    return DEVICES[request.param](monkeypatch)


# --- gradients, machines, threads ---------------------------------------------------------------


@VARIANT
def test_every_gradient(name, device):
    """By finite differences, every entry, away from the start, where zeros would hide mistakes."""
    X, _ = data(name)
    model = small(name, device=device).fit(X)
    report = model.check_gradients(X)
    assert report.passed and report.worst <= 1e-6, str(report)
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}


@pytest.mark.parametrize(("name", "optimizer"), [
    (name, optimizer) for name in VARIANTS for optimizer in OPTIMIZERS
    if name in MODELS or optimizer == "adam"
])  # fmt: skip
def test_training_is_that_of_the_reference(name, optimizer, device):
    """Six steps. Sums of some tens of products through some layers and back are some hundred
    roundings of what is at most 10, and the steps that follow grow them by little."""
    X, OTHER = data(name)
    settings = dict(optimizer=optimizer, weight_decay=0.01, momentum=0.5 * (optimizer == "sgd"))
    expected = small(name, device="reference", **settings).fit(X, X_valid=OTHER)
    model = small(name, device=device, n_threads=2, **settings).fit(X, X_valid=OTHER)
    assert (model.state_.steps, model.state_.epochs) == (6, 2)
    rounding = 10 * 200 * np.finfo(float).eps
    assert_allclose(model.state_.theta, expected.state_.theta, rtol=0, atol=rounding)
    assert model.history_.keys() == expected.history_.keys()
    for key in model.history_.keys() - {"seconds"}:
        values, right = model.history_[key], expected.history_[key]
        assert_allclose(values, right, rtol=rounding, atol=rounding, err_msg=key)
    scores, right = of_rows(model, X), of_rows(expected, X)
    assert_allclose(scores, right, rtol=rounding, atol=rounding)  # near 0 terms of 1 cancel
    assert np.ptp(model.history_["loss"]) > 1e-3  # it did train


@pytest.mark.parametrize(("name", "dtype"), [
    *((name, "float64") for name in VARIANTS), *((name, "float32") for name in MODELS)
])  # fmt: skip
def test_any_number_of_threads_gives_the_same_bits(name, dtype):
    X, _ = data(name)
    models = [small(name, dtype=dtype, n_threads=n).fit(X) for n in (1, 2, 3)]
    assert bits(models[1]) == bits(models[0]) == bits(models[2])
    assert models[0].state_.theta.dtype == dtype


@VARIANT
def test_the_history_is_of_the_loss_that_is_minimised(name, device):
    """One batch, whose loss can be asked for before it is trained on: rows in the epoch's order,
    noise of step 0."""
    X, _ = data(name)
    settings = dict(device=device, batch_size=20, epochs=1)
    order = shuffled(len(X), 0, 0)
    loss, gradients = small(name, **settings).loss_and_gradients(X[order])
    model = small(name, **settings).fit(X)
    history = {key: values[0] for key, values in model.history_.items()}
    assert_allclose(history["loss"], loss, rtol=1e-13)
    terms = sum(weight * history[term] for term, weight in model.program.weights().items())
    assert_allclose(terms, loss, rtol=1e-13)
    shown = model.program.SCORE and not hasattr(model.program, "score_weights")
    if shown:  # it is the loss
        assert_allclose(-history[model.program.SCORE[0]], loss, rtol=1e-13)
    length = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    assert_allclose(history["gradient_norm"], length, rtol=1e-12)


# --- going on -----------------------------------------------------------------------------------


@pytest.fixture
def step_by_step(monkeypatch):
    """A look at clock, signals and checkpoints after every step."""
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Interruption(Exception):
    pass


def stop_at(moment, monkeypatch):
    """Training stops when it was stored for the moment-th time; writing comes first."""
    count = itertools.count()

    def patch(event, write):
        def call(self):
            write(self)
            if next(count) == moment:
                raise Interruption

        monkeypatch.setattr(checkpoints.Checkpoints, event, call)

    for event in ("batches", "epoch"):
        patch(event, getattr(checkpoints.Checkpoints, event))


@VARIANT
def test_interrupted_anywhere_and_resumed_it_ends_in_the_same_bytes(
    name, device, step_by_step, tmp_path, monkeypatch
):
    settings, (X, OTHER) = dict(device=device, n_threads=2), data(name)
    expected = small(name, **settings).fit(X, X_valid=OTHER)
    expected.save(tmp_path / "expected")
    for moment in range(6):  # two batches of an epoch, and its end, twice
        folder = tmp_path / str(moment)
        with monkeypatch.context() as patch, pytest.raises(Interruption):
            stop_at(moment, patch)
            small(name, **settings).fit(X, X_valid=OTHER, checkpoints=folder)
        model = minivae.load(folder / "checkpoint.safetensors")
        assert model.state_.steps == moment + 1
        model.resume(X, X_valid=OTHER, checkpoints=folder)
        assert bits(model) == bits(expected)
        assert (folder / "best.safetensors").exists() == bool(model.program.SCORE)
        last = (folder / "checkpoint.safetensors").read_bytes()
        assert last == (tmp_path / "expected").read_bytes()


@VARIANT
def test_partial_fit_is_one_epoch(name, device):
    X, _ = data(name)
    model, stepwise = small(name, device=device), small(name, device=device)
    model.fit(X)
    assert bits(stepwise.partial_fit(X).partial_fit(X)) == bits(model)
    assert bits(model.fit(X)) == bits(stepwise)  # fit starts anew
    assert bits(small(name, device=device, random_state=1).fit(X)) != bits(model)
    with pytest.raises(ValueError, match="use partial_fit, or call fit"):
        stepwise.resume(X)


# --- files --------------------------------------------------------------------------------------


@VARIANT
def test_saved_and_loaded_a_model_is_the_same(name, device, tmp_path):
    X, OTHER = data(name)
    model = small(name, device=device).fit(X, X_valid=OTHER)
    model.save(tmp_path / "a")
    for load in (type(model).load, minivae.load):
        twin = load(tmp_path / "a")
        assert type(twin) is type(model) and twin.get_params() == model.get_params()
        assert bits(twin) == bits(model) and same_scores(twin, model, X)
        twin.save(tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert bits(twin.partial_fit(X)) == bits(model.partial_fit(X))


@FAMILY
def test_a_file_of_another_family_is_refused_by_its_class(name, tmp_path):
    small(name, device="reference").partial_fit(X).save(tmp_path / "model")
    for other in MODELS.keys() - {name}:
        with pytest.raises(minivae.StorageError, match=rf"it is a {name}, not a {other}: minivae"):
            find(other).load(tmp_path / "model")


@VARIANT
def test_copied_by_pickle_a_model_is_the_same(name):
    """And a clone of it is one that was not fitted, and becomes the same."""
    X, _ = data(name)
    model = small(name, device="reference").fit(X)
    twin, fresh = pickle.loads(pickle.dumps(model)), clone(model)
    assert bits(twin) == bits(model) and same_scores(twin, model, X)
    assert fresh.get_params() == model.get_params() and not hasattr(fresh, "state_")
    assert bits(fresh.fit(X)) == bits(model)


@VARIANT
def test_the_trace_of_a_batch_is_of_its_loss(name):
    X, _ = data(name)
    model = small(name, device="reference").fit(X)
    trace, (loss, gradients) = model.trace(X), model.loss_and_gradients(X)
    weights = model.program.weights()
    terms = sum(weight * trace[term].mean() for term, weight in weights.items())
    assert_allclose(terms, loss, rtol=1e-13)
    alone = [key for key in gradients if f"d{key}" in trace]  # heads are one matrix there
    assert len(alone) >= min(4, len(gradients))
    for key in alone:
        assert_array_equal(trace[f"d{key}"], gradients[key], err_msg=key)


# --- scores and samples -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "device"), [
    # Real numbers would show in the last bit how BLAS groups the rows of the reference.
    *((name, device) for name in MODELS for device in DEVICES),
    *((name, "cpu") for name in VARIANTS if name not in MODELS),
])  # fmt: skip
def test_a_sample_is_a_function_of_the_seed_and_the_row(name, device):
    X, _ = data(name)
    model = small(name, device=device).fit(X)
    whole = model.sample(600, random_state=3)  # more than a block of rows
    assert whole.shape == (600, X.shape[1])
    assert whole.dtype == ("O" if X.dtype == object else "float64")
    for n in (1, 7, 512, 513):
        few = model.sample(n, random_state=3)
        if device == "cpu" or X.dtype == object:
            assert_array_equal(few, whole[:n])
        else:  # BLAS groups rows, and rounds otherwise in each group
            assert_allclose(few, whole[:n], rtol=0, atol=1e-14)
    assert not np.array_equal(model.sample(600, random_state=4), whole)
    assert_array_equal(model.sample(5), model.sample(5, random_state=0))  # its own random_state
    free = small(name, device=device, random_state=None).fit(X)
    assert not np.array_equal(free.sample(600), free.sample(600))


@VARIANT
def test_scores_belong_to_rows(name, device):
    """Also where one row has other holes than another."""
    X, OTHER = data(name)
    model = small(name, device=device).fit(X)
    rows = ROWS if name in MODELS else np.concatenate([X, OTHER])
    if model.score_kind is None:
        assert model.program.SCORE is None and model.best_epoch_ is None
        for method in ("score_samples", "score"):
            with pytest.raises(AttributeError, match=f"a {name} has no likelihood, so no"):
                getattr(model, method)(rows)
        return
    whole = model.score_samples(rows)
    assert whole.shape == (len(rows),) and whole.dtype == "float64"
    assert_allclose(model.score_samples(rows[::-1])[::-1], whole, rtol=1e-13)
    assert model.score(rows) == whole.mean()
    assert model.score_kind in ("exact", "lower bound", "estimate", None)


EXACT = [n for n in MODELS if small(n).score_kind == "exact" and small(n).on_unit_interval]


@pytest.mark.parametrize("name", EXACT)
def test_exact_probabilities_of_all_rows_sum_to_1(name, device):
    """And they are the frequencies of samples: chi-square over all rows, rare ones together."""
    data = (np.random.default_rng(5).random((200, 8)) < np.linspace(0.1, 0.9, 8)).astype(float)
    data[:, 1] = data[:, 0]
    model = small(name, device=device, learning_rate=0.05, epochs=5, batch_size=20).fit(data)
    p = np.exp(model.score_samples(ROWS))
    assert abs(p.sum() - 1) < 1e-12  # 256 terms, each of some hundred roundings
    n = 20_000
    draws = model.sample(n, random_state=1) @ 2 ** np.arange(8)[::-1]
    counts = np.bincount(draws.astype(int), minlength=256)
    rare = n * p < 5
    observed, expected = (
        [*of[~rare], *([of[rare].sum()] if rare.any() else [])] for of in (counts, n * p)
    )
    assert (~rare).sum() > 20
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4
    uniform = stats.chisquare(observed, np.mean(expected) * np.ones(len(expected)))
    assert uniform.pvalue < 1e-100  # the test would notice another distribution


DENSITIES = [
    name for name in VARIANTS
    if small(name).score_kind == "exact" and not small(name).on_unit_interval
]  # fmt: skip


@pytest.mark.parametrize("name", DENSITIES)
def test_an_exact_density_has_mass_1_and_is_that_of_samples(name, device):
    """By the trapezoid rule on a grid in two dimensions, and by chi-square over its cells."""
    x = np.random.default_rng(5).normal(size=(200, 2))
    x[:, 1] = np.sin(2 * x[:, 0]) + x[:, 1] / 2
    model = small(name, device=device, epochs=5, batch_size=20).fit(x)
    line = np.linspace(-8, 8, 321)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(model.score_samples(grid)).reshape(321, 321) * (line[1] - line[0]) ** 2
    # The rule is exact to many digits for densities as smooth as these, that of a normal prior
    # through nets of tanh, which are of size 1; and what lies beyond the grid is e^-32 or so.
    assert abs(p.sum() - 1) < 1e-6
    n, edges = 20_000, np.linspace(-8, 8, 33)
    counts, *_ = np.histogram2d(*model.sample(n, random_state=1).T, bins=(edges, edges))
    cells = np.zeros((32, 32))  # the rule again: points on an edge are of both cells, by halves
    for i, j in itertools.product(range(11), repeat=2):
        share = (0.5 if i in (0, 10) else 1) * (0.5 if j in (0, 10) else 1)
        cells += share * p[i : i + 311 : 10, j : j + 311 : 10]
    rare = n * cells < 5
    observed = [*counts[~rare], counts[rare].sum()]
    expected = [*(n * cells[~rare]), n * cells[rare].sum()]
    assert (~rare).sum() > 20
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4


# --- settings -----------------------------------------------------------------------------------


@FAMILY
def test_the_table_of_settings_is_the_signature(name):
    family = find(name)
    parameters = inspect.signature(family).parameters.values()
    assert {p.name: p.default for p in parameters} == {
        key: setting.default for key, setting in family.SETTINGS.items()
    }
    kinds = [p.kind for p in parameters]
    assert (
        kinds.count(inspect.Parameter.KEYWORD_ONLY) >= len(kinds) - 1
    )  # the first may be given so
    assert vars(family()) == {p.name: p.default for p in parameters}


@FAMILY
def test_every_setting_is_described_in_the_docstring(name):
    family = find(name)
    lines = inspect.getdoc(family).splitlines()
    for key, setting in family.SETTINGS.items():
        assert setting.help and setting.help[-1] != "."
        (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{key} : ")]
        assert lines[place].endswith(f"default {setting.default!r}")
        rest = itertools.takewhile(lambda line: line.startswith("    "), lines[place + 1 :])
        assert " ".join(line.strip() for line in rest) == setting.help
    assert "{settings}" not in family.__doc__ and max(map(len, lines)) <= 100


def test_families_need_no_docstrings():
    code = "from minivae.models import MODELS, find; [find(name) for name in MODELS]"
    run = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


NOT_NUMBERS = ["1", None, True, np.True_, [1], 1 + 0j, b"1"]
BAD = {  # by the kind of a setting
    "whole": [*NOT_NUMBERS, 0, -1, 2.5, math.nan, math.inf, 10**400, 2**63, Fraction(5, 2)],
    "real": [*NOT_NUMBERS, -1, -1e-9, math.nan, math.inf, -math.inf, 10**400, np.float32("nan"),
             Fraction(1, 2)],
    "choice": ["no such word", 1, True, ("adam",), b"adam"],
    "sizes": ["5", None, 5, True, 2.5, (0,), (-1,), (2.5,), (True,), ("5",), (5, None), [[5]],
              {5}, {5: 5}, (10**400,), (2**63,), (math.nan,), np.array(4), np.array([[4]])],
    "schedule": ["1", None, True, 0, -1, math.nan, math.inf, 10**400, 1 + 0j, b"1", [], (),
                 [0.1], [(1, 0.1), 0.1], [(0, 0.1)], [(-1, 0.1)], [(1.5, 0.1)], [(True, 0.1)],
                 [(1, 0)], [(1, -0.1)], [(1, True)], [(1, math.nan)], [(1, math.inf)],
                 [(1, 10**400)], [(2**63, 0.1)],
                 Fraction(1, 64), [(1, Fraction(1, 64))],
                 [(1, 0.1, 2)], [("1", 0.1)], {1: 0.1}, "ab"],
    "random_state": ["1", True, np.True_, -1, 2.5, math.nan, 10**400, 2**63, [1],
                     np.random.default_rng(0)],
    "device": ["gpu", "cpu:1", "cuda:x", "", None, 1, True, b"cpu"],
    "truth": ["yes", None, 2, 0.5, [True]],
    "shape": ["2x4", 8, True, (8,), (0, 8), (-1, -1), (2.0, 4), (True, 8), (2, 4, 1), {2: 4},
              (2**63, 1), (3, 3), (3, -1)],
    "schema": ["real", 1, True, [("a", "real")], {"a": "real"}],  # the last for want of a table
    "verbose": ["yes", -1, None, math.nan, [1]],
}  # fmt: skip


def kind(name, key):
    return key if key in BAD else find(name).SETTINGS[key].kind


BAD_SETTINGS = [
    pytest.param(name, key, value, id=f"{name}-{key}-{str(value)[:20]}-{type(value).__name__}")
    for name in MODELS
    for key, setting in find(name).SETTINGS.items()
    for value in BAD[kind(name, key)]
    if not (value is None and None in setting.constraint)
    and not (type(value) is int and value == setting.default)  # 0 epochs of warm-up
]


@pytest.fixture(scope="module")
def fitted():
    return {name: small(name, device="reference").fit(X) for name in MODELS}


@pytest.mark.parametrize(("name", "key", "value"), BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_its_name_and_changes_nothing(name, key, value, fitted):
    fresh = small(name, **{"device": "reference", key: value})
    for call in (fresh.fit, fresh.partial_fit, fresh.loss_and_gradients):
        with pytest.raises((TypeError, ValueError), match=key):
            call(X)
    assert vars(fresh).keys() == fresh.get_params().keys()
    model, before = fitted[name], bits(fitted[name])
    old = model.get_params()[key]
    try:
        model.set_params(**{key: value})
        with pytest.raises((TypeError, ValueError), match=key):
            model.fit(X)
        assert bits(model) == before and model.get_params()[key] is value
    finally:
        model.set_params(**{key: old})


GOOD = {  # by kind: what is taken, and what it stands for
    "whole": [(np.int8(3), 3), (np.uint64(3), 3), (np.int8(100), 100)],
    "real": [(np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.float16(0.5), 0.5), (0, 0.0)],
    "shape": [([np.int8(4), 2], (4, 2)), ((-1, 8), (1, 8)), ([2, -1], (2, 4))],
    "sizes": [([np.int8(3)], (3,)), (np.array([3, 2], "i1"), (3, 2)), ([], ())],
    "schedule": [(np.float32(2**-6), 1 / 64), (1, 1.0),
                 ([(np.int8(1), np.float32(2**-6)), (1, 1)], ((1, 1 / 64), (1, 1.0)))],
    "random_state": [(np.int8(3), 3), (np.uint64(2**63 - 1), 2**63 - 1)],
}  # fmt: skip
GOOD_SETTINGS = [
    pytest.param(name, key, value, same, id=f"{name}-{key}-{value!r}")
    for name in MODELS
    for key, setting in find(name).SETTINGS.items()
    for value, same in GOOD.get(kind(name, key), ())
    if setting.kind != "whole" or is_allowed(setting, value)
]


@pytest.mark.parametrize(("name", "key", "value", "same"), GOOD_SETTINGS)
def test_another_kind_of_number_is_taken_as_what_it_stands_for(name, key, value, same, tmp_path):
    models = [small(name, **{"device": "reference", "epochs": 1, key: v}) for v in (value, same)]
    for model in models:
        model.fit(X, X_valid=OTHER).partial_fit(X)  # patience needs held-out rows
        model.save(tmp_path / "model")
        twin = minivae.load(tmp_path / "model")
        assert bits(twin) == bits(model)
        assert bits(twin.partial_fit(X)) == bits(model.partial_fit(X))
    assert bits(models[0]) == bits(models[1])
    assert models[0].get_params()[key] is value
