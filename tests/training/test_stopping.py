"""Held-out rows, the epoch that is best by them, when to stop, and how many passes are made.

Every family goes through the same tests. That the best epoch's parameters are left is compared with
a training that ends there.
"""

import itertools
import math
import os

import numpy as np
import pytest
import scipy.sparse
from families import OTHER, SCORED, X, bits, small
from numpy.testing import assert_array_equal

import minivae
from minivae.data import rows
from minivae.data.rows import Part, fetch, fingerprint
from minivae.engine import threads
from minivae.models import MODELS, find, fitting, settings
from minivae.training import checkpoints
from minivae.training.stopping import best_epoch, out_of_patience

FAMILY = pytest.mark.parametrize("name", MODELS)
SCORING = pytest.mark.parametrize("name", SCORED)
NAN, INF = math.nan, math.inf
MANY = (np.random.default_rng(2).random((23, 8)) > 0.5).astype("f4")


# --- the rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best", "after"),  # after: how many epochs came after the best one
    [
        ([], None, 0),
        ([-3.0], 0, 0),
        ([-3.0, -2.0, -4.0], 1, 1),
        ([-2.0, -2.0, -2.0], 0, 2),  # equal is not better
        ([NAN, -5.0, INF, -INF], 1, 2),  # what a file cannot keep does not count
        ([NAN, -INF], None, 2),
    ],
)
def test_the_best_epoch_and_patience_are_functions_of_the_scores(scores, best, after):
    assert best_epoch(scores) == best
    ends = [out_of_patience(scores, patience) for patience in (None, 1, 2, 3)]
    assert ends == [False, after >= 1, after >= 2, after >= 3]


def test_few_rows_have_more_passes_and_a_default_schedule_grows_with_them():
    """20 passes, or 3,000 updates: 569 rows are 5 batches of 128."""
    assert [fitting.passes(n, 128) for n in (1, 128, 569, 150 * 128, 60_000)] == [
        3000, 3000, 600, 20, 20]  # fmt: skip
    model = find("nade")(device="reference")
    model.become(*model.new_state(3))
    assert fitting.rates(model) == [(14, 2e-3), (1, 2e-4)]
    model.record_.settled = 50
    assert fitting.rates(model) == [(35, 2e-3), (3, 2e-4)]  # 14 * 50 / 20 = 35, 2.5 rounded up
    assert fitting.rates(model.set_params(learning_rate=[(14, 1e-3)])) == [(14, 1e-3)]


@FAMILY
def test_the_number_that_was_settled_on_is_kept(name, monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "EPOCHS", 2)
    monkeypatch.setattr(settings, "UPDATES", 8)  # 11 rows are 3 batches: 3 passes
    model = small(name, device="reference", epochs=None).fit(X, checkpoints=tmp_path)
    assert (model.n_epochs_, model.epochs, model.best_epoch_) == (3, None, None)
    assert bits(small(name, device="reference", epochs=3).fit(X)) == bits(model)
    loaded = minivae.load(tmp_path / "checkpoint.safetensors")
    assert (loaded.epochs, loaded.record_.settled) == (None, 3)
    monkeypatch.setattr(settings, "UPDATES", 80)  # another version may have another rule
    assert loaded.resume(X).n_epochs_ == 3
    assert loaded.set_params(epochs=4).resume(X).n_epochs_ == 4
    assert bits(small(name, device="reference", epochs=4).fit(X)) == bits(loaded)


# --- rows that are held out ---------------------------------------------------------------------


def test_a_part_is_as_good_as_the_rows():
    numbers = np.array([1, 4, 9])
    for data in (X, scipy.sparse.csr_array(X)):
        part = Part(data, numbers)
        assert part.shape == (3, 8)
        assert_array_equal(fetch(part, slice(1, 3), "f8"), X[[4, 9]])
        assert_array_equal(fetch(part, np.array([2, 0]), "f4"), X[[9, 1]])
        assert fingerprint(part, "f4") == fingerprint(X[numbers], "f4")


