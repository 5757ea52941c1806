"""Numba twins of dense/reference.py."""

from .. import IDENTITY, RELU, SIGMOID, SOFTPLUS, TANH
from ..support.formulas import relu, sigmoid, softplus, softplus_derivative, tanh
from ..support.gemm import multiply
from ..support.native import compiled


@compiled
def matmul(a, b, out):
    (m, n), depth, size = out.shape, a.shape[1], out.itemsize
    assert a.shape[0] == m and b.shape[0] == depth and b.shape[1] == n
    for row_stride, column_stride in (a.strides, b.strides, out.strides):
        assert (row_stride | column_stride) % size == 0
    multiply(a, b, out)


@compiled
def bias_activation(y, bias, activation):
    for i in range(y.shape[0]):
        row = y[i]
        if activation == RELU:
            for j in range(row.size):
                row[j] = relu(row[j] + bias[j])
        elif activation == TANH:
            for j in range(row.size):
                row[j] = tanh(row[j] + bias[j])
        elif activation == SIGMOID:
            for j in range(row.size):
                row[j] = sigmoid(row[j] + bias[j])
        elif activation == SOFTPLUS:
            for j in range(row.size):
                row[j] = softplus(row[j] + bias[j])
        else:
            assert activation == IDENTITY
            for j in range(row.size):
                row[j] += bias[j]


@compiled
def activation_backward(dy, y, activation):
    one, zero = y.dtype.type(1), y.dtype.type(0)
    for i in range(y.shape[0]):
        drow, row = dy[i], y[i]
        if activation == RELU:
            for j in range(row.size):
                drow[j] = drow[j] if row[j] > zero else zero
        elif activation == TANH:
            for j in range(row.size):
                drow[j] *= one - row[j] * row[j]
        elif activation == SIGMOID:
            for j in range(row.size):
                drow[j] *= row[j] * (one - row[j])
        elif activation == SOFTPLUS:
            for j in range(row.size):
                drow[j] *= softplus_derivative(row[j])


@compiled
def sum_rows(dy, first, dbias):
    end = first + dbias.size
    for j in range(dbias.size):
        dbias[j] = dy.dtype.type(0)
    fours = dy.shape[0] // 4 * 4
    for i in range(0, fours, 4):  # dbias is read and written for four rows at once
        a, b = dy[i][first:end], dy[i + 1][first:end]
        c, d = dy[i + 2][first:end], dy[i + 3][first:end]
        for j in range(dbias.size):
            dbias[j] += (a[j] + b[j]) + (c[j] + d[j])
    for i in range(fours, dy.shape[0]):
        row = dy[i][first:end]
        for j in range(dbias.size):
            dbias[j] += row[j]
