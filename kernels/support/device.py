"""A GPU through CuPy: compile, launch, matrix products by cuBLAS, capture of a step as a graph.

CuPy is imported when a card is looked for, and only here. `Card` is a device as `launches.py`
describes it; everything that can be wrong with a machine is found by `find`, in one line.
"""

import contextlib
import ctypes
import functools
import threading
import warnings

import numpy as np

from .. import PRECISIONS
from .launches import BLOCK, definitions, launch, source, unit

WORKSPACE_BYTES = 2**25  # of cuBLAS: as NVIDIA advises for Hopper, and enough for older cards
KNOWN_ANSWER = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Philox, all arguments 0


@functools.cache
def find(index=0, matmul_precision="float32"):
    """The Card with this number, or in one line why there is none that works."""
    if matmul_precision not in PRECISIONS:
        raise ValueError(
            f"matmul_precision must be one of {', '.join(PRECISIONS)}, got {matmul_precision!r}"
        )
    with warnings.catch_warnings():
        # What is deprecated, or a path that CuPy did not find, is no reason to say that a card does
        # not work where warnings are errors: it is tried out below.
        warnings.simplefilter("ignore")
        return _find(index, matmul_precision)


def _find(index, matmul_precision):
    try:
        import cupy
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return (
                "CuPy is not installed: pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' "
                "for a driver of CUDA 12"
            )
        return f"CuPy is installed but cannot be imported: {_line(error)}"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return f"there is no NVIDIA driver that works, or no GPU: {_line(error)}"
    if not 0 <= index < count:
        return f"there is no GPU {index}: this machine has {count}, numbered from 0"
    try:
        card = Card(cupy, index, matmul_precision)
        _try_out(card)
    except Exception as error:
        return f"GPU {index} is there but does not work: {_line(error)}"
    return card


def _line(error):
    """An exception as one line that is not too long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _try_out(card):
    """Raise unless the compiler, a kernel, cuBLAS and copies do what they should."""
    words, a = card.empty((1, 4), np.uint32), card.empty((1, 2), "f4")
    out = card.empty((2, 2), "f4")
    launch(card, None, "random_words", (1, 1), 0, 0, 0, None, 0, 0, words, 4)
    card.upload(np.array([[2, 3]], np.float32), a)
    card.product(a.T, a, out)
    if card.download(words).tolist() != [KNOWN_ANSWER]:
        raise RuntimeError("a kernel gave wrong random numbers")
    if card.download(out).tolist() != [[4, 6], [6, 9]]:
        raise RuntimeError("cuBLAS gave a wrong product")


class Card:
    """The GPU with this number. All of its work goes through one stream, in order."""

    def __init__(self, cupy, index, matmul_precision):
        self.cupy, self.index, self.units = cupy, index, {}
        self.lock = threading.RLock()
        with cupy.cuda.Device(index):
            self.stream = cupy.cuda.Stream(non_blocking=True)  # the default one cannot be captured
        self.workspace = self.empty((WORKSPACE_BYTES,), np.uint8)
        self.blas = Blas(cublas_library(cupy), matmul_precision)
        with self._current():
            self.blas.open(self.stream.ptr, self.workspace.data.ptr, WORKSPACE_BYTES)

    @contextlib.contextmanager
    def _current(self):
        with self.lock, self.cupy.cuda.Device(self.index), self.stream:
            yield

    def empty(self, shape, dtype):
        with self._current():
            return self.cupy.empty(shape, dtype)

    def free_memory(self):
        """Bytes that arrays can still take."""
        with self._current():
            kept = self.cupy.get_default_memory_pool().free_bytes()
            return self.cupy.cuda.runtime.memGetInfo()[0] + kept

    def upload(self, host, array):
        with self._current():
            array.set(host)

    def download(self, array):
        with self._current():
            return self.cupy.asnumpy(array)

    def address(self, name, array):
        if not isinstance(array, self.cupy.ndarray):
            kind = f"{type(array).__module__}.{type(array).__name__}"
            raise TypeError(
                f"{name} is a {kind}, expected a cupy.ndarray on GPU {self.index}: copy it there "
                "once, before the loop"
            )
        if array.device.id != self.index:
            raise ValueError(
                f"{name} is on GPU {array.device.id}, expected on GPU {self.index}: copy it there "
                "once, before the loop"
            )
        return array.data.ptr

    def launch(self, dtype, kernel, grid, values):
        key = unit(self.units, dtype, kernel)
        if key not in self.units:
            subject, dtype = key
            options = tuple(f"-D{name}={value}" for name, value in definitions(dtype).items())
            module = self.cupy.RawModule(code=source(subject), options=options)
            self.units[key] = functools.cache(module.get_function)
        with self._current():
            self.units[key](kernel)(tuple(grid), (BLOCK,), tuple(values))

    def capture(self, body):
        with self._current():
            self.stream.begin_capture()
            try:
                body()
            except BaseException:
                self._drop_capture()
                raise
            graph = self.stream.end_capture()

        def replay():
            with self._current():
                graph.launch(self.stream)

        return replay

    def _drop_capture(self):
        """End a capture that failed, else the stream stays unusable. CuPy's own end of it would
        make a graph of what there is, and hide the error where even that fails."""
        runtime = self.cupy.cuda.runtime
        with contextlib.suppress(runtime.CUDARuntimeError):  # it may be invalid, and ended by this
            graph = runtime.streamEndCapture(self.stream.ptr)
            if graph:
                runtime.graphDestroy(graph)

    def product(self, a, b, out):
        with self._current():
            matrices = [(array.data.ptr, array.shape, array.strides) for array in (a, b, out)]
            self.blas.product(*matrices, out.dtype)


# --- cuBLAS ---------------------------------------------------------------------------------------

NORMAL, TRANSPOSED = 0, 1  # cublasOperation_t
DEFAULT_ALGORITHM = -1  # cublasGemmAlgo_t
REAL = {"float32": 0, "float64": 1}  # cudaDataType_t: CUDA_R_32F, CUDA_R_64F
COMPUTE = {"float32": 68, "tf32": 77, "float64": 70}  # cublasComputeType_t: 32F, 32F_FAST_TF32, 64F


def cublas_library(cupy):
    """cuBLAS, of the CUDA that CuPy was built for.

    Called directly, as CuPy does not let its own binding be used while a stream is captured.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # comes with CuPy 14 and newer
    except ImportError:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        return ctypes.CDLL(f"libcublas.so.{major}")
    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


