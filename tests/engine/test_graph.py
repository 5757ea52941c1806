"""Training and sessions on a device: the real host code over the device in memory.

A step is recorded once and replayed, so anything that the host did within it would be missing.
"""

import gc
import re

import numpy as np
import pytest
from device_checks import (
    BATCH,
    CHANGED,
    D,
    check_failure,
    check_session,
    check_training,
    crossings,
    problem,
    run,
    same_state,
    train,
)
from emulator import EMULATED, ZONE, Emulator
from kernel_checks import put
from numpy.testing import assert_array_equal
from tiny import FAMILIES

from minivae import kernels
from minivae.engine import graph
from minivae.engine.machine import on_device
from minivae.models.vae.likelihoods import PLAIN

pytestmark = EMULATED
WIDE = {
    "vae": dict(hidden_layer_sizes=(40,)),
    "nade": dict(n_hidden=40),
    "flow": dict(hidden_layer_sizes=(40,)),
    "rbm": dict(n_hidden=40),
    "pixelcnn": dict(n_channels=40),
    "wavenet": dict(n_channels=40),
    "pixelrnn": dict(n_state=40, n_hidden=37),
    "gan": dict(generator_sizes=(40,), discriminator_sizes=(40,)),
}  # more than a warp
FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(params=FAMILIES)
def training(request, device):
    """(trainer, problem, state, X, order) of a small model, about to be trained in float64."""
    p = problem(request.param, 14)
    state = p.start()
    with p.trainer(on_device(p.program, device), state) as trainer:
        yield trainer, p, state, p.X, p.order()


# --- the same as the reference --------------------------------------------------------------------

STEPS = [  # rows (batches of 4: the last one is short), settings
    (14, dict(binarize="stochastic")),
    (5, dict(binarize="threshold")),
    (3, dict()),  # fewer than a batch
]
VAES = [
    (13, dict(likelihood="gaussian", beta=1.5)),
    (5, dict(hidden_layer_sizes=())),
    (8, dict(hidden_layer_sizes=(6, 4), activation="softplus")),
]
CASES = [(family, *case) for family in FAMILIES for case in STEPS]
CASES += [("vae", *case) for case in VAES]


@pytest.mark.parametrize(("family", "rows", "settings"), CASES, ids=str)
@pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)
def test_steps_are_those_of_the_reference(family, rows, settings, optimizer, device):
    for dtype in ("float32", "float64"):
        check_training(device, problem(family, rows, optimizer, **settings), dtype)


@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_every_activation(activation, likelihood, device):
    check_training(device, problem("vae", 6, activation=activation, likelihood=likelihood), "f8")


@pytest.mark.parametrize("likelihood", PLAIN)
def test_what_is_not_observed_is_cut_with_its_rows(likelihood, device):
    p = problem("vae", 14, likelihood=likelihood, missing="mask")
    p.X[np.random.default_rng(1).random(p.X.shape) < 0.4] = np.nan
    for dtype in ("float32", "float64"):
        check_training(device, p, dtype)
        check_session(device, p, dtype)


@FAMILY
def test_a_session_is_that_of_the_reference_and_leaves_nothing_behind(family, device):
    p = problem(family, 9)
    check_session(device, p)  # first, so that nothing waits for the garbage collector
    gc.collect()
    before = set(device.arrays)
    gc.disable()
    try:
        check_session(device, p)
        assert set(device.arrays) == before
        train(on_device(p.program, device), p)
        left = [device.arrays[start].size - 2 * ZONE for start in {*device.arrays} - before]
        assert sum(left) < 100  # counters and rate of the step, whose functions are a cycle
    finally:
        gc.enable()


@FAMILY
def test_bits_do_not_depend_on_the_order_of_threads_nor_on_capture(family, devices):
    p = problem(family, 14, binarize="stochastic", **WIDE.get(family, {}))
    (one, gradient), *others = (
        train(on_device(p.program, where), p, 1, "float32") for where in (*devices, devices[-1])
    )
    for state, other in others:
        same_state(state, one)
        assert_array_equal(other, gradient)
    device, state, X = devices[-1], p.start("float32"), p.X.astype("f4")
    task = graph.make_task(device, p.layout, p.recipe, put(device, X), state.theta.size,
                           2, BATCH, X.dtype)  # fmt: skip
    for name in CHANGED:
        device.upload(getattr(state, name), getattr(task, name))
    state.carry(BATCH)
    for (_, there), rows in zip(task.carried or (), state.carried.values(), strict=True):
        device.upload(rows, there)
    assert on_device(p.program, device).step.train(task, put(device, p.order()), 0, 0) == 4
    for name in CHANGED:
        assert_array_equal(device.download(getattr(task, name)), getattr(one, name))
    for (_, there), rows in zip(task.carried or (), one.carried.values(), strict=True):
        assert_array_equal(device.download(there), rows)
    assert_array_equal(device.download(task.gradient), gradient)


