"""Random numbers from Philox to normals, on both sides; and what only the compiled side has: its
scalar formulas over their whole range and at special values, the join of its threads, its cache.
"""

import math
import threading
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import special, stats

from minivae.kernels import ACTIVATIONS, SIGMOID, cpu, formulas, native, reference

BOTH = pytest.mark.parametrize("k", [reference, cpu], ids=["reference", "cpu"])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = """
00000000 00000000 00000000 00000000 00000000 00000000   6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff   408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0   d16cfe09 94fdcceb 5001e420 24126ea1
"""


def draw(k, kind, shape, dtype=np.float64, seed=7, stream=1, step=2, first_row=0):
    """A new array from random_words, random_uniform or random_normal."""
    out = np.zeros(shape, np.uint32 if kind == "words" else dtype)
    getattr(k, f"random_{kind}")(seed, stream, step, first_row, out)
    return out


# --- Philox ---------------------------------------------------------------------------------------


def check_known_answers(lines):
    for line in lines:
        words = [int(word, 16) for word in line.split()]
        counter, key, expected = words[:4], words[4:6], words[6:]
        assert reference.philox(counter, key).tolist() == expected
        assert list(formulas.philox(*map(np.uint64, counter + key))) == expected


def test_philox_gives_the_known_answers():
    check_known_answers(KNOWN_ANSWERS.split("\n")[1:4])


def test_philox_gives_the_known_answers_of_the_file(data_dir):
    lines = (data_dir / "random123_kat_vectors.txt").read_text().splitlines()
    start = "philox4x32 10 "
    lines = [line.removeprefix(start) for line in lines if line.startswith(start)]
    assert len(lines) == 3
    check_known_answers(lines)


words32 = st.integers(0, 2**32 - 1)


