"""Epochs, batches and threads around the step of `objective.py`, and what is remembered of them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minivae.backend import processors
from minivae.evaluation import elbo
from minivae.kernels import BINARIZE, OPTIMIZERS, STREAM_ORDER, reference
from minivae.objective import Recipe
from minivae.parameters import Plan, initialise, make_workspace, named_views
from minivae.rows import CHUNK_BYTES, fetch, streamed

CHUNK_SECONDS = 0.1  # how long compiled code runs between two looks at the clock and at Ctrl-C
WORK_PER_THREAD = (
    5e6  # multiply-adds of a step below which a further thread costs more than it brings
)
EPSILON = {"sgd": 0.0, "adagrad": 1e-10, "adam": 1e-8}  # as in PyTorch
SQUARES = {"adagrad": 0, "adam": 1}  # which of the moments is a sum of squares


def make_recipe(settings, seed):
    """The Recipe for an estimator's settings."""
    return Recipe(
        optimizer=OPTIMIZERS.index(settings.optimizer),
        learning_rate=float(settings.learning_rate),
        momentum=float(settings.momentum),
        weight_decay=float(settings.weight_decay),
        beta1=0.9,
        beta2=0.999,
        epsilon=EPSILON[settings.optimizer],
        beta=float(settings.beta),
        binarize=BINARIZE.index(settings.binarize),
        batch_size=min(int(settings.batch_size), 2**31 - 1),
        seed=seed,
    )


@dataclass
class State:
    """A model in training: all that a step changes, and how far it has come."""

    plan: Plan
    theta: np.ndarray  # (P,) parameters
    moments: np.ndarray  # (2, P) of the optimiser
    epochs: int = 0  # passes made over data
    steps: int = 0  # updates made: the number of the next one
    history: dict = field(default_factory=dict)  # name: one value per epoch

    @classmethod
    def new(cls, plan, seed, dtype):
        """Initial parameters, and the optimiser at rest."""
        theta = initialise(plan, seed, dtype)
        return cls(plan, theta, np.zeros((2, theta.size), dtype))

    @classmethod
    def unmade(cls, plan, dtype):
        """The same in name and shape only: zeros that take no memory and cannot be written."""
        zero = np.zeros((), dtype)
        P = plan.n_parameters
        return cls(plan, np.broadcast_to(zero, P), np.broadcast_to(zero, (2, P)))

    def arrays(self):
        """{name: view} of all that a file keeps: parameters and the optimiser's moments."""
        arrays = named_views(self.plan, self.theta)
        for slot, moment in enumerate(self.moments):
            views = named_views(self.plan, moment)
            arrays |= {f"optimizer.{slot}.{name}": view for name, view in views.items()}
        return arrays


class Progress(NamedTuple):
    """Where an epoch stands; nll and kl are means over the rows seen in it, in nats."""

    rows: int
    nll: float
    kl: float


def train(machine, recipe, state, X, X_valid, n_epochs, n_threads, show):
    """Train state for n_epochs passes over X (n, D), and record each in state.history.

    X_valid (m, D) or None: its mean ELBO is recorded too. show: a progress bar.
    FloatingPointError if the loss is no longer finite.
    """
    total = X.shape[0] * n_epochs
    line = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    batch = min(recipe.batch_size, X.shape[0])
    crew = Crew(machine, state.plan, batch, state.theta.dtype, n_threads)
    with crew, tqdm(total=total, bar_format=line, desc="compiling", disable=not show) as bar:
        for _ in range(n_epochs):
            begin, before = time.perf_counter(), bar.n
            for progress in train_epoch(recipe, state, X, crew):
                values = losses(progress, recipe.beta)
                if not np.isfinite(values["loss"]):
                    raise FloatingPointError(
                        f"the loss became {values['loss']} in epoch {state.epochs + 1} (nll "
                        f"{progress.nll}, kl {progress.kl}), so training stopped. Try a "
                        f"learning_rate below {recipe.learning_rate}, or scale X."
                    )
                if bar.n == 0:
                    bar.unpause()  # what was compiled until now says nothing of the time left
                bar.set_description(f"epoch {state.epochs + 1}", refresh=False)
                bar.set_postfix_str(describe(values, state.history), refresh=False)
                bar.update(before + progress.rows - bar.n)
            if not np.isfinite(state.theta).all():  # by the last update, after its loss
                raise FloatingPointError(
                    f"parameters are no longer finite after epoch {state.epochs}, so training "
                    f"stopped. Try a learning_rate below {recipe.learning_rate}, or scale X."
                )
            values["seconds"] = time.perf_counter() - begin
            if X_valid is not None:
                valid = elbo(machine, state.plan, state.theta, X_valid, recipe.binarize,
                             recipe.seed, n_samples=1)  # fmt: skip
                values["valid_elbo"] = float(valid.mean())
            for name, value in values.items():
                state.history.setdefault(name, []).append(value)
            bar.set_postfix_str(describe(values, state.history))


