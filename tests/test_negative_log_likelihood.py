"""negative_log_likelihood: values, axes, ignored rows, edges, errors."""

import cases
import hypothesis
import hypothesis.extra.numpy
import numpy as np
import oracles
import pytest
from accuracy import assert_close_loss, assert_same_bits, result_dtype
from cases import FLOATS
from hypothesis import strategies as st

import fastinfo

nll = fastinfo.negative_log_likelihood
DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)


def given(rng, shape, dtype):
    """Return distributions along the last axis and targets."""
    q = rng.dirichlet(np.ones(shape[-1]), shape[:-1]).astype(dtype)
    return q, rng.integers(0, shape[-1], shape[:-1])


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 2, 33), (400, 1000), (2, 600_000)])
def test_values(rng, dtype, shape):
    q, targets = given(rng, shape, dtype)
    targets[0] = -100
    rows = oracles.negative_log_likelihood(q, targets)
    assert_close_loss(nll(q, targets, reduction="none"), rows, dtype)
    assert_close_loss(nll(q, targets, reduction="sum"), rows.sum(), dtype)
    kept = (targets != -100).sum()
    if kept:
        assert_close_loss(nll(q, targets), rows.sum() / kept, dtype)
        assert_close_loss(nll(q, targets, base=2), rows.sum() / np.log(2) / kept, dtype)
    assert type(nll(q, targets)) is result_dtype(dtype).type


@DTYPES
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_same_bits_whatever_the_layout(rng, dtype, layout):
    q, targets = given(rng, (6, 1300), dtype)
    other = cases.LAYOUTS[layout](q)
    before = other.copy()
    assert_same_bits(nll(other, targets, reduction="none"), nll(q, targets, reduction="none"))
    assert_same_bits(other.copy(), before)


@DTYPES
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_axis(rng, dtype, axis):
    q = rng.random((3, 4, 5)).astype(dtype)
    last = np.moveaxis(q, axis, -1).copy()
    targets = rng.integers(0, last.shape[-1], last.shape[:-1])
    expected = nll(last, targets, reduction="none")
    assert_same_bits(nll(q, targets, axis=axis, reduction="none"), expected)
    assert_close_loss(expected, oracles.negative_log_likelihood(last, targets), dtype)


@DTYPES
def test_ignored_rows_hold_anything(rng, dtype):
    q, targets = given(rng, (5, 30), dtype)
    q[1], q[3, 4], q[3, 5] = np.nan, -7, np.inf
    for ignore_index in (-100, 2, 10**12):
        t = targets.copy()
        t[[0, 2, 4]], t[[1, 3]] = [0, 29, 5], ignore_index
        rows = nll(q, t, ignore_index=ignore_index, reduction="none")
        assert_same_bits(rows[[1, 3]], np.zeros(2, result_dtype(dtype)))
        mean = nll(q, t, ignore_index=ignore_index)
        assert_same_bits(mean, nll(q[[0, 2, 4]], t[[0, 2, 4]]))


@DTYPES
def test_edges(dtype):
    kind = result_dtype(dtype)
    q = np.array([[0, 1], [0, 1], [np.nan, 1], [1, 0.5]], dtype)
    rows = nll(q, [0, 1, 1, 1], reduction="none")
    np.testing.assert_array_equal(rows[:3], [np.inf, 0, np.nan])
    assert not np.signbit(rows[1])
    assert nll(q[:2], [0, 1]) == np.inf
    assert np.isnan(nll(q, [-100] * 4))
    assert nll(q, [-100] * 4, reduction="sum") == 0
    nothing = nll(np.zeros((0, 3), dtype), np.zeros(0, int), reduction="none")
    assert (nothing.shape, nothing.dtype) == ((0,), kind)
    assert np.isnan(nll(np.zeros((0, 3), dtype), np.zeros(0, int)))
    assert nll(np.array([0.25, 0.5], dtype), 1) == kind.type(np.log(2))
    smallest = np.finfo(kind).smallest_subnormal
    assert nll(np.array([smallest, 0.5], kind), 0) == pytest.approx(-np.log(float(smallest)))


def test_integers():
    for dtype in cases.INTEGERS:
        rows = nll(np.eye(3, dtype=dtype), [0, 1, 0], reduction="none")
        np.testing.assert_array_equal(rows, [0, 0, np.inf])


