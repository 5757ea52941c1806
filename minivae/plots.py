"""Pictures of a model and its training, each returned as a matplotlib Figure.

No function here touches pyplot or a global backend: save a result with ``figure.savefig(path)``.
Grey images are intensities from 0 (black) to 1 (white), for digits and faces alike. Every function
raises ValueError or TypeError, before it draws, where its arguments do not fit.
"""

from collections.abc import Mapping

import numpy as np

GREY = "0.35"
# Paul Tol's "muted" scheme, told apart with any colour vision, and a grey for the tenth class.
COLOURS = "#332288 #CC6677 #117733 #88CCEE #DDCC77 #882255 #44AA99 #999933 #AA4499 #777777".split()
MARKERS = "o^"  # with ten colours: twenty classes


def _figure(width, height, layout="constrained"):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")


def _label(ax, title="", x="", y=""):
    ax.set_title(title, size=10, loc="left")
    ax.set_xlabel(x, size=9, color=GREY)
    ax.set_ylabel(y, size=9, color=GREY)
    ax.tick_params(labelsize=8, color=GREY, labelcolor=GREY)
    ax.spines[:].set_color(GREY)
    ax.spines[["top", "right"]].set_visible(False)


def _number(value, digits="5g"):
    return f"{value:.{digits}}".replace("-", "\N{MINUS SIGN}")


def _matrix(name, X, image_shape=None):
    X = np.asarray(X)
    if X.dtype.kind not in "buif" or X.ndim != 2 or X.size == 0:
        raise ValueError(
            f"{name} must be numbers of shape (rows, columns), at least one of each; "
            f"got {X.dtype} {X.shape}"
        )
    if image_shape is not None:
        shape = np.asarray(image_shape)
        sides = shape.shape == (2,) and shape.dtype.kind in "ui" and shape.min() > 0
        if not sides or shape.prod() != X.shape[1]:
            raise ValueError(
                "image_shape must be two positive integers (height, width) with height * width = "
                f"{X.shape[1]}, the columns of {name}; got {image_shape!r}"
            )
        if X.dtype.kind in "ui" and X.max() > 1:
            raise ValueError(
                f"{name} must hold intensities from 0 to 1, got integers up to {X.max()}; "
                "divide by the largest possible, such as 255"
            )
    return X


