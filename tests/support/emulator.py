"""A GPU in memory: the CUDA kernels, compiled by g++, on arrays that the host may not touch.

It is a device as launches.py describes it. What real hardware would not forgive is an error here:
an access outside of an array (around each lie zones whose bytes must stay what they are, and are
NaN), reading what was never written (NaN too), barriers that not all threads reach, and host code
that looks into an array, allocates or copies while a step is captured.
"""

import ctypes
import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minivae.kernels.support import launches

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
ORDERS = (0, 1, 2, 3)  # of threads and blocks: up, down, two shuffles
ZONE = 1024  # bytes on either side of an array
POISON = 0xFF  # as bytes of a float: NaN
CLEAN = (bytes([POISON]) * ZONE,) * 2
GXX = shutil.which("g++")
EMULATED = pytest.mark.skipif(
    GXX is None or platform.system() != "Linux", reason="the emulated GPU needs Linux and g++"
)
FLAGS = """-std=c++17 -O1 -U_FORTIFY_SOURCE -fPIC -shared -Wl,-Bsymbolic -fno-gnu-unique
    -Wall -Wextra -Werror -Wno-unused-function -Wno-clobbered""".split()
TYPES = {"int": "int", "i64": "long long", "u32": "unsigned", "double": "double"}
_folder = tempfile.TemporaryDirectory(prefix="cuda_on_cpu_")


class DeviceArray(np.ndarray):
    """An array that only kernels may read and write; the host can cut views of it.

    It has what tells a cupy.ndarray from others, and `get`, which copies it to the host.
    """

    __cuda_array_interface__ = None
    device = SimpleNamespace(id=0)

    def get(self):
        return self.view(np.ndarray).copy()

    def _refuse(self, *args, **kwargs):
        raise TypeError("the host cannot read or write an array on the device")

    __array_ufunc__ = __array_function__ = __setitem__ = _refuse
    __float__ = __int__ = __bool__ = item = tolist = copy = astype = fill = _refuse

    def __getitem__(self, key):
        view = super().__getitem__(key)
        return view if isinstance(view, DeviceArray) else self._refuse()


def compile_kernels(dtype, source):
    """The source as a shared library with a function `run_KERNEL` for each of its kernels."""
    host = f'#include "{HEADER}"\n{source}\n'
    for name, parameters in launches.parameters(source).items():
        kinds = [f"{'REAL' if kind == 'REAL' else TYPES.get(kind, kind)} {star}"
                 for kind, star, _ in parameters]  # fmt: skip
        given = ", ".join(f"{kind}a{i}" for i, kind in enumerate(kinds))
        handed = ", ".join(f"a{i}" for i in range(len(kinds)))
        host += (
            f'extern "C" const char *run_{name}(unsigned x, unsigned y, unsigned seed, {given})\n'
            f"{{ return cpu::launch(x, y, BLOCK, seed, [=] {{ {name}({handed}); }}); }}\n"
        )
    defines = [f"-D{key}={value}" for key, value in launches.definitions(dtype).items()]
    name = hashlib.sha256((host + str(defines)).encode()).hexdigest()[:12]
    file, library = Path(_folder.name, f"{name}.cpp"), Path(_folder.name, f"{name}.so")
    if not library.exists():
        file.write_text(host)
        command = [GXX, *FLAGS, *defines, str(file), "-o", str(library)]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(library))


def in_turn(method):
    """The method, while no other thread uses the device."""

    @functools.wraps(method)
    def call(self, *arguments):
        with self.lock:
            return method(self, *arguments)

    return call


class Emulator:
    """A device in memory. order: of threads and blocks. source: what there is of a subject.
    limit: bytes that it has, None for many.
    """

    product = None  # matrix products by the kernel of dense/cuda.cu

    def __init__(self, order=0, source=launches.source, limit=None):
        self.order, self.limit, self.source = order, limit, source
        self.units, self.arrays, self.recording = {}, weakref.WeakValueDictionary(), None
        self.launched, self.lock = 0, threading.RLock()

    @in_turn
    def empty(self, shape, dtype):
        self._require_no_capture("allocates")
        dtype = np.dtype(dtype)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        if self.limit is not None and n_bytes > self.free_memory():
            raise MemoryError(f"{n_bytes} bytes")
        whole = np.full(n_bytes + 2 * ZONE, POISON, np.uint8)
        array = whole[ZONE : ZONE + n_bytes].view(dtype).reshape(shape).view(DeviceArray)
        self.arrays[whole.ctypes.data] = whole
        return array

    def free_memory(self):
        return self.limit - sum(whole.size - 2 * ZONE for whole in self.arrays.values())

    @in_turn
    def upload(self, host, array):
        self._require_no_capture("copies")
        assert type(host) is np.ndarray and host.flags.c_contiguous
        assert (host.shape, host.dtype) == (array.shape, array.dtype)
        self.address("array", array)
        array.view(np.ndarray)[...] = host

    @in_turn
    def download(self, array):
        self._require_no_capture("copies")
        self.address("array", array)
        return array.view(np.ndarray).copy()

    def address(self, name, array):
        if type(array) is not DeviceArray:
            raise TypeError(f"{name} is a {type(array).__name__}, expected an array on the device")
        if array.size == 0:
            return 0
        if self._owner(array.ctypes.data) is None:
            raise ValueError(f"{name} is on another device")
        return array.ctypes.data

    def _owner(self, place):
        """Where the allocation begins that holds this place."""
        for start, whole in self.arrays.items():
            if start + ZONE <= place <= start + whole.size - ZONE:
                return start
        return None

    @in_turn
    def launch(self, dtype, kernel, grid, values):
        assert all(isinstance(value, np.generic) for value in values), values
        assert 0 < grid[0] < 2**31 and 0 < grid[1] < 2**16, grid
        key = launches.unit(self.units, dtype, kernel)
        if key not in self.units:
            self.units[key] = compile_kernels(key[1], self.source(key[0]))
        run = getattr(self.units[key], f"run_{kernel}")
        run.restype = ctypes.c_char_p
        arguments = [np.ctypeslib.as_ctypes_type(value.dtype)(value.item()) for value in values]
        arguments = [ctypes.c_uint(n) for n in (*grid, self.order)] + arguments
        if self.recording is None:
            self._run(kernel, run, arguments)
        else:
            used = [
                self._owner(int(value)) for value in values if value.dtype == np.uint64 and value
            ]
            self.recording.append((kernel, run, arguments, used))

    def _run(self, kernel, run, arguments, used=()):
        gone = [start for start in used if start not in self.arrays]
        assert not gone, f"{kernel} uses an array that is gone"
        error = run(*arguments).decode()
        assert not error, f"{kernel}: {error}"
        self.launched += 1
        for whole in self.arrays.values():
            zones = whole[:ZONE].tobytes(), whole[-ZONE:].tobytes()
            assert zones == CLEAN, f"{kernel} wrote outside of an array"

    @in_turn
    def capture(self, body):
        self._require_no_capture("captures")
        self.recording = recorded = []
        try:
            body()
        finally:
            self.recording = None

        def replay():
            with self.lock:
                for launch in recorded:
                    self._run(*launch)

        replay.nodes = [kernel for kernel, *_ in recorded]
        return replay

    def _require_no_capture(self, does):
        assert self.recording is None, f"the host {does} while a step is captured"
