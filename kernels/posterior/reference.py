"""The posterior q(z|x) = N(mu, L L'), with L diagonal or lower triangular: the specification.

A row of the batch has K draws, which are neighbours: eps, z and what belongs to a draw have K rows
for every row of mu. L is given by its entries: L_jj = exp(logvar_j / 2), with logvar held within
+-LOGVAR_BOUND, and `lower` (B, Z (Z - 1) / 2), what is below the diagonal, row after row; None
where q is diagonal.
"""

import numpy as np

from .. import LOGVAR_BOUND


def sample_gaussian(mu, logvar, lower, eps, z):
    """z = mu + L eps, which is N(mu, L L') when eps is N(0, I).

    mu, logvar (B, Z), eps, z (B * K, Z). The randomness does not depend on the parameters (Kingma
    and Welling 2013, 2.4); with L L' = Sigma any covariance is to be had.
    """
    eps = _draws(eps, mu)
    if lower is None:
        spread = np.exp(_held(logvar) / 2)[:, None] * eps
    else:
        spread = np.einsum("bij,bkj->bki", _factor(logvar, lower), eps)
    z[:] = (mu[:, None] + spread).reshape(z.shape)


def gaussian_kl(mu, logvar, lower, free_bits, kl, slack):
    """kl_i = KL(N(mu_i, L_i L_i') || N(0, I)) of each row (B,), in nats.

    KL = E_q[ln q(z) - ln p(z)] = (tr Sigma + mu'mu - Z - ln det Sigma) / 2: E_q z'z is
    tr Sigma + mu'mu and E eps'eps is Z. With Sigma = L L', tr Sigma is the sum of all L_jk^2 and
    ln det Sigma that of logvar. For a diagonal q (Kingma and Welling 2013, appendix B) it is a sum
    over latents of kl_j = (mu_j^2 + exp(logvar_j) - logvar_j - 1) / 2.

    free_bits: None, or so many nats that each latent of a diagonal q has for nothing (Kingma et al.
    2016): slack_i (B,) = sum_j max(free_bits - kl_j, 0) makes kl + slack = sum_j max(kl_j,
    free_bits).
    """
    held = _held(logvar)
    per_latent = (mu * mu + np.exp(held / 2) ** 2 - held - 1) / 2
    kl[:] = per_latent.sum(axis=1)
    if lower is not None:
        kl += (lower * lower).sum(axis=1) / 2
    if free_bits is not None:
        slack[:] = np.maximum(free_bits - per_latent, 0).sum(axis=1)


def sample_gaussian_backward(dz, mu, logvar, lower, eps, prior_scale, entropy_scale, free_bits,
                             dmu, dlogvar, dlower):  # fmt: skip
    """The gradients of f(z) + sum_i of prior_scale E_q[-ln p(z)] - entropy_scale H(q), dz = df/dz.

    dz, eps (B * K, Z), the rest as it is named. KL = E_q[-ln p] - H(q): both scales are that of kl
    where it is in the loss in closed form, and 0 where the loss has ln p(z) and ln q(z) of draws
    in f. As E_q z'z / 2 is (mu'mu + sum L_jk^2) / 2, and H(q) is sum logvar / 2 and a constant:
    dmu = sum_k dz + prior_scale mu,
    dL = sum_k dz eps' + prior_scale L, of which only what is in L counts: entries below the
    diagonal, and L_jj = exp(logvar_j / 2), whose derivative by logvar_j is L_jj / 2, so
    dlogvar_j = (L_jj sum_k dz_j eps_j + prior_scale L_jj^2 - entropy_scale) / 2.
    The same eps as in the forward pass. Where logvar is held at its bound, dlogvar is 0. A latent
    whose kl_j is below free_bits (see `gaussian_kl`) has both scales 0.
    """
    dz, eps = _draws(dz, mu), _draws(eps, mu)
    inside, held = abs(logvar) <= LOGVAR_BOUND, _held(logvar)
    std = np.exp(held / 2)
    if free_bits is not None:
        below = (mu * mu + std**2 - held - 1) / 2 < free_bits
        prior_scale, entropy_scale = prior_scale * ~below, entropy_scale * ~below
    dmu[:] = dz.sum(axis=1) + prior_scale * mu
    pull = (dz * eps).sum(axis=1)
    dlogvar[:] = (std * pull + prior_scale * std**2 - entropy_scale) / 2 * inside
    if lower is not None:
        row, column = np.tril_indices(mu.shape[1], -1)
        dlower[:] = (dz[..., row] * eps[..., column]).sum(axis=1) + prior_scale * lower


