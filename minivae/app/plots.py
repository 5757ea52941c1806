"""Pictures of a model and its training, each returned as a matplotlib Figure.

No pyplot and no global backend: save a result with ``figure.savefig(path)``. Grey images are
intensities, 0 black to 1 white, for digits and faces alike. Arguments that do not fit raise
ValueError or TypeError before anything is drawn.
"""

import numpy as np

GREY = "0.35"
# Paul Tol's "muted" scheme, told apart with any colour vision, and a grey for the tenth class.
COLOURS = "#332288 #CC6677 #117733 #88CCEE #DDCC77 #882255 #44AA99 #999933 #AA4499 #777777".split()
ACTIVE = 0.01  # nats: a latent whose KL from the prior is below this tells nothing about x


def _figure(width, height, layout="constrained"):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")


def _label(ax, title="", x="", y=""):
    ax.set_title(title, size=10, loc="left", parse_math=False)
    ax.set_xlabel(x, size=9, color=GREY)
    ax.set_ylabel(y, size=9, color=GREY)
    ax.tick_params(labelsize=8, color=GREY, labelcolor=GREY)
    ax.spines[:].set_color(GREY)
    ax.spines[["top", "right"]].set_visible(False)


def _number(value, form="#.5g"):
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def _short(name, length):
    """str(name) in one line of at most so many characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= length else name[: length - 1] + "…"


def _matrix(name, X, image_shape=None):
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


def _check_names(names, X):
    if names is not None and len(names) != X.shape[1]:
        raise ValueError(f"names must be {X.shape[1]}, one for each column of X; got {len(names)}")


def _tiles(image_shape):
    """How many images a full row has by default: few if they are small, so that each is seen."""
    return 12 if np.max(image_shape) < 16 else 20


def _picture(X, image_shape, columns, title="", left=14, bottom=14, group=None):
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
    figure = _figure(1, 1, layout="none")
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


def spread(n, count):
    """Numbers of rows spread evenly over n rows, rising: integers (min(n, count),)."""
    count = min(n, count)
    return (2 * np.arange(count) + 1) * n // (2 * count)  # the middles of count equal parts


def learning_curve(history, score="elbo", terms=("nll", "kl"), test_score=None):
    """A score by epoch (left) and its terms (right, each on its own scale), in nats.

    history is a dict of equally long lists, one value per epoch: score (the higher, the better),
    those of the terms that there are, and maybe "valid_" + each for the held-out rows. A ring marks
    the best held-out epoch; test_score is drawn as a level line. The legends give the last values.
    """
    if not isinstance(history, dict) or score not in history:
        raise TypeError(f"history must be a dict with the list {score}; pass model.history_")
    terms = [term for term in terms if term in history]
    both = [prefix + term for term in (score, *terms) for prefix in ("", "valid_")]
    lengths = {name: len(history[name]) for name in both if name in history}
    epochs = lengths[score]
    if epochs == 0 or set(lengths.values()) != {epochs}:
        raise ValueError(f"history needs equally long lists, one epoch or more; got {lengths}")
    figure = _figure(9 if terms else 5.4, 3.8)
    mosaic = [[score, term] for term in terms] or [[score]]
    axes = figure.subplot_mosaic(mosaic, width_ratios=(1.3, 1)[: len(mosaic[0])])
    for name in lengths:
        values, held_out = np.asarray(history[name], dtype=float), name.startswith("valid_")
        label = f"{'held-out' if held_out else 'train'} {_number(values[-1])}"
        style = dict(markevery=[-1], ms=4, lw=1.5, color=COLOURS[held_out], clip_on=False)
        ax = axes[name.removeprefix("valid_")]
        ax.plot(range(1, epochs + 1), values, "-o", label=label, **style)
    valid = np.array(history.get(f"valid_{score}", ()), dtype=float)
    valid[~np.isfinite(valid)] = -np.inf
    if len(valid) and valid.max() > -np.inf:
        best = valid.argmax()
        label = f"best held-out {_number(valid[best])}, epoch {best + 1}"
        style = dict(ls="none", ms=9, mfc="none", mew=1.3, color=COLOURS[1], clip_on=False)
        axes[score].plot(best + 1, valid[best], "o", label=label, **style)
    if test_score is not None:
        axes[score].axhline(test_score, c="black", ls="--", label=f"test {_number(test_score)}")
    words = {"elbo": "ELBO", "log_likelihood": "log-likelihood"}
    for name, ax in axes.items():
        last = name in (score, *terms[-1:])
        _label(ax, f"{words.get(name, name)} (nats)", "epoch" if last else "")
        ax.set_xlim(0.5, epochs + 0.5)
        ax.locator_params(axis="x", integer=True, nbins=6, min_n_ticks=1)
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


def reconstructions(X, X_reconstructed, image_shape=None, names=None):
    """Rows of X (n, D) and what the model makes of them, X_reconstructed (n, D).

    Images (image_shape given): up to 30 originals, each above its reconstruction. Tables: heat maps
    of up to 40 rows, in standard deviations of each column of X; missing values are grey, and names
    (D,) are written below up to 15 columns. Of more rows, some spread over all of them are shown.
    """
    X = _matrix("X", X, image_shape)
    Y = _matrix("X_reconstructed", X_reconstructed, image_shape)
    if X.shape != Y.shape:
        raise ValueError(f"X and X_reconstructed must have one shape, got {X.shape} and {Y.shape}")
    _check_names(names, X)
    if image_shape is not None:
        columns, pairs = min(10, len(X)), max(1, min(3, len(X) // 10))
        rows = spread(len(X), pairs * columns)
        both = np.stack([V[rows].reshape(pairs, columns, -1) for V in (X, Y)], axis=1)
        both = both.reshape(-1, X.shape[1])
        figure, ax, _, middles = _picture(both, image_shape, columns, left=150, group=2)
        ax.set_yticks(middles, ["original", "reconstruction"] * pairs)
        return figure
    known = np.ma.masked_invalid(X.astype(float))
    mean, scale = known.mean(0).filled(np.nan), known.std(0).filled(1)
    scale[scale <= 1e-9 * np.abs(mean)] = 1  # a constant column has no scale of its own
    rows = spread(len(X), 40)
    A, B = ((V[rows] - mean) / scale for V in (X, Y))
    named = names is not None and len(names) <= 15
    figure = _figure(10, 1.8 + 0.08 * len(A) + 0.6 * named)
    axes = figure.subplots(1, 3, sharey=True, subplot_kw={"facecolor": "0.8"})
    titles = ("Data", "Reconstruction", "Reconstruction \N{MINUS SIGN} data")
    for ax, values, title in zip(axes, (A, B, B - A), titles, strict=True):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", origin="upper")
        _label(ax, title, "" if named else "column", "row" if ax is axes[0] else "")
        ax.locator_params(axis="x", integer=True)
        if named:
            texts = [_short(name, 20) for name in names]
            style = dict(rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
            ax.set_xticks(range(len(names)), texts, **style)
    at = np.arange(0, len(rows), -(-len(rows) // 8))
    axes[0].set_yticks(at, rows[at])
    _label(figure.colorbar(image, ax=axes, extend="both", pad=0.01).ax, y="standard deviations")
    return figure


def samples(X, image_shape=None, title=None, data=None, names=None):
    """Samples X (n, D): images, or for a table histograms of up to 30 columns.

    The first 400 images are shown, of images below 16 pixels a side the first 144. For a table,
    data (m, D) are drawn behind the samples, and names (D,) are written above the columns.
    """
    X = _matrix("X", X, image_shape)
    if image_shape is not None:
        X = X[: _tiles(image_shape) ** 2]
        return image_grid(X, image_shape, np.ceil(np.sqrt(len(X))), title)
    _check_names(names, X)
    parts = {"samples": X} if data is None else {"data": _matrix("data", data), "samples": X}
    if parts.get("data", X).shape[1] != X.shape[1]:
        wrong = parts["data"].shape
        raise ValueError(f"data must have {X.shape[1]} columns, as X has; got shape {wrong}")
    columns, rows = min(6, X.shape[1]), min(5, -(-X.shape[1] // 6))
    width = max(1.7 * columns, 2 + 0.09 * len(title or ""))  # beside the title there is a legend
    figure = _figure(width, 1.3 * rows + 0.4 * bool(title or data is not None))
    if title:
        figure.suptitle(title, size=11, x=0.01, ha="left", parse_math=False)
    drawn = {}
    for j in range(min(30, X.shape[1])):
        ax = figure.add_subplot(rows, columns, j + 1)
        finite = {name: V[np.isfinite(V[:, j]), j].astype(float) for name, V in parts.items()}
        every = np.concatenate(list(finite.values()))
        if len(every):
            low, high, pad = every.min(), every.max(), np.abs(every).max() / 2
            pad *= high - low <= 2e-6 * pad  # a constant column has no range of its own
        for name, values in finite.items():
            if len(values) == 0:
                continue
            style = dict(histtype="stepfilled", color=COLOURS[0])
            if name == "data":
                style["color"] = "0.8"
            elif data is not None:
                style |= dict(histtype="step", lw=1.2)
            # Shares of the rows, since there may be more samples than data.
            style["weights"] = np.full(len(values), 1 / len(values))
            patches = ax.hist(values, bins=21, range=(low - pad, high + pad), **style)[2]
            drawn[name] = patches[0]
        _label(ax, f"column {j}" if names is None else _short(names[j], 18))
        ax.spines["left"].set_visible(False)
        ax.set_yticks([])
    if data is not None:
        style = dict(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        figure.legend(drawn.values(), drawn.keys(), **style)
    return figure


def manifold(decode, image_shape, n=None, names=("$z_1$", "$z_2$")):
    """The 2-D manifold: images decoded at n x n equally spaced quantiles of the prior.

    decode maps Z (n * n, 2) to images (n * n, height * width). The first code grows to the right,
    the second upwards; names are theirs. n is 20 by default, and 12 for images below 16 pixels.
    """
    from scipy.special import ndtri

    n = _tiles(image_shape) if n is None else n
    if n != int(n) or n < 1:
        raise ValueError(f"n must be an integer of at least 1, got {n!r}")
    z = ndtri((np.arange(n) + 0.5) / n)  # midpoints, so never infinite
    Z = np.column_stack([np.tile(z, n), np.repeat(z[::-1], n)])  # by rows from the upper left
    X = _matrix("decode(Z)", decode(Z), image_shape)
    if len(X) != len(Z):
        raise ValueError(f"decode must give one row for each of {len(Z)} rows of Z, got {len(X)}")
    figure, ax, x, y = _picture(X, image_shape, n, left=100, bottom=75)
    ticks = np.linspace(0, n - 1, min(n, 6 + n % 2)).round().astype(int)  # symmetric about zero
    texts = [_number(value, ".2f") for value in z[ticks]]
    ax.set_xticks(x[ticks], texts)
    ax.set_yticks(y[n - 1 - ticks], texts)
    ax.set(xlabel=names[0], ylabel=names[1])
    return figure


def _check_codes(Z, labels):
    """Z as an array (n, Z), the names of the classes, and the number of each row's class (n,)."""
    Z = _matrix("Z", Z)
    if not np.isfinite(Z).all():
        raise ValueError("Z must be finite, got NaN or infinity")
    names, classes = np.unique(np.zeros(len(Z)) if labels is None else labels, return_inverse=True)
    if classes.shape != (len(Z),) or len(names) > 20:
        raise ValueError(
            f"labels must be {len(Z)} of at most 20 classes, got {classes.shape} of {len(names)}"
        )
    return Z, names, classes


