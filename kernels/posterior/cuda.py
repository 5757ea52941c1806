"""CUDA twins of posterior/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def sample_gaussian(on, mu, logvar, lower, eps, z):
    common_shape(eps=eps, z=z)
    draws, K, Z = _shape(eps, mu=mu, logvar=logvar)
    on.launch("sample_gaussian", z.dtype, (draws, blocks(Z)),
              mu, logvar, lower, eps, z, K, Z)  # fmt: skip


def gaussian_kl(on, mu, logvar, lower, free_bits, kl, slack):
    B, Z = common_shape(mu=mu, logvar=logvar)
    slack = None if free_bits is None else slack
    on.launch("gaussian_kl", kl.dtype, (B, 1), mu, logvar, lower, free_bits or 0, kl, slack, Z)


def sample_gaussian_backward(on, dz, mu, logvar, lower, eps, prior_scale, entropy_scale, free_bits,
                             dmu, dlogvar, dlower):  # fmt: skip
    common_shape(dz=dz, eps=eps)
    _, K, Z = _shape(dz, mu=mu, logvar=logvar, dmu=dmu, dlogvar=dlogvar)
    free = float("-inf") if free_bits is None else free_bits
    on.launch("sample_gaussian_backward", dz.dtype, (len(mu), blocks(Z)), dz, mu, logvar,
              lower, eps, prior_scale, entropy_scale, free, dmu, dlogvar, dlower, K,
              Z)  # fmt: skip


def log_importance_weights(on, logvar, eps, z, nll, log_w):
    common_shape(eps=eps, z=z)
    draws, K, Z = _shape(eps, logvar=logvar)
    on.launch("log_importance_weights", z.dtype, (draws, 1),
              logvar, eps, z, nll, log_w, K, Z)  # fmt: skip


def importance_bound(on, log_w, nll, weights, row_nll, row_kl):
    B = row_nll.size
    on.launch("importance_bound", log_w.dtype, (B, 1),
              log_w, nll, weights, row_nll, row_kl, log_w.size // max(B, 1))  # fmt: skip


def posterior_score(on, logvar, lower, eps, score):
    common_shape(eps=eps, score=score)
    draws, K, Z = _shape(eps, logvar=logvar)
    on.launch("posterior_score", score.dtype, (blocks(draws), 1),
              logvar, lower, eps, score, K, draws, Z)  # fmt: skip


def importance_backward(on, dz, z, score, weights, scale):
    draws, Z = common_shape(dz=dz, z=z, score=score)
    on.launch("importance_backward", dz.dtype, (draws, blocks(Z)), dz, z, score, weights, scale, Z)


def _shape(draws, **rows):
    """(how many draws there are, K for each of the rows, Z)."""
    B, Z = common_shape(**rows)
    n, K = len(draws), len(draws) // max(B, 1)
    if draws.shape != (B * K, Z):
        first = next(iter(rows))
        raise ValueError(
            f"draws have shape {draws.shape}, expected {Z} columns, and as many rows for each of "
            f"the {B} of {first}"
        )
    return n, K, Z
