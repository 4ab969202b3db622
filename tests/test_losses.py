"""Values of softmax_cross_entropy and perplexity."""

import cases
import numpy as np
import oracles
import pytest
from accuracy import assert_close_loss, assert_same_bits, result_dtype
from cases import FLOATS, WIDE_FLOATS

import fastinfo

REDUCTIONS = ["none", "sum", "mean"]
OPTIONS = list(cases.loss_options(np.random.default_rng(0), 3, 4))


def check(logits, targets, **options):
    """Compare the rows with the oracle, in the dtype of the logits."""
    exact = oracles.softmax_cross_entropy(logits, targets, **options).rows
    actual = fastinfo.softmax_cross_entropy(logits, targets, reduction="none", **options)
    assert_close_loss(actual, exact, logits.dtype)


@pytest.mark.parametrize("v", cases.CLASSES)
def test_number_of_classes(rng, v):
    n = 4 if v <= 4097 else 2
    targets = rng.integers(0, v, n)
    targets[:2] = 0, v - 1
    for dtype in FLOATS:
        check(cases.normal_logits(rng, (n, v), dtype), targets)


@pytest.mark.parametrize("n", cases.ROWS)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_number_of_rows(rng, n, dtype):
    check(cases.normal_logits(rng, (n, 33), dtype), rng.integers(0, 33, n))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030, 2500])
def test_finite_rows(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    logits = np.stack(rows)
    for targets in (np.zeros(len(rows), int), np.full(len(rows), v - 1), logits.argmax(-1)):
        check(logits, targets)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 1030])
def test_invalid_rows_are_nan_and_touch_no_other(rng, v, dtype):
    bad = np.stack(list(cases.invalid_logits(v).values())).astype(dtype)
    logits = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 2, axis=0)
    logits[::2] = bad
    targets = np.full(len(logits), v - 1)
    rows = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    assert np.isnan(rows[::2]).all()
    assert_same_bits(
        rows[1::2],
        fastinfo.softmax_cross_entropy(logits[1::2], targets[1::2], reduction="none"),
    )


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("v", [6, 1100])
def test_options(rng, name, dtype, v):
    n = 7
    options = cases.loss_options(rng, n, v)[name]
    logits = cases.normal_logits(rng, (n, v), dtype)
    targets = rng.integers(0, v, n)
    targets[1] = -100
    check(logits, targets, **options)
    check(logits, rng.uniform(0, 2, (n, v)), **options)


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
def test_options_of_16_bit_logits(rng, dtype):
    n, v = 5, 1100
    options = cases.loss_options(rng, n, v)["everything"]
    logits = cases.normal_logits(rng, (n, v), dtype)
    check(logits, rng.integers(0, v, n), **options)
    check(logits, rng.dirichlet(np.ones(v), n), **options)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", ["temperature", "cold", "label_smoothing", "z_loss", "softcap"])