def log_importance_weights(logvar, eps, z, nll, log_w):
    """log_w = ln [ p(x|z) p(z) / q(z|x) ] of each draw, in nats, for z = mu + L eps.

    logvar (B, Z), eps, z (B * K, Z), nll, log_w (B * K,). As ln p(z) = -(Z ln 2 pi + z'z) / 2 and
    ln q(z|x) = -(Z ln 2 pi + sum logvar + eps'eps) / 2, since ln det L = sum logvar / 2, the
    densities leave ln p(z) - ln q(z|x) = sum (eps^2 + logvar - z^2) / 2, to which -nll = ln p(x|z)
    is added.
    """
    eps, z = _draws(eps, logvar), _draws(z, logvar)
    ratio = (eps * eps + _held(logvar)[:, None] - z * z).sum(axis=2) / 2
    log_w[:] = ratio.reshape(-1) - nll


def importance_bound(log_w, nll, weights, row_nll, row_kl):
    """The bound of Burda et al. 2015: row_nll + row_kl = -ln (1/K) sum_k w_k of each row (B,).

    log_w, nll and weights (B * K,): weights are w_k / sum_k w_k. As ln w_k = ln weights_k + ln K +
    bound, a weighted mean over draws gives -bound = sum_k weights_k nll_k + (KL(weights || 1/K) +
    sum_k weights_k ln q(z_k|x) / p(z_k)): what q, bettered by the weights, expects of nll, and how
    far that is from the prior. row_nll is the first, row_kl the rest.
    No weight is ever exponentiated before the largest of its row is taken away.
    """
    log_w, nll = _draws(log_w, row_nll), _draws(nll, row_nll)
    largest = log_w.max(axis=1, initial=-np.inf)
    w = np.exp(log_w - largest[:, None])
    total = w.sum(axis=1)
    w /= total[:, None]
    weights[:] = w.reshape(-1)
    row_nll[:] = (w * nll).sum(axis=1)
    row_kl[:] = -(largest + np.log(total / w.shape[1])) - row_nll


def posterior_score(logvar, lower, eps, score):
    """score = d -ln q(z|x) / dz = Sigma^-1 (z - mu) = L'^-1 eps at z = mu + L eps.

    logvar (B, Z), eps, score (B * K, Z): as ln q(z|x) is -(z - mu)' Sigma^-1 (z - mu) / 2 and what
    does not depend on z, and Sigma^-1 L = L'^-1.
    """
    eps = _draws(eps, logvar)
    if lower is None:
        found = eps / np.exp(_held(logvar) / 2)[:, None]
    else:
        L = _factor(logvar, lower)
        found = np.linalg.solve(L.swapaxes(1, 2), eps.swapaxes(1, 2)).swapaxes(1, 2)
    score[:] = found.reshape(score.shape)


def importance_backward(dz, z, score, weights, scale):
    """dz, in place: the gradient by z of the loss scale * sum_i -ln (1/K) sum_k w_k.

    dz, z (B * K, Z), weights (B * K,); dz comes with what went through nll, times weights * scale.
    The gradient by any parameter is -scale sum_k weights_k d ln w_k, since d ln sum w is
    sum dw / sum w. Beside ln p(x|z), ln w has ln p(z), whose -z'z / 2 adds scale weights z to dz,
    and -ln q(z|x), which along z = mu + L eps is sum logvar / 2 and a constant: that is
    `sample_gaussian_backward`'s entropy_scale.

    score: None, or (B * K, Z) of `posterior_score`, for the doubly reparameterised gradient of mu
    and L (Tucker et al. 2018, equation 8). It has the same mean, and a signal that does not drown
    in noise as K grows: only what goes through z counts, with weights^2 in place of weights, so
    dz = weights (dz + scale weights (z - score)), and entropy_scale is 0.
    """
    w = weights[:, None]
    if score is None:
        dz += scale * w * z
    else:
        dz[:] = w * (dz + scale * w * (z - score))


def _draws(array, rows):
    """array (B * K, ...) as (B, K, ...), for rows (B, ...)."""
    return array.reshape((len(rows), len(array) // max(len(rows), 1), *array.shape[1:]))


def _held(logvar):
    return np.clip(logvar, -LOGVAR_BOUND, LOGVAR_BOUND)


def _factor(logvar, lower):
    """L (B, Z, Z)."""
    B, Z = logvar.shape
    L = np.zeros((B, Z, Z), np.result_type(logvar, lower))
    L[:, range(Z), range(Z)] = np.exp(_held(logvar) / 2)
    row, column = np.tril_indices(Z, -1)
    L[:, row, column] = lower
    return L
