"""Entropy, KL and JS divergences of softmax distributions: values, gradients, edges."""

import functools
from typing import Any

import cases
import mpmath
import numpy as np
import oracles
import pytest
from accuracy import (
    RTOL,
    assert_close_gradient,
    assert_close_loss,
    assert_close_measure,
    assert_same_bits,
    result_dtype,
)
from cases import BFLOAT16, FLOATS, WIDE_FLOATS
from hypothesis import given
from hypothesis import strategies as st

import fastinfo
from fastinfo.cpu import lanes

DIVERGENCES = {"kl": None, "js": 0.5, "js to p": 0.01, "js to q": 0.97}


def divergence(name: str, p: Any, q: Any, **options: Any) -> Any:
    """Call the function of that name in `DIVERGENCES`."""
    beta = DIVERGENCES[name]
    if beta is None:
        return fastinfo.softmax_kl_divergence(p, q, **options)
    return fastinfo.softmax_js_divergence(p, q, beta=beta, **options)


def check(name: str, p: Any, q: Any, temperature: float = 1.0) -> None:
    """Compare rows and their gradients with the oracle, one after the other and side by side."""
    exact = oracles.softmax_divergence(p, q, DIVERGENCES[name], temperature)
    given: dict[str, Any] = {"temperature": temperature, "reduction": "none", "return_grad": True}
    wide = np.float64 if np.float64 in (result_dtype(p.dtype), result_dtype(q.dtype)) else p.dtype
    n = len(q)
    beside = [np.moveaxis(np.resize(x, (2, 8 * n, x.shape[-1])), -1, 0).copy() for x in (p, q)]
    found = [divergence(name, p, q, **given)]
    if n and p.dtype == q.dtype:
        values, grad = divergence(name, *beside, axis=0, **given)
        found.append((values[1, -n:], np.moveaxis(grad[:, 1, -n:], 0, -1)))
    for values, grad in found:
        assert_close_measure("divergence", values, exact.values, wide)
        assert_close_gradient(grad, exact.grad, exact.terms, q.dtype)


def check_entropy(logits: Any, temperature: float = 1.0) -> None:
    """Compare entropies and their gradients with the oracle."""
    exact = oracles.softmax_entropy(logits, temperature)
    values, grad = fastinfo.softmax_entropy(logits, temperature=temperature, return_grad=True)
    assert_close_loss(values, exact.values, logits.dtype)
    assert_close_gradient(grad, exact.grad, exact.terms, logits.dtype)


# Oracles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [2.0, 1e-3, 1e-8])
@pytest.mark.parametrize("beta", [None, 0.3])
def test_the_oracle_itself(rng, noise, beta):
    x = rng.normal(0, 3, 12)
    y = x + noise * rng.normal(0, 1, 12)
    found = oracles.softmax_divergence(x, y, beta, 1.5)
    with mpmath.workdps(60):

        def softmax(z):
            e = [mpmath.exp(mpmath.mpf(float(v)) / 1.5) for v in z]
            return [v / mpmath.fsum(e) for v in e]

        def kl(a, b):
            return mpmath.fsum(u * mpmath.log(u / v) for u, v in zip(a, b, strict=True))

        p, q = softmax(x), softmax(y)
        a = mpmath.mpf(0.3)
        m = [a * u + (1 - a) * v for u, v in zip(p, q, strict=True)]
        truth = kl(p, q) if beta is None else a * kl(p, m) + (1 - a) * kl(q, m)
        assert abs(mpmath.mpf(float(found.values)) - truth) < 1e-15 * truth + 1e-12 * noise * truth


# Values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [1, 2, 7, 16, 33, 64, 257, 1025, 50257])
def test_number_of_classes(rng, v, dtype):
    x, y = (cases.normal_logits(rng, (3, v), dtype) for _ in range(2))
    check_entropy(x)
    for name in DIVERGENCES:
        check(name, x, y, 1.3)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [1, 2, 7, 16])