def test_options_on_hard_rows(rng, name, dtype):
    v = 40
    hard = cases.finite_logits(v)
    logits = np.stack([row for key, row in hard.items() if "masked" not in key]).astype(dtype)
    options = cases.loss_options(rng, len(logits), v)[name]
    check(logits, logits.argmax(-1), **options)
    check(logits, logits.argmin(-1), **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_common_offset_changes_nothing(rng, dtype):
    """Offsets that are exact in the dtype give the loss without them, to the last digits."""
    logits = (rng.integers(-24, 24, (4, 300)) * 8.0).astype(dtype)
    targets = rng.integers(0, 300, 4)
    rows = oracles.softmax_cross_entropy(logits, targets).rows
    for offset in (1024.0, -1024.0) if dtype.itemsize == 2 else (2.0**20, -(2.0**20)):
        moved = (logits.astype(np.float64) + offset).astype(dtype)
        assert (moved.astype(np.float64) - offset == logits.astype(np.float64)).all()
        actual = fastinfo.softmax_cross_entropy(moved, targets, reduction="none")
        assert_close_loss(actual, rows, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_masked_classes(rng, dtype):
    """A masked class is one that is not there; with weight on it the loss is infinite."""
    logits = cases.normal_logits(rng, (6, 2100), dtype)
    masked = rng.random(2100) < 0.5
    masked[[0, 5]] = True, False
    logits[:, masked] = -np.inf
    kept = np.flatnonzero(~masked)
    actual = fastinfo.softmax_cross_entropy(logits, np.full(6, 5), reduction="none")
    exact = oracles.softmax_cross_entropy(logits[:, kept], np.full(6, np.searchsorted(kept, 5)))
    assert_close_loss(actual, exact.rows, dtype)
    for options in ({}, {"softcap": 4.0}, {"temperature": 2.0}, {"z_loss": 0.1}):
        rows = fastinfo.softmax_cross_entropy(
            logits, [0, 5, 0, 5, 0, 5], reduction="none", **options
        )
        assert np.isposinf(rows[::2]).all()
        assert np.isfinite(rows[1::2]).all()
    smoothed = fastinfo.softmax_cross_entropy(logits, np.full(6, 5), label_smoothing=0.1)
    assert np.isposinf(smoothed)
    weights = np.where(masked, 0.0, 1.0)
    check(logits, np.full(6, 5), label_smoothing=0.1, class_weight=weights)
    probabilities = np.where(masked, 0.0, rng.random((6, 2100)))
    check(logits, probabilities)


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
@pytest.mark.parametrize("name", ["plain", "class_weight", "sample_weight", "everything"])
def test_reductions(rng, name, soft, dtype):
    n, v = 9, 21
    options = cases.loss_options(rng, n, v)[name]
    logits = cases.normal_logits(rng, (n, v), dtype)
    targets = rng.uniform(0, 1, (n, v)) if soft else rng.integers(0, v, n)
    if not soft:
        targets[2] = -100
    loss = oracles.softmax_cross_entropy(logits, targets, **options)
    for reduction in REDUCTIONS:
        value, _, _ = oracles.reduced(loss, reduction)
        actual = fastinfo.softmax_cross_entropy(logits, targets, reduction=reduction, **options)
        assert_close_loss(actual, value, dtype)
    assert type(actual) is dtype.type
    assert_same_bits(fastinfo.softmax_cross_entropy(logits, targets, **options), actual)


def test_mean_of_many_small_losses(rng):
    """A float32 sum of 300,000 confident rows keeps its digits."""
    logits = np.zeros((300_000, 2), np.float32)
    logits[:, 1] = rng.uniform(8, 12, 300_000)
    targets = np.ones(300_000, np.int64)
    exact = oracles.softmax_cross_entropy(logits, targets).rows
    for reduction, value in (("mean", exact.mean()), ("sum", exact.sum())):
        actual = fastinfo.softmax_cross_entropy(logits, targets, reduction=reduction)
        assert_close_loss(actual, value, np.float32)


@pytest.mark.parametrize("ignore_index", [-100, 3, 0, 10**12, -1])
def test_ignored_rows(rng, ignore_index):
    logits = cases.normal_logits(rng, (8, 11), np.float32)
    targets = rng.integers(0, 11, 8)
    targets[[1, 4]] = ignore_index
    ignored = targets == ignore_index
    logits[1] = np.nan
    rows = fastinfo.softmax_cross_entropy(
        logits, targets, ignore_index=ignore_index, reduction="none"
    )
    assert (rows[ignored] == 0).all()
    assert not np.signbit(rows[ignored]).any()
    check(logits, targets, ignore_index=ignore_index)
    mean = fastinfo.softmax_cross_entropy(logits, targets, ignore_index=ignore_index)
    assert_close_loss(mean, oracles.wide(rows)[~ignored].mean(), np.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_all_rows_ignored(dtype):
    logits, targets = np.zeros((3, 5), dtype), np.full(3, -100)
    assert np.isnan(fastinfo.softmax_cross_entropy(logits, targets))
    assert fastinfo.softmax_cross_entropy(logits, targets, reduction="sum") == 0
    rows = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    assert_same_bits(rows, np.zeros(3, result_dtype(dtype)))
    nothing = fastinfo.softmax_cross_entropy(logits, np.ones(3, int), sample_weight=np.zeros(3))
    assert np.isnan(nothing)


@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
def test_sample_weight_zero_ignores_the_row(rng, soft):
    logits = cases.normal_logits(rng, (4, 6), np.float64)
    logits[1], logits[2] = np.nan, -np.inf
    targets = rng.random((4, 6)) if soft else np.array([0, 1, 2, 3])
    weight = np.array([1.0, 0.0, 0.0, 2.0])
    kept = [0, 3]
    rows = fastinfo.softmax_cross_entropy(logits, targets, sample_weight=weight, reduction="none")
    assert (rows[[1, 2]] == 0).all()
    mean = fastinfo.softmax_cross_entropy(logits, targets, sample_weight=weight)
    exact = oracles.softmax_cross_entropy(logits[kept], targets[kept], sample_weight=weight[kept])
    assert_close_loss(mean, exact.rows.sum() / 3, np.float64)


def test_class_weight_of_zero(rng):
    """It is no ignored row: it counts nothing in the mean and stays NaN where the logits are."""
    logits = cases.normal_logits(rng, (3, 4), np.float64)
    logits[2, 0] = np.nan
    weight = [0.0, 1.0, 0.5, 0.0]
    rows = fastinfo.softmax_cross_entropy(logits, [0, 2, 3], class_weight=weight, reduction="none")
    assert rows[0] == 0
    assert np.isnan(rows[2])
    mean = fastinfo.softmax_cross_entropy(logits[:2], [0, 2], class_weight=weight)
    exact = oracles.softmax_cross_entropy(logits[1:2], [2]).rows[0]
    assert_close_loss(mean, exact, np.float64)


@pytest.mark.parametrize("dtype", cases.TARGET_DTYPES, ids=str)
def test_target_dtypes(rng, dtype):
    logits = cases.normal_logits(rng, (5, 200), np.float32)
    targets = np.array([0, 199, 127, 128, 3])
    expected = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    actual = fastinfo.softmax_cross_entropy(logits, targets.astype(dtype), reduction="none")
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("swap", [False, True], ids=["native", "swapped bytes"])
def test_target_layouts(rng, swap):
    logits = cases.normal_logits(rng, (6, 30), np.float32)
    targets = rng.integers(0, 30, 12).astype(">i4" if swap else "<i4")[::2]
    check(logits, targets)
    check(logits, np.broadcast_to(targets[:1], 6))
    check(logits, np.asfortranarray(rng.random((6, 30)).astype(">f4" if swap else "<f4")))
    check(logits, np.broadcast_to(rng.random(30), (6, 30)))


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, cases.BFLOAT16, np.int32])
def test_probabilities_of_any_dtype(rng, kind):
    """Integers in the logits' shape are probabilities too: the one-hot rows give the loss."""
    logits = cases.normal_logits(rng, (4, 9), np.float32)
    classes = rng.integers(0, 9, 4)
    actual = fastinfo.softmax_cross_entropy(logits, np.eye(9)[classes].astype(kind))
    exact = oracles.softmax_cross_entropy(logits, classes).rows.mean()
    assert_close_loss(actual, exact, np.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_axis(rng, axis, dtype):
    logits = cases.normal_logits(rng, (3, 5, 4, 6), dtype)
    last = np.moveaxis(logits, axis, -1)
    v = last.shape[-1]
    targets = rng.integers(0, v, last.shape[:-1])
    targets[0, 0, 0] = -100
    rows = fastinfo.softmax_cross_entropy(logits, targets, axis=axis, reduction="none")
    expected = fastinfo.softmax_cross_entropy(last.copy(), targets, reduction="none")
    assert_same_bits(rows, expected)
    assert_close_loss(rows, oracles.softmax_cross_entropy(last, targets).rows, dtype)
    probabilities = rng.random(last.shape)
    rows = fastinfo.softmax_cross_entropy(
        logits, np.moveaxis(probabilities, -1, axis), axis=axis, reduction="none"
    )
    exact = oracles.softmax_cross_entropy(last, probabilities).rows
    assert_close_loss(rows, exact, dtype)


def test_weights_of_rows_in_more_dimensions(rng):
    logits = cases.normal_logits(rng, (2, 7, 3), np.float64)
    targets, weight = rng.integers(0, 7, (2, 3)), rng.random((2, 3))
    mean = fastinfo.softmax_cross_entropy(logits, targets, axis=1, sample_weight=weight)
    loss = oracles.softmax_cross_entropy(np.moveaxis(logits, 1, -1), targets, sample_weight=weight)
    assert_close_loss(mean, loss.rows.sum() / loss.weights.sum(), np.float64)


def test_one_row_without_other_axes():
    loss = fastinfo.softmax_cross_entropy([1.0, 2.0, 4.0], 1)
    exact = oracles.softmax_cross_entropy([[1.0, 2.0, 4.0]], [1]).rows[0]
    assert isinstance(loss, np.float64)
    assert_close_loss(loss, exact, np.float64)
    rows = fastinfo.softmax_cross_entropy(np.array([1.0, 2.0, 4.0]), 1, reduction="none")
    assert_same_bits(rows, loss)


@pytest.mark.parametrize("dtype", [*cases.INTEGERS, np.dtype(bool)], ids=str)
def test_integer_logits_are_float64(rng, dtype):
    logits = rng.integers(0, 2 if dtype.kind == "b" else 100, (3, 1500)).astype(dtype)
    targets = rng.integers(0, 1500, 3)
    rows = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    expected = fastinfo.softmax_cross_entropy(logits.astype(np.float64), targets, reduction="none")
    assert_same_bits(rows, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nothing(dtype):
    kind = result_dtype(dtype)
    logits, targets = np.zeros((0, 4), dtype), np.zeros(0, np.int64)
    rows = fastinfo.softmax_cross_entropy(logits, targets, reduction="none")
    assert (rows.shape, rows.dtype) == ((0,), kind)
    assert np.isnan(fastinfo.softmax_cross_entropy(logits, targets))
    assert fastinfo.softmax_cross_entropy(logits, targets, reduction="sum") == 0
    loss, grad = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True)
    assert np.isnan(loss)
    assert (grad.shape, grad.dtype) == ((0, 4), dtype)
    shape = fastinfo.softmax_cross_entropy(
        np.zeros((2, 4, 0), dtype), np.zeros((2, 0), int), axis=1, reduction="none"
    ).shape
    assert shape == (2, 0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_perplexity(rng, dtype):
    logits = cases.normal_logits(rng, (20, 50), dtype)
    targets = rng.integers(0, 50, 20)
    targets[3] = -100
    exact = oracles.softmax_cross_entropy(logits, targets).rows
    actual = fastinfo.perplexity(logits, targets)
    kind = result_dtype(dtype)
    assert type(actual) is kind.type
    expected = float(np.exp(exact.sum() / 19))
    assert actual == pytest.approx(expected, rel=1e-12 if kind == np.float64 else 1e-4)
    assert np.isnan(fastinfo.perplexity(logits, np.full(20, -100)))
    moved = fastinfo.perplexity(logits.T.copy(), targets, axis=0)
    assert moved == pytest.approx(expected, rel=1e-12 if kind == np.float64 else 1e-4)


def test_perplexity_of_uniform_rows_is_the_number_of_classes():
    for v in (1, 2, 100):
        perplexity = fastinfo.perplexity(np.zeros((3, v)), [0, 0, v - 1])
        assert perplexity == pytest.approx(v, rel=1e-12)
    assert fastinfo.perplexity(np.zeros((2, 4)), [0, 2], ignore_index=2) == pytest.approx(4)


@pytest.mark.parametrize("v", [5, 1000])
def test_targets_as_they_come(rng, v):
    """Read where they lie, and never changed."""
    x, y = cases.normal_logits(rng, (60, v), np.dtype(np.float32)), rng.integers(0, 5, 60)
    expected = fastinfo.softmax_cross_entropy(x, y, reduction="none", return_grad=True)
    memory = np.zeros(60 * 8 + 1, np.int8)
    unaligned = memory[1:].view(np.int64)
    unaligned[:] = y
    frozen = y.copy()
    frozen.flags.writeable = False
    for given in (frozen, unaligned, y.astype(">u8"), list(y)):
        before = np.array(given)
        found = fastinfo.softmax_cross_entropy(x, given, reduction="none", return_grad=True)
        assert_same_bits(found, expected)
        assert_same_bits(np.array(given), before)
    for wrong in (-1, 5 + v, -(2**62)):
        y[7] = wrong
        with pytest.raises(IndexError, match=f"got {wrong} at row 7"):
            fastinfo.softmax_cross_entropy(x, y)
