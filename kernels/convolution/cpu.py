"""Numba twins of convolution/reference.py."""

from ..support.formulas import sigmoid, tanh
from ..support.native import compiled


@compiled
def gather_taps(h, taps, cols):
    (P, T), C, zero = taps.shape, h.shape[1], h.dtype.type(0)
    n = cols.shape[0] // P
    D = h.shape[0] // max(n, 1)
    for i in range(n):
        for p in range(P):
            row, seen = cols[i * P + p], taps[p]
            for t in range(T):
                target = row[t * C : (t + 1) * C]
                if seen[t] < 0:
                    for c in range(C):
                        target[c] = zero
                else:
                    source = h[i * D + seen[t]]
                    for c in range(C):
                        target[c] = source[c]


@compiled
def scatter_taps(dcols, inverse, dh):
    (D, T), C = inverse.shape, dh.shape[1]
    for i in range(dh.shape[0] // D):
        for q in range(D):
            target, by = dh[i * D + q], inverse[q]
            for t in range(T):
                if by[t] >= 0:
                    source = dcols[i * D + by[t]][t * C : (t + 1) * C]
                    for c in range(C):
                        target[c] += source[c]


@compiled
def gate(a, y):
    R = y.shape[1]
    for i in range(y.shape[0]):
        f, g, row = a[i][:R], a[i][R:], y[i]
        for j in range(R):
            row[j] = tanh(f[j]) * sigmoid(g[j])


@compiled
def gate_backward(dy, a, da):
    one, R = dy.dtype.type(1), dy.shape[1]
    for i in range(dy.shape[0]):
        f, g, slope = a[i][:R], a[i][R:], dy[i]
        df, dg = da[i][:R], da[i][R:]
        for j in range(R):
            t, passed = tanh(f[j]), slope[j] * sigmoid(g[j])
            df[j] = passed * (one - t * t)
            dg[j] = passed * t * sigmoid(-g[j])
