"""A second process that compiles what evaluation needs, while the first one compiles training.

Numba compiles on one processor, and a first run waits for it longer than for anything else. What
is compiled here goes to the cache that both processes share. With everything in the cache already,
there is no second process.
"""

import contextlib
import json
import subprocess
import sys

import numpy as np

from minivae.engine.machine import is_compiled, machine
from minivae.files.document import tuples
from minivae.models import find


@contextlib.contextmanager
def compiling_beside(model, n_features):
    """Within the block, the second process is at work, if there is something to compile."""
    process = started(model, n_features)
    try:
        yield
    finally:
        if process:
            process.terminate()
            process.wait()


def started(model, n_features):
    """The second process, or None where there is no need for one or none to be had."""
    if model.device != "cpu" or model.takes_tables:
        return None
    if is_compiled(machine(model.program, "cpu", model.matmul_precision)):
        return None
    what = {"model": model.program.NAME, "settings": model.get_params(), "n_features": n_features}
    words, nothing = [sys.executable, "-m", __name__, json.dumps(what)], subprocess.DEVNULL
    try:
        return subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing)
    except OSError:  # this process can do it all, later
        return None


def compile_evaluation(what):
    """Call, on three rows of zeros, what a run calls once it has trained."""
    settings = {name: tuples(value) for name, value in what["settings"].items()}
    model, D = find(what["model"])(**settings), what["n_features"]
    X = np.zeros((3, D), model.dtype)
    model.check_data(X)
    model.become(*model.new_state(D))
    model.n_features_in_ = D
    model.held_out_score(X)
    model.sample(3)
    if hasattr(model, "transform"):
        model.inverse_transform(model.transform(X))


if __name__ == "__main__":
    compile_evaluation(json.loads(sys.argv[1]))
