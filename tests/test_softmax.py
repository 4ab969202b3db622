"""logsumexp, softmax and log_softmax."""

import cases
import numpy as np
import oracles
import pytest
from accuracy import assert_close_log, assert_close_softmax, assert_same_bits, result_dtype
from cases import FLOATS, WIDE_FLOATS

import fastinfo


def check(x, temperature=1.0):
    """Compare the three functions with their definitions."""
    options = {} if temperature == 1 else {"temperature": temperature}
    assert_close_log(fastinfo.logsumexp(x), oracles.logsumexp(x), x.dtype)
    assert_close_softmax(fastinfo.softmax(x, **options), oracles.softmax(x, **options), x.dtype)
    exact = oracles.log_softmax(x, **options)
    assert_close_log(fastinfo.log_softmax(x, **options), exact, x.dtype)


@pytest.mark.parametrize("v", [1, 2, 7, 8, 9, 16, 33, 64, 257, 1023, 1024, 1025, 50257])
def test_number_of_classes(rng, v):
    for dtype in FLOATS:
        check(cases.normal_logits(rng, (3, v), dtype))


@pytest.mark.parametrize("n", cases.ROWS)
def test_number_of_rows(rng, n):
    check(cases.normal_logits(rng, (n, 33), np.float32))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030])
def test_finite_rows(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    check(np.stack(rows))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 1030])
def test_invalid_rows(rng, v, dtype):
    """Logsumexp follows SciPy; no softmax is defined; other rows are untouched."""
    bad = np.stack(list(cases.invalid_logits(v).values())).astype(dtype)
    x = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 2, axis=0)
    x[::2] = bad
    assert_close_log(fastinfo.logsumexp(x), oracles.logsumexp(x), dtype)
    for function in (fastinfo.softmax, fastinfo.log_softmax):
        actual = function(x)
        assert np.isnan(actual[::2]).all()
        assert_same_bits(actual[1::2], function(x[1::2]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [0.1, 0.7, 25.0])
def test_temperature(rng, temperature, dtype):
    check(cases.normal_logits(rng, (4, 700), dtype), temperature)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_temperature_under_a_common_offset(rng, dtype):
    x = (rng.standard_normal((4, 300)) + 1e6).astype(dtype)
    check(x, 0.7)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_axis(rng, axis, dtype):
    x = cases.normal_logits(rng, (3, 40, 5), dtype)
    last = np.moveaxis(x, axis, -1).copy()
    assert_same_bits(fastinfo.logsumexp(x, axis=axis), fastinfo.logsumexp(last))
    for function in (fastinfo.softmax, fastinfo.log_softmax):
        actual = function(x, axis=axis)
        assert actual.shape == x.shape
        assert_same_bits(np.moveaxis(actual, axis, -1).copy(), function(last))


def test_keepdims(rng):
    x = cases.normal_logits(rng, (3, 4, 5), np.float32)
    for axis in (0, 1, -1):
        kept = fastinfo.logsumexp(x, axis=axis, keepdims=True)
        assert kept.ndim == 3
        assert_same_bits(np.squeeze(kept, axis), fastinfo.logsumexp(x, axis=axis))


def test_scalars_and_integers():
    total = fastinfo.logsumexp([0, 0])
    assert isinstance(total, np.float64)
    assert abs(total - np.log(2)) < 1e-15
    assert isinstance(fastinfo.logsumexp(np.zeros(3, np.float16)), np.float32)
    assert_same_bits(fastinfo.softmax(np.array([3, 3, 3, 3])), np.full(4, 0.25))
    assert_same_bits(fastinfo.softmax(np.zeros((2, 1), bool)), np.ones((2, 1)))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_out(rng, dtype):
    x = cases.normal_logits(rng, (4, 90), dtype)
    kind = result_dtype(dtype)
    for function in (fastinfo.softmax, fastinfo.log_softmax):
        expected = function(x)
        for out in (np.empty(x.shape, kind), np.empty((4, 180), kind)[:, ::2]):
            assert function(x, out=out) is out
            assert_same_bits(out.copy(), expected)
        turned = np.empty((90, 4), kind)
        assert function(x.T, axis=0, out=turned) is turned
        assert_same_bits(turned.T.copy(), expected)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_softmax_sums_to_one(rng, dtype):
    sums = fastinfo.softmax(cases.normal_logits(rng, (5, 3000), dtype)).sum(-1, dtype=np.float64)
    np.testing.assert_allclose(sums, 1, rtol=2e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nothing(dtype):
    kind = result_dtype(dtype)
    assert_same_bits(fastinfo.logsumexp(np.zeros((0, 3), dtype)), np.zeros(0, kind))
    assert_same_bits(fastinfo.softmax(np.zeros((0, 3), dtype)), np.zeros((0, 3), kind))
    empty = fastinfo.log_softmax(np.zeros((2, 3, 0), dtype), axis=1)
    assert_same_bits(empty, np.zeros((2, 3, 0), kind))
