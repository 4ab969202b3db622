r"""Losses of PyTorch tensors that autograd differentiates.

Names and defaults are those of `torch.nn.functional` where the function exists there. Values are
those of the functions of `fastinfo` of the same purpose: float64 for float64, else float32, as
autocast has it. Value and gradient are computed in one call, in the forward pass, and the gradient
kept for the backward one. All are custom operators, which ``torch.compile`` passes over; second
derivatives are refused.

Examples
--------
>>> import torch
>>> import fastinfo.torch
>>> logits = torch.zeros(2, 3, requires_grad=True)
>>> loss = fastinfo.torch.cross_entropy(logits, torch.tensor([0, 2]))
>>> loss.backward()
>>> print(round(loss.item(), 4))
1.0986
>>> print(logits.grad.sum(dim=1).tolist())
[0.0, 0.0]
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

try:
    import torch
except ImportError:
    raise ImportError(
        'fastinfo.torch needs PyTorch: pip install torch, or "fastinfo[torch]"'
    ) from None
from torch import Tensor, nn
from torch.autograd import forward_ad

import fastinfo
from fastinfo import checks

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "linear_cross_entropy",
    "softmax_entropy",
    "softmax_js_divergence",
    "softmax_kl_divergence",
]


# --- operators -----------------------------------------------------------------------------------
# An operator returns the loss and the derivatives of the reduced loss, of no elements where they
# are not asked for. `axis` is that of the classes, which a loss of rows lacks.


def _operator(
    name: str, arguments: str, differentiated: Sequence[str]
) -> Callable[[Callable[..., Any]], Any]:
    """Make a function an operator of the named tensors; its fake has only shapes and dtypes."""

    def register(compute: Callable[..., Any]) -> Any:
        outputs = ", ".join(["Tensor"] * (1 + len(differentiated)))
        names = [part.split("=")[0].split()[-1] for part in arguments.split(", ")]
        operator = torch.library.custom_op(
            f"fastinfo::{name}", compute, mutates_args=(), schema=f"({arguments}) -> ({outputs})"
        )

        @operator.register_fake
        def fake(*given: Any) -> tuple[Tensor, ...]:
            return _fake(dict(zip(names, given, strict=True)), differentiated)

        def set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
            named = dict(zip(names, inputs, strict=True))
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*output[1:])
            ctx.shapes = [x if x is None else x.shape for x in map(named.get, differentiated)]
            ctx.axis = named["axis"] if named["reduction"] == "none" else None

        def backward(
            ctx: Any, by_loss: Tensor | None, *by_gradients: Tensor | None
        ) -> tuple[Any, ...]:
            if any(g is not None for g in by_gradients):
                raise RuntimeError(
                    f"fastinfo.torch.{name} has first derivatives only: it cannot be "
                    f"differentiated twice (create_graph=True)"
                )
            given = dict.fromkeys(names)
            if by_loss is not None:
                saved = zip(differentiated, ctx.saved_tensors, ctx.shapes, strict=True)
                for entry, gradient, shape in saved:
                    if gradient.shape == shape:
                        given[entry] = _times(by_loss, gradient, ctx.axis)
                    elif ctx.needs_input_grad[names.index(entry)]:
                        raise RuntimeError(
                            f"fastinfo.torch.{name} cannot be differentiated through "
                            f"torch.func.vmap, which did not ask for the derivative by {entry}"
                        )
            return tuple(given.values())

        operator.register_autograd(backward, setup_context=set_up)
        return operator

    return register


def _times(by_loss: Tensor, gradient: Tensor, axis: int | None) -> Tensor:
    """Return the derivative by an input, from that by each loss.

    Where that is 1 it is what was kept, unless that may be asked for once more: a leaf adds to it.
    """
    if _is_one(by_loss) and not _is_kept():
        return gradient if torch.is_grad_enabled() else gradient.detach()
    if axis is not None and by_loss.ndim < gradient.ndim:
        by_loss = by_loss.unsqueeze(axis)
    return (gradient * by_loss).to(gradient.dtype)


def _is_one(by_loss: Tensor) -> bool:
    """Whether a loss was differentiated as it is; False where that is not known without waiting."""
    if by_loss.ndim or type(by_loss) is not Tensor or by_loss.device.type != "cpu":
        return False
    try:
        return by_loss.item() == 1.0
    except RuntimeError:  # many at once, by vmap
        return False


def _is_kept() -> bool:
    """Whether the graph outlives this backward pass; True where PyTorch does not tell."""
    tells = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return tells is None or bool(tells())


def _fake(given: dict[str, Any], differentiated: Sequence[str]) -> tuple[Tensor, ...]:
    x = given[differentiated[0]]
    others = [v for v in given.values() if isinstance(v, Tensor) and v.is_floating_point()]
    wide = x.dtype == torch.float64 or ("q_logits" in given and others[0].dtype == torch.float64)
    kind = torch.float64 if wide else torch.float32
    shape = list(x.shape)
    if given["axis"] is not None:
        del shape[given["axis"]]
    loss = x.new_empty(shape if given["reduction"] == "none" else [], dtype=kind)
    return loss, *(_empty(given[entry], given["gradient"]) for entry in differentiated)


def _empty(x: Tensor | None, gradient: bool) -> Tensor:
    """Return memory for a gradient, of no elements where none is asked for."""
    if x is None:
        return torch.empty(0)
    return torch.empty(x.shape if gradient else [0], dtype=x.dtype, device=x.device)


def _alone(x: Any) -> Any:
    """Return a tensor without its graph."""
    return x.detach() if isinstance(x, Tensor) else x


@contextmanager
def _in_torch_names(**names: str) -> Iterator[None]:
    """Errors name arguments as PyTorch does."""
    try:
        with torch.no_grad():
            yield
    except (IndexError, TypeError, ValueError) as error:
        if type(error) not in (IndexError, TypeError, ValueError):
            raise
        words = "|".join(names) or "(?!)"
        text = re.sub(rf"\b({words})\b", lambda found: names[found[1]], str(error))
        raise type(error)(text) from None


LOSS = {"logits": "input", "targets": "target", "class_weight": "weight"}
BINARY = {"logits": "input", "y": "target", "sample_weight": "weight"}
HEAD = LOSS | {"hidden": "input", "weight": "linear_weight", "bias": "linear_bias"}


def _computed(
    function: Callable[..., Any], x: Tensor, gradient: bool, names: dict[str, str], **given: Any
) -> Any:
    """Return the loss, and the gradient by x or nothing."""
    with _in_torch_names(**names):
        named = {name: _alone(value) for name, value in given.items()}
        if gradient:
            return function(**named, return_grad=True)
        return function(**named), _empty(x, False)


@_operator(
    "cross_entropy",
    "Tensor logits, Tensor targets, Tensor? class_weight, Tensor? sample_weight, int axis, "
    "int ignore_index, float label_smoothing, float z_loss, float temperature, float? softcap, "
    "str reduction, bool gradient",
    ["logits"],
)
def _cross_entropy(
    logits: Tensor, targets: Tensor, class_weight: Tensor | None, sample_weight: Tensor | None,
    axis: int, ignore_index: int, label_smoothing: float, z_loss: float, temperature: float,
    softcap: float | None, reduction: str, gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _computed(
        fastinfo.softmax_cross_entropy, logits, gradient, LOSS, logits=logits, targets=targets,
        axis=axis, class_weight=class_weight, sample_weight=sample_weight,
        ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss,
        temperature=temperature, softcap=softcap, reduction=reduction,
    )  # fmt: skip


@_operator(
    "binary_cross_entropy_with_logits",
    "Tensor logits, Tensor y, Tensor? pos_weight, Tensor? sample_weight, int? axis, "
    "str reduction, bool gradient",
    ["logits"],
)
def _binary(
    logits: Tensor, y: Tensor, pos_weight: Tensor | None, sample_weight: Tensor | None,
    axis: int | None, reduction: str, gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _computed(
        fastinfo.binary_cross_entropy_with_logits, logits, gradient, BINARY, logits=logits, y=y,
        pos_weight=1.0 if pos_weight is None else pos_weight, sample_weight=sample_weight,
        reduction=reduction,
    )  # fmt: skip


@_operator(
    "softmax_entropy",
    "Tensor logits, int axis, float temperature, str reduction, bool gradient",
    ["logits"],
)
def _entropy(
    logits: Tensor, axis: int, temperature: float, reduction: str, gradient: bool
) -> tuple[Tensor, Tensor]:
    return _computed(
        fastinfo.softmax_entropy, logits, gradient, {}, logits=logits, axis=axis,
        temperature=temperature, reduction=reduction,
    )  # fmt: skip


@_operator(
    "softmax_divergence",
    "Tensor p_logits, Tensor q_logits, Tensor? sample_weight, float? beta, int axis, "
    "float temperature, str reduction, bool gradient",
    ["q_logits"],
)
def _divergence(
    p_logits: Tensor, q_logits: Tensor, sample_weight: Tensor | None, beta: float | None, axis: int,
    temperature: float, reduction: str, gradient: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    js = {} if beta is None else {"beta": beta}
    return _computed(
        fastinfo.softmax_kl_divergence if beta is None else fastinfo.softmax_js_divergence,
        q_logits, gradient, {}, p_logits=p_logits, q_logits=q_logits, axis=axis,
        temperature=temperature, reduction=reduction, sample_weight=sample_weight, **js,
    )  # fmt: skip


_LINEAR = (
    "Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor? class_weight, "
    "Tensor? sample_weight, int axis, int ignore_index, float label_smoothing, float z_loss, "
    "float temperature, float? softcap, int? memory_limit, str reduction, bool gradient"
)


def _linear_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor,
    class_weight: Tensor | None, sample_weight: Tensor | None, axis: int, ignore_index: int,
    label_smoothing: float, z_loss: float, temperature: float, softcap: float | None,
    memory_limit: int | None, reduction: str, gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    entries = {"hidden": hidden, "weight": weight, "bias": bias}
    with _in_torch_names(**HEAD):
        found = fastinfo.linear_cross_entropy(
            _alone(hidden), _alone(weight), _alone(targets), bias=_alone(bias),
            class_weight=_alone(class_weight), sample_weight=_alone(sample_weight),
            ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss,
            temperature=temperature, softcap=softcap, memory_limit=memory_limit,
            reduction=reduction, return_grad=gradient,
            need_grad=tuple(name for name, x in entries.items() if x is not None),
        )  # fmt: skip
    loss, gradients = found if gradient else (found, (None, None, None))
    given = zip(gradients, entries.values(), strict=True)
    return loss, *(_empty(x, False) if g is None else g for g, x in given)


_linear = _operator("linear_cross_entropy", _LINEAR, ["hidden", "weight", "bias"])(_linear_loss)


# --- functions -----------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    sample_weight: Tensor | None = None,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Cross-entropy of logits, as `torch.nn.functional.cross_entropy`, read once.

    Parameters
    ----------
    input : Tensor (C,), (N, C) or (N, C, ...)
        Logits.
    target : Tensor
        Classes, integers of the shape without C; or probabilities in the shape of `input`.
    weight : Tensor (C,), optional
        Weights of the classes, at least 0.
    size_average, reduce
        Deprecated by PyTorch in favour of `reduction`.
    ignore_index, reduction, label_smoothing
        As in PyTorch.
    sample_weight, z_loss, temperature, softcap
        As for `fastinfo.softmax_cross_entropy`.

    Returns
    -------
    Tensor
        In nats; float64 for float64, else float32.

    Raises
    ------
    TypeError, IndexError, ValueError
        As `fastinfo.softmax_cross_entropy`.
    RuntimeError
        If targets or weights require grad; in a second derivative.

    Notes
    -----
    Accuracy and edges as for `fastinfo.softmax_cross_entropy`.

    References
    ----------
    .. [1] https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> print(fastinfo.torch.cross_entropy(torch.zeros(1, 8), torch.tensor([3])).item() / 3)
    0.6931471824645996
    """
    _tensors(input=input, target=target, **_given(weight=weight, sample_weight=sample_weight))
    _constants(target=target, weight=weight, sample_weight=sample_weight)
    axis, ignored = min(1, input.ndim - 1), checks.integer("ignore_index", ignore_index)
    options = _options(label_smoothing, z_loss, temperature, softcap)

    def loss(way: str) -> Tensor:
        return _cross_entropy(
            input, target, weight, sample_weight, axis, ignored, *options, way, _wanted(input)
        )[0]

    return _reduced(
        loss, input, _reduction(size_average, reduce, reduction),
        lambda: _counted(target, axis, weight, sample_weight, ignored),
    )  # fmt: skip


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    sample_weight: Tensor | None = None,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    memory_limit: int | None = None,
) -> Tensor:
    """Cross-entropy of ``input @ linear_weight.T + linear_bias``, whose logits never exist.

    Parameters
    ----------
    input : Tensor (..., D)
        Hidden states.
    linear_weight : Tensor (C, D)
        Weights as of `torch.nn.Linear`.
    target : Tensor (...) or (..., C)
        Classes, or probabilities.
    linear_bias, weight : Tensor (C,), optional
        What is added to the logits; weights of the classes.
    reduction, ignore_index, label_smoothing
        As in PyTorch; `ignore_index` None is -100.
    options
        Taken for PyTorch's sake: logits are always made in blocks, by `memory_limit`.
    sample_weight, z_loss, temperature, softcap, memory_limit
        As for `fastinfo.linear_cross_entropy`.

    Returns
    -------
    Tensor
        In nats; float64 for float64, else float32.

    Raises
    ------
    TypeError, IndexError, ValueError
        As `fastinfo.linear_cross_entropy`.
    RuntimeError
        If targets or weights of classes require grad; in a second derivative.

    Notes
    -----
    With reduction "none" the gradients are computed in the backward pass, once for the rows of
    positive and once for those of negative factors.

    References
    ----------
    .. [1] E. Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models", ICLR 2025.

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> hidden, head = torch.ones(2, 4), torch.zeros(8, 4, requires_grad=True)
    >>> loss = fastinfo.torch.linear_cross_entropy(hidden, head, torch.tensor([0, 7]))
    >>> loss.backward()
    >>> print(head.grad[:2, 0].tolist())
    [-0.375, 0.125]
    """
    others = _given(linear_bias=linear_bias, weight=weight, sample_weight=sample_weight)
    _tensors(input=input, linear_weight=linear_weight, target=target, **others)
    _constants(target=target, weight=weight, sample_weight=sample_weight)
    bias, wanted = linear_bias, _wanted(input, linear_weight, linear_bias)
    ignored = -100 if ignore_index is None else checks.integer("ignore_index", ignore_index)
    options = _options(label_smoothing, z_loss, temperature, softcap)

    def loss(way: str, rows: Tensor | None) -> Tensor:
        given = target, weight, rows, -1, ignored, *options, memory_limit
        if wanted and way == "none":
            return _LinearRows.apply(input, linear_weight, bias, *given)
        return _linear(input, linear_weight, bias, *given, way, wanted)[0]

    way = _reduction(None, None, reduction)
    if not (wanted and way == "mean" and torch.float16 in (input.dtype, linear_weight.dtype)):
        return loss(way, sample_weight)
    # Sums over many rows may be beyond float16, and their means below it: halfway between.
    shape = target.shape[:-1] if target.is_floating_point() else target.shape
    lift = 2.0 ** -round(math.log2(max(1, math.prod(shape))) / 2)
    own = torch.full(shape, lift, dtype=torch.float64, device=target.device)
    own = own if sample_weight is None else own * sample_weight
    return _over(loss("sum", own), _counted(target, -1, weight, own, ignored))


