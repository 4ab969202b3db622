"""Binary cross-entropies: values, gradients, weights, layouts, edges, errors."""

import cases
import hypothesis
import mpmath
import numpy as np
import oracles
import pytest
from accuracy import (
    assert_close_gradient,
    assert_close_loss,
    assert_same_bits,
    gradient_dtype,
    result_dtype,
)
from cases import FLOATS, WIDE_FLOATS
from hypothesis import strategies as st

import fastinfo

FUNCTIONS = {
    "logits": (fastinfo.binary_cross_entropy_with_logits, oracles.binary_cross_entropy_with_logits),
    "probabilities": (fastinfo.binary_cross_entropy, oracles.binary_cross_entropy),
}
REDUCTIONS = ["none", "sum", "mean"]
KINDS = pytest.mark.parametrize("kind", FUNCTIONS)
DTYPES = pytest.mark.parametrize("dtype", FLOATS, ids=str)
PIECE = 1 << 18


def given(rng, kind, shape, dtype):
    """Return inputs of a kind and targets, some of them 0 and 1."""
    logits = kind == "logits"
    x = cases.normal_logits(rng, shape, dtype, 5.0) if logits else rng.uniform(0.01, 0.99, shape)
    y = rng.choice([0.0, 1.0, rng.random()], shape)
    return x.astype(dtype), y.astype(dtype)


def check(kind, x, y, dtype=None, **options):
    """Compare values and gradients of every reduction with the oracle."""
    function, oracle = FUNCTIONS[kind]
    exact = oracle(x, y, **options)
    dtype = dtype or x.dtype
    for reduction in REDUCTIONS:
        share = 1 / exact.weights.sum() if reduction == "mean" else np.longdouble(1)
        value = exact.rows if reduction == "none" else exact.rows.sum() * share
        loss, grad = function(x, y, reduction=reduction, return_grad=True, **options)
        assert_close_loss(loss, value, dtype)
        assert_close_gradient(grad, exact.grad * share, exact.terms * share, dtype)
        assert_same_bits(function(x, y, reduction=reduction, **options), loss)


# Values -----------------------------------------------------------------------------------------


@KINDS
@DTYPES
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 33, 100, 1025])
def test_number_of_elements(rng, kind, dtype, n):
    check(kind, *given(rng, kind, (n,), dtype))
    check(kind, *given(rng, kind, (3, n), dtype), pos_weight=2.5)


