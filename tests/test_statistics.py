"""softmax_statistics: every field by its definition, ranks and ties, invalid rows."""

import cases
import numpy as np
import oracles
import pytest
from accuracy import assert_close_log, assert_close_loss, assert_same_bits, result_dtype
from cases import FLOATS, WIDE_FLOATS

import fastinfo
from fastinfo.cpu import lanes

FIELDS = (
    "max",
    "log_sum",
    "logsumexp",
    "entropy",
    "argmax",
    "target_log_prob",
    "target_rank",
)
ACCURACY = {
    "max": assert_close_log,
    "log_sum": assert_close_loss,
    "logsumexp": assert_close_log,
    "entropy": assert_close_loss,
    "target_log_prob": assert_close_loss,
}


def check(logits, targets, **options):
    """Compare every field with the oracle, of rows one after the other and side by side."""
    exact = oracles.softmax_statistics(logits, targets, **options)
    actual = fastinfo.softmax_statistics(logits, targets, **options)
    results, n = [actual], len(logits)
    if n:
        beside = np.resize(logits, (16 * n, logits.shape[-1])).T.copy()
        found = fastinfo.softmax_statistics(beside, np.resize(targets, 16 * n), axis=0, **options)
        results.append(type(actual)(*(field[-n:] for field in found)))
    for result in results:
        for field, assert_close in ACCURACY.items():
            assert_close(getattr(result, field), exact[field], logits.dtype)
        for field in ("argmax", "target_rank"):
            assert_same_bits(getattr(result, field), np.asarray(exact[field], np.int64))
    return actual


def test_fields():
    result = fastinfo.softmax_statistics([[1.0, 2.0]])
    assert isinstance(result, fastinfo.SoftmaxStatistics)
    assert result._fields == FIELDS
    assert result.target_log_prob is None
    assert result.target_rank is None
    assert_close_loss(result.entropy, [0.582203108888217912], np.float64)


@pytest.mark.parametrize("v", cases.CLASSES)
def test_number_of_classes(rng, v):
    n = 4 if v <= 4097 else 2
    targets = rng.integers(0, v, n)
    targets[:2] = 0, v - 1
    for dtype in FLOATS:
        check(cases.normal_logits(rng, (n, v), dtype), targets)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [1, 2, 5, 17])
def test_few_classes_one_after_the_other(rng, v, dtype, monkeypatch):
    """The way that longer rows go is right for these too."""
    monkeypatch.setattr(lanes, "NARROW", 0)
    check(cases.normal_logits(rng, (6, v), dtype), rng.integers(0, v, 6))
    check(rng.integers(0, 3, (6, v)).astype(dtype), rng.integers(0, v, 6), softcap=30.0)


@pytest.mark.parametrize("n", cases.ROWS)
def test_number_of_rows(rng, n):
    check(cases.normal_logits(rng, (n, 33), np.float32), rng.integers(0, 33, n))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030, 2500])
def test_finite_rows(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    logits = np.stack(rows)
    for targets in (np.zeros(len(rows), int), np.full(len(rows), v - 1), logits.argmax(-1)):
        check(logits, targets)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 1030])
def test_invalid_rows(rng, v, dtype):
    """`max` and `logsumexp` follow SciPy; what needs a distribution is NaN; others untouched."""
    bad = np.stack(list(cases.invalid_logits(v).values())).astype(dtype)
    logits = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 2, axis=0)
    logits[::2] = bad
    targets = np.full(len(logits), v - 1)
    actual = fastinfo.softmax_statistics(logits, targets)
    exact = oracles.softmax_statistics(logits, targets)
    for field in ("max", "logsumexp"):
        assert_close_log(getattr(actual, field), exact[field], dtype)
    for field in ("log_sum", "entropy", "target_log_prob"):
        assert np.isnan(getattr(actual, field)[::2]).all()
    alone = fastinfo.softmax_statistics(logits[1::2], targets[1::2])
    assert_same_bits(tuple(field[1::2] for field in actual), tuple(alone))
    beside = fastinfo.softmax_statistics(logits.T.copy(), targets, axis=0)
    for field in ("max", "logsumexp"):
        assert_close_log(getattr(beside, field), exact[field], dtype)
    for field in ("argmax", "target_rank"):
        assert_same_bits(getattr(beside, field), getattr(actual, field))
    assert_same_bits(np.isnan(beside.entropy), np.isnan(actual.entropy))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "options", [{"temperature": 0.3}, {"softcap": 30.0}, {"softcap": 5.0, "temperature": 1.5}]
)
@pytest.mark.parametrize("v", [6, 1100])
def test_options(rng, v, options, dtype):
    logits = cases.normal_logits(rng, (5, v), dtype)
    targets = rng.integers(0, v, 5)
    targets[2] = -100
    check(logits, targets, **options)


