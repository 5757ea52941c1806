"""CUDA twins of posterior/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def sample_gaussian(on, mu, logvar, eps, z, kl):
    B, Z = common_shape(mu=mu, logvar=logvar, eps=eps, z=z)
    on.launch("sample_gaussian", z.dtype, (B, 1), mu, logvar, eps, z, kl, Z)


def sample_gaussian_backward(on, dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    B, Z = common_shape(dz=dz, mu=mu, logvar=logvar, eps=eps, dmu=dmu, dlogvar=dlogvar)
    on.launch("sample_gaussian_backward", dz.dtype, (B, blocks(Z)),
              dz, mu, logvar, eps, kl_scale, dmu, dlogvar, Z)  # fmt: skip


def log_importance_weights(on, logvar, eps, z, nll, log_w):
    B, Z = common_shape(logvar=logvar, eps=eps, z=z)
    on.launch("log_importance_weights", z.dtype, (B, 1), logvar, eps, z, nll, log_w, Z)
