"""Pairs of rows on a device against the same functions on the processor.

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1), or on a device (``pytest -m gpu``). What the
processor gives is itself checked against mpmath.
"""

import numpy as np
import pytest
from cuda_support import (
    DTYPES,
    SIMULATED,
    host,
    is_on_device,
    on_device,
    possible,
    skip_without_device,
    switch_often,
)

import fastinfo

skip_without_device()

from fastinfo.cuda import pairs, products  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures(switch_often.__name__)]

# Measures and their parameters; the first four have a tiled loop.
MEASURES = [
    ("js_divergence", {}),
    ("js_divergence", {"weights": (0.3, 0.7)}),
    ("js_distance", {}),
    ("total_variation", {}),
    ("cross_entropy", {}),
    ("kl_divergence", {}),
    ("jeffreys_divergence", {}),
    ("hellinger_distance", {}),
    ("bhattacharyya_distance", {}),
    ("renyi_divergence", {"alpha": 0.3}),
    ("renyi_divergence", {"alpha": 0.0}),
    ("renyi_divergence", {"alpha": 1.0}),
    ("renyi_divergence", {"alpha": 2.5}),
    ("renyi_divergence", {"alpha": np.inf}),
]
TILED = MEASURES[:4]
SEPARABLE = MEASURES[4:10]


def named(case):
    return "-".join([case[0], *(str(v) for v in case[1].values())])


def same(device, expected):
    """Assert that results agree to twice what is promised, relative all the way to zero."""
    expected = np.asarray(expected)
    assert is_on_device(device)
    found = host(device)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    rtol, least = (4e-5, 0.0) if expected.dtype == np.float32 else (2e-12, 1e-7)
    with np.errstate(invalid="ignore"):
        room = rtol * np.maximum(np.sqrt(least * abs(expected)), abs(expected)) + 1e-15
    both = np.isfinite(expected)
    np.testing.assert_array_equal(found[~both], expected[~both])
    assert (abs(found[both] - expected[both]) <= room[both]).all()
    assert (found[expected == 0] == 0).all()


def rows_of(rng, kind, shape, dtype):
    n, width = shape
    x = rng.dirichlet(np.ones(width), n)
    if kind == "near":
        x = x[:1] * (1 + 1e-6 * rng.normal(size=shape))
    if kind == "zeros":
        x[rng.random(shape) < 0.4] = 0
        x[:, 0] = 0.1
        x[-1], x[-2] = np.arange(width) % 2, 1 - np.arange(width) % 2  # disjoint
    if kind == "invalid":
        x[1, 2], x[2], x[3, 0] = np.nan, 0, np.inf
    x = x.astype(DTYPES[dtype])
    if kind == "equal":
        x[2], x[4] = x[0], 2 * x[1]
    return x


