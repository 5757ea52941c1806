"""What a VAE is trained by: the ELBO of K draws, or the importance-weighted bound.

* "elbo": nll is the mean over draws, kl is in closed form. free_bits (Kingma et al. 2016): so many
  nats of each latent's kl cost nothing; what that gives is a term of its own, slack, so that kl
  stays what it is: kl + slack = sum over latents of max(kl_j, free_bits).
* "iwae" (Burda et al. 2015): nll + kl = -ln (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), which for K = 1
  is the ELBO with a sampled kl, and rises to ln p(x) with K. Its gradient weighs each draw.
* "dreg" (Tucker et al. 2018): the same bound; the encoder's gradient is doubly reparameterised.

The places of what an objective does not need are None. They are arguments here, of functions that
are compiled apart, since only there the compiler leaves out what a None rules out.
"""

from minivae.engine.task import column, region
from minivae.kernels import GAUSSIAN
from minivae.kernels.tables import reference as k

APART = ("below_diagonal", "draw_scale", "terms", "weigh", "latent_gradient")


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


def terms(task, shard, log_w, slack):
    """The terms of the loss of each row, after nll of each draw."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    heads = region(work, plan.encoder.y, shard)
    mu, logvar = heads[:, :Z], heads[:, Z : 2 * Z]
    draw_nll, nll = column(work, plan.draw_nll, shard), column(work, plan.nll, shard)
    kl = column(work, plan.kl, shard)
    if log_w is None:
        if plan.draws > 1:
            k.mean_of_draws(draw_nll, nll)
        lower = below_diagonal(heads, Z, plan.lower)
        if slack is None:
            k.gaussian_kl(mu, logvar, lower, None, kl, None)
        else:
            k.gaussian_kl(mu, logvar, lower, plan.free_bits, kl, column(work, slack, shard))
    else:
        log_w, weights = column(work, log_w, shard), column(work, plan.weights, shard)
        eps, z = region(work, plan.eps, shard), region(work, plan.z, shard)
        k.log_importance_weights(logvar, eps, z, draw_nll, log_w)
        k.importance_bound(log_w, draw_nll, weights, nll, kl)


def weigh(task, shard, weights):
    """Each draw's gradient by nll times its weight, after `terms`."""
    plan, work = task.plan, task.work
    if weights is not None:
        weights = column(work, weights, shard)
        k.scale_rows(weights, region(work, plan.decoder.dy, shard))
        if plan.likelihood == GAUSSIAN:
            k.scale_rows(weights, region(work, plan.dnoise, shard))


def latent_gradient(task, shard, scale, weights, score):
    """dz, with what the loss has of z beside nll; and the scales of E_q[-ln p(z)] and of q's
    entropy, as `sample_gaussian_backward` wants them."""
    plan, work, Z = task.plan, task.work, task.plan.latent_dim
    if weights is None:
        kl_scale = scale * task.recipe.weights[1]
        return kl_scale, kl_scale
    dz, z = region(work, plan.dz, shard), region(work, plan.z, shard)
    weights = column(work, weights, shard)
    if score is None:
        k.importance_backward(dz, z, None, weights, scale)
        return 0.0, scale
    heads, eps = region(work, plan.encoder.y, shard), region(work, plan.eps, shard)
    score = region(work, score, shard)
    k.posterior_score(heads[:, Z : 2 * Z], below_diagonal(heads, Z, plan.lower), eps, score)
    k.importance_backward(dz, z, score, weights, scale)
    return 0.0, 0.0
