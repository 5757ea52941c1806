"""Random numbers, from Philox to normals and binarised pixels."""

import math

import numpy as np
import pytest
from emulator import EMULATED
from hypothesis import given
from hypothesis import strategies as st
from kernel_calls import draw
from kernel_checks import check_random, hosted_table
from moments import check_moments
from numpy.testing import assert_array_equal
from scipy import special, stats

from minivae.kernels import SIGMOID
from minivae.kernels.random.philox import philox
from minivae.kernels.support import formulas
from minivae.kernels.tables import cpu, reference

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = """
00000000 00000000 00000000 00000000 00000000 00000000   6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff   408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0   d16cfe09 94fdcceb 5001e420 24126ea1
"""


# --- Philox ---------------------------------------------------------------------------------------


def check_known_answers(lines):
    for line in lines:
        words = [int(word, 16) for word in line.split()]
        counter, key, expected = words[:4], words[4:6], words[6:]
        assert philox(counter, key).tolist() == expected
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
    words = philox((blocks, rows, step, stream), (seed % 2**32, seed // 2**32))
    expected = np.moveaxis(words, 0, 2).reshape(5, 16)[:, :columns]  # (4, 5, 4) -> (5, 16)
    where = seed, stream, step, first_row
    for k in (reference, cpu()):
        assert_array_equal(draw(k, "words", (5, columns), None, *where), expected)


# --- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["words", "uniform", "normal"])
@pytest.mark.parametrize("columns", [3, 8, 13, 14])
def test_a_draw_does_not_depend_on_what_is_drawn_with_it(k, kind, columns):
    whole = draw(k, kind, (6, 17))
    assert_array_equal(draw(k, kind, (6, columns)), whole[:, :columns])
    rows = [draw(k, kind, (1, 17), first_row=i) for i in range(6)]
    assert_array_equal(np.concatenate(rows), whole)


@DTYPES
def test_a_draw_fills_any_layout(k, dtype):
    wide, slices = draw(k, "normal", (6, 17), dtype), np.zeros((2, 34, 6), dtype)
    k.random_normal(7, 1, 2, 0, slices[0, ::2].T)
    assert_array_equal(slices[0, ::2].T, wide)
    assert not slices[0, 1::2].any() and not slices[1].any()


@DTYPES
def test_uniforms_are_the_same_on_every_machine_and_in_every_dtype(k, dtype):
    exact = draw(reference, "uniform", (1000, 101))
    assert exact.min() > 0
    assert exact.max() < 1
    assert_array_equal(draw(k, "uniform", (1000, 101), dtype), exact)


@DTYPES
def test_the_extreme_words_stay_inside_0_and_1(dtype):
    ends = [formulas.uniform(np.uint64(word)) for word in (0, 2**32 - 1)]
    assert ends == [2.0**-24, 1 - 2.0**-24]
    assert all(0 < dtype(end) < 1 for end in ends)


@DTYPES
def test_normals_are_the_same_on_every_machine(k, dtype):
    """3e-7 relative of log, halved by the square root, and of cos or sin (test_formulas.py); 3
    roundings. The reference rounds 2 pi u, which near the zeros of cosine is not relative."""
    exact, found = draw(reference, "normal", (1000, 101)), draw(k, "normal", (1000, 101), dtype)
    assert found.dtype == dtype
    tolerance = {np.float32: 4.5e-7 + 3 * 2**-24, np.float64: 8 * 2**-52}[dtype]
    assert (abs(found - exact) <= tolerance * abs(exact) + 40 * 2**-53).all()


@EMULATED
@DTYPES
@pytest.mark.parametrize("sliced", [False, True])
def test_a_device_at_the_corners_of_the_counters(dtype, sliced, device):
    check_random(hosted_table(device, sliced), dtype)


N = 100_000


@DTYPES
@pytest.mark.parametrize(
    ("kind", "distribution"), [("uniform", stats.uniform()), ("normal", stats.norm())]
)
def test_draws_have_their_distributions(k, kind, distribution, dtype):
    values = draw(k, kind, (1000, 100), dtype).astype(float)
    check_moments(values, distribution)
    assert stats.kstest(values.ravel(), distribution.cdf).pvalue > 1e-4


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


def test_threshold_is_one_from_a_half(k):
    x = np.array([[0, 0.25, np.nextafter(np.float32(0.5), 0), 0.5, 1]], np.float32)
    k.threshold(x)
    assert_array_equal(x, [[0, 0, 0, 1, 1]])
