"""CUDA twins of posterior/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def sample_gaussian(on, mu, logvar, lower, eps, z):
    draws, Z = common_shape(eps=eps, z=z)
    on.launch("sample_gaussian", z.dtype, (draws, blocks(Z)),
              mu, logvar, lower, eps, z, times(mu, draws), Z)  # fmt: skip


def gaussian_kl(on, mu, logvar, lower, free_bits, kl, slack):
    B, Z = common_shape(mu=mu, logvar=logvar)
    slack = None if free_bits is None else slack
    on.launch("gaussian_kl", kl.dtype, (B, 1), mu, logvar, lower, free_bits or 0, kl, slack, Z)


def sample_gaussian_backward(on, dz, mu, logvar, lower, eps, prior_scale, entropy_scale, free_bits,
                             dmu, dlogvar, dlower):  # fmt: skip
    B, Z = common_shape(mu=mu, logvar=logvar, dmu=dmu, dlogvar=dlogvar)
    draws, Z = common_shape(dz=dz, eps=eps)
    free = float("-inf") if free_bits is None else free_bits
    on.launch("sample_gaussian_backward", dz.dtype, (B, blocks(Z)), dz, mu, logvar, lower, eps,
              prior_scale, entropy_scale, free, dmu, dlogvar, dlower, times(mu, draws),
              Z)  # fmt: skip


def log_importance_weights(on, logvar, eps, z, nll, log_w):
    draws, Z = common_shape(eps=eps, z=z)
    on.launch("log_importance_weights", z.dtype, (draws, 1),
              logvar, eps, z, nll, log_w, times(logvar, draws), Z)  # fmt: skip


def importance_bound(on, log_w, nll, weights, row_nll, row_kl):
    B = row_nll.size
    on.launch("importance_bound", log_w.dtype, (B, 1),
              log_w, nll, weights, row_nll, row_kl, log_w.size // max(B, 1))  # fmt: skip


def posterior_score(on, logvar, lower, eps, score):
    draws, Z = common_shape(eps=eps, score=score)
    on.launch("posterior_score", score.dtype, (blocks(draws), 1),
              logvar, lower, eps, score, times(logvar, draws), draws, Z)  # fmt: skip


def importance_backward(on, dz, z, score, weights, scale):
    draws, Z = common_shape(dz=dz, z=z, score=score)
    on.launch("importance_backward", dz.dtype, (draws, blocks(Z)), dz, z, score, weights, scale, Z)


def times(rows, draws):
    """K, how many draws there are for each of the rows."""
    return draws // max(len(rows), 1)
