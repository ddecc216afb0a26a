"""The processor's floating-point control register, for compiled code: MXCSR of x86-64, FPCR of AArch64."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import alloca_once, alloca_once_value, get_or_insert_function
from numba.extending import intrinsic

_INT = ir.IntType(64)
_WORD = ir.IntType(32)

#: What the register holds where it rounds to nearest even, flushes nothing to zero and masks all exceptions (rule A0).
#: On another architecture nothing is read and nothing is set.
_CONTRACT = {"x86_64": 0x1F80, "aarch64": 0}


def _architecture(builder: Any) -> str:
    """Of the processor that is compiled for."""
    name: str = builder.module.triple.partition("-")[0]
    return name


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def contract_register(typingctx):
    """What the control register holds in the contract's mode, as an int64."""

    def codegen(context, builder, signature, args):
        return _INT(_CONTRACT.get(_architecture(builder), 0))

    return types.int64(), codegen


@intrinsic
def control_register(typingctx):
    """What the control register holds, as an int64."""

    def codegen(context, builder, signature, args):
        architecture = _architecture(builder)
        if architecture == "x86_64":
            place = alloca_once(builder, _WORD)
            _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), place)
            return builder.zext(builder.load(place), _INT)
        if architecture == "aarch64":
            return _call(builder, "llvm.aarch64.get.fpcr", _INT)
        return _INT(0)

    return types.int64(), codegen


@intrinsic
def set_control_register(typingctx, value):
    """Set the control register. No arithmetic may stand beside this: LLVM would move it across. A call stays."""

    def codegen(context, builder, signature, args):
        architecture = _architecture(builder)
        if architecture == "x86_64":
            place = alloca_once_value(builder, builder.trunc(args[0], _WORD))
            _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), place)
        elif architecture == "aarch64":
            _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
