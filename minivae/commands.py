"""What the commands of `minivae` do: one function each, and what several of them need.

Results go to stdout, progress and notes to stderr. A file is written whole or not at all.
"""

import contextlib
import io
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import minivae
from minivae import datasets, plots, runs, storage

EPOCHS, UPDATES = 20, 3000  # by default so many passes, and more if those are too few updates


def train(args):
    """Train a VAE, and leave the model and pictures in a folder."""
    vae, facts, past = new_or_old_run(args)
    with about(facts["data"]):
        data = datasets.load(facts["data"], facts["data_dir"], facts["test_fraction"],
                             facts["image_shape"])  # fmt: skip
        vae._check_X_to_train(data.train)
        vae._check_X_to_train(data.test)
    if args.epochs is None and not past:
        batches = -(-len(data.train) // args.batch_size)
        vae.set_params(epochs=max(EPOCHS, -(-UPDATES // batches)))
    facts |= {"image_shape": data.image_shape, "minivae": minivae.__version__}

    say = (lambda line: None) if args.quiet else note
    say(f"{facts['data']}: {len(data.train)} rows to train on, {len(data.test)} held out\n"
        f"VAE {describe(vae)}")  # fmt: skip
    made = len(vae.history_.get("loss", ()))
    if past:
        say(f"going on after {made} of {vae.epochs} epochs")
    elif args.resume:
        say(f"nothing to resume in {args.out}: a new run")
    note_on_data(vae, data.train, say)
    with runs.alone_in(args.out), leaving_at_once(args.out):
        begin = time.perf_counter()
        if past:
            runs.check_still(args.out, vae)
        else:
            runs.check_folder(args.out, args.overwrite, args.resume)  # now that it is ours
            runs.remove_results(args.out)
            runs.write_history(args.out, facts)
        vae.set_params(verbose=int(not args.quiet))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow: fit says what it comes to
            (vae.resume if past else vae.fit)(data.train, X_valid=data.test, checkpoints=args.out)
        seconds = time.perf_counter() - begin
        elbo = vae.elbo(data.test, n_samples=10, random_state=0)
        vae.save(args.out / runs.MODEL)
        runs.write_history(args.out, facts, vae, held_out_elbo=float(elbo.mean()))
        for name, figure in pictures(vae, data, facts["seed"]):
            save_figure(figure, args.out / name)

    print(f"held-out ELBO {mean_text(elbo)} nats per row (10 draws for each)")
    epochs = f"{vae.epochs} epochs" + (f", {vae.epochs - made} of them now," if past else "")
    print(f"{epochs} in {seconds:.1f} s; the model and its pictures are in {args.out}")
    say(f"next, try: minivae gradcheck {args.out}   or: minivae sample {args.out}")


def new_or_old_run(args):
    """(VAE, facts of the run, whether it goes on with an old one), all checked but the data."""
    settings = {name: getattr(args, name) for name in minivae.VAE().get_params() if name in args}
    settings |= {"epochs": args.epochs or EPOCHS, "random_state": args.seed}
    vae, facts = minivae.VAE(**settings), {name: getattr(args, name) for name in runs.FACTS}
    vae._check_settings()
    runs.check_folder(args.out, args.overwrite, args.resume)
    past = runs.reopen(args.out, args.given) if args.resume else None
    if past:
        vae, facts = past
        facts |= {name: args.given[name] for name in ("data", "data_dir") if name in args.given}
        vae.set_params(**{n: args.given[n] for n in ("epochs", "n_threads") if n in args.given})
    elif args.resume:
        runs.check_begun(args.out, args.data)
    return vae, facts, bool(past)


@contextlib.contextmanager
def leaving_at_once(folder):
    """Within the block, Ctrl-C and termination end the process with one line and 130 or 143.

    While it trains, `fit` puts them off until it has stored the model; files are replaced whole.
    """

    def leave(number, frame):
        word = "interrupted" if number == signal.SIGINT else "terminated"
        go_on = f"minivae: {word}; go on with: minivae train --resume --out {folder}\n"
        os.write(2, go_on.encode())
        os._exit(128 + number)

    usual = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


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
          lambda: plots.samples(Y, facts["image_shape"], title="means of p(x|z)"))  # fmt: skip


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
    for name, values in vae.history_.items():
        if values and np.isfinite(values[-1]):
            lines[name] = f"{values[-1]:.6g} in the last epoch"
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
    args.model = runs.model_file(args.dir)
    if args.outputs:
        args.out = Path(args.out or args.model.with_name(args.outputs[0]))
        if args.out.suffix not in args.outputs:
            raise ValueError(f"--out must end in {' or '.join(args.outputs[1:])}, got {args.out}")
    facts = runs.read_history(args.model.parent) if args.model.name in runs.FILES else {}
    facts["image_shape"] = getattr(args, "image_shape", None) or facts.get("image_shape")
    vae = minivae.VAE.load(args.model)
    if vae.device.startswith("cuda"):
        vae.set_params(device="auto")  # this computer may have no GPU
    return vae, facts


def load_rows(args, vae, facts):
    """Rows of data (n, D) for a command, and words for them.

    Of a file all rows, of a data set by name or of the run's own data the held-out ones.
    """
    if args.data and args.data not in datasets.NAMES:
        X, what = datasets.read(args.data), f"rows of {args.data}"
    else:
        name, folder = args.data or facts.get("data"), args.data_dir or facts.get("data_dir")
        if name is None:
            raise ValueError(
                f"DATA is needed: no {runs.HISTORY} beside {args.model} says what it was"
            )
        with about(name if args.data else f"DATA is needed: {runs.HISTORY} names {name}"):
            X = datasets.load(name, folder, facts.get("test_fraction", 0.1)).test
        what = f"held-out rows of {name}"
    with about(what):
        vae._check_X_to_train(X)
    return X, f"{len(X)} {what}"


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
        return plots.samples(vae.sample(n, seed), title="samples of p(x)")
    z = np.random.default_rng(seed).standard_normal((n, vae.latent_dim))
    title = "means of p(x|z), z from N(0, I)"
    return plots.samples(vae.inverse_transform(z), image_shape, title)


def write(path, array, what, picture=None):
    """Write an array (n, columns), or the Figure that picture() makes of it, and say so."""
    if path.suffix == ".png":
        save_figure(picture(), path)
    else:
        content = io.BytesIO()
        if path.suffix == ".npy":
            np.save(content, array)
        else:  # .csv, of codes
            names = ",".join(f"z{j + 1}" for j in range(array.shape[1]))
            digits = 9 if array.dtype == np.float32 else 17  # enough to read the same numbers back
            np.savetxt(content, array, f"%.{digits}g", ",", header=names, comments="")
        storage.replace(path, content.getbuffer())
    print(f"{path}: {what}")


def save_figure(figure, path):
    """Write a Figure as .png."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    storage.replace(path, content.getbuffer())


def note(line):
    """Print a line beside the results."""
    if sys.stderr:  # it may be closed
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
