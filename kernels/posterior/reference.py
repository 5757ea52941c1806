"""The posterior q(z|x) = N(mu, diag(exp(logvar))): the specification."""

import numpy as np

from .. import LOGVAR_BOUND


def sample_gaussian(mu, logvar, eps, z, kl):
    """z = mu + exp(logvar / 2) * eps and kl_i = KL(N(mu_i, diag exp(logvar_i)) || N(0, I)) in nats.

    mu, logvar, eps, z (B, Z), kl (B,). With std = exp(logvar / 2), z is N(mu, std^2) when eps is
    N(0, I), and the randomness does not depend on the parameters (Kingma and Welling 2013, 2.4).
    Per latent, KL = E_q[ln q(z) - ln p(z)] = E_q[-logvar/2 - eps^2/2 + z^2/2]
                   = (mu^2 + exp(logvar) - logvar - 1) / 2,
    as E eps^2 = 1 and E z^2 = mu^2 + std^2 (same paper, appendix B); kl sums over latents.
    logvar is first held within +-LOGVAR_BOUND.
    """
    logvar = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    std = np.exp(logvar / 2)
    z[:] = mu + std * eps
    kl[:] = (mu * mu + std * std - logvar - 1).sum(axis=1) / 2


def sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
    """dmu, dlogvar of L = f(z) + kl_scale * sum(kl), given dz = df/dz; all (B, Z).

    In training kl_scale is beta / B. What comes through z and what comes through kl add up:
    dz/dmu = 1 and dKL/dmu = mu, so                    dmu = dz + kl_scale mu.
    dz/dlogvar = eps std / 2, since d exp(l/2)/dl = exp(l/2)/2, and
    dKL/dlogvar = (exp(logvar) - 1) / 2, so  dlogvar = (dz eps std + kl_scale (std^2 - 1)) / 2.
    The same eps as in the forward pass. Where logvar is held at its bound, dlogvar is 0.
    """
    inside = abs(logvar) <= LOGVAR_BOUND
    std = np.exp(np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND) / 2)
    dmu[:] = dz + kl_scale * mu
    dlogvar[:] = (dz * eps * std + kl_scale * (std * std - 1)) / 2 * inside


def log_importance_weights(logvar, eps, z, nll, log_w):
    """log_w_i = ln [ p(x_i|z_i) p(z_i) / q(z_i|x_i) ] in nats, for z as `sample_gaussian` draws it.

    logvar, eps, z (B, Z), nll, log_w (B,). As ln p(z) = -(Z ln 2 pi + z'z) / 2 and
    ln q(z|x) = -(Z ln 2 pi + sum logvar + eps'eps) / 2, the densities leave
    ln p(z) - ln q(z|x) = sum (eps^2 + logvar - z^2) / 2, to which -nll = ln p(x|z) is added.
    """
    logvar = np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)
    log_w[:] = (eps * eps + logvar - z * z).sum(axis=1) / 2 - nll