@KINDS
@pytest.mark.parametrize("dtype", WIDE_FLOATS, ids=str)
@pytest.mark.parametrize("n", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_pieces(rng, kind, dtype, n):
    check(kind, *given(rng, kind, (n,), dtype))
    check(kind, *given(rng, kind, (n,), dtype), sample_weight=rng.random(n))


@DTYPES
def test_hard_logits(dtype):
    """Confident, wrong, tiny, huge and infinite logits, with every kind of target."""
    x = np.array([0.0, 1e-7, 0.5, 1, 5, 16, 17, 40, 88, 104, 700, 745, 1e4, 6e4, np.inf])
    x, y = np.meshgrid(np.concatenate([x, -x]).astype(dtype), [0.0, 1e-3, 0.25, 0.5, 1.0])
    for weight in (1.0, 0.0, 3.0, 1e-3):
        check("logits", x, y.astype(result_dtype(dtype)), pos_weight=weight)


@DTYPES
def test_hard_probabilities(dtype):
    tiny = float(np.finfo(result_dtype(dtype)).smallest_subnormal)
    p = np.array([0.0, tiny, 1e-7, 1e-4, 0.1, 0.5, 0.9, 0.999, 1 - 1e-7, 1.0]).astype(dtype)
    p, y = np.meshgrid(p, np.array([0.0, 1e-3, 0.5, 1.0], result_dtype(dtype)))
    for weight in (1.0, 0.0, 3.0):
        function, oracle = FUNCTIONS["probabilities"]
        exact = oracle(p, y, weight).rows
        assert_close_loss(function(p, y, pos_weight=weight, reduction="none"), exact, dtype)
    # relative far below the floor
    options = {"sample_weight": 1e12, "reduction": "none"}
    exact = oracle(p, y, sample_weight=1e12).rows
    assert_close_loss(function(p, y, **options), exact, dtype)


def test_values_in_many_digits():
    """The oracle itself, and float64, against mpmath."""
    x = np.array([-800.0, -37.5, -1e-9, 0.0, 0.3, 20.25, 710.0])
    for y in (0.0, 0.3, 1.0):
        with mpmath.workdps(400):
            p = [1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in x]
            t = mpmath.mpf(y)
            exact = [-(3 * t * mpmath.log(a) + (1 - t) * mpmath.log(1 - a)) for a in p]
            exact = np.array([np.longdouble(mpmath.nstr(v, 25)) for v in exact])
        y = np.full(x.shape, y)
        rows = oracles.binary_cross_entropy_with_logits(x, y, 3.0).rows
        with np.errstate(invalid="ignore"):
            assert (abs(rows - exact) <= 1e-18 * exact).all()
        loss = fastinfo.binary_cross_entropy_with_logits(x, y, pos_weight=3.0, reduction="none")
        assert_close_loss(loss, exact, np.float64)


def test_infinite_logits():
    x = np.array([np.inf, np.inf, -np.inf, -np.inf, np.inf, -np.inf])
    y = np.array([1.0, 0.0, 1.0, 0.0, 0.5, 0.5])
    loss, grad = fastinfo.binary_cross_entropy_with_logits(x, y, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, [0, np.inf, np.inf, 0, np.inf, np.inf])
    np.testing.assert_array_equal(grad, [0, 1, -1, 0, 0.5, -0.5])
    without = fastinfo.binary_cross_entropy_with_logits(
        x[[0, 2]], y[[0, 2]], pos_weight=0, reduction="none"
    )
    np.testing.assert_array_equal(without, [0, 0])


def test_certain_probabilities():
    p, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 1.0, 0.0])
    loss, grad = fastinfo.binary_cross_entropy(p, y, reduction="none", return_grad=True)
    np.testing.assert_array_equal(loss, [np.inf, 0, 0, np.inf])
    np.testing.assert_array_equal(grad, [-np.inf, 1, -1, np.inf])
    assert not np.signbit(loss).any()


@KINDS
@DTYPES
def test_nan_stays_in_its_element(rng, kind, dtype):
    x, y = given(rng, kind, (5, 40), dtype)
    function, _ = FUNCTIONS[kind]
    expected = function(x, y, reduction="none", return_grad=True)
    bad_x, bad_y = x.copy(), y.copy()
    bad_x[1, 3], bad_y[2, 39] = np.nan, np.nan
    actual = function(bad_x, bad_y, reduction="none", return_grad=True)
    touched = np.zeros(x.shape, bool)
    touched[1, 3] = touched[2, 39] = True
    for one, other in zip(actual, expected, strict=True):
        assert np.isnan(one[touched]).all()
        assert_same_bits(one[~touched], other[~touched])
    assert np.isnan(function(bad_x, y))
    for weight in (0.0, 1.0):  # nor is a NaN hidden by a term that counts nothing
        assert np.isnan(function([np.nan], [1.0], pos_weight=weight))


def test_mean_of_many_small_losses(rng):
    """A float32 sum of a million confident elements keeps its digits."""
    x = rng.uniform(8, 12, 1_000_000).astype(np.float32)
    check("logits", x, np.ones_like(x))


# Weights ----------------------------------------------------------------------------------------


WEIGHTS = {
    "number": (lambda rng, shape: 1.7),
    "array": (lambda rng, shape: rng.uniform(0, 3, shape)),
    "along the last axis": (lambda rng, shape: rng.uniform(0, 3, shape[-1])),
    "along the first axis": (lambda rng, shape: rng.uniform(0, 3, (shape[0], 1, 1))),
    "one in an array": (lambda rng, shape: np.full((1, 1), 0.3)),
    "float32": (lambda rng, shape: rng.random(shape, dtype=np.float32)),
    "float16": (lambda rng, shape: rng.random(shape[1:]).astype(np.float16)),
    "bfloat16": (lambda rng, shape: rng.random(shape).astype(cases.BFLOAT16)),
    "integers": (lambda rng, shape: rng.integers(0, 3, shape)),
    "booleans": (lambda rng, shape: rng.random(shape[-2:]) < 0.7),
    "strided": (lambda rng, shape: rng.random((*shape[:-1], 2 * shape[-1]))[..., ::2]),
    "tiny": (lambda rng, shape: 1e-30 * rng.random(shape)),
}


