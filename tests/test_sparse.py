"""Sparse rows: the numbers of dense ones, in proportion to what is filled."""

import cases
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from accuracy import assert_close_measure, assert_same_bits, peak
from cases import PAIR_MEASURES, SYMMETRIC, WIDE_FLOATS, WITH_BASE

import fastinfo

DIVERGENCES = PAIR_MEASURES[1:]
RENYI = [("renyi_divergence", {"alpha": alpha}) for alpha in cases.ORDERS]
PARAMETERS = (
    *((measure, {}) for measure in PAIR_MEASURES),
    *((measure, {"base": 2}) for measure in WITH_BASE),
    ("js_divergence", {"weights": (0.2, 0.8)}),
    ("js_divergence", {"weights": (3, 1), "base": 10.0}),
    ("js_divergence", {"weights": (1, 1e-9)}),
    *RENYI,
    ("renyi_divergence", {"alpha": 0.7, "base": 2}),
)
FORMS = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "csc_matrix": sp.csc_matrix,
    "coo_array": sp.coo_array,
    "coo_matrix": sp.coo_matrix,
    "lil_array": sp.lil_array,
}


def within_1(x, y=None):
    return fastinfo.within(x, y, 1.0)


def filled(rng, n, k, dtype=np.float64, share=0.3):
    """Return dense rows whose first bin is filled, and others now and then."""
    dtype = np.dtype(dtype)
    x = rng.uniform(0.1, 2, (n, k)) * (rng.random((n, k)) < share)
    x[:, 0] = rng.uniform(0.5, 1, n)
    return np.ceil(x * 40).astype(dtype) if dtype.kind in "biu" else x.astype(dtype)


def disordered(rng, x, index=np.int32):
    """Return a CSR array of x with bins in any order, each twice, and with explicit zeros."""
    data, bins, starts = [], [], [0]
    for row in x:
        at = np.flatnonzero(row)
        empty = np.flatnonzero(row == 0)[:2]
        where = np.concatenate([at, at, empty])
        values = np.concatenate([row[at] / 4, row[at] - row[at] / 4, row[empty]])
        order = rng.permutation(len(where))
        data.append(values[order])
        bins.append(where[order])
        starts.append(starts[-1] + len(where))
    parts = np.concatenate(data), np.concatenate(bins).astype(index), np.array(starts, index)
    return sp.csr_array(parts, shape=x.shape)


def check(x, y, measure, **options):
    """Compare with the double loop over the dense rows."""
    one, two = (sp.csr_array(v) if v is not None else None for v in (x, y))
    actual = fastinfo.pairwise(one, two, measure, **options)
    exact = oracles.pairwise(x, x if y is None else y, measure, **options)
    assert_close_measure(measure, actual, exact, np.result_type(x, x if y is None else y))
    return actual


# Accuracy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measure", "options"), PARAMETERS, ids=lambda v: v if isinstance(v, str) else repr(v)
)
def test_every_measure(rng, measure, options):
    for dtype in WIDE_FLOATS:
        for k in (3, 70):
            x, y = filled(rng, 7, k, dtype), filled(rng, 6, k, dtype)
            support = x[0] > 0
            y[:2] = x[0] * (1 + dtype.type(1e-3) * rng.uniform(-1, 1, (2, k)).astype(dtype))
            y[2] = np.where(support, y[3] + dtype.type(0.1), 0)
            check(x, y, measure, **options)
            check(x, None, measure, **options)


@pytest.mark.parametrize(
    ("measure", "options"),
    [*((measure, {}) for measure in PAIR_MEASURES), ("js_divergence", {"weights": (0.2, 0.8)}),
     *RENYI],
    ids=lambda v: v if isinstance(v, str) else repr(v),
)  # fmt: skip
def test_formula_as_it_stands(rng, measure, options):
    """Sums of terms of both signs are as exact as those terms allow, as for dense rows."""
    for dtype in WIDE_FLOATS:
        x, y = filled(rng, 6, 40, dtype), filled(rng, 5, 40, dtype)
        x[2] = 0
        y[1] = x[0]
        y[2] = x[1]
        for other in (None, y):
            right = x if other is None else other
            actual = fastinfo.pairwise(
                sp.csr_array(x),
                None if other is None else sp.csr_array(y),
                measure,
                normalize=False,
                **options,
            )
            exact = oracles.pairwise(x, right, measure, normalize=False, **options)
            sums = x.sum(-1, dtype=np.float64)[:, None] + right.sum(-1, dtype=np.float64)
            rtol = 1e-12 if dtype == np.float64 else 2e-5
            np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(exact))
            same = ~np.isfinite(exact)
            assert_same_bits(actual[same].astype(float), exact[same].astype(float))
            size = (abs(exact) + sums)[~same]
            assert (abs(actual[~same] - exact[~same]) <= rtol * size).all()


