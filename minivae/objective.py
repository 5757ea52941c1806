"""The training step, once: encoder, sampling, decoder, loss, backward, update.

Every line that computes calls a kernel of the table `k`. `backend.py` gives these same functions
other tables: the reference runs them as Python over NumPy, the CPU machine compiles them whole over
Numba kernels. So they keep to what all machines share: loops over layers, slices of flat buffers.

    loss = mean over rows of nll + beta * kl,   nll = -ln p(x|z),   kl = KL(q(z|x) || N(0, I)),

with z = mu(x) + std(x) * eps, one sample per row: an unbiased estimate of -ELBO for beta = 1
(Kingma and Welling 2013, equation 7).

Workers share a step in two halves, with one wait after each. First every worker takes some rows of
the batch: forward, and backward down to the gradient by each layer's output. Then it takes some
rows of every weight matrix: their gradient over the whole batch, and their update. So no gradient
is ever added up across workers, and compiled results have the same bits for any number of them.
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


class Shard(NamedTuple):
    """The rows first <= i < last of a batch of B rows: what one worker computes on."""

    B: int
    first: int
    last: int


# --- views --------------------------------------------------------------------------------------


def weight(plan, layer, flat):
    """The layer's (H_in, H_out) part of a parameter-shaped buffer."""
    H_in, H_out = plan.fan_in[layer], plan.fan_out[layer]
    return flat[plan.weight[layer] : plan.bias[layer]].reshape((H_in, H_out))


def bias(plan, layer, flat):
    """The layer's (H_out,) part of a parameter-shaped buffer."""
    return flat[plan.bias[layer] : plan.bias[layer] + plan.fan_out[layer]]


def output(plan, layer, flat, shard):
    """The shard's rows of the layer's output (B, H_out) in a workspace buffer."""
    return matrix(flat, shard, plan.output[layer], plan.fan_out[layer])


def latent(plan, flat, shard):
    """The shard's rows of z (B, Z) in a workspace buffer."""
    return matrix(flat, shard, plan.latent, plan.latent_dim)


def source(plan, layer, flat, shard):
    """The shard's rows of what the layer reads, (B, H_in), in a workspace buffer; x for layer 0."""
    return matrix(flat, shard, plan.source[layer], plan.fan_in[layer])


def matrix(flat, shard, place, columns):
    """The shard's rows of the (B, columns) matrix that begins at B * place."""
    start = shard.B * place + shard.first * columns
    rows = shard.last - shard.first
    return flat[start : start + rows * columns].reshape((rows, columns))


# --- forward ------------------------------------------------------------------------------------


def encode(plan, theta, outputs, shard):
    """From x (rows, D) in outputs to the heads (rows, 2 Z), which hold mu | logvar of q(z|x)."""
    for layer in range(plan.n_encoder):
        dense(plan, layer, theta, outputs, shard)
    return output(plan, plan.n_encoder - 1, outputs, shard)


def decode(plan, theta, outputs, shard):
    """From z (rows, Z) in outputs to logits (Bernoulli) or mean (Gaussian) of p(x|z), (rows, D)."""
    for layer in range(plan.n_encoder, plan.weight.size):
        dense(plan, layer, theta, outputs, shard)
    return output(plan, plan.weight.size - 1, outputs, shard)


def dense(plan, layer, theta, outputs, shard):
    """y = f(h W + b): (rows, H_in) -> (rows, H_out)."""
    h, y = source(plan, layer, outputs, shard), output(plan, layer, outputs, shard)
    k.matmul(h, weight(plan, layer, theta), y)
    k.bias_activation(y, bias(plan, layer, theta), plan.activation[layer])


def likelihood(plan, theta, y, x, mask, scale, nll, dy, dnoise):
    """nll (rows,) of x for the decoder's output y; its gradient by y and noise, times scale."""
    if plan.likelihood == BERNOULLI:
        k.bernoulli_nll(y, x, mask, scale, nll, dy)
    else:
        assert plan.likelihood == GAUSSIAN
        noise_logvar = theta[plan.noise : plan.noise + 1]
        k.gaussian_nll(y, noise_logvar, x, mask, scale, nll, dy, dnoise)


def forward(plan, theta, mask, scale, work, shard):
    """nll and kl of the shard's rows; the likelihood's gradient comes with it, times scale."""
    first, last, Z = shard.first, shard.last, plan.latent_dim
    nll, kl, dnoise = work.nll[first:last], work.kl[first:last], work.dnoise[first:last]
    x = source(plan, 0, work.outputs, shard)
    heads = encode(plan, theta, work.outputs, shard)
    z = latent(plan, work.outputs, shard)
    k.sample_gaussian(heads[:, :Z], heads[:, Z:], work.eps[first:last], z, kl)
    y = decode(plan, theta, work.outputs, shard)
    dy = output(plan, plan.weight.size - 1, work.deltas, shard)
    likelihood(plan, theta, y, x, mask, scale, nll, dy, dnoise)


# --- backward -----------------------------------------------------------------------------------


def backward(plan, theta, kl_scale, work, shard):
    """After `forward` on the shard: the gradient of scale * sum(nll) + kl_scale * sum(kl) by every
    layer's h W + b, into deltas."""
    Z, heads = plan.latent_dim, plan.n_encoder - 1
    eps = work.eps[shard.first : shard.last]
    for layer in range(plan.weight.size - 1, -1, -1):
        y, dy = output(plan, layer, work.outputs, shard), output(plan, layer, work.deltas, shard)
        if layer == heads:
            dz = latent(plan, work.deltas, shard)
            mu, logvar, dmu, dlogvar = y[:, :Z], y[:, Z:], dy[:, :Z], dy[:, Z:]
            k.sample_gaussian_backward(dz, mu, logvar, eps, kl_scale, dmu, dlogvar)
        k.activation_backward(dy, y, plan.activation[layer])
        if layer > 0:
            dh = source(plan, layer, work.deltas, shard)
            k.matmul(dy, weight(plan, layer, theta).T, dh)


