"""Rows read side by side, a lane of a vector a row: their layouts and their neighbours."""

from typing import Any

import cases
import numpy as np
import oracles
import pytest
from accuracy import (
    assert_close_gradient,
    assert_close_log,
    assert_close_loss,
    assert_close_softmax,
    assert_same_bits,
    peak,
)
from cases import FLOATS, WIDE_FLOATS

import fastinfo
from fastinfo.arrays import Rows
from fastinfo.cpu import lanes

OPTIONS = list(cases.loss_options(np.random.default_rng(0), 3, 4))
FEW = (1, 2, 3, 5, 16, lanes.NARROW)
WIDTHS = (*FEW, lanes.NARROW + 1, 300, 1025)


def beside(x: Any) -> Any:
    """Lay rows beside each other: the first axis has their classes."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 0))


def check(logits: Any, targets: Any, given: Any = None, **options: Any) -> None:
    """Compare losses and gradients of rows that lie beside each other with the oracle."""
    exact = oracles.softmax_cross_entropy(logits, targets, **options)
    assert Rows.of(fastinfo.arrays.read("logits", beside(logits)), 0).beside > 1
    given = targets if given is None else given
    for gradient in (False, True):
        found = fastinfo.softmax_cross_entropy(
            beside(logits), given, axis=0, reduction="none", return_grad=gradient, **options
        )
        assert_close_loss(found[0] if gradient else found, exact.rows, logits.dtype)
        if gradient:
            grad = np.moveaxis(found[1], 0, -1)
            _, truth, terms = oracles.reduced(exact, "none")
            assert_close_gradient(grad, truth, terms, logits.dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", WIDTHS)
def test_number_of_classes(rng, v, dtype):
    n = 39
    targets = rng.integers(0, v, n)
    targets[3] = -100
    check(cases.normal_logits(rng, (n, v), dtype), targets)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("v", [4, 40])
def test_options(rng, name, dtype, v):
    """Soft targets lie beside each other or do not, in another type or the same."""
    n = 37
    options = cases.loss_options(rng, n, v)[name]
    logits = cases.normal_logits(rng, (n, v), dtype)
    check(logits, rng.integers(0, v, n), **options)
    soft = rng.uniform(0, 2, (n, v)).astype(np.float32)
    check(logits, soft, beside(soft), **options)
    check(logits, soft, np.moveaxis(soft.astype(np.float64), -1, 0), **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40])
def test_finite_rows(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    logits = np.stack(rows)
    for targets in (np.zeros(len(rows), int), np.full(len(rows), v - 1), logits.argmax(-1)):
        check(logits, targets)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 24, 70])
def test_confident_rows_keep_their_digits(v, dtype):
    """The loss is relatively accurate however near 0, and the target's p - 1 with it."""
    logits = np.zeros((v, 50), dtype)
    logits[v // 2] = np.arange(50) + 20
    targets = np.full(50, v // 2)
    exact = np.log1p((v - 1) * np.exp(-(np.arange(50) + 20.0)))
    rtol = 2e-5 if dtype == np.float32 else 1e-12
    loss, grad = fastinfo.softmax_cross_entropy(
        logits, targets, axis=0, reduction="none", return_grad=True
    )
    np.testing.assert_allclose(loss, exact, rtol)
    np.testing.assert_allclose(grad[v // 2], np.expm1(-exact), rtol)
    alone = fastinfo.softmax_cross_entropy(logits.T.copy(), targets, reduction="none")
    np.testing.assert_allclose(alone, exact, rtol)
    entropy = fastinfo.softmax_entropy(logits, axis=0)
    gap = np.arange(50) + 20.0
    np.testing.assert_allclose(entropy, exact + gap * (v - 1) * np.exp(-gap - exact), rtol)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40])
def test_invalid_rows_are_nan_and_touch_no_other(rng, v, dtype):
    bad = np.stack(list(cases.invalid_logits(v).values())).astype(dtype)
    logits = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 3, axis=0)
    good = np.arange(len(logits)) % 3 != 0
    logits[~good] = bad
    targets = rng.integers(0, v, len(logits))
    for soft in (targets, np.eye(v)[:, targets]):
        loss, grad = fastinfo.softmax_cross_entropy(
            beside(logits), soft, axis=0, reduction="none", return_grad=True
        )
        assert np.isnan(loss[~good]).all()
        assert np.isnan(grad[:, ~good].astype(np.float32)).all()
        alone = fastinfo.softmax_cross_entropy(
            beside(logits[good]), soft[..., good], axis=0, reduction="none", return_grad=True
        )
        assert_same_bits((loss[good], grad[:, good]), alone)
    probabilities = fastinfo.softmax(beside(logits), axis=0).astype(np.float32)
    assert np.isnan(probabilities[:, ~good]).all() and not np.isnan(probabilities[:, good]).any()
    assert_same_bits(np.isnan(fastinfo.softmax_entropy(beside(logits), axis=0)), ~good)


@pytest.mark.parametrize("v", [3, 40])
def test_ignored_rows_are_exactly_zero(rng, v):
    """Whatever they hold."""
    logits = cases.normal_logits(rng, (40, v), np.dtype(np.float32))
    logits[5], logits[6], logits[20, 1] = np.nan, -np.inf, np.inf
    ignored = np.isin(np.arange(40), [5, 6, 20, 39])
    targets = np.where(ignored, -100, rng.integers(0, v, 40))
    loss, grad = fastinfo.softmax_cross_entropy(
        beside(logits), targets, axis=0, reduction="none", return_grad=True
    )
    assert_same_bits(loss == 0, ignored)
    assert_same_bits((grad == 0).all(0), ignored)
    weight = np.where(ignored, 0.0, 1.0)
    soft = np.eye(v)[:, np.maximum(targets, 0)]
    found = fastinfo.softmax_cross_entropy(
        beside(logits), soft, axis=0, sample_weight=weight, reduction="none", return_grad=True
    )
    assert_same_bits((found[0] == 0, (found[1] == 0).all(0)), (ignored, ignored))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [3, 40, 600])
