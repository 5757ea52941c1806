"""CUDA twins of sequence/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import MAX_GRID_Y, TILE, blocks, common_shape


def nade_logits(on, x, W, c, V, b, a, h, logits):
    (B, D), (_, H) = common_shape(x=x, logits=logits), common_shape(a=a, h=h)
    _check(B, D, H, (W, V), hidden=c, visible=b)
    on.launch("nade_logits", x.dtype, (B, 1), x, W, c, len(c), V, b, len(b), a, h, logits, D, H)


def nade_backward(on, x, dlogits, W, c, V, first, last, dW, dc, dV):
    (B, D), H = common_shape(x=x, dlogits=dlogits), c.shape[1]
    _check(B, D, H, (W, V, dW, dV), hidden=c, dhidden=dc)
    one_by_one = dW is not None or len(dc) == 1  # then something is a sum over rows
    lines = 1 if one_by_one else min(B, MAX_GRID_Y)
    on.launch("nade_backward", x.dtype, (blocks(last - first, TILE), lines), x, dlogits, W, c,
              len(c), V, first, last, dW, dc, 0 if dc is None else len(dc), dV, B, D, H,
              lines)  # fmt: skip


def nade_sample(on, u, W, c, V, b, a, h, x):
    (B, D), (_, H) = common_shape(u=u, x=x), common_shape(a=a, h=h)
    _check(B, D, H, (W, V), hidden=c, visible=b)
    on.launch("nade_sample", x.dtype, (B, 1), u, W, c, len(c), V, b, len(b), a, h, x, D, H)


def levels_nll(on, logits, x, levels, scale, nll, dlogits):
    (B, D), (_, width) = x.shape, common_shape(logits=logits, dlogits=dlogits)
    if width != D * levels:
        raise ValueError(f"logits have shape {logits.shape}, expected {(B, D * levels)}")
    on.launch("levels_nll", logits.dtype, (B, 1), logits, x, levels, scale, nll, dlogits, D)


def levels_draw(on, logits, u, x):
    B, _ = common_shape(u=u, x=x)
    on.launch("levels_draw", x.dtype, (blocks(B), 1), logits, u, x, B, logits.shape[1])


def queue_taps(on, h, queue, t, taps):
    B, C = h.shape
    if taps.shape != (B, 2 * C):
        raise ValueError(f"taps have shape {taps.shape}, expected {(B, 2 * C)}")
    d = queue.shape[1] // C
    on.launch("queue_taps", h.dtype, (B, blocks(C)), h, queue, t % d * C, t >= d, taps, C)


def _check(B, D, H, weights, **biases):
    """ValueError unless weights are (D, H), and biases those of all rows or of each."""
    for matrix in weights:
        if matrix is not None and matrix.shape != (D, H):
            raise ValueError(f"a weight has shape {matrix.shape}, expected {(D, H)}")
    for name, bias in biases.items():
        columns = D if name == "visible" else H
        if bias is not None and bias.shape not in ((1, columns), (B, columns)):
            raise ValueError(
                f"a {name} bias has shape {bias.shape}, expected {(1, columns)} or {(B, columns)}"
            )
