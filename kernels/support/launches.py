"""The kernel table over `cuda.cu`: each twin checks its arrays and launches one kernel on a device.

A device is an object with these methods; `cuda.Card` is a GPU, and tests have one in memory.

    empty(shape, dtype)      a new array on the device; it can be sliced, reshaped and transposed
    upload(host, array)      copies a NumPy array into an array there
    download(array)          the same as a NumPy array, once all that was launched is done
    address(name, array)     where it begins; TypeError or ValueError if it is not on this device
    launch(dtype, kernel, grid, values)   values: NumPy scalars, of the types that the kernel takes
    capture(body)            records what body() launches, runs nothing; call the result to run it
    lock                     for whoever uses the device: one thread at a time
    product                  None, or what computes out = a @ b in place of `cuda.cu`: f(a, b, out)

Nothing else crosses between host and device. No twin allocates, waits or reads a result back,
but for `all_finite` outside of a captured step, which must answer.
"""

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import IDENTITY, LOGVAR_BOUND, NEGLIGIBLE, RELU, SIGMOID, SOFTPLUS, TANH

SOURCE = Path(__file__).with_name("cuda.cu")
BLOCK, WARP, TILE = 256, 32, 16  # threads of a block, of a warp; rows and columns of a tile
MAX_GRID_Y = 65535  # of any CUDA device
STEP, POSITION, FAILED = range(3)  # of the counters
REALS = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
SCALARS = {"int": np.int32, "i64": np.int64, "u32": np.uint32, "u8": np.bool_, "double": np.float64}
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\((.*?)\)', re.DOTALL)
PARAMETER = re.compile(r"(?:const )?(\w+) (\*?)(\w+)")


def definitions(dtype):
    """{capital letters in cuda.cu: what they stand for}."""
    names = dict(REAL=REALS[np.dtype(dtype)], BLOCK=BLOCK, WARP=WARP, TILE=TILE, RELU=RELU,
                 TANH=TANH, SIGMOID=SIGMOID, SOFTPLUS=SOFTPLUS, STEP=STEP, POSITION=POSITION,
                 FAILED=FAILED, LOGVAR_BOUND=LOGVAR_BOUND, NEGLIGIBLE=NEGLIGIBLE,
                 LOG_2PI=math.log(2 * math.pi))  # fmt: skip
    return {name: str(value) for name, value in names.items()}


def parameters(source):
    """{kernel: [(type, "*" or "", name), ...]} of CUDA source."""
    return {name: PARAMETER.findall(text) for name, text in KERNEL.findall(source)}


@functools.cache
def signatures():
    """`parameters` of cuda.cu."""
    return parameters(SOURCE.read_text(encoding="utf-8"))


def launch(device, dtype, kernel, grid, *arguments):
    """Launch a kernel for these arrays, None (no array) and numbers, each cast to its parameter.

    A grid with no blocks is nothing to do. Raises for an array of another dtype or device.
    """
    values = []
    for (kind, pointer, name), given in zip(signatures()[kernel], arguments, strict=True):
        scalar = np.dtype(dtype).type if kind == "REAL" else SCALARS[kind]
        if not pointer:
            values.append(scalar(given))
        elif given is None:
            values.append(np.uint64(0))
        else:
            check_dtype(name, given, scalar)
            values.append(np.uint64(device.address(name, given)))
    if grid[1] > MAX_GRID_Y:
        raise ValueError(f"{kernel} got a matrix of too many columns: {grid[1]} blocks of them")
    if 0 not in grid:
        device.launch(np.dtype(dtype), kernel, grid, values)


def check_dtype(name, array, dtype):
    """TypeError unless the array has this dtype."""
    if array.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}: convert it once, before "
            "training or evaluation, since nothing converts silently on the device"
        )


def contiguous(**arrays):
    """ValueError unless each array (None: no array) is C-contiguous."""
    for name, array in arrays.items():
        if array is not None and not array.flags.c_contiguous:
            raise ValueError(
                f"{name} has shape {array.shape} and strides {array.strides}, expected a "
                "C-contiguous array: make a contiguous copy of it first"
            )


def down(**matrix):
    """How many entries it is from one row of a matrix to the next; its columns are adjacent."""
    ((name, array),) = matrix.items()
    if array.size == 0:  # whose strides say nothing: CuPy's are 0
        return 0
    rows, right = array.strides
    if (right != array.itemsize and array.shape[1] > 1) or rows % array.itemsize:
        raise ValueError(
            f"{name} has strides {array.strides}, expected rows whose entries are adjacent: make a "
            "contiguous copy of it first"
        )
    return rows // array.itemsize


