"""What whole steps on every device must do, as functions of a device; kernels: kernel_checks.py."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from minivae import VAE, backend, evaluation, kernels, objective
from minivae.parameters import make_workspace, plan_model
from minivae.training import State, make_recipe, shuffled

D, Z = 7, 2


# --- training -------------------------------------------------------------------------------------


def problem(rows, optimizer="adam", seed=3, hidden=(5,), **settings):
    """(X, plan, recipe) of a small model; X in float64, of values that float32 holds."""
    settings = dict(likelihood="bernoulli", activation="tanh", batch_size=4, learning_rate=0.02,
                    weight_decay=0.01, beta=1.5) | settings  # fmt: skip
    settings["momentum"] = 0.5 * (optimizer == "sgd")
    vae = VAE(Z, hidden_layer_sizes=hidden, optimizer=optimizer, **settings)
    X = np.random.default_rng(0).random((rows, D)).astype(np.float32).astype(np.float64)
    plan = plan_model(D, hidden, Z, vae.activation, vae.likelihood)
    return X, plan, make_recipe(vae, seed)


def new_state(plan, seed=3, dtype="float64"):
    """The start that float32 holds too: every device and dtype begins at the same point."""
    state = State.new(plan, seed, dtype)
    state.theta[:] = State.new(plan, seed, "float32").theta
    return state


def run(crew, recipe, state, X, rows):
    """Some steps, counted as training does."""
    made = crew.run(recipe, state, X, rows)
    state.steps += made
    return made


def train_reference(plan, recipe, X, epochs):
    """(State, gradient of the last step) by the reference in float64."""
    state, gradient = new_state(plan), np.empty(plan.n_parameters)
    work = make_workspace(plan, min(recipe.batch_size, len(X)), np.float64)
    for epoch in range(epochs):
        order = shuffled(len(X), recipe.seed, epoch)
        state.steps += objective.train(
            plan, recipe, X, order, state.steps, state.theta, state.moments, gradient, work,
            state.totals, None, 0, 1,
        )  # fmt: skip
    return state, gradient


def train_on(device, plan, recipe, X, epochs, dtype):
    """The same on a device, each epoch in two parts."""
    state = new_state(plan, dtype=dtype)
    batch = min(recipe.batch_size, len(X))
    with backend.on_device(device).crew(plan, dtype) as crew:
        for epoch in range(epochs):
            order = shuffled(len(X), recipe.seed, epoch)
            for rows in (order[:batch], order[batch:]):
                assert run(crew, recipe, state, X, rows) == -(-len(rows) // batch)
        gradient = crew.gradient
    return state, gradient


def check_training(device, rows, dtype, epochs=2, **settings):
    """Parameters, moments, totals and last gradient after some epochs, as by the reference."""
    X, plan, recipe = problem(rows, **settings)
    expected, expected_gradient = train_reference(plan, recipe, X, epochs)
    state, gradient = train_on(device, plan, recipe, X.astype(dtype), epochs, dtype)
    assert state.steps == expected.steps
    assert abs(expected.theta - new_state(plan).theta).max() > 0.01
    # 200 roundings of what is largest in a step; the steps that follow grow them by little.
    rounding = 10 * 200 * np.finfo(dtype).eps
    pairs = [(getattr(state, n), getattr(expected, n)) for n in ("theta", "moments", "totals")]
    for found, right in [*pairs, (gradient, expected_gradient)]:
        assert_allclose(found, right, rtol=0, atol=rounding * max(1, abs(right).max()))
    return state


def check_failure(device, bad_batch, dtype="float64"):
    """A loss that is not finite stops training, and all is as the last good batch left it."""
    X, plan, recipe = problem(14)
    order = shuffled(14, 3, 0)
    bad, good = X.astype(dtype), X.astype(dtype)
    bad[order[4 * bad_batch]] = np.nan
    with backend.on_device(device).crew(plan, dtype) as crew:
        state = new_state(plan, dtype=dtype)
        assert run(crew, recipe, state, bad, order) == bad_batch
        crew.store()
        size = 4 if bad_batch < 3 else 2
        assert np.isnan(crew.work.nll[:size]).any()
        expected = new_state(plan, dtype=dtype)
        assert run(crew, recipe, expected, good, order[: 4 * bad_batch]) == bad_batch
        crew.store()
        for name in ("theta", "moments", "totals"):
            assert_array_equal(getattr(state, name), getattr(expected, name))
        rest = order[4 * bad_batch :]  # and training can go on
        assert run(crew, recipe, expected, good, rest) == -(-len(rest) // 4)
    whole = train_on(device, plan, recipe, good, 1, dtype)[0]
    assert_array_equal(expected.theta, whole.theta)


def check_gradients(device, likelihood, activation, hidden=(3,)):
    """Every gradient by finite differences, in float64, through the device."""
    X, plan, recipe = problem(4, likelihood=likelihood, activation=activation, hidden=hidden)
    theta = new_state(plan).theta + np.random.default_rng(1).normal(0, 0.3, plan.n_parameters)
    eps = np.random.default_rng(2).standard_normal((4, Z))
    machine = backend.on_device(device)
    report = evaluation.check_gradients(machine, plan, theta, X, eps, recipe.beta)
    assert report.passed, str(report)
    assert sum(entry.checked for entry in report.inputs.values()) == plan.n_parameters


def check_evaluation(device, likelihood):
    """Codes, reconstructions, ELBO and log-likelihood as by the reference."""
    binarize = kernels.STOCHASTIC if likelihood == "bernoulli" else kernels.KEEP
    X, plan, _ = problem(9, likelihood=likelihood)
    theta, found = new_state(plan).theta, []
    for machine in (objective, backend.on_device(device)):
        mu, logvar = evaluation.encode(machine, plan, theta, X, kernels.KEEP)
        found.append([
            mu, logvar, evaluation.decode(machine, plan, theta, mu),
            evaluation.elbo(machine, plan, theta, X, binarize, 5, n_samples=2),
            evaluation.log_likelihood(machine, plan, theta, X, binarize, 5, n_samples=3),
            *evaluation.losses_and_gradient(machine, plan, theta, X, mu, 1.5),
        ])  # fmt: skip
    for right, value in zip(*found, strict=True):
        assert_allclose(value, right, rtol=0, atol=1e-12)