@pytest.mark.parametrize(
    "settings",
    [
        dict(posterior="full", objective="dreg", n_importance=3, likelihood="gaussian"),
        dict(objective="iwae", n_importance=3),
        dict(n_importance=3, free_bits=0.3),
    ],
)
def test_what_else_a_vae_is_trained_by(settings, device):
    check_session(device, problem("vae", 9, latent_dim=3, **settings))
    check_training(device, problem("vae", 14, latent_dim=3, **settings), "float64")


@FAMILY
@pytest.mark.parametrize("bad_batch", range(4))
def test_a_loss_that_is_not_finite_changes_nothing(family, bad_batch, device):
    check_failure(device, problem(family, 14), bad_batch)


# --- what a replay depends on ---------------------------------------------------------------------

GATED = "gather_taps matmul bias_activation gate "  # of a pixel and what it sees
RESIDUAL = f"{GATED} matmul bias_activation "
NODES = {  # a new family needs a line here
    "vae": """gather random_normal matmul bias_activation matmul bias_activation
        sample_gaussian matmul bias_activation matmul bias_activation bernoulli_nll gaussian_kl
        matmul activation_backward matmul sample_gaussian_backward matmul activation_backward
        all_finite matmul sum_rows adam matmul sum_rows adam matmul sum_rows adam matmul sum_rows
        adam add_terms advance""",
    "nade": """gather nade_logits bernoulli_nll all_finite nade_backward adam sum_rows adam
        add_terms advance""",
    "flow": """gather random_uniform dequantize split_columns matmul bias_activation matmul
        bias_activation coupling merge_columns prior_nll split_columns coupling_backward
        matmul activation_backward matmul add all_finite matmul sum_rows adam
        matmul sum_rows adam sum_rows adam add_terms advance""",
    "rbm": """repeat_rows gather random_uniform matmul bias_activation random_binarize matmul
        bias_activation random_binarize matmul free_energy matmul free_energy pseudo_nll
        all_finite copy matmul sum_rows sum_rows adam add_terms advance""",
    "pixelcnn": f"""gather {2 * GATED} {2 * RESIDUAL} add matmul bias_activation matmul
        bias_activation bernoulli_nll matmul activation_backward matmul
        matmul gate_backward matmul gate_backward matmul copy scatter_taps
        matmul gate_backward matmul scatter_taps gate_backward
        all_finite {8 * "matmul sum_rows adam "} add_terms advance""",
    "wavenet": """gather gather_taps matmul bias_activation
        gather_taps matmul bias_activation gate matmul bias_activation add
        matmul bias_activation matmul bias_activation matmul bias_activation bernoulli_nll
        matmul activation_backward matmul activation_backward matmul
        copy matmul gate_backward matmul scatter_taps all_finite
        matmul sum_rows adam matmul sum_rows adam matmul sum_rows adam
        matmul sum_rows adam matmul sum_rows adam matmul sum_rows adam add_terms advance""",
    "pixelrnn": f"""gather clear {6 * "matmul bias_activation matmul matmul gru "} matmul
        bias_activation nade_logits bernoulli_nll nade_backward repeat_rows matmul clear
        {6 * "gru_backward matmul add "} all_finite nade_backward adam matmul sum_rows adam
        matmul matmul sum_rows adam add_terms advance""",
    "gan": """gather random_normal matmul bias_activation matmul bias_activation join_columns
        matmul bias_activation matmul bias_activation matmul bias_activation matmul bias_activation
        adversarial_losses matmul activation_backward matmul activation_backward matmul
        activation_backward matmul activation_backward all_finite matmul sum_rows adam
        matmul sum_rows adam matmul sum_rows adam matmul sum_rows adam add_terms advance""",
}


def test_one_graph_per_batch_shape_and_no_more_nodes_than_counted(training):
    """The time of a small step should be that of launching its kernels, so they are counted."""
    trainer, p, state, X, order = training
    for _ in range(3):
        run(trainer, p.recipe, state, X, order)
    assert [key.batch_size for key in trainer.graphs] == [4, 2]
    for replay in trainer.graphs.values():
        assert replay.nodes == NODES[p.program.NAME].split()


def test_chunks_of_any_length_give_the_same_bits(training):
    trainer, p, state, X, order = training
    assert run(trainer, p.recipe, state, X, order) == 4
    trainer.store()
    other = p.start()
    for rows in (order[:4], order[4:12], order[12:]):
        run(trainer, p.recipe, other, X, rows)
    trainer.store()
    same_state(other, state)
    assert run(trainer, p.recipe, other, X, order[:0]) == 0


def test_a_state_goes_on_where_it_was_stored(training, device):
    trainer, p, state, X, order = training
    run(trainer, p.recipe, state, X, order[:8])
    trainer.store()
    later = p.start()
    for name in CHANGED:
        getattr(later, name)[:] = getattr(state, name)
    later.carried = {name: rows.copy() for name, rows in state.carried.items()}
    later.steps = state.steps
    run(trainer, p.recipe, state, X, order[8:])
    trainer.store()
    with p.trainer(on_device(p.program, device), later) as other:
        assert run(other, p.recipe, later, X, order[8:]) == 2
    same_state(later, state)
    later.steps = 0  # the number of a step is in its noise and in Adam's corrections
    assert run(trainer, p.recipe, later, X, order) == 4
    trainer.store()
    assert not np.array_equal(later.theta, state.theta)


def test_the_learning_rate_may_change_between_replays(training):
    trainer, p, state, X, order = training
    run(trainer, p.recipe, state, X, order)
    trainer.store()
    before, graphs = state.theta.copy(), len(trainer.graphs)
    run(trainer, p.recipe._replace(learning_rate=0.0), state, X, order)
    trainer.store()
    assert_array_equal(state.theta, before)
    assert len(trainer.graphs) == graphs
    run(trainer, p.recipe._replace(momentum=0.25), state, X, order)  # part of a step
    assert len(trainer.graphs) == 2 * graphs


def test_data_are_sent_once_and_other_data_are_seen(training):
    trainer, p, state, X, order = training
    with crossings(trainer.device) as sent:
        for _ in range(2):
            run(trainer, p.recipe, state, X, order)
        assert sent.up.count(X.shape) == 1
        assert sent.up.count(state.theta.shape) == sent.up.count(state.moments.shape) == 1
        assert all(len(shape) < 2 and shape != state.theta.shape for shape in sent.down)
        work = trainer.work
        run(trainer, p.recipe, state, X[:6] * 0, np.arange(6))  # fits into the place of X
        assert sent.up.count((6, D)) == 1
    assert not np.array_equal(trainer.work, work)
    larger = np.vstack([X, X])
    run(trainer, p.recipe, state, larger, np.arange(28))
    run(trainer, p.recipe._replace(batch_size=9), state, larger, np.arange(28))
    assert [key.batch_size for key in trainer.graphs] == [9, 1]  # made anew for other buffers


def test_data_may_be_on_the_device_already(training):
    trainer, p, state, X, order = training
    run(trainer, p.recipe, state, X, order)
    trainer.store()
    other = p.start()
    run(trainer, p.recipe, other, put(trainer.device, X), order)
    trainer.store()
    same_state(other, state)


def test_results_come_back_when_with_ends_but_not_half_of_a_run(training, monkeypatch):
    _, p, _, X, order = training
    on, state, start = on_device(p.program, training[0].device), p.start(), p.start()
    with p.trainer(on, state) as trainer:
        run(trainer, p.recipe, state, X, order)
        assert_array_equal(state.theta, start.theta)
    assert not np.array_equal(state.theta, start.theta)
    assert not np.array_equal(state.moments, start.moments)
    state = p.start()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), p.trainer(on, state) as trainer:
        run(trainer, p.recipe, state, X, order[:4])
        trainer.store()
        stored = state.theta.copy()
        monkeypatch.setattr(trainer.control, "step", interrupted)
        run(trainer, p.recipe, state, X, order[4:])
    assert_array_equal(state.theta, stored)