@KINDS
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(rng, kind, name):
    shape = (4, 5, 33)
    for dtype in WIDE_FLOATS if name in ("array", "number") else [np.float32]:
        x, y = given(rng, kind, shape, dtype)
        weight, other = WEIGHTS[name](rng, shape), WEIGHTS[name](rng, shape)
        if name != "tiny":
            check(kind, x, y, pos_weight=weight)
            check(kind, x, y, pos_weight=weight, sample_weight=other)
        check(kind, x, y, sample_weight=weight)


@KINDS
@DTYPES
def test_weight_zero_ignores_the_element(rng, kind, dtype):
    x, y = given(rng, kind, (6, 20), dtype)
    weight = rng.choice([0.0, 1.0, 2.0], x.shape)
    weight[0], weight[1] = 0.0, 1.0
    x[weight == 0] = np.nan
    function, oracle = FUNCTIONS[kind]
    loss, grad = function(x, y, sample_weight=weight, reduction="none", return_grad=True)
    for values in (loss, grad.astype(np.float64)):
        assert (values[weight == 0] == 0).all()
        assert not np.signbit(values[weight == 0]).any()
    exact = oracle(x, y, sample_weight=weight).rows.sum() / weight.sum()
    assert_close_loss(function(x, y, sample_weight=weight), exact, dtype)


@KINDS
@DTYPES
def test_all_ignored(kind, dtype):
    function, _ = FUNCTIONS[kind]
    x, y = np.full((3, 5), np.nan, dtype), np.ones((3, 5), dtype)
    for weight in (0, 0.0, np.zeros((3, 5)), np.zeros((3, 1)), np.zeros(5)):
        loss, grad = function(x, y, sample_weight=weight, return_grad=True)
        assert np.isnan(loss)
        assert (np.asarray(grad, np.float64) == 0).all()
        assert function(x, y, sample_weight=weight, reduction="sum") == 0
        rows = function(x, y, sample_weight=weight, reduction="none")
        assert_same_bits(rows, np.zeros((3, 5), result_dtype(dtype)))


# Layouts, dtypes, shapes ------------------------------------------------------------------------


@KINDS
@DTYPES
@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 1300), (7, 3, 5)])
def test_same_bits_whatever_the_layout(rng, kind, dtype, layout, shape):
    function, _ = FUNCTIONS[kind]
    x, y = given(rng, kind, shape, dtype)
    weight = rng.random(shape).astype(dtype)
    other = cases.LAYOUTS[layout]
    for reduction in ("none", "mean"):
        expected = function(x, y, sample_weight=weight, reduction=reduction, return_grad=True)
        for a, b, c in ((other(x), y, weight), (other(x), other(y), other(weight))):
            before = a.copy(), b.copy(), c.copy()
            actual = function(a, b, sample_weight=c, reduction=reduction, return_grad=True)
            assert_same_bits(actual, expected)
            assert_same_bits((a.copy(), b.copy(), c.copy()), before)


@pytest.mark.parametrize("layout", ["fortran", "spaced", "columns of a wider array"])
def test_strided_pieces(rng, layout):
    """Pieces that end within rows."""
    x, y = given(rng, "logits", (3, 5, 99_991), np.float32)
    other = cases.LAYOUTS[layout]
    weight = rng.random((5, 1))
    expected = FUNCTIONS["logits"][0](x, y, pos_weight=weight, return_grad=True)
    out = other(np.zeros_like(x))
    actual = FUNCTIONS["logits"][0](
        other(x), other(y), pos_weight=weight, return_grad=True, out=out
    )
    assert actual[1] is out
    assert_same_bits((actual[0], out.copy()), expected)


def test_rows_repeated_with_stride_zero(rng):
    x, y = given(rng, "logits", (1, 50), np.float64)
    x, y = np.broadcast_to(x, (9, 50)), np.broadcast_to(y[:, :1], (9, 50))
    assert_same_bits(
        FUNCTIONS["logits"][0](x, y, return_grad=True),
        FUNCTIONS["logits"][0](x.copy(), y.copy(), return_grad=True),
    )


