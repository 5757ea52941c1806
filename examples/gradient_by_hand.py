"""One tiny VAE, every number of its gradient beside the formula and the finite difference.

    python gradient_by_hand.py

One observation with two pixels, one latent, no hidden layer: small enough to follow with pencil
and paper. The derivations are in the docstrings of `minivae.kernels.reference`.
"""

import numpy as np

import minivae

x = np.array([[1.0, 0.25]])  # one row, D = 2
eps = np.array([[0.7]])  # its noise, Z = 1

vae = minivae.VAE(
    latent_dim=1, hidden_layer_sizes=(), dtype="float64", device="reference", random_state=0
)
loss, gradients = vae.loss_and_gradients(x, eps)
p = vae.parameters_

# Forward, in the order of the mathematics.
mu = x @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
logvar = x @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
std = np.exp(logvar / 2)
z = mu + std * eps
logits = z @ p["decoder.out.weight"] + p["decoder.out.bias"]
nll = np.sum(np.log1p(np.exp(logits)) - x * logits)  # softplus(l) - x l per pixel
kl = np.sum(mu**2 + std**2 - logvar - 1) / 2

# Backward, each line the derivative of one line above.
dlogits = 1 / (1 + np.exp(-logits)) - x  # d softplus = sigmoid
dz = dlogits @ p["decoder.out.weight"].T
dmu = dz + mu  # through z, and through kl
dlogvar = (dz * eps * std + std**2 - 1) / 2  # dz/dlogvar = eps std / 2; dkl/dlogvar = (std^2 - 1)/2
by_hand = {
    "encoder.mu.weight": x.T @ dmu,
    "encoder.mu.bias": dmu[0],
    "encoder.logvar.weight": x.T @ dlogvar,
    "encoder.logvar.bias": dlogvar[0],
    "decoder.out.weight": z.T @ dlogits,
    "decoder.out.bias": dlogits[0],
}
formulas = {
    "encoder.mu.weight": "x' dmu,       dmu = dz + mu",
    "encoder.mu.bias": "dmu",
    "encoder.logvar.weight": "x' dlogvar,   dlogvar = (dz eps std + std^2 - 1) / 2",
    "encoder.logvar.bias": "dlogvar",
    "decoder.out.weight": "z' dlogits,   dlogits = sigmoid(logits) - x",
    "decoder.out.bias": "dlogits",
}


def finite_difference(parameter, index, h=1e-5):
    """(loss(p + h) - loss(p - h)) / 2h for one number of one parameter."""
    values = []
    for step in (h, -h):
        parameter[index] += step
        values.append(vae.loss_and_gradients(x, eps)[0])
        parameter[index] -= step
    return (values[0] - values[1]) / (2 * h)


print(f"x = {x[0]}, eps = {eps[0, 0]}")
print(f"mu = {mu[0, 0]:+.6f}   logvar = {logvar[0, 0]:+.6f}   z = {z[0, 0]:+.6f}")
print(f"nll = {nll:.6f} + kl = {kl:.6f} gives loss = {nll + kl:.6f}, minivae says {loss:.6f}\n")
print(f"{'gradient of':28}{'by hand':>12}{'minivae':>12}{'numeric':>14}   formula")
for name, gradient in gradients.items():
    for index in np.ndindex(gradient.shape):
        numeric = finite_difference(p[name], index)
        label = f"{name}[{', '.join(map(str, index))}]"
        print(
            f"{label:28}{by_hand[name][index]:12.8f}{gradient[index]:12.8f}{numeric:14.8f}"
            f"   {formulas[name]}"
        )
print("\nnumeric is the finite difference (loss(p + h) - loss(p - h)) / 2h.")
