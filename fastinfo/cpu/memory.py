"""Memory as kernels read and write it: parts of arrays, vectors at an index, prefetches.

Nothing here checks an index, and nothing counts references.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from fastinfo.cpu.simd import Vector, before, call, name_of, spread


def _view(context: Any, builder: Any, kind: Any, array: Any, offset: Any, size: Any) -> Any:
    source = make_array(kind)(context, builder, array)
    view = make_array(types.Array(kind.dtype, 1, "C", not kind.mutable))(context, builder)
    populate_array(
        view,
        data=builder.gep(source.data, [offset]),
        shape=[size],
        strides=[source.itemsize],
        itemsize=source.itemsize,
        meminfo=None,
    )
    return view._getvalue()


@intrinsic
def part(context, x, lo, hi):
    """Return x[lo:hi] of a one-dimensional array, unchecked and without counting references.

    A slice counts them with atomic operations, 5 ns each; ten slices a row of 1000 halve the speed.
    """
    kind = types.Array(x.dtype, 1, "C", not x.mutable)

    def generate(context, builder, signature, arguments):
        size = builder.sub(arguments[2], arguments[1])
        return _view(context, builder, x, arguments[0], arguments[1], size)

    return kind(x, types.intp, types.intp), generate


@intrinsic
def row_of(context, x, i):
    """Return x[i] of a contiguous two-dimensional array, like `part`."""
    kind = types.Array(x.dtype, 1, "C", not x.mutable)

    def generate(context, builder, signature, arguments):
        array = make_array(x)(context, builder, arguments[0])
        width = builder.extract_value(array.shape, 1)
        offset = builder.mul(arguments[1], width)
        return _view(context, builder, x, arguments[0], offset, width)

    return kind(x, types.intp), generate


def _place(context: Any, builder: Any, kind: Any, array: Any, k: Any, lanes: int) -> tuple:
    """Address of x[k] as of a vector, how many elements follow it, and the size of one."""
    x = make_array(kind)(context, builder, array)
    word = context.get_data_type(kind.dtype)
    address = builder.bitcast(builder.gep(x.data, [k]), ir.VectorType(word, lanes).as_pointer())
    left = builder.sub(builder.extract_value(x.shape, 0), k)
    return address, left, kind.dtype.bitwidth // 8


@cache
def loader(lanes: int) -> Any:
    """Return load(x, k, fill): the vector x[k : k + lanes], `fill` beyond the end of x."""

    @intrinsic
    def load(context, x, k, fill):
        kind = Vector(x.dtype, lanes)

        def generate(context, builder, signature, arguments):
            array, k, rest = arguments
            address, left, size = _place(context, builder, x, array, k, lanes)
            vector = context.get_value_type(kind)
            whole = builder.icmp_signed(">=", left, left.type(lanes))
            with builder.if_else(whole, likely=True) as (then, otherwise):
                with then:
                    inner, inner_block = builder.load(address, align=size), builder.block
                with otherwise:
                    rest = spread(context, builder, rest, signature.args[2], kind)
                    name = f"masked.load.{name_of(vector)}.p0"
                    mask = before(builder, lanes, left)
                    given = [address, ir.IntType(32)(size), mask, rest]
                    tail, tail_block = call(builder, name, vector, given), builder.block
            result = builder.phi(vector)
            result.add_incoming(inner, inner_block)
            result.add_incoming(tail, tail_block)
            return result

        return kind(x, types.intp, fill), generate

    return load


@intrinsic
def store(context, x, k, v):
    """Write a vector to x[k : k + lanes], as far as x goes."""

    def generate(context, builder, signature, arguments):
        array, k, vector = arguments
        address, left, size = _place(context, builder, x, array, k, v.lanes)
        whole = builder.icmp_signed(">=", left, left.type(v.lanes))
        with builder.if_else(whole, likely=True) as (then, otherwise):
            with then:
                builder.store(vector, address, align=size)
            with otherwise:
                name = f"masked.store.{name_of(vector.type)}.p0"
                given = [vector, address, ir.IntType(32)(size), before(builder, v.lanes, left)]
                call(builder, name, ir.VoidType(), given)
        return context.get_dummy_value()

    return types.void(x, types.intp, v), generate


@intrinsic
def stream(context, x, k, v):
    """Write a vector to x[k : k + lanes] past the caches; its address a multiple of its size."""

    def generate(context, builder, signature, arguments):
        array, k, vector = arguments
        address, _, size = _place(context, builder, x, array, k, v.lanes)
        made = builder.store(vector, address, align=size * v.lanes)
        made.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(x, types.intp, v), generate


@intrinsic
def prefetch(context, x, k):
    """Ask for the cache line of x[k], wherever that is: asking is no reading."""

    def generate(context, builder, signature, arguments):
        data = make_array(x)(context, builder, arguments[0]).data
        byte = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        call(builder, "prefetch.p0", ir.VoidType(), [byte, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


@intrinsic
def fence(context):
    """Order the streaming stores before it ahead of whatever another thread reads next."""

    def generate(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
