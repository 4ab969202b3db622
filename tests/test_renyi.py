"""Rényi divergences of every order, and the Bhattacharyya distance, in rows and matrices."""

import itertools

import cases
import mpmath
import numpy as np
import oracles
import pytest
from accuracy import assert_close_measure, assert_same_bits, assert_within, result_dtype
from cases import FLOATS, WIDE_FLOATS

import fastinfo

# Beside those of the catalogue's laws: next to 0, where roads part at 1, and where powers overflow.
ORDERS = (*cases.ORDERS, 0.94, 0.96, 1 - 1e-9, 1 + 1e-13, 1.04, 1.06, 1e4)
NEXT_TO_ZERO = (1e-300, 1e-20, 1e-7)
NAME = "renyi_divergence"


def exact_rows(p, q, alpha, normalize=True):
    """Return the divergence of each row by its definition, in as many digits as it takes."""
    return np.array([exact(*row, alpha, normalize) for row in zip(p, q, strict=True)])


def exact(p, q, alpha, normalize=True):
    """Return the divergence of one row."""
    with mpmath.workdps(360 if 0 < alpha < 1e-3 else 80):
        p, q = ([mpmath.mpf(float(v)) for v in row] for row in (p, q))
        if normalize:
            p, q = ([v / mpmath.fsum(row) for v in row] for row in (p, q))
        a = mpmath.mpf(alpha)
        filled = [(x, y) for x, y in zip(p, q, strict=True) if x > 0]
        if alpha >= 1 and any(y == 0 for _, y in filled):
            return np.longdouble(np.inf)
        if alpha == 1:
            value = mpmath.fsum(x * mpmath.log(x / y) for x, y in filled)
        elif alpha == np.inf:
            value = mpmath.log(max(x / y for x, y in filled))
        else:
            total = mpmath.fsum(x**a * y ** (1 - a) for x, y in filled if y > 0)
            if total == 0:
                return np.longdouble(np.inf)
            value = mpmath.log(total) / (a - 1)
        return np.longdouble(mpmath.nstr(value, 25))


def rows(rng, k, dtype):
    """Return the pairs of the catalogue of hard ones as two arrays of rows."""
    table = cases.distribution_pairs(rng, k).values()
    return tuple(np.stack(side).astype(dtype) for side in zip(*table, strict=True))


def check(actual, p, q, alpha, **options):
    """Compare with the definition."""
    truth = oracles.renyi_divergence(p, q, alpha=alpha, **options)
    kind = np.promote_types(result_dtype(p.dtype), result_dtype(q.dtype))
    assert_close_measure(NAME, actual, truth, kind)


def check_matrix(x, y, alpha, **options):
    """Compare the matrix with the double loop."""
    actual = fastinfo.pairwise(x, y, NAME, alpha=alpha, **options)
    other = x if y is None else y
    left, right = (np.repeat(x, len(other), axis=0), np.tile(other, (len(x), 1)))
    check(actual.ravel(), left, right, alpha, **options)
    return actual


