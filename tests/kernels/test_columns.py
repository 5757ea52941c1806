"""Tables: every kind of column by SciPy, gradients, what is not observed, means and draws."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from kernel_calls import check, draw, mixed, normals
from moments import check_moments
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from minivae.kernels import (
    BINARY,
    BOUNDED,
    CATEGORY,
    COUNT,
    GREY,
    KINDS,
    LOG_RATE_BOUND,
    LOGVAR_BOUND,
    REAL,
)

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
GROUPS = np.array([
    (REAL, 0, 2), (BOUNDED, 2, 4), (GREY, 4, 7), (BINARY, 7, 9), (COUNT, 9, 12),
    (CATEGORY, 12, 15), (CATEGORY, 15, 17), (CATEGORY, 17, 18),
])  # fmt: skip
B, D, R = 4, 18, 4
LOGITS = [0, 1e-6, 1e-3, 0.1, 3, 40, -40, -0.1]  # of grey values


def table(dtype="float64", seed=0):
    """y, s, groups, units, x, observed; x is NaN where it is not observed."""
    rng, y = np.random.default_rng(seed), normals(B, D, seed=seed)
    x, units = normals(B, D, seed=seed + 1), normals(3, D, seed=seed + 2)
    observed = (normals(B, D, seed=seed + 3) > -0.5).astype(dtype)
    observed[0, ::2] = 0
    x[:, 2:7], x[:, 7:9], x[:, 9:12] = rng.random((B, 5)), x[:, 7:9] > 0, rng.poisson(3, (B, 3))
    for kind, first, last in GROUPS:
        if kind == CATEGORY:
            x[:, first:last] = np.eye(last - first)[rng.integers(0, last - first, B)]
            units[:2, first:last] = 0
            observed[:, first:last] = observed[:, first : first + 1]
    x = np.where(observed == 1, x, np.nan)
    return (*(a.astype(dtype) for a in (y, normals(R, seed=5))), GROUPS,
            *(a.astype(dtype) for a in (units, x)), observed)  # fmt: skip


def column(kind, y, s=-0.6, dtype="float64", shift=0.0):
    """y, s, groups, units of rows that are one column (of a category: one variable)."""
    y = np.array(y, dtype).reshape(len(y), -1)
    units = np.zeros((3, y.shape[1]), dtype)
    units[2] = shift
    noise = np.full(y.shape[1] if kind in (REAL, BOUNDED) else 0, s, dtype)
    return y, noise, np.array([(kind, 0, y.shape[1])]), units


def probability(k, kind, y, x, **how):
    """p(x | y) of each row."""
    y, s, groups, units = column(kind, y, **how)
    return np.exp(-mixed(k, y, s, groups, units, np.array(x, y.dtype).reshape(y.shape))[0])


def mean(k, kind, y, **how):
    y, _, groups, units = column(kind, y, **how)
    result = np.empty_like(y)
    k.mixed_mean(y, groups, units, result)
    return result[:, 0] if y.shape[1] == 1 else result


def draws(k, kind, y, noise, **how):
    """Draws for noise (n, columns) of one kind, all with the same y, a number or one per column."""
    y, s, groups, units = column(kind, np.broadcast_to(y, noise.shape), **how)
    x = noise.astype(y.dtype)
    k.mixed_draw(y, s, groups, units, x)
    return x


def grey(y):
    """The distribution of a grey value, or of one minus it where y > 0: SciPy's exponential cut off
    at 1; uniform for y = 0."""
    return stats.truncexpon(abs(y), scale=1 / abs(y)) if y else stats.uniform()


# --- values ---------------------------------------------------------------------------------------


def expected_nll(y, s, groups, units, x):
    """-ln p of every column by SciPy; of a category it is in the column that is 1."""
    nll = np.empty(y.shape)
    for kind, first, last in groups:
        for j in range(first, last):
            a, t = y[:, j], x[:, j]
            if kind in (REAL, BOUNDED):
                center = a if kind == REAL else special.expit(a)
                nll[:, j] = -stats.norm.logpdf(t, center, np.exp(s[j] / 2))
            elif kind == GREY:
                turned = np.where(a < 0, t, 1 - t)
                nll[:, j] = [-grey(b).logpdf(value) for b, value in zip(a, turned, strict=True)]
            elif kind == BINARY:
                nll[:, j] = -stats.bernoulli.logpmf(t, special.expit(a))
            elif kind == COUNT:
                nll[:, j] = -stats.poisson.logpmf(t, np.exp(a + units[2, j]))
            else:
                nll[:, j] = -t * special.log_softmax(y[:, first:last], axis=1)[:, j - first]
    return nll + units[0] + units[1] * x


def test_values(k):
    y, s, groups, units, holes, observed = table()
    assert len(KINDS) == 6 and set(groups[:, 0]) == set(range(6))
    *_, x, _ = table(seed=0)
    x = np.where(np.isnan(x), 0, x)
    for first, last in GROUPS[5:, 1:]:  # a row of zeros is no category
        x[:, first] = 1 - x[:, first + 1 : last].sum(axis=1)
    expected = expected_nll(y, s, groups, units, x)
    found = mixed(k, y, s, groups, units, x)[0]
    assert_allclose(found, expected.sum(axis=1), rtol=1e-12)
    found = mixed(k, y, s, groups, units, holes, observed)[0]
    assert_allclose(found, np.where(observed == 1, expected, 0).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("y", LOGITS)
def test_a_grey_density_has_mass_1_and_its_mean(y, k):
    """By Gauss and Legendre's rule, which 60 points make exact to rounding for e^(40 x)."""
    points, weights = np.polynomial.legendre.leggauss(60)
    x, weights = (points + 1) / 2, weights / 2
    p = probability(k, GREY, np.full(60, y), x)
    assert_allclose(weights @ p, 1, rtol=1e-13)
    assert_allclose(weights @ (p * x), mean(k, GREY, [y])[0], rtol=1e-12)
    assert_allclose(p[:1], grey(y).pdf(x[:1] if y < 0 else 1 - x[:1]), rtol=1e-12)


