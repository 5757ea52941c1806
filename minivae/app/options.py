"""The options of the command: those of the models from their tables of settings, and its own.

A word of the shell becomes a value here, and what is said of a setting (default, choices, help) is
taken from where the family says it.
"""

import argparse
import csv
import re
from pathlib import Path

from minivae.data import datasets
from minivae.models import MODELS, find

# --quiet, --seed and --image-shape are the command's own.
NOT_OPTIONS = ("verbose", "random_state", "image_shape")


def whole(word, low=1):
    """Type of an option: a whole number."""
    if not word.isdecimal() or not low <= int(word) < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from {low}, got {word!r}")
    return int(word)


def real(word):
    """Type of an option: a number."""
    try:
        return float(word.replace("_", "?"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {word!r}") from None


def truth(word):
    """Type of an option: "yes" or "no", "true" or "false"."""
    if word.lower() not in ("yes", "true", "no", "false"):
        raise argparse.ArgumentTypeError(f"expected yes or no, got {word!r}")
    return word.lower() in ("yes", "true")


def sizes(word):
    """Type of an option: "500,200" is (500, 200), "" is ()."""
    return tuple(map(whole, word.split(","))) if word else ()


def schedule(word):
    """Type of an option: "0.001", or "14:0.002,6:0.0002" for [(14, 0.002), (6, 0.0002)]."""
    if ":" not in word:
        return real(word)
    steps = [step.split(":") for step in word.split(",")]
    if not all(len(step) == 2 for step in steps):
        raise argparse.ArgumentTypeError(
            f"expected a rate, or EPOCHS:RATE,EPOCHS:RATE,..., got {word!r}"
        )
    return tuple((whole(epochs), real(rate)) for epochs, rate in steps)


def device(word):
    """Type of an option: a device, which need not be there."""
    from minivae.engine.machine import parse_device

    try:
        parse_device(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return word


def columns(word):
    """Type of an option: "id,name" is ("id", "name"); a name with a comma stands in quotes."""
    return tuple(name.strip() for name in next(csv.reader([word])))


def families(word):
    """Type of an option: "vae,nade" is ("vae", "nade")."""
    names = tuple(dict.fromkeys(name.strip() for name in word.split(",")))
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(MODELS)}, got {word!r}")
    return names


def pixels(word):
    """Type of an option: "28x20" is (28, 20); -1 may stand for what the columns say."""
    if not re.fullmatch(r"(-1|[1-9]\d{,8})x(-1|[1-9]\d{,8})", word):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 28x28, got {word!r}")
    return tuple(map(int, word.split("x")))


def shown(value):
    """A setting's value as a shell would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ",".join(f"{name}={kind}" for name, kind in value.items())
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ",".join(f"{epochs}:{rate:g}" for epochs, rate in value)
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def schema(word):
    """Type of an option: "age=real,city=category"; a pair whose name has a comma is in quotes."""
    from minivae.data.schema import KINDS as known  # heavy

    kinds = {}
    for pair in next(csv.reader([word])):
        name, _, kind = (part.strip() for part in pair.rpartition("="))
        if not name or kind not in known:
            raise argparse.ArgumentTypeError(
                f"expected COLUMN=KIND,..., with a KIND of {', '.join(known)}; got {pair!r}"
            )
        if name in kinds:
            raise argparse.ArgumentTypeError(f"two kinds are given for column {name!r}")
        kinds[name] = kind
    return kinds


KINDS = {
    "whole": {"type": whole, "metavar": "N"},
    "real": {"type": real, "metavar": "X"},
    "truth": {"type": truth, "metavar": "yes|no"},
    "sizes": {"type": sizes, "metavar": "SIZES"},
    "schedule": {"type": schedule, "metavar": "RATE"},
    "schema": {"type": schema, "metavar": "KINDS"},
    "device": {"type": device, "metavar": "DEVICE"},
}
WRITTEN = {"sizes": 'such as 500,200 or ""', "schedule": "such as 0.001 or 14:0.002,6:0.0002",
           "schema": "such as age=real,city=category"}  # fmt: skip
INT, FLAG = KINDS["whole"], {"action": "store_true"}
DATA = {"metavar": "DATA", "nargs": "?"}
# fmt: off
OPTIONS = {  # name: (keywords of argparse, default, help)
    "dir": ({"metavar": "DIR"}, None, "folder that minivae train made, or a model file"),
    "data": (DATA, None, "name of a data set, for its held-out rows, or a file, for all its rows "
        "(default: the held-out rows of what the model was trained on)"),
    "codes": ({"metavar": "CODES"}, None, "file .npy or .csv, a row per code, Z columns"),
    "--overwrite": (FLAG, False, "replace an earlier run in DIR; other files stay"),
    "--resume": (FLAG, False, "go on with an interrupted run in DIR, exactly as if nothing had "
        "happened; its options hold, and need not be said again (but --epochs may grow)"),
    "--seed": (INT | {"type": lambda word: whole(word, 0)}, 0, "of all random draws"),
    "--data-dir": ({"metavar": "DIR"}, None, "folder with the files of a named data set "
        "(default: $MINIVAE_DATA_DIR; if not set, they are downloaded)"),
    "--image-shape": ({"type": pixels, "metavar": "HxW"}, None,
        "height and width of rows that are images, such as 28x28 (default: as the data say)"),
    "--test-fraction": (KINDS["real"], 0.1, "part of the rows to hold out, if DATA has no test "
        "part"),
    "--label": ({"metavar": "COLUMN"}, None, "column of a table that has classes: it is not "
        "learned, and colours the pictures"),
    "--drop": ({"type": columns, "metavar": "COLUMNS"}, None, "columns of a table to leave out, "
        "such as id,name (without a header: x1,x2,...)"),
    "--quiet": (FLAG, False, "no progress and no notes, only the results"),
    "-n": (INT, 100, "number of samples"),
    "--n-samples": (INT, 100, "posterior draws for each row, for a model with latent variables"),
    "--ais": (INT | {"metavar": "ROWS"}, None, "annealed importance sampling too, for the first "
        "ROWS rows: slow, but near ln p(x) where the other estimates are not"),
    "--rows": (INT, 8, "rows of data to use"),
    "--max-coordinates": (INT, 200,
        "check parameters of up to N entries entry by entry, others along random directions"),
}
TRAIN = {
    "data": (DATA, "digits", f"{', '.join(datasets.NAMES)}, or a file: "
        ".csv .tsv .parquet .npy .npz IDX"),
    "--out": ({"type": Path, "required": True, "metavar": "DIR"}, None, "folder for the results"),
    "--model": ({"choices": tuple(MODELS)}, next(iter(MODELS)),
        "family of the model, which has options of its "
        "own: minivae train --model NAME --help"),
}
IMPUTE = {
    "data": ({"metavar": "DATA"}, None, "file with the table: .csv .tsv .parquet"),
    "--out": ({"type": Path, "required": True, "metavar": "FILE"}, None,
        "file to write, of the same kind as DATA"),
    "--from": ({"metavar": "DIR"}, None, "folder that minivae train made, or a model file, to fill "
        "in with (default: a new model, trained on DATA, with the settings below)"),
    "--model": TRAIN["--model"],
    "--drop": ({"type": columns, "metavar": "COLUMNS"}, None, "columns to make no use of, nor to "
        "fill in, such as id,name (without a header: x1,x2,...)"),
}
COMPARE = {
    "data": (DATA, "digits", f"{', '.join(datasets.NAMES)}, or a file of rows in [0, 1]; made "
        "0 or 1, by x >= 1/2"),
    "--out": ({"type": Path, "required": True, "metavar": "DIR"}, None,
        "folder for the table, its picture and a model of each family; what is there already is "
        "not made again"),
    "--models": ({"type": families, "metavar": "NAMES"}, tuple(MODELS),
        "families to compare, such as vae,nade"),
    "--minutes": (KINDS["real"], 1.0, "to train each, about"),
}
# fmt: on


def option_of(name, setting):
    """How a setting is called in a shell."""
    return "--" + (setting.option or name).replace("_", "-")


def add_options(parser, names, table):
    """Options of the command itself. None has a default: what is given is what was said."""
    for name in names:
        kind, default, text = table[name]
        text += f" (default: {shown(default)})" if default not in (None, False) else ""
        parser.add_argument(name, **kind, default=argparse.SUPPRESS, help=text)


def reader(setting):
    """Type of the option of a setting: what the setting's kind makes of a word, if that may be.

    The estimator refuses it too, but in scikit-learn's words, of Python's classes and intervals.
    """
    from minivae.models.settings import check_value

    def read(word):
        if word.lower() == "none" and None in setting.constraint:
            return None
        value = KINDS[setting.kind]["type"](word)
        try:
            check_value("", setting, value)
        except ValueError:
            such = f", {WRITTEN[setting.kind]}" if setting.kind in WRITTEN else ""
            raise argparse.ArgumentTypeError(
                f"expected {setting.expected}{such}, got {word!r}"
            ) from None
        return value

    return read


def add_settings(parser, family):
    """The options of a family's settings, from its table."""
    group = parser.add_argument_group(f"settings of --model {family}")
    for name, setting in find(family).SETTINGS.items():
        if name in NOT_OPTIONS or not setting.kind:
            continue
        if setting.kind in KINDS:
            kind = KINDS[setting.kind] | {"type": reader(setting)}
        else:
            kind = {"choices": [c for c in setting.choices if c is not None]}
        text, default = setting.help, shown(setting.default)
        text += f"; {WRITTEN[setting.kind]}" if setting.kind in WRITTEN else ""
        text += f" (default: {default})" if setting.default is not None else ""
        group.add_argument(option_of(name, setting), dest=name, **kind, default=argparse.SUPPRESS,
                           help=text.replace("%", "%%"))  # fmt: skip


def defaults(names, table):
    """{destination: default} of options of the command itself."""
    return {name.lstrip("-").replace("-", "_"): table[name][1] for name in names}


def settings_of(family, given):
    """{name: value} of a family's settings as given, the others at their defaults."""
    table = find(family).SETTINGS
    return {name: given.get(name, setting.default) for name, setting in table.items()}
