"""`minivae compare`: one table of all families, whose every number can be had from its models."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from families import SMALL
from shell import assert_picture, call, contents
from sklearn.base import BaseEstimator
from tiny import FAMILIES, same_model

import minivae
from minivae.app import comparing, runs
from minivae.models import find
from minivae.training.checkpoints import Checkpoints

GREY = np.random.default_rng(0).random((40, 8)).astype("f4")
BITS = (GREY >= 0.5).astype("f4")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Small models that compile nothing and make three passes, and files of rows."""
    for name in FAMILIES:
        suited = SMALL[name] | dict(device="reference", batch_size=8)
        monkeypatch.setattr(find(name), "SUITED", {"bits": suited})
    monkeypatch.setattr(comparing, "passes_in", lambda model, X, seconds: 3)
    np.save(tmp_path / "grey.npy", GREY)
    np.save(tmp_path / "bits.npy", BITS)
    return tmp_path


def compare(capsys, folder, *words, data="grey.npy"):
    return call(capsys, "compare", folder / data, "--out", folder / "out", "--image-shape", "2x4",
                "--quiet", *words)  # fmt: skip


def table(folder):
    with open(folder / "out" / comparing.TABLE, newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_every_number_is_that_of_the_model_beside_it(small, capsys):
    code, out, err = compare(capsys, small)
    assert code == 0, err
    assert out.startswith((small / "out" / comparing.MARKDOWN).read_text())
    rows = table(small)
    assert list(rows) == FAMILIES
    test = minivae.datasets.load(small / "grey.npy").test >= 0.5  # the rows that `load` holds out
    for name, row in rows.items():
        model = minivae.load(small / "out" / name / runs.MODEL)
        assert row["score"] == (model.score_kind or "")
        assert row["sampling"] == model.sampling in ("parallel", "sequential", "chain")
        assert int(row["parameters"]) == sum(a.size for a in model.parameters_.values())
        assert bool(row["codes"]) == hasattr(model, "transform")
        assert 1 <= int(row["epochs"]) <= 3 and float(row["train_seconds"]) > 0
        assert float(row["one_sample_ms"]) > 0 and float(row["many_samples_ms"]) > 0
        if model.score_kind is None:
            assert row["nats"] == row["error"] == ""
            continue
        nats = model.score_samples(test.astype("f4"))
        assert float(row["nats"]) == pytest.approx(nats.mean(), rel=1e-12)
        assert float(row["error"]) == pytest.approx(nats.std(ddof=1) / len(nats) ** 0.5, rel=1e-9)
    assert_picture(small / "out" / comparing.PICTURE)


def test_what_is_done_stays_and_a_family_more_is_a_row_more(small, capsys):
    assert compare(capsys, small, "--models", "nade")[0] == 0
    before = contents(small / "out" / "nade")
    assert compare(capsys, small, "--models", "vae,nade")[0] == 0
    assert float(table(small)["nade"]["train_seconds"]) > 0  # of the last epoch, three times
    assert contents(small / "out" / "nade") == before and list(table(small)) == ["vae", "nade"]


def test_a_comparison_that_was_stopped_goes_on_to_the_same_models(small, capsys, monkeypatch):
    assert compare(capsys, small, "--models", "vae,nade")[0] == 0
    expected = {name: minivae.load(small / "out" / name / runs.MODEL) for name in ("vae", "nade")}
    shutil.rmtree(small / "out")
    write = Checkpoints.epoch

    def stop(keep):
        write(keep)
        if keep.model.program.NAME == "nade" and keep.model.n_epochs_ == 2:
            keep.write()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "epoch", stop)
        assert compare(capsys, small, "--models", "vae,nade")[0] == 130
    assert not (small / "out" / comparing.TABLE).exists()
    vae = contents(small / "out" / "vae")
    assert compare(capsys, small, "--models", "vae,nade")[0] == 0
    assert float(table(small)["nade"]["train_seconds"]) > 0  # of the last epoch, three times
    assert contents(small / "out" / "vae") == vae
    for name, model in expected.items():
        same_model(minivae.load(small / "out" / name / runs.MODEL), model)


def test_of_a_family_with_a_score_the_best_epoch_by_rows_of_its_own(small, capsys):
    assert compare(capsys, small, "--models", "nade")[0] == 0
    model = minivae.load(small / "out" / "nade" / runs.MODEL)
    expected = find("nade")(**model.get_params())
    train = minivae.datasets.load(small / "grey.npy").train >= 0.5
    expected.fit(train.astype("f4"))
    same_model(model, expected)
    assert expected.validation_fraction == comparing.HELD_OUT and expected.patience == 3


def test_the_number_of_passes_is_what_there_is_time_for(monkeypatch):
    """A clock that a fit moves by half a second, and a pass over 60 rows by 3/100."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(comparing.time, "perf_counter", lambda: clock.now)

    class Slow(BaseEstimator):
        def __init__(self, batch_size=3, epochs=None):
            self.batch_size, self.epochs = batch_size, epochs

        def fit(self, X):
            assert len(X) == 3 * comparing.TRIAL
            clock.now += 0.5 + self.epochs * len(X) / 2000

    assert comparing.passes_in(Slow(), np.zeros((6000, 2)), 30.0) == 10
    assert comparing.passes_in(Slow(), np.zeros((6000, 2)), 0.1) == 1


def test_a_schedule_is_stretched_as_training_by_default_does():
    model = find("nade")(learning_rate=((14, 2e-3), (6, 2e-4)))
    assert comparing.stretched(model, 200) == ((140, 2e-3), (60, 2e-4))
    assert comparing.stretched(model, 1) == ((1, 2e-3), (1, 2e-4))
    assert comparing.stretched(find("nade")(learning_rate=0.01), 50) == ((2, 0.01),)


@pytest.mark.parametrize("words, told", [
    (["--minutes", "0"], "--minutes must be above 0, got 0.0"),
    (["--minutes", "nan"], "--minutes must be above 0, got nan"),
    (["--models", "vae,made"], "expected some of vae, nade"),
    (["--models", ""], "expected some of vae, nade"),
])  # fmt: skip
def test_wrong_words_are_refused_before_a_folder_is_made(words, told, small, capsys):
    code, out, err = compare(capsys, small, *words)
    assert (code, out) == (2, "") and told in err and not (small / "out").exists()


def test_data_that_cannot_be_made_bits_are_refused(small, capsys):
    np.save(small / "real.npy", 3 * GREY)
    code, _, err = compare(capsys, small, data="real.npy")
    assert code == 2 and "compare needs numbers in [0, 1]" in err and not (small / "out").exists()


def test_another_comparison_or_other_files_in_the_folder_are_left_alone(small, capsys):
    assert compare(capsys, small, "--models", "nade")[0] == 0
    before = contents(small / "out" / "nade")
    code, _, err = compare(capsys, small, "--models", "nade", "--minutes", "2")
    assert code == 2 and "--minutes was 1.0, and is now 2.0; choose another folder" in err
    assert contents(small / "out" / "nade") == before
    (small / "out" / comparing.FACTS).unlink()
    code, _, err = compare(capsys, small)
    assert code == 2 and "is not empty; choose another one" in err


def test_the_run_of_a_family_serves_the_other_commands(small, capsys):
    assert compare(capsys, small, "--models", "nade", data="bits.npy")[0] == 0
    code, out, _ = call(capsys, "score", small / "out" / "nade")
    nats = json.loads((small / "out" / "nade" / comparing.RESULT).read_text())["nats"]
    assert code == 0 and f"{nats:.2f} +- " in out
