"""The same checks as test_replay.py, on a card: pytest -m gpu. Kernels: kernels/test_on_card.py."""

import numpy as np
import pytest
from device_checks import (
    check_evaluation,
    check_failure,
    check_gradients,
    check_training,
    problem,
    train_on,
)
from numpy.testing import assert_allclose, assert_array_equal

from minivae import VAE, backend, kernels
from minivae.kernels.support import device as cuda
from minivae.kernels.tables import reference
from minivae.parameters import plan_model
from minivae.training import Crew, State, make_recipe, shuffled

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def card():
    """The first GPU."""
    found = cuda.find()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)
@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize(
    "settings", [dict(binarize="stochastic"), dict(likelihood="gaussian")], ids=str
)
def test_steps_are_those_of_the_reference(settings, activation, optimizer, card):
    for dtype in ("float32", "float64"):
        check_training(card, 14, dtype, optimizer=optimizer, activation=activation, **settings)


def test_a_loss_that_is_not_finite_changes_nothing(card):
    for bad_batch in range(4):
        check_failure(card, bad_batch)


@pytest.mark.parametrize("likelihood", kernels.LIKELIHOODS)
def test_gradients_and_evaluation(likelihood, card):
    check_gradients(card, likelihood, "tanh")
    check_evaluation(card, likelihood)


def test_two_runs_have_the_same_bits(card):
    X, plan, recipe = problem(500, batch_size=128, hidden=(70,), binarize="stochastic")
    one, two = (train_on(card, plan, recipe, X.astype("f4"), 2, "float32")[0] for _ in range(2))
    for name in ("theta", "moments", "totals"):
        assert_array_equal(getattr(one, name), getattr(two, name))


def test_ten_steps_at_full_size_follow_the_cpu(card):
    """784-400-20, batch 128, Adam, float32: the loss of every step."""
    rng = np.random.default_rng(0)
    X = 1 / (1 + np.exp(-rng.standard_normal((1280, 4)) @ rng.standard_normal((4, 784))))
    X = X.astype(np.float32)
    plan = plan_model(784, (400,), 20, "relu", "bernoulli")
    recipe = make_recipe(VAE(20, batch_size=128), 0)
    order, curves = shuffled(reference, 1280, 0, 0), []
    cpu_crew = Crew(backend.machine("cpu"), plan, 128, np.dtype("float32"), None)
    for crew in (cpu_crew, backend.on_device(card).crew(plan, "float32")):
        state, losses = State.new(plan, 0, "float32"), []
        with crew:
            for start in range(0, 1280, 128):
                state.totals[:] = 0
                state.steps += crew.run(recipe, state, X, order[start : start + 128])
                losses.append(state.totals.sum() / 128)
        curves.append(losses)
    assert curves[0][0] - curves[0][-1] > 20
    # Roundings of 1e-7 in sums of 784 terms, and ten updates that follow the differences they make.
    assert_allclose(curves[1], curves[0], rtol=1e-5)
