"""Contingency tables of samples: counts, labels of any kind, errors."""

import collections

import cases
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from accuracy import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st

import fastinfo

DTYPES = [*cases.INTEGERS, np.dtype(bool), *cases.FLOATS, np.dtype(">i4"), np.dtype("U3"),
          np.dtype("S3"), np.dtype("M8[D]"), np.dtype("m8[s]"), np.dtype(object)]  # fmt: skip


def check(x, y):
    """Compare with the pairs counted one by one."""
    found = fastinfo.contingency(x, y)
    counts = collections.Counter(zip(x.tolist(), y.tolist(), strict=True))
    rows, columns = sorted(set(x.tolist())), sorted(set(y.tolist()))
    assert found.table.dtype == np.int64
    assert found.x_labels.tolist() == rows
    assert found.y_labels.tolist() == columns
    assert found.table.tolist() == [[counts[a, b] for b in columns] for a in rows]
    assert (found.x_labels.dtype, found.y_labels.dtype) == (x.dtype.newbyteorder("="),
                                                           y.dtype.newbyteorder("="))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_labels_of_any_dtype(rng, dtype):
    for high in (2, 100):
        x = rng.integers(0, 2 if dtype.kind == "b" else high, 300)
        y = rng.integers(0, high, 300) * 50 - 70
        check((x if dtype.kind == "O" else x.astype(dtype)), y)
        check(y, x.astype(dtype))


@pytest.mark.parametrize("dtype", cases.INTEGERS, ids=str)
def test_integers_from_end_to_end_of_their_range(rng, dtype):
    limits = np.iinfo(dtype)
    values = np.array([limits.min, limits.min + 1, 0, limits.max - 1, limits.max], dtype)
    check(values[rng.integers(0, 5, 200)], rng.integers(0, 3, 200))
    check(values[rng.integers(3, 5, 200)], values[rng.integers(0, 2, 200)])


def test_gaps_and_many_labels(rng):
    """Spans whose table would be far larger than the samples, and more than a block of them."""
    check(rng.integers(0, 9, 500) * 7000, rng.integers(0, 9, 500) * 7000 - 30000)
    check(rng.integers(0, 10**9, 500), rng.integers(-9, 9, 500))
    check(rng.integers(0, 7, 200_000), rng.integers(3, 5, 200_000) * 10)


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(*[
    arrays.arrays(np.int64, n, elements=st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3))] * 2
)))  # fmt: skip
def test_any_integers(samples):
    check(*samples)


def test_scikit_learn(rng):
    cluster = pytest.importorskip("sklearn.metrics.cluster")
    x, y = rng.integers(-5, 30, (2, 2000))
    actual = fastinfo.contingency(x, y).table
    np.testing.assert_array_equal(actual, cluster.contingency_matrix(x, y))


def test_nan_is_one_label_and_comes_last():
    for dtype in (np.float64, np.float32, np.float16):
        found = fastinfo.contingency(np.array([np.nan, 1, np.nan, -1], dtype), [1, 1, 2, 1])
        assert found.table.tolist() == [[1, 0], [1, 0], [1, 1]]
        np.testing.assert_array_equal(found.x_labels, np.array([-1, 1, np.nan], dtype))
        assert found.x_labels.dtype == dtype


@pytest.mark.parametrize("labels", [[2.0, np.nan, 1, 2, float("nan"), 3], ["b", np.nan, "a", "b"]])
def test_nan_among_objects(labels):
    """NumPy's unique would give each NaN a label, and those between them no order."""
    x = np.array(labels, object)
    found = fastinfo.contingency(x, np.arange(len(x)))
    known = sorted({v for v in labels if v == v})
    assert list(found.x_labels[:-1]) == known and found.x_labels[-1] != found.x_labels[-1]
    for label, row in zip(known, found.table[:-1], strict=True):
        assert row.tolist() == [v == label for v in labels]
    assert found.table[-1].tolist() == [v != v for v in labels]
    with pytest.raises(TypeError, match="x must hold labels that can be sorted"):
        fastinfo.contingency(np.array([1, None, "a"], object), [1, 2, 3])


def test_nothing():
    for empty in ([], np.zeros(0, np.int64), np.zeros(0, "U3")):
        found = fastinfo.contingency(empty, empty)
        assert found.table.shape == (0, 0)
        assert found.table.dtype == np.int64
        assert found.x_labels.shape == found.y_labels.shape == (0,)


def test_what_goes_in_is_a_sequence_or_has_an_array(rng):
    pandas = pytest.importorskip("pandas")
    x, y = ["b", "a", "b", "c"], [True, False, True, True]
    expected = fastinfo.contingency(np.array(x), np.array(y))
    assert expected.table.tolist() == [[1, 0], [0, 2], [0, 1]]
    assert_same_bits(tuple(fastinfo.contingency(x, y)), tuple(expected))
    frame = pandas.DataFrame({"x": x, "y": y})
    for series in (frame["x"], frame["x"].astype("category")):
        found = fastinfo.contingency(series, frame["y"])
        assert_same_bits(found.table, expected.table)
        assert list(found.x_labels) == ["a", "b", "c"]


def test_layouts(rng):
    x, y = rng.integers(-40, 40, (2, 1000))
    expected = tuple(fastinfo.contingency(x, y))
    for layout in ("spaced", "reversed", "read-only", "unaligned", "memory map"):
        function = cases.LAYOUTS[layout]
        assert_same_bits(tuple(fastinfo.contingency(function(x), function(y))), expected)


def test_torch():
    torch = pytest.importorskip("torch")
    y = torch.tensor([1, 0, 1, 1])
    for dtype in (torch.int64, torch.uint8, torch.bool, torch.float32, torch.float16,
                  torch.bfloat16):  # fmt: skip
        found = fastinfo.contingency(torch.tensor([1, 0, 1, 0]).to(dtype), y)
        assert all(isinstance(part, torch.Tensor) for part in found)
        assert found.table.tolist() == [[1, 1], [0, 2]]
        assert (found.table.dtype, found.x_labels.dtype) == (torch.int64, dtype)
        assert found.x_labels.tolist() == [0, 1]
    mixed = fastinfo.contingency(np.array(["a", "b", "a", "a"]), y)
    assert isinstance(mixed.table, np.ndarray)
    assert isinstance(mixed.y_labels, torch.Tensor)


def test_errors():
    with pytest.raises(ValueError, match="x and y must have the same length, got 3 and 2"):
        fastinfo.contingency([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"x must be one-dimensional, got shape \(2, 2\)"):
        fastinfo.contingency([[1, 2], [3, 4]], [1, 2])
    with pytest.raises(ValueError, match=r"y must be one-dimensional, got shape \(\)"):
        fastinfo.contingency([1], 3)
    with pytest.raises(TypeError, match="x must hold labels that can be sorted"):
        fastinfo.contingency(np.array([1, "a"], object), [1, 2])
    with pytest.raises(TypeError, match="y must not be a masked array"):
        fastinfo.contingency([1, 2], np.ma.array([1, 2], mask=[True, False]))
    with pytest.raises(ValueError, match="x must be an array or a rectangular"):
        fastinfo.contingency([[1], [1, 2]], [1, 2])
