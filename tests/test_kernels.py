"""The kernels, link by link: papers and scipy -> reference -> finite differences -> Numba twins.

Most tests are functions of a kernel table `k`, so that planted bugs can go through them too.
Random numbers, and what only the compiled side has, are in test_random.py.
"""

import copy
import inspect
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from minivae.gradcheck import check_gradient
from minivae.kernels import ACTIVATIONS, LOGVAR_BOUND, RELU, cpu, reference

KERNELS = [n for n, f in vars(reference).items() if inspect.isfunction(f) and n[0] != "_"]
KERNELS.remove("philox")  # part of the reference; its twin is in formulas.py


def test_the_tables_have_the_same_names_and_signatures():
    twins = {n: f.py_func for n, f in vars(cpu).items() if hasattr(f, "py_func")}
    twins = {n: f for n, f in twins.items() if f.__module__ == cpu.__name__}
    assert sorted(twins) == sorted(KERNELS)
    for name, twin in twins.items():
        assert inspect.signature(twin) == inspect.signature(getattr(reference, name)), name


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def posterior(k, mu, logvar, eps):
    z, kl = np.empty_like(mu), np.empty(len(mu), mu.dtype)
    k.sample_gaussian(mu, logvar, eps, z, kl)
    return z, kl


def posterior_backward(k, mu, logvar, eps, dz, kl_scale):
    dmu, dlogvar = np.empty_like(mu), np.empty_like(mu)
    k.sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar)
    return dmu, dlogvar


def bernoulli(k, logits, x, mask=None, scale=1.0):
    nll, dlogits = np.empty(len(x), logits.dtype), np.empty_like(logits)
    k.bernoulli_nll(logits, x, mask, scale, nll, dlogits)
    return nll, dlogits


def gaussian(k, mean, s, x, mask=None, scale=1.0):
    nll, ds, dmean = *np.empty((2, len(x)), mean.dtype), np.empty_like(mean)
    k.gaussian_nll(mean, s, x, mask, scale, nll, dmean, ds)
    return nll, dmean, ds.sum(keepdims=True)


# --- paper -> reference ---------------------------------------------------------------------------


def test_bernoulli_value(k=reference):
    logits, x = 5 * normals(6, 9), normals(6, 9, seed=1) > 0
    expected = -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=1)
    assert_allclose(bernoulli(k, logits, x.astype(float))[0], expected, rtol=1e-13)
    grey = special.expit(normals(6, 9, seed=2))
    expected = -grey * special.log_expit(logits) - (1 - grey) * special.log_expit(-logits)
    assert_allclose(bernoulli(k, logits, grey)[0], expected.sum(axis=1), rtol=1e-13)


@pytest.mark.parametrize("noise_logvar", [0.7, -3.0])
def test_gaussian_value(noise_logvar, k=reference):
    mean, x, s = normals(6, 9), normals(6, 9, seed=1), np.array([noise_logvar])
    mask = normals(6, 9, seed=2) > 0
    expected = -stats.norm.logpdf(x, mean, np.exp(s / 2))
    assert_allclose(gaussian(k, mean, s, x)[0], expected.sum(axis=1), rtol=1e-13)
    observed = gaussian(k, mean, s, np.where(mask, x, np.nan), mask)[0]
    assert_allclose(observed, (expected * mask).sum(axis=1), rtol=1e-13)


@pytest.mark.parametrize("Z", [1, 2, 50])
def test_posterior_value(Z, k=reference):
    """z has the quantiles of eps; kl is E[ln q - ln p] by quadrature and by determinant."""
    mu, logvar, eps = normals(1, Z), normals(1, Z, seed=1), normals(1, Z, seed=2)
    q = stats.norm(mu.T, np.exp(logvar.T) ** 0.5)
    z, kl = posterior(k, mu, logvar, eps)
    assert_allclose(q.cdf(z.T), stats.norm.cdf(eps.T), rtol=1e-12)
    t, weights = np.polynomial.hermite.hermgauss(9)  # nodes for the weight exp(-t^2)
    nodes = q.mean() + q.std() * math.sqrt(2) * t  # (Z, 9)
    per_latent = (q.logpdf(nodes) - stats.norm.logpdf(nodes)) @ weights / math.sqrt(math.pi)
    assert_allclose(kl, per_latent.sum(), rtol=1e-12)
    trace, logdet = q.var().sum(), np.linalg.slogdet(np.diag(q.var()[:, 0]))[1]
    assert_allclose(kl, (trace + (mu * mu).sum() - Z - logdet) / 2, rtol=1e-12)


