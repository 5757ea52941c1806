"""`minivae train --resume`: what goes on, and what is refused."""

import contextlib
import json
import shutil

import numpy as np
from shell import TINY, assert_picture, call, contents

import minivae
from minivae import datasets
from minivae.app import runs


def test_resume_refuses_other_options_with_a_list_of_them(copy, files, capsys):
    before = contents(copy)
    words = "--learning-rate 0.5 --hidden 7,3 --seed 9 --epochs 1 --n-threads 2"
    code, out, err = call(capsys, "train", "digits", "--out", copy, "--resume", *words.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    for words in (
        f"--data was '{files}/images.npz', and is now 'digits'",
        "--learning-rate was 0.001, and is now 0.5",
        "--hidden was (5,), and is now (7, 3)",
        "--seed was 0, and is now 9",
        "--epochs is 1, and 2 have begun",
    ):
        assert words in err
    assert "--n-threads" not in err  # results do not depend on it
    assert contents(copy) == before


def test_resume_refuses_other_rows_under_the_same_name(files, tmp_path, capsys, no_pictures):
    table = shutil.copy(files / "table.csv", tmp_path / "table.csv")
    train = ["train", table, "--out", tmp_path / "run", "--likelihood", "gaussian", *TINY]
    assert call(capsys, *train)[0] == 0
    before = contents(tmp_path / "run")
    rows = np.loadtxt(table, delimiter=",", skiprows=1)
    np.savetxt(table, rows[:-1], delimiter=",")
    code, out, err = call(capsys, "train", "--out", tmp_path / "run", "--resume", "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "resume needs the data that fit was given: X was" in err
    assert contents(tmp_path / "run") == before


def test_resume_needs_no_option_again_and_may_add_epochs(copy, files, capsys):
    settings = minivae.VAE.load(copy / "model.safetensors").get_params()
    code, out, err = call(capsys, "train", "--out", copy, "--resume", "--epochs", 5)
    assert code == 0 and "going on after 2 of 5 epochs" in err
    assert "5 epochs, 3 of them now, in" in out
    model = minivae.VAE.load(copy / "model.safetensors")
    assert model.get_params() == {**settings, "epochs": 5}
    whole = files / "five_epochs"
    assert call(capsys, "train", files / "images.npz", "--out", whole, *TINY, "--epochs", 5)[0] == 0
    assert contents(copy) == contents(whole)


def test_resume_where_there_is_nothing_begins(files, tmp_path, images, capsys):
    train = ["train", files / "images.npz", "--out", tmp_path / "run", *TINY, "--resume"]
    code, _, err = call(capsys, *train)
    assert code == 0 and f"nothing to resume in {tmp_path / 'run'}: a new run" in err
    assert contents(tmp_path / "run") == contents(images)


def test_resume_of_a_complete_run_changes_nothing(copy, images, capsys):
    assert call(capsys, "train", "--out", copy, "--resume")[0] == 0
    assert contents(copy) == contents(images)


def test_resume_does_not_take_a_folder_with_other_things(files, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    train = ["train", files / "images.npz", "--out", tmp_path, *TINY, "--resume"]
    code, _, err = call(capsys, *train)
    assert code == 2 and "is not empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_runs_in_one_folder_are_refused(files, tmp_path, capsys, no_pictures):
    train = ["train", files / "images.npz", "--out", tmp_path, *TINY]
    with runs.alone_in(tmp_path):
        code, _, err = call(capsys, *train, "--quiet")
    assert code == 2 and err.endswith(f"--out: another minivae train is at work in {tmp_path}\n")
    assert list(tmp_path.iterdir()) == []
    assert call(capsys, *train)[0] == 0


def test_a_run_that_is_not_complete_says_how_to_go_on(copy, capsys):
    (copy / "model.safetensors").unlink()
    code, _, err = call(capsys, "sample", copy)
    assert code == 2 and f"minivae train --resume --out {copy}" in err
    assert call(capsys, "sample", copy / "checkpoint.safetensors")[0] == 0  # as it advises
    assert_picture(copy / "samples.png")


def test_resume_finds_data_that_moved_by_what_is_in_them(
    copy, files, tmp_path, capsys, no_pictures
):
    moved = shutil.copy(files / "images.npz", tmp_path / "moved.npz")
    train = ["train", moved, "--out", copy, "--resume", "--epochs", 3, "--quiet"]
    assert call(capsys, *train)[0] == 0
    assert json.loads((copy / "history.json").read_text())["data"] == str(moved)


def test_resume_of_what_python_trained_says_how_to_go_on(tmp_path, capsys):
    X = np.random.default_rng(0).random((20, 6))
    settings = dict(hidden_layer_sizes=(3,), epochs=1, device="reference")
    minivae.VAE(**settings).fit(X, checkpoints=tmp_path / "mine")
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "mine")
    assert code == 2 and "does not say what the data were" in err and ".resume(X)" in err


def test_resume_does_not_train_on_other_data_than_the_run_was_begun_with(
    files, tmp_path, capsys, no_pictures
):
    """A run that was killed before its first checkpoint has only its history."""
    (tmp_path / "run").mkdir()
    runs.write_history(tmp_path / "run", {"data": f"{files}/images.npz"})
    code, _, err = call(capsys, "train", "--resume", "--out", tmp_path / "run")
    assert code == 2 and f"was begun with the data {files}/images.npz" in err
    train = ["train", files / "images.npz", "--resume", "--out", tmp_path / "run", *TINY]
    assert call(capsys, *train)[0] == 0


def test_epochs_that_have_begun_are_not_cut_off(copy, files, capsys, monkeypatch):
    vae = minivae.VAE.load(copy / "checkpoint.safetensors")
    data = datasets.load(files / "images.npz")
    count = iter([False] * 2 + [True] * 9)
    monkeypatch.setattr(
        "minivae.training.loop.defer_signals",
        lambda *n: contextlib.nullcontext(lambda: next(count)),
    )
    monkeypatch.setattr("minivae.engine.threads.CHUNK_SECONDS", 0.0)
    vae.set_params(epochs=3).resume(data.train, X_valid=data.test, checkpoints=copy)
    assert 0 < minivae.VAE.load(copy / "checkpoint.safetensors").state_.rows < 18
    monkeypatch.undo()
    code, _, err = call(capsys, "train", "--resume", "--out", copy, "--epochs", 2)
    assert code == 2 and "--epochs is 2, and 3 have begun" in err


def test_a_checkpoint_that_changed_meanwhile_is_not_overwritten(copy, capsys, monkeypatch):
    """Another `train --resume` may have gone on while this one read its data."""
    load = datasets.load

    def slowly(*words):
        data = load(*words)
        minivae.VAE.load(copy / "checkpoint.safetensors").set_params(epochs=4).resume(
            data.train, X_valid=data.test, checkpoints=copy
        )
        return data

    monkeypatch.setattr(datasets, "load", slowly)
    code, _, err = call(capsys, "train", "--resume", "--out", copy, "--epochs", 3, "--quiet")
    assert code == 2 and "another minivae train was at work" in err
    assert len(minivae.VAE.load(copy / "checkpoint.safetensors").history_["loss"]) == 4
