"""Training and evaluation on a device: the real host code over the device in memory.

A step is recorded once and replayed, so anything that the host did within it would be missing.
"""

import gc
import platform

import numpy as np
import pytest
from device_checks import (
    check_evaluation,
    check_failure,
    check_gradients,
    check_training,
    new_state,
    problem,
    put,
    run,
    train_on,
)
from emulator import GXX, Emulator
from numpy.testing import assert_array_equal

from minivae import backend, kernels
from minivae.kernels import launches
from minivae.training import shuffled

pytestmark = pytest.mark.skipif(
    GXX is None or platform.system() != "Linux", reason="the emulated GPU needs Linux and g++"
)


@pytest.fixture(scope="module")
def device():
    """A device in memory whose threads run in a shuffled order."""
    return Emulator(3)


@pytest.fixture
def crew(device):
    """(crew, recipe, state, X, order) of a small model, about to be trained in float64."""
    X, plan, recipe = problem(14)
    order = shuffled(14, 3, 0)
    with backend.on_device(device).crew(plan, "float64") as crew:
        yield crew, recipe, new_state(plan), X, order


# --- the same as the reference --------------------------------------------------------------------

STEPS = [  # rows (batches of 4: the last one is short), settings
    (14, dict(binarize="stochastic")),
    (13, dict(likelihood="gaussian")),
    (3, dict(likelihood="gaussian")),  # fewer than a batch
    (5, dict(hidden=(), binarize="threshold")),
    (8, dict(hidden=(6, 4), activation="softplus")),
]


@pytest.mark.parametrize(("rows", "settings"), STEPS, ids=str)
@pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)
def test_steps_are_those_of_the_reference(rows, settings, optimizer, device):
    for dtype in ("float32", "float64"):
        check_training(device, rows, dtype, optimizer=optimizer, **settings)


@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize("likelihood", kernels.LIKELIHOODS)
def test_every_activation(activation, likelihood, device):
    check_training(device, 6, "float64", activation=activation, likelihood=likelihood)


@pytest.mark.parametrize("order", [0, 1])
def test_bits_do_not_depend_on_the_order_of_threads(order, device):
    X, plan, recipe = problem(14, binarize="stochastic", hidden=(40,))
    states = [train_on(where, plan, recipe, X.astype(np.float32), 1, "float32")[0]
              for where in (device, device, Emulator(order))]  # fmt: skip
    for state in states[1:]:
        for name in ("theta", "moments", "totals"):
            assert_array_equal(getattr(state, name), getattr(states[0], name))


@pytest.mark.parametrize("bad_batch", range(4))
def test_a_loss_that_is_not_finite_changes_nothing(bad_batch, device):
    check_failure(device, bad_batch)


@pytest.mark.parametrize(
    ("likelihood", "activation"), [("bernoulli", "tanh"), ("gaussian", "softplus")]
)
def test_gradients_by_finite_differences(likelihood, activation, device):
    check_gradients(device, likelihood, activation)


@pytest.mark.parametrize("likelihood", kernels.LIKELIHOODS)
def test_evaluation_is_that_of_the_reference_and_leaves_nothing_behind(likelihood, device):
    check_evaluation(device, likelihood)  # first, so that nothing waits for the garbage collector
    gc.collect()
    before = len(device.arrays)
    gc.disable()
    try:
        check_evaluation(device, likelihood)
        assert len(device.arrays) <= before + 1  # the table of that machine has an array
    finally:
        gc.enable()


# --- what a replay depends on ---------------------------------------------------------------------


def test_one_graph_per_batch_shape_and_no_more_nodes_than_counted(crew):
    """The time of a small step should be that of launching its kernels, so they are counted."""
    crew, recipe, state, X, order = crew
    for _ in range(3):
        run(crew, recipe, state, X, order)
    assert [key.batch_size for key in crew.graphs] == [4, 2]
    nodes = next(iter(crew.graphs.values())).nodes
    assert (
        nodes
        == """gather random_normal matmul bias_activation matmul bias_activation
        sample_gaussian matmul bias_activation matmul bias_activation bernoulli_nll
        matmul activation_backward matmul sample_gaussian_backward matmul activation_backward
        all_finite matmul sum_rows adam matmul sum_rows adam matmul sum_rows adam matmul sum_rows
        adam add_totals advance""".split()
    )


def test_chunks_of_any_length_give_the_same_bits(crew):
    crew, recipe, state, X, order = crew
    assert run(crew, recipe, state, X, order) == 4
    crew.store()
    other = new_state(state.plan)
    for rows in (order[:4], order[4:12], order[12:]):
        run(crew, recipe, other, X, rows)
    crew.store()
    for name in ("theta", "moments", "totals"):
        assert_array_equal(getattr(other, name), getattr(state, name))
    assert run(crew, recipe, other, X, order[:0]) == 0


def test_the_learning_rate_may_change_between_replays(crew):
    crew, recipe, state, X, order = crew
    run(crew, recipe, state, X, order)
    crew.store()
    before, graphs = state.theta.copy(), len(crew.graphs)
    run(crew, recipe._replace(learning_rate=0.0), state, X, order)
    crew.store()
    assert_array_equal(state.theta, before)
    assert len(crew.graphs) == graphs
    run(crew, recipe._replace(momentum=0.25), state, X, order)  # any other number is part of a step
    assert len(crew.graphs) == 2 * graphs


