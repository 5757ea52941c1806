"""What a Markov chain costs: how many Gibbs steps an RBM needs to leave the digit where it began.

    python mixing.py [PICTURE]

A draw from a restricted Boltzmann machine is the end of a chain, and the next draw of the same
chain looks like the last one. Here chains begin at digits, and after some Gibbs steps a classifier
says which digit each shows now: as long as that is the digit where it began more often than chance
would have it, the chain remembers. A machine that has learned little forgets at once, and one that
knows the digits has deep valleys: the better the model, the longer its chains have to run.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.neighbors import KNeighborsClassifier

import minivae

CHAINS, STEPS, EPOCHS, H = 1000, (0, 1, 3, 10, 30, 100), (1, 10, 100), 200
COLOURS = ("#88CCEE", "#332288", "#CC6677")

data = minivae.datasets.load("digits")
train, labels = (data.train >= 0.5).astype("f4"), data.train_labels
classifier = KNeighborsClassifier(3).fit(train, labels)
rbm = minivae.RBM(H, learning_rate=0.05, random_state=0)


def agreement(seed=0):
    """The part of chains that show their first digit, after each number of STEPS; and what chance
    would give, by the digits that the chains show at the end."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(train))[:CHAINS]
    v, begin, found = train[rows], labels[rows], []
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            shown = classifier.predict(v)
            found.append((shown == begin).mean())
        h = (rng.random((CHAINS, H)) < rbm.transform(v)).astype("f4")  # a Gibbs step, by hand
        v = (rng.random(v.shape) < rbm.inverse_transform(h)).astype("f4")
    return found, sum((shown == c).mean() * (begin == c).mean() for c in range(10))


found = {}
print(f"The part of {CHAINS} chains that show the digit where they began, 8 x 8 bits, {H} hidden\n")
print(f"{'Gibbs steps':14}" + "".join(f"{n:>7}" for n in STEPS) + f"{'chance':>9}")
for epochs in EPOCHS:
    while not hasattr(rbm, "state_") or rbm.n_epochs_ < epochs:
        rbm.partial_fit(train)
    parts, chance = found[epochs] = agreement()
    name = f"{epochs} epoch{'s' * (epochs > 1)}"
    print(f"{name:14}" + "".join(f"{part:7.2f}" for part in parts) + f"{chance:9.2f}", flush=True)

figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
axes = figure.add_subplot(
    xlabel="Gibbs steps", ylabel="chains at their first digit", title="A chain remembers", ylim=0
)
for (epochs, (parts, chance)), colour in zip(found.items(), COLOURS, strict=True):
    axes.plot(STEPS, parts, ".-", color=colour, label=f"after {epochs} epochs of training")
    axes.axhline(chance, color=colour, linestyle=":")
axes.set_xscale("symlog", linthresh=1)
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
path = Path(sys.argv[1] if len(sys.argv) > 1 else "mixing.png")
figure.savefig(path)
print(f"\nThe picture is in {path}; dotted: by chance.")
