"""The README does what it says: its Python is run, and every command that needs no download."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from minivae.app.cli import main
from minivae.kernels.tables import SUBJECTS
from minivae.models import settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "" and line.startswith("minivae ")
]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "".join(block for language, block in BLOCKS if language == "python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {})
    assert "PASSED" in printed.getvalue()
    for name in ("digits.safetensors", "runs/mine/best.safetensors"):
        assert (tmp_path / name).is_file()


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "UPDATES", 1)  # EPOCHS passes are enough to see that they run
    table = np.random.default_rng(0).normal(size=(60, 4))
    np.savetxt("table.csv", table, delimiter=",", header="a,b,c,d", comments="")
    run = [words for words in COMMANDS if "mnist" not in words]
    assert len(run) == len(COMMANDS) - 1
    assert run[0] == ["minivae", "train", "--out", "runs/digits"]
    for words in run:
        try:
            assert main(words[1:]) == 0, words
        except SystemExit as end:  # of --help
            assert end.code == 0, words
    for name in ("digits", "table"):
        assert (tmp_path / "runs" / name / "model.safetensors").is_file()
        assert (tmp_path / "runs" / name / "learning_curve.png").is_file()
    assert "PASSED" in capsys.readouterr().out


@pytest.mark.slow
def test_the_readme_trains_mnist(tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIVAE_DATA_DIR", str(data_dir))
    (words,) = (words for words in COMMANDS if "mnist" in words)
    assert main(words[1:]) == 0
    assert (tmp_path / "runs/mnist/samples.png").is_file()


def test_files_that_the_readme_names_are_there():
    root = Path(__file__).parents[2]
    names = re.findall(r"(?:examples|benchmarks|kernels|minivae|docs)/[\w/.-]*\w", README)
    for name in set(names):  # SUBJECT stands for every folder of kernels
        found = [name.replace("SUBJECT", subject) for subject in SUBJECTS]
        assert [path for path in found if not (root / path).exists()] == []
    assert "kernels/SUBJECT/reference.py" in names
