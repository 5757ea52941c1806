"""What a VAE is trained by: the ELBO of K draws, or the importance-weighted bound.

* "elbo": nll is the mean over draws, kl is in closed form. free_bits (Kingma et al. 2016): so many
  nats of each latent's kl cost nothing; what that gives is a term of its own, slack, so that kl
  stays what it is: kl + slack = sum over latents of max(kl_j, free_bits).
* "iwae" (Burda et al. 2015): nll + kl = -ln (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), which for K = 1
  is the ELBO with a sampled kl, and rises to ln p(x) with K. Its gradient weighs each draw.
* "dreg" (Tucker et al. 2018): the same bound; the encoder's gradient is doubly reparameterised.

What an objective does not need is None. The functions here are compiled apart, since only among the
arguments of a function the compiler sees a None, and leaves out what it rules out; they get arrays
and not a Task, which costs a compiler much more.
"""

from minivae.kernels.tables import reference as k

APART = ("below_diagonal", "draw_scale", "terms", "weigh", "bound_gradient")


def below_diagonal(heads, Z, lower):
    """The columns of the heads (rows, ...) behind mu and logvar, or None where there are none."""
    if lower is None:
        return None
    return heads[:, 2 * Z :]


def draw_scale(scale, draws, log_w):
    """What a draw's gradient by nll is multiplied with, before `weigh`."""
    if log_w is None:
        return scale / draws
    return scale


def terms(heads, Z, lower, eps, z, draw_nll, log_w, weights, free_bits, nll, kl, slack):
    """The terms of the loss of each row, after nll of each draw."""
    mu, logvar = heads[:, :Z], heads[:, Z : 2 * Z]
    if log_w is None:
        if draw_nll.size > nll.size:  # else they are the same array
            k.mean_of_draws(draw_nll, nll)
        k.gaussian_kl(mu, logvar, lower, free_bits, kl, slack)
    else:
        k.log_importance_weights(logvar, eps, z, draw_nll, log_w)
        k.importance_bound(log_w, draw_nll, weights, nll, kl)


def weigh(dy, dnoise, weights):
    """Each draw's gradient by nll times its weight, after `terms`."""
    if weights is not None:
        k.scale_rows(weights, dy)
        k.scale_rows(weights, dnoise)


def bound_gradient(dz, z, heads, Z, lower, eps, weights, score, scale, kl_scale):
    """dz, with what the loss has of z beside nll; and the scales of E_q[-ln p(z)] and of q's
    entropy, as `sample_gaussian_backward` wants them."""
    if weights is None:
        return kl_scale, kl_scale
    if score is None:
        k.importance_backward(dz, z, None, weights, scale)
        return 0.0, scale
    k.posterior_score(heads[:, Z : 2 * Z], lower, eps, score)
    k.importance_backward(dz, z, score, weights, scale)
    return 0.0, 0.0
