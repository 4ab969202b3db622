"""Vectors: a few numbers side by side that one instruction works on, as a type of Numba's.

Numba knows numbers and arrays; whether a loop over numbers becomes vector code is then LLVM's
choice, which a prefetch, a branch or a running maximum in the loop defeats. A kernel written with
vectors is vector code on every processor: 64 bytes are one register with AVX-512, two with AVX2,
four on ARM, and their sum is always taken in the same order.

`+ - * /`, comparisons and `& |` work lane by lane, a number beside a vector in all lanes.
"""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.core.extending import register_model
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

# Fused multiply-adds are wanted; nothing is reordered.
FLAGS = ("contract",)


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


@intrinsic
def where(context, condition, a, b):
    """Return a where the condition holds, else b: a selection, never a branch."""
    lane = next((v.lane for v in (a, b) if isinstance(v, Vector)), types.unliteral(a))
    kind = _like(condition, lane)

    def generate(context, builder, signature, arguments):
        test, *values = arguments
        kinds = signature.args[1:]
        values = [
            spread(context, builder, v, given, kind) for v, given in zip(values, kinds, strict=True)
        ]
        return builder.select(test, *values)

    return kind(condition, a, b), generate


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


_BITS = {types.float32: types.int32, types.float64: types.int64}
_FLOATS = {bits: real for real, bits in _BITS.items()}


def _bitcast(table: Any, value: Any) -> Any:
    kind = _like(value, table[_lane_of(value)])

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return kind(value), generate


@intrinsic
def bits_of(context, value):
    """Return the bits of a float, or of a vector of them, as integers of the same size."""
    return _bitcast(_BITS, value)


@intrinsic
def float_of(context, value):
    """Return the float that has these bits."""
    return _bitcast(_FLOATS, value)


def _conversion(lane: Any, value: Any) -> Any:
    kind = _like(value, lane)

    def generate(context, builder, signature, arguments):
        given, target = _lane_of(value), context.get_value_type(kind)
        if isinstance(given, types.Float) and isinstance(lane, types.Float):
            if given.bitwidth == lane.bitwidth:
                return arguments[0]
            change = builder.fpext if given.bitwidth < lane.bitwidth else builder.fptrunc
        elif given.bitwidth >= lane.bitwidth:
            change = builder.trunc if given.bitwidth > lane.bitwidth else builder.bitcast
        else:
            change = builder.sext if given.signed else builder.zext
        return change(arguments[0], target)

    return kind(value), generate


@intrinsic
def single(context, value):
    """Return a float, or a vector of them, as float32."""
    return _conversion(types.float32, value)


@intrinsic
def double(context, value):
    """Return a float, or a vector of them, as float64."""
    return _conversion(types.float64, value)


@intrinsic
def int32(context, value):
    """Return an integer, or a vector of them, in 32 bits; what is above them is lost."""
    return _conversion(types.int32, value)


@intrinsic
def uint16(context, value):
    """Return the lower 16 bits of an integer, or of a vector of them."""
    return _conversion(types.uint16, value)


@intrinsic
def upper_halves(context, words):
    """Return a vector of 16-bit words as the upper halves of float32.

    One shuffle with zeros, 5 % of the speed of a bfloat16 loss above a widening and a shift.
    """
    kind = Vector(types.float32, words.lanes)

    def generate(context, builder, signature, arguments):
        (vector,) = arguments
        zeros = ir.Constant(vector.type, [0] * words.lanes)
        picks = [k for i in range(words.lanes) for k in (i, words.lanes + i)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * words.lanes), picks)
        pairs = builder.shuffle_vector(zeros, vector, mask)
        return builder.bitcast(pairs, context.get_value_type(kind))

    return kind(words), generate


@intrinsic
def widen_half(context, words):
    """Return a vector of float16 words as float32, by the processor's own conversion."""
    kind = Vector(types.float32, words.lanes)

    def generate(context, builder, signature, arguments):
        half = builder.bitcast(arguments[0], ir.VectorType(ir.HalfType(), words.lanes))
        return builder.fpext(half, context.get_value_type(kind))

    return kind(words), generate


@intrinsic
def narrow_half(context, x):
    """Return a vector of float32 as float16 words, rounded to nearest even."""
    kind = Vector(types.uint16, x.lanes)

    def generate(context, builder, signature, arguments):
        half = builder.fptrunc(arguments[0], ir.VectorType(ir.HalfType(), x.lanes))
        return builder.bitcast(half, context.get_value_type(kind))

    return kind(x), generate


@intrinsic
def times_power_of_two(context, p, rounded):
    """Return p 2**n, n from the lowest bits of `rounded`, by an addition to the exponent of p.

    `rounded` is n plus 1.5 * 2**23 (float32) or 1.5 * 2**52 (float64).
    """
    lane = _lane_of(p)
    bits = _like(p, _BITS[lane])

    def generate(context, builder, signature, arguments):
        mantissa = 23 if lane == types.float32 else 52
        a, n = (builder.bitcast(v, context.get_value_type(bits)) for v in arguments)
        by = spread(context, builder, ir.Constant(ir.IntType(64), mantissa), types.int64, bits)
        return builder.bitcast(builder.add(a, builder.shl(n, by)), arguments[0].type)

    return p(p, rounded), generate