def _picture(X, image_shape, columns, title="", left=14, bottom=14):
    """Figure and axes of images laid out row by row; the axes count images from the upper left.

    Each pixel is a whole number of dots wide. left and bottom, in dots, leave room for ticks.
    """
    (height, width), rows = image_shape, -(-len(X) // columns)
    cells = np.full((rows * columns, height, width), np.nan, np.result_type(X, np.float32))
    cells[: len(X)] = X.reshape(-1, height, width)  # the cells left over, NaN, show as white
    tile = cells.reshape(rows, columns, height, width).swapaxes(1, 2)
    tile = tile.reshape(rows * height, columns * width)
    scale = max(1, round(min(900, 180 * columns) / tile.shape[1]))
    scale = min(scale, 10_000 / max(tile.shape))  # dots a pixel; larger pictures shrink
    figure = _figure(1, 1, layout="none")
    text = figure.text(0, 1, title, size=11, va="top", parse_math=False)
    box = text.get_window_extent()
    full_width = left + max(tile.shape[1] * scale, box.width) + 14
    full_height = bottom + tile.shape[0] * scale + (box.height + 28 if title else 14)
    figure.set_size_inches(full_width / 150, full_height / 150)
    text.set_position((left / full_width, 1 - 14 / full_height))
    size = (tile.shape[1] * scale / full_width, tile.shape[0] * scale / full_height)
    ax = figure.add_axes((left / full_width, bottom / full_height, *size))
    extent = (0, columns, rows, 0)
    ax.imshow(tile, cmap="gray", vmin=0, vmax=1, origin="upper", extent=extent, aspect="auto")
    ax.vlines(np.arange(1, columns), 0, rows, color="white", lw=0.7)
    ax.hlines(np.arange(1, rows), 0, columns, color="white", lw=0.7)
    _label(ax)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure, ax


def learning_curve(history, test_elbo=None):
    """ELBO by epoch (left) and its terms nll and kl (right, each on its own scale), in nats.

    history is a dict of equally long lists elbo, nll, kl and maybe valid_elbo (held-out rows), one
    value per epoch. test_elbo is drawn as a level line. The legends give the last values.
    """
    if not isinstance(history, Mapping) or not {"elbo", "nll", "kl"} <= history.keys():
        raise TypeError("history must be a dict with the lists elbo, nll, kl; pass vae.history_")
    curves = {"elbo": "train", "valid_elbo": "held-out", "nll": "nll", "kl": "kl"}
    lengths = {name: len(history[name]) for name in curves if name in history}
    epochs = lengths["elbo"]
    if epochs == 0 or set(lengths.values()) != {epochs}:
        raise ValueError(f"history needs equally long lists, one epoch or more; got {lengths}")
    figure = _figure(9, 3.8)
    axes = figure.subplot_mosaic([["elbo", "nll"], ["elbo", "kl"]], width_ratios=(1.3, 1))
    for name, colour in zip(lengths, COLOURS, strict=False):
        values, ax = np.asarray(history[name], dtype=float), axes[name.removeprefix("valid_")]
        ax.plot(range(1, epochs + 1), values, "-o", markevery=[-1], ms=4, lw=1.5, color=colour)
        ax.lines[-1].set_label(f"{curves[name]} {_number(values[-1])}")
    if test_elbo is not None:
        label = f"test {_number(test_elbo)}"
        axes["elbo"].axhline(test_elbo, color="black", lw=1, ls="--", label=label)
    _label(axes["elbo"], "ELBO (nats)", "epoch")
    _label(axes["nll"], "Reconstruction: nll (nats)")
    _label(axes["kl"], "Posterior against prior: kl (nats)", "epoch")
    for ax in axes.values():
        ax.locator_params(axis="x", integer=True, nbins=6)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.grid(axis="y", color="0.92", lw=0.6)
        ax.legend(fontsize=9, frameon=False)
    return figure


def image_grid(X, image_shape, columns=10, title=None):
    """Grid of the rows of X (n, height * width) as grey images of image_shape (height, width)."""
    X = _matrix("X", X, image_shape)
    if columns != int(columns) or columns < 1:
        raise ValueError(f"columns must be an integer of at least 1, got {columns!r}")
    return _picture(X, image_shape, min(int(columns), len(X)), title or "")[0]


def reconstructions(X, X_reconstructed, image_shape=None):
    """Rows of X (n, D) and what the model makes of them, X_reconstructed (n, D).

    Images (image_shape given): up to 30 originals, each above its reconstruction. Tables: heat maps
    of up to 40 rows, in standard deviations of each column of X; missing values are grey.
    """
    X = _matrix("X", X, image_shape)
    Y = _matrix("X_reconstructed", X_reconstructed, image_shape)
    if X.shape != Y.shape:
        raise ValueError(f"X and X_reconstructed must have one shape, got {X.shape} and {Y.shape}")
    if image_shape is not None:
        columns = min(10, len(X))
        pairs = min(3, len(X) // columns)
        both = np.stack([V[: pairs * columns].reshape(pairs, columns, -1) for V in (X, Y)], axis=1)
        figure, ax = _picture(both.reshape(-1, X.shape[1]), image_shape, columns, left=130)
        ax.set_yticks(np.arange(2 * pairs) + 0.5, ["original", "reconstruction"] * pairs)
        ax.hlines(np.arange(2, 2 * pairs, 2), 0, columns, color="white", lw=4)
        return figure
    known = np.ma.masked_invalid(X.astype(float))
    mean, scale = known.mean(0).filled(0), known.std(0).filled(1)
    A, B = ((V[:40] - mean) / np.where(scale > 0, scale, 1) for V in (X, Y))
    figure = _figure(10, 1.8 + 0.08 * len(A))
    axes = figure.subplots(1, 3, sharey=True)
    titles = ("Data", "Reconstruction", "Reconstruction \N{MINUS SIGN} data")
    for ax, values, title in zip(axes, (A, B, B - A), titles, strict=True):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", origin="upper")
        ax.set_facecolor("0.8")
        _label(ax, title, "column", "row" if ax is axes[0] else "")
        ax.locator_params(integer=True)
    bar = figure.colorbar(image, ax=axes, extend="both", aspect=30, pad=0.01)
    _label(bar.ax, y="standard deviations")
    return figure


def samples(X, image_shape=None):
    """Samples X (n, D): a grid of images, or for a table histograms of its first 30 columns."""
    X = _matrix("X", X, image_shape)
    if image_shape is not None:
        return image_grid(X, image_shape, columns=int(np.ceil(np.sqrt(len(X)))))
    columns = min(6, X.shape[1])
    rows = -(-min(30, X.shape[1]) // columns)
    figure = _figure(1.7 * columns, 1.3 * rows)
    for j, values in enumerate(X.T[:30].astype(float)):
        ax = figure.add_subplot(rows, columns, j + 1)
        values = values[np.isfinite(values)]
        ax.hist(values, bins=20, color=COLOURS[0])
        _label(ax, f"column {j}")
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
    return figure


def manifold(decode, image_shape, n=20):
    """The 2-D manifold: means decoded from z at n x n equal steps of the prior's quantiles.

    decode maps Z (n * n, 2) to images (n * n, height * width). z1 grows to the right, z2 upwards.
    """
    from scipy.special import ndtri

    if not callable(decode):
        raise TypeError(f"decode must be a function of Z, got {type(decode).__name__}")
    if n != int(n) or n < 1:
        raise ValueError(f"n must be an integer of at least 1, got {n!r}")
    z = ndtri((np.arange(n) + 0.5) / n)  # midpoints, so never infinite
    Z = np.column_stack([np.tile(z, n), np.repeat(z[::-1], n)])  # by rows from the upper left
    X = _matrix("decode(Z)", decode(Z), image_shape)
    if len(X) != n * n:
        raise ValueError(f"decode must give one row for each of {n * n} rows of Z, got {len(X)}")
    figure, ax = _picture(X, image_shape, n, left=90, bottom=75)
    ticks = np.linspace(0, n - 1, min(n, 6 + n % 2)).round().astype(int)  # symmetric about zero
    names = [_number(value, "2f") for value in z[ticks]]
    ax.set_xticks(ticks + 0.5, names)
    ax.set_yticks(n - 0.5 - ticks, names)
    ax.set_xlabel("$z_1$", size=11)
    ax.set_ylabel("$z_2$", size=11)
    return figure


def latent_scatter(Z, labels=None):
    """Posterior means Z (n, 2), coloured by labels (n,), of at most 20 classes.

    Two faint circles mark one and two standard deviations of the prior.
    """
    Z = _matrix("Z", Z)
    if Z.shape[1] != 2 or not np.isfinite(Z).all():
        raise ValueError(f"Z must be finite and have 2 columns, got shape {Z.shape}")
    names, codes = np.unique(np.zeros(len(Z)) if labels is None else labels, return_inverse=True)
    if codes.shape != (len(Z),) or len(names) > 20:
        raise ValueError(
            f"labels must be one for each of {len(Z)} rows of Z, of at most 20 classes; "
            f"got shape {codes.shape} and {len(names)} classes"
        )
    figure = _figure(5.2 if labels is None else 6.2, 5.2)
    ax = figure.add_subplot(aspect="equal")
    angle = np.linspace(0, 2 * np.pi, 181)
    for radius in (1, 2):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color="0.6", lw=0.8)
    size = np.clip(120 / np.sqrt(len(Z)), 1.5, 5)
    for k in range(len(names)):
        style = dict(color=COLOURS[k % 10], ms=size, mew=0, alpha=0.7, rasterized=True)
        ax.plot(*Z[codes == k].T, MARKERS[k // 10], **style)
    if labels is not None:
        legend = ax.legend(
            ax.lines[2:],
            [" "] * len(names),
            loc="center left",
            markerscale=5 / size,
            bbox_to_anchor=(1, 0.5),
            frameon=False,
        )
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set(text=str(name)[:24], parse_math=False, size=9)
    limit = max(2.2, 1.05 * np.abs(Z).max())
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
    _label(ax, x="$z_1$", y="$z_2$")
    return figure
