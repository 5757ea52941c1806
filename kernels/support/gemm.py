"""Matrix products for compiled code: the method of BLAS without a library, at home in small sizes.

The result is cut into tiles of ROWS rows by up to VECTORS vectors of columns. A tile stays in
registers while the inner index k runs: each number of a column of `a` times the vectors of a row
of `b` (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"). Rows of
`b` that do not lie in memory that way, or that many tiles read, are first copied to a panel.

Every entry is one chain of multiply-adds in the order of k. So it depends neither on its place nor
on how rows and columns were shared among threads: the same input gives the same bits.

rs_x and cs_x are the row and the column stride of the matrix x, in entries.
"""

import platform

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .native import compiled, jit

_features = llvmlite.binding.get_host_cpu_features()
_avx512 = _features.get("avx512f", False)
_arm = platform.machine() in ("aarch64", "arm64")
VECTOR_BYTES = 64 if _avx512 else 32 if _features.get("avx") else 16
VECTORS = 3
ROWS = 8 if _avx512 or _arm else 4  # the tile and 4 vectors more: 28 of 32 registers, or all of 16
DEPTH = 256  # rows of a panel, which then fits the innermost cache
PANEL_PAYS = 128  # rows of a result from which a copy is cheaper than reading b where it lies
LINE_BYTES = 64  # of a cache

_n, _i32 = types.intp, ir.IntType(32)


# --- vectors at a pointer -------------------------------------------------------------------------


def _vector(context, pointer):
    """The machine's vector of what a pointer type points to."""
    number = context.get_value_type(pointer.dtype)
    return ir.VectorType(number, 8 * VECTOR_BYTES // pointer.dtype.bitwidth)


def _read(builder, pointer, index, vector):
    """The vector that begins at pointer[index]."""
    place = builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())
    return builder.load(place, align=VECTOR_BYTES // vector.count)


def _write(builder, value, pointer, index):
    place = builder.bitcast(builder.gep(pointer, [index]), value.type.as_pointer())
    builder.store(value, place, align=VECTOR_BYTES // value.type.count)


@intrinsic
def _lanes(typingctx, pointer):
    """How many entries one vector holds."""

    def codegen(context, builder, signature, args):
        return context.get_constant(_n, _vector(context, pointer).count)

    return _n(pointer), codegen


@intrinsic
def _at(typingctx, pointer, index):
    """Pointer to pointer[index]."""
    return pointer(pointer, _n), lambda context, builder, _, args: builder.gep(args[0], [args[1]])


@intrinsic
def _scratch(typingctx, pointer):
    """Pointer to room on the stack: DEPTH + ROWS rows of VECTORS vectors."""

    def codegen(context, builder, signature, args):
        vector = _vector(context, pointer)
        with builder.goto_entry_block():  # cgutils.alloca_once would fill it with 0 every time
            room = builder.alloca(vector, (DEPTH + ROWS) * VECTORS)
        return builder.bitcast(room, vector.element.as_pointer())

    return pointer(pointer), codegen


# --- two pieces of machine code -------------------------------------------------------------------


def _tile(n_vectors):
    """tile(depth, last, a, rs_a, cs_a, b, rs_b, out, rs_out, add, ahead): out = a b, or
    out += a b if add.

    a (ROWS, depth), b (depth, n_vectors vectors), out (ROWS, n_vectors vectors). Rows of a and out
    beyond `last` are that row again.
    ahead: the first of `depth` numbers, rs_b apart, to fetch into the cache meanwhile.
    """

    def codegen(context, builder, signature, args):
        depth, last, a, rs_a, cs_a, b, rs_b, out, rs_out, add, ahead = args
        vector = _vector(context, signature.args[2])
        lanes, module = vector.count, builder.module

        def whole(value):
            return context.get_constant(_n, value)

        def in_all_lanes(x):
            lane = builder.insert_element(ir.Constant(vector, ir.Undefined), x, whole(0))
            return builder.shuffle_vector(lane, lane, ir.Constant(ir.VectorType(_i32, lanes), None))

        def function(name, result, *arguments):
            return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)

        name = f"llvm.fmuladd.v{lanes}f{8 * VECTOR_BYTES // lanes}"
        multiply_add = function(name, vector, vector, vector, vector)
        prefetch = function("llvm.prefetch.p0", ir.VoidType(), cgutils.voidptr_t, _i32, _i32, _i32)
        for_reading_into_l2_data = [ir.Constant(_i32, value) for value in (0, 2, 1)]

        rows = [builder.select(builder.icmp_signed("<", whole(i), last), whole(i), last)
                for i in range(ROWS)]  # fmt: skip
        rows_a = [builder.gep(a, [builder.mul(i, rs_a)]) for i in rows]
        rows_out = [builder.gep(out, [builder.mul(i, rs_out)]) for i in rows]
        places = [whole(v * lanes) for v in range(n_vectors)]
        zero = ir.Constant(vector, None)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in places] for _ in rows]
        with builder.if_then(add):
            for row, row_sums in zip(rows_out, sums, strict=True):
                for place, total in zip(places, row_sums, strict=True):
                    builder.store(_read(builder, row, place, vector), total)
        with cgutils.for_range(builder, depth) as loop:
            row, column = builder.mul(loop.index, rs_b), builder.mul(loop.index, cs_a)
            line = builder.bitcast(builder.gep(ahead, [row]), cgutils.voidptr_t)
            builder.call(prefetch, [line, *for_reading_into_l2_data])
            row_b = builder.gep(b, [row])
            vectors = [_read(builder, row_b, place, vector) for place in places]
            for row_a, row_sums in zip(rows_a, sums, strict=True):
                x = in_all_lanes(builder.load(builder.gep(row_a, [column])))
                for y, total in zip(vectors, row_sums, strict=True):
                    builder.store(builder.call(multiply_add, [x, y, builder.load(total)]), total)
        for row, row_sums in zip(rows_out, sums, strict=True):
            for place, total in zip(places, row_sums, strict=True):
                _write(builder, builder.load(total), row, place)
        return context.get_dummy_value()

    @intrinsic
    def tile(typingctx, depth, last, a, rs_a, cs_a, b, rs_b, out, rs_out, add, ahead):
        return types.void(_n, _n, a, _n, _n, a, _n, a, _n, types.boolean, a), codegen

    return tile


