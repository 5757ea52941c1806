"""Pictures of tables: their columns, how these go together, and what was filled in."""

from typing import NamedTuple

import numpy as np

from minivae.app.plots.style import (
    COLOURS,
    check_names,
    label_axes,
    matrix,
    new_figure,
    short,
    spread,
)

PANELS = 30  # columns that are drawn, at most
BARS = 6  # and words of one
INDICATORS = 40  # variables of a matrix of correlations, at most


class Columns(NamedTuple):
    """A table as numbers: values (n, D), NaN where one is missing; names (D,) or None; and of a
    column of words which words there are, () of one of numbers: then its numbers are their places.
    """

    values: np.ndarray
    names: list | None
    words: list


def _columns(**tables):
    """The Columns of each of the tables, arrays of numbers or frames, with common words."""
    from minivae.data.frames import opened

    if not any(_is_frame_like(X) for X in tables.values()):
        found = [np.array(matrix(name, X), dtype=float) for name, X in tables.items()]
        for values in found:
            values[~np.isfinite(values)] = np.nan
        return [
            Columns(values, _names(X), [()] * values.shape[1])
            for values, X in zip(found, tables.values(), strict=True)
        ]
    names, tables = [_names(X) for X in tables.values()], [opened(X) for X in tables.values()]
    widths = [len(table.names) for table in tables]
    if len(set(widths)) > 1:
        raise ValueError(f"tables must have equally many columns, got {widths}")
    values = [np.full((table.n_rows, widths[0]), np.nan) for table in tables]
    words = []
    for j in range(widths[0]):
        cells = [table.take(j) for table in tables]
        words.append(_words(cells))
        places = {word: place for place, word in enumerate(words[j])}
        for column, one in zip(values, cells, strict=True):
            if words[j]:
                known = [None if gone else _word(one, value)
                         for value, gone in zip(one.values, one.missing, strict=True)]  # fmt: skip
                column[:, j] = [places.get(word, np.nan) for word in known]
            else:
                column[:, j] = one.values
    return [Columns(*of, words) for of in zip(values, names, strict=True)]


def _is_frame_like(X):
    """Whether X may have words."""
    return hasattr(X, "columns") or (isinstance(X, np.ndarray) and X.dtype.kind == "O")


def _names(X):
    return [str(name) for name in X.columns] if hasattr(X, "columns") else None


def _words(cells):
    """All words of a column in any of the tables, in order; () if all have numbers."""
    if not any(one.words or one.boolean for one in cells):
        return ()
    found = {_word(one, value) for one in cells for value in one.values[~one.missing]}
    return tuple(sorted(found))


def _word(cells, value):
    return str(bool(value)) if cells.boolean else str(value)


def _called(names, of, j):
    """What column j is called."""
    names = of.names if names is None else names
    return f"column {j}" if names is None else names[j]


def marginals(X, data=None, names=None, title=None):
    """Each column of a table X (n, D), up to 30: a histogram of numbers, bars of words.

    data (m, D) are drawn behind X, which is then called samples. Both are shares of the rows, so
    that there may be more of one. names (D,) are written above the columns, by default those of a
    frame. What is not finite is left out.
    """
    if data is None:
        (of,) = _columns(X=X)
        parts = {"samples": of.values}
    else:
        of, behind = _columns(X=X, data=data)
        parts = {"data": behind.values, "samples": of.values}
        if behind.values.shape[1] != of.values.shape[1]:
            raise ValueError(f"data must have {of.values.shape[1]} columns, as X has; got shape "
                             f"{behind.values.shape}")  # fmt: skip
    check_names(names, of.values)
    panels = [(_called(names, of, j), {name: V[:, j] for name, V in parts.items()}, of.words[j])
              for j in range(min(PANELS, of.values.shape[1]))]  # fmt: skip
    return _distributions(panels, title, data is not None)


def imputed(X, filled, names=None, title=None):
    """What was filled in (outlined) beside what is known (grey), of columns of X (n, D) that have
    missing values, up to 30. filled (n, D): X without gaps. names (D,): by default a frame's.

    The two need not be alike: whether a value is missing may depend on others that are known.
    ValueError where nothing is missing.
    """
    of, other = _columns(X=X, filled=filled)
    if of.values.shape != other.values.shape:
        raise ValueError(f"X and filled must have one shape, got {of.values.shape} and "
                         f"{other.values.shape}")  # fmt: skip
    check_names(names, of.values)
    gaps = np.isnan(of.values)
    columns = np.flatnonzero((gaps & ~np.isnan(other.values)).any(axis=0))[:PANELS]
    if len(columns) == 0:
        raise ValueError("X has no missing value that filled has")
    panels = [
        (f"{short(_called(names, of, j), 14)} ({gaps[:, j].sum()})",
         {"known": of.values[~gaps[:, j], j], "filled in": other.values[gaps[:, j], j]},
         of.words[j])
        for j in columns
    ]  # fmt: skip
    return _distributions(panels, title, True)


