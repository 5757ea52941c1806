"""likelihood="mixed" and the other likelihoods of columns: their loss by hand, in the data's own
units; what completes rows and makes new ones."""

import itertools

import numpy as np
import pytest
from families import SCHEMA, data, small, table
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats
from sklearn.datasets import load_breast_cancer

from minivae import VAE

RNG = np.random.default_rng(0)
X = table(30)
HOLES = np.array([[value != value for value in row] for row in X])


def vae(**settings):
    same = dict(hidden_layer_sizes=(5,), activation="tanh", likelihood="mixed", missing="mask",
                schema=SCHEMA, device="reference", dtype="float64", epochs=2, batch_size=8,
                learning_rate=0.02, random_state=0)  # fmt: skip
    return VAE(2, **{**same, **settings})


# --- the loss -----------------------------------------------------------------------------------


def by_hand(columns):
    """The model's numbers (n, 12) of the columns of `table`: real, log of positive, count, two
    binaries, one-hot of two categories. NaN where nothing is known."""
    x, positive, count = (column.astype(float) for column in columns[:3])
    positive = np.log(positive)
    parts = [(x - np.nanmean(x)) / np.nanstd(x),
             (positive - np.nanmean(positive)) / np.nanstd(positive), count]  # fmt: skip
    for column, values in zip((3, 5), ([False, True], ["no", "yes"]), strict=True):
        parts.append([values.index(v) if v == v else np.nan for v in columns[column]])
    for column, values in zip((4, 6), (["blue", "green", "red"], list("abcd")), strict=True):
        parts += [[(v == value) * 1.0 if v == v else np.nan for v in columns[column]]
                  for value in values]  # fmt: skip
    return np.array(parts, float).T


def test_the_loss_of_a_table_by_scipy():
    """From the table itself, entry by entry, with densities in the units of the columns."""
    model, eps = vae(beta=0.7).fit(X), RNG.normal(size=(30, 2))
    for value in model.parameters_.values():
        value += RNG.normal(0, 0.3, value.shape)
    p, u = model.parameters_, by_hand(X.T)
    known = ~np.isnan(u)
    counts = X[:, 2].astype(float)
    shift = np.log(np.nanmean(counts))
    seen = u.copy()
    seen[:, 2] = np.log1p(counts) - shift  # as the encoder reads counts
    seen = np.hstack([np.where(known, seen, 0), known])
    h = np.tanh(seen @ p["encoder.0.weight"] + p["encoder.0.bias"])
    mu = h @ p["encoder.mu.weight"] + p["encoder.mu.bias"]
    logvar = h @ p["encoder.logvar.weight"] + p["encoder.logvar.bias"]
    z = mu + np.exp(logvar / 2) * eps
    h = np.tanh(z @ p["decoder.0.weight"] + p["decoder.0.bias"])
    y = h @ p["decoder.out.weight"] + p["decoder.out.bias"]
    std = np.exp(p["decoder.noise_logvar"] / 2)
    location = [np.nanmean(X[:, 0].astype(float)), np.nanmean(np.log(X[:, 1].astype(float)))]
    scale = [np.nanstd(X[:, 0].astype(float)), np.nanstd(np.log(X[:, 1].astype(float)))]
    loss = 0.7 * ((mu**2 + np.exp(logvar) - logvar - 1) / 2).sum()
    words = {3: [False, True], 5: ["no", "yes"], 4: ["blue", "green", "red"], 6: list("abcd")}
    for i, j in np.argwhere(~HOLES):
        value = X[i, j]
        if j == 0:
            log_p = stats.norm.logpdf(value, location[0] + scale[0] * y[i, 0], scale[0] * std[0])
        elif j == 1:
            median = np.exp(location[1] + scale[1] * y[i, 1])
            log_p = stats.lognorm.logpdf(value, scale[1] * std[1], scale=median)
        elif j == 2:
            log_p = stats.poisson.logpmf(value, np.exp(y[i, 2] + shift))
        elif j in (3, 5):
            log_p = stats.bernoulli.logpmf(
                words[j].index(value), special.expit(y[i, 3 if j == 3 else 4])
            )
        else:
            group = y[i, 5:8] if j == 4 else y[i, 8:]
            log_p = special.log_softmax(group)[words[j].index(value)]
        loss -= log_p
    # 200 entries below 10 nats, each some dozens of roundings.
    assert_allclose(model.loss_and_gradients(X, eps)[0], loss / 30, rtol=1e-12)


