"""What the CUDA kernels are written with, as LLVM instructions: raw memory, shared memory, and tiles of registers.

`simulated.py` has the same functions for Numba's simulator. Addresses are int64, in bytes; places in shared memory are
int32, in floats. A vector is four binary32 numbers that lie side by side, at a multiple of 16 bytes.
"""

from __future__ import annotations

from llvmlite import ir
from numba.cuda import types
from numba.cuda.cgutils import get_or_insert_function, pack_array, unpack_tuple
from numba.cuda.extending import intrinsic

_GLOBAL, _SHARED = 1, 3
_INT, _LONG = ir.IntType(32), ir.IntType(64)
_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
_VECTOR = ir.VectorType(_FLOAT, 4)
FOUR = types.UniTuple(types.float32, 4)


def _at(builder, address, kind):
    return builder.inttoptr(address, ir.PointerType(kind, _GLOBAL))


def _load_vector(builder, pointer):
    """Four numbers in one instruction."""
    vector = builder.load(pointer, align=16)
    return [builder.extract_element(vector, _INT(i)) for i in range(4)]


def _store_vector(builder, pointer, values):
    vector = ir.Constant(_VECTOR, ir.Undefined)
    for i, value in enumerate(values):
        vector = builder.insert_element(vector, value, _INT(i))
    builder.store(vector, pointer, align=16)


def _fma(builder, a, b, c):
    function = get_or_insert_function(builder.module, ir.FunctionType(_FLOAT, [_FLOAT] * 3), "llvm.fma.f32")
    return builder.call(function, [a, b, c])


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c`` of binary32 numbers, rounded once: ``fma.rn.f32``."""

    def codegen(context, builder, signature, args):
        return _fma(builder, *args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic
def multiply(typingctx, a, b):
    """``a * b`` of binary64 numbers as ``mul.rn.f64``, which is never contracted with a sum that follows."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_DOUBLE, [_DOUBLE] * 2)
        return builder.call(get_or_insert_function(builder.module, kind, "llvm.nvvm.mul.rn.d"), args)

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def float_of_bits(typingctx, bits):
    """The binary64 number that has the bits of an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], _DOUBLE)

    return types.float64(types.int64), codegen


@intrinsic
def load(typingctx, address):
    """The binary32 number at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, args[0], _FLOAT), align=4)

    return types.float32(types.int64), codegen


@intrinsic
def store(typingctx, address, value):
    """Write a binary32 number to an address."""

    def codegen(context, builder, signature, args):
        builder.store(args[1], _at(builder, args[0], _FLOAT), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


@intrinsic
def load4(typingctx, address):
    """The vector at an address."""

    def codegen(context, builder, signature, args):
        return pack_array(builder, _load_vector(builder, _at(builder, args[0], _VECTOR)))

    return FOUR(types.int64), codegen


@intrinsic
def store4(typingctx, address, values):
    """Write a vector to an address."""

    def codegen(context, builder, signature, args):
        _store_vector(builder, _at(builder, args[0], _VECTOR), unpack_tuple(builder, args[1], 4))
        return context.get_dummy_value()

    return types.void(types.int64, FOUR), codegen


@intrinsic
def load_tap(typingctx, address):
    """A row of a table of taps, in one instruction: an int64 and two int32."""

    def codegen(context, builder, signature, args):
        vector = builder.load(_at(builder, args[0], ir.VectorType(_INT, 4)), align=16)
        low, high, y, x = (builder.extract_element(vector, _INT(i)) for i in range(4))
        high = builder.shl(builder.zext(high, _LONG), _LONG(32))
        return context.make_tuple(builder, signature.return_type, [builder.or_(high, builder.zext(low, _LONG)), y, x])

    return types.Tuple((types.int64, types.int32, types.int32))(types.int64), codegen


def shared_memory(name, size):
    """Shared memory of a kernel.

    Parameters
    ----------
    name : str
        Of the kernel: a kernel has one shared memory.
    size : int
        Floats.

    Returns
    -------
    load4 : function(place) -> vector
    store4 : function(place, vector)
    store : function(place, number)
    """

    @intrinsic
    def load4(typingctx, place):
        def codegen(context, builder, signature, args):
            return pack_array(builder, _load_vector(builder, _shared(builder, name, size, args[0], _VECTOR)))

        return FOUR(types.int32), codegen

    @intrinsic
    def store4(typingctx, place, values):
        def codegen(context, builder, signature, args):
            pointer = _shared(builder, name, size, args[0], _VECTOR)
            _store_vector(builder, pointer, unpack_tuple(builder, args[1], 4))
            return context.get_dummy_value()

        return types.void(types.int32, FOUR), codegen

    @intrinsic
    def store(typingctx, place, value):
        def codegen(context, builder, signature, args):
            builder.store(args[1], _shared(builder, name, size, args[0], _FLOAT), align=4)
            return context.get_dummy_value()

        return types.void(types.int32, types.float32), codegen

    return load4, store4, store


def shared_doubles(name, size):
    """Shared memory of ``size`` binary64 numbers: ``load(place)`` and ``store(place, number)``."""

    @intrinsic
    def load(typingctx, place):
        def codegen(context, builder, signature, args):
            return builder.load(_shared(builder, name, size, args[0], _DOUBLE, _DOUBLE), align=8)

        return types.float64(types.int32), codegen

    @intrinsic
    def store(typingctx, place, value):
        def codegen(context, builder, signature, args):
            builder.store(args[1], _shared(builder, name, size, args[0], _DOUBLE, _DOUBLE), align=8)
            return context.get_dummy_value()

        return types.void(types.int32, types.float64), codegen

    return load, store


def _shared(builder, name, size, place, kind, element=_FLOAT):
    """A pointer into the shared memory of that name."""
    try:
        memory = builder.module.get_global(name)
    except KeyError:
        memory = ir.GlobalVariable(builder.module, ir.ArrayType(element, size), name, _SHARED)
        memory.linkage = "internal"
        memory.initializer = ir.Constant(memory.value_type, ir.Undefined)
        memory.align = 16
    pointer = builder.gep(memory, [_INT(0), place])
    return builder.bitcast(pointer, ir.PointerType(kind, _SHARED))


def register_tile(name, size, layout):
    """A thread's tile of sums, in registers.

    Parameters
    ----------
    name, size
        Of the shared memory that it reads; see `shared_memory`.
    layout : TileLayout

    Returns
    -------
    zero : function() -> tile
        A tile of +0.
    plus : function(tile, tile) -> tile
        The sum, element by element.
    accumulate : function(tile, a, b) -> tile
        ``tile[i, j] = fma(a[k, i], b[k, j], tile[i, j])`` for each k of the depth, in order; ``a`` and ``b`` are the
        places of the thread's first numbers.
    park : function(tile, place)
        Write it to shared memory.
    """
    t = layout
    kind = types.UniTuple(types.float32, t.rows * t.columns)

    @intrinsic
    def zero(typingctx):
        def codegen(context, builder, signature, args):
            return pack_array(builder, [_FLOAT(0.0)] * kind.count)

        return kind(), codegen

    @intrinsic
    def plus(typingctx, a, b):
        def codegen(context, builder, signature, args):
            pairs = zip(*(unpack_tuple(builder, tile, kind.count) for tile in args), strict=True)
            return pack_array(builder, [builder.fadd(x, y) for x, y in pairs])

        return kind(kind, kind), codegen

    @intrinsic
    def accumulate(typingctx, tile, a, b):
        def codegen(context, builder, signature, args):
            sums = unpack_tuple(builder, args[0], kind.count)
            for k in range(t.depth):
                left = fours(builder, args[1], k * t.a_stride, t.row_step, t.rows)
                right = fours(builder, args[2], k * t.b_stride, t.column_step, t.columns)
                sums = [
                    _fma(builder, left[i // t.columns], right[i % t.columns], total) for i, total in enumerate(sums)
                ]
            return pack_array(builder, sums)

        return kind(kind, types.int32, types.int32), codegen

    @intrinsic
    def park(typingctx, tile, place):
        def codegen(context, builder, signature, args):
            values = unpack_tuple(builder, args[0], kind.count)
            for first in range(0, kind.count, 4):
                row, column = divmod(first, t.columns)
                offset = (row // 4 * t.row_step + row % 4) * t.park_stride + column // 4 * t.column_step
                pointer = _shared(builder, name, size, builder.add(args[1], _INT(offset)), _VECTOR)
                _store_vector(builder, pointer, values[first : first + 4])
            return context.get_dummy_value()

        return types.void(kind, types.int32), codegen

    def fours(builder, place, offset, step, count):
        numbers = []
        for four in range(count // 4):
            at = builder.add(place, _INT(offset + four * step))
            numbers += _load_vector(builder, _shared(builder, name, size, at, _VECTOR))
        return numbers

    return zero, plus, accumulate, park
