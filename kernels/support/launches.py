"""How a CUDA twin launches its kernel: checks of its arrays, arguments, and steps to be captured.

A twin is a function of SUBJECT/cuda.py whose first argument is a Launcher, `on`; its kernel is in
SUBJECT/cuda.cu. Where a kernel has a parameter NAME_row_stride behind its matrix NAME, the launch
fills in how far it is from one row to the next; arrays without one must be contiguous.

A device is an object with these methods; `device.Card` is a GPU, and tests have one in memory.

    empty(shape, dtype)      a new array on the device; it can be sliced, reshaped and transposed
    upload(host, array)      copies a NumPy array into an array there
    download(array)          the same as a NumPy array, once all that was launched is done
    address(name, array)     where it begins; TypeError or ValueError if it is not on this device
    launch(dtype, kernel, grid, values)   from the `unit` of that dtype, or of any if it is None;
                             values: NumPy scalars, of the types that the kernel takes
    capture(body)            records what body() launches, runs nothing; call the result to run it
    lock                     for calls that belong together, such as a capture and its body: what
                             other threads do waits meanwhile
    product                  None, or what computes out = a @ b in place of dense/cuda.cu:
                             f(a, b, out)

Nothing else crosses between host and device. No twin allocates, waits or reads a result back,
but for `all_finite` outside of a captured step, which must answer.
"""

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import (
    COUNT_STEPS,
    KINDS,
    LOG_RATE_BOUND,
    LOG_SCALE_BOUND,
    LOGVAR_BOUND,
    NEGLIGIBLE,
    NORMAL,
    RELU,
    SIGMOID,
    SOFTPLUS,
    TANH,
)

KERNELS = Path(__file__).parents[1]
COMMON = Path(__file__).with_name("common.cuh")
BLOCK, WARP, TILE = 256, 32, 16  # threads of a block, of a warp; rows and columns of a tile
MAX_GRID_Y = 65535  # of any CUDA device
STEP, POSITION, FAILED = range(3)  # of the counters
REALS = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
SCALARS = {"int": np.int32, "i64": np.int64, "u32": np.uint32, "double": np.float64}
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\((.*?)\)', re.DOTALL)
PARAMETER = re.compile(r"(?:const )?(\w+) (\*?)(\w+)")
STRIDES = ("_row_stride", "_column_stride")


# --- source ---------------------------------------------------------------------------------------


def definitions(dtype):
    """{capital letters in the source: what they stand for}."""
    names = dict(REAL=REALS[np.dtype(dtype)], BLOCK=BLOCK, WARP=WARP, TILE=TILE, RELU=RELU,
                 TANH=TANH, SIGMOID=SIGMOID, SOFTPLUS=SOFTPLUS, STEP=STEP, POSITION=POSITION,
                 FAILED=FAILED, LOGVAR_BOUND=LOGVAR_BOUND, NEGLIGIBLE=NEGLIGIBLE,
                 LOG_2PI=math.log(2 * math.pi), LOG_RATE_BOUND=LOG_RATE_BOUND,
                 LOG_SCALE_BOUND=LOG_SCALE_BOUND, NORMAL=NORMAL, COUNT_STEPS=COUNT_STEPS,
                 EPSILON=np.finfo(dtype).eps)  # fmt: skip
    names |= {f"KIND_{kind.upper()}": code for code, kind in enumerate(KINDS)}
    return {name: str(value) for name, value in names.items()}


def subjects():
    """The folders that have CUDA kernels."""
    return sorted(path.parent.name for path in KERNELS.glob("*/cuda.cu"))


@functools.cache
def source(subject):
    """What is compiled for a subject: the common part and its kernels."""
    own = KERNELS / subject / "cuda.cu"
    return COMMON.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")


class Signature(NamedTuple):
    """Where a kernel is, and its parameters as (type, "*" or "", name)."""

    subject: str
    parameters: list

    @property
    def names(self):
        return [name for _, _, name in self.parameters]

    @property
    def given(self):
        """The parameters without the strides, which follow their array."""
        return [p for p in self.parameters if not p[2].endswith(STRIDES)]

    @property
    def has_real(self):
        """Whether it is another kernel for another dtype."""
        return any(kind == "REAL" for kind, _, _ in self.parameters)


def parameters(text):
    """{kernel: [(type, "*" or "", name), ...]} of CUDA source."""
    return {name: PARAMETER.findall(inside) for name, inside in KERNEL.findall(text)}


@functools.cache
def signatures():
    """{kernel: Signature} of all subjects."""
    return {
        name: Signature(subject, found)
        for subject in subjects()
        for name, found in parameters(source(subject)).items()
    }


def unit(ready, dtype, kernel):
    """(subject, dtype) of the source that a kernel is compiled with; `ready`: those that are.

    dtype None: the kernel is the same in all, so it is no reason to compile one more.
    """
    subject = signatures()[kernel].subject
    choices = list(REALS) if dtype is None else [np.dtype(dtype)]
    return next(((subject, d) for d in choices if (subject, d) in ready), (subject, choices[0]))


# --- arrays ---------------------------------------------------------------------------------------


def check_dtype(name, array, dtype):
    """TypeError unless the array has this dtype."""
    if array.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}: convert it once, before "
            "training or evaluation, since nothing converts silently on the device"
        )


def common_shape(**arrays):
    """The one shape of these arrays (None: no array), or ValueError."""
    (first, one), *others = ((n, array) for n, array in arrays.items() if array is not None)
    for name, array in others:
        if array.shape != one.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected {one.shape} as {first} has")
    return one.shape


def contiguous(name, array):
    """ValueError unless the array is C-contiguous."""
    if not array.flags.c_contiguous:
        raise ValueError(
            f"{name} has shape {array.shape} and strides {array.strides}, expected a "
            "C-contiguous array: make a contiguous copy of it first"
        )


def row_stride(name, matrix):
    """How many entries it is from one row of a matrix to the next; its columns are adjacent."""
    if matrix.size == 0:  # whose strides say nothing: CuPy's are 0
        return 0
    rows, columns = matrix.strides
    if (columns != matrix.itemsize and matrix.shape[1] > 1) or rows % matrix.itemsize:
        raise ValueError(
            f"{name} has strides {matrix.strides}, expected rows whose entries are adjacent: make "
            "a contiguous copy of it first"
        )
    return rows // matrix.itemsize


def blocks(n, size=BLOCK):
    """How many blocks of this size cover n things."""
    return -(-n // size)


# --- launches -------------------------------------------------------------------------------------


def launch(device, dtype, kernel, grid, *arguments):
    """Launch a kernel for these arrays, None (no array) and numbers, each cast to its parameter;
    strides are not among the arguments.

    A grid with no blocks is nothing to do. Raises for an array of another dtype, device or layout.
    """
    signature, values = signatures()[kernel], []
    for (kind, pointer, name), given in zip(signature.given, arguments, strict=True):
        scalar = np.dtype(dtype).type if kind == "REAL" else SCALARS[kind]
        if not pointer:
            values.append(scalar(given))
            continue
        if given is not None:
            check_dtype(name, given, scalar)
        strides = _strides(name, given, signature)
        values.append(np.uint64(0 if given is None else device.address(name, given)))
        values += map(np.int64, strides)
    if grid[1] > MAX_GRID_Y:
        raise ValueError(f"{kernel} got a matrix of too many columns: {grid[1]} blocks of them")
    if 0 not in grid:
        device.launch(np.dtype(dtype) if signature.has_real else None, kernel, grid, values)


def _strides(name, array, signature):
    """The strides of an array that stand behind it among a kernel's parameters."""
    asked = [end for end in STRIDES if name + end in signature.names]
    if array is None:
        return [0] * len(asked)
    if len(asked) == 2:
        return [stride // array.itemsize for stride in array.strides]
    if asked:
        return [row_stride(name, array)]
    contiguous(name, array)
    return []


# --- what stands for a host's value in a captured step --------------------------------------------


@dataclass(frozen=True)
class Counter:
    """The number of the step, as counters[STEP] + offset has it when the kernel runs."""

    offset: int = 0

    def __add__(self, n):
        return Counter(self.offset + n)


@dataclass(frozen=True)
class Rate:
    """So many times the learning rate that is on the device when the kernel runs."""

    times: int = 1

    def __mul__(self, n):
        return Rate(self.times * n)


@dataclass(frozen=True)
class Rows:
    """`size` numbers of rows, from counters[POSITION] on in `order`, an array on the device."""

    order: object
    size: int

    def __getitem__(self, rows):
        first, last, _ = rows.indices(self.size)
        return Rows(self.order[first:], last - first)


class Control:
    """What steers a captured step, on the device: counters, and the learning rate."""

    def __init__(self, device):
        self.device = device
        self.counters = device.empty((3,), np.int64)
        self.rate = device.empty((1,), np.float64)

    def start(self, step, learning_rate, failed=False):
        """Before steps from this number on, at the begin of the order; `failed`: a rehearsal."""
        self.device.upload(np.array([step, 0, failed], np.int64), self.counters)
        self.device.upload(np.array([learning_rate], np.float64), self.rate)

    def advance(self, rows):
        """The end of a step on so many rows."""
        launch(self.device, None, "advance", (1, 1), self.counters, rows)

    def step(self):
        """The number of the next step; waits until all that was launched is done."""
        return int(self.device.download(self.counters)[STEP])


class Launcher:
    """What the twins run on. With a Control they are those of a step to be captured: step numbers,
    rows and the learning rate may be Counter, Rows and Rate, and `all_finite` leaves its answer on
    the device, where the kernels that change the model look at it.
    """

    def __init__(self, device, control=None):
        self.device = device
        self.counters = control.counters if control else None
        self._rate = control.rate if control else None
        self._flags = device.empty((3,), np.int64)

    def launch(self, kernel, dtype, grid, *arguments):
        """Launch a kernel, as `launches.launch` does."""
        launch(self.device, dtype, kernel, grid, *arguments)

    def step(self, step):
        """(counters, step) of a kernel: what the number of the step is added to, or None."""
        return (self.counters, step.offset) if isinstance(step, Counter) else (None, step)

    def rate(self, learning_rate):
        """(rate, learning_rate) of a kernel: a place on the device, and how many times what is
        there; or None and the number."""
        if isinstance(learning_rate, Rate):
            return self._rate, learning_rate.times
        return None, learning_rate

    def rows(self, rows):
        """(rows, counters) of a kernel: numbers of rows; where the first one stands, or None."""
        return (rows.order, self.counters) if isinstance(rows, Rows) else (rows, None)

    def flags(self):
        """Counters where a kernel may set FAILED: those of the captured step, else a fresh set."""
        if self.counters is not None:
            return self.counters
        self.device.upload(np.zeros(3, np.int64), self._flags)
        return self._flags

    def passed(self, flags):
        """Whether FAILED was not set. A captured step goes on: other kernels look at it there."""
        return flags is self.counters or not self.device.download(flags)[FAILED]
