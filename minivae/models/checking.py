"""What a model checks before it is trained: data, and settings that may not go together."""

from math import ceil

from minivae.data import checks
from minivae.models import tables


def check_new(model, X, schema, name="X"):
    """X with any number of features, as an array that the model can be trained on."""
    array = tables.as_numbers(model, X, model.dtype, schema, name)
    checks.check_something(array, model, name)
    model._check_width(array.shape[1])
    return checks.check_values(array, model, model.dtype, tables.labels(X, schema), name)


def check_both(model, X, X_valid, name="X"):
    """`check_new` of X, and of X_valid, if there is one, by the schema of X."""
    schema = tables.new_schema(model, X)
    array = check_new(model, X, schema, name)
    if X_valid is not None:
        check_valid(model, X_valid, array.shape, X, schema)
    return array


def check_valid(model, X_valid, shape, X, schema):
    """X_valid as an array, if there is one, with the features of X, which has this shape. Raises
    where no rows are held out, or none are left, and the settings want some."""
    if X_valid is not None:
        array = check_new(model, X_valid, schema, "X_valid")
        checks.check_features(array, X_valid, shape[1], X)
        return array
    fraction = float(model.validation_fraction)
    if model.patience is not None and not fraction:
        raise ValueError(
            f"patience={model.patience!r} needs held-out rows, whose score it waits for: set "
            "validation_fraction, such as 0.1, or give X_valid"
        )
    if n_held_out(model, shape[0]) == shape[0]:
        raise ValueError(
            f"validation_fraction={fraction:g} of n_samples={shape[0]} leaves no row to train on: "
            "give more rows, or X_valid"
        )


def n_held_out(model, n_rows):
    """How many rows `validation_fraction` is: one at least, if it is not 0."""
    return ceil(float(model.validation_fraction) * n_rows)


def check_patience(model):
    """Raise where the best epoch so far is to be left and was not kept, or the other way round."""
    if (model.patience is None) != (model.state_.best is None):
        raise ValueError(
            f"patience={model.patience!r} was changed after fit, which kept "
            f"{'no' if model.state_.best is None else 'the'} best epoch: set it back, or call fit "
            "for a new model"
        )


def check_unchanged(model):
    """Raise if a setting that shapes the model is not what the model was made with."""
    now = model.plan_settings()
    changed = [name for name, value in model.layout_.settings.items() if now[name] != value]
    if model.state_.theta.dtype != model.dtype:
        changed.append("dtype")
    if changed:
        raise ValueError(
            f"{', '.join(changed)} was changed after fit; set it back, or call fit for a new model"
        )
