"""The families of minivae as a user of PyTorch would write them: the loss of a batch, by autograd.

`LOSSES[name](model, p, x)` is the mean loss in nats of the rows x (B, D) for parameters p, {name:
tensor} as `parameters_` has them. tests/models/test_torch.py compares every gradient with ours;
`families.py` takes the time.
"""

import math

import torch
import torch.nn.functional as F

from minivae.kernels import LOG_SCALE_BOUND
from minivae.models.settings import image_size

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


def pixelrnn(model, p, x):
    """PyTorch's own GRU over the rows of an image; the NADE of a row, variable by variable."""
    n_rows, width = image_size(model.image_shape, x.shape[1])
    rows = x.reshape(len(x), n_rows, width)
    H = p["row.hidden.weight"].shape[1]
    n_state = p["gru.state.weight"].shape[0]
    # Gates are n r z of the input and r z q of the state; PyTorch has them as r z n.
    w_n, w_rz = p["gru.input.weight"].split([n_state, 2 * n_state], dim=1)
    b_n, b_rz = p["gru.bias"].split([n_state, 2 * n_state])
    W, b = torch.cat([w_rz, w_n], 1).T, torch.cat([b_rz, b_n])
    weights = W, p["gru.state.weight"].T, b, torch.zeros_like(b)
    start = x.new_zeros(1, len(x), n_state)
    states, _ = torch._VF.gru(rows[:, :-1], start, weights, True, 1, 0.0, True, False, True)
    states = torch.cat([start.transpose(0, 1), states], 1)
    weight = torch.cat([p["condition.hidden.weight"], p["condition.visible.weight"]], 1)
    bias = torch.cat([p["condition.hidden.bias"], p["condition.visible.bias"]], 1)
    c, b = (states @ weight + bias).reshape(-1, H + width).split([H, width], dim=1)
    flat, logits = rows.reshape(-1, width), []
    pairs = zip(p["row.hidden.weight"], p["row.visible.weight"], strict=True)
    for d, (row, weight) in enumerate(pairs):
        logits.append(torch.sigmoid(c) @ weight)
        c = torch.addr(c, flat[:, d], row)
    logits = torch.stack(logits, 1) + b
    return F.binary_cross_entropy_with_logits(logits, flat, reduction="sum") / len(x)


def masked(p, name, h, offsets):
    """A convolution (B, C, height, width) of the taps at these offsets, whose weights are written
    into a kernel that is 0 elsewhere."""
    n = max(max(abs(i), abs(j)) for i, j in offsets)
    weight, C = p[f"{name}.weight"][: len(offsets) * h.shape[1]], h.shape[1]
    where = torch.tensor([(i + n) * (2 * n + 1) + j + n for i, j in offsets])
    kernel = weight.new_zeros((2 * n + 1) ** 2, C, weight.shape[1])
    kernel = kernel.index_copy(0, where, weight.reshape(len(offsets), C, -1))
    kernel = kernel.reshape(2 * n + 1, 2 * n + 1, C, -1).permute(3, 2, 0, 1)
    return F.conv2d(h, kernel, p[f"{name}.bias"], padding=n)


def pointwise(p, name, h):
    """A 1x1 convolution."""
    return F.conv2d(h, p[f"{name}.weight"].T[:, :, None, None], p[f"{name}.bias"])


def gated(a):
    """tanh(f) sigmoid(g)."""
    f, g = a.chunk(2, dim=1)
    return torch.tanh(f) * torch.sigmoid(g)


def pixelcnn(model, p, x):
    """Masked convolutions of images, gated or plain."""
    image = x.reshape(len(x), 1, *image_size(model.image_shape, x.shape[1]))
    h = v = image
    for i in range(model.n_layers + 1):
        n = (model.kernel if i else model.first_kernel) // 2
        above = [(a, b) for a in range(-n, 0) for b in range(-n, n + 1)]
        left = [(0, b) for b in range(-n, 1 if i else 0)]
        if model.gated:
            on_line = [(0, b) for b in range(-n, n + 1)] if i else []
            v = gated(masked(p, f"vertical.{i}", v, above + on_line))
            a = masked(p, f"horizontal.{i}", h, left)
            y = gated(a + mixed(p[f"horizontal.{i}.weight"][-v.shape[1] :], v))
        else:
            y = F.relu(masked(p, f"horizontal.{i}", h, above + left))
        y = pointwise(p, f"residual.{i}", y)
        h = h + y if i else y
    logits = pointwise(p, "logit", F.relu(pointwise(p, "output.0", h)))
    return F.binary_cross_entropy_with_logits(logits, image, reduction="sum") / len(x)


