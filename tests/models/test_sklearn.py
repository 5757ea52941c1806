"""VAE as a citizen of scikit-learn: its own checks, and what its users do with any estimator.

The last part is what they do wrong: every bad input is refused with a word about it, and the model
is as it was before.
"""

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from minivae import VAE, LinearGaussian, VAEImputer, VAEOutlierDetector
from minivae.data import checks
from minivae.models import MODELS, find

SETTINGS = dict(likelihood="gaussian", hidden_layer_sizes=(4,), epochs=2, batch_size=16)
# What makes each family small, and what it needs so that it says nothing about grey values.
FAST = dict(epochs=2, batch_size=16)
CHECKED = {"vae": SETTINGS, "nade": dict(n_hidden=4, binarize="threshold", **FAST),
           "flow": dict(n_couplings=2, hidden_layer_sizes=(4,), dequantize=None, **FAST),
           "rbm": dict(n_hidden=4, n_steps=1, binarize="threshold", **FAST),
           "pixelcnn": dict(n_layers=1, n_channels=2, first_kernel=3, image_shape=(1, -1),
                            binarize="threshold", **FAST),
           "wavenet": dict(n_channels=2, n_skip=2, binarize="threshold", **FAST),
           "pixelrnn": dict(n_state=4, n_hidden=3, image_shape=(-1, 1), binarize="threshold",
                            **FAST),
           "gan": dict(latent_dim=2, generator_sizes=(4,), discriminator_sizes=(4,),
                       output="identity", **FAST),
}  # fmt: skip
# No check depends on what computes, so that one family on the compiled machine is enough.
ESTIMATORS = [find(name)(device="reference", **CHECKED[name]) for name in MODELS]
ESTIMATORS += [find("vae")(device="cpu", **CHECKED["vae"])]
# A model of tables with missing values, and what is made of one. In float64, since how BLAS groups
# rows shows in the last bits of the reference, and scikit-learn compares to 1e-7.
OF_TABLES = VAE(likelihood="mixed", missing="mask", hidden_layer_sizes=(8,), epochs=5,
                batch_size=32, dtype="float64", device="reference", random_state=0)  # fmt: skip
ESTIMATORS += [OF_TABLES, VAEImputer(OF_TABLES, n_samples=20),
               VAEOutlierDetector(OF_TABLES, n_samples=20)]  # fmt: skip
# Public checks that the list above does not hold, because scikit-learn runs them on its own
# estimators only.
FURTHER = [
    "check_dataframe_column_names_consistency",
    "check_estimators_partial_fit_n_features",
    "check_get_feature_names_out_error",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_inplace_ensure_writeable",
    "check_n_features_in_after_fitting",
    "check_param_validation",
    "check_readonly_memmap_input",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_transformer_preserve_dtypes",
]
OF_TRANSFORMERS = {
    name for name in FURTHER if any(w in name for w in ("output", "transformer", "names_out"))
}
X = np.random.default_rng(0).normal(size=(24, 5))


def vae(**settings):
    return VAE(**{**SETTINGS, "device": "reference", "random_state": 0, **settings})


def same_model(a, b):
    """Equal settings, parameters, optimiser, progress and seed."""
    for name in ("theta", "moments"):
        np.testing.assert_array_equal(getattr(a.state_, name), getattr(b.state_, name))
    for read in (
        lambda m: {k: v for k, v in m.get_params().items() if k != "random_state"},
        lambda m: (m.seed_, m.n_features_in_, m.state_.steps, m.state_.epochs),
        lambda m: {k: v for k, v in m.history_.items() if k != "seconds"},
    ):
        assert read(a) == read(b)


# --- scikit-learn's own checks ------------------------------------------------------------------


@pytest.fixture
def bounded(monkeypatch):
    """The checks feed standard normal data, which a Gaussian likelihood takes. X in [0, 1], what a
    Bernoulli one needs, is not among the restrictions that scikit-learn's tags can express (they
    have "positive only"): so what lies above is brought inside, where it would be refused."""
    check_values = checks.check_values

    def inside(values):
        large = np.isfinite(values) & (values > 0)  # below 0 it is to be refused
        return np.divide(values, 1 + abs(values), where=large, out=values.copy())

    def bring_inside(X, model, *rest):
        if model.on_unit_interval and scipy.sparse.issparse(X):
            X = scipy.sparse.csr_array((inside(X.data), X.indices, X.indptr), X.shape)
        elif model.on_unit_interval:
            X = inside(X)
        return check_values(X, model, *rest)

    monkeypatch.setattr(checks, "check_values", bring_inside)


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_checks(estimator, check, bounded):
    check(estimator)