@pytest.mark.parametrize("measure", DIVERGENCES)
@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
def test_nearly_equal_rows(rng, measure, noise):
    for k, share in ((9, 1.0), (300, 0.1)):
        for dtype in WIDE_FLOATS:
            x = np.repeat(filled(rng, 2, k, np.float64, share), 4, axis=0)
            x = (x * (1 + noise * rng.uniform(-1, 1, x.shape))).astype(dtype)
            check(x, None, measure)
            check(x[:4], x[1:], measure)


@pytest.mark.parametrize(("measure", "options"), [*((m, {}) for m in DIVERGENCES), *RENYI])
def test_equal_and_proportional_rows(rng, measure, options):
    for dtype in WIDE_FLOATS:
        counts = np.ceil(filled(rng, 3, 200) * 20)
        x = np.concatenate([counts, counts, 3 * counts, 7 * counts, 1000 * counts]).astype(dtype)
        rows = sp.csr_array(x)
        limit = (
            1e-15 if measure in ("js_distance", "hellinger_distance", "total_variation") else 1e-30
        )
        for other in (None, rows.copy(), x):
            matrix = fastinfo.pairwise(rows, other, measure, **options)
            equal = (x[:, None] == x[None]).all(-1)
            assert (matrix[equal] == 0).all()
            assert not np.signbit(matrix[equal]).any()
            same = np.arange(15)[:, None] % 3 == np.arange(15) % 3
            assert (abs(matrix[same]) < limit).all()


@pytest.mark.parametrize(
    ("measure", "options"), PARAMETERS, ids=lambda v: v if isinstance(v, str) else repr(v)
)
def test_supports(rng, measure, options):
    """Disjoint, inside, equal, and with one bin more at either end."""
    for dtype in WIDE_FLOATS:
        x = np.zeros((8, 30), dtype)
        x[0, :10] = x[1, 10:] = x[2, ::2] = 1
        x[3, :11] = x[4, 9:] = x[5] = 2
        x[6, 29] = x[7, 0] = 3
        x *= rng.uniform(0.5, 1, x.shape).astype(dtype)
        matrix = check(x, None, measure, **options)
        check(x, x[::-1].copy(), measure, **options)
        dense = fastinfo.pairwise(x, None, measure, **options)
        assert_same_bits(np.isinf(matrix), np.isinf(dense))


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_one_bin(measure):
    x = sp.csr_array([[1.0], [5.0], [0.0]])
    matrix = fastinfo.pairwise(x, sp.csr_array([[2.0], [3.0]]), measure)
    assert_same_bits(matrix, np.array([[0.0, 0], [0, 0], [np.nan, np.nan]]))


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_a_million_bins(rng, measure):
    """Three entries a row: nothing that is as large as the dense rows."""
    k, n = 10**6, 60
    at = np.sort(np.array([rng.choice(k, 3, replace=False) for _ in range(n)]), axis=1)
    at[::2] = at[0]
    data = rng.uniform(0.5, 1, (n, 3))
    x = sp.csr_array((data.ravel(), at.ravel(), 3 * np.arange(n + 1)), shape=(n, k))
    used = np.unique(at)
    dense = x[:, used].toarray()
    exact = oracles.pairwise(dense[:8], dense, measure)
    actual = fastinfo.pairwise(x, None, measure)
    assert_close_measure(measure, actual[:8], exact, np.float64)
    for call in (
        lambda: fastinfo.pairwise(x, None, measure),
        lambda: fastinfo.pairwise(x, x, measure),
        lambda: fastinfo.nearest(x, None, 3, measure),
        lambda: fastinfo.within(x, None, 0.5, measure),
    ):
        assert peak(call) < 8 * n * k / 8


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_tiny_and_huge_entries(rng, measure):
    """Sums beyond the largest float64, subnormal entries, and both beside each other."""
    huge, tiny = np.finfo(np.float64).max, np.finfo(np.float64).smallest_subnormal
    pattern = filled(rng, 4, 30, share=0.6) + 0.5
    x = np.concatenate([pattern * (huge / 3), rng.integers(1, 99, (3, 30)) * tiny, pattern])
    assert np.isinf(sum(map(float, x[0])))
    rows = sp.csr_array(x)
    before = rows.data.copy()
    scaled = np.concatenate([pattern, x[4:7] / tiny, pattern])
    exact = oracles.pairwise(scaled, scaled, measure)
    for other in (None, rows.copy(), x):
        matrix = fastinfo.pairwise(rows, other, measure)
        np.testing.assert_allclose(
            matrix,
            exact.astype(float),
            rtol=1e-12,
            atol=1e-14 if measure not in ("js_distance", "hellinger_distance") else 1e-15,
        )
    assert_same_bits(rows.data, before)
    small = (x[7:] * np.float32(1e38)).astype(np.float32)
    check(small, None, measure)


