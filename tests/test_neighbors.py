"""Nearest rows and rows within a radius: what the matrix and a stable sort say, without it."""

import cases
import mpmath
import numpy as np
import oracles
import pytest
import scipy.sparse as sp
from accuracy import assert_close_measure, assert_same_bits, peak, result_dtype
from cases import FLOATS, PAIR_MEASURES, WIDE_FLOATS, WITH_BASE
from scipy.sparse.csgraph import connected_components

import fastinfo
from fastinfo.cpu import neighbors

JS = ("js_divergence", "js_distance")
# Below the vectors of bins, between them and the bound, and where the bound is used.
BINS = (3, 40, 300)
PARAMETERS = (
    *((measure, {}) for measure in PAIR_MEASURES),
    *((measure, {"base": 2}) for measure in WITH_BASE),
    *((measure, {"normalize": False}) for measure in PAIR_MEASURES),
    ("js_divergence", {"weights": (0.2, 0.8)}),
    ("js_divergence", {"weights": (3, 1), "base": 10.0}),
    *(("renyi_divergence", {"alpha": alpha}) for alpha in (0.0, 0.3, 0.5, 1.0, 2.0, np.inf)),
    ("renyi_divergence", {"alpha": 0.7, "normalize": False}),
)
KINDS = [*FLOATS, *map(np.dtype, ("int64", "uint8"))]


def each_parameter(function):
    return pytest.mark.parametrize(
        ("measure", "options"), PARAMETERS, ids=lambda v: v if isinstance(v, str) else repr(v)
    )(function)


@pytest.fixture(params=["usual", "always", "never"])
def blocks(request, monkeypatch):
    """Small bands and blocks, with a bound that is always, or never, worth its while."""
    if request.param != "usual":
        monkeypatch.setattr(neighbors, "BAND", 7)
        monkeypatch.setattr(neighbors, "BLOCK_BYTES", 1)
        monkeypatch.setattr(neighbors, "LEAST_BLOCK", 11)
        monkeypatch.setattr(neighbors, "WORTH", 1.0 if request.param == "always" else 0.0)
    return request.param


