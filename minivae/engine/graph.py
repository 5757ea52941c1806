"""Who runs a program on a device: a trainer that replays one captured step, and a session.

The program is that of every machine. What a step needs that changes (its number, the rows, the
learning rate) is on the device, so that a step is captured once for each size of batch, as a graph
of kernels, and replayed.
"""

import functools
import time

import numpy as np

from minivae.engine import step, threads
from minivae.engine.program import bind
from minivae.engine.task import Task
from minivae.kernels import tables
from minivae.kernels.support.launches import Control, Counter, Rate, Rows, check_dtype, contiguous

FIRST_CHUNK = 16  # steps
MARGIN = 0.95  # of the memory that is free, as allocations are rounded up


def in_turn(method):
    """The method, one thread after the other: a device has one stream, for one capture."""

    @functools.wraps(method)
    def call(self, *arguments):
        with self.device.lock:
            return method(self, *arguments)

    return call


def make_task(device, layout, recipe, data, P, moments, rows, dtype):
    """The Task for batches of up to so many rows, with all its arrays but the data new; moments: of
    each parameter, 2 to train, with what is carried, and else 0."""
    empty, values = device.empty, layout.constants(dtype) or ()
    constants = tuple(empty(array.shape, array.dtype) for array in values)
    for array, there in zip(values, constants, strict=True):
        device.upload(array, there)
    carried = {n: empty((rows, r.columns), dtype) for n, r in layout.carried.items() if moments}
    return Task(
        layout.plan, *layout.tables(), constants or None, layout.places(carried), recipe, data,
        empty((P,), dtype), empty((moments, P), dtype), empty((P,), dtype),
        empty((rows * layout.width,), dtype), empty((len(layout.terms),), np.float64), None, 1,
    )  # fmt: skip