@KINDS
@pytest.mark.parametrize("dtype", [*cases.INTEGERS, np.dtype(bool)], ids=str)
def test_integers(rng, kind, dtype):
    """Inputs and targets of integers and booleans are read as float64."""
    function, _ = FUNCTIONS[kind]
    x, y = rng.integers(0, 2, (2, 7, 300)).astype(dtype)
    wide = x.astype(np.float64), y.astype(np.float64)
    assert_same_bits(
        function(x, y, reduction="none", return_grad=True),
        function(*wide, reduction="none", return_grad=True),
    )
    x, _ = given(rng, kind, (7, 300), np.float32)
    assert_same_bits(function(x, y, return_grad=True), function(x, wide[1], return_grad=True))


@KINDS
@pytest.mark.parametrize("y_dtype", FLOATS, ids=str)
@DTYPES
def test_targets_of_any_dtype(rng, kind, dtype, y_dtype):
    x, y = given(rng, kind, (3, 77), dtype)
    check(kind, x, y.astype(y_dtype), sample_weight=rng.random(77))


@KINDS
@DTYPES
def test_shapes_and_dtypes(rng, kind, dtype):
    function, _ = FUNCTIONS[kind]
    for shape in ((), (1,), (1, 1), (0,), (3, 0), (2, 1, 3)):
        x, y = given(rng, kind, shape, dtype)
        x, y = np.asarray(x, dtype), np.asarray(y, dtype)
        loss, grad = function(x, y, reduction="none", return_grad=True)
        assert (loss.shape, loss.dtype) == (shape, result_dtype(dtype))
        assert (grad.shape, grad.dtype) == (shape, gradient_dtype(dtype))
        mean = function(x, y)
        assert type(mean) is result_dtype(dtype).type
        assert np.isnan(mean) == (x.size == 0)
        assert np.isnan(function(x, y, sample_weight=np.ones(shape))) == (x.size == 0)
        if not x.size:
            assert function(x, y, reduction="sum") == 0


def test_numbers_and_sequences():
    value = fastinfo.binary_cross_entropy_with_logits(0.0, 1)
    assert isinstance(value, np.float64)
    assert value == pytest.approx(np.log(2), rel=1e-15)
    assert fastinfo.binary_cross_entropy([[0.5, 0.25]], [[1, 0]], reduction="sum") == pytest.approx(
        np.log(2) - np.log(0.75), rel=1e-15
    )


# The gradient's buffer --------------------------------------------------------------------------


@KINDS
@DTYPES
@pytest.mark.parametrize("n", [1, 33, 5000, 1_200_000])
@pytest.mark.parametrize("labels", [False, True])
def test_gradient_into_buffers(rng, kind, dtype, n, labels):
    """Into the inputs themselves and at any address: the same bits, the loss's too.

    The longest is written past the caches, from a multiple of 64 bytes on.
    """
    if n > 5000 and (kind, dtype) != ("logits", np.float64):
        n = 70_000
    function, _ = FUNCTIONS[kind]
    x, y = given(rng, kind, (n,), dtype)
    y = rng.random(n).round(0 if labels else 20).astype(dtype)
    options = {"reduction": "sum", "return_grad": True}
    expected = function(x, y, **options)
    for offset in (0, 1, 2, 5):
        out = cases.shifted(np.zeros_like(x), offset * x.itemsize)
        loss, grad = function(x, y, out=out, **options)
        assert grad is out
        assert_same_bits((loss, grad), expected)
    buffer = cases.shifted(x, 3 * x.itemsize)
    assert_same_bits(function(buffer, y, out=buffer, **options), expected)
    assert_same_bits(buffer, expected[1])
    room = np.zeros(2 * n, dtype)
    room[::2] = x
    assert_same_bits(function(room[::2], y, out=room[::2], **options), expected)
    assert (room[1::2] == 0).all()


