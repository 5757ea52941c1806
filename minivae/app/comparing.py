"""`minivae compare`: a model of each family on the same rows, and one table of what came of them.

Every family is trained for the same time on the same bits, and asked the same things. What it says
of its score (exact, a bound, an estimate, none) and of its sampling stands in its class, so no line
here knows a family by name. Each model has a folder of its own, so that what is made is kept when
the command is stopped, and is not made again.
"""

import contextlib
import csv
import io
import json
import math
import time
from statistics import median

import numpy as np

import minivae
from minivae.app import commands, plots, runs, tables
from minivae.app.scores import standard_error
from minivae.app.tables import count
from minivae.data import datasets
from minivae.files import storage

FACTS, RESULT = "compare.json", "result.json"
TABLE, MARKDOWN, PICTURE = "compare.csv", "compare.md", "compare.png"
SAME = ("data", "minutes", "seed", "image_shape", "test_fraction")  # of all rows of a table
HELD_OUT = 0.1  # of the rows, to choose the best epoch by
TRIAL = 20  # batches, whose time says how many passes there is time for
TRIAL_SECONDS = 1.0
MANY = 64  # samples that are drawn together
SHOWN = 16  # of which the picture has so many
COLUMNS = {  # of the table: what stands above each
    "model": "model",
    "score": "kind of score",
    "nats": "ln p(x), nats per row",
    "error": "standard error",
    "published": "published, a big model",
    "one_sample_ms": "one sample, ms",
    "many_samples_ms": f"{MANY} samples, ms",
    "sampling": "sampling",
    "codes": "latent code, numbers per row",
    "train_seconds": "training, s",
    "epochs": "epochs",
    "parameters": "parameters",
}

KINDS = """\
Exact: ln p(x) itself. Lower bound: ln p(x) is at least that. Estimate: it may be above ln p(x) or
below. None: the family has no ln p(x). Sequential sampling draws one variable after the other, a
chain runs towards p(x), parallel is one pass."""


def compare(args):
    """Train a model of each family for the same time, and put them side by side in one table."""
    check(args)
    facts = {name: getattr(args, name) for name in SAME}
    data, was_grey = bits(args)
    say = (lambda line: None) if args.quiet else commands.note
    folders = {name: args.out / name for name in args.models}
    models = {name: new_model(name, args, data) for name in args.models}
    # What a command would read again is not what a model was trained on, where that was grey.
    history = {name: getattr(args, name, None) for name in runs.FACTS}
    history |= {"image_shape": data.image_shape, "minivae": minivae.__version__}
    history |= {"data": None} if was_grey else {}
    again = f"the same command; what is done stays in {args.out}"
    with runs.alone_in(args.out), commands.leaving_at_once(again):
        begin(args.out, facts)
        say(f"{args.data}: {len(data.train)} rows to train on, {len(data.test)} to score"
            + ("; grey, so made 0 or 1 by x >= 1/2" if was_grey else ""))  # fmt: skip
        for name, folder in folders.items():
            if not (folder / RESULT).is_file():
                model = trained(models[name], folder, data.train, args, say)
                result = measured(model, data, args)
                model.save(folder / runs.MODEL)
                runs.write_history(folder, history, model, held_out_score=result["nats"])
                text = json.dumps(result, indent=1, allow_nan=False) + "\n"
                storage.replace(folder / RESULT, text.encode())
        # The table has all that the folder has, in the order of the families.
        found = [args.out / name for name in minivae.models.MODELS]
        found = [folder for folder in found if (folder / RESULT).is_file()]
        results = [json.loads((folder / RESULT).read_text(encoding="utf-8")) for folder in found]
        storage.replace(args.out / TABLE, as_csv(results))
        title = f"{args.data}: {count(len(data.test), 'held-out row')}, about {args.minutes:g} " \
                f"minutes of training each, seed {args.seed}"  # fmt: skip
        storage.replace(args.out / MARKDOWN, as_markdown(results, title).encode())
        figure = picture(found, results, data, args.seed)
        tables.save_figure(figure, args.out / PICTURE)
    print(as_markdown(results, title), end="")
    print(f"the table and its picture are in {args.out}: {TABLE}, {MARKDOWN}, {PICTURE}")


# --- before work starts ---------------------------------------------------------------------------


def check(args):
    """Raise for words that are wrong, and for a folder that holds another comparison."""
    if not (math.isfinite(args.minutes) and args.minutes > 0):
        raise ValueError(f"--minutes must be above 0, got {args.minutes}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out: {args.out} is in the way; choose another folder")
    there = args.out.is_dir() and {path.name for path in args.out.iterdir()}
    if there and FACTS not in there:
        raise ValueError(f"--out: the folder {args.out} is not empty; choose another one")


