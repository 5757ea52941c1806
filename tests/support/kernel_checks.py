"""What the kernels of every device must do, as functions of a device.

tests/kernels runs them on the device in memory, on a stand-in for a card, and on a card.
"""

import inspect
from types import ModuleType

import numpy as np
from kernel_arguments import arguments, columns, compare
from numpy.testing import assert_allclose, assert_array_equal

from minivae.kernels.support.launches import signatures
from minivae.kernels.tables import on_device, reference

# Rows and columns: none, one, less and more than a warp, a tile, a block of threads.
SHAPES = ((0, 5), (1, 1), (5, 1), (1, 33), (7, 33), (17, 16), (37, 300))


# --- NumPy arrays on a device ---------------------------------------------------------------------


def put(device, array):
    """A copy of a NumPy array on the device."""
    target = device.empty(array.shape, array.dtype)
    device.upload(np.ascontiguousarray(array), target)
    return target


def hosted(device, function, sliced=()):
    """A function of arrays on the device as one of NumPy arrays, with the same side effects.

    sliced: names of matrices that are columns of wider ones there; what is beside them must stay.
    """
    names = tuple(inspect.signature(function).parameters)

    def run(*arguments):
        there = {}  # id of an array: it, its copy, and what is around that
        for name, value in zip(names, arguments, strict=True):
            if isinstance(value, np.ndarray) and id(value) not in there:
                whole = put(device, columns(value).base if name in sliced else value)
                there[id(value)] = value, whole[:, 1:-2] if name in sliced else whole, whole
        given = [there[id(v)][1] if id(v) in there else v for v in arguments]
        with device.lock:
            result = function(*given)
            for value, copy, whole in there.values():
                found = device.download(whole)
                if copy is not whole:
                    assert (found[:, [0, -2, -1]] == 1).all()
                    found = found[:, 1:-2]
                if value.flags.writeable:
                    value[...] = found
        return result

    return run


def matrices(kernel):
    """Names of a kernel's arguments that may be columns of wider matrices."""
    ends = [name.partition("_row_stride") for name in signatures()[kernel].names]
    return [name for name, end, _ in ends if end]


def hosted_table(device, sliced=False):
    """The device's table for NumPy arrays; sliced: every matrix is columns of a wider one there."""
    table = ModuleType("hosted")
    for name in signatures():
        if name != "advance":  # which is no twin
            kernel = getattr(on_device(device), name)
            setattr(table, name, hosted(device, kernel, matrices(name) if sliced else ()))
    return table


# --- kernels --------------------------------------------------------------------------------------


def check_twin(device, name, dtype, shape, seed, magnitude=1.0, sliced=False):
    """The twin agrees with the reference; returns all arrays as it left them.

    sliced: its matrices are columns of wider ones, as far as the kernel takes that.
    """
    kernel, left = getattr(on_device(device), name), []

    def keeping(*given):
        hosted(device, kernel, matrices(name) if sliced else ())(*given)
        left.extend(value.copy() for value in given if isinstance(value, np.ndarray))

    compare(name, keeping, dtype, np.array, arguments(dtype, *shape, seed, magnitude)[name])
    return left


def check_products(device, dtype):
    """Products of transposed factors, as backward has, and of columns of a wider matrix."""
    k, rng = on_device(device), np.random.default_rng(0)
    for m, n, depth in [(1, 1, 1), (3, 20, 70), (70, 33, 1), (1, 40, 17), (16, 16, 16), (65, 2, 9)]:
        a, b = rng.standard_normal((m, depth)), rng.standard_normal((depth, n))
        size = (abs(a) @ abs(b)).max()
        a, b = a.astype(dtype), b.astype(dtype)
        exact = a.astype(np.float64) @ b
        forms = [(put(device, a), put(device, b)), (put(device, a.T).T, put(device, b)),
                 (put(device, a), put(device, b.T).T), (put(device, a.T).T, put(device, b.T).T),
                 (put(device, np.hstack([a, a]))[:, depth:], put(device, b))]  # fmt: skip
        for left, right in forms:
            out = put(device, np.full((m, n), np.nan, dtype))
            k.matmul(left, right, out)
            found = device.download(out)
            assert abs(found - exact).max() <= (8 + depth) * np.finfo(dtype).eps * size


def check_sum_of_some_columns(device, dtype):
    rng = np.random.default_rng(0)
    dy = rng.standard_normal((9, 10)).astype(dtype)
    out = put(device, np.full(3, np.nan, dtype))
    on_device(device).sum_rows(put(device, dy), 4, out)
    assert_allclose(device.download(out), dy[:, 4:7].sum(axis=0), atol=50 * np.finfo(dtype).eps)


def check_random(k, dtype):
    """Words and uniforms bit for bit, at the corners of their counters; normals to rounding."""
    for where in [(0, 0, 0, 0), (2**63 - 1, 8, 2**32 - 1, 2**32 - 5), (7 + 2**40, 3, 5, 1)]:
        for shape in [(5, 1), (2, 7), (3, 16), (2, 1030)]:
            words, u, eps = np.zeros(shape, np.uint32), *np.zeros((2, *shape), dtype)
            expected = np.zeros_like(words), np.zeros_like(u), np.zeros(shape)
            for name, found, right in zip(
                ("words", "uniform", "normal"), (words, u, eps), expected, strict=True
            ):
                getattr(k, f"random_{name}")(*where, found)
                getattr(reference, f"random_{name}")(*where, right)
            assert_array_equal(words, expected[0])
            assert_array_equal(u, expected[1])
            # Logarithm, root, cosine and products, each with an error of an eps or two; the
            # reference itself rounds 2 pi u, which near the zeros of cosine is not relative.
            tolerance = 6 * np.finfo(dtype).eps * abs(expected[2]) + 40 * 2**-53
            assert (abs(eps - expected[2]) <= tolerance).all()
            x = np.random.default_rng(0).choice([0, 0.25, 0.5, 1], shape).astype(dtype)
            binary = x.copy()
            k.random_binarize(binary, *where)
            assert_array_equal(binary, u < x)
