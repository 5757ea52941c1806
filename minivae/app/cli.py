"""The command line: `minivae train`, and what can be done with the model that it leaves.

One table of options, one of commands; what they do is in `commands.py`. Results go to stdout,
progress and notes to stderr, an error is one line. What is slow to import is imported when a
command runs.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import minivae
from minivae import commands, datasets
from minivae.commands import EPOCHS, UPDATES, note

BAD_INPUT = (ValueError, TypeError, NotImplementedError, FileNotFoundError, minivae.StorageError)
FAILURES = (OSError, ImportError, FloatingPointError, MemoryError, RuntimeError)


def whole(word, low=1):
    """Type of an option: a whole number."""
    if not word.isdecimal() or not low <= int(word) < 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from {low}, got {word!r}")
    return int(word)


def sizes(word):
    """Type of an option: "500,200" is (500, 200), "" is ()."""
    return tuple(map(whole, word.split(","))) if word else ()


def pixels(word):
    """Type of an option: "28x20" is (28, 20)."""
    if not re.fullmatch(r"[1-9]\d{,8}x[1-9]\d{,8}", word):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, such as 28x28, got {word!r}")
    return tuple(map(int, word.split("x")))


INT, REAL = {"type": whole, "metavar": "N"}, {"type": float, "metavar": "X"}
FILE, FLAG = {"metavar": "DATA", "nargs": "?"}, {"action": "store_true"}
K = minivae.kernels
# fmt: off
OPTIONS = {  # name: (keywords of argparse or choices, default, help)
    "dir": ({"metavar": "DIR"}, None, "folder that minivae train made, or a model file"),
    "data": (FILE, None, "name of a data set, for its held-out rows, or a file, for all its rows "
        "(default: the held-out rows of what the model was trained on)"),
    "codes": ({"metavar": "CODES"}, None, "file .npy or .csv, a row per code, Z columns"),
    "--overwrite": (FLAG, False, "replace an earlier run in DIR; other files stay"),
    "--resume": (FLAG, False, "go on with an interrupted run in DIR, exactly as if nothing had "
        "happened; its options hold, and need not be said again (but --epochs may grow)"),
    "--latent-dim": (INT, 2, "number Z of latent variables"),
    "--hidden": ({"dest": "hidden_layer_sizes", "type": sizes, "metavar": "SIZES"}, "400",
        "units of the encoder's layers, such as 500,200, or '' for none; the decoder mirrors them"),
    "--activation": (K.ACTIVATIONS, "relu", "after each hidden layer"),
    "--likelihood": (K.LIKELIHOODS, "bernoulli", "bernoulli for data in [0, 1], gaussian for any"),
    "--binarize": (K.BINARIZE[1:], None, "make grey data 0 or 1: by x >= 1/2, or at random with "
        "probability x, afresh at every use (default: leave them grey)"),
    "--beta": (REAL, 1.0, "weight of kl in the loss, nll + beta * kl"),
    "--optimizer": (K.OPTIMIZERS, "adam", "rule of updates"),
    "--learning-rate": (REAL, 1e-3, "size of updates"),
    "--momentum": (REAL, 0.0, "of sgd, at least 0 and below 1"),
    "--weight-decay": (REAL, 0.0, "so many times a parameter is added to its gradient"),
    "--batch-size": (INT, 128, "rows per update"),
    "--epochs": (INT, None, f"passes over the data (default: {EPOCHS}, or {UPDATES} updates)"),
    "--dtype": (("float32", "float64"), "float32", "of all computations"),
    "--device": (("cpu", "reference", "auto", "cuda"), "cpu",
        "cpu: compiled; reference: plain NumPy; cuda: a GPU; auto: a GPU that works, else cpu"),
    "--matmul-precision": (("float32", "tf32"), "float32", "of a GPU's matrix products"),
    "--n-threads": (INT, None, "threads of an update (default: as many as pay)"),
    "--seed": (INT | {"type": lambda word: whole(word, 0)}, 0, "of all random draws"),
    "--data-dir": ({"metavar": "DIR"}, None, "folder with the files of a named data set "
        "(default: $MINIVAE_DATA_DIR; if not set, they are downloaded)"),
    "--image-shape": ({"type": pixels, "metavar": "HxW"}, None,
        "height and width of rows that are images, such as 28x28 (default: as the data say)"),
    "--test-fraction": (REAL, 0.1, "part of the rows to hold out, if DATA has no test part"),
    "--quiet": (FLAG, False, "no progress and no notes, only the results"),
    "-n": (INT, 100, "number of samples"),
    "--n-samples": (INT, 100, "posterior draws for each row"),
    "--rows": (INT, 8, "rows of data to check on"),
    "--max-coordinates": (INT, 200,
        "check parameters of up to N entries entry by entry, others along random directions"),
}
TRAIN_OPTIONS = OPTIONS | {
    "data": (FILE, "digits", f"{', '.join(datasets.NAMES)}, or .npy .npz .csv .parquet IDX file"),
    "--out": ({"type": Path, "required": True, "metavar": "DIR"}, None, "folder for the results"),
}
COMMANDS = {  # function: (options, what --out may be: the default, then suffixes; an example)
    commands.train: ("data --out --resume --overwrite --latent-dim --hidden --activation "
        "--likelihood --binarize --beta --optimizer --learning-rate --momentum --weight-decay "
        "--batch-size --epochs --dtype --device --matmul-precision --n-threads --seed "
        "--data-dir --image-shape --test-fraction --quiet",
        (), "train mnist --latent-dim 20 --epochs 10 --out runs/mnist"),
    commands.sample: ("dir -n --seed --image-shape", ("samples.png", ".png", ".npy"),
        "sample runs/digits -n 64 --seed 1 --out new.png"),
    commands.reconstruct: ("dir data --data-dir --image-shape",
        ("reconstructions.png", ".png", ".npy"), "reconstruct runs/digits"),
    commands.encode: ("dir data --data-dir", ("codes.npy", ".npy", ".csv"),
        "encode runs/table table.csv --out codes.csv"),
    commands.decode: ("dir codes --image-shape", ("decoded.npy", ".npy", ".png"),
        "decode runs/digits codes.csv --out decoded.png"),
    commands.score: ("dir data --data-dir --n-samples", (), "score runs/digits --n-samples 1000"),
    commands.gradcheck: ("dir data --data-dir --rows --max-coordinates", (),
        "gradcheck runs/digits"),
    commands.info: ("dir", (), "info runs/digits"),
}
# fmt: on


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"minivae: error: {message} (see {self.prog} --help)\n")


def make_parser(defaults=True):
    """The parser of all commands; without defaults, what it gives is what was said."""
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    purpose = "Train, use and check variational autoencoders. Everything is in nats."
    example = "example:\n  minivae train --out runs/digits"
    parser = Parser(prog="minivae", description=purpose, epilog=example, **look)
    parser.add_argument("--version", action="version", version=f"minivae {minivae.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for run, (names, outputs, example) in COMMANDS.items():
        command = subparsers.add_parser(run.__name__, help=run.__doc__, description=run.__doc__,
                                      epilog=f"example:\n  minivae {example}", **look)  # fmt: skip
        command.set_defaults(run=run, outputs=outputs)
        for name in names.split():
            kind, default, text = (TRAIN_OPTIONS if run is commands.train else OPTIONS)[name]
            kind = {"choices": kind} if isinstance(kind, tuple) else kind
            text += "" if default is None or default is False else " (default: %(default)s)"
            default = default if defaults else argparse.SUPPRESS
            command.add_argument(name, **kind, default=default, help=text)
        if outputs:
            kinds = " or ".join(outputs[1:])
            text = f"file to write, {kinds} (default: {outputs[0]} beside the model)"
            command.add_argument("--out", metavar="FILE", help=text)
    later = subparsers.add_parser("impute", description=commands.impute.__doc__)  # not listed
    later.add_argument("words", nargs=argparse.REMAINDER)
    later.set_defaults(run=commands.impute)
    return parser


def main(argv=None):
    """Run a command. Exit code: 0 done, 1 failed, 2 wrong use or bad input, 130 interrupted,
    143 terminated."""
    try:
        try:
            args = make_parser().parse_args(argv)
            args.given = vars(make_parser(defaults=False).parse_args(argv))
            return args.run(args) or 0
        finally:
            sys.stdout.flush()  # here, so that a reader who has gone is met below
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        note("minivae: interrupted")
        return 130
    except (*BAD_INPUT, *FAILURES) as error:
        # One line, with settings as they are written in a shell.
        line = re.sub(r"\b(\w+)=['\"](\w+)['\"]", r"--\1 \2", " ".join(str(error).split()))
        note(f"minivae: error: {line or type(error).__name__}")
        reason = error.__cause__ if isinstance(error, minivae.StorageError) else error
        return 2 if isinstance(reason or error, BAD_INPUT) else 1
