"""The same checks as test_graph.py and test_on_device.py, on a card: pytest -m gpu.

Those of the kernels are in tests/kernels.
"""

import numpy as np
import pytest
from device_checks import (
    check_failure,
    check_session,
    check_training,
    crossings,
    find_card,
    problem,
    same_state,
    small,
    train,
)
from numpy.testing import assert_allclose, assert_array_equal
from tiny import FAMILIES

from minivae import VAE, kernels
from minivae.engine.machine import machine, on_device
from minivae.models.vae.likelihoods import PLAIN

# What libraries warn of where they are first used is no error of ours.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]
FAMILY = pytest.mark.parametrize("family", FAMILIES)
OPTIMIZER = pytest.mark.parametrize("optimizer", kernels.OPTIMIZERS)


@pytest.fixture(scope="module")
def card():
    return find_card()


@FAMILY
@OPTIMIZER
def test_steps_are_those_of_the_reference(family, optimizer, card):
    for dtype in ("float32", "float64"):
        for rows, binarize in ((14, "stochastic"), (3, None)):
            check_training(card, problem(family, rows, optimizer, binarize=binarize), dtype)


@OPTIMIZER
@pytest.mark.parametrize("activation", kernels.ACTIVATIONS)
@pytest.mark.parametrize("likelihood", PLAIN)
def test_every_activation(activation, likelihood, optimizer, card):
    settings = dict(activation=activation, likelihood=likelihood)
    for dtype in ("float32", "float64"):
        check_training(card, problem("vae", 14, optimizer, **settings), dtype)


@pytest.mark.parametrize("likelihood", PLAIN)
def test_what_is_not_observed_is_cut_with_its_rows(likelihood, card):
    p = problem("vae", 14, likelihood=likelihood, missing="mask")
    p.X[np.random.default_rng(1).random(p.X.shape) < 0.4] = np.nan
    for dtype in ("float32", "float64"):
        check_training(card, p, dtype)
        check_session(card, p, dtype)


@FAMILY
def test_a_loss_that_is_not_finite_changes_nothing(family, card):
    for bad_batch in range(4):
        check_failure(card, problem(family, 14), bad_batch)


@FAMILY
def test_sessions_and_gradients(family, card):
    for dtype in ("float32", "float64"):
        check_session(card, problem(family, 9), dtype)
    X = np.random.default_rng(0).random((2, 5))
    report = small(family, device="cuda", dtype="float64", random_state=0).check_gradients(X)
    assert report.passed, str(report)


@FAMILY
def test_two_runs_have_the_same_bits(family, card):
    p = problem(family, 500, batch_size=128, binarize="stochastic")
    on = on_device(p.program, card)
    (one, gradient), (two, other) = (train(on, p, 2, "float32") for _ in range(2))
    same_state(one, two)
    assert_array_equal(gradient, other)


@FAMILY
def test_an_estimator_is_the_same_on_a_card(family, card):
    X = np.random.default_rng(0).random((700, 7))
    settings = dict(epochs=2, batch_size=64, binarize="stochastic", dtype="float64", random_state=0)
    one, two = (small(family, device=name, **settings).fit(X, X_valid=X[:99])
                for name in ("reference", "cuda"))  # fmt: skip
    # Sums of some hundred terms are off by some tens of roundings, and 22 steps follow them.
    assert_allclose(two.state_.theta, one.state_.theta, rtol=0, atol=1e-11)
    for name in one.history_.keys() - {"seconds"}:
        assert_allclose(two.history_[name], one.history_[name], rtol=1e-10)
    assert_allclose(two.score_samples(X), one.score_samples(X), rtol=1e-10)
    with crossings(card) as seen:
        two.score(X)
    assert seen.bytes < 8 * (two.state_.theta.size + X.size + 4 * 512 + 101 * len(X))


def test_ten_steps_at_full_size_follow_the_cpu(card):
    """784-400-20, batch 128, Adam, float32: the loss of every step."""
    rng = np.random.default_rng(0)
    X = 1 / (1 + np.exp(-rng.standard_normal((1280, 4)) @ rng.standard_normal((4, 784))))
    X = X.astype(np.float32)
    model = VAE(20, batch_size=128, random_state=0)
    curves = []
    for on in (machine(model.program, "cpu"), on_device(model.program, card)):
        seed, layout, state = model.new_state(784)
        model.become(seed, layout, state)
        recipe, losses = model._recipe(), []
        with on.trainer(on, layout, recipe, state, X, None) as trainer:
            for start in range(0, 1280, 128):
                state.totals[:] = 0
                state.steps += trainer.run(recipe, state, X, np.arange(start, start + 128))
                losses.append(state.totals.sum() / 128)
        curves.append(losses)
    assert curves[0][0] - curves[0][-1] > 20
    # Roundings of 1e-7 in sums of 784 terms, and ten updates that follow the differences they make.
    assert_allclose(curves[1], curves[0], rtol=1e-5)
