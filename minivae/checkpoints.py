"""What files say of a model, and the files that a training leaves so that it can go on.

A model file holds all that training needs to go on bit for bit: parameters, the optimiser's
moments, where the pass stands, and the seed; every random number is a function of that.
"""

import contextlib
import os
import time
from numbers import Integral
from pathlib import Path

import numpy as np

from minivae import storage
from minivae.training import SQUARES, State
from minivae.validation import check_settings

SECONDS = 60.0  # between two checkpoints in the course of an epoch
SHARE = 10.0  # times what the last one took, before the next after an epoch
KIND = "VAE"  # the one kind of model that there is


class Checkpoints:
    """Writes the model to a folder while it trains: the last, and the best by held-out ELBO."""

    def __init__(self, model, folder):
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ValueError(f"checkpoints must be a folder, got {folder!r}")
        self.model, self.folder = model, Path(folder)
        self.written, self.took = time.monotonic(), 0.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"checkpoints must be a folder, {str(folder)!r} cannot be made one ({error})"
            ) from error

    def check_new(self):
        """Raise if the folder holds a training already, which a new one would replace."""
        there = [n for n in (storage.CHECKPOINT, storage.BEST) if (self.folder / n).exists()]
        if there:
            raise ValueError(
                f"checkpoints: the folder {str(self.folder)!r} holds {' and '.join(there)} of an "
                "earlier training; go on with it: VAE.load(...).resume(X, checkpoints=...), or "
                "choose another folder"
            )

    def go_on(self):
        """For one that goes on: keep the best, if it is this training's."""
        with contextlib.suppress(storage.StorageError):
            facts = storage.read(self.folder / storage.BEST)[1]
            ours, past = facts_of(self.model), facts["history"].get("valid_elbo", [])
            same = all(facts[name] == ours[name] for name in ("seed", "data", "n_features"))
            if not same or past != ours["history"].get("valid_elbo", [])[: len(past)]:
                self._remove_best()
        self.write()

    def __call__(self, event):
        """After "batches" write now and then, after an "epoch" mostly, at the "end" always.

        Where epochs take milliseconds some are left out, so that writing takes a tenth of the time.
        """
        state = self.model._state
        *before, now = self.model.history_.get("valid_elbo") or [np.nan]
        if event == "epoch" and now > np.nanmax([-np.inf, *before]):
            arrays = {name: array.copy() for name, array in state.arrays().items()}
            state.best = arrays, facts_of(self.model)
        pause = {"batches": SECONDS, "epoch": SHARE * self.took, "end": 0.0}[event]
        if time.monotonic() - self.written >= pause:
            self.write()

    def write_best(self):
        """Write the best epoch, if that is still to be done when training ends."""
        if self.model._state.best:
            storage.write(self.folder / storage.BEST, *self.model._state.best)
            self.model._state.best = ()

    def write(self):
        """Write where training stands, after the best epoch if that is still to be done."""
        begin = time.monotonic()
        self.write_best()
        storage.write(self.folder / storage.CHECKPOINT, self.model._state.arrays(),
                      facts_of(self.model))  # fmt: skip
        self.written = time.monotonic()
        self.took = self.written - begin

    def _remove_best(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / storage.BEST)


def facts_of(model):
    """All of a model that is not an array, for `storage.write`."""
    state, settings = model._state, model.get_params()
    if not isinstance(model.random_state, Integral):
        settings["random_state"] = None  # seed_ says what it stood for
    del settings["verbose"]  # it is of the user, not of the model
    return {
        "model": KIND,
        "settings": settings,
        "n_features": model.n_features_in_,
        "feature_names": list(getattr(model, "feature_names_in_", [])),
        "seed": model.seed_,
        "epochs": state.epochs,
        "steps": state.steps,
        "rows": state.rows,
        "totals": state.totals.tolist(),
        "data": state.data,
        "history": plain(state.history),
    }


def plain(history):
    """A history for files: without the seconds, None for what is not finite, as JSON has none."""
    return {
        name: [value if np.isfinite(value) else None for value in values]
        for name, values in history.items()
        if name != "seconds"
    }


def load(make, path, part):
    """The model at path, made by make(**settings); of part "encoder" or "decoder" only that."""
    if part not in (None, "encoder", "decoder"):
        raise ValueError(f'part must be "encoder", "decoder" or None for all, got {part!r}')
    arrays, facts = storage.read(path)
    try:
        if facts["model"] != KIND:
            raise ValueError(f"it is a {facts['model']!r}, and only {KIND!r} is known")
        settings = dict(facts["settings"])
        settings["hidden_layer_sizes"] = tuple(settings["hidden_layer_sizes"])
        if len(settings["hidden_layer_sizes"]) > len(arrays):  # a trap, of very many layers
            raise ValueError("it has more hidden layers than arrays")
        model = make(**settings)
        model._validate_params()
        check_settings(model)  # but not the device: that is of the computer it was trained on
        check_facts(facts)
        plan = model._make_plan(facts["n_features"])
        storage.compare(path, arrays, State.unmade(plan, model.dtype).arrays())
        seed, state = model._new_state(plan, facts["seed"])
    except (
        AttributeError,
        KeyError,
        NotImplementedError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        raise storage.StorageError(f"{path}: does not describe a VAE ({error})") from error
    model.n_features_in_ = facts["n_features"]
    if facts["feature_names"]:
        model.feature_names_in_ = np.array(facts["feature_names"], dtype=object)
    model._start(seed, state, part)
    state.epochs, state.steps, state.rows = facts["epochs"], facts["steps"], facts["rows"]
    state.totals[:], state.data = facts["totals"], facts["data"]
    state.history = {
        name: [float("nan") if value is None else value for value in values]
        for name, values in facts["history"].items()
    } | {"seconds": [float("nan")] * facts["epochs"]}
    for name, target in state.arrays().items():
        if part in (None, name.split(".")[0]):
            target[...] = arrays[name]
    squares = SQUARES.get(model.optimizer)
    if squares is not None and (state.moments[squares] < 0).any():
        raise storage.StorageError(f"{path}: {model.optimizer}'s sums of squares are negative")
    return model


def check_facts(facts):
    """Raise unless the facts of a model file are of the kinds that `facts_of` gives.

    Nothing is turned into something else on the way: 3.9 is no number of features.
    """
    # Steps and epochs are words of a random number's counter.
    for name, low, high in (("n_features", 1, 2**31), ("seed", 0, 2**63), ("epochs", 0, 2**32),
                            ("steps", 0, 2**32), ("rows", 0, 2**63)):  # fmt: skip
        if type(facts[name]) is not int or not low <= facts[name] < high:
            raise ValueError(
                f"{name} must be a whole number from {low} to {high - 1}, got {facts[name]!r}"
            )
    names, n = facts["feature_names"], facts["n_features"]
    if type(names) is not list or not all(type(name) is str for name in names):
        raise ValueError("feature_names must be a list of words")
    if names and len(set(names)) != n:
        raise ValueError(f"feature_names must be {n} different words, one per feature, or none")
    if len(facts["totals"]) != 2 or not all(map(is_number, facts["totals"])):
        raise ValueError(f"totals must be two numbers, got {facts['totals']!r}")
    for name, print_ in facts["data"].items():
        kinds = {key: type(value) for key, value in print_.items()}
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
