"""BLAS for compiled code: gemm on any matrices that lie by rows or by columns, without a copy.

Numba's own np.dot copies every operand that is not contiguous, and costs a microsecond a call.
The library is MKL where the package `mkl` is installed (pip install 'minivae[mkl]'), else the
OpenBLAS inside SciPy. Compiled code finds it by a name of ours, so that cached code does too.
"""

import ctypes
from importlib import metadata

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import get_cython_function_address, intrinsic

from .formulas import jit

SEQUENTIAL = 1  # of MKL's threading layers: threads are our own


def _mkl():
    """The MKL that pip has installed, on the thread that calls it; None if there is none."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if "mkl_rt" in file.name and ".so" in file.name:
            library = ctypes.CDLL(str(file.locate().resolve()))
            library.MKL_Set_Threading_Layer(SEQUENTIAL)
            return library
    return None


def _load():
    """Give sgemm and dgemm their names; returns the name of the library."""
    mkl = _mkl()
    for name in ("sgemm", "dgemm"):
        if mkl is None:
            address = get_cython_function_address("scipy.linalg.cython_blas", name)
        else:
            address = ctypes.cast(getattr(mkl, f"{name}_"), ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"minivae_{name}", address)
    return "OpenBLAS (SciPy)" if mkl is None else "MKL"


LIBRARY = _load()


@intrinsic
def gemm(typingctx, transpose_a, transpose_b, m, n, k, a, lda, b, ldb, c, ldc):
    """c (m, n) = a' (m, k) b' (k, n) for matrices by columns, ' meaning transposed if so asked.

    a, b, c are arrays of one dtype, of which the address is used; lda, ldb, ldc the distances from
    one column to the next. The arguments go to the Fortran routine, all by reference.
    """
    if not (a.dtype == b.dtype == c.dtype and c.dtype in (types.float32, types.float64)):
        raise TypingError("matmul: a, b and out must all be float32, or all float64")
    name = "minivae_sgemm" if c.dtype == types.float32 else "minivae_dgemm"

    def codegen(context, builder, signature, args):
        real, int32 = context.get_value_type(c.dtype), ir.IntType(32)
        pointer = cgutils.voidptr_t

        def by_reference(value):
            slot = cgutils.alloca_once_value(builder, value)
            return builder.bitcast(slot, pointer)

        def letter(flag):
            codes = [ir.Constant(ir.IntType(8), ord(x)) for x in "TN"]
            return by_reference(builder.select(builder.trunc(flag, ir.IntType(1)), *codes))

        def whole(value):
            return by_reference(builder.trunc(value, int32))

        def data(i):
            array = context.make_array(signature.args[i])(context, builder, args[i])
            return builder.bitcast(array.data, pointer)

        one, zero = (by_reference(ir.Constant(real, value)) for value in (1, 0))
        pointers = [
            letter(args[0]), letter(args[1]), *map(whole, args[2:5]), one,
            data(5), whole(args[6]), data(7), whole(args[8]), zero, data(9), whole(args[10]),
        ]  # fmt: skip
        routine = ir.FunctionType(ir.VoidType(), [pointer] * len(pointers))
        builder.call(cgutils.get_or_insert_function(builder.module, routine, name), pointers)
        return context.get_dummy_value()

    i, flag = types.intp, types.boolean
    return types.void(flag, flag, i, i, i, a, i, b, i, c, i), codegen


@jit
def layout(a):
    """(does matrix a lie by columns?, elements from one row, or column, to the next).

    The distance is -1 for a matrix that lies by neither, such as every other column of another, or
    rows in reverse, or one row broadcast to many.
    """
    rows, columns = a.shape
    down, right = a.strides
    size = a.itemsize
    by_rows = rows == 1 or (down >= columns * size and down % size == 0)
    if (right == size or columns == 1) and by_rows:
        return False, columns if rows == 1 else down // size
    by_columns = columns == 1 or (right >= rows * size and right % size == 0)
    if (down == size or rows == 1) and by_columns:
        return True, rows if columns == 1 else right // size
    return False, -1
