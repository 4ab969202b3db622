"""Matrices of measures: accuracy for every kind of rows, and everything around the numbers."""

import cases
import numpy as np
import oracles
import pytest
from accuracy import (
    ROOTS,
    assert_close_loss,
    assert_close_measure,
    assert_same_bits,
    assert_within,
    result_dtype,
)
from cases import FLOATS, PAIR_MEASURES, SYMMETRIC, WIDE_FLOATS, WITH_BASE

import fastinfo
from fastinfo.cpu import pairs

DIVERGENCES = PAIR_MEASURES[1:]
BINS = [3, 8, 17, 64, 257, 1025, 4096]


def check(x, y, measure, **options):
    """Compare the matrix with the double loop."""
    actual = fastinfo.pairwise(x, y, measure, **options)
    exact = oracles.pairwise(x, x if y is None else y, measure, **options)
    assert_close_measure(measure, actual, exact, x.dtype)
    return actual


def mixture(rng, k, rows=2):
    """Return rows of every kind in one matrix: spread, sparse, flat, near, equal, disjoint."""
    spread = rng.dirichlet(np.ones(k), rows)
    sparse = rng.dirichlet(np.full(k, 0.1), rows)
    flat = rng.dirichlet(np.full(k, 20.0), rows)
    near = np.concatenate([cases.near(rng, flat, noise)[1] for noise in (1e-1, 1e-3, 1e-6)])
    half = np.arange(k) < k // 2
    zeros = [np.where(half, spread[0], 0), np.where(half, 0, spread[0]), np.eye(k)[k // 2]]
    return np.concatenate([spread, sparse + 1e-30, flat, near, zeros, 8 * spread[:1], flat[:1]])


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("k", BINS)
def test_every_kind_of_rows(rng, measure, k):
    for dtype in FLOATS:
        x = mixture(rng, k).astype(dtype)
        check(x, None, measure)
        check(x, mixture(rng, k, 1)[:7].astype(dtype), measure)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("alpha", [0.1, 1.0, 20.0, 1e4, 1e6])
def test_concentration(rng, measure, alpha):
    """From nearly disjoint to nearly uniform rows."""
    for dtype in WIDE_FLOATS:
        x, y = (rng.dirichlet(np.full(300, alpha), n).astype(dtype) for n in (12, 9))
        x, y = x + dtype.type(1e-30), y + dtype.type(1e-30)
        check(x, y, measure)


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12])
def test_nearly_equal_rows(rng, measure, noise):
    """Relative all the way to zero: around one centre, and around two far apart."""
    for k in (9, 256):
        centres = rng.dirichlet(np.ones(k), 2)
        x = np.repeat(centres, 4, axis=0)
        x *= 1 + noise * rng.uniform(-1, 1, x.shape)
        for dtype in WIDE_FLOATS:
            check(x.astype(dtype), None, measure)
            check(x[:4].astype(dtype), x[1:].astype(dtype), measure)


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equal_rows_give_exactly_zero(rng, measure, dtype):
    for k in (5, 64, 1000):
        x = rng.dirichlet(np.ones(k), 6).astype(dtype)
        x[3], x[5] = x[0], x[1]
        for matrix in (fastinfo.pairwise(x, None, measure), fastinfo.pairwise(x, x + 0, measure)):
            equal = (x[:, None] == x[None]).all(-1)
            assert (matrix[equal] == 0).all()
            assert (matrix[~equal] > 0).all()
            assert not np.signbit(matrix).any()


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_proportional_rows_are_nearly_zero(rng, measure, dtype):
    counts = rng.integers(1, 1000, 200)
    x = np.stack([counts, 2 * counts, 3 * counts, 7 * counts, 1000 * counts]).astype(dtype)
    x = np.concatenate([x, rng.integers(1, 1000, (3, 200)).astype(dtype)])
    limit = 1e-15 if measure in ROOTS else 1e-30
    for matrix in (fastinfo.pairwise(x, None, measure), fastinfo.pairwise(x, x + 0, measure)):
        assert (abs(matrix[:5, :5]) < limit).all()
        assert (matrix[5:, :5] > 1e-3).all()


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("dtype", [np.dtype(np.int64), np.dtype(np.uint8), np.dtype(bool)], ids=str)
def test_counts(rng, measure, dtype):
    x = rng.integers(0, 2 if dtype.kind == "b" else 100, (6, 70))
    x[:, 0] = 1
    x[4] = x[2]
    check(x.astype(dtype), None, measure)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_larger_matrices(rng, measure):
    """Above every threshold of threads and tiles; 60 pairs of each matrix are looked at."""
    for dtype in WIDE_FLOATS:
        for n, m, k in ((261, 130, 300), (1030, 17, 65)):
            x, y = (rng.dirichlet(np.full(k, 0.5), r).astype(dtype) for r in (n, m))
            y += dtype.type(1e-30)
            y[::7] = x[: len(y[::7])] * dtype.type(1.001) + dtype.type(1e-6)
            actual = fastinfo.pairwise(x, y, measure)
            assert actual.shape == (n, m)
            i, j = rng.integers(0, n, 60), rng.integers(0, m, 60)
            i[:10], j[:10] = np.arange(10), 7 * np.arange(10) % m
            exact = oracles.MEASURES[measure](x[i], y[j])
            assert_close_measure(measure, actual[i, j], exact, dtype)


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("k", [1000, 20000])
def test_long_constant_stretches(rng, measure, k):
    """Roundings of a float32 sum all go one way where the same is added again and again."""
    x = np.ones((24, k), np.float32)
    for row in x:
        begin = rng.integers(0, k // 2)
        row[begin : begin + int(k * rng.uniform(0.1, 0.6))] = rng.uniform(1.1, 9)
    left, right = x[:12].astype(np.float64)[:, None], x[12:].astype(np.float64)
    exact = getattr(fastinfo, measure)(left, right)
    assert_close_measure(measure, fastinfo.pairwise(x[:12], x[12:], measure), exact, np.float32)


@pytest.mark.parametrize("k", [48, 128, 512])
def test_short_constant_stretches_near_each_other(rng, k):
    """A JS of 3e-5 between rows of two values was off by five times what is allowed."""
    for _ in range(20):
        low, high = 1 + 0.3 * rng.random((2, 8, 1))
        x = np.where(np.arange(k) < rng.integers(1, k), low, high).astype(np.float32)
        wide = x.astype(np.float64)
        exact = fastinfo.js_divergence(wide[:, None], wide)
        assert_close_measure("js_divergence", fastinfo.pairwise(x), exact, np.float32)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 7), (7, 8), (8, 64), (9, 65)])
def test_numbers_of_rows(rng, measure, shape):
    x, y = (rng.random((n, 33), np.float32) for n in shape)
    check(x, y, measure)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_one_bin(measure):
    actual = fastinfo.pairwise([[1.0], [5.0]], [[2.0], [1.0], [3.0]], measure)
    assert_close_measure(measure, actual, np.zeros((2, 3)), np.float64)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_tiny_and_huge_entries(rng, measure):
    for dtype in WIDE_FLOATS:
        limits = np.finfo(dtype)
        small = rng.integers(1, 1000, (3, 50)) * limits.smallest_subnormal
        large = rng.uniform(0.5, 1, (3, 50)) * limits.max / 64
        wide = 10.0 ** rng.uniform(-37 if dtype == np.float32 else -300, 0, (3, 50))
        x = np.concatenate([small, large, wide]).astype(dtype)
        check(x, None, measure)
        check(x, x[::-1].copy(), measure)


# Supports and invalid rows --------------------------------------------------------------------


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("k", [3, 64, 65, 1000])
def test_supports(rng, measure, dtype, k):
    """Infinite exactly where one row has a bin that the other has not, wherever the bin is."""
    x = np.where(rng.random((12, k)) < 0.9, rng.uniform(1, 2, (12, k)), 0).astype(dtype)
    x[:, 1] = 1
    x[0], x[1, :-1], x[2, 1:-1], x[3] = 1, 1, 0, np.eye(k)[1]
    x[1, -1] = x[2, 0] = x[2, -1] = 0
    x[2, 1] = 1
    matrix = check(x, None, measure)
    outside = ((x[:, None] > 0) & (x[None] == 0)).any(-1)
    infinite = outside if measure in cases.INFINITE else np.zeros((12, 12), bool)
    if measure == "jeffreys_divergence":
        infinite = infinite | infinite.T
    assert_same_bits(np.isposinf(matrix), infinite)
    assert outside.any()
    assert not outside.all()


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("symmetric", [True, False], ids=["x with itself", "x with y"])
def test_invalid_rows_are_nan_in_their_pairs_only(rng, measure, dtype, symmetric):
    k = 40
    x = rng.dirichlet(np.ones(k), 9).astype(dtype)
    good = x[[0, 2, 4, 6, 8]].copy()
    x[1], x[3, 5], x[5, 0] = 0, np.nan, np.inf
    x[7], x[7, 3] = 0, np.nan
    bad = [1, 3, 5, 7]
    y = None if symmetric else x[::-1].copy()
    actual = fastinfo.pairwise(x, y, measure)
    invalid = np.isin(np.arange(9), bad)
    columns = invalid if symmetric else invalid[::-1]
    assert_same_bits(np.isnan(actual), invalid[:, None] | columns[None])
    exact = oracles.pairwise(good, good if symmetric else good[::-1], measure)
    assert_close_measure(measure, actual[~invalid][:, ~columns], exact, dtype)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_all_rows_invalid(measure):
    assert np.isnan(fastinfo.pairwise(np.zeros((3, 4)), None, measure)).all()
    assert np.isnan(fastinfo.pairwise(np.full((2, 4), np.nan), np.ones((3, 4)), measure)).all()


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_formula_as_it_stands(rng, measure, dtype):
    x, y = (rng.uniform(0.1, 3, (n, 50)).astype(dtype) for n in (7, 5))
    x[2] = 0
    for other in (y, None):
        actual = fastinfo.pairwise(x, other, measure, normalize=False)
        right = x if other is None else other
        exact = oracles.pairwise(x, right, measure, normalize=False)
        sums = x.sum(-1, dtype=np.float64)[:, None] + right.sum(-1, dtype=np.float64)
        infinite = np.isinf(exact)
        size = np.where(infinite, 0, abs(exact))
        size += sums if measure in ("cross_entropy", "kl_divergence") else 0
        # a logarithm near 0 is that of a sum with roundings of its own
        least = 1e-14 if dtype == np.float64 else 1e-6
        least = least if measure == "bhattacharyya_distance" else 0
        allowed = (1e-12 if dtype == np.float64 else 2e-5) * size + least
        assert_within(actual, exact, allowed, dtype)
        apart = measure in ("jeffreys_divergence", "bhattacharyya_distance")
        assert_same_bits(np.isposinf(actual[:, 0]), (np.arange(7) == 2) & apart)


@pytest.mark.parametrize("measure", ["kl_divergence", "jeffreys_divergence", "hellinger_distance"])
@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1])
def test_counts_as_they_stand(rng, measure, noise):
    """What a product loses grows with the counts: equal rows were -4e-5 apart."""
    function = getattr(fastinfo, measure)
    for k in (1, 4, 300):
        x = np.rint(1e9 * rng.random(k) * (1 + noise * rng.standard_normal((9, k))))
        x[1] = x[0]
        for rows in (x, x.astype(np.float32)):
            wide = rows.astype(np.float64)
            actual = fastinfo.pairwise(rows, rows.copy(), measure, normalize=False)
            exact = function(wide[:, None], wide, normalize=False)
            assert_close_measure(measure, actual, exact, rows.dtype)
            assert actual[0, 1] == actual[1, 0] == 0


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_sums_that_overflow_are_quiet(measure):
    x = np.array([[1.0, 1e308], [1.0, 1.0]])
    fastinfo.pairwise(x, None, measure, normalize=False)


# Diagonal, symmetry, condensed ----------------------------------------------------------------


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_diagonal(rng, measure, dtype):
    x = rng.dirichlet(np.ones(90), 40).astype(dtype)
    x[5], x[6, 0] = 0, np.nan
    diagonal = np.diagonal(fastinfo.pairwise(x, None, measure))
    assert_same_bits(np.isnan(diagonal), np.isin(np.arange(40), [5, 6]))
    valid = np.delete(diagonal, [5, 6])
    if measure == "cross_entropy":
        exact = oracles.entropy(np.delete(x, [5, 6], axis=0))
        assert_close_loss(valid, exact, dtype)
    else:
        assert_same_bits(valid, np.zeros(38, result_dtype(dtype)))


@pytest.mark.parametrize("measure", SYMMETRIC)
@pytest.mark.parametrize("n", [2, 3, 40, 130])
def test_symmetric_measures_are_computed_once_a_pair(rng, measure, n):
    for dtype in WIDE_FLOATS:
        matrix = fastinfo.pairwise(rng.dirichlet(np.ones(70), n).astype(dtype), None, measure)
        assert_same_bits(matrix.T.copy(), matrix)