@intrinsic
def absolute(context, x):
    """Return the absolute value of a float or a vector of them."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        return call(builder, f"fabs.{name_of(kind)}", kind, arguments)

    return x(x), generate


@intrinsic
def fused(context, a, b, c):
    """Return a b + c of floats, rounded once."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        return call(builder, f"fma.{name_of(kind)}", kind, arguments)

    return a(a, b, c), generate


@intrinsic
def root(context, x):
    """Return the square root of a float or a vector of them; NaN below 0."""

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        return call(builder, f"sqrt.{name_of(kind)}", kind, arguments)

    return x(x), generate


@intrinsic
def maximum(context, a, b):
    """Return a where a > b, else b: a NaN in a is passed over, one in b stays."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, b), generate


# --- across lanes --------------------------------------------------------------------------------


@cache
def filled(lane: Any, lanes: int) -> Any:
    """Return a function that makes a vector of a number in every lane."""
    kind = Vector(lane, lanes)

    @intrinsic
    def fill(context, value):
        def generate(context, builder, signature, arguments):
            return spread(context, builder, arguments[0], signature.args[0], kind)

        return kind(value), generate

    return fill


def _fold(builder: Any, vector: Any, combine: Any) -> Any:
    """Combine the halves of a vector until one lane is left: the same order everywhere."""
    while vector.type.count > 1:
        half = vector.type.count // 2
        low, high = (
            builder.shuffle_vector(
                vector,
                ir.Constant(vector.type, ir.Undefined),
                ir.Constant(ir.VectorType(ir.IntType(32), half), list(range(begin, begin + half))),
            )
            for begin in (0, half)
        )
        vector = combine(low, high)
    return builder.extract_element(vector, ir.IntType(32)(0))


@intrinsic
def sum_of(context, v):
    """Return the sum of the lanes as float64."""

    def generate(context, builder, signature, arguments):
        (vector,) = arguments
        if v.lane == types.float32:
            vector = builder.fpext(vector, ir.VectorType(ir.DoubleType(), v.lanes))
        return _fold(builder, vector, builder.fadd)

    return types.float64(v), generate


@intrinsic
def exact_sum_of(context, v):
    """Return the sum of the lanes of float64, and what its roundings lost."""
    kind = types.UniTuple(types.float64, 2)

    def generate(context, builder, signature, arguments):
        total, lost = (ir.Constant(ir.DoubleType(), 0.0) for _ in range(2))
        for i in range(v.lanes):
            lane = builder.extract_element(arguments[0], ir.IntType(32)(i))
            total, error = _two_sum(builder, total, lane)
            lost = builder.fadd(lost, error)
        return context.make_tuple(builder, kind, [total, lost])

    return kind(v), generate


def _two_sum(builder: Any, a: Any, b: Any) -> tuple:
    """a + b rounded, and exactly what the rounding lost (Knuth)."""
    total = builder.fadd(a, b)
    of_b = builder.fsub(total, a)
    of_a = builder.fsub(total, of_b)
    return total, builder.fadd(builder.fsub(a, of_a), builder.fsub(b, of_b))


@intrinsic
def two_sum(context, a, b):
    """Return a + b of floats or vectors, and exactly what its rounding lost."""
    kind = types.UniTuple(a, 2)

    def generate(context, builder, signature, arguments):
        return context.make_tuple(builder, kind, _two_sum(builder, *arguments))

    return kind(a, b), generate


@intrinsic
def highest_of(context, v):
    """Return the largest lane; see `maximum`."""

    def generate(context, builder, signature, arguments):
        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        return _fold(builder, arguments[0], larger)

    return v.lane(v), generate


@intrinsic
def bits_of_mask(context, mask):
    """Return the lanes of a mask as bits of an integer, the first lane the lowest."""
    kind = {8: types.uint8, 16: types.uint16}[mask.lanes]

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(mask.lanes))

    return kind(mask), generate


@intrinsic
def any_of(context, mask):
    """Return whether a lane of a mask holds."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(mask.lanes))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(mask), generate


@intrinsic
def first_of(context, v):
    """Return the first lane."""

    def generate(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], ir.IntType(32)(0))

    return v.lane(v), generate


@intrinsic
def with_lane(context, v, i, value):
    """Return a vector with lane i replaced."""

    def generate(context, builder, signature, arguments):
        vector, lane, number = arguments
        number = context.cast(builder, number, signature.args[2], v.lane)
        return builder.insert_element(vector, number, lane)

    return v(v, types.intp, value), generate


def before(builder: Any, lanes: int, n: Any) -> Any:
    """Mask of the lanes below n, any 64-bit integer."""
    word = ir.IntType(32)
    limit = builder.select(builder.icmp_signed("<", n, n.type(lanes)), n, n.type(lanes))
    limit = builder.trunc(limit, word)
    vector = ir.VectorType(word, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), limit, word(0))
    spread = builder.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0] * lanes)
    )
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), spread)


@intrinsic
def lanes_before(context, n, like):
    """Return the mask of the lanes below n of a vector like the second argument."""

    def generate(context, builder, signature, arguments):
        return before(builder, like.lanes, arguments[0])

    return _mask_of(like)(types.intp, like), generate
