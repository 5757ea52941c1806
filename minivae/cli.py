"""The command line: `minivae train`, and what can be done with the model that it leaves.

One function per command, one table of options, one of commands. Results go to stdout, progress and
notes to stderr, an error is one line. What is slow to import is imported when a command runs.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import minivae
from minivae import datasets, plots

MODEL, HISTORY = "model.safetensors", "history.json"
PICTURES = "learning_curve.png reconstructions.png samples.png manifold.png latent.png".split()
EPOCHS, UPDATES = 20, 3000  # by default so many passes, and more if those are too few updates
BAD_INPUT = (ValueError, TypeError, NotImplementedError, FileNotFoundError, minivae.StorageError)
FAILURES = (OSError, ImportError, FloatingPointError, MemoryError)


def train(args):
    """Train a VAE, and leave the model and pictures in a folder."""
    settings = {name: getattr(args, name) for name in minivae.VAE().get_params() if name in args}
    settings |= {"epochs": args.epochs or EPOCHS, "random_state": args.seed}
    vae = minivae.VAE(**settings, verbose=int(not args.quiet))
    vae._check_settings()
    check_folder(args.out, args.overwrite)
    data = datasets.load(args.data, args.data_dir, args.test_fraction, args.image_shape)
    with about(args.data):
        vae._check_X_to_train(data.train)
        vae._check_X_to_train(data.test)
    args.out.mkdir(parents=True, exist_ok=True)

    if args.epochs is None:
        batches = -(-len(data.train) // args.batch_size)
        vae.set_params(epochs=max(EPOCHS, -(-UPDATES // batches)))
    say = (lambda line: None) if args.quiet else note
    say(f"{args.data}: {len(data.train)} rows to train on, {len(data.test)} held out\n"
        f"VAE {describe(vae)}")  # fmt: skip
    note_on_data(vae, data.train, say)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow: fit says what it comes to
        vae.fit(data.train, X_valid=data.test)
    seconds = time.perf_counter() - begin
    elbo = vae.elbo(data.test, n_samples=10, random_state=0)

    vae.save(args.out / MODEL)
    facts = {name: getattr(args, name) for name in ("data", "data_dir", "test_fraction", "seed")}
    facts |= {"image_shape": data.image_shape, "minivae": minivae.__version__, "seconds": seconds,
              "held_out_elbo": float(elbo.mean()), "history": vae.history_}  # fmt: skip
    (args.out / HISTORY).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name in PICTURES:
        (args.out / name).unlink(missing_ok=True)  # of an earlier run
    for name, figure in pictures(vae, data, args.seed):
        figure.savefig(args.out / name)

    print(f"held-out ELBO {mean_text(elbo)} nats per row (10 draws for each)")
    print(f"{vae.epochs} epochs in {seconds:.1f} s; the model and its pictures are in {args.out}")
    say(f"next, try: minivae gradcheck {args.out}   or: minivae sample {args.out}")


def sample(args):
    """Draw new data from a model."""
    vae, facts = load_run(args)
    X = vae.sample(args.n, args.seed)
    write(args.out, X, f"{args.n} samples",
          lambda: samples(vae, args.n, args.seed, facts["image_shape"]))  # fmt: skip


def reconstruct(args):
    """Encode data and decode the codes again."""
    vae, facts = load_run(args)
    X, what = load_rows(args, vae, facts)
    Y = vae.reconstruct(X)
    write(args.out, Y, f"reconstructions of {what}",
          lambda: plots.reconstructions(X, Y, facts["image_shape"]))  # fmt: skip


def encode(args):
    """Encode data: the posterior mean of each row."""
    vae, facts = load_run(args)
    X, what = load_rows(args, vae, facts)
    write(args.out, vae.transform(X), f"codes of {what}")


def decode(args):
    """Decode codes: the decoder mean of each row."""
    vae, facts = load_run(args)
    with about(args.codes):
        Y = vae.inverse_transform(datasets.read(args.codes))
    write(args.out, Y, f"decoder means of {len(Y)} rows of {args.codes}",
          lambda: plots.samples(Y, facts["image_shape"]))  # fmt: skip


def score(args):
    """Estimate the log-likelihood and the ELBO of data."""
    vae, facts = load_run(args)
    X, what = load_rows(args, vae, facts)
    note_on_data(vae, X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of grey data: the note has said it
        log_likelihood = vae.score_samples(X, args.n_samples)
    elbo = vae.elbo(X, args.n_samples, random_state=0)
    print(f"{what}, {args.n_samples} draws for each: mean +- standard error in nats per row")
    print(f"log-likelihood  {mean_text(log_likelihood)}  (importance-weighted estimate)")
    print(f"ELBO            {mean_text(elbo)}")


def gradcheck(args):
    """Compare every gradient of a model with finite differences."""
    vae, facts = load_run(args)
    X, what = load_rows(args, vae, facts)
    note(f"VAE {describe(vae)}; the first {min(args.rows, len(X))} of {what}")
    report = vae.check_gradients(X[: args.rows], max_coordinates=args.max_coordinates)
    print(report)
    return 0 if report.passed else 1


def info(args):
    """Show what a model file holds."""
    vae, _ = load_run(args)
    lines = {name: repr(value) for name, value in vae.get_params().items()}
    lines |= {name: f"{array.dtype} {array.shape}" for name, array in vae.parameters_.items()}
    lines |= {name: f"{values[-1]:.6g} in the last epoch" for name, values in vae.history_.items()}
    print(f"{args.model}: {args.model.stat().st_size} bytes")
    print(f"VAE {describe(vae)}, {len(vae.history_.get('loss', ()))} epochs")
    print("\n".join(f"  {name:22} {line}" for name, line in lines.items()))


def impute(args):
    """Not built yet."""
    raise NotImplementedError("impute is not built yet; minivae --help lists what is")


def load_run(args):
    """The model at args.dir, a folder or a file, and {fact: value} from the history beside it.

    Before that, args.out is checked and given its default; args.model is set to the file's path.
    """
    args.model = Path(args.dir, MODEL) if Path(args.dir).is_dir() else Path(args.dir)
    if not args.model.is_file():
        raise FileNotFoundError(f"DIR: there is no {args.model}; minivae train --out DIR makes one")
    if args.outputs:
        args.out = Path(args.out or args.model.with_name(args.outputs[0]))
        if args.out.suffix not in args.outputs:
            raise ValueError(f"--out must end in {' or '.join(args.outputs[1:])}, got {args.out}")
    facts, history = {}, args.model.with_name(HISTORY)
    if args.model.name == MODEL and history.is_file():
        with about(history):
            facts = dict(json.loads(history.read_text(encoding="utf-8")))
    facts["image_shape"] = getattr(args, "image_shape", None) or facts.get("image_shape")
    return minivae.VAE.load(args.model), facts


def load_rows(args, vae, facts):
    """Rows of data (n, D) for a command, and words for them.

    Of a file all rows, of a data set by name or of the run's own data the held-out ones.
    """
    if args.data and args.data not in datasets.NAMES:
        X, what = datasets.read(args.data), f"rows of {args.data}"
    else:
        name, folder = args.data or facts.get("data"), args.data_dir or facts.get("data_dir")
        if name is None:
            raise ValueError(f"DATA is needed: no {HISTORY} beside {args.model} says what it was")
        with about(name if args.data else f"DATA is needed: {HISTORY} names {name}"):
            X = datasets.load(name, folder, facts.get("test_fraction", 0.1)).test
        what = f"held-out rows of {name}"
    with about(what):
        vae._check_X_to_train(X)
    return X, f"{len(X)} {what}"


def check_folder(folder, overwrite):
    """Raise unless `train` may write into the folder."""
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"--out: the folder {folder} is not empty; choose another one, or replace "
                         "what an earlier run left there: --overwrite")  # fmt: skip
    for path in (folder, *(folder / name for name in (MODEL, HISTORY, *PICTURES))):
        right = path.is_dir() if path == folder else path.is_file() and not path.is_symlink()
        if os.path.lexists(path) and not right:
            raise ValueError(f"--out: {path} is in the way; move it, or choose another folder")


def pictures(vae, data, seed):
    """Yield (file name, Figure) for a trained model and the held-out rows of its data."""
    X, shape, labels = data.test, data.image_shape, data.test_labels
    yield "learning_curve.png", plots.learning_curve(vae.history_)
    yield "reconstructions.png", plots.reconstructions(X, vae.reconstruct(X), shape)
    yield "samples.png", samples(vae, 100, seed, shape)
    if vae.latent_dim == 2 and shape:
        yield "manifold.png", plots.manifold(vae.inverse_transform, shape)
    if vae.latent_dim == 2:
        few = labels is not None and len(np.unique(labels)) <= 20  # as many as the plot tells apart
        yield "latent.png", plots.latent_scatter(vae.transform(X), labels if few else None)


def samples(vae, n, seed, image_shape):
    """Images: decoder means at n draws of z from N(0, I). Tables: histograms of n draws of x."""
    if image_shape is None:
        return plots.samples(vae.sample(n, seed))
    z = np.random.default_rng(seed).standard_normal((n, vae.latent_dim))
    return plots.samples(vae.inverse_transform(z), image_shape)


def write(path, array, what, picture=None):
    """Write an array (n, columns), or the Figure that picture() makes of it, and say so."""
    if path.suffix == ".png":
        picture().savefig(path)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:  # .csv, of codes
        names = ",".join(f"z{j + 1}" for j in range(array.shape[1]))
        digits = 9 if array.dtype == np.float32 else 17  # enough to read the same numbers back
        np.savetxt(path, array, f"%.{digits}g", ",", header=names, comments="")
    print(f"{path}: {what}")


def note(line):
    """Print a line beside the results."""
    print(line, file=sys.stderr)


def note_on_data(vae, X, say=note):
    """Say what the Bernoulli "likelihood" of grey values is, and that a table wants one scale."""
    size = max(abs(X.mean(axis=0)).max(), X.std(axis=0).max())
    if vae.likelihood == "gaussian" and size > 5:
        say(f"note: columns have means or standard deviations up to {size:.3g}, and one noise "
            "variance serves all; scale each to mean 0 and standard deviation 1 first")  # fmt: skip
    if vae.likelihood == "bernoulli" and not vae.binarize and np.any((X > 0) & (X < 1)):
        say("note: grey data, so nats of a cross-entropy; for likelihoods: --binarize stochastic")


def describe(vae):
    """Architecture and size of a model in one line."""
    sizes = [vae.n_features_in_, *vae.hidden_layer_sizes]
    layers = "-".join(map(str, [*sizes, vae.latent_dim, *reversed(sizes)]))
    n_parameters = sum(array.size for array in vae.parameters_.values())
    return f"{layers}, {vae.activation}, {vae.likelihood} likelihood, {n_parameters} parameters"


def mean_text(values):
    """Mean and standard error."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return f"{np.mean(values):.2f} +- {error:.2f}"


