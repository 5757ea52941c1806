"""Kernels of any table `k` as functions that return their results."""

import numpy as np

from minivae.gradcheck import check_gradient
from minivae.kernels.tables import reference


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def posterior(k, mu, logvar, eps, lower=None):
    """z of each draw and kl of each row; eps may have several draws of a row."""
    dtype = np.result_type(*(a for a in (mu, logvar, lower) if a is not None))
    z, kl = np.empty(eps.shape, dtype), np.empty(len(mu), dtype)
    k.sample_gaussian(mu, logvar, lower, eps, z)
    k.gaussian_kl(mu, logvar, lower, None, kl, None)
    return z, kl


def posterior_backward(k, mu, logvar, eps, dz, kl_scale, lower=None):
    dmu, dlogvar = np.empty_like(mu), np.empty_like(mu)
    dlower = None if lower is None else np.empty_like(lower)
    k.sample_gaussian_backward(dz, mu, logvar, lower, eps, kl_scale, kl_scale, None,
                               dmu, dlogvar, dlower)  # fmt: skip
    return (dmu, dlogvar) if lower is None else (dmu, dlogvar, dlower)


def bernoulli(k, logits, x, observed=None, scale=1.0):
    nll, dlogits = np.empty(len(x), logits.dtype), np.empty_like(logits)
    k.bernoulli_nll(logits, x, observed, scale, nll, dlogits)
    return nll, dlogits


def gaussian(k, mean, s, x, observed=None, scale=1.0):
    nll, ds, dmean = *np.empty((2, len(x)), mean.dtype), np.empty_like(mean)
    k.gaussian_nll(mean, s, x, observed, scale, nll, dmean, ds)
    return nll, dmean, ds.sum(keepdims=True)


def mixed(k, y, s, groups, units, x, observed=None, scale=1.0):
    """nll (B,), dy (B, D), ds (B, R) of rows of a table."""
    dtype = np.result_type(y, s)
    nll, dy, ds = (
        np.empty(len(y), dtype),
        np.empty(y.shape, dtype),
        np.empty((len(y), len(s)), dtype),
    )
    k.mixed_nll(y, s, groups, units, x, observed, scale, nll, dy, ds)
    return nll, dy, ds


def draw(k, kind, shape, dtype=np.float64, seed=7, stream=1, step=2, first_row=0):
    """A new array from random_words, random_uniform or random_normal."""
    out = np.zeros(shape, np.uint32 if kind == "words" else dtype)
    getattr(k, f"random_{kind}")(seed, stream, step, first_row, out)
    return out


def check(k, forward, backward, inputs, dout=None):
    """A gradient by central differences; that of the reference also along the complex step."""
    for method in ("central", "complex") if is_reference(k) else ("central",):
        check_gradient(forward, backward, inputs, dout=dout, method=method).raise_if_failed()


def is_reference(k):
    """Whether a table runs over NumPy, so takes complex numbers; planted bugs are in such ones."""
    return k.matmul is reference.matmul
