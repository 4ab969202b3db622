"""Gradients of softmax_cross_entropy: formula, central differences, autograd, buffers."""

from typing import Any

import cases
import numpy as np
import oracles
import pytest
from accuracy import (
    RTOL,
    assert_close_gradient,
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
from fastinfo.cpu import rows as row_code
from fastinfo.cpu import vmath

OPTIONS = list(cases.loss_options(np.random.default_rng(0), 3, 4))
REDUCTIONS = ["none", "sum", "mean"]


def check(logits, targets, reduction="sum", **options):
    """Compare loss and gradient with the oracle, in the dtype of the logits; return both."""
    loss = oracles.softmax_cross_entropy(logits, targets, **options)
    value, exact, terms = oracles.reduced(loss, reduction)
    actual, grad = fastinfo.softmax_cross_entropy(
        logits, targets, reduction=reduction, return_grad=True, **options
    )
    assert_close_loss(actual, value, logits.dtype)
    assert_close_gradient(grad, exact, terms, logits.dtype)
    return grad, exact


def check_target_entry(logits, targets, **options):
    """The target's own entry, p - 1, is relative however near p is to 1."""
    grad, exact = check(logits, targets, **options)
    kind, at = result_dtype(logits.dtype), np.asarray(targets)[..., None]
    if logits.dtype.itemsize > 2:
        own, truth = np.take_along_axis(grad, at, -1), np.take_along_axis(exact, at, -1)
        allowed = np.maximum(RTOL[kind] * abs(truth), float(np.finfo(kind).tiny))
        assert_within(own, truth, allowed, kind)


@pytest.mark.parametrize("v", [1, 2, 7, 16, 33, 64, 257, 1023, 1025, 4097, 50257])
def test_number_of_classes(rng, v):
    n = 3
    targets = rng.integers(0, v, n)
    targets[:2] = 0, v - 1
    for dtype in FLOATS:
        check_target_entry(cases.normal_logits(rng, (n, v), dtype), targets)


@pytest.mark.parametrize("n", cases.ROWS)
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_number_of_rows(rng, n, dtype):
    check(cases.normal_logits(rng, (n, 33), dtype), rng.integers(0, 33, n), "none")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("v", [2, 5, 40, 1030])
def test_finite_rows(v, dtype):
    rows = [r.astype(dtype) for r in cases.finite_logits(v).values() if cases.fits(r, dtype)]
    logits = np.stack(rows)
    check(logits, np.zeros(len(rows), int))
    check(logits, np.full(len(rows), v - 1))
    check_target_entry(logits, logits.argmax(-1))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("v", [6, 1100])
def test_options(rng, name, dtype, v):
    n = 7
    options = cases.loss_options(rng, n, v)[name]
    logits = cases.normal_logits(rng, (n, v), dtype)
    targets = rng.integers(0, v, n)
    targets[1] = -100
    check(logits, targets, "mean", **options)
    check(logits, rng.uniform(0, 2, (n, v)), "mean", **options)
    if name in ("class_weight", "temperature", "softcap", "sample_weight", "capped and cold"):
        check_target_entry(logits, rng.integers(0, v, n), **options)


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
def test_options_of_16_bit_logits(rng, dtype):
    n, v = 5, 1100
    options = cases.loss_options(rng, n, v)["everything"]
    logits = cases.normal_logits(rng, (n, v), dtype)
    check(logits, rng.integers(0, v, n), "mean", **options)
    check(logits, rng.dirichlet(np.ones(v), n), "mean", **options)


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", ["temperature", "cold", "label_smoothing", "z_loss", "softcap"])
def test_options_on_hard_rows(rng, name, dtype):
    v = 40
    hard = cases.finite_logits(v)
    logits = np.stack([row for key, row in hard.items() if "masked" not in key]).astype(dtype)
    options = cases.loss_options(rng, len(logits), v)[name]
    check(logits, logits.argmax(-1), **options)
    check(logits, logits.argmin(-1), **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_reductions(rng, reduction, dtype):
    logits = cases.normal_logits(rng, (9, 21), dtype)
    targets = rng.integers(0, 21, 9)
    targets[2] = -100
    check(logits, targets, reduction, class_weight=rng.random(21), sample_weight=rng.random(9))
    check(logits, rng.random((9, 21)), reduction, sample_weight=rng.random(9))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_axis(rng, axis, dtype):
    logits = cases.normal_logits(rng, (5, 7, 6), dtype)
    last = np.moveaxis(logits, axis, -1)
    targets = rng.integers(0, last.shape[-1], last.shape[:-1])
    loss, grad = fastinfo.softmax_cross_entropy(logits, targets, axis=axis, return_grad=True)
    assert grad.shape == logits.shape
    expected = fastinfo.softmax_cross_entropy(last.copy(), targets, return_grad=True)
    assert_same_bits((loss, np.moveaxis(grad, axis, -1)), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
def test_ignored_rows_are_exactly_zero(rng, soft, dtype):
    """Whatever their logits hold, by index and by weight, in a fresh buffer and in a used one."""
    logits = cases.normal_logits(rng, (6, 40), dtype)
    logits[1], logits[2], logits[4, 3] = np.nan, -np.inf, np.inf
    weight = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 2.0])
    options: dict[str, Any] = {"sample_weight": weight}
    targets = rng.random((6, 40)) if soft else np.array([0, -100, -100, 7, -100, 39])
    if not soft:
        options = {}
    expected = np.zeros((3, 40), dtype)
    _, grad = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, **options)
    assert_same_bits(grad[[1, 2, 4]], expected)
    assert (grad[[0, 3, 5]] != 0).any(-1).all()
    used = np.full_like(logits, np.nan)
    fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, out=used, **options)
    assert_same_bits(used, grad)
    nothing = fastinfo.softmax_cross_entropy(logits, np.full(6, -100), return_grad=True)[1]
    assert_same_bits(nothing, np.zeros_like(logits))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_invalid_rows_are_nan_and_touch_no_other(rng, dtype):
    bad = np.stack(list(cases.invalid_logits(70).values())).astype(dtype)
    logits = np.repeat(cases.normal_logits(rng, bad.shape, dtype), 2, axis=0)
    logits[::2] = bad
    targets = np.full(len(logits), 69)
    _, grad = fastinfo.softmax_cross_entropy(logits, targets, reduction="sum", return_grad=True)
    assert np.isnan(grad[::2].astype(np.float32)).all()
    alone = fastinfo.softmax_cross_entropy(
        logits[1::2], targets[1::2], reduction="sum", return_grad=True
    )
    assert_same_bits(grad[1::2], alone[1])


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"softcap": 4.0}, {"z_loss": 0.1}])
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_masked_target(rng, dtype, options):
    """The loss is infinite, the target's entry is -1/temperature, the others stay finite."""
    logits = cases.normal_logits(rng, (2, 30), dtype)
    logits[:, [4, 9]] = -np.inf
    grad, exact = check(logits, np.array([4, 8]), **options)
    assert np.isfinite(grad).all()
    assert grad[0, 4] == -1 / options.get("temperature", 1.0)
    assert grad[1, 4] == grad[0, 9] == 0
    assert (exact[0] != 0).sum() == 29


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
def test_16_bit_gradients_round_once_to_nearest_even(dtype):
    """With two equal logits the entries are -weight/2 and weight/2, here halfway cases."""
    step = 2.0**-7 if dtype == cases.BFLOAT16 else 2.0**-10
    weight = np.array([1 + step / 2, 1 + 3 * step / 2, 1 + step / 2 + step / 256])
    nearest = np.array([1.0, 1 + 2 * step, 1 + step]) / 2
    _, grad = fastinfo.softmax_cross_entropy(
        np.zeros((3, 2), dtype), [0, 1, 0], sample_weight=weight, reduction="sum",
        return_grad=True,
    )  # fmt: skip
    assert_same_bits(abs(grad.astype(np.float64)).max(-1), nearest)


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
def test_confident_rows_keep_the_gradient_of_the_target(dtype):
    """p - 1 rounds to zero from p = 1 - 1e-6 in 16 bits; -(others)/sum does not."""
    logits = np.zeros((1, 5), dtype)
    logits[0, 2] = 14
    _, grad = fastinfo.softmax_cross_entropy(logits, [2], return_grad=True)
    exact = -4 * np.exp(-14.0) / (1 + 4 * np.exp(-14.0))
    ulp = 2.0**-8 if dtype == cases.BFLOAT16 else 2.0**-5 if dtype.itemsize == 2 else 2e-5
    assert float(grad[0, 2]) == pytest.approx(exact, rel=ulp)
    # float16 is subnormal here: five bits are left


