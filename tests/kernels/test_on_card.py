"""The kernels on a card: pytest -m gpu."""

import numpy as np
import pytest
from kernel_arguments import TWINS
from kernel_checks import (
    SHAPES,
    check_products,
    check_random,
    check_sum_of_some_columns,
    check_twin,
    hosted_table,
    put,
)
from numpy.testing import assert_array_equal
from test_batch import test_all_finite_sees_every_entry_that_is_not as check_all_finite
from test_sequence import test_draws_follow_their_uniforms as check_nade_draws
from test_sequence import test_parts_have_the_bits_of_the_whole as check_nade_parts
from test_sequence import test_probabilities_of_all_rows_sum_to_1 as check_nade_sum

from minivae.kernels.support import device
from minivae.kernels.tables import on_device

pytestmark = pytest.mark.gpu
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def find(matmul_precision="float32"):
    """The first GPU; skipped where CuPy is not installed, failed where a card does not work."""
    found = device.find(0, matmul_precision)
    if isinstance(found, str):
        (pytest.skip if "is not installed" in found else pytest.fail)(found)
    return found


@pytest.fixture(scope="module")
def card():
    return find()


@pytest.mark.parametrize("name", TWINS)
@DTYPES
def test_twin_agrees_with_the_reference(name, dtype, card):
    for seed, shape in enumerate(SHAPES):
        first = check_twin(card, name, dtype, shape, seed)
        for one, two in zip(first, check_twin(card, name, dtype, shape, seed), strict=True):
            assert_array_equal(one, two)
        check_twin(card, name, dtype, shape, seed, sliced=True)
        for magnitude in (1e-3, 30.0, 1e3):
            check_twin(card, name, dtype, shape, 100 + seed, magnitude)


@pytest.mark.parametrize("own", [False, True], ids=["cuBLAS", "cuda.cu"])
@DTYPES
def test_products_of_views(own, dtype, card, monkeypatch):
    if own:
        monkeypatch.setattr(card, "product", None)
    check_products(card, dtype)
    check_twin(card, "matmul", dtype, (130, 300), 0)


def test_tf32_keeps_ten_bits():
    card = find("tf32")
    a, b = np.random.default_rng(0).standard_normal((2, 256, 256)).astype(np.float32)
    out = card.empty((256, 256), np.float32)
    on_device(card).matmul(put(card, a), put(card, b), out)
    exact = a.astype(np.float64) @ b
    error = np.linalg.norm(card.download(out) - exact) / np.linalg.norm(exact)
    assert error < 1e-3  # 2^-11 per factor, a third of it on average, from both


@DTYPES
def test_random_numbers_sums_and_finiteness(dtype, card):
    check_random(hosted_table(card), dtype)
    check_random(hosted_table(card, sliced=True), dtype)
    check_sum_of_some_columns(card, dtype)
    check_all_finite(dtype, (300,), hosted_table(card))


@DTYPES
def test_nade(dtype, card):
    k = hosted_table(card)
    check_nade_sum(k)
    check_nade_draws(k, dtype)
    check_nade_parts(k, dtype, 530)