@DTYPES
def test_grey_values_are_exact_on_both_sides_of_the_switch(dtype, k):
    """Against 50 digits: ln((e^y - 1) / y) to 4 eps of its terms, the mean and the gradient too."""
    eps = np.finfo(dtype).eps
    sizes = [0, 1e-30, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.9, 1 - eps, 1, 1 + 2 * eps, 1.1, 2, 9, 40]
    y = np.array([sign * size for size in sizes for sign in (1, -1)], dtype)
    value, slope = np.empty(y.shape), np.empty(y.shape)
    with localcontext() as context:
        context.prec = 80
        for i, given in enumerate(map(Decimal, y.tolist())):
            grown = given.exp() - 1
            value[i] = (grown / given).ln() if given else 0
            slope[i] = (1 + 1 / grown - 1 / given) if given else Decimal("0.5")
    y, s, groups, units = column(GREY, y, dtype=dtype)
    x = np.full_like(y, 0.25)
    nll, dy, _ = mixed(k, y, s, groups, units, x)
    assert (abs(nll - (value - y[:, 0] / 4)) <= 4 * eps * (1 + abs(y[:, 0]))).all()
    assert (abs(dy[:, 0] - (slope - 0.25)) <= 4 * eps).all()
    assert (abs(mean(k, GREY, y, dtype=dtype) - slope) <= 4 * eps).all()


def test_probabilities_sum_to_1(k):
    y = 3 * normals(5, 4)
    p = np.stack([probability(k, CATEGORY, y, np.eye(4)[[c] * 5]) for c in range(4)], axis=1)
    assert_allclose(p.sum(axis=1), 1, rtol=1e-14)
    assert_allclose(p, mean(k, CATEGORY, y), rtol=1e-13)
    for logit in (-3.0, 0.4):
        p = probability(k, BINARY, [logit, logit], [0, 1])
        assert_allclose([p.sum(), p[1]], [1, mean(k, BINARY, [logit])[0]], rtol=1e-14)
        x = np.arange(60)  # the rate is 1.5 at most
        p = probability(k, COUNT, np.full(60, logit), x, shift=0.5)
        assert_allclose(p.sum(), 1, rtol=1e-13)
        assert_allclose(p @ x, mean(k, COUNT, [logit], shift=0.5)[0], rtol=1e-13)


