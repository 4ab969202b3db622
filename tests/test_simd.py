"""Vectors inside kernels against NumPy: operators, loads and stores at the ends of arrays, sums."""

import math

import numba
import numpy as np
import pytest
from numba import types

from fastinfo.cpu import memory, simd

LANES = 8
load, filled = memory.loader(LANES), simd.filled(types.float64, LANES)


def compiled(function):
    return numba.njit(error_model="numpy")(function)


def lane_by_lane(operation):
    """Return a function of two arrays that applies `operation` to vectors of them."""
    operation = compiled(operation)

    @compiled
    def over(a, b, out):
        for k in range(0, a.size, LANES):
            memory.store(out, k, operation(load(a, k, 0.0), load(b, k, 0.0)))
        return out

    return lambda a, b: over(a, b, np.full(a.size, np.nan))


OPERATIONS = {
    "sum": (lambda a, b: a + b, np.add),
    "difference": (lambda a, b: a - b, np.subtract),
    "product with a number": (lambda a, b: 3.0 * a * b, lambda a, b: 3.0 * a * b),
    "quotient": (lambda a, b: a / b, np.divide),
    "negation": (lambda a, b: -a, lambda a, b: -a),
    "larger": (lambda a, b: simd.maximum(a, b), lambda a, b: np.where(a > b, a, b)),
    "absolute": (lambda a, b: simd.absolute(a), lambda a, b: abs(a)),
    "root": (lambda a, b: simd.root(simd.absolute(a)), lambda a, b: np.sqrt(abs(a))),
    "choice": (
        lambda a, b: simd.where((a < b) & (a != 0.0) | (b >= 1.0), a, 7.0),
        lambda a, b: np.where((a < b) & (a != 0.0) | (b >= 1.0), a, 7.0),
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 30])
def test_operators_work_lane_by_lane_to_the_end_of_the_array(rng, name, n):
    operation, expected = OPERATIONS[name]
    a, b = rng.standard_normal((2, n))
    a[:: max(n // 3, 1)] = [0.0, -0.0, np.inf, np.nan][n % 4]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(lane_by_lane(operation)(a, b), expected(a, b))


@pytest.mark.parametrize("n", [1, 5, 8, 13])
def test_nothing_is_written_or_read_past_the_end(n):
    @compiled
    def fill(x, out):
        for k in range(0, x.size, LANES):
            memory.store(out, k, load(x, k, -1.0))

    around = np.zeros(64)
    fill(np.full(n, np.nan), around[8 : 8 + n])
    assert np.isnan(around[8 : 8 + n]).all()
    assert not np.isnan(around[:8]).any() and not np.isnan(around[8 + n :]).any()

    @compiled
    def last(x):
        return simd.sum_of(load(x, x.size - 1, 100.0))

    assert last(np.arange(float(n))) == n - 1 + 7 * 100.0


def test_lanes_of_a_mask():
    @compiled
    def bits(x, n):
        v = load(x, 0, 0.0)
        inside = simd.lanes_before(n, v)
        return simd.bits_of_mask((v > 0.0) & inside), simd.any_of(inside)

    x = np.array([1.0, 0, 1, 1, 0, 0, 0, 1])
    assert bits(x, 8) == (0b10001101, True)
    assert bits(x, 3) == (0b00000101, True)
    assert bits(x, -2) == (0, False)


def test_sums_with_what_their_roundings_lose(rng):
    @compiled
    def total(x):
        value, rest = filled(0.0), filled(0.0)
        for k in range(0, x.size, LANES):
            value, lost = simd.two_sum(value, load(x, k, 0.0))
            rest += lost
        value, lost = simd.exact_sum_of(value)
        return value, lost + simd.sum_of(rest)

    x = rng.standard_normal(999) * 10.0 ** rng.integers(-8, 8, 999)
    value, rest = total(x)
    assert value + rest == math.fsum(x)
    assert rest == pytest.approx(math.fsum([*x, -value]), rel=1e-9)


def test_a_lane_can_be_replaced():
    @compiled
    def replace(x, i):
        return simd.highest_of(simd.with_lane(load(x, 0, 0.0), i, 5.0))

    assert [replace(np.zeros(8), i) for i in range(8)] == [5.0] * 8


def test_products_keep_what_their_rounding_lost(rng):
    @compiled
    def products(a, b, rounded, lost):
        for k in range(0, a.size, LANES):
            p, r = simd.two_product(load(a, k, 0.0), load(b, k, 0.0))
            memory.store(rounded, k, p)
            memory.store(lost, k, r)

    a, b = rng.integers(1, 2**53, (2, 19)).astype(np.float64)
    rounded, lost = np.empty((2, 19))
    products(a, b, rounded, lost)
    for x, y, p, r in zip(a, b, rounded, lost, strict=True):
        assert p == x * y and int(x) * int(y) == int(p) + int(r)


@pytest.mark.parametrize("lanes", [4, 8])
def test_bits_are_counted_in_eight_vectors_together(rng, lanes):
    whole, four = memory.whole_loader(lanes), memory.whole_loader(4)

    @compiled
    def count(x, out):
        a, b = simd.sums_of_eight(
            simd.ones_of(whole(x[0], 0)), simd.ones_of(whole(x[1], 0)),
            simd.ones_of(whole(x[2], 0)), simd.ones_of(whole(x[3], 0)),
            simd.ones_of(whole(x[4], 0)), simd.ones_of(whole(x[5], 0)),
            simd.ones_of(whole(x[6], 0)), simd.ones_of(whole(x[7], 0)),
        )  # fmt: skip
        memory.store(out, 0, a)
        memory.store(out, 4, b + four(out, 4))

    x, out = rng.integers(-(2**63), 2**63, (8, lanes)), np.zeros(8, np.int64)
    count(x, out)
    assert out.tolist() == [sum(int(w).bit_count() for w in row.view(np.uint64)) for row in x]
