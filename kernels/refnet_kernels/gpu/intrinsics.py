"""The primitives of the CUDA kernels, as LLVM instructions: raw memory, shared memory, and tiles of registers.

`simulated.py` has the same functions for Numba's simulator. Addresses are int64 and places in shared memory are int32,
both in bytes. A vector is four adjacent binary32 numbers, at a multiple of 16 bytes.
"""

from __future__ import annotations

from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.cgutils import get_or_insert_function, pack_array, unpack_tuple
from numba.cuda.extending import intrinsic

_GLOBAL, _SHARED = 1, 3
_INT, _FLOAT, _DOUBLE = ir.IntType(32), ir.FloatType(), ir.DoubleType()
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
    """The first three of the four int32 at an address, which is a multiple of 16."""

    def codegen(context, builder, signature, args):
        taps = builder.load(_at(builder, args[0], ir.VectorType(_INT, 4)), align=16)
        return pack_array(builder, [builder.extract_element(taps, _INT(i)) for i in range(3)])

    return types.UniTuple(types.int32, 3)(types.int64), codegen


def _shared(builder):
    """The shared memory that a launch requests."""
    try:
        return builder.module.get_global("shared_memory")
    except KeyError:
        memory = ir.GlobalVariable(builder.module, ir.ArrayType(_FLOAT, 0), "shared_memory", _SHARED)
        memory.align = 16
        return memory


def _shared_vector(builder, place, offset=0):
    return builder.inttoptr(builder.add(place, _INT(offset)), ir.PointerType(_VECTOR, _SHARED))


@intrinsic
def start_of_shared(typingctx):
    """The place where the block's shared memory begins, a multiple of 16; a launch sets its size."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(_shared(builder), _INT)

    return types.int32(), codegen


@intrinsic
def load_shared4(typingctx, place):
    """The vector at a place in shared memory."""

    def codegen(context, builder, signature, args):
        return pack_array(builder, _load_vector(builder, _shared_vector(builder, args[0])))

    return FOUR(types.int32), codegen


@intrinsic
def store_shared4(typingctx, place, values):
    """Write a vector to a place in shared memory."""

    def codegen(context, builder, signature, args):
        _store_vector(builder, _shared_vector(builder, args[0]), unpack_tuple(builder, args[1], 4))
        return context.get_dummy_value()

    return types.void(types.int32, FOUR), codegen


def _copying(level, count):
    text = f"cp.async.{level}.shared.global [$0], [$1], {count}, $2;"

    @intrinsic
    def copy(typingctx, place, address, inside):
        """Start to copy from an address to a place in shared memory; if not ``inside``, write zeros and read nothing.

        See `commit_group` and `wait_group`.
        """

        def codegen(context, builder, signature, args):
            used = builder.select(args[2], _INT(count), _INT(0))
            _assembly(builder, text, "r,l,r", [args[0], args[1], used])
            return context.get_dummy_value()

        return types.void(types.int32, types.int64, types.boolean), codegen

    return copy


#: Copies of a vector, and of a number. Vectors bypass the first-level cache; a number's neighbours are read soon.
copy_shared4, copy_shared = _copying("cg", 16), _copying("ca", 4)


def _assembly(builder, text, constraints, args):
    """An instruction of PTX without a result; no access to memory is moved across it."""
    kind = ir.FunctionType(ir.VoidType(), [arg.type for arg in args])
    constraints = ",".join(filter(None, [constraints, "~{memory}"]))
    builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), args)


def _statement(text):
    @intrinsic
    def statement(typingctx):
        def codegen(context, builder, signature, args):
            _assembly(builder, text, "", [])
            return context.get_dummy_value()

        return types.void(), codegen

    return statement


#: Make the copies that this thread has started since the last call a group.
commit_group = _statement("cp.async.commit_group;")


def wait_group(left):
    """A function that waits until only the last ``left`` of this thread's groups of copies are under way."""
    return _statement(f"cp.async.wait_group {left};")


@cuda.jit(device=True, forceinline=True)
def syncthreads():
    """Wait for all threads of a block: ``cuda.syncthreads``, which the simulator has only in the kernel's own file."""
    cuda.syncthreads()


def shared_doubles(name, size):
    """Shared memory of ``size`` binary64 numbers: ``load(index)`` and ``store(index, number)``."""

    def pointer(builder, index):
        try:
            memory = builder.module.get_global(name)
        except KeyError:
            memory = ir.GlobalVariable(builder.module, ir.ArrayType(_DOUBLE, size), name, _SHARED)
            memory.linkage = "internal"
            memory.initializer = ir.Constant(memory.value_type, ir.Undefined)
            memory.align = 16
        return builder.gep(memory, [_INT(0), index])

    @intrinsic
    def load(typingctx, index):
        def codegen(context, builder, signature, args):
            return builder.load(pointer(builder, args[0]), align=8)

        return types.float64(types.int32), codegen

    @intrinsic
    def store(typingctx, index, value):
        def codegen(context, builder, signature, args):
            builder.store(args[1], pointer(builder, args[0]), align=8)
            return context.get_dummy_value()

        return types.void(types.int32, types.float64), codegen

    return load, store


def register_tile(layout):
    """A thread's tile of sums, in registers.

    Parameters
    ----------
    layout : TileLayout

    Returns
    -------
    zero : function() -> tile
        A tile of +0.
    plus : function(tile, tile) -> tile
        The sum, element by element.
    accumulate : function(tile, a, b) -> tile
        ``tile[i, j] = fma(a[i, k], b[k, j], tile[i, j])`` for each k of the depth, in order; ``a`` and ``b`` are the
        places of the thread's first numbers.
    park : function(tile, place)
        Write it to shared memory.
    """
    t = layout
    kind = types.UniTuple(types.float32, t.rows * t.columns)
    park_offsets = [
        row * t.row_step * t.park_stride + four * t.column_step
        for row in range(t.rows)
        for four in range(t.columns // 4)
    ]

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
                if k % 4 == 0:
                    left = [vector(builder, args[1], row * t.row_step * t.a_stride + k) for row in range(t.rows)]
                right = fours(builder, args[2], k * t.b_stride, t.column_step, t.columns)
                sums = [
                    _fma(builder, left[i // t.columns][k % 4], right[i % t.columns], total)
                    for i, total in enumerate(sums)
                ]
            return pack_array(builder, sums)

        return kind(kind, types.int32, types.int32), codegen

    @intrinsic
    def park(typingctx, tile, place):
        def codegen(context, builder, signature, args):
            values = unpack_tuple(builder, args[0], kind.count)
            for four, offset in enumerate(park_offsets):
                _store_vector(builder, _shared_vector(builder, args[1], 4 * offset), values[4 * four : 4 * four + 4])
            return context.get_dummy_value()

        return types.void(kind, types.int32), codegen

    def vector(builder, place, offset):
        return _load_vector(builder, _shared_vector(builder, place, 4 * offset))

    def fours(builder, place, offset, step, count):
        return [number for four in range(count // 4) for number in vector(builder, place, offset + four * step)]

    return zero, plus, accumulate, park
