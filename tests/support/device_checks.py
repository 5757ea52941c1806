"""What whole steps and sessions on every device must do, as functions of a device.

tests/engine runs them on the device in memory, through a stand-in for CuPy, and on a card. The same
of kernels: kernel_checks.py.
"""

import contextlib
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tiny import tiny

from minivae.engine.layout import Layout
from minivae.engine.machine import machine, on_device
from minivae.engine.state import State
from minivae.engine.task import Recipe
from minivae.kernels import STOCHASTIC
from minivae.kernels.support import device as cuda
from minivae.models import find
from minivae.training.order import shuffled

# As few layers as a family can have, so that the kernels of a step can be counted by hand.
SHAPES = {
    "vae": dict(hidden_layer_sizes=(4,), activation="relu"),
    "nade": dict(n_hidden=4),
    "flow": dict(n_couplings=1, hidden_layer_sizes=(4,)),
    "rbm": dict(n_hidden=4, n_steps=1),
    "pixelcnn": dict(n_layers=1, n_channels=6, first_kernel=3),
    "wavenet": dict(n_channels=4, n_skip=16, max_dilation=1),
    "pixelrnn": dict(n_state=4, n_hidden=3, image_shape=(-1, 1)),
    "gan": dict(generator_sizes=(4,), discriminator_sizes=(4,), activation="relu"),
}


def small(family="vae", **settings):
    """An estimator that trains in milliseconds; binarize is for families that have it."""
    if "binarize" not in find(family).SETTINGS:
        settings.pop("binarize", None)
    return tiny(family, **SHAPES[family] | settings)


D, BATCH = 7, 4
CHANGED = ("theta", "moments", "totals")  # of a State, by steps
ROOM = ("a", "h")  # regions in which kernels may leave what they like


# --- devices --------------------------------------------------------------------------------------


def as_gpu(device, monkeypatch):
    """Make it GPU 0 of this computer; returns what an estimator's `device` is then."""
    monkeypatch.setattr(cuda, "find", lambda index=0, matmul_precision="float32": device)
    return "cuda"


def find_card(matmul_precision="float32"):
    """The first GPU; skipped where CuPy is not installed, failed where a card does not work."""
    found = cuda.find(0, matmul_precision)
    if isinstance(found, str):
        (pytest.skip if found.startswith("CuPy is not installed") else pytest.fail)(found)
    return found


@contextlib.contextmanager
def crossings(device):
    """What crosses meanwhile: `up` and `down`, the shapes that are copied to the device and back,
    and `bytes` of them all."""
    seen = SimpleNamespace(up=[], down=[], bytes=0)
    upload, download = device.upload, device.download

    def up(host, array):
        seen.up.append(host.shape)
        seen.bytes += host.nbytes
        upload(host, array)

    def down(array):
        seen.down.append(array.shape)
        seen.bytes += array.nbytes
        return download(array)

    device.upload, device.download = up, down
    try:
        yield seen
    finally:
        del device.upload, device.download  # the class's own are behind them


# --- problems -------------------------------------------------------------------------------------


@dataclass
class Problem:
    """A small model of a family about to be trained on X, whose values float32 holds too."""

    layout: Layout
    recipe: Recipe
    X: np.ndarray  # float64

    @property
    def program(self):
        return self.layout.program

    def start(self, dtype="float64"):
        """The same start for every device and dtype: float32 holds it."""
        state = State.new(self.layout, self.recipe.seed, dtype)
        state.theta[:] = State.new(self.layout, self.recipe.seed, "float32").theta
        return state

    def order(self, epoch=0):
        return shuffled(len(self.X), self.recipe.seed, epoch)

    def trainer(self, on, state, X=None):
        """Who trains on a machine; X: the problem's own, in the state's dtype."""
        X = self.X.astype(state.theta.dtype) if X is None else X
        return on.trainer(on, self.layout, self.recipe, state, X, None)

    def session(self, on, theta, rows):
        return on.session(on, self.layout, self.recipe.weights, theta, rows)


def problem(family, rows, optimizer="adam", **settings):
    settings = dict(batch_size=BATCH, learning_rate=0.02, weight_decay=0.01, random_state=3,
                    momentum=0.5 * (optimizer == "sgd"), dtype="float64") | settings  # fmt: skip
    model = small(family, optimizer=optimizer, **settings)
    model.become(*model.new_state(D))
    X = np.random.default_rng(0).random((rows, D)).astype(np.float32).astype(np.float64)
    return Problem(model.layout_, model._recipe(), X)


