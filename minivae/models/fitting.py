"""How a model is trained on data that are checked: what `fit`, `resume` and `partial_fit` share."""

from dataclasses import replace

import numpy as np

from minivae.data import checks
from minivae.data.rows import Part, chunk, fingerprint
from minivae.engine.graph import on_gpu
from minivae.kernels import STREAM_HELD_OUT
from minivae.models import checking, settings
from minivae.training import loop, stopping
from minivae.training.order import shuffled


def passes(n_rows, batch_size, usual=settings.EPOCHS):
    """By default the usual passes, or as many as UPDATES updates take where the data are few."""
    return max(usual, -(-settings.UPDATES // -(-n_rows // batch_size)))


def usual_epochs(model):
    """The passes of most families, unless the model's own says others: its schedule is for them."""
    return getattr(model, "EPOCHS", settings.EPOCHS)


def last_epoch(model, n_rows):
    """How many passes over so many rows `fit` makes, if patience does not end it before."""
    if model.epochs is not None:
        return int(model.epochs)
    settled = model.record_.settled if hasattr(model, "record_") else None
    return settled or passes(n_rows, int(model.batch_size), usual_epochs(model))


def rates(model):
    """The schedule of learning rates. The family's own is for its usual epochs, and grows with them
    where the number is by default too."""
    steps, settled = settings.schedule(model.learning_rate), model.record_.settled
    if settled and steps == settings.schedule(model.SETTINGS["learning_rate"].default):
        steps = [(-(-epochs * settled // usual_epochs(model)), rate) for epochs, rate in steps]
    return steps


def split(model, X, X_valid):
    """(rows of X to train on, rows held out or None), which are X and X_valid where that is given,
    else parts of X as the model's validation_fraction says. They depend on the seed alone."""
    held_out = checking.n_held_out(model, X.shape[0])
    if X_valid is not None:
        checks.warn_of_unlike(X, X_valid)
    if X_valid is not None or not held_out:
        return X, X_valid
    order = shuffled(X.shape[0], model.seed_, 0, STREAM_HELD_OUT)
    return Part(X, np.sort(order[held_out:])), Part(X, np.sort(order[:held_out]))


def fingerprints(model, X, X_valid):
    """{name: what tells these data from others}, for `resume`."""
    given = {"X": X, "X_valid": X_valid}.items()
    return {name: fingerprint(data, model.dtype) for name, data in given if data is not None}


class Training:
    """A model, what it is trained on, and who trains. All memory that it takes is taken here.

    X: what the user gave, which is trained on where it is if that is a GPU; array: it, or a Part
    of it, on the host. patience: as the setting, or None where it does not apply.
    """

    def __init__(self, model, X, array, X_valid=None, patience=None):
        self.model, self.X_valid = model, X_valid
        self.run = loop.Run(model._machine, model.layout_, model._loss_weights, model._recipe(),
                            rates(model), model.state_, model.record_, model._held_out,
                            patience)  # fmt: skip
        m, n_threads = self.run.machine, model.n_threads and int(model.n_threads)
        self.data = array
        if on_gpu(X) and m.name == "cuda":
            self.data = replace(array, of=X) if isinstance(array, Part) else X
        with checks.named_memory(f"batch_size={model.batch_size} on {array.shape[0]} rows"):
            room = chunk(self.data, self.run.recipe.batch_size, model.dtype)
            self.trainer = m.trainer(m, self.run.layout, self.run.recipe, self.run.state, room,
                                     n_threads)  # fmt: skip

    def go(self, last_epoch, keep=None, watch=None):
        """Train until last_epoch passes are made; keep: Checkpoints; watch: of callbacks."""
        self.run.watch, show = watch, bool(self.model.verbose)
        try:
            loop.train(self.run, self.data, self.X_valid, last_epoch, self.trainer, show, keep)
        finally:
            if keep:
                keep.write_best()
        if self.run.state.best is not None:
            self._leave_best()
        if watch:
            watch.close()

    def _leave_best(self):
        """The model gets the parameters of its best epoch, if any epoch had a score, and is then no
        longer what a resumed training could go on from."""
        state = self.run.state
        if stopping.best_epoch(self.run.scores()) is not None:
            state.theta[:] = state.best
        state.best = None
        state.begin_pass()
        self.run.record.data = {}
