"""CUDA twins of couplings/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def dequantize(on, x, noise, levels, u):
    B, D = common_shape(x=x, noise=noise, u=u)
    on.launch("dequantize", u.dtype, (B, blocks(D)), x, noise, levels, u, D)


def quantize(on, u, levels, x):
    B, D = common_shape(u=u, x=x)
    on.launch("quantize", x.dtype, (B, blocks(D)), u, levels, x, D)


def split_columns(on, x, even, odd):
    B, D = _check_halves(x, even, odd)
    on.launch("split_columns", x.dtype, (B, blocks(D)), x, even, odd, D)


def merge_columns(on, even, odd, x):
    B, D = _check_halves(x, even, odd)
    on.launch("merge_columns", x.dtype, (B, blocks(D)), even, odd, x, D)


def coupling(on, x, heads, y, log_det):
    B, h = common_shape(x=x, y=y)
    affine = _is_affine(x, heads)
    if log_det.shape != (B, 1):
        raise ValueError(f"log_det has shape {log_det.shape}, expected {(B, 1)}")
    on.launch("coupling", y.dtype, (B, 1), x, heads, y, log_det, affine, h)


def coupling_backward(on, dy, x, heads, scale, dx, dheads):
    (B, h), _ = common_shape(dy=dy, x=x, dx=dx), common_shape(heads=heads, dheads=dheads)
    on.launch("coupling_backward", dx.dtype, (B, blocks(h)),
              dy, x, heads, scale, dx, dheads, _is_affine(x, heads), h)  # fmt: skip


def coupling_inverse(on, y, heads, x):
    B, h = common_shape(y=y, x=x)
    on.launch("coupling_inverse", x.dtype, (B, blocks(h)), y, heads, x, _is_affine(y, heads), h)


def add(on, part, total):
    B, h = common_shape(part=part, total=total)
    on.launch("add", total.dtype, (B, blocks(h)), part, total, h)


def prior_nll(on, y, log_scale, log_det, log_volume, prior, scale, z, nll, dy, dlog_scale):
    B, D = common_shape(y=y, z=z, dy=dy, dlog_scale=dlog_scale)
    if log_scale.shape != (D,) or len(log_det) != B:
        raise ValueError(
            f"log_scale and log_det have shapes {log_scale.shape} and {log_det.shape}, "
            f"expected {(D,)} and {B} rows"
        )
    on.launch("prior_nll", z.dtype, (B, 1), y, log_scale, log_det, log_volume, prior, scale, z, nll,
              dy, dlog_scale, log_det.shape[1], D)  # fmt: skip


def scale_inverse(on, z, log_scale, y):
    B, D = common_shape(z=z, y=y)
    if log_scale.shape != (D,):
        raise ValueError(f"log_scale has shape {log_scale.shape}, expected {(D,)}")
    on.launch("scale_inverse", y.dtype, (B, blocks(D)), z, log_scale, y, D)


def logistic(on, u, z):
    B, D = common_shape(u=u, z=z)
    on.launch("logistic", z.dtype, (B, blocks(D)), u, z, D)


def _check_halves(x, even, odd):
    """The shape of x; ValueError unless the halves have its columns."""
    B, D = x.shape
    if even.shape != (B, (D + 1) // 2) or odd.shape != (B, D // 2):
        raise ValueError(f"halves have shapes {even.shape} and {odd.shape}, expected those of "
                         f"{(B, D)}")  # fmt: skip
    return B, D


def _is_affine(x, heads):
    """Whether the heads (B, h or 2 h) of a half x (B, h) have scales."""
    B, h = x.shape
    if heads.shape not in ((B, h), (B, 2 * h)):
        raise ValueError(f"heads have shape {heads.shape}, expected {(B, h)} or {(B, 2 * h)}")
    return int(heads.shape[1] > h)