# The checks with pandas pair tables and arrays on purpose, and ask for no silence there.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        pytest.param(estimator, name, id=f"{type(estimator).__name__}-{number}-{name}")
        for number, estimator in enumerate([*ESTIMATORS, LinearGaussian(max_iter=100, tol=1e-2)])
        for name in FURTHER
        if (hasattr(estimator, "transform") or name not in OF_TRANSFORMERS)
        and (hasattr(estimator, "partial_fit") or "partial_fit" not in name)
    ],
)
def test_further_checks(estimator, name, bounded):
    needs = "polars" if "polars" in name else "pandas"
    if needs in name or "dataframe" in name:
        pytest.importorskip(needs, reason=f"{needs} is not installed")
    getattr(estimator_checks, name)(type(estimator).__name__, clone(estimator))


# --- copies -------------------------------------------------------------------------------------

ODD = dict(  # a value for every setting that is not the default, each of them its own object
    latent_dim=np.int64(3), hidden_layer_sizes=[6, 4], activation="tanh", likelihood="gaussian",
    schema={"a": "real"},
    binarize="threshold", posterior="full", missing="mask", beta=np.float64(2.5), optimizer="sgd",
    objective="iwae", n_importance=5, beta_warmup=np.int64(3), free_bits=0.25,
    learning_rate=np.float64(0.01), momentum=0.5, weight_decay=0.125, batch_size=np.int32(7),
    epochs=3, validation_fraction=np.float32(0.25), patience=np.int16(4), dtype="float64",
    device="cuda", n_threads=2,
    random_state=np.random.RandomState(3), verbose=1, matmul_precision="half",
)  # fmt: skip


def test_the_constructor_keeps_every_setting_as_it_came():
    """Also settings that fit refuses: a constructor that checks or converts would break clone."""
    assert ODD.keys() == VAE().get_params().keys()
    model = VAE(**ODD)
    assert all(getattr(model, name) is value for name, value in ODD.items())
    assert vars(model).keys() == ODD.keys()


def test_a_clone_has_the_same_settings_and_is_not_fitted():
    model = vae(random_state=3).fit(X)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert vars(copied).keys() == copied.get_params().keys()
    same_model(copied.fit(X), model)


def test_fit_changes_no_setting():
    model = vae(hidden_layer_sizes=[4], random_state=None)
    before = model.get_params()
    model.fit(X)
    assert all(model.get_params()[name] is value for name, value in before.items())


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    "duplicate",
    [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy],
    ids=["pickle", "deepcopy"],
)
def test_a_duplicate_is_equal_and_independent(duplicate, device):
    model = vae(device=device, optimizer="adam").fit(X)
    twin = duplicate(model)
    same_model(twin, model)
    np.testing.assert_array_equal(twin.transform(X), model.transform(X))
    assert not np.shares_memory(twin.state_.theta, model.state_.theta)
    for view in twin.parameters_.values():  # still live views, of the twin's own buffer
        assert np.shares_memory(view, twin.state_.theta)
    before = model.state_.theta.copy()
    twin.partial_fit(X)
    np.testing.assert_array_equal(model.state_.theta, before)
    same_model(model.partial_fit(X), twin)


# --- pipelines, searches, tables ----------------------------------------------------------------


def test_a_pipeline_transforms_and_scores():
    pipeline = make_pipeline(StandardScaler(), vae(latent_dim=3))
    codes = pipeline.fit_transform(X)
    assert codes.shape == (24, 3)
    np.testing.assert_array_equal(pipeline.transform(X), codes)
    assert np.isfinite(pipeline.score(X))
    assert pipeline.get_feature_names_out().tolist() == ["vae0", "vae1", "vae2"]
    # Through both inverses: decoder means in the units of the data.
    assert pipeline.inverse_transform(codes).shape == X.shape


def test_a_search_prefers_what_scores_higher():
    """A rate that cannot move anything in two epochs must lose against one that learns."""
    offset = X + 5.0
    rates = {"learning_rate": [1e-12, 0.1]}
    search = GridSearchCV(vae(optimizer="adam"), rates, cv=2, error_score="raise").fit(offset)
    assert search.best_params_ == {"learning_rate": 0.1}
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    folds = cross_val_score(vae(**search.best_params_), offset, cv=2)
    np.testing.assert_allclose(folds.mean(), search.best_score_, rtol=1e-12)


def test_tables_with_column_names():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(24) + 1000.5)
    model = vae(latent_dim=2).fit(frame)
    assert model.feature_names_in_.tolist() == list("abcde")
    same_model(model, vae(latent_dim=2).fit(X))

    with pytest.warns(UserWarning, match="valid feature names"):
        plain = model.transform(X)
    np.testing.assert_array_equal(model.transform(frame), plain)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame[list("edcba")])
    with pytest.raises(ValueError, match=r"first in row 3, column 2 \('c'\)"):
        vae().fit(frame.mask((frame.index == 1003.5)[:, None] & (frame.columns == "c")))

    model.set_output(transform="pandas")
    codes = model.transform(frame)
    assert (codes.columns.tolist(), codes.index.tolist()) == (["vae0", "vae1"], list(frame.index))
    # Only `transform` returns a table; what is built on it must not stumble over one.
    np.testing.assert_array_equal(model.reconstruct(frame), model.inverse_transform(plain))


