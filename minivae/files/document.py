"""What a model file says of a model, and how a model is made of it again.

A file holds all that training needs to go on bit for bit: parameters, the optimiser's moments,
where the pass stands, and the seed; every random number is a function of that. It may come from
anyone, so nothing in it is turned into something else on the way: 3.9 is no number of features.
"""

from numbers import Integral

import numpy as np

from minivae.engine.layout import Layout
from minivae.engine.state import BEST, CARRIED, Record, State
from minivae.files import storage
from minivae.kernels.optimizers import FACTS

WRONG = (AttributeError, KeyError, NotImplementedError, OverflowError, TypeError, ValueError)


def facts_of(model):
    """All of a model that is not an array, for `storage.write`."""
    state, record, settings = model.state_, model.record_, model.get_params()
    if not isinstance(model.random_state, Integral):
        settings["random_state"] = None  # seed_ says what it stood for
    del settings["verbose"]  # it is of the user, not of the model
    return {
        "model": model.program.NAME,
        "settings": {name: pairs(value) for name, value in settings.items()},
        "n_features": model.n_features_in_,
        "schema": model.schema_ and model.schema_.facts(),
        "feature_names": list(getattr(model, "feature_names_in_", [])),
        "seed": model.seed_,
        "epochs": state.epochs,
        "steps": state.steps,
        "rows": state.rows,
        "totals": state.totals.tolist(),
        "data": record.data,
        "settled": record.settled,
        "history": plain(record.history),
    }


def plain(history):
    """A history for files: without the seconds, None for what is not finite, as JSON has none."""
    return {
        name: [value if np.isfinite(value) else None for value in values]
        for name, values in history.items()
        if name != "seconds"
    }


def load(path, part, find):
    """The model at path, of the class that find(name of its family) answers.

    part: one of the class's parts, or None for all. StorageError for a file that is not a whole
    model of a family that is known.
    """
    arrays, facts = storage.read(path)
    try:
        make = find(facts["model"])
        model = make(**{name: unpaired(value) for name, value in facts["settings"].items()})
        check_sizes(model, len(arrays))
        model.check_settings(device=False)  # the device is of the computer it was trained on
        model.schema_ = schema_of(facts, model)
        D = n_features_of(facts, model.schema_)
        model._check_width(D)
        layout = Layout(model.program, D, **model.plan_settings())
        check_facts(facts, layout)
        best = any(name.startswith(BEST) for name in arrays)
        rows = carried_rows(arrays)
        expected = State.unmade(layout, model.dtype, best, rows)
        storage.compare(path, arrays, expected.arrays(layout))
        made = model.new_state(D, facts["seed"])
    except WRONG as error:
        raise storage.StorageError(f"{path}: does not describe a model ({error})") from error
    if part is not None and part not in make.parts:
        raise ValueError(f"part must be one of {', '.join(make.parts) or '(none)'}, or None for "
                         f"all, got {part!r}")  # fmt: skip
    seed, layout, state = made
    state.epochs, state.steps, state.rows = facts["epochs"], facts["steps"], facts["rows"]
    state.totals[:] = facts["totals"]
    state.best = np.zeros_like(state.theta) if best else None
    state.carry(rows)
    model.n_features_in_ = facts["n_features"]
    if facts["feature_names"]:
        model.feature_names_in_ = np.array(facts["feature_names"], dtype=object)
    history = {
        name: [float("nan") if value is None else value for value in values]
        for name, values in facts["history"].items()
    } | {"seconds": [float("nan")] * facts["epochs"]}
    model.become(seed, layout, state, Record(history, facts["data"], facts.get("settled")), part)
    for name, target in state.arrays(layout).items():
        if part in (None, name.split(".")[0]):
            target[...] = arrays[name]
    square = FACTS[model.optimizer].square
    if square is not None and (state.moments[square] < 0).any():
        raise storage.StorageError(f"{path}: {model.optimizer}'s sums of squares are negative")
    return model