def _distributions(panels, title, legend):
    """A Figure of panels (name, {part: values (n,)}, words), six in a row."""
    columns, rows = min(6, len(panels)), -(-len(panels) // 6)
    width = max(1.7 * columns, 2 + 0.09 * len(title or ""))  # beside the title there is a legend
    figure = new_figure(width, 1.3 * rows + 0.4 * bool(title or legend))
    if title:
        figure.suptitle(title, size=11, x=0.01, ha="left", parse_math=False)
    drawn = {}
    for place, (name, parts, words) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, place + 1)
        finite = {part: values[np.isfinite(values)] for part, values in parts.items()}
        draw = _bars if words else _histograms
        drawn |= draw(ax, {part: v for part, v in finite.items() if len(v)}, legend, words)
        label_axes(ax, short(name, 18))
    if legend:
        style = dict(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        figure.legend(drawn.values(), drawn.keys(), **style)
    return figure


def _style(part, legend):
    """Grey for what lies behind, an outline for what is drawn on it, else filled."""
    if part in ("data", "known"):
        return {"color": "0.8"}
    if not legend:
        return {"color": COLOURS[0]}
    return {"edgecolor": COLOURS[0], "fill": False, "lw": 1.2}


def _histograms(ax, parts, legend, words):
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    if not parts:
        return {}
    every, drawn = np.concatenate(list(parts.values())), {}
    low, high, pad, bins = every.min(), every.max(), np.abs(every).max() / 2, 21
    constant = high - low <= 2e-6 * pad
    pad *= constant  # such a column has no range of its own
    if not constant and high - low <= 20 and (every == np.rint(every)).all():
        bins, pad = int(high - low) + 1, 0.5  # a bin for each whole number
    for part, values in parts.items():
        kind = "step" if legend and part not in ("data", "known") else "stepfilled"
        style = _style(part, legend)
        # Shares of the rows, since there may be more samples than data.
        style["weights"] = np.full(len(values), 1 / len(values))
        patches = ax.hist(values, bins, range=(low - pad, high + pad), histtype=kind, **style)[2]
        drawn[part] = patches[0]
    ax.locator_params(axis="x", nbins=3)
    return drawn


def _bars(ax, parts, legend, words):
    """Shares of the most frequent words, the greatest on top; the others are one bar."""
    every, drawn = np.concatenate([*parts.values(), []]), {}
    order = _frequent(every, words)
    shown = order if len(words) <= BARS else order[: BARS - 1]
    texts = [short(words[k], 12) for k in shown]
    texts += [f"{len(words) - len(shown)} others"] * (len(shown) < len(words))
    for part, values in parts.items():
        shares = np.bincount(values.astype(int), minlength=len(words)) / len(values)
        heights = [*shares[shown], *([1 - shares[shown].sum()] if len(texts) > len(shown) else [])]
        bars = ax.barh(range(len(heights)), heights, 0.8, **_style(part, legend))
        drawn[part] = bars[0]
    ax.set_yticks(range(len(texts)), texts, parse_math=False)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.05 * max([0.01, *(bar.get_width() for bar in ax.patches)]))
    ax.xaxis.set_major_formatter(lambda share, place: f"{share:.0%}")
    ax.locator_params(axis="x", nbins=2)
    ax.tick_params(axis="y", length=0)
    return drawn


