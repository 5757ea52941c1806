"""Numba twins of adversarial/reference.py."""

from ..support.formulas import sigmoid, softplus
from ..support.native import compiled


@compiled
def join_columns(left, right, both):
    m = left.shape[1]
    for i in range(left.shape[0]):
        row, first, last = left[i], both[i, :m], right[i]
        for j in range(m):
            first[j] = row[j]
        rest = both[i, m:]
        for j in range(last.size):
            rest[j] = last[j]


@compiled
def adversarial_losses(logits, judged, d_scale, g_scale, d_loss, g_loss, dlogits, djudged):
    real = logits.dtype.type
    d_factor, g_factor = real(d_scale), real(g_scale)
    for i in range(logits.shape[0]):
        r, f, seen = logits[i, 0], logits[i, 1], judged[i, 0]
        d_loss[i] = softplus(-r) + softplus(f)
        g_loss[i] = softplus(-seen)
        if dlogits is not None:
            dlogits[i, 0] = -d_factor * sigmoid(-r)
            dlogits[i, 1] = d_factor * sigmoid(f)
            djudged[i, 0] = -g_factor * sigmoid(-seen)
