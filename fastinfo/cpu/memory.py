"""Memory as kernels read and write it: parts of arrays, vectors at an index, prefetches.

Nothing here checks an index.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.np.arrayobj import make_array, populate_array

from fastinfo.cpu.simd import WORD, ZEN, Vector, before, call, instruction, name_of, spread

# How many bytes ahead memory is asked for, and how near to bring it: 3 the first-level cache, 2 the
# second. In an Intel's first-level cache each line that is to come from memory holds one of 16
# buffers for 100 ns: a loss takes 1.16 times as long if all do. A Zen 4 reads as fast as it can so.
AHEAD = ((8192, 3),) if ZEN else ((16384, 2), (2048, 3))


# Bytes of a cache line.
LINE = 64


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


def _view_of(x: Any, *given: Any) -> Any:
    if x.layout != "C":  # views are made without strides: rows of a wider array would be misread
        raise TypingError(f"a part or a row of {x}, which is not contiguous")
    return types.Array(x.dtype, 1, "C", not x.mutable)


@instruction(_view_of)
def part(at, x, lo, hi):
    """Return x[lo:hi] of a one-dimensional array, unchecked."""
    return _view(at.context, at.builder, at.given[0], x, lo, at.builder.sub(hi, lo))


@instruction(_view_of)
def row_of(at, x, i):
    """Return x[i] of a contiguous two-dimensional array, like `part`."""
    array = make_array(at.given[0])(at.context, at.builder, x)
    width = at.builder.extract_value(array.shape, 1)
    return _view(at.context, at.builder, at.given[0], x, at.builder.mul(i, width), width)


def _place(at: Any, array: Any, k: Any, lanes: int) -> tuple[Any, ...]:
    """Address of x[k] as of a vector, how many elements follow it, and the size of one."""
    kind = at.given[0]
    x = make_array(kind)(at.context, at.builder, array)
    vector = ir.VectorType(at.context.get_data_type(kind.dtype), lanes)
    address = at.builder.bitcast(at.builder.gep(x.data, [k]), vector.as_pointer())
    left = at.builder.sub(at.builder.extract_value(x.shape, 0), k)
    return address, left, kind.dtype.bitwidth // 8


@cache
def loader(lanes: int) -> Any:
    """Return load(x, k, fill): the vector x[k : k + lanes], `fill` beyond the end of x."""

    @instruction(lambda x, k, fill: Vector(x.dtype, lanes))
    def load(at, x, k, fill):
        build, vector = at.builder, at.llvm(at.kind)
        address, left, size = _place(at, x, k, lanes)
        whole = build.icmp_signed(">=", left, left.type(lanes))
        with build.if_else(whole, likely=True) as (then, otherwise):
            with then:
                inner, inner_block = build.load(address, align=size), build.block
            with otherwise:
                rest = spread(at.context, build, fill, at.given[2], at.kind)
                given = [address, WORD(size), before(build, lanes, left), rest]
                tail = call(build, f"masked.load.{name_of(vector)}.p0", vector, given)
                tail_block = build.block
        result = build.phi(vector)
        result.add_incoming(inner, inner_block)
        result.add_incoming(tail, tail_block)
        return result

    return load


@cache
def whole_loader(lanes: int) -> Any:
    """Return load(x, k): the vector x[k : k + lanes], all of which there must be."""

    @instruction(lambda x, k: Vector(x.dtype, lanes))
    def load(at, x, k):
        address, _, size = _place(at, x, k, lanes)
        return at.builder.load(address, align=size)

    return load


@cache
def mask_loader(lanes: int) -> Any:
    """Return load(bits, k): the mask of `lanes` bits from number k on.

    Bytes are read beyond the last of them, up to seven.
    """

    @instruction(lambda bits, k: Vector(types.boolean, lanes))
    def load(at, bits, k):
        build, word = at.builder, ir.IntType(64)
        data = make_array(at.given[0])(at.context, build, bits).data
        address = build.bitcast(build.gep(data, [build.lshr(k, word(3))]), word.as_pointer())
        found = build.lshr(build.load(address, align=1), build.and_(k, word(7)))
        return build.bitcast(build.trunc(found, ir.IntType(lanes)), at.llvm(at.kind))

    return load


def _nothing(*given: Any) -> Any:
    return types.void


@instruction(_nothing)
def store(at, x, k, v):
    """Write a vector to x[k : k + lanes], as far as x goes."""
    build, lanes = at.builder, v.type.count
    address, left, size = _place(at, x, k, lanes)
    whole = build.icmp_signed(">=", left, left.type(lanes))
    with build.if_else(whole, likely=True) as (then, otherwise):
        with then:
            build.store(v, address, align=size)
        with otherwise:
            given = [v, address, WORD(size), before(build, lanes, left)]
            call(build, f"masked.store.{name_of(v.type)}.p0", ir.VoidType(), given)


@instruction(_nothing)
def stream(at, x, k, v):
    """Write a vector to x[k : k + lanes] past the caches; its address a multiple of its size."""
    address, _, size = _place(at, x, k, v.type.count)
    made = at.builder.store(v, address, align=size * v.type.count)
    made.set_metadata("nontemporal", at.builder.module.add_metadata([WORD(1)]))


def _ask_ahead(at: Any, x: Any, place_of: Any) -> None:
    """Ask for cache lines ahead, wherever those are: asking is no reading."""
    build, kind = at.builder, at.given[0]
    data = make_array(kind)(at.context, build, x).data
    for distance, locality in AHEAD:
        place = place_of(distance * 8 // kind.dtype.bitwidth)
        byte = build.bitcast(build.gep(data, [place]), ir.IntType(8).as_pointer())
        call(build, "prefetch.p0", ir.VoidType(), [byte, WORD(0), WORD(locality), WORD(1)])


@instruction(_nothing)
def prefetch(at, x, k):
    """Ask for the cache lines that lie AHEAD of x[k]."""
    _ask_ahead(at, x, lambda distance: at.builder.add(k, k.type(distance)))


@cache
def prefetcher(lanes: int) -> Any:
    """Return ask(x, k): ask for all cache lines that lie AHEAD of the vector x[k : k + lanes]."""

    @instruction(_nothing)
    def ask(at, x, k):
        lane = at.given[0].dtype.bitwidth // 8
        for line in range(0, lanes, max(1, LINE // lane)):
            _ask_ahead(
                at, x, lambda distance, line=line: at.builder.add(k, k.type(distance + line))
            )

    return ask


@instruction(_nothing)
def prefetch_on(at, x, k, left, jump):
    """Ask for the cache lines AHEAD of x[k]; from x[left] on those that lie `jump` further on."""

    def place_of(distance: int) -> Any:
        place = at.builder.add(k, k.type(distance))
        beyond = at.builder.icmp_signed(">=", place, left)
        return at.builder.select(beyond, at.builder.add(place, jump), place)

    _ask_ahead(at, x, place_of)


@instruction(_nothing)
def fence(at):
    """Order the streaming stores before it ahead of whatever another thread reads next."""
    at.builder.fence("seq_cst")