class Trainer:
    """Trains on a device, for `with`: model, data and optimiser stay there.

    What a run changes of a State comes back when `store` is called, at the latest when `with` ends.
    steps is how many of them to run before the next look at the clock.
    """

    def __init__(self, device, machine, layout, recipe, state, X, n_threads):
        self.device, self.layout = device, layout
        self.dtype, self.n_parameters = state.theta.dtype, layout.n_parameters
        self.control, self.table = Control(device), tables.on_device(device)
        captured = tables.on_device(device, self.control)
        bound = bind(layout.program, captured, lambda function, inline: function)
        self.train_step = bound[step].train_step
        self.steps, self.graphs, self.task, self.order = FIRST_CHUNK, {}, None, None
        self.state, self.given, self.stored = None, None, True  # as the host knows the device
        self.reserve(recipe, X)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.store()
        self.graphs, self.task, self.order, self.state, self.given = {}, None, None, None, None

    @in_turn
    def run(self, recipe, state, data, rows):
        """Train on these rows of data (N, D); how many steps were made, as `step.train` does.

        data: a NumPy array, copied to the device once for as long as the same array is given; or an
        array that is there already. Adds to state.totals; the rest of the state is for `store`.
        """
        batch = min(recipe.batch_size, len(rows))
        if batch == 0:
            return 0
        self._prepare(recipe, state, data, rows)
        full, rest = divmod(len(rows), batch)
        graphs = [self._captured(recipe, size) for size in (batch, rest) if size]
        begin = time.perf_counter()  # compiling and capturing are over
        self.device.upload(state.totals, self.task.totals)
        self.control.start(state.steps, recipe.learning_rate)
        self.stored = False
        for _ in range(full):
            graphs[0]()
        made = self.control.step() - state.steps
        if rest and made == full:  # or the workspace would no longer show the batch that failed
            graphs[1]()
            made = self.control.step() - state.steps
        state.totals[:] = self.device.download(self.task.totals)
        seconds = time.perf_counter() - begin
        if len(rows) > (self.steps - 1) * batch:  # not the short rest of an epoch
            self.steps = threads.next_pace(self.steps, seconds)
        return made

    @in_turn
    def reserve(self, recipe, data):
        """Take the memory for training on data (N, D); MemoryError says what would fit."""
        self._allocate(recipe, data)

    @in_turn
    def store(self):
        """Bring parameters and moments back into the State that was trained, if they changed."""
        if not self.stored:
            self.state.theta[:] = self.device.download(self.task.theta)
            self.state.moments[:] = self.device.download(self.task.moments)
            for rows, there in self._carried():
                rows[:] = self.device.download(there)
            self.stored = True

    @in_turn
    def finite(self, state):
        """Whether all parameters are; asked on the device, for the State that is trained."""
        assert state is self.state
        return self.table.all_finite(self.task.theta)

    @property
    @in_turn
    def gradient(self):
        """The gradient (P,) of the last step, a copy."""
        return self.device.download(self.task.gradient)

    @property
    @in_turn
    def work(self):
        """The workspace as the last step left it, a copy."""
        return self.device.download(self.task.work)

    # --- what a run needs on the device ---------------------------------------------------------

    def _prepare(self, recipe, state, data, rows):
        """See to it that all that a run needs is on the device."""
        check_dtype("data", data, self.dtype)
        D = self.layout.n_features
        if data.ndim != 2 or data.shape[1] != D:
            raise ValueError(f"data has shape {data.shape}, expected (rows, {D})")
        here = not on_gpu(data)
        if not here:
            self.device.address("data", data)
            contiguous("data", data)
        room = self.task.work.size // self.layout.width if self.task else 0
        fits = room >= min(recipe.batch_size, len(rows)) and len(data) <= self.order.size
        if not fits or not (self.own if here else data is self.task.data):
            self.store()
            self.task, self.order, self.state, self.given, self.graphs = None, None, None, None, {}
            self._allocate(recipe, data)
        if here and data is not self.given:
            self.device.upload(np.ascontiguousarray(data), self.task.data[: len(data)])
        self.given = data
        if state is not self.state:
            self.store()
            self.device.upload(state.theta, self.task.theta)
            self.device.upload(state.moments, self.task.moments)
            self.state = state
            for kept, there in self._carried():
                self.device.upload(kept, there)
        self.device.upload(np.ascontiguousarray(rows, np.int64), self.order[: len(rows)])

    def _carried(self):
        """(rows of the state, the same on the device) of each region that is carried."""
        self.state.carry(n := self.task.work.size // self.layout.width)
        here, there = self.state.carried.values(), self.task.carried or ()
        return [(rows[:n], rest) for rows, (_, rest) in zip(here, there, strict=True)]

    def _allocate(self, recipe, data):
        batch = min(recipe.batch_size, len(data))
        self.own = not on_gpu(data)  # else it is the caller's, and is never written to
        try:
            there = self.device.empty(data.shape, self.dtype) if self.own else data
            self.order = self.device.empty((len(data),), np.int64)
            self.task = make_task(self.device, self.layout, recipe, there, self.n_parameters,
                                  2, batch, self.dtype)  # fmt: skip
            return
        except MemoryError as error:
            self.task = self.order = there = None
            full = error.with_traceback(None)  # which holds what was allocated
        raise MemoryError(self._advice(batch, data)) from full

    def _advice(self, batch, data):
        """What did not fit, and what would."""
        size, free = self.dtype.itemsize, self.device.free_memory()
        model, carried = 4 * self.n_parameters * size, self.layout.carried.values()
        row = (self.layout.width + sum(place.columns for place in carried)) * size
        rows = 8 * len(data) + (data.nbytes if self.own else 0)
        fits = int(MARGIN * (free - model - rows) / row)
        if fits > 0:
            advice = f"batch_size up to {fits} would fit"
        elif MARGIN * (free - model) > batch * row:
            advice = 'give X as an np.memmap, whose rows are sent in parts, or use device="cpu"'
        else:
            advice = 'no batch_size would fit; use device="cpu"'
        return (
            f"the GPU has {free / 1e6:.0f} MB free, but the model takes {model / 1e6:.0f} MB, the "
            f"data {rows / 1e6:.0f} MB and batch_size={batch} takes {batch * row / 1e6:.0f} MB; "
            f"{advice}"
        )

    # --- a step as a graph ----------------------------------------------------------------------

    def _step(self, recipe, size):
        task = self.task._replace(recipe=recipe._replace(learning_rate=Rate()))
        self.train_step(task, Rows(self.order, size), Counter(), 0)
        self.control.advance(size)

    def _captured(self, recipe, size):
        """The step on so many rows, to be replayed; the learning rate may change in between."""
        key = recipe._replace(learning_rate=0.0, batch_size=size)
        if key not in self.graphs:
            # Rehearsed as if a loss had not been finite, it changes nothing that lasts. Kernels are
            # compiled and loaded, which must not happen in a capture.
            self.control.start(0, 0.0, failed=True)
            self._step(recipe, size)
            self.control.step()
            self.graphs[key] = self.device.capture(lambda: self._step(recipe, size))
        return self.graphs[key]


def on_gpu(X):
    """Whether X is an array on a GPU, such as a cupy.ndarray."""
    return hasattr(X, "__cuda_array_interface__")


class Session(threads.Session):
    """A session on a device: parameters go there once, and the workspace never crosses."""

    def __init__(self, device, machine, layout, weights, theta, rows):
        self.device, self.layout, self._arrays = device, layout, {}
        self.k, self.program, self.step = machine.k, machine.program, machine.step
        self.binarize = machine.task.binarize
        data = device.empty((rows, layout.n_features), theta.dtype)
        self.recipe = threads.NO_RECIPE._replace(weights=weights)
        self.task = make_task(device, layout, self.recipe, data, theta.size, 0, rows, theta.dtype)
        self.rows, self._tiles = device.empty((rows,), np.int64), {}
        device.upload(np.arange(rows), self.rows)
        self.upload(theta, self.task.theta)

    def put(self, values):
        self.upload(values, self.task.data[: len(values)])
        return self.batch(len(values))

    def array(self, name, shape):
        if name not in self._arrays:
            self._arrays[name] = self.device.empty(shape, self.task.theta.dtype)
        return self._arrays[name]

    def tile(self, rows, array):
        K, n = len(rows), len(array)
        if (K, n) not in self._tiles:
            self._tiles[K, n] = self.device.empty((n,), np.int64)
            self.device.upload(np.arange(n) % K, self._tiles[K, n])
        self.k.gather(rows, self._tiles[K, n], array, None)

    def upload(self, values, array):
        self.device.upload(np.ascontiguousarray(values, array.dtype), array)

    def download(self, array):
        """An array of the device on the host, a copy."""
        return self.device.download(array)
