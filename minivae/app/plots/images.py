"""Pictures made of images, dot by dot."""

import numpy as np

from minivae.app.plots.style import GREY, matrix, new_figure, number


def tiles(image_shape):
    """How many images a full row has by default: few if they are small, so that each is seen."""
    return 12 if np.max(image_shape) < 16 else 20


def picture(X, image_shape, columns, title="", left=14, bottom=14, group=None):
    """Figure, axes, and the middles of the columns and of the rows of images laid out row by row.

    The axes and the margins left and bottom count dots of the figure. Every pixel of an image is a
    square of whole dots, and white gaps lie between the images, wider ones after a group of rows.
    """
    (height, width), rows = image_shape, -(-len(X) // columns)
    longest = max(rows * (height + 1), columns * (width + 1))
    scale = min(round(min(900, 180 * columns) / (columns * width)), 10_000 // longest)
    scale = max(1, scale)  # dots a pixel
    h, w = height * scale, width * scale
    gap = max(2, min(scale, h // 8, w // 8))  # a pixel's width, so that ink at an edge ends there
    x, y = np.arange(columns) * (w + gap), np.arange(rows) * (h + gap)
    y += 12 * (np.arange(rows) // (group or rows))
    # NaN, which is drawn white, in the gaps and in the cells left over.
    canvas = np.full((y[-1] + h, x[-1] + w), np.nan, np.result_type(X, np.float32))
    for i, image in enumerate(X.reshape(-1, height, width)):
        top, start = y[i // columns], x[i % columns]
        canvas[top : top + h, start : start + w] = image.repeat(scale, 0).repeat(scale, 1)
    # A picture of more dots than a renderer takes shrinks, any other one is drawn dot by dot.
    size = np.ceil(np.array(canvas.shape[::-1]) * min(1, 10_000 / max(canvas.shape)))
    interpolation = "nearest" if max(canvas.shape) <= 10_000 else None
    figure = new_figure(1, 1, layout="none")
    text = figure.text(0, 1, title, size=11, va="top", parse_math=False)
    box = text.get_window_extent()
    top = np.ceil(box.height) + 28 if title else 14
    full = np.array([left + max(size[0], np.ceil(box.width)) + 14, bottom + size[1] + top])
    # Matplotlib rounds a figure's dots down and an image's up, and 55 / 150 * 150 = 54.999...
    full = full + 0.25
    figure.set_size_inches(full / 150)
    text.set_position((left, full[1] - 14) / full)
    ax = figure.add_axes([*((left, bottom) / full), *((size - 1e-3) / full)])
    style = dict(cmap="gray", vmin=0, vmax=1, origin="upper", aspect="auto")
    style["extent"] = (0, canvas.shape[1], canvas.shape[0], 0)
    ax.imshow(canvas, interpolation=interpolation, **style)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0, labelsize=8, labelcolor=GREY)
    ax.spines[:].set_visible(False)
    return figure, ax, x + w / 2, y + h / 2


def image_grid(X, image_shape, columns=10, title=None):
    """Grid of the rows of X (n, height * width) as grey images of image_shape (height, width)."""
    X = matrix("X", X, image_shape)
    if columns != int(columns) or columns < 1:
        raise ValueError(f"columns must be an integer of at least 1, got {columns!r}")
    return picture(X, image_shape, min(int(columns), len(X)), title or "")[0]


def manifold(decode, image_shape, n=None, names=("$z_1$", "$z_2$")):
    """The 2-D manifold: images decoded at n x n equally spaced quantiles of the prior.

    decode maps Z (n * n, 2) to images (n * n, height * width). The first code grows to the right,
    the second upwards; names are theirs. n is 20 by default, and 12 for images below 16 pixels.
    """
    from scipy.special import ndtri

    n = tiles(image_shape) if n is None else n
    if n != int(n) or n < 1:
        raise ValueError(f"n must be an integer of at least 1, got {n!r}")
    z = ndtri((np.arange(n) + 0.5) / n)  # midpoints, so never infinite
    Z = np.column_stack([np.tile(z, n), np.repeat(z[::-1], n)])  # by rows from the upper left
    X = matrix("decode(Z)", decode(Z), image_shape)
    if len(X) != len(Z):
        raise ValueError(f"decode must give one row for each of {len(Z)} rows of Z, got {len(X)}")
    figure, ax, x, y = picture(X, image_shape, n, left=100, bottom=75)
    ticks = np.linspace(0, n - 1, min(n, 6 + n % 2)).round().astype(int)  # symmetric about zero
    texts = [number(value, ".2f") for value in z[ticks]]
    ax.set_xticks(x[ticks], texts)
    ax.set_yticks(y[n - 1 - ticks], texts)
    ax.set(xlabel=names[0], ylabel=names[1])
    return figure