# Buffers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
@pytest.mark.parametrize("v", [3, 50, 5000])
def test_gradient_in_place_of_the_logits(rng, v, soft, dtype):
    n = 6
    logits = cases.normal_logits(rng, (n, v), dtype)
    targets = rng.random((n, v)) if soft else rng.integers(0, v, n)
    for options in ({}, cases.loss_options(rng, n, v)["everything"]):
        buffer = logits.copy()
        expected = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, **options)
        loss, grad = fastinfo.softmax_cross_entropy(
            buffer, targets, return_grad=True, out=buffer, **options
        )
        assert grad is buffer
        assert_same_bits((loss, grad), expected)


@pytest.mark.parametrize(
    "layout", ["spaced", "fortran", "reversed", "reversed rows", "spaced rows"]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_gradient_into_any_layout(rng, layout, in_place):
    logits = cases.normal_logits(rng, (5, 1300), np.float32)
    targets = rng.integers(0, 1300, 5)
    _, expected = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True)
    out = cases.LAYOUTS[layout](logits)
    source = out if in_place else logits
    _, grad = fastinfo.softmax_cross_entropy(source, targets, return_grad=True, out=out)
    assert grad is out
    assert_same_bits(np.ascontiguousarray(grad), expected)


def test_gradient_in_place_along_another_axis(rng):
    logits = cases.normal_logits(rng, (3, 70, 4, 5), np.float32)
    targets = rng.integers(0, 70, (3, 4, 5))
    expected = fastinfo.softmax_cross_entropy(logits, targets, axis=1, return_grad=True)
    actual = fastinfo.softmax_cross_entropy(logits, targets, axis=1, return_grad=True, out=logits)
    assert actual[1] is logits
    assert_same_bits(actual, expected)


