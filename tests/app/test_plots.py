"""The pictures: what they show, where it lies, and what they refuse."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import ndtri

from minivae import plots

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
RNG = np.random.default_rng(0)
SHAPE = (3, 4)
IMAGES = RNG.random((35, 12))
TABLE = RNG.normal(100.0, 5.0, (50, 7))
CODES = RNG.normal(size=(50, 2))
WIDE = RNG.normal(size=(50, 30)) * np.linspace(2, 0.5, 30)
NAMES = [f"a class with a long name, {k}" for k in range(20)]
FRAME = pandas.DataFrame({
    "number": RNG.normal(size=50),
    "count": RNG.integers(0, 4, 50),
    "truth": np.arange(50) % 3 == 0,
    "word": np.resize(["one", "two", "two", "three"], 50),
    "many words": [f"word {j % 9}" for j in range(50)],
})  # fmt: skip
GAPS = FRAME.astype(object).mask(RNG.random((50, 5)) < 0.2)
MANY = RNG.normal(size=(20, 60))
HISTORY = {
    "loss": [150.0, 120.0, 110.25],
    "nll": [145.0, 108.0, 95.0],
    "kl": [5.0, 12.0, 15.25],
    "elbo": [-150.0, -120.0, -110.25],
    "seconds": [1.0, 1.0, 1.0],
}
HELD_OUT = HISTORY | {
    "valid_elbo": [-152.0, -114.5, -123.0],
    "valid_nll": [146.0, 102.25, 108.5],
    "valid_kl": [6.0, 12.25, 14.5],
}
FIRST = {name: values[:1] for name, values in HELD_OUT.items()}
NAN = {name: [values[0], np.nan, np.nan] for name, values in HELD_OUT.items()}
LONG = "a title that is much wider than its picture, for $5"
EVERY_KIND = {
    "curve": lambda: plots.learning_curve(HELD_OUT, test_score=-113.5),
    "curve of 1 epoch": lambda: plots.learning_curve(FIRST),
    "curve that ends in NaN": lambda: plots.learning_curve(NAN),
    "curve of another family": lambda: plots.learning_curve(
        {"log_likelihood": [-3.0, -2.0], "nll": [3.0, 2.0]}, "log_likelihood", ("nll",)
    ),
    "grid": lambda: plots.image_grid(IMAGES, SHAPE, title="Random images"),
    "grid of 1": lambda: plots.image_grid(IMAGES[:1], SHAPE, title=LONG),
    "reconstructions": lambda: plots.reconstructions(IMAGES, IMAGES / 2, SHAPE),
    "reconstructions of a table": lambda: plots.reconstructions(TABLE, TABLE + 1),
    "reconstructions with names": lambda: plots.reconstructions(TABLE, TABLE + 1, names=NAMES[:7]),
    "samples": lambda: plots.samples(IMAGES, SHAPE, title="means of p(x|z)"),
    "samples of a table": lambda: plots.samples(TABLE),
    "samples beside data": lambda: plots.samples(TABLE, title=LONG, data=TABLE, names=NAMES[:7]),
    "samples beside one column": lambda: plots.samples(TABLE[:, :1], data=TABLE[:, 1:2]),
    "marginals of words": lambda: plots.marginals(FRAME, FRAME[::-1], title=LONG),
    "imputed": lambda: plots.imputed(GAPS, FRAME, title="what was missing"),
    "correlations": lambda: plots.correlations(FRAME, FRAME[:9]),
    "correlations of many": lambda: plots.correlations(
        MANY, MANY, [f"the column {j}" for j in range(60)]
    ),
    "reconstructions of words": lambda: plots.reconstructions(GAPS, FRAME),
    "manifold": lambda: plots.manifold(lambda Z: np.tile(Z, 6), SHAPE),
    "scatter": lambda: plots.latent_scatter(CODES, np.arange(50) % 20),
    "scatter of long names": lambda: plots.latent_scatter(CODES, np.resize(NAMES, 50)),
    "scatter without labels": lambda: plots.latent_scatter(CODES),
    "overview": lambda: plots.latent_overview(WIDE, np.arange(30.0), np.resize(NAMES, 50)),
    "overview without labels": lambda: plots.latent_overview(WIDE, np.arange(30.0)),
    "overview of one row": lambda: plots.latent_overview(WIDE[:1]),
}


def pixels(figure):
    """The saved figure, (height, width, 4)."""
    file = io.BytesIO()
    figure.savefig(file)
    file.seek(0)
    return imread(file)


def tile(figure):
    """The array that a picture made of images shows, one number a dot, NaN where it is empty."""
    (ax,) = figure.axes
    (image,) = ax.images
    assert (image.get_cmap().name, image.get_clim(), image.origin) == ("gray", (0, 1), "upper")
    return np.ma.filled(image.get_array(), np.nan)


def runs(filled):
    """[start, stop) of each run of True, (number of runs, 2)."""
    return np.flatnonzero(np.diff(filled, prepend=False, append=False)).reshape(-1, 2)


def cells(figure, shape):
    """The images of a picture, (rows, columns, height, width), each pixel once.

    All have the size of the first one, and their pixels are squares of equally many dots.
    """
    shown = tile(figure)
    rows, columns = (runs(~np.isnan(shown).all(axis=axis)) for axis in (1, 0))
    scale, rest = divmod(rows[0, 1] - rows[0, 0], shape[0])
    assert scale >= 1
    assert rest == 0
    images = []
    for (top, bottom), (left, right) in itertools.product(rows, columns):
        assert (bottom - top, right - left) == (shape[0] * scale, shape[1] * scale)
        dots = shown[top:bottom, left:right]
        images.append(dots[::scale, ::scale])
        np.testing.assert_array_equal(dots, images[-1].repeat(scale, 0).repeat(scale, 1))
    return np.reshape(images, (len(rows), len(columns), *shape))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(owner):
    """The texts of the legend of an axes or of a figure."""
    box = owner.get_legend() if hasattr(owner, "get_legend") else owner.legends[0]
    return [text.get_text().replace("\N{MINUS SIGN}", "-") for text in box.get_texts()]


def outline(patch, bins=21):
    """Heights of the bins of a histogram drawn as one outline, and its first and last edge."""
    x, y = patch.get_path().vertices[: 2 * bins + 1].T
    return y[1::2], [x[0], x[-1]]


def curves(ax):
    """The lines of an axes by the texts of its legend."""
    return dict(zip(legend(ax), ax.lines, strict=True))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_picture_has_a_white_border_so_nothing_is_cut_off(kind):
    figure = EVERY_KIND[kind]()
    image = pixels(figure)
    assert figure.dpi == 150
    assert max(image.shape) <= 1900
    assert image.min() < 0.5  # it does show something
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert edge.min() == 1


def test_learning_curve_shows_every_epoch_and_names_the_last_and_the_best_values():
    figure = plots.learning_curve(HELD_OUT, test_score=-113.5)
    elbo, nll, kl = figure.axes
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["ELBO (nats)", "nll (nats)", "kl (nats)"]
    expected = [
        (elbo, "train -110.25", HELD_OUT["elbo"]),
        (elbo, "held-out -123.00", HELD_OUT["valid_elbo"]),
        (nll, "train 95.000", HELD_OUT["nll"]),
        (nll, "held-out 108.50", HELD_OUT["valid_nll"]),
        (kl, "train 15.250", HELD_OUT["kl"]),
        (kl, "held-out 14.500", HELD_OUT["valid_kl"]),
    ]
    for ax, name, values in expected:
        np.testing.assert_array_equal(curves(ax)[name].get_xydata().T, [[1, 2, 3], values])
    best = curves(elbo)["best held-out -114.50, epoch 2"]
    np.testing.assert_array_equal(best.get_xydata(), [[2, -114.5]])
    assert curves(elbo)["test -113.50"].get_ydata() == [-113.5, -113.5]
    assert [len(ax.lines) for ax in figure.axes] == [4, 2, 2]


def test_learning_curve_without_held_out_rows_has_one_elbo():
    assert list(curves(plots.learning_curve(HISTORY).axes[0])) == ["train -110.25"]


@pytest.mark.parametrize(
    "valid, best",
    [
        ([np.nan, -5.0, -4.0], ["best held-out -4.0000, epoch 3"]),
        ([-3.0, np.nan, -np.inf], ["best held-out -3.0000, epoch 1"]),
        ([-4.0, -4.0, -5.0], ["best held-out -4.0000, epoch 1"]),
        ([np.nan, np.nan, np.nan], []),
    ],
)
def test_learning_curve_marks_the_first_best_epoch_that_has_a_number(valid, best):
    figure = plots.learning_curve(HISTORY | {"valid_elbo": valid})
    assert [name for name in curves(figure.axes[0]) if name.startswith("best")] == best


def test_learning_curve_of_another_family_has_its_score_and_the_terms_that_there_are():
    history = {"log_likelihood": [-3.0, -2.0], "nll": [3.0, 2.0], "my_term": [1.0, 0.5]}
    for terms, titles in [
        (("nll",), ["log-likelihood (nats)", "nll (nats)"]),
        (("nll", "kl"), ["log-likelihood (nats)", "nll (nats)"]),
        (("nll", "my_term"), ["log-likelihood (nats)", "nll (nats)", "my_term (nats)"]),
        ((), ["log-likelihood (nats)"]),
    ]:
        figure = plots.learning_curve(history, score="log_likelihood", terms=terms)
        assert [ax.get_title(loc="left") for ax in figure.axes] == titles
        labels = [ax.get_xlabel() for ax in figure.axes]
        assert (labels[0], labels[-1]) == ("epoch", "epoch")


def test_learning_curve_of_one_epoch_has_one_whole_tick_and_a_visible_point():
    figure = plots.learning_curve(FIRST)
    figure.draw_without_rendering()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        assert [tick for tick in ax.get_xticks() if low <= tick <= high] == [1]
        assert all(line.get_marker() == "o" for line in ax.lines)


def test_image_grid_goes_row_by_row_and_leaves_the_rest_empty():
    X = np.arange(5 * 12).reshape(5, 12) / 60
    shown = cells(plots.image_grid(X, SHAPE, columns=3), SHAPE)
    np.testing.assert_array_equal(shown.reshape(6, 12)[:5], X)
    assert shown.shape == (2, 3, *SHAPE)
    assert np.isnan(shown[1, 2]).all()


@pytest.mark.parametrize("draw", [plots.image_grid, plots.samples])
def test_pictures_of_images_have_the_title_that_they_are_given(draw):
    for title in ("means of p(x|z), z from N(0, I)", LONG):
        figure = draw(IMAGES, SHAPE, title=title)
        assert [text.get_text() for text in figure.texts] == [title]
        figure.draw_without_rendering()  # were the $ read as mathematics, this would raise
    assert [text.get_text() for text in draw(IMAGES, SHAPE).texts] == [""]


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (28, 20), (3, 4), (32, 32)])
@pytest.mark.parametrize("columns", [1, 2, 3, 10])
def test_every_dot_of_every_image_is_drawn_as_it_is(shape, columns):
    bits = RNG.integers(0, 2, (12, shape[0] * shape[1]))
    figure = plots.image_grid(bits, shape, columns)
    seen, drawn = pixels(figure)[..., 0], np.nan_to_num(tile(figure), nan=1)
    height, width = drawn.shape
    np.testing.assert_array_equal(seen[14 : 14 + height, 14 : 14 + width], drawn)
    assert seen.shape == (height + 28, width + 28)


@pytest.mark.parametrize(
    "n, whole", [(60, True), (170, True), (178, True), (300, True), (400, False)]
)
def test_a_picture_shrinks_only_if_there_is_no_room_for_a_dot_per_pixel(n, whole):
    figure = plots.image_grid(np.zeros((n, 784)), (28, 28), columns=1)
    height = figure.axes[0].bbox.height
    assert height <= 10_000
    assert (round(height) == len(tile(figure))) == whole


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (28, 20)])
def test_reconstructions_cover_no_pixel_and_leave_the_gaps_white(shape):
    black = np.zeros((35, shape[0] * shape[1]))
    image = pixels(plots.reconstructions(black, black, shape)).min(axis=2)
    rows, columns = (runs((image[:, 150:] < 1).any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == (6, 10)
    (scale,) = set(np.diff(rows).ravel() / shape[0]) | set(np.diff(columns).ravel() / shape[1])
    assert scale == int(scale)
    for top, bottom in rows:
        for left, right in columns + 150:
            assert image[top:bottom, left:right].max() == 0
    gaps = rows[1:, 0] - rows[:-1, 1]
    assert gaps.min() >= 2
    assert gaps[1] == gaps[3] > gaps[0] == gaps[2] == gaps[4]  # the wide ones part the pairs
    for top, bottom in zip(rows[:-1, 1], rows[1:, 0], strict=True):
        assert image[top:bottom].min() == 1  # in the margin with the words too


@pytest.mark.parametrize("n", [1, 2, 3, 10, 29, 30, 31, 1000, 10**9])
@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_spread_takes_one_row_from_each_of_equal_parts(n, count):
    rows = plots.spread(n, count)
    count = min(n, count)
    np.testing.assert_array_equal((2 * rows + 1) * count // (2 * n), np.arange(count))
    if n == count:
        np.testing.assert_array_equal(rows, np.arange(n))


def test_image_grid_draws_ink_on_its_side_of_grey_and_each_pixel_alike():
    image = pixels(plots.image_grid([[0.0, 1.0, 1.0, 0.0]], (2, 2)))[..., 0]
    assert set(np.unique(image)) == {0, 1}
    dark = image == 0
    height, width = dark.shape
    assert dark[: height // 2, : width // 2].sum() == dark[height // 2 :, width // 2 :].sum() > 0
    assert not dark[: height // 2, width // 2 :].any()


def test_image_grid_keeps_the_dtype_and_the_data():
    X = IMAGES.astype(np.float32)
    before = X.copy()
    assert tile(plots.image_grid(X, list(SHAPE))).dtype == np.float32
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("n, pairs, columns", [(1, 1, 1), (4, 1, 4), (19, 1, 10), (35, 3, 10)])
def test_reconstructions_lie_below_their_originals(n, pairs, columns):
    shown = cells(plots.reconstructions(IMAGES[:n], IMAGES[:n] / 2, SHAPE), SHAPE)
    shown = shown.reshape(pairs, 2, columns, 12)
    originals = IMAGES[plots.spread(n, pairs * columns)].reshape(pairs, columns, 12)
    np.testing.assert_array_equal(shown[:, 0], originals)
    np.testing.assert_array_equal(shown[:, 1], originals / 2)


def test_reconstructions_name_each_row_at_its_middle():
    figure = plots.reconstructions(IMAGES, IMAGES, SHAPE)
    (ax,) = figure.axes
    words = [label.get_text() for label in ax.get_yticklabels()]
    assert words == ["original", "reconstruction"] * 3
    middles = runs(~np.isnan(tile(figure)).all(axis=1)).mean(axis=1)
    np.testing.assert_array_equal(ax.get_yticks(), middles)


def test_reconstructions_of_a_long_table_are_of_rows_spread_over_it():
    X = RNG.normal(size=(1000, 3))
    figure = plots.reconstructions(X, X + 1)
    data, made = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    rows = plots.spread(1000, 40)
    np.testing.assert_allclose(data, ((X - X.mean(0)) / X.std(0))[rows], rtol=0, atol=1e-13)
    np.testing.assert_allclose(made - data, np.tile(1 / X.std(0), (40, 1)), rtol=0, atol=1e-13)
    (ax, *_) = figure.axes
    words = [label.get_text() for label in ax.get_yticklabels()]
    assert words == [str(rows[int(at)]) for at in ax.get_yticks()]
    assert 2 <= len(words) <= 10


@pytest.mark.parametrize("columns, named", [(1, True), (15, True), (30, True), (31, False)])
def test_reconstructions_of_a_table_name_its_columns_if_they_fit(columns, named):
    names = ["$x_1$", "_b", "a name that would take all of the space"] + ["c"] * 28
    X = RNG.normal(size=(5, columns))
    figure = plots.reconstructions(X, X, names=names[:columns])
    figure.draw_without_rendering()
    for ax in figure.axes[:3]:
        words = [label.get_text() for label in ax.get_xticklabels()]
        if named:
            assert words == ["$x_1$", "_b", "a name that would t…", *["c"] * 27][:columns]
            np.testing.assert_array_equal(ax.get_xticks(), np.arange(columns))
        assert ax.get_xlabel() == ("" if named else "column")


def test_reconstructions_of_a_table_are_in_standard_deviations_of_the_data():
    X = TABLE.copy()
    X[:, 3] = 0.1  # constant: a column of its own unit
    rows = plots.spread(len(X), 40)
    X[rows[5], 0] = np.nan
    figure = plots.reconstructions(X, X + 2)
    data, made, difference = (ax.images[0] for ax in figure.axes[:3])
    assert {image.get_clim() for image in (data, made, difference)} == {(-3, 3)}
    scale = np.nanstd(X, axis=0)
    scale[3] = 1
    wanted = ((X - np.nanmean(X, axis=0)) / scale)[rows]
    # Differences of numbers near 100, kept to 1e-14, over a scale near 5.
    close = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(np.ma.filled(data.get_array(), np.nan), wanted, **close)
    np.testing.assert_allclose(np.ma.filled(made.get_array(), np.nan), wanted + 2 / scale, **close)
    off = np.ma.filled(difference.get_array(), np.nan)
    np.testing.assert_allclose(off, wanted * 0 + 2 / scale, **close)
    assert np.isnan(off[5, 0])


def test_samples_of_images_are_a_square_of_as_many_as_one_can_see():
    assert cells(plots.samples(IMAGES, SHAPE), SHAPE).shape == (6, 6, *SHAPE)
    for side, tiles in [(1, 12), (8, 12), (15, 12), (16, 20), (28, 20)]:
        shown = cells(plots.samples(np.zeros((500, side**2)), (side, side)), (side, side))
        assert shown.shape == (tiles, tiles, side, side)


def test_small_images_are_large_enough_to_be_seen():
    shown = tile(plots.samples(np.zeros((400, 64)), (8, 8)))
    height = np.diff(runs(~np.isnan(shown).all(axis=1)))
    assert height.min() >= 60  # dots of 150 an inch: a centimetre


def test_samples_of_a_table_are_one_histogram_per_column():
    figure = plots.samples(TABLE, title="samples of p(x)")
    assert figure.get_suptitle() == "samples of p(x)"
    assert figure.legends == []
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"column {j}" for j in range(7)]
    for ax, column in zip(figure.axes, TABLE.T, strict=True):
        heights, ends = outline(ax.patches[0])
        np.testing.assert_allclose(heights * 50, np.histogram(column, bins=21)[0])
        np.testing.assert_allclose(ends, [column.min(), column.max()])
    assert len(plots.samples(np.zeros((3, 64))).axes) == 30


def test_samples_of_a_table_lie_on_the_data_with_the_same_bins():
    data = TABLE[:20] + 3
    figure = plots.samples(TABLE, data=data)
    assert legend(figure) == ["data", "samples"]
    for ax, column, behind in zip(figure.axes, TABLE.T, data.T, strict=True):
        both = np.concatenate([column, behind])
        for patch, values in zip(ax.patches, (behind, column), strict=True):
            heights, ends = outline(patch)
            counts = np.histogram(values, bins=21, range=(both.min(), both.max()))[0]
            np.testing.assert_allclose(heights, counts / len(values))
            np.testing.assert_allclose(ends, [both.min(), both.max()])
        assert [patch.get_fill() for patch in ax.patches] == [True, False]


def test_samples_of_a_table_have_the_names_of_its_columns():
    names = ["$\\frac$", "_b", "two\nlines", "a name that is too long for its picture", 5, "", "c"]
    figure = plots.samples(TABLE, names=names)
    figure.draw_without_rendering()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["$\\frac$", "_b", "two lines", "a name that is to…", "5", "", "c"]


def test_the_title_of_samples_leaves_room_for_the_legend():
    figure = plots.samples(TABLE[:, :1], title=LONG, data=TABLE[:, :1])
    figure.draw_without_rendering()
    title, box = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert title.x1 < box.x0
    assert box.x1 < figure.bbox.x1


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e17])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_samples_of_a_constant_column_are_one_bar_even_with_rounding_noise(value, dtype):
    column = np.full((9, 1), value, dtype=dtype)
    column[0] *= 1 + np.finfo(dtype).eps
    heights = outline(plots.samples(column).axes[0].patches[0])[0]
    np.testing.assert_allclose(np.sort(heights)[-2:], [0, 1])


def test_samples_leave_out_what_is_not_finite():
    X = [[1.0, np.nan], [2.5, np.nan], [np.inf, np.nan]]
    one, none = plots.samples(X).axes
    heights, ends = outline(one.patches[0])
    assert (list(heights[[0, -1]]), ends) == ([0.5, 0.5], [1, 2.5])
    assert len(none.patches) == 0
    assert legend(plots.samples(X, data=[[np.nan, np.nan]])) == ["samples"]


def bars(ax, part):
    """{word: share} of the bars of the first or the second table."""
    n = len(ax.get_yticks())
    widths = [patch.get_width() for patch in ax.patches[part * n : (part + 1) * n]]
    return dict(zip([label.get_text() for label in ax.get_yticklabels()], widths, strict=True))


def test_marginals_of_words_are_shares_of_the_rows_the_most_frequent_first():
    figure = plots.marginals(FRAME, FRAME[:10])
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(FRAME)
    *_, truth, word, many = figure.axes
    assert list(bars(word, 0)) == ["two", "one", "three"]  # by all rows of both
    for part, rows in enumerate([FRAME[:10], FRAME]):  # the data, then the samples
        for ax, name in (truth, "truth"), (word, "word"):
            shares = rows[name].astype(str).value_counts(normalize=True)
            assert bars(ax, part) == pytest.approx({w: shares.get(w, 0) for w in bars(ax, part)})
        assert sum(bars(many, part).values()) == pytest.approx(1)
    assert len(bars(many, 0)) == 6 and list(bars(many, 0))[-1] == "4 others"
    assert legend(figure) == ["data", "samples"]


def test_whole_numbers_have_a_bin_each():
    heights, ends = outline(plots.marginals(FRAME[["count"]]).axes[0].patches[0], 4)
    assert ends == [-0.5, 3.5]
    np.testing.assert_allclose(heights, np.bincount(FRAME["count"]) / 50)


def test_imputed_shows_the_columns_with_gaps_and_what_is_in_them():
    X = TABLE.copy()
    X[[3, 5, 7], 2] = np.nan
    X[[1, 2], 4] = np.nan
    figure = plots.imputed(X, TABLE, NAMES[:7])
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "a class with … (3)",
        "a class with … (2)",
    ]
    for ax, j in zip(figure.axes, (2, 4), strict=True):
        gaps = np.isnan(X[:, j])
        ends = TABLE[:, j].min(), TABLE[:, j].max()
        for patch, rows in zip(ax.patches, (~gaps, gaps), strict=True):
            counts = np.histogram(TABLE[rows, j], bins=21, range=ends)[0]
            np.testing.assert_allclose(outline(patch)[0], counts / rows.sum())
    assert legend(figure) == ["known", "filled in"]


def test_correlations_are_those_of_pandas():
    """Of all pairs of known values, with a variable for each word."""
    shown = [ax.images[0].get_array().filled(np.nan) for ax in plots.correlations(
        GAPS[["number", "count", "truth", "word"]], FRAME[["number", "count", "truth", "word"]]
    ).axes[:2]]  # fmt: skip
    for frame, found in zip([GAPS, FRAME], shown, strict=True):
        variables = pandas.DataFrame({name: frame[name].astype(float)
                                      for name in ("number", "count", "truth")})  # fmt: skip
        for word in sorted(FRAME["word"].unique()):
            variables[word] = (frame["word"] == word).astype(float).where(frame["word"].notna())
        # Sums of 50 terms of size 1, of which differences are taken.
        np.testing.assert_allclose(found, variables.corr(), rtol=0, atol=1e-12)


def test_correlations_of_a_constant_column_are_left_out():
    X = np.column_stack([TABLE[:, :2], np.full(50, 0.1)])
    found = plots.correlations(X, X).axes[0].images[0].get_array().filled(np.nan)
    assert np.isnan(found[2]).all() and np.isfinite(found[:2, :2]).all()


@pytest.mark.parametrize("n", [1, 4, 5])
def test_manifold_decodes_the_quantile_midpoints_with_z1_rightwards_and_z2_upwards(n):
    asked = []

    def decode(Z):
        asked.append(Z.copy())
        return np.stack([Z[:, 0], Z[:, 1]], axis=1)  # an image of two pixels: z1 above z2

    figure = plots.manifold(decode, (2, 1), n=n)
    shown = cells(figure, (2, 1))
    z = [ndtri((i + 0.5) / n) for i in range(n)]
    assert [Z.shape for Z in asked] == [(n * n, 2)]
    assert np.isfinite(asked[0]).all()
    for row in range(n):
        for column in range(n):
            np.testing.assert_array_equal(shown[row, column, :, 0], [z[column], z[n - 1 - row]])
    # Ticks stand at the middle of the image that they name.
    (ax,) = figure.axes
    for axis, values, across in ((ax.xaxis, z, 0), (ax.yaxis, z[::-1], 1)):
        middles = runs(~np.isnan(tile(figure)).all(axis=across)).mean(axis=1)
        names = [label.get_text().replace("\N{MINUS SIGN}", "-") for label in axis.get_ticklabels()]
        at = [values[list(middles).index(place)] for place in axis.get_ticklocs()]
        assert names == [f"{value:.2f}" for value in at]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")


@pytest.mark.parametrize("shape, n", [((8, 8), 12), ((15, 15), 12), ((28, 28), 20), ((8, 28), 20)])
def test_manifold_has_fewer_tiles_where_the_images_are_small(shape, n):
    figure = plots.manifold(lambda Z: np.zeros((len(Z), shape[0] * shape[1])), shape)
    assert cells(figure, shape).shape == (n, n, *shape)


def test_latent_scatter_draws_each_class_and_the_prior():
    names = [r"$\frac$", "_b", "c"]  # sorted; neither mathematics nor hidden
    labels = np.array(names * 16 + ["c", "c"])
    figure = plots.latent_scatter(CODES, labels)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    one, two, *classes = ax.lines
    for radius, circle in ((1, one), (2, two)):
        np.testing.assert_allclose(np.hypot(*circle.get_data()), radius, rtol=1e-14)
    for name, points in zip(names, classes, strict=True):
        np.testing.assert_array_equal(points.get_xydata(), CODES[labels == name])
    assert legend(ax) == names
    assert ax.get_aspect() == 1
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[1] >= np.abs(CODES).max()


def test_latent_scatter_tells_twenty_classes_apart():
    classes = plots.latent_scatter(CODES, np.arange(50) % 20).axes[0].lines[2:]
    assert len({(points.get_color(), points.get_marker()) for points in classes}) == 20


def test_latent_scatter_names_the_circles_of_the_prior_where_they_are():
    for figure in (plots.latent_scatter(CODES), plots.latent_overview(WIDE)):
        figure.draw_without_rendering()
        (ax,) = figure.axes
        assert texts(ax) == ["1 sd of N(0, I)", "2 sd"]
        for radius, circle, text in zip((1, 2), ax.lines, ax.texts, strict=False):
            inside = ax.transData.inverted().transform(text.get_window_extent())
            (left, bottom), (right, top) = inside
            assert left < 0 < right
            assert radius < bottom < top < radius + 0.5
            # The points hide neither.
            assert min(circle.zorder, text.zorder) > max(line.zorder for line in ax.lines[2:])


def test_latent_scatter_without_labels_has_no_legend():
    figure = plots.latent_scatter(CODES)
    assert figure.axes[0].get_legend() is None
    np.testing.assert_array_equal(figure.axes[0].lines[2].get_xydata(), CODES)


def test_latent_overview_shows_the_plane_of_the_largest_variance():
    # Rows of a plane in space, which a principal component analysis finds whatever its noise is.
    plane = np.linalg.qr(RNG.normal(size=(5, 2)))[0].T
    points = CODES * [3, 1] + [0.5, -2]
    noise = RNG.normal(size=(50, 5)) * 1e-3
    (ax,) = plots.latent_overview(points @ plane).axes
    assert "100% of their variance" in ax.get_title(loc="left")
    shown = ax.lines[2].get_xydata()
    # Turned and at most mirrored: what lies in a distance of the prior's mean stays there.
    np.testing.assert_allclose(shown @ shown.T, points @ points.T, rtol=0, atol=1e-12)
    centred = shown - shown.mean(axis=0)
    (high, across), (_, low) = centred.T @ centred
    assert high > low
    assert abs(across) < 1e-10
    (ax,) = plots.latent_overview(points @ plane + noise).axes
    # Noise of 1e-3 turns directions by 1e-3 at most, and the points lie within 10 of the middle.
    np.testing.assert_allclose(np.abs(ax.lines[2].get_xydata()), np.abs(shown), atol=0.02)


def test_latent_overview_says_how_much_of_the_variance_it_shows():
    Z = np.concatenate([np.eye(4), -np.eye(4)]) * [4, 3, 2, 1]
    title = plots.latent_overview(Z).axes[0].get_title(loc="left")
    assert title == "First two principal components of the codes, 83% of their variance"  # 25 / 30
    title = plots.latent_overview(np.ones((5, 3))).axes[0].get_title(loc="left")
    assert "0% of their variance" in title


def test_latent_overview_sorts_the_kl_of_each_latent_and_counts_the_active_ones():
    kl = np.array([0.01, 0.5, 0.0, 3.0, 0.011])
    figure = plots.latent_overview(WIDE[:, :5], kl, np.resize(["b", "a"], 50))
    scatter, bars = figure.axes
    assert legend(scatter) == ["a", "b"]
    assert [bar.get_height() for bar in bars.patches] == [3, 0.5, 0.011, 0.01, 0]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["4", "2", "5", "1", "3"]
    assert bars.get_title(loc="left") == "3 of 5 latents are active: KL above 0.01 nats"
    colours = [bar.get_facecolor() for bar in bars.patches]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]


def test_latent_overview_of_many_latents_has_labels_that_do_not_overlap():
    figure = plots.latent_overview(RNG.normal(size=(9, 200)), np.arange(200.0))
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[1].get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    "error, words, call",
    [
        (TypeError, "the list elbo; pass", lambda: plots.learning_curve([1.0])),
        (TypeError, "the list elbo; pass", lambda: plots.learning_curve({"nll": [1.0]})),
        (TypeError, "the list psnr; pass", lambda: plots.learning_curve(HISTORY, "psnr")),
        (ValueError, "'valid_kl': 0", lambda: plots.learning_curve(HELD_OUT | {"valid_kl": []})),
        (
            ValueError,
            "'kl': 2",
            lambda: plots.learning_curve(HISTORY | {"kl": [1.0, 2.0]}),
        ),
        (
            ValueError,
            "one epoch or more",
            lambda: plots.learning_curve({"elbo": [], "nll": [], "kl": []}),
        ),
        (ValueError, "X must be a non-empty 2-D", lambda: plots.image_grid(IMAGES[0], SHAPE)),
        (ValueError, "X must be a non-empty 2-D", lambda: plots.image_grid(IMAGES[:0], SHAPE)),
        (ValueError, "array of numbers, got <U1", lambda: plots.samples([["a"]])),
        (ValueError, "product 12.*got \\(3, 5\\)", lambda: plots.image_grid(IMAGES, (3, 5))),
        (ValueError, "product 12", lambda: plots.image_grid(IMAGES, (-3, -4))),
        (ValueError, "product 12", lambda: plots.image_grid(IMAGES, (3.0, 4.0))),
        (ValueError, "product 12", lambda: plots.image_grid(IMAGES, (3, 4, 1))),
        (ValueError, "product 12", lambda: plots.image_grid(IMAGES, 12)),
        (ValueError, "columns .* got 0", lambda: plots.image_grid(IMAGES, SHAPE, columns=0)),
        (ValueError, "columns .* got 2.5", lambda: plots.image_grid(IMAGES, SHAPE, columns=2.5)),
        (
            ValueError,
            "got 255; divide by 255",
            lambda: plots.samples(np.full((2, 12), 255, np.uint8), SHAPE),
        ),
        (ValueError, "one shape", lambda: plots.reconstructions(TABLE, TABLE[1:])),
        (ValueError, "product 12, .* X;", lambda: plots.reconstructions(IMAGES, IMAGES, (2, 2))),
        (ValueError, "n must be", lambda: plots.manifold(np.cos, SHAPE, n=0)),
        (ValueError, "product 2, .* decode", lambda: plots.manifold(np.cos, SHAPE)),
        (
            ValueError,
            "9 rows of Z, got 8",
            lambda: plots.manifold(lambda Z: Z[1:], (2, 1), n=3),
        ),
        (ValueError, "product 16, .* decode", lambda: plots.manifold(lambda Z: np.eye(16), 4)),
        (ValueError, "names must be 7, .* got 2", lambda: plots.samples(TABLE, names=["a", "b"])),
        (
            ValueError,
            "names must be 7, .* got 2",
            lambda: plots.reconstructions(TABLE, TABLE, names=["a", "b"]),
        ),
        (ValueError, "data must have 7 col", lambda: plots.samples(TABLE, data=TABLE[:, 1:])),
        (ValueError, "data must be a non-empty", lambda: plots.samples(TABLE, data=TABLE[0])),
        (
            ValueError,
            "equally many columns, got \\[5, 4\\]",
            lambda: plots.marginals(FRAME, FRAME.iloc[:, 1:]),
        ),
        (ValueError, "X must have 7 col", lambda: plots.correlations(TABLE, TABLE[:, 1:])),
        (ValueError, "one shape", lambda: plots.imputed(TABLE, TABLE[1:])),
        (ValueError, "no missing value", lambda: plots.imputed(TABLE, TABLE)),
        (ValueError, "2 columns.*latent_overview", lambda: plots.latent_scatter(TABLE)),
        (ValueError, "3 columns.*latent_scatter", lambda: plots.latent_overview(CODES)),
        (ValueError, "kl must be 7 finite", lambda: plots.latent_overview(TABLE, [1.0])),
        (ValueError, "kl must be 7 finite", lambda: plots.latent_overview(TABLE, [np.nan] * 7)),
        (ValueError, "finite", lambda: plots.latent_scatter([[0.0, np.nan]])),
        (ValueError, "labels must be 50", lambda: plots.latent_scatter(CODES, [1, 2])),
        (ValueError, "at most 20", lambda: plots.latent_scatter(CODES, np.arange(50))),
    ],
)
def test_arguments_that_do_not_fit_are_refused(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_pyplot_and_the_global_backend_stay_untouched(tmp_path):
    code = """
import sys
import numpy as np
from minivae import plots
assert "matplotlib" not in sys.modules
plots.manifold(lambda Z: Z, (2, 1), n=2).savefig("manifold.png")
plots.learning_curve({"elbo": [-1.0], "nll": [1.0], "kl": [0.0]}).savefig("curve.png")
plots.latent_scatter(np.zeros((2, 2)), [0, 1]).savefig("scatter.png")
plots.latent_overview(np.eye(3), np.ones(3)).savefig("overview.png")
plots.reconstructions(np.eye(3), np.eye(3)).savefig("table.png")
plots.samples(np.eye(3)).savefig("samples.png")
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, ["True", "False"], "")
