"""What all pictures have in common: look, texts, and checks of what they are given."""

import numpy as np

GREY = "0.35"
# Paul Tol's "muted" scheme, told apart with any colour vision, and a grey for the tenth class.
COLOURS = "#332288 #CC6677 #117733 #88CCEE #DDCC77 #882255 #44AA99 #999933 #AA4499 #777777".split()


def new_figure(width, height, layout="constrained"):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")


def label_axes(ax, title="", x="", y=""):
    ax.set_title(title, size=10, loc="left", parse_math=False)
    ax.set_xlabel(x, size=9, color=GREY)
    ax.set_ylabel(y, size=9, color=GREY)
    ax.tick_params(labelsize=8, color=GREY, labelcolor=GREY)
    ax.spines[:].set_color(GREY)
    ax.spines[["top", "right"]].set_visible(False)


def number(value, form="#.5g"):
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def short(name, length):
    """str(name) in one line of at most so many characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def matrix(name, X, image_shape=None):
    X = np.asarray(X)
    if X.dtype.kind not in "buif" or X.ndim != 2 or X.size == 0:
        raise ValueError(
            f"{name} must be a non-empty 2-D array of numbers, got {X.dtype} {X.shape}"
        )
    if image_shape is None:
        return X
    shape, wanted = np.asarray(image_shape), f"product {X.shape[1]}, the columns of {name}"
    integers = shape.dtype.kind in "ui" and shape.shape == (2,)
    if not integers or shape.min() < 1 or shape.prod() != X.shape[1]:
        raise ValueError(f"image_shape must be (height, width), {wanted}; got {image_shape!r}")
    if X.dtype.kind in "ui" and X.max() > 1:
        raise ValueError(f"{name} must be intensities from 0 to 1, got {X.max()}; divide by 255")
    return X


def check_names(names, X):
    if names is not None and len(names) != X.shape[1]:
        raise ValueError(f"names must be {X.shape[1]}, one for each column of X; got {len(names)}")


def spread(n, count):
    """Numbers of rows spread evenly over n rows, rising: integers (min(n, count),)."""
    count = min(n, count)
    return (2 * np.arange(count) + 1) * n // (2 * count)  # the middles of count equal parts