# Kinds of input -------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence", "total_variation"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(rng, measure, form):
    x, y = filled(rng, 9, 40), filled(rng, 7, 40)
    made = FORMS[form]
    expected = fastinfo.pairwise(sp.csr_array(x), sp.csr_array(y), measure)
    assert_same_bits(fastinfo.pairwise(made(x), made(y), measure), expected)
    assert_same_bits(fastinfo.pairwise(x, made(y), measure), expected)
    assert_same_bits(fastinfo.pairwise(made(x), y, measure), expected)
    assert_same_bits(fastinfo.pairwise(made(x), y.tolist(), measure), expected)
    found = fastinfo.nearest(made(x), made(y), 3, measure)
    assert_same_bits(found.distances, np.sort(expected, 1)[:, :3])


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float32",
                                   "float64", ">f8", ">f4", ">i4", "<f8"])  # fmt: skip
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_dtypes(rng, measure, dtype, index):
    dtype = np.dtype(dtype)
    x, y = filled(rng, 6, 30, dtype), filled(rng, 5, 30, dtype)
    native = dtype.newbyteorder("=")
    rows = [sp.csr_array(v.astype(native)) for v in (x, y)]
    for v in rows:
        v.data = v.data.astype(dtype)
        v.indices, v.indptr = v.indices.astype(index), v.indptr.astype(index)
    actual = fastinfo.pairwise(*rows, measure)
    assert_close_measure(measure, actual, oracles.pairwise(x, y, measure), native)
    fastinfo.nearest(*rows, 2, measure)
    assert rows[0].data.dtype == dtype
    assert rows[0].indices.dtype == index


