"""Measures of joint tables, information gain and surprisal, against mpmath with 50 digits."""

import re

import cases
import hypothesis.extra.numpy as arrays
import mpmath
import numpy as np
import pytest
from accuracy import (
    FLOOR,
    RTOL,
    assert_close_loss,
    assert_close_measure,
    assert_same_bits,
    assert_within,
    result_dtype,
)
from cases import FLOATS, INTEGERS, WIDE_FLOATS
from hypothesis import given
from hypothesis import strategies as st

import fastinfo

ENTROPIES = ("joint_entropy", "conditional_entropy")
WITH_BASE = (*ENTROPIES, "mutual_information", "pointwise_mutual_information")
NAMES = (*WITH_BASE, "normalized_mutual_information")
AVERAGES = ("arithmetic", "geometric", "min", "max")


class Exact:
    """A table in 50 digits, by the definitions."""

    def __init__(self, table, normalize=True):
        cells = [[mpmath.mpf(float(v)) for v in row] for row in np.asarray(table, object)]
        total = mpmath.fsum(map(mpmath.fsum, cells)) if normalize else mpmath.mpf(1)
        self.p = [[v / total for v in row] for row in cells]
        self.rows = [mpmath.fsum(row) for row in self.p]
        self.columns = [mpmath.fsum(column) for column in zip(*self.p, strict=True)]

    def pointwise_mutual_information(self):
        return [
            [mpmath.log(v / (r * c)) if v else mpmath.ninf
             for v, c in zip(row, self.columns, strict=True)]
            for row, r in zip(self.p, self.rows, strict=True)
        ]  # fmt: skip

    def mutual_information(self):
        points = self.pointwise_mutual_information()
        pairs = zip(self.p, points, strict=True)
        return mpmath.fsum(v * i for p, q in pairs for v, i in zip(p, q, strict=True) if v)

    def joint_entropy(self):
        return -mpmath.fsum(v * mpmath.log(v) for row in self.p for v in row if v)

    def conditional_entropy(self):
        pairs = zip(self.p, self.rows, strict=True)
        return mpmath.fsum(v * mpmath.log(r / v) for row, r in pairs for v in row if v)

    def normalized_mutual_information(self, average="arithmetic"):
        x, y = (-mpmath.fsum(v * mpmath.log(v) for v in side if v)
                for side in (self.rows, self.columns))  # fmt: skip
        if x == y == 0:
            return mpmath.mpf(1)
        mean = {"arithmetic": (x + y) / 2, "geometric": mpmath.sqrt(x * y),
                "min": min(x, y), "max": max(x, y)}[average]  # fmt: skip
        shared = self.mutual_information()
        return shared / mean if mean else mpmath.mpf(0)


def exact(name, tables, normalize=True, **options):
    """Return the measure of each table in long double."""
    tables = np.asarray(tables).astype(np.float64)
    with mpmath.workdps(50):
        found = [
            getattr(Exact(table, normalize), name)(**options)
            for table in tables.reshape(-1, *tables.shape[-2:])
        ]
        text = np.vectorize(lambda v: mpmath.nstr(v, 25), otypes=[object])(found)
    values = np.vectorize(np.longdouble, otypes=[np.longdouble])(text)
    batch = tables.shape[:-2]
    return values.reshape(tables.shape if name.startswith("point") else batch)


def check(name, tables, **options):
    """Compare with the definition: entropies as losses, information relative to zero."""
    actual = getattr(fastinfo, name)(tables, **options)
    truth = exact(name, tables, **options)
    if name in ENTROPIES:
        assert_close_loss(actual, truth, np.asarray(tables).dtype)
    elif name == "pointwise_mutual_information":
        kind = result_dtype(np.asarray(tables).dtype)
        assert_within(actual, truth, RTOL[kind] * abs(truth) + 1e-30, kind)
    else:
        assert_close_measure(name, actual, truth, np.asarray(tables).dtype)


def independent(rng, x, y, high=1000):
    """Return the outer product of random counts."""
    return np.multiply.outer(rng.integers(0, high, x), rng.integers(0, high, y))


# Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 17), (40, 9)])
def test_counts_and_probabilities(rng, name, shape):
    counts = rng.integers(0, 9, (4, *shape))
    counts[:, 0, 0] += 1
    check(name, counts)
    for dtype in FLOATS:
        check(name, (counts / counts.sum((-2, -1), keepdims=True)).astype(dtype))
    check(name, rng.random((4, *shape)) ** 20)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [*INTEGERS, np.dtype(bool), *FLOATS], ids=str)
