"""Kills `minivae train` at random moments and has it go on, again and again.

    python tests/support/killer.py FOLDER FAMILY KILLS [SEED]

Runs are forks of this process, so that they start at once. They look at the clock after every step
and store themselves every time, so that many kills fall into a write. A run that comes to its end
must have left the same bytes in every file as one that was never killed. Prints JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from families import SMALL
from shell import options_of

import minivae
from minivae import StorageError, models
from minivae.app import cli, pictures
from minivae.engine import threads
from minivae.training import checkpoints


def start(words):
    """Process number of a fork that runs the command; what it says goes to run.log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # BLAS has threads; none of them works
        process = os.fork()
    if process:
        return process
    code = 1
    try:
        log = os.open("run.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = cli.main(words)
    finally:
        os._exit(code)


def ended(process):
    """Exit code of a process that has ended, else None."""
    found, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def unreadable(folder):
    """Files under their final names that are not whole."""
    for name, content in files(folder).items():
        try:
            if name.endswith(".safetensors"):
                minivae.load(folder / name)
            elif name == "history.json":
                json.loads(content)
            elif name.endswith(".png"):
                assert content.endswith(b"IEND\xaeB`\x82")
        except (StorageError, ValueError, AssertionError):
            yield name


def main(family, kills, seed):
    if kills < 50:  # to draw takes longer than to train, and most of few kills would fall there
        pictures.of = lambda *words: []
    checkpoints.SECONDS = checkpoints.SHARE = threads.CHUNK_SECONDS = 0.0
    draw = random.Random(seed)
    X = (np.random.default_rng(seed).random((200, 5)) > 0.6).astype("f4")
    np.save("data.npy", X)
    model = models.find(family)(**SMALL[family], epochs=1, n_threads=2).fit(X)  # compiles
    model.held_out_score(X)
    words = ["train", "data.npy", *options_of(family, epochs=4, batch_size=16, n_threads=2)]
    words += ["--seed", "3", "--quiet", "--resume", "--out"]

    expected, out, begin = Path("expected"), Path("run"), time.monotonic()
    assert os.waitpid(start([*words, str(expected)]), 0)[1] == 0
    duration, whole = time.monotonic() - begin, files(expected)
    counts = dict(kills=0, complete=0, mismatches=0, unreadable=0, litter_after_start=0, failed=0)
    while counts["kills"] < kills or out.exists():
        process = start([*words, str(out)])
        # Half of the kills fall into the training, the other half anywhere, any pictures included.
        last = draw.choice([0.3, 1.1]) * duration if counts["kills"] < kills else np.inf
        moment = time.monotonic() + draw.uniform(0, last)
        while (code := ended(process)) is None and time.monotonic() < moment:
            time.sleep(1e-3)
        if code is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            counts["kills"] += 1
            counts["unreadable"] += len(list(unreadable(out))) if out.exists() else 0
            continue
        counts["complete"] += 1
        counts["failed"] += code != 0
        counts["litter_after_start"] += len(files(out).keys() - whole.keys())
        counts["mismatches"] += files(out) != whole
        shutil.rmtree(out)
    print(json.dumps(counts))


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
