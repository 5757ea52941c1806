"""Between what a user gives and gets, and the numbers that a model learns.

To most models X is numbers (n, D). To one of tables it is a frame, or rows of words and numbers: a
Schema, made once in `fit`, says what its columns are, and how they are written in numbers.
"""

import numpy as np
from sklearn.utils._set_output import _get_container_adapter, _get_output_config

from minivae.data import checks
from minivae.data.schema import Schema


def new_schema(model, X):
    """The Schema of X, on which the model is to be trained; None where X is numbers."""
    return Schema.infer(X, model.schema) if model.takes_tables else None


def as_numbers(model, X, dtype, schema, name="X"):
    """X as numbers (n, D), of which only the form has been looked at."""
    if schema is None:
        return checks.check_form(X, model, dtype, name)
    try:
        with np.errstate(over="ignore"):  # infinity is refused later, with where it is
            return np.ascontiguousarray(schema.encode(X), dtype)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def labels(X, schema):
    """What the columns of `as_numbers` are called; None where they have no names."""
    if schema is None:
        return getattr(X, "columns", None)
    places = schema.places.items()
    return [name for name, place in places for _ in range(place.start, place.stop)]


def as_given(model, values, how, X=None):
    """Numbers (n, D) as the model's users see them: a table as it was in `fit`; or a frame with the
    features' names where `set_output` asks for frames; else they stay an array.

    how: "mean" or "draw", as in Schema.decode. X: a frame whose rows' names they get.
    """
    if model.schema_ is not None:
        return model.schema_.decode(values, how)
    adapter = _get_container_adapter("transform", model)
    if _get_output_config("transform", model)["dense"] == "default" or adapter is None:
        return values
    names = getattr(model, "feature_names_in_", [f"x{j}" for j in range(values.shape[1])])
    index = X if hasattr(X, "columns") else values
    return adapter.create_container(values, index, names, inplace=False)
