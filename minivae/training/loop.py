"""Epochs and chunks of batches around a trainer, and what is remembered of them."""

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minivae.data.rows import chunk, fetch, located, streamed
from minivae.engine.layout import Layout
from minivae.engine.machine import Machine
from minivae.engine.state import Record, State
from minivae.engine.task import Recipe
from minivae.kernels import BINARIZE, OPTIMIZERS
from minivae.kernels.optimizers import FACTS
from minivae.training.divergence import first_fault
from minivae.training.interrupts import defer_signals
from minivae.training.order import Order
from minivae.training.progress import Progress
from minivae.training.stopping import best_epoch, held_out_scores, out_of_patience

MOST_STEPS = 2**32  # a step's number is one word of a random number's counter
# id of a model: the call that trains it. A lock in the model itself could not be pickled.
_in_training = {}
if hasattr(os, "register_at_fork"):  # the threads that train stay behind
    os.register_at_fork(after_in_child=_in_training.clear)


def one_at_a_time(method):
    """The method, but RuntimeError while another call trains the same model."""

    @functools.wraps(method)
    def call(self, *args, **options):
        mine = object()
        if _in_training.setdefault(id(self), mine) is not mine:  # one operation: no race
            raise RuntimeError(
                "this estimator is being trained by another thread: wait, or train a clone"
            )
        try:
            return method(self, *args, **options)
        finally:
            del _in_training[id(self)]

    return call


@contextlib.contextmanager
def unchanged_by_errors(model):
    """If the block fails, by a full disk or no memory, the model is what it was before."""
    before = vars(model).copy()
    try:
        yield
    except BaseException:
        vars(model).clear()
        vars(model).update(before)
        raise


@dataclass
class Run:
    """A model in training: everything but the data and who trains."""

    machine: Machine
    layout: Layout
    weights: Callable  # (n_terms,) of the loss in an epoch, counted from 0
    recipe: Recipe
    rates: list  # of (epochs, learning rate), one after the other; the last one goes on
    state: State
    record: Record
    held_out: object = None  # held_out(X_valid): {name: mean over held-out rows}
    patience: int | None = None  # epochs without a better held-out score, before the end
    watch: object = None  # begin() and end() of an epoch; the latter says whether to stop

    def rate(self, epoch):
        """The learning rate of an epoch, counted from 0."""
        for epochs, rate in self.rates:
            if epoch < epochs:
                return rate
            epoch -= epochs
        return self.rates[-1][1]

    def means(self):
        """What the history keeps of a pass: means over its rows so far, in nats."""
        sums = dict(zip(self.layout.terms, self.state.totals.tolist(), strict=True))
        terms = {name: total / self.state.rows for name, total in sums.items()}
        return {"loss": self.loss(terms.values()), **terms, **score(self.layout.program, terms)}

    def scores(self):
        """The held-out score of each epoch."""
        return held_out_scores(self.record.history, self.layout.program)

    def loss(self, terms):
        """The loss for values of all terms, in the epoch that the state is in."""
        weights = self.weights(self.state.epochs)
        pairs = zip(weights, terms, strict=True)
        return float(sum(weight * term for weight, term in pairs if weight))  # 0 times inf is NaN


def score(program, terms):
    """{name: what is maximised}, for {term: value}: minus the sum of the program's terms, each with
    its own weight in the objective, whatever weight it was given in the loss; {} of a program that
    maximises nothing."""
    if program.SCORE is None:
        return {}
    weights = getattr(program, "score_weights", program.weights)()
    return {program.SCORE[0]: -sum(weight * terms[name] for name, weight in weights.items())}


def make_recipe(settings, seed, rate, binarize, weights):
    """The Recipe for a model's settings."""
    return Recipe(
        optimizer=OPTIMIZERS.index(settings.optimizer),
        learning_rate=rate,
        momentum=float(settings.momentum),
        weight_decay=float(settings.weight_decay),
        beta1=float(getattr(settings, "beta1", 0.9)),  # of families where the usual one will not do
        beta2=0.999,
        epsilon=FACTS[settings.optimizer].epsilon,
        binarize=BINARIZE.index(binarize),
        batch_size=min(int(settings.batch_size), 2**31 - 1),
        seed=seed,
        weights=weights,
    )