def mixed(weight, h):
    """A 1x1 convolution without a bias."""
    return F.conv2d(h, weight.T[:, :, None, None])


def wavenet(model, p, x):
    """Dilated convolutions over the columns, binary data."""
    taps = F.pad(x[:, None, :-1], (2, 0))
    h, skip = (causal(p, f"first.{part}", taps, 1) for part in ("residual", "skip"))
    layers = sum(name.endswith("gate.weight") for name in p)
    dilations = layers // model.n_stacks
    for i in range(layers):
        d = 2 ** (i % dilations)
        seen = F.pad(h, (d, 0))
        y = torch.tanh(causal(p, f"layer.{i}.filter", seen, d)) * torch.sigmoid(
            causal(p, f"layer.{i}.gate", seen, d)
        )
        h = h + line(p, f"layer.{i}.residual", y)
        skip = skip + line(p, f"layer.{i}.skip", y)
    h = torch.cat([h, skip], 1)
    for i in range(2):
        h = F.relu(line(p, f"output.{i}", h))
    logits = line(p, "logits", h)[:, 0]
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def causal(p, name, h, dilation):
    """A convolution of two taps."""
    weight = p[f"{name}.weight"].reshape(2, h.shape[1], -1).permute(2, 1, 0)
    return F.conv1d(h, weight, p[f"{name}.bias"], dilation=dilation)


def line(p, name, h):
    """A 1x1 convolution of a sequence."""
    return F.conv1d(h, p[f"{name}.weight"].T[:, :, None], p[f"{name}.bias"])


def rbm(model, p, x):
    """Chains of k Gibbs steps, here always from the data, and the difference of free energies."""
    W, c, a = p["hidden.weight"], p["hidden.bias"], p["visible.bias"]

    def energy(v):
        return -(v @ a).sum() - F.softplus(torch.addmm(c, v, W)).sum()

    with torch.no_grad():
        v = x
        for _ in range(model.n_steps):
            h = torch.bernoulli(torch.sigmoid(torch.addmm(c, v, W)))
            v = torch.bernoulli(torch.sigmoid(torch.addmm(a, h, W.T)))
    return (energy(x) - energy(v)) / len(x)


def gan(model, p, x, z=None):
    """Both players' losses: the discriminator does not move what is invented, nor is it moved by
    the generator's, so that the gradient of the sum is that of each player's own."""
    z = torch.randn(len(x), model.latent_dim, dtype=x.dtype) if z is None else z
    frozen = {name: tensor.detach() for name, tensor in p.items()}
    h = layers(model, p, "generator", model.generator_sizes, z)
    invented = torch.sigmoid(h) if model.output == "sigmoid" else h
    sizes = model.discriminator_sizes
    told = layers(model, p, "discriminator", sizes, torch.cat([x, invented.detach()]))
    judged = layers(model, frozen, "discriminator", sizes, invented)
    d_loss = F.softplus(-told[: len(x)]).sum() + F.softplus(told[len(x) :]).sum()
    return (d_loss + F.softplus(-judged).sum()) / len(x)


def layers(model, p, name, sizes, h):
    """Dense layers name.0, name.1, ... and name.out."""
    for i in range(len(sizes)):
        h = FUNCTIONS[model.activation](head(p, f"{name}.{i}", h))
    return head(p, f"{name}.out", h)


LOSSES = {
    "vae": vae,
    "nade": nade,
    "pixelrnn": pixelrnn,
    "pixelcnn": pixelcnn,
    "wavenet": wavenet,
    "flow": flow,
    "rbm": rbm,
    "gan": gan,
}
COMPILED = LOSSES | {"nade": nade_at_once}  # what suits torch.compile best
