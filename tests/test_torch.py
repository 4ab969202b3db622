"""The functions for PyTorch against PyTorch's own, and against differences."""

import numpy as np
import pytest

import fastinfo

torch = pytest.importorskip("torch")
ours = fastinfo.torch
F = torch.nn.functional
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LIMITS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def seeded(rng):
    torch.manual_seed(int(rng.integers(1 << 31)))


def close(found, expected, dtype):
    limit = LIMITS[dtype]
    np.testing.assert_allclose(
        found.detach().double().numpy(), expected.detach().double().numpy(), limit, limit
    )


def gradients(function, *tensors):
    """Value, and derivatives of a weighted sum of it by the tensors that take part."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*leaves)
    factors = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    (value * factors).sum().backward()
    return value, [leaf.grad for leaf in leaves]


def agree(one, other, dtype, *tensors):
    """Assert that values and gradients agree."""
    value, found = gradients(one, *tensors)
    expected_value, expected = gradients(other, *(t.double() for t in tensors))
    close(value, expected_value, torch.float32 if value.dtype == torch.float32 else dtype)
    for g, e, t in zip(found, expected, tensors, strict=True):
        assert (g.dtype, g.shape) == (t.dtype, t.shape)
        close(g, e, dtype)


# cross-entropy --------------------------------------------------------------------------------

OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "rows": {"reduction": "none"},
    "smoothed": {"label_smoothing": 0.2},
    "ignored": {"ignore_index": 3},
    "weighted": {"weight": torch.linspace(0, 2, 7, dtype=torch.float64)},
    "all": {
        "weight": torch.linspace(0.5, 2, 7, dtype=torch.float64), "label_smoothing": 0.1,
        "ignore_index": 2, "reduction": "none",
    },
    "deprecated": {"size_average": False},
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 7, 3)])
@pytest.mark.filterwarnings("ignore:size_average")
def test_cross_entropy(dtype, options, shape):
    logits = (3 * torch.randn(shape)).to(dtype)
    rows = shape[:1] * (len(shape) > 1) + shape[2:]
    target = torch.randint(0, 7, rows)
    agree(
        lambda x: ours.cross_entropy(x, target, **options),
        lambda x: F.cross_entropy(x, target, **options),
        dtype, logits,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 7), (2, 7, 3)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_soft_targets(shape, reduction):
    target = torch.randn(shape).double().softmax(1)
    given = {"reduction": reduction, "label_smoothing": 0.1}
    agree(
        lambda x: ours.cross_entropy(x, target, **given),
        lambda x: F.cross_entropy(x, target, **given),
        torch.float64, torch.randn(shape).double(),
    )  # fmt: skip


def test_options_of_our_own():
    logits, target = torch.randn(4, 9, dtype=torch.float64), torch.tensor([0, 3, 8, 1])
    given = {"z_loss": 0.1, "temperature": 2.0, "softcap": 5.0}
    weights = torch.tensor([1.0, 0.0, 2.0, 0.5])
    found = ours.cross_entropy(logits, target, sample_weight=weights, **given)
    expected = fastinfo.softmax_cross_entropy(logits, target, sample_weight=weights, **given)
    assert found.item() == expected.item()
    module = ours.CrossEntropyLoss(label_smoothing=0.1, **given)
    expected = fastinfo.softmax_cross_entropy(logits, target, label_smoothing=0.1, **given)
    assert module(logits, target).item() == expected.item()
    assert isinstance(module, torch.nn.CrossEntropyLoss)


# linear ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", [(4,), (6, 4)])
def test_linear(dtype, options, shape):
    options = {name: v for name, v in options.items() if name != "size_average"}
    hidden, weight, bias = torch.randn(shape), torch.randn(7, 4), torch.randn(7)
    target = torch.randint(0, 7, shape[:-1])

    def reference(x, w, b):
        return F.cross_entropy(F.linear(x, w, b), target, **options)

    agree(
        lambda x, w, b: ours.linear_cross_entropy(x, w, target, linear_bias=b, **options),
        reference, dtype, *(t.to(dtype) for t in (hidden, weight, bias)),
    )  # fmt: skip
    agree(
        lambda x, w: ours.linear_cross_entropy(x, w, target, **options),
        lambda x, w: reference(x, w, None), dtype, *(t.to(dtype) for t in (hidden, weight)),
    )  # fmt: skip


def test_only_what_requires_grad_has_one():
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    ours.linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2])).backward()
    assert hidden.grad is None and weight.grad.shape == (5, 4)
    with torch.no_grad():
        assert not ours.cross_entropy(weight, torch.zeros(5, dtype=torch.long)).requires_grad


def test_linear_module():
    head = ours.LinearCrossEntropyLoss(4, 9, bias=True, label_smoothing=0.1)
    theirs = (
        torch.nn.LinearCrossEntropyLoss if hasattr(torch.nn, "LinearCrossEntropyLoss") else None
    )
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    hidden, target = torch.randn(6, 4), torch.randint(0, 9, (6,))
    loss = head(hidden, target)
    loss.backward()
    logits = head.linear(hidden)
    close(loss, F.cross_entropy(logits, target, label_smoothing=0.1), torch.float32)
    if theirs:
        other = theirs(4, 9, bias=True, label_smoothing=0.1)
        other.load_state_dict(head.state_dict())
        close(other(hidden, target), loss, torch.float32)


# the others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weights", [{}, {"weight": 1}, {"pos_weight": 1}, {"weight": 0}])
def test_binary(reduction, weights):
    shapes = {1: torch.rand(6, dtype=torch.float64), 0: torch.rand(5, 1, dtype=torch.float64)}
    given = {name: shapes[axis] for name, axis in weights.items()} | {"reduction": reduction}
    target = torch.rand(5, 6, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        agree(
            lambda x: ours.binary_cross_entropy_with_logits(x, target.to(x.dtype), **given),
            lambda x: F.binary_cross_entropy_with_logits(x, target, **given),
            dtype, torch.randn(5, 6).to(dtype),
        )  # fmt: skip


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_entropy_and_divergences(axis, reduction):
    teacher, x = torch.randn(4, 6).double(), torch.randn(4, 6).double()
    given = {"axis": axis, "reduction": reduction}

    def reduced(rows):
        return rows.mean() if reduction == "mean" else rows

    def entropy(z):
        return reduced(torch.special.entr((z / 2).softmax(axis)).sum(axis))

    def kl(z):
        log_q = (z / 2).log_softmax(axis)
        terms = F.kl_div(log_q, (teacher / 2).log_softmax(axis), reduction="none", log_target=True)
        return reduced(terms.sum(axis))

    def js(z):
        p, q = (teacher / 2).softmax(axis), (z / 2).softmax(axis)
        m = 0.3 * p + 0.7 * q
        terms = 0.3 * p * (p / m).log() + 0.7 * q * (q / m).log()
        return reduced(terms.sum(axis))

    agree(lambda z: ours.softmax_entropy(z, temperature=2, **given), entropy, torch.float64, x)
    agree(
        lambda z: ours.softmax_kl_divergence(teacher, z, temperature=2, **given), kl,
        torch.float64, x,
    )  # fmt: skip
    agree(
        lambda z: ours.softmax_js_divergence(teacher, z, beta=0.3, temperature=2, **given), js,
        torch.float64, x,
    )  # fmt: skip


# autograd -------------------------------------------------------------------------------------

TARGET = torch.tensor([1, 0, 3])
TEACHER = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
CALLS = {
    "cross_entropy": lambda x: ours.cross_entropy(x, TARGET, label_smoothing=0.1),
    "cross_entropy of rows": lambda x: ours.cross_entropy(x, TARGET, reduction="none"),
    "linear": lambda x: ours.linear_cross_entropy(x, x, TARGET.clamp(max=2)),
    "linear of rows": lambda x: ours.linear_cross_entropy(
        x, x, TARGET.clamp(max=2), reduction="none"
    ),
    "binary": lambda x: ours.binary_cross_entropy_with_logits(x, TEACHER.sigmoid()),
    "entropy": lambda x: ours.softmax_entropy(x),
    "kl": lambda x: ours.softmax_kl_divergence(TEACHER, x),
    "js": lambda x: ours.softmax_js_divergence(TEACHER, x, reduction="none"),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
def test_gradcheck(call):
    assert torch.autograd.gradcheck(call, torch.randn(3, 4).double().requires_grad_())


@calls
def test_second_derivatives_are_refused(call):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"differentiat"):
        (gradient,) = torch.autograd.grad(call(x).sum(), x, create_graph=True)
        gradient.square().sum().backward()


def test_gradients_record_no_graph_unless_asked_for():
    x = torch.randn(4, 5, requires_grad=True)
    y = torch.arange(4)
    for loss in (
        fastinfo.torch.cross_entropy(x, y),
        fastinfo.torch.softmax_entropy(x).sum(),
        fastinfo.torch.softmax_entropy(x[0]),
        fastinfo.torch.softmax_kl_divergence(torch.zeros(4, 5), x),
    ):
        (gradient,) = torch.autograd.grad(loss, x)
        assert not gradient.requires_grad
    (gradient,) = torch.autograd.grad(fastinfo.torch.cross_entropy(x, y), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        gradient.sum().backward()


def test_backward_three_times_by_a_leaf():
    x = torch.randn(3, 4, requires_grad=True)
    loss = ours.cross_entropy(x, TARGET[:3] % 4)
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(x.grad, 3 * once)
    x.grad = None
    torch.autograd.backward([loss * 1.0 for loss in (ours.cross_entropy(x, TARGET[:3] % 4),) * 2])
    torch.testing.assert_close(x.grad, 2 * once)


@calls
def test_backward_twice(call):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    loss = call(x).sum()
    loss.backward(retain_graph=True)
    once = x.grad.clone()
    loss.backward()
    torch.testing.assert_close(x.grad, 2 * once)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_no_rows_have_an_empty_gradient(reduction):
    x = torch.zeros(0, 5, requires_grad=True)
    ours.cross_entropy(x, TARGET[:0], reduction=reduction).sum().backward()
    assert x.grad.shape == (0, 5)


@calls
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_forward_mode_is_refused(call):
    x = torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="no forward-mode"):
        torch.func.jvp(call, (x,), (torch.ones_like(x),))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        call(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))


def test_binary_weights_of_16_bits_and_over_nothing():
    z, w = torch.zeros(3), torch.tensor([1.0, 2.0**-8, 2.0**-8])
    loss = ours.binary_cross_entropy_with_logits
    exact = loss(z, z, weight=w).item()
    assert loss(z, z, weight=w.bfloat16()).item() == pytest.approx(exact, rel=1e-6)
    assert loss(z.bfloat16(), z, weight=w.bfloat16()).item() == pytest.approx(exact, rel=1e-6)
    assert torch.isnan(loss(z[:0], z[:0], weight=torch.ones(1)))


HALVES = {
    "classes": lambda x, y: ours.cross_entropy(x, y, torch.linspace(0.5, 2, 16), ignore_index=3),
    "rows weighed": lambda x, y: ours.cross_entropy(x, y, sample_weight=1.0 + y / 16),
    "probabilities": lambda x, y: ours.cross_entropy(
        x, x.detach().flip(0).float().softmax(1).half()
    ),
    "binary": lambda x, y: ours.binary_cross_entropy_with_logits(x, (x.detach() > 0).to(x.dtype)),
    "entropy": lambda x, y: ours.softmax_entropy(x, reduction="mean"),
    "kl": lambda x, y: ours.softmax_kl_divergence(x.detach().flip(0), x, sample_weight=1.0 + y),
    "js": lambda x, y: ours.softmax_js_divergence(x.detach().flip(0), x),
}


@pytest.mark.parametrize("soft", [False, True])
def test_a_loss_scale_reaches_float16_gradients_of_a_head(soft):
    h, head = torch.randn(4096, 8).half(), torch.randn(11, 8).half()
    y = torch.arange(4096) % 11
    y = torch.nn.functional.one_hot(y, 11).half() if soft else y
    given = {"sample_weight": 1.0 + torch.arange(4096) / 4096, "weight": torch.linspace(0.5, 2, 11)}
    halves, exact = (
        [v.detach().to(t).requires_grad_() for v in (h, head)] for t in (h.dtype, torch.double)
    )
    loss, expected = (ours.linear_cross_entropy(*v, y, **given) for v in (halves, exact))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (loss * 65536).backward()
    (expected * 65536).backward()
    for found, known in zip(halves, exact, strict=True):
        torch.testing.assert_close(found.grad.double(), known.grad, rtol=2e-3, atol=4e-5)
        assert (found.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("name", HALVES)
def test_a_loss_scale_reaches_float16_gradients_before_they_are_rounded(name):
    x = (torch.randn(4096, 16) * 3).half().requires_grad_()
    exact, y = x.detach().double().requires_grad_(), torch.arange(4096) % 16
    loss, expected = HALVES[name](x, y), HALVES[name](exact, y)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (loss * 65536).backward()
    (expected * 65536).backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2e-3, atol=2e-6)
    assert (x.grad != 0).float().mean() > 0.9


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_any_integers_are_classes(kind):
    x, y, w = torch.randn(5, 5), torch.arange(5), torch.arange(1.0, 6.0)
    for dtype in DTYPES:
        z = x.to(dtype).requires_grad_()
        loss = ours.cross_entropy(z, y.to(kind), w)
        assert loss.item() == pytest.approx(ours.cross_entropy(z, y, w).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_mean_over_nothing_has_no_gradient(dtype):
    x, head, y = torch.randn(3, 5, dtype=dtype), torch.randn(4, 5, dtype=dtype), TARGET[:3] * 0
    for loss in (
        lambda x: ours.cross_entropy(x, y - 100),
        lambda x: ours.cross_entropy(x, y, sample_weight=torch.zeros(3)),
        lambda x: ours.linear_cross_entropy(x, head, y - 100),
    ):
        z = x.clone().requires_grad_()
        value = loss(z)
        value.backward()
        assert torch.isnan(value) and (z.grad == 0).all()


def test_float16_gradients_of_rows_of_either_sign():
    h, head = torch.full((2, 1), 100.0).half(), torch.zeros(2, 1).half().requires_grad_()
    losses = ours.linear_cross_entropy(h, head, TARGET[:2] * 0, reduction="none")
    (grad,) = torch.autograd.grad(losses, head, torch.tensor([1800.0, -1799.0]))
    assert grad.flatten().tolist() == [-50.0, 50.0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_derivative_by_a_row_that_is_no_number_is_passed_on(bad):
    h, head = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    bias = torch.randn(5, requires_grad=True)
    losses = ours.linear_cross_entropy(h, head, torch.arange(4), linear_bias=bias, reduction="none")
    by_losses = torch.tensor([1.0, bad, -1.0, 0.0])
    by_h, *others = torch.autograd.grad(losses, (h, head, bias), by_losses)
    assert by_h.isnan().all(dim=1).tolist() == [False, True, False, False]
    assert all(g.isnan().all() for g in others)


def test_targets_of_rows_that_change_are_told():
    h, head, y = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True), torch.arange(4)
    losses = ours.linear_cross_entropy(h, head, y, reduction="none")
    y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()


def test_rows_of_a_head_are_checkpointed():
    h, head = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)

    def loss(h):
        return ours.linear_cross_entropy(h, head, torch.arange(4), reduction="none").sum()

    torch.utils.checkpoint.checkpoint(loss, h, use_reentrant=False).backward()
    found, h.grad = h.grad, None
    loss(h).backward()
    torch.testing.assert_close(found, h.grad)


def test_tensors_without_data_are_not_mixed_with_others():
    x, y = torch.randn(4, 5), torch.zeros(4, dtype=torch.long, device="meta")
    with pytest.raises(ValueError, match="on one device, got input on cpu, target on meta"):
        ours.cross_entropy(x, y)
    with pytest.raises(TypeError, match="input must be a dense tensor, got layout"):
        ours.cross_entropy(x.to_sparse(), torch.arange(4))
    assert ours.cross_entropy(x.to("meta"), y).device.type == "meta"


def test_compiled_with_options_that_vary():
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def loss(x, smoothing):
        return ours.cross_entropy(x, torch.arange(4), label_smoothing=smoothing)

    for n, smoothing in ((4, 0.1), (4, 0.2), (4, 0.3)):
        x = torch.randn(n, 5)
        expected = ours.cross_entropy(x, torch.arange(4), label_smoothing=smoothing)
        torch.testing.assert_close(loss(x, smoothing), expected)


def test_modules_refuse_what_they_do_not_know():
    with pytest.raises(TypeError, match="reductoin"):
        ours.LinearCrossEntropyLoss(8, 11, reductoin="sum")


def test_what_has_no_derivative_is_refused():
    x, target = torch.randn(2, 3), torch.rand(2, 3).softmax(1)
    for name, call in {
        "target": lambda: ours.cross_entropy(x, target.requires_grad_()),
        "weight": lambda: ours.cross_entropy(x, TARGET[:2], torch.ones(3).requires_grad_()),
        "p_logits": lambda: ours.softmax_kl_divergence(x.requires_grad_(), x.detach()),
    }.items():
        with pytest.raises(RuntimeError, match=f"{name} requires grad.*pass {name}.detach"):
            call()


def test_errors_are_those_of_fastinfo():
    x, y = torch.zeros(2, 3), torch.tensor([0, 9])
    for call, message in {
        lambda: ours.cross_entropy(x, y): r"target must be in \[0, 3\) .* got 9 at row 1",
        lambda: ours.cross_entropy(x, y[:1], -torch.ones(3)): r"target must have shape \(2,\)",
        lambda: ours.cross_entropy(x, y * 0, -torch.ones(3)): r"weight must be finite .* class 0",
        lambda: ours.linear_cross_entropy(x, x, y): r"target must be in \[0, 2\)",
        lambda: ours.linear_cross_entropy(x, x[:, 1:], y): "input must have shape",
        lambda: ours.binary_cross_entropy_with_logits(x, x + 2): r"target must be in \[0, 1\]",
    }.items():
        with pytest.raises((IndexError, ValueError), match=message):
            call()
    with pytest.raises(ValueError, match="reduction must be one of"):
        ours.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), reduction="total")
    with pytest.raises(np.exceptions.AxisError):
        ours.softmax_entropy(torch.zeros(2, 3), axis=2)
    for call, message in {
        lambda: ours.cross_entropy([[0.0, 1.0]], y): "input must be a torch.Tensor, got list",
        lambda: ours.cross_entropy(x, [0, 1]): "target must be a torch.Tensor, got list",
        lambda: ours.cross_entropy(x, y, [1.0] * 3): "weight must be a torch.Tensor, got list",
        lambda: ours.linear_cross_entropy(x, x.numpy(), y): "linear_weight must be a torch.Tensor",
        lambda: ours.cross_entropy(x, y, ignore_index=1.5): "ignore_index must be an integer",
        lambda: ours.cross_entropy(x, y, temperature="1"): "temperature must be a number, got str",
    }.items():
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match=r"reduction must be one of .* got None"):
        ours.cross_entropy(x, y * 0, reduction=None)


# torch.compile --------------------------------------------------------------------------------

OPERATORS = {
    "cross_entropy": (
        torch.ops.fastinfo.cross_entropy,
        lambda x: (x, TARGET, None, None, 1, -100, 0.0, 0.0, 1.0, None, "mean", True),
    ),
    "rows": (
        torch.ops.fastinfo.cross_entropy,
        lambda x: (x, TARGET, None, None, 1, -100, 0.0, 0.0, 1.0, 5.0, "none", True),
    ),
    "linear": (
        torch.ops.fastinfo.linear_cross_entropy,
        lambda x: (
            x, TEACHER, None, TARGET.clamp(max=2), None, None, -1, -100, 0.0, 0.0, 1.0, None, None,
            "mean", True,
        ),
    ),
    "binary": (
        torch.ops.fastinfo.binary_cross_entropy_with_logits,
        lambda x: (x, TEACHER.sigmoid(), None, None, None, "none", True),
    ),
    "entropy": (torch.ops.fastinfo.softmax_entropy, lambda x: (x, 1, 1.0, "none", True)),
    "kl": (
        torch.ops.fastinfo.softmax_divergence,
        lambda x: (TEACHER, x, None, None, 0, 1.0, "none", True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_what_their_fakes_say(name, dtype):
    operator, given = OPERATORS[name]
    x = torch.randn(3, 4, dtype=dtype)
    if dtype == torch.float32 and name in ("linear", "binary", "kl"):
        pytest.skip("both of one dtype")
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator, given(x.requires_grad_()), test_utils=tests)


@pytest.mark.parametrize("name", ["cross_entropy", "linear", "kl"])
def test_compiled_without_a_break(name):
    """Dynamo and AOT autograd trace them whole."""
    call, x = CALLS[name], torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(lambda z: 2 * call(z.sin()), fullgraph=True, backend="aot_eager")
    compiled(x).backward()
    found, x.grad = x.grad, None
    (2 * call(x.sin())).backward()
    torch.testing.assert_close(found, x.grad)


# training -------------------------------------------------------------------------------------


def test_a_model_trains_to_the_same_losses():
    def losses(loss):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        x, y = torch.randn(64, 5), torch.randint(0, 4, (64,))
        found = []
        for _ in range(20):
            optimizer.zero_grad()
            value = loss(model(x), y)
            value.backward()
            optimizer.step()
            found.append(value.item())
        return found

    theirs = losses(F.cross_entropy)
    np.testing.assert_allclose(losses(ours.cross_entropy), theirs, rtol=1e-4)
    assert theirs[-1] < theirs[0]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_no_gradient_is_lost_by_vmap():
    weight, targets = torch.zeros(3, 3, requires_grad=True), torch.tensor([0, 1])
    x = torch.randn(4, 2, 3)
    for loss in (
        lambda z: fastinfo.torch.cross_entropy(z, targets),
        lambda z: fastinfo.torch.cross_entropy(z, targets, reduction="none").sum(),
        fastinfo.torch.softmax_entropy,
        lambda z: fastinfo.torch.softmax_kl_divergence(torch.zeros(2, 3), z),
        lambda z: fastinfo.torch.binary_cross_entropy_with_logits(z, torch.ones(2, 3)),
    ):
        total = torch.func.vmap(lambda row, loss=loss: loss(row @ weight))(x).sum()
        with pytest.raises(RuntimeError, match=r"through torch\.func\.vmap"):
            total.backward()