@FAMILY
def test_held_out_rows_are_drawn_by_the_seed_and_are_not_trained_on(name):
    model = small(name, device="reference", validation_fraction=0.2).fit(MANY)
    train, held_out = fitting.split(model, MANY, None)
    assert (train.shape, held_out.shape) == ((18, 8), (5, 8))  # 4.6 rows, rounded up
    both = np.concatenate([train.numbers, held_out.numbers])
    assert sorted(both) == list(range(23)) and list(both) != list(range(23))
    apart = small(name, device="reference").fit(MANY[train.numbers], X_valid=MANY[held_out.numbers])
    assert bits(apart) == bits(model) and apart.record_.data == model.record_.data
    other = small(name, device="reference", validation_fraction=0.2, random_state=1).fit(MANY)
    assert list(fitting.split(other, MANY, None)[1].numbers) != list(held_out.numbers)
    # Rows that are given take the place of the fraction.
    given = small(name, device="reference", validation_fraction=0.2).fit(MANY, X_valid=OTHER)
    assert bits(given) == bits(small(name, device="reference").fit(MANY, X_valid=OTHER))


@FAMILY
def test_it_is_all_one_what_the_data_are(name, tmp_path, monkeypatch):
    """An array, a sparse matrix, a file, a table: the same bits, and no copy of the whole."""
    settings = dict(validation_fraction=0.2) | ({"patience": 1} if name in SCORED else {})
    expected = small(name, **settings).fit(MANY)
    file = np.memmap(tmp_path / "X", "f4", "w+", shape=MANY.shape)
    file[:] = MANY
    most = []
    monkeypatch.setattr(rows, "CHUNK_BYTES", 5 * 8 * 8)  # a batch at a time
    fetch_mapped = rows._fetch_mapped
    monkeypatch.setattr(
        rows,
        "_fetch_mapped",
        lambda X, r, dtype: most.append(fetch_mapped(X, r, dtype)) or most[-1],
    )
    for data in (scipy.sparse.csr_array(MANY), file):
        assert bits(small(name, **settings).fit(data)) == bits(expected)
    checked = len(MANY)  # the checks look at a block of rows, here at all
    assert max(len(part) for part in most if len(part) != checked) <= 18
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pd.DataFrame(MANY, columns=list("abcdefgh"), index=np.arange(23)[::-1])
    assert bits(small(name, **settings).fit(frame)) == bits(expected)


# --- stopping -----------------------------------------------------------------------------------

EARLY = dict(epochs=40, learning_rate=0.3, patience=3)  # too large a rate: it overfits, soon


def stopped(name, **options):
    """(a model that was stopped, the same one trained until the best epoch)."""
    model = small(name, **EARLY, **options).fit(MANY, X_valid=OTHER)
    best = model.best_epoch_
    assert 1 <= best and model.n_epochs_ == best + 3 < 40
    until = {**EARLY, **options, "epochs": best, "patience": None}
    return model, small(name, **until).fit(MANY, X_valid=OTHER)


@SCORING
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_it_stops_and_leaves_the_best_epoch(name, device):
    model, until = stopped(name, device=device)
    assert_array_equal(model.state_.theta, until.state_.theta)
    scores = model.history_[f"valid_{model.program.SCORE[0]}"]
    assert len(scores) == model.n_epochs_ and max(scores) == scores[model.best_epoch_ - 1]
    assert_array_equal(model.score_samples(OTHER), until.score_samples(OTHER))
    assert model._held_out(OTHER)[model.program.SCORE[0]] == max(scores)
    if device == "cpu":
        for n in (2, 3):
            assert bits(small(name, n_threads=n, **EARLY).fit(MANY, X_valid=OTHER)) == bits(model)


@SCORING
def test_all_epochs_made_the_best_is_left_too(name):
    few = dict(EARLY, epochs=stopped(name, device="reference")[0].best_epoch_ + 1)
    model = small(name, device="reference", **few).fit(MANY, X_valid=OTHER)
    assert model.n_epochs_ == few["epochs"] == model.best_epoch_ + 1
    until = dict(few, epochs=model.best_epoch_, patience=None)
    until = small(name, device="reference", **until).fit(MANY, X_valid=OTHER)
    assert_array_equal(model.state_.theta, until.state_.theta)


class Interruption(Exception):
    pass


