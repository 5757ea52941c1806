"""CUDA twins of adversarial/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks


def join_columns(on, left, right, both):
    (B, m), (_, n) = left.shape, right.shape
    if right.shape != (B, n) or both.shape != (B, m + n):
        raise ValueError(f"left, right and both have shapes {left.shape}, {right.shape} and "
                         f"{both.shape}, which do not fit")  # fmt: skip
    on.launch("join_columns", both.dtype, (B, blocks(m + n)), left, right, both, m, m + n)


def adversarial_losses(on, logits, judged, d_scale, g_scale, d_loss, g_loss, dlogits, djudged):
    B = len(logits)
    if logits.shape != (B, 2) or judged.shape != (B, 1):
        raise ValueError(f"logits and judged have shapes {logits.shape} and {judged.shape}, "
                         f"expected {(B, 2)} and {(B, 1)}")  # fmt: skip
    on.launch("adversarial_losses", logits.dtype, (blocks(B), 1), logits, judged, d_scale, g_scale,
              d_loss, g_loss, dlogits, djudged, B)  # fmt: skip
