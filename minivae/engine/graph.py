"""A GPU as a machine: the program of `objective.py` on a device, for NumPy arrays of the host.

`Crew` trains: model, data and optimiser stay on the device, a step is captured once per batch
shape, and replayed. Everything else is run call by call: what is given is copied to the device, and
what was written comes back.
"""

import functools
import inspect
import time
from types import SimpleNamespace

import numpy as np

from minivae import objective
from minivae.interrupts import paced
from minivae.kernels.launches import (
    Control,
    Counter,
    Rate,
    Rows,
    Table,
    check_dtype,
    contiguous,
)
from minivae.parameters import Workspace

FIRST_CHUNK = 16  # steps
MARGIN = 0.95  # of the memory that is free, as allocations are rounded up
# Of the program, what cuts views and works on any array, and what computes.
VIEWS = ("weight", "bias", "output", "latent", "source", "matrix", "share", "Shard")
COMPUTES = (
    "encode",
    "decode",
    "likelihood",
    "forward",
    "backward",
    "loss_and_gradient",
    "binarize",
)
CONSTANT = ("theta", "mask")  # arguments that those do not write


def make_machine(device, bound):
    """The program on a device, as `backend.machine` gives it. bound(table): the program over it."""
    table = Table(device)
    program = bound(table)
    kernels = [name for name in vars(Table) if not name.startswith("_")]
    return SimpleNamespace(
        **{name: getattr(objective, name) for name in VIEWS},
        **{name: hosted(device, getattr(program, name), CONSTANT) for name in COMPUTES},
        k=SimpleNamespace(**{name: hosted(device, getattr(table, name)) for name in kernels}),
        crew=functools.partial(Crew, device, bound),
    )


def in_turn(method):
    """The Crew's method, one thread after the other: a device has one stream, for one capture."""

    @functools.wraps(method)
    def call(self, *arguments):
        with self.device.lock:
            return method(self, *arguments)

    return call


def hosted(device, function, constant=()):
    """A function of arrays on the device as one of NumPy arrays, with the same side effects.

    constant: names of arguments that it does not write, so that they need not come back.
    """
    names = tuple(inspect.signature(function).parameters)

    def run(*arguments):
        there = {}  # id of an array: itself, its copy on the device, whether that may be written
        with device.lock:
            result = function(
                *[
                    _put(device, value, name not in constant, there)
                    for value, name in zip(arguments, names, strict=True)
                ]
            )
            for value, copy, may_be_written in there.values():
                if may_be_written:
                    value[...] = device.download(copy)
            return result if result is None or isinstance(result, bool) else device.download(result)

    return run


def _put(device, value, writable, there):
    """What stands for an argument on the device; an array that is given twice is one there too."""
    if isinstance(value, Workspace):
        return Workspace(*[_put(device, field, writable, there) for field in value])
    if not isinstance(value, np.ndarray):
        return value
    if id(value) not in there:
        copy = device.empty(value.shape, value.dtype)
        device.upload(np.ascontiguousarray(value), copy)
        there[id(value)] = value, copy, writable and value.flags.writeable
    return there[id(value)][1]