@pytest.mark.parametrize("likelihood", ["bounded_gaussian", "continuous_bernoulli"])
def test_the_loss_of_bounded_values_by_hand(likelihood):
    """The continuous Bernoulli by its normaliser, an integral."""
    values, eps = RNG.random((6, 3)), RNG.normal(size=(6, 2))
    model = vae(likelihood=likelihood, schema=None).fit(values)
    for value in model.parameters_.values():
        value += RNG.normal(0, 0.3, value.shape)
    trace, p = model.trace(values, eps), model.parameters_
    y = trace["decoder.out"]
    if likelihood == "bounded_gaussian":
        std = np.exp(p["decoder.noise_logvar"] / 2)
        nll = -stats.norm.logpdf(values, special.expit(y), std).sum(axis=1)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(40)
        t, weights, q = (nodes + 1) / 2, weights / 2, special.expit(y)[..., None]
        normaliser = (q**t * (1 - q) ** (1 - t)) @ weights
        q = q[..., 0]
        nll = -np.log(q**values * (1 - q) ** (1 - values) / normaliser).sum(axis=1)
    assert_allclose(trace["nll"], nll, rtol=1e-12)  # a few dozens of roundings, and of the sum


COMBINED = [
    dict(posterior="full"), dict(free_bits=0.1), dict(beta=0.3), dict(n_importance=3),
    dict(objective="iwae", n_importance=3), dict(objective="dreg", n_importance=3),
    dict(objective="iwae", n_importance=3, posterior="full"), dict(missing="error"),
]  # fmt: skip


@pytest.mark.parametrize("settings", COMBINED, ids=str)
def test_every_gradient_with_other_objectives(settings):
    rows = X if settings.get("missing") != "error" else X[~HOLES.any(axis=1)]
    model = vae(hidden_layer_sizes=(3,), **settings).fit(rows)
    report = model.check_gradients(rows)
    assert report.passed and report.worst <= 1e-6, str(report)
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}


# --- ln p ---------------------------------------------------------------------------------------


def test_probabilities_of_all_rows_of_a_table_sum_to_1():
    """Two binaries, a category and a count, whose tail beyond 60 has no mass: 1,260 rows; where a
    column is missing, a row has the mass of all that it may be."""
    rng = np.random.default_rng(1)
    rows = np.empty((40, 4), dtype=object)
    rows[:, 0], rows[:, 1] = rng.random(40) < 0.5, np.array(["n", "y"])[rng.integers(2, size=40)]
    rows[:, 2] = np.array(list("abc"))[rng.integers(3, size=40)]
    rows[:, 3] = rng.poisson(2.0, 40)
    schema = {0: "binary", 1: "binary", 2: "category", 3: "count"}
    model = VAE(1, hidden_layer_sizes=(), likelihood="mixed", missing="mask", schema=schema,
                device="reference", dtype="float64", epochs=1, random_state=0)  # fmt: skip
    model.fit(rows)
    model.parameters_["decoder.out.weight"][:] = [[0.6, 2, -2, 1, 0, -1]]
    every = np.array([*itertools.product(range(61), [False, True], "ny", "abc")], dtype=object)
    every = every[:, [1, 2, 3, 0]]
    p = np.exp(model.quadrature(every, tolerance=1e-8)).reshape(61, 2, 2, 3)
    # The rate e^(0.6 z + ln 2) is above 60 for z beyond 5.6: 1e-8 of the prior.
    assert abs(p.sum() - 1) < 1e-6
    for hole in range(4):
        some = every[::61].copy()
        some[:, hole] = None
        summed = np.broadcast_to(p.sum(axis=(hole + 1) % 4, keepdims=True), p.shape)
        expected = summed.ravel()[::61]
        assert_allclose(np.exp(model.quadrature(some, tolerance=1e-8)), expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["real", "positive"])
def test_ln_p_is_in_the_units_of_the_data(kind):
    """Other units add ln |dx / du| for what is known of a row, and nothing else."""
    u = RNG.normal(size=(20, 3))
    u = np.where(RNG.random(u.shape) < 0.3, np.nan, u)
    x = 3 + 10 * u if kind == "real" else np.exp(3 + 10 * u)
    log_slope = np.full(x.shape, np.log(10)) if kind == "real" else np.log(10) + np.log(x)
    models = [vae(schema=dict.fromkeys(range(3), k)) for k in ("real", kind)]
    scores = [m.fit(v).score_samples(v) for m, v in zip(models, (u, x), strict=True)]
    expected = scores[0] - np.where(np.isnan(u), 0, log_slope).sum(axis=1)
    # The tables are the same numbers but for some roundings, which six steps grow by little.
    assert_allclose(scores[1], expected, rtol=0, atol=1e-9)


