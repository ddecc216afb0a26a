"""Small kernels on which the checker itself is tested: each has the traits of a real one, and a truth in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import cuda, float32, float64, int32, types  # noqa: F401 (a mutant uses float64)
from numba.core import cgutils
from numba.cuda import libdevice  # noqa: F401 (a mutant uses it)
from numba.cuda.extending import intrinsic

from refnet_kernels.contract import Float32Array
from refnet_kernels.exact import fma

TILE = 64
DEPTH = 16
STAGE = 8
# Numba wants these as names or numbers, not as products.
TILE_FLOATS = DEPTH * TILE
TWO_STAGES_FLOATS = 2 * STAGE * TILE


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def load4(typing_context, array, index):
    """Four floats from a flat array, in one load of 16 bytes."""

    def codegen(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        vector = ir.VectorType(ir.FloatType(), 4)
        value = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=16)
        parts = [builder.extract_element(value, ir.Constant(ir.IntType(32), i)) for i in range(4)]
        return cgutils.pack_array(builder, parts)

    return types.UniTuple(types.float32, 4)(array, index), codegen


@intrinsic
def copy_async(typing_context, to, to_index, source, source_index, used):
    """Begin to copy 16 bytes into shared memory, of which the first ``used`` are the source's and the others zeros."""

    def codegen(context, builder, signature, arguments):
        to, to_index, source, source_index, used = arguments
        target = _pointer(context, builder, signature.args[0], to, to_index)
        shared = builder.addrspacecast(target, ir.PointerType(target.type.pointee, 3))
        address = builder.ptrtoint(shared, ir.IntType(32))
        origin = builder.ptrtoint(_pointer(context, builder, signature.args[2], source, source_index), ir.IntType(64))
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32), ir.IntType(64), ir.IntType(32)])
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        builder.call(ir.InlineAsm(kind, text, "r,l,r,~{memory}", side_effect=True), [address, origin, used])
        return context.get_dummy_value()

    return types.void(to, to_index, source, source_index, types.int32), codegen


def _statement(text: str) -> Any:
    @intrinsic
    def statement(typing_context):
        def codegen(context, builder, signature, arguments):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(ir.InlineAsm(kind, text, "~{memory}", side_effect=True), [])
            return context.get_dummy_value()

        return types.void(), codegen

    return statement


commit_group = _statement("cp.async.commit_group;")
wait_for_all_but_one = _statement("cp.async.wait_group 1;")
wait_for_all_but_two = _statement("cp.async.wait_group 2;")


def copy(x, out, size):
    """``out[i] = x[i]``."""
    i = cuda.grid(1)
    if i < size:
        out[i] = x[i]


def gemm(a, b, out, rows, columns, depth):
    """``out = a @ b``: tiles of 64 x 64, four by four outputs a thread; columns and depth are multiples of 4."""
    tile_a = cuda.shared.array(TILE_FLOATS, float32, alignment=16)
    tile_b = cuda.shared.array(TILE_FLOATS, float32, alignment=16)
    thread = int32(cuda.threadIdx.x)
    first_row, first_column = int32(cuda.blockIdx.y) * TILE, int32(cuda.blockIdx.x) * TILE
    row, column = thread // 16 * 4, thread % 16 * 4
    sums = cuda.local.array((4, 4), float32)
    for i in range(4):
        for j in range(4):
            sums[i, j] = float32(0)
    for k in range(int32(0), depth, int32(DEPTH)):
        row_a, k_a = thread // 4, thread % 4 * 4
        if first_row + row_a < rows and k + k_a < depth:
            values = load4(a, (first_row + row_a) * depth + k + k_a)
        else:
            values = (float32(0), float32(0), float32(0), float32(0))
        for i in range(4):
            tile_a[(k_a + i) * TILE + row_a] = values[i]
        k_b = thread // 16
        if k + k_b < depth and first_column + column < columns:
            values = load4(b, (k + k_b) * columns + first_column + column)
        else:
            values = (float32(0), float32(0), float32(0), float32(0))
        for i in range(4):
            tile_b[k_b * TILE + column + i] = values[i]
        cuda.syncthreads()  # The tiles are whole.
        for kk in range(DEPTH):
            left, right = load4(tile_a, kk * TILE + row), load4(tile_b, kk * TILE + column)
            for i in range(4):
                for j in range(4):
                    sums[i, j] = cuda.fma(left[i], right[j], sums[i, j])
        cuda.syncthreads()  # The tiles may be overwritten.
    for i in range(4):
        for j in range(4):
            if first_row + row + i < rows and first_column + column + j < columns:
                out[(first_row + row + i) * columns + first_column + column + j] = sums[i, j]


def weighted_sum(x, weights, out, rows, columns):
    """``out[c] = sum over r of weights[r] * x[r, c]``: stages of 8 rows come by cp.async, two at a time.

    A block has 64 threads and as many columns; columns is a multiple of 4.
    """
    stages = cuda.shared.array(TWO_STAGES_FLOATS, float32, alignment=16)
    thread = int32(cuda.threadIdx.x)
    first = int32(cuda.blockIdx.x) * TILE
    total = float32(0)
    count = (rows + STAGE - 1) // STAGE
    for stage in range(int32(-1), count):
        following = stage + 1
        for i in range(2):
            # Each thread brings 2 of the 128 pieces of a stage.
            piece = thread + i * TILE
            row, column = following * STAGE + piece // 16, first + piece % 16 * 4
            inside = row < rows and column < columns
            at = row * columns + column if inside else int32(0)
            copy_async(stages, (following % 2) * STAGE * TILE + piece * 4, x, at, int32(16 if inside else 0))
        commit_group()
        if stage >= 0:
            wait_for_all_but_one()
            cuda.syncthreads()  # The stage is there.
            for r in range(min(int32(STAGE), rows - stage * STAGE)):
                total = cuda.fma(weights[stage * STAGE + r], stages[((stage % 2) * STAGE + r) * TILE + thread], total)
            cuda.syncthreads()  # The stage may be overwritten.
    if first + thread < columns:
        out[first + thread] = total


def gemm_truth(a: Float32Array, b: Float32Array) -> Float32Array:
    """The product, each output one chain of fma."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = fma(a[:, k, None], b[k], total)
    return total


FLAT = types.Array(float32, 1, "C")
SIGNATURES = {
    "copy": types.void(FLAT, FLAT, int32),
    "gemm": types.void(FLAT, FLAT, FLAT, int32, int32, int32),
    "weighted_sum": types.void(FLAT, FLAT, FLAT, int32, int32),
}