def test_gradient_into_a_memory_map(rng, tmp_path):
    logits = cases.normal_logits(rng, (4, 2000), np.float32)
    targets = rng.integers(0, 2000, 4)
    out = np.memmap(tmp_path / "grad", np.float32, "w+", shape=logits.shape)
    _, grad = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, out=out)
    assert grad is out
    _, expected = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True)
    out.flush()
    assert_same_bits(np.fromfile(tmp_path / "grad", np.float32).reshape(4, 2000), expected)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_gradient_of_integers_is_float64(dtype):
    logits = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    grad, _ = check(logits, np.array([0, 3, 1]))
    assert gradient_dtype(dtype) == grad.dtype == np.float64


# Central differences --------------------------------------------------------------------------


@st.composite
def losses(draw):
    """Draw logits, targets and any combination of the options."""
    n, v = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, 2, (n, v))
    targets = rng.integers(0, v, n) if draw(st.booleans()) else rng.uniform(0, 1.5, (n, v))
    options: dict[str, Any] = {"reduction": draw(st.sampled_from(REDUCTIONS))}
    if targets.shape == (n,) and draw(st.booleans()):
        options["ignore_index"] = int(targets[0])
    if draw(st.booleans()):
        options["class_weight"] = rng.uniform(0.1, 2, v)
    if draw(st.booleans()):
        options["sample_weight"] = rng.uniform(0.1, 2, n)
    options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    options["z_loss"] = draw(st.sampled_from([0.0, 1e-3, 0.5]))
    options["temperature"] = draw(st.sampled_from([1.0, 0.5, 3.0]))
    options["softcap"] = draw(st.sampled_from([None, 1.0, 5.0, 50.0]))
    return logits, targets, options


@given(losses())
def test_central_differences(case):
    """The error of a step of 1e-5 is about 1e-10 by the third derivative and 1e-11 by rounding."""
    logits, targets, options = case

    def total(x):
        return np.sum(fastinfo.softmax_cross_entropy(x, targets, **options))

    value, grad = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, **options)
    if options["reduction"] == "mean" and np.isnan(value):
        assert (targets == options["ignore_index"]).all()
        assert (grad == 0).all()
        return
    step, differences = 1e-5, np.empty_like(logits)
    for at in np.ndindex(logits.shape):
        change = np.zeros_like(logits)
        change[at] = step
        differences[at] = (total(logits + change) - total(logits - change)) / (2 * step)
    np.testing.assert_allclose(grad, differences, rtol=1e-6, atol=1e-7)


@given(losses())
def test_formula(case):
    logits, targets, options = case
    reduction = options.pop("reduction")
    if "ignore_index" in options and (targets == options["ignore_index"]).all():
        return
    check(logits, targets, reduction, **options)


# Autograd -------------------------------------------------------------------------------------


@given(losses())
def test_torch_autograd(case):
    """`F.cross_entropy` where it has the option, its definition written out where it has not."""
    torch = pytest.importorskip("torch")
    logits, targets, options = case
    x = torch.tensor(logits, requires_grad=True)
    z = x / options["temperature"]
    if options["softcap"] is not None:
        z = options["softcap"] * torch.tanh(z / options["softcap"])
    weight = options.get("class_weight")
    rows = torch.nn.functional.cross_entropy(
        z,
        torch.tensor(targets),
        weight=None if weight is None else torch.tensor(weight),
        ignore_index=options.get("ignore_index", -100),
        label_smoothing=options["label_smoothing"],
        reduction="none",
    )
    hard = targets.ndim == 1
    kept = targets != options.get("ignore_index", -100) if hard else np.ones(len(logits), bool)
    rows = rows + options["z_loss"] * torch.logsumexp(z, -1) ** 2
    share = kept * options.get("sample_weight", np.ones(len(logits)))
    loss = rows * torch.tensor(share)
    if hard and weight is not None:
        share = share * weight[targets]
    if options["reduction"] == "sum":
        loss = loss.sum()
    if options["reduction"] == "mean":
        loss = loss.sum() / share.sum() if share.any() else loss.sum() * 0
    loss.sum().backward()
    value, grad = fastinfo.softmax_cross_entropy(logits, targets, return_grad=True, **options)
    np.testing.assert_allclose(grad, x.grad.numpy(), rtol=1e-9, atol=1e-13)
    if share.any():
        np.testing.assert_allclose(value, loss.detach().numpy(), rtol=1e-10)


# Identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("name", ["plain", "class_weight", "label_smoothing", "temperature"])
def test_rows_of_the_gradient_sum_to_zero(rng, name, dtype):
    options = cases.loss_options(rng, 5, 300)[name]
    logits = cases.normal_logits(rng, (5, 300), dtype)
    _, grad = fastinfo.softmax_cross_entropy(
        logits, rng.integers(0, 300, 5), reduction="sum", return_grad=True, **options
    )
    sums = grad.astype(np.float64).sum(-1)
    assert abs(sums).max() < 10 * RTOL[np.dtype(dtype)]


def test_gradient_of_the_loss_is_softmax_minus_one_hot(rng):
    logits = cases.normal_logits(rng, (5, 64), np.float64)
    targets = rng.integers(0, 64, 5)
    _, grad = fastinfo.softmax_cross_entropy(logits, targets, reduction="none", return_grad=True)
    expected = fastinfo.softmax(logits) - np.eye(64)[targets]
    np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-15)


def test_mean_is_the_sum_over_its_denominator(rng):
    logits = cases.normal_logits(rng, (8, 20), np.float64)
    targets, weight = rng.integers(0, 20, 8), rng.uniform(0.5, 2, 20)
    results = [
        fastinfo.softmax_cross_entropy(
            logits, targets, class_weight=weight, reduction=reduction, return_grad=True
        )
        for reduction in REDUCTIONS
    ]
    (_, rows_grad), (total, sum_grad), (mean, mean_grad) = results
    denominator = weight[targets].sum()
    np.testing.assert_allclose(mean, total / denominator, rtol=1e-14)
    np.testing.assert_allclose(mean_grad, sum_grad / denominator, rtol=1e-14)
    assert_same_bits(rows_grad, sum_grad)


def test_saturated_softcap(rng):
    """1 - tanh² keeps its digits where tanh has rounded to 1."""
    logits = np.array([[400.0, -300.0, 90.0, 0.0]])
    for dtype in WIDE_FLOATS:
        check(logits.astype(dtype), np.array([1]), softcap=30.0)


@pytest.mark.parametrize("softcap", [32.0, 50.0, 1000.0])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_logits_about_a_wide_softcap(rng, dtype, softcap):
    """In float32 softcap * tanh is off by as much as the softcap is wide."""
    middle = rng.uniform(-softcap, softcap, (20, 1))
    logits = (middle + rng.normal(0, 2, (20, 150))).astype(dtype)
    check(logits, rng.integers(0, 150, 20), softcap=softcap)
    figures = fastinfo.softmax_statistics(logits, softcap=softcap)
    exact = oracles.softmax_entropy(oracles.scale(logits, softcap=softcap)[0])
    assert_close_loss(figures.entropy, exact.values, dtype)


def _long_rows(rng: np.random.Generator) -> np.ndarray:
    """Rows of several blocks: rising, falling, masked at first, masked but for one, confident."""
    n = 3 * 16384 + 7
    noise = rng.standard_normal((5, n))
    noise[0] += np.linspace(0, 200, n)
    noise[1] -= np.linspace(0, 200, n)
    noise[2, :20000] = -np.inf
    noise[3, :] = -np.inf
    noise[3, 40000] = 3.0
    noise[4, 17000] = 60.0
    return noise


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_from_kept_exponentials(rng, monkeypatch, dtype, keeps):
    monkeypatch.setattr(row_code, "KEEPS", vmath.STORAGE if keeps else ())
    x = _long_rows(rng).astype(dtype)
    targets, weights = [40000, 7, 30000, 40000, 17000], [1.0, 2.0, 1e-30, 0.5, 3.0]
    options = {"sample_weight": weights, "temperature": 1.5, "z_loss": 1e-4}
    expected = oracles.softmax_cross_entropy(x, targets, **options)
    for out in (None, x.copy()):
        logits = x if out is None else out
        losses, grad = fastinfo.softmax_cross_entropy(
            logits, targets, reduction="none", return_grad=True, out=out, **options
        )
        assert_close_loss(losses, expected.rows, dtype)
        assert_close_gradient(grad, expected.grad, expected.terms, dtype)
