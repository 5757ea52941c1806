"""The one switch between machines: which kernel table runs the program of `objective.py`.

A machine is the functions of `objective.py`, bound to a table: the same code objects with another
meaning of the name `k`, compiled or not.
"""

import functools
import hashlib
import os
import threading
from types import FunctionType, SimpleNamespace

from minivae import objective
from minivae.parameters import Plan, Workspace

DEVICES = ("auto", "cpu", "cuda", "reference")


def machine(device):
    """The program of `objective.py` (`.train`, `.encode`, ...) on a device.

    "reference": Python over NumPy, to read and to step through. "cpu": compiled, over Numba.
    "auto": the fastest machine that is there; today always "cpu".
    """
    check_device(device)
    return _bound("cpu" if device == "auto" else device)


def check_device(device):
    """Raise unless there is a machine for the device."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda":
        raise NotImplementedError('device="cuda" is not built yet; use device="cpu" or "auto"')


@functools.cache
def _bound(device):
    if device == "reference":
        return objective
    from minivae.kernels import cpu

    fields = repr((Plan._fields, Workspace._fields)).encode()
    layout = hashlib.sha256(fields).hexdigest()[:6]
    return bind(objective, cpu, functools.partial(cpu.compiled, layout=layout))


def bind(program, table, compiled):
    """The functions of the module `program`, with `table` behind their name `k`, each compiled."""
    names = {**vars(program), "k": table}
    for name, value in vars(program).items():
        if isinstance(value, FunctionType) and value.__module__ == program.__name__:
            names[name] = compiled(FunctionType(value.__code__, names, name, value.__defaults__))
    return SimpleNamespace(**names)


class _OneBlasThread:
    """The limit is the process's own: the first to come sets it, the last to go lifts it."""

    def __init__(self):
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self):
        with self.lock:
            if self.users == 0:
                self.limit = _thread_pools().limit(limits=1, user_api="blas")
            self.users += 1

    def __exit__(self, *error):
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.limit.restore_original_limits()


_ONE_BLAS_THREAD = _OneBlasThread()


def one_blas_thread():
    """Context in which BLAS stays on the thread that calls it; a pool would fight ours."""
    return _ONE_BLAS_THREAD


@functools.cache
def _thread_pools():
    """The thread pools of all libraries loaded; finding them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def processors():
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