def test_few_classes_one_after_the_other(rng, v, dtype, monkeypatch):
    """The way that longer rows go is right for these too."""
    monkeypatch.setattr(lanes, "NARROW", 0)
    x, y = (cases.normal_logits(rng, (3, v), dtype) for _ in range(2))
    for name in DIVERGENCES:
        check(name, x, y, 1.3)


@pytest.mark.parametrize("n", cases.ROWS)
def test_number_of_rows(rng, n):
    x, y = (cases.normal_logits(rng, (n, 33), np.float32) for _ in range(2))
    check_entropy(x)
    check("kl", x, y)
    check("js", x, y)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030])
def test_hard_rows_beside_each_other(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    x = np.stack(rows)
    check_entropy(x)
    for name in ("kl", "js"):
        for turn in (0, 1, 5):
            check(name, x, np.roll(x, turn, 0))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_js_gradients_between_confident_rows(rng, dtype, temperature):
    """Relative to their own terms where both rows nearly agree, wherever their logits are."""
    p, q = (np.sort(cases.normal_logits(rng, (60, 2), dtype, 20.0)) for _ in range(2))
    _, grad = fastinfo.softmax_js_divergence(
        p, q, temperature=temperature, reduction="sum", return_grad=True
    )

    def logistic(x):
        return 1 / (1 + mpmath.exp(-x / mpmath.mpf(temperature)))

    with mpmath.workdps(400):
        for own, x, y in zip(grad, p, q, strict=True):
            a, b = (logistic(mpmath.mpf(float(z[1])) - mpmath.mpf(float(z[0]))) for z in (x, y))
            logs = [mpmath.log(2 * u / (t + u)) for t, u in ((1 - a, 1 - b), (a, b))]
            of_q = (1 - b) * logs[0] + b * logs[1]
            for found, share, log in zip(own, (1 - b, b), logs, strict=True):
                exact = float(share * (log - of_q) / 2 / mpmath.mpf(temperature))
                size = float(share * (abs(log) + of_q) / 2 / mpmath.mpf(temperature))
                allowed = RTOL[dtype] * size + 40 * float(np.finfo(dtype).tiny)
                assert found == pytest.approx(exact, rel=0, abs=allowed)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("beta", [1e-12, 1e-5, 0.007, 0.999, 1 - 1e-6, 1 - 1e-12])
def test_js_of_hardly_any_of_one(rng, dtype, beta, monkeypatch):
    """The smaller share keeps its digits, wherever rows nearly agree, and where they do not."""
    monkeypatch.setitem(DIVERGENCES, "js of beta", beta)
    x = cases.normal_logits(rng, (60, 3), dtype, 8.0)
    y = (x + cases.normal_logits(rng, (60, 3), dtype, 3.0)).astype(dtype)
    x[0], y[0] = (0, -np.inf, 0), (0, 0, -np.inf)
    x[1, :2], y[1, :2] = (29.07498550415039, -38.69271469116211), (21.664075, -4.2868266)
    x[1, 2] = y[1, 2] = -np.inf
    check("js of beta", x, y)
    wide = np.full((60, 40), -np.inf, dtype), np.full((60, 40), -np.inf, dtype)
    for z, narrow in zip(wide, (x, y), strict=True):
        z[:, 5:8] = narrow
    check("js of beta", *wide)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("noise", 10.0 ** -np.arange(0, 9))
def test_relative_all_the_way_to_zero(rng, name, offset, noise):
    for dtype in WIDE_FLOATS:
        x = (rng.normal(0, 3, (5, 1000)) + offset).astype(dtype)
        check(name, x, (x + noise * rng.normal(0, 1, x.shape)).astype(dtype), 1.5)


@pytest.mark.parametrize("temperature", [0.01, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, -3.3, 12345.678, 1e6])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_proportional_rows(rng, dtype, offset, temperature):
    x = cases.normal_logits(rng, (40, 3), dtype)
    y = (x + dtype.type(offset)).astype(dtype)
    x = (y - dtype.type(offset)).astype(dtype)
    same = (x[:, :1] - y[:, :1].astype(np.longdouble) == x - y.astype(np.longdouble)).all(1)
    assert same.any()
    for name in DIVERGENCES:
        values = divergence(name, x, y, temperature=temperature, reduction="none")
        assert (values[same] < 1e-30).all()
        assert (values >= 0.0).all()


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("temperature", [0.1, 100.0])
def test_as_near_as_logits_can_be(rng, name, dtype, temperature):
    x = rng.normal(0, 1, (20, 7)).astype(dtype) * 10.0 ** rng.uniform(-7, 1, (20, 1)).astype(dtype)
    y = x.copy()
    y[:, 2] = np.nextafter(y[:, 2], dtype.type(9))
    check(name, x, y, temperature)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_confident_rows_near_each_other(name):
    x = np.array([[0.0, -80.0, -90.0], [0.0, -3.0, -170.0], [1e3, 1e3 - 60.0, -np.inf]])
    for dtype in WIDE_FLOATS:
        y = x.astype(dtype)
        y[:, 1] += 0.125
        check(name, x.astype(dtype), y)
    y = 3.0 * x
    y[:, 1] -= 0.125
    check(name, 3.0 * x, y)


@pytest.mark.parametrize("p_dtype", FLOATS, ids=str)
@pytest.mark.parametrize("q_dtype", FLOATS, ids=str)
def test_teacher_and_student_of_two_types(rng, p_dtype, q_dtype):
    x, y = rng.normal(0, 2, (2, 5, 700))
    for name in ("kl", "js"):
        check(name, x.astype(p_dtype), y.astype(q_dtype))


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equal_rows_are_exactly_zero(rng, name, dtype):
    x = cases.normal_logits(rng, (4, 1100), dtype)
    x[1, 5:] = -np.inf
    values, grad = divergence(name, x, x.copy(), reduction="none", return_grad=True)
    assert_same_bits(values, np.zeros(4, result_dtype(dtype)))
    assert not np.asarray(grad, np.float64).any()


def test_a_constant_added_to_the_logits_changes_nothing(rng):
    x, y = (rng.integers(-64, 64, (2, 6, 300)) / 16).astype(np.float32)
    for name in ("kl", "js"):
        before = divergence(name, x, y, reduction="none", return_grad=True)
        after = divergence(name, x + 2.0**18, y - 2.0**17, reduction="none", return_grad=True)
        np.testing.assert_allclose(after[0], before[0], rtol=2e-6)
        np.testing.assert_allclose(after[1], before[1], rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("v", [(1 << 20) + 17])
@pytest.mark.parametrize("layout", ["as it is", "reversed"])
def test_rows_longer_than_a_piece(rng, v, layout):
    x = cases.normal_logits(rng, (2, v), np.float32)
    y = x + cases.normal_logits(rng, (2, v), np.float32, 0.7)
    x[0, : v - 40] = -np.inf
    y[0, : v - 40] = -np.inf
    y[1, 1 << 20 :] += 40
    if layout != "as it is":
        x, y = cases.LAYOUTS[layout](x), cases.LAYOUTS[layout](y)
    check_long_rows(oracles.softmax_entropy, fastinfo.softmax_entropy, x)
    for p, q in ((x, y), (x, x + np.float32(1e-3) * y)):
        check_long_rows(
            oracles.softmax_divergence, functools.partial(divergence, "kl", reduction="none"), p, q
        )
    js = functools.partial(divergence, "js", reduction="none")
    check_long_rows(functools.partial(oracles.softmax_divergence, beta=0.5), js, x, y)


def check_long_rows(oracle: Any, function: Any, *logits: Any) -> None:
    """Compare with the oracle, which is slow at infinities, of what is not masked in each row."""
    values, grad = function(*logits, return_grad=True)
    for i in range(len(values)):
        row = [z[i] for z in logits]
        live = ~np.isneginf(row).all(axis=0)
        exact = oracle(*(z[live] for z in row))
        assert_close_measure("divergence", values[i], exact.values, np.float32)
        assert_close_gradient(grad[i, live], exact.grad, exact.terms, np.float32)
        assert not grad[i, ~live].any()


# Edges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_invalid_rows_are_nan_and_touch_no_other(rng, dtype):
    fine = cases.normal_logits(rng, (1, 9), dtype)
    bad = np.stack(list(cases.invalid_logits(9).values())).astype(dtype)
    x = np.concatenate([bad, fine])
    y = np.broadcast_to(fine[:, ::-1], x.shape)
    for call in (
        lambda: fastinfo.softmax_entropy(x, return_grad=True),
        lambda: divergence("kl", x, y, reduction="none", return_grad=True),
        lambda: divergence("kl", y, x, reduction="none", return_grad=True),
        lambda: divergence("js", x, y, reduction="none", return_grad=True),
        lambda: divergence("js", y, x, reduction="none", return_grad=True),
    ):
        values, grad = call()
        assert np.isnan(values[:-1]).all()
        assert np.isnan(grad[:-1]).all()
        assert np.isfinite(values[-1])
        assert np.isfinite(grad[-1]).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_masked_classes(dtype):
    x = np.array([[0.0, 1.0, -np.inf, 2.0]]).astype(dtype)
    y = np.array([[0.0, -np.inf, 1.0, 2.0]]).astype(dtype)
    values, grad = divergence("kl", x, y, reduction="none", return_grad=True)
    assert np.isposinf(values[0])
    p, q = (oracles.softmax(a).astype(np.float64) for a in (x, y))
    np.testing.assert_allclose(np.asarray(grad, np.float64), q - p, rtol=5e-3, atol=1e-12)
    check("js", x, y)
    both = np.where(np.isneginf(x), x, y)
    check("kl", np.where(np.isneginf(y), y, x), y)
    assert np.isposinf(fastinfo.softmax_kl_divergence(x, np.where(np.isneginf(y), y, x)))
    assert np.isfinite(fastinfo.softmax_kl_divergence(both, x) * 0 + 1)


@pytest.mark.parametrize("name", ["kl", "js"])
def test_probabilities_that_underflow(rng, name):
    """A term of two such is nothing; where only q is masked KL is inf, however small p is."""
    x, y = np.array([[0.0, -745.1138192612234]]), np.array([[0.0, -745.5099451302896]])
    assert 0 <= divergence(name, x, y) < 1e-300
    for z in (-50, -104, -200, -740, -750, -20000):
        for dtype in WIDE_FLOATS:
            x, y = np.array([[0, z]], dtype), np.array([[0, -np.inf]], dtype)
            value, grad = divergence(name, x, y, return_grad=True)
            assert np.isposinf(value) if name == "kl" else value < 1e-20
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("v", [2, 16385, 100_000])
def test_equal_terms_are_rounded_alike(rng, v):
    x, y = rng.integers(0, 2, (2, 4, v)).astype(np.float64)
    y[:, :2] = 0.5, 0.25
    for name in ("kl", "js"):
        check(name, x, y)


@pytest.mark.parametrize("v", [3000, 131_072])
def test_stretches_of_equal_terms(rng, v):
    """In float32 a KL of 0.02 was off by up to 50 times what is allowed."""
    cuts = np.sort(rng.integers(0, v, (24, 3)), 1)
    which = (np.arange(v) >= cuts[..., None]).sum(1)
    x = rng.normal(0, 1, (24, 4))
    y = x + rng.normal(0, 0.3, (24, 4))
    for name in ("kl", "js"):
        check(name, *(np.take_along_axis(a.astype(np.float32), which, 1) for a in (x, y)))


@pytest.mark.parametrize("name", ["kl", "js"])
def test_ignored_rows(rng, name):
    x, y = rng.normal(0, 1, (2, 5, 40)).astype(np.float32)
    weight = np.array([1.0, 0.0, 2.0, 0.0, 0.5])
    x[1], y[3] = np.nan, np.inf
    kept = weight > 0
    rows = np.asarray(divergence(name, x[kept], y[kept], reduction="none"), np.float64)
    value, grad = divergence(name, x, y, sample_weight=weight, return_grad=True)
    assert value == pytest.approx((rows * weight[kept]).sum() / weight.sum(), rel=1e-6)
    assert not grad[~kept].any()
    total = divergence(name, x, y, sample_weight=weight, reduction="sum")
    assert total == pytest.approx((rows * weight[kept]).sum(), rel=1e-6)
    each = divergence(name, x, y, sample_weight=weight, reduction="none")
    np.testing.assert_allclose(each[kept], rows * weight[kept], rtol=1e-6)
    assert not each[~kept].any()


def test_nothing(rng):
    none = np.empty((0, 5), np.float32)
    assert fastinfo.softmax_entropy(none).shape == (0,)
    assert np.isnan(fastinfo.softmax_entropy(none, reduction="mean"))
    assert np.isnan(fastinfo.softmax_kl_divergence(none, none))
    assert fastinfo.softmax_js_divergence(none, none, reduction="sum") == 0
    x = rng.normal(0, 1, (3, 5))
    assert np.isnan(fastinfo.softmax_kl_divergence(x, x, sample_weight=np.zeros(3)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axis_and_reductions(rng, axis):
    x, y = rng.normal(0, 2, (2, 4, 5, 6))
    moved = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    exact = oracles.softmax_divergence(*moved)
    values, grad = fastinfo.softmax_kl_divergence(
        x, y, axis=axis, reduction="none", return_grad=True
    )
    assert_close_measure("divergence", values, exact.values, np.float64)
    assert_close_gradient(np.moveaxis(grad, axis, -1), exact.grad, exact.terms, np.float64)
    mean, share = fastinfo.softmax_kl_divergence(x, y, axis=axis, return_grad=True)
    assert mean == pytest.approx(float(exact.values.mean()), rel=1e-12)
    np.testing.assert_allclose(share, grad / exact.values.size, rtol=1e-10, atol=1e-18)
    of_entropy = oracles.softmax_entropy(moved[0])
    value, grad = fastinfo.softmax_entropy(x, axis=axis, reduction="mean", return_grad=True)
    assert value == pytest.approx(float(of_entropy.values.mean()), rel=1e-12)
    np.testing.assert_allclose(
        np.moveaxis(grad, axis, -1),
        np.asarray(of_entropy.grad / of_entropy.values.size, np.float64),
        rtol=1e-9, atol=1e-16,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["f4", "bf16"])
@pytest.mark.parametrize("v", [40, 3000])
def test_gradient_in_place(rng, v, dtype):
    x, y = (cases.normal_logits(rng, (50, v), dtype) for _ in range(2))
    for call in (
        lambda q, **given: fastinfo.softmax_kl_divergence(x, q, return_grad=True, **given),
        lambda q, **given: fastinfo.softmax_js_divergence(x, q, return_grad=True, **given),
        lambda q, **given: fastinfo.softmax_entropy(q, return_grad=True, **given),
    ):
        value, grad = call(y)
        buffer = y.copy()
        again, written = call(buffer, out=buffer)
        assert written is buffer
        assert_same_bits((again, written), (value, grad))


def test_errors(rng):
    x = rng.normal(0, 1, (3, 4))
    for function in (fastinfo.softmax_kl_divergence, fastinfo.softmax_js_divergence):
        with pytest.raises(ValueError, match=r"q_logits must have the shape of p_logits, \(3, 4\)"):
            function(x, x[:2])
        with pytest.raises(ValueError, match="out must not overlap the memory of p_logits"):
            function(x, x.copy(), return_grad=True, out=x)
        with pytest.raises(ValueError, match="out must be left out unless return_grad=True"):
            function(x, x, out=x.copy())
        with pytest.raises(ValueError, match="sample_weight must be finite and at least 0, got -1"):
            function(x, x, sample_weight=[1.0, -1.0, 1.0])
        with pytest.raises(ValueError, match="temperature must be positive"):
            function(x, x, temperature=0.0)
        with pytest.raises(TypeError, match="q_logits must hold real numbers"):
            function(x, x.astype(complex))
    for beta in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match=r"beta must be in .*softmax_kl_divergence"):
            fastinfo.softmax_js_divergence(x, x, beta=beta)
    with pytest.raises(ValueError, match="reduction must be one of 'none', 'mean', 'sum'"):
        fastinfo.softmax_entropy(x, reduction="average")
    with pytest.raises(ValueError, match="at least one class"):
        fastinfo.softmax_entropy(np.empty((3, 0)))


# Laws and second oracles ----------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(1e-6, 30), st.floats(0.05, 0.95))
def test_laws(v, seed, spread, beta):
    rng = np.random.default_rng(seed)
    x, y = spread * rng.normal(0, 1, (2, 3, v))
    p, q = fastinfo.softmax(x), fastinfo.softmax(y)
    entropy = fastinfo.softmax_entropy(x)
    assert (entropy >= 0).all()
    assert (entropy <= np.log(v) + 1e-12).all()
    kl = fastinfo.softmax_kl_divergence(x, y, reduction="none")
    cross = fastinfo.softmax_cross_entropy(y, p, reduction="none")
    np.testing.assert_allclose(kl, cross - entropy, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(kl, fastinfo.kl_divergence(p, q), rtol=1e-6, atol=1e-12)
    js = fastinfo.softmax_js_divergence(x, y, beta=beta, reduction="none")
    other = fastinfo.softmax_js_divergence(y, x, beta=1 - beta, reduction="none")
    np.testing.assert_allclose(js, other, rtol=1e-10, atol=1e-300)
    assert (js >= 0).all()
    assert (js <= -beta * np.log(beta) - (1 - beta) * np.log(1 - beta) + 1e-12).all()


@pytest.mark.parametrize("seed", range(6))
def test_central_differences(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 2, (2, 3, 8))
    options: dict[str, Any] = {
        "temperature": float(rng.uniform(0.5, 3)),
        "reduction": str(rng.choice(["mean", "sum"])),
        "sample_weight": rng.uniform(0, 2, 3),
    }
    h = 1e-5
    calls = [
        lambda z: fastinfo.softmax_kl_divergence(x, z, return_grad=True, **options),
        lambda z: fastinfo.softmax_js_divergence(x, z, beta=0.2, return_grad=True, **options),
        lambda z: fastinfo.softmax_entropy(
            z, temperature=options["temperature"], reduction="sum", return_grad=True
        ),
    ]
    for call in calls:
        grad = call(y)[1]
        for at in np.ndindex(y.shape):
            step = np.zeros_like(y)
            step[at] = h
            slope = (call(y + step)[0] - call(y - step)[0]) / (2 * h)
            assert grad[at] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_torch_autograd(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    x, y = (torch.tensor(rng.normal(0, 2, (4, 9))) for _ in range(2))
    t, beta = float(rng.uniform(0.5, 3)), float(rng.uniform(0.1, 0.9))
    y.requires_grad_(True)
    log_p, log_q = torch.log_softmax(x / t, -1), torch.log_softmax(y / t, -1)
    p, q = log_p.exp(), log_q.exp()
    log_m = (beta * p + (1 - beta) * q).log()
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    js = (beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)).sum() / 4
    entropy = -(q * log_q).sum()
    with torch.no_grad():
        z = y.detach()
        found = [
            fastinfo.softmax_kl_divergence(x, z, temperature=t, return_grad=True),
            fastinfo.softmax_js_divergence(x, z, beta=beta, temperature=t, return_grad=True),
            fastinfo.softmax_entropy(z, temperature=t, reduction="sum", return_grad=True),
        ]
    for loss, (value, grad) in zip((kl, js, entropy), found, strict=True):
        (slope,) = torch.autograd.grad(loss, y, retain_graph=True)
        assert isinstance(grad, torch.Tensor)
        assert float(value) == pytest.approx(loss.item(), rel=1e-10)
        torch.testing.assert_close(grad, slope, rtol=1e-8, atol=1e-12)
