"""StreamingCrossEntropy: any pieces in any order give the figures of the whole; errors."""

import copy
import itertools
import multiprocessing
import pickle
import re

import cases
import numpy as np
import oracles
import pytest
from accuracy import (
    RTOL,
    assert_close_gradient,
    assert_close_log,
    assert_close_loss,
    assert_same_bits,
    assert_within,
    gradient_dtype,
    result_dtype,
)
from cases import FLOATS, WIDE_FLOATS
from hypothesis import given
from hypothesis import strategies as st

import fastinfo
from fastinfo import StreamingCrossEntropy
from fastinfo.cpu.row_state_kernels import PIECE

REDUCTIONS = ["none", "sum", "mean"]
ACCURACY = {
    "max": assert_close_log,
    "log_sum": assert_close_loss,
    "logsumexp": assert_close_log,
    "entropy": assert_close_loss,
    "target_log_prob": assert_close_loss,
}


def own_logits(logits, targets, ignore_index=-100):
    """Return the logits of the targets, as float64."""
    at = np.where(targets == ignore_index, 0, targets)[..., None]
    return np.take_along_axis(logits, at, -1)[..., 0].astype(np.float64)


def cuts(rng, v, pieces):
    """Return [(start, stop)] of pieces of `v` classes, shuffled."""
    inner = rng.choice(np.arange(1, v), min(pieces, v) - 1, replace=False) if v > 1 else []
    bounds = [0, *sorted(int(i) for i in inner), v]
    ranges = list(itertools.pairwise(bounds))
    rng.shuffle(ranges)
    return [tuple(int(i) for i in r) for r in ranges]


def filled(logits, targets, ranges, **options):
    """Return a stream that has read these ranges of the logits."""
    stream = StreamingCrossEntropy(targets, **options)
    for start, stop in ranges:
        stream.update(logits[..., start:stop], start)
    return stream


def check(logits, targets, ranges, ranked=True, **options):
    """Compare every figure and the gradients of all pieces with the oracle; return the stream."""
    known = own_logits(logits, targets, **options) if ranked else None
    stream = filled(logits, targets, ranges, target_logits=known, **options)
    check_stream(stream, logits, targets, ranges, ranked, **options)
    return stream


def check_stream(stream, logits, targets, ranges, ranked=True, **options):
    kept = targets != options.get("ignore_index", -100)
    exact = oracles.softmax_cross_entropy(logits, targets, **options)
    for reduction in REDUCTIONS:
        value, grad, terms = oracles.reduced(exact, reduction)
        assert_close_loss(stream.loss(reduction), value, logits.dtype)
    parts = np.empty(logits.shape, gradient_dtype(logits.dtype))
    for start, stop in ranges:
        parts[..., start:stop] = stream.grad(logits[..., start:stop], start)
    assert_close_gradient(parts, grad, terms, logits.dtype)
    assert not parts[~kept].any()
    figures, truth = stream.statistics(), oracles.softmax_statistics(logits, targets, **options)
    for field, assert_close in ACCURACY.items():
        assert_close(getattr(figures, field), np.where(kept, truth[field], np.nan), logits.dtype)
    assert_same_bits(stream.logsumexp(), figures.logsumexp)
    expected = np.where(kept, truth["argmax"], -1)
    assert_same_bits(figures.argmax, np.asarray(expected, np.int64))
    assert_same_bits(figures.target_rank, truth["target_rank"] if ranked else None)


# Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [1, 2, 7, 33, 257, 4097, 50257])
def test_pieces_in_any_order(rng, v, dtype):
    targets = rng.integers(0, v, 4)
    targets[:2] = 0, v - 1
    check(cases.normal_logits(rng, (4, v), dtype), targets, cuts(rng, v, 5))


@given(st.data())
def test_sizes_and_orders(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, v = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 300))
    dtype = data.draw(st.sampled_from(FLOATS))
    spread = data.draw(st.sampled_from([0.0, 1.0, 30.0]))
    logits = cases.normal_logits(rng, (n, v), dtype, spread)
    logits[rng.random((n, v)) < data.draw(st.sampled_from([0.0, 0.9]))] = -np.inf
    logits[:, v // 2] = rng.integers(-2, 3, n)
    targets = np.where(rng.random(n) < 0.2, -100, rng.integers(0, v, n))
    ranges = cuts(rng, v, data.draw(st.integers(1, v)))
    ranked = data.draw(st.booleans())
    known = own_logits(logits, targets) if ranked else None
    half = data.draw(st.integers(0, len(ranges)))
    first = filled(logits, targets, ranges[:half], target_logits=known)
    second = filled(logits, targets, ranges[half:], target_logits=known)
    stream = first.merge(pickle.loads(pickle.dumps(second)))
    assert stream.ranges == [(0, v)]
    check_stream(stream, logits, targets, ranges, ranked and (n > 0 or stream._read.ranked))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030])
def test_finite_rows(rng, v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    logits = np.stack(rows)
    for targets in (np.zeros(len(rows), int), np.full(len(rows), v - 1), logits.argmax(-1)):
        check(logits, targets, cuts(rng, v, 4))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 1030])
