"""Rows of data in and out of the commands: their columns' names, and .csv files of them."""

import csv
import io

import numpy as np

from minivae.app.options import shown
from minivae.data import datasets
from minivae.data.tables import Table, framed
from minivae.files import storage

SHOWN = 20  # lines on columns, at most
LEAST_ROWS, FEW_ROWS = 20, 2000  # of a table with few rows, of which some can be held out


def load(facts, model=None):
    """The data of a run, for a fitted model as it knows them."""
    data = datasets.load(facts["data"], facts["data_dir"], facts["test_fraction"],
                         facts["image_shape"], facts["label"], facts["drop"] or ())  # fmt: skip
    if model is None:
        return data
    train, test = (as_known(X, data.names, model) for X in (data.train, data.test))
    return data._replace(train=train, test=test)


def is_suited(make, args):
    """Whether a family takes a run's data as the table that they are: if it has settings for that,
    and none of them was given, nor a shape of images."""
    suited = make.SUITED.get("table", {})
    told = args.given.keys() & {*suited, "image_shape"}
    return bool(suited) and not told and datasets.is_table(args.data)


def shape(model, data):
    """Give a new model of images the shape of the data, if that is known and no other was given."""
    if data.image_shape and getattr(model, "image_shape", data.image_shape) is None:
        model.set_params(image_shape=data.image_shape)


def suit(model, data, given):
    """Settings for a new model of tables that all rows of the data (a Dataset) say.

    The kinds of columns that the rows to train on would be taken for something else by, which are
    fewer and in no order; and, unless they are among those given, settings for missing cells. Lines
    for a person on what was found.
    """
    from minivae.data.columns import LEFT_OUT  # heavy
    from minivae.data.schema import Schema

    schema = Schema.infer(data.whole, model.schema)
    seen = Schema.infer(data.train, model.schema)
    pairs = zip(schema.columns, seen.columns, strict=True)
    changed = {one.name: one.kind for one, other in pairs
               if one.kind != other.kind and other.kind not in LEFT_OUT}  # fmt: skip
    if changed:
        model.set_params(schema={**(model.schema or {}), **changed})
    n_missing = int(schema.missing(data.whole).sum())
    gaps = model.SUITED.get("gaps", {})
    if n_missing and gaps.keys().isdisjoint(given):
        model.set_params(**gaps)
    first = f"a table of {count(len(schema.columns), 'column')}, {count(n_missing, 'missing cell')}"
    if schema.left_out:
        first += f", {count(len(schema.left_out), 'column')} left out"
    told = {**model.SUITED.get("table", {}), **gaps}
    first += "; " + ", ".join(f"{name} {getattr(model, name)}" for name in told)
    described = schema.describe(data.names or numbered(len(schema.columns)))
    return [first, *suit_few(model, len(data.train), given), *few(described)]


def suit_few(model, n_rows, given):
    """Settings for a table of few rows, for a new model, unless they are among those given; a line
    on them."""
    settings = {n: v for n, v in model.SUITED.get("few rows", {}).items() if n not in given}
    if not settings or not LEAST_ROWS <= n_rows < FEW_ROWS:
        return []
    model.set_params(**settings)
    return ["few rows: " + ", ".join(f"{name} {shown(v)}" for name, v in settings.items())]


def few(lines):
    """The first of the lines, and how many more there are."""
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"... and {count(more, 'more column')}"]


def unlike(model, X):
    """A line on columns of X that look unlike those that a model of tables was trained on, if there
    are any."""
    found = model.schema_.unlike(X) if model.schema_ else {}
    if not found:
        return []
    columns = dict(zip(model.schema_.names, column_names(model), strict=True))
    name, (low, high) = next(iter(found.items()))
    known = next(column for column in model.schema_.columns if column.name == name)
    here, there = f"from {low:.4g} to {high:.4g}", f"from {known.low:.4g} to {known.high:.4g}"
    return [f"note: {len(found)} of {count(len(columns), 'column')} look unlike what the model was "
            f"trained on, such as {columns[name]}: {here} here, {there} there; in other units, or "
            "scaled in another way?"]  # fmt: skip


