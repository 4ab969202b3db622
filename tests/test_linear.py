"""Linear cross-entropy and statistics: values, gradients, blocks, layouts, memory, errors."""

import re
from typing import Any

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
    peak,
    result_dtype,
)
from cases import BFLOAT16, FLOATS, WIDE_FLOATS
from hypothesis import given
from hypothesis import strategies as st

import fastinfo
from fastinfo import linear_cross_entropy, linear_softmax_statistics
from fastinfo.cpu import linear

REDUCTIONS = ["none", "sum", "mean"]
NAMES = ("hidden", "weight", "bias")
# Blocks of rows and of classes, as constants of the code: ROWS cuts rows, the others classes.
CUTS: dict[str, dict[str, int]] = {
    "as it is": {},
    "three rows": {"ROWS": 3, "BLOCK": 1, "RUN": 2},
    "seven classes": {"PART": 7, "ADDED": 4, "PRODUCT": 1, "BLOCK": 1},
    "both": {"ROWS": 2, "BLOCK": 1, "PART": 5, "ADDED": 3, "PRODUCT": 1},
    "one by one": {
        "ROWS": 1,
        "BLOCK": 1,
        "PART": 1,
        "ADDED": 1,
        "PRODUCT": 1,
        "RUN": 1,
    },
}
# The combinations of options that kernels are compiled for, few of them: a second or more each.
WAYS = {
    np.dtype(np.float64): ("plain", "smooth", "shared", "soft", "weighted soft"),
    np.dtype(np.float32): ("plain", "shared", "soft"),
}
LOGS = ("max", "logsumexp")


@pytest.fixture(params=CUTS)
def cut(request, monkeypatch):
    """Set the sizes of blocks."""
    for name, value in CUTS[request.param].items():
        monkeypatch.setattr(linear, name, value)


def call(hidden, weight, targets, **options):
    """Return the loss and a tuple of its gradients."""
    loss, gradients = linear_cross_entropy(hidden, weight, targets, return_grad=True, **options)
    assert isinstance(gradients, fastinfo.linear.LinearGradients)
    assert gradients._fields == NAMES
    return loss, gradients


def product_of(hidden, weight) -> np.dtype:
    """Return the dtype of the product."""
    return np.result_type(result_dtype(hidden.dtype), result_dtype(weight.dtype))


def head(rng, n, v, d, dtype=np.float32, weight_dtype=None, bias_dtype=None):
    """Return hidden, weight, bias and targets, one of them ignored if there are four."""
    lead = n if isinstance(n, tuple) else (n,)
    hidden = cases.normal_logits(rng, (*lead, d), dtype, 1.0)
    weight = cases.normal_logits(rng, (v, d), weight_dtype or dtype, 1.0)
    bias = cases.normal_logits(rng, (v,), bias_dtype or weight_dtype or dtype, 1.0)
    targets = rng.integers(0, v, lead)
    if targets.size > 3:
        targets.flat[2] = -100
    return hidden, weight, bias, targets


def check(hidden, weight, targets, *, grad_dtype=None, memory_limit=None, **options):
    """Compare the loss, with gradients and without, and the gradients with the oracle."""
    kind = product_of(hidden, weight)
    unit = float(np.finfo(kind).eps) / 2
    exact = oracles.linear_cross_entropy(hidden, weight, targets, unit=unit, **options)
    options["memory_limit"] = memory_limit
    loss, gradients = call(hidden, weight, targets, grad_dtype=grad_dtype, **options)
    value, _, slack = exact["loss"]
    for actual in (loss, linear_cross_entropy(hidden, weight, targets, **options)):
        assert_close_loss(actual, value, kind, slack)
    for name, of in zip(NAMES, (hidden, weight, options.get("bias")), strict=True):
        if of is None:
            assert getattr(gradients, name) is None
            continue
        truth, terms, change = exact[name]
        own = gradient_dtype(of.dtype) if grad_dtype is None else grad_dtype
        assert_close_gradient(getattr(gradients, name), truth, terms, own, kind, change)
    return loss, gradients