def test_invalid_rows_are_nan_and_touch_no_other(rng, v, dtype):
    bad = np.stack(list(cases.invalid_logits(v).values())).astype(dtype)
    logits = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 2, axis=0)
    logits[::2] = bad
    targets = np.full(len(logits), v - 1)
    ranges = cuts(rng, v, 3)
    stream = filled(logits, targets, ranges, target_logits=own_logits(logits, targets))
    assert np.isnan(stream.loss("none")[::2]).all()
    figures, whole = stream.statistics(), fastinfo.softmax_statistics(logits, targets)
    for field in ("max", "logsumexp", "log_sum", "entropy", "target_log_prob"):
        expected = getattr(whole, field)[::2]
        np.testing.assert_array_equal(getattr(figures, field)[::2], expected)
    assert_same_bits(figures.argmax, whole.argmax)
    assert_same_bits(figures.argmax, logits.astype(np.float64).argmax(-1))
    assert_same_bits(figures.target_rank, whole.target_rank)
    alone = filled(logits[1::2], targets[1::2], ranges)
    assert_same_bits(stream.loss("none")[1::2], alone.loss("none"))
    for start, stop in ranges:
        grad = stream.grad(logits[:, start:stop], start, "sum")
        assert np.isnan(grad[::2].astype(np.float64)).all()
        assert_same_bits(grad[1::2], alone.grad(logits[1::2, start:stop], start, "sum"))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_common_offset_changes_nothing(rng, dtype):
    logits = (rng.integers(-24, 24, (4, 300)) * 8.0).astype(dtype)
    targets = rng.integers(0, 300, 4)
    rows = oracles.softmax_cross_entropy(logits, targets).rows
    for offset in (1024.0, -1024.0) if dtype.itemsize == 2 else (2.0**20, -(2.0**20)):
        moved = (logits.astype(np.float64) + offset).astype(dtype)
        assert_close_loss(filled(moved, targets, cuts(rng, 300, 7)).loss("none"), rows, dtype)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_offset_of_a_million(rng, dtype):
    logits = cases.normal_logits(rng, (6, 700), dtype) + dtype.type(1e6)
    check(logits, rng.integers(0, 700, 6), cuts(rng, 700, 9))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_confident_rows_keep_all_digits(rng, dtype):
    logits = cases.normal_logits(rng, (9, 500), dtype, 1.0)
    targets = rng.integers(0, 500, 9)
    np.put_along_axis(logits, targets[:, None], dtype.type(21.0), -1)
    ranges = cuts(rng, 500, 11)
    stream = check(logits, targets, ranges)
    assert (stream.loss("none") < 1e-5).all()
    exact = oracles.softmax_cross_entropy(logits, targets)
    grads = np.empty_like(logits)
    for start, stop in ranges:
        grads[:, start:stop] = stream.grad(logits[:, start:stop], start, "sum")
    own, truth = (np.take_along_axis(g, targets[:, None], -1) for g in (grads, exact.grad))
    assert_within(own, truth, RTOL[dtype] * abs(truth), dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pieces_of_only_masked_classes(rng, dtype):
    logits = cases.normal_logits(rng, (5, 90), dtype)
    logits[:, :30], logits[:, 60:] = -np.inf, -np.inf
    targets = np.full(5, 44)
    for ranges in ([(0, 30), (30, 60), (60, 90)], [(60, 90), (0, 30), (30, 60)]):
        check(logits, targets, ranges)
    masked = filled(logits, np.array([0, 44, 70, 44, 89]), ranges)
    assert_same_bits(np.isposinf(masked.loss("none")), np.array([True, False, True, False, True]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("pieces", [2, 7, 30])
def test_ties_go_to_the_smaller_index(rng, pieces, dtype):
    logits = rng.integers(0, 3, (40, 40)).astype(dtype)
    check(logits, np.arange(40), cuts(rng, 40, pieces))
    check(np.zeros((40, 40), dtype), np.arange(40), cuts(rng, 40, pieces))
    check(np.full((3, 40), -1.0, dtype), np.array([0, 20, 39]), [(20, 40), (0, 20)])


def test_first_nan_is_the_argmax():
    logits = np.zeros((1, 30))
    logits[0, [5, 15, 25]] = np.nan
    stream = filled(logits, np.array([0]), [(20, 30), (0, 10), (10, 20)])
    assert int(stream.statistics().argmax[0]) == 5


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_chunks_wider_than_a_piece(rng, dtype):
    v = PIECE + 5000
    logits = cases.normal_logits(rng, (2, v), dtype)
    for targets in (np.array([7, v - 1]), np.array([PIECE, -100])):
        check(logits, targets, [(2000, v), (0, 2000)])
        check(np.asfortranarray(logits), targets, [(0, v)])


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layouts(rng, layout, dtype):
    logits = cases.normal_logits(rng, (6, 130), dtype)
    targets = rng.integers(0, 130, 6)
    ranges = cuts(rng, 130, 4)
    expected = filled(logits, targets, ranges)
    stream = StreamingCrossEntropy(targets)
    for start, stop in ranges:
        stream.update(cases.LAYOUTS[layout](logits[:, start:stop].copy()), start)
    assert_same_bits(stream.state(), expected.state())
    for start, stop in ranges:
        chunk = cases.LAYOUTS[layout](logits[:, start:stop].copy())
        assert_same_bits(
            stream.grad(chunk, start), expected.grad(logits[:, start:stop].copy(), start)
        )


@pytest.mark.parametrize("dtype", [*cases.INTEGERS, np.dtype(bool)], ids=str)
def test_integer_logits_are_float64(rng, dtype):
    logits = rng.integers(0, 2 if dtype.kind == "b" else 100, (3, 150)).astype(dtype)
    targets, ranges = rng.integers(0, 150, 3), cuts(rng, 150, 3)
    stream = filled(logits, targets, ranges)
    assert_same_bits(stream.state(), filled(logits.astype(np.float64), targets, ranges).state())
    assert stream.loss().dtype == np.float64
    assert stream.grad(logits, 0).dtype == np.float64


def test_threads_change_nothing(rng, threads):
    logits = cases.normal_logits(rng, (900, 3000), np.float32)
    targets, ranges = rng.integers(0, 3000, 900), cuts(rng, 3000, 4)
    states = []
    for n in (1, 2, 3):
        fastinfo.set_num_threads(n)
        states.append(filled(logits, targets, ranges).state())
    assert_same_bits(states[1], states[0])
    assert_same_bits(states[2], states[0])


# Chunks of several dtypes -----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e6 + 0.3])
def test_mixed_dtypes(rng, offset):
    """Results are in float64, with the digits of float32; gradients by each chunk's dtype."""
    narrow = cases.normal_logits(rng, (6, 50), np.float32) + np.float32(offset)
    wide = rng.standard_normal((6, 50)) * 3 + offset
    logits = np.concatenate([narrow.astype(np.float64), wide], -1)
    targets = rng.integers(0, 100, 6)
    stream = StreamingCrossEntropy(targets)
    stream.update(narrow, 0)
    assert stream.logsumexp().dtype == np.float32
    stream.update(wide, 50)
    exact = oracles.softmax_cross_entropy(logits, targets)
    assert_within(stream.loss("none"), exact.rows, 2e-5 * exact.rows, np.float64)
    _, grad, terms = oracles.reduced(exact, "mean")
    for chunk, at in ((narrow, slice(50)), (wide, slice(50, 100))):
        allowed = 2e-5 * terms[:, at] + 1e-37
        assert_within(stream.grad(chunk, at.start or 0), grad[:, at], allowed, chunk.dtype)


def test_gradient_of_floats_beside_a_maximum_beyond_them():
    stream = StreamingCrossEntropy([1])
    stream.update(np.zeros((1, 1), np.float32), 0)
    stream.update(np.array([[1e300]]), 1)
    assert_same_bits(stream.grad(np.zeros((1, 1), np.float32), 0), np.zeros((1, 1), np.float32))


def test_ranks_among_chunks_of_another_dtype():
    """A target's logit between two float32 numbers ties with neither."""
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    own = (float(low) + float(high)) / 2 + np.array([-1e-9, 0.0, 1e-9])
    narrow = np.tile(np.array([low, high], np.float32), (3, 1))
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        stream = StreamingCrossEntropy([2, 2, 2], target_logits=own)
        chunks = [(narrow, 0), (own[:, None], 2), (narrow, 3)]
        for i in order:
            stream.update(*chunks[i])
        assert_same_bits(stream.statistics().target_rank, np.array([2, 2, 2]))


def test_dtype_of_results_is_kept(rng):
    x, targets = cases.normal_logits(rng, (3, 8), np.float32), np.array([0, 4, 7])
    narrow, wide = filled(x, targets, [(0, 4)]), StreamingCrossEntropy(targets)
    wide.update(x[:, 4:].astype(np.float64), 4)
    assert narrow.logsumexp().dtype == np.float32
    for stream in (wide, StreamingCrossEntropy.from_state(targets, wide.state(), wide.ranges)):
        assert stream.logsumexp().dtype == np.float64
        assert copy.copy(narrow).merge(stream).loss().dtype == np.float64
        assert copy.copy(stream).merge(narrow).loss().dtype == np.float64


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignore_index", [-100, 3, 0, 10**12, -1])
def test_ignored_rows(rng, ignore_index):
    logits = cases.normal_logits(rng, (8, 11), np.float32)
    targets = rng.integers(0, 11, 8)
    targets[[1, 4]] = ignore_index
    logits[1] = np.nan
    ranges = [(4, 11), (0, 4)]
    stream = check(logits, targets, ranges, ignore_index=ignore_index)
    rows = stream.loss("none")
    assert (rows[targets == ignore_index] == 0).all()
    assert not np.signbit(rows[targets == ignore_index]).any()


def test_all_rows_ignored():
    stream = filled(np.full((3, 5), np.nan), np.full(3, -100), [(0, 5)])
    assert np.isnan(stream.loss())
    assert stream.loss("sum") == 0
    assert_same_bits(stream.grad(np.full((3, 5), np.nan), 0), np.zeros((3, 5)))
    assert np.isnan(StreamingCrossEntropy([-100]).loss())


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 4)])
def test_targets_of_any_shape(rng, shape):
    targets = rng.integers(0, 20, shape)
    logits = cases.normal_logits(rng, (*shape, 20), np.float32)
    stream = check(logits, np.asarray(targets), [(12, 20), (0, 12)])
    assert stream.loss("none").shape == shape
    assert stream.state().shape[0] == int(np.prod(shape))
    assert type(stream.loss()) is np.float32


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nothing(dtype):
    stream = filled(np.zeros((0, 4), dtype), np.zeros(0, int), [(2, 4), (0, 2)])
    kind = result_dtype(dtype)
    assert (stream.loss("none").shape, stream.loss("none").dtype) == ((0,), kind)
    assert np.isnan(stream.loss())
    assert stream.grad(np.zeros((0, 4), dtype), 0).shape == (0, 4)
    assert stream.statistics().target_rank is None
    again = StreamingCrossEntropy.from_state(np.zeros(0, int), stream.state(), stream.ranges)
    assert again.loss("sum") == 0
    assert again.statistics().target_rank is None