def begin(folder, facts):
    """Write what is compared, or raise where the folder compares something else."""
    facts = json.loads(json.dumps(facts))
    with contextlib.suppress(FileNotFoundError):
        try:
            before = dict(json.loads((folder / FACTS).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / FACTS}: {error}") from error
        changed = [f"--{name.replace('_', '-')} was {before.get(name)}, and is now {facts[name]}"
                   for name in facts if before.get(name) != facts[name]]  # fmt: skip
        if changed:
            raise ValueError(f"--out: {folder} compares other things: {'; '.join(changed)}; choose "
                             "another folder")  # fmt: skip
    storage.replace(folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())


def bits(args):
    """(the data as 0 and 1, whether they were not), which all families can explain in one unit."""
    data = datasets.load(args.data, args.data_dir, args.test_fraction, args.image_shape)
    parts = []
    for X in (data.train, data.test):
        X = np.asarray(X)
        if X.dtype.kind != "f" or not ((X >= 0) & (X <= 1)).all():
            raise ValueError(f"{args.data}: compare needs numbers in [0, 1] and none missing: they "
                             "are made 0 or 1, as only then all scores are ln p(x)")  # fmt: skip
        parts.append(X)
    train, test = ((X >= 0.5).astype(X.dtype) for X in parts)
    was_grey = any(((X > 0) & (X < 1)).any() for X in parts)
    return data._replace(train=train, test=test), was_grey


def new_model(name, args, data):
    """A model of a family, checked, with the settings that such data want."""
    make = minivae.models.find(name)
    given = {"random_state": args.seed, **make.SUITED.get("bits", {})}
    if "patience" in make.SETTINGS:
        given["validation_fraction"] = HELD_OUT
    model = make(**given)
    tables.shape(model, data)
    model.check_data(data.train)
    return model


# --- training for a time --------------------------------------------------------------------------


def trained(model, folder, X, args, say):
    """The model after as many passes as there is time for, or the one that a stopped command left,
    trained to its end. Of a family with a score, the best epoch by rows that it holds out."""
    name = model.program.NAME
    if (folder / storage.CHECKPOINT).is_file():
        model = minivae.load(folder / storage.CHECKPOINT)
        say(f"{name}: going on after {model.state_.epochs} of {model.epochs} epochs")
        train = model.resume
    else:
        n_epochs = passes_in(model, X, 60 * args.minutes)
        say(f"{name}: {count(n_epochs, 'epoch')}")
        model.set_params(epochs=n_epochs, learning_rate=stretched(model, n_epochs))
        if "patience" in model.SETTINGS:
            model.set_params(patience=n_epochs)  # so that it never ends before, and leaves the best
        train = model.fit
    model.set_params(verbose=int(not args.quiet))
    train(X, checkpoints=folder)
    return model


def passes_in(model, X, seconds):
    """How many passes over X there is time for, by a trial on its first rows."""
    rows = X[: TRIAL * int(model.batch_size)]

    def took(n_epochs):
        start = time.perf_counter()
        type(model)(**model.get_params() | {"epochs": n_epochs}).fit(rows)
        return time.perf_counter() - start

    took(1)  # which compiles
    once, n = took(1), 1
    again = once
    while again < TRIAL_SECONDS and n < 2**12:
        n *= 2
        again = took(n)
    each = again if n == 1 else max(again - once, 1e-9) / (n - 1)
    return max(1, round(seconds / (each * len(X) / len(rows))))


def stretched(model, n_epochs):
    """The family's schedule of rates, which is for a usual number of passes, for so many."""
    from minivae.models import fitting, settings  # heavy

    steps = settings.schedule(model.learning_rate)
    total = max(fitting.usual_epochs(model), sum(epochs for epochs, _ in steps))
    return tuple((max(1, round(epochs * n_epochs / total)), rate) for epochs, rate in steps)


# --- what came of it ------------------------------------------------------------------------------


def measured(model, data, args):
    """{column: value} of the table, and None where a family has no such thing."""
    nats = error = None
    if model.score_kind is not None:
        values = model.score_samples(data.test)
        nats, error = float(np.mean(values)), float(standard_error(values))
    return {
        "model": model.program.NAME,
        "score": model.score_kind,
        "nats": nats,
        "error": error if error is not None and math.isfinite(error) else None,
        "published": model.PUBLISHED.get(args.data),
        "one_sample_ms": 1000 * seconds_of(lambda: model.sample(1, 0)),
        "many_samples_ms": 1000 * seconds_of(lambda: model.sample(MANY, 0)),
        "sampling": model.sampling,
        "codes": len(tables.code_names(model)) if hasattr(model, "transform") else None,
        "train_seconds": train_seconds(model.history_["seconds"]),
        "epochs": model.best_epoch_ or model.n_epochs_,
        "parameters": model.layout_.n_parameters,
    }


def train_seconds(epochs):
    """How long all epochs took, by those whose seconds are known: no file keeps them, so that after
    an interruption those before it are not."""
    known = [seconds for seconds in epochs if math.isfinite(seconds)]
    return len(epochs) * sum(known) / len(known) if known else None


def seconds_of(call, repeats=5):
    """Median of some calls, after one that may have to compile."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def as_csv(results):
    """Bytes of the table, a row for each model; what a family has not is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue().encode()


def as_markdown(results, title):
    """The table for people."""
    rows = [[cell(name, result.get(name)) for name in COLUMNS] for result in results]
    texts = ["| " + " | ".join(line) + " |" for line in [COLUMNS.values(), *rows]]
    texts.insert(1, "|" + " --- |" * len(COLUMNS))
    return "\n".join([title, "", *texts, "", KINDS, ""])


def cell(name, value):
    """A value as the table shows it."""
    if value is None:
        return "none" if name in ("score", "codes") else "-"
    if isinstance(value, float):
        return f"{value:.2f}" if name in ("nats", "error", "published") else f"{value:.3g}"
    return str(value)


def picture(folders, results, data, seed):
    """Rows of the data, and below them samples of each model."""
    n = min(SHOWN, len(data.test))
    drawn = {"data": data.test[plots.spread(len(data.test), n)]}
    for folder, row in zip(folders, results, strict=True):
        nats = "" if row["nats"] is None else f"\n{cell('nats', row['nats'])} nats"
        drawn[f"{row['model']}{nats}"] = minivae.load(folder / runs.MODEL).sample(n, seed)
    return plots.compared(drawn, data.image_shape or (1, data.train.shape[1]))
