"""The training step, once: encoder, sampling, decoder, loss, backward, update.

Every line that computes calls a kernel of the table `k`. `backend.py` gives these same functions
other tables: the reference runs them as Python over NumPy, the CPU machine compiles them whole over
Numba kernels. So they keep to what all machines share: loops over layers, slices of flat buffers.

    loss = mean over rows of nll + beta * kl,   nll = -ln p(x|z),   kl = KL(q(z|x) || N(0, I)),

with z = mu(x) + std(x) * eps, one sample per row: an unbiased estimate of -ELBO for beta = 1
(Kingma and Welling 2013, equation 7). Rows of the batch: B; a worker sees its shard of them.
"""

from typing import NamedTuple

from minivae.kernels import (
    ADAGRAD,
    ADAM,
    BERNOULLI,
    GAUSSIAN,
    SGD,
    STOCHASTIC,
    STREAM_BINARIZE,
    STREAM_POSTERIOR,
    THRESHOLD,
)
from minivae.kernels import reference as k


class Recipe(NamedTuple):
    """How to train: the numbers of the estimator's settings, as compiled code reads them."""

    optimizer: int
    learning_rate: float
    momentum: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    beta: float  # weight of the KL term
    binarize: int
    batch_size: int
    seed: int


# --- views --------------------------------------------------------------------------------------


def weight(plan, layer, flat):
    """The layer's (H_in, H_out) part of a parameter-shaped buffer."""
    H_in, H_out = plan.fan_in[layer], plan.fan_out[layer]
    return flat[plan.weight[layer] : plan.bias[layer]].reshape((H_in, H_out))


def bias(plan, layer, flat):
    """The layer's (H_out,) part of a parameter-shaped buffer."""
    return flat[plan.bias[layer] : plan.bias[layer] + plan.fan_out[layer]]


def output(plan, layer, flat, B):
    """The layer's output (B, H_out) in a workspace buffer."""
    start, H_out = B * plan.output[layer], plan.fan_out[layer]
    return flat[start : start + B * H_out].reshape((B, H_out))


def latent(plan, flat, B):
    """z (B, Z) in a workspace buffer."""
    start, Z = B * plan.latent, plan.latent_dim
    return flat[start : start + B * Z].reshape((B, Z))


def source(plan, layer, flat, B):
    """What the layer reads, (B, H_in), in a workspace buffer; for any layer but the first."""
    if layer == plan.n_encoder:
        return latent(plan, flat, B)
    return output(plan, layer - 1, flat, B)


# --- forward ------------------------------------------------------------------------------------


def encode(plan, theta, x, outputs):
    """x (B, D) -> heads (B, 2 Z), which hold mu | logvar of q(z|x)."""
    h = x
    for layer in range(plan.n_encoder):
        h = dense(plan, layer, theta, h, outputs)
    return h


def decode(plan, theta, z, outputs):
    """z (B, Z) -> logits (Bernoulli) or mean (Gaussian) of p(x|z), (B, D)."""
    h = z
    for layer in range(plan.n_encoder, plan.weight.size):
        h = dense(plan, layer, theta, h, outputs)
    return h


def dense(plan, layer, theta, h, outputs):
    """y = f(h W + b): (B, H_in) -> (B, H_out), kept in outputs."""
    y = output(plan, layer, outputs, h.shape[0])
    k.matmul(h, weight(plan, layer, theta), y)
    k.bias_activation(y, bias(plan, layer, theta), plan.activation[layer])
    return y


def likelihood(plan, theta, y, x, mask, scale, nll, dy, gradient):
    """nll (B,) of x given the decoder's output y; scale times its gradient to dy and gradient."""
    if plan.likelihood == BERNOULLI:
        k.bernoulli_nll(y, x, mask, scale, nll, dy)
    else:
        assert plan.likelihood == GAUSSIAN
        end = plan.noise + 1
        noise_logvar, dnoise_logvar = theta[plan.noise : end], gradient[plan.noise : end]
        k.gaussian_nll(y, noise_logvar, x, mask, scale, nll, dy, dnoise_logvar)


def forward(plan, theta, x, mask, eps, scale, work, gradient):
    """nll and kl of each row into work; the likelihood's gradient comes with it, times scale."""
    B, Z = eps.shape
    heads = encode(plan, theta, x, work.outputs)
    z = latent(plan, work.outputs, B)
    k.sample_gaussian(heads[:, :Z], heads[:, Z:], eps, z, work.kl[:B])
    y = decode(plan, theta, z, work.outputs)
    dy = output(plan, plan.weight.size - 1, work.deltas, B)
    likelihood(plan, theta, y, x, mask, scale, work.nll[:B], dy, gradient)


