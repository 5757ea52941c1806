"""The three tables: names and signatures, twins beside the reference, and planted bugs.

Each kernel by itself, from its paper to its gradient, is in the file of its subject.
"""

import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import test_columns
import test_likelihoods
import test_posterior
import test_sequence
from emulator import EMULATED
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_arguments import TWINS, arguments, compare, strided
from kernel_checks import SHAPES, check_twin
from numpy.testing import assert_array_equal

from minivae.kernels import CATEGORY, COUNT, GREY, LOGVAR_BOUND, tables
from minivae.kernels.tables import cpu, reference

KERNELS = {name: f for name, f in vars(reference).items() if inspect.isfunction(f)}
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
WITHOUT_REALS = {"all_finite", "join", "nade_sample"} | {
    f"random_{what}" for what in ("words", "uniform", "normal", "binarize")
}


C_ORDER = {"matmul", "copy", "add_terms", "nade_logits", "nade_backward"}  # they write no other


def test_the_tables_have_the_same_names_and_signatures():
    assert len(KERNELS) > 25
    nowhere = SimpleNamespace(empty=lambda shape, dtype: None)
    twins = {name: twin.py_func for name, twin in vars(cpu()).items() if hasattr(twin, "py_func")}
    cuda = {n: f for n, f in vars(tables.on_device(nowhere)).items() if callable(f)}
    for table in (twins, cuda):
        assert table.keys() == KERNELS.keys()
        for name, twin in table.items():
            assert inspect.signature(twin) == inspect.signature(KERNELS[name]), name
    for name, twin in cuda.items():
        assert twin.func.__name__ == twins[name].__name__ == name


def test_every_kernel_is_compared_here_or_in_the_file_of_its_subject():
    assert set(TWINS) | WITHOUT_REALS == KERNELS.keys()


# --- reference -> twins ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("float32", np.array), ("float32", strided), ("float64", np.array)],
)
@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 17), st.integers(1, 33)),
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1e-3, 1.0, 30.0, 1e3]),
)
def test_the_cpu_agrees_with_the_reference(name, dtype, layout, shape, seed, magnitude):
    if name in C_ORDER:
        layout = np.array
    if layout is strided:  # a single row or column would be contiguous: other code to compile
        shape = tuple(max(2, n) for n in shape)
    for k in (reference, cpu()):
        compare(name, getattr(k, name), dtype, layout,
                arguments(dtype, *shape, seed, magnitude)[name])  # fmt: skip


@pytest.mark.parametrize("name", ["bias_activation", "activation_backward", "sum_rows"])
def test_the_cpu_takes_arrays_by_columns(name):
    for seed in range(10):
        given = arguments("float64", 5, 9, seed)[name]
        compare(name, getattr(cpu(), name), "float64", np.asfortranarray, given)


def require_same_bits(devices, check, *how):
    """check(device, ...) leaves the same arrays on every device, and on the first one twice."""
    first, *others = (check(device, *how) for device in [devices[0], *devices])
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert_array_equal(one, two)


@EMULATED
@pytest.mark.parametrize("name", TWINS)
@DTYPES
def test_cuda_agrees_with_the_reference_in_any_order_of_threads(name, dtype, devices):
    for seed, shape in enumerate(SHAPES):  # seeds choose activations, masks, forms of products
        require_same_bits(devices, lambda d, *how: check_twin(d, name, dtype, *how), shape, seed)
        check_twin(devices[-1], name, dtype, shape, seed, sliced=True)
        for magnitude in (1e-3, 30.0, 1e3) if shape != SHAPES[-1] else ():
            check_twin(devices[-1], name, dtype, shape, 100 + seed, magnitude)
    for seed in range(12):
        check_twin(devices[-1], name, dtype, (5, 9), seed)


# --- planted bugs ---------------------------------------------------------------------------------


def dkl_times_std(dz, mu, logvar, lower, eps, prior_scale, entropy_scale, *rest):
    reference.sample_gaussian_backward(dz, mu, logvar, lower, eps, prior_scale, entropy_scale,
                                       *rest)  # fmt: skip
    dlogvar = rest[2]
    dlogvar += prior_scale * np.expm1(logvar) / 2 * (np.exp(logvar / 2) - 1)


