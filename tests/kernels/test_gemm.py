"""Matrix products of the CPU: exact, in parts, and where NaN goes."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minivae.kernels.support import gemm
from minivae.kernels.tables import cpu

matmul = cpu().matmul
rng = np.random.default_rng(0)
lanes = gemm.VECTOR_BYTES // 4
columns = gemm.VECTORS * lanes
# Around every size at which something else happens: tiles, vectors, panels, blocks of the depth.
ROWS = 1, gemm.ROWS - 1, gemm.ROWS + 1, gemm.PANEL_PAYS + 3
COLUMNS = 1, lanes, lanes + 1, columns, columns + 2 * lanes - 1
DEPTHS = 1, lanes, gemm.DEPTH, gemm.DEPTH + 1, 2 * gemm.DEPTH + 5


def matrix(rows, columns, dtype, by_columns=False):
    """Whole numbers of two digits: their products and sums are exact in any order and dtype."""
    a = rng.integers(-99, 100, (columns, rows) if by_columns else (rows, columns)).astype(dtype)
    return a.T if by_columns else a


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("by_columns", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("depth", DEPTHS)
def test_products_are_exact_for_whole_numbers(depth, by_columns, dtype):
    for m in ROWS:
        for n in COLUMNS:
            a = matrix(m, depth, dtype, by_columns[0])
            b = matrix(depth, n, dtype, by_columns[1])
            frame = np.full((m + 2, n + 2), np.nan, dtype)  # nothing beside the result is written
            matmul(a, b, frame[1:-1, 1:-1])
            expected = a.astype(np.int64) @ b.astype(np.int64)  # below 2^24: exact in float32
            assert np.abs(expected).max() < 2**24
            assert_array_equal(frame[1:-1, 1:-1], expected)
            assert np.isnan(frame).sum() == frame.size - expected.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_that_of_one_sum(dtype):
    a, b = rng.normal(size=(33, 700)).astype(dtype), rng.normal(size=(700, 70)).astype(dtype)
    out = np.empty((33, 70), dtype)
    matmul(a, b, out)
    exact = a.astype(np.longdouble) @ b.astype(np.longdouble)
    size = np.abs(a).astype(np.longdouble) @ np.abs(b)
    # A chain of n roundings is off by n eps / 2 of the sum of sizes at most (Higham 2002, 3.1).
    assert (np.abs(out - exact) <= 700 * np.finfo(dtype).eps / 2 * size).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("by_columns", [False, True])
def test_a_part_of_a_product_has_the_bits_of_the_whole(by_columns, dtype):
    """So that results do not depend on the number of threads."""
    a, b = rng.normal(size=(300, 333)).astype(dtype), rng.normal(size=(333, 101)).astype(dtype)
    b = np.asfortranarray(b) if by_columns else b
    whole, part = np.empty((300, 101), dtype), np.empty((300, 101), dtype)
    matmul(a, b, whole)
    for cuts in ([0, 1, 8, 150, 300], [0, 100, 200, 300], [0, 129, 300]):
        part[:] = np.nan
        for first, last in pairwise(cuts):
            matmul(a[first:last], b, part[first:last])
        assert_array_equal(part, whole)
    transposed = np.ascontiguousarray(a.T).T
    matmul(transposed, b, part)
    assert_array_equal(part, whole)


def test_infinity_and_nan_stay_in_their_rows_and_columns():
    a, b = np.ones((20, 40), "f4"), np.ones((40, 60), "f4")
    a[3, 5], b[7, 11] = np.inf, np.nan
    out = np.empty((20, 60), "f4")
    matmul(a, b, out)
    assert np.isnan(out[:, 11]).all()
    assert np.isinf(np.delete(out[3], 11)).all()
    rest = np.delete(np.delete(out, 3, 0), 11, 1)
    assert_array_equal(rest, np.full_like(rest, 40))