@KINDS
@DTYPES
@pytest.mark.parametrize("n", [0, 8, 17, PIECE + 9])
@pytest.mark.parametrize("pos_weight", [1.0, 2.7, "array"])
def test_labels_are_targets(rng, kind, dtype, n, pos_weight):
    """Targets that are all 0 or 1 are read before a buffer is written; the same bits as of others.

    Those of another type than the inputs are as well.
    """
    function, _ = FUNCTIONS[kind]
    x, _ = given(rng, kind, (n,), dtype)
    special = [0.0, -0.0, np.nan, *([np.inf, -np.inf, 200.0] if kind == "logits" else [1.0])]
    places = rng.random(n) < 0.2
    x[places] = rng.choice(special, n)[places]
    y = rng.choice([0.0, -0.0, 1.0], n).astype(dtype)
    weight = rng.integers(0, 3, n) / 2 if pos_weight == "array" else pos_weight
    for reduction in REDUCTIONS:
        options = {"pos_weight": weight, "reduction": reduction, "return_grad": True}
        expected = function(x, y, **options)
        for offset in (0, 3):
            out = cases.shifted(np.zeros_like(x), offset * x.itemsize)
            for targets in (y, y.astype(bool), y.astype(np.int64), y.astype(np.float64)):
                loss, _ = function(x, targets, out=out, **options)
                assert_same_bits((loss, out), expected)


@pytest.mark.usefixtures("threads")
@KINDS
def test_same_bits_for_any_number_of_threads(rng, kind):
    function, _ = FUNCTIONS[kind]
    x, y = given(rng, kind, (5, 300_007), np.float64)
    weight = rng.random((5, 1))
    results = []
    for n in (1, 2, 3, 7):
        fastinfo.set_num_threads(n)
        results.append(function(x, y, sample_weight=weight, return_grad=True))
        results.append(function(x.T, y.T, sample_weight=weight.T, reduction="sum"))
    for i in range(2, len(results)):
        assert_same_bits(results[i], results[i % 2])


@KINDS
def test_central_differences(rng, kind):
    function, _ = FUNCTIONS[kind]
    x = rng.uniform(0.1, 0.9, (4, 6)) * (1 if kind == "probabilities" else 3)
    y, weight, step = rng.random((4, 6)), rng.random((4, 6)), 1e-5
    for reduction in ("mean", "sum"):
        options = {"pos_weight": 2.0, "sample_weight": weight, "reduction": reduction}
        grad = function(x, y, return_grad=True, **options)[1]
        for at in np.ndindex(x.shape):
            sides = []
            for sign in (1, -1):
                moved = x.copy()
                moved[at] += sign * step
                sides.append(function(moved, y, **options))
            assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(grad[at], rel=1e-6, abs=1e-9)


# Properties -------------------------------------------------------------------------------------

numbers = st.floats(-750, 750)
shares = st.floats(0, 1)


@hypothesis.given(x=numbers, y=shares, weight=st.floats(0, 100))
def test_properties_of_an_element(x, y, weight):
    """Never negative; linear in the weights; of -x and 1 - y the same; convex in x."""
    f = fastinfo.binary_cross_entropy_with_logits
    value, grad = f([x], [y], pos_weight=weight, reduction="sum", return_grad=True)
    assert value >= 0
    exact = oracles.binary_cross_entropy_with_logits([x], [y], weight)
    assert_close_loss(value, exact.rows[0], np.float64)
    assert_close_gradient(grad, exact.grad, exact.terms, np.float64)
    plain = f([x], [y])
    assert f([-x], [1 - y]) == pytest.approx(plain, rel=1e-12, abs=1e-13)
    assert f([x], [y], sample_weight=3.0, reduction="sum") == pytest.approx(3 * plain, rel=1e-14)
    assert f([x / 2], [y]) <= (plain + np.log(2)) / 2 * (1 + 1e-12)


@hypothesis.given(p=shares, y=shares)
def test_probabilities_agree_with_logits(p, y):
    value = fastinfo.binary_cross_entropy([p], [y])
    exact = oracles.binary_cross_entropy([p], [y]).rows[0]
    assert_close_loss(value, exact, np.float64)
    if 1e-3 < p < 1 - 1e-3:
        logit = np.log(p) - np.log1p(-p)
        from_logit = fastinfo.binary_cross_entropy_with_logits([logit], [y])
        assert from_logit == pytest.approx(value, rel=1e-11)


