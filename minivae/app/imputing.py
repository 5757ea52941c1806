"""`minivae impute`: a table with its missing cells filled in."""

import warnings
from pathlib import Path

import minivae
from minivae.app import commands, tables
from minivae.app.commands import about, bar, note
from minivae.app.options import option_of, settings_of
from minivae.app.tables import count
from minivae.data import datasets
from minivae.data.tables import Choice, framed
from minivae.files import storage

KINDS = (".csv", ".tsv", ".parquet")


def impute(args):
    """Fill in the missing cells of a table, by a model of it or by one that was trained before."""
    from minivae.data import filling  # heavy

    path, out = Path(args.data), args.out
    check_files(path, out)
    model, facts, past = model_for(args)
    left_out = (facts.get("label"), *(facts.get("drop") or ()))
    choice = Choice(None, args.drop or (), optional=left_out)
    table = datasets.read_table(path, choice)
    X = framed(table)
    say = (lambda line: None) if args.quiet else note
    for line in table.notes:
        say(f"{path}: {line}")
    with about(path):
        X = tables.as_known(X, table.names, model) if past else X
        model.check_data(X)
    missing, found = filling.gaps(X), []
    if missing.any():
        if not past:
            train(model, X, say, args.quiet)
        for line in tables.unlike(model, X):
            note(line)
        with about(path), bar("impute"):
            filled = model.impute(X, random_state=args.seed)
        places = filling.places_in(path, table.names, choice)
        found = filling.fillings(X, filled, places)
    storage.replace(out, filling.fill(path, table.names is not None, found))
    n = sum(len(one.rows) for one in found)
    if not missing.any():
        print(f"{out}: no cell of {path} is missing; it is a copy")
        return
    print(f"{out}: {n} of {count(int(missing.sum()), 'missing cell')} filled in, by column:")
    print("\n".join(by_column(tables.column_names(model), missing, places, found)))


def check_files(path, out):
    """Raise unless DATA can be a table, and --out is another file of its kind."""
    if not datasets.is_table(path):
        raise ValueError(
            f"DATA must be a table, {', '.join(KINDS)}, got {path}; the model's impute(X) in "
            "Python takes arrays too"
        )
    kinds = KINDS[2:] if path.suffix.lower() == ".parquet" else KINDS[:2]
    if out.suffix.lower() not in kinds:
        raise ValueError(f"--out must end in {' or '.join(kinds)}, as {path} does, got {out}")
    if out.exists() and path.exists() and out.samefile(path):
        raise ValueError(f"--out: {out} is DATA itself; choose another file")


def model_for(args):
    """(model, facts of its run, whether it is trained): that of --from, or a new one."""
    if past := vars(args)["from"]:
        make = minivae.models.find(args.model)
        told = [option_of(name, s) for name, s in make.SETTINGS.items() if name in args.given]
        told += ["--model"] * ("model" in args.given)
        if told:
            raise ValueError(f"--from is a trained model, which has its settings: leave {told[0]} "
                             "out")  # fmt: skip
        args.dir = past
        return *commands.load_run(args, "impute"), True
    make = minivae.models.find(args.model)
    if not hasattr(make, "impute"):
        raise ValueError(f"--model {args.model} has no way to impute: choose another one")
    suited = {n: v for n, v in make.SUITED.get("imputing", {}).items() if n not in args.given}
    model = make(**settings_of(args.model, args.given) | suited | {"random_state": args.seed})
    model.check_settings()
    return model, {}, False


def train(model, X, say, quiet):
    """Train a new model on the table that it is to fill in."""
    model.set_params(verbose=int(not quiet))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # overflow: fit says what it comes to
        model.fit(X)
    for line in tables.few(model.schema_.describe(tables.column_names(model)) if model.schema_
                           else []):  # fmt: skip
        say(line)
    say(f"{commands.describe(model)}, trained on {count(len(X), 'row')} in "
        f"{count(model.n_epochs_, 'epoch')}")  # fmt: skip


def by_column(names, missing, places, found):
    """Lines on the columns that have missing cells."""
    filled = {one.place: len(one.rows) for one in found}
    wide = max(len(name) for name, n in zip(names, missing, strict=True) if n)
    for name, n, place in zip(names, missing, places, strict=True):
        k = filled.get(place, 0)
        if n:
            left = f", {n - k} stay empty: the model has nothing to say of them" if k < n else ""
            yield f"  {name:<{wide}}  {k}{left}"
