"""Dense layers: the specification. y = f(x W + bias), and what backward needs of it."""

import numpy as np

from .. import IDENTITY, RELU, SIGMOID, SOFTPLUS, TANH
from ..support.stable import sigmoid, softplus


def matmul(a, b, out):
    """out = a @ b, for a (n, m), b (m, p), out (n, p); a or b may be a transposed view.

    With y = x W: d/dx_ij sum(dy * y) = sum_k dy_ik W_jk, so dx = dy W^T; likewise dW = x^T dy.
    Both are products of the same kind, so this kernel is its own backward.
    """
    np.matmul(a, b, out=out)


def bias_activation(y, bias, activation):
    """y <- f(y + bias), in place, for y (B, H) and bias (H,).

    identity f(a) = a; relu max(a, 0); tanh; sigmoid 1 / (1 + e^-a); softplus ln(1 + e^a).
    Sigmoid and softplus are written with e^-|a|, which cannot overflow:
    ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|), and 1 / (1 + e^-a) = e^a / (1 + e^a) for a < 0.
    """
    y += bias
    if activation == RELU:
        np.maximum(y, 0, out=y)
    elif activation == TANH:
        np.tanh(y, out=y)
    elif activation == SIGMOID:
        y[:] = sigmoid(y)
    elif activation == SOFTPLUS:
        y[:] = softplus(y)
    else:
        assert activation == IDENTITY


def activation_backward(dy, y, activation):
    """dy <- dy * f'(a), in place, for y = f(a), both (B, H).

    The chain rule, dL/da = dL/dy f'(a). Each f' is a function of the output, so only y is kept:
    identity 1; relu [y > 0]; tanh 1 - y^2; sigmoid y (1 - y);
    softplus sigmoid(a) = 1 - e^-y, as e^y = 1 + e^a. At its kink relu takes the left derivative, 0.
    """
    if activation == RELU:
        dy[:] = np.where(y > 0, dy, 0)
    elif activation == TANH:
        dy *= 1 - y * y
    elif activation == SIGMOID:
        dy *= y * (1 - y)
    elif activation == SOFTPLUS:
        dy *= -np.expm1(-y)
    else:
        assert activation == IDENTITY


def sum_rows(dy, first, dbias):
    """dbias (h,) = the columns of dy (B, H) from `first` on, each summed over the rows.

    With a = x W + bias, da_ij / dbias_j = 1, so dL/dbias_j = sum_i dL/da_ij.
    """
    dbias[:] = dy[:, first : first + dbias.size].sum(axis=0)