def test_means(k):
    y = normals(5)
    assert_array_equal(mean(k, REAL, y), y)
    assert_allclose(mean(k, BOUNDED, y), special.expit(y), rtol=1e-14)
    assert_allclose(mean(k, COUNT, [50.0, 1e4]), math.exp(LOG_RATE_BOUND), rtol=1e-14)
    assert_allclose(mean(k, GREY, [-1e4, 1e4]), [1e-4, 1 - 1e-4], rtol=1e-13)


def test_units_are_added_and_have_no_gradient(k):
    """ln p of a column that was divided by its scale, in the data's own units."""
    y, s, groups, units, x, observed = table()
    plain = units.copy()
    plain[:2] = 0
    nll, *gradients = mixed(k, y, s, groups, units, x, observed)
    without, *same = mixed(k, y, s, groups, plain, x, observed)
    extra = np.where(observed == 1, units[0] + units[1] * x, 0).sum(axis=1)
    assert_allclose(nll - without, extra, atol=1e-12)
    for one, two in zip(gradients, same, strict=True):
        assert_array_equal(one, two)
    own, scale = 7.3, 2.5
    standard = probability(k, REAL, [0.3], [own / scale], s=-1.0)
    expected = stats.norm.pdf(own, 0.3 * scale, math.exp(-0.5) * scale)
    y, s, groups, units = column(REAL, [0.3], s=-1.0)
    units[0] = math.log(scale)
    nll = mixed(k, y, s, groups, units, np.array([[own / scale]]))[0]
    assert_allclose([math.exp(-nll[0]), standard[0] / scale], expected, rtol=1e-13)


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", [False, True])
def test_gradients(holes, k):
    """Those that come with the values are scale times those of sum(nll)."""
    y, s, groups, units, x, observed = table()
    x, observed, scale = (x, observed, 0.37) if holes else (np.nan_to_num(x), None, 0.37)
    for first, last in GROUPS[5:, 1:] if not holes else ():  # a row of zeros is no category
        x[:, first] = 1 - x[:, first + 1 : last].sum(axis=1)
    y[:, 4:7] *= 2  # grey values on both sides of the switch

    def backward(y, s, dnll):
        _, dy, ds = mixed(k, y, s, groups, units, x, observed, scale)
        return dy, ds.sum(axis=0)

    check(k, lambda y, s: mixed(k, y, s, groups, units, x, observed)[0], backward, [y, s],
          [np.full(B, scale)])  # fmt: skip


def test_a_rate_beyond_the_bound_is_pulled_back(k):
    """exp goes on as its tangent: the value is smooth there, and has its own gradient beyond."""
    y, s, groups, units = column(COUNT, [29.0, 30.5, 35.0, -60.0], shift=0.25)
    x = np.array([[0.0], [7], [2], [3]])

    def nll(y):
        return mixed(k, y, s, groups, units, x)[0]

    check(k, nll, lambda y, dnll: [dnll[:, None] * mixed(k, y, s, groups, units, x)[1]], [y])
    assert_allclose(mixed(k, y, s, groups, units, x)[1][1:3, 0], math.exp(30), rtol=1e-12)
    assert_allclose(nll(y)[3], 3 * 59.75 + math.log(6), rtol=1e-14)


def test_a_noise_beyond_the_bound_is_held(k):
    for bound in (LOGVAR_BOUND, -LOGVAR_BOUND):
        inside, outside = (
            mixed(k, *column(REAL, [0.1], s=s), np.array([[0.3]])) for s in (bound, 2 * bound)
        )
        assert_array_equal(outside[0], inside[0])
        assert_array_equal(outside[1], inside[1])
        assert inside[2][0, 0] != 0 and outside[2][0, 0] == 0