def drawn_options(data, rng, hidden, v, way):
    """Draw targets and options, which ask for the kernels of this way."""
    lead = hidden.shape[:-1]
    targets = np.where(rng.random(lead) < 0.2, -100, rng.integers(0, v, lead))
    options: dict[str, Any] = {"reduction": data.draw(st.sampled_from(REDUCTIONS))}
    if "soft" in way:
        targets = rng.uniform(0, 1.5, (*lead, v)).astype(result_dtype(hidden.dtype))
    elif data.draw(st.booleans()):
        targets[targets == -100], options["ignore_index"] = 0, 0
    if way in ("shared", "weighted soft"):
        options["softcap"] = data.draw(st.sampled_from([1.0, 5.0, 50.0]))
    if way in ("shared", "weighted soft") or (way == "plain" and data.draw(st.booleans())):
        options["class_weight"] = rng.uniform(0.1, 2, v)
    if data.draw(st.booleans()):
        weights = rng.uniform(0.1, 2, lead)
        options["sample_weight"] = np.where(rng.random(lead) < 0.2, 0, weights)
    if way != "plain":
        low = 0.1 if way in ("smooth", "shared") else 0.0
        options["label_smoothing"] = data.draw(st.sampled_from([low, 0.3, 1.0]))
    options["z_loss"] = data.draw(st.sampled_from([0.0, 1e-3, 0.5]))
    options["temperature"] = data.draw(st.sampled_from([1.0, 0.5, 3.0]))
    return targets, options


def counts(targets, options):
    """Tell whether the mean is over anything."""
    kept = options.get("sample_weight", np.ones(1)) != 0
    if targets.dtype.kind == "i":
        kept = kept & (targets != options.get("ignore_index", -100))
    return bool(np.any(kept))


# Values and gradients -------------------------------------------------------------------------


@given(st.data())
def test_any_options(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, v, d = (data.draw(st.integers(1, most)) for most in (7, 40, 9))
    dtypes = [data.draw(st.sampled_from([*FLOATS, np.dtype(np.int16)])) for _ in range(3)]
    hidden, weight, bias, _ = head(rng, n, v, d, *dtypes)
    way = data.draw(st.sampled_from(WAYS[product_of(hidden, weight)]))
    targets, options = drawn_options(data, rng, hidden, v, way)
    if "soft" in way:
        targets = targets.astype(product_of(hidden, weight))
    if data.draw(st.booleans()):
        options["bias"] = bias
    if not counts(targets, options):
        options["reduction"] = "sum"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CUTS[data.draw(st.sampled_from(list(CUTS)))].items():
            patch.setattr(linear, name, value)
        check(hidden, weight, targets, **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("weight_dtype", FLOATS, ids=str)
def test_dtypes(rng, dtype, weight_dtype):
    hidden, weight, bias, targets = head(rng, 9, 300, 24, dtype, weight_dtype, dtype)
    check(hidden, weight, targets, bias=bias)
    for grad_dtype in (np.float32, "float64"):
        check(hidden, weight, targets, bias=bias, grad_dtype=np.dtype(grad_dtype))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(5, 1, 3), (5, 1, 0), (4, 9, 0), (6, 70, 1), (3, 9000, 40)])
def test_shapes(rng, shape, dtype):
    hidden, weight, bias, targets = head(rng, *shape, dtype)
    _, gradients = check(hidden, weight, targets, bias=bias, reduction="sum")
    if shape[1] == 1:
        assert not any(g.any() for g in gradients)


def test_leading_dimensions(rng):
    """As rows one after the other; a single row gives scalars."""
    hidden, weight, bias, targets = head(rng, (2, 1, 3), 30, 4)
    share = rng.random(targets.shape)
    for y in (targets, rng.random((*targets.shape, 30)).astype(np.float32)):
        loss, gradients = check(hidden, weight, y, bias=bias, reduction="none", sample_weight=share)
        assert (loss.shape, gradients.hidden.shape) == ((2, 1, 3), hidden.shape)
    loss, gradients = check(hidden[0, 0, 1], weight, targets[0, 0, 1], bias=bias)
    assert type(loss) is np.float32
    assert gradients.hidden.shape == (4,)
    check(hidden[0, 0, 1], weight, y[0, 0, 1])
    figures = linear_softmax_statistics(hidden[0, 0, 1], weight, 3)
    assert [type(f) for f in figures] == [np.float32] * 4 + [np.int64, np.float32, np.int64]
    assert linear_softmax_statistics(hidden, weight).entropy.shape == (2, 1, 3)