def test_before_the_first_piece():
    stream = StreamingCrossEntropy([1, -100])
    assert stream.ranges == []
    assert_same_bits(stream.logsumexp(), np.array([-np.inf, np.nan], np.float32))
    figures = stream.statistics()
    assert_same_bits(figures.argmax, np.array([-1, -1]))
    assert np.isnan(figures.entropy).all()
    assert (stream.state()[:, :4] == [-np.inf, -1.0, 0.0, -1.0]).all()


def test_targets_that_have_not_come(rng):
    """Other figures are there; ranks count what has come."""
    logits = cases.normal_logits(rng, (3, 10), np.float64)
    targets = np.array([2, 7, 50])
    stream = StreamingCrossEntropy(targets, target_logits=[logits[0, 2], logits[1, 7], 0.0])
    stream.update(logits[:, :5], 0)
    figures = stream.statistics()
    assert_same_bits(np.isnan(figures.target_log_prob), np.array([False, True, True]))
    assert_close_log(figures.logsumexp, oracles.logsumexp(logits[:, :5]), np.float64)
    ahead = [(logits[i, :5] > stream._known_logits[i]).sum() for i in range(3)]
    assert_same_bits(figures.target_rank, np.array(ahead))


def test_a_nan_target_has_come():
    logits = np.array([[0.0, np.nan]])
    stream = filled(logits, np.array([1]), [(0, 1), (1, 2)], target_logits=[np.nan])
    assert np.isnan(stream.loss())


