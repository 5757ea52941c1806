"""A stand-in for CuPy and cuBLAS, as far as support/device.py uses them, over the device in memory.

It is strict where the real ones are: arrays and NumPy arrays do not mix, work goes to the current
stream, a capture is begun and ended on a stream of its own, and nothing may be allocated or copied
meanwhile. Kernels really run, so that whole training steps go through the code for a card.
"""

import contextlib
import ctypes
import re
from types import ModuleType, SimpleNamespace

import numpy as np
from emulator import Emulator

from minivae.kernels.support import launches

C_TYPES = {"int": np.int32, "i64": np.int64, "u32": np.uint32, "float": np.float32,
           "double": np.float64}  # fmt: skip


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for an error of the driver."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises if there is no memory."""


class FakeArray:
    """A cupy.ndarray: what of it support/device.py and the step use, and nothing else."""

    __cuda_array_interface__ = None

    def __init__(self, memory, gpu):
        self.memory = memory
        self.device = SimpleNamespace(id=gpu)
        self.data = SimpleNamespace(ptr=memory.__array_interface__["data"][0])
        for name in ("shape", "strides", "dtype", "size", "itemsize", "ndim", "nbytes", "flags"):
            setattr(self, name, getattr(memory, name))
        if self.size == 0:
            self.strides = (0,) * self.ndim

    def __len__(self):
        return len(self.memory)

    def __getitem__(self, key):
        return FakeArray(self.memory[key], self.device.id)

    def reshape(self, *shape):
        return FakeArray(self.memory.reshape(*shape), self.device.id)

    @property
    def T(self):
        return FakeArray(self.memory.T, self.device.id)


class FakeGPU:
    """The state behind a fake CuPy: the device in memory, the current stream, what was called."""

    def __init__(self, count=1, limit=None, broken=None):
        self.count, self.emulator, self.broken = count, Emulator(2, limit=limit), broken
        self.invalid = False  # whether a capture turns out to be so at its end
        self.destroyed = []  # graphs
        self.calls, self.current, self.streams = [], [], {}  # streams by their address

    def submit(self, stream, work):
        """Run now, or when the graph runs that the stream is capturing."""
        if stream.recorded is None:
            work()
        else:
            stream.recorded.append(work)

    def stream(self):
        assert self.current, "work for no stream: the default one would wait for all others"
        return self.current[-1]

    def synchronous(self, name):
        self.calls.append(name)
        assert self.stream().recorded is None, f"{name} while a stream is captured"


