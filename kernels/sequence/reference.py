"""One variable after the other, p(x) = product over d of p(x_d | x_<d): the specification."""

import numpy as np

from ..support.stable import sigmoid


def nade_logits(x, W, c, V, b, a, h, logits):
    """logits (B, D) of p(x_d = 1 | x_<d) = sigmoid(b_d + V_d h_d), with h_d = sigmoid(a_d) and
    a_d = c + sum over i < d of x_i W_i: x (B, D), W and V (D, H). The biases c (1, H), b (1, D) are
    those of all rows; or each row has its own, c (B, H), b (B, D), made from what the variables
    depend on besides (Boulanger-Lewandowski et al. 2012, the RNN-NADE).

    Larochelle and Murray 2011, equations 4 to 6. The D hidden layers share W, so that
    a_(d+1) = a_d + x_d W_d costs H operations instead of d H. a, h (B, H) are room for the hidden
    layer of the variable at hand.
    """
    a[:] = c
    for d in range(x.shape[1]):
        h[:] = sigmoid(a)
        logits[:, d] = h @ V[d] + b[:, d]
        a += x[:, d : d + 1] * W[d]


def nade_backward(x, dlogits, W, c, V, first, last, dW, dc, dV):
    """Columns first <= j < last of dW, dV (D, H) and of dc, given dlogits (B, D); dW and dV summed
    over all rows. dc has the shape of c: (1, H) for the sum over all rows, or (B, H). dW and dV, or
    dc, may be None, if nobody asks for them.

    h_d reaches the loss through logit d only: dV_d = sum over rows of dlogit_d h_d, and
    da_d = dlogit_d V_d h_d (1 - h_d). a_d contains c, and x_i W_i for each i < d, hence
    dc = sum over d of da_d, and dW_i = sum over rows of x_i times sum over d > i of da_d.
    A hidden unit's gradients need no other hidden unit's, so columns can be shared out.
    """
    columns = slice(first, last)
    through = np.cumsum(x[:, :, None] * W[None, :, columns], axis=1)  # (B, D, n): up to x_d W_d
    before = np.concatenate([np.zeros_like(through[:, :1]), through[:, :-1]], axis=1)
    h = sigmoid(c[:, None, columns] + before)
    da = dlogits[:, :, None] * V[None, :, columns] * h * (1 - h)
    from_here = np.cumsum(da[:, ::-1], axis=1)[:, ::-1]  # of d and all that follow
    if dc is not None:
        dc[:, columns] = from_here[:, 0].sum(axis=0) if len(dc) == 1 else from_here[:, 0]
    if dW is not None:
        dV[:, columns] = (dlogits[:, :, None] * h).sum(axis=0)
        dW[-1, columns] = 0
        dW[:-1, columns] = (x[:, :-1, None] * from_here[:, 1:]).sum(axis=0)


def nade_sample(u, W, c, V, b, a, h, x):
    """x (B, D) drawn from the model, one variable after the other: x_d = [u_d < p_d].

    u (B, D) uniform on (0, 1), and p_d = sigmoid(b_d + V_d h_d) as in `nade_logits` for the x_<d
    that are drawn already, with its biases. a, h (B, H) are room.
    """
    a[:] = c
    for d in range(x.shape[1]):
        h[:] = sigmoid(a)
        x[:, d] = u[:, d] < sigmoid(h @ V[d] + b[:, d])
        a += x[:, d : d + 1] * W[d]


# --- by levels, and with a queue ------------------------------------------------------------------


def levels_nll(logits, x, levels, scale, nll, dlogits):
    """nll_i = -ln of the probability of row i's levels, in nats, and dlogits = scale * its
    gradient.

    x (B, D) in [0, 1], rounded to a level k / (levels - 1); logits, dlogits (B, D * levels): those
    of a softmax for each variable, one behind the other; nll (B,). A variable of level k and logits
    l costs ln(sum_c e^l_c) - l_k, so d/dl_c = softmax(l)_c - [c = k]. The largest logit is taken
    out of the sum before exp. dlogits may be None, or the array logits itself.
    """
    logits = logits.reshape(*x.shape, levels)
    drawn = _level(x, levels)[:, :, None] == np.arange(levels)
    p, log_sum = _softmax(logits)
    nll[:] = np.where(drawn, log_sum - logits, 0).sum(axis=(1, 2))
    if dlogits is not None:
        dlogits[:] = (scale * (p - drawn)).reshape(dlogits.shape)


def levels_draw(logits, u, x):
    """x (B, 1) <- a level k / (C - 1) drawn for its logits (B, C), by u (B, 1) uniform on (0, 1).

    k is the first one with p_0 + ... + p_k > u, for p = softmax(logits): the sum passes u at k with
    the probability p_k.
    """
    C = logits.shape[1]
    below = np.cumsum(_softmax(logits)[0], axis=1)[:, :-1] <= u
    x[:, 0] = below.sum(axis=1) / (C - 1)


def queue_taps(h, queue, t, taps):
    """taps (B, 2 C) = h_(t-d) | h_t at position t of every row, for h = h_t (B, C).

    queue (B, d C): h of the d positions before t, each in the place t mod d; h_t replaces the one
    that is read, which no later position needs. What is before the first position is 0, whatever
    the queue holds (van den Oord et al. 2016, section 2; the queue is of Le Paine et al. 2016).
    """
    C = h.shape[1]
    d = queue.shape[1] // C
    slot = queue[:, t % d * C : t % d * C + C]
    taps[:, :C] = slot if t >= d else 0
    taps[:, C:] = h
    slot[:] = h


def _level(x, levels):
    """k, for the level k / (levels - 1) next to x."""
    return np.floor(x * (levels - 1) + 0.5)


def _softmax(logits):
    """softmax over the last axis, and ln(sum e^logits) with that axis kept."""
    top = logits.max(axis=-1, keepdims=True)
    e = np.exp(logits - top)
    total = e.sum(axis=-1, keepdims=True)
    return e / total, top + np.log(total)