def test_a_table_of_mixed_number_types_is_taken_and_text_is_refused():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame({"i": [0, 1, 2], "f": [0.5, 1.5, 2.5], "b": [True, False, True]})
    same_model(vae().fit(frame), vae().fit(frame.to_numpy(dtype=float)))
    with pytest.raises(ValueError, match="red"):
        vae().fit(frame.assign(colour=["red", "blue", "red"]))


def test_y_is_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_model(vae().fit(X, np.arange(24)), vae().fit(X))
        same_model(vae().partial_fit(X, ["label"] * 24), vae().partial_fit(X))


# --- what is refused ----------------------------------------------------------------------------

UNIT = np.random.default_rng(1).random((20, 5))


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD_X = {  # values, error, words of the message
    "nan": (changed(UNIT, (1, 2), np.nan), ValueError, "X contains NaN .*row 1, column 2"),
    "infinite": (changed(UNIT, 3, -np.inf), ValueError, "X contains .*infinity in 5 of 100"),
    "negative": (changed(UNIT, 0, -0.5), ValueError, r"X has values from -0.5 .* \[0, 1\].*scale"),
    "above 1": (UNIT * 255, ValueError, r"X has values .* \[0, 1\].*255.*gaussian"),
    "no rows": (UNIT[:0], ValueError, "0 sample"),
    "no columns": (UNIT[:, :0], ValueError, r"0 feature|X has 0 features"),
    "one row as 1-D": (UNIT[0], ValueError, "2D array, got 1D"),
    "3-D": (UNIT[None], ValueError, "dim 3"),
    "number": (0.5, ValueError, "2D array, got scalar"),
    "None": (None, ValueError, "2D array, got scalar"),
    "ragged": ([[0.5, 1.0], [0.5]], ValueError, "inhomogeneous"),
    "words": ([["a"] * 5], ValueError, "could not convert string to float: 'a'"),
    "complex": (UNIT + 1j, ValueError, "Complex data not supported"),
    "sparse": (scipy.sparse.csr_matrix(UNIT * np.nan), ValueError, "X contains NaN or infinity"),
}
OTHER_WIDTH = {"other width": (UNIT[:, :3], ValueError, "X has 3 features, but VAE .*expecting 5")}
TAKE_X = """fit partial_fit transform reconstruct elbo score_samples score loss_and_gradients
    check_gradients""".split()


def refuses(model, error, words, call):
    """call(model) raises, and the model is the same afterwards, byte for byte."""
    before = pickle.dumps(vars(model))
    with pytest.raises(error, match=f"(?s){words}"):
        call(model)
    assert pickle.dumps(vars(model)) == before


@pytest.mark.parametrize("method", TAKE_X)
@pytest.mark.parametrize("case", [*BAD_X, *OTHER_WIDTH])
def test_bad_data_is_refused_and_changes_nothing(case, method):
    values, error, words = {**BAD_X, **OTHER_WIDTH}[case]
    model = vae(likelihood="bernoulli").fit(UNIT)
    if (case, method) != ("other width", "fit"):
        refuses(model, error, words, lambda m: getattr(m, method)(values))
    if case in BAD_X and method in ("fit", "partial_fit", "loss_and_gradients"):
        refuses(vae(likelihood="bernoulli"), error, words, lambda m: getattr(m, method)(values))


@pytest.mark.parametrize("case", [case for case in [*BAD_X, *OTHER_WIDTH] if case != "None"])
def test_bad_held_out_data_is_refused_and_changes_nothing(case):
    values, error, words = {**BAD_X, **OTHER_WIDTH}[case]
    words = words.replace("but VAE .*expecting", ".*as X:").replace("X ", "X_valid ", 1)
    words = words.replace("for X", "for X_valid")
    model = vae(likelihood="bernoulli").fit(UNIT)
    refuses(model, error, words, lambda m: m.fit(UNIT, X_valid=values))