def correlations(data, X, names=None):
    """Correlations of the columns of the data (m, D) and of samples X (n, D), side by side.

    Of words, the second of two is a variable that is 0 or 1, else each of the six most frequent.
    Up to 40 variables are drawn. names (D,): by default those of a frame. Missing values are left
    out pair by pair; grey: a column with one value has no correlation.
    """
    both = _columns(data=data, X=X)
    if len({of.values.shape[1] for of in both}) > 1:
        raise ValueError(f"X must have {both[0].values.shape[1]} columns, as the data have; got "
                         f"shape {both[1].values.shape}")  # fmt: skip
    check_names(names, both[0].values)
    variables = list(_variables(both[0], names))
    variables = [variables[j] for j in spread(len(variables), INDICATORS)]
    found = [_correlation(of.values, variables) for of in both]
    figure = new_figure(10, 5.2)
    axes = figure.subplots(1, 2, subplot_kw={"facecolor": "0.8"})
    texts = [short(name, 16) for name, *_ in variables]
    size = min(8, 150 / len(texts))
    for ax, values, title in zip(axes, found, ("Data", "Samples"), strict=True):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        label_axes(ax, title)
        style = dict(rotation=90, size=size, parse_math=False)
        ax.set_xticks(range(len(texts)), texts, **style)
        ax.set_yticks(range(len(texts)), texts if ax is axes[0] else [], size=size,
                      parse_math=False)  # fmt: skip
        ax.tick_params(length=0)
    label_axes(figure.colorbar(image, ax=axes, pad=0.01, shrink=0.8).ax, y="correlation")
    return figure


def _variables(of, names):
    """Yield (name, column, word or None) of what has correlations."""
    for j, words in enumerate(of.words):
        name = _called(names, of, j)
        if not words:
            yield name, j, None
        elif len(words) == 2:
            yield f"{name}: {words[1]}", j, 1
        else:
            for k in sorted(_frequent(of.values[:, j], words)[:BARS]):
                yield f"{name}: {words[k]}", j, k


def _frequent(values, words):
    """Places of the words, the most frequent first."""
    counts = np.bincount(values[~np.isnan(values)].astype(int), minlength=len(words))
    return np.argsort(-counts, kind="stable")


def _correlation(values, variables):
    """Correlations of variables (p, p), each of the rows in which both are known."""
    x = np.stack([_variable(values[:, j], word) for _, j, word in variables])
    given = np.ma.masked_invalid(x)
    # In units of their own spread, or else the squares of small numbers are lost beside large ones.
    mean, sd = given.mean(axis=1, keepdims=True), given.std(axis=1, keepdims=True).filled(0)
    u = ((given - mean) / np.where(sd > 0, sd, 1)).filled(0)
    known = ~np.ma.getmaskarray(given) * 1.0
    n = np.maximum(known @ known.T, 1)
    one = u @ known.T / n  # the mean of each variable where the other one is known
    variance = u**2 @ known.T / n - one**2
    product = variance * variance.T
    covariance = u @ u.T / n - one * one.T
    return np.where(product > 1e-12, covariance / np.sqrt(np.maximum(product, 1e-12)), np.nan)


def _variable(values, word):
    """A column's numbers, or 1 where it is the word and 0 where it is another."""
    return values if word is None else np.where(np.isnan(values), np.nan, values == word)


def heat_maps(X, X_reconstructed, names=None):
    """Tables as `plots.reconstructions` says."""
    of, made = _columns(X=X, X_reconstructed=X_reconstructed)
    A, B = of.values, made.values
    if A.shape != B.shape:
        raise ValueError(f"X and X_reconstructed must have one shape, got {A.shape} and {B.shape}")
    check_names(names, A)
    known = np.ma.masked_invalid(A)
    mean, scale = known.mean(0).filled(np.nan), known.std(0).filled(1)
    scale[scale <= 1e-9 * np.abs(mean)] = 1  # a constant column has no scale of its own
    rows = spread(len(A), 40)
    A, B = ((V[rows] - mean) / scale for V in (A, B))
    names = of.names if names is None else names
    named = names is not None and len(names) <= PANELS
    figure = new_figure(10, 1.8 + 0.08 * len(A) + 0.6 * named)
    axes = figure.subplots(1, 3, sharey=True, subplot_kw={"facecolor": "0.8"})
    titles = ("Data", "Reconstruction", "Reconstruction \N{MINUS SIGN} data")
    for ax, values, title in zip(axes, (A, B, B - A), titles, strict=True):
        image = ax.imshow(values, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", origin="upper")
        label_axes(ax, title, "" if named else "column", "row" if ax is axes[0] else "")
        ax.locator_params(axis="x", integer=True)
        if named:
            style = dict(rotation=45) if len(names) <= 15 else dict(rotation=90, size=6)
            style |= dict(ha="right", rotation_mode="anchor", parse_math=False)
            if len(names) > 15:
                style["va"] = "center"
            ax.set_xticks(range(len(names)), [short(name, 20) for name in names], **style)
    at = np.arange(0, len(rows), -(-len(rows) // 8))
    axes[0].set_yticks(at, rows[at])
    label_axes(figure.colorbar(image, ax=axes, extend="both", pad=0.01).ax, y="standard deviations")
    return figure
