"""What `test_bad_input.py` works with: a World of a fitted model and files, and the ways to give it
input. A way prepares things in a World and returns the call that is to be refused.
"""

import contextlib
import io
import os
import pickle
import threading
from functools import partial
from pathlib import Path
from unittest import mock

import numba
import numpy as np
import pytest
from families import SCHEMA, table
from safetensors.numpy import save_file
from shell import options_of
from tiny import reshaped, tiny

import minivae
from minivae import datasets, models
from minivae.app import cli, pictures, runs
from minivae.engine import machine, threads
from minivae.files import document, storage
from minivae.training import loop

RNG = np.random.default_rng(0)
X = (RNG.integers(0, 257, (24, 5)) / 256).astype("f4")  # exact in every float dtype
BITS = (X > 0.5).astype("f4")
NORMAL = RNG.normal(size=(24, 5)).astype("f4")
NAMES = list("abcde")


def learned(model):
    """All of a model but its settings."""
    settings = model.get_params()
    return pickle.dumps({k: v for k, v in vars(model).items() if k not in settings})


class World:
    """What an entry works on: a fitted model, its file in a folder, a folder for other things."""

    def __init__(self, family, tmp_path, monkeypatch):
        self.family, self.patch = family, monkeypatch
        self.folder, self.scratch = tmp_path / "kept", tmp_path / "scratch"
        self.folder.mkdir(parents=True)
        self.scratch.mkdir()
        self.model, self.path = self.new().fit(X), self.folder / "model.safetensors"
        self.model.save(self.path)

    def new(self, **settings):
        """An estimator of the family, with those of the settings that it has."""
        table = models.find(self.family).SETTINGS
        return tiny(self.family, **{n: value for n, value in settings.items() if n in table})

    def reshaped(self):
        return self.model.set_params(**reshaped(self.family))

    def everything(self):
        """The model, and every file and link in the folder."""
        paths = sorted(self.folder.rglob("*"))
        links = [(p, os.readlink(p)) for p in paths if p.is_symlink()]
        files = [(p, p.read_bytes()) for p in paths if p.is_file()]
        return learned(self.model), [(p, p.lstat().st_mode) for p in paths], links, files


def values(model, X):
    """What a model has learned, and what it says of X."""
    found = [view.ravel() for view in model.parameters_.values()]
    found += [model.sample(3, random_state=0).ravel(), [model.loss_and_gradients(X)[0]]]
    if hasattr(model, "transform"):
        found.append(model.transform(X).ravel())
    if hasattr(model, "elbo"):
        found.append(model.elbo(X))
    return np.concatenate(found)


# --- ways to give input ---------------------------------------------------------------------------


def give(make, settings=None, names=("fit", "partial_fit", "use", "X_valid")):
    """As X to a fitted model, and as X_valid. make: the value, or what makes it in a World."""

    def way(name, w):
        w.model = w.new(**settings or {}).fit(X)
        value = make(w) if callable(make) else make
        if name == "X_valid":
            return partial(w.model.fit, X, X_valid=value)
        if name == "use":
            scored = "score_samples" if w.model.score_kind else "loss_and_gradients"
            name = "transform" if hasattr(w.model, "transform") else scored
        return partial(getattr(w.model, name), value)

    return [partial(way, name) for name in names]


def use(names=("fit", "partial_fit"), **settings):
    """As settings, for a fitted model."""
    return [lambda w, n=n: partial(getattr(w.model.set_params(**settings), n), X) for n in names]


def no_gpu(ways):
    """As where no GPU works."""

    def without(w, way):
        action = way(w)

        def act():
            with mock.patch.object(machine, "_find", lambda *words: "there is no GPU"):
                return action()

        return act

    return [partial(without, way=way) for way in ways]


def no_compiler(ways):
    """As where NUMBA_DISABLE_JIT is set."""

    def without(w, way):
        w.patch.setattr(numba.config, "DISABLE_JIT", True)
        return way(w)

    return [partial(without, way=way) for way in ways]


def each(name, *bad):
    """Each of them as one setting."""
    return [way for value in bad for way in use(**{name: value})]


def call(*functions):
    """As arguments of the functions, which take a World."""
    return [lambda w, do=do: partial(do, w) for do in functions]


