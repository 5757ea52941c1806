"""Two ways to the gradient of E_q[f(z)] by q's parameters: both are right, one is quiet.

    python two_gradients.py [PICTURE]

z is drawn from q = N(mu, std^2), and f(z) = nll = -ln p(x|z). The expectation is an integral over
a density that depends on mu, and there are two ways to differentiate it:

    reparameterised    z = mu + std eps: the draw moves with mu       df/dz
    score function     the draw stays where it is, q moves under it   f d ln q(z)/dmu = f eps / std

(Kingma and Welling 2013, sections 2.2 to 2.4; Williams 1992.) The first asks for the slope of f;
the second for its value only, so it works where f has no slope, and pays for it: f is some tens of
nats, of which the gradient is a small difference. A baseline, the mean of f over other draws, takes
away what is common to all of them and leaves the mean as it is.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minivae

Z, DRAWS = 4, 20_000

data = minivae.datasets.load("digits")
vae = minivae.VAE(Z, binarize="threshold", epochs=100, dtype="float64", random_state=0)
vae.fit(data.train)
x = (data.test[:1] >= 0.5).astype(float)
eps = np.random.default_rng(0).normal(size=(DRAWS, Z))
trace = vae.trace(np.repeat(x, DRAWS, axis=0), eps)  # a step on so many draws for one row
f, dz = trace["nll"], trace["dz"] * DRAWS  # d mean(nll) / dz has 1 / DRAWS in it
std = np.exp(trace["encoder.mu+encoder.logvar"][0, Z:] / 2)

ESTIMATES = {
    "reparameterised": dz,
    "score function": f[:, None] * eps / std,
    # The mean of all other draws, so that the baseline does not depend on the draw it is for.
    "score function, with a baseline": (f - f.mean())[:, None] * eps / std * DRAWS / (DRAWS - 1),
}
print(f"d E_q[nll] / dmu of one digit, {Z} latents, {DRAWS} draws of z.\n")
print(f"{'':34}{'mean +- standard error':40}variance of a draw")
quiet = dz.var(axis=0).mean()
for name, draws in ESTIMATES.items():
    mean, error = draws.mean(axis=0), draws.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    cells = "  ".join(f"{m:6.2f} +- {e:.2f}" for m, e in zip(mean[:2], error[:2], strict=True))
    noise = draws.var(axis=0).mean()
    times = f", {noise / quiet:.3g} times the first" if noise > quiet else ""
    print(f"{name:34}{cells:40}{noise:10.4g}{times}")
apart = ESTIMATES["score function"] - dz
z_score = apart.mean(axis=0) / (apart.std(axis=0, ddof=1) / np.sqrt(DRAWS))
print(
    f"\nTheir means differ by {abs(z_score).max():.1f} standard errors at most: both are unbiased."
)

figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
axes = figure.add_subplot(
    xscale="log",
    yscale="log",
    xlabel="draws of z",
    ylabel="error of the mean over draws",
    title="The same gradient, two ways",
)
counts = 2 ** np.arange(0, 13)
for (name, draws), colour in zip(ESTIMATES.items(), ("#332288", "#CC6677", "#DDCC77"), strict=True):
    errors = []
    for n in counts:
        means = draws[: DRAWS // n * n].reshape(-1, n, Z).mean(axis=1)
        errors.append(np.sqrt(((means - dz.mean(axis=0)) ** 2).mean()))
    axes.plot(counts, errors, color=colour, label=name)
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "two_gradients.png")
figure.savefig(path)
print(f"The picture is in {path}.")
