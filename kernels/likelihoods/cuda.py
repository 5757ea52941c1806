"""CUDA twins of likelihoods/reference.py: each launches its kernel of cuda.cu."""

from ..support.launches import blocks, common_shape


def bernoulli_nll(on, logits, x, observed, scale, nll, dlogits):
    B, D = common_shape(logits=logits, x=x, observed=observed, dlogits=dlogits)
    on.launch("bernoulli_nll", logits.dtype, (B, 1), logits, x, observed, scale, nll, dlogits, D)


def bernoulli_mean(on, logits, mean):
    B, D = common_shape(logits=logits, mean=mean)
    on.launch("bernoulli_mean", logits.dtype, (B, blocks(D)), logits, mean, D)


def bernoulli_draw(on, logits, u, x):
    B, D = common_shape(logits=logits, u=u, x=x)
    on.launch("bernoulli_draw", x.dtype, (B, blocks(D)), logits, u, x, D)


def gaussian_nll(on, mean, noise_logvar, x, observed, scale, nll, dmean, dnoise_logvar):
    B, D = common_shape(mean=mean, x=x, observed=observed, dmean=dmean)
    on.launch("gaussian_nll", mean.dtype, (B, 1),
              mean, noise_logvar, x, observed, scale, nll, dmean, dnoise_logvar, D)  # fmt: skip


def gaussian_draw(on, mean, noise_logvar, eps, x):
    B, D = common_shape(mean=mean, eps=eps, x=x)
    on.launch("gaussian_draw", mean.dtype, (B, blocks(D)), mean, noise_logvar, eps, x, D)


# --- tables ---------------------------------------------------------------------------------------


def mixed_nll(on, y, noise_logvar, groups, units, x, observed, scale, nll, dy, dnoise_logvar):
    B, D = common_shape(y=y, x=x, observed=observed, dy=dy)
    on.launch("mixed_nll", y.dtype, (B, 1), y, noise_logvar, groups, units, x, observed, scale,
              nll, dy, dnoise_logvar, len(groups), D)  # fmt: skip


def mixed_mean(on, y, groups, units, mean):
    B, D = common_shape(y=y, mean=mean)
    on.launch("mixed_mean", y.dtype, (B, 1), y, groups, units, mean, len(groups), D)


def mixed_draw(on, y, noise_logvar, groups, units, x):
    B, D = common_shape(y=y, x=x)
    on.launch("mixed_draw", y.dtype, (B, 1), y, noise_logvar, groups, units, x, len(groups), D)
