"""Commands of `minivae`, run in this process or in one of its own, and what they leave."""

import json
import os
import subprocess
import sys

from families import SMALL
from matplotlib.image import imread

from minivae import models
from minivae.app import cli, options

TINY = "--hidden 5 --epochs 2 --batch-size 8 --device reference".split()
STARTED = {"checkpoint.safetensors", "history.json"}
ALWAYS = {"model.safetensors", "best.safetensors", "learning_curve.png", "reconstructions.png"}
ALWAYS |= {"samples.png"} | STARTED


def options_of(family, **settings):
    """The words of `minivae train` for a small model of a family, with these settings."""
    table, words = models.find(family).SETTINGS, ["--model", family]
    for name, value in (SMALL[family] | settings).items():
        word = "x".join(map(str, value)) if name == "image_shape" else options.shown(value)
        words.append(f"{options.option_of(name, table[name])}={word}")  # "-1x4" is no option
    return words


def call(capsys, *words):
    """Exit code, stdout, stderr of a command, run in this process."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as stop:  # argparse
        code = stop.code
    return code, *capsys.readouterr()


PROCESS = """
import json, sys
from minivae.app import pictures
from minivae.app.cli import main
pictures.of = lambda *words: []
codes = []
for words in json.loads(sys.argv[2]):
    try:
        codes.append(main(words))
    except SystemExit as stop:  # argparse
        codes.append(stop.code)
with open(sys.argv[1], "w") as file:
    json.dump(codes, file)
sys.exit(codes[-1])
"""


def process(folder, commands, redirection="", **environment):
    """Exit codes of commands, one after the other in a process of its own, as a shell starts it
    with a redirection such as ">&-"; then that of the process, its stdout and its stderr.

    `train` leaves no pictures: to draw them takes longer than all the rest."""
    codes, commands = folder / "codes.json", [list(map(str, words)) for words in commands]
    words = [sys.executable, "-c", PROCESS, codes, json.dumps(commands)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *words],
        cwd=folder, capture_output=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert codes.exists(), done.stderr.decode()
    found = json.loads(codes.read_text())
    codes.unlink()
    return found, done.returncode, done.stdout.decode(), done.stderr.decode()


def contents(folder):
    """{name: bytes} of the files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_picture(path):
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 50 and pixels.std() > 0.01, f"{path} is empty"
