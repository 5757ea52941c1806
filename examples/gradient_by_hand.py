"""One step of a tiny VAE, every number beside its formula, and every gradient numerically too.

    python gradient_by_hand.py

Two rows of two pixels, two hidden units on either side, one latent: small enough for pencil and
paper, and all that a large one has. A formula is printed as it is evaluated here; beside it stands
what minivae computed on its way (`vae.trace`). Derivations: minivae.kernels, in reference.py of
dense, posterior and likelihoods.
"""

import numpy as np

import minivae

x = np.array([[1.0, 0.25], [0.0, 0.75]])  # 2 rows, D = 2; with grey values nll is a cross-entropy
eps = np.array([[0.7], [-0.4]])  # their noise, Z = 1

vae = minivae.VAE(
    latent_dim=1,
    hidden_layer_sizes=(2,),
    activation="tanh",
    dtype="float64",
    device="reference",
    random_state=0,
)
vae.loss_and_gradients(x, eps)  # gives it its initial parameters
rng = np.random.default_rng(0)
for array in vae.parameters_.values():  # views: what is written here, the model has
    array[...] = rng.choice([-1, 1], array.shape) * rng.integers(1, 10, array.shape) / 10
trace = vae.trace(x, eps)
loss, gradients = vae.loss_and_gradients(x, eps)

PARAMETERS = {
    "W": "encoder.0.weight",
    "b": "encoder.0.bias",
    "W_mu": "encoder.mu.weight",
    "b_mu": "encoder.mu.bias",
    "W_lv": "encoder.logvar.weight",
    "b_lv": "encoder.logvar.bias",
    "V": "decoder.0.weight",
    "c": "decoder.0.bias",
    "V_x": "decoder.out.weight",
    "c_x": "decoder.out.bias",
}
HEADS = "encoder.mu+encoder.logvar"  # one matrix, both heads side by side
MU, LOGVAR = np.s_[:, :1], np.s_[:, 1:]
FORWARD = [  # name, formula, and what of the trace it is
    ("h", "tanh(x @ W + b)", trace["encoder.0"]),
    ("mu", "h @ W_mu + b_mu", trace[HEADS][MU]),
    ("logvar", "h @ W_lv + b_lv", trace[HEADS][LOGVAR]),
    ("std", "exp(logvar / 2)", None),
    ("z", "mu + std * eps", trace["z"]),
    ("g", "tanh(z @ V + c)", trace["decoder.0"]),
    ("logits", "g @ V_x + c_x", trace["decoder.out"]),
    ("nll", "sum(softplus(logits) - x * logits, 1)", trace["nll"]),
    ("kl", "sum(mu**2 + std**2 - logvar - 1, 1) / 2", trace["kl"]),
    ("loss", "mean(nll + kl)", loss),
]
BACKWARD = [  # each line is the derivative of a line above, from the last to the first
    ("dlogits", "(sigmoid(logits) - x) / B", trace["ddecoder.out"]),  # softplus' = sigmoid
    ("dg", "dlogits @ V_x.T", trace["ddecoder.0 (matmul)"]),
    ("da_g", "dg * (1 - g**2)", trace["ddecoder.0"]),  # a_g = z V + c, and tanh' = 1 - tanh^2
    ("dz", "da_g @ V.T", trace["dz"]),
    ("dmu", "dz + mu / B", trace[f"d{HEADS}"][MU]),  # through z, and through kl
    ("dlogvar", "dz * eps * std / 2 + (std**2 - 1) / 2 / B", trace[f"d{HEADS}"][LOGVAR]),
    ("dh", "dmu @ W_mu.T + dlogvar @ W_lv.T", trace["dencoder.0 (matmul)"]),
    ("da_h", "dh * (1 - h**2)", trace["dencoder.0"]),
]
BY_PARAMETERS = [  # of a layer a = h W + b: dW = h^T da, and db = sum of da over the rows
    ("W", "x.T @ da_h"),
    ("b", "sum(da_h, 0)"),
    ("W_mu", "h.T @ dmu"),
    ("b_mu", "sum(dmu, 0)"),
    ("W_lv", "h.T @ dlogvar"),
    ("b_lv", "sum(dlogvar, 0)"),
    ("V", "z.T @ da_g"),
    ("c", "sum(da_g, 0)"),
    ("V_x", "g.T @ dlogits"),
    ("c_x", "sum(dlogits, 0)"),
]
values = {  # what the names in the formulas mean
    "x": x,
    "eps": eps,
    "B": len(x),
    "exp": np.exp,
    "tanh": np.tanh,
    "sum": np.sum,
    "mean": np.mean,
    "softplus": lambda l: np.logaddexp(0, l),  # ln(1 + e^l), which overflows as it stands
    "sigmoid": lambda l: 1 / (1 + np.exp(-l)),
    **{name: vae.parameters_[full] for name, full in PARAMETERS.items()},
}