# theta, gradient and moments before; settings; the same arrays after, worked out by hand.
HAND_STEPS = {
    # g = 0.5 + 0.2 * 1 = 0.7, velocity = 0.5 * 2 + 0.7 = 1.7
    "sgd": ([1.0, 0.5, 2.0], [0.1, 0.5, 0.2], [0.83, 0.5, 1.7]),
    # g = 3 + 0.5 * 2 = 4, square_sum = 9 + 16 = 25, step 0.1 * 4 / (5 + 3)
    "adagrad": ([2.0, 3.0, 9.0], [0.1, 0.5, 3.0], [1.95, 3.0, 25.0]),
    # g = 1 + 1 * 1 = 2; both moments unbiased are g and g^2, step 0.1 * 2 / (2 + 2)
    "adam": ([1.0, 1.0, 0.0, 0.0], [1, 0.1, 0.9, 0.99, 2.0, 1.0], [0.95, 1.0, 0.2, 0.04]),
}


@pytest.mark.parametrize("name", HAND_STEPS)
def test_optimizer_step_by_hand(name, k=reference):
    before, settings, after = HAND_STEPS[name]
    arrays = [np.array([value]) for value in before]
    getattr(k, name)(*arrays, *settings)
    assert_allclose(np.concatenate(arrays), after, rtol=1e-14)


def test_optimizers_follow_their_papers_over_many_steps(k=reference):
    gradients, rate, tiny = normals(12, 1), 0.05, 1e-6
    theta, moments = np.ones((3, 1)), np.zeros((4, 1))
    previous, sgd, adagrad, adam = 1.0, 1.0, 1.0, 1.0
    for t, g in enumerate(gradients, 1):
        k.sgd(theta[0], g, moments[0], rate, 0.8, 0.0)
        k.adagrad(theta[1], g, moments[1], rate, 0.0, tiny)
        k.adam(theta[2], g, moments[2], moments[3], t, rate, 0.9, 0.99, tiny, 0.0)
        past = gradients[:t, 0]
        # Polyak's heavy ball: the last move goes on.
        sgd, previous = sgd - rate * past[-1] + 0.8 * (sgd - previous), sgd
        adagrad -= rate * past[-1] / (np.linalg.norm(past) + tiny)
        # Adam's unbiased moments are weighted means over the past.
        m = np.average(past, weights=0.9 ** np.arange(t)[::-1])
        v = np.average(past**2, weights=0.99 ** np.arange(t)[::-1])
        adam -= rate * m / (math.sqrt(v) + tiny)
        assert_allclose(theta[:, 0], [sgd, adagrad, adam], rtol=1e-13)


# --- reference -> finite differences --------------------------------------------------------------


def check(forward, backward, inputs, dout=None):
    for method in ("central", "complex"):
        check_gradient(forward, backward, inputs, dout=dout, method=method).raise_if_failed()


def activation_pair(k, code):
    def forward(y, bias):
        y = y.copy()
        k.bias_activation(y, bias, code)
        return y

    def backward(y, bias, dy):
        dbias = np.empty_like(bias)
        k.activation_backward(dy, forward(y, bias), code)
        k.sum_rows(dy, 0, dbias)
        return dy, dbias

    return forward, backward


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_gradients(activation, k=reference):
    pair = activation_pair(k, ACTIVATIONS.index(activation))
    check(*pair, [2 * normals(5, 7), normals(7, seed=1)])


