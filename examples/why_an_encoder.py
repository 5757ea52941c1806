"""Why a VAE has an encoder: ln p(x) from draws of the prior, and from draws that it proposes.

    python why_an_encoder.py [PICTURE]

p(x) is the mean of p(x|z) over z of N(0, I), so a mean over N draws of the prior estimates it
without an encoder and without bias. But of the prior's draws hardly one explains a given x: nearly
all weights p(x|z) are nothing, and ln of the mean stands where the best of N draws happened to
come. The encoder proposes z that matter; with weights p(x|z) p(z) / q(z|x) the mean is that of the
same p(x), and a few draws do what thousands of the prior's do not.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minivae

Z, ROWS, REPEATS = 16, 20, 8
COUNTS = (1, 4, 16, 64, 256, 1024, 4096)

data = minivae.datasets.load("digits")
x = data.test[:ROWS]
vae = minivae.VAE(Z, binarize="threshold", epochs=200, random_state=0).fit(data.train)
best, error = vae.ais(x)  # annealed importance sampling, which comes close to ln p(x)


def from_prior(n, seed):
    """ln (1/n) sum p(x|z), z of the prior: annealing in one step anneals nothing."""
    return vae.ais(x, n_chains=n, n_temperatures=1, random_state=seed)[0].mean()


def from_encoder(n, seed):
    """ln (1/n) sum p(x|z) p(z) / q(z|x), z of q(z|x)."""
    vae.seed_ = seed
    return vae.score_samples(x, n).mean()


print(f"ln p(x) of {ROWS} held-out digits, 8 x 8 pixels, {Z} latents; annealed importance sampling")
print(f"says {best.mean():.2f} +- {np.sqrt(np.mean(error**2) / ROWS):.2f} nats. The mean of "
      f"{REPEATS} repetitions, and their spread:\n")  # fmt: skip
print(f"{'draws':>6}{'of the prior':>20}{'of the encoder':>20}")
found = {}
for how in (from_prior, from_encoder):
    found[how] = np.array([[how(n, seed) for seed in range(REPEATS)] for n in COUNTS])
for i, n in enumerate(COUNTS):
    cells = (
        f"{values[i].mean():10.2f} +- {values[i].std(ddof=1):5.2f}" for values in found.values()
    )
    print(f"{n:6}" + "".join(f"{cell:>20}" for cell in cells))

figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
axes = figure.add_subplot(
    xscale="log", xlabel="draws of z", ylabel="estimate of ln p(x), nats", title="Why an encoder"
)
for values, colour, name in zip(
    found.values(), ("#CC6677", "#332288"), ("z of the prior", "z of the encoder"), strict=True
):
    axes.plot(COUNTS, values, ".", color=colour, alpha=0.4)
    axes.plot(COUNTS, values.mean(axis=1), color=colour, label=name)
axes.axhline(best.mean(), color="0.35", linestyle=":", label="annealed importance sampling")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "why_an_encoder.png")
figure.savefig(path)
print(f"\nThe picture is in {path}: each dot is a repetition.")