def test_later_changes_of_arrays_do_not_matter(rng):
    logits, targets = cases.normal_logits(rng, (4, 9), np.float64), np.array([0, 3, 8, -100])
    known = own_logits(logits, targets)
    arguments = logits.copy(), targets.copy(), known.copy()
    stream = filled(arguments[0], arguments[1], [(0, 9)], target_logits=arguments[2])
    state = stream.state()
    ranges = stream.ranges
    again = StreamingCrossEntropy.from_state(targets, state, ranges)
    loss = stream.loss("none")
    for array in (*arguments, state, stream.state()):
        array[...] = 1
    ranges.clear()
    for other in (stream, again):
        assert_same_bits(other.loss("none"), loss)
        assert other.ranges == [(0, 9)]
        assert_same_bits(other.grad(logits, 0), filled(logits, targets, [(0, 9)]).grad(logits, 0))


# Streams in several places ----------------------------------------------------------------------


def fill_elsewhere(logits, targets, start):
    """Read a shard in a process of its own."""
    stream = StreamingCrossEntropy(targets)
    stream.update(logits, start)
    return stream.state(), stream.ranges


def test_two_processes_exchange_states(rng):
    logits, targets = cases.normal_logits(rng, (5, 60), np.float32), rng.integers(0, 60, 5)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        shards = [(logits[:, :25], targets, 0), (logits[:, 25:], targets, 25)]
        sent = pool.starmap(fill_elsewhere, shards)
    streams = [StreamingCrossEntropy.from_state(targets, *one) for one in sent]
    stream = streams[1].merge(streams[0])
    assert stream.ranges == [(0, 60)]
    check_stream(stream, logits, targets, [(0, 60)], ranked=False)


@pytest.mark.parametrize("ranked", [False, True])
def test_round_trips(rng, ranked):
    logits, targets = cases.normal_logits(rng, (7, 40), np.float32), rng.integers(0, 40, 7)
    targets[2] = 5000
    known = own_logits(logits, np.minimum(targets, 39))
    stream = StreamingCrossEntropy(
        targets, ignore_index=5000, target_logits=known if ranked else None
    )
    stream.update(logits[:, 10:], 10)
    arguments = {"ignore_index": 5000}
    copies = [
        pickle.loads(pickle.dumps(stream)),
        StreamingCrossEntropy.from_state(targets, stream.state(), stream.ranges, **arguments),
    ]
    if ranked:
        arguments["target_logits"] = known
        copies.append(
            StreamingCrossEntropy.from_state(targets, stream.state(), stream.ranges, **arguments)
        )
    stream.update(logits[:, :10], 0)
    for other in copies:
        assert other.ranges == [(10, 40)]
        other.update(logits[:, :10], 0)
        assert_same_bits(other.state(), stream.state())
        assert_same_bits(tuple(other.statistics()), tuple(stream.statistics()))
    assert (stream.statistics().target_rank is not None) == ranked