def test_relu_at_its_kink_takes_the_left_derivative(k=reference):
    forward, backward = activation_pair(k, RELU)
    y, bias, dout = np.array([[0.5, -1.0, 2.0]]), np.array([-0.5, 1.0, 1.0]), np.ones((1, 3))
    report = check_gradient(forward, backward, [y, bias], dout=[dout])
    report.raise_if_failed()
    assert report.kinks == 4  # two entries, each by y and by bias
    assert_array_equal(backward(y, bias, dout)[1], [0, 0, 1])


def test_matmul_gradients(k=reference):
    def product(a, b):
        out = np.empty((len(a), b.shape[1]), a.dtype)
        k.matmul(a, b, out)
        return out

    def backward(x, weight, dy):
        return product(dy, weight.T), product(x.T, dy)

    check(product, backward, [normals(4, 6), normals(6, 3, seed=1)])


def test_posterior_gradients(logvar_shift=0.0, k=reference):
    """L = sum(dz * z) + kl_scale * sum(kl), with one eps for both passes."""
    eps, dz, kl_scale = normals(4, 3, seed=2), normals(4, 3, seed=3), 0.3

    def forward(mu, logvar):
        return posterior(k, mu, logvar, eps)

    def backward(mu, logvar, dz, dkl):
        return posterior_backward(k, mu, logvar, eps, dz, dkl[0])

    inputs = [normals(4, 3), normals(4, 3, seed=1) + logvar_shift]
    check(forward, backward, inputs, [dz, np.full(4, kl_scale)])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("nll", [bernoulli, gaussian])
def test_likelihood_gradients(nll, masked, k=reference):
    """The gradients that come with the values are scale times those of sum(nll)."""
    scale, observed, x = 0.37, normals(4, 5, seed=4) > -0.5, special.expit(normals(4, 5, seed=1))
    x, mask = (np.where(observed, x, np.nan), observed) if masked else (x, None)
    check(
        lambda *inputs: nll(k, *inputs, x, mask)[0],
        lambda *inputs_dnll: nll(k, *inputs_dnll[:-1], x, mask, scale)[1:],
        [normals(4, 5)] if nll is bernoulli else [normals(4, 5), np.array([-0.6])],
        [np.full(4, scale)],
    )


@pytest.mark.parametrize("shift", [-1e3, -40.0, 40.0, 1e3])
def test_beyond_the_bound_of_logvar(shift, k=reference):
    """All is finite and as at the bound, so the gradient is 0."""
    test_posterior_gradients(shift, k)
    mu, logvar, s = normals(4, 3), normals(4, 3, seed=1) + shift, np.array([shift])
    held = np.full_like(logvar, math.copysign(LOGVAR_BOUND, shift))
    z, kl = posterior(k, mu, logvar, mu)
    assert_array_equal(np.c_[z, kl], np.column_stack(posterior(k, mu, held, mu)))
    assert np.isfinite(np.c_[z, kl, gaussian(k, mu, s, logvar)[0]]).all()
    assert (posterior_backward(k, mu, logvar, mu, mu, 1.0)[1] == 0).all()
    assert gaussian(k, mu, s, mu)[2] == 0


# --- reference -> twins ---------------------------------------------------------------------------


class Out(NamedTuple):
    """An array that a kernel writes, and what its tolerance needs.

    size: sum of the |terms| of each entry; None: |before| + |after|, where nothing else cancels.
    """

    before: np.ndarray
    size: np.ndarray | None = None
    terms: int = 0


