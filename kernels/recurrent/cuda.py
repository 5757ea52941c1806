"""CUDA twins of recurrent/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks


def clear(on, x):
    B, n = x.shape
    on.launch("clear", x.dtype, (B, blocks(n)), x, n)


def gru(on, t, recurrent, bias, states, gates):
    B, H = len(states), bias.size // 3
    _check(t, B, H, states=(states, 1), gates=(gates, 4))
    if recurrent.shape != (B, 3 * H):
        raise ValueError(f"recurrent has shape {recurrent.shape}, expected {(B, 3 * H)}")
    on.launch("gru", states.dtype, (B, blocks(H)), t, recurrent, bias, states, gates, H)


def gru_backward(on, t, H, states, gates, dstates, dgates):
    _check(t, len(states), H, states=(states, 1), gates=(gates, 4), dstates=(dstates, 1),
           dgates=(dgates, 4))  # fmt: skip
    on.launch("gru_backward", states.dtype, (len(states), blocks(H)),
              t, states, gates, dstates, dgates, H)  # fmt: skip


def _check(t, B, H, **matrices):
    """ValueError unless the matrices have a row for each sequence, with its steps side by side."""
    for name, (matrix, times) in matrices.items():
        steps, rest = divmod(matrix.shape[1], times * H)
        if len(matrix) != B or rest or steps < t + (2 if times == 1 else 1):
            raise ValueError(
                f"{name} has shape {matrix.shape}, expected {B} rows of steps of {times * H} "
                f"columns, beyond step {t}"
            )
