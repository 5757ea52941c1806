"""Models inside what scikit-learn builds of estimators: pipelines, columns, searches, routing of
metadata, callbacks, copies by pickle and joblib. For every family that has a score, and for
LinearGaussian."""

import pickle

import joblib
import numpy as np
import pytest
import sklearn
from families import SCORED
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from minivae import VAE, LinearGaussian
from minivae.models import find

FAST = dict(device="reference", epochs=2, batch_size=16, random_state=0)
SMALL = {
    "vae": VAE(likelihood="gaussian", hidden_layer_sizes=(4,), **FAST),
    "nade": find("nade")(4, binarize="threshold", **FAST),
    "flow": find("flow")(2, hidden_layer_sizes=(4,), dequantize=None, **FAST),
    "rbm": find("rbm")(4, binarize="threshold", **FAST),
    "pixelcnn": find("pixelcnn")(
        1, n_channels=2, image_shape=(1, -1), binarize="threshold", **FAST
    ),
    "wavenet": find("wavenet")(2, n_skip=2, levels=4, **FAST),
    "pixelrnn": find("pixelrnn")(4, n_hidden=3, image_shape=(1, -1), binarize="threshold", **FAST),
    "linear": LinearGaussian(random_state=0, max_iter=20, tol=1e-2),
}
assert {*SCORED} < SMALL.keys(), "every family with a score needs small settings here"
# What scikit-learn searches and compares by is a score.
ALL = pytest.mark.parametrize("name", [*SCORED, "linear"])
TRAINED = pytest.mark.parametrize("name", SCORED)
X = np.random.default_rng(0).random((30, 5))
WEIGHTS = np.random.default_rng(1).random(30)


def test_columns_of_a_table_are_encoded_beside_others():
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(X, columns=list("abcde"), index=np.arange(30) + 0.5)
    codes = ColumnTransformer(
        [("code", SMALL["vae"], ["b", "d", "e"])],
        remainder="passthrough",
    ).set_output(transform="pandas")
    table = codes.fit_transform(frame)
    assert table.columns.tolist() == ["code__vae0", "code__vae1", "remainder__a", "remainder__c"]
    assert table.index.tolist() == frame.index.tolist()
    alone = clone(SMALL["vae"]).fit(frame[["b", "d", "e"]])
    np.testing.assert_array_equal(table.iloc[:, :2], alone.transform(frame[["b", "d", "e"]]))


@pytest.mark.parametrize("name", [*SMALL][:2])
def test_a_search_in_processes_finds_what_one_here_finds(name):
    """loky: the models and the data, which it maps from a file, go to processes and come back. That
    every model can be pickled is tested below."""
    grid = {"random_state": [0, 1]}
    found = [
        GridSearchCV(clone(SMALL[name]), grid, cv=2, n_jobs=n, error_score="raise").fit(X)
        for n in (None, 2)
    ]
    scores = [search.cv_results_["mean_test_score"] for search in found]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(*[search.best_estimator_.score_samples(X) for search in found])


@ALL
def test_a_score_across_folds_in_a_pipeline(name):
    scores = cross_val_score(make_pipeline(StandardScaler(), clone(SMALL["linear"])), X, cv=3)
    assert scores.shape == (3,) and np.isfinite(scores).all()
    scores = cross_val_score(clone(SMALL[name]), X, cv=3)
    assert np.isfinite(scores).all() and np.ptp(scores) > 0


@ALL
def test_a_fitted_model_goes_through_joblib_and_pickle(name, tmp_path):
    model = clone(SMALL[name]).fit(X)
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")  # its arrays cannot be written
    for twin in (joblib.load(tmp_path / "model"), mapped, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.score_samples(X), model.score_samples(X))
        assert twin.get_params() == model.get_params()


# --- weights and metadata -----------------------------------------------------------------------


