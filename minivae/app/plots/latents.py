"""The codes of a model with latent variables."""

import numpy as np

from minivae.app.plots.style import COLOURS, label_axes, matrix, new_figure, short

ACTIVE = 0.01  # nats: a latent whose KL from the prior is below this tells nothing about x


def _check_codes(Z, labels):
    """Z as an array (n, Z), the names of the classes, and the number of each row's class (n,)."""
    Z = matrix("Z", Z)
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
    return 0 if labels is None else 0.6 + 0.08 * max(len(short(name, 24)) for name in names)


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
            text.set(text=short(name, 24), parse_math=False, size=9)
    limit = max(2.2, 1.05 * np.abs(points).max())
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def latent_scatter(Z, labels=None, names=("$z_1$", "$z_2$")):
    """Posterior means Z (n, 2), coloured by labels (n,), numbers or strings of up to 20 classes.

    The circles lie at 1 and 2 sd of the prior. names are those of the two codes.
    """
    Z, words, classes = _check_codes(Z, labels)
    if Z.shape[1] != 2:
        raise ValueError(f"Z must have 2 columns, got shape {Z.shape}; see latent_overview")
    figure = new_figure(5.2 + _legend_width(words, labels), 5.2)
    ax = figure.add_subplot()
    _scatter(ax, Z, words, classes, labels is not None)
    label_axes(ax, x=names[0], y=names[1])
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
    figure = new_figure(4.4 * panels + 0.8 + _legend_width(words, labels), 5.2)
    ratios = (1.2, 1)[:panels]  # so that the left panel, a square, is as high as the right one
    ax, *others = figure.subplots(1, panels, squeeze=False, width_ratios=ratios)[0]
    # The codes are turned but not centred, so the prior stays N(0, I) and its circles hold.
    _scatter(ax, Z @ directions, words, classes, labels is not None)
    title = f"First two principal components of the codes, {share:.0%} of their variance"
    label_axes(ax, title, "component 1", "component 2")
    for ax in others:
        order = np.argsort(-kl, kind="stable")
        active = kl[order] > ACTIVE
        ax.bar(range(len(kl)), kl[order], color=np.where(active, COLOURS[0], "0.8"))
        title = f"{active.sum()} of {len(kl)} latents are active: KL above {ACTIVE} nats"
        label_axes(ax, title, "latent", "KL from the prior (nats)")
        texts = range(1, len(kl) + 1) if names is None else names
        step = -(-len(kl) * len(str(texts[-1])) // 44)  # about 44 letters fit below the bars
        ax.set_xticks(range(0, len(kl), step), [texts[j] for j in order[::step]])
    return figure