def pairs(value):
    """A setting as JSON has it: a dict whose keys may be numbers, as those of columns, by pairs."""
    return {"pairs": list(value.items())} if isinstance(value, dict) else value


def unpaired(value):
    """The setting that `pairs` made a value of."""
    return dict(tuples(value["pairs"])) if isinstance(value, dict) else tuples(value)


def tuples(value):
    """A list of JSON as the tuple that it was."""
    return tuple(tuples(entry) for entry in value) if isinstance(value, list) else value


def check_sizes(model, n_arrays):
    """Raise for a setting that would make far more layers than the file has arrays: a trap."""
    for name, setting in model.SETTINGS.items():
        value = getattr(model, name)
        if setting.kind == "sizes" and isinstance(value, tuple) and len(value) > n_arrays:
            raise ValueError(f"{name} has more entries than the file has arrays")


def carried_rows(arrays):
    """How many rows of what persists from step to step a file has, by the first array of such."""
    return next((len(a) for n, a in arrays.items() if n.startswith(CARRIED) and a.ndim), 0)


def schema_of(facts, model):
    """The Schema of a model of tables, or None."""
    from minivae.data.schema import Schema  # heavy

    schema = None if facts.get("schema") is None else Schema.of(facts["schema"])
    if model.takes_tables != (schema is not None):
        raise ValueError("a model of tables must have a schema, and no other may")
    return schema


def n_features_of(facts, schema):
    """D, which must be known before the layout: of a table, the columns of its numbers."""
    check_range(facts, "n_features", 1, 2**31)
    if schema is None:
        return facts["n_features"]
    if len(schema.columns) != facts["n_features"]:
        raise ValueError("the schema must have n_features columns")
    return schema.width


def check_range(facts, name, low, high):
    if type(facts[name]) is not int or not low <= facts[name] < high:
        raise ValueError(
            f"{name} must be a whole number from {low} to {high - 1}, got {facts[name]!r}"
        )


def check_facts(facts, layout):
    """Raise unless the facts of a model file are of the kinds that `facts_of` gives."""
    # Steps and epochs are words of a random number's counter.
    for name, low, high in (("seed", 0, 2**63), ("epochs", 0, 2**32 + 1), ("steps", 0, 2**32 + 1),
                            ("rows", 0, 2**63)):  # fmt: skip
        check_range(facts, name, low, high)
    if facts.get("settled") is not None:
        check_range(facts, "settled", 1, 2**63)
    names, n = facts["feature_names"], facts["n_features"]
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("feature_names must be a list of words")
    if names and len(set(names)) != n:
        raise ValueError(f"feature_names must be {n} different words, one per feature, or none")
    if len(facts["totals"]) != len(layout.terms) or not all(map(is_number, facts["totals"])):
        raise ValueError(
            f"totals must be a number for each of {', '.join(layout.terms)}, "
            f"got {facts['totals']!r}"
        )
    for name, fingerprint in facts["data"].items():
        kinds = {key: type(value) for key, value in fingerprint.items()}
        if kinds != {"rows": int, "features": int, "sha256": str}:
            raise ValueError(f"data must have a fingerprint for {name!r}")
    if facts["data"] and facts["rows"] >= facts["data"]["X"]["rows"]:
        raise ValueError("rows must be fewer than the data have")
    for name, values in facts["history"].items():
        if type(values) is not list or len(values) > facts["epochs"]:
            raise ValueError(f"history must have a list of one value per epoch for {name!r}")
        if not all(value is None or is_number(value) for value in values):
            raise ValueError(f"history has values for {name!r} that are not numbers")
    if facts["epochs"] > len(facts["history"].get("loss", ())):
        raise ValueError(f"history must have the loss of {facts['epochs']} epochs")


def is_number(value):
    """Whether it is a finite number, as JSON has it."""
    return type(value) in (int, float) and np.isfinite(value)
