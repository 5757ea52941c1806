"""What `test_bad_input.py` works with: a World of a fitted model and files, and the ways to give it
input. A way prepares things in a World and returns the call that is to be refused; what is taken
is a function of a World that returns what was found and what is right.
"""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from numba.core import caching
from safetensors.numpy import save_file

from minivae import (
    VAE,
    backend,
    checkpoints,
    cli,
    commands,
    datasets,
    interrupts,
    runs,
    storage,
    training,
)
from minivae.kernels import native

RNG = np.random.default_rng(0)
X = (RNG.integers(0, 257, (24, 5)) / 256).astype("f4")  # exact in every float dtype
BITS = (X > 0.5).astype("f4")
NORMAL = RNG.normal(size=(24, 5)).astype("f4")
NAMES = list("abcde")


def vae(**settings):
    return VAE(**{**dict(hidden_layer_sizes=(4,), epochs=2, batch_size=8, device="reference",
                         random_state=0), **settings})  # fmt: skip


def learned(model):
    """All of a model but its settings."""
    settings = model.get_params()
    return pickle.dumps({k: v for k, v in vars(model).items() if k not in settings})


class World:
    """What an entry works on: a fitted model, its file in a folder, a folder for other things."""

    def __init__(self, tmp_path, monkeypatch):
        self.patch, self.folder, self.scratch = monkeypatch, tmp_path / "kept", tmp_path / "scratch"
        self.folder.mkdir(parents=True)
        self.scratch.mkdir()
        self.model, self.path = vae().fit(X), self.folder / "model.safetensors"
        self.model.save(self.path)

    def everything(self):
        """The model, and every file and link in the folder."""
        paths = sorted(self.folder.rglob("*"))
        links = [(p, os.readlink(p)) for p in paths if p.is_symlink()]
        files = [(p, p.read_bytes()) for p in paths if p.is_file()]
        return learned(self.model), [(p, p.lstat().st_mode) for p in paths], links, files


def values(model, X):
    """What a model has learned, and what it says of X."""
    parameters = [view.ravel() for view in model.parameters_.values()]
    return np.concatenate([*parameters, model.transform(X).ravel(), model.elbo(X)])


# --- ways to give input ---------------------------------------------------------------------------


def give(make, settings=None, names=("fit", "partial_fit", "transform", "X_valid")):
    """As X to a fitted model, and as X_valid. make: the value, or what makes it in a World."""

    def way(name, w):
        w.model.set_params(**settings or {}).fit(X)
        value = make(w) if callable(make) else make
        if name == "X_valid":
            return partial(w.model.fit, X, X_valid=value)
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
            backend._cuda.cache_clear()
            with mock.patch("minivae.backend._find", lambda *words: "there is no GPU"):
                return action()

        return act

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
        return partial(VAE.load, path)

    return [way]


def save_at(make):
    """As a path to save to, where make(w, path) has put something."""

    def way(w):
        path = w.folder / "target"
        make(w, path)
        return partial(w.model.save, path)

    return [way]


def data(name, content):
    """As the data that are to be trained on."""
    return command(f"train {name} --out new", name, content)


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


TINY = "--hidden 3 --epochs 1 --batch-size 8 --device reference --quiet".split()


def command(words, name=None, content=b""):
    """As words of a command, and a file of that name and content."""

    def way(w):
        w.patch.setattr(commands, "pictures", lambda *args: [])
        w.patch.chdir(w.scratch)
        np.save("X.npy", X)
        run("train", "X.npy", "--out", w.folder / "run", *TINY)
        if name:
            Path(name).write_bytes(content)
        return partial(run, *words.format(run=w.folder / "run").split(), *["--quiet"] * bool(words))

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


def with_NA(df):
    df.iloc[3, 1] = None
    return df


def reordered_held_out(w):
    return partial(w.model.fit, good := frame()(w), X_valid=good[NAMES[::-1]])


def diverges(w, X=NORMAL, learning_rate=1e20):
    """One batch an epoch: after m good batches the model is that of m epochs."""
    settings = dict(optimizer="sgd", learning_rate=learning_rate, device="cpu", batch_size=24,
                    likelihood="gaussian", epochs=50)  # fmt: skip
    model, twin = vae(**settings), vae(**settings)
    try:
        model.fit(X)
    finally:
        twin.loss_and_gradients(X)  # gives it its initial parameters
        if m := model._state.steps:
            twin.set_params(epochs=m).fit(X)
        np.testing.assert_array_equal(model._state.theta, twin._state.theta)
        assert np.isfinite(model._state.theta).all()


def checkpoints_at(path, w):
    w.patch.chdir(w.folder)
    return partial(w.model.fit, X, checkpoints=path)


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
    facts = checkpoints.facts_of(w.model)
    facts["settings"]["latent_dim"] = 3
    storage.write(w.scratch / "other", w.model._state.arrays(), facts)
    return (w.scratch / "other").read_bytes()


def foreign(w):
    save_file({"weight": X}, w.scratch / "foreign")
    return (w.scratch / "foreign").read_bytes()


def flipped(w):
    whole = bytearray(w.path.read_bytes())
    whole[-40] ^= 1
    return bytes(whole)


