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

from minivae.kernels.support import gemm, native
from minivae.kernels.tables import cpu, reference

x = np.linspace(0, 1, 9 * 33, dtype="f4").reshape(9, 33)
v, rows, heads = x[0], x[:, 0].copy(), x[:, :16]
square, room = np.ones((33, 33), "f4"), np.ones((9, 33), "f4")  # of NADE: D = H = 33
gates = np.ones((9, 32), "f4")  # of one step of 8 units
heads33 = np.ones((9, 40), "f4")[:, :33]
lower = np.ones((9, 120), "f4")  # below the diagonal of 16 x 16
# A table of 33 columns, and its units; each column but those of counts is worth a vector.
groups = np.array([(0, 0, 8), (1, 8, 16), (2, 16, 24), (3, 24, 28), (4, 28, 30), (5, 30, 33)])
units, noise = np.zeros((3, 33), "f4"), np.zeros(16, "f4")


def posterior_backward(lower, free_bits):
    dlower = None if lower is None else lower.copy()
    return [heads.copy(), heads, heads, lower, heads.copy(), 1.0, 1.0, free_bits,
            heads.copy(), heads.copy(), dlower]  # fmt: skip


def gradients():
    return square.copy(), x[:1].copy(), square.copy()


# Kernels with loops over float32 numbers: how many loops there are, and arguments.
CALLS = {
    "bias_activation": (5, lambda: [x.copy(), v, 0]),
    "activation_backward": (4, lambda: [x.copy(), x, 0]),
    "sum_rows": (2, lambda: [x, 0, v.copy()]),
    "sample_gaussian": (1, lambda: [heads, heads, None, heads.copy(), heads.copy()]),
    "sample_gaussian full": (2, lambda: [heads, heads, lower, heads.copy(), heads.copy()]),
    "gaussian_kl": (1, lambda: [heads, heads, None, None, rows, None]),
    "gaussian_kl full": (2, lambda: [heads, heads, lower, None, rows, None]),
    "gaussian_kl free": (2, lambda: [heads, heads, None, 0.1, rows, rows.copy()]),
    "sample_gaussian_backward": (2, lambda: posterior_backward(None, None)),
    "sample_gaussian_backward full": (3, lambda: posterior_backward(lower, None)),
    "sample_gaussian_backward free": (2, lambda: posterior_backward(None, 0.1)),
    "importance_bound": (1, lambda: [x.ravel(), x.ravel(), x.ravel().copy(), rows, rows.copy()]),
    "posterior_score": (1, lambda: [heads, None, heads, heads.copy()]),
    "importance_backward": (1, lambda: [x.copy(), x, None, rows, 1.0]),
    "importance_backward doubly": (1, lambda: [x.copy(), x, x, rows, 1.0]),
    "scale_rows": (1, lambda: [rows, x.copy()]),
    "mean_of_draws": (1, lambda: [x.ravel(), rows]),
    "log_importance_weights": (1, lambda: [x, x, x, rows, rows.copy()]),
    "bernoulli_nll": (1, lambda: [x, x, None, 1.0, rows, x.copy()]),
    "bernoulli_nll observed": (2, lambda: [x, x, x, 1.0, rows, x.copy()]),
    "bernoulli_nll alone": (1, lambda: [x, x, None, 1.0, rows, None]),
    "bernoulli_nll observed alone": (1, lambda: [x, x, x, 1.0, rows, None]),
    "bernoulli_mean": (1, lambda: [x, x.copy()]),
    "gaussian_nll": (1, lambda: [x, v[:1], x, None, 1.0, rows, x.copy(), rows.copy()]),
    "gaussian_nll observed": (2, lambda: [x, v[:1], x, x, 1.0, rows, x.copy(), rows.copy()]),
    "gaussian_nll alone": (1, lambda: [x, v[:1], x, None, 1.0, rows, None, None]),
    "gaussian_nll observed alone": (2, lambda: [x, v[:1], x, x, 1.0, rows, None, None]),
    "gaussian_draw": (1, lambda: [x, v[:1], x, x.copy()]),
    # One loop for each kind, and two of a softmax; sums, gradients, noise, what is not observed.
    "mixed_nll": (12, lambda: [x, noise, groups, units, x, None, 1.0, rows, x.copy(),
                               x[:, :16].copy()]),
    "mixed_nll observed": (13, lambda: [x, noise, groups, units, x, x, 1.0, rows, x.copy(),
                                        x[:, :16].copy()]),
    "mixed_nll alone": (10, lambda: [x, noise, groups, units, x, None, 1.0, rows, None, None]),
    "mixed_mean": (5, lambda: [x, groups, units, x.copy()]),
    "mixed_draw": (6, lambda: [x, noise, groups, units, x.copy()]),
    "encoder_input": (1, lambda: [x, None, groups, units, x.copy()]),
    "encoder_input observed": (2, lambda: [x, x, groups, units, np.tile(x, (1, 2))]),
    "gather observed": (1, lambda: [x, np.arange(9), x.copy(), x.copy()]),
    "all_finite": (1, lambda: [x]),
    "leapfrog_momentum": (1, lambda: [x.copy(), x, x, 0.5, rows, 0.5]),
    "leapfrog_position": (1, lambda: [x.copy(), x, rows]),
    "hamiltonian": (1, lambda: [x, x, rows, 0.5, rows.copy()]),
    "nade_logits": (5, lambda: [x, square, x[:1], square, x[:1], room, room.copy(), x.copy()]),
    # 7 loops; that over `after` is scalar, and rare: two vector loops in its place gain nothing.
    # exp, its sum, the gradient; the search for the largest logit is scalar.
    "levels_nll": (3, lambda: [x, x[:, :1], 33, 1.0, rows, x.copy()]),
    "levels_nll alone": (2, lambda: [x, x[:, :1], 33, 1.0, rows, None]),
    "levels_draw": (2, lambda: [x, x[:, :1], x[:, :1].copy()]),
    "nade_backward": (6, lambda: [x, x, square, x[:1], square, 0, 33, *gradients()]),
    "nade_backward of biases": (4, lambda: [x, x, square, heads33, square, 0, 33, None,
                                            heads33.copy(), None]),
    "nade_sample": (3, lambda: [x, square, x[:1], square, x[:1], room, room.copy(), x.copy()]),
    "gru": (4, lambda: [0, x[:, :24].copy(), v[:24], x[:, :16].copy(), gates.copy()]),
    "gru_backward": (5, lambda: [0, 8, x[:, :16].copy(), gates, x[:, :16].copy(), gates.copy()]),
    "dequantize": (1, lambda: [x, x, 17, x.copy()]),
    "quantize": (1, lambda: [x, 17, x.copy()]),
    "coupling": (2, lambda: [heads, x[:, :32], heads.copy(), rows[:, None].copy()]),
    "coupling_backward": (1, lambda: [heads, heads, x[:, :32], 1.0, heads.copy(),
                                      x[:, :32].copy()]),
    "coupling_inverse": (2, lambda: [heads, x[:, :32], heads.copy()]),
    "add": (1, lambda: [x, x.copy()]),
    "prior_nll": (7, lambda: [x, v, heads, 1.0, 0, 1.0, x.copy(), rows, x.copy(), x.copy()]),
    "prior_nll alone": (4, lambda: [x, v, heads, 1.0, 0, 1.0, x.copy(), rows, None, None]),
    "scale_inverse": (2, lambda: [x, v, x.copy()]),
    "logistic": (1, lambda: [x, x.copy()]),
    # A tap's channels; where it is seen from is looked up.
    "scatter_taps": (1, lambda: [np.ones((9, 99), "f4"), np.zeros((9, 3), int), x.copy()]),
    "gate": (1, lambda: [np.ones((9, 66), "f4"), x.copy()]),
    "gate_backward": (1, lambda: [x, np.ones((9, 66), "f4"), np.ones((9, 66), "f4")]),
    "bernoulli_draw": (1, lambda: [x, x, x.copy()]),
    "free_energy": (3, lambda: [x, x, v, v, 1.0, rows, x.copy(), x.copy()]),
    "free_energy alone": (2, lambda: [x, x, v, v, 1.0, rows, None, None]),
    "pseudo_nll": (1, lambda: [x, rows[:, None], x, square, v, v, rows.copy()]),
    "anneal_energy": (2, lambda: [x, x, v, v, v, 0.5, 0.75, rows]),
    "random_binarize": (1, lambda: [x.copy(), 1, 2, 3, 4]),
    "threshold": (1, lambda: [x.copy()]),
    "sgd": (2, lambda: [v.copy(), v, v.copy(), 0.1, 0.1, 0.1]),
    "adagrad": (1, lambda: [v.copy(), v, v.copy(), 0.1, 0.1, 0.1]),
    "adam": (1, lambda: [v.copy(), v, v.copy(), v.copy(), 1, 0.1, 0.9, 0.99, 1e-8, 0.0]),
}  # fmt: skip
# Kernels without such a loop: whole numbers, memory only, products (below), sums in a fixed order,
# three numbers for a row.
APART = {"random_words", "random_uniform", "random_normal", "copy", "join", "matmul", "add_terms",
         "repeat_rows", "metropolis", "split_columns", "merge_columns", "gather_taps",
         "queue_taps", "clear", "join_columns", "adversarial_losses"}  # fmt: skip