def test_sums_beyond_float32_whose_root_is_not():
    x, y = np.float32([[3e38, 0, 1]]), np.float32([[0, 3e38, 2], [0, 1, 2]])
    found = fastinfo.pairwise(x, y, "hellinger_distance", normalize=False)
    exact = fastinfo.hellinger_distance(x[0].astype(float), y.astype(float), normalize=False)
    np.testing.assert_allclose(found[0], exact, rtol=2e-5)


def test_arguments_are_not_exchanged(rng):
    """The first argument of the measure is the row of x, for weights too."""
    x, y = rng.dirichlet(np.ones(20), (2, 5))
    assert not np.allclose(fastinfo.pairwise(x, y, "kl_divergence"),
                           fastinfo.pairwise(y, x, "kl_divergence").T)  # fmt: skip
    for symmetric in (y, None):
        check(x, symmetric, "js_divergence", weights=(0.2, 0.8))
        check(x, symmetric, "js_divergence", weights=(3, 1))
        check(x, symmetric, "js_divergence", weights=(1, 1e-9))
        check(x, symmetric, "kl_divergence")
        check(x, symmetric, "cross_entropy")


@pytest.mark.parametrize("measure", SYMMETRIC)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 50, 150])
def test_condensed(rng, measure, n):
    for dtype in (np.float64, np.float32, np.float16):
        x = rng.dirichlet(np.ones(30), n).astype(dtype)
        actual = fastinfo.pairwise(x, measure=measure, condensed=True)
        assert actual.shape == (n * (n - 1) // 2,)
        matrix = fastinfo.pairwise(x, measure=measure)
        assert_same_bits(actual, matrix[np.triu_indices(n, 1)])


def test_condensed_is_for_symmetric_measures():
    x = np.eye(3)
    for measure in ("kl_divergence", "cross_entropy"):
        with pytest.raises(ValueError, match=r"condensed.*symmetric|symmetric.*condensed"):
            fastinfo.pairwise(x, measure=measure, condensed=True)
    with pytest.raises(ValueError, match="condensed"):
        fastinfo.pairwise(x, x, condensed=True)
    with pytest.raises(ValueError, match=r"condensed.*an array as y"):
        fastinfo.pairwise(x, x, condensed=True)
    with pytest.raises(ValueError, match=r"condensed.*js_divergence.*weights=\(0.3, 0.7\)"):
        fastinfo.pairwise(x, weights=(0.3, 0.7), condensed=True)
    actual = fastinfo.pairwise(x, weights=(2, 2), condensed=True)
    np.testing.assert_allclose(actual, np.log(2), rtol=1e-14)


# Options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", WITH_BASE)
@pytest.mark.parametrize("base", [2, 10.0])
def test_base(rng, measure, base):
    x = rng.dirichlet(np.ones(40), 6)
    check(x, None, measure, base=base)
    check(x.astype(np.float32), x[:3].astype(np.float32), measure, base=base)


def test_default_is_the_js_divergence(rng):
    x = rng.dirichlet(np.ones(10), 4)
    expected = fastinfo.pairwise(x, None, "js_divergence")
    assert_same_bits(fastinfo.pairwise(x), expected)
    assert_same_bits(fastinfo.pairwise(x, measure=fastinfo.js_divergence.__name__), expected)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("n", [3, 200])
def test_out(rng, measure, n, tmp_path):
    """A plain array, a strided one, Fortran order and a memory map: returned, and the same bits."""
    x = rng.dirichlet(np.ones(30), n).astype(np.float32)
    y = rng.dirichlet(np.ones(30), 5).astype(np.float32)
    for other, m in ((None, n), (y, 5)):
        expected = fastinfo.pairwise(x, other, measure)
        for out in (
            np.full((n, m), np.nan, np.float32),
            np.empty((n, 2 * m), np.float32)[:, ::2],
            np.empty((m, n), np.float32).T,
            np.memmap(tmp_path / "matrix", np.float32, "w+", shape=(n, m)),
        ):
            assert fastinfo.pairwise(x, other, measure, out=out) is out
            assert_same_bits(np.array(out, order="C"), expected)


def test_condensed_out(rng):
    x, out = rng.dirichlet(np.ones(30), 9), np.empty(36)
    assert fastinfo.pairwise(x, condensed=True, out=out) is out
    assert_same_bits(out, fastinfo.pairwise(x, condensed=True))


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("other", [False, True])
def test_progress(rng, measure, other):
    """The callable sees a rising count that ends at the total, and changes nothing."""
    x = rng.dirichlet(np.ones(50), 150)
    y = x[:70] if other else None
    calls = []
    actual = fastinfo.pairwise(
        x, y, measure, progress=lambda done, total: calls.append((done, total))
    )
    assert_same_bits(actual, fastinfo.pairwise(x, y, measure))
    done, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(set(done))
    assert done[-1] == totals[0] > 0


def test_progress_writes_nothing_off_a_terminal(rng, capsys):
    x = rng.dirichlet(np.ones(20), 10)
    assert_same_bits(fastinfo.pairwise(x, progress=True), fastinfo.pairwise(x, progress=False))
    assert capsys.readouterr().out == ""


def test_exceptions_of_progress_end_the_call(rng):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastinfo.pairwise(rng.random((100, 50)), progress=stop)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_nothing(measure):
    for dtype in FLOATS:
        kind = result_dtype(dtype)
        x, empty = np.ones((3, 4), dtype), np.ones((0, 4), dtype)
        assert_same_bits(fastinfo.pairwise(empty, x, measure), np.zeros((0, 3), kind))
        assert_same_bits(fastinfo.pairwise(x, empty, measure), np.zeros((3, 0), kind))
        assert_same_bits(fastinfo.pairwise(empty, None, measure), np.zeros((0, 0), kind))


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence"])
@pytest.mark.parametrize("dtypes", [(np.float32, np.float64), (np.float16, cases.BFLOAT16),
                                    (np.int64, np.float32)])  # fmt: skip
def test_promotion(rng, measure, dtypes):
    x, y = (rng.integers(1, 100, (4, 30)).astype(d) for d in dtypes)
    wide = any(result_dtype(d) == np.float64 for d in dtypes)
    for left, right in ((x, y), (y, x)):
        actual = fastinfo.pairwise(left, right, measure)
        exact = oracles.pairwise(left, right, measure)
        assert_close_measure(measure, actual, exact, np.float64 if wide else np.float32)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts(rng, measure, layout):
    for dtype in FLOATS:
        x, y = (rng.dirichlet(np.ones(70), n).astype(dtype) for n in (6, 4))
        turned = cases.LAYOUTS[layout]
        exact = oracles.pairwise(x, y, measure)
        assert_close_measure(
            measure, fastinfo.pairwise(turned(x), turned(y), measure), exact, dtype
        )
    repeated = np.broadcast_to(x[:1], (5, 70))
    matrix = fastinfo.pairwise(repeated, None, measure)
    if measure != "cross_entropy":
        assert_same_bits(matrix, np.zeros((5, 5), np.float32))


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_matrix_agrees_with_the_function_of_rows(rng, measure):
    x, y = rng.dirichlet(np.ones(100), 6), rng.dirichlet(np.ones(100), 5)
    rows = getattr(fastinfo, measure)(x[:, None], y[None])
    np.testing.assert_allclose(fastinfo.pairwise(x, y, measure), rows, rtol=2e-12)


def test_kernels_of_any_weights_have_a_name_of_their_own():
    """Else a process could load from the cache what another compiled for equal weights."""
    from fastinfo.catalogue import MEASURES
    from fastinfo.engine import name_of

    names = [name_of(MEASURES["js_divergence"].at(w).total) for w in (0.5, 0.3)]
    assert names[0] != names[1]


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("dtype", WIDE_FLOATS)
def test_bands_and_stretches_of_columns_meet(rng, monkeypatch, measure, dtype):
    """Bands of a few rows, the last shorter, and more columns than are finished at a time."""
    x, y = rng.dirichlet(np.ones(21), 11).astype(dtype), rng.dirichlet(np.ones(21), 2100)
    y = y.astype(dtype)
    whole = fastinfo.pairwise(x, y, measure)
    monkeypatch.setattr(pairs, "BAND", 4)
    monkeypatch.setattr(pairs, "PRODUCT_BAND", 4)
    out = np.full((11, 2100), np.nan, dtype)
    assert_close_measure(measure, fastinfo.pairwise(x, y, measure, out=out), whole, dtype)
    check(x[7:9], y[2040:2060], measure)
    check(x, None, measure)
    corner = fastinfo.pairwise(x[7:9], y[2040:2060], measure)
    assert_close_measure(measure, whole[7:9, 2040:2060], corner, dtype)
