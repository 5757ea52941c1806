"""Convolutions whose taps see earlier positions only, and the gate behind them: the specification.

A row has D positions, such as the pixels of an image or the steps of a signal, with C numbers each:
h (n D, C) holds n rows, the positions of a row one after the other. T taps say what an output at a
position sees of h, so that a convolution is a product, cols (n P, T C) W (T C, C'). Taps that a
mask forbids do not exist: nothing has to be masked, before an update or after it.
"""

import numpy as np

from ..support.stable import sigmoid


def gather_taps(h, taps, cols):
    """cols (n P, T C) = what each position sees of h (n D, C), one tap beside the other.

    taps (P, T), of whole numbers: tap t of output position p sees position taps[p, t] of its row,
    and where that is -1, which is outside, 0. P is D in a pass over all positions, and 1 where
    cols are those of a single one. h and cols may be columns of wider matrices.
    """
    n = len(cols) // len(taps)
    D = len(h) // max(n, 1)
    seen = h[np.arange(n)[:, None, None] * D + np.maximum(taps, 0)]  # (n, P, T, C)
    cols[:] = np.where(taps[:, :, None] >= 0, seen, 0).reshape(cols.shape)


def scatter_taps(dcols, inverse, dh):
    """dh (n D, C) += the gradient by h that dcols (n D, T C) bring to it through `gather_taps`.

    inverse (D, T): tap t of position inverse[q, t] sees position q; -1 where it is no position's.
    For such taps as those, of which no two of the same t see one position, the adjoint of a copy
    is a sum over taps, and each entry of dh has one order of its terms:

        dh_q = sum over t of dcols_(inverse[q, t]), t.

    It is added, since what a layer sees, the layer's output is often added to as well.
    """
    D, T = inverse.shape
    n, C = len(dh) // D, dh.shape[1]
    tap = dcols.reshape(n, D, T, C)[:, np.maximum(inverse, 0), np.arange(T)]  # (n, D, T, C)
    dh += np.where(inverse[:, :, None] >= 0, tap, 0).sum(axis=2).reshape(dh.shape)


def gate(a, y):
    """y (n, R) = tanh(f) sigmoid(g) for a = f | g (n, 2 R) (van den Oord et al. 2016, equation 2).

    sigmoid(g) says how much of a feature passes, tanh(f) what it is.
    """
    R = y.shape[1]
    y[:] = np.tanh(a[:, :R]) * sigmoid(a[:, R:])


def gate_backward(dy, a, da):
    """da = df | dg (n, 2 R) for dy (n, R): tanh' = 1 - tanh^2 and s' = s (1 - s), hence

    df = dy s(g) (1 - tanh^2 f),   dg = dy tanh(f) s(g) (1 - s(g)),   1 - s(g) = s(-g).
    """
    R = dy.shape[1]
    t, s = np.tanh(a[:, :R]), sigmoid(a[:, R:])
    da[:, :R] = dy * s * (1 - t * t)
    da[:, R:] = dy * t * s * sigmoid(-a[:, R:])