def load(damage):
    """As a file to load: the bytes that damage(w) makes."""

    def way(w):
        path = w.folder / "file"
        path.write_bytes(damage(w))
        return partial(minivae.load, path)

    return [way]


def save_at(make):
    """As a path to save to, where make(w, path) has put something."""

    def way(w):
        path = w.folder / "target"
        make(w, path)
        return partial(w.model.save, path)

    return [way]


def data(name, content, options=""):
    """As the data that are to be trained on."""
    return command(f"train {name} --model {{family}} --out new {options}", name, content)


class CommandError(Exception):
    """What a command said when it failed."""


def run(*words):
    """Run a command; CommandError with exit code and message if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # argparse
            code = stop.code
    if code:
        assert out.getvalue() == "" and err.getvalue().count("\n") == 1  # one line
        raise CommandError(f"{code} {err.getvalue()}")


def train(w, *words):
    """Words of `minivae train` for a small model of the World's family."""
    tiny = options_of(w.family, epochs=1, batch_size=8, device="reference")
    return ["train", *words, *tiny, "--quiet"]


def command(words, name=None, content=b""):
    """As words of a command, and a file of that name and content."""

    def way(w):
        w.patch.setattr(pictures, "of", lambda *args: [])
        w.patch.chdir(w.scratch)
        np.save("X.npy", X)
        run(*train(w, "X.npy", "--out", w.folder / "run"))
        if name:
            Path(name).write_bytes(content)
        said = words.format(run=w.folder / "run", family=w.family).split()
        return partial(run, *said, *["--quiet"] * ("train" in said))

    return [way]


# --- longer entries -------------------------------------------------------------------------------


def mapped(array):
    """What makes a memory map of a read-only file."""

    def make(w):
        np.save(w.scratch / "X.npy", array)
        (w.scratch / "X.npy").chmod(0o444)
        return np.load(w.scratch / "X.npy", mmap_mode="r")

    return make


def frame(change=lambda df: df, **columns):
    """What makes a data frame, after a model was fitted to one that is as it should be."""

    def make(w):
        pd = pytest.importorskip("pandas", reason="pandas is not installed")
        good = pd.DataFrame(X, columns=NAMES)
        w.model.fit(good)
        return change(good.astype(columns.pop("dtype", "f4")).assign(**columns))

    return make


def of_table(change=lambda rows: rows, names=("fit", "partial_fit", "use", "X_valid"), **settings):
    """As X to a model that was fitted to a table, the table with a change: a function, or values
    for some (row, column)."""

    def way(name, w):
        mixed = dict(likelihood="mixed", missing="mask", schema=SCHEMA) | settings
        rows = table(24)
        w.model = w.new(**mixed).fit(rows)
        if callable(change):
            rows = change(rows)
        else:
            for place, value in change.items():
                rows[place] = value
        if name == "X_valid":
            return partial(w.model.fit, table(24), X_valid=rows)
        return partial(getattr(w.model, {"use": "transform"}.get(name, name)), rows)

    return [partial(way, name) for name in names]


def of_named_table(change, names=("partial_fit", "use")):
    """The same with data frames, whose columns are called a, b, ..., g."""

    def way(name, w):
        pd = pytest.importorskip("pandas", reason="pandas is not installed")
        df = pd.DataFrame(table(24), columns=list("abcdefg")).infer_objects()
        w.model = w.new(likelihood="mixed", missing="mask").fit(df)
        return partial(getattr(w.model, {"use": "impute"}.get(name, name)), change(df))

    return [partial(way, name) for name in names]


def of_schema(schema):
    """As the kinds of a table's columns, which a model is to be fitted with."""
    settings = dict(likelihood="mixed", missing="mask", schema=schema)
    return [lambda w: partial(w.model.set_params(**settings).fit, table(24))]


def with_NA(df):
    df.iloc[3, 1] = None
    return df


def reordered_held_out(w):
    return partial(w.model.fit, good := frame()(w), X_valid=good[NAMES[::-1]])


