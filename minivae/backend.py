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


def machine(device, matmul_precision="float32"):
    """The program of `objective.py` (`.train`, `.encode`, ...) on a device.

    "reference": Python over NumPy, to read and to step through. "cpu": compiled, over Numba.
    "cuda": a GPU; "cuda:1" the second one. "auto": a GPU that works, else "cpu".
    matmul_precision: of a GPU's products of float32 arrays, "float32" or "tf32", which keeps 10 of
    23 bits of their factors. ValueError says in one line why there is no GPU that works.
    """
    name, index = parse_device(device)
    if name == "auto":
        name = "cpu" if isinstance(_find(index, matmul_precision), str) else "cuda"
    return _cuda(index, matmul_precision) if name == "cuda" else _bound(name)


def check_device(device, matmul_precision="float32"):
    """Raise unless there is a machine for the device."""
    name, index = parse_device(device)
    if name == "cuda":
        _cuda(index, matmul_precision)


def parse_device(device):
    """(name, number of the GPU) of a device such as "cpu", "cuda" or "cuda:1"."""
    name, colon, index = device.partition(":") if isinstance(device, str) else (device, "", "")
    if name not in DEVICES or (colon and not (name == "cuda" and index.isdecimal())):
        raise ValueError(
            f'device must be one of {", ".join(DEVICES)}, or "cuda:1" for the second GPU, '
            f"got {device!r}"
        )
    return name, int(index or 0)


def _find(index, matmul_precision):
    from minivae.kernels import cuda

    return cuda.find(index, matmul_precision)


@functools.cache
def _cuda(index, matmul_precision):
    card = _find(index, matmul_precision)
    if isinstance(card, str):
        raise ValueError(f'device="cuda" cannot be used: {card}; use device="cpu" or "auto"')
    return on_device(card)


def on_device(device):
    """The program on a device as `kernels/launches.py` describes it."""
    from minivae import replay

    return replay.make_machine(
        device, lambda table: bind(objective, table, lambda function: function)
    )


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