VECTOR = r"= (?:fmul|fadd|fsub|fdiv|fcmp) [^\n]*<(?:4|8|16) x float>"
LIBM = r"call [^\n]*@(?:llvm\.)?(?:exp|log|log1p|expm1|tanh|sin|cos)f?\b"
DOUBLE = r"= (?:fmul|fadd|fsub|fdiv) [^\n]*<\d+ x double>"


def optimised(function, *arguments):
    """The code of a call; what comes from the cache cannot be inspected, so it is compiled anew."""
    kernel = numba.njit(**native.FAST)(function)
    kernel(*arguments)
    (code,) = kernel.inspect_llvm().values()
    return code


def vector_loops(code):
    """How many loops became vector arithmetic of float32 numbers."""
    blocks = [block for block in code.split("\n\n") if re.match(r"vector\.body\d*:", block)]
    return sum(re.search(VECTOR, block) is not None for block in blocks)


def test_every_kernel_is_looked_at():
    kernels = {name for name, value in vars(reference).items() if callable(value)}
    assert {name.split()[0] for name in CALLS} | APART >= kernels


@pytest.mark.parametrize("name", CALLS)
def test_float32_loops_are_vector_code_without_libm(name):
    loops, arguments = CALLS[name]
    code = optimised(getattr(cpu(), name.split()[0]).py_func, *arguments())
    assert vector_loops(code) >= loops
    assert not re.search(LIBM, code)
    assert not re.search(DOUBLE, code), "float32 turned into float64"