def blocks(n, size=BLOCK):
    """How many blocks of this size cover n things."""
    return -(-n // size)


# --- what stands for a host's value in a captured step --------------------------------------------


@dataclass(frozen=True)
class Counter:
    """The number of the step, as counters[STEP] + offset has it when the kernel runs."""

    offset: int = 0

    def __add__(self, n):
        return Counter(self.offset + n)


@dataclass(frozen=True)
class Rate:
    """The learning rate that is on the device when the kernel runs."""


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
        launch(self.device, np.float32, "advance", (1, 1), self.counters, rows)

    def step(self):
        """The number of the next step; waits until all that was launched is done."""
        return int(self.device.download(self.counters)[STEP])


# --- the table ------------------------------------------------------------------------------------


class Table:
    """The twins on a device. With a Control they are those of a step to be captured: step numbers,
    rows and the learning rate may be Counter, Rows and Rate, and `all_finite` leaves its answer on
    the device, where the kernels that change the model look at it.
    """

    def __init__(self, device, control=None):
        self.device = device
        self.counters, self.rate = (control.counters, control.rate) if control else (None, None)
        self._answer = device.empty((3,), np.int64)

    def _launch(self, kernel, like, grid, *arguments):
        launch(self.device, like.dtype, kernel, grid, *arguments)

    def _step(self, step):
        return (self.counters, step.offset) if isinstance(step, Counter) else (None, step)

    def _rate(self, learning_rate):
        return (self.rate, 0.0) if isinstance(learning_rate, Rate) else (None, learning_rate)

    # layers

    def matmul(self, a, b, out):
        (m, n), depth = out.shape, a.shape[1]
        if a.shape[0] != m or b.shape != (depth, n):
            raise ValueError(f"shapes do not match: {a.shape} @ {b.shape} into {out.shape}")
        check_dtype("b", b, a.dtype)
        check_dtype("out", out, a.dtype)
        out_down = down(out=out)
        if self.device.product and out.size and depth:
            self.device.product(a, b, out)
            return
        strides = [[stride // a.itemsize for stride in array.strides] for array in (a, b)]
        self._launch("matmul", out, (blocks(m, TILE), blocks(n, TILE)),
                     a, *strides[0], b, *strides[1], out, out_down, m, n, depth)  # fmt: skip

    def bias_activation(self, y, bias, activation):
        contiguous(y=y, bias=bias)
        B, H = y.shape
        self._launch("bias_activation", y, (B, blocks(H)), y, bias, activation, H)

    def activation_backward(self, dy, y, activation):
        contiguous(dy=dy, y=y)
        if activation != IDENTITY:
            self._launch(
                "activation_backward", dy, (blocks(dy.size), 1), dy, y, activation, dy.size
            )

    def sum_rows(self, dy, first, dbias):
        contiguous(dbias=dbias)
        part, columns = dy[:, first : first + dbias.size], dbias.size
        self._launch("sum_rows", dy, (blocks(columns, WARP), 1),
                     part, down(dy=part), dy.shape[0], dbias, columns)  # fmt: skip

    # the posterior

    def sample_gaussian(self, mu, logvar, eps, z, kl):
        contiguous(eps=eps, z=z, kl=kl)
        B, Z = z.shape
        self._launch("sample_gaussian", z, (B, 1),
                     mu, down(mu=mu), logvar, down(logvar=logvar), eps, z, kl, Z)  # fmt: skip

    def sample_gaussian_backward(self, dz, mu, logvar, eps, kl_scale, dmu, dlogvar):
        contiguous(dz=dz, eps=eps)
        B, Z = dz.shape
        self._launch("sample_gaussian_backward", dz, (B, blocks(Z)), dz, mu, down(mu=mu),
                     logvar, down(logvar=logvar), eps, kl_scale, dmu, down(dmu=dmu),
                     dlogvar, down(dlogvar=dlogvar), Z)  # fmt: skip

    # likelihoods

    def bernoulli_nll(self, logits, x, mask, scale, nll, dlogits):
        contiguous(logits=logits, x=x, mask=mask, nll=nll, dlogits=dlogits)
        B, D = logits.shape
        self._launch("bernoulli_nll", logits, (B, 1), logits, x, mask, scale, nll, dlogits, D)

    def gaussian_nll(self, mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar):
        contiguous(mean=mean, x=x, mask=mask, nll=nll, dmean=dmean, dnoise_logvar=dnoise_logvar)
        B, D = mean.shape
        self._launch("gaussian_nll", mean, (B, 1),
                     mean, noise_logvar, x, mask, scale, nll, dmean, dnoise_logvar, D)  # fmt: skip

    # random numbers

    def _where(self, seed, stream, step, first_row):
        return seed & 0xFFFFFFFF, seed >> 32, stream, *self._step(step), first_row

    def random_words(self, seed, stream, step, first_row, words):
        contiguous(words=words)
        n, C = words.shape
        launch(self.device, np.float32, "random_words", (n, blocks(C, 4 * BLOCK)),
               *self._where(seed, stream, step, first_row), words, C)  # fmt: skip

    def random_uniform(self, seed, stream, step, first_row, u):
        contiguous(u=u)
        n, C = u.shape
        self._launch("random_uniform", u, (n, blocks(C, 4 * BLOCK)),
                     *self._where(seed, stream, step, first_row), u, C)  # fmt: skip

    def random_normal(self, seed, stream, step, first_row, eps):
        contiguous(eps=eps)
        n, C = eps.shape
        self._launch("random_normal", eps, (n, blocks(C, 4 * BLOCK)),
                     *self._where(seed, stream, step, first_row), eps, C)  # fmt: skip

    def random_binarize(self, x, seed, stream, step, first_row):
        contiguous(x=x)
        n, C = x.shape
        self._launch("random_binarize", x, (n, blocks(C, 4 * BLOCK)),
                     x, *self._where(seed, stream, step, first_row), C)  # fmt: skip

    def threshold(self, x):
        contiguous(x=x)
        self._launch("threshold", x, (blocks(x.size), 1), x, x.size)

    # optimisers

    def sgd(self, theta, gradient, velocity, learning_rate, momentum, weight_decay):
        contiguous(theta=theta, gradient=gradient, velocity=velocity)
        self._launch("sgd", theta, (blocks(theta.size), 1), theta, gradient, velocity,
                     self.counters, *self._rate(learning_rate), momentum, weight_decay,
                     theta.size)  # fmt: skip

    def adagrad(self, theta, gradient, square_sum, learning_rate, weight_decay, epsilon):
        contiguous(theta=theta, gradient=gradient, square_sum=square_sum)
        self._launch("adagrad", theta, (blocks(theta.size), 1), theta, gradient, square_sum,
                     self.counters, *self._rate(learning_rate), weight_decay, epsilon,
                     theta.size)  # fmt: skip

    def adam(self, theta, gradient, first, second, step, learning_rate, beta1, beta2, epsilon,
             weight_decay):  # fmt: skip
        contiguous(theta=theta, gradient=gradient, first=first, second=second)
        betas = [(beta, 1 - beta, math.log(beta) if beta else -math.inf) for beta in (beta1, beta2)]
        self._launch("adam", theta, (blocks(theta.size), 1), theta, gradient, first, second,
                     *self._step(step), *self._rate(learning_rate), *betas[0], *betas[1],
                     epsilon, weight_decay, theta.size)  # fmt: skip

    # the batch

    def gather(self, data, rows, x):
        contiguous(data=data, x=x)
        n, D = x.shape
        if rows.size != n or data.shape[1] != D:
            raise ValueError(f"x has shape {x.shape}, expected {(rows.size, data.shape[1])}")
        order, counters = (rows.order, self.counters) if isinstance(rows, Rows) else (rows, None)
        self._launch("gather", x, (n, blocks(D)), data, order, counters, x, D)

    def all_finite(self, nll, kl):
        contiguous(nll=nll, kl=kl)
        if self.counters is None:
            self.device.upload(np.zeros(3, np.int64), self._answer)
        target = self._answer if self.counters is None else self.counters
        self._launch("all_finite", nll, (blocks(nll.size), 1), nll, kl, target, nll.size)
        return self.counters is not None or not self.device.download(target)[FAILED]

    def add_totals(self, nll, kl, totals):
        contiguous(nll=nll, kl=kl, totals=totals)
        self._launch("add_totals", nll, (1, 1), nll, kl, self.counters, totals, nll.size)

    def join(self, barrier, workers):
        """A device has one worker: its kernels run one after the other."""
        assert workers == 1
