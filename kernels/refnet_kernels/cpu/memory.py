"""Raw memory, atomics and calls by address, for compiled code that receives addresses instead of arrays."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

_INT = ir.IntType(64)
#: LLVM's types of arrays' elements.
FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(kind))


def _view(kind: Any, *element: Any) -> Any:
    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64, *element), codegen


@intrinsic
def floats(typingctx, address, element):
    """The numbers from an address on, ``np.float32`` or ``np.float64``, to be read and written by index."""
    return _view(types.CPointer(element.instance_type), element)


@intrinsic
def doubles(typingctx, address):
    """The binary64 numbers from an address on, to be read and written by index."""
    return _view(types.CPointer(types.float64))


@intrinsic
def integers(typingctx, address):
    """The int64 numbers from an address on, to be read and written by index."""
    return _view(types.CPointer(types.int64))


@intrinsic
def size_of(typingctx, element):
    """Bytes of an element, ``np.float32`` or ``np.float64``."""

    def codegen(context, builder, signature, args):
        return _INT(element.instance_type.bitwidth // 8)

    return types.int64(element), codegen


@intrinsic
def float_of_bits(typingctx, bits):
    """The binary64 number that has the bits of an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c`` of three binary32 or three binary64 numbers, rounded once. Numba lacks ``fma``; LLVM has it."""

    def codegen(context, builder, signature, args):
        function = ir.FunctionType(FLOATS[a], [FLOATS[a]] * 3)
        return builder.call(get_or_insert_function(builder.module, function, f"llvm.fma.f{a.bitwidth}"), args)

    return a(a, a, a), codegen


@intrinsic
def count_ones(typingctx, bits):
    """How many bits of an int64 are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def lowest_one(typingctx, bits):
    """The position of the lowest bit of an int64 that is set; there must be one."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.int64), codegen


@intrinsic
def fetch_add(typingctx, address, value):
    """Add to the int64 at an address, atomically; returns the old value. Sequentially consistent."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _at(builder, args[0], _INT), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def load_atomic(typingctx, address):
    """The int64 at an address; every write before its store is visible then."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_at(builder, args[0], _INT), "seq_cst", 8, typ=_INT)

    return types.int64(types.int64), codegen


def emit_prefetch(builder: Any, address: Any, second: bool = False) -> None:
    """Prefetch the cache line at an address, an LLVM int64; an address without memory does no harm."""
    pointer, flag = ir.PointerType(_INT), ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
    hint = get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
    # Data, to the nearest cache or the one behind it.
    builder.call(hint, [builder.inttoptr(address, pointer), flag(0), flag(2 if second else 3), flag(1)])


def _prefetch(second: bool) -> Any:
    def codegen(context, builder, signature, args):
        emit_prefetch(builder, args[0], second=second)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Prefetch the cache line at an address, to be read."""
    return _prefetch(second=False)


@intrinsic
def prefetch_to_second(typingctx, address):
    """Prefetch the cache line at an address to the second-level cache, to be read later."""
    return _prefetch(second=True)


@intrinsic
def call_kernel(typingctx, kernel, step, item, scratch):
    """Call the compiled kernel at an address: ``kernel(step, item, scratch)``."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(_INT), _INT, _INT])
        kernel, step, item, scratch = args
        builder.call(builder.inttoptr(kernel, kind.as_pointer()), [_at(builder, step, _INT), item, scratch])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen
