"""Speed as far as it can be told without a clock: what the compiler made of the kernels.

A loop that no longer becomes vector code, or an exp that is libm's, costs a factor of four to ten,
and no result shows it. The optimised code does: `inspect_llvm` gives it, on any machine.
"""

import math
import re

import numba
import numpy as np
import pytest
from numba import types

from minivae.kernels import cpu, gemm, native

x = np.linspace(0, 1, 9 * 33, dtype="f4").reshape(9, 33)
v, rows, heads = x[0], x[:, 0].copy(), x[:, :16]
CALLS = {  # arguments of every kernel with a loop over float32 numbers
    "bias_activation": lambda: [x.copy(), v, 0],
    "activation_backward": lambda: [x.copy(), x, 0],
    "sum_rows": lambda: [x, 0, v.copy()],
    "sample_gaussian": lambda: [heads, heads, heads.copy(), heads.copy(), rows],
    "sample_gaussian_backward": lambda: [x, heads, heads, x, 1.0, x.copy(), x.copy()],
    "bernoulli_nll": lambda: [x, x, None, 1.0, rows, x.copy()],
    "gaussian_nll": lambda: [x, v[:1], x, None, 1.0, rows, x.copy(), rows.copy()],
    "random_binarize": lambda: [x.copy(), 1, 2, 3, 4],
    "threshold": lambda: [x.copy()],
    "sgd": lambda: [v.copy(), v, v.copy(), 0.1, 0.1, 0.1],
    "adagrad": lambda: [v.copy(), v, v.copy(), 0.1, 0.1, 0.1],
    "adam": lambda: [v.copy(), v, v.copy(), v.copy(), 1, 0.1, 0.9, 0.99, 1e-8, 0.0],
}
VECTOR = r"= (?:fmul|fadd|fsub|fdiv|fcmp) [^\n]*<(?:4|8|16) x float>"
LIBM = r"call [^\n]*@(?:llvm\.)?(?:exp|log|log1p|expm1|tanh|sin|cos)f?\b"
DOUBLE = r"= (?:fmul|fadd|fsub|fdiv) [^\n]*<\d+ x double>"


def optimised(function, *arguments):
    """The code of a call; what comes from the cache cannot be inspected, so it is compiled anew."""
    kernel = numba.njit(**native.FAST)(function)
    kernel(*arguments)
    (code,) = kernel.inspect_llvm().values()
    return code


@pytest.mark.parametrize("name", CALLS)
def test_float32_loops_are_vector_code_without_libm(name):
    code = optimised(getattr(cpu, name).py_func, *CALLS[name]())
    assert re.search(VECTOR, code), "no vector arithmetic"
    assert not re.search(LIBM, code)
    assert not re.search(DOUBLE, code), "float32 turned into float64"


def test_the_guard_sees_scalar_loops_calls_of_libm_and_double_precision():
    def chain(y):
        for i in range(1, y.size):
            y[i] = y[i] * y[i - 1]

    def libm(y):
        for i in range(y.size):
            y[i] = math.exp(y[i])

    def doubles(y):
        for i in range(y.size):
            y[i] = 0.5 * y[i] + 1.5

    assert not re.search(VECTOR, optimised(chain, v.copy()))
    assert re.search(LIBM, optimised(libm, v.copy()))
    assert re.search(DOUBLE, optimised(doubles, v.copy()))


def test_a_tile_of_a_product_is_one_multiply_add_per_vector_and_step():
    """Sums that were kept in memory, or widths that were compiled twice, would show here."""
    n = types.intp
    for dtype, size in ((types.float32, 4), (types.float64, 8)):
        matrices = (types.CPointer(dtype), n, n) * 3
        product = numba.njit(types.void(n, n, n, *matrices), **native.FAST)(gemm._multiply)
        (code,) = product.inspect_llvm().values()
        calls = re.findall(r"call[^\n]* <(\d+) x \w+> @llvm\.fmuladd", code)
        tiles = gemm.ROWS * sum(range(1, gemm.VECTORS + 1))
        assert calls == [str(gemm.VECTOR_BYTES // size)] * tiles
