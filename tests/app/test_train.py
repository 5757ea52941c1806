"""`minivae train`: what it leaves, and what it leaves alone."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from families import SCORED
from shell import ALWAYS, STARTED, TINY, assert_picture, call, contents, options_of
from tiny import FAMILIES

import minivae
from minivae import datasets, models
from minivae.app import cli, options
from minivae.engine import machine
from minivae.models import settings

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"


@pytest.mark.parametrize(
    ("run", "more"),
    [
        ("images", {"means.png", "manifold.png", "latent.png"}),
        ("table", {"latent.png", "correlations.png"}),
    ],
)
def test_train_leaves_the_model_the_history_and_pictures(run, more, request):
    folder = request.getfixturevalue(run)
    assert {path.name for path in folder.iterdir()} == ALWAYS | more
    for picture in folder.glob("*.png"):
        assert_picture(picture)


def test_history_says_what_the_run_was(images, files):
    facts = json.loads((images / "history.json").read_text())
    vae = minivae.VAE.load(images / "model.safetensors")
    test = datasets.load(files / "images.npz").test
    assert facts.pop("history") == {n: v for n, v in vae.history_.items() if n != "seconds"}
    assert facts == {
        "data": f"{files}/images.npz",
        "data_dir": None,
        "test_fraction": 0.1,
        "seed": 0,
        "image_shape": [4, 3],
        "label": None,
        "drop": None,
        "minivae": minivae.__version__,
        "model": "vae",
        "score": "elbo",
        "held_out_score": vae.elbo(test, n_samples=10, random_state=0).mean(),
    }


@pytest.mark.parametrize("run", ["images", "table"])
def test_the_page_on_runs_names_what_is_there(run, request):
    folder = request.getfixturevalue(run)
    files, keys = (set(re.findall(r"^\| `([\w.]+)`", part, re.MULTILINE))
                   for part in PAGE.read_text("utf-8").split("## history.json"))  # fmt: skip
    assert files <= ALWAYS and ALWAYS - files == {"reconstructions.png", "samples.png"}
    facts = json.loads((folder / "history.json").read_text())
    assert keys == facts.keys()
    model = minivae.load(folder / "model.safetensors")
    names = {*model.program.TERMS, model.program.SCORE[0]}
    expected = names | {f"valid_{name}" for name in names} | {"loss", "gradient_norm"}
    assert facts["history"].keys() == expected == model.history_.keys() - {"seconds"}


def test_train_does_what_the_estimator_does_with_the_same_settings(
    files, tmp_path, capsys, no_pictures
):
    words = """--latent-dim 3 --hidden 4,3 --activation tanh --binarize threshold --beta 0.5
        --optimizer sgd --learning-rate 0.01 --momentum 0.5 --weight-decay 0.001 --batch-size 7
        --epochs 3 --dtype float64 --device reference --n-threads 1 --test-fraction 0.3 --seed 5"""
    settings = dict(
        latent_dim=3, hidden_layer_sizes=(4, 3), activation="tanh", binarize="threshold", beta=0.5,
        optimizer="sgd", learning_rate=0.01, momentum=0.5, weight_decay=0.001, batch_size=7,
        epochs=3, dtype="float64", device="reference", n_threads=1, random_state=5,
    )  # fmt: skip
    run = tmp_path / "new" / "run"  # with the folder above it
    code, out, err = call(
        capsys, "train", files / "images.npz", "--out", run, "--quiet", *words.split()
    )
    assert (code, err) == (0, "")
    assert "held-out ELBO -" in out and str(run) in out
    loaded = minivae.VAE.load(run / "model.safetensors")
    expected = minivae.VAE(**settings)
    assert loaded.get_params() == expected.get_params()
    data = datasets.load(files / "images.npz", test_fraction=0.3)
    expected.fit(data.train, X_valid=data.test)
    for name, array in expected.parameters_.items():
        np.testing.assert_array_equal(loaded.parameters_[name], array)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_and_options_are_those_of_the_estimator(family):
    """Every setting is an option, but those that the command has in its own way."""
    train = ["train", "--out", "x", "--model", family]
    args = cli.parse(train)
    assert args.given == {"out": Path("x"), "model": family}
    estimator = models.find(family)().get_params()
    assert options.settings_of(family, args.given) == estimator
    written = {
        "whole": ("7", 7), "real": ("0.25", 0.25), "sizes": ("7,6", (7, 6)),
        "schedule": ("3:0.5,1:0.25", ((3, 0.5), (1, 0.25))), "device": ("cuda:1", "cuda:1"),
        "schema": ('a=real,"b, c=category"', {"a": "real", "b, c": "category"}),
        "truth": ("no", False), "shape": ("2x-1", (2, -1)),
    }  # fmt: skip
    table, said, expected = models.find(family).SETTINGS, [], {}
    for name in estimator.keys() - {"random_state", "verbose"}:
        kind = table[name].kind
        word, value = written.get(kind) or [table[name].choices[-1]] * 2
        said += [options.option_of(name, table[name]), word]
        expected[name] = value
    args = cli.parse([*train, *said])
    found = options.settings_of(family, args.given)
    assert found == expected | {"random_state": None, "verbose": 0}
    assert table["device"].choices == ("cpu", "reference", "auto", "cuda")
    assert set(table["device"].choices) == set(machine.DEVICES)


def test_digits_are_the_default_data_and_few_rows_have_more_epochs(
    files, tmp_path, capsys, monkeypatch, no_pictures
):
    monkeypatch.setattr(settings, "EPOCHS", 2)
    monkeypatch.setattr(settings, "UPDATES", 30)  # digits have 13 batches
    for data, epochs in ([], 3), ([files / "images.npz"], 30):
        run = tmp_path / str(epochs)
        words = "--hidden 2 --device reference".split()
        code, out, err = call(capsys, "train", *data, "--out", run, *words)
        assert code == 0 and f"{epochs} epochs in" in out
        history = json.loads((run / "history.json").read_text())["history"]
        assert len(history["valid_elbo"]) == epochs
    assert "images.npz: 18 rows to train on, 2 held out" in err
    assert "vae of 12 features, latent_dim 2, hidden_layer_sizes 2," in out
    assert ": 80 parameters\n" in out  # 26 + 12 + 6 + 36
    assert "cross-entropy" in err  # the images are grey
    assert err.count("\n") == 3  # no bar: it is not a terminal


@pytest.mark.parametrize("family", SCORED)
def test_it_stops_by_held_out_rows_and_says_which_epoch(
    family, files, tmp_path, capsys, no_pictures
):
    """Rows of its own choose the epoch, and the test part is looked at once; or that part does."""
    words = options_of(family, learning_rate=0.5, epochs=30, batch_size=8, patience=2)
    words = ["train", files / "images.npz", *words, "--device", "reference"]
    fraction, run = ["--validation-fraction", "0.2"], tmp_path / "run"
    code, out, err = call(capsys, *words, *fraction, "--out", run)
    model = minivae.load(run / "model.safetensors")
    assert code == 0 and model.n_epochs_ == model.best_epoch_ + 2 < 30
    score = model.history_[f"valid_{model.program.SCORE[0]}"][model.best_epoch_ - 1]
    assert f" {score:.2f} after epoch {model.best_epoch_}: this is the model (the last" in out
    assert f"{model.n_epochs_} epochs in" in out and "choose the epoch" not in err
    data = datasets.load(files / "images.npz")
    again = model.set_params(epochs=model.best_epoch_, patience=None)
    np.testing.assert_array_equal(
        minivae.models.find(family)(**again.get_params()).fit(data.train).state_.theta,
        model.state_.theta,
    )
    before = (run / "model.safetensors").read_bytes()
    code, out, _ = call(capsys, "train", files / "images.npz", "--resume", "--out", run)
    assert code == 0 and f"{model.n_epochs_} epochs, 0 of them now" in out
    assert (run / "model.safetensors").read_bytes() == before
    code, out, err = call(capsys, *words, "--out", tmp_path / "other")
    assert code == 0 and "the held-out rows choose the epoch" in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_a_bar_with_the_loss_and_a_quiet_one_does_not(
    files, tmp_path, monkeypatch, no_pictures
):
    for words, bar in ([], True), (["--quiet"], False):
        monkeypatch.setattr("sys.stderr", Terminal())
        train = ["train", f"{files}/images.npz", "--out", f"{tmp_path}/{bar}", *TINY, *words]
        assert cli.main(train) == 0
        seen = sys.stderr.getvalue()
        assert ("epoch 2:  100%" in seen and "held-out -" in seen) == bar
    assert seen == ""  # of the quiet one


def test_no_hidden_layer_two_rows_and_images_from_a_table(tmp_path, capsys):
    np.save(tmp_path / "two.npy", np.eye(2, 6))
    words = ["--hidden", "", "--image-shape", "2x3", "--epochs", 1, "--device", "reference"]
    code, out, err = call(capsys, "train", tmp_path / "two.npy", "--out", tmp_path / "run", *words)
    assert code == 0 and "vae of 6 features, latent_dim 2, hidden_layer_sizes none, " in out
    assert "1 epoch in" in out
    assert "cross-entropy" not in err  # zeros and ones
    assert_picture(tmp_path / "run" / "manifold.png")


def test_a_folder_in_use_is_left_alone(copy, files, capsys):
    (copy / "notes.txt").write_text("mine")
    before = contents(copy)
    train = ["train", files / "table.csv", "--out", copy, "--likelihood", "gaussian", *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out) == (2, "")
    assert "--out" in err and str(copy) in err and "--overwrite" in err
    assert contents(copy) == before


def test_overwrite_replaces_a_run_and_nothing_else(copy, files, capsys):
    (copy / "notes.txt").write_text("mine")
    (copy / "codes.npy").write_text("mine too")
    before = contents(copy)
    train = ["train", files / "table.csv", "--out", copy, "--likelihood", "gaussian", *TINY]
    assert call(capsys, *train, "--latent-dim", 3, "--overwrite")[0] == 0
    after = contents(copy)
    # The pictures of images would now be of another model.
    assert after.keys() == ALWAYS | {"latent.png", "correlations.png", "notes.txt", "codes.npy"}
    same = {name for name in before if after.get(name) == before[name]}
    assert same == {"notes.txt", "codes.npy"}


@pytest.mark.parametrize("name", ["", "model.safetensors", "history.json", "manifold.png"])
def test_what_is_not_a_plain_file_is_not_replaced(name, files, tmp_path, capsys):
    if name == "history.json":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / name).symlink_to("elsewhere")
    elif name:
        (tmp_path / "run" / name).mkdir(parents=True)
    else:
        (tmp_path / "run").write_text("a file")
    train = ["train", files / "images.npz", "--out", tmp_path / "run", "--overwrite", *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out) == (2, "")
    assert f"--out: {tmp_path / 'run' / name} is in the way" in err
    assert [path.name for path in tmp_path.rglob("*")] == ["run"] + [name] * bool(name)


def test_an_interrupted_run_ends_with_130_and_one_line(files, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("minivae.training.loop.train", interrupted)
    train = ["train", files / "images.npz", "--out", tmp_path / "run", "--quiet", *TINY]
    assert call(capsys, *train) == (130, "", "minivae: interrupted\n")
    assert contents(tmp_path / "run").keys() == STARTED


def test_a_diverged_run_ends_with_1_and_one_line(files, tmp_path, capsys):
    words = "--likelihood gaussian --learning-rate 1e300 --dtype float64 --optimizer sgd --quiet"
    train = ["train", files / "table.csv", "--out", tmp_path / "run", *words.split(), *TINY]
    code, out, err = call(capsys, *train)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("minivae: error: the loss became") and "learning_rate below 1e+300" in err
    assert contents(tmp_path / "run").keys() == STARTED
    assert minivae.VAE.load(tmp_path / "run" / "checkpoint.safetensors").history_ == {"seconds": []}
