"""Softmax cross-entropy of hidden states under a linear classifier: the logits never exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fastinfo import checks
from fastinfo.arrays import (
    Source,
    as_result,
    computed_in,
    empty,
    give,
    output,
    promote,
    read,
    same_device,
)
from fastinfo.dispatch import home
from fastinfo.losses import SoftmaxStatistics, options_of, statistics_from
from fastinfo.reductions import reduced, row_weights, targets_of, weights_of

# Bytes beside arguments and gradients.
MEMORY_LIMIT = 256 << 20
GRADIENTS = ("hidden", "weight", "bias")


class LinearGradients(NamedTuple):
    """Derivatives of a linear cross-entropy by what it was given; None where not asked for.

    Attributes
    ----------
    hidden, weight, bias : array or None
        Of the shape of the argument, and of its dtype unless `grad_dtype` says otherwise; nats per
        unit of it.
    """

    hidden: Any
    weight: Any
    bias: Any


def linear_cross_entropy(
    hidden: Any,
    weight: Any,
    targets: Any,
    *,
    bias: Any = None,
    class_weight: Any = None,
    sample_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    temperature: float = 1.0,
    softcap: float | None = None,
    reduction: str = "mean",
    return_grad: bool = False,
    need_grad: Sequence[str] = GRADIENTS,
    grad_dtype: Any = None,
    out: Sequence[Any] | None = None,
    memory_limit: int | None = None,
) -> Any:
    r"""Cross-entropy :math:`-\sum_k y_k w_k \log \mathrm{softmax}(W h + b)_k` of hidden states.

    The value of ``softmax_cross_entropy(hidden @ weight.T + bias, targets, ...)``, a block of rows
    and classes at a time: the logits, n · V numbers, are never held. One matrix product for the
    loss, two more for the gradients.

    Parameters
    ----------
    hidden : array (..., D)
        Hidden states, floats of 16 to 64 bits or integers.
    weight : array (V, D)
        The classifier, as in `torch.nn.Linear`.
    targets : integer array (...) or array (..., V)
        Classes, or probabilities, whose rows need not sum to 1.
    bias : array (V,), optional
        Added to the logits; -inf masks a class.
    class_weight, sample_weight, ignore_index, label_smoothing, z_loss, temperature, softcap
        As for `softmax_cross_entropy`.
    reduction : {"mean", "sum", "none"}
        As for `softmax_cross_entropy`.
    return_grad : bool
        Whether to return the derivatives of the reduced loss (of the sum for "none") as well.
    need_grad : sequence of {"hidden", "weight", "bias"}
        Which ones; what is not asked for costs nothing.
    grad_dtype : {"float32", "float64"}, optional
        Type of all derivatives; by default each has that of what it is the derivative by.
    out : LinearGradients or three of array or None, optional
        Buffers of the derivatives by `hidden`, `weight` and `bias`, of their shapes and types; None
        for new memory. What a training loop passes again at each step.
    memory_limit : int, optional
        Bytes taken at most beside arguments and derivatives, 256 MiB by default. More makes larger
        blocks, which with gradients hold whole rows of logits.

    Returns
    -------
    loss : scalar, or array (...) for "none"
        In nats; float64 if `hidden` or `weight` is float64 or integer, else float32.
    gradients : LinearGradients
        Only with `return_grad`: of the shapes of `hidden`, `weight` and `bias`; float64 for
        integers. Those of ignored rows are exactly 0.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or integer targets are floats.
    IndexError
        If a target is out of range.
    ValueError
        If shapes do not agree, a parameter breaks its rule, or a row does not fit the limit.

    Notes
    -----
    Rows that are ignored cost no product and may hold NaN. Products are BLAS's, in float64 if
    either factor is float64 or integer, else in float32; 16-bit factors are widened block by block,
    and the derivative by a 16-bit `weight` is added up in float32, an array of its own, and rounded
    once (``grad_dtype="float32"`` gives that array). Accuracy is that of `softmax_cross_entropy`
    from logits that are each within 4 √D u (Σ\|h_d w_d\| + \|b\|), u the unit roundoff of the
    product's type, in which the bias is added.
    The same call gives the same bits for the same BLAS and number of its threads.

    On a CUDA device products are PyTorch's or CuPy's, without TF32, and factors are floats. A block
    is whole rows, which bounds `memory_limit` from below; rows that are ignored take part as zeros,
    so that nothing is copied to the host.

    References
    ----------
    .. [1] E. Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models",
       arXiv:2411.09009 (2024).

    Examples
    --------
    >>> import numpy as np
    >>> import fastinfo
    >>> hidden = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> weight = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> print(round(fastinfo.linear_cross_entropy(hidden, weight, [0, 1]), 4))
    0.3955
    >>> loss, gradients = fastinfo.linear_cross_entropy(hidden, weight, [0, 1], return_grad=True)
    >>> gradients.hidden.round(3)
    array([[-0.213,  0.053],
           [ 0.212, -0.212]])
    >>> gradients.bias is None
    True
    """
    checks.one_of("reduction", reduction, checks.REDUCTIONS)
    smoothing = checks.number("label_smoothing", label_smoothing, 0.0, 1.0, "in [0, 1]")
    wanted, narrowed = _wanted(need_grad), _grad_dtype(grad_dtype)
    head = _Head.of(hidden, weight, bias)
    y = read("targets", targets)
    same_device(head.hidden, y)
    soft = y.shape == (*head.shape, head.classes)
    if not soft and y.shape != head.shape:
        raise ValueError(
            f"targets must have shape {head.shape} (integers) or {(*head.shape, head.classes)} "
            f"(probabilities), got {y.shape}"
        )
    classes = None
    if not soft:
        ignored = checks.integer("ignore_index", ignore_index)
        classes = targets_of(y, head.classes, ignored)
    like = replace(head.hidden, dtype=head.real)  # weights are in the type of the products
    weights = weights_of("class_weight", class_weight, (head.classes,), "class", like)
    active, total = row_weights(sample_weight, head.shape, classes, weights, reduction, like)
    module = home("linear", head.hidden.device)
    options = options_of(
        home("rows", head.hidden.device),
        temperature,
        softcap,
        alpha=1.0 - smoothing,
        beta=smoothing / head.classes,
        z_loss=checks.number("z_loss", z_loss, 0.0, rule="finite and at least 0"),
    )
    job = head.job(
        module, options, memory_limit, targets=classes, soft=y if soft else None,
        class_weight=weights, active=active,
    )  # fmt: skip
    if out is not None and not return_grad:
        raise ValueError("out must be left out unless return_grad=True: it is for the gradients")
    given = {"class_weight": class_weight, "sample_weight": sample_weight}
    others = [y, *(read(name, value) for name, value in given.items() if value is not None)]
    buffers = _buffers(head, wanted, narrowed, out, others) if return_grad else None
    gradients = None if buffers is None else _accumulators(module, job, buffers)
    values = _within(module, job, lambda: module.losses(job, gradients))
    loss = head.give(reduced(values, head.shape, reduction, total, head.hidden))
    return loss if buffers is None else (loss, _finished(module, job, buffers, gradients))


def linear_softmax_statistics(
    hidden: Any,
    weight: Any,
    targets: Any = None,
    *,
    bias: Any = None,
    ignore_index: int = -100,
    temperature: float = 1.0,
    softcap: float | None = None,
    memory_limit: int | None = None,
) -> SoftmaxStatistics:
    """Figures of the softmax of hidden @ weight.T + bias, of which the logits never exist.

    Parameters
    ----------
    hidden, weight, bias, memory_limit
        As for `linear_cross_entropy`.
    targets, ignore_index, temperature, softcap
        As for `softmax_statistics`.

    Returns
    -------
    SoftmaxStatistics
        As `softmax_statistics`.

    Raises
    ------
    TypeError, IndexError, ValueError
        As `linear_cross_entropy`.

    Notes
    -----
    Accuracy as for `linear_cross_entropy`. Without targets a block is a stretch of the classes;
    with targets it holds whole rows, since a rank compares all logits with the target's.

    References
    ----------
    .. [1] M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax",
       arXiv:1805.02867 (2018).

    Examples
    --------
    >>> import fastinfo
    >>> figures = fastinfo.linear_softmax_statistics([[1.0]], [[0.0], [2.0], [1.0]], [2])
    >>> int(figures.argmax[0]), int(figures.target_rank[0])
    (1, 1)
    """
    head = _Head.of(hidden, weight, bias)
    classes = None
    if targets is not None:
        y = read("targets", targets)
        same_device(head.hidden, y)
        if y.shape != head.shape:
            raise ValueError(f"targets must have shape {head.shape}, got {y.shape}")
        ignored = checks.integer("ignore_index", ignore_index)
        classes = targets_of(y, head.classes, ignored)
    module = home("linear", head.hidden.device)
    options = options_of(home("rows", head.hidden.device), temperature, softcap)
    job = head.job(module, options, memory_limit, targets=classes, statistics=True)
    figures = _within(module, job, lambda: module.statistics(job))
    known = classes is not None
    return statistics_from(figures, head.shape, head.real, head.hidden, known, known)


# --- what logits are made of ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    """Hidden states and a classifier whose shapes agree."""

    hidden: Source
    weight: Source
    bias: Source | None

    @classmethod
    def of(cls, hidden: Any, weight: Any, bias: Any) -> _Head:
        h, w = read("hidden", hidden), read("weight", weight)
        b = None if bias is None else read("bias", bias)
        same_device(h, w, b)
        if len(w.shape) != 2:
            raise ValueError(f"weight must have shape (V, D), got {w.shape}")
        checks.some("weight", w.shape, 0, "class")
        if not h.shape or h.shape[-1] != w.shape[1]:
            raise ValueError(f"hidden must have shape (..., {w.shape[1]}), got {h.shape}")
        if b is not None and b.shape != w.shape[:1]:
            raise ValueError(f"bias must have shape {w.shape[:1]}, got {b.shape}")
        return cls(h, w, b)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an array with one entry a row."""
        return self.hidden.shape[:-1]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    @property
    def real(self) -> str:
        """Type of the products and of results."""
        return computed_in(promote(self.hidden, self.weight))

    def job(self, module: Any, options: Any, memory_limit: Any, **given: Any) -> Any:
        """Return what the module computes."""
        limit = MEMORY_LIMIT if memory_limit is None else memory_limit
        limit = checks.integer("memory_limit", limit)
        if limit <= 0:
            raise ValueError(f"memory_limit must be positive, got {limit}")
        bias = None if self.bias is None else module.vector(self.bias, self.real)
        return module.Job(
            module.Factor(self.hidden.data, self.hidden.dtype, self.real),
            module.Factor(self.weight.data, self.weight.dtype, self.real),
            bias,
            options,
            limit,
            **given,
        )

    def give(self, values: np.ndarray) -> Any:
        """Return figures as the kind of array that `hidden` is."""
        return give(as_result(values, self.real), self.hidden)


