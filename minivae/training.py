"""Epochs, batches and threads around the step of `objective.py`, and what is remembered of them."""

import functools
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from minivae.backend import processors
from minivae.divergence import first_fault
from minivae.evaluation import elbo
from minivae.interrupts import paced, put_off
from minivae.kernels import BINARIZE, OPTIMIZERS, STREAM_ORDER, reference
from minivae.objective import Recipe
from minivae.parameters import Plan, initialise, make_workspace, named_views
from minivae.rows import CHUNK_BYTES, fetch, streamed

WORK_PER_THREAD = (
    5e6  # multiply-adds of a step below which a further thread costs more than it brings
)
EPSILON = {"sgd": 0.0, "adagrad": 1e-10, "adam": 1e-8}  # as in PyTorch
SQUARES = {"adagrad": 0, "adam": 1}  # which of the moments is a sum of squares


_in_training = {}  # by id, of estimators


def one_at_a_time(method):
    """The method, but RuntimeError while another thread trains the same estimator."""

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
    rows: int = 0  # of the pass that is not complete
    totals: np.ndarray = field(default_factory=lambda: np.zeros(2))  # its sums of nll and kl
    history: dict = field(default_factory=dict)  # name: one value per epoch
    data: dict = field(default_factory=dict)  # fingerprints of what `fit` was given
    best: tuple = ()  # arrays and facts of the best epoch by held-out ELBO, while not yet stored

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

    def begin_pass(self):
        """Forget the batches of a pass that is not complete."""
        self.rows = 0
        self.totals[:] = 0

    def arrays(self):
        """{name: view} of all that a file keeps: parameters and the optimiser's moments."""
        arrays = named_views(self.plan, self.theta)
        for slot, moment in enumerate(self.moments):
            views = named_views(self.plan, moment)
            arrays |= {f"optimizer.{slot}.{name}": view for name, view in views.items()}
        return arrays


def train(machine, recipe, state, X, X_valid, last_epoch, crew, show, keep=None):
    """Train state until last_epoch passes over X (n, D) are made, each recorded in its history.

    Goes on in the middle of a pass if state is there. X_valid (m, D) or None: its mean ELBO is
    recorded too. show: a progress bar. keep(event): called with "batches", "epoch" or "end"
    when state could be stored. Ctrl-C, and with `keep` termination, first wait for that.
    FloatingPointError if the loss is no longer finite; state is as the last good batch left it.
    """
    if state.epochs >= last_epoch:
        return
    n = X.shape[0]
    line = "{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
    start = n * state.epochs + state.rows
    bar = tqdm(total=n * last_epoch, initial=start, bar_format=line, desc="compiling",
               disable=not show or sys.stderr is None)  # fmt: skip
    signals = (signal.SIGINT, signal.SIGTERM) if keep else (signal.SIGINT,)
    keep = brought_back(crew, keep) if keep else (lambda event: None)
    with put_off(*signals) as interrupted, crew, bar:
        while state.epochs < last_epoch:
            begin = time.perf_counter()
            while state.rows < n:
                try:
                    train_chunk(recipe, state, X, crew)
                except FloatingPointError:
                    raise
                except BaseException:  # steps may have been made that are not counted
                    state.data = {}  # so that resume, which promises equal bits, refuses
                    raise
                if bar.n == start:
                    bar.unpause()  # what was compiled until now says nothing of the time left
                bar.set_description(f"epoch {state.epochs + 1}", refresh=False)
                bar.set_postfix_str(describe(means(recipe, state), state.history), refresh=False)
                bar.update(n * state.epochs + state.rows - bar.n)
                if state.rows < n:
                    keep("end" if interrupted() else "batches")
                    if interrupted():
                        return
            values = means(recipe, state) | {"gradient_norm": norm(crew.gradient)}
            values["seconds"] = time.perf_counter() - begin
            if X_valid is not None:
                crew.store()
                valid = elbo(machine, state.plan, state.theta, X_valid, recipe.binarize,
                             recipe.seed, n_samples=1)  # fmt: skip
                values["valid_elbo"] = float(valid.mean())
            end_epoch(state, values)
            bar.set_postfix_str(describe(values, state.history))
            keep("epoch")
            if interrupted():
                break
        keep("end")