def test_merge_returns_the_stream_and_leaves_the_other(rng):
    logits, targets = cases.normal_logits(rng, (4, 12), np.float64), np.array([0, 5, 6, 11])
    left, right = (filled(logits, targets, [r]) for r in ((0, 6), (6, 12)))
    before = right.state()
    assert left.merge(right) is left
    assert_same_bits(right.state(), before)
    assert right.ranges == [(6, 12)]
    empty = StreamingCrossEntropy(targets)
    assert_same_bits(empty.merge(left).state(), left.state())
    assert_same_bits(left.merge(StreamingCrossEntropy(targets)).state(), empty.state())
    assert StreamingCrossEntropy(targets).merge(StreamingCrossEntropy(targets)).ranges == []


def test_ranks_stay_known_if_both_streams_counted_them(rng):
    logits, targets = cases.normal_logits(rng, (4, 12), np.float64), np.array([0, 5, 6, 11])
    known = own_logits(logits, targets)
    exact = oracles.softmax_statistics(logits, targets)["target_rank"]
    for left_known, right_known in ((known, known), (known, None), (None, known)):
        left = filled(logits, targets, [(0, 6)], target_logits=left_known)
        right = filled(logits, targets, [(6, 12)], target_logits=right_known)
        both = left_known is not None and right_known is not None
        rank = left.merge(right).statistics().target_rank
        assert_same_bits(rank, exact if both else None)
        empty = StreamingCrossEntropy(targets, target_logits=left_known)
        assert_same_bits(
            empty.merge(right).statistics().target_rank, right.statistics().target_rank
        )


def test_gradients_of_other_pieces_than_were_read(rng):
    logits, targets = cases.normal_logits(rng, (3, 90), np.float32), np.array([0, 44, 89])
    stream = filled(logits, targets, [(60, 90), (0, 30), (30, 60)])
    whole = stream.grad(logits, 0)
    for start, stop in cuts(rng, 90, 8):
        assert_same_bits(stream.grad(logits[:, start:stop], start), whole[:, start:stop])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out(rng, dtype):
    logits, targets = cases.normal_logits(rng, (5, 64), dtype), rng.integers(0, 64, 5)
    stream = filled(logits, targets, [(0, 30), (30, 64)])
    expected = stream.grad(logits[:, 30:], 30)
    room = np.zeros((5, 70), dtype)
    out = room[:, 3:37]
    assert stream.grad(logits[:, 30:], 30, out=out) is out
    assert_same_bits(out.copy(), expected)
    assert not room[:, :3].any()
    assert not room[:, 37:].any()
    chunk = logits[:, 30:]
    assert stream.grad(chunk, 30, out=chunk) is chunk
    assert_same_bits(chunk.copy(), expected)


def test_torch(rng):
    torch = pytest.importorskip("torch")
    logits, targets = cases.normal_logits(rng, (5, 20), np.float32), rng.integers(0, 20, 5)
    expected = filled(logits, targets, [(8, 20), (0, 8)])
    stream = filled(torch.tensor(logits), torch.tensor(targets), [(8, 20), (0, 8)])
    for value in (stream.loss(), stream.loss("none"), stream.logsumexp(), stream.statistics().max):
        assert isinstance(value, torch.Tensor)
        assert value.dtype == torch.float32
    assert_same_bits(stream.loss("none").numpy(), expected.loss("none"))
    narrow = torch.tensor(logits).bfloat16()
    stream = pickle.loads(pickle.dumps(filled(narrow, torch.tensor(targets), [(0, 20)])))
    grad = stream.grad(narrow[:, 4:], 4)
    assert grad.dtype == torch.bfloat16
    assert stream.grad(narrow, 0, out=narrow) is narrow
    assert torch.equal(narrow[:, 4:], grad)
    mixed = filled(logits, torch.tensor(targets), [(0, 20)])
    assert isinstance(mixed.loss(), torch.Tensor)
    assert isinstance(mixed.grad(logits, 0), np.ndarray)


