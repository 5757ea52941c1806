"""Bad and odd input: what happens for each kind, in one table; `docs/bad-input.md` tells users.

Refused: an exception names the argument and says what is wrong; the fitted model and the files
that were there are the same afterwards, bit for bit. Taken: the result is that of clean input.
"""

import copy
import os
import pickle
import re
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from worlds import (
    BITS,
    FORK,
    NAMES,
    NORMAL,
    PRINT,
    WRITERS,
    CommandError,
    World,
    X,
    as_clean,
    at_once,
    call,
    checkpoints_at,
    command,
    compiled_without,
    data,
    diverges,
    each,
    filled_meanwhile,
    fit_on_full_disk,
    flipped,
    foreign,
    frame,
    give,
    in_the_midst,
    in_use,
    load,
    load_pipe,
    mapped,
    no_gpu,
    other_architecture,
    reordered_held_out,
    reshaped_after_fit,
    same,
    save_at,
    save_on_full_disk,
    save_without_permission,
    saved_as_bytes,
    script,
    stays_finite,
    trained_here,
    use,
    vae,
    with_NA,
    with_names_missing,
)

from minivae import VAE, StorageError

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"
# fmt: off
GAUSSIAN = dict(likelihood="gaussian")
SPARSE = sparse.coo_array((np.r_[0.25, X.ravel() - np.r_[0.25, [0] * 119]], (
    np.r_[0, np.repeat(range(24), 5)], np.r_[0, np.tile(range(5), 24)])), shape=X.shape)