def _within(module: Any, job: Any, compute: Any) -> np.ndarray:
    """Return what `compute` returns; ValueError if a row does not fit the limit."""
    try:
        return compute()
    except module.TooLittle as least:
        raise ValueError(
            f"memory_limit must be at least {least} bytes for {job.classes} classes and "
            f"{job.features} features, got {job.limit}"
        ) from None


# --- gradients -----------------------------------------------------------------------------------


def _wanted(need_grad: Any) -> set[str]:
    names = [need_grad] if isinstance(need_grad, str) else need_grad
    try:
        return {checks.one_of("need_grad", name, GRADIENTS) for name in names}
    except TypeError:
        raise TypeError(f"need_grad must be names of gradients, got {need_grad!r}") from None


def _grad_dtype(value: Any) -> str | None:
    if value is None:
        return None
    try:
        name = np.dtype(value).name
    except TypeError:
        name = str(value).removeprefix("torch.")
    return checks.one_of("grad_dtype", name, ("float32", "float64"))


@dataclass(frozen=True)
class _Buffer:
    """Memory of a gradient, and the caller's array that it is, if it is."""

    of: Source
    memory: np.ndarray
    storage: str
    given: Any

    @property
    def result(self) -> Any:
        """The gradient as the kind of array it is the gradient of."""
        return give(self.memory, self.of, self.storage) if self.given is None else self.given


