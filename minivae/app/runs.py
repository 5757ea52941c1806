"""The folder of a training run: what belongs in it, who may write there, and how it goes on."""

import contextlib
import json
import math
import os
from pathlib import Path

import minivae
from minivae.app.options import option_of
from minivae.data import datasets
from minivae.files import document, storage
from minivae.files.storage import BEST, CHECKPOINT

MODEL, HISTORY = "model.safetensors", "history.json"
PICTURES = (
    "learning_curve.png reconstructions.png samples.png means.png manifold.png latent.png "
    "correlations.png imputed.png"
).split()
FILES = (MODEL, CHECKPOINT, BEST, HISTORY, *PICTURES)  # docs/runs.md says what each is
FACTS = (  # of the command
    *("data", "data_dir", "test_fraction", "image_shape", "label", "drop", "seed"),
)
FREE = ("out", "resume", "quiet", "n_threads", "epochs", "data_dir")  # may differ when going on


def check_folder(folder, overwrite, resume):
    """Raise unless `train` may write into the folder."""
    if overwrite and resume:
        raise ValueError("--resume goes on with a run and --overwrite replaces it: leave one out")
    if folder.is_dir():
        storage.clean(folder)
        there = {path.name for path in folder.iterdir()}
        begun = CHECKPOINT in there or there <= {BEST, HISTORY, *PICTURES}  # killed very early
        if there and not overwrite and not (resume and begun):
            going_on = "" if resume else "go on with an interrupted run: --resume, or "
            raise ValueError(f"--out: the folder {folder} is not empty; choose another one, "
                             f"{going_on or 'or '}replace what an earlier run left there: "
                             "--overwrite")  # fmt: skip
    folders = (folder, *folder.parents)
    for path in (*folders, *(folder / name for name in FILES)):
        right = path.is_dir() if path in folders else path.is_file() and not path.is_symlink()
        if os.path.lexists(path) and not right:
            raise ValueError(f"--out: {path} is in the way; move it, or choose another folder")


@contextlib.contextmanager
def alone_in(folder):
    """Make the folder, and raise if another process trains there."""
    folder.mkdir(parents=True, exist_ok=True)
    with storage.locked(folder) as alone:
        if not alone:
            raise ValueError(f"--out: another minivae train is at work in {folder}")
        yield


def remove_results(folder):
    """Remove what an earlier run left, other files stay."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def write_history(folder, facts, model=None, held_out_score=None):
    """Write the facts of a run, and of a trained model what became of it: see docs/runs.md."""
    if model:
        finite = held_out_score is not None and math.isfinite(held_out_score)
        name, _ = model.program.SCORE or (None, None)
        facts = {**facts, "model": model.program.NAME, "history": document.plain(model.history_),
                 "score": name, "held_out_score": held_out_score if finite else None}  # fmt: skip
    text = json.dumps(facts, indent=1, sort_keys=True, allow_nan=False) + "\n"
    storage.replace(folder / HISTORY, text.encode())


def read_history(folder):
    """The facts of the run in the folder; none if it left none."""
    path = folder / HISTORY
    if not path.is_file():
        return {}
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        return {"label": None, "drop": None, **facts}  # which files of 0.1.0 have not
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def family_of(folder):
    """The name of the family of the run in the folder, as its checkpoint has it; None without one
    that can be read, which `reopen` will say."""
    try:
        return storage.read(folder / CHECKPOINT)[1].get("model")
    except storage.StorageError:
        return None


def reopen(folder, given):
    """(model, facts) of the run in the folder, or None if there is none.

    given {option: value}: what the command line says; ValueError lists what was different then.
    """
    if not (folder / CHECKPOINT).is_file():
        return None
    from minivae.models.settings import image_size  # heavy

    model, facts = minivae.load(folder / CHECKPOINT), read_history(folder)
    if not facts.keys() >= set(FACTS):
        raise ValueError(f"--resume: {folder / HISTORY} does not say what the data were; go on in "
                         "Python: minivae.load(...).resume(X)")  # fmt: skip
    before = model.get_params() | {name: facts[name] for name in FACTS}
    before["model"] = model.program.NAME
    if -1 in (given.get("image_shape") or ()):
        given = given | {"image_shape": image_size(given["image_shape"], model.n_features_in_)}
    if {given.get("data"), facts["data"]}.isdisjoint(datasets.NAMES):
        before.pop("data")  # a file may have moved; what is in it will be compared
    lines = [
        f"{_option(model, name)} was {before[name]!r}, and is now {value!r}"
        for name, value in given.items()
        if name not in FREE and name in before and not _is_same(before[name], value)
    ]
    begun = model.state_.epochs + (model.state_.rows > 0)
    if given.get("epochs", begun) < begun:
        lines.append(f"--epochs is {given['epochs']}, and {begun} have begun")
    if lines:
        raise ValueError(f"--resume: not the run in {folder}: {'; '.join(lines)}")
    return model, facts


def _option(model, name):
    setting = model.SETTINGS.get(name)
    return option_of(name, setting) if setting else f"--{name.replace('_', '-')}"


def check_begun(folder, data):
    """Raise if a run that has no checkpoint yet was begun with other data."""
    before = read_history(folder).get("data")
    if before not in (None, data):
        raise ValueError(f"--resume: the run in {folder} was begun with the data {before}, but not "
                         "with a checkpoint: say all its options again")  # fmt: skip


def check_still(folder, model):
    """Raise if the checkpoint is no longer the one that the model was loaded from."""
    facts = storage.read(folder / CHECKPOINT)[1]
    if (facts["steps"], facts["epochs"]) != (model.state_.steps, model.state_.epochs):
        raise ValueError(f"--out: another minivae train was at work in {folder}; look, and go on")


def _is_same(before, value):
    """Whether an option says what was; of a dict, of which more may be known, for what it says."""
    if isinstance(before, dict) and isinstance(value, dict):
        before = {key: before.get(key) for key in value}
    return _plain(before) == _plain(value)


def _plain(value):
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def model_file(place):
    """Path of the model that is meant by a run's folder or a model file."""
    path = Path(place, MODEL) if Path(place).is_dir() else Path(place)
    if path.is_file():
        return path
    if path.with_name(CHECKPOINT).is_file():
        raise FileNotFoundError(
            f"DIR: the run in {path.parent} is not complete; go on with it: minivae train --resume "
            f"--out {path.parent}, or use its last checkpoint: {path.with_name(CHECKPOINT)}"
        )
    raise FileNotFoundError(f"DIR: there is no {path}; minivae train --out DIR makes one")