# --- what is not observed, and ends ---------------------------------------------------------------


@DTYPES
def test_what_is_not_observed_counts_for_nothing(dtype, k):
    """Whatever is there gives the same bits; of a category the first column says it."""
    y, s, groups, units, x, observed = table(dtype)
    nll, dy, ds = mixed(k, y, s, groups, units, np.nan_to_num(x), observed)
    assert (dy[observed == 0] == 0).all() and (ds[observed[:, :R] == 0] == 0).all()
    for other in (np.nan, np.inf, -7):
        junk = np.where(observed == 1, x, np.array(other, dtype))
        marked = observed.copy()
        for first, last in GROUPS[5:, 1:]:
            marked[:, first + 1 : last] = 1 - marked[:, first + 1 : last]
        for mask in (observed, marked):
            for one, two in zip(mixed(k, y, s, groups, units, junk, mask), (nll, dy, ds),
                                strict=True):  # fmt: skip
                assert_array_equal(one, two)
    nothing = mixed(k, y, s, groups, units, x, np.zeros_like(x))
    assert all((part == 0).all() for part in nothing)


@DTYPES
def test_without_a_gradient_the_value_is_the_same(dtype, k):
    y, s, groups, units, x, observed = table(dtype)
    for x_, observed_ in ((np.nan_to_num(x), None), (x, observed)):
        nll = np.full(B, np.nan, dtype)
        k.mixed_nll(y, s, groups, units, x_, observed_, 1.0, nll, None, None)
        expected = mixed(k, y, s, groups, units, x_, observed_)[0]
        assert_allclose(nll, expected, rtol=100 * np.finfo(dtype).eps)


@DTYPES
def test_a_result_may_replace_what_it_is_of(dtype, k):
    y, s, groups, units, x, observed = table(dtype)
    nll, ds = np.empty(B, dtype), np.empty((B, R), dtype)
    for kernel in (
        lambda y, out: k.mixed_nll(y, s, groups, units, x, observed, 0.5, nll, out, ds),
        lambda y, out: k.mixed_mean(y, groups, units, out),
    ):
        apart, together = np.empty_like(y), y.copy()
        kernel(y, apart)
        kernel(together, together)
        assert_array_equal(together, apart)


def test_extreme_values_are_finite_in_float32(k):
    y, s, groups, units, x, _ = table("float32")
    x, u = np.nan_to_num(x), np.full_like(x, 0.25)
    for logit in (1e4, -1e4):
        for noise in (100, -100):
            y[:], s[:] = logit, noise
            y[:, ::2] *= -1
            for part in mixed(k, y, s, groups, units, x, None):
                assert np.isfinite(part).all()
            k.mixed_mean(y, groups, units, out := np.empty_like(y))
            assert np.isfinite(out).all()
            walked = [j for j in range(D) if not 9 <= j < 12 or y[0, j] < 0]  # else 2^16 steps
            y[:, [j for j in range(D) if j not in walked]] = 5
            k.mixed_draw(y, s, groups, units, out := u.copy())
            assert np.isfinite(out).all()
            assert (out[:, 4:9] >= 0).all() and (out[:, 4:9] <= 1).all()


def test_nan_stays_nan(k):
    good = [a.astype("float32") if a.dtype != np.int64 else a for a in table()[:4]]
    x = np.ones((B, D), np.float32)
    for kind, first, last in GROUPS:
        bad, group = good[0].copy(), slice(first, last) if kind == CATEGORY else slice(first, None)
        bad[1, first] = np.nan
        nll, dy, _ = mixed(k, bad, *good[1:], x)
        assert_array_equal(np.isnan(nll), np.arange(B) == 1)
        spoilt = np.isnan(dy)
        assert spoilt[1, first] and (kind != CATEGORY or spoilt[1, group].all())
        assert spoilt.sum() == (last - first if kind == CATEGORY else 1)
        k.mixed_mean(bad, *good[2:], out := np.empty_like(bad))
        assert_array_equal(np.isnan(out), spoilt)