class Blas:
    """Products of row-major matrices by cuBLAS, which thinks in columns.

    The same shapes get the same algorithm in every run, and cuBLAS promises equal bits for that on
    one stream.
    """

    def __init__(self, library, matmul_precision):
        self.library, self.handle = library, ctypes.c_void_p()
        self.compute = {**COMPUTE, "float32": COMPUTE[matmul_precision]}

    def open(self, stream, workspace, workspace_bytes):
        """A handle for this stream. The workspace must come after it, as a stream resets it."""
        self._call("cublasCreate_v2", ctypes.byref(self.handle))
        self._call("cublasSetStream_v2", self.handle, ctypes.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self.handle, ctypes.c_void_p(workspace),
                   ctypes.c_size_t(workspace_bytes))  # fmt: skip

    def _call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with cuBLAS status {status}")

    def product(self, a, b, out, dtype):
        """out = a @ b, each an (address, shape, strides in bytes) of matrices; out is row-major.

        A row-major matrix, read by columns, is its transpose, and out^T = b^T a^T.
        """
        (rows, columns), depth = out[1], a[1][1]
        number = ctypes.c_double if dtype == np.float64 else ctypes.c_float
        one, zero = number(1), number(0)
        kind = ctypes.c_int(REAL[dtype.name])
        (a_form, a_step), (b_form, b_step) = _form(a, dtype), _form(b, dtype)
        whole = ctypes.c_int
        self._call(
            "cublasGemmEx", self.handle, whole(b_form), whole(a_form),
            whole(columns), whole(rows), whole(depth), ctypes.byref(one),
            ctypes.c_void_p(b[0]), kind, whole(b_step), ctypes.c_void_p(a[0]), kind, whole(a_step),
            ctypes.byref(zero), ctypes.c_void_p(out[0]), kind, whole(_form(out, dtype)[1]),
            whole(self.compute[dtype.name]), whole(DEFAULT_ALGORITHM),
        )  # fmt: skip


def _form(matrix, dtype):
    """(operation, leading dimension) by which cuBLAS reads a matrix."""
    _, (n, m), strides = matrix
    row_stride, column_stride = (stride // dtype.itemsize for stride in strides)
    if column_stride == 1 or m == 1:
        return NORMAL, max(row_stride, m)
    if row_stride == 1 or n == 1:
        return TRANSPOSED, max(column_stride, n)
    raise ValueError(f"a matrix has strides {strides}, expected adjacent rows or columns")
