"""Measures of rows of distributions: entropy, cross-entropy, divergences and distances."""

from fractions import Fraction

import cases
import numpy as np
import oracles
import pytest
from accuracy import (
    ROOTS,
    assert_close_measure,
    assert_same_bits,
    assert_within,
    result_dtype,
)
from cases import FLOATS, PAIR_MEASURES, WIDE_FLOATS

import fastinfo

NAMES = ("entropy", *PAIR_MEASURES)
WITH_BASE = ("entropy", *cases.WITH_BASE)


def value(name, p, q, **options):
    """Return the measure of fastinfo; the entropy is of `p`."""
    function = getattr(fastinfo, name)
    return function(p, **options) if name == "entropy" else function(p, q, **options)


def exact(name, p, q, **options):
    """Return the measure by its definition."""
    if name == "entropy":
        return oracles.entropy(p, **options)
    return oracles.MEASURES[name](p, q, **options)


def check(name, p, q, **options):
    """Compare with the definition, under the rule for the kind of measure."""
    dtype = np.promote_types(result_dtype(p.dtype), result_dtype(q.dtype))
    dtype = result_dtype(p.dtype) if name == "entropy" else dtype
    assert_close_measure(name, value(name, p, q, **options), exact(name, p, q, **options), dtype)


def pairs(rng, k, dtype, names=None):
    """Return the pairs of the matrix as two arrays of rows in `dtype`."""
    table = cases.distribution_pairs(rng, k)
    rows = [table[name] for name in names or table]
    return tuple(np.stack(side).astype(dtype) for side in zip(*rows, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pairs_of_distributions(rng, name, dtype):
    for k in cases.BINS:
        check(name, *pairs(rng, k, dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", cases.ROWS)
def test_number_of_rows(rng, name, n):
    p, q = rng.dirichlet(np.ones(33), (2, n)).astype(np.float32)
    check(name, p, q)


@pytest.mark.parametrize("name", PAIR_MEASURES[1:])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12])
def test_nearly_equal_rows(rng, name, dtype, noise):
    """Relative all the way to zero; below the resolution of float32 the rows are equal."""
    for k in (3, 50, 1000):
        p = rng.dirichlet(np.full(k, 2.0), 5)
        q = p * (1 + noise * rng.uniform(-1, 1, p.shape))
        check(name, p.astype(dtype), q.astype(dtype))


@pytest.mark.parametrize("name", PAIR_MEASURES[1:])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("k", [1, 2, 17, 1000, 4096])
def test_equal_rows_give_exactly_zero(rng, name, dtype, k):
    p = rng.dirichlet(np.ones(k), 20).astype(dtype)
    zeros = np.zeros(20, result_dtype(dtype))
    assert_same_bits(value(name, p, p), zeros)
    assert_same_bits(value(name, p, p.copy()), zeros)
    sparse = np.where(rng.random(p.shape) < 0.5, 0, p.astype(np.float64)).astype(dtype)
    sparse[:, 0] = 1
    assert_same_bits(value(name, sparse, sparse.copy()), zeros)
    counts = rng.integers(0, 9, (20, k)) + np.eye(20, k, dtype=int)
    counts[:, 0] += 1
    assert_same_bits(value(name, counts, counts.copy()), np.zeros(20))


@pytest.mark.parametrize("name", PAIR_MEASURES[1:])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("factor", [2.0, 3.0, 7.0, 1000.0])
def test_proportional_rows_are_nearly_zero(rng, name, dtype, factor):
    counts = rng.integers(0, 1000, (8, 300)) + 1
    p, q = counts.astype(dtype), (counts * factor).astype(dtype)
    limit = 1e-15 if name in ROOTS else 1e-30
    assert (abs(value(name, p, q)) < limit).all()
    assert (abs(value(name, q, p)) < limit).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_invalid_rows_are_nan_and_touch_no_other(rng, name, dtype):
    table = cases.invalid_pairs(20)
    if name == "entropy":
        table = {key: pair for key, pair in table.items() if "on the right" not in key}
        table = {key: pair for key, pair in table.items() if key != "NaN over zero"}
    bad = [np.stack(side) for side in zip(*table.values(), strict=True)]
    both = rng.dirichlet(np.ones(20), (2, 2 * len(table))).astype(dtype)
    both[0, ::2], both[1, ::2] = bad[0].astype(dtype), bad[1].astype(dtype)
    actual = value(name, *both)
    assert np.isnan(actual[::2]).all()
    assert_same_bits(actual[1::2], value(name, both[0, 1::2], both[1, 1::2]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_formula_as_it_stands(rng, name, dtype):
    """normalize=False: no sums, a row of zeros is as good as any."""
    p, q = (rng.uniform(0, 3, (2, 6, 40)) * (rng.random((2, 6, 40)) < 0.8)).astype(dtype)
    q[q == 0] = 1
    p[5] = 0
    truth = exact(name, p, q, normalize=False)
    actual = value(name, p, q, normalize=False)
    terms = abs(truth) + p.sum(-1, dtype=np.float64) + q.sum(-1, dtype=np.float64)
    rtol = 1e-12 if dtype == np.float64 else 2e-5
    cancels = "entropy" in name or "kl" in name
    # a logarithm near 0 is that of a sum with a rounding of its own
    least = 1e-15 if name == "bhattacharyya_distance" else 0
    assert_within(actual, truth, rtol * (terms if cancels else abs(truth)) + least, dtype)
    assert not np.isnan(actual).any()


@pytest.mark.parametrize("name", NAMES)
def test_infinite_entries_without_normalisation(name):
    p, q = np.array([[1.0, np.inf], [0.0, 1.0]]), np.array([[1.0, 2.0], [np.inf, 1.0]])
    actual = value(name, p, q, normalize=False)
    assert np.isnan(actual[0])
    assert np.isnan(actual[1]) == (name != "entropy")


@pytest.mark.parametrize("name", WITH_BASE)
@pytest.mark.parametrize("base", [2, 10.0, 0.5, np.e])
def test_base(rng, name, base):
    p, q = rng.dirichlet(np.ones(9), (2, 4))
    if base > 1 or name != "js_distance":
        check(name, p, q, base=base)
    natural = float(value(name, p, q)[0])
    ratio = np.log(base) ** 0.5 if name == "js_distance" and base > 1 else np.log(base)
    if base > 1 or name != "js_distance":
        assert float(value(name, p, q, base=base)[0]) == pytest.approx(natural / ratio)


@pytest.mark.parametrize("name", ["hellinger_distance", "total_variation"])
def test_measures_without_a_base(name):
    with pytest.raises(TypeError, match="base"):
        getattr(fastinfo, name)([0.5, 0.5], [0.25, 0.75], base=2)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("weights", [(0.3, 0.7), (3, 1), (1, 1), (1, 1e-9), (1e-9, 1)])
def test_js_weights(rng, weights, dtype):
    p, q = pairs(rng, 60, dtype)
    check("js_divergence", p, q, weights=weights)
    mirrored = fastinfo.js_divergence(q, p, weights=weights[::-1])
    np.testing.assert_allclose(
        fastinfo.js_divergence(p, q, weights=weights), mirrored, rtol=1e-6, atol=1e-30
    )


def test_infinite_values():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 0.0])
    for name in PAIR_MEASURES:
        assert np.isposinf(value(name, p, q)) == (name in cases.INFINITE)
        assert np.isposinf(value(name, q, p)) == (name == "jeffreys_divergence")
    assert fastinfo.kl_divergence(q, p) == pytest.approx(np.log(2))


def test_disjoint_supports_reach_the_upper_bounds():
    p, q = np.array([[0.25, 0.75, 0, 0]]), np.array([[0, 0, 0.5, 0.5]])
    assert fastinfo.js_divergence(p, q)[0] == pytest.approx(np.log(2), rel=1e-14)
    assert fastinfo.js_divergence(p, q, base=2)[0] == pytest.approx(1, rel=1e-14)
    assert fastinfo.js_distance(p, q, base=2)[0] == pytest.approx(1, rel=1e-14)
    assert fastinfo.total_variation(p, q)[0] == pytest.approx(1, rel=1e-14)
    assert fastinfo.hellinger_distance(p, q)[0] == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_tiny_and_huge_entries(rng, dtype):
    """Sums that would overflow, and entries below the normal numbers, are normalised as any."""
    limits = np.finfo(dtype)
    small = rng.integers(1, 1000, (2, 3, 50)) * limits.smallest_subnormal
    large = (rng.uniform(0.5, 1, (2, 3, 50)) * limits.max / 64).astype(dtype)
    wide = 10.0 ** rng.uniform(-37 if dtype == np.float32 else -300, 0, (2, 3, 50))
    for p, q in (small.astype(dtype), large, wide.astype(dtype)):
        for name in NAMES:
            check(name, p, q)


@pytest.mark.parametrize("name", NAMES)
def test_sum_beyond_the_largest_number(rng, name):
    for dtype in WIDE_FLOATS:
        p, q = (rng.uniform(0.5, 1, (2, 3, 50)) * np.finfo(dtype).max).astype(dtype)
        check(name, p, q)


@pytest.mark.parametrize("name", NAMES)
def test_axis_and_keepdims(rng, name):
    p, q = rng.random((2, 4, 30, 5), np.float32)
    for axis in (0, 1, 2, -2):
        last = [np.moveaxis(side, axis, -1).copy() for side in (p, q)]
        actual = value(name, p, q, axis=axis)
        assert_same_bits(actual, value(name, *last))
        kept = value(name, p, q, axis=axis, keepdims=True)
        assert_same_bits(kept, np.expand_dims(actual, axis))


@pytest.mark.parametrize("name", PAIR_MEASURES)
def test_broadcasting(rng, name):
    p, q = rng.random((4, 1, 7)), rng.random((3, 7))
    actual = value(name, p, q)
    assert actual.shape == (4, 3)
    for i in range(4):
        for j in range(3):
            assert_same_bits(actual[i, j], value(name, p[i, 0], q[j]))
    assert_same_bits(value(name, q, p[0, 0]), np.stack([value(name, row, p[0, 0]) for row in q]))


@pytest.mark.parametrize("dtypes", [
    (np.float32, np.float64), (np.float16, np.float32), (np.float16, cases.BFLOAT16),
    (np.int64, np.float32), (np.int32, np.float16), (np.uint8, bool),
])  # fmt: skip
def test_promotion(rng, dtypes):
    """The wider dtype decides; integers are float64. A kernel is made for each pair of dtypes."""
    left, right = (rng.integers(1, 2 if d is bool else 100, (5, 30)).astype(d) for d in dtypes)
    for p, q in ((left, right), (right, left)):
        for name in ("kl_divergence", "js_distance"):
            check(name, p, q)


def test_one_row_gives_a_scalar():
    assert isinstance(fastinfo.entropy([1, 1]), np.float64)
    assert isinstance(fastinfo.js_divergence(np.ones(3, np.float16), np.ones(3, np.float16)),
                      np.float32)  # fmt: skip
    assert fastinfo.entropy([1, 1], base=2) == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_nothing(name):
    empty = np.zeros((0, 4), np.float32)
    assert_same_bits(value(name, empty, empty), np.zeros(0, np.float32))
    assert value(name, empty, empty, keepdims=True).shape == (0, 1)


def test_negative_zero_is_zero():
    p, q = np.array([-0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0])
    for name in NAMES:
        assert_same_bits(value(name, p, q), value(name, q, q))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_linear_differences_below_the_digits_of_shares(rng, dtype):
    """A small bin differs in its last digit, the shares of others by less than they hold."""
    eps = np.finfo(dtype).eps
    for k in (2, 3, 40):
        p = rng.random((20, k)).astype(dtype)
        p[:, 0] = 100.0
        p[:, 1] = 10.0 ** rng.uniform(-9, -2, 20)
        q = p.copy()
        q[:, 1] *= dtype.type(1 + 2 * eps)
        shares = [[[Fraction(float(v)) for v in row] for row in side] for side in (p, q)]
        shares = [[[v / sum(row) for v in row] for row in side] for side in shares]
        pairs = list(zip(*shares, strict=True))
        variation = [
            float(sum(abs(a - b) for a, b in zip(*pair, strict=True)) / 2) for pair in pairs
        ]
        ratio = [float(max(a / b for a, b in zip(*pair, strict=True)) - 1) for pair in pairs]
        rtol = 2e-5 if dtype == np.float32 else 1e-3  # float64 has looser rules below 1e-7
        for actual, expected in (
            (fastinfo.total_variation(p, q), variation),
            (fastinfo.pairwise(p, q, "total_variation").diagonal(), variation),
            (fastinfo.renyi_divergence(p, q, np.inf), ratio),
            (fastinfo.pairwise(p, q, "renyi_divergence", alpha=np.inf).diagonal(), ratio),
        ):
            np.testing.assert_allclose(actual, expected, rtol=rtol)
