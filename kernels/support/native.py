"""How functions become native code: compiled by Numba, kept in its cache, linked by name."""

import contextlib
import hashlib
import pathlib
from dataclasses import dataclass

import llvmlite.binding
import numba
from numba.core import cgutils, types
from numba.core.caching import FunctionCache
from numba.core.imputils import fix_returning_optional, impl_ret_new_ref
from numba.core.registry import CPUDispatcher

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


def compiled(function, layout="", inline="never", **options):
    """`function` as native code, kept in Numba's cache where there is a place for one.

    Numba looks at a function's own file to see whether its cache is stale, not at the functions it
    calls or the tuples it reads by position. So its name gets the digest of all kernel sources, and
    the layout of the caller's tuples.
    inline "always": it is compiled into its callers; "never": they call it by its symbol.
    """
    function.__qualname__ = f"{function.__name__}_{DIGEST}{layout}"
    options = {**FAST, **options}
    if inline == "always":
        dispatcher = numba.njit(inline="always", **options)(function)
    else:
        dispatcher = Linked(function, options | {"nopython": True, "boundscheck": None})
    with contextlib.suppress(RuntimeError):  # no folder that can be written
        dispatcher._cache = _Cache(function)
    return dispatcher


def is_cached(dispatcher):
    """Whether the cache has machine code of a function, for whatever arguments."""
    cache = getattr(dispatcher._cache, "_cache_file", None)
    return cache is not None and pathlib.Path(cache._index_path).exists()


# --- calls by symbol ------------------------------------------------------------------------------
#
# Numba links the code of a function into each of its callers and has LLVM optimise it there once
# more: a kernel that five functions call is optimised six times. A caller of what is `Linked` gets
# the symbol alone. Where a caller comes from the cache, its symbols must be known before its code
# is; Numba runs what it finds in `reload_init` at that moment.

_linked = {}  # (module, qualified name): Linked


class Linked(CPUDispatcher):
    """A compiled function that compiled callers call by its symbol."""

    def __init__(self, py_func, targetoptions):
        super().__init__(py_func, targetoptions=targetoptions)
        _linked[py_func.__module__, py_func.__qualname__] = self

    def add_overload(self, result):
        super().add_overload(result)
        symbol, library = self.symbol(result.signature.args), result.library
        for name, function in (
            (symbol, result.fndesc.llvm_func_name),
            (f"{symbol}_c", result.fndesc.llvm_cfunc_wrapper_name),
        ):
            llvmlite.binding.add_symbol(name, library.get_pointer_to_function(function))
        call = _call(symbol, result.fndesc, self.link(result.signature.args))
        self.targetctx.remove_user_function(result.entry_point)
        self.targetctx._defns[result.entry_point].append(call, call.signature)

    def get_call_template(self, args, kws):
        """How a compiled caller sees it: for a constant as for any number of its type, or it would
        be compiled once more for every stream of random numbers."""
        return super().get_call_template(
            tuple(map(types.unliteral, args)),
            {name: types.unliteral(value) for name, value in kws.items()},
        )

    def symbol(self, arguments):
        """The name of the native code for arguments of these types, + "_c" for callers by C."""
        types = hashlib.sha256(str(tuple(arguments)).encode()).hexdigest()[:16]
        return f"{self.py_func.__module__}.{self.py_func.__qualname__}_{types}"

    def link(self, arguments):
        """What a caller by symbol must keep, see `Link`."""
        return Link(self.py_func.__module__, self.py_func.__qualname__, tuple(arguments))


@dataclass(frozen=True)
class Link:
    """That compiled code needs the symbol of a function for arguments of these types."""

    module: str
    name: str
    arguments: tuple

    def __call__(self):
        _linked[self.module, self.name].compile(self.arguments)


def _call(symbol, description, link):
    """How Numba is to call the function that `description` describes: by its symbol."""

    def call(context, builder, sig, args):
        convention, result = context.call_conv, description.restype
        kind = convention.get_function_type(result, description.argtypes)
        function = cgutils.get_or_insert_function(builder.module, kind, symbol)
        status, value = convention.call_function(builder, function, result, description.argtypes,
                                                 args)  # fmt: skip
        with cgutils.if_unlikely(builder, status.is_error):
            convention.return_status_propagate(builder, status)
        value = fix_returning_optional(context, builder, sig, status, value)  # or None
        context.active_code_library._reload_init.add(link)
        return impl_ret_new_ref(context, builder, sig.return_type, value)

    call.signature, call.libs = description.argtypes, ()
    return call