@given(st.data())
def test_central_differences(data):
    """The error of a step of 1e-5 is about 1e-10 by the third derivative and 1e-11 by rounding."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    arrays = dict(zip(NAMES, head(rng, 3, 5, 2, np.float64)[:3], strict=True))
    way = data.draw(st.sampled_from(WAYS[np.dtype(np.float64)]))
    targets, options = drawn_options(data, rng, arrays["hidden"], 5, way)
    if not counts(targets, options):
        return
    step, (_, gradients) = 1e-5, call(**arrays, targets=targets, **options)
    for name in NAMES:
        differences = np.empty_like(arrays[name])
        for at in np.ndindex(differences.shape):
            change = np.zeros_like(differences)
            change[at] = step
            ends = [arrays | {name: arrays[name] + sign * change} for sign in (1, -1)]
            losses = [linear_cross_entropy(**a, targets=targets, **options) for a in ends]
            differences[at] = np.sum(losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(getattr(gradients, name), differences, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True], ids=["integers", "probabilities"])
def test_torch_autograd(rng, reduction, soft):
    torch = pytest.importorskip("torch")
    hidden, weight, bias, targets = head(rng, 7, 20, 5, np.float64)
    options = {"label_smoothing": 0.1 * (not soft), "reduction": reduction}
    if soft:
        targets = rng.random((7, 20))
    h, w, b = (torch.tensor(a, requires_grad=True) for a in (hidden, weight, bias))
    y = torch.tensor(targets)
    loss = torch.nn.functional.cross_entropy(h @ w.T + b, y, **options)
    loss.sum().backward()
    with torch.no_grad():
        value, gradients = call(h, w, y, bias=b, **options)
    torch.testing.assert_close(value, loss.detach(), rtol=1e-11, atol=1e-13)
    for actual, of in zip(gradients, (h, w, b), strict=True):
        torch.testing.assert_close(actual, of.grad, rtol=1e-10, atol=1e-13)


# Blocks ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, BFLOAT16], ids=["f8", "f4", "bf16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks(rng, dtype, order):
    """Ignored rows among others; each array in place or copied."""
    hidden, weight, bias, targets = head(rng, 11, 43, 6, dtype)
    hidden, weight = np.asarray(hidden, order=order), np.asarray(weight, order=order)
    check(hidden, weight, targets, bias=bias)
    check(cases.spaced(hidden), cases.spaced(weight), targets)
    y = rng.random((11, 43)).astype(product_of(hidden, weight))
    check(hidden, weight, y, bias=bias, reduction="sum")
    check_statistics(hidden, weight, targets, bias=bias)
    check_statistics(hidden, weight, None, bias=bias)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=["f4", "f2", "bf16"])
def test_memory_limits(rng, dtype):
    """The least is what the error says; blocks of all sizes agree with the oracle."""
    for n, v, d in ((9, 50, 7), (2, 3, 16), (1, 1, 1), (3, 41, 0), (2, 900, 3)):
        hidden, weight, _, targets = head(rng, n, v, d, dtype)
        with pytest.raises(ValueError, match=rf"memory_limit.*{v} classes.*{d} features.*1$") as e:
            call(hidden, weight, targets, memory_limit=1)
        least = int(re.search(r"at least (\d+) bytes", str(e.value))[1])
        with pytest.raises(ValueError, match="memory_limit"):
            call(hidden, weight, targets, memory_limit=least - 1)
        for limit in (least, 2 * least, 5 * least, 100 * least):
            check(hidden, weight, targets, memory_limit=limit, reduction="sum")
        for y in (targets, None):
            with pytest.raises(ValueError, match=r"memory_limit.*at least") as e:
                linear_softmax_statistics(hidden, weight, y, memory_limit=1)
            least = int(re.search(r"at least (\d+) bytes", str(e.value))[1])
            check_statistics(hidden, weight, y, memory_limit=least)


@pytest.mark.usefixtures("threads")
def test_same_bits_for_any_number_of_threads(rng, monkeypatch):
    for name, value in {"ROWS": 16, "BLOCK": 1, "PART": 700, "PRODUCT": 1, "CHUNK": 1000}.items():
        monkeypatch.setattr(linear, name, value)
    hidden, weight, bias, targets = head(rng, 40, 3000, 16)
    results = []
    for threads in (1, 2, 2, 5):
        fastinfo.set_num_threads(threads)
        loss, gradients = call(hidden, weight, targets, bias=bias)
        figures = linear_softmax_statistics(hidden, weight, bias=bias)
        results.append((loss, tuple(gradients), tuple(figures)))
    for result in results[1:]:
        assert_same_bits(result, results[0])


# Rows and classes of every sort ---------------------------------------------------------------


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", [np.float64, np.float32, BFLOAT16], ids=["f8", "f4", "bf16"])
def test_ignored_rows_may_hold_anything(rng, dtype):
    hidden, weight, bias, targets = head(rng, 8, 30, 5, dtype)
    hidden[2], hidden[5, 1], hidden[6] = np.nan, np.inf, -np.inf
    share = np.where(np.arange(8) >= 5, 0.0, 1.5)
    ignored = (targets == -100) | (share == 0)
    _, gradients = check(hidden, weight, targets, bias=bias, sample_weight=share)
    assert_same_bits(gradients.hidden[ignored], np.zeros((ignored.sum(), 5), dtype))
    for options in (
        {"targets": np.full(8, -100)},
        {"targets": targets, "sample_weight": 0 * share},
    ):
        for reduction, value in (("mean", np.nan), ("sum", 0.0), ("none", np.zeros(8))):
            loss, gradients = call(hidden, weight, bias=bias, reduction=reduction, **options)
            assert_same_bits(loss, np.asarray(value, product_of(hidden, weight))[()])
            assert not any(g.astype(np.float64).any() for g in gradients)


def test_no_rows(rng):
    _, weight, bias, _ = head(rng, 1, 6, 3)
    for lead in ((0,), (2, 0)):
        hidden, targets = np.zeros((*lead, 3), np.float32), np.zeros(lead, int)
        loss, gradients = call(hidden, weight, targets, bias=bias)
        assert np.isnan(loss)
        zeros = tuple(np.zeros_like(a) for a in (hidden, weight, bias))
        assert_same_bits(tuple(gradients), zeros)
        assert linear_cross_entropy(hidden, weight, targets, reduction="sum") == 0
        figures = linear_softmax_statistics(hidden, weight, targets)
        assert {figure.shape for figure in figures} == {lead}


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_masked_classes(rng, dtype):
    """By a bias of -inf: among others, in whole blocks, and the target, which is a loss of inf."""
    hidden, weight, bias, targets = head(rng, 6, 30, 4, dtype)
    bias[[0, 3, *range(10, 26)]] = -np.inf
    targets[:] = 1, 29, 3, 1, -100, 12
    _, gradients = check(hidden, weight, targets, bias=bias, reduction="none")
    loss = check(hidden, weight, targets, bias=bias, reduction="none", temperature=2.0)[0]
    assert_same_bits(np.isposinf(loss), np.isin(np.arange(6), (2, 5)))
    assert np.isfinite(gradients.hidden).all()
    assert gradients.bias[3] == -1
    assert not gradients.weight[[0, 10, 25]].any()
    check_statistics(hidden, weight, targets, bias=bias)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_invalid_rows_are_nan_and_touch_no_other(rng, dtype, value):
    hidden, weight, bias, targets = head(rng, 7, 23, 4, dtype)
    hidden[3, 1], targets[2] = value, 5
    rows, gradients = call(hidden, weight, targets, bias=bias, reduction="none")
    others = np.arange(7) != 3
    assert_same_bits(np.isnan(rows), ~others)
    assert_same_bits(
        np.isnan(gradients.hidden.astype(np.float64)), ~others[:, None] & np.ones(4, bool)
    )
    kept = np.where(others, targets, -100)
    check(hidden, weight, kept, bias=bias)
    figures = linear_softmax_statistics(hidden, weight, targets, bias=bias)
    assert_same_bits(np.isnan(figures.entropy), ~others)
    if np.isnan(value):
        assert figures.argmax[3] == 0


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_logits_beyond_the_range(dtype):
    """They are infinite, which makes NaN, without a warning."""
    most = float(np.finfo(dtype).max)
    hidden, weight = np.array([[most], [1.0]], dtype), np.array([[2.0], [1.0], [0.0]], dtype)
    rows = linear_cross_entropy(hidden, weight, [1, 1], reduction="none")
    assert_same_bits(np.isnan(rows), np.array([True, False]))
    bias = np.array([-np.inf, 0.0, -2 * most if dtype == np.float32 else -np.inf])
    rows = linear_cross_entropy(hidden, weight, [1, 1], bias=bias, reduction="none")
    assert_same_bits(rows, np.array([np.nan, 0.0], dtype))


@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_confident_rows(rng, dtype):
    """As logits of their own, by a weight of ones: the target's entry is relative."""
    v = 12
    hidden = cases.normal_logits(rng, (6, v), dtype)
    targets = rng.integers(0, v, 6)
    np.put_along_axis(hidden, targets[:, None], dtype.type(30.0), -1)
    weight = np.eye(v, dtype=dtype)
    loss, gradients = check(hidden, weight, targets, reduction="none")
    assert (loss < 1e-6).all()
    unit = float(np.finfo(dtype).eps) / 2
    exact = oracles.linear_cross_entropy(hidden, weight, targets, reduction="sum", unit=unit)
    own, truth, change = (
        np.take_along_axis(x, targets[:, None], -1)
        for x in (gradients.hidden, exact["hidden"][0], exact["hidden"][2])
    )
    assert_within(own, truth, RTOL[dtype] * abs(truth) + change, dtype)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_common_offset_changes_nothing(rng, dtype):
    """Offsets, by the bias, that are exact in the dtype give the loss without them."""
    hidden = rng.integers(-3, 4, (5, 3)).astype(dtype)
    weight, bias = rng.integers(-3, 4, (30, 3)).astype(dtype), rng.integers(-3, 4, 30).astype(dtype)
    targets = rng.integers(0, 30, 5)
    exact = oracles.linear_cross_entropy(hidden, weight, targets, bias=bias, reduction="none")
    for offset in (1e6, -1e6, 2.0**20):
        moved = bias + dtype.type(offset)
        rows = linear_cross_entropy(hidden, weight, targets, bias=moved, reduction="none")
        assert_close_loss(rows, exact["loss"][0], dtype)
        check(hidden, weight, targets, bias=moved)


# Arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=["f4", "f2", "bf16"])
def test_layouts(rng, layout, dtype):
    """Of every argument; none is changed."""
    hidden, weight, bias, targets = head(rng, 7, 40, 6, dtype)
    arrays = [cases.LAYOUTS[layout](a) for a in (hidden, weight, targets)]
    bias = bias if layout == "spaced rows" else cases.LAYOUTS[layout](bias)
    before = tuple(np.ascontiguousarray(a) for a in (*arrays, bias))
    check(arrays[0], arrays[1], arrays[2], bias=bias)
    y = cases.LAYOUTS[layout](rng.random((7, 40)).astype(np.float32))
    check(arrays[0], arrays[1], y)
    assert_same_bits(tuple(np.ascontiguousarray(a) for a in (*arrays, bias)), before)
    check_statistics(*arrays, bias=bias)


def test_strides_of_more_dimensions(rng):
    """Repeated rows (stride 0), leading axes out of order, and columns of a wider array."""
    hidden, weight, bias, targets = head(rng, (3, 4), 20, 6)
    turned = np.moveaxis(hidden, 0, 1)
    check(turned, weight, targets.T, bias=bias)
    check(hidden[:, ::-2, ::2], weight[:, 1::2], targets[:, ::-2])
    y = rng.random((4, 3, 20)).astype(np.float32)
    check(turned, weight, y)
    check(np.broadcast_to(hidden[:1], hidden.shape), weight, targets)
    check(hidden, np.broadcast_to(weight[:1], weight.shape), targets)
    check(hidden[..., :1] + np.zeros(6, np.float32), weight, np.broadcast_to(targets[:1], (3, 4)))
    check(np.broadcast_to(hidden[..., :1], hidden.shape), weight, targets, bias=bias[::-1])


def test_integers_and_sequences(rng):
    hidden, weight = rng.integers(-3, 4, (5, 4)), rng.integers(0, 3, (9, 4)).astype(np.uint8)
    loss, gradients = check(hidden, weight, np.arange(5))
    onehot, _ = check(hidden, weight, np.eye(9, dtype=int)[:5])
    np.testing.assert_allclose(onehot, loss, rtol=1e-13)
    given = call(hidden.tolist(), weight.tolist(), range(5))
    assert_same_bits(given, (loss, tuple(gradients)))
    assert {g.dtype for g in gradients if g is not None} == {np.dtype(np.float64)}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_torch_tensors(rng, dtype):
    """Torch in, torch out, each gradient as the kind of array it is by."""
    torch = pytest.importorskip("torch")
    arrays = head(rng, 5, 12, 4, BFLOAT16 if dtype == "bfloat16" else dtype)
    h, w, b = (torch.tensor(a.astype(np.float32)).to(getattr(torch, dtype)) for a in arrays[:3])
    y = torch.tensor(arrays[3])
    expected = call(arrays[0], arrays[1], arrays[3], bias=arrays[2])
    loss, gradients = call(h, w, y, bias=b)
    assert (loss.dtype, loss.shape) == (torch.float32, ())
    assert_same_bits(loss.numpy(), np.asarray(expected[0]))
    for actual, of, truth in zip(gradients, (h, w, b), expected[1], strict=True):
        assert (actual.dtype, actual.shape) == (of.dtype, of.shape)
        assert_same_bits(actual.float().numpy(), truth.astype(np.float32))
    _, mixed = call(h, arrays[1], arrays[3])
    assert isinstance(mixed.hidden, torch.Tensor)
    assert isinstance(mixed.weight, np.ndarray)
    _, wide = call(h, w, y, grad_dtype=torch.float32)
    assert wide.hidden.dtype == wide.weight.dtype == torch.float32
    figures = linear_softmax_statistics(h, w, y)
    dtypes = [torch.float32] * 4 + [torch.int64, torch.float32, torch.int64]
    assert [figure.dtype for figure in figures] == dtypes
    with pytest.raises(TypeError, match=r"\bweight\b.*requires grad.*fastinfo\.torch"):
        linear_cross_entropy(h, w.clone().requires_grad_(), y)