def test_ranks_are_of_the_raw_logits():
    """A softcap that saturates, or a temperature that rounds, ties nothing."""
    logits = np.array([[100.0, 101.0, 102.0, 99.0]], np.float32)
    for target, rank in enumerate((2, 1, 0, 3)):
        result = fastinfo.softmax_statistics(logits, [target], softcap=1.0)
        assert (int(result.argmax[0]), int(result.target_rank[0])) == (2, rank)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [3, 40, 1500])
def test_ties_go_to_the_smaller_index(rng, v, dtype):
    logits = rng.integers(0, 3, (v, v)).astype(dtype)
    actual = check(logits, np.arange(v))
    order = np.argsort(-logits.astype(np.float64), axis=-1, kind="stable")
    assert_same_bits(actual.target_rank, np.argsort(order, axis=-1)[np.arange(v), np.arange(v)])
    assert_same_bits(actual.target_rank == 0, actual.argmax == np.arange(v))
    equal = fastinfo.softmax_statistics(np.zeros((v, v), dtype), np.arange(v))
    assert_same_bits(equal.target_rank, np.arange(v))
    assert (equal.argmax == 0).all()


def test_zeros_of_either_sign_are_equal():
    logits = np.array([[-0.0, 0.0, -1.0], [0.0, -0.0, -1.0]], np.float32)
    for target in (0, 1):
        result = fastinfo.softmax_statistics(logits, [target, target])
        assert_same_bits(result.argmax, np.zeros(2, np.int64))
        assert_same_bits(result.target_rank, np.full(2, target))


def test_ranks_among_masked_classes():
    logits = np.array([[-np.inf, 1.0, -np.inf, 2.0, -np.inf]])
    for target, rank in enumerate((2, 1, 3, 0, 4)):
        result = fastinfo.softmax_statistics(logits, [target])
        assert int(result.target_rank[0]) == rank
        assert np.isneginf(result.target_log_prob[0]) == (rank >= 2)


def test_ignored_rows(rng):
    """Only the fields of the target are empty; the others are as without targets."""
    logits = cases.normal_logits(rng, (4, 9), np.float64)
    result = fastinfo.softmax_statistics(logits, [3, -1, 0, -1], ignore_index=-1)
    assert_same_bits(np.isnan(result.target_log_prob), np.array([False, True, False, True]))
    assert_same_bits(result.target_rank == -1, np.array([False, True, False, True]))
    assert_same_bits(tuple(result[:5]), tuple(fastinfo.softmax_statistics(logits)[:5]))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_log_probability_is_minus_the_loss(rng, dtype):
    logits = cases.normal_logits(rng, (6, 3000), dtype)
    targets = logits.argmax(-1)
    result = fastinfo.softmax_statistics(logits, targets)
    loss = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    np.testing.assert_allclose(
        result.target_log_prob, -loss, rtol=4e-5 if dtype == np.float32 else 2e-12
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_axis(rng, dtype):
    logits = cases.normal_logits(rng, (3, 40, 4), dtype)
    targets = rng.integers(0, 40, (3, 4))
    last = np.moveaxis(logits, 1, -1).copy()
    assert_same_bits(
        tuple(fastinfo.softmax_statistics(logits, targets, axis=1)),
        tuple(fastinfo.softmax_statistics(last, targets)),
    )


def test_one_row_gives_scalars():
    result = fastinfo.softmax_statistics(np.array([0.0, 1.0], np.float32), 0)
    assert [type(field) for field in result] == [np.float32] * 4 + [np.int64, np.float32, np.int64]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nothing(dtype):
    result = fastinfo.softmax_statistics(np.zeros((0, 4), dtype), np.zeros(0, int))
    kind, int64 = result_dtype(dtype), np.dtype(np.int64)
    assert [field.shape for field in result] == [(0,)] * 7
    assert [field.dtype for field in result] == [kind] * 4 + [int64, kind, int64]


@pytest.mark.parametrize("dtype", FLOATS)
def test_ranks_of_rows_with_nan_count_it_above_all_numbers(dtype):
    row = np.array([0.0, 1.0, np.nan, 2.0, 1.0, np.nan, 5.0] + [0.5] * 40, dtype)
    n = row.size
    above = np.where(np.isnan(row.astype(float)), np.inf, row.astype(float))
    order = np.lexsort((np.arange(n), -above))
    expected = np.empty(n, int)
    expected[order] = np.arange(n)
    figures = fastinfo.softmax_statistics(np.tile(row, (n, 1)), np.arange(n))
    np.testing.assert_array_equal(figures.target_rank, expected)
    assert (figures.argmax == 2).all()
    stream = fastinfo.StreamingCrossEntropy(np.arange(n), target_logits=row)
    for start in range(0, n, 4):
        stream.update(np.tile(row[start : start + 4], (n, 1)), start)
    figures = stream.statistics()
    np.testing.assert_array_equal(figures.target_rank, expected)
    assert (figures.argmax == 2).all()