def load_pipe(w):
    os.mkfifo(w.folder / "pipe")
    return partial(VAE.load, w.folder / "pipe")


def in_the_midst(w, do):
    """do(model) in another thread while the model is in its first epoch."""
    model, alone, met, train_chunk = vae(), vae().fit(X), [], training.train_chunk

    def other():
        try:
            do(model)
        except Exception as error:
            met.append(error)

    def chunk(*args):
        if threading.current_thread() is threading.main_thread() and model._state.steps == 2:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        train_chunk(*args)

    w.patch.setattr(interrupts, "CHUNK_SECONDS", 0.0)  # a look around after every step
    w.patch.setattr(training, "train_chunk", chunk)
    model.fit(X)
    np.testing.assert_array_equal(values(model, X), values(alone, X))
    assert model._state.epochs == 2
    raise met[0] if met else AssertionError("both trained")


def in_use(w):
    """`train` in a folder where another one is at work."""
    with runs.alone_in(w.folder / "run"):
        run("train", "X.npy", "--out", w.folder / "run", "--overwrite", *TINY)


def filled_meanwhile(w):
    """Another `train` begins and ends in the folder while this one still reads its data."""
    out, read, left = w.scratch / "new", datasets.load, {}

    def slow(*args):
        w.patch.setattr(datasets, "load", read)
        run("train", "X.npy", "--out", out, "--seed", 7, *TINY)
        left.update({path: path.read_bytes() for path in out.iterdir()})
        return read(*args)

    w.patch.setattr(datasets, "load", slow)
    try:
        run("train", "X.npy", "--out", out, *TINY)
    finally:
        assert left == {path: path.read_bytes() for path in out.iterdir()}


# --- what is taken --------------------------------------------------------------------------------


def as_clean(make, clean, **settings):
    """As X, what make gives is the array clean."""

    def do(w):
        value = make(w) if callable(make) else make
        models = [vae(**settings).fit(value), vae(**settings).fit(clean)]
        return values(models[0], value), values(models[1], clean)

    return do


def stays_finite(X, **settings):
    def do(w):
        model = vae(**settings).fit(X)
        found = [*model.history_["loss"], *model.score_samples(np.round(X), 2), *values(model, X)]
        return np.isfinite(found), np.ones(len(found), bool)

    return do


def same(function, **settings):
    """What function(w) trains or finds is what a plain fit to X does."""
    return lambda w: (values(function(w), X), values(vae(**settings).fit(X), X))


def with_names_missing(w):
    df = frame()(w)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        return w.model.transform(X), w.model.transform(df)


def reshaped_after_fit(w):
    before = w.model.transform(X)
    return w.model.set_params(latent_dim=3, hidden_layer_sizes=(9, 9)).transform(X), before


def saved_as_bytes(w):
    w.model.save(os.fsencode(w.scratch / "model"))
    return VAE.load(os.fsencode(w.scratch / "model"))


def at_once(w):
    """Two threads, each with an estimator of its own."""
    models = [vae(device="cpu", n_threads=2, random_state=seed) for seed in (0, 1)]
    threads = [threading.Thread(target=model.fit, args=(X,)) for model in models]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    alone = [vae(device="cpu", random_state=seed).fit(X) for seed in (0, 1)]
    return tuple(np.stack([values(m, X) for m in pair]) for pair in (models, alone))


START = """
import os, numpy as np
from pathlib import Path
from unittest import mock
from minivae import VAE
X = np.eye(16, dtype="f4")
def fit(seed=0):
    return VAE(hidden_layer_sizes=(8,), n_threads=2, epochs=2, batch_size=8,
               random_state=seed).fit(X)
def bits(model):
    return model._state.theta.tobytes()
"""
PRINT = "print(bits(fit()).hex())"
FORK = """
expected, child = bits(fit()), os.fork()
if child == 0:
    os._exit(bits(fit()) != expected)
print(os.waitpid(child, 0)[1])
"""
WRITERS = """
models, whole, children = [fit(0), fit(1)], [], []
for model in models:
    model.save("model")
    whole.append(Path("model").read_bytes())
for model in models:
    children.append(os.fork())
    if children[-1] == 0:
        for _ in range(50):
            model.save("model")
        os._exit(0)
while children:
    assert Path("model").read_bytes() in whole and bits(VAE.load("model")) in map(bits, models)
    children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
print(os.listdir())
"""


def script(code, expected, **environment):
    """What another process prints."""

    def do(w):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", START + code], cwd=w.scratch, timeout=50,
            env={"PATH": "", **environment}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.strip(), expected() if callable(expected) else expected

    return do


def trained_here():
    eye = np.eye(16, dtype="f4")
    settings = dict(hidden_layer_sizes=(8,), epochs=2, batch_size=8, random_state=0)
    return VAE(**settings).fit(eye)._state.theta.tobytes().hex()


def compiled_without(name, error):
    """A function compiled where the cache raises this."""

    def do(w):
        def fail(*args, **kwargs):
            raise error

        scope = {}
        exec(compile("def double(x): return 2 * x", __file__, "exec"), scope)
        if name == "folder":
            w.patch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
        compiled = native.compiled(scope["double"])
        if name == "save":
            w.patch.setattr(type(compiled._cache._cache_file), "save", fail)
        return compiled(21), 42

    return do