# --- draws ----------------------------------------------------------------------------------------

U = ((np.arange(4096) + 0.5) / 4096).reshape(16, 256)  # float32 holds them exactly


def require_shares(drawn, p):
    """Outcome k is drawn by the u of intervals whose length is p_k: of the uniform grid U, a share
    of p_k up to one point. p: those of 0, 1, ..., all that occur."""
    counts = np.bincount(drawn.ravel().astype(int), minlength=len(p))
    assert len(counts) == len(p)
    assert (abs(counts - U.size * p) <= 1 + 1e-2).all()  # and 4096 roundings of float32


@DTYPES
def test_draws_of_outcomes_have_their_probabilities(dtype, k):
    for y in (-2.0, 0.3):
        p = special.expit(y)
        drawn = draws(k, BINARY, y, U, dtype=dtype)
        require_shares(drawn, np.array([1 - p, p]))
    for y in ([0.3], [1.0, -2, 0.5], [0, -30, 4, 4.5]):
        drawn = draws(k, CATEGORY, y, np.tile(U.reshape(-1, 1), len(y)), dtype=dtype)
        assert set(np.unique(drawn)) <= {0, 1} and (drawn.sum(axis=1) == 1).all()
        require_shares(drawn.argmax(axis=1), special.softmax(y))
    for log_rate in (-1e4, -2.0, 0.7, 3.0):
        rate = math.exp(log_rate + 0.25)
        drawn = draws(k, COUNT, log_rate, U, dtype=dtype, shift=0.25)
        outcomes = np.arange(max(1, 1 + int(drawn.max())))
        require_shares(drawn, stats.poisson.pmf(outcomes, rate))


def test_draws_of_large_counts_have_mean_and_variance(k):
    """Within 4 standard errors; a Poisson variable's fourth central moment is 3 rate^2 + rate."""
    for rate in (1e3, 1e4):
        drawn = draws(k, COUNT, math.log(rate), draw(k, "uniform", (16, 256)))
        assert abs(drawn.mean() - rate) < 4 * math.sqrt(rate / drawn.size)
        assert abs(drawn.var() - rate) < 4 * math.sqrt((2 * rate**2 + rate) / drawn.size)


def test_draws_of_counts_end(k):
    """Also where the probabilities that are left are below rounding, and for absurd rates."""
    u = np.array([[0, 1 - 2.0**-53, 0.999, 0.999]])
    ends = draws(k, COUNT, [3.0, 3.0, 30.0, 400.0], u)[0]
    assert ends[0] == 20 and 20 < ends[1] < 80  # where probabilities are below rounding
    assert (abs(ends[2:] / math.exp(LOG_RATE_BOUND) - 1) < 1e-3).all()


@DTYPES
@pytest.mark.parametrize("y", [*LOGITS, 1e4, -1e4])
def test_draws_of_grey_values_are_the_inverse_of_their_distribution(y, dtype, k):
    """F(x) = u to the rounding of x, which F' magnifies: 16 eps of a density of at most |y| + 1."""
    y = float(np.array(y, dtype))
    x = draws(k, GREY, y, U, dtype=dtype).astype(float).ravel()
    assert ((x >= 0) & (x <= 1)).all() and (np.diff(x) >= 0).all()
    low = x if y < 0 else 1 - x
    below = np.expm1(-abs(y) * low) / np.expm1(-abs(y)) if y else low
    expected = U.ravel() if y < 0 else 1 - U.ravel()
    assert (abs(below - expected) <= 16 * np.finfo(dtype).eps * (abs(y) + 1)).all()


@DTYPES
def test_draws_with_noise_have_the_moments(dtype, k):
    for kind, center in ((REAL, lambda y: y), (BOUNDED, special.expit)):
        for y in (-1.5, 0.25, 2.0):
            x = draws(k, kind, y, draw(k, "normal", (100, 200), dtype), dtype=dtype)
            check_moments(x.astype(float), stats.norm(center(y), math.exp(-0.3)))
