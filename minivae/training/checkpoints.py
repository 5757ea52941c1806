"""The files that a training leaves so that it can go on: the last model, and the best one."""

import contextlib
import os
import time
from pathlib import Path

from minivae.files import document, storage
from minivae.training.stopping import best_epoch, held_out_scores

SECONDS = 60.0  # between two checkpoints in the course of an epoch
SHARE = 10.0  # times what the last one took, before the next after an epoch


class Checkpoints:
    """Writes a model to a folder while it trains: the last, and the best by held-out score."""

    def __init__(self, model, folder):
        if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
            raise ValueError(f"checkpoints must be a folder, got {folder!r}")
        self.model, self.folder = model, Path(folder)
        self.written, self.took = time.monotonic(), 0.0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise ValueError(
                f"checkpoints must be a folder, {str(folder)!r} cannot be made one ({error})"
            ) from error

    def check_new(self):
        """Raise if the folder holds a training already, which a new one would replace."""
        there = [n for n in (storage.CHECKPOINT, storage.BEST) if (self.folder / n).exists()]
        if there:
            raise ValueError(
                f"checkpoints: the folder {str(self.folder)!r} holds {' and '.join(there)} of an "
                "earlier training; go on with it: load(...).resume(X, checkpoints=...), or "
                "choose another folder"
            )

    def go_on(self):
        """For one that goes on: keep the best, if it is this training's."""
        with contextlib.suppress(storage.StorageError):
            facts = storage.read(self.folder / storage.BEST)[1]
            ours, past = document.facts_of(self.model), self._scores(facts["history"])
            same = all(facts[name] == ours[name] for name in ("model", "seed", "data"))
            if not same or past != self._scores(ours["history"])[: len(past)]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.folder / storage.BEST)
        self.write()

    def batches(self):
        """After some batches, write now and then."""
        self._write_after(SECONDS)

    def epoch(self):
        """After an epoch, remember the best, and write mostly: where epochs take milliseconds some
        are left out, so that writing takes a tenth of the time."""
        scores = self._scores(self.model.history_)
        if scores and best_epoch(scores) == len(scores) - 1:
            arrays = self.model.state_.arrays(self.model.layout_).items()
            copies = {name: array.copy() for name, array in arrays}
            self.model.record_.best = copies, document.facts_of(self.model)
        self._write_after(SHARE * self.took)

    def end(self):
        """At the end of training, or where it was interrupted, write always."""
        self.write()

    def _scores(self, history):
        return held_out_scores(history, self.model.program)

    def _write_after(self, pause):
        if time.monotonic() - self.written >= pause:
            self.write()

    def write_best(self):
        """Write the best epoch, if that is still to be done."""
        if self.model.record_.best:
            storage.write(self.folder / storage.BEST, *self.model.record_.best)
            self.model.record_.best = ()

    def write(self):
        """Write where training stands, after the best epoch if that is still to be done."""
        begin = time.monotonic()
        self.write_best()
        model = self.model
        storage.write(self.folder / storage.CHECKPOINT, model.state_.arrays(model.layout_),
                      document.facts_of(model))  # fmt: skip
        self.written = time.monotonic()
        self.took = self.written - begin