def test_a_raw_table_scores_as_the_standardised_one():
    raw = load_breast_cancer().data
    train, held_out = raw[:400], raw[400:]
    mean, std = train.mean(axis=0), train.std(axis=0)
    settings = dict(missing="error", epochs=1, batch_size=128)
    of_raw = vae(**settings, schema=dict.fromkeys(range(30), "real")).fit(train)
    of_other = vae(**settings, schema=None, likelihood="diagonal_gaussian")
    of_other.fit((train - mean) / std)
    expected = of_other.score_samples((held_out - mean) / std) - np.log(std).sum()
    assert_allclose(of_raw.score_samples(held_out), expected, rtol=0, atol=1e-6)


# --- filling in ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled():
    """(a compiled model of a table, and more of its rows than one block has)."""
    rows = table(40, seed=3)
    return small("vae mixed", n_threads=1).fit(rows), rows


def test_filling_in_does_not_depend_on_grouping_or_threads(compiled):
    model, rows = compiled
    whole, many = model.impute(rows, n_samples=64), np.array(model.impute(rows, 3, n_samples=64))
    for n in (1, 3, 17):
        assert_array_equal(model.impute(rows[:n], n_samples=64), whole[:n])
        assert_array_equal(np.array(model.impute(rows[:n], 3, n_samples=64)), many[:, :n])
    try:
        for model.n_threads in (2, 3):
            assert_array_equal(model.impute(rows, n_samples=64), whole)
            assert_array_equal(np.array(model.impute(rows, 3, n_samples=64)), many)
    finally:
        model.n_threads = 1
    other = np.array(model.impute(rows, 3, n_samples=64, random_state=5))
    assert (other != many).any()
    assert_array_equal(model.impute(rows, n_samples=64, random_state=5), whole)  # a mean: no draw


def test_what_is_known_comes_back_and_nothing_stays_missing(compiled):
    model, rows = compiled
    known = np.array([[value == value for value in row] for row in rows])
    before = rows.copy()
    for filled in (model.impute(rows, n_samples=64), *model.impute(rows, 2, n_samples=64)):
        assert filled.shape == rows.shape and filled is not rows
        assert all(a is b or a == b for a, b in zip(filled[known], rows[known], strict=True))
        assert all(value == value for value in filled.ravel())
    assert all(a is b for a, b in zip(rows.ravel(), before.ravel(), strict=True))  # X as it was
    draw = model.impute(rows, 2, n_samples=64)[0]
    assert all(value >= 0 and value == int(value) for value in draw[:, 2])  # counts
    assert all(value > 0 for value in draw[:, 1])


def test_the_reference_fills_in_and_makes_the_rows_that_compiled_code_does(compiled):
    model, rows = compiled
    uses = [lambda: model.impute(rows, n_samples=64), lambda: model.augment(rows, random_state=1)]
    expected = [use() for use in uses]
    try:
        model.set_params(device="reference")
        found = [use() for use in uses]
    finally:
        model.set_params(device="cpu")
    for one, other in zip(found, expected, strict=True):
        # Means of 64 numbers below 100, weighted: some thousands of roundings.
        numbers = [table[:, :3].astype(float) for table in (one, other)]
        assert_allclose(*numbers, rtol=1e-11)
        assert_array_equal(one[:, 3:], other[:, 3:])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_keep_names_order_types_and_rows(library):
    frames = pytest.importorskip(library, reason=f"{library} is not installed")
    given = {
        "size": [1.5, None, 3.25, 4.0, 2.5, 9.0],
        "n": [1, 0, 2, 1, 3, 0],
        "ok": [True, False, None, True, False, True],
        "word": ["a", "b", None, "a", "b", "c"],
    }
    frame = frames.DataFrame(given)
    if library == "pandas":
        frame = frame.astype({"word": "category", "ok": "boolean"}).set_index(frame.index + 7.5)
    model = vae(schema={"n": "count", "word": "category"}).fit(frame)
    for filled in (model.impute(frame, n_samples=20), *model.impute(frame, 2, n_samples=20)):
        assert type(filled) is type(frame) and list(filled.columns) == list(given)
        assert list(filled.dtypes) == list(frame.dtypes)
        for name, values in given.items():
            column = filled[name].to_numpy().tolist()
            for value, new in zip(values, column, strict=True):
                assert new == value if value is not None else new == new and new is not None
        if library == "pandas":
            assert filled.index.equals(frame.index)
    with pytest.raises(ValueError, match="feature names should match"):
        model.impute(frame[["n", "size", "ok", "word"]])
    for made in (model.sample(4), model.reconstruct(frame)):
        assert type(made) is type(frame) and list(made.columns) == list(given)