def mixture(rng, k):
    """Return rows of every kind: spread, sparse, flat, near, equal, disjoint, proportional."""
    spread, sparse = rng.dirichlet(np.ones(k), 2), rng.dirichlet(np.full(k, 0.1), 2) + 1e-30
    near = [cases.near(rng, spread[0], noise)[1] for noise in (1e-1, 1e-3, 1e-6)]
    half = np.arange(k) < k // 2
    zeros = [np.where(half, spread[0], 0), np.where(half, 0, spread[0]), np.eye(k)[k // 2]]
    return np.concatenate([spread, sparse, near, zeros, 8 * spread[:1], spread[:1]])


# The definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ORDERS)
def test_oracle(rng, alpha):
    """The oracle in long double, against many digits; a tenth of what is allowed is enough."""
    p, q = rows(rng, 7, np.float64)
    truth = exact_rows(p, q, alpha)
    found = oracles.renyi_divergence(p, q, alpha=alpha)
    infinite = np.isinf(truth)
    assert_same_bits(np.isinf(found), infinite)
    size, error = abs(truth[~infinite]), abs(found[~infinite] - truth[~infinite])
    assert (error <= 1e-13 * np.maximum(size, np.sqrt(1e-7 * size)) + 1e-31).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_orders_with_names(rng, normalize):
    p, q = rng.uniform(0.2, 2, (2, 5, 30))
    given = {"normalize": normalize}

    def renyi(alpha):
        return fastinfo.renyi_divergence(p, q, alpha, **given)

    assert_same_bits(renyi(1), fastinfo.kl_divergence(p, q, **given))
    half = fastinfo.bhattacharyya_distance(p, q, **given)
    np.testing.assert_allclose(renyi(0.5) / 2, half, rtol=1e-14)
    if normalize:
        distance = fastinfo.hellinger_distance(p, q)
        np.testing.assert_allclose(half, -np.log1p(-(distance**2)), rtol=1e-13)
        p, q = (side / side.sum(-1, keepdims=True) for side in (p, q))
    np.testing.assert_allclose(renyi(2), np.log((p**2 / q).sum(-1)), rtol=1e-12)
    np.testing.assert_allclose(renyi(np.inf), np.log((p / q).max(-1)), rtol=1e-13)


def test_never_falls_with_the_order(rng):
    p, q = rng.dirichlet(np.full(20, 0.4), (2, 8))
    values = [fastinfo.renyi_divergence(p, q, a) for a in sorted({*ORDERS, *NEXT_TO_ZERO})]
    for lower, higher in itertools.pairwise(values):
        assert (lower <= higher * (1 + 1e-12)).all()


def test_order_and_its_complement(rng):
    """(1 - a) D_a(p, q) = a D_{1-a}(q, p)."""
    p, q = rng.dirichlet(np.full(20, 0.4), (2, 8))
    for a in (2.0**-10, 0.125, 0.25, 0.5):
        forth, back = fastinfo.renyi_divergence(p, q, a), fastinfo.renyi_divergence(q, p, 1 - a)
        np.testing.assert_allclose((1 - a) * forth, a * back, rtol=1e-12)


# Rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pairs_of_distributions(rng, alpha, dtype):
    for k in cases.BINS:
        p, q = rows(rng, k, dtype)
        check(fastinfo.renyi_divergence(p, q, alpha), p, q, alpha)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", [np.dtype(np.int64), np.dtype(np.uint8), np.dtype(bool)], ids=str)
def test_counts(rng, alpha, dtype):
    p, q = rng.integers(0, 2 if dtype.kind == "b" else 100, (2, 6, 70)).astype(dtype)
    p[:, 0] = q[:, 0] = 1
    q[4], q[5] = p[4], p[5]
    check(fastinfo.renyi_divergence(p, q, alpha), p, q, alpha)
    check_matrix(p, q, alpha)
    check_matrix(p, None, alpha)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("noise", [10.0**-n for n in range(1, 13)])
def test_nearly_equal_rows(rng, alpha, noise):
    """Relative all the way to zero, for rows and in matrices; around two centres far apart too."""
    for k in (3, 200):
        centres = rng.dirichlet(np.full(k, 2.0), 2)
        x = np.repeat(centres, 3, axis=0)
        x *= 1 + noise * rng.uniform(-1, 1, x.shape)
        for dtype in WIDE_FLOATS:
            y = x.astype(dtype)
            check(fastinfo.renyi_divergence(y, y[::-1], alpha), y, y[::-1], alpha)
            check_matrix(y, None, alpha)
            check_matrix(y[:3], y[1:3], alpha)


@pytest.mark.parametrize("alpha", NEXT_TO_ZERO)
def test_orders_next_to_zero(rng, alpha):
    """Of rows with one support it is as small as the order; 1 - alpha has lost its digits."""
    p, q = rows(rng, 5, np.float64)
    truth = exact_rows(p, q, alpha)
    assert (truth[truth > 0] > 0.01 * alpha).any()
    actual = fastinfo.renyi_divergence(p, q, alpha)
    matrix = np.diagonal(fastinfo.pairwise(p, q, NAME, alpha=alpha)).copy()
    for found in (actual, matrix):
        size = np.where(np.isinf(truth), 0, abs(truth))
        allowed = 1e-12 * np.maximum(size, np.sqrt(1e-7 * alpha * size))
        assert_within(found, truth, np.where(size < 1e-32 * alpha, 1e-30 * alpha, allowed), float)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_tiny_and_huge_entries(rng, alpha, dtype):
    """Subnormal and huge numbers, and probabilities over the whole range of a dtype."""
    limits = np.finfo(dtype)
    small = rng.integers(1, 1000, (3, 50)) * limits.smallest_subnormal
    large = rng.uniform(0.5, 1, (3, 50)) * limits.max / 64
    wide = 10.0 ** rng.uniform(-44 if dtype == np.float32 else -300, 0, (3, 50))
    x = np.concatenate([small, large, wide]).astype(dtype)
    check(fastinfo.renyi_divergence(x[:, None], x[None], alpha), x[:, None], x[None], alpha)
    check_matrix(x, None, alpha)
    check_matrix(x[:5], x[::-1].copy(), alpha)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("alpha", [1e-300, 1e-3, 0.1, 0.5, 0.9, 0.94, 0.99])
def test_overlap_of_subnormal_probabilities(dtype, alpha):
    """All that two rows share is next to nothing: no power under- or overflows, none is lost."""
    least = float(np.finfo(dtype).smallest_subnormal)
    x = np.array([[1, 0, 3 * least, 0], [1, 0, 0, 3 * least], [1, least, 0, 0]], dtype)
    y = np.array([[0, 1, 5 * least, 0], [0, 1, 0, least], [7 * least, 1, 0, least]], dtype)
    truth = np.array([[exact(p, q, alpha) for q in y] for p in x])
    kind = result_dtype(dtype)
    assert_close_measure(NAME, fastinfo.renyi_divergence(x[:, None], y[None], alpha), truth, kind)
    assert_close_measure(NAME, fastinfo.pairwise(x, y, NAME, alpha=alpha), truth, kind)
    both = np.concatenate([x, y])
    assert_close_measure(
        NAME, fastinfo.pairwise(both, None, NAME, alpha=alpha)[:3, 3:], truth, kind
    )


@pytest.mark.parametrize("alpha", ORDERS)
def test_never_below_zero(rng, alpha):
    """Proportional rows but for a rounding, whose largest ratio may come out below 1."""
    x = rng.dirichlet(np.ones(3), 20_000)
    assert (fastinfo.renyi_divergence(x, 3 * x, alpha) >= 0).all()


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equal_rows_give_exactly_zero(rng, alpha, dtype):
    for k in (1, 2, 17, 500):
        x = rng.dirichlet(np.ones(k), 5).astype(dtype)
        x[3] = x[0]
        x[4] = np.where(rng.random(k) < 0.5, 0, x[1].astype(np.float64)).astype(dtype)
        x[4, 0] = 1
        assert_same_bits(fastinfo.renyi_divergence(x, x.copy(), alpha),
                         np.zeros(5, result_dtype(dtype)))  # fmt: skip
        equal = (x[:, None] == x[None]).all(-1)
        for y in (None, x + 0):
            matrix = fastinfo.pairwise(x, y, NAME, alpha=alpha)
            assert (matrix[equal] == 0).all()
            assert not np.signbit(matrix).any()


@pytest.mark.parametrize("alpha", ORDERS)
def test_infinite_values(alpha):
    """From 1 on where p has a bin that q has not, below only of disjoint supports."""
    x = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    outside = ((x[:, None] > 0) & (x[None] == 0)).any(-1)
    disjoint = ((x[:, None] == 0) | (x[None] == 0)).all(-1)
    expected = outside if alpha >= 1 else disjoint
    assert_same_bits(np.isposinf(fastinfo.renyi_divergence(x[:, None], x[None], alpha)), expected)
    for y in (None, x + 0):
        for dtype in FLOATS:
            other = None if y is None else y.astype(dtype)
            matrix = fastinfo.pairwise(x.astype(dtype), other, NAME, alpha=alpha)
            assert_same_bits(np.isposinf(matrix), expected)
            assert not np.isnan(matrix).any()


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_invalid_rows(rng, alpha, dtype):
    """NaN in the pairs of the row, the others as if it were not there."""
    bad = zip(*cases.invalid_pairs(20).values(), strict=True)
    p, q = (np.stack([*rng.dirichlet(np.ones(20), 2), *side]).astype(dtype) for side in bad)
    actual = fastinfo.renyi_divergence(p, q, alpha)
    assert_same_bits(np.isnan(actual), np.arange(len(p)) >= 2)
    matrix = fastinfo.pairwise(p, q, NAME, alpha=alpha)
    invalid = [~((w := s.astype(float)).min(-1) + (t := w.sum(-1)) < np.inf) | (t == 0)
               for s in (p, q)]  # fmt: skip
    assert_same_bits(np.isnan(matrix), invalid[0][:, None] | invalid[1][None])
    check(matrix[:2, :2].ravel(), p[[0, 0, 1, 1]], q[[0, 1, 0, 1]], alpha)


# Formula as it stands -------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [a for a in ORDERS if a != 1])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_formula_as_it_stands(rng, alpha, dtype):
    """A sum that is right to rtol, its logarithm divided by alpha - 1."""
    p, q = rng.uniform(0.1, 3, (2, 6, 40)).astype(dtype)
    p[2, :9], q[3, :9], p[4], q[5] = 0, 0, 0, p[5]
    rtol = 1e-12 if dtype == np.float64 else 2e-5
    spread = 1e-14 if dtype == np.float64 else 1e-6
    for x, y in ((p[:, None], q[None]), (p[:, None], p[None])):
        truth = oracles.renyi_divergence(x, y, alpha=alpha, normalize=False)
        size = np.where(np.isinf(truth), 0, abs(truth))
        conditioned = 0 if np.isinf(alpha) else spread / abs(alpha - 1)
        found = [fastinfo.renyi_divergence(x, y, alpha, normalize=False)]
        others = [y[0]] if y[0] is not p else [y[0], None]
        found += [fastinfo.pairwise(x[:, 0], other, NAME, alpha=alpha, normalize=False)
                  for other in others]  # fmt: skip
        for at, value in enumerate(found):
            double = 1e-14 if at == 0 else spread
            near = np.minimum(conditioned, double / max(abs(alpha - 1), 1e-300))
            assert_within(value, truth, rtol * size + near, dtype)


# Matrices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_kind_of_rows(rng, alpha, dtype):
    for k in (1, 3, 17, 257):
        x = mixture(rng, k).astype(dtype)
        check_matrix(x, None, alpha)
        check_matrix(x, mixture(rng, k)[:3].astype(dtype), alpha)
    x = mixture(rng, 4096)[::3].astype(dtype)
    check_matrix(x, x[:2].copy(), alpha)


@pytest.mark.parametrize("alpha", ORDERS)
@pytest.mark.parametrize("concentration", [0.1, 1.0, 20.0, 1e4, 1e6])
def test_concentration(rng, alpha, concentration):
    """From nearly disjoint to nearly uniform rows: both roads, and what lies between."""
    for dtype in WIDE_FLOATS:
        x, y = (rng.dirichlet(np.full(200, concentration), n).astype(dtype) for n in (8, 6))
        check_matrix(x + dtype.type(1e-30), y + dtype.type(1e-30), alpha)
        check_matrix(x, None, alpha)


@pytest.mark.parametrize("alpha", [0.1, 0.9, 1.5, 2.0, 10.0, 300.0])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_powers_beyond_the_range(rng, alpha, dtype):
    """Of the product of such rows nothing is left; they are computed again."""
    x = rng.dirichlet(np.ones(60), 12).astype(dtype)
    tiny = 1e-36 if dtype == np.float32 else 1e-290
    x[1::3, :40] *= dtype.type(tiny)
    x[2::3, 20:] *= dtype.type(tiny)
    check_matrix(x, None, alpha)
    check_matrix(x, x[::-1].copy(), alpha)


@pytest.mark.parametrize("alpha", ORDERS)
def test_base(rng, alpha):
    x = rng.dirichlet(np.ones(40), 5)
    for base in (2, 10.0):
        check(fastinfo.renyi_divergence(x, x[::-1], alpha, base=base), x, x[::-1], alpha, base=base)
        check_matrix(x, None, alpha, base=base)
        check_matrix(x.astype(np.float32), x[:3].astype(np.float32), alpha, base=base)


@pytest.mark.parametrize("alpha", ORDERS)
def test_nothing(alpha):
    for dtype in FLOATS:
        kind, empty, one = result_dtype(dtype), np.ones((0, 4), dtype), np.ones((1, 4), dtype)
        assert_same_bits(fastinfo.renyi_divergence(empty, empty, alpha), np.zeros(0, kind))
        for x, y in itertools.product((empty, one), (empty, one)):
            expected = np.zeros((len(x), len(y)), kind)
            assert_same_bits(fastinfo.pairwise(x, y, NAME, alpha=alpha), expected)
        assert_same_bits(fastinfo.pairwise(one, None, NAME, alpha=alpha), np.zeros((1, 1), kind))


def test_orders_have_kernels_of_their_own():
    """Orders 0 and 0.99 differ in what is added up of rows far apart, and in nothing else."""
    x, y = np.array([[1, 1e-9, 0]]), np.array([[0, 1e-12, 1.0]])
    for alpha in (0.0, 0.99, 0.0, 1.01, np.inf):
        check_matrix(x, y, alpha)


@pytest.mark.parametrize("alpha", ORDERS)
def test_condensed(rng, alpha):
    x = rng.dirichlet(np.ones(9), 5)
    if alpha == 0.5:
        actual = fastinfo.pairwise(x, measure=NAME, alpha=alpha, condensed=True)
        matrix = fastinfo.pairwise(x, measure=NAME, alpha=alpha)
        assert_same_bits(actual, matrix[np.triu_indices(5, 1)])
    else:
        with pytest.raises(ValueError, match=r"condensed.*symmetric"):
            fastinfo.pairwise(x, measure=NAME, alpha=alpha, condensed=True)


@pytest.mark.parametrize("alpha", [-1, -1e-300, np.nan, -np.inf])
def test_orders_that_are_none(alpha):
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"alpha.*at least 0"):
        fastinfo.renyi_divergence(x, x, alpha)
    with pytest.raises(ValueError, match=r"alpha.*at least 0"):
        fastinfo.pairwise(x, x, NAME, alpha=alpha)
    with pytest.raises(TypeError, match="alpha"):
        fastinfo.pairwise(x, x, NAME)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("alpha", [0.97, 1.02, 12.0, 60.0, np.inf])
def test_rows_ever_nearer(rng, alpha, dtype):
    """Pairs are computed by vectors, or bin by bin where those would lose digits."""
    flat = rng.dirichlet(np.ones(30))
    noise = 10.0 ** -np.linspace(0, 6, 13)[:, np.newaxis]
    x = (flat * np.exp(noise * rng.standard_normal((13, 30)))).astype(dtype)
    y = (flat * np.exp(noise * rng.standard_normal((13, 30)))).astype(dtype)
    actual = fastinfo.pairwise(x, y, NAME, alpha=alpha).diagonal()
    assert_close_measure(NAME, actual, exact_rows(x, y, alpha), dtype)
    y[::2, 7] = 0
    actual = fastinfo.pairwise(x, y, NAME, alpha=alpha).diagonal()
    assert_close_measure(NAME, actual, exact_rows(x, y, alpha), dtype)
