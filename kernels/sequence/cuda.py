"""CUDA twins of sequence/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import TILE, blocks, common_shape


def nade_logits(on, x, W, c, V, b, a, h, logits):
    (B, D), (_, H) = common_shape(x=x, logits=logits), common_shape(a=a, h=h)
    _check_weights(D, H, W, V)
    on.launch("nade_logits", x.dtype, (B, 1), x, W, c, V, b, a, h, logits, D, H)


def nade_backward(on, x, dlogits, W, c, V, first, last, dW, dc, dV):
    (B, D), H = common_shape(x=x, dlogits=dlogits), c.size
    _check_weights(D, H, W, V, dW, dV)
    on.launch("nade_backward", x.dtype, (blocks(last - first, TILE), 1),
              x, dlogits, W, c, V, first, last, dW, dc, dV, B, D, H)  # fmt: skip


def nade_sample(on, u, W, c, V, b, a, h, x):
    (B, D), (_, H) = common_shape(u=u, x=x), common_shape(a=a, h=h)
    _check_weights(D, H, W, V)
    on.launch("nade_sample", x.dtype, (B, 1), u, W, c, V, b, a, h, x, D, H)


def _check_weights(D, H, *matrices):
    for matrix in matrices:
        if matrix.shape != (D, H):
            raise ValueError(f"a weight has shape {matrix.shape}, expected {(D, H)}")