# Errors -----------------------------------------------------------------------------------------

X = np.arange(24.0).reshape(3, 8)
T = np.array([0, 5, 7])


def full(**options):
    return filled(X, T, [(0, 4), (4, 8)], **options)


def part(**options):
    return filled(X, T, [(0, 4)], **options)


STREAM = StreamingCrossEntropy
ERRORS = [
    (lambda: STREAM([0.5]), TypeError, "targets of shape (1,) must be integers, got float64"),
    (
        lambda: STREAM([[0, 1], [2, -3]]),
        IndexError,
        "or equal ignore_index=-100, got -3 at row (1, 1)",
    ),
    (lambda: STREAM(T, ignore_index=1.0), TypeError, "ignore_index must be an integer, got float"),
    (
        lambda: STREAM(T, target_logits=[1.0]),
        ValueError,
        "target_logits must have shape (3,), got (1,)",
    ),
    (lambda: STREAM(T, target_logits=["a"] * 3), TypeError, "target_logits must hold real numbers"),
    (lambda: part().update(X[:2, 4:], 4), ValueError, "chunk must have shape (3, C), got (2, 4)"),
    (lambda: part().update(1.0, 4), ValueError, "chunk must have at least one axis, got a scalar"),
    (lambda: part().update(X[:, :0], 4), ValueError, "chunk must have at least one class"),
    (lambda: part().update(X[:, 4:] * 1j, 4), TypeError, "chunk must hold real numbers"),
    (lambda: part().update(X[:, 4:], -1), ValueError, "start must be in [0, 9007199254740988]"),
    (lambda: part().update(X[:, 4:], 2**53), ValueError, "start must be in [0, 9007199254740988]"),
    (lambda: part().update(X[:, 4:], 4.0), TypeError, "start must be an integer, got float"),
    (
        lambda: part().update(X[:, 2:], 2),
        ValueError,
        "chunk must hold no class that has come before, got [2, 4) again",
    ),
    (
        lambda: STREAM(T, target_logits=[0.0, 13.0, 22.0]).update(X, 0),
        ValueError,
        "target_logits must be the logits of the targets, got 22.0 where chunk has 23.0 at row 2",
    ),
    (lambda: part().merge(1), TypeError, "other must be a StreamingCrossEntropy, got int"),
    (
        lambda: part().merge(full()),
        ValueError,
        "other must hold no class that has come before, got [0, 4) again",
    ),
    (
        lambda: part().merge(STREAM([0, 5])),
        ValueError,
        "other must have targets of shape (3,), got (2,)",
    ),
    (
        lambda: part().merge(STREAM(T, ignore_index=9)),
        ValueError,
        "other must have ignore_index=-100, got 9",
    ),
    (lambda: part().merge(STREAM([0, 5, 6])), ValueError, "other must have target 7, got 6 at row"),
    (
        lambda: part().merge(STREAM([0, -100, 7])),
        ValueError,
        "other must have target 5, got -100 at row 1",
    ),
    (
        lambda: part(target_logits=[0.0, 1.0, 2.0]).merge(filled(X, T, [(4, 8)])),
        ValueError,
        "target_logits must be the logits of the targets, got 1.0 where other has 13.0 at row 1",
    ),
    (
        lambda: part().loss(),
        ValueError,
        "targets must be among the classes that have come, got 5 at row 1",
    ),
    (lambda: part().grad(X[:, :4], 0), ValueError, "classes that have come, got 5 at row 1"),
    (lambda: full().loss("avg"), ValueError, "reduction must be one of"),
    (lambda: full().grad(X, 0, "avg"), ValueError, "reduction must be one of"),
    (
        lambda: full().grad(X, 4),
        ValueError,
        "chunk must hold classes that have come, got [4, 12) of [(0, 8)]",
    ),
    (lambda: full().grad(X, 0, out=X[:, :4]), ValueError, "out must have shape (3, 8), got (3, 4)"),
    (
        lambda: full().grad(X[:, :4], 0, out=X[:, 2:6]),
        ValueError,
        "out must be or not touch the memory of chunk",
    ),
    (
        lambda: STREAM.from_state(T, np.zeros((3, 4)), []),
        ValueError,
        "state must have shape (3, 7), got (3, 4)",
    ),
    (
        lambda: STREAM.from_state(T, np.zeros((3, 7), np.float32), []),
        TypeError,
        "state must have dtype float64, got float32",
    ),
    (
        lambda: STREAM.from_state(T, np.zeros((3, 7)), []),
        ValueError,
        "bits of state must be 32 or 64, got 0.0 at row 0",
    ),
    (
        lambda: STREAM.from_state(T, part().state(), [(0, np.inf)]),
        TypeError,
        "ranges must be an integer, got float",
    ),
    (lambda: STREAM.from_state(T, part().state(), [3]), TypeError, "ranges must be pairs of int"),
    (
        lambda: STREAM.from_state(T, part().state(), [(4, 4)]),
        ValueError,
        "ranges must be 0 <= start < stop <= 2**53, got (4, 4)",
    ),
    (
        lambda: STREAM.from_state(T, part().state(), [(2, 5), (0, 4)]),
        ValueError,
        "ranges must hold no class that has come before, got [2, 4) again",
    ),
    (
        lambda: STREAM.from_state(T, part().state(), [(0, 4)], target_logits=[0.0, 13.0, 23.0]),
        ValueError,
        "target_logits must be left out: the stream that gave state counted no ranks",
    ),
    (
        lambda: STREAM.from_state(
            T, part(target_logits=[0.0, 13.0, 23.0]).state(), [(0, 4)], target_logits=[0, 13, 24]
        ),
        ValueError,
        "target_logits must be the logits of the targets, got 24.0 where state has 23.0 at row 2",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2] for e in ERRORS])
