"""How a command ends where its surroundings are odd: one line or nothing, and the right code."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from shell import TINY, assert_picture, call, contents, process

from minivae.app import runs

posix = pytest.mark.skipif(os.name != "posix", reason="file descriptors of POSIX")
TABLE = ["--latent-dim", 3, "--likelihood", "gaussian", *TINY]


def arrays(folder):
    return {name: text for name, text in contents(folder).items() if name.endswith("safetensors")}


def data_of(run):
    return json.loads((run / runs.HISTORY).read_text())["data"]


# --- streams ------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(closed, images, table, tmp_path):
    """Where all three are, a file that is opened gets the number of one, and could get its text."""
    commands = [
        ["train", data_of(table), "--out", "run", *TABLE],
        ["info", "run"],
        ["score", images, "--n-samples", 2],
        ["sample", images, "-n", 1, "--out", "one.png"],
        ["--help"],
        ["trian"],
    ]
    codes, code, out, err = process(tmp_path, commands, closed)
    assert (codes, code) == ([0, 0, 0, 0, 0, 2], 2)
    assert arrays(tmp_path / "run") == arrays(table)
    assert_picture(tmp_path / "one.png")
    if ">&-" in closed.split():
        assert out == ""
    else:
        for words in "held-out ELBO", "vae of 4 features", "log-likelihood", "one.png: 1 sample":
            assert words in out
        assert "usage: minivae" in out
    if "2>&-" in closed.split():
        assert err == ""
    else:
        notes = ["rows to train on", "next, try", "cross-entropy", "did you mean train?"]
        for words, line in zip(notes, err.splitlines(), strict=True):
            assert words in line


@posix
def test_a_reader_who_has_gone_is_no_error(images):
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "minivae", "info", images]
    run = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_results_for_which_there_is_no_room_end_with_one_line(images, tmp_path):
    codes, code, out, err = process(tmp_path, [["info", images]], "> /dev/full")
    assert (codes, code, out, err.count("\n")) == ([1], 1, "", 1)
    assert err.startswith("minivae: error: ") and "No space left" in err


@posix
def test_letters_that_a_stream_does_not_have_are_written_in_another_way(images, tmp_path):
    folder = tmp_path / "dé ☃"
    folder.mkdir()
    shutil.copy(data_of(images), folder / "ä.npz")
    commands = [["train", "ä.npz", "--out", "dé ☃", *TINY], ["info", "dé ☃/ö"]]
    codes, _, out, err = process(folder, commands, PYTHONIOENCODING="ascii")
    assert codes == [0, 2] and out.isascii() and err.isascii()
    assert "are in d\\xe9 \\u2603\n" in out and "\\xe4.npz: 18 rows to train on" in err
    assert "minivae train --resume --out d\\xe9 \\u2603, or use" in err.splitlines()[-1]
    assert arrays(folder / "dé ☃") == arrays(images)


@posix
def test_a_folder_may_have_any_bytes_for_a_name(images, tmp_path, capsys, no_pictures):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    code, out, _ = call(capsys, "train", data_of(images), "--out", folder, *TINY)
    assert code == 0 and "/\\udcff\n" in out
    assert call(capsys, "score", folder, "--n-samples", 1)[0] == 0


def test_a_message_is_one_line_and_its_words_are_as_they_were(capsys):
    code, out, err = call(capsys, "info", "a\nb  c\u2028d")
    assert (code, out) == (2, "")
    assert err == "minivae: error: DIR: there is no a b  c d; minivae train --out DIR makes one\n"
    for words in ["info", "x", "--a\r\nb"], ["x\ny"], ["score", "x", "--n-samples", "a\nb"]:
        code, out, err = call(capsys, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)


# --- machines -----------------------------------------------------------------------------------


def test_a_compiler_that_is_switched_off_is_said_before_anything_is_done(images, tmp_path):
    train = ["train", data_of(images), "--quiet", "--out"]
    commands = [[*train, "cpu"], [*train, "reference", *TINY]]
    codes, _, _, err = process(tmp_path, commands, NUMBA_DISABLE_JIT="1")
    assert codes == [1, 0] and err.count("\n") == 1
    assert "NUMBA_DISABLE_JIT" in err and "--device reference" in err
    assert not (tmp_path / "cpu").exists()
    assert arrays(tmp_path / "reference") == arrays(images)


def test_cupy_without_a_device_does_not_disturb_the_cpu(files, tmp_path):
    (tmp_path / "cupy.py").write_text(
        "class ndarray:\n    pass\n\n"
        "def is_available():\n    return False\n\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n        raise AttributeError(name)\n"
        "    raise RuntimeError('cudaErrorNoDevice: no CUDA-capable device is detected')\n"
    )  # where -c looks first for cupy
    train = ["train", files / "images.npz", "--hidden", 3, "--epochs", 2, "--out", "run"]
    uses = [[use, "run"] for use in ("sample", "encode", "score")]
    codes, _, _, err = process(tmp_path, [[*train, "--device", "auto"], *uses])
    assert codes == [0, 0, 0, 0], err