def train_chunk(recipe, state, X, crew):
    """Some more batches of the pass over X (n, D) that state is in.

    Steps are numbered through all epochs, and a step's noise depends on its number, so a pass does
    the same however it is cut into chunks.
    """
    (n, D), dtype = X.shape, state.theta.dtype
    batch = min(recipe.batch_size, n)
    most = max(1, CHUNK_BYTES // (batch * D * dtype.itemsize)) if streamed(X) else n
    order = crew.order(n, recipe.seed, state.epochs)
    rows = order[state.rows : state.rows + min(crew.steps, most) * batch]
    if streamed(X):
        steps = crew.run(recipe, state, fetch(X, rows, dtype), np.arange(rows.size))
    else:
        steps = crew.run(recipe, state, X, rows)
    state.rows += min(steps * batch, rows.size)
    state.steps += steps
    if steps * batch < rows.size:
        crew.store()
        size = min(batch, rows.size - steps * batch)
        nll, kl = (values[:size].mean(dtype=np.float64) for values in (crew.work.nll, crew.work.kl))
        raise FloatingPointError(
            f"the loss became {nll + recipe.beta * kl} (nll {nll:.3g}, kl {kl:.3g}) in epoch "
            f"{state.epochs + 1}, batch {state.rows // batch + 1}: "
            f"{first_fault(state.plan, state.theta, crew.work, size)}. Training stopped before "
            f"that batch changed anything. {advice(recipe)}"
        )
    if not crew.finite(state):  # by an update, which comes after its loss
        crew.store()
        views = named_views(state.plan, state.theta).items()
        name = next(name for name, view in views if not np.isfinite(view).all())
        raise FloatingPointError(
            f"{name} became infinite or NaN in epoch {state.epochs + 1}, by batch "
            f"{-(-state.rows // batch)} or shortly before, so training stopped. Go back "
            f"to the last checkpoint, or fit anew. {advice(recipe)}"
        )


def advice(recipe):
    """What to do when training diverges."""
    return f"Try a learning_rate below {recipe.learning_rate}, or scale X."


def means(recipe, state):
    """What the history keeps of a pass, means over its rows so far, in nats."""
    nll, kl = (state.totals / state.rows).tolist()
    return {"loss": nll + recipe.beta * kl, "nll": nll, "kl": kl, "elbo": -nll - kl}


def norm(gradient):
    """The length of the gradient (P,), which explodes before a loss does."""
    return float(np.sqrt(np.square(gradient, dtype=np.float64).sum()))


def end_epoch(state, values):
    """Count the pass and record its values; what was not recorded for an earlier one is NaN."""
    for name in [*values, *(state.history.keys() - values.keys())]:
        past = state.history.setdefault(name, [])
        past += [np.nan] * (state.epochs - len(past)) + [values.get(name, np.nan)]
    state.epochs += 1
    state.begin_pass()


def describe(values, history):
    """The line behind the progress bar."""
    held_out = f", held-out {history['valid_elbo'][-1]:.2f}" if history.get("valid_elbo") else ""
    return f"loss {values['loss']:.2f}, ELBO {values['elbo']:.2f}{held_out}"


def brought_back(crew, keep):
    """keep(event) for a state that is on the host in whole, wherever it is trained."""

    def store_and_keep(event):
        crew.store()
        keep(event)

    return store_and_keep


def make_crew(machine, recipe, state, X, n_threads):
    """Whoever trains on X on this machine, threads or a device, with the memory that takes."""
    plan, dtype = state.plan, state.theta.dtype
    if not hasattr(machine, "crew"):
        return Crew(machine, plan, min(recipe.batch_size, X.shape[0]), dtype, n_threads)
    crew = machine.crew(plan, dtype, Order(machine.k))
    if not streamed(X):
        crew.reserve(recipe, X)
    return crew


class Order:
    """The order of n rows in an epoch; the last one is kept, for an epoch is many chunks."""

    def __init__(self, k):
        self.k, self.of, self.rows = k, None, None

    def __call__(self, n, seed, epoch):
        if self.of != (n, seed, epoch):
            self.rows = shuffled(self.k, n, seed, epoch)
            self.of = n, seed, epoch
        return self.rows


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
        self.order = Order(machine.k)

    def __enter__(self):
        self.threads = ThreadPoolExecutor(self.workers)
        return self

    def __exit__(self, *error):
        self.threads.shutdown()

    def store(self):
        """See to it that the State that is trained is on the host: there it is."""

    def finite(self, state):
        """Whether all parameters are."""
        return bool(np.isfinite(state.theta).all())

    def run(self, recipe, state, data, rows):
        """Train on these rows of data; how many steps were made, as in `objective.train`.

        Afterwards `steps` is how many to run before the next look at the clock.
        """
        begin = time.perf_counter()
        data = data.view()
        data.flags.writeable = False  # one type of array for compiled code, and a safeguard
        # Workers wait for each other, so none may begin unless all do; Ctrl-C can come in between.
        told, go = threading.Event(), []

        def work(worker):
            told.wait()
            if go:
                return self.machine.train(
                    state.plan, recipe, data, rows, state.steps, state.theta, state.moments,
                    self.gradient, self.work, state.totals, self.barrier, worker, self.workers,
                )  # fmt: skip

        try:
            jobs = [self.threads.submit(work, worker) for worker in range(self.workers)]
            go.append(True)
        finally:
            told.set()
        made = [job.result() for job in jobs]
        seconds = time.perf_counter() - begin
        if len(rows) > (self.steps - 1) * recipe.batch_size:  # not the short rest of an epoch
            self.steps = paced(self.steps, seconds)
        return made[0]


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