def test_an_array_that_is_no_table_is_filled_too():
    values = np.where(RNG.random((9, 4)) < 0.3, np.nan, RNG.random((9, 4))).astype("f4")
    for likelihood in ("gaussian", "bernoulli", "bounded_gaussian", "continuous_bernoulli"):
        model = vae(likelihood=likelihood, schema=None, dtype="float32").fit(values)
        filled = model.impute(values, n_samples=20)
        assert filled.dtype == "float32" and not np.isnan(filled).any()
        known = ~np.isnan(values)
        assert_array_equal(filled[known], values[known])
        many = model.impute(values, 3, n_samples=20)
        assert many.shape == (3, 9, 4)
        assert_array_equal(many[:, known], np.tile(values[known], (3, 1)))
        if likelihood != "gaussian":
            assert many.min() >= 0 or likelihood == "bounded_gaussian"


def test_a_column_of_which_nothing_was_known_stays_so():
    rows = X.copy()
    rows[:, 0] = np.nan
    model = vae(schema={j: kind for j, kind in SCHEMA.items() if j}).fit(rows)
    assert model.schema_.left_out == {0: "constant"}
    filled = model.impute(X)  # where something is known now: it is not looked at
    assert_array_equal(filled[~HOLES[:, 0], 0], X[~HOLES[:, 0], 0])
    assert all(value != value for value in model.impute(rows)[:, 0])


def test_a_row_of_which_nothing_is_known_gets_the_models_means():
    rows = np.full((1, 7), np.nan, dtype=object)
    filled = vae().fit(X).impute(rows)
    assert all(value == value for value in filled.ravel())


def test_filling_in_needs_a_mask():
    model = vae(missing="error").fit(X[~HOLES.any(axis=1)])
    words = 'impute needs missing="mask", got missing=.error.: fit a model with that setting'
    with pytest.raises(ValueError, match=words) as caught:
        model.impute(X)
    assert "\n" not in str(caught.value)
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="n_draws must be a positive integer"):
            vae().fit(X).impute(X, n_draws=bad)
        with pytest.raises(ValueError, match="n_samples must be a positive integer"):
            vae().fit(X).impute(X, n_samples=bad)


# --- new rows -----------------------------------------------------------------------------------


def test_new_rows_lie_where_their_class_lies():
    rng = np.random.default_rng(0)
    y = np.array(["left"] * 90 + ["right"] * 10)
    values = rng.normal(size=(100, 2)) * 0.3 + np.where(y == "left", -3, 3)[:, None]
    model = vae(schema=None, likelihood="gaussian", missing="error", epochs=60).fit(values)
    new, classes = model.augment(values, y, n_samples=51, random_state=1)
    assert new.shape == (51, 2) and classes.shape == (51,)
    counts = np.unique(classes, return_counts=True)[1]
    assert sorted(counts) == [25, 26]  # as many of each class, of nine times as many rows
    assert (np.sign(new[:, 0]) == np.where(classes == "left", -1, 1)).all()
    again = model.augment(values, y, n_samples=51, random_state=1)
    assert_array_equal(again[0], new)
    assert model.augment(values, n_samples=7).shape == (7, 2)
    with pytest.raises(ValueError, match=r"y has shape \(5,\), expected a class for each row"):
        model.augment(values, y[:5])


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_new_rows_are_of_draws_of_the_posterior(posterior):
    """A linear decoder that shows z: their mean and covariance are those of q(z|x)."""
    model = vae(schema=None, likelihood="gaussian", missing="error", hidden_layer_sizes=(),
                posterior=posterior).fit(RNG.normal(size=(5, 2)))  # fmt: skip
    p, n = model.parameters_, 4000
    for value in p.values():
        value[...] = 0
    p["decoder.out.weight"][:] = np.eye(2)
    p["encoder.mu.bias"][:], p["encoder.logvar.bias"][:] = [1, -2], np.log([0.25, 0.04])
    L = np.diag([0.5, 0.2])
    if posterior == "full":
        p["encoder.lower.bias"][:] = L[1, 0] = 0.7
    z, V = model.augment(np.zeros((3, 2)), n_samples=n, random_state=0), L @ L.T
    assert (abs(z.mean(axis=0) - [1, -2]) < 5 * np.sqrt(np.diag(V) / n)).all()
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / n)  # of n normal draws
    assert (abs(np.cov(z.T) - V) < 5 * error).all()


def test_new_rows_of_a_table_are_rows_of_such_a_table():
    model = vae().fit(X)
    new, y = model.augment(X, np.arange(30) % 2, n_samples=20, random_state=0)
    assert new.shape == (20, 7) and set(new[:, 4]) <= {"red", "green", "blue"}
    assert set(new[:, 3]) <= {False, True} and y.sum() == 10
    model.check_data(new)


def test_the_variants_have_rows_with_different_holes():
    """Else the tests of every family would not see a row that is given another one's mask."""
    for name in ("vae mixed", "vae bounded_gaussian"):
        rows, _ = data(name)
        assert len({tuple(value != value for value in row) for row in rows}) > 5
