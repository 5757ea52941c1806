"""A GAN that drops modes: eight hills on a ring, and how many of them its samples find.

    python dropped_modes.py [PICTURE]

Nothing in a GAN's losses says that all of the data must be made: a generator that makes one hill
well can hold its own. Where the discriminator lags behind, the generator gathers on a place that it
does not know yet, the discriminator learns that place, and both move on; what is left at the end
may be one hill, or none. With three times the learning rate the discriminator keeps up. A model
with ln p(x) cannot do this unpunished: a hill that it leaves out costs it nats without bound.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minivae

SEEDS, RATES, STD, EPOCHS, N = range(4), (1, 3), 0.05, 60, 12_800

rng = np.random.default_rng(0)
angles = 2 * np.pi * np.arange(8) / 8
hills = np.column_stack([np.cos(angles), np.sin(angles)])
X = hills[rng.integers(0, 8, N)] + STD * rng.normal(size=(N, 2))
X = X.astype("f4")


def shares(x):
    """The part of the draws within 4 standard deviations of each hill."""
    near = np.linalg.norm(x[:, None] - hills, axis=2) < 4 * STD
    return near.mean(axis=0)


figure = Figure(figsize=(2.2 * len(SEEDS), 2.4 * len(RATES)), dpi=150, layout="constrained")
grid = figure.subplots(len(RATES), len(SEEDS), sharex=True, sharey=True)
found = {}
print("hills found, of 8 (more than 1 % of 10,000 draws), and the part of draws near any\n")
for row, rate in zip(grid, RATES, strict=True):
    found[rate] = []
    for axes, seed in zip(row, SEEDS, strict=True):
        gan = minivae.GAN(8, generator_sizes=(128, 128), discriminator_sizes=(128, 128),
                          output="identity", discriminator_rate=rate, epochs=EPOCHS,
                          random_state=seed).fit(X)  # fmt: skip
        x = gan.sample(10_000, 0)
        share = shares(x)
        found[rate].append((int((share > 0.01).sum()), share.sum()))
        axes.plot(*X[:500].T, ".", color="#CC6677", markersize=1)
        axes.plot(*x[:1000].T, ".", color="#332288", markersize=1)
        axes.set_title(f"D's rate x {rate}, seed {seed}: {found[rate][-1][0]}", size=8)
        axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
    cells = "".join(f"{n:4} ({part:4.0%})" for n, part in found[rate])
    print(f"discriminator's rate x {rate}: {cells}", flush=True)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "dropped_modes.png")
figure.savefig(path)
print(f"\nThe picture is in {path}: data red, draws blue.")