def factor_transposed(mu, logvar, lower, eps, z):
    """z = mu + L' eps has another covariance than L L'."""
    reference.sample_gaussian(mu, logvar, None, eps, z)
    if lower is not None:
        row, column = np.tril_indices(mu.shape[1], -1)
        for entry, (i, j) in enumerate(zip(row, column, strict=True)):
            z[:, j] += np.repeat(lower[:, entry], len(z) // len(mu)) * eps[:, i]


def weights_of_the_worst(log_w, nll, weights, row_nll, row_kl):
    reference.importance_bound(-log_w, nll, weights, row_nll, row_kl)


def mean_of_logs(log_w, nll, weights, row_nll, row_kl):
    weights[:] = 1 / (log_w.size // row_nll.size)
    row_nll[:] = nll.reshape(row_nll.size, -1).mean(axis=1)
    row_kl[:] = -log_w.reshape(row_nll.size, -1).mean(axis=1) - row_nll


def weights_not_squared(dz, z, score, weights, scale):
    ones = np.ones_like(weights)
    reference.importance_backward(dz, z, score, ones, scale)


def clamp_forgotten(dz, mu, logvar, *rest):
    logvar = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    reference.sample_gaussian_backward(dz, mu, logvar, *rest)


def half_std(mu, logvar, lower, eps, z):
    reference.sample_gaussian(mu, logvar, lower, eps / 2, z)


def prior_forgotten(logvar, eps, z, nll, log_w):
    reference.log_importance_weights(logvar, eps, z, nll, log_w)
    log_w += (z * z).sum(axis=1) / 2


def log_2_pi_forgotten(mean, s, x, observed, scale, nll, *gradients):
    reference.gaussian_nll(mean, s, x, observed, scale, nll, *gradients)
    nll -= math.log(2 * math.pi) / 2 * x.shape[1]


def groups_of(kind, groups, *rows):
    """Columns of the groups of a kind, of each of these matrices."""
    for code, first, last in groups:
        if code == kind:
            yield tuple(row[:, first:last] for row in rows)


def grey_constant_forgotten(y, s, groups, units, x, observed, scale, nll, *gradients):
    """Grey pixels as if they were probabilities: the cross-entropy, which is no density."""
    reference.mixed_nll(y, s, groups, units, x, observed, scale, nll, *gradients)
    for (a,) in groups_of(GREY, groups, y):
        nll += np.where(a == 0, math.log(2), np.log(a / np.tanh(a / 2))).sum(axis=1)


def grey_constant_turned_near_0(y, s, groups, units, x, observed, scale, nll, dy, ds):
    """The first term of the series with the other sign: y^2 / 24 in the value, y / 12 in dy."""
    reference.mixed_nll(y, s, groups, units, x, observed, scale, nll, dy, ds)
    for a, da in groups_of(GREY, groups, y, dy):
        near = abs(a) < 1
        nll -= (near * a * a).sum(axis=1) / 12
        da -= near * a / 6


def log_factorial_forgotten(y, s, groups, units, x, observed, scale, nll, *gradients):
    reference.mixed_nll(y, s, groups, units, x, observed, scale, nll, *gradients)
    for (counts,) in groups_of(COUNT, groups, np.nan_to_num(x)):
        nll -= np.vectorize(math.lgamma, otypes=[float])(counts + 1).sum(axis=1)


def softmax_sloped_as_sigmoid(y, s, groups, units, x, observed, scale, nll, dy, ds):
    logits = y.copy()
    reference.mixed_nll(y, s, groups, units, x, observed, scale, nll, dy, ds)
    for a, t, da in groups_of(CATEGORY, groups, logits, x, dy):
        da[:] = scale * (1 / (1 + np.exp(-a)) - t)


def one_walk_up(y, noise_logvar, groups, units, x):
    """Counts drawn as if those below the mode never were."""
    u = x.copy()
    reference.mixed_draw(y, noise_logvar, groups, units, x)
    for drawn, noise, a in groups_of(COUNT, groups, x, u, y):
        drawn += noise > 1 / (1 + np.exp(a))


def mask_forgotten(logits, x, observed, scale, nll, dlogits):
    reference.bernoulli_nll(logits, np.nan_to_num(x), None, scale, nll, dlogits)


def input_overwritten(mu, logvar, lower, eps, z):
    reference.sample_gaussian(mu, logvar, lower, eps, z)
    logvar /= 2


def remainder_forgotten(x):
    reference.threshold(x[:, :8])


def softplus_drawn(logits, mean):
    mean[:] = np.logaddexp(0, logits)


def own_slope_included(x, dlogits, W, c, V, first, last, dW, dc, dV):
    """A variable would be a cause of itself."""
    reference.nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV)
    before = c[:, None] + np.cumsum(x[:, :, None] * W, axis=1) - x[:, :, None] * W
    h = 1 / (1 + np.exp(-before))
    dW += (x[:, :, None] * dlogits[:, :, None] * V * h * (1 - h)).sum(axis=0)


def one_variable_late(x, W, c, V, b, a, h, logits):
    """h_d of x up to d - 2 is still a distribution, but not the one that is drawn from."""
    late = np.hstack([np.zeros((len(x), 1)), x[:, :-1]])
    reference.nade_logits(late, W, c, V, b, a, h, logits)


def twin(name, k):
    compare(name, getattr(k, name), "float32", np.array, arguments("float32", 3, 9)[name])


@pytest.mark.parametrize(
    ("name", "bug", "test", "how"),
    [
        ("sample_gaussian", half_std, test_posterior.test_std, ()),
        ("sample_gaussian_backward", dkl_times_std, test_posterior.test_gradients, ()),
        ("sample_gaussian_backward", clamp_forgotten, test_posterior.test_beyond_the_bound, (40,)),
        ("sample_gaussian", factor_transposed, test_posterior.test_full_covariance, ()),
        ("importance_bound", weights_of_the_worst, test_posterior.test_importance_bound, ()),
        ("importance_bound", mean_of_logs, test_posterior.test_importance_bound, ()),
        ("importance_backward", weights_not_squared,
         test_posterior.test_doubly_reparameterised_gradient, ("full",)),
        ("log_importance_weights", prior_forgotten, test_posterior.test_log_importance_weights, ()),
        ("gaussian_nll", log_2_pi_forgotten, test_likelihoods.test_gaussian_value, (0.7,)),
        ("bernoulli_nll", mask_forgotten, test_likelihoods.test_bernoulli_value, ()),
        ("bernoulli_mean", softplus_drawn, test_likelihoods.test_draws_have_the_moments,
         ("bernoulli",)),
        ("mixed_nll", grey_constant_forgotten, test_columns.test_values, ()),
        ("mixed_nll", grey_constant_forgotten,
         test_columns.test_a_grey_density_has_mass_1_and_its_mean, (1e-6,)),
        ("mixed_nll", grey_constant_turned_near_0, test_columns.test_values, ()),
        ("mixed_nll", grey_constant_turned_near_0,
         test_columns.test_grey_values_are_exact_on_both_sides_of_the_switch, ("float32",)),
        ("mixed_nll", log_factorial_forgotten, test_columns.test_values, ()),
        ("mixed_nll", log_factorial_forgotten, test_columns.test_probabilities_sum_to_1, ()),
        ("mixed_nll", softmax_sloped_as_sigmoid, test_columns.test_gradients, (False,)),
        ("mixed_draw", one_walk_up,
         test_columns.test_draws_of_outcomes_have_their_probabilities, ("float64",)),
        ("nade_backward", own_slope_included, test_sequence.test_gradients, (7,)),
        ("nade_logits", one_variable_late, test_sequence.test_draws_have_the_probabilities, ()),
        ("sample_gaussian", input_overwritten, twin, ("sample_gaussian",)),
        ("threshold", remainder_forgotten, twin, ("threshold",)),
    ],
)  # fmt: skip
def test_planted_bug_is_noticed(name, bug, test, how):
    with pytest.raises(AssertionError):
        test(*how, k=SimpleNamespace(**{**vars(reference), name: bug}))