def numeric(parameter, h=1e-5):
    """(loss(p + h) - loss(p - h)) / 2h for each number p of a parameter."""
    found = np.empty_like(parameter)
    for index in np.ndindex(parameter.shape):
        losses = []
        for step in (h, -h):
            parameter[index] += step
            losses.append(vae.loss_and_gradients(x, eps)[0])
            parameter[index] -= step
        found[index] = (losses[0] - losses[1]) / (2 * h)
    return found


def show(name, formula, *columns):
    """A line for each row of an array: what all columns say, the formula once."""
    columns = [np.reshape(c, (len(c) if np.ndim(c) == 2 else 1, -1)) for c in columns]
    for i, rows in enumerate(zip(*columns, strict=True)):
        cells = "".join(f"{' '.join(f'{v:+.6f}' for v in row):22}" for row in rows)
        print(f"{name if i == 0 else '':9}{cells}{formula if i == 0 else ''}".rstrip())


worst = {"minivae": 0.0, "numeric": 0.0}
print("@ multiplies matrices, .T transposes; dh is the gradient of the loss by h.\n")
show("x", "two rows", x)
show("eps", "their noise", eps)
for name, full in PARAMETERS.items():
    show(name, full, values[name])
for title, lines in [("forward", FORWARD), ("backward", BACKWARD)]:
    print(f"\n{title:9}{'by hand':22}{'minivae':22}formula")
    for name, formula, theirs in lines:
        values[name] = eval(formula, values)
        if theirs is None:  # minivae keeps std only in passing
            show(name, " " * 22 + formula, values[name])
            continue
        show(name, formula, values[name], theirs)
        worst["minivae"] = max(worst["minivae"], np.abs(values[name] - theirs).max())
print(f"\n{'gradient':9}{'by hand':22}{'minivae':22}{'numeric':22}formula")
for name, formula in BY_PARAMETERS:
    by_hand, theirs = eval(formula, values), gradients[PARAMETERS[name]]
    difference = numeric(values[name])
    show(f"d{name}", formula, by_hand, theirs, difference)
    worst["minivae"] = max(worst["minivae"], np.abs(by_hand - theirs).max())
    worst["numeric"] = max(worst["numeric"], np.abs(by_hand - difference).max())
print("\nnumeric is the finite difference (loss(p + h) - loss(p - h)) / 2h.")
print(f"Largest differences from what was computed by hand: minivae {worst['minivae']:.0e}, "
      f"numeric {worst['numeric']:.0e}.")  # fmt: skip

rate = 0.01
for name, full in PARAMETERS.items():
    values[name] -= rate * gradients[full]  # one step of gradient descent
expected = rate * sum(np.sum(gradient**2) for gradient in gradients.values())
fall = loss - vae.loss_and_gradients(x, eps)[0]
print(f"\nA step of {rate} against the gradient should lower the loss by nearly {rate} times the")
print(f"sum of its squares, which is {expected:.6f}. It falls by {fall:.6f}.")
