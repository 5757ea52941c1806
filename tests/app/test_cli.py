"""The command line: what it refuses, its help, and how it ends."""

import re
import shlex
import subprocess
import sys

import pytest
from shell import call, contents
from tiny import FAMILIES

import minivae
from minivae import models
from minivae.app import cli
from minivae.app.options import option_of

COMMAND_NAMES = [command.__name__ for command in cli.COMMANDS]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "COMMAND"),
        ("learn", "unknown command learn (see minivae --help)"),
        ("trian", "unknown command trian; did you mean train?"),
        ("train", "--out"),
        ("train --out new --lat 3", "unknown option --lat"),  # no abbreviations: they would break
        ("train --out new --latent 5", "unknown option --latent; did you mean --latent-dim?"),
        ("train --out new --n-hidden 5", "unknown option --n-hidden; did you mean --hidden?"),
        ("train --out new --model nade --latent-dim 5", "unknown option --latent-dim"),
        ("train --out new --model rbn", "--model: invalid choice: 'rbn'"),
        ("score {images} --nsamples=5", "unknown option --nsamples=5; did you mean --n-samples?"),
        ("train --out new --latent-dim 0", "--latent-dim: expected a whole number from 1, got '0'"),
        ("train --out new --hidden 5,", "--hidden"),
        ("train --out new --hidden 5,-1", "--hidden"),
        ("train --out new --activation gelu", "--activation"),
        ("train --out new --likelihood poisson", "--likelihood"),
        ("train --out new --binarize yes", "--binarize"),
        ("train --out new --beta -1", "--beta: expected a finite number, at least 0"),
        ("train --out new --beta much", "--beta"),
        ("train --out new --optimizer lbfgs", "--optimizer"),
        ("train --out new --learning-rate 0", "--learning-rate: expected a positive, finite num"),
        ("train --out new --learning-rate inf", "--learning-rate"),
        ("train --out new --momentum 1", "--momentum: expected a finite number, at least 0 and be"),
        ("train --out new --weight-decay nan", "--weight-decay"),
        ("train --out new --batch-size 1.5", "--batch-size"),
        ("train --out new --epochs 0", "--epochs"),
        ("train --out new --dtype float16", "--dtype"),
        ("train --out new --device tpu", "--device"),
        ("train --out new --device cuda", "--device cuda cannot be used: "),
        ("train --out new --device cuda:9", "--device cuda cannot be used: "),
        ("train --out new --n-threads 0", "--n-threads"),
        ("train --out new --seed -1", "--seed"),
        ("train --out new --image-shape 8", "--image-shape"),
        ("train --out new --image-shape 8x9", "image_shape"),
        ("train --out new --test-fraction 1", "test_fraction"),
        ("train --out new --likelihood gaussian --binarize threshold", "--binarize threshold"),
        ("train nothing.csv --out new", "error: there is no file nothing.csv"),
        ("train nothing.txt --out new", "nothing.txt"),
        ("encode {images} nothing.csv", "error: there is no file nothing.csv"),
        ("train mnist --data-dir nowhere --out new", "--data-dir"),
        (
            "train {files}/table.csv --likelihood bernoulli --out new",
            "table.csv: Negative values in data: X has values",
        ),
        ("train {files}/table.csv --schema a=number --out new", "--schema: expected COLUMN=KIND"),
        ("train {files}/table.csv --schema a=count --out new", "of column 'a', expected a whole"),
        ("train {files}/table.csv --schema e=real --out new", "column 'e', which X has not: it"),
        ("train {files}/table.csv --likelihood gaussian --schema a=real --out new", "schema="),
        ("impute {files}/table.csv --out new.npy", "--out must end in .csv or .tsv, as"),
        ("impute {files}/more.npy --out new.csv", "DATA must be a table, .csv, .tsv, .parquet"),
        ("impute {files}/table.csv --out {files}/table.csv", "is DATA itself; choose another"),
        ("impute {files}/table.csv --from {images} --beta 2 --out new.csv", "leave --beta out"),
        ("impute {files}/table.csv --from {images} --out new.csv", "table.csv: X has 4 features"),
        ("impute {files}/table.csv --model nade --out new.csv", "--model nade has no way to"),
        ("train {files}/table.csv --label e --out new", "--label e: there is no such column; the"),
        ("train {files}/table.csv --drop a,e --out new", "--drop e: there is no such column; the"),
        ("train digits --drop x1 --out new", "label and drop are for tables"),
        ("sample nowhere", "DIR: there is no nowhere"),
        ("sample {files}/table.csv", "table.csv"),
        ("sample {images} -n 0", "-n"),
        ("sample {images} --out new.gif", "--out must end in .png or .npy or .csv"),
        ("sample {images} --out nowhere/new.npy", "nowhere/new.npy"),
        ("sample {images} --image-shape 5x5 --out new.png", "image_shape"),
        (
            "reconstruct {images} --out new.txt",
            "--out must end in .png or .npy or .csv, got new.txt",
        ),
        ("reconstruct {images} {files}/table.csv", "table.csv: X has 4 features"),
        ("encode {images} {files}/more.npy", "more.npy: X has 13 features"),
        ("encode {images} --out new.png", "--out must end in .npy or .csv"),
        ("decode {images}", "CODES"),
        ("decode {images} nothing.npy", "nothing.npy"),
        ("decode {images} {files}/table.csv", "table.csv: Z has 4 columns"),
        ("score {images} --n-samples 0", "--n-samples"),
        ("gradcheck {images} --rows 0", "--rows"),
        ("info {images} more", "more"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(
    words, message, files, images, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before = contents(images)
    code, out, err = call(capsys, *words.format(files=files, images=images).split())
    assert (code, out) == (2, "")
    error = err.splitlines()[-1]
    assert error.startswith("minivae: error: ") and message in error
    assert "Traceback" not in err
    for name in re.findall(r"[\w/.-]+\.(?:csv|npy|txt)", words.format(files=files, images=images)):
        assert error.count(name) <= 1
    assert contents(images) == before and not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_help_lists_the_commands_and_each_has_a_purpose_and_an_example(capsys):
    code, out, err = call(capsys, "--help")
    assert (code, err) == (0, "")
    for name in COMMAND_NAMES:
        assert f"\n    {name}" in out
    assert call(capsys, "--version") == (0, f"minivae {minivae.__version__}\n", "")


@pytest.mark.parametrize(
    "words", [[name] for name in COMMAND_NAMES] + [["train", "--model", name] for name in FAMILIES]
)
def test_the_example_of_a_command_is_one(words, capsys):
    name, *family = words[::2]
    code, out, err = call(capsys, *words, "--help")
    assert (code, err) == (0, "")
    purpose = out.split("\n\n")[1]
    assert purpose.endswith(".") and "\n" not in purpose
    example = shlex.split(out.partition("example:\n")[2])
    assert example[:2] == ["minivae", name]
    args = cli.parse(example[1:])  # or SystemExit
    options = out.partition("options:\n")[2].partition("example:")[0]
    options = options.replace("age=real,city=category", "")  # which is one of a shell
    assert not re.search(r"None|False|True|\(\)|\[\]|\w=", options)  # they are not words of a shell
    if family:
        assert f"settings of --model {family[0]}:" in out and args.model == family[0]
    for family in FAMILIES if name == "train" else ():
        for setting, told in models.find(family).SETTINGS.items():
            here = f"{option_of(setting, told)} " in options
            if setting == "image_shape":  # an option of the command, which all data may need
                continue
            assert here == (setting in models.find(args.model).SETTINGS and bool(told.kind))


def test_help_and_version_are_light():
    """But of `train --help`, which has the settings of a family, who imports scikit-learn."""
    heavy = "cupy matplotlib numba pandas pooch scipy sklearn tqdm".split()
    code = f"""
import sys
from minivae.app.cli import main
for words in ["--help"], ["--version"], ["score", "--help"]:
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0
print("loaded:", *sorted(set(sys.modules) & set({heavy})))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("loaded:\n")


def test_none_is_a_word_for_settings_that_may_be_none():
    """Which matters where it is not the default."""
    words = "train digits --out new --model flow --dequantize".split()
    for word, value in (("none", None), ("None", None), ("17", 17)):
        assert cli.parse([*words, word]).dequantize == value
    with pytest.raises(SystemExit):
        cli.parse([*words[:-1], "--batch-size", "none"])