@given(
    seed=st.integers(0, 2**63 - 1),
    stream=words32,
    step=words32,
    first_row=st.integers(0, 2**32 - 5) | st.just(2**32 - 5),
    columns=st.integers(1, 16),
)
def test_words_are_philox_at_the_documented_counter(seed, stream, step, first_row, columns):
    rows, blocks = np.mgrid[first_row : first_row + 5, 0:4]
    words = reference.philox((blocks, rows, step, stream), (seed % 2**32, seed // 2**32))
    expected = np.moveaxis(words, 0, 2).reshape(5, 16)[:, :columns]  # (4, 5, 4) -> (5, 16)
    where = seed, stream, step, first_row
    for k in (reference, cpu):
        assert_array_equal(draw(k, "words", (5, columns), None, *where), expected)


# --- draws ----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("kind", ["words", "uniform", "normal"])
@pytest.mark.parametrize("columns", [3, 8, 13, 14])
def test_a_draw_does_not_depend_on_what_is_drawn_with_it(k, kind, columns):
    whole = draw(k, kind, (6, 17))
    assert_array_equal(draw(k, kind, (6, columns)), whole[:, :columns])
    rows = [draw(k, kind, (1, 17), first_row=i) for i in range(6)]
    assert_array_equal(np.concatenate(rows), whole)


@BOTH
@DTYPES
def test_a_draw_fills_any_layout(k, dtype):
    wide, slices = draw(k, "normal", (6, 17), dtype), np.zeros((2, 34, 6), dtype)
    k.random_normal(7, 1, 2, 0, slices[0, ::2].T)
    assert_array_equal(slices[0, ::2].T, wide)
    assert not slices[0, 1::2].any() and not slices[1].any()


def test_uniforms_are_the_same_on_every_machine_and_in_every_dtype():
    exact = draw(reference, "uniform", (1000, 101))
    assert exact.min() > 0
    assert exact.max() < 1
    for k in (reference, cpu):
        for dtype in (np.float32, np.float64):
            assert_array_equal(draw(k, "uniform", (1000, 101), dtype), exact)


@DTYPES
def test_the_extreme_words_stay_inside_0_and_1(dtype):
    ends = [formulas.uniform(np.uint64(word)) for word in (0, 2**32 - 1)]
    assert ends == [2.0**-24, 1 - 2.0**-24]
    assert all(0 < dtype(end) < 1 for end in ends)


@DTYPES
def test_normals_are_the_same_on_both_machines(dtype):
    """3e-7 relative of log, halved by the square root, and of cos or sin (below); 3 roundings."""
    exact = draw(reference, "normal", (1000, 101))
    tolerance = {np.float32: 4.5e-7 + 3 * 2**-24, np.float64: 8 * 2**-52}[dtype]
    for k in (reference, cpu):
        found = draw(k, "normal", (1000, 101), dtype)
        assert found.dtype == dtype
        assert (abs(found - exact) <= tolerance * abs(exact)).all()


N = 100_000


def check_moments(values, distribution):
    """Mean to fourth moment within 4 standard errors, and Kolmogorov-Smirnov."""
    for power in (1, 2, 3, 4):
        mean, square = distribution.moment(power), distribution.moment(2 * power)
        assert abs(np.mean(values**power) - mean) < 4 * math.sqrt((square - mean**2) / values.size)
    assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 1e-4


@BOTH
@DTYPES
def test_draws_have_their_distributions(k, dtype):
    check_moments(draw(k, "uniform", (1000, 100), dtype).astype(float), stats.uniform())
    check_moments(draw(k, "normal", (1000, 100), dtype).astype(float), stats.norm())


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_neighbours_are_independent(kind):
    """Neighbouring columns, rows, steps, streams and seeds: no correlation, nor of squares."""
    base = draw(reference, kind, (1001, 101))
    neighbours = [base[:-1, 1:], base[1:, :-1]]
    for other in ({"step": 3}, {"stream": 2}, {"seed": 8}, {"seed": 7 + 2**32}):
        neighbours.append(draw(reference, kind, (1001, 101), **other)[:-1, :-1])
    for neighbour in neighbours:
        for power in (1, 2):
            pair = base[:-1, :-1].ravel() ** power, neighbour.ravel() ** power
            assert abs(np.corrcoef(*pair)[0, 1]) < 4 / math.sqrt(N)


def check_posterior_std(k):
    """(z - mu) / exp(logvar / 2) has mean 0 and std 1 within 4 standard errors."""
    eps = draw(k, "normal", (1000, 100), np.float32)
    mu = np.tile(np.linspace(-3, 3, 100, dtype=np.float32), (1000, 1))
    logvar, z, kl = mu[::-1, ::-1] * 2, np.empty_like(mu), np.empty(1000, np.float32)
    k.sample_gaussian(mu, logvar, eps, z, kl)
    ratio = (z - mu) / np.exp(logvar / 2)
    assert abs(ratio.mean()) < 4 / math.sqrt(N)
    assert abs(ratio.std() - 1) < 4 / math.sqrt(2 * N)


@BOTH
def test_posterior_std(k):
    check_posterior_std(k)


def test_planted_half_std_is_noticed():
    def half_std(mu, logvar, eps, z, kl):
        reference.sample_gaussian(mu, logvar, eps / 2, z, kl)

    with pytest.raises(AssertionError):
        check_posterior_std(SimpleNamespace(**{**vars(reference), "sample_gaussian": half_std}))


@BOTH
@DTYPES
def test_binarize_has_mean_p(k, dtype):
    """p is the sigmoid of logits, as pixels are sampled; 0 stays 0 and 1 stays 1."""
    p = np.array([[-np.inf, -4, -1, 0, 0.5, 2, np.inf]], dtype)
    k.bias_activation(p, np.zeros(7, dtype), SIGMOID)
    x = np.repeat(p, N // 10, axis=0)
    k.random_binarize(x, 7, 3, 2, 5)
    u = draw(reference, "uniform", x.shape, dtype, stream=3, first_row=5)
    assert_array_equal(x, u < p)
    p = special.expit([-np.inf, -4, -1, 0, 0.5, 2, np.inf])
    assert (abs(x.mean(axis=0, dtype=float) - p) <= 4 * np.sqrt(p * (1 - p) / len(x))).all()


# --- formulas of the compiled side ----------------------------------------------------------------


@formulas.jit
def cosine(u):
    return formulas.turn(u)[0]


@formulas.jit
def sine(u):
    return formulas.turn(u)[1]


UNIT = np.linspace(0, 1, 200_001)
UNIFORM = UNIT[1:] - 2.5e-6  # as uniforms, none at a quarter, where cos or sin is 0
SMALL, POSITIVE = np.geomspace(1e-37, 1, 200_000), np.geomspace(1.2e-38, 3.4e38, 200_000)
WHOLE = np.r_[-SMALL, SMALL, np.linspace(-86.9, 88.7, 200_000)]  # below -86.98 exp gives 0

# Formula, the same by NumPy or scipy, where, and the largest relative error measured on x86.
FORMULAS = {
    "exp": (formulas.exp, np.exp, WHOLE),  # 1.3e-7
    "log": (formulas.log, np.log, np.r_[POSITIVE, UNIT + 0.5]),  # 2.3e-7
    "log1p_unit": (formulas.log1p_unit, np.log1p, np.r_[SMALL, UNIT]),  # 2.3e-7
    "tanh": (formulas.tanh, np.tanh, WHOLE),  # 2.0e-7
    "sigmoid": (formulas.sigmoid, special.expit, WHOLE),  # 1.8e-7
    "softplus": (formulas.softplus, lambda x: np.logaddexp(0, x), WHOLE),  # 2.7e-7
    "softplus'": (formulas.softplus_derivative, lambda y: -np.expm1(-y), abs(WHOLE)),  # 2.3e-7
    "cos": (cosine, lambda u: np.cos(2 * np.pi * u), UNIFORM),  # 1.5e-7
    "sin": (sine, lambda u: np.sin(2 * np.pi * u), UNIFORM),  # 1.5e-7
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_in_float32_over_its_whole_range(name):
    formula, exact, x = FORMULAS[name]

    @formulas.jit
    def loop(x, out):
        for i in range(x.size):
            out[i] = formula(x[i])

    x = x.astype(np.float32)
    found, expected = np.empty_like(x), exact(x.astype(np.float64))
    loop(x, found)
    assert (abs(found - expected) <= 3e-7 * abs(expected)).all()  # the bound in formulas.py


@BOTH
def test_large_logits_give_finite_nll_and_p_minus_x(k):
    logits = np.tile(np.float32([1e3, 1e3, -1e3, -1e3]), (2, 9))
    x = np.tile(np.float32([0, 1, 0, 1]), (2, 9))
    nll, dlogits = np.empty(2, np.float32), np.empty_like(logits)
    k.bernoulli_nll(logits, x, None, 1.0, nll, dlogits)
    assert_array_equal(nll, [18e3] * 2)
    assert_array_equal(dlogits, np.tile([1, 0, 0, -1], (2, 9)))


@BOTH
def test_the_gradient_may_replace_what_it_is_of(k):
    y, x = draw(k, "normal", (5, 33), np.float32), np.ones((5, 33), np.float32)
    nll, s, ds = np.empty(5, np.float32), np.float32([0.3]), np.empty(5, np.float32)
    apart, together = np.empty_like(y), y.copy()
    k.bernoulli_nll(y, x, None, 1.0, nll, apart)
    k.bernoulli_nll(together, x, None, 1.0, nll, together)
    assert_array_equal(together, apart)
    together = y.copy()
    k.gaussian_nll(y, s, x, None, 1.0, nll, apart, ds)
    k.gaussian_nll(together, s, x, None, 1.0, nll, together, ds)
    assert_array_equal(together, apart)


@BOTH
def test_nan_stays_nan(k):
    good, bad = np.ones((2, 33), np.float32), np.ones((2, 33), np.float32)
    bad[1, 7] = np.nan
    for code in range(len(ACTIVATIONS)):
        y = bad.copy()
        k.bias_activation(y, good[0], code)
        assert_array_equal(np.isnan(y), np.isnan(bad))
    for first, second in [(bad, good), (good, bad)]:
        z, rows = np.empty_like(good), np.empty(2, np.float32)
        k.sample_gaussian(first, second, good, z, rows)
        assert_array_equal(np.isnan(z), np.isnan(bad))
        assert_array_equal(np.isnan(rows), [False, True])
        k.bernoulli_nll(first, second, None, 1.0, rows, z)
        assert_array_equal(np.isnan(z), np.isnan(bad))
        assert_array_equal(np.isnan(rows), [False, True])


@BOTH
def test_threshold_is_one_from_a_half(k):
    x = np.array([[0, 0.25, np.nextafter(np.float32(0.5), 0), 0.5, 1]], np.float32)
    k.threshold(x)
    assert_array_equal(x, [[0, 0, 0, 1, 1]])


@BOTH
@pytest.mark.parametrize("source", [np.uint8, np.float32, np.float64])
def test_gather_repeats_rows_and_converts(k, source):
    data, x = np.array([[0, 255], [1, 2], [3, 4]], source), np.empty((4, 2), np.float32)
    k.gather(data, np.array([2, 2, 0, 1]), x)
    assert_array_equal(x, [[3, 4], [3, 4], [0, 255], [1, 2]])


# --- threads and cache of the compiled side -------------------------------------------------------


@BOTH
def test_totals_are_added_in_float64(k):
    values, totals = np.full(1000, np.float32(0.1)), np.array([1e9, 0.0])
    k.add_totals(values, 2 * values, totals)
    # In float32 each 0.1 behind 1e9 would be lost. 1000 roundings, each by half the last digit.
    exact = 1000 * float(np.float32(0.1))
    assert abs(totals - [1e9 + exact, 2 * exact]).max() < 1000 * 2**-53 * 1e9


@numba.njit(nogil=True)
def march(barrier, workers, worker, slots, seen):
    """Each writes its step, waits for all, and counts those that are at the same step."""
    for step in range(seen.size):
        slots[worker] = step
        cpu.join(barrier, workers)
        seen[step] = (slots == step).sum()
        cpu.join(barrier, workers)  # nobody writes the next step before all have read


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_join_keeps_threads_in_step(workers):
    steps, barrier = 500, np.zeros(3, np.int64)
    slots, seen = np.zeros(workers, np.int64), np.zeros((workers, steps), np.int64)
    march(np.zeros(3, np.int64), 1, 0, slots[:1], seen[0, :0])  # compiled before threads start
    threads = [
        threading.Thread(target=march, args=(barrier, workers, i, slots, seen[i]), daemon=True)
        for i in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the threads wait for each other"
    assert (seen == workers).all()
    assert barrier.tolist() == [0, 2 * steps * (workers > 1), 0]


def test_a_change_of_any_kernel_file_is_a_new_cache_entry(monkeypatch, tmp_path):
    assert cpu.matmul.py_func.__qualname__ == f"matmul_{native.DIGEST}"
    assert native._digest() == native.DIGEST
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    digests = set()
    for name, text in [("cpu.py", "1"), ("formulas.py", "1"), ("formulas.py", "2")]:
        (tmp_path / name).write_text(text)
        digests.add(native._digest())
    assert len(digests) == 3


def test_without_a_place_for_a_cache_it_compiles_in_memory():
    names = {}
    exec(compile("def double(x): return x + x", "no_such_folder/kernel.py", "exec"), names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["double"])
    double = native.compiled(names["double"])
    assert double(21) == 42
    assert double.stats.cache_path is None