# --- backward -----------------------------------------------------------------------------------


def backward(plan, theta, x, eps, kl_scale, work, gradient):
    """gradient (P,) of scale * sum(nll) + kl_scale * sum(kl), after `forward` on the same batch."""
    B, Z = eps.shape
    heads = plan.n_encoder - 1
    for layer in range(plan.weight.size - 1, -1, -1):
        dy = output(plan, layer, work.deltas, B)
        if layer == heads:
            y, dz = output(plan, layer, work.outputs, B), latent(plan, work.deltas, B)
            mu, logvar, dmu, dlogvar = y[:, :Z], y[:, Z:], dy[:, :Z], dy[:, Z:]
            k.sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar)
        if layer > 0:
            dense_backward(plan, layer, source(plan, layer, work.outputs, B), work, gradient)
            k.matmul(dy, weight(plan, layer, theta).T, source(plan, layer, work.deltas, B))
        else:
            dense_backward(plan, layer, x, work, gradient)


def dense_backward(plan, layer, h, work, gradient):
    """dW = h^T da and db = sum of da over rows, where da = dy f'(a) replaces dy (B, H_out)."""
    B = h.shape[0]
    y, dy = output(plan, layer, work.outputs, B), output(plan, layer, work.deltas, B)
    k.bias_activation_backward(dy, y, plan.activation[layer], bias(plan, layer, gradient))
    k.matmul(h.T, dy, weight(plan, layer, gradient))


# --- the whole step -----------------------------------------------------------------------------


def loss_and_gradient(plan, theta, x, mask, eps, scale, beta, work, gradient):
    """nll and kl of each row into work, and gradient (P,) of scale * sum(nll + beta * kl)."""
    forward(plan, theta, x, mask, eps, scale, work, gradient)
    backward(plan, theta, x, eps, scale * beta, work, gradient)


def binarize(x, mode, seed, stream, step, first_row):
    """Grey values to 0 and 1, in place, as the recipe asks."""
    if mode == THRESHOLD:
        k.threshold(x)
    elif mode == STOCHASTIC:
        k.random_binarize(x, seed, stream, step, first_row)


def update(recipe, theta, gradient, moments, step):
    """Step 0, 1, ... of the optimiser on a part (p,) of the parameters, with its moments (2, p)."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == ADAM:
        k.adam(theta, gradient, moments[0], moments[1], step + 1, rate,
               recipe.beta1, recipe.beta2, recipe.epsilon, decay)  # fmt: skip
    elif recipe.optimizer == ADAGRAD:
        k.adagrad(theta, gradient, moments[0], rate, decay, recipe.epsilon)
    else:
        assert recipe.optimizer == SGD
        k.sgd(theta, gradient, moments[0], rate, recipe.momentum, decay)


def train(plan, recipe, data, order, first_step, theta, moments, gradients, work, totals,
          barrier, worker):  # fmt: skip
    """Train on the rows `order` of data, one batch after the other, as one of the workers.

    All workers run this same program on the same arguments but for `work` and `worker`: each takes
    its shard of every batch and writes its own row of gradients (S, P); after all are there, each
    sums and updates its own part of the parameters. totals (S, 2) grows by the sums of nll and kl.
    """
    workers = gradients.shape[0]
    P = plan.n_parameters
    begin, end = P * worker // workers, P * (worker + 1) // workers
    step = first_step
    for start in range(0, order.size, recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        first, last = rows.size * worker // workers, rows.size * (worker + 1) // workers
        x, eps = work.x[: last - first], work.eps[: last - first]
        k.gather(data, rows[first:last], x)
        binarize(x, recipe.binarize, recipe.seed, STREAM_BINARIZE, step, first)
        k.random_normal(recipe.seed, STREAM_POSTERIOR, step, first, eps)

        loss_and_gradient(plan, theta, x, None, eps, 1 / rows.size, recipe.beta, work,
                          gradients[worker])  # fmt: skip
        totals[worker, 0] += work.nll[: last - first].sum()
        totals[worker, 1] += work.kl[: last - first].sum()

        k.join(barrier, workers)
        k.sum_shards(gradients[:, begin:end])
        update(recipe, theta[begin:end], gradients[0, begin:end], moments[:, begin:end], step)
        k.join(barrier, workers)
        step += 1