def fake_cupy(gpu):
    """A module like cupy over a FakeGPU."""

    class Stream:
        def __init__(self, *, non_blocking):
            assert non_blocking
            self.ptr, self.recorded = 1001 + len(gpu.streams), None
            gpu.streams[self.ptr] = self

        def __enter__(self):
            gpu.current.append(self)

        def __exit__(self, *error):
            assert gpu.current.pop() is self

        def begin_capture(self):
            assert self.recorded is None
            gpu.calls.append("begin_capture")
            self.recorded = []

        def end_capture(self):
            recorded = end_capture(self.ptr)

            def launch(stream):
                gpu.calls.append("launch")
                for work in recorded:
                    gpu.submit(stream, work)

            return SimpleNamespace(launch=launch)

    class RawModule:
        def __init__(self, *, code, options):
            sources = {launches.source(subject): subject for subject in launches.subjects()}
            names = dict(re.fullmatch(r"-D(\w+)=(.*)", option).groups() for option in options)
            self.subject = sources[code]
            self.dtype = next(d for d, name in launches.REALS.items() if name == names["REAL"])
            assert names == launches.definitions(self.dtype)
            gpu.calls.append(f"compile {self.subject} {self.dtype}")

        def get_function(self, name):
            gpu.calls.append(f"get_function {name}")
            assert not gpu.current or gpu.current[-1].recorded is None, "compiled in a capture"
            signature = launches.signatures()[name]
            assert signature.subject == self.subject
            real = {"REAL": launches.REALS[self.dtype]}
            kinds = [
                np.uint64 if star else C_TYPES[real.get(kind, kind)]
                for kind, star, _ in signature.parameters
            ]

            def kernel(grid, block, args):
                assert type(grid) is tuple and all(0 < n < 2**31 for n in grid)
                assert block == (launches.BLOCK,)
                assert [type(value) for value in args] == kinds, f"{name}: {args}"
                work = lambda: gpu.emulator.launch(self.dtype, name, grid, args)  # noqa: E731
                gpu.submit(gpu.stream(), work)

            return kernel

    @contextlib.contextmanager
    def device(index):
        if not 0 <= index < gpu.count:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        yield

    def empty(shape, dtype):
        gpu.synchronous("empty")
        try:
            memory = gpu.emulator.empty(shape, dtype).view(np.ndarray)
        except MemoryError as error:
            raise OutOfMemoryError(str(error)) from None
        return FakeArray(memory, 0)

    def asnumpy(array):
        gpu.synchronous("asnumpy")
        assert isinstance(array, FakeArray)
        return array.memory.copy()

    def fill(array, host):
        gpu.synchronous("set")
        assert type(host) is np.ndarray
        assert (host.shape, host.dtype) == (array.shape, array.dtype)
        array.memory[...] = host

    def end_capture(stream):
        gpu.calls.append("end_capture")
        recorded, gpu.streams[stream].recorded = gpu.streams[stream].recorded, None
        if gpu.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return recorded

    def get_device_count():
        if gpu.broken:
            raise CUDARuntimeError(gpu.broken)
        return gpu.count

    FakeArray.set = fill
    cupy = ModuleType("cupy")
    cupy.ndarray, cupy.empty, cupy.asnumpy, cupy.RawModule = FakeArray, empty, asnumpy, RawModule
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    runtime = SimpleNamespace(
        getDeviceCount=get_device_count, runtimeGetVersion=lambda: 13000,
        memGetInfo=lambda: (gpu.emulator.free_memory(), 10**9),
        streamEndCapture=lambda stream: id(end_capture(stream)), graphDestroy=gpu.destroyed.append,
        CUDARuntimeError=CUDARuntimeError,
    )  # fmt: skip
    cupy.cuda = SimpleNamespace(Device=device, Stream=Stream, runtime=runtime)
    return cupy


class FakeBlas:
    """cuBLAS's contract, which is column-major, in NumPy."""

    def __init__(self, gpu):
        self.gpu, self.stream, self.computes = gpu, None, set()

    def cublasCreate_v2(self, handle):
        handle._obj.value = 77
        return 0

    def cublasSetStream_v2(self, handle, stream):
        assert handle.value == 77
        self.stream = self.gpu.stream()
        assert self.stream.ptr == stream.value
        return 0

    def cublasSetWorkspace_v2(self, handle, workspace, size):
        assert self.stream, "a stream that is set later would take the workspace away"
        assert size.value >= 2**22 and workspace.value
        return 0

    def cublasGemmEx(self, handle, *arguments):
        """As cublas_api.h has it. Every argument is a ctypes value: ctypes passes others as int."""
        assert handle.value == 77
        a_form, b_form, m, n, k = (number.value for number in arguments[:5])
        alpha, a, a_kind, lda, b, b_kind, ldb, beta, c, c_kind, ldc, compute, algorithm = arguments[
            5:
        ]
        assert (alpha._obj.value, beta._obj.value, algorithm.value) == (1, 0, -1)
        assert a_kind.value == b_kind.value == c_kind.value
        kind = {0: ctypes.c_float, 1: ctypes.c_double}[a_kind.value]
        assert type(alpha._obj) is type(beta._obj) is kind
        assert compute.value in ({68, 77} if kind is ctypes.c_float else {70})
        self.computes.add(compute.value)

        def columns(place, rows, count, step):
            assert step.value >= max(1, rows)
            size = (count - 1) * step.value + rows
            flat = np.ctypeslib.as_array(ctypes.cast(place, ctypes.POINTER(kind)), (size,))
            return np.lib.stride_tricks.as_strided(
                flat, (rows, count), (flat.itemsize, step.value * flat.itemsize)
            )

        def work():
            left = columns(a, k, m, lda).T if a_form else columns(a, m, k, lda)
            right = columns(b, n, k, ldb).T if b_form else columns(b, k, n, ldb)
            columns(c, m, n, ldc)[...] = left @ right

        self.gpu.submit(self.stream, work)
        return 0
