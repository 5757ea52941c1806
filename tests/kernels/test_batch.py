"""The batch and its shards: gathered rows and what is missing, sums, finiteness, the join."""

import math
import threading

import numba
import numpy as np
import pytest
from kernel_calls import is_reference, normals
from numpy.testing import assert_allclose, assert_array_equal

from minivae.kernels import BINARY, COUNT, REAL
from minivae.kernels.tables import cpu, reference

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
HOST = pytest.mark.parametrize("host", [reference, cpu()], ids=["reference", "cpu"])


# --- gather and copy ------------------------------------------------------------------------------


@DTYPES
def test_gather_repeats_rows(dtype, k):
    data, x = np.array([[0, 255], [1, 2], [3, 4]], dtype), np.empty((4, 2), dtype)
    k.gather(data, np.array([2, 2, 0, 1]), x, None)
    assert_array_equal(x, [[3, 4], [3, 4], [0, 255], [1, 2]])


@HOST
@pytest.mark.parametrize("source", [np.uint8, np.float32, np.float64])
def test_gather_converts_on_a_host(host, source):
    data, x = np.array([[0, 255], [1, 2]], source), np.empty((2, 2), np.float32)
    host.gather(data, np.array([1, 0]), x, None)
    assert_array_equal(x, [[1, 2], [0, 255]])


@DTYPES
def test_what_is_missing_is_0_in_x_and_in_observed(dtype, k):
    data = np.where(normals(9, 33) > 0.5, np.nan, normals(9, 33, seed=1)).astype(dtype)
    data[3], data[4] = np.nan, 1
    data[5, :3] = np.inf, -np.inf, -0.0  # are known
    rows = np.array([3, 4, 5, 5, 0])
    x, observed = np.full((5, 33), np.nan, dtype), np.full((5, 33), np.nan, dtype)
    k.gather(data, rows, x, observed)
    assert_array_equal(observed, ~np.isnan(data[rows]))
    assert_array_equal(x, np.where(np.isnan(data[rows]), 0, data[rows]))
    k.gather(data, rows, x, None)
    assert_array_equal(x, data[rows])  # NaN and all


@DTYPES
def test_copy_takes_any_shape(dtype, k):
    source, target = normals(6, 7).astype(dtype), np.full(42, np.nan, dtype)
    source[2, 3] = np.nan
    k.copy(source, target)
    assert_array_equal(target, source.ravel())
    back = np.zeros((2, 21), dtype)
    k.copy(target, back)
    assert_array_equal(back.ravel(), source.ravel())


# --- what an encoder reads ------------------------------------------------------------------------


@DTYPES
def test_an_encoder_reads_numbers_and_what_is_known(dtype, k):
    groups = np.array([(REAL, 0, 2), (COUNT, 2, 4), (BINARY, 4, 5), (COUNT, 5, 6)])
    x = np.array([[1.5, np.nan, 0, 7, 1, 3], [np.inf, -2, np.nan, 1e6, np.nan, np.nan]], dtype)
    observed = np.isfinite(x).astype(dtype)
    units = np.full((3, 6), 99, dtype)
    units[2] = 9, 9, 0.5, 2, 9, 0
    h = np.full((2, 12), np.nan, dtype)
    k.encoder_input(x, observed, groups, units, h)
    expected = np.array([
        [1.5, 0, -0.5, math.log(8) - 2, 1, math.log(4)], [0, -2, 0, math.log(1e6 + 1) - 2, 0, 0]
    ])  # fmt: skip
    assert_allclose(h[:, :6], expected, rtol=8 * np.finfo(dtype).eps)
    assert_array_equal(h[:, 6:], observed)
    all_known = np.full((1, 6), np.nan, dtype)
    k.encoder_input(np.array([[1.5, 3, 0, 7, 1, 3]], dtype), None, groups, units, all_known)
    assert_allclose(all_known[0, [0, 2, 3, 4, 5]], expected[0, [0, 2, 3, 4, 5]],
                    rtol=8 * np.finfo(dtype).eps)  # fmt: skip


@DTYPES
def test_without_a_schema_an_encoder_reads_what_is_there(dtype, k):
    x = np.array([[1.5, np.nan, 0]], dtype)
    observed, h = np.array([[1, 0, 1]], dtype), np.full((1, 6), np.nan, dtype)
    k.encoder_input(x, observed, None, None, h)
    assert_array_equal(h, [[1.5, 0, 0, 1, 0, 1]])
    alone = np.empty((1, 3), dtype)
    k.encoder_input(np.array([[1.5, -2, 0]], dtype), None, None, None, alone)
    assert_array_equal(alone, [[1.5, -2, 0]])


# --- finiteness and sums --------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("shape", [(300,), (3, 100), (2, 0)])
def test_all_finite_sees_every_entry_that_is_not(dtype, shape, k):
    largest = np.full(shape, np.finfo(dtype).max, dtype)  # whose sum would overflow
    largest[..., ::2] *= -1
    assert k.all_finite(largest)
    for bad in (np.nan, np.inf, -np.inf) if largest.size else ():
        for place in (0, 1, 3, 36, 255, 256, 299):
            values = largest.copy()
            values.flat[place] = bad
            assert not k.all_finite(values)


def test_terms_are_added_in_float64(k):
    terms, totals = np.full((2, 1000), np.float32(0.1)), np.array([1e9, 0.0])
    terms[1] *= 2
    k.add_terms(terms, totals)
    # In float32 each 0.1 behind 1e9 would be lost. 1000 roundings, each by half the last digit.
    exact = 1000 * float(np.float32(0.1))
    assert abs(totals - [1e9 + exact, 2 * exact]).max() < 1000 * 2**-53 * 1e9


def test_equal_sums_of_two_calls(k):
    """Twice the same terms are the same bits: their order is nobody's choice."""
    terms, totals = normals(3, 1001).astype(np.float32), np.zeros((2, 3))
    for out in totals:
        k.add_terms(terms, out)
    assert_array_equal(*totals)
    if not is_reference(k):
        alone = np.zeros(1)
        k.add_terms(terms[1:2], alone)
        assert_array_equal(alone, totals[0, 1:2])


# --- threads --------------------------------------------------------------------------------------

table = cpu()


@numba.njit(nogil=True)
def march(barrier, workers, worker, slots, seen):
    """Each writes its step, waits for all, and counts those that are at the same step."""
    for step in range(seen.size):
        slots[worker] = step
        table.join(barrier, workers)
        seen[step] = (slots == step).sum()
        table.join(barrier, workers)  # nobody writes the next step before all have read


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