@pytest.mark.parametrize("dtype", FLOATS[2:], ids=str)
def test_16_bit_gradients_round_once_to_nearest_even(dtype):
    """With two equal logits the gradients are halves of the other factor, here halfway cases."""
    step = 2.0**-7 if dtype == BFLOAT16 else 2.0**-10
    factors = np.array([1 + step / 2, 1 + 3 * step / 2, 1 + step / 2 + 2.0**-40])
    for factor, nearest in zip(factors, (1.0, 1 + 2 * step, 1 + step), strict=True):
        zero, pair = np.zeros((1, 1), dtype), np.array([[-factor], [factor]])
        _, gradients = call(zero, pair, [0])
        assert float(gradients.hidden[0, 0]) == nearest
        _, gradients = call(pair[1:] * 2, zero[[0, 0]], [0])
        assert_same_bits(gradients.weight.astype(float), np.array([[-nearest], [nearest]]))


# What is asked for, and memory ------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), "hidden", ["weight"], ("bias", "hidden"), {"weight"}])
def test_need_grad(rng, names):
    hidden, weight, bias, targets = head(rng, 6, 20, 3)
    loss, whole = call(hidden, weight, targets, bias=bias)
    actual = call(hidden, weight, targets, bias=bias, need_grad=names)
    wanted = [names] if isinstance(names, str) else names
    expected = tuple(g if n in wanted else None for n, g in zip(NAMES, whole, strict=True))
    assert_same_bits(actual, (loss, expected))