# Peers ------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_torch(rng, kind, dtype, reduction):
    torch = pytest.importorskip("torch")
    x, y = given(rng, kind, (9, 31), np.float64)
    if kind == "probabilities":
        x = 0.02 + 0.96 * x
    x, y = (torch.from_numpy(a).to(getattr(torch, dtype)) for a in (x, y))
    weight, pos = torch.from_numpy(rng.random((9, 31))), torch.from_numpy(rng.random(31))
    leaf = x.double().clone().requires_grad_()
    if kind == "logits":
        peer = torch.nn.functional.binary_cross_entropy_with_logits
        options, own = {"pos_weight": pos}, {"pos_weight": pos}
    else:
        peer, options, own = torch.nn.functional.binary_cross_entropy, {}, {}
    expected = peer(leaf, y.double(), weight=weight, reduction="none", **options)
    if reduction == "mean":  # torch divides by the number of elements
        expected = expected.sum() / weight.sum()
    elif reduction == "sum":
        expected = expected.sum()
    expected.sum().backward()
    loss, grad = FUNCTIONS[kind][0](
        x, y, sample_weight=weight, reduction=reduction, return_grad=True, **own
    )
    assert isinstance(loss, torch.Tensor) and isinstance(grad, torch.Tensor)
    assert loss.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert grad.dtype == x.dtype
    rtol = {"float64": 1e-12, "float32": 2e-5}.get(dtype, 1e-2)
    torch.testing.assert_close(
        loss.double(), expected.detach(), rtol=max(rtol / 10, 1e-12), atol=1e-15
    )
    torch.testing.assert_close(grad.double(), leaf.grad, rtol=rtol, atol=1e-7)
    FUNCTIONS[kind][0](x, y, return_grad=True, out=x)


def test_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    p, y, weight = rng.uniform(0.01, 0.99, 50), rng.integers(0, 2, 50), rng.random(50)
    expected = metrics.log_loss(y, p, sample_weight=weight)
    actual = fastinfo.binary_cross_entropy(p, y, sample_weight=weight)
    assert actual == pytest.approx(expected, rel=1e-12)


# Errors -----------------------------------------------------------------------------------------

NAMES = {"logits": "logits", "probabilities": "p"}


@KINDS
@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int64)], ids=str)
@pytest.mark.parametrize("own_buffer", [False, True])
def test_targets_outside(rng, kind, dtype, own_buffer):
    """Found before the caller's buffer is written, in the digits of the targets."""
    function, _ = FUNCTIONS[kind]
    x, _ = given(rng, kind, (6, 40), np.float32)
    out = np.full(x.shape, 7, np.float32) if own_buffer else None
    for value in (2, -1):
        y = np.zeros(x.shape, dtype)
        y[2, 3] = value
        with pytest.raises(ValueError, match=rf"\by\b must be in \[0, 1\], got {value}.*\(2, 3\)"):
            function(x, y, return_grad=True, out=out)
        with pytest.raises(ValueError, match=r"\by\b.*\(3, 2\)"):
            function(x.T, y.T)
    for value in (1 + 1e-15, -1e-300, np.inf, -np.inf):
        y = np.zeros(x.shape)
        y[5, 39], y[0, 0] = value, np.nan
        with pytest.raises(ValueError, match=r"\by\b.*\(5, 39\)"):
            function(x, y, return_grad=True, out=out)
    assert out is None or (out == 7).all()


@DTYPES
@pytest.mark.parametrize("own_buffer", [False, True])
def test_probabilities_outside(rng, dtype, own_buffer):
    p, y = given(rng, "probabilities", (6, 40), dtype)
    out = np.full(p.shape, 7, dtype) if own_buffer else None
    for value in (1.5, -0.25, np.inf):
        p[5, 39] = value
        with pytest.raises(ValueError, match=rf"\bp\b must be in \[0, 1\], got {value}.*\(5, 39\)"):
            fastinfo.binary_cross_entropy(p, y, return_grad=True, out=out)
    assert out is None or (out == 7).all()


