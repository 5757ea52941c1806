"""The VAE of `peers.py` in JAX: one jitted call per step, or one jitted lax.scan per epoch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Jax:
    """State: parameters, the optimiser's moments, the step's number; donated to every call."""

    def __init__(self, problem, setting, X, arrays):
        # The cheapest generator that JAX has; its default, threefry, costs a little more.
        jax.config.update("jax_default_prng_impl", setting.get("prng", "unsafe_rbg"))
        self.setting = setting
        self.problem, self.X = problem, jax.device_put(X)
        self.shapes = [array.shape for array in arrays]
        # One flat buffer: fewer arguments and one update, but gradients to join. Good if small.
        self.flat = setting.get("flat", False)
        if self.flat:
            arrays = np.concatenate([array.ravel() for array in arrays])
        parameters = jax.tree.map(jnp.asarray, arrays)
        n_moments = {"adam": 2, "sgd": 0}[problem.optimizer]
        moments = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(n_moments)]
        self.state = (parameters, moments, jnp.zeros((), jnp.int32))
        self.key, self.rng = jax.random.key(0), np.random.default_rng(0)
        self.threads, self.scan = setting["threads"], setting["scan"]
        self.granule = problem.steps_per_epoch if self.scan else 1
        self.call = jax.jit(self.many_steps if self.scan else self.one_step, donate_argnums=0)

    def train(self, steps):
        per_epoch, batch = self.problem.steps_per_epoch, self.problem.batch
        while steps > 0:
            # NumPy's permutation is the quickest, once per epoch
            order = self.rng.permutation(len(self.X)).astype(np.int32).reshape(per_epoch, batch)
            order = jax.device_put(order)
            if self.scan:  # steps is a multiple of per_epoch
                self.state = self.call(self.state, self.X, order, self.key)
            else:  # calls are queued: Python runs ahead of the computation
                for _ in range(min(steps, per_epoch)):
                    self.state = self.call(self.state, self.X, order, self.key)
            steps -= per_epoch
        jax.block_until_ready(self.state)  # the only wait

    def many_steps(self, state, X, order, key):
        """One epoch; unrolled a little, which saves some of the loop's own work."""

        def body(state, rows):
            return self.step(state, X, rows, key), None

        return lax.scan(body, state, order, unroll=self.setting.get("unroll", 1))[0]

    def one_step(self, state, X, order, key):
        """The batch's place comes from the step's number, which is on the device already."""
        rows = lax.dynamic_index_in_dim(order, state[2] % len(order), keepdims=False)
        return self.step(state, X, rows, key)

    def step(self, state, X, rows, key):
        parameters, moments, count = state
        x = X[rows] if self.setting.get("clip") else X.at[rows].get(mode="promise_in_bounds")
        shape = (self.problem.batch, self.problem.latent)
        eps = jax.random.normal(jax.random.fold_in(key, count), shape)
        gradients = jax.grad(self.loss)(self.leaves(parameters), x, eps)
        if self.flat:
            gradients = jnp.concatenate([gradient.ravel() for gradient in gradients])
        count, rate = count + 1, self.problem.learning_rate
        if self.problem.optimizer == "sgd":
            parameters = jax.tree.map(lambda p, g: p - rate * g, parameters, gradients)
            return parameters, moments, count
        rate = rate / (1 - BETA1 ** count.astype(jnp.float32))
        unbias = 1 / (1 - BETA2 ** count.astype(jnp.float32))
        first, second = moments
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        parameters = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v * unbias) + EPSILON),
            parameters, first, second,
        )  # fmt: skip
        return parameters, [first, second], count

    def leaves(self, parameters):
        """The list of arrays, from either form."""
        if not self.flat:
            return parameters
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = zip(jnp.split(parameters, ends), self.shapes, strict=True)
        return [part.reshape(shape) for part, shape in parts]

    def loss(self, parameters, x, eps):
        """Mean over rows of nll + kl."""
        layers = list(zip(parameters[0::2], parameters[1::2], strict=False))
        n_encoder = len(self.problem.layers[0])
        mu, logvar = jnp.split(network(layers[:n_encoder], x), 2, axis=1)
        std = jnp.exp(0.5 * logvar)
        y = network(layers[n_encoder:], mu + std * eps)
        kl = 0.5 * jnp.sum(mu * mu + std * std - logvar - 1)
        if self.problem.likelihood == "bernoulli":
            # softplus(y) - x y; jax.nn.softplus also handles NaN and is slower
            nll = (
                jnp.sum(jax.nn.softplus(y) - x * y)
                if self.setting.get("sp")
                else jnp.sum(jnp.maximum(y, 0) - x * y + jnp.log1p(jnp.exp(-jnp.abs(y))))
            )
        else:
            logvar = parameters[-1]
            squares = jnp.sum(jnp.square(x - y))
            nll = 0.5 * (jnp.exp(-logvar) * squares + x.size * (logvar + math.log(2 * math.pi)))
            nll = nll[0]
        return (nll + kl) / x.shape[0]

    def loss_and_gradients(self, x, eps):
        value, gradients = jax.jit(jax.value_and_grad(self.loss))(
            self.leaves(self.state[0]), x, eps
        )
        return float(value), [np.asarray(gradient) for gradient in gradients]


def network(layers, h):
    """Dense layers with ReLU between them."""
    for weight, bias in layers[:-1]:
        h = jax.nn.relu(h @ weight + bias)
    weight, bias = layers[-1]
    return h @ weight + bias
