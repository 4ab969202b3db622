"""Linear cross-entropy beside the bare matrix products it is made of, and beside torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastinfo
from benchmarks import shapes
from fastinfo.bench import Case

# Classes of a product in which the bare ones are timed, beside the whole at once.
BLOCKS = (4096, 8192, 16384)
CHECKED_ROWS = 8

Head = tuple[int, int, int]


@functools.cache
def hidden(shape: Head) -> np.ndarray:
    """Return hidden states (M, D)."""
    m, d, _ = shape
    return np.random.default_rng(5).standard_normal((m, d), np.float32)


@functools.cache
def weight(shape: Head) -> np.ndarray:
    """Return a classifier (V, D) whose logits have a standard deviation of 3."""
    _, d, v = shape
    values = np.random.default_rng(6).standard_normal((v, d), np.float32)
    values *= np.float32(3 / np.sqrt(d))
    return values


def targets(shape: Head) -> np.ndarray:
    """Return one class a row."""
    return shapes.targets((shape[0], shape[2]))


def forget() -> None:
    """Let go of all data made so far."""
    hidden.cache_clear()
    weight.cache_clear()


def _operations(shape: Head) -> int:
    m, d, v = shape
    return 2 * m * d * v


def _logits_product(shape: Head, block: int) -> None:
    m, _, v = shape
    h, w, z = hidden(shape), weight(shape), shapes.buffer((m, block), "float32", "logits")
    for lo in range(0, v, block):
        part = w[lo : lo + block]
        np.matmul(h, part.T, out=z[:, : len(part)])


def _three_products(shape: Head, block: int) -> None:
    m, d, v = shape
    h, w, z = hidden(shape), weight(shape), shapes.buffer((m, block), "float32", "logits")
    by_hidden = shapes.buffer((m, d), "float32", "by hidden")
    by_weight = shapes.buffer((v, d), "float32", "by weight")
    for lo in range(0, v, block):
        part, g = w[lo : lo + block], z[:, : min(block, v - lo)]
        np.matmul(h, part.T, out=g)
        np.matmul(g, part, out=by_hidden)
        np.matmul(g.T, h, out=by_weight[lo : lo + block])


def _bare(
    shape: Head, products: Callable[[Head, int], None], group: str, times: int
) -> Iterator[Case]:
    """Products alone, in blocks of several sizes; the fastest is the ceiling."""
    for block in (*BLOCKS, shape[2]):
        if block <= shape[2]:
            at_once = "whole" if block == shape[2] else f"{block} classes at a time"
            yield Case(
                f"{group}, {at_once}",
                functools.partial(products, shape, block),
                work=times * _operations(shape),
                unit="flop",
                group=group,
            )


@functools.cache
def _exact(shape: Head) -> tuple[np.ndarray, np.ndarray]:
    """Losses of some rows, and their derivatives by the hidden states, in float64."""
    h, w = hidden(shape)[:CHECKED_ROWS].astype(np.float64), weight(shape).astype(np.float64)
    rows, gradient = fastinfo.softmax_cross_entropy(
        h @ w.T, targets(shape)[:CHECKED_ROWS], reduction="none", return_grad=True
    )
    return rows, gradient @ w


def _call(shape: Head, rows: int | None = None, **options: Any) -> Any:
    return fastinfo.linear_cross_entropy(
        hidden(shape)[:rows], weight(shape), targets(shape)[:rows], **options
    )


def _loss_error(shape: Head) -> float:
    exact = _exact(shape)[0]
    found = _call(shape, CHECKED_ROWS, reduction="none")
    return float(np.max(np.abs(found - exact) / exact))


def _gradient_error(shape: Head) -> float:
    exact = _exact(shape)[1]
    gradients = _call(shape, CHECKED_ROWS, reduction="sum", return_grad=True, need_grad="hidden")[1]
    return float(np.max(np.abs(gradients.hidden - exact)) / np.max(np.abs(exact)))


def _loss_case(shape: Head) -> Case:
    return Case(
        "linear_cross_entropy, float32",
        lambda: _call(shape),
        work=_operations(shape),
        unit="flop",
        ceiling="product",
        error=lambda _: _loss_error(shape),
    )


def many_rows(shape: Head) -> list[Case]:
    """Loss, and loss with all gradients, of many rows."""
    return [
        *_bare(shape, _logits_product, "product", 1),
        *_bare(shape, _three_products, "three products", 3),
        _loss_case(shape),
        *_gradient_cases(shape),
    ]


def _gradient_cases(shape: Head) -> Iterator[Case]:
    """Loss and all gradients, in buffers as the bare products, and in memory made in the call."""

    def into_buffers() -> Any:
        m, d, v = shape
        by_hidden = shapes.buffer((m, d), "float32", "by hidden")
        by_weight = shapes.buffer((v, d), "float32", "by weight")
        return _call(shape, return_grad=True, out=(by_hidden, by_weight, None))

    calls = {"buffer": into_buffers, "new memory": lambda: _call(shape, return_grad=True)}
    for kind, call in calls.items():
        yield Case(
            f"linear_cross_entropy + gradients, float32, {kind}",
            call,
            work=3 * _operations(shape),
            unit="flop",
            ceiling="three products",
            error=lambda _: _gradient_error(shape),
            note="error of the gradient by hidden",
        )


def few_rows(shape: Head) -> list[Case]:
    """Loss of a few rows, bound by the reading of the classifier."""
    return [*_bare(shape, _logits_product, "product", 1), _loss_case(shape)]


def torch_eager(shape: Head, threads: int) -> Iterator[Case]:
    """`cross_entropy(hidden @ weight.T)`, forward, and forward and backward."""
    import torch

    torch.set_num_threads(threads)
    loss = torch.nn.functional.cross_entropy

    def data() -> tuple[Any, Any, Any]:
        return tuple(torch.from_numpy(f(shape)) for f in (hidden, weight, targets))  # type: ignore[return-value]

    def forward() -> Any:
        h, w, y = data()
        with torch.no_grad():
            return loss(h @ w.T, y)

    def both() -> Any:
        h, w, y = data()
        h, w = h.detach().requires_grad_(), w.detach().requires_grad_()
        loss(h @ w.T, y).backward()
        return h.grad

    for name, call, times in (("", forward, 1), (" + gradients", both, 3)):
        yield Case(
            f"torch eager linear + cross_entropy{name}, float32",
            call,
            work=times * _operations(shape),
            unit="flop",
            peer=True,
        )
