"""What the commands of `minivae` do: one function each, and what several of them need.

Results go to stdout, progress and notes to stderr. A file is written whole or not at all. No
command knows a family by name: what a model can do is what it has methods for.
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
from minivae.app import pictures, plots, runs, scores, tables
from minivae.app.options import settings_of, shown
from minivae.app.tables import count
from minivae.app.warm import compiling_beside
from minivae.data import datasets
from minivae.data.tables import Choice, framed
from minivae.files import storage


def train(args):
    """Train a model, and leave it and pictures of it in a folder."""
    from minivae.models.fitting import last_epoch  # heavy

    model, facts, past = new_or_old_run(args)
    data, found = tables.load(facts, model if past else None), []
    with about(facts["data"]):
        if not past and model.takes_tables and data.whole is not None:
            found = tables.suit(model, data, args.given)
        if not past:
            tables.shape(model, data)
        tables.check(model, data, facts)
    # Rows that choose when to stop should not say how good the model is: if others are held out for
    # that, the test part is looked at once, at the end.
    X_valid = None if model.validation_fraction else data.test
    facts |= {"image_shape": data.image_shape, "minivae": minivae.__version__}

    say = (lambda line: None) if args.quiet else note
    say(f"{facts['data']}: {len(data.train)} rows to train on, {len(data.test)} held out")
    made = model.state_.epochs if past else 0
    for line in data.notes:
        say(f"{facts['data']}: {line}")
    for line in found:
        say(line)
    if past:
        say(f"going on after {made} of {last_epoch(model, len(data.train))} epochs")
    elif args.resume:
        say(f"nothing to resume in {args.out}: a new run")
    note_on_data(model, data.train, say)
    if model.patience is not None and X_valid is not None:
        say("note: the held-out rows choose the epoch, so their score comes out a little too good; "
            "--validation-fraction 0.1 holds out others for that")  # fmt: skip
    go_on = f"minivae train --resume --out {args.out}"
    with runs.alone_in(args.out), leaving_at_once(go_on):
        begin = time.perf_counter()
        if past:
            runs.check_still(args.out, model)
        else:
            runs.check_folder(args.out, args.overwrite, args.resume)  # now that it is ours
            runs.remove_results(args.out)
            runs.write_history(args.out, facts)
        model.set_params(verbose=int(not args.quiet))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # overflow: fit says what it comes to
            warnings.simplefilter("ignore", UserWarning)  # grey data: a note has said it
            with compiling_beside(model, data.train.shape[1]):
                (model.resume if past else model.fit)(data.train, X_valid=X_valid,
                                                      checkpoints=args.out)  # fmt: skip
            seconds = time.perf_counter() - begin
            held_out = model.held_out_score(data.test)
            collapse = collapsed(model, data.test)
        model.save(args.out / runs.MODEL)
        runs.write_history(args.out, facts, model, held_out and float(held_out[0].mean()))
        for name, figure in pictures.of(model, data, facts["seed"]):
            tables.save_figure(figure, args.out / name)

    print(describe(model))
    print(scores.of_run(model, held_out))
    for line in (*best_epoch(model), *collapse):
        print(line)
    now = f", {model.n_epochs_ - made} of them now," if past else ""
    print(f"{count(model.n_epochs_, 'epoch')}{now} in {seconds:.1f} s; the model and its pictures "
          f"are in {args.out}")  # fmt: skip
    say(f"next, try: minivae gradcheck {args.out}   or: minivae sample {args.out}")


def new_or_old_run(args):
    """(model, facts of the run, whether it goes on with an old one), all checked but the data."""
    make = minivae.models.find(args.model)
    settings = settings_of(args.model, args.given) | {"random_state": args.seed}
    if tables.is_suited(make, args):
        settings |= make.SUITED["table"]
    model = make(**settings)
    facts = {name: getattr(args, name) for name in runs.FACTS}
    if not args.resume:  # whose settings may be of data that need not be said again
        model.check_settings()
    runs.check_folder(args.out, args.overwrite, args.resume)
    past = runs.reopen(args.out, args.given) if args.resume else None
    if past:
        model, facts = past
        facts |= {name: args.given[name] for name in ("data", "data_dir") if name in args.given}
        model.set_params(**{n: args.given[n] for n in ("epochs", "n_threads") if n in args.given})
    elif args.resume:
        runs.check_begun(args.out, args.data)
        model.check_settings()
    return model, facts, bool(past)


def best_epoch(model):
    """A line on the best epoch by held-out score, if it was not the last one, or was waited for."""
    best = model.best_epoch_
    if best and (best < model.n_epochs_ or model.patience):
        name, title = model.program.SCORE
        values = model.history_[f"valid_{name}"]
        where = storage.BEST if model.patience is None else "this is the model"
        yield (f"best held-out {title} {values[best - 1]:.2f} after epoch {best}: {where} (the "
               f"last epoch: {values[-1]:.2f})")  # fmt: skip


def collapsed(model, X):
    """A line on latents that the model does not use, if it can be asked and has such."""
    if hasattr(model, "diagnose") and len(X) > 1:
        advice = model.diagnose(X).advice
        return [advice] if advice else []
    return []


@contextlib.contextmanager
def leaving_at_once(go_on):
    """Within the block, Ctrl-C and termination end the process with one line and 130 or 143.

    While it trains, `fit` puts them off until it has stored the model; files are replaced whole.
    """

    def leave(number, frame):
        word = "interrupted" if number == signal.SIGINT else "terminated"
        line = f"minivae: {word}; go on with: {go_on}\n"
        os.write(2, line.encode(errors="surrogateescape"))
        os._exit(128 + number)

    usual = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def sample(args):
    """Draw new data from a model."""
    model, facts = load_run(args)
    with bar("sample"):
        X = model.sample(args.n, args.seed)
    tables.write(
        args.out, X, count(args.n, "sample"), tables.column_names(model),
        lambda: pictures.samples(model, args.n, args.seed, facts["image_shape"]),
    )  # fmt: skip


def reconstruct(args):
    """Encode data and decode the codes again."""
    model, facts = load_run(args, "reconstruct")
    X, what = load_rows(args, model, facts)
    with bar("reconstruct"):
        Y = model.reconstruct(X)
    names = tables.column_names(model)
    tables.write(args.out, Y, f"reconstructions of {what}", names,
                 lambda: pictures.reconstructions(X, Y, facts["image_shape"], model))  # fmt: skip


def encode(args):
    """Encode data: the posterior mean of each row."""
    model, facts = load_run(args, "transform")
    X, what = load_rows(args, model, facts)
    with bar("encode"):
        codes = model.transform(X)
    tables.write(args.out, codes, f"codes of {what}", tables.code_names(model))


def decode(args):
    """Decode codes: the decoder mean of each row."""
    model, facts = load_run(args, "inverse_transform")
    codes = datasets.read(args.codes)
    with about(args.codes), bar("decode"):
        Y = model.inverse_transform(codes)
    names = tables.column_names(model)
    what = f"decoder means of {count(len(Y), 'row')} of {args.codes}"
    tables.write(
        args.out, Y, what, names,
        lambda: plots.samples(Y, facts["image_shape"], "means of p(x|z)", None, names),
    )  # fmt: skip


def score(args):
    """Estimate the log-likelihood of data, and their ELBO where there is one."""
    model, facts = load_run(args)
    X, what = load_rows(args, model, facts)
    if model.score_kind is None:
        raise ValueError(
            f"score needs a model with ln p(x), and {args.model} is a {model.program.NAME}, which "
            "has no likelihood; minivae sample shows what it is worth"
        )
    note_on_data(model, X)
    if args.ais and not hasattr(model, "ais"):
        raise ValueError(
            f"score --ais needs a model with latent codes, and {args.model} is a "
            f"{model.program.NAME}, which has none; leave --ais away"
        )
    with bar("score"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of grey data: the note has said it
        values = scores.of_rows(model, X, args.n_samples)
        found = scores.lines(model, X, values, args.ais)
    draws = f", {count(args.n_samples, 'draw')} for each" if hasattr(model, "elbo") else ""
    print(f"{what}{draws}: mean +- standard error in nats per row")
    print("\n".join(found))
    if args.out:
        rows = np.column_stack([np.arange(len(X)), *values.values()])
        tables.write(args.out, rows, f"scores of {what}, counted from 0", ["row", *values])


def gradcheck(args):
    """Compare every gradient of a model with finite differences."""
    model, facts = load_run(args)
    X, what = load_rows(args, model, facts)
    note(f"{describe(model)}; the first {min(args.rows, len(X))} of {what}")
    report = model.check_gradients(X[: args.rows], max_coordinates=args.max_coordinates)
    print(report)
    return 0 if report.passed else 1


def trace(args):
    """Show every array of one batch: forward and gradient, in the order of the step."""
    model, facts = load_run(args)
    X, what = load_rows(args, model, facts)
    found = model.trace(X[: args.rows])
    note(f"{describe(model)}; the first {min(args.rows, len(X))} of {what}")
    print(found)
    if args.out:
        content = io.BytesIO()
        np.savez(content, **{name.replace("/", "_"): array for name, array in found.items()})
        storage.replace(args.out, content.getbuffer())
        print(f"{args.out}: {len(found)} arrays")


def info(args):
    """Show what a model file holds."""
    model, _ = load_run(args)
    lines = {name: repr(value) for name, value in model.get_params().items()}
    lines |= {name: f"{array.dtype} {array.shape}" for name, array in model.parameters_.items()}
    for name, values in model.history_.items():
        if values and np.isfinite(values[-1]):
            lines[name] = f"{values[-1]:.6g} in the last epoch"
    print(f"{args.model}: {args.model.stat().st_size} bytes")
    print(f"{describe(model)}, {count(model.state_.epochs, 'epoch')}")
    if model.schema_:
        print("\n".join(f"  {line}" for line in model.schema_.describe(tables.column_names(model))))
    print("\n".join(f"  {name:22} {line}" for name, line in lines.items()))


def load_run(args, method=None):
    """The model at args.dir, a folder or a file, and {fact: value} from the history beside it.

    Before that, args.out is checked and given its default; args.model is set to the file's path.
    method: what the model must be able to do.
    """
    args.model = runs.model_file(args.dir)
    if args.outputs:
        default = args.outputs[0] and args.model.with_name(args.outputs[0])
        args.out = Path(args.out or default) if args.out or default else None
        if args.out and args.out.suffix not in args.outputs:
            raise ValueError(f"--out must end in {' or '.join(args.outputs[1:])}, got {args.out}")
    facts = runs.read_history(args.model.parent) if args.model.name in runs.FILES else {}
    facts["image_shape"] = getattr(args, "image_shape", None) or facts.get("image_shape")
    model = minivae.load(args.model)
    if method and not hasattr(model, method):
        others = "sample and score work" if model.score_kind else "sample works"
        raise ValueError(
            f"{args.run.__name__} needs a model with latent codes, and {args.model} is a "
            f"{model.program.NAME}, which has none; minivae {others} with it"
        )
    if model.device.startswith("cuda"):
        model.set_params(device="auto")  # this computer may have no GPU
    return model, facts


def load_rows(args, model, facts):
    """Rows of data (n, D) for a command, and words for them.

    Of a file all rows, of a data set by name or of the run's own data the held-out ones. Columns
    that the run did not learn are left out of other files too, if they are there.
    """
    label, drop = facts.get("label"), tuple(facts.get("drop") or ())
    if args.data and args.data not in datasets.NAMES:
        choice = Choice(args.label, args.drop or (), optional=(label, *drop))
        table = datasets.read_table(args.data, choice)
        what = f"{count(len(table.values), 'row')} of {args.data}"
        for line in table.notes:
            note(f"{args.data}: {line}")
        with about(what):
            X = tables.as_known(framed(table), table.names, model)
    else:
        name, folder = args.data or facts.get("data"), args.data_dir or facts.get("data_dir")
        if name is None:
            raise ValueError(
                f"DATA is needed: no {runs.HISTORY} beside {args.model} says what it was"
            )
        unknown = f"DATA is needed, as that of {runs.HISTORY} cannot be read"
        with contextlib.nullcontext() if args.data else about(unknown):
            if args.data:
                label, drop = None, ()
            data = datasets.load(name, folder, facts.get("test_fraction", 0.1),
                                 label=args.label or label, drop=args.drop or drop)  # fmt: skip
            X = tables.as_known(data.test, data.names, model)
        what = f"{count(len(X), 'held-out row')} of {name}"
    with about(what):
        model.check_data(X)
        for line in tables.unlike(model, X):
            note(line)
    return X, what


def note(line):
    """Print a line beside the results."""
    if sys.stderr:  # it may be closed
        print(line, file=sys.stderr)


def note_on_data(model, X, say=note):
    """Say what the Bernoulli "likelihood" of grey values is, and that a table wants one scale."""
    if model.takes_tables:  # which has a scale for each column
        return
    X = tables.numbers(X)
    X = X[:, ~np.isnan(X).all(axis=0)]
    size = max(abs(np.nanmean(X, axis=0)).max(initial=0), np.nanstd(X, axis=0).max(initial=0))
    if not model.is_bernoulli and size > 5:
        say(f"note: columns have means or standard deviations up to {size:.3g}, and one noise "
            "variance serves all; scale each to mean 0 and standard deviation 1 first")  # fmt: skip
    grey = model.is_bernoulli and not getattr(model, "binarize", None)
    if grey and np.any((X > 0) & (X < 1)):
        say("note: grey data, so nats of a cross-entropy; for likelihoods: --binarize stochastic")


def describe(model):
    """Family, shape and size of a model in one line."""
    shape = [
        f"{name} {shown(value) or 'none'}"
        for name, value in model.plan_settings().items()
        if name in model.SETTINGS and is_told(model.SETTINGS[name], value)
    ]
    n_parameters = sum(array.size for array in model.parameters_.values())
    n = model.n_features_in_
    of = f"a table of {count(n, 'column')}" if model.schema_ else f"{n} features"
    words = ", ".join([f"{model.program.NAME} of {of}", *shape])
    return f"{words}: {n_parameters} parameters"


def is_told(setting, value):
    """Whether a line on a model says a setting: the sizes always, others if they are not usual."""
    return setting.kind in ("whole", "sizes") or value != setting.default


@contextlib.contextmanager
def bar(what):
    """On a terminal, a bar of the rows that are done, where a pass over them takes long."""
    from minivae.data.rows import watched
    from minivae.training.progress import PassBar

    with PassBar(what) as tell, watched(tell):
        yield


@contextlib.contextmanager
def about(what):
    """Begin the message of an error in data with what they are."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError, RecursionError) as error:
        raise ValueError(f"{what}: {error}") from error
