"""One variable after the other, p(x) = product over d of p(x_d | x_<d): the specification."""

import numpy as np

from ..support.stable import sigmoid


def nade_logits(x, W, c, V, b, a, h, logits):
    """logits (B, D) of p(x_d = 1 | x_<d) = sigmoid(b_d + V_d h_d), with h_d = sigmoid(a_d) and
    a_d = c + sum over i < d of x_i W_i: x (B, D), W and V (D, H), c (H,), b (D,).

    Larochelle and Murray 2011, equations 4 to 6. The D hidden layers share W, so that
    a_(d+1) = a_d + x_d W_d costs H operations instead of d H. a, h (B, H) are room for the hidden
    layer of the variable at hand.
    """
    a[:] = c
    for d in range(x.shape[1]):
        h[:] = sigmoid(a)
        logits[:, d] = h @ V[d] + b[d]
        a += x[:, d : d + 1] * W[d]


def nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV):
    """Columns first <= j < last of dW, dV (D, H) and dc (H,), given dlogits (B, D); over all rows.

    h_d reaches the loss through logit d only: dV_d = sum over rows of dlogit_d h_d, and
    da_d = dlogit_d V_d h_d (1 - h_d). a_d contains c, and x_i W_i for each i < d, hence
    dc = sum over rows and d of da_d, and dW_i = sum over rows of x_i times sum over d > i of da_d.
    A hidden unit's gradients need no other hidden unit's, so columns can be shared out.
    """
    columns = slice(first, last)
    through = np.cumsum(x[:, :, None] * W[None, :, columns], axis=1)  # (B, D, n): up to x_d W_d
    before = np.concatenate([np.zeros_like(through[:, :1]), through[:, :-1]], axis=1)
    h = sigmoid(c[columns] + before)
    dV[:, columns] = (dlogits[:, :, None] * h).sum(axis=0)
    da = dlogits[:, :, None] * V[None, :, columns] * h * (1 - h)
    from_here = np.cumsum(da[:, ::-1], axis=1)[:, ::-1]  # of d and all that follow
    dc[columns] = from_here[:, 0].sum(axis=0)
    dW[-1, columns] = 0
    dW[:-1, columns] = (x[:, :-1, None] * from_here[:, 1:]).sum(axis=0)


def nade_sample(u, W, c, V, b, a, h, x):
    """x (B, D) drawn from the model, one variable after the other: x_d = [u_d < p_d].

    u (B, D) uniform on (0, 1), and p_d = sigmoid(b_d + V_d h_d) as in `nade_logits` for the x_<d
    that are drawn already. a, h (B, H) are room.
    """
    a[:] = c
    for d in range(x.shape[1]):
        h[:] = sigmoid(a)
        x[:, d] = u[:, d] < sigmoid(h @ V[d] + b[d])
        a += x[:, d : d + 1] * W[d]