class _LinearRows(torch.autograd.Function):
    """Losses of rows, whose gradients need the derivative by each of them first."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor,
        class_weight: Tensor | None, sample_weight: Tensor | None, *options: Any,
    ) -> Any:  # fmt: skip
        """Compute the losses."""
        given = hidden, weight, bias, targets, class_weight, sample_weight
        ctx.save_for_backward(*given)
        ctx.options = options
        return _linear(*given, *options, "none", False)[0]

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor) -> tuple[Any, ...]:
        """Sum the gradients of the rows, weighed by factors of either sign.

        By the operator, which refuses to be differentiated once more, and factors that are no
        numbers: those are made NaN afterwards. Both parts of float16 may be beyond its range where
        their difference is not.
        """
        *inputs, targets, class_weight, sample_weight = ctx.saved_tensors
        half = any(x is not None and x.dtype == torch.float16 for x in inputs)
        read = [x if x is None or not half else x.to(torch.float32) for x in inputs]
        own = 1.0 if sample_weight is None else sample_weight
        total: list[Any] = [None, None, None]
        finite, nothing = by_loss.nan_to_num(0.0, 0.0, 0.0), by_loss - by_loss
        for sign in (1.0, -1.0):
            weights = (sign * finite).clamp(min=0.0) * own
            _, *found = _linear(*read, targets, class_weight, weights, *ctx.options, "sum", True)
            parts = zip(total, found, strict=True)
            total = [sign * g if t is None else t + sign * g for t, g in parts]
        of_all = nothing.sum()
        present = zip(total, inputs, (nothing.unsqueeze(-1), of_all, of_all), strict=True)
        gradients = [None if x is None else (g + no).to(x.dtype) for g, x, no in present]
        return *gradients, None, None, None, *(None for _ in ctx.options)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy, as `torch.nn.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    input : Tensor (...)
        Log-odds.
    target : Tensor (...)
        Probabilities of the positive class, in the shape of `input`.
    weight, pos_weight : Tensor, optional
        Weights of the elements and of the positive class, at least 0; broadcast to `input`.
    size_average, reduce
        Deprecated by PyTorch in favour of `reduction`.
    reduction : str
        As in PyTorch: "mean" divides by the number of elements, whatever their weights.

    Returns
    -------
    Tensor
        In nats; float64 for float64, else float32.

    Raises
    ------
    TypeError, ValueError
        As `fastinfo.binary_cross_entropy_with_logits`.
    RuntimeError
        If targets or weights require grad; in a second derivative.

    Notes
    -----
    Accuracy and edges as for `fastinfo.binary_cross_entropy_with_logits`.

    References
    ----------
    .. [1] D. R. Cox, "The regression analysis of binary sequences", J. R. Stat. Soc. B 20 (1958).

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> loss = fastinfo.torch.binary_cross_entropy_with_logits
    >>> print(loss(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])).item())
    0.6931471824645996
    """
    _tensors(input=input, target=target, **_given(weight=weight, pos_weight=pos_weight))
    _constants(target=target, weight=weight, pos_weight=pos_weight)
    way, wanted = _reduction(size_average, reduce, reduction), _wanted(input)
    if way != "mean":
        return _binary(input, target, pos_weight, weight, None, way, wanted)[0]
    # our own mean divides by Σ weight, and float16 gradients so small are 0
    total = _binary(input, target, pos_weight, weight, None, "sum", wanted)[0]
    return _over(total, (input.numel(), input.numel()))


