"""A register tile: rows x columns of binary32 sums, held in vector registers, and what kernels do with it.

Numba has no vector type. Here is one: `Tile` is an LLVM array of ``ROWS * VECTORS`` vectors of ``LANES`` floats, which
LLVM keeps in registers. Each function below is one line of arithmetic on a whole tile, so that a kernel reads as
Python. Rows are pixels, columns are output channels; an address is an int64 in bytes.

Every operation is one IEEE-754 operation an element (rule A0 of the contract), so the tile's shape never shows in
the bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, register_model

from refnet_kernels.memory import emit_prefetch
from refnet_kernels.target import LANES, LINE_BYTES, ROWS, VECTORS, WIDTH

_FLOAT = ir.FloatType()
_INT = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FLOAT_BYTES = 4


class TileType(types.Type):
    """Numba's type of a register tile."""

    def __init__(self) -> None:
        super().__init__(name=f"Tile({ROWS}x{VECTORS}x{LANES})")


tile = TileType()


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.ArrayType(_VECTOR, ROWS * VECTORS))


def _pointer(builder: Any, address: Any, row: Any, pitch: Any, vector: int) -> Any:
    offset = builder.add(builder.mul(pitch, _INT(row)), _INT(vector * LANES * _FLOAT_BYTES))
    return builder.inttoptr(builder.add(address, offset), ir.PointerType(_VECTOR))


def _load(builder: Any, address: Any, row: int, pitch: Any, vector: int) -> Any:
    value = builder.load(_pointer(builder, address, row, pitch, vector), typ=_VECTOR)
    value.align = _FLOAT_BYTES
    return value


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    # llvmlite's own builder.fma takes scalars only.
    function = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(get_or_insert_function(builder.module, function, f"llvm.fma.v{LANES}f32"), [a, b, c])


def _splat(builder: Any, scalar: Any) -> Any:
    lane = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(lane, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _each(builder: Any, value: Any, step: Any) -> Any:
    """Apply ``step(element, row, vector)`` to each vector of a tile."""
    result = value
    for row in range(ROWS):
        for vector in range(VECTORS):
            index = row * VECTORS + vector
            result = builder.insert_value(result, step(builder.extract_value(value, index), row, vector), index)
    return result


@intrinsic
def zero_tile(typingctx):
    """All sums +0."""

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.ArrayType(_VECTOR, ROWS * VECTORS), None)

    return tile(), codegen


@intrinsic
def load_rows(typingctx, address):
    """The ``ROWS`` int64 at an address, as a tuple: where each pixel's data starts."""
    result = types.UniTuple(types.int64, ROWS)

    def codegen(context, builder, signature, args):
        base = builder.inttoptr(args[0], ir.PointerType(_INT))
        rows = ir.Constant(ir.ArrayType(_INT, ROWS), ir.Undefined)
        for row in range(ROWS):
            rows = builder.insert_value(
                rows, builder.load(builder.gep(base, [_INT(row)], source_etype=_INT), typ=_INT), row
            )
        return rows

    return result(types.int64), codegen


@intrinsic
def multiply_add(typingctx, sums, pixels, k, weights):
    """``sums[row, column] = fma(x[row, k], w[column], sums[row, column])``: one product of every chain.

    ``pixels`` are `load_rows`' addresses, ``weights`` is the address of the ``WIDTH`` weights of this k.
    """

    def codegen(context, builder, signature, args):
        value, rows, index, address = args
        columns = [_load(builder, address, 0, _INT(0), vector) for vector in range(VECTORS)]
        offset = builder.mul(index, _INT(_FLOAT_BYTES))
        products = value
        for row in range(ROWS):
            where = builder.add(builder.extract_value(rows, row), offset)
            x = _splat(builder, builder.load(builder.inttoptr(where, ir.PointerType(_FLOAT)), typ=_FLOAT))
            for vector in range(VECTORS):
                i = row * VECTORS + vector
                total = _fma(builder, x, columns[vector], builder.extract_value(value, i))
                products = builder.insert_value(products, total, i)
        return products

    return tile(tile, pixels, types.int64, types.int64), codegen


@intrinsic
def add_tiles(typingctx, left, right):
    """``left + right``, element by element."""

    def codegen(context, builder, signature, args):
        left, right = args

        def add(value, row, vector):
            return builder.fadd(value, builder.extract_value(right, row * VECTORS + vector))

        return _each(builder, left, add)

    return tile(tile, tile), codegen


@intrinsic
def add_bias(typingctx, value, bias):
    """``value + bias[column]``; ``bias`` is the address of ``WIDTH`` floats."""

    def codegen(context, builder, signature, args):
        value, address = args
        columns = [_load(builder, address, 0, _INT(0), vector) for vector in range(VECTORS)]
        return _each(builder, value, lambda v, row, vector: builder.fadd(v, columns[vector]))

    return tile(tile, types.int64), codegen


@intrinsic
def normalize(typingctx, value, mean, scale, beta):
    """``fma(value - mean[column], scale[column], beta[column])``, from the addresses of ``WIDTH`` floats each."""

    def codegen(context, builder, signature, args):
        value = args[0]
        columns = [[_load(builder, a, 0, _INT(0), vector) for vector in range(VECTORS)] for a in args[1:]]

        def step(v, row, vector):
            mean, scale, beta = (column[vector] for column in columns)
            return _fma(builder, builder.fsub(v, mean), scale, beta)

        return _each(builder, value, step)

    return tile(tile, types.int64, types.int64, types.int64), codegen


@intrinsic
def relu_tile(typingctx, value):
    """``0 if value < 0 else value``: NaN stays NaN, -0 stays -0."""

    def codegen(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, None)
        return _each(builder, args[0], lambda v, *_: builder.select(builder.fcmp_ordered("<", v, zero), zero, v))

    return tile(tile), codegen


@intrinsic
def load_tile(typingctx, address, pitch):
    """The tile at an address whose rows are ``pitch`` bytes apart."""

    def codegen(context, builder, signature, args):
        empty = ir.Constant(ir.ArrayType(_VECTOR, ROWS * VECTORS), ir.Undefined)
        return _each(builder, empty, lambda v, row, vector: _load(builder, args[0], row, args[1], vector))

    return tile(types.int64, types.int64), codegen


@intrinsic
def store_tile(typingctx, value, address, pitch):
    """Write a tile to an address, its rows ``pitch`` bytes apart."""

    def codegen(context, builder, signature, args):
        value, address, pitch = args
        for row in range(ROWS):
            for vector in range(VECTORS):
                pointer = _pointer(builder, address, row, pitch, vector)
                store = builder.store(builder.extract_value(value, row * VECTORS + vector), pointer)
                store.align = _FLOAT_BYTES
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64), codegen


@intrinsic
def prefetch_tile(typingctx, address, pitch):
    """Ask for the cache lines of the tile at an address, whose rows are ``pitch`` bytes apart, to be written to."""

    def codegen(context, builder, signature, args):
        address, pitch = args
        for row in range(ROWS):
            start = builder.add(address, builder.mul(pitch, _INT(row)))
            for offset in range(0, WIDTH * _FLOAT_BYTES, LINE_BYTES):
                emit_prefetch(builder, builder.add(start, _INT(offset)), write=True)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen
