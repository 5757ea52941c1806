"""Commands of `minivae`, run in this process or in one of its own, and what they leave."""

import os
import subprocess
import sys

from matplotlib.image import imread

from minivae.app import cli

TINY = "--hidden 5 --epochs 2 --batch-size 8 --device reference".split()
STARTED = {"checkpoint.safetensors", "history.json"}
ALWAYS = {"model.safetensors", "best.safetensors", "learning_curve.png", "reconstructions.png"}
ALWAYS |= {"samples.png"} | STARTED


def call(capsys, *words):
    """Exit code, stdout, stderr of a command, run in this process."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        code = stop.code
    return code, *capsys.readouterr()


def shell(line, **environment):
    """The same for a line of a shell, in which minivae is a process of its own."""
    program = f"minivae() {{ '{sys.executable}' -m minivae \"$@\"; }}\n{line}"
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def contents(folder):
    """{name: bytes} of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_picture(path):
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 50 and pixels.std() > 0.01, f"{path} is empty"