@pytest.mark.parametrize("layout", ["as made", "fortran", "columns of a wider array"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_out(rng, cut, dtype, layout):
    """Buffers of any layout get the bits that new memory gets, and are what is returned."""
    hidden, weight, bias, _ = head(rng, 7, 20, 5, dtype)
    targets = np.array([3, -100, 0, 19, 7, 7, -100])
    made: dict[str, Any] = {
        "as made": lambda x: np.full(x.shape, np.nan, x.dtype),
        "fortran": lambda x: np.full(x.shape, np.nan, x.dtype, order="F"),
        "columns of a wider array": lambda x: np.full((*x.shape, 2), np.nan, x.dtype)[..., 0],
    }
    expected = call(hidden, weight, targets, bias=bias)[1]
    out = [made[layout](x) for x in (hidden, weight, bias)]
    found = call(hidden, weight, targets, bias=bias, out=out)[1]
    for mine, theirs, buffer in zip(found, expected, out, strict=True):
        assert mine is buffer
        assert_same_bits(mine, theirs)
    again = call(hidden, weight, targets, bias=bias, out=(None, out[1], None))[1]
    assert again.weight is out[1] and again.hidden is not out[0]
    assert_same_bits(again.weight, expected.weight)


def test_out_of_torch(rng):
    torch = pytest.importorskip("torch")
    hidden, weight = (torch.from_numpy(x).bfloat16() for x in head(rng, 4, 9, 5)[:2])
    out = (torch.empty(4, 5).bfloat16(), torch.empty(9, 5).bfloat16(), None)
    targets = torch.tensor([1, 2, 3, 8])
    expected = call(hidden, weight, targets)[1]
    found = call(hidden, weight, targets, out=out)[1]
    assert found.weight is out[1] and torch.equal(found.weight, expected.weight)
    assert found.hidden is out[0] and torch.equal(found.hidden, expected.hidden)


@pytest.mark.parametrize(
    ("error", "options", "text"),
    [
        (TypeError, {"out": 3}, "out must be LinearGradients or three arrays"),
        (ValueError, {"out": (np.ones((1, 2)), None, None)}, "out.hidden must have shape (2, 2)"),
        (ValueError, {"out": (None, np.ones((3, 2), np.float32), None)}, "dtype float64"),
        (ValueError, {"out": (None, None, np.ones(3))}, "out.bias must be None, since there is"),
        (
            ValueError,
            {"out": (np.ones((2, 2)), None, None), "need_grad": "weight"},
            "out.hidden must be None, since need_grad leaves it out",
        ),
    ],
)
def test_errors_of_out(error, options, text):
    hidden, weight = np.eye(2), np.ones((3, 2))
    with pytest.raises(error, match=re.escape(text)):
        call(hidden, weight, [0, 1], **options)


def test_out_overlaps_nothing():
    hidden, weight = np.eye(2), np.ones((2, 2))
    with pytest.raises(ValueError, match=r"out\.hidden must not overlap the memory of hidden"):
        call(hidden, weight, [0, 1], out=(hidden, None, None))
    both = np.empty((2, 2))
    with pytest.raises(ValueError, match=r"out\.weight must not overlap the memory of out\.hidden"):
        call(hidden, weight, [0, 1], out=(both, both, None))
    with pytest.raises(ValueError, match="out must be left out unless return_grad=True"):
        linear_cross_entropy(hidden, weight, [0, 1], out=(None, None, None))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=["f4", "bf16"])
@pytest.mark.parametrize("shape", [(40, 20_000, 16), (200, 1000, 128), (500, 60, 512)], ids=str)
def test_memory_stays_within_the_limit(rng, shape, dtype):
    """Beside gradients, the sums of a 16-bit one by weight, and 100 bytes a row of figures."""
    fastinfo.set_num_threads(2)
    limit = 5 << 17
    hidden, weight, bias, targets = head(rng, *shape, dtype)
    sums = weight.size * 4 if dtype == BFLOAT16 else 0
    sizes = {"hidden": hidden.nbytes, "weight": weight.nbytes + sums, "bias": bias.nbytes}
    for names in ((), ("hidden",), ("weight",), ("bias",), NAMES):
        options = {"bias": bias, "return_grad": bool(names), "need_grad": names}

        def loss(options=options):
            linear_cross_entropy(hidden, weight, targets, memory_limit=limit, **options)

        beyond = peak(loss) - sum(sizes[name] for name in names) - 100 * len(targets)
        assert beyond <= limit, f"{names}: {beyond / limit:.2f} of the limit"
    for y in (targets, None):

        def figures(y=y):
            linear_softmax_statistics(hidden, weight, y, bias=bias, memory_limit=limit)

        assert peak(figures) - 100 * len(targets) <= limit


# Statistics -----------------------------------------------------------------------------------


def check_statistics(hidden, weight, targets, *, memory_limit=None, **options):
    """Compare with the oracle; positions and ranks are right for some logits that near."""
    kind = product_of(hidden, weight)
    exact, slacks, logits, error = oracles.linear_softmax_statistics(
        hidden, weight, targets, unit=float(np.finfo(kind).eps) / 2, **options
    )
    actual = linear_softmax_statistics(
        hidden, weight, targets, memory_limit=memory_limit, **options
    )
    for field, slack in slacks.items():
        assert_close = assert_close_log if field in LOGS else assert_close_loss
        assert_close(getattr(actual, field), exact[field], kind, slack)
    top = np.take_along_axis(logits + error, actual.argmax[..., None], -1)
    assert (top >= (logits - error).max(-1, keepdims=True)).all()
    assert actual.argmax.dtype == np.int64
    if targets is None:
        assert actual.target_log_prob is actual.target_rank is None
        return actual
    kept = np.asarray(targets) != options.get("ignore_index", -100)
    own = np.where(kept, targets, 0).astype(np.int64)[..., None]
    at, off = (np.take_along_axis(x, own, -1) for x in (logits, error))
    least = (logits - error > at + off).sum(-1)
    most = (logits + error >= at - off).sum(-1) - 1
    rank = actual.target_rank
    assert rank.dtype == np.int64
    assert ((least <= rank) & (rank <= most))[kept].all()
    assert (rank[~kept] == -1).all()
    assert_same_bits(rank == 0, kept & (actual.argmax == own[..., 0]))
    return actual


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics(rng, dtype):
    hidden, weight, bias, targets = head(rng, 7, 60, 5, dtype)
    known = check_statistics(hidden, weight, targets, bias=bias, temperature=0.7)
    without = check_statistics(hidden, weight, None, bias=bias, temperature=0.7)
    assert np.isnan(known.target_log_prob).sum() == 1
    np.testing.assert_allclose(known.entropy, without.entropy, rtol=1e-4)
    ignored = np.where(np.arange(7) < 4, targets, 3)
    check_statistics(hidden, weight, ignored, ignore_index=3) if targets[2] != -100 else None
    if dtype == np.float64:
        check_statistics(hidden, weight, targets, softcap=5.0, temperature=2.0)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
def test_ties_go_to_the_smaller_index(rng, dtype):
    """Small integers, whose products are exact."""
    hidden = rng.integers(-1, 2, (40, 2)).astype(dtype)
    weight, targets = rng.integers(-1, 2, (40, 2)).astype(dtype), np.arange(40)
    exact = oracles.softmax_statistics(hidden @ weight.T, targets)
    actual = linear_softmax_statistics(hidden, weight, targets)
    for field in ("argmax", "target_rank"):
        assert_same_bits(getattr(actual, field), np.asarray(exact[field], np.int64))
    assert_same_bits(linear_softmax_statistics(hidden, weight).argmax, actual.argmax)


# Errors ---------------------------------------------------------------------------------------

H, W, B, T = np.zeros((4, 3)), np.zeros((7, 3)), np.zeros(7), np.array([0, 1, 2, 6])


@pytest.mark.parametrize(
    ("error", "changes", "text"),
    [
        (ValueError, {"hidden": np.zeros((4, 2))}, r"hidden.*\(\.\.\., 3\).*\(4, 2\)"),
        (ValueError, {"hidden": np.float64(1)}, r"hidden.*\(\.\.\., 3\).*\(\)"),
        (ValueError, {"weight": np.zeros(3)}, r"weight.*\(V, D\).*\(3,\)"),
        (ValueError, {"weight": np.zeros((0, 3))}, r"weight.*\bclass"),
        (ValueError, {"bias": np.zeros(3)}, r"bias.*\(7,\).*\(3,\)"),
        (ValueError, {"targets": np.zeros(3, int)}, r"targets.*\(4,\).*\(3,\)"),
        (ValueError, {"targets": np.zeros((4, 3))}, r"targets.*\(4,\).*\(4, 3\)"),
        (TypeError, {"targets": np.zeros(4)}, r"targets.*integers.*float64"),
        (IndexError, {"targets": [0, 1, 7, 0]}, r"targets.*\[0, 7\).*-100, got 7 at row 2$"),
        (IndexError, {"targets": [0, -1, 7, 0]}, r"got -1 at row 1$"),
        (TypeError, {"hidden": H.astype(complex)}, r"hidden.*complex"),
        (TypeError, {"weight": W.astype(object)}, r"weight.*object"),
        (TypeError, {"bias": B.astype(np.longdouble)}, r"bias.*longdouble|bias.*float128"),
        (TypeError, {"axis": 1}, "axis"),
        (TypeError, {"memory_limit": 1.5}, r"memory_limit.*integer.*float"),
        (ValueError, {"memory_limit": 0}, r"memory_limit.*positive.*0"),
        (ValueError, {"memory_limit": -5}, r"memory_limit.*-5"),
        (ValueError, {"temperature": 0.0}, r"temperature.*0"),
        (ValueError, {"softcap": -1.0}, r"softcap.*-1"),
        (TypeError, {"ignore_index": 1.5}, "ignore_index"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors(error, changes, text):
    given = {"hidden": H, "weight": W, "targets": T, "bias": B} | changes
    for function in (linear_cross_entropy, linear_softmax_statistics):
        with pytest.raises(error, match=text):
            function(**given)


@pytest.mark.parametrize(
    ("error", "options", "text"),
    [
        (ValueError, {"reduction": "means"}, r"reduction.*did you mean 'mean'"),
        (ValueError, {"need_grad": ["hiden"]}, r"need_grad.*'bias', got 'hiden'.*'hidden'"),
        (TypeError, {"need_grad": 3}, r"need_grad.*3"),
        (TypeError, {"need_grad": None}, r"need_grad.*None"),
        (ValueError, {"grad_dtype": np.float16}, r"grad_dtype.*'float32'.*'float64'.*'float16'"),
        (ValueError, {"grad_dtype": "float23"}, r"grad_dtype.*did you mean 'float32'"),
        (ValueError, {"class_weight": np.ones(4)}, r"class_weight.*\(7,\)"),
        (ValueError, {"sample_weight": np.ones(7)}, r"sample_weight.*\(4,\)"),
        (ValueError, {"sample_weight": [1, -1, 1, 1]}, r"sample_weight.*-1.*\b1\b"),
        (ValueError, {"label_smoothing": 1.5}, r"label_smoothing.*1\.5"),
        (ValueError, {"z_loss": -1}, r"z_loss.*-1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_of_the_loss(error, options, text):
    with pytest.raises(error, match=text):
        call(H, W, T, **options)


def test_statistics_take_no_probabilities():
    with pytest.raises(ValueError, match=r"targets.*\(4,\).*\(4, 7\)"):
        linear_softmax_statistics(H, W, np.full((4, 7), 1 / 7))


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_matrices_are_rounded_as_numpy_rounds(rng, storage):
    """All of them, those below the normal ones and the halves between two among them."""
    from fastinfo.arrays import narrow
    from fastinfo.cpu.linear import _narrow

    bits = rng.integers(0, 2**32, 100_003, dtype=np.uint32)
    bits[::2] = (rng.integers(0, 2**16, bits[::2].size) << 16) + rng.integers(-1, 2, bits[::2].size)
    bits[1::4] &= ~np.uint32(0x1FFF)  # numbers that a float16 has, or half of its last bit more
    x = bits.view(np.float32)
    edges = np.float32([2.0**-25, 3 * 2.0**-26, 65519.9, 65520.0, np.inf])
    x = np.concatenate([x[x == x], edges])
    np.testing.assert_array_equal(_narrow(x[:, np.newaxis], storage)[:, 0], narrow(x, storage))
    nan = _narrow(np.full((1, 1), np.nan, np.float32), storage)[0, 0]
    assert nan & 0x7FFF > (0x7C00 if storage == "float16" else 0x7F80)
