"""The families of minivae as a user of PyTorch would write them: the loss of a batch, by autograd.

`LOSSES[name](model, p, x)` is the mean loss in nats of the rows x (B, D) for parameters p, {name:
tensor} as `parameters_` has them. tests/models/test_torch.py compares every gradient with ours;
`families.py` takes the time.
"""

import math

import torch
import torch.nn.functional as F

from minivae.kernels import LOG_SCALE_BOUND

FUNCTIONS = {
    "identity": lambda a: a,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


def dense(model, p, name, h):
    """The hidden layers name.0, name.1, ... of a net."""
    for i in range(len(model.hidden_layer_sizes)):
        a = torch.addmm(p[f"{name}.{i}.bias"], h, p[f"{name}.{i}.weight"])
        h = FUNCTIONS[model.activation](a)
    return h


def head(p, name, h):
    """One linear layer."""
    return torch.addmm(p[f"{name}.bias"], h, p[f"{name}.weight"])


def vae(model, p, x):
    """Bernoulli, one draw of the posterior."""
    h = dense(model, p, "encoder", x)
    mu, logvar = head(p, "encoder.mu", h), head(p, "encoder.logvar", h)
    std = torch.exp(0.5 * logvar)
    z = torch.addcmul(mu, std, torch.randn_like(mu))
    logits = head(p, "decoder.out", dense(model, p, "decoder", z))
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (mu.square() + std.square() - logvar - 1).sum()
    return (nll + model.beta * kl) / len(x)


def nade(model, p, x):
    """One variable after the other, each hidden layer from the one before."""
    a, logits = p["hidden.bias"].expand(len(x), -1), []
    for d, (row, weight) in enumerate(zip(p["hidden.weight"], p["visible.weight"], strict=True)):
        logits.append(torch.sigmoid(a) @ weight)
        a = torch.addr(a, x[:, d], row)
    logits = torch.stack(logits, 1) + p["visible.bias"]
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def nade_at_once(model, p, x):
    """All hidden layers by a running sum over variables: (B, D, H) numbers in memory, but no loop
    that torch.compile would unroll."""
    a = torch.cumsum(x[:, :-1, None] * p["hidden.weight"][:-1], dim=1)
    h = torch.sigmoid(p["hidden.bias"] + F.pad(a, (0, 0, 1, 0)))
    logits = (h * p["visible.weight"]).sum(2) + p["visible.bias"]
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def flow(model, p, x, noise=None):
    """Couplings of even and odd columns, dequantised, with a logistic or a normal prior."""
    D, levels, log_det = x.shape[1], int(model.dequantize or 0), 0.0
    if levels:
        noise = torch.rand_like(x) if noise is None else noise
        x = (torch.floor(x * (levels - 1) + 0.5) + noise) / levels
    one, other = x[:, 0::2], x[:, 1::2]
    for i in range(model.n_couplings):
        name = f"coupling.{i}"
        h = dense(model, p, name, other)
        shift = head(p, f"{name}.shift", h)
        if model.coupling == "affine":
            raw = head(p, f"{name}.log_scale", h)
            log_scale = LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND)
            one = one * torch.exp(log_scale)
            log_det = log_det + log_scale.sum()
        one, other = other, one + shift
    if model.n_couplings % 2:
        one, other = other, one
    y = torch.empty_like(x)
    y[:, 0::2], y[:, 1::2] = one, other
    z = y * torch.exp(p["scaling.log_scale"])
    log_det = log_det + len(x) * p["scaling.log_scale"].sum()
    if model.prior == "normal":
        log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum()
    else:
        log_p = -(F.softplus(z) + F.softplus(-z)).sum()
    return -(log_p + log_det) / len(x) + (D * math.log(levels) if levels else 0.0)


LOSSES = {"vae": vae, "nade": nade, "flow": flow}
COMPILED = LOSSES | {"nade": nade_at_once}  # what suits torch.compile best
