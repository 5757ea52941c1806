"""What a model accepts as data, where that is not a row of docs/bad-input.md."""

import numpy as np
import pytest
from tiny import FAMILIES, tiny

from minivae.data import checks

X = np.random.default_rng(0).random((24, 5)).astype("f4").round()


class Name(str):
    """A column's name that counts how often it is compared with another."""

    compared = 0

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


class Frame:
    """As much of a data frame as the checks look at."""

    def __init__(self, columns):
        self.columns, self.dtypes = columns, [np.dtype("f4")] * len(columns)

    def __array__(self, dtype=None, copy=None):
        return np.zeros((2, len(self.columns)), dtype)


def test_looking_for_two_columns_of_one_name_compares_few():
    """With one another they would be 50 million comparisons for 10,000 columns: seconds a call."""
    names = [Name(f"column {i}") for i in range(10_000)]
    Name.compared = 0
    assert checks.as_array(Frame(names), "X").shape == (2, 10_000)
    assert Name.compared <= len(names)  # a set compares where hashes are equal: hardly ever
    with pytest.raises(ValueError, match="X has two columns of the name 'column 7': rename one"):
        checks.as_array(Frame([*names, Name("column 7")]), "X")
    assert 0 < Name.compared <= 2 * len(names)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_series_is_no_table(family):
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    model = tiny(family).fit(X)
    use = model.score_samples if model.score_kind else model.loss_and_gradients
    for row in pd.Series(X[0]), pd.DataFrame(X).iloc[0], pd.DataFrame(X)[0]:
        for method in model.fit, model.partial_fit, use:
            with pytest.raises(ValueError, match=r"X: Expected a 2-dimensional container.*Series"):
                method(row)
    dates = pd.Series(np.array(["2020-01-01"], "datetime64[s]"))
    with pytest.raises(TypeError, match="X holds dates or times"):
        use(dates)


@pytest.mark.parametrize("family", FAMILIES)
def test_small_whole_numbers_of_NumPy_count_as_pythons_do(family):
    """A count times rows is beyond 127, and the logarithm of an int8 has 11 bits."""
    settings = dict(epochs=100, batch_size=100, n_threads=100)
    model = tiny(family, **{name: np.int8(n) for name, n in settings.items()}).fit(X)
    expected = tiny(family, **settings).fit(X)
    np.testing.assert_array_equal(model.state_.theta, expected.state_.theta)
    for count in np.int8(100), np.int16(100):
        draws = model.sample(count, random_state=0)
        np.testing.assert_array_equal(draws, expected.sample(100, random_state=0))
        if hasattr(model, "elbo"):
            found = model.score_samples(X, count), model.elbo(X, count, random_state=0)
            right = expected.score_samples(X, 100), expected.elbo(X, 100, random_state=0)
            np.testing.assert_array_equal(found, right)


def test_small_whole_numbers_shape_a_compiled_model():
    numbers = dict(n_threads=np.int8(2), epochs=np.uint8(200), latent_dim=np.int8(100))
    model = tiny(device="cpu", hidden_layer_sizes=[np.int8(100)], **numbers).fit(X)
    same = dict(n_threads=1, epochs=200, latent_dim=100, hidden_layer_sizes=(100,))
    expected = tiny(device="cpu", **same).fit(X)
    np.testing.assert_array_equal(model.state_.theta, expected.state_.theta)
    assert model.state_.theta.size == expected.state_.theta.size > 2 * 100 * 100
