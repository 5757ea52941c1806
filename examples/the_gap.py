"""What a VAE's bound hides: ln p(x) = ELBO + KL(q(z|x) || p(z|x)), with every term computed.

    python the_gap.py [PICTURE]

With two latents the integral over z can be done on a grid, so that ln p(x) is known, and with it
the gap of the ELBO: the divergence of the encoder's q(z|x) from the posterior of the decoder. No
Gaussian has two hills or a bent one, and what the encoder says of rows that it was not fitted to is
further off. Training moves both terms: ln p(x) rises, while the gap need not become smaller. Draws
weighted by p(x, z) / q(z|x) close it, the first ones most.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minivae

EPOCHS, DRAWS, ROWS = (5, 20, 100), (1, 10, 100, 1000), 90

data = minivae.datasets.load("digits")
train, test = ((X >= 0.5).astype("f4") for X in (data.train, data.test))
rows = {"training rows": train[:ROWS], "held-out rows": test[:ROWS]}
vae = minivae.VAE(2, random_state=0)
found = {name: [] for name in rows}

print(f"{ROWS} digits, 8 x 8 bits, 2 latents, nats per row\n")
print(f"{'epochs':>6}  {'':14}{'ln p(x)':>10}{'ELBO':>10}{'gap':>8}")
for epochs in EPOCHS:
    while not hasattr(vae, "state_") or vae.n_epochs_ < epochs:
        vae.partial_fit(train)
    for name, X in rows.items():
        exact, elbo = vae.quadrature(X).mean(), vae.elbo(X, 1000, random_state=0).mean()
        found[name].append((exact, elbo))
        print(f"{epochs:6}  {name:14}{exact:10.2f}{elbo:10.2f}{exact - elbo:8.2f}")
found = {name: np.array(values) for name, values in found.items()}
weighted = {
    name: [found[name][-1, 0] - vae.score_samples(X, n).mean() for n in DRAWS]
    for name, X in rows.items()
}
print("\nthe gap with weights of so many draws\n\n" + " " * 22 + "".join(f"{n:>8}" for n in DRAWS))
for name, gaps in weighted.items():
    print(f"{name:>22}" + "".join(f"{gap:8.2f}" for gap in gaps))

figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2)
for (name, values), colour in zip(found.items(), ("#332288", "#CC6677"), strict=True):
    exact, elbo = values.T
    left.plot(EPOCHS, exact, color=colour, label=f"ln p(x), {name}")
    left.plot(EPOCHS, elbo, color=colour, linestyle="--", label=f"ELBO, {name}")
    left.fill_between(EPOCHS, elbo, exact, color=colour, alpha=0.15, linewidth=0)
    right.plot(DRAWS, weighted[name], ".-", color=colour, label=name)
left.set(xscale="log", xlabel="epochs", ylabel="nats per row", title="The gap in training")
right.set(xscale="log", xlabel="draws of z", ylabel="gap, nats", title="The gap with more draws")
right.axhline(0, color="0.35", linestyle=":")
for axes in (left, right):
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "the_gap.png")
figure.savefig(path)
print(f"\nThe picture is in {path}.")