MASKED = np.ma.masked_array(X, mask=X > 0.9)
NEW = "train X.npy --out new "
REFUSED = [  # what is given; what the message names; the exception; the message; ways to give it
    ("text that is no number", "X", ValueError, "convert string to float: .*'a'",
        give(np.full((24, 5), "a"))),
    ("objects that are no numbers", "X", TypeError, "'dict'", give(np.full((24, 5), {}, object))),
    ("None among numbers", "X", ValueError, "NaN or inf.* in 1 of 120 entries, first in row 2",
        give([[*row[:4], None] if i == 2 else list(row) for i, row in enumerate(X)])),
    ("complex numbers", "X", ValueError, "Complex data not supported", give(X + 1j)),
    ("dates and times", "X", (TypeError, ValueError), "datetime64|timedelta64", [
        *give(np.full((24, 5), np.datetime64("2020-01-01")), GAUSSIAN),
        *give(np.full((24, 5), np.timedelta64(3, "s")), GAUSSIAN)]),
    ("records (a structured array)", "X", (TypeError, ValueError), "dtype",
        give(np.zeros(4, "f4,f4"))),
    ("NaN", "X", ValueError, "NaN or inf.* in 120 of 120 entries, first in row 0, column 0",
        give(X * np.nan)),
    ("infinity", "X", ValueError, "NaN or inf.* in 120 of", give(X + np.inf) + give(X - np.inf)),
    ("values outside [0, 1] under a Bernoulli likelihood", "X", ValueError, r"values in \[0, 1",
        give(X - 0.001) + give(X + 0.001)),
    ("pixels from 0 to 255 under a Bernoulli likelihood", "X", ValueError, "divide by 255",
        give((X * 255).astype("u1")) + give(mapped((X * 255).astype("u1")))),
    ("numbers beyond the model's dtype", "X", ValueError, "too large.*float32", [
        *give(NORMAL.astype("f8") * 1e300, GAUSSIAN),
        *give(sparse.csr_array(NORMAL.astype("f8") * 1e300), GAUSSIAN),
        *give(mapped(NORMAL.astype("f8") * 1e300), GAUSSIAN)]),
    ("numbers whose squares are beyond the model's dtype", "X", FloatingPointError, "scale X",
        call(lambda w: diverges(w, NORMAL * np.float32(1e37), 1e-3))),
    ("one row as a flat array", "X", ValueError, "Expected 2D array, got 1D", give(X[0])),
    ("images as a 3-D array", "X", ValueError, "with dim 3", give(X[None])),
    ("a single number, or nothing (None)", "X", ValueError, "2D array, got scalar",
        give(0.5) + give(None, names=["fit", "partial_fit", "transform"])),
    ("no rows", "X", ValueError, r"0 sample\(s\)", give(X[:0])),
    ("no columns", "X", ValueError, r"0 feature\(s\)", give(X[:, :0])),
    ("rows of different lengths", "X", ValueError, "inhomogeneous", give([[0.5] * 5, [0.5] * 4])),
    ("the name of a file", "X", ValueError, "could not convert", give("table.csv")),
    ("another number of columns than before", "X", ValueError, "3 features.* 5",
        give(X[:, :3], names=["partial_fit", "transform", "X_valid"])),
    ("a memory map that is not 2-D", "X", ValueError, r"shape \(5,\)", give(mapped(X[0]))),
    ("a masked array with masked entries", "X", ValueError, "masked", give(MASKED)),
    ("a sparse matrix with NaN", "X", ValueError, "NaN or inf", give(sparse.csr_array(X * np.nan))),
    ("a data frame with missing values", "X", ValueError, r"row 3, column 1 \('b'\)",
        give(frame(with_NA, dtype="Float32")) + give(frame(with_NA))),
    ("a data frame with a column of text or categories", "X", ValueError, "to float: 'u'", [
        *give(frame(b="u")), *give(frame(lambda df: df.assign(b="u").astype({"b": "category"})))]),
    ("a data frame with its columns in another order", "feature names", ValueError, "same order",
        give(frame(lambda df: df[NAMES[::-1]]), names=["partial_fit", "transform"])),
    ("held-out rows with their columns in another order", "X_valid", ValueError,
        "same order|feature names", [reordered_held_out]),
    ("a data frame with a column too few", "feature names", ValueError, "now missing:.*- e",
        give(frame(lambda df: df[NAMES[:4]]), names=["partial_fit", "transform"])),
    ("a data frame with a column too many", "feature names", ValueError, "unseen.*- f",
        give(frame(f=0.5), names=["partial_fit", "transform"])),
    ("a data frame with two columns of one name", "X", ValueError, "'a'",
        give(frame(lambda df: df.set_axis(list("aacde"), axis=1)), names=["fit"])),
    ("a data frame whose column names are words and numbers", "X", TypeError, "'int', 'str'",
        give(frame(lambda df: df.set_axis(["a", 1, "c", "d", "e"], axis=1)), names=["fit"])),

    ("latent_dim: 0, a fraction or True", "latent_dim", ValueError, "be .* [Gg]ot (0|2.5|True)",
        each("latent_dim", 0, 2.5, True)),
    ("latent_dim: more than memory holds", "latent_dim", (ValueError, MemoryError), "1000000000",
        use(names=["fit"], latent_dim=10**15) + use(names=["fit"], latent_dim=10**20)),
    ("hidden_layer_sizes: 0, negative, a fraction, True or text", "hidden_layer_sizes", ValueError,
        "positive integers|array-like",
        each("hidden_layer_sizes", (0,), (-1,), (2.5,), (True,), "64")),
    ("hidden_layer_sizes: a set or a dict", "hidden_layer_sizes", ValueError, "got {5",
        each("hidden_layer_sizes", {5}, {5: 1})),
    ("learning_rate: 0, negative, NaN or infinity", "learning_rate", ValueError, "(0|-1|nan|inf)",
        each("learning_rate", 0, -1, np.nan, np.inf, -np.inf)),
    ("learning_rate: an integer beyond float64", "learning_rate", ValueError, "finite|float",
        each("learning_rate", 10**400)),
    ("learning_rate: so large that training diverges", "learning_rate", FloatingPointError,
        "learning_rate below 1e.20", call(diverges)),
    ("learning_rate, momentum, beta or weight_decay: a bool",
        "learning_rate|beta|momentum|weight_decay", ValueError, "True|False", [
        *each("learning_rate", True), *each("beta", True), *each("momentum", False),
        *each("weight_decay", True)]),
    ("batch_size or epochs: 0", "batch_size|epochs", ValueError, "Got 0",
        use(batch_size=0) + use(epochs=0)),
    ("n_threads: 0, or True", "n_threads", ValueError, "[Gg]ot (0|True)",
        each("n_threads", 0, True)),
    ("random_state: negative, a fraction, text, 2**63", "random_state", ValueError, "be an int",
        each("random_state", -1, 0.5, "seed", 2**63)),
    ("random_state: True", "random_state", ValueError, "True", each("random_state", True)),
    ("activation, likelihood, optimizer, device or dtype: a name that is unknown",
        "activation|likelihood|optimizer|device|dtype", ValueError,
        "must be (a str among|one of) .*'best'",
        [way for name in "activation likelihood optimizer device dtype".split()
         for way in each(name, "best")]),
    ("posterior: full", "posterior", NotImplementedError, "not built yet", use(posterior="full")),
    ("device: cuda where no GPU works", "device", ValueError, "cannot be used: .*use device=",
        no_gpu(use(device="cuda"))),
    ("binarize with a Gaussian likelihood", "binarize", ValueError, "goes with",
        use(binarize="threshold", **GAUSSIAN)),
    ("a setting that is not there", "latent", ValueError, "Valid parameters are",
        call(lambda w: w.model.set_params(latent=3))),
    ("another architecture after fit, then partial_fit or save", "latent_dim", ValueError,
        "changed after fit", call(
        lambda w: w.model.set_params(latent_dim=3).partial_fit(X),
        lambda w: w.model.set_params(latent_dim=3).save(w.path))),

    ("a model that was not fitted", "fit", NotFittedError, "not fitted yet", call(
        lambda w: vae().transform(X), lambda w: vae().sample(), lambda w: vae().save(w.path))),
    ("Z of another width", "Z", ValueError, "Z has 3 columns, expected .* 2",
        call(lambda w: w.model.inverse_transform(np.zeros((4, 3))))),
    ("Z that is flat", "Z", ValueError, "2D array, got 1D",
        call(lambda w: w.model.inverse_transform(np.zeros(2)))),
    ("Z with NaN", "Z", ValueError, "contains NaN",
        call(lambda w: w.model.inverse_transform([[0, np.nan]]))),
    ("Z or eps with masked entries", "Z|eps", ValueError, "masked", call(
        lambda w: w.model.inverse_transform(MASKED[:, :2]),
        lambda w: w.model.loss_and_gradients(X, MASKED[:, :2]))),
    ("eps of another shape", "eps", ValueError, r"\(1, 2\), expected .*\(24, 2\)",
        call(lambda w: w.model.loss_and_gradients(X, [[0.0, 0.0]]))),
    ("n_samples: 0 or a fraction", "n_samples", ValueError, "positive integer, got (0|2.5)", call(
        lambda w: w.model.sample(0), lambda w: w.model.sample(2.5), lambda w: w.model.elbo(X, 0),
        lambda w: w.model.score_samples(X, 2.5))),
    ("n_samples: more than memory holds", "n_samples", (ValueError, MemoryError), "1000000000",
        call(lambda w: w.model.sample(10**15), lambda w: w.model.sample(10**20))),

    ("save into a folder that is not there", "none", StorageError, "does not exist; make it first",
        call(lambda w: w.model.save(w.folder / "none" / "model"))),
    ("save over a folder, a link or a pipe", "target", StorageError, "not a regular file", [
        *save_at(lambda w, path: path.mkdir()), *save_at(lambda w, path: os.mkfifo(path)),
        *save_at(lambda w, path: path.symlink_to(w.path))]),
    ("save where one may not write", "model.safetensors", StorageError, "Permission denied",
        call(save_without_permission)),
    ("save on a full disk", "model.safetensors", StorageError, "No space left",
        call(save_on_full_disk)),
    ("save or load: no path (empty, None, a number)", "path", (TypeError, ValueError), "got", [
        way for path in ("", None, 5) for way in call(
        lambda w, path=path: w.model.save(path), lambda w, path=path: VAE.load(path))]),
    ("checkpoints: a file, an empty path, or no path", "checkpoints", (TypeError, ValueError),
        "folder", [partial(checkpoints_at, path) for path in ("model.safetensors", "", True)]),
    ("checkpoints on a full disk", "checkpoint", StorageError, "No space left",
        call(fit_on_full_disk)),
    ("load a file that is not there", "none", StorageError, "no such file",
        call(lambda w: VAE.load(w.folder / "none"))),
    ("load a folder", "kept", StorageError, "is a folder", call(lambda w: VAE.load(w.folder))),
    ("load a pipe", "pipe", StorageError, "not a regular file|not a whole", [load_pipe]),
    ("load an empty file, or a text", "file", StorageError, "not a whole safetensors file",
        load(lambda w: b"") + load(lambda w: b"hello " * 20)),
    ("load a safetensors file of something else", "file", StorageError, "not one of minivae's",
        load(foreign)),
    ("load a file whose end is missing", "file", StorageError, "not a whole safetensors file",
        load(lambda w: w.path.read_bytes()[:-40])),
    ("load a file with a byte that is wrong", "file", StorageError, "checksum", load(flipped)),
    ("load a file of a newer format", "file", StorageError, "has format 2, .* update minivae",
        load(lambda w: w.path.read_bytes().replace(b'format\\": 1', b'format\\": 2'))),
    ("load a file whose arrays are those of another architecture", "file", StorageError,
        r"encoder.mu.weight is .* expected float32 \(4, 3\)", load(other_architecture)),

    ("fit or partial_fit in two threads at once, of one estimator", "fit|model|estimator",
        RuntimeError, "another thread", call(lambda w: in_the_midst(w, lambda m: m.fit(X)),
        lambda w: in_the_midst(w, lambda m: m.partial_fit(X)))),

    ("a command that is unknown", "COMMAND", CommandError, "2 .*'tarin'.*'train'",
        command("tarin")),
    ("an option that is unknown, or cut short", "--lat", CommandError, "2 .*unrecognized arg",
        command(NEW + "--latentdim 2") + command(NEW + "--latent 2")),
    ("a DATA file that is not there", "no.csv", CommandError, "2 .*there is no file",
        command("train no.csv --out new")),
    ("a csv file with text among the numbers", "t.csv", CommandError, "2 .*line 3, column 2: .*'b'",
        data("t.csv", b"x,y\n0,1\n1,b\n")),
    ("a csv file with rows of different lengths", "t.csv", CommandError, "2 .*line 3 has 1 cells",
        data("t.csv", b"x,y\n0,1\n1\n")),
    ("a csv file with numbers too large", "t.csv", CommandError, "2 .*too large",
        data("t.csv", b"0,1\n1,1e300\n1,1\n")),
    ("a csv file of one row", "t.csv", CommandError, "2 .*at least 2 rows",
        data("t.csv", b"0,1\n")),
    ("a damaged npz file", "t.npz", CommandError, "2 .*damaged",
        data("t.npz", b"PK\3\4" + b"x" * 99)),
    ("--image-shape that does not fit the data", "image.shape", CommandError, "2 .*= 5.*(2, 3)",
        command(NEW + "--image-shape 2x3")),
    ("--seed of 2**63 or more", "--seed", CommandError, "2 .*expected a whole number",
        command(NEW + f"--seed {2**63}")),
    ("--out: a folder that is not empty", "--out", CommandError, "2 .*is not empty",
        command("train X.npy --out {run}")),
    ("--out: a folder below a file", "--out", CommandError, "2 .*X.npy",
        command("train X.npy --out X.npy/new")),
    ("--resume with another value of an option", "--hidden", CommandError,
        r"2 .*--latent-dim was 2, and is now 3; --hidden was \(3,\), and is now \(4,\)",
        command("train X.npy --out {run} --resume --latent-dim 3 --hidden 4")),
    ("--resume together with --overwrite", "--overwrite", CommandError, "2 .*--resume",
        command("train X.npy --out {run} --resume --overwrite")),
    ("minivae train in a folder where another one is at work", "--out", CommandError,
        "2 .*another minivae train is at work", [
        lambda w: (command("")[0](w), partial(in_use, w))[1]]),
    ("minivae train in a folder that another one fills in the meantime", "--out", CommandError,
        "2 .*is not empty", [
        lambda w: (command("")[0](w), partial(filled_meanwhile, w))[1]]),
]
TAKEN = {  # what is given: function of a World that gives what was found, and what is right
    "whole numbers": as_clean(BITS.astype(int), BITS),
    "truth values": as_clean(BITS.astype(bool), BITS),
    "float16, float64, longdouble": as_clean(X.astype("g"), X.astype("f2").astype("f8")),
    "float64 that float32 cannot hold": as_clean(
        X.astype("f8") / 3, (X.astype("f8") / 3).astype("f4")),
    "text and bytes that are numbers": as_clean(X.astype(str), X.astype("S12")),
    "objects that are numbers": as_clean(X.astype(object), X),
    "lists of lists": as_clean(X.tolist(), X),
    "columns that are constant, or zero": stays_finite(BITS * [1, 1, 1, 0, 0]),
    "zeros only": stays_finite(np.zeros_like(X)),
    "denormal numbers": as_clean(
        np.full((9, 5), 1e-42, "f4"), np.zeros((9, 5)), activation="tanh"),
    "one row": stays_finite(X[:1]),
    "one column": stays_finite(X[:, :1]),
    "fewer rows than batch_size": same(lambda w: vae(batch_size=10**9).fit(X), batch_size=24),
    "Fortran order": as_clean(np.asfortranarray(X), X),
    "every second row and column": as_clean(np.repeat(np.repeat(X, 2, 0), 2, 1)[::2, ::2], X),
    "rows and columns backwards": as_clean(X[::-1, ::-1].copy()[::-1, ::-1], X),
    "the other byte order": as_clean(X.astype(X.dtype.newbyteorder()), X),
    "an array that is read-only": as_clean(np.broadcast_to(X[0], (9, 5)), np.tile(X[0], (9, 1))),
    "a memory map of a read-only file": as_clean(mapped(X), X),
    "a memory map of uint8": as_clean(mapped(BITS.astype("u1")), BITS),
    "a part of a memory map": as_clean(lambda w: mapped(X)(w)[4:20:3, ::-1], X[4:20:3, ::-1]),
    "a copy of a memory map": as_clean(lambda w: mapped(X)(w).copy(), X),
    "a masked array without masked entries": as_clean(np.ma.masked_array(X), X),
    "a sparse matrix, csr": as_clean(sparse.csr_matrix(X), X),
    "a sparse matrix, csc": as_clean(sparse.csc_array(X), X),
    "a sparse matrix, coo, with an entry in two parts": as_clean(SPARSE, X),
    "a data frame": as_clean(frame(), X),
    "a data frame of objects or categories that are numbers": as_clean(
        frame(lambda df: df.astype(object).astype({"b": "category"})), X),
    "a data frame of nullable numbers": as_clean(frame(dtype="Float32"), X),
    "an array, after a data frame": with_names_missing,
    "labels as y, even of another length": same(lambda w: vae().fit(X, np.arange(3))),
    "random_state: from 2**32 to 2**63 - 1": lambda w: (
        w.model.set_params(random_state=2**63 - 1).fit(X).seed_, 2**63 - 1),
    "n_threads: more than there are rows": same(
        lambda w: vae(device="cpu", n_threads=1000).fit(X), device="cpu", n_threads=1),
    "another architecture after fit, then transform": reshaped_after_fit,
    "a path as bytes": same(saved_as_bytes),
    "a clone of a fitted estimator": same(lambda w: clone(w.model).fit(X)),
    "a copy of a fitted estimator": same(lambda w: copy.deepcopy(w.model)),
    "a pickle of a fitted estimator": same(lambda w: pickle.loads(pickle.dumps(w.model))),
    "two threads that fit an estimator each": at_once,
    "checkpoints: a folder that is not there": same(
        lambda w: vae().fit(X, checkpoints=w.scratch / "new" / "run")),
    "two processes that save to one file, and one that loads it": script(WRITERS, "['model']"),
    "a process that forks after training with threads": script(FORK, "0"),
    "no home folder": script(PRINT, trained_here),
    "a folder for compiled code that is read-only": compiled_without(
        "save", PermissionError(13, "Permission denied")),
    "no folder for compiled code": compiled_without("folder", None),
}
# fmt: on


