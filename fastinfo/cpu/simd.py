"""Vectors: a few numbers side by side that one instruction works on, as a type of Numba's.

Numba knows numbers and arrays; whether a loop over numbers becomes vector code is then LLVM's
choice, which a prefetch, a branch or a running maximum in the loop defeats. A kernel written with
vectors is vector code on every processor: 64 bytes are one register with AVX-512, two with AVX2,
four on ARM, and their sum is always taken in the same order.

`+ - * /`, comparisons and `& |` work lane by lane, a number beside a vector in all lanes.
"""

from __future__ import annotations

import inspect
import operator
import platform
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.core.extending import register_model
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

# Fused multiply-adds are wanted; nothing is reordered.
FLAGS = ("contract",)
WORD = ir.IntType(32)


def _has(*features: str) -> bool:
    return set(features) <= set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))


# Whether it is one of AMD's, whose first-level cache takes what comes from memory, and what is
# written past it, in its own way.
ZEN = cpu_target.target_context.codegen().magic_tuple()[1].startswith("znver")
AVX512 = _has("+avx512f", "+avx512dq")
# Whether one instruction counts the bits of each lane: elsewhere it takes about eight.
COUNTS_BITS = AVX512 and _has("+avx512vpopcntdq")
X86 = platform.machine() in ("x86_64", "AMD64")
# Whether the processor has 16 registers of 32 bytes.
AVX2 = not AVX512 and X86


class Vector(types.Type):
    """`lanes` numbers of one type; booleans for a mask."""

    def __init__(self, lane: Any, lanes: int) -> None:
        self.lane, self.lanes = lane, lanes
        super().__init__(name=f"Vector({lane}, {lanes})")

    @property
    def is_float(self) -> bool:
        """Whether the lanes are floats."""
        return isinstance(self.lane, types.Float)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        boolean = kind.lane == types.boolean
        lane = ir.IntType(1) if boolean else manager.lookup(kind.lane).get_value_type()
        super().__init__(manager, kind, ir.VectorType(lane, kind.lanes))


# --- lane by lane --------------------------------------------------------------------------------


def _mask_of(kind: Vector) -> Vector:
    return Vector(types.boolean, kind.lanes)


def _like(kind: Any, lane: Any) -> Any:
    return Vector(lane, kind.lanes) if isinstance(kind, Vector) else lane


def _lane_of(kind: Any) -> Any:
    return kind.lane if isinstance(kind, Vector) else kind


def _together(a: Any, b: Any) -> Vector | None:
    """Type of a vector from a vector and a vector or number; None if that is not what they are."""
    if isinstance(a, Vector) and isinstance(b, Vector):
        return a if a == b else None
    vector, other = (a, b) if isinstance(a, Vector) else (b, a)
    if isinstance(vector, Vector) and isinstance(other, types.Number | types.Boolean):
        return vector
    return None


def spread(context: Any, builder: Any, value: Any, kind: Any, vector: Any) -> Any:
    """A value as a vector, the number in every lane; as a number where that is asked for."""
    if isinstance(kind, Vector):
        return value
    if not isinstance(vector, Vector):
        return context.cast(builder, value, kind, vector)
    value = context.cast(builder, value, kind, vector.lane)
    whole = context.get_value_type(vector)
    one = builder.insert_element(ir.Constant(whole, ir.Undefined), value, ir.IntType(32)(0))
    picks = ir.Constant(ir.VectorType(ir.IntType(32), vector.lanes), [0] * vector.lanes)
    return builder.shuffle_vector(one, ir.Constant(whole, ir.Undefined), picks)


def _operator(function: Any, emit: Any, result: Any = lambda kind: kind) -> None:
    """Let a Python operator work on vectors; `emit` makes the instruction."""

    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = _together(*args) if len(args) == 2 else None
            return signature(result(kind), *args) if kind else None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = _together(*sig.args)
        assert kind is not None
        a, b = (spread(context, builder, *pair, kind) for pair in zip(args, sig.args, strict=True))
        return emit(builder, kind, a, b)

    lower_builtin(function, Vector, Vector)(lower)
    for number in (types.Number, types.Boolean):
        lower_builtin(function, Vector, number)(lower)
        lower_builtin(function, number, Vector)(lower)


def _arithmetic(name: str) -> Any:
    def emit(builder: Any, kind: Vector, a: Any, b: Any) -> Any:
        if kind.is_float:
            return getattr(builder, "f" + name)(a, b, flags=FLAGS)
        return getattr(builder, name)(a, b)

    return emit