@pytest.mark.usefixtures("threads")
def test_same_bits_for_any_number_of_threads(rng):
    q, targets = given(rng, (700, 1000), np.float64)
    results = []
    for n in (1, 2, 5):
        fastinfo.set_num_threads(n)
        results.append(nll(q, targets))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@hypothesis.given(
    hypothesis.extra.numpy.arrays(np.float64, (3, 4), elements=st.floats(0, 1)),
    hypothesis.extra.numpy.arrays(np.int64, 3, elements=st.integers(0, 3)),
)
def test_properties(q, targets):
    """Never negative; the surprisal of the target alone; bits times log 2 are nats."""
    rows = nll(q, targets, reduction="none")
    assert (rows >= 0).all()
    assert_close_loss(rows, oracles.negative_log_likelihood(q, targets), np.float64)
    np.testing.assert_allclose(nll(q, targets, base=2, reduction="none") * np.log(2), rows, 1e-14)


def test_agrees_with_softmax_cross_entropy(rng):
    logits, targets = rng.standard_normal((20, 50)), rng.integers(0, 50, 20)
    expected = fastinfo.softmax_cross_entropy(logits, targets)
    assert nll(fastinfo.softmax(logits), targets) == pytest.approx(expected, rel=1e-13)


def test_torch(rng):
    torch = pytest.importorskip("torch")
    q, targets = given(rng, (8, 5), np.float64)
    targets[2] = -100
    q, targets = torch.from_numpy(q), torch.from_numpy(targets)
    for reduction in ("none", "mean", "sum"):
        actual = nll(q, targets, reduction=reduction)
        expected = torch.nn.functional.nll_loss(q.log(), targets, reduction=reduction)
        torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0)
    assert nll(q.to(torch.bfloat16), targets).dtype == torch.float32


def test_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    q, targets = given(rng, (40, 4), np.float64)
    expected = metrics.log_loss(targets, q, labels=range(4))
    assert nll(q, targets) == pytest.approx(expected, rel=1e-12)


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int32)], ids=str)
def test_what_is_no_probability(rng, dtype):
    """The position, and the functions for what q seems to be."""
    q = np.zeros((30, 40), dtype)
    for value in (-2, 3):
        q[29, 3] = value
        with pytest.raises(ValueError) as caught:
            nll(q, np.zeros(30, int))
        message = str(caught.value)
        assert message.startswith("q must be in [0, 1]")
        assert f"got {value}" in message and "(29, 3)" in message
        assert "softmax_cross_entropy" in message and "log-probabilities" in message
        with pytest.raises(ValueError, match=r"\(3, 29\)"):
            nll(q.T, np.zeros(30, int), axis=0)
    for value in (np.inf, -np.inf, 1 + 1e-15, -5e-324):
        q = np.zeros((3, 4))
        q[1, 2], q[1, 0] = value, np.nan
        with pytest.raises(ValueError, match=r"\bq\b.*\(1, 2\)"):
            nll(q, [0, 0, 0])
    with pytest.raises(ValueError, match=r"\bq\b.*got 2.*position 1"):
        nll([0.0, 2.0], 0)


def test_other_errors():
    q = np.full((3, 4), 0.25)
    with pytest.raises(IndexError, match=r"targets.*\[0, 4\).*got 4 at row 1"):
        nll(q, [0, 4, 0])
    with pytest.raises(TypeError, match=r"targets.*integer"):
        nll(q, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"targets.*\(3,\).*\(2,\)"):
        nll(q, [0, 1])
    with pytest.raises(ValueError, match=r"base.*1"):
        nll(q, [0, 1, 2], base=1)
    with pytest.raises(ValueError, match=r"reduction.*'none'"):
        nll(q, [0, 1, 2], reduction="avg")
    with pytest.raises(ValueError, match=r"\bq\b.*class"):
        nll(np.zeros((3, 0)), [0, 0, 0])
    with pytest.raises(TypeError, match=r"\bq\b.*complex"):
        nll(q.astype(complex), [0, 1, 2])
    with pytest.raises(ValueError, match="axis"):
        nll(q, [0, 1, 2], axis=2)
