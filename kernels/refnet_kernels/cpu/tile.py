"""A register tile: rows x columns of sums in vector registers, and the operations on it.

Numba lacks a vector type. Here is one: `TileType` is an LLVM array of ``rows * VECTORS`` vectors of ``VECTOR_BYTES``,
which LLVM keeps in registers; its ``element`` is binary32 or binary64. Each function below is one line
of arithmetic on a whole tile, so that a kernel reads as Python. Rows are pixels, columns are output channels; an
address is an int64 in bytes.

Every operation is one IEEE-754 operation per element (rule A0 of the contract), so the bits do not depend on the
tile's shape.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, register_model

from refnet_kernels.contract import RUN
from refnet_kernels.cpu.kernel import helper
from refnet_kernels.cpu.memory import FLOATS, emit_prefetch, floats
from refnet_kernels.target import LINE_BYTES, ROWS, VECTOR_BYTES, VECTORS, WIDTH_BYTES

_INT = ir.IntType(64)

#: The offsets of rows that follow one another. A tile has as many rows as the offsets that it is loaded from.
CLOSE_ROWS = tuple(row * WIDTH_BYTES for row in range(ROWS))


class TileType(types.Type):
    """Numba's type of a register tile, with LLVM's types of its parts."""

    def __init__(self, element: Any, rows: int) -> None:
        self.rows = rows
        self.of = element
        self.element = FLOATS[element]
        self.element_bytes = element.bitwidth // 8
        self.vector = ir.VectorType(self.element, VECTOR_BYTES // self.element_bytes)
        self.array = ir.ArrayType(self.vector, rows * VECTORS)
        super().__init__(name=f"Tile({rows}x{VECTORS}x{self.vector.count} {element})")


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.array)


class VectorType(types.Type):
    """Numba's type of one vector of numbers, and of the places in it: integers as wide as the numbers."""

    def __init__(self, element: Any, are_places: bool) -> None:
        tile = TileType(element, 1)
        self.lane = ir.IntType(element.bitwidth) if are_places else tile.element
        self.vector = ir.VectorType(self.lane, tile.vector.count)
        super().__init__(name=f"Vector({tile.vector.count} {'places ' if are_places else ''}{element})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.vector)


def _pointer(builder: Any, tile: TileType, address: Any, vector: int) -> Any:
    return builder.inttoptr(builder.add(address, _INT(vector * VECTOR_BYTES)), ir.PointerType(tile.vector))


def _load(builder: Any, tile: TileType, address: Any, vector: int) -> Any:
    value = builder.load(_pointer(builder, tile, address, vector), typ=tile.vector)
    value.align = tile.element_bytes
    return value


def _columns(builder: Any, tile: TileType, address: Any) -> list[Any]:
    """The row at an address, as vectors: one number per column of a tile."""
    return [_load(builder, tile, address, vector) for vector in range(VECTORS)]


def _rows(builder: Any, address: Any, offsets: Any) -> list[Any]:
    """The addresses of a tile's rows."""
    return [builder.add(address, builder.extract_value(offsets, row)) for row in range(offsets.type.count)]


def _fma(builder: Any, tile: TileType, a: Any, b: Any, c: Any) -> Any:
    # llvmlite's own builder.fma takes scalars only.
    name = f"llvm.fma.v{tile.vector.count}f{8 * tile.element_bytes}"
    function = ir.FunctionType(tile.vector, [tile.vector] * 3)
    return builder.call(get_or_insert_function(builder.module, function, name), [a, b, c])


def _splat(builder: Any, kind: TileType | VectorType, scalar: Any) -> Any:
    lane = builder.insert_element(ir.Constant(kind.vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.vector.count), None)
    return builder.shuffle_vector(lane, ir.Constant(kind.vector, ir.Undefined), zeros)


def _each(builder: Any, value: Any, step: Any) -> Any:
    """Apply ``step(element, row, vector)`` to each vector of a tile."""
    result = value
    for index in range(value.type.count):
        row, vector = divmod(index, VECTORS)
        result = builder.insert_value(result, step(builder.extract_value(value, index), row, vector), index)
    return result


@intrinsic
def zero_tile(typingctx, offsets, element):
    """A tile of +0, of ``np.float32`` or ``np.float64``, with as many rows as there are offsets."""
    tile = TileType(element.instance_type, offsets.count)

    def codegen(context, builder, signature, args):
        return ir.Constant(tile.array, None)

    return tile(offsets, element), codegen


@intrinsic
def load_rows(typingctx, address, like):
    """The int64 at an address, one per row of a tile, as a tuple ``like`` another one."""

    def codegen(context, builder, signature, args):
        base = builder.inttoptr(args[0], ir.PointerType(_INT))
        rows = ir.Constant(ir.ArrayType(_INT, like.count), ir.Undefined)
        for row in range(like.count):
            rows = builder.insert_value(
                rows, builder.load(builder.gep(base, [_INT(row)], source_etype=_INT), typ=_INT), row
            )
        return rows

    return like(types.int64, like), codegen


@intrinsic
def move_rows(typingctx, rows, distance):
    """A tuple of int64, with ``distance`` added to each."""

    def codegen(context, builder, signature, args):
        moved = args[0]
        for row, start in enumerate(_rows(builder, args[1], args[0])):
            moved = builder.insert_value(moved, start, row)
        return moved

    return rows(rows, types.int64), codegen


@intrinsic
def scale_rows(typingctx, rows, factor):
    """A tuple of int64, each multiplied by ``factor``."""

    def codegen(context, builder, signature, args):
        scaled = args[0]
        for row in range(rows.count):
            scaled = builder.insert_value(scaled, builder.mul(builder.extract_value(args[0], row), args[1]), row)
        return scaled

    return rows(rows, types.int64), codegen


@intrinsic
def multiply_add(typingctx, sums, pixels, k, weights):
    """``sums[row, column] = fma(x[row, k], w[column], sums[row, column])``: one product of every chain.

    ``pixels`` are `load_rows`' addresses, ``weights`` is the address of this k's weights, one per column.
    """

    def codegen(context, builder, signature, args):
        value, rows, index, address = args
        columns = _columns(builder, sums, address)
        offset = builder.mul(index, _INT(sums.element_bytes))
        products = value
        for row in range(sums.rows):
            where = builder.add(builder.extract_value(rows, row), offset)
            x = builder.load(builder.inttoptr(where, ir.PointerType(sums.element)), typ=sums.element)
            x = _splat(builder, sums, x)
            for vector in range(VECTORS):
                i = row * VECTORS + vector
                total = _fma(builder, sums, x, columns[vector], builder.extract_value(value, i))
                products = builder.insert_value(products, total, i)
        return products

    return sums(sums, pixels, types.int64, types.int64), codegen


def _multiply_add_panels(builder: Any, sums: TileType, value: Any, x: Any, index: Any, starts: Any) -> Any:
    """The product of a pixel's input, a vector that repeats it, with its weights in each panel."""
    offset, products = builder.mul(index, _INT(WIDTH_BYTES)), value
    for panel, start in enumerate(_rows(builder, offset, starts)):
        for vector, column in enumerate(_columns(builder, sums, start)):
            i = panel * VECTORS + vector
            products = builder.insert_value(
                products, _fma(builder, sums, x, column, builder.extract_value(value, i)), i
            )
    return products


@intrinsic
def multiply_add_pixel(typingctx, sums, pixel, k, panels):
    """``sums[panel, column] = fma(x[k], w[panel, column], sums[panel, column])``: a product of one pixel's chains.

    ``pixel`` is an address; ``panels`` are those of the weights of ``k`` = 0, one per row of the tile.

    Each product loads its weights, and a core loads no more vectors per cycle than it multiplies. So the input is
    loaded to an integer register, by a port of its own. The load is atomic, which keeps LLVM from turning it into one
    of a vector again. On a Zen 4 this takes 0.95 of the time.
    """

    def codegen(context, builder, signature, args):
        value, address, index, starts = args
        where = builder.add(address, builder.mul(index, _INT(sums.element_bytes)))
        bits = ir.IntType(8 * sums.element_bytes)
        pointer = builder.inttoptr(where, ir.PointerType(bits))
        x = builder.bitcast(builder.load_atomic(pointer, "monotonic", sums.element_bytes, typ=bits), sums.element)
        return _multiply_add_panels(builder, sums, value, _splat(builder, sums, x), index, starts)

    return sums(sums, types.int64, types.int64, panels), codegen


@intrinsic
def find_nonzero(typingctx, address, element):
    """Which of a run's numbers at an address are not 0, as the bits of an int64, from the lowest. NaN is not 0."""
    tile = TileType(element.instance_type, 1)
    lanes = tile.vector.count

    def codegen(context, builder, signature, args):
        found = _INT(0)
        for vector in range(RUN // lanes):
            numbers = _load(builder, tile, args[0], vector)
            differ = builder.fcmp_unordered("!=", numbers, ir.Constant(tile.vector, None))
            bits = builder.zext(builder.bitcast(differ, ir.IntType(lanes)), _INT)
            found = builder.or_(found, builder.shl(bits, _INT(vector * lanes)))
        return found

    return types.int64(types.int64, element), codegen


@intrinsic
def compact_nonzero(typingctx, address, target, element):
    """`find_nonzero`, which also writes the numbers that are not 0 to an address, one after the other.

    The rest of the 64 numbers there becomes anything. Only for targets that have the instruction (``CAN_COMPACT``).
    """
    tile = TileType(element.instance_type, 1)
    lanes = tile.vector.count
    flags = ir.VectorType(ir.IntType(1), lanes)
    name = f"llvm.x86.avx512.mask.compress.v{lanes}f{8 * tile.element_bytes}"

    def codegen(context, builder, signature, args):
        compress = ir.FunctionType(tile.vector, [tile.vector, tile.vector, flags])
        function = get_or_insert_function(builder.module, compress, name)
        zeros = ir.Constant(tile.vector, None)
        found, place = _INT(0), args[1]
        for vector in range(RUN // lanes):
            numbers = _load(builder, tile, args[0], vector)
            differ = builder.fcmp_unordered("!=", numbers, zeros)
            store = builder.store(builder.call(function, [numbers, zeros, differ]), _pointer(builder, tile, place, 0))
            store.align = tile.element_bytes
            bits = builder.zext(builder.bitcast(differ, ir.IntType(lanes)), _INT)
            place = builder.add(place, builder.mul(builder.ctpop(bits), _INT(tile.element_bytes)))
            found = builder.or_(found, builder.shl(bits, _INT(vector * lanes)))
        return found

    return types.int64(types.int64, types.int64, element), codegen


@intrinsic
def load_vector(typingctx, address, element):
    """The vector of ``np.float32`` or ``np.float64`` at an address."""
    kind, tile = VectorType(element.instance_type, False), TileType(element.instance_type, 1)

    def codegen(context, builder, signature, args):
        return _load(builder, tile, args[0], 0)

    return kind(types.int64, element), codegen


@intrinsic
def repeat_place(typingctx, place, element):
    """A vector's places, all of them ``place``."""
    kind = VectorType(element.instance_type, True)

    def codegen(context, builder, signature, args):
        return _splat(builder, kind, builder.trunc(args[0], kind.lane) if kind.lane.width < 64 else args[0])

    return kind(types.int64, element), codegen


@intrinsic
def add_places(typingctx, left, right):
    """``left + right``, place by place."""

    def codegen(context, builder, signature, args):
        return builder.add(*args)

    return left(left, left), codegen


@intrinsic
def multiply_add_place(typingctx, sums, numbers, places, k, panels):
    """`multiply_add_pixel`, with the number at a place of a vector as input. All ``places`` are that place.

    Beside the weights nothing is loaded. Only for targets that have the instruction (``CAN_COMPACT``).
    """
    name = f"llvm.x86.avx512.permvar.{'sf' if sums.element_bytes == 4 else 'df'}.512"

    def codegen(context, builder, signature, args):
        value, vector, which, index, starts = args
        permute = ir.FunctionType(numbers.vector, [numbers.vector, places.vector])
        x = builder.call(get_or_insert_function(builder.module, permute, name), [vector, which])
        return _multiply_add_panels(builder, sums, value, x, index, starts)

    return sums(sums, numbers, places, types.int64, panels), codegen


@intrinsic
def add_tiles(typingctx, left, right):
    """``left + right``, element by element."""

    def codegen(context, builder, signature, args):
        def add(value, row, vector):
            return builder.fadd(value, builder.extract_value(args[1], row * VECTORS + vector))

        return _each(builder, args[0], add)

    return left(left, left), codegen


@intrinsic
def repeat_last_row(typingctx, value, offsets):
    """A tile with as many rows as there are offsets; those that it lacks repeat the last one."""
    tile = TileType(value.of, offsets.count)

    def codegen(context, builder, signature, args):
        longer = ir.Constant(tile.array, ir.Undefined)

        def take(_, row, vector):
            return builder.extract_value(args[0], min(row, value.rows - 1) * VECTORS + vector)

        return _each(builder, longer, take)

    return tile(value, offsets), codegen


@intrinsic
def add_to_tile(typingctx, address, value):
    """Add a tile to the one at an address, whose rows follow one another. No second tile needs registers."""

    def codegen(context, builder, signature, args):
        for vector in range(value.rows * VECTORS):
            total = builder.fadd(_load(builder, value, args[0], vector), builder.extract_value(args[1], vector))
            store = builder.store(total, _pointer(builder, value, args[0], vector))
            store.align = value.element_bytes
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


def _choose(left: Any, sign: str) -> Any:
    """``right`` if ``right sign left`` or if it is NaN, else ``left``: the first of equals stays."""

    def codegen(context, builder, signature, args):
        def choose(value, row, vector):
            other = builder.extract_value(args[1], row * VECTORS + vector)
            ordered, nan = builder.fcmp_ordered(sign, other, value), builder.fcmp_unordered("uno", other, other)
            return builder.select(builder.or_(ordered, nan), other, value)

        return _each(builder, args[0], choose)

    return left(left, left), codegen


@intrinsic
def larger_tile(typingctx, left, right):
    """``right`` if it is larger or NaN, else ``left``: the first of equals stays."""
    return _choose(left, ">")


@intrinsic
def smaller_tile(typingctx, left, right):
    """``right`` if it is smaller or NaN, else ``left``: the first of equals stays."""
    return _choose(left, "<")


@intrinsic
def add_bias(typingctx, value, bias):
    """``value + bias[column]``; ``bias`` is the address of one number per column."""

    def codegen(context, builder, signature, args):
        columns = _columns(builder, value, args[1])
        return _each(builder, args[0], lambda v, row, vector: builder.fadd(v, columns[vector]))

    return value(value, types.int64), codegen


@intrinsic
def normalize(typingctx, value, mean, scale, beta):
    """``fma(value - mean[column], scale[column], beta[column])``, from addresses of one number per column."""

    def codegen(context, builder, signature, args):
        columns = [_columns(builder, value, address) for address in args[1:]]

        def step(v, row, vector):
            mean, scale, beta = (column[vector] for column in columns)
            return _fma(builder, value, builder.fsub(v, mean), scale, beta)

        return _each(builder, args[0], step)

    return value(value, types.int64, types.int64, types.int64), codegen


@intrinsic
def relu_tile(typingctx, value):
    """``0 if value < 0 else value``: NaN stays NaN, -0 stays -0."""

    def codegen(context, builder, signature, args):
        zero = ir.Constant(value.vector, None)
        return _each(builder, args[0], lambda v, *_: builder.select(builder.fcmp_ordered("<", v, zero), zero, v))

    return value(value), codegen


@intrinsic
def load_tile(typingctx, address, offsets, element):
    """The tile of ``element`` whose rows are at ``offsets`` (a tuple of int64, in bytes) from an address."""
    tile = TileType(element.instance_type, offsets.count)

    def codegen(context, builder, signature, args):
        rows = _rows(builder, *args[:2])
        empty = ir.Constant(tile.array, ir.Undefined)
        return _each(builder, empty, lambda v, row, vector: _load(builder, tile, rows[row], vector))

    return tile(types.int64, offsets, element), codegen


@intrinsic
def load_wide(typingctx, address, offsets, element):
    """A tile of binary64, from the numbers of ``element`` at an address: as many rows as offsets, without gaps."""
    tile, narrow = TileType(types.float64, offsets.count), FLOATS[element.instance_type]
    lanes = tile.vector.count

    def codegen(context, builder, signature, args):
        vectors = ir.PointerType(ir.VectorType(narrow, lanes))

        def load(_, row, vector):
            offset = (row * VECTORS + vector) * lanes * element.instance_type.bitwidth // 8
            value = builder.load(builder.inttoptr(builder.add(args[0], _INT(offset)), vectors))
            value.align = element.instance_type.bitwidth // 8
            return value if narrow == tile.element else builder.fpext(value, tile.vector)

        return _each(builder, ir.Constant(tile.array, ir.Undefined), load)

    return tile(types.int64, offsets, element), codegen


@intrinsic
def add_squares(typingctx, sums, values, mean):
    """``sums + (values - mean) * (values - mean)``, element by element, each operation rounded."""

    def codegen(context, builder, signature, args):
        def add(total, row, vector):
            value, middle = (builder.extract_value(tile, row * VECTORS + vector) for tile in args[1:])
            deviation = builder.fsub(value, middle)
            return builder.fadd(total, builder.fmul(deviation, deviation))

        return _each(builder, args[0], add)

    return sums(sums, sums, sums), codegen


@intrinsic
def store_tile(typingctx, value, address, offsets):
    """Write a tile; its rows go to ``offsets`` from an address, as in `load_tile`."""

    def codegen(context, builder, signature, args):
        vectors, *place = args
        for row, start in enumerate(_rows(builder, *place)):
            for vector in range(VECTORS):
                pointer = _pointer(builder, value, start, vector)
                store = builder.store(builder.extract_value(vectors, row * VECTORS + vector), pointer)
                store.align = value.element_bytes
        return context.get_dummy_value()

    return types.void(value, types.int64, offsets), codegen


@intrinsic
def prefetch_tile(typingctx, address, offsets):
    """Prefetch a tile's cache lines; its rows are at ``offsets`` from an address."""

    def codegen(context, builder, signature, args):
        for start in _rows(builder, *args):
            for offset in range(0, WIDTH_BYTES, LINE_BYTES):
                emit_prefetch(builder, builder.add(start, _INT(offset)), second=True)
        return context.get_dummy_value()

    return types.void(types.int64, offsets), codegen


@helper
def copy_columns(source, source_rows, target, target_rows, columns, element):
    """Copy the columns of a tile that exist, at the ragged edge; its rows are at offsets, as in `load_tile`."""
    for row in range(len(source_rows)):
        from_row = floats(source + source_rows[row], element)
        to_row = floats(target + target_rows[row], element)
        for column in range(columns):
            to_row[column] = from_row[column]
