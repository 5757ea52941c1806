"""Likelihoods: values by SciPy, gradients, what is not observed, means and draws."""

import numpy as np
import pytest
from kernel_calls import bernoulli, check, draw, gaussian, normals
from moments import check_moments
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

NLL = pytest.mark.parametrize("nll", [bernoulli, gaussian])


def masked(x, seed=2):
    """x with NaN where it is not observed, and 1 or 0 for that."""
    observed = (normals(*x.shape, seed=seed) > -0.5).astype(x.dtype)
    return np.where(observed == 1, x, np.nan), observed


def inputs(nll, *shape):
    return [normals(*shape)] if nll is bernoulli else [normals(*shape), np.array([-0.6])]


# --- values and gradients -------------------------------------------------------------------------


def test_bernoulli_value(k):
    logits, x = 5 * normals(6, 9), (normals(6, 9, seed=1) > 0).astype(float)
    expected = -stats.bernoulli.logpmf(x, special.expit(logits))
    assert_allclose(bernoulli(k, logits, x)[0], expected.sum(axis=1), rtol=1e-13)
    holes, observed = masked(x)
    expected = (expected * observed).sum(axis=1)
    assert_allclose(bernoulli(k, logits, holes, observed)[0], expected, rtol=1e-13)
    grey = special.expit(normals(6, 9, seed=2))
    expected = -grey * special.log_expit(logits) - (1 - grey) * special.log_expit(-logits)
    assert_allclose(bernoulli(k, logits, grey)[0], expected.sum(axis=1), rtol=1e-13)


@pytest.mark.parametrize("noise_logvar", [0.7, -3.0])
def test_gaussian_value(noise_logvar, k):
    mean, x, s = normals(6, 9), normals(6, 9, seed=1), np.array([noise_logvar])
    expected = -stats.norm.logpdf(x, mean, np.exp(s / 2))
    assert_allclose(gaussian(k, mean, s, x)[0], expected.sum(axis=1), rtol=1e-13)
    holes, observed = masked(x)
    expected = (expected * observed).sum(axis=1)
    assert_allclose(gaussian(k, mean, s, holes, observed)[0], expected, rtol=1e-13)