@pytest.mark.parametrize("dtype", cases.FLOATS, ids=str)
def test_one_side_dense(rng, dtype):
    x, y = filled(rng, 6, 30, np.float32), filled(rng, 5, 30, dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    exact = oracles.pairwise(x, y, "js_divergence")
    actual = fastinfo.pairwise(sp.csr_array(x), y)
    assert_close_measure("js_divergence", actual, exact, wide)
    assert_close_measure("js_divergence", fastinfo.pairwise(y, sp.csr_array(x)), exact.T, wide)


def test_one_side_torch(rng):
    torch = pytest.importorskip("torch")
    x, y = filled(rng, 6, 30), filled(rng, 5, 30)
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        tensor = torch.tensor(x).to(kind)
        left = fastinfo.pairwise(tensor, sp.csr_array(y))
        assert isinstance(left, torch.Tensor)
        assert isinstance(fastinfo.nearest(tensor, sp.csr_array(y)).indices, torch.Tensor)
        right = fastinfo.pairwise(sp.csr_array(y), tensor)
        assert isinstance(right, np.ndarray)
        np.testing.assert_allclose(left.numpy(), right.T, rtol=1e-6)
        assert isinstance(fastinfo.within(tensor, sp.csr_array(y), 0.3), sp.csr_array)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_duplicates_in_any_order(rng, measure, index):
    """Summed, and the caller's arrays stay as they are; zeros that are stored do not count."""
    x, y = filled(rng, 6, 30), filled(rng, 7, 30)
    x, y = np.ceil(x * 16) * 4, np.ceil(y * 16) * 4
    rows = disordered(rng, x, index), disordered(rng, y, index)
    before = [[v.copy() for v in (r.data, r.indices, r.indptr)] for r in rows]
    expected = fastinfo.pairwise(sp.csr_array(x), sp.csr_array(y), measure)
    assert_same_bits(fastinfo.pairwise(*rows, measure), expected)
    fastinfo.nearest(rows[0], None, 2, measure)
    fastinfo.within(*rows, 0.3, measure)
    for r, parts in zip(rows, before, strict=True):
        for v, old in zip((r.data, r.indices, r.indptr), parts, strict=True):
            assert_same_bits(v, old)
    assert not rows[0].has_canonical_format


def test_duplicates_of_small_integers_do_not_overflow():
    x = sp.csr_array((np.array([200, 100, 50], np.uint8), [1, 1, 0], [0, 3]), shape=(1, 2))
    expected = fastinfo.pairwise([[50, 300]], [[1, 1]], "kl_divergence")
    actual = fastinfo.pairwise(x, [[1, 1]], "kl_divergence")
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_read_only_input(rng):
    x = sp.csr_array(filled(rng, 5, 20))
    for v in (x.data, x.indices, x.indptr):
        v.flags.writeable = False
    assert fastinfo.pairwise(x).shape == (5, 5)
    assert fastinfo.nearest(x).indices.shape == (5, 1)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_invalid_rows(rng, measure):
    """Empty rows, rows of stored zeros, NaN and inf: NaN in their pairs, and in those only."""
    x = filled(rng, 8, 30)
    x[1], x[3, 4], x[5, 0], x[6] = 0, np.nan, np.inf, 0
    rows = sp.csr_array(x)
    rows = sp.csr_array(
        (np.append(rows.data, 0), np.append(rows.indices, 3), np.append(rows.indptr, rows.nnz + 1)),
        shape=(9, 30),
    )
    x = np.concatenate([x, np.zeros((1, 30))])
    invalid = np.isin(np.arange(9), [1, 3, 5, 6, 8])
    for other in (None, rows, x):
        matrix = fastinfo.pairwise(rows, other, measure)
        assert_same_bits(np.isnan(matrix), invalid[:, None] | invalid)
        exact = oracles.pairwise(x[~invalid], x[~invalid], measure)
        assert_close_measure(measure, matrix[~invalid][:, ~invalid], exact, np.float64)
    distances, indices = fastinfo.nearest(rows, None, 8, measure)
    assert (indices[invalid] == -1).all()
    assert np.isnan(distances[invalid]).all()
    assert (indices[~invalid][:, 3:] == np.flatnonzero(invalid)).all()
    assert np.isnan(distances[:, 3:]).all()
    near = fastinfo.within(rows, None, np.inf, measure)
    assert near.nnz == 4 * 3


def test_negative_entries_are_told_with_their_position(rng):
    x = filled(rng, 5, 20)
    x[3, 7] = -0.25
    for rows in (sp.csr_array(x), sp.coo_array(x), sp.csc_matrix(x)):
        for call in (fastinfo.pairwise, fastinfo.nearest, within_1):
            with pytest.raises(
                ValueError, match=r"x must be at least 0, got -0.25 at position \(3, 7\)"
            ):
                call(rows)
            with pytest.raises(ValueError, match=r"y must be at least 0.*\(3, 7\)"):
                call(abs(x), rows)
            with pytest.raises(ValueError, match=r"x must be at least 0.*\(3, 7\)"):
                call(x, abs(rows))
    x[3, 7], x[1, 2] = np.nan, -np.inf
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        fastinfo.pairwise(sp.csr_array(x))
    counts = sp.csr_array(np.array([[1, 0], [0, -3]], np.int8))
    with pytest.raises(ValueError, match=r"-3.*\(1, 1\)"):
        fastinfo.pairwise(counts)


def test_entries_are_judged_by_their_sum():
    """A duplicate below 0 that leaves the bin at least 0 is a number like any other."""
    x = sp.csr_array(([3.0, -1.0, 1.0], [0, 0, 1], [0, 3]), shape=(1, 2))
    assert_same_bits(
        fastinfo.pairwise(x, [[1.0, 2.0]]), fastinfo.pairwise(sp.csr_array([[2.0, 1]]), [[1.0, 2]])
    )


@pytest.mark.parametrize("kind", [np.complex128, np.longdouble])
def test_kinds_of_numbers(kind):
    with pytest.raises(TypeError, match="x must hold real numbers"):
        fastinfo.pairwise(sp.csr_array(np.eye(3, dtype=kind)))


def test_shapes():
    x = sp.csr_array(np.eye(3))
    with pytest.raises(ValueError, match="same number of bins"):
        fastinfo.pairwise(x, np.eye(4))
    with pytest.raises(ValueError, match="two dimensions"):
        fastinfo.pairwise(x, np.ones(3))
    with pytest.raises(ValueError, match="two dimensions"):
        fastinfo.pairwise(sp.coo_array(np.ones(3)))
    with pytest.raises(ValueError, match="bin"):
        fastinfo.pairwise(sp.csr_array((3, 0)))


@pytest.mark.parametrize("bins", [[0, 3], [-1, 2], [0, 10**6]])
def test_bins_outside_the_matrix(bins):
    """Which SciPy lets pass: an error, and nothing read out of bounds."""
    x = sp.csr_array((np.ones(2), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 3))
    x.indices[:] = bins
    for call in (fastinfo.pairwise, fastinfo.nearest, within_1):
        with pytest.raises(ValueError, match="ind"):
            call(x)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_nothing(measure):
    for dtype in WIDE_FLOATS:
        x, empty = sp.csr_array(np.ones((3, 4), dtype)), sp.csr_array((0, 4), dtype=dtype)
        assert_same_bits(fastinfo.pairwise(empty, x, measure), np.zeros((0, 3), dtype))
        assert_same_bits(fastinfo.pairwise(x, empty, measure), np.zeros((3, 0), dtype))
        assert_same_bits(fastinfo.pairwise(empty, None, measure), np.zeros((0, 0), dtype))
        assert fastinfo.nearest(empty, x, 2, measure).indices.shape == (0, 2)
        assert fastinfo.within(x, empty, 1.0, measure).shape == (3, 0)
    blank = fastinfo.pairwise(sp.csr_array((3, 4)), None, measure)
    assert_same_bits(blank, np.full((3, 3), np.nan))


# Matrices, neighbours, threads ----------------------------------------------------------------


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_out_and_condensed(rng, measure, tmp_path):
    x = sp.csr_array(filled(rng, 40, 60, np.float32))
    y = sp.csr_array(filled(rng, 7, 60, np.float32))
    for other, m in ((None, 40), (y, 7)):
        expected = fastinfo.pairwise(x, other, measure)
        for out in (
            np.full((40, m), np.nan, np.float32),
            np.empty((40, 2 * m), np.float32)[:, ::2],
            np.empty((m, 40), np.float32).T,
            np.memmap(tmp_path / "matrix", np.float32, "w+", shape=(40, m)),
        ):
            assert fastinfo.pairwise(x, other, measure, out=out) is out
            assert_same_bits(np.array(out, order="C"), expected)
    if measure in SYMMETRIC:
        matrix = fastinfo.pairwise(x, None, measure)
        assert_same_bits(matrix.T.copy(), matrix)
        actual = fastinfo.pairwise(x, None, measure, condensed=True)
        assert_same_bits(actual, matrix[np.triu_indices(40, 1)])
    with pytest.raises(ValueError, match="out"):
        fastinfo.pairwise(x, None, measure, out=np.empty((40, 40)))


@pytest.mark.parametrize(
    ("measure", "options"), PARAMETERS, ids=lambda v: v if isinstance(v, str) else repr(v)
)
def test_neighbours(rng, measure, options):
    """What the matrix and a stable sort say, bit by bit: each pair has one way to be computed."""
    for dtype in WIDE_FLOATS:
        x, y = filled(rng, 30, 50, dtype, 0.2), filled(rng, 25, 50, dtype, 0.2)
        x[7], x[20], y[3], y[9] = x[2], x[2], x[2], 0
        rows, others = sp.csr_array(x), sp.csr_array(y)
        # without symmetry, as neighbours are computed
        for matrix, other in (
            (fastinfo.pairwise(rows, rows.copy(), measure, **options), None),
            (fastinfo.pairwise(rows, others, measure, **options), others),
        ):
            order = np.argsort(matrix, axis=1, kind="stable")
            if other is None:
                order = order[order != np.arange(30)[:, None]].reshape(30, 29)
                np.fill_diagonal(matrix, np.nan)
            for k in (1, 4, order.shape[1]):
                found = fastinfo.nearest(rows, other, k, measure, **options)
                assert_same_bits(found.indices, order[:, :k])
                np.testing.assert_array_equal(
                    found.distances, np.take_along_axis(matrix, order[:, :k], 1)
                )
            for radius in (0.0, float(np.nanmedian(matrix)), np.inf):
                near = fastinfo.within(rows, other, radius, measure, **options)
                i, j = np.nonzero(matrix <= radius)
                assert near.has_canonical_format
                assert_same_bits(near.indices.astype(np.int64), j)
                assert_same_bits(np.repeat(np.arange(30), np.diff(near.indptr)), i)
                assert_same_bits(near.data, matrix[i, j])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_any_number_of_threads(rng, measure):
    x = sp.csr_array(filled(rng, 150, 200, np.float32, 0.1))
    y = sp.csr_array(filled(rng, 90, 200, np.float64, 0.1))
    results = []
    for count in (1, 2, 3, 7):
        fastinfo.set_num_threads(count)
        near = fastinfo.within(x, y, 0.3, measure)
        results.append(
            (fastinfo.pairwise(x, None, measure), fastinfo.pairwise(x, y, measure),
             *fastinfo.nearest(x, None, 5, measure), near.data, near.indices, near.indptr)
        )  # fmt: skip
    for result in results[1:]:
        assert_same_bits(result, results[0])


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_agrees_with_dense_rows(rng, measure):
    """Above the thresholds of threads and bands."""
    for dtype in WIDE_FLOATS:
        x, y = filled(rng, 530, 150, dtype, 0.1), filled(rng, 70, 150, dtype, 0.1)
        y[::9] = x[: len(y[::9])] * dtype.type(3)
        rtol = 3e-12 if dtype == np.float64 else 4e-5
        dense = fastinfo.pairwise(x, y, measure)
        actual = fastinfo.pairwise(sp.csr_array(x), sp.csr_array(y), measure)
        np.testing.assert_allclose(actual, dense, rtol, 1e-15)
        actual = fastinfo.pairwise(sp.csr_array(x), y, measure)
        np.testing.assert_allclose(actual, dense, rtol, 1e-15)


def test_progress(rng):
    x = sp.csr_array(filled(rng, 600, 30))
    for call in (fastinfo.pairwise, fastinfo.nearest):
        calls = []
        call(x, progress=lambda *numbers: calls.append(numbers))  # noqa: B023
        done = [numbers[0] for numbers in calls]
        assert done == sorted(done)
        assert calls[-1] == (600, 600)


def test_arrays_that_contradict_each_other():
    good = sp.csr_array(np.array([[0.5, 0.5], [0.2, 0.8], [1, 0]]))
    for part, at, value, message in (
        ("indices", 0, 9, r"x\.indices must be in \[0, 2\), got 9 at position 0"),
        ("indices", 2, -1, r"x\.indices must be in \[0, 2\), got -1 at position 2"),
        ("indptr", 1, 7, "x must be a valid CSR array"),
    ):
        bad = good.copy()
        getattr(bad, part)[at] = value
        with pytest.raises(ValueError, match=message):
            fastinfo.pairwise(bad)