def test_what_the_host_may_ask_for(training):
    """Work, gradient and finiteness of what is trained, with no word of it in the State."""
    trainer, p, state, X, order = training
    run(trainer, p.recipe, state, X, order[:4])
    assert trainer.finite(state)
    assert_array_equal(p.layout.region_view(trainer.work, "x", 4), X[order[:4]])
    gradient = trainer.gradient
    assert np.isfinite(gradient).all() and gradient.any()
    gradient[:] = 0
    assert trainer.gradient.any()  # that was a copy
    bad = p.start()
    bad.theta[-1] = np.inf
    run(trainer, p.recipe, bad, X, order[:0])
    run(trainer, p.recipe._replace(learning_rate=0.0), bad, X * 0, order[:4])
    assert not trainer.finite(bad)


def test_the_first_pace_leaves_out_what_is_compiled_and_captured(training, monkeypatch):
    """A clock that only capture and replays move: a second each, and 0.01 s a step."""
    trainer, p, state, X, order = training
    now, capture = [0.0], trainer.device.capture

    def slow_capture(body):
        now[0] += 1
        graph_of_step = capture(body)

        def replay():
            now[0] += 0.01
            graph_of_step()

        return replay

    monkeypatch.setattr(trainer.device, "capture", slow_capture)
    monkeypatch.setattr(graph.time, "perf_counter", lambda: now[0])
    trainer.steps = 4
    run(trainer, p.recipe, state, X, order)
    assert now[0] == pytest.approx(2.04)
    assert trainer.steps == 8  # twice as many, for 0.1 s; with the captures it would be 1
    trainer.steps = 4
    run(trainer, p.recipe, state, X, order[:8])  # the short rest of an epoch says nothing
    assert trainer.steps == 4


# --- errors ---------------------------------------------------------------------------------------


def needed(p, batch, rows):
    """Bytes of a trainer in float64 for so many rows of data."""
    numbers = 4 * p.layout.n_parameters + batch * p.layout.width + rows * D
    control, flags, order = 4 * 8, 2 * 3 * 8, 8 * rows
    return 8 * (numbers + len(p.layout.terms)) + control + flags + order


@FAMILY
def test_out_of_memory_says_which_batch_would_fit(family):
    p = problem(family, 64, batch_size=64)
    limited = Emulator(limit=needed(p, 20, 64))
    on = on_device(p.program, limited)  # whose table has an array too
    with pytest.raises(MemoryError, match=r"batch_size=64 takes .* up to (\d+) would") as error:
        p.trainer(on, p.start())
    fits = int(re.search(r"up to (\d+)", str(error.value))[1])
    assert 10 < fits < 20
    smaller = p.recipe._replace(batch_size=fits)
    state = p.start()
    with on.trainer(on, p.layout, smaller, state, p.X, None) as trainer:
        assert run(trainer, smaller, state, p.X, np.arange(64)) == -(-64 // fits)
        with pytest.raises(MemoryError, match=r"give X as an np.memmap, whose rows are sent in"):
            trainer.run(smaller, state, np.vstack([p.X] * 99), np.arange(64))
        assert run(trainer, smaller, state, p.X, np.arange(64)) > 0  # and goes on
    tiny = on_device(p.program, Emulator(limit=needed(p, 0, 0)))
    with pytest.raises(MemoryError, match='no batch_size would fit; use device="cpu"'):
        p.trainer(tiny, state)


def test_bad_data_are_refused_before_anything_is_sent(training):
    trainer, p, state, X, order = training
    wide, device = np.ones((14, 14)), trainer.device
    with crossings(device) as sent:
        for data, kind, message in [
            (X.astype("f4"), TypeError, "data has dtype float32, expected float64"),
            (put(device, X.astype("f4")), TypeError, "data has dtype float32, expected float64"),
            (X[:, :5], ValueError, r"data has shape \(14, 5\), expected \(rows, 7\)"),
            (put(device, wide)[:, ::2], ValueError, "data has shape .* a C-contiguous array"),
            (put(Emulator(), X), ValueError, "data is on another device"),
        ]:
            with pytest.raises(kind, match=message):
                trainer.run(p.recipe, state, data, order)
    assert [shape for shape in sent.up if len(shape) == 1] == [] and not trainer.graphs
