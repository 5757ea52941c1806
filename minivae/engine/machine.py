"""The one switch between machines: which kernel table runs a family's program, and who runs it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from minivae.engine import step, task
from minivae.engine.program import bind, fingerprint
from minivae.kernels import tables

DEVICES = ("auto", "cpu", "cuda", "reference")


@dataclass(frozen=True)
class Machine:
    """A family's program bound to a kernel table.

    trainer(machine, layout, recipe, state, X, n_threads) makes who trains on X, or on
    parts of other data that are no larger:
        run(recipe, state, data, rows)   train on these rows of data; how many steps were made
        store()                          bring what a run changed of the state back to the host
        finite(state)                    whether all parameters are
        gradient, work                   of the last step, on the host
        steps                            how many to run before the next look at the clock
    and is used in a `with` block. session(machine, layout, weights, theta, rows) makes what
    evaluates: see threads.Session.
    """

    name: str
    k: ModuleType
    program: ModuleType
    step: ModuleType
    task: ModuleType
    trainer: Callable
    session: Callable


def machine(program, device, matmul_precision="float32"):
    """The Machine of a family's module on a device.

    "reference": Python over NumPy, to read and to step through. "cpu": compiled, over Numba.
    "cuda": a GPU; "cuda:1" the second one. "auto": a GPU that works, else "cpu".
    matmul_precision: of a GPU's products of float32 arrays, "float32" or "tf32", which keeps 10 of
    23 bits of their factors. ValueError says in one line why there is no GPU that works.
    """
    name, index = parse_device(device)
    if name in ("cuda", "auto"):
        card = _find(index, matmul_precision)
        if not isinstance(card, str):
            return on_device(program, card)
        if name == "cuda":
            raise ValueError(f'device="cuda" cannot be used: {card}; use device="cpu" or "auto"')
    return on_processor(program, "reference" if name == "reference" else "cpu")


@functools.cache
def on_processor(program, name):
    """The Machine without a GPU: "reference" or "cpu"."""
    from minivae.engine.threads import Session, Trainer

    if name == "reference":
        table, compiled = tables.reference, lambda function, inline: function
    else:
        tables.check_compiler()
        from minivae.kernels.support import native

        table = tables.cpu()
        compiled = functools.partial(native.compiled, layout=fingerprint(program))
    bound = bind(program, table, compiled)
    return Machine(name, table, bound[program], bound[step], bound[task], Trainer, Session)


def is_compiled(machine):
    """Whether a training step of this program was ever compiled on this computer, in any dtype."""
    from minivae.kernels.support import native

    return native.is_cached(machine.step.train)


@functools.cache
def on_device(program, card):
    """The Machine on a device as kernels/support/launches.py describes it."""
    from minivae.engine import graph

    table = tables.on_device(card)
    bound = bind(program, table, lambda function, inline: function)
    make = functools.partial
    return Machine("cuda", table, bound[program], bound[step], bound[task],
                   make(graph.Trainer, card), make(graph.Session, card))  # fmt: skip


def check_device(device, matmul_precision="float32"):
    """Raise unless there is a machine for the device."""
    name, index = parse_device(device)
    card = _find(index, matmul_precision) if name == "cuda" else None
    if isinstance(card, str):
        raise ValueError(f'device="cuda" cannot be used: {card}; use device="cpu" or "auto"')
    if name == "cpu":
        tables.check_compiler()


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
    from minivae.kernels.support import device

    return device.find(index, matmul_precision)