def arguments(dtype, n, m, seed=0, magnitude=1.0):
    """Arguments of each twin, in float64 but of values that dtype holds exactly."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (magnitude * rng.standard_normal(shape)).astype(dtype).astype(np.float64)

    (a, b, c, d), weight, bias, s = draw(4, n, m), draw(m, 5), draw(m), draw(1)
    block, rows = np.full((n, m), np.nan), np.full(n, np.nan)  # the kernel must write all of them
    code, scale, masked = int(rng.integers(5)), rng.random(), rng.random() < 0.5
    observed = rng.random((n, m)) < 0.7 if masked else np.ones((n, m), bool)
    target = rng.choice([0, 0.5, 1], (n, m))
    x, mask = np.where(observed, target, np.nan), observed if masked else None

    f = a.copy()
    reference.bias_activation(f, bias, code)
    held, held_s = np.clip(b, -LOGVAR_BOUND, LOGVAR_BOUND), np.clip(s, -LOGVAR_BOUND, LOGVAR_BOUND)
    dbias = Out(bias * np.nan, abs(a).sum(axis=0), n)  # of terms dy f', and f' <= 1
    std, precision, residual = np.exp(held / 2), np.exp(-held_s), observed * (target - a)
    kl = (a * a + std * std + abs(held) + 1) / 2
    dlogvar = (abs(d * c) * std + scale * (std * std + 1)) / 2
    bernoulli_terms = observed * (np.logaddexp(0, a) + target * abs(a))
    ds_terms = (observed + residual**2 * precision) / 2
    gaussian_terms = ds_terms + observed * (1 + abs(held_s) / 2)
    left, right = [(a, weight), (a, draw(5, m).T), (a.T, b)][code % 3]  # as in x W, dy W^T, x^T dy
    product = abs(left) @ abs(right)
    # Optimisers: positive, with powers of 2, so that only theta minus its step can cancel.
    theta, gradient, first, second = abs(np.stack([a, b, c, d])).reshape(4, -1)
    return {
        "matmul": [left, right, Out(product * np.nan, product, left.shape[1])],
        # y + bias is rounded: relu moves by as much, the others by |a f'| <= |f| + 1.
        "bias_activation": [Out(a, abs(f) + np.minimum(abs(a + bias), 1)), bias, code],
        "activation_backward": [Out(a), target, code],
        "sum_rows": [a, 0, dbias],
        "sample_gaussian": [
            a, b, c, Out(block, abs(a) + std * abs(c)), Out(rows, kl.sum(axis=1), m)
        ],
        "sample_gaussian_backward": [
            d, a, b, c, scale, Out(block, abs(d) + scale * abs(a)), Out(block, dlogvar)
        ],
        "bernoulli_nll": [
            a, x, mask, scale, Out(rows, bernoulli_terms.sum(axis=1), m),
            Out(block, scale * (special.expit(a) + target)),
        ],
        "gaussian_nll": [
            a, s, x, mask, scale, Out(rows, gaussian_terms.sum(axis=1), m),
            Out(block, scale * precision * abs(residual)),
            Out(rows, scale * ds_terms.sum(axis=1), m),
        ],
        "sgd": [Out(theta), gradient, Out(first), 0.25, 0.9, 0.1],
        "adagrad": [Out(theta), gradient, Out(first), 0.25, 0.1, 1e-8],
        "adam": [
            Out(theta), gradient, Out(first), Out(second), 3, 0.25, 0.5, 0.75, 1e-8, 0.1
        ],
        "add_totals": [first, second, Out(np.zeros(2), first.sum() + second.sum(), m * n)],
        "threshold": [Out(target, a * 0)],  # size 0: no rounding
        "gather": [weight.T, rng.integers(0, 5, n), Out(block, a * 0)],
    }  # fmt: skip


@pytest.mark.parametrize("k", [reference, cpu], ids=["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_finite_sees_every_entry_that_is_not(k, dtype):
    largest = np.full(37, np.finfo(dtype).max, dtype)  # whose sum would overflow
    assert k.all_finite(largest, -largest)
    for bad in (np.nan, np.inf, -np.inf):
        for place in range(37):
            values = largest.copy()
            values[place] = bad
            assert not k.all_finite(values, largest)
            assert not k.all_finite(largest, values)


def strided(array):
    """Every second entry of longer rows; between them stands 1."""
    wide = np.ones((*array.shape[:-1], 2 * array.shape[-1] + 1), array.dtype)
    wide[..., 1::2] = array
    return wide[..., 1::2]


def compare(name, kernel, dtype, layout, given):
    """The kernel in dtype against the float64 reference; nothing but its Outs may change.

    A term's relative error is at most 8 eps: 3 of a formula (3e-7 in float32), twice that for a
    square, and products; each addition brings one eps more. What is not a normal number may be 0.
    """
    exact = [copy.deepcopy(g.before if isinstance(g, Out) else g) for g in given]
    found = list(exact)
    for i, g in enumerate(exact):
        if isinstance(g, np.ndarray):
            found[i] = layout(g.astype(dtype) if g.dtype == np.float64 else g)
            found[i].flags.writeable = layout is not strided or isinstance(given[i], Out)
    getattr(reference, name)(*exact)
    kernel(*found)
    limits = np.finfo(dtype)
    for g, e, f in zip(given, exact, found, strict=True):
        if isinstance(g, Out):
            assert f.dtype == dtype
            size = abs(g.before) + abs(e) if g.size is None else g.size
            tolerance = (8 + g.terms) * (limits.eps * size + 4 * limits.tiny)
            assert (abs(f - e) <= tolerance).all(), f"{name}: {f} is not {e}"
        elif isinstance(g, np.ndarray):
            assert_array_equal(f, g)
        if isinstance(f, np.ndarray) and layout is strided:
            assert (f.base[..., ::2] == 1).all()


@pytest.mark.parametrize("name", [n for n in KERNELS if n in arguments("float64", 1, 1, 0, 1.0)])
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [("float32", np.array), ("float32", strided), ("float64", np.asfortranarray)],
)
@given(
    shape=st.tuples(st.integers(0, 17), st.integers(1, 33)),
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1e-3, 1.0, 30.0, 1e3]),
)
def test_twin_agrees_with_the_reference(name, dtype, layout, shape, seed, magnitude):
    if name == "matmul":  # Numba writes products in C order only; their factors are transposed
        layout = np.array
    for k in (reference, cpu):
        given = arguments(dtype, *shape, seed, magnitude)[name]
        compare(name, getattr(k, name), dtype, layout, given)


# --- planted bugs ---------------------------------------------------------------------------------


def dkl_times_std(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    reference.sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar)
    dlogvar += kl_scale * np.expm1(logvar) / 2 * (np.exp(logvar / 2) - 1)


def clamp_forgotten(dz, mu, logvar, *rest):
    logvar = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    reference.sample_gaussian_backward(dz, mu, logvar, *rest)


def log_2_pi_forgotten(mean, s, x, mask, scale, nll, *gradients):
    reference.gaussian_nll(mean, s, x, mask, scale, nll, *gradients)
    nll -= math.log(2 * math.pi) / 2 * x.shape[1]


def input_overwritten(mu, logvar, eps, z, kl):
    reference.sample_gaussian(mu, logvar, eps, z, kl)
    logvar /= 2


def remainder_forgotten(x):
    reference.threshold(x[:, :8])


def twin(name, k):
    compare(name, getattr(k, name), "float32", np.array, arguments("float32", 3, 9)[name])


@pytest.mark.parametrize(
    ("name", "bug", "test", "setting"),
    [
        ("sample_gaussian_backward", dkl_times_std, test_posterior_gradients, 0.0),
        ("sample_gaussian_backward", clamp_forgotten, test_beyond_the_bound_of_logvar, 40.0),
        ("gaussian_nll", log_2_pi_forgotten, test_gaussian_value, 0.7),
        ("sample_gaussian", input_overwritten, twin, "sample_gaussian"),
        ("threshold", remainder_forgotten, twin, "threshold"),
    ],
)
def test_planted_bug_is_noticed(name, bug, test, setting):
    with pytest.raises(AssertionError):
        test(setting, k=SimpleNamespace(**{**vars(reference), name: bug}))
