"""What is taken, for `test_bad_input.py`: functions of a World that return what was found, and what
is right.
"""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from families import of_rows
from numba.core import caching
from scipy import sparse
from sklearn.base import clone
from tiny import tiny
from worlds import BITS, X, frame, mapped, values

import minivae
from minivae.kernels.support import native


def as_clean(make, clean, **settings):
    """As X, what make gives is the array clean."""

    def do(w):
        value = make(w) if callable(make) else make
        models = [w.new(**settings).fit(value), w.new(**settings).fit(clean)]
        return values(models[0], value), values(models[1], clean)

    return do


def stays_finite(X, **settings):
    def do(w):
        model = w.new(**settings).fit(X)
        found = [*model.history_["loss"], *of_rows(model, np.round(X)), *values(model, X)]
        return np.isfinite(found), np.ones(len(found), bool)

    return do


def same(function, **settings):
    """What function(w) trains or finds is what a plain fit to X does."""
    return lambda w: (values(function(w), X), values(w.new(**settings).fit(X), X))


def with_names_missing(w):
    df = frame()(w)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        return w.model.loss_and_gradients(X)[0], w.model.loss_and_gradients(df)[0]


def reshaped_after_fit(w):
    bits = np.round(X)
    before = of_rows(w.model, bits)
    return of_rows(w.reshaped(), bits), before


def saved_as_bytes(w):
    w.model.save(os.fsencode(w.scratch / "model"))
    return minivae.load(os.fsencode(w.scratch / "model"))


def at_once(w):
    """Two threads, each with an estimator of its own."""
    models = [w.new(device="cpu", n_threads=2, random_state=seed) for seed in (0, 1)]
    threads = [threading.Thread(target=model.fit, args=(X,)) for model in models]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    alone = [w.new(device="cpu", random_state=seed).fit(X) for seed in (0, 1)]
    return tuple(np.stack([values(m, X) for m in pair]) for pair in (models, alone))


START = """
import os, sys, numpy as np
from pathlib import Path
import minivae
from tiny import tiny
X = np.eye(16, dtype="f4")
def fit(seed=0, device="cpu"):
    return tiny(sys.argv[1], device=device, n_threads=2, random_state=seed).fit(X)
def bits(model):
    return model.state_.theta.tobytes()
"""
PRINT = "print(bits(fit()).hex())"
FORK = """
expected, child = bits(fit()), os.fork()
if child == 0:
    os._exit(bits(fit()) != expected)
print(os.waitpid(child, 0)[1])
"""
WRITERS = """
models, whole, children = [fit(seed, "reference") for seed in (0, 1)], [], []
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
    assert Path("model").read_bytes() in whole and bits(minivae.load("model")) in map(bits, models)
    children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
print(os.listdir())
"""


# Where this process keeps what it compiles, if somebody has said where.
COMPILED = {name: os.environ[name] for name in ["NUMBA_CACHE_DIR"] if name in os.environ}


def script(code, expected, **environment):
    """What another process prints."""

    def do(w):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", START + code, w.family],
            env={"PATH": "", "PYTHONPATH": os.path.dirname(__file__), **COMPILED, **environment},
            cwd=w.scratch, timeout=500, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.strip(), expected(w) if callable(expected) else expected

    return do


def trained_here(w):
    return tiny(w.family, device="cpu").fit(np.eye(16, dtype="f4")).state_.theta.tobytes().hex()


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


# fmt: off
SPARSE = sparse.coo_array((np.r_[0.25, X.ravel() - np.r_[0.25, [0] * 119]], (
    np.r_[0, np.repeat(range(24), 5)], np.r_[0, np.tile(range(5), 24)])), shape=X.shape)
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
    # A relu is flat at 0 and not beside it: so tanh, or where that cannot be set, what is 0 indeed.
    "denormal numbers": lambda w: as_clean(
        np.full((9, 5), 1e-42, "f4"), np.zeros((9, 5)),
        **(dict(activation="tanh") if hasattr(w.model, "activation")
           else dict(binarize="threshold")))(w),
    "one row": stays_finite(X[:1]),
    "one column": stays_finite(X[:, :1]),
    "fewer rows than batch_size": same(lambda w: w.new(batch_size=10**9).fit(X), batch_size=24),
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
    "a sparse matrix, csr, with an entry in parts whose sum is inside [0, 1]": as_clean(
        sparse.csr_array((np.float32([2, -1.5]), [0, 0], [0, 2] + [2] * 23), shape=(24, 5)),
        np.eye(24, 5, dtype="f4") * [0.5, 0, 0, 0, 0]),
    "a data frame": as_clean(frame(), X),
    "a data frame without names, that is with 0, 1, 2, ...": as_clean(
        frame(lambda df: df.set_axis(range(5), axis=1)), X),
    "a data frame of objects or categories that are numbers": as_clean(
        frame(lambda df: df.astype(object).astype({"b": "category"})), X),
    "a data frame of nullable numbers": as_clean(frame(dtype="Float32"), X),
    "an array, after a data frame": with_names_missing,
    "labels as y, even of another length": same(lambda w: w.new().fit(X, np.arange(3))),
    "random_state: from 2**32 to 2**63 - 1": lambda w: (
        w.model.set_params(random_state=2**63 - 1).fit(X).seed_, 2**63 - 1),
    "settings: NumPy's numbers, such as np.int8": same(
        lambda w: w.new(epochs=np.int8(9), learning_rate=np.float64(1 / 128)).fit(X),
        epochs=9, learning_rate=1 / 128),
    "n_threads: more than there are rows": same(
        lambda w: w.new(device="cpu", n_threads=1000).fit(X), device="cpu", n_threads=1),
    "another architecture after fit, then score_samples": reshaped_after_fit,
    "a path as bytes": same(saved_as_bytes),
    "a clone of a fitted estimator": same(lambda w: clone(w.model).fit(X)),
    "a copy of a fitted estimator": same(lambda w: copy.deepcopy(w.model)),
    "a pickle of a fitted estimator": same(lambda w: pickle.loads(pickle.dumps(w.model))),
    "two threads that fit an estimator each": at_once,
    "checkpoints: a folder that is not there": same(
        lambda w: w.new().fit(X, checkpoints=w.scratch / "new" / "run")),
    "two processes that save to one file, and one that loads it": script(WRITERS, "['model']"),
    "a process that forks after training with threads": script(FORK, "0"),
    "no home folder": script(PRINT, trained_here),
    "a folder for compiled code that is read-only": compiled_without(
        "save", PermissionError(13, "Permission denied")),
    "no folder for compiled code": compiled_without("folder", None),
}
# fmt: on