def test_data_are_sent_once_and_other_data_are_seen(crew, monkeypatch):
    crew, recipe, state, X, order = crew
    sent, upload = [], crew.device.upload
    monkeypatch.setattr(
        crew.device, "upload", lambda host, array: (sent.append(host.shape), upload(host, array))
    )
    for _ in range(2):
        run(crew, recipe, state, X, order)
    assert sent.count(X.shape) == 1
    assert sent.count(state.theta.shape) == 1
    kl = crew.work.nll
    run(crew, recipe, state, X[:6] * 0, np.arange(6))  # fits into the place of X
    assert sent.count((6, 7)) == 1
    assert not np.array_equal(crew.work.nll, kl)
    larger = np.vstack([X, X])
    run(crew, recipe, state, larger, np.arange(28))
    run(crew, recipe._replace(batch_size=9), state, larger, np.arange(28))
    assert [key.batch_size for key in crew.graphs] == [9, 1]  # made anew for other buffers


def test_data_may_be_on_the_device_already(crew):
    crew, recipe, state, X, order = crew
    run(crew, recipe, state, X, order)
    crew.store()
    other = new_state(state.plan)
    run(crew, recipe, other, put(crew.device, X), order)
    crew.store()
    assert_array_equal(other.theta, state.theta)


def test_results_come_back_when_with_ends_but_not_half_of_a_run(device, monkeypatch):
    X, plan, recipe = problem(14)
    machine, order = backend.on_device(device), np.arange(14)
    state, start = new_state(plan), new_state(plan)
    with machine.crew(plan, "float64") as crew:
        run(crew, recipe, state, X, order)
        assert_array_equal(state.theta, start.theta)
    assert not np.array_equal(state.theta, start.theta)
    state = new_state(plan)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), machine.crew(plan, "float64") as crew:
        run(crew, recipe, state, X, order[:4])
        crew.store()
        kept = state.theta.copy()
        assert crew.finite(state)
        monkeypatch.setattr(crew.control, "step", interrupted)
        run(crew, recipe, state, X, order[4:])
    assert_array_equal(state.theta, kept)


def test_steps_until_the_next_look_at_the_clock(crew):
    crew, recipe, state, X, order = crew
    crew.steps = 4
    run(crew, recipe, state, X, order)
    assert 1 <= crew.steps <= 8


# --- errors ---------------------------------------------------------------------------------------


def test_out_of_memory_says_which_batch_would_fit():
    X, plan, recipe = problem(64)
    recipe = recipe._replace(batch_size=64)
    limited = Emulator(limit=16_000)
    with backend.on_device(limited).crew(plan, "float64") as crew:
        with pytest.raises(MemoryError, match=r"batch_size=64 takes .* up to (\d+) would") as error:
            run(crew, recipe, new_state(plan), X, np.arange(64))
        fits = int(str(error.value).split("up to ")[1].split()[0])
        assert run(crew, recipe._replace(batch_size=fits), new_state(plan), X, np.arange(64)) > 1
    with pytest.raises(MemoryError, match="no batch_size would fit: give X as"):
        crew.run(recipe, new_state(plan), np.vstack([X] * 9), np.arange(64))


def test_bad_data_are_refused_before_anything_is_sent(crew):
    crew, recipe, state, X, order = crew
    wide, device = np.ones((14, 14)), crew.device
    for data, kind, message in [
        (X.astype(np.float32), TypeError, "data has dtype float32, expected float64"),
        (put(device, X.astype(np.float32)), TypeError, "data has dtype float32, expected float64"),
        (X[:, :5], ValueError, r"data has shape \(14, 5\), expected \(rows, 7\)"),
        (put(device, wide)[:, ::2], ValueError, "data has shape .* expected a C-contiguous array"),
        (put(Emulator(), X), ValueError, "data is on another device"),
    ]:
        with pytest.raises(kind, match=message):
            crew.run(recipe, state, data, order)
    assert crew.buffers is None


def test_bad_arrays_are_refused_by_name(device):
    k, here = launches.Table(device), lambda *shape: put(device, np.ones(shape, np.float32))
    a, b, out = here(3, 4), here(4, 5), here(3, 5)
    double = put(device, np.ones((4, 5)))
    other = put(Emulator(), np.ones((4, 5), np.float32))
    for call, kind, message in [
        (lambda: k.matmul(a, double, out), TypeError, "b has dtype float64, expected float32"),
        (lambda: k.matmul(a, b, here(5, 3)), ValueError, "shapes do not match"),
        (lambda: k.matmul(a, other, out), ValueError, "b is on another device"),
        (lambda: k.matmul(a, np.ones((4, 5), "f4"), out), TypeError, "b is a ndarray"),
        (lambda: k.threshold(here(4, 4)[:, ::2]), ValueError, "x has shape .*contiguous"),
        (lambda: k.sum_rows(here(4, 4)[:, ::2], 0, here(2)), ValueError, "dy has strides"),
        (lambda: k.bernoulli_nll(out, out, out, 1.0, here(3), out), TypeError, "mask has dtype"),
        (lambda: k.gather(a, put(device, np.arange(2)), out), ValueError, "x has shape"),
        (lambda: k.gather(a, put(device, np.arange(3, dtype="i4")), here(3, 4)), TypeError, "rows"),
    ]:
        with pytest.raises(kind, match=message):
            call()
