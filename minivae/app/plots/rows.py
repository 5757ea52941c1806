"""Rows of data and what a model makes of them: images, or a table."""

import numpy as np

from minivae.app.plots.images import image_grid, picture, tiles
from minivae.app.plots.style import matrix, spread
from minivae.app.plots.tables import heat_maps, marginals


def reconstructions(X, X_reconstructed, image_shape=None, names=None):
    """Rows of X (n, D) and what the model makes of them, X_reconstructed (n, D).

    Images (image_shape given): up to 30 originals, each above its reconstruction. Tables: heat maps
    of up to 40 rows, in standard deviations of each column of X; missing values are grey, and names
    (D,), by default those of a frame, are written below up to 30 columns. Words are drawn by their
    number in alphabetical order. Of more rows, some spread over all of them are shown.
    """
    if image_shape is None:
        return heat_maps(X, X_reconstructed, names)
    X = matrix("X", X, image_shape)
    Y = matrix("X_reconstructed", X_reconstructed, image_shape)
    if X.shape != Y.shape:
        raise ValueError(f"X and X_reconstructed must have one shape, got {X.shape} and {Y.shape}")
    columns, pairs = min(10, len(X)), max(1, min(3, len(X) // 10))
    rows = spread(len(X), pairs * columns)
    both = np.stack([V[rows].reshape(pairs, columns, -1) for V in (X, Y)], axis=1)
    both = both.reshape(-1, X.shape[1])
    figure, ax, _, middles = picture(both, image_shape, columns, left=150, group=2)
    ax.set_yticks(middles, ["original", "reconstruction"] * pairs)
    return figure


def samples(X, image_shape=None, title=None, data=None, names=None):
    """Samples X (n, D): images, or for a table the `marginals` of up to 30 columns.

    The first 400 images are shown, of images below 16 pixels a side the first 144. For a table,
    data (m, D) are drawn behind the samples, and names (D,) are written above the columns.
    """
    if image_shape is None:
        return marginals(X, data, names, title)
    X = matrix("X", X, image_shape)[: tiles(image_shape) ** 2]
    return image_grid(X, image_shape, np.ceil(np.sqrt(len(X))), title)


def compared(drawn, image_shape):
    """Rows of images, one row for each entry of {label: X (n, height * width)}, all n alike."""
    X = np.concatenate([matrix(f"X of {label}", X, image_shape) for label, X in drawn.items()])
    columns = len(X) // len(drawn)
    figure, ax, _, middles = picture(X, image_shape, columns, "samples of p(x)", left=190)
    ax.set_yticks(middles, list(drawn))
    return figure