def run(trainer, recipe, state, X, rows):
    """Some steps, counted as training does."""
    made = trainer.run(recipe, state, X, rows)
    state.steps += made
    return made


def train(on, problem, epochs=2, dtype="float64"):
    """(State, gradient of the last step) after some epochs on a machine, each in two parts."""
    state, X = problem.start(dtype), problem.X.astype(dtype)
    batch = min(problem.recipe.batch_size, len(X))
    with problem.trainer(on, state) as trainer:
        for epoch in range(epochs):
            order = problem.order(epoch)
            for rows in (order[:batch], order[batch:]):
                assert run(trainer, problem.recipe, state, X, rows) == -(-len(rows) // batch)
        gradient = trainer.gradient.copy()
    return state, gradient


def same_state(one, two):
    """Equal bits in all that steps change."""
    for pair in zip(changed(one), changed(two), strict=True):
        assert_array_equal(*pair)


def changed(state):
    """The arrays of a State that steps change."""
    return [*(getattr(state, name) for name in CHANGED), *state.carried.values()]


# --- checks ---------------------------------------------------------------------------------------


def check_training(device, problem, dtype):
    """Parameters, moments, totals and last gradient after two epochs, as by the reference."""
    expected, expected_gradient = train(machine(problem.program, "reference"), problem)
    state, gradient = train(on_device(problem.program, device), problem, dtype=dtype)
    assert state.steps == expected.steps
    assert abs(expected.theta - problem.start().theta).max() > 0.01
    # 200 roundings of what is largest in a step; the steps that follow grow them by little.
    rounding = 10 * 200 * np.finfo(dtype).eps
    pairs = zip(changed(state), changed(expected), strict=True)
    for found, right in [*pairs, (gradient, expected_gradient)]:
        assert_allclose(found, right, rtol=0, atol=rounding * max(1, abs(right).max()))
    return state


def check_failure(device, problem, bad_batch, dtype="float64"):
    """A loss that is not finite stops training, and all is as the last good batch left it."""
    on, recipe, order = on_device(problem.program, device), problem.recipe, problem.order()
    good, n = problem.X.astype(dtype), len(problem.X)
    bad = good.copy()
    bad[order[BATCH * bad_batch]] = np.nan
    state, expected = problem.start(dtype), problem.start(dtype)
    expected.carry(min(BATCH, n))  # as a trainer does, before the first step
    with problem.trainer(on, state) as trainer:
        assert run(trainer, recipe, state, bad, order) == bad_batch
        trainer.store()
        size = min(BATCH, n - BATCH * bad_batch)
        views = problem.layout.region_views(trainer.work, size)
        assert any(np.isnan(views[name]).any() for name in problem.layout.terms)
        assert_array_equal(views["x"], bad[order[BATCH * bad_batch :][:size]])
        assert run(trainer, recipe, expected, good, order[: BATCH * bad_batch]) == bad_batch
        trainer.store()
        same_state(state, expected)
        rest = order[BATCH * bad_batch :]  # and training can go on
        assert run(trainer, recipe, expected, good, rest) == -(-len(rest) // BATCH)
    same_state(expected, train(on, problem, 1, dtype)[0])


def check_session(device, problem, dtype="float64"):
    """Every region of the workspace, the gradient and a draw, as by the reference, for the noise of
    step 5 and pixels drawn at random."""
    theta, n = problem.start(dtype).theta, len(problem.X)
    theta += np.random.default_rng(1).normal(0, 0.3, theta.size).astype("f4")
    found = []
    for on in (machine(problem.program, "reference"), on_device(problem.program, device)):
        session = problem.session(on, theta.copy(), n)
        session.upload(np.full(n * problem.layout.width, np.nan), session.task.work)
        batch = session.put(problem.X.astype(dtype))
        session.load(batch, STOCHASTIC, 3, 5)
        session.step.loss_and_gradient(session.task, batch)
        there = [session.task.gradient, *(session.view(name, n) for name in problem.layout.regions)]
        arrays = [session.download(array).copy() for array in there]
        if problem.layout.repeat == 1:  # with more, a model is trained but not used
            session.program.draw(session.task, batch, 3, 2)
            arrays.append(session.download(session.view("x", n)).copy())
        found.append(arrays)
    names = ["gradient", *problem.layout.regions, "draw"][: len(arrays)]
    for name, right, value in zip(names, *found, strict=True):
        if name in ROOM:
            continue
        written = ~np.isnan(right)  # not a region that only a draw needs
        tolerance = 200 * np.finfo(dtype).eps * max(1, abs(right[written]).max(initial=0))
        assert_allclose(value[written], right[written], rtol=0, atol=tolerance, err_msg=name)
