"""The architecture as plain numbers; flat buffers for its parameters and for what a step writes.

A flat buffer makes an optimiser one loop and a checkpoint one array; the names make it readable.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from minivae.kernels import (
    ACTIVATIONS,
    GAUSSIAN,
    IDENTITY,
    LIKELIHOODS,
    STREAM_WEIGHTS,
    reference,
)


class Plan(NamedTuple):
    """What the step has to know of a model: whole numbers only, for compiled code to read.

    The arrays (L,) have one entry per dense layer, encoder first. The encoder's last layer holds
    both heads side by side, mu | logvar, and is followed by z.
    """

    fan_in: np.ndarray  # H_in of each layer
    fan_out: np.ndarray  # H_out
    activation: np.ndarray  # code of its activation
    weight: np.ndarray  # where its weight (H_in, H_out) begins in the parameter buffer
    bias: np.ndarray  # where its bias (H_out,) begins there, right behind the weight
    source: np.ndarray  # where what it reads begins in a workspace, per row of the batch
    output: np.ndarray  # where its output begins there
    n_encoder: int  # layers of the encoder, the heads included
    latent_dim: int  # Z
    latent: int  # where z begins in a workspace, per row
    likelihood: int
    noise: int  # where decoder.noise_logvar begins in the parameter buffer (Gaussian)
    n_parameters: int  # P
    width: int  # values that a workspace keeps per row of the batch


def plan_model(n_features, hidden_layer_sizes, latent_dim, activation, likelihood):
    """The Plan of a VAE D -> H... -> Z -> reversed(H)... -> D with dense layers."""
    encoder = [n_features, *hidden_layer_sizes, 2 * latent_dim]
    decoder = [latent_dim, *reversed(hidden_layer_sizes), n_features]
    layers, parameters, width = [], 0, 0
    for sizes in (encoder, decoder):
        latent, width = width, width + sizes[0]  # of the encoder it is x
        read = latent
        for fan_in, fan_out in pairwise(sizes):
            bias = parameters + fan_in * fan_out
            layers.append(
                (fan_in, fan_out, ACTIVATIONS.index(activation), parameters, bias, read, width)
            )
            parameters = bias + fan_out
            read, width = width, width + fan_out
    columns = [np.array(column) for column in zip(*layers, strict=True)]
    n_encoder = len(encoder) - 1
    columns[2][[n_encoder - 1, -1]] = IDENTITY  # the heads, and the decoder's output
    code = LIKELIHOODS.index(likelihood)
    n_parameters = parameters + (1 if code == GAUSSIAN else 0)
    return Plan(*columns, n_encoder, latent_dim, latent, code, parameters, n_parameters, width)


class Workspace(NamedTuple):
    """What a step writes besides parameters; all that backward needs is here, for all to see."""

    eps: np.ndarray  # (B, Z) its noise
    outputs: (
        np.ndarray
    )  # flat: x (B, D), each encoder layer's output (B, H_out), z (B, Z), each decoder layer's
    deltas: np.ndarray  # flat, same places: the gradient of the loss by each output
    nll: np.ndarray  # (B,)
    kl: np.ndarray  # (B,)
    dnoise: np.ndarray  # (B,) the gradient by decoder.noise_logvar (Gaussian), row by row


def make_workspace(plan, n_rows, dtype):
    """A Workspace for up to n_rows rows."""
    return Workspace(
        eps=np.zeros((n_rows, plan.latent_dim), dtype),
        outputs=np.zeros(n_rows * plan.width, dtype),
        deltas=np.zeros(n_rows * plan.width, dtype),
        nll=np.zeros(n_rows, dtype),
        kl=np.zeros(n_rows, dtype),
        dnoise=np.zeros(n_rows, dtype),
    )


def named_views(plan, flat):
    """{name: view} of a flat buffer (P,): every parameter by its name, sharing memory with it.

    The two heads are columns of one matrix, so their views are strided.
    """
    views = {}
    for index, names in enumerate(layer_names(plan)):
        start, end, fan_out = plan.weight[index], plan.bias[index], plan.fan_out[index]
        weight, bias = flat[start:end].reshape(-1, fan_out), flat[end : end + fan_out]
        width = fan_out // len(names)
        for i, name in enumerate(names):
            columns = slice(i * width, (i + 1) * width)
            views[f"{name}.weight"], views[f"{name}.bias"] = weight[:, columns], bias[columns]
    if plan.likelihood == GAUSSIAN:
        views["decoder.noise_logvar"] = flat[plan.noise : plan.noise + 1]
    return views


def layer_names(plan):
    """Names of what each layer of the plan holds: one, or for the heads two."""
    encoder = [[f"encoder.{i}"] for i in range(plan.n_encoder - 1)]
    n_decoder = len(plan.weight) - plan.n_encoder
    decoder = [[f"decoder.{i}"] for i in range(n_decoder - 1)]
    return [*encoder, ["encoder.mu", "encoder.logvar"], *decoder, ["decoder.out"]]


def initialise(plan, seed, dtype):
    """A new flat buffer (P,): weights Glorot uniform, everything else 0.

    Glorot and Bengio 2010: U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) keeps the variance of
    signals and of gradients alike from layer to layer; a head counts its own columns only.
    Each weight is a draw of its own: (seed, weights' stream, index of the name, row and column).
    """
    flat = np.zeros(plan.n_parameters, dtype)
    for index, (name, view) in enumerate(named_views(plan, flat).items()):
        if name.endswith(".weight"):
            u = np.empty(view.shape, dtype)
            reference.random_uniform(seed, STREAM_WEIGHTS, index, 0, u)
            view[:] = (2 * u - 1) * (6 / sum(view.shape)) ** 0.5
    return flat
