"""Where workers of compiled code wait for each other: first awake, then asleep.

Awake, a wait costs less than a microsecond, but on a busy machine it keeps the processor from the
very worker that is waited for. So after some microseconds the kernel is asked to wake us (futex,
Linux; elsewhere a worker that waits offers its processor to others at every look).
"""

import platform

from numba import types
from numba.extending import intrinsic

from .native import jit

LOOKS = 100_000  # before sleep: tens of microseconds, as long as falling asleep and waking up take
ARRIVED, GENERATION, ASLEEP = range(3)  # places in the barrier, (3,) int64

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0)  # number of the system call
FUTEX = _FUTEX if platform.system() == "Linux" else 0
WAIT, WAKE, EVERYBODY = 128, 129, 2**31 - 1  # for threads of one process

_word = types.CPointer(types.int64)
_syscall = types.ExternalFunction(
    "syscall", types.int64(types.int64, _word, types.int64, types.int64, types.int64)
)
_yield = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def _place(typingctx, array, index):
    """Pointer to array[index]."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return _word(array, types.int64), codegen


@intrinsic
def _add(typingctx, place, value):
    """Add to what a pointer points to as one atomic operation; returns the value before it."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "seq_cst")

    return types.int64(_word, types.int64), codegen


@intrinsic
def _look(typingctx, place):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(args[0], "seq_cst", 8)

    return types.int64(_word), codegen


@jit
def wait_for_all(barrier, workers):
    """Come back when as many workers are here; GENERATION counts how often that was so."""
    arrived, generation = _place(barrier, ARRIVED), _place(barrier, GENERATION)
    asleep = _place(barrier, ASLEEP)
    now = _look(generation)
    if _add(arrived, 1) == workers - 1:
        _add(arrived, -workers)
        _add(generation, 1)
        if _look(asleep) > 0:
            _syscall(FUTEX, generation, WAKE, EVERYBODY, 0)
        return
    looks = 0
    while _look(generation) == now:
        looks += 1
        if FUTEX == 0:
            _yield()
        elif looks > LOOKS:
            _add(asleep, 1)  # whoever comes last sees this, or the kernel sees a new generation
            _syscall(FUTEX, generation, WAIT, now & 0xFFFFFFFF, 0)
            _add(asleep, -1)
