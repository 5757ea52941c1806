"""Nothing is lost when a process is killed, a disk is full, or several write and read at once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from shell import options_of
from tiny import FAMILIES, tiny

import minivae
from minivae import StorageError
from minivae.app import cli, pictures, runs
from minivae.files import storage

KILLER = Path(__file__).parents[1] / "support" / "killer.py"
X = np.random.default_rng(0).random((40, 5))
TRAIN = ["--quiet", "--resume", *options_of("vae", epochs=3, batch_size=16, device="reference")]
NO_SPACE = OSError(28, "No space left on device")


class Killed(BaseException):
    """Stands for SIGKILL: nothing that would tidy up comes to run."""


class Operations:
    """Counts what storage asks of the disk, and lets the operation with one number fail.

    A write that fails has written half. After Killed nothing is tidied up any more.
    """

    def __init__(self, monkeypatch):
        self.count, self.failing, self.error = 0, None, None
        for name in ("open", "fsync", "replace", "unlink"):
            monkeypatch.setattr(storage.os, name, self.counted(getattr(os, name)))
        fdopen = os.fdopen
        monkeypatch.setattr(storage.os, "fdopen", lambda *words: Writer(fdopen(*words), self))

    def arm(self, failing, error):
        self.count, self.failing, self.error = 0, failing, error

    def __call__(self):
        self.count += 1
        if self.count == self.failing or (self.error is Killed and self.dead()):
            raise self.error

    def dead(self):
        return self.failing is not None and self.count > self.failing

    def counted(self, operation):
        def call(*words, **options):
            self()
            return operation(*words, **options)

        return call


class Writer:
    def __init__(self, file, operations):
        self.file, self.operations = file, operations

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        try:
            self.operations()
        except BaseException:
            self.file.write(data[: len(data) // 2])
            raise
        self.file.write(data)


@pytest.fixture
def operations(monkeypatch):
    return Operations(monkeypatch)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def litter(folder):
    return [name for name in os.listdir(folder) if name.startswith(".minivae-")]


# --- one write ----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NO_SPACE, KeyboardInterrupt(), Killed], ids=repr)
def test_whatever_operation_of_a_write_fails_the_file_is_the_old_or_the_new_one(
    error, operations, tmp_path
):
    path = tmp_path / "model.safetensors"
    old, new = tiny().fit(X), tiny(latent_dim=3).fit(X)
    whole = []
    for vae in (old, new):
        vae.save(path)
        whole.append(path.read_bytes())
    operations.arm(None, None)
    new.save(path)
    assert operations.count >= 6  # open, write, fsync, replace; open and fsync of the folder
    for failing in range(1, operations.count + 1):
        operations.arm(None, None)
        old.save(path)
        operations.arm(failing, error)
        with pytest.raises((StorageError, KeyboardInterrupt, Killed)):
            new.save(path)
        assert path.read_bytes() in whole, f"operation {failing}"
        if error is not Killed:
            assert litter(tmp_path) == []
        operations.arm(None, None)
        new.save(path)  # the next one tidies up
        assert files(tmp_path) == {path.name: whole[1]}


def test_a_pipe_with_the_name_of_a_temporary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".minivae-0123456789abcdef")
    tiny().fit(X).save(tmp_path / "model")
    assert minivae.load(tmp_path / "model").latent_dim == 2


def test_temporary_files_of_the_living_are_left_alone(tmp_path):
    if not storage.LOCK_EX:
        pytest.skip("no fcntl on this system: a file in use cannot be removed there anyway")
    handle, path = storage._temporary(tmp_path)
    (tmp_path / ".minivae-0123456789abcdef").touch()  # of the dead
    (tmp_path / ".minivae-of-a-user").touch()
    storage.clean(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([os.path.basename(path), ".minivae-of-a-user"])
    os.close(handle)
    storage.clean(tmp_path)
    assert os.listdir(tmp_path) == [".minivae-of-a-user"]


# --- a run --------------------------------------------------------------------------------------


def draw(model, *words):
    """As many pictures as a model of images gets, that are drawn at once."""
    for name in runs.PICTURES[:5]:
        figure = Figure(figsize=(0.5, 0.5))
        figure.text(0, 0, f"{model.state_.theta[0]} {name}")
        yield name, figure


@pytest.fixture
def quick_pictures(monkeypatch):
    monkeypatch.setattr(pictures, "of", draw)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The files of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "x.npy", X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "of", draw)
        assert cli.main(["train", str(folder / "x.npy"), "--out", str(folder / "run"), *TRAIN]) == 0
    return folder / "x.npy", files(folder / "run")


@pytest.mark.parametrize(
    "every", [23, pytest.param(1, marks=pytest.mark.slow)], ids=["every 23rd", "every"]
)
@pytest.mark.parametrize("error", [NO_SPACE, Killed], ids=["full disk", "killed"])
def test_whatever_write_of_a_run_fails_it_goes_on_and_ends_as_if_nothing_had_happened(
    error, every, whole_run, quick_pictures, operations, tmp_path, capsys
):
    data, expected = whole_run
    words = ["train", str(data), "--out", str(tmp_path / "run"), *TRAIN]
    failing, failures = 1, 0
    while True:
        operations.arm(failing, error)
        try:
            code = cli.main(words)
            lines = capsys.readouterr().err.splitlines()
            assert code in (0, 1)
            if code:
                (line,) = lines
                assert line.startswith("minivae: error: ") and "No space left" in line
        except Killed:
            code = 1
        if code == 0:
            break
        failures += 1
        operations.arm(None, None)
        assert cli.main(words) == 0
        assert files(tmp_path / "run") == expected, f"after operation {failing}"
        for path in (tmp_path / "run").iterdir():
            path.unlink()
        failing += every
    assert failures >= 60 / every  # more than ten files, six operations each


@pytest.mark.parametrize(  # interrupted in its own process, every family is in every run of tests
    ("family", "kills"),
    [(family, 10) for family in FAMILIES[:2]]
    + [pytest.param(family, 200, marks=pytest.mark.slow) for family in FAMILIES],
)
def test_killed_at_random_moments_a_run_ends_as_if_nothing_had_happened(family, kills, tmp_path):
    words = [sys.executable, KILLER, tmp_path, family, str(kills)]
    run = subprocess.run(words, capture_output=True, text=True)
    log = (tmp_path / "run.log").read_text()
    assert (run.returncode, run.stderr) == (0, ""), log
    counts = json.loads(run.stdout)
    assert counts.pop("kills") == kills and counts.pop("complete") > 0
    assert set(counts.values()) == {0}, (counts, log)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_a_signal_ends_a_run_with_its_code_and_it_goes_on(
    number, code, device, whole_run, tmp_path, no_pictures
):
    """In a process of its own, as from a shell; training would take minutes."""
    folder = tmp_path / os.fsdecode(b"a \xff")  # a name need not be text
    out = ["--out", folder, "--quiet"]
    words = ["train", whole_run[0], *out, "--epochs", "1000000", "--device", device]
    run = subprocess.Popen([sys.executable, "-m", "minivae", *words], stderr=subprocess.PIPE)
    checkpoint = folder / storage.CHECKPOINT
    while run.poll() is None and not (
        checkpoint.is_file() and minivae.load(checkpoint).history_["seconds"]
    ):
        time.sleep(0.01)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    word = {130: "interrupted", 143: "terminated"}[code]
    line = f"minivae: {word}; go on with: minivae train --resume --out {folder}\n"
    assert (run.returncode, os.fsdecode(err)) == (code, line)
    assert set(files(folder)) == {storage.CHECKPOINT, storage.BEST, runs.HISTORY}
    made = len(minivae.load(checkpoint).history_["loss"])
    assert cli.main(["train", *map(str, out), "--resume", "--epochs", str(made + 1)]) == 0
    assert len(minivae.load(folder / runs.MODEL).history_["loss"]) == made + 1


# --- several at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("times", [10, pytest.param(5_000, marks=pytest.mark.slow)])
def test_two_writers_and_two_readers_never_see_half_a_file(times, tmp_path):
    """Readers in this process, writers in others, all on one file, until both readers have so
    many times seen another model than before."""
    path, stop = tmp_path / "model.safetensors", tmp_path / "stop"
    models = [tiny(latent_dim=n).fit(X) for n in (1, 2)]
    for vae in models:
        vae.save(path)
        (tmp_path / f"{vae.latent_dim}.model").write_bytes(path.read_bytes())
    code = (
        "import os, sys, minivae; vae = minivae.load(sys.argv[1])\n"
        "while not os.path.exists(sys.argv[3]): vae.save(sys.argv[2])\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / f"{n}.model", path, stop],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for n in (1, 2)
    ]  # fmt: skip
    seen, errors = [], []

    def read():
        changes, last = 0, None
        while changes < times and not errors and all(w.poll() is None for w in writers):
            try:
                found = minivae.load(path).latent_dim
            except Exception as error:
                errors.append(error)
            changes, last = changes + (found != last), found
        seen.append(changes)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    stop.touch()
    said = [writer.communicate()[0] for writer in writers]
    assert (errors, said, seen) == ([], ["", ""], [times, times])
    assert litter(tmp_path) == []
