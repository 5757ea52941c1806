"""Steps of a recurrent net, a gated recurrent unit: the specification.

Cho et al. 2014, in the form that multiplies the state once (as cuDNN and PyTorch do): of the input
x (B, w) and the state h (B, H), with weights W (w, 3 H) and U (H, 3 H) and a bias,

    r = sigmoid(a_r + b_r + u_r)            [a_n a_r a_z] = x W
    z = sigmoid(a_z + b_z + u_z)            [u_r u_z q] = h U
    n = tanh(a_n + b_n + r q)               h' = (1 - z) n + z h

The products are `matmul`'s: those with W of all steps at once, those with U step by step. Here is
what lies between them, and what the way back needs of it: n, r, z and q, side by side. In this
order n r z are what W makes, and r z q what U makes, each of them neighbours.

Matrices have a row for each sequence, with its steps side by side: states (B, T H), gates
(B, 4 T H), and the gradients by them. Of gates there may be a step less.
"""

import numpy as np

from ..support.stable import sigmoid


def clear(x):
    """x (B, n) = 0: a first state, or the gradient of a step that is not there."""
    x[:] = 0


def gru(t, recurrent, bias, states, gates):
    """The state of step t + 1 from that of step t, and the gates [n r z q] of step t, whose first
    three are x_t W before; recurrent (B, 3 H) = h_t U, bias (3 H,)."""
    H = bias.size // 3
    h, after = _step(states, t, H), _step(states, t + 1, H)
    n, r, z, q = np.split(_step(gates, t, 4 * H), 4, axis=1)
    b_n, b_r, b_z = np.split(bias, 3)
    u_r, u_z, u_q = np.split(recurrent, 3, axis=1)
    r[:] = sigmoid(r + b_r + u_r)
    z[:] = sigmoid(z + b_z + u_z)
    q[:] = u_q
    n[:] = np.tanh(n + b_n + r * q)
    after[:] = n + z * (h - n)


def gru_backward(t, H, states, gates, dstates, dgates):
    """dgates of step t, given dstates of step t + 1. To that of step t is added what does not go
    through U; H units.

    h' = (1 - z) n + z h gives dn = dh' (1 - z), dz = dh' (h - n) and, as its direct part,
    dh = dh' z. Each gate's slope is a function of its value: tanh' = 1 - n^2, sigmoid' = s (1 - s).
    So, with g the gradient by the argument of tanh,

        g = dh' (1 - z) (1 - n^2)       dr = g q r (1 - r)
        dq = g r                        dz = dh' (h - n) z (1 - z)

    and dgates = [g dr dz dq]. Then dW = x^T [g dr dz], the bias gets the sum of [g dr dz] over the
    rows, dU = h^T [dr dz dq], and the rest of dh is [dr dz dq] U^T.
    """
    h, dh, dafter = _step(states, t, H), _step(dstates, t, H), _step(dstates, t + 1, H)
    n, r, z, q = np.split(_step(gates, t, 4 * H), 4, axis=1)
    dn, dr, dz, dq = np.split(_step(dgates, t, 4 * H), 4, axis=1)
    dn[:] = dafter * (1 - z) * (1 - n * n)
    dr[:] = dn * q * r * (1 - r)
    dz[:] = dafter * (h - n) * z * (1 - z)
    dq[:] = dn * r
    dh += dafter * z


def _step(matrix, t, columns):
    """The columns of step t."""
    return matrix[:, t * columns : (t + 1) * columns]