def softmax_entropy(
    logits: Tensor, *, axis: int = -1, temperature: float = 1.0, reduction: str = "none"
) -> Tensor:
    """Entropy of softmax distributions, `fastinfo.softmax_entropy`.

    Parameters
    ----------
    logits : Tensor (..., V)
        Logits.
    axis, temperature, reduction
        As for `fastinfo.softmax_entropy`.

    Returns
    -------
    Tensor
        In nats; float64 for float64, else float32.

    Raises
    ------
    TypeError, ValueError
        As `fastinfo.softmax_entropy`.
    RuntimeError
        In a second derivative.

    Notes
    -----
    Accuracy and edges as for `fastinfo.softmax_entropy`.

    References
    ----------
    .. [1] C. E. Shannon, "A mathematical theory of communication" (1948).

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> print(fastinfo.torch.softmax_entropy(torch.zeros(8)).item() / 3)
    0.6931471824645996
    """
    _tensors(logits=logits)
    place, heat = _axis(axis, logits), _number("temperature", temperature)

    def loss(way: str) -> Tensor:
        return _entropy(logits, place, heat, way, _wanted(logits))[0]

    way = _reduction(None, None, reduction)
    return _reduced(loss, logits, way, lambda: _rows(logits, place, None))


def softmax_kl_divergence(
    p_logits: Tensor, q_logits: Tensor, *, axis: int = -1, temperature: float = 1.0,
    reduction: str = "mean", sample_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """KL divergence of softmax distributions, `fastinfo.softmax_kl_divergence`.

    Parameters
    ----------
    p_logits : Tensor (..., V)
        Logits of the teacher, which must not require grad.
    q_logits : Tensor (..., V)
        Logits of the student.
    axis, temperature, reduction, sample_weight
        As for `fastinfo.softmax_kl_divergence`.

    Returns
    -------
    Tensor
        In nats; float64 if either is, else float32.

    Raises
    ------
    TypeError, ValueError
        As `fastinfo.softmax_kl_divergence`.
    RuntimeError
        If the teacher or a weight requires grad; in a second derivative.

    Notes
    -----
    Accuracy and edges as for `fastinfo.softmax_kl_divergence`; not multiplied by temperature².

    References
    ----------
    .. [1] G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network",
       arXiv:1503.02531 (2015).

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> x = torch.randn(4, 10)
    >>> print(fastinfo.torch.softmax_kl_divergence(x, x).item())
    0.0
    """
    return _of_two(p_logits, q_logits, sample_weight, None, axis, temperature, reduction)


def softmax_js_divergence(
    p_logits: Tensor, q_logits: Tensor, *, beta: float = 0.5, axis: int = -1,
    temperature: float = 1.0, reduction: str = "mean", sample_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Jensen-Shannon divergence of softmax distributions, `fastinfo.softmax_js_divergence`.

    Parameters
    ----------
    p_logits, q_logits, axis, temperature, reduction, sample_weight
        As for `softmax_kl_divergence`.
    beta : float
        Share of P in the mixture.

    Returns
    -------
    Tensor
        In nats; float64 if either is, else float32.

    Raises
    ------
    TypeError, ValueError
        As `fastinfo.softmax_js_divergence`.
    RuntimeError
        As `softmax_kl_divergence`.

    Notes
    -----
    Accuracy and edges as for `fastinfo.softmax_js_divergence`.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37
       (1991).

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> one, other = torch.tensor([[0.0, -torch.inf]]), torch.tensor([[-torch.inf, 0.0]])
    >>> print(round(fastinfo.torch.softmax_js_divergence(one, other).item(), 6))
    0.693147
    """
    share = _number("beta", beta)
    return _of_two(p_logits, q_logits, sample_weight, share, axis, temperature, reduction)


def _of_two(
    p_logits: Tensor, q_logits: Tensor, sample_weight: Tensor | None, beta: float | None, axis: int,
    temperature: float, reduction: str,
) -> Tensor:  # fmt: skip
    _tensors(p_logits=p_logits, q_logits=q_logits, **_given(sample_weight=sample_weight))
    _constants(p_logits=p_logits, sample_weight=sample_weight)
    place, heat = _axis(axis, q_logits), _number("temperature", temperature)

    def loss(way: str) -> Tensor:
        return _divergence(
            p_logits, q_logits, sample_weight, beta, place, heat, way, _wanted(q_logits)
        )[0]

    way = _reduction(None, None, reduction)
    return _reduced(loss, q_logits, way, lambda: _rows(q_logits, place, sample_weight))


def _reduced(
    loss: Callable[[str], Tensor],
    x: Tensor,
    reduction: str,
    counted: Callable[[], tuple[Any, Any]],
) -> Tensor:
    """Return a loss; a mean of float16 divided after its gradient is rounded.

    Divided by the rows of a large batch most of it would be 0 before a loss scale reaches it.
    """
    if reduction != "mean" or x.dtype != torch.float16:
        return loss(reduction)
    return _over(loss("sum"), counted())


def _over(total: Tensor, counted: tuple[Any, Any]) -> Tensor:
    """Return a mean, of what it divides by and Σ sample weights: NaN over nothing, gradient 0."""
    weights, rows = counted
    if not isinstance(rows, Tensor):
        return total / weights if rows else total * torch.nan
    some = rows > 0
    return torch.where(some, total / torch.where(some, weights, 1.0), torch.nan)


def _counted(
    target: Tensor, axis: int, weight: Tensor | None, sample_weight: Tensor | None,
    ignore_index: int,
) -> tuple[Any, Any]:  # fmt: skip
    """Return what the mean of a cross-entropy divides by, and Σ sample weights."""
    if target.is_floating_point():
        return _rows(target, axis, sample_weight)
    kept = (target != ignore_index).to(torch.float64)
    if sample_weight is not None:
        kept = kept * sample_weight
    rows = kept.sum().to(torch.float32)
    if weight is None:
        return rows, rows
    kept = kept * weight[target.long().clamp(0, len(weight) - 1)]
    return kept.sum().to(torch.float32), rows


def _rows(x: Tensor, axis: int, sample_weight: Tensor | None) -> tuple[Any, Any]:
    """Return the number of rows, or the sum of their weights, twice."""
    if sample_weight is not None:
        rows = sample_weight.sum(dtype=torch.float64).to(torch.float32)
        return rows, rows
    return (x.numel() / x.shape[axis],) * 2


def _given(**named: Any) -> dict[str, Any]:
    """Return what is not None."""
    return {name: value for name, value in named.items() if value is not None}


def _tensors(**given: Any) -> None:
    """TypeError for what is no dense tensor; ValueError for some that have no data, unlike others.

    PyTorch would take all for tensors without data then, and return what was in memory.
    """
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
        if x.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {x.layout}")
    if len({x.device.type == "meta" for x in given.values()}) > 1:
        where = ", ".join(f"{name} on {x.device}" for name, x in given.items())
        raise ValueError(f"tensors must be on one device, got {where}")


def _axis(axis: int, x: Tensor) -> int:
    """Return the axis counted from the front; what is none goes on, to the error that names it."""
    axis = checks.integer("axis", axis)
    return axis + x.ndim if -x.ndim <= axis < 0 else axis


def _wanted(*inputs: Tensor | None) -> bool:
    """Whether a backward pass may come; RuntimeError for tangents, which would be lost."""
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:
        for x in inputs:
            if x is not None and forward_ad.unpack_dual(x).tangent is not None:
                raise RuntimeError("fastinfo.torch has no forward-mode derivatives: use backward()")
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)


def _constants(**given: Tensor | None) -> None:
    """RuntimeError for a tensor that requires grad where no derivative is computed."""
    for name, x in given.items():
        if _wanted(x):
            raise RuntimeError(
                f"{name} requires grad, and no derivative by it is computed: pass {name}.detach()"
            )


def _options(
    label_smoothing: Any, z_loss: Any, temperature: Any, softcap: Any
) -> tuple[float, float, float, float | None]:
    """Return numbers that an operator takes; their ranges are checked where they are used."""
    return (
        _number("label_smoothing", label_smoothing),
        _number("z_loss", z_loss),
        _number("temperature", temperature),
        None if softcap is None else _number("softcap", softcap),
    )


def _number(name: str, value: Any) -> float:
    """Return a number; one that PyTorch traces stays as it is."""
    if torch.compiler.is_compiling():
        return value
    return checks.number(name, value)


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is None and reduce is None:
        return checks.one_of("reduction", reduction, checks.REDUCTIONS)
    return nn._reduction.legacy_get_string(size_average, reduce)


# --- modules -------------------------------------------------------------------------------------


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """`cross_entropy` as a module, with the arguments of `torch.nn.CrossEntropyLoss`.

    Parameters
    ----------
    weight, size_average, ignore_index, reduce, reduction, label_smoothing
        As of `torch.nn.CrossEntropyLoss`.
    z_loss, temperature, softcap
        As for `cross_entropy`.

    Raises
    ------
    TypeError, ValueError, IndexError, RuntimeError
        When it is called: as `cross_entropy`.

    Notes
    -----
    In nats, with the edges and the accuracy of `fastinfo.softmax_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> loss = fastinfo.torch.CrossEntropyLoss(label_smoothing=0.1)
    >>> print(round(loss(torch.zeros(1, 4), torch.tensor([2])).item(), 4))
    1.3863
    """

    def __init__(
        self, *given: Any, z_loss: float = 0.0, temperature: float = 1.0,
        softcap: float | None = None, **named: Any,
    ) -> None:  # fmt: skip
        super().__init__(*given, **named)
        self.z_loss, self.temperature, self.softcap = z_loss, temperature, softcap

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (N, C, ...) and targets (N, ...), or probabilities as many."""
        return cross_entropy(
            input, target, weight=self.weight, ignore_index=self.ignore_index,
            reduction=self.reduction, label_smoothing=self.label_smoothing, z_loss=self.z_loss,
            temperature=self.temperature, softcap=self.softcap,
        )  # fmt: skip


class LinearCrossEntropyLoss(nn.Module):
    """A linear layer and `linear_cross_entropy` of its logits, which never exist.

    Parameters
    ----------
    in_features, num_classes : int
        Length of a hidden state, number of classes.
    bias : bool
        Whether the layer has a bias.
    device, dtype
        Of the layer.
    weight, reduction, ignore_index, label_smoothing, z_loss, temperature, softcap, memory_limit
        As for `linear_cross_entropy`.

    Raises
    ------
    TypeError, ValueError, IndexError, RuntimeError
        When it is called: as `linear_cross_entropy`.

    Notes
    -----
    In nats, with the edges and the accuracy of `fastinfo.linear_cross_entropy`. Of the module of
    this name in PyTorch 2.13 it lacks ``out_features``, for losses of several dimensions, and
    ``options``, how products are cut, instead of which there is `memory_limit`.

    Examples
    --------
    >>> import torch
    >>> import fastinfo.torch
    >>> head = fastinfo.torch.LinearCrossEntropyLoss(16, 1000)
    >>> head(torch.randn(4, 16), torch.tensor([1, 2, 3, 4])).shape
    torch.Size([])
    """

    weight: Tensor | None

    def __init__(
        self, in_features: int, num_classes: int, *, bias: bool = False, device: Any = None,
        dtype: Any = None, reduction: str = "mean", weight: Tensor | None = None,
        ignore_index: int | None = None, label_smoothing: float = 0.0, z_loss: float = 0.0,
        temperature: float = 1.0, softcap: float | None = None, memory_limit: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.register_buffer("weight", weight)
        self.options: dict[str, Any] = {
            "reduction": reduction, "ignore_index": ignore_index, "z_loss": z_loss,
            "label_smoothing": label_smoothing, "temperature": temperature, "softcap": softcap,
            "memory_limit": memory_limit,
        }  # fmt: skip

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of hidden states (..., in_features) and targets (...)."""
        return linear_cross_entropy(
            input, self.linear.weight, target, linear_bias=self.linear.bias, weight=self.weight,
            **self.options,
        )  # fmt: skip
