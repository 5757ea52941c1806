"""Who runs a program on a processor: a trainer of one or more threads, and a session."""

import copy
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minivae.engine.task import Recipe, Shard, Task, terms

CHUNK_SECONDS = 0.1  # how long compiled code runs between two looks at the clock and at Ctrl-C
WORK_PER_THREAD = 5e6  # multiply-adds of a step below which one more thread does not pay
NO_RECIPE = Recipe(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 1, 0, ())  # for who does not train


def next_pace(steps, seconds):
    """How many steps take CHUNK_SECONDS, if `steps` of them took so long."""
    return max(1, int(steps * min(2.0, CHUNK_SECONDS / seconds)))


def read_only(data):
    """A view of data that cannot be written: one type for compiled code, and a safeguard."""
    data = data.view()
    data.flags.writeable = False
    return data


def make_task(layout, recipe, data, theta, moments, rows, workers=1, carried=None):
    """The Task for batches of up to so many rows, with new room for workspace and gradient."""
    return Task(
        layout.plan, *layout.tables(), layout.constants(theta.dtype), carried, recipe,
        read_only(data), theta, moments, np.zeros_like(theta),
        np.zeros(rows * layout.width, theta.dtype), np.zeros(len(layout.terms)),
        np.zeros(3, np.int64), workers,
    )  # fmt: skip


class Trainer:
    """The threads that train together, and the buffers that they share, for `with`.

    steps is how many of them to run before the next look at the clock. One worker runs in the
    thread that calls, where a debugger can follow it. More have threads of their own, which are
    there before anything is trained: RuntimeError if the system does not give so many.
    """

    def __init__(self, machine, layout, recipe, state, X, n_threads):
        self.machine, self.steps = machine, 1
        batch, one = min(recipe.batch_size, X.shape[0]), machine.name == "reference"
        self.workers = 1 if one else count_threads(n_threads, layout, batch)
        state.carry(batch)
        self.task = make_task(layout, recipe, X[:0], state.theta, state.moments, batch,
                              self.workers, layout.places(state.carried))  # fmt: skip
        self.threads = started(self.workers) if self.workers > 1 else None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.threads:
            self.threads.shutdown()

    @property
    def gradient(self):
        """The gradient (P,) of the last step."""
        return self.task.gradient

    @property
    def work(self):
        """The workspace as the last step left it."""
        return self.task.work

    def store(self):
        """See to it that the State that is trained is on the host: there it is."""

    def finite(self, state):
        """Whether all parameters are."""
        return bool(np.isfinite(state.theta).all())

    def run(self, recipe, state, data, rows):
        """Train on these rows of data; how many steps were made, as in `step.train`."""
        begin = time.perf_counter()
        task = self.task._replace(recipe=recipe, data=read_only(data), totals=state.totals)
        if self.workers == 1:
            made = self.machine.step.train(task, rows, state.steps, 0)
        else:
            made = self._run_together(task, rows, state.steps)
        seconds = time.perf_counter() - begin
        if len(rows) > (self.steps - 1) * recipe.batch_size:  # not the short rest of an epoch
            self.steps = next_pace(self.steps, seconds)
        return made

    def _run_together(self, task, rows, first_step):
        # Workers wait for each other, so none may begin unless all do; Ctrl-C can come in between.
        decided, go = threading.Event(), []

        def work(worker):
            decided.wait()
            if go:
                return self.machine.step.train(task, rows, first_step, worker)

        try:
            jobs = [self.threads.submit(work, worker) for worker in range(self.workers)]
            go.append(True)
        finally:
            decided.set()
        made, *_ = [job.result() for job in jobs]
        return made


def started(workers):
    """A pool of so many threads that all run already."""
    pool, all_there = ThreadPoolExecutor(workers), threading.Event()
    try:
        for _ in range(workers):
            pool.submit(all_there.wait)
    except RuntimeError as error:
        raise RuntimeError(f"n_threads={workers}: too many for this system ({error})") from error
    finally:
        all_there.set()
    return pool


def count_threads(n_threads, layout, batch_size):
    """Workers for one step: as many as asked for, or as there are processors and work for them."""
    if n_threads is None:
        work = 3 * batch_size * layout.repeat * layout.n_parameters
        n_threads = max(1, min(processors(), int(work / WORK_PER_THREAD)))
    return min(n_threads, batch_size)


def count_sessions(machine, n_threads):
    """Threads to use a model with: as many as asked for, or as there are processors; a debugger and
    a GPU want one."""
    return (n_threads or processors()) if machine.name == "cpu" else 1


def processors():
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Session:
    """A program's functions on blocks of up to so many rows, without training.

    Parameters, workspace and what `array` gives stay where the machine computes: the functions of
    `program` and `step` (which take `task` and a batch) and the kernels of `k` run on them. Values
    cross to the host and back by `put`, `upload` and `download` alone. workers: how many threads
    may share work on blocks of rows, each with a session `beside` this one.
    """

    workers = 1

    def __init__(self, machine, layout, weights, theta, rows):
        self.k, self.program, self.step = machine.k, machine.program, machine.step
        self.binarize = machine.task.binarize
        self.layout, self.rows, self._arrays = layout, np.arange(rows), {}
        no_data, no_moments = np.zeros((0, layout.n_features), theta.dtype), theta[:0].reshape(2, 0)
        self.recipe = NO_RECIPE._replace(weights=weights)
        self.task = make_task(layout, self.recipe, no_data, theta, no_moments, rows)

    def beside(self):
        """Another session on the same parameters, with a workspace of its own."""
        other = copy.copy(self)
        other.task, other._arrays = self.task._replace(work=np.zeros_like(self.task.work)), {}
        return other

    def batch(self, B):
        """The batch that B rows are."""
        return Shard(B, 0, B)

    def put(self, values):
        """The batch that rows values (B, D) are, to be loaded as often as one likes."""
        self.task = self.task._replace(data=read_only(values))
        return self.batch(len(values))

    def load(self, batch, binarize=0, seed=0, step=0):
        """The rows that were put, and the noise of a step, as training loads them."""
        recipe = self.recipe._replace(binarize=binarize, seed=seed)
        self._begin_carried(batch)
        self.program.load(self.task._replace(recipe=recipe), self.rows[: batch.B], batch, step)

    def load_x(self, batch):
        """x of the rows that were put, and what of it is known, without any noise."""
        self._begin_carried(batch)
        observed = None
        if "observed" in self.layout.regions:
            observed = self.view("observed", batch.B)
        x = self.view("x", batch.B)
        self.k.gather(self.task.data, self.rows[: batch.B], x, observed)

    def _begin_carried(self, batch):
        """What persists from step to step is 0, as before the first one."""
        for name, place in self.layout.carried.items():
            self.upload(np.zeros((batch.B, place.columns)), self.view(name, batch.B))

    def view(self, name, B):
        """A region of the workspace for B rows, where the machine has it."""
        return self.layout.region_view(self.task.work, name, B)

    def terms(self, B):
        """All terms (n_terms, B), in the order of the layout, where the machine has them."""
        return terms(self.task, B)

    def array(self, name, shape):
        """An array of the machine for the caller's own use, the same one at every call."""
        if name not in self._arrays:
            self._arrays[name] = np.zeros(shape, self.task.theta.dtype)
        return self._arrays[name]

    def tile(self, rows, array):
        """array (B * K, columns) <- rows (K, columns), B times, both of the machine."""
        array.reshape((-1, *rows.shape))[:] = rows

    def upload(self, values, array):
        """array of the machine <- values of the host."""
        array[:] = values

    def download(self, array):
        """An array of the machine on the host, for reading at once."""
        return array