@SCORING
def test_interrupted_anywhere_and_resumed_it_stops_in_the_same_bytes(name, tmp_path, monkeypatch):
    """Also without the folder's other files, and where it had all but ended."""
    monkeypatch.setattr(threads, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    options = dict(device="reference", batch_size=12, **EARLY)  # two batches
    whole = tmp_path / "whole"
    expected = small(name, **options).fit(MANY, X_valid=OTHER, checkpoints=whole)
    expected.save(tmp_path / "expected")
    writings = [2 * n for n in range(expected.n_epochs_ + 1)][-6:]  # around the best, to the end
    for moment in (1, *writings):
        folder, count = tmp_path / str(moment), itertools.count()
        write = checkpoints.Checkpoints.write

        def stop(self, count=count, moment=moment, write=write):
            write(self)
            if next(count) == moment:
                raise Interruption

        with monkeypatch.context() as patch, pytest.raises(Interruption):
            patch.setattr(checkpoints.Checkpoints, "write", stop)
            small(name, **options).fit(MANY, X_valid=OTHER, checkpoints=folder)
        alone = minivae.load(folder / "checkpoint.safetensors").resume(MANY, X_valid=OTHER)
        model = minivae.load(folder / "checkpoint.safetensors")
        model.resume(MANY, X_valid=OTHER, checkpoints=folder)
        assert bits(model) == bits(expected) == bits(alone)
        for file in ("checkpoint.safetensors", "best.safetensors"):
            assert (folder / file).read_bytes() == (whole / file).read_bytes()
        model.save(tmp_path / "model")
        assert (tmp_path / "model").read_bytes() == (tmp_path / "expected").read_bytes()


@SCORING
def test_a_model_that_was_left_at_its_best_goes_on_by_partial_fit(name, tmp_path):
    model, _ = stopped(name, device="reference")
    with pytest.raises(ValueError, match="partial_fit"):
        model.resume(MANY, X_valid=OTHER)
    before = model.state_.theta.copy()
    model.save(tmp_path / "model")
    twin = minivae.load(tmp_path / "model")
    assert bits(twin.partial_fit(MANY)) == bits(model.partial_fit(MANY))
    assert not np.array_equal(model.state_.theta, before)
    assert (model.n_epochs_, model.state_.best) == (model.best_epoch_ + 4, None)


# --- what is refused ----------------------------------------------------------------------------


@SCORING
def test_what_cannot_be_waited_for_is_refused(name, tmp_path):
    fresh = small(name, device="reference", patience=2)
    with pytest.raises(ValueError, match=r"patience=2 needs held-out rows.*validation_fraction"):
        fresh.fit(X)
    assert vars(fresh).keys() == fresh.get_params().keys()
    with pytest.raises(ValueError, match=r"validation_fraction=0.95 of n_samples=11 leaves no row"):
        small(name, device="reference", validation_fraction=0.95).fit(X)
    model = small(name, device="reference", validation_fraction=0.2)
    model.fit(MANY, checkpoints=tmp_path)
    model = minivae.load(tmp_path / "checkpoint.safetensors").set_params(epochs=3)
    for changed, words in (
        (dict(patience=2), "patience=2 was changed after fit, which kept no best epoch"),
        (dict(validation_fraction=0.3), "resume needs the data that fit was given: X was 18 x 8"),
        (dict(validation_fraction=0.0), "X_valid was 5 x 8 .* is now not given"),
    ):
        before = model.get_params()
        with pytest.raises(ValueError, match=words):
            model.set_params(**changed).resume(MANY)
        model.set_params(**before)
    assert model.resume(MANY).n_epochs_ == 3


@pytest.mark.parametrize("name", sorted(MODELS.keys() - set(SCORED)))
def test_without_a_score_there_is_nothing_to_wait_for(name):
    """Held-out rows are of use all the same: the history has their terms."""
    assert "patience" not in find(name).SETTINGS
    with pytest.raises(TypeError, match="patience"):
        small(name, patience=2)
    model = small(name, device="reference", validation_fraction=0.2).fit(MANY)
    assert model.best_epoch_ is None and model.held_out_score(OTHER) is None
    held_out = {key for key in model.history_ if key.startswith("valid_")}
    assert held_out == {f"valid_{term}" for term in model.program.TERMS}