_tile1, _tile2, _tile3 = _tile(1), _tile(2), _tile(3)


@intrinsic
def _transpose(typingctx, source, rs_source, target, rs_target):
    """target = source^T for one square of as many rows and columns as a vector has entries."""

    def codegen(context, builder, signature, args):
        source, rs_source, target, rs_target = args
        vector = _vector(context, signature.args[0])
        n = vector.count
        numbers = [context.get_constant(_n, i) for i in range(n)]
        rows = [_read(builder, source, builder.mul(i, rs_source), vector) for i in numbers]
        # Rows i and i + n/2 are riffled like two halves of a pack of cards. After log2(n) times,
        # what was a row is a column.
        riffled = [card for i in range(n) for card in (i, n + i)]
        order = [ir.Constant(ir.VectorType(_i32, n), half) for half in (riffled[:n], riffled[n:])]
        for _ in range(n.bit_length() - 1):
            rows = [builder.shuffle_vector(rows[i], rows[i + n // 2], half)
                    for i in range(n // 2) for half in order]  # fmt: skip
        for i, row in zip(numbers, rows, strict=True):
            _write(builder, row, target, builder.mul(i, rs_target))
        return context.get_dummy_value()

    return types.void(source, _n, source, _n), codegen


# --- the product ----------------------------------------------------------------------------------


@jit
def _fill_panel(b, rs, cs, depth, width, panel, columns):
    """panel (depth, columns) = b (depth, width), with 0 beside it up to a whole vector."""
    lanes = _lanes(b)
    square_rows, square_columns = 0, 0  # how far b is transposed in squares
    if rs == 1 and cs != 1:
        square_rows, square_columns = depth // lanes * lanes, width // lanes * lanes
        for j in range(0, square_columns, lanes):
            for k in range(0, square_rows, lanes):
                _transpose(_at(b, k + j * cs), cs, _at(panel, k * columns + j), columns)
    for k in range(depth):
        row, target = _at(b, k * rs), _at(panel, k * columns)
        for j in range(square_columns if k < square_rows else 0, width):
            target[j] = row[j * cs]
        for j in range(width, -(-width // lanes) * lanes):
            target[j] = 0


@jit
def _read_tile(rows, columns, tile, rs_tile, out, rs, cs):
    for i in range(rows):
        for j in range(columns):
            tile[i * rs_tile + j] = out[i * rs + j * cs]


@jit
def _write_tile(rows, columns, tile, rs_tile, out, rs, cs):
    for i in range(rows):
        for j in range(columns):
            out[i * rs + j * cs] = tile[i * rs_tile + j]


@compiled
def _multiply(m, n, depth, a, rs_a, cs_a, b, rs_b, cs_b, out, rs_out, cs_out):
    """out (m, n) = a (m, depth) b (depth, n), each by its first entry and its strides."""
    lanes = _lanes(out)
    columns, line = VECTORS * lanes, LINE_BYTES * lanes // VECTOR_BYTES
    panel = _scratch(out)
    spare = _at(panel, DEPTH * columns)  # a tile that is not whole vectors in out
    blocks = max(1, -(-depth // DEPTH))
    for block in range(blocks):
        first = depth * block // blocks
        k, add = depth * (block + 1) // blocks - first, block > 0
        for j in range(0, n, columns):
            width = min(columns, n - j)
            whole = width % lanes == 0 and cs_out == 1
            here, rs = _at(b, first * rs_b + j * cs_b), rs_b
            packed = cs_b != 1 or width % lanes != 0 or m >= PANEL_PAYS
            if packed:
                _fill_panel(here, rs_b, cs_b, k, width, panel, columns)
                here, rs = panel, columns
            for i in range(0, m, ROWS):
                last = min(ROWS, m - i) - 1
                rows = _at(a, i * rs_a + first * cs_a)
                target = _at(out, i * rs_out + j * cs_out)
                tile, rs_tile = (target, rs_out) if whole else (spare, columns)
                # Each tile fetches one line of every row of the columns that come next.
                next_line = min(columns + i // ROWS % 4 * line, n - 1 - j)
                ahead = here if packed else _at(here, next_line)
                if add and not whole:
                    _read_tile(last + 1, width, spare, columns, target, rs_out, cs_out)
                if width > 2 * lanes:
                    _tile3(k, last, rows, rs_a, cs_a, here, rs, tile, rs_tile, add, ahead)
                elif width > lanes:
                    _tile2(k, last, rows, rs_a, cs_a, here, rs, tile, rs_tile, add, ahead)
                else:
                    _tile1(k, last, rows, rs_a, cs_a, here, rs, tile, rs_tile, add, ahead)
                if not whole:
                    _write_tile(last + 1, width, spare, columns, target, rs_out, cs_out)


_dtypes = types.float32, types.float64
_arguments = {dtype: (_n, _n, _n, *(types.CPointer(dtype), _n, _n) * 3) for dtype in _dtypes}


@intrinsic
def multiply(typingctx, a, b, out):
    """out (m, n) = a (m, k) b (k, n), of one dtype, in memory in any way but not overlapping."""
    if not (a.dtype == b.dtype == out.dtype and out.dtype in _dtypes):
        raise TypingError("matmul: a, b and out must all be float32, or all float64")

    def codegen(context, builder, signature, args):
        arrays = [context.make_array(kind)(context, builder, value)
                  for kind, value in zip(signature.args, args, strict=True)]  # fmt: skip
        dtype = signature.args[0].dtype
        size = context.get_constant(_n, dtype.bitwidth // 8)
        shapes = [cgutils.unpack_tuple(builder, array.shape) for array in arrays]
        arguments = [*shapes[2], shapes[0][1]]
        for array in arrays:
            strides = cgutils.unpack_tuple(builder, array.strides)
            arguments += [array.data, *(builder.sdiv(stride, size) for stride in strides)]
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        _multiply.compile(_arguments[dtype])
        context.active_code_library._reload_init.add(_multiply.link(_arguments[dtype]))
        symbol = f"{_multiply.symbol(_arguments[dtype])}_c"
        builder.call(cgutils.get_or_insert_function(builder.module, kind, symbol), arguments)
        return context.get_dummy_value()

    return types.void(a, b, out), codegen