@ALL
def test_a_score_is_the_weighted_mean_of_the_rows(name):
    model = clone(SMALL[name]).fit(X)
    rows = model.score_samples(X)
    assert model.score(X) == rows.mean()
    expected = (WEIGHTS * rows).sum() / WEIGHTS.sum()
    # A mean of 30 numbers below 100 is a few dozen roundings away.
    assert abs(model.score(X, sample_weight=WEIGHTS) - expected) < 30 * 100 * 1e-15
    assert model.score(X, None, list(WEIGHTS)) == model.score(X, sample_weight=WEIGHTS)
    only = np.arange(30) == 7
    assert model.score(X, sample_weight=only) == rows[7]
    for weights, words in [
        (WEIGHTS[:5], r"sample_weight has shape \(5,\), expected one per row of X: \(30,\)"),
        (WEIGHTS[:, None], r"sample_weight has shape \(30, 1\)"),
        (WEIGHTS - 2, "sample_weight must be at least 0"),
        (0 * WEIGHTS, "not 0 for all rows"),
        (WEIGHTS * np.nan, "sample_weight contains NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.score(X, sample_weight=weights)


@ALL
def test_weights_are_routed_to_the_score(name):
    """Folds that are scored with weights, against the same by hand."""
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(SMALL[name]).set_score_request(sample_weight=True)
        halves = [(np.arange(15), np.arange(15, 30)), (np.arange(15, 30), np.arange(15))]
        params = {"sample_weight": WEIGHTS}
        found = cross_validate(model, X, cv=halves, params=params, error_score="raise")
        search = GridSearchCV(model, {"random_state": [0]}, cv=halves, error_score="raise")
        search.fit(X, sample_weight=WEIGHTS)
    by_hand = [
        clone(SMALL[name]).fit(X[train]).score(X[test], sample_weight=WEIGHTS[test])
        for train, test in halves
    ]
    np.testing.assert_array_equal(found["test_score"], by_hand)
    assert search.best_score_ == np.mean(by_hand)


@TRAINED
def test_held_out_rows_are_routed_to_fit(name):
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(SMALL[name]).set_params(patience=1)
        model.set_fit_request(X_valid=True, checkpoints=False)
        pipeline = make_pipeline(model).fit(X, X_valid=X[:7])
    np.testing.assert_array_equal(
        pipeline[-1].score_samples(X),
        clone(SMALL[name]).set_params(patience=1).fit(X, X_valid=X[:7]).score_samples(X),
    )
    assert pipeline[-1].best_epoch_ is not None


# --- callbacks ----------------------------------------------------------------------------------


class Recorder:
    """A callback that writes down what it is told, and may end the training."""

    def __init__(self, last=None):
        self.last, self.told, self.scores = last, [], []

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name} {context.max_subtasks}")

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.told.append(f"end {context.task_name} {context.task_id}")
        self.scores.append(fitted_estimator.score(X))
        self.latest = fitted_estimator
        return context.task_name == "epoch" and context.task_id == self.last


NO_CALLBACKS = pytest.mark.skipif(
    not hasattr(VAE, "set_callbacks"),
    reason=f"scikit-learn {sklearn.__version__} has no callbacks: they came with 1.9",
)


@NO_CALLBACKS
@TRAINED
def test_callbacks_see_every_epoch(name):
    recorder = Recorder()
    model = clone(SMALL[name]).set_callbacks(recorder)
    assert model.fit(X) is model
    assert recorder.told == [
        "setup", "begin fit 2", "begin epoch 0", "end epoch 0", "begin epoch 0", "end epoch 1",
        "end fit 0", "teardown"]  # fmt: skip
    ends = [clone(SMALL[name]).set_params(epochs=n).fit(X) for n in (1, 2)]
    np.testing.assert_array_equal(recorder.scores, [m.score(X) for m in (*ends, ends[1])])
    assert recorder.latest.state_.theta is not model.state_.theta
    assert vars(model).keys() == vars(ends[0]).keys() | {"_skl_callbacks"}
    pickle.loads(pickle.dumps(model)).partial_fit(X)  # which has no tasks
    assert len(recorder.told) == 8


@NO_CALLBACKS
@TRAINED
def test_a_callback_may_end_the_training(name):
    """As `patience` does; what fails inside leaves the callback torn down."""
    recorder = Recorder(last=0)
    model = clone(SMALL[name]).set_params(epochs=9).set_callbacks(recorder).fit(X)
    once = clone(SMALL[name]).set_params(epochs=1).fit(X)
    assert model.n_epochs_ == 1
    np.testing.assert_array_equal(model.state_.theta, once.state_.theta)
    assert recorder.told[-2:] == ["end fit 0", "teardown"]
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X * np.nan)
    assert "_callback_fit_ctx" not in vars(model)


def test_held_out_rows_that_a_pipeline_did_not_scale_are_noticed():
    train, held_out = np.random.default_rng(3).normal(50, 10, (2, 60, 5))
    pipe = make_pipeline(StandardScaler(), clone(SMALL["vae"]))
    with pytest.warns(UserWarning, match="5 of 5 columns of X_valid lie outside") as told:
        pipe.fit(train, vae__X_valid=held_out)
    assert told[0].filename == __file__
    pipe[-1].fit(train, X_valid=held_out)  # where a warning would be an error