def check(model, data, facts):
    """Raise unless the model can have both parts of the data. Of a file, all rows are looked at in
    their order before that, so that the row that a message names is that of the file."""
    try:
        if hasattr(model, "state_"):
            model.check_data(data.train)
            model.check_data(data.test)
        else:
            model.check_data(data.train, X_valid=data.test)
    except (ValueError, TypeError):
        if facts["data"] not in datasets.NAMES:
            model.check_data(datasets.read(facts["data"], facts["label"], facts["drop"] or ()))
        raise


def column_names(model):
    """The names of a model's columns: those of what it was fitted on, else x1, x2, ..."""
    names = getattr(model, "feature_names_in_", None)
    return numbered(model.n_features_in_) if names is None else list(names)


def numbered(n):
    """Names for n columns that have none."""
    return [f"x{j + 1}" for j in range(n)]


def count(n, noun):
    """So many of them."""
    return f"{n} {noun}{'s' * (n != 1)}"


def learned(model, X):
    """(X without the columns that a model of tables leaves out, the names of its columns)"""
    names = column_names(model)
    if not model.schema_ or not model.schema_.left_out:
        return X, names
    keep = [j for j, name in enumerate(model.schema_.names) if name not in model.schema_.left_out]
    rest = X.iloc[:, keep] if hasattr(X, "iloc") else X[:, keep]
    return rest, [names[j] for j in keep]


def code_names(model):
    """The names of a model's codes, as scikit-learn has them in frames: vae0, vae1, ..."""
    return list(model.get_feature_names_out())


def as_known(X, names, model):
    """Rows of data as a fitted model is to get them, so that scikit-learn compares the names.

    names: those of the columns of X, or None. A model without names gets a matrix; rows without
    names are taken by the order of their columns. Where there is no pandas, X is a matrix all the
    same, and the names are compared here.
    """
    known = getattr(model, "feature_names_in_", None)
    if known is None:
        frame = names is not None and hasattr(X, "dtypes")
        return X.to_numpy() if frame and all(dtype.kind == "f" for dtype in X.dtypes) else X
    if hasattr(X, "columns"):
        return X
    if names is None and X.shape[1] == len(known):
        return framed(Table(tuple(known), X))
    if names not in (None, tuple(known)):
        raise ValueError(
            f"the columns are {', '.join(names)[:400]}, expected those that the model was fitted "
            f"on, in the same order: {', '.join(known)[:400]}"
        )
    return X


def numbers(X):
    """The numbers of X as a matrix: X itself, or the columns of a frame that have no words."""
    if not hasattr(X, "select_dtypes"):
        return X
    return X.select_dtypes(["number", "bool"]).to_numpy(float, na_value=np.nan)


def as_csv(names, X):
    """Bytes of a .csv file that `datasets.read` reads to the same numbers, with names above.

    X: an array (n, len(names)) of numbers, or a frame, which has names of its own.
    """
    text = io.StringIO(newline="")
    if hasattr(X, "to_csv"):
        X.to_csv(text, index=False, lineterminator="\n")
    else:
        # In quotation marks, names that are numbers are a header all the same.
        csv.writer(text, lineterminator="\n", quoting=_quoting(names)).writerow(names)
        digits = 9 if X.dtype == np.float32 else 17  # enough to read the same numbers back
        np.savetxt(text, X, f"%.{digits}g", ",")
    return text.getvalue().encode()


def _quoting(names):
    def number(name):
        try:
            return bool(float(name)) or True
        except ValueError:
            return False

    return csv.QUOTE_ALL if any(map(number, names)) else csv.QUOTE_MINIMAL


def write(path, array, what, names, picture=None):
    """Write an array (n, columns) or a frame, or the Figure that picture() makes of it, and say so.

    names: of the columns, for .csv. ValueError for words where only numbers can be.
    """
    if path.suffix == ".png":
        save_figure(picture(), path)
    elif path.suffix == ".csv":
        storage.replace(path, as_csv(names, array))
    else:
        array = np.asarray(array)
        if array.dtype == object:
            raise ValueError(f"--out: {path} can only hold numbers, and here are words too: .csv")
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        storage.replace(path, content.getbuffer())
    print(f"{path}: {what}")


def save_figure(figure, path):
    """Write a Figure as .png."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    storage.replace(path, content.getbuffer())