def test_softmax_log_softmax_and_entropy(rng, v, dtype):
    logits = cases.normal_logits(rng, (35, v), dtype, 6.0)
    x = beside(logits)
    for t in (1.0, 0.3):
        p, log_p = (f(x, axis=0, temperature=t) for f in (fastinfo.softmax, fastinfo.log_softmax))
        if dtype.itemsize > 2:
            assert_close_softmax(np.moveaxis(p, 0, -1), oracles.softmax(logits, t), dtype)
            assert_close_log(np.moveaxis(log_p, 0, -1), oracles.log_softmax(logits, t), dtype)
        exact = oracles.softmax_entropy(logits, t)
        values, grad = fastinfo.softmax_entropy(x, axis=0, temperature=t, return_grad=True)
        assert_close_loss(values, exact.values, dtype)
        assert_close_gradient(np.moveaxis(grad, 0, -1), exact.grad, exact.terms, dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", FEW)
@pytest.mark.parametrize("shape", [(1,), (3,), (37,), (2, 37), (5, 3), (3, 2, 17), (0,), (4, 0)])
def test_few_classes_have_the_same_bits_in_any_layout(rng, shape, v, dtype):
    logits = cases.normal_logits(rng, (*shape, v), dtype)
    targets = rng.integers(0, v, shape)
    expected = fastinfo.softmax_cross_entropy(
        logits, targets, label_smoothing=0.1, reduction="none", return_grad=True
    )
    for axis in range(logits.ndim):
        x = np.ascontiguousarray(np.moveaxis(logits, -1, axis))
        for given in (x, np.asfortranarray(x), cases.spaced(x), x[::-1].copy()[::-1]):
            loss, grad = fastinfo.softmax_cross_entropy(
                given, targets, axis=axis, label_smoothing=0.1, reduction="none", return_grad=True
            )
            assert_same_bits((loss, np.moveaxis(grad, axis, -1)), expected)


@pytest.mark.parametrize("inner", [*range(1, 20), 31, 33, 48, 67])
def test_runs_of_any_length(rng, inner, monkeypatch):
    """A vector ends where the rows beside each other do."""
    monkeypatch.setattr(lanes, "LEAST_BESIDE", 1)
    logits = cases.normal_logits(rng, (7, 40, inner), np.dtype(np.float32))
    targets = rng.integers(0, 40, (7, inner))
    found = fastinfo.softmax_cross_entropy(
        logits, targets, axis=1, reduction="none", return_grad=True
    )
    alone = [
        fastinfo.softmax_cross_entropy(
            np.repeat(logits[i], 16, -1), np.repeat(targets[i], 16), axis=0,
            reduction="none", return_grad=True,
        )
        for i in range(7)
    ]  # fmt: skip
    assert_same_bits(found[0], np.stack([loss[::16] for loss, _ in alone]))
    assert_same_bits(found[1], np.stack([grad[:, ::16] for _, grad in alone]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [3, 40])
def test_gradients_in_place_and_in_any_buffer(rng, v, dtype):
    x = cases.normal_logits(rng, (3, v, 50), dtype)
    targets = rng.integers(0, v, (3, 50))
    loss, grad = fastinfo.softmax_cross_entropy(x, targets, axis=1, return_grad=True)
    fields = np.zeros(x.shape, [("flag", np.int8), ("gradient", dtype)])
    wider = np.zeros((3, v, 100), dtype)
    for out in (
        np.full_like(x, np.nan), np.asfortranarray(x), np.empty((3, 50, v), dtype).swapaxes(1, 2),
        wider[:, :, ::2], fields["gradient"], x[:, ::-1].copy()[:, ::-1],
    ):  # fmt: skip
        again, written = fastinfo.softmax_cross_entropy(
            x, targets, axis=1, return_grad=True, out=out
        )
        assert written is out
        assert_same_bits((again, out.copy()), (loss, grad))
    assert not wider[:, :, 1::2].any() and not fields["flag"].any()
    own = x.copy()
    fastinfo.softmax_cross_entropy(own, targets, axis=1, return_grad=True, out=own)
    assert_same_bits(own, grad)


@pytest.mark.parametrize("v", [4, 40])
def test_types_that_are_converted(rng, v):
    x = rng.integers(-9, 9, (v, 33))
    targets = rng.integers(0, v, 33)
    expected = fastinfo.softmax_cross_entropy(
        x.astype(np.float64), targets, axis=0, reduction="none"
    )
    for given in (x, x.astype(np.int8), x.astype(">f8")):
        found = fastinfo.softmax_cross_entropy(given, targets, axis=0, reduction="none")
        np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_large_gradients_are_written_past_the_caches(rng, dtype):
    """In memory on the boundary of a cache line and off it, by any number of threads."""
    n, v = 1 << 18, 24
    x = cases.normal_logits(rng, (v, n), np.dtype(dtype))
    targets = rng.integers(0, v, n)
    room = np.empty(x.size + 1, dtype)
    expected = None
    for threads in (1, 2, 3):
        fastinfo.set_num_threads(threads)
        for out in (None, room[1:].reshape(x.shape)):
            found = fastinfo.softmax_cross_entropy(
                x, targets, axis=0, reduction="none", return_grad=True, out=out
            )
            expected = found if expected is None else expected
            assert_same_bits(found, expected)
    some = rng.integers(0, n, 100)
    alone = fastinfo.softmax_cross_entropy(
        x[:, some].copy(), targets[some], axis=0, reduction="none", return_grad=True
    )
    assert_same_bits((expected[0][some], expected[1][:, some]), alone)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", FEW)
def test_rows_of_few_classes_one_after_the_other(rng, v, dtype, monkeypatch):
    """The way that longer rows go is right for these too."""
    monkeypatch.setattr(lanes, "NARROW", 0)
    logits = cases.normal_logits(rng, (9, v), dtype)
    for targets in (rng.integers(0, v, 9), rng.uniform(0, 1, (9, v))):
        exact = oracles.softmax_cross_entropy(logits, targets, label_smoothing=0.1)
        loss, grad = fastinfo.softmax_cross_entropy(
            logits, targets, label_smoothing=0.1, reduction="none", return_grad=True
        )
        assert_close_loss(loss, exact.rows, dtype)
        assert_close_gradient(grad, exact.grad, exact.terms, dtype)


def test_where_rows_begin(rng):
    """Rows of views of any shape and strides, empty ones too, against their addresses."""
    memory = np.arange(4 * 3 * 5 * 7 * 2.0)
    for _ in range(300):
        x = memory.reshape(rng.permutation([4, 3, 5, 7, 2])).transpose(rng.permutation(5))
        cut = tuple(
            slice(*sorted(rng.integers(0, n + 1, 2)), rng.integers(1, 3)) if rng.random() < 0.5
            else slice(None, None, rng.choice([1, -1]))
            for n in x.shape
        )  # fmt: skip
        x = x[cut] if rng.random() < 0.8 else np.broadcast_to(x[cut][:1], x[cut].shape)
        if not x.shape[-1]:
            continue
        rows = Rows.along(x, "float64", "float64")
        lo, hi = sorted(rng.integers(0, rows.count + 1, 2))
        first = x[..., 0].reshape(-1)
        assert_same_bits(rows.memory[rows.starts(lo, hi)], first[lo:hi])
        beside = first[: rows.beside]
        assert rows.beside == 1 or (np.diff(beside) == 1).all()


def test_rows_across_the_end_of_a_long_axis_take_little_memory():
    x = np.broadcast_to(np.zeros((2, 1, 1), np.float32), (2, 2, 20_000_000))
    rows = Rows.along(np.moveaxis(x, 1, -1), "float32", "float32")
    assert peak(lambda: rows.starts(19_999_000, 20_001_000)) < 1 << 20


def test_no_rows_of_a_view():
    for x in (np.ones((4, 5, 7), np.float32)[:, :0], np.ones((4, 1, (1 << 20) + 1))[:, :0]):
        assert fastinfo.logsumexp(x).shape == (4, 0)
        loss, grad = fastinfo.softmax_cross_entropy(x, np.zeros((4, 0), int), return_grad=True)
        assert np.isnan(loss) and grad.shape == x.shape
    q = np.ones((4, 5, 7))[:, :0] / 7
    assert np.isnan(fastinfo.negative_log_likelihood(q, np.zeros((4, 0), int)))


def test_small_images_lie_beside_each_other():
    x = np.empty((2, 40, 4, 5), np.float32)
    assert Rows.along(np.moveaxis(x, 1, -1), "float32", "float32").beside == 20
    assert Rows.along(np.moveaxis(x[..., :1], 1, -1), "float32", "float32").beside == 1


@pytest.mark.parametrize("v", [3, 40])
@pytest.mark.parametrize("temperature", [2.0**-100, 2.0**-60, 2.0**60, 2.0**100])
def test_entropy_gradients_at_any_temperature(temperature, v):
    z = np.linspace(0, 1, 17)[:, None] * np.linspace(1, -1, v)
    logits = (z * temperature).astype(np.float32)
    exact = oracles.softmax_entropy(logits, temperature)
    _, grad = fastinfo.softmax_entropy(logits, temperature=temperature, return_grad=True)
    assert_close_gradient(grad, exact.grad, exact.terms, np.dtype(np.float32))
    cold = fastinfo.softmax_entropy(z.astype(np.float32), temperature=2.0**-100, return_grad=True)
    assert (cold[1][1:] == 0).all()


DIVERGENCES = (fastinfo.softmax_kl_divergence, fastinfo.softmax_js_divergence)


def pairs(rng: np.random.Generator, n: int, v: int, dtype: Any) -> tuple[Any, Any]:
    """Pairs far from each other, near, nearer than float32 tells, equal, and no distributions."""
    p = cases.normal_logits(rng, (n, v), dtype)
    noise = np.array([3.0, 0.3, 1e-2, 1e-5, 0.0])[np.arange(n) % 5, None]
    q = (p + noise * rng.normal(0, 1, p.shape)).astype(dtype)
    p[7], q[13], q[20, 1], p[23] = np.nan, np.inf, -np.inf, -np.inf
    return p, q


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40])
def test_pairs_do_not_depend_on_their_neighbours(rng, v, dtype, divergence):
    """Nor on where both lie, which need not be alike."""
    p, q = pairs(rng, 39, v, dtype)
    given: dict[str, Any] = {"axis": 0, "reduction": "none", "return_grad": True}
    values, grad = divergence(beside(p), beside(q), **given)
    lost = np.isin(np.arange(39), [7, 13, 23])
    assert_same_bits(np.isnan(values), lost)
    assert_same_bits(np.isnan(grad.astype(np.float32)).any(0), lost)
    for i in range(39):
        alone = (np.repeat(x[i][:, None], 17, 1) for x in (p, q))
        found = divergence(*alone, **given)
        assert_same_bits((found[0][3], found[1][:, 3]), (values[i], grad[:, i]))
    if v <= lanes.NARROW:
        for own, other in ((p.T, beside(q)), (beside(p), q.T), (cases.spaced(p).T, q.T)):
            assert_same_bits(divergence(own, other, **given), (values, grad))


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("v", [3, 40])
def test_pairs_that_do_not_count(rng, v, divergence):
    p, q = (beside(x) for x in pairs(rng, 50, v, np.dtype(np.float32)))
    weight = np.where(np.isin(np.arange(50), [7, 13, 23, 49]), 0.0, rng.uniform(0, 2, 50))
    given: dict[str, Any] = {"axis": 0, "reduction": "none", "return_grad": True}
    values, grad = divergence(p, q, sample_weight=weight, **given)
    kept = weight > 0
    assert not values[~kept].any() and not grad[:, ~kept].any()
    plain, plain_grad = divergence(*(x[:, kept].copy() for x in (p, q)), **given)
    np.testing.assert_allclose(values[kept], plain * weight[kept], 1e-6)
    np.testing.assert_allclose(grad[:, kept], plain_grad * weight[kept], 1e-5, 1e-38)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("v", [3, 40])