def losses(progress, beta):
    """What the history keeps of an epoch, in nats per row."""
    nll, kl = progress.nll, progress.kl
    return {"loss": nll + beta * kl, "nll": nll, "kl": kl, "elbo": -nll - kl}


def describe(values, history):
    """The line behind the progress bar."""
    held_out = f", held-out {history['valid_elbo'][-1]:.2f}" if history.get("valid_elbo") else ""
    return f"loss {values['loss']:.2f}, ELBO {values['elbo']:.2f}{held_out}"


def train_epoch(recipe, state, X, crew):
    """One pass over X (n, D) in the epoch's order: yields Progress after each chunk of steps.

    Steps are numbered through all epochs, and a step's noise depends on its number, so an epoch
    does the same however it came to be run.
    """
    (n, D), dtype = X.shape, state.theta.dtype
    batch = min(recipe.batch_size, n)
    most = max(1, CHUNK_BYTES // (batch * D * dtype.itemsize)) if streamed(X) else n
    order = shuffled(crew.machine.k, n, recipe.seed, state.epochs)
    totals, done = np.zeros(2), 0
    while done < n:
        rows = order[done : done + min(crew.steps, most) * batch]
        if streamed(X):
            crew.run(recipe, state, fetch(X, rows, dtype), np.arange(rows.size), totals)
        else:
            crew.run(recipe, state, X, rows, totals)
        done += rows.size
        state.steps += -(-rows.size // batch)
        nll, kl = (totals / done).tolist()
        yield Progress(done, nll, kl)
    state.epochs += 1


class Crew:
    """The threads that train together, and the buffers that they share, for `with`.

    steps is how many of them to run before the next look at the clock.
    """

    def __init__(self, machine, plan, batch, dtype, n_threads):
        self.machine, self.steps = machine, 1
        self.workers = 1 if machine.k is reference else count_threads(n_threads, plan, batch)
        self.work = make_workspace(plan, batch, dtype)
        self.gradient = np.empty(plan.n_parameters, dtype)
        self.barrier = np.zeros(3, np.int64)

    def __enter__(self):
        self.threads = ThreadPoolExecutor(self.workers)
        return self

    def __exit__(self, *error):
        self.threads.shutdown()

    def run(self, recipe, state, data, rows, totals):
        """Train on these rows of data; afterwards `steps` is what takes CHUNK_SECONDS."""
        begin = time.perf_counter()
        data = data.view()
        data.flags.writeable = False  # one type of array for compiled code, and a safeguard
        # Workers wait for each other, so none may begin unless all do; Ctrl-C can come in between.
        told, go = threading.Event(), []

        def work(worker):
            told.wait()
            if go:
                self.machine.train(
                    state.plan, recipe, data, rows, state.steps, state.theta, state.moments,
                    self.gradient, self.work, totals, self.barrier, worker, self.workers,
                )  # fmt: skip

        try:
            jobs = [self.threads.submit(work, worker) for worker in range(self.workers)]
            go.append(True)
        finally:
            told.set()
        for job in jobs:
            job.result()
        seconds = time.perf_counter() - begin
        if len(rows) > (self.steps - 1) * recipe.batch_size:  # not the short rest of an epoch
            self.steps = max(1, int(self.steps * min(2.0, CHUNK_SECONDS / seconds)))


def count_threads(n_threads, plan, batch_size):
    """Workers for one step: as many as asked for, or as there are processors and work for them."""
    if n_threads is None:
        work = 3 * batch_size * plan.n_parameters
        n_threads = max(1, min(processors(), int(work / WORK_PER_THREAD)))
    return min(n_threads, batch_size)


def shuffled(k, n, seed, epoch):
    """The order of n rows in an epoch: a permutation that depends on (seed, epoch) alone.

    Rows are sorted by random words; a row's own number below its word decides between equals.
    """
    words = np.empty((1, n), np.uint32)
    k.random_words(seed, STREAM_ORDER, epoch, 0, words)
    keys = words[0].astype(np.uint64)  # in place from here on: n may be large
    keys <<= np.uint64(32)
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(2**32 - 1)
    return keys.view(np.int64)