@KINDS
@pytest.mark.parametrize("name", ["pos_weight", "sample_weight"])
def test_bad_weights(rng, kind, name):
    function, _ = FUNCTIONS[kind]
    x, y = given(rng, kind, (4, 6), np.float64)
    for value in (-1.0, np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=rf"{name}.*finite.*at least 0, got {value}"):
            function(x, y, **{name: value})
        weight = np.ones((4, 6))
        weight[3, 1] = value
        with pytest.raises(ValueError, match=rf"{name}.*got {value} at position \(3, 1\)"):
            function(x, y, **{name: weight})
        with pytest.raises(ValueError, match=rf"{name}.*got {value} at position 1"):
            function(x, y, **{name: weight[3]})
    for shape in ((4,), (2, 6), (1, 4, 6), (6, 4)):
        with pytest.raises(ValueError, match=rf"{name}.*broadcast.*\(4, 6\).*\({shape[0]}"):
            function(x, y, **{name: np.ones(shape)})
    for dtype in (complex, object, np.longdouble):
        with pytest.raises(TypeError, match=name):
            function(x, y, **{name: np.ones(6, dtype)})
    with pytest.raises(ValueError, match=rf"{name}.*float32.*1e\+39"):
        function(x.astype(np.float32), y, **{name: 1e39})


@KINDS
def test_other_errors(rng, kind):
    function, _ = FUNCTIONS[kind]
    x, y = given(rng, kind, (4, 6), np.float64)
    with pytest.raises(ValueError, match=rf"\by\b.*{NAMES[kind]}.*\(4, 6\).*\(4,\)"):
        function(x, y[:, 0])
    with pytest.raises(ValueError, match=r"reduction.*'none'.*average"):
        function(x, y, reduction="average")
    for dtype in (complex, object, np.longdouble):
        with pytest.raises(TypeError, match=rf"\b{NAMES[kind]}\b"):
            function(x.astype(dtype), y)
        with pytest.raises(TypeError, match=r"\by\b"):
            function(x, y.astype(dtype))
    with pytest.raises(ValueError, match=r"out.*return_grad"):
        function(x, y, out=np.empty_like(x))
    for out in (np.empty((4, 5)), np.empty((4, 6), np.float32), cases.read_only(x)):
        with pytest.raises(ValueError, match=r"\bout\b"):
            function(x, y, return_grad=True, out=out)
    with pytest.raises(ValueError, match=r"\bout\b.*overlap.*\by\b"):
        function(x, y, return_grad=True, out=y)
    weight = np.ones((4, 6))
    for name in ("pos_weight", "sample_weight"):
        with pytest.raises(ValueError, match=rf"\bout\b.*overlap.*{name}"):
            function(x, y, return_grad=True, out=weight, **{name: weight})


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_targets_near_1_in_more_digits_than_the_logits(dtype):
    """1 - y of a float64 y is not that of the float32 next to it."""
    x = np.array([30.0, 20.0, 16.0, 300.0, -5.0]).astype(dtype)
    y = np.array([1 - 1e-9, 1 - 1e-8, 1 - 1e-4, 1 - 1e-15, 1 - 1e-12])
    losses, grad = fastinfo.binary_cross_entropy_with_logits(
        x, y, reduction="none", return_grad=True
    )
    with mpmath.workdps(40):
        pairs = [(mpmath.mpf(float(z)), mpmath.mpf(t)) for z, t in zip(x, y, strict=True)]
        expected = [
            t * mpmath.log1p(mpmath.exp(-z)) + (1 - t) * mpmath.log1p(mpmath.exp(z))
            for z, t in pairs
        ]
        slopes = [(1 - t) / (1 + mpmath.exp(-z)) - t / (1 + mpmath.exp(z)) for z, t in pairs]
    rtol = 1e-12 if dtype == np.float64 else 2e-6
    np.testing.assert_allclose(losses, np.array(expected, float), rtol=rtol)
    of_dtype = np.array(slopes, float).astype(dtype).astype(float)
    np.testing.assert_allclose(grad.astype(float), of_dtype, rtol=4e-3, atol=1e-30)
    infinite = np.array([np.inf, -np.inf]).astype(dtype)
    losses = fastinfo.binary_cross_entropy_with_logits(
        infinite, [1 - 1e-12, 1e-30], reduction="none"
    )
    assert (losses == np.inf).all()
