"""Matrix products of the compiled machine, and how code gets compiled and kept."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minivae.kernels import cpu, gemm, native

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
            cpu.matmul(a, b, frame[1:-1, 1:-1])
            expected = a.astype(np.int64) @ b.astype(np.int64)  # below 2^24: exact in float32
            assert np.abs(expected).max() < 2**24
            assert_array_equal(frame[1:-1, 1:-1], expected)
            assert np.isnan(frame).sum() == frame.size - expected.size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_is_that_of_one_sum(dtype):
    a, b = rng.normal(size=(33, 700)).astype(dtype), rng.normal(size=(700, 70)).astype(dtype)
    out = np.empty((33, 70), dtype)
    cpu.matmul(a, b, out)
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
    cpu.matmul(a, b, whole)
    for cuts in ([0, 1, 8, 150, 300], [0, 100, 200, 300], [0, 129, 300]):
        part[:] = np.nan
        for first, last in pairwise(cuts):
            cpu.matmul(a[first:last], b, part[first:last])
        assert_array_equal(part, whole)
    transposed = np.ascontiguousarray(a.T).T
    cpu.matmul(transposed, b, part)
    assert_array_equal(part, whole)


def test_infinity_and_nan_stay_in_their_rows_and_columns():
    a, b = np.ones((20, 40), "f4"), np.ones((40, 60), "f4")
    a[3, 5], b[7, 11] = np.inf, np.nan
    out = np.empty((20, 60), "f4")
    cpu.matmul(a, b, out)
    assert np.isnan(out[:, 11]).all()
    assert np.isinf(np.delete(out[3], 11)).all()
    rest = np.delete(np.delete(out, 3, 0), 11, 1)
    assert_array_equal(rest, np.full_like(rest, 40))


# --- compilation ----------------------------------------------------------------------------------

SCRIPT = """
import numpy as np
from minivae import VAE
X = np.eye(8, dtype="f4")
print(VAE(hidden_layer_sizes=(4,), epochs=1, random_state=0).fit(X).history_["loss"])
"""


def train(tmp_path, **environment):
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=tmp_path, env={"PATH": "", **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@pytest.mark.slow  # three first compilations
def test_training_needs_no_cache(tmp_path):
    """A broken cache, or none that could be written: training goes on, to the same result."""
    cache = tmp_path / "cache"
    expected = train(tmp_path, NUMBA_CACHE_DIR=str(cache))
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[:20])
    assert train(tmp_path, NUMBA_CACHE_DIR=str(cache)) == expected
    assert train(tmp_path, NUMBA_CACHE_DIR="/dev/full/no/folder") == expected


@pytest.fixture
def function():
    names = {}
    exec(compile("def double(x): return 2 * x", __file__, "exec"), names)
    return names["double"]


def test_a_full_disk_costs_the_cache_not_the_result(function, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    compiled = native.compiled(function)
    monkeypatch.setattr(type(compiled._cache._cache_file), "save", full)
    assert compiled(21) == 42


def test_a_broken_cache_is_no_obstacle(function, monkeypatch):
    def broken(*args, **kwargs):
        raise EOFError("Ran out of input")

    compiled = native.compiled(function)
    monkeypatch.setattr(type(compiled._cache._cache_file), "load", broken)
    assert compiled(21) == 42
