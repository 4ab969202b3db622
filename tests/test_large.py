"""Beyond 2**31 elements: indices are 64 bits wide. Stride 0 makes the sizes cost no memory."""

import numpy as np
import pytest
from accuracy import assert_same_bits

import fastinfo

V = 131_072
N = 2**31 // V + 9


def repeated(row, n):
    """Return `n` rows that all are `row`, without copies."""
    return np.broadcast_to(row, (n, len(row)))


def test_rows_beyond_two_to_the_31(rng):
    """Every row is the same, so every result is that of one row."""
    row = rng.normal(0, 3, V).astype(np.float32)
    assert N * V > 2**31
    targets = np.full(N, V - 1)
    rows = fastinfo.softmax_cross_entropy(repeated(row, N), targets, reduction="none")
    one = fastinfo.softmax_cross_entropy(row[None], targets[:1], reduction="none")
    assert_same_bits(rows, np.repeat(one, N))


def test_far_offsets_between_rows(rng):
    """Rows 2**31 elements apart in 4 GiB of memory of which only their pages are touched."""
    room = np.zeros(2**31 + 70_000, np.uint16).view(np.float16)
    rows = np.lib.stride_tricks.as_strided(room, (2, 60_000), (2 * (2**31 + 64), 2))
    rows[...] = rng.normal(0, 3, rows.shape)
    targets = [59_999, 7]
    loss, grad = fastinfo.softmax_cross_entropy(rows, targets, return_grad=True)
    expected = fastinfo.softmax_cross_entropy(rows.copy(), targets, return_grad=True)
    assert_same_bits((loss, grad), expected)
    assert fastinfo.softmax_cross_entropy(rows, targets, return_grad=True, out=rows)[1] is rows
    assert_same_bits(rows.copy(), grad)


@pytest.mark.large
@pytest.mark.parametrize("dtype", [np.float64, np.float16], ids=["float64", "float16"])
def test_rows_beyond_two_to_the_31_in_other_functions(rng, dtype):
    """Every function of rows over 2**31 elements: seconds each."""
    row, other = (rng.random(V).astype(dtype) for _ in range(2))
    x, y = repeated(row, N), repeated(other, N)
    targets = np.full(N, V - 1)
    for call in (
        lambda a, b, t: tuple(fastinfo.softmax_statistics(a, t)),
        lambda a, b, t: fastinfo.logsumexp(a),
        lambda a, b, t: fastinfo.entropy(a),
        lambda a, b, t: fastinfo.kl_divergence(a, b),
        lambda a, b, t: fastinfo.js_divergence(a, b),
        lambda a, b, t: fastinfo.hellinger_distance(a, b),
    ):
        one, whole = call(x[:1], y[:1], targets[:1]), call(x, y, targets)
        if not isinstance(one, tuple):
            one, whole = (one,), (whole,)
        assert_same_bits(whole, tuple(np.repeat(field, N) for field in one))


@pytest.mark.large
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
def test_one_row_of_more_than_two_to_the_31_classes(dtype):
    """A class axis of stride 0 takes the path of strided rows: seconds a call."""
    v = 2**31 + 5
    row = np.broadcast_to(np.ones((1, 1), dtype), (1, v))
    for target in (0, v - 1):
        result = fastinfo.softmax_statistics(row, [target])
        assert result.target_log_prob[0] == pytest.approx(-np.log(v), rel=2e-5)
        assert result.entropy[0] == pytest.approx(np.log(v), rel=2e-5)
        assert (int(result.argmax[0]), int(result.target_rank[0])) == (0, target)
    with pytest.raises(IndexError, match=rf"\[0, {v}\).*got {v} at row 0"):
        fastinfo.softmax_cross_entropy(row, [v])


@pytest.mark.large
def test_last_class_of_more_than_two_to_the_31():
    """4 GiB of float16: the largest logit is the last."""
    v = 2**31 + 5
    row = np.zeros((1, v), np.float16)
    row[0, -1] = 30
    result = fastinfo.softmax_statistics(row, [v - 1])
    exact = -np.log1p((v - 1) * np.exp(-30.0))
    assert (int(result.argmax[0]), int(result.target_rank[0])) == (v - 1, 0)
    assert result.target_log_prob[0] == pytest.approx(exact, rel=2e-5)
    loss = fastinfo.softmax_cross_entropy(row, [v - 1])
    assert loss == pytest.approx(-exact, rel=2e-5)


@pytest.mark.large
def test_distributions_of_more_than_two_to_the_31_bins():
    """Uniform rows of stride 0: ten seconds a call."""
    v = 2**31 + 5
    p = np.broadcast_to(np.ones((1, 1), np.float32), (1, v))
    q = np.broadcast_to(np.full((1, 1), 3, np.float32), (1, v))
    assert fastinfo.entropy(p)[0] == pytest.approx(np.log(v), rel=2e-5)
    for name in ("kl_divergence", "js_divergence", "total_variation", "hellinger_distance"):
        assert abs(getattr(fastinfo, name)(p, q)[0]) < 1e-15