def test_gradients_of_pairs_in_place_and_in_any_buffer(rng, v, divergence):
    p, q = (cases.normal_logits(rng, (3, v, 50), np.dtype(np.float32)) for _ in range(2))
    value, grad = divergence(p, q, axis=1, return_grad=True)
    wider = np.zeros((3, v, 100), np.float32)
    for out in (np.asfortranarray(q), q.copy(), wider[:, :, ::2], q[:, ::-1].copy()[:, ::-1]):
        again, written = divergence(p, q, axis=1, return_grad=True, out=out)
        assert written is out
        assert_same_bits((again, out.copy()), (value, grad))
    own = q.copy()
    assert divergence(p, own, axis=1, return_grad=True, out=own)[1] is own
    assert_same_bits(own, grad)


@pytest.mark.parametrize("v", [3, 20])
def test_divergences_next_to_the_largest_number(v):
    p, q = np.zeros((v, 17), np.float32), np.full((v, 17), -3e38, np.float32)
    q[0] = 0
    values = fastinfo.softmax_kl_divergence(p, q, axis=0, reduction="none")
    np.testing.assert_allclose(values, 3e38 * (v - 1) / v, 2e-5)


def test_pairs_of_next_to_no_weight():
    p, q = np.array([[1e-30, 0]], np.float32), np.array([[0, 2e-30]], np.float32)
    given = {"temperature": 2.0**-100, "reduction": "sum", "return_grad": True}
    weights = [1e-50] * 2
    _, grad = fastinfo.softmax_kl_divergence(p, q, sample_weight=weights[:1], **given)
    assert (grad != 0).all()
    _, whole = fastinfo.softmax_kl_divergence(p, q, **given)
    np.testing.assert_allclose(grad, whole.astype(np.float64) * 1e-50, 1e-6)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda f: f.__name__)
def test_pairs_of_types_that_are_converted(rng, divergence):
    p, q = rng.integers(-5, 5, (2, 4, 40))
    expected = divergence(p.astype(float), q.astype(float), axis=0, return_grad=True)
    for dtype in (np.int64, np.int8, np.dtype(">f8")):
        found = divergence(p.astype(dtype), q.astype(dtype), axis=0, return_grad=True)
        assert_same_bits(found[0], expected[0])
        assert_same_bits(found[1].astype(float), expected[1])