@contextlib.contextmanager
def about(what):
    """Begin the message of an error in data with what they are."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, RecursionError) as error:
        raise ValueError(f"{what}: {error}") from error


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
        "cpu: compiled; reference: plain NumPy; auto: the fastest there is"),
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
    train: ("data --out --overwrite --latent-dim --hidden --activation --likelihood --binarize "
        "--beta --optimizer --learning-rate --momentum --weight-decay --batch-size --epochs "
        "--dtype --device --n-threads --seed --data-dir --image-shape --test-fraction --quiet",
        (), "train mnist --latent-dim 20 --epochs 10 --out runs/mnist"),
    sample: ("dir -n --seed --image-shape", ("samples.png", ".png", ".npy"),
        "sample runs/digits -n 64 --seed 1 --out new.png"),
    reconstruct: ("dir data --data-dir --image-shape", ("reconstructions.png", ".png", ".npy"),
        "reconstruct runs/digits"),
    encode: ("dir data --data-dir", ("codes.npy", ".npy", ".csv"),
        "encode runs/table table.csv --out codes.csv"),
    decode: ("dir codes --image-shape", ("decoded.npy", ".npy", ".png"),
        "decode runs/digits codes.csv --out decoded.png"),
    score: ("dir data --data-dir --n-samples", (), "score runs/digits --n-samples 1000"),
    gradcheck: ("dir data --data-dir --rows --max-coordinates", (), "gradcheck runs/digits"),
    info: ("dir", (), "info runs/digits"),
}
# fmt: on


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"minivae: error: {message} (see {self.prog} --help)\n")


def make_parser():
    """The parser of all commands."""
    look = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    purpose = "Train, use and check variational autoencoders. Everything is in nats."
    example = "example:\n  minivae train --out runs/digits"
    parser = Parser(prog="minivae", description=purpose, epilog=example, **look)
    parser.add_argument("--version", action="version", version=f"minivae {minivae.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for run, (names, outputs, example) in COMMANDS.items():
        command = commands.add_parser(run.__name__, help=run.__doc__, description=run.__doc__,
                                      epilog=f"example:\n  minivae {example}", **look)  # fmt: skip
        command.set_defaults(run=run, outputs=outputs)
        for name in names.split():
            kind, default, text = (TRAIN_OPTIONS if run is train else OPTIONS)[name]
            kind = {"choices": kind} if isinstance(kind, tuple) else kind
            text += "" if default is None or default is False else " (default: %(default)s)"
            command.add_argument(name, **kind, default=default, help=text)
        if outputs:
            kinds = " or ".join(outputs[1:])
            text = f"file to write, {kinds} (default: {outputs[0]} beside the model)"
            command.add_argument("--out", metavar="FILE", help=text)
    later = commands.add_parser("impute", description=impute.__doc__)  # no help: not listed
    later.add_argument("words", nargs=argparse.REMAINDER)
    later.set_defaults(run=impute)
    return parser


def main(argv=None):
    """Run a command. Exit code: 0 done, 1 failed, 2 wrong use or bad input, 130 interrupted."""
    try:
        try:
            args = make_parser().parse_args(argv)
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
        return 2 if isinstance(error, BAD_INPUT) else 1