@pytest.fixture
def worlds(tmp_path, monkeypatch):
    """Makes new Worlds. What takes a minute hangs."""

    def hangs(*args):
        raise AssertionError("it hangs")

    usual = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield lambda name: World(tmp_path / name, monkeypatch)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry[0])
def test_refused(entry, worlds, monkeypatch):
    _, argument, error, words, ways = entry
    for i, way in enumerate(ways):
        world = worlds(str(i))
        attempt = way(world)
        before = world.everything()
        with pytest.raises(error, match=f"(?s){words}") as caught:
            attempt()
        assert re.search(rf"(?<![\w.])({argument})", str(caught.value)), "which input?"
        assert world.everything() == before
        monkeypatch.undo()


@pytest.mark.parametrize("kind", TAKEN)
def test_taken(kind, worlds):
    found, expected = TAKEN[kind](worlds("w"))
    np.testing.assert_array_equal(found, expected)


def test_the_page_has_every_kind_and_what_happens():
    rows = re.findall(
        r"^\| (.+?) \| (Taken|Refused)\b.* \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    table = [(entry[0], "Refused") for entry in REFUSED] + [(kind, "Taken") for kind in TAKEN]
    assert sorted(rows) == sorted(table)
    assert len(set(rows)) == len(rows) >= 55
