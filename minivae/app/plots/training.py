"""How a training went."""

import numpy as np

from minivae.app.plots.style import COLOURS, label_axes, new_figure, number


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
    figure = new_figure(9 if terms else 5.4, 3.8)
    mosaic = [[score, term] for term in terms] or [[score]]
    axes = figure.subplot_mosaic(mosaic, width_ratios=(1.3, 1)[: len(mosaic[0])])
    for name in lengths:
        values, held_out = np.asarray(history[name], dtype=float), name.startswith("valid_")
        label = f"{'held-out' if held_out else 'train'} {number(values[-1])}"
        style = dict(markevery=[-1], ms=4, lw=1.5, color=COLOURS[held_out], clip_on=False)
        ax = axes[name.removeprefix("valid_")]
        ax.plot(range(1, epochs + 1), values, "-o", label=label, **style)
    valid = np.array(history.get(f"valid_{score}", ()), dtype=float)
    valid[~np.isfinite(valid)] = -np.inf
    if len(valid) and valid.max() > -np.inf:
        best = valid.argmax()
        label = f"best held-out {number(valid[best])}, epoch {best + 1}"
        style = dict(ls="none", ms=9, mfc="none", mew=1.3, color=COLOURS[1], clip_on=False)
        axes[score].plot(best + 1, valid[best], "o", label=label, **style)
    if test_score is not None:
        axes[score].axhline(test_score, c="black", ls="--", label=f"test {number(test_score)}")
    words = {"elbo": "ELBO", "log_likelihood": "log-likelihood"}
    for name, ax in axes.items():
        last = name in (score, *terms[-1:])
        label_axes(ax, f"{words.get(name, name)} (nats)", "epoch" if last else "")
        ax.set_xlim(0.5, epochs + 0.5)
        ax.locator_params(axis="x", integer=True, nbins=6, min_n_ticks=1)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.grid(axis="y", color="0.92", lw=0.6)
        ax.legend(fontsize=9, frameon=False)
    return figure
