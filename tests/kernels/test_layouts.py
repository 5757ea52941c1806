"""Products of matrices in any layout that NumPy can give them."""

import numpy as np
import pytest
from numba.core.errors import TypingError
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_allclose, assert_array_equal

from minivae.kernels import tables

cpu, reference = tables.cpu(), tables.reference
rng = np.random.default_rng(0)
LAYOUTS = {  # of a matrix (rows, columns) whose entries are in the first array
    "by rows": lambda a: a.copy(),
    "by columns": np.asfortranarray,
    "part of wider rows": lambda a: np.hstack([a + 1, a, a])[:, a.shape[1] : 2 * a.shape[1]],
    "every second row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every second column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "rows in reverse": lambda a: a[::-1].copy()[::-1],
    "columns in reverse": lambda a: a[:, ::-1].copy()[:, ::-1],
    "one row for all": lambda a: np.broadcast_to(a[:1], a.shape),
    "one column for all": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "overlapping rows": lambda a: as_strided(a.copy(), a.shape, (a.itemsize, a.itemsize)),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    "m, k, n", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (3, 0, 2)]
)
def test_matmul_of_any_layout(m, k, n, name):
    layout = LAYOUTS[name]
    for left, right in ((layout, np.copy), (np.copy, layout)):
        for turn in (lambda a: a, lambda a: layout(a.T.copy()).T):
            a, b = left(turn(rng.normal(size=(m, k)))), right(turn(rng.normal(size=(k, n))))
            out, expected = np.full((m, n), np.nan), np.empty((m, n))
            cpu.matmul(a, b, out)
            reference.matmul(a, b, expected)
            assert_allclose(out, expected, rtol=1e-14, atol=1e-14)  # sums of four products


def test_matmul_writes_into_its_output_only():
    big = np.zeros((10, 6))
    cpu.matmul(np.ones((3, 2)), np.ones((2, 4)), big[4:7, 1:5][::-1])
    assert_array_equal(big[4:7, 1:5], 2)
    assert big.sum() == 24


def test_matmul_refuses_what_it_would_read_wrongly():
    a, b, out = np.ones((2, 3)), np.ones((3, 4)), np.empty((2, 4))
    with pytest.raises(TypingError, match="all be float32, or all float64"):
        cpu.matmul(a, b.astype("f4"), out)
    for bad in ((a, b[:2], out), (a, b, np.empty((5, 4))), (a, b, np.empty((2, 3)))):
        with pytest.raises(AssertionError):
            cpu.matmul(*bad)
