"""The command line: `minivae train`, and what can be done with the model that it leaves.

What the commands do is in `commands.py`, their options are in `options.py`. Results go to stdout,
progress and notes to stderr, an error is one line. What is slow to import is imported when a
command runs.
"""

import argparse
import difflib
import os
import re
import sys
from pathlib import Path

import minivae
from minivae.app import commands, comparing, imputing, runs
from minivae.app.commands import note
from minivae.app.options import COMPARE, IMPUTE, OPTIONS, TRAIN, add_options, add_settings, defaults

BAD_INPUT = (ValueError, TypeError, NotImplementedError, FileNotFoundError, minivae.StorageError)
FAILURES = (OSError, ImportError, FloatingPointError, MemoryError, RuntimeError)

# fmt: off
COMMANDS = {  # function: (options, what --out may be: the default, then suffixes; an example)
    commands.train: ("data --out --model --resume --overwrite --seed --data-dir --image-shape "
        "--label --drop --test-fraction --quiet", (),
        "train mnist --latent-dim 20 --epochs 10 --out runs/mnist"),
    commands.sample: ("dir -n --seed --image-shape", ("samples.png", ".png", ".npy", ".csv"),
        "sample runs/digits -n 64 --seed 1 --out new.png"),
    commands.reconstruct: ("dir data --data-dir --image-shape --label --drop",
        ("reconstructions.png", ".png", ".npy", ".csv"), "reconstruct runs/digits"),
    commands.encode: ("dir data --data-dir --label --drop", ("codes.npy", ".npy", ".csv"),
        "encode runs/table table.csv --out codes.csv"),
    commands.decode: ("dir codes --image-shape", ("decoded.npy", ".npy", ".png", ".csv"),
        "decode runs/digits codes.csv --out decoded.png"),
    imputing.impute: ("data --out --from --model --drop --seed --quiet", (),
        "impute table.csv --out filled.csv"),
    comparing.compare: ("data --out --models --minutes --seed --data-dir --image-shape "
        "--test-fraction --quiet", (), "compare digits --minutes 0.2 --out runs/compared"),
    commands.score: ("dir data --data-dir --label --drop --n-samples --ais", ("", ".csv"),
        "score runs/digits --n-samples 1000 --ais 20"),
    commands.gradcheck: ("dir data --data-dir --label --drop --rows --max-coordinates", (),
        "gradcheck runs/digits"),
    commands.trace: ("dir data --data-dir --label --drop --rows", ("", ".npz"),
        "trace runs/digits --rows 2"),
    commands.info: ("dir", (), "info runs/digits"),
}
# fmt: on
OWN = {commands.train: TRAIN, imputing.impute: IMPUTE}  # whose model has settings as options
TABLES = OWN | {comparing.compare: COMPARE}


class Parser(argparse.ArgumentParser):
    """Errors are one line, and say what may have been meant."""

    def error(self, message):
        option, command = "unrecognized arguments: ", "argument COMMAND: invalid choice: "
        wrong = re.match(rf"{option}(\S+)|{command}'(\S+?)'", message)
        if wrong:
            word = wrong[1] or wrong[2]
            known = self.known if wrong[1] else [run.__name__ for run in COMMANDS]
            near = difflib.get_close_matches(word.split("=")[0], known, 1, 0.5)
            message = f"unknown {'option' if wrong[1] else 'command'} {word}"
            message += f"; did you mean {near[0]}?" if near else ""
        self.exit(2, f"minivae: error: {one_line(message)} (see {self.prog} --help)\n")

    @property
    def known(self):
        """All options of this parser and of its commands."""
        names = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    names += parser.known
        return names


def make_parser(family):
    """The parser of all commands; those in OWN have the settings of a family, if one is given."""
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    purpose = "Train, use and check generative models. Everything is in nats."
    example = "example:\n  minivae train --out runs/digits"
    parser = Parser(prog="minivae", description=purpose, epilog=example, **look)
    parser.add_argument("--version", action="version", version=f"minivae {minivae.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for run, (names, outputs, example) in COMMANDS.items():
        if run is commands.train and family not in (None, TRAIN["--model"][1]):
            example = f"train --model {family} --epochs 10 --out runs/{family}"
        command = subparsers.add_parser(run.__name__, help=run.__doc__, description=run.__doc__,
                                      epilog=f"example:\n  minivae {example}", **look)  # fmt: skip
        table = OPTIONS | TABLES.get(run, {})
        command.set_defaults(run=run, outputs=outputs, names=names.split(), table=table)
        add_options(command, names.split(), table)
        if run in OWN and family:  # whose import takes a second or more
            add_settings(command, family)
        if outputs:
            kinds, where = " or ".join(outputs[1:]), f"{outputs[0]} beside the model"
            text = f"file to write, {kinds} (default: {where if outputs[0] else 'none'})"
            command.add_argument("--out", metavar="FILE", default=argparse.SUPPRESS, help=text)
    return parser


def parse(argv):
    """What was said, with `given` that alone, and the defaults beside it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    family = family_of(argv) if {run.__name__ for run in OWN} & {*argv} else None
    args = make_parser(family).parse_args(argv)
    given = {n: v for n, v in vars(args).items() if n not in ("run", "outputs", "names", "table")}
    said = defaults(args.names, args.table)
    if args.run in OWN:
        said["model"] = family
    said |= given
    if args.outputs:
        said.setdefault("out", None)
    return argparse.Namespace(run=args.run, outputs=args.outputs, given=given, **said)


def family_of(argv):
    """The family that --model names, or that of the run that --resume goes on with: whose settings
    are options. Wrong words are refused later, when all are looked at."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--resume", action="store_true")
    try:
        args, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:  # --resume=yes
        return TRAIN["--model"][1]
    family = args.model
    if not family and args.resume and args.out:
        family = runs.family_of(Path(args.out))
    return family if family in [*minivae.models.MODELS] else TRAIN["--model"][1]


def main(argv=None):
    """Run a command. Exit code: 0 done, 1 failed, 2 wrong use or bad input, 130 interrupted,
    143 terminated."""
    open_streams()
    try:
        try:
            args = parse(argv)
            return args.run(args) or 0
        finally:
            flush()
    except BrokenPipeError:  # who reads has gone
        return 1
    except KeyboardInterrupt:
        note("minivae: interrupted")
        return 130
    except (*BAD_INPUT, *FAILURES) as error:
        note(f"minivae: error: {in_shell(one_line(error)) or type(error).__name__}")
        reason = error.__cause__ if isinstance(error, minivae.StorageError) else error
        return 2 if isinstance(reason or error, BAD_INPUT) else 1


def one_line(text):
    """A message without its line breaks."""
    return " ".join(part.strip() for part in str(text).splitlines()).strip()


def in_shell(message):
    """A message with settings as they are written in a shell."""
    return re.sub(
        r"\b(\w+)=['\"]([\w:]+)['\"]", lambda m: f"--{m[1].replace('_', '-')} {m[2]}", message
    )


def open_streams():
    """Write to nowhere what the caller has closed, and whatever letters there are to the rest."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is free, and a file would get it, and the text that is for it
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a folder's name may not be ASCII


def flush():
    """Write out stdout now, so that an error in it is met as any other."""
    try:
        sys.stdout.flush()
    except OSError:  # which would come again, and not in one line, when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