def _comparison(symbol: str) -> Any:
    def emit(builder: Any, kind: Vector, a: Any, b: Any) -> Any:
        if kind.is_float:
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
            return compare(symbol, a, b)
        return builder.icmp_signed(symbol, a, b)

    return emit


for _function, _name in (
    (operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul"), (operator.truediv, "div"),
):  # fmt: skip
    _operator(_function, _arithmetic(_name))
    _operator(getattr(operator, "i" + _function.__name__), _arithmetic(_name))
for _function, _symbol in (
    (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="),
    (operator.eq, "=="), (operator.ne, "!="),
):  # fmt: skip
    _operator(_function, _comparison(_symbol), _mask_of)
_operator(operator.and_, lambda builder, kind, a, b: builder.and_(a, b))
_operator(operator.or_, lambda builder, kind, a, b: builder.or_(a, b))
_operator(operator.ior, lambda builder, kind, a, b: builder.or_(a, b))
_operator(operator.lshift, lambda builder, kind, a, b: builder.shl(a, b))
_operator(operator.rshift, lambda builder, kind, a, b: builder.ashr(a, b))


@infer_global(operator.neg)
class _Negation(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _negate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fneg(args[0]) if sig.args[0].is_float else builder.neg(args[0])


@infer_global(abs)
class _Magnitude(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], Vector) else None


@lower_builtin(abs, Vector)
def _magnitude(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    (x,) = args
    return call(builder, f"fabs.{name_of(x.type)}", x.type, [x])


def name_of(llvm: Any) -> str:
    """Return the suffix by which LLVM names an instruction for a type."""
    if isinstance(llvm, ir.VectorType):
        return f"v{llvm.count}{name_of(llvm.element)}"
    widths = {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}
    return widths.get(type(llvm)) or f"i{llvm.width}"


def call(builder: Any, name: str, result: Any, arguments: Any) -> Any:
    """Call an intrinsic of LLVM's."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = get_or_insert_function(builder.module, kind, f"llvm.{name}")
    return builder.call(function, arguments)


class Site(NamedTuple):
    """Where instructions are emitted: types of the arguments, and of the result."""

    context: Any
    builder: Any
    given: tuple[Any, ...]
    kind: Any

    def llvm(self, kind: Any) -> Any:
        """Return a type as LLVM has it."""
        return self.context.get_value_type(kind)


def instruction(result: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make a function of kernels that emits instructions.

    `result` gives its type from the types of its arguments; it is itself given a `Site` and values.
    """

    def decorate(emit: Callable[..., Any]) -> Any:
        def typing(context: Any, *given: Any) -> Any:
            kind = result(*given)

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                made = emit(Site(context, builder, signature.args, kind), *values)
                return context.get_dummy_value() if made is None else made

            return kind(*given), generate

        names = ["context", *list(inspect.signature(emit).parameters)[1:]]
        kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typing.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
        typing.__name__, typing.__doc__ = emit.__name__, emit.__doc__
        return intrinsic(typing)

    return decorate


def same(kind: Any, *others: Any) -> Any:
    """Type of the first argument."""
    return kind


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    lane = next((v.lane for v in (a, b) if isinstance(v, Vector)), types.unliteral(a))
    return _like(condition, lane)


@instruction(_chosen)
def where(at, condition, a, b):
    """Return a where the condition holds, else b: a selection, never a branch."""
    a, b = (
        spread(at.context, at.builder, value, given, at.kind)
        for value, given in ((a, at.given[1]), (b, at.given[2]))
    )
    return at.builder.select(condition, a, b)


_BITS = {types.float32: types.int32, types.float64: types.int64}
_FLOATS = {bits: real for real, bits in _BITS.items()}


@instruction(lambda x: _like(x, _BITS[_lane_of(x)]))
def bits_of(at, x):
    """Return the bits of a float, or of a vector of them, as integers of the same size."""
    return at.builder.bitcast(x, at.llvm(at.kind))


@instruction(lambda x: _like(x, _FLOATS[_lane_of(x)]))
def float_of(at, x):
    """Return the float that has these bits."""
    return at.builder.bitcast(x, at.llvm(at.kind))


def _converted(at: Site, x: Any) -> Any:
    given, lane, build = _lane_of(at.given[0]), _lane_of(at.kind), at.builder
    if given.bitwidth == lane.bitwidth:
        return x
    if isinstance(lane, types.Float):
        change = build.fpext if given.bitwidth < lane.bitwidth else build.fptrunc
    elif given.bitwidth > lane.bitwidth:
        change = build.trunc
    else:
        change = build.sext if given.signed else build.zext
    return change(x, at.llvm(at.kind))


@instruction(lambda x: _like(x, types.float32))
def single(at, x):
    """Return a float, or a vector of them, as float32."""
    return _converted(at, x)


@instruction(lambda k: _like(k, types.float32))
def single_of(at, k):
    """Return a 32-bit integer, or a vector of them, as the nearest float32."""
    return at.builder.sitofp(k, at.llvm(at.kind))


@instruction(lambda x: _like(x, types.float64))
def double(at, x):
    """Return a float, or a vector of them, as float64."""
    return _converted(at, x)


@instruction(lambda x: _like(x, types.int32))
def int32(at, x):
    """Return an integer, or a vector of them, in 32 bits; what is above them is lost."""
    return _converted(at, x)


@instruction(lambda x: _like(x, types.uint16))
def uint16(at, x):
    """Return the lower 16 bits of an integer, or of a vector of them."""
    return _converted(at, x)


@instruction(lambda words: _like(words, types.float32))
def upper_halves(at, words):
    """Return a vector of 16-bit words as the upper halves of float32.

    One shuffle with zeros, 5 % of the speed of a bfloat16 loss above a widening and a shift.
    """
    lanes = at.kind.lanes
    zeros = ir.Constant(words.type, [0] * lanes)
    picks = [k for i in range(lanes) for k in (i, lanes + i)]
    mask = ir.Constant(ir.VectorType(WORD, 2 * lanes), picks)
    return at.builder.bitcast(at.builder.shuffle_vector(zeros, words, mask), at.llvm(at.kind))


@instruction(lambda words: types.UniTuple(Vector(types.float32, words.lanes // 2), 2))
def even_and_odd(at, words):
    """Return 16-bit words in even and in odd places as the upper halves of float32.

    A shift and a mask, no shuffle: a sixth faster than `upper_halves`, where order is no matter.
    """
    build, kind = at.builder, at.kind[0]
    whole = ir.VectorType(WORD, kind.lanes)
    upper = ir.Constant(whole, [0xFFFF0000] * kind.lanes)
    both = build.bitcast(words, whole)
    even, odd = build.shl(both, ir.Constant(whole, [16] * kind.lanes)), build.and_(both, upper)
    values = [build.bitcast(v, at.llvm(kind)) for v in (even, odd)]
    return at.context.make_tuple(build, at.kind, values)


@instruction(lambda words: _like(words, types.float32))
def widen_half(at, words):
    """Return a vector of float16 words as float32, by the processor's own conversion."""
    half = at.builder.bitcast(words, ir.VectorType(ir.HalfType(), at.kind.lanes))
    return at.builder.fpext(half, at.llvm(at.kind))


@instruction(lambda x: _like(x, types.uint16))
def narrow_half(at, x):
    """Return a vector of float32 as float16 words, rounded to nearest even."""
    half = at.builder.fptrunc(x, ir.VectorType(ir.HalfType(), at.kind.lanes))
    return at.builder.bitcast(half, at.llvm(at.kind))


# Adding this to a float leaves the nearest integer in its low bits; the lowest power of two that is
# taken, whose bits come out as those of 0; the width of the mantissa.
_POWERS = {
    types.float32: (1.5 * 2.0**23, -127.0, 23),
    types.float64: (1.5 * 2.0**52, -1023.0, 52),
}


def _is_avx512(at: Site, kind: Any) -> bool:
    """Whether a vector of this type is one register of AVX-512, or several."""
    return AVX512 and isinstance(kind, Vector) and kind.lanes * kind.lane.bitwidth % 512 == 0


def _in_range(at: Site, kind: Any, t: Any) -> tuple[Any, Any]:
    """The exponent, no lower than what is taken, and what rounds it."""
    magic, lowest, _ = (
        spread(at.context, at.builder, ir.Constant(ir.DoubleType(), float(c)), types.float64, kind)
        for c in _POWERS[_lane_of(kind)]
    )
    return at.builder.select(at.builder.fcmp_ordered("<", t, lowest), lowest, t), magic


def _avx512(at: Site, name: str, *given: Any) -> Any:
    """Call an AVX-512 instruction on whole registers, in the rounding that is set."""
    v = given[0].type
    suffix, whole = ("ps", 16) if isinstance(v.element, ir.FloatType) else ("pd", 8)
    full, rounding = f"x86.avx512.{name}.{suffix}.512", WORD(4)

    def on_registers(*given: Any) -> Any:
        if given[0].type.count > whole:
            halves = [_halves(at.builder, x) for x in given]
            low, high = (on_registers(*(half[i] for half in halves)) for i in range(2))
            picks = ir.Constant(
                ir.VectorType(WORD, 2 * low.type.count), list(range(2 * low.type.count))
            )
            return at.builder.shuffle_vector(low, high, picks)
        first, mask = given[0], ir.IntType(whole)(2**whole - 1)
        masked = (first, mask) if name.startswith("mask.") else ()
        return call(at.builder, full, first.type, [*given, *masked, rounding])

    return on_registers(*given)


@instruction(lambda t: types.UniTuple(t, 2))
def power_of_two_below(at, t):
    """Return n, of a form for `times_power_of_two`, and f, with 2**t = 2**n 2**f and |f| <= 1/2.

    For t of at most 127.5 (float32) or 1023.5 (float64); far below 2**n is 0. Two instructions
    instead of five, where AVX-512 has them: a tenth of the speed of a float32 loss in cache.
    """
    build, (kind, _) = at.builder, at.kind
    if _is_avx512(at, kind):
        f = _avx512(at, "mask.reduce", t, WORD(8))
        return at.context.make_tuple(build, at.kind, [build.fsub(t, f), f])
    t, magic = _in_range(at, kind, t)
    rounded = build.fadd(t, magic)
    f = build.fsub(t, build.fsub(rounded, magic))
    return at.context.make_tuple(build, at.kind, [rounded, f])


@instruction(lambda t: types.UniTuple(t, 2))
def whole_power_of_two(at, t):
    """Return n and f as `power_of_two_below` does, but with f from 0 to 1.

    AVX-512 scales by the whole part of what it is given: of 12 instructions for an exponential and
    its sum one less.
    """
    build, (kind, _) = at.builder, at.kind
    if _is_avx512(at, kind):
        return at.context.make_tuple(build, at.kind, [t, _avx512(at, "mask.reduce", t, WORD(9))])
    t, magic = _in_range(at, kind, t)
    whole = call(build, f"floor.{name_of(t.type)}", t.type, [t])
    return at.context.make_tuple(build, at.kind, [build.fadd(whole, magic), build.fsub(t, whole)])


@instruction(same)
def times_power_of_two(at, p, n):
    """Return p 2**n for an n of `power_of_two_below` or `whole_power_of_two`."""
    build, kind = at.builder, at.kind
    if _is_avx512(at, kind):
        return _avx512(at, "mask.scalef", p, n)
    lane = _lane_of(kind)
    bits = _like(kind, _BITS[lane])
    a, shift = (build.bitcast(v, at.llvm(bits)) for v in (p, n))
    mantissa = ir.Constant(ir.IntType(64), _POWERS[lane][2])
    by = spread(at.context, build, mantissa, types.int64, bits)
    return build.bitcast(build.add(a, build.shl(shift, by)), p.type)


@instruction(lambda: types.void)
def apart(at):
    """Keep the function this stands in from being inlined, whatever LLVM thinks it would save."""
    at.builder.function.attributes.add("noinline")


# The bit of an x86's state that has results below the normal numbers be 0.
FLUSH = 0x8000


def _state_of_floats(at: Any, name: str, place: Any) -> None:
    byte = at.builder.bitcast(place, ir.IntType(8).as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [byte.type])
    at.builder.call(get_or_insert_function(at.builder.module, kind, f"llvm.x86.sse.{name}"), [byte])


@instruction(lambda: types.int32)
def flush_subnormals(at):
    """Have results below the normal numbers be 0 in this thread; return what `restore` is given.

    An x86 takes 150 cycles for each: 50 times as long where many classes are next to impossible.
    """
    if not X86:
        return WORD(0)
    place = at.builder.alloca(WORD)
    _state_of_floats(at, "stmxcsr", place)
    before = at.builder.load(place)
    at.builder.store(at.builder.or_(before, WORD(FLUSH)), place)
    _state_of_floats(at, "ldmxcsr", place)
    return before


@instruction(lambda state: types.void)
def restore(at, state):
    """Undo what `flush_subnormals` did."""
    if X86:
        place = at.builder.alloca(WORD)
        at.builder.store(state, place)
        _state_of_floats(at, "ldmxcsr", place)


@instruction(same)
def absolute(at, x):
    """Return the absolute value of a float or a vector of them."""
    return call(at.builder, f"fabs.{name_of(x.type)}", x.type, [x])


@instruction(same)
def fused(at, a, b, c):
    """Return a b + c of floats, rounded once."""
    return call(at.builder, f"fma.{name_of(a.type)}", a.type, [a, b, c])


@instruction(same)
def product(at, a, b):
    """Return a b of floats or vectors as rounded; `*` may become one with an addition after it."""
    if isinstance(at.kind, Vector):
        b = spread(at.context, at.builder, b, at.given[1], at.kind)
    nothing = ir.Constant(a.type, [0.0] * at.kind.lanes if isinstance(at.kind, Vector) else 0.0)
    return call(at.builder, f"fma.{name_of(a.type)}", a.type, [a, b, nothing])


@instruction(same)
def root(at, x):
    """Return the square root of a float or a vector of them; NaN below 0."""
    return call(at.builder, f"sqrt.{name_of(x.type)}", x.type, [x])


def _extreme(at: Site, name: str, sign: str, a: Any, b: Any) -> Any:
    if _is_avx512(at, at.kind):
        # LLVM moves a selection before the shift or mask that made its operands, in two steps each.
        return _avx512(at, name, a, b)
    return at.builder.select(at.builder.fcmp_ordered(sign, a, b), a, b)


@instruction(same)
def maximum(at, a, b):
    """Return a where a > b, else b: a NaN in a is passed over, one in b stays."""
    return _extreme(at, "max", ">", a, b)


@instruction(same)
def minimum(at, a, b):
    """Return a where a < b, else b: a NaN in a is passed over, one in b stays."""
    return _extreme(at, "min", "<", a, b)


def _two_sum(builder: Any, a: Any, b: Any) -> tuple[Any, ...]:
    """a + b rounded, and exactly what the rounding lost (Knuth)."""
    total = builder.fadd(a, b)
    of_b = builder.fsub(total, a)
    of_a = builder.fsub(total, of_b)
    return total, builder.fadd(builder.fsub(a, of_a), builder.fsub(b, of_b))


@instruction(lambda a, b: types.UniTuple(a, 2))
def two_sum(at, a, b):
    """Return a + b of floats or vectors, and exactly what its rounding lost."""
    return at.context.make_tuple(at.builder, at.kind, _two_sum(at.builder, a, b))


@instruction(lambda a, b: types.UniTuple(a if isinstance(a, Vector) else b, 2))
def two_product(at, a, b):
    """Return a b of floats or vectors, and exactly what its rounding lost."""
    build, (kind, _) = at.builder, at.kind
    a, b = (
        spread(at.context, build, value, given, kind)
        for value, given in ((a, at.given[0]), (b, at.given[1]))
    )
    product = build.fmul(a, b)  # without flags: contracted with what follows it were another number
    lost = call(build, f"fma.{name_of(a.type)}", a.type, [a, b, build.fneg(product)])
    return at.context.make_tuple(build, at.kind, [product, lost])


# --- across lanes --------------------------------------------------------------------------------


@cache
def filled(lane: Any, lanes: int) -> Any:
    """Return a function that makes a vector of a number in every lane."""

    @instruction(lambda value: Vector(lane, lanes))
    def fill(at, value):
        return spread(at.context, at.builder, value, at.given[0], at.kind)

    return fill


def _lane(builder: Any, vector: Any, i: int) -> Any:
    return builder.extract_element(vector, WORD(i))


def _halves(builder: Any, vector: Any) -> list[Any]:
    """The lower and the upper lanes of a vector; what is none is both."""
    if not isinstance(vector.type, ir.VectorType):
        return [vector, vector]
    half, nowhere = vector.type.count // 2, ir.Constant(vector.type, ir.Undefined)
    picks = [list(range(begin, begin + half)) for begin in (0, half)]
    return [
        builder.shuffle_vector(vector, nowhere, ir.Constant(ir.VectorType(WORD, half), lanes))
        for lanes in picks
    ]


def _fold(builder: Any, vector: Any, combine: Any) -> Any:
    """Combine the halves of a vector until one lane is left: the same order everywhere."""
    while vector.type.count > 1:
        vector = combine(*_halves(builder, vector))
    return _lane(builder, vector, 0)


@instruction(lambda v: types.float64)
def sum_of(at, v):
    """Return the sum of the lanes as float64."""
    if at.given[0].lane == types.float32:
        v = at.builder.fpext(v, ir.VectorType(ir.DoubleType(), v.type.count))
    return _fold(at.builder, v, at.builder.fadd)


@instruction(lambda v: types.UniTuple(types.float64, 2))
def exact_sum_of(at, v):
    """Return the sum of the lanes of float64, and what its roundings lost."""
    total, lost = (ir.Constant(ir.DoubleType(), 0.0) for _ in range(2))
    for i in range(v.type.count):
        total, error = _two_sum(at.builder, total, _lane(at.builder, v, i))
        lost = at.builder.fadd(lost, error)
    return at.context.make_tuple(at.builder, at.kind, [total, lost])


@instruction(lambda v: v.lane)
def highest_of(at, v):
    """Return the largest lane; see `maximum`."""
    build = at.builder
    return _fold(build, v, lambda a, b: build.select(build.fcmp_ordered(">", a, b), a, b))


@instruction(lambda v: v.lane)
def first_of(at, v):
    """Return the first lane."""
    return _lane(at.builder, v, 0)


@instruction(same)
def with_lane(at, v, i, value):
    """Return a vector with lane i replaced."""
    number = at.context.cast(at.builder, value, at.given[2], at.kind.lane)
    return at.builder.insert_element(v, number, i)


@instruction(lambda mask: {8: types.uint8, 16: types.uint16}[mask.lanes])
def bits_of_mask(at, mask):
    """Return the lanes of a mask as bits of an integer, the first lane the lowest."""
    return at.builder.bitcast(mask, ir.IntType(mask.type.count))


@instruction(lambda mask: types.boolean)
def any_of(at, mask):
    """Return whether a lane of a mask holds."""
    bits = at.builder.bitcast(mask, ir.IntType(mask.type.count))
    return at.builder.icmp_unsigned("!=", bits, bits.type(0))


def before(builder: Any, lanes: int, n: Any) -> Any:
    """Mask of the lanes below n, any integer."""
    for limit, symbol in ((0, ">"), (lanes, "<")):
        n = builder.select(builder.icmp_signed(symbol, n, n.type(limit)), n, n.type(limit))
    vector = ir.VectorType(WORD, lanes)
    nowhere = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nowhere, builder.trunc(n, WORD), WORD(0))
    limits = builder.shuffle_vector(first, nowhere, ir.Constant(vector, [0] * lanes))
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), limits)


@instruction(lambda n, like: _mask_of(like))
def lanes_before(at, n, like):
    """Return the mask of the lanes below n of a vector like the second argument."""
    return before(at.builder, at.kind.lanes, n)


# --- bits ----------------------------------------------------------------------------------------


@instruction(same)
def ones_of(at, x):
    """Return the number of bits set in an integer, or in each lane of a vector of them."""
    return call(at.builder, f"ctpop.{name_of(x.type)}", x.type, [x])


def _sums_side_by_side(builder: Any, vectors: list[Any]) -> list[Any]:
    """Add neighbouring lanes of vectors, those of two vectors in one, until each is one lane."""
    lanes = vectors[0].type.count
    even, odd = (
        ir.Constant(ir.VectorType(WORD, lanes), list(range(begin, 2 * lanes, 2)))
        for begin in (0, 1)
    )
    while lanes > 1:
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            builder.add(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd))
            for a, b in pairs
        ]
        lanes //= 2
    return vectors


@instruction(lambda a, b, c, d, e, f, g, h: types.UniTuple(Vector(a.lane, 4), 2))
def sums_of_eight(at, a, b, c, d, e, f, g, h):
    """Return the sums of the lanes of eight vectors of integers, as two vectors of four.

    Seven additions and 14 shuffles for eight registers of eight lanes, a third of one by one.
    """
    made = _sums_side_by_side(at.builder, [a, b, c, d, e, f, g, h])
    if len(made) == 1:
        (whole,) = made
        made = [
            at.builder.shuffle_vector(
                whole,
                ir.Constant(whole.type, ir.Undefined),
                ir.Constant(ir.VectorType(WORD, 4), list(range(begin, begin + 4))),
            )
            for begin in (0, 4)
        ]
    return at.context.make_tuple(at.builder, at.kind, made)