def _legend_width(names, labels):
    """Inches that the classes' names take, about."""
    return 0 if labels is None else 0.6 + 0.08 * max(len(_short(name, 24)) for name in names)


def _scatter(ax, points, names, classes, legend):
    """Points (n, 2) in the colours of their classes, and circles of the prior."""
    from matplotlib.patheffects import withStroke

    x, y = np.cos(np.linspace(0, 2 * np.pi, 181)), np.sin(np.linspace(0, 2 * np.pi, 181))
    ax.plot(x, y, 2 * x, 2 * y, color="0.5", lw=0.8, zorder=3)
    size = np.clip(120 / np.sqrt(len(points)), 1.5, 5)
    for k in range(len(names)):  # a second marker for classes beyond ten
        style = dict(color=COLOURS[k % 10], ms=size, mew=0, alpha=0.7, rasterized=True)
        ax.plot(*points[classes == k].T, "o^"[k // 10], **style)
    halo = [withStroke(linewidth=2.5, foreground="white")]  # or else the points hide the words
    for radius, name in ((1, "1 sd of N(0, I)"), (2, "2 sd")):
        style = dict(size=8, ha="center", va="bottom", path_effects=halo, zorder=4)
        ax.text(0, radius + 0.03, name, **style)
    if legend:
        style = dict(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        box = ax.legend(ax.lines[2:], [" "] * len(names), markerscale=6 / size, **style)
        for text, name in zip(box.get_texts(), names, strict=True):
            text.set(text=_short(name, 24), parse_math=False, size=9)
    limit = max(2.2, 1.05 * np.abs(points).max())
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def latent_scatter(Z, labels=None, names=("$z_1$", "$z_2$")):
    """Posterior means Z (n, 2), coloured by labels (n,), numbers or strings of up to 20 classes.

    The circles lie at 1 and 2 sd of the prior. names are those of the two codes.
    """
    Z, words, classes = _check_codes(Z, labels)
    if Z.shape[1] != 2:
        raise ValueError(f"Z must have 2 columns, got shape {Z.shape}; see latent_overview")
    figure = _figure(5.2 + _legend_width(words, labels), 5.2)
    ax = figure.add_subplot()
    _scatter(ax, Z, words, classes, labels is not None)
    _label(ax, x=names[0], y=names[1])
    return figure


def latent_overview(Z, kl=None, labels=None, names=None):
    """Posterior means Z (n, Z > 2) along their first two principal components; KL of each latent.

    labels (n,) colour the rows as in latent_scatter. kl (Z,) holds means over the rows of
    KL(q(z_j|x) || N(0, 1)) in nats; its bars are sorted, and those above ACTIVE are counted. names
    (Z,) are those of the latents, by default their numbers from 1.
    """
    Z, words, classes = _check_codes(Z, labels)
    if Z.shape[1] < 3:
        raise ValueError(f"Z must have 3 columns or more, got shape {Z.shape}; see latent_scatter")
    if kl is not None:
        kl = np.asarray(kl, dtype=float)
        if kl.shape != Z.shape[1:] or not np.isfinite(kl).all():
            raise ValueError(f"kl must be {Z.shape[1]} finite means, one a latent; got {kl.shape}")
    variance, directions = np.linalg.eigh(np.cov(Z.T, bias=True))  # rising
    directions = directions[:, :-3:-1]
    directions *= np.where(directions.sum(axis=0) < 0, -1, 1)  # or else the sign is an accident
    share = variance[-2:].sum() / max(variance.sum(), np.finfo(float).tiny)
    panels = 1 if kl is None else 2
    figure = _figure(4.4 * panels + 0.8 + _legend_width(words, labels), 5.2)
    ratios = (1.2, 1)[:panels]  # so that the left panel, a square, is as high as the right one
    ax, *others = figure.subplots(1, panels, squeeze=False, width_ratios=ratios)[0]
    # The codes are turned but not centred, so the prior stays N(0, I) and its circles hold.
    _scatter(ax, Z @ directions, words, classes, labels is not None)
    title = f"First two principal components of the codes, {share:.0%} of their variance"
    _label(ax, title, "component 1", "component 2")
    for ax in others:
        order = np.argsort(-kl, kind="stable")
        active = kl[order] > ACTIVE
        ax.bar(range(len(kl)), kl[order], color=np.where(active, COLOURS[0], "0.8"))
        title = f"{active.sum()} of {len(kl)} latents are active: KL above {ACTIVE} nats"
        _label(ax, title, "latent", "KL from the prior (nats)")
        texts = range(1, len(kl) + 1) if names is None else names
        step = -(-len(kl) * len(str(texts[-1])) // 44)  # about 44 letters fit below the bars
        ax.set_xticks(range(0, len(kl), step), [texts[j] for j in order[::step]])
    return figure