def test_dtypes(rng, name, dtype):
    high = 2 if dtype.kind == "b" else 60
    table = rng.integers(0, high, (2, 6, 5)).astype(dtype)
    table[:, 0, 0] = 1
    check(name, table)


@pytest.mark.parametrize("average", AVERAGES)
def test_averages(rng, average):
    tables = rng.integers(0, 4, (20, 3, 4))
    tables[:, 0, 0] += 1
    check("normalized_mutual_information", tables, average=average)


@pytest.mark.parametrize("name", ["mutual_information", "normalized_mutual_information"])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13])
def test_nearly_independent_tables(rng, name, dtype, noise):
    """Relative all the way to zero."""
    p = rng.dirichlet(np.ones(6), 4)[:, :, None] * rng.dirichlet(np.ones(5), 4)[:, None, :]
    check(name, (p * (1 + noise * rng.uniform(-1, 1, p.shape))).astype(dtype))


@pytest.mark.parametrize("name", NAMES[:4])
def test_nearly_independent_counts(rng, name):
    """One count more or less among many."""
    for high in (10, 1000, 10**5, 10**7):
        table = independent(rng, 5, 4, high) + 1
        table[2, 3] += 1
        check(name, table)


@pytest.mark.parametrize("name", ENTROPIES)
def test_nearly_certain_tables(rng, name):
    for small in (1e-3, 1e-8, 1e-14, 1e-16, 1e-20, 1e-40):
        table = small * rng.random((3, 4, 5))
        table[:, range(4), range(4)] = 1 if name == "conditional_entropy" else small
        table[:, 1, 1] = 1
        kind = np.dtype(np.float64)
        actual, truth = getattr(fastinfo, name)(table), exact(name, table)
        assert_within(actual, truth, RTOL[kind] * truth, kind)


@pytest.mark.parametrize("name", NAMES)
def test_tiles(rng, name):
    """More rows or columns than a tile: the sums of tiles are merged."""
    for shape in ((2, 3, 1100), (2, 1100, 3), (513, 514)):
        table = rng.integers(0, 3, shape)
        function = getattr(fastinfo, name)
        actual = function(table)
        p = table / table.sum((-2, -1), keepdims=True)
        r, c = p.sum(-1, keepdims=True), p.sum(-2, keepdims=True)
        with np.errstate(all="ignore"):
            points = np.where(p > 0, np.log(p / (r * c)), -np.inf)
            each = np.where(p > 0, p * points, 0)
            values = {
                "joint_entropy": -np.where(p > 0, p * np.log(p), 0).sum((-2, -1)),
                "conditional_entropy": np.where(p > 0, p * np.log(r / p), 0).sum((-2, -1)),
                "mutual_information": each.sum((-2, -1)),
                "pointwise_mutual_information": points,
            }
            sides = [-np.where(s > 0, s * np.log(s), 0).sum((-2, -1)) for s in (r, c)]
        values["normalized_mutual_information"] = 2 * each.sum((-2, -1)) / sum(sides)
        np.testing.assert_allclose(actual, values[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("power", [-1070, -1000, -500, -70, 70, 500, 1000, 1019])
def test_powers_of_two(rng, name, power):
    """Tiny and huge counts, sums beyond the largest number too, are as good as any."""
    table = rng.integers(1, 16, (3, 4, 5)).astype(np.float64)
    function = getattr(fastinfo, name)
    np.testing.assert_array_equal(function(np.ldexp(table, power)), function(table))


@pytest.mark.parametrize("name", NAMES)
def test_shares_whose_product_is_below_all_numbers(name):
    check(name, [[1.0, 0.0], [0.0, 1e-200]])
    check(name, [[1.0, 1e-250], [1e-300, 1e-310]])


@pytest.mark.parametrize("name", ["mutual_information", *ENTROPIES])
def test_base(rng, name):
    table = rng.integers(1, 9, (3, 4, 5))
    function = getattr(fastinfo, name)
    for base in (2, 10.0, 0.5):
        np.testing.assert_allclose(function(table, base=base) * np.log(base), function(table))
    points = fastinfo.pointwise_mutual_information(table, base=2)
    np.testing.assert_allclose(
        points * np.log(2), fastinfo.pointwise_mutual_information(table), rtol=1e-14
    )


@pytest.mark.parametrize("name", NAMES)
def test_formula_as_it_stands(rng, name):
    """normalize=False: no division by the sum; the formula may then be of any sign."""
    for factor in (0.25, 1.0, 3.0):
        tables = factor * rng.dirichlet(np.ones(12), 3).reshape(3, 3, 4)
        actual = getattr(fastinfo, name)(tables, normalize=False)
        truth = exact(name, tables, normalize=False)
        np.testing.assert_allclose(actual, np.float64(truth), rtol=1e-12)
    if name in WITH_BASE[:3]:
        assert getattr(fastinfo, name)(np.zeros((2, 2)), normalize=False) == 0


# Exact values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float64, np.float32], ids=str)
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (40, 60), (600, 520)])
def test_independent_counts_share_exactly_nothing(rng, dtype, shape):
    for high in (3, 50, 256):
        table = independent(rng, *shape, high).astype(dtype)
        table = table if table.any() else table + 1
        assert fastinfo.mutual_information(table) == 0
        points = fastinfo.pointwise_mutual_information(table)
        assert (points[table > 0] == 0).all()
        assert np.isneginf(points[table == 0]).all()


def test_large_independent_counts_share_exactly_nothing(rng):
    """Sums and their products have more than 53 bits."""
    for high in (10**4, 10**6, 10**7, 9 * 10**7):
        table = independent(rng, 300, 200, high)
        assert table.max() < 2**53
        assert fastinfo.mutual_information(table) == 0
        assert fastinfo.mutual_information(table * 2.0**-60) == 0


def test_functions_leave_nothing_open(rng):
    """Y is a function of X: H(Y|X) is exactly 0."""
    table = np.zeros((50, 7))
    table[np.arange(50), rng.integers(0, 7, 50)] = rng.random(50)
    assert fastinfo.conditional_entropy(table) == 0
    assert fastinfo.conditional_entropy(table.T) > 0


@pytest.mark.parametrize("average", AVERAGES)
def test_constants(average):
    """As scikit-learn: two constants are alike, a constant tells nothing of anything else."""
    measure = fastinfo.normalized_mutual_information
    assert measure([[5]], average) == 1
    assert measure([[0, 3], [0, 0]], average) == 1
    assert measure([[1, 2, 3]], average) == 0
    assert measure([[1], [2], [3]], average) == 0
    assert measure(np.diag([1, 2, 3]), average) == 1


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize(
    "cells", [(1e-40, 1e-15, 0, 1), (1e-60, 1e-30, 1e-80, 1), (1e-40, 1e-25, 0, 1)]
)
def test_marginals_of_next_to_no_entropy(average, cells):
    """The entropy of 1 - ε is divided by, though no digit of a sum to 1 shows it."""
    with mpmath.workdps(250):
        truth = Exact(np.reshape(cells, (2, 2))).normalized_mutual_information(average)
    value = fastinfo.normalized_mutual_information(np.reshape(cells, (2, 2)), average)
    assert value == pytest.approx(float(truth), rel=1e-12, abs=0)


@pytest.mark.parametrize("average", AVERAGES)
def test_equal_labels_share_no_more_than_all(rng, average):
    for k in range(2, 60):
        value = fastinfo.normalized_mutual_information(np.diag(rng.random(k)), average)
        assert 1 - 1e-14 < value <= 1


@given(arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6),
                     elements=st.integers(0, 10**6)))  # fmt: skip
