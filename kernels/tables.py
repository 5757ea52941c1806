"""The tables: every kernel by its name, over NumPy, over Numba, or on a device.

A step is written against a table `k` and runs over any of them. The kernels themselves are in the
folders named here: SUBJECT/reference.py is the specification with the derivations, cpu.py and
cuda.py with cuda.cu are its twins.
"""

import functools
import importlib
from types import ModuleType

SUBJECTS = ("dense", "posterior", "likelihoods", "random", "optimizers", "batch", "sequence",
            "chains", "couplings", "convolution", "boltzmann", "recurrent",
            "adversarial")  # fmt: skip


def _kernels(side):
    """{name: function} of all public functions of the subjects on one side."""
    found = {}
    for subject in SUBJECTS:
        module = importlib.import_module(f".{subject}.{side}", __package__)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and name[0] != "_":
                found[name] = value
    return found


def _table(side, kernels):
    # A module, since compiled code reads a module's names as values that never change.
    table = ModuleType(f"{__name__}.{side}")
    vars(table).update(kernels)
    return table


reference = _table("reference", _kernels("reference"))


def check_compiler():
    """Raise where Numba's compiler is switched off, as debuggers and coverage tools ask for."""
    from numba import config

    if config.DISABLE_JIT:
        raise RuntimeError(
            'device="cpu" is compiled code, and NUMBA_DISABLE_JIT switches the compiler off: unset '
            'it, or use device="reference"'
        )


@functools.cache
def cpu():
    """The table of Numba twins; compiled when they are first called."""
    return _table("cpu", _kernels("cpu"))


def on_device(device, control=None):
    """The table of CUDA twins on a device, as `support/launches.py` describes devices.

    control: of a step that is captured, whose step numbers, rows and learning rate may be a
    Counter, Rows and a Rate; nothing that lasts from step to step is written any more once
    `all_finite` has seen what is not finite.
    """
    from .support.launches import Launcher

    on = Launcher(device, control)
    twins = _kernels("cuda").items()
    return _table("device", {name: functools.partial(twin, on) for name, twin in twins})
