"""Dense layers: gradients, the kink of relu, and special values."""

import numpy as np
import pytest
from emulator import EMULATED
from kernel_calls import check, normals
from kernel_checks import check_products, check_sum_of_some_columns
from numpy.testing import assert_array_equal
from scipy import special

from minivae.gradcheck import check_gradient
from minivae.kernels import ACTIVATIONS, RELU

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
EXACT = {
    "identity": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "softplus": lambda a: np.logaddexp(0, a),
}


def activation_pair(k, code):
    def forward(y, bias):
        y = y.copy()
        k.bias_activation(y, bias, code)
        return y

    def backward(y, bias, dy):
        dbias = np.empty_like(bias)
        k.activation_backward(dy, forward(y, bias), code)
        k.sum_rows(dy, 0, dbias)
        return dy, dbias

    return forward, backward


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, k):
    forward, backward = activation_pair(k, ACTIVATIONS.index(activation))
    y, bias = 2 * normals(5, 7), normals(7, seed=1)
    np.testing.assert_allclose(forward(y, bias), EXACT[activation](y + bias), rtol=1e-13)
    check(k, forward, backward, [y, bias])


def test_relu_at_its_kink_takes_the_left_derivative(k):
    forward, backward = activation_pair(k, RELU)
    y, bias, dout = np.array([[0.5, -1.0, 2.0]]), np.array([-0.5, 1.0, 1.0]), np.ones((1, 3))
    report = check_gradient(forward, backward, [y, bias], dout=[dout])
    report.raise_if_failed()
    assert report.kinks == 4  # two entries, each by y and by bias
    assert_array_equal(backward(y, bias, dout)[1], [0, 0, 1])


def test_products(k):
    def product(a, b):
        out = np.empty((len(a), b.shape[1]), a.dtype)
        k.matmul(a, b, out)
        return out

    def backward(x, weight, dy):
        return product(dy, weight.T), product(x.T, dy)

    check(k, product, backward, [normals(4, 6), normals(6, 3, seed=1)])


@EMULATED
@DTYPES
def test_views_on_a_device(dtype, device):
    check_products(device, dtype)
    check_sum_of_some_columns(device, dtype)


def test_nan_stays_nan(k):
    good, bad = np.ones((2, 33), np.float32), np.ones((2, 33), np.float32)
    bad[1, 7] = np.nan
    for code in range(len(ACTIVATIONS)):
        y = bad.copy()
        k.bias_activation(y, good[0], code)
        assert_array_equal(np.isnan(y), np.isnan(bad))