def _buffers(
    head: _Head, wanted: set[str], dtype: str | None, out: Any, inputs: list[Source]
) -> dict[str, _Buffer]:
    """Return the buffer of each gradient that is asked for."""
    given = _given(out)
    of = {s.name: s for s in (head.hidden, head.weight, head.bias) if s is not None}
    taken: list[Source] = [*of.values(), *inputs]
    buffers = {}
    for name in GRADIENTS:
        if name not in of or name not in wanted:
            if given[name] is not None:
                why = "need_grad leaves it out" if name in of else "there is none"
                raise ValueError(f"out.{name} must be None, since {why}")
            continue
        shape, storage = of[name].shape, dtype or of[name].storage
        if given[name] is None:
            memory = empty(shape, storage, of[name])
        else:
            memory = output(f"out.{name}", given[name], shape, storage, taken, None)
            taken.append(Source(f"out.{name}", memory, storage, "numpy", None))
        buffers[name] = _Buffer(of[name], memory, storage, given[name])
    return buffers


def _given(out: Any) -> dict[str, Any]:
    if out is None:
        out = (None, None, None)
    if not isinstance(out, tuple | list) or len(out) != len(GRADIENTS):
        raise TypeError(
            f"out must be LinearGradients or three arrays, or None for new memory, got "
            f"{type(out).__name__}"
        )
    return dict(zip(GRADIENTS, out, strict=True))


def _accumulators(module: Any, job: Any, buffers: dict[str, _Buffer]) -> Any:
    """Where gradients are computed: in their buffers if type and layout allow."""
    return module.accumulators(job, {name: (b.memory, b.storage) for name, b in buffers.items()})


def _finished(module: Any, job: Any, buffers: dict[str, _Buffer], gradients: Any) -> Any:
    """Return the gradients, in their buffers."""
    module.finish(job, gradients)
    return LinearGradients(*(buffers[n].result if n in buffers else None for n in GRADIENTS))