def test_errors(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_what_fails_changes_nothing():
    stream = part(target_logits=[0.0, 13.0, 0.0])
    before, ranges = stream.state(), stream.ranges
    other = filled(X, T, [(4, 8)])
    for call in (
        lambda: stream.update(X[:, 2:], 2),
        lambda: stream.update(X[:, 4:], 4),
        lambda: stream.merge(other),
        lambda: stream.grad(X[:, :4], 0, out=X[:, :4]),
    ):
        with pytest.raises(ValueError):
            call()
        assert_same_bits(stream.state(), before)
        assert stream.ranges == ranges
    assert_same_bits(X, np.arange(24.0).reshape(3, 8))


@pytest.mark.parametrize("where", ["_Read", "_wider", "_joined"])
def test_an_interrupted_update_or_merge_changes_nothing(rng, monkeypatch, where):
    logits, targets = rng.standard_normal((4, 30)), [3, 20, 8, 29]
    stream, other = (fastinfo.StreamingCrossEntropy(targets) for _ in range(2))
    stream.update(logits[:, :10], 0)
    other.update(logits[:, 20:], 20)

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"fastinfo.streaming.{where}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.update(logits[:, 10:20], 10)
        with pytest.raises(KeyboardInterrupt):
            stream.merge(other)
    assert stream.ranges == [(0, 10)]
    stream.update(logits[:, 10:20], 10)
    whole = fastinfo.softmax_cross_entropy(logits, targets)
    assert stream.merge(other).loss() == pytest.approx(whole, rel=1e-12)
    assert other.ranges == [(20, 30)]


def test_merging_leaves_the_other_stream_as_it_is(rng):
    logits = rng.standard_normal((3, 8))
    first, second = (fastinfo.StreamingCrossEntropy([1, 6, 2]) for _ in range(2))
    second.update(logits, 0)
    before = second.state()
    first.merge(second).update(rng.standard_normal((3, 4)), 8)
    first.loss()
    np.testing.assert_array_equal(second.state(), before)


def test_targets_that_change_afterwards(rng):
    """A stream keeps its own."""
    x, y = rng.standard_normal((20, 8)), rng.integers(0, 8, 20)
    expected = fastinfo.softmax_cross_entropy(x, y, reduction="none")
    stream = fastinfo.StreamingCrossEntropy(y)
    y[:] = 0
    stream.update(x, 0)
    np.testing.assert_allclose(stream.loss("none"), expected, 1e-14)