class Crew:
    """What `training.Crew` is for threads, for a device: trains there, for `with`.

    steps is how many of them to run before the next look at the clock. What a run changes of a
    State stays on the device until `store` brings it back, at the latest when `with` ends.
    """

    def __init__(self, device, bound, plan, dtype, order=None):
        self.order = order  # of the rows in an epoch: for who asks a crew for it
        self.device, self.plan, self.dtype = device, plan, np.dtype(dtype)
        self.control, self.table = Control(device), Table(device)
        self.program = bound(Table(device, self.control))
        self.steps, self.graphs, self.buffers = FIRST_CHUNK, {}, None
        self.state = self.given = None  # what is on the device, as the host knows it
        self.stored = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.store()
        self.graphs, self.buffers, self.state, self.given = {}, None, None, None

    @in_turn
    def run(self, recipe, state, data, rows):
        """Train on these rows of data (N, D); how many steps were made, as `objective.train` does.

        data: a NumPy array, copied to the device once for as long as the same array is given; or an
        array that is there already. Adds to state.totals; the rest of state is for `store`.
        """
        begin, batch = time.perf_counter(), min(recipe.batch_size, len(rows))
        if batch == 0:
            return 0
        self._prepare(recipe, state, data, rows)
        full, rest = divmod(len(rows), batch)
        graphs = [self._captured(recipe, size) for size in (batch, rest) if size]
        totals = self.buffers.totals
        self.device.upload(state.totals, totals)
        self.control.start(state.steps, recipe.learning_rate)
        self.stored = False
        for _ in range(full):
            graphs[0]()
        made = self.control.step() - state.steps
        if rest and made == full:  # or the workspace would no longer show the batch that failed
            graphs[1]()
            made = self.control.step() - state.steps
        state.totals[:] = self.device.download(totals)
        seconds = time.perf_counter() - begin
        if len(rows) > (self.steps - 1) * batch:  # not the short rest of an epoch
            self.steps = paced(self.steps, seconds)
        return made

    @in_turn
    def reserve(self, recipe, data):
        """Take the memory for training on data (N, D); MemoryError says what would fit."""
        self.buffers = self._allocate(recipe, data, type(data) is np.ndarray)

    @in_turn
    def store(self):
        """Bring parameters and moments back into the State that was trained, if they changed."""
        if not self.stored:
            self.state.theta[:] = self.device.download(self.buffers.theta)
            self.state.moments[:] = self.device.download(self.buffers.moments)
            self.stored = True

    @in_turn
    def finite(self, state):
        """Whether all parameters are; asked on the device, for the State that is trained."""
        assert state is self.state
        return self.table.all_finite(self.buffers.theta, self.buffers.theta)

    @property
    @in_turn
    def gradient(self):
        """The gradient (P,) of the last step, a copy."""
        return self.device.download(self.buffers.gradient)

    @property
    @in_turn
    def work(self):
        """The Workspace as the last step left it, a copy."""
        return Workspace(*map(self.device.download, self.buffers.work))

    # --- inside ---------------------------------------------------------------------------------

    def _prepare(self, recipe, state, data, rows):
        """See to it that all that a run needs is on the device."""
        check_dtype("data", data, self.dtype)
        D = int(self.plan.fan_in[0])
        if data.ndim != 2 or data.shape[1] != D:
            raise ValueError(f"data has shape {data.shape}, expected (rows, {D})")
        here = type(data) is np.ndarray
        if not here:
            self.device.address("data", data)
            contiguous(data=data)
        held, batch = self.buffers, min(recipe.batch_size, len(rows))
        fits = held and len(data) <= held.order.size and batch <= held.work.nll.size
        if not fits or not (held.own if here else data is held.data):
            self.store()
            self.buffers, self.state, self.given, self.graphs = None, None, None, {}
            self.buffers = self._allocate(recipe, data, here)
        if here and data is not self.given:
            self.device.upload(np.ascontiguousarray(data), self.buffers.data[: len(data)])
        self.given = data
        if state is not self.state:
            self.store()
            self.device.upload(state.theta, self.buffers.theta)
            self.device.upload(state.moments, self.buffers.moments)
            self.state = state
        order = np.ascontiguousarray(rows, np.int64)
        self.device.upload(order, self.buffers.order[: len(rows)])

    def _allocate(self, recipe, data, here):
        plan, dtype, empty = self.plan, self.dtype, self.device.empty
        P, batch = plan.n_parameters, min(recipe.batch_size, len(data))
        try:
            return SimpleNamespace(
                theta=empty((P,), dtype),
                moments=empty((2, P), dtype),
                gradient=empty((P,), dtype),
                data=empty(data.shape, dtype) if here else data,
                own=here,  # else it is the caller's, and is never written to
                order=empty((len(data),), np.int64),
                totals=empty((2,), np.float64),
                work=Workspace(
                    eps=empty((batch, plan.latent_dim), dtype),
                    outputs=empty((batch * plan.width,), dtype),
                    deltas=empty((batch * plan.width,), dtype),
                    nll=empty((batch,), dtype),
                    kl=empty((batch,), dtype),
                    dnoise=empty((batch,), dtype),
                ),
            )
        except MemoryError as error:
            full = error.with_traceback(None)  # which holds what was allocated
        raise MemoryError(self._advice(batch, data, here)) from full

    def _advice(self, batch, data, here):
        """What did not fit, and what would."""
        size, free = self.dtype.itemsize, self.device.free_memory()
        model = 4 * self.plan.n_parameters * size
        rows = 8 * len(data) + (data.nbytes if here else 0)
        row = (2 * self.plan.width + self.plan.latent_dim + 3) * size
        fits = int(MARGIN * (free - model - rows) / row)
        advice = (
            f"batch_size up to {fits} would fit"
            if fits > 0
            else "no batch_size would fit: give X as an np.memmap, whose rows are sent in parts, "
            'or use device="cpu"'
        )
        return (
            f"the GPU has {free / 1e6:.0f} MB free, but the model takes {model / 1e6:.0f} MB, the "
            f"data {rows / 1e6:.0f} MB and batch_size={batch} takes {batch * row / 1e6:.0f} MB; "
            f"{advice}"
        )

    def _step(self, recipe, size):
        held = self.buffers
        self.program.train_step(
            self.plan, recipe._replace(learning_rate=Rate()), held.data, Rows(held.order, size),
            Counter(), held.theta, held.moments, held.gradient, held.work, held.totals, None, 0, 1,
        )  # fmt: skip
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