@pytest.mark.parametrize("holes", [False, True])
@NLL
def test_gradients(nll, holes, k):
    """The gradients that come with the values are scale times those of sum(nll)."""
    scale, x = 0.37, special.expit(normals(4, 5, seed=1))
    x, observed = masked(x, seed=4) if holes else (x, None)
    check(
        k,
        lambda *inputs: nll(k, *inputs, x, observed)[0],
        lambda *inputs_dnll: nll(k, *inputs_dnll[:-1], x, observed, scale)[1:],
        inputs(nll, 4, 5),
        [np.full(4, scale)],
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@NLL
def test_what_is_not_observed_counts_for_nothing(nll, dtype, k):
    """Whatever is there: NaN, infinity or a number give the same bits."""
    given = [value.astype(dtype) for value in inputs(nll, 6, 33)]
    x, observed = masked(special.expit(normals(6, 33, seed=1)).astype(dtype))
    known = nll(k, *given, np.where(observed == 1, x, 0), observed)
    for other in (np.nan, np.inf, 0.3):
        found = nll(k, *given, np.where(observed == 1, x, other).astype(dtype), observed)
        for one, two in zip(found, known, strict=True):
            assert_array_equal(one, two)
    assert (known[1][observed == 0] == 0).all()
    nothing = nll(k, *given, x, np.zeros_like(x))
    assert all((part == 0).all() for part in nothing)
    everything = nll(k, *given, np.nan_to_num(x), np.ones_like(x))
    for one, two in zip(everything, nll(k, *given, np.nan_to_num(x)), strict=True):
        assert_allclose(one, two, rtol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@NLL
def test_without_a_gradient_the_value_is_the_same(nll, dtype, k):
    given = [value.astype(dtype) for value in inputs(nll, 6, 33)]
    x, observed = masked(special.expit(normals(6, 33, seed=1)).astype(dtype))
    for x_, observed_ in ((np.nan_to_num(x), None), (x, observed)):
        found = np.full(6, np.nan, dtype)
        gradients = [None] if nll is bernoulli else [None, None]
        getattr(k, f"{nll.__name__}_nll")(*given, x_, observed_, 1.0, found, *gradients)
        expected = nll(k, *given, x_, observed_)[0]
        assert_allclose(found, expected, rtol=100 * np.finfo(dtype).eps)


def test_large_logits_give_finite_nll_and_p_minus_x(k):
    logits = np.tile(np.float32([1e3, 1e3, -1e3, -1e3]), (2, 9))
    x = np.tile(np.float32([0, 1, 0, 1]), (2, 9))
    nll, dlogits = bernoulli(k, logits, x)
    assert_array_equal(nll, [18e3] * 2)
    assert_array_equal(dlogits, np.tile([1, 0, 0, -1], (2, 9)))


def test_a_result_may_replace_what_it_is_of(k):
    y, x = draw(k, "normal", (5, 33), np.float32), np.ones((5, 33), np.float32)
    nll, s, ds = np.empty(5, np.float32), np.float32([0.3]), np.empty(5, np.float32)
    eps = draw(k, "normal", (5, 33), np.float32, seed=8)
    for kernel in (
        lambda y, out: k.bernoulli_nll(y, x, None, 1.0, nll, out),
        lambda y, out: k.gaussian_nll(y, s, x, None, 1.0, nll, out, ds),
        lambda y, out: k.bernoulli_mean(y, out),
        lambda y, out: k.gaussian_draw(y, s, eps, out),
    ):
        apart, together = np.empty_like(y), y.copy()
        kernel(y, apart)
        kernel(together, together)
        assert_array_equal(together, apart)


def test_nan_stays_nan(k):
    good, bad = np.ones((2, 33), np.float32), np.ones((2, 33), np.float32)
    bad[1, 7] = np.nan
    s = np.float32([0.3])
    for first, second in [(bad, good), (good, bad)]:
        for nll, gradient, *_ in (bernoulli(k, first, second), gaussian(k, first, s, second)):
            assert_array_equal(np.isnan(gradient), np.isnan(bad))
            assert_array_equal(np.isnan(nll), [False, True])
    for kernel in (k.bernoulli_mean, lambda y, out: k.gaussian_draw(y, s, good, out)):
        out = np.empty_like(bad)
        kernel(bad, out)
        assert_array_equal(np.isnan(out), np.isnan(bad))


# --- draws ----------------------------------------------------------------------------------------


def draw_bernoulli(k, parameter, shape):
    x = np.full(shape, parameter, np.float32)
    k.bernoulli_mean(x, x)
    k.random_binarize(x, 7, 3, 2, 5)
    return x, stats.bernoulli(special.expit(parameter))


def draw_gaussian(k, parameter, shape):
    eps, s = draw(k, "normal", shape, np.float32), np.float32([-0.8])
    x = np.full(shape, parameter, np.float32)
    k.gaussian_draw(x, s, eps, x)
    return x, stats.norm(parameter, np.exp(-0.4))


DRAWS = {"bernoulli": draw_bernoulli, "gaussian": draw_gaussian}


@pytest.mark.parametrize("likelihood", DRAWS)
def test_draws_have_the_moments(likelihood, k):
    for parameter in (-1.5, 0.25, 2.0):
        x, distribution = DRAWS[likelihood](k, parameter, (500, 100))
        check_moments(x.astype(float), distribution)
        if likelihood != "bernoulli":
            assert stats.kstest(x.ravel(), distribution.cdf).pvalue > 1e-4


def test_means(k):
    logits = 5 * normals(6, 9)
    mean = np.empty_like(logits)
    k.bernoulli_mean(logits, mean)
    assert_allclose(mean, special.expit(logits), rtol=1e-14)
    ends, mean = np.float32([[-np.inf, -1e3, 1e3, np.inf]]), np.empty((1, 4), np.float32)
    k.bernoulli_mean(ends, mean)
    assert_array_equal(mean, [[0, 0, 1, 1]])
