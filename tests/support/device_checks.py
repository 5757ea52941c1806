"""What every device must do, as functions of a device: test_cuda.py runs them on the one in memory,
test_gpu.py on a card.
"""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from test_kernels import arguments, compare

from minivae import VAE, backend, evaluation, kernels, objective
from minivae.kernels import reference
from minivae.kernels.launches import Table
from minivae.parameters import make_workspace, plan_model
from minivae.replay import hosted
from minivae.training import State, make_recipe, shuffled

D, Z = 7, 2
TWINS = sorted(arguments("float64", 1, 1))
# Rows and columns: none, one, less and more than a warp, a tile, a block of threads.
SHAPES = ((0, 5), (1, 1), (5, 1), (1, 33), (7, 33), (17, 16), (37, 300))


def put(device, array):
    """A copy of a NumPy array on the device."""
    target = device.empty(array.shape, array.dtype)
    device.upload(np.ascontiguousarray(array), target)
    return target


def table(device):
    """The device's kernel table, for NumPy arrays."""
    return backend.on_device(device).k


# --- kernels --------------------------------------------------------------------------------------


def twin(device, name):
    """A kernel for NumPy arrays; totals, which are float64 on a device, in any dtype."""
    kernel = hosted(device, getattr(Table(device), name))

    def add_totals(nll, kl, totals):
        exact = totals.astype(np.float64)
        kernel(nll, kl, exact)
        totals[:] = exact

    return add_totals if name == "add_totals" else kernel


def check_twin(device, name, dtype, shape, seed, magnitude=1.0):
    """The twin agrees with the reference; returns all arrays as it left them."""
    left = []

    def keeping(*given):
        twin(device, name)(*given)
        left.extend(value.copy() for value in given if isinstance(value, np.ndarray))

    compare(name, keeping, dtype, np.array, arguments(dtype, *shape, seed, magnitude)[name])
    return left


def check_views(device, dtype):
    """Columns of a wider matrix, as both heads are, and transposed factors, as backward has."""
    k, rng, Z = Table(device), np.random.default_rng(0), 5
    heads, dz, eps = (rng.standard_normal((9, m)).astype(dtype) for m in (2 * Z, Z, Z))
    there, dz_there, eps_there = (put(device, array) for array in (heads, dz, eps))
    z, kl, dheads = np.empty_like(dz), np.empty(9, dtype), np.empty_like(heads)
    z_there, kl_there, dheads_there = (put(device, array) for array in (z, kl, dheads))
    for machine, h, d, e, z_, kl_, dh in [
        (reference, heads, dz, eps, z, kl, dheads),
        (k, there, dz_there, eps_there, z_there, kl_there, dheads_there),
    ]:
        machine.sample_gaussian(h[:, :Z], h[:, Z:], e, z_, kl_)
        machine.sample_gaussian_backward(d, h[:, :Z], h[:, Z:], e, 0.5, dh[:, :Z], dh[:, Z:])
    for there, here in [(z_there, z), (kl_there, kl), (dheads_there, dheads)]:
        assert_allclose(device.download(there), here, rtol=0, atol=100 * np.finfo(dtype).eps)

    out, part = put(device, np.full(3, np.nan, dtype)), put(device, heads)
    k.sum_rows(part, 4, out)
    assert_allclose(device.download(out), heads[:, 4:7].sum(axis=0), atol=50 * np.finfo(dtype).eps)
    for m, n, depth in [(1, 1, 1), (3, 20, 70), (70, 33, 1), (1, 40, 17), (16, 16, 16), (65, 2, 9)]:
        a, b = rng.standard_normal((m, depth)), rng.standard_normal((depth, n))
        size = (abs(a) @ abs(b)).max()
        a, b = a.astype(dtype), b.astype(dtype)
        exact = a.astype(np.float64) @ b
        forms = [(put(device, a), put(device, b)), (put(device, a.T).T, put(device, b)),
                 (put(device, a), put(device, b.T).T), (put(device, a.T).T, put(device, b.T).T),
                 (put(device, np.hstack([a, a]))[:, depth:], put(device, b))]  # fmt: skip
        for left, right in forms:
            out = put(device, np.full((m, n), np.nan, dtype))
            k.matmul(left, right, out)
            found = device.download(out)
            assert abs(found - exact).max() <= (8 + depth) * np.finfo(dtype).eps * size


def check_all_finite(device, dtype):
    k = table(device)
    largest = np.full(300, np.finfo(dtype).max, dtype)
    assert k.all_finite(largest, -largest)
    for bad in (np.nan, np.inf, -np.inf):
        for place in (0, 1, 255, 256, 299):
            values = largest.copy()
            values[place] = bad
            assert not k.all_finite(values, largest)
            assert not k.all_finite(largest, values)


def check_random(device, dtype):
    """Words and uniforms bit for bit, at the corners of their counters; normals to rounding."""
    k = table(device)
    for where in [(0, 0, 0, 0), (2**63 - 1, 8, 2**32 - 1, 2**32 - 5), (7 + 2**40, 3, 5, 1)]:
        for shape in [(5, 1), (2, 7), (3, 16), (2, 1030)]:
            words, u, eps = np.zeros(shape, np.uint32), *np.zeros((2, *shape), dtype)
            expected = np.zeros_like(words), np.zeros_like(u), np.zeros(shape)
            for name, found, right in zip(
                ("words", "uniform", "normal"), (words, u, eps), expected, strict=True
            ):
                getattr(k, f"random_{name}")(*where, found)
                getattr(reference, f"random_{name}")(*where, right)
            assert_array_equal(words, expected[0])
            assert_array_equal(u, expected[1])
            # Logarithm, root, cosine and products, each with an error of an eps or two; the
            # reference itself rounds 2 pi u, which near the zeros of cosine is not relative.
            tolerance = 6 * np.finfo(dtype).eps * abs(expected[2]) + 40 * 2**-53
            assert (abs(eps - expected[2]) <= tolerance).all()
            x = np.random.default_rng(0).choice([0, 0.25, 0.5, 1], shape).astype(dtype)
            binary = x.copy()
            k.random_binarize(binary, *where)
            assert_array_equal(binary, u < x)


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
