"""CUDA twins of dense/reference.py: each launches its kernel of cuda.cu."""

from .. import IDENTITY
from ..support.launches import TILE, WARP, blocks, check_dtype, common_shape, row_stride


def matmul(on, a, b, out):
    (m, n), depth = out.shape, a.shape[1]
    if a.shape[0] != m or b.shape != (depth, n):
        raise ValueError(f"shapes do not match: {a.shape} @ {b.shape} into {out.shape}")
    if on.device.product and out.size and depth:
        check_dtype("b", b, a.dtype)
        check_dtype("out", out, a.dtype)
        row_stride("out", out)
        on.device.product(a, b, out)
    else:
        on.launch("matmul", out.dtype, (blocks(m, TILE), blocks(n, TILE)), a, b, out, m, n, depth)


def bias_activation(on, y, bias, activation):
    B, H = y.shape
    on.launch("bias_activation", y.dtype, (B, blocks(H)), y, bias, activation, H)


def activation_backward(on, dy, y, activation):
    B, H = common_shape(dy=dy, y=y)
    if activation != IDENTITY:
        on.launch("activation_backward", y.dtype, (B, blocks(H)), dy, y, activation, H)


def sum_rows(on, dy, first, dbias):
    columns, part = dbias.size, dy[:, first : first + dbias.size]
    on.launch("sum_rows", dy.dtype, (blocks(columns, WARP), 1), part, dy.shape[0], dbias, columns)