def rows_of(rng, n, k, dtype, alpha=0.3):
    """Return clusters of rows, all bins filled, in any dtype."""
    dtype = np.dtype(dtype)
    centres = rng.dirichlet(np.full(k, alpha), max(1, n // 5))[rng.integers(0, max(1, n // 5), n)]
    x = centres * rng.uniform(0.5, 1, (n, k)) + 1e-4
    return (x * 200 + 1).astype(dtype) if dtype.kind in "biu" else x.astype(dtype)


def sorted_matrix(matrix, leave_out):
    """Return distances and indices of all candidates, by a stable sort; NaN last."""
    n, m = matrix.shape
    indices = np.argsort(matrix, axis=1, kind="stable")
    if leave_out:
        indices = indices[indices != np.arange(n)[:, None]].reshape(n, m - 1)
    return np.take_along_axis(matrix, indices, 1), indices


def check_nearest(x, y, k, measure, include_self=False, **options):
    """Compare with the sorted matrix, distances by their accuracy and indices by distances."""
    found = fastinfo.nearest(x, y, k, measure, include_self=include_self, **options)
    matrix = fastinfo.pairwise(x, y, measure, **options)
    n, leave_out = len(matrix), y is None and not include_self
    distances, indices = found
    assert indices.dtype == np.int64
    assert distances.dtype == matrix.dtype
    assert distances.shape == indices.shape == (n, k)
    expected, order = sorted_matrix(matrix, leave_out)
    invalid = np.isnan(matrix).all(1)
    order[invalid] = -1
    rtol = 1e-10 if matrix.dtype == np.float64 else 1e-4
    near = 1e-10 if matrix.dtype == np.float64 else 1e-9
    if measure.startswith("js_distance") or measure.startswith("hellinger"):
        near = near**0.5
    np.testing.assert_allclose(distances, expected[:, :k], rtol, near)
    for i in np.flatnonzero(~invalid):
        assert len(set(indices[i])) == k
        assert not (leave_out and i in indices[i])
        # what the matrix says of the pairs that were chosen
        np.testing.assert_allclose(matrix[i, indices[i]], distances[i], rtol, near)
        ties = (distances[i, 1:] == distances[i, :-1]) | np.isnan(distances[i, :-1])
        assert (indices[i, 1:] > indices[i, :-1])[ties].all()
    assert (indices[invalid] == -1).all()
    assert np.isnan(distances[invalid]).all()
    rising = distances[:, 1:] >= distances[:, :-1]
    assert (rising | np.isnan(distances[:, 1:])).all()
    # where the matrix knows an order beyond rounding, it is the same order
    with np.errstate(invalid="ignore"):
        limit = expected[:, :-1] + 2 * (rtol * abs(expected[:, 1:]) + near)
        apart = expected[:, 1:] > limit
    apart |= np.isfinite(expected[:, :-1]) & ~np.isfinite(expected[:, 1:])
    clear = np.ones(expected.shape, bool)
    clear[:, 1:] &= apart
    clear[:, :-1] &= apart
    assert_same_bits(np.where(clear, order, 0)[:, :k], np.where(clear[:, :k], indices, 0))
    return found


def check_within(x, y, radius, measure, include_self=False, **options):
    """Compare with the matrix: all that are inside beyond rounding, none that are outside."""
    found = fastinfo.within(x, y, radius, measure, include_self=include_self, **options)
    matrix = fastinfo.pairwise(x, y, measure, **options)
    check_form(found, matrix.shape, matrix.dtype)
    if y is None and not include_self:
        np.fill_diagonal(matrix, np.nan)
    stored = np.zeros(matrix.shape, bool)
    lines = np.repeat(np.arange(len(matrix)), np.diff(found.indptr))
    stored[lines, found.indices] = True
    assert (found.data <= radius).all()
    rtol = 1e-10 if matrix.dtype == np.float64 else 1e-4
    near = 1e-10 if matrix.dtype == np.float64 else 1e-9
    if measure in ("js_distance", "hellinger_distance"):
        near = near**0.5
    with np.errstate(invalid="ignore"):
        clear = (abs(matrix - radius) > rtol * radius + near) | ~np.isfinite(matrix)
    clear |= np.isinf(radius)
    assert_same_bits((stored & clear), (matrix <= radius) & clear)
    np.testing.assert_allclose(found.data, matrix[lines, found.indices], rtol, near)
    return found


def check_form(found, shape, dtype):
    assert isinstance(found, sp.csr_array)
    assert found.shape == shape
    assert found.dtype == dtype
    for part in (found.indices, found.indptr, found.data):
        assert part.flags.c_contiguous
    again = sp.csr_array((found.data, found.indices, found.indptr), shape=shape)
    assert again.has_canonical_format
    assert again.has_sorted_indices
    again.check_format(full_check=True)
    if shape[0] == shape[1] > 0:
        connected_components(found, directed=False)


# Against the matrix ---------------------------------------------------------------------------


@each_parameter
@pytest.mark.parametrize("bins", BINS)
def test_every_measure(rng, measure, options, bins):
    for dtype in WIDE_FLOATS:
        x, y = (rows_of(rng, n, bins, dtype) for n in (23, 31))
        if not options.get("normalize", True):
            x, y = x * 3, y * 3
        for other, own in ((None, False), (None, True), (y, False)):
            matrix = fastinfo.pairwise(x, other, measure, **options)
            check_nearest(x, other, 4, measure, own, **options)
            radius = max(0.0, float(np.nanquantile(matrix, 0.3)))
            check_within(x, other, radius, measure, own, **options)


@pytest.mark.parametrize("measure", ["kl_divergence", "total_variation", *JS])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("bins", BINS)
def test_dtypes(rng, measure, dtype, bins):
    x, y = rows_of(rng, 20, bins, dtype), rows_of(rng, 15, bins, dtype)
    for other in (None, y):
        distances, _ = check_nearest(x, other, 5, measure)
        assert distances.dtype == result_dtype(dtype)
        radius = float(np.median(distances))
        check_within(x, other, radius, measure)


@pytest.mark.parametrize("measure", JS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_bound_in_small_blocks(rng, blocks, measure, dtype):
    """Blocks of rows of y that come one after the other, whose limits are known bit by bit."""
    x, y = rows_of(rng, 40, 300, dtype, 0.05), rows_of(rng, 53, 300, dtype, 0.05)
    for other, own in ((None, False), (None, True), (y, False)):
        for k in (1, 3, 12, 39):
            check_nearest(x, other, k, measure, own)
        for radius in (0.0, 1e-3, 0.05, 0.2, 0.6, 0.9):
            check_within(x, other, radius, measure, own)


@pytest.mark.parametrize("measure", JS)
def test_rows_that_bounds_order_otherwise(rng, blocks, measure):
    x, y = cases.rows_that_bounds_order_otherwise(rng, 50)
    assert fastinfo.nearest(x, y, 1, measure).indices.tolist() == [[1]]


@pytest.mark.parametrize("measure", JS)
@pytest.mark.parametrize("alpha", [0.003, 0.1, 1.0, 1e2, 1e4, 1e6])
def test_the_bound_at_any_concentration(rng, blocks, measure, alpha):
    """Rows nearly disjoint to nearly equal: nothing that is near may be left out."""
    for dtype in WIDE_FLOATS:
        x, y = (rng.dirichlet(np.full(200, alpha), n).astype(dtype) for n in (20, 45))
        check_nearest(x, None, 3, measure)
        check_nearest(x, y, 3, measure)
        check_within(x, y, float(np.median(fastinfo.pairwise(x, y, measure))), measure)


@pytest.mark.parametrize("measure", JS)
def test_the_bound_of_nearly_equal_rows(rng, blocks, measure):
    """Differences that are lost in the rounding of the product which makes the bound."""
    for noise in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12):
        x = np.repeat(rng.dirichlet(np.ones(200), 3), 15, axis=0)
        x *= 1 + noise * np.arange(45)[:, None] * rng.uniform(-1, 1, x.shape)
        expected = np.sort(fastinfo.pairwise(x, None, measure) + np.diag(np.full(45, np.nan)), 1)
        distances = fastinfo.nearest(x, None, 4, measure).distances
        allowed = 1e-11 * np.maximum(distances, np.sqrt(1e-7 * distances))
        assert (abs(distances - expected[:, :4]) <= allowed).all()


@pytest.mark.parametrize("measure", JS)
def test_the_bound_of_tiny_and_huge_entries(rng, blocks, measure):
    for dtype in WIDE_FLOATS:
        limits = np.finfo(dtype)
        small = rng.integers(1, 1000, (10, 200)) * limits.smallest_subnormal
        large = rng.uniform(0, 1, (10, 200)) * limits.max / 256
        wide = 10.0 ** rng.uniform(-37 if dtype == np.float32 else -300, 0, (10, 200))
        x = np.concatenate([small, large, wide]).astype(dtype)
        check_nearest(x, None, 4, measure)
        check_within(x, None, 0.3, measure)


@pytest.mark.parametrize("measure", ["js_divergence", "hellinger_distance"])
def test_blocks_of_any_measure(rng, blocks, measure):
    for bins in (3, 40):
        x = rows_of(rng, 40, bins, np.float64)
        check_nearest(x, None, 5, measure)
        check_within(x, None, 0.1, measure)


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence", "total_variation"])
@pytest.mark.parametrize("bins", BINS)
def test_any_number_of_neighbours(rng, measure, bins):
    x, y = rows_of(rng, 9, bins, np.float32), rows_of(rng, 13, bins, np.float32)
    for k in range(1, 9):
        check_nearest(x, None, k, measure)
    for k in range(1, 10):
        check_nearest(x, None, k, measure, include_self=True)
    for k in range(1, 14):
        check_nearest(x, y, k, measure)


@pytest.mark.parametrize("measure", JS)
@pytest.mark.parametrize("base", [0.5, 2, 10.0, 1e-3])
@pytest.mark.parametrize("bins", [40, 300])
def test_bases(rng, blocks, measure, base, bins):
    """Below 1 a base makes divergences negative, the farthest the smallest, and roots NaN."""
    x = rows_of(rng, 30, bins, np.float64, 0.05)
    matrix = fastinfo.pairwise(x, None, measure, base=base)
    np.fill_diagonal(matrix, np.nan)
    found = fastinfo.nearest(x, None, 3, measure, base=base)
    if np.isnan(matrix).all():
        assert np.isnan(found.distances).all()
        others = [[j for j in range(30) if j != i][:3] for i in range(30)]
        assert_same_bits(found.indices, np.array(others))
    else:
        np.testing.assert_allclose(found.distances, np.sort(matrix, 1)[:, :3], rtol=1e-11)
    for radius in (0.0, 0.05, np.inf):
        near = fastinfo.within(x, None, radius, measure, base=base)
        assert near.nnz == (matrix <= radius).sum()


@pytest.mark.parametrize("measure", JS)
def test_accuracy_of_distances(rng, measure):
    for dtype in WIDE_FLOATS:
        x, y = rows_of(rng, 6, 300, dtype), rows_of(rng, 8, 300, dtype)
        y[:3] = x[:3] * (1 + dtype.type(1e-3) * rng.uniform(-1, 1, (3, 300)).astype(dtype))
        distances, indices = fastinfo.nearest(x, y, 8, measure)
        exact = oracles.pairwise(x, y, measure)
        assert_close_measure(measure, distances, np.take_along_axis(exact, indices, 1), dtype)


# Ties -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", PAIR_MEASURES[1:])
@pytest.mark.parametrize("bins", BINS)
def test_duplicates_come_in_order(rng, blocks, measure, bins):
    """Equal rows are exactly 0 apart, so they come in the order of their indices."""
    for dtype in WIDE_FLOATS:
        x = rows_of(rng, 8, bins, dtype)[rng.integers(0, 8, 30)]
        equal = (x[:, None] == x[None]).all(-1)
        distances, indices = fastinfo.nearest(x, None, 30, measure, include_self=True)
        near = fastinfo.within(x, None, 0.0, measure, include_self=True)
        for i in range(30):
            same = np.flatnonzero(equal[i])
            assert_same_bits(indices[i, : len(same)], same)
            assert (distances[i, : len(same)] == 0).all()
            assert (distances[i, len(same) :] > 0).all()
            assert_same_bits(near.indices[near.indptr[i] : near.indptr[i + 1]].astype(int), same)
        assert near.nnz == equal.sum()
        assert (near.data == 0).all()
        check_nearest(x, None, 4, measure)
        check_within(x, None, 0.0, measure)


@pytest.mark.parametrize("values", [(0.1, 1.0), (0.5, 1.0)])
def test_the_bound_is_safe_against_the_rounding_of_products(rng, values, monkeypatch):
    """BLAS adds the terms of rows of two values with errors that all go one way."""
    monkeypatch.setattr(neighbors, "WORTH", 1.0)
    x = rng.choice(values, (600, 300)).astype(np.float32)
    near = fastinfo.within(x, None, 0.0, include_self=True)
    assert_same_bits(near.indices.astype(int), np.arange(600))
    assert (near.data == 0).all()


@pytest.mark.parametrize("measure", JS)
@pytest.mark.parametrize("bins", BINS)
def test_equal_distances_come_in_order(rng, blocks, measure, bins):
    """Duplicates of rows that are not the query: bins, not products, so bits are equal too."""
    x = rows_of(rng, 6, bins, np.float64)
    y = rows_of(rng, 7, bins, np.float64)[rng.integers(0, 7, 40)]
    expected, order = sorted_matrix(fastinfo.pairwise(x, y, measure), False)
    for k in (1, 2, 5, 20, 40):
        distances, indices = check_nearest(x, y, k, measure)
        np.testing.assert_allclose(distances, expected[:, :k], rtol=1e-11)
        assert_same_bits(indices, order[:, :k])


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_disjoint_rows_tie(measure):
    """One filled bin each: all others are equally far, for some measures infinitely."""
    for bins in (20, 300):
        x = np.eye(20, bins)
        others = np.arange(20)
        expected = [np.delete(others, i) for i in others]
        distances, indices = check_nearest(x, None, 19, measure)
        if measure == "hellinger_distance":  # of a matrix product, equal but for the last bits
            np.testing.assert_allclose(distances, 1, rtol=1e-12)
            continue
        assert_same_bits(indices, np.array(expected))
        assert (distances == distances[0, 0]).all()
        assert distances[0, 0] > 0
        indices = fastinfo.nearest(x, None, 4, measure, include_self=True).indices
        assert_same_bits(indices[:, 0], others)
        assert_same_bits(indices[:, 1:], np.array(expected)[:, :3])


@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence", "jeffreys_divergence"])
@pytest.mark.parametrize("bins", BINS)
def test_infinite_distances(rng, blocks, measure, bins):
    x = rows_of(rng, 12, bins, np.float64)
    x[::2, 0] = 0
    x[::3, -1] = 0
    found = check_nearest(x, None, 11, measure)
    assert np.isinf(found.distances).any()
    assert np.isfinite(found.distances[:, 0]).all()
    check_within(x, None, np.inf, measure)
    check_within(x, None, 1e300, measure)
    assert fastinfo.within(x, None, np.inf, measure).nnz == 12 * 11
    assert np.isfinite(fastinfo.within(x, None, 1e300, measure).data).all()


# Invalid rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("bins", BINS)
def test_invalid_rows(rng, blocks, measure, bins):
    """Queries that are none have no neighbours; candidates that are none come last, in order."""
    x, y = rows_of(rng, 15, bins, np.float64), rows_of(rng, 17, bins, np.float64)
    x[2], x[5, 1], x[11, 0] = 0, np.nan, np.inf
    y[0], y[7, 1], y[16, 2] = 0, np.nan, np.inf
    for k in (1, 13, 14, 15, 16, 17):
        distances, indices = check_nearest(x, y, k, measure)
        assert (indices[[2, 5, 11]] == -1).all()
        if k > 14:
            valid = np.delete(indices, [2, 5, 11], axis=0)
            assert (valid[:, 14:] == [0, 7, 16][: k - 14]).all()
            assert np.isnan(distances[:, 14:]).all()
    for k in (1, 11, 12, 13, 14):
        check_nearest(x, None, k, measure)
    check_nearest(x, None, 15, measure, include_self=True)
    for own in (False, True):
        near = check_within(x, None, np.inf, measure, own)
        assert near.nnz == 12 * (12 if own else 11)
    assert check_within(x, y, np.inf, measure).nnz == 12 * 14


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence"])
def test_all_rows_invalid(measure):
    for bins in (3, 300):
        x = np.zeros((4, bins))
        distances, indices = fastinfo.nearest(x, None, 3, measure)
        assert np.isnan(distances).all()
        assert (indices == -1).all()
        assert fastinfo.within(x, None, np.inf, measure).nnz == 0
        distances, indices = fastinfo.nearest(np.ones((2, bins)), x, 3, measure)
        assert np.isnan(distances).all()
        assert (indices == [0, 1, 2]).all()


def test_zero_rows_as_the_formula_stands(rng):
    x = rows_of(rng, 6, 300, np.float64)
    x[3] = 0
    check_nearest(x, None, 5, "js_divergence", normalize=False)
    check_within(x, None, np.inf, "js_divergence", normalize=False)


# Arguments ------------------------------------------------------------------------------------


def test_defaults(rng):
    x = rng.dirichlet(np.ones(20), 10)
    assert_same_bits(fastinfo.nearest(x), fastinfo.nearest(x, None, 1, "js_divergence"))
    assert fastinfo.nearest(x).distances.shape == (10, 1)


@pytest.mark.parametrize("k", [0, -1, -(10**30), 10, 10**30])
def test_too_few_or_many_neighbours(k):
    x = np.eye(10) + 1
    with pytest.raises(ValueError, match=rf"k must be in \[1, 9\].*got {k}"):
        fastinfo.nearest(x, None, k)
    fastinfo.nearest(x, None, 10, include_self=True)
    fastinfo.nearest(x, x, 10)
    with pytest.raises(ValueError, match=r"k must be in \[1, 4\]"):
        fastinfo.nearest(x, x[:4], 5)


@pytest.mark.parametrize("k", [1.0, 2.5, "3", None, [1], np.float64(2)])
def test_number_of_neighbours_is_an_integer(k):
    with pytest.raises(TypeError, match="k must be an integer"):
        fastinfo.nearest(np.eye(5), None, k)


def test_no_other_row():
    with pytest.raises(ValueError, match="k must be at most the number of other rows, 0, got 1"):
        fastinfo.nearest(np.ones((1, 3)))
    assert_same_bits(
        fastinfo.nearest(np.ones((1, 3)), include_self=True).indices, np.zeros((1, 1), int)
    )
    with pytest.raises(ValueError, match="k must be at most the number of rows of y, 0, got 1"):
        fastinfo.nearest(np.ones((2, 3)), np.ones((0, 3)))


@pytest.mark.parametrize("radius", [-1.0, -1e-300, np.nan, -np.inf])
def test_radius_is_at_least_0(radius):
    with pytest.raises(ValueError, match="radius must be"):
        fastinfo.within(np.eye(3), None, radius)


@pytest.mark.parametrize("radius", ["1", [1.0], 1j])
def test_radius_is_a_number(radius):
    with pytest.raises(TypeError, match="radius"):
        fastinfo.within(np.eye(3), None, radius)


def test_radius_is_needed():
    with pytest.raises(TypeError, match="radius"):
        fastinfo.within(np.eye(3))


@pytest.mark.parametrize("measure", PAIR_MEASURES)
@pytest.mark.parametrize("radius", [1e200, 1e308, 5e-324, np.float32(30), 30, np.inf])
def test_any_radius(rng, measure, radius):
    for bins in (3, 300):
        x = rows_of(rng, 6, bins, np.float64)
        near = fastinfo.within(x, None, radius, measure)
        assert near.nnz == (30 if radius > 1 else 0)


@pytest.mark.parametrize(
    "call", [fastinfo.nearest, lambda x, y=None, **o: fastinfo.within(x, y, 1.0, **o)]
)
def test_errors_of_the_matrix(call):
    x = np.eye(4)
    with pytest.raises(ValueError, match="js_distance"):
        call(x, measure="jensenshannon")
    with pytest.raises(TypeError, match="no parameter 'alpha'"):
        call(x, alpha=2.0)
    with pytest.raises(TypeError, match="alpha"):
        call(x, measure="renyi_divergence")
    with pytest.raises(ValueError, match="at least 0"):
        call(x - 0.5)
    with pytest.raises(ValueError, match="same number of bins"):
        call(x, np.eye(3))
    with pytest.raises(ValueError, match="two dimensions"):
        call(x[0])
    with pytest.raises(ValueError, match="base"):
        call(x, base=1.0)
    with pytest.raises(TypeError, match="base"):
        call(x, measure="total_variation", base=2)
    with pytest.raises(TypeError, match="progress"):
        call(x, progress=3)


def test_nothing():
    for bins in (3, 300):
        for dtype in FLOATS:
            x, empty = np.ones((3, bins), dtype), np.ones((0, bins), dtype)
            kind = result_dtype(dtype)
            for y in (None, x, empty):
                distances, indices = fastinfo.nearest(empty, y, 2)
                assert_same_bits(distances, np.zeros((0, 2), kind))
                assert_same_bits(indices, np.zeros((0, 2), np.int64))
                near = fastinfo.within(empty, y, 1.0)
                check_form(near, (0, 3 if y is x else 0), kind)
            check_form(fastinfo.within(x, empty, 1.0), (3, 0), kind)


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence"])
@pytest.mark.parametrize("other", [False, True])
def test_progress(rng, blocks, measure, other):
    x = rows_of(rng, 40, 300, np.float64)
    y = x[:29] if other else None
    for call in (
        lambda **o: fastinfo.nearest(x, y, 3, measure, **o),
        lambda **o: fastinfo.within(x, y, 0.3, measure, **o).data,
    ):
        calls = []
        actual = call(progress=lambda *numbers: calls.append(numbers))  # noqa: B023
        assert_same_bits(actual, call())
        done = [numbers[0] for numbers in calls]
        assert done == sorted(done)
        assert calls[-1] == (40, 40)
        assert {numbers[1] for numbers in calls} == {40}


def test_layouts_and_inputs_kept(rng):
    for name, turned in cases.LAYOUTS.items():
        x, y = rows_of(rng, 12, 300, np.float32), rows_of(rng, 9, 300, np.float32)
        one, two = turned(x), turned(y)
        expected = fastinfo.nearest(x, y, 3)
        found = fastinfo.nearest(one, two, 3)
        np.testing.assert_array_equal(found.indices, expected.indices, name)
        np.testing.assert_array_equal(found.distances, expected.distances, name)
        near = fastinfo.within(one, two, 0.1)
        assert (near != fastinfo.within(x, y, 0.1)).nnz == 0
        np.testing.assert_array_equal(one, x)
        np.testing.assert_array_equal(two, y)


def test_torch(rng):
    torch = pytest.importorskip("torch")
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        x, y = (torch.tensor(rows_of(rng, n, 300, np.float64)).to(kind) for n in (10, 8))
        for other in (None, y):
            distances, indices = fastinfo.nearest(x, other, 3)
            assert isinstance(distances, torch.Tensor)
            assert indices.dtype == torch.int64
            wide = torch.float64 if kind == torch.float64 else torch.float32
            assert distances.dtype == wide
            arrays = [None if t is None else t.to(wide).numpy() for t in (x, other)]
            expected = fastinfo.nearest(*arrays, 3)
            np.testing.assert_array_equal(indices.numpy(), expected.indices)
            rtol = 1e-11 if kind == torch.float64 else 1e-4
            np.testing.assert_allclose(distances.numpy(), expected.distances, rtol)
            near = fastinfo.within(x, other, 0.2)
            check_form(near, (10, 10 if other is None else 8), distances.numpy().dtype)


# Threads and memory ---------------------------------------------------------------------------


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("measure", ["kl_divergence", "total_variation", *JS])
def test_any_number_of_threads(rng, measure):
    for bins in BINS:
        x = rows_of(rng, 150, bins, np.float32, 0.05)
        results = []
        for count in (1, 2, 3, 7):
            fastinfo.set_num_threads(count)
            near = fastinfo.within(x, None, 0.1, measure)
            results.append(
                (*fastinfo.nearest(x, None, 5, measure), near.data, near.indices, near.indptr)
            )
        for result in results[1:]:
            assert_same_bits(result, results[0])


@pytest.mark.parametrize(("measure", "bins"), [("js_divergence", 10), ("js_divergence", 140),
                                               ("hellinger_distance", 10)])  # fmt: skip
def test_memory(rng, monkeypatch, measure, bins):
    """Far below n times m numbers."""
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 1 << 16)
    n, m = 1500, 4000
    x, y = (rng.dirichlet(np.full(bins, 0.05), r).astype(np.float32) + 1e-6 for r in (n, m))
    matrix = 4 * n * m
    assert peak(lambda: fastinfo.nearest(x, y, 3, measure)) < matrix / 3
    assert peak(lambda: fastinfo.within(x, y, 1e-4, measure)) < matrix / 3


def test_memory_of_many_rows_of_few_bins(rng):
    """Blocks of y are limited by the values of a band, not by their own size alone."""
    x, y = rng.random((200, 2), np.float32), rng.random((400_000, 2), np.float32)
    assert peak(lambda: fastinfo.nearest(x, y, 1, "total_variation")) < 4 * 200 * 400_000 / 4


# The bound ------------------------------------------------------------------------------------


def squared_hellinger_and_js(p, q):
    """Both in long double, from shares and their difference."""
    p, q = (np.longdouble(v) / np.longdouble(v).sum(-1, keepdims=True) for v in (p, q))
    together = np.sqrt(p) + np.sqrt(q)
    h2 = np.where(together == 0, 0, (p - q) / np.where(together == 0, 1, together)) ** 2
    s = p + q
    t = (p - q) / np.where(s == 0, 1, s)
    # ln 2 - H((1 + t) / 2) without cancellation, by the logarithms of 1 + t and 1 - t
    with np.errstate(all="ignore"):
        away = np.where(t == 1, 0, (1 - t) * np.log1p(-t))
        towards = np.where(t == -1, 0, (1 + t) * np.log1p(t))
    series = t**2 / 2 + t**4 / 12 + t**6 / 30 + t**8 / 56
    lost = np.where(abs(t) < 1e-3, series, (towards + away) / 2)
    return h2.sum(-1) / 2, (s * lost).sum(-1) / 2


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0, 1e2, 1e4])
def test_sandwich(rng, alpha):
    """ln 2 · h² <= JS <= h² on random pairs, in long double."""
    for k in (2, 3, 10, 200):
        p, q = rng.dirichlet(np.full(k, alpha), (2, 500))
        p[::3, 0], q[1::3, 0], q[::5] = 0, 0, p[::5] * (1 + 1e-3 * rng.uniform(-1, 1, (100, k)))
        p[..., -1], q[..., -1] = p[..., -1] + 1e-300, q[..., -1] + 1e-300
        h2, js = squared_hellinger_and_js(p, q)
        slack = 1 + np.longdouble(1e-15)
        assert (np.log(np.longdouble(2)) * h2 <= js * slack).all()
        assert (js <= h2 * slack).all()


def test_sandwich_bin_by_bin():
    """To 60 digits: near the ends, where the two sides meet."""
    with mpmath.workdps(60):
        ends = [mpmath.mpf(10) ** -e for e in range(1, 12)]
        for t in [mpmath.mpf(i) / 97 for i in range(1, 97)] + ends + [1 - e for e in ends]:
            h2 = 1 - mpmath.sqrt(1 - t**2)
            entropy = -sum(v * mpmath.log(v) for v in ((1 + t) / 2, (1 - t) / 2))
            js = mpmath.log(2) - entropy
            assert mpmath.log(2) * h2 < js < h2