def test_laws(table):
    """Bounds, symmetry and the chain rule hold for any counts."""
    empty = table.sum((-2, -1)) == 0
    turned = np.swapaxes(table, -1, -2)
    shared = fastinfo.mutual_information(table)
    joint, rest = fastinfo.joint_entropy(table), fastinfo.conditional_entropy(table)
    ratio = fastinfo.normalized_mutual_information(table)
    assert (np.isnan(shared) == empty).all()
    assert ((shared >= 0) | empty).all()
    assert ((rest >= 0) | empty).all()
    assert (((ratio >= 0) & (ratio <= 1)) | empty).all()
    near = {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(shared, fastinfo.mutual_information(turned), **near)
    of_columns = fastinfo.entropy(table.sum(-2))
    np.testing.assert_allclose(shared, of_columns - rest, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(joint, fastinfo.entropy(table.sum(-1)) + rest, **near)
    flat = table.reshape(*table.shape[:-2], -1)
    np.testing.assert_allclose(joint, fastinfo.entropy(flat), **near)


@given(arrays.arrays(np.int64, (3, 4), elements=st.integers(0, 2**26)))
def test_zero_only_where_independent(table):
    table[0, 0] += 1
    rows, columns = (table.sum(axis, dtype=object) for axis in (1, 0))
    cells = table.astype(object) * int(table.sum())
    same = (cells == np.multiply.outer(rows, columns)).all()
    assert (fastinfo.mutual_information(table) == 0) == same


def test_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    for n, k in ((20, 3), (1000, 10), (5000, 100)):
        x, y = rng.integers(0, k, (2, n))
        y = np.where(rng.random(n) < 0.5, x, y)
        table = fastinfo.contingency(x, y).table
        shared = metrics.mutual_info_score(x, y)
        assert fastinfo.mutual_information(table) == pytest.approx(shared, rel=1e-10)
        for average in AVERAGES:
            theirs = metrics.normalized_mutual_info_score(x, y, average_method=average)
            ours = fastinfo.normalized_mutual_information(table, average)
            assert ours == pytest.approx(theirs, rel=1e-10)


# Edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_invalid_tables_are_nan_and_touch_no_other(rng, name, dtype):
    tables = rng.random((8, 3, 4)).astype(dtype)
    tables[0, 1, 2], tables[2, 0, 0], tables[4] = np.nan, np.inf, 0
    tables[6, 0, 0], tables[6, 2, 3] = np.nan, np.inf
    function = getattr(fastinfo, name)
    actual = function(tables)
    assert np.isnan(actual[::2]).all()
    assert_same_bits(actual[1::2], function(tables[1::2].copy()))


def test_infinite_cells_without_normalisation():
    table = np.array([[1.0, 2.0], [np.inf, 3.0]])
    for name in WITH_BASE[:3]:
        assert np.isnan(getattr(fastinfo, name)(table, normalize=False))
    for bad in (np.inf, np.nan):
        table[1, 0] = bad
        points = fastinfo.pointwise_mutual_information(table, normalize=False)
        assert np.isnan(points).tolist() == [[True, False], [True, True]]
        assert points[0, 1] == pytest.approx(np.log(2 / (3 * 5)))


def test_empty_cells():
    points = fastinfo.pointwise_mutual_information([[0, 0, 0], [2, 0, 0], [1, 0, 1]])
    assert np.isneginf(points).tolist() == [[True] * 3, [False, True, True], [False, True, False]]
    empty = fastinfo.pointwise_mutual_information(np.zeros((2, 2)), normalize=False)
    assert np.isneginf(empty).all()


@pytest.mark.parametrize("name", NAMES)
def test_shapes(rng, name):
    function = getattr(fastinfo, name)
    table = rng.integers(1, 9, (2, 3, 4, 5))
    actual = function(table)
    for index in np.ndindex(2, 3):
        assert_same_bits(actual[index], function(table[index]))
    scalar = function(table[0, 0])
    assert isinstance(scalar, np.ndarray if name.startswith("point") else np.float64)
    assert function(table[:0]).shape == actual[:0].shape
    assert_same_bits(function(table.tolist()), actual)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_same_bits_whatever_the_layout(rng, name, layout):
    for dtype in (*FLOATS, np.dtype(np.int32)):
        table = (9 * rng.random((3, 4, 600))).astype(dtype)
        function = getattr(fastinfo, name)
        before = table.copy()
        assert_same_bits(function(cases.LAYOUTS[layout](table)), function(table))
        assert_same_bits(table, before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_whatever_the_threads(rng, name):
    function = getattr(fastinfo, name)
    for shape in ((700, 1500), (3, 5, 20000), (40000, 3, 4)):
        table = rng.random(shape)
        results = []
        for threads in (1, 2, 5):
            fastinfo.set_num_threads(threads)
            results.append(function(table))
        assert_same_bits(results[0], results[1])
        assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("name", NAMES)
def test_torch(rng, name):
    torch = pytest.importorskip("torch")
    table = rng.integers(1, 9, (2, 3, 4))
    function = getattr(fastinfo, name)
    for dtype in (torch.int64, torch.float64, torch.float32, torch.float16, torch.bfloat16):
        actual = function(torch.tensor(table).to(dtype))
        assert isinstance(actual, torch.Tensor)
        wide = dtype in (torch.int64, torch.float64)
        assert actual.dtype == (torch.float64 if wide else torch.float32)
        np.testing.assert_allclose(actual.numpy(), function(table), rtol=1e-5)
    assert function(torch.tensor(table[0])).ndim == (2 if name.startswith("point") else 0)


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_errors(name):
    function = getattr(fastinfo, name)
    table = np.ones((2, 3, 4))
    table[1, 2, 0] = -2
    refused = re.escape("pxy must be at least 0, got -2.0 at position (1, 2, 0)")
    with pytest.raises(ValueError, match=refused):
        function(table)
    with pytest.raises(ValueError, match=r"pxy must have at least two axes, got shape \(3,\)"):
        function([1, 2, 3])
    for shape in ((0, 3), (3, 0), (2, 0, 0)):
        with pytest.raises(ValueError, match=r"pxy must have at least one row and one column"):
            function(np.ones(shape))
    for dtype in (complex, object, np.longdouble, "U3"):
        with pytest.raises(TypeError, match="pxy must hold real numbers"):
            function(np.ones((2, 2)).astype(dtype))


def test_errors_of_options():
    for name in WITH_BASE:
        for base in (1, 0, -2, np.inf):
            with pytest.raises(ValueError, match="base must be positive"):
                getattr(fastinfo, name)([[1]], base=base)
    with pytest.raises(TypeError, match="base"):
        fastinfo.normalized_mutual_information([[1]], base=2)
    with pytest.raises(ValueError, match=r"average must be one of .*did you mean 'geometric'"):
        fastinfo.normalized_mutual_information([[1]], "geometrical")


# Information gain -----------------------------------------------------------------------------


def test_information_gain(rng):
    for shape in ((2, 2), (5, 3), (4, 6, 7)):
        children = rng.integers(0, 20, shape)
        children[..., 0] += 1
        parent = children.sum(-2)
        truth = exact("mutual_information", children)
        for given_parent in (parent, None, parent.tolist()):
            actual = fastinfo.information_gain(given_parent, children)
            assert_close_measure("gain", actual, truth, np.float64)
        before = fastinfo.entropy(parent)
        weights = children.sum(-1) / children.sum((-2, -1))[..., None]
        after = (weights * fastinfo.entropy(children)).sum(-1)
        np.testing.assert_allclose(actual, before - after, rtol=1e-11)
        in_bits = fastinfo.information_gain(parent, children, base=2)
        np.testing.assert_allclose(in_bits, actual / np.log(2))


def test_gain_of_empty_children_and_of_nothing():
    assert fastinfo.information_gain([4, 4], [[4, 0], [0, 0], [0, 4]], base=2) == 1
    assert fastinfo.information_gain([3, 6], [[1, 2], [0, 0], [2, 4]]) == 0
    assert np.isnan(fastinfo.information_gain([0, 0], [[0, 0], [0, 0]]))
    assert np.isnan(fastinfo.information_gain([np.nan, 2], [[1, 1], [0, 1]]))
    assert np.isnan(fastinfo.information_gain([1.0, 2], [[np.nan, 1], [0, 1]]))


def test_gain_broadcasts_and_takes_its_kind_from_the_parent():
    children = np.ones((2, 3, 4, 2), np.float32)
    assert fastinfo.information_gain(np.full(2, 4.0, np.float32), children).dtype == np.float32
    assert fastinfo.information_gain([4, 4], children).dtype == np.float64
    assert fastinfo.information_gain(np.full((5, 1, 1, 2), 4), children).shape == (5, 2, 3)
    torch = pytest.importorskip("torch")
    assert isinstance(fastinfo.information_gain(torch.tensor([4, 4]), children), torch.Tensor)
    assert isinstance(fastinfo.information_gain(None, torch.tensor(children)), torch.Tensor)


def test_errors_of_information_gain():
    message = "parent must be the sum of children in each class, got 5 where the children add up "
    with pytest.raises(ValueError, match=re.escape(message + "to 4 at position 1")):
        fastinfo.information_gain([4, 5], [[4, 0], [0, 4]])
    with pytest.raises(ValueError, match=r"add up to 1\.0 at position \(1, 0\)"):
        fastinfo.information_gain([[1.0, 1], [1 + 1e-8, 1]], [[1, 0], [0, 1.0]])
    assert fastinfo.information_gain([1 + 1e-10, 1], [[1, 0], [0, 1.0]]) > 0
    large = 2**53
    with pytest.raises(ValueError, match=f"got {large + 1} where the children add up to {large}"):
        fastinfo.information_gain([large + 1, 1], [[large, 0], [0, 1]])
    with pytest.raises(ValueError, match="parent must have the classes of children"):
        fastinfo.information_gain([1, 2, 3], [[1, 2]])
    with pytest.raises(ValueError, match="parent and children must broadcast"):
        fastinfo.information_gain(np.ones((2, 2)), np.ones((3, 1, 2)))
    with pytest.raises(ValueError, match="parent must be at least 0, got -1 at position 0"):
        fastinfo.information_gain([-1, 2], [[0, 1], [0, 1]])
    with pytest.raises(ValueError, match=r"children must be at least 0, got -1 at position \(0, 1"):
        fastinfo.information_gain(None, [[0, -1], [0, 1]])
    with pytest.raises(ValueError, match="children must have at least two axes"):
        fastinfo.information_gain([1], [1])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sums_of_narrow_counts_are_rounded(rng, dtype):
    """A parent added up in the dtype of the children is their sum."""
    children = rng.random((30, 5)).astype(dtype)
    parent = children[0]
    for child in children[1:]:
        parent = parent + child
    assert fastinfo.information_gain(parent, children) > 0


# Surprisal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_surprisal(rng, dtype):
    p = rng.random((3, 700)).astype(dtype)
    p[0, :3] = 1, 0.5, 2
    p[1] = 10.0 ** rng.uniform(-300, 0, 700)
    p = np.where(p == 0, dtype.type(0.25), p).astype(dtype)
    truth = -np.log(p.astype(np.float64).astype(np.longdouble))
    kind = result_dtype(dtype)
    assert_within(fastinfo.surprisal(p), truth, 2 * np.finfo(kind).eps * abs(truth), kind)
    bits = fastinfo.surprisal(p, base=2)
    assert_within(bits, truth / np.log(np.longdouble(2)), RTOL[kind] * abs(truth) + FLOOR[kind],
                  kind)  # fmt: skip


def test_surprisal_at_the_edges():
    actual = fastinfo.surprisal([0.0, -0.0, 1.0, np.inf, np.nan])
    assert_same_bits(actual, np.array([np.inf, np.inf, 0.0, np.nan, np.nan]))
    assert isinstance(fastinfo.surprisal(0.5), np.float64)
    assert isinstance(fastinfo.surprisal(np.float32(0.5)), np.float32)
    assert fastinfo.surprisal(np.ones((0, 3), np.float32)).shape == (0, 3)
    assert_same_bits(fastinfo.surprisal([True, False]), np.array([0.0, np.inf]))
    assert_same_bits(fastinfo.surprisal([1, 2]), np.array([0.0, -np.log(2)]))
    for bad in (-1e-300, -np.inf):
        with pytest.raises(ValueError, match=rf"p must be at least 0, got {bad} at position \(1, "):
            fastinfo.surprisal([[1.0, 1], [1, bad]])
    with pytest.raises(ValueError, match="base must be positive"):
        fastinfo.surprisal([1.0], base=1)
    with pytest.raises(TypeError, match="p must hold real numbers"):
        fastinfo.surprisal(["a"])


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_surprisal_whatever_the_layout(rng, layout):
    for dtype in (*FLOATS, np.dtype(np.int16)):
        p = (9 * rng.random((5, 7, 600))).astype(dtype)
        actual = fastinfo.surprisal(cases.LAYOUTS[layout](p))
        assert_same_bits(actual, fastinfo.surprisal(p))


def test_surprisal_of_tensors():
    torch = pytest.importorskip("torch")
    actual = fastinfo.surprisal(torch.tensor([[1.0, 0.5]], dtype=torch.bfloat16), base=2)
    assert actual.dtype == torch.float32
    assert actual.tolist() == [[0.0, 1.0]]
    assert fastinfo.surprisal(torch.tensor(1.0)).ndim == 0
