"""The one switch between machines: which kernel table runs the program of `objective.py`.

A machine is the functions of `objective.py`, bound to a table: the same code objects with another
meaning of the name `k`, compiled or not.
"""

import functools
import hashlib
import os
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
    from minivae.kernels import cpu, native

    fields = repr((Plan._fields, Workspace._fields)).encode()
    layout = hashlib.sha256(fields).hexdigest()[:6]
    # Inlined, the step is one piece: compiled sooner, and no call has to hand on a whole Plan.
    return bind(objective, cpu, functools.partial(native.compiled, layout=layout, inline="always"))


def bind(program, table, compiled):
    """The functions of the module `program`, with `table` behind their name `k`, each compiled."""
    names = {**vars(program), "k": table}
    for name, value in vars(program).items():
        if isinstance(value, FunctionType) and value.__module__ == program.__name__:
            names[name] = compiled(FunctionType(value.__code__, names, name, value.__defaults__))
    return SimpleNamespace(**names)


def processors():
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
