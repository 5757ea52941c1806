"""The blind spot of the plain PixelCNN: earlier pixels that no number of its layers sees.

    python blind_spot.py [PICTURE]

Each layer of a plain PixelCNN sees the lines above and what is left of the pixel, a square of taps
with its lower right cut off. One line up is one pixel to the right at most, so that what is seen
above on the right ends at a diagonal, however many layers there are. The gated one has a stack of
its own for the lines above, which sees their whole width (van den Oord et al. 2016, 1606.05328).

What is seen is measured, not argued: untrained models of 11 x 11 pixels, with a pixel of the image
flipped at a time. What moves the logit of the middle pixel in the last line is seen.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minivae

SIDE, LAYERS = 11, 10
HERE = (SIDE - 1) * SIDE + SIDE // 2  # the middle of the last line
before = np.arange(SIDE * SIDE) < HERE


def seen(gated):
    """Whether each pixel (SIDE * SIDE,) moves the logit of the pixel HERE."""
    model = minivae.PixelCNN(LAYERS, n_channels=8, first_kernel=3, gated=gated, dtype="float64",
                             device="reference", random_state=0)  # fmt: skip
    image = np.random.default_rng(0).integers(0, 2, SIDE * SIDE)
    X = np.tile(image, (SIDE * SIDE + 1, 1)).astype(float)
    X[np.arange(SIDE * SIDE), np.arange(SIDE * SIDE)] = 1 - image
    X = X[[*np.flatnonzero(before), -1]]
    logits = model.trace(X)["logit"].reshape(len(X), -1)[:, HERE]
    moved = np.zeros(SIDE * SIDE, bool)
    moved[before] = abs(logits[:-1] - logits[-1]) > 1e-14
    return moved


pictures = {"plain": seen(False), "gated": seen(True)}
for name, moved in pictures.items():
    print(f"{name}: of {before.sum()} pixels before it, the pixel never sees "
          f"{(before & ~moved).sum()}")  # fmt: skip

figure = Figure(figsize=(7, 3.8), dpi=150, layout="constrained")
for axes, (name, moved) in zip(figure.subplots(1, 2), pictures.items(), strict=True):
    shades = np.where(moved, 0.75, np.where(before, 0.0, 1.0))
    shades[HERE] = 0.4
    axes.imshow(shades.reshape(SIDE, SIDE), cmap="gray", vmin=0, vmax=1)
    axes.set(title=f"{name}: {(before & ~moved).sum()} of {before.sum()} never seen",
             xticks=[], yticks=[])  # fmt: skip
figure.suptitle("Grey: seen by the dark grey pixel. Black: before it, and never seen.")
path = Path(sys.argv[1] if len(sys.argv) > 1 else "blind_spot.png")
figure.savefig(path)
print(f"the picture is in {path}")