def diverges(w, X=NORMAL, learning_rate=1e20):
    """One batch an epoch: after m good batches the model is that of m epochs."""
    if "likelihood" not in models.find(w.family).SETTINGS:  # logits: gradients are at most 1
        X, learning_rate = BITS, 3e38
    settings = dict(optimizer="sgd", learning_rate=learning_rate, device="cpu", batch_size=24,
                    likelihood="gaussian", epochs=50)  # fmt: skip
    model, twin = w.new(**settings), w.new(**settings)
    try:
        model.fit(X)
    finally:
        twin.loss_and_gradients(X)  # gives it its initial parameters
        if m := model.state_.steps:
            twin.set_params(epochs=m).fit(X)
        np.testing.assert_array_equal(model.state_.theta, twin.state_.theta)
        assert np.isfinite(model.state_.theta).all()


def checkpoints_at(path, w):
    w.patch.chdir(w.folder)
    return partial(w.model.fit, X, checkpoints=path)


def removed_folder(w):
    """Go to a folder that is not there any more."""
    (w.scratch / "removed").mkdir()
    w.patch.chdir(w.scratch / "removed")
    (w.scratch / "removed").rmdir()


def at_the_last_step(w):
    w.model.set_params(epochs=3).state_.steps = 2**32
    return partial(w.model.resume, X)


def full_disk(w):
    def full(*args):
        raise OSError(28, "No space left on device")

    w.patch.setattr(storage.os, "fsync", full)


def save_on_full_disk(w):
    full_disk(w)
    w.model.set_params(learning_rate=0.5).save(w.path)


def fit_on_full_disk(w):
    full_disk(w)
    w.model.set_params(random_state=5).fit(X, checkpoints=w.folder)


def save_without_permission(w):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    w.folder.chmod(0o500)
    try:
        w.model.save(w.path)
    finally:
        w.folder.chmod(0o700)


def other_architecture(w):
    facts = document.facts_of(w.model)
    facts["settings"] |= reshaped(w.family)
    storage.write(w.scratch / "other", w.model.state_.arrays(w.model.layout_), facts)
    return (w.scratch / "other").read_bytes()


def unknown_family(w):
    facts = document.facts_of(w.model) | {"model": "rbn"}
    storage.write(w.scratch / "other", w.model.state_.arrays(w.model.layout_), facts)
    return (w.scratch / "other").read_bytes()


def load_by_another_class(w):
    other = next(name for name in models.MODELS if name != w.family)
    (w.folder / "file").write_bytes(w.path.read_bytes())
    return partial(models.find(other).load, w.folder / "file")


def foreign(w):
    save_file({"weight": X}, w.scratch / "foreign")
    return (w.scratch / "foreign").read_bytes()


def flipped(w):
    whole = bytearray(w.path.read_bytes())
    whole[-40] ^= 1
    return bytes(whole)


def load_pipe(w):
    os.mkfifo(w.folder / "pipe")
    return partial(minivae.load, w.folder / "pipe")


def in_the_midst(w, do):
    """do(model) in another thread while the model is in its first epoch."""
    model, alone, met, train_chunk = w.new(), w.new().fit(X), [], loop.train_chunk

    def other():
        try:
            do(model)
        except Exception as error:
            met.append(error)

    def chunk(*args):
        if threading.current_thread() is threading.main_thread() and model.state_.steps == 2:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        train_chunk(*args)

    w.patch.setattr(threads, "CHUNK_SECONDS", 0.0)  # a look around after every step
    w.patch.setattr(loop, "train_chunk", chunk)
    model.fit(X)
    np.testing.assert_array_equal(values(model, X), values(alone, X))
    assert model.state_.epochs == 2
    raise met[0] if met else AssertionError("both trained")


def in_use(w):
    """`train` in a folder where another one is at work."""
    with runs.alone_in(w.folder / "run"):
        run(*train(w, "X.npy", "--out", w.folder / "run", "--overwrite"))


def filled_meanwhile(w):
    """Another `train` begins and ends in the folder while this one still reads its data."""
    out, read, left = w.scratch / "new", datasets.load, {}

    def slow(*args):
        w.patch.setattr(datasets, "load", read)
        run(*train(w, "X.npy", "--out", out, "--seed", 7))
        left.update({path: path.read_bytes() for path in out.iterdir()})
        return read(*args)

    w.patch.setattr(datasets, "load", slow)
    try:
        run(*train(w, "X.npy", "--out", out))
    finally:
        assert left == {path: path.read_bytes() for path in out.iterdir()}
