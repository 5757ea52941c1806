"""CUDA twins of convolution/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks


def gather_taps(on, h, taps, cols):
    (rows, C), (P, T) = h.shape, taps.shape
    n = len(cols) // P
    if cols.shape != (n * P, T * C) or rows % max(n, 1):
        raise ValueError(f"cols have shape {cols.shape}, expected {(n * P, T * C)} of {n} rows")
    on.launch("gather_taps", cols.dtype, (n * P, blocks(T * C)),
              h, taps, cols, rows // max(n, 1), P, T, C)  # fmt: skip


def scatter_taps(on, dcols, inverse, dh):
    (rows, C), (D, T) = dh.shape, inverse.shape
    if dcols.shape != (rows, T * C) or rows % D:
        raise ValueError(f"dcols have shape {dcols.shape}, expected {(rows, T * C)}")
    on.launch("scatter_taps", dh.dtype, (rows, blocks(C)), dcols, inverse, dh, D, T, C)


def gate(on, a, y):
    n, R = y.shape
    _check_halves(a, n, R)
    on.launch("gate", y.dtype, (n, blocks(R)), a, y, R)


def gate_backward(on, dy, a, da):
    n, R = dy.shape
    _check_halves(a, n, R)
    _check_halves(da, n, R)
    on.launch("gate_backward", da.dtype, (n, blocks(R)), dy, a, da, R)


def _check_halves(a, n, R):
    if a.shape != (n, 2 * R):
        raise ValueError(f"f | g has shape {a.shape}, expected {(n, 2 * R)}")