BAD_SETTINGS = {
    "latent_dim": [0, -1, 2.5, "2", None, True],
    "hidden_layer_sizes": [(0,), (-1,), (True,), (2.5,), 5, "5", None, ("5",), (5, None), [[5]]],
    "activation": ["gelu", None, 1],
    "likelihood": ["poisson", None],
    "binarize": ["yes", True],
    "posterior": ["normal", None],
    "missing": ["drop", None, True],
    "beta": [-1, np.nan, np.inf, "1", None],
    "optimizer": ["rmsprop", None],
    "learning_rate": [0, -1, np.nan, np.inf, "1", None],
    "momentum": [-0.1, 1, np.nan, None],
    "weight_decay": [-1, np.nan, np.inf, None],
    "batch_size": [0, -1, 2.5, None],
    "epochs": [0, -1, 2.5],
    "validation_fraction": [-0.1, 1, np.nan, "0.1", None],
    "patience": [0, -1, 2.5, True],
    "dtype": ["float16", "double", None, np.float32],
    "device": ["gpu", None],
    "n_threads": [0, -1, 2.5, True],
    "random_state": [-1, 2.5, "seed", np.random.default_rng(0)],
    "verbose": [-1, "yes"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_SETTINGS.items() for value in values]
)
def test_bad_settings_are_refused_by_name_and_change_nothing(name, value):
    for method in ("fit", "partial_fit", "loss_and_gradients"):
        refuses(vae(**{name: value}), ValueError, name, lambda m, do=method: getattr(m, do)(X))
    refuses(vae().fit(X).set_params(**{name: value}), ValueError, name, lambda m: m.fit(X))


def test_what_goes_wrong_together():
    for settings, error, words in [
        (dict(binarize="threshold"), ValueError, "binarize.*bernoulli"),
        (dict(posterior="full", free_bits=0.1), ValueError, "free_bits.*diagonal"),
        (dict(objective="iwae", beta=2.0), ValueError, "beta=2.0 goes with objective=.elbo"),
        (dict(device="cuda"), ValueError, 'device="cuda" cannot be used: '),
    ]:
        for model in (vae(**settings), vae().fit(X).set_params(**settings)):
            refuses(model, error, words, lambda m: m.fit(X))


RESHAPING = dict(latent_dim=3, hidden_layer_sizes=(6,), activation="tanh", likelihood="bernoulli",
                 dtype="float64")  # fmt: skip


@pytest.mark.parametrize("name", RESHAPING)
def test_a_fitted_model_keeps_its_architecture(name, tmp_path):
    """Changed settings mean another model: it cannot be trained on or saved, and fit makes it."""
    model = vae().fit(UNIT)
    before = model.transform(UNIT)
    model.set_params(**{name: RESHAPING[name]})
    for use in (
        lambda m: m.partial_fit(UNIT),
        lambda m: m.loss_and_gradients(UNIT),
        lambda m: m.save(tmp_path / "model"),
    ):
        refuses(model, ValueError, f"{name}.*fit", use)
    np.testing.assert_array_equal(model.transform(UNIT), before)
    model.fit(UNIT)
    same_model(model, vae(**{name: RESHAPING[name]}).fit(UNIT))


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "Z has 3 columns.*2", lambda m: m.inverse_transform(np.zeros((4, 3)))),
        (ValueError, "Z contains NaN", lambda m: m.inverse_transform([[0, np.nan]])),
        (ValueError, "2D array, got 1D", lambda m: m.inverse_transform([0.0, 1.0])),
        (ValueError, r"eps .*\(24, 3\).*\(24, 2\)",
         lambda m: m.loss_and_gradients(X, np.zeros((24, 3)))),
        (ValueError, r"eps .*\(1, 2\).*\(24, 2\)", lambda m: m.check_gradients(X, [[0.0, 0.0]])),
        (ValueError, "eps contains NaN", lambda m: m.check_gradients(X, X[:, :2] * np.nan)),
        *[(ValueError, "n_samples must be a positive integer", lambda m, n=n, do=do: do(m, n))
          for n in (0, -1, 2.5, "3", None, True)
          for do in (lambda m, n: m.sample(n), lambda m, n: m.elbo(X, n_samples=n),
                     lambda m, n: m.score_samples(X, n_samples=n))],
        *[(ValueError, "random_state must be", lambda m, r=r, do=do: do(m, r))
          for r in (-1, 2.5, "seed", np.random.default_rng(0))
          for do in (lambda m, r: m.sample(random_state=r),
                     lambda m, r: m.elbo(X, random_state=r))],
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_and_change_nothing(error, words, call):
    refuses(vae().fit(X), error, words, call)


def test_an_unfitted_model_says_so():
    attributes = [lambda m: m.parameters_, lambda m: m.history_, lambda m: m.sample()]
    attributes += [lambda m: m.inverse_transform([[0, 0]]), lambda m: m.save("nowhere/model")]
    attributes += [lambda m, do=do: getattr(m, do)(X) for do in TAKE_X[2:7]]
    for call in attributes:
        refuses(vae(), NotFittedError, "not fitted yet", call)
    assert not hasattr(vae(), "parameters_")
