"""What can be done with a run: sample, reconstruct, encode, decode, score, gradcheck, info."""

import contextlib
import io
import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
from matplotlib.image import imread
from shell import assert_picture, call

import minivae
from minivae import datasets
from minivae.app import cli
from minivae.evaluation.point import Point
from minivae.training import progress


def test_sample(copy, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    before = imread(copy / "samples.png")
    code, out, _ = call(capsys, "sample", copy, "-n", 9, "--seed", 3)
    assert (code, out) == (0, f"{copy / 'samples.png'}: 9 samples\n")
    assert imread(copy / "samples.png").shape != before.shape  # 3 x 3 images instead of 10 x 10
    assert call(capsys, "sample", copy, "-n", 7, "--seed", 3, "--out", copy / "x.npy")[0] == 0
    np.testing.assert_array_equal(np.load(copy / "x.npy"), vae.sample(7, random_state=3))


def test_reconstruct_encode_and_decode_agree_with_the_estimator(copy, files, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    held_out = datasets.load(files / "images.npz").test
    rows = np.load(files / "images.npz")["X"].reshape(20, 12) / np.float32(255)
    # By default the held-out rows of the run's data; of a file all rows, in order.
    for data, X in ([], held_out), ([files / "images.npz"], rows):
        code, out, _ = call(capsys, "encode", copy, *data)
        assert code == 0 and str(copy / "codes.npy") in out and f"{len(X)} " in out
        codes = np.load(copy / "codes.npy")
        np.testing.assert_array_equal(codes, vae.transform(X))
        assert call(capsys, "reconstruct", copy, *data, "--out", copy / "Y.npy")[0] == 0
        np.testing.assert_array_equal(np.load(copy / "Y.npy"), vae.reconstruct(X))
        assert call(capsys, "decode", copy, copy / "codes.npy")[0] == 0
        np.testing.assert_array_equal(np.load(copy / "decoded.npy"), vae.reconstruct(X))
    for words in ["reconstruct", copy], ["decode", copy, copy / "codes.npy"]:
        assert call(capsys, *words, "--out", copy / "Y.png")[0] == 0
        assert_picture(copy / "Y.png")


def test_codes_survive_a_csv_file_exactly(copy, capsys):
    vae = minivae.VAE.load(copy / "model.safetensors")
    assert call(capsys, "encode", copy, "--out", copy / "codes.csv")[0] == 0
    assert call(capsys, "encode", copy, "--out", copy / "codes.npy")[0] == 0
    assert (copy / "codes.csv").read_text().startswith("vae0,vae1\n")
    assert call(capsys, "decode", copy, copy / "codes.csv")[0] == 0
    expected = vae.inverse_transform(np.load(copy / "codes.npy"))
    np.testing.assert_array_equal(np.load(copy / "decoded.npy"), expected)


def test_a_data_set_by_name_gives_its_held_out_rows(tmp_path, capsys, no_pictures):
    train = ["train", "--out", tmp_path / "run", "--hidden", 2, "--epochs", 1, "--quiet"]
    assert call(capsys, *train, "--device", "reference")[0] == 0
    for data in [], ["digits"]:
        assert call(capsys, "encode", tmp_path / "run", *data)[0] == 0
        codes = np.load(tmp_path / "run" / "codes.npy")
        vae = minivae.VAE.load(tmp_path / "run" / "model.safetensors")
        np.testing.assert_array_equal(codes, vae.transform(datasets.load("digits").test))


@pytest.mark.parametrize(("run", "grey"), [("images", True), ("table", False)])
def test_score(run, grey, request, capsys):
    folder = request.getfixturevalue(run)
    vae = minivae.VAE.load(folder / "model.safetensors")
    data = json.loads((folder / "history.json").read_text())["data"]
    X = np.load(data)["X"].reshape(20, 12) / np.float32(255) if grey else datasets.read(data)
    code, out, err = call(capsys, "score", folder, data, "--n-samples", 5)
    assert code == 0
    assert ("cross-entropy" in err, err.count("\n")) == (grey, int(grey))
    first, log_likelihood, elbo, *_ = out.splitlines()
    assert first.startswith(f"{len(X)} rows of {data}") and "nats" in first
    with pytest.warns(UserWarning, match="cross-entropy") if grey else contextlib.nullcontext():
        values = vae.score_samples(X, 5)
    error = values.std(ddof=1) / np.sqrt(len(X))
    assert f"{values.mean():.2f} +- {error:.2f}" in log_likelihood
    values = vae.elbo(X, 5, random_state=0)
    error = values.std(ddof=1) / np.sqrt(len(X))
    assert f"{values.mean():.2f} +- {error:.2f}" in elbo


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_how_far_score_is(images, monkeypatch, capsys):
    """And a file does not: the test above has one line of notes at most."""
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(progress, "Bar", partial(progress.Bar, mininterval=0))  # of seconds
    assert cli.main(["score", str(images), "--n-samples", "2"]) == 0
    seen = sys.stderr.getvalue().split("\r")
    shown = [line[:10] for line in seen if "%" in line]
    assert shown == ["score   0%", "score 100%"] * 2  # ln p(x), and the ELBO
    assert seen[-1] == "" and seen[-2].strip() == ""  # the bar is gone


def test_gradcheck_tells_right_from_wrong(tmp_path, capsys, monkeypatch):
    X, model = np.eye(4), tmp_path / "linear.safetensors"
    np.save(tmp_path / "X.npy", X)
    settings = dict(hidden_layer_sizes=(), device="reference", epochs=1, random_state=0)
    minivae.VAE(1, **settings).fit(X).save(model)
    gradcheck = ["gradcheck", model, tmp_path / "X.npy", "--rows", 3, "--max-coordinates", 3]
    code, out, err = call(capsys, *gradcheck)
    assert code == 0 and "PASSED" in out and "the first 3 of 4 rows" in err
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "20 directions" in lines["encoder.mu.weight"]  # (4, 1)
    assert "1 coordinates" in lines["encoder.mu.bias"]
    right = Point.gradients
    monkeypatch.setattr(
        Point, "gradients", lambda self: {n: 1.001 * g for n, g in right(self).items()}
    )
    code, out, _ = call(capsys, *gradcheck)
    assert code == 1 and "FAILED" in out


def test_a_run_whose_data_have_moved_says_so(copy, capsys):
    facts = json.loads((copy / "history.json").read_text())
    (copy / "history.json").write_text(json.dumps(facts | {"data": "gone.npy"}))
    code, out, err = call(capsys, "score", copy)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "DATA is needed, as that of history.json cannot be read: there is no file gone" in err


def test_info(table, capsys):
    code, out, err = call(capsys, "info", table)
    assert (code, err) == (0, "")
    vae = minivae.VAE.load(table / "model.safetensors")
    n_parameters = sum(array.size for array in vae.parameters_.values())
    assert f"{(table / 'model.safetensors').stat().st_size} bytes" in out
    assert "vae of 4 features, latent_dim 3, hidden_layer_sizes 5, likelihood gaussian, " in out
    assert f"n_importance 1: {n_parameters} parameters, 2 epochs" in out
    for name, array in vae.parameters_.items():
        assert f"  {name:22} float32 {array.shape}\n" in out
    assert f"{vae.history_['elbo'][-1]:.6g} in the last epoch" in out


def test_a_model_file_from_python_needs_its_data_named(images, files, tmp_path, capsys):
    model = shutil.copy(images / "model.safetensors", tmp_path / "mine.safetensors")
    assert call(capsys, "info", model)[0] == 0
    code, out, err = call(capsys, "encode", model)
    assert (code, out) == (2, "") and "DATA" in err
    assert call(capsys, "encode", model, files / "images.npz")[0] == 0
    assert np.load(tmp_path / "codes.npy").shape == (20, 2)
    assert call(capsys, "sample", model)[0] == 0  # histograms: nothing says that these are images
    histograms = imread(tmp_path / "samples.png")
    assert call(capsys, "sample", model, "--image-shape", "4x3")[0] == 0
    assert imread(tmp_path / "samples.png").shape != histograms.shape


def test_a_history_that_is_not_one_is_refused(copy, capsys):
    for text in "{", "5", "[" * 100_000, '{"data": 5}', '{"data": "digits", "test_fraction": "x"}':
        (copy / "history.json").write_text(text)
        code, out, err = call(capsys, "encode", copy)
        assert (code, out, err.count("\n")) == (2, "", 1)