@pytest.mark.parametrize("measure", MEASURES, ids=named)
@pytest.mark.parametrize("kind", ["plain", "near", "zeros", "equal", "invalid"])
def test_square(rng, measure, kind):
    name, given = measure
    for dtype in ("float32", "float64"):
        x = rows_of(rng, kind, (6, 11), dtype)
        expected = fastinfo.pairwise(x, measure=name, **given)
        same(fastinfo.pairwise(on_device(x), measure=name, **given), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", [*TILED, ("kl_divergence", {})], ids=named)
def test_rectangle(rng, measure, dtype):
    name, given = measure
    x, y = rows_of(rng, "plain", (9, 6), dtype), rows_of(rng, "zeros", (10, 6), dtype)
    for more in ({"normalize": False}, {} if name == "total_variation" else {"base": 2}):
        expected = fastinfo.pairwise(x, y, name, **given, **more)
        same(fastinfo.pairwise(on_device(x), on_device(y), name, **given, **more), expected)


@pytest.mark.parametrize("measure", TILED, ids=named)
@pytest.mark.parametrize("spread", [1e-3, 1e-1, 10.0])
def test_roads(rng, measure, spread):
    """Rows near each other, and rows far apart, which are measured from another reference."""
    name, given = measure
    for dtype, width in (("float32", 23), ("float64", 23), ("float32", 3)):
        x = np.exp(spread * rng.normal(size=(7, width))).astype(dtype)
        y = np.exp(spread * rng.normal(size=(3, width))).astype(dtype)
        expected = fastinfo.pairwise(x, y, name, **given)
        same(fastinfo.pairwise(on_device(x), on_device(y), name, **given), expected)


@pytest.fixture
def marked(monkeypatch):
    """Shares of the pairs of each matrix that were computed again."""
    shares, settle = [], pairs._settle

    def look(job, out, known, *sums):
        shares.append(np.isnan(host(out.native)).mean())
        settle(job, out, known, *sums)

    monkeypatch.setattr(pairs, "_settle", look)
    return shares


@pytest.mark.parametrize("measure", SEPARABLE, ids=named)
def test_products(rng, measure, monkeypatch, marked):
    """Bands of rows and some of the bins at a time, near each other and far apart."""
    name, given = measure
    monkeypatch.setattr(pairs, "ROOM_BYTES", 400)
    monkeypatch.setattr(pairs, "PRODUCT_BINS", {"float32": 16, "float64": 16})
    for spread, most in ((1e-3, 1.0), (1.0, 0.4), (5.0, 0.4)):
        for dtype, shape in (("float32", (5, 37)), ("float64", (3, 20))):
            x, y = (np.exp(spread * rng.normal(size=shape)).astype(dtype) for _ in range(2))
            y[0] = x[1] * (1 + 1e-4 * rng.normal(size=shape[1]))
            for other in (None, y[:4]) if spread == 1.0 else (y[:4],):
                expected = fastinfo.pairwise(x, other, name, **given)
                device = None if other is None else on_device(other)
                same(fastinfo.pairwise(on_device(x), device, name, **given), expected)
            assert marked[-1] <= most


@pytest.mark.parametrize("measure", SEPARABLE, ids=named)
def test_products_added_up_in_the_worst_order(rng, measure, monkeypatch):
    """One bin after the other, in float32, of rows of few values, whose roundings go one way."""

    def in_order(a, b, out, add):
        x, y, z = (seam.simulated_view(v) for v in (a, b, out))
        with np.errstate(all="ignore"):
            z[...] = np.cumsum(x[:, None] * y.T, axis=-1, dtype=z.dtype)[..., -1]

    seam = products.seam
    if not SIMULATED:
        pytest.skip("a device has an order of its own")
    monkeypatch.setitem(products.PRODUCTS, "numba", in_order)
    name, given = measure
    for values, repeats in (((0.1, 1.0), 1), (rng.random(9), 64)):
        x, y = (rng.choice(values, (count, 256 // repeats)) for count in (2, 6))
        kept = rng.random(y.shape) < np.linspace(0.0, 0.95, 6)[:, None]
        x, y = (
            np.repeat(v, repeats, axis=1).astype(np.float32) for v in (x, np.where(kept, x[0], y))
        )
        expected = fastinfo.pairwise(x, y, name, **given)
        same(fastinfo.pairwise(on_device(x), on_device(y), name, **given), expected)


def test_supports_of_many_bins(rng):
    """The last bin of a word, the first of the next, and the last of all."""
    x = np.ones((4, 70), np.float32)
    for i, k in ((0, 62), (1, 63), (2, 69)):
        x[i, k] = 0
    for name in ("cross_entropy", "kl_divergence", "jeffreys_divergence"):
        expected = fastinfo.pairwise(x, measure=name)
        assert np.isinf(expected).sum() >= 9
        same(fastinfo.pairwise(on_device(x), measure=name), expected)


def test_without_a_library_for_products(rng, monkeypatch):
    x = rows_of(rng, "zeros", (4, 9), "float32")
    monkeypatch.setattr(products, "known", lambda kind: False)
    monkeypatch.setattr(products, "multiply", None)
    same(
        fastinfo.pairwise(on_device(x), measure="kl_divergence"),
        fastinfo.pairwise(x, measure="kl_divergence"),
    )


def test_more_bins_than_a_block(rng):
    x = rows_of(rng, "plain", (5, 70 if SIMULATED else 5000), "float32")
    for name, given in TILED:
        expected = fastinfo.pairwise(x, measure=name, **given)
        same(fastinfo.pairwise(on_device(x), measure=name, **given), expected)


def test_layouts_and_kinds(rng):
    x = rows_of(rng, "plain", (12, 20), "float32")
    device = on_device(x)
    for part in possible(np.s_[::3, 3:], np.s_[::4, ::2], np.s_[:5, ::-1]):
        expected = fastinfo.pairwise(x[part])
        same(fastinfo.pairwise(device[part]), expected)
    y = rows_of(rng, "plain", (2, 20), "float64")
    same(fastinfo.pairwise(on_device(x[:3]), on_device(y)), fastinfo.pairwise(x[:3], y))


def test_out_condensed_and_progress(rng):
    x = rows_of(rng, "plain", (5, 9), "float32")
    device, done = on_device(x), []
    out = on_device(np.full((5, 5), 7, np.float32))
    result = fastinfo.pairwise(device, out=out, progress=lambda *rows: done.append(rows))
    assert result is out and done == [(5, 5)]
    same(out, fastinfo.pairwise(x))
    same(fastinfo.pairwise(device, condensed=True), fastinfo.pairwise(x, condensed=True))
    with pytest.raises(ValueError, match="shape"):
        fastinfo.pairwise(device, out=on_device(np.zeros((4, 5), np.float32)))
    same(fastinfo.pairwise(device[:0], device), np.empty((0, 5), np.float32))


@pytest.mark.parametrize("measure", [*TILED[:1], *TILED[3:], ("kl_divergence", {})], ids=named)
def test_negative_entries(rng, measure):
    name, given = measure
    x = rows_of(rng, "plain", (4, 7), "float32")
    good = fastinfo.pairwise(x, measure=name, **given)
    x[2, 3] = -0.1
    found = host(fastinfo.pairwise(on_device(x), measure=name, **given))
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()
    rest = np.ix_([0, 1, 3], [0, 1, 3])
    np.testing.assert_allclose(found[rest], good[rest], rtol=4e-5)
    with (
        fastinfo.config(check=True),
        pytest.raises(ValueError, match=r"x must be at least 0.*2, 3"),
    ):
        fastinfo.pairwise(on_device(x), measure=name, **given)


def test_what_is_not_built():
    x = on_device(np.ones((3, 4), np.float32))
    with pytest.raises(TypeError, match=r"within is not computed on a CUDA device.*copy"):
        fastinfo.within(x, radius=0.1)
    sparse = pytest.importorskip("scipy.sparse").csr_array(np.ones((3, 4), np.float32))
    with pytest.raises(TypeError, match=r"sparse.*not computed on a CUDA device"):
        fastinfo.pairwise(sparse, x)


def test_rows_beside_each_other(rng):
    """The functions of two distributions, and entropy."""
    for dtype in ("float32", "float64", "bfloat16"):
        p, q = rows_of(rng, "zeros", (4, 11), dtype), rows_of(rng, "equal", (5, 11), dtype)[:4]
        a, b = on_device(p), on_device(q)
        same(fastinfo.entropy(a, base=2), fastinfo.entropy(p, base=2))
        for name, given in MEASURES:
            if not (name == "js_distance" and given):
                function = getattr(fastinfo, name)
                same(function(a, b, **given), function(p, q, **given))
    x, y = rng.random((2, 5, 3)), rng.random((5, 1))
    found = fastinfo.kl_divergence(on_device(x), on_device(y), axis=1, keepdims=True)
    same(found, fastinfo.kl_divergence(x, y, axis=1, keepdims=True))
    found = fastinfo.js_divergence(
        on_device(x[0, :, 0].copy()), on_device(x[1, :, 0].copy()), normalize=False
    )
    same(found, fastinfo.js_divergence(x[0, :, 0], x[1, :, 0], normalize=False))
