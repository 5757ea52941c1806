"""Numba twins of recurrent/reference.py."""

from ..support.formulas import sigmoid, tanh
from ..support.native import compiled, inlined


@compiled
def clear(x):
    for i in range(x.shape[0]):
        row = x[i]
        for j in range(row.size):
            row[j] = x.dtype.type(0)


@inlined
def _part(row, index, n):
    """Columns index n <= j < (index + 1) n."""
    return row[index * n : (index + 1) * n]


@compiled
def gru(t, recurrent, bias, states, gates):
    H = bias.size // 3
    b_n, b_r, b_z = _part(bias, 0, H), _part(bias, 1, H), _part(bias, 2, H)
    for i in range(states.shape[0]):
        own, u = gates[i], recurrent[i]
        n, r = _part(own, 4 * t, H), _part(own, 4 * t + 1, H)
        z, q = _part(own, 4 * t + 2, H), _part(own, 4 * t + 3, H)
        u_r, u_z, u_q = _part(u, 0, H), _part(u, 1, H), _part(u, 2, H)
        h, after = _part(states[i], t, H), _part(states[i], t + 1, H)
        for j in range(H):
            r[j] = sigmoid(r[j] + b_r[j] + u_r[j])
        for j in range(H):
            z[j] = sigmoid(z[j] + b_z[j] + u_z[j])
        for j in range(H):
            q[j] = u_q[j]
        for j in range(H):
            n[j] = tanh(n[j] + b_n[j] + r[j] * q[j])
        for j in range(H):
            after[j] = n[j] + z[j] * (h[j] - n[j])


@compiled
def gru_backward(t, H, states, gates, dstates, dgates):
    one = states.dtype.type(1)
    for i in range(states.shape[0]):
        own, by = gates[i], dgates[i]
        n, r = _part(own, 4 * t, H), _part(own, 4 * t + 1, H)
        z, q = _part(own, 4 * t + 2, H), _part(own, 4 * t + 3, H)
        dn, dr = _part(by, 4 * t, H), _part(by, 4 * t + 1, H)
        dz, dq = _part(by, 4 * t + 2, H), _part(by, 4 * t + 3, H)
        h, dh = _part(states[i], t, H), _part(dstates[i], t, H)
        dafter = _part(dstates[i], t + 1, H)
        for j in range(H):
            dn[j] = dafter[j] * (one - z[j]) * (one - n[j] * n[j])
        for j in range(H):
            dr[j] = dn[j] * q[j] * r[j] * (one - r[j])
        for j in range(H):
            dz[j] = dafter[j] * (h[j] - n[j]) * z[j] * (one - z[j])
        for j in range(H):
            dq[j] = dn[j] * r[j]
        for j in range(H):
            dh[j] += dafter[j] * z[j]
