"""How a command ends where its surroundings are odd: one line, or nothing, and the right code."""

import os
import subprocess
import sys

import pytest
from shell import call, shell


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_who_has_gone_is_no_error(images):
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from minivae.app.cli import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, "info", images],
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def test_cupy_without_a_device_does_not_disturb_the_cpu(files, tmp_path):
    (tmp_path / "cupy.py").write_text(
        "class ndarray:\n    pass\n\n"
        "def is_available():\n    return False\n\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n        raise AttributeError(name)\n"
        "    raise RuntimeError('cudaErrorNoDevice: no CUDA-capable device is detected')\n"
    )
    run = f"{tmp_path}/run"
    train = ["train", f"{files}/images.npz", "--hidden", "3", "--epochs", "2", "--out", run]
    commands = [*train, "--device", "auto"], ["sample", run], ["encode", run], ["score", run]
    code = f"import cupy; from minivae.app.cli import main; print([main(w) for w in {commands}])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )  # where -c looks first for cupy
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[0, 0, 0, 0]\n"), done.stderr
