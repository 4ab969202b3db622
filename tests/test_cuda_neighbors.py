"""Nearest rows on a device against the processor's matrix and a stable sort.

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1), or on a device (``pytest -m gpu``).
"""

import cases
import numpy as np
import pytest
from cuda_support import DTYPES, host, is_on_device, on_device, skip_without_device, switch_often

import fastinfo

skip_without_device()

from fastinfo.cuda import neighbors  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures(switch_often.__name__)]

MEASURES = [
    ("js_divergence", {}),
    ("js_divergence", {"weights": (0.3, 0.7), "base": 2}),
    ("js_distance", {}),
    ("total_variation", {}),
    ("kl_divergence", {}),
    ("hellinger_distance", {}),
    ("bhattacharyya_distance", {"normalize": False}),
    ("renyi_divergence", {"alpha": np.inf}),
]


def named(case):
    return "-".join([case[0], *(str(v) for v in case[1].values())])


@pytest.fixture
def blocks(monkeypatch):
    """A tile of rows of x meets a tile of rows of y at a time."""
    tile = neighbors.TILE
    monkeypatch.setattr(neighbors, "BAND", tile)
    monkeypatch.setattr(neighbors, "ROOM_BYTES", 1)
    return tile


def check(x, y, k, measure, include_self=False, **options):
    """Compare with the sorted matrix: distances, what it says of the indices, and their order."""
    device = None if y is None else on_device(y)
    found = fastinfo.nearest(on_device(x), device, k, measure, include_self=include_self, **options)
    assert all(is_on_device(v) for v in found)
    distances, indices = (host(v) for v in found)
    matrix = fastinfo.pairwise(x, y, measure, **options)
    assert distances.shape == indices.shape == (len(matrix), k)
    assert (distances.dtype, indices.dtype) == (matrix.dtype, np.int64)
    if y is None and not include_self:
        np.fill_diagonal(matrix, np.nan)
    order = np.argsort(matrix, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(matrix, order, 1)
    rtol, near = (4e-5, 1e-15) if matrix.dtype == np.float32 else (2e-12, 1e-13)
    np.testing.assert_allclose(distances, expected, rtol, near)
    for i, (row, own) in enumerate(zip(distances, indices, strict=True)):
        if np.isnan(matrix[i]).all():
            assert (own == -1).all()
            continue
        assert len(set(own)) == k
        assert not (y is None and not include_self and i in own)
        np.testing.assert_allclose(matrix[i, own], row, rtol, near)
        tied = (row[1:] == row[:-1]) | np.isnan(row[:-1])
        assert (np.diff(own)[tied] > 0).all()
    return indices


@pytest.mark.parametrize("measure", MEASURES, ids=named)
def test_every_measure(rng, blocks, measure):
    name, options = measure
    x, y = (rng.dirichlet(np.ones(5), n) for n in (blocks + 1, 2 * blocks + 1))
    check(x.astype(np.float32), None, 3, name, **options)
    check(x[:3], y, 4, name, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_numbers(rng, dtype):
    x, y = (rng.dirichlet(np.ones(6), n).astype(DTYPES[dtype]) for n in (5, 7))
    check(x, None, 4, "total_variation")
    check(x, None, 5, "total_variation", include_self=True)
    check(x, y, 7, "total_variation")


@pytest.mark.parametrize("measure", ["js_divergence", "kl_divergence"])
def test_ties_and_rows_that_are_none(rng, blocks, measure):
    """Equal rows come in order, rows that are no distributions last, and have no neighbours."""
    rows = rng.dirichlet(np.ones(6), 4).astype(np.float32)
    x = rows[rng.integers(0, 4, 2 * blocks + 3)]
    x[1], x[blocks], x[-1, 2] = 0, np.nan, np.inf
    n = len(x)
    indices = check(x, None, n - 1, measure)
    for i in (1, blocks, n - 1):
        assert (indices[i] == -1).all()
        assert i in indices[0, -3:]
    check(x[blocks:], x, n - 3, measure)
    check(x[blocks:], x, n - 2, measure)
    equal = np.flatnonzero((x == x[0]).all(1))
    np.testing.assert_array_equal(check(x[:1], x, len(equal), measure)[0], equal)


@pytest.fixture(params=["always", "never"])
def bounded(request, blocks, monkeypatch):
    """The bound of rows of any width, always or never worth its while."""
    monkeypatch.setattr(neighbors, "NARROW", 0)
    monkeypatch.setattr(neighbors, "WORTH", 1.0 if request.param == "always" else -1.0)
    return request.param


@pytest.mark.parametrize(
    ("measure", "dtype", "alpha"),
    [
        ("js_divergence", "float32", 0.03),
        ("js_distance", "float32", 1.0),
        ("js_divergence", "float64", 1.0),
        ("js_divergence", "float64", 1e6),
    ],
)
def test_the_bound(rng, bounded, blocks, measure, dtype, alpha):
    """Rows nearly disjoint to nearly equal: nothing that is near may be left out."""
    x, y = (rng.dirichlet(np.full(9, alpha), n).astype(dtype) for n in (4, 2 * blocks + 1))
    check(x, y, 2, measure)
    check(y[: blocks + 1], None, 3, measure, base=2)


def test_the_bound_of_ties_and_rows_that_are_none(rng, bounded, blocks):
    rows = rng.dirichlet(np.ones(9), 3).astype(np.float32)
    x = rows[rng.integers(0, 3, 2 * blocks)]
    x[1], x[blocks] = 0, np.nan
    for k in (2, 2 * blocks - 1):
        check(x[:4], x, k, "js_divergence")
    check(x, None, 3, "js_divergence")


def test_rows_that_bounds_order_otherwise(rng, bounded):
    x, y = (v.astype(np.float32) for v in cases.rows_that_bounds_order_otherwise(rng, 9))
    assert check(x, y, 1, "js_divergence").tolist() == [[1]]


def test_the_bound_leaves_pairs_out(rng, blocks, monkeypatch):
    seen, fill = [], neighbors.Limits.fill

    def look(self, out, lo=0):
        fill(self, out, lo)
        seen.append(np.isinf(host(out.native)).mean())

    monkeypatch.setattr(neighbors, "NARROW", 0)
    monkeypatch.setattr(neighbors, "WORTH", 0.3)
    monkeypatch.setattr(neighbors.Limits, "fill", look)
    x = np.repeat(rng.dirichlet(np.full(9, 0.1), 4), blocks // 2, axis=0)
    x *= rng.uniform(0.9, 1.0, x.shape)
    check(x, None, 2, "js_divergence")
    assert len(seen) > 2 and max(seen) > 0.5
    seen.clear()
    for options in ({"normalize": False}, {"base": 0.5}, {"weights": (0.4, 0.6)}):
        fastinfo.nearest(on_device(x), k=2, **options)
    fastinfo.nearest(on_device(x), k=2, measure="hellinger_distance")
    assert not seen


def test_infinite_and_missing(rng):
    x = np.eye(6, 9, dtype=np.float32)
    indices = check(x, None, 5, "kl_divergence")
    np.testing.assert_array_equal(indices[2], [0, 1, 3, 4, 5])
    found = fastinfo.nearest(on_device(x[:0]), on_device(x), 2)
    assert host(found.distances).shape == host(found.indices).shape == (0, 2)
    with pytest.raises(ValueError, match="k must be in"):
        fastinfo.nearest(on_device(x), k=6)


def test_progress(rng, blocks):
    x, done = on_device(rng.random((2 * blocks, 3)).astype(np.float32)), []
    fastinfo.nearest(x, progress=lambda *rows: done.append(rows))
    assert [rows for rows, _ in done] == sorted(rows for rows, _ in done)
    assert done[-1] == (2 * blocks, 2 * blocks)
