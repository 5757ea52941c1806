"""Rows of data in and out of the commands: their columns' names, and .csv files of them."""

import csv
import io

import numpy as np

from minivae.data import datasets
from minivae.data.tables import Table, framed
from minivae.files import storage


def load(facts, model=None):
    """The data of a run, for a fitted model as it knows them."""
    data = datasets.load(facts["data"], facts["data_dir"], facts["test_fraction"],
                         facts["image_shape"], facts["label"], facts["drop"] or ())  # fmt: skip
    if model is None:
        return data
    train, test = (as_known(X, data.names, model) for X in (data.train, data.test))
    return data._replace(train=train, test=test)


def check(model, data, facts):
    """Raise unless the model can have both parts of the data. Of a file, all rows are looked at in
    their order before that, so that the row that a message names is that of the file."""
    try:
        model.check_data(data.train)
        model.check_data(data.test)
    except (ValueError, TypeError):
        if facts["data"] not in datasets.NAMES:
            model.check_data(datasets.read(facts["data"], facts["label"], facts["drop"] or ()))
        raise


def column_names(model):
    """The names of a model's columns: those of what it was fitted on, else x1, x2, ..."""
    names = getattr(model, "feature_names_in_", None)
    return [f"x{j + 1}" for j in range(model.n_features_in_)] if names is None else list(names)


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

    names: of the columns, for .csv.
    """
    if path.suffix == ".png":
        save_figure(picture(), path)
    elif path.suffix == ".csv":
        storage.replace(path, as_csv(names, array))
    else:
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        storage.replace(path, content.getbuffer())
    print(f"{path}: {what}")


def save_figure(figure, path):
    """Write a Figure as .png."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    storage.replace(path, content.getbuffer())
