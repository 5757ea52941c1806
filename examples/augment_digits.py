"""Do a VAE's variations of a few labelled digits help a classifier? Beside shifts by one pixel.

    python augment_digits.py [PICTURE] [SEEDS] [EPOCHS]

Of 1,797 digits of 8 x 8 pixels, 70 % to learn from and 30 % to test on, only 5 or 10 of each class
have their labels. A support vector machine learns from these; from these and their four shifts by
one pixel; and from these and as many rows of `vae.augment`. One VAE has seen the labelled rows
only; the other one all rows to learn from, without labels, so it knows more than shifts do.

On 2026-11-25 shifts won with 5 labels a class, and were level with both VAEs with 10. Accuracy with
5 and 10: no rows added 0.854 and 0.911, shifts 0.899 and 0.931, the VAE of the labelled 0.871 and
0.930, that of all rows 0.870 and 0.930. With beta = 1 the VAEs hardly helped, or did harm: 0.838
and 0.912, 0.858 and 0.907.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import minivae

SIDE, LABELS, SHIFTS = 8, (5, 10), ((0, 1), (0, -1), (1, 0), (-1, 0))
Z, BETA = 16, 0.1  # a smaller price of codes than the ELBO's, which blurs classes: embed_digits.py
SEEDS = range(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
EPOCHS = int(sys.argv[3]) if len(sys.argv) > 3 else None
WAYS = ("none", "shifts", "VAE of the labelled", "VAE of all rows")

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)


def labelled(n, seed):
    """n rows of each class, and their classes."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:n] for c in range(10)])
    return X[rows], y[rows]


def shifted(X, y):
    """Each image moved by one pixel in four directions; the border that comes in is 0."""
    padded = np.pad(X.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    moved = [padded[:, 1 + i : 1 + i + SIDE, 1 + j : 1 + j + SIDE] for i, j in SHIFTS]
    return np.concatenate(moved).reshape(-1, SIDE * SIDE), np.tile(y, len(SHIFTS))


def accuracy(X, y, more=None):
    """On the test part, of a classifier trained on X and y, and on more rows and classes."""
    if more:
        X, y = np.concatenate([X, more[0]]), np.concatenate([y, more[1]])
    return SVC().fit(X, y).score(X_test, y_test)


def vae(X, seed):
    return minivae.VAE(Z, beta=BETA, epochs=EPOCHS, random_state=seed).fit(X)


found = np.empty((len(LABELS), len(WAYS), len(SEEDS)))
for i, seed in enumerate(SEEDS):
    of_all = vae(X, seed)
    for j, n in enumerate(LABELS):
        few, classes = labelled(n, seed)
        made = [m.augment(few, classes, len(SHIFTS) * len(few), random_state=seed)
                for m in (vae(few, seed), of_all)]  # fmt: skip
        found[j, :, i] = [accuracy(few, classes, more)
                          for more in (None, shifted(few, classes), *made)]  # fmt: skip

print(f"Accuracy on {len(y_test)} test digits, mean and spread over {len(SEEDS)} seeds\n")
print("added rows           " + "".join(f"{f'{n} labels a class':>22}" for n in LABELS))
for name, row in zip(WAYS, found.swapaxes(0, 1), strict=True):
    print(f"{name:21}" + "".join(f"{f'{r.mean():.3f} +- {r.std():.3f}':>22}" for r in row))

made = [shifted(few, classes), *made]  # of the last seed
rows = [few[::n], *(images[np.unique(y_made, return_index=True)[1]] for images, y_made in made)]
figure = Figure(figsize=(7, 3.2), dpi=150, layout="constrained")
for axes_of_row, images, name in zip(
    figure.subplots(len(rows), 10), rows, ("given", *WAYS[1:]), strict=True
):
    for axes, image in zip(axes_of_row, images, strict=True):
        axes.imshow(image.reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    axes_of_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
path = Path(sys.argv[1] if len(sys.argv) > 1 else "augment_digits.png")
figure.savefig(path)
print(f"\nThe picture is in {path}: a row for each way, a digit of each class.")