def layer_gradient(plan, layer, work, batch, gradient, worker, workers):
    """The worker's part of a layer's gradient over the batch: rows of dW = h^T dy, and of db."""
    h, dy = source(plan, layer, work.outputs, batch), output(plan, layer, work.deltas, batch)
    first, last = share(plan.fan_in[layer], worker, workers)
    k.matmul(h[:, first:last].T, dy, weight(plan, layer, gradient)[first:last])
    first, last = share(plan.fan_out[layer], worker, workers)
    k.sum_rows(dy, first, bias(plan, layer, gradient)[first:last])


def noise_gradient(plan, work, batch, gradient):
    """The gradient by decoder.noise_logvar: the sum over the batch of what each row has to say."""
    dnoise = work.dnoise[: batch.B].reshape((batch.B, 1))
    k.sum_rows(dnoise, batch.first, gradient[plan.noise : plan.noise + 1])


def share(n, worker, workers):
    """The worker's part first <= i < last of n things."""
    return n * worker // workers, n * (worker + 1) // workers


# --- the whole step -----------------------------------------------------------------------------


def loss_and_gradient(plan, theta, mask, scale, beta, work, batch, gradient):
    """nll and kl of each row in work, and gradient (P,) of scale * sum(nll + beta * kl)."""
    forward(plan, theta, mask, scale, work, batch)
    backward(plan, theta, scale * beta, work, batch)
    for layer in range(plan.weight.size):
        layer_gradient(plan, layer, work, batch, gradient, 0, 1)
    if plan.likelihood == GAUSSIAN:
        noise_gradient(plan, work, batch, gradient)


def binarize(x, mode, seed, stream, step, first_row):
    """Grey values to 0 and 1, in place, as the recipe asks."""
    if mode == THRESHOLD:
        k.threshold(x)
    elif mode == STOCHASTIC:
        k.random_binarize(x, seed, stream, step, first_row)


def update(recipe, theta, gradient, moments, step, begin, end):
    """Step 0, 1, ... of the optimiser on the parameters begin <= i < end; moments (2, P)."""
    theta, gradient = theta[begin:end], gradient[begin:end]
    first, second = moments[0, begin:end], moments[1, begin:end]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == ADAM:
        k.adam(theta, gradient, first, second, step + 1, rate,
               recipe.beta1, recipe.beta2, recipe.epsilon, decay)  # fmt: skip
    elif recipe.optimizer == ADAGRAD:
        k.adagrad(theta, gradient, first, rate, decay, recipe.epsilon)
    else:
        assert recipe.optimizer == SGD
        k.sgd(theta, gradient, first, rate, recipe.momentum, decay)


def descend(plan, recipe, layer, theta, moments, gradient, step, work, batch, worker, workers):
    """Gradient and update of the worker's part of one layer, while the gradient is in cache."""
    layer_gradient(plan, layer, work, batch, gradient, worker, workers)
    H_out = plan.fan_out[layer]
    first, last = share(plan.fan_in[layer], worker, workers)
    begin, end = plan.weight[layer] + first * H_out, plan.weight[layer] + last * H_out
    if workers == 1:
        end += H_out  # the bias is right behind the weight: one pass over both
    update(recipe, theta, gradient, moments, step, begin, end)
    if workers > 1:
        first, last = share(H_out, worker, workers)
        begin = plan.bias[layer]
        update(recipe, theta, gradient, moments, step, begin + first, begin + last)


def train(plan, recipe, data, order, first_step, theta, moments, gradient, work, totals,
          barrier, worker, workers):  # fmt: skip
    """Train on the rows `order` of data, one batch after the other, as one of the workers.

    All workers run this same program on the same arguments but for `worker`. totals (2,) grows by
    the sums of nll and kl. Returns how many steps were made: fewer than there are batches where a
    loss is not finite; the batch that gave it has changed nothing.
    """
    step = first_step
    for start in range(0, order.size, recipe.batch_size):
        rows = order[start : start + recipe.batch_size]
        if not train_step(plan, recipe, data, rows, step, theta, moments, gradient, work, totals,
                          barrier, worker, workers):  # fmt: skip
            break
        step += 1
    return step - first_step


def train_step(plan, recipe, data, rows, step, theta, moments, gradient, work, totals,
               barrier, worker, workers):  # fmt: skip
    """One step on the batch `rows` of data; whether its loss was finite, else nothing changes."""
    B = rows.size
    first, last = share(B, worker, workers)
    shard, batch = Shard(B, first, last), Shard(B, 0, B)
    x, eps = source(plan, 0, work.outputs, shard), work.eps[first:last]
    k.gather(data, rows[first:last], x)
    binarize(x, recipe.binarize, recipe.seed, STREAM_BINARIZE, step, first)
    k.random_normal(recipe.seed, STREAM_POSTERIOR, step, first, eps)
    forward(plan, theta, None, 1 / B, work, shard)
    backward(plan, theta, recipe.beta / B, work, shard)
    k.join(barrier, workers)

    if not k.all_finite(work.nll[:B], work.kl[:B]):
        return False
    for layer in range(plan.weight.size):
        descend(plan, recipe, layer, theta, moments, gradient, step, work, batch, worker, workers)
    if worker == 0:
        k.add_totals(work.nll[:B], work.kl[:B], totals)
        if plan.likelihood == GAUSSIAN:
            noise_gradient(plan, work, batch, gradient)
            update(recipe, theta, gradient, moments, step, plan.noise, plan.noise + 1)
    k.join(barrier, workers)
    return True