def test_the_guard_sees_scalar_loops_calls_of_libm_and_double_precision():
    def chain(y):
        for i in range(1, y.size):
            y[i] = y[i] * y[i - 1]

    def one_of_two(y):
        for i in range(y.size):
            y[i] = y[i] * y[i]
        for i in range(1, y.size):
            y[i] = y[i] * y[i - 1]

    def libm(y):
        for i in range(y.size):
            y[i] = math.exp(y[i])

    def doubles(y):
        for i in range(y.size):
            y[i] = 0.5 * y[i] + 1.5

    assert vector_loops(optimised(chain, v.copy())) == 0
    assert vector_loops(optimised(one_of_two, v.copy())) == 1
    assert re.search(LIBM, optimised(libm, v.copy()))
    assert re.search(DOUBLE, optimised(doubles, v.copy()))


def test_a_tile_of_a_product_is_one_multiply_add_per_vector_and_step():
    """Sums that were kept in memory, or widths that were compiled twice, would show here."""
    n = types.intp
    for dtype, size in ((types.float32, 4), (types.float64, 8)):
        matrices = (types.CPointer(dtype), n, n) * 3
        product = numba.njit(types.void(n, n, n, *matrices), **native.FAST)(gemm._multiply.py_func)
        (code,) = product.inspect_llvm().values()
        calls = re.findall(r"call[^\n]* <(\d+) x \w+> @llvm\.fmuladd", code)
        tiles = gemm.ROWS * sum(range(1, gemm.VECTORS + 1))
        assert calls == [str(gemm.VECTOR_BYTES // size)] * tiles
