"""How functions become native code: compiled by Numba, kept in its cache, linked by name."""

import contextlib
import hashlib
import pathlib

import llvmlite.binding
import numba
from numba import types
from numba.core.caching import FunctionCache

# numpy's error model: without it a test for 0 before each division keeps loops scalar.
# Regrouping ("reassoc") is not among the flags here: the range reductions of `formulas.py` depend
# on their order. Nor are nnan and ninf: NaN stays NaN, and infinity may be compared.
# Division and square root stay exact, so that an entry has the same bits wherever a loop meets it.
OPTIONS = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "nogil": True}
FAST = OPTIONS | {"fastmath": OPTIONS["fastmath"] | {"reassoc"}}  # sums may be regrouped
jit = numba.njit(**OPTIONS)
inlined = numba.njit(inline="always", **OPTIONS)  # where loops would else not be vectorised


def _digest():
    sources = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


DIGEST = _digest()


class _Cache(FunctionCache):
    """Numba's cache, but a full disk or a broken file costs time instead of an exception."""

    def load_overload(self, signature, target):
        try:
            return super().load_overload(signature, target)
        except Exception:  # half a file can raise anything when it is unpickled
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, signature, result):
        with contextlib.suppress(OSError):
            super().save_overload(signature, result)


def compiled(function, layout="", **options):
    """`function` as native code, kept in Numba's cache where there is a place for one.

    Numba looks at a function's own file to see whether its cache is stale, not at the functions it
    calls or the tuples it reads by position. So its name gets the digest of all kernel sources, and
    the layout of the caller's tuples.
    """
    function.__qualname__ = f"{function.__name__}_{DIGEST}{layout}"
    dispatcher = numba.njit(**{**FAST, **options})(function)
    with contextlib.suppress(RuntimeError):  # no folder that can be written
        dispatcher._cache = _Cache(function)
    return dispatcher


_alive = []  # what is linked to a symbol must not be collected


def external(function, symbols):
    """Compile `function` now, for each of {C symbol: argument types}, and link it to that name.

    Who calls it by name does not compile it into itself, as Numba does with its own functions, over
    and over: the products of `gemm.py` would otherwise be half of a first compilation.
    """
    dispatcher = compiled(function)
    for symbol, arguments in symbols.items():
        dispatcher.compile(types.void(*arguments))
        result = dispatcher.overloads[arguments]
        address = result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)
        llvmlite.binding.add_symbol(symbol, address)
    _alive.append(dispatcher)