def train(run, X, X_valid, last_epoch, trainer, show, keep=None):
    """Train until last_epoch passes over X (n, D) are made, each recorded in the history, or until
    patience with the held-out score has come to its end.

    Goes on in the middle of a pass if the state is there. X_valid (m, D) or None: held-out rows.
    X and X_valid may be a Part.
    show: a progress bar. keep: None, or has batches(), epoch() and end(), called when the state can
    be stored. Ctrl-C, and with `keep` termination, first wait for that. FloatingPointError if the
    loss is no longer finite; the state is as the last good batch left it.
    """
    state, history, n = run.state, run.record.history, X.shape[0]
    if state.epochs >= last_epoch:
        return
    order = Order()
    signals = (signal.SIGINT, signal.SIGTERM) if keep else (signal.SIGINT,)
    progress = Progress(state, n, last_epoch, run.layout.program.SCORE, show)
    with defer_signals(*signals) as interrupted, trainer, progress:
        stop = out_of_patience(run.scores(), run.patience)
        while state.epochs < last_epoch and not stop and not interrupted():
            begin = time.perf_counter()
            if run.watch:
                run.watch.begin()
            while state.rows < n:
                check_room(state)
                try:
                    train_chunk(run, X, trainer, order)
                except FloatingPointError:
                    raise
                except BaseException:  # steps may have been made that are not counted
                    run.record.data = {}  # so that resume, which promises equal bits, refuses
                    raise
                progress.chunk(state, run.means(), history)
                if state.rows == n:
                    break
                if keep and not interrupted():
                    trainer.store()
                    keep.batches()
                if interrupted():
                    break
            if state.rows < n:
                break
            values = run.means() | {"gradient_norm": norm(trainer.gradient)}
            values["seconds"] = time.perf_counter() - begin
            if X_valid is not None:
                trainer.store()
                values |= {f"valid_{name}": value for name, value in run.held_out(X_valid).items()}
            end_epoch(run, values)
            progress.epoch(values, history)
            if run.watch or keep:
                trainer.store()
            stop = out_of_patience(run.scores(), run.patience)
            if run.watch:
                stop |= run.watch.end()
            if keep:
                keep.epoch()
        if keep:
            trainer.store()
            keep.end()


def check_room(state):
    """Raise unless there is a step to make."""
    if state.steps >= MOST_STEPS:
        raise RuntimeError(
            f"training stopped after {state.steps} updates, in epoch {state.epochs + 1}: there are "
            "no random numbers for more. Fit a new model, with a larger batch_size."
        )


def train_chunk(run, X, trainer, order):
    """Some more batches of the pass over X (n, D) that the state is in.

    Steps are numbered through all epochs, and a step's noise depends on its number, so a pass does
    the same however it is cut into chunks.
    """
    state, n, dtype = run.state, X.shape[0], run.state.theta.dtype
    epoch = state.epochs
    recipe = run.recipe._replace(learning_rate=run.rate(epoch), weights=run.weights(epoch))
    batch = min(recipe.batch_size, n)
    most = min(-(-chunk(X, batch, dtype).shape[0] // batch), MOST_STEPS - state.steps)
    rows = order(n, recipe.seed, state.epochs)[state.rows :][: min(trainer.steps, most) * batch]
    data, numbers = located(X, rows)
    if streamed(data):
        data, numbers = fetch(X, rows, dtype), np.arange(rows.size)
    made = trainer.run(recipe, state, data, numbers)
    state.rows += min(made * batch, rows.size)
    state.steps += made
    if made * batch < rows.size:
        trainer.store()
        raise FloatingPointError(_diverged(run, trainer, min(batch, rows.size - made * batch)))
    if not trainer.finite(state):  # by an update, which comes after its loss
        trainer.store()
        views = run.layout.named_views(state.theta).items()
        name = next(name for name, view in views if not np.isfinite(view).all())
        raise FloatingPointError(
            f"{name} became infinite or NaN in epoch {state.epochs + 1}, by batch "
            f"{-(-state.rows // batch)} or shortly before, so training stopped. Go back "
            f"to the last checkpoint, or fit anew. {advice(recipe.learning_rate)}"
        )


def _diverged(run, trainer, B):
    """What happened in a batch of B rows whose loss was not finite, and what to do."""
    layout, state, work = run.layout, run.state, trainer.work
    means = [layout.region_view(work, name, B).mean(dtype=np.float64) for name in layout.terms]
    terms = ", ".join(f"{n} {mean:.3g}" for n, mean in zip(layout.terms, means, strict=True))
    number = state.rows // run.recipe.batch_size + 1
    return (
        f"the loss became {run.loss(means)} ({terms}) in epoch {state.epochs + 1}, batch "
        f"{number}: {first_fault(layout, state.theta, work, B)}. Training stopped before "
        f"that batch changed anything. {advice(run.rate(state.epochs))}"
    )


def advice(rate):
    """What to do when training diverges."""
    return f"Try a learning_rate below {rate:g}, or scale X."


def norm(gradient):
    """The length of the gradient (P,), which explodes before a loss does."""
    return float(np.sqrt(np.square(gradient, dtype=np.float64).sum()))


def end_epoch(run, values):
    """Count the pass and record its values; what was not recorded for an earlier one is NaN. The
    state, which is on the host where there are held-out rows, keeps the best epoch if it shall."""
    history, epochs = run.record.history, run.state.epochs
    for name in [*values, *(history.keys() - values.keys())]:
        past = history.setdefault(name, [])
        past += [np.nan] * (epochs - len(past)) + [values.get(name, np.nan)]
    run.state.epochs += 1
    run.state.begin_pass()
    if run.state.best is not None and best_epoch(run.scores()) == epochs:
        run.state.best[:] = run.state.theta
